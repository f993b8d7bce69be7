//! The cache with an agent and an untranslated way that the test plays.

mod faults;
mod timeline;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hw::ats::{AtsTranslation, PageRequest, PageResponseCode, PrgIndex};
use hw::regmap::{RegisterInfo, RegisterMap};
use hw::schedule::Threads;
use hw::{DmaTag, ManualAlarms, ManualClock, Pasid, Ram};
use tcache::Access;

use super::*;
use crate::pci::caps::{ats, express, page_request};
use crate::pci::{ConfigSpace, Identity, caps::PortType};

const RAM: u64 = 0x4000_0000;
const STREAM: StreamId = StreamId(8);
const ATS: u16 = 0x100;
const PRI: u16 = 0x108;

/// Log2 of the range, physical address, readable, writable.
type Page = (u8, u64, bool, bool);

/// Address spaces, and what the function has sent.
struct Agent {
    ram: Arc<Ram>,
    pages: Mutex<HashMap<(Option<u32>, u64), Page>>,
    refusal: Mutex<Option<AtsRefusal>>,
    asked: Mutex<Vec<TranslationRequest>>,
    requests: Mutex<Vec<PageRequest>>,
    completed: Mutex<Vec<InvalidateTag>>,
    /// Untranslated accesses: address and length.
    untranslated: Mutex<Vec<(u64, usize)>>,
    inflight: Inflight<()>,
    /// Happens once when a translated read arrives, before it is counted in.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Translated reads wait while this is set; the second is whether one does.
    gate: Mutex<(bool, bool)>,
    opened: Condvar,
}

impl Agent {
    fn count_in(&self, from: Stamp<'_>) -> Result<Access<'_, ()>, TranslatedFault> {
        let access = self.inflight.hold();
        if from.is_good() { Ok(access) } else { Err(TranslatedFault::OutOfDate) }
    }
}

impl AtsPort for Agent {
    fn attach(&self, stream: StreamId, _endpoint: Weak<dyn AtsEndpoint>) {
        assert_eq!(stream, STREAM);
    }

    fn request_translation(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        self.asked.lock().unwrap().push(*request);
        if let Some(refusal) = *self.refusal.lock().unwrap() {
            return Err(refusal);
        }
        let pages = self.pages.lock().unwrap();
        let key = (request.tag.pasid.map(Pasid::get), request.address.0 >> 12);
        let (size_log2, pa, read, write) = pages.get(&key).copied().unwrap_or((12, 0, false, false));
        Ok(AtsTranslation {
            address: Pa(pa),
            size_log2,
            read,
            write: write && !request.no_write,
            execute: false,
            privileged: false,
            global: false,
            untranslated_only: false,
        })
    }

    fn read_translated_if(
        &self,
        _: StreamId,
        at: Pa,
        out: &mut [u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        let _access = self.count_in(from)?;
        let mut gate = self.gate.lock().unwrap();
        gate.1 = gate.0;
        drop(self.opened.wait_while(gate, |gate| gate.0).unwrap());
        Ok(self.ram.read(at, out).map_err(|_| DmaFault::Aborted(Iova(at.0)))?)
    }

    fn write_translated_if(
        &self,
        _: StreamId,
        at: Pa,
        data: &[u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        let _access = self.count_in(from)?;
        Ok(self.ram.write(at, data).map_err(|_| DmaFault::Aborted(Iova(at.0)))?)
    }

    fn await_translated(&self) {
        self.inflight.wait();
    }

    fn request_page(&self, request: &PageRequest) {
        self.requests.lock().unwrap().push(*request);
    }

    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag) {
        assert_eq!(stream, STREAM);
        self.completed.lock().unwrap().push(tag);
    }
}

impl DmaPort for Agent {
    fn read(&self, _: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.untranslated.lock().unwrap().push((at.0, out.len()));
        out.fill(0xee);
        Ok(())
    }

    fn write(&self, _: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.untranslated.lock().unwrap().push((at.0, data.len()));
        Ok(())
    }

    fn pin(&self, _: &Requester, at: Iova, _: usize, _: Dir) -> Result<Pinned<'_>, DmaFault> {
        Err(DmaFault::Aborted(at))
    }
}

struct Bench {
    agent: Arc<Agent>,
    config: Arc<ConfigSpace>,
    clock: Arc<ManualClock>,
    alarms: Arc<ManualAlarms>,
    atc: Arc<Atc>,
}

impl Bench {
    /// ATS and, with credits, page requests enabled.
    fn new(credits: u32) -> Self {
        Self::with_faults(credits, |_, _| Faults::default())
    }

    /// As [`Self::new`], and what happens is told.
    fn traced(credits: u32, trace: hw::Trace) -> Self {
        Self::with(credits, |_, _| Faults::default(), trace)
    }

    fn with_faults(credits: u32, faults: impl FnOnce(Arc<dyn Clock>, Arc<dyn Alarms>) -> Faults) -> Self {
        Self::with(credits, faults, hw::Trace::default())
    }

    fn with(
        credits: u32,
        faults: impl FnOnce(Arc<dyn Clock>, Arc<dyn Alarms>) -> Faults,
        trace: hw::Trace,
    ) -> Self {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let ram = Arc::new(Ram::new(&[(Pa(RAM), 1 << 20)]).unwrap());
        let threads: Arc<dyn Scheduler> = Arc::new(Threads);
        let agent = Arc::new(Agent {
            ram,
            pages: Mutex::default(),
            refusal: Mutex::default(),
            asked: Mutex::default(),
            requests: Mutex::default(),
            completed: Mutex::default(),
            untranslated: Mutex::default(),
            inflight: Inflight::new(&threads),
            meanwhile: Mutex::default(),
            gate: Mutex::default(),
            opened: Condvar::new(),
        });
        let identity =
            Identity { vendor: 1, device: 2, class: 0, revision: 0, subsystem_vendor: 0, subsystem: 0 };
        let config = ConfigSpace::builder(identity)
            .express(PortType::RcIntegratedEndpoint)
            .ats()
            .page_requests(64)
            .build();
        let config = Arc::new(config);
        let (port, to_agent) = (agent.clone(), agent.clone());
        let config_space = config.clone();
        let wiring = AtcWiring {
            stream: STREAM,
            config: config_space,
            port,
            agent: to_agent,
            clock: clock.clone(),
            alarms: alarms.clone(),
            scheduler: threads,
            faults: faults(clock.clone(), alarms.clone()),
            trace,
            errors: hw::GuestErrors::default(),
        };
        let m = Self { agent, config, clock, alarms, atc: Atc::new(wiring) };
        m.set(ATS, ats::CONTROL, 0x8000);
        if credits != 0 {
            m.set(PRI, page_request::ALLOCATION, credits);
            m.set(PRI, page_request::CONTROL, 1);
        }
        m
    }

    fn set<R: RegisterMap>(&self, base: u16, reg: R, value: u32) {
        let RegisterInfo { offset, bytes, .. } = reg.info();
        let effects = self.config.write(u64::from(base) + offset, &value.to_le_bytes()[..*bytes as usize]);
        self.atc.config_written(&effects);
        if effects.reset {
            self.atc.reset();
        }
    }

    fn pass_ns(&self, ns: u64) {
        self.clock.advance_ns(ns);
        self.alarms.ring(self.clock.now_ns());
    }

    /// Answers requests with Success until the access makes a pause: how many, and how long the pause is.
    fn succeed_until_pause(&self, access: &Reader<'_>) -> (usize, Option<u64>) {
        let mut requests = 0;
        let mut pause = None;
        until(|| {
            for request in std::mem::take(&mut *self.agent.requests.lock().unwrap()) {
                requests += 1;
                self.respond(Some(1), request.index, SUCCESS);
            }
            pause = self.alarms.next_ns().map(|at| at - self.clock.now_ns());
            pause.is_some() || access.is_finished()
        });
        (requests, pause)
    }

    fn map(&self, pasid: u32, va: u64, pa: u64, write: bool) {
        self.agent.pages.lock().unwrap().insert((Some(pasid), va >> 12), (12, pa, true, write));
    }

    fn unmap(&self, pasid: u32, va: u64) {
        self.agent.pages.lock().unwrap().remove(&(Some(pasid), va >> 12));
    }

    fn read(&self, who: &Requester, at: u64, len: usize) -> Result<Vec<u8>, DmaFault> {
        let mut out = vec![0; len];
        self.atc.read(who, Iova(at), &mut out).map(|()| out)
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.agent.asked.lock().unwrap()).len()
    }

    fn untranslated(&self) -> Vec<(u64, usize)> {
        std::mem::take(&mut *self.agent.untranslated.lock().unwrap())
    }

    fn invalidate(&self, pasid: Option<u32>, at: u64, size_log2: u8) {
        let pasid = pasid.and_then(Pasid::new);
        let request = InvalidateRequest { pasid, global: false, address: Iova(at), size_log2 };
        self.atc.invalidate(&request, InvalidateTag(7));
        assert_eq!(self.agent.completed.lock().unwrap().pop(), Some(InvalidateTag(7)));
    }

    /// Waits until so many page requests have been sent; taken out.
    fn await_requests(&self, count: usize) -> Vec<PageRequest> {
        until(|| self.agent.requests.lock().unwrap().len() >= count);
        std::mem::take(&mut *self.agent.requests.lock().unwrap())
    }

    fn respond(&self, pasid: Option<u32>, index: PrgIndex, code: PageResponseCode) {
        self.atc.page_response(&PageResponse { pasid: pasid.and_then(Pasid::new), index, code });
    }

    fn status(&self) -> u32 {
        self.config.register(PRI, page_request::STATUS)
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "never came");
        thread::yield_now();
    }
}

fn process(pasid: u32) -> Requester {
    Requester::new(DmaTag::process(STREAM, Pasid::new(pasid).unwrap()))
}

type Reader<'s> = ScopedJoinHandle<'s, Result<Vec<u8>, DmaFault>>;

fn reader<'s>(m: &'s Bench, scope: &'s Scope<'s, '_>, who: &Requester, at: u64, len: usize) -> Reader<'s> {
    let who = who.clone();
    scope.spawn(move || m.read(&who, at, len))
}

fn aborted<T>(at: u64) -> Result<T, DmaFault> {
    Err(DmaFault::Aborted(Iova(at)))
}

const SUCCESS: PageResponseCode = PageResponseCode::Success;

#[test]
fn without_ats_nothing_is_asked_and_everything_goes_untranslated() {
    let m = Bench::new(0);
    m.set(ATS, ats::CONTROL, 0);
    assert_eq!(m.read(&process(1), 0x1800, 0x3000), Ok(vec![0xee; 0x3000]));
    assert_eq!((m.asked(), m.untranslated()), (0, vec![(0x1800, 0x3000)]));
}

#[test]
fn second_access_hits() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM + 0x5000, true);
    m.agent.ram.write(Pa(RAM + 0x5010), b"data").unwrap();
    for _ in 0..3 {
        assert_eq!(m.read(&process(1), 0x1010, 4).as_deref(), Ok(&b"data"[..]));
    }
    assert_eq!((m.asked(), m.untranslated()), (1, vec![]));
    assert_eq!((m.atc.totals().hits, m.atc.totals().translation_requests), (2, 1));
}

#[test]
fn write_after_read_asks_for_write_permission() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    m.read(&process(1), 0x1000, 1).unwrap();
    m.atc.write(&process(1), Iova(0x1000), &[1]).unwrap();
    m.atc.write(&process(1), Iova(0x1000), &[2]).unwrap();
    let asked: Vec<bool> = m.agent.asked.lock().unwrap().iter().map(|request| request.no_write).collect();
    assert_eq!(asked, [true, false]);
    assert_eq!(m.read(&process(1), 0x1000, 1), Ok(vec![2]));
}

#[test]
fn one_translation_serves_its_whole_range() {
    let m = Bench::new(0);
    for page in 0x200..0x210 {
        m.agent.pages.lock().unwrap().insert((Some(1), page), (16, RAM + 0x1_0000, true, true));
    }
    m.agent.ram.write(Pa(RAM + 0x1_fff8), b"the last").unwrap();
    assert_eq!(m.read(&process(1), 0x20_f000, 1), Ok(vec![0]));
    assert_eq!(m.read(&process(1), 0x20_fff8, 8).as_deref(), Ok(&b"the last"[..]));
    m.read(&process(1), 0x20_0000, 0x1_0000).unwrap();
    assert_eq!(m.asked(), 1);
}

#[test]
fn missing_page_alone_goes_untranslated() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    m.map(1, 0x3000, RAM, true);
    m.read(&process(1), 0x1000, 0x3000).unwrap();
    assert_eq!(m.untranslated(), [(0x2000, 0x1000)]);
}

#[test]
fn permission_that_is_not_granted_goes_untranslated() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, false);
    m.atc.write(&process(1), Iova(0x1004), &[1; 8]).unwrap();
    assert_eq!(m.untranslated(), [(0x1004, 8)]);
}

#[test]
fn unsupported_request_ends_the_use_of_ats_until_it_is_enabled_again() {
    let m = Bench::new(0);
    *m.agent.refusal.lock().unwrap() = Some(AtsRefusal::UnsupportedRequest);
    m.read(&process(1), 0x1000, 1).unwrap();
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!((m.asked(), m.untranslated().len()), (1, 2));
    *m.agent.refusal.lock().unwrap() = None;
    m.map(1, 0x1000, RAM, true);
    m.set(ATS, ats::CONTROL, 0);
    m.set(ATS, ats::CONTROL, 0x8000);
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!((m.asked(), m.untranslated()), (1, vec![]));
}

#[test]
fn unsupported_request_ends_the_use_of_what_is_remembered_too() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    m.read(&process(1), 0x1000, 1).unwrap();
    m.read(&process(1), 0x1000, 1).unwrap();
    *m.agent.refusal.lock().unwrap() = Some(AtsRefusal::UnsupportedRequest);
    m.read(&process(1), 0x2000, 1).unwrap();
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!(m.untranslated(), [(0x2000, 1), (0x1000, 1)]);
}

#[test]
fn completer_abort_aborts_the_access() {
    let m = Bench::new(0);
    *m.agent.refusal.lock().unwrap() = Some(AtsRefusal::CompleterAbort);
    assert_eq!(m.read(&process(1), 0x1008, 1), aborted(0x1008));
    assert_eq!(m.untranslated(), []);
}

#[test]
fn fault_at_a_translated_address_is_told_at_the_untranslated_one() {
    let m = Bench::new(0);
    m.map(1, 0x1000, 0x1000, true);
    assert_eq!(m.read(&process(1), 0x1234, 1), aborted(0x1234));
}

#[test]
fn hostile_translations_are_never_kept_or_used() {
    for size_log2 in [0, 11, 63, 64, 255] {
        let m = Bench::new(0);
        m.agent.pages.lock().unwrap().insert((Some(1), 1), (size_log2, u64::MAX, true, true));
        m.read(&process(1), 0x1000, 1).unwrap();
        m.read(&process(1), 0x1000, 1).unwrap();
        assert_eq!((m.asked(), m.untranslated().len()), (2, 2), "{size_log2}");
    }
}

#[test]
fn access_beyond_the_end_of_the_address_space_is_aborted() {
    let m = Bench::new(4);
    m.map(1, !0xfff, RAM, true);
    assert!(m.read(&process(1), u64::MAX - 3, 8).is_err());
    assert_eq!(m.read(&process(1), 0, 0), Ok(vec![]));
}

#[test]
fn invalidation_takes_the_range_of_the_pasid() {
    let m = Bench::new(0);
    for pasid in [1, 2] {
        for page in 0..4 {
            m.map(pasid, page << 12, RAM, true);
            m.read(&process(pasid), page << 12, 1).unwrap();
        }
    }
    m.asked();
    let kept = |pasid| {
        let kept: Vec<bool> = (0..4)
            .map(|page| {
                m.read(&process(pasid), page << 12, 1).unwrap();
                m.asked() == 0
            })
            .collect();
        kept
    };
    m.invalidate(Some(1), 0x2000, 13);
    assert_eq!((kept(1), kept(2)), (vec![true, true, false, false], vec![true; 4]));
    m.invalidate(Some(1), 0, 64);
    assert_eq!((kept(1), kept(2)), (vec![false; 4], vec![true; 4]));
    m.invalidate(None, 0x1000, 12);
    assert!(!kept(2)[1]);
    m.set(ATS, ats::CONTROL, 0);
    m.set(ATS, ats::CONTROL, 0x8000);
    assert_eq!(kept(2), [false; 4]);
    m.set(0x40, express::DEVICE_CONTROL, express::INITIATE_FLR);
    m.set(ATS, ats::CONTROL, 0x8000);
    assert_eq!(kept(2), [false; 4]);
}

#[test]
fn every_range_takes_what_lies_in_it() {
    for size_log2 in 12..=64 {
        let m = Bench::new(0);
        let va = 0x7f12_3456_7000;
        m.map(1, va, RAM, true);
        m.read(&process(1), va, 1).unwrap();
        let start = if size_log2 == 64 { 0 } else { va & u64::MAX << size_log2 };
        m.invalidate(Some(1), start, size_log2);
        m.unmap(1, va);
        m.read(&process(1), va, 1).unwrap();
        assert_eq!(m.untranslated().len(), 1, "{size_log2}");
    }
}

#[test]
fn translation_asked_for_before_an_invalidation_does_not_come_in_after_it() {
    let (translations, age) = (Translations::new(), Age::default());
    let who = process(1).tag;
    let found = Found::of(&AtsTranslation {
        address: Pa(RAM),
        size_log2: 12,
        read: true,
        write: false,
        execute: false,
        privileged: false,
        global: false,
        untranslated_only: false,
    });
    let asked = age.now();
    let all = InvalidateRequest { pasid: who.pasid, global: false, address: Iova(0), size_log2: 64 };
    for request in [all, InvalidateRequest { size_log2: 12, address: Iova(0x1000), ..all }] {
        translations.invalidate(Some(1), &age, &request);
        translations.insert(1, &who, Iova(0x1000), asked, &age, found.unwrap());
        assert_eq!(translations.get(1, &who, Iova(0x1000), Need::Read), None);
    }
    translations.insert(1, &who, Iova(0x1000), age.now(), &age, found.unwrap());
    assert_eq!(translations.get(1, &who, Iova(0x1000), Need::Read), found);
}

/// The invalidation of everything is complete when this access is, which stands before a closed gate, and not before.
fn invalidation_waits_for<'s>(m: &'s Bench, scope: &'s Scope<'s, '_>, access: Reader<'s>) {
    until(|| m.agent.gate.lock().unwrap().1);
    let invalidation = scope.spawn(|| m.invalidate(Some(1), 0, 64));
    for _ in 0..100 {
        thread::yield_now();
        assert!(m.agent.completed.lock().unwrap().is_empty());
    }
    m.agent.gate.lock().unwrap().0 = false;
    m.agent.opened.notify_all();
    invalidation.join().unwrap();
    assert!(access.join().unwrap().is_ok());
}

#[test]
fn invalidation_completes_only_when_no_access_uses_the_old_translation() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    m.agent.gate.lock().unwrap().0 = true;
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        invalidation_waits_for(&m, scope, access);
    });
}

#[test]
fn invalidation_waits_for_an_access_that_uses_what_its_thread_remembers() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    thread::scope(|scope| {
        let access = scope.spawn(|| {
            m.read(&process(1), 0x1000, 1).unwrap();
            m.agent.gate.lock().unwrap().0 = true;
            m.read(&process(1), 0x1000, 1)
        });
        invalidation_waits_for(&m, scope, access);
    });
    assert_eq!(m.atc.totals().hits, 1);
}

#[test]
fn what_a_thread_remembers_is_looked_up_again_if_invalidated_before_its_access_is_counted_in() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    m.agent.ram.write(Pa(RAM), b"old").unwrap();
    m.agent.ram.write(Pa(RAM + 0x1000), b"new").unwrap();
    assert_eq!(m.read(&process(1), 0x1000, 3).as_deref(), Ok(&b"old"[..]));
    m.map(1, 0x1000, RAM + 0x1000, true);
    assert_eq!(m.read(&process(1), 0x1000, 3).as_deref(), Ok(&b"old"[..]), "not invalidated yet");
    let atc = Arc::clone(&m.atc);
    *m.agent.meanwhile.lock().unwrap() = Some(Box::new(move || {
        let all = InvalidateRequest { pasid: None, global: false, address: Iova(0), size_log2: 64 };
        atc.invalidate(&all, InvalidateTag(1));
    }));
    assert_eq!(m.read(&process(1), 0x1000, 3).as_deref(), Ok(&b"new"[..]));
    assert_eq!((m.atc.totals().hits, m.atc.totals().translation_requests), (1, 2));
}

/// The page moves between two frames under two writers. After the invalidation is complete nothing may be written to the
/// old frame: the mapper marks it and looks if the mark stays.
#[test]
fn nothing_is_written_through_an_old_translation_after_its_invalidation() {
    let m = Bench::new(0);
    m.map(1, 0x1000, RAM, true);
    let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for fill in [0x11, 0x22] {
            let (m, done, writes) = (&m, &done, &writes);
            scope.spawn(move || {
                let (who, page) = (process(1), [fill; 4096]);
                while !done.load(Ordering::Relaxed) {
                    m.atc.write(&who, Iova(0x1000), &page).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mark = [0xee; 4096];
        for round in 0..2000u64 {
            let (old, new) = if round % 2 == 0 { (RAM, RAM + 0x1_0000) } else { (RAM + 0x1_0000, RAM) };
            m.map(1, 0x1000, new, true);
            // Alternately the page, the PASID and all.
            match round % 3 {
                0 => m.invalidate(Some(1), 0x1000, 12),
                1 => m.invalidate(Some(1), 0, 64),
                _ => m.invalidate(None, 0x1000, 12),
            }
            let ram = &m.agent.ram;
            ram.write(Pa(old), &mark).unwrap();
            thread::yield_now();
            let mut found = [0; 4096];
            ram.read(Pa(old), &mut found).unwrap();
            if found != mark {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(found, mark, "round {round}");
        }
        until(|| writes.load(Ordering::Relaxed) > 10);
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn capabilities_are_what_drivers_read() {
    let m = Bench::new(0);
    let dword = |at| {
        let mut data = [0; 4];
        m.config.read(at, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(dword(0x100), 0x1081_000f);
    assert_eq!(dword(0x104), 0x8000_0060);
    assert_eq!(dword(0x108), 0x0001_0013);
    assert_eq!(dword(0x10c), 0x8100_0000, "stopped; responses need the PASID");
    assert_eq!((dword(0x110), dword(0x114)), (64, 0));
    m.set(ATS, ats::CONTROL, 0xffff);
    assert_eq!(m.config.register(ATS, ats::CONTROL), 0x801f);
    m.set(PRI, page_request::CONTROL, 0xffff);
    assert_eq!(dword(0x10c), 0x8000_0001);
    m.set(PRI, page_request::CONTROL, 0);
    assert_eq!(dword(0x10c), 0x8100_0000);
}

#[test]
fn missing_page_is_requested_and_the_access_goes_on_after_success() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1008, 4);
        let requests = m.await_requests(1);
        let request = PageRequest {
            tag: process(1).tag,
            address: Iova(0x1000),
            read: true,
            write: false,
            last: true,
            index: requests[0].index,
        };
        assert_eq!(requests, [request]);
        // Nothing that waits for software holds an invalidation up.
        m.invalidate(None, 0, 64);
        m.map(1, 0x1000, RAM, true);
        m.respond(Some(1), request.index, SUCCESS);
        assert_eq!(access.join().unwrap(), Ok(vec![0; 4]));
    });
    assert_eq!((m.status(), m.untranslated()), (0x8000, vec![]));
}

#[test]
fn group_has_the_missing_pages_of_the_access_as_far_as_credits_reach() {
    for (credits, expected) in [(64, 3), (2, 2)] {
        let m = Bench::new(credits);
        // 0x4000 is there: what comes after it is not asked for.
        m.map(1, 0x4000, RAM, true);
        thread::scope(|scope| {
            let access = reader(&m, scope, &process(1), 0x1800, 0x5000);
            let requests = m.await_requests(expected);
            let pages: Vec<_> = requests.iter().map(|request| (request.address.0, request.last)).collect();
            let all = [(0x1000, false), (0x2000, expected == 2), (0x3000, true)];
            assert_eq!(pages, all[..expected]);
            m.respond(Some(1), requests[0].index, PageResponseCode::InvalidRequest);
            assert_eq!(access.join().unwrap(), aborted(0x1800));
        });
    }
}

#[test]
fn access_without_pasid_requests_no_pages() {
    let m = Bench::new(4);
    m.read(&Requester::new(DmaTag::untagged(STREAM)), 0x1000, 1).unwrap();
    assert_eq!(m.untranslated().len(), 1);
}

#[test]
fn without_enable_or_credits_no_pages_are_requested() {
    let m = Bench::new(4);
    m.set(PRI, page_request::ALLOCATION, 0);
    m.read(&process(1), 0x1000, 1).unwrap();
    m.set(PRI, page_request::ALLOCATION, 4);
    m.set(PRI, page_request::CONTROL, 0);
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!(m.untranslated().len(), 2);
}

#[test]
fn failure_stops_the_interface_and_ends_every_access_that_waits() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let accesses: Vec<_> = (1..=3).map(|n| reader(&m, scope, &process(n), 0x1000, 1)).collect();
        let requests = m.await_requests(3);
        // The agent's own failures carry no PASID.
        m.respond(None, requests[0].index, PageResponseCode::ResponseFailure);
        for access in accesses {
            assert_eq!(access.join().unwrap(), aborted(0x1000));
        }
        // The others' responses are ignored.
        m.respond(requests[1].tag.pasid.map(Pasid::get), requests[1].index, SUCCESS);
    });
    assert_eq!(m.status(), 0x8001);
    m.read(&process(1), 0x1000, 1).unwrap();
    assert_eq!(m.untranslated().len(), 1);
    m.set(PRI, page_request::CONTROL, 0);
    m.set(PRI, page_request::CONTROL, 1);
    assert_eq!(m.status(), 0x8000);
}

#[test]
fn unexpected_response_sets_its_flag_and_nothing_else() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        let index = m.await_requests(1)[0].index;
        let wrong = PrgIndex::new(index.get() + 1);
        for (pasid, index) in [(Some(1), wrong), (Some(2), index), (None, index)] {
            m.respond(pasid, index, SUCCESS);
            assert_eq!(m.status(), 0x8002);
            m.set(PRI, page_request::STATUS, 2);
            assert_eq!(m.status(), 0x8000);
        }
        assert!(!access.is_finished());
        m.respond(Some(1), index, PageResponseCode::InvalidRequest);
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
    m.respond(None, PrgIndex::new(9), PageResponseCode::ResponseFailure);
    assert_eq!(m.status(), 0x8002, "a failure of nothing is no failure");
    assert_eq!(m.atc.totals().unexpected_responses, 4);
}

#[test]
fn requester_that_gives_up_sends_a_stop_marker_and_its_answer_may_come_late() {
    let m = Bench::new(1);
    let who = process(1);
    thread::scope(|scope| {
        let access = reader(&m, scope, &who, 0x1000, 1);
        let index = m.await_requests(1)[0].index;
        who.waiter.cancel();
        assert_eq!(access.join().unwrap(), Err(DmaFault::Cancelled));
        assert!(m.await_requests(1)[0].is_stop_marker());
        assert_eq!(m.atc.totals().unanswered_groups, 1);
        // Its credit is still out.
        let next = reader(&m, scope, &process(2), 0x2000, 1);
        until(|| m.asked() != 0);
        assert_eq!(m.agent.requests.lock().unwrap().len(), 0);
        m.respond(Some(1), index, SUCCESS);
        let request = m.await_requests(1)[0];
        assert_eq!(request.tag.pasid, Pasid::new(2));
        m.respond(Some(2), request.index, PageResponseCode::InvalidRequest);
        assert_eq!(next.join().unwrap(), aborted(0x2000));
    });
    assert_eq!(m.status(), 0x8000);
    assert_eq!(m.atc.totals().unanswered_groups, 0);
}

#[test]
fn requester_without_credit_can_give_up() {
    let m = Bench::new(1);
    let who = process(2);
    thread::scope(|scope| {
        let first = reader(&m, scope, &process(1), 0x1000, 1);
        let index = m.await_requests(1)[0].index;
        let second = reader(&m, scope, &who, 0x1000, 1);
        who.waiter.cancel();
        assert_eq!(second.join().unwrap(), Err(DmaFault::Cancelled));
        m.respond(Some(1), index, PageResponseCode::InvalidRequest);
        assert!(first.join().unwrap().is_err());
    });
    assert_eq!(m.agent.requests.lock().unwrap().len(), 0, "nothing was on its way");
}

#[test]
fn success_without_a_page_is_believed_a_bounded_number_of_times_with_pauses_that_grow() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        let (requests, mut pause) = m.succeed_until_pause(&access);
        assert_eq!((requests, pause), (2, Some(10_000)), "the second one at once");
        let mut pauses = Vec::new();
        while let Some(ns) = pause {
            pauses.push(ns);
            // Not a moment before its time.
            m.pass_ns(ns - 1);
            assert_eq!(
                (m.alarms.next_ns(), m.agent.requests.lock().unwrap().len()),
                (Some(m.clock.now_ns() + 1), 0)
            );
            m.pass_ns(1);
            let (requests, next) = m.succeed_until_pause(&access);
            assert_eq!(requests, 1);
            pause = next;
        }
        assert_eq!(pauses[..4], [10_000, 20_000, 40_000, 80_000]);
        assert_eq!(pauses[13..16], [81_920_000, 100_000_000, 100_000_000]);
        assert_eq!((pauses.len(), pauses.iter().sum()), (23, 1_063_830_000_u64));
        assert_eq!(access.join().unwrap(), aborted(0x1000));
    });
}

#[test]
fn page_that_comes_during_a_pause_is_used_without_another_request() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        let (_, pause) = m.succeed_until_pause(&access);
        // Nothing that makes a pause holds an invalidation up.
        m.invalidate(None, 0, 64);
        m.map(1, 0x1000, RAM, true);
        m.pass_ns(pause.unwrap());
        assert_eq!(access.join().unwrap(), Ok(vec![0]));
    });
    assert_eq!((m.agent.requests.lock().unwrap().len(), m.untranslated()), (0, vec![]));
}

#[test]
fn requester_gives_up_during_a_pause_at_once() {
    let m = Bench::new(4);
    let who = process(1);
    thread::scope(|scope| {
        let access = reader(&m, scope, &who, 0x1000, 1);
        m.succeed_until_pause(&access);
        who.waiter.cancel();
        assert_eq!(access.join().unwrap(), Err(DmaFault::Cancelled));
    });
    assert_eq!(m.alarms.next_ns(), None, "no alarm is left over");
    assert_eq!(m.atc.totals().unanswered_groups, 0);
}

#[test]
fn access_whose_requests_are_turned_off_during_a_pause_goes_untranslated() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        let (_, pause) = m.succeed_until_pause(&access);
        m.set(PRI, page_request::CONTROL, 0);
        m.pass_ns(pause.unwrap());
        assert_eq!(access.join().unwrap(), Ok(vec![0xee]));
    });
    assert_eq!(m.untranslated(), [(0x1000, 1)]);
}

#[test]
fn stopped_is_told_when_the_last_answer_is_there() {
    let m = Bench::new(4);
    thread::scope(|scope| {
        let access = reader(&m, scope, &process(1), 0x1000, 1);
        let index = m.await_requests(1)[0].index;
        m.set(PRI, page_request::CONTROL, 0);
        assert_eq!(m.status(), 0x8000);
        m.map(1, 0x1000, RAM, true);
        m.respond(Some(1), index, SUCCESS);
        assert!(access.join().unwrap().is_ok());
    });
    assert_eq!(m.status(), 0x8100);
}

#[test]
fn reset_leaves_nothing_cached_asked_for_or_owed_and_sends_no_message() {
    let m = Bench::new(8);
    for round in 0..100 {
        m.map(1, 0x1000, RAM, true);
        m.read(&process(1), 0x1000, 1).unwrap();
        let who = process(1);
        thread::scope(|scope| {
            let waits = reader(&m, scope, &who, 0x8000, 1);
            m.await_requests(1);
            // As the function's reset does: its configuration space, then its work, then the cache.
            m.config.reset();
            who.waiter.cancel();
            assert_eq!(waits.join().unwrap(), Err(DmaFault::Cancelled));
            m.atc.reset();
        });
        assert_eq!(m.agent.requests.lock().unwrap().len(), 0, "round {round}: no stop marker");
        assert_eq!((m.atc.totals().unanswered_groups, m.alarms.next_ns()), (0, None));
        assert_eq!(m.status(), 0x8100, "as after power-on");
        m.set(ATS, ats::CONTROL, 0x8000);
        m.set(PRI, page_request::ALLOCATION, 8);
        m.set(PRI, page_request::CONTROL, 1);
        m.unmap(1, 0x1000);
        m.asked();
        thread::scope(|scope| {
            let waits = reader(&m, scope, &process(1), 0x1000, 1);
            let request = m.await_requests(1)[0];
            m.respond(Some(1), request.index, PageResponseCode::InvalidRequest);
            assert_eq!(waits.join().unwrap(), aborted(0x1000), "it is looked up anew");
        });
    }
    assert_eq!(m.atc.totals().page_requests, 200, "counts go on");
}

#[test]
fn resets_end_what_waits_for_pages() {
    for how in [
        |m: &Bench| m.set(PRI, page_request::CONTROL, page_request::RESET),
        |m: &Bench| m.set(0x40, express::DEVICE_CONTROL, express::INITIATE_FLR),
    ] {
        let m = Bench::new(1);
        thread::scope(|scope| {
            let access = reader(&m, scope, &process(1), 0x1000, 1);
            let index = m.await_requests(1)[0].index;
            how(&m);
            assert_eq!(access.join().unwrap(), aborted(0x1000));
            assert_eq!(m.status(), 0x8100);
            m.set(PRI, page_request::CONTROL, 1);
            m.respond(Some(1), index, SUCCESS);
            assert_eq!(m.status(), 0x8002, "that comes too late");
        });
    }
}
