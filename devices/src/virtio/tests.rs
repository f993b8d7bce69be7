use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hw::mmio::{put_value, value_of};
use hw::regmap::{check_map, check_plain};
use hw::{
    DeviceId, Dir, DirectPort, DmaFault, DmaPort, Iova, MmioDevice, Pa, Pinned, Ram, RecordingMsiSink,
    Requester,
};
use proptest::prelude::*;

use super::*;
use crate::pci::{PciHost, requester_id};

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
const FEATURE_SELECT: u64 = 0x00;
const FEATURE: u64 = 0x04;
const DRIVER_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const STATUS_REG: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const NEEDS_RESET: u64 = 0x40;

/// A disk in memory that can be made to fail.
struct Disk {
    bytes: Mutex<Vec<u8>>,
    read_only: bool,
    /// It can give room back.
    is_sparse: bool,
    fails: AtomicBool,
    log: Mutex<Vec<&'static str>>,
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
            holes: Mutex::default(),
        }
    }

    fn enter(&self, what: &'static str) -> io::Result<()> {
        self.log.lock().unwrap().push(what);
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
        let device = VirtioPci::new(Box::new(block), ram.clone(), port.clone(), requester_id(0, DEVFN));
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

#[test]
fn common_configuration_is_declared_without_overlap() {
    check_map::<CommonCfg>();
}

/// The others depend on the device or on the queue that is selected.
#[test]
fn plain_fields_keep_what_is_writable_and_nothing_else() {
    let bench = Bench::new();
    let modelled = [
        CommonCfg::device_feature,
        CommonCfg::driver_feature,
        CommonCfg::config_msix_vector,
        CommonCfg::num_queues,
        CommonCfg::device_status,
        CommonCfg::queue_select,
        CommonCfg::queue_size,
        CommonCfg::queue_msix_vector,
        CommonCfg::queue_enable,
        CommonCfg::queue_desc,
        CommonCfg::queue_driver,
        CommonCfg::queue_device,
    ];
    check_plain::<CommonCfg>(
        |at, bytes| bench.read(at, bytes),
        |at, bytes, value| bench.write(at, bytes, value),
        &modelled,
    );
}

#[test]
fn capabilities_of_all_five_kinds_point_into_the_bar() {
    let bench = Bench::new();
    assert_eq!(bench.config_read(0, 4), 0x1042_1af4);
    assert_eq!(bench.config_read(8, 1), 1);
    let mut kinds = Vec::new();
    for (id, at) in bench.capabilities() {
        if id == 9 {
            let (offset, length) = (bench.config_read(at + 8, 4), bench.config_read(at + 12, 4));
            assert!(offset + length <= 0x8000);
            kinds.push((bench.config_read(at + 3, 1), offset, length));
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [(1, 0, 0x38), (2, 0x3000, 4), (3, 0x1000, 1), (4, 0x2000, 0x1000), (5, 0, 0)]);
}

#[test]
fn features_are_refused_without_version_1_and_platform_access_and_fixed_once_accepted() {
    let bench = Bench::new();
    let offered = bench.offered();
    let needed = feature::VERSION_1 | feature::ACCESS_PLATFORM;
    assert_eq!(offered & needed, needed);
    for wrong in [offered & !feature::VERSION_1, offered & !feature::ACCESS_PLATFORM, offered | 1 << 40] {
        bench.write(STATUS_REG, 1, 0);
        bench.write(STATUS_REG, 1, 3);
        bench.accept(wrong);
        bench.write(STATUS_REG, 1, 0xb);
        assert_eq!(bench.status(), 3, "{wrong:#x}");
        bench.write(STATUS_REG, 1, 0xf);
        assert_eq!(bench.status(), 3, "not ready either");
    }
    bench.accept(needed);
    bench.write(STATUS_REG, 1, 0xb);
    assert_eq!(bench.status(), 0xb);
    bench.accept(0);
    bench.write(DRIVER_SELECT, 4, 1);
    assert_eq!(bench.read(DRIVER_FEATURE, 4), needed >> 32);
}

#[test]
fn queue_registers_keep_to_the_offered_size_and_the_existing_vectors() {
    let bench = Bench::new();
    assert_eq!(bench.read(0x12, 2), 1);
    assert_eq!(bench.read(QUEUE_SIZE, 2), 256);
    for wrong in [0, 3, 512, 0xffff] {
        bench.write(QUEUE_SIZE, 2, wrong);
        assert_eq!(bench.read(QUEUE_SIZE, 2), 256);
    }
    bench.write(QUEUE_VECTOR, 2, 2);
    assert_eq!(bench.read(QUEUE_VECTOR, 2), 0xffff);
    bench.write(QUEUE_SELECT, 2, 1);
    bench.write(QUEUE_DESC, 4, 0x1000);
    assert_eq!((bench.read(QUEUE_SIZE, 2), bench.read(QUEUE_DESC, 4)), (0, 0), "no such queue");
    assert_eq!(bench.read(QUEUE_SIZE, 4), 0xffff_ffff, "wider than the field");
    bench.write(QUEUE_SELECT, 1, 0);
    assert_eq!(bench.read(QUEUE_SELECT, 2), 1, "narrower than the field");
}

#[test]
fn configuration_shows_capacity_segments_and_nothing_beyond() {
    let bench = Bench::new();
    assert_eq!((bench.read(0x2000, 4), bench.read(0x2004, 4)), (64, 0));
    assert_eq!((bench.read(0x200c, 4), bench.read(0x2014, 4)), (254, 512));
    assert_eq!(bench.read(0x2038, 8), 1);
    assert_eq!(bench.read(0x2ff8, 8), 0);
    bench.write(0x2000, 4, 7);
    assert_eq!(bench.read(0x2000, 4), 64);
}

#[test]
fn read_fills_the_buffer_across_pages_and_sends_the_queues_message() {
    let bench = Bench::ready();
    let answer = bench.request(0, 3, Some((DATA + 0xf00, 1024, WRITE)));
    assert_eq!(answer, Some((0, 1025)));
    assert_eq!(bench.peek(DATA + 0xf00, 1024), bench.disk.bytes.lock().unwrap()[3 * 512..5 * 512]);
    assert_eq!(bench.messages(), [0x101]);
    assert_eq!(bench.read(0x1000, 1), 1, "interrupt status");
    assert_eq!(bench.read(0x1000, 1), 0, "cleared by reading");
}

#[test]
fn write_reaches_the_disk_and_flush_its_backend() {
    let bench = Bench::ready();
    bench.poke(DATA, &[0xa5; 512]);
    assert_eq!(bench.request(1, 63, Some((DATA, 512, 0))), Some((0, 1)));
    assert_eq!(bench.request(4, 0, None), Some((0, 1)));
    assert_eq!(bench.disk.bytes.lock().unwrap()[63 * 512..], [0xa5; 512]);
    assert_eq!(*bench.disk.log.lock().unwrap(), ["write", "flush"]);
}

#[test]
fn write_is_flushed_at_once_for_a_driver_that_cannot_flush() {
    let bench = Bench::ready_without(1 << 9);
    bench.request(1, 0, Some((DATA, 512, 0)));
    assert_eq!(*bench.disk.log.lock().unwrap(), ["write", "flush"]);
}

#[test]
fn identification_is_20_bytes_at_most() {
    let bench = Bench::ready();
    assert_eq!(bench.request(8, 0, Some((DATA, 20, WRITE))), Some((0, 21)));
    assert_eq!(bench.peek(DATA, 20), *b"serial-7\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bench.request(8, 0, Some((DATA, 3, WRITE))), Some((0, 4)));
    assert_eq!(bench.request(8, 0, Some((DATA, 512, WRITE))), Some((0, 20)), "the status is behind a gap");
}

#[test]
fn requests_beyond_the_disk_or_of_broken_sectors_are_io_errors() {
    let bench = Bench::ready();
    for (sector, len) in [(64, 512), (63, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511)] {
        assert_eq!(bench.request(0, sector, Some((DATA, len, WRITE))), Some((1, 0)), "{sector} {len}");
        assert_eq!(bench.request(1, sector, Some((DATA, len, 0))), Some((1, 1)), "{sector} {len}");
    }
    assert!(bench.disk.log.lock().unwrap().is_empty());
    assert_eq!(bench.status(), 0xf);
}

#[test]
fn unknown_request_is_unsupported_and_a_failing_disk_an_io_error() {
    let bench = Bench::ready();
    assert_eq!(bench.request(99, 0, None), Some((2, 1)));
    bench.disk.fails.store(true, Ordering::SeqCst);
    assert_eq!(bench.request(0, 0, Some((DATA, 512, WRITE))), Some((1, 0)));
    assert_eq!(bench.request(4, 0, None).map(|(status, _)| status), Some(1));
}

#[test]
fn read_only_disk_says_so_and_refuses_writes() {
    let bench = Bench::with(Disk { read_only: true, ..Disk::new(8) });
    bench.start(0);
    assert_eq!(bench.offered() & (1 << 5 | 1 << 13), 1 << 5);
    assert_eq!(bench.request(1, 0, Some((DATA, 512, 0))), Some((1, 1)));
    assert_eq!(bench.request(0, 0, Some((DATA, 512, WRITE))), Some((0, 513)));
}

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

impl Bench {
    /// A discard or write-zeroes request of these ranges: sector, sectors, flags. Its status.
    fn on_ranges(&self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let mut bytes = Vec::new();
        for (sector, sectors, flags) in ranges {
            bytes.extend(sector.to_le_bytes());
            bytes.extend(sectors.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
        }
        self.poke(DATA, &bytes);
        self.request(kind, 0, Some((DATA, bytes.len() as u32, 0))).unwrap().0
    }

    fn holes(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.disk.holes.lock().unwrap())
    }
}

#[test]
fn discard_and_write_zeroes_check_every_range_before_they_touch_one() {
    let bench = Bench::ready();
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(2, 3, 1)]), 0);
    let disk = bench.disk.bytes.lock().unwrap()[512..6 * 512].to_vec();
    assert_eq!(disk[512..2048], [0; 1536]);
    assert!(disk[..512].iter().any(|b| *b != 0) && disk[2048..].iter().any(|b| *b != 0));
    assert_eq!(bench.holes(), [(1024, 1536)]);
    let good = (0, 8, 0);
    for (kind, bad, status) in [
        (DISCARD, (2, 3, 1), 2), // no flags for discard
        (WRITE_ZEROES, (2, 3, 2), 2),
        (WRITE_ZEROES, (60, 5, 0), 1),
        (DISCARD, (60, 5, 0), 1),
        (DISCARD, (u64::MAX, 1, 0), 1),
        (DISCARD, (0, u32::MAX, 0), 1),
        (WRITE_ZEROES, (0, 0x8001, 0), 1),
    ] {
        assert_eq!(bench.on_ranges(kind, &[good, bad]), status, "{kind} {bad:?}");
    }
    assert_eq!(bench.request(DISCARD, 0, Some((DATA, 15, 0))).unwrap().0, 1);
    assert_eq!(bench.on_ranges(DISCARD, &[good; 17]), 1, "more ranges than are offered");
    assert_eq!(bench.holes(), []);
    assert_eq!(bench.on_ranges(DISCARD, &[good, (16, 2, 0)]), 0);
    assert_eq!(bench.holes(), [(0, 4096), (8192, 1024)]);
}

#[test]
fn zeroes_give_room_back_only_with_the_unmap_flag() {
    let bench = Bench::ready();
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(0, 1, 0), (2, 1, 1), (4, 1, 0)]), 0);
    assert_eq!(bench.holes(), [(1024, 512)]);
    let disk = bench.disk.bytes.lock().unwrap();
    assert!([0, 2, 4].iter().all(|sector| disk[sector * 512..][..512] == [0; 512]));
}

#[test]
fn disk_that_gives_no_room_back_does_not_offer_it() {
    let bench = Bench::with(Disk { is_sparse: false, ..Disk::new(8) });
    bench.start(0);
    assert_eq!(bench.offered() & (1 << 13 | 1 << 14), 1 << 14);
    // max_discard_sectors, and write_zeroes_may_unmap.
    assert_eq!((bench.read(0x2024, 4), bench.read(0x2038, 1)), (0, 0));
    assert_eq!(bench.on_ranges(DISCARD, &[(0, 1, 0)]), 2);
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(0, 1, 1)]), 0);
    let bench = Bench::new();
    assert_eq!((bench.read(0x2024, 4), bench.read(0x2038, 1)), (1 << 22, 1));
}

#[test]
fn zeroes_and_discards_are_flushed_at_once_for_a_driver_that_cannot_flush() {
    let bench = Bench::ready_without(1 << 9);
    assert_eq!(bench.on_ranges(WRITE_ZEROES, &[(0, 1, 0)]), 0);
    assert_eq!(bench.on_ranges(DISCARD, &[(0, 1, 0)]), 0);
    assert_eq!(*bench.disk.log.lock().unwrap(), ["zeroes", "flush", "discard", "flush"]);
}

#[test]
fn header_and_payload_may_be_cut_anywhere() {
    let bench = Bench::ready();
    bench.put_header(0, 1);
    bench.put_chain(&[
        (HEADER, 7, 0),
        (HEADER + 7, 9, 0),
        (DATA, 1, WRITE),
        (DATA + 1, 300, WRITE),
        (DATA + 301, 212, WRITE),
    ]);
    bench.submit(0);
    assert_eq!(bench.used(), Some((0, 513)));
    assert_eq!(bench.peek(DATA, 513), [&bench.disk.bytes.lock().unwrap()[512..1024], &[0]].concat());
}

#[test]
fn indirect_chain_is_followed() {
    let bench = Bench::ready();
    bench.put_header(0, 0);
    bench.put_descriptor(INDIRECT, 0, HEADER, 16, NEXT, 2);
    bench.put_descriptor(INDIRECT, 2, DATA, 512, NEXT | WRITE, 1);
    bench.put_descriptor(INDIRECT, 1, STATUS, 1, WRITE, 0);
    bench.put_descriptor(DESC, 5, INDIRECT, 48, INDIRECT_FLAG, 0);
    bench.submit(5);
    assert_eq!(bench.used(), Some((5, 513)));
}

#[test]
fn unmapped_buffers_are_io_errors_as_long_as_the_status_can_be_written() {
    let bench = Bench::ready();
    assert_eq!(bench.request(0, 0, Some((HOLE, 512, WRITE))), Some((1, 0)));
    assert_eq!(bench.request(1, 0, Some((HOLE, 512, 0))), Some((1, 1)));
    bench.put_chain(&[(HOLE, 16, 0), (STATUS, 1, WRITE)]);
    bench.submit(0);
    assert_eq!((bench.used(), bench.peek(STATUS, 1)[0]), (Some((0, 1)), 1));
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (HOLE, 1, WRITE)]);
    bench.submit(0);
    assert_eq!(bench.used(), Some((0, 0)), "nothing was written");
    bench.put_chain(&[(HEADER, 15, 0), (STATUS, 1, WRITE)]);
    bench.submit(0);
    assert_eq!((bench.used(), bench.peek(STATUS, 1)[0]), (Some((0, 1)), 1), "short header");
    assert_eq!(bench.status(), 0xf);
}

/// Submits what `prepare` has made and expects the device to give up, say so, and work again after a reset.
fn assert_needs_reset(what: &str, prepare: impl FnOnce(&Bench)) {
    let bench = Bench::ready();
    bench.put_header(0, 0);
    bench.put_chain(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    prepare(&bench);
    bench.submit(0);
    assert_eq!(bench.used(), None, "{what}");
    assert_eq!(bench.status() & NEEDS_RESET, NEEDS_RESET, "{what}");
    assert_eq!(bench.messages(), [0x100], "{what}: configuration message");
    assert_eq!(bench.read(0x1000, 1), 2, "{what}");
    bench.submit(0);
    assert_eq!(bench.used(), None, "{what}: still");
    bench.start(feature::EVENT_IDX);
    let answer = bench.request(0, 0, Some((DATA, 512, WRITE)));
    assert_eq!(answer, Some((0, 513)), "{what}: after the reset");
}

#[test]
fn rings_and_chains_that_make_no_sense_need_a_reset() {
    assert_needs_reset("circle", |b| b.put_descriptor(DESC, 1, DATA, 512, NEXT | WRITE, 1));
    assert_needs_reset("circle to the head", |b| b.put_descriptor(DESC, 2, STATUS, 1, NEXT | WRITE, 0));
    assert_needs_reset("next beyond the table", |b| b.put_descriptor(DESC, 1, DATA, 512, NEXT | WRITE, 8));
    assert_needs_reset("readable behind writable", |b| b.put_descriptor(DESC, 2, STATUS, 1, 0, 0));
    assert_needs_reset("no status", |b| b.put_chain(&[(HEADER, 16, 0)]));
    assert_needs_reset("empty status", |b| b.put_chain(&[(HEADER, 16, 0), (STATUS, 0, WRITE)]));
    assert_needs_reset("address overflow", |b| {
        b.put_descriptor(DESC, 1, u64::MAX - 5, 512, NEXT | WRITE, 2);
    });
    assert_needs_reset("4 GiB and more", |b| {
        b.put_chain(&[(HEADER, 16, 0), (DATA, u32::MAX, WRITE), (DATA, u32::MAX, WRITE)]);
    });
    assert_needs_reset("indirect table of half a descriptor", |b| {
        b.put_descriptor(DESC, 0, INDIRECT, 24, INDIRECT_FLAG, 0);
    });
    assert_needs_reset("empty indirect table", |b| b.put_descriptor(DESC, 0, INDIRECT, 0, INDIRECT_FLAG, 0));
    assert_needs_reset("unmapped indirect table", |b| b.put_descriptor(DESC, 0, HOLE, 48, INDIRECT_FLAG, 0));
    assert_needs_reset("indirect inside indirect", |b| {
        b.put_descriptor(DESC, 0, INDIRECT, 16, INDIRECT_FLAG, 0);
        b.put_descriptor(INDIRECT, 0, INDIRECT, 16, INDIRECT_FLAG, 0);
    });
    assert_needs_reset("longer than the queue", |b| {
        for i in 0..16 {
            let flags = if i < 15 { NEXT } else { WRITE };
            b.put_descriptor(INDIRECT, i, HEADER, 1, flags, i as u16 + 1);
        }
        b.put_descriptor(DESC, 0, INDIRECT, 256, INDIRECT_FLAG, 0);
    });
    assert_needs_reset("index that runs ahead", |b| b.next_avail.store(8, Ordering::SeqCst));
}

#[test]
fn head_beyond_the_queue_needs_a_reset() {
    let bench = Bench::ready();
    bench.submit(8);
    assert_eq!((bench.used(), bench.status() & NEEDS_RESET), (None, NEEDS_RESET));
}

#[test]
fn rings_at_bad_addresses_need_a_reset() {
    for (desc, avail, used) in [
        (DESC + 1, AVAIL, USED),
        (DESC, AVAIL + 1, USED),
        (DESC, AVAIL, USED + 2),
        (DESC, HOLE, USED),
        (DESC, AVAIL, HOLE),
        (!0xf, AVAIL, USED),
        (DESC, !1, USED),
        (DESC, 0, USED),
    ] {
        let bench = Bench::ready();
        bench.write(STATUS_REG, 1, 0);
        bench.write(STATUS_REG, 1, 3);
        bench.accept(bench.offered());
        bench.write(STATUS_REG, 1, 0xb);
        bench.set_up_queue(desc, avail, used);
        bench.write(STATUS_REG, 1, 0xf);
        bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
        bench.submit(0);
        let is_legal_but_empty = avail == 0;
        assert_eq!(bench.status() & NEEDS_RESET != 0, !is_legal_but_empty, "{desc:x} {avail:x} {used:x}");
        assert_eq!(bench.used(), None);
    }
}

#[test]
fn nothing_happens_before_the_driver_is_ready_and_waiting_buffers_are_served_then() {
    let bench = Bench::ready();
    bench.write(STATUS_REG, 1, 0);
    bench.write(STATUS_REG, 1, 3);
    bench.accept(bench.offered() & !feature::EVENT_IDX);
    bench.write(STATUS_REG, 1, 0xb);
    bench.set_up_queue(DESC, AVAIL, USED);
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
    bench.submit(0);
    assert_eq!(bench.used(), None);
    bench.write(STATUS_REG, 1, 0xf);
    bench.device.step();
    assert_eq!(bench.used(), Some((0, 1)));
}

#[test]
fn messages_follow_the_event_index_or_the_flag() {
    let bench = Bench::ready_without(0);
    let used_event = AVAIL + 4 + 2 * 8;
    bench.poke(used_event, &1u16.to_le_bytes());
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0; 0], "the driver wants to hear of the second");
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0x101]);
    assert_eq!(bench.peek(USED + 4 + 8 * 8, 2), [2, 0], "and the device of the third");

    let bench = Bench::ready();
    bench.poke(AVAIL, &[1, 0]);
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0; 0]);
    bench.poke(AVAIL, &[0, 0]);
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0x101]);
}

#[test]
fn masked_message_waits_and_the_worker_sends_it_after_unmasking() {
    let bench = Bench::ready();
    bench.write(0x4000 + 16 + 12, 4, 1);
    bench.request(4, 0, None);
    assert_eq!(bench.messages(), [0; 0]);
    bench.write(0x4000 + 16 + 12, 4, 0);
    assert_eq!(bench.messages(), [0; 0]);
    assert!(bench.device.wait_for_work());
    bench.device.step();
    assert_eq!(bench.messages(), [0x101]);
}

#[test]
fn reset_of_a_device_whose_worker_waits_for_a_page_completes_when_the_worker_lets_go() {
    let bench = Bench::ready();
    bench.put_header(4, 0);
    bench.put_chain(&[(HEADER, 16, 0), (STATUS, 1, WRITE)]);
    bench.port.stalls.store(true, Ordering::SeqCst);
    bench.poke(AVAIL + 2, &[1, 0]);
    thread::scope(|scope| {
        let device = &bench.device;
        let worker = scope.spawn(move || {
            while device.wait_for_work() {
                device.step()
            }
        });
        bench.write(0x3000, 2, 0);
        // No register access ever waits for the worker, wherever it is just now.
        bench.write(STATUS_REG, 1, 0);
        let patience = Instant::now() + Duration::from_secs(20);
        while bench.status() != 0 {
            assert!(Instant::now() < patience, "the reset never completes");
            thread::yield_now();
        }
        bench.port.stalls.store(false, Ordering::SeqCst);
        bench.device.stop();
        worker.join().unwrap();
    });
    assert_eq!(bench.used(), None);
}

#[test]
fn stopping_ends_a_worker_that_waits_for_work_or_for_a_page() {
    for stalls in [false, true] {
        let bench = Bench::ready();
        bench.port.stalls.store(stalls, Ordering::SeqCst);
        thread::scope(|scope| {
            let device = &bench.device;
            let worker = scope.spawn(move || {
                while device.wait_for_work() {
                    device.step()
                }
            });
            bench.write(0x3000, 2, 0);
            bench.device.stop();
            worker.join().unwrap();
        });
        assert!(!bench.device.wait_for_work());
    }
}

#[test]
fn function_level_reset_resets_the_device_and_disabling_bus_mastering_stops_its_dma() {
    let bench = Bench::ready();
    let express = bench.capabilities().into_iter().find(|(id, _)| *id == 0x10).unwrap().1;
    bench.config_write(express + 8, 2, 0x8000);
    bench.config_write(0x10, 4, BAR);
    bench.config_write(4, 2, 2);
    assert_eq!(bench.status(), 0);
    bench.start(0);
    bench.submit(0);
    assert_eq!((bench.used(), bench.status() & NEEDS_RESET), (None, NEEDS_RESET));
}

#[test]
fn registers_can_be_reached_through_configuration_space() {
    let bench = Bench::new();
    let access = bench
        .capabilities()
        .into_iter()
        .find(|&(id, at)| id == 9 && bench.config_read(at + 3, 1) == 5)
        .unwrap()
        .1;
    let aim = |offset: u64, len: u64| {
        bench.config_write(access + 4, 1, 0);
        bench.config_write(access + 8, 4, offset);
        bench.config_write(access + 12, 4, len);
    };
    aim(0x12, 2);
    assert_eq!(bench.config_read(access + 16, 2), 1, "one queue");
    aim(STATUS_REG, 1);
    bench.config_write(access + 16, 1, 3);
    assert_eq!(bench.status(), 3);
    aim(0x2000, 4);
    assert_eq!(bench.config_read(access + 16, 4), 64);
    for (offset, len) in [(0x8000, 4), (u64::from(u32::MAX), 1), (0, 3), (0, 0), (2, 4), (0, 0x1000_0000)] {
        aim(offset, len);
        bench.config_write(access + 16, 4, 0);
        bench.config_read(access + 16, 4);
    }
    assert_eq!(bench.status(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_in_the_rings_the_worker_comes_back(
        descriptors in prop::collection::vec((0u64..12, any::<u32>(), 0u16..8, 0u16..9), 8),
        heads in prop::collection::vec(0u16..10, 8),
        ahead in any::<u16>(),
        header in prop::array::uniform16(0u8..16),
    ) {
        let bench = Bench::ready();
        bench.poke(HEADER, &header);
        for (index, (page, len, flags, next)) in descriptors.iter().enumerate() {
            let len = if len & 1 == 0 { len >> 8 & 0x3ff } else { *len };
            bench.put_descriptor(DESC, index as u64, HEADER + (page << 12), len, *flags, *next);
            bench.put_descriptor(INDIRECT, index as u64, DATA, len, *next, *flags);
        }
        for (index, head) in heads.iter().enumerate() {
            bench.poke(AVAIL + 4 + 2 * index as u64, &head.to_le_bytes());
        }
        bench.poke(AVAIL + 2, &(ahead % 10).to_le_bytes());
        bench.write(0x3000, 2, 0);
        bench.device.step();
        let status = bench.status();
        prop_assert!(status == 0xf || status == 0xf | NEEDS_RESET);
    }

    #[test]
    fn register_accesses_of_all_kinds_never_panic(
        accesses in prop::collection::vec((0u64..0x8000, 0usize..4, any::<u64>()), 1..80)
    ) {
        let bench = Bench::new();
        for (at, log2, value) in accesses {
            let len = 1usize << log2;
            // Mostly the common configuration, where the state is.
            let at = if value & 3 == 0 { at } else { at % 0x40 } & !(len as u64 - 1);
            bench.write(at, len, value);
            bench.read(at, len);
            bench.device.step();
        }
    }
}
