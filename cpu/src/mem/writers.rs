//! Which vCPUs may write to a page of RAM without anybody noticing.
//!
//! Before code is decoded from a page, those that have a fast write path to it must give it up. Most pages from
//! which code runs have none, so nobody needs to be asked.
//!
//! Each vCPU has a bit of its own for each page, which it alone sets and clears: a bit that two shared would be
//! cleared by the first that gives up its path, while the other goes on writing. A bit may be set although the
//! path is gone, which costs a needless request; a path without its bit would be a fault. For each vCPU by itself the
//! protocol is: the writer sets its bit, then looks whether the page holds code; the decoder marks the page as code,
//! then looks at the bits. With a fence between the two steps on either side, at least one of them sees the other.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use hw::{Pa, Ram};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

const PAGE_SHIFT: u32 = 12;

#[derive(Debug)]
struct Region {
    first: u64,
    /// [`Writers::words`] words for each page.
    bits: Box<[AtomicU64]>,
}

/// For each 4 KiB page of RAM a bit for each vCPU.
#[derive(Debug)]
pub(crate) struct Writers {
    /// Words for each page.
    words: usize,
    regions: Box<[Region]>,
}

/// The bit of a vCPU in its word.
const fn bit_of(cpu: usize) -> u64 {
    1 << (cpu % 64)
}

impl Writers {
    /// No writers to any page of `ram`, among `cpus` vCPUs.
    pub(crate) fn new(ram: &Ram, cpus: usize) -> Self {
        let words = cpus.div_ceil(64);
        let regions = ram
            .guest_memory()
            .iter()
            .map(|region| Region {
                first: region.start_addr().raw_value(),
                bits: (0..(region.len() >> PAGE_SHIFT) * words as u64).map(|_| AtomicU64::new(0)).collect(),
            })
            .collect();
        Self { words, regions }
    }

    /// The words of the page of `pa`; none if it is not RAM.
    fn page(&self, pa: Pa) -> &[AtomicU64] {
        let found = self.regions.iter().find_map(|region| {
            let page = usize::try_from(pa.0.checked_sub(region.first)? >> PAGE_SHIFT).ok()?;
            let first = page.checked_mul(self.words)?;
            region.bits.get(first..first.checked_add(self.words)?)
        });
        found.unwrap_or(&[])
    }

    /// Notes that `cpu` is about to get a fast write path to the page of `pa`. It must look whether the page holds
    /// code after this, not before.
    pub(crate) fn add(&self, pa: Pa, cpu: usize) {
        // Only the vCPU itself changes its bit, so it knows it without an order.
        if let Some(word) = self.page(pa).get(cpu / 64)
            && word.load(Ordering::Relaxed) & bit_of(cpu) == 0
        {
            word.fetch_or(bit_of(cpu), Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }

    /// The vCPUs with a fast write path to the page of `pa`. To be asked after the page has been marked as code.
    pub(crate) fn of(&self, pa: Pa) -> impl Iterator<Item = usize> {
        fence(Ordering::SeqCst);
        self.page(pa).iter().enumerate().flat_map(|(index, word)| {
            let bits = word.load(Ordering::SeqCst);
            (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| 64 * index + bit)
        })
    }

    /// `cpu` has given up its fast write path to the page of `pa`.
    pub(crate) fn remove(&self, pa: Pa, cpu: usize) {
        if let Some(word) = self.page(pa).get(cpu / 64) {
            word.fetch_and(!bit_of(cpu), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;

    #[test]
    fn each_of_many_vcpus_is_a_writer_by_itself() {
        let ram = Ram::new(&[(Pa(BASE), 0x4000)]).unwrap();
        for cpus in [1, 64, 65, 123, 200] {
            let writers = Writers::new(&ram, cpus);
            let of = |page: u64| writers.of(Pa(BASE + 0x1000 * page + 0x123)).collect::<Vec<_>>();
            for cpu in 0..cpus {
                writers.add(Pa(BASE + 0x1ff8), cpu);
            }
            assert_eq!(of(1), (0..cpus).collect::<Vec<_>>());
            assert_eq!((of(0), of(2)), (vec![], vec![]));
            for cpu in 0..cpus - 1 {
                writers.remove(Pa(BASE + 0x1000), cpu);
                assert_eq!(of(1), (cpu + 1..cpus).collect::<Vec<_>>(), "{cpus} vCPUs");
            }
        }
    }

    #[test]
    fn page_outside_ram_has_no_writers() {
        let ram = Ram::new(&[(Pa(BASE), 0x4000)]).unwrap();
        let writers = Writers::new(&ram, 66);
        for pa in [0, BASE - 1, BASE + 0x4000, u64::MAX] {
            writers.add(Pa(pa), 65);
            assert_eq!(writers.of(Pa(pa)).count(), 0);
        }
    }
}
