//! What a guest costs the host while it waits at its shell: processor time, and memory beyond what the guest has touched.
//!
//! Read from /proc, so on Linux hosts only.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;

/// The guest has nothing more to do by then; boot takes a second.
const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    eprintln!("idle: {} s", (SETTLE + WATCH).as_secs());
    let mut child = bench.shell().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
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
    let (before, start) = (ticks(pid)?, Instant::now());
    thread::sleep(WATCH);
    let used = (ticks(pid)? - before) as f64 / ticks_per_second();
    let share = used / start.elapsed().as_secs_f64();
    let maps =
        fs::read_to_string(format!("/proc/{pid}/smaps")).context("cannot read the emulator's memory map")?;
    let (all, guest) = resident_kib(&maps, u64::from(memory_mib) * 1024);
    Ok((share, all.saturating_sub(guest) as f64))
}

fn wait_for_prompt(child: &mut Child) -> Result<()> {
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

/// User and system time of a process: fields 14 and 15 of its stat file, counted behind the name's parenthesis.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the emulator has ended")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |n: usize| fields.get(n).and_then(|f| f.parse::<u64>().ok()).context("cannot read /proc");
    Ok(field(11)? + field(12)?)
}

/// USER_HZ, which is part of the kernel's interface and 100 on every architecture that we run on.
const fn ticks_per_second() -> f64 {
    100.0
}

/// Resident memory of all mappings, and of the one that has the guest's RAM, in KiB. The kernel may have joined that one
/// with a small neighbour.
fn resident_kib(smaps: &str, ram_kib: u64) -> (u64, u64) {
    let (mut all, mut guest, mut size) = (0, 0, 0);
    for line in smaps.lines() {
        let number = || line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        if line.starts_with("Size:") {
            size = number();
        } else if line.starts_with("Rss:") {
            all += number();
            if size >= ram_kib {
                guest += number();
            }
        }
    }
    (all, guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapping_of_the_guests_size_is_told_apart() {
        for size in ["1048576", "1048708"] {
            let smaps = format!(
                "7f00-7f01 rw-p\nSize: {size} kB\nRss: 40000 kB\n7f02 rw-p\nSize: 100 kB\nRss: 60 kB\n"
            );
            assert_eq!(resident_kib(&smaps, 1 << 20), (40060, 40000));
        }
    }
}
