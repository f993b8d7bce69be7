//! Index arithmetic of the circular queues (3.5.1): where entries are, and when a queue is empty, full or
//! inconsistent.

use crate::spec::regs::QueueBase;

/// A queue's place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    base: u64,
    log2size: u32,
    entry_bytes: u64,
}

impl Ring {
    /// The queue that a base register describes. Sizes above `max_log2` count as that (6.3, LOG2SIZE); the address
    /// is aligned to the queue's size, at least 32 bytes, and truncated to the physical address space.
    pub(crate) fn new(base: QueueBase, max_log2: u8, entry_bytes: u64, output_mask: u64) -> Self {
        let log2size = u32::from(base.log2size().min(max_log2));
        let align = (entry_bytes << log2size).max(32);
        Self { base: base.addr_55_5() << 5 & output_mask & !(align - 1), log2size, entry_bytes }
    }

    /// Index and wrap bits of a queue register.
    pub(crate) const fn index_mask(&self) -> u32 {
        (1 << (self.log2size + 1)) - 1
    }

    /// Entries that the queue can hold.
    pub(crate) const fn capacity(&self) -> u32 {
        1 << self.log2size
    }

    /// Entries between `cons` and `prod`; `None` if no sequence of steps leads there.
    pub(crate) const fn len(&self, prod: u32, cons: u32) -> Option<u32> {
        let len = prod.wrapping_sub(cons) & self.index_mask();
        if len <= self.capacity() { Some(len) } else { None }
    }

    /// Whether nothing can be taken out. Inconsistent indexes count as empty here and as full in [`Self::is_full`]:
    /// neither consumer nor producer then moves.
    pub(crate) fn is_empty(&self, prod: u32, cons: u32) -> bool {
        matches!(self.len(prod, cons), None | Some(0))
    }

    /// Whether nothing can be put in.
    pub(crate) fn is_full(&self, prod: u32, cons: u32) -> bool {
        self.len(prod, cons).is_none_or(|len| len == self.capacity())
    }

    /// Physical address of the entry of an index.
    pub(crate) const fn entry(&self, index: u32) -> u64 {
        self.base + (index & (self.capacity() - 1)) as u64 * self.entry_bytes
    }

    /// The index after this one.
    pub(crate) const fn next(&self, index: u32) -> u32 {
        index.wrapping_add(1) & self.index_mask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(log2size: u8) -> Ring {
        let base = QueueBase::new().with_log2size(log2size).with_addr_55_5(0x1234_5678);
        Ring::new(base, 4, 16, u64::MAX >> 16)
    }

    #[test]
    fn queue_wraps_and_is_full_when_only_the_wrap_bits_differ() {
        let ring = ring(2);
        assert_eq!(ring.index_mask(), 7);
        assert!(ring.is_empty(3, 3) && !ring.is_full(3, 3));
        assert!(ring.is_full(7, 3) && !ring.is_empty(7, 3));
        assert_eq!(ring.next(7), 0);
        assert_eq!(ring.entry(7) - ring.entry(0), 48);
    }

    #[test]
    fn impossible_indexes_let_neither_side_move() {
        let ring = ring(2);
        assert!(ring.is_empty(5, 0) && ring.is_full(5, 0));
    }

    #[test]
    fn size_is_clamped_and_base_aligned_to_it() {
        let ring = ring(31);
        assert_eq!(ring.capacity(), 16);
        assert_eq!(ring.entry(0) % 256, 0);
        let top = Ring::new(QueueBase::from_bits(u64::MAX), 19, 32, (1 << 48) - 1);
        assert!(top.entry(u32::MAX) < 1 << 48);
    }
}
