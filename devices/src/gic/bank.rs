//! Thirty-two interrupts with consecutive INTIDs: the state machine of IHI 0069, 4.1, as bit masks.

/// The priority bits that are implemented: 32 levels.
pub(super) const PRIORITY_MASK: u8 = 0xf8;

/// State and configuration of 32 interrupts, one bit (or byte) each.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// Group 1, else group 0.
    pub(super) group1: u32,
    pub(super) enabled: u32,
    pub(super) active: u32,
    /// Edge-triggered, else level-sensitive.
    pub(super) edge: u32,
    /// What made an interrupt pending and stays until it is acknowledged or cleared: an edge, or software.
    pub(super) latch: u32,
    /// The input wires.
    pub(super) line: u32,
    pub(super) priority: [u8; 32],
}

impl Bank {
    /// A bank at reset.
    pub(super) fn new(edge: u32, line: u32) -> Self {
        Self { group1: 0, enabled: 0, active: 0, edge, latch: 0, line, priority: [0; 32] }
    }

    /// The input wires' levels.
    pub(super) const fn lines(&self) -> u32 {
        self.line
    }

    /// Which are pending. A level-sensitive one is as long as its wire is high, also while active.
    pub(super) const fn pending(&self) -> u32 {
        self.latch | (self.line & !self.edge)
    }

    /// Which could be signalled, as far as this bank knows: pending, enabled, not active.
    pub(super) const fn ready(&self) -> u32 {
        self.pending() & self.enabled & !self.active
    }

    /// Drives a wire. Returns whether anything changed.
    pub(super) fn set_line(&mut self, bit: u32, high: bool) -> bool {
        let mask = 1u32.checked_shl(bit).unwrap_or(0);
        let was = self.line & mask != 0;
        if was == high {
            return false;
        }
        self.line ^= mask;
        if high {
            self.latch |= mask & self.edge;
        }
        true
    }

    /// Makes interrupts pending: an SGI, or a write to ISPENDR.
    pub(super) fn set_pending(&mut self, mask: u32) {
        self.latch |= mask;
    }

    /// A write to ICPENDR. It does not lower a wire.
    pub(super) fn clear_pending(&mut self, mask: u32) {
        self.latch &= !mask;
    }

    /// Pending becomes active; a level-sensitive one whose wire is still high becomes active and pending.
    pub(super) fn acknowledge(&mut self, bit: u32) {
        let mask = 1u32.checked_shl(bit).unwrap_or(0);
        self.latch &= !mask;
        self.active |= mask;
    }

    /// Four priorities, as IPRIORITYR has them.
    pub(super) fn priorities(&self, word: usize) -> u32 {
        self.priority
            .iter()
            .skip(4 * word)
            .take(4)
            .rev()
            .fold(0, |value, &priority| value << 8 | u32::from(priority))
    }

    /// A write to IPRIORITYR.
    pub(super) fn set_priorities(&mut self, word: usize, value: u32) {
        for (priority, byte) in self.priority.iter_mut().skip(4 * word).zip(value.to_le_bytes()) {
            *priority = byte & PRIORITY_MASK;
        }
    }

    /// Half of the triggers, as ICFGR has them: two bits for each of sixteen interrupts, the upper one says edge.
    pub(super) fn config(&self, high_half: bool) -> u32 {
        let edges = if high_half { self.edge >> 16 } else { self.edge };
        (0..16).fold(0, |value, bit| value | (edges >> bit & 1) << (2 * bit + 1))
    }

    /// A write to ICFGR.
    pub(super) fn set_config(&mut self, high_half: bool, value: u32) {
        let edges = (0..16).fold(0, |edges, bit| edges | (value >> (2 * bit + 1) & 1) << bit);
        self.edge =
            if high_half { self.edge & 0xffff | edges << 16 } else { self.edge & 0xffff_0000 | edges };
    }
}

/// The numbers of the bits that are set, ascending.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 32).then_some(bit)
    })
}
