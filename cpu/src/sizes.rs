//! Sizes and numbers that the architecture leaves to an implementation, and what this one chose. Identification registers
//! tell them to the guest; memory, debug and timers keep to them.
//!
//! Arm ARM (DDI 0487) D19. Features are not here: `insn::Features` has those.

/// Bits of a physical address: ID_AA64MMFR0_EL1.PARange = 5.
pub const PA_BITS: u32 = 48;

/// Bytes that DC ZVA zeroes: DCZID_EL0.BS = 4.
pub(crate) const ZVA_BYTES: u64 = 64;

/// Breakpoints and watchpoints, as ID_AA64DFR0_EL1.BRPs and WRPs say: less one.
pub(crate) const BREAKPOINTS: usize = 4;
pub(crate) const WATCHPOINTS: usize = 4;

/// How many breakpoints, the last ones, can compare the context: ID_AA64DFR0_EL1.CTX_CMPs, less one.
pub(crate) const CONTEXT_AWARE: usize = 2;

/// The frequency of the counters, as CNTFRQ_EL0 says it.
pub const FREQUENCY_HZ: u64 = 62_500_000;
