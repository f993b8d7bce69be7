//! The seam between the machine and whatever runs its vCPUs.
//!
//! An engine comes with the interrupt controller that its vCPUs listen to, so it is made in two steps. [`open`] makes a
//! [`Foundation`]: wires and a message doorbell for the board's devices. When the devices are there and the bus knows
//! them, [`Foundation::complete`] makes the [`Engine`]; from then on the monitor only creates vCPUs, sets where they
//! start, lets each run on a thread of its own, and stops them. `docs/engines.md` tells how the engines differ.

pub mod debug;
#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
mod kvm;
pub mod soft;
pub mod statistics;

use std::sync::Arc;

use hw::saved::RestoreError;
use hw::{Alarms, Clock, GuestErrorBook, IrqLine, MsiSink, Pa, Ram, Scheduler};
use serde_json::Value;

use crate::bus::Bus;
use crate::cli::EngineChoice;
use crate::engine::debug::{DebugStop, DebugVcpu};
use crate::engine::soft::{SoftFoundation, SoftOptions};
use crate::engine::statistics::EngineReport;
use crate::exit::Failed;

use crate::sandbox::calls::EngineCalls;

/// What the engines ask of the host while a machine runs: every engine that can be chosen, because threads enter the
/// sandbox before one is. The built-in engine asks for nothing.
#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
pub const SYSTEM_CALLS: EngineCalls = kvm::SYSTEM_CALLS;
/// What the engines ask of the host while a machine runs: every engine that can be chosen, because threads enter the
/// sandbox before one is.
#[cfg(not(all(target_arch = "aarch64", target_os = "linux")))]
pub const SYSTEM_CALLS: EngineCalls = soft::SYSTEM_CALLS;

/// Why a vCPU has come back; but for a debugger's reasons all do so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest asked for power-off.
    SystemOff,
    /// The guest asked for a reset.
    SystemReset,
    /// [`Engine::stop`] was called.
    Stopped,
    /// For a debugger. This vCPU alone.
    Debug(DebugStop),
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
    ///
    /// # Errors
    /// The host's.
    fn set_boot_state(&mut self, pc: Pa, x0: u64) -> anyhow::Result<()>;

    /// Brings back the state of power-on, after [`Engine::reset`].
    ///
    /// # Errors
    /// The host's.
    fn power_on(&mut self) -> anyhow::Result<()>;

    /// Runs until the machine stops. A CPU that is off waits in here.
    ///
    /// # Errors
    /// The host's: the machine cannot go on.
    fn run(&mut self) -> anyhow::Result<Exit>;

    /// The general registers.
    ///
    /// # Errors
    /// The host's.
    fn registers(&self) -> anyhow::Result<Registers>;

    /// The system registers that tell where the guest is and how it got there, by name.
    fn system_registers(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Sets the general registers.
    ///
    /// # Errors
    /// The host's.
    fn set_registers(&mut self, registers: &Registers) -> anyhow::Result<()>;

    /// What a debugger asks, where [`Engine::can_debug`].
    fn debugged(&mut self) -> Option<&mut dyn DebugVcpu> {
        None
    }

    /// The whole state of this vCPU, outside [`Self::run`]. Null where [`Engine::can_save`] refuses.
    fn save(&self) -> Value {
        Value::Null
    }

    /// Takes up a state that [`Self::save`] has given to a vCPU of the same number: as made, or after [`Self::power_on`]; after
    /// [`Engine::restore`], and before [`Self::run`]. Guest time is what it was.
    ///
    /// # Errors
    /// As [`hw::LifeCycle::restore`].
    fn restore(&mut self, state: Value) -> Result<(), RestoreError> {
        let _ = state;
        Err(RestoreError::Form("this engine restores no vCPUs".to_owned()))
    }
}

/// Something that runs vCPUs.
pub trait Engine: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Makes vCPU `index`. Once for each.
    fn vcpu(&self, index: usize) -> Box<dyn Vcpu>;

    /// Says whether the vCPUs run as the user has asked, when all of them have been made: with a line for the user if they
    /// are slower than they could be.
    ///
    /// # Errors
    /// A line for the user: not as asked.
    fn check(&self) -> anyhow::Result<Option<String>> {
        Ok(None)
    }

    /// What has been counted until each vCPU last returned from [`Vcpu::run`]; nothing if the engine doesn't count.
    fn statistics(&self) -> Option<EngineReport> {
        None
    }

    /// Makes every vCPU return from [`Vcpu::run`] soon. From any thread.
    fn stop(&self);

    /// Lets vCPUs run again after [`Self::stop`]: the next [`Vcpu::run`] goes on where the last one stopped.
    fn resume(&self);

    /// Whether [`Self::reset`] can be called.
    fn can_reset(&self) -> bool {
        true
    }

    /// Whether its vCPUs are [`Vcpu::debugged`].
    fn can_debug(&self) -> bool {
        false
    }

    /// Brings the interrupt controller and what vCPUs share back to the state of power-on. Every vCPU is outside
    /// [`Vcpu::run`], and none is run before [`Self::resume`] and its own [`Vcpu::power_on`].
    fn reset(&self);

    /// Whether [`Self::save`] and [`Vcpu::save`] give the whole state, and can be restored.
    ///
    /// # Errors
    /// Why not, as the end of a line for the user.
    fn can_save(&self) -> Result<(), String>;

    /// The state of what vCPUs share (`cluster`) and of the interrupt controller (`gic`). Every vCPU is outside [`Vcpu::run`].
    /// Null where [`Self::can_save`] refuses.
    fn save(&self) -> Value {
        Value::Null
    }

    /// Takes up a state that [`Self::save`] has given to an engine of the same kind, with as many vCPUs: when RAM is what it was, before
    /// the restore of any device, whose wires lead here, and before [`Vcpu::restore`]. Guest time is what it was. No vCPU has
    /// [`Vcpu::power_on`] or [`Vcpu::set_boot_state`] called afterwards: both reset its part of the interrupt controller.
    ///
    /// # Errors
    /// As [`hw::LifeCycle::restore`].
    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let _ = state;
        Err(RestoreError::Form("this engine restores nothing".to_owned()))
    }
}

/// An engine whose machine is still being put together: the interrupt controller is there, the vCPUs wait for a bus.
pub trait Foundation {
    /// The input of SPI `n`.
    fn spi(&self, n: u32) -> Arc<dyn IrqLine>;

    /// Where messages go that are no RAM: the ITS.
    fn msi(&self) -> Arc<dyn MsiSink>;

    /// Bits of the vCPUs' physical addresses, as ID_AA64MMFR0_EL1.PARange says.
    fn pa_bits(&self) -> u32;

    /// Puts those registers of the interrupt controller on the bus that are not served elsewhere.
    ///
    /// # Errors
    /// If the windows overlap others.
    fn attach(&self, bus: &mut Bus) -> anyhow::Result<()>;

    /// Makes the engine. vCPU 0 is on, the others are off.
    fn complete(self: Box<Self>, bus: Arc<Bus>) -> Box<dyn Engine>;
}

/// What a foundation is laid on.
pub struct Ground<'a> {
    /// vCPUs, at least one.
    pub cpus: usize,
    /// Guest RAM.
    pub ram: &'a Arc<Ram>,
    /// Guest time.
    pub clock: &'a Arc<dyn Clock>,
    /// The machine's alarms.
    pub alarms: &'a Arc<dyn Alarms>,
    /// What runs vCPUs and devices' workers.
    pub scheduler: &'a Arc<dyn Scheduler>,
    /// Where mistakes of software are counted.
    pub errors: &'a GuestErrorBook,
    /// What is asked of the built-in engine.
    pub soft: &'a SoftOptions,
}

/// Lays the foundation of the engine that the user asked for. With `auto` there is also a line that tells which it is
/// and why.
///
/// # Errors
/// A line for the user: the host has no such engine.
pub fn open(
    choice: EngineChoice,
    ground: &Ground<'_>,
) -> anyhow::Result<(Box<dyn Foundation>, Option<String>)> {
    let soft = || Box::new(SoftFoundation::new(ground)) as Box<dyn Foundation>;
    match choice {
        EngineChoice::Soft => Ok((soft(), None)),
        EngineChoice::Kvm => match open_kvm(ground) {
            Ok(foundation) => Ok((foundation, None)),
            Err(why) => Err(Failed::new(format!("{why}; try --engine soft")).into()),
        },
        EngineChoice::Auto => match open_kvm(ground) {
            Ok(foundation) => Ok((foundation, Some("engine: kvm; not soft, which is slower".to_owned()))),
            Err(why) => Ok((soft(), Some(format!("engine: soft; not kvm, for {why}")))),
        },
    }
}

#[cfg(all(target_arch = "aarch64", target_os = "linux"))]
fn open_kvm(ground: &Ground<'_>) -> Result<Box<dyn Foundation>, String> {
    match kvm::KvmFoundation::new(ground) {
        Ok(foundation) => Ok(Box::new(foundation)),
        Err(error) => Err(format!("{error:#}")),
    }
}

#[cfg(not(all(target_arch = "aarch64", target_os = "linux")))]
fn open_kvm(_ground: &Ground<'_>) -> Result<Box<dyn Foundation>, String> {
    Err(format!("KVM runs arm64 guests only on arm64 hosts, and this one is {}", std::env::consts::ARCH))
}
