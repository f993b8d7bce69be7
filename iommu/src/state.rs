//! The SMMU's state behind its lock: register values with the rules for plain writes (chapter 6), and stalled transactions.

use hw::regmap::RegisterMap;

use crate::features::Features;
use crate::spec::regs::{Cr0, Cr2, Gbpa, IrqCtrl, PRIQ_IRQ_CFG2_LO, SmmuReg, StrtabBaseCfg};
use crate::stalls::Stalls;
use crate::stream::StreamTable;

/// What becomes of transactions as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// SMMUEN is 0, GBPA.ABORT is 0.
    Bypass,
    /// SMMUEN is 0, GBPA.ABORT is 1; also during a reset.
    Abort,
    /// SMMUEN is 1.
    Translate,
}

impl Mode {
    #[inline]
    pub(crate) fn from_bits(bits: u8) -> Self {
        // `Smmu::set_mode` stores nothing else. (On the way of every lookup: not asked in a release.)
        debug_assert!(bits <= 2, "{bits} is no mode");
        match bits {
            0 => Self::Bypass,
            1 => Self::Abort,
            _ => Self::Translate,
        }
    }
}

/// Registers, and the stalled transactions that they govern.
#[derive(Debug)]
pub(crate) struct State {
    values: [u64; SmmuReg::ALL.len()],
    pub(crate) stalls: Stalls,
    /// A reset is under way: every transaction is aborted.
    pub(crate) is_in_reset: bool,
}

impl State {
    pub(crate) fn at_reset() -> Self {
        let mut values = [0; SmmuReg::ALL.len()];
        for (value, (_, info)) in values.iter_mut().zip(SmmuReg::ALL) {
            *value = info.reset;
        }
        Self { values, stalls: Stalls::default(), is_in_reset: false }
    }

    pub(crate) fn get(&self, reg: SmmuReg) -> u64 {
        self.values[reg as usize]
    }

    pub(crate) fn set(&mut self, reg: SmmuReg, value: u64) {
        self.values[reg as usize] = value;
    }

    /// A 32-bit register.
    pub(crate) fn word(&self, reg: SmmuReg) -> u32 {
        self.get(reg) as u32
    }

    pub(crate) fn set_word(&mut self, reg: SmmuReg, value: u32) {
        self.set(reg, value.into());
    }

    pub(crate) fn cr0(&self) -> Cr0 {
        Cr0::from(self.word(SmmuReg::SMMU_CR0))
    }

    pub(crate) fn cr2(&self) -> Cr2 {
        Cr2::from(self.word(SmmuReg::SMMU_CR2))
    }

    pub(crate) fn irq_ctrl(&self) -> IrqCtrl {
        IrqCtrl::from(self.word(SmmuReg::SMMU_IRQ_CTRL))
    }

    pub(crate) fn gbpa(&self) -> Gbpa {
        Gbpa::from(self.word(SmmuReg::SMMU_GBPA))
    }

    /// Global errors that software has not acknowledged.
    pub(crate) fn active_errors(&self) -> u32 {
        self.word(SmmuReg::SMMU_GERROR) ^ self.word(SmmuReg::SMMU_GERRORN)
    }

    pub(crate) fn stream_table(&self, features: &Features) -> StreamTable {
        const ADDR: u64 = 0x00ff_ffff_ffff_ffc0;
        StreamTable {
            base: self.get(SmmuReg::SMMU_STRTAB_BASE) & ADDR & features.output_mask(),
            cfg: StrtabBaseCfg::from(self.word(SmmuReg::SMMU_STRTAB_BASE_CFG)),
            cr2: self.cr2(),
            checks_translated: self.cr0().atschk(),
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.is_in_reset {
            return Mode::Abort;
        }
        match (self.cr0().smmuen(), self.gbpa().abort()) {
            (true, _) => Mode::Translate,
            (false, true) => Mode::Abort,
            (false, false) => Mode::Bypass,
        }
    }

    /// What a write of `value` leaves in a register without side effects, or `None` if it is ignored now: most
    /// registers are fixed while what they configure is enabled, or while its disabling is not acknowledged.
    pub(crate) fn written(&self, features: &Features, reg: SmmuReg, value: u64) -> Option<u64> {
        let cr0 = Cr0::from(self.word(SmmuReg::SMMU_CR0) | self.word(SmmuReg::SMMU_CR0ACK));
        let irq = IrqCtrl::from(self.word(SmmuReg::SMMU_IRQ_CTRL) | self.word(SmmuReg::SMMU_IRQ_CTRLACK));
        let old = self.get(reg);
        let mut keep = 0;
        let locked = match reg {
            SmmuReg::SMMU_CR1 => {
                const TABLE: u64 = 0xfc0;
                const QUEUE: u64 = 0x3f;
                if cr0.smmuen() {
                    keep |= TABLE;
                }
                if cr0.cmdqen() || cr0.eventqen() || cr0.priqen() {
                    keep |= QUEUE;
                }
                false
            }
            SmmuReg::SMMU_CR2 => {
                let absent =
                    Cr2::new().with_e2h(!features.stage2).with_rec_cfg_ats(!features.can_record_ats_errors());
                keep |= u64::from(u32::from(absent));
                cr0.smmuen()
            }
            SmmuReg::SMMU_STRTAB_BASE | SmmuReg::SMMU_STRTAB_BASE_CFG => cr0.smmuen(),
            SmmuReg::SMMU_CMDQ_BASE | SmmuReg::SMMU_CMDQ_CONS => cr0.cmdqen(),
            SmmuReg::SMMU_EVENTQ_BASE | SmmuReg::SMMU_EVENTQ_PROD => cr0.eventqen(),
            // The bit itself counts, not whether it is effective.
            SmmuReg::SMMU_PRIQ_BASE | SmmuReg::SMMU_PRIQ_PROD => cr0.priqen(),
            SmmuReg::SMMU_GERROR_IRQ_CFG0 | SmmuReg::SMMU_GERROR_IRQ_CFG1 | SmmuReg::SMMU_GERROR_IRQ_CFG2 => {
                irq.gerror_irqen()
            }
            SmmuReg::SMMU_EVENTQ_IRQ_CFG0 | SmmuReg::SMMU_EVENTQ_IRQ_CFG1 | SmmuReg::SMMU_EVENTQ_IRQ_CFG2 => {
                irq.eventq_irqen()
            }
            SmmuReg::SMMU_PRIQ_IRQ_CFG0 | SmmuReg::SMMU_PRIQ_IRQ_CFG1 | SmmuReg::SMMU_PRIQ_IRQ_CFG2 => {
                if !features.msi {
                    // Of the three, LO alone is not about messages.
                    keep |= !u64::from(PRIQ_IRQ_CFG2_LO);
                }
                irq.priq_irqen()
            }
            _ => false,
        };
        (!locked).then(|| reg.info().written(old, value) & !keep | old & keep)
    }
}
