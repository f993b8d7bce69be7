//! Stalled transactions: held until the guest answers (3.12.2, 4.7).
//!
//! A stall is *recorded* when its event is in the queue: from then on it has a STAG and waits for its answer. One
//! that can't be recorded yet (queue full or off, STALL_MAX reached) waits too, and is sent back to look again
//! when that may have changed: no event is lost, and none tells of a state that is long gone.
//!
//! Waiting is done by the device's thread on its own waiter with no lock held. If the device gives up, an
//! unrecorded stall is forgotten; a recorded one stays, for the guest still owes it an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hw::Waiter;
use hw::fault::Command;

use crate::Smmu;
use crate::registers::State;
use crate::spec::event::Event;
use crate::stats::count;
use crate::translate::Transaction;

/// What the guest, or the end of translation, says to a stalled transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// Look again, from the StreamID on.
    Retry = 1,
    /// End with an abort.
    Abort = 2,
}

/// Where the verdict for one transaction is put.
#[derive(Debug)]
pub(crate) struct Stalled {
    sid: u32,
    /// SubstreamID, address and command: what a fault plan asks for.
    pub(crate) ssid: Option<u32>,
    pub(crate) address: u64,
    pub(crate) command: Option<Command>,
    verdict: AtomicU8,
    waiter: Arc<Waiter>,
}

impl Stalled {
    pub(crate) fn new(tx: &Transaction, waiter: &Arc<Waiter>) -> Arc<Self> {
        let &Transaction { sid, ssid, address, command, .. } = tx;
        let (verdict, waiter) = (AtomicU8::new(0), Arc::clone(waiter));
        Arc::new(Self { sid, ssid, address, command, verdict, waiter })
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        match self.verdict.load(Ordering::Acquire) {
            1 => Some(Verdict::Retry),
            2 => Some(Verdict::Abort),
            _ => None,
        }
    }

    fn answer(&self, verdict: Verdict) {
        self.verdict.store(verdict as u8, Ordering::Release);
        self.waiter.notify();
    }
}

/// All stalled transactions.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// By STAG; at most STALL_MAX.
    recorded: HashMap<u16, Arc<Stalled>>,
    next_stag: u16,
    /// As many as device threads wait.
    unrecorded: Vec<Arc<Stalled>>,
}

impl Stalls {
    fn free_stag(&self) -> u16 {
        let mut stag = self.next_stag;
        // Ends: there are fewer stalls than STAGs.
        while self.recorded.contains_key(&stag) {
            stag = stag.wrapping_add(1);
        }
        stag
    }

    /// The stall that a STAG stands for, if it is one of the stream's.
    pub(crate) fn recorded(&self, sid: u32, stag: u16) -> Option<&Arc<Stalled>> {
        self.recorded.get(&stag).filter(|stalled| stalled.sid == sid)
    }

    /// CMD_RESUME. A STAG that is unknown or of another stream is no error (4.7.1).
    pub(crate) fn resume(&mut self, sid: u32, stag: u16, verdict: Verdict) {
        if self.recorded(sid, stag).is_some()
            && let Some(stalled) = self.recorded.remove(&stag)
        {
            stalled.answer(verdict);
            self.retry_unrecorded();
        }
    }

    /// CMD_STALL_TERM for a stream; SMMUEN going to 0 for all.
    pub(crate) fn terminate(&mut self, sid: Option<u32>) {
        let is_meant = |stalled: &Stalled| sid.is_none_or(|sid| stalled.sid == sid);
        self.recorded.retain(|_, stalled| {
            let stays = !is_meant(stalled);
            if !stays {
                stalled.answer(Verdict::Abort);
            }
            stays
        });
        self.unrecorded.retain(|stalled| {
            let stays = !is_meant(stalled);
            if !stays {
                stalled.answer(Verdict::Abort);
            }
            stays
        });
        self.retry_unrecorded();
    }

    /// Something has changed that may let waiting stalls be recorded.
    pub(crate) fn retry_unrecorded(&mut self) {
        for stalled in self.unrecorded.drain(..) {
            stalled.answer(Verdict::Retry);
        }
    }

    /// The device gave `stalled` up.
    pub(crate) fn forget_unrecorded(&mut self, stalled: &Arc<Stalled>) {
        self.unrecorded.retain(|other| !Arc::ptr_eq(other, stalled));
    }

    /// Recorded and not answered.
    pub(crate) fn recorded_count(&self) -> usize {
        self.recorded.len()
    }
}

impl Smmu {
    /// Records a stall, or leaves it waiting to be recorded.
    pub(crate) fn stall(&self, state: &mut State, mut event: Event, stalled: &Arc<Stalled>) {
        count(&self.stats.stalls);
        let stag = state.stalls.free_stag();
        event.d1 = event.d1.with_stall(true).with_stag(stag);
        let has_room = state.stalls.recorded.len() < usize::from(self.features.stall_max);
        if has_room && self.try_record(state, &event).is_ok() {
            state.stalls.recorded.insert(stag, Arc::clone(stalled));
            state.stalls.next_stag = stag.wrapping_add(1);
        } else {
            state.stalls.unrecorded.push(Arc::clone(stalled));
        }
    }
}
