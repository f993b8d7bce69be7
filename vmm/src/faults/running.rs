//! Rules at work: counts, decisions, and the record of what fired.
//!
//! A machine has the rules of its plan, then those of its command line, then those that were armed while it ran, each with a
//! number that no other one gets. Bounds: rules, and the firings that are remembered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::Clock;
use hw::fault::{FaultAction, FaultPlan, FaultPoint, Occasion};
use serde::Serialize;
use thiserror::Error;

use super::parse::MOST_RULES;
use super::{Event, FaultReport, Plan, Rule, When};
use crate::exit::Failed;
use crate::save::state::{SavedFaults, SavedRule};

/// Firings of one rule that are remembered; further ones are only counted.
const MOST_REMEMBERED: usize = 1000;
/// Firings of all rules that are remembered.
const MOST_REMEMBERED_IN_ALL: usize = 20_000;
/// Events that are remembered.
const MOST_EVENTS: usize = 1000;

/// What a machine starts with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The plan.
    pub plan: Option<Plan>,
    /// Further rules, asked after it.
    pub more: Vec<Rule>,
    /// More may be armed later.
    pub change: bool,
}

impl Rules {
    /// What a machine starts with.
    ///
    /// # Errors
    /// A line for the user: there are too many.
    pub fn new(plan: Option<Plan>, more: Vec<Rule>, change: bool) -> Result<Self, Failed> {
        let of_plan = plan.as_ref().map_or(0, |plan| plan.rules.len());
        if of_plan + more.len() > MOST_RULES {
            return Err(Failed::new(format!(
                "more than {MOST_RULES} fault rules, of the plan and of --fault"
            )));
        }
        Ok(Self { plan, more, change })
    }

    /// Whether there is anything that can go wrong, now or later.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.plan.is_none() && self.more.is_empty() && !self.change
    }
}

/// Why a rule is not armed or disarmed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FaultRefused {
    /// There are as many as there can be.
    #[error("there are {MOST_RULES} rules already, none of which is over or disarmed")]
    Full,
    /// There is none of this number.
    #[error("there is no rule {0}")]
    NoSuchRule(u32),
    /// There is no such device or message.
    #[error("{0}")]
    NoSuchEvent(String),
    /// This machine has those of its start.
    #[error("this machine's rules are those that it was started with")]
    Fixed,
}

/// Whether a rule may still fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It may.
    Armed,
    /// It has fired as often as it says.
    Over,
    /// Somebody has taken it back.
    Disarmed,
}

impl State {
    /// As lists and reports have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Armed => "armed",
            Self::Over => "over",
            Self::Disarmed => "disarmed",
        }
    }
}

/// A rule that fired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firing {
    pub(super) at_ns: u64,
    /// Which of the rule's occasions, from 1.
    pub(super) count: u64,
    pub(super) occasion: Occasion,
}

/// An event that was triggered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened {
    pub(super) at_ns: u64,
    pub(super) event: Event,
}

/// A rule, and what it has seen.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) rule: Rule,
    is_disarmed: bool,
    /// It is asked before those that are not.
    is_urgent: bool,
    pub(super) occasions: u64,
    pub(super) fired: u64,
    pub(super) firings: Vec<Firing>,
}

impl Entry {
    const fn new(id: u32, rule: Rule, is_urgent: bool) -> Self {
        Self { id, rule, is_disarmed: false, is_urgent, occasions: 0, fired: 0, firings: Vec::new() }
    }

    pub(super) fn state(&self) -> State {
        let has_passed = matches!(self.rule.when, When::Nth(nth) if self.occasions >= nth);
        if self.is_disarmed {
            State::Disarmed
        } else if has_passed || self.has_fired_enough() {
            State::Over
        } else {
            State::Armed
        }
    }

    fn has_fired_enough(&self) -> bool {
        self.rule.times.is_some_and(|times| self.fired >= times)
    }

    fn counts(&self) -> bool {
        let has_happened = self.is_urgent && self.has_fired_enough();
        !self.is_disarmed && !has_happened
    }

    /// Counts an occasion, if it is one of the rule's, and says whether the rule fires.
    fn meets(&mut self, occasion: &Occasion, seed: u64) -> bool {
        if !self.counts() || self.rule.point != occasion.point || !self.rule.filter.admits(occasion) {
            return false;
        }
        self.occasions += 1;
        // The number of a plan's rule is its place, from 1.
        let index = u64::from(self.id - 1);
        !self.has_fired_enough() && self.rule.when.fires(seed, index, self.occasions)
    }
}

/// One of the rules, for a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its number.
    pub id: u32,
    /// The rule in one line.
    pub rule: String,
    /// Its line in the plan; null of a rule that is not from there.
    pub line: Option<usize>,
    /// Whether it may still fire.
    pub state: State,
    /// Occasions that it has counted.
    pub occasions: u64,
    /// How often it has fired.
    pub fired: u64,
}

pub(super) struct Book {
    /// In the order in which they are asked, but for those that are urgent.
    pub(super) entries: Vec<Entry>,
    next_id: u32,
    /// Firings that are remembered.
    remembered: usize,
    pub(super) events: Vec<Happened>,
    /// Rules that are over or were disarmed, and are not told of any more.
    pub(super) forgotten: u64,
}

/// Rules, and what has come of them so far. The lock is a leaf.
pub struct Running {
    plan: Option<Plan>,
    /// More may be armed.
    changes: bool,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
}

impl Running {
    /// A plan that has not begun. The clock tells when rules fire, and decides nothing.
    #[must_use]
    pub fn new(plan: Plan, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with(Rules { plan: Some(plan), ..Rules::default() }, clock)
    }

    /// The same for all that a machine starts with.
    #[must_use]
    pub fn with(rules: Rules, clock: Arc<dyn Clock>) -> Arc<Self> {
        let Rules { plan, more, change } = rules;
        let all = plan.iter().flat_map(|plan| plan.rules.clone()).chain(more);
        let entries: Vec<_> = (1..).zip(all).map(|(id, rule)| Entry::new(id, rule, false)).collect();
        let next_id = entries.len() as u32 + 1;
        let book = Book { entries, next_id, remembered: 0, events: Vec::new(), forgotten: 0 };
        Arc::new(Self { plan, changes: change, clock, book: Mutex::new(book) })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more rule, which is asked after all others, or before those that are not urgent. Returns its number.
    ///
    /// # Errors
    /// [`FaultRefused::Full`], [`FaultRefused::Fixed`]
    pub fn arm(&self, rule: Rule, is_urgent: bool) -> Result<u32, FaultRefused> {
        if !self.changes {
            return Err(FaultRefused::Fixed);
        }
        let mut book = self.book();
        book.make_room()?;
        let id = book.next_id;
        // Four billion rules take longer than anybody waits; the last number then stays taken.
        book.next_id = id.checked_add(1).ok_or(FaultRefused::Full)?;
        book.entries.push(Entry::new(id, rule, is_urgent));
        Ok(id)
    }

    /// Takes a rule back: it does not count and not fire any more. One that has been taken back, or is over, may be.
    ///
    /// # Errors
    /// [`FaultRefused::NoSuchRule`], [`FaultRefused::Fixed`]
    pub fn disarm(&self, id: u32) -> Result<(), FaultRefused> {
        if !self.changes {
            return Err(FaultRefused::Fixed);
        }
        let mut book = self.book();
        let entry = book.entries.iter_mut().find(|entry| entry.id == id);
        entry.ok_or(FaultRefused::NoSuchRule(id))?.is_disarmed = true;
        Ok(())
    }

    /// Keeps a record of an event.
    pub fn happened(&self, event: Event) {
        let happened = Happened { at_ns: self.clock.now_ns(), event };
        log::debug!("fault event: {event}");
        let mut book = self.book();
        if book.events.len() < MOST_EVENTS {
            book.events.push(happened);
        }
    }

    /// The rules from this number on, as many as a list has, and the number of the next one if there are more.
    #[must_use]
    pub fn list(&self, from: u32, most: usize) -> (Vec<Listed>, Option<u32>) {
        let book = self.book();
        let mut rest = book.entries.iter().filter(|entry| entry.id >= from);
        let listed = rest.by_ref().take(most).map(|entry| Listed {
            id: entry.id,
            rule: entry.rule.to_string(),
            line: entry.rule.line,
            state: entry.state(),
            occasions: entry.occasions,
            fired: entry.fired,
        });
        let listed = listed.collect();
        (listed, rest.next().map(|entry| entry.id))
    }

    /// The rules and how far they have come; nothing, if there has never been one. What fired is counted, and not told any more.
    #[must_use]
    pub fn save(&self) -> Option<SavedFaults> {
        let book = self.book();
        let of_plan = self.plan.as_ref().map_or(0, |plan| plan.rules.len());
        if of_plan == 0 && book.next_id == 1 {
            return None;
        }
        let (planned, more) = book.entries.split_at(of_plan);
        let (file, text) =
            self.plan.as_ref().map_or_else(Default::default, |plan| (plan.file.clone(), plan.text.clone()));
        Some(SavedFaults {
            file,
            text,
            seen: planned.iter().map(|entry| (entry.occasions, entry.fired)).collect(),
            disarmed: planned.iter().filter(|entry| entry.is_disarmed).map(|entry| entry.id).collect(),
            more: more.iter().map(saved_rule).collect(),
            next: book.next_id,
        })
    }

    /// Takes up how far the rules of a save had come, and those that are not its plan's: this one.
    ///
    /// # Errors
    /// If that is another plan's, or what no machine has.
    pub fn restore(&self, saved: &SavedFaults) -> Result<(), String> {
        let mut book = self.book();
        let of_plan = self.plan.as_ref().map_or(0, |plan| plan.rules.len());
        if saved.seen.len() != of_plan {
            return Err(format!("it tells of {} rules, and the plan has {of_plan}", saved.seen.len()));
        }
        if of_plan + saved.more.len() > MOST_RULES {
            return Err("there are more rules than a machine has".to_owned());
        }
        book.entries.truncate(of_plan);
        for (entry, &(occasions, fired)) in book.entries.iter_mut().zip(&saved.seen) {
            let is_disarmed = saved.disarmed.contains(&entry.id);
            *entry =
                Entry { is_disarmed, occasions, fired, ..Entry::new(entry.id, entry.rule.clone(), false) };
        }
        for SavedRule { id, rule, disarmed, urgent, seen: (occasions, fired) } in &saved.more {
            let before = book.entries.last().map_or(0, |entry| entry.id);
            if *id <= before {
                return Err(format!("rule {id} comes after rule {before}"));
            }
            let rule = Rule::parse(rule).map_err(|why| format!("rule {id}: {why}"))?;
            let entry = Entry::new(*id, rule, *urgent);
            book.entries.push(Entry {
                is_disarmed: *disarmed,
                occasions: *occasions,
                fired: *fired,
                ..entry
            });
        }
        if let Some(wrong) = book.entries.iter().find(|entry| entry.fired > entry.occasions) {
            let Entry { fired, occasions, .. } = wrong;
            return Err(format!("a rule has fired {fired} times on {occasions} occasions"));
        }
        let least = book.entries.last().map_or(1, |entry| entry.id.saturating_add(1));
        (book.next_id, book.remembered) = (saved.next.max(least), 0);
        Ok(())
    }

    /// What has come of the rules so far; nothing, if there has never been one and nothing has been triggered.
    #[must_use]
    pub fn report(&self) -> Option<FaultReport> {
        let book = self.book();
        let has_any = self.plan.is_some() || book.next_id > 1 || !book.events.is_empty();
        has_any.then(|| FaultReport::new(self.plan.as_ref(), &book))
    }

    fn seed(&self) -> u64 {
        self.plan.as_ref().map_or(0, |plan| plan.seed)
    }
}

fn saved_rule(entry: &Entry) -> SavedRule {
    SavedRule {
        id: entry.id,
        rule: entry.rule.to_string(),
        disarmed: entry.is_disarmed,
        urgent: entry.is_urgent,
        seen: (entry.occasions, entry.fired),
    }
}

impl Book {
    /// Forgets the oldest rule that cannot fire any more and is not the plan's, if there would be too many otherwise.
    fn make_room(&mut self) -> Result<(), FaultRefused> {
        if self.entries.len() < MOST_RULES {
            return Ok(());
        }
        let is_gone = |entry: &Entry| entry.rule.line.is_none() && entry.state() != State::Armed;
        let gone = self.entries.iter().position(is_gone).ok_or(FaultRefused::Full)?;
        let gone = self.entries.remove(gone);
        self.remembered -= gone.firings.len();
        self.forgotten += 1;
        Ok(())
    }
}

impl FaultPlan for Running {
    /// A rule that is over still counts its occasions; what was to happen once does not.
    fn mentions(&self, point: FaultPoint) -> bool {
        self.book().entries.iter().any(|entry| entry.rule.point == point && entry.counts())
    }

    fn decide(&self, occasion: &Occasion) -> Option<FaultAction> {
        let mut book = self.book();
        let Book { entries, remembered, .. } = &mut *book;
        let seed = self.seed();
        let fires =
            |entry: &mut Entry, is_urgent| entry.is_urgent == is_urgent && entry.meets(occasion, seed);
        let first = entries.iter_mut().position(|entry| fires(entry, true));
        let first = first.or_else(|| entries.iter_mut().position(|entry| fires(entry, false)));
        let entry = entries.get_mut(first?)?;
        entry.fired += 1;
        let firing = Firing { at_ns: self.clock.now_ns(), count: entry.occasions, occasion: *occasion };
        log::debug!("fault rule {}: {:?} at {firing:?}", entry.id, entry.rule.action);
        if entry.firings.len() < MOST_REMEMBERED && *remembered < MOST_REMEMBERED_IN_ALL {
            entry.firings.push(firing);
            *remembered += 1;
        }
        Some(entry.rule.action)
    }
}

#[cfg(test)]
mod tests;
