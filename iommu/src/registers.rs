//! The programming interface: registers as software reads and writes them, and what writes set off (chapter 6).
//!
//! Updates of CR0, IRQ_CTRL and GBPA are complete when the write returns, so their acknowledgements are there at once.

use hw::regmap::{self, Access, Frame, Located, RegisterMap};
use hw::{BusError, MmioDevice};

use crate::features::Features;
use crate::smmu::Smmu;
use crate::spec::regs::{Gbpa, SmmuCondition, SmmuReg, WINDOW_BYTES, gerror, queue_index};

impl Smmu {
    fn read_register(&self, reg: SmmuReg, index: usize) -> u64 {
        let features = &self.features;
        match reg {
            SmmuReg::SMMU_IDR0 => u32::from(features.idr0()).into(),
            SmmuReg::SMMU_IDR1 => u32::from(features.idr1()).into(),
            SmmuReg::SMMU_IDR3 => u32::from(features.idr3()).into(),
            SmmuReg::SMMU_IDR5 => u32::from(features.idr5()).into(),
            SmmuReg::SMMU_AIDR => Features::AIDR.into(),
            SmmuReg::SMMU_CIDR0 => {
                const CIDR: [u64; 4] = [0x0d, 0xf0, 0x05, 0xb1]; // a CoreLink component
                CIDR[index] // SMMU_CIDR0 is declared with as many
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
        match reg {
            SmmuReg::SMMU_CR0 => self.write_cr0(value),
            SmmuReg::SMMU_GBPA => self.write_gbpa(value),
            SmmuReg::SMMU_GERRORN => self.write_gerrorn(value as u32),
            _ => {
                let mut state = self.state();
                let holds = |condition| state.holds(&self.features, condition);
                let name = reg.info().name;
                if reg.info().access == Access::Ro {
                    let what = format_args!("write to {name}, which is read-only");
                    return self.errors.report("writes to read-only registers", what);
                }
                if reg.is_fixed(holds) {
                    let what = format_args!("write to {name}, which is in use");
                    return self.errors.report("writes to registers that are in use", what);
                }
                let value = reg.written(state.get(reg), value, mask, holds);
                state.set(reg, value);
                match reg {
                    SmmuReg::SMMU_IRQ_CTRL => state.set(SmmuReg::SMMU_IRQ_CTRLACK, value),
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
        let (old, new) = {
            let mut state = self.state();
            let old = state.cr0();
            // Bits of absent features are never acknowledged.
            let value =
                SmmuReg::SMMU_CR0.possible(|condition| state.holds(&self.features, condition)) & value;
            state.set(SmmuReg::SMMU_CR0, value);
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
        self.state().set_word(SmmuReg::SMMU_CR0ACK, new.into());
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
}

impl Frame for &Smmu {
    type Reg = SmmuReg;

    const SHORTEST: usize = 4;

    fn holds(&self, condition: SmmuCondition) -> bool {
        self.state().holds(&self.features, condition)
    }

    fn read(&self, reg: SmmuReg, index: usize) -> u64 {
        self.read_register(reg, index)
    }

    fn write(&mut self, reg: SmmuReg, _index: usize, value: u64, mask: u64) {
        self.write_register(reg, value, mask);
    }

    /// The index of each batch of commands, and of what software waits for.
    #[inline]
    fn find(&self, offset: u64) -> Option<Located<SmmuReg>> {
        const PROD: u64 = SmmuReg::SMMU_CMDQ_PROD.offset();
        const CONS: u64 = SmmuReg::SMMU_CMDQ_CONS.offset();
        match offset {
            PROD => Some(Located { reg: SmmuReg::SMMU_CMDQ_PROD, index: 0, byte: 0 }),
            CONS => Some(Located { reg: SmmuReg::SMMU_CMDQ_CONS, index: 0, byte: 0 }),
            _ => SmmuReg::locate(offset).filter(|at| at.reg.exists(|condition| self.holds(condition))),
        }
    }
}

/// 32-bit registers take 32-bit accesses; 64-bit ones those and whole ones (6.2). A wider access to narrower registers
/// is a series of accesses in ascending order. What is not there reads as zero and ignores writes.
impl MmioDevice for Smmu {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        self.told(check(offset, data.len()).and_then(|()| regmap::read(&self, offset, data)))
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let mut frame = self;
        self.told(check(offset, data.len()).and_then(|()| regmap::write(&mut frame, offset, data)))
    }
}

impl Smmu {
    /// The result of an access to registers, with an access that they do not take counted.
    fn told(&self, result: Result<(), BusError>) -> Result<(), BusError> {
        result.inspect_err(|error| {
            let kind = "accesses of a size or alignment that registers do not take";
            self.errors.report(kind, format_args!("{error}"));
        })
    }
}

fn check(offset: u64, len: usize) -> Result<(), BusError> {
    if offset < WINDOW_BYTES { Ok(()) } else { Err(BusError::BadAccess { offset, len }) }
}
