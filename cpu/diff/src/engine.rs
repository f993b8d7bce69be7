//! Our side: the same image in the engine's RAM, entered through a stub that sets up EL1.

use std::sync::Arc;

use anyhow::{Context, bail};
use cpu::{Cluster, ClusterConfig, Exit, Features, Tier, VcpuSignals};
use hw::schedule::Threads;
use hw::{Alarms, BusError, Pa, Ram, SysReg, SysRegDevice, UnconnectedLine};

use crate::machine_code::{BOOT, BOOT_BASE, FAULT, FAULT_BASE, IMAGE_BASE, L1_TABLE, L2_TABLE, VECTORS};

const RAM_BYTES: u64 = 64 << 20;
/// Where exceptions are recorded: the last part of RAM.
pub(crate) const FAULTS: u64 = BOOT_BASE + RAM_BYTES - (4 << 20);
const FAULT_RECORD: u64 = 32;
const L2_BLOCK: u64 = 2 << 20;

// Descriptors (DDI 0487, D8.3): block with AF, inner shareable, attribute 0.
const BLOCK: u64 = 1 | 1 << 10 | 3 << 8;
const AP_UNPRIVILEGED: u64 = 1 << 6;
const UXN: u64 = 1 << 54;
const TABLE: u64 = 3;

/// An exception that a case took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) esr: u64,
    pub(crate) far: u64,
    pub(crate) elr: u64,
}

struct NoBus;

impl cpu::Bus for NoBus {
    fn read(&self, pa: Pa, _: &mut [u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(pa.0))
    }
    fn write(&self, pa: Pa, _: &[u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(pa.0))
    }
}

struct NoGic;

impl SysRegDevice for NoGic {
    fn sysreg_read(&self, _: usize, _: SysReg) -> Option<u64> {
        None
    }
    fn sysreg_write(&self, _: usize, _: SysReg, _: u64) -> Option<()> {
        None
    }

    fn sysreg_reset(&self, _: usize) {}
}

struct NoAlarms;

impl Alarms for NoAlarms {
    fn register(&self, _: Arc<dyn hw::AlarmTarget>) -> usize {
        0
    }
    fn set(&self, _: usize, _: Option<u64>) {}
}

/// RAM with the stub and its tables.
pub(crate) struct Engine {
    ram: Arc<Ram>,
    tier: Tier,
}

impl Engine {
    pub(crate) fn new(tier: Tier) -> anyhow::Result<Self> {
        let ram = Arc::new(Ram::new(&[(Pa(BOOT_BASE), RAM_BYTES)])?);
        let put = |at: u64, words: &[u32]| {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            ram.write(Pa(at), &bytes)
        };
        put(BOOT_BASE, BOOT)?;
        put(FAULT_BASE, FAULT)?;
        for vector in 0..16 {
            let at = VECTORS + 0x80 * vector;
            put(at, &[0x1400_0000 | ((FAULT_BASE - at) >> 2) as u32])?;
        }
        ram.store_u64(Pa(L1_TABLE + 8), L2_TABLE | TABLE)?;
        ram.store_u64(Pa(L2_TABLE), BOOT_BASE | BLOCK | UXN)?;
        for i in 1..RAM_BYTES / L2_BLOCK {
            let block = (BOOT_BASE + i * L2_BLOCK) | BLOCK | AP_UNPRIVILEGED;
            ram.store_u64(Pa(L2_TABLE + 8 * i), block)?;
        }
        Ok(Self { ram, tier })
    }

    /// Runs the image and returns its dump.
    pub(crate) fn run(
        &self,
        image: &[u8],
        end: u64,
        (dump, dump_bytes): (u64, usize),
    ) -> anyhow::Result<Vec<u8>> {
        if end > FAULTS {
            bail!("the batch is too large for the engine's RAM");
        }
        self.ram.write(Pa(IMAGE_BASE), image)?;
        let rest = IMAGE_BASE + image.len() as u64;
        self.ram.write(Pa(rest), &vec![0; (end - rest) as usize])?;
        let line = || vec![Arc::new(UnconnectedLine) as Arc<dyn hw::IrqLine>];
        let cluster = Cluster::new(ClusterConfig {
            signals: VcpuSignals::new(1, &Threads),
            features: Features::default(),
            tier: self.tier,
            observation: cpu::Observation::default(),
            ram: Arc::clone(&self.ram),
            bus: Arc::new(NoBus),
            gic: Arc::new(NoGic),
            clock: Arc::new(hw::ManualClock::default()),
            entropy: Arc::new(hw::SeededEntropy::new(0)),
            alarms: Arc::new(NoAlarms),
            scheduler: Arc::new(Threads),
            virtual_timer: line(),
            physical_timer: line(),
        });
        let mut cpu = cluster.vcpu(0);
        cpu.set_boot_state(BOOT_BASE, 0);
        match cpu.run(None) {
            Exit::SystemOff => {}
            exit => bail!("the engine ended the batch with {exit:?}"),
        }
        let mut out = vec![0; dump_bytes];
        self.ram.read(Pa(dump), &mut out)?;
        Ok(out)
    }

    /// Forgets the exceptions of earlier runs.
    pub(crate) fn clear_faults(&self, cases: usize) -> anyhow::Result<()> {
        self.ram.write(Pa(FAULTS), &vec![0; (cases + 1) * FAULT_RECORD as usize])?;
        Ok(())
    }

    /// The exception that case `index` of `cases` took.
    pub(crate) fn fault(&self, index: usize, cases: usize) -> anyhow::Result<Option<Fault>> {
        // The runner counts down before it runs a case.
        let at = Pa(FAULTS + (cases - 1 - index) as u64 * FAULT_RECORD);
        let mut record = [0; 24];
        self.ram.read(at, &mut record).context("fault record")?;
        let word = |i: usize| u64::from_le_bytes(record[8 * i..8 * i + 8].try_into().expect("8 bytes"));
        let fault = Fault { esr: word(0), far: word(1), elr: word(2) };
        Ok((fault.esr != 0).then_some(fault))
    }
}
