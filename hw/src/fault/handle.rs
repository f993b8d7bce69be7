//! What a model holds of a plan, and delays in guest time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{FaultAction, FaultPoint, Occasion};
use crate::{AlarmTarget, Alarms, Clock, DmaFault, Waiter};

/// Decides what goes wrong. Asked from any thread, under a model's locks: it takes only leaf locks, and waits for nobody.
pub trait FaultPlan: Send + Sync {
    /// Whether it may say anything at `point`. The answer stays the same.
    fn mentions(&self, point: FaultPoint) -> bool;

    /// What goes wrong on this occasion: one of the point's actions, or nothing.
    fn decide(&self, occasion: &Occasion) -> Option<FaultAction>;
}

/// What a model asks at its fault points. The default has no plan: nothing goes wrong, at the cost of one test.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Active>>);

struct Active {
    plan: Arc<dyn FaultPlan>,
    /// [`FaultPoint::bit`]s of those that the plan mentions.
    points: u32,
    timer: Arc<Timer>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(a plan)" } else { "Faults(none)" })
    }
}

impl Faults {
    /// A handle to a plan, for all models of a machine.
    #[must_use]
    pub fn new(plan: Arc<dyn FaultPlan>, clock: Arc<dyn Clock>, alarms: Arc<dyn Alarms>) -> Self {
        let mentioned = FaultPoint::ALL.iter().filter(|point| plan.mentions(**point));
        let points = mentioned.fold(0, |points, point| points | point.bit());
        let timer = Arc::new_cyclic(|this: &Weak<Timer>| {
            let slot = alarms.register(Arc::new(Rings(Weak::clone(this))));
            Timer { clock, alarms, slot, pending: Mutex::default() }
        });
        Self(Some(Arc::new(Active { plan, points, timer })))
    }

    /// Whether there is a plan.
    #[inline]
    #[must_use]
    pub const fn is_planned(&self) -> bool {
        self.0.is_some()
    }

    /// Whether there is a plan that mentions `point`.
    #[inline]
    #[must_use]
    pub fn watches(&self, point: FaultPoint) -> bool {
        self.0.as_ref().is_some_and(|active| active.points & point.bit() != 0)
    }

    /// What goes wrong at `point`; the occasion is described only if somebody asks.
    #[inline]
    pub fn at(
        &self,
        point: FaultPoint,
        occasion: impl FnOnce(FaultPoint) -> Occasion,
    ) -> Option<FaultAction> {
        match &self.0 {
            None => None,
            Some(active) => active.ask(point, occasion),
        }
    }

    /// Waits for so much guest time, with no lock held.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`], if the requester gives up first.
    #[cold]
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
    #[cold]
    pub fn later(&self, ns: u64, deed: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Some(active) => active.timer.add(ns, Box::new(deed)),
            None => deed(),
        }
    }
}

impl Active {
    #[cold]
    fn ask(&self, point: FaultPoint, occasion: impl FnOnce(FaultPoint) -> Occasion) -> Option<FaultAction> {
        if self.points & point.bit() == 0 {
            return None;
        }
        let occasion = occasion(point);
        let action = self.plan.decide(&occasion)?;
        assert!(
            point.actions().contains(&action.kind()),
            "no plan that was checked says {action:?} at {point}"
        );
        Some(action)
    }
}

type Deed = Box<dyn FnOnce() + Send>;

/// Most deeds that wait.
const MOST_PENDING: usize = 1 << 16;

#[derive(Default)]
struct Pending {
    /// By time, then in the order in which they were asked for.
    deeds: BTreeMap<(u64, u64), Deed>,
    next: u64,
}

struct Timer {
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
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, ns: u64, deed: Deed) {
        let mut pending = self.pending();
        if pending.deeds.len() >= MOST_PENDING {
            drop(pending);
            return deed();
        }
        let at = (self.clock.now_ns().saturating_add(ns), pending.next);
        pending.next += 1;
        pending.deeds.insert(at, deed);
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
    use crate::{ManualAlarms, ManualClock, StreamId};

    struct OnlyMessages;

    impl FaultPlan for OnlyMessages {
        fn mentions(&self, point: FaultPoint) -> bool {
            point == FaultPoint::Msi
        }

        fn decide(&self, _: &Occasion) -> Option<FaultAction> {
            Some(FaultAction::Drop)
        }
    }

    fn faults() -> (Faults, Arc<ManualClock>, Arc<ManualAlarms>) {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        (Faults::new(Arc::new(OnlyMessages), clock.clone(), alarms.clone()), clock, alarms)
    }

    #[test]
    fn plan_is_asked_only_at_points_that_it_mentions() {
        let (faults, _, _) = faults();
        let occasion = |point| Occasion::new(point, StreamId(8), None);
        assert_eq!(faults.at(FaultPoint::Msi, occasion), Some(FaultAction::Drop));
        assert_eq!(faults.at(FaultPoint::QmCqe, |_| panic!("nobody asks")), None);
        assert_eq!(Faults::default().at(FaultPoint::Msi, |_| panic!("nobody asks")), None);
    }

    #[test]
    fn deeds_are_done_in_the_order_of_their_times_and_not_before() {
        let (faults, clock, alarms) = faults();
        let done = Arc::new(Mutex::new(Vec::new()));
        for (ns, name) in [(20, "third"), (10, "first"), (10, "second")] {
            let done = Arc::clone(&done);
            faults.later(ns, move || done.lock().unwrap().push(name));
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
        let (faults, clock, alarms) = faults();
        let waiter = Waiter::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| faults.wait(10, &waiter));
            while faults.0.as_ref().unwrap().timer.pending().deeds.is_empty() {
                std::thread::yield_now();
            }
            clock.advance_ns(10);
            alarms.ring(clock.now_ns());
            assert_eq!(waiting.join().unwrap(), Ok(()));
            let waiting = scope.spawn(|| faults.wait(10, &waiter));
            waiter.cancel();
            assert_eq!(waiting.join().unwrap(), Err(DmaFault::Cancelled));
        });
    }
}
