//! What the cores of the engine have done: the guest's counters.

use std::sync::atomic::{AtomicU64, Ordering};

use super::regs::{COMPRESSION_CORES, CORES, ZipReg};
use crate::hisi::qm::Done;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// Queue type 0.
    Compress,
    /// Queue type 1.
    Decompress,
}

/// One core's counters.
#[derive(Debug, Default)]
struct Core {
    taken: AtomicU64,
    right: AtomicU64,
    wrong: AtomicU64,
    done: AtomicU64,
    max_delay_ns: AtomicU64,
    consumed: AtomicU64,
    produced: AtomicU64,
}

/// The cores' counters.
#[derive(Debug, Default)]
pub(super) struct Cores([Core; CORES]);

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

impl Cores {
    /// Counts a request of queue `qn`, which has a core of its direction.
    pub(super) fn count(&self, direction: Direction, qn: u16, done: Done, ns: u64) {
        let qn = usize::from(qn);
        let core = match direction {
            Direction::Compress => qn % COMPRESSION_CORES,
            Direction::Decompress => COMPRESSION_CORES + qn % (CORES - COMPRESSION_CORES),
        };
        let Some(core) = self.0.get(core) else { return };
        add(&core.taken, 1);
        add(if done.is_ok { &core.right } else { &core.wrong }, 1);
        add(&core.done, 1);
        add(&core.consumed, done.consumed);
        add(&core.produced, done.produced);
        core.max_delay_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// The counter of a core that a register shows.
    pub(super) fn counter(&self, reg: ZipReg, core: u64) -> Option<&AtomicU64> {
        let core = self.0.get(core as usize)?;
        Some(match reg {
            ZipReg::GET_BD_NUM => &core.taken,
            ZipReg::GET_RIGHT_BD => &core.right,
            ZipReg::GET_ERROR_BD => &core.wrong,
            ZipReg::DONE_BD_NUM => &core.done,
            ZipReg::MAX_DELAY => &core.max_delay_ns,
            ZipReg::CONSUMED_BYTE => &core.consumed,
            ZipReg::PRODUCED_BYTE => &core.produced,
            _ => return None,
        })
    }
}
