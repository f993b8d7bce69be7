//! Raw disk images in files.

use std::fs::{File, FileType, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use devices::virtio::BlockBackend;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::{major, minor};
use thiserror::Error;

use crate::host::image_format::{self, Format};
use crate::save::state::{FileMark, SavedDrive};

/// Bytes of a sector, virtio's unit.
pub const SECTOR: u64 = 512;

/// A drive that is a file of the host, with the descriptor that its thread works with, and no other thread.
pub trait Drive: BlockBackend + AsFd {}

impl<T: BlockBackend + AsFd> Drive for T {}

/// A drive cannot be used.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The file cannot be opened.
    #[error("cannot open drive {path:?}")]
    Open {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The file can be read, but not be written.
    #[error(
        "drive {path:?} cannot be written ({error}); add ,ro to give the guest a disk that it can only read"
    )]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        error: io::Error,
    },
    /// Another program has it.
    #[error("drive {path:?} is in use by another process; give the guest a copy, or add ,ro to both")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// This machine has it.
    #[error(
        "drive {path:?} is given twice, and at least once to be written; give the guest a copy, or add ,ro to both"
    )]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// Not a file with a size.
    #[error("drive {path:?} is not a regular file or block device")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// An option that says how the file is to be read.
    #[error(
        "drive {path:?}: there is no format {format:?}, only raw; `qemu-img convert -O raw` makes that of others"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What the user has named.
        format: String,
    },
    /// An image of another program.
    #[error(
        "drive {path:?} is a {format} image, and drives are raw: convert it with `qemu-img convert -O raw`, or add \
         ,format=raw if the guest is to see the file's bytes as they are"
    )]
    NotRaw {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// An encrypted image, or a disk that a guest has encrypted.
    #[error(
        "drive {path:?} is encrypted (luks): add ,format=raw if the guest has the key; if the host has, give the guest \
         the device that `cryptsetup open` makes, or convert it with `qemu-img convert -O raw`"
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A compressed file.
    #[error(
        "drive {path:?} is compressed: unpack it first (`{command}`), or add ,format=raw if the guest is to see the file's \
         bytes as they are"
    )]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What unpacks it.
        command: &'static str,
    },
}

/// What the user says of a drive: `FILE`, with `,ro` and `,format=raw` behind it in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spec<'a> {
    path: &'a Path,
    read_only: bool,
    format: Option<&'a str>,
}

impl<'a> Spec<'a> {
    /// A comma that none of the options follows belongs to the name.
    fn parse(text: &'a str) -> Self {
        let mut spec = Self { path: Path::new(text), read_only: false, format: None };
        let mut rest = text;
        while let Some((front, option)) = rest.rsplit_once(',') {
            match (option, option.strip_prefix("format=")) {
                ("ro", _) => spec.read_only = true,
                // Of a repeated option the last one counts, which is the first one here.
                (_, Some(format)) => spec.format = spec.format.or(Some(format)),
                _ => break,
            }
            rest = front;
            spec.path = Path::new(front);
        }
        spec
    }
}

/// Which file or device it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

/// How a hole is made that reads as zeros and takes no room.
const HOLE: FallocateFlags = FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
/// How bytes become zero where they are, and keep their room.
const ZERO: FallocateFlags = FallocateFlags::FALLOC_FL_ZERO_RANGE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

/// A raw disk in a file. A last partial sector reads as if filled with zeros.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    len: u64,
    read_only: bool,
    can_discard: bool,
    identity: Identity,
    path: PathBuf,
    /// The user has called it raw.
    is_raw: bool,
}

impl FileDisk {
    /// Opens and locks an image. `spec` is `FILE`, with `,ro` or `,format=raw` or both behind it.
    ///
    /// # Errors
    /// [`DriveError`]
    pub fn open(spec: &str) -> Result<Self, DriveError> {
        Self::open_beside(spec, &[])
    }

    /// The same for a machine that has other drives already.
    ///
    /// # Errors
    /// [`DriveError`]
    pub fn open_beside(spec: &str, others: &[Arc<Self>]) -> Result<Self, DriveError> {
        Self::open_spec(Spec::parse(spec), others)
    }

    /// The drive of a saved machine, in another file if the user has named one, as on the command line.
    ///
    /// # Errors
    /// [`DriveError`]
    pub fn open_saved(
        saved: &SavedDrive,
        instead: Option<&str>,
        others: &[Arc<Self>],
    ) -> Result<Self, DriveError> {
        let format = saved.is_raw.then_some("raw");
        let spec = match instead.map(Spec::parse) {
            Some(spec) => Spec { read_only: saved.read_only, ..spec },
            None => {
                let path = Path::new(saved.file.path.as_deref().unwrap_or_default());
                Spec { path, read_only: saved.read_only, format }
            }
        };
        Self::open_spec(spec, others)
    }

    fn open_spec(spec: Spec<'_>, others: &[Arc<Self>]) -> Result<Self, DriveError> {
        let Spec { path, read_only, format } = spec;
        let failed = |source| DriveError::Open { path: path.into(), source };
        if let Some(other) = format.filter(|format| *format != "raw") {
            return Err(DriveError::UnknownFormat { path: path.into(), format: other.into() });
        }
        let is_disk = |kind: FileType| kind.is_file() || kind.is_block_device();
        // Before it is opened: a named pipe would wait for its other end.
        if !is_disk(std::fs::metadata(path).map_err(failed)?.file_type()) {
            return Err(DriveError::NotAFile { path: path.into() });
        }
        let file = File::options().read(true).write(!read_only).open(path).map_err(|error| {
            if !read_only && File::open(path).is_ok() {
                DriveError::NotWritable { path: path.into(), error }
            } else {
                failed(error)
            }
        })?;
        let metadata = file.metadata().map_err(failed)?;
        if !is_disk(metadata.file_type()) {
            return Err(DriveError::NotAFile { path: path.into() });
        }
        let identity = match metadata.rdev() {
            0 => Identity(metadata.dev(), metadata.ino()),
            // Whatever node the device has been opened by. No file system has this number.
            device => Identity(u64::MAX, device),
        };
        let locked = if read_only { file.try_lock_shared() } else { file.try_lock() };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if others.iter().any(|o| o.identity == identity) => {
                return Err(DriveError::Twice { path: path.into() });
            }
            Err(TryLockError::WouldBlock) => return Err(DriveError::Locked { path: path.into() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Works for block devices too, whose metadata has no length.
        let len = io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(failed)?;
        if format.is_none() {
            match image_format::recognise(&file, len).map_err(failed)? {
                None => {}
                Some(Format::Image(format)) => return Err(DriveError::NotRaw { path: path.into(), format }),
                Some(Format::Luks) => return Err(DriveError::Encrypted { path: path.into() }),
                Some(Format::Compressed(command)) => {
                    return Err(DriveError::Compressed { path: path.into(), command });
                }
            }
        }
        let len = len.next_multiple_of(SECTOR);
        let can_discard = !read_only
            && if metadata.file_type().is_block_device() {
                device_takes_holes(metadata.rdev())
            } else {
                // Behind the end, where there is nothing to lose. The host takes it for a change, by which a restore would say
                // that somebody has written to the file.
                let takes_holes = allocate(&file, HOLE, len, SECTOR).unwrap_or(false);
                metadata.modified().and_then(|before| file.set_modified(before)).map_err(failed)?;
                takes_holes
            };
        let (path, is_raw) = (path.to_owned(), format.is_some());
        Ok(Self { file, len, read_only, can_discard, identity, path, is_raw })
    }
}

impl FileDisk {
    /// What a save file tells of it: as it is now.
    ///
    /// # Errors
    /// The host's.
    pub fn save(&self) -> io::Result<SavedDrive> {
        let file = FileMark::of(&self.path, &self.file, Some(self.len))?;
        Ok(SavedDrive { file, read_only: self.read_only, is_raw: self.is_raw })
    }

    /// The name that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn may_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only || offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
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
        self.may_write(offset, data.len() as u64)?;
        self.file.write_all_at(data, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn can_discard(&self) -> bool {
        self.can_discard
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.may_write(offset, len)?;
        // Where it cannot be done, a piece that the device takes only as part of a larger one, the bytes stay.
        allocate(&self.file, HOLE, offset, len).map(drop)
    }

    fn write_zeroes(&self, offset: u64, len: u64, may_discard: bool) -> io::Result<()> {
        self.may_write(offset, len)?;
        if may_discard && allocate(&self.file, HOLE, offset, len)? {
            return Ok(());
        }
        if allocate(&self.file, ZERO, offset, len)? {
            return Ok(());
        }
        self.write_out_zeroes(offset, len)
    }
}

/// Makes a hole or zeros, and says whether this file can have them here.
fn allocate(file: &File, how: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
    if len == 0 {
        // Which the call refuses.
        return Ok(true);
    }
    let signed = |number: u64| i64::try_from(number).map_err(|_| io::ErrorKind::InvalidInput);
    let (offset, len) = (signed(offset)?, signed(len)?);
    loop {
        match fallocate(file, how, offset, len) {
            Ok(()) => return Ok(true),
            Err(Errno::EINTR) => {}
            // File systems without; a device with larger sectors than ours.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a block device can be told that its sectors are zero, which is how holes are made in it.
fn device_takes_holes(device: u64) -> bool {
    let node = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    // The queue of a partition is that of its disk.
    let limits = ["queue", "../queue"].map(|queue| format!("{node}/{queue}/write_zeroes_max_bytes"));
    limits.iter().any(|limit| std::fs::read_to_string(limit).is_ok_and(|bytes| bytes.trim() != "0"))
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

    fn open(path: &Path, options: &str) -> Result<FileDisk, DriveError> {
        FileDisk::open(&format!("{}{options}", path.display()))
    }

    /// The whole line that a user sees.
    fn line(error: DriveError) -> String {
        crate::exit::line(&error.into())
    }

    #[test]
    fn options_follow_the_name_in_any_order_and_other_commas_are_part_of_it() {
        let spec = |path, read_only, format| Spec { path: Path::new(path), read_only, format };
        for (text, expected) in [
            ("disk", spec("disk", false, None)),
            ("disk,ro", spec("disk", true, None)),
            ("disk,ro,format=raw", spec("disk", true, Some("raw"))),
            ("disk,format=raw,ro", spec("disk", true, Some("raw"))),
            ("disk,format=raw", spec("disk", false, Some("raw"))),
            ("disk,format=qcow2,format=raw", spec("disk", false, Some("raw"))),
            ("a,b,ro", spec("a,b", true, None)),
            ("a,ro,b", spec("a,ro,b", false, None)),
        ] {
            assert_eq!(Spec::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn images_of_other_formats_are_refused_by_name_with_what_to_do() {
        let vdi = [&[0; 0x40][..], b"\x7f\x10\xda\xbe"].concat();
        let fixed_vhd = [&[0; 4096][..], b"conectix", &[0; 504]].concat();
        let formats: [(&[u8], &str); 20] = [
            (b"QFI\xfb\0\0\0\x03", "qcow2"),
            (b"QED\0", "qed"),
            (&vdi, "vdi"),
            (b"KDMV\x01", "vmdk"),
            (b"COWD\x01", "vmdk"),
            (b"\xbe\xba\xfe\xca\0\0\0\0\x01", "vmdk"),
            (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
            (b"vhdxfile", "vhdx"),
            (b"conectix", "vhd"),
            (&fixed_vhd, "vhd"),
            (b"WithoutFreeSpace", "parallels"),
            (b"WithouFreSpacExt", "parallels"),
            (&[b"koly".as_slice(), &[0; 508]].concat(), "dmg"),
            (b"LUKS\xba\xbe\0\x02", "cryptsetup open"),
            (b"\x1f\x8b\x08\0", "gzip -d"),
            (b"\xfd7zXZ\0", "xz -d"),
            (b"\x28\xb5\x2f\xfd", "zstd -d"),
            (b"\x04\x22\x4d\x18", "lz4 -d"),
            (b"BZh91AY&SY", "bzip2 -d"),
            (b"PK\x03\x04", "unzip"),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        for (bytes, name) in formats {
            std::fs::write(&path, bytes).unwrap();
            for options in ["", ",ro"] {
                let line = line(open(&path, options).unwrap_err());
                assert!(line.contains(name) && line.contains(",format=raw"), "{line}");
            }
            let refused = std::fs::read(&path).unwrap();
            assert_eq!(refused, bytes, "not touched");
        }
    }

    #[test]
    fn raw_image_whose_guest_has_written_another_formats_magic_opens_when_it_is_called_raw() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 4096]).unwrap();
        open(&path, "").unwrap().write_at(0, b"QFI\xfb\0\0\0\x03").unwrap();
        assert!(matches!(open(&path, ""), Err(DriveError::NotRaw { format: "qcow2", .. })));
        let mut out = [0; 4];
        open(&path, ",format=raw").unwrap().read_at(0, &mut out).unwrap();
        assert_eq!(&out, b"QFI\xfb");
        let line = line(open(&path, ",format=qcow2").unwrap_err());
        assert!(line.contains("qcow2") && line.contains("only raw"), "{line}");
    }

    #[test]
    fn what_cannot_be_a_drive_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("folder")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, options) in [("folder", ""), ("folder", ",ro"), ("pipe", ""), ("pipe", ",ro")] {
            let line = line(open(&path(name), options).unwrap_err());
            assert!(line.ends_with("is not a regular file or block device"), "{line}");
        }
        let line = line(open(&path("missing"), "").unwrap_err());
        assert_eq!(line.matches("os error").count(), 1, "{line}");
    }

    #[test]
    fn file_that_can_only_be_read_is_refused_with_the_option_for_that() {
        // Nobody may write to a program that runs, not even root; the same goes for a file system that is read-only.
        let program = std::env::current_exe().unwrap();
        let line = line(open(&program, "").unwrap_err());
        assert!(line.contains("cannot be written") && line.contains("add ,ro"), "{line}");
        assert!(open(&program, ",ro").unwrap().is_read_only());
    }

    /// An image of 1 MiB without a zero, and what the host has for it.
    fn full_image(dir: &Path) -> (PathBuf, u64) {
        let path = dir.join("disk");
        std::fs::write(&path, [7; 1 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        (path, blocks)
    }

    #[test]
    fn what_is_discarded_or_made_zero_with_leave_to_discard_takes_no_room_on_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let (path, before) = full_image(dir.path());
        let disk = open(&path, "").unwrap();
        if !disk.can_discard() {
            eprintln!("skipped: the file system makes no holes");
            return;
        }
        disk.discard(0, 512 << 10).unwrap();
        disk.flush().unwrap();
        let middle = std::fs::metadata(&path).unwrap();
        assert!(middle.blocks() <= before - (512 << 10) / 512, "{} of {before}", middle.blocks());
        disk.write_zeroes(512 << 10, 256 << 10, true).unwrap();
        disk.flush().unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert!(after.blocks() <= middle.blocks() - (256 << 10) / 512, "{} of {before}", after.blocks());
        assert_eq!(after.len(), 1 << 20);
        let mut out = vec![1; 1 << 20];
        disk.read_at(0, &mut out).unwrap();
        assert!(out[512 << 10..768 << 10].iter().all(|byte| *byte == 0));
        assert!(out[768 << 10..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn zeros_without_leave_to_discard_keep_their_room_and_pieces_of_blocks_are_exact() {
        let dir = tempfile::tempdir().unwrap();
        let (path, before) = full_image(dir.path());
        let disk = open(&path, "").unwrap();
        for (may_discard, at) in [(false, 0), (true, 512 << 10)] {
            disk.write_zeroes(at + 512, 100 << 10, may_discard).unwrap();
            let mut out = vec![1; 128 << 10];
            disk.read_at(at, &mut out).unwrap();
            assert!(out[512..][..100 << 10].iter().all(|byte| *byte == 0));
            assert!(out[..512].iter().chain(&out[512 + (100 << 10)..]).all(|byte| *byte == 7));
            if !may_discard {
                disk.flush().unwrap();
                assert!(std::fs::metadata(&path).unwrap().blocks() >= before);
            }
        }
        disk.write_out_zeroes(700 << 10, 200 << 10).unwrap();
        let mut out = vec![1; 256 << 10];
        disk.read_at(680 << 10, &mut out).unwrap();
        let zeros = out.iter().filter(|byte| **byte == 0).count();
        assert_eq!((zeros, out[(20 << 10) - 1], out[220 << 10]), (200 << 10, 7, 7));
        disk.discard(0, 0).unwrap();
        disk.write_zeroes(0, 0, true).unwrap();
    }

    #[test]
    fn disk_that_is_read_only_or_ends_before_is_not_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = full_image(dir.path());
        let disk = open(&path, ",ro").unwrap();
        assert!(!disk.can_discard());
        assert!(disk.discard(0, 512).is_err() && disk.write_zeroes(0, 512, true).is_err());
        drop(disk);
        let disk = open(&path, "").unwrap();
        assert!(disk.discard(1 << 20, 512).is_err() && disk.write_zeroes(u64::MAX, 512, false).is_err());
    }

    #[test]
    fn drive_given_twice_is_said_to_be_and_for_readers_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let spec = |path: &Path, options: &str| format!("{}{options}", path.display());
        let first = Arc::new(FileDisk::open(&spec(&path, "")).unwrap());
        let again = FileDisk::open_beside(&spec(&link, ",ro"), &[first]).unwrap_err();
        assert!(matches!(again, DriveError::Twice { .. }), "{again}");
        let first = Arc::new(FileDisk::open(&spec(&path, ",ro")).unwrap());
        FileDisk::open_beside(&spec(&path, ",ro"), &[Arc::clone(&first)]).unwrap();
        let _elsewhere = FileDisk::open(&spec(&path, ",ro")).unwrap();
        assert!(matches!(FileDisk::open_beside(&spec(&path, ""), &[first]), Err(DriveError::Twice { .. })));
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
