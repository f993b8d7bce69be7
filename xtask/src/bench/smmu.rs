//! What the SMMU and a translation cache add to an access, beside the limits that they keep. Needs no guest.
//!
//! The numbers are taken by `vmm/benches/smmu.rs`, a program of its own for the sake of its optimisation.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::limit::Limit;
use super::machine::measurements;
use crate::process;
use crate::project::Project;

/// A number and what it may be.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    value: f64,
    unit: String,
    limit: Option<Limit>,
}

impl Line {
    fn parse(name: String, words: &[String]) -> Option<Self> {
        let (value, unit) = (words.first()?.parse().ok()?, words.get(1)?.clone());
        let limit = match words.get(2..)? {
            [] => None,
            [kind, limit] if kind == "at-most" => Some(Limit::AtMost(limit.parse().ok()?)),
            [kind, limit] if kind == "at-least" => Some(Limit::AtLeast(limit.parse().ok()?)),
            _ => return None,
        };
        Some(Self { name, value, unit, limit })
    }

    fn is_kept(&self) -> bool {
        self.limit.is_none_or(|limit| limit.is_kept(self.value))
    }

    fn verdict(&self) -> String {
        self.limit.map(|limit| limit.verdict(self.value)).unwrap_or_default()
    }
}

pub(super) fn run(project: &Project) -> Result<Value> {
    eprintln!("smmu: some seconds, without a guest");
    let console = process::output(
        Command::new(env!("CARGO"))
            .args(["bench", "--quiet", "-p", "vmm", "--bench", "smmu"])
            .current_dir(project.root()),
    )?;
    println!("what the SMMU adds to a device's access, least of many rounds:");
    let mut report = serde_json::Map::new();
    let measurements = measurements(&console);
    if measurements.is_empty() {
        bail!("no measurement; the last line was: {}", console.lines().last().unwrap_or("(none)"));
    }
    for (name, words) in measurements {
        let line =
            Line::parse(name.clone(), &words).with_context(|| format!("{name}: cannot read {words:?}"))?;
        println!("  {:44} {:8.2} {:6} {}", line.name, line.value, line.unit, line.verdict());
        report.insert(name, json!({ "value": line.value, "unit": line.unit, "kept": line.is_kept() }));
    }
    Ok(report.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<Line> {
        let (name, words) = measurements(text).pop()?;
        Line::parse(name, &words)
    }

    #[test]
    fn value_beyond_its_limit_is_told_so() {
        let is_kept = |text| line(text).unwrap().is_kept();
        assert!(is_kept("bench hit 9.9 ns at-most 10\n") && !is_kept("bench hit 10.1 ns at-most 10\n"));
        assert!(
            is_kept("bench copy 0.95 times at-least 0.9\n")
                && !is_kept("bench copy 0.8 times at-least 0.9\n")
        );
        assert!(is_kept("bench direct 9 ns\n"));
        assert_eq!(line("bench hit 10.1 ns at-most 10\n").unwrap().verdict(), "at most 10: NOT KEPT");
    }

    #[test]
    fn line_without_a_number_is_no_measurement() {
        assert_eq!(line("bench hit fast ns\n"), None);
        assert_eq!(line("bench hit 1 ns about 10\n"), None);
    }
}
