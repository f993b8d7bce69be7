//! GICv3 interrupt controller with an ITS. Arm IHI 0069 (GIC architecture, version 3).
//!
//! What lives where: `bank` holds 32 interrupts, `lpi` the configuration and the pending state of LPIs, `delivery`
//! decides which interrupt a PE is told of. `dist` and `redist` are the two register frames of the distributor side,
//! `cpuif` the ICC_* system registers, `its` the translation service; `saved` is the state that is saved. There is one Security state
//! (GICD_CTLR.DS = 1), and affinity routing is always on.
//!
//! Deliberately absent, and not advertised: the legacy mode of GICv2, EL2 virtualization (ICH_*, ICV_*) and
//! GICv4, the extended SPI and PPI ranges, NMIs, 1-of-N routing, message-based SPIs, SETLPIR and CLRLPIR, and
//! reports by SError or status registers: a write that means nothing is ignored, as the architecture allows.
//!
//! Locks: first the ITS's, then the core's. The wires to the PEs are driven under the core's lock, so what is at
//! their other end must be a leaf.

mod bank;
mod cpuif;
mod delivery;
mod dist;
mod its;
mod lpi;
mod redist;
mod regs;
mod saved;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::regmap;
use hw::saved::RestoreError;
use hw::{BusError, DeviceId, GuestErrors, IrqLine, LifeCycle, MmioDevice, MsiSink, NotADoorbell, Pa, Ram};
use serde_json::Value;

pub use self::delivery::Counters;
use self::delivery::{Core, Wiring};
use self::its::Its;
pub use self::regs::{CpuInterfaceReg, DistributorReg, ItsReg, RedistributorReg};

/// Bytes of the distributor's window.
pub const DISTRIBUTOR_BYTES: u64 = 0x1_0000;
/// Bytes of one PE's redistributor: the RD and the SGI frame.
pub const REDISTRIBUTOR_BYTES: u64 = 0x2_0000;
/// Bytes of the ITS: the control and the translation frame.
pub const ITS_BYTES: u64 = 0x2_0000;
/// Where in the ITS's window message writes go: GITS_TRANSLATER.
pub const TRANSLATER_OFFSET: u64 = 0x1_0040;
/// The most SPIs there can be: INTIDs 32 to 1019.
pub const MAX_SPIS: u32 = 988;

/// The affinity that QEMU's `virt` board gives to PE `cpu` with a GICv3, as Aff3.Aff2.Aff1.Aff0 in one word: clusters
/// of sixteen.
#[must_use]
pub const fn virt_affinity(cpu: usize) -> u32 {
    (((cpu / 16) << 8) | (cpu % 16)) as u32
}

/// What a GIC is made of.
pub struct GicConfig {
    /// The affinity of each PE, Aff3.Aff2.Aff1.Aff0 in one word: what its MPIDR_EL1 says, see [`virt_affinity`].
    /// As many as there are PEs; all different.
    pub affinities: Vec<u32>,
    /// SPIs, at most [`MAX_SPIS`]; rounded up to a multiple of 32, as GICD_TYPER counts.
    pub spis: u32,
    /// Each PE's IRQ input.
    pub cpu_irq: Vec<Arc<dyn IrqLine>>,
    /// Each PE's FIQ input.
    pub cpu_fiq: Vec<Arc<dyn IrqLine>>,
    /// WakeRequest to each PE: high while GICR_WAKER.ProcessorSleep holds an interrupt back. It ends WFI and is no
    /// interrupt.
    pub cpu_wake: Vec<Arc<dyn IrqLine>>,
    /// Where the LPI tables, the ITS's tables and its command queue are.
    pub ram: Arc<Ram>,
    /// Physical address of the ITS's window.
    pub its_base: Pa,
    /// Where mistakes of software are counted.
    pub errors: GuestErrors,
}

/// The interrupt controller: distributor, redistributors, CPU interfaces and ITS.
///
/// The CPU interface is its [`hw::SysRegDevice`] side; messages arrive by [`MsiSink`].
pub struct Gic {
    its: Mutex<Its>,
    core: Mutex<Core>,
    its_base: Pa,
    cpus: usize,
    spis: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gic {
    /// A GIC at reset.
    ///
    /// # Panics
    /// If the configuration contradicts itself: no PE, not one wire of each kind per PE, an affinity twice, or too
    /// many SPIs.
    #[must_use]
    pub fn new(config: GicConfig) -> Arc<Self> {
        let GicConfig { affinities, spis, cpu_irq, cpu_fiq, cpu_wake, ram, its_base, errors } = config;
        let cpus = affinities.len();
        assert!(cpus > 0, "a GIC serves at least one PE");
        let wires = [&cpu_irq, &cpu_fiq, &cpu_wake];
        assert!(wires.iter().all(|wires| wires.len() == cpus), "each PE has one wire of each kind");
        assert!(spis <= MAX_SPIS, "{spis} SPIs; INTIDs end at 1019");
        let different: std::collections::BTreeSet<_> = affinities.iter().collect();
        assert_eq!(different.len(), cpus, "two PEs have the same affinity");
        let spis = spis.next_multiple_of(32).min(MAX_SPIS);
        let wiring = Wiring { irq: cpu_irq, fiq: cpu_fiq, wake: cpu_wake, ram: Arc::clone(&ram) };
        Arc::new(Self {
            its: Mutex::new(Its::new(ram, cpus, errors)),
            core: Mutex::new(Core::new(wiring, affinities, spis)),
            its_base,
            cpus,
            spis,
        })
    }

    /// The distributor's registers: [`DISTRIBUTOR_BYTES`].
    #[must_use]
    pub fn distributor(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(DistributorWindow(Arc::clone(self)))
    }

    /// The redistributors' registers, [`REDISTRIBUTOR_BYTES`] for each PE, in one window.
    #[must_use]
    pub fn redistributors(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(RedistributorWindow(Arc::clone(self)))
    }

    /// The ITS's registers: [`ITS_BYTES`].
    #[must_use]
    pub fn its(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(ItsWindow(Arc::clone(self)))
    }

    /// The input of SPI `n`: INTID 32 + `n`.
    ///
    /// # Panics
    /// If there is no such SPI; the board's wiring, never a guest, decides on `n`.
    #[must_use]
    pub fn spi(self: &Arc<Self>, n: u32) -> Arc<dyn IrqLine> {
        assert!(n < self.spis, "SPI {n} of {}", self.spis);
        Arc::new(SpiLine { gic: Arc::clone(self), n })
    }

    /// The input of PE `cpu`'s PPI `n`: INTID 16 + `n`.
    ///
    /// # Panics
    /// If there is no such PE or PPI; the board's wiring, never a guest, decides on them.
    #[must_use]
    pub fn ppi(self: &Arc<Self>, cpu: usize, n: u32) -> Arc<dyn IrqLine> {
        assert!(cpu < self.cpus && n < 16, "PPI {n} of PE {cpu}");
        Arc::new(PpiLine { gic: Arc::clone(self), cpu, n })
    }

    /// Bytes of the redistributors' window.
    #[must_use]
    pub fn redistributors_bytes(&self) -> u64 {
        REDISTRIBUTOR_BYTES * self.cpus as u64
    }

    /// What has been delivered so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.core).counters()
    }
}

impl LifeCycle for Gic {
    /// The inputs keep the levels that they are driven with. What is pending in guest memory stays there, and nothing is
    /// written to it.
    fn reset(&self) {
        let mut its = lock(&self.its);
        its.reset();
        lock(&self.core).reset();
    }

    fn save(&self) -> Value {
        saved::save(self)
    }

    /// What the inputs are driven with meanwhile is not asked: who drives them is restored afterwards.
    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        saved::restore(self, state)
    }
}

/// The distributor's window on the bus.
struct DistributorWindow(Arc<Gic>);

impl MmioDevice for DistributorWindow {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        regmap::read(&*lock(&self.0.core), offset, data)
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        regmap::write(&mut *lock(&self.0.core), offset, data)
    }
}

/// All redistributors' window on the bus.
struct RedistributorWindow(Arc<Gic>);

impl MmioDevice for RedistributorWindow {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let (cpu, offset) = self.0.redistributor_at(offset)?;
        regmap::read(&lock(&self.0.core).redistributor(cpu), offset, data)
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let (cpu, offset) = self.0.redistributor_at(offset)?;
        regmap::write(&mut lock(&self.0.core).redistributor(cpu), offset, data)
    }
}

/// The ITS's window on the bus.
struct ItsWindow(Arc<Gic>);

impl MmioDevice for ItsWindow {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        regmap::read(&*lock(&self.0.its), offset, data)
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let mut its = lock(&self.0.its);
        regmap::write(&mut *its, offset, data)?;
        its.run(&self.0.core);
        Ok(())
    }
}

impl Gic {
    fn redistributor_at(&self, offset: u64) -> Result<(usize, u64), BusError> {
        match usize::try_from(offset / REDISTRIBUTOR_BYTES) {
            Ok(cpu) if cpu < self.cpus => Ok((cpu, offset % REDISTRIBUTOR_BYTES)),
            _ => Err(BusError::NoRegister(offset)),
        }
    }
}

impl MsiSink for Gic {
    fn write(&self, device: DeviceId, pa: Pa, data: u32) -> Result<(), NotADoorbell> {
        if self.its_base.checked_add(TRANSLATER_OFFSET) != Some(pa) {
            return Err(NotADoorbell(pa));
        }
        lock(&self.its).message(&self.core, device, data);
        Ok(())
    }
}

/// One SPI's input.
struct SpiLine {
    gic: Arc<Gic>,
    n: u32,
}

impl IrqLine for SpiLine {
    fn set(&self, high: bool) {
        lock(&self.gic.core).set_spi_line(self.n, high);
    }
}

/// One PPI's input.
struct PpiLine {
    gic: Arc<Gic>,
    cpu: usize,
    n: u32,
}

impl IrqLine for PpiLine {
    fn set(&self, high: bool) {
        lock(&self.gic.core).set_ppi_line(self.cpu, self.n, high);
    }
}
