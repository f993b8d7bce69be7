//! The SMMU as a structure: what it is connected to, its state, its caches, and their locks. What it does is in the
//! modules that use this one.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hw::fault::{Delays, FaultPoint};
use hw::schedule::SleepMutex;
use hw::{Clock, DeviceId, GuestErrors, IrqLine, MsiSink, Ram, TimeSeries, Trace, Waiter};
use tcache::{Age, Inflight};

use crate::ats::Endpoints;
use crate::config_cache::ConfigCache;
use crate::faults::FaultPoints;
use crate::features::Features;
use crate::late_answers::{Delayed, LateAnswers};
use crate::lock::{held, lock};
use crate::state::{Mode, State};
use crate::stats::{Access, PerThread, Stats};
use crate::tlb::Tlb;

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

/// An SMMUv3.
pub struct Smmu {
    pub(crate) features: Features,
    pub(crate) ram: Arc<Ram>,
    pub(crate) msi: Arc<dyn MsiSink>,
    pub(crate) device_id: DeviceId,
    pub(crate) wires: Wires,
    pub(crate) state: Mutex<State>,
    /// Held while commands are executed or the enables change, and while that waits for accesses.
    pub(crate) consumer: SleepMutex<()>,
    /// A copy of what CR0 and GBPA say, as [`Mode`], for accesses.
    pub(crate) mode: AtomicU8,
    /// The end of the physical address space.
    pub(crate) output_end: u64,
    /// A copy of CR0.ATSCHK.
    pub(crate) checks_translated: AtomicBool,
    pub(crate) age: Age,
    pub(crate) configs: ConfigCache,
    pub(crate) tlb: Tlb,
    pub(crate) endpoints: Endpoints,
    pub(crate) inflight: Inflight<PerThread>,
    pub(crate) stats: Stats,
    pub(crate) faults: FaultPoints,
    pub(crate) trace: Trace,
    pub(crate) errors: GuestErrors,
    /// Lookups are told for which command they are: a fault plan or a timeline may ask.
    pub(crate) describes_commands: bool,
    /// Stalls and page requests by guest time.
    pub(crate) page_faults: TimeSeries,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) late_answers: LateAnswers,
    /// Of accesses that never wait.
    pub(crate) never_waits: Arc<Waiter>,
    /// What a fault plan has put off.
    pub(crate) delays: Delays<Delayed>,
    /// Resets begun and ended: odd while one is under way.
    pub(crate) resets: AtomicU64,
}

impl Smmu {
    /// The fault plan mentions these points from now on, and did not before ([`hw::Faults::changed`]): what threads remember of
    /// look-ups is too old, so that each page of an access is looked up.
    pub fn fault_points_added(&self, points: &[FaultPoint]) {
        if points.contains(&FaultPoint::SmmuLookup) {
            self.age.advance();
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn consumer(&self) -> MutexGuard<'_, ()> {
        held(self.consumer.lock())
    }

    #[inline]
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_bits(self.mode.load(Ordering::SeqCst))
    }

    #[inline]
    pub(crate) fn checks_translated(&self) -> bool {
        self.checks_translated.load(Ordering::SeqCst)
    }

    /// Resets so far, for [`Self::is_reset_since`].
    pub(crate) fn resets(&self) -> u64 {
        self.resets.load(Ordering::SeqCst)
    }

    /// Whether what began when [`Self::resets`] was `resets` has been ended by a reset.
    pub(crate) fn is_reset_since(&self, resets: u64) -> bool {
        !resets.is_multiple_of(2) || self.resets() != resets
    }

    /// Whether a reset is under way.
    pub(crate) fn is_in_reset(&self) -> bool {
        !self.resets().is_multiple_of(2)
    }

    /// Counts an access out that is not complete. It is counted in again by the caller, who then asks
    /// [`Self::is_reset_since`].
    pub(crate) fn leave(&self, access: Access<'_>) -> u64 {
        // While the access is still counted in: a reset that has begun waits for it, so it is not missed.
        let resets = self.resets();
        drop(access);
        resets
    }

    /// Copies the enables for accesses.
    pub(crate) fn set_mode(&self, state: &State) {
        self.mode.store(state.mode() as u8, Ordering::SeqCst);
        self.checks_translated.store(state.cr0().atschk(), Ordering::SeqCst);
    }
}

impl fmt::Debug for Smmu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smmu").field("features", &self.features).finish_non_exhaustive()
    }
}
