//! What a model does or waits for after some guest time: any number of deeds on one slot of the alarm service.
//!
//! Deliberately absent: taking a deed back. One that nobody wants any more does no harm when its time comes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::{AlarmTarget, Alarms, Clock, DmaFault, Waiter};

type Deed = Box<dyn FnOnce() + Send>;

/// Most deeds that wait.
const MOST_PENDING: usize = 1 << 16;

#[derive(Default)]
struct Pending {
    /// By time, then in the order in which they were asked for.
    deeds: BTreeMap<(u64, u64), Deed>,
    next: u64,
}

/// Does things later. Its lock is a leaf but for the alarm service's.
pub struct Timer {
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    slot: usize,
    pending: Mutex<Pending>,
}

struct Rings(Weak<Timer>);

impl AlarmTarget for Rings {
    fn alarm(&self) {
        if let Some(timer) = self.0.upgrade() {
            timer.ring();
        }
    }
}

impl Timer {
    /// A timer with a slot of its own. Made while the machine is put together.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, alarms: Arc<dyn Alarms>) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let slot = alarms.register(Arc::new(Rings(Weak::clone(this))));
            Self { clock, alarms, slot, pending: Mutex::default() }
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so much guest time, with no lock held.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`], if the requester gives up first.
    pub fn wait(&self, ns: u64, waiter: &Arc<Waiter>) -> Result<(), DmaFault> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (flag, woken) = (Arc::clone(&is_over), Arc::clone(waiter));
        self.later(ns, move || {
            flag.store(true, Ordering::Release);
            woken.notify();
        });
        waiter.wait(|| is_over.load(Ordering::Acquire).then_some(()))
    }

    /// Does something after so much guest time, on the alarm service's thread: it waits for nobody. At once, if far too
    /// much is waiting already.
    pub fn later(&self, ns: u64, deed: impl FnOnce() + Send + 'static) {
        let mut pending = self.pending();
        if pending.deeds.len() >= MOST_PENDING {
            drop(pending);
            return deed();
        }
        let at = (self.clock.now_ns().saturating_add(ns), pending.next);
        pending.next += 1;
        pending.deeds.insert(at, Box::new(deed));
        self.set_alarm(&pending);
    }

    fn set_alarm(&self, pending: &Pending) {
        self.alarms.set(self.slot, pending.deeds.keys().next().map(|(at, _)| *at));
    }

    fn ring(&self) {
        let due = {
            let mut pending = self.pending();
            let later = pending.deeds.split_off(&(self.clock.now_ns().saturating_add(1), 0));
            let due = std::mem::replace(&mut pending.deeds, later);
            self.set_alarm(&pending);
            due
        };
        for deed in due.into_values() {
            deed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualAlarms, ManualClock};

    fn timer() -> (Arc<Timer>, Arc<ManualClock>, Arc<ManualAlarms>) {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        (Timer::new(clock.clone(), alarms.clone()), clock, alarms)
    }

    #[test]
    fn deeds_are_done_in_the_order_of_their_times_and_not_before() {
        let (timer, clock, alarms) = timer();
        let done = Arc::new(Mutex::new(Vec::new()));
        for (ns, name) in [(20, "third"), (10, "first"), (10, "second")] {
            let done = Arc::clone(&done);
            timer.later(ns, move || done.lock().unwrap().push(name));
        }
        clock.advance_ns(9);
        alarms.fire();
        assert!(done.lock().unwrap().is_empty());
        clock.advance_ns(1);
        alarms.ring(clock.now_ns());
        assert_eq!(*done.lock().unwrap(), ["first", "second"]);
        clock.advance_ns(10);
        alarms.ring(clock.now_ns());
        assert_eq!(*done.lock().unwrap(), ["first", "second", "third"]);
    }

    #[test]
    fn wait_ends_with_its_time_or_with_the_cancellation() {
        let (timer, clock, alarms) = timer();
        let waiter = Waiter::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| timer.wait(10, &waiter));
            while alarms.next_ns().is_none() {
                std::thread::yield_now();
            }
            clock.advance_ns(10);
            alarms.ring(clock.now_ns());
            assert_eq!(waiting.join().unwrap(), Ok(()));
            let waiting = scope.spawn(|| timer.wait(10, &waiter));
            waiter.cancel();
            assert_eq!(waiting.join().unwrap(), Err(DmaFault::Cancelled));
        });
    }
}
