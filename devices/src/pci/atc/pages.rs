//! Page requests of a function: groups, credits, answers, and what a wrong answer does (PCIe Base, 10.4).
//!
//! An access that misses pages sends one group of requests for them and waits on its requester's waiter, with no lock
//! held. Each request takes a credit until its group is answered. A requester that gives up leaves its group behind,
//! since software still owes it an answer, and sends a stop marker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::ats::{AtsPort, PageRequest, PageResponse, PageResponseCode, PrgIndex};
use hw::fault::{FaultAction, FaultPoint, Occasion};
use hw::{Dir, DmaFault, Faults, Iova, Pasid, Requester, Waiter};

use super::super::caps::page_request;
use super::super::config::ConfigSpace;

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
}

impl Asked {
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

#[derive(Debug)]
struct Group {
    pasid: Option<Pasid>,
    requests: u32,
    /// `None` once the requester has given up.
    asked: Option<Arc<Asked>>,
}

#[derive(Debug, Default)]
struct Groups {
    /// No more than there are credits.
    unanswered: HashMap<PrgIndex, Group>,
    next_index: u16,
    /// Requests in them.
    requests: u32,
    /// Requesters without a credit: no more than there are threads.
    without_credit: Vec<Arc<Waiter>>,
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
    pub(super) counts: Counts,
}

impl Pages {
    pub(super) fn new(config: Arc<ConfigSpace>, agent: Arc<dyn AtsPort>, faults: Faults) -> Self {
        Self { config, agent, groups: Mutex::default(), faults, counts: Counts::default() }
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
                let asked = Arc::new(Asked { answer: AtomicU8::new(0), waiter: Arc::clone(&who.waiter) });
                let group = Group { pasid: who.tag.pasid, requests, asked: Some(Arc::clone(&asked)) };
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
                self.faults.wait(delay, &who.waiter).inspect_err(|_| self.give_up(who, index, &asked))?;
                (0..pages).for_each(request);
            }
            Some(_) => (0..pages).rev().for_each(request),
        }
        self.counts.requests.fetch_add(pages.into(), Ordering::Relaxed);
        who.waiter.wait(|| asked.answer()).inspect_err(|_| self.give_up(who, index, &asked))
    }

    /// Whether a requester that waits for a credit shall look again: it is no longer in the list.
    fn may_ask(&self, waiter: &Arc<Waiter>) -> bool {
        !self.groups().without_credit.iter().any(|other| Arc::ptr_eq(other, waiter))
    }

    fn give_up(&self, who: &Requester, index: PrgIndex, asked: &Arc<Asked>) {
        let is_unanswered = {
            let mut groups = self.groups();
            let group = groups.unanswered.get_mut(&index);
            let mine =
                group.filter(|group| group.asked.as_ref().is_some_and(|other| Arc::ptr_eq(other, asked)));
            mine.map(|group| group.asked = None).is_some()
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
            let is_meant =
                |group: &Group| response.pasid == group.pasid || has_failed && response.pasid.is_none();
            let is_expected = groups.unanswered.get(&response.index).is_some_and(is_meant);
            let group = if is_expected { groups.unanswered.remove(&response.index) } else { None };
            if let Some(group) = &group {
                groups.requests -= group.requests;
            }
            group
        };
        let Some(group) = group else {
            self.counts.unexpected.fetch_add(1, Ordering::Relaxed);
            return self.config.set_page_request_status(page_request::UNEXPECTED_INDEX);
        };
        if has_failed {
            self.config.set_page_request_status(page_request::RESPONSE_FAILURE);
        }
        if let Some(asked) = group.asked {
            let is_success = response.code == PageResponseCode::Success;
            asked.give(if is_success { Answer::Success } else { Answer::Refused });
        }
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
        for asked in unanswered.into_values().filter_map(|group| group.asked) {
            asked.give(Answer::Refused);
        }
        self.changed();
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
