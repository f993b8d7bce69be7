//! Plans for tests.

use std::sync::{Arc, Mutex, PoisonError};

use super::{FaultAction, FaultPlan, FaultPoint, Occasion};

/// A plan for tests: an action on the nth occasion at a point, from 1; and a record of all occasions there.
#[derive(Debug)]
pub struct ScriptedFaults {
    script: Vec<(FaultPoint, usize, FaultAction)>,
    asked: Mutex<Vec<Occasion>>,
}

impl ScriptedFaults {
    /// A plan that does these things.
    #[must_use]
    pub fn new(script: &[(FaultPoint, usize, FaultAction)]) -> Arc<Self> {
        Arc::new(Self { script: script.to_vec(), asked: Mutex::default() })
    }

    /// All occasions so far at the points of the script.
    #[must_use]
    pub fn asked(&self) -> Vec<Occasion> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FaultPlan for ScriptedFaults {
    fn mentions(&self, point: FaultPoint) -> bool {
        self.script.iter().any(|(at, ..)| *at == point)
    }

    fn decide(&self, occasion: &Occasion) -> Option<FaultAction> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(*occasion);
        let count = asked.iter().filter(|earlier| earlier.point == occasion.point).count();
        self.script
            .iter()
            .find(|(point, nth, _)| *point == occasion.point && *nth == count)
            .map(|(.., action)| *action)
    }
}

/// A plan for tests: nothing, until it is told to do one thing at one point, each time.
#[derive(Debug, Default)]
pub struct LateFaults(Mutex<Option<(FaultPoint, FaultAction)>>);

impl LateFaults {
    /// What is done from now on, once [`super::Faults::changed`] has been called.
    pub fn say(&self, what: Option<(FaultPoint, FaultAction)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn action_at(&self, point: FaultPoint) -> Option<FaultAction> {
        let said = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.filter(|(at, _)| *at == point).map(|(_, action)| action)
    }
}

impl FaultPlan for LateFaults {
    fn mentions(&self, point: FaultPoint) -> bool {
        self.action_at(point).is_some()
    }

    fn decide(&self, occasion: &Occasion) -> Option<FaultAction> {
        self.action_at(occasion.point)
    }
}
