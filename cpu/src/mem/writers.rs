//! Which vCPUs may write to a page of RAM without anybody noticing.
//!
//! Before code is decoded from a page, those that have a fast write path to it must give it up. Most pages from
//! which code runs have none, so nobody needs to be asked.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use hw::{Pa, Ram};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

const PAGE_SHIFT: u32 = 12;

#[derive(Debug)]
struct Region {
    first: u64,
    pages: Box<[AtomicU64]>,
}

/// One word for each 4 KiB page of RAM: a bit for each vCPU, modulo 64.
#[derive(Debug)]
pub(crate) struct Writers {
    regions: Box<[Region]>,
}

/// The bit of a vCPU.
pub(crate) const fn bit_of(cpu: usize) -> u64 {
    1 << (cpu % 64)
}

impl Writers {
    /// No writers to any page of `ram`.
    pub(crate) fn new(ram: &Ram) -> Self {
        let regions = ram
            .guest_memory()
            .iter()
            .map(|region| Region {
                first: region.start_addr().raw_value(),
                pages: (0..region.len() >> PAGE_SHIFT).map(|_| AtomicU64::new(0)).collect(),
            })
            .collect();
        Self { regions }
    }

    fn word(&self, pa: Pa) -> Option<&AtomicU64> {
        self.regions.iter().find_map(|region| {
            let page = pa.0.checked_sub(region.first)? >> PAGE_SHIFT;
            region.pages.get(usize::try_from(page).ok()?)
        })
    }

    /// Notes that `cpu` is about to get a fast write path to the page of `pa`. It must look whether the page holds
    /// code after this, not before.
    pub(crate) fn add(&self, pa: Pa, cpu: usize) {
        if let Some(word) = self.word(pa)
            && word.load(Ordering::Relaxed) & bit_of(cpu) == 0
        {
            word.fetch_or(bit_of(cpu), Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }

    /// The vCPUs with a fast write path to the page of `pa`. To be asked after the page has been marked as code.
    pub(crate) fn of(&self, pa: Pa) -> u64 {
        fence(Ordering::SeqCst);
        self.word(pa).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    /// `cpu` has given up its fast write path to the page of `pa`.
    pub(crate) fn remove(&self, pa: Pa, cpu: usize) {
        if let Some(word) = self.word(pa) {
            word.fetch_and(!bit_of(cpu), Ordering::SeqCst);
        }
    }
}
