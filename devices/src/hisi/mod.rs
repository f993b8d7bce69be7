//! HiSilicon accelerators: the queue manager they share, and the engines behind it.

mod bank;
pub mod qm;
pub mod zip;
