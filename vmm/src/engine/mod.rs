//! The seam between the machine and whatever runs its vCPUs.
//!
//! The board gives an engine its bus, clock and interrupt controller when it is made; from then on the monitor only
//! creates vCPUs, sets where they start, lets each run on a thread of its own, and stops them.

pub mod soft;

use hw::Pa;

use crate::sandbox::calls::EngineCalls;

/// What the engines ask of the host while a machine runs: every engine that can be chosen, because threads enter the
/// sandbox before one is.
pub const SYSTEM_CALLS: EngineCalls = soft::SYSTEM_CALLS;

/// Why all vCPUs have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest asked for power-off.
    SystemOff,
    /// The guest asked for a reset.
    SystemReset,
    /// [`Engine::stop`] was called.
    Stopped,
}

/// General registers, as a debugger sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer in use.
    pub sp: u64,
    /// Program counter.
    pub pc: u64,
    /// PSTATE, as SPSR holds it.
    pub pstate: u64,
}

/// One virtual CPU, owned by the thread that runs it.
pub trait Vcpu: Send {
    /// Sets the state of the boot protocol: program counter, x0, everything else as after reset.
    fn set_boot_state(&mut self, pc: Pa, x0: u64);

    /// Runs until the machine stops. A CPU that is off waits in here.
    fn run(&mut self) -> Exit;

    /// The general registers.
    fn registers(&self) -> Registers;

    /// Sets the general registers.
    fn set_registers(&mut self, registers: &Registers);
}

/// Something that runs vCPUs.
pub trait Engine: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Makes vCPU `index`. Once for each.
    fn vcpu(&self, index: usize) -> Box<dyn Vcpu>;

    /// Makes every vCPU return from [`Vcpu::run`] soon. From any thread.
    fn stop(&self);
}
