//! What a guest costs the host while it waits at its shell: processor time, and memory beyond what the guest has touched.

use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Bench, proc};

/// The guest has nothing more to do by then; boot takes a second.
const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    eprintln!("idle: {} s", (SETTLE + WATCH).as_secs());
    let mut child = bench.shell(bench.machine()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let result = measure(&mut child, bench.options.memory);
    child.kill().ok();
    child.wait().ok();
    let (share, memory) = result?;
    println!("idle guest at its shell ({} CPUs, {} MiB):", bench.options.cpus, bench.options.memory);
    println!("  of one host core     {:8.2} %", share * 100.0);
    println!("  memory of the host   {:8.1} MiB beyond what the guest touched", memory / 1024.0);
    Ok(json!({
        "cpus": bench.options.cpus, "memory_mib": bench.options.memory,
        "share_of_a_core": share, "overhead_kib": memory,
    }))
}

fn measure(child: &mut Child, memory_mib: u32) -> Result<(f64, f64)> {
    wait_for_prompt(child)?;
    thread::sleep(SETTLE);
    let pid = child.id();
    let (before, start) = (proc::seconds(pid)?, Instant::now());
    thread::sleep(WATCH);
    let share = (proc::seconds(pid)? - before) / start.elapsed().as_secs_f64();
    Ok((share, proc::overhead_kib(pid, memory_mib)?))
}

/// Waits until the shell asks for a command.
pub(super) fn wait_for_prompt(child: &mut Child) -> Result<()> {
    let mut stdout = child.stdout.take().context("no pipe")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut part) {
            if sender.send(part[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let (mut seen, start) = (Vec::new(), Instant::now());
    while !seen.windows(4).any(|w| w == b"/ # ") {
        match receiver.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
            Ok(part) => seen.extend(part),
            Err(_) => bail!("the guest showed no prompt within {} s", PATIENCE.as_secs()),
        }
    }
    Ok(())
}
