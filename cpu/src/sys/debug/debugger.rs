//! A debugger outside the machine: its breakpoints, watchpoints and single steps, beside the guest's own.
//!
//! They go the way of the guest's ([`super`]): an instruction with a breakpoint never becomes part of a block, a page with
//! watched bytes leaves the fast path, and nothing is paid while there are none. What is met travels as an
//! [`Exception`] of a class that the architecture does not have, up to where exceptions are taken; there the instruction
//! is given up before it has done anything, and [`Cpu::run`] comes back. Guest memory and the guest's debug registers are not
//! touched, so that the guest's own breakpoints, steps and BRKs work as ever.
//!
//! Addresses are virtual, and count in every address space and at both exception levels.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use hw::Pa;

use crate::exception::Class;
use crate::exec::system::{FPCR_BITS, FPSR_BITS};
use crate::mem::untagged;
use crate::observe::Activity;
use crate::state::pending;
use crate::sys::regs;
use crate::{Cpu, Exception, Exit};

/// Bytes of which accesses stop a vCPU before they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// The first byte's virtual address.
    pub first: u64,
    /// The last one's.
    pub last: u64,
    /// Loads stop.
    pub loads: bool,
    /// Stores stop.
    pub stores: bool,
}

/// Where a debugger wants vCPUs to stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugPoints {
    /// Addresses of instructions, in order, without tags.
    breakpoints: Vec<u64>,
    watchpoints: Vec<Watchpoint>,
}

impl DebugPoints {
    /// Breakpoints at these addresses, and watchpoints.
    #[must_use]
    pub fn new(breakpoints: impl IntoIterator<Item = u64>, watchpoints: Vec<Watchpoint>) -> Self {
        let mut breakpoints: Vec<u64> = breakpoints.into_iter().map(untagged).collect();
        breakpoints.sort_unstable();
        breakpoints.dedup();
        let watchpoints = watchpoints.into_iter().map(|watchpoint| {
            let (first, last) = (untagged(watchpoint.first), untagged(watchpoint.last));
            Watchpoint { first, last, ..watchpoint }
        });
        Self { breakpoints, watchpoints: watchpoints.collect() }
    }

    fn has_breakpoint_within(&self, first: u64, last: u64) -> bool {
        let next = self.breakpoints.partition_point(|at| *at < first);
        self.breakpoints.get(next).is_some_and(|at| *at <= last)
    }

    /// Whether bytes of this range are watched.
    pub(super) fn watches(&self, first: u64, last: u64) -> bool {
        self.watchpoints.iter().any(|watchpoint| watchpoint.first <= last && first <= watchpoint.last)
    }
}

/// What a vCPU keeps for a debugger.
#[derive(Debug, Default)]
pub(super) struct Debugger {
    points: Arc<DebugPoints>,
    /// Counts changes of the breakpoints.
    generation: u64,
    /// One instruction is passed over breakpoints.
    ignores_breakpoints: bool,
    /// One instruction is passed over watchpoints.
    ignores_watchpoints: bool,
    /// One instruction is run: no interrupt is taken in its place, and it does not sleep.
    is_stepping: bool,
    /// What has been met, until [`Cpu::run`] comes back with it.
    met: Option<Exit>,
    /// What was met at this address has been told: the instruction there is passed when the vCPU goes on.
    told_at: Option<u64>,
}

impl Debugger {
    /// Which breakpoints hold now; 0 for none.
    pub(super) fn armed(&self) -> u64 {
        if self.ignores_breakpoints || self.points.breakpoints.is_empty() { 0 } else { self.generation }
    }

    pub(super) fn has_breakpoint_within(&self, first: u64, last: u64) -> bool {
        self.armed() != 0 && self.points.has_breakpoint_within(untagged(first), untagged(last))
    }

    /// How many watchpoints there are.
    pub(super) fn watchpoints(&self) -> usize {
        self.points.watchpoints.len()
    }

    /// Whether bytes of this range, without tags, are watched in some way.
    pub(super) fn watches(&self, first: u64, last: u64) -> bool {
        self.points.watches(first, last)
    }

    /// The first byte of an access from `first` to `last`, without tags, that is watched.
    pub(super) fn hit(&self, first: u64, last: u64, write: bool) -> Option<u64> {
        if self.ignores_watchpoints {
            return None;
        }
        let hits = self.points.watchpoints.iter().filter_map(|watchpoint| {
            let (from, to) = (first.max(watchpoint.first), last.min(watchpoint.last));
            let counts = if write { watchpoint.stores } else { watchpoint.loads };
            (counts && from <= to).then_some(from)
        });
        hits.min()
    }
}

impl Cpu {
    /// Sets the debugger's breakpoints and watchpoints. While the vCPU is outside [`Self::run`].
    pub fn set_debug_points(&mut self, points: Arc<DebugPoints>) {
        let debugger = &mut self.local.debug.debugger;
        if debugger.points.breakpoints != points.breakpoints {
            debugger.generation += 1;
        }
        let before = std::mem::replace(&mut debugger.points, points);
        let after = Arc::clone(&debugger.points);
        for watchpoint in before.watchpoints.iter().chain(&after.watchpoints) {
            // Bytes that are watched no longer may be reached directly again.
            self.memory_watch_changed(watchpoint.first, watchpoint.last);
        }
        self.debug_registers_changed();
    }

    /// The stop that [`Self::run`] has come back with last is told to nobody: what has been met will be met again.
    pub fn forget_debug_stop(&mut self) {
        self.local.debug.debugger.told_at = None;
    }

    /// Runs one instruction for a debugger: [`Exit::BudgetSpent`] when it is done. A breakpoint at the instruction does
    /// not count, a watchpoint does unless it has been told. An exception that is taken by or in place of the instruction
    /// counts as one, but interrupts are not taken, and WFI and WFE do not sleep. A vCPU that is off stays so.
    pub fn step(&mut self) -> Exit {
        let _stay = self.begin_run();
        let is_told = self.take_told();
        let exit = self.run_single(is_told);
        self.watch.switch(Activity::Between);
        exit
    }

    /// Goes past what has been met and told, if there is something at `state.pc`: gives the exit if the vCPU does not go on,
    /// or whether an instruction has been run.
    pub(crate) fn pass_debug_point(&mut self) -> Result<bool, Exit> {
        self.local.debug.debugger.met = None;
        if !self.take_told() {
            return Ok(false);
        }
        match self.run_single(true) {
            Exit::BudgetSpent => Ok(true),
            exit => Err(exit),
        }
    }

    fn take_told(&mut self) -> bool {
        self.local.debug.debugger.told_at.take() == Some(self.state.pc)
    }

    fn run_single(&mut self, ignores_watchpoints: bool) -> Exit {
        let debugger = &mut self.local.debug.debugger;
        debugger.met = None;
        debugger.is_stepping = true;
        debugger.ignores_breakpoints = true;
        debugger.ignores_watchpoints = ignores_watchpoints;
        let pc = self.state.pc;
        self.code.set_single(true);
        self.context_changed();
        let exit = self.run_counted(1);
        self.code.set_single(false);
        let debugger = &mut self.local.debug.debugger;
        debugger.is_stepping = false;
        debugger.ignores_breakpoints = false;
        debugger.ignores_watchpoints = false;
        if exit == Exit::Stopped && ignores_watchpoints {
            // It has not been run.
            debugger.told_at = Some(pc);
        }
        self.context_changed();
        exit
    }

    /// Whether one instruction is run for a debugger.
    pub(crate) fn is_debug_stepping(&self) -> bool {
        self.local.debug.debugger.is_stepping
    }

    /// The end of a debugger's step whose instruction, or an exception in its place, is done.
    pub(crate) fn debug_step_done(&mut self) -> Exit {
        if let Some(exit) = self.take_debug_stop() {
            return exit;
        }
        match self.cluster.exit() {
            // The instruction may have been the call that asks for it, which is not made again.
            Some(exit @ (Exit::SystemOff | Exit::SystemReset)) => exit,
            _ => Exit::BudgetSpent,
        }
    }

    /// What [`Self::run`] comes back with, if an instruction has met something.
    pub(in crate::sys) fn take_debug_stop(&mut self) -> Option<Exit> {
        let exit = self.local.debug.debugger.met.take()?;
        self.local.debug.debugger.told_at = Some(self.state.pc);
        Some(exit)
    }

    /// The debugger's breakpoint at `pc`, if there is one.
    pub(crate) fn debugger_breakpoint(&self, pc: u64) -> Option<Exception> {
        let has_one = self.local.debug.debugger.has_breakpoint_within(pc, pc);
        has_one.then_some(Exception { class: Class::Debugger, iss: Met::Breakpoint as u32, far: pc })
    }

    /// The debugger's watchpoint that an access to the bytes from `first` to `last`, without tags, meets.
    pub(super) fn debugger_watchpoint(&self, first: u64, last: u64, write: bool) -> Option<Exception> {
        let far = self.local.debug.debugger.hit(first, last, write)?;
        let met = if write { Met::Store } else { Met::Load };
        Some(Exception { class: Class::Debugger, iss: met as u32, far })
    }

    /// The instruction at `state.pc` has met something: it is given up, and the run loop comes to look.
    pub(in crate::sys) fn meet(&mut self, exception: Exception) {
        let address = exception.far;
        self.local.debug.debugger.met = Some(match exception.iss {
            iss if iss == Met::Load as u32 => Exit::Watchpoint { address, write: false },
            iss if iss == Met::Store as u32 => Exit::Watchpoint { address, write: true },
            _ => Exit::Breakpoint,
        });
        self.cluster.signal(self.index).raise(pending::RECHECK);
    }

    /// Where a debugger finds the byte at `va`: by the tables of now, whatever their permissions and access flags say, and
    /// without a trace. None if nothing is mapped there.
    #[must_use]
    pub fn debug_translate(&self, va: u64) -> Option<Pa> {
        self.mem.look_up(va, &self.cluster.host)
    }

    /// Reads RAM by virtual address: as many bytes as are mapped without a gap, and are RAM.
    #[must_use]
    pub fn debug_read(&self, va: u64, out: &mut [u8]) -> usize {
        let ram = self.cluster.host.ram();
        let mut done = 0;
        for (at, len) in pieces(va, out.len()) {
            let part = &mut out[done..done + len];
            match self.debug_translate(at) {
                Some(pa) if ram.read(pa, part).is_ok() => done += len,
                _ => break,
            }
        }
        done
    }

    /// Reads RAM by physical address: as many bytes as are RAM without a gap.
    #[must_use]
    pub fn debug_read_physical(&self, pa: Pa, out: &mut [u8]) -> usize {
        let ram = self.cluster.host.ram();
        let mut done = 0;
        for (at, len) in pieces(pa.0, out.len()) {
            if ram.read(Pa(at), &mut out[done..done + len]).is_err() {
                break;
            }
            done += len;
        }
        done
    }

    /// Writes RAM by physical address, all of it or nothing: tells which. Code that has been decoded from there goes.
    pub fn debug_write_physical(&mut self, pa: Pa, data: &[u8]) -> bool {
        let is_written = self.cluster.host.ram().write(pa, data).is_ok();
        if is_written {
            self.cluster.code_written(pa, data.len() as u64);
        }
        is_written
    }

    /// Writes RAM by virtual address, all of it or nothing: tells which. Code that has been decoded from there goes.
    pub fn debug_write(&mut self, va: u64, data: &[u8]) -> bool {
        let ram = Arc::clone(self.cluster.host.ram());
        let mut places = Vec::new();
        for (at, len) in pieces(va, data.len()) {
            match self.debug_translate(at) {
                Some(pa) if ram.contains(pa, len as u64) => places.push((pa, len)),
                _ => return false,
            }
        }
        let mut rest = data;
        let covered: usize = places.iter().map(|(_, len)| len).sum();
        if covered != data.len() {
            return false;
        }
        for (pa, len) in places {
            let (part, others) = rest.split_at(len);
            if !self.debug_write_physical(pa, part) {
                return false;
            }
            rest = others;
        }
        true
    }

    /// Sets FPCR and FPSR, with the bits that they have.
    pub fn set_fp_control(&mut self, fpcr: u32, fpsr: u32) {
        self.state.fpcr = fpcr & FPCR_BITS as u32;
        self.state.fpsr = fpsr & FPSR_BITS as u32;
        self.context_changed();
    }

    /// A system register by its place among [`debug_registers`].
    pub fn debug_register(&mut self, index: usize) -> Option<u64> {
        regs::debug_read(self, index)
    }

    /// Writes one, with what hangs on it. Tells whether it can be written.
    pub fn set_debug_register(&mut self, index: usize, value: u64) -> bool {
        regs::debug_write(self, index, value)
    }
}

/// What has been met, in the syndrome of [`Class::Debugger`].
#[derive(Clone, Copy)]
enum Met {
    Breakpoint,
    Load,
    Store,
}

/// The names of the system registers that a debugger sees: those that can be read without a side effect.
pub fn debug_registers() -> impl Iterator<Item = &'static str> {
    regs::debug_names()
}

/// The parts of a range that lie in one page each. It ends at the end of the address space.
fn pieces(va: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut next = Some(va);
    let mut left = len;
    std::iter::from_fn(move || {
        let at = next.filter(|_| left > 0)?;
        let len = left.min((0x1000 - (at & 0xfff)) as usize);
        left -= len;
        next = at.checked_add(len as u64);
        Some((at, len))
    })
}
