//! `warpvmm faults`: what a plan can say, and whether one is right.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use hw::fault::{EventKind, FaultPoint};
use serde::Serialize;

use super::parse::detail_keys;
use super::{Plan, action_text, takes_numbers};
use crate::exit::Status;

#[derive(Serialize)]
struct PointEntry {
    point: &'static str,
    about: &'static str,
    /// Keys that say where, besides `device` and `pasid`; of an event, besides `device`.
    details: Vec<&'static str>,
    /// None of an event, which goes wrong by itself.
    actions: Vec<ActionEntry>,
}

#[derive(Serialize)]
struct ActionEntry {
    action: &'static str,
    about: &'static str,
    /// Keys with its numbers.
    numbers: &'static [&'static str],
}

fn entries() -> Vec<PointEntry> {
    let entry = |point: &FaultPoint| PointEntry {
        point: point.name(),
        about: point.about(),
        details: point.details().iter().flat_map(|detail| detail_keys(*detail)).copied().collect(),
        actions: point
            .actions()
            .iter()
            .map(|kind| ActionEntry {
                action: kind.name(),
                about: kind.about(),
                numbers: if takes_numbers(*point, *kind) { kind.numbers() } else { &[] },
            })
            .collect(),
    };
    let event = |event: &EventKind| PointEntry {
        point: event.name(),
        about: event.about(),
        details: event.numbers().to_vec(),
        actions: Vec::new(),
    };
    FaultPoint::ALL.iter().map(entry).chain(EventKind::ALL.iter().map(event)).collect()
}

/// `warpvmm faults list`.
///
/// # Errors
/// If standard output takes nothing.
pub fn list(json: bool) -> anyhow::Result<Status> {
    let text = if json {
        serde_json::to_string_pretty(&entries()).context("cannot write the list")? + "\n"
    } else {
        as_text()
    };
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(Status::Success)
}

fn as_text() -> String {
    let mut text = String::new();
    for entry in entries() {
        text += &format!("{}\n  {}\n", entry.point, entry.about);
        if !entry.details.is_empty() {
            text += &format!("  where also: {}\n", entry.details.join(", "));
        }
        if entry.actions.is_empty() {
            text += "    by itself: `warpvmm ctl PATH fault trigger`\n";
        }
        for action in entry.actions {
            let keys = match action.numbers {
                [] => String::new(),
                keys => format!(" [{}]", keys.join(", ")),
            };
            text += &format!("    {:<20} {}{keys}\n", action.action, action.about);
        }
    }
    text += "\nA rule has a point and an action with its [keys]; it may say where (device, pasid, and as above) and when\n\
             (nth, every or probability; times). docs/faults.md has the format, and what a guest sees.\n";
    text
}

/// `warpvmm faults check PLAN`.
///
/// # Errors
/// A line for the user.
pub fn check(path: &Path) -> anyhow::Result<Status> {
    let plan = Plan::read(path)?;
    let mut text = String::new();
    for rule in &plan.rules {
        let name = rule.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let (line, action) = (rule.line.unwrap_or_default(), action_text(&rule.action));
        text += &format!("line {line}{name}: {action} at {}\n", rule.point);
    }
    text += &format!("{}: {} rules, seed {}: fine\n", plan.file, plan.rules.len(), plan.seed);
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(Status::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_every_point_with_every_action() {
        let text = as_text();
        for point in FaultPoint::ALL {
            assert!(text.contains(&format!("{point}\n  {}", point.about())));
            assert!(point.actions().iter().all(|kind| text.contains(kind.name())));
        }
        for event in EventKind::ALL {
            assert!(text.contains(&format!("{event}\n  {}", event.about())));
        }
    }
}
