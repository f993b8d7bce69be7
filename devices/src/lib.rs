//! Device models: interrupt controller, PCI, the accelerator, and the board's small devices.
//!
//! Models only: no KVM, no sockets, no files, no threads of their own, no wall clock. A device reaches the world
//! through the seams of `hw`. Devices never know an SMMU: they make DMA through a [`hw::DmaPort`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod dma_test;
mod gate;
pub mod gic;
pub mod hisi;
pub mod pci;
pub mod rtc;
pub mod uart;
pub mod virtio;
