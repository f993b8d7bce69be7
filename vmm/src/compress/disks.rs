//! The two disks of a compress job: the input, read-only and padded; the output, with the record at its end.
//!
//! `docs/compress-protocol.md` says what both sides may expect of them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use devices::virtio::BlockBackend;

use crate::compress::record::RECORD_BYTES;
use crate::host::disk::{SECTOR, read_padded};

const MIB: u64 = 1 << 20;
/// Deflate cannot expand further than this.
const MAX_EXPANSION: u64 = 1032;

/// The first disk.
#[derive(Debug)]
pub(crate) struct InputDisk {
    file: File,
    len: u64,
    furthest: Arc<AtomicU64>,
}

impl InputDisk {
    /// A disk over the first `len` bytes of `file`. The counter follows how far the guest has read.
    #[must_use]
    pub(crate) fn new(file: File, len: u64, furthest: Arc<AtomicU64>) -> Self {
        Self { file, len, furthest }
    }
}

impl AsFd for InputDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl BlockBackend for InputDisk {
    fn len(&self) -> u64 {
        self.len.next_multiple_of(SECTOR).max(SECTOR)
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64).min(self.len);
        self.furthest.fetch_max(end, Ordering::Relaxed);
        // The file may grow while we read it; the job is the bytes that were there when it began.
        let inside = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        out[inside..].fill(0);
        read_padded(&self.file, offset, &mut out[..inside])
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The second disk.
#[derive(Debug)]
pub(crate) struct OutputDisk {
    file: File,
    capacity: u64,
    first_error: Arc<Mutex<Option<io::Error>>>,
}

/// Output bytes that a job can need, without the record.
#[must_use]
pub(crate) fn output_bound(input_len: u64, decompress: bool) -> u64 {
    if decompress {
        input_len.saturating_mul(MAX_EXPANSION).saturating_add(MIB)
    } else {
        input_len.saturating_add(input_len / 8).saturating_add(MIB)
    }
}

impl OutputDisk {
    /// Makes `file` as large as the job may need (sparse), or as the file system allows. The first error of a write
    /// is left in `first_error`.
    ///
    /// # Errors
    /// The host's, if even a small file is refused.
    pub(crate) fn new(
        file: File,
        bound: u64,
        first_error: Arc<Mutex<Option<io::Error>>>,
    ) -> io::Result<Self> {
        let mut data = bound.min(1 << 62).next_multiple_of(RECORD_BYTES);
        loop {
            let capacity = data + RECORD_BYTES;
            match file.set_len(capacity) {
                Ok(()) => return Ok(Self { file, capacity, first_error }),
                // EFBIG: file systems end somewhere between 2 GiB and 8 EiB.
                Err(_) if data > MIB => data = (data / 2).next_multiple_of(RECORD_BYTES),
                Err(e) => return Err(e),
            }
        }
    }

    /// Offset of the record.
    #[must_use]
    pub(crate) fn record_offset(&self) -> u64 {
        self.capacity - RECORD_BYTES
    }
}

impl AsFd for OutputDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl BlockBackend for OutputDisk {
    fn len(&self) -> u64 {
        self.capacity
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_padded(&self.file, offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset).inspect_err(|e| {
            let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| {
                e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
            });
        })
    }

    fn flush(&self) -> io::Result<()> {
        // Durability is the business of the final step; the guest only needs order, and one file has that.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_disk_ends_at_the_given_length_even_if_the_file_grows() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 1000], 0).unwrap();
        let furthest = Arc::new(AtomicU64::new(0));
        let disk = InputDisk::new(file, 600, Arc::clone(&furthest));
        assert_eq!(disk.len(), 1024);
        let mut out = [1; 512];
        disk.read_at(512, &mut out).unwrap();
        assert_eq!((out[87], out[88]), (7, 0));
        assert_eq!(furthest.load(Ordering::Relaxed), 600);
    }

    #[test]
    fn empty_input_still_is_a_disk_and_output_has_room_for_the_record() {
        let disk = InputDisk::new(tempfile::tempfile().unwrap(), 0, Arc::default());
        assert_eq!(disk.len(), SECTOR);
        let disk =
            OutputDisk::new(tempfile::tempfile().unwrap(), output_bound(0, false), Arc::default()).unwrap();
        assert_eq!(disk.len() % RECORD_BYTES, 0);
        assert!(disk.record_offset() >= MIB);
    }

    #[test]
    fn bound_beyond_the_file_system_shrinks_instead_of_failing() {
        let bound = output_bound(u64::MAX / 2, true);
        let disk = OutputDisk::new(tempfile::tempfile().unwrap(), bound, Arc::default()).unwrap();
        assert!(disk.len() > 1 << 30);
    }
}
