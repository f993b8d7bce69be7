//! Tests of the whole controller, through the seams that a machine uses.

mod delivery;
mod its;
mod life;
mod lpi;
mod registers;
mod robustness;
mod saved;

use std::sync::Arc;

use hw::mmio::{put_value, value_of};
use hw::{DeviceId, IrqLine, MmioDevice, MsiSink, Pa, Ram, RecordingLine, SysReg, SysRegDevice};

use super::{
    Counters, CpuInterfaceReg, DistributorReg, Gic, GicConfig, ItsReg, RedistributorReg, TRANSLATER_OFFSET,
    virt_affinity,
};

pub(super) const RAM_BASE: u64 = 0x4000_0000;
pub(super) const RAM_BYTES: u64 = 0x100_0000;
pub(super) const ITS_BASE: u64 = 0x808_0000;

/// Where the bench's driver puts its tables.
pub(super) const PROP: u64 = RAM_BASE + 0x1_0000;
pub(super) const DEVICE_TABLE: u64 = RAM_BASE + 0x10_0000;
pub(super) const COLLECTION_TABLE: u64 = RAM_BASE + 0x4_0000;
pub(super) const QUEUE: u64 = RAM_BASE + 0x6_0000;
pub(super) const QUEUE_BYTES: u64 = 0x1_0000;
pub(super) const ITT: u64 = RAM_BASE + 0x30_0000;
pub(super) const PENDING: u64 = RAM_BASE + 0x80_0000;

pub(super) const GICD_CTLR: u64 = DistributorReg::GICD_CTLR.offset();
pub(super) const GICD_TYPER: u64 = DistributorReg::GICD_TYPER.offset();
pub(super) const GICD_IGROUPR: u64 = DistributorReg::GICD_IGROUPR.offset();
pub(super) const GICD_ISENABLER: u64 = DistributorReg::GICD_ISENABLER.offset();
pub(super) const GICD_ICENABLER: u64 = DistributorReg::GICD_ICENABLER.offset();
pub(super) const GICD_ISPENDR: u64 = DistributorReg::GICD_ISPENDR.offset();
pub(super) const GICD_ICPENDR: u64 = DistributorReg::GICD_ICPENDR.offset();
pub(super) const GICD_ISACTIVER: u64 = DistributorReg::GICD_ISACTIVER.offset();
pub(super) const GICD_ICACTIVER: u64 = DistributorReg::GICD_ICACTIVER.offset();
pub(super) const GICD_IPRIORITYR: u64 = DistributorReg::GICD_IPRIORITYR.offset();
pub(super) const GICD_ICFGR: u64 = DistributorReg::GICD_ICFGR.offset();
/// That of INTID 0: the first that exists is that of INTID 32.
pub(super) const GICD_IROUTER: u64 = DistributorReg::GICD_IROUTER.offset() - 8 * 32;
pub(super) const GICR_CTLR: u64 = RedistributorReg::GICR_CTLR.offset();
pub(super) const GICR_TYPER: u64 = RedistributorReg::GICR_TYPER.offset();
pub(super) const GICR_WAKER: u64 = RedistributorReg::GICR_WAKER.offset();
pub(super) const GICR_PROPBASER: u64 = RedistributorReg::GICR_PROPBASER.offset();
pub(super) const GICR_PENDBASER: u64 = RedistributorReg::GICR_PENDBASER.offset();
pub(super) const GICR_INVLPIR: u64 = RedistributorReg::GICR_INVLPIR.offset();
pub(super) const GICR_INVALLR: u64 = RedistributorReg::GICR_INVALLR.offset();
pub(super) const GICR_SYNCR: u64 = RedistributorReg::GICR_SYNCR.offset();
/// The SGI frame has the distributor's offsets.
pub(super) const SGI_FRAME: u64 = 0x1_0000;
pub(super) const PIDR2: u64 = DistributorReg::GICD_PIDR2.offset();
pub(super) const GITS_CTLR: u64 = ItsReg::GITS_CTLR.offset();
pub(super) const GITS_TYPER: u64 = ItsReg::GITS_TYPER.offset();
pub(super) const GITS_CBASER: u64 = ItsReg::GITS_CBASER.offset();
pub(super) const GITS_CWRITER: u64 = ItsReg::GITS_CWRITER.offset();
pub(super) const GITS_CREADR: u64 = ItsReg::GITS_CREADR.offset();
pub(super) const GITS_BASER0: u64 = ItsReg::GITS_BASER0.offset();
pub(super) const GITS_BASER1: u64 = ItsReg::GITS_BASER1.offset();

const fn icc(crm: u8, op2: u8) -> SysReg {
    SysReg::new(3, 0, 12, crm, op2)
}
pub(super) const PMR: SysReg = SysReg::new(3, 0, 4, 6, 0);
pub(super) const IAR0: SysReg = icc(8, 0);
pub(super) const EOIR0: SysReg = icc(8, 1);
pub(super) const HPPIR0: SysReg = icc(8, 2);
pub(super) const BPR0: SysReg = icc(8, 3);
pub(super) const AP0R0: SysReg = icc(8, 4);
pub(super) const AP1R0: SysReg = icc(9, 0);
pub(super) const DIR: SysReg = icc(11, 1);
pub(super) const RPR: SysReg = icc(11, 3);
pub(super) const SGI1R: SysReg = icc(11, 5);
pub(super) const ASGI1R: SysReg = icc(11, 6);
pub(super) const SGI0R: SysReg = icc(11, 7);
pub(super) const IAR1: SysReg = icc(12, 0);
pub(super) const EOIR1: SysReg = icc(12, 1);
pub(super) const HPPIR1: SysReg = icc(12, 2);
pub(super) const BPR1: SysReg = icc(12, 3);
pub(super) const CTLR: SysReg = icc(12, 4);
pub(super) const SRE: SysReg = icc(12, 5);
pub(super) const IGRPEN0: SysReg = icc(12, 6);
pub(super) const IGRPEN1: SysReg = icc(12, 7);

pub(super) const SPURIOUS: u64 = 1023;

/// A GIC with 256 SPIs, RAM, and wires that remember.
pub(super) struct Bench {
    pub(super) errors: hw::GuestErrors,
    pub(super) gic: Arc<Gic>,
    pub(super) ram: Arc<Ram>,
    pub(super) irq: Vec<Arc<RecordingLine>>,
    pub(super) fiq: Vec<Arc<RecordingLine>>,
    pub(super) wake: Vec<Arc<RecordingLine>>,
    dist: Arc<dyn MmioDevice>,
    redist: Arc<dyn MmioDevice>,
    its: Arc<dyn MmioDevice>,
}

fn read(device: &dyn MmioDevice, at: u64, len: usize) -> u64 {
    let mut data = [0; 8];
    device.mmio_read(at, &mut data[..len]).unwrap();
    value_of(&data[..len])
}

fn write(device: &dyn MmioDevice, at: u64, len: usize, value: u64) {
    let mut data = [0; 8];
    put_value(&mut data, value);
    device.mmio_write(at, &data[..len]).unwrap();
}

impl Bench {
    /// At reset.
    pub(super) fn new(cpus: usize) -> Self {
        let ram = Arc::new(Ram::new(&[(Pa(RAM_BASE), RAM_BYTES)]).unwrap());
        let lines = || (0..cpus).map(|_| Arc::new(RecordingLine::default())).collect::<Vec<_>>();
        let (irq, fiq, wake) = (lines(), lines(), lines());
        let wires = |lines: &Vec<Arc<RecordingLine>>| {
            lines.iter().map(|line| Arc::clone(line) as Arc<dyn IrqLine>).collect::<Vec<_>>()
        };
        let errors = hw::GuestErrors::default();
        let gic = Gic::new(GicConfig {
            affinities: (0..cpus).map(virt_affinity).collect(),
            spis: 256,
            cpu_irq: wires(&irq),
            cpu_fiq: wires(&fiq),
            cpu_wake: wires(&wake),
            ram: Arc::clone(&ram),
            its_base: Pa(ITS_BASE),
            errors: errors.clone(),
        });
        let (dist, redist, its) = (gic.distributor(), gic.redistributors(), gic.its());
        Self { errors, gic, ram, irq, fiq, wake, dist, redist, its }
    }

    /// As Linux's drivers leave it: groups, priorities, CPU interfaces, LPIs and the ITS, with a collection for each
    /// PE. No interrupt is enabled.
    pub(super) fn linux(cpus: usize) -> Self {
        let bench = Self::new(cpus);
        bench.initialise();
        bench
    }

    fn initialise(&self) {
        self.init_distributor();
        for cpu in 0..self.irq.len() {
            self.init_cpu(cpu);
        }
        self.init_lpis();
        self.init_its();
    }

    fn init_distributor(&self) {
        self.d_write(GICD_CTLR, 0);
        for i in 1..9 {
            self.d_write(GICD_IGROUPR + 4 * i, 0xffff_ffff);
            self.d_write(GICD_ICACTIVER + 4 * i, 0xffff_ffff);
            self.d_write(GICD_ICENABLER + 4 * i, 0xffff_ffff);
        }
        for i in 8..72 {
            self.d_write(GICD_IPRIORITYR + 4 * i, 0xc0c0_c0c0);
        }
        self.d_write(GICD_CTLR, 0x13);
        for intid in 32..288 {
            self.d_write64(GICD_IROUTER + 8 * intid, 0);
        }
    }

    fn init_cpu(&self, cpu: usize) {
        self.r_write(cpu, GICR_WAKER, self.r_read(cpu, GICR_WAKER) & !2);
        assert_eq!(self.r_read(cpu, GICR_WAKER) & 4, 0, "ChildrenAsleep");
        self.r_write(cpu, SGI_FRAME + GICD_IGROUPR, 0xffff_ffff);
        self.r_write(cpu, SGI_FRAME + GICD_ICACTIVER, 0xffff_ffff);
        self.r_write(cpu, SGI_FRAME + GICD_ICENABLER, 0xffff_0000);
        for i in 0..8 {
            self.r_write(cpu, SGI_FRAME + GICD_IPRIORITYR + 4 * i, 0xc0c0_c0c0);
        }
        self.sys_write(cpu, SRE, 1);
        assert_eq!(self.sys(cpu, SRE) & 1, 1);
        self.sys_write(cpu, PMR, 0xf0);
        self.sys_write(cpu, BPR1, 0);
        self.sys_write(cpu, CTLR, 0);
        self.sys_write(cpu, AP0R0, 0);
        self.sys_write(cpu, AP1R0, 0);
        self.sys_write(cpu, IGRPEN1, 1);
    }

    /// The property table has all LPIs disabled at priority 0xa0.
    fn init_lpis(&self) {
        self.ram.write(Pa(PROP), &[0xa2; 0xe000]).unwrap();
        for cpu in 0..self.irq.len() {
            self.r_write64(cpu, GICR_PROPBASER, PROP | 0x0700_0000_0000_078f);
            assert_eq!(self.r_read64(cpu, GICR_PROPBASER), PROP | 0x0700_0000_0000_078f, "sticks");
            self.r_write64(cpu, GICR_PENDBASER, pending_table(cpu) | 1 << 62 | 0x0700_0000_0000_0780);
            self.r_write(cpu, GICR_CTLR, self.r_read(cpu, GICR_CTLR) | 1);
        }
    }

    /// Flat tables for all DeviceIDs, a queue of 2048 commands, and collection n on PE n.
    fn init_its(&self) {
        for (at, base, pages) in [(GITS_BASER0, DEVICE_TABLE, 16), (GITS_BASER1, COLLECTION_TABLE, 2)] {
            let fixed = self.i_read(at) & 0x071f_0000_0000_0000;
            let value = 1 << 63 | 0x3880_0000_0000_0400 | fixed | base | 2 << 8 | (pages - 1);
            self.i_write(at, value);
            assert_eq!(self.i_read(at), value, "sticks");
        }
        self.i_write(GITS_CBASER, 1 << 63 | 0x3880_0000_0000_0400 | QUEUE | (QUEUE_BYTES / 4096 - 1));
        self.i_write(GITS_CWRITER, 0);
        write(&*self.its, GITS_CTLR, 4, 1);
        for cpu in 0..self.irq.len() as u64 {
            self.command([0x09, 0, 1 << 63 | cpu << 16 | cpu, 0]);
            self.command([0x0d, 0, cpu, 0]);
            self.command([0x05, 0, cpu << 16, 0]);
        }
    }

    /// Puts a command into the queue and lets the ITS have it.
    pub(super) fn command(&self, words: [u64; 4]) {
        let at = self.i_read(GITS_CWRITER);
        for (i, word) in words.into_iter().enumerate() {
            self.ram.store_u64(Pa(QUEUE + at + 8 * i as u64), word).unwrap();
        }
        self.i_write(GITS_CWRITER, (at + 32) % QUEUE_BYTES);
        assert_eq!(self.i_read(GITS_CREADR), self.i_read(GITS_CWRITER), "executed");
    }

    pub(super) fn mapd(&self, device: u32, itt: u64, event_bits: u64) {
        self.command([u64::from(device) << 32 | 0x08, event_bits - 1, 1 << 63 | itt, 0]);
    }

    pub(super) fn mapti(&self, device: u32, event: u64, intid: u64, icid: u64) {
        self.command([u64::from(device) << 32 | 0x0a, intid << 32 | event, icid, 0]);
    }

    /// A command that has a device, an event and a collection.
    pub(super) fn event_command(&self, opcode: u64, device: u32, event: u64, icid: u64) {
        self.command([u64::from(device) << 32 | opcode, event, icid, 0]);
    }

    /// Sets an LPI's byte in the property table; the GIC is not told.
    pub(super) fn set_property(&self, intid: u64, byte: u8) {
        self.ram.write(Pa(PROP + intid - 8192), &[byte]).unwrap();
    }

    pub(super) fn message(&self, device: u32, event: u32) {
        self.gic.write(DeviceId(device), Pa(ITS_BASE + TRANSLATER_OFFSET), event).unwrap();
    }

    /// Enables an SPI, as Linux does.
    pub(super) fn enable_spi(&self, n: u64) {
        self.d_write(GICD_ISENABLER + 4 * (1 + n / 32), 1 << (n % 32));
    }

    pub(super) fn make_spi_edge(&self, n: u64) {
        let at = GICD_ICFGR + 4 * (2 + n / 16);
        self.d_write(at, self.d_read(at) | 2 << (2 * (n % 16)));
    }

    pub(super) fn set_priority(&self, intid: u64, priority: u8) {
        write(&*self.dist, GICD_IPRIORITYR + intid, 1, priority.into());
    }

    pub(super) fn enable_private(&self, cpu: usize, intid: u64) {
        self.r_write(cpu, SGI_FRAME + GICD_ISENABLER, 1 << intid);
    }

    pub(super) fn d_read(&self, at: u64) -> u64 {
        read(&*self.dist, at, 4)
    }

    pub(super) fn d_write(&self, at: u64, value: u64) {
        write(&*self.dist, at, 4, value);
    }

    pub(super) fn d_write64(&self, at: u64, value: u64) {
        write(&*self.dist, at, 8, value);
    }

    pub(super) fn r_read(&self, cpu: usize, at: u64) -> u64 {
        read(&*self.redist, cpu as u64 * 0x2_0000 + at, 4)
    }

    pub(super) fn r_read64(&self, cpu: usize, at: u64) -> u64 {
        read(&*self.redist, cpu as u64 * 0x2_0000 + at, 8)
    }

    pub(super) fn r_write(&self, cpu: usize, at: u64, value: u64) {
        write(&*self.redist, cpu as u64 * 0x2_0000 + at, 4, value);
    }

    pub(super) fn r_write64(&self, cpu: usize, at: u64, value: u64) {
        write(&*self.redist, cpu as u64 * 0x2_0000 + at, 8, value);
    }

    pub(super) fn i_read(&self, at: u64) -> u64 {
        read(&*self.its, at, 8)
    }

    pub(super) fn i_write(&self, at: u64, value: u64) {
        write(&*self.its, at, 8, value);
    }

    pub(super) fn sys(&self, cpu: usize, reg: SysReg) -> u64 {
        self.gic.sysreg_read(cpu, reg).expect("the register exists")
    }

    pub(super) fn sys_write(&self, cpu: usize, reg: SysReg, value: u64) {
        self.gic.sysreg_write(cpu, reg, value).expect("the register exists");
    }

    pub(super) fn counters(&self) -> Counters {
        self.gic.counters()
    }
}

pub(super) const fn pending_table(cpu: usize) -> u64 {
    PENDING + cpu as u64 * 0x1_0000
}
