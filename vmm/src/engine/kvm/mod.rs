//! KVM behind the seam: vCPUs at the host's speed, on arm64 hosts.
//!
//! In the kernel: vCPUs with their timers and PSCI, GICv3 and ITS (`gic`). In this process, unchanged: every device, the
//! SMMU, the accelerator. `vcpu` runs a vCPU and serves its exits, `kick` makes it come back, `regs` names its
//! registers. Kernel interface: `Documentation/virt/kvm/api.rst` of Linux. Deliberately absent: irqfd and ioeventfd;
//! `docs/decisions/0004-interrupts-and-kicks-under-kvm-are-calls.md` has the reasons.

mod gic;
mod kick;
mod regs;
mod vcpu;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use hw::{IrqLine, MsiSink, Ram, SysReg};
use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_CAP_ARM_INJECT_EXT_DABT, KVM_CAP_ARM_NISV_TO_USER,
    kvm_enable_cap, kvm_userspace_memory_region, kvm_vcpu_init,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::board::map;
use crate::bus::Bus;
use crate::engine::kvm::gic::KernelGic;
use crate::engine::kvm::kick::Kicks;
use crate::engine::kvm::vcpu::{KvmVcpu, Shared};
use crate::engine::{Engine, Foundation, Ground, Vcpu};
use crate::sandbox::calls::{Arg, Call, EngineCalls};

/// Requests to KVM, as `_IO` and `_IOW` of `linux/kvm.h` make them.
mod request {
    pub(super) const RUN: u32 = 0xae80;
    pub(super) const SET_VCPU_EVENTS: u32 = 0x4040_aea0;
    pub(super) const GET_ONE_REG: u32 = 0x4010_aeab;
    pub(super) const SET_ONE_REG: u32 = 0x4010_aeac;
    pub(super) const IRQ_LINE: u32 = 0x4008_ae61;
    pub(super) const SIGNAL_MSI: u32 = 0x4020_aea5;
}

/// What this engine asks of the host: vCPUs run and have their registers; every thread may raise an interrupt; and whoever
/// stops the machine signals the vCPUs' threads.
pub(super) const SYSTEM_CALLS: EngineCalls = EngineCalls {
    vcpu: &[
        Call::only(libc::SYS_ioctl, &[Arg::is(1, request::RUN)]),
        Call::only(libc::SYS_ioctl, &[Arg::is(1, request::GET_ONE_REG)]),
        Call::only(libc::SYS_ioctl, &[Arg::is(1, request::SET_ONE_REG)]),
        Call::only(libc::SYS_ioctl, &[Arg::is(1, request::SET_VCPU_EVENTS)]),
    ],
    every: &[
        Call::only(libc::SYS_ioctl, &[Arg::is(1, request::IRQ_LINE)]),
        Call::only(libc::SYS_ioctl, &[Arg::is(1, request::SIGNAL_MSI)]),
        Call::only(libc::SYS_tgkill, &[Arg::is(2, kick::KICK as u32)]),
    ],
};

/// Bits of the SMMU's addresses, which the vCPUs' need not exceed.
const MOST_BITS: u32 = 48;

/// A virtual machine with vCPUs and interrupt controller, and no devices yet.
pub(super) struct KvmFoundation {
    gic: Arc<KernelGic>,
    vcpus: Vec<VcpuFd>,
    kicks: Kicks,
    ram: Arc<Ram>,
    pa_bits: u32,
}

impl KvmFoundation {
    /// Makes the virtual machine.
    ///
    /// # Errors
    /// The part of a line for the user that says what the host lacks.
    pub(super) fn new(ground: &Ground<'_>) -> anyhow::Result<Self> {
        // The host's own error is enough: no such file, permission denied.
        let kvm = Kvm::new().map_err(io::Error::from).context("/dev/kvm cannot be opened")?;
        for cap in [KVM_CAP_ARM_NISV_TO_USER, KVM_CAP_ARM_INJECT_EXT_DABT] {
            if kvm.check_extension_raw(cap.into()) <= 0 {
                bail!("the host's KVM is too old: it lacks capability {cap}, which Linux 5.5 brought");
            }
        }
        let bits = ipa_bits(&kvm)?;
        let vm = kvm
            .create_vm_with_ipa_size(bits)
            .map_err(io::Error::from)
            .context("KVM makes no virtual machine")?;
        let nisv = kvm_enable_cap { cap: KVM_CAP_ARM_NISV_TO_USER, ..Default::default() };
        vm.enable_cap(&nisv).map_err(io::Error::from).context("KVM reports no accesses without syndrome")?;
        give_ram(&vm, ground.ram)?;
        let vcpus = (0..ground.cpus)
            .map(|index| make_vcpu(&vm, index, bits).with_context(|| format!("KVM makes no vCPU {index}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let pa_bits = pa_bits(&vcpus[0])?;
        let gic = Arc::new(KernelGic::new(vm, ground.cpus)?);
        let kicks = Kicks::new(ground.cpus).context("no signal for vCPUs")?;
        Ok(Self { gic, vcpus, kicks, ram: Arc::clone(ground.ram), pa_bits })
    }
}

/// Bits of guest physical addresses: what the map needs, and no more than the SMMU has.
fn ipa_bits(kvm: &Kvm) -> anyhow::Result<u32> {
    const NEEDED: u32 = (map::PCI_MMIO64.end() - 1).ilog2() + 1;
    let limit = u32::try_from(kvm.get_host_ipa_limit()).unwrap_or(0);
    if limit < NEEDED {
        bail!("the host's KVM gives guests {limit} address bits, and this machine needs {NEEDED}");
    }
    Ok(limit.min(MOST_BITS))
}

/// Lets guests use RAM where the map has it.
fn give_ram(vm: &VmFd, ram: &Ram) -> anyhow::Result<()> {
    for (slot, region) in (0..).zip(ram.guest_memory().iter()) {
        let memory = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is a mapping of our own. It lives as long as the RAM, which the vCPUs keep; and should it
        // ever be unmapped before the virtual machine is gone, KVM unmaps it from the guest.
        unsafe { vm.set_user_memory_region(memory) }
            .map_err(io::Error::from)
            .context("KVM does not take the RAM")?;
    }
    Ok(())
}

fn make_vcpu(vm: &VmFd, index: usize, pa_bits: u32) -> anyhow::Result<VcpuFd> {
    let fd = vm.create_vcpu(index as u64).map_err(io::Error::from)?;
    let mut init = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut init).map_err(io::Error::from)?;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    if index > 0 {
        init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
    }
    fd.vcpu_init(&init).map_err(io::Error::from)?;
    lower_id_registers(&fd, pa_bits)?;
    Ok(fd)
}

const ID_AA64MMFR0_EL1: SysReg = SysReg::new(3, 0, 0, 7, 0);
const ID_AA64MMFR2_EL1: SysReg = SysReg::new(3, 0, 0, 7, 2);
/// Fields of ID_AA64MMFR0_EL1 and ID_AA64MMFR2_EL1, by their lowest bits (Arm ARM D23.2).
const PA_RANGE: u32 = 0;
const TGRAN16: u32 = 20;
const TGRAN4: u32 = 28;
const VA_RANGE: u32 = 16;

const fn id_field(register: u64, lsb: u32) -> u64 {
    register >> lsb & 0xf
}

const fn with_id_field(register: u64, lsb: u32, value: u64) -> u64 {
    register & !(0xf << lsb) | value << lsb
}

/// PARange for this many bits, rounded down; and back.
const PA_RANGES: [u32; 7] = [32, 36, 40, 42, 44, 48, 52];

/// Hides from the guest what its SMMU does not have, so that both can walk the same tables: larger physical and virtual
/// addresses, and the descriptors that go with them (LPA2).
///
/// Kernels before Linux 6.7 let nobody change these registers. The guest then has what the host has, and the SMMU is made
/// to match where it can; see [`Foundation::pa_bits`].
fn lower_id_registers(fd: &VcpuFd, bits: u32) -> anyhow::Result<()> {
    let mmfr0 = regs::sysreg(fd, ID_AA64MMFR0_EL1)?;
    let range = PA_RANGES.iter().rposition(|&r| r <= bits).unwrap_or(0) as u64;
    let mut lowered = with_id_field(mmfr0, PA_RANGE, id_field(mmfr0, PA_RANGE).min(range));
    // 1 in TGran4 and 2 in TGran16 stand for LPA2.
    if id_field(mmfr0, TGRAN4) == 1 {
        lowered = with_id_field(lowered, TGRAN4, 0);
    }
    if id_field(mmfr0, TGRAN16) == 2 {
        lowered = with_id_field(lowered, TGRAN16, 1);
    }
    let mmfr2 = with_id_field(regs::sysreg(fd, ID_AA64MMFR2_EL1)?, VA_RANGE, 0);
    for (register, value) in [(ID_AA64MMFR0_EL1, lowered), (ID_AA64MMFR2_EL1, mmfr2)] {
        if let Err(error) = regs::set_sysreg(fd, register, value) {
            log::info!("the host's KVM does not let {register:?} be lowered to {value:#x}: {error}");
        }
    }
    Ok(())
}

fn pa_bits(fd: &VcpuFd) -> anyhow::Result<u32> {
    let range = id_field(regs::sysreg(fd, ID_AA64MMFR0_EL1)?, PA_RANGE);
    // Larger encodings are later extensions of the 52 bits.
    Ok(PA_RANGES.get(range as usize).copied().unwrap_or(52))
}

impl Foundation for KvmFoundation {
    fn spi(&self, n: u32) -> Arc<dyn IrqLine> {
        self.gic.spi(n)
    }

    fn msi(&self) -> Arc<dyn MsiSink> {
        self.gic.clone()
    }

    fn pa_bits(&self) -> u32 {
        self.pa_bits
    }

    fn attach(&self, _bus: &mut Bus) -> anyhow::Result<()> {
        // The kernel answers accesses to distributor, redistributors and ITS.
        Ok(())
    }

    fn complete(self: Box<Self>, bus: Arc<Bus>) -> Box<dyn Engine> {
        let Self { gic, vcpus, kicks, ram, pa_bits: _ } = *self;
        let vcpus = Mutex::new(vcpus.into_iter().map(Some).collect());
        Box::new(KvmEngine { vcpus, shared: Arc::new(Shared { bus, ram, kicks }), _gic: gic })
    }
}

/// vCPUs run by KVM, one host thread each.
struct KvmEngine {
    /// Those that nobody has asked for yet.
    vcpus: Mutex<Vec<Option<VcpuFd>>>,
    shared: Arc<Shared>,
    /// Keeps the virtual machine.
    _gic: Arc<KernelGic>,
}

impl Engine for KvmEngine {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn vcpu(&self, index: usize) -> Box<dyn Vcpu> {
        let mut vcpus = self.vcpus.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = vcpus.get_mut(index).and_then(Option::take);
        let fd = fd.unwrap_or_else(|| panic!("vCPU {index} is made once, of those that there are"));
        Box::new(KvmVcpu::new(fd, index, Arc::clone(&self.shared)))
    }

    fn stop(&self) {
        self.shared.kicks.stop();
    }

    fn resume(&self) {
        self.shared.kicks.resume();
    }

    fn can_reset(&self) -> bool {
        // The GIC of the kernel has no reset but a new virtual machine, whose descriptors no filter of this one would know.
        false
    }

    fn reset(&self) {
        unreachable!("nobody asks for what `can_reset` denies");
    }

    fn can_save(&self) -> Result<(), String> {
        // The kernel's GIC writes its tables to RAM and its registers through one device descriptor after the other, in an order
        // of its own; nothing of that is asked for here, and the sandbox permits none of it.
        Err("with KVM the state of vCPUs and GIC is the kernel's, and is not read out; try --engine soft"
            .to_owned())
    }
}
