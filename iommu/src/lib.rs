//! Arm SMMUv3, Non-secure programming interface: IHI 0070.
//!
//! [`Smmu`] is an MMIO device to the guest and a [`hw::DmaPort`] to devices: each access is translated by stream and
//! PASID, through stream table, context descriptor and the process's own translation table. Faults are recorded,
//! and where the context says so the access stalls until the guest answers.
//!
//! Modules, each of which uses only those above it:
//!
//! | Module | Contents |
//! |---|---|
//! | [`spec`] | wire formats and registers |
//! | [`features`] | what is offered; ID registers |
//! | `lock` | locking of the state |
//! | `queue` | index arithmetic of the queues |
//! | `stage2` | stage 2 translation |
//! | `transaction` | transactions and their faults |
//! | `context` | context descriptors |
//! | `stream` | stream table entries; the configuration of a stream |
//! | `config_cache` | cached configuration |
//! | `tlb` | cached translations |
//! | `memo` | what a thread remembers of its latest translations |
//! | `stats` | counters |
//! | `stalls` | stalled transactions |
//! | `state` | register values and rules of plain writes |
//! | `faults` | what goes wrong on purpose |
//! | `ats` | endpoints with a translation cache, and their invalidations |
//! | `late_answers` | answers that a fault plan holds back |
//! | `smmu` | the structure of all these, and its locks |
//! | `interrupts` | interrupts and global errors |
//! | `eventq` | event queue |
//! | `priq` | page request queue |
//! | `translate` | translation of a transaction |
//! | `inspect` | a look at what is in memory, for the user |
//! | `fault_handling` | record, stall and abort of a transaction that faults |
//! | `answers` | CMD_RESUME and CMD_PRI_RESP |
//! | `cmdq` | command queue |
//! | `registers` | MMIO |
//! | `port` | DMA |
//! | `translation_request` | Translation Requests |
//! | `translated_access` | accesses with translated addresses |
//! | `ats_port` | what endpoints with a translation cache call |
//! | `saved` | the state as it is saved |
//! | `life_cycle` | reset, pause, save and restore |
//!
//! Locks, taken in this order: the command consumer's, that of late answers, the state's, then those of interrupt
//! lines, MSI sink and waiters. An access whose configuration is cached and that has no fault takes none of these.
//! CMD_SYNC and a reset wait for accesses that are counted in with the consumer's lock only, which no access takes.
//!
//! Deliberately absent, and not advertised: Secure and Realm state, MPAM, address translation operations, big-endian
//! tables, 52-bit addresses with granules below 64 KiB, 128-bit descriptors, termination other than by an abort.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

mod answers;
mod ats;
mod ats_port;
mod cmdq;
mod config_cache;
mod context;
mod eventq;
mod fault_handling;
mod faults;
pub mod features;
mod inspect;
mod interrupts;
mod late_answers;
mod life_cycle;
mod lock;
mod memo;
mod port;
mod priq;
mod queue;
mod registers;
mod saved;
mod smmu;
pub mod spec;
mod stage2;
mod stalls;
mod state;
mod stats;
mod stream;
mod tlb;
mod transaction;
mod translate;
mod translated_access;
mod translation_request;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hw::schedule::SleepMutex;
use hw::{Alarms, Clock, DeviceId, Faults, GuestErrors, MsiSink, Ram, Scheduler, TimeSeries, Trace, Waiter};
use tcache::{Age, Inflight};

pub use features::{Features, Httu, OutputSize, StallModel};
pub use smmu::{Smmu, Wires};
pub use spec::regs::WINDOW_BYTES;
pub use stats::Snapshot;

use ats::Endpoints;
use cmdq::SyncTimeout;
use config_cache::ConfigCache;
use faults::FaultPoints;
use late_answers::LateAnswers;
use state::{Mode, State};
use stats::Stats;
use tlb::Tlb;

/// What an SMMU is made with.
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
    /// The alarm service that calls when that time is over.
    pub alarms: Arc<dyn Alarms>,
    /// What runs those who make accesses and give commands.
    pub scheduler: Arc<dyn Scheduler>,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Who takes what happens for a timeline.
    pub trace: Trace,
    /// Where mistakes of software are counted.
    pub errors: GuestErrors,
}

impl Smmu {
    /// An SMMU as after reset.
    ///
    /// # Panics
    /// If `features` has a number beyond what its field's text allows.
    #[must_use]
    pub fn new(config: SmmuConfig) -> Arc<Self> {
        let SmmuConfig {
            features,
            ram,
            msi,
            device_id,
            wires,
            clock,
            alarms,
            scheduler,
            faults,
            trace,
            errors,
        } = config;
        assert!(features.are_sound(), "the machine, not the guest, chose these: {features:?}");
        Arc::new_cyclic(|this| Self {
            describes_commands: faults.is_planned() || trace.is_on(),
            trace,
            errors,
            page_faults: TimeSeries::default(),
            clock: Arc::clone(&clock),
            endpoints: Endpoints::new(clock, alarms, Arc::new(SyncTimeout(Weak::clone(this)))),
            output_end: features.output_mask() + 1,
            checks_translated: AtomicBool::new(false),
            features,
            ram,
            msi,
            device_id,
            wires,
            state: Mutex::new(State::at_reset()),
            consumer: SleepMutex::new(Arc::clone(&scheduler), ()),
            mode: AtomicU8::new(Mode::Bypass as u8),
            age: Age::default(),
            configs: ConfigCache::new(),
            tlb: Tlb::new(),
            inflight: Inflight::new(&scheduler),
            stats: Stats::default(),
            late_answers: LateAnswers::default(),
            never_waits: Waiter::new(&*scheduler),
            delays: faults.delays(this.clone()),
            faults: FaultPoints(faults),
            resets: AtomicU64::new(0),
        })
    }

    /// Counters, readable at any time.
    #[must_use]
    pub fn stats(&self) -> Snapshot {
        // For reports, which are also made after a thread has panicked.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let unanswered_stalls = state.stalls.recorded_count() as u64;
        let page_faults_over_time = self.page_faults.counts();
        Snapshot {
            unanswered_stalls,
            page_faults_over_time: Some(page_faults_over_time),
            ..self.stats.snapshot(self.inflight.locals())
        }
    }
}
