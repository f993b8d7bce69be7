//! Address translation services, the messages: which endpoint is behind a stream, and the invalidations that
//! CMD_SYNC waits for (3.9, 4.5).
//!
//! An endpoint may complete an invalidation from within the call, or later from any thread. A CMD_SYNC that has to
//! wait stays at the head of the command queue; the last completion, or the end of the SMMU's patience, makes the
//! queue go on. So no vCPU ever waits for an endpoint. What a translation request gets is in `translation_request`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hw::ats::{AtsEndpoint, InvalidateRequest, InvalidateTag};
use hw::{AlarmTarget, Alarms, Clock, Iova, Pasid};

use crate::Smmu;
use crate::spec::command::{AtcInvD1, AtsD0};

/// How long an endpoint may take to complete an invalidation, in nanoseconds of guest time. Shorter than what a
/// driver gives a CMD_SYNC (Linux: a second), so that it is told which of them failed.
pub(crate) const INVALIDATION_PATIENCE_NS: u64 = 250_000_000;

/// Most Invalidate Requests of one endpoint that are waited for: as many as their 5-bit ITag tells apart (PCIe Base,
/// 10.3.1). An endpoint that owes more has stopped to answer: the oldest then counts as overdue, whatever the time.
pub(crate) const OWED_MAX: usize = 32;

/// Invalidations that endpoints have not completed.
#[derive(Debug, Default)]
struct Pending {
    /// Those of each stream that has any, the oldest first.
    owed: HashMap<u32, VecDeque<InvalidateTag>>,
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
        self.owed.is_empty()
    }

    /// One more for `sid`.
    fn owe(&mut self, sid: u32) -> InvalidateTag {
        let tag = InvalidateTag(self.next_tag);
        self.next_tag += 1;
        let owed = self.owed.entry(sid).or_default();
        if owed.len() == OWED_MAX {
            owed.pop_front();
            self.is_one_lost = true;
        }
        owed.push_back(tag);
        tag
    }

    /// An endpoint has answered. Whether that was waited for.
    fn settle(&mut self, sid: u32, tag: InvalidateTag) -> bool {
        let Some(owed) = self.owed.get_mut(&sid) else { return false };
        let Some(at) = owed.iter().position(|owed| *owed == tag) else { return false };
        owed.remove(at);
        if owed.is_empty() {
            self.owed.remove(&sid);
        }
        true
    }
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

/// Endpoints, and what they owe. Behind its locks is only the alarm list's.
pub(crate) struct AtsSide {
    endpoints: Mutex<HashMap<u32, Weak<dyn AtsEndpoint>>>,
    pending: Mutex<Pending>,
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    alarm: usize,
}

/// Calls the SMMU when a CMD_SYNC has waited long enough.
struct Patience(Weak<Smmu>);

impl AlarmTarget for Patience {
    fn alarm(&self) {
        if let Some(smmu) = self.0.upgrade() {
            smmu.patience_is_over();
        }
    }
}

impl AtsSide {
    pub(crate) fn new(smmu: &Weak<Smmu>, clock: Arc<dyn Clock>, alarms: Arc<dyn Alarms>) -> Self {
        let alarm = alarms.register(Arc::new(Patience(Weak::clone(smmu))));
        Self { endpoints: Mutex::default(), pending: Mutex::default(), clock, alarms, alarm }
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<u32, Weak<dyn AtsEndpoint>>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(&self, sid: u32, endpoint: Weak<dyn AtsEndpoint>) {
        self.endpoints().insert(sid, endpoint);
    }

    /// For CMD_SYNC, by the consumer. Nobody else sets the alarm, and it is set under the lock: it is that of the
    /// latest deadline.
    pub(crate) fn invalidations(&self) -> Invalidations {
        let mut pending = self.pending();
        let (result, alarm) = if std::mem::take(&mut pending.is_one_lost) {
            // The others are waited for when software repeats the CMD_SYNC.
            pending.deadline_ns = None;
            (Invalidations::Failed, None)
        } else if std::mem::take(&mut pending.is_overdue) && !pending.is_empty() {
            // The last completions may have come after the time, but before the queue went on. Those that did not
            // count as failed; what still comes is not waited for.
            pending.owed.clear();
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
            let deadline = self.clock.now_ns().saturating_add(INVALIDATION_PATIENCE_NS);
            pending.deadline_ns = Some(deadline);
            (Invalidations::Waiting, Some(deadline))
        };
        self.alarms.set(self.alarm, alarm);
        result
    }
}

impl Smmu {
    pub(crate) fn endpoint(&self, sid: u32) -> Option<Arc<dyn AtsEndpoint>> {
        self.ats.endpoints().get(&sid).and_then(Weak::upgrade)
    }

    /// CMD_ATC_INV. Where no endpoint is, the interconnect answers at once that there is none.
    pub(crate) fn invalidate_atc(&self, d0: AtsD0, d1: AtcInvD1) {
        let Some(endpoint) = self.endpoint(d0.sid()) else { return };
        // 52 and more are everything.
        let size_log2 = 12 + d1.size().min(52);
        let start = if size_log2 >= 64 { 0 } else { u64::MAX << size_log2 };
        let pasid = self.features.pasid(d0.ssv().then(|| Pasid::new(d0.ssid())).flatten());
        let request = InvalidateRequest {
            pasid,
            global: pasid.is_some() && d0.global(),
            address: Iova(d1.address_63_12() << 12 & start),
            size_log2,
        };
        let tag = {
            let mut pending = self.ats.pending();
            // Commands are executed in order: no CMD_SYNC waits, or it has been withdrawn.
            pending.deadline_ns = None;
            pending.owe(d0.sid())
        };
        endpoint.invalidate(&request, tag);
    }

    /// An endpoint has completed an invalidation.
    pub(crate) fn complete_invalidation(&self, sid: u32, tag: InvalidateTag) {
        let goes_on = {
            let mut pending = self.ats.pending();
            pending.settle(sid, tag) && pending.is_empty() && pending.deadline_ns.is_some()
        };
        // Never from within `invalidate_atc`, which has the consumer's lock: no CMD_SYNC waits then.
        if goes_on {
            self.consume_commands();
        }
    }

    fn patience_is_over(&self) {
        {
            let mut pending = self.ats.pending();
            if pending.is_empty() || pending.deadline_ns.is_none_or(|at| self.ats.clock.now_ns() < at) {
                return;
            }
            pending.is_overdue = true;
        }
        self.consume_commands();
    }
}
