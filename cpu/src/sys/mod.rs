//! The system side: registers, exception entry and return, timers, PSCI, what vCPUs ask of one another.
//!
//! [`declared`] has the system registers, [`regs`] is the table of what they do, [`features`] what the identification registers say, `maintenance` the
//! SYS instructions, `debug` breakpoints and watchpoints, `wait` WFI and WFE, `psci` the calls by HVC, [`timer`] a generic timer, [`signals`] and
//! [`cluster`] what reaches a vCPU from outside. Here: exceptions, and what happens between blocks. Arm ARM
//! (DDI 0487) D1.10 and D2.12. Signatures are what `exec::system` and `interp` call.

pub mod cluster;
pub(crate) mod debug;
pub mod declared;
pub mod features;
mod maintenance;
mod psci;
pub mod regs;
pub mod signals;
#[cfg(test)]
mod tests;
pub mod timer;
mod wait;

use std::sync::Arc;

use hw::SysReg;

use crate::exception::Class;
use crate::state::{Flags, Pstate, SP, pending};
use crate::{Cpu, Exception};
use debug::mdscr;

/// Why [`Cpu::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// PSCI SYSTEM_OFF.
    SystemOff,
    /// PSCI SYSTEM_RESET or SYSTEM_RESET2.
    SystemReset,
    /// [`Cluster::stop_all`](cluster::Cluster::stop_all).
    Stopped,
    /// As many instructions have been run as the caller asked for.
    BudgetSpent,
    /// A debugger's breakpoint is at the program counter. The instruction has not been run; the next run passes it.
    Breakpoint,
    /// The instruction at the program counter is about to access bytes that a debugger watches. It has done nothing yet; the
    /// next run passes it.
    Watchpoint {
        /// The first of them that it accesses.
        address: u64,
        /// It is a store.
        write: bool,
    },
}

/// MSR (immediate) targets, op1:op2 as encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the architecture's own names")]
pub enum PstateField {
    SpSel,
    DaifSet,
    DaifClr,
    Pan,
    Uao,
    Dit,
    Ssbs,
}

/// What a vCPU keeps for the system side, apart from what the guest sees.
pub(crate) struct Local {
    outstanding: cluster::Outstanding,
    /// Software step: the instruction to be stepped has been let go.
    step_armed: bool,
    debug: debug::Debug,
}

impl Local {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            outstanding: cluster::Outstanding::new(cpus),
            step_armed: false,
            debug: debug::Debug::default(),
        }
    }
}

/// Offsets from VBAR_EL1 (D1.10.2): kinds within one of the groups by origin.
mod vector {
    pub(super) const SYNCHRONOUS: u64 = 0x000;
    pub(super) const IRQ: u64 = 0x080;
    pub(super) const FIQ: u64 = 0x100;
    pub(super) const FROM_EL1_SP1: u64 = 0x200;
    pub(super) const FROM_EL0: u64 = 0x400;
}

/// PSTATE as SPSR holds it at EL1h: M = 0b0101.
const EL1H: u32 = 1 << Pstate::EL_SHIFT | Pstate::SP;

impl Cpu {
    /// PSTATE as SPSR_EL1 has it, with NZCV.
    #[must_use]
    pub fn pstate(&self) -> u64 {
        u64::from(self.state.pstate.0 | self.state.flags.nzcv())
    }

    /// Sets PSTATE as a debugger does: as SPSR_EL1 has it; a mode that does not exist is taken as EL1h.
    pub fn set_pstate(&mut self, pstate: u64) {
        let bits = pstate as u32;
        let mode = if is_mode(bits) { bits & MODE } else { EL1H };
        self.state.flags = Flags::from_nzcv(bits);
        self.replace_pstate(mode | bits & (Pstate::DAIF | Pstate::IL | Pstate::SS | Pstate::PAN));
    }

    /// The state of the boot protocol: as after reset, with the program counter at `pc` and x0 set.
    pub fn set_boot_state(&mut self, pc: u64, x0: u64) {
        self.reset();
        self.state.pc = pc;
        self.state.x[0] = x0;
    }

    /// The state of power-on, whatever was before: registers as after reset, with the program counter at 0, and nothing
    /// kept of memory's contents. After [`Cluster::reset`](cluster::Cluster::reset), on the vCPU's own thread.
    pub fn power_on(&mut self) {
        self.reset();
        self.forget_everything();
    }

    /// Forgets code, and what has been asked of others or by them.
    fn forget_everything(&mut self) {
        self.local.outstanding = cluster::Outstanding::new(self.cluster.cpus());
        self.local.step_armed = false;
        self.drop_all_code();
        self.serve_requests();
    }

    pub(crate) const fn step_is_armed(&self) -> bool {
        self.local.step_armed
    }

    pub(crate) fn arm_step(&mut self, is_armed: bool) {
        self.local.step_armed = is_armed;
        self.debug_changed();
    }

    /// MSR (immediate).
    ///
    /// # Errors
    /// UNDEFINED at EL0, but for DAIFSet and DAIFClr, which SCTLR_EL1.UMA opens and otherwise are trapped.
    pub(crate) fn write_pstate_field(&mut self, field: PstateField, imm: u8) -> Result<(), Exception> {
        let masks = u32::from(imm) << 6 & Pstate::DAIF;
        let daif = self.state.pstate.0 & Pstate::DAIF;
        if self.at_el0() {
            let op2 = match field {
                PstateField::DaifSet => 6,
                PstateField::DaifClr => 7,
                _ => return Err(Exception::undefined()),
            };
            if self.state.sys.sctlr >> 9 & 1 == 0 {
                return Err(Exception::trapped_system(SysReg::new(0, 3, 4, imm, op2), 31, false));
            }
        }
        match field {
            PstateField::SpSel => self.select_sp(imm & 1 != 0),
            PstateField::DaifSet => self.set_daif(daif | masks),
            PstateField::DaifClr => self.set_daif(daif & !masks),
            PstateField::Pan => self.set_pan(imm & 1 != 0),
            // Not advertised, hence not decoded.
            PstateField::Uao | PstateField::Dit | PstateField::Ssbs => return Err(Exception::undefined()),
        }
        Ok(())
    }

    /// Writes PSTATE.SP: another stack pointer comes into use.
    fn select_sp(&mut self, own: bool) {
        let sp = if own { Pstate::SP } else { 0 };
        self.replace_pstate(self.state.pstate.0 & !Pstate::SP | sp);
    }

    /// Writes PSTATE.{D,A,I,F}, given where PSTATE has them.
    fn set_daif(&mut self, daif: u32) {
        self.state.pstate.0 = self.state.pstate.0 & !Pstate::DAIF | daif;
        self.state.masks_changed();
        // An interrupt that is pending has its bit set in the pending word, which is looked at after this block.
        if self.debug_follows_pstate() {
            self.debug_changed();
        }
    }

    /// Writes PSTATE.PAN.
    fn set_pan(&mut self, pan: bool) {
        let old = self.state.pstate.0;
        self.state.pstate.0 = old & !Pstate::PAN | if pan { Pstate::PAN } else { 0 };
        if pan && old & Pstate::PAN == 0 {
            self.memory_pan_set();
        }
    }

    /// Replaces PSTATE but for the flags, with all that hangs on it: stack pointer, memory rights, block context.
    pub(crate) fn replace_pstate(&mut self, bits: u32) {
        let (old, new) = (self.state.pstate, Pstate(bits));
        let bank = |pstate: Pstate| usize::from(pstate.el() != 0 && pstate.has(Pstate::SP));
        if bank(old) != bank(new) {
            self.state.sp_bank[bank(old)] = self.state.x[usize::from(SP)];
            self.state.x[usize::from(SP)] = self.state.sp_bank[bank(new)];
        }
        self.state.pstate = new;
        self.state.masks_changed();
        if old.el() != new.el() {
            self.memory_el_changed();
        }
        if new.has(Pstate::PAN) && !old.has(Pstate::PAN) {
            self.memory_pan_set();
        }
        if (old.0 ^ bits) & (3 << Pstate::EL_SHIFT | Pstate::IL) != 0 || self.debug_follows_pstate() {
            self.debug_changed();
        }
    }

    /// Takes `exception`, which the instruction at `state.pc` raised: saves state, vectors, updates the block context.
    /// The preferred return address is `state.pc`, or the instruction after it for SVC.
    pub(crate) fn take_exception(&mut self, exception: Exception) {
        if exception.class == Class::Debugger {
            return self.meet(exception);
        }
        let mut preferred_return = self.state.pc;
        if exception.class == Class::Svc {
            preferred_return = preferred_return.wrapping_add(4);
            // SVC is complete when it is taken: a step over it is done (D2.12.5).
            if self.local.step_armed {
                self.state.pstate.0 &= !Pstate::SS;
            }
        }
        self.state.sys.esr = exception.esr(self.at_el0());
        if exception.class.has_far() {
            self.state.sys.far = exception.far;
        }
        self.enter(vector::SYNCHRONOUS, preferred_return);
    }

    /// Exception entry to EL1 (D1.10.1).
    fn enter(&mut self, offset: u64, preferred_return: u64) {
        let old = self.state.pstate;
        let group = match (old.el(), old.has(Pstate::SP)) {
            (0, _) => vector::FROM_EL0,
            (_, true) => vector::FROM_EL1_SP1,
            (_, false) => 0,
        };
        self.state.sys.spsr = self.pstate();
        self.state.sys.elr = preferred_return;
        self.cluster.observation.trace.mark(hw::Track::Vcpu(self.index as u32), || {
            let (name, esr) = match offset {
                vector::IRQ => ("IRQ", 0),
                vector::FIQ => ("FIQ", 0),
                _ => ("synchronous exception", self.state.sys.esr),
            };
            hw::trace::Mark::Exception { name, esr, elr: preferred_return }
        });
        let pan = old.0 & Pstate::PAN | if self.state.sys.span() { 0 } else { Pstate::PAN };
        self.local.step_armed = false;
        self.replace_pstate(EL1H | Pstate::DAIF | pan);
        self.clear_exclusive();
        self.state.pc = self.mem.branch_target(self.state.sys.vbar.wrapping_add(group + offset));
    }

    /// ERET: sets PSTATE, pc, the stack pointer in use and the block context.
    ///
    /// # Errors
    /// UNDEFINED at EL0.
    pub(crate) fn exception_return(&mut self) -> Result<(), Exception> {
        if self.at_el0() {
            return Err(Exception::undefined());
        }
        let spsr = self.state.sys.spsr as u32;
        let old = self.state.pstate.0;
        let kept = spsr & (Pstate::DAIF | Pstate::PAN);
        // D1.11.4: after an illegal return EL and stack pointer stay, IL is set; flags and masks return either way.
        let new = if is_mode(spsr) {
            let mode = spsr & MODE;
            let step = spsr & Pstate::SS;
            let step = if self.step_survives_return(mode, spsr) { step } else { 0 };
            kept | mode | spsr & Pstate::IL | step
        } else {
            kept | old & MODE | Pstate::IL
        };
        self.state.flags = Flags::from_nzcv(spsr);
        self.local.step_armed = false;
        self.replace_pstate(new);
        self.clear_exclusive();
        self.cluster.signal(self.index).send_event_to_itself();
        self.state.pc = self.mem.branch_target(self.state.sys.elr);
        Ok(())
    }

    /// Whether SPSR.SS reaches PSTATE (D2.12.4): software step is enabled at the target and was not here.
    fn step_survives_return(&self, mode: u32, spsr: u32) -> bool {
        let here = self.steps_at(self.state.pstate);
        let there = self.steps_at(Pstate(mode | spsr & Pstate::DAIF));
        !here && there
    }

    /// Whether software step is active in `pstate` (D2.12.2): MDSCR_EL1.SS, and debug exceptions enabled from there.
    fn steps_at(&self, pstate: Pstate) -> bool {
        self.state.sys.mdscr & mdscr::SS != 0 && self.state.sys.debugs(pstate)
    }

    /// Whether software step is active: each instruction is followed by a look at the pending word.
    #[must_use]
    pub(crate) fn is_stepping(&self) -> bool {
        self.steps_at(self.state.pstate)
    }

    /// Something that may change how instructions are stepped or trapped, or which breakpoints match, has changed.
    fn debug_changed(&mut self) {
        if self.is_stepping() {
            self.cluster.signal(self.index).raise(pending::RECHECK);
        }
        self.context_changed();
    }

    /// Serves the pending word at a block border, with `state.pc` exact: runs requests, takes an unmasked interrupt.
    /// `Some` leaves the run loop.
    pub(crate) fn serve_pending(&mut self) -> Option<Exit> {
        let cluster = Arc::clone(&self.cluster);
        let signal = cluster.signal(self.index);
        if signal.is_asleep() {
            signal.get_up();
        }
        let word = signal.pending();
        if word & pending::REQUESTS != 0 {
            self.serve_requests();
        }
        if word & pending::STOP != 0
            && let Some(exit) = cluster.exit()
        {
            return Some(exit);
        }
        if word & pending::RECHECK != 0 {
            signal.clear(pending::RECHECK);
            if let Some(exit) = self.take_debug_stop() {
                return Some(exit);
            }
            if let Some(exit) = self.wait_for_power() {
                return Some(exit);
            }
            if self.is_stepping() {
                // Every border is of interest until the step is over.
                signal.raise(pending::RECHECK);
                if self.software_step() {
                    return None;
                }
            }
        }
        if self.is_debug_stepping() {
            return None;
        }
        let word = signal.pending();
        if word & pending::FIQ != 0 && !self.state.pstate.has(Pstate::F) {
            self.enter(vector::FIQ, self.state.pc);
        } else if word & pending::IRQ != 0 && !self.state.pstate.has(Pstate::I) {
            self.enter(vector::IRQ, self.state.pc);
        }
        None
    }

    /// While the vCPU is off, sleeps until CPU_ON or an exit; starts it if CPU_ON has come.
    fn wait_for_power(&mut self) -> Option<Exit> {
        let cluster = Arc::clone(&self.cluster);
        let signal = cluster.signal(self.index);
        let index = self.index;
        let is_off = || cluster.power_state(index) == Some(cluster::PowerState::Off);
        if is_off() && self.is_debug_stepping() {
            return Some(Exit::BudgetSpent);
        }
        if is_off() {
            self.sleep(signal, |_| !is_off() || cluster.exit().is_some());
            signal.clear(pending::RECHECK);
            if is_off() {
                return cluster.exit();
            }
        }
        if let Some((entry, context)) = cluster.take_start(self.index) {
            self.set_boot_state(entry, context);
            self.drop_all_code();
            self.serve_requests();
        }
        None
    }

    /// Software step at a block border (D2.12.3): true if a step exception has been taken or the one instruction may
    /// now run; interrupts are then not looked at, for the step exception comes before them.
    fn software_step(&mut self) -> bool {
        if self.state.pstate.has(Pstate::SS) && !self.local.step_armed {
            // Active, not pending: an interrupt that is pending is taken in place of the instruction.
            let word = self.cluster.signal(self.index).pending();
            let irq = word & pending::IRQ != 0 && !self.state.pstate.has(Pstate::I);
            let fiq = word & pending::FIQ != 0 && !self.state.pstate.has(Pstate::F);
            if irq || fiq {
                return false;
            }
            self.local.step_armed = true;
            return true;
        }
        // An exclusive load is told apart, because a step always breaks the pair.
        let exclusive = self.local.step_armed && self.mem.has_monitor();
        self.state.pstate.0 &= !Pstate::SS;
        self.take_exception(Exception::software_step(exclusive));
        true
    }
}

/// SPSR.M\[4:0\].
const MODE: u32 = 0x1f;

/// Whether SPSR.M names a mode to which EL1 can return: EL0t, EL1t, EL1h.
pub(crate) const fn is_mode(spsr: u32) -> bool {
    matches!(spsr & MODE, 0b00000 | 0b00100 | 0b00101)
}
