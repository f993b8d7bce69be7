//! One table of the TLB: a direct-mapped part that translated code looks into, and a few entries behind it.
//!
//! A table serves the accesses of one exception level in one address space; which that is, is data ([`Space`]). What a
//! filled slot held before goes to the entries behind (victims), where the slow path looks before it walks: two buffers
//! that lie a multiple of the table's reach apart then cost a call for each change between them, and no walk.

use super::regions::Regions;
use super::{Entry, PAGE, PAGE_SHIFT, info};

/// Slots of the direct-mapped part of every table. Translated code masks addresses by a constant.
pub(crate) const SLOTS: usize = 4096;

/// Entries behind the direct-mapped part.
const VICTIMS: usize = 8;

/// Slots that a table remembers as filled: so many are cleared one by one, more by clearing all.
const REMEMBERED: usize = 1024;

/// Slots of translations that depend on the process or on PAN, beyond which a whole table counts as such.
const TRACKED: usize = 64;

/// Whose accesses a table serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Those of the regime's privileged level, in whatever address space is the present one.
    Privileged,
    /// Those of EL0 in the address space of one (ASID, TTBR0).
    User {
        /// The ASID.
        asid: u16,
        /// TTBR0 without its ASID.
        ttbr0: u64,
    },
    /// Nobody's: a table that never holds anything, or has not been given away.
    Nobody,
}

/// A tag that no access reaching slot `index` can match: its page belongs to another slot, and not to the next one either,
/// where the last byte of a crossing access lies.
pub(super) const fn no_tag(index: usize) -> u64 {
    ((index ^ (SLOTS / 2)) as u64) << PAGE_SHIFT
}

const fn invalid(index: usize) -> Entry {
    let tag = no_tag(index);
    Entry { tag_r: tag, tag_w: tag, addend: 0, info: 0 }
}

/// The index of an address in the direct-mapped part of any table.
#[inline(always)]
pub(super) const fn index_of(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize & (SLOTS - 1)
}

/// The books of one table. Its direct-mapped part is a slice of the array that all tables share, which is given to those
/// methods that change it.
pub(super) struct Table {
    pub(super) space: Space,
    /// When it was last chosen.
    pub(super) stamp: u64,
    /// It holds translations for every ASID, or of the upper half.
    pub(super) has_shared: bool,
    pub(super) regions: Regions,
    victims: [Entry; VICTIMS],
    /// The victim that the next one replaces.
    oldest: usize,
    /// Slots that may hold something, unless there are too many of them.
    filled: Vec<u16>,
    all_filled: bool,
    /// Slots whose translations end with the process or with PAN = 1, unless there are too many of them.
    tracked: Vec<u16>,
    all_tracked: bool,
}

impl Table {
    pub(super) fn new(space: Space) -> Self {
        Self {
            space,
            stamp: 0,
            has_shared: false,
            regions: Regions::default(),
            victims: [invalid(0); VICTIMS],
            oldest: 0,
            filled: Vec::new(),
            all_filled: false,
            tracked: Vec::new(),
            all_tracked: false,
        }
    }

    /// Nothing has been put in since it was cleared.
    pub(super) fn is_empty(&self) -> bool {
        self.filled.is_empty() && !self.all_filled
    }

    /// Makes entries of which all bits are zero hold nothing. In most slots they do; page 0 belongs to the first, and an
    /// access that begins in the last one can end there.
    pub(super) fn prepare(slots: &mut [Entry; SLOTS]) {
        slots[0] = invalid(0);
        slots[SLOTS - 1] = invalid(SLOTS - 1);
    }

    /// The entry that translates `va`, which is in its slot then: it may have been a victim.
    pub(super) fn find(&mut self, slots: &mut [Entry; SLOTS], va: u64) -> Option<Entry> {
        let (index, page) = (index_of(va), va & !(PAGE - 1));
        if slots[index].page() == Some(page) {
            return Some(slots[index]);
        }
        let victim = self.victims.iter_mut().find(|victim| victim.page() == Some(page))?;
        std::mem::swap(victim, &mut slots[index]);
        Some(slots[index])
    }

    /// Puts an entry into the slot of `va`. `ends_with_process`: see [`Self::clear_tracked`].
    pub(super) fn insert(
        &mut self,
        slots: &mut [Entry; SLOTS],
        va: u64,
        entry: Entry,
        ends_with_process: bool,
    ) {
        let index = index_of(va);
        let entry = Entry { info: entry.info | info::LISTED, ..entry };
        let old = std::mem::replace(&mut slots[index], entry);
        if old.info & info::LISTED == 0 {
            if self.filled.len() < REMEMBERED {
                self.filled.push(index as u16);
            } else {
                self.all_filled = true;
            }
        }
        if old.page().is_some() && old.page() != entry.page() {
            self.victims[self.oldest] = old;
            self.oldest = (self.oldest + 1) % VICTIMS;
        }
        if ends_with_process {
            if self.tracked.len() < TRACKED {
                self.tracked.push(index as u16);
            } else {
                self.all_tracked = true;
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, slots: &mut [Entry; SLOTS]) {
        if self.all_filled {
            for (index, entry) in slots.iter_mut().enumerate() {
                *entry = invalid(index);
            }
        } else {
            for &index in &self.filled {
                slots[usize::from(index)] = invalid(usize::from(index));
            }
        }
        self.filled.clear();
        self.all_filled = false;
        self.forget_victims();
        self.tracked.clear();
        self.all_tracked = false;
        self.has_shared = false;
        self.regions.clear();
    }

    fn forget_victims(&mut self) {
        self.victims = [invalid(0); VICTIMS];
    }

    /// Whether there is anything that ends with the process or with PAN = 1.
    pub(super) fn has_tracked(&self) -> bool {
        self.all_tracked || !self.tracked.is_empty()
    }

    /// Forgets what ends with the process or with PAN = 1.
    pub(super) fn clear_tracked(&mut self, slots: &mut [Entry; SLOTS]) {
        if self.all_tracked {
            self.clear(slots);
            return;
        }
        self.forget_victims();
        while let Some(index) = self.tracked.pop() {
            self.clear_slot(slots, usize::from(index));
        }
    }

    /// Forgets the pages from `va` on.
    pub(super) fn clear_pages(&mut self, slots: &mut [Entry; SLOTS], va: u64, pages: u64, wide: bool) {
        let last = va.saturating_add(pages.saturating_sub(1).saturating_mul(PAGE));
        if pages > SLOTS as u64 / 4 || self.regions.meet(va, last) {
            self.clear(slots);
            return;
        }
        for page in 0..pages {
            // The slot of a page, and its neighbours' where the page may be one of 16 or 64 KiB.
            let count = if wide { 16 } else { 1 };
            let first = va.wrapping_add(page * PAGE) & !(count * PAGE - 1);
            for neighbour in 0..count {
                // Whatever it maps: to clear too much is no fault, and a tag in the top byte hides nothing.
                self.clear_slot(slots, index_of(first.wrapping_add(neighbour * PAGE)));
            }
        }
    }

    /// Its place stays among the filled ones.
    fn clear_slot(&mut self, slots: &mut [Entry; SLOTS], index: usize) {
        slots[index] = Entry { info: slots[index].info & info::LISTED, ..invalid(index) };
        for victim in &mut self.victims {
            if victim.page().is_some_and(|page| index_of(page) == index) {
                *victim = invalid(0);
            }
        }
    }

    /// Forbids fast stores to a physical page, or to all.
    pub(super) fn protect(&mut self, slots: &mut [Entry; SLOTS], pa: Option<u64>) {
        let concerns = |entry: &Entry| {
            entry.info & info::VALID != 0 && pa.is_none_or(|pa| entry.info & info::PA == pa & info::PA)
        };
        for victim in &mut self.victims {
            if concerns(victim) {
                victim.tag_w = victim.no_tag();
            }
        }
        let mut protect = |index: usize| {
            if concerns(&slots[index]) {
                slots[index].tag_w = no_tag(index);
            }
        };
        if self.all_filled {
            (0..SLOTS).for_each(protect);
        } else {
            self.filled.iter().for_each(|&index| protect(usize::from(index)));
        }
    }
}

impl Entry {
    /// The virtual page that it translates, if any.
    pub(super) const fn page(&self) -> Option<u64> {
        let page = if self.info & info::DIRECT != 0 { self.tag_r } else { self.addend };
        if self.info & info::VALID == 0 { None } else { Some(page) }
    }

    /// [`no_tag`] for the slot that it belongs to.
    const fn no_tag(&self) -> u64 {
        match self.page() {
            Some(page) => no_tag(index_of(page)),
            None => self.tag_w,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: u64 = SLOTS as u64 * PAGE;

    fn slots() -> Box<[Entry; SLOTS]> {
        let mut slots = Box::new([Entry { tag_r: 0, tag_w: 0, addend: 0, info: 0 }; SLOTS]);
        Table::prepare(&mut slots);
        slots
    }

    fn entry(va: u64, pa: u64) -> Entry {
        Entry { tag_r: va, tag_w: va, addend: 0, info: pa | info::VALID | info::DIRECT }
    }

    #[test]
    fn pages_of_one_slot_are_all_found_until_there_are_more_than_victims() {
        let (mut table, mut slots) = (Table::new(Space::Privileged), slots());
        let pages: Vec<u64> = (0..=VICTIMS as u64 + 1).map(|n| 0x5000 + n * FAR).collect();
        for &va in &pages {
            table.insert(&mut slots, va, entry(va, va), false);
        }
        assert_eq!(table.find(&mut slots, pages[0]).map(|found| found.page()), None);
        for _ in 0..2 {
            for &va in &pages[1..] {
                assert_eq!(table.find(&mut slots, va + 8).and_then(|found| found.page()), Some(va));
                assert_eq!(slots[index_of(va)].tag_r, va, "translated code finds it there");
            }
        }
    }

    #[test]
    fn what_is_cleared_is_gone_from_slot_and_victims_whatever_was_put_where() {
        type Clear = fn(&mut Table, &mut [Entry; SLOTS]);
        let ways: [Clear; 4] = [
            |table, slots| table.clear(slots),
            |table, slots| table.clear_pages(slots, 0x5000, 1, false),
            |table, slots| table.clear_pages(slots, 0, 1, true),
            |table, slots| table.clear_tracked(slots),
        ];
        for clear in ways {
            let (mut table, mut slots) = (Table::new(Space::Privileged), slots());
            for va in [0x5000, 0x5000 + FAR, 0x5000 + 2 * FAR] {
                table.insert(&mut slots, va, entry(va, va), true);
            }
            clear(&mut table, &mut slots);
            for va in [0x5000, 0x5000 + FAR, 0x5000 + 2 * FAR] {
                assert!(table.find(&mut slots, va).is_none());
            }
        }
    }

    #[test]
    fn table_with_more_pages_than_it_remembers_is_cleared_as_a_whole() {
        let (mut table, mut slots) = (Table::new(Space::Privileged), slots());
        for page in 0..2 * REMEMBERED as u64 {
            table.insert(&mut slots, page * PAGE, entry(page * PAGE, 0), false);
        }
        table.clear(&mut slots);
        assert!(table.is_empty());
        assert!((0..2 * REMEMBERED as u64).all(|page| table.find(&mut slots, page * PAGE).is_none()));
    }

    #[test]
    fn protected_page_has_no_fast_store_in_slot_or_victims() {
        let (mut table, mut slots) = (Table::new(Space::Privileged), slots());
        for va in [0x5000, 0x5000 + FAR] {
            table.insert(&mut slots, va, entry(va, 0x8000), false);
        }
        table.insert(&mut slots, 0x6000, entry(0x6000, 0x9000), false);
        table.protect(&mut slots, Some(0x8123));
        for va in [0x5000, 0x5000 + FAR] {
            let found = table.find(&mut slots, va).unwrap();
            assert!(found.tag_r == va && found.tag_w != va);
        }
        assert_eq!(table.find(&mut slots, 0x6000).unwrap().tag_w, 0x6000);
        table.protect(&mut slots, None);
        assert_ne!(table.find(&mut slots, 0x6000).unwrap().tag_w, 0x6000);
    }

    #[test]
    fn entries_of_zeroes_match_no_access_to_their_slot() {
        let slots = slots();
        for (index, entry) in slots.iter().enumerate() {
            for va in [index as u64 * PAGE, (index as u64 * PAGE).wrapping_sub(FAR), u64::MAX] {
                if index_of(va) == index {
                    assert!(va ^ entry.tag_r > 0xfff && va.wrapping_add(7) ^ entry.tag_r > 0xfff, "{index}");
                }
            }
        }
    }
}
