//! `cargo xtask bench`: numbers, taken side by side in one run.
//!
//! warpvmm and what it is compared with take turns, so that both meet the same weather on the host. Results go to the
//! terminal and, as JSON, to target/bench.

mod accelerator;
mod boot;
mod compute;
mod engine;
mod idle;
mod limit;
mod machine;
mod proc;
mod programs;
mod smmu;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::guest::{self, Guest, GuestOptions};
use crate::packages;
use crate::project::{Project, write_whole};
use crate::run;

pub(crate) use accelerator::direct;

#[derive(Args)]
pub(crate) struct BenchOptions {
    /// Only this benchmark: boot, compute, engine, accelerator, idle, smmu
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Runs of each side; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=65536))]
    memory: u32,
    /// Only these parts of the benchmark `engine`
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    part: Vec<engine::Part>,
    /// How warpvmm's engine runs guest code, as its option of that name
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    /// Measure this warpvmm instead of building one
    #[arg(long, value_name = "FILE")]
    emulator: Option<PathBuf>,
    /// A kernel with checks of its own (KASAN, lockdep), for the benchmark `engine`
    #[arg(long, value_name = "IMAGE")]
    debug_kernel: Option<PathBuf>,
}

/// What every benchmark needs.
struct Bench<'a> {
    project: &'a Project,
    setup: &'a GuestOptions,
    options: &'a BenchOptions,
    guest: Guest,
    emulator: PathBuf,
}

type Benchmark = fn(&Bench<'_>) -> Result<Value>;

const BENCHMARKS: &[(&str, Benchmark)] = &[
    ("boot", boot::run),
    ("compute", compute::run),
    ("engine", engine::run),
    ("accelerator", accelerator::run),
    ("idle", idle::run),
    (SMMU, |bench| smmu::run(bench.project)),
];

/// The one that needs no guest.
const SMMU: &str = "smmu";

pub(crate) fn bench(project: &Project, setup: &GuestOptions, options: &BenchOptions) -> Result<()> {
    if options.only.as_deref() == Some(SMMU) {
        return report(project, SMMU, smmu::run(project));
    }
    packages::require(&[packages::GUEST, packages::BENCH], !setup.no_install)?;
    let guest = guest::build(project, setup)?;
    let emulator = match &options.emulator {
        Some(file) => file.clone(),
        None => run::emulator(project)?,
    };
    let bench = Bench { project, setup, options, guest, emulator };

    let mut known = false;
    for (name, benchmark) in BENCHMARKS {
        if options.only.as_deref().is_some_and(|only| only != *name) {
            continue;
        }
        known = true;
        report(project, name, benchmark(&bench))?;
    }
    if !known {
        bail!("no benchmark has this name");
    }
    Ok(())
}

fn report(project: &Project, name: &str, result: Result<Value>) -> Result<()> {
    let result = result.with_context(|| format!("cannot measure {name}"))?;
    let report = project.bench().join(format!("{name}.json"));
    write_whole(&report, format!("{result:#}\n").as_bytes())?;
    println!("report   {}\n", project.shown(&report));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values {
        [] => f64::NAN,
        _ if values.len() % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
