//! What goes wrong on purpose on the way of a command (`docs/faults.md`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use hw::fault::{Command, FaultAction, FaultEvent, FaultPoint, Occasion, ScriptedFaults};
use hw::{Iova, StreamId};

use super::{DEFLATE, Sqe, decode, status, text};
use crate::hisi::Accelerator;
use crate::hisi::bench::{Machine, Ring};
use crate::hisi::qm::regs::QmReg;

const SQ_TAIL: u64 = 128;

struct Planned {
    machine: Machine,
    plan: Arc<ScriptedFaults>,
    ring: Ring,
    eq: u64,
    aeq: u64,
}

fn start(machine: Machine, plan: Arc<ScriptedFaults>) -> Planned {
    let (eq, aeq) = machine.start(64);
    let ring = machine.start_queue(3, 0, None);
    Planned { machine, plan, ring, eq, aeq }
}

/// Queue 3 of a machine without threads, and this script.
fn planned(script: &[(FaultPoint, usize, FaultAction)]) -> Planned {
    let plan = ScriptedFaults::new(script);
    start(Machine::with_faults(plan.clone()), plan)
}

fn threaded(script: &[(FaultPoint, usize, FaultAction)]) -> Planned {
    let plan = ScriptedFaults::new(script);
    start(Machine::threaded_with_faults(plan.clone()), plan)
}

impl Planned {
    /// Puts one request into the ring and rings; the destination.
    fn send(&mut self) -> u64 {
        let data = text(1000);
        let (src, dst) = (self.machine.place(&data), self.machine.alloc(4096));
        self.machine.put(&mut self.ring, &Sqe::new(DEFLATE, (src, 1000), (dst, 4096)).0);
        self.machine.ring_sq(&self.ring);
        self.machine.run();
        dst
    }

    fn until(&self, mut condition: impl FnMut() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(20), "never came");
            std::thread::yield_now();
        }
    }

    fn stop_queue(&self) -> u32 {
        self.machine.mailbox(0x8, 3, 0)
    }
}

#[test]
fn write_back_that_is_lost_leaves_the_request_as_software_wrote_it() {
    let mut planned = planned(&[(FaultPoint::QmSqeWriteback, 1, FaultAction::Drop)]);
    let dst = planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), Some(0), "the completion comes all the same");
    let sqe = planned.machine.sqe(&planned.ring, 0);
    assert_eq!((sqe[0], sqe[1], status(&sqe)), (0, 0, 0));
    assert_ne!(planned.machine.word(dst), 0, "the work was done");
    let expected = Occasion::new(FaultPoint::QmSqeWriteback, StreamId(8), None)
        .at(Iova(planned.ring.sq), SQ_TAIL)
        .during(Some(Command { queue: 3, index: Some(0) }));
    assert_eq!(planned.plan.asked(), [expected]);
}

#[test]
fn wrong_status_is_all_that_is_wrong() {
    let action = FaultAction::WrongStatus { status: 0x0e };
    let mut planned = planned(&[(FaultPoint::QmSqeWriteback, 1, action)]);
    let dst = planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), Some(0));
    let sqe = planned.machine.sqe(&planned.ring, 0);
    assert_eq!((status(&sqe), sqe[0]), (0x0e, 1000));
    assert_eq!(decode(DEFLATE, &planned.machine.bytes(dst, sqe[1] as usize)), text(1000));
    planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), Some(1));
    assert_eq!(status(&planned.machine.sqe(&planned.ring, 1)), 0);
}

#[test]
fn flipped_bit_of_the_sqe_is_where_the_plan_says() {
    let action = FaultAction::BitFlip { byte: 105, bit: 4 };
    let mut planned = planned(&[(FaultPoint::QmSqeWriteback, 1, action)]);
    planned.send();
    assert_eq!(planned.machine.sqe(&planned.ring, 0)[26], 0xfeed_f00d ^ 1 << 12);
}

#[test]
fn aborted_write_back_is_an_error_of_the_function_and_halts_the_queue() {
    let action = FaultAction::Abort { byte: 0 };
    let mut planned = planned(&[(FaultPoint::QmSqeWriteback, 1, action)]);
    planned.machine.write(QmReg::ABNORMAL_INT_MASK, 0);
    planned.send();
    planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), None);
    assert_eq!(planned.machine.read(QmReg::ABNORMAL_INT_STATUS), 2, "AXI write response");
    assert_eq!(planned.machine.vectors(), [3]);
    assert_eq!(planned.plan.asked().len(), 1, "the second request is not taken");
}

#[test]
fn cqe_that_is_lost_leaves_a_hole_in_the_ring() {
    let mut planned = planned(&[(FaultPoint::QmCqe, 1, FaultAction::Drop)]);
    planned.send();
    planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), None);
    planned.ring.cq_head = 1;
    assert_eq!(planned.machine.poll(&mut planned.ring), Some(1));
}

#[test]
fn cqe_that_is_aborted_is_an_asynchronous_event() {
    let mut planned = planned(&[(FaultPoint::QmCqe, 1, FaultAction::Abort { byte: 0 })]);
    planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), None);
    assert_eq!(planned.machine.word(planned.aeq), 2 << 17 | 1 << 16 | 3);
    assert_eq!(planned.machine.vectors(), [1]);
}

#[test]
fn event_entry_that_is_lost_leaves_a_hole_and_its_message_is_sent() {
    let mut planned = planned(&[(FaultPoint::QmEqe, 1, FaultAction::Drop)]);
    planned.machine.ring_cq(&planned.ring, true);
    planned.send();
    assert_eq!(planned.machine.poll(&mut planned.ring), Some(0));
    assert_eq!(planned.machine.word(planned.eq), 0);
    assert_eq!(planned.machine.vectors(), [0]);
}

#[test]
fn event_entry_that_is_aborted_is_an_error_of_the_function() {
    let mut planned = planned(&[(FaultPoint::QmEqe, 1, FaultAction::Abort { byte: 0 })]);
    planned.machine.write(QmReg::ABNORMAL_INT_MASK, 0);
    planned.machine.ring_cq(&planned.ring, true);
    planned.send();
    assert_eq!(planned.machine.read(QmReg::ABNORMAL_INT_STATUS), 2, "AXI write response");
    assert_eq!(planned.machine.vectors(), [3]);
}

#[test]
fn message_can_be_lost_or_doubled() {
    for (action, expected) in [(FaultAction::Drop, vec![]), (FaultAction::Duplicate, vec![0, 0])] {
        let mut planned = planned(&[(FaultPoint::Msi, 1, action)]);
        planned.machine.ring_cq(&planned.ring, true);
        planned.send();
        assert_eq!(planned.machine.vectors(), expected);
        assert_eq!(planned.plan.asked()[0].vector, Some(0));
    }
}

#[test]
fn delayed_message_is_sent_when_its_time_has_come() {
    let mut planned = planned(&[(FaultPoint::Msi, 1, FaultAction::Delay { delay: 1000 })]);
    planned.machine.ring_cq(&planned.ring, true);
    planned.send();
    planned.machine.pass_ns(999);
    planned.machine.run();
    assert!(planned.machine.vectors().is_empty());
    planned.machine.pass_ns(1);
    planned.machine.run();
    assert_eq!(planned.machine.vectors(), [0]);
}

#[test]
fn spurious_message_is_sent_although_nothing_has_happened_and_one_that_there_is_not_is_refused() {
    let planned = planned(&[]);
    assert!(planned.machine.zip.go_wrong(FaultEvent::SpuriousMessage { vector: 0 }));
    planned.machine.run();
    assert_eq!(planned.machine.vectors(), [0]);
    assert!(!planned.machine.zip.go_wrong(FaultEvent::SpuriousMessage { vector: 4 }));
}

#[test]
fn axi_errors_that_belong_to_no_queue_are_latched_and_told_as_those_of_queues() {
    for (event, bits) in [(FaultEvent::AxiReadError, 1), (FaultEvent::AxiWriteError, 2)] {
        let planned = planned(&[]);
        planned.machine.write(QmReg::ABNORMAL_INT_MASK, 0);
        assert!(planned.machine.zip.go_wrong(event));
        planned.machine.run();
        assert_eq!(planned.machine.read(QmReg::ABNORMAL_INT_STATUS), bits);
        assert_eq!(planned.machine.vectors(), [3]);
    }
}

#[test]
fn hung_queue_does_nothing_more_until_it_is_stopped_and_others_go_on() {
    let mut planned = threaded(&[(FaultPoint::QmSqe, 1, FaultAction::Hang)]);
    planned.send();
    planned.until(|| planned.plan.asked().len() == 1);
    let other = planned.machine.start_queue(4, 0, None);
    let hung = std::mem::replace(&mut planned.ring, other);
    planned.send();
    assert_eq!(planned.machine.wait(&mut planned.ring), 0);
    planned.ring = hung;
    assert_eq!(planned.machine.poll(&mut planned.ring), None);
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| planned.stop_queue());
        planned.until(|| {
            planned.machine.pass_ns(1_000_000);
            stopped.is_finished()
        });
        assert_eq!(stopped.join().unwrap(), 0);
    });
}

#[test]
fn delays_on_the_way_of_a_command_end_with_guest_time() {
    let delay = FaultAction::Delay { delay: 1_000_000 };
    for point in [FaultPoint::QmSqe, FaultPoint::QmSqeWriteback, FaultPoint::QmCqe, FaultPoint::QmEqe] {
        let mut planned = threaded(&[(point, 1, delay)]);
        planned.machine.ring_cq(&planned.ring, true);
        planned.send();
        planned.until(|| {
            planned.machine.pass_ns(1_000_000);
            !planned.machine.vectors().is_empty()
        });
        assert_eq!(planned.machine.poll(&mut planned.ring), Some(0), "{point}");
    }
}

#[test]
fn spoiled_data_go_through_the_engine() {
    let data = text(1000);
    let script = |nth, action| [(FaultPoint::DmaRead, nth, action)];
    // Which read is the one of the data: it has their length.
    let dry = {
        let mut planned = planned(&script(usize::MAX, FaultAction::Abort { byte: 0 }));
        planned.send();
        planned.plan.asked().iter().position(|occasion| occasion.len == 1000).unwrap() + 1
    };
    let mut planned_flip = planned(&script(dry, FaultAction::BitFlip { byte: 500, bit: 0 }));
    let dst = planned_flip.send();
    let sqe = planned_flip.machine.sqe(&planned_flip.ring, 0);
    let out = decode(DEFLATE, &planned_flip.machine.bytes(dst, sqe[1] as usize));
    let different: Vec<usize> = (0..1000).filter(|&at| out[at] != data[at]).collect();
    assert_eq!((status(&sqe), different), (0, vec![500]));

    let mut planned_abort = planned(&script(dry, FaultAction::Abort { byte: 500 }));
    planned_abort.send();
    assert_eq!(status(&planned_abort.machine.sqe(&planned_abort.ring, 0)), 0x04, "source fault");
}
