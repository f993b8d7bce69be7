//! What a model does or waits for after some guest time: any number of steps on one slot of the alarm service.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use crate::{AlarmTarget, Alarms, Clock, DmaFault, Waiter};

type Step = Box<dyn FnOnce() + Send>;

/// By time, then in the order in which they were asked for.
type Key = (u64, u64);

/// Most steps that wait.
const MOST_PENDING: usize = 1 << 16;

#[derive(Default)]
struct Pending {
    steps: BTreeMap<Key, Step>,
    next: u64,
    /// Calls of the alarm service that are carrying steps out.
    ringing: usize,
}

/// Does things later. Its lock is a leaf but for the alarm service's.
pub struct Timer {
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    slot: usize,
    pending: Mutex<Pending>,
    /// No step is being carried out any more.
    done: Condvar,
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
            Self { clock, alarms, slot, pending: Mutex::default(), done: Condvar::new() }
        })
    }

    /// Another timer on the same clock.
    #[must_use]
    pub fn another(&self) -> Arc<Self> {
        Self::new(Arc::clone(&self.clock), Arc::clone(&self.alarms))
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
        let key = self.add(ns, move || {
            flag.store(true, Ordering::Release);
            woken.notify();
        });
        waiter.wait(|| is_over.load(Ordering::Acquire).then_some(())).inspect_err(|_| self.take_back(key))
    }

    /// Does something after so much guest time, on the alarm service's thread: it waits for nobody. At once, if far too
    /// much is waiting already.
    pub fn later(&self, ns: u64, step: impl FnOnce() + Send + 'static) {
        self.add(ns, step);
    }

    /// The key, unless the step has been carried out at once.
    fn add(&self, ns: u64, step: impl FnOnce() + Send + 'static) -> Option<Key> {
        let mut pending = self.pending();
        if pending.steps.len() >= MOST_PENDING {
            drop(pending);
            step();
            return None;
        }
        let key = (self.clock.now_ns().saturating_add(ns), pending.next);
        pending.next += 1;
        pending.steps.insert(key, Box::new(step));
        self.set_alarm(&pending);
        Some(key)
    }

    fn take_back(&self, key: Option<Key>) {
        let Some(key) = key else { return };
        let mut pending = self.pending();
        let step = pending.steps.remove(&key);
        self.set_alarm(&pending);
        drop(pending);
        drop(step);
    }

    /// Drops all steps that are due later; one that is being carried out has ended when this returns. For a model's reset,
    /// after it has given up those who wait. Not from within a step.
    pub fn clear(&self) {
        let mut pending = self.pending();
        let steps = std::mem::take(&mut pending.steps);
        self.set_alarm(&pending);
        let pending = self
            .done
            .wait_while(pending, |pending| pending.ringing != 0)
            .unwrap_or_else(PoisonError::into_inner);
        drop(pending);
        drop(steps);
    }

    /// Steps that are due later.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending().steps.len()
    }

    /// Whether nothing is due later.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn set_alarm(&self, pending: &Pending) {
        self.alarms.set(self.slot, pending.steps.keys().next().map(|(at, _)| *at));
    }

    fn ring(&self) {
        let due = {
            let mut pending = self.pending();
            let later = pending.steps.split_off(&(self.clock.now_ns().saturating_add(1), 0));
            let due = std::mem::replace(&mut pending.steps, later);
            pending.ringing += 1;
            self.set_alarm(&pending);
            due
        };
        for step in due.into_values() {
            step();
        }
        let mut pending = self.pending();
        pending.ringing -= 1;
        if pending.ringing == 0 {
            self.done.notify_all();
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
    fn steps_are_done_in_the_order_of_their_times_and_not_before() {
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
            while timer.is_empty() {
                std::thread::yield_now();
            }
            waiter.cancel();
            assert_eq!(waiting.join().unwrap(), Err(DmaFault::Cancelled));
            assert_eq!((timer.len(), alarms.next_ns()), (0, None), "who gives up leaves nothing behind");
        });
    }

    #[test]
    fn cleared_timer_does_nothing_more_and_what_it_was_doing_has_ended() {
        let (timer, clock, alarms) = timer();
        timer.later(10, || panic!("dropped"));
        timer.clear();
        assert_eq!((timer.len(), alarms.next_ns()), (0, None));
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let has_ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_ended);
        timer.later(10, move || {
            begun.send(()).unwrap();
            may_end.recv().unwrap();
            flag.store(true, Ordering::SeqCst);
        });
        clock.advance_ns(10);
        std::thread::scope(|scope| {
            scope.spawn(|| alarms.ring(clock.now_ns()));
            has_begun.recv().unwrap();
            scope.spawn(move || end.send(()).unwrap());
            timer.clear();
            assert!(has_ended.load(Ordering::SeqCst));
        });
    }
}
