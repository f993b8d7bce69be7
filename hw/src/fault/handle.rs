//! What a model holds of a plan.

use std::fmt;
use std::sync::Arc;

use super::{FaultAction, FaultPoint, Occasion};
use crate::{Alarms, Clock, DmaFault, Timer, Waiter};

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
        Self(Some(Arc::new(Active { plan, points, timer: Timer::new(clock, alarms) })))
    }

    /// The same plan for one model, which can drop its delayed steps without those of others.
    #[must_use]
    pub fn for_model(&self) -> Self {
        let own = |active: &Arc<Active>| {
            let Active { plan, points, timer } = &**active;
            Arc::new(Active { plan: Arc::clone(plan), points: *points, timer: timer.another() })
        };
        Self(self.0.as_ref().map(own))
    }

    /// Drops what [`Self::later`] was to do; what it is doing has ended when this returns. For the reset of a model that
    /// has the handle to itself ([`Self::for_model`]).
    pub fn drop_delayed(&self) {
        if let Some(active) = &self.0 {
            active.timer.clear();
        }
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
        self.0.as_ref().map_or(Ok(()), |active| active.timer.wait(ns, waiter))
    }

    /// Does something after so much guest time, on the alarm service's thread: it waits for nobody. At once, if far too
    /// much is waiting already.
    #[cold]
    pub fn later(&self, ns: u64, step: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Some(active) => active.timer.later(ns, step),
            None => step(),
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

    #[test]
    fn plan_is_asked_only_at_points_that_it_mentions() {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let faults = Faults::new(Arc::new(OnlyMessages), clock, alarms);
        let occasion = |point| Occasion::new(point, StreamId(8), None);
        assert_eq!(faults.at(FaultPoint::Msi, occasion), Some(FaultAction::Drop));
        assert_eq!(faults.at(FaultPoint::QmCqe, |_| panic!("nobody asks")), None);
        assert_eq!(Faults::default().at(FaultPoint::Msi, |_| panic!("nobody asks")), None);
    }

    #[test]
    fn model_drops_its_own_delayed_steps_and_no_other_ones() {
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let all = Faults::new(Arc::new(OnlyMessages), clock.clone(), alarms.clone());
        let one = all.for_model();
        assert!(one.watches(FaultPoint::Msi) && !one.watches(FaultPoint::QmCqe));
        let done = Arc::new(std::sync::Mutex::new(Vec::new()));
        for (faults, name) in [(&all, "another's"), (&one, "its own")] {
            let done = Arc::clone(&done);
            faults.later(10, move || done.lock().unwrap().push(name));
        }
        one.drop_delayed();
        clock.advance_ns(10);
        alarms.ring(clock.now_ns());
        assert_eq!(*done.lock().unwrap(), ["another's"]);
    }
}
