//! Stalled transactions (3.12.2, 4.7).

use std::thread::{self, ScopedJoinHandle};

use super::*;
use crate::StallModel;
use crate::spec::event::EventType;

fn stag(record: &Record) -> u16 {
    record[1] as u16
}

fn without_stag(record: &Record) -> Record {
    let [d0, d1, d2, d3] = *record;
    [d0, d1 & !0xffff, d2, d3]
}

type Answer<'s> = ScopedJoinHandle<'s, Result<Vec<u8>, DmaFault>>;

/// A device thread that reads one byte.
fn reader<'s>(m: &'s Bench, scope: &'s thread::Scope<'s, '_>, who: &Requester, va: u64) -> Answer<'s> {
    let who = who.clone();
    let smmu = &m.smmu;
    scope.spawn(move || {
        let mut out = vec![0];
        smmu.read(&who, Iova(va), &mut out).map(|()| out)
    })
}

/// Stalls a read of the process at 0x1000, and hands over its answer and its event.
fn with_stalled_read(m: &Bench, then: impl FnOnce(Answer<'_>, &Record)) {
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(m, scope, &process(), 0x1000);
        then(access, &m.await_events(1)[0]);
    });
}

fn recorded(m: &Bench) -> usize {
    m.smmu.state().stalls.recorded_count()
}

#[test]
fn stalled_access_completes_after_the_page_is_mapped_and_retried() {
    let m = Bench::new();
    let root = m.process(CD_S);
    m.put(DATA, &[0x42]);
    with_stalled_read(&m, |access, event| {
        let expected = fault_record(EventType::F_TRANSLATION, READ | STALL, 0x1000);
        assert_eq!(without_stag(event), expected);
        assert!(!access.is_finished());
        assert_eq!(m.smmu.stats().unanswered_stalls, 1);
        m.map(root, 0x1000, DATA, USER_RW);
        m.resume(SID, stag(event), true);
        assert_eq!(access.join().unwrap(), Ok(vec![0x42]));
    });
    assert_eq!(recorded(&m), 0);
    let stats = m.smmu.stats();
    assert_eq!(stats.unanswered_stalls, 0);
    assert_eq!((stats.stalls, stats.retries, stats.aborts), (1, 1, 0));
}

#[test]
fn every_kind_of_fault_stalls() {
    for (event, attributes, write) in [
        (EventType::F_ADDR_SIZE, USER_RW | 1 << 47, false),
        (EventType::F_ACCESS, USER_RW & !AF, false),
        (EventType::F_PERMISSION, USER_RW | RO, true),
    ] {
        let m = Bench::new();
        let root = m.process(CD_S);
        m.cd(PASID, &[(CD_D0 | CD_S) & !(7 << 32) | 2 << 32, root]);
        m.map(root, 0x1000, DATA, attributes);
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let smmu = &m.smmu;
            let access = scope.spawn(move || match write {
                true => smmu.write(&process(), Iova(0x1000), &[1]),
                false => smmu.read(&process(), Iova(0x1000), &mut [0]),
            });
            let events = m.await_events(1);
            let d1 = if write { WRITE } else { READ } | STALL;
            assert_eq!(without_stag(&events[0]), fault_record(event, d1, 0x1000));
            m.map(root, 0x1000, DATA, USER_RW);
            m.resume(SID, stag(&events[0]), true);
            assert_eq!(access.join().unwrap(), Ok(()));
        });
    }
}

#[test]
fn stall_is_recorded_even_with_r_clear() {
    let m = Bench::new();
    let root = m.process(CD_S);
    m.cd(PASID, &[(CD_D0 | CD_S) & !CD_R, root]);
    with_stalled_read(&m, |access, event| {
        m.resume(SID, stag(event), false);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
        assert_eq!(m.errors.counted(), [], "a page that is not there is no mistake");
    });
}

#[test]
fn others_of_the_stream_go_on_meanwhile() {
    let m = Bench::new();
    let root = m.process(CD_S);
    m.map(root, 0x2000, DATA, USER_RW);
    with_stalled_read(&m, |access, event| {
        assert!(m.read(&process(), 0x2000, 1).is_ok());
        m.sync();
        m.resume(SID, stag(event), false);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
}

#[test]
fn retry_without_a_remedy_is_recorded_again() {
    let m = Bench::new();
    m.process(CD_S);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(&m, scope, &process(), 0x1000);
        for _ in 0..3 {
            let events = m.await_events(1);
            assert_eq!(events.len(), 1);
            m.resume(SID, stag(&events[0]), true);
        }
        let events = m.await_events(1);
        m.resume(SID, stag(&events[0]), false);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
}

#[test]
fn terminate_without_abort_is_an_abort() {
    let m = Bench::new();
    m.process(CD_S);
    with_stalled_read(&m, |access, event| {
        m.command(u64::from(SID) << 32 | 0x44, stag(event).into());
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
}

#[test]
fn answer_to_nobody_is_no_error_and_answers_nobody() {
    let m = Bench::new();
    m.process(CD_S);
    with_stalled_read(&m, |access, event| {
        m.resume(SID + 1, stag(event), true);
        m.resume(SID, stag(event).wrapping_add(1), true);
        m.command(u64::from(SID + 1) << 32 | 0x45, 0);
        assert_eq!((recorded(&m), m.active_errors()), (1, 0));
        m.resume(SID, stag(event), false);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
    m.resume(SID, 0, true);
    assert_eq!(m.active_errors(), 0);
}

#[test]
fn stags_are_unique_among_unanswered_stalls() {
    let m = Bench::new();
    m.process(CD_S);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let accesses: Vec<_> = (1..=8).map(|n| reader(&m, scope, &process(), n * 0x1000)).collect();
        let events = m.await_events(8);
        let mut stags: Vec<u16> = events.iter().map(stag).collect();
        stags.sort_unstable();
        stags.dedup();
        assert_eq!(stags.len(), 8);
        for stag in stags {
            m.resume(SID, stag, false);
        }
        assert!(accesses.into_iter().all(|access| access.join().unwrap().is_err()));
    });
}

#[test]
fn stall_term_aborts_all_of_its_stream() {
    let m = Bench::new();
    m.process(CD_S);
    m.contexts(SID + 1);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let mine: Vec<_> = (1..=3).map(|n| reader(&m, scope, &process(), n * 0x1000)).collect();
        let other = reader(&m, scope, &with_pasid(SID + 1, PASID), 0x1000);
        m.await_events(4);
        m.command(u64::from(SID) << 32 | 0x45, 0);
        assert!(mine.into_iter().all(|access| access.join().unwrap().is_err()));
        assert!(!other.is_finished());
        assert_eq!(recorded(&m), 1);
        m.command(u64::from(SID + 1) << 32 | 0x45, 0);
        assert!(other.join().unwrap().is_err());
    });
}

#[test]
fn end_of_translation_aborts_all_stalls() {
    let m = Bench::new();
    m.process(CD_S);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(&m, scope, &process(), 0x1000);
        m.await_events(1);
        m.enable(CMDQEN);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
    assert_eq!(recorded(&m), 0);
}

#[test]
fn full_queue_delays_a_stall_and_does_not_overflow() {
    let m = Bench::with_event_queue(1);
    let root = m.process(CD_S);
    m.contexts(SID + 1);
    // Two recorded aborts fill it.
    m.cd(6, &[CD_D0, root]);
    for _ in 0..2 {
        assert!(m.read(&with_pasid(SID, 6), 0x1000, 1).is_err());
    }
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(&m, scope, &process(), 0x1000);
        m.until(|| m.smmu.stats().stalls == 1);
        assert_eq!((m.r32(EVENTQ_PROD), recorded(&m)), (2, 0));
        assert_eq!(m.events().len(), 2);
        let events = m.await_events(1);
        assert_eq!(events[0][1] & STALL, STALL);
        m.resume(SID, stag(&events[0]), false);
        assert!(access.join().unwrap().is_err());
    });
}

#[test]
fn delayed_stall_that_has_a_remedy_meanwhile_leaves_no_record() {
    let m = Bench::with_event_queue(1);
    let root = m.process(CD_S);
    m.cd(6, &[CD_D0, root]);
    for _ in 0..2 {
        assert!(m.read(&with_pasid(SID, 6), 0x1000, 1).is_err());
    }
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(&m, scope, &process(), 0x1000);
        m.until(|| m.smmu.stats().stalls == 1);
        m.map(root, 0x1000, DATA, USER_RW);
        m.tlbi_asid(ASID);
        m.events();
        assert!(access.join().unwrap().is_ok());
    });
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn disabled_queue_holds_stalls_until_it_is_enabled() {
    let m = Bench::new();
    m.process(CD_S);
    m.enable(SMMUEN | CMDQEN);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(&m, scope, &process(), 0x1000);
        m.until(|| m.smmu.stats().stalls == 1);
        assert_eq!(m.r32(EVENTQ_PROD), 0);
        m.enable(SMMUEN | EVENTQEN | CMDQEN);
        let events = m.await_events(1);
        m.resume(SID, stag(&events[0]), false);
        assert!(access.join().unwrap().is_err());
    });
}

#[test]
fn stalls_beyond_stall_max_are_recorded_when_others_are_answered() {
    let m = Bench::with(Features { stall_max: 2, ..Features::default() });
    m.process(CD_S);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let accesses: Vec<_> = (1..=5).map(|n| reader(&m, scope, &process(), n * 0x1000)).collect();
        let mut pending = m.await_events(2);
        m.until(|| m.smmu.stats().stalls >= 5);
        assert_eq!((recorded(&m), m.events().len()), (2, 0));
        for answered in 1..=5 {
            let event = pending.pop().unwrap();
            m.resume(SID, stag(&event), false);
            if answered <= 3 {
                pending.extend(m.await_events(1));
            }
            assert!(recorded(&m) <= 2);
        }
        assert!(accesses.into_iter().all(|access| access.join().unwrap().is_err()));
    });
    assert_eq!(recorded(&m), 0);
}

#[test]
fn retry_looks_everything_up_anew() {
    let m = Bench::new();
    m.process(CD_S);
    let other = m.table(4096);
    m.map(other, 0x1000, DATA + 0x3000, USER_RW);
    m.put(DATA + 0x3000, &[0x33]);
    with_stalled_read(&m, |access, event| {
        m.cd(PASID, &[CD_D0, other]);
        m.resume(SID, stag(event), true);
        assert_eq!(access.join().unwrap(), Ok(vec![0x33]));
    });
}

#[test]
fn retry_may_meet_another_fault() {
    let m = Bench::new();
    m.process(CD_S);
    with_stalled_read(&m, |access, event| {
        m.ste(SID, &[0]);
        m.resume(SID, stag(event), true);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
    assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, Some(PASID))]);
}

#[test]
fn device_that_gives_up_leaves_its_stag_to_be_answered() {
    let m = Bench::new();
    let root = m.process(CD_S);
    let who = process();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = reader(&m, scope, &who, 0x1000);
        let events = m.await_events(1);
        who.waiter.cancel();
        assert_eq!(access.join().unwrap(), Err(DmaFault::Cancelled));
        assert_eq!(recorded(&m), 1);
        m.resume(SID, stag(&events[0]), true);
        assert_eq!((recorded(&m), m.active_errors()), (0, 0));
    });
    m.map(root, 0x1000, DATA, USER_RW);
    assert_eq!(m.read(&who, 0x1000, 1), Err(DmaFault::Cancelled));
    who.waiter.rearm();
    assert!(m.read(&who, 0x1000, 1).is_ok());
}

#[test]
fn device_that_gives_up_before_its_record_is_forgotten() {
    let m = Bench::with(Features { stall_max: 1, ..Features::default() });
    m.process(CD_S);
    let who = process();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let first = reader(&m, scope, &process(), 0x1000);
        let events = m.await_events(1);
        let second = reader(&m, scope, &who, 0x2000);
        m.until(|| m.smmu.stats().stalls == 2);
        who.waiter.cancel();
        assert_eq!(second.join().unwrap(), Err(DmaFault::Cancelled));
        m.resume(SID, stag(&events[0]), false);
        assert!(first.join().unwrap().is_err());
    });
    assert_eq!((m.events(), recorded(&m)), (vec![], 0));
}

#[test]
fn forced_model_stalls_whatever_the_device() {
    let m = Bench::with(Features { stall_model: StallModel::StallForced, ..Features::default() });
    m.process(CD_S);
    with_stalled_read(&m, |access, event| {
        m.resume(SID, stag(event), false);
        assert!(access.join().unwrap().is_err());
    });
}

#[test]
fn long_access_stalls_once_for_each_missing_page_and_keeps_its_order() {
    let m = Bench::new();
    let root = m.process(CD_S);
    let data: Vec<u8> = (0..3 * 4096).map(|n| n as u8 ^ (n >> 8) as u8).collect();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let smmu = &m.smmu;
        let source = data.clone();
        let access = scope.spawn(move || smmu.write(&process(), Iova(0x1800), &source));
        for (n, va) in [0x1800, 0x2000, 0x3000, 0x4000].into_iter().enumerate() {
            let events = m.await_events(1);
            let expected = fault_record(EventType::F_TRANSLATION, WRITE | STALL, va);
            assert_eq!(without_stag(&events[0]), expected);
            m.map(root, va, DATA + 0x2000 * n as u64, USER_RW);
            m.resume(SID, stag(&events[0]), true);
        }
        assert_eq!(access.join().unwrap(), Ok(()));
    });
    assert_eq!(m.read(&process(), 0x1800, data.len()), Ok(data));
}
