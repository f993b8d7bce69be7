//! A virtio block device from the driver's side, on a disk in memory.

mod life;
mod registers;
mod requests;
mod reset;
mod rings;
mod saved;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use hw::mmio::{put_value, value_of};
use hw::schedule::Threads;
use hw::{
    DeviceId, Dir, DirectPort, DmaFault, DmaPort, Iova, MmioDevice, Pa, Pinned, Ram, RecordingMsiSink,
    Requester,
};

use super::*;
use crate::pci::{PciFunction, PciHost, requester_id};

const RAM: u64 = 0x4000_0000;
const RAM_BYTES: u64 = 0x10_0000;
const DOORBELL: u64 = 0x809_0040;
const DEVFN: u8 = 8;
const BAR: u64 = 0x1000_0000;
/// Bus addresses of the driver's things: the rings, the buffers, and memory that is not there.
const DESC: u64 = 0x1_0000;
const AVAIL: u64 = 0x1_1000;
const USED: u64 = 0x1_2000;
const HEADER: u64 = 0x2_0000;
const DATA: u64 = 0x3_0000;
const STATUS: u64 = 0x4_0000;
const INDIRECT: u64 = 0x5_0000;
const HOLE: u64 = 0x9000_0000;
/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT_FLAG: u16 = 4;
/// Registers of the common configuration.
const FEATURE_SELECT: u64 = CommonCfg::device_feature_select.offset();
const FEATURE: u64 = CommonCfg::device_feature.offset();
const DRIVER_SELECT: u64 = CommonCfg::driver_feature_select.offset();
const DRIVER_FEATURE: u64 = CommonCfg::driver_feature.offset();
const CONFIG_VECTOR: u64 = CommonCfg::config_msix_vector.offset();
const STATUS_REG: u64 = CommonCfg::device_status.offset();
const QUEUE_SELECT: u64 = CommonCfg::queue_select.offset();
const QUEUE_SIZE: u64 = CommonCfg::queue_size.offset();
const QUEUE_VECTOR: u64 = CommonCfg::queue_msix_vector.offset();
const QUEUE_ENABLE: u64 = CommonCfg::queue_enable.offset();
const QUEUE_DESC: u64 = CommonCfg::queue_desc.offset();
const QUEUE_DRIVER: u64 = CommonCfg::queue_driver.offset();
const QUEUE_DEVICE: u64 = CommonCfg::queue_device.offset();
const NEEDS_RESET: u64 = 0x40;

/// A disk in memory that can be made to fail.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    read_only: bool,
    /// It can give room back.
    is_sparse: bool,
    fails: AtomicBool,
    log: Mutex<Vec<&'static str>>,
    /// Happens once, while the disk is busy.
    during: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Offset and length of what was discarded, or made zero with leave to discard.
    holes: Mutex<Vec<(u64, u64)>>,
}

impl Disk {
    fn new(sectors: usize) -> Self {
        let bytes = (0..sectors * 512).map(|i| (i / 512 + i) as u8).collect();
        Self {
            bytes: Mutex::new(bytes),
            read_only: false,
            is_sparse: true,
            fails: AtomicBool::new(false),
            log: Mutex::default(),
            during: Mutex::default(),
            holes: Mutex::default(),
        }
    }

    fn enter(&self, what: &'static str) -> io::Result<()> {
        self.log.lock().unwrap().push(what);
        let during = self.during.lock().unwrap().take();
        if let Some(during) = during {
            during();
        }
        if self.fails.load(Ordering::SeqCst) { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }
}

impl BlockBackend for Disk {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.enter("read")?;
        out.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..out.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.enter("write")?;
        self.bytes.lock().unwrap()[offset as usize..][..data.len()].copy_from_slice(data);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.enter("flush")
    }

    fn can_discard(&self) -> bool {
        self.is_sparse
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.enter("discard")?;
        self.holes.lock().unwrap().push((offset, len));
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_discard: bool) -> io::Result<()> {
        self.enter("zeroes")?;
        if may_discard {
            self.holes.lock().unwrap().push((offset, len));
        }
        self.bytes.lock().unwrap()[offset as usize..][..len as usize].fill(0);
        Ok(())
    }
}

/// A port that puts each 4 KiB page of bus addresses below 1 MiB at the mirrored place in RAM, and lets accesses
/// wait while `stalls` is set.
struct Mirror {
    inner: DirectPort,
    stalls: AtomicBool,
}

impl Mirror {
    fn translate(at: Iova, len: usize) -> Result<Vec<(Pa, usize)>, DmaFault> {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < len {
            let here = at.0 + done as u64;
            if here >= RAM_BYTES {
                return Err(DmaFault::Aborted(Iova(here)));
            }
            let page = (RAM_BYTES >> 12) - 1 - (here >> 12);
            let piece = (0x1000 - (here & 0xfff) as usize).min(len - done);
            pieces.push((Pa(RAM + (page << 12) + (here & 0xfff)), piece));
            done += piece;
        }
        Ok(pieces)
    }

    fn wait(&self, who: &Requester) -> Result<(), DmaFault> {
        who.waiter.wait(|| (!self.stalls.load(Ordering::SeqCst)).then_some(()))
    }
}

impl DmaPort for Mirror {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.wait(who)?;
        let mut rest = out;
        for (pa, len) in Self::translate(at, rest.len())? {
            let (now, later) = rest.split_at_mut(len);
            self.inner.read(who, Iova(pa.0), now)?;
            rest = later;
        }
        Ok(())
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.wait(who)?;
        if at.0 == DOORBELL {
            return self.inner.write(who, at, data);
        }
        let mut rest = data;
        for (pa, len) in Self::translate(at, rest.len())? {
            let (now, later) = rest.split_at(len);
            self.inner.write(who, Iova(pa.0), now)?;
            rest = later;
        }
        Ok(())
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, _dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        self.wait(who)?;
        Ok(Pinned::new(Self::translate(at, len)?, ()))
    }
}

/// The driver's side of one device.
struct Bench {
    device: Arc<VirtioPci>,
    disk: Arc<Disk>,
    ram: Arc<Ram>,
    port: Arc<Mirror>,
    sink: Arc<RecordingMsiSink>,
    ecam: Arc<dyn MmioDevice>,
    memory: Arc<dyn MmioDevice>,
    next_avail: AtomicU16,
    seen_used: AtomicU16,
}

impl Bench {
    fn with(disk: Disk) -> Self {
        let ram = Arc::new(Ram::new(&[(Pa(RAM), RAM_BYTES)]).unwrap());
        let sink = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
        let port = Arc::new(Mirror {
            inner: DirectPort::new(ram.clone(), sink.clone()),
            stalls: AtomicBool::new(false),
        });
        let disk = Arc::new(disk);
        let block = Block::new(disk.clone(), "serial-7");
        let errors = hw::GuestErrors::default();
        let stream = requester_id(0, DEVFN);
        let device = VirtioPci::new(Box::new(block), ram.clone(), port.clone(), &Threads, stream, errors);
        let host = PciHost::new();
        host.attach(0, DEVFN, device.clone()).unwrap();
        let bench = Self {
            device,
            disk,
            ram,
            port,
            sink,
            ecam: host.ecam(),
            memory: host.memory_window(BAR),
            next_avail: AtomicU16::new(0),
            seen_used: AtomicU16::new(0),
        };
        bench.config_write(0x10, 4, BAR);
        bench.config_write(4, 2, 6);
        bench
    }

    fn new() -> Self {
        Self::with(Disk::new(64))
    }

    /// What is counted of the driver's mistakes.
    fn errors(&self) -> Vec<(&'static str, u64)> {
        self.device.config().errors().counted()
    }

    /// A device that is ready, with rings of 8 entries, without the given features.
    fn ready_without(features: u64) -> Self {
        let bench = Self::new();
        bench.start(features);
        bench
    }

    fn ready() -> Self {
        Self::ready_without(feature::EVENT_IDX)
    }

    fn config_read(&self, at: u64, len: usize) -> u64 {
        let mut data = vec![0; len];
        self.ecam.mmio_read(u64::from(DEVFN) << 12 | at, &mut data).unwrap();
        value_of(&data)
    }

    fn config_write(&self, at: u64, len: usize, value: u64) {
        let mut data = vec![0; len];
        put_value(&mut data, value);
        self.ecam.mmio_write(u64::from(DEVFN) << 12 | at, &data).unwrap();
    }

    fn read(&self, at: u64, len: usize) -> u64 {
        let mut data = vec![0; len];
        self.memory.mmio_read(at, &mut data).unwrap();
        value_of(&data)
    }

    fn write(&self, at: u64, len: usize, value: u64) {
        let mut data = vec![0; len];
        put_value(&mut data, value);
        self.memory.mmio_write(at, &data).unwrap();
    }

    fn poke(&self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for (pa, len) in Mirror::translate(Iova(at), bytes.len()).unwrap() {
            self.ram.write(pa, &rest[..len]).unwrap();
            rest = &rest[len..];
        }
    }

    fn peek(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (pa, len) in Mirror::translate(Iova(at), len).unwrap() {
            let mut piece = vec![0; len];
            self.ram.read(pa, &mut piece).unwrap();
            bytes.extend(piece);
        }
        bytes
    }

    fn offered(&self) -> u64 {
        (0..2).fold(0, |features, half| {
            self.write(FEATURE_SELECT, 4, half);
            features | self.read(FEATURE, 4) << (32 * half)
        })
    }

    fn accept(&self, features: u64) {
        for half in 0..2 {
            self.write(DRIVER_SELECT, 4, half);
            self.write(DRIVER_FEATURE, 4, features >> (32 * half) & 0xffff_ffff);
        }
    }

    /// Initialises the device as 3.1.1 says, with MSI-X vector 0 for the configuration and 1 for the queue.
    fn start(&self, without: u64) {
        let msix = self.capabilities().into_iter().find(|(id, _)| *id == 0x11).unwrap().1;
        self.config_write(msix + 2, 2, 0x8000);
        for vector in 0..2 {
            let entry = 0x4000 + 16 * vector;
            self.write(entry, 8, DOORBELL);
            self.write(entry + 8, 4, 0x100 + vector);
            self.write(entry + 12, 4, 0);
        }
        self.write(STATUS_REG, 1, 0);
        self.write(STATUS_REG, 1, 3);
        self.accept(self.offered() & !without);
        self.write(STATUS_REG, 1, 0xb);
        assert_eq!(self.read(STATUS_REG, 1), 0xb);
        self.write(CONFIG_VECTOR, 2, 0);
        self.set_up_queue(DESC, AVAIL, USED);
        self.write(STATUS_REG, 1, 0xf);
        self.device.step();
    }

    fn set_up_queue(&self, desc: u64, avail: u64, used: u64) {
        self.poke(AVAIL, &[0; 0x100]);
        self.poke(USED, &[0; 0x100]);
        self.next_avail.store(0, Ordering::SeqCst);
        self.seen_used.store(0, Ordering::SeqCst);
        self.write(QUEUE_SELECT, 2, 0);
        self.write(QUEUE_SIZE, 2, 8);
        self.write(QUEUE_VECTOR, 2, 1);
        for (register, at) in [(QUEUE_DESC, desc), (QUEUE_DRIVER, avail), (QUEUE_DEVICE, used)] {
            self.write(register, 4, at & 0xffff_ffff);
            self.write(register + 4, 4, at >> 32);
        }
        self.write(QUEUE_ENABLE, 2, 1);
    }

    fn capabilities(&self) -> Vec<(u64, u64)> {
        let mut at = self.config_read(0x34, 1);
        let mut all = Vec::new();
        while at != 0 {
            all.push((self.config_read(at, 1), at));
            at = self.config_read(at + 1, 1);
        }
        all
    }

    fn put_descriptor(&self, table: u64, index: u64, at: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.poke(table + 16 * index, &bytes);
    }

    /// Puts buffers into consecutive descriptors from 0 on.
    fn put_chain(&self, buffers: &[(u64, u32, u16)]) {
        for (index, (at, len, flags)) in buffers.iter().enumerate() {
            let next = if index + 1 < buffers.len() { NEXT } else { 0 };
            self.put_descriptor(DESC, index as u64, *at, *len, flags | next, index as u16 + 1);
        }
    }

    fn put_header(&self, kind: u32, sector: u64) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.poke(HEADER, &header);
        self.poke(STATUS, &[0xee]);
    }

    /// Makes the chain at descriptor `head` available, notifies, and lets the worker work.
    fn submit(&self, head: u16) {
        let index = self.next_avail.fetch_add(1, Ordering::SeqCst);
        self.poke(AVAIL + 4 + 2 * u64::from(index % 8), &head.to_le_bytes());
        self.poke(AVAIL + 2, &index.wrapping_add(1).to_le_bytes());
        self.write(0x3000, 2, 0);
        self.device.step();
    }

    /// The next used element, if there is one.
    fn used(&self) -> Option<(u32, u32)> {
        let index = self.seen_used.load(Ordering::SeqCst);
        if value_of(&self.peek(USED + 2, 2)) as u16 == index {
            return None;
        }
        self.seen_used.store(index.wrapping_add(1), Ordering::SeqCst);
        let element = self.peek(USED + 4 + 8 * u64::from(index % 8), 8);
        Some((value_of(&element[..4]) as u32, value_of(&element[4..]) as u32))
    }

    /// A request with one buffer of payload; its status byte and the used length, if it was answered.
    fn request(&self, kind: u32, sector: u64, payload: Option<(u64, u32, u16)>) -> Option<(u8, u32)> {
        self.put_header(kind, sector);
        let mut chain = vec![(HEADER, 16, 0)];
        chain.extend(payload);
        chain.push((STATUS, 1, WRITE));
        self.put_chain(&chain);
        self.submit(0);
        let (head, len) = self.used()?;
        assert_eq!(head, 0);
        Some((self.peek(STATUS, 1)[0], len))
    }

    fn status(&self) -> u64 {
        self.read(STATUS_REG, 1)
    }

    fn messages(&self) -> Vec<u32> {
        let id = DeviceId(DEVFN.into());
        self.sink.take().into_iter().map(|(device, data)| (assert_eq!(device, id), data).1).collect()
    }
}
