//! Hardware update of access flag and dirty state (FEAT_HAFDBS, D8.4.6): what a leaf becomes by an access.
//!
//! A page with DBM set and without write permission is *writable-clean*: while dirty state is managed it counts as
//! writable, and the first write makes it so in memory. The caller checks permissions first, then updates, and
//! walks again if the descriptor has changed meanwhile.

use crate::{ExternalAbort, Leaf, LeafDescriptor, Stage2Descriptor, TableMemory};

/// Tables that a walker may change.
pub trait UpdatableMemory: TableMemory {
    /// Replaces the aligned little-endian doubleword at `pa` if it still is `expected`; whether it was.
    ///
    /// # Errors
    /// [`ExternalAbort`], if there is no memory.
    fn replace(&self, pa: u64, expected: u64, new: u64) -> Result<bool, ExternalAbort>;
}

impl UpdatableMemory for hw::Ram {
    fn replace(&self, pa: u64, expected: u64, new: u64) -> Result<bool, ExternalAbort> {
        self.compare_exchange_u64(hw::Pa(pa), expected, new)
            .map(|found| found.is_ok())
            .map_err(|_| ExternalAbort)
    }
}

/// What hardware manages. Dirty state is managed only together with the access flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Managed {
    /// Access flag (HA).
    pub access_flag: bool,
    /// Dirty state (HD).
    pub dirty: bool,
}

impl Managed {
    /// From HA and HD; HD without HA does nothing.
    #[inline]
    #[must_use]
    pub const fn new(ha: bool, hd: bool) -> Self {
        Self { access_flag: ha, dirty: ha && hd }
    }

    /// The stage 1 attributes that permissions are taken from, and whether the page is writable-clean.
    #[inline]
    #[must_use]
    pub const fn stage1(self, leaf: &Leaf) -> (LeafDescriptor, bool) {
        let attributes = leaf.attributes;
        // With APTable against it DBM is already gone.
        let clean = self.dirty && attributes.dbm() && attributes.ap_read_only();
        (if clean { attributes.with_ap_read_only(false) } else { attributes }, clean)
    }

    /// The stage 2 attributes that permissions are taken from, and whether the page is writable-clean.
    #[inline]
    #[must_use]
    pub const fn stage2(self, leaf: &Leaf) -> (Stage2Descriptor, bool) {
        let attributes = leaf.stage2();
        let clean = self.dirty && attributes.dbm() && !attributes.s2ap_write();
        (if clean { attributes.with_s2ap_write(true) } else { attributes }, clean)
    }

    /// What the stage 1 descriptor of `leaf` must become before an access that it permits.
    #[inline]
    #[must_use]
    pub const fn stage1_update(self, leaf: &Leaf, is_write: bool) -> Option<u64> {
        let mut new = LeafDescriptor::from_bits(leaf.descriptor);
        if self.access_flag {
            new = new.with_af(true);
        }
        if is_write && self.stage1(leaf).1 {
            new = new.with_ap_read_only(false);
        }
        changed(leaf.descriptor, new.into_bits())
    }

    /// What the stage 2 descriptor of `leaf` must become before an access that it permits.
    #[inline]
    #[must_use]
    pub const fn stage2_update(self, leaf: &Leaf, is_write: bool) -> Option<u64> {
        let mut new = leaf.stage2();
        if self.access_flag {
            new = new.with_af(true);
        }
        if is_write && self.stage2(leaf).1 {
            new = new.with_s2ap_write(true);
        }
        changed(leaf.descriptor, new.into_bits())
    }
}

#[inline]
const fn changed(old: u64, new: u64) -> Option<u64> {
    if old == new { None } else { Some(new) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granule, WalkParams, walk};

    const AF: u64 = 1 << 10;
    const RO: u64 = 1 << 7;
    const S2_WRITE: u64 = 1 << 7;
    const DBM: u64 = 1 << 51;

    struct OneTable(u64);

    impl TableMemory for OneTable {
        fn load(&self, _: u64) -> Result<u64, ExternalAbort> {
            Ok(self.0)
        }
    }

    fn leaf(bits: u64) -> Leaf {
        let params = WalkParams {
            start_level: 3,
            access_flag_ignored: true,
            ..WalkParams::stage1(0, Granule::K4, 25, 48)
        };
        walk(&params, 0, &OneTable(bits | 3)).unwrap()
    }

    #[test]
    fn access_sets_the_access_flag_and_nothing_else() {
        let ha = Managed::new(true, false);
        assert_eq!(ha.stage1_update(&leaf(RO | DBM), true), Some(RO | DBM | AF | 3));
        assert_eq!(ha.stage2_update(&leaf(DBM), true), Some(DBM | AF | 3));
        assert_eq!(ha.stage1_update(&leaf(AF), true), None);
    }

    #[test]
    fn write_to_a_writable_clean_page_makes_it_dirty_and_a_read_does_not() {
        let hd = Managed::new(true, true);
        assert_eq!(hd.stage1_update(&leaf(RO | DBM | AF), true), Some(DBM | AF | 3));
        assert_eq!(hd.stage1_update(&leaf(RO | DBM | AF), false), None);
        assert_eq!(hd.stage1_update(&leaf(RO | AF), true), None, "without DBM it is read-only");
        assert_eq!(hd.stage2_update(&leaf(DBM | AF), true), Some(S2_WRITE | DBM | AF | 3));
        assert!(hd.stage1(&leaf(RO | DBM)).1 && hd.stage2(&leaf(DBM)).1);
    }

    #[test]
    fn dirty_state_is_managed_only_with_the_access_flag() {
        assert_eq!(Managed::new(false, true), Managed::default());
    }
}
