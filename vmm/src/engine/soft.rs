//! The built-in CPU engine behind the seam, with the interrupt controller of the `devices` crate.

use std::sync::{Arc, Mutex, PoisonError};

use cpu::{Cluster, ClusterConfig, Cpu, DebugPoints, Observation, Statistics, Tier, VcpuSignals};
use devices::gic::{Gic, GicConfig, virt_affinity};
use hw::saved::{RestoreError, SavedState};
use hw::{Alarms, Clock, IrqLine, LifeCycle, MsiSink, Pa, Ram, Scheduler};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::board::map;
use crate::bus::Bus;
use crate::cli::TierChoice;
use crate::engine::debug::{CoreRegisters, DebugStop, DebugVcpu, Space};
use crate::engine::statistics::EngineReport;
use crate::engine::{Engine, Exit, Foundation, Ground, Registers, Vcpu};
use crate::exit::Failed;
use crate::host::random::HostEntropy;
use crate::sandbox::calls::EngineCalls;

/// What this engine asks of the host beyond what every thread does: nothing.
pub const SYSTEM_CALLS: EngineCalls = EngineCalls { vcpu: &[], every: &[] };

/// What can be asked of this engine.
#[derive(Clone, Default)]
pub struct SoftOptions {
    /// How guest code is run.
    pub tier: TierChoice,
    /// What is wanted to be known of the vCPUs.
    pub observation: Observation,
}

/// Our GIC and what the vCPUs will be made from.
pub struct SoftFoundation {
    signals: VcpuSignals,
    gic: Arc<Gic>,
    ram: Arc<Ram>,
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    scheduler: Arc<dyn Scheduler>,
    options: SoftOptions,
}

impl SoftFoundation {
    /// A GIC, and the wires from it to vCPUs that are still to be made.
    #[must_use]
    pub fn new(ground: &Ground<'_>) -> Self {
        let &Ground { cpus, ram, clock, alarms, scheduler, errors, soft } = ground;
        // The GIC drives the vCPUs' interrupt inputs, which therefore exist before both.
        let signals = VcpuSignals::new(cpus, &**scheduler);
        let gic = Gic::new(GicConfig {
            affinities: (0..cpus).map(virt_affinity).collect(),
            spis: map::spi::COUNT,
            cpu_irq: (0..cpus).map(|i| signals.irq_line(i)).collect(),
            cpu_fiq: (0..cpus).map(|i| signals.fiq_line(i)).collect(),
            cpu_wake: (0..cpus).map(|i| signals.wake_line(i)).collect(),
            ram: Arc::clone(ram),
            its_base: map::ITS.pa(),
            errors: errors.for_model("gic"),
        });
        let (ram, clock, alarms) = (Arc::clone(ram), Arc::clone(clock), Arc::clone(alarms));
        let mut options = soft.clone();
        options.observation.errors = errors.for_model("cpu");
        Self { signals, gic, ram, clock, alarms, scheduler: Arc::clone(scheduler), options }
    }
}

impl Foundation for SoftFoundation {
    fn spi(&self, n: u32) -> Arc<dyn IrqLine> {
        self.gic.spi(n)
    }

    fn msi(&self) -> Arc<dyn MsiSink> {
        self.gic.clone()
    }

    fn pa_bits(&self) -> u32 {
        cpu::PA_BITS
    }

    fn attach(&self, bus: &mut Bus) -> anyhow::Result<()> {
        bus.attach(map::GICD, self.gic.distributor())?;
        bus.attach(map::redistributors(self.signals.len()), self.gic.redistributors())?;
        bus.attach(map::ITS, self.gic.its())?;
        Ok(())
    }

    fn complete(self: Box<Self>, bus: Arc<Bus>) -> Box<dyn Engine> {
        let Self { signals, gic, ram, clock, alarms, scheduler, options } = *self;
        let cpus = signals.len();
        let line = |ppi| (0..cpus).map(|i| gic.ppi(i, ppi)).collect::<Vec<Arc<dyn IrqLine>>>();
        let (virtual_timer, physical_timer) = (line(map::ppi::VIRTUAL_TIMER), line(map::ppi::PHYSICAL_TIMER));
        let tier = match options.tier {
            TierChoice::Auto => Tier::Auto,
            TierChoice::Interp => Tier::Interpreter,
            TierChoice::Jit => Tier::Translated,
            TierChoice::Lockstep => Tier::Lockstep,
        };
        Box::new(SoftEngine {
            tier: options.tier,
            statistics: Arc::new(Mutex::new(vec![Statistics::default(); cpus])),
            gic: Arc::clone(&gic),
            cluster: Cluster::new(ClusterConfig {
                signals,
                features: cpu::Features::default(),
                tier,
                observation: options.observation,
                ram,
                bus,
                gic,
                clock,
                entropy: Arc::new(HostEntropy::default()),
                alarms,
                scheduler,
                virtual_timer,
                physical_timer,
            }),
        })
    }
}

/// vCPUs run by the `cpu` crate, one host thread each.
struct SoftEngine {
    tier: TierChoice,
    /// Of each vCPU, when it has last returned.
    statistics: Arc<Mutex<Vec<Statistics>>>,
    cluster: Arc<Cluster>,
    gic: Arc<Gic>,
}

impl Engine for SoftEngine {
    fn name(&self) -> &'static str {
        "soft"
    }

    fn vcpu(&self, index: usize) -> Box<dyn Vcpu> {
        Box::new(SoftVcpu { cpu: self.cluster.vcpu(index), statistics: Arc::clone(&self.statistics) })
    }

    fn check(&self) -> anyhow::Result<Option<String>> {
        let why = match (self.tier, self.cluster.translation_refused()) {
            (TierChoice::Jit | TierChoice::Lockstep, None) if !cpu::TRANSLATES => {
                format!(
                    "guest code is translated on x86-64 hosts only, and this one is {}",
                    std::env::consts::ARCH
                )
            }
            (_, None) => return Ok(None),
            (_, Some(error)) => format!("the host gives no memory for translated code ({error})"),
        };
        match self.tier {
            TierChoice::Jit | TierChoice::Lockstep => {
                Err(Failed::new(format!("{why}; try --tier interp")).into())
            }
            TierChoice::Auto | TierChoice::Interp => {
                Ok(Some(format!("{why}: guest code is interpreted, which is slower")))
            }
        }
    }

    fn statistics(&self) -> Option<EngineReport> {
        Some(EngineReport::of(&self.statistics.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn stop(&self) {
        self.cluster.stop_all();
    }

    fn resume(&self) {
        self.cluster.resume();
    }

    fn can_debug(&self) -> bool {
        true
    }

    fn reset(&self) {
        LifeCycle::reset(&*self.gic);
        self.cluster.reset();
    }

    fn can_save(&self) -> Result<(), String> {
        Ok(())
    }

    fn save(&self) -> Value {
        let gic = LifeCycle::save(&*self.gic);
        SoftState { gic, cluster: self.cluster.save() }.to_value()
    }

    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let SoftState { gic, cluster } = SoftState::from_value(state)?;
        LifeCycle::restore(&*self.gic, gic).map_err(|error| error.within("gic"))?;
        self.cluster.restore(cluster).map_err(|error| error.within("cluster"))
    }
}

/// What is restored with the engine, before its vCPUs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SoftState {
    gic: Value,
    cluster: Value,
}

impl SavedState for SoftState {
    const VERSION: u32 = 1;
}

struct SoftVcpu {
    cpu: Cpu,
    statistics: Arc<Mutex<Vec<Statistics>>>,
}

fn exit_of(exit: cpu::Exit) -> Exit {
    match exit {
        cpu::Exit::SystemOff => Exit::SystemOff,
        cpu::Exit::SystemReset => Exit::SystemReset,
        cpu::Exit::Stopped => Exit::Stopped,
        // A budget is given for steps alone.
        cpu::Exit::BudgetSpent => Exit::Debug(DebugStop::Stepped),
        cpu::Exit::Breakpoint => Exit::Debug(DebugStop::Breakpoint),
        cpu::Exit::Watchpoint { address, write } => Exit::Debug(DebugStop::Watchpoint { address, write }),
    }
}

impl DebugVcpu for SoftVcpu {
    fn core(&self) -> CoreRegisters {
        let state = &self.cpu.state;
        CoreRegisters { general: self.general(), v: state.v, fpsr: state.fpsr, fpcr: state.fpcr }
    }

    fn set_core(&mut self, registers: &CoreRegisters) {
        self.set_general(&registers.general);
        self.cpu.state.v = registers.v;
        self.cpu.set_fp_control(registers.fpcr, registers.fpsr);
    }

    fn system(&mut self, index: usize) -> Option<u64> {
        self.cpu.debug_register(index)
    }

    fn set_system(&mut self, index: usize, value: u64) -> bool {
        self.cpu.set_debug_register(index, value)
    }

    fn read(&self, space: Space, address: u64, out: &mut [u8]) -> usize {
        match space {
            Space::Virtual => self.cpu.debug_read(address, out),
            Space::Physical => self.cpu.debug_read_physical(Pa(address), out),
        }
    }

    fn write(&mut self, space: Space, address: u64, data: &[u8]) -> bool {
        match space {
            Space::Virtual => self.cpu.debug_write(address, data),
            Space::Physical => self.cpu.debug_write_physical(Pa(address), data),
        }
    }

    fn set_points(&mut self, points: &Arc<DebugPoints>) {
        self.cpu.set_debug_points(Arc::clone(points));
    }

    fn step(&mut self) -> anyhow::Result<Exit> {
        Ok(exit_of(self.cpu.step()))
    }

    fn forget_stop(&mut self) {
        self.cpu.forget_debug_stop();
    }
}

impl SoftVcpu {
    fn general(&self) -> Registers {
        let state = &self.cpu.state;
        let mut x = [0; 31];
        x.copy_from_slice(&state.x[..31]);
        Registers { x, sp: state.x[31], pc: state.pc, pstate: self.cpu.pstate() }
    }

    fn set_general(&mut self, registers: &Registers) {
        // First PSTATE, which decides what the stack pointer in use is.
        self.cpu.set_pstate(registers.pstate);
        let state = &mut self.cpu.state;
        state.x[..31].copy_from_slice(&registers.x);
        state.x[31] = registers.sp;
        state.pc = registers.pc;
    }
}

impl Vcpu for SoftVcpu {
    fn set_boot_state(&mut self, pc: Pa, x0: u64) -> anyhow::Result<()> {
        self.cpu.set_boot_state(pc.0, x0);
        Ok(())
    }

    fn power_on(&mut self) -> anyhow::Result<()> {
        self.cpu.power_on();
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<Exit> {
        let exit = self.cpu.run(None);
        let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        statistics[self.cpu.index] = self.cpu.statistics();
        Ok(exit_of(exit))
    }

    fn registers(&self) -> anyhow::Result<Registers> {
        Ok(self.general())
    }

    fn system_registers(&self) -> Vec<(&'static str, u64)> {
        let sys = &self.cpu.state.sys;
        vec![
            ("SCTLR_EL1", sys.sctlr),
            ("TCR_EL1", sys.tcr),
            ("TTBR0_EL1", sys.ttbr0),
            ("TTBR1_EL1", sys.ttbr1),
            ("MAIR_EL1", sys.mair),
            ("VBAR_EL1", sys.vbar),
            ("ELR_EL1", sys.elr),
            ("SPSR_EL1", sys.spsr),
            ("ESR_EL1", sys.esr),
            ("FAR_EL1", sys.far),
        ]
    }

    fn set_registers(&mut self, registers: &Registers) -> anyhow::Result<()> {
        self.set_general(registers);
        Ok(())
    }

    fn save(&self) -> Value {
        self.cpu.save()
    }

    fn restore(&mut self, state: Value) -> Result<(), RestoreError> {
        self.cpu.restore(state)
    }

    fn debugged(&mut self) -> Option<&mut dyn DebugVcpu> {
        Some(self)
    }
}
