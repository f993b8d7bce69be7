//! How long commands take, by the size of their input.

use hw::LifeCycle;

use super::*;
use crate::pci::PciFunction;

/// For each size of which commands were timed: its least bytes, how many commands, their shortest and longest time.
fn latencies(machine: &Machine) -> Vec<(u64, u64, u64, u64)> {
    let all = machine.zip.latencies().histograms();
    all.iter().map(|of_size| (of_size.from_bytes, of_size.count, of_size.min_ns, of_size.max_ns)).collect()
}

fn started() -> (Machine, crate::hisi::bench::Ring) {
    let machine = Machine::new();
    machine.start(64);
    let ring = machine.start_queue(3, 0, None);
    machine.run();
    (machine, ring)
}

/// A compression of so much.
fn compression(machine: &Machine, len: usize) -> [u32; 32] {
    let src = machine.place(&text(len));
    Sqe::new(ZLIB, (src, len), (machine.alloc(16384), 16384)).0
}

#[test]
fn command_takes_from_its_doorbell_to_its_completion_and_is_of_the_size_of_its_input() {
    let (machine, mut ring) = started();
    machine.put(&mut ring, &compression(&machine, 5000));
    machine.ring_sq(&ring);
    machine.pass_ns(3000);
    machine.put(&mut ring, &compression(&machine, 100));
    machine.put(&mut ring, &compression(&machine, 127));
    machine.ring_sq(&ring);
    machine.pass_ns(500);
    machine.run();
    assert_eq!(latencies(&machine), [(64, 2, 500, 500), (4096, 1, 3500, 3500)]);
    assert_eq!(machine.zip.latencies().unmeasured(), 0);
}

#[test]
fn command_that_is_refused_is_timed_with_no_input() {
    let (machine, mut ring) = started();
    machine.put(&mut ring, &[0; 32]);
    machine.ring_sq(&ring);
    machine.run();
    assert_eq!(latencies(&machine), [(0, 1, 0, 0)]);
}

#[test]
fn commands_of_a_queue_that_was_reset_give_no_time_to_those_that_come_later() {
    let (machine, mut ring) = started();
    machine.put(&mut ring, &compression(&machine, 100));
    machine.ring_sq(&ring);
    machine.zip.function_reset();
    machine.pass_ns(1_000_000);
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    machine.put(&mut ring, &compression(&machine, 100));
    machine.ring_sq(&ring);
    machine.run();
    assert_eq!(latencies(&machine), [(64, 1, 0, 0)]);
}

#[test]
fn command_whose_doorbell_rang_before_a_save_is_counted_and_not_timed() {
    let (machine, mut ring) = started();
    machine.put(&mut ring, &compression(&machine, 100));
    machine.ring_sq(&ring);
    let after = machine.successor(None);
    after.zip.restore(machine.zip.save()).unwrap();
    after.put(&mut ring, &compression(&after, 100));
    after.ring_sq(&ring);
    after.pass_ns(70);
    after.run();
    assert_eq!(after.zip.latencies().unmeasured(), 1);
    assert_eq!(latencies(&after), [(64, 1, 70, 70)]);
}
