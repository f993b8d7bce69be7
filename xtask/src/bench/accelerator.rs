//! Throughput of 1 MiB compression requests as a guest process sees it, beside the same library called directly.
//!
//! The data are the guest's own kernel, given to it as a disk. The direct calls happen in a program of their own, because
//! this one is built for quick starts and not for speed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use flate2::{Compress, Compression, FlushCompress, Status};
use serde_json::{Value, json};

use super::machine::{finish, measurements};
use super::{Bench, median};
use crate::process;

const REQUEST_BYTES: usize = 1 << 20;
/// Times that the data are compressed in one run.
const REPEAT: u32 = 5;
/// The library's level that stands for the device's default mode.
const LEVEL: u32 = 6;

pub(super) fn run(bench: &Bench<'_>) -> Result<Value> {
    let data = &bench.guest.sample;
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for round in 1..=bench.options.rounds {
        eprintln!("accelerator {round} of {}", bench.options.rounds);
        let mut job = bench.warpvmm(bench.machine(), &format!("zip-bench {REPEAT}"));
        job.arg("--drive").arg(format!("{},ro", data.display()));
        inside.push(rate(&finish(&mut job)?.console)?);
        outside.push(rate(&process::output(
            Command::new(env!("CARGO"))
                .args(["run", "--quiet", "--release", "-p", "xtask", "--", "direct"])
                .arg(data)
                .current_dir(bench.project.root()),
        )?)?);
    }
    let (inside, outside) = (median(&mut inside), median(&mut outside));
    let ratio = inside / outside;
    println!("compression in requests of 1 MiB, median of {}:", bench.options.rounds);
    println!("  guest process, accelerator  {inside:8.1} MB/s");
    println!("  host, same library          {outside:8.1} MB/s");
    println!("  ratio                       {ratio:8.2}");
    Ok(json!({
        "rounds": bench.options.rounds, "request_bytes": REQUEST_BYTES,
        "guest_mb_per_s": inside, "host_mb_per_s": outside, "ratio": ratio,
    }))
}

/// Megabytes per second in the output of `zip-bench`, or of [`direct`].
fn rate(console: &str) -> Result<f64> {
    let measurements = measurements(console);
    let Some((_, words)) = measurements.iter().find(|(name, _)| name == "zip-compress") else {
        bail!("no measurement; the last line was: {}", console.lines().last().unwrap_or("(none)"));
    };
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<f64>().ok());
    let (bytes, nanoseconds) = number(0).zip(number(1)).context("cannot read the measurement")?;
    Ok(bytes * 1e3 / nanoseconds)
}

/// What `zip-bench` does, without guest and device, with the same output.
pub(crate) fn direct(file: &Path) -> Result<()> {
    let data = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let requests = data.chunks_exact(REQUEST_BYTES);
    let bytes = requests.len() * REQUEST_BYTES;
    let mut room = vec![0; REQUEST_BYTES + REQUEST_BYTES / 8];
    let mut compress = Compress::new(Compression::new(LEVEL), true);
    let mut once = || -> Result<u64> {
        let mut produced = 0;
        for request in requests.clone() {
            compress.reset();
            let status = compress.compress(request, &mut room, FlushCompress::Finish)?;
            if status != Status::StreamEnd {
                bail!("the output has no room");
            }
            produced += compress.total_out();
        }
        Ok(produced)
    };
    let mut produced = once()?;
    let start = Instant::now();
    for _ in 0..REPEAT {
        produced = once()?;
    }
    println!("bench zip-compress {} {} {produced}", bytes * REPEAT as usize, start.elapsed().as_nanos());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_in_megabytes_per_second() {
        assert_eq!(rate("bench zip-compress 2000000 1000000000 5\n").unwrap(), 2.0);
        assert!(rate("zip-bench: no disk\n").is_err());
    }
}
