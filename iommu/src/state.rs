//! The SMMU's state behind its lock: register values, what their locks depend on, and stalled transactions.

use hw::regmap::Store;

use crate::features::Features;
use crate::spec::regs::{Cr0, Cr2, Gbpa, IrqCtrl, SmmuCondition, SmmuReg, StrtabBaseCfg};
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
    pub(crate) registers: Store<SmmuReg>,
    pub(crate) stalls: Stalls,
    /// A reset is under way: every transaction is aborted.
    pub(crate) is_in_reset: bool,
}

impl State {
    pub(crate) fn at_reset() -> Self {
        Self { registers: Store::at_reset(), stalls: Stalls::default(), is_in_reset: false }
    }

    pub(crate) fn get(&self, reg: SmmuReg) -> u64 {
        self.registers.get(reg)
    }

    pub(crate) fn set(&mut self, reg: SmmuReg, value: u64) {
        self.registers.set(reg, value);
    }

    /// A 32-bit register.
    pub(crate) fn word(&self, reg: SmmuReg) -> u32 {
        self.registers.word(reg)
    }

    pub(crate) fn set_word(&mut self, reg: SmmuReg, value: u32) {
        self.registers.set_word(reg, value);
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

    /// Whether a condition holds on which registers depend. Most are fixed while what they configure is enabled, or while its
    /// disabling is not acknowledged; the bit itself counts, not whether it is effective.
    pub(crate) fn holds(&self, features: &Features, condition: SmmuCondition) -> bool {
        use SmmuReg::{SMMU_CR0, SMMU_CR0ACK, SMMU_IRQ_CTRL, SMMU_IRQ_CTRLACK};
        let cr0 = || Cr0::from(self.word(SMMU_CR0) | self.word(SMMU_CR0ACK));
        let irq = || IrqCtrl::from(self.word(SMMU_IRQ_CTRL) | self.word(SMMU_IRQ_CTRLACK));
        match condition {
            SmmuCondition::S2P => features.stage2,
            SmmuCondition::ATS => features.ats,
            SmmuCondition::PRI => features.pri,
            SmmuCondition::MSI => features.msi,
            SmmuCondition::ATSRECERR => features.can_record_ats_errors(),
            SmmuCondition::SMMUEN => cr0().smmuen(),
            SmmuCondition::CMDQEN => cr0().cmdqen(),
            SmmuCondition::EVENTQEN => cr0().eventqen(),
            SmmuCondition::PRIQEN => cr0().priqen(),
            SmmuCondition::EVENTQ_IRQEN => irq().eventq_irqen(),
            SmmuCondition::PRIQ_IRQEN => irq().priq_irqen(),
            SmmuCondition::GERROR_IRQEN => irq().gerror_irqen(),
        }
    }
}
