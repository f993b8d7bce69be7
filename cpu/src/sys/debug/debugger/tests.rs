//! A debugger's breakpoints, watchpoints and steps, in every tier; its view of memory and registers.

use std::sync::Arc;

use hw::Pa;

use super::{DebugPoints, Watchpoint, debug_registers};
use crate::state::Pstate;
use crate::testbed::{Bench, DEVICE, RAM, Tables, mmu_on, mmu_on_flat, pte};
use crate::{Cpu, Exit, Tier};

/// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
/// ADD X1, X1, #1.
const COUNT: u32 = 0x9100_0421;
/// SVC #0; WFI; WFE.
const SVC: u32 = 0xd400_0001;
const WFI: u32 = 0xd503_207f;
const WFE: u32 = 0xd503_205f;
const VBAR: u64 = RAM + 0x1000;
const DATA: u64 = RAM + 0x5000;
const EL1: u64 = 0x3c5;
const EL0: u64 = 0x3c0;

/// Enough for every tier to have the loop as it is at its hottest.
const ROUNDS: u64 = 4000;

fn tiers() -> [Tier; 3] {
    [Tier::Auto, Tier::Interpreter, Tier::Translated]
}

/// A vCPU that powers off at its first exception.
fn cpu_of(bench: &Bench) -> Cpu {
    for offset in [0, 0x200, 0x400] {
        bench.code(VBAR + offset, &OFF);
    }
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    cpu.state.sys.vbar = VBAR;
    cpu
}

fn restart(cpu: &mut Cpu, pstate: u64) {
    cpu.set_pstate(pstate);
    (cpu.state.pc, cpu.state.x[1], cpu.state.x[2], cpu.state.x[4]) = (RAM, 0, DATA, ROUNDS);
}

/// Runs until the power-off, and lets the machine go on.
fn run_out(bench: &Bench, cpu: &mut Cpu) {
    assert_eq!(cpu.run(None), Exit::SystemOff);
    bench.cluster.resume();
}

fn breakpoints(cpu: &mut Cpu, at: &[u64]) {
    cpu.set_debug_points(Arc::new(DebugPoints::new(at.iter().copied(), Vec::new())));
}

fn watch(cpu: &mut Cpu, first: u64, len: u64, loads: bool, stores: bool) {
    let watchpoint = Watchpoint { first, last: first + len - 1, loads, stores };
    cpu.set_debug_points(Arc::new(DebugPoints::new([], vec![watchpoint])));
}

#[test]
fn breakpoint_stops_before_its_instruction_in_code_of_every_tier_and_the_next_run_passes_it() {
    for tier in tiers() {
        let bench = Bench::with_tier(1, tier);
        // count; nop; count; sub x4, x4, #1; cbnz x4, RAM; svc
        let code = [COUNT, 0xd503_201f, COUNT, 0xd100_0484, 0xb5ff_ff84, SVC];
        bench.code(RAM, &code);
        let mut cpu = cpu_of(&bench);
        mmu_on_flat(&mut cpu);
        restart(&mut cpu, EL1);
        run_out(&bench, &mut cpu);
        assert_eq!(cpu.state.x[1], 2 * ROUNDS, "{tier:?}: undisturbed");
        for (at, counts) in [(RAM + 8, 1), (RAM, 0), (RAM + 16, 2)] {
            restart(&mut cpu, EL1);
            breakpoints(&mut cpu, &[at, RAM + 0x8000]);
            for round in 0..5 {
                assert_eq!(cpu.run(None), Exit::Breakpoint, "{tier:?}");
                assert_eq!((cpu.state.pc, cpu.state.x[1]), (at, counts + 2 * round), "{tier:?}");
                assert_eq!(cpu.pstate() & 0x3cf, EL1, "{tier:?}: nothing was taken");
            }
            breakpoints(&mut cpu, &[]);
            run_out(&bench, &mut cpu);
            assert_eq!(cpu.state.x[1], 2 * ROUNDS, "{tier:?}: after the last");
        }
        let mut after = [0; 24];
        bench.ram.read(Pa(RAM), &mut after).unwrap();
        assert_eq!(after.to_vec(), code.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>());
    }
}

#[test]
fn breakpoint_holds_at_el0_and_in_every_address_space() {
    for tier in tiers() {
        const VA: u64 = 0x0000_5555_5555_5000;
        let bench = Bench::with_tier(1, tier);
        let mut cpu = cpu_of(&bench);
        for (number, pages) in [(1, RAM + 0x10_0000), (2, RAM + 0x20_0000)] {
            let mut tables = Tables::new(&bench.ram, pages);
            tables.page(VA, RAM + 0x30_0000 + number * 0x1000, pte::USER | pte::NG);
            tables.page(VBAR, VBAR, 0);
            bench.code(RAM + 0x30_0000 + number * 0x1000, &[COUNT, COUNT, COUNT, 0x17ff_fffd]);
        }
        breakpoints(&mut cpu, &[VA + 8]);
        for (asid, root) in [(1, RAM + 0x10_0000), (2, RAM + 0x20_0000), (1, RAM + 0x10_0000)] {
            mmu_on(&mut cpu, root, 0, asid);
            cpu.set_pstate(EL0);
            (cpu.state.pc, cpu.state.x[1]) = (VA, 0);
            assert_eq!(cpu.run(None), Exit::Breakpoint, "{tier:?}");
            assert_eq!((cpu.state.pc, cpu.state.x[1]), (VA + 8, 2), "{tier:?}, {asid}");
            assert_eq!(cpu.run(None), Exit::Breakpoint);
            assert_eq!((cpu.state.pc, cpu.state.x[1]), (VA + 8, 5), "{tier:?}, {asid}");
        }
    }
}

#[test]
fn breakpoint_that_nobody_has_been_told_of_is_met_again() {
    let bench = Bench::new(1);
    bench.code(RAM, &[COUNT, COUNT, COUNT]);
    let mut cpu = cpu_of(&bench);
    breakpoints(&mut cpu, &[RAM + 4]);
    assert_eq!(cpu.run(None), Exit::Breakpoint);
    cpu.forget_debug_stop();
    assert_eq!((cpu.run(None), cpu.state.x[1]), (Exit::Breakpoint, 1));
    // A stop from outside before the instruction is run does not use up its passage.
    bench.cluster.stop_all();
    assert_eq!((cpu.run(None), cpu.state.x[1]), (Exit::Stopped, 1));
    bench.cluster.resume();
    assert_eq!((cpu.run(Some(1)), cpu.state.x[1]), (Exit::BudgetSpent, 2));
}

#[test]
fn breakpoint_of_the_guest_at_the_same_address_is_taken_when_the_debuggers_is_passed() {
    let bench = Bench::new(1);
    bench.code(RAM, &[COUNT, COUNT, COUNT]);
    let mut cpu = cpu_of(&bench);
    cpu.set_pstate(0x005);
    let sys = &mut cpu.state.sys;
    (sys.os_lock, sys.mdscr, sys.dbgbvr[0], sys.dbgbcr[0]) = (0, 1 << 15 | 1 << 13, RAM + 4, 0b111);
    breakpoints(&mut cpu, &[RAM + 4]);
    assert_eq!(cpu.run(None), Exit::Breakpoint);
    assert_eq!(cpu.state.sys.esr, 0);
    run_out(&bench, &mut cpu);
    assert_eq!((cpu.state.sys.esr >> 26, cpu.state.sys.elr, cpu.state.x[1]), (0x31, RAM + 4, 1));
}

#[test]
fn watchpoint_stops_before_the_access_in_code_of_every_tier_and_the_next_run_passes_it() {
    // str x1, [x2]; ldr x5, [x2]; ldp x5, x6, [x2, #-8]; stlr x1, [x2]; ldadd x1, x5, [x2].
    let kinds = [
        ("str", 0xf900_0041, false, true),
        ("ldr", 0xf940_0045, true, false),
        ("ldp", 0xa97f_9845, true, false),
        ("stlr", 0xc89f_fc41, false, true),
        ("ldadd", 0xf821_0045, true, true),
    ];
    for tier in tiers() {
        for (name, access, loads, stores) in kinds {
            let bench = Bench::with_tier(1, tier);
            // The access is at the start of its block; count; sub x4, x4, #1; cbnz x4, RAM; svc
            bench.code(RAM, &[access, COUNT, 0xd100_0484, 0xb5ff_ffa4, SVC]);
            let mut cpu = cpu_of(&bench);
            mmu_on_flat(&mut cpu);
            restart(&mut cpu, EL1);
            run_out(&bench, &mut cpu);
            restart(&mut cpu, EL1);
            // The other direction, and bytes beside.
            watch(&mut cpu, DATA, 8, !loads, !stores);
            if loads != stores {
                run_out(&bench, &mut cpu);
                restart(&mut cpu, EL1);
            }
            watch(&mut cpu, DATA + 8, 8, true, true);
            run_out(&bench, &mut cpu);
            restart(&mut cpu, EL1);

            watch(&mut cpu, DATA + 2, 4, loads, stores);
            bench.ram.store_u64(Pa(DATA), 0x77).unwrap();
            for round in 0..5 {
                let exit = cpu.run(None);
                assert_eq!(exit, Exit::Watchpoint { address: DATA + 2, write: !loads }, "{tier:?} {name}");
                assert_eq!((cpu.state.pc, cpu.state.x[1]), (RAM, round), "{tier:?} {name}");
                let held = bench.ram.load_u64(Pa(DATA)).unwrap();
                match (name, round) {
                    (_, 0) => assert_eq!(held, 0x77, "{tier:?} {name}: not made yet"),
                    ("str" | "stlr", _) => assert_eq!(held, round - 1, "{tier:?} {name}: not made yet"),
                    _ => {}
                }
            }
            cpu.set_debug_points(Arc::default());
            run_out(&bench, &mut cpu);
            assert_eq!(cpu.state.x[1], ROUNDS, "{tier:?} {name}");
        }
    }
}

#[test]
fn watched_exclusive_store_succeeds_when_it_is_run_again() {
    for tier in tiers() {
        let bench = Bench::with_tier(1, tier);
        // ldxr x5, [x2]; add x5, x5, #1; stxr w6, x5, [x2]; cbnz w6, RAM; svc
        bench.code(RAM, &[0xc85f_7c45, 0x9100_04a5, 0xc806_7c45, 0x35ff_ffa6, SVC]);
        let mut cpu = cpu_of(&bench);
        mmu_on_flat(&mut cpu);
        restart(&mut cpu, EL1);
        watch(&mut cpu, DATA, 8, false, true);
        assert_eq!(cpu.run(None), Exit::Watchpoint { address: DATA, write: true }, "{tier:?}");
        assert_eq!(cpu.state.pc, RAM + 8);
        run_out(&bench, &mut cpu);
        assert_eq!(bench.ram.load_u64(Pa(DATA)), Ok(1), "{tier:?}: at the first try");
    }
}

#[test]
fn step_runs_one_instruction_or_takes_its_exception() {
    let bench = Bench::new(1);
    bench.code(RAM, &[COUNT, SVC, WFI, WFE, 0x9400_0003]);
    let mut cpu = cpu_of(&bench);
    let step = |cpu: &mut Cpu| {
        assert_eq!(cpu.step(), Exit::BudgetSpent);
        cpu.state.pc
    };
    assert_eq!((step(&mut cpu), cpu.state.x[1]), (RAM + 4, 1));
    assert_eq!((step(&mut cpu), cpu.state.sys.elr), (VBAR + 0x200, RAM + 8));
    cpu.state.pc = RAM + 8;
    assert_eq!(step(&mut cpu), RAM + 12, "WFI does not wait");
    assert_eq!(step(&mut cpu), RAM + 16, "WFE does not wait");
    assert_eq!(step(&mut cpu), RAM + 28, "a call");
    cpu.state.pc = 0x1000;
    assert_eq!((step(&mut cpu), cpu.state.sys.esr >> 26), (VBAR + 0x200, 0x21), "a fetch that fails");
}

#[test]
fn step_takes_no_interrupt_and_leaves_it_pending() {
    let bench = Bench::new(1);
    bench.code(RAM, &[COUNT, COUNT]);
    let mut cpu = cpu_of(&bench);
    bench.code(VBAR + 0x280, &OFF);
    cpu.set_pstate(0x005);
    bench.signals.irq_line(0).set(true);
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::BudgetSpent, RAM + 4));
    run_out(&bench, &mut cpu);
    assert_eq!((cpu.state.sys.elr, cpu.state.x[1]), (RAM + 4, 1), "taken when it goes on");
}

#[test]
fn step_passes_a_breakpoint_and_stops_at_a_watchpoint_once() {
    let bench = Bench::new(1);
    bench.code(RAM, &[COUNT, 0xf900_0041, COUNT]);
    let mut cpu = cpu_of(&bench);
    cpu.state.x[2] = DATA;
    let watchpoint = Watchpoint { first: DATA, last: DATA, loads: false, stores: true };
    cpu.set_debug_points(Arc::new(DebugPoints::new([RAM, RAM + 4, RAM + 8], vec![watchpoint])));
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::BudgetSpent, RAM + 4));
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::Watchpoint { address: DATA, write: true }, RAM + 4));
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::BudgetSpent, RAM + 8));
    assert_eq!(bench.ram.load_u64(Pa(DATA)), Ok(1));
    assert_eq!((cpu.run(None), cpu.state.pc), (Exit::Breakpoint, RAM + 8), "one that was stepped to is met");
}

#[test]
fn step_of_a_vcpu_that_is_off_or_goes_off_does_not_wait() {
    let bench = Bench::new(2);
    let mut off = bench.cluster.vcpu(1);
    assert_eq!((off.step(), off.state.pc), (Exit::BudgetSpent, 0));
    let mut cpu = cpu_of(&bench);
    // HVC: CPU_OFF.
    bench.code(RAM, &[0xd400_0002]);
    cpu.state.x[0] = 0x8400_0002;
    assert_eq!(cpu.step(), Exit::BudgetSpent);
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::BudgetSpent, RAM + 4), "off");

    let bench = Bench::new(1);
    let mut cpu = cpu_of(&bench);
    bench.code(RAM, &[0xd400_0002]);
    cpu.state.x[0] = 0x8400_0008;
    assert_eq!(cpu.step(), Exit::SystemOff);
}

#[test]
fn step_of_an_instruction_that_the_guest_steps_takes_the_guests_exception() {
    let bench = Bench::new(1);
    bench.code(RAM, &[COUNT, COUNT]);
    let mut cpu = cpu_of(&bench);
    (cpu.state.sys.os_lock, cpu.state.sys.mdscr) = (0, 1);
    // Active, not pending.
    cpu.set_pstate(EL0 | 1 << 21);
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::BudgetSpent, RAM + 4));
    assert_eq!((cpu.step(), cpu.state.pc), (Exit::BudgetSpent, VBAR + 0x400));
    assert_eq!((cpu.state.sys.esr >> 26, cpu.state.x[1]), (0x32, 1));
}

#[test]
fn memory_is_read_as_it_is_mapped_without_permission_access_flag_or_trace() {
    const VA: u64 = 0x0000_5555_5555_5000;
    const KERNEL: u64 = 0xffff_8000_0000_0000;
    let bench = Bench::new(1);
    let mut low = Tables::new(&bench.ram, RAM + 0x10_0000);
    let mut high = Tables::new(&bench.ram, RAM + 0x20_0000);
    // Without access flag; a gap; a device; the last page of the address space.
    low.set(VA, 3, (RAM + 0x30_0000) | pte::PAGE | pte::PXN);
    low.page(VA + 0x1000, RAM + 0x32_0000, pte::READ_ONLY | pte::USER);
    low.page(VA + 0x3000, DEVICE, pte::DEVICE);
    high.page(KERNEL, RAM + 0x31_0000, pte::READ_ONLY);
    high.page(0xffff_ffff_ffff_f000, RAM + 0x33_0000, 0);
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, low.root, high.root, 1);
    bench.ram.write(Pa(RAM + 0x30_0ffc), &[1, 2, 3, 4]).unwrap();
    bench.ram.write(Pa(RAM + 0x32_0000), &[5, 6]).unwrap();
    bench.ram.write(Pa(RAM + 0x31_0010), &[7]).unwrap();

    let read = |cpu: &Cpu, va, len| {
        let mut out = vec![0xee; len];
        let done = cpu.debug_read(va, &mut out);
        out.truncate(done);
        out
    };
    for pstate in [EL0, EL1 | u64::from(Pstate::PAN)] {
        cpu.set_pstate(pstate);
        assert_eq!(read(&cpu, VA + 0xffc, 6), [1, 2, 3, 4, 5, 6], "across pages");
        assert_eq!(read(&cpu, KERNEL + 0x10, 1), [7]);
        assert_eq!(read(&cpu, VA + 0x1fff, 4).len(), 1, "up to the gap");
        assert_eq!(read(&cpu, VA + 0x2000, 4).len(), 0);
        assert_eq!(read(&cpu, VA + 0x3000, 4).len(), 0, "a device is not touched");
        assert_eq!(read(&cpu, u64::MAX - 1, 100).len(), 2, "the end of the address space");
        assert_eq!(read(&cpu, 0x0080_0000_0000_0000, 1).len(), 0, "no address");
    }
    let entry = low.descriptor(VA, 3);
    assert_eq!(bench.ram.load_u64(Pa(entry)).unwrap() & pte::AF, 0);
    assert_eq!(cpu.state.sys.esr, 0);
    cpu.set_pstate(EL1);
    assert!(cpu.load::<u8>(VA).is_err(), "an access of the guest still faults");

    assert!(!cpu.debug_write(VA + 0x1ffe, &[9; 4]), "a part is not mapped");
    assert_eq!(read(&cpu, VA + 0x1ffe, 2), [0, 0], "nothing was written");
    assert!(!cpu.debug_write(u64::MAX, &[9; 2]));
    assert!(cpu.debug_write(VA + 0xfff, &[8, 9]), "read-only pages too");
    assert_eq!(read(&cpu, VA + 0xfff, 2), [8, 9]);
}

#[test]
fn code_that_a_debugger_writes_is_what_runs_on_every_vcpu() {
    for tier in tiers() {
        let bench = Bench::with_tier(1, tier);
        bench.code(RAM, &[COUNT, 0xd100_0484, 0xb5ff_ffc4, SVC]);
        let mut cpu = cpu_of(&bench);
        mmu_on_flat(&mut cpu);
        restart(&mut cpu, EL1);
        run_out(&bench, &mut cpu);
        // ADD X1, X1, #2.
        assert!(cpu.debug_write(RAM, &0x9100_0821u32.to_le_bytes()));
        restart(&mut cpu, EL1);
        run_out(&bench, &mut cpu);
        assert_eq!(cpu.state.x[1], 2 * ROUNDS, "{tier:?}");
    }
}

#[test]
fn system_registers_are_read_and_written_by_name_with_what_hangs_on_them() {
    const VA: u64 = 0x0000_5555_5555_5000;
    let bench = Bench::new(1);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    tables.page(VA, RAM + 0x30_0000, 0);
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, RAM + 0x20_0000, 0, 1);
    let place = |name: &str| debug_registers().position(|it| it == name).unwrap();
    let mut names: Vec<_> = debug_registers().collect();
    for (index, name) in names.iter().enumerate() {
        assert!(cpu.debug_register(index).is_some(), "{name}");
    }
    assert_eq!(cpu.debug_register(names.len()), None);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), debug_registers().count(), "each once");
    assert!(!names.contains(&"RNDR"), "it changes with each read");

    assert_eq!(cpu.debug_translate(VA), None);
    assert!(cpu.set_debug_register(place("TTBR0_EL1"), tables.root));
    assert_eq!(cpu.debug_translate(VA + 5), Some(Pa(RAM + 0x30_0005)));
    assert!(!cpu.set_debug_register(place("MIDR_EL1"), 0), "read-only");

    cpu.set_pstate(EL1);
    cpu.state.x[31] = 0x1111;
    assert!(cpu.set_debug_register(place("SP_EL0"), 0x2222));
    assert_eq!(cpu.debug_register(place("SP_EL1")), Some(0x1111));
    cpu.set_pstate(EL0);
    assert_eq!(cpu.state.x[31], 0x2222);
    assert!(cpu.set_debug_register(place("SP_EL0"), 0x3333));
    assert_eq!((cpu.state.x[31], cpu.debug_register(place("SP_EL0"))), (0x3333, Some(0x3333)));
    cpu.set_fp_control(u32::MAX, u32::MAX);
    assert_eq!((cpu.state.fpcr, cpu.state.fpsr), (0x07c0_0000, 0x0800_009f));
}
