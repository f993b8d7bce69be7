//! The HiSilicon ZIP accelerator: a PCIe function that compresses and decompresses (deflate, zlib, gzip).
//!
//! There is no public manual: identity, registers and the request format are those that Linux 6.12 (`hisi_zip`) and the
//! user library UADK rely on, for the physical function of a Kunpeng 930-class device. The engine is [`flate2`]; what
//! it cannot do, stop inside a stream and give its state to the guest, is `inflate`. Deliberately absent: virtual
//! functions, LZ77 and LZ4, storage-integrity fields and ciphers, reset by ACPI.

mod checksum;
mod cores;
mod deflate;
mod engine;
mod inflate;
pub mod regs;
mod sqe;
mod stream;
#[cfg(test)]
mod tests;

pub use checksum::Format;
pub use engine::ZipEngine;

/// The accelerator's function.
pub type Zip = super::Function<ZipEngine>;
