//! Raw disk images in files.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use devices::virtio::BlockBackend;
use thiserror::Error;

/// Bytes of a sector, virtio's unit.
pub const SECTOR: u64 = 512;

/// A drive that is a file of the host, with the descriptor that its thread works with, and no other thread.
pub trait Drive: BlockBackend + AsFd {}

impl<T: BlockBackend + AsFd> Drive for T {}

/// A drive cannot be used.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The file cannot be opened.
    #[error("cannot open drive {path:?}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Another program has it.
    #[error("drive {path:?} is in use by another process; give the guest a copy, or add ,ro to both")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Not a file with a size.
    #[error("drive {path:?} is not a regular file or block device")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
}

/// A raw disk in a file. A last partial sector reads as if filled with zeros.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    len: u64,
    read_only: bool,
}

impl FileDisk {
    /// Opens and locks an image. `spec` is `FILE` or `FILE,ro`.
    ///
    /// # Errors
    /// [`DriveError`]
    pub fn open(spec: &str) -> Result<Self, DriveError> {
        let (path, read_only) = match spec.strip_suffix(",ro") {
            Some(path) => (Path::new(path), true),
            None => (Path::new(spec), false),
        };
        let failed = |source| DriveError::Open { path: path.into(), source };
        let file = File::options().read(true).write(!read_only).open(path).map_err(failed)?;
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DriveError::Locked { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Works for block devices too, whose metadata has no length.
        let len = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(DriveError::NotAFile { path: path.into() });
        }
        Ok(Self { file, len: len.next_multiple_of(SECTOR), read_only })
    }
}

impl AsFd for FileDisk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl BlockBackend for FileDisk {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_padded(&self.file, offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64);
        if self.read_only || end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.file.write_all_at(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Reads from a file, with zeros beyond its end.
///
/// # Errors
/// The host's.
pub fn read_padded(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => {
                out[done..].fill(0);
                return Ok(());
            }
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_partial_sector_is_padded_and_read_only_refuses_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [7u8; 700]).unwrap();
        let disk = FileDisk::open(&format!("{},ro", path.display())).unwrap();
        assert_eq!(disk.len(), 1024);
        let mut out = [1u8; 512];
        disk.read_at(512, &mut out).unwrap();
        assert_eq!((out[187], out[188]), (7, 0));
        assert!(disk.write_at(0, &[0]).is_err());
    }

    #[test]
    fn image_in_use_is_refused_and_shared_readers_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0u8; 512]).unwrap();
        let rw = path.display().to_string();
        let ro = format!("{rw},ro");
        let first = FileDisk::open(&rw).unwrap();
        assert!(matches!(FileDisk::open(&ro), Err(DriveError::Locked { .. })));
        assert!(first.write_at(512, &[0]).is_err(), "beyond the end");
        drop(first);
        let _a = FileDisk::open(&ro).unwrap();
        let _b = FileDisk::open(&ro).unwrap();
        assert!(matches!(FileDisk::open(&rw), Err(DriveError::Locked { .. })));
        assert!(matches!(FileDisk::open("/nonexistent"), Err(DriveError::Open { .. })));
    }
}
