//! The built-in CPU engine behind the seam.

use std::sync::Arc;

use cpu::{Cluster, Cpu};
use hw::Pa;

use crate::engine::{Engine, Exit, Registers, Vcpu};
use crate::sandbox::calls::EngineCalls;

/// What this engine asks of the host beyond what every thread does: nothing.
pub const SYSTEM_CALLS: EngineCalls = EngineCalls { vcpu: &[], every: &[] };

/// vCPUs run by the `cpu` crate, one host thread each.
pub struct SoftEngine {
    cluster: Arc<Cluster>,
}

impl SoftEngine {
    /// An engine for the vCPUs of a cluster.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Engine for SoftEngine {
    fn name(&self) -> &'static str {
        "soft"
    }

    fn vcpu(&self, index: usize) -> Box<dyn Vcpu> {
        Box::new(SoftVcpu(self.cluster.vcpu(index)))
    }

    fn stop(&self) {
        self.cluster.stop_all();
    }
}

struct SoftVcpu(Cpu);

impl Vcpu for SoftVcpu {
    fn set_boot_state(&mut self, pc: Pa, x0: u64) {
        self.0.set_boot_state(pc.0, x0);
    }

    fn run(&mut self) -> Exit {
        match self.0.run() {
            cpu::Exit::SystemOff => Exit::SystemOff,
            cpu::Exit::SystemReset => Exit::SystemReset,
            cpu::Exit::Stopped => Exit::Stopped,
        }
    }

    fn registers(&self) -> Registers {
        let state = &self.0.state;
        let mut x = [0; 31];
        x.copy_from_slice(&state.x[..31]);
        Registers { x, sp: state.x[31], pc: state.pc, pstate: self.0.pstate() }
    }

    fn set_registers(&mut self, registers: &Registers) {
        let state = &mut self.0.state;
        state.x[..31].copy_from_slice(&registers.x);
        state.x[31] = registers.sp;
        state.pc = registers.pc;
        self.0.set_pstate(registers.pstate);
    }
}
