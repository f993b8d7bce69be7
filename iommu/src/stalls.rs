//! Stalled transactions: held until software answers (3.12.2, 4.7).
//!
//! A stall is *recorded* when its event is in the queue: from then on it has a STAG and waits for its answer. One
//! that can't be recorded yet (queue full or off, STALL_MAX reached) waits too, and is retried when that may have
//! changed: no event is lost, and none is about tables that have changed since.
//!
//! The device's thread waits on its own waiter with no lock held. If the device gives up, a stall without a record is
//! forgotten; a recorded one stays, because its STAG is in use until software answers it.
//!
//! After a restore the recorded ones are *orphans*: the devices make the accesses again that waited, and one that meets
//! the same fault takes its orphan's place. An orphan may be answered before. A retry is then forgotten, because the access is
//! translated anyhow; an abort is kept for it. Only accesses that are made again ([`Waiter::is_made_again`]) can take
//! either, so what is left by a device that does not come back is of no other access.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hw::fault::Command;
use hw::saved::Hex;
use hw::{RestoreError, Waiter};
use serde::{Deserialize, Serialize};
use vmsa::{Access, AccessKind};

use crate::features::Features;
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
    access: Access,
    /// A [`ResumeAction`], or [`Self::UNANSWERED`].
    action: AtomicU8,
    waited_for: WaitedFor,
}

/// Who waits for a stall's answer.
#[derive(Debug)]
enum WaitedFor {
    /// A thread of a device; it may have given up.
    By(Arc<Waiter>),
    /// Nobody yet: an access that will be made again.
    Orphan,
    /// Nobody, and nobody will: its device had given up when the state was saved.
    GivenUp,
}

impl Stalled {
    const UNANSWERED: u8 = 0;

    pub(crate) fn new(tx: &Transaction, waiter: &Arc<Waiter>) -> Arc<Self> {
        let &Transaction { sid, ssid, address, access, command, .. } = tx;
        let (action, waited_for) = (AtomicU8::new(Self::UNANSWERED), WaitedFor::By(Arc::clone(waiter)));
        Arc::new(Self { sid, ssid, address, command, access, action, waited_for })
    }

    fn save(&self, stag: Option<u16>, at_once: bool) -> SavedStall {
        let has_given_up = match &self.waited_for {
            WaitedFor::By(waiter) => waiter.is_cancelled(),
            WaitedFor::Orphan => false,
            WaitedFor::GivenUp => true,
        };
        SavedStall {
            stag: stag.map(|stag| Hex(stag.into())),
            sid: self.sid,
            ssid: self.ssid.map(|ssid| Hex(ssid.into())),
            address: self.address,
            kind: match self.access.kind {
                AccessKind::Read => SavedKind::Read,
                AccessKind::Write => SavedKind::Write,
                AccessKind::Execute => SavedKind::Execute,
            },
            privileged: self.access.privileged,
            queue: self.command.map(|command| command.queue),
            index: self.command.and_then(|command| command.index),
            has_given_up,
            at_once,
        }
    }

    fn of_saved(saved: &SavedStall, features: &Features) -> Result<Arc<Self>, RestoreError> {
        if u64::from(saved.sid) >> features.sid_bits != 0 {
            return Err(RestoreError::value("StreamID", "has more bits than IDR1.SIDSIZE"));
        }
        let ssid = saved.ssid.map(|Hex(ssid)| match u32::try_from(ssid) {
            Ok(ssid) if ssid >> features.ssid_bits == 0 => Ok(ssid),
            _ => Err(RestoreError::value("SubstreamID", "has more bits than IDR1.SSIDSIZE")),
        });
        let kind = match saved.kind {
            SavedKind::Read => AccessKind::Read,
            SavedKind::Write => AccessKind::Write,
            SavedKind::Execute => AccessKind::Execute,
        };
        let command = match (saved.queue, saved.index) {
            (Some(queue), index) => Some(Command { queue, index }),
            (None, None) => None,
            (None, Some(_)) => return Err(RestoreError::value("index", "of no queue")),
        };
        Ok(Arc::new(Self {
            sid: saved.sid,
            ssid: ssid.transpose()?,
            address: saved.address,
            command,
            access: Access { kind, privileged: saved.privileged },
            action: AtomicU8::new(Self::UNANSWERED),
            waited_for: if saved.has_given_up { WaitedFor::GivenUp } else { WaitedFor::Orphan },
        }))
    }

    fn is_of(&self, tx: &Transaction) -> bool {
        (self.sid, self.ssid, self.access) == (tx.sid, tx.ssid, tx.access)
    }

    const fn is_orphan(&self) -> bool {
        matches!(self.waited_for, WaitedFor::Orphan)
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
        if self.action.compare_exchange(Self::UNANSWERED, action, ordering, Ordering::Acquire).is_ok()
            && let WaitedFor::By(waiter) = &self.waited_for
        {
            waiter.notify();
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedKind {
    Read,
    Write,
    Execute,
}

/// A stalled transaction as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedStall {
    /// Of one that software has not answered.
    #[serde(rename = "STAG", default, skip_serializing_if = "Option::is_none")]
    stag: Option<Hex>,
    #[serde(rename = "StreamID", with = "hw::saved::hex")]
    sid: u32,
    #[serde(rename = "SubstreamID", default, skip_serializing_if = "Option::is_none")]
    ssid: Option<Hex>,
    #[serde(rename = "InputAddr", with = "hw::saved::hex")]
    address: u64,
    kind: SavedKind,
    privileged: bool,
    /// The device's command, as a fault plan knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u16>,
    /// No access waits for the answer, and none will.
    #[serde(default, skip_serializing_if = "is_false")]
    has_given_up: bool,
    /// See [`Aborted::at_once`].
    #[serde(default, skip_serializing_if = "is_false")]
    at_once: bool,
}

// The form that serde asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// All stalled transactions as they are saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedStalls {
    #[serde(with = "hw::saved::hex")]
    next_stag: u16,
    /// Records that software has not answered.
    recorded: Vec<SavedStall>,
    /// Aborted by software, and the access has not been made again yet.
    aborted: Vec<SavedStall>,
}

impl SavedStalls {
    pub(crate) const fn is_empty(&self) -> bool {
        self.recorded.is_empty()
    }
}

/// All stalled transactions.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// By STAG; at most STALL_MAX.
    recorded: BTreeMap<u16, Arc<Stalled>>,
    next_stag: u16,
    /// At most one for each thread of a device.
    unrecorded: Vec<Arc<Stalled>>,
    /// Those whose record a fault plan delays. A timer retries them.
    delayed: Vec<Arc<Stalled>>,
    /// Orphans that were aborted; no more than were restored.
    aborted: Vec<Aborted>,
}

/// An orphan that was aborted before its access has been made again.
#[derive(Debug)]
struct Aborted {
    stalled: Arc<Stalled>,
    /// Translation has ended: not only the access that faulted, but each that the device makes again before it would go where
    /// no table leads.
    at_once: bool,
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
            let stalled = entry.remove();
            stalled.answer(action);
            if action == ResumeAction::Abort {
                self.keep_abort(stalled, false);
            }
            self.retry_unrecorded();
        }
    }

    /// CMD_STALL_TERM. A stall whose record is delayed has not been found yet.
    pub(crate) fn terminate(&mut self, sid: u32) {
        let ended: Vec<_> = self.recorded.extract_if(.., |_, stalled| stalled.sid == sid).collect();
        for (_, stalled) in ended {
            stalled.answer(ResumeAction::Abort);
            self.keep_abort(stalled, false);
        }
        self.unrecorded
            .extract_if(.., |stalled| stalled.sid == sid)
            .for_each(|stalled| stalled.answer(ResumeAction::Abort));
        self.retry_unrecorded();
    }

    /// The end of translation, by SMMUEN or by a reset.
    pub(crate) fn terminate_all(&mut self) {
        for stalled in std::mem::take(&mut self.recorded).into_values() {
            stalled.answer(ResumeAction::Abort);
            self.keep_abort(stalled, true);
        }
        self.unrecorded
            .drain(..)
            .chain(self.delayed.drain(..))
            .for_each(|stalled| stalled.answer(ResumeAction::Abort));
        self.aborted.iter_mut().for_each(|aborted| aborted.at_once = true);
    }

    fn keep_abort(&mut self, stalled: Arc<Stalled>, at_once: bool) {
        if stalled.is_orphan() {
            self.aborted.push(Aborted { stalled, at_once });
        }
    }

    /// An access that is made again meets a fault that stalls: it waits for the answer to the record of before, if there is
    /// one.
    pub(crate) fn adopt(&mut self, tx: &Transaction, waiter: &Arc<Waiter>) -> Option<Arc<Stalled>> {
        let is_same = |stalled: &Stalled| {
            stalled.is_orphan() && stalled.is_of(tx) && stalled.address >> 12 == tx.address >> 12
        };
        // The oldest record first, as far as STAGs tell.
        let next = self.next_stag;
        let candidates = self.recorded.iter_mut().filter(|(_, stalled)| is_same(stalled));
        let (_, orphan) = candidates.min_by_key(|(stag, _)| stag.wrapping_sub(next))?;
        *orphan = Stalled::new(tx, waiter);
        Some(Arc::clone(orphan))
    }

    /// The address at which an access that is made again has been aborted before.
    pub(crate) fn take_abort(&mut self, tx: &Transaction, len: u64) -> Option<u64> {
        let last = tx.address.saturating_add(len.saturating_sub(1));
        let is_same = |aborted: &Aborted| {
            let Aborted { stalled, at_once } = aborted;
            let is_inside = (tx.address..=last).contains(&stalled.address) && stalled.is_of(tx);
            is_inside || *at_once && (stalled.sid, stalled.ssid) == (tx.sid, tx.ssid)
        };
        let place = self.aborted.iter().position(is_same)?;
        let address = self.aborted.swap_remove(place).stalled.address;
        Some(if (tx.address..=last).contains(&address) { address } else { tx.address })
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

    /// The recorded ones, in the order of their STAGs, and the aborts that are kept.
    pub(crate) fn save(&self) -> SavedStalls {
        let mut recorded: Vec<_> =
            self.recorded.iter().map(|(stag, of)| of.save(Some(*stag), false)).collect();
        recorded.sort_unstable_by_key(|saved| saved.stag.map(|stag| stag.0));
        let aborted = self.aborted.iter().map(|of| of.stalled.save(None, of.at_once)).collect();
        SavedStalls { next_stag: self.next_stag, recorded, aborted }
    }

    /// What [`Self::save`] has given: all of them orphans.
    pub(crate) fn of_saved(saved: SavedStalls, features: &Features) -> Result<Self, RestoreError> {
        let mut stalls = Self { next_stag: saved.next_stag, ..Self::default() };
        let most = if features.can_stall() { usize::from(features.stall_max) } else { 0 };
        for (name, list) in [("recorded", &saved.recorded), ("aborted", &saved.aborted)] {
            if list.len() > most {
                return Err(RestoreError::value(name, "more than STALL_MAX"));
            }
        }
        for saved in saved.recorded {
            let Some(stag) = saved.stag.and_then(|stag| u16::try_from(stag.0).ok()) else {
                return Err(RestoreError::value("recorded", "a stall without a STAG of 16 bits"));
            };
            let stalled = Stalled::of_saved(&saved, features)?;
            if stalls.recorded.insert(stag, stalled).is_some() {
                return Err(RestoreError::value("recorded", format!("STAG {stag:#x} comes twice")));
            }
        }
        for saved in saved.aborted {
            if saved.stag.is_some() || saved.has_given_up {
                return Err(RestoreError::value("aborted", "nobody waits for this one"));
            }
            let stalled = Stalled::of_saved(&saved, features)?;
            stalls.aborted.push(Aborted { stalled, at_once: saved.at_once });
        }
        Ok(stalls)
    }

    /// Recorded and not answered.
    pub(crate) fn recorded_count(&self) -> usize {
        self.recorded.len()
    }
}
