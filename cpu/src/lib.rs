//! The AArch64 CPU engine: an EL0/EL1 processing element in software.
//!
//! One table ([`insn`], from `spec/*.isa`) says what instructions there are; [`exec`] says what each does, [`code`]
//! keeps blocks of them, which `interp` runs and `jit` translates, [`mem`] translates and accesses memory, [`sys`] is the
//! system side: registers, timers, PSCI and what vCPUs ask of one another. [`transfer`] serves CPUs that are not ours.
//! Deliberately absent: EL2 and EL3, AArch32, big-endian data. Threads belong to the caller: one per [`Cpu`], which calls
//! [`Cpu::run`].

#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]
// What the translator alone uses of the parts that all tiers share has no user on hosts without a back end.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

pub mod code;
pub mod exception;
pub mod exec;
pub mod insn;
pub mod interp;
#[cfg(target_arch = "x86_64")]
mod jit;
#[cfg(target_arch = "x86_64")]
mod lockstep;
pub mod mem;
mod observe;
mod run;
mod saved;
mod sizes;
pub mod softfloat;
pub mod state;
pub mod sys;
#[cfg(test)]
pub(crate) mod testbed;
pub mod transfer;

use std::sync::Arc;

pub use exception::Exception;
pub use insn::Features;
pub use mem::fetch_as;
pub use observe::{CodeKind, CodeMap, Exits, MappedCode, Observation, Statistics, Times};
pub use run::Tier;
pub use sizes::PA_BITS;
pub use state::{State, SysRegs};
pub use sys::Exit;
pub use sys::cluster::{Bus, Cluster, ClusterConfig};
pub use sys::debug::debugger::{DebugPoints, Watchpoint, debug_registers};
pub use sys::signals::VcpuSignals;

/// Whether guest code is translated on this kind of host, as far as the host allows it.
pub const TRANSLATES: bool = cfg!(target_arch = "x86_64");

/// One vCPU. It stays on one thread while it runs; others reach it through [`Cluster`].
pub struct Cpu {
    /// Everything the guest can see, hot fields first.
    pub state: State,
    /// Translation caches and the exclusive monitor.
    pub mem: mem::Context,
    /// Blocks of code, as all tiers know them.
    pub(crate) code: code::Code,
    /// Translated code, if there is any.
    #[cfg(target_arch = "x86_64")]
    pub(crate) jit: Option<Box<jit::Jit>>,
    /// What translated code and the functions that it calls hand each other.
    #[cfg(target_arch = "x86_64")]
    pub(crate) frame: jit::Frame,
    /// Instructions that may still be run, where that is counted.
    pub(crate) budget: u64,
    /// What has been counted, but for what others keep.
    pub(crate) counts: Statistics,
    /// Instructions that translated code left to their handlers, by `Op`.
    pub(crate) handler_calls: Box<[u64; insn::ROW_COUNT]>,
    /// Where the time goes.
    pub(crate) watch: observe::Stopwatch,
    /// What the system side keeps, apart from registers.
    pub(crate) local: sys::Local,
    /// What all vCPUs share.
    pub cluster: Arc<Cluster>,
    /// Which vCPU this is, from 0.
    pub index: usize,
}

impl Cpu {
    /// vCPU `index` of `cluster`, in its reset state: EL1h, MMU off, interrupts masked, pc 0.
    ///
    /// # Panics
    /// If the cluster has no such vCPU.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, index: usize) -> Self {
        let state = State::new(cluster.signal(index).word());
        let mem = mem::Context::new(&state.sys);
        let local = sys::Local::new(cluster.cpus());
        let mut code = code::Code::new(cluster.features, cluster.tier.heat());
        #[cfg(target_arch = "x86_64")]
        let jit = if cluster.tier == Tier::Interpreter {
            None
        } else {
            let keeps_all_flags = cluster.tier == Tier::Lockstep;
            let jit = jit::Jit::new(cluster.cpus(), keeps_all_flags, cluster.observation.code_map.clone());
            jit.map_err(|error| cluster.no_translation(error)).ok().map(Box::new)
        };
        #[cfg(target_arch = "x86_64")]
        match &jit {
            Some(jit) => code.untranslated = jit.untranslated(),
            None => code.never_translate(),
        }
        #[cfg(not(target_arch = "x86_64"))]
        code.never_translate();
        Self {
            state,
            mem,
            code,
            #[cfg(target_arch = "x86_64")]
            jit,
            #[cfg(target_arch = "x86_64")]
            frame: jit::Frame::default(),
            budget: 0,
            counts: Statistics::default(),
            handler_calls: Box::new([0; insn::ROW_COUNT]),
            watch: observe::Stopwatch::new(cluster.observation.timed.then(|| Arc::clone(&cluster.clock))),
            local,
            cluster,
            index,
        }
    }
}
