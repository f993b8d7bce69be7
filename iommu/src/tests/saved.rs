//! Save and restore (`hw::LifeCycle`): the machine goes on in another SMMU on the same memory.

use std::thread;

use hw::fault::{FaultAction, FaultPoint, ScriptedFaults};
use hw::{Clock, LifeCycle};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const VA: u64 = 0x1000;

/// Another SMMU that has taken up the state of this one.
fn restored(m: &Bench) -> Bench {
    let after = m.successor(None);
    after.smmu.restore(m.smmu.save()).unwrap();
    after
}

/// The process, whose accesses are made again.
fn again() -> Requester {
    let who = process();
    who.waiter.set_made_again(true);
    who
}

/// Stalls a read of the process at [`VA`], and saves the state; then the read is given up here. The successor, the root of
/// the process's tables, and the event's STAG.
fn stalled_and_saved() -> (Bench, u64, u16) {
    let m = Bench::new();
    let root = m.process(CD_S);
    let who = process();
    let (mut after, mut stag) = (None, 0);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&who, VA, 4));
        stag = m.await_events(1)[0][1] as u16;
        m.smmu.quiesce();
        after = Some(restored(&m));
        who.waiter.cancel();
        assert_eq!(access.join().unwrap(), Err(DmaFault::Cancelled));
    });
    (after.unwrap(), root, stag)
}

/// Whether a recorded stall has an access that waits.
fn is_adopted(m: &Bench, who: &Requester) -> bool {
    m.smmu.state().stalls.recorded_count() == 1 && who.waiter.is_waiting()
}

#[test]
fn access_that_is_made_again_waits_for_the_answer_to_the_record_of_before() {
    for retry in [true, false] {
        let (m, root, stag) = stalled_and_saved();
        m.put(DATA, &[0x0403_0201]);
        let who = again();
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let access = scope.spawn(|| m.read(&who, VA, 4));
            m.until(|| is_adopted(&m, &who));
            assert_eq!(m.events(), [] as [Record; 0], "nothing is recorded twice");
            m.map(root, VA, DATA, USER_RW);
            m.resume(SID, stag, retry);
            let expected = if retry { Ok(vec![1, 2, 3, 4]) } else { aborted(VA) };
            assert_eq!(access.join().unwrap(), expected);
        });
        assert_eq!(m.smmu.stats().unanswered_stalls, 0);
        assert_eq!(m.events(), [] as [Record; 0]);
    }
}

#[test]
fn retry_before_the_access_is_made_again_lets_it_be_translated_as_any() {
    let (m, root, stag) = stalled_and_saved();
    m.map(root, VA, DATA, USER_RW);
    m.put(DATA, &[0x0403_0201]);
    m.resume(SID, stag, true);
    assert_eq!(m.read(&again(), VA, 4), Ok(vec![1, 2, 3, 4]));
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn retry_before_the_access_is_made_again_and_without_a_remedy_is_recorded_again() {
    let (m, _, stag) = stalled_and_saved();
    m.resume(SID, stag, true);
    let who = again();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&who, VA, 4));
        let event = m.await_events(1)[0];
        m.resume(SID, event[1] as u16, false);
        assert_eq!(access.join().unwrap(), aborted(VA));
    });
}

#[test]
fn abort_before_the_access_is_made_again_is_kept_for_it_alone() {
    for terminates_stream in [false, true] {
        let (m, root, stag) = stalled_and_saved();
        match terminates_stream {
            true => drop(m.command(u64::from(SID) << 32 | 0x45, 0)),
            false => m.resume(SID, stag, false),
        }
        // Whatever has become of the page.
        m.map(root, VA, DATA, USER_RW);
        assert!(m.read(&process(), VA, 4).is_ok(), "another access of the process");
        let again_saved = restored(&m);
        for m in [&m, &again_saved] {
            assert_eq!(m.read(&again(), VA - 0x10, 0x20), aborted(VA), "kept until it comes");
            assert!(m.read(&again(), VA, 4).is_ok(), "it is given once");
            assert_eq!(m.events(), [] as [Record; 0]);
        }
    }
}

#[test]
fn access_that_is_not_made_again_has_a_record_of_its_own() {
    let (m, root, stag) = stalled_and_saved();
    let who = process();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&who, VA, 4));
        let event = m.await_events(1)[0];
        assert_ne!(event[1] as u16, stag, "the STAG of before is in use");
        m.map(root, VA, DATA, USER_RW);
        m.resume(SID, event[1] as u16, true);
        assert!(access.join().unwrap().is_ok());
    });
    assert_eq!(m.smmu.stats().unanswered_stalls, 1, "until software answers it");
    m.resume(SID, stag, true);
    assert_eq!(m.smmu.stats().unanswered_stalls, 0);
}

#[test]
fn other_address_kind_and_process_do_not_take_a_record_that_is_not_theirs() {
    let (m, _, _) = stalled_and_saved();
    let tx = |who: &Requester, at, is_write| crate::transaction::Transaction::untranslated(who, at, is_write);
    let mut state = m.smmu.state();
    let other = with_pasid(SID, PASID + 1);
    for tx in [tx(&process(), VA + 0x1000, false), tx(&process(), VA, true), tx(&other, VA, false)] {
        assert!(state.stalls.adopt(&tx, &again().waiter).is_none());
    }
    assert!(state.stalls.adopt(&tx(&process(), VA + 0xfff, false), &again().waiter).is_some());
    assert!(state.stalls.adopt(&tx(&process(), VA, false), &again().waiter).is_none(), "it is taken");
}

/// With translation off an address of a process would be taken for a physical one.
#[test]
fn end_of_translation_aborts_what_is_made_again_before_it_passes_untranslated() {
    let (m, _, _) = stalled_and_saved();
    m.w32(CR0, EVENTQEN | CMDQEN);
    // An earlier access of the same command, which was complete before.
    assert_eq!(m.write(&again(), DATA, &[1]), aborted(DATA));
    assert_eq!(m.dword(DATA), 0);
}

#[test]
fn stall_whose_device_had_given_up_waits_for_its_answer_and_nobody_takes_it() {
    let m = Bench::new();
    m.process(CD_S);
    let who = process();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&who, VA, 4));
        m.await_events(1);
        who.waiter.cancel();
        access.join().unwrap().unwrap_err();
    });
    let after = restored(&m);
    assert_eq!(after.smmu.stats().unanswered_stalls, 1);
    let tx = crate::transaction::Transaction::untranslated(&process(), VA, false);
    assert!(after.smmu.state().stalls.adopt(&tx, &again().waiter).is_none());
    assert_eq!(after.smmu.save(), m.smmu.save());
}

/// A CMD_SYNC that waits for an endpoint, saved.
fn with_waiting_sync(then: impl FnOnce(&Bench, &Bench, u64, InvalidateTag)) {
    let m = Bench::new();
    m.ats_process(0);
    let endpoint = m.endpoint();
    endpoint.is_prompt.store(false, Ordering::Relaxed);
    m.clock.advance_ns(1_000_000);
    m.command(u64::from(SID) << 32 | 0x40, 52);
    let slot = CMDQ + 16 * u64::from(m.r32(CMDQ_PROD) & ((1 << CMDQ_LOG2) - 1));
    m.command(0x0fc0_1046, slot);
    m.clock.advance_ns(50_000_000);
    assert_ne!(m.dword(slot) as u32, 0, "it waits");
    let after = m.successor(None);
    let _endpoint = after.endpoint();
    after.smmu.restore(m.smmu.save()).unwrap();
    assert_eq!(after.smmu.save(), m.smmu.save());
    let (_, tag) = endpoint.invalidations.lock().unwrap()[0];
    then(&m, &after, slot, tag);
}

#[test]
fn sync_that_waited_for_an_endpoint_completes_with_its_completion() {
    with_waiting_sync(|_, after, slot, tag| {
        after.smmu.invalidate_completed(StreamId(SID), tag);
        assert_eq!(after.dword(slot) as u32, 0);
        assert_eq!(after.active_errors(), 0);
    });
}

#[test]
fn sync_that_waited_for_an_endpoint_fails_after_the_time_that_was_left() {
    with_waiting_sync(|_, after, slot, _| {
        let left = crate::ats::INVALIDATION_TIMEOUT_NS - 50_000_000;
        after.clock.advance_ns(left - 1);
        after.alarms.ring(after.clock.now_ns());
        assert_eq!(after.active_errors(), 0);
        after.clock.advance_ns(1);
        after.alarms.ring(after.clock.now_ns());
        assert_eq!((after.active_errors(), after.r32(CMDQ_CONS) >> 24), (1, 3));
        assert_ne!(after.dword(slot) as u32, 0);
    });
}

#[test]
fn answers_that_a_plan_holds_back_are_given_after_a_restore() {
    for action in [FaultAction::Delay { delay: 1000 }, FaultAction::AfterUnbind] {
        let script = [(FaultPoint::SmmuResume, 1, action)];
        let m = Bench::reset_with(Features::default(), Some(ScriptedFaults::new(&script)));
        m.set_up(4);
        m.enable(SMMUEN | EVENTQEN | CMDQEN);
        m.process(CD_S);
        let (before, who) = (process(), again());
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let access = scope.spawn(|| m.read(&before, VA, 4));
            let stag = m.await_events(1)[0][1] as u16;
            m.resume(SID, stag, false);
            m.clock.advance_ns(400);
            let after = m.successor(Some(ScriptedFaults::new(&script)));
            let state = m.smmu.save();
            after.smmu.restore(state.clone()).unwrap();
            assert_eq!(after.smmu.save(), state);
            before.waiter.cancel();
            access.join().unwrap().unwrap_err();
            thread::scope(|scope| {
                let _unstuck = after.unstuck_on_panic();
                let access = scope.spawn(|| after.read(&who, VA, 4));
                after.until(|| is_adopted(&after, &who));
                if action == FaultAction::AfterUnbind {
                    after.cd(PASID, &[0]);
                } else {
                    after.clock.advance_ns(600);
                    after.alarms.ring(after.clock.now_ns());
                }
                assert_eq!(access.join().unwrap(), aborted(VA));
            });
            let error = m.successor(None).smmu.restore(state).unwrap_err();
            assert!(error.to_string().contains("no fault plan"), "{error}");
        });
    }
}

/// What a guest does to the registers and queues.
#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64),
    Command(u64, u64),
    /// A read that may fault: by substream and page.
    Access(u32, u64),
    Time(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let offset = prop_oneof![
        (0_u64..0x40).prop_map(|word| 4 * word),
        prop::sample::select(vec![0x1_00a8, 0x1_00ac, 0x1_00c8, 0x1_00cc]),
    ];
    let opcode = prop::sample::select(vec![0x03_u64, 0x05, 0x11, 0x40, 0x41, 0x44, 0x45, 0x46, 0x46]);
    let bits = || prop_oneof![any::<u64>(), (0_u64..64), (0_u32..64).prop_map(|bit| 1 << bit)];
    prop_oneof![
        2 => (offset, bits()).prop_map(|(offset, value)| Op::Write(offset, value)),
        4 => (opcode, bits(), 0_u64..4)
            .prop_map(|(opcode, d0, d1)| Op::Command(opcode | d0 & 0x3000 | u64::from(SID) << 32, d1)),
        2 => (4_u32..7, 0_u64..4).prop_map(|(ssid, page)| Op::Access(ssid, page)),
        1 => (0_u64..300_000_000).prop_map(Op::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn state_after_what_a_guest_can_do_is_saved_restored_and_saved_the_same(
        ops in prop::collection::vec(op(), 0..40),
    ) {
        let m = Bench::new();
        m.ats_process(CD_S);
        let endpoint = m.endpoint();
        endpoint.is_prompt.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            let mut accesses = Vec::new();
            for op in ops {
                match op {
                    Op::Write(offset, value) => m.w32(offset, value as u32),
                    Op::Command(d0, d1) => {
                        if m.r64(CMDQ_BASE) == CMDQ | u64::from(CMDQ_LOG2) {
                            m.command(d0, d1);
                        }
                    }
                    Op::Access(ssid, page) => {
                        let who = with_pasid(SID, ssid);
                        let (m, waiter) = (&m, Arc::clone(&who.waiter));
                        accesses.push((scope.spawn(move || m.read(&who, page << 12, 1)), waiter));
                    }
                    Op::Time(ns) => {
                        m.clock.advance_ns(ns);
                        m.alarms.ring(m.clock.now_ns());
                    }
                }
                // As the devices quiesce.
                while !accesses.iter().all(|(access, waiter)| access.is_finished() || waiter.is_waiting()) {
                    thread::yield_now();
                }
            }
            m.smmu.quiesce();
            let (after, state) = (m.successor(None), m.smmu.save());
            let _endpoint = after.endpoint();
            let result = after.smmu.restore(state.clone());
            let window = |m: &Bench| (0..crate::WINDOW_BYTES / 4).map(|word| m.r32(4 * word)).collect::<Vec<_>>();
            let (state_after, windows) = (after.smmu.save(), (window(&after), window(&m)));
            accesses.iter().for_each(|(_, waiter)| waiter.cancel());
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!(state_after, state);
            prop_assert_eq!(windows.0, windows.1);
            Ok(())
        })?;
    }
}

/// A state with a bit of everything.
fn rich_state() -> Value {
    let mut state = None;
    with_waiting_sync(|m, _, _, _| state = Some(m.smmu.save()));
    let mut state = state.unwrap();
    let stall = json!({
        "STAG": "0x3", "StreamID": "0x10", "SubstreamID": "0x5", "InputAddr": "0x1000", "kind": "read",
        "privileged": false, "queue": 1, "index": 2,
    });
    state["state"]["stalls"]["recorded"] = json!([stall]);
    state
}

fn restore(state: Value) -> Result<(), hw::RestoreError> {
    let after = Bench::reset(Features::default());
    let _endpoint = after.endpoint();
    after.smmu.restore(state)
}

#[test]
fn values_that_no_guest_could_have_brought_about_are_refused() {
    assert_eq!(restore(rich_state()), Ok(()));
    let stall = rich_state()["state"]["stalls"]["recorded"][0].clone();
    let many: Vec<Value> = (0..257)
        .map(|stag| {
            let mut stall = stall.clone();
            stall["STAG"] = json!(format!("{stag:#x}"));
            stall
        })
        .collect();
    let held = json!([{ "StreamID": "0x10", "SubstreamID": null,
        "answer": { "CMD_RESUME": { "STAG": "0x0", "action": "abort" } } }]);
    let bad_index = json!([{ "in_ns": 1, "step": { "StreamID": "0x10", "SubstreamID": null,
        "answer": { "CMD_PRI_RESP": { "pasid": null, "PRGIndex": "0x200", "Resp": "Success" } } } }]);
    let bad_pasid = json!([{ "in_ns": 1, "step": { "StreamID": "0x10", "SubstreamID": "0x100000",
        "answer": { "CMD_RESUME": { "STAG": "0x0", "action": "abort" } } } }]);
    for (path, value) in [
        ("/registers/SMMU_CR0", json!("0x2d")),
        ("/registers/SMMU_CR0", json!("0x1")),
        ("/registers/SMMU_IRQ_CTRLACK", json!("0x0")),
        ("/registers/SMMU_GBPA", json!("0x80000000")),
        ("/registers/SMMU_GERROR", json!("0x2")),
        ("/registers/SMMU_CMDQ_PROD", json!("0x100000")),
        ("/registers/SMMU_STRTAB_BASE", json!("0x1")),
        ("/registers/SMMU_CR1", json!("0x100000000")),
        ("/stalls/recorded/0/STAG", json!("0x10000")),
        ("/stalls/recorded/0/STAG", json!(null)),
        ("/stalls/recorded/0/StreamID", json!("0x10000")),
        ("/stalls/recorded/0/SubstreamID", json!("0x100000")),
        ("/stalls/recorded/0/kind", json!("fetch")),
        ("/stalls/recorded/0/queue", json!(null)),
        ("/stalls/recorded", json!([stall, stall])),
        ("/stalls/recorded", json!(many)),
        ("/stalls/aborted", json!([stall])),
        ("/invalidations/sync_deadline_in_ns", json!(250_000_001)),
        ("/invalidations/next_tag", json!(u64::MAX)),
        ("/invalidations/next_tag", json!(0)),
        ("/invalidations/outstanding/0/StreamID", json!("0x11")),
        ("/invalidations/outstanding/0/tags", json!([])),
        ("/invalidations/outstanding/0/tags", json!((0..33).collect::<Vec<u64>>())),
        ("/invalidations/outstanding/0/tags", json!([1, 0])),
        ("/held_answers", held),
        ("/delayed_answers", bad_index),
        ("/delayed_answers", bad_pasid),
    ] {
        let mut state = rich_state();
        *state.pointer_mut(&format!("/state{path}")).unwrap_or_else(|| panic!("{path}")) = value.clone();
        assert!(restore(state).is_err(), "{path}: {value}");
    }
    let mut off = rich_state();
    off["state"]["registers"]["SMMU_CR0"] = json!("0xc");
    off["state"]["registers"]["SMMU_CR0ACK"] = json!("0xc");
    assert!(restore(off).is_err(), "stalls without translation");
    let mut twice = rich_state();
    let of_stream = twice["state"]["invalidations"]["outstanding"][0].clone();
    twice["state"]["invalidations"]["outstanding"] = json!([of_stream, of_stream]);
    assert!(restore(twice).is_err());
}

#[test]
fn registers_of_what_is_not_offered_are_refused() {
    let features = Features { pri: false, ats: false, msi: false, stage2: false, ..Features::default() };
    let m = Bench::reset(features);
    let state = m.smmu.save();
    assert_eq!(m.successor(None).smmu.restore(state.clone()), Ok(()));
    for (register, value) in [
        ("SMMU_CR0", "0x2"),
        ("SMMU_CR0", "0x10"),
        ("SMMU_CR2", "0x1"),
        ("SMMU_PRIQ_BASE", "0x1000"),
        ("SMMU_EVENTQ_IRQ_CFG0", "0x1000"),
        ("SMMU_PRIQ_IRQ_CFG2", "0x1"),
    ] {
        let mut state = state.clone();
        state["state"]["registers"][register] = json!(value);
        assert!(m.successor(None).smmu.restore(state).is_err(), "{register}");
    }
}
