//! The system side: registers, exception entry and return, timers, PSCI, what vCPUs ask of one another.
//!
//! Signatures below are what `exec::system` and `interp` call.

pub mod cluster;
pub mod regs;

use crate::{Cpu, Exception};
use hw::SysReg;

/// MSR (immediate) targets, op1:op2 as encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PstateField {
    SpSel,
    DaifSet,
    DaifClr,
    Pan,
    Uao,
    Dit,
    Ssbs,
}

#[allow(unused_variables, reason = "the bodies come with the system registers")]
impl Cpu {
    /// MRS.
    pub(crate) fn read_sysreg(&mut self, reg: SysReg, rt: u8) -> Result<u64, Exception> {
        Err(Exception::undefined())
    }

    /// MSR (register). `rt` is the transfer register's number (0 to 31), for the syndrome of a trap.
    pub(crate) fn write_sysreg(&mut self, reg: SysReg, rt: u8, value: u64) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// MSR (immediate).
    pub(crate) fn write_pstate_field(&mut self, field: PstateField, imm: u8) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// SYS: IC, DC, AT, TLBI and unallocated ones. op0 of `reg` is 1.
    pub(crate) fn system_instruction(&mut self, reg: SysReg, rt: u8, value: u64) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// WFI: returns when there is a reason to go on, or at once if STOP is pending (the instruction is then complete).
    pub(crate) fn wait_for_interrupt(&mut self) -> Result<(), Exception> {
        Ok(())
    }

    /// WFE.
    pub(crate) fn wait_for_event(&mut self) -> Result<(), Exception> {
        Ok(())
    }

    /// SEV (`everywhere`) and SEVL.
    pub(crate) fn send_event(&mut self, everywhere: bool) {}

    /// DSB beyond its host fence: waits until the requests that this vCPU has sent have been acknowledged.
    pub(crate) fn complete_requests(&mut self) {}

    /// ERET: sets PSTATE, pc, the stack pointer in use and the block context.
    pub(crate) fn exception_return(&mut self) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// HVC #imm: PSCI. Err for an undefined HVC; `Ok` leaves results in x0-x3.
    pub(crate) fn hypervisor_call(&mut self, imm: u16) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// Takes `exception`, which the instruction at `state.pc` raised: saves state, vectors, updates the block context.
    /// The preferred return address is `state.pc`, or the instruction after it for SVC.
    pub(crate) fn take_exception(&mut self, exception: Exception) {}

    /// Serves the pending word at a block border, with `state.pc` exact: runs requests, takes an unmasked interrupt.
    /// `Some` leaves the run loop.
    pub(crate) fn serve_pending(&mut self) -> Option<crate::Exit> {
        None
    }
}
