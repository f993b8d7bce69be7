//! Save and restore.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One thing that a guest or the host does: an access, input, a break, room.
fn perform(bench: &Bench, (what, at, value): (u8, u64, u32)) {
    match what {
        0..4 => bench.write(at * 4, value),
        4 => drop(bench.read(at * 4)),
        5 => drop(bench.uart.receive(&value.to_le_bytes())),
        6 => drop(bench.uart.receive_break()),
        _ => {
            bench.host.room.store(value as usize % 8, Ordering::SeqCst);
            bench.uart.output_room();
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u64, u32)>> {
    let registers = prop::sample::select(vec![0, 1, 6, 8, 9, 10, 11, 12, 13, 14, 17, 18]);
    prop::collection::vec((0u8..8, registers, prop_oneof![0u32..0x800, any::<u32>()]), 0..80)
}

fn taken(bench: &Bench) -> Vec<u8> {
    std::mem::take(&mut bench.host.out.lock().unwrap())
}

proptest! {
    #[test]
    fn restored_uart_is_the_saved_one_and_goes_on_as_it_would(before in steps(), after in steps()) {
        let bench = Bench::started();
        bench.host.room.store(3, Ordering::SeqCst);
        before.into_iter().for_each(|step| perform(&bench, step));
        let state = bench.uart.save();
        let other = Bench::new();
        other.uart.restore(state.clone()).unwrap();
        prop_assert_eq!(other.uart.save(), state);
        prop_assert_eq!(other.line.level(), bench.line.level());
        other.host.room.store(bench.host.room.load(Ordering::SeqCst), Ordering::SeqCst);
        taken(&bench);
        for step in after {
            perform(&bench, step);
            perform(&other, step);
            prop_assert_eq!(other.line.level(), bench.line.level());
        }
        prop_assert_eq!(other.uart.save(), bench.uart.save());
        prop_assert_eq!(taken(&other), taken(&bench));
    }
}

#[test]
fn output_that_waited_is_sent_when_the_restored_machine_goes_on() {
    let bench = Bench::started();
    bench.host.room.store(0, Ordering::SeqCst);
    (0..3).for_each(|byte| bench.write(DR, byte));
    let other = Bench::new();
    other.uart.restore(bench.uart.save()).unwrap();
    assert!(taken(&other).is_empty());
    other.uart.resume();
    assert_eq!(taken(&other), [0, 1, 2]);
    assert_eq!(other.read(FR) & 0x80, 0x80, "empty");
}

#[test]
fn input_that_waits_for_a_uart_that_was_off_is_asked_for_after_a_restore() {
    let bench = Bench::started();
    let other = Bench::new();
    assert_eq!(other.uart.receive(b"x"), 0);
    other.uart.restore(bench.uart.save()).unwrap();
    assert_eq!(other.host.calls.load(Ordering::SeqCst), 1);
}

#[test]
fn state_that_no_guest_could_have_brought_about_is_refused() {
    let bench = Bench::started();
    let state = bench.uart.save();
    let many = |len: usize| json!(vec!["0x0"; len]);
    for (path, value, is_possible) in [
        ("registers/UARTIMSC", json!("0x800"), false),
        ("registers/UARTRIS", json!("0x1"), false),
        ("registers/UARTRIS", json!("0x670"), true),
        ("registers/UARTCR", json!("0x10000"), false),
        ("registers/UARTRSR_ECR", json!("0x10"), false),
        ("registers/UARTMIS", json!("0x0"), false),
        ("receive_fifo", many(32), true),
        ("receive_fifo", many(33), false),
        ("receive_fifo", json!(["0x1000"]), false),
        ("receive_fifo", json!(["0x10041"]), false),
        ("receive_fifo", json!(["0xc41"]), true),
        ("transmit_fifo", many(33), false),
        ("transmit_fifo", json!(["0x100"]), false),
        ("more", json!(1), false),
    ] {
        let mut changed = state.clone();
        let path = format!("/state/{path}");
        let (parent, key) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        assert_eq!(Bench::new().uart.restore(changed).is_ok(), is_possible, "{path}");
    }
    // With FIFOs off, one.
    let mut off = state;
    off["state"]["registers"]["UARTLCR_H"] = json!("0x0");
    off["state"]["receive_fifo"] = many(2);
    assert!(Bench::new().uart.restore(off).is_err());
}
