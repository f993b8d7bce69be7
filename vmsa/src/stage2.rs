//! Stage 2: descriptor attributes, where a walk may start, and what a page permits (D8.2.5, D8.3.1, D8.4.7).

use bitfield_struct::bitfield;

use crate::{Granule, Leaf, Permissions, WalkParams};

/// Stage 2 block or page descriptor (D8.3.1), with its address fields left out.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct Stage2Descriptor {
    #[bits(2)]
    pub descriptor_type: u8,
    /// MemAttr\[3:0\].
    #[bits(4)]
    pub mem_attr: u8,
    /// S2AP\[0\]: may be read.
    pub s2ap_read: bool,
    /// S2AP\[1\]: may be written.
    pub s2ap_write: bool,
    /// SH\[1:0\].
    #[bits(2)]
    pub sh: u8,
    /// Access flag.
    pub af: bool,
    #[bits(40)]
    _address: u64,
    /// Dirty bit modifier: a page without write permission that hardware may make writable.
    pub dbm: bool,
    /// Contiguous hint.
    pub contiguous: bool,
    /// XN\[1:0\]; without FEAT_XNX only XN\[1\] counts.
    #[bits(2)]
    pub xn: u8,
    #[bits(9)]
    _software_and_ignored: u16,
}

impl Stage2Descriptor {
    /// Whether the memory is of a Device type. With forced write-back (FEAT_S2FWB) the attributes mean other things.
    #[inline]
    #[must_use]
    pub const fn is_device(self, fwb: bool) -> bool {
        if fwb { self.mem_attr() & 0b100 == 0 } else { self.mem_attr() & 0b1100 == 0 }
    }
}

impl Leaf {
    /// Its descriptor as stage 2 reads it.
    #[inline]
    #[must_use]
    pub const fn stage2(&self) -> Stage2Descriptor {
        Stage2Descriptor::from_bits(self.descriptor)
    }
}

impl Permissions {
    /// The permissions that stage 2 attributes give. With `xnx` (FEAT_XNX), execution depends on privilege.
    #[inline]
    #[must_use]
    pub const fn stage2(leaf: Stage2Descriptor, xnx: bool) -> Self {
        let xn = if xnx { leaf.xn() } else { leaf.xn() & 0b10 };
        let mut permissions = Self::NONE;
        if leaf.s2ap_read() {
            permissions = permissions.or(Self::UR).or(Self::PR);
        }
        if leaf.s2ap_write() {
            permissions = permissions.or(Self::UW).or(Self::PW);
        }
        match xn {
            0b00 => permissions.or(Self::UX).or(Self::PX),
            0b01 => permissions.or(Self::UX),
            0b10 => permissions,
            _ => permissions.or(Self::PX),
        }
    }
}

impl WalkParams {
    /// A stage 2 walk from a start level that [`stage2_start`] has approved.
    #[inline]
    #[must_use]
    pub const fn stage2(
        ttb: u64,
        granule: Granule,
        input_bits: u32,
        output_bits: u32,
        start_level: u8,
    ) -> Self {
        Self {
            start_level,
            hierarchical_attrs_disabled: true,
            ..Self::stage1(ttb, granule, input_bits, output_bits)
        }
    }
}

/// The level that SL0 names, if a walk of `input_bits` may start there on a machine with `pa_bits` (D8.2.5): the first
/// table has at least two entries, and no more than sixteen full tables stand in its place. With small tables
/// (`small_tables`, FEAT_TTST) there is one more encoding.
#[must_use]
pub const fn stage2_start(
    granule: Granule,
    sl0: u8,
    input_bits: u32,
    pa_bits: u32,
    small_tables: bool,
) -> Option<u8> {
    let level = match (granule, sl0) {
        (Granule::K4, 3) if small_tables => 3,
        (Granule::K4, 0..=2) => 2 - sl0,
        (Granule::K16 | Granule::K64, 0..=2) => 3 - sl0,
        _ => return None,
    };
    let least_pa_bits = match (granule, sl0) {
        (Granule::K4 | Granule::K64, 2) => 44,
        (Granule::K16, 2) => 42,
        _ => 0,
    };
    let shift = granule.level_shift(level);
    let fits = input_bits > shift && input_bits - shift <= granule.bits_per_level() + 4;
    if fits && pa_bits >= least_pa_bits { Some(level) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_levels_are_those_of_the_architectures_table() {
        // Granule, SL0, level, least and most input bits.
        for (granule, sl0, level, least, most) in [
            (Granule::K4, 0, 2, 22, 34),
            (Granule::K4, 1, 1, 31, 43),
            (Granule::K4, 2, 0, 40, 52),
            (Granule::K16, 0, 3, 15, 29),
            (Granule::K16, 1, 2, 26, 40),
            (Granule::K16, 2, 1, 37, 51),
            (Granule::K64, 0, 3, 17, 33),
            (Granule::K64, 1, 2, 30, 46),
            (Granule::K64, 2, 1, 43, 59),
        ] {
            for bits in least..=most {
                let found = stage2_start(granule, sl0, bits, 48, false);
                assert_eq!(found, Some(level), "{granule:?} {sl0} {bits}");
            }
            assert_eq!(stage2_start(granule, sl0, most + 1, 48, false), None);
        }
        assert_eq!(stage2_start(Granule::K4, 2, 39, 48, false), None);
        assert_eq!(stage2_start(Granule::K4, 1, 30, 48, false), None);
        assert_eq!(stage2_start(Granule::K4, 3, 40, 48, false), None);
        assert_eq!(stage2_start(Granule::K4, 2, 40, 42, false), None, "four levels need 44 physical bits");
    }

    #[test]
    fn walk_of_the_last_level_alone_starts_there_with_small_tables_only() {
        for bits in 13..=25 {
            assert_eq!(stage2_start(Granule::K4, 3, bits, 48, true), Some(3));
            assert_eq!(stage2_start(Granule::K4, 3, bits, 48, false), None);
        }
        assert_eq!(stage2_start(Granule::K4, 3, 26, 48, true), None);
        assert_eq!(stage2_start(Granule::K64, 3, 20, 48, true), None, "another encoding has it");
    }

    #[test]
    fn execute_never_has_two_bits_with_xnx_and_one_without() {
        let leaf = |xn| Stage2Descriptor::new().with_s2ap_read(true).with_xn(xn);
        let executable = |xn, xnx| {
            let found = Permissions::stage2(leaf(xn), xnx);
            (found.contains(Permissions::UX), found.contains(Permissions::PX))
        };
        assert_eq!(
            [0, 1, 2, 3].map(|xn| executable(xn, true)),
            [(true, true), (true, false), (false, false), (false, true)]
        );
        assert_eq!(
            [0, 1, 2, 3].map(|xn| executable(xn, false)),
            [(true, true), (true, true), (false, false), (false, false)]
        );
    }

    #[test]
    fn s2ap_gives_reading_and_writing_apart() {
        let leaf = |bits: u64| Permissions::stage2(Stage2Descriptor::from(bits << 6 | 0b10 << 53), true);
        assert_eq!(leaf(0), Permissions::NONE);
        assert_eq!(leaf(1), Permissions::UR.or(Permissions::PR));
        assert_eq!(leaf(2), Permissions::UW.or(Permissions::PW));
    }
}
