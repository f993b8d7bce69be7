//! Behaviour by example, and the walker against a second one that is written for clarity alone.

use std::cell::Cell;
use std::collections::HashMap;

use proptest::prelude::*;

use crate::*;

/// Memory that holds what was put there and aborts elsewhere.
#[derive(Default)]
struct Sparse {
    words: HashMap<u64, u64>,
    loads: Cell<usize>,
}

impl Sparse {
    fn put(&mut self, pa: u64, word: u64) {
        self.words.insert(pa, word);
    }
}

impl TableMemory for Sparse {
    fn load(&self, pa: u64) -> Result<u64, ExternalAbort> {
        self.loads.set(self.loads.get() + 1);
        assert_eq!(pa % 8, 0, "descriptors are aligned");
        self.words.get(&pa).copied().ok_or(ExternalAbort)
    }
}

const AF: u64 = 1 << 10;
const PAGE: u64 = AF | 0b11;
const BLOCK: u64 = AF | 0b01;
const TABLE: u64 = 0b11;

fn fault(kind: WalkFaultKind, level: u8, descriptor_pa: u64) -> Result<Leaf, WalkFault> {
    Err(WalkFault { kind, level, descriptor_pa })
}

/// Four levels of 4 KiB tables at 0x1000, 0x2000, 0x3000, 0x4000, all through their entry 1.
fn four_levels(leaf: u64) -> (Sparse, WalkParams, u64) {
    let mut memory = Sparse::default();
    memory.put(0x1008, 0x2000 | TABLE);
    memory.put(0x2008, 0x3000 | TABLE);
    memory.put(0x3008, 0x4000 | TABLE);
    memory.put(0x4008, leaf);
    (memory, WalkParams::stage1(0x1000, Granule::K4, 48, 48), 0x0080_4020_1abc)
}

#[test]
fn four_level_walk_finds_the_page() {
    let (memory, params, va) = four_levels(0x8765_4321_0000 | PAGE | 1 << 6);
    let leaf = walk(&params, va, &memory).unwrap();
    assert_eq!((leaf.pa, leaf.size_log2, leaf.level), (0x8765_4321_0000, 12, 3));
    assert_eq!(leaf.translate(va), 0x8765_4321_0abc);
    assert_eq!(leaf.descriptor_pa, 0x4008);
    assert!(leaf.attributes.ap_el0() && !leaf.attributes.ap_read_only());
    assert_eq!(memory.loads.get(), 4);
}

#[test]
fn address_bits_above_the_input_size_are_ignored() {
    let (memory, params, va) = four_levels(0x5000 | PAGE);
    assert_eq!(walk(&params, va | 0xff << 56, &memory).unwrap().pa, 0x5000);
}

#[test]
fn start_level_follows_from_granule_and_input_size() {
    for (granule, input_bits, level) in [
        (Granule::K4, 48, 0),
        (Granule::K4, 40, 0),
        (Granule::K4, 39, 1),
        (Granule::K4, 31, 1),
        (Granule::K4, 30, 2),
        (Granule::K4, 25, 2),
        (Granule::K4, 21, 3),
        (Granule::K16, 48, 0),
        (Granule::K16, 47, 1),
        (Granule::K16, 36, 2),
        (Granule::K16, 25, 3),
        (Granule::K64, 52, 1),
        (Granule::K64, 48, 1),
        (Granule::K64, 42, 2),
        (Granule::K64, 29, 3),
    ] {
        assert_eq!(granule.start_level(input_bits), level, "{granule:?} {input_bits}");
    }
}

#[test]
fn blocks_are_permitted_at_some_levels_and_are_translation_faults_at_others() {
    for (granule, level, permitted) in [
        (Granule::K4, 0, false),
        (Granule::K4, 1, true),
        (Granule::K4, 2, true),
        (Granule::K4, 3, false),
        (Granule::K16, 1, false),
        (Granule::K16, 2, true),
        (Granule::K16, 3, false),
        (Granule::K64, 1, false),
        (Granule::K64, 2, true),
        (Granule::K64, 3, false),
    ] {
        let shift = granule.level_shift(level);
        // The table at `level` is the first when it alone resolves the input; level 0 of 4K needs 48 bits.
        let params = WalkParams::stage1(0x10_0000, granule, shift + 1, 48);
        let mut memory = Sparse::default();
        memory.put(0x10_0008, 1 << shift | BLOCK);
        let expected_level = granule.start_level(shift + 1);
        assert_eq!(expected_level, level);
        let result = walk(&params, 1 << shift | 0x123, &memory);
        if permitted {
            let leaf = result.unwrap();
            assert_eq!((leaf.pa, u32::from(leaf.size_log2), leaf.level), (1 << shift, shift, level));
        } else {
            assert_eq!(result, fault(WalkFaultKind::Translation, level, 0x10_0008), "{granule:?} {level}");
        }
    }
}

#[test]
fn four_tebibyte_block_needs_52_output_bits() {
    let mut memory = Sparse::default();
    memory.put(0x1_0008, BLOCK | 1 << 42 | 0x5000);
    let mut params = WalkParams::stage1(0x1_0000, Granule::K64, 52, 48);
    assert_eq!(walk(&params, 1 << 42, &memory), fault(WalkFaultKind::Translation, 1, 0x1_0008));
    (params.output_bits, params.pa52) = (52, true);
    assert_eq!(walk(&params, 1 << 42, &memory).unwrap().pa, 5 << 48 | 1 << 42);
}

#[test]
fn addresses_beyond_the_output_size_fault_at_their_level() {
    let (mut memory, mut params, va) = four_levels(1 << 40 | PAGE);
    params.output_bits = 40;
    assert_eq!(walk(&params, va, &memory), fault(WalkFaultKind::AddressSize, 3, 0x4008));
    memory.put(0x2008, 1 << 40 | TABLE);
    assert_eq!(walk(&params, va, &memory), fault(WalkFaultKind::AddressSize, 1, 0x2008));
    params.ttb = 1 << 40;
    assert_eq!(walk(&params, va, &memory), fault(WalkFaultKind::AddressSize, 0, 1 << 40));
}

#[test]
fn clear_access_flag_faults_unless_ignored() {
    let (memory, mut params, va) = four_levels(0x5000 | 0b11);
    assert_eq!(walk(&params, va, &memory), fault(WalkFaultKind::AccessFlag, 3, 0x4008));
    params.access_flag_ignored = true;
    assert!(!walk(&params, va, &memory).unwrap().attributes.af());
}

#[test]
fn unreadable_descriptor_is_an_external_abort_at_its_level() {
    let (mut memory, params, va) = four_levels(0x5000 | PAGE);
    memory.words.remove(&0x3008);
    assert_eq!(walk(&params, va, &memory), fault(WalkFaultKind::ExternalAbort, 2, 0x3008));
}

#[test]
fn table_attributes_restrict_the_leaf_unless_disabled() {
    let writable_by_all = PAGE | 1 << 6 | 1 << 51;
    for (table_bit, check) in [
        (59, (|a| a.pxn()) as fn(LeafDescriptor) -> bool),
        (60, |a| a.uxn()),
        (61, |a| !a.ap_el0()),
        (62, |a| a.ap_read_only() && !a.dbm()),
    ] {
        for level_entry in [0x1008, 0x2008, 0x3008] {
            let (mut memory, mut params, va) = four_levels(0x5000 | writable_by_all);
            *memory.words.get_mut(&level_entry).unwrap() |= 1 << table_bit;
            assert!(check(walk(&params, va, &memory).unwrap().attributes), "bit {table_bit}");
            params.hierarchical_attrs_disabled = true;
            assert!(!check(walk(&params, va, &memory).unwrap().attributes), "bit {table_bit} disabled");
        }
    }
}

#[test]
fn tables_that_point_at_themselves_end_at_level_3() {
    let mut memory = Sparse::default();
    memory.put(0x1008, 0x1000 | PAGE);
    let leaf = walk(&WalkParams::stage1(0x1000, Granule::K4, 48, 48), 0x0080_4020_1000, &memory).unwrap();
    assert_eq!((leaf.level, leaf.pa, memory.loads.get()), (3, 0x1000, 4));
}

#[test]
fn concatenated_first_tables_are_indexed_as_one() {
    let mut memory = Sparse::default();
    memory.put(0x8_0000 + 8 * 0x1fff, 0x4000_0000 | BLOCK);
    let mut params = WalkParams::stage1(0x8_0000, Granule::K4, 43, 48);
    params.start_level = 1; // stage 2: sixteen tables side by side
    assert_eq!(walk(&params, 0x1fff << 30, &memory).unwrap().pa, 0x4000_0000);
}

#[test]
fn range_check_compares_the_upper_bits_with_bit_55() {
    for (va, bits, tbi, inside) in [
        (0x0000_7fff_ffff_ffff_u64, 47, false, true),
        (0x0000_8000_0000_0000, 47, false, false),
        (0x0000_8000_0000_0000, 48, false, true),
        (0xffff_0000_0000_0000, 48, false, true),
        (0xfffe_ffff_ffff_ffff, 48, false, false),
        (0xab00_0000_0000_1000, 48, false, false),
        (0xab00_0000_0000_1000, 48, true, true),
        (0xab80_0000_0000_1000, 48, true, false),
        (0x00ff_ffff_ffff_ffff, 48, true, true),
    ] {
        assert_eq!(in_range(va, bits, tbi), inside, "{va:#x} {bits} {tbi}");
    }
    assert_eq!(Half::of(0x0080_0000_0000_0000), Half::High);
    assert_eq!(Half::of(0xff7f_ffff_ffff_ffff), Half::Low);
}

#[test]
fn permissions_follow_the_table_of_ap_bits() {
    use AccessKind::{Read, Write};
    // AP[2:1], then privileged read, write, unprivileged read, write (D8.4.1).
    for (ap, expected) in [
        (0b00, [true, true, false, false]),
        (0b01, [true, true, true, true]),
        (0b10, [true, false, false, false]),
        (0b11, [true, false, true, false]),
    ] {
        let page = Permissions::stage1(LeafDescriptor::from_bits(ap << 6), Stage1Rules::EL1_AND_EL0);
        let found = [(Read, true), (Write, true), (Read, false), (Write, false)]
            .map(|(kind, privileged)| page.allow(Access { kind, privileged }, false));
        assert_eq!(found, expected, "AP {ap:#b}");
    }
}

#[test]
fn execution_is_refused_by_xn_bits_by_wxn_and_to_privilege_where_el0_writes() {
    let executable = |leaf: LeafDescriptor, wxn| {
        let page = Permissions::stage1(leaf, Stage1Rules { wxn, has_el0: true });
        [true, false].map(|privileged| page.allow(Access { kind: AccessKind::Execute, privileged }, true))
    };
    let ro = LeafDescriptor::new().with_ap_read_only(true);
    assert_eq!(executable(ro, false), [true, true]);
    assert_eq!(executable(ro.with_pxn(true), false), [false, true]);
    assert_eq!(executable(ro.with_uxn(true), false), [true, false]);
    assert_eq!(executable(ro.with_ap_el0(true), true), [true, true]);
    let rw = LeafDescriptor::new();
    assert_eq!(executable(rw, false), [true, true]);
    assert_eq!(executable(rw, true), [false, true], "EL0 cannot write, so WXN leaves it alone");
    assert_eq!(executable(rw.with_ap_el0(true), false), [false, true]);
    assert_eq!(executable(rw.with_ap_el0(true), true), [false, false]);
}

#[test]
fn pan_refuses_privileged_data_where_el0_may_read() {
    let user = Permissions::stage1(LeafDescriptor::new().with_ap_el0(true), Stage1Rules::EL1_AND_EL0);
    let kernel = Permissions::stage1(LeafDescriptor::new(), Stage1Rules::EL1_AND_EL0);
    let read = |privileged| Access { kind: AccessKind::Read, privileged };
    assert!(user.allow(read(true), false) && !user.allow(read(true), true));
    assert!(user.allow(read(false), true));
    assert!(kernel.allow(read(true), true));
}

/// Memory full of plausible descriptors, made from their address: endless random trees without building any.
struct Dreamt {
    seed: u64,
}

impl TableMemory for Dreamt {
    fn load(&self, pa: u64) -> Result<u64, ExternalAbort> {
        // splitmix64
        let mut x = (pa ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let kind = x >> 40 & 31;
        match kind {
            0 => Err(ExternalAbort),
            1..=3 => Ok(x),
            4..=8 => Ok(x & 0xfff8_0fff_ffff_fffc | AF | 1),
            _ => Ok(x & 0xfff8_0fff_ffff_fffc | AF | 3),
        }
    }
}

/// The walk as the manual's prose tells it, one bit string at a time.
fn naive_walk(params: &WalkParams, va: u64, memory: &Dreamt) -> Result<Leaf, WalkFault> {
    let (page, step) = match params.granule {
        Granule::K4 => (12, 9),
        Granule::K16 => (14, 11),
        Granule::K64 => (16, 13),
    };
    let large = params.granule == Granule::K64 && params.output_bits > 48;
    let bits = |value: u64, high: u32, low: u32| {
        (low..=high).fold(0u64, |sum, bit| sum | (value >> bit & 1) << (bit - low))
    };
    let output = |descriptor: u64, low: u32| {
        bits(descriptor, 47, low) << low | if large { bits(descriptor, 15, 12) << 48 } else { 0 }
    };
    let fits = |pa: u64| (params.output_bits..64).all(|bit| pa >> bit & 1 == 0);
    let levels = (params.input_bits - page).div_ceil(step);
    let mut base = {
        let first_table_bits = params.input_bits - page - step * (levels - 1) + 3;
        let first_table_bits = if large { first_table_bits.max(6) } else { first_table_bits };
        params.ttb >> first_table_bits << first_table_bits
    };
    if !fits(base) {
        return fault(WalkFaultKind::AddressSize, 0, base);
    }
    let mut top = params.input_bits;
    let (mut pxn, mut uxn, mut no_el0, mut read_only) = (false, false, false, false);
    for level in 4 - levels..=3 {
        let low = page + step * (3 - level);
        let at = base + 8 * bits(va, top - 1, low);
        let level = level as u8;
        let Ok(d) = memory.load(at) else { return fault(WalkFaultKind::ExternalAbort, level, at) };
        let block_allowed = match (params.granule, level) {
            (Granule::K4, 1 | 2) | (Granule::K16 | Granule::K64, 2) => true,
            (Granule::K64, 1) => large,
            _ => false,
        };
        if d & 1 == 0 || (d & 2 == 0 && !block_allowed) {
            return fault(WalkFaultKind::Translation, level, at);
        }
        if d & 2 == 0 || level == 3 {
            let pa = output(d, low);
            if !fits(pa) {
                return fault(WalkFaultKind::AddressSize, level, at);
            }
            if d >> 10 & 1 == 0 && !params.access_flag_ignored {
                return fault(WalkFaultKind::AccessFlag, level, at);
            }
            let own = LeafDescriptor::from_bits(d);
            let attributes = own
                .with_pxn(own.pxn() || pxn)
                .with_uxn(own.uxn() || uxn)
                .with_ap_el0(own.ap_el0() && !no_el0)
                .with_ap_read_only(own.ap_read_only() || read_only)
                .with_dbm(own.dbm() && !read_only);
            return Ok(Leaf {
                pa,
                size_log2: low as u8,
                level,
                attributes,
                descriptor: d,
                descriptor_pa: at,
            });
        }
        base = output(d, page);
        if !fits(base) {
            return fault(WalkFaultKind::AddressSize, level, at);
        }
        if !params.hierarchical_attrs_disabled {
            pxn |= d >> 59 & 1 != 0;
            uxn |= d >> 60 & 1 != 0;
            no_el0 |= d >> 61 & 1 != 0;
            read_only |= d >> 62 & 1 != 0;
        }
        top = low;
    }
    unreachable!("level 3 always ends the walk")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn walker_agrees_with_the_naive_one(
        seed: u64, va: u64, ttb in 0u64..1 << 49,
        granule in prop::sample::select(Granule::ALL.to_vec()),
        input_bits in 25u32..=52,
        output_bits in prop::sample::select(vec![32u32, 40, 44, 48, 48, 48, 52]),
        hierarchical_attrs_disabled: bool, access_flag_ignored: bool,
    ) {
        let input_bits = input_bits.min(granule.max_input_bits());
        let params = WalkParams {
            hierarchical_attrs_disabled,
            access_flag_ignored,
            ..WalkParams::stage1(ttb, granule, input_bits, output_bits)
        };
        let memory = Dreamt { seed };
        prop_assert_eq!(walk(&params, va, &memory), naive_walk(&params, va, &memory));
    }

    #[test]
    fn any_parameters_are_survived(
        seed: u64, va: u64, ttb: u64, input_bits: u32, output_bits: u32, start_level: u8,
        granule in prop::sample::select(Granule::ALL.to_vec()),
    ) {
        let mut params = WalkParams::stage1(ttb, granule, input_bits, output_bits);
        params.start_level = start_level;
        let _ = walk(&params, va, &Dreamt { seed });
        params.input_bits = input_bits;
        let _ = walk(&params, va, &Dreamt { seed });
        let _ = in_range(va, input_bits, true);
    }
}

#[test]
fn address_bits_above_a_48_bit_output_are_an_address_size_fault_on_a_52_bit_machine() {
    let mut memory = Sparse::default();
    memory.put(0x1_0000, BLOCK | 0x1000);
    let params = WalkParams { pa52: true, ..WalkParams::stage1(0x1_0000, Granule::K64, 42, 48) };
    assert_eq!(walk(&params, 0, &memory), fault(WalkFaultKind::AddressSize, 2, 0x1_0000));
}

#[test]
fn sixteen_concatenated_tables_are_one_large_first_table() {
    let mut memory = Sparse::default();
    memory.put(0x1_0000 + 8 * (16 * 512 - 1), 0x4000_0000 | BLOCK);
    let params = WalkParams::stage2(0x1_0000, Granule::K4, 43, 48, 1);
    assert_eq!(walk(&params, (1 << 43) - 1, &memory).unwrap().pa, 0x4000_0000);
}
