//! The system registers that a vCPU keeps.

/// Values of system registers, in the order of nothing in particular.
#[derive(Debug, Default)]
pub struct SysRegs {}
