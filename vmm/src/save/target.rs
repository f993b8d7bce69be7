//! Where a save goes: a file that has its name only when it is complete.
//!
//! A name that is taken is taken over only from another save file. Whoever saves again and again under one name has the last complete
//! one there at any time.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::format::{MAGIC, RamForm};
use crate::exit::Failed;
use crate::host::temporary::{Kind, Temporary, folder};

/// The name of saves to come, which has been looked at.
#[derive(Clone, Debug)]
pub struct Target {
    path: PathBuf,
    form: RamForm,
    kind: Kind,
}

/// A file that is still to be written and named.
#[derive(Debug)]
pub struct Begun {
    temporary: Temporary,
    path: PathBuf,
}

impl Target {
    /// Reads `FILE` or `FILE,ram=compressed|plain`. A comma that no such option follows belongs to the name.
    ///
    /// # Errors
    /// A line for the user: there is no such form of RAM.
    pub fn parse(text: &str) -> Result<(PathBuf, RamForm), String> {
        let Some((path, form)) = text.rsplit_once(",ram=") else {
            return Ok((text.into(), RamForm::default()));
        };
        let form = match form {
            "compressed" => RamForm::Compressed,
            "plain" => RamForm::Plain,
            other => return Err(format!("there is no form {other:?} of RAM, only compressed and plain")),
        };
        Ok((path.into(), form))
    }

    /// Looks whether saves can get this name, and how, by making a file.
    ///
    /// # Errors
    /// A line for the user.
    pub fn prepare(path: &Path, form: RamForm) -> Result<Self, Failed> {
        let mut place = path.to_path_buf();
        match path.metadata() {
            Ok(metadata) if !metadata.is_file() => {
                return Err(Failed::new(format!("cannot save to {path:?}: it is no regular file")));
            }
            Ok(_) => {
                let failed = |e: io::Error| Failed::new(format!("cannot save to {path:?}: {e}"));
                if !is_save_file(path).map_err(failed)? {
                    let why =
                        "exists and is no save file, and is not overwritten: give another name, or remove it";
                    return Err(Failed::new(format!("cannot save to {path:?}: it {why}")));
                }
                // Of a symbolic link, the file that it names is replaced, not the link.
                place = path.canonicalize().map_err(failed)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failed::new(format!("cannot save to {path:?}: {error}"))),
        }
        let dir = folder(&place);
        let probe = Temporary::new(dir).map_err(|e| {
            Failed::new(format!("cannot save to {path:?}: its folder {dir:?} takes no file: {e}"))
        })?;
        Ok(Self { path: place, form, kind: probe.kind() })
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder in which files are made and named.
    #[must_use]
    pub fn folder(&self) -> &Path {
        folder(&self.path)
    }

    /// How RAM is to be kept.
    #[must_use]
    pub fn form(&self) -> RamForm {
        self.form
    }

    /// Makes a file for a save.
    ///
    /// # Errors
    /// The host's.
    pub fn begin(&self) -> io::Result<Begun> {
        Ok(Begun { temporary: Temporary::private(self.folder(), self.kind)?, path: self.path.clone() })
    }
}

impl Begun {
    /// The file to write to.
    #[must_use]
    pub fn file(&self) -> &File {
        self.temporary.file()
    }

    /// Makes it durable and gives it its name, in place of an older save.
    ///
    /// # Errors
    /// The host's; the file is then gone, and what had the name has it still.
    pub fn finish(self) -> io::Result<()> {
        self.temporary.file().sync_data()?;
        self.temporary.persist(&self.path, true)
    }
}

/// Whether a file begins as a save file does. An empty one, which somebody has made to reserve the name, is as good.
fn is_save_file(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    Ok(start.is_empty() || start == MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_of_ram_follows_the_name_which_may_have_commas() {
        assert_eq!(Target::parse("a,b.save"), Ok(("a,b.save".into(), RamForm::Compressed)));
        assert_eq!(Target::parse("x,ram=plain"), Ok(("x".into(), RamForm::Plain)));
        assert_eq!(Target::parse("x,ram=compressed"), Ok(("x".into(), RamForm::Compressed)));
        assert!(Target::parse("x,ram=gzip").unwrap_err().contains("only compressed and plain"));
    }

    #[test]
    fn only_save_files_are_replaced_and_only_by_complete_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.save");
        let prepare = |path: &Path| Target::prepare(path, RamForm::Plain);
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let target = prepare(&path).unwrap();
        assert_eq!(names(), 0);
        for text in [&MAGIC[..], b"\x89WVSAVE\nmore"] {
            use std::io::Write;
            let begun = target.begin().unwrap();
            begun.file().write_all(text).unwrap();
            drop(target.begin().unwrap());
            begun.finish().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), text);
            assert_eq!(names(), 1);
        }
        prepare(&path).unwrap();

        let other = folder.path().join("precious");
        std::fs::write(&other, "text").unwrap();
        assert!(prepare(&other).unwrap_err().message.contains("is no save file"));
        assert!(prepare(folder.path()).unwrap_err().message.contains("no regular file"));
        assert!(prepare(&folder.path().join("no folder/x")).unwrap_err().message.contains("takes no file"));
    }
}
