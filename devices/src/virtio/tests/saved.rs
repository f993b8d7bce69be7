//! Save and restore.

use hw::schedule::Threads;
use hw::{LifeCycle, StreamId};
use serde_json::{Value, json};

use super::*;

/// A device just made on the same memory and disk, with the state of `bench`, which must have none of its own any more.
fn restored(bench: &Bench, state: &Value) -> Result<Bench, String> {
    let Bench { disk, ram, port, sink, .. } = bench;
    let block = Block::new(disk.clone(), "serial-7");
    let device = VirtioPci::new(
        Box::new(block),
        ram.clone(),
        port.clone(),
        &Threads,
        StreamId(DEVFN.into()),
        hw::GuestErrors::default(),
    );
    let host = PciHost::new();
    host.attach(0, DEVFN, device.clone()).unwrap();
    device.quiesce();
    device.restore(state.clone()).map_err(|error| error.to_string())?;
    host.restore(PciHost::new().save()).unwrap();
    let number = |number: &AtomicU16| AtomicU16::new(number.load(Ordering::SeqCst));
    Ok(Bench {
        device,
        disk: disk.clone(),
        ram: ram.clone(),
        port: port.clone(),
        sink: sink.clone(),
        ecam: host.ecam(),
        memory: host.memory_window(BAR),
        next_avail: number(&bench.next_avail),
        seen_used: number(&bench.seen_used),
    })
}

/// Requests before, between and after; `before` of them, so that the ring wraps.
fn moves_on(without: u64, before: usize) {
    let bench = Bench::ready_without(without);
    for _ in 0..before {
        assert_eq!(bench.request(4, 0, None), Some((0, 1)));
    }
    bench.device.quiesce();
    let state = bench.device.save();
    let after = restored(&bench, &state).unwrap();
    assert_eq!(after.device.save(), state);
    for at in (0..0x38).step_by(2) {
        assert_eq!(after.read(at, 2), bench.read(at, 2), "common configuration at {at:#x}");
    }
    after.device.resume();
    after.device.step();
    assert_eq!(after.used(), None, "nothing is served twice");
    bench.messages();
    for sector in 0..10 {
        assert_eq!(after.request(0, sector, Some((DATA, 512, WRITE))), Some((0, 513)));
        assert_eq!(after.peek(DATA, 2), [sector as u8, sector as u8 + 1]);
    }
    if without & feature::EVENT_IDX != 0 {
        assert_eq!(after.messages(), [0x101; 10]);
    }
}

#[test]
fn restored_device_goes_on_where_its_rings_were() {
    for without in [0, feature::EVENT_IDX] {
        for before in [0, 1, 8, 13] {
            moves_on(without, before);
        }
    }
    // The positions wrap, too.
    moves_on(feature::EVENT_IDX, 65536 + 3);
}

#[test]
fn buffers_that_came_while_the_device_was_paused_are_served_after_the_restore() {
    let bench = Bench::ready();
    bench.device.quiesce();
    assert_eq!(bench.request(4, 0, None), None);
    let after = restored(&bench, &bench.device.save()).unwrap();
    assert_eq!(after.used(), None);
    after.device.resume();
    assert!(after.device.wait_for_work());
    after.device.step();
    assert_eq!((after.used(), after.messages()), (Some((0, 1)), vec![0x101]));
}

#[test]
fn request_that_waits_for_a_page_when_the_device_is_saved_is_served_once_after_the_restore() {
    let bench = Bench::ready();
    assert_eq!(bench.request(4, 0, None), Some((0, 1)));
    bench.messages();
    bench.port.stalls.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| bench.request(4, 0, None));
        while !bench.device.who.waiter.is_waiting() {
            std::thread::yield_now();
        }
        bench.device.quiesce();
        let state = bench.device.save();
        assert_eq!(state["state"]["queues"]["0"]["served"], 1);
        // The old machine ends here.
        bench.device.stop();
        assert_eq!(worker.join().unwrap(), None);
        bench.port.stalls.store(false, Ordering::SeqCst);
        let after = restored(&bench, &state).unwrap();
        after.device.resume();
        after.device.step();
        assert_eq!((after.used(), after.used()), (Some((0, 1)), None));
        assert_eq!(after.messages(), [0x101]);
    });
}

#[test]
fn request_in_the_used_ring_that_was_not_announced_is_announced_and_not_served_again() {
    let bench = Bench::ready();
    assert_eq!(bench.request(4, 0, None), Some((0, 1)));
    bench.messages();
    bench.device.quiesce();
    let mut state = bench.device.save();
    state["state"]["queues"]["0"]["is_unannounced"] = json!(true);
    let after = restored(&bench, &state).unwrap();
    after.device.resume();
    after.device.step();
    assert_eq!((after.used(), after.messages()), (None, vec![0x101]));
    assert_eq!(after.device.save()["state"]["queues"]["0"]["is_unannounced"], false);
}

#[test]
fn state_that_no_driver_could_have_brought_about_is_refused() {
    let bench = Bench::ready();
    bench.request(4, 0, None);
    let state = bench.device.save();
    assert!(restored(&bench, &state).is_ok());
    let queue = state["state"]["queues"]["0"].clone();
    for (path, value) in [
        ("isr", json!("0x4")),
        ("isr", json!("0x100")),
        ("common/device_status", json!("0x7")),
        ("common/device_status", json!("0x4b")),
        ("common/device_status", json!("0x10f")),
        ("common/driver_features", json!("0xffffffffffffffff")),
        ("common/driver_features", json!("0x100000000")),
        ("common/config_msix_vector", json!("0x2")),
        ("common/more", json!(1)),
        ("queues/1", queue),
        ("queues/0/queue_size", json!(0)),
        ("queues/0/queue_size", json!(3)),
        ("queues/0/queue_size", json!(512)),
        ("queues/0/queue_size", json!(65536)),
        ("queues/0/queue_msix_vector", json!("0x2")),
        ("queues/0/queue_enable", json!(false)),
        ("queues/0/served", json!(65536)),
        ("config/requester_id", json!("0x10")),
    ] {
        let mut wrong = state.clone();
        let path = format!("/state/{path}");
        let (parent, key) = path.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap()[key] = value;
        assert!(restored(&bench, &wrong).is_err(), "{path} was taken");
    }
    let mut wrong = state;
    wrong["state"]["queues"].as_object_mut().unwrap().clear();
    assert!(restored(&bench, &wrong).is_err());
}

#[test]
fn ring_outside_memory_is_no_fault_of_the_state_and_needs_a_reset_as_a_drivers_does() {
    let bench = Bench::ready();
    let mut state = bench.device.save();
    for (address, count) in [("0xfffffffffffffff0", 0), ("0x1", 9), ("0x90000000", 77)] {
        state["state"]["queues"]["0"]["queue_desc"] = json!(address);
        state["state"]["queues"]["0"]["queue_driver"] = json!(address);
        state["state"]["queues"]["0"]["served"] = json!(count);
        let after = restored(&bench, &state).unwrap();
        after.device.resume();
        after.device.step();
        assert_ne!(after.status() & NEEDS_RESET, 0, "{address}");
    }
}
