//! Reads of a busy mailbox or write-back, which are held for a time.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A worker that the host does not run is not the guest's doing: the driver, which is held at its poll, would be told
/// that all is over and take a request that was not even begun for a success.
#[test]
fn stop_waits_for_work_that_does_not_wait_as_long_as_the_poll_is_held() {
    for (ns, is_finished) in [(99_999_999, true), (100_000_000, false)] {
        let machine = Machine::patient();
        machine.start(64);
        let mut ring = machine.start_queue(6, 0, None);
        for _ in 0..100 {
            machine.put(&mut ring, &nothing());
        }
        machine.ring_sq(&ring);
        machine.post_mailbox(0x9, 0, 0);
        machine.pass_ns(ns);
        machine.run();
        let expected = if is_finished { Some(0) } else { None };
        assert_eq!(machine.poll(&mut ring), expected, "after {ns} ns");
        assert!(!machine.mailbox_is_busy());
    }
}

#[test]
fn reader_of_a_busy_mailbox_is_let_go_when_patience_ends() {
    let machine = Machine::threaded(1);
    machine.start(64);
    let context = machine.sqc(machine.alloc(1 << 20), 5, 0, None);
    machine.spaces.map(None, context, Page::Absent);
    machine.post_mailbox(0x0, 5, context);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| machine.mailbox_is_busy());
        while machine.spaces.stalls() == 0 {
            std::thread::yield_now();
        }
        machine.pass_ns(100_000_000);
        machine.pass_ns(1_000_000_000);
        assert!(reader.join().unwrap(), "the command is still stalled");
    });
    machine.spaces.map(None, context, Page::At(context));
    while machine.mailbox_is_busy() {
        std::thread::yield_now();
    }
    assert_eq!(machine.read(QmReg::MAILBOX) >> 9 & 0xf, 0);
}

#[test]
fn alarm_is_set_before_another_vcpu_can_begin_a_command_so_that_the_last_deadline_has_the_last_word() {
    let machine = Machine::patient();
    machine.start(64);
    let context = machine.sqc(machine.alloc(1 << 20), 5, 0, None);
    let (zip, times) = (machine.zip.clone(), Arc::new(AtomicU32::new(0)));
    let seen = times.clone();
    *machine.alarms.when_set.lock().unwrap() = Some(Box::new(move || {
        assert!(zip.qm().front.try_lock().is_err(), "the state is free for another vCPU");
        seen.fetch_add(1, Ordering::Relaxed);
    }));
    machine.post_mailbox(0x0, 5, context);
    let first = times.load(Ordering::Relaxed);
    machine.pass_ns(1_000_000_000);
    let second = times.load(Ordering::Relaxed);
    *machine.alarms.when_set.lock().unwrap() = None;
    assert!(0 < first && first < second, "set by the command, and when it has rung");
}

/// A poll is held for one command's time, whatever other processors ask of the device meanwhile.
#[test]
fn poll_is_let_go_after_its_time_whatever_else_is_started_meanwhile() {
    type Meanwhile = fn(&Machine);
    let write_back: Meanwhile = |machine| machine.write(QmReg::CACHE_WB_START, 1);
    let table: Meanwhile = |machine| {
        machine.post_mailbox(0x5, 0, 0);
    };
    // Which write has to wait for a page, which register is polled, what another processor does.
    for (what, is_load, meanwhile) in [
        ("context load and write-backs", true, write_back),
        ("write-back and write-backs", false, write_back),
        ("write-back and other commands", false, table),
    ] {
        let machine = Arc::new(Machine::threaded(1));
        machine.start(64);
        let ring = machine.start_queue(3, 0, None);
        let tables = machine.alloc(4096);
        assert_eq!(machine.mailbox(0x4, 0, tables), 0);
        machine.spaces.map(None, tables, Page::Absent);
        let polled = if is_load {
            machine.post_mailbox(0x0, 5, tables);
            QmReg::MAILBOX
        } else {
            machine.write(QmReg::CACHE_WB_START, 1);
            QmReg::CACHE_WB_DONE
        };
        while machine.spaces.stalls() == 0 {
            std::thread::yield_now();
        }
        let (told, is_read) = std::sync::mpsc::channel();
        let reader = std::thread::spawn({
            let machine = Arc::clone(&machine);
            move || told.send(machine.read(polled)).unwrap()
        });
        for _ in 0..6 {
            machine.pass_ns(250_000_000);
            meanwhile(&machine);
        }
        let read = is_read.recv_timeout(std::time::Duration::from_secs(20));
        machine.spaces.map(None, tables, Page::At(ring.sq));
        reader.join().unwrap();
        let is_busy = |word: u32| if is_load { word & 0x2000 != 0 } else { word & 1 == 0 };
        assert!(read.is_ok_and(is_busy), "{what}");
    }
}
