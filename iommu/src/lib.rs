//! Arm SMMUv3, Non-secure programming interface: IHI 0070.
//!
//! [`Smmu`] is an MMIO device to the guest and a [`hw::DmaPort`] to devices: each access is translated by stream and
//! PASID, through stream table, context descriptor and the process's own translation table. Faults are recorded,
//! and where the context says so the access stalls until the guest answers.
//!
//! | Module | Duty |
//! |---|---|
//! | [`spec`] | wire formats and registers |
//! | [`features`] | what is offered; ID registers |
//! | `registers` | MMIO, enables, acknowledgements |
//! | `cmdq`, `eventq`, `queue` | the queues, interrupts, global errors |
//! | `config`, `config_cache` | stream table and context descriptors |
//! | `translate`, `stage2`, `tlb`, `memo` | translation and what it remembers, in caches of the crate `tcache` |
//! | `stall` | stalled transactions |
//! | `ats`, `translation_request` | endpoints with a translation cache: messages; requests and translated accesses |
//! | `priq` | page requests |
//! | `port` | DMA, and with it what CMD_SYNC waits for |
//! | `faults` | what goes wrong on purpose |
//!
//! Locks, taken in this order: the command consumer's, the state's, then those of interrupt lines, MSI sink and
//! waiters. The way of an access that faults nowhere takes none. CMD_SYNC waits for accesses under way with the
//! consumer's lock only, which no access takes.
//!
//! Deliberately absent, and not advertised: Secure and Realm state, MPAM, address translation operations, big-endian
//! tables, 52-bit addresses with granules below 64 KiB, 128-bit descriptors, termination other than by an abort.

#![forbid(unsafe_code)]

mod ats;
mod cmdq;
mod config;
mod config_cache;
mod eventq;
mod faults;
pub mod features;
mod memo;
mod port;
mod priq;
mod queue;
mod registers;
pub mod spec;
mod stage2;
mod stall;
mod stats;
mod tlb;
mod translate;
mod translation_request;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::{Alarms, Clock, DeviceId, Faults, IrqLine, MsiSink, Ram};
use tcache::{Age, Inflight};

pub use features::{Features, Httu, OutputSize, StallModel};
pub use spec::regs::WINDOW_BYTES;
pub use stats::Snapshot;

use ats::AtsSide;
use config_cache::ConfigCache;
use faults::HeldAnswers;
use registers::State;
use stats::{Stats, Tallies};
use tlb::Tlb;
use translate::Mode;

/// The SMMU's interrupt outputs: pulses, for edge-triggered inputs.
pub struct Wires {
    /// The event queue is no longer empty.
    pub eventq: Arc<dyn IrqLine>,
    /// The page request queue is no longer empty.
    pub priq: Arc<dyn IrqLine>,
    /// A CMD_SYNC that asked for it is complete.
    pub cmdq_sync: Arc<dyn IrqLine>,
    /// A global error has become active.
    pub gerror: Arc<dyn IrqLine>,
}

impl Wires {
    /// Wires that lead nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        let line = || Arc::new(hw::UnconnectedLine);
        Self { eventq: line(), priq: line(), cmdq_sync: line(), gerror: line() }
    }
}

/// What an SMMU is made of.
pub struct SmmuConfig {
    /// What it offers.
    pub features: Features,
    /// Where tables, queues and the devices' data are.
    pub ram: Arc<Ram>,
    /// Where messages go: the devices' after translation, and its own.
    pub msi: Arc<dyn MsiSink>,
    /// Its own identity at the ITS.
    pub device_id: DeviceId,
    /// Its interrupt outputs.
    pub wires: Wires,
    /// Guest time: how long endpoints may take.
    pub clock: Arc<dyn Clock>,
    /// Who calls when that time is over.
    pub alarms: Arc<dyn Alarms>,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

/// An SMMUv3.
pub struct Smmu {
    features: Features,
    ram: Arc<Ram>,
    msi: Arc<dyn MsiSink>,
    device_id: DeviceId,
    wires: Wires,
    state: Mutex<State>,
    /// Held while commands are executed or the enables change.
    consumer: Mutex<()>,
    /// A copy of what CR0 and GBPA say, as [`Mode`], for accesses.
    mode: AtomicU8,
    /// The end of the physical address space.
    output_end: u64,
    /// A copy of CR0.ATSCHK.
    checks_translated: AtomicBool,
    age: Age,
    configs: ConfigCache,
    tlb: Tlb,
    ats: AtsSide,
    inflight: Inflight<Tallies>,
    stats: Stats,
    faults: Faults,
    held_answers: HeldAnswers,
}

impl Smmu {
    /// An SMMU as after reset.
    ///
    /// # Panics
    /// If `features` has a number beyond what its field's text allows.
    #[must_use]
    pub fn new(config: SmmuConfig) -> Arc<Self> {
        let SmmuConfig { features, ram, msi, device_id, wires, clock, alarms, faults } = config;
        assert!(features.are_sound(), "the machine, not the guest, chose these: {features:?}");
        Arc::new_cyclic(|smmu| Self {
            ats: AtsSide::new(smmu, clock, alarms),
            output_end: features.output_mask() + 1,
            checks_translated: AtomicBool::new(false),
            features,
            ram,
            msi,
            device_id,
            wires,
            state: Mutex::new(State::at_reset()),
            consumer: Mutex::default(),
            mode: AtomicU8::new(Mode::Bypass as u8),
            age: Age::default(),
            configs: ConfigCache::new(),
            tlb: Tlb::new(),
            inflight: Inflight::default(),
            stats: Stats::default(),
            faults,
            held_answers: HeldAnswers::new(smmu),
        })
    }

    /// Counters, readable at any time.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        let unanswered_stalls = self.state().stalls.recorded_count() as u64;
        Snapshot { unanswered_stalls, ..self.stats.snapshot(self.inflight.locals()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumer(&self) -> MutexGuard<'_, ()> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Smmu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}
