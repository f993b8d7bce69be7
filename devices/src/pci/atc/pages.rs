//! Page requests of a function: groups, credits, answers, and what a wrong answer does (PCIe Base, 10.4).
//!
//! An access that misses pages sends one group of requests for them and waits on its requester's waiter, with no lock
//! held. Each request takes a credit until its group is answered. A requester that gives up leaves its group behind,
//! since software still owes it an answer, and sends a stop marker.
//!
//! After a restore the groups are *orphans*: the accesses that waited are made again, and one that misses the first page of
//! its group waits for that group's answer. An answer may come before: after a success the access asks for its
//! translation as any, and a refusal is kept for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::ats::{AtsPort, PageRequest, PageResponse, PageResponseCode, PrgIndex};
use hw::fault::{FaultAction, FaultPoint, Occasion};
use hw::saved::{Hex, index_of};
use hw::trace::{Ending, Slice, SliceKind};
use hw::{
    Dir, DmaFault, DmaTag, Faults, GuestErrors, Iova, Pasid, Requester, RestoreError, Trace, Track, Waiter,
};
use serde::{Deserialize, Serialize};

use super::super::caps::page_request;
use super::super::config::ConfigSpace;
use super::GROUP_PAGES;

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Answer {
    /// The pages are there, says software.
    Success = 1,
    /// They can't be had, or the interface has stopped.
    Refused = 2,
    /// No request was sent: the interface is off.
    Off = 3,
}

/// Where the answer to a group is put.
#[derive(Debug)]
struct Asked {
    answer: AtomicU8,
    waiter: Arc<Waiter>,
    /// Where a timeline has the access.
    track: Option<Track>,
}

impl Asked {
    fn new(who: &Requester) -> Arc<Self> {
        Arc::new(Self { answer: AtomicU8::new(0), waiter: Arc::clone(&who.waiter), track: Track::of(who) })
    }

    fn answer(&self) -> Option<Answer> {
        match self.answer.load(Ordering::Acquire) {
            1 => Some(Answer::Success),
            2 => Some(Answer::Refused),
            _ => None,
        }
    }

    fn give(&self, answer: Answer) {
        self.answer.store(answer as u8, Ordering::Release);
        self.waiter.notify();
    }
}

/// What a group asks for: the access that is made again is known by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    pasid: Option<Pasid>,
    privileged: bool,
    execute: bool,
    /// The first page.
    page: u64,
    dir: Dir,
}

impl Wanted {
    const fn of(who: &Requester, at: Iova, dir: Dir) -> Self {
        let DmaTag { pasid, privileged, execute, .. } = who.tag;
        Self { pasid, privileged, execute, page: at.0 & !0xfff, dir }
    }
}

/// Who waits for a group's answer.
#[derive(Debug)]
enum WaitedFor {
    By(Arc<Asked>),
    /// Nobody yet: an access that will be made again.
    Orphan,
    /// Nobody: the requester has given up.
    GivenUp,
}

#[derive(Debug)]
struct Group {
    wanted: Wanted,
    requests: u32,
    /// A fault plan has not put the requests off.
    is_sent: bool,
    waited_for: WaitedFor,
}

/// A group as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedGroup {
    pasid: Hex,
    privileged: bool,
    execute: bool,
    /// The first page.
    #[serde(with = "hw::saved::hex")]
    address: u64,
    write: bool,
    /// Pages.
    requests: u32,
    /// No access waits for the answer, and none will.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_given_up: bool,
}

/// What software owes answers to, and what it has refused to accesses that will be made again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedPages {
    next_index: u16,
    /// By page request group index.
    unanswered: BTreeMap<String, SavedGroup>,
    refused: Vec<SavedGroup>,
}

impl SavedGroup {
    /// Only a process's pages are asked for.
    fn of(wanted: &Wanted, requests: u32, has_given_up: bool) -> Option<Self> {
        let &Wanted { pasid, privileged, execute, page, dir } = wanted;
        let pasid = Hex(pasid?.get().into());
        Some(Self {
            pasid,
            privileged,
            execute,
            address: page,
            write: dir == Dir::Write,
            requests,
            has_given_up,
        })
    }

    fn wanted(&self) -> Result<Wanted, RestoreError> {
        let pasid = u32::try_from(self.pasid.0).ok().and_then(Pasid::new);
        let pasid = pasid.ok_or_else(|| RestoreError::value("pasid", "has more than 20 bits"))?;
        if self.address & 0xfff != 0 {
            return Err(RestoreError::value("address", "is not that of a page"));
        }
        if self.requests == 0 || self.requests > GROUP_PAGES {
            return Err(RestoreError::value("requests", "no number of pages that a group has"));
        }
        Ok(Wanted {
            pasid: Some(pasid),
            privileged: self.privileged,
            execute: self.execute,
            page: self.address,
            dir: if self.write { Dir::Write } else { Dir::Read },
        })
    }
}

#[derive(Debug, Default)]
struct Groups {
    /// No more than there are credits.
    unanswered: BTreeMap<PrgIndex, Group>,
    next_index: u16,
    /// Requests in them.
    requests: u32,
    /// Requesters without a credit: no more than there are threads.
    without_credit: Vec<Arc<Waiter>>,
    /// What orphans wanted that were refused; no more than were restored.
    refused: Vec<Wanted>,
}

impl Groups {
    fn free_index(&mut self) -> Option<PrgIndex> {
        let mut candidates = (0..PrgIndex::COUNT).map(|n| PrgIndex::new(self.next_index.wrapping_add(n)));
        let index = candidates.find(|index| !self.unanswered.contains_key(index))?;
        self.next_index = index.get() + 1;
        Some(index)
    }
}

/// Numbers so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: AtomicU64,
    pub(super) credit_waits: AtomicU64,
    pub(super) responses: AtomicU64,
    pub(super) unexpected: AtomicU64,
}

/// The page request interface of a function.
pub(super) struct Pages {
    config: Arc<ConfigSpace>,
    agent: Arc<dyn AtsPort>,
    groups: Mutex<Groups>,
    faults: Faults,
    trace: Trace,
    errors: GuestErrors,
    pub(super) counts: Counts,
}

impl Pages {
    pub(super) fn new(
        config: Arc<ConfigSpace>,
        agent: Arc<dyn AtsPort>,
        faults: Faults,
        trace: Trace,
        errors: GuestErrors,
    ) -> Self {
        Self { config, agent, groups: Mutex::default(), faults, trace, errors, counts: Counts::default() }
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether requests may be sent.
    pub(super) fn is_on(&self) -> bool {
        let control = self.config.page_request_control();
        control.is_on && control.credits > 0
    }

    /// Groups without an answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.groups().unanswered.len() as u64
    }

    /// What a group of before has come to whose access is made again: its answer, or a wait for that. `None` if there is no such
    /// group.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`].
    pub(super) fn take_up(&self, who: &Requester, at: Iova, dir: Dir) -> Result<Option<Answer>, DmaFault> {
        let wanted = Wanted::of(who, at, dir);
        let (index, asked) = {
            let mut groups = self.groups();
            if let Some(place) = groups.refused.iter().position(|other| *other == wanted) {
                groups.refused.swap_remove(place);
                return Ok(Some(Answer::Refused));
            }
            let is_same =
                |group: &Group| group.wanted == wanted && matches!(group.waited_for, WaitedFor::Orphan);
            let candidates = groups.unanswered.iter_mut().filter(|(_, group)| is_same(group));
            let Some((&index, group)) = candidates.min_by_key(|(index, _)| **index) else { return Ok(None) };
            let asked = Asked::new(who);
            group.waited_for = WaitedFor::By(Arc::clone(&asked));
            // With the lock held: its answer comes later.
            self.begin_wait(asked.track, at, group.requests, index);
            (index, asked)
        };
        self.await_answer(who, index, &asked).map(Some)
    }

    fn await_answer(&self, who: &Requester, index: PrgIndex, asked: &Arc<Asked>) -> Result<Answer, DmaFault> {
        who.waiter.wait(|| asked.answer()).inspect_err(|_| self.give_up(who, index, asked))
    }

    /// Asks for `pages` consecutive pages from `at` on, at least for the first, and waits for the answer.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`].
    pub(super) fn ask(&self, who: &Requester, at: Iova, pages: u32, dir: Dir) -> Result<Answer, DmaFault> {
        let (index, asked, pages) = loop {
            // With the lock held: who changes it wakes all in the list afterwards.
            let mut groups = self.groups();
            let control = self.config.page_request_control();
            if !control.is_on || control.credits == 0 {
                return Ok(Answer::Off);
            }
            let free = control.credits.saturating_sub(groups.requests);
            if free > 0
                && let Some(index) = groups.free_index()
            {
                let requests = pages.clamp(1, free);
                let asked = Asked::new(who);
                let waited_for = WaitedFor::By(Arc::clone(&asked));
                let group = Group { wanted: Wanted::of(who, at, dir), requests, is_sent: true, waited_for };
                groups.unanswered.insert(index, group);
                groups.requests += requests;
                break (index, asked, requests);
            }
            groups.without_credit.push(Arc::clone(&who.waiter));
            drop(groups);
            self.counts.credit_waits.fetch_add(1, Ordering::Relaxed);
            let waited = who.waiter.wait(|| self.may_ask(&who.waiter).then_some(()));
            self.groups().without_credit.retain(|other| !Arc::ptr_eq(other, &who.waiter));
            waited?;
        };
        let request = |nth: u32| {
            self.agent.request_page(&PageRequest {
                tag: who.tag,
                address: Iova(at.0.wrapping_add(u64::from(nth) << 12) & !0xfff),
                read: dir == Dir::Read,
                write: dir == Dir::Write,
                last: nth + 1 == pages,
                index,
            });
        };
        self.begin_wait(asked.track, at, pages, index);
        let occasion = |point| {
            Occasion::new(point, who.tag.stream, who.tag.pasid)
                .at(Iova(at.0 & !0xfff), u64::from(pages) << 12)
                .during(who.command)
        };
        match self.faults.at(FaultPoint::AtcPageRequest, occasion) {
            None => (0..pages).for_each(request),
            Some(FaultAction::Drop) => {}
            Some(FaultAction::Duplicate) => (0..pages).chain(0..pages).for_each(request),
            Some(FaultAction::Delay { delay }) => {
                self.set_sent(index, false);
                self.faults.wait(delay, &who.waiter).inspect_err(|_| self.give_up(who, index, &asked))?;
                self.set_sent(index, true);
                (0..pages).for_each(request);
            }
            Some(_) => (0..pages).rev().for_each(request),
        }
        self.counts.requests.fetch_add(pages.into(), Ordering::Relaxed);
        self.await_answer(who, index, &asked)
    }

    fn set_sent(&self, index: PrgIndex, is_sent: bool) {
        if let Some(group) = self.groups().unanswered.get_mut(&index) {
            group.is_sent = is_sent;
        }
    }

    fn begin_wait(&self, track: Option<Track>, at: Iova, pages: u32, index: PrgIndex) {
        if let Some(track) = track {
            let at = Iova(at.0 & !0xfff);
            self.trace.begin(track, || Slice::PageRequest { at, pages, group: index.get() });
        }
    }

    fn end_wait(&self, track: Option<Track>, said: &'static str) {
        if let Some(track) = track {
            self.trace.end(track, SliceKind::PageRequest, Ending::Said(said));
        }
    }

    /// Whether a requester that waits for a credit shall look again: it is no longer in the list.
    fn may_ask(&self, waiter: &Arc<Waiter>) -> bool {
        !self.groups().without_credit.iter().any(|other| Arc::ptr_eq(other, waiter))
    }

    fn give_up(&self, who: &Requester, index: PrgIndex, asked: &Arc<Asked>) {
        self.end_wait(asked.track, "given up");
        let is_unanswered = {
            let mut groups = self.groups();
            let group = groups.unanswered.get_mut(&index);
            let is_mine = |group: &&mut Group| matches!(&group.waited_for, WaitedFor::By(other) if Arc::ptr_eq(other, asked));
            group.filter(is_mine).map(|group| group.waited_for = WaitedFor::GivenUp).is_some()
        };
        // Without the interface no message leaves: its reset has given up the requester.
        if is_unanswered
            && self.is_on()
            && let Some(pasid) = who.tag.pasid
        {
            self.agent.request_page(&PageRequest::stop_marker(who.tag.stream, pasid));
        }
    }

    /// A PRG Response.
    pub(super) fn response(&self, response: &PageResponse) {
        self.counts.responses.fetch_add(1, Ordering::Relaxed);
        if self.config.page_request_control().has_failed {
            return;
        }
        let has_failed = response.code == PageResponseCode::ResponseFailure;
        let group = {
            let mut groups = self.groups();
            // A failure of the whole interface may come without the PASID that other responses must carry.
            let is_meant = |group: &Group| {
                response.pasid == group.wanted.pasid || has_failed && response.pasid.is_none()
            };
            let is_expected = groups.unanswered.get(&response.index).is_some_and(is_meant);
            let group = if is_expected { groups.unanswered.remove(&response.index) } else { None };
            if let Some(group) = &group {
                groups.requests -= group.requests;
            }
            group
        };
        let Some(group) = group else {
            self.counts.unexpected.fetch_add(1, Ordering::Relaxed);
            let what = format_args!("page response to group {}, which waits for none", response.index.get());
            self.errors.report("page responses to nothing that was asked", what);
            return self.config.set_page_request_status(page_request::UNEXPECTED_INDEX);
        };
        if has_failed {
            self.config.set_page_request_status(page_request::RESPONSE_FAILURE);
        }
        let is_success = response.code == PageResponseCode::Success;
        let answer = if is_success { Answer::Success } else { Answer::Refused };
        self.give(&group, answer, response.code.name());
        if has_failed { self.forget() } else { self.changed() }
    }

    /// Ends every group without an answer: its access is aborted. The numbers of groups go on, so that a late answer is for
    /// none of the next ones.
    pub(super) fn forget(&self) {
        let unanswered = {
            let mut groups = self.groups();
            groups.requests = 0;
            std::mem::take(&mut groups.unanswered)
        };
        for group in unanswered.into_values() {
            self.give(&group, Answer::Refused, "forgotten");
        }
        self.changed();
    }

    /// As after power-on: no access of before is made again.
    pub(super) fn reset(&self) {
        self.forget();
        self.groups().refused.clear();
    }

    /// Gives an answer; a timeline says why.
    fn give(&self, group: &Group, answer: Answer, said: &'static str) {
        match &group.waited_for {
            WaitedFor::By(asked) => {
                // A timeline's wait ends with its answer, not when its thread comes to run.
                self.end_wait(asked.track, said);
                asked.give(answer);
            }
            WaitedFor::Orphan if answer == Answer::Refused => self.groups().refused.push(group.wanted),
            WaitedFor::Orphan | WaitedFor::GivenUp => {}
        }
    }

    /// The groups that have been sent; those that have not are asked for when their accesses are made again.
    pub(super) fn save(&self) -> SavedPages {
        let groups = self.groups();
        let save = |(index, group): (&PrgIndex, &Group)| {
            let has_given_up = match &group.waited_for {
                WaitedFor::By(asked) => asked.waiter.is_cancelled(),
                WaitedFor::Orphan => false,
                WaitedFor::GivenUp => true,
            };
            let saved = SavedGroup::of(&group.wanted, group.requests, has_given_up)?;
            group.is_sent.then(|| (index.get().to_string(), saved))
        };
        SavedPages {
            next_index: groups.next_index,
            unanswered: groups.unanswered.iter().filter_map(save).collect(),
            refused: groups.refused.iter().filter_map(|wanted| SavedGroup::of(wanted, 1, false)).collect(),
        }
    }

    /// Takes up what [`Self::save`] has given. The configuration space has been restored.
    pub(super) fn restore(&self, saved: SavedPages) -> Result<(), RestoreError> {
        let SavedPages { next_index, unanswered, refused } = saved;
        if next_index > PrgIndex::COUNT {
            return Err(RestoreError::value("next_index", "has more than nine bits"));
        }
        let most = self.config.page_request_capacity();
        if refused.len() > usize::from(PrgIndex::COUNT) {
            return Err(RestoreError::value("refused", "more than there are groups"));
        }
        let mut groups = Groups { next_index, ..Groups::default() };
        for (key, group) in unanswered {
            let refuse = |error: RestoreError| error.within(&key).within("unanswered");
            let index =
                index_of(&key, PrgIndex::COUNT.into()).map_err(|error| error.within("unanswered"))? as u16;
            let wanted = group.wanted().map_err(refuse)?;
            let waited_for = if group.has_given_up { WaitedFor::GivenUp } else { WaitedFor::Orphan };
            let requests = group.requests;
            groups.requests += requests;
            let group = Group { wanted, requests, is_sent: true, waited_for };
            groups.unanswered.insert(PrgIndex::new(index), group);
        }
        if groups.requests > most {
            return Err(RestoreError::value("unanswered", "more requests than the function can have"));
        }
        for group in refused {
            groups.refused.push(group.wanted().map_err(|error| error.within("refused"))?);
        }
        *self.groups() = groups;
        Ok(())
    }

    /// There may be credits, or the interface may be on or off now.
    pub(super) fn changed(&self) {
        let (waiting, is_idle) = {
            let mut groups = self.groups();
            (std::mem::take(&mut groups.without_credit), groups.unanswered.is_empty())
        };
        if is_idle {
            self.config.set_page_request_status(page_request::STOPPED);
        }
        for waiter in waiting {
            waiter.notify();
        }
    }
}
