//! The output file: checked before the boot, written without a name, named when it is complete ([`Temporary`]).
//!
//! Standard output, named pipes and character devices get all of it at the end, from a temporary file: what has not been
//! verified never gets there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use thiserror::Error;

use crate::compress::input::{Identity, STANDARD, temporary_folder};
use crate::host::signals::Signals;
use crate::host::temporary::{Temporary, folder};

/// The output cannot be written.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    /// It exists.
    #[error("{0:?} exists; use --force to replace it")]
    Exists(PathBuf),
    /// It names the input.
    #[error("input and output are the same file: {0:?}")]
    SameFile(PathBuf),
    /// It is a directory or a disk.
    #[error("{0:?} is neither a regular file nor a stream")]
    NotAFile(PathBuf),
    /// It cannot be opened.
    #[error("cannot write to {path:?}: {source}")]
    Open {
        /// The name.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// No room for what waits to be written.
    #[error("cannot make a temporary file in {dir:?}: {source}")]
    NoTemporary {
        /// The folder.
        dir: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Whoever should take the output does not.
    #[error("cannot write to {name}: {source}")]
    Stream {
        /// Its name.
        name: String,
        /// The host's answer.
        source: io::Error,
    },
    /// Its folder does not take files.
    #[error("cannot write to {dir:?}: {source}")]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The last step failed.
    #[error("cannot put the output in place as {path:?}: {source}")]
    Persist {
        /// The final name.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// An output in the making. Dropped without [`Output::finish`], it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    temporary: Temporary,
    force: bool,
}

impl Output {
    /// Checks that `path` can be written and makes the file, in its folder and without its name.
    ///
    /// # Errors
    /// [`OutputError`]
    pub(crate) fn prepare(path: &Path, input: Option<Identity>, force: bool) -> Result<Self, OutputError> {
        let mut place = path.to_path_buf();
        if let Ok(metadata) = path.metadata() {
            if input == Some(Identity::of(&metadata)) {
                return Err(OutputError::SameFile(path.into()));
            }
            if !metadata.is_file() {
                return Err(OutputError::NotAFile(path.into()));
            }
            if !force {
                return Err(OutputError::Exists(path.into()));
            }
            // Of a symbolic link, the file that it names is replaced, not the link.
            place = path.canonicalize().map_err(|source| OutputError::Open { path: path.into(), source })?;
        }
        let dir = folder(&place);
        let temporary =
            Temporary::new(dir).map_err(|source| OutputError::Folder { dir: dir.into(), source })?;
        Ok(Self { path: place, temporary, force })
    }

    /// The folder in which the file gets its name.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        folder(&self.path)
    }

    /// The file to write to.
    #[must_use]
    pub(crate) fn file(&self) -> &File {
        self.temporary.file()
    }

    /// Cuts the file to `len` bytes, makes it durable and gives it its name, with the permissions that a new file
    /// of this process has.
    ///
    /// # Errors
    /// [`OutputError`]; the file is then gone.
    pub(crate) fn finish(self, len: u64) -> Result<(), OutputError> {
        let Self { path, temporary, force } = self;
        let failed = |source| OutputError::Persist { path: path.clone(), source };
        temporary.file().set_len(len).map_err(failed)?;
        temporary.file().sync_all().map_err(failed)?;
        temporary.make_ordinary().map_err(failed)?;
        temporary.persist(&path, force).map_err(failed)
    }
}

/// A stream, and what is to be written to it.
#[derive(Debug)]
pub(crate) struct Stream {
    name: String,
    to: File,
    waiting: File,
}

impl Stream {
    /// Bytes copied at a time.
    const CHUNK: usize = 256 << 10;

    fn new(name: String, to: File) -> Result<Self, OutputError> {
        let dir = temporary_folder();
        match tempfile::tempfile_in(&dir) {
            Ok(waiting) => Ok(Self { name, to, waiting }),
            Err(source) => Err(OutputError::NoTemporary { dir, source }),
        }
    }

    /// Opens a named pipe that somebody reads, or a device.
    fn open(path: &Path) -> Result<Self, OutputError> {
        let failed = |source| OutputError::Open { path: path.into(), source };
        // A pipe that nobody reads is an error now instead of a wait for ever. Once it is open, writes may wait.
        let file = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(|e| failed(e.into()))?;
        let flags = OFlag::from_bits_retain(flags) - OFlag::O_NONBLOCK;
        fcntl(&file, FcntlArg::F_SETFL(flags)).map_err(|e| failed(e.into()))?;
        Self::new(format!("{path:?}"), file)
    }

    /// Writes the first `len` bytes of what is waiting.
    fn finish(mut self, mut len: u64) -> Result<(), OutputError> {
        let mut part = vec![0; Self::CHUNK];
        let mut at = 0;
        let mut copy = || -> io::Result<()> {
            while len > 0 {
                let count = usize::try_from(len).unwrap_or(usize::MAX).min(part.len());
                self.waiting.read_exact_at(&mut part[..count], at)?;
                self.to.write_all(&part[..count])?;
                at += count as u64;
                len -= count as u64;
            }
            Ok(())
        };
        copy().map_err(|source| OutputError::Stream { name: self.name.clone(), source })
    }
}

/// Where a job's output goes.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A file that appears when it is complete.
    File(Output),
    /// What takes bytes in order.
    Stream(Stream),
}

impl Destination {
    /// Checks that `path` can be written; `-` is standard output.
    ///
    /// # Errors
    /// [`OutputError`]
    pub(crate) fn prepare(path: &Path, input: Option<Identity>, force: bool) -> Result<Self, OutputError> {
        if path == Path::new(STANDARD) {
            let failed = |source| OutputError::Stream { name: "standard output".into(), source };
            let to = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
            return Ok(Self::Stream(Stream::new("standard output".into(), to.into())?));
        }
        let is_stream = path.metadata().is_ok_and(|metadata| {
            let kind = metadata.file_type();
            kind.is_fifo() || kind.is_char_device()
        });
        if is_stream {
            return Ok(Self::Stream(Stream::open(path)?));
        }
        Output::prepare(path, input, force).map(Self::File)
    }

    /// The folder in which a file gets its name.
    #[must_use]
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::File(output) => Some(output.folder()),
            Self::Stream(_) => None,
        }
    }

    /// The file to write to.
    #[must_use]
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::File(output) => output.file(),
            Self::Stream(stream) => &stream.waiting,
        }
    }

    /// Every file that [`Self::finish`] works with.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        let to = match self {
            Self::File(_) => None,
            Self::Stream(stream) => Some(&stream.to),
        };
        [self.file()].into_iter().chain(to)
    }

    /// Puts the first `len` bytes in place. From here on signals end the process where they find it waiting.
    ///
    /// # Errors
    /// [`OutputError`]
    pub(crate) fn finish(self, len: u64, signals: &Signals) -> Result<(), OutputError> {
        match self {
            Self::File(output) => output.finish(len),
            Self::Stream(stream) => {
                let name = stream.name.clone();
                signals.let_through().map_err(|source| OutputError::Stream { name, source })?;
                stream.finish(len)
            }
        }
    }
}

/// Where the report goes: opened before the boot, when a bad place costs nothing yet and files can still be opened.
#[derive(Debug)]
pub(crate) enum ReportFile {
    /// A file that appears when it is complete.
    New(Output),
    /// A file, or whatever else the user has named, that is written in place.
    Existing {
        /// To write to. What it holds stays until then.
        file: File,
        /// It has a length.
        is_regular: bool,
    },
}

impl ReportFile {
    /// Makes sure that `path` can be written.
    ///
    /// # Errors
    /// The host's, or [`OutputError`].
    pub(crate) fn prepare(path: &Path, input: Identity) -> anyhow::Result<Self> {
        match File::options().write(true).open(path) {
            Ok(file) => {
                let metadata = file.metadata()?;
                let is_regular = metadata.is_file();
                if is_regular && Identity::of(&metadata) == input {
                    return Err(OutputError::SameFile(path.into()).into());
                }
                Ok(Self::Existing { file, is_regular })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Ok(Self::New(Output::prepare(path, Some(input), true)?))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The folder in which a new file gets its name.
    #[must_use]
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::New(output) => Some(output.folder()),
            Self::Existing { .. } => None,
        }
    }

    /// The file to write to.
    #[must_use]
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::New(output) => output.file(),
            Self::Existing { file, .. } => file,
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// The host's, or [`OutputError`].
    pub(crate) fn finish(self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::New(output) => {
                output.file().write_all(text.as_bytes())?;
                output.finish(text.len() as u64)?;
            }
            Self::Existing { mut file, is_regular } => {
                if is_regular {
                    file.set_len(0)?;
                }
                file.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The identity of a file that no output is.
    fn nothing() -> Identity {
        Identity::of(&Path::new("/").metadata().unwrap())
    }

    #[test]
    fn abandoned_output_leaves_nothing_and_finished_one_has_its_exact_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        drop(Output::prepare(&path, None, false).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let output = Output::prepare(&path, None, false).unwrap();
        output.file().write_all(b"abcdef").unwrap();
        output.finish(3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert!(matches!(Output::prepare(&path, None, false), Err(OutputError::Exists(_))));
        Output::prepare(&path, None, true).unwrap().finish(0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn report_replaces_what_was_there_only_when_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        drop(ReportFile::prepare(&path, nothing()).unwrap());
        assert!(!path.exists());
        ReportFile::prepare(&path, nothing()).unwrap().finish("first, long").unwrap();
        let second = ReportFile::prepare(&path, nothing()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first, long");
        second.finish("second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert!(ReportFile::prepare(dir.path(), nothing()).is_err());
        ReportFile::prepare(Path::new("/dev/null"), nothing()).unwrap().finish("third").unwrap();
    }

    #[test]
    fn unwritable_places_are_named_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        std::fs::write(&input, b"x").unwrap();
        let identity = Identity::of(&input.metadata().unwrap());
        let other_name = dir.path().join("link");
        std::fs::hard_link(&input, &other_name).unwrap();
        for name in [&input, &other_name] {
            assert!(matches!(Output::prepare(name, Some(identity), true), Err(OutputError::SameFile(_))));
            assert!(ReportFile::prepare(name, identity).unwrap_err().to_string().contains("same file"));
        }
        assert!(matches!(Output::prepare(dir.path(), Some(identity), true), Err(OutputError::NotAFile(_))));
        let missing = dir.path().join("no/such/out");
        let error = Output::prepare(&missing, Some(identity), false).unwrap_err();
        assert!(matches!(error, OutputError::Folder { .. }));
        let line = crate::exit::line(&error.into());
        assert!(
            !line.contains(crate::host::temporary::PREFIX) && line.matches("os error").count() == 1,
            "{line}"
        );
    }

    #[test]
    fn symbolic_link_is_kept_and_the_file_that_it_names_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let output = Output::prepare(&link, None, true).unwrap();
        output.file().write_all(b"new").unwrap();
        output.finish(3).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("file"));
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn named_pipe_with_a_reader_gets_everything_at_the_end_and_one_without_is_refused() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Destination::prepare(&path, None, false), Err(OutputError::Open { .. })));

        let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let destination = Destination::prepare(&path, None, false).unwrap();
        assert_eq!(destination.folder(), None);
        destination.file().write_all_at(b"0123456789", 0).unwrap();
        let signals = Signals::block().unwrap();
        destination.finish(6, &signals).unwrap();
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        assert_eq!(all, "012345");
    }
}
