//! What becomes of a transaction that faults: its record, its stall, the wait for an answer, and its abort (3.12, 7.3).

use std::sync::Arc;

use hw::trace::{Ending, Slice, SliceKind};
use hw::{Dir, DmaFault, Iova, Requester, StreamId, Track};

use crate::late_answers::Delayed;
use crate::smmu::Smmu;
use crate::spec::event::{Event, EventType};
use crate::stalls::{ResumeAction, Stalled};
use crate::state::State;
use crate::stats::{Access, count};
use crate::transaction::{Fault, Kind, Transaction};

/// What follows a fault that has been recorded.
enum Outcome {
    Abort,
    /// Stalled.
    Wait(Arc<Stalled>),
    /// The stall is found again when a timer retries it.
    Delay(Arc<Stalled>),
}

impl Smmu {
    /// Records an event of a transaction, unless it is one that requests and translated accesses don't cause (3.9.1.2,
    /// 3.9.1.3).
    pub(crate) fn record_for(&self, tx: &Transaction, event: &Event) {
        let mut state = self.state();
        let cr2 = state.cr2();
        let is_recorded = match (tx.kind, event.d0.event()) {
            (Kind::Untranslated, _) => true,
            (_, EventType::F_BAD_ATS_TREQ | EventType::F_TRANSL_FORBIDDEN) => true,
            // RECINVSID does not apply to translated accesses.
            (Kind::Request, EventType::C_BAD_STREAMID) => cr2.rec_cfg_ats() && cr2.recinvsid(),
            (
                Kind::Request,
                EventType::F_TRANSLATION
                | EventType::F_ADDR_SIZE
                | EventType::F_ACCESS
                | EventType::F_PERMISSION,
            ) => {
                unreachable!("a request whose translation faults is answered without a record: `Smmu::grant`")
            }
            // Faults of stage 2 in split-stage ATS are recorded as those of untranslated accesses.
            (Kind::Translated, event) if event.0 >= EventType::F_WALK_EABT.0 => true,
            _ => cr2.rec_cfg_ats(),
        };
        if is_recorded {
            self.record(&mut state, event, tx.command);
        }
    }

    /// Records a stall, or leaves it waiting to be recorded.
    fn stall(&self, state: &mut State, mut event: Event, stalled: &Arc<Stalled>) {
        count(&self.stats.stalls);
        let stag = state.stalls.free_stag();
        event.d1 = event.d1.with_stall(true).with_stag(stag);
        if let Some(track) = Track::of_command(StreamId(event.d0.sid()), stalled.command) {
            let dir = if event.d1.rnw() { Dir::Read } else { Dir::Write };
            self.trace.begin(track, || Slice::Stall { at: Iova(stalled.address), dir });
        }
        self.page_faults.count(self.clock.now_ns());
        let has_room = state.stalls.recorded_count() < usize::from(self.features.stall_max);
        if has_room && self.try_record(state, &event, stalled.command).is_ok() {
            state.stalls.add_recorded(stag, stalled);
        } else {
            state.stalls.add_unrecorded(stalled);
        }
    }

    /// Records a fault. Its access is still counted in, so that the record is written before a later CMD_SYNC
    /// completes.
    #[cold]
    fn report(&self, who: &Requester, tx: &mut Transaction, fault: Fault) -> Outcome {
        match fault {
            Fault::Silent | Fault::Blocked => Outcome::Abort,
            Fault::Recorded(event) => {
                self.record_for(tx, &event);
                Outcome::Abort
            }
            Fault::Stalled(event) => {
                let mut state = self.state();
                if !state.cr0().smmuen() {
                    // Translation ended meanwhile, and with it all stalls. A retry would pass untranslated.
                    return Outcome::Abort;
                }
                if who.waiter.is_made_again()
                    && let Some(stalled) = state.stalls.adopt(tx, &who.waiter)
                {
                    return Outcome::Wait(stalled);
                }
                let stalled = Stalled::new(tx, &who.waiter);
                if let Some(ns) = self.faults.delay_of_stall(tx) {
                    state.stalls.add_delayed(&stalled);
                    self.delays.later(ns, Delayed::Retry(Arc::clone(&stalled)));
                    return Outcome::Delay(stalled);
                }
                self.stall(&mut state, event, &stalled);
                Outcome::Wait(stalled)
            }
        }
    }

    /// Records a fault, counts its access out, and waits for its answer. `Ok`, with the result of [`Smmu::leave`], if
    /// it is to be translated again.
    #[cold]
    pub(crate) fn handle_fault(
        &self,
        who: &Requester,
        tx: &mut Transaction,
        fault: Fault,
        access: Access<'_>,
    ) -> Result<u64, DmaFault> {
        if who.waiter.is_cancelled() {
            // The device gave the access up while it was retried: no further event is recorded.
            return Err(DmaFault::Cancelled);
        }
        tx.command = who.command;
        let outcome = self.report(who, tx, fault);
        let resets = self.leave(access);
        // With no lock held.
        let wait = |stalled: &Stalled| {
            let action = who.waiter.wait(|| stalled.action());
            if let Some(track) = Track::of(who) {
                let ending = match action {
                    Ok(ResumeAction::Retry) => "retried",
                    Ok(ResumeAction::Abort) => "aborted",
                    Err(_) => "given up",
                };
                self.trace.end(track, SliceKind::Stall, Ending::Said(ending));
            }
            action
        };
        let action = match outcome {
            Outcome::Abort => ResumeAction::Abort,
            Outcome::Wait(stalled) => {
                let action = wait(&stalled).inspect_err(|_| self.state().stalls.forget(&stalled))?;
                if action == ResumeAction::Retry {
                    count(&self.stats.retries);
                }
                action
            }
            Outcome::Delay(stalled) => {
                let action = wait(&stalled);
                self.state().stalls.forget(&stalled);
                action?
            }
        };
        match action {
            ResumeAction::Retry => Ok(resets),
            ResumeAction::Abort => Err(self.aborted(tx.address)),
        }
    }

    /// The end of an access at this address.
    #[cold]
    pub(crate) fn aborted(&self, address: u64) -> DmaFault {
        count(&self.stats.aborts);
        DmaFault::Aborted(Iova(address))
    }
}
