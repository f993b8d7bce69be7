//! Self-hosted debug: when debug exceptions are enabled, and what breakpoints and watchpoints match.
//!
//! Arm ARM (DDI 0487) D2.4, D2.9 and D2.10. What the registers say is kept here in a form that is quick to ask, and
//! renewed when one of them is written. Instructions and accesses pay nothing while nothing is enabled, and little
//! otherwise:
//!
//! - Breakpoints are looked at where blocks are found by address. An instruction that has one never becomes a block, so
//!   no link and no jump leads to it; in its page blocks are one instruction long, so none contains it. A change of
//!   what is armed makes all links and jumps stale.
//! - A page with watched bytes never gets an entry in the TLB that leads to memory directly: its accesses take the slow
//!   path, which asks here. Whether the exception level, the direction and the process are those that are watched is
//!   decided there.
//!
//! There is neither EL2 nor EL3: HMC and SSC other than zero are reserved values, as are the types of breakpoints that
//! speak of VMIDs or of AArch32. What is reserved matches nothing. Deliberately absent: halting debug; what a debugger
//! outside the machine wants is in [`debugger`].

pub(crate) mod debugger;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use crate::mem::untagged;
use crate::sizes::{BREAKPOINTS, CONTEXT_AWARE, WATCHPOINTS};
use crate::state::{Pstate, SysRegs};
use crate::{Cpu, Exception};

/// MDSCR_EL1.
pub(super) mod mdscr {
    /// Software step.
    pub(in crate::sys) const SS: u64 = 1 << 0;
    /// Debug exceptions from EL1 to EL1.
    pub(in crate::sys) const KDE: u64 = 1 << 13;
    /// Breakpoints and watchpoints.
    pub(in crate::sys) const MDE: u64 = 1 << 15;
}

/// The fields that DBGBCRn_EL1 and DBGWCRn_EL1 share.
mod control {
    pub(super) const E: u64 = 1 << 0;
    /// PMC and PAC: EL1 and EL0.
    pub(super) const EL1: u64 = 1 << 1;
    pub(super) const EL0: u64 = 1 << 2;
    /// HMC and SSC.
    pub(super) const OTHER_STATES: u64 = 0b111 << 13;
    pub(super) const LBN_SHIFT: u32 = 16;
    pub(super) const LBN: u64 = 0xf;
}

/// DBGBCRn_EL1.BT. Of bits \[23:20\] the lower two exist, and the upper of them only for context-aware breakpoints.
mod breakpoint_type {
    pub(super) const SHIFT: u32 = 20;
    pub(super) const ADDRESS: u64 = 0b00;
    pub(super) const LINKED_ADDRESS: u64 = 0b01;
    pub(super) const CONTEXT: u64 = 0b10;
    pub(super) const LINKED_CONTEXT: u64 = 0b11;
}

/// DBGWCRn_EL1.
mod watch_control {
    /// LSC: loads and stores.
    pub(super) const LOAD: u64 = 1 << 3;
    pub(super) const STORE: u64 = 1 << 4;
    pub(super) const BAS_SHIFT: u32 = 5;
    /// WT: a linked context breakpoint has to match, too.
    pub(super) const LINKED: u64 = 1 << 20;
    pub(super) const MASK_SHIFT: u32 = 24;
    pub(super) const MASK: u64 = 0x1f;
}

/// Writable bits of DBGBCRn_EL1: LBN, SSC, HMC, PMC, E, and of BT what the breakpoint has. BAS is RES1 without AArch32.
pub(super) const fn breakpoint_control(n: usize) -> u64 {
    let types = if n < BREAKPOINTS - CONTEXT_AWARE { 0b01 } else { 0b11 };
    types << breakpoint_type::SHIFT | 0xf_e007
}

/// DBGBCRn_EL1.BAS.
pub(super) const BREAKPOINT_BAS: u64 = 0xf << 5;

/// Writable bits of DBGBVRn_EL1: an address of an instruction, or a context.
pub(super) const fn breakpoint_value(n: usize) -> u64 {
    if n < BREAKPOINTS - CONTEXT_AWARE { u64::MAX << 2 } else { u64::MAX }
}

/// The breakpoints that match in one state of the vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Armed {
    addresses: [Option<u64>; BREAKPOINTS],
    /// Which breakpoints of a debugger there are besides, as a number; 0 for none.
    debugger: u64,
    /// One compares the context alone: every instruction has it.
    everywhere: bool,
}

/// Bytes that a watchpoint is enabled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    /// Which watchpoint.
    number: usize,
    /// The first and the last byte.
    first: u64,
    last: u64,
    /// Which bytes of the doubleword around them.
    select: u8,
}

impl Watched {
    /// What DBGWVRn_EL1 and DBGWCRn_EL1 select (D2.10). BAS is ignored where MASK is not zero, and the MASKs 1 and 2,
    /// which are reserved, are ignored.
    fn new(number: usize, value: u64, control: u64) -> Option<Self> {
        let mask = match control >> watch_control::MASK_SHIFT & watch_control::MASK {
            mask @ 3.. => mask,
            _ => 0,
        };
        if mask != 0 {
            let low = (1u64 << mask) - 1;
            let first = untagged(value) & !low;
            return Some(Self { number, first, last: first | low, select: u8::MAX });
        }
        let bas = (control >> watch_control::BAS_SHIFT) as u8;
        // With bit 2 of the address, BAS[3:0] select bytes of the upper word.
        let select = if value & 4 == 0 { bas } else { bas << 4 };
        let first = untagged(value) & !7;
        let (lowest, highest) = (select.trailing_zeros(), 7u32.checked_sub(select.leading_zeros())?);
        Some(Self { number, first: first + u64::from(lowest), last: first + u64::from(highest), select })
    }

    /// The first byte of an access that is watched.
    fn hit(&self, first: u64, last: u64) -> Option<u64> {
        (first.max(self.first)..=last.min(self.last)).find(|&at| self.select >> (at & 7) & 1 != 0)
    }

    const fn meets(&self, first: u64, last: u64) -> bool {
        self.first <= last && first <= self.last
    }
}

/// What the debug registers say.
#[derive(Debug, Default)]
pub(super) struct Debug {
    /// Breakpoints are enabled, in whatever state.
    breakpoints: bool,
    /// Those that match in the present state.
    armed: Armed,
    /// The last ones at each exception level, but for none: links and jumps of blocks were made for them.
    known: [Armed; 2],
    /// Enabled watchpoints, in whatever state, and how many there are.
    watched: [Option<Watched>; WATCHPOINTS],
    watchpoints: usize,
    /// A debugger's own. Its watchpoints are counted above, too.
    debugger: debugger::Debugger,
}

impl SysRegs {
    /// Whether OS lock or OS double lock forbid debug exceptions.
    const fn debug_is_locked(&self) -> bool {
        // DBGPRCR_EL1.CORENPDRQ overrules the double lock.
        self.os_lock != 0 || self.osdlr & 1 != 0 && self.dbgprcr & 1 == 0
    }

    /// Whether breakpoints and watchpoints are in use.
    const fn monitors_debug(&self) -> bool {
        self.mdscr & mdscr::MDE != 0 && !self.debug_is_locked()
    }

    /// Whether debug exceptions are enabled from the exception level and with the mask of `pstate` (D2.4).
    pub(super) const fn debugs(&self, pstate: Pstate) -> bool {
        let masked = pstate.el() != 0 && (self.mdscr & mdscr::KDE == 0 || pstate.has(Pstate::D));
        !self.debug_is_locked() && !masked
    }

    /// Whether the breakpoint that `control` links to is a linked context breakpoint that matches.
    fn linked_context_matches(&self, control: u64) -> bool {
        let n = (control >> control::LBN_SHIFT & control::LBN) as usize;
        let Some(&linked) = self.dbgbcr.get(n) else { return false };
        linked & control::E != 0 && type_of(linked) == breakpoint_type::LINKED_CONTEXT && self.has_context(n)
    }

    /// Whether CONTEXTIDR_EL1 is what breakpoint `n` compares it with.
    fn has_context(&self, n: usize) -> bool {
        self.dbgbvr[n] as u32 == self.contextidr as u32
    }
}

const fn type_of(control: u64) -> u64 {
    control >> breakpoint_type::SHIFT & 3
}

/// Whether a breakpoint or watchpoint is for this exception level (D2.9, D2.10). HMC and SSC are for states that do
/// not exist.
const fn is_for(control: u64, el0: bool) -> bool {
    control & control::OTHER_STATES == 0 && control & if el0 { control::EL0 } else { control::EL1 } != 0
}

/// The first and the last byte of an access, without tags.
const fn range_of(va: u64, len: u64) -> (u64, u64) {
    let first = untagged(va);
    (first, first.saturating_add(len.saturating_sub(1)))
}

impl Cpu {
    /// A register that breakpoints and watchpoints depend on has changed.
    pub(crate) fn debug_registers_changed(&mut self) {
        let sys = &self.state.sys;
        let on = sys.monitors_debug();
        let breakpoints = on && sys.dbgbcr.iter().any(|control| control & control::E != 0);
        let watched = std::array::from_fn(|n| {
            let enabled = on && sys.dbgwcr[n] & control::E != 0;
            enabled.then(|| Watched::new(n, sys.dbgwvr[n], sys.dbgwcr[n])).flatten()
        });
        let debug = &mut self.local.debug;
        debug.breakpoints = breakpoints;
        debug.armed = Armed::default();
        debug.watchpoints = watched.iter().flatten().count() + debug.debugger.watchpoints();
        let before = std::mem::replace(&mut debug.watched, watched);
        for (before, now) in before.into_iter().zip(watched) {
            if before != now {
                // Bytes that are watched no longer may be reached directly again.
                for watched in [before, now].into_iter().flatten() {
                    self.memory_watch_changed(watched.first, watched.last);
                }
            }
        }
        self.debug_changed();
    }

    /// Whether PSTATE decides on debug exceptions: step or breakpoints are on.
    pub(super) fn debug_follows_pstate(&self) -> bool {
        self.state.sys.mdscr & mdscr::SS != 0 || self.local.debug.breakpoints
    }

    /// Finds out which breakpoints match in the present state: `None` if none does, else whether they are others than the
    /// last ones at this exception level.
    #[inline]
    pub(crate) fn arm_breakpoints(&mut self) -> Option<bool> {
        let debug = &self.local.debug;
        let debugger = debug.debugger.armed();
        if !debug.breakpoints && debugger == 0 {
            return None;
        }
        let guest = if debug.breakpoints { self.matching_breakpoints() } else { Armed::default() };
        let armed = Armed { debugger, ..guest };
        self.local.debug.armed = armed;
        if armed == Armed::default() {
            return None;
        }
        let known = &mut self.local.debug.known[usize::from(!self.at_el0())];
        Some(std::mem::replace(known, armed) != armed)
    }

    fn matching_breakpoints(&self) -> Armed {
        let sys = &self.state.sys;
        let mut armed = Armed::default();
        if !sys.debugs(self.state.pstate) {
            return armed;
        }
        let el0 = self.at_el0();
        for (n, (&control, &value)) in sys.dbgbcr.iter().zip(&sys.dbgbvr).enumerate() {
            if control & control::E == 0 || !is_for(control, el0) {
                continue;
            }
            let is_address = match type_of(control) {
                breakpoint_type::ADDRESS => true,
                breakpoint_type::LINKED_ADDRESS => sys.linked_context_matches(control),
                breakpoint_type::CONTEXT => {
                    armed.everywhere |= sys.has_context(n);
                    false
                }
                // A linked context breakpoint is for those that link to it.
                _ => false,
            };
            if is_address {
                armed.addresses[n] = Some(untagged(value & !3));
            }
        }
        armed
    }

    /// Whether the instruction at `pc` has a breakpoint that matches.
    pub(crate) fn has_breakpoint(&self, pc: u64) -> bool {
        let armed = &self.local.debug.armed;
        armed.everywhere || armed.addresses.contains(&Some(untagged(pc)))
    }

    /// Whether an instruction of the 4 KiB page of `pc` has a breakpoint that matches.
    pub(crate) fn has_breakpoint_in_page(&self, pc: u64) -> bool {
        let page = untagged(pc) >> 12;
        let debug = &self.local.debug;
        let (first, last) = (page << 12, page << 12 | 0xfff);
        debug.armed.addresses.iter().flatten().any(|at| at >> 12 == page)
            || debug.debugger.has_breakpoint_within(first, last)
    }

    /// Whether bytes of this range may be watched, in some state: the TLB must not lead to them directly.
    #[inline]
    pub(crate) fn is_watched(&self, range: RangeInclusive<u64>) -> bool {
        self.local.debug.watchpoints != 0 && {
            let (first, last) = (untagged(*range.start()), untagged(*range.end()));
            let debug = &self.local.debug;
            debug.watched.iter().flatten().any(|watched| watched.meets(first, last))
                || debug.debugger.watches(first, last)
        }
    }

    /// An access that translation permits is about to be made, with the rights of EL0 or EL1.
    ///
    /// # Errors
    /// The watchpoint that it meets.
    #[inline]
    pub(crate) fn check_watchpoints(
        &self,
        va: u64,
        len: u64,
        write: bool,
        el0: bool,
    ) -> Result<(), Exception> {
        if self.local.debug.watchpoints == 0 {
            return Ok(());
        }
        self.search_all_watchpoints(va, len, write, el0)
    }

    #[cold]
    fn search_all_watchpoints(&self, va: u64, len: u64, write: bool, el0: bool) -> Result<(), Exception> {
        let (first, last) = range_of(va, len);
        // A debugger's come first: the guest's exception is taken when the instruction is run again.
        let met = self.debugger_watchpoint(first, last, write).or_else(|| {
            self.search_watchpoints(va, len, write, el0).map(|at| Exception::watchpoint(at, write))
        });
        met.map_or(Ok(()), Err)
    }

    /// The first byte of an access that a watchpoint of the guest matches.
    #[inline]
    pub(crate) fn watchpoint_hit(&self, va: u64, len: u64, write: bool, el0: bool) -> Option<u64> {
        if self.local.debug.watchpoints == 0 {
            return None;
        }
        self.search_watchpoints(va, len, write, el0)
    }

    #[cold]
    fn search_watchpoints(&self, va: u64, len: u64, write: bool, el0: bool) -> Option<u64> {
        let sys = &self.state.sys;
        if !sys.debugs(self.state.pstate) {
            return None;
        }
        let direction = if write { watch_control::STORE } else { watch_control::LOAD };
        let (first, last) = range_of(va, len);
        let hits = self.local.debug.watched.iter().flatten().filter_map(|watched| {
            let control = sys.dbgwcr[watched.number];
            let linked = control & watch_control::LINKED != 0;
            let matches = control & direction != 0
                && is_for(control, el0)
                && (!linked || sys.linked_context_matches(control));
            if matches { watched.hit(first, last) } else { None }
        });
        // FAR_EL1 has the tag of the access.
        hits.min().map(|at| va.wrapping_add(at - first))
    }
}
