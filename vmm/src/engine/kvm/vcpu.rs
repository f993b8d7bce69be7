//! A vCPU of KVM: run, and its exits served.
//!
//! What reaches this process: accesses to devices, with syndrome (`KVM_EXIT_MMIO`) or without (`KVM_EXIT_ARM_NISV`,
//! which [`cpu::transfer`] decodes), the guest's wish to end, and kicks. Everything else the kernel answers.

use std::io;
use std::sync::Arc;

use anyhow::{Context, bail};
use cpu::Bus as _;
use cpu::SysRegs;
use cpu::transfer::{RegisterFile, Transfer};
use hw::{Pa, Ram, SysReg};
use kvm_bindings::{
    KVM_EXIT_ARM_NISV, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
    kvm_vcpu_events,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::Bus;
use crate::engine::kvm::kick::Kicks;
use crate::engine::kvm::regs;
use crate::engine::{Exit, Registers, Vcpu};

/// What all vCPUs share.
pub(super) struct Shared {
    pub(super) bus: Arc<Bus>,
    pub(super) ram: Arc<Ram>,
    pub(super) kicks: Kicks,
}

pub(super) struct KvmVcpu {
    file: File,
    index: usize,
    shared: Arc<Shared>,
    /// Where the last access was that could not be decoded because its instruction was not mapped.
    unmapped: Option<(u64, u64)>,
}

/// The vCPU's registers, as a transfer sees them.
struct File(VcpuFd);

const TCR_EL1: SysReg = SysReg::new(3, 0, 2, 0, 2);
const TTBR0_EL1: SysReg = SysReg::new(3, 0, 2, 0, 0);
const TTBR1_EL1: SysReg = SysReg::new(3, 0, 2, 0, 1);
const SCTLR_EL1: SysReg = SysReg::new(3, 0, 1, 0, 0);
const MAIR_EL1: SysReg = SysReg::new(3, 0, 10, 2, 0);

/// PSTATE fields, where SPSR has them.
mod pstate {
    pub(super) const SP: u64 = 1 << 0;
    pub(super) const EL: u64 = 3 << 2;
    pub(super) const BTYPE: u64 = 3 << 10;
    pub(super) const SS: u64 = 1 << 21;
    /// EL1h, all interrupts masked: as after reset.
    pub(super) const RESET: u64 = 0x3c5;
}

impl File {
    /// The stack pointer in use.
    fn sp_name(&self) -> io::Result<regs::Name> {
        let pstate = regs::get(&self.0, regs::PSTATE)?;
        let own = pstate & pstate::EL != 0 && pstate & pstate::SP != 0;
        Ok(if own { regs::SP_EL1 } else { regs::SP_EL0 })
    }

    /// Goes on behind the present instruction, as its completion would.
    fn advance(&mut self) -> io::Result<()> {
        let pc = regs::get(&self.0, regs::PC)?;
        regs::set(&self.0, regs::PC, pc.wrapping_add(4))?;
        let pstate = regs::get(&self.0, regs::PSTATE)?;
        regs::set(&self.0, regs::PSTATE, pstate & !(pstate::BTYPE | pstate::SS))
    }
}

impl RegisterFile for File {
    type Error = io::Error;

    fn x(&self, n: u8) -> io::Result<u64> {
        regs::get(&self.0, regs::x(n))
    }

    fn set_x(&mut self, n: u8, value: u64) -> io::Result<()> {
        regs::set(&self.0, regs::x(n), value)
    }

    fn sp(&self) -> io::Result<u64> {
        regs::get(&self.0, self.sp_name()?)
    }

    fn set_sp(&mut self, value: u64) -> io::Result<()> {
        regs::set(&self.0, self.sp_name()?, value)
    }

    fn v(&self, n: u8) -> io::Result<u128> {
        regs::get_wide(&self.0, regs::v(n))
    }

    fn set_v(&mut self, n: u8, value: u128) -> io::Result<()> {
        regs::set_wide(&self.0, regs::v(n), value)
    }
}

impl KvmVcpu {
    pub(super) fn new(fd: VcpuFd, index: usize, shared: Arc<Shared>) -> Self {
        Self { file: File(fd), index, shared, unmapped: None }
    }

    /// Lets the guest take an external abort for the access that it is making.
    fn abort_access(&self) -> io::Result<()> {
        let mut events = kvm_vcpu_events::default();
        events.exception.ext_dabt_pending = 1;
        self.file.0.set_vcpu_events(&events).map_err(io::Error::from)
    }

    /// Makes the access at `pa` whose instruction KVM does not describe.
    fn access_without_syndrome(&mut self, pa: u64) -> anyhow::Result<()> {
        let fd = &self.file.0;
        let pc = regs::get(fd, regs::PC)?;
        let el0 = regs::get(fd, regs::PSTATE)? & pstate::EL == 0;
        let sys = SysRegs {
            sctlr: regs::sysreg(fd, SCTLR_EL1)?,
            tcr: regs::sysreg(fd, TCR_EL1)?,
            ttbr0: regs::sysreg(fd, TTBR0_EL1)?,
            ttbr1: regs::sysreg(fd, TTBR1_EL1)?,
            mair: regs::sysreg(fd, MAIR_EL1)?,
            ..Default::default()
        };
        let Some(word) = cpu::fetch_as(&sys, el0, pc, &self.shared.ram) else {
            // Another vCPU may have unmapped the page meanwhile: then the guest takes the fault when it tries again.
            let again = self.unmapped.replace((pc, pa)) == Some((pc, pa));
            return if again { Ok(self.abort_access()?) } else { Ok(()) };
        };
        self.unmapped = None;
        let made = match Transfer::decode(word) {
            Some(transfer) => transfer.perform(Pa(pa), &mut self.file, &*self.shared.bus)?,
            None => false,
        };
        if made {
            self.file.advance()?;
        } else {
            log::debug!("no access at {pa:#x} by instruction {word:#010x} at {pc:#x}");
            self.abort_access()?;
        }
        Ok(())
    }
}

impl Vcpu for KvmVcpu {
    fn set_boot_state(&mut self, pc: Pa, x0: u64) -> anyhow::Result<()> {
        // The vCPU has not run: all else is as after reset.
        regs::set(&self.file.0, regs::PSTATE, pstate::RESET)?;
        regs::set(&self.file.0, regs::PC, pc.0)?;
        regs::set(&self.file.0, regs::x(0), x0)?;
        Ok(())
    }

    fn power_on(&mut self) -> anyhow::Result<()> {
        bail!("KVM's vCPUs are not reset");
    }

    fn run(&mut self) -> anyhow::Result<Exit> {
        let shared = Arc::clone(&self.shared);
        let _entered = shared.kicks.enter(self.index, &mut self.file.0);
        loop {
            // A read that was answered is completed by the next entry, also by one that comes back at once: so a stopped
            // vCPU is always between two instructions.
            let answered = match self.file.0.run() {
                Ok(VcpuExit::MmioRead(pa, data)) => shared.bus.read(Pa(pa), data).is_ok(),
                Ok(VcpuExit::MmioWrite(pa, data)) => shared.bus.write(Pa(pa), data).is_ok(),
                Ok(VcpuExit::Unsupported(KVM_EXIT_ARM_NISV)) => {
                    // SAFETY: the exit's reason says which member of the union the kernel has filled.
                    let pa = unsafe { self.file.0.get_kvm_run().__bindgen_anon_1.arm_nisv.fault_ipa };
                    self.access_without_syndrome(pa).context("an access without syndrome")?;
                    true
                }
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _)) => return Ok(Exit::SystemOff),
                Ok(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET | KVM_SYSTEM_EVENT_CRASH, _)) => {
                    return Ok(Exit::SystemReset);
                }
                Ok(VcpuExit::Intr) => true,
                Ok(other) => bail!("KVM has left the guest for a reason that is not known here: {other:?}"),
                Err(error) => match io::Error::from(error).kind() {
                    io::ErrorKind::Interrupted if shared.kicks.is_stopping() => return Ok(Exit::Stopped),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => true,
                    _ => bail!("KVM does not run the guest: {}", io::Error::from(error)),
                },
            };
            if !answered {
                self.abort_access()?;
            }
        }
    }

    fn registers(&self) -> anyhow::Result<Registers> {
        let fd = &self.file.0;
        let mut x = [0; 31];
        for (n, value) in (0..).zip(&mut x) {
            *value = regs::get(fd, regs::x(n))?;
        }
        let (pc, pstate) = (regs::get(fd, regs::PC)?, regs::get(fd, regs::PSTATE)?);
        Ok(Registers { x, sp: self.file.sp()?, pc, pstate })
    }

    fn set_registers(&mut self, registers: &Registers) -> anyhow::Result<()> {
        let fd = &self.file.0;
        // First PSTATE, which decides what the stack pointer in use is.
        regs::set(fd, regs::PSTATE, registers.pstate)?;
        for (n, &value) in (0..).zip(&registers.x) {
            regs::set(fd, regs::x(n), value)?;
        }
        regs::set(fd, regs::PC, registers.pc)?;
        self.file.set_sp(registers.sp)?;
        Ok(())
    }
}
