//! The machine as a save file: what it is made of, where its saves go, and how one is written while everything stands still.

use std::fs::File;
use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::board::Board;
use crate::host::disk::FileDisk;
use crate::save::state::{BootSource, Options, Saved, SavedDrive};
use crate::save::{self, Begun, RamForm, Target};

/// What is saved of a machine beside what its board has.
pub(super) struct Saving {
    pub(super) options: Options,
    pub(super) boot: BootSource,
    pub(super) drives: Vec<Arc<FileDisk>>,
    /// Where saves go that the user has asked for on the command line.
    pub(super) target: Option<Target>,
}

/// Where a save goes.
#[derive(Debug)]
pub enum SaveTo {
    /// To the file that the command line names.
    Target,
    /// To a file that somebody else has opened, and will name.
    File(File, RamForm),
}

/// A save that has been written, and has to get its name when the machine goes on.
pub(super) struct Written {
    begun: Option<Begun>,
    bytes: u64,
    guest_ns: u64,
}

impl Written {
    /// Makes it durable and gives it its name, if that is ours to do. Says what there is.
    pub(super) fn finish(self) -> io::Result<Value> {
        let Self { begun, bytes, guest_ns } = self;
        begun.map_or(Ok(()), Begun::finish)?;
        Ok(json!({ "bytes": bytes, "guest_ns": guest_ns }))
    }
}

impl Saving {
    /// Writes a machine, of which everything stands still.
    pub(super) fn write(
        &self,
        to: &SaveTo,
        board: &Board,
        cpus: Vec<Value>,
        resets: u64,
    ) -> io::Result<Written> {
        let saved = Saved {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            options: self.options.clone(),
            boot: self.boot.clone(),
            drives: self.drives.iter().map(|drive| drive.save()).collect::<io::Result<Vec<SavedDrive>>>()?,
            faults: board.save_faults(),
            guest_ns: board.now_ns(),
            resets,
            engine: board.engine().save(),
            cpus,
            models: board.save_models(),
        };
        let write = |file: &File, form| save::write(&saved, board.ram(), board.ram_stretch(), form, file);
        let (begun, bytes) = match (to, &self.target) {
            (SaveTo::File(file, form), _) => {
                // A pipe would keep the machine waiting.
                if !file.metadata()?.is_file() {
                    return Err(io::Error::other("it is no regular file"));
                }
                file.set_len(0)?;
                (None, write(file, *form)?)
            }
            (SaveTo::Target, Some(target)) => {
                let begun = target.begin()?;
                let bytes = write(begun.file(), target.form())?;
                (Some(begun), bytes)
            }
            (SaveTo::Target, None) => return Err(io::Error::other("no file was named")),
        };
        Ok(Written { begun, bytes, guest_ns: saved.guest_ns })
    }
}
