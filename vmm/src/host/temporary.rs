//! Files that get their name when they are complete.
//!
//! A file without a name (`O_TMPFILE`) is gone with its process, however that ends. Where the file system has none, a
//! temporary name stands in, which stays behind if the process is killed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use nix::fcntl::{AT_FDCWD, AtFlags};
use tempfile::NamedTempFile;

/// The file before it has its name.
#[derive(Debug)]
pub(crate) enum Temporary {
    Nameless(File),
    Named(NamedTempFile),
}

/// Whether a file has a name meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has none.
    Nameless,
    /// It has a temporary one.
    Named,
}

/// How temporary names begin and end.
pub(crate) const PREFIX: &str = ".warpvmm-";
const SUFFIX: &str = ".tmp";

impl Temporary {
    /// In this folder, which is also looked at for whether it has nameless files.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
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

    /// In this folder, for nobody but its owner, and by no call but the one that makes it: the sandbox lets no other through.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn private(dir: &Path, kind: Kind) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        match kind {
            Kind::Nameless => Ok(Self::Nameless(options.custom_flags(libc::O_TMPFILE).open(dir)?)),
            Kind::Named => {
                let options = options.create_new(true);
                let make = |path: &Path| options.open(path);
                Ok(Self::Named(tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(dir, make)?))
            }
        }
    }

    /// Which kind it is.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Nameless(_) => Kind::Nameless,
            Self::Named(_) => Kind::Named,
        }
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Named(temporary) => temporary.as_file(),
        }
    }

    /// Makes a private file one with the permissions that a new file of this process has.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn make_ordinary(&self) -> io::Result<()> {
        if let Self::Named(temporary) = self { set_default_permissions(temporary.as_file()) } else { Ok(()) }
    }

    /// Gives the file its name, in the folder where it was made; with `force` it takes that of another one.
    ///
    /// # Errors
    /// The host's; the file is then gone.
    pub(crate) fn persist(self, path: &Path, force: bool) -> io::Result<()> {
        let file = match self {
            Self::Named(temporary) => {
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

/// The folder that a file is in.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Temporary files are private; others are under the process's umask.
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
    use std::io::Write;

    use super::*;

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
            temporary.make_ordinary().unwrap();
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
}
