//! The input: a file that is read in place, or a copy of what can be read only once or only in order.
//!
//! What `stat` says of a file is believed only if the file really ends there: those below `/proc` and `/sys` say 0 or 4096
//! whatever they hold. Such files, pipes and terminals are read to their end before the boot, into a file without a name.
//! A signal or the time limit ends that as it ends the machine.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::{Failed, Status};
use crate::host::signals::{Arrived, Signals};

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// How standard input and output are named.
pub(crate) const STANDARD: &str = "-";

/// A file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What ends a wait for the input.
#[derive(Clone, Copy)]
pub(crate) struct Patience<'a> {
    pub(crate) signals: &'a Signals,
    pub(crate) start: Instant,
    pub(crate) limit: Option<Duration>,
}

impl Patience<'_> {
    /// What is left of the time limit; never zero, which timers take for no limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.start.elapsed()).max(Duration::from_nanos(1)))
    }

    /// Waits until there is something to read, or its end.
    fn wait(&self, file: BorrowedFd<'_>) -> Result<(), Failed> {
        let signals = self.signals.as_fd();
        loop {
            let mut fds = [PollFd::new(file, PollFlags::POLLIN), PollFd::new(signals, PollFlags::POLLIN)];
            // A wait that is too long for a timeout is cut, and begins again.
            let timeout = self.left().map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.max(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(Failed::new(format!("cannot wait for the input: {e}"))),
            }
            if let Some(Arrived::End(status)) = self.signals.arrived() {
                return Err(Failed::with_status(status, "interrupted; no output was left"));
            }
            if let Some(limit) = self.limit.filter(|limit| self.start.elapsed() >= *limit) {
                let message = format!("time limit of {limit:?} passed while the input was read");
                return Err(Failed::with_status(Status::Timeout, message));
            }
            if fds[0].any() == Some(true) {
                return Ok(());
            }
        }
    }
}

/// What a file that is read in place looked like when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

/// What happened to a file while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It ends earlier.
    Shrunk,
    /// It goes on where it ended.
    Grown,
    /// Somebody has written to it.
    Written,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shrunk => "became shorter",
            Self::Grown => "became longer",
            Self::Written => "was written to",
        })
    }
}

/// An input that has been opened; nothing has been read yet.
pub(crate) struct Opened {
    name: String,
    file: File,
}

/// An input that can be read anywhere, as often as needed.
pub(crate) struct Input {
    name: String,
    file: File,
    len: u64,
    /// Of a file that is not ours.
    stamp: Option<Stamp>,
}

impl Opened {
    /// Opens a file, or standard input by the name `-`.
    ///
    /// # Errors
    /// A line for the user.
    pub(crate) fn new(path: &Path) -> Result<Self, Failed> {
        let is_standard = path == Path::new(STANDARD);
        let name = if is_standard { "standard input".into() } else { format!("the input {path:?}") };
        let failed = |e: io::Error| Failed::new(format!("cannot read {name}: {e}"));
        let file = if is_standard {
            File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            // Without waiting for somebody who writes to a named pipe: that is done where a signal ends it.
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?
        };
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self { name, file })
    }

    /// Which file it is.
    ///
    /// # Errors
    /// A line for the user.
    pub(crate) fn identity(&self) -> Result<Identity, Failed> {
        self.file.metadata().map(|metadata| Identity::of(&metadata)).map_err(|e| self.failed(&e))
    }

    /// Whether a person would have to type it.
    pub(crate) fn is_terminal(&self) -> bool {
        io::IsTerminal::is_terminal(&self.file)
    }

    fn failed(&self, e: &io::Error) -> Failed {
        Failed::new(format!("cannot read {}: {e}", self.name))
    }

    /// Its length, if it can be read in place.
    fn length_in_place(&self) -> io::Result<Option<u64>> {
        let metadata = self.file.metadata()?;
        let len = if metadata.is_file() {
            metadata.len()
        } else if metadata.file_type().is_block_device() {
            let here = (&self.file).stream_position()?;
            let len = (&self.file).seek(SeekFrom::End(0))?;
            (&self.file).seek(SeekFrom::Start(here))?;
            len
        } else {
            return Ok(None);
        };
        // A descriptor of the starter's may be somewhere in its file: what is behind it is not for us.
        if (&self.file).stream_position()? != 0 {
            return Ok(None);
        }
        Ok(ends_at(&self.file, len).then_some(len))
    }

    /// Makes it an input, perhaps by a copy in `folder`. `progress` is told how many bytes have been copied.
    ///
    /// # Errors
    /// A line for the user.
    pub(crate) fn settle(
        self,
        folder: &Path,
        patience: Patience<'_>,
        progress: impl Fn(u64),
    ) -> Result<Input, Failed> {
        let stamp = Stamp::of(&self.file).map_err(|e| self.failed(&e))?;
        if let Some(len) = self.length_in_place().map_err(|e| self.failed(&e))? {
            // As if it had been read, for those who share the descriptor.
            (&self.file).seek(SeekFrom::Start(len)).map_err(|e| self.failed(&e))?;
            return Ok(Input { name: self.name, file: self.file, len, stamp: Some(stamp) });
        }
        let no_copy =
            |e: io::Error| Failed::new(format!("cannot keep a copy of {} in {folder:?}: {e}", self.name));
        let mut copy = tempfile::tempfile_in(folder).map_err(no_copy)?;
        let (mut part, mut len) = (vec![0; CHUNK], 0);
        loop {
            patience.wait(self.file.as_fd())?;
            let count = match (&self.file).read(&mut part) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    continue;
                }
                Err(e) => return Err(self.failed(&e)),
            };
            copy.write_all(&part[..count]).map_err(no_copy)?;
            len += count as u64;
            progress(len);
        }
        Ok(Input { name: self.name, file: copy, len, stamp: None })
    }
}

/// Whether a file has a byte before this offset, unless it is 0, and none at it.
fn ends_at(file: &File, len: u64) -> bool {
    let has_byte = |at| file.read_at(&mut [0], at).ok().map(|count| count == 1);
    (len == 0 || has_byte(len - 1) == Some(true)) && has_byte(len) == Some(false)
}

impl Input {
    /// Its name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// To read from, anywhere.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of it.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// What happened to it since it was opened.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn change(&self) -> io::Result<Option<Change>> {
        let Some(stamp) = self.stamp else { return Ok(None) };
        let has_byte = |at| Ok::<_, io::Error>(self.file.read_at(&mut [0], at)? == 1);
        if self.len > 0 && !has_byte(self.len - 1)? {
            return Ok(Some(Change::Shrunk));
        }
        if has_byte(self.len)? {
            return Ok(Some(Change::Grown));
        }
        Ok((Stamp::of(&self.file)? != stamp).then_some(Change::Written))
    }
}

/// Where the copies of standard streams are kept.
pub(crate) fn temporary_folder() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn patience(signals: &Signals, limit: Option<Duration>) -> Patience<'_> {
        Patience { signals, start: Instant::now(), limit }
    }

    fn settle(path: &Path) -> Input {
        let signals = Signals::block().unwrap();
        Opened::new(path).unwrap().settle(&temporary_folder(), patience(&signals, None), |_| ()).unwrap()
    }

    fn content(input: &Input) -> Vec<u8> {
        let mut all = vec![0; input.len() as usize];
        input.file().read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[test]
    fn file_whose_length_is_not_what_stat_says_is_read_to_its_end() {
        let version = settle(Path::new("/proc/version"));
        assert_eq!(content(&version), std::fs::read("/proc/version").unwrap());
        assert!(version.len() > 0 && version.stamp.is_none());
        let sysfs = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
        if sysfs.exists() {
            assert_eq!(content(&settle(sysfs)), std::fs::read(sysfs).unwrap());
        }
        assert_eq!(settle(Path::new("/dev/null")).len(), 0);
    }

    #[test]
    fn ordinary_file_is_read_in_place_and_its_changes_are_seen() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"some data").unwrap();
        let input = settle(file.path());
        assert_eq!((input.len(), input.change().unwrap()), (9, None));
        file.write_all(b"more").unwrap();
        assert_eq!(input.change().unwrap(), Some(Change::Grown));
        file.as_file().set_len(3).unwrap();
        assert_eq!(input.change().unwrap(), Some(Change::Shrunk));
        file.as_file().set_len(9).unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(1);
        file.as_file().set_modified(later).unwrap();
        assert_eq!(input.change().unwrap(), Some(Change::Written));
    }

    #[test]
    fn file_with_no_bytes_is_an_input_of_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let input = settle(file.path());
        assert_eq!((input.len(), input.change().unwrap()), (0, None));
    }

    fn pipe_input(reader: OwnedFd) -> Opened {
        Opened { name: "the pipe".into(), file: reader.into() }
    }

    #[test]
    fn pipe_is_read_to_its_end() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        let expected = data.clone();
        let writing = std::thread::spawn(move || File::from(writer).write_all(&data).unwrap());
        let signals = Signals::block().unwrap();
        let input = pipe_input(reader).settle(&temporary_folder(), patience(&signals, None), |_| ()).unwrap();
        writing.join().unwrap();
        assert!(content(&input) == expected);
    }

    #[test]
    fn time_limit_ends_the_wait_for_a_silent_pipe_and_the_reading_of_an_endless_one() {
        let signals = Signals::block().unwrap();
        let soon = Some(Duration::from_millis(50));
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let silent = pipe_input(reader).settle(&temporary_folder(), patience(&signals, soon), |_| ());
        assert_eq!(silent.err().unwrap().status, Status::Timeout);
        drop(writer);
        let endless = Opened::new(Path::new("/dev/zero")).unwrap();
        let endless = endless.settle(&temporary_folder(), patience(&signals, soon), |_| ());
        assert_eq!(endless.err().unwrap().status, Status::Timeout);
    }

    #[test]
    fn descriptor_within_its_file_is_read_from_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        let opened = Opened { name: "it".into(), file };
        let signals = Signals::block().unwrap();
        let input = opened.settle(&temporary_folder(), patience(&signals, None), |_| ()).unwrap();
        assert_eq!(content(&input), b"456789");
    }

    #[test]
    fn directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Opened::new(dir.path()).err().unwrap().message.contains("is a directory"));
    }
}
