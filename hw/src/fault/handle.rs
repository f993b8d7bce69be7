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
    pub fn later(&self, ns: u64, deed: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Some(active) => active.timer.later(ns, deed),
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
}
