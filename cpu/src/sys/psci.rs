//! PSCI and SMCCC calls, by HVC #0 from EL1.
//!
//! Arm DEN 0022 (PSCI 1.1) and DEN 0028 (SMCCC 1.1). There is no EL2: the calls are answered by the machine, as a
//! hypervisor would. SMC stays UNDEFINED, for there is no EL3. CPU_SUSPEND has
//! one kind of state, core standby, which is WFI: power-down states are for platforms that name some. Deliberately
//! absent: migration of a trusted OS, SYSTEM_SUSPEND.

use super::Exit;
use super::cluster::PowerState;
use super::features::cpu_of_affinity;
use crate::state::pending;
use crate::{Cpu, Exception};

/// Function identifiers (DEN 0022, 5.1; DEN 0028, 7). The 64-bit forms have bit 30 set.
mod function {
    pub(super) const PSCI_VERSION: u32 = 0x8400_0000;
    pub(super) const CPU_SUSPEND_32: u32 = 0x8400_0001;
    pub(super) const CPU_SUSPEND: u32 = 0xc400_0001;
    pub(super) const CPU_OFF: u32 = 0x8400_0002;
    pub(super) const CPU_ON_32: u32 = 0x8400_0003;
    pub(super) const CPU_ON: u32 = 0xc400_0003;
    pub(super) const AFFINITY_INFO_32: u32 = 0x8400_0004;
    pub(super) const AFFINITY_INFO: u32 = 0xc400_0004;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
    pub(super) const SYSTEM_RESET: u32 = 0x8400_0009;
    pub(super) const PSCI_FEATURES: u32 = 0x8400_000a;
    pub(super) const SYSTEM_RESET2_32: u32 = 0x8400_0012;
    pub(super) const SYSTEM_RESET2: u32 = 0xc400_0012;
    pub(super) const SMCCC_VERSION: u32 = 0x8000_0000;
    pub(super) const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
    /// Mitigations of speculation attacks: the engine does not speculate.
    pub(super) const ARCH_WORKAROUND_1: u32 = 0x8000_8000;
    pub(super) const ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
    pub(super) const ARCH_WORKAROUND_3: u32 = 0x8000_3fff;
}

/// Results (DEN 0022, 5.2.2).
mod result {
    pub(super) const SUCCESS: i64 = 0;
    pub(super) const NOT_SUPPORTED: i64 = -1;
    pub(super) const INVALID_PARAMETERS: i64 = -2;
    pub(super) const ALREADY_ON: i64 = -4;
    pub(super) const ON_PENDING: i64 = -5;
    pub(super) const INVALID_ADDRESS: i64 = -9;
}

/// PSCI 1.1 and SMCCC 1.1, major version in the upper half.
const VERSION_1_1: i64 = 0x0001_0001;
/// power_state of CPU_SUSPEND: the StateID. Above it are StateType (0 is standby) and PowerLevel (0 is the core).
const POWER_STATE_ID: u32 = 0xffff;
/// MIGRATE_INFO_TYPE: no trusted OS that would have to migrate.
const NO_TRUSTED_OS: i64 = 2;
/// AFFINITY_INFO.
const AFFINITY_ON: i64 = 0;
const AFFINITY_OFF: i64 = 1;
const AFFINITY_ON_PENDING: i64 = 2;
/// SMCCC_ARCH_FEATURES: implemented, and this PE needs no call.
const NOT_AFFECTED: i64 = 1;

impl Cpu {
    /// HVC #imm: a call at EL1 with immediate 0. Results are in x0 to x3, other registers stay.
    ///
    /// # Errors
    /// UNDEFINED at EL0 and for other immediates, which nobody serves.
    pub(crate) fn hypervisor_call(&mut self, imm: u16) -> Result<(), Exception> {
        if self.at_el0() || imm != 0 {
            return Err(Exception::undefined());
        }
        let [x0, x1, x2, x3] = [0, 1, 2, 3].map(|n| self.state.x[n]);
        let id = x0 as u32; // W0: bits [63:32] are ignored (DEN 0028, 2.5)
        let low = |value: u64| value & u64::from(u32::MAX);
        let answer = match id {
            function::PSCI_VERSION | function::SMCCC_VERSION => VERSION_1_1,
            function::CPU_OFF => {
                self.cluster.turn_off(self.index);
                self.cluster.signal(self.index).raise(pending::RECHECK);
                return Ok(()); // no return: the next border puts the vCPU to sleep
            }
            function::CPU_SUSPEND | function::CPU_SUSPEND_32 => self.cpu_suspend(x1 as u32),
            function::CPU_ON => self.cpu_on(x1, x2, x3),
            function::CPU_ON_32 => self.cpu_on(low(x1), low(x2), low(x3)),
            function::AFFINITY_INFO => self.affinity_info(x1, x2),
            function::AFFINITY_INFO_32 => self.affinity_info(low(x1), low(x2)),
            function::MIGRATE_INFO_TYPE => NO_TRUSTED_OS,
            function::SYSTEM_OFF => {
                self.cluster.stop_for(Exit::SystemOff);
                return Ok(());
            }
            // The architectural reset type is 0; others are the vendor's, and there are none.
            function::SYSTEM_RESET2 | function::SYSTEM_RESET2_32 if low(x1) != 0 => {
                result::INVALID_PARAMETERS
            }
            function::SYSTEM_RESET | function::SYSTEM_RESET2 | function::SYSTEM_RESET2_32 => {
                self.cluster.stop_for(Exit::SystemReset);
                return Ok(());
            }
            function::PSCI_FEATURES => psci_features(x1 as u32),
            function::SMCCC_ARCH_FEATURES => arch_features(x1 as u32),
            function::ARCH_WORKAROUND_1 | function::ARCH_WORKAROUND_2 | function::ARCH_WORKAROUND_3 => {
                result::SUCCESS
            }
            _ => result::NOT_SUPPORTED,
        };
        // What is asked for and not there is no mistake: software finds out in this way what there is.
        if matches!(answer, result::INVALID_PARAMETERS | result::INVALID_ADDRESS) {
            let what =
                format_args!("vCPU {}: PSCI call {id:#x} ({x1:#x}, {x2:#x}) gives {answer}", self.index);
            self.cluster.observation.errors.report("PSCI calls with parameters that are refused", what);
        }
        self.state.x[0] = answer as u64;
        Ok(())
    }

    /// CPU_SUSPEND (DEN 0022, 5.4), power_state in the original format. Whatever its StateID, in which the caller may put
    /// what it likes, a standby state of the core ends as WFI does: with an interrupt, masked or not.
    fn cpu_suspend(&mut self, power_state: u32) -> i64 {
        if power_state & !POWER_STATE_ID != 0 {
            return result::INVALID_PARAMETERS;
        }
        self.sleep_until_wake_up();
        result::SUCCESS
    }

    fn cpu_on(&self, affinity: u64, entry: u64, context: u64) -> i64 {
        let Some(cpu) = cpu_of_affinity(affinity, self.cluster.cpus()) else {
            return result::INVALID_PARAMETERS;
        };
        if !self.cluster.can_start_at(entry) {
            return result::INVALID_ADDRESS;
        }
        match self.cluster.turn_on(cpu, entry, context) {
            Some(PowerState::Off) => result::SUCCESS,
            Some(PowerState::OnPending) => result::ON_PENDING,
            Some(PowerState::On) => result::ALREADY_ON,
            None => result::INVALID_PARAMETERS,
        }
    }

    fn affinity_info(&self, affinity: u64, level: u64) -> i64 {
        // Levels above 0 are optional since PSCI 1.0 (DEN 0022, 5.7).
        if level != 0 {
            return result::INVALID_PARAMETERS;
        }
        let cpu = cpu_of_affinity(affinity, self.cluster.cpus());
        match cpu.and_then(|cpu| self.cluster.power_state(cpu)) {
            Some(PowerState::On) => AFFINITY_ON,
            Some(PowerState::Off) => AFFINITY_OFF,
            Some(PowerState::OnPending) => AFFINITY_ON_PENDING,
            None => result::INVALID_PARAMETERS,
        }
    }
}

fn psci_features(id: u32) -> i64 {
    match id {
        // For CPU_SUSPEND the answer has flags: neither the extended format nor OS-initiated mode.
        function::PSCI_VERSION
        | function::CPU_SUSPEND
        | function::CPU_SUSPEND_32
        | function::CPU_OFF
        | function::CPU_ON
        | function::CPU_ON_32
        | function::AFFINITY_INFO
        | function::AFFINITY_INFO_32
        | function::MIGRATE_INFO_TYPE
        | function::SYSTEM_OFF
        | function::SYSTEM_RESET
        | function::SYSTEM_RESET2
        | function::SYSTEM_RESET2_32
        | function::PSCI_FEATURES
        | function::SMCCC_VERSION => result::SUCCESS,
        _ => result::NOT_SUPPORTED,
    }
}

fn arch_features(id: u32) -> i64 {
    match id {
        function::SMCCC_VERSION | function::SMCCC_ARCH_FEATURES => result::SUCCESS,
        function::ARCH_WORKAROUND_1 | function::ARCH_WORKAROUND_2 | function::ARCH_WORKAROUND_3 => {
            NOT_AFFECTED
        }
        _ => result::NOT_SUPPORTED,
    }
}
