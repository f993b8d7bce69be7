//! Which 64-byte granules of RAM hold code that some vCPU has decoded.

use hw::{Pa, Ram};

/// The map of decoded code over all RAM.
#[derive(Debug)]
pub struct CodePages {}

impl CodePages {
    /// An empty map for `ram`.
    #[must_use]
    pub fn new(_ram: &Ram) -> Self {
        Self {}
    }

    /// Whether the 4 KiB page of `pa` holds decoded code: stores to it must take the slow path and call
    /// [`Self::written`] after the bytes are in memory.
    #[must_use]
    pub fn is_code(&self, _pa: Pa) -> bool {
        false
    }

    /// `len` bytes at `pa` have been written. Returns the page and granules whose code is now stale, if any, for each
    /// page touched (at most two for a store): every vCPU must `drop_code` them before it goes past its next block
    /// border.
    pub fn written(&self, _pa: Pa, _len: u64, _stale: &mut dyn FnMut(Pa, u64)) {}
}
