//! From files to a guest that can be started: kernel image, initramfs, device tree, all in RAM.
//!
//! Linux's arm64 boot protocol (`Documentation/arch/arm64/booting.rst`). Absent: ACPI, UEFI.

pub mod fdt;
pub mod image;
pub mod load;
mod unpack;
