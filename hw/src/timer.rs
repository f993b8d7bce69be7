//! What a model does or waits for after some guest time: any number of steps on one slot of the alarm service.
//!
//! Steps are data of a type of the model's own, so that those that are due later can be saved with the rest of its state. A
//! wait is a part of an access, which is made anew after a restore: it is not saved.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};

use crate::schedule::{Scheduler, WaitQueue};
use crate::{AlarmTarget, Alarms, Clock, DmaFault, RestoreError, Waiter};

/// By time, then in the order in which they were asked for.
type Key = (u64, u64);

/// Most steps that wait.
const MOST_PENDING: usize = 1 << 16;

/// Carries out the steps of a [`Timer`].
pub trait TimerTarget<S>: Send + Sync {
    /// The time of a step has come. On the alarm service's thread: it waits for nobody.
    fn step(&self, step: S);
}

/// For timers on which accesses wait and nothing else is done.
impl TimerTarget<Infallible> for () {
    fn step(&self, step: Infallible) {
        match step {}
    }
}

/// A step that is due later, as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Later<S> {
    /// Guest time until then.
    pub in_ns: u64,
    /// What is done.
    pub step: S,
}

enum Due<S> {
    /// An access that waits goes on.
    Wake {
        is_over: Arc<AtomicBool>,
        waiter: Arc<Waiter>,
    },
    Step(S),
}

struct Pending<S> {
    steps: BTreeMap<Key, Due<S>>,
    next: u64,
    /// Calls of the alarm service that are carrying steps out.
    ringing: usize,
}

/// Does things later. Its lock is a leaf but for the alarm service's.
pub struct Timer<S = Infallible> {
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    slot: usize,
    target: Weak<dyn TimerTarget<S>>,
    pending: Mutex<Pending<S>>,
    /// No step is being carried out any more.
    done: WaitQueue,
}

struct Rings<S>(Weak<Timer<S>>);

impl<S: Send + 'static> AlarmTarget for Rings<S> {
    fn alarm(&self) {
        if let Some(timer) = self.0.upgrade() {
            timer.ring();
        }
    }
}

impl Timer {
    /// A timer on which accesses wait.
    #[must_use]
    pub fn of_waits(clock: Arc<dyn Clock>, alarms: Arc<dyn Alarms>, scheduler: &dyn Scheduler) -> Arc<Self> {
        Self::new(clock, alarms, scheduler, Weak::<()>::new())
    }
}

impl<S: Send + 'static> Timer<S> {
    /// A timer with a slot of its own, whose steps `target` carries out. Made while the machine is put together.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        alarms: Arc<dyn Alarms>,
        scheduler: &dyn Scheduler,
        target: Weak<dyn TimerTarget<S>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let slot = alarms.register(Arc::new(Rings(Weak::clone(this))));
            let pending = Mutex::new(Pending { steps: BTreeMap::new(), next: 0, ringing: 0 });
            Self { clock, alarms, slot, target, pending, done: scheduler.wait_queue() }
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending<S>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so much guest time, with no lock held.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`], if the requester gives up first.
    pub fn wait(&self, ns: u64, waiter: &Arc<Waiter>) -> Result<(), DmaFault> {
        let is_over = Arc::new(AtomicBool::new(false));
        let key = self.add(ns, Due::Wake { is_over: Arc::clone(&is_over), waiter: Arc::clone(waiter) });
        waiter.wait(|| is_over.load(Ordering::Acquire).then_some(())).inspect_err(|_| self.take_back(key))
    }

    /// Does something after so much guest time. At once, if far too much is waiting already.
    pub fn later(&self, ns: u64, step: S) {
        self.add(ns, Due::Step(step));
    }

    /// The key, unless the step has been carried out at once.
    fn add(&self, ns: u64, due: Due<S>) -> Option<Key> {
        let mut pending = self.pending();
        if pending.steps.len() >= MOST_PENDING {
            drop(pending);
            self.carry_out(due);
            return None;
        }
        let key = self.put(&mut pending, ns, due);
        self.set_alarm(&pending);
        Some(key)
    }

    fn put(&self, pending: &mut Pending<S>, ns: u64, due: Due<S>) -> Key {
        let key = (self.clock.now_ns().saturating_add(ns), pending.next);
        pending.next += 1;
        pending.steps.insert(key, due);
        key
    }

    fn carry_out(&self, due: Due<S>) {
        match due {
            Due::Wake { is_over, waiter } => {
                is_over.store(true, Ordering::Release);
                waiter.notify();
            }
            Due::Step(step) => {
                if let Some(target) = self.target.upgrade() {
                    target.step(step);
                }
            }
        }
    }

    fn take_back(&self, key: Option<Key>) {
        let Some(key) = key else { return };
        let mut pending = self.pending();
        pending.steps.remove(&key);
        self.set_alarm(&pending);
    }

    /// Drops all steps that are due later; one that is being carried out has ended when this returns. For a model's reset,
    /// after it has given up those who wait. Not from within a step.
    pub fn clear(&self) {
        let mut pending = self.pending();
        let steps = std::mem::take(&mut pending.steps);
        self.set_alarm(&pending);
        drop(self.until_done(pending));
        drop(steps);
    }

    /// Waits until no step is being carried out.
    fn until_done<'a>(&'a self, pending: MutexGuard<'a, Pending<S>>) -> MutexGuard<'a, Pending<S>> {
        self.done.wait_while(&self.pending, pending, |pending| pending.ringing != 0)
    }

    /// The steps that are due later, in their order, for a model's state.
    #[must_use]
    pub fn save(&self) -> Vec<Later<S>>
    where
        S: Clone,
    {
        let now = self.clock.now_ns();
        let pending = self.pending();
        let later = |(&(at, _), due): (&Key, &Due<S>)| match due {
            Due::Wake { .. } => None,
            Due::Step(step) => Some(Later { in_ns: at.saturating_sub(now), step: step.clone() }),
        };
        pending.steps.iter().filter_map(later).collect()
    }

    /// Takes up what [`Self::save`] has given, besides what is there.
    ///
    /// # Errors
    /// If it is more than ever waits.
    pub fn restore(&self, steps: Vec<Later<S>>) -> Result<(), RestoreError> {
        let mut pending = self.pending();
        if steps.len() > MOST_PENDING - pending.steps.len().min(MOST_PENDING) {
            return Err(RestoreError::value("later", "more steps than ever wait"));
        }
        for Later { in_ns, step } in steps {
            self.put(&mut pending, in_ns, Due::Step(step));
        }
        self.set_alarm(&pending);
        Ok(())
    }

    /// Steps that are due later, and accesses that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending().steps.len()
    }

    /// Whether nothing is due later.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn set_alarm(&self, pending: &Pending<S>) {
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
        for due in due.into_values() {
            self.carry_out(due);
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
    use crate::schedule::Threads;
    use crate::{ManualAlarms, ManualClock};

    /// Notes what is done.
    #[derive(Default)]
    struct Notes(Mutex<Vec<&'static str>>);

    impl TimerTarget<&'static str> for Notes {
        fn step(&self, step: &'static str) {
            self.0.lock().unwrap().push(step);
        }
    }

    struct Bench {
        timer: Arc<Timer<&'static str>>,
        notes: Arc<Notes>,
        clock: Arc<ManualClock>,
        alarms: Arc<ManualAlarms>,
    }

    fn bench() -> Bench {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let notes: Arc<Notes> = Arc::default();
        let target: Weak<Notes> = Arc::downgrade(&notes);
        Bench { timer: Timer::new(clock.clone(), alarms.clone(), &Threads, target), notes, clock, alarms }
    }

    impl Bench {
        fn advance(&self, ns: u64) {
            self.clock.advance_ns(ns);
            self.alarms.ring(self.clock.now_ns());
        }

        fn done(&self) -> Vec<&'static str> {
            std::mem::take(&mut *self.notes.0.lock().unwrap())
        }
    }

    #[test]
    fn steps_are_done_in_the_order_of_their_times_and_not_before() {
        let bench = bench();
        for (ns, name) in [(20, "third"), (10, "first"), (10, "second")] {
            bench.timer.later(ns, name);
        }
        bench.clock.advance_ns(9);
        bench.alarms.fire();
        assert!(bench.done().is_empty());
        bench.advance(1);
        assert_eq!(bench.done(), ["first", "second"]);
        bench.advance(10);
        assert_eq!(bench.done(), ["third"]);
    }

    #[test]
    fn saved_steps_are_done_elsewhere_in_their_order_after_the_time_that_was_left() {
        let (before, after) = (bench(), bench());
        before.clock.advance_ns(1000);
        for (ns, name) in [(20, "third"), (10, "first"), (10, "second")] {
            before.timer.later(ns, name);
        }
        before.clock.advance_ns(4);
        let saved = before.timer.save();
        assert_eq!(saved.iter().map(|later| later.in_ns).collect::<Vec<_>>(), [6, 6, 16]);
        after.timer.restore(saved.clone()).unwrap();
        assert_eq!(after.timer.save(), saved);
        after.advance(5);
        assert!(after.done().is_empty());
        after.advance(1);
        assert_eq!(after.done(), ["first", "second"]);
        after.advance(10);
        assert_eq!(after.done(), ["third"]);
    }

    #[test]
    fn more_steps_than_ever_wait_are_not_restored() {
        let bench = bench();
        let steps = vec![Later { in_ns: u64::MAX, step: "never" }; MOST_PENDING + 1];
        assert!(bench.timer.restore(steps).is_err());
        assert!(bench.timer.is_empty());
    }

    #[test]
    fn wait_ends_with_its_time_or_with_the_cancellation() {
        let Bench { timer, clock, alarms, .. } = bench();
        let waiter = Waiter::new(&Threads);
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
        use std::sync::mpsc;

        struct Slow {
            begun: Mutex<mpsc::Sender<()>>,
            may_end: Mutex<mpsc::Receiver<()>>,
            has_ended: AtomicBool,
        }
        impl TimerTarget<()> for Slow {
            fn step(&self, (): ()) {
                self.begun.lock().unwrap().send(()).unwrap();
                self.may_end.lock().unwrap().recv().unwrap();
                self.has_ended.store(true, Ordering::SeqCst);
            }
        }
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let (begun, may_end) = (Mutex::new(begun), Mutex::new(may_end));
        let slow = Arc::new(Slow { begun, may_end, has_ended: AtomicBool::new(false) });
        let target: Weak<Slow> = Arc::downgrade(&slow);
        let timer = Timer::new(clock.clone(), alarms.clone(), &Threads, target);
        timer.later(10, ());
        timer.clear();
        assert_eq!((timer.len(), alarms.next_ns()), (0, None));
        timer.later(10, ());
        clock.advance_ns(10);
        std::thread::scope(|scope| {
            scope.spawn(|| alarms.ring(clock.now_ns()));
            has_begun.recv().unwrap();
            scope.spawn(move || end.send(()).unwrap());
            timer.clear();
            assert!(slow.has_ended.load(Ordering::SeqCst));
        });
    }
}
