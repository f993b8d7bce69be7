//! What a worker thread sleeps on, and whether it may begin anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hw::{Scheduler, WaitQueue};

use crate::gate::Gate;
use crate::pci::PendingWaker;

/// Bit of [`Work`] for messages that were held back by a mask.
pub(super) const MESSAGES: u64 = 1 << 63;

/// Things to do, one bit each: a bit for each queue, and [`MESSAGES`].
#[derive(Debug)]
pub(super) struct Work {
    todo: AtomicU64,
    gate: Mutex<Gate>,
    changed: WaitQueue,
}

impl Work {
    /// Nothing to do, for a worker that is a task of `scheduler`.
    pub(super) fn new(scheduler: &dyn Scheduler) -> Self {
        Self { todo: AtomicU64::new(0), gate: Mutex::default(), changed: scheduler.wait_queue() }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds things to do and wakes the worker. On a doorbell's way: takes the lock only if they are new.
    pub(super) fn add(&self, bits: u64) {
        if self.todo.fetch_or(bits, Ordering::AcqRel) & bits != bits {
            // The lock orders this after a look that found nothing and before the wait that follows it.
            drop(self.gate());
            self.changed.notify_all();
        }
    }

    /// Takes everything there is to do.
    pub(super) fn take(&self) -> u64 {
        self.todo.swap(0, Ordering::AcqRel)
    }

    /// Waits until there is something to do that may be begun; `false` once stopped.
    pub(super) fn wait(&self) -> bool {
        let mut gate = self.gate();
        loop {
            if gate.is_shut_down() {
                return false;
            }
            if gate.is_open() && self.todo.load(Ordering::Acquire) != 0 {
                return true;
            }
            gate = self.changed.wait(&self.gate, gate);
        }
    }

    /// Whether anything may be begun.
    pub(super) fn may_begin(&self) -> bool {
        self.gate().is_open()
    }

    /// Changes whether anything may be begun.
    pub(super) fn set(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate());
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.gate().is_shut_down()
    }
}

impl PendingWaker for Work {
    fn messages_ready(&self) {
        self.add(MESSAGES);
    }
}
