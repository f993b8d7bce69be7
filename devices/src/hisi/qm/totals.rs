//! What the engine has done, for people: the guest has counters of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::Done;

/// Totals since the machine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that came to an end, good or bad.
    pub commands: u64,
    /// Requests that ended with an error status.
    pub errors: u64,
    /// Input bytes consumed.
    pub bytes_in: u64,
    /// Output bytes produced.
    pub bytes_out: u64,
    /// Guest time spent in requests, in nanoseconds, waits for pages included; summed over queues.
    pub busy_ns: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    commands: AtomicU64,
    errors: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    busy_ns: AtomicU64,
}

impl Counts {
    pub(super) fn count(&self, done: Done, ns: u64) {
        let add = |counter: &AtomicU64, value: u64| counter.fetch_add(value, Ordering::Relaxed);
        let Done { is_ok, consumed, produced } = done;
        add(&self.commands, 1);
        add(&self.errors, u64::from(!is_ok));
        add(&self.bytes_in, consumed);
        add(&self.bytes_out, produced);
        add(&self.busy_ns, ns);
    }

    pub(super) fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            commands: load(&self.commands),
            errors: load(&self.errors),
            bytes_in: load(&self.bytes_in),
            bytes_out: load(&self.bytes_out),
            busy_ns: load(&self.busy_ns),
        }
    }
}
