//! What goes wrong on purpose looks like what goes wrong by itself (`docs/faults.md`).

use std::thread;

use hw::Clock;
use hw::ats::{AtsPort, PageRequest, PageResponse, PageResponseCode, PrgIndex};
use hw::fault::{Command, FaultAction, FaultPoint, LateFaults, Occasion, ScriptedFaults};

use super::*;

const OVFLG: u32 = 1 << 31;
const EVENTQ_ABT_ERR: u32 = 1 << 2;
const PRIQ_ABT_ERR: u32 = 1 << 3;
const VA: u64 = 0x1000;

struct Planned<P = ScriptedFaults> {
    m: Bench,
    plan: Arc<P>,
    root: u64,
}

/// A process with a page at [`VA`], and this script. `d0` are further bits of its context.
fn planned(d0: u64, script: &[(FaultPoint, usize, FaultAction)]) -> Planned {
    with_plan(d0, ScriptedFaults::new(script))
}

fn with_plan<P: FaultPlan + 'static>(d0: u64, plan: Arc<P>) -> Planned<P> {
    let m = Bench::reset_with(Features::default(), Some(plan.clone()));
    m.set_up(4);
    m.w64(PRIQ_BASE, PRIQ | 3);
    m.w32(IRQ_CTRL, 7);
    m.enable(SMMUEN | PRIQEN | EVENTQEN | CMDQEN);
    let root = m.process(d0);
    m.map(root, VA, DATA, USER_RW);
    m.put(DATA, &[0x42]);
    Planned { m, plan, root }
}

/// D1 of a record without its STAG.
fn without_stag([d0, d1, d2, d3]: Record) -> Record {
    [d0, d1 & !0xffff, d2, d3]
}

/// Stalls a read at [`VA`] by a translation fault of its first walk, and hands over the access and its STAG.
fn with_stalled_read(
    planned: &Planned,
    then: impl FnOnce(thread::ScopedJoinHandle<'_, Result<Vec<u8>, DmaFault>>, u16),
) {
    let m = &planned.m;
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&process(), VA, 1));
        let stag = m.await_events(1)[0][1] as u16;
        then(access, stag);
    });
}

const STALLS_ONCE: (FaultPoint, usize, FaultAction) = (FaultPoint::SmmuWalk, 4, FaultAction::Translation);

#[test]
fn fault_of_a_walk_is_recorded_as_a_real_one_and_the_next_access_goes_through() {
    for (action, event) in [
        (FaultAction::Translation, EventType::F_TRANSLATION),
        (FaultAction::Permission, EventType::F_PERMISSION),
        (FaultAction::AccessFlag, EventType::F_ACCESS),
        (FaultAction::AddressSize, EventType::F_ADDR_SIZE),
    ] {
        // Four levels: the third descriptor is that of level 2.
        let Planned { m, plan, .. } = planned(0, &[(FaultPoint::SmmuWalk, 3, action)]);
        assert_eq!(m.read(&process(), VA, 1), aborted(VA));
        assert_eq!(m.events(), [fault_record(event, READ, VA)]);
        assert_eq!(plan.asked().last().and_then(|occasion| occasion.level), Some(2));
        assert_eq!(m.read(&process(), VA, 1), Ok(vec![0x42]));
        assert!(m.events().is_empty());
    }
}

#[test]
fn external_abort_of_a_walk_names_the_descriptor() {
    let Planned { m, root, .. } = planned(0, &[(FaultPoint::SmmuWalk, 4, FaultAction::ExternalAbort)]);
    assert_eq!(m.read(&process(), VA, 1), aborted(VA));
    let [d0, ..] = record(EventType::F_WALK_EABT, SID, Some(PASID));
    assert_eq!(m.events(), [[d0, 1 << 40 | 1 << 35, VA, m.pte(root, VA)]]);
}

#[test]
fn injected_fault_stalls_where_the_context_says_so_and_the_retry_is_a_new_occasion() {
    let planned = planned(CD_S, &[STALLS_ONCE, (FaultPoint::SmmuWalk, 8, FaultAction::Permission)]);
    let m = &planned.m;
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&process(), VA, 1));
        for event in [EventType::F_TRANSLATION, EventType::F_PERMISSION] {
            let events = m.await_events(1);
            assert_eq!(without_stag(events[0]), fault_record(event, READ | STALL, VA));
            m.resume(SID, events[0][1] as u16, true);
        }
        assert_eq!(access.join().unwrap(), Ok(vec![0x42]));
    });
}

#[test]
fn lookup_faults_although_the_translation_is_cached_and_forgets_it_when_told() {
    let Planned { m, plan, .. } = planned(
        0,
        &[
            (FaultPoint::SmmuLookup, 2, FaultAction::Permission),
            (FaultPoint::SmmuLookup, 4, FaultAction::Miss),
        ],
    );
    let who = Requester { command: Some(Command { queue: 2, index: Some(7) }), ..process() };
    assert!(m.read(&who, VA, 1).is_ok());
    assert_eq!(m.read(&who, VA, 1), aborted(VA));
    assert_eq!(m.events(), [fault_record(EventType::F_PERMISSION, READ, VA)]);
    assert!(m.read(&who, VA, 1).is_ok());
    assert_eq!(m.smmu.stats().walks, 1);
    assert!(m.read(&who, VA, 1).is_ok());
    assert_eq!(m.smmu.stats().walks, 2);
    let expected = Occasion::new(FaultPoint::SmmuLookup, StreamId(SID), Pasid::new(PASID))
        .at(Iova(VA), 1)
        .during(who.command);
    assert_eq!(plan.asked(), [expected; 4]);
}

#[test]
fn lookup_that_the_plan_comes_to_mention_is_asked_about_although_the_translation_is_remembered() {
    let Planned { m, plan, .. } = with_plan(0, Arc::<LateFaults>::default());
    for _ in 0..2 {
        assert!(m.read(&process(), VA, 1).is_ok());
    }
    assert_eq!(m.smmu.stats().walks, 1);
    plan.say(Some((FaultPoint::SmmuLookup, FaultAction::Permission)));
    m.smmu.fault_points_added(&m.smmu.faults.0.changed());
    assert_eq!(m.read(&process(), VA, 1), aborted(VA));
    plan.say(None);
    m.smmu.fault_points_added(&m.smmu.faults.0.changed());
    for _ in 0..2 {
        assert!(m.read(&process(), VA, 1).is_ok());
    }
    assert_eq!(m.smmu.stats().walks, 1, "the TLB has forgotten nothing");
}

#[test]
fn delayed_stall_is_recorded_when_its_time_has_come_and_no_later() {
    let planned = planned(CD_S, &[(FaultPoint::SmmuStall, 1, FaultAction::Delay { delay: 1000 })]);
    let m = &planned.m;
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&process(), 0x5000, 1));
        m.until(|| planned.plan.asked().len() == 1);
        // A CMD_SYNC does not wait for it.
        m.sync();
        assert!(m.events().is_empty());
        let events = std::cell::RefCell::new(Vec::new());
        m.until(|| {
            m.clock.advance_ns(1000);
            m.alarms.ring(m.clock.now_ns());
            events.borrow_mut().extend(m.events());
            !events.borrow().is_empty()
        });
        let event = events.borrow()[0];
        assert_eq!(without_stag(event), fault_record(EventType::F_TRANSLATION, READ | STALL, 0x5000));
        m.resume(SID, event[1] as u16, false);
        assert_eq!(access.join().unwrap(), aborted(0x5000));
    });
    assert_eq!(planned.plan.asked().len(), 1, "the same stall is asked about once");
}

#[test]
fn overflow_of_the_event_queue_loses_one_record_and_says_so() {
    let Planned { m, .. } = planned(0, &[(FaultPoint::SmmuEvent, 2, FaultAction::Overflow)]);
    for at in [0x5000, 0x6000, 0x7000] {
        assert_eq!(m.read(&process(), at, 1), aborted(at));
    }
    assert_ne!((m.r32(EVENTQ_PROD) ^ m.r32(EVENTQ_CONS)) & OVFLG, 0);
    let expected = [0x5000, 0x7000].map(|at| fault_record(EventType::F_TRANSLATION, READ, at));
    assert_eq!(m.events(), expected);
}

#[test]
fn abort_of_a_write_to_the_event_queue_is_a_global_error() {
    let Planned { m, .. } = planned(0, &[(FaultPoint::SmmuEvent, 1, FaultAction::ExternalAbort)]);
    assert_eq!(m.read(&process(), 0x5000, 1), aborted(0x5000));
    assert_eq!(m.active_errors(), EVENTQ_ABT_ERR);
    assert!(m.events().is_empty());
}

#[test]
fn resume_can_become_an_abort() {
    let planned = planned(CD_S, &[STALLS_ONCE, (FaultPoint::SmmuResume, 1, FaultAction::Abort { byte: 0 })]);
    with_stalled_read(&planned, |access, stag| {
        planned.m.resume(SID, stag, true);
        assert_eq!(access.join().unwrap(), aborted(VA));
    });
}

#[test]
fn lost_resume_leaves_the_access_waiting_for_another() {
    let planned = planned(CD_S, &[STALLS_ONCE, (FaultPoint::SmmuResume, 1, FaultAction::Drop)]);
    with_stalled_read(&planned, |access, stag| {
        planned.m.resume(SID, stag, true);
        planned.m.sync();
        assert!(!access.is_finished());
        planned.m.resume(SID, stag, true);
        assert_eq!(access.join().unwrap(), Ok(vec![0x42]));
    });
}

#[test]
fn delayed_resume_takes_effect_when_its_time_has_come() {
    let delay = FaultAction::Delay { delay: 1000 };
    let planned = planned(CD_S, &[STALLS_ONCE, (FaultPoint::SmmuResume, 1, delay)]);
    with_stalled_read(&planned, |access, stag| {
        let m = &planned.m;
        m.resume(SID, stag, true);
        m.clock.advance_ns(999);
        m.alarms.ring(m.clock.now_ns());
        assert_eq!(m.smmu.state().stalls.recorded_count(), 1);
        m.clock.advance_ns(1);
        m.alarms.ring(m.clock.now_ns());
        assert_eq!(access.join().unwrap(), Ok(vec![0x42]));
    });
}

#[test]
fn resume_after_unbind_waits_for_the_end_of_the_context_and_finds_none() {
    let planned = planned(CD_S, &[STALLS_ONCE, (FaultPoint::SmmuResume, 1, FaultAction::AfterUnbind)]);
    with_stalled_read(&planned, |access, stag| {
        let m = &planned.m;
        m.resume(SID, stag, true);
        m.cfgi_cd(SID, PASID);
        m.cfgi_cd(SID, PASID + 1);
        assert_eq!(m.smmu.state().stalls.recorded_count(), 1, "the context is still there");
        m.cd(PASID, &[0]);
        assert_eq!(access.join().unwrap(), aborted(VA));
        assert_eq!(m.events(), [record(EventType::C_BAD_CD, SID, Some(PASID))]);
    });
}

fn page_request(index: u16) -> PageRequest {
    let (tag, address) = (process().tag, Iova(VA));
    PageRequest { tag, address, read: true, write: false, last: true, index: PrgIndex::new(index) }
}

fn success(index: u16) -> PageResponse {
    let (pasid, index) = (Pasid::new(PASID), PrgIndex::new(index));
    PageResponse { pasid, index, code: PageResponseCode::Success }
}

#[test]
fn overflow_of_the_page_request_queue_answers_the_request_by_rule() {
    let Planned { m, .. } = planned(0, &[(FaultPoint::SmmuPageRequest, 2, FaultAction::Overflow)]);
    let endpoint = m.endpoint();
    m.smmu.request_page(&page_request(0));
    m.smmu.request_page(&page_request(1));
    assert_eq!(m.r32(PRIQ_PROD), OVFLG | 1);
    let answers = endpoint.responses.lock().unwrap().clone();
    assert_eq!(
        answers.iter().map(|answer| (answer.index, answer.code)).collect::<Vec<_>>(),
        [(PrgIndex::new(1), PageResponseCode::Success)]
    );
}

#[test]
fn overflow_of_an_empty_page_request_queue_leaves_an_entry_for_software_to_come_for() {
    let Planned { m, .. } = planned(0, &[(FaultPoint::SmmuPageRequest, 1, FaultAction::Overflow)]);
    let endpoint = m.endpoint();
    m.smmu.request_page(&page_request(0));
    assert_eq!((m.r32(PRIQ_PROD), m.priq.edges()), (OVFLG | 1, 1));
    assert!(endpoint.responses.lock().unwrap().is_empty());
}

#[test]
fn abort_of_a_write_to_the_page_request_queue_is_a_global_error_and_a_failure() {
    let Planned { m, .. } = planned(0, &[(FaultPoint::SmmuPageRequest, 1, FaultAction::ExternalAbort)]);
    let endpoint = m.endpoint();
    m.smmu.request_page(&page_request(0));
    assert_eq!(m.active_errors(), PRIQ_ABT_ERR);
    assert_eq!(endpoint.responses.lock().unwrap()[0].code, PageResponseCode::ResponseFailure);
}

impl Planned {
    /// CMD_PRI_RESP with Success.
    fn answer(&self, index: u16) {
        let d0 = u64::from(SID) << 32 | u64::from(PASID) << 12 | 1 << 11 | 0x41;
        self.m.command(d0, 2 << 12 | u64::from(index));
        self.m.sync();
    }
}

#[test]
fn page_response_can_be_lost_doubled_or_become_another() {
    let with = |code| PageResponse { code, ..success(3) };
    for (action, expected) in [
        (FaultAction::Drop, vec![]),
        (FaultAction::Duplicate, vec![success(3); 2]),
        (FaultAction::Failure, vec![with(PageResponseCode::ResponseFailure)]),
        (FaultAction::Invalid, vec![with(PageResponseCode::InvalidRequest)]),
    ] {
        let planned = planned(0, &[(FaultPoint::SmmuPageResponse, 1, action)]);
        let endpoint = planned.m.endpoint();
        planned.answer(3);
        assert_eq!(*endpoint.responses.lock().unwrap(), expected, "{action:?}");
        planned.answer(4);
        assert_eq!(endpoint.responses.lock().unwrap().last(), Some(&success(4)));
    }
}

#[test]
fn page_response_can_come_late_or_after_the_end_of_its_context() {
    let script = [
        (FaultPoint::SmmuPageResponse, 1, FaultAction::Delay { delay: 1000 }),
        (FaultPoint::SmmuPageResponse, 2, FaultAction::AfterUnbind),
    ];
    let planned = planned(0, &script);
    let (m, endpoint) = (&planned.m, planned.m.endpoint());
    let answers = || endpoint.responses.lock().unwrap().clone();
    planned.answer(1);
    planned.answer(2);
    assert_eq!(answers(), []);
    m.clock.advance_ns(1000);
    m.alarms.ring(m.clock.now_ns());
    assert_eq!(answers(), [success(1)]);
    m.cfgi_cd(SID, PASID);
    assert_eq!(answers(), [success(1)]);
    m.cd(PASID, &[0]);
    assert_eq!(answers(), [success(1), success(2)]);
}
