//! Translation for instructions: a small table of its own, asked once for each block lookup.

use std::sync::Arc;

use hw::{Pa, Ram};
use vmsa::{AccessKind, Half};

use super::HostRam;
use super::regime::{Controls, Intent, Regime};
use super::tlb::{Invalidation, PAGE, PAGE_SHIFT, Regions, untagged};
use crate::exception::FaultStatus;
use crate::state::SysRegs;
use crate::{Cpu, Exception};

/// The instruction at `pc` in the memory of a vCPU with these registers, which need not be one of ours: translation
/// tables are read anew, and nothing is remembered. `None` if nothing can be fetched there.
#[must_use]
pub fn fetch_as(sys: &SysRegs, el0: bool, pc: u64, ram: &Arc<Ram>) -> Option<u32> {
    let intent = Intent { kind: AccessKind::Execute, el0, pan: false };
    let page = Regime::new(&Controls::el1(sys)).translate(pc, intent, &HostRam::new(Arc::clone(ram))).ok()?;
    ram.load_u32(Pa(page.pa | pc & (PAGE - 1))).ok()
}

const ENTRIES: usize = 256;
/// In place of a page for an entry that holds nothing: no page address has low bits.
const NONE: u64 = 1;

#[derive(Clone, Copy, Debug)]
struct Entry {
    page: u64,
    pa: u64,
    el0: bool,
}

/// Pages from which code runs.
#[derive(Debug)]
pub(super) struct FetchTlb {
    entries: Box<[Entry; ENTRIES]>,
    regions: Regions,
    /// Code has been fetched from pages of the upper half that belong to one ASID.
    upper_not_global: bool,
    /// Pages of each half that have been asked for since the last clearing, by a hash: a TLBI elsewhere concerns no
    /// code.
    seen: [[u64; SEEN_WORDS]; 2],
}

const SEEN_WORDS: usize = 16;

const fn seen_bit(va: u64) -> (usize, u64) {
    let hash = (untagged(va) >> PAGE_SHIFT).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    ((hash >> 6) as usize % SEEN_WORDS, 1 << (hash & 63))
}

const fn slot(va: u64) -> usize {
    (va >> PAGE_SHIFT) as usize % ENTRIES
}

impl FetchTlb {
    pub(super) fn new() -> Self {
        Self {
            entries: Box::new([Entry { page: NONE, pa: 0, el0: false }; ENTRIES]),
            regions: Regions::default(),
            upper_not_global: false,
            seen: [[0; SEEN_WORDS]; 2],
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// The process has changed: the lower half and what is not global in the upper one are another's. Tells if code
    /// may have been fetched there, as [`Self::invalidate`] does.
    pub(super) fn leave_context(&mut self) -> Option<bool> {
        if self.upper_not_global {
            // Kernels map themselves global, so this is rare enough to forget the rest as well.
            self.clear();
            return Some(false);
        }
        let seen = std::mem::take(&mut self.seen[0]);
        if seen == [0; SEEN_WORDS] {
            return None;
        }
        for entry in self.entries.iter_mut() {
            if Half::of(entry.page) == Half::Low {
                entry.page = NONE;
            }
        }
        Some(true)
    }

    /// Does what a TLBI instruction says. Tells if code may have been fetched through what is gone: `Some(true)` from
    /// the lower half only.
    pub(super) fn invalidate(&mut self, what: Invalidation) -> Option<bool> {
        match what {
            Invalidation::All => {
                self.clear();
                Some(false)
            }
            Invalidation::Asid(_) => self.leave_context(),
            Invalidation::Pages { va, pages, .. } => {
                let low = Half::of(va) == Half::Low;
                let last = va.saturating_add(pages.saturating_sub(1).saturating_mul(PAGE));
                // A page may be as large as 64 KiB.
                let (first, pages) = (va & !0xffff, pages.saturating_add(15));
                if pages > ENTRIES as u64 || self.regions.meet(va, last) {
                    self.clear();
                    return Some(false);
                }
                let mut concerned = false;
                for page in 0..pages.next_multiple_of(16) {
                    let at = first.wrapping_add(page * PAGE);
                    let (word, bit) = seen_bit(at);
                    if self.seen[usize::from(!low)][word] & bit != 0 {
                        concerned = true;
                        self.entries[slot(at)].page = NONE;
                    }
                }
                concerned.then_some(low)
            }
        }
    }
}

impl Cpu {
    /// Translates `va` for instruction fetch, at the current EL.
    ///
    /// # Errors
    /// An instruction abort with all of its syndrome; misaligned addresses never come here.
    pub(crate) fn translate_fetch(&mut self, va: u64) -> Result<Pa, Exception> {
        let el0 = self.at_el0();
        let page = va & !(PAGE - 1);
        let entry = self.mem.fetch.entries[slot(va)];
        if entry.page == page && entry.el0 == el0 {
            return Ok(Pa(entry.pa | va & (PAGE - 1)));
        }
        let intent = Intent { kind: AccessKind::Execute, el0, pan: false };
        let fault = |status| Exception::instruction_abort(va, status);
        self.counts.fetch_walks += 1;
        let found = self.mem.regime.translate(va, intent, &self.cluster.host).map_err(fault)?;
        // Instructions are fetched from RAM only: a device answers with an external abort.
        if self.cluster.host.host(Pa(found.pa), PAGE).is_none() {
            return Err(fault(FaultStatus::EXTERNAL_ABORT));
        }
        let fetch = &mut self.mem.fetch;
        fetch.entries[slot(va)] = Entry { page, pa: found.pa, el0 };
        let (word, bit) = seen_bit(va);
        let upper = Half::of(va) == Half::High;
        fetch.seen[usize::from(upper)][word] |= bit;
        fetch.upper_not_global |= upper && found.not_global;
        if u32::from(found.size_log2) > 16 {
            fetch.regions.add(va, found.size_log2);
        }
        Ok(Pa(found.pa | va & (PAGE - 1)))
    }

    /// The page of `pa` now holds decoded code: no vCPU may write to it any more without
    /// [`crate::code::CodePages::written`] being told. Returns when every running vCPU has dropped its fast write
    /// path to that page. To be called after the page has been marked in the map of code, before it is read.
    pub(crate) fn protect_code_page(&mut self, pa: Pa) {
        let page = Pa(pa.0 & !(PAGE - 1));
        let writers: Vec<usize> = self.cluster.writers.of(page).collect();
        if writers.contains(&self.index) {
            self.protect(page);
        }
        self.protect_elsewhere(page, &writers);
    }

    /// Gives up this vCPU's fast write path to a page.
    pub(crate) fn protect(&mut self, pa: Pa) {
        self.mem.tlb.protect(Some(pa.0));
        self.cluster.writers.remove(pa, self.index);
    }

    /// Gives up all of this vCPU's fast write paths. It still counts as a writer to their pages: whoever decodes code
    /// from one asks again.
    pub(crate) fn protect_all(&mut self) {
        self.mem.tlb.protect(None);
    }
}
