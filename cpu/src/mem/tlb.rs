//! The software TLB: what a vCPU has translated, in the form that its loads and stores test inline.
//!
//! One table for EL1, and several for EL0, each bound to one (ASID, TTBR0) and reused least-recently-used first,
//! so that a process switch moves an index and clears nothing. A table is direct-mapped on the 4 KiB page number,
//! whatever granule the guest uses; an entry serves only accesses that may go straight to host memory. Everything
//! else (MMIO, pages with decoded code, refused accesses) misses and takes the slow path.
//!
//! Invalidation follows Arm ARM (DDI 0487) D8.16. Blocks are remembered as address ranges: an invalidation inside
//! one clears the whole table, because any slot may hold a piece of it.

use vmsa::{Half, Permissions};

/// Log2 of the page size that the tables work with.
pub(crate) const PAGE_SHIFT: u32 = 12;

/// Bytes of a page of the tables.
pub(crate) const PAGE: u64 = 1 << PAGE_SHIFT;

/// Entries of the EL1 table.
pub(crate) const EL1_ENTRIES: usize = 1024;

/// Entries of each EL0 table.
pub(crate) const EL0_ENTRIES: usize = 1024;

/// Address spaces whose translations are kept.
const CONTEXTS: usize = 8;

/// Entries of the table that never holds anything: the EL0 table while no context has been chosen. As many as an EL0
/// table has, because translated code masks addresses by a constant.
const EMPTY_ENTRIES: usize = EL0_ENTRIES;

/// Slots of the EL1 table that depend on the process or on PAN, beyond which the whole table counts as such.
const TRACKED: usize = 64;

/// Address ranges of blocks that a table remembers.
const REGIONS: usize = 8;

/// One translation, 32 bytes. An access of `size` bytes at `va` may go to host address `va + addend` if
/// `(va + size - 1) ^ tag <= 0xfff`: the last byte is tested in the first byte's slot, which also catches accesses
/// that leave the page.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Entry {
    /// Virtual page for reads, or a page that this slot can't hold.
    pub(crate) tag_r: u64,
    /// Virtual page for writes, likewise.
    pub(crate) tag_w: u64,
    /// Host address minus virtual address. For an entry that is not direct: the virtual page.
    pub(crate) addend: u64,
    /// Physical page and [`info`] bits.
    pub(crate) info: u64,
}

/// Low bits of [`Entry::info`].
pub(crate) mod info {
    /// The six permissions.
    pub(crate) const PERMISSIONS: u64 = 0x3f;
    /// Device memory: unaligned accesses fault.
    pub(crate) const DEVICE: u64 = 1 << 6;
    /// Belongs to one ASID.
    pub(crate) const NOT_GLOBAL: u64 = 1 << 7;
    /// The entry holds a translation.
    pub(crate) const VALID: u64 = 1 << 8;
    /// The page is RAM and `addend` leads to it.
    pub(crate) const DIRECT: u64 = 1 << 9;
}

/// A page's translation, as the slow path uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Physical address of the 4 KiB page.
    pub(crate) pa: u64,
    /// Who may do what.
    pub(crate) permissions: Permissions,
    /// Device memory.
    pub(crate) device: bool,
    /// Belongs to one ASID.
    pub(crate) not_global: bool,
    /// Log2 of the size of the block or page that the tables map.
    pub(crate) size_log2: u8,
    /// The memory attributes of MAIR_EL1, and SH. Only from a walk: the TLB does not keep them.
    pub(crate) attributes: u8,
    /// SH\[1:0\], likewise.
    pub(crate) shareability: u8,
}

/// An address as a TLBI instruction names it: bits \[63:56\], which may hold a tag that translation ignores (TCR_EL1.TBI),
/// as copies of bit 55 (C5.5). Whatever an invalidation is compared with must be in this form. Where the top byte is
/// not ignored, addresses of any other form have no translation.
pub(crate) const fn untagged(va: u64) -> u64 {
    ((va << 8) as i64 >> 8) as u64
}

/// A tag that no access reaching slot `index` of `entries` can match: its page belongs to another slot, and not to
/// the next one either, where the last byte of a crossing access lies.
const fn no_tag(index: usize, entries: usize) -> u64 {
    ((index ^ (entries / 2)) as u64) << PAGE_SHIFT
}

const fn invalid(index: usize, entries: usize) -> Entry {
    let tag = no_tag(index, entries);
    Entry { tag_r: tag, tag_w: tag, addend: 0, info: 0 }
}

/// Where a table lies in the array of all entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    base: u32,
    mask: u32,
}

impl Table {
    const EL1: Self = Self { base: 0, mask: EL1_ENTRIES as u32 - 1 };
    const EMPTY: Self =
        Self { base: (EL1_ENTRIES + CONTEXTS * EL0_ENTRIES) as u32, mask: EMPTY_ENTRIES as u32 - 1 };

    const fn context(index: usize) -> Self {
        Self { base: (EL1_ENTRIES + index * EL0_ENTRIES) as u32, mask: EL0_ENTRIES as u32 - 1 }
    }

    /// The slot of an address in the array of all entries. Always inside it.
    #[inline(always)]
    const fn slot(self, va: u64) -> usize {
        self.base as usize + ((va >> PAGE_SHIFT) as u32 & self.mask) as usize
    }

    const fn entries(self) -> usize {
        self.mask as usize + 1
    }

    fn range(self) -> std::ops::Range<usize> {
        self.base as usize..self.base as usize + self.entries()
    }
}

const ALL_ENTRIES: usize = EL1_ENTRIES + CONTEXTS * EL0_ENTRIES + EMPTY_ENTRIES;

/// Ranges of virtual addresses that blocks (more than a page) have mapped in a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regions {
    ranges: [(u64, u64); REGIONS],
    used: usize,
}

impl Regions {
    /// Adds the block of `1 << size_log2` bytes around `va`, whose tag does not count.
    pub(crate) fn add(&mut self, va: u64, size_log2: u8) {
        let va = untagged(va);
        let size = 1u64.checked_shl(u32::from(size_log2)).unwrap_or(0);
        let first = va & !size.wrapping_sub(1);
        let last = first.wrapping_add(size.wrapping_sub(1));
        let known = &mut self.ranges[..self.used];
        if known.iter().any(|&(lo, hi)| lo <= first && last <= hi) {
            return;
        }
        // Blocks of one mapping lie side by side and make one range.
        if let Some(range) =
            known.iter_mut().find(|(lo, hi)| first <= hi.saturating_add(1) && last.saturating_add(1) >= *lo)
        {
            *range = (range.0.min(first), range.1.max(last));
        } else if self.used < REGIONS {
            self.ranges[self.used] = (first, last);
            self.used += 1;
        } else {
            // No room: the nearest range grows over the gap, which costs only needless clearing.
            let gap = |&(lo, hi): &(u64, u64)| if hi < first { first - hi } else { lo - last };
            if let Some(range) = known.iter_mut().min_by_key(|range| gap(range)) {
                *range = (range.0.min(first), range.1.max(last));
            }
        }
    }

    /// Whether a block may map something between these addresses.
    #[must_use]
    pub(crate) fn meet(&self, first: u64, last: u64) -> bool {
        self.ranges[..self.used].iter().any(|&(lo, hi)| lo <= last && first <= hi)
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }
}

/// One address space of EL0.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    bound: bool,
    asid: u16,
    ttbr0: u64,
    /// When it was last chosen.
    stamp: u64,
    /// Nothing has been put in since it was cleared.
    empty: bool,
    /// It holds translations for every ASID, or of the upper half.
    has_shared: bool,
    regions: Regions,
}

/// The EL1 entries that end with the process or with PAN = 1.
#[derive(Clone, Debug, Default)]
struct Tracked {
    slots: Vec<u32>,
    overflowed: bool,
}

/// What a TLBI instruction names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalidation {
    /// Everything of EL1&0.
    All,
    /// All entries of one ASID, except global ones.
    Asid(u16),
    /// A number of 4 KiB pages: entries of this ASID (of every ASID, if none) and global ones.
    Pages {
        /// An address in the first page.
        va: u64,
        /// How many.
        pages: u64,
        /// The ASID.
        asid: Option<u16>,
    },
}

/// What one instruction of translated code remembers of its last page: an access of `size` bytes at `va` may go to host
/// address `va + addend` if `va - tag < limit`. 32 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Site {
    /// [`Entry::tag_r`] or [`Entry::tag_w`], as the instruction needs.
    pub(crate) tag: u64,
    /// [`Entry::addend`].
    pub(crate) addend: u64,
    /// A page, or 0 for a site that remembers nothing: then no address passes.
    pub(crate) limit: u64,
}

/// Sites of a vCPU.
pub(crate) const SITES: usize = 1024;

/// All tables of one vCPU.
pub(crate) struct Tlb {
    /// Filled by translated code from entries of the tables, and forgotten whenever anything but an addition happens to
    /// those.
    pub(crate) sites: [Site; SITES],
    /// Not 0 if any site may remember something.
    pub(crate) sites_filled: u32,
    entries: Box<[Entry; ALL_ENTRIES]>,
    /// The first entry of `current` and of `el0`, for translated code.
    pub(crate) current_start: *const Entry,
    pub(crate) el0_start: *const Entry,
    /// Table of the present exception level.
    current: Table,
    /// EL0's table, which LDTR and STTR use from EL1; empty until a miss has chosen a context.
    el0: Table,
    /// What `el0` is, while it is hidden.
    hidden_el0: Option<Table>,
    context: Option<usize>,
    contexts: [Space; CONTEXTS],
    clock: u64,
    el1_regions: Regions,
    tracked: Tracked,
    /// Pages of 16 or 64 KiB have been seen: the guest uses such a granule.
    has_wide_pages: bool,
}

// SAFETY: the two pointers lead into `entries`, which belongs to this value.
unsafe impl Send for Tlb {}

impl Default for Tlb {
    fn default() -> Self {
        Self::new()
    }
}

impl Tlb {
    /// Tables that hold nothing.
    #[must_use]
    pub(crate) fn new() -> Self {
        let blank = vec![Entry { tag_r: 0, tag_w: 0, addend: 0, info: 0 }; ALL_ENTRIES].into_boxed_slice();
        let entries = blank.try_into().unwrap_or_else(|_| unreachable!("the vector has that length"));
        let mut tlb = Self {
            sites: [Site::default(); SITES],
            sites_filled: 0,
            entries,
            current_start: std::ptr::null(),
            el0_start: std::ptr::null(),
            current: Table::EL1,
            el0: Table::EMPTY,
            hidden_el0: None,
            context: None,
            contexts: [Space::default(); CONTEXTS],
            clock: 0,
            el1_regions: Regions::default(),
            tracked: Tracked::default(),
            has_wide_pages: false,
        };
        tlb.tables_changed();
        tlb.clear(Table::EL1);
        tlb.clear(Table::EMPTY);
        for index in 0..CONTEXTS {
            tlb.clear(Table::context(index));
        }
        tlb
    }

    /// The entry that would translate `va` at the present exception level.
    #[inline(always)]
    #[must_use]
    pub(crate) fn current(&self, va: u64) -> &Entry {
        self.entry(self.current.slot(va))
    }

    /// The entry that would translate `va` for EL0.
    #[inline(always)]
    #[must_use]
    pub(crate) fn el0(&self, va: u64) -> &Entry {
        self.entry(self.el0.slot(va))
    }

    #[inline(always)]
    fn entry(&self, slot: usize) -> &Entry {
        debug_assert!(slot < ALL_ENTRIES);
        // SAFETY: a slot is a table's base plus an index below its size (`Table::slot` masks it), and the only
        // tables are those whose constants lie inside the array.
        unsafe { self.entries.get_unchecked(slot) }
    }

    /// The slow path's view of a table entry: its page, if it is the translation of `va`.
    #[must_use]
    pub(crate) fn page(&self, el0: bool, va: u64) -> Option<(Page, Option<u64>)> {
        let entry = if el0 {
            self.entry(self.hidden_el0.unwrap_or(self.el0).slot(va))
        } else {
            self.entry(Table::EL1.slot(va))
        };
        let page = va & !(PAGE - 1);
        let direct = entry.info & info::DIRECT != 0;
        let tag = if direct { entry.tag_r } else { entry.addend };
        if entry.info & info::VALID == 0 || tag != page {
            return None;
        }
        let page = Page {
            pa: entry.info & 0x0000_ffff_ffff_f000,
            permissions: Permissions::from_bits((entry.info & info::PERMISSIONS) as u8),
            device: entry.info & info::DEVICE != 0,
            not_global: entry.info & info::NOT_GLOBAL != 0,
            size_log2: PAGE_SHIFT as u8,
            attributes: 0,
            shareability: 0,
        };
        Some((page, direct.then_some(entry.addend)))
    }

    /// Puts the translation of `va` into the table of EL0 or EL1. `host` is the host address of the page where the
    /// fast path may use it, and `writable` whether also for stores.
    pub(crate) fn insert(&mut self, el0: bool, va: u64, page: &Page, host: Option<u64>, writable: bool) {
        let table = if el0 { self.el0 } else { Table::EL1 };
        if table == Table::EMPTY {
            return;
        }
        let slot = table.slot(va);
        let tag = va & !(PAGE - 1);
        let no_tag = no_tag(slot - table.base as usize, table.entries());
        let mut bits = page.pa & 0x0000_ffff_ffff_f000 | u64::from(page.permissions.bits()) | info::VALID;
        if page.device {
            bits |= info::DEVICE;
        }
        if page.not_global {
            bits |= info::NOT_GLOBAL;
        }
        let is_block = u32::from(page.size_log2) > 16;
        self.has_wide_pages |= u32::from(page.size_log2) > PAGE_SHIFT && !is_block;
        self.entries[slot] = match host {
            Some(host) => Entry {
                tag_r: tag,
                tag_w: if writable { tag } else { no_tag },
                addend: host.wrapping_sub(tag),
                info: bits | info::DIRECT,
            },
            None => Entry { tag_r: no_tag, tag_w: no_tag, addend: tag, info: bits },
        };
        let low = Half::of(va) == Half::Low;
        if el0 {
            if let Some(context) = self.context.and_then(|index| self.contexts.get_mut(index)) {
                context.empty = false;
                context.has_shared |= !page.not_global || !low;
                if is_block {
                    context.regions.add(va, page.size_log2);
                }
            }
        } else {
            if is_block {
                self.el1_regions.add(va, page.size_log2);
            }
            if low || page.not_global || page.permissions.contains(Permissions::UR) {
                if self.tracked.slots.len() < TRACKED {
                    self.tracked.slots.push(slot as u32);
                } else {
                    self.tracked.overflowed = true;
                }
            }
        }
    }

    /// Uses EL0's or EL1's table from now on.
    #[inline]
    pub(crate) fn set_el0(&mut self, el0: bool) {
        self.current = if el0 { self.el0 } else { Table::EL1 };
        self.tables_changed();
    }

    /// `current` or `el0` has changed.
    #[inline]
    fn tables_changed(&mut self) {
        self.current_start = &raw const self.entries[self.current.base as usize];
        self.el0_start = &raw const self.entries[self.el0.base as usize];
    }

    /// Makes every look-up of a fast path miss, until [`Self::show`]; [`Self::page`] still finds what is there.
    pub(crate) fn hide(&mut self) {
        self.hidden_el0 = Some(self.el0);
        self.current = Table::EMPTY;
        self.el0 = Table::EMPTY;
        self.tables_changed();
    }

    /// Ends what [`Self::hide`] has begun.
    pub(crate) fn show(&mut self, at_el0: bool) {
        self.el0 = self.hidden_el0.take().unwrap_or(self.el0);
        self.set_el0(at_el0);
    }

    /// Translations may be gone, or the instructions that remember them: none remembers any.
    #[inline]
    pub(crate) fn forget_sites(&mut self) {
        if self.sites_filled != 0 {
            self.sites_filled = 0;
            for site in &mut self.sites {
                site.limit = 0;
            }
        }
    }

    /// The process has changed: EL0 has no table until [`Self::choose_context`], and what EL1 had of the old
    /// process is gone.
    pub(crate) fn leave_context(&mut self, at_el0: bool) {
        self.forget_sites();
        self.el0 = Table::EMPTY;
        self.context = None;
        self.set_el0(at_el0);
        self.drop_tracked();
    }

    /// Whether EL0 has a table.
    #[inline]
    #[must_use]
    pub(crate) fn has_context(&self) -> bool {
        self.context.is_some()
    }

    /// Gives EL0 the table of this address space: its old one, or the longest unused.
    pub(crate) fn choose_context(&mut self, asid: u16, ttbr0: u64, at_el0: bool) {
        self.clock += 1;
        let known = self.contexts.iter().position(|c| c.bound && c.asid == asid && c.ttbr0 == ttbr0);
        let index = known.unwrap_or_else(|| {
            let oldest = (0..CONTEXTS).min_by_key(|&index| self.contexts[index].stamp).unwrap_or(0);
            self.clear_context(oldest);
            self.contexts[oldest] = Space { bound: true, asid, ttbr0, empty: true, ..Space::default() };
            oldest
        });
        self.contexts[index].stamp = self.clock;
        self.context = Some(index);
        self.el0 = Table::context(index);
        self.set_el0(at_el0);
    }

    /// Forgets the EL1 translations that PSTATE.PAN forbids or that belong to a process.
    pub(crate) fn drop_tracked(&mut self) {
        if self.tracked.overflowed {
            self.clear_el1();
            return;
        }
        while let Some(slot) = self.tracked.slots.pop() {
            self.clear_slot(Table::EL1, slot as usize);
        }
    }

    /// Does what a TLBI instruction says.
    pub(crate) fn invalidate(&mut self, what: Invalidation) {
        match what {
            Invalidation::All => self.clear_all(),
            Invalidation::Asid(asid) => {
                for index in 0..CONTEXTS {
                    if self.contexts[index].asid == asid {
                        self.clear_context(index);
                    }
                }
                self.drop_tracked();
            }
            Invalidation::Pages { va, pages, asid } => self.invalidate_pages(va, pages, asid),
        }
    }

    fn invalidate_pages(&mut self, va: u64, pages: u64, asid: Option<u16>) {
        let last = va.saturating_add(pages.saturating_sub(1).saturating_mul(PAGE));
        if pages > EL1_ENTRIES as u64 / 4 || self.el1_regions.meet(va, last) {
            self.clear_el1();
        } else {
            self.clear_pages(Table::EL1, va, pages);
        }
        for index in 0..CONTEXTS {
            let context = &self.contexts[index];
            let concerned = asid.is_none_or(|asid| context.asid == asid) || context.has_shared;
            if context.empty || !concerned {
                continue;
            }
            if pages > EL0_ENTRIES as u64 / 4 || context.regions.meet(va, last) {
                self.clear_context(index);
            } else {
                self.clear_pages(Table::context(index), va, pages);
            }
        }
    }

    fn clear_pages(&mut self, table: Table, va: u64, pages: u64) {
        for page in 0..pages {
            self.clear_page(table, va.wrapping_add(page * PAGE));
        }
    }

    /// Clears the slot of a page, and its neighbours' where the page may be one of 16 or 64 KiB.
    fn clear_page(&mut self, table: Table, va: u64) {
        let slots = if self.has_wide_pages { 16 } else { 1 };
        let first = va & !(slots * PAGE - 1);
        for page in 0..slots {
            // Whatever it maps: to clear too much is no fault, and a tag in the top byte hides nothing.
            self.clear_slot(table, table.slot(first.wrapping_add(page * PAGE)));
        }
    }

    /// Forbids fast stores to a physical page, because code has been decoded from it.
    pub(crate) fn protect(&mut self, pa: u64) {
        self.forget_sites();
        for table in self.tables() {
            for (index, entry) in self.entries[table.range()].iter_mut().enumerate() {
                if entry.info & (info::VALID | 0x0000_ffff_ffff_f000) == pa & !(PAGE - 1) | info::VALID {
                    entry.tag_w = no_tag(index, table.entries());
                }
            }
        }
    }

    /// Forbids fast stores to every page.
    pub(crate) fn protect_all(&mut self) {
        self.forget_sites();
        for table in self.tables() {
            for (index, entry) in self.entries[table.range()].iter_mut().enumerate() {
                entry.tag_w = no_tag(index, table.entries());
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear_all(&mut self) {
        self.clear_el1();
        for index in 0..CONTEXTS {
            self.clear_context(index);
        }
    }

    fn tables(&self) -> impl Iterator<Item = Table> + use<> {
        let empty: [bool; CONTEXTS] = std::array::from_fn(|index| self.contexts[index].empty);
        let contexts = (0..CONTEXTS).filter(move |&index| !empty[index]).map(Table::context);
        std::iter::once(Table::EL1).chain(contexts)
    }

    fn clear_el1(&mut self) {
        self.clear(Table::EL1);
        self.el1_regions.clear();
        self.tracked = Tracked::default();
    }

    fn clear_context(&mut self, index: usize) {
        if !self.contexts[index].empty {
            self.clear(Table::context(index));
        }
        let context = &mut self.contexts[index];
        context.empty = true;
        context.has_shared = false;
        context.regions.clear();
    }

    fn clear(&mut self, table: Table) {
        self.forget_sites();
        let entries = table.entries();
        for (index, entry) in self.entries[table.range()].iter_mut().enumerate() {
            *entry = invalid(index, entries);
        }
    }

    fn clear_slot(&mut self, table: Table, slot: usize) {
        self.forget_sites();
        self.entries[slot] = invalid(slot - table.base as usize, table.entries());
    }
}
