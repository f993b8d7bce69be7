//! Translation, permissions, fault syndromes and the TLB's rules, on tables in RAM.

use hw::Pa;
use vmsa::AccessKind;

use super::{AtomicOp, Invalidation, Order};
use crate::exception::Class;
use crate::state::Pstate;
use crate::testbed::{Bench, DEVICE, RAM, RAM_BYTES, Tables, mmu_on, pte, to_el0};
use crate::{Cpu, Exception};

const POOL: u64 = RAM + 0x10_0000;
const KERNEL_POOL: u64 = RAM + 0x20_0000;
const FRAME: u64 = RAM + 0x30_0000;
const OTHER: u64 = RAM + 0x31_0000;
const USER_VA: u64 = 0x0000_5555_5555_5000;
const KERNEL_VA: u64 = 0xffff_8000_1234_5000;

struct Mmu {
    bench: Bench,
    user: Tables,
    kernel: Tables,
    cpu: Cpu,
}

/// A vCPU at EL1 with empty tables in both halves and ASID 1.
fn mmu() -> Mmu {
    let bench = Bench::new(1);
    let user = Tables::new(&bench.ram, POOL);
    let kernel = Tables::new(&bench.ram, KERNEL_POOL);
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, user.root, kernel.root, 1);
    Mmu { bench, user, kernel, cpu }
}

fn abort(result: Result<impl std::fmt::Debug, Exception>) -> (Class, u32, u64) {
    let exception = result.expect_err("the access faults");
    (exception.class, exception.iss, exception.far)
}

const WNR: u32 = 1 << 6;

#[test]
fn data_faults_have_status_level_direction_and_address() {
    // Descriptor, its level, the status of a read by EL0 and of a write by EL0.
    let rw = pte::AF | pte::USER;
    let ro = rw | pte::READ_ONLY;
    let frame = FRAME & !0x1f_ffff;
    let cases = [
        ("invalid at 0", 0, 0, 0x04, 0x04),
        ("invalid at 1", 1, 0, 0x05, 0x05),
        ("invalid at 2", 2, 0, 0x06, 0x06),
        ("invalid at 3", 3, 0, 0x07, 0x07),
        ("reserved at 3", 3, FRAME | pte::BLOCK | rw, 0x07, 0x07),
        ("block at 0", 0, pte::BLOCK | rw, 0x04, 0x04),
        ("access flag, 1 GiB", 1, RAM | pte::BLOCK | pte::USER, 0x09, 0x09),
        ("access flag, 2 MiB", 2, frame | pte::BLOCK | pte::USER, 0x0a, 0x0a),
        ("access flag, page", 3, FRAME | pte::PAGE | pte::USER, 0x0b, 0x0b),
        ("kernel's 1 GiB", 1, RAM | pte::BLOCK | pte::AF, 0x0d, 0x0d),
        ("kernel's 2 MiB", 2, frame | pte::BLOCK | pte::AF, 0x0e, 0x0e),
        ("kernel's page", 3, FRAME | pte::PAGE | pte::AF, 0x0f, 0x0f),
        ("read-only page", 3, FRAME | pte::PAGE | ro, 0, 0x0f),
        ("read-only block", 2, frame | pte::BLOCK | ro, 0, 0x0e),
        ("walk leaves RAM", 2, 0x1_0000 | pte::TABLE, 0x17, 0x17),
        ("hole", 3, 0x1_0000 | pte::PAGE | rw, 0x10, 0x10),
    ];
    for (what, level, descriptor, read, write) in cases {
        let mut m = mmu();
        m.user.set(USER_VA, level, descriptor);
        to_el0(&mut m.cpu);
        let va = USER_VA + 0x18;

        let read_result = m.cpu.load::<u64>(va);
        let write_result = m.cpu.store::<u64>(va, 1);

        if read == 0 {
            assert!(read_result.is_ok(), "{what}");
        } else {
            assert_eq!(abort(read_result), (Class::DataAbort, read, va), "{what}");
        }
        assert_eq!(abort(write_result), (Class::DataAbort, write | WNR, va), "{what}");
    }
}

#[test]
fn output_address_beyond_ips_is_an_address_size_fault_at_its_level() {
    let mut m = mmu();
    m.cpu.state.sys.tcr &= !(7 << 32); // IPS = 0: 32 bits
    m.cpu.memory_regime_changed();
    m.user.set(USER_VA, 3, 1 << 40 | pte::PAGE | pte::AF | pte::USER);
    assert_eq!(abort(m.cpu.load::<u8>(USER_VA)), (Class::DataAbort, 0x03, USER_VA));
    m.user.set(USER_VA, 2, 1 << 40 | pte::TABLE);
    assert_eq!(abort(m.cpu.load::<u8>(USER_VA)), (Class::DataAbort, 0x02, USER_VA));
}

#[test]
fn address_between_the_halves_or_of_a_disabled_half_is_a_translation_fault_at_level_0() {
    let mut m = mmu();
    for va in [0x0001_0000_0000_0000, 0xfffe_ffff_ffff_fff8, 0xff00_0000_0000_0000] {
        assert_eq!(abort(m.cpu.load::<u64>(va)), (Class::DataAbort, 0x04, va));
    }
    m.user.page(USER_VA, FRAME, 0);
    assert!(m.cpu.load::<u64>(USER_VA).is_ok());
    m.cpu.state.sys.tcr |= 1 << 7; // EPD0
    m.cpu.memory_regime_changed();
    assert_eq!(abort(m.cpu.load::<u64>(USER_VA)), (Class::DataAbort, 0x04, USER_VA));
}

#[test]
fn last_page_of_the_address_space_is_no_hit_in_an_empty_tlb() {
    let mut m = mmu();
    for va in [u64::MAX - 7, u64::MAX - 0xfff, u64::MAX - 0x1007, u64::MAX] {
        assert_eq!(m.cpu.load::<u8>(va).expect_err("nothing is mapped").far, va);
    }
    // An access that wraps around faults in the page that is not there.
    m.kernel.page(u64::MAX - 0xfff, FRAME, 0);
    assert_eq!(abort(m.cpu.load::<u64>(u64::MAX - 3)), (Class::DataAbort, 0x04, 0));
}

#[test]
fn instruction_permissions_follow_uxn_pxn_wxn_and_user_writability() {
    const FAULT: Option<u32> = Some(0x0f);
    // Bits, WXN, fault at EL0, fault at EL1.
    let cases = [
        (pte::USER | pte::READ_ONLY, false, None, None),
        (pte::USER | pte::READ_ONLY | pte::UXN, false, FAULT, None),
        (pte::USER | pte::READ_ONLY | pte::PXN, false, None, FAULT),
        (pte::USER, false, None, FAULT),
        (pte::USER, true, FAULT, FAULT),
        (0, false, None, None),
        (0, true, None, FAULT),
        (pte::UXN | pte::PXN, false, FAULT, FAULT),
    ];
    for (bits, wxn, el0, el1) in cases {
        let mut m = mmu();
        m.user.page(USER_VA, FRAME, bits);
        m.cpu.state.sys.sctlr |= u64::from(wxn) << 19;
        m.cpu.memory_regime_changed();
        let status = |result: Result<Pa, Exception>| result.err().map(|e| (e.class, e.iss, e.far));
        let expected = |fault: Option<u32>| fault.map(|iss| (Class::InstructionAbort, iss, USER_VA));
        assert_eq!(status(m.cpu.translate_fetch(USER_VA)), expected(el1), "EL1, {bits:#x}, {wxn}");
        to_el0(&mut m.cpu);
        assert_eq!(status(m.cpu.translate_fetch(USER_VA)), expected(el0), "EL0, {bits:#x}, {wxn}");
    }
}

#[test]
fn pan_forbids_el1_what_el0_can_read_but_not_ldtr_nor_what_is_its_own() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, pte::USER);
    m.kernel.page(KERNEL_VA, OTHER, 0);
    m.cpu.store::<u32>(USER_VA, 7).unwrap();
    assert_eq!(m.cpu.load::<u32>(USER_VA), Ok(7));

    m.cpu.write_pstate_field(crate::sys::PstateField::Pan, 1).unwrap();

    assert_eq!(abort(m.cpu.load::<u32>(USER_VA)), (Class::DataAbort, 0x0f, USER_VA));
    assert_eq!(abort(m.cpu.store::<u32>(USER_VA, 1)), (Class::DataAbort, 0x0f | WNR, USER_VA));
    assert_eq!(m.cpu.load_unprivileged::<u32>(USER_VA), Ok(7));
    assert_eq!(m.cpu.store_unprivileged::<u32>(USER_VA, 8), Ok(()));
    assert!(m.cpu.store::<u32>(KERNEL_VA, 1).is_ok());
    m.cpu.write_pstate_field(crate::sys::PstateField::Pan, 0).unwrap();
    assert_eq!(m.cpu.load::<u32>(USER_VA), Ok(8));
}

#[test]
fn unprivileged_access_from_el1_has_the_rights_of_el0() {
    let mut m = mmu();
    m.kernel.page(KERNEL_VA, FRAME, 0);
    assert!(m.cpu.load::<u8>(KERNEL_VA).is_ok());
    assert_eq!(abort(m.cpu.load_unprivileged::<u8>(KERNEL_VA)), (Class::DataAbort, 0x0f, KERNEL_VA));
}

#[test]
fn access_across_pages_faults_at_the_second_page_and_writes_nothing() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, pte::USER);
    let at = USER_VA + 0xff8;
    assert_eq!(abort(m.cpu.store_pair::<u64>(at, 1, 2)), (Class::DataAbort, 0x07 | WNR, USER_VA + 0x1000));
    assert_eq!(m.bench.ram.load_u64(Pa(FRAME + 0xff8)), Ok(0));
    assert_eq!(abort(m.cpu.load::<u32>(at + 6)), (Class::DataAbort, 0x07, USER_VA + 0x1000));
    assert!(m.cpu.probe_store(at, 32, 1).is_err());

    // Pages that are not neighbours in RAM.
    m.user.page(USER_VA + 0x1000, OTHER, pte::USER);
    m.cpu.store::<u64>(at + 4, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(m.cpu.load::<u64>(at + 4), Ok(0x1122_3344_5566_7788));
    assert_eq!(m.bench.ram.load_u32(Pa(FRAME + 0xffc)), Ok(0x5566_7788));
    assert_eq!(m.bench.ram.load_u32(Pa(OTHER)), Ok(0x1122_3344));
    m.cpu.store_pair::<u128>(USER_VA + 0xff0, 1, 2).unwrap();
    assert_eq!(m.cpu.load_pair::<u128>(USER_VA + 0xff0), Ok((1, 2)));
}

#[test]
fn unaligned_access_is_for_normal_memory_without_alignment_checking() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, 0);
    m.user.page(USER_VA + 0x1000, DEVICE, pte::DEVICE);
    let device = USER_VA + 0x1000;
    assert!(m.cpu.store::<u64>(USER_VA + 1, 5).is_ok());
    assert_eq!(abort(m.cpu.load::<u32>(device + 2)), (Class::DataAbort, 0x21, device + 2));
    assert_eq!(abort(m.cpu.store::<u16>(device + 1, 0)), (Class::DataAbort, 0x21 | WNR, device + 1));
    assert!(m.cpu.load_pair::<u64>(USER_VA + 8).is_ok());

    m.cpu.state.sys.sctlr |= 1 << 1;
    m.cpu.memory_regime_changed();

    assert_eq!(abort(m.cpu.load::<u64>(USER_VA + 1)), (Class::DataAbort, 0x21, USER_VA + 1));
    assert!(m.cpu.load_pair::<u64>(USER_VA + 8).is_ok(), "each half is aligned");
    assert!(m.cpu.load::<u8>(USER_VA + 1).is_ok());
}

#[test]
fn ordered_exclusive_and_atomic_accesses_must_be_aligned() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, 0);
    let va = USER_VA + 4;
    m.cpu.load::<u64>(va).unwrap();
    let read = (Class::DataAbort, 0x21, va);
    let write = (Class::DataAbort, 0x21 | WNR, va);
    assert_eq!(abort(m.cpu.load_acquire::<u64>(va)), read);
    assert_eq!(abort(m.cpu.store_release::<u64>(va, 0)), write);
    assert_eq!(abort(m.cpu.load_exclusive::<u64>(va, Order::Relaxed)), read);
    assert_eq!(abort(m.cpu.store_exclusive::<u64>(va, 0, Order::Relaxed)), write);
    assert_eq!(abort(m.cpu.atomic::<u64>(AtomicOp::Add, va, 1, Order::Relaxed)), read);
    assert_eq!(abort(m.cpu.compare_and_swap::<u128>(va + 4, 0, 1, Order::Ordered)).1, 0x21);
}

#[test]
fn atomic_on_a_read_only_page_reports_a_write_and_on_a_missing_page_a_read() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, pte::READ_ONLY);
    let add = |cpu: &mut Cpu, va| cpu.atomic::<u32>(AtomicOp::Add, va, 1, Order::Ordered);
    assert_eq!(abort(add(&mut m.cpu, USER_VA)), (Class::DataAbort, 0x0f | WNR, USER_VA));
    let missing = USER_VA + 0x1000;
    assert_eq!(abort(add(&mut m.cpu, missing)), (Class::DataAbort, 0x07, missing));
    m.user.page(missing, DEVICE, pte::DEVICE);
    assert_eq!(abort(add(&mut m.cpu, missing)), (Class::DataAbort, 0x35, missing));
}

#[test]
fn exclusive_pair_stores_once_and_only_over_the_value_it_saw() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, 0);
    assert_eq!(m.cpu.store_exclusive::<u32>(USER_VA, 1, Order::Relaxed), Ok(false), "no load before");
    assert_eq!(m.cpu.load_exclusive::<u32>(USER_VA, Order::Ordered), Ok(0));
    assert_eq!(m.cpu.store_exclusive::<u32>(USER_VA, 1, Order::Ordered), Ok(true));
    assert_eq!(m.cpu.store_exclusive::<u32>(USER_VA, 2, Order::Ordered), Ok(false), "used up");
    m.cpu.load_exclusive::<u32>(USER_VA, Order::Relaxed).unwrap();
    m.bench.ram.store_u32(Pa(FRAME), 9).unwrap();
    assert_eq!(m.cpu.store_exclusive::<u32>(USER_VA, 2, Order::Relaxed), Ok(false), "changed by another");
    m.cpu.load_exclusive::<u32>(USER_VA, Order::Relaxed).unwrap();
    assert_eq!(m.cpu.store_exclusive::<u64>(USER_VA, 2, Order::Relaxed), Ok(false), "other size");
    m.cpu.load_exclusive::<u128>(USER_VA, Order::Relaxed).unwrap();
    assert_eq!(m.cpu.store_exclusive::<u128>(USER_VA, 1 << 64 | 3, Order::Relaxed), Ok(true));
    assert_eq!(m.cpu.load_pair::<u64>(USER_VA), Ok((3, 1)));
    m.cpu.load_exclusive::<u32>(USER_VA, Order::Relaxed).unwrap();
    m.cpu.clear_exclusive();
    assert_eq!(m.cpu.store_exclusive::<u32>(USER_VA, 2, Order::Relaxed), Ok(false), "CLREX");
}

#[test]
fn device_accesses_go_to_the_bus_in_their_size_and_a_pair_of_doublewords_as_one() {
    let mut m = mmu();
    m.kernel.page(KERNEL_VA, DEVICE, pte::DEVICE);
    assert_eq!(m.cpu.load::<u32>(KERNEL_VA + 0x10), Ok(DEVICE as u32 + 0x10));
    assert_eq!(m.cpu.load::<u8>(KERNEL_VA + 0x21), Ok(0x21));
    m.cpu.store::<u16>(KERNEL_VA + 2, 0xabcd).unwrap();
    m.cpu.store_pair::<u64>(KERNEL_VA + 0x40, 1, 2).unwrap();
    m.cpu.store_release::<u32>(KERNEL_VA + 0x50, 3).unwrap();
    m.cpu.store_pair::<u128>(KERNEL_VA + 0x80, 4, 5).unwrap();
    let mut pair = vec![0; 16];
    (pair[0], pair[8]) = (1, 2);
    let wide = |value: u128| value.to_le_bytes().to_vec();
    assert_eq!(
        *m.bench.bus.0.lock().unwrap(),
        [
            (DEVICE + 2, vec![0xcd, 0xab]),
            (DEVICE + 0x40, pair),
            (DEVICE + 0x50, vec![3, 0, 0, 0]),
            (DEVICE + 0x80, wide(4)),
            (DEVICE + 0x90, wide(5)),
        ]
    );
    assert_eq!(abort(m.cpu.translate_fetch(KERNEL_VA)), (Class::InstructionAbort, 0x10, KERNEL_VA));
}

#[test]
fn translation_off_is_a_flat_map_of_device_memory() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.store::<u64>(RAM + 8, 0x77).unwrap();
    assert_eq!(bench.ram.load_u64(Pa(RAM + 8)), Ok(0x77));
    assert_eq!(abort(cpu.load::<u64>(RAM + 1)), (Class::DataAbort, 0x21, RAM + 1));
    assert_eq!(abort(cpu.load::<u64>(0)), (Class::DataAbort, 0x10, 0));
    assert_eq!(abort(cpu.load::<u64>(1 << 48)), (Class::DataAbort, 0x00, 1 << 48));
    assert_eq!(abort(cpu.store::<u8>(RAM + RAM_BYTES, 0)).1, 0x10 | WNR);
    assert_eq!(cpu.translate_fetch(RAM + 4), Ok(Pa(RAM + 4)));
    assert_eq!(abort(cpu.zero_block(RAM)), (Class::DataAbort, 0x21 | WNR, RAM));
    assert_eq!(cpu.atomic::<u64>(AtomicOp::Add, RAM + 8, 1, Order::Ordered), Ok(0x77));
}

#[test]
fn tagged_address_is_the_same_place_where_the_top_byte_is_ignored() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, pte::USER);
    let tagged = USER_VA | 0xa5 << 56;
    assert_eq!(abort(m.cpu.load::<u64>(tagged)).1, 0x04);
    m.cpu.state.sys.tcr |= 1 << 37; // TBI0
    m.cpu.memory_regime_changed();
    m.cpu.store::<u64>(tagged, 5).unwrap();
    assert_eq!(m.cpu.load::<u64>(USER_VA), Ok(5));
    assert_eq!(m.cpu.load::<u64>(tagged), Ok(5));
    assert_eq!(m.cpu.mem.branch_target(tagged), USER_VA);
    // An invalidation names no tag.
    m.user.page(USER_VA, OTHER, pte::USER);
    m.cpu.load::<u64>(tagged).unwrap();
    m.cpu.invalidate(Invalidation::Pages { va: USER_VA, pages: 1, asid: Some(1) });
    assert_eq!(m.cpu.load::<u64>(tagged), Ok(0));
}

#[test]
fn process_switch_changes_what_el0_and_el1_see_of_the_lower_half_and_back() {
    let mut m = mmu();
    let mut second = Tables::new(&m.bench.ram, RAM + 0x50_0000);
    m.user.page(USER_VA, FRAME, pte::USER | pte::NG);
    second.page(USER_VA, OTHER, pte::USER | pte::NG);
    m.kernel.page(KERNEL_VA, FRAME, 0);
    m.bench.ram.store_u64(Pa(FRAME), 1).unwrap();
    m.bench.ram.store_u64(Pa(OTHER), 2).unwrap();
    let switch = |cpu: &mut Cpu, root, asid: u64| {
        cpu.state.sys.ttbr1 = KERNEL_POOL | asid << 48;
        cpu.memory_regime_changed();
        cpu.state.sys.ttbr0 = root;
        cpu.memory_regime_changed();
    };
    for round in 0..3 {
        switch(&mut m.cpu, m.user.root, 1);
        assert_eq!(m.cpu.load::<u64>(USER_VA), Ok(1), "EL1, round {round}");
        assert_eq!(m.cpu.load_unprivileged::<u64>(USER_VA), Ok(1));
        switch(&mut m.cpu, second.root, 2);
        assert_eq!(m.cpu.load_unprivileged::<u64>(USER_VA), Ok(2));
        assert_eq!(m.cpu.load::<u64>(USER_VA), Ok(2), "EL1, round {round}");
        assert_eq!(m.cpu.load::<u64>(KERNEL_VA), Ok(1));
    }
    // More processes than tables, then the first again.
    for asid in 10..60 {
        switch(&mut m.cpu, second.root, asid);
        assert_eq!(m.cpu.load_unprivileged::<u64>(USER_VA), Ok(2));
    }
    switch(&mut m.cpu, m.user.root, 1);
    assert_eq!(m.cpu.load_unprivileged::<u64>(USER_VA), Ok(1));
}

/// Maps `USER_VA` to `FRAME`, uses it, maps it to `OTHER`, invalidates, and looks whether EL0 and EL1 see the change.
fn sees_change(bits: u64, what: Invalidation) -> bool {
    let mut m = mmu();
    m.bench.ram.store_u64(Pa(OTHER), 2).unwrap();
    m.user.page(USER_VA, FRAME, pte::USER | bits);
    m.cpu.load::<u64>(USER_VA).unwrap();
    m.cpu.load_unprivileged::<u64>(USER_VA).unwrap();
    m.user.page(USER_VA, OTHER, pte::USER | bits);
    m.cpu.invalidate(what);
    m.cpu.load::<u64>(USER_VA) == Ok(2) && m.cpu.load_unprivileged::<u64>(USER_VA) == Ok(2)
}

#[test]
fn tlbi_by_address_asid_and_all_reaches_every_table() {
    let page = |asid| Invalidation::Pages { va: USER_VA, pages: 1, asid };
    assert!(sees_change(pte::NG, Invalidation::All));
    assert!(sees_change(pte::NG, Invalidation::Asid(1)));
    assert!(sees_change(pte::NG, page(Some(1))));
    assert!(sees_change(pte::NG, page(None)));
    assert!(sees_change(0, page(Some(9))), "a global entry goes whatever the ASID");
    assert!(sees_change(
        pte::NG,
        Invalidation::Pages { va: USER_VA - 0x20_0000, pages: 1024, asid: Some(1) }
    ));
    assert!(sees_change(pte::NG, Invalidation::Pages { va: USER_VA - 0x3000, pages: 4, asid: None }));
}

#[test]
fn tlbi_of_one_page_inside_a_block_drops_all_of_the_block() {
    let mut m = mmu();
    let block = KERNEL_VA & !0x1f_ffff;
    m.kernel.set(block, 2, (RAM + 0x40_0000) | pte::BLOCK | pte::AF);
    m.cpu.load::<u64>(block + 0x5000).unwrap();
    m.cpu.translate_fetch(block + 0x7000).unwrap();
    m.kernel.set(block, 2, 0);
    m.cpu.invalidate(Invalidation::Pages { va: block, pages: 1, asid: Some(0) });
    assert_eq!(abort(m.cpu.load::<u64>(block + 0x5000)).1, 0x06);
    assert_eq!(abort(m.cpu.translate_fetch(block + 0x7000)).1, 0x06);
}

#[test]
fn tlbi_reaches_a_block_that_was_entered_through_a_tagged_pointer() {
    // The address of the block, and the top byte with which it is used and with which TBI lets it be used.
    for (va, tag) in
        [(USER_VA & !0x1f_ffff, 0x5a), (KERNEL_VA & !0x1f_ffff, 0x5a), (KERNEL_VA & !0x1f_ffff, 0)]
    {
        let mut m = mmu();
        m.cpu.state.sys.tcr |= 3 << 37; // TBI0, TBI1
        m.cpu.memory_regime_changed();
        let tagged = va << 8 >> 8 | tag << 56;
        let (old, new) = (RAM + 0x40_0000, RAM + 0x60_0000);
        m.bench.ram.store_u64(Pa(new + 0x5000), 2).unwrap();
        let tables = if va == USER_VA & !0x1f_ffff { &mut m.user } else { &mut m.kernel };
        tables.set(va, 2, old | pte::BLOCK | pte::AF);
        let uses = |cpu: &mut Cpu| {
            let fetched = cpu.translate_fetch(tagged + 0x7000).map(|pa| pa.0);
            (cpu.load::<u64>(tagged + 0x5000), cpu.load_unprivileged::<u64>(tagged + 0x5000).is_ok(), fetched)
        };
        assert_eq!(uses(&mut m.cpu), (Ok(0), false, Ok(old + 0x7000)));
        tables.set(va, 2, new | pte::BLOCK | pte::AF | pte::USER);
        m.cpu.invalidate(Invalidation::Pages { va, pages: 1, asid: Some(1) });
        // What EL0 can write is nothing that EL1 executes.
        let (data, user, fetched) = uses(&mut m.cpu);
        assert_eq!((data, user, fetched.is_err()), (Ok(2), true, true), "{tagged:#x}");
        tables.set(va, 2, old | pte::BLOCK | pte::AF);
        m.cpu.invalidate(Invalidation::Pages { va: va + 0x1000, pages: 2, asid: None });
        assert_eq!(uses(&mut m.cpu), (Ok(0), false, Ok(old + 0x7000)), "{tagged:#x}");
    }
}

#[test]
fn code_of_an_asid_in_the_upper_half_ends_with_tlbi_by_asid_and_with_a_switch() {
    let switch = |cpu: &mut Cpu| {
        cpu.state.sys.ttbr1 = KERNEL_POOL | 2 << 48;
        cpu.memory_regime_changed();
    };
    let tlbi = |cpu: &mut Cpu| cpu.invalidate(Invalidation::Asid(1));
    for forget in [&switch as &dyn Fn(&mut Cpu), &tlbi] {
        let mut m = mmu();
        m.kernel.page(KERNEL_VA, FRAME, pte::NG);
        m.kernel.page(KERNEL_VA + 0x1000, FRAME, 0);
        assert_eq!(m.cpu.translate_fetch(KERNEL_VA), Ok(Pa(FRAME)));
        assert_eq!(m.cpu.translate_fetch(KERNEL_VA + 0x1000), Ok(Pa(FRAME)));
        m.kernel.page(KERNEL_VA, OTHER, pte::NG);
        let stamps = m.cpu.state.stamp;
        forget(&mut m.cpu);
        assert_eq!(m.cpu.translate_fetch(KERNEL_VA), Ok(Pa(OTHER)));
        assert!(m.cpu.state.stamp[1] != stamps[1], "links and jump cache of the upper half hold no longer");

        // With global code alone, what has been fetched through the upper half stays.
        let mut m = mmu();
        m.kernel.page(KERNEL_VA, FRAME, 0);
        m.cpu.translate_fetch(KERNEL_VA).unwrap();
        let stamps = m.cpu.state.stamp;
        forget(&mut m.cpu);
        assert_eq!(m.cpu.state.stamp[1], stamps[1]);
    }
}

#[test]
fn pages_of_64_kib_translate_and_go_as_a_whole() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    // TG0 = 64 KiB, 42-bit addresses: level 2 (8192 entries of 512 MiB) and 3.
    let (level2, level3) = (RAM + 0x10_0000, RAM + 0x20_0000);
    let va = 0x1234_0000u64;
    bench.ram.store_u64(Pa(level2 + (va >> 29) * 8), level3 | pte::TABLE).unwrap();
    let leaf = Pa(level3 + (va >> 16 & 0x1fff) * 8);
    bench.ram.store_u64(leaf, (RAM + 0x40_0000) | pte::PAGE | pte::AF).unwrap();
    bench.ram.store_u64(Pa(RAM + 0x40_9008), 6).unwrap();
    cpu.state.sys.tcr = 22 | 1 << 14 | 25 << 16 | 2 << 30 | 5 << 32;
    cpu.state.sys.mair = 0xff;
    cpu.state.sys.ttbr0 = level2;
    cpu.state.sys.sctlr |= 1;
    cpu.memory_regime_changed();
    assert_eq!(cpu.load::<u64>(va + 0x9008), Ok(6));
    bench.ram.store_u64(leaf, 0).unwrap();
    cpu.invalidate(Invalidation::Pages { va, pages: 1, asid: Some(0) });
    assert_eq!(abort(cpu.load::<u64>(va + 0x9008)).1, 0x07);
}

#[test]
fn zva_zeroes_its_block_and_faults_as_a_store() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, 0);
    for offset in (0..192).step_by(8) {
        m.cpu.store::<u64>(USER_VA + offset, u64::MAX).unwrap();
    }
    m.cpu.zero_block(USER_VA + 0x67).unwrap();
    let words: Vec<u64> = (0..24).map(|n| m.cpu.load::<u64>(USER_VA + 8 * n).unwrap()).collect();
    assert!(words[..8].iter().chain(&words[16..]).all(|&word| word == u64::MAX));
    assert!(words[8..16].iter().all(|&word| word == 0));
    m.user.page(USER_VA + 0x1000, FRAME, pte::READ_ONLY);
    let va = USER_VA + 0x1044;
    assert_eq!(abort(m.cpu.zero_block(va)), (Class::DataAbort, 0x0f | WNR, va));
}

#[test]
fn cache_maintenance_faults_on_what_el0_cannot_read_and_at_el1_only_on_what_is_not_mapped() {
    let mut m = mmu();
    m.user.page(USER_VA, FRAME, pte::READ_ONLY);
    assert_eq!(m.cpu.check_maintenance(USER_VA, AccessKind::Read, false), Ok(()));
    assert_eq!(m.cpu.check_maintenance(USER_VA, AccessKind::Write, false).map_err(|s| s.0), Err(0x0f));
    assert_eq!(m.cpu.check_maintenance(USER_VA, AccessKind::Read, true).map_err(|s| s.0), Err(0x0f));
    assert_eq!(m.cpu.check_maintenance(0, AccessKind::Read, false).map_err(|s| s.0), Err(0x04));
}

#[test]
fn misaligned_stack_pointer_faults_where_it_is_checked() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.state.x[31] = RAM + 8;
    assert_eq!(cpu.check_stack_pointer(), Ok(()), "SA is 0 after reset");
    cpu.state.sys.sctlr |= 1 << 3;
    assert_eq!(cpu.check_stack_pointer(), Err(Exception::sp_alignment()));
    to_el0(&mut cpu);
    cpu.state.x[31] = RAM + 8;
    assert_eq!(cpu.check_stack_pointer(), Ok(()), "SA0 is 0");
    assert_eq!(cpu.state.pstate, Pstate(0));
}
