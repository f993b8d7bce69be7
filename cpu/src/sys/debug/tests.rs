//! Breakpoints and watchpoints: what they match, when they are enabled, and what comes before them.

use hw::SysReg;

use crate::exception::{Class, FaultStatus};
use crate::mem::{AtomicOp, Order};
use crate::state::Pstate;
use crate::testbed::{Bench, DEVICE, RAM, Tables, mmu_on, pte};
use crate::{Cpu, Exception, Exit};

const MDSCR_EL1: SysReg = SysReg::new(2, 0, 0, 2, 2);
const OSLAR_EL1: SysReg = SysReg::new(2, 0, 1, 0, 4);
const OSDLR_EL1: SysReg = SysReg::new(2, 0, 1, 3, 4);
const DBGPRCR_EL1: SysReg = SysReg::new(2, 0, 1, 4, 4);
const CONTEXTIDR_EL1: SysReg = SysReg::new(3, 0, 13, 0, 1);
const SCTLR_EL1: SysReg = SysReg::new(3, 0, 1, 0, 0);

const fn dbgbvr(n: u8) -> SysReg {
    SysReg::new(2, 0, 0, n, 4)
}
const fn dbgbcr(n: u8) -> SysReg {
    SysReg::new(2, 0, 0, n, 5)
}
const fn dbgwvr(n: u8) -> SysReg {
    SysReg::new(2, 0, 0, n, 6)
}
const fn dbgwcr(n: u8) -> SysReg {
    SysReg::new(2, 0, 0, n, 7)
}

const SS: u64 = 1 << 0;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;

/// E, and PMC or PAC.
const E: u64 = 1;
const AT_EL1: u64 = 1 << 1;
const AT_EL0: u64 = 1 << 2;
const AT_BOTH: u64 = AT_EL1 | AT_EL0;
/// DBGWCRn_EL1.LSC, and BAS for all bytes.
const LOADS: u64 = 1 << 3;
const STORES: u64 = 1 << 4;
const ALL_BYTES: u64 = 0xff << 5;
const WATCH_ALL: u64 = E | AT_BOTH | LOADS | STORES | ALL_BYTES;

/// EL1h and EL0t, nothing masked, and EL1h with debug exceptions masked.
const EL1: u64 = 0x005;
const EL1_MASKED: u64 = 0x205;
const EL0: u64 = 0x000;

fn set(cpu: &mut Cpu, reg: SysReg, value: u64) {
    let pstate = cpu.pstate();
    cpu.set_pstate(EL1_MASKED);
    cpu.write_sysreg(reg, 0, value).unwrap();
    cpu.set_pstate(pstate);
}

/// Opens the OS lock and enables monitor debug at both exception levels.
fn enable(cpu: &mut Cpu) {
    set(cpu, OSLAR_EL1, 0);
    set(cpu, MDSCR_EL1, MDE | KDE);
}

/// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
/// ADD X1, X1, #1.
const COUNT: u32 = 0x9100_0421;
const ERET: u32 = 0xd69f_03e0;
const VBAR: u64 = RAM + 0x1000;

/// A vCPU that powers off at its first synchronous exception. At `RAM`: COUNT four times, and a branch back to it.
fn counting(bench: &Bench) -> Cpu {
    bench.code(RAM, &[COUNT, COUNT, COUNT, COUNT, 0x17ff_fffc]);
    for offset in [0, 0x200, 0x400] {
        bench.code(VBAR + offset, &OFF);
    }
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    cpu.state.sys.vbar = VBAR;
    enable(&mut cpu);
    cpu
}

/// Runs until the power-off, and lets the machine go on.
fn run(bench: &Bench, cpu: &mut Cpu) {
    assert_eq!(cpu.run(None), Exit::SystemOff);
    bench.cluster.resume();
}

#[test]
fn breakpoint_is_taken_before_its_instruction_with_class_and_return_address() {
    for (pstate, class) in [(EL1, 0x31), (EL0, 0x30)] {
        let bench = Bench::new(1);
        let mut cpu = counting(&bench);
        set(&mut cpu, dbgbvr(1), RAM + 8);
        set(&mut cpu, dbgbcr(1), E | AT_BOTH);
        cpu.set_pstate(pstate);
        cpu.state.sys.far = 0x77;

        run(&bench, &mut cpu);

        assert_eq!(cpu.state.sys.esr, class << 26 | 1 << 25 | 0x22);
        assert_eq!((cpu.state.sys.elr, cpu.state.x[1]), (RAM + 8, 2));
        assert_eq!((cpu.state.sys.spsr & 0x3ff, cpu.state.sys.far), (pstate, 0x77));
    }
}

#[test]
fn breakpoint_stops_code_that_has_run_and_is_linked_and_another_takes_its_place() {
    let bench = Bench::new(1);
    let mut cpu = counting(&bench);
    // EL0 counts to 100 in a loop that is one block, and then asks for a breakpoint in its middle by SVC.
    bench.code(RAM, &[COUNT, COUNT, COUNT, COUNT, 0xf101_903f, 0x54ff_ff61, 0xd400_0001]);
    for at in [8, 12, 4, 0] {
        set(&mut cpu, dbgbcr(0), 0);
        cpu.set_pstate(EL0);
        (cpu.state.pc, cpu.state.x[1]) = (RAM, 0);
        run(&bench, &mut cpu);
        assert_eq!((cpu.state.sys.esr >> 26, cpu.state.x[1]), (0x15, 100), "undisturbed");

        set(&mut cpu, dbgbvr(0), RAM + at);
        set(&mut cpu, dbgbcr(0), E | AT_EL0);
        cpu.set_pstate(EL0);
        (cpu.state.pc, cpu.state.x[1]) = (RAM, 0);
        run(&bench, &mut cpu);
        assert_eq!((cpu.state.sys.esr >> 26, cpu.state.sys.elr), (0x30, RAM + at));
        assert_eq!(cpu.state.x[1], at / 4);
    }
}

#[test]
fn breakpoints_are_enabled_by_mde_open_locks_and_the_exception_level_with_its_mask() {
    let bp = E | AT_BOTH;
    // Name, PSTATE, DBGBCR, MDSCR, OSLAR, OSDLR, DBGPRCR, whether it is taken.
    let cases = [
        ("EL0", EL0, bp, MDE, 0, 0, 0, true),
        ("EL0, D set", 0x200, bp, MDE, 0, 0, 0, true),
        ("EL1", EL1, bp, MDE | KDE, 0, 0, 0, true),
        ("EL1, SP_EL0", 0x004, bp, MDE | KDE, 0, 0, 0, true),
        ("EL1 without KDE", EL1, bp, MDE, 0, 0, 0, false),
        ("EL1, D set", EL1_MASKED, bp, MDE | KDE, 0, 0, 0, false),
        ("no MDE", EL0, bp, KDE, 0, 0, 0, false),
        ("OS lock", EL0, bp, MDE, 1, 0, 0, false),
        ("double lock", EL0, bp, MDE, 0, 1, 0, false),
        ("double lock, no powerdown", EL0, bp, MDE, 0, 1, 1, true),
        ("not E", EL0, AT_BOTH, MDE, 0, 0, 0, false),
        ("for EL1, at EL0", EL0, E | AT_EL1, MDE | KDE, 0, 0, 0, false),
        ("for EL0, at EL1", EL1, E | AT_EL0, MDE | KDE, 0, 0, 0, false),
        ("for EL0, at EL0", EL0, E | AT_EL0, MDE, 0, 0, 0, true),
        ("for EL1, at EL1", EL1, E | AT_EL1, MDE | KDE, 0, 0, 0, true),
        ("for neither", EL0, E, MDE, 0, 0, 0, false),
        ("HMC", EL0, bp | 1 << 13, MDE, 0, 0, 0, false),
        ("SSC", EL0, bp | 1 << 14, MDE, 0, 0, 0, false),
    ];
    for (name, pstate, control, mdscr, lock, double_lock, prcr, taken) in cases {
        let bench = Bench::new(1);
        let mut cpu = counting(&bench);
        bench.code(RAM + 16, &[0xd420_0000]); // BRK
        set(&mut cpu, dbgbvr(3), RAM + 8);
        set(&mut cpu, dbgbcr(3), control);
        set(&mut cpu, MDSCR_EL1, mdscr);
        set(&mut cpu, OSDLR_EL1, double_lock);
        set(&mut cpu, DBGPRCR_EL1, prcr);
        set(&mut cpu, OSLAR_EL1, lock);
        cpu.set_pstate(pstate);
        run(&bench, &mut cpu);
        let class = cpu.state.sys.esr >> 26;
        assert_eq!(class & !1 == 0x30, taken, "{name}: {class:#x}");
    }
}

#[test]
fn linked_breakpoint_needs_its_context_and_a_context_alone_stops_everything() {
    let linked_to = |n: u64| E | AT_BOTH | 1 << 20 | n << 16;
    let linked_context = E | 3 << 20;
    let context = E | AT_BOTH | 2 << 20;
    // Name, DBGBCR0, DBGBCR3, CONTEXTIDR, where it stops.
    let cases = [
        ("linked, same context", linked_to(3), linked_context, 0x1234, Some(8)),
        ("linked, other context", linked_to(3), linked_context, 0x1235, None),
        ("linked to one that is off", linked_to(3), linked_context & !E, 0x1234, None),
        ("linked to one for addresses", linked_to(3), E | AT_BOTH, 0x1234, None),
        ("linked to one that is not linked", linked_to(3), 2 << 20 | E, 0x1234, None),
        ("linked to one that compares no context", linked_to(1), linked_context, 0x1234, None),
        ("linked to none", linked_to(9), linked_context, 0x1234, None),
        ("linked context alone", 0, linked_context | AT_BOTH, 0x1234, None),
        ("context", 0, context, 0x1234, Some(0)),
        ("other context", 0, context, 0x4321, None),
    ];
    for (name, address, other, contextidr, stops) in cases {
        let bench = Bench::new(1);
        let mut cpu = counting(&bench);
        bench.code(RAM + 16, &[0xd420_0000]); // BRK
        set(&mut cpu, dbgbvr(0), RAM + 8);
        set(&mut cpu, dbgbcr(0), address);
        set(&mut cpu, dbgbvr(3), 0x1234);
        set(&mut cpu, dbgbcr(3), other);
        set(&mut cpu, CONTEXTIDR_EL1, contextidr);
        cpu.set_pstate(EL0);
        run(&bench, &mut cpu);
        let expected = stops.map_or((0x3c, RAM + 16), |at| (0x30, RAM + at));
        assert_eq!((cpu.state.sys.esr >> 26, cpu.state.sys.elr), expected, "{name}");
    }
}

#[test]
fn write_of_contextidr_arms_what_is_linked_to_it_at_once() {
    let bench = Bench::new(1);
    let mut cpu = counting(&bench);
    // msr contextidr_el1, x2; COUNT; COUNT
    bench.code(RAM, &[0xd518_d022, COUNT, COUNT]);
    set(&mut cpu, dbgbvr(0), RAM + 8);
    set(&mut cpu, dbgbcr(0), E | AT_BOTH | 1 << 20 | 2 << 16);
    set(&mut cpu, dbgbvr(2), 7);
    set(&mut cpu, dbgbcr(2), E | 3 << 20);
    cpu.state.x[2] = 7;
    cpu.set_pstate(EL1);
    run(&bench, &mut cpu);
    assert_eq!((cpu.state.sys.elr, cpu.state.x[1]), (RAM + 8, 1));
}

#[test]
fn breakpoint_comes_after_faults_of_the_pc_and_before_illegal_state() {
    // pc, EC.
    for (pc, class) in [(RAM + 2, 0x22), (0x1000, 0x21), (RAM, 0x31)] {
        let bench = Bench::new(1);
        let mut cpu = counting(&bench);
        set(&mut cpu, dbgbvr(0), pc);
        set(&mut cpu, dbgbcr(0), E | AT_BOTH);
        cpu.set_pstate(EL1 | u64::from(Pstate::IL));
        cpu.state.pc = pc;
        run(&bench, &mut cpu);
        assert_eq!(cpu.state.sys.esr >> 26, class, "{pc:#x}");
    }
}

#[test]
fn stepped_instruction_with_a_breakpoint_or_watchpoint_stays_to_be_stepped() {
    // Whether it is the watchpoint.
    for watch in [false, true] {
        let bench = Bench::new(1);
        let mut cpu = counting(&bench);
        // ldr x1, [x2]; COUNT
        bench.code(RAM, &[0xf940_0041, COUNT]);
        cpu.state.x[2] = RAM + 0x5000;
        set(&mut cpu, MDSCR_EL1, MDE | SS);
        if watch {
            set(&mut cpu, dbgwvr(0), RAM + 0x5000);
            set(&mut cpu, dbgwcr(0), WATCH_ALL);
        } else {
            set(&mut cpu, dbgbvr(0), RAM);
            set(&mut cpu, dbgbcr(0), E | AT_EL0);
        }
        bench.code(RAM + 0x800, &[ERET]);
        let step = |cpu: &mut Cpu, pc| {
            cpu.set_pstate(EL1_MASKED);
            (cpu.state.sys.spsr, cpu.state.sys.elr) = (1 << 21, pc);
            cpu.state.pc = RAM + 0x800;
            run(&bench, cpu);
        };
        step(&mut cpu, RAM);
        let class = if watch { 0x34 } else { 0x30 };
        assert_eq!((cpu.state.sys.esr >> 26, cpu.state.sys.elr), (class, RAM));
        assert_eq!(cpu.state.sys.spsr >> 21 & 1, 1, "active, not pending");

        set(&mut cpu, dbgwcr(0), 0);
        set(&mut cpu, dbgbcr(0), 0);
        let spsr = cpu.state.sys.spsr;
        step(&mut cpu, RAM);
        assert_eq!((cpu.state.sys.esr >> 26, cpu.state.sys.elr), (0x32, RAM + 4), "{spsr:#x}");
        assert_eq!(cpu.state.sys.spsr >> 21 & 1, 0);
    }
}

/// Where watched bytes are, in a page that both exception levels may read and write.
const VA: u64 = 0x0000_5555_5555_5100;
const READ_ONLY_VA: u64 = 0x0000_5555_5555_7100;
const DEVICE_VA: u64 = 0x0000_5555_5555_8100;
const HOLE_VA: u64 = 0x0000_5555_5555_9100;

struct Mapped {
    bench: Bench,
    cpu: Cpu,
}

fn mapped() -> Mapped {
    let bench = Bench::new(1);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    for (va, pa, bits) in [
        (VA, RAM + 0x30_0000, 0),
        (VA + 0x1000, RAM + 0x30_1000, 0),
        (READ_ONLY_VA, RAM + 0x30_2000, pte::READ_ONLY),
        (DEVICE_VA, DEVICE, pte::DEVICE),
        (HOLE_VA, 0x8000, pte::DEVICE),
    ] {
        tables.page(va & !0xfff, pa, bits | pte::USER | pte::NG);
    }
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, tables.root, 0, 1);
    enable(&mut cpu);
    cpu.set_pstate(EL1);
    Mapped { bench, cpu }
}

fn watch(cpu: &mut Cpu, n: u8, value: u64, control: u64) {
    set(cpu, dbgwvr(n), value);
    set(cpu, dbgwcr(n), control);
}

/// What an access has met: FAR, and ISS.
fn met(result: Result<impl std::fmt::Debug, Exception>) -> Option<(u64, u32)> {
    let exception = result.err()?;
    assert_eq!(exception.class, Class::Watchpoint);
    Some((exception.far, exception.iss))
}

const READ: u32 = 0x22;
const WRITE: u32 = 0x62;

#[test]
fn watchpoint_selects_bytes_by_bas_and_mask_and_accesses_by_lsc() {
    let mut m = mapped();
    let bas = |bytes: u64| E | AT_BOTH | LOADS | bytes << 5;
    let mask = |bits: u64| WATCH_ALL | bits << 24;
    // DBGWVR, DBGWCR, address of an access of 4 bytes, the byte that is met by a load.
    let cases = [
        ("a byte", VA, bas(0b0000_0010), VA, Some(VA + 1)),
        ("its neighbours", VA, bas(0b0001_0000), VA, None),
        ("the last byte", VA, bas(0b1000_0000), VA + 4, Some(VA + 7)),
        ("a doubleword, across its start", VA, bas(0xff), VA - 2, Some(VA)),
        ("a doubleword, behind it", VA, bas(0xff), VA + 8, None),
        ("a word in the upper half", VA + 4, bas(0b0011), VA + 2, Some(VA + 4)),
        ("a word, bytes of the next", VA + 4, bas(0b1111_0000), VA + 4, None),
        ("no byte", VA, bas(0), VA, None),
        ("a hole between bytes", VA, bas(0b1000_0001), VA + 2, None),
        ("32 bytes", VA + 8, mask(5), VA + 28, Some(VA + 28)),
        ("beside 32 bytes", VA, mask(5), VA + 32, None),
        ("2 GiB", 0x5555_0000_0000, mask(31), VA, Some(VA)),
        ("reserved mask", VA, mask(2), VA + 4, Some(VA + 4)),
        ("stores only", VA, WATCH_ALL & !LOADS, VA, None),
        ("nothing", VA, WATCH_ALL & !(LOADS | STORES), VA, None),
    ];
    for (name, value, control, at, hit) in cases {
        watch(&mut m.cpu, 2, value, control);
        assert_eq!(met(m.cpu.load::<u32>(at)), hit.map(|at| (at, READ)), "{name}");
    }
    watch(&mut m.cpu, 2, VA, WATCH_ALL & !STORES);
    assert_eq!(met(m.cpu.store::<u32>(VA, 1)), None);
    watch(&mut m.cpu, 2, VA, WATCH_ALL);
    assert_eq!(met(m.cpu.store::<u32>(VA, 2)), Some((VA, WRITE)));
    watch(&mut m.cpu, 2, VA, 0);
    assert_eq!(m.cpu.load::<u32>(VA), Ok(1), "the store was not made");
}

#[test]
fn watchpoint_meets_every_kind_of_access_and_tells_reads_from_writes() {
    let mut m = mapped();
    let cpu = &mut m.cpu;
    watch(cpu, 0, VA + 8, WATCH_ALL);
    let at = VA + 8;
    assert_eq!(met(cpu.load_pair::<u64>(VA)), Some((at, READ)));
    assert_eq!(met(cpu.store_pair::<u64>(VA, 1, 1)), Some((at, WRITE)));
    assert_eq!(met(cpu.load_acquire::<u32>(at)), Some((at, READ)));
    assert_eq!(met(cpu.store_release::<u32>(at, 1)), Some((at, WRITE)));
    assert_eq!(met(cpu.load_exclusive::<u64>(at, Order::Relaxed)), Some((at, READ)));
    assert_eq!(met(cpu.atomic::<u64>(AtomicOp::Add, at, 1, Order::Ordered)), Some((at, READ)));
    assert_eq!(met(cpu.compare_and_swap::<u64>(at, 0, 1, Order::Ordered)), Some((at, READ)));
    assert_eq!(met(cpu.probe_store(VA, 64, 1)), Some((at, WRITE)));
    assert_eq!(met(cpu.zero_block(VA + 0x3f)), Some((at, WRITE)));
    let dc_ivac = SysReg::new(1, 0, 7, 6, 1);
    assert_eq!(met(cpu.system_instruction(dc_ivac, 0, VA + 0x20)), Some((at, WRITE | 1 << 8)));
    for untouched in [SysReg::new(1, 3, 7, 10, 1), SysReg::new(1, 3, 7, 5, 1), SysReg::new(1, 0, 7, 8, 1)] {
        assert_eq!(cpu.system_instruction(untouched, 0, at), Ok(()), "{untouched:?}");
    }

    watch(cpu, 0, VA + 8, WATCH_ALL & !LOADS);
    assert_eq!(met(cpu.atomic::<u64>(AtomicOp::Add, at, 1, Order::Ordered)), Some((at, WRITE)));
    assert_eq!(cpu.load_exclusive::<u64>(at, Order::Relaxed), Ok(0));
    assert_eq!(met(cpu.store_exclusive::<u64>(at, 1, Order::Relaxed)), Some((at, WRITE)));
    assert_eq!(cpu.load::<u64>(at), Ok(0), "nothing was stored");
    // Across the border of two pages, watched in the second.
    watch(cpu, 0, (VA & !0xfff) + 0x1000, WATCH_ALL);
    assert_eq!(met(cpu.load::<u64>((VA & !0xfff) + 0xffc)), Some(((VA & !0xfff) + 0x1000, READ)));
}

#[test]
fn watched_page_leaves_the_fast_path_and_comes_back() {
    let mut m = mapped();
    let cpu = &mut m.cpu;
    let fast = |cpu: &mut Cpu| (cpu.load_fast::<u64>(VA).is_some(), cpu.store_fast(VA, 0u64));
    assert_eq!(cpu.store::<u64>(VA, 0), Ok(()));
    assert_eq!(fast(cpu), (true, true));
    // Not the address that is accessed, but its page.
    watch(cpu, 1, VA + 0x80, WATCH_ALL);
    assert_eq!(fast(cpu), (false, false));
    assert_eq!((cpu.load::<u64>(VA), cpu.store::<u64>(VA, 5)), (Ok(0), Ok(())));
    assert_eq!(fast(cpu), (false, false));
    assert_eq!(cpu.store::<u64>(VA + 0x1000, 0), Ok(()));
    assert!(cpu.load_fast::<u64>(VA + 0x1000).is_some(), "other pages have nothing to do with it");
    set(cpu, MDSCR_EL1, KDE);
    assert_eq!(cpu.store::<u64>(VA, 0), Ok(()));
    assert_eq!(fast(cpu), (true, true));
    set(cpu, MDSCR_EL1, MDE | KDE);
    assert_eq!(fast(cpu), (false, false));
    set(cpu, OSLAR_EL1, 1);
    assert_eq!(cpu.store::<u64>(VA, 0), Ok(()));
    assert_eq!(fast(cpu), (true, true));
}

#[test]
fn watchpoint_is_for_an_exception_level_whose_rights_the_access_has() {
    let mut m = mapped();
    let cpu = &mut m.cpu;
    // DBGWCR.PAC, whether LDTR at EL1, LDR at EL1 and LDR at EL0 meet it.
    for (levels, cases) in [
        (AT_EL0, [true, false, true]),
        (AT_EL1, [false, true, false]),
        (AT_BOTH, [true, true, true]),
        (0, [false; 3]),
        (AT_BOTH | 1 << 13, [false; 3]),
        (AT_BOTH | 1 << 14, [false; 3]),
    ] {
        watch(cpu, 3, VA, WATCH_ALL & !AT_BOTH | levels);
        cpu.set_pstate(EL1);
        let at_el1 = (cpu.load_unprivileged::<u8>(VA).is_err(), cpu.load::<u8>(VA).is_err());
        cpu.set_pstate(EL0);
        assert_eq!([at_el1.0, at_el1.1, cpu.load::<u8>(VA).is_err()], cases, "{levels:#x}");
    }
    watch(cpu, 3, VA, WATCH_ALL);
    for (pstate, mdscr, met) in
        [(EL1, MDE, false), (EL1_MASKED, MDE | KDE, false), (EL0, MDE, true), (EL0, KDE, false)]
    {
        set(cpu, MDSCR_EL1, mdscr);
        cpu.set_pstate(pstate);
        assert_eq!(cpu.load::<u8>(VA).is_err(), met, "{pstate:#x} {mdscr:#x}");
    }
}

#[test]
fn linked_watchpoint_needs_its_context() {
    let mut m = mapped();
    let cpu = &mut m.cpu;
    watch(cpu, 0, VA, WATCH_ALL | 1 << 20 | 2 << 16);
    set(cpu, dbgbvr(2), 0x77);
    set(cpu, dbgbcr(2), E | 3 << 20);
    assert_eq!(cpu.load::<u8>(VA), Ok(0));
    set(cpu, CONTEXTIDR_EL1, 0x77);
    assert_eq!(met(cpu.load::<u8>(VA)), Some((VA, READ)));
    set(cpu, dbgbcr(2), 0);
    assert_eq!(cpu.load::<u8>(VA), Ok(0));
}

#[test]
fn faults_of_translation_come_before_a_watchpoint_and_external_aborts_after_it() {
    let mut m = mapped();
    let cpu = &mut m.cpu;
    let status =
        |result: Result<u64, Exception>| result.map_err(|e| (e.class, FaultStatus(e.iss as u8 & 0x3f)));
    watch(cpu, 0, READ_ONLY_VA, WATCH_ALL);
    let store = cpu.store::<u64>(READ_ONLY_VA, 1).map(|()| 0);
    assert_eq!(status(store), Err((Class::DataAbort, FaultStatus::permission(3))));
    let atomic = cpu.atomic::<u64>(AtomicOp::Add, READ_ONLY_VA, 1, Order::Ordered);
    assert_eq!(
        status(atomic),
        Err((Class::DataAbort, FaultStatus::permission(3))),
        "the write's, not the read"
    );
    watch(cpu, 1, HOLE_VA, WATCH_ALL);
    assert_eq!(met(cpu.load::<u64>(HOLE_VA)), Some((HOLE_VA, READ)));
    assert_eq!(status(cpu.load::<u64>(HOLE_VA + 1)), Err((Class::DataAbort, FaultStatus::ALIGNMENT)));
    assert_eq!(status(cpu.load::<u64>(HOLE_VA + 8)), Err((Class::DataAbort, FaultStatus::EXTERNAL_ABORT)));
    watch(cpu, 2, DEVICE_VA, WATCH_ALL);
    assert_eq!(met(cpu.store::<u32>(DEVICE_VA, 1)), Some((DEVICE_VA, WRITE)));
    assert!(m.bench.bus.0.lock().unwrap().is_empty(), "the device saw nothing");
    let sctlr = m.cpu.read_sysreg(SCTLR_EL1, 0).unwrap();
    set(&mut m.cpu, SCTLR_EL1, sctlr | 2);
    watch(&mut m.cpu, 3, VA, WATCH_ALL);
    assert_eq!(status(m.cpu.load::<u64>(VA + 4)), Err((Class::DataAbort, FaultStatus::ALIGNMENT)));
}

#[test]
fn tag_of_an_address_is_ignored_by_the_comparison_and_kept_in_far() {
    let mut m = mapped();
    m.cpu.state.sys.tcr |= 1 << 37; // TBI0
    m.cpu.memory_regime_changed();
    watch(&mut m.cpu, 0, VA, WATCH_ALL);
    let tagged = VA | 0x5a << 56;
    assert_eq!(met(m.cpu.load::<u64>(tagged - 4)), Some((tagged, READ)));
}

#[test]
fn watchpoint_is_taken_with_far_and_the_return_address_of_its_instruction() {
    let bench = Bench::new(1);
    let mut cpu = counting(&bench);
    // COUNT; str x1, [x2], #8
    bench.code(RAM, &[COUNT, 0xf800_8441]);
    watch(&mut cpu, 0, RAM + 0x5000, E | AT_EL1 | STORES | 0x80 << 5);
    cpu.state.x[2] = RAM + 0x5000;
    cpu.set_pstate(EL1);

    run(&bench, &mut cpu);

    assert_eq!(cpu.state.sys.esr, 0x35 << 26 | 1 << 25 | 0x62);
    assert_eq!((cpu.state.sys.far, cpu.state.sys.elr), (RAM + 0x5007, RAM + 4));
    assert_eq!(cpu.state.x[2], RAM + 0x5000);
}
