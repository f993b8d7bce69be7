//! Time as the models see it: a handle that tells it, and a service that calls back at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Guest time in nanoseconds since the machine was made. Monotonic, the same for all CPUs and devices.
pub trait Clock: Send + Sync {
    /// The present time in nanoseconds.
    fn now_ns(&self) -> u64;
}

/// Someone to be called at a time.
pub trait AlarmTarget: Send + Sync {
    /// The deadline has passed. Called on the alarm service's thread: sets a flag, drives a wire, wakes a thread.
    fn alarm(&self);
}

/// The machine's alarm service.
pub trait Alarms: Send + Sync {
    /// Registers a target and returns its slot. Done while the machine is put together.
    fn register(&self, target: Arc<dyn AlarmTarget>) -> usize;

    /// Sets, moves or (`None`) cancels the one deadline of a slot. A deadline in the past fires soon.
    fn set(&self, slot: usize, deadline_ns: Option<u64>);
}

/// A clock for tests, moved by hand.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves the time on.
    pub fn advance_ns(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Alarms for tests: they ring when the test says so.
#[derive(Default)]
pub struct ManualAlarms(Mutex<Vec<Slot>>);

/// Whom to call, and when.
type Slot = (Arc<dyn AlarmTarget>, Option<u64>);

impl ManualAlarms {
    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The earliest deadline that is set.
    #[must_use]
    pub fn next_ns(&self) -> Option<u64> {
        self.slots().iter().filter_map(|(_, deadline)| *deadline).min()
    }

    /// Calls every target, due or not: a late or needless alarm must do no harm.
    pub fn fire(&self) {
        let targets: Vec<_> = self.slots().iter().map(|(target, _)| Arc::clone(target)).collect();
        for target in targets {
            target.alarm();
        }
    }

    /// Calls the targets whose deadline is not after `now_ns`, and forgets those deadlines.
    pub fn ring(&self, now_ns: u64) {
        let mut due = Vec::new();
        for (target, deadline) in self.slots().iter_mut() {
            if deadline.is_some_and(|at| at <= now_ns) {
                *deadline = None;
                due.push(Arc::clone(target));
            }
        }
        for target in due {
            target.alarm();
        }
    }
}

impl Alarms for ManualAlarms {
    fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
        let mut slots = self.slots();
        slots.push((target, None));
        slots.len() - 1
    }

    fn set(&self, slot: usize, deadline_ns: Option<u64>) {
        if let Some((_, deadline)) = self.slots().get_mut(slot) {
            *deadline = deadline_ns;
        }
    }
}
