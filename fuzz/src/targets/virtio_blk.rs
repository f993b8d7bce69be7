//! virtio-blk over virtio-pci.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use devices::pci::{PciFunction, requester_id};
use devices::virtio::{Block, BlockBackend, VirtioPci};
use hw::schedule::Threads;
use hw::{DirectPort, Pa, Ram, RecordingMsiSink};

use crate::input::Input;
use crate::machine::{DOORBELL, PLACES, RAM, access, put, ram, scribble};

const BAR_BYTES: u64 = 0x8000;
/// Common configuration, ISR, device configuration, notifications, MSI-X table and pending bits.
const REGISTERS: [u64; 26] = [
    0x0, 0x4, 0x8, 0xc, 0x10, 0x12, 0x14, 0x15, 0x16, 0x18, 0x1a, 0x1c, 0x1e, 0x20, 0x24, 0x28, 0x2c, 0x30,
    0x34, 0x1000, 0x2000, 0x2008, 0x3000, 0x4000, 0x400c, 0x5000,
];
/// The driver's rings and buffers.
const DESC: u64 = RAM;
const AVAIL: u64 = RAM + 0x1000;
const USED: u64 = RAM + 0x2000;
const INDIRECT: u64 = RAM + 0x3000;
const HEADER: u64 = RAM + 0x4000;
const DATA: u64 = RAM + 0x5000;
const QUEUE_SIZE: u16 = 16;
const SECTORS: usize = 64;

/// A disk in memory whose every range is checked, as the trait promises.
struct Disk(Mutex<Vec<u8>>);

impl Disk {
    fn with<T>(&self, offset: u64, len: usize, act: impl FnOnce(&mut [u8]) -> T) -> io::Result<T> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = usize::try_from(offset).expect("the range is inside the disk");
        Ok(act(&mut bytes[offset..offset + len]))
    }
}

impl BlockBackend for Disk {
    fn len(&self) -> u64 {
        (SECTORS * 512) as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(offset, out.len(), |bytes| out.copy_from_slice(bytes))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(offset, data.len(), |bytes| bytes.copy_from_slice(data))
    }

    fn flush(&self) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }

    fn can_discard(&self) -> bool {
        true
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).expect("the range is inside the disk");
        self.with(offset, len, |bytes| bytes.fill(0))
    }
}

struct Machine {
    device: Arc<VirtioPci>,
    ram: Arc<Ram>,
    msi: Arc<RecordingMsiSink>,
    available: u16,
}

impl Machine {
    fn new() -> Self {
        let (ram, msi) = (ram(), Arc::new(RecordingMsiSink::new(Pa(DOORBELL))));
        let port = Arc::new(DirectPort::new(ram.clone(), msi.clone()));
        let disk = Arc::new(Disk(Mutex::new(vec![0x5a; SECTORS * 512])));
        let device = VirtioPci::new(
            Box::new(Block::new(disk, "fuzz")),
            ram.clone(),
            port,
            &Threads,
            requester_id(0, 8),
            hw::GuestErrors::default(),
        );
        let _ = device.config_write(4, &[6, 0]);
        Self { device, ram, msi, available: 0 }
    }

    fn write(&self, offset: u64, len: usize, value: u64) {
        let _ = self.device.bar_write(0, offset, &value.to_le_bytes()[..len]);
    }

    /// 3.1.1, with MSI-X: everything that is offered but what `without` says.
    fn bring_up(&self, without: u64) {
        for offset in (0x34..0x100).step_by(4) {
            let mut id = [0];
            self.device.config_read(offset, &mut id);
            if id[0] == 0x11 {
                let _ = self.device.config_write(offset + 2, &0x8000_u16.to_le_bytes());
            }
        }
        for vector in 0..2 {
            self.write(0x4000 + 16 * vector, 8, DOORBELL);
            self.write(0x4008 + 16 * vector, 8, vector);
        }
        self.write(0x14, 1, 0);
        self.write(0x14, 1, 3);
        for half in 0..2 {
            self.write(0x0, 4, half);
            let mut offered = [0; 4];
            let _ = self.device.bar_read(0, 0x4, &mut offered);
            self.write(0x8, 4, half);
            self.write(0xc, 4, u64::from(u32::from_le_bytes(offered)) & !(without >> (32 * half)));
        }
        self.write(0x14, 1, 0xb);
        self.write(0x10, 2, 0);
        self.write(0x16, 2, 0);
        self.write(0x18, 2, QUEUE_SIZE.into());
        self.write(0x1a, 2, 1);
        for (register, at) in [(0x20, DESC), (0x28, AVAIL), (0x30, USED)] {
            self.write(register, 4, at & 0xffff_ffff);
            self.write(register + 4, 4, at >> 32);
        }
        self.write(0x1c, 2, 1);
        self.write(0x14, 1, 0xf);
        self.device.step();
    }

    fn descriptor(&self, table: u64, index: u16, (at, len, flags, next): (u64, u32, u16, u16)) {
        let words = [at, u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48];
        put(&self.ram, table + 16 * u64::from(index), &words);
    }

    /// A request as a driver makes it, and then perhaps something wrong in it.
    fn request(&mut self, input: &mut Input<'_>) {
        let kind = if input.u8() & 7 == 0 { input.u32() } else { input.choose(&[0, 1, 4, 8, 11, 13]) };
        let sector =
            if input.u8() & 3 == 0 { input.word(&[]) } else { u64::from(input.u8()) % (SECTORS as u64 + 4) };
        put(&self.ram, HEADER, &[kind.into(), sector]);
        let how = input.u8();
        let (table, head) = if how & 1 != 0 { (INDIRECT, 0) } else { (DESC, u16::from(how >> 4)) };
        let buffers = 2 + u16::from(how >> 1 & 3);
        for i in 0..buffers {
            let writable = u16::from(kind & 1 == 0 || i + 1 == buffers) << 1;
            let next = u16::from(i + 1 < buffers);
            let (at, len, flags) = match i {
                0 => (HEADER, 16, next),
                _ if i + 1 == buffers => (HEADER + 0x800, 1, 2),
                _ => (DATA + 0x400 * u64::from(i), 512 * u32::from(input.u8() % 4), writable | next),
            };
            self.descriptor(table, head + i, (at, len, flags, head + i + 1));
        }
        if how & 8 != 0 {
            let wrong =
                (input.word(&PLACES), input.u32(), input.u16() & 0x1f, input.u16() % (QUEUE_SIZE + 2));
            let index = u16::from(input.u8()) % QUEUE_SIZE;
            self.descriptor(table, index, wrong);
        }
        let head = if table == INDIRECT {
            let len = if input.u8() & 15 == 0 { input.u32() } else { 16 * u32::from(buffers) };
            self.descriptor(DESC, 15, (INDIRECT, len, 4, 0));
            15
        } else {
            head
        };
        self.make_available(head);
    }

    fn make_available(&mut self, head: u16) {
        let _ =
            self.ram.write(Pa(AVAIL + 4 + 2 * u64::from(self.available % QUEUE_SIZE)), &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        let _ = self.ram.write(Pa(AVAIL + 2), &self.available.to_le_bytes());
        self.write(0x3000, 2, 0);
    }
}

/// Registers, configuration space, and requests whose rings and descriptors are wrong in places.
pub fn virtio_blk(data: &[u8]) {
    let mut input = Input::new(data);
    let mut machine = Machine::new();
    let how = input.u8();
    if how & 0x80 == 0 {
        // Without event indexes, without indirect descriptors.
        machine.bring_up(u64::from(how & 1) << 29 | u64::from(how >> 1 & 1) << 28);
    }
    while !input.is_empty() {
        match input.u8() % 16 {
            0 | 1 => access(
                &mut input,
                BAR_BYTES,
                &REGISTERS,
                |offset, data| machine.device.bar_read(0, offset, data),
                |offset, data| machine.device.bar_write(0, offset, data),
            ),
            2 => {
                let registers: Vec<u64> = (0..0x100).step_by(4).collect();
                access(
                    &mut input,
                    0x1000,
                    &registers,
                    |offset, data| {
                        machine.device.config_read(offset, data);
                        Ok(())
                    },
                    |offset, data| {
                        let _ = machine.device.config_write(offset, data);
                        Ok(())
                    },
                );
            }
            3 => scribble(&machine.ram, &mut input, &[DESC, AVAIL, USED, INDIRECT, HEADER, DATA]),
            4 => {
                // An index that nobody has counted.
                let at =
                    input.choose(&[AVAIL, AVAIL + 2, USED, USED + 2, USED + 4 + 8 * u64::from(QUEUE_SIZE)]);
                let _ = machine.ram.write(Pa(at), &input.u16().to_le_bytes());
            }
            5 => {
                let head = input.u16();
                machine.make_available(head);
            }
            6 if input.u8() & 15 == 0 => machine.device.function_reset(),
            7 => {
                machine.available = 0;
                machine.bring_up(0);
            }
            8..11 => machine.device.step(),
            _ => machine.request(&mut input),
        }
    }
    machine.device.step();
    let _ = machine.msi.take();
}

/// A device that has served something takes up a state by `restore`; if it does, it is used.
pub(super) fn with_saved(input: &mut Input<'_>, restore: impl FnOnce(&mut Input<'_>, &VirtioPci) -> bool) {
    let mut machine = Machine::new();
    machine.bring_up(0);
    machine.request(input);
    machine.device.step();
    let device = Arc::clone(&machine.device);
    if restore(input, &device) {
        device.step();
        machine.request(input);
        device.step();
        for at in REGISTERS {
            let _ = device.bar_read(0, at, &mut [0; 4]);
        }
        device.step();
    }
}
