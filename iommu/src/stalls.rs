//! Stalled transactions: held until software answers (3.12.2, 4.7).
//!
//! A stall is *recorded* when its event is in the queue: from then on it has a STAG and waits for its answer. One
//! that can't be recorded yet (queue full or off, STALL_MAX reached) waits too, and is retried when that may have
//! changed: no event is lost, and none is about tables that have changed since.
//!
//! The device's thread waits on its own waiter with no lock held. If the device gives up, a stall without a record is
//! forgotten; a recorded one stays, because its STAG is in use until software answers it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hw::Waiter;
use hw::fault::Command;

use crate::transaction::Transaction;

/// What a stalled transaction does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ResumeAction {
    /// Be translated again, from the StreamID on.
    Retry = 1,
    /// End with an abort.
    Abort = 2,
}

/// One stalled transaction, shared by the device's thread that waits and those that answer.
#[derive(Debug)]
pub(crate) struct Stalled {
    sid: u32,
    /// SubstreamID, address and command: what a fault plan asks for.
    pub(crate) ssid: Option<u32>,
    pub(crate) address: u64,
    pub(crate) command: Option<Command>,
    /// A [`ResumeAction`], or [`Self::UNANSWERED`].
    action: AtomicU8,
    waiter: Arc<Waiter>,
}

impl Stalled {
    const UNANSWERED: u8 = 0;

    pub(crate) fn new(tx: &Transaction, waiter: &Arc<Waiter>) -> Arc<Self> {
        let &Transaction { sid, ssid, address, command, .. } = tx;
        let (action, waiter) = (AtomicU8::new(Self::UNANSWERED), Arc::clone(waiter));
        Arc::new(Self { sid, ssid, address, command, action, waiter })
    }

    /// The answer, if there is one.
    pub(crate) fn action(&self) -> Option<ResumeAction> {
        match self.action.load(Ordering::Acquire) {
            Self::UNANSWERED => None,
            1 => Some(ResumeAction::Retry),
            2 => Some(ResumeAction::Abort),
            _ => unreachable!("only actions are stored"),
        }
    }

    /// Answers, unless there is an answer already.
    pub(crate) fn answer(&self, action: ResumeAction) {
        let (action, ordering) = (action as u8, Ordering::AcqRel);
        if self.action.compare_exchange(Self::UNANSWERED, action, ordering, Ordering::Acquire).is_ok() {
            self.waiter.notify();
        }
    }
}

/// All stalled transactions.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// By STAG; at most STALL_MAX.
    recorded: HashMap<u16, Arc<Stalled>>,
    next_stag: u16,
    /// At most one for each thread of a device.
    unrecorded: Vec<Arc<Stalled>>,
    /// Those whose record a fault plan delays. A timer retries them.
    delayed: Vec<Arc<Stalled>>,
}

impl Stalls {
    /// A STAG that no recorded stall has.
    pub(crate) fn free_stag(&self) -> u16 {
        let mut stag = self.next_stag;
        // Ends: there are fewer stalls than STAGs.
        while self.recorded.contains_key(&stag) {
            stag = stag.wrapping_add(1);
        }
        stag
    }

    /// The event of a stall is in the queue with this STAG, which was free.
    pub(crate) fn add_recorded(&mut self, stag: u16, stalled: &Arc<Stalled>) {
        self.recorded.insert(stag, Arc::clone(stalled));
        self.next_stag = stag.wrapping_add(1);
    }

    /// The event of a stall can't be recorded now.
    pub(crate) fn add_unrecorded(&mut self, stalled: &Arc<Stalled>) {
        self.unrecorded.push(Arc::clone(stalled));
    }

    /// A fault plan delays the record of a stall.
    pub(crate) fn add_delayed(&mut self, stalled: &Arc<Stalled>) {
        self.delayed.push(Arc::clone(stalled));
    }

    /// The stall that a STAG stands for, if it is one of the stream's.
    pub(crate) fn recorded(&self, sid: u32, stag: u16) -> Option<&Arc<Stalled>> {
        self.recorded.get(&stag).filter(|stalled| stalled.sid == sid)
    }

    /// CMD_RESUME. A STAG that is unknown or of another stream is no error (4.7.1).
    pub(crate) fn resume(&mut self, sid: u32, stag: u16, action: ResumeAction) {
        if let Entry::Occupied(entry) = self.recorded.entry(stag)
            && entry.get().sid == sid
        {
            entry.remove().answer(action);
            self.retry_unrecorded();
        }
    }

    /// CMD_STALL_TERM. A stall whose record is delayed has not been found yet.
    pub(crate) fn terminate(&mut self, sid: u32) {
        self.recorded
            .extract_if(|_, stalled| stalled.sid == sid)
            .for_each(|(_, stalled)| stalled.answer(ResumeAction::Abort));
        self.unrecorded
            .extract_if(.., |stalled| stalled.sid == sid)
            .for_each(|stalled| stalled.answer(ResumeAction::Abort));
        self.retry_unrecorded();
    }

    /// The end of translation, by SMMUEN or by a reset.
    pub(crate) fn terminate_all(&mut self) {
        let recorded = self.recorded.drain().map(|(_, stalled)| stalled);
        recorded
            .chain(self.unrecorded.drain(..))
            .chain(self.delayed.drain(..))
            .for_each(|stalled| stalled.answer(ResumeAction::Abort));
    }

    /// Something has changed that may let waiting stalls be recorded.
    pub(crate) fn retry_unrecorded(&mut self) {
        for stalled in self.unrecorded.drain(..) {
            stalled.answer(ResumeAction::Retry);
        }
    }

    /// The device's thread waits no longer for a stall without a record. (One with a record stays.)
    pub(crate) fn forget(&mut self, stalled: &Arc<Stalled>) {
        self.unrecorded.retain(|other| !Arc::ptr_eq(other, stalled));
        self.delayed.retain(|other| !Arc::ptr_eq(other, stalled));
    }

    /// Recorded and not answered.
    pub(crate) fn recorded_count(&self) -> usize {
        self.recorded.len()
    }
}
