//! How a monitor waits until a model's work has ended, or has come to where it waits for the guest.
//!
//! Deliberately absent: what the work is. The model keeps that under its own lock; here is only the news that it has changed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::schedule::{Scheduler, WaitQueue};

/// News of a model's work. Its lock is a leaf.
#[derive(Debug)]
pub struct Activity {
    /// Observers. Without one, a change costs a look at this.
    observers: AtomicUsize,
    changes: Mutex<u64>,
    changed: WaitQueue,
}

impl Activity {
    /// No observer yet; those to come are tasks of `scheduler`.
    #[must_use]
    pub fn new(scheduler: &dyn Scheduler) -> Self {
        Self { observers: AtomicUsize::new(0), changes: Mutex::new(0), changed: scheduler.wait_queue() }
    }

    /// A queue of the same scheduler.
    pub(crate) fn wait_queue(&self) -> WaitQueue {
        self.changed.another()
    }

    /// Some work has ended, or has begun to wait. The state that [`Self::wait_until`] is to see has been changed, under
    /// a lock that its question takes.
    #[inline]
    pub fn changed(&self) {
        // Whoever asked before the change, under that lock, had been counted before.
        if self.observers.load(Ordering::SeqCst) != 0 {
            self.announce();
        }
    }

    #[cold]
    fn announce(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Returns when `is_over` says so. It is asked at once and after each change, with no lock held.
    pub fn wait_until(&self, mut is_over: impl FnMut() -> bool) {
        let lock = || self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.observers.fetch_add(1, Ordering::SeqCst);
        let mut seen = *lock();
        while !is_over() {
            seen = *self.changed.wait_while(&self.changes, lock(), |changes| *changes == seen);
        }
        self.observers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Threads;
    use std::sync::atomic::AtomicU32;
    use std::thread;

    #[test]
    fn observer_sees_each_change_however_it_falls_between_question_and_wait() {
        for _ in 0..200 {
            let (activity, left) = (Activity::new(&Threads), Mutex::new(8));
            let asked = AtomicU32::new(0);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..4 {
                            *left.lock().unwrap() -= 1;
                            activity.changed();
                        }
                    });
                }
                activity.wait_until(|| {
                    asked.fetch_add(1, Ordering::SeqCst);
                    *left.lock().unwrap() == 0
                });
            });
            assert!(asked.load(Ordering::SeqCst) <= 9, "asked once, and once for each change");
        }
    }
}
