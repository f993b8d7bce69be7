//! Exceptions as values: what an instruction reports when it cannot complete.
//!
//! Arm ARM D1.10 and D17.2.37 (ESR_EL1). How one is taken is in `sys`.

/// A synchronous exception, before it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// FAR_EL1, where the class has one.
    pub far: u64,
    /// ESR_EL1 without the part of EC that depends on the level it comes from: see [`Class`].
    pub iss: u32,
    /// What happened.
    pub class: Class,
}

/// Exception classes, as ESR_EL1.EC has them for an exception from a lower level; an abort from EL1 is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
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
    SoftwareStep = 0x32,
    Brk = 0x3c,
}

impl Exception {
    /// An unallocated or unadvertised instruction.
    #[must_use]
    #[cold]
    pub const fn undefined() -> Self {
        Self { far: 0, iss: 0, class: Class::Unknown }
    }

    /// A floating-point or SIMD instruction that CPACR_EL1.FPEN traps. ISS: CV = 1, COND = 0b1110.
    #[must_use]
    #[cold]
    pub const fn fp_access() -> Self {
        Self { far: 0, iss: 0x1e0_0000, class: Class::FpAccess }
    }
}
