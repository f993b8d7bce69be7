//! Endpoints with a translation cache: which one is behind a stream, and the invalidations that CMD_SYNC waits for (3.9,
//! 4.5).
//!
//! An endpoint may complete an invalidation from within the call, or later from any thread. A CMD_SYNC that has to
//! wait stays at the head of the command queue; the last completion, or the timeout, lets the queue go on. So no vCPU
//! ever waits for an endpoint.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use hw::ats::{AtsEndpoint, InvalidateRequest, InvalidateTag, PageResponse};
use hw::{AlarmTarget, Alarms, Clock, Iova, Pasid, RestoreError};
use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::lock::lock;
use crate::spec::command::{AtcInvD1, AtsD0};

/// How long an endpoint may take to complete an invalidation, in nanoseconds of guest time. Shorter than what a
/// driver gives a CMD_SYNC (Linux: a second), so that the driver learns which of them failed.
pub(crate) const INVALIDATION_TIMEOUT_NS: u64 = 250_000_000;

/// Most Invalidate Requests of one endpoint that are waited for: as many as their 5-bit ITag tells apart (PCIe Base,
/// 10.3.1). With one more, the endpoint counts as not answering: the oldest has failed, whatever the time.
pub(crate) const OUTSTANDING_MAX: usize = 32;

/// Invalidations that endpoints have not completed.
#[derive(Debug, Default)]
struct Pending {
    /// Those of each stream that has any, the oldest first.
    outstanding: BTreeMap<u32, VecDeque<InvalidateTag>>,
    next_tag: u64,
    /// One is no longer waited for, because too many came after it: the next CMD_SYNC fails.
    is_one_lost: bool,
    /// A CMD_SYNC waits at the head of the command queue, until this time.
    deadline_ns: Option<u64>,
    /// The time is over: that CMD_SYNC fails.
    is_overdue: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// The tag of one more invalidation for `sid`.
    fn add(&mut self, sid: u32) -> InvalidateTag {
        let tag = InvalidateTag(self.next_tag);
        self.next_tag += 1;
        let outstanding = self.outstanding.entry(sid).or_default();
        if outstanding.len() == OUTSTANDING_MAX {
            outstanding.pop_front();
            self.is_one_lost = true;
        }
        outstanding.push_back(tag);
        tag
    }

    /// An endpoint has answered. Whether that was waited for.
    fn complete(&mut self, sid: u32, tag: InvalidateTag) -> bool {
        let Some(outstanding) = self.outstanding.get_mut(&sid) else { return false };
        let Some(at) = outstanding.iter().position(|other| *other == tag) else { return false };
        outstanding.remove(at);
        if outstanding.is_empty() {
            self.outstanding.remove(&sid);
        }
        true
    }
}

/// What endpoints owe one stream, as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedOutstanding {
    #[serde(rename = "StreamID", with = "hw::saved::hex")]
    sid: u32,
    /// The oldest first.
    tags: Vec<u64>,
}

/// Invalidations that endpoints have not completed, as they are saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedInvalidations {
    outstanding: Vec<SavedOutstanding>,
    next_tag: u64,
    is_one_lost: bool,
    is_overdue: bool,
    /// A CMD_SYNC waits at the head of the command queue.
    sync_deadline_in_ns: Option<u64>,
}

/// What CMD_SYNC finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalidations {
    Complete,
    /// The command queue goes on by itself later.
    Waiting,
    /// An endpoint did not answer.
    Failed,
}

/// Endpoints, and the invalidations that they have not completed. Only the alarm list's lock is taken with one of
/// these held.
pub(crate) struct Endpoints {
    endpoints: Mutex<BTreeMap<u32, Weak<dyn AtsEndpoint>>>,
    pending: Mutex<Pending>,
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    alarm: usize,
}

impl Endpoints {
    /// `timeout` is called when a CMD_SYNC has waited long enough.
    pub(crate) fn new(clock: Arc<dyn Clock>, alarms: Arc<dyn Alarms>, timeout: Arc<dyn AlarmTarget>) -> Self {
        let alarm = alarms.register(timeout);
        Self { endpoints: Mutex::default(), pending: Mutex::default(), clock, alarms, alarm }
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<u32, Weak<dyn AtsEndpoint>>> {
        lock(&self.endpoints)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        lock(&self.pending)
    }

    pub(crate) fn attach(&self, sid: u32, endpoint: Weak<dyn AtsEndpoint>) {
        self.endpoints().insert(sid, endpoint);
    }

    fn of_stream(&self, sid: u32) -> Option<Arc<dyn AtsEndpoint>> {
        self.endpoints().get(&sid).and_then(Weak::upgrade)
    }

    /// Sends a PRG response to the endpoint of a stream, if there is one. No lock of the SMMU but the command consumer's may
    /// be held.
    pub(crate) fn respond(&self, sid: u32, response: &PageResponse) {
        if let Some(endpoint) = self.of_stream(sid) {
            endpoint.page_response(response);
        }
    }

    /// CMD_ATC_INV, by the consumer. Without an endpoint the interconnect completes the request at once.
    pub(crate) fn invalidate(&self, features: &Features, d0: AtsD0, d1: AtcInvD1) {
        let Some(endpoint) = self.of_stream(d0.sid()) else { return };
        // 52 and more are everything.
        let size_log2 = 12 + d1.size().min(52);
        let start = if size_log2 >= 64 { 0 } else { u64::MAX << size_log2 };
        let pasid = features.pasid(d0.ssv().then(|| Pasid::new(d0.ssid())).flatten());
        let request = InvalidateRequest {
            pasid,
            global: pasid.is_some() && d0.global(),
            address: Iova(d1.address_63_12() << 12 & start),
            size_log2,
        };
        let tag = {
            let mut pending = self.pending();
            // Commands are executed in order: no CMD_SYNC waits, or it has been withdrawn.
            pending.deadline_ns = None;
            pending.add(d0.sid())
        };
        endpoint.invalidate(&request, tag);
    }

    /// For CMD_SYNC, by the consumer. Only this and a reset set the alarm, both with the lock held: it is always that
    /// of the latest deadline.
    pub(crate) fn invalidations(&self) -> Invalidations {
        let mut pending = self.pending();
        let (result, alarm) = if mem::take(&mut pending.is_one_lost) {
            // The others are waited for when software repeats the CMD_SYNC.
            pending.deadline_ns = None;
            (Invalidations::Failed, None)
        } else if mem::take(&mut pending.is_overdue) && !pending.is_empty() {
            // The last completions may have come after the time, but before the queue went on. Invalidations that are
            // still outstanding have failed and are no longer waited for.
            pending.outstanding.clear();
            pending.deadline_ns = None;
            (Invalidations::Failed, None)
        } else if pending.is_empty() {
            if pending.deadline_ns.take().is_none() {
                return Invalidations::Complete;
            }
            (Invalidations::Complete, None)
        } else if pending.deadline_ns.is_some() {
            return Invalidations::Waiting;
        } else {
            let deadline = self.clock.now_ns().saturating_add(INVALIDATION_TIMEOUT_NS);
            pending.deadline_ns = Some(deadline);
            (Invalidations::Waiting, Some(deadline))
        };
        self.alarms.set(self.alarm, alarm);
        result
    }

    /// Waits for no endpoint any more. Tags go on, so that a completion that still comes finds nothing.
    pub(crate) fn reset(&self) {
        let mut pending = self.pending();
        *pending = Pending { next_tag: pending.next_tag, ..Pending::default() };
        self.alarms.set(self.alarm, None);
    }

    /// What is owed, for the SMMU's state.
    pub(crate) fn save(&self) -> SavedInvalidations {
        let now = self.clock.now_ns();
        let pending = self.pending();
        let tags = |(sid, tags): (&u32, &VecDeque<InvalidateTag>)| SavedOutstanding {
            sid: *sid,
            tags: tags.iter().map(|tag| tag.0).collect(),
        };
        let mut outstanding: Vec<_> = pending.outstanding.iter().map(tags).collect();
        outstanding.sort_unstable_by_key(|of| of.sid);
        SavedInvalidations {
            outstanding,
            next_tag: pending.next_tag,
            is_one_lost: pending.is_one_lost,
            is_overdue: pending.is_overdue,
            sync_deadline_in_ns: pending.deadline_ns.map(|at| at.saturating_sub(now)),
        }
    }

    /// Takes up what was owed. The endpoints are attached.
    pub(crate) fn restore(&self, saved: SavedInvalidations) -> Result<(), RestoreError> {
        let SavedInvalidations { outstanding, next_tag, is_one_lost, is_overdue, sync_deadline_in_ns } =
            saved;
        if sync_deadline_in_ns.is_some_and(|ns| ns > INVALIDATION_TIMEOUT_NS) {
            return Err(RestoreError::value("sync_deadline_in_ns", "is longer than a CMD_SYNC waits"));
        }
        // Each tag is used once; so many never are.
        if next_tag > u64::MAX / 2 {
            return Err(RestoreError::value("next_tag", "is out of range"));
        }
        let mut of_streams = BTreeMap::new();
        for SavedOutstanding { sid, tags } in outstanding {
            let refused = |why| RestoreError::value(format!("outstanding/{sid:#x}"), why);
            if self.of_stream(sid).is_none() {
                return Err(refused("no endpoint with a translation cache is behind this stream"));
            }
            if tags.is_empty() || tags.len() > OUTSTANDING_MAX {
                return Err(refused("no number of tags that an endpoint can owe"));
            }
            if !tags.is_sorted_by(|a, b| a < b) || tags.last().is_some_and(|tag| *tag >= next_tag) {
                return Err(refused("tags are not in the order in which they are used"));
            }
            if of_streams.insert(sid, tags.into_iter().map(InvalidateTag).collect()).is_some() {
                return Err(refused("comes twice"));
            }
        }
        let deadline_ns = sync_deadline_in_ns.map(|ns| self.clock.now_ns().saturating_add(ns));
        let mut pending = self.pending();
        *pending = Pending { outstanding: of_streams, next_tag, is_one_lost, deadline_ns, is_overdue };
        self.alarms.set(self.alarm, deadline_ns);
        Ok(())
    }

    /// An endpoint has completed an invalidation. Whether a CMD_SYNC waited for this one alone.
    pub(crate) fn complete(&self, sid: u32, tag: InvalidateTag) -> bool {
        let mut pending = self.pending();
        pending.complete(sid, tag) && pending.is_empty() && pending.deadline_ns.is_some()
    }

    /// The alarm has gone off. Whether a CMD_SYNC has waited too long and fails now.
    pub(crate) fn time_out(&self) -> bool {
        let mut pending = self.pending();
        if pending.is_empty() || pending.deadline_ns.is_none_or(|at| self.clock.now_ns() < at) {
            return false;
        }
        pending.is_overdue = true;
        true
    }
}
