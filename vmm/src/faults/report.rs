//! What a plan came to: for people and as JSON.

use std::fmt;

use hw::fault::Occasion;
use serde::Serialize;

use super::running::{Book, Entry, Firing, Happened, State};
use super::{Plan, action_text, device_name};
use crate::exit::{Failed, Status};

/// Firings of one rule that are shown; the JSON has all that are remembered.
const MOST_SHOWN: usize = 5;

/// What became of the fault rules.
#[derive(Clone, Debug, Serialize)]
pub struct FaultReport {
    /// The plan's file, if there is a plan.
    pub plan: Option<String>,
    /// Its seed.
    pub seed: u64,
    /// Its rules, and those that came later.
    pub rules: Vec<RuleReport>,
    /// How many there were besides that are not told of, because they could not fire any more and there were too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub forgotten: u64,
    /// What was made to go wrong by itself; the first ones, if there are very many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventReport>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An event that was triggered.
#[derive(Clone, Debug, Serialize)]
pub struct EventReport {
    /// Guest time.
    pub seconds: f64,
    /// The event in one line, as it is triggered.
    pub event: String,
}

/// What became of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its number.
    pub id: u32,
    /// Its line in the plan's file, if it is from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The rule in one line.
    pub rule: String,
    /// Whether it may still fire.
    pub state: State,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its point.
    pub point: &'static str,
    /// What it does, with its numbers.
    pub action: String,
    /// Occasions that it counted.
    pub occasions: u64,
    /// How often it fired.
    pub fired: u64,
    /// When and on what; the first ones, if there are very many.
    pub firings: Vec<FiringReport>,
}

/// One firing of a rule. What is not known at its point is absent.
#[derive(Clone, Debug, Serialize)]
pub struct FiringReport {
    /// Guest time.
    pub seconds: f64,
    /// Which of the rule's occasions, from 1.
    pub occasion: u64,
    /// The PCI function.
    pub device: String,
    /// Its PASID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pasid: Option<u32>,
    /// The address, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Bytes from there on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<u64>,
    /// Level of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Queue of the device's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u16>,
    /// Place of the command in its queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
    /// Number of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector: Option<u16>,
}

impl FiringReport {
    fn new(firing: &Firing) -> Self {
        let Occasion { stream, pasid, address, len, command, level, vector, .. } = firing.occasion;
        let has_address = len != 0;
        Self {
            seconds: firing.at_ns as f64 / 1e9,
            occasion: firing.count,
            device: device_name(stream),
            pasid: pasid.map(hw::Pasid::get),
            address: has_address.then(|| format!("{:#x}", address.0)),
            len: (len > 1).then_some(len),
            level,
            queue: command.map(|command| command.queue),
            index: command.and_then(|command| command.index),
            vector,
        }
    }
}

impl fmt::Display for FiringReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.6} s, occasion {}: {}", self.seconds, self.occasion, self.device)?;
        if let Some(pasid) = self.pasid {
            write!(f, ", PASID {pasid}")?;
        }
        if let Some(address) = &self.address {
            write!(f, ", address {address}")?;
        }
        if let Some(len) = self.len {
            write!(f, " ({len} bytes)")?;
        }
        if let Some(level) = self.level {
            write!(f, ", level {level}")?;
        }
        if let Some(queue) = self.queue {
            write!(f, ", queue {queue}")?;
        }
        if let Some(index) = self.index {
            write!(f, " command {index}")?;
        }
        if let Some(vector) = self.vector {
            write!(f, ", vector {vector}")?;
        }
        Ok(())
    }
}

impl RuleReport {
    fn new(entry: &Entry) -> Self {
        let rule = &entry.rule;
        Self {
            id: entry.id,
            line: rule.line,
            rule: rule.to_string(),
            state: entry.state(),
            name: rule.name.clone(),
            point: rule.point.name(),
            action: action_text(&rule.action),
            occasions: entry.occasions,
            fired: entry.fired,
            firings: entry.firings.iter().map(FiringReport::new).collect(),
        }
    }

    /// What it is called in messages.
    fn place(&self) -> String {
        self.line.map_or_else(|| format!("rule {}", self.id), |line| format!("line {line}"))
    }
}

impl EventReport {
    fn new(happened: &Happened) -> Self {
        Self { seconds: happened.at_ns as f64 / 1e9, event: happened.event.to_string() }
    }
}

impl FaultReport {
    pub(super) fn new(plan: Option<&Plan>, book: &Book) -> Self {
        Self {
            plan: plan.map(|plan| plan.file.clone()),
            seed: plan.map_or(0, |plan| plan.seed),
            rules: book.entries.iter().map(RuleReport::new).collect(),
            forgotten: book.forgotten,
            events: book.events.iter().map(EventReport::new).collect(),
        }
    }

    /// The same with fewer firings in all, the first ones of each rule: for an answer of a bounded length.
    #[must_use]
    pub fn shortened(mut self, most: usize) -> Self {
        let share = most / self.rules.len().max(1);
        self.rules.iter_mut().for_each(|rule| rule.firings.truncate(share));
        self.events.truncate(most);
        self
    }

    /// A line about the rules that never fired and were not taken back.
    fn silence(&self) -> Option<String> {
        let silent = self.rules.iter().filter(|rule| rule.fired == 0 && rule.state != State::Disarmed);
        let (planned, others): (Vec<_>, Vec<_>) = silent.partition(|rule| rule.line.is_some());
        let list = |rules: Vec<String>| rules.join(", ");
        let planned = (!planned.is_empty()).then(|| {
            let lines = list(planned.iter().filter_map(|rule| Some(rule.line?.to_string())).collect());
            let plan = self.plan.as_deref().unwrap_or_default();
            format!("{plan}: nothing came of the rules on line {lines}: they never fired")
        });
        let others = (!others.is_empty()).then(|| {
            let rules = list(others.iter().map(|rule| format!("{} ({})", rule.id, rule.rule)).collect());
            format!("nothing came of rule {rules}: it never fired")
        });
        let parts: Vec<String> = planned.into_iter().chain(others).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plan {
            Some(plan) => writeln!(f, "faults by {plan} (seed {}):", self.seed)?,
            None => writeln!(f, "faults:")?,
        }
        for rule in &self.rules {
            write!(f, "  {}", rule.place())?;
            if let Some(name) = &rule.name {
                write!(f, " ({name})")?;
            }
            let (action, point) = (&rule.action, rule.point);
            writeln!(f, ": {action} at {point} fired on {} of {} occasions", rule.fired, rule.occasions)?;
            for firing in rule.firings.iter().take(MOST_SHOWN) {
                writeln!(f, "    {firing}")?;
            }
            let shown = rule.firings.len().min(MOST_SHOWN) as u64;
            if rule.fired > shown {
                writeln!(f, "    and {} more", rule.fired - shown)?;
            }
        }
        if self.forgotten > 0 {
            writeln!(f, "  and {} rules that were over or disarmed", self.forgotten)?;
        }
        for EventReport { seconds, event } in self.events.iter().take(MOST_SHOWN) {
            writeln!(f, "  at {seconds:.6} s: {event}")?;
        }
        if self.events.len() > MOST_SHOWN {
            writeln!(f, "  and {} more events", self.events.len() - MOST_SHOWN)?;
        }
        Ok(())
    }
}

/// Tells the user what the plan came to, at the end of a run. Whether the run's own `status` stands.
///
/// # Errors
/// If the run went well, but `strict` is given and a rule never fired.
pub fn finish(report: Option<&FaultReport>, strict: bool, status: Status) -> Result<Status, Failed> {
    let Some(report) = report else { return Ok(status) };
    eprint!("{report}");
    let Some(message) = report.silence() else { return Ok(status) };
    if strict && status == Status::Success {
        return Err(Failed::new(message));
    }
    eprintln!("warpvmm: warning: {message}");
    Ok(status)
}
