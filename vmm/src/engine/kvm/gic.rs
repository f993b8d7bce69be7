//! The kernel's GICv3 and ITS: made at the addresses of the map, and reached by wires and messages.
//!
//! Kernel interface: `Documentation/virt/kvm/devices/arm-vgic-v3.rst` and `arm-vgic-its.rst` of Linux.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use devices::gic::TRANSLATER_OFFSET;
use hw::{DeviceId, IrqLine, MsiSink, NotADoorbell, Pa};
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_MSI_VALID_DEVID, KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V3_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, kvm_create_device, kvm_device_attr, kvm_device_type,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_msi,
};
use kvm_ioctls::{DeviceFd, VmFd};

use crate::board::map;

/// The virtual machine with its interrupt controller.
pub(super) struct KernelGic {
    vm: VmFd,
    /// Keep the devices.
    _devices: [DeviceFd; 2],
}

fn set(device: &DeviceFd, group: u32, attr: u32, value: &u64) -> io::Result<()> {
    let addr = std::ptr::from_ref(value) as u64;
    let attr = kvm_device_attr { flags: 0, group, attr: attr.into(), addr };
    device.set_device_attr(&attr).map_err(io::Error::from)
}

fn create(vm: &VmFd, type_: kvm_device_type) -> io::Result<DeviceFd> {
    let mut device = kvm_create_device { type_, fd: 0, flags: 0 };
    vm.create_device(&mut device).map_err(io::Error::from)
}

impl KernelGic {
    /// Makes both devices. All vCPUs have been made and none has run.
    ///
    /// # Errors
    /// The part of a line for the user that says what the host lacks.
    pub(super) fn new(vm: VmFd, cpus: usize) -> anyhow::Result<Self> {
        let gic = create(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3)
            .context("the host's KVM has no GICv3 for guests")?;
        let made = || -> io::Result<()> {
            // Only 32 bits of this one are read.
            let irqs = u64::from(32 + map::spi::COUNT);
            set(&gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs)?;
            set(&gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, &map::GICD.base)?;
            // How many there are in bits [63:52], then the address, then the region's number.
            let region = (cpus as u64) << 52 | map::GICR.base;
            set(&gic, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, &region)?;
            set(&gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, &0)
        };
        made().context("KVM does not make the GICv3")?;
        let its = create(&vm, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS)
            .context("the host's KVM has no ITS for guests")?;
        let made = || -> io::Result<()> {
            set(&its, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_ITS_ADDR_TYPE, &map::ITS.base)?;
            set(&its, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, &0)
        };
        made().context("KVM does not make the ITS")?;
        Ok(Self { vm, _devices: [gic, its] })
    }

    /// The input of SPI `n`: INTID 32 + `n`.
    pub(super) fn spi(self: &Arc<Self>, n: u32) -> Arc<dyn IrqLine> {
        Arc::new(SpiLine { gic: Arc::clone(self), intid: 32 + n, level: Mutex::new(false) })
    }
}

impl MsiSink for KernelGic {
    fn write(&self, device: DeviceId, pa: Pa, data: u32) -> Result<(), NotADoorbell> {
        if pa.0 != map::ITS.base + TRANSLATER_OFFSET {
            return Err(NotADoorbell(pa));
        }
        let msi = kvm_msi {
            address_lo: pa.0 as u32,
            address_hi: (pa.0 >> 32) as u32,
            data,
            flags: KVM_MSI_VALID_DEVID,
            devid: device.0,
            ..Default::default()
        };
        // A message for which the guest has no mapping goes nowhere, as at any ITS; KVM calls that an error.
        let sent = self.vm.signal_msi(msi);
        log::trace!(target: "its", "message {data:#x} of {device:?}: {sent:?}");
        Ok(())
    }
}

/// One SPI's input (`KVM_IRQ_LINE`).
struct SpiLine {
    gic: Arc<KernelGic>,
    intid: u32,
    /// The present level. KVM takes each high level of an edge-triggered interrupt for an edge, so repetitions must not
    /// reach it; the lock keeps levels in their order.
    level: Mutex<bool>,
}

/// `KVM_ARM_IRQ_TYPE_SPI` in the argument of `KVM_IRQ_LINE`.
const TYPE_SPI: u32 = 1 << 24;

impl IrqLine for SpiLine {
    fn set(&self, high: bool) {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *level, high) != high
            && let Err(error) = self.gic.vm.set_irq_line(TYPE_SPI | self.intid, high)
        {
            log::error!("KVM does not take interrupt {}: {error}", self.intid);
        }
    }
}
