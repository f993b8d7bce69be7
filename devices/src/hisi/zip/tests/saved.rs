//! Save and restore while accesses wait: the machine goes on in another accelerator on the same memory.

use std::sync::Arc;

use hw::LifeCycle;
use hw::fault::{FaultAction, FaultPoint, ScriptedFaults};
use serde_json::{Value, json};

use super::streams::Session;
use super::*;
use crate::hisi::bench::DOORBELL;

/// An accelerator that has taken up the state of this one, which ends.
fn succeed(machine: Machine) -> Machine {
    machine.zip.quiesce();
    let after = machine.successor(None);
    let state = machine.zip.save();
    after.zip.quiesce();
    after.zip.restore(state.clone()).unwrap();
    assert_eq!(after.zip.save(), state, "before it goes on");
    drop(machine);
    after.zip.resume();
    after
}

/// Where the second request of a stream comes to a page that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Fetch,
    Source,
    Destination,
    /// When the new state is written: the first page of the context, or a later one, when half of it is new already.
    Context(u64),
    WriteBack,
    Completion,
    Event,
    Message,
}

/// A stream of two requests, the second of which waits at a place while the machine is saved.
fn stream_waits_at(place: Place, queue_type: u16) {
    const PAGE: u64 = 4096;
    let machine = Machine::threaded(4);
    let (eq, _) = machine.start(64);
    let mut ring = machine.start_queue(3, queue_type, None);
    machine.ring_cq(&ring, true);
    let data = text(120_000);
    let mut packed = Vec::new();
    flate2::read::DeflateEncoder::new(&data[..], flate2::Compression::default())
        .read_to_end(&mut packed)
        .unwrap();
    let (input, output) = if queue_type == 0 { (&data, 200_000) } else { (&packed, data.len()) };
    let half = input.len() / 2;
    let src = machine.place(input);
    let dst = machine.alloc(200_000);
    let mut session = Session::new(&machine, DEFLATE);
    let first = session.request(&machine, &mut ring, (src, half), (dst, output), false);
    assert_eq!((status(&first), first[0] as usize), (0, half));
    let made = first[1] as usize;
    // The first completion's event has been read, and the next one raises one.
    wait_until(|| machine.word(eq) & 0x1_0000 != 0);
    machine.write64(QmReg::DOORBELL_EQ_AEQ, 2 << 12 | 1 << 32);
    machine.ring_cq(&ring, true);
    wait_until(|| machine.vectors() == [0]);

    let to = dst + made as u64;
    let sqe = session.sqe((src + half as u64, input.len() - half), (to, output - made), true);
    let at = match place {
        Place::Fetch | Place::WriteBack => ring.sq,
        Place::Source => src + half as u64 + PAGE,
        Place::Destination => to + PAGE,
        Place::Context(page) => session.context + page * PAGE,
        Place::Completion => ring.cq,
        Place::Event => eq,
        Place::Message => DOORBELL,
    };
    let (spaces, context) = (Arc::clone(&machine.spaces), session.context);
    let take_away = move || spaces.map(None, at, Page::Absent);
    let stateful_write = if queue_type == 0 { context + 0xc00 } else { context };
    match place {
        Place::Context(_) => machine.spaces.react(to, take_away),
        Place::WriteBack => machine.spaces.react(stateful_write, take_away),
        _ => take_away(),
    }
    machine.put(&mut ring, &sqe);
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);
    let counters = |machine: &Machine| {
        [
            QmReg::DFX_SQE_CNT.offset(),
            QmReg::DFX_SEND_SQE_TO_ACC_CNT.offset(),
            ZipReg::GET_BD_NUM.at(0),
            ZipReg::GET_BD_NUM.at(2),
        ]
        .map(|at| machine.read(at))
    };

    let after = succeed(machine);
    let taken = counters(&after);
    wait_until(|| after.spaces.stalls() == 2);
    assert_eq!(counters(&after), taken, "{place:?}: it is taken once");
    after.spaces.map(None, at, Page::At(at & !(PAGE - 1)));
    let index = after.wait(&mut ring);
    assert_eq!(index, 1, "{place:?}");
    let done = after.sqe(&ring, index);
    let total = made + done[1] as usize;
    let result = after.bytes(dst, total);
    match queue_type {
        0 => assert_eq!(decode(DEFLATE, &result), data, "{place:?}"),
        _ => assert!(result == data && status(&done) == 0x13, "{place:?}"),
    }
    wait_until(|| after.word(eq + 4) == 0x1_0003);
    wait_until(|| after.vectors() == [0]);
    assert_eq!(after.poll(&mut ring), None, "{place:?}: it completes once");
    // The queue goes on.
    let again = after.submit(&mut ring, &Sqe::new(DEFLATE, (src, half.min(100)), (dst, 200_000)).0);
    assert_eq!(again[26], 0xfeed_f00d);
    // The completion is seen before the task is given back and counted.
    wait_until(|| after.zip.qm().tasks_in_flight().is_empty());
    assert_eq!(after.read(QmReg::DFX_ACC_FINISH_CNT), 3, "{place:?}: completions");
}

#[test]
fn request_of_a_stream_goes_on_after_a_restore_wherever_it_waits() {
    for queue_type in [0, 1] {
        for place in [
            Place::Fetch,
            Place::Source,
            Place::Destination,
            Place::Context(0),
            Place::Context(3),
            Place::WriteBack,
            Place::Completion,
            Place::Event,
            Place::Message,
        ] {
            stream_waits_at(place, queue_type);
        }
    }
}

#[test]
fn page_that_is_refused_after_a_restore_ends_the_request_with_an_error() {
    for (place, expected) in [("source", 0x04), ("context", 0x06)] {
        let machine = Machine::threaded(4);
        machine.start(64);
        let mut ring = machine.start_queue(3, 0, None);
        let (src, dst) = (machine.place(&text(5000)), machine.alloc(8192));
        let session = Session::new(&machine, ZLIB);
        let at = if place == "source" { src } else { session.context };
        machine.spaces.map(None, at, Page::Absent);
        machine.put(&mut ring, &session.sqe((src, 5000), (dst, 8192), false));
        machine.ring_sq(&ring);
        wait_until(|| machine.spaces.stalls() == 1);
        let after = succeed(machine);
        wait_until(|| after.spaces.stalls() == 2);
        after.spaces.map(None, at, Page::Refused);
        let index = after.wait(&mut ring);
        assert_eq!(status(&after.sqe(&ring, index)), expected, "{place}");
    }
}

#[test]
fn mailbox_command_that_waits_for_a_page_completes_after_a_restore() {
    let machine = Machine::threaded(4);
    machine.start(64);
    let memory = machine.alloc(37 * 4096);
    let sqc = machine.sqc(memory, 9, 0, None);
    machine.spaces.map(None, sqc, Page::Absent);
    machine.post_mailbox(0x0, 9, sqc);
    wait_until(|| machine.spaces.stalls() == 1);
    let after = succeed(machine);
    wait_until(|| after.spaces.stalls() == 2);
    after.spaces.map(None, sqc, Page::At(sqc));
    wait_until(|| !after.mailbox_is_busy());
    assert_eq!(after.read(QmReg::MAILBOX) >> 9 & 0xf, 0);
    let dump = after.alloc(32);
    assert_eq!(after.mailbox(0x4000, 9, dump), 0);
    assert_eq!(after.bytes(dump + 4, 8), memory.to_le_bytes());
}

#[test]
fn stop_of_a_queue_whose_task_waits_goes_on_after_a_restore() {
    let machine = Machine::threaded(4);
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    let (src, dst) = (machine.place(&text(100)), machine.alloc(4096));
    machine.spaces.map(None, src, Page::Absent);
    machine.put(&mut ring, &Sqe::new(ZLIB, (src, 100), (dst, 4096)).0);
    machine.ring_sq(&ring);
    wait_until(|| machine.spaces.stalls() == 1);
    machine.post_mailbox(0x8, 3, 0);
    // A read of the busy mailbox would wait: the clock stands.
    let after = succeed(machine);
    wait_until(|| after.spaces.stalls() == 2);
    after.spaces.map(None, src, Page::At(src));
    assert_eq!(after.wait(&mut ring), 0);
    wait_until(|| !after.mailbox_is_busy());
}

/// A plan is asked about a place once, whether or not the machine is saved meanwhile.
#[test]
fn task_that_a_plan_delays_has_the_rest_of_its_delay_after_a_restore() {
    for point in [FaultPoint::QmSqe, FaultPoint::QmSqeWriteback, FaultPoint::QmCqe] {
        let script = [(point, 1, FaultAction::Delay { delay: 1000 })];
        let machine = Machine::threaded_with_faults(ScriptedFaults::new(&script));
        machine.start(64);
        let mut ring = machine.start_queue(3, 0, None);
        let (src, dst) = (machine.place(&text(100)), machine.alloc(4096));
        machine.put(&mut ring, &Sqe::new(ZLIB, (src, 100), (dst, 4096)).0);
        machine.ring_sq(&ring);
        wait_until(|| machine.zip.qm().tasks_in_flight().iter().any(|task| task.waits));
        machine.pass_ns(400);
        machine.zip.quiesce();
        let plan = ScriptedFaults::new(&script);
        let after = machine.successor(Some(plan.clone()));
        after.zip.quiesce();
        after.zip.restore(machine.zip.save()).unwrap();
        assert_eq!(after.zip.save(), machine.zip.save());
        drop(machine);
        after.zip.resume();
        wait_until(|| after.zip.qm().tasks_in_flight().iter().any(|task| task.waits));
        after.pass_ns(599);
        assert_eq!(after.poll(&mut ring), None, "{point:?}");
        after.pass_ns(1);
        let index = after.wait(&mut ring);
        assert_eq!(status(&after.sqe(&ring, index)), 0);
        assert!(plan.asked().is_empty(), "{point:?}");
    }
}

#[test]
fn task_that_a_plan_lets_hang_hangs_after_a_restore_until_its_queue_is_stopped() {
    let script = [(FaultPoint::QmSqe, 1, FaultAction::Hang)];
    let machine = Machine::threaded_with_faults(ScriptedFaults::new(&script));
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    machine.put(&mut ring, &[0; 32]);
    machine.ring_sq(&ring);
    wait_until(|| machine.zip.qm().tasks_in_flight().iter().any(|task| task.waits));
    let after = succeed(machine);
    wait_until(|| after.zip.qm().tasks_in_flight().iter().any(|task| task.waits));
    after.zip.qm().reset();
    assert!(after.zip.qm().tasks_in_flight().is_empty());
}

#[test]
fn messages_that_a_plan_delays_leave_after_a_restore() {
    let script = [(FaultPoint::Msi, 1, FaultAction::Delay { delay: 1000 })];
    let machine = Machine::with_faults(ScriptedFaults::new(&script));
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    machine.ring_cq(&ring, true);
    machine.put(&mut ring, &[0; 32]);
    machine.ring_sq(&ring);
    machine.run();
    assert_eq!(machine.vectors(), [] as [u32; 0]);
    let state = machine.zip.save();
    assert!(machine.successor(None).zip.restore(state.clone()).is_err(), "nobody could have delayed it");
    let after = machine.successor(Some(ScriptedFaults::new(&script)));
    after.zip.restore(state).unwrap();
    after.pass_ns(1000);
    after.run();
    assert_eq!(after.vectors(), [0]);
}

/// A state in which a task waits with its last writes, and another with its write-back.
fn rich_state() -> (Machine, Value) {
    let machine = Machine::new();
    machine.start(64);
    machine.start_queue(3, 0, None);
    machine.start_queue(5, 0, Some(7));
    let mut state = machine.zip.save();
    let queues = &mut state["state"]["qm"]["queues"];
    queues["3"]["task"] = json!({
        "stage": "execute", "sqe": "00".repeat(128), "last_writes": [{ "address": "0x40001000", "data": "00" }],
    });
    queues["5"]["task"] = json!({ "stage": "write_back", "sqe": "00".repeat(128) });
    (machine, state)
}

#[test]
fn values_that_no_guest_could_have_brought_about_are_refused() {
    let (machine, state) = rich_state();
    assert_eq!(machine.successor(None).zip.restore(state.clone()), Ok(()));
    let task = |stage: &str| json!({ "stage": stage });
    for (path, value) in [
        ("/registers/HIGH_PERF", json!("0x100000000")),
        ("/registers/CORE_INT_MASK", json!("0x2000")),
        ("/registers/SVA_TRANS", json!("0x1")),
        ("/registers/UNKNOWN", json!("0x1")),
        (
            "/atc",
            json!({ "is_refused": false, "delayed_completions": [],
            "pages": { "next_index": 0, "unanswered": {}, "refused": [] } }),
        ),
        ("/messages/due", json!([4])),
        ("/qm/registers/PEH_DFX_INFO0", json!("0x1")),
        ("/qm/registers/MAILBOX[0]", json!("0x1")),
        ("/qm/registers/CACHE_WB_DONE", json!("0x2")),
        ("/qm/vft/3", json!({ "0": "0x0" })),
        ("/qm/vft/0", json!({ "64": "0x0" })),
        // The queues are no longer the function's.
        ("/qm/vft", json!({})),
        ("/qm/is_shut", json!(true)),
        ("/qm/mailbox/bytes", json!("00".repeat(15))),
        ("/qm/mailbox/is_started", json!(true)),
        ("/qm/patience/stop_polled_in_ns", json!(800_001)),
        ("/qm/patience/command_in_ns", json!(u64::MAX)),
        ("/qm/events/EQ/context", json!("ff".repeat(24) + &"00".repeat(8))),
        ("/qm/events/pending", json!([256])),
        ("/qm/events/pending", json!([1, 1])),
        ("/qm/events/asynchronous", json!([[3, 0]])),
        ("/qm/events/asynchronous", json!([[0, 1], [0, 1]])),
        ("/qm/events/unfinished", json!({ "EQE": 256 })),
        ("/qm/events/unfinished", json!({ "message": 2 })),
        ("/qm/runnable", json!([256])),
        ("/qm/runnable", json!([3])),
        ("/qm/queues/256", state["state"]["qm"]["queues"]["3"].clone()),
        ("/qm/queues/03", state["state"]["qm"]["queues"]["3"].clone()),
        ("/qm/queues/64", state["state"]["qm"]["queues"]["3"].clone()),
        ("/qm/queues/3/SQC", json!(null)),
        ("/qm/queues/3/SQC", json!("ff".repeat(32))),
        ("/qm/queues/3/CQC", json!("ff".repeat(32))),
        ("/qm/queues/3/is_halted", json!(true)),
        ("/qm/queues/3/cq_live", json!(false)),
        ("/qm/queues/3/task", json!({ "stage": "execute", "sqe": "00".repeat(128) })),
        ("/qm/queues/3/task", task("write_back")),
        ("/qm/queues/3/task", json!({ "stage": "write_back", "sqe": "00".repeat(127) })),
        ("/qm/queues/3/task", json!({ "stage": "complete", "hangs": true })),
        ("/qm/queues/3/task", json!({ "stage": "execute", "due_in_ns": 1 })),
        ("/qm/queues/3/task", json!({ "stage": "fetch", "due_in_ns": u64::MAX })),
        ("/qm/queues/3/task/last_writes", json!(vec![json!({ "address": "0x0", "data": "" }); 17])),
        ("/qm/queues/3/task/last_writes", json!([{ "address": "0x0", "data": "00".repeat((1 << 20) + 1) }])),
    ] {
        let mut state = state.clone();
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = state.pointer_mut(&format!("/state{parent}")).unwrap_or_else(|| panic!("{path}"));
        parent[key] = value.clone();
        let text = value.to_string();
        let result = machine.successor(None).zip.restore(state);
        assert!(result.is_err(), "{path}: {}", &text[..text.len().min(80)]);
    }
}
