//! What a debugger asks of a vCPU, for the engines that can be debugged.

use std::sync::Arc;

use cpu::DebugPoints;

use crate::engine::{Exit, Registers};

/// Why a vCPU has come back for a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugStop {
    /// A breakpoint is at the program counter; the instruction has not been run.
    Breakpoint,
    /// The instruction at the program counter is about to access watched bytes.
    Watchpoint {
        /// The first of those that it accesses.
        address: u64,
        /// It is a store.
        write: bool,
    },
    /// The step is done.
    Stepped,
}

/// General and floating-point registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreRegisters {
    /// The general ones.
    pub general: Registers,
    /// V0 to V31.
    pub v: [u128; 32],
    /// FPSR.
    pub fpsr: u32,
    /// FPCR.
    pub fpcr: u32,
}

impl Default for CoreRegisters {
    fn default() -> Self {
        Self { general: Registers { x: [0; 31], sp: 0, pc: 0, pstate: 0 }, v: [0; 32], fpsr: 0, fpcr: 0 }
    }
}

/// Which memory is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Space {
    /// By virtual address, as the vCPU translates it now, whatever the permissions.
    #[default]
    Virtual,
    /// By physical address.
    Physical,
}

/// A vCPU that can be debugged, outside [`super::Vcpu::run`]. Nothing in here changes anything that is not asked for: no
/// device is accessed, no fault taken, no table updated.
pub trait DebugVcpu {
    /// The registers.
    fn core(&self) -> CoreRegisters;

    /// Sets them.
    fn set_core(&mut self, registers: &CoreRegisters);

    /// A system register by its place among the engine's names.
    fn system(&mut self, index: usize) -> Option<u64>;

    /// Sets one, with what hangs on it. Tells whether it can be written.
    fn set_system(&mut self, index: usize, value: u64) -> bool;

    /// Reads RAM: as many bytes as are there without a gap.
    fn read(&self, space: Space, address: u64, out: &mut [u8]) -> usize;

    /// Writes RAM, all of it or nothing: tells which.
    fn write(&mut self, space: Space, address: u64, data: &[u8]) -> bool;

    /// Sets breakpoints and watchpoints.
    fn set_points(&mut self, points: &Arc<DebugPoints>);

    /// Runs one instruction, or takes its exception: [`Exit::Debug`]. Interrupts are not taken.
    ///
    /// # Errors
    /// The host's: the machine cannot go on.
    fn step(&mut self) -> anyhow::Result<Exit>;

    /// Nobody is told of the last [`DebugStop`]: what has been met will be met again.
    fn forget_stop(&mut self);
}
