//! Places kernel, initramfs and device tree in RAM.

use hw::{Pa, Ram};
use thiserror::Error;

use crate::board::map::RAM_BASE;
use crate::boot::image::Image;

const MIB: u64 = 1 << 20;
/// The device tree is at the start of RAM, in 2 MiB of its own.
pub const FDT_ADDR: u64 = RAM_BASE;
const FDT_BYTES: u64 = 2 * MIB;
/// Kernel and initramfs lie in one window of this size (booting.rst asks for 32 GiB, aligned to 1 GiB).
const ALIGN: u64 = 2 * MIB;

/// Something does not fit into RAM.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{what} needs {need} bytes at {base:#x}, but RAM ends at {end:#x}; try --memory {hint_mib}M")]
pub struct TooBig {
    /// Kernel or initramfs.
    pub what: &'static str,
    /// Its size in bytes.
    pub need: u64,
    /// Where it would start.
    pub base: u64,
    /// Where RAM ends.
    pub end: u64,
    /// RAM that would do, in MiB.
    pub hint_mib: u64,
}

/// Where things ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The kernel's entry point: its first byte.
    pub entry: Pa,
    /// First and one past the last byte of the initramfs.
    pub initrd: Option<(u64, u64)>,
}

fn must_fit(what: &'static str, base: u64, need: u64, ram_bytes: u64) -> Result<u64, TooBig> {
    let end = RAM_BASE + ram_bytes;
    match base.checked_add(need) {
        Some(last) if last <= end => Ok(last),
        _ => {
            let total = base.saturating_sub(RAM_BASE).saturating_add(need);
            // What fits exactly is no use to a kernel that wants to allocate.
            let hint_mib = total.div_ceil(MIB).saturating_add(64).next_multiple_of(64);
            Err(TooBig { what, need, base, end, hint_mib })
        }
    }
}

/// Where things will be, from sizes alone: checked before anything is loaded.
///
/// # Errors
/// [`TooBig`]
pub fn place(image: &Image, initrd_bytes: Option<u64>, ram_bytes: u64) -> Result<Placement, TooBig> {
    let kernel = RAM_BASE + FDT_BYTES + image.text_offset % ALIGN;
    let kernel_end = must_fit("the kernel", kernel, image.image_size, ram_bytes)?;
    let initrd = match initrd_bytes {
        None => None,
        Some(bytes) => {
            let base = kernel_end.next_multiple_of(ALIGN);
            Some((base, must_fit("the initrd", base, bytes, ram_bytes)?))
        }
    };
    Ok(Placement { entry: Pa(kernel), initrd })
}

/// Copies everything to its place.
///
/// # Panics
/// If `placement` is not from [`place`] for this RAM: a guest has not run yet.
pub fn load(ram: &Ram, placement: &Placement, image: &Image, initrd: Option<&[u8]>, fdt: &[u8]) {
    assert!(fdt.len() as u64 <= FDT_BYTES, "our own device tree is some ten KiB");
    let fits = "placement was checked against this RAM";
    ram.write(placement.entry, &image.bytes).expect(fits);
    if let (Some(bytes), Some((base, _))) = (initrd, placement.initrd) {
        ram.write(Pa(base), bytes).expect(fits);
    }
    ram.write(Pa(FDT_ADDR), fdt).expect(fits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image { bytes: vec![1; 100], text_offset: 0, image_size: 20 * MIB, page_shift: Some(12) }
    }

    #[test]
    fn initrd_follows_the_kernel_and_both_are_2_mib_aligned() {
        let placement = place(&image(), Some(5000), 64 * MIB).unwrap();
        assert_eq!(placement.entry, Pa(0x4020_0000));
        assert_eq!(placement.initrd, Some((0x4160_0000, 0x4160_0000 + 5000)));
    }

    #[test]
    fn initrd_larger_than_ram_names_the_memory_that_would_do() {
        let error = place(&image(), Some(100 * MIB), 64 * MIB).unwrap_err();
        assert_eq!(error.what, "the initrd");
        assert_eq!(error.hint_mib, 192);
        assert!(place(&image(), Some(100 * MIB), error.hint_mib * MIB).is_ok());
        assert_eq!(place(&image(), None, 16 * MIB).unwrap_err().what, "the kernel");
        assert!(place(&image(), Some(u64::MAX), 64 * MIB).is_err());
    }
}
