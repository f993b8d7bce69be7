//! Cached translations: leaves of stage 1 walks, and their invalidation (3.17, 4.4).
//!
//! An entry is a whole page or block, found by its first address, its size and its address space. Blocks are not
//! split, so that one removal takes all of them. Table descriptors are not cached. The contiguous hint is not used.

use std::sync::atomic::{AtomicU64, Ordering};

use vmsa::{Granule, Leaf, Permissions};

use tcache::{Age, Aged, Cache, Key, LeastAge, LeastAges};

const WAYS: usize = 4;
const LOG2_SETS: u32 = 11;

/// Whose translations: what entries are tagged with. With stage 2 the VMID joins the ASID here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) asid: u16,
}

/// A cached translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// Physical address of the page or block.
    pub(crate) pa: u64,
    /// Log2 of its size.
    pub(crate) size_log2: u32,
    pub(crate) permissions: Permissions,
    /// Belongs to every ASID.
    pub(crate) global: bool,
}

impl Translation {
    pub(crate) fn of(leaf: &Leaf, permissions: Permissions) -> Self {
        Self { pa: leaf.pa, size_log2: u32::from(leaf.size_log2), permissions, global: !leaf.attributes.ng() }
    }

    const GLOBAL: u64 = 1 << 8;

    // pa is at least 4 KiB aligned and below 2^56; the low bits carry the rest.
    fn pack(self) -> [u64; 1] {
        let global = if self.global { Self::GLOBAL } else { 0 };
        [self.pa | u64::from(self.permissions.bits()) | global]
    }

    fn unpack([word]: [u64; 1], size_log2: u32) -> Self {
        Self {
            pa: word & !0xfff,
            size_log2,
            permissions: Permissions::from_bits(word as u8),
            global: word & Self::GLOBAL != 0,
        }
    }
}

/// Address bits that a translation can depend on: below the sign bit, and the sign bit (55) itself.
const VA_MASK: u64 = (1 << 56) - 1;

fn key(space: Space, va: u64, size_log2: u32) -> Key {
    // The size is above zero, so a key is never empty.
    [(va & VA_MASK) >> size_log2, u64::from(space.asid) << 16 | u64::from(size_log2)]
}

/// The translation lookaside buffer.
#[derive(Debug)]
pub(crate) struct Tlb {
    entries: Cache<WAYS, 1>,
    /// Sizes (bit n: 2^n bytes) that have ever been put in: where to look.
    sizes: AtomicU64,
    least_of_asid: LeastAges,
    least_of_all: LeastAge,
    /// What global entries need besides: they fall with any invalidation by address that may mean them.
    least_of_global: LeastAge,
}

/// Pages of one range invalidation that are looked up one by one. Larger ranges drop the whole ASID: over-invalidation
/// is always allowed, and the cost of a command is bounded.
const RANGE_LIMIT: u64 = 128;

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            entries: Cache::new(LOG2_SETS),
            sizes: AtomicU64::new(0),
            least_of_asid: LeastAges::default(),
            least_of_all: LeastAge::default(),
            least_of_global: LeastAge::default(),
        }
    }

    /// The translation of `va`, if it is here and still good.
    #[inline]
    pub(crate) fn get(&self, space: Space, va: u64) -> Option<Translation> {
        let mut sizes = self.sizes.load(Ordering::Relaxed);
        while sizes != 0 {
            let size_log2 = sizes.trailing_zeros();
            sizes &= sizes - 1;
            let Some(Aged { age, data }) = self.entries.get(key(space, va, size_log2)) else { continue };
            let found = Translation::unpack(data, size_log2);
            let mut least = self.least_of_asid.of(space.asid.into()).max(self.least_of_all.get());
            if found.global {
                least = least.max(self.least_of_global.get());
            }
            if age >= least {
                return Some(found);
            }
        }
        None
    }

    /// Keeps a translation that was looked up from `age` on.
    pub(crate) fn insert(&self, space: Space, va: u64, age: u64, translation: Translation) {
        let size = 1 << translation.size_log2;
        if self.sizes.load(Ordering::Relaxed) & size == 0 {
            self.sizes.fetch_or(size, Ordering::Relaxed);
        }
        self.entries.insert(key(space, va, translation.size_log2), Aged { age, data: translation.pack() });
    }

    /// CMD_TLBI_NSNH_ALL, and what is wider than needed but rare.
    pub(crate) fn invalidate_all(&self, age: &Age) {
        self.least_of_all.raise(age.advance());
    }

    /// CMD_TLBI_NH_ASID. Takes global entries that came in under this ASID along.
    pub(crate) fn invalidate_asid(&self, age: &Age, space: Space) {
        self.least_of_asid.raise(space.asid.into(), age.advance());
    }

    /// CMD_TLBI_NH_VA without range: everything that translates `va`, at any size.
    pub(crate) fn invalidate_va(&self, age: &Age, space: Space, va: u64) {
        let now = age.advance();
        for size_log2 in LEAF_SIZES {
            self.entries.remove(key(space, va, size_log2), now);
        }
        self.least_of_global.raise(now);
    }

    /// CMD_TLBI_NH_VA with range: `granules` of `granule` from `va`.
    pub(crate) fn invalidate_range(&self, age: &Age, space: Space, va: u64, granule: Granule, granules: u64) {
        let page = granule.page_shift();
        let Some(bytes) = granules.checked_mul(1 << page).filter(|_| granules <= RANGE_LIMIT) else {
            let now = age.advance();
            self.least_of_asid.raise(space.asid.into(), now);
            self.least_of_global.raise(now);
            return;
        };
        let now = age.advance();
        let first = va & (u64::MAX << page);
        let last = first.saturating_add(bytes - 1);
        for level in 0..=3 {
            let shift = granule.level_shift(level);
            if shift > 42 {
                continue; // no leaf is that large
            }
            for index in first >> shift..=last >> shift {
                self.entries.remove(key(space, index << shift, shift), now);
            }
        }
        self.least_of_global.raise(now);
    }
}

/// Log2 of the sizes that pages and blocks can have, over all granules.
const LEAF_SIZES: [u32; 8] = [12, 14, 16, 21, 25, 29, 30, 42];

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space { asid: 3 };

    fn page(pa: u64, size_log2: u32, global: bool) -> Translation {
        Translation { pa, size_log2, permissions: Permissions::UR, global }
    }

    #[test]
    fn every_leaf_size_of_every_granule_is_known() {
        for granule in Granule::ALL {
            for level in 0..=3u8 {
                if level == 3 || granule.block_at(level, 52) {
                    assert!(LEAF_SIZES.contains(&granule.level_shift(level)), "{granule:?} {level}");
                }
            }
        }
    }

    #[test]
    fn block_is_found_by_any_address_in_it_and_removed_by_any() {
        let (tlb, age) = (Tlb::new(), Age::default());
        tlb.insert(SPACE, 0x20_0000, 0, page(0x4000_0000, 21, false));
        assert_eq!(tlb.get(SPACE, 0x3f_ffff), Some(page(0x4000_0000, 21, false)));
        assert_eq!(tlb.get(SPACE, 0x40_0000), None);
        assert_eq!(tlb.get(Space { asid: 4 }, 0x20_0000), None);
        tlb.invalidate_range(&age, SPACE, 0x31_0000, Granule::K4, 1);
        assert_eq!(tlb.get(SPACE, 0x20_0000), None);
        tlb.insert(SPACE, 0x20_0000, age.now(), page(0x4000_0000, 21, false));
        tlb.invalidate_va(&age, SPACE, 0x3f_f000);
        assert_eq!(tlb.get(SPACE, 0x20_0000), None);
    }

    #[test]
    fn range_takes_its_pages_and_leaves_others() {
        let (tlb, age) = (Tlb::new(), Age::default());
        for n in 0..8 {
            tlb.insert(SPACE, n << 12, 0, page(n << 12, 12, false));
        }
        tlb.invalidate_range(&age, SPACE, 2 << 12, Granule::K4, 4);
        let kept: Vec<u64> = (0..8).filter(|n| tlb.get(SPACE, n << 12).is_some()).collect();
        assert_eq!(kept, [0, 1, 6, 7]);
    }

    #[test]
    fn largest_ranges_end_quickly_and_take_the_asid() {
        let (tlb, age) = (Tlb::new(), Age::default());
        tlb.insert(SPACE, 0x1000, 0, page(0x1000, 12, false));
        tlb.invalidate_range(&age, SPACE, u64::MAX, Granule::K64, u64::MAX);
        tlb.invalidate_range(&age, SPACE, u64::MAX, Granule::K64, RANGE_LIMIT);
        assert_eq!(tlb.get(SPACE, 0x1000), None);
    }

    #[test]
    fn global_entry_falls_with_an_invalidation_of_another_asid_by_address() {
        let (tlb, age) = (Tlb::new(), Age::default());
        tlb.insert(SPACE, 0x1000, 0, page(0x5000, 12, true));
        tlb.invalidate_va(&age, Space { asid: 9 }, 0x1000);
        assert_eq!(tlb.get(SPACE, 0x1000), None);
    }

    #[test]
    fn walk_under_way_during_an_invalidation_leaves_no_entry() {
        let (tlb, age) = (Tlb::new(), Age::default());
        let began = age.now();
        tlb.invalidate_va(&age, SPACE, 0x1000);
        tlb.insert(SPACE, 0x1000, began, page(0x5000, 12, false));
        assert_eq!(tlb.get(SPACE, 0x1000), None);
        let began = age.now();
        tlb.invalidate_asid(&age, SPACE);
        tlb.insert(SPACE, 0x1000, began, page(0x5000, 12, false));
        assert_eq!(tlb.get(SPACE, 0x1000), None);
        tlb.insert(SPACE, 0x1000, age.now(), page(0x5000, 12, false));
        assert!(tlb.get(SPACE, 0x1000).is_some());
    }
}
