//! Exceptions as values: what an instruction reports when it cannot complete.
//!
//! Arm ARM (DDI 0487) D1.10, and D17.2.37 for the syndromes. How one is taken is in [`crate::sys`].

/// A synchronous exception, before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// FAR_EL1, where the class has one.
    pub far: u64,
    /// ESR_EL1.ISS.
    pub iss: u32,
    /// What happened.
    pub class: Class,
}

/// Exception classes, as ESR_EL1.EC has them for an exception from a lower level; an abort or a debug exception but BRK
/// from EL1 is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the architecture's own names")]
pub enum Class {
    Unknown = 0x00,
    WfTrap = 0x01,
    FpAccess = 0x07,
    IllegalState = 0x0e,
    Svc = 0x15,
    Hvc = 0x16,
    Smc = 0x17,
    System = 0x18,
    InstructionAbort = 0x20,
    PcAlignment = 0x22,
    DataAbort = 0x24,
    SpAlignment = 0x26,
    Breakpoint = 0x30,
    SoftwareStep = 0x32,
    Watchpoint = 0x34,
    Brk = 0x3c,
    /// None of the architecture's, and never taken: a debugger's breakpoint or watchpoint, which makes the vCPU stop.
    Debugger = 0x3f,
}

impl Class {
    /// The class's code when it comes from EL0 (`lower`) or from EL1 itself.
    #[must_use]
    pub const fn code(self, lower: bool) -> u32 {
        let differs = matches!(
            self,
            Self::InstructionAbort
                | Self::DataAbort
                | Self::Breakpoint
                | Self::SoftwareStep
                | Self::Watchpoint
        );
        self as u32 + if differs && !lower { 1 } else { 0 }
    }

    /// Whether FAR_EL1 is written (D17.2.40).
    #[must_use]
    pub const fn has_far(self) -> bool {
        matches!(self, Self::InstructionAbort | Self::DataAbort | Self::PcAlignment | Self::Watchpoint)
    }
}

/// A fault status code: ISS.DFSC and IFSC (D17.2.37).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultStatus(pub u8);

impl FaultStatus {
    /// Synchronous external abort, not on a table walk.
    pub const EXTERNAL_ABORT: Self = Self(0x10);
    /// Alignment fault.
    pub const ALIGNMENT: Self = Self(0x21);
    /// Unsupported exclusive or atomic access.
    pub const UNSUPPORTED_ATOMIC: Self = Self(0x35);

    /// Address size fault at a level.
    #[must_use]
    pub const fn address_size(level: u8) -> Self {
        Self(level & 3)
    }

    /// Translation fault at a level.
    #[must_use]
    pub const fn translation(level: u8) -> Self {
        Self(0x04 | level & 3)
    }

    /// Access flag fault at a level.
    #[must_use]
    pub const fn access_flag(level: u8) -> Self {
        Self(0x08 | level & 3)
    }

    /// Permission fault at a level.
    #[must_use]
    pub const fn permission(level: u8) -> Self {
        Self(0x0c | level & 3)
    }

    /// Whether something did not answer: an access or a walk.
    #[must_use]
    pub const fn is_external_abort(self) -> bool {
        matches!(self.0, 0x10 | 0x14..=0x17)
    }

    /// Synchronous external abort on the walk, at a level.
    #[must_use]
    pub const fn external_abort_on_walk(level: u8) -> Self {
        Self(0x14 | level & 3)
    }
}

/// ISS.DFSC and IFSC of a debug exception.
const DEBUG: u32 = 0x22;
/// ISS.WnR of a data abort and of a watchpoint.
const WNR: u32 = 1 << 6;
/// ISS.CM of a data abort and of a watchpoint.
const CM: u32 = 1 << 8;

#[cold]
const fn exception(class: Class, iss: u32, far: u64) -> Exception {
    Exception { far, iss, class }
}

impl Exception {
    /// An unallocated or unadvertised instruction.
    #[must_use]
    pub const fn undefined() -> Self {
        exception(Class::Unknown, 0, 0)
    }

    /// A floating-point or SIMD instruction that CPACR_EL1.FPEN traps. ISS: CV = 1, COND = 0b1110.
    #[must_use]
    pub const fn fp_access() -> Self {
        exception(Class::FpAccess, 0x1e0_0000, 0)
    }

    /// WFI (`false`) or WFE (`true`) at EL0, trapped by SCTLR_EL1.nTWI or nTWE. ISS: CV = 1, COND = 0b1110, TI.
    #[must_use]
    pub const fn wf_trap(wfe: bool) -> Self {
        exception(Class::WfTrap, 0x1e0_0000 | wfe as u32, 0)
    }

    /// SVC #imm.
    #[must_use]
    pub const fn svc(imm: u16) -> Self {
        exception(Class::Svc, imm as u32, 0)
    }

    /// BRK #imm.
    #[must_use]
    pub const fn brk(imm: u16) -> Self {
        exception(Class::Brk, imm as u32, 0)
    }

    /// An instruction in the illegal execution state (PSTATE.IL).
    #[must_use]
    pub const fn illegal_state() -> Self {
        exception(Class::IllegalState, 0, 0)
    }

    /// A program counter that is not a multiple of 4.
    #[must_use]
    pub const fn pc_alignment(pc: u64) -> Self {
        exception(Class::PcAlignment, 0, pc)
    }

    /// A load or store through a stack pointer that is not a multiple of 16.
    #[must_use]
    pub const fn sp_alignment() -> Self {
        exception(Class::SpAlignment, 0, 0)
    }

    /// An MRS, MSR or SYS that a control register traps. ISS as D17.2.37 lays it out for EC 0x18.
    #[must_use]
    pub const fn trapped_system(reg: hw::SysReg, rt: u8, read: bool) -> Self {
        let (op0, op1, crn, crm, op2) = reg.fields();
        let iss = (op0 as u32) << 20
            | (op2 as u32) << 17
            | (op1 as u32) << 14
            | (crn as u32) << 10
            | (rt as u32 & 31) << 5
            | (crm as u32) << 1
            | read as u32;
        exception(Class::System, iss, 0)
    }

    /// Software step. ISS: IFSC = 0x22, ISV = 1, and EX for a load-exclusive that was stepped.
    #[must_use]
    pub const fn software_step(exclusive: bool) -> Self {
        exception(Class::SoftwareStep, 1 << 24 | (exclusive as u32) << 6 | DEBUG, 0)
    }

    /// A breakpoint that matches an instruction.
    #[must_use]
    pub const fn breakpoint() -> Self {
        exception(Class::Breakpoint, DEBUG, 0)
    }

    /// A watchpoint that matches the byte at `va` of an access.
    #[must_use]
    pub const fn watchpoint(va: u64, write: bool) -> Self {
        exception(Class::Watchpoint, DEBUG | if write { WNR } else { 0 }, va)
    }

    /// A watchpoint that matches cache maintenance: always reported as a write.
    #[must_use]
    pub const fn maintenance_watchpoint(va: u64) -> Self {
        exception(Class::Watchpoint, DEBUG | CM | WNR, va)
    }

    /// A failed data access.
    #[must_use]
    pub const fn data_abort(va: u64, status: FaultStatus, write: bool) -> Self {
        exception(Class::DataAbort, status.0 as u32 | if write { WNR } else { 0 }, va)
    }

    /// A failed cache maintenance instruction: always reported as a write.
    #[must_use]
    pub const fn maintenance_abort(va: u64, status: FaultStatus) -> Self {
        exception(Class::DataAbort, status.0 as u32 | CM | WNR, va)
    }

    /// A failed instruction fetch.
    #[must_use]
    pub const fn instruction_abort(va: u64, status: FaultStatus) -> Self {
        exception(Class::InstructionAbort, status.0 as u32, va)
    }

    /// ESR_EL1 for this exception, taken from EL0 (`lower`) or EL1. IL is 1: instructions are 32 bits wide, and
    /// for aborts and EC 0 it is 1 by rule.
    #[must_use]
    pub const fn esr(&self, lower: bool) -> u64 {
        (self.class.code(lower) << 26 | 1 << 25 | self.iss & 0x1ff_ffff) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syndromes_have_the_values_that_the_architecture_gives_them() {
        let cases = [
            (Exception::undefined(), true, 0x0200_0000),
            (Exception::svc(0x1234), true, 0x5600_1234),
            (Exception::brk(0x800), false, 0xf200_0800),
            (Exception::fp_access(), true, 0x1fe0_0000),
            (Exception::wf_trap(true), true, 0x07e0_0001),
            (Exception::illegal_state(), false, 0x3a00_0000),
            (Exception::data_abort(0, FaultStatus::translation(3), true), true, 0x9200_0047),
            (Exception::data_abort(0, FaultStatus::permission(2), false), false, 0x9600_000e),
            (Exception::instruction_abort(0, FaultStatus::permission(3)), true, 0x8200_000f),
            (Exception::maintenance_abort(0, FaultStatus::translation(1)), true, 0x9200_0145),
            (Exception::software_step(false), true, 0xcb00_0022),
            (Exception::breakpoint(), true, 0xc200_0022),
            (Exception::breakpoint(), false, 0xc600_0022),
            (Exception::watchpoint(0, false), true, 0xd200_0022),
            (Exception::watchpoint(0, true), false, 0xd600_0062),
            (Exception::maintenance_watchpoint(0), false, 0xd600_0162),
        ];
        for (exception, lower, esr) in cases {
            assert_eq!(exception.esr(lower), esr, "{exception:?}");
        }
    }

    #[test]
    fn trapped_mrs_of_ctr_el0_names_register_and_direction() {
        let ctr_el0 = hw::SysReg::new(3, 3, 0, 0, 1);
        let esr = Exception::trapped_system(ctr_el0, 5, true).esr(true);
        assert_eq!(esr, 0x18 << 26 | 1 << 25 | 3 << 20 | 1 << 17 | 3 << 14 | 5 << 5 | 1);
    }
}
