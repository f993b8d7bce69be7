//! Wall time from the start of the emulator to the guest's power-off, with a job that does nothing.

use anyhow::Result;
use serde_json::{Value, json};

use super::machine::finish;
use super::{Bench, median};

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    let options = bench.options;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 1..=options.rounds {
        eprintln!("boot {round} of {}", options.rounds);
        ours.push(finish(&mut bench.warpvmm(bench.machine(), "true"))?.seconds);
        theirs.push(finish(&mut bench.qemu(bench.machine(), "true"))?.seconds);
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let ratio = ours / theirs;
    println!(
        "boot to power-off, median of {} ({} CPUs, {} MiB):",
        options.rounds, options.cpus, options.memory
    );
    println!("  warpvmm              {ours:8.3} s");
    println!("  qemu-system-aarch64  {theirs:8.3} s");
    println!("  ratio                {ratio:8.2}");
    Ok(json!({
        "rounds": options.rounds, "cpus": options.cpus, "memory_mib": options.memory,
        "warpvmm_seconds": ours, "qemu_seconds": theirs, "ratio": ratio,
    }))
}
