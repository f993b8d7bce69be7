//! Cached translations: leaves of stage 1 walks, and their invalidation (3.17, 4.4).
//!
//! An entry is a whole page or block, found by its first address, its size and its address space. Blocks are not
//! split, so that one removal takes all of them. Table descriptors are not cached. The contiguous hint is not used.

use std::sync::atomic::{AtomicU64, Ordering};

use tcache::{Age, Aged, Cache, Key, LeastAge, LeastAges};
use vmsa::{Granule, Permissions};

use crate::context::World;
use crate::stream::StreamConfig;

const WAYS: usize = 4;
const LOG2_SETS: u32 = 11;

/// The address space of translations: what entries are tagged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) world: World,
    pub(crate) stages: Stages,
    pub(crate) vmid: u16,
    pub(crate) asid: u16,
}

/// The stages that a translation comes from. Streams with and without stage 2 don't share entries, even if software
/// gives them the same tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stages {
    One = 0,
    Two = 1,
    Both = 2,
}

impl Space {
    #[inline]
    pub(crate) fn of(config: &StreamConfig) -> Self {
        let (stages, asid) = match (&config.stage1, config.stage2.is_some()) {
            (Some(cd), true) => (Stages::Both, cd.d0.asid()),
            (Some(cd), false) => (Stages::One, cd.d0.asid()),
            (None, _) => (Stages::Two, 0),
        };
        let asid = if config.world == World::El2 { 0 } else { asid };
        Self { world: config.world, stages, vmid: config.vmid, asid }
    }

    /// The number of the ASID in [`LeastAges`].
    #[inline]
    fn asid_number(self) -> u32 {
        u32::from(self.asid) ^ u32::from(self.vmid).wrapping_mul(0x9e5) ^ (self.world as u32) << 10
    }

    /// EL1's space with stage 1 alone.
    pub(crate) const fn el1(vmid: u16, asid: u16) -> Self {
        Self { world: World::El1, stages: Stages::One, vmid, asid }
    }

    /// EL2's space, with E2H or without.
    pub(crate) const fn el2(world: World, asid: u16) -> Self {
        let asid = if matches!(world, World::El2) { 0 } else { asid };
        Self { world, stages: Stages::One, vmid: 0, asid }
    }

    /// A virtual machine's intermediate physical addresses.
    pub(crate) const fn ipa(vmid: u16) -> Self {
        Self { world: World::El1, stages: Stages::Two, vmid, asid: 0 }
    }

    const fn with(self, stages: Stages) -> Self {
        Self { stages, ..self }
    }
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
    /// Stage 1 has a larger page here than stage 2: an invalidation of any address in that page invalidates this
    /// entry.
    pub(crate) fractured: bool,
}

impl Translation {
    const GLOBAL: u64 = 1 << 8;
    const FRACTURED: u64 = 1 << 9;

    // pa is at least 4 KiB aligned and below 2^56; the low bits carry the rest.
    fn pack(self) -> [u64; 1] {
        let global = if self.global { Self::GLOBAL } else { 0 };
        let fractured = if self.fractured { Self::FRACTURED } else { 0 };
        [self.pa | u64::from(self.permissions.bits()) | global | fractured]
    }

    fn unpack([word]: [u64; 1], size_log2: u32) -> Self {
        Self {
            pa: word & !0xfff,
            size_log2,
            permissions: Permissions::from_bits(word as u8),
            global: word & Self::GLOBAL != 0,
            fractured: word & Self::FRACTURED != 0,
        }
    }
}

/// Address bits that a translation can depend on: below the sign bit, and the sign bit (55) itself.
const VA_MASK: u64 = (1 << 56) - 1;

fn key(space: Space, va: u64, size_log2: u32) -> Key {
    // The size is above zero, so a key is never empty.
    let Space { world, stages, vmid, asid } = space;
    let tags = u64::from(vmid) << 32 | u64::from(asid) << 16 | (world as u64) << 10 | (stages as u64) << 8;
    [(va & VA_MASK) >> size_log2, tags | u64::from(size_log2)]
}

/// The translation lookaside buffer.
#[derive(Debug)]
pub(crate) struct Tlb {
    entries: Cache<WAYS, 1>,
    /// Sizes of the entries that have been inserted (bit n: 2^n bytes), which are those that a lookup tries.
    sizes: AtomicU64,
    least_of_all: LeastAge,
    least_of_asid: LeastAges,
    least_of_vmid: LeastAges,
    /// A further least age of translations of both stages, by VMID: each invalidation of stage 2 raises it.
    least_of_nested: LeastAges,
    /// A further least age of global and fractured entries: each invalidation by address raises it.
    least_of_shared: LeastAge,
}

/// What an invalidation by address covers (4.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// One address, whatever the size of its translation.
    Single,
    /// So many granules.
    Granules(Granule, u64),
}

/// Pages of one range invalidation that are looked up one by one. Larger ranges drop the whole ASID: over-invalidation
/// is always allowed, and the cost of a command is bounded.
const RANGE_LIMIT: u64 = 128;

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            entries: Cache::new(LOG2_SETS),
            sizes: AtomicU64::new(0),
            least_of_all: LeastAge::default(),
            least_of_asid: LeastAges::default(),
            least_of_vmid: LeastAges::default(),
            least_of_nested: LeastAges::default(),
            least_of_shared: LeastAge::default(),
        }
    }

    /// The translation of `va`, if there is one that has not been invalidated.
    #[inline]
    pub(crate) fn get(&self, space: Space, va: u64) -> Option<Translation> {
        let mut sizes = self.sizes.load(Ordering::Relaxed);
        while sizes != 0 {
            let size_log2 = sizes.trailing_zeros();
            sizes &= sizes - 1;
            let Some(Aged { age, data }) = self.entries.get(key(space, va, size_log2)) else { continue };
            let found = Translation::unpack(data, size_log2);
            if age >= self.least(space, &found) {
                return Some(found);
            }
        }
        None
    }

    #[inline]
    fn least(&self, space: Space, found: &Translation) -> u64 {
        let mut least = self.least_of_all.get().max(self.least_of_vmid.of(space.vmid.into()));
        if space.stages != Stages::Two {
            least = least.max(self.least_of_asid.of(space.asid_number()));
        }
        if space.stages == Stages::Both {
            least = least.max(self.least_of_nested.of(space.vmid.into()));
        }
        if found.global || found.fractured {
            least = least.max(self.least_of_shared.get());
        }
        least
    }

    /// Keeps a translation that was looked up from `age` on.
    pub(crate) fn insert(&self, space: Space, va: u64, age: u64, translation: Translation) {
        let size = 1 << translation.size_log2;
        if self.sizes.load(Ordering::Relaxed) & size == 0 {
            self.sizes.fetch_or(size, Ordering::Relaxed);
        }
        self.entries.insert(key(space, va, translation.size_log2), Aged { age, data: translation.pack() });
    }

    /// Back to the state of power-on. What is looked up from an age before on is refused from now on.
    pub(crate) fn reset(&self, age: &Age) {
        self.invalidate_all(age);
        // After it: a size that an earlier access still adds is one more place to look, no wrong entry.
        self.sizes.store(0, Ordering::Relaxed);
    }

    /// CMD_TLBI_NSNH_ALL, and commands that are rare enough for a wider invalidation than they ask for.
    pub(crate) fn invalidate_all(&self, age: &Age) {
        self.least_of_all.raise(age.advance());
    }

    /// CMD_TLBI_NH_ALL, CMD_TLBI_NH_VAA, CMD_TLBI_S12_VMALL. Entries of EL2 have VMID 0 and are invalidated with it.
    pub(crate) fn invalidate_vmid(&self, age: &Age, vmid: u16) {
        self.least_of_vmid.raise(vmid.into(), age.advance());
    }

    /// CMD_TLBI_NH_ASID, CMD_TLBI_EL2_ASID. Global entries that were looked up with this ASID are invalidated too.
    pub(crate) fn invalidate_asid(&self, age: &Age, space: Space) {
        self.least_of_asid.raise(space.asid_number(), age.advance());
    }

    /// CMD_TLBI_NH_VA, CMD_TLBI_EL2_VA: in `space`, which is one of stage 1 alone, and for EL1 in the same space with
    /// both stages.
    pub(crate) fn invalidate_va(&self, age: &Age, space: Space, va: u64, extent: Extent) {
        let now = age.advance();
        let removed = self.remove(space, va, extent, now)
            && (space.world != World::El1 || self.remove(space.with(Stages::Both), va, extent, now));
        if !removed {
            self.least_of_asid.raise(space.asid_number(), now);
        }
        self.least_of_shared.raise(now);
    }

    /// CMD_TLBI_S2_IPA.
    pub(crate) fn invalidate_ipa(&self, age: &Age, vmid: u16, ipa: u64, extent: Extent) {
        let now = age.advance();
        if !self.remove(Space::ipa(vmid), ipa, extent, now) {
            self.least_of_vmid.raise(vmid.into(), now);
        }
        self.least_of_nested.raise(vmid.into(), now);
    }

    /// Removes what translates addresses of an extent, unless it is too large.
    fn remove(&self, space: Space, va: u64, extent: Extent, now: u64) -> bool {
        let Extent::Granules(granule, granules) = extent else {
            for size_log2 in LEAF_SIZES {
                self.entries.remove(key(space, va, size_log2), now);
            }
            return true;
        };
        let page = granule.page_shift();
        if granules > RANGE_LIMIT {
            return false;
        }
        let first = va & (u64::MAX << page);
        let last = first.saturating_add((granules << page) - 1);
        // With stage 2, entries may have sizes of the granule of stage 2.
        for shift in LEAF_SIZES {
            if last >> shift >= (first >> shift) + RANGE_LIMIT {
                // Entries smaller than the granule are parts of a page of stage 1, and fractured.
                continue;
            }
            for index in first >> shift..=last >> shift {
                self.entries.remove(key(space, index << shift, shift), now);
            }
        }
        true
    }
}

/// Log2 of the sizes that pages and blocks can have, over all granules.
const LEAF_SIZES: [u32; 8] = [12, 14, 16, 21, 25, 29, 30, 42];

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space::el1(0, 3);

    fn page(pa: u64, size_log2: u32, global: bool) -> Translation {
        Translation { pa, size_log2, permissions: Permissions::UR, global, fractured: false }
    }

    #[test]
    fn every_leaf_size_of_every_granule_is_known() {
        for granule in Granule::ALL {
            for level in 0..=3u8 {
                if level == 3 || granule.block_at(level, true) {
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
        assert_eq!(tlb.get(Space::el1(0, 4), 0x20_0000), None);
        tlb.invalidate_va(&age, SPACE, 0x31_0000, Extent::Granules(Granule::K4, 1));
        assert_eq!(tlb.get(SPACE, 0x20_0000), None);
        tlb.insert(SPACE, 0x20_0000, age.now(), page(0x4000_0000, 21, false));
        tlb.invalidate_va(&age, SPACE, 0x3f_f000, Extent::Single);
        assert_eq!(tlb.get(SPACE, 0x20_0000), None);
    }

    #[test]
    fn range_takes_its_pages_and_leaves_others() {
        let (tlb, age) = (Tlb::new(), Age::default());
        for n in 0..8 {
            tlb.insert(SPACE, n << 12, 0, page(n << 12, 12, false));
        }
        tlb.invalidate_va(&age, SPACE, 2 << 12, Extent::Granules(Granule::K4, 4));
        let kept: Vec<u64> = (0..8).filter(|n| tlb.get(SPACE, n << 12).is_some()).collect();
        assert_eq!(kept, [0, 1, 6, 7]);
    }

    #[test]
    fn largest_ranges_end_quickly_and_take_the_asid() {
        let (tlb, age) = (Tlb::new(), Age::default());
        tlb.insert(SPACE, 0x1000, 0, page(0x1000, 12, false));
        tlb.invalidate_va(&age, SPACE, u64::MAX, Extent::Granules(Granule::K64, u64::MAX));
        tlb.invalidate_va(&age, SPACE, u64::MAX, Extent::Granules(Granule::K64, RANGE_LIMIT));
        assert_eq!(tlb.get(SPACE, 0x1000), None);
    }

    #[test]
    fn global_entry_falls_with_an_invalidation_of_another_asid_by_address() {
        let (tlb, age) = (Tlb::new(), Age::default());
        tlb.insert(SPACE, 0x1000, 0, page(0x5000, 12, true));
        tlb.invalidate_va(&age, Space::el1(0, 9), 0x1000, Extent::Single);
        assert_eq!(tlb.get(SPACE, 0x1000), None);
    }

    #[test]
    fn walk_under_way_during_an_invalidation_leaves_no_entry() {
        let (tlb, age) = (Tlb::new(), Age::default());
        let began = age.now();
        tlb.invalidate_va(&age, SPACE, 0x1000, Extent::Single);
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
