//! The CPU engine beside QEMU's: every figure that it is held to, with its limit.
//!
//! A ratio is of times (less is better) or of speeds (more is better), as its limit is. docs/performance.md explains each.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::limit::Limit::{self, AtLeast, AtMost};
use super::machine::{Done, Machine, finish};
use super::programs::{Work, compare, geometric_mean};
use super::{Bench, idle, median, proc};
use crate::guest;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Start to power-off of our guest kernel, with 1 and with 4 vCPUs
    Boot,
    /// Debian's kernel to an init that powers off
    Stock,
    /// Integer programs
    Integer,
    /// Scalar floating point
    Float,
    /// Vector registers
    Simd,
    /// Processes, system calls, page faults, tools
    Process,
    /// Host memory beyond the guest's
    Memory,
    /// The kernel of --debug-kernel
    Debug,
}

/// A figure: what is compared, in a unit, and the ratio.
#[derive(Clone, Debug)]
struct Row {
    name: String,
    /// Ours and theirs, and their unit; none for a mean.
    values: Option<(f64, f64, &'static str)>,
    ratio: f64,
    limit: Option<Limit>,
}

/// Programs that belong together.
struct Group {
    part: Part,
    title: &'static str,
    program: &'static str,
    /// Whether the limits are on speeds; otherwise they are on times.
    is_speed: bool,
    /// Means of those whose names end in this, with the mean's name.
    means: &'static [(&'static str, &'static str)],
    mean: Limit,
    each: Option<Limit>,
}

const GROUPS: &[Group] = &[
    Group {
        part: Part::Integer,
        title: "integer programs, speed",
        program: "compute-bench",
        is_speed: true,
        means: &[("", "geometric mean")],
        mean: AtLeast(2.5),
        each: Some(AtLeast(1.3)),
    },
    Group {
        part: Part::Float,
        title: "scalar floating point, speed",
        program: "float-bench",
        is_speed: true,
        means: &[("-double", "geometric mean, double"), ("-single", "geometric mean, single")],
        mean: AtLeast(4.0),
        each: None,
    },
    Group {
        part: Part::Simd,
        title: "vectors, speed",
        program: "simd-bench",
        is_speed: true,
        means: &[("", "geometric mean")],
        mean: AtLeast(1.5),
        each: Some(AtLeast(1.0)),
    },
    Group {
        part: Part::Process,
        title: "process work, time",
        program: "process-bench",
        is_speed: false,
        means: &[("", "geometric mean")],
        mean: AtMost(0.5),
        each: Some(AtMost(0.9)),
    },
];

/// The limit of memory, in MiB.
const MEMORY: Limit = AtMost(64.0);

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    let options = bench.options;
    let wanted = |part| options.part.is_empty() || options.part.contains(&part);
    println!("engine, medians of {} ({} MiB):", options.rounds, options.memory);
    println!("  {:26} {:>12} {:>12} {:>8}", "", "warpvmm", "qemu", "ratio");
    let mut report = Vec::new();
    let mut show = |title: &str, rows: Vec<Row>| {
        println!("{title}");
        for row in rows {
            println!("{}", row.line());
            report.push(row.json(title));
        }
    };
    if wanted(Part::Boot) {
        let of = |cpus| Machine { kernel: &bench.guest.kernel, cpus };
        let wall = |done: &Done| done.seconds;
        let one = start_to_end(bench, "1 vCPU", of(1), wall, AtMost(0.4))?;
        let four = start_to_end(bench, "4 vCPUs", of(4), wall, AtMost(0.5))?;
        show("our guest kernel, start to power-off, time", vec![one, four]);
    }
    if wanted(Part::Stock) || wanted(Part::Memory) {
        let kernel = guest::stock_kernel(bench.project, bench.setup)?;
        let machine = Machine { kernel: &kernel, cpus: 1 };
        if wanted(Part::Stock) {
            let row = start_to_end(bench, "1 vCPU", machine, |done| done.processor_seconds, AtMost(0.6))?;
            show("Debian's kernel, start to power-off, processor time", vec![row]);
        }
        if wanted(Part::Memory) {
            show("Debian's kernel, at its shell, host memory", vec![memory(bench, machine)?]);
        }
    }
    if wanted(Part::Debug) {
        // The one part that is left out unless its kernel is there: it takes long to build.
        match &options.debug_kernel {
            Some(kernel) => {
                let machine = Machine { kernel, cpus: 1 };
                let row = start_to_end(bench, &shown(kernel), machine, |done| done.seconds, AtMost(0.5))?;
                show("kernel that checks itself, start to power-off, time", vec![row]);
            }
            None => eprintln!("no --debug-kernel: its boot is not measured"),
        }
    }
    for group in GROUPS {
        if wanted(group.part) {
            show(group.title, group.rows(&compare(bench, group.program)?));
        }
    }
    Ok(json!({ "rounds": options.rounds, "memory_mib": options.memory, "rows": report }))
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A machine whose init does nothing.
fn start_to_end(
    bench: &Bench<'_>,
    name: &str,
    machine: Machine<'_>,
    value: impl Fn(&Done) -> f64,
    limit: Limit,
) -> Result<Row> {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 1..=bench.options.rounds {
        eprintln!("{} with {} {round} of {}", shown(machine.kernel), machine.cpus, bench.options.rounds);
        ours.push(value(&finish(&mut bench.warpvmm(machine, "true"))?));
        theirs.push(value(&finish(&mut bench.qemu(machine, "true"))?));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    Ok(Row {
        name: name.to_owned(),
        values: Some((ours, theirs, "s")),
        ratio: ours / theirs,
        limit: Some(limit),
    })
}

/// What a guest that waits at its shell costs the host beyond what it has touched. The limit is no ratio.
fn memory(bench: &Bench<'_>, machine: Machine<'_>) -> Result<Row> {
    let mut child = bench.shell(machine).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let overhead =
        idle::wait_for_prompt(&mut child).and_then(|()| proc::overhead_kib(child.id(), bench.options.memory));
    child.kill().ok();
    child.wait().context("cannot wait")?;
    Ok(Row { name: "MiB".to_owned(), values: None, ratio: overhead? / 1024.0, limit: Some(MEMORY) })
}

impl Group {
    /// The programs, and the means below them.
    fn rows(&self, list: &[Work]) -> Vec<Row> {
        let ratio = |work: &Work| {
            if self.is_speed { work.theirs / work.ours } else { work.ours / work.theirs }
        };
        let mut rows: Vec<Row> = list
            .iter()
            .map(|work| Row {
                name: work.name.clone(),
                values: Some((work.ours, work.theirs, "ms")),
                ratio: ratio(work),
                limit: self.each,
            })
            .collect();
        for (suffix, name) in self.means {
            let ratios: Vec<f64> =
                list.iter().filter(|work| work.name.ends_with(suffix)).map(ratio).collect();
            rows.push(Row {
                name: (*name).to_owned(),
                values: None,
                ratio: geometric_mean(&ratios),
                limit: Some(self.mean),
            });
        }
        rows
    }
}

impl Row {
    fn line(&self) -> String {
        let values = match self.values {
            Some((ours, theirs, "s")) => format!("{ours:10.3} s {theirs:10.3} s"),
            Some((ours, theirs, unit)) => format!("{ours:9.1} {unit} {theirs:9.1} {unit}"),
            None => String::new(),
        };
        let verdict = self.limit.map(|limit| limit.verdict(self.ratio)).unwrap_or_default();
        format!("  {:26} {values:25} {:8.3}  {verdict}", self.name, self.ratio).trim_end().to_owned()
    }

    fn json(&self, title: &str) -> Value {
        let mut value = json!({ "group": title, "name": self.name, "ratio": self.ratio });
        if let Some((ours, theirs, unit)) = self.values {
            value["warpvmm"] = ours.into();
            value["qemu"] = theirs.into();
            value["unit"] = unit.into();
        }
        if let Some(limit) = self.limit {
            let (kind, number) = match limit {
                AtMost(number) => ("at_most", number),
                AtLeast(number) => ("at_least", number),
            };
            value[kind] = number.into();
            value["kept"] = limit.is_kept(self.ratio).into();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(name: &str, ours: f64, theirs: f64) -> Work {
        Work { name: name.to_owned(), ours, theirs }
    }

    fn group(part: Part) -> &'static Group {
        GROUPS.iter().find(|group| group.part == part).unwrap()
    }

    #[test]
    fn less_time_is_more_speed_and_less_of_a_ratio_of_times() {
        let list = [work("a", 1.0, 4.0), work("b", 4.0, 4.0)];

        let speeds = group(Part::Integer).rows(&list);
        let times = group(Part::Process).rows(&list);

        let ratios = |rows: &[Row]| rows.iter().map(|row| row.ratio).collect::<Vec<_>>();
        assert_eq!(ratios(&speeds), [4.0, 1.0, 2.0]);
        assert_eq!(ratios(&times), [0.25, 1.0, 0.5]);
    }

    #[test]
    fn means_are_of_those_with_their_suffix() {
        let list = [work("a-double", 1.0, 9.0), work("a-single", 1.0, 3.0)];

        let rows = group(Part::Float).rows(&list);

        assert_eq!(rows[2].ratio.round(), 9.0);
        assert_eq!(rows[3].ratio.round(), 3.0);
        assert!(rows[2].line().ends_with("9.000  at least 4: kept"));
        assert!(rows[3].line().ends_with("3.000  at least 4: NOT KEPT"));
    }
}
