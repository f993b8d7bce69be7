//! Save files: a whole machine on disk. `docs/save-files.md` has the format.
//!
//! [`mod@format`] is the frame with its lengths and checksums, [`state`] what is told of the machine beside RAM, `ram` the two forms of
//! RAM, `target` the file on its way to its name. Deliberately absent: what the models' states mean, which the models know.

pub mod format;
mod ram;
pub mod state;
mod target;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hw::Ram;

use crate::exit::Failed;
use crate::host::ram as host_ram;
pub use format::{FormatError, RamForm, Source};
use format::{Header, checksum};
pub use ram::Stretch;
use state::Saved;
pub use target::{Begun, Target};

/// Writes a save file into an empty file, and says how many bytes it has. RAM stands still.
///
/// # Errors
/// The host's.
pub fn write(saved: &Saved, ram: &Ram, stretch: Stretch, form: RamForm, file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let state = saved.to_bytes()?;
    file.write_all_at(&state, format::STATE_AT)?;
    let ram_at = Header::ram_at(state.len() as u64);
    let written = ram::write(ram, stretch, form, file, ram_at)?;
    let table_at = ram_at + written.bytes;
    file.write_all_at(&written.table, table_at)?;
    let len = table_at + written.table.len() as u64;
    // Without RAM that is not zero, the file ends before it.
    file.set_len(len)?;
    let header = Header {
        form,
        state_bytes: state.len() as u64,
        ram_bytes: written.bytes,
        table_bytes: written.table.len() as u64,
        state_checksum: checksum(&state),
        table_checksum: checksum(&written.table),
    };
    header.write(file)?;
    Ok(len)
}

/// A save file that has been looked through: its frame and its state are right.
#[derive(Debug)]
pub struct SaveFile<S: ?Sized = File> {
    header: Header,
    saved: Saved,
    source: Box<S>,
    /// For messages.
    name: PathBuf,
}

impl SaveFile {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// A line for the user.
    pub fn open(path: &Path) -> Result<Self, Failed> {
        let failed = |why: &dyn std::fmt::Display| Failed::new(format!("save file {path:?} {why}"));
        let cannot = |e: io::Error| failed(&format_args!("cannot be opened: {e}"));
        // Before it is opened: a named pipe would wait for its other end.
        if !path.metadata().map_err(cannot)?.is_file() {
            return Err(failed(&"is no regular file"));
        }
        let file = File::open(path).map_err(cannot)?;
        let file = Self::of(Box::new(file)).map_err(|e| failed(&e))?;
        Ok(Self { name: path.to_owned(), ..file })
    }

    /// A line for the user about this file: `why` goes on from its name.
    #[must_use]
    pub fn failed(&self, why: &dyn std::fmt::Display) -> Failed {
        Failed::new(format!("save file {:?} {why}", self.name))
    }

    /// Its name.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.name
    }

    /// Puts its RAM into a machine's, which is zero: by a mapping of the file if it has the plain form.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn take_ram(&self, ram: &Ram, stretch: Stretch) -> Result<(), FormatError> {
        if self.header.form == RamForm::Plain {
            ram::check_plain(&self.header, stretch)?;
            return Ok(host_ram::map_file(ram, &self.source, Header::ram_at(self.header.state_bytes))?);
        }
        self.read_ram(ram, stretch)
    }
}

impl<S: Source + ?Sized> SaveFile<S> {
    /// Looks through a file.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn of(source: Box<S>) -> Result<Self, FormatError> {
        let header = Header::read(&*source)?;
        let saved = Saved::from_bytes(&header.state(&*source)?)?;
        Ok(Self { header, saved, source, name: PathBuf::new() })
    }

    /// What it tells of the machine beside RAM.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Copies its RAM into a machine's, which is zero.
    ///
    /// # Errors
    /// [`FormatError`]
    pub fn read_ram(&self, ram: &Ram, stretch: Stretch) -> Result<(), FormatError> {
        ram::read(&*self.source, &self.header, ram, stretch)
    }
}
