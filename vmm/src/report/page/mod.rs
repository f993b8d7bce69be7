//! A run as a page for people (`--report-html FILE`): one file that needs no network and no script, for the screen and for paper.
//!
//! All that the page says is put together here first, in plain values, and then written by `sections`. Names of files, lines of the
//! guest's console and rules of fault plans come from outside: `markup` lets none of them be more than text.

mod charts;
mod markup;
mod sections;
#[cfg(test)]
mod tests;
mod words;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use self::words::time;
use super::{AcceleratorReport, ErrorsReport, SmmuReport, errors_report};
use crate::compress::input::Identity;
use crate::compress::output::Destination;
use crate::engine::Exit;
use crate::exit::{self, Status};
use crate::faults::FaultReport;
use crate::host::signals::Signals;
use crate::machine::{Ended, Facts};
use crate::size::human_bytes;
use crate::supervise::Reason;

/// Lines of the guest's console on the page of a run that did not end well.
const CONSOLE_LINES: usize = 60;

/// A name and what is to be said of it.
pub(crate) type Row = (&'static str, String);

/// All that a page says.
#[derive(Debug)]
pub(crate) struct Page {
    /// The subcommand.
    command: &'static str,
    arguments: Vec<String>,
    status: Status,
    /// How the machine ended, if it ran.
    reason: Option<String>,
    /// The error that the program ended with.
    error: Option<String>,
    /// Figures of a job.
    job: Vec<Row>,
    machine: Vec<Row>,
    time: Vec<Row>,
    accelerators: Vec<AcceleratorReport>,
    smmu: Option<SmmuReport>,
    engine: Option<String>,
    guest_errors: ErrorsReport,
    faults: Option<FaultReport>,
    /// The last lines of the guest's console.
    console: Option<String>,
}

impl Page {
    /// Of a run with this outcome, and of its job. `ended` is `None` if the machine itself could not go on.
    pub(crate) fn new(
        command: &'static str,
        ended: Option<&Ended>,
        outcome: &anyhow::Result<Status>,
        job: Vec<Row>,
    ) -> Self {
        let (status, error) = match outcome {
            Ok(status) => (*status, None),
            Err(error) => (exit::status(error), Some(exit::line(error))),
        };
        let mut page = Self {
            command,
            arguments: std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect(),
            status,
            reason: None,
            error,
            job,
            machine: Vec::new(),
            time: Vec::new(),
            accelerators: Vec::new(),
            smmu: None,
            engine: None,
            guest_errors: ErrorsReport::new(),
            faults: None,
            console: None,
        };
        if let Some(ended) = ended {
            page.take(ended);
        }
        page
    }

    fn take(&mut self, ended: &Ended) {
        let note = if ended.stands_still { "; by its console, its kernel had panicked" } else { "" };
        self.reason = Some(format!("{}{note}", reason(&ended.reason)));
        self.machine = machine(&ended.facts);
        self.time = vec![
            ("The machine ran for", time(u64::try_from(ended.took.as_nanos()).unwrap_or(u64::MAX))),
            ("Guest time at the end", time(ended.guest_ns)),
        ];
        self.accelerators.clone_from(&ended.accelerators);
        self.smmu = Some((&ended.smmu).into());
        self.engine = ended.engine.as_ref().map(ToString::to_string);
        self.guest_errors = errors_report(&ended.guest_errors);
        self.faults.clone_from(&ended.faults);
        let is_well = self.status == Status::Success && self.error.is_none();
        self.console = (!is_well).then(|| ended.last_lines(CONSOLE_LINES));
    }
}

/// What the machine is.
fn machine(facts: &Facts) -> Vec<Row> {
    let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let mut rows = vec![
        ("Engine", facts.engine.to_owned()),
        ("vCPUs", facts.cpus.to_string()),
        ("RAM", human_bytes(facts.memory_bytes)),
        ("NUMA nodes", facts.numa.map_or_else(|| "none".to_owned(), |nodes| nodes.to_string())),
        ("Accelerators", list(&facts.accels)),
        ("Further devices", list(&facts.devices)),
        ("Drives", facts.drives.to_string()),
    ];
    match &facts.restored {
        Some(file) => rows.push(("Restored from", file.display().to_string())),
        None => {
            rows.push(("Kernel", facts.kernel.display().to_string()));
            let initrd = facts.initrd.as_ref();
            rows.push((
                "Initramfs",
                initrd.map_or_else(|| "none".to_owned(), |path| path.display().to_string()),
            ));
            rows.push(("Kernel command line", facts.append.clone()));
        }
    }
    rows
}

/// Why a machine ended, as a sentence without its point.
fn reason(reason: &Reason) -> String {
    let text = match reason {
        Reason::Guest(Exit::SystemOff) => "The guest powered itself off",
        Reason::Guest(Exit::SystemReset) => "The guest reset itself",
        Reason::Guest(Exit::Stopped | Exit::Debug(_)) => "A vCPU stopped",
        Reason::Panic => "The guest's kernel panicked and reset the machine",
        Reason::Timeout => "The time limit passed",
        Reason::Signal(Status::Interrupted) => "Interrupted by a signal",
        Reason::Signal(_) => "Ended by a signal",
        Reason::Quit => "Left by key",
        Reason::Control => "Ended by the control socket",
        Reason::Debugger => "Ended by the debugger",
        Reason::Broken(why) | Reason::Crashed(why) => return why.clone(),
    };
    text.to_owned()
}

/// Where the page goes: opened before the boot. A file appears under its name when it is complete.
#[derive(Debug)]
pub(crate) struct PageFile {
    path: PathBuf,
    destination: Destination,
}

impl PageFile {
    /// Makes sure that `path` can be written, and is not the input.
    ///
    /// # Errors
    /// A line for the user.
    pub(crate) fn prepare(path: &Path, input: Option<Identity>) -> anyhow::Result<Self> {
        let destination = Destination::prepare(path, input, true);
        let destination = destination.with_context(|| format!("cannot write the report {path:?}"))?;
        Ok(Self { path: path.into(), destination })
    }

    /// Every file that [`Self::finish`] works with.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.destination.files()
    }

    /// The folder in which it gets its name.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.destination.folder()
    }

    /// Writes the page and gives it its name.
    ///
    /// # Errors
    /// A line for the user.
    pub(crate) fn finish(self, page: &Page, signals: &Signals) -> anyhow::Result<()> {
        let Self { path, destination } = self;
        let text = page.to_html();
        let write = || -> anyhow::Result<()> {
            destination.file().write_all(text.as_bytes())?;
            destination.finish(text.len() as u64, signals)?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the report {path:?}"))
    }
}

/// Writes the page of a run whose outcome is known, if there is to be one, and gives the outcome back; of two errors, that
/// of the run.
pub(crate) fn tell(
    file: Option<PageFile>,
    signals: &Signals,
    command: &'static str,
    ended: Option<&Ended>,
    outcome: anyhow::Result<Status>,
    job: Vec<Row>,
) -> anyhow::Result<Status> {
    let Some(file) = file else { return outcome };
    let written = file.finish(&Page::new(command, ended, &outcome, job), signals);
    match (outcome, written) {
        (Ok(status), written) => written.map(|()| status),
        (Err(error), written) => {
            if let Err(second) = written {
                eprintln!("warpvmm: {}", exit::line(&second));
            }
            Err(error)
        }
    }
}
