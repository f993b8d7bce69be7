//! Guest RAM as a mapping of the host: in huge pages, from a save file, and zero again at power-on.
//!
//! With huge pages the host has one page fault for 2 MiB that the guest touches first, and not one for each 4 KiB. Linux gives
//! them to mappings that ask, where `/sys/kernel/mm/transparent_hugepage/enabled` lets it. What the guest has not touched
//! still takes no memory; what it has touched is taken 2 MiB at a time.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hw::Ram;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous};
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
/// If the host refuses it: address space in place of as much.
pub fn clear(ram: &Ram) {
    for (start, bytes) in regions(ram) {
        // A new mapping, and no advice: what was mapped from a file would be that file's again.
        // SAFETY: the range is one private mapping of ours, which another one replaces as if each of its bytes had been written:
        // guest memory is only reached by volatile and atomic accesses, and no reference to it is kept anywhere.
        unsafe { mmap_anonymous(Some(start.addr()), bytes, PROTECTION, FLAGS | MapFlags::MAP_FIXED) }
            .expect("address space in place of as much");
    }
    ask_for_huge_pages(ram);
}

/// Makes RAM, which is one region, what a file has from `at` on, a multiple of the host's pages. What is written stays in this machine.
/// Nobody has used RAM before.
///
/// # Errors
/// The host's.
///
/// # Panics
/// If RAM is no single region.
pub fn map_file(ram: &Ram, file: &File, at: u64) -> io::Result<()> {
    let regions = regions(ram);
    let [(start, bytes)] = regions[..] else { panic!("RAM is one region") };
    let at = at.try_into().map_err(io::Error::other)?;
    // SAFETY: as in `clear`. The file is mapped privately; whoever changes it meanwhile changes what the guest reads, and nothing else.
    unsafe { mmap(Some(start.addr()), bytes, PROTECTION, FLAGS | MapFlags::MAP_FIXED, file, at) }?;
    Ok(())
}

const PROTECTION: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);
const FLAGS: MapFlags = MapFlags::MAP_PRIVATE.union(MapFlags::MAP_NORESERVE);

/// The mappings: first byte and length.
fn regions(ram: &Ram) -> Vec<(NonNull<u8>, NonZeroUsize)> {
    let region = |region: &vm_memory::GuestRegionMmap<_>| {
        let bytes = usize::try_from(region.len()).ok().and_then(NonZeroUsize::new).expect("it is mapped");
        let start = region.get_host_address(MemoryRegionAddress(0)).ok().and_then(NonNull::new);
        (start.expect("a region has a first byte"), bytes)
    };
    ram.guest_memory().iter().map(region).collect()
}

fn advise(ram: &Ram, advice: MmapAdvise) -> nix::Result<()> {
    for (start, bytes) in regions(ram) {
        // SAFETY: the range is one private mapping of ours, and the advice leaves its bytes alone.
        unsafe { madvise(start.cast(), bytes.get(), advice) }?;
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
