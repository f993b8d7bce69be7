//! Stopping queues whose tasks wait for pages: when the driver is answered, and what it is told.

use super::{Sqe, ZLIB, status, text, wait_until};
use crate::hisi::bench::{Machine, Page, Ring};
use crate::hisi::qm::regs::QmReg;

#[test]
fn stalled_queues_stop_no_other_and_stop_qp_gives_them_up() {
    let machine = Machine::threaded(64);
    machine.start(64);
    let stalled: Vec<Ring> = (0..20)
        .map(|qn| {
            let mut ring = machine.start_queue(qn, 0, Some(7));
            machine.spaces.map(Some(7), 0x10000, Page::Absent);
            machine.put(&mut ring, &Sqe::new(ZLIB, (0x10000, 4096), (0x20000, 4096)).0);
            machine.ring_sq(&ring);
            ring
        })
        .collect();
    wait_until(|| machine.spaces.stalls() == 20);

    let mut other = machine.start_queue(30, 0, None);
    let (src, out) = (machine.place(&text(5_000)), machine.alloc(8_192));
    assert_eq!(status(&machine.submit(&mut other, &Sqe::new(ZLIB, (src, 5_000), (out, 8_192)).0)), 0);

    for mut ring in stalled {
        machine.post_mailbox(0x8, ring.qn, 0);
        // The task has its time; then it is dropped and the mailbox is free.
        machine.pass_ns(100_000_000);
        wait_until(|| !machine.mailbox_is_busy());
        assert_eq!(machine.read(QmReg::MAILBOX) >> 9 & 0xf, 0);
        assert_eq!(machine.poll(&mut ring), None, "a dropped task has no completion");
    }
    // A late answer for the stalled page does nothing.
    machine.spaces.map(Some(7), 0x10000, Page::Refused);
}

/// A queue with one task, which waits for its source. The second is the task's request.
fn stalled_queue(machine: &Machine) -> (Ring, u16) {
    machine.start(64);
    let mut ring = machine.start_queue(5, 0, Some(7));
    let out = machine.alloc(8_192);
    machine.spaces.map(Some(7), out, Page::At(out));
    machine.spaces.map(Some(7), 0x10000, Page::Absent);
    let index = machine.put(&mut ring, &Sqe::new(ZLIB, (0x10000, 4_096), (out, 8_192)).0);
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);
    (ring, index)
}

fn serve(machine: &Machine) {
    let page = machine.place(&text(4_096));
    machine.spaces.map(Some(7), 0x10000, Page::At(page));
}

/// Linux frees what its page fault handler uses when a queue has been stopped (`iommu_sva_unbind_device`): the end must
/// not be told while a fault is open. Its poll sleeps between reads, on what may be the only processor.
#[test]
fn stop_of_a_queue_that_waits_for_a_page_lets_the_poll_go_and_ends_when_the_page_is_served() {
    let machine = Machine::threaded(4);
    let (mut ring, index) = stalled_queue(&machine);

    machine.post_mailbox(0x8, ring.qn, 0);
    for _ in 0..4 {
        machine.pass_ns(199_999);
        assert!(machine.mailbox_is_busy(), "told at once, and not before the page is there");
    }
    serve(&machine);

    wait_until(|| !machine.mailbox_is_busy());
    assert!(machine.poll(&mut ring).is_some());
    assert_eq!(status(&machine.sqe(&ring, index)), 0);
}

#[test]
fn stop_holds_the_poll_before_the_drivers_patience_ends_and_until_the_page_is_served() {
    let machine = Machine::threaded(4);
    let (mut ring, index) = stalled_queue(&machine);
    machine.post_mailbox(0x8, ring.qn, 0);
    machine.pass_ns(800_000);
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| machine.mailbox_is_busy());
        machine.pass_ns(90_000_000);
        assert!(!poll.is_finished());
        serve(&machine);
        assert!(!poll.join().unwrap());
    });
    assert!(machine.poll(&mut ring).is_some());
    assert_eq!(status(&machine.sqe(&ring, index)), 0);
}

/// The task has a processor when the poll begins, and waits for a page later.
#[test]
fn held_poll_is_let_go_when_a_task_begins_to_wait() {
    let machine = Machine::patient();
    machine.start(64);
    let mut ring = machine.start_queue(5, 0, Some(7));
    machine.spaces.map(Some(7), 0x10000, Page::Absent);
    machine.put(&mut ring, &Sqe::new(ZLIB, (0x10000, 4_096), (0x20000, 4_096)).0);
    machine.ring_sq(&ring);
    machine.post_mailbox(0x8, ring.qn, 0);
    std::thread::scope(|scope| {
        let poll = scope.spawn(|| machine.mailbox_is_busy());
        scope.spawn(|| machine.run());
        wait_until(|| machine.spaces.stalls() == 1);
        machine.pass_ns(50_000);
        assert!(poll.join().unwrap());
        machine.spaces.map(Some(7), 0x10000, Page::Refused);
    });
    assert!(!machine.mailbox_is_busy());
    assert!(machine.poll(&mut ring).is_some());
}
