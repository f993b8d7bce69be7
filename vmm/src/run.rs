//! `warpvmm run`: the serial console is the terminal.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::accelerator::Accelerator;
use crate::cli::{Device, MachineArgs, RunArgs, SessionArgs};
use crate::console::Outputs;
use crate::control::Socket;
use crate::engine::Exit;
use crate::exit::{Failed, Status};
use crate::faults::finish;
use crate::gdb;
use crate::hints::Hints;
use crate::host::disk::{Drive, FileDisk};
use crate::host::signals::Signals;
use crate::host::terminal::Terminal;
use crate::machine::{Ended, Machine, Saves, Setup, open_console_log};
use crate::report::ReportFile;
use crate::report::page::{self, PageFile};
use crate::save::{SaveFile, Target};
use crate::supervise::{Inputs, Reason};
use crate::trace::TraceFile;
use anyhow::Context;

/// Lines of the guest's console shown after a panic.
const PANIC_LINES: usize = 25;

/// A machine to run, new or restored.
pub(crate) struct Launch<'a> {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) append: String,
    pub(crate) machine: MachineArgs,
    pub(crate) session: &'a SessionArgs,
    pub(crate) accels: Vec<Accelerator>,
    pub(crate) devices: Vec<Device>,
    pub(crate) drives: Vec<Arc<FileDisk>>,
    /// It goes on from here, and kernel, initramfs and command line are those of the save.
    pub(crate) restored: Option<SaveFile>,
}

/// Runs the subcommand.
///
/// # Errors
/// A line for the user.
pub fn run(args: &RunArgs) -> anyhow::Result<Status> {
    let mut drives: Vec<Arc<FileDisk>> = Vec::new();
    for spec in &args.drive {
        drives.push(Arc::new(FileDisk::open_beside(spec, &drives)?));
    }
    launch(Launch {
        kernel: args.kernel.clone(),
        initrd: args.initrd.clone(),
        append: args.append.clone(),
        machine: args.machine.clone(),
        session: &args.session,
        accels: args.accelerators(),
        devices: args.device.clone(),
        drives,
        restored: None,
    })
}

/// Where saves go that the command line asks for.
fn target(session: &SessionArgs) -> Result<Option<Target>, Failed> {
    let Some(text) = &session.save else { return Ok(None) };
    let usage = |why| Failed::with_status(Status::Usage, format!("--save {text}: {why}"));
    let (path, form) = Target::parse(text).map_err(usage)?;
    Target::prepare(&path, form).map(Some)
}

/// Runs a machine to its end.
///
/// # Errors
/// A line for the user.
pub(crate) fn launch(args: Launch<'_>) -> anyhow::Result<Status> {
    let session = args.session;
    let target = target(session)?;
    let signals = if target.is_some() { Signals::block_with_save() } else { Signals::block() };
    let signals = signals.context("cannot block signals")?;
    let mut terminal = Terminal::at_stdin().context("cannot watch the terminal")?;
    let report = session.report_json.as_deref().map(ReportFile::create).transpose()?;
    let page = session.report_html.as_deref().map(|path| PageFile::prepare(path, None)).transpose()?;
    let command = if args.restored.is_some() { "restore" } else { "run" };
    let watched = terminal.iter().flat_map(Terminal::events);
    let hints = Hints::new(&args.accels);
    let has_target = target.is_some();
    let setup = Setup {
        kernel: args.kernel,
        initrd: args.initrd,
        append: args.append,
        machine: args.machine.clone(),
        reboots: !session.no_reboot,
        starts_paused: session.remote.paused,
        control: session.remote.control.as_deref().map(Socket::bind).transpose()?,
        gdb: session.remote.gdb.as_ref().map(gdb::Socket::bind).transpose()?.flatten(),
        accels: args.accels,
        devices: args.devices,
        drives: args.drives.iter().map(|drive| Arc::clone(drive) as Arc<dyn Drive>).collect(),
        saves: Some(Saves { drives: args.drives, target }),
        restored: args.restored,
        trace: TraceFile::create(&session.trace)?,
        outputs: Outputs {
            stdout: true,
            log: open_console_log(&args.machine.process)?,
            watch: Some(Box::new(hints.clone())),
        },
        inputs: [io::stdin().as_raw_fd(), signals.as_raw_fd()].into_iter().chain(watched).collect(),
        results: (report.iter().map(AsRawFd::as_raw_fd))
            .chain(page.iter().flat_map(PageFile::files).map(AsRawFd::as_raw_fd))
            .collect(),
        result_folders: page.iter().filter_map(PageFile::folder).map(Path::to_path_buf).collect(),
    };
    let machine = Machine::build(setup)?;
    for note in machine.notes() {
        eprintln!("warpvmm: {note}");
    }
    if let Some(terminal) = &mut terminal {
        terminal.take().context("cannot set the terminal's mode")?;
    }
    let stdin = io::stdin();
    let inputs = Inputs {
        signals: &signals,
        timeout: args.machine.process.timeout,
        console: Some((stdin.as_fd(), machine.console_input())),
        terminal: terminal.as_mut(),
        tick: None,
    };
    let ended = machine.run(inputs);
    drop(terminal);
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return page::tell(page, &signals, command, None, Err(error), Vec::new()),
    };
    let outcome = conclude(&ended, session, &args.machine, report, has_target, &hints);
    page::tell(page, &signals, command, Some(&ended), outcome, Vec::new())
}

/// Tells the user what has come of a run.
fn conclude(
    ended: &Ended,
    session: &SessionArgs,
    machine: &MachineArgs,
    report: Option<ReportFile>,
    has_target: bool,
    hints: &Hints,
) -> anyhow::Result<Status> {
    for line in ended.remarks() {
        eprintln!("warpvmm: {line}");
    }
    if let Some(engine) = &ended.engine {
        eprintln!("{engine}");
    }
    if let Some(report) = report {
        report.write(ended)?;
    }
    if let Some(message) = &ended.console_error {
        return Err(Failed::new(message.clone()).into());
    }
    match &ended.reason {
        Reason::Broken(message) | Reason::Crashed(message) => return Err(Failed::new(message.clone()).into()),
        Reason::Timeout => {
            let limit = machine.process.timeout.unwrap_or_default();
            let note =
                if ended.stands_still { "; by its console, the guest's kernel had panicked" } else { "" };
            eprintln!("\nwarpvmm: time limit of {limit:?} passed{note}");
        }
        Reason::Quit => eprintln!("\nwarpvmm: left by Ctrl-A X"),
        Reason::Control => eprintln!("\nwarpvmm: ended by the control socket"),
        Reason::Debugger => eprintln!("\nwarpvmm: ended by the debugger"),
        Reason::Guest(Exit::SystemReset) | Reason::Panic => {
            eprintln!("\nwarpvmm: {}", panic_report(ended));
            if let Some(why) = ended.no_reboot.as_ref().filter(|_| !session.no_reboot) {
                eprintln!("warpvmm: it does not boot again, for this machine cannot be reset: {why}");
            }
        }
        Reason::Guest(_) | Reason::Signal(_) => {}
    }
    let save = match &ended.saved {
        Some(Ok(path)) => {
            eprintln!("warpvmm: saved to {path:?}; `warpvmm restore` lets it go on");
            Ok(())
        }
        Some(Err(why)) => Err(Failed::new(format!("the machine was not saved: {why}"))),
        None => {
            if has_target {
                eprintln!("warpvmm: not saved at the end: the guest has ended by itself");
            }
            Ok(())
        }
    };
    for hint in hints.lines() {
        eprintln!("warpvmm: {hint}");
    }
    let finished = finish(ended.faults.as_ref(), machine.strict, status_of(&ended.reason));
    io::stderr().flush().context("cannot write to standard error")?;
    save?;
    Ok(finished?)
}

/// The exit status for the reason why a machine ended.
#[must_use]
pub fn status_of(reason: &Reason) -> Status {
    match reason {
        Reason::Guest(Exit::SystemOff) | Reason::Quit | Reason::Control | Reason::Debugger => Status::Success,
        Reason::Guest(Exit::SystemReset) | Reason::Panic => Status::GuestPanic,
        Reason::Guest(Exit::Stopped | Exit::Debug(_)) | Reason::Broken(_) | Reason::Crashed(_) => {
            Status::Failure
        }
        Reason::Timeout => Status::Timeout,
        Reason::Signal(status) => *status,
    }
}

/// Says whether the guest panicked or just reset, with the last lines of its console.
#[must_use]
pub fn panic_report(ended: &Ended) -> String {
    let what =
        if ended.reason == Reason::Panic { "the guest panicked and reset" } else { "the guest reset itself" };
    format!("{what}; its console's last lines:\n{}", ended.last_lines(PANIC_LINES))
}
