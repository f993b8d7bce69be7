//! The programming interface: registers as software reads and writes them, and what writes set off (chapter 6).
//!
//! Updates of CR0, IRQ_CTRL and GBPA are complete when the write returns, so their acknowledgements are there at once.

use hw::regmap::{Located, RegisterMap};
use hw::{BusError, MmioDevice, mmio};

use crate::features::Features;
use crate::smmu::Smmu;
use crate::spec::regs::{Cr0, Gbpa, IrqCtrl, SmmuReg, WINDOW_BYTES, gerror, queue_index};
use crate::state::State;

impl Smmu {
    fn read_register(&self, at: Located<SmmuReg>) -> u64 {
        let features = &self.features;
        match at.reg {
            SmmuReg::SMMU_IDR0 => u32::from(features.idr0()).into(),
            SmmuReg::SMMU_IDR1 => u32::from(features.idr1()).into(),
            SmmuReg::SMMU_IDR3 => u32::from(features.idr3()).into(),
            SmmuReg::SMMU_IDR5 => u32::from(features.idr5()).into(),
            SmmuReg::SMMU_AIDR => Features::AIDR.into(),
            SmmuReg::SMMU_CIDR0 => {
                const CIDR: [u64; 4] = [0x0d, 0xf0, 0x05, 0xb1]; // a CoreLink component
                CIDR[at.index as usize] // SMMU_CIDR0 is declared with as many
            }
            reg => {
                let state = self.state();
                let value = state.get(reg);
                // Bits above the wrap bit don't exist (6.3); which that is depends on the queue's size.
                let index_mask = match reg {
                    SmmuReg::SMMU_CMDQ_PROD | SmmuReg::SMMU_CMDQ_CONS => {
                        self.command_ring(&state).index_mask() | queue_index::ERR_MASK
                    }
                    SmmuReg::SMMU_EVENTQ_PROD | SmmuReg::SMMU_EVENTQ_CONS => {
                        self.event_ring(&state).index_mask() | queue_index::OVERFLOW
                    }
                    SmmuReg::SMMU_PRIQ_PROD | SmmuReg::SMMU_PRIQ_CONS => {
                        self.page_request_ring(&state).index_mask() | queue_index::OVERFLOW
                    }
                    _ => return value,
                };
                value & u64::from(index_mask)
            }
        }
    }

    /// Writes the bits of `mask` in a register.
    fn write_register(&self, reg: SmmuReg, value: u64, mask: u64) {
        let merged = |state: &State| state.get(reg) & !mask | value & mask;
        match reg {
            SmmuReg::SMMU_CR0 => self.write_cr0(value),
            SmmuReg::SMMU_GBPA => self.write_gbpa(value),
            SmmuReg::SMMU_GERRORN => self.write_gerrorn(value as u32),
            SmmuReg::SMMU_IRQ_CTRL => {
                let mut state = self.state();
                let enables = IrqCtrl::from(reg.info().written(0, value) as u32);
                let enables = enables.with_priq_irqen(enables.priq_irqen() && self.features.pri);
                state.set_word(reg, enables.into());
                state.set_word(SmmuReg::SMMU_IRQ_CTRLACK, enables.into());
            }
            _ => {
                let mut state = self.state();
                let Some(value) = state.written(&self.features, reg, merged(&state)) else { return };
                state.set(reg, value);
                match reg {
                    SmmuReg::SMMU_EVENTQ_CONS => state.stalls.retry_unrecorded(),
                    SmmuReg::SMMU_CMDQ_PROD => {
                        drop(state);
                        self.consume_commands();
                    }
                    _ => {}
                }
            }
        }
    }

    fn write_cr0(&self, value: u64) {
        // No command is being executed while the enables change, and updates are made one at a time.
        let consumer = self.consumer();
        let value = Cr0::from(SmmuReg::SMMU_CR0.info().written(0, value) as u32);
        // Bits of absent features are never acknowledged.
        let value = value
            .with_priqen(value.priqen() && self.features.pri)
            .with_atschk(value.atschk() && self.features.ats);
        let (old, new) = {
            let mut state = self.state();
            let old = state.cr0();
            state.set_word(SmmuReg::SMMU_CR0, value.into());
            let new = state.cr0();
            self.set_mode(&state);
            if !new.smmuen() {
                state.stalls.terminate_all();
            }
            if new.eventqen() && !old.eventqen() {
                state.stalls.retry_unrecorded();
            }
            (old, new)
        };
        if old.smmuen() != new.smmuen() || old.atschk() != new.atschk() {
            // Acknowledged only when no access uses the old enables any more.
            self.inflight.drain(&self.age);
        }
        self.state().set_word(SmmuReg::SMMU_CR0ACK, value.into());
        drop(consumer);
        if new.cmdqen() {
            self.consume_commands();
        }
    }

    fn write_gbpa(&self, value: u64) {
        {
            let mut state = self.state();
            let value = SmmuReg::SMMU_GBPA.info().written(0, value);
            if state.gbpa().update() || !Gbpa::from(value as u32).update() {
                return;
            }
            state.set(SmmuReg::SMMU_GBPA, value);
            self.set_mode(&state);
        }
        self.inflight.drain(&self.age);
        let mut state = self.state();
        let done = state.gbpa().with_update(false);
        state.set_word(SmmuReg::SMMU_GBPA, done.into());
    }

    fn write_gerrorn(&self, value: u32) {
        let acknowledged = {
            let mut state = self.state();
            // Toggling the flag of an inactive error is unpredictable (7.5); here it does nothing.
            let toggled = (value ^ state.word(SmmuReg::SMMU_GERRORN)) & state.active_errors();
            let gerrorn = state.word(SmmuReg::SMMU_GERRORN) ^ toggled;
            state.set_word(SmmuReg::SMMU_GERRORN, gerrorn);
            if toggled & gerror::EVENTQ_ABT_ERR != 0 {
                state.stalls.retry_unrecorded();
            }
            toggled
        };
        if acknowledged & gerror::CMDQ_ERR != 0 {
            self.consume_commands();
        }
    }

    /// The two pages show the same queue indexes.
    fn locate(&self, offset: u64) -> Option<Located<SmmuReg>> {
        let found = match offset {
            0x98 => Some(Located { reg: SmmuReg::SMMU_CMDQ_PROD, index: 0, byte: 0 }),
            0xa8..0xb0 | 0xc8..0xd0 => SmmuReg::locate(offset + WINDOW_BYTES / 2),
            _ => SmmuReg::locate(offset),
        };
        found.filter(|at| {
            (self.features.pri || !is_of_priq(at.reg)) && (self.features.msi || !is_of_messages(at.reg))
        })
    }

    fn write_word(&self, offset: u64, value: u32) {
        if let Some(Located { reg, byte, .. }) = self.locate(offset) {
            let shift = 8 * (byte & 4);
            self.write_register(reg, u64::from(value) << shift, u64::from(u32::MAX) << shift);
        }
    }
}

/// 32-bit registers take 32-bit accesses; 64-bit ones those and whole ones (6.2). A wider access to narrower registers
/// is a series of accesses in ascending order. What is not there reads as zero and ignores writes.
impl MmioDevice for Smmu {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        check(offset, data.len())?;
        for (i, chunk) in data.chunks_mut(8).enumerate() {
            let at = offset + 8 * i as u64;
            match self.locate(at) {
                Some(whole) if chunk.len() == 8 && whole.byte == 0 && whole.reg.info().bytes == 8 => {
                    mmio::put_value(chunk, self.read_register(whole));
                }
                _ => mmio::read_words(at, chunk, |at| {
                    Ok(self
                        .locate(at)
                        .map_or(0, |found| (self.read_register(found) >> (8 * (found.byte & 4))) as u32))
                })?,
            }
        }
        Ok(())
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        check(offset, data.len())?;
        for (i, chunk) in data.chunks(8).enumerate() {
            let at = offset + 8 * i as u64;
            match self.locate(at) {
                Some(whole) if chunk.len() == 8 && whole.byte == 0 && whole.reg.info().bytes == 8 => {
                    self.write_register(whole.reg, mmio::value_of(chunk), u64::MAX);
                }
                _ => mmio::write_words(at, chunk, |at, value| {
                    self.write_word(at, value);
                    Ok(())
                })?,
            }
        }
        Ok(())
    }
}

/// RES0 without IDR0.MSI. SMMU_PRIQ_IRQ_CFG2 is left, for its LO.
pub(crate) const fn is_of_messages(reg: SmmuReg) -> bool {
    matches!(
        reg,
        SmmuReg::SMMU_GERROR_IRQ_CFG0
            | SmmuReg::SMMU_GERROR_IRQ_CFG1
            | SmmuReg::SMMU_GERROR_IRQ_CFG2
            | SmmuReg::SMMU_EVENTQ_IRQ_CFG0
            | SmmuReg::SMMU_EVENTQ_IRQ_CFG1
            | SmmuReg::SMMU_EVENTQ_IRQ_CFG2
            | SmmuReg::SMMU_PRIQ_IRQ_CFG0
            | SmmuReg::SMMU_PRIQ_IRQ_CFG1
    )
}

pub(crate) const fn is_of_priq(reg: SmmuReg) -> bool {
    matches!(
        reg,
        SmmuReg::SMMU_PRIQ_BASE
            | SmmuReg::SMMU_PRIQ_PROD
            | SmmuReg::SMMU_PRIQ_CONS
            | SmmuReg::SMMU_PRIQ_IRQ_CFG0
            | SmmuReg::SMMU_PRIQ_IRQ_CFG1
            | SmmuReg::SMMU_PRIQ_IRQ_CFG2
    )
}

fn check(offset: u64, len: usize) -> Result<(), BusError> {
    match len {
        4 | 8 | 16 if offset.is_multiple_of(len as u64) && offset < WINDOW_BYTES => Ok(()),
        _ => Err(BusError::BadAccess { offset, len }),
    }
}
