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
use std::sync::{Arc, Weak};

use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, InvalidateRequest, InvalidateTag, PageResponse, Stamp, TranslatedFault,
    TranslationRequest,
};
use hw::fault::{FaultAction, FaultPoint, Occasion};
use hw::{Alarms, Clock, Dir, DmaFault, DmaPort, Faults, Iova, Pa, Pinned, Requester, StreamId, Timer};
use tcache::{Age, AtomicCounter, Inflight, Memo};

use self::cache::{Found, Need, Translations};
use self::pages::{Answer, Pages};
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
    /// What goes wrong on purpose.
    pub faults: Faults,
}

#[derive(Debug, Default)]
struct Tallies {
    hits: AtomicCounter,
    requests: AtomicCounter,
    /// The thread's latest translations.
    memo: Memo,
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
}

/// Where one piece of an access goes.
enum Way {
    Translated(Pa),
    Untranslated(Iova),
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
        let AtcWiring { stream, config, port, agent, clock, alarms, faults } = wiring;
        let atc = Arc::new(Self {
            stream,
            gates: Arc::clone(config.gates()),
            port,
            pages: Pages::new(config, Arc::clone(&agent), faults.clone()),
            agent,
            translations: Translations::new(),
            age: Age::default(),
            inflight: Inflight::default(),
            refused: AtomicU32::new(0),
            invalidations: AtomicU64::new(0),
            timer: Timer::new(clock, alarms),
            faults,
        });
        let endpoint: Weak<Self> = Arc::downgrade(&atc);
        atc.agent.attach(stream, endpoint);
        atc
    }

    /// Follows a write to the function's configuration space.
    pub fn config_written(&self, effects: &Effects) {
        if effects.reset || effects.page_requests_reset {
            self.pages.forget();
        }
        if effects.services_changed {
            self.pages.changed();
            // What was under way with translations of an enabling that is over has ended when the write has.
            self.drain();
        }
    }

    /// The function's reset: nothing is cached (its configuration space has been reset), and nobody waits.
    pub fn reset(&self) {
        self.pages.forget();
        self.drain();
    }

    /// Waits for the accesses under way, and begins an age in which nothing remembered is used.
    fn drain(&self) {
        self.inflight.drain(&self.age);
        self.agent.await_translated();
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

    /// Asks the agent, for an access that is counted in and asks from `asked` on.
    #[cold]
    fn request(
        &self,
        enabling: u32,
        who: &Requester,
        at: Iova,
        need: Need,
        asked: u64,
        was_delayed: bool,
    ) -> Result<Reply, DmaFault> {
        if !was_delayed && let Some(action) = self.fault(FaultPoint::AtcRequest, who, at) {
            match action {
                FaultAction::NotGranted => return Ok(Reply::Denied),
                FaultAction::UnsupportedRequest => return Ok(self.refuse(enabling)),
                FaultAction::CompleterAbort => return Err(DmaFault::Aborted(at)),
                FaultAction::Delay { delay } => return Ok(Reply::Later(delay)),
                _ => {}
            }
        }
        let no_write = need != Need::Write;
        let reply =
            self.agent.request_translation(&TranslationRequest { tag: who.tag, address: at, no_write });
        match reply {
            Ok(translation) => {
                let Some(found) = Found::of(&translation) else {
                    return Ok(if translation.untranslated_only {
                        Reply::Untranslated
                    } else {
                        Reply::Denied
                    });
                };
                self.translations.insert(enabling, &who.tag, at, asked, &self.age, found);
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
    fn fault(&self, point: FaultPoint, who: &Requester, at: Iova) -> Option<FaultAction> {
        self.faults.at(point, |point| {
            Occasion::new(point, who.tag.stream, who.tag.pasid).at(at, 1).during(who.command)
        })
    }

    /// Consecutive pages from `at` on that an access of `len` bytes needs and that are not there.
    fn missing_pages(&self, enabling: u32, who: &Requester, at: Iova, len: u64, need: Need) -> u32 {
        let last = at.0.saturating_add(len - 1) >> 12;
        let in_access = last - (at.0 >> 12) + 1;
        let candidates = in_access.min(GROUP_PAGES.into()) as u32;
        let access = self.inflight.enter();
        let asked = self.age.now();
        let is_missing = |nth: &u32| {
            let page = Iova((at.0 & !0xfff) + (u64::from(*nth) << 12));
            access.add(&access.local().requests, 1);
            matches!(self.request(enabling, who, page, need, asked, false), Ok(Reply::Denied))
        };
        1 + (1..candidates).take_while(is_missing).count() as u32
    }

    /// Where a whole access goes, as this thread remembers it.
    #[inline(always)]
    fn remembered(&self, who: &Requester, at: Iova, len: usize, need: Need) -> Option<Remembered<'_>> {
        let tallies = self.inflight.own()?.local();
        // Whatever ends the use of translations begins a new age: whether ATS is enabled need not be asked.
        let age = self.age.now();
        let whose = cache::whose(who.tag.pasid, who.tag.privileged);
        let pa = Pa(tallies.memo.view(age, whose, need.permission())?.pa(at.0)?);
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
        who: &Requester,
        at: Iova,
        len: usize,
        dir: Dir,
        need: Need,
        mut go: impl FnMut(Way, Range<usize>) -> Result<(), DmaFault>,
    ) -> Result<(), DmaFault> {
        let mut done = 0;
        let mut rounds = 0;
        let mut was_delayed = false;
        while done < len {
            if who.waiter.is_cancelled() {
                return Err(DmaFault::Cancelled);
            }
            let Some(here) = at.0.checked_add(done as u64).map(Iova) else {
                return Err(DmaFault::Aborted(at));
            };
            let access = self.inflight.enter();
            // Before the enabling: what is remembered from this age is so from an enabling that lasts as long.
            let asked = self.age.now();
            // After the access is counted in: a write that disables ATS waits for it.
            let Some(enabling) = self.enabling() else {
                drop(access);
                return go(Way::Untranslated(here), done..len);
            };
            let end_after = |bytes: u64| len.min(done + bytes.min(PIECE_BYTES) as usize);
            let memo = access.own().map(|own| &own.memo);
            let whose = cache::whose(who.tag.pasid, who.tag.privileged);
            if let Some(memo) = memo
                && let Some(place) =
                    memo.view(asked, whose, need.permission()).and_then(|view| view.get(here.0))
            {
                access.add(&access.local().hits, 1);
                let end = end_after(place.len);
                go(Way::Translated(Pa(place.pa)), done..end)
                    .map_err(|fault| at_iova(fault, Pa(place.pa), here))?;
                (done, rounds) = (end, 0);
                continue;
            }
            let found = self.translations.get(enabling, &who.tag, here, need);
            let reply = match found.filter(|_| self.fault(FaultPoint::AtcLookup, who, here).is_none()) {
                Some(found) => {
                    access.add(&access.local().hits, 1);
                    Reply::Granted(found)
                }
                None => {
                    access.add(&access.local().requests, 1);
                    self.request(enabling, who, here, need, asked, std::mem::take(&mut was_delayed))?
                }
            };
            match reply {
                Reply::Granted(found) => {
                    let place = found.place(here);
                    // Where lookups are watched, each one comes here.
                    if let Some(memo) = memo
                        && !self.faults.watches(FaultPoint::AtcLookup)
                    {
                        memo.put(asked, whose, here.0, &place, found.permissions());
                    }
                    let end = end_after(place.len);
                    go(Way::Translated(Pa(place.pa)), done..end)
                        .map_err(|fault| at_iova(fault, Pa(place.pa), here))?;
                    (done, rounds) = (end, 0);
                    continue;
                }
                Reply::Untranslated => drop(access),
                Reply::Later(ns) => {
                    drop(access);
                    self.faults.wait(ns, &who.waiter)?;
                    was_delayed = true;
                    continue;
                }
                Reply::Denied => {
                    drop(access);
                    match self.ask_for_pages(enabling, who, here, (len - done) as u64, dir, need)? {
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
    fn read_in_pieces(&self, who: &Requester, at: Iova, out: &mut [u8], need: Need) -> Result<(), DmaFault> {
        self.access(who, at, out.len(), Dir::Read, need, |way, range| {
            let Some(piece) = out.get_mut(range) else { return Ok(()) };
            match way {
                Way::Translated(pa) => self.agent.read_translated(who.tag.stream, pa, piece),
                Way::Untranslated(here) => self.port.read(who, here, piece),
            }
        })
    }

    #[inline(never)]
    fn write_in_pieces(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.access(who, at, data.len(), Dir::Write, Need::Write, |way, range| {
            let Some(piece) = data.get(range) else { return Ok(()) };
            match way {
                Way::Translated(pa) => self.agent.write_translated(who.tag.stream, pa, piece),
                Way::Untranslated(here) => self.port.write(who, here, piece),
            }
        })
    }

    /// What a driver maps for the function itself is there; only a process's pages are asked for.
    #[cold]
    fn ask_for_pages(
        &self,
        enabling: u32,
        who: &Requester,
        at: Iova,
        len: u64,
        dir: Dir,
        need: Need,
    ) -> Result<Answer, DmaFault> {
        if who.tag.pasid.is_none() || !self.pages.is_on() {
            return Ok(Answer::Off);
        }
        let pages = self.missing_pages(enabling, who, at, len, need);
        self.pages.ask(who, at, pages, dir)
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
        let need = if who.tag.execute && who.tag.pasid.is_some() { Need::Execute } else { Need::Read };
        if let Some(found) = self.remembered(who, at, out.len(), need) {
            let result = self.agent.read_translated_if(who.tag.stream, found.pa, out, found.from);
            if let Some(result) = found.result(at, result) {
                return result;
            }
        }
        self.read_in_pieces(who, at, out, need)
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        if let Some(found) = self.remembered(who, at, data.len(), Need::Write) {
            let result = self.agent.write_translated_if(who.tag.stream, found.pa, data, found.from);
            if let Some(result) = found.result(at, result) {
                return result;
            }
        }
        self.write_in_pieces(who, at, data)
    }

    /// Untranslated, which is always allowed.
    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        self.port.pin(who, at, len, dir)
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
                let (agent, stream) = (Arc::clone(&self.agent), self.stream);
                self.faults.later(delay, move || agent.invalidate_completed(stream, tag));
            }
            _ => self.agent.invalidate_completed(self.stream, tag),
        }
    }

    fn page_response(&self, response: &PageResponse) {
        self.pages.response(response);
    }
}
