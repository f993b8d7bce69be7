//! Interrupts, messages and global errors (3.18, 7.5).

use hw::Pa;

use crate::smmu::Smmu;
use crate::spec::regs::{SmmuReg, gerror};
use crate::state::State;

/// Sources of interrupts that IRQ_CTRL governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Eventq,
    Priq,
    Gerror,
}

impl Smmu {
    /// Makes a global error active, unless it is (7.5).
    pub(crate) fn raise(&self, state: &mut State, error: u32) {
        if state.active_errors() & error != 0 {
            return;
        }
        // The command that has stopped the queue has been told already.
        if error != gerror::CMDQ_ERR {
            let what = format_args!("SMMU_GERROR.{} becomes active", gerror::name(error));
            self.errors.report("queues and messages at addresses that abort", what);
        }
        let gerror = state.word(SmmuReg::SMMU_GERROR);
        state.set_word(SmmuReg::SMMU_GERROR, gerror ^ error);
        // The error is that this interrupt's message was aborted: it does not cause another one.
        if error != gerror::MSI_GERROR_ABT_ERR {
            self.interrupt(state, Interrupt::Gerror);
        }
    }

    /// Sends an interrupt, if IRQ_CTRL enables it.
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
