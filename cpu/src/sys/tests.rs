//! System registers, exceptions, PSCI, waiting and stepping. vCPUs among themselves are beside `cluster`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hw::{Pa, SysReg};

use super::cluster::PowerState;
use super::{Exit, PstateField};
use crate::exception::{Class, FaultStatus};
use crate::mem::Order;
use crate::state::Pstate;
use crate::testbed::{Bench, RAM, Tables, mmu_on, pte, to_el0};
use crate::{Cpu, Exception};

const SCTLR_EL1: SysReg = SysReg::new(3, 0, 1, 0, 0);
const CTR_EL0: SysReg = SysReg::new(3, 3, 0, 0, 1);
const CNTVCT_EL0: SysReg = SysReg::new(3, 3, 14, 0, 2);
const CNTV_CTL_EL0: SysReg = SysReg::new(3, 3, 14, 3, 1);
const CNTV_CVAL_EL0: SysReg = SysReg::new(3, 3, 14, 3, 2);
const CNTKCTL_EL1: SysReg = SysReg::new(3, 0, 14, 1, 0);
const SP_EL0: SysReg = SysReg::new(3, 0, 4, 1, 0);
const DAIF: SysReg = SysReg::new(3, 3, 4, 2, 1);
const PAR_EL1: SysReg = SysReg::new(3, 0, 7, 4, 0);

const UNDEFINED: Result<u64, Exception> = Err(Exception::undefined());

#[test]
fn registers_of_features_that_are_not_advertised_are_undefined() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    let absent = [
        ("ZCR_EL1", SysReg::new(3, 0, 1, 2, 0)),
        ("TCR2_EL1", SysReg::new(3, 0, 2, 0, 3)),
        ("APIAKeyLo_EL1", SysReg::new(3, 0, 2, 1, 0)),
        ("PMCR_EL0", SysReg::new(3, 3, 9, 12, 0)),
        ("PMUSERENR_EL0", SysReg::new(3, 3, 9, 14, 0)),
        ("DISR_EL1", SysReg::new(3, 0, 12, 1, 1)),
        ("CNTVCTSS_EL0", SysReg::new(3, 3, 14, 0, 6)),
        ("AMUSERENR_EL0", SysReg::new(3, 3, 13, 2, 3)),
        ("LORC_EL1", SysReg::new(3, 0, 10, 4, 3)),
        ("GCR_EL1", SysReg::new(3, 0, 1, 0, 6)),
        ("UAO", SysReg::new(3, 0, 4, 2, 4)),
        ("DIT", SysReg::new(3, 3, 4, 2, 5)),
        ("SSBS", SysReg::new(3, 3, 4, 2, 6)),
        ("SP_EL1", SysReg::new(3, 4, 4, 1, 0)),
        ("HCR_EL2", SysReg::new(3, 4, 1, 1, 0)),
        ("DBGBVR4_EL1", SysReg::new(2, 0, 0, 4, 4)),
        ("DBGWCR4_EL1", SysReg::new(2, 0, 0, 4, 7)),
        ("SMIDR_EL1", SysReg::new(3, 1, 0, 0, 6)),
    ];
    for (name, reg) in absent {
        assert_eq!(cpu.read_sysreg(reg, 0), UNDEFINED, "{name}");
        assert_eq!(cpu.write_sysreg(reg, 0, 0), Err(Exception::undefined()), "{name}");
    }
    let errors = || bench.cluster.observation.errors.counted();
    let counted = [("accesses to system registers that do not exist", 2 * absent.len() as u64)];
    assert_eq!(errors(), counted);
    to_el0(&mut cpu);
    assert_eq!(cpu.read_sysreg(absent[0].1, 0), UNDEFINED);
    assert_eq!(errors(), counted, "a process learns of it by a signal");
}

#[test]
fn identification_space_reads_at_el1_and_is_undefined_at_el0() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    for crm in 0..8 {
        for op2 in 0..8 {
            let reg = SysReg::new(3, 0, 0, crm, op2);
            assert!(cpu.read_sysreg(reg, 0).is_ok(), "{reg:?}");
            assert_eq!(cpu.write_sysreg(reg, 0, 0), Err(Exception::undefined()), "{reg:?}");
        }
    }
    to_el0(&mut cpu);
    assert_eq!(cpu.read_sysreg(SysReg::new(3, 0, 0, 4, 0), 0), UNDEFINED);
    assert_eq!(cpu.read_sysreg(SysReg::new(3, 0, 0, 0, 0), 0), UNDEFINED);
}

#[test]
fn stored_registers_keep_the_bits_that_exist() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    // Register, what all ones leave, what zero leaves. Nothing that turns the MMU on.
    let cases = [
        ("TCR_EL1", SysReg::new(3, 0, 2, 0, 2), 0x77_ffff_ffbf, 0),
        ("VBAR_EL1", SysReg::new(3, 0, 12, 0, 0), !0x7ff, 0),
        ("SPSR_EL1", SysReg::new(3, 0, 4, 0, 0), 0xf070_03df, 0),
        ("CPACR_EL1", SysReg::new(3, 0, 1, 0, 2), 0x30_0000, 0),
        ("ESR_EL1", SysReg::new(3, 0, 5, 2, 0), 0xffff_ffff, 0),
        ("CONTEXTIDR_EL1", SysReg::new(3, 0, 13, 0, 1), 0xffff_ffff, 0),
        ("TPIDR_EL0", SysReg::new(3, 3, 13, 0, 2), u64::MAX, 0),
        ("AMAIR_EL1", SysReg::new(3, 0, 10, 3, 0), 0, 0),
        ("ACTLR_EL1", SysReg::new(3, 0, 1, 0, 1), 0, 0),
        ("CNTKCTL_EL1", CNTKCTL_EL1, 0x3ff, 0),
        ("DBGBVR0_EL1", SysReg::new(2, 0, 0, 0, 4), !3, 0),
        ("DBGBCR1_EL1", SysReg::new(2, 0, 0, 1, 5), 0x1f_e1e7, 0x1e0),
        ("DBGBVR2_EL1", SysReg::new(2, 0, 0, 2, 4), u64::MAX, 0),
        ("DBGBCR3_EL1", SysReg::new(2, 0, 0, 3, 5), 0x3f_e1e7, 0x1e0),
        ("DBGWVR3_EL1", SysReg::new(2, 0, 0, 3, 6), !3, 0),
        ("DBGWCR3_EL1", SysReg::new(2, 0, 0, 3, 7), 0x1f1f_ffff, 0),
        ("ICC_PMR_EL1", SysReg::new(3, 0, 4, 6, 0), u64::MAX, 0),
    ];
    for (name, reg, ones, zeros) in cases {
        cpu.write_sysreg(reg, 0, u64::MAX).unwrap();
        assert_eq!(cpu.read_sysreg(reg, 0), Ok(ones), "{name}");
        cpu.write_sysreg(reg, 0, 0).unwrap();
        assert_eq!(cpu.read_sysreg(reg, 0), Ok(zeros), "{name}");
    }
    cpu.write_sysreg(SCTLR_EL1, 0, 0).unwrap();
    assert_eq!(cpu.read_sysreg(SCTLR_EL1, 0), Ok(0x3050_0980), "RES1");
}

#[test]
fn control_registers_open_registers_to_el0_and_otherwise_trap_with_ec_0x18() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    // Register, control register, the bit that opens it, whether EL0 may write.
    let cases = [
        (CTR_EL0, SCTLR_EL1, 1 << 15, false),
        (DAIF, SCTLR_EL1, 1 << 9, true),
        (CNTVCT_EL0, CNTKCTL_EL1, 1 << 1, false),
        (SysReg::new(3, 3, 14, 0, 1), CNTKCTL_EL1, 1 << 0, false),
        (SysReg::new(3, 3, 14, 0, 0), CNTKCTL_EL1, 1 << 0, false),
        (SysReg::new(3, 3, 14, 0, 0), CNTKCTL_EL1, 1 << 1, false),
        (CNTV_CVAL_EL0, CNTKCTL_EL1, 1 << 8, true),
        (SysReg::new(3, 3, 14, 2, 0), CNTKCTL_EL1, 1 << 9, true),
    ];
    for (reg, control, bit, writable) in cases {
        for open in [false, true] {
            cpu.set_pstate(0x3c5);
            cpu.write_sysreg(control, 0, if open { bit } else { 0 }).unwrap();
            to_el0(&mut cpu);
            let read = cpu.read_sysreg(reg, 3).map(|_| ());
            let expected = if open { Ok(()) } else { Err(Exception::trapped_system(reg, 3, true)) };
            assert_eq!(read, expected, "{reg:?} open: {open}");
            let expected = match (writable, open) {
                (false, _) => Err(Exception::undefined()),
                (true, true) => Ok(()),
                (true, false) => Err(Exception::trapped_system(reg, 3, false)),
            };
            assert_eq!(cpu.write_sysreg(reg, 3, 0), expected, "{reg:?} open: {open}");
        }
    }
    assert!(cpu.read_sysreg(SysReg::new(3, 3, 0, 0, 7), 0).is_ok(), "DCZID_EL0 is for everybody");
    assert!(cpu.write_sysreg(SysReg::new(3, 3, 13, 0, 3), 0, 0).is_err(), "TPIDRRO_EL0 is for reading");
}

#[test]
fn msr_daif_at_el0_is_trapped_with_the_instructions_own_encoding() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    to_el0(&mut cpu);
    let trapped = cpu.write_pstate_field(PstateField::DaifSet, 2).unwrap_err();
    // op0 = 0, op1 = 3, CRn = 4, CRm = 2, op2 = 6, Rt = 31, write.
    assert_eq!(trapped.esr(true), 0x18 << 26 | 1 << 25 | 6 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 2 << 1);
    assert_eq!(cpu.write_pstate_field(PstateField::SpSel, 1), Err(Exception::undefined()));
    assert_eq!(cpu.write_pstate_field(PstateField::Pan, 1), Err(Exception::undefined()));
}

#[test]
fn stack_pointers_are_banked_and_sp_el0_is_undefined_while_in_use() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.state.x[31] = 0x1000;
    cpu.write_sysreg(SP_EL0, 0, 0x2000).unwrap();
    cpu.write_pstate_field(PstateField::SpSel, 0).unwrap();
    assert_eq!(cpu.state.x[31], 0x2000);
    assert_eq!(cpu.read_sysreg(SP_EL0, 0), UNDEFINED);
    cpu.state.x[31] = 0x3000;
    cpu.write_pstate_field(PstateField::SpSel, 1).unwrap();
    assert_eq!(cpu.state.x[31], 0x1000);
    assert_eq!(cpu.read_sysreg(SP_EL0, 0), Ok(0x3000));
}

#[test]
fn exception_from_each_origin_saves_state_and_takes_its_vector() {
    let bench = Bench::new(1);
    // PSTATE before, offset of the group, EC of a data abort.
    let cases = [
        (0x6000_0000, 0x400, 0x24),
        (0x8000_0004, 0x000, 0x25),
        (0x3000_0005, 0x200, 0x25),
        (0x0040_03c5, 0x200, 0x25),
    ];
    for (before, group, ec) in cases {
        let mut cpu = bench.cpu(0);
        cpu.state.sys.vbar = 0xffff_0000_0000_0800;
        cpu.state.sp_bank = [0x11, 0x22];
        cpu.set_pstate(before);
        cpu.state.pc = 0x4444;
        let sp = cpu.state.x[31];

        cpu.take_exception(Exception::data_abort(0x1234, FaultStatus::translation(2), true));

        assert_eq!(cpu.state.pc, 0xffff_0000_0000_0800 + group, "{before:#x}");
        assert_eq!(cpu.state.sys.spsr, before);
        assert_eq!(cpu.state.sys.elr, 0x4444);
        assert_eq!(cpu.state.sys.esr, ec << 26 | 1 << 25 | 0x46);
        assert_eq!(cpu.state.sys.far, 0x1234);
        assert_eq!(cpu.pstate() & 0x3ff, 0x3c5, "EL1h, all masked");
        assert_eq!(cpu.pstate() & 1 << 22, before & 1 << 22, "SPAN: PAN stays");

        cpu.exception_return().unwrap();

        assert_eq!((cpu.pstate(), cpu.state.pc, cpu.state.x[31]), (before, 0x4444, sp), "{before:#x}");
    }
}

#[test]
fn entry_without_span_sets_pan() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.state.sys.sctlr &= !(1 << 23);
    to_el0(&mut cpu);
    cpu.take_exception(Exception::svc(0));
    assert!(cpu.state.pstate.has(Pstate::PAN));
}

#[test]
fn svc_returns_after_itself_and_leaves_far_alone() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    to_el0(&mut cpu);
    cpu.state.pc = 0x1000;
    cpu.state.sys.far = 7;
    cpu.take_exception(Exception::svc(0x42));
    assert_eq!((cpu.state.sys.elr, cpu.state.sys.esr), (0x1004, 0x5600_0042));
    assert_eq!(cpu.state.sys.far, 7);
}

#[test]
fn return_to_a_mode_that_does_not_exist_sets_il_and_stays() {
    let bench = Bench::new(1);
    for mode in [0x10, 0x1, 0x8, 0x9, 0xc, 0xd, 0x2, 0x6, 0x1f] {
        let mut cpu = bench.cpu(0);
        cpu.state.sys.spsr = 0x9000_0040 | mode;
        cpu.state.sys.elr = 0x2000;
        cpu.exception_return().unwrap();
        assert_eq!(cpu.state.pc, 0x2000);
        assert_eq!(cpu.pstate(), 0x9000_0040 | 1 << 20 | 5, "mode {mode:#x}");
    }
    let mut cpu = bench.cpu(0);
    to_el0(&mut cpu);
    assert_eq!(cpu.exception_return(), Err(Exception::undefined()));
}

#[test]
fn eret_and_exception_entry_clear_the_exclusive_monitor() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.state.sys.spsr = 5;
    cpu.load_exclusive::<u32>(RAM, Order::Relaxed).unwrap();
    cpu.exception_return().unwrap();
    assert_eq!(cpu.store_exclusive::<u32>(RAM, 1, Order::Relaxed), Ok(false));
    cpu.load_exclusive::<u32>(RAM, Order::Relaxed).unwrap();
    cpu.take_exception(Exception::undefined());
    assert_eq!(cpu.store_exclusive::<u32>(RAM, 1, Order::Relaxed), Ok(false));
}

#[test]
fn interrupts_are_taken_at_a_border_where_they_are_not_masked_fiq_first() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.state.sys.vbar = 0x8000;
    cpu.state.pc = 0x1000;
    assert_eq!(cpu.serve_pending(), None);
    bench.signals.irq_line(0).set(true);
    bench.signals.fiq_line(0).set(true);
    assert_eq!(cpu.serve_pending(), None);
    assert_eq!(cpu.state.pc, 0x1000, "both are masked");
    assert_eq!(cpu.read_sysreg(SysReg::new(3, 0, 12, 1, 0), 0), Ok(0xc0), "ISR_EL1");

    cpu.write_pstate_field(PstateField::DaifClr, 0b0011).unwrap();
    cpu.serve_pending();
    assert_eq!((cpu.state.pc, cpu.state.sys.elr), (0x8300, 0x1000));
    bench.signals.fiq_line(0).set(false);
    to_el0(&mut cpu);
    cpu.state.pc = 0x2000;
    cpu.serve_pending();
    assert_eq!((cpu.state.pc, cpu.state.sys.elr), (0x8480, 0x2000));
}

#[test]
fn virtual_timer_raises_its_line_when_its_time_has_come() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    bench.advance_ns(1600);
    assert_eq!(cpu.read_sysreg(CNTVCT_EL0, 0), Ok(100));
    cpu.write_sysreg(CNTV_CVAL_EL0, 0, 200).unwrap();
    cpu.write_sysreg(CNTV_CTL_EL0, 0, 1).unwrap();
    bench.advance_ns(1599);
    assert!(!bench.virtual_lines[0].level());
    bench.advance_ns(1);
    assert!(bench.virtual_lines[0].level());
    assert_eq!(cpu.read_sysreg(CNTV_CTL_EL0, 0), Ok(5));
}

#[test]
fn wfi_and_wfe_at_el0_are_trapped_unless_opened() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    to_el0(&mut cpu);
    assert_eq!(cpu.wait_for_interrupt(), Err(Exception::wf_trap(false)));
    assert_eq!(cpu.wait_for_event(), Err(Exception::wf_trap(true)));
    cpu.send_event(false);
    assert_eq!(cpu.wait_for_event(), Ok(()), "the event register is looked at first");
    cpu.state.sys.sctlr |= 1 << 16;
    bench.signals.irq_line(0).set(true);
    assert_eq!(cpu.wait_for_interrupt(), Ok(()));
}

#[test]
fn sleeping_vcpu_wakes_for_an_interrupt_that_is_masked_and_for_events() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    let sleeper = thread::spawn(move || {
        cpu.wait_for_interrupt().unwrap();
        cpu.send_event(false);
        cpu.wait_for_event().unwrap(); // takes the event
        cpu
    });
    bench.signals.irq_line(0).set(true);
    let mut cpu = sleeper.join().unwrap();
    bench.signals.irq_line(0).set(false);

    // EVNTI = 8: an event each 512 counts.
    cpu.state.sys.cntkctl = 1 << 2 | 8 << 4;
    let done = Arc::new(AtomicBool::new(false));
    let sleeper = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            cpu.wait_for_event().unwrap();
            done.store(true, Ordering::SeqCst);
        })
    };
    while !done.load(Ordering::SeqCst) {
        bench.advance_ns(256 * 16);
        thread::yield_now();
    }
    sleeper.join().unwrap();
}

#[test]
fn masked_interrupt_does_not_end_wfe_and_an_unmasked_one_does() {
    let bench = Bench::new(1);
    let signal = bench.signals.get(0).unwrap();
    let (irq, fiq) = (bench.signals.irq_line(0), bench.signals.fiq_line(0));
    for (line, masked) in [(irq, Pstate::I), (fiq, Pstate::F)] {
        let mut cpu = bench.cpu(0);
        line.set(true);
        cpu.set_pstate(0x5 | u64::from(masked));
        let waiter = thread::spawn(move || {
            cpu.wait_for_event().unwrap();
            cpu
        });
        while !signal.is_asleep() && !waiter.is_finished() {
            thread::yield_now();
        }
        assert!(!waiter.is_finished(), "PSTATE {masked:#x}");
        signal.send_event();
        let mut cpu = waiter.join().unwrap();
        cpu.set_pstate(0x5);
        cpu.wait_for_event().unwrap();
        line.set(false);
    }
}

#[test]
fn wake_request_ends_wfi_and_is_no_interrupt() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.set_pstate(0x5); // EL1h, nothing masked
    cpu.state.pc = RAM;
    bench.signals.wake_line(0).set(true);
    assert_eq!(cpu.wait_for_interrupt(), Ok(()));
    assert_eq!(cpu.serve_pending(), None);
    assert_eq!((cpu.state.pc, cpu.pstate()), (RAM, 0x4000_0005 & cpu.pstate()), "no exception");
    assert_eq!(cpu.read_sysreg(SysReg::new(3, 0, 12, 1, 0), 0), Ok(0), "ISR_EL1");
}

fn hvc(cpu: &mut Cpu, arguments: [u64; 4]) -> i64 {
    cpu.state.x[..4].copy_from_slice(&arguments);
    cpu.hypervisor_call(0).unwrap();
    cpu.state.x[0] as i64
}

#[test]
fn psci_answers_versions_features_and_unknown_functions() {
    let bench = Bench::new(2);
    let mut cpu = bench.cpu(0);
    let cases: [([u64; 4], i64); 16] = [
        ([0x8400_0000, 0, 0, 0], 0x1_0001),
        ([0x8000_0000, 0, 0, 0], 0x1_0001),
        ([0x8400_000a, 0x8000_0000, 0, 0], 0),
        ([0x8400_000a, 0xc400_0003, 0, 0], 0),
        ([0x8400_000a, 0xc400_000e, 0, 0], -1),
        ([0x8400_000a, 0x8400_0001, 0, 0], 0),
        ([0x8400_000a, 0xc400_0001, 0, 0], 0),
        ([0x8400_0006, 0, 0, 0], 2),
        ([0x8000_0001, 0x8000_8000, 0, 0], 1),
        ([0x8000_0001, 0x8000_0002, 0, 0], -1),
        ([0x8600_ff01, 0, 0, 0], -1),
        ([0xdead_beef_8400_0000, 0, 0, 0], 0x1_0001),
        ([0xc400_0004, 0, 0, 0], 0),
        ([0xc400_0004, 1, 0, 0], 1),
        ([0xc400_0004, 2, 0, 0], -2),
        ([0xc400_0004, 0, 1, 0], -2),
    ];
    for (arguments, answer) in cases {
        assert_eq!(hvc(&mut cpu, arguments), answer, "{arguments:x?}");
    }
    let counted = bench.cluster.observation.errors.counted();
    assert_eq!(counted, [("PSCI calls with parameters that are refused", 2)], "to ask what there is is none");
    assert_eq!(cpu.hypervisor_call(1), Err(Exception::undefined()));
    to_el0(&mut cpu);
    assert_eq!(cpu.hypervisor_call(0), Err(Exception::undefined()));
}

#[test]
fn cpu_suspend_sleeps_in_a_standby_state_of_the_core_until_an_interrupt_and_refuses_others() {
    const CPU_SUSPEND: u64 = 0xc400_0001;
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    // A power-down state, a cluster's, a system's; bits that do not exist.
    for power_state in [1 << 16, 1 << 24, 2 << 24, 3 << 24, 1 << 17, 1 << 23, 1 << 26, 1 << 31] {
        assert_eq!(hvc(&mut cpu, [CPU_SUSPEND, power_state, RAM, 0]), -2, "{power_state:#x}");
        assert_eq!(hvc(&mut cpu, [0x8400_0001, power_state, RAM, 0]), -2, "{power_state:#x}");
    }
    let sleeper = thread::spawn(move || hvc(&mut cpu, [CPU_SUSPEND, 0x1234, 0, 0]));
    while !bench.signals.get(0).unwrap().is_asleep() {
        thread::yield_now();
    }
    bench.signals.irq_line(0).set(true);
    assert_eq!(sleeper.join().unwrap(), 0);
}

#[test]
fn wfe_looks_at_the_monitored_location_and_not_at_what_its_address_maps_now() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    let (va, frame) = (0x40_0000_5000, RAM + 0x30_0000);
    tables.page(va, frame, 0);
    mmu_on(&mut cpu, tables.root, 0, 1);
    assert!(bench.bus.1.set(Box::new(|| panic!("the guest reads no device"))).is_ok());
    assert_eq!(cpu.load_exclusive::<u64>(va, Order::Relaxed), Ok(0));
    tables.page(va, crate::testbed::DEVICE, pte::DEVICE);
    cpu.system_instruction(SysReg::new(1, 0, 8, 7, 0), 0, 0).unwrap();

    assert_eq!(cpu.monitor_broken(), Some(false));
    bench.ram.store_u64(Pa(frame), 1).unwrap();
    assert_eq!(cpu.monitor_broken(), Some(true));

    // Nor does an exclusive store reach another location that holds the same value.
    assert_eq!(cpu.load_exclusive::<u32>(RAM, Order::Relaxed).map_err(|e| e.class), Err(Class::DataAbort));
    tables.page(va, frame, 0);
    cpu.system_instruction(SysReg::new(1, 0, 8, 7, 0), 0, 0).unwrap();
    assert_eq!(cpu.load_exclusive::<u64>(va, Order::Relaxed), Ok(1));
    bench.ram.store_u64(Pa(frame + 0x1000), 1).unwrap();
    tables.page(va, frame + 0x1000, 0);
    cpu.system_instruction(SysReg::new(1, 0, 8, 7, 0), 0, 0).unwrap();
    assert_eq!(cpu.store_exclusive::<u64>(va, 2, Order::Relaxed), Ok(false));
    assert_eq!(bench.ram.load_u64(Pa(frame + 0x1000)), Ok(1));
}

#[test]
fn counter_read_beyond_a_timers_compare_value_finds_its_interrupt_raised() {
    for counter in [CNTVCT_EL0, SysReg::new(3, 3, 14, 0, 1)] {
        let bench = Bench::new(1);
        let mut cpu = bench.cpu(0);
        cpu.write_sysreg(CNTV_CVAL_EL0, 0, 200).unwrap();
        cpu.write_sysreg(CNTV_CTL_EL0, 0, 1).unwrap();
        // The time has come, and the alarm service has not: only the clock moves.
        bench.clock.advance_ns(199 * 16);
        assert_eq!(cpu.read_sysreg(counter, 0), Ok(199));
        assert!(!bench.virtual_lines[0].level());
        bench.clock.advance_ns(16);
        assert_eq!(cpu.read_sysreg(counter, 0), Ok(200));
        assert!(bench.virtual_lines[0].level());
    }
}

#[test]
fn cpu_on_checks_target_and_entry_and_starts_an_off_vcpu_once() {
    const CPU_ON: u64 = 0xc400_0003;
    let bench = Bench::new(2);
    let mut cpu = bench.cpu(0);
    assert_eq!(hvc(&mut cpu, [CPU_ON, 5, RAM, 0]), -2);
    assert_eq!(hvc(&mut cpu, [CPU_ON, 1, 0x10, 0]), -9);
    assert_eq!(hvc(&mut cpu, [CPU_ON, 1, RAM + 2, 0]), -9);
    assert_eq!(hvc(&mut cpu, [CPU_ON, 0, RAM, 0]), -4);
    assert_eq!(hvc(&mut cpu, [CPU_ON, 1, RAM + 0x40, 0x77]), 0);
    assert_eq!(hvc(&mut cpu, [CPU_ON, 1, RAM, 0]), -5);
    assert_eq!(hvc(&mut cpu, [0xc400_0004, 1, 0, 0]), 2, "on pending");

    let mut second = bench.cpu(1);
    assert_eq!(second.serve_pending(), None);
    assert_eq!((second.state.pc, second.state.x[0]), (RAM + 0x40, 0x77));
    assert_eq!(second.pstate(), 0x3c5 | 1 << 30 & second.pstate());
    assert_eq!(hvc(&mut cpu, [CPU_ON, 1, RAM, 0]), -4);
    assert_eq!(bench.cluster.power_state(1), Some(PowerState::On));
}

#[test]
fn vcpu_that_was_off_and_is_turned_on_finds_the_gics_cpu_interface_and_its_timers_at_reset() {
    const PMR: SysReg = SysReg::new(3, 0, 4, 6, 0);
    let bench = Bench::new(2);
    let mut cpu = bench.cpu(0);
    let mut second = bench.cluster.vcpu(1);
    for start in 1..3 {
        assert_eq!(hvc(&mut cpu, [0xc400_0003, 1, RAM, 0]), 0);
        assert_eq!(second.serve_pending(), None);
        for (reg, value) in [(PMR, 0xf0), (CNTKCTL_EL1, 3), (CNTV_CTL_EL0, 3)] {
            assert_eq!(second.read_sysreg(reg, 0), Ok(0), "start {start}: {reg:?}");
            cpu.write_sysreg(reg, 0, value).unwrap();
            second.write_sysreg(reg, 0, value).unwrap();
        }
        second.state.x[0] = 0x8400_0002; // CPU_OFF
        second.hypervisor_call(0).unwrap();
    }
    assert_eq!(cpu.read_sysreg(PMR, 0), Ok(0xf0), "the other vCPU's");
}

/// HVC #0.
const HVC: u32 = 0xd400_0002;
/// B . (to itself).
const B_SELF: u32 = 0x1400_0000;

#[test]
fn guest_that_powers_off_ends_the_run_of_every_vcpu() {
    let bench = Bench::new(3);
    bench.code(RAM, &[B_SELF]);
    bench.code(RAM + 0x1000, &[HVC, B_SELF]);
    // vCPU 1 spins, vCPU 2 is off.
    let mut cpus: Vec<Cpu> = (0..3).map(|index| bench.cluster.vcpu(index)).collect();
    cpus[0].set_boot_state(RAM + 0x1000, 0x8400_0008);
    bench.cluster.turn_on(1, RAM, 0);
    let threads: Vec<_> =
        cpus.into_iter().rev().map(|mut cpu| thread::spawn(move || cpu.run(None))).collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Exit::SystemOff);
    }
}

#[test]
fn stopped_vcpus_go_on_where_they_were_after_resume() {
    let bench = Bench::new(1);
    // add x0, x0, #1; b .-4
    bench.code(RAM, &[0x9100_0400, 0x17ff_ffff]);
    let mut cpu = bench.cluster.vcpu(0);
    cpu.set_boot_state(RAM, 0);
    let mut last = 0;
    for _ in 0..3 {
        let runner = thread::spawn(move || {
            let exit = cpu.run(None);
            (cpu, exit)
        });
        thread::sleep(std::time::Duration::from_millis(2));
        bench.cluster.stop_all();
        let exit;
        (cpu, exit) = runner.join().unwrap();
        assert_eq!(exit, Exit::Stopped);
        assert!(cpu.state.x[0] >= last);
        last = cpu.state.x[0];
        bench.cluster.resume();
    }
    assert!(last > 0);
}

#[test]
fn software_step_takes_an_exception_after_each_instruction_of_el0() {
    let bench = Bench::new(1);
    // EL0: add x0, x0, #1 three times. Handler at VBAR + 0x400: add x1, x1, #1; a switch to power-off at the third
    // step; else set SPSR.SS again and return.
    bench.code(RAM, &[0x9100_0400, 0x9100_0400, 0x9100_0400, 0x9100_0400]);
    bench.code(
        RAM + 0x800 + 0x400,
        &[
            0x9100_0421, // add x1, x1, #1
            0xf100_0c3f, // cmp x1, #3
            0x5400_00a0, // b.eq +20
            0xd538_4002, // mrs x2, spsr_el1
            0xb26b_0042, // orr x2, x2, #1 << 21
            0xd518_4002, // msr spsr_el1, x2
            0xd69f_03e0, // eret
            0xaa00_03e3, // mov x3, x0
            0xd280_0100, // mov x0, #8
            0xf2b0_8000, // movk x0, #0x8400, lsl #16
            HVC,
        ],
    );
    // mov x2, #1 << 21; msr spsr_el1, x2; eret
    bench.code(RAM + 0x100, &[0xd2a0_0402, 0xd518_4002, 0xd69f_03e0]);
    let mut cpu = bench.cluster.vcpu(0);
    cpu.set_boot_state(RAM + 0x100, 0);
    cpu.state.sys.vbar = RAM + 0x800;
    cpu.state.sys.elr = RAM;
    cpu.state.sys.mdscr = 1;
    cpu.state.sys.os_lock = 0;

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!(cpu.state.x[3], 3, "one instruction to each step");
    assert_eq!(cpu.state.sys.elr, RAM + 12);
    assert_eq!(cpu.state.sys.esr, 0x32 << 26 | 1 << 25 | 1 << 24 | 0x22);
}

#[test]
fn at_reports_the_translation_or_its_fault_in_par() {
    let bench = Bench::new(1);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    let va = 0x40_0000_5000;
    tables.page(va, RAM + 0x30_0000, pte::READ_ONLY | 3 << 8);
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, tables.root, 0, 1);
    let at = |cpu: &mut Cpu, crm, op2| {
        cpu.system_instruction(SysReg::new(1, 0, 7, crm, op2), 0, va + 0x123).unwrap();
        cpu.read_sysreg(PAR_EL1, 0).unwrap()
    };
    assert_eq!(at(&mut cpu, 8, 0), 0xff << 56 | (RAM + 0x30_0000) | 1 << 11 | 3 << 7, "S1E1R");
    assert_eq!(at(&mut cpu, 8, 1), 0x0f << 1 | 1 << 11 | 1, "S1E1W");
    assert_eq!(at(&mut cpu, 8, 2), 0x0f << 1 | 1 << 11 | 1, "S1E0R");
    tables.set(va, 3, 0);
    assert_eq!(at(&mut cpu, 9, 0), 0x07 << 1 | 1 << 11 | 1, "S1E1RP");
    tables.set(va, 2, pte::TABLE);
    let abort = cpu.system_instruction(SysReg::new(1, 0, 7, 8, 0), 0, va).unwrap_err();
    assert_eq!((abort.class, abort.iss), (Class::DataAbort, 1 << 8 | 1 << 6 | 0x17));
}

#[test]
fn at_reports_memory_that_is_not_cached_as_outer_shareable_and_other_memory_as_mapped() {
    let bench = Bench::new(1);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    let va = 0x40_0000_5000;
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, tables.root, 0, 1);
    // Device-nGnRE; Normal, Non-cacheable inside and outside, or in one of them alone.
    cpu.write_sysreg(SysReg::new(3, 0, 10, 2, 0), 0, 0xff_4f_f4_44_04).unwrap();
    // MAIR_EL1's index, SH in the descriptor, SH in PAR_EL1.
    let cases =
        [(0, 0, 2), (0, 3, 2), (1, 0, 2), (1, 3, 2), (1, 2, 2), (2, 3, 3), (3, 0, 0), (4, 3, 3), (4, 0, 0)];
    for (index, mapped, reported) in cases {
        tables.page(va, RAM + 0x30_0000, index << 2 | mapped << 8);
        cpu.system_instruction(SysReg::new(1, 0, 7, 8, 0), 0, va).unwrap();
        let par = cpu.read_sysreg(PAR_EL1, 0).unwrap();
        assert_eq!(par >> 7 & 3, reported, "index {index}, SH {mapped}: {par:#x}");
    }
}

#[test]
fn system_instructions_at_el0_run_trap_or_are_undefined() {
    let bench = Bench::new(1);
    let mut tables = Tables::new(&bench.ram, RAM + 0x10_0000);
    let va = 0x40_0000_5000;
    tables.page(va, RAM + 0x30_0000, pte::USER);
    let mut cpu = bench.cpu(0);
    mmu_on(&mut cpu, tables.root, 0, 1);
    let (cvau, ivau, zva) =
        (SysReg::new(1, 3, 7, 11, 1), SysReg::new(1, 3, 7, 5, 1), SysReg::new(1, 3, 7, 4, 1));
    to_el0(&mut cpu);
    for reg in [cvau, ivau, zva] {
        let trapped = Exception::trapped_system(reg, 4, false);
        assert_eq!(cpu.system_instruction(reg, 4, va), Err(trapped), "{reg:?}");
    }
    cpu.state.sys.sctlr |= 1 << 26 | 1 << 14;
    for reg in [cvau, ivau, zva] {
        assert_eq!(cpu.system_instruction(reg, 4, va), Ok(()), "{reg:?}");
    }
    let missing = cpu.system_instruction(cvau, 4, va + 0x1000).unwrap_err();
    assert_eq!((missing.iss, missing.far), (1 << 8 | 1 << 6 | 0x07, va + 0x1000), "CM and WnR");
    let missing = cpu.system_instruction(zva, 4, va + 0x1000).unwrap_err();
    assert_eq!((missing.iss, missing.far), (1 << 6 | 0x07, va + 0x1000), "a store");
    // TLBI VMALLE1, IC IALLU, DC IVAC, AT S1E1R, DC CISW.
    for (crn, crm, op2) in [(8, 7, 0), (7, 5, 0), (7, 6, 1), (7, 8, 0), (7, 14, 2)] {
        let reg = SysReg::new(1, 0, crn, crm, op2);
        assert_eq!(cpu.system_instruction(reg, 4, va), Err(Exception::undefined()), "{reg:?}");
        cpu.set_pstate(0x3c5);
        assert_eq!(cpu.system_instruction(reg, 4, va), Ok(()), "{reg:?} at EL1");
        to_el0(&mut cpu);
    }
}
