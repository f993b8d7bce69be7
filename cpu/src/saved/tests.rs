//! Save and restore of vCPUs and of what they share.

use hw::{Pa, SysReg};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::state::Pstate;
use crate::testbed::{Bench, RAM, RAM_BYTES, mmu_on_flat};
use crate::{Cpu, Exit, Tier};

/// Encodings of everything that MRS and MSR reach here, but for random numbers and the GIC.
fn registers() -> impl Iterator<Item = SysReg> {
    let all = (0x8000..=u16::MAX).map(SysReg);
    all.filter(|reg| !matches!(reg.fields(), (3, 3, 2, 4, _) | (3, 0, 12, 8.., _) | (3, 0, 4, 6, 0)))
}

fn readable(cpu: &mut Cpu) -> Vec<(SysReg, u64)> {
    registers().filter_map(|reg| Some((reg, cpu.read_sysreg(reg, 0).ok()?))).collect()
}

/// A vCPU on another machine, with the same memory and time.
fn moved(from: &Bench, state: &Value, tier: Tier) -> (Bench, Cpu) {
    let to = Bench::with_tier(1, tier);
    let mut memory = vec![0; RAM_BYTES as usize];
    from.ram.read(Pa(RAM), &mut memory).unwrap();
    to.ram.write(Pa(RAM), &memory).unwrap();
    to.clock.advance_ns(hw::Clock::now_ns(&*from.clock));
    to.cluster.restore(from.cluster.save()).unwrap();
    let mut cpu = to.cpu(0);
    cpu.restore(state.clone()).unwrap();
    (to, cpu)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn vcpu_in_any_state_comes_back_as_it_was(
        words in prop::collection::vec(any::<u64>(), 64),
        vectors in prop::collection::vec(any::<u128>(), 32),
        // Of the nine fields of PSTATE that can be set, and the mode.
        bits in any::<u32>(),
        mode in prop::sample::select(vec![0, 4, 5]),
        event in any::<bool>(),
        ns in 0..1u64 << 40,
    ) {
        let bench = Bench::with_tier(1, Tier::Interpreter);
        bench.clock.advance_ns(ns);
        let mut cpu = bench.cpu(0);
        for (reg, word) in registers().zip(words.iter().cycle()) {
            // Each has bits that differ, also where the list is shorter than the registers.
            let _ = cpu.write_sysreg(reg, 0, word.wrapping_mul(u64::from(reg.0) | 1));
        }
        cpu.state.x[..32].copy_from_slice(&words[..32]);
        cpu.state.sp_bank = [words[32], words[33]];
        cpu.state.pc = words[34];
        cpu.state.v.copy_from_slice(&vectors);
        cpu.state.fpcr = words[35] as u32 & 0x07c0_0000;
        cpu.state.fpsr = words[36] as u32 & 0x0800_009f;
        cpu.set_pstate(u64::from(bits & 0xf070_03c0 | mode));
        if event {
            bench.signals.get(0).unwrap().send_event();
        }

        let state = cpu.save();
        let (other, mut restored) = moved(&bench, &state, Tier::Interpreter);
        prop_assert_eq!(restored.save(), state);
        prop_assert_eq!(restored.state.x, cpu.state.x);
        prop_assert_eq!(restored.pstate(), cpu.pstate());
        prop_assert_eq!(other.signals.get(0).unwrap().take_event(), event);
        prop_assert_eq!(other.virtual_lines[0].level(), bench.virtual_lines[0].level());
        // Everything that EL1 can read, and what is behind the other stack pointer.
        for cpu in [&mut cpu, &mut restored] {
            cpu.set_pstate(5);
        }
        prop_assert_eq!(restored.state.x[31], cpu.state.x[31]);
        prop_assert_eq!(readable(&mut restored), readable(&mut cpu));
    }
}

/// Integers, stores, loads and floating point, 500 rounds; then SYSTEM_OFF.
const PROGRAM: [u32; 14] = [
    0xd280_3e80, // mov x0, #500
    0xd2a8_0021, // mov x1, #0x40010000
    0xd282_4683, // mov x3, #0x1234
    0x9b03_0042, // madd x2, x2, x3, x0
    0xcac2_1c63, // eor x3, x3, x2, ror #7
    0xf800_8422, // str x2, [x1], #8
    0x9e62_0001, // scvtf d1, x0
    0x1e61_2800, // fadd d0, d0, d1
    0xf100_0400, // subs x0, x0, #1
    0x54ff_ff41, // b.ne, six back
    0xd2b0_8000, // mov x0, #0x84000000
    0xf280_0100, // movk x0, #8
    0xd400_0002, // hvc #0
    0x1400_0000, // b .
];

#[test]
fn program_that_is_moved_in_its_middle_ends_as_one_that_is_not() {
    let memory = |bench: &Bench| {
        let mut memory = vec![0; 0x2000];
        bench.ram.read(Pa(RAM + 0x1_0000), &mut memory).unwrap();
        memory
    };
    for tier in [Tier::Interpreter, Tier::Translated, Tier::Auto] {
        let start = || {
            let bench = Bench::with_tier(1, tier);
            bench.code(RAM, &PROGRAM);
            let mut cpu = bench.cpu(0);
            cpu.set_boot_state(RAM, 0);
            cpu.state.sys.cpacr = 3 << 20;
            mmu_on_flat(&mut cpu);
            (bench, cpu)
        };
        let (bench, mut cpu) = start();
        assert_eq!(cpu.run(None), Exit::SystemOff);
        for instructions in [0, 1, 2, 3, 100, 1001, 2002, 3502, 3505] {
            let (mut here, mut moving) = start();
            assert_eq!(moving.run(Some(instructions)), Exit::BudgetSpent);
            // To and fro.
            for _ in 0..2 {
                (here, moving) = moved(&here, &moving.save(), tier);
            }
            assert_eq!(moving.run(None), Exit::SystemOff, "{tier:?} after {instructions}");
            assert_eq!(moving.save(), cpu.save(), "{tier:?} after {instructions}");
            assert_eq!(memory(&here), memory(&bench), "{tier:?} after {instructions}");
        }
    }
}

#[test]
fn vcpu_that_has_run_forgets_its_code_and_translations_when_it_is_restored() {
    for tier in [Tier::Interpreter, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        mmu_on_flat(&mut cpu);
        let state = cpu.save();
        bench.code(RAM, &[0xd280_0021, 0xd2b0_8000, 0xf280_0100, 0xd400_0002]); // mov x1, #1; SYSTEM_OFF
        assert_eq!(cpu.run(None), Exit::SystemOff);
        bench.cluster.resume();
        // Memory becomes what it was in a file, past all hooks, as a restore makes it.
        bench.code(RAM, &[0xd280_0041]); // mov x1, #2
        cpu.restore(state).unwrap();
        assert_eq!(cpu.run(None), Exit::SystemOff);
        assert_eq!(cpu.state.x[1], 2, "{tier:?}");
    }
}

#[test]
fn restored_timer_rings_at_its_time_and_not_before() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    let ctl = SysReg::new(3, 3, 14, 3, 1);
    let cval = SysReg::new(3, 3, 14, 3, 2);
    cpu.write_sysreg(cval, 0, 1000).unwrap();
    cpu.write_sysreg(ctl, 0, 1).unwrap();
    let ns = 1000 * crate::sys::timer::NS_PER_COUNT;
    bench.advance_ns(ns / 2);
    let (other, restored) = moved(&bench, &cpu.save(), Tier::Interpreter);
    other.advance_ns(ns / 2 - 1);
    assert!(!other.virtual_lines[0].level());
    other.advance_ns(1);
    assert!(other.virtual_lines[0].level());
    // Due already: at once.
    bench.advance_ns(ns);
    assert!(moved(&bench, &restored.save(), Tier::Interpreter).0.virtual_lines[0].level());
}

#[test]
fn breakpoint_and_software_step_are_armed_after_a_restore() {
    let bench = Bench::new(1);
    bench.code(RAM, &[0xd503_201f; 8]);
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    cpu.state.sys.vbar = RAM + 0x1000;
    cpu.set_pstate(5);
    // KDE and MDE, with the OS lock open; then the breakpoint at the third instruction.
    for (crm, op2, value) in [(0, 4, RAM + 8), (0, 5, 0x1e7), (2, 2, 0xa000)] {
        cpu.write_sysreg(SysReg::new(2, 0, 0, crm, op2), 0, value).unwrap();
    }
    cpu.write_sysreg(SysReg::new(2, 0, 1, 0, 4), 0, 0).unwrap();
    let (_there, mut restored) = moved(&bench, &cpu.save(), Tier::Interpreter);
    restored.run(Some(3));
    assert_eq!((restored.state.sys.esr >> 26, restored.state.sys.elr), (0x31, RAM + 8));

    cpu.write_sysreg(SysReg::new(2, 0, 0, 2, 2), 0, 0x2001).unwrap();
    cpu.set_pstate(u64::from(5 | Pstate::SS));
    let (_there, mut restored) = moved(&bench, &cpu.save(), Tier::Interpreter);
    restored.run(Some(1));
    assert_eq!((restored.state.sys.esr >> 26, restored.state.sys.elr), (0x33, RAM + 4));
}

#[test]
fn power_states_come_back_and_a_vcpu_that_was_to_start_starts() {
    let bench = Bench::new(3);
    bench.cluster.turn_on(2, RAM + 0x100, 7);
    let state = bench.cluster.save();
    let expected =
        json!({ "0": "on", "1": "off", "2": { "on_pending": { "entry": "0x40000100", "context": "0x7" } } });
    assert_eq!(state["state"]["power"], expected);
    let other = Bench::new(3);
    other.cluster.restore(state.clone()).unwrap();
    assert_eq!(other.cluster.save(), state);
    other.code(RAM + 0x100, &[0x1400_0000]);
    let mut cpu = other.cluster.vcpu(2);
    cpu.restore(bench.cluster.vcpu(2).save()).unwrap();
    assert_eq!(cpu.run(Some(1)), Exit::BudgetSpent);
    assert_eq!((cpu.state.pc, cpu.state.x[0]), (RAM + 0x100, 7));
    assert_eq!(other.cluster.save()["state"]["power"]["2"], "on");

    // Turned off itself: vCPU 0 does not run.
    bench.cluster.turn_off(0);
    other.cluster.restore(bench.cluster.save()).unwrap();
    other.cluster.stop_all();
    let mut cpu = other.cluster.vcpu(0);
    assert_eq!(cpu.run(None), Exit::Stopped);
    assert_eq!(cpu.state.pc, 0);
}

#[test]
fn interrupt_that_was_pending_is_taken_after_a_restore() {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    cpu.state.sys.vbar = RAM + 0x1000;
    cpu.set_pstate(5);
    let state = cpu.save();
    let other = Bench::new(1);
    other.code(RAM + 0x1280, &[0x1400_0000]);
    // The interrupt controller has been restored before.
    other.signals.irq_line(0).set(true);
    let mut cpu = other.cluster.vcpu(0);
    cpu.restore(state).unwrap();
    cpu.run(Some(1));
    assert_eq!((cpu.state.pc, cpu.state.sys.elr), (RAM + 0x1280, RAM));
}

#[test]
fn state_that_no_guest_could_have_brought_about_is_refused() {
    let bench = Bench::new(2);
    let mut cpu = bench.cpu(0);
    let state = cpu.save();
    for (path, value) in [
        ("pstate", json!("0x4")),
        ("pstate", json!("0x9")),
        ("pstate", json!("0x15")),
        ("pstate", json!("0x1000003c5")),
        ("pstate", json!("0x10003c5")),
        ("FPCR", json!("0x1")),
        ("FPCR", json!("0x100000000")),
        ("FPSR", json!("0x80000000")),
        ("x/x31", json!("0x0")),
        ("x/x0", json!(0)),
        ("x/x0", json!("0x10000000000000000")),
        ("v/v32", json!("0x0")),
        ("v/v0", json!("0x+1")),
        ("v/v0", json!("0x100000000000000000000000000000000")),
        ("system/SCTLR_EL1", json!("0x0")),
        ("system/SCTLR_EL1", json!("0xffffffffffffffff")),
        ("system/TCR_EL1", json!("0x40")),
        ("system/VBAR_EL1", json!("0x1")),
        ("system/SPSR_EL1", json!("0x10")),
        ("system/DBGBCR0_EL1", json!("0x0")),
        ("system/OSLAR_EL1", json!("0x2")),
        ("system/DBGCLAIMCLR_EL1", json!("0x100")),
        ("system/ZCR_EL1", json!("0x0")),
        ("virtual_timer/CTL", json!("0x4")),
        ("physical_timer/CTL", json!("0x8")),
        ("physical_timer/TVAL", json!("0x0")),
        ("event_register", json!(1)),
        ("more", json!(1)),
    ] {
        let mut wrong = state.clone();
        let path = format!("/state/{path}");
        let (parent, key) = path.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[key] = value.clone();
        // EL1t and whatever SPSR can hold are states.
        let is_possible =
            matches!((key, value.as_str()), ("pstate", Some("0x4")) | ("SPSR_EL1", Some("0x10")));
        assert_eq!(cpu.restore(wrong).is_ok(), is_possible, "{path} {value}");
    }
    for (part, key) in [("x", "x7"), ("system", "TTBR0_EL1"), ("system", "OSLAR_EL1")] {
        let mut wrong = state.clone();
        wrong["state"][part].as_object_mut().unwrap().remove(key).unwrap();
        assert!(cpu.restore(wrong).is_err(), "{key}");
    }
    assert!(cpu.restore(state).is_ok());

    let cluster = |power: Value| bench.cluster.restore(json!({ "version": 1, "state": { "power": power } }));
    let pending =
        |entry: &str| json!({ "0": "on", "1": { "on_pending": { "entry": entry, "context": "0x0" } } });
    assert!(cluster(pending("0x40000000")).is_ok());
    for power in [
        pending("0x40000002"),
        pending("0x0"),
        pending("0xfffffffffffffffc"),
        json!({ "0": "on" }),
        json!({ "0": "on", "1": "off", "2": "off" }),
        json!({ "0": "on", "01": "off" }),
        json!({ "0": "on", "1": "asleep" }),
    ] {
        assert!(cluster(power.clone()).is_err(), "{power}");
    }
}
