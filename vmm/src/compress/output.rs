//! The output file: checked before the boot, written without a name, named when it is complete.
//!
//! A file without a name (`O_TMPFILE`) is gone with its process, however that ends. Where the file system has none, a
//! temporary name stands in, which stays behind if the process is killed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use nix::fcntl::{AT_FDCWD, AtFlags};
use tempfile::NamedTempFile;
use thiserror::Error;

/// The output cannot be written.
#[derive(Debug, Error)]
pub(crate) enum OutputError {
    /// It exists.
    #[error("{0:?} exists; use --force to replace it")]
    Exists(PathBuf),
    /// It names the input.
    #[error("input and output are the same file: {0:?}")]
    SameFile(PathBuf),
    /// It is a directory or a device.
    #[error("{0:?} is not a regular file")]
    NotAFile(PathBuf),
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

/// The file before it has its name.
#[derive(Debug)]
enum Temporary {
    Nameless(File),
    Named(NamedTempFile),
}

/// How temporary names begin and end.
const PREFIX: &str = ".warpvmm-";
const SUFFIX: &str = ".tmp";

impl Temporary {
    /// In this folder.
    fn new(dir: &Path) -> io::Result<Self> {
        if let Some(file) = Self::nameless(dir) {
            return Ok(Self::Nameless(file));
        }
        // By our own hand, so that an error says nothing of a name that nobody has asked for.
        let create =
            |path: &Path| File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
        Ok(Self::Named(tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(dir, create)?))
    }

    /// Without a name, where the file system has such files and `/proc` is there to name it by later. It has the
    /// permissions that a new file of this process has.
    fn nameless(dir: &Path) -> Option<File> {
        let mut options = File::options();
        options.read(true).write(true).mode(0o666).custom_flags(libc::O_TMPFILE);
        options.open(dir).ok().filter(|file| link_of(file).exists())
    }

    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Named(temporary) => temporary.as_file(),
        }
    }

    /// Gives the file its name, in the folder where it was made; with `force` it takes that of another one.
    fn persist(self, path: &Path, force: bool) -> io::Result<()> {
        let file = match self {
            Self::Named(temporary) => {
                set_default_permissions(temporary.as_file())?;
                let done = if force { temporary.persist(path) } else { temporary.persist_noclobber(path) };
                return done.map(drop).map_err(|e| e.error);
            }
            Self::Nameless(file) => file,
        };
        match link(&file, path) {
            Err(e) if force && e.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done,
        }
        // A link replaces nothing, a new name does.
        let name = temporary_link(&file, folder(path))?;
        std::fs::rename(&name, path).inspect_err(|_| drop(std::fs::remove_file(&name)))
    }
}

/// The name by which the kernel knows an open file.
fn link_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn link(file: &File, path: &Path) -> io::Result<()> {
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    Ok(nix::unistd::linkat(AT_FDCWD, &link_of(file), AT_FDCWD, path, flags)?)
}

/// Gives a file a name that nobody has.
fn temporary_link(file: &File, dir: &Path) -> io::Result<PathBuf> {
    const ATTEMPTS: u32 = 1000;
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..ATTEMPTS {
        let name = dir.join(format!("{PREFIX}{}-{number}{SUFFIX}", process::id()));
        match link(file, &name) {
            Ok(()) => return Ok(name),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => taken = e,
            Err(e) => return Err(e),
        }
    }
    Err(taken)
}

impl Output {
    /// Checks that `path` can be written and makes the file, in its folder and without its name.
    ///
    /// # Errors
    /// [`OutputError`]
    pub(crate) fn prepare(path: &Path, input: &Path, force: bool) -> Result<Self, OutputError> {
        if let Ok(metadata) = path.metadata() {
            if let (Ok(a), Ok(b)) = (path.canonicalize(), input.canonicalize())
                && a == b
            {
                return Err(OutputError::SameFile(path.into()));
            }
            if !metadata.is_file() {
                return Err(OutputError::NotAFile(path.into()));
            }
            if !force {
                return Err(OutputError::Exists(path.into()));
            }
        }
        let dir = folder(path);
        let temporary =
            Temporary::new(dir).map_err(|source| OutputError::Folder { dir: dir.into(), source })?;
        Ok(Self { path: path.into(), temporary, force })
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
        temporary.persist(&path, force).map_err(failed)
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
    pub(crate) fn prepare(path: &Path, input: &Path) -> anyhow::Result<Self> {
        match File::options().write(true).open(path) {
            Ok(file) => {
                let is_regular = file.metadata()?.is_file();
                Ok(Self::Existing { file, is_regular })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Ok(Self::New(Output::prepare(path, input, true)?))
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

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Temporary files are private; the output is an ordinary file under the process's umask.
fn set_default_permissions(file: &File) -> io::Result<()> {
    use nix::sys::stat::{Mode, umask};
    use std::os::unix::fs::PermissionsExt;
    // The mask can only be read by setting it. No other thread of ours makes files at this point.
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    file.set_permissions(PermissionsExt::from_mode(0o666 & !mask.bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abandoned_output_leaves_nothing_and_finished_one_has_its_exact_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        drop(Output::prepare(&path, Path::new("in"), false).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let output = Output::prepare(&path, Path::new("in"), false).unwrap();
        output.file().write_all(b"abcdef").unwrap();
        output.finish(3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert!(matches!(Output::prepare(&path, Path::new("in"), false), Err(OutputError::Exists(_))));
        Output::prepare(&path, Path::new("in"), true).unwrap().finish(0).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Both kinds of file, in this folder: not every file system has the first.
    fn both_kinds(dir: &Path) -> Vec<Temporary> {
        let named = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(dir).unwrap();
        let nameless = Temporary::nameless(dir).map(Temporary::Nameless);
        nameless.into_iter().chain([Temporary::Named(named)]).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn either_kind_of_file_gets_its_name_and_replaces_another_only_by_force() {
        let count = both_kinds(tempfile::tempdir().unwrap().path()).len();
        for kind in 0..count {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out");
            let write = |text: &str, force| {
                let temporary = both_kinds(dir.path()).swap_remove(kind);
                temporary.file().write_all(text.as_bytes()).unwrap();
                temporary.persist(&path, force)
            };
            write("first", false).unwrap();
            assert_eq!(write("second", false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&path).unwrap(), b"first");
            write("third", true).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"third");
            assert_eq!(names(dir.path()), ["out"]);
        }
    }

    #[test]
    fn both_kinds_of_file_have_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let usual = dir.path().join("usual");
        std::fs::write(&usual, b"").unwrap();
        for (temporary, name) in both_kinds(dir.path()).into_iter().zip(["first", "second"]) {
            let path = dir.path().join(name);
            temporary.persist(&path, false).unwrap();
            assert_eq!(mode(&path), mode(&usual), "{name}");
        }
    }

    #[test]
    fn file_without_a_name_takes_a_temporary_one_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let Some(file) = Temporary::nameless(dir.path()) else { return };
        assert_eq!(names(dir.path()), [""; 0]);
        let first = temporary_link(&file, dir.path()).unwrap();
        let second = temporary_link(&file, dir.path()).unwrap();
        assert_ne!(first, second);
        assert_eq!(names(dir.path()).len(), 2);
    }

    #[test]
    fn report_replaces_what_was_there_only_when_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report");
        drop(ReportFile::prepare(&path, Path::new("in")).unwrap());
        assert!(!path.exists());
        ReportFile::prepare(&path, Path::new("in")).unwrap().finish("first, long").unwrap();
        let second = ReportFile::prepare(&path, Path::new("in")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first, long");
        second.finish("second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert!(ReportFile::prepare(dir.path(), Path::new("in")).is_err());
        ReportFile::prepare(Path::new("/dev/null"), Path::new("in")).unwrap().finish("third").unwrap();
    }

    #[test]
    fn unwritable_places_are_named_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in");
        std::fs::write(&input, b"x").unwrap();
        assert!(matches!(Output::prepare(&input, &input, true), Err(OutputError::SameFile(_))));
        assert!(matches!(Output::prepare(dir.path(), &input, true), Err(OutputError::NotAFile(_))));
        let missing = dir.path().join("no/such/out");
        let error = Output::prepare(&missing, &input, false).unwrap_err();
        assert!(matches!(error, OutputError::Folder { .. }));
        let line = crate::exit::line(&error.into());
        assert!(!line.contains(PREFIX) && line.matches("os error").count() == 1, "{line}");
    }
}
