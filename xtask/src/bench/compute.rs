//! Integer work in the guest: time of each kind on both emulators, and the geometric mean of the speeds.

use anyhow::Result;
use serde_json::{Value, json};

use super::Bench;
use super::programs::{compare, geometric_mean};

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    let list = compare(bench, "compute-bench")?;
    println!("integer work in the guest, median of {}:", bench.options.rounds);
    println!("  {:14} {:>12} {:>12} {:>8}", "", "warpvmm", "qemu", "speed");
    let mut speeds = Vec::new();
    let mut kinds = serde_json::Map::new();
    for work in list {
        let speed = work.theirs / work.ours;
        println!("  {:14} {:9.1} ms {:9.1} ms {speed:8.3}", work.name, work.ours, work.theirs);
        speeds.push(speed);
        kinds.insert(work.name, json!({ "warpvmm_ms": work.ours, "qemu_ms": work.theirs, "speed": speed }));
    }
    let mean = geometric_mean(&speeds);
    println!("  {:14} {mean:35.3}", "geometric mean");
    Ok(json!({ "rounds": bench.options.rounds, "kinds": kinds, "geometric_mean_speed": mean }))
}
