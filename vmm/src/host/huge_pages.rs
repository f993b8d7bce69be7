//! Huge pages of the host for guest RAM.
//!
//! A guest walks its own tables and the host walks its own beneath them: with 4 KiB pages of the host, a program that jumps
//! about in tens of megabytes misses the host's TLB at nearly every step. Linux gives 2 MiB pages to mappings that
//! ask for them (`madvise(2)`, `MADV_HUGEPAGE`), where `/sys/kernel/mm/transparent_hugepage/enabled` lets it. What
//! the guest has not touched still takes no memory; what it has touched is taken 2 MiB at a time.

use hw::Ram;
use nix::sys::mman::{MmapAdvise, madvise};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// Asks for huge pages for all of `ram`. A host without them gives ordinary ones.
pub fn ask(ram: &Ram) {
    for region in ram.guest_memory().iter() {
        let Ok(bytes) = usize::try_from(region.len()) else { continue };
        let Some(start) =
            region.get_host_address(MemoryRegionAddress(0)).ok().and_then(std::ptr::NonNull::new)
        else {
            continue;
        };
        // SAFETY: the range is one mapping of the host, and this advice changes none of its bytes.
        let answer = unsafe { madvise(start.cast(), bytes, MmapAdvise::MADV_HUGEPAGE) };
        if let Err(reason) = answer {
            log::debug!("no huge pages for guest RAM: {reason}");
        }
    }
}
