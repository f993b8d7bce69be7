//! The `warpvmm` program as a library: machine assembly, boot, vCPU engines, event loop, command line.
//!
//! The only crate that knows threads, files, the terminal and the wall clock. `docs/architecture.md` has the map.

pub mod accelerator;
pub mod board;
pub mod boot;
pub mod bus;
pub mod cli;
pub mod compress;
pub mod console;
pub mod control;
pub mod crash;
pub mod engine;
pub mod exit;
pub mod faults;
pub mod gdb;
mod hints;
pub mod host;
pub mod machine;
mod report;
pub mod restore;
pub mod run;
pub mod sandbox;
pub mod save;
pub mod size;
pub mod supervise;
pub mod trace;
pub mod workers;
