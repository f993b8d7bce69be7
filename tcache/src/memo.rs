//! What a thread remembers of its latest translations: found without a look at the caches that it shares with others.
//!
//! An entry is good for the age in which it was made, so any invalidation makes all of them stale at once. Entries belong
//! to a thread's own place beside its count of accesses ([`Access::own`](crate::Access::own)), and are written by that
//! thread alone. A thread that makes no accesses has none. Each is for a page of 4 KiB, whatever the size of the mapping.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE_SHIFT: u32 = 12;

/// As many as pages in 4 MiB.
const ENTRIES: usize = 1024;

/// Bits of an entry that mean what its user wants.
const FLAGS: u64 = 0x3f;

#[derive(Debug, Default)]
#[repr(align(32))] // in one line of a processor's cache
struct Entry {
    age: AtomicU64,
    who: AtomicU64,
    /// Input page.
    page: AtomicU64,
    /// Output page; log2 of the size of the whole mapping in bits \[11:6\]; flags in bits \[5:0\].
    word: AtomicU64,
}

/// A thread's latest translations.
#[derive(Debug, Default)]
pub struct Memo(OnceLock<Box<[Entry]>>);

/// Where an address goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address at the other side.
    pub pa: u64,
    /// Bytes from there on that go the same way; above zero.
    pub len: u64,
    /// Log2 of the bytes of the aligned range around it that does.
    pub size_log2: u32,
}

/// What is remembered of one address space in one age, for what asks for some flag.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    entries: &'a [Entry],
    age: u64,
    who: u64,
    flag: u64,
    start: u64,
}

impl View<'_> {
    #[inline]
    fn word(&self, address: u64) -> Option<u64> {
        let entry = self.entries.get(index(address, self.start))?;
        let word = entry.word.load(Ordering::Relaxed);
        // One comparison for three.
        let differs = entry.page.load(Ordering::Relaxed) ^ address >> PAGE_SHIFT
            | entry.age.load(Ordering::Relaxed) ^ self.age
            | entry.who.load(Ordering::Relaxed) ^ self.who;
        (differs == 0 && word & self.flag != 0).then_some(word)
    }

    /// Where an address goes, and no more.
    #[inline]
    #[must_use]
    pub fn pa(&self, address: u64) -> Option<u64> {
        self.word(address).map(|word| join(word, address))
    }

    /// Where an address goes, and how many bytes from there on, at most `most`, are remembered to lie side by side. They
    /// are looked up page by page, although a mapping may be larger: no look waits for the result of the one before.
    #[inline]
    #[must_use]
    pub fn run(&self, address: u64, most: u64) -> Option<(u64, u64)> {
        const PAGE: u64 = 1 << PAGE_SHIFT;
        let pa = self.pa(address)?;
        let mut len = PAGE - address % PAGE;
        while len < most && self.pa(address.wrapping_add(len)) == Some(pa.wrapping_add(len)) {
            len += PAGE;
        }
        Some((pa, if len < most { len } else { most }))
    }

    /// Where an address goes.
    #[inline]
    #[must_use]
    pub fn get(&self, address: u64) -> Option<Place> {
        self.word(address).map(|word| {
            let size_log2 = (word >> 6) as u32 & 0x3f;
            let size = 1 << size_log2;
            Place { pa: join(word, address), len: size - (address & (size - 1)), size_log2 }
        })
    }
}

impl Memo {
    /// What is remembered of the address space `who` from the present `age`, if `flag` is among its flags.
    #[inline]
    #[must_use]
    pub fn view(&self, age: u64, who: u64, flag: u64) -> Option<View<'_>> {
        Some(View { entries: self.0.get()?, age, who, flag: flag & FLAGS, start: start(who) })
    }

    /// Remembers where an address goes, as looked up from `age` on, with one flag at least. Flags of the same
    /// translation add up.
    pub fn put(&self, age: u64, who: u64, address: u64, place: &Place, flags: u64) {
        let entries = self.0.get_or_init(|| (0..ENTRIES).map(|_| Entry::default()).collect());
        let page = address >> PAGE_SHIFT;
        let Some(entry) = entries.get(index(address, start(who))) else { return };
        let mut word =
            place.pa & (u64::MAX << PAGE_SHIFT) | u64::from(place.size_log2 & 0x3f) << 6 | flags & FLAGS;
        let old = entry.word.load(Ordering::Relaxed);
        let is_same = entry.page.load(Ordering::Relaxed) == page
            && entry.age.load(Ordering::Relaxed) == age
            && entry.who.load(Ordering::Relaxed) == who
            && (old ^ word) & !FLAGS == 0;
        if is_same {
            word |= old;
        }
        entry.age.store(age, Ordering::Relaxed);
        entry.who.store(who, Ordering::Relaxed);
        entry.page.store(page, Ordering::Relaxed);
        entry.word.store(word, Ordering::Relaxed);
    }
}

#[inline]
const fn join(word: u64, address: u64) -> u64 {
    const OFFSET: u64 = (1 << PAGE_SHIFT) - 1;
    word & !OFFSET | address & OFFSET
}

/// Pages side by side have entries side by side, beginning in another place for each address space.
#[inline]
const fn index(address: u64, start: u64) -> usize {
    ((address >> PAGE_SHIFT) + start) as usize % ENTRIES
}

#[inline]
const fn start(who: u64) -> u64 {
    who.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const BLOCK: Place = Place { pa: 0x4020_3000, len: 0x1f_d000, size_log2: 21 };

    #[test]
    fn entry_is_good_for_its_age_its_address_space_and_its_flags_alone() {
        let memo = Memo::default();
        assert!(memo.view(0, 0, 1).is_none(), "nothing was ever remembered");
        memo.put(7, 5, 0x3000, &BLOCK, 1);
        let get = |age, who, flag, address| memo.view(age, who, flag).and_then(|view| view.get(address));
        assert_eq!(get(7, 5, 1, 0x3008), Some(Place { pa: 0x4020_3008, len: 0x1f_cff8, size_log2: 21 }));
        assert_eq!(get(8, 5, 1, 0x3008), None);
        assert_eq!(get(7, 6, 1, 0x3008), None);
        assert_eq!(get(7, 5, 2, 0x3008), None);
        assert_eq!(get(7, 5, 1, 0x4008), None);
    }

    #[test]
    fn run_ends_where_pages_do_not_lie_side_by_side_any_more() {
        let memo = Memo::default();
        for (page, pa) in [(1, 0x5000), (2, 0x6000), (3, 0x7000), (4, 0x9000)] {
            memo.put(0, 1, page << 12, &Place { pa, len: 0x1000, size_log2: 12 }, 1);
        }
        let run = |address, most| memo.view(0, 1, 1).and_then(|view| view.run(address, most));
        assert_eq!(run(0x1800, u64::MAX), Some((0x5800, 0x2800)));
        assert_eq!(run(0x1800, 0x900), Some((0x5800, 0x900)));
        assert_eq!(run(0x1800, 8), Some((0x5800, 8)));
        assert_eq!(run(0x4ff8, 0x1000), Some((0x9ff8, 8)));
        assert_eq!(run(0x5000, 1), None);
    }

    #[test]
    fn flags_of_one_translation_add_up_and_those_of_another_do_not() {
        let memo = Memo::default();
        let has = |flag| memo.view(7, 5, flag).and_then(|view| view.pa(0x3000)).is_some();
        memo.put(7, 5, 0x3000, &BLOCK, 1);
        memo.put(7, 5, 0x3000, &BLOCK, 2);
        assert!(has(1) && has(2));
        memo.put(7, 5, 0x3000, &Place { pa: 0x5000, len: 0x1000, size_log2: 12 }, 2);
        assert!(!has(1) && has(2));
    }

    #[test]
    fn empty_entries_are_no_translations_of_page_zero() {
        let memo = Memo::default();
        memo.put(0, 1, 0x1000, &BLOCK, 1);
        assert_eq!(memo.view(0, 0, 0x3f).and_then(|view| view.get(0)), None);
    }
}
