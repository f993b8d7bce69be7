//! The machine's resets and pauses, in every state that work can be in.

use std::sync::mpsc;
use std::time::Duration;

use hw::fault::{FaultAction, FaultPoint, ScriptedFaults};
use hw::regmap::RegisterMap;

use super::*;
use crate::hisi::Accelerator;
use crate::hisi::qm::{Stage, TaskState};

/// The words of all registers of both maps, and the configuration space.
fn registers(machine: &Machine) -> Vec<(&'static str, u64, u32)> {
    let offsets = |info: &hw::regmap::RegisterInfo| {
        let (offset, stride, bytes) = (info.offset, info.stride, info.bytes.max(4));
        (0..info.count)
            .flat_map(move |index| (0..bytes / 4).map(move |word| offset + index * stride + 4 * word))
    };
    let maps = QmReg::ALL.iter().map(|(_, info)| info).chain(ZipReg::ALL.iter().map(|(_, info)| info));
    let mut words: Vec<_> = maps
        .flat_map(|info| offsets(info).map(|at| (info.name, at, machine.read(at))).collect::<Vec<_>>())
        .collect();
    for at in (0..4096).step_by(4) {
        let mut word = [0; 4];
        machine.zip.config().read(at, &mut word);
        words.push(("configuration", at, u32::from_le_bytes(word)));
    }
    words
}

/// All state of the queue manager as text, without the numbers that only tell one life from another.
fn state(machine: &Machine) -> String {
    let text = format!("{:#?}", machine.zip.qm().front.lock().unwrap());
    let is_identity = |line: &&str| {
        ["life:", "round:", "write_backs:"].iter().any(|name| line.trim_start().starts_with(name))
    };
    text.lines().filter(|line| !is_identity(line)).collect::<Vec<_>>().join("\n")
}

/// Leaves nothing as it was: queues with work, errors, a full event ring, a command under way, and all ones in each
/// register that can be written.
fn disturb(machine: &Machine) {
    machine.enable_function();
    machine.start(64);
    let mut rings = [3, 4, 5].map(|qn| machine.start_queue(qn, qn % 2, None));
    for ring in &mut rings {
        submit(machine, ring, 20);
    }
    machine.mailbox(0x1, 5, machine.cqc(0x10_0000, None));
    submit(machine, &mut rings[2], 1);
    machine.write(QmReg::ABNORMAL_INT_SET, 0x7fff);
    for (offset, bytes) in
        QmReg::ALL.iter().map(|(_, info)| (info.offset, info.bytes)).chain(ZipReg::ALL.iter().flat_map(
            |(_, info)| (0..info.count).map(move |index| (info.offset + index * info.stride, info.bytes)),
        ))
    {
        for half in 0..bytes.div_ceil(4) {
            let at = offset + 4 * half;
            // What stops queues is left out, so that something is left to do.
            let stops = QmReg::locate(at).is_some_and(|at| {
                matches!(
                    at.reg,
                    QmReg::MAILBOX
                        | QmReg::MEM_START_INIT
                        | QmReg::VFT_CFG_OP_ENABLE
                        | QmReg::AM_CTRL_GLOBAL
                        | QmReg::OOO_SHUTDOWN_SEL
                )
            });
            if !stops {
                machine.write(at, u32::MAX);
            }
        }
    }
    let eq = machine.alloc(4096);
    assert_eq!(machine.mailbox(0x2, 0, machine.event_context(eq, 0x1_0001)), 0);
    let mut ring = machine.start_queue(7, 0, None);
    machine.put(&mut ring, &nothing());
    machine.ring_sq(&ring);
    machine.write(QmReg::CACHE_WB_START, 1);
    // Neither has been served.
    machine.post_mailbox(0x0, 8, machine.sqc(ring.sq, 8, 0, None));
    machine.zip.bar_write(4, 0x7_1000, &0x1234_5678_u32.to_le_bytes()).unwrap();
    machine.vectors();
}

#[test]
fn reset_brings_every_register_and_all_internal_state_back_to_power_on() {
    let machine = Machine::at_power_on();
    let (at_power_on, initial) = (registers(&machine), state(&machine));
    for round in 0..100 {
        if round % 10 == 0 {
            disturb(&machine);
            assert!(state(&machine) != initial);
        }
        machine.zip.reset();
        for (found, expected) in registers(&machine).iter().zip(&at_power_on) {
            assert_eq!(found, expected, "round {round}");
        }
        let now = state(&machine);
        let difference = now.lines().zip(initial.lines()).find(|(found, expected)| found != expected);
        assert_eq!((difference, now.len()), (None, initial.len()), "round {round}");
        let memory = machine.memory();
        machine.run();
        machine.pass_ns(1_000_000_000);
        machine.run();
        assert_eq!(machine.vectors(), [0_u32; 0]);
        assert!(machine.memory() == memory, "nothing is written afterwards");
    }
    assert!(machine.zip.totals().commands >= 10 * 60, "counts for the user go on");
    // And it serves as at first.
    machine.enable_function();
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    submit(&machine, &mut ring, 1);
    assert_eq!((machine.poll(&mut ring), machine.vectors()), (Some(0), vec![0]));
}

/// Where the source of the second queue's task is in its process.
const SOURCE: u64 = 0x10_0000;

/// Queues 0 to 2, whose tasks wait for the SQE, for the source, and for the CQE's page; the event writer waits for the page
/// of queue 3's event, and the control worker for that of a context.
struct Waiting {
    machine: Arc<Machine>,
    rings: Vec<Ring>,
    eq: u64,
    context: u64,
}

impl Waiting {
    fn new() -> Self {
        let machine = Arc::new(Machine::threaded(64));
        let (eq, _) = machine.start(64);
        let mut rings: Vec<_> = (0..4).map(|qn| machine.start_queue(qn, 0, Some(7))).collect();
        let context = machine.sqc(rings[0].sq, 9, 0, None);
        for (pasid, page) in
            [(None, rings[0].sq), (Some(7), SOURCE), (None, rings[2].cq), (None, eq), (None, context)]
        {
            machine.spaces.map(pasid, page, Page::Absent);
        }
        // A zlib request.
        let request = std::array::from_fn(|dw| match dw {
            4 | 14 => 4096,
            7 => 3 << 28,
            9 => 2 | 4 << 12,
            18 | 20 => SOURCE as u32,
            _ => 0,
        });
        for ring in &mut rings {
            let sqe = if ring.qn == 1 { request } else { nothing() };
            machine.put(ring, &sqe);
            machine.ring_sq(ring);
        }
        while machine.spaces.stalls() < 4 {
            std::thread::yield_now();
        }
        machine.post_mailbox(0x0, 9, context);
        while machine.spaces.stalls() < 5 {
            std::thread::yield_now();
        }
        Self { machine, rings, eq, context }
    }

    /// All pages are there. What still waited would go on.
    fn serve(&self) {
        let source = self.machine.alloc(4096);
        for (pasid, page, at) in [
            (None, self.rings[0].sq, self.rings[0].sq),
            (Some(7), SOURCE, source),
            (None, self.rings[2].cq, self.rings[2].cq),
            (None, self.eq, self.eq),
            (None, self.context, self.context),
        ] {
            self.machine.spaces.map(pasid, page, Page::At(at));
        }
    }
}

type Reset = fn(&Machine);

/// Each of the ways in which the whole function is reset.
const RESETS: [(&str, Reset); 2] = [
    ("the machine's", |machine| machine.zip.reset()),
    ("function-level", |machine| machine.zip.function_reset()),
];

#[test]
fn reset_ends_all_that_waits_for_pages_and_nothing_is_written_afterwards() {
    for (what, reset) in RESETS {
        let waiting = Waiting::new();
        let machine = &waiting.machine;
        assert_eq!(machine.read(QmReg::AM_CURR_TRANS_RETURN), 0, "accesses are under way");
        reset(machine);
        assert_eq!(
            (machine.read(QmReg::AM_CURR_TRANS_RETURN), machine.zip.qm().tasks_in_flight()),
            (3, vec![]),
            "{what}"
        );
        let (memory, threads) = (machine.memory(), machine.threads.as_ref().unwrap().count());
        waiting.serve();
        // Whoever still had something to do would do it before this.
        machine.enable_function();
        machine.start(64);
        let mut ring = machine.start_queue(5, 0, None);
        machine.put(&mut ring, &nothing());
        machine.ring_sq(&ring);
        assert_eq!(machine.wait(&mut ring), 0, "{what}: workers serve again");
        assert!(machine.bytes(crate::hisi::bench::RAM_BASE, memory.len()) == memory, "{what}");
        assert_eq!(machine.threads.as_ref().unwrap().count(), threads, "no worker is lost");
    }
}

/// A worker that is in the midst of a write when the reset comes cannot be called back.
#[test]
fn reset_returns_when_a_write_under_way_has_ended_and_not_before() {
    for (what, reset) in RESETS {
        let machine = Arc::new(Machine::threaded(4));
        machine.start(64);
        let mut ring = machine.start_queue(3, 0, None);
        let (inside, is_inside) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        // After the SQE has been written back, before its CQE.
        machine.spaces.react(ring.sq, move || {
            inside.send(()).unwrap();
            let _ = may_go.recv();
        });
        machine.put(&mut ring, &nothing());
        machine.ring_sq(&ring);
        is_inside.recv().unwrap();
        let expected = TaskState { qn: 3, index: 0, stage: Stage::WriteBack, waits: false };
        assert_eq!(machine.zip.qm().tasks_in_flight(), [expected]);
        let (returned, has_returned) = mpsc::channel();
        let resetting = std::thread::spawn({
            let machine = Arc::clone(&machine);
            move || {
                reset(&machine);
                returned.send(()).unwrap();
            }
        });
        assert!(has_returned.recv_timeout(Duration::from_millis(200)).is_err(), "{what}");
        go.send(()).unwrap();
        resetting.join().unwrap();
        assert_eq!(machine.poll(&mut ring), None, "{what}: the task has been given up");
    }
}

#[test]
fn reset_drops_what_a_fault_plan_delays() {
    let delay = FaultAction::Delay { delay: 1_000_000 };
    let plan = ScriptedFaults::new(&[(FaultPoint::Msi, 1, delay)]);
    let machine = Machine::with_faults(plan);
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    submit(&machine, &mut ring, 1);
    assert_eq!(machine.vectors(), [0_u32; 0]);
    machine.zip.reset();
    machine.enable_function();
    machine.start(64);
    machine.pass_ns(1_000_000);
    machine.run();
    assert_eq!(machine.vectors(), [0_u32; 0]);
}

#[test]
fn quiesce_returns_while_tasks_wait_and_says_where_and_what_comes_meanwhile_is_served_after_resume() {
    let mut waiting = Waiting::new();
    let machine = Arc::clone(&waiting.machine);
    machine.zip.quiesce();
    let at = |qn, stage| TaskState { qn, index: 0, stage, waits: true };
    assert_eq!(
        machine.zip.qm().tasks_in_flight(),
        [at(0, Stage::Fetch), at(1, Stage::Execute), at(2, Stage::Complete)]
    );
    // Of a queue that had nothing to do, and of one whose event is owed.
    let more = &mut waiting.rings[3];
    (0..20).for_each(|_| _ = machine.put(more, &nothing()));
    machine.ring_sq(more);
    machine.ring_cq(more, true);
    assert_eq!(machine.zip.qm().tasks_in_flight().len(), 3, "nothing is begun");
    waiting.serve();
    machine.zip.resume();
    for (qn, last) in [(0, 0), (1, 0), (2, 0), (3, 20)] {
        for index in 0..=last {
            assert_eq!(machine.wait(&mut waiting.rings[qn]), index, "queue {qn}");
        }
    }
    while machine.mailbox_is_busy() {
        std::thread::yield_now();
    }
    assert_eq!(machine.read(QmReg::MAILBOX) >> 9 & 0xf, 0);
}

#[test]
fn paused_function_begins_neither_tasks_nor_commands_nor_messages() {
    let machine = Machine::new();
    let (eq, _) = machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    machine.zip.quiesce();
    machine.zip.quiesce();
    machine.put(&mut ring, &nothing());
    machine.ring_sq(&ring);
    let context = machine.sqc(ring.sq, 9, 0, None);
    machine.post_mailbox(0x0, 9, context);
    machine.write(QmReg::ABNORMAL_INT_MASK, 0);
    machine.write(QmReg::ABNORMAL_INT_SET, 4);
    machine.run();
    assert_eq!((machine.poll(&mut ring), machine.word(eq), machine.vectors()), (None, 0, vec![]));
    assert!(machine.mailbox_is_busy());
    machine.zip.resume();
    machine.run();
    assert_eq!((machine.poll(&mut ring), machine.word(eq)), (Some(0), 0x1_0003));
    assert_eq!(machine.vectors(), [3, 0]);
    assert!(!machine.mailbox_is_busy());
}

#[test]
fn machine_that_is_reset_while_it_is_paused_stays_paused() {
    let machine = Machine::new();
    machine.zip.quiesce();
    machine.zip.reset();
    machine.enable_function();
    machine.post_mailbox(0x6, 0, 0);
    machine.post_mailbox(0x2, 0, machine.event_context(machine.alloc(4096), 0x1_07ff));
    machine.run();
    assert!(machine.mailbox_is_busy());
    machine.zip.resume();
    machine.run();
    assert!(!machine.mailbox_is_busy());
}

#[test]
fn no_command_is_lost_or_done_twice_however_pauses_fall() {
    const QUEUES: u16 = 4;
    const TASKS: u16 = 400;
    let machine = Machine::threaded(3);
    machine.start(64);
    let mut rings: Vec<_> = (0..QUEUES).map(|qn| machine.start_queue(qn, 0, None)).collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let pauses = std::thread::scope(|scope| {
        let pausing = scope.spawn(|| {
            let mut pauses = 0;
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                machine.zip.quiesce();
                assert_eq!(machine.zip.qm().tasks_in_flight(), [], "no task waits for the guest");
                assert_eq!(machine.read(QmReg::AM_CURR_TRANS_RETURN), 3);
                machine.zip.resume();
                pauses += 1;
            }
            pauses
        });
        scope.spawn(|| {
            for index in 0..TASKS {
                for ring in &mut rings {
                    machine.put(ring, &nothing());
                    machine.ring_sq(ring);
                }
                if index % 8 == 7 {
                    for ring in &mut rings {
                        (0..8).for_each(|back| assert_eq!(machine.wait(ring), index - 7 + back));
                        machine.ring_cq(ring, true);
                    }
                }
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        pausing.join().unwrap()
    });
    assert!(pauses > 0);
    assert!(rings.iter_mut().all(|ring| machine.poll(ring).is_none()));
}

/// An event whose page is not there keeps the worker that writes it, and no task.
#[test]
fn worker_that_writes_an_event_leaves_the_tasks_to_others() {
    let machine = Machine::threaded(64);
    let (eq, _) = machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    machine.spaces.map(None, eq, Page::Absent);
    (0..20).for_each(|_| _ = machine.put(&mut ring, &nothing()));
    machine.ring_sq(&ring);
    (0..20).for_each(|index| assert_eq!(machine.wait(&mut ring), index));
    machine.zip.quiesce();
    assert_eq!(machine.zip.qm().tasks_in_flight(), []);
    machine.zip.resume();
    machine.spaces.map(None, eq, Page::At(eq));
}
