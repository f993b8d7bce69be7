//! Programs that time their own work in the guest, on both emulators.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::machine::{Done, finish, measurements};
use super::{Bench, median};

/// Some work, and its time on both sides.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) name: String,
    /// Medians, in milliseconds.
    pub(super) ours: f64,
    pub(super) theirs: f64,
}

/// Milliseconds by name, one for each run, and the check value that every run must have.
type Times = BTreeMap<String, (Vec<f64>, String)>;

/// Runs a program as often as the user asked for, in turns; all results must agree.
pub(super) fn compare(bench: &Bench<'_>, program: &str) -> Result<Vec<Work>> {
    let mut ours = Times::new();
    let mut theirs = Times::new();
    for round in 1..=bench.options.rounds {
        eprintln!("{program} {round} of {}", bench.options.rounds);
        add(&mut ours, &finish(&mut bench.warpvmm(bench.machine(), program))?)?;
        add(&mut theirs, &finish(&mut bench.qemu(bench.machine(), program))?)?;
    }
    if ours.is_empty() {
        bail!("no measurement on the console");
    }
    let mut list = Vec::new();
    for (name, (mut times, check)) in ours {
        let (mut reference, expected) =
            theirs.remove(&name).with_context(|| format!("qemu has no result for {name}"))?;
        if check != expected {
            bail!("{name} computed {check} in warpvmm and {expected} in qemu");
        }
        list.push(Work { name, ours: median(&mut times), theirs: median(&mut reference) });
    }
    Ok(list)
}

fn add(times: &mut Times, done: &Done) -> Result<()> {
    for (name, words) in measurements(&done.console) {
        let [nanoseconds, check] = &words[..] else { bail!("{name}: cannot read {words:?}") };
        let milliseconds =
            nanoseconds.parse::<f64>().with_context(|| format!("{name}: {nanoseconds}"))? / 1e6;
        let (values, expected) = times.entry(name.clone()).or_insert_with(|| (Vec::new(), check.clone()));
        if expected != check {
            bail!("{name} computed {expected}, and then {check}");
        }
        values.push(milliseconds);
    }
    Ok(())
}

/// NaN if there are none.
pub(super) fn geometric_mean(values: &[f64]) -> f64 {
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    (logarithms / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometric_mean_of_a_number_and_its_inverse_is_one() {
        assert!((geometric_mean(&[4.0, 0.25]) - 1.0).abs() < 1e-12);
        assert!(geometric_mean(&[]).is_nan());
    }

    #[test]
    fn result_that_changes_between_runs_is_an_error() {
        let done = |console: &str| Done { seconds: 1.0, processor_seconds: 1.0, console: console.into() };
        let mut times = Times::new();

        add(&mut times, &done("bench sort 1000000 aa\n")).unwrap();

        assert_eq!(times["sort"].0, [1.0]);
        assert!(add(&mut times, &done("bench sort 1000000 bb\n")).is_err());
    }
}
