//! One job in one guest, on either emulator.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Bench, proc};

/// No job here takes so long on either side, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// A finished job.
pub(super) struct Done {
    /// From the start of the emulator to its end, in seconds.
    pub(super) seconds: f64,
    /// Processor time of all its threads, in seconds.
    pub(super) processor_seconds: f64,
    pub(super) console: String,
}

/// A kernel and the processors that it finds. Root file system and memory are the same for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) cpus: u32,
}

impl Bench<'_> {
    /// Our guest kernel, on the processors that the user asked for.
    pub(super) fn machine(&self) -> Machine<'_> {
        Machine { kernel: &self.guest.kernel, cpus: self.options.cpus }
    }

    /// warpvmm, with a job for the guest's `/init`.
    pub(super) fn warpvmm(&self, machine: Machine<'_>, job: &str) -> Command {
        let mut command = self.warpvmm_with(machine, &command_line(job));
        command.args(["--timeout", &PATIENCE.as_secs().to_string()]);
        command
    }

    /// warpvmm with a shell on the console.
    pub(super) fn shell(&self, machine: Machine<'_>) -> Command {
        self.warpvmm_with(machine, "console=ttyAMA0")
    }

    fn warpvmm_with(&self, machine: Machine<'_>, command_line: &str) -> Command {
        let mut command = Command::new(&self.emulator);
        command
            .args(["run", "--no-reboot"])
            .arg("--kernel")
            .arg(machine.kernel)
            .arg("--initrd")
            .arg(&self.guest.initrd);
        command.args(["--append", command_line, "--cpus", &machine.cpus.to_string()]);
        command.args(["--memory", &format!("{}M", self.options.memory)]);
        if let Some(tier) = &self.options.tier {
            command.args(["--tier", tier]);
        }
        command
    }

    /// The same job in qemu-system-aarch64, without the accelerator.
    pub(super) fn qemu(&self, machine: Machine<'_>, job: &str) -> Command {
        let mut command = Command::new("qemu-system-aarch64");
        command.args(["-M", "virt,gic-version=3,iommu=smmuv3", "-cpu", "max,pauth=off", "-nodefaults"]);
        command.args(["-display", "none", "-serial", "stdio"]);
        command.args(["-smp", &machine.cpus.to_string(), "-m", &self.options.memory.to_string()]);
        command.arg("-kernel").arg(machine.kernel).arg("-initrd").arg(&self.guest.initrd);
        command.args(["-append", &command_line(job)]);
        command
    }
}

fn command_line(job: &str) -> String {
    format!("console=ttyAMA0 hisi_zip.uacce_mode=1 warp.run=\"{job}\"")
}

/// Runs to the end, which must be a good one. No other child of ours may end meanwhile.
pub(super) fn finish(command: &mut Command) -> Result<Done> {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let before = proc::seconds_of_children()?;
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let mut output = child.stdout.take().context("no pipe")?;
    let reader = thread::spawn(move || {
        let mut console = Vec::new();
        output.read_to_end(&mut console).map(|_| console)
    });
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait")? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().ok();
            child.wait().ok();
            bail!("{name} did not end within {} s", PATIENCE.as_secs());
        }
        // Fine enough for jobs of about a second.
        thread::sleep(Duration::from_millis(2));
    };
    let seconds = start.elapsed().as_secs_f64();
    let processor_seconds = proc::seconds_of_children()? - before;
    let console = reader.join().ok().and_then(Result::ok).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).into_owned();
    if !status.success() {
        bail!(
            "{name} ended with {status}; its last line was: {}",
            console.lines().last().unwrap_or("(none)")
        );
    }
    Ok(Done { seconds, processor_seconds, console })
}

/// The words after `bench NAME` for each such line of a console.
pub(super) fn measurements(console: &str) -> Vec<(String, Vec<String>)> {
    console
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("bench "))
        .filter_map(|rest| {
            let mut words = rest.split(' ').map(str::to_owned);
            Some((words.next()?, words.collect()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_that_fails_is_no_measurement() {
        assert!(finish(&mut Command::new("false")).is_err());
    }

    #[test]
    fn measurements_are_found_among_other_lines() {
        let console = "[    0.1] boot\r\nbench sort 12 abcd\r\nwarp: exit status 0\r\n";

        assert_eq!(measurements(console), [("sort".to_owned(), vec!["12".to_owned(), "abcd".to_owned()])]);
    }
}
