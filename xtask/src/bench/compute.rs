//! Integer work in the guest: time of each kind on both emulators, and the geometric mean of the speeds.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::machine::{Done, finish, measurements};
use super::{Bench, median};

/// Milliseconds by name, one for each run, and the checksum that every run must have.
type Times = BTreeMap<String, (Vec<f64>, String)>;

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    let mut ours = Times::new();
    let mut theirs = Times::new();
    for round in 1..=bench.options.rounds {
        eprintln!("compute {round} of {}", bench.options.rounds);
        add(&mut ours, &finish(&mut bench.warpvmm("compute-bench"))?)?;
        add(&mut theirs, &finish(&mut bench.qemu("compute-bench"))?)?;
    }

    println!("integer work in the guest, median of {}:", bench.options.rounds);
    println!("  {:14} {:>12} {:>12} {:>8}", "", "warpvmm", "qemu", "speed");
    let mut speeds = Vec::new();
    let mut kinds = serde_json::Map::new();
    for (name, (times, check)) in &mut ours {
        let (reference, expected) =
            theirs.get_mut(name).with_context(|| format!("qemu has no result for {name}"))?;
        if check != expected {
            bail!("{name} computed {check} in warpvmm and {expected} in qemu");
        }
        let (ours, theirs) = (median(times), median(reference));
        let speed = theirs / ours;
        println!("  {name:14} {ours:9.1} ms {theirs:9.1} ms {speed:8.3}");
        speeds.push(speed);
        kinds.insert(name.clone(), json!({ "warpvmm_ms": ours, "qemu_ms": theirs, "speed": speed }));
    }
    let mean = geometric_mean(&speeds).context("no measurement on the console")?;
    println!("  {:14} {mean:35.3}", "geometric mean");
    Ok(json!({ "rounds": bench.options.rounds, "kinds": kinds, "geometric_mean_speed": mean }))
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

fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    Some((logarithms / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometric_mean_of_a_number_and_its_inverse_is_one() {
        assert!((geometric_mean(&[4.0, 0.25]).unwrap() - 1.0).abs() < 1e-12);
        assert!(geometric_mean(&[]).is_none());
    }

    #[test]
    fn result_that_changes_between_runs_is_an_error() {
        let done = |console: &str| Done { seconds: 1.0, console: console.into() };
        let mut times = Times::new();

        add(&mut times, &done("bench sort 1000000 aa\n")).unwrap();

        assert_eq!(times["sort"].0, [1.0]);
        assert!(add(&mut times, &done("bench sort 1000000 bb\n")).is_err());
    }
}
