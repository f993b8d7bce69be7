//! `cargo xtask bench`: numbers, taken side by side in one run.
//!
//! Boot: wall time from start to power-off with the guest's kernel and a job that does nothing, in warpvmm and in
//! qemu-system-aarch64 with the same kernel, initramfs, memory and processors, in turns so that both meet the same weather. Results
//! go to the terminal and, as JSON, to target/bench.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::guest::{self, Guest, GuestOptions};
use crate::packages;
use crate::project::{Project, write_whole};
use crate::run;

const COMMAND_LINE: &str = "console=ttyAMA0 warp.run=true";
/// No boot of this guest takes so long on either side, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct BenchOptions {
    /// Boots of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Virtual processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=65536))]
    memory: u32,
}

pub(crate) fn bench(project: &Project, setup: &GuestOptions, options: &BenchOptions) -> Result<()> {
    packages::require(&[packages::GUEST, packages::BENCH], !setup.no_install)?;
    let guest = guest::build(project, setup)?;
    let emulator = run::emulator(project)?;

    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 1..=options.rounds {
        eprintln!("boot {round} of {}", options.rounds);
        ours.push(boot(&mut warpvmm(&emulator, &guest, options))?);
        theirs.push(boot(&mut qemu(&guest, options))?);
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

    let report = project.bench().join("boot.json");
    let text = json!({
        "rounds": options.rounds, "cpus": options.cpus, "memory_mib": options.memory,
        "warpvmm_seconds": ours, "qemu_seconds": theirs, "ratio": ratio,
    });
    write_whole(&report, format!("{text:#}\n").as_bytes())?;
    println!("report   {}", project.shown(&report));
    Ok(())
}

fn warpvmm(emulator: &Path, guest: &Guest, options: &BenchOptions) -> Command {
    let mut command = Command::new(emulator);
    command.arg("run").arg("--kernel").arg(&guest.kernel).arg("--initrd").arg(&guest.initrd);
    command.args(["--append", COMMAND_LINE, "--cpus", &options.cpus.to_string()]);
    command.args(["--memory", &format!("{}M", options.memory), "--timeout", &PATIENCE.as_secs().to_string()]);
    command
}

fn qemu(guest: &Guest, options: &BenchOptions) -> Command {
    let mut command = Command::new("qemu-system-aarch64");
    command.args([
        "-M",
        "virt,gic-version=3,iommu=smmuv3",
        "-cpu",
        "max,pauth=off",
        "-nodefaults",
        "-display",
        "none",
    ]);
    command.args(["-serial", "stdio", "-smp", &options.cpus.to_string(), "-m", &options.memory.to_string()]);
    command
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.initrd)
        .args(["-append", COMMAND_LINE]);
    command
}

/// Seconds until the program has ended well.
fn boot(command: &mut Command) -> Result<f64> {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait")? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().ok();
            child.wait().ok();
            bail!("{name} did not end within {} s", PATIENCE.as_secs());
        }
        // Fine enough for boots of about a second.
        std::thread::sleep(Duration::from_millis(2));
    };
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(start.elapsed().as_secs_f64())
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

    #[test]
    fn program_that_fails_is_no_measurement() {
        assert!(boot(&mut Command::new("false")).is_err());
    }
}
