//! The machine's resets and pauses, and the others, which do the same.

use std::sync::mpsc;

use super::*;

/// The words of all registers, and the configuration space.
fn registers(bench: &Bench) -> Vec<(u64, u32)> {
    let bar = (0..BAR0_BYTES).step_by(4).map(|at| (at, bench.r32(at)));
    bar.chain((0..4096).step_by(4).map(|at| (at, bench.dword(at)))).collect()
}

/// All state behind the registers as text, without threads, which stay, and what only tells one life from another.
fn state(bench: &Bench) -> String {
    let text = format!("{:#?}", bench.device.lock());
    let is_identity = |line: &&str| {
        ["age:", "round:", "has_thread:"].iter().any(|name| line.trim_start().starts_with(name))
    };
    text.lines().filter(|line| !is_identity(line)).collect::<Vec<_>>().join("\n")
}

type Reset = fn(&Bench);

const RESETS: [(&str, Reset); 3] = [
    ("the machine's", |bench| bench.device.reset()),
    ("function-level", |bench| bench.device.function_reset()),
    ("software's", |bench| bench.w32(DT_CTRL, 1)),
];

#[test]
fn reset_brings_registers_and_internal_state_back_to_power_on_and_answers_invalidations() {
    let bench = Bench::powered_on(None, true).unwrap();
    let (at_power_on, initial) = (registers(&bench), state(&bench));
    for round in 0..100 {
        bench.enable();
        bench.enable_messages();
        for (_, info) in DmaTestReg::ALL {
            for index in 0..info.count {
                let at = info.offset + index * info.stride;
                (0..info.bytes / 4)
                    .for_each(|word| bench.w32(at + 4 * word, if at == DT_CTRL { 2 } else { !0 }));
            }
        }
        bench.start(0, opcode::WRITE, RAM, MESSAGE);
        while bench.device.step() {}
        bench.start(1, opcode::WRITE, RAM + 8, MESSAGE);
        bench.device.invalidate(
            &InvalidateRequest { pasid: None, global: false, address: Iova(0), size_log2: 12 },
            InvalidateTag(round),
        );
        bench.device.page_response(&PageResponse {
            pasid: None,
            index: PrgIndex::new(1),
            code: PageResponseCode::Success,
        });
        let _ = bench.msi.take();
        assert!(state(&bench) != initial);
        bench.device.reset();
        let found = registers(&bench);
        assert_eq!(found.iter().zip(&at_power_on).find(|(found, expected)| found != expected), None);
        let now = state(&bench);
        let difference = now.lines().zip(initial.lines()).find(|(found, expected)| found != expected);
        assert_eq!((difference, now.len()), (None, initial.len()), "round {round}");
        let completed = std::mem::take(&mut *bench.agent.completed.lock().unwrap());
        assert_eq!(completed, [(STREAM, InvalidateTag(round))]);
        let memory = bench.memory();
        while bench.device.step() {}
        assert!(bench.memory() == memory);
        assert_eq!(bench.msi.take(), []);
    }
}

#[test]
fn reset_ends_accesses_that_wait_and_nothing_is_written_afterwards() {
    for (what, reset) in RESETS {
        let bench = Bench::threaded();
        bench.enable_messages();
        for channel in 0..4 {
            bench.w64(CH_DATA + 0x100 * channel, !0);
            bench.start(channel, opcode::WRITE, STALLING + 8 * channel, MESSAGE);
        }
        bench.until(|| bench.device.lock().channels[..4].iter().all(|channel| channel.waiter.is_waiting()));
        let threads = bench.threads.as_ref().unwrap().0.lock().unwrap().len();
        reset(&bench);
        assert!(bench.device.lock().is_quiet(), "{what}");
        assert_eq!([0, 0x100].map(|channel| bench.r32(CH_STATUS + channel)), [0, 0], "{what}");
        bench.serve();
        bench.enable();
        bench.start(3, opcode::READ, RAM, 0);
        bench.until(|| bench.r32(CH_STATUS + 0x300) == DONE);
        assert_eq!((bench.read(CH_DATA + 0x300, 8), bench.msi.take()), (0, vec![]), "{what}");
        assert_eq!(bench.threads.as_ref().unwrap().0.lock().unwrap().len(), threads, "no thread is lost");
    }
}

/// A write that has begun cannot be called back.
#[test]
fn reset_returns_when_a_write_under_way_has_ended_and_not_before() {
    for (what, reset) in RESETS {
        let bench = Bench::threaded();
        let (inside, is_inside) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        *bench.port.reaction.lock().unwrap() = Some(Box::new(move || {
            inside.send(()).unwrap();
            let _ = may_go.recv();
        }));
        bench.start(0, opcode::WRITE, RAM, 0);
        is_inside.recv().unwrap();
        assert_eq!(bench.device.lock().channels[0].in_flight, Some(Stage::Accesses));
        let (returned, has_returned) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                reset(&bench);
                returned.send(()).unwrap();
            });
            assert!(has_returned.recv_timeout(Duration::from_millis(200)).is_err(), "{what}");
            go.send(()).unwrap();
        });
        assert_eq!(bench.r32(CH_STATUS), 0, "{what}");
    }
}

#[test]
fn quiesce_returns_while_a_channel_waits_and_what_comes_meanwhile_is_served_after_resume() {
    let bench = Bench::threaded();
    let msi = bench.enable_messages();
    bench.config(msi + 16, &[0xff]);
    bench.start(2, opcode::WRITE, RAM, MESSAGE);
    bench.until(|| bench.r32(CH_STATUS + 0x200) == DONE && bench.device.lock().is_quiet());
    bench.start(0, opcode::WRITE, STALLING, 0);
    bench.until(|| bench.device.lock().channels[0].waiter.is_waiting());
    bench.device.quiesce();
    bench.start(1, opcode::WRITE, RAM, MESSAGE);
    bench.config(msi + 16, &[0]);
    {
        let front = bench.device.lock();
        assert!(front.channels[1].queued.is_some() && front.messenger.is_due && !front.messenger.is_sending);
    }
    assert_eq!(bench.r32(CH_STATUS + 0x100), 1, "busy");
    bench.serve();
    bench.device.resume();
    bench.until(|| [0, 0x100].iter().all(|channel| bench.r32(CH_STATUS + channel) == DONE));
    let mut vectors = Vec::new();
    bench.until(|| {
        vectors.extend(bench.msi.take().into_iter().map(|(_, data)| data - 0x40));
        vectors.len() == 2
    });
    vectors.sort_unstable();
    assert_eq!(vectors, [1, 2]);
}

#[test]
fn no_command_is_lost_however_pauses_fall() {
    let bench = Bench::threaded();
    bench.enable_messages();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                bench.device.quiesce();
                assert!(bench.device.lock().is_quiet());
                bench.device.resume();
            }
        });
        for _ in 0..300 {
            for channel in 0..CHANNELS as u64 {
                bench.start(channel, opcode::WRITE, RAM + 8 * channel, MESSAGE);
            }
            for channel in 0..CHANNELS as u64 {
                bench.until(|| bench.r32(CH_STATUS + 0x100 * channel) == DONE);
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(bench.r32(CH_COUNT), 300);
    bench.until(|| bench.device.lock().is_quiet());
    assert_eq!(bench.msi.take().len(), 300 * CHANNELS);
}
