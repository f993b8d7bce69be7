//! What the machine takes from the host: time, alarms, files, the terminal.

pub mod clock;
pub mod disk;
pub mod image_format;
pub mod logger;
pub mod perf_map;
pub mod ram;
pub mod random;
pub mod signals;
pub mod socket;
pub(crate) mod temporary;
pub mod terminal;
