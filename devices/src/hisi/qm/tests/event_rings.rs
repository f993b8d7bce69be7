//! Event rings that have no room, are replaced, or stop with the master.

use super::*;

/// A function whose event queue has room for one entry, which that of queue 3 takes; queue 5 wants one too.
fn with_a_full_event_queue() -> (Machine, u64, u64, Ring) {
    let (machine, _, aeq) = started();
    let eq = machine.alloc(4096);
    assert_eq!(machine.mailbox(0x2, 0, machine.event_context(eq, 0x1_0001)), 0);
    let [mut first, mut second] = [3, 5].map(|qn| machine.start_queue(qn, 0, None));
    submit(&machine, &mut first, 1);
    submit(&machine, &mut second, 1);
    assert_eq!([eq, eq + 4].map(|at| machine.word(at)), [0x1_0003, 0]);
    assert_eq!(machine.word(aeq), 1 << 17 | 1 << 16, "the overflow is told");
    machine.vectors();
    (machine, eq, aeq, second)
}

#[test]
fn event_that_has_no_room_survives_a_new_context_of_the_other_ring() {
    let (machine, eq, _, mut ring) = with_a_full_event_queue();
    let elsewhere = machine.alloc(4096);
    assert_eq!(machine.mailbox(0x3, 0, machine.event_context(elsewhere, 0x1_03ff)), 0);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 1 << 32 | 2 << 12);
    machine.run();
    assert_eq!((machine.word(eq + 4), machine.vectors()), (0x1_0005, vec![0]));
    // And the queue goes on.
    machine.poll(&mut ring).unwrap();
    machine.ring_cq(&ring, true);
    submit(&machine, &mut ring, 1);
    machine.vectors();
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 2 << 12);
    machine.run();
    assert_eq!((machine.word(eq), machine.vectors()), (5, vec![0]), "the ring has wrapped");
}

#[test]
fn queue_that_starts_again_after_the_master_was_shut_has_its_events_and_the_overflow_is_told_again() {
    let (machine, eq, aeq, ring) = with_a_full_event_queue();
    machine.write(QmReg::AM_CTRL_GLOBAL, 1);
    assert_eq!(machine.read(QmReg::AM_CURR_TRANS_RETURN), 3);
    machine.write(QmReg::AM_CTRL_GLOBAL, 0);
    let mut ring = machine.start_queue_at(ring.sq, 5, 0, None);
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.word(aeq + 4), 1 << 17 | 1 << 16);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 1 << 32 | 2 << 12);
    machine.run();
    assert_eq!(machine.word(eq + 4), 0x1_0005);
}
