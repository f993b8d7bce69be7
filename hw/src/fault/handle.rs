//! What a model holds of a plan.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use super::{FaultAction, FaultPoint, Occasion};
use crate::schedule::Scheduler;
use crate::timer::{Later, TimerTarget};
use crate::{Alarms, Clock, DmaFault, RestoreError, Timer, Waiter};

/// Decides what goes wrong. Asked from any thread, under a model's locks: it takes only leaf locks, and waits for nobody.
pub trait FaultPlan: Send + Sync {
    /// Whether it may say anything at `point`. The answer stays the same, but for a plan that is given to
    /// [`Faults::changing`]: [`Faults::changed`] then asks again.
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
    points: AtomicU32,
    /// It may mention others later.
    changes: bool,
    /// Of accesses that are delayed.
    waits: Arc<Timer>,
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    scheduler: Arc<dyn Scheduler>,
}

/// What a plan has put off: the steps of one model, which it carries out later, saves, and drops at its reset.
pub struct Delays<S> {
    /// `None` without a plan.
    timer: Option<Arc<Timer<S>>>,
    target: Weak<dyn TimerTarget<S>>,
}

impl<S: Send + 'static> Delays<S> {
    /// Does something after so much guest time, on the alarm service's thread. At once, if far too much is waiting already.
    #[cold]
    pub fn later(&self, ns: u64, step: S) {
        match &self.timer {
            Some(timer) => timer.later(ns, step),
            None => {
                if let Some(target) = self.target.upgrade() {
                    target.step(step);
                }
            }
        }
    }

    /// Drops what is due later; what is being done has ended when this returns. Not from within a step.
    pub fn clear(&self) {
        if let Some(timer) = &self.timer {
            timer.clear();
        }
    }

    /// The steps that are due later, for the model's state.
    #[must_use]
    pub fn save(&self) -> Vec<Later<S>>
    where
        S: Clone,
    {
        self.timer.as_ref().map_or_else(Vec::new, |timer| timer.save())
    }

    /// Takes up what [`Self::save`] has given.
    ///
    /// # Errors
    /// If there is something and no plan that could have put it off, or more than ever waits.
    pub fn restore(&self, steps: Vec<Later<S>>) -> Result<(), RestoreError> {
        match &self.timer {
            Some(timer) => timer.restore(steps),
            None if steps.is_empty() => Ok(()),
            None => Err(RestoreError::value("later", "no fault plan is there that could have delayed this")),
        }
    }
}

impl<S> fmt::Debug for Delays<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delays").finish_non_exhaustive()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(a plan)" } else { "Faults(none)" })
    }
}

impl Faults {
    /// A handle to a plan, for all models of a machine.
    #[must_use]
    pub fn new(
        plan: Arc<dyn FaultPlan>,
        clock: Arc<dyn Clock>,
        alarms: Arc<dyn Alarms>,
        scheduler: Arc<dyn Scheduler>,
    ) -> Self {
        Self::with(plan, clock, alarms, scheduler, false)
    }

    /// The same for a plan that may mention other points later. Models then have at every point what a plan needs there.
    #[must_use]
    pub fn changing(
        plan: Arc<dyn FaultPlan>,
        clock: Arc<dyn Clock>,
        alarms: Arc<dyn Alarms>,
        scheduler: Arc<dyn Scheduler>,
    ) -> Self {
        Self::with(plan, clock, alarms, scheduler, true)
    }

    fn with(
        plan: Arc<dyn FaultPlan>,
        clock: Arc<dyn Clock>,
        alarms: Arc<dyn Alarms>,
        scheduler: Arc<dyn Scheduler>,
        changes: bool,
    ) -> Self {
        let points = AtomicU32::new(mentioned(&*plan));
        let waits = Timer::of_waits(Arc::clone(&clock), Arc::clone(&alarms), &*scheduler);
        Self(Some(Arc::new(Active { plan, points, changes, waits, clock, alarms, scheduler })))
    }

    /// The plan mentions other points from now on. Says at which it did not before. From one thread at a time.
    ///
    /// A model that remembers what a look-up has found, and so does not come to its point again, has to forget it then.
    pub fn changed(&self) -> Vec<FaultPoint> {
        let Some(active) = &self.0 else { return Vec::new() };
        let after = mentioned(&*active.plan);
        let before = active.points.swap(after, Ordering::SeqCst);
        let is_new = |point: &&FaultPoint| after & !before & point.bit() != 0;
        FaultPoint::ALL.iter().filter(is_new).copied().collect()
    }

    /// Where a model puts what the plan delays; `target` carries it out. Made while the machine is put together.
    #[must_use]
    pub fn delays<S: Send + 'static>(&self, target: Weak<dyn TimerTarget<S>>) -> Delays<S> {
        let timer = |active: &Arc<Active>| {
            let Active { clock, alarms, scheduler, .. } = &**active;
            Timer::new(Arc::clone(clock), Arc::clone(alarms), &**scheduler, Weak::clone(&target))
        };
        Delays { timer: self.0.as_ref().map(timer), target }
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
        self.0.as_ref().is_some_and(|active| active.mentions(point))
    }

    /// Whether there is a plan that mentions `point` or may do so later.
    #[must_use]
    pub fn may_watch(&self, point: FaultPoint) -> bool {
        self.0.as_ref().is_some_and(|active| active.changes || active.mentions(point))
    }

    /// What goes wrong at `point`; the occasion is described only if somebody asks.
    #[inline]
    pub fn at(
        &self,
        point: FaultPoint,
        occasion: impl FnOnce(FaultPoint) -> Occasion,
    ) -> Option<FaultAction> {
        match &self.0 {
            Some(active) if active.mentions(point) => active.ask(point, occasion),
            _ => None,
        }
    }

    /// Waits for so much guest time, with no lock held.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`], if the requester gives up first.
    #[cold]
    pub fn wait(&self, ns: u64, waiter: &Arc<Waiter>) -> Result<(), DmaFault> {
        self.0.as_ref().map_or(Ok(()), |active| active.waits.wait(ns, waiter))
    }
}

fn mentioned(plan: &dyn FaultPlan) -> u32 {
    let points = FaultPoint::ALL.iter().filter(|point| plan.mentions(**point));
    points.fold(0, |points, point| points | point.bit())
}

impl Active {
    /// Relaxed: who has to be sure that a change is seen orders it by something else, such as the age of what is remembered.
    #[inline]
    fn mentions(&self, point: FaultPoint) -> bool {
        self.points.load(Ordering::Relaxed) & point.bit() != 0
    }

    #[cold]
    fn ask(&self, point: FaultPoint, occasion: impl FnOnce(FaultPoint) -> Occasion) -> Option<FaultAction> {
        let occasion = occasion(point);
        let action = self.plan.decide(&occasion)?;
        assert!(
            point.actions().contains(&action.kind()),
            "no plan that was checked says {action:?} at {point}"
        );
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::fault::LateFaults;
    use crate::schedule::Threads;
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

    #[test]
    fn plan_is_asked_only_at_points_that_it_mentions() {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let faults = Faults::new(Arc::new(OnlyMessages), clock, alarms, Arc::new(Threads));
        let occasion = |point| Occasion::new(point, StreamId(8), None);
        assert_eq!(faults.at(FaultPoint::Msi, occasion), Some(FaultAction::Drop));
        assert_eq!(faults.at(FaultPoint::QmCqe, |_| panic!("nobody asks")), None);
        assert_eq!(Faults::default().at(FaultPoint::Msi, |_| panic!("nobody asks")), None);
    }

    #[test]
    fn plan_that_changes_is_asked_where_it_mentions_a_point_now_and_what_is_new_is_told() {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let plan = Arc::<LateFaults>::default();
        let faults = Faults::changing(plan.clone(), clock, alarms, Arc::new(Threads));
        let ask = || faults.at(FaultPoint::Msi, |point| Occasion::new(point, StreamId(8), None));
        assert_eq!(ask(), None);
        assert!(faults.may_watch(FaultPoint::Msi) && !faults.watches(FaultPoint::Msi));
        plan.say(Some((FaultPoint::Msi, FaultAction::Drop)));
        assert_eq!(faults.changed(), [FaultPoint::Msi]);
        assert_eq!(ask(), Some(FaultAction::Drop));
        assert_eq!(faults.changed(), []);
        plan.say(None);
        assert_eq!(faults.changed(), []);
        assert_eq!(ask(), None);
        assert!(!Faults::default().may_watch(FaultPoint::Msi));
        assert_eq!(Faults::default().changed(), []);
    }

    /// Counts what is done.
    #[derive(Default)]
    struct Sum(AtomicU64);

    impl TimerTarget<u64> for Sum {
        fn step(&self, step: u64) {
            self.0.fetch_add(step, Ordering::Relaxed);
        }
    }

    #[test]
    fn model_drops_its_own_delayed_steps_and_no_other_ones() {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let faults = Faults::new(Arc::new(OnlyMessages), clock.clone(), alarms.clone(), Arc::new(Threads));
        let sum: Arc<Sum> = Arc::default();
        let target: Weak<Sum> = Arc::downgrade(&sum);
        let (one, other) = (faults.delays(target.clone()), faults.delays(target));
        one.later(10, 1);
        other.later(10, 2);
        one.clear();
        clock.advance_ns(10);
        alarms.ring(clock.now_ns());
        assert_eq!(sum.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn delayed_steps_are_restored_only_where_there_is_a_plan() {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let faults = Faults::new(Arc::new(OnlyMessages), clock, alarms, Arc::new(Threads));
        let target = || -> Weak<Sum> { Weak::new() };
        let (planned, plain) = (faults.delays(target()), Faults::default().delays(target()));
        planned.later(10, 1);
        let saved = planned.save();
        assert_eq!(saved, [Later { in_ns: 10, step: 1 }]);
        assert!(plain.restore(saved.clone()).is_err());
        assert_eq!(plain.restore(Vec::new()), Ok(()));
        assert_eq!(faults.delays(target()).restore(saved), Ok(()));
    }
}
