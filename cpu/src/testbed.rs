//! A machine for tests: RAM, a bus that remembers, a clock that is moved by hand, and tables built as a kernel would.

use std::sync::{Arc, Mutex, OnceLock};

use hw::schedule::Threads;
use hw::{
    AlarmTarget, Alarms, BusError, Clock, IrqLine, ManualClock, Pa, Ram, RecordingLine, Scheduler, SysReg,
    SysRegDevice,
};

use crate::{Bus, Cluster, ClusterConfig, Cpu, Features, Observation, Tier, VcpuSignals};

/// Where RAM starts, and its size.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: u64 = 0x100_0000;
/// A device's registers: answers any access. Everything else outside RAM is a hole.
pub(crate) const DEVICE: u64 = 0x900_0000;

/// What runs the tests' code: CPU_TEST_TIER is `interpreter`, `translated` or `lockstep`, or as usual.
pub(crate) fn tier() -> Tier {
    match std::env::var("CPU_TEST_TIER").as_deref() {
        Ok("interpreter") => Tier::Interpreter,
        Ok("translated") => Tier::Translated,
        Ok("lockstep") => Tier::Lockstep,
        _ => Tier::default(),
    }
}

/// One page of registers that remembers what was written to it, and reads as its own address. A test may have something
/// done at each read.
#[derive(Default)]
pub(crate) struct TestBus(
    pub(crate) Mutex<Vec<(u64, Vec<u8>)>>,
    pub(crate) OnceLock<Box<dyn Fn() + Send + Sync>>,
);

fn in_device(pa: Pa) -> Result<(), BusError> {
    if pa.0 & !0xfff == DEVICE { Ok(()) } else { Err(BusError::NoRegister(pa.0)) }
}

impl Bus for TestBus {
    fn read(&self, pa: Pa, data: &mut [u8]) -> Result<(), BusError> {
        in_device(pa)?;
        assert!(matches!(data.len(), 1 | 2 | 4 | 8 | 16));
        if let Some(at_read) = self.1.get() {
            at_read();
        }
        hw::mmio::put_value(data, pa.0);
        Ok(())
    }

    fn write(&self, pa: Pa, data: &[u8]) -> Result<(), BusError> {
        in_device(pa)?;
        assert!(matches!(data.len(), 1 | 2 | 4 | 8 | 16));
        self.0.lock().unwrap().push((pa.0, data.to_vec()));
        Ok(())
    }
}

/// A GIC with one register, ICC_PMR_EL1, for each PE.
#[derive(Default)]
pub(crate) struct TestGic(Mutex<[u64; 8]>);

const ICC_PMR_EL1: SysReg = SysReg::new(3, 0, 4, 6, 0);

impl SysRegDevice for TestGic {
    fn sysreg_read(&self, cpu: usize, reg: SysReg) -> Option<u64> {
        (reg == ICC_PMR_EL1).then(|| self.0.lock().unwrap()[cpu])
    }

    fn sysreg_write(&self, cpu: usize, reg: SysReg, value: u64) -> Option<()> {
        (reg == ICC_PMR_EL1).then(|| self.0.lock().unwrap()[cpu] = value)
    }

    fn sysreg_reset(&self, cpu: usize) {
        self.0.lock().unwrap()[cpu] = 0;
    }
}

/// Whom to call, and when.
type Slot = (Arc<dyn AlarmTarget>, Option<u64>);

/// Alarms that ring when the test says so.
#[derive(Default)]
pub(crate) struct TestAlarms(Mutex<Vec<Slot>>);

impl Alarms for TestAlarms {
    fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
        let mut slots = self.0.lock().unwrap();
        slots.push((target, None));
        slots.len() - 1
    }

    fn set(&self, slot: usize, deadline_ns: Option<u64>) {
        self.0.lock().unwrap()[slot].1 = deadline_ns;
    }
}

pub(crate) struct Bench {
    pub(crate) ram: Arc<Ram>,
    pub(crate) bus: Arc<TestBus>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) alarms: Arc<TestAlarms>,
    pub(crate) signals: VcpuSignals,
    pub(crate) virtual_lines: Vec<Arc<RecordingLine>>,
    pub(crate) cluster: Arc<Cluster>,
}

impl Bench {
    pub(crate) fn new(cpus: usize) -> Self {
        Self::with_tier(cpus, tier())
    }

    /// As [`Self::new`], whatever the environment says.
    pub(crate) fn with_tier(cpus: usize, tier: Tier) -> Self {
        Self::observed(cpus, tier, Observation::default())
    }

    pub(crate) fn observed(cpus: usize, tier: Tier, observation: Observation) -> Self {
        Self::made_of(cpus, tier, observation, Arc::new(Threads))
    }

    /// vCPUs that are tasks of a scheduler.
    pub(crate) fn scheduled(cpus: usize, scheduler: Arc<dyn Scheduler>) -> Self {
        Self::made_of(cpus, tier(), Observation::default(), scheduler)
    }

    fn made_of(cpus: usize, tier: Tier, observation: Observation, scheduler: Arc<dyn Scheduler>) -> Self {
        let ram = Arc::new(Ram::new(&[(Pa(RAM), RAM_BYTES)]).unwrap());
        let bus = Arc::new(TestBus::default());
        let clock = Arc::new(ManualClock::default());
        let alarms = Arc::new(TestAlarms::default());
        let signals = VcpuSignals::new(cpus, &*scheduler);
        let virtual_lines: Vec<_> = (0..cpus).map(|_| Arc::new(RecordingLine::default())).collect();
        let as_lines = |lines: &[Arc<RecordingLine>]| {
            lines.iter().map(|line| Arc::clone(line) as Arc<dyn IrqLine>).collect::<Vec<_>>()
        };
        let cluster = Cluster::new(ClusterConfig {
            signals: signals.clone(),
            features: Features::default(),
            tier,
            observation,
            ram: Arc::clone(&ram),
            bus: bus.clone(),
            gic: Arc::new(TestGic::default()),
            clock: clock.clone(),
            entropy: Arc::new(hw::SeededEntropy::new(0)),
            alarms: alarms.clone(),
            scheduler,
            virtual_timer: as_lines(&virtual_lines),
            physical_timer: (0..cpus).map(|_| Arc::new(hw::UnconnectedLine) as Arc<dyn IrqLine>).collect(),
        });
        Self { ram, bus, clock, alarms, signals, virtual_lines, cluster }
    }

    /// vCPU `index`, awake, as after reset.
    pub(crate) fn cpu(&self, index: usize) -> Cpu {
        let cpu = self.cluster.vcpu(index);
        self.cluster.assume_on(index);
        self.signals.get(index).unwrap().get_up();
        cpu
    }

    /// Moves the time on and rings the alarms that are due.
    pub(crate) fn advance_ns(&self, ns: u64) {
        self.clock.advance_ns(ns);
        let now = self.clock.now_ns();
        let due: Vec<_> = {
            let mut slots = self.alarms.0.lock().unwrap();
            slots
                .iter_mut()
                .filter(|(_, deadline)| deadline.is_some_and(|at| at <= now))
                .map(|(target, deadline)| {
                    *deadline = None;
                    Arc::clone(target)
                })
                .collect()
        };
        for target in due {
            target.alarm();
        }
    }

    /// Puts instructions into RAM.
    pub(crate) fn code(&self, pa: u64, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.write(Pa(pa), &bytes).unwrap();
    }
}

/// Bits of leaf descriptors.
pub(crate) mod pte {
    pub(crate) const PAGE: u64 = 0b11;
    pub(crate) const BLOCK: u64 = 0b01;
    pub(crate) const TABLE: u64 = 0b11;
    pub(crate) const DEVICE: u64 = 1 << 2;
    pub(crate) const USER: u64 = 1 << 6;
    pub(crate) const READ_ONLY: u64 = 1 << 7;
    pub(crate) const AF: u64 = 1 << 10;
    pub(crate) const NG: u64 = 1 << 11;
    pub(crate) const PXN: u64 = 1 << 53;
    pub(crate) const UXN: u64 = 1 << 54;
}

/// Translation tables with the 4 KiB granule and 48-bit addresses, made in RAM from a pool of pages.
pub(crate) struct Tables {
    ram: Arc<Ram>,
    pub(crate) root: u64,
    next: u64,
}

impl Tables {
    /// An empty root table at `pool`, from where further tables are taken.
    pub(crate) fn new(ram: &Arc<Ram>, pool: u64) -> Self {
        Self { ram: Arc::clone(ram), root: pool, next: pool + 0x1000 }
    }

    /// Physical address of the descriptor of `va` at `level`, with tables made down to it.
    pub(crate) fn descriptor(&mut self, va: u64, level: u32) -> u64 {
        let mut table = self.root;
        for at in 0..=level {
            let entry = table + (va >> (39 - 9 * at) & 0x1ff) * 8;
            if at == level {
                return entry;
            }
            let descriptor = self.ram.load_u64(Pa(entry)).unwrap();
            table = if descriptor & 3 == pte::TABLE {
                descriptor & 0xffff_ffff_f000
            } else {
                let new = self.next;
                self.next += 0x1000;
                self.ram.store_u64(Pa(entry), new | pte::TABLE).unwrap();
                new
            };
        }
        unreachable!("the loop returns at its last level")
    }

    /// Sets the descriptor of `va` at `level`.
    pub(crate) fn set(&mut self, va: u64, level: u32, descriptor: u64) {
        let at = self.descriptor(va, level);
        self.ram.store_u64(Pa(at), descriptor).unwrap();
    }

    /// Maps a page, with the access flag set.
    pub(crate) fn page(&mut self, va: u64, pa: u64, bits: u64) {
        self.set(va, 3, pa | pte::PAGE | pte::AF | bits);
    }
}

/// Turns the MMU on: both halves 48 bits and 4 KiB, MAIR 0 Normal, 1 Device-nGnRnE, 16-bit ASIDs in TTBR1 (A1).
pub(crate) fn mmu_on(cpu: &mut Cpu, ttbr0: u64, ttbr1: u64, asid: u16) {
    let sys = &mut cpu.state.sys;
    sys.tcr = 16 | 16 << 16 | 2 << 30 | 5 << 32 | 1 << 36 | 1 << 22;
    sys.ttbr0 = ttbr0;
    sys.ttbr1 = ttbr1 | u64::from(asid) << 48;
    sys.mair = 0x00ff;
    sys.sctlr |= 1;
    cpu.memory_regime_changed();
}

/// Maps the first GiB of RAM as Normal memory at its own address, with tables at the end of RAM that all vCPUs share:
/// whoever makes them writes the same.
pub(crate) fn mmu_on_flat(cpu: &mut Cpu) {
    let ram = Arc::clone(cpu.cluster.host.ram());
    let mut tables = Tables::new(&ram, RAM + 0xff_0000);
    tables.set(RAM, 1, RAM | pte::BLOCK | pte::AF);
    mmu_on(cpu, tables.root, 0, 1);
}

/// Moves the vCPU to EL0, everything unmasked.
pub(crate) fn to_el0(cpu: &mut Cpu) {
    cpu.set_pstate(0);
}
