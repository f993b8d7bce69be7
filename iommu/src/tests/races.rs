//! Invalidation against accesses, from several threads.

use std::sync::atomic::AtomicBool;
use std::thread;

use hw::ats::{Stamp, TranslatedFault};

use super::*;

/// Raised when this goes out of scope, also by a failed assertion: the threads that look at it then end.
pub(super) struct Raised<'a>(pub(super) &'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The page moves between two frames. After the invalidation's CMD_SYNC nothing may be written to the old one: the
/// mapper marks it and looks if the mark stays.
#[test]
fn nothing_is_written_through_an_old_translation_after_sync() {
    let m = Bench::new();
    let root = m.process(0);
    let va = 0x1000;
    m.map(root, va, DATA, USER_RW);
    let done = AtomicBool::new(false);
    let writes = AtomicU64::new(0);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let _end = Raised(&done);
        for fill in [0x11u8, 0x22] {
            let (m, done, writes) = (&m, &done, &writes);
            scope.spawn(move || {
                let (who, page) = (process(), [fill; 4096]);
                while !done.load(Ordering::Relaxed) {
                    m.write(&who, va, &page).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mark = [0xee; 4096];
        for round in 0..2000u64 {
            let (old, new) = match round % 2 {
                0 => (DATA, DATA + 0x10_0000),
                _ => (DATA + 0x10_0000, DATA),
            };
            // Alternately by address and by ASID.
            m.map(root, va, new, USER_RW);
            match round % 3 {
                0 => m.tlbi_asid(ASID),
                _ => m.tlbi_va(ASID, va, 2),
            }
            m.ram.write(Pa(old), &mark).unwrap();
            thread::yield_now();
            let mut found = [0; 4096];
            m.ram.read(Pa(old), &mut found).unwrap();
            assert_eq!(found, mark, "round {round}");
        }
        m.until(|| writes.load(Ordering::Relaxed) > 10);
        done.store(true, Ordering::Relaxed);
    });
}

/// An endpoint moves from one frame to another. Once it has begun a new age and waited, nothing is written to the frame of
/// the age before.
#[test]
fn nothing_is_written_at_a_translated_address_once_its_age_is_over_and_waited_for() {
    let m = Bench::new();
    m.ats_process(0);
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    let frame = |age: u64| DATA + (age % 2) * 0x10_0000;
    let (age, done, writes) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let _end = Raised(&done);
        for fill in [0x11u8, 0x22] {
            let (m, age, done, writes) = (&m, &age, &done, &writes);
            scope.spawn(move || {
                let page = [fill; 4096];
                while !done.load(Ordering::Relaxed) {
                    let from = age.load(Ordering::SeqCst);
                    let stamp = Stamp::new(age, from);
                    match m.smmu.write_translated_if(StreamId(SID), Pa(frame(from)), &page, stamp) {
                        Ok(()) => _ = writes.fetch_add(1, Ordering::Relaxed),
                        Err(fault) => assert_eq!(fault, TranslatedFault::OutOfDate),
                    }
                }
            });
        }
        let mark = [0xee; 4096];
        for round in 0..2000u64 {
            age.store(round + 1, Ordering::SeqCst);
            m.smmu.await_translated();
            m.ram.write(Pa(frame(round)), &mark).unwrap();
            thread::yield_now();
            let mut found = [0; 4096];
            m.ram.read(Pa(frame(round)), &mut found).unwrap();
            assert_eq!(found, mark, "round {round}");
        }
        m.until(|| writes.load(Ordering::Relaxed) > 10);
        done.store(true, Ordering::Relaxed);
    });
}

/// The context changes under the accesses; after its command the old table is never walked again.
#[test]
fn old_context_is_not_used_after_its_command() {
    let m = Bench::new();
    let root = m.process(0);
    let other = m.table(4096);
    m.map(root, 0x1000, DATA, USER_RW);
    m.map(other, 0x1000, DATA + 0x1000, USER_RW);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let _end = Raised(&done);
        let (m, done) = (&m, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                m.write(&process(), 0x1000, &[1]).unwrap();
            }
        });
        for round in 0..2000u64 {
            let (old, new, asid) = match round % 2 {
                0 => (DATA, other, 0x33),
                _ => (DATA + 0x1000, root, u64::from(ASID)),
            };
            m.cd(PASID, &[CD_D0 & !(0xffff << 48) | asid << 48, new]);
            m.put(old, &[0]);
            thread::yield_now();
            assert_eq!(m.dword(old), 0, "round {round}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Device threads fault on every page; the guest answers some with a page and some with an abort, unmaps what it
/// mapped, and turns translation off in the end. Everything ends and nothing is left.
#[test]
fn stalls_answers_and_invalidations_from_all_sides_leave_nothing_behind() {
    let m = Bench::with_event_queue(2);
    let root = m.process(CD_S);
    let done = AtomicBool::new(false);
    let finished = AtomicU64::new(0);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let _end = Raised(&done);
        let devices: Vec<_> = (0..6u64)
            .map(|n| {
                let (m, done, finished) = (&m, &done, &finished);
                scope.spawn(move || {
                    let who = process();
                    for round in 0u64.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        let va = (1 + n * 16 + round % 16) << 12;
                        let _ = m.write(&who, va, &round.to_le_bytes());
                        finished.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (mut answered, mut turn) = (0u64, 0u64);
        while answered < 600 {
            for event in m.events() {
                answered += 1;
                assert_eq!(event[1] & STALL, STALL);
                let va = event[2] & !0xfff;
                if answered % 3 != 0 {
                    m.map(root, va, DATA + va, USER_RW);
                }
                m.resume(SID, event[1] as u16, answered % 3 != 0);
            }
            // Pages that stay mapped would leave nothing to do.
            turn += 1;
            let va = (1 + turn % 96) << 12;
            m.map(root, va, 0, 0);
            m.tlbi_va(ASID, va, 2);
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        m.enable(CMDQEN);
        for device in devices {
            device.join().unwrap();
        }
    });
    assert_eq!(m.smmu.state().stalls.recorded_count(), 0);
    assert_eq!(m.active_errors(), 0);
    assert!(finished.load(Ordering::Relaxed) > 0);
}

/// Two CPUs send commands to one queue, the driver's way: slots are shared out, PROD is moved in order.
#[test]
fn commands_of_several_cpus_are_all_consumed() {
    let m = Bench::new();
    let prod = std::sync::Mutex::new(0u32);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        for _ in 0..3 {
            let (m, prod) = (&m, &prod);
            scope.spawn(move || {
                for _ in 0..2000 {
                    let slot = {
                        let mut prod = prod.lock().unwrap();
                        let slot = CMDQ + 16 * u64::from(*prod & ((1 << CMDQ_LOG2) - 1));
                        m.put_command(*prod, 0x0fc0_1046, slot);
                        *prod = (*prod + 1) & ((2 << CMDQ_LOG2) - 1);
                        m.w32(CMDQ_PROD, *prod);
                        // Its own slot can't be taken again before this is seen.
                        m.until(|| m.dword(slot) as u32 == 0);
                        slot
                    };
                    assert_eq!(m.dword(slot) as u32, 0);
                }
            });
        }
    });
    assert_eq!(m.r32(CMDQ_CONS), m.r32(CMDQ_PROD));
    assert_eq!(m.smmu.stats().commands, [("CMD_SYNC", 6000)]);
}
