//! Address ranges that blocks (more than a page) have mapped in a table: what an invalidation inside one concerns.

use super::untagged;

/// Address ranges of blocks that a table remembers.
const REGIONS: usize = 8;

/// Ranges of virtual addresses that blocks (more than a page) have mapped in a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regions {
    ranges: [(u64, u64); REGIONS],
    used: usize,
}

impl Regions {
    /// Adds the block of `1 << size_log2` bytes around `va`, whose tag does not count.
    pub(crate) fn add(&mut self, va: u64, size_log2: u8) {
        let va = untagged(va);
        let size = 1u64.checked_shl(u32::from(size_log2)).unwrap_or(0);
        let first = va & !size.wrapping_sub(1);
        let last = first.wrapping_add(size.wrapping_sub(1));
        let known = &mut self.ranges[..self.used];
        if known.iter().any(|&(lo, hi)| lo <= first && last <= hi) {
            return;
        }
        // Blocks of one mapping lie side by side and make one range.
        if let Some(range) =
            known.iter_mut().find(|(lo, hi)| first <= hi.saturating_add(1) && last.saturating_add(1) >= *lo)
        {
            *range = (range.0.min(first), range.1.max(last));
        } else if self.used < REGIONS {
            self.ranges[self.used] = (first, last);
            self.used += 1;
        } else {
            // No room: the nearest range grows over the gap, which costs only needless clearing.
            let gap = |&(lo, hi): &(u64, u64)| if hi < first { first - hi } else { lo - last };
            if let Some(range) = known.iter_mut().min_by_key(|range| gap(range)) {
                *range = (range.0.min(first), range.1.max(last));
            }
        }
    }

    /// Whether a block may map something between these addresses.
    #[must_use]
    pub(crate) fn meet(&self, first: u64, last: u64) -> bool {
        self.ranges[..self.used].iter().any(|&(lo, hi)| lo <= last && first <= hi)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }
}
