//! What a plan came to: for people and as JSON.

use std::fmt;

use hw::fault::Occasion;
use serde::Serialize;

use super::running::{Firing, Seen};
use super::{Plan, action_text, device_name};
use crate::exit::{Failed, Status};

/// Firings of one rule that are shown; the JSON has all that are remembered.
const MOST_SHOWN: usize = 5;

/// What became of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct FaultReport {
    /// The plan's file.
    pub plan: String,
    /// Its seed.
    pub seed: u64,
    /// Its rules.
    pub rules: Vec<RuleReport>,
}

/// What became of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its line in the file.
    pub line: usize,
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

impl FaultReport {
    pub(super) fn new(plan: &Plan, seen: &[Seen]) -> Self {
        let rules = plan.rules.iter().zip(seen).map(|(rule, seen)| RuleReport {
            line: rule.line,
            name: rule.name.clone(),
            point: rule.point.name(),
            action: action_text(&rule.action),
            occasions: seen.occasions,
            fired: seen.fired,
            firings: seen.firings.iter().map(FiringReport::new).collect(),
        });
        Self { plan: plan.file.clone(), seed: plan.seed, rules: rules.collect() }
    }

    /// Lines of rules that never fired.
    #[must_use]
    pub fn silent_lines(&self) -> Vec<usize> {
        self.rules.iter().filter(|rule| rule.fired == 0).map(|rule| rule.line).collect()
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults by {} (seed {}):", self.plan, self.seed)?;
        for rule in &self.rules {
            write!(f, "  line {}", rule.line)?;
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
    let silent = report.silent_lines();
    if silent.is_empty() {
        return Ok(status);
    }
    let lines = silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let message = format!("{}: nothing came of the rules on line {lines}: they never fired", report.plan);
    if strict && status == Status::Success {
        return Err(Failed::new(message));
    }
    eprintln!("warpvmm: warning: {message}");
    Ok(status)
}
