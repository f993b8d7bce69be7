//! HiSilicon accelerators: the queue manager they share, and the engines behind it.

mod bank;
#[cfg(test)]
mod bench;
pub mod qm;
pub mod zip;
