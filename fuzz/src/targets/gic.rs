//! GICv3 and ITS.

use std::sync::Arc;

use devices::gic::{
    DISTRIBUTOR_BYTES, Gic, GicConfig, ITS_BYTES, REDISTRIBUTOR_BYTES, TRANSLATER_OFFSET, virt_affinity,
};
use hw::{DeviceId, IrqLine, LifeCycle, MmioDevice, MsiSink, Pa, Ram, RecordingLine, SysReg, SysRegDevice};

use crate::input::Input;
use crate::machine::{ITS, PLACES, RAM, mmio, put, ram, scribble, w32, w64};

const CPUS: usize = 3;
const SPIS: u32 = 64;

// Where the driver that comes before the hostile one puts its things.
const PROP: u64 = RAM + 0x1_0000;
const DEVICES: u64 = RAM + 0x4_0000;
const COLLECTIONS: u64 = RAM + 0x5_0000;
const QUEUE: u64 = RAM + 0x6_0000;
const QUEUE_BYTES: u64 = 0x1000;
const ITT: u64 = RAM + 0x7_0000;
const PENDING: u64 = RAM + 0x10_0000;

/// Offsets of the distributor's registers and of the SGI frame's; rows by their first entries.
const DISTRIBUTOR: [u64; 24] = [
    0x0, 0x4, 0x8, 0xc, 0x80, 0x84, 0x100, 0x104, 0x180, 0x184, 0x200, 0x204, 0x280, 0x284, 0x300, 0x304,
    0x380, 0x400, 0x420, 0xc00, 0xc08, 0x6100, 0x6108, 0xffe8,
];
const REDISTRIBUTOR: [u64; 20] = [
    0x0, 0x4, 0x8, 0x14, 0x70, 0x78, 0xa0, 0xb0, 0xc0, 0xffe8, 0x1_0080, 0x1_0100, 0x1_0180, 0x1_0200,
    0x1_0280, 0x1_0300, 0x1_0380, 0x1_0400, 0x1_041c, 0x1_0c04,
];
const TRANSLATION: [u64; 12] =
    [0x0, 0x4, 0x8, 0x80, 0x84, 0x88, 0x90, 0x100, 0x104, 0x108, 0x110, TRANSLATER_OFFSET];

pub(super) struct Machine {
    pub(super) gic: Arc<Gic>,
    ram: Arc<Ram>,
    distributor: Arc<dyn MmioDevice>,
    redistributors: Arc<dyn MmioDevice>,
    its: Arc<dyn MmioDevice>,
    commands: u64,
}

impl Machine {
    pub(super) fn new() -> Self {
        let ram = ram();
        let wires = || (0..CPUS).map(|_| Arc::new(RecordingLine::default()) as Arc<dyn IrqLine>).collect();
        let gic = Gic::new(GicConfig {
            affinities: (0..CPUS).map(virt_affinity).collect(),
            spis: SPIS,
            cpu_irq: wires(),
            cpu_fiq: wires(),
            cpu_wake: wires(),
            ram: ram.clone(),
            its_base: Pa(ITS),
            errors: hw::GuestErrors::default(),
        });
        let (distributor, redistributors, its) = (gic.distributor(), gic.redistributors(), gic.its());
        Self { gic, ram, distributor, redistributors, its, commands: 0 }
    }

    /// What Linux leaves behind: group 1 on, LPIs on, the ITS's tables and queue in place.
    pub(super) fn bring_up(&self) {
        w32(&*self.distributor, 0, 3);
        for word in 1..3 {
            w32(&*self.distributor, 0x80 + 4 * word, u32::MAX);
            w32(&*self.distributor, 0x100 + 4 * word, u32::MAX);
        }
        let _ = self.ram.write(Pa(PROP), &[0xa3; 0x100]);
        for cpu in 0..CPUS as u64 {
            let base = cpu * REDISTRIBUTOR_BYTES;
            w32(&*self.redistributors, base + 0x14, 0);
            w32(&*self.redistributors, base + 0x1_0080, u32::MAX);
            w32(&*self.redistributors, base + 0x1_0100, u32::MAX);
            w64(&*self.redistributors, base + 0x70, PROP | 13);
            w64(&*self.redistributors, base + 0x78, PENDING + cpu * 0x1_0000);
            w32(&*self.redistributors, base, 1);
        }
        for cpu in 0..CPUS {
            let _ = self.gic.sysreg_write(cpu, SysReg::new(3, 0, 4, 6, 0), 0xff); // ICC_PMR_EL1
            let _ = self.gic.sysreg_write(cpu, SysReg::new(3, 0, 12, 12, 7), 1); // ICC_IGRPEN1_EL1
        }
        w64(&*self.its, 0x100, 1 << 63 | DEVICES);
        w64(&*self.its, 0x108, 1 << 63 | COLLECTIONS);
        w64(&*self.its, 0x80, 1 << 63 | QUEUE);
        w32(&*self.its, 0, 1);
    }

    fn command(&mut self, input: &mut Input<'_>) {
        const COMMANDS: [u64; 12] = [0x8, 0x9, 0xa, 0xb, 0x1, 0x3, 0x4, 0x5, 0xc, 0xd, 0xe, 0xf];
        let opcode = if input.u8() & 15 == 0 { input.u8().into() } else { input.choose(&COMMANDS) };
        let (device, event) = (u64::from(input.u8() % 4), u64::from(input.u8() % 40));
        let valid = u64::from(input.u8() & 7 != 0) << 63;
        let target = u64::from(input.u8() % 4);
        let mut words = match opcode {
            0x8 => [device << 32, 4, (ITT + device * 0x1000) | valid, 0],
            0x9 => [0, 0, valid | target << 16 | event & 3, 0],
            0xa => [device << 32, (8192 + event) << 32 | event, target, 0],
            0xe => [0, 0, target << 16, (event & 3) << 16],
            _ => [device << 32, event, target, 0],
        };
        if input.u8() & 3 == 0 {
            words[input.below(4)] = input.word(&PLACES);
        }
        words[0] = words[0] & !0xff | opcode;
        put(&self.ram, QUEUE + self.commands, &words);
        self.commands = (self.commands + 32) % QUEUE_BYTES;
        w64(&*self.its, 0x88, self.commands);
    }

    fn system_register(&self, input: &mut Input<'_>) {
        let (cpu, how) = (input.below(CPUS), input.u8());
        let reg = match how & 7 {
            0 => SysReg::new(3, 0, 4, 6, 0),
            1 => SysReg::new(3, 0, 12, 12, 0), // IAR1
            2 => SysReg::new(3, 0, 12, 12, 1), // EOIR1
            3 => SysReg(input.u16()),
            _ => SysReg::new(3, 0, 12, 8 + input.u8() % 5, input.u8()),
        };
        if how & 8 == 0 {
            let _ = self.gic.sysreg_read(cpu, reg);
        } else {
            let _ = self.gic.sysreg_write(cpu, reg, input.word(&[8192, 32]));
        }
    }
}

/// Registers of all four kinds, commands and their tables, messages and wires.
pub fn gic(data: &[u8]) {
    let mut input = Input::new(data);
    let mut machine = Machine::new();
    if input.u8() & 0x80 == 0 {
        machine.bring_up();
    }
    while !input.is_empty() {
        match input.u8() % 16 {
            0 => mmio(&mut input, DISTRIBUTOR_BYTES, &DISTRIBUTOR, &*machine.distributor),
            1 => {
                let frame = input.below(CPUS) as u64 * REDISTRIBUTOR_BYTES;
                let registers = REDISTRIBUTOR.map(|offset| frame + offset);
                let window = machine.gic.redistributors_bytes();
                mmio(&mut input, window, &registers, &*machine.redistributors);
            }
            2 => mmio(&mut input, ITS_BYTES, &TRANSLATION, &*machine.its),
            3..6 => machine.system_register(&mut input),
            6..10 => machine.command(&mut input),
            10 | 11 => {
                let device = DeviceId(u32::from(input.u8() % 4));
                let _ = machine.gic.write(device, Pa(ITS + TRANSLATER_OFFSET), u32::from(input.u8() % 40));
            }
            12 => {
                let device = DeviceId(input.u32());
                let _ = machine.gic.write(device, Pa(ITS + TRANSLATER_OFFSET), input.u32());
            }
            13 => machine.gic.spi(input.below(SPIS as usize) as u32).set(input.u8() & 1 != 0),
            14 => machine.gic.ppi(input.below(CPUS), u32::from(input.u8()) % 16).set(input.u8() & 1 != 0),
            _ if input.u8() & 0x1f == 0 => machine.gic.reset(),
            _ => scribble(&machine.ram, &mut input, &[PROP, PENDING, DEVICES, COLLECTIONS, ITT]),
        }
    }
    let _ = machine.gic.counters();
}
