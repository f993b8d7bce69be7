//! Event queue: what software is told, and the interrupts and global errors around it (7.2, 7.4, 3.18).

use hw::Pa;

use crate::Smmu;
use crate::queue::Ring;
use crate::registers::State;
use crate::spec::event::{EVENT_BYTES, Event};
use crate::spec::regs::{QueueBase, SmmuReg, gerror, queue_index};
use crate::stats::count;

/// Why an event was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRecorded {
    /// No space: an overflow, if the event is lost by it.
    Full,
    /// EVENTQEN is 0, or an earlier write was aborted and not acknowledged, or this one was.
    Off,
}

/// Sources of interrupts that IRQ_CTRL governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Eventq,
    Priq,
    Gerror,
}

impl Smmu {
    pub(crate) fn event_ring(&self, state: &State) -> Ring {
        let base = QueueBase::from(state.get(SmmuReg::SMMU_EVENTQ_BASE));
        Ring::new(base, self.features.eventq_log2, EVENT_BYTES, self.features.output_mask())
    }

    /// Records an event of a transaction that has been aborted. If that can't be, it is lost (7.4).
    pub(crate) fn record(&self, state: &mut State, event: &Event) {
        match self.fault_of_event(state, event).map_or_else(|| self.try_record(state, event), Err) {
            Ok(()) => {}
            Err(reason) => {
                count(&self.stats.events_lost);
                if reason == NotRecorded::Full {
                    let prod = state.word(SmmuReg::SMMU_EVENTQ_PROD);
                    let acknowledged = prod ^ state.word(SmmuReg::SMMU_EVENTQ_CONS);
                    if acknowledged & queue_index::OVERFLOW == 0 {
                        state.set_word(SmmuReg::SMMU_EVENTQ_PROD, prod ^ queue_index::OVERFLOW);
                    }
                }
            }
        }
    }

    /// Writes a record if the queue can take it now.
    pub(crate) fn try_record(&self, state: &mut State, event: &Event) -> Result<(), NotRecorded> {
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
            self.raise(state, gerror::EVENTQ_ABT_ERR);
            return Err(NotRecorded::Off);
        }
        self.stats.event(event.d0.event());
        log::debug!("event {event:x?}");
        let was_empty = ring.is_empty(prod, cons);
        state.set_word(SmmuReg::SMMU_EVENTQ_PROD, ring.next(prod) | prod & queue_index::OVERFLOW);
        if was_empty {
            self.interrupt(state, Interrupt::Eventq);
        }
        Ok(())
    }

    /// Makes a global error active, unless it is (7.5).
    pub(crate) fn raise(&self, state: &mut State, error: u32) {
        if state.active_errors() & error != 0 {
            return;
        }
        let gerror = state.word(SmmuReg::SMMU_GERROR);
        state.set_word(SmmuReg::SMMU_GERROR, gerror ^ error);
        // An interrupt that could not be told of is not told of by another.
        if error != gerror::MSI_GERROR_ABT_ERR {
            self.interrupt(state, Interrupt::Gerror);
        }
    }

    pub(crate) fn interrupt(&self, state: &mut State, source: Interrupt) {
        let (enabled, line, cfg0, cfg1, error) = match source {
            Interrupt::Eventq => (
                state.irq_ctrl().eventq_irqen(),
                &self.wires.eventq,
                SmmuReg::SMMU_EVENTQ_IRQ_CFG0,
                SmmuReg::SMMU_EVENTQ_IRQ_CFG1,
                gerror::MSI_EVENTQ_ABT_ERR,
            ),
            Interrupt::Priq => (
                state.irq_ctrl().priq_irqen(),
                &self.wires.priq,
                SmmuReg::SMMU_PRIQ_IRQ_CFG0,
                SmmuReg::SMMU_PRIQ_IRQ_CFG1,
                gerror::MSI_PRIQ_ABT_ERR,
            ),
            Interrupt::Gerror => (
                state.irq_ctrl().gerror_irqen(),
                &self.wires.gerror,
                SmmuReg::SMMU_GERROR_IRQ_CFG0,
                SmmuReg::SMMU_GERROR_IRQ_CFG1,
                gerror::MSI_GERROR_ABT_ERR,
            ),
        };
        if !enabled {
            return;
        }
        line.pulse();
        let (address, data) = (state.get(cfg0), state.word(cfg1));
        if self.features.msi && address != 0 && self.send_message(address, data).is_err() {
            self.raise(state, error);
        }
    }

    /// A 32-bit message of the SMMU itself: to memory, or to a doorbell.
    pub(crate) fn send_message(&self, address: u64, data: u32) -> Result<(), hw::NotADoorbell> {
        let pa = Pa(address & self.features.output_mask());
        match self.ram.store_u32(pa, data) {
            Ok(()) => Ok(()),
            Err(_) => self.msi.write(self.device_id, pa, data),
        }
    }
}
