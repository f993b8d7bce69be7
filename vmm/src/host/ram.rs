//! Guest RAM as a mapping of the host: in huge pages, and zero again at power-on.
//!
//! With huge pages the host has one page fault for 2 MiB that the guest touches first, and not one for each 4 KiB. Linux gives
//! them to mappings that ask, where `/sys/kernel/mm/transparent_hugepage/enabled` lets it. What the guest has not touched
//! still takes no memory; what it has touched is taken 2 MiB at a time.

use hw::Ram;
use nix::sys::mman::{MmapAdvise, madvise};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// Asks for huge pages for all of `ram`. A host without them gives ordinary ones.
pub fn ask_for_huge_pages(ram: &Ram) {
    // Changes no byte, and stays with the mapping.
    if let Err(reason) = advise(ram, MmapAdvise::MADV_HUGEPAGE) {
        log::debug!("no huge pages for guest RAM: {reason}");
    }
}

/// Makes all of `ram` zero, and gives it back to the host. Nobody uses it meanwhile, and whoever has kept anything of its
/// contents forgets it, for no watch sees this.
///
/// # Panics
/// If the host refuses it, of memory that it has given without a file and without a lock.
pub fn clear(ram: &Ram) {
    advise(ram, MmapAdvise::MADV_DONTNEED).expect("anonymous memory");
}

fn advise(ram: &Ram, advice: MmapAdvise) -> nix::Result<()> {
    for region in ram.guest_memory().iter() {
        let bytes = usize::try_from(region.len()).expect("it is mapped");
        let start = region.get_host_address(MemoryRegionAddress(0)).ok().and_then(std::ptr::NonNull::new);
        let start = start.expect("a region has a first byte");
        // SAFETY: the range is one private mapping without a file. Of the two pieces of advice, one leaves its bytes alone;
        // after the other they read as zero (madvise(2)), which is as if each had been written: guest memory is only
        // reached by volatile and atomic accesses.
        unsafe { madvise(start.cast(), bytes, advice) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::Pa;

    #[test]
    fn cleared_ram_is_zero_everywhere_and_takes_no_memory_of_the_host() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let line = status.lines().find(|line| line.starts_with("Rss:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
        };
        const BYTES: u64 = 256 << 20;
        let ram = Ram::new(&[(Pa(0x4000_0000), BYTES / 2), (Pa(0x8000_0000), BYTES / 2)]).unwrap();
        for base in [0x4000_0000, 0x8000_0000] {
            for at in (base..base + BYTES / 2).step_by(4096) {
                ram.store_u64(Pa(at), at).unwrap();
            }
        }
        let full = resident();
        clear(&ram);
        assert!(full - resident() > BYTES * 9 / 10);
        for at in [0x4000_0000, 0x47ff_f000, 0x8000_0000, 0x87ff_f000] {
            assert_eq!(ram.load_u64(Pa(at)).unwrap(), 0);
        }
    }
}
