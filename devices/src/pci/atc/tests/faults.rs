//! What goes wrong on purpose in the cache and on the way to its agent (`docs/faults.md`).

use super::*;
use hw::fault::{FaultAction, FaultPoint, LateFaults, ScriptedFaults};
use hw::schedule::Threads;

struct Planned {
    m: Bench,
    plan: Arc<ScriptedFaults>,
}

fn planned(credits: u32, point: FaultPoint, nth: usize, action: FaultAction) -> Planned {
    let plan = ScriptedFaults::new(&[(point, nth, action)]);
    let m = Bench::with_faults(credits, |clock, alarms| {
        Faults::new(plan.clone(), clock, alarms, Arc::new(Threads))
    });
    Planned { m, plan }
}

#[test]
fn forgotten_translation_is_asked_for_again() {
    let Planned { m, .. } = planned(0, FaultPoint::AtcLookup, 2, FaultAction::Miss);
    m.map(1, 0x1000, RAM, true);
    for _ in 0..4 {
        m.read(&process(1), 0x1000, 1).unwrap();
    }
    assert_eq!((m.asked(), m.untranslated()), (2, vec![]));
}

#[test]
fn lookup_that_the_plan_comes_to_mention_is_asked_about_although_the_translation_is_remembered() {
    let plan = Arc::<LateFaults>::default();
    let m = Bench::with_faults(0, |clock, alarms| {
        Faults::changing(plan.clone(), clock, alarms, Arc::new(Threads))
    });
    m.map(1, 0x1000, RAM, true);
    for _ in 0..2 {
        m.read(&process(1), 0x1000, 1).unwrap();
    }
    assert_eq!(m.asked(), 1);
    plan.say(Some((FaultPoint::AtcLookup, FaultAction::Miss)));
    m.atc.fault_points_added(&m.atc.faults.changed());
    for _ in 0..2 {
        m.read(&process(1), 0x1000, 1).unwrap();
    }
    assert_eq!(m.asked(), 2);
}

#[test]
fn translation_that_is_not_granted_sends_the_access_untranslated_or_asks_for_the_page() {
    let Planned { m, .. } = planned(0, FaultPoint::AtcRequest, 1, FaultAction::NotGranted);
    m.map(1, 0x1000, RAM, true);
    m.read(&process(1), 0x1000, 8).unwrap();
    assert_eq!((m.asked(), m.untranslated()), (0, vec![(0x1000, 8)]));
    m.read(&process(1), 0x1000, 8).unwrap();
    assert_eq!((m.asked(), m.untranslated()), (1, vec![]));

    let Planned { m, .. } = planned(4, FaultPoint::AtcRequest, 1, FaultAction::NotGranted);
    m.map(1, 0x1000, RAM, true);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        let request = m.await_requests(1)[0];
        m.respond(Some(1), request.index, SUCCESS);
        assert_eq!(access.join().unwrap(), Ok(vec![0]));
    });
}

#[test]
fn unsupported_request_and_completer_abort_are_those_of_an_agent() {
    let Planned { m, .. } = planned(0, FaultPoint::AtcRequest, 1, FaultAction::UnsupportedRequest);
    m.map(1, 0x1000, RAM, true);
    m.read(&process(1), 0x1000, 1).unwrap();
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!((m.asked(), m.untranslated().len()), (0, 2));
    let Planned { m, .. } = planned(0, FaultPoint::AtcRequest, 1, FaultAction::CompleterAbort);
    m.map(1, 0x1000, RAM, true);
    assert_eq!(m.read(&process(1), 0x1008, 1), aborted(0x1008));
    assert!(m.read(&process(1), 0x1008, 1).is_ok());
}

#[test]
fn delayed_request_holds_no_invalidation() {
    let planned = planned(0, FaultPoint::AtcRequest, 1, FaultAction::Delay { delay: 1000 });
    let m = &planned.m;
    m.map(1, 0x1000, RAM, true);
    thread::scope(|scope| {
        let access = reader(m, scope, &process(1), 0x1000, 1);
        until(|| planned.plan.asked().len() == 1);
        m.invalidate(Some(1), 0x1000, 12);
        assert!(!access.is_finished());
        until(|| {
            planned.m.pass_ns(1000);
            access.is_finished()
        });
        assert_eq!(access.join().unwrap(), Ok(vec![0]));
    });
    assert_eq!(planned.plan.asked().len(), 1);
}

#[test]
fn invalidation_without_an_answer_has_been_done() {
    let Planned { m, .. } = planned(0, FaultPoint::AtcInvalidate, 1, FaultAction::Drop);
    m.map(1, 0x1000, RAM, true);
    m.read(&process(1), 0x1000, 1).unwrap();
    let request = InvalidateRequest { pasid: None, global: false, address: Iova(0), size_log2: 64 };
    m.atc.invalidate(&request, InvalidateTag(7));
    assert!(m.agent.completed.lock().unwrap().is_empty());
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!(m.asked(), 2);
    m.invalidate(None, 0, 64);
}

#[test]
fn delayed_invalidation_is_answered_when_its_time_has_come() {
    let planned = planned(0, FaultPoint::AtcInvalidate, 1, FaultAction::Delay { delay: 1000 });
    let request = InvalidateRequest { pasid: None, global: false, address: Iova(0), size_log2: 64 };
    planned.m.atc.invalidate(&request, InvalidateTag(7));
    planned.m.pass_ns(999);
    assert!(planned.m.agent.completed.lock().unwrap().is_empty());
    planned.m.pass_ns(1);
    assert_eq!(*planned.m.agent.completed.lock().unwrap(), [InvalidateTag(7)]);
}

#[test]
fn delayed_invalidation_is_answered_at_once_by_a_reset_and_not_again() {
    let planned = planned(0, FaultPoint::AtcInvalidate, 1, FaultAction::Delay { delay: 1000 });
    let request = InvalidateRequest { pasid: None, global: false, address: Iova(0), size_log2: 64 };
    planned.m.atc.invalidate(&request, InvalidateTag(7));
    planned.m.atc.reset();
    assert_eq!(*planned.m.agent.completed.lock().unwrap(), [InvalidateTag(7)]);
    planned.m.pass_ns(1000);
    assert_eq!(*planned.m.agent.completed.lock().unwrap(), [InvalidateTag(7)]);
}

/// Reads two missing pages, and hands over the access.
fn with_reader(planned: &Planned, then: impl FnOnce(Reader<'_>, &Requester)) {
    thread::scope(|scope| {
        let who = process(1);
        then(reader(&planned.m, scope, &who, 0x1000, 0x2000), &who);
    });
}

#[test]
fn group_that_is_lost_waits_until_its_access_is_given_up() {
    let planned = planned(8, FaultPoint::AtcPageRequest, 1, FaultAction::Drop);
    with_reader(&planned, |access, who| {
        until(|| planned.plan.asked().len() == 1);
        assert_eq!(planned.plan.asked()[0].len, 0x2000);
        who.waiter.cancel();
        assert_eq!(access.join().unwrap(), Err(DmaFault::Cancelled));
    });
    assert!(planned.m.await_requests(1)[0].is_stop_marker());
}

#[test]
fn group_can_go_twice_or_the_other_way_round() {
    for (action, count, lasts) in [
        (FaultAction::Duplicate, 4, vec![false, true, false, true]),
        (FaultAction::Reorder, 2, vec![true, false]),
    ] {
        let planned = planned(8, FaultPoint::AtcPageRequest, 1, action);
        let m = &planned.m;
        with_reader(&planned, |access, _| {
            let requests = m.await_requests(count);
            assert_eq!(requests.iter().map(|request| request.last).collect::<Vec<_>>(), lasts);
            m.map(1, 0x1000, RAM, true);
            m.map(1, 0x2000, RAM, true);
            m.respond(Some(1), requests[0].index, SUCCESS);
            assert!(access.join().unwrap().is_ok());
            let unexpected = m.status() & page_request::UNEXPECTED_INDEX;
            assert_eq!(unexpected, 0);
            m.respond(Some(1), requests[0].index, SUCCESS);
            assert_ne!(m.status() & page_request::UNEXPECTED_INDEX, 0, "nobody has asked any more");
        });
    }
}

#[test]
fn delayed_group_is_sent_when_its_time_has_come() {
    let planned = planned(8, FaultPoint::AtcPageRequest, 1, FaultAction::Delay { delay: 1000 });
    let m = &planned.m;
    with_reader(&planned, |access, _| {
        until(|| planned.plan.asked().len() == 1);
        assert!(m.agent.requests.lock().unwrap().is_empty());
        until(|| {
            planned.m.pass_ns(1000);
            !m.agent.requests.lock().unwrap().is_empty()
        });
        let requests = m.await_requests(2);
        m.map(1, 0x1000, RAM, true);
        m.map(1, 0x2000, RAM, true);
        m.respond(Some(1), requests[0].index, SUCCESS);
        assert!(access.join().unwrap().is_ok());
    });
}
