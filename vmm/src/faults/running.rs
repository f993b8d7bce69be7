//! A plan at work: counts, decisions, and the record of what fired.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::Clock;
use hw::fault::{FaultAction, FaultPlan, FaultPoint, Occasion};

use super::{FaultReport, Plan};
use crate::save::state::SavedFaults;

/// Firings of one rule that are remembered; further ones are only counted.
const MOST_REMEMBERED: usize = 1000;

/// A rule that fired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firing {
    pub(super) at_ns: u64,
    /// Which of the rule's occasions, from 1.
    pub(super) count: u64,
    pub(super) occasion: Occasion,
}

/// What one rule has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) occasions: u64,
    pub(super) fired: u64,
    pub(super) firings: Vec<Firing>,
}

/// A plan, and what has come of it so far. Its lock is a leaf.
pub struct Running {
    plan: Plan,
    clock: Arc<dyn Clock>,
    seen: Mutex<Vec<Seen>>,
}

impl Running {
    /// A plan that has not begun. The clock tells when rules fire, and decides nothing.
    #[must_use]
    pub fn new(plan: Plan, clock: Arc<dyn Clock>) -> Arc<Self> {
        let seen = Mutex::new(vec![Seen::default(); plan.rules.len()]);
        Arc::new(Self { plan, clock, seen })
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan and how far it has come. What fired is counted, and not told any more.
    #[must_use]
    pub fn save(&self) -> SavedFaults {
        let seen = self.seen().iter().map(|seen| (seen.occasions, seen.fired)).collect();
        SavedFaults { file: self.plan.file.clone(), text: self.plan.text.clone(), seen }
    }

    /// Takes up how far a plan had come: this one.
    ///
    /// # Errors
    /// If that is another plan's.
    pub fn restore(&self, saved: &[(u64, u64)]) -> Result<(), String> {
        let mut seen = self.seen();
        if saved.len() != seen.len() {
            return Err(format!("it tells of {} rules, and the plan has {}", saved.len(), seen.len()));
        }
        for (seen, &(occasions, fired)) in seen.iter_mut().zip(saved) {
            if fired > occasions {
                return Err(format!("a rule has fired {fired} times on {occasions} occasions"));
            }
            *seen = Seen { occasions, fired, firings: Vec::new() };
        }
        Ok(())
    }

    /// What has fired so far.
    #[must_use]
    pub fn report(&self) -> FaultReport {
        FaultReport::new(&self.plan, &self.seen())
    }
}

impl FaultPlan for Running {
    fn mentions(&self, point: FaultPoint) -> bool {
        self.plan.rules.iter().any(|rule| rule.point == point)
    }

    fn decide(&self, occasion: &Occasion) -> Option<FaultAction> {
        let mut seen = self.seen();
        for ((index, rule), seen) in (0..).zip(&self.plan.rules).zip(seen.iter_mut()) {
            if rule.point != occasion.point || !rule.filter.admits(occasion) {
                continue;
            }
            seen.occasions += 1;
            let is_over = rule.times.is_some_and(|times| seen.fired >= times);
            if is_over || !rule.when.fires(self.plan.seed, index, seen.occasions) {
                continue;
            }
            seen.fired += 1;
            let firing = Firing { at_ns: self.clock.now_ns(), count: seen.occasions, occasion: *occasion };
            log::debug!("fault plan, line {}: {:?} at {firing:?}", rule.line, rule.action);
            if seen.firings.len() < MOST_REMEMBERED {
                seen.firings.push(firing);
            }
            return Some(rule.action);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::fault::Command;
    use hw::{Iova, ManualClock, Pasid, StreamId};

    fn running(text: &str) -> Arc<Running> {
        Running::new(Plan::parse(text, "plan").unwrap(), Arc::new(ManualClock::default()))
    }

    fn read(address: u64, len: u64) -> Occasion {
        Occasion::new(FaultPoint::DmaRead, StreamId(8), Pasid::new(1))
            .at(Iova(address), len)
            .during(Some(Command { queue: 2, index: Some(5) }))
    }

    fn fired(running: &Running, occasions: &[Occasion]) -> Vec<bool> {
        occasions.iter().map(|occasion| running.decide(occasion).is_some()).collect()
    }

    #[test]
    fn rule_fires_on_its_nth_occasion_or_every_nth_and_at_most_so_often() {
        let same = [read(0x1000, 8); 6];
        let rule = |when: &str| running(&format!("[[rule]]\npoint = 'dma.read'\naction = 'abort'\n{when}"));
        assert_eq!(fired(&rule("nth = 3"), &same), [false, false, true, false, false, false]);
        assert_eq!(fired(&rule("every = 2"), &same), [false, true, false, true, false, true]);
        assert_eq!(fired(&rule("every = 2\ntimes = 1"), &same), [false, true, false, false, false, false]);
        assert_eq!(fired(&rule(""), &same), [true; 6]);
        assert_eq!(fired(&rule("probability = 0"), &same), [false; 6]);
    }

    #[test]
    fn only_occasions_that_the_rule_describes_count() {
        let rule = |which: &str| running(&format!("[[rule]]\npoint = 'dma.read'\naction = 'abort'\n{which}"));
        for (which, expected) in [
            ("device = '00:01.0'", true),
            ("device = '00:02.0'", false),
            ("pasid = 1", true),
            ("pasid = 2", false),
            ("pasid = 'none'", false),
            ("address = 0x1007", true),
            ("address = 0x1008", false),
            ("address = [0x0, 0x1000]", true),
            ("address = [0, 0xfff]", false),
            ("address = [0xffff_ffff_ffff_f000, 0xffff_ffff_ffff_ffff]", false),
            ("queue = 2", true),
            ("queue = 3", false),
            ("queue = 2\nindex = 5", true),
            ("queue = 2\nindex = 6", false),
            ("byte = 7", true),
            ("byte = 8", false),
        ] {
            assert_eq!(fired(&rule(which), &[read(0x1000, 8)]), [expected], "{which}");
        }
    }

    #[test]
    fn plan_that_is_restored_goes_on_where_it_was_saved() {
        let text = "[[rule]]\npoint = 'dma.read'\naction = 'abort'\nevery = 3\ntimes = 2";
        let same = [read(0x1000, 8); 4];
        let first = running(text);
        assert_eq!(fired(&first, &same), [false, false, true, false]);
        let saved = first.save();
        let second = running(&saved.text);
        second.restore(&saved.seen).unwrap();
        assert_eq!(fired(&second, &same), [false, true, false, false]);
        assert_eq!(fired(&second, &same), [false; 4]);
        assert!(second.restore(&[]).unwrap_err().contains("0 rules"));
        assert!(second.restore(&[(1, 2)]).is_err());
    }

    #[test]
    fn rules_after_the_one_that_fires_do_not_count_the_occasion() {
        let twice = "[[rule]]\npoint = 'dma.read'\naction = 'abort'\nnth = 1\n";
        let running = running(&format!("{twice}{twice}"));
        assert_eq!(fired(&running, &[read(0, 1); 3]), [true, true, false]);
        assert!(running.mentions(FaultPoint::DmaRead) && !running.mentions(FaultPoint::DmaWrite));
    }
}
