//! The saved state of one vCPU, and of what vCPUs share.
//!
//! Of a vCPU: its registers, what its timers are set to, the event register of WFE, and how far a software step has come. A vCPU
//! outside [`Cpu::run`] waits for nothing: WFI and WFE may end at any time, and do when it is stopped. Translations, blocks and requests
//! for both to be dropped are not there, because a vCPU that has been restored has none. The exclusive monitor is cleared, which it
//! may be at any time (B2.9.5). Interrupt inputs are the interrupt controller's, the counter is the machine's clock, and RNDR
//! needs no state. Of the cluster: PSCI power states.

use std::collections::BTreeMap;
use std::sync::Arc;

use hw::saved::{Hex, RestoreError, SavedState, hex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exec::system::{FPCR_BITS, FPSR_BITS};
use crate::state::{Flags, Pstate, SP};
use crate::sys::cluster::PowerStates;
use crate::sys::timer::TimerState;
use crate::sys::{declared, is_mode, regs};
use crate::{Cluster, Cpu, State};

/// One vCPU.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CpuState {
    /// x0 to x30.
    x: BTreeMap<String, Hex>,
    #[serde(rename = "SP_EL0", with = "hex")]
    sp_el0: u64,
    #[serde(rename = "SP_EL1", with = "hex")]
    sp_el1: u64,
    #[serde(with = "hex")]
    pc: u64,
    /// As SPSR_EL1 has it.
    #[serde(with = "hex")]
    pstate: u64,
    #[serde(rename = "FPCR", with = "hex")]
    fpcr: u32,
    #[serde(rename = "FPSR", with = "hex")]
    fpsr: u32,
    /// v0 to v31, those that are not zero.
    v: BTreeMap<String, Vector>,
    /// By name, as MRS reads them. OSLAR_EL1 as it was written.
    system: BTreeMap<String, Hex>,
    virtual_timer: TimerState,
    physical_timer: TimerState,
    event_register: bool,
    /// The instruction that software step is about has been let go.
    step_is_armed: bool,
}

impl SavedState for CpuState {
    const VERSION: u32 = 1;
}

/// What vCPUs share.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterState {
    power: PowerStates,
}

impl SavedState for ClusterState {
    const VERSION: u32 = 1;
}

/// A vector register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Vector(#[serde(with = "hex")] u128);

/// Takes the value of `name` out of a map.
fn take<T>(map: &mut BTreeMap<String, T>, name: &str) -> Result<T, RestoreError> {
    map.remove(name).ok_or_else(|| RestoreError::value(name, "is missing"))
}

fn empty<T>(map: BTreeMap<String, T>) -> Result<(), RestoreError> {
    map.into_keys().next().map_or(Ok(()), |name| Err(RestoreError::value(name, "there is no such register")))
}

impl Cpu {
    /// Whether SP_EL1 is the stack pointer in use, else SP_EL0.
    fn uses_sp_el1(&self) -> bool {
        !self.at_el0() && self.state.pstate.has(Pstate::SP)
    }

    /// The whole state of this vCPU, outside [`Self::run`], but for what the cluster has.
    #[must_use]
    pub fn save(&self) -> Value {
        let state = &self.state;
        let (in_use, banked) = (state.x[usize::from(SP)], state.sp_bank);
        let (sp_el0, sp_el1) = if self.uses_sp_el1() { (banked[0], in_use) } else { (in_use, banked[1]) };
        let mut sys = state.sys.clone();
        let mut system: BTreeMap<String, Hex> = regs::stored()
            .map(|register| (register.name.to_owned(), Hex(*(register.at)(&mut sys) | register.ones)))
            .collect();
        system.insert(OS_LOCK.to_owned(), Hex(state.sys.os_lock));
        system.insert(CLAIM.to_owned(), Hex(state.sys.dbgclaim));
        CpuState {
            x: (0..31).map(|n| (format!("x{n}"), Hex(state.x[n]))).collect(),
            sp_el0,
            sp_el1,
            pc: state.pc,
            pstate: self.pstate(),
            fpcr: state.fpcr,
            fpsr: state.fpsr,
            v: (0..32).filter(|&n| state.v[n] != 0).map(|n| (format!("v{n}"), Vector(state.v[n]))).collect(),
            system,
            virtual_timer: self.cluster.virtual_timers[self.index].save(),
            physical_timer: self.cluster.physical_timers[self.index].save(),
            event_register: self.cluster.signal(self.index).has_event(),
            step_is_armed: self.step_is_armed(),
        }
        .to_value()
    }

    /// Takes up what [`Self::save`] has given: before [`Self::run`], after [`Cluster::restore`], with guest time and memory as they
    /// were. Whatever this vCPU has done before is forgotten; the GIC's CPU interface is not touched.
    ///
    /// # Errors
    /// If the state is not of this form, or has a value that no guest could have brought about. The vCPU is then of no use.
    pub fn restore(&mut self, state: Value) -> Result<(), RestoreError> {
        let CpuState {
            mut x,
            sp_el0,
            sp_el1,
            pc,
            pstate,
            fpcr,
            fpsr,
            mut v,
            mut system,
            virtual_timer,
            physical_timer,
            event_register,
            step_is_armed,
        } = CpuState::from_value(state)?;
        const PSTATE: u64 = declared::SPSR;
        if pstate & !PSTATE != 0 || !is_mode(pstate as u32) {
            return Err(RestoreError::value("pstate", "has bits or a mode that do not exist"));
        }
        if u64::from(fpcr) & !FPCR_BITS != 0 {
            return Err(RestoreError::value("FPCR", "has bits that do not exist"));
        }
        if u64::from(fpsr) & !FPSR_BITS != 0 {
            return Err(RestoreError::value("FPSR", "has bits that do not exist"));
        }
        let cluster = Arc::clone(&self.cluster);
        let mut new = State::new(cluster.signal(self.index).word());
        for n in 0..31 {
            new.x[n] = take(&mut x, &format!("x{n}")).map_err(|error| error.within("x"))?.0;
        }
        empty(x).map_err(|error| error.within("x"))?;
        for n in 0..32 {
            new.v[n] = v.remove(&format!("v{n}")).map_or(0, |vector| vector.0);
        }
        empty(v).map_err(|error| error.within("v"))?;
        (new.pc, new.fpcr, new.fpsr) = (pc, fpcr, fpsr);
        let in_system = |error: RestoreError| error.within("system");
        for register in regs::stored() {
            let Hex(value) = take(&mut system, register.name).map_err(in_system)?;
            if value & !register.writable != register.ones & !register.writable {
                return Err(in_system(RestoreError::value(register.name, "no write leaves this value")));
            }
            *(register.at)(&mut new.sys) = value & register.writable;
        }
        for (name, to, bits) in [(OS_LOCK, &mut new.sys.os_lock, 1), (CLAIM, &mut new.sys.dbgclaim, 0xff)] {
            let Hex(value) = take(&mut system, name).map_err(in_system)?;
            if value & !bits != 0 {
                return Err(in_system(RestoreError::value(name, "has bits that do not exist")));
            }
            *to = value;
        }
        empty(system).map_err(in_system)?;
        for (name, timer) in [("virtual_timer", &virtual_timer), ("physical_timer", &physical_timer)] {
            timer.check().map_err(|error| error.within(name))?;
        }

        self.begin_anew(new);
        self.state.flags = Flags::from_nzcv(pstate as u32);
        self.replace_pstate(pstate as u32 & !NZCV);
        self.state.sp_bank = [sp_el0, sp_el1];
        self.state.x[usize::from(SP)] = if self.uses_sp_el1() { sp_el1 } else { sp_el0 };
        self.arm_step(step_is_armed);
        let signal = cluster.signal(self.index);
        signal.take_event();
        if event_register {
            signal.send_event();
        }
        cluster.virtual_timers[self.index].restore(&virtual_timer);
        cluster.physical_timers[self.index].restore(&physical_timer);
        Ok(())
    }
}

/// The OS lock, whose state is read in OSLSR_EL1.
const OS_LOCK: &str = "OSLAR_EL1";
/// Claim tags.
const CLAIM: &str = "DBGCLAIMCLR_EL1";
const NZCV: u32 = 0xf << 28;

impl Cluster {
    /// What vCPUs share, while all of them are outside [`Cpu::run`]. A wish of the guest's for an end or a reset is not in it: it has
    /// ended [`Cpu::run`].
    #[must_use]
    pub fn save(&self) -> Value {
        ClusterState { power: self.save_power() }.to_value()
    }

    /// Takes up what [`Self::save`] has given: while all vCPUs are outside [`Cpu::run`], before [`Cpu::restore`] of each.
    ///
    /// # Errors
    /// If the state is not of this form, or has a value that no guest could have brought about.
    pub fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let ClusterState { power } = ClusterState::from_value(state)?;
        self.restore_power(power).map_err(|error| error.within("power"))
    }
}

#[cfg(test)]
mod tests;
