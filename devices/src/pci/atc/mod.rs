//! The address translation cache of a function: a DMA port that asks a translation agent first (PCIe Base, chapter 10).
//!
//! While ATS is enabled in configuration space, an access looks in the cache, and for what is not there sends a
//! Translation Request. With a translation it goes to memory translated. Without one it becomes an untranslated
//! access, which may stall in the agent, or, where the function has the page request interface and it is on, asks for
//! the pages and tries again. An access that hits takes no lock.
//!
//! Accesses are counted in from look-up to last byte, in bounded pieces. An invalidation begins a new age, takes entries
//! out, and is complete when the accesses counted in before are out; none waits for software while it is counted in. What
//! a thread remembers it uses without being counted in here: the agent counts such an access in, asks if the age is still
//! that of the look-up, and is waited for too.
//!
//! Locks: the one of page requests comes after a waiter's; the configuration space's is a leaf. None is held while the
//! agent is called. Deliberately absent: STUs above 4 KiB (the agent's ranges are exact), translated pins.

mod cache;
mod pages;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, InvalidateRequest, InvalidateTag, PageResponse, Stamp, TranslatedFault,
    TranslationRequest,
};
use hw::fault::{Delays, FaultAction, FaultPoint, Occasion};
use hw::timer::Later;
use hw::trace::{Ending, Slice, SliceKind};
use hw::{
    Alarms, Clock, Dir, DmaFault, DmaPort, Faults, GuestErrors, Iova, Pa, Pinned, Requester, RestoreError,
    Scheduler, StreamId, Timer, TimerTarget, Trace, Track,
};
use serde::{Deserialize, Serialize};
use tcache::{Age, AtomicCounter, Inflight, Memo};

use self::cache::{Found, Need, Translations};
use self::pages::{Answer, Pages, SavedPages};
use super::config::{ConfigSpace, Effects, Gates};

/// Bytes after which an access lets invalidations pass.
const PIECE_BYTES: u64 = 64 * 1024;

/// What lies in one page of this size lies in one page.
const SMALLEST_PAGE: u64 = 0x1000;

/// Pages in one group of requests.
const GROUP_PAGES: u32 = 8;

/// How often one page is asked for again after a Success that brought no page, before its access is aborted: software
/// that says Success each time and maps nothing does not hold the function. With the pauses it is about a second.
const MOST_ROUNDS: u32 = 24;

/// Guest time before a page is asked for again, in nanoseconds. The first time it is at once: the page may just have been
/// taken away again. Then the agent may have answered without software, as it does while its queue has overflowed
/// (IHI 0070, 8.2): the pauses, each twice the one before, give software time to come for the queue.
const fn pause_before_ns(round: u32) -> u64 {
    const FIRST: u64 = 10_000;
    const LONGEST: u64 = 100_000_000;
    let Some(doublings) = round.checked_sub(1) else { return 0 };
    let pause = if doublings < 32 { FIRST << doublings } else { LONGEST };
    if pause < LONGEST { pause } else { LONGEST }
}

/// What a function gives its ATC.
pub struct AtcWiring {
    /// The function's requester ID.
    pub stream: StreamId,
    /// The function's configuration space, with the ATS capability and perhaps the page request interface.
    pub config: Arc<ConfigSpace>,
    /// The way of untranslated accesses.
    pub port: Arc<dyn DmaPort>,
    /// The translation agent.
    pub agent: Arc<dyn AtsPort>,
    /// Guest time: how long to wait before a page is asked for again.
    pub clock: Arc<dyn Clock>,
    /// Who calls when that time is over.
    pub alarms: Arc<dyn Alarms>,
    /// What runs those who make accesses.
    pub scheduler: Arc<dyn Scheduler>,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Who takes what happens for a timeline.
    pub trace: Trace,
    /// Where mistakes of software are counted.
    pub errors: GuestErrors,
}

#[derive(Debug, Default)]
struct Tallies {
    hits: AtomicCounter,
    requests: AtomicCounter,
    /// The thread's latest translations.
    memo: Memo,
}

/// An invalidation's tag, as it is saved.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct SavedTag(u64);

impl From<SavedTag> for InvalidateTag {
    fn from(tag: SavedTag) -> Self {
        Self(tag.0)
    }
}

/// The state of an ATC, as it is saved with that of its function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AtcState {
    /// The agent does not serve the function as long as the services stay enabled.
    is_refused: bool,
    /// Tags of invalidations whose completion a fault plan delays.
    delayed_completions: Vec<Later<SavedTag>>,
    pages: SavedPages,
}

/// What an ATC has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtcTotals {
    /// Pieces of accesses whose translation was in the cache.
    pub hits: u64,
    /// Translation Requests: the misses.
    pub translation_requests: u64,
    /// Invalidate Requests.
    pub invalidations: u64,
    /// Page Requests, stop markers not counted.
    pub page_requests: u64,
    /// Times that an access waited for a credit before its request.
    pub credit_waits: u64,
    /// PRG Responses.
    pub page_responses: u64,
    /// PRG Responses to nothing that was asked.
    pub unexpected_responses: u64,
    /// Groups of page requests to which software owes an answer now.
    pub unanswered_groups: u64,
}

/// The cache, as a port and as an endpoint.
pub struct Atc {
    stream: StreamId,
    gates: Arc<Gates>,
    port: Arc<dyn DmaPort>,
    agent: Arc<dyn AtsPort>,
    pages: Pages,
    translations: Translations,
    age: Age,
    inflight: Inflight<Tallies>,
    /// The enabling of ATS under which the agent refused to serve.
    refused: AtomicU32,
    invalidations: AtomicU64,
    timer: Arc<Timer>,
    faults: Faults,
    trace: Trace,
    /// Invalidations whose completions a fault plan delays.
    delayed: Mutex<Vec<InvalidateTag>>,
    /// When those are due.
    delays: Delays<SavedTag>,
}

/// Where one piece of an access goes.
enum Way {
    Translated(Pa),
    Untranslated(Iova),
}

/// One access: who makes it, where, and what for.
#[derive(Clone, Copy)]
struct Access<'a> {
    who: &'a Requester,
    at: Iova,
    len: usize,
    dir: Dir,
    need: Need,
}

impl<'a> Access<'a> {
    fn read(who: &'a Requester, at: Iova, len: usize) -> Self {
        let need = if who.tag.execute && who.tag.pasid.is_some() { Need::Execute } else { Need::Read };
        Self { who, at, len, dir: Dir::Read, need }
    }

    const fn write(who: &'a Requester, at: Iova, len: usize) -> Self {
        Self { who, at, len, dir: Dir::Write, need: Need::Write }
    }

    /// What is left of it after so many bytes.
    fn after(self, done: usize) -> Result<Self, DmaFault> {
        let at = self.at.0.checked_add(done as u64).map(Iova).ok_or(DmaFault::Aborted(self.at))?;
        Ok(Self { at, len: self.len - done, ..self })
    }

    /// The part of it in the page that comes so many pages after its first.
    const fn in_page(self, nth: u32) -> Self {
        Self { at: Iova((self.at.0 & !0xfff) + ((nth as u64) << 12)), ..self }
    }

    /// Whose translations it uses.
    fn whose(&self) -> u64 {
        cache::whose(self.who.tag.pasid, self.who.tag.privileged)
    }
}

/// When a look-up was made: what it finds is good for as long.
#[derive(Clone, Copy)]
struct Since {
    /// The enabling of ATS.
    enabling: u32,
    /// The age of the cache.
    age: u64,
}

/// What a Translation Request came to.
enum Reply {
    Granted(Found),
    Denied,
    /// To be used without translation.
    Untranslated,
    /// To be asked for again after so much guest time.
    Later(u64),
}

impl Atc {
    /// An empty cache, attached to the agent.
    #[must_use]
    pub fn new(wiring: AtcWiring) -> Arc<Self> {
        let AtcWiring { stream, config, port, agent, clock, alarms, scheduler, faults, trace, errors } =
            wiring;
        let atc = Arc::new_cyclic(|this: &Weak<Self>| Self {
            stream,
            gates: Arc::clone(config.gates()),
            port,
            pages: Pages::new(config, Arc::clone(&agent), faults.clone(), trace.clone(), errors),
            agent,
            translations: Translations::new(),
            age: Age::default(),
            inflight: Inflight::new(&scheduler),
            refused: AtomicU32::new(0),
            invalidations: AtomicU64::new(0),
            timer: Timer::of_waits(clock, alarms, &*scheduler),
            delays: faults.delays(this.clone()),
            faults,
            trace,
            delayed: Mutex::default(),
        });
        let endpoint: Weak<Self> = Arc::downgrade(&atc);
        atc.agent.attach(stream, endpoint);
        atc
    }

    /// What is owed by software and to the agent. Translations are not saved: a cache may forget them at any time.
    pub(crate) fn saved(&self) -> AtcState {
        let refused = self.refused.load(Ordering::SeqCst);
        AtcState {
            is_refused: self.gates.ats().is_some_and(|enabling| enabling == refused),
            delayed_completions: self.delays.save(),
            pages: self.pages.save(),
        }
    }

    /// Takes up what [`Self::saved`] has given. The configuration space and the agent have been restored.
    pub(crate) fn take_up(&self, state: AtcState) -> Result<(), RestoreError> {
        let AtcState { is_refused, delayed_completions, pages } = state;
        match (self.gates.ats(), is_refused) {
            (Some(enabling), true) => self.refused.store(enabling, Ordering::SeqCst),
            (None, true) => {
                return Err(RestoreError::value("is_refused", "address translation services are off"));
            }
            (_, false) => {}
        }
        *self.delayed() = delayed_completions.iter().map(|later| later.step.into()).collect();
        self.delays.restore(delayed_completions).map_err(|error| error.within("delayed_completions"))?;
        self.pages.restore(pages).map_err(|error| error.within("pages"))
    }

    /// Follows a write to the function's configuration space; [`Self::reset`] comes besides if it was a reset.
    pub fn config_written(&self, effects: &Effects) {
        if effects.page_requests_reset {
            self.pages.forget();
        }
        if effects.services_changed {
            self.pages.changed();
            // What was under way with translations of an enabling that is over has ended when the write has.
            self.drain();
        }
    }

    /// Completes invalidations at once that a fault plan delays.
    fn complete_delayed(&self) {
        let delayed = std::mem::take(&mut *self.delayed());
        for tag in delayed {
            self.agent.invalidate_completed(self.stream, tag);
        }
    }

    fn delayed(&self) -> MutexGuard<'_, Vec<InvalidateTag>> {
        self.delayed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the accesses under way, and begins an age in which nothing remembered is used.
    fn drain(&self) {
        self.inflight.drain(&self.age);
        self.agent.await_translated();
    }

    /// The fault plan mentions these points from now on, and did not before: what threads remember of look-ups is too old, so that
    /// each access is looked up.
    pub(crate) fn fault_points_added(&self, points: &[FaultPoint]) {
        if points.contains(&FaultPoint::AtcLookup) {
            self.age.advance();
        }
    }

    /// Numbers so far.
    #[must_use]
    pub fn totals(&self) -> AtcTotals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.pages.counts;
        let mut totals = AtcTotals {
            invalidations: get(&self.invalidations),
            page_requests: get(&counts.requests),
            credit_waits: get(&counts.credit_waits),
            page_responses: get(&counts.responses),
            unexpected_responses: get(&counts.unexpected),
            unanswered_groups: self.pages.unanswered(),
            ..AtcTotals::default()
        };
        for tally in self.inflight.locals() {
            totals.hits += tally.hits.get();
            totals.translation_requests += tally.requests.get();
        }
        totals
    }

    /// The enabling of ATS under which translations may be used and asked for.
    fn enabling(&self) -> Option<u32> {
        self.gates.ats().filter(|&enabling| self.refused.load(Ordering::SeqCst) != enabling)
    }

    /// Asks the agent for a translation of where an access begins, which is counted in and asks from `since` on.
    #[cold]
    fn request(&self, access: &Access<'_>, since: Since, was_delayed: bool) -> Result<Reply, DmaFault> {
        let Access { who, at, need, .. } = *access;
        let Since { enabling, age } = since;
        if !was_delayed && let Some(action) = self.fault(FaultPoint::AtcRequest, access) {
            match action {
                FaultAction::NotGranted => return Ok(Reply::Denied),
                FaultAction::UnsupportedRequest => return Ok(self.refuse(enabling)),
                FaultAction::CompleterAbort => return Err(DmaFault::Aborted(at)),
                FaultAction::Delay { delay } => return Ok(Reply::Later(delay)),
                _ => {}
            }
        }
        let no_write = need != Need::Write;
        let track = Track::of(who);
        if let Some(track) = track {
            self.trace.begin(track, || Slice::TranslationRequest { at });
        }
        let reply =
            self.agent.request_translation(&TranslationRequest { tag: who.tag, address: at, no_write });
        if let Some(track) = track {
            let ending = if reply.is_ok() { Ending::Plain } else { Ending::Said("refused") };
            self.trace.end(track, SliceKind::TranslationRequest, ending);
        }
        match reply {
            Ok(translation) => {
                let Some(found) = Found::of(&translation) else {
                    return Ok(if translation.untranslated_only {
                        Reply::Untranslated
                    } else {
                        Reply::Denied
                    });
                };
                self.translations.insert(enabling, &who.tag, at, age, &self.age, found);
                Ok(if found.allows(need) { Reply::Granted(found) } else { Reply::Denied })
            }
            Err(AtsRefusal::UnsupportedRequest) => Ok(self.refuse(enabling)),
            Err(AtsRefusal::CompleterAbort) => Err(DmaFault::Aborted(at)),
        }
    }

    /// The agent does not translate.
    fn refuse(&self, enabling: u32) -> Reply {
        log::debug!("{:?}: the agent does not translate; ATS is not used any more", self.stream);
        self.refused.store(enabling, Ordering::SeqCst);
        self.age.advance();
        Reply::Untranslated
    }

    #[inline]
    fn fault(&self, point: FaultPoint, access: &Access<'_>) -> Option<FaultAction> {
        let Access { who, at, .. } = *access;
        self.faults.at(point, |point| {
            Occasion::new(point, who.tag.stream, who.tag.pasid).at(at, 1).during(who.command)
        })
    }

    /// Consecutive pages from the first on that an access needs and that are not there.
    fn missing_pages(&self, access: &Access<'_>, enabling: u32) -> u32 {
        let first = access.at.0;
        let last = first.saturating_add(access.len as u64 - 1) >> 12;
        let in_access = last - (first >> 12) + 1;
        let candidates = in_access.min(GROUP_PAGES.into()) as u32;
        let entered = self.inflight.enter();
        let since = Since { enabling, age: self.age.now() };
        let is_missing = |nth: &u32| {
            entered.add(&entered.local().requests, 1);
            matches!(self.request(&access.in_page(*nth), since, false), Ok(Reply::Denied))
        };
        1 + (1..candidates).take_while(is_missing).count() as u32
    }

    /// Where a whole access goes, as this thread remembers it.
    #[inline(always)]
    fn remembered(&self, access: &Access<'_>) -> Option<Remembered<'_>> {
        let Access { who, at, len, need, .. } = *access;
        let tallies = self.inflight.own()?.local();
        // Whatever ends the use of translations begins a new age: whether ATS is enabled need not be asked.
        let age = self.age.now();
        let pa = Pa(tallies.memo.view(age, access.whose(), need.permission())?.pa(at.0)?);
        let is_whole = at.0 % SMALLEST_PAGE + len as u64 <= SMALLEST_PAGE;
        (is_whole && !who.waiter.is_cancelled()).then_some(Remembered {
            pa,
            from: Stamp::new(self.age.word(), age),
            tallies,
        })
    }

    /// Makes an access: `go` moves the bytes of a range of the buffer one way or the other.
    fn access(
        &self,
        whole: &Access<'_>,
        mut go: impl FnMut(Way, Range<usize>) -> Result<(), DmaFault>,
    ) -> Result<(), DmaFault> {
        let Access { who, len, need, .. } = *whole;
        let whose = whole.whose();
        let mut done = 0;
        let mut rounds = 0;
        let mut was_delayed = false;
        while done < len {
            if who.waiter.is_cancelled() {
                return Err(DmaFault::Cancelled);
            }
            let rest = whole.after(done)?;
            let here = rest.at;
            let entered = self.inflight.enter();
            // Before the enabling: what is remembered from this age is so from an enabling that lasts as long.
            let age = self.age.now();
            // After the access is counted in: a write that disables ATS waits for it.
            let Some(enabling) = self.enabling() else {
                drop(entered);
                return go(Way::Untranslated(here), done..len);
            };
            let end_after = |bytes: u64| len.min(done + bytes.min(PIECE_BYTES) as usize);
            let memo = entered.own().map(|own| &own.memo);
            if let Some(memo) = memo
                && let Some(place) =
                    memo.view(age, whose, need.permission()).and_then(|view| view.get(here.0))
            {
                entered.add(&entered.local().hits, 1);
                let end = end_after(place.len);
                go(Way::Translated(Pa(place.pa)), done..end)
                    .map_err(|fault| at_iova(fault, Pa(place.pa), here))?;
                (done, rounds) = (end, 0);
                continue;
            }
            let found = self.translations.get(enabling, &who.tag, here, need);
            let reply = match found.filter(|_| self.fault(FaultPoint::AtcLookup, &rest).is_none()) {
                Some(found) => {
                    entered.add(&entered.local().hits, 1);
                    Reply::Granted(found)
                }
                None => {
                    entered.add(&entered.local().requests, 1);
                    self.request(&rest, Since { enabling, age }, std::mem::take(&mut was_delayed))?
                }
            };
            match reply {
                Reply::Granted(found) => {
                    let place = found.place(here);
                    // Where lookups are watched, each one comes here.
                    if let Some(memo) = memo
                        && !self.faults.watches(FaultPoint::AtcLookup)
                    {
                        memo.put(age, whose, here.0, &place, found.permissions());
                    }
                    let end = end_after(place.len);
                    go(Way::Translated(Pa(place.pa)), done..end)
                        .map_err(|fault| at_iova(fault, Pa(place.pa), here))?;
                    (done, rounds) = (end, 0);
                    continue;
                }
                Reply::Untranslated => drop(entered),
                Reply::Later(ns) => {
                    drop(entered);
                    self.faults.wait(ns, &who.waiter)?;
                    was_delayed = true;
                    continue;
                }
                Reply::Denied => {
                    drop(entered);
                    match self.ask_for_pages(&rest, enabling)? {
                        Answer::Success if rounds < MOST_ROUNDS => {
                            if let pause @ 1.. = pause_before_ns(rounds) {
                                self.timer.wait(pause, &who.waiter)?;
                            }
                            rounds += 1;
                            continue;
                        }
                        Answer::Success | Answer::Refused => return Err(DmaFault::Aborted(here)),
                        Answer::Off => {}
                    }
                }
            }
            // One page without translation; perhaps it stalls.
            let end = end_after(0x1000 - here.0 % 0x1000);
            go(Way::Untranslated(here), done..end)?;
            done = end;
        }
        Ok(())
    }

    #[inline(never)]
    fn read_in_pieces(&self, access: &Access<'_>, out: &mut [u8]) -> Result<(), DmaFault> {
        self.access(access, |way, range| {
            let piece = &mut out[range];
            match way {
                Way::Translated(pa) => self.agent.read_translated(access.who.tag.stream, pa, piece),
                Way::Untranslated(here) => self.port.read(access.who, here, piece),
            }
        })
    }

    #[inline(never)]
    fn write_in_pieces(&self, access: &Access<'_>, data: &[u8]) -> Result<(), DmaFault> {
        self.access(access, |way, range| {
            let piece = &data[range];
            match way {
                Way::Translated(pa) => self.agent.write_translated(access.who.tag.stream, pa, piece),
                Way::Untranslated(here) => self.port.write(access.who, here, piece),
            }
        })
    }

    /// What a driver maps for the function itself is there; only a process's pages are asked for.
    #[cold]
    fn ask_for_pages(&self, access: &Access<'_>, enabling: u32) -> Result<Answer, DmaFault> {
        if access.who.tag.pasid.is_none() {
            return Ok(Answer::Off);
        }
        if access.who.waiter.is_made_again()
            && let Some(answer) = self.pages.take_up(access.who, access.at, access.dir)?
        {
            return Ok(answer);
        }
        if !self.pages.is_on() {
            return Ok(Answer::Off);
        }
        let pages = self.missing_pages(access, enabling);
        self.pages.ask(access.who, access.at, pages, access.dir)
    }
}

impl TimerTarget<SavedTag> for Atc {
    /// The delay of a completion is over.
    fn step(&self, tag: SavedTag) {
        let tag = tag.into();
        let is_delayed = {
            let mut delayed = self.delayed();
            let place = delayed.iter().position(|other| *other == tag);
            place.map(|place| delayed.swap_remove(place)).is_some()
        };
        if is_delayed {
            self.agent.invalidate_completed(self.stream, tag);
        }
    }
}

/// Where an access goes, as a thread remembers it from an age.
struct Remembered<'a> {
    pa: Pa,
    from: Stamp<'a>,
    tallies: &'a Tallies,
}

impl Remembered<'_> {
    /// What became of the access; `None` if the translation was out of date.
    #[inline]
    fn result(&self, at: Iova, result: Result<(), TranslatedFault>) -> Option<Result<(), DmaFault>> {
        match result {
            Ok(()) => {
                self.tallies.hits.add_alone(1);
                Some(Ok(()))
            }
            Err(TranslatedFault::OutOfDate) => None,
            Err(TranslatedFault::Fault(fault)) => Some(Err(at_iova(fault, self.pa, at))),
        }
    }
}

/// A fault at a translated address, told at the address that the device knows.
#[cold]
fn at_iova(fault: DmaFault, pa: Pa, here: Iova) -> DmaFault {
    match fault {
        DmaFault::Aborted(at) => DmaFault::Aborted(Iova(here.0.wrapping_add(at.0.wrapping_sub(pa.0)))),
        DmaFault::Cancelled => DmaFault::Cancelled,
    }
}

impl DmaPort for Atc {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        let access = Access::read(who, at, out.len());
        if let Some(found) = self.remembered(&access) {
            let result = self.agent.read_translated_if(who.tag.stream, found.pa, out, found.from);
            if let Some(result) = found.result(at, result) {
                return result;
            }
        }
        self.read_in_pieces(&access, out)
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        let access = Access::write(who, at, data.len());
        if let Some(found) = self.remembered(&access) {
            let result = self.agent.write_translated_if(who.tag.stream, found.pa, data, found.from);
            if let Some(result) = found.result(at, result) {
                return result;
            }
        }
        self.write_in_pieces(&access, data)
    }

    /// Untranslated, which is always allowed.
    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        self.port.pin(who, at, len, dir)
    }
}

impl Atc {
    /// The function's reset and the machine's. The configuration space has been reset, so that translations of before are of
    /// an enabling that is over; nobody waits any more, and the agent is owed nothing.
    pub fn reset(&self) {
        self.pages.reset();
        self.drain();
        self.refused.store(0, Ordering::SeqCst);
        self.delays.clear();
        self.complete_delayed();
    }
}

impl AtsEndpoint for Atc {
    fn invalidate(&self, request: &InvalidateRequest, tag: InvalidateTag) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        self.translations.invalidate(self.gates.ats(), &self.age, request);
        self.drain();
        let occasion = |point| {
            let len = 1_u64.checked_shl(request.size_log2.into()).unwrap_or(u64::MAX);
            Occasion::new(point, self.stream, request.pasid).at(request.address, len)
        };
        match self.faults.at(FaultPoint::AtcInvalidate, occasion) {
            Some(FaultAction::Drop) => {}
            Some(FaultAction::Delay { delay }) => {
                self.delayed().push(tag);
                self.delays.later(delay, SavedTag(tag.0));
            }
            _ => self.agent.invalidate_completed(self.stream, tag),
        }
    }

    fn page_response(&self, response: &PageResponse) {
        self.pages.response(response);
    }
}
