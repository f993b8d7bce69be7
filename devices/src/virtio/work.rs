//! What a worker thread sleeps on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::pci::PendingWaker;

/// Bit of [`Work`] for messages that were held back by a mask.
pub(super) const MESSAGES: u64 = 1 << 63;

/// Things to do, one bit each: a bit for each queue, and [`MESSAGES`].
#[derive(Debug, Default)]
pub(super) struct Work {
    todo: AtomicU64,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Work {
    /// Adds things to do and wakes the worker. On the doorbell's road: takes the lock only if they are new.
    pub(super) fn add(&self, bits: u64) {
        if self.todo.fetch_or(bits, Ordering::AcqRel) & bits != bits {
            // The lock orders this after a look that found nothing and before the wait that follows it.
            drop(self.stopped.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Takes everything there is to do.
    pub(super) fn take(&self) -> u64 {
        self.todo.swap(0, Ordering::AcqRel)
    }

    /// Waits until there is something to do; `false` once stopped.
    pub(super) fn wait(&self) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *stopped {
                return false;
            }
            if self.todo.load(Ordering::Acquire) != 0 {
                return true;
            }
            stopped = self.changed.wait(stopped).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the waiting for good.
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingWaker for Work {
    fn messages_ready(&self) {
        self.add(MESSAGES);
    }
}
