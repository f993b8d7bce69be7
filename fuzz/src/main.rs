//! Runs fuzz targets on stable Rust for a bounded time, with inputs from seeds and a seeded generator.
//!
//! Not guided by coverage: `libfuzzer/` is, and needs a nightly toolchain. `README.md` says how both are used.

#![forbid(unsafe_code)]

mod mutate;
mod watch;

use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use fuzz::{TARGETS, Target, input};
use serde_json::json;

use mutate::Random;
use watch::{Bounds, Current, Watch};

/// Runs fuzz targets, or one target on the given inputs.
#[derive(Parser)]
struct Options {
    /// Target; all of them if none is given
    target: Option<String>,
    /// Inputs to run instead of generated ones
    files: Vec<PathBuf>,
    /// Seconds for each target
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seed of the generated inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Processor time that one input may take
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2000)]
    time_limit: u64,
    /// Wall time after which an input is taken for one that never ends
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 60_000)]
    wall_limit: u64,
    /// Memory that the process may take
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory_limit: u64,
    /// List the targets
    #[arg(long)]
    list: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What became of a target.
struct Outcome {
    name: &'static str,
    inputs: u64,
    /// The most processor time that one of them took.
    slowest: Duration,
    failure: Option<String>,
}

impl Outcome {
    fn new(target: &Target) -> Self {
        Self { name: target.name, inputs: 0, slowest: Duration::ZERO, failure: None }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    if options.list {
        for target in TARGETS {
            println!("{:<12} {}", target.name, target.about);
        }
        return Ok(true);
    }
    let targets: Vec<&Target> = match &options.target {
        None => TARGETS.iter().collect(),
        Some(name) => match TARGETS.iter().find(|target| target.name == name) {
            Some(target) => vec![target],
            None => bail!("there is no target {name}; --list says what there is"),
        },
    };
    let artifacts = input::home().join("artifacts");
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot make {}", artifacts.display()))?;
    let bounds = Bounds {
        processor: Duration::from_millis(options.time_limit),
        wall: Duration::from_millis(options.wall_limit),
        memory: options.memory_limit << 20,
    };
    let json = options.json;
    let watch = Watch::start(bounds, move |name, file, what| {
        report(name, file, what);
        summary(0, 1, &[], json);
        std::process::exit(1);
    });

    let mut outcomes = Vec::new();
    for target in targets {
        let outcome = if options.files.is_empty() {
            fuzz_target(target, options, &watch, &artifacts)?
        } else {
            replay(target, &options.files, &watch)?
        };
        if !json {
            let verdict = if outcome.failure.is_none() { "ok" } else { "FAILED" };
            let Outcome { name, inputs, slowest, .. } = &outcome;
            println!("{name:<12} {verdict} ({inputs} inputs, the slowest {slowest:.0?})");
        }
        outcomes.push(outcome);
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    summary(outcomes.len() - failed, failed, &outcomes, json);
    Ok(failed == 0)
}

fn summary(passed: usize, failed: usize, outcomes: &[Outcome], json: bool) {
    if json {
        let targets: Vec<_> = outcomes
            .iter()
            .map(|o| {
                let slowest_ms = o.slowest.as_secs_f64() * 1e3;
                json!({ "name": o.name, "inputs": o.inputs, "slowest_ms": slowest_ms, "failure": o.failure })
            })
            .collect();
        println!("{}", json!({ "passed": passed, "failed": failed, "targets": targets }));
    }
    println!("{passed} passed, {failed} failed");
}

fn report(name: &str, file: &Path, what: &str) {
    eprintln!("fuzz: {name} {what}");
    eprintln!("fuzz: to see it again: cargo run --profile fuzz -p fuzz -- {name} {}", file.display());
}

/// Runs the inputs of files.
fn replay(target: &Target, files: &[PathBuf], watch: &Watch) -> Result<Outcome> {
    let mut outcome = Outcome::new(target);
    for file in files {
        let data = input::load(file).with_context(|| format!("cannot read {}", file.display()))?;
        outcome.inputs += 1;
        match watch.over(target.name, file, || (target.run)(&data)) {
            Ok(took) => outcome.slowest = outcome.slowest.max(took),
            Err(what) => {
                report(target.name, file, &what);
                outcome.failure = Some(what);
            }
        }
    }
    Ok(outcome)
}

/// Runs seeds, then generated inputs until the time is over or one fails.
fn fuzz_target(target: &Target, options: &Options, watch: &Watch, artifacts: &Path) -> Result<Outcome> {
    let corpus: Vec<Vec<u8>> = input::seeds(target.name)
        .context("cannot read the seeds")?
        .into_iter()
        .map(|(_, seed)| seed)
        .collect();
    let mut random = Random::new(options.seed);
    let mut seeds = corpus.iter();
    let current = Current::create(artifacts.join(format!("{}.running", target.name)))?;
    let mut outcome = Outcome::new(target);
    let start = Instant::now();
    loop {
        let data = match seeds.next() {
            Some(seed) => seed.clone(),
            None if start.elapsed().as_secs() < options.seconds => mutate::next(&mut random, &corpus),
            None => break,
        };
        current.put(&data)?;
        outcome.inputs += 1;
        match watch.over(target.name, current.path(), AssertUnwindSafe(|| (target.run)(&data))) {
            Ok(took) => outcome.slowest = outcome.slowest.max(took),
            Err(what) => {
                let file = artifacts.join(format!("{}-{:016x}", target.name, fingerprint(&data)));
                fs::write(&file, &data).with_context(|| format!("cannot write {}", file.display()))?;
                report(target.name, &file, &what);
                outcome.failure = Some(what);
                break;
            }
        }
    }
    current.remove()?;
    Ok(outcome)
}

/// A name for an input: FNV-1a.
fn fingerprint(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
