//! The block device (5.2): sectors of a [`BlockBackend`].
//!
//! One queue; requests are served in order, one at a time. Payload goes through a bounce buffer, so that no guest
//! page stays pinned while the host's disk is waited for. Deliberately absent: several queues, zoned devices,
//! secure erase, a switch for the write cache.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hw::DmaFault;

use super::backend::BlockBackend;
use super::chain::{Buffers, CopyError, Request};
use super::device::{Io, ServeError, VirtioDevice};

const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// A chain has as many buffers as the queue has entries; two of them are header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes moved between guest and backend at a time.
const PIECE: usize = 256 << 10;
const MAX_DISCARD_SECTORS: u32 = 1 << 22;
const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 15;
const MAX_RANGES: u32 = 16;
/// Bytes of the string that VIRTIO_BLK_T_GET_ID returns.
const ID_BYTES: usize = 20;

/// Feature bits (5.2.3).
mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (5.2.6).
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// Flag of a range that is made zero: its sectors may be deallocated (5.2.6).
const WRITE_ZEROES_UNMAP: u32 = 1 << 0;
/// Bytes of `struct virtio_blk_discard_write_zeroes` (5.2.6).
const RANGE_BYTES: usize = 16;

/// Request status (5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
}

/// One range of a discard or write-zeroes request, checked.
struct Range {
    offset: u64,
    bytes: u64,
    flags: u32,
}

/// Why a request was not done.
enum Failure {
    Status(Status),
    Cancelled,
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Fault(DmaFault::Cancelled) => Self::Cancelled,
            CopyError::Short | CopyError::Fault(DmaFault::Aborted(_)) => Self::Status(Status::IoErr),
        }
    }
}

/// `struct virtio_blk_config` (5.2.4), as far as the offered features fill it.
const CONFIG_BYTES: usize = 60;

/// A block device.
pub struct Block {
    backend: Arc<dyn BlockBackend>,
    /// Sectors.
    capacity: u64,
    id: [u8; ID_BYTES],
    config: [u8; CONFIG_BYTES],
    /// The bounce buffer; only one request is served at a time.
    buffer: Mutex<Box<[u8]>>,
    /// The backend's first error has been logged; a guest could make them as fast as it likes.
    has_warned: AtomicBool,
}

impl Block {
    /// A device over `backend`. `id` is the serial that the guest can ask for, of which 20 bytes are used.
    #[must_use]
    pub fn new(backend: Arc<dyn BlockBackend>, id: &str) -> Self {
        let capacity = backend.len() / SECTOR;
        let mut serial = [0; ID_BYTES];
        for (to, from) in serial.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        let config = configuration(capacity, backend.can_discard());
        let buffer = Mutex::new(vec![0; PIECE].into_boxed_slice());
        Self { backend, capacity, id: serial, config, buffer, has_warned: AtomicBool::new(false) }
    }

    /// The byte offset of `bytes` at `sector`, if all of them are on the disk and whole sectors.
    fn range(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        let end = sector.checked_add(bytes / SECTOR);
        if bytes.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= self.capacity) {
            // Below the backend's length, so it does not overflow.
            Ok(sector * SECTOR)
        } else {
            Err(Failure::Status(Status::IoErr))
        }
    }

    /// The backend's answer as the guest sees it.
    fn answer(&self, result: std::io::Result<()>) -> Result<(), Failure> {
        result.map_err(|error| {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                log::warn!("a disk cannot be read or written, the guest sees I/O errors: {error}");
            }
            Failure::Status(Status::IoErr)
        })
    }

    fn may_write(&self) -> Result<(), Failure> {
        if self.backend.is_read_only() { Err(Failure::Status(Status::IoErr)) } else { Ok(()) }
    }

    /// Does a request, apart from its status byte, and says how many bytes were written to `writable`.
    fn perform(&self, readable: &mut Buffers, writable: &mut Buffers, io: &Io<'_>) -> Result<u64, Failure> {
        let mut header = [0; 16];
        readable.gather(io, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            kind::IN => self.read(sector, writable, io),
            kind::OUT => self.write(sector, readable, io),
            kind::FLUSH => {
                self.answer(self.backend.flush())?;
                Ok(0)
            }
            kind::GET_ID => {
                let len = usize::try_from(writable.len()).unwrap_or(ID_BYTES).min(ID_BYTES);
                writable.scatter(io, &self.id[..len])?;
                Ok(len as u64)
            }
            kind::DISCARD if self.features() & feature::DISCARD != 0 => {
                for range in self.ranges(readable, io, MAX_DISCARD_SECTORS, 0)? {
                    self.answer(self.backend.discard(range.offset, range.bytes))?;
                }
                self.write_through(io)
            }
            kind::WRITE_ZEROES => {
                for range in self.ranges(readable, io, MAX_WRITE_ZEROES_SECTORS, WRITE_ZEROES_UNMAP)? {
                    let may_discard = range.flags & WRITE_ZEROES_UNMAP != 0;
                    self.answer(self.backend.write_zeroes(range.offset, range.bytes, may_discard))?;
                }
                self.write_through(io)
            }
            _ => Err(Failure::Status(Status::Unsupp)),
        }
    }

    fn read(&self, sector: u64, data: &mut Buffers, io: &Io<'_>) -> Result<u64, Failure> {
        let bytes = data.len();
        let mut offset = self.range(sector, bytes)?;
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        while !data.is_empty() {
            let len = usize::try_from(data.len()).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..len];
            self.answer(self.backend.read_at(offset, piece))?;
            data.scatter(io, piece)?;
            offset += len as u64;
        }
        Ok(bytes)
    }

    fn write(&self, sector: u64, data: &mut Buffers, io: &Io<'_>) -> Result<u64, Failure> {
        self.may_write()?;
        let mut offset = self.range(sector, data.len())?;
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        while !data.is_empty() {
            let len = usize::try_from(data.len()).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..len];
            data.gather(io, piece)?;
            self.answer(self.backend.write_at(offset, piece))?;
            offset += len as u64;
        }
        self.write_through(io)
    }

    /// The end of a request that has changed the disk: a driver that cannot flush relies on completed writes (5.2.6.2).
    fn write_through(&self, io: &Io<'_>) -> Result<u64, Failure> {
        if io.features & feature::FLUSH == 0 {
            self.answer(self.backend.flush())?;
        }
        Ok(0)
    }

    /// The ranges of a discard or write-zeroes request: all of them are checked before one is touched.
    fn ranges(
        &self,
        readable: &mut Buffers,
        io: &Io<'_>,
        max_sectors: u32,
        allowed_flags: u32,
    ) -> Result<Vec<Range>, Failure> {
        self.may_write()?;
        let bytes = readable.len();
        if !bytes.is_multiple_of(RANGE_BYTES as u64) || bytes / RANGE_BYTES as u64 > MAX_RANGES.into() {
            return Err(Failure::Status(Status::IoErr));
        }
        let mut ranges = Vec::new();
        while !readable.is_empty() {
            let mut range = [0; RANGE_BYTES];
            readable.gather(io, &mut range)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = range;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
            let flags = u32::from_le_bytes(flags);
            if flags & !allowed_flags != 0 {
                // 5.2.6.2, for unknown flags and for unmap with discard.
                return Err(Failure::Status(Status::Unsupp));
            }
            if sectors > max_sectors {
                return Err(Failure::Status(Status::IoErr));
            }
            let bytes = u64::from(sectors) * SECTOR;
            ranges.push(Range { offset: self.range(sector, bytes)?, bytes, flags });
        }
        Ok(ranges)
    }
}

fn configuration(capacity: u64, can_discard: bool) -> [u8; CONFIG_BYTES] {
    let mut config = [0; CONFIG_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| config[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &capacity.to_le_bytes());
    put(12, &SEG_MAX.to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes()); // blk_size
    if can_discard {
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_RANGES.to_le_bytes()); // max_discard_seg
        put(44, &1u32.to_le_bytes()); // discard_sector_alignment
    }
    put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
    put(52, &MAX_RANGES.to_le_bytes()); // max_write_zeroes_seg
    put(56, &[can_discard.into()]); // write_zeroes_may_unmap
    config
}

impl VirtioDevice for Block {
    fn device_id(&self) -> u16 {
        2
    }

    fn class(&self) -> u32 {
        0x01_80_00 // mass storage, other
    }

    fn features(&self) -> u64 {
        let writes = match (self.backend.is_read_only(), self.backend.can_discard()) {
            (true, _) => feature::RO,
            (false, true) => feature::DISCARD | feature::WRITE_ZEROES,
            (false, false) => feature::WRITE_ZEROES,
        };
        feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | writes
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.config.get(from..).unwrap_or(&[]);
        data.fill(0);
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }

    fn serve(&self, _queue: u16, request: Request, io: &Io<'_>) -> Result<u32, ServeError> {
        let Request { mut readable, mut writable } = request;
        // The last byte that the device can write is the status, whatever the buffers look like.
        let status_at = writable.take_last().ok_or(ServeError::Malformed)?;
        let room = writable.len();
        let (status, written) = match self.perform(&mut readable, &mut writable, io) {
            Ok(written) => (Status::Ok, written),
            Err(Failure::Status(status)) => (status, 0),
            Err(Failure::Cancelled) => return Err(ServeError::Cancelled),
        };
        match io.write(status_at, &[status as u8]) {
            // The status counts if there is no gap before it.
            Ok(()) if written == room => Ok(u32::try_from(written + 1).unwrap_or(u32::MAX)),
            Ok(()) | Err(DmaFault::Aborted(_)) => Ok(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(DmaFault::Cancelled) => Err(ServeError::Cancelled),
        }
    }
}
