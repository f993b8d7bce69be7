//! What a save file tells beside RAM: how the machine is made, guest time, and the state of each model.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::format::FormatError;
use crate::accelerator::Accelerator;
use crate::board::map;
use crate::board::numa::MAX_NODES;
use crate::cli::{Device, EngineChoice, TierChoice};
use crate::size::check_memory;

/// Most drives that are believed. A bus has room for fewer.
const MOST_DRIVES: usize = 32;

/// Guest time that no machine reaches: 146 years.
const MOST_GUEST_NS: u64 = 1 << 62;

/// A machine, but for its RAM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The version of the program that wrote it.
    pub program: String,
    /// How the machine is made.
    pub options: Options,
    /// What it boots from when it is reset.
    pub boot: BootSource,
    /// Its drives, in order.
    pub drives: Vec<SavedDrive>,
    /// What goes wrong on purpose.
    pub faults: Option<SavedFaults>,
    /// Guest time, in nanoseconds.
    pub guest_ns: u64,
    /// How often it had been reset.
    pub resets: u64,
    /// The engine's own state, with that of its interrupt controller.
    pub engine: Value,
    /// Of each vCPU.
    pub cpus: Vec<Value>,
    /// Of each other model, by its name.
    pub models: Map<String, Value>,
}

/// How a machine is made: what decides of its board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// vCPUs.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory_bytes: u64,
    /// NUMA nodes.
    pub numa: Option<u32>,
    /// The engine that ran it.
    #[serde(with = "by_name")]
    pub engine: EngineChoice,
    /// How the built-in engine runs guest code.
    #[serde(with = "by_name")]
    pub tier: TierChoice,
    /// Accelerators, in PCI order.
    pub accels: Vec<Accelerator>,
    /// Further devices, in PCI order.
    #[serde(with = "by_names")]
    pub devices: Vec<Device>,
}

/// A file and how it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileMark {
    /// Its absolute name; none if that cannot be told in UTF-8, or if it was no file with a name.
    pub path: Option<String>,
    /// Its length.
    pub bytes: u64,
    /// When it was last written to: seconds and nanoseconds. None of a device, which does not tell.
    pub modified: Option<(i64, i64)>,
}

/// What a machine boots from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// The kernel.
    pub kernel: FileMark,
    /// The initramfs.
    pub initrd: Option<FileMark>,
    /// The kernel's command line.
    pub append: String,
}

/// A drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedDrive {
    /// Its file.
    pub file: FileMark,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// It was called raw, whatever it looks like.
    pub is_raw: bool,
}

/// A fault plan and further rules, and how far they have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFaults {
    /// The name of the plan's file, for messages.
    pub file: String,
    /// What was in it. Empty without a plan.
    pub text: String,
    /// Of each of its rules, the occasions that it has counted, and how often it has fired.
    pub seen: Vec<(u64, u64)>,
    /// Which of its rules have been disarmed, by their numbers: from 1, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disarmed: Vec<u32>,
    /// The rules that are not its own, in the order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<SavedRule>,
    /// The number of the next rule. One that is too small is as none.
    #[serde(default)]
    pub next: u32,
}

/// A rule that is not from a plan, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRule {
    /// Its number.
    pub id: u32,
    /// The rule in one line.
    pub rule: String,
    /// It has been taken back.
    pub disarmed: bool,
    /// It is asked before those that are not.
    pub urgent: bool,
    /// The occasions that it has counted, and how often it has fired.
    pub seen: (u64, u64),
}

impl FileMark {
    /// Of an open file. A device has no length of its own.
    ///
    /// # Errors
    /// The host's.
    pub fn of(path: &Path, file: &File, bytes: Option<u64>) -> io::Result<Self> {
        Ok(Self::by_metadata(path, &file.metadata()?, bytes))
    }

    fn by_metadata(path: &Path, metadata: &Metadata, bytes: Option<u64>) -> Self {
        let is_file = metadata.is_file();
        let path = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
        let bytes = bytes.unwrap_or(metadata.len());
        Self { path, bytes, modified: is_file.then(|| (metadata.mtime(), metadata.mtime_nsec())) }
    }

    /// How another file differs from this one, if it does.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if other.bytes != self.bytes {
            return Some(format!("it has {} bytes now, and had {}", other.bytes, self.bytes));
        }
        (other.modified != self.modified).then(|| "it has been written to since".to_owned())
    }
}

impl Saved {
    /// The JSON of a state.
    ///
    /// # Errors
    /// If there is no JSON for it, or too much.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        if bytes.len() as u64 > super::format::MOST_STATE_BYTES {
            return Err(io::Error::other(format!("the machine's state has {} bytes, too much", bytes.len())));
        }
        Ok(bytes)
    }

    /// Reads it back. What it says of the machine is within the bounds that the command line has; states of models are checked by the
    /// models.
    ///
    /// # Errors
    /// [`FormatError`]
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let saved: Self = serde_json::from_slice(bytes)
            .map_err(|e| FormatError::form(format!("its state is none: {e}")))?;
        saved.check().map_err(FormatError::Form)?;
        Ok(saved)
    }

    fn check(&self) -> Result<(), String> {
        let Options { cpus, memory_bytes, numa, accels, devices, .. } = &self.options;
        if !(1..=map::MAX_CPUS).contains(cpus) {
            return Err(format!("it says that its machine has {cpus} vCPUs"));
        }
        check_memory(*memory_bytes).map_err(|why| format!("its machine's memory {why}"))?;
        if numa.is_some_and(|nodes| !(1..=MAX_NODES).contains(&nodes)) {
            return Err("its machine has nodes that none can have".to_owned());
        }
        if self.guest_ns > MOST_GUEST_NS {
            return Err("its guest time is that of no machine".to_owned());
        }
        if self.cpus.len() != *cpus as usize {
            return Err(format!("it has states of {} vCPUs, and its machine has {cpus}", self.cpus.len()));
        }
        if self.drives.len() > MOST_DRIVES || accels.len() > 1024 || devices.len() > MOST_DRIVES {
            return Err("its machine has more devices than fit into one".to_owned());
        }
        Ok(())
    }
}

/// A choice of the command line by the name that it has there.
mod by_name {
    use clap::ValueEnum;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn name<T: ValueEnum>(choice: &T) -> String {
        choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(super) fn choice<T: ValueEnum>(name: &str) -> Result<T, String> {
        T::from_str(name, false).map_err(|_| format!("{name:?} is not known here"))
    }

    pub(super) fn serialize<T: ValueEnum, S: Serializer>(choice: &T, to: S) -> Result<S::Ok, S::Error> {
        name(choice).serialize(to)
    }

    pub(super) fn deserialize<'de, T: ValueEnum, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        choice(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Several of them.
mod by_names {
    use clap::ValueEnum;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::by_name::{choice, name};

    pub(super) fn serialize<T: ValueEnum, S: Serializer>(choices: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(choices.iter().map(name))
    }

    pub(super) fn deserialize<'de, T: ValueEnum, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names.iter().map(|name| choice(name).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn some() -> Value {
        let mark = json!({ "path": "/k", "bytes": 1, "modified": [1, 2] });
        json!({
            "program": "0.1.0",
            "options": { "cpus": 2, "memory_bytes": 64 << 20, "numa": null, "engine": "soft", "tier": "auto",
                "accels": [{ "kind": "zip", "translation": "ats" }], "devices": ["dma-test"] },
            "boot": { "kernel": mark, "initrd": null, "append": "" },
            "drives": [],
            "faults": null,
            "guest_ns": 7,
            "resets": 1,
            "engine": null,
            "cpus": [null, null],
            "models": {},
        })
    }

    fn read(value: &Value) -> Result<Saved, String> {
        Saved::from_bytes(value.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn state_comes_back_as_it_was_written() {
        let saved = read(&some()).unwrap();
        assert_eq!(saved.options.devices, [Device::DmaTest]);
        assert_eq!(serde_json::from_slice::<Value>(&saved.to_bytes().unwrap()).unwrap(), some());
    }

    #[test]
    fn what_no_machine_can_be_is_refused_with_what_it_is() {
        for (pointer, value, expected) in [
            ("/options/cpus", json!(0), "0 vCPUs"),
            ("/options/cpus", json!(124), "124 vCPUs"),
            ("/options/cpus", json!(3), "states of 2 vCPUs"),
            ("/options/memory_bytes", json!(u64::MAX), "out of range"),
            ("/options/memory_bytes", json!((64 << 20) + 4096), "multiple of 2M"),
            ("/options/numa", json!(9), "nodes"),
            ("/options/engine", json!("magic"), "not known here"),
            ("/options/devices", json!(["toaster"]), "not known here"),
            ("/guest_ns", json!(u64::MAX), "guest time"),
            ("/models", json!(1), "its state is none"),
        ] {
            let mut state = some();
            *state.pointer_mut(pointer).unwrap() = value;
            let refused = read(&state).unwrap_err();
            assert!(refused.contains(expected), "{pointer}: {refused}");
        }
        let mut more = some();
        more["surprise"] = json!(1);
        assert!(read(&more).unwrap_err().contains("surprise"));
        assert!(Saved::from_bytes(&[b'['; 100_000]).unwrap_err().to_string().contains("its state is none"));
    }
}
