//! Reset and pause of the machine (`hw::LifeCycle`). The architecture has no reset by software.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::thread;

use hw::ats::{AtsPort, PageRequest, PageResponse, PageResponseCode, PrgIndex};
use hw::fault::{FaultAction, FaultPoint, ScriptedFaults};
use hw::regmap::{Access, RegisterMap};
use hw::{Clock, Dir, LifeCycle};

use super::races::Raised;
use super::*;
use crate::spec::regs::SmmuReg;
use crate::state::Mode;
use crate::transaction::Transaction;

const VA: u64 = 0x1000;

/// All words of both pages.
fn window(m: &Bench) -> Vec<u32> {
    (0..crate::WINDOW_BYTES / 4).map(|word| m.r32(4 * word)).collect()
}

/// As the driver goes about it after power-on, with tables and queues where they were.
fn set_up_again(m: &Bench) {
    m.set_up(4);
    m.w64(PRIQ_BASE, PRIQ | 3);
    m.w32(IRQ_CTRL, 7);
    m.enable(SMMUEN | PRIQEN | EVENTQEN | CMDQEN);
}

/// A process with a page at [`VA`], and this script. `d0` are further bits of its context.
fn bench(d0: u64, script: &[(FaultPoint, usize, FaultAction)]) -> (Bench, u64) {
    let m = Bench::reset_with(Features::default(), Some(ScriptedFaults::new(script)));
    set_up_again(&m);
    let root = m.process(d0);
    m.map(root, VA, DATA, USER_RW);
    (m, root)
}

/// The result of an access that a reset has ended. One that still waits is given up, so that the test fails and ends.
fn result<T>(
    who: &Requester,
    access: thread::ScopedJoinHandle<'_, Result<T, DmaFault>>,
) -> Result<T, DmaFault> {
    let started = Instant::now();
    while !access.is_finished() && started.elapsed() < Duration::from_secs(10) {
        thread::yield_now();
    }
    who.waiter.cancel();
    access.join().unwrap()
}

fn advance(m: &Bench, ns: u64) {
    m.clock.advance_ns(ns);
    m.alarms.ring(m.clock.now_ns());
}

#[test]
fn every_register_reads_its_power_on_value_after_a_reset_from_a_state_in_which_all_are_changed() {
    let m = Bench::reset(Features::default());
    let at_power_on = window(&m);
    // Message addresses, attributes and tables, while nothing is on.
    for offset in [GERROR_IRQ_CFG0, EVENTQ_IRQ_CFG0, PRIQ_IRQ_CFG0] {
        m.w64(offset, DOORBELL);
        m.w64(offset + 8, u64::MAX);
    }
    m.w64(STRTAB_BASE, STRTAB);
    m.w32(STRTAB_BASE_CFG, STRTAB_LOG2);
    m.w64(CMDQ_BASE, CMDQ | u64::from(CMDQ_LOG2));
    m.w64(EVENTQ_BASE, HOLE | 4);
    m.w64(PRIQ_BASE, PRIQ | 3);
    for offset in [CR1, CR2, EVENTQ_PROD, EVENTQ_CONS, PRIQ_PROD, PRIQ_CONS] {
        m.w32(offset, u32::MAX);
    }
    m.w32(GBPA, 1 << 31 | 0x10_0000);
    m.w32(IRQ_CTRL, 7);
    m.w32(CR0, SMMUEN | PRIQEN | EVENTQEN | CMDQEN | ATSCHK);
    // Two commands, then one that is illegal, acknowledged and met again; and an event that can't be written.
    m.command(0x30, 0);
    m.command(0x30, 0);
    m.command(0, 0);
    m.w32(GERRORN, m.r32(GERROR));
    assert!(m.read(&plain(), DATA, 1).is_err());
    assert_eq!((m.r32(GERROR), m.r32(GERRORN)), (0b100, 0b001));
    let changed = window(&m);
    for &(reg, info) in SmmuReg::ALL {
        let is_copy = matches!(reg, SmmuReg::SMMU_CR0ACK | SmmuReg::SMMU_IRQ_CTRLACK | SmmuReg::SMMU_GERROR);
        let word = (info.offset / 4) as usize;
        if is_copy || info.access != Access::Ro {
            assert_ne!(changed[word], at_power_on[word], "{} is changed", info.name);
        }
    }
    m.smmu.reset();
    let after = window(&m);
    for (word, (after, at_power_on)) in after.into_iter().zip(at_power_on).enumerate() {
        assert_eq!(after, at_power_on, "{:#x}", 4 * word);
    }
    assert_eq!(m.smmu.mode(), Mode::Bypass);
    for line in [&m.eventq, &m.priq, &m.gerror, &m.cmdq_sync] {
        assert!(!line.level());
    }
}

#[test]
fn counters_stay_over_a_reset() {
    let (m, _) = bench(0, &[]);
    assert!(m.read(&process(), VA, 1).is_ok());
    assert!(m.read(&process(), 0x5000, 1).is_err());
    m.command(0xff, 0);
    let before = m.smmu.stats();
    m.smmu.reset();
    assert_eq!(m.smmu.stats(), before);
    assert!(before.walks > 0 && before.aborts > 0 && before.illegal_commands > 0);
}

/// What a stall waits for does not matter: a recorded one for its answer, one without a record for space in the queue, one
/// that a plan delays for its time.
#[test]
fn stalled_access_is_aborted_by_a_reset_and_nothing_is_recorded() {
    let delay = (FaultPoint::SmmuStall, 1, FaultAction::Delay { delay: 1000 });
    for (name, script, cr0) in [
        ("recorded", None, SMMUEN | EVENTQEN | CMDQEN),
        ("not recorded yet", None, SMMUEN | CMDQEN),
        ("delayed", Some(delay), SMMUEN | EVENTQEN | CMDQEN),
    ] {
        let (m, _) = bench(CD_S, script.as_slice());
        m.enable(cr0);
        let who = process();
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let access = scope.spawn(|| m.read(&who, 0x5000, 1));
            m.until(|| who.waiter.is_waiting());
            let prod = m.r32(EVENTQ_PROD);
            assert_eq!(prod, u32::from(name == "recorded"));
            let record = m.dword(EVENTQ + 32 * u64::from(prod));
            m.smmu.reset();
            assert_eq!(result(&who, access), aborted(0x5000), "{name}");
            assert_eq!(m.alarms.next_ns(), None, "{name}");
            advance(&m, 1000);
            assert_eq!((m.r32(EVENTQ_PROD), m.dword(EVENTQ + 32 * u64::from(prod))), (0, record), "{name}");
        });
        let snapshot = m.smmu.stats();
        assert_eq!((snapshot.unanswered_stalls, snapshot.aborts), (0, 1), "{name}");
    }
}

#[test]
fn delayed_stall_is_aborted_by_the_end_of_translation() {
    let delay = FaultAction::Delay { delay: 1000 };
    let (m, _) = bench(CD_S, &[(FaultPoint::SmmuStall, 1, delay)]);
    let who = process();
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&who, DATA, 1));
        m.until(|| who.waiter.is_waiting());
        m.enable(CMDQEN);
        assert_eq!(result(&who, access), aborted(DATA), "it does not pass untranslated");
    });
}

/// The answer is there before the reset, but the device's thread sees it after: untranslated, the access would reach RAM.
#[test]
fn access_that_is_retried_after_a_reset_is_aborted() {
    let (m, _) = bench(CD_S, &[]);
    m.put(DATA, &[0x11]);
    for round in 0..100 {
        let who = process();
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let access = scope.spawn(|| match round % 2 {
                0 => m.write(&who, DATA, &[0x22]),
                _ => m.smmu.pin(&who, Iova(DATA), 1, Dir::Write).map(drop),
            });
            let stag = m.await_events(1)[0][1] as u16;
            m.resume(SID, stag, true);
            m.smmu.reset();
            assert_eq!(result(&who, access), aborted(DATA));
        });
        assert_eq!(m.dword(DATA), 0x11);
        set_up_again(&m);
        m.contexts(SID);
    }
}

/// The same for an access that a reset finds in the middle of a piece: the last of its pages is looked up when translation
/// is off already.
#[test]
fn access_that_a_reset_finds_between_two_pages_is_aborted_at_the_second() {
    let (m, root) = bench(0, &[]);
    m.map(root, VA + 0x1000, DATA + 0x2000, USER_RW);
    m.map(root, VA + 0x2000, DATA + 0x5000, USER_RW);
    let copies = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let access = scope.spawn(|| {
            let who = process();
            // The thread remembers the first two pages.
            m.write(&who, VA, &[0; 0x2000]).unwrap();
            let tx = Transaction::untranslated(&who, VA, true);
            m.smmu.access_in_pieces(&who, tx, 0x3000, m.smmu.inflight.enter(), |pa, _| {
                copies.lock().unwrap().push(pa);
                m.until(|| m.smmu.mode() != Mode::Translate);
                Ok(())
            })
        });
        m.until(|| !copies.lock().unwrap().is_empty());
        m.smmu.reset();
        assert_eq!(access.join().unwrap(), aborted(VA + 0x2000));
    });
    assert_eq!(*copies.lock().unwrap(), [Pa(DATA), Pa(DATA + 0x2000)]);
}

/// The same for an access that is made piece by piece.
#[test]
fn long_access_does_not_go_on_untranslated_after_a_reset() {
    let m = Bench::new();
    let root = m.process(0);
    // Each address is one of RAM too, 8 MiB below the place that it is translated to.
    let (len, block) = (8u64 << 20, 2u64 << 20);
    for n in 0..len / block {
        let leaf = (DATA + 0x80_0000 + block * n) | USER_RW | 1;
        m.map_at(Granule::K4, 48, 2, root, DATA + block * n, leaf);
    }
    let data = vec![0x22; len as usize];
    for _ in 0..20 {
        m.ram.write(Pa(DATA), &vec![0x11; len as usize]).unwrap();
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let before = m.smmu.stats();
            let access = scope.spawn(|| m.write(&process(), DATA, &data));
            m.until(|| m.smmu.stats().tlb_hits + m.smmu.stats().walks > before.tlb_hits + before.walks);
            m.smmu.reset();
            let _ = access.join().unwrap();
        });
        let mut found = vec![0; len as usize];
        m.ram.read(Pa(DATA), &mut found).unwrap();
        assert!(found.iter().all(|&byte| byte == 0x11));
        m.set_up(4);
        m.enable(SMMUEN | EVENTQEN | CMDQEN);
        m.contexts(SID);
    }
}

#[test]
fn nothing_that_was_cached_before_a_reset_is_used_after_it() {
    let (m, _) = bench(0, &[]);
    let who = process();
    assert!(m.write(&who, VA, &[1; 8]).is_ok());
    // Another context for the process, and no command that invalidates.
    let other = m.table(4096);
    m.map(other, VA, DATA + 0x1000, USER_RW);
    m.smmu.reset();
    // Untranslated: neither what the thread remembers nor the TLB has a say.
    assert_eq!(m.write(&who, VA, &[2; 8]), aborted(VA));
    assert!(m.write(&who, DATA + 0x2000, &[3; 8]).is_ok());
    m.put(CDTAB + 64 * u64::from(PASID), &[CD_D0, other, 0, 0xff]);
    set_up_again(&m);
    m.put(STRTAB + 64 * u64::from(SID), &[6 << 59 | CDTAB | 5 << 1 | 1, 0xd6]);
    assert!(m.write(&who, VA, &[4; 8]).is_ok());
    let words = [0, 0x1000, 0x2000].map(|offset| m.dword(DATA + offset) as u8);
    assert_eq!(words, [1, 4, 3]);
}

#[test]
fn answer_with_an_old_stag_finds_nothing_after_a_reset() {
    let ((m, _), who) = (bench(CD_S, &[]), process());
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&who, 0x5000, 1));
        let stag = m.await_events(1)[0][1] as u16;
        m.smmu.reset();
        assert_eq!(result(&who, access), aborted(0x5000));
        set_up_again(&m);
        m.resume(SID, stag, true);
        m.sync();
        assert_eq!((m.active_errors(), m.smmu.stats().unanswered_stalls), (0, 0));
    });
}

#[test]
fn answers_that_a_plan_delays_find_nothing_after_a_reset_though_their_stag_is_in_use_again() {
    for action in [FaultAction::Delay { delay: 1000 }, FaultAction::AfterUnbind] {
        let (m, root) = bench(CD_S, &[(FaultPoint::SmmuResume, 1, action)]);
        let who = process();
        thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let access = scope.spawn(|| m.read(&who, 0x5000, 1));
            let old = m.await_events(1)[0][1] as u16;
            m.resume(SID, old, true);
            m.smmu.reset();
            assert_eq!(result(&who, access), aborted(0x5000));
            set_up_again(&m);
            m.process(CD_S);
            let access = scope.spawn(|| m.read(&process(), 0x5000, 1));
            let new = m.await_events(1)[0][1] as u16;
            assert_eq!(new, old);
            advance(&m, 1000);
            m.cd(PASID, &[0]);
            assert!(m.smmu.state().stalls.recorded(SID, new).is_some(), "{action:?}");
            m.cd(PASID, &[CD_D0 | CD_S, root, 0, 0xff]);
            m.map(root, 0x5000, DATA, USER_RW);
            m.resume(SID, new, true);
            assert!(access.join().unwrap().is_ok());
        });
    }
}

#[test]
fn page_responses_that_a_plan_delays_are_not_sent_after_a_reset() {
    for action in [FaultAction::Delay { delay: 1000 }, FaultAction::AfterUnbind] {
        let (m, _) = bench(0, &[(FaultPoint::SmmuPageResponse, 1, action)]);
        let endpoint = m.endpoint();
        let (tag, address, index) = (process().tag, Iova(VA), PrgIndex::new(3));
        m.smmu.request_page(&PageRequest { tag, address, read: true, write: false, last: true, index });
        let answer =
            || m.command(u64::from(SID) << 32 | u64::from(PASID) << 12 | 1 << 11 | 0x41, 2 << 12 | 3);
        answer();
        m.smmu.reset();
        set_up_again(&m);
        advance(&m, 1000);
        m.cd(PASID, &[0]);
        assert_eq!(*endpoint.responses.lock().unwrap(), [], "{action:?}");
        answer();
        let pasid = Pasid::new(PASID);
        let response = PageResponse { pasid, index, code: PageResponseCode::Success };
        assert_eq!(*endpoint.responses.lock().unwrap(), [response], "endpoints stay attached");
    }
}

#[test]
fn invalidations_of_before_a_reset_are_neither_waited_for_nor_taken_for_later_ones() {
    let (m, _) = bench(0, &[]);
    let endpoint = m.endpoint();
    endpoint.is_prompt.store(false, Ordering::Relaxed);
    let atc_inv = || m.command(u64::from(SID) << 32 | 0x40, 52);
    let tag = |nth: usize| endpoint.invalidations.lock().unwrap()[nth].1;
    atc_inv();
    m.command(0x46, 0);
    assert_eq!(m.r32(CMDQ_CONS), m.r32(CMDQ_PROD) - 1, "CMD_SYNC waits");
    m.smmu.reset();
    assert_eq!(m.alarms.next_ns(), None);
    m.alarms.fire();
    set_up_again(&m);
    m.sync();
    atc_inv();
    m.command(0x46, 0);
    m.smmu.invalidate_completed(StreamId(SID), tag(0));
    assert_ne!(m.r32(CMDQ_CONS), m.r32(CMDQ_PROD), "the old completion is not the new one's");
    m.smmu.invalidate_completed(StreamId(SID), tag(1));
    assert_eq!((m.r32(CMDQ_CONS), m.active_errors()), (m.r32(CMDQ_PROD), 0));
}

/// Two device threads translate in a loop, and two stall. After each reset nothing is written through what was there before, and
/// nothing is left to be answered.
#[test]
fn reset_while_other_threads_translate_ends_and_leaves_nothing() {
    let (m, _) = bench(CD_S, &[]);
    let (done, translated) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let _end = Raised(&done);
        for fill in [0x11u8, 0x22] {
            let (m, done, translated) = (&m, &done, &translated);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // Untranslated, this address is not in memory.
                    assert_eq!(m.write(&process(), 0x5000, &[fill]), aborted(0x5000));
                }
            });
            scope.spawn(move || {
                let (who, page) = (process(), [fill; 4096]);
                while !done.load(Ordering::Relaxed) {
                    match m.write(&who, VA, &page) {
                        Ok(()) => _ = translated.fetch_add(1, Ordering::Relaxed),
                        Err(fault) => assert_eq!(fault, DmaFault::Aborted(Iova(VA))),
                    }
                }
            });
        }
        let mark = [0xee; 4096];
        for round in 0..300 {
            let before = translated.load(Ordering::Relaxed);
            m.until(|| translated.load(Ordering::Relaxed) != before);
            m.smmu.reset();
            assert_eq!(m.smmu.state().stalls.recorded_count(), 0, "round {round}");
            m.ram.write(Pa(DATA), &mark).unwrap();
            thread::yield_now();
            let mut found = [0; 4096];
            m.ram.read(Pa(DATA), &mut found).unwrap();
            assert_eq!(found, mark, "round {round}");
            assert_eq!((m.r32(EVENTQ_PROD), m.active_errors()), (0, 0), "round {round}");
            m.set_up(4);
            m.contexts(SID);
            m.enable(SMMUEN | EVENTQEN | CMDQEN);
        }
        done.store(true, Ordering::Relaxed);
        m.smmu.reset();
    });
    let stats = m.smmu.stats();
    assert_eq!(stats.unanswered_stalls, 0);
    assert!(stats.stalls > 0);
}

/// An endpoint whose invalidation takes until the test says so.
struct SlowEndpoint {
    smmu: Weak<Smmu>,
    began: mpsc::SyncSender<()>,
    goes_on: Mutex<mpsc::Receiver<()>>,
}

impl AtsEndpoint for SlowEndpoint {
    fn invalidate(&self, _: &InvalidateRequest, tag: InvalidateTag) {
        self.began.send(()).unwrap();
        self.goes_on.lock().unwrap().recv().unwrap();
        self.smmu.upgrade().unwrap().invalidate_completed(StreamId(SID), tag);
    }

    fn page_response(&self, _: &PageResponse) {}
}

#[test]
fn quiesce_returns_when_no_command_is_being_executed() {
    let (m, _) = bench(0, &[]);
    let (began, has_begun) = mpsc::sync_channel(1);
    let (go_on, goes_on) = mpsc::channel();
    let endpoint: Arc<dyn AtsEndpoint> =
        Arc::new(SlowEndpoint { smmu: Arc::downgrade(&m.smmu), began, goes_on: Mutex::new(goes_on) });
    m.smmu.attach(StreamId(SID), Arc::downgrade(&endpoint));
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| m.command(u64::from(SID) << 32 | 0x40, 52));
        has_begun.recv().unwrap();
        let quiesced = scope.spawn(|| {
            m.smmu.quiesce();
            is_done.load(Ordering::SeqCst)
        });
        for _ in 0..1000 {
            thread::yield_now();
        }
        is_done.store(true, Ordering::SeqCst);
        go_on.send(()).unwrap();
        assert!(quiesced.join().unwrap(), "the command was still being executed");
    });
    m.smmu.resume();
    m.sync();
}
