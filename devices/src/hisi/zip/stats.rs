//! What the engine has done: for people (a snapshot of totals) and for the guest (counters of the cores).

use std::sync::atomic::{AtomicU64, Ordering};

use super::regs::{COMPRESSION_CORES, CORES};
use super::sqe::results;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Queue type 0.
    Compress,
    /// Queue type 1.
    Decompress,
}

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

/// One core's counters.
#[derive(Debug, Default)]
pub(super) struct Core {
    pub(super) taken: AtomicU64,
    pub(super) right: AtomicU64,
    pub(super) wrong: AtomicU64,
    pub(super) done: AtomicU64,
    pub(super) max_delay_ns: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) produced: AtomicU64,
}

/// One request, for the statistics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) is_ok: bool,
    pub(super) consumed: u32,
    pub(super) produced: u32,
    pub(super) ns: u64,
}

impl Sample {
    /// Of a request whose results are in its SQE.
    pub(super) fn of_sqe(sqe: &[u8], ns: u64) -> Self {
        let (is_ok, consumed, produced) = results(sqe);
        Self { is_ok, consumed, produced, ns }
    }
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    commands: AtomicU64,
    errors: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    busy_ns: AtomicU64,
    pub(super) cores: [Core; CORES],
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

impl Stats {
    /// Counts a request of queue `qn`; `None` for a direction that there is no core for.
    pub(super) fn count(&self, direction: Option<Direction>, qn: u16, sample: Sample) {
        add(&self.commands, 1);
        add(&self.errors, u64::from(!sample.is_ok));
        add(&self.bytes_in, sample.consumed.into());
        add(&self.bytes_out, sample.produced.into());
        add(&self.busy_ns, sample.ns);
        let qn = usize::from(qn);
        let core = match direction {
            Some(Direction::Compress) => qn % COMPRESSION_CORES,
            Some(Direction::Decompress) => COMPRESSION_CORES + qn % (CORES - COMPRESSION_CORES),
            None => return,
        };
        let Some(core) = self.cores.get(core) else { return };
        add(&core.taken, 1);
        add(if sample.is_ok { &core.right } else { &core.wrong }, 1);
        add(&core.done, 1);
        add(&core.consumed, sample.consumed.into());
        add(&core.produced, sample.produced.into());
        core.max_delay_ns.fetch_max(sample.ns, Ordering::Relaxed);
    }

    /// The totals now.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            commands: self.commands.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            busy_ns: self.busy_ns.load(Ordering::Relaxed),
        }
    }

    /// The guest's counters start again; the totals stay.
    pub(super) fn reset_cores(&self) {
        for core in &self.cores {
            let Core { taken, right, wrong, done, max_delay_ns, consumed, produced } = core;
            for counter in [taken, right, wrong, done, max_delay_ns, consumed, produced] {
                counter.store(0, Ordering::Relaxed);
            }
        }
    }
}
