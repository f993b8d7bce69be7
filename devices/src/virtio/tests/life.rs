//! A device from its start to its end: readiness, messages, resets, and the worker that serves it.

use std::thread;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn nothing_happens_before_the_driver_is_ready_and_waiting_buffers_are_served_then() {
    let bench = Bench::ready();
    bench.write(STATUS_REG, 1, 0);
    bench.write(STATUS_REG, 1, 3);
    bench.accept(bench.offered() & !feature::EVENT_IDX);
    bench.write(STATUS_REG, 1, 0xb);
    bench.set_up_queue(DESC, AVAIL, USED);
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
    bench.submit(0);
    assert_eq!(bench.used(), None);
    bench.write(STATUS_REG, 1, 0xf);
    bench.device.step();
    assert_eq!(bench.used(), Some((0, 1)));
}

#[test]
fn messages_follow_the_event_index_or_the_flag() {
    let bench = Bench::ready_without(0);
    let used_event = AVAIL + 4 + 2 * 8;
    bench.poke(used_event, &1u16.to_le_bytes());
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0; 0], "the driver wants to hear of the second");
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0x101]);
    assert_eq!(bench.peek(USED + 4 + 8 * 8, 2), [2, 0], "and the device of the third");

    let bench = Bench::ready();
    bench.poke(AVAIL, &[1, 0]);
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0; 0]);
    bench.poke(AVAIL, &[0, 0]);
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0x101]);
}

#[test]
fn masked_message_waits_and_the_worker_sends_it_after_unmasking() {
    let bench = Bench::ready();
    bench.write(0x4000 + 16 + 12, 4, 1);
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0; 0]);
    bench.write(0x4000 + 16 + 12, 4, 0);
    assert_eq!(bench.messages(), [0; 0]);
    assert!(bench.device.wait_for_work());
    bench.device.step();
    assert_eq!(bench.messages(), [0x101]);
}

#[test]
fn reset_of_a_device_whose_worker_waits_for_a_page_completes_when_the_worker_lets_go() {
    let bench = Bench::ready();
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
    bench.port.stalls.store(true, Ordering::SeqCst);
    bench.poke(AVAIL + 2, &[1, 0]);
    thread::scope(|scope| {
        let device = &bench.device;
        let worker = scope.spawn(move || {
            while device.wait_for_work() {
                device.step()
            }
        });
        bench.write(0x3000, 2, 0);
        // No register access ever waits for the worker, wherever it is just now.
        bench.write(STATUS_REG, 1, 0);
        let patience = Instant::now() + Duration::from_secs(20);
        while bench.status() != 0 {
            assert!(Instant::now() < patience, "the reset never completes");
            thread::yield_now();
        }
        bench.port.stalls.store(false, Ordering::SeqCst);
        bench.device.stop();
        worker.join().unwrap();
    });
    assert_eq!(bench.used(), None);
}

#[test]
fn stopping_ends_a_worker_that_waits_for_work_or_for_a_page() {
    for stalls in [false, true] {
        let bench = Bench::ready();
        bench.port.stalls.store(stalls, Ordering::SeqCst);
        thread::scope(|scope| {
            let device = &bench.device;
            let worker = scope.spawn(move || {
                while device.wait_for_work() {
                    device.step()
                }
            });
            bench.write(0x3000, 2, 0);
            bench.device.stop();
            worker.join().unwrap();
        });
        assert!(!bench.device.wait_for_work());
    }
}

#[test]
fn function_level_reset_resets_the_device_and_disabling_bus_mastering_stops_its_dma() {
    let bench = Bench::ready();
    let express = bench.capabilities().into_iter().find(|(id, _)| *id == 0x10).unwrap().1;
    bench.config_write(express + 8, 2, 0x8000);
    bench.config_write(0x10, 4, BAR);
    bench.config_write(4, 2, 2);
    assert_eq!(bench.status(), 0);
    bench.start(0);
    bench.submit(0);
    assert_eq!((bench.used(), bench.status() & NEEDS_RESET), (None, NEEDS_RESET));
}
