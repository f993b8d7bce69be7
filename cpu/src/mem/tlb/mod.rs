//! The software TLB: what a vCPU has translated, in the form that its loads and stores test inline.
//!
//! One table for the privileged level, and several for EL0, each bound to one (ASID, TTBR0) and reused least-recently-used
//! first, so that a process switch moves an index and clears nothing. Which accesses a table serves is data of the
//! table; [`table`] has what is the same for all. A table is direct-mapped on the 4 KiB page number,
//! whatever granule the guest uses; an entry serves only accesses that may go straight to host memory. Everything
//! else (MMIO, pages with decoded code, refused accesses) misses and takes the slow path.
//!
//! Invalidation follows Arm ARM (DDI 0487) D8.16. Blocks are remembered as address ranges: an invalidation inside
//! one clears the whole table, because any slot may hold a piece of it.

mod regions;
mod table;

use vmsa::{Half, Permissions};

pub(crate) use regions::Regions;
pub(crate) use table::SLOTS;
use table::{Space, Table, index_of, no_tag};

/// Log2 of the page size that the tables work with.
pub(crate) const PAGE_SHIFT: u32 = 12;

/// Bytes of a page of the tables.
pub(crate) const PAGE: u64 = 1 << PAGE_SHIFT;

/// Address spaces whose translations are kept.
const USERS: usize = 8;

/// All tables: the privileged level's, those of address spaces, and one that never holds anything, which EL0 has while no
/// address space has been chosen.
const TABLES: usize = 1 + USERS + 1;
const PRIVILEGED: usize = 0;
const EMPTY: usize = TABLES - 1;

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
    /// The slot is among those that its table remembers as filled, whatever it holds now.
    pub(crate) const LISTED: u64 = 1 << 10;
    /// The physical page.
    pub(crate) const PA: u64 = 0x0000_ffff_ffff_f000;
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

/// What one instruction of translated code remembers of its last page, or of pages around it that lie beside it in the
/// host's memory: an access of `size` bytes at `va` may go to host
/// address `va + addend` if `va - tag < limit`. 32 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub(crate) struct Site {
    /// [`Entry::tag_r`] or [`Entry::tag_w`], as the instruction needs.
    pub(crate) tag: u64,
    /// [`Entry::addend`].
    pub(crate) addend: u64,
    /// A page, or several, less what an access has beyond its first byte; or 0 for a site that remembers nothing: then no
    /// address passes.
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
    /// The direct-mapped parts of all tables.
    slots: Box<[[Entry; SLOTS]]>,
    tables: [Table; TABLES],
    /// The first entry of `current` and of `user`, for translated code.
    pub(crate) current_start: *const Entry,
    pub(crate) user_start: *const Entry,
    /// Table of the present exception level.
    current: usize,
    /// EL0's table, which LDTR and STTR use from EL1; empty until a miss has chosen one.
    user: usize,
    /// What `user` is, while it is hidden.
    hidden_user: Option<usize>,
    clock: u64,
    /// Pages of 16 or 64 KiB have been seen: the guest uses such a granule.
    has_wide_pages: bool,
}

// SAFETY: the two pointers lead into `slots`, which belongs to this value.
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
        // SAFETY: an entry is four integers. Zeroed memory is not touched, and the host gives none, before a table is used.
        let slots = unsafe { Box::<[[Entry; SLOTS]]>::new_zeroed_slice(TABLES).assume_init() };
        let space = |index| if index == PRIVILEGED { Space::Privileged } else { Space::Nobody };
        let mut tlb = Self {
            sites: [Site::default(); SITES],
            sites_filled: 0,
            slots,
            tables: std::array::from_fn(|index| Table::new(space(index))),
            current_start: std::ptr::null(),
            user_start: std::ptr::null(),
            current: PRIVILEGED,
            user: EMPTY,
            hidden_user: None,
            clock: 0,
            has_wide_pages: false,
        };
        tlb.slots.iter_mut().for_each(Table::prepare);
        tlb.tables_changed();
        tlb
    }

    /// The entry that would translate `va` at the present exception level.
    #[inline(always)]
    #[must_use]
    pub(crate) fn current(&self, va: u64) -> &Entry {
        // SAFETY: `current_start` is the first of the `SLOTS` entries of a table, and the index is below that.
        unsafe { &*self.current_start.add(index_of(va)) }
    }

    /// The entry that would translate `va` for EL0.
    #[inline(always)]
    #[must_use]
    pub(crate) fn user(&self, va: u64) -> &Entry {
        // SAFETY: as in `current`.
        unsafe { &*self.user_start.add(index_of(va)) }
    }

    /// The slow path's view of a table entry: its page, if it is the translation of `va`, and the host address of the page
    /// if the fast path may use it.
    #[must_use]
    pub(crate) fn page(&mut self, el0: bool, va: u64) -> Option<(Page, Option<u64>)> {
        let table = if el0 { self.hidden_user.unwrap_or(self.user) } else { PRIVILEGED };
        let entry = self.tables[table].find(&mut self.slots[table], va)?;
        let page = Page {
            pa: entry.info & info::PA,
            permissions: Permissions::from_bits((entry.info & info::PERMISSIONS) as u8),
            device: entry.info & info::DEVICE != 0,
            not_global: entry.info & info::NOT_GLOBAL != 0,
            size_log2: PAGE_SHIFT as u8,
            attributes: 0,
            shareability: 0,
        };
        let direct = entry.info & info::DIRECT != 0;
        Some((page, direct.then(|| entry.addend.wrapping_add(entry.tag_r))))
    }

    /// Puts the translation of `va` into the table of EL0 or EL1. `host` is the host address of the page where the
    /// fast path may use it, and `writable` whether also for stores.
    pub(crate) fn insert(&mut self, el0: bool, va: u64, page: &Page, host: Option<u64>, writable: bool) {
        let index = if el0 { self.user } else { PRIVILEGED };
        if index == EMPTY {
            return;
        }
        let tag = va & !(PAGE - 1);
        let no_tag = no_tag(index_of(va));
        let mut bits = page.pa & info::PA | u64::from(page.permissions.bits()) | info::VALID;
        if page.device {
            bits |= info::DEVICE;
        }
        if page.not_global {
            bits |= info::NOT_GLOBAL;
        }
        let entry = match host {
            Some(host) => Entry {
                tag_r: tag,
                tag_w: if writable { tag } else { no_tag },
                addend: host.wrapping_sub(tag),
                info: bits | info::DIRECT,
            },
            None => Entry { tag_r: no_tag, tag_w: no_tag, addend: tag, info: bits },
        };
        let low = Half::of(va) == Half::Low;
        let table = &mut self.tables[index];
        let is_block = u32::from(page.size_log2) > 16;
        self.has_wide_pages |= u32::from(page.size_log2) > PAGE_SHIFT && !is_block;
        if is_block {
            table.regions.add(va, page.size_log2);
        }
        table.has_shared |= !page.not_global || !low;
        let ends_with_process = table.space == Space::Privileged
            && (low || page.not_global || page.permissions.contains(Permissions::UR));
        table.insert(&mut self.slots[index], va, entry, ends_with_process);
    }

    /// Uses EL0's or EL1's table from now on.
    #[inline]
    pub(crate) fn set_el0(&mut self, el0: bool) {
        self.current = if el0 { self.user } else { PRIVILEGED };
        self.tables_changed();
    }

    /// `current` or `user` has changed.
    #[inline]
    fn tables_changed(&mut self) {
        self.current_start = self.slots[self.current].as_ptr();
        self.user_start = self.slots[self.user].as_ptr();
    }

    /// Makes every look-up of a fast path miss, until [`Self::show`]; [`Self::page`] still finds what is there.
    pub(crate) fn hide(&mut self) {
        self.hidden_user = Some(self.user);
        self.current = EMPTY;
        self.user = EMPTY;
        self.tables_changed();
    }

    /// Ends what [`Self::hide`] has begun.
    pub(crate) fn show(&mut self, at_el0: bool) {
        self.user = self.hidden_user.take().unwrap_or(self.user);
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

    /// Makes a site cover the page of `va` and as many around it as have entries that lead to the host's memory beside it:
    /// tells how many pages they are, which may be none. `bytes` is the length of its access.
    pub(crate) fn widen(&mut self, site: usize, va: u64, store: bool, unprivileged: bool, bytes: u64) -> u64 {
        /// Pages in one direction, at most.
        const REACH: u64 = SLOTS as u64 / 4;
        let addend_of = |va: u64| {
            let entry = if unprivileged { self.user(va) } else { self.current(va) };
            let tag = if store { entry.tag_w } else { entry.tag_r };
            (tag == va).then_some(entry.addend)
        };
        let page = va & !(PAGE - 1);
        let Some(addend) = addend_of(page) else { return 0 };
        let beside = |step: u64| {
            let is_beside = |n: &u64| addend_of(page.wrapping_add(n.wrapping_mul(step))) == Some(addend);
            (1..=REACH).take_while(is_beside).count() as u64
        };
        let (below, above) = (beside(PAGE.wrapping_neg()), beside(PAGE));
        let pages = below + 1 + above;
        let tag = page.wrapping_sub(below * PAGE);
        self.sites[site] = Site { tag, addend, limit: pages * PAGE - bytes + 1 };
        self.sites_filled = 1;
        pages
    }

    /// The process has changed: EL0 has no table until [`Self::choose_user`], and what EL1 had of the old process is gone.
    pub(crate) fn leave_user(&mut self, at_el0: bool) {
        self.forget_sites();
        self.user = EMPTY;
        self.set_el0(at_el0);
        self.drop_tracked();
    }

    /// Whether EL0 has a table.
    #[inline]
    #[must_use]
    pub(crate) fn has_user(&self) -> bool {
        self.user != EMPTY
    }

    /// Gives EL0 the table of this address space: its old one, or the longest unused.
    pub(crate) fn choose_user(&mut self, asid: u16, ttbr0: u64, at_el0: bool) {
        self.clock += 1;
        let space = Space::User { asid, ttbr0 };
        let users = || PRIVILEGED + 1..EMPTY;
        let index = users().find(|&index| self.tables[index].space == space).unwrap_or_else(|| {
            let oldest = users().min_by_key(|&index| self.tables[index].stamp);
            let oldest = oldest.expect("there are tables for address spaces");
            self.clear(oldest);
            self.tables[oldest].space = space;
            oldest
        });
        self.tables[index].stamp = self.clock;
        self.user = index;
        self.set_el0(at_el0);
    }

    /// Forgets the EL1 translations that PSTATE.PAN forbids or that belong to a process.
    pub(crate) fn drop_tracked(&mut self) {
        // PAN is set at each entry to the kernel, and mostly there is nothing.
        if self.tables[PRIVILEGED].has_tracked() {
            self.forget_sites();
            self.tables[PRIVILEGED].clear_tracked(&mut self.slots[PRIVILEGED]);
        }
    }

    /// Does what a TLBI instruction says.
    pub(crate) fn invalidate(&mut self, what: Invalidation) {
        match what {
            Invalidation::All => self.clear_all(),
            Invalidation::Asid(asid) => {
                for index in 0..TABLES {
                    if self.is_of(index, asid) {
                        self.clear(index);
                    }
                }
                self.drop_tracked();
            }
            Invalidation::Pages { va, pages, asid } => {
                self.forget_sites();
                for index in 0..TABLES {
                    let concerned = asid.is_none_or(|asid| self.is_of(index, asid))
                        || self.tables[index].has_shared
                        || self.tables[index].space == Space::Privileged;
                    if concerned && !self.tables[index].is_empty() {
                        let slots = &mut self.slots[index];
                        self.tables[index].clear_pages(slots, va, pages, self.has_wide_pages);
                    }
                }
            }
        }
    }

    /// Whether a table is that of an address space with this ASID.
    fn is_of(&self, index: usize, asid: u16) -> bool {
        matches!(self.tables[index].space, Space::User { asid: own, .. } if own == asid)
    }

    /// Forbids fast stores to a physical page, because code has been decoded from it, or to every page.
    pub(crate) fn protect(&mut self, pa: Option<u64>) {
        self.forget_sites();
        for (table, slots) in self.tables.iter_mut().zip(&mut self.slots) {
            table.protect(slots, pa);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear_all(&mut self) {
        (0..TABLES).for_each(|index| self.clear(index));
    }

    fn clear(&mut self, index: usize) {
        if !self.tables[index].is_empty() {
            self.forget_sites();
            self.tables[index].clear(&mut self.slots[index]);
        }
    }
}
