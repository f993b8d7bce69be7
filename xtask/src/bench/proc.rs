//! What the host's kernel knows about a process. Read from /proc, so on Linux hosts only.

use std::fs;

use anyhow::{Context, Result};

/// USER_HZ, which is part of the kernel's interface and 100 on every architecture that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process, in seconds.
pub(super) fn seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the emulator has ended")?;
    times(&stat, [14, 15])
}

/// Processor time of all of our children that have ended and been waited for, in seconds.
pub(super) fn seconds_of_children() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc")?;
    times(&stat, [16, 17])
}

/// The sum of two fields of a stat file, numbered from 1 as in its manual page. The name, which is the second, may hold
/// anything, so that what is behind its parenthesis counts.
fn times(stat: &str, numbers: [usize; 2]) -> Result<f64> {
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<u64>().ok()).context("cannot read /proc");
    Ok((field(numbers[0])? + field(numbers[1])?) as f64 / TICKS_PER_SECOND)
}

/// Resident memory of an emulator without its guest's, in KiB.
pub(super) fn overhead_kib(pid: u32, guest_mib: u32) -> Result<f64> {
    let maps =
        fs::read_to_string(format!("/proc/{pid}/smaps")).context("cannot read the emulator's memory map")?;
    let (all, guest) = resident_kib(&maps, u64::from(guest_mib) * 1024);
    Ok(all.saturating_sub(guest) as f64)
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
    fn times_are_counted_from_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 400 25 20 0 9 0 100 4096 10";

        assert_eq!(times(stat, [14, 15]).unwrap(), 0.42);
        assert_eq!(times(stat, [16, 17]).unwrap(), 4.25);
    }

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
