//! The output file: checked before the boot, written under a temporary name, renamed when it is complete.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

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
    temporary: NamedTempFile,
    force: bool,
}

impl Output {
    /// Checks that `path` can be written and makes the temporary file beside it.
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
        let temporary = tempfile::Builder::new()
            .prefix(".warpvmm-")
            .suffix(".tmp")
            .tempfile_in(dir)
            .map_err(|source| OutputError::Folder { dir: dir.into(), source })?;
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
        self.temporary.as_file()
    }

    /// Cuts the file to `len` bytes, makes it durable and gives it its name, with the permissions that a new file
    /// of this process has.
    ///
    /// # Errors
    /// [`OutputError`]; the temporary file is then gone.
    pub(crate) fn finish(self, len: u64) -> Result<(), OutputError> {
        let Self { path, temporary, force } = self;
        let failed = |source| OutputError::Persist { path: path.clone(), source };
        temporary.as_file().set_len(len).map_err(failed)?;
        set_default_permissions(temporary.as_file()).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        let done = if force { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        done.map(drop).map_err(|e| failed(e.error))
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
        assert!(matches!(Output::prepare(&missing, &input, false), Err(OutputError::Folder { .. })));
    }
}
