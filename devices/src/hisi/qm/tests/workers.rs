//! Hosts that give fewer threads than an accelerator would have.

use super::*;

#[test]
fn accelerator_without_a_thread_for_control_and_one_for_tasks_does_not_come_to_be() {
    for most in [0, 1] {
        assert!(Machine::hiring(most, 4).is_err(), "{most} threads");
    }
    // Nothing asks for more before there is work.
    assert_eq!(Machine::hiring(2, 4).unwrap().threads.as_ref().unwrap().count(), 2);
}

#[test]
fn queues_wait_for_the_only_worker_when_the_host_gives_no_other() {
    let machine = Machine::hiring(2, 64).unwrap();
    machine.start(64);
    let mut stalled = machine.start_queue(0, 0, None);
    let mut others: Vec<Ring> = (1..16).map(|qn| machine.start_queue(qn, 0, None)).collect();
    machine.spaces.map(None, stalled.sq, Page::Absent);
    machine.put(&mut stalled, &nothing());
    machine.ring_sq(&stalled);
    while machine.spaces.stalls() == 0 {
        std::thread::yield_now();
    }
    // Each of these finds no worker, and none is to be had.
    for ring in &mut others {
        (0..20).for_each(|_| _ = machine.put(ring, &nothing()));
        machine.ring_sq(ring);
    }
    machine.spaces.map(None, stalled.sq, Page::At(stalled.sq));
    assert_eq!(machine.wait(&mut stalled), 0);
    for ring in &mut others {
        (0..20).for_each(|index| assert_eq!(machine.wait(ring), index));
    }
    assert_eq!(machine.threads.as_ref().unwrap().count(), 2);
}
