//! The machine's resets and pauses.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use hw::LifeCycle;
use hw::regmap::RegisterMap;

use super::*;
use crate::virtio::CommonCfg;

/// Every register, MSI-X table and configuration space.
fn registers(bench: &Bench) -> Vec<(u64, u64)> {
    let mut all: Vec<_> = (0..4096).step_by(4).map(|at| (at, bench.config_read(at, 4))).collect();
    // To be seen they have to answer.
    bench.config_write(0x10, 4, BAR);
    bench.config_write(4, 2, 2);
    let common = CommonCfg::ALL.iter().map(|(_, info)| (info.offset, info.bytes));
    let others = (0x1000..0x1001).map(|at| (at, 1)).chain((0x2000..0x2040).step_by(4).map(|at| (at, 4)));
    let msix = (0x4000..0x4020).step_by(4).map(|at| (at, 4)).chain([(0x5000, 4), (0x5004, 4)]);
    all.extend(common.chain(others).chain(msix).map(|(at, len)| (at, bench.read(at, len as usize))));
    bench.config_write(4, 2, 0);
    bench.config_write(0x10, 4, 0);
    all
}

/// Stops a device also when a test fails.
struct Stop<'a>(&'a VirtioPci);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn with_worker(bench: &Bench, then: impl FnOnce()) {
    thread::scope(|scope| {
        let device = &bench.device;
        scope.spawn(move || {
            while device.wait_for_work() {
                device.step();
            }
        });
        let _stop = Stop(device);
        then();
    });
}

fn until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "never came");
        thread::yield_now();
    }
}

/// Makes the same flush available so many times, in one go, and notifies.
fn submit_flushes(bench: &Bench, count: u16) {
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
    let first = bench.next_avail.fetch_add(count, Ordering::SeqCst);
    for nth in 0..count {
        bench.poke(AVAIL + 4 + 2 * u64::from(first.wrapping_add(nth) % 8), &[0, 0]);
    }
    bench.poke(AVAIL + 2, &first.wrapping_add(count).to_le_bytes());
    bench.write(0x3000, 2, 0);
}

#[test]
fn reset_brings_every_register_and_all_internal_state_back_to_power_on() {
    let bench = Bench::new();
    bench.device.reset();
    let fresh = Bench::new();
    fresh.config_write(4, 2, 0);
    fresh.config_write(0x10, 4, 0);
    let at_power_on = registers(&fresh);
    for round in 0..100 {
        bench.config_write(0x10, 4, BAR);
        bench.config_write(4, 2, 6);
        bench.start(feature::EVENT_IDX);
        assert_eq!(bench.request(4, 0, None), Some((0, 1)));
        // A message is pending, a notification has not been served, and the device needs a reset.
        bench.write(0x4000 + 16 + 12, 4, 1);
        bench.request(4, 0, None);
        bench.poke(AVAIL + 2, &[77, 0]);
        bench.write(0x3000, 2, 0);
        bench.device.step();
        assert_eq!(bench.status() & NEEDS_RESET, NEEDS_RESET);
        bench.write(0x3000, 2, 0);
        bench.device.reset();
        assert!(bench.device.rings().iter().all(Option::is_none), "round {round}");
        assert_eq!(bench.device.work.take(), 0);
        assert_eq!(registers(&bench), at_power_on, "round {round}");
        bench.messages();
        let memory = bench.peek(0, RAM_BYTES as usize);
        bench.device.step();
        assert!(bench.peek(0, RAM_BYTES as usize) == memory && bench.messages().is_empty());
    }
}

#[test]
fn reset_of_a_device_whose_worker_waits_for_a_page_ends_it() {
    let bench = Bench::ready();
    bench.port.stalls.store(true, Ordering::SeqCst);
    with_worker(&bench, || {
        submit_flushes(&bench, 1);
        until(|| bench.device.who.waiter.is_waiting());
        bench.device.reset();
        assert!(!bench.device.front().is_busy && bench.device.front().status == 0);
        bench.port.stalls.store(false, Ordering::SeqCst);
        bench.device.who.waiter.notify();
        // And the worker serves again.
        bench.config_write(0x10, 4, BAR);
        bench.config_write(4, 2, 6);
        bench.start(feature::EVENT_IDX);
        submit_flushes(&bench, 1);
        until(|| bench.used().is_some());
    });
    assert_eq!(bench.used(), None);
}

#[test]
fn reset_and_pause_return_when_the_hosts_disk_has_answered_and_not_before() {
    for is_reset in [true, false] {
        let bench = Bench::ready();
        let (inside, is_inside) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        *bench.disk.during.lock().unwrap() = Some(Box::new(move || {
            inside.send(()).unwrap();
            let _ = may_go.recv();
        }));
        with_worker(&bench, || {
            submit_flushes(&bench, 5);
            is_inside.recv().unwrap();
            let (returned, has_returned) = mpsc::channel();
            thread::scope(|scope| {
                let device = &bench.device;
                scope.spawn(move || {
                    if is_reset {
                        device.reset()
                    } else {
                        device.quiesce()
                    }
                    returned.send(()).unwrap();
                });
                assert!(has_returned.recv_timeout(Duration::from_millis(200)).is_err());
                go.send(()).unwrap();
            });
            // The command under way is done by a pause and given up by a reset; no further one is begun.
            let expected = if is_reset { 0 } else { 1 };
            assert_eq!(std::iter::from_fn(|| bench.used()).count(), expected);
            assert_eq!(*bench.disk.log.lock().unwrap(), ["flush"]);
            if !is_reset {
                bench.device.resume();
                let mut served = 1;
                until(|| {
                    served += usize::from(bench.used().is_some());
                    served == 5
                });
            }
        });
    }
}

#[test]
fn quiesce_returns_while_a_request_waits_for_a_page_and_what_comes_meanwhile_is_served_after_resume() {
    let bench = Bench::ready();
    bench.port.stalls.store(true, Ordering::SeqCst);
    with_worker(&bench, || {
        submit_flushes(&bench, 1);
        until(|| bench.device.who.waiter.is_waiting());
        bench.device.quiesce();
        submit_flushes(&bench, 2);
        bench.port.stalls.store(false, Ordering::SeqCst);
        bench.device.who.waiter.notify();
        until(|| !bench.device.front().is_busy);
        assert!(bench.disk.log.lock().unwrap().len() <= 1);
        bench.device.resume();
        let mut served = 0;
        until(|| {
            served += usize::from(bench.used().is_some());
            served == 3
        });
    });
}

#[test]
fn no_request_is_lost_however_pauses_fall() {
    let bench = Bench::ready();
    let is_over = AtomicBool::new(false);
    with_worker(&bench, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    bench.device.quiesce();
                    assert!(!bench.device.front().is_busy);
                    bench.device.resume();
                }
            });
            for _ in 0..200 {
                submit_flushes(&bench, 5);
                let mut served = 0;
                until(|| {
                    served += usize::from(bench.used().is_some());
                    served == 5
                });
            }
            is_over.store(true, Ordering::SeqCst);
        });
    });
    assert_eq!(bench.disk.log.lock().unwrap().len(), 1000);
}
