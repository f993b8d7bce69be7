//! Save and restore.

use hw::LifeCycle;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::life::registers;
use super::robustness::{perform, step};
use super::*;

/// A controller just made, beside the same memory.
fn beside(bench: &Bench) -> Bench {
    let other = Bench::new(bench.irq.len());
    let mut memory = vec![0; RAM_BYTES as usize];
    bench.ram.read(Pa(RAM_BASE), &mut memory).unwrap();
    other.ram.write(Pa(RAM_BASE), &memory).unwrap();
    other
}

fn wires(bench: &Bench) -> Vec<bool> {
    bench.irq.iter().chain(&bench.fiq).chain(&bench.wake).map(|line| line.level()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn restored_controller_is_the_saved_one_and_goes_on_as_it_would(
        before in prop::collection::vec(step(), 1..120),
        after in prop::collection::vec(step(), 1..40),
        as_linux in any::<bool>(),
    ) {
        let bench = if as_linux { Bench::linux(3) } else { Bench::new(3) };
        before.into_iter().for_each(|step| perform(&bench, step));
        let state = bench.gic.save();
        let restored = beside(&bench);
        restored.gic.restore(state.clone()).unwrap();
        prop_assert_eq!(restored.gic.save(), state);
        for step in after {
            prop_assert_eq!(registers(&restored), registers(&bench));
            prop_assert_eq!(wires(&restored), wires(&bench));
            perform(&bench, step.clone());
            perform(&restored, step);
        }
        for cpu in 0..3 {
            prop_assert_eq!(restored.sys(cpu, IAR1), bench.sys(cpu, IAR1));
        }
        prop_assert_eq!(restored.gic.save(), bench.gic.save());
    }
}

/// An edge, a level and two LPIs are pending, one SPI is active.
fn busy() -> Bench {
    let bench = Bench::linux(2);
    bench.make_spi_edge(3);
    [3, 4].into_iter().for_each(|spi| bench.enable_spi(spi));
    bench.gic.spi(3).pulse();
    assert_eq!(bench.sys(0, IAR1), 35);
    bench.gic.spi(3).pulse();
    bench.gic.spi(4).set(true);
    bench.mapd(8, ITT, 5);
    for event in 0..2 {
        bench.set_property(8192 + event, 0xa1);
        bench.mapti(8, event, 8192 + event, 1);
        bench.message(8, event as u32);
    }
    bench
}

#[test]
fn what_was_pending_is_delivered_after_a_restore_and_lpis_keep_the_configuration_that_was_read() {
    let bench = busy();
    // Not told: the controller goes on with what it has read.
    bench.set_property(8192, 0x10);
    let restored = beside(&bench);
    restored.gic.restore(bench.gic.save()).unwrap();
    assert_eq!(wires(&restored), wires(&bench));
    for expected in [8192, 8193, SPURIOUS] {
        assert_eq!(restored.sys(1, IAR1), expected);
        restored.sys_write(1, EOIR1, expected);
    }
    restored.sys_write(0, EOIR1, 35);
    for expected in [35, 36, 36] {
        assert_eq!(restored.sys(0, IAR1), expected, "the level stays high");
        restored.sys_write(0, EOIR1, expected);
    }
    restored.gic.spi(4).set(false);
    assert_eq!(restored.sys(0, IAR1), SPURIOUS);
    restored.message(8, 1);
    assert_eq!(restored.sys(1, IAR1), 8193, "the ITS goes on with its tables");
}

#[test]
fn controller_at_power_on_has_nothing_to_list() {
    let state = Bench::new(2).gic.save();
    let distributor = json!({ "GICD_CTLR": "0x50", "spi": {}, "lpi_configurations": {} });
    assert_eq!(state["state"]["distributor"], distributor);
    let pe = &state["state"]["redistributors"]["1"];
    assert_eq!((&pe["private"], &pe["pending_lpis"]), (&json!({}), &json!([])));
    assert_eq!(pe["GICR_WAKER"], "0x6");
}

#[test]
fn state_that_no_guest_could_have_brought_about_is_refused() {
    let bench = busy();
    let state = bench.gic.save();
    let refuse = |path: &str, value: Value| {
        let mut wrong = state.clone();
        let path = format!("/state/{path}");
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = wrong.pointer_mut(parent).unwrap_or_else(|| panic!("{path}"));
        match parent {
            Value::Array(list) => list.push(value),
            _ => parent[key] = value,
        }
        assert!(beside(&bench).gic.restore(wrong).is_err(), "{path} was taken");
    };
    let spi = &state["state"]["distributor"]["spi"]["35"];
    for (path, value) in [
        ("distributor/GICD_CTLR", json!("0x12")),
        ("distributor/GICD_CTLR", json!("0x1000000012")),
        ("distributor/spi/31", spi.clone()),
        ("distributor/spi/288", spi.clone()),
        ("distributor/spi/035", spi.clone()),
        ("distributor/spi/35/GICD_IROUTER", json!("0x80000000")),
        ("distributor/spi/35/interrupt/priority", json!("0x1")),
        ("distributor/spi/35/interrupt/more", json!(true)),
        ("distributor/lpi_configurations/8192", json!("0x2")),
        ("distributor/lpi_configurations/8192", json!("0x1a1")),
        ("distributor/lpi_configurations/8191", json!("0x1")),
        ("distributor/lpi_configurations/65536", json!("0x1")),
        ("redistributors/2", state["state"]["redistributors"]["1"].clone()),
        ("redistributors/0/GICR_CTLR", json!("0x1")),
        ("redistributors/1/GICR_CTLR", json!("0x6")),
        ("redistributors/0/GICR_WAKER", json!("0x2")),
        ("redistributors/0/GICR_PROPBASER", json!("0x20")),
        ("redistributors/0/GICR_PENDBASER", json!("0x1")),
        ("redistributors/0/private/1/edge", json!(false)),
        ("redistributors/0/private/1/input", json!(true)),
        ("redistributors/0/private/32", spi["interrupt"].clone()),
        ("redistributors/1/pending_lpis/0", json!(8192)),
        ("redistributors/1/pending_lpis/0", json!(8191)),
        ("redistributors/1/pending_lpis/0", json!(65536)),
        ("redistributors/1/pending_lpis/0", json!(9000)),
        ("redistributors/0/cpu_interface/ICC_PMR_EL1", json!("0x4")),
        ("redistributors/0/cpu_interface/ICC_BPR0_EL1", json!("0x1")),
        ("redistributors/0/cpu_interface/ICC_BPR0_EL1", json!("0x8")),
        ("redistributors/0/cpu_interface/ICC_BPR1_EL1", json!("0x2")),
        ("redistributors/0/cpu_interface/ICC_CTLR_EL1", json!("0x0")),
        ("redistributors/0/cpu_interface/ICC_IGRPEN1_EL1", json!("0x2")),
        ("its/GITS_CTLR", json!("0x80000001")),
        ("its/GITS_CBASER", json!("0x100")),
        ("its/GITS_CWRITER", json!("0x11")),
        ("its/GITS_CREADR", json!("0x0")),
        ("its/GITS_CREADR", json!("0x10000")),
        ("its/GITS_BASER0", json!("0x1")),
        ("its/GITS_BASER1", json!("0x0")),
    ] {
        refuse(path, value);
    }
    let mut wrong = state.clone();
    wrong["state"]["redistributors"].as_object_mut().unwrap().remove("0").unwrap();
    assert!(beside(&bench).gic.restore(wrong).is_err());
    assert!(beside(&bench).gic.restore(state.clone()).is_ok());
    assert!(Bench::new(1).gic.restore(state).is_err(), "another number of PEs");
}

#[test]
fn read_pointer_off_its_commands_is_refused_even_while_the_queue_is_off() {
    let bench = Bench::new(1);
    let mut state = bench.gic.save();
    for (value, is_possible) in [("0x20", true), ("0x10", false), ("0x1000", false)] {
        state["state"]["its"]["GITS_CREADR"] = json!(value);
        assert_eq!(beside(&bench).gic.restore(state.clone()).is_ok(), is_possible, "{value}");
    }
}
