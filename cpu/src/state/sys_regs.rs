//! The values of the system registers that a vCPU keeps for itself, and how many of them there are. What a read or a
//! write does is in [`crate::sys::regs`]: whoever only needs a value need not know that.
//!
//! Arm ARM (DDI 0487) D19.

use crate::sizes::{BREAKPOINTS, FREQUENCY_HZ, WATCHPOINTS};

/// SCTLR_EL1 after reset: SPAN, and what is RES1 without the features that would define it: LSMAOE, nTLSMD, EIS, TSCXT,
/// EOS, SED, ITD.
pub(crate) const SCTLR_RESET: u64 = 0x30d0_0980;

/// The registers that a vCPU keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the architecture's own names")]
pub struct SysRegs {
    pub sctlr: u64,
    pub cpacr: u64,
    pub tcr: u64,
    pub ttbr0: u64,
    pub ttbr1: u64,
    pub mair: u64,
    pub vbar: u64,
    pub elr: u64,
    pub spsr: u64,
    pub esr: u64,
    pub far: u64,
    pub par: u64,
    pub afsr0: u64,
    pub afsr1: u64,
    pub contextidr: u64,
    pub tpidr_el0: u64,
    pub tpidrro_el0: u64,
    pub tpidr_el1: u64,
    pub csselr: u64,
    pub cntkctl: u64,
    pub cntfrq: u64,
    pub mdscr: u64,
    pub mdccint: u64,
    /// OSLSR_EL1.OSLK: the OS lock, which debug exceptions respect.
    pub os_lock: u64,
    pub osdlr: u64,
    pub dbgclaim: u64,
    pub dbgprcr: u64,
    pub dbgbvr: [u64; BREAKPOINTS],
    pub dbgbcr: [u64; BREAKPOINTS],
    pub dbgwvr: [u64; WATCHPOINTS],
    pub dbgwcr: [u64; WATCHPOINTS],
}

impl Default for SysRegs {
    /// The values after reset. Where the architecture leaves them open, zero.
    fn default() -> Self {
        Self {
            sctlr: SCTLR_RESET,
            cntfrq: FREQUENCY_HZ,
            os_lock: 1,
            cpacr: 0,
            tcr: 0,
            ttbr0: 0,
            ttbr1: 0,
            mair: 0,
            vbar: 0,
            elr: 0,
            spsr: 0,
            esr: 0,
            far: 0,
            par: 0,
            afsr0: 0,
            afsr1: 0,
            contextidr: 0,
            tpidr_el0: 0,
            tpidrro_el0: 0,
            tpidr_el1: 0,
            csselr: 0,
            cntkctl: 0,
            mdscr: 0,
            mdccint: 0,
            osdlr: 0,
            dbgclaim: 0,
            dbgprcr: 0,
            dbgbvr: [0; BREAKPOINTS],
            dbgbcr: [0; BREAKPOINTS],
            dbgwvr: [0; WATCHPOINTS],
            dbgwcr: [0; WATCHPOINTS],
        }
    }
}
