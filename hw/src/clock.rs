//! Time as the models see it: a handle that tells it, and a service that calls back at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
