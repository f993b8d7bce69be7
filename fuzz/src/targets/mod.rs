//! The targets.

mod control;
mod cpu;
mod dma_test;
mod fault_plan;
mod files;
mod gdb;
mod gic;
mod pci;
mod primecell;
mod save_file;
mod saved;
mod smmu;
mod transfer;
mod virtio_blk;
mod vmsa;
mod zip;

pub use control::control;
pub use cpu::{cpu_decode, cpu_run, cpu_translate};
pub use dma_test::dma_test;
pub use fault_plan::fault_plan;
pub use files::{device_tree, image, record};
pub use gdb::gdb;
pub use gic::gic;
pub use pci::pci;
pub use primecell::{rtc, uart};
pub use save_file::save_file;
pub use saved::saved;
pub use smmu::{ats, smmu};
pub use transfer::transfer;
pub use virtio_blk::virtio_blk;
pub use vmsa::vmsa;
pub use zip::zip;
