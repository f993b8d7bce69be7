//! Which 64-byte granules of RAM hold code that some vCPU has decoded.
//!
//! The rule that makes self-modifying code work: a decoder marks granules *before* it reads the bytes that it keeps,
//! and a writer looks at the marks *after* its bytes are in memory. Whichever comes second sees the other. A write
//! that hits marked granules clears the marks and names them, so that all vCPUs drop what they decoded from there.
//! Translated code of later tiers is marked in the same way.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use hw::{Pa, Ram};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// Log2 of the page size of the map.
const PAGE_SHIFT: u32 = hw::ram::CODE_PAGE_SHIFT;
const PAGE: u64 = 1 << PAGE_SHIFT;
/// Log2 of the bytes that one mark stands for: 64 marks to a page.
const GRANULE_SHIFT: u32 = PAGE_SHIFT - 6;

/// The pages of one region of RAM: a word of marks each.
#[derive(Debug)]
struct Region {
    first: u64,
    pages: Box<[AtomicU64]>,
}

/// The map of decoded code over all RAM.
#[derive(Debug)]
pub struct CodePages {
    ram: Arc<Ram>,
    regions: Box<[Region]>,
    /// Held while a page changes between "has code" and "has none", so that RAM's watch follows. A leaf.
    turning: Mutex<()>,
}

/// The granules of `len` bytes at `pa`, as far as they lie in its page: a bit for each.
pub(crate) fn granules(pa: u64, len: u64) -> u64 {
    marks(pa, pa.saturating_add(len))
}

/// The marks for `[pa, end)`, as far as they lie in the page of `pa`.
fn marks(pa: u64, end: u64) -> u64 {
    let page = pa & !(PAGE - 1);
    let first = (pa - page) >> GRANULE_SHIFT;
    let last = (end.min(page + PAGE) - 1 - page) >> GRANULE_SHIFT;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

impl CodePages {
    /// An empty map for `ram`.
    #[must_use]
    pub fn new(ram: &Arc<Ram>) -> Self {
        let regions = ram
            .guest_memory()
            .iter()
            .map(|region| Region {
                first: region.start_addr().raw_value(),
                pages: (0..region.len().div_ceil(PAGE)).map(|_| AtomicU64::new(0)).collect(),
            })
            .collect();
        Self { ram: Arc::clone(ram), regions, turning: Mutex::new(()) }
    }

    fn word(&self, pa: u64) -> Option<&AtomicU64> {
        self.regions.iter().find_map(|region| {
            let page = pa.checked_sub(region.first)? >> PAGE_SHIFT;
            region.pages.get(usize::try_from(page).ok()?)
        })
    }

    /// Whether the 4 KiB page of `pa` holds decoded code: stores to it must take the slow path and call
    /// [`Self::written`] after the bytes are in memory.
    #[must_use]
    pub fn is_code(&self, pa: Pa) -> bool {
        self.word(pa.0).is_some_and(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Whether any of `len` bytes at `pa`, within one page, are in granules that hold decoded code: [`Self::written`] then
    /// has something to do.
    #[must_use]
    pub(crate) fn is_code_at(&self, pa: Pa, len: u64) -> bool {
        let marks = marks(pa.0, pa.0.saturating_add(len));
        self.word(pa.0).is_some_and(|word| word.load(Ordering::SeqCst) & marks != 0)
    }

    /// Marks `len` bytes at `pa`, within one page, as decoded. True if the page had no code before: its fast write
    /// paths must end before its bytes are read.
    pub(crate) fn add(&self, pa: Pa, len: u64) -> bool {
        let Some(word) = self.word(pa.0) else { return false };
        let marks = marks(pa.0, pa.0.saturating_add(len));
        let turned = if word.load(Ordering::SeqCst) & marks == marks {
            false
        } else {
            let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
            let first = word.load(Ordering::SeqCst) == 0;
            if first {
                // Before the marks: another decoder that finds them reads the bytes at once, without the lock.
                self.ram.watch_code_page(pa);
            }
            word.fetch_or(marks, Ordering::SeqCst);
            first
        };
        fence(Ordering::SeqCst);
        turned
    }

    /// Clears marks of a page, and tells what there were before.
    fn clear(&self, word: &AtomicU64, marks: u64, page: Pa) -> u64 {
        let _turning = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let before = word.fetch_and(!marks, Ordering::SeqCst);
        if before != 0 && before & !marks == 0 {
            self.ram.unwatch_code_page(page);
        }
        before
    }

    /// `len` bytes at `pa` have been written. Calls `stale` with the page and granules whose code is now stale, if
    /// any, for each page touched: every vCPU must drop them before it goes past its next block border.
    pub fn written(&self, pa: Pa, len: u64, stale: &mut dyn FnMut(Pa, u64)) {
        // The writer's bytes come before the look at the marks.
        fence(Ordering::SeqCst);
        let end = pa.0.saturating_add(len);
        let mut at = pa.0;
        while at < end {
            let page = at & !(PAGE - 1);
            if let Some(word) = self.word(page) {
                let marks = marks(at, end);
                if word.load(Ordering::SeqCst) & marks != 0 {
                    let before = self.clear(word, marks, Pa(page));
                    if before & marks != 0 {
                        stale(Pa(page), before & marks);
                    }
                }
            }
            let Some(next) = page.checked_add(PAGE) else { break };
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;

    fn pages() -> (Arc<Ram>, CodePages) {
        let ram = Arc::new(Ram::new(&[(Pa(BASE), 0x10000)]).unwrap());
        let pages = CodePages::new(&ram);
        (ram, pages)
    }

    fn stale(pages: &CodePages, pa: u64, len: u64) -> Vec<(Pa, u64)> {
        let mut out = Vec::new();
        pages.written(Pa(pa), len, &mut |page, granules| out.push((page, granules)));
        out
    }

    #[test]
    fn write_beside_code_names_nothing_and_a_write_into_it_names_its_granules_once() {
        let (ram, pages) = pages();
        assert!(pages.add(Pa(BASE + 0x40), 0x44));
        assert!(!pages.add(Pa(BASE + 0x40), 4));
        assert!(pages.is_code(Pa(BASE + 0xff8)) && ram.is_code_page(Pa(BASE)));

        assert_eq!(stale(&pages, BASE + 0x38, 8), []);
        assert_eq!(stale(&pages, BASE + 0xc0, 8), []);
        assert_eq!(stale(&pages, BASE + 0x7c, 8), [(Pa(BASE), 0b110)]);
        assert_eq!(stale(&pages, BASE + 0x7c, 8), []);
        assert!(!pages.is_code(Pa(BASE)) && !ram.is_code_page(Pa(BASE)));
    }

    #[test]
    fn write_over_several_pages_names_each_page_with_code() {
        let (_ram, pages) = pages();
        pages.add(Pa(BASE + 0xfc0), 0x40);
        pages.add(Pa(BASE + 0x2000), 4);

        assert_eq!(stale(&pages, BASE, 0x3000), [(Pa(BASE), 1 << 63), (Pa(BASE + 0x2000), 1)]);
    }

    #[test]
    fn addresses_outside_ram_are_never_code() {
        let (_ram, pages) = pages();
        assert!(!pages.add(Pa(0), 4));
        assert!(!pages.is_code(Pa(u64::MAX)));
        assert_eq!(stale(&pages, u64::MAX - 3, 64), []);
        assert_eq!(stale(&pages, BASE + 0xfff8, 0x100), []);
    }
}
