//! HiSilicon accelerators: the queue manager they share, and the engines behind it.

#[cfg(test)]
mod bench;
pub mod qm;
pub mod zip;
