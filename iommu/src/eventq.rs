//! Event queue: records of faults, and what becomes of those that can't be recorded (7.2, 7.4).

use hw::fault::{Command, FaultAction};
use hw::trace::Mark;
use hw::{Iova, Pa, StreamId, Track};

use crate::faults::not_of_this_point;
use crate::interrupts::Interrupt;
use crate::queue::Ring;
use crate::smmu::Smmu;
use crate::spec::event::{EVENT_BYTES, Event};
use crate::spec::regs::{QueueBase, SmmuReg, gerror, queue_index};
use crate::state::State;
use crate::stats::count;

/// Why an event was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRecorded {
    /// No space: an overflow, if the event is lost by it.
    Full,
    /// EVENTQEN is 0, or an earlier write was aborted and not acknowledged, or this one was.
    Off,
}

impl Smmu {
    pub(crate) fn event_ring(&self, state: &State) -> Ring {
        let base = QueueBase::from(state.get(SmmuReg::SMMU_EVENTQ_BASE));
        Ring::new(base, self.features.eventq_log2, EVENT_BYTES, self.features.output_mask())
    }

    /// Records an event of a transaction that has been aborted. If that can't be, it is lost (7.4).
    pub(crate) fn record(&self, state: &mut State, event: &Event, command: Option<Command>) {
        let (sid, name) = (event.d0.sid(), event.d0.event().name());
        let kind = if event.d0.event().is_of_configuration() {
            "accesses that the configuration of their stream aborts"
        } else {
            "accesses that a fault of their translation aborts"
        };
        self.errors.report(kind, format_args!("an access of StreamID {sid:#x} ends with {name}"));
        let result = match self.faults.at_event(event) {
            None => self.try_record(state, event, command),
            Some(FaultAction::Overflow) => Err(NotRecorded::Full),
            Some(FaultAction::ExternalAbort) => Err(self.abort_write(state)),
            Some(other) => not_of_this_point(other),
        };
        let Err(reason) = result else { return };
        count(&self.stats.events_lost);
        self.errors.report(
            "event records lost",
            format_args!("event record {} lost: {reason:?}", event.d0.event().name()),
        );
        if reason == NotRecorded::Full {
            let prod = state.word(SmmuReg::SMMU_EVENTQ_PROD);
            let unacknowledged = prod ^ state.word(SmmuReg::SMMU_EVENTQ_CONS);
            if unacknowledged & queue_index::OVERFLOW == 0 {
                state.set_word(SmmuReg::SMMU_EVENTQ_PROD, prod ^ queue_index::OVERFLOW);
            }
        }
    }

    /// Nothing answers where a record goes.
    fn abort_write(&self, state: &mut State) -> NotRecorded {
        self.raise(state, gerror::EVENTQ_ABT_ERR);
        NotRecorded::Off
    }

    /// Writes a record if the queue can take it now. The command is that of the access, if it is for one.
    pub(crate) fn try_record(
        &self,
        state: &mut State,
        event: &Event,
        command: Option<Command>,
    ) -> Result<(), NotRecorded> {
        if !state.cr0().eventqen() || state.active_errors() & gerror::EVENTQ_ABT_ERR != 0 {
            return Err(NotRecorded::Off);
        }
        let ring = self.event_ring(state);
        let prod = state.word(SmmuReg::SMMU_EVENTQ_PROD);
        let cons = state.word(SmmuReg::SMMU_EVENTQ_CONS);
        if ring.is_full(prod, cons) {
            return Err(NotRecorded::Full);
        }
        let at = ring.entry(prod);
        let dwords = [event.d0.into(), event.d1.into(), event.d2, event.d3];
        let written = (0u64..).zip(dwords).try_for_each(|(i, d)| self.ram.store_u64(Pa(at + 8 * i), d));
        if written.is_err() {
            return Err(self.abort_write(state));
        }
        self.stats.event(event.d0.event());
        log::debug!("event {event:x?}");
        self.trace.mark(Track::SmmuEvents, || Mark::Record {
            name: event.d0.event().name(),
            stream: StreamId(event.d0.sid()),
            pasid: event.d0.ssv().then(|| event.d0.ssid()),
            command,
            at: Iova(event.d2),
            stag: event.d1.stall().then(|| event.d1.stag()),
        });
        let was_empty = ring.is_empty(prod, cons);
        state.set_word(SmmuReg::SMMU_EVENTQ_PROD, ring.next(prod) | prod & queue_index::OVERFLOW);
        if was_empty {
            self.interrupt(state, Interrupt::Eventq);
        }
        Ok(())
    }
}
