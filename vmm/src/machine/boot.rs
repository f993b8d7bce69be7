//! What the guest boots from: files that stay open, because a reboot reads them again.
//!
//! Nothing of them is kept in memory meanwhile. What can be read only once (a pipe) boots a machine that cannot reboot.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use hw::{Pa, Ram};

use crate::board::Board;
use crate::boot::image::Image;
use crate::boot::load::{self, FDT_ADDR, Placement};
use crate::exit::{Failed, Status};
use crate::save::state::{BootSource, FileMark};

/// The longest command line of an arm64 kernel: COMMAND_LINE_SIZE of its `asm/setup.h`, less the terminating NUL.
const MAX_COMMAND_LINE: usize = 2047;

/// Bytes of the initramfs that are copied at once.
const PIECE: usize = 1 << 20;

/// Refuses a command line of which the kernel would drop the end without a word.
fn check_command_line(text: &str) -> Result<(), Failed> {
    if text.len() <= MAX_COMMAND_LINE {
        return Ok(());
    }
    let message = format!(
        "--append has {} bytes, and an arm64 kernel takes {MAX_COMMAND_LINE}: it would cut off the rest",
        text.len()
    );
    Err(Failed::with_status(Status::Usage, message))
}

/// A file that stays open.
struct BootFile {
    what: &'static str,
    path: PathBuf,
    file: File,
    /// It has a length, and can be read as often as one likes.
    is_regular: bool,
    mark: FileMark,
}

impl BootFile {
    fn open(what: &'static str, path: &Path) -> Result<Self, Failed> {
        let failed = |e: io::Error| Failed::new(format!("cannot read {what} {path:?}: {e}"));
        let file = File::open(path).map_err(failed)?;
        let is_regular = file.metadata().map_err(failed)?.is_file();
        let mark = FileMark::of(path, &file, None).map_err(failed)?;
        Ok(Self { what, path: path.to_owned(), file, is_regular, mark })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failed {
        Failed::new(format!("cannot read {} {:?}: {why}", self.what, self.path))
    }

    fn len(&self) -> Result<u64, Failed> {
        Ok(self.file.metadata().map_err(|e| self.failed(e))?.len())
    }

    /// All of it. More than `limit` bytes are of no use to the machine.
    fn read(&self, limit: u64) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        if !self.is_regular {
            (&self.file).take(limit).read_to_end(&mut bytes).map_err(|e| self.failed(e))?;
            return Ok(bytes);
        }
        let len = self.len()?;
        if len > limit {
            return Err(self.failed(format_args!("it has {len} bytes, more than the machine's memory")));
        }
        bytes.resize(usize::try_from(len).map_err(|e| self.failed(e))?, 0);
        self.file.read_exact_at(&mut bytes, 0).map_err(|e| self.failed(e))?;
        Ok(bytes)
    }

    /// The first `len` bytes go to RAM at `at`, without room for all of them in between.
    fn copy(&self, len: u64, ram: &Ram, at: u64) -> Result<(), Failed> {
        let mut piece = vec![0; PIECE];
        let mut done = 0;
        while done < len {
            let count = usize::try_from(len - done).map_or(PIECE, |left| left.min(PIECE));
            let piece = &mut piece[..count];
            self.file.read_exact_at(piece, done).map_err(|e| self.failed(e))?;
            ram.write(Pa(at + done), piece).map_err(|e| self.failed(e))?;
            done += count as u64;
        }
        Ok(())
    }
}

/// An initramfs: its length is enough to know whether it fits.
enum Initrd {
    None,
    /// To be copied from its file.
    File(u64),
    /// From a file that is read only once.
    Bytes(Vec<u8>),
}

impl Initrd {
    fn len(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::File(len) => Some(*len),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
        }
    }
}

/// What has been read and checked, and is still to be loaded.
pub(super) struct Loadable {
    image: Image,
    initrd: Initrd,
    placement: Placement,
}

/// Kernel, initramfs and command line.
pub(super) struct BootFiles {
    kernel: BootFile,
    initrd: Option<BootFile>,
    append: String,
    ram_bytes: u64,
}

impl BootFiles {
    /// Opens the files.
    ///
    /// # Errors
    /// A line for the user.
    pub(super) fn open(
        kernel: &Path,
        initrd: Option<&Path>,
        append: String,
        ram_bytes: u64,
    ) -> Result<Self, Failed> {
        check_command_line(&append)?;
        let kernel = BootFile::open("kernel", kernel)?;
        let initrd = initrd.map(|path| BootFile::open("initrd", path)).transpose()?;
        Ok(Self { kernel, initrd, append, ram_bytes })
    }

    /// Opens the files that a saved machine boots from when it is reset, if they are still there and what they were.
    ///
    /// # Errors
    /// Why the machine cannot be reset.
    pub(super) fn reopen(source: &BootSource, ram_bytes: u64) -> Result<Self, String> {
        fn path<'a>(what: &str, mark: &'a FileMark) -> Result<&'a Path, String> {
            let path = mark.path.as_deref().filter(|_| mark.modified.is_some());
            path.map(Path::new)
                .ok_or_else(|| format!("the {what} was no regular file, or has no name in UTF-8"))
        }
        let kernel = path("kernel", &source.kernel)?;
        let initrd = source.initrd.as_ref().map(|mark| path("initrd", mark)).transpose()?;
        let files = Self::open(kernel, initrd, source.append.clone(), ram_bytes).map_err(|e| e.message)?;
        let marks = std::iter::once(&source.kernel).chain(&source.initrd);
        for (file, mark) in std::iter::once(&files.kernel).chain(&files.initrd).zip(marks) {
            if let Some(how) = mark.difference(&file.mark) {
                return Err(format!("the {} {:?} is not what it was: {how}", file.what, file.path));
            }
        }
        Ok(files)
    }

    /// The files that are read again at a reboot.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        std::iter::once(&self.kernel).chain(&self.initrd).map(|file| file.file.as_raw_fd()).collect()
    }

    /// Which they are, as they were opened.
    pub(super) fn source(&self) -> BootSource {
        let initrd = self.initrd.as_ref().map(|file| file.mark.clone());
        BootSource { kernel: self.kernel.mark.clone(), initrd, append: self.append.clone() }
    }

    /// Why they cannot be read again, if they cannot.
    pub(super) fn read_once(&self) -> Option<String> {
        let once = std::iter::once(&self.kernel).chain(&self.initrd).find(|file| !file.is_regular)?;
        Some(format!("the {} {:?} is no regular file and cannot be read again", once.what, once.path))
    }

    /// Reads and checks the kernel, and whether all of it fits.
    ///
    /// # Errors
    /// A line for the user.
    pub(super) fn read(&self) -> anyhow::Result<Loadable> {
        let image = Image::parse(self.kernel.read(self.ram_bytes)?, self.ram_bytes)
            .map_err(|e| Failed::new(format!("kernel {:?} {e}", self.kernel.path)))?;
        let initrd = match &self.initrd {
            None => Initrd::None,
            Some(file) if file.is_regular => Initrd::File(file.len()?),
            Some(file) => Initrd::Bytes(file.read(self.ram_bytes)?),
        };
        let placement = load::place(&image, initrd.len(), self.ram_bytes)?;
        Ok(Loadable { image, initrd, placement })
    }

    /// Puts everything into the board's RAM, which is zero, with a device tree of its own. Gives the kernel's entry point
    /// and the address for x0.
    ///
    /// # Errors
    /// A line for the user.
    pub(super) fn load(&self, loadable: Loadable, board: &Board) -> anyhow::Result<(Pa, u64)> {
        let Loadable { image, initrd, placement } = loadable;
        if let (Some(file), Initrd::File(len), Some((at, _))) = (&self.initrd, &initrd, placement.initrd) {
            file.copy(*len, board.ram(), at)?;
        }
        let bytes = if let Initrd::Bytes(bytes) = &initrd { Some(&bytes[..]) } else { None };
        let fdt = board.device_tree(&self.append, placement.initrd)?;
        load::load(board.ram(), &placement, &image, bytes, &fdt);
        Ok((placement.entry, FDT_ADDR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_longer_than_the_kernels_buffer_is_refused_with_both_lengths() {
        assert!(check_command_line(&"x".repeat(2047)).is_ok());
        let refused = check_command_line(&"x".repeat(2048)).unwrap_err();
        assert_eq!(refused.status, Status::Usage);
        assert!(refused.message.contains("2048 bytes") && refused.message.contains("2047"), "{refused}");
    }

    #[test]
    fn file_is_copied_into_ram_piece_by_piece_and_one_that_has_become_shorter_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("initrd");
        let bytes: Vec<u8> = (0..2 * PIECE + 4097).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = BootFile::open("initrd", &path).unwrap();
        let ram = Ram::new(&[(Pa(0x4000_0000), 4 << 20)]).unwrap();
        file.copy(bytes.len() as u64, &ram, 0x4000_1000).unwrap();
        let mut copied = vec![0; bytes.len()];
        ram.read(Pa(0x4000_1000), &mut copied).unwrap();
        assert_eq!(copied, bytes);
        let error = file.copy(bytes.len() as u64 + 1, &ram, 0x4000_1000).unwrap_err();
        assert!(error.message.starts_with("cannot read initrd"), "{error}");
    }

    #[test]
    fn what_is_no_regular_file_is_told_as_what_cannot_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, "x").unwrap();
        let open = |initrd: &str| {
            BootFiles::open(&path, Some(Path::new(initrd)), String::new(), 64 << 20).unwrap().read_once()
        };
        assert!(open("/dev/null").unwrap().contains("initrd \"/dev/null\""));
        assert_eq!(open(path.to_str().unwrap()), None);
    }
}
