//! Fault plans and rules: what goes wrong, where and when. `docs/faults.md` is the user's side.
//!
//! A plan is a TOML file ([`parse`](Plan::parse)), a rule by itself is one line ([`mod@line`]). A machine asks them at its fault points and
//! keeps a record ([`Running`]), of which a report is made at the end; with a control socket, rules come and go while it runs.
//! What fires depends on the rules, the seed and the count of occasions alone: never on wall time.

pub mod line;
mod list;
mod parse;
mod report;
mod running;

use std::path::Path;

use hw::fault::{ActionKind, FaultAction, FaultEvent, FaultPoint, Occasion};
use hw::{Pasid, StreamId};

pub use list::{check, list};
pub use parse::PlanError;
pub use report::{EventReport, FaultReport, RuleReport, finish};
pub use running::{FaultRefused, Listed, Rules, Running, State};

use crate::exit::Failed;

/// Longest delay, in nanoseconds of guest time.
const MOST_DELAY_NS: u64 = 60_000_000_000;

/// A plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The file, as the user named it.
    pub file: String,
    /// What was in it.
    pub text: String,
    /// Makes the choices of rules with a probability.
    pub seed: u64,
    /// In the order of the file. The first that fires decides, and those after it don't count the occasion.
    pub rules: Vec<Rule>,
}

/// What goes wrong where.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The user's name for it.
    pub name: Option<String>,
    /// Line of the plan's file where it begins; none of a rule by itself.
    pub line: Option<usize>,
    /// Where.
    pub point: FaultPoint,
    /// Which occasions there it counts.
    pub filter: Filter,
    /// On which of those it fires.
    pub when: When,
    /// How often at most.
    pub times: Option<u64>,
    /// What then happens.
    pub action: FaultAction,
}

/// Something that goes wrong by itself, at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The device.
    pub device: StreamId,
    /// What.
    pub event: FaultEvent,
}

/// What is to go wrong once.
#[derive(Clone, Debug, PartialEq)]
pub enum Trigger {
    /// This, on the next occasion that the rule describes.
    Next(Rule),
    /// This, at once.
    Now(Event),
}

/// Which occasions count; `None` is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The device.
    pub device: Option<StreamId>,
    /// The PASID, or no PASID.
    pub pasid: Option<Option<Pasid>>,
    /// First and last address of a range that the occasion's has a byte of.
    pub address: Option<(u64, u64)>,
    /// Level of the table.
    pub level: Option<u8>,
    /// Queue of the device's command.
    pub queue: Option<u16>,
    /// Place of the command in its queue.
    pub index: Option<u16>,
    /// Number of the message.
    pub vector: Option<u16>,
    /// The access has at least so many bytes: one that the action means.
    pub least_len: u64,
}

/// On which of the occasions that count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// On each.
    Always,
    /// On the nth, from 1.
    Nth(u64),
    /// On every nth.
    Every(u64),
    /// With this probability, by seed and count.
    Probability(f64),
}

impl Filter {
    fn admits(&self, occasion: &Occasion) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, found: Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let overlaps = |(first, last): (u64, u64)| {
            let start = occasion.address.0;
            start <= last && start.saturating_add(occasion.len.saturating_sub(1)) >= first
        };
        let command = occasion.command;
        is(self.device, Some(occasion.stream))
            && self.pasid.is_none_or(|pasid| pasid == occasion.pasid)
            && self.address.is_none_or(overlaps)
            && is(self.level, occasion.level)
            && is(self.queue, command.map(|command| command.queue))
            && is(self.index, command.and_then(|command| command.index))
            && is(self.vector, occasion.vector)
            && occasion.len >= self.least_len
    }
}

impl When {
    /// Whether occasion `count` (from 1) of rule `index` is one.
    fn fires(self, seed: u64, index: u64, count: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Nth(nth) => count == nth,
            Self::Every(nth) => count.is_multiple_of(nth),
            // 53 bits are all that a probability has.
            Self::Probability(probability) => {
                (mix(mix(seed ^ mix(index)) ^ count) >> 11) as f64 * (1.0 / (1u64 << 53) as f64) < probability
            }
        }
    }
}

/// Scrambles 64 bits, one to one: neighbours become unlike one another.
fn mix(value: u64) -> u64 {
    let mut bits = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits = (bits ^ bits >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits ^ bits >> 32
}

impl Plan {
    /// Reads a plan from a file.
    ///
    /// # Errors
    /// A line for the user: file, line, key, and what would be right.
    pub fn read(path: &Path) -> Result<Self, Failed> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failed::new(format!("cannot read the fault plan {path:?}: {e}")))?;
        Self::parse(&text, &file).map_err(|e| Failed::new(e.to_string()))
    }
}

/// A PCI function as people write it: bus, device, function.
pub(crate) fn device_name(stream: StreamId) -> String {
    let id = stream.0;
    format!("{:02x}:{:02x}.{}", id >> 8 & 0xff, id >> 3 & 0x1f, id & 7)
}

/// What a rule does, with its numbers.
fn action_text(action: &FaultAction) -> String {
    let kind = action.kind();
    match *action {
        FaultAction::Delay { delay } => format!("{kind} of {}", time_text(delay)),
        FaultAction::BitFlip { byte, bit } => format!("{kind} in byte {byte}, bit {bit}"),
        FaultAction::WrongStatus { status } => format!("{kind} {status:#x}"),
        FaultAction::Abort { byte } if byte != 0 => format!("{kind} at byte {byte}"),
        _ => kind.to_string(),
    }
}

fn time_text(ns: u64) -> String {
    match ns {
        0 => "0 s".into(),
        _ if ns.is_multiple_of(1_000_000_000) => format!("{} s", ns / 1_000_000_000),
        _ if ns.is_multiple_of(1_000_000) => format!("{} ms", ns / 1_000_000),
        _ if ns.is_multiple_of(1_000) => format!("{} us", ns / 1_000),
        _ => format!("{ns} ns"),
    }
}

/// Whether an action's numbers are meant at a point: the answer to a stall is aborted as a whole.
fn takes_numbers(point: FaultPoint, kind: ActionKind) -> bool {
    kind != ActionKind::Abort || matches!(point, FaultPoint::DmaRead | FaultPoint::DmaWrite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probability_comes_out_in_the_long_run_and_the_same_for_the_same_seed() {
        let fired = |seed, index| {
            (1..=100_000)
                .filter(|&count| When::Probability(0.25).fires(seed, index, count))
                .collect::<Vec<_>>()
        };
        let first = fired(1, 0);
        assert!((24_000..26_000).contains(&first.len()), "{}", first.len());
        assert_eq!(first, fired(1, 0));
        assert_ne!(first, fired(2, 0));
        assert_ne!(first, fired(1, 1));
        assert!((1..1000).all(|count| When::Probability(1.0).fires(3, 0, count)));
        assert!(!(1..1000).any(|count| When::Probability(0.0).fires(3, 0, count)));
    }

    #[test]
    fn device_is_named_by_bus_device_and_function() {
        assert_eq!(device_name(StreamId(8)), "00:01.0");
        assert_eq!(device_name(StreamId(0x1_ff)), "01:1f.7");
    }
}
