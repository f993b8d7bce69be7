//! virtio devices on PCI: the transport, and a block device behind it.
//!
//! Virtual I/O Device (VIRTIO) 1.3. Split rings come from `virtio-queue`, over guest memory that goes through the
//! device's DMA port (`memory`), so that rings and buffers are translated like those of any other device: which is
//! why VIRTIO_F_ACCESS_PLATFORM is not negotiable here. A notification on a vCPU thread only wakes the worker, and
//! the worker ([`VirtioPci::step`]) serves the queues. Rings that cannot be understood set DEVICE_NEEDS_RESET.
//! Deliberately absent: legacy and transitional devices, packed rings, the MMIO transport.

mod backend;
mod blk;
mod chain;
mod device;
mod front;
mod memory;
mod pci;
mod saved;
#[cfg(test)]
mod tests;
mod work;

pub use backend::BlockBackend;
pub use blk::Block;
pub use chain::{Buffers, Request};
pub use device::{Io, ServeError, VirtioDevice, feature};
pub use front::CommonCfg;
pub use pci::VirtioPci;
pub use pci::cap;
