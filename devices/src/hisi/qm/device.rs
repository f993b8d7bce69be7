//! What the device has once, whatever functions there are: the physical function's registers, the table that gives
//! functions their queues, the AXI master and the debug counters.

use std::collections::BTreeMap;

use hw::RestoreError;
use hw::regmap::Store;
use hw::saved::Hex;

use super::counters::Counters;
use super::regs::{QmReg, is_of_function};
use super::vft::Vft;

/// Queues of the device.
pub(super) const DEVICE_QUEUES: u16 = 1024;
/// Most queues of one function: as many as have a doorbell page of their own.
pub(super) const FUNCTION_QUEUES: u16 = 256;

/// Error bits of the abnormal interrupt.
pub(super) mod error {
    pub(in crate::hisi::qm) const AXI_RRESP: u32 = 1 << 0;
    pub(in crate::hisi::qm) const AXI_BRESP: u32 = 1 << 1;
}

/// What follows from an error that has been latched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    /// The master has to be shut.
    pub(super) shuts: bool,
    /// The abnormal interrupt is due.
    pub(super) interrupts: bool,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) regs: Store<QmReg>,
    pub(super) counters: Counters,
    vft: Vft,
    /// The AXI master is shut down: no new DMA.
    pub(super) is_shut: bool,
}

impl Device {
    pub(super) fn at_reset() -> Self {
        Self {
            regs: Store::at_reset_of(|reg| !is_of_function(reg)),
            counters: Counters::default(),
            vft: Vft::at_reset(),
            is_shut: false,
        }
    }

    pub(super) fn forget_table(&mut self) {
        self.vft = Vft::at_reset();
    }

    pub(super) const fn vft(&self) -> &Vft {
        &self.vft
    }

    /// Takes up a saved table.
    pub(super) fn set_vft(
        &mut self,
        saved: BTreeMap<String, BTreeMap<String, Hex>>,
    ) -> Result<(), RestoreError> {
        self.vft = Vft::of_saved(saved)?;
        Ok(())
    }

    /// Queues that the physical function has.
    pub(super) fn pf_queues(&self) -> u16 {
        self.vft.pf_queues(DEVICE_QUEUES).min(FUNCTION_QUEUES)
    }

    /// The physical function's entry of the submission queue table.
    pub(super) fn pf_entry(&self) -> u64 {
        self.vft.get(0, 0)
    }

    /// The access to the table of functions that the `VFT_CFG` registers describe. Ready at once. Whether it was a write.
    pub(super) fn access_table(&mut self) -> bool {
        let kind = self.regs.word(QmReg::VFT_CFG_TYPE);
        let function = self.regs.word(QmReg::VFT_CFG) & 0x3f;
        let is_write = self.regs.word(QmReg::VFT_CFG_OP_WR) & 1 == 0;
        if is_write {
            let low = self.regs.word(QmReg::VFT_CFG_DATA_L);
            let high = self.regs.word(QmReg::VFT_CFG_DATA_H);
            self.vft.set(kind, function, u64::from(low) | u64::from(high) << 32);
        } else {
            let entry = self.vft.get(kind, function);
            self.regs.set_word(QmReg::VFT_CFG_DATA_L, entry as u32);
            self.regs.set_word(QmReg::VFT_CFG_DATA_H, (entry >> 32) as u32);
        }
        self.regs.set_word(QmReg::VFT_CFG_RDY, 1);
        is_write
    }

    /// Latches errors.
    pub(super) fn latch(&mut self, bits: u32) -> Raised {
        let source = self.regs.word(QmReg::ABNORMAL_INT_SOURCE);
        self.regs.set_word(QmReg::ABNORMAL_INT_SOURCE, source | bits);
        Raised {
            shuts: self.regs.word(QmReg::OOO_SHUTDOWN_SEL) & bits != 0,
            interrupts: bits & !self.regs.word(QmReg::ABNORMAL_INT_MASK) != 0,
        }
    }

    /// A write to the mask of the abnormal interrupt. Whether that makes it due.
    pub(super) fn set_error_mask(&mut self, mask: u32) -> bool {
        let before = self.regs.word(QmReg::ABNORMAL_INT_MASK);
        self.regs.set_word(QmReg::ABNORMAL_INT_MASK, mask & 0x7fff);
        let unmasked = before & !self.regs.word(QmReg::ABNORMAL_INT_MASK);
        self.regs.word(QmReg::ABNORMAL_INT_SOURCE) & unmasked != 0
    }
}
