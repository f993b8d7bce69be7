//! `warpvmm compress`: a file through the accelerator of a guest that is booted for the job.
//!
//! The input is the guest's first disk, the output its second; `docs/compress-protocol.md` is the agreement between
//! the two sides. What comes back is inflated (or compared) with the host's own library before it gets its name, or goes to
//! standard output. One reader of the formats (`container`) decides what is a valid file, whatever the guest says.

mod container;
mod disks;
mod guest_files;
pub(crate) mod input;
pub(crate) mod output;
pub mod record;
mod report;
mod verify;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::{CompressArgs, Format};
use crate::compress::disks::{InputDisk, OutputDisk, output_bound};
use crate::compress::guest_files::{GuestFiles, PRI_HINT};
use crate::compress::input::{Change, Input, Opened, Patience, STANDARD, temporary_folder};
use crate::compress::output::{Destination, ReportFile};
use crate::compress::record::{RECORD_BYTES, Record, RecordError};
use crate::compress::report::Report;
use crate::compress::verify::Mismatch;
use crate::console::Outputs;
use crate::exit::{Failed, Status};
use crate::faults::finish;
use crate::host::disk::Drive;
use crate::host::signals::Signals;
use crate::machine::{Ended, Machine, Setup, open_console_log};
use crate::report::page::{self, PageFile, Row};
use crate::run::{panic_report, status_of};
use crate::size::human_bytes;
use crate::supervise::{Inputs, Reason};
use crate::trace::TraceFile;
use anyhow::Context;

/// Lines of the guest's console shown when the job did not end well.
const CONSOLE_LINES: usize = 15;

/// A job: what the user asked for, and its input.
struct Job<'a> {
    args: &'a CompressArgs,
    /// Of the output, `-` for standard output.
    output: &'a Path,
    input: &'a Input,
    signals: &'a Signals,
}

/// Where results are found and go to.
struct Results {
    /// Of the disk that is the output.
    first_error: Arc<Mutex<Option<io::Error>>>,
    record_offset: u64,
    report_file: Option<ReportFile>,
    output: Destination,
}

/// Runs the subcommand.
///
/// # Errors
/// A line for the user; the output then does not exist.
pub fn compress(args: &CompressArgs) -> anyhow::Result<Status> {
    let signals = Signals::block().context("cannot block signals")?;
    let patience = Patience { signals: &signals, start: Instant::now(), limit: args.machine.process.timeout };
    let output_name = output_name(args)?;
    let guest = GuestFiles::find(args.kernel.as_deref(), args.initrd.as_deref(), args.accel)?;
    let opened = Opened::new(&args.input)?;
    refuse_terminals(args, &opened, &output_name)?;
    let identity = opened.identity()?;
    let output = Destination::prepare(&output_name, Some(identity), args.force)?;
    let report_file = match &args.report_json {
        Some(path) => {
            let file = ReportFile::prepare(path, identity);
            Some(file.with_context(|| format!("cannot write the report {path:?}"))?)
        }
        None => None,
    };
    let page = match &args.report_html {
        Some(path) if [Some(&*output_name), args.report_json.as_deref()].contains(&Some(path.as_path())) => {
            let message = format!("{path:?} cannot be the page and something else");
            return Err(Failed::with_status(Status::Usage, message).into());
        }
        Some(path) => Some(PageFile::prepare(path, Some(identity))?),
        None => None,
    };
    let report_folder = report_file.as_ref().and_then(ReportFile::folder);
    let page_folder = page.as_ref().and_then(PageFile::folder);
    let result_folders = [output.folder(), report_folder, page_folder];
    let result_folders = result_folders.into_iter().flatten().map(Path::to_path_buf).collect();

    let progress = Progress::new(args);
    // A copy goes where there must be room for the output anyway.
    let copies = output.folder().map_or_else(temporary_folder, Path::to_path_buf);
    let input = opened.settle(&copies, patience, |bytes| progress.copied(bytes))?;
    if args.decompress {
        verify::check_start(args.format, (input.file(), input.len()))
            .map_err(|fault| Failed::new(format!("{} is {fault}", input.name())))?;
    }
    let job = Job { args, output: &output_name, input: &input, signals: &signals };
    // The input is read once more, to be compared with.
    let results =
        [input.file()].into_iter().chain(output.files()).chain(report_file.as_ref().map(ReportFile::file));
    let results = results.chain(page.iter().flat_map(PageFile::files)).map(AsRawFd::as_raw_fd).collect();

    let first_error = Arc::new(Mutex::new(None));
    let in_file = input.file().try_clone().context("cannot reopen the input")?;
    let in_disk = InputDisk::new(in_file, input.len(), progress.boot(input.len()));
    let out_file = output.file().try_clone().context("cannot reopen the output")?;
    let out_disk =
        OutputDisk::new(out_file, output_bound(input.len(), args.decompress), Arc::clone(&first_error))
            .map_err(|e| Failed::new(format!("cannot write {}: {e}", job.output_in_words())))?;
    let record_offset = out_disk.record_offset();

    let setup = Setup {
        kernel: guest.kernel,
        initrd: Some(guest.initrd),
        append: command_line(args, input.len()),
        machine: args.machine.clone(),
        reboots: false,
        starts_paused: false,
        control: None,
        gdb: None,
        accels: vec![args.accel],
        devices: Vec::new(),
        drives: vec![Arc::new(in_disk) as Arc<dyn Drive>, Arc::new(out_disk)],
        saves: None,
        restored: None,
        trace: TraceFile::create(&args.trace)?,
        outputs: Outputs { stdout: false, log: open_console_log(&args.machine.process)?, watch: None },
        inputs: vec![signals.as_raw_fd()],
        results,
        result_folders,
    };
    let start = Instant::now();
    let machine = Machine::build(setup)?;
    for note in machine.notes().iter().filter(|_| !args.quiet) {
        eprintln!("warpvmm: {note}");
    }
    let ended = machine.run(Inputs {
        signals: &signals,
        timeout: patience.left(),
        console: None,
        terminal: None,
        tick: progress.tick(),
    });
    progress.finish();
    let wall = start.elapsed();
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => return page::tell(page, &signals, "compress", None, Err(error), Vec::new()),
    };
    let mut figures = Vec::new();
    let results = Results { first_error, record_offset, report_file, output };
    let outcome = job.conclude(&ended, wall, results, &mut figures);
    page::tell(page, &signals, "compress", Some(&ended), outcome, figures)
}

/// Where the output goes: where the user said, or from standard input to standard output.
fn output_name(args: &CompressArgs) -> Result<Cow<'_, Path>, Failed> {
    match &args.output {
        Some(path) => Ok(Cow::Borrowed(path)),
        None if args.stdout || args.input == Path::new(STANDARD) => Ok(Cow::Borrowed(Path::new(STANDARD))),
        None => {
            let message = format!(
                "where should the output of {:?} go? Give -o OUT, or -c for standard output",
                args.input
            );
            Err(Failed::with_status(Status::Usage, message))
        }
    }
}

/// Nobody types compressed data or reads it, and a terminal may do odd things with it.
fn refuse_terminals(args: &CompressArgs, input: &Opened, output: &Path) -> Result<(), Failed> {
    if args.force {
        return Ok(());
    }
    if args.decompress && input.is_terminal() {
        return Err(Failed::new("compressed data is not read from a terminal; name a file, or use --force"));
    }
    if !args.decompress && output == Path::new(STANDARD) && io::stdout().is_terminal() {
        return Err(Failed::new("compressed data is not written to a terminal; use -o OUT, or --force"));
    }
    Ok(())
}

fn command_line(args: &CompressArgs, input_len: u64) -> String {
    let verb = if args.decompress { "decompress" } else { "compress" };
    let format = match args.format {
        Format::Gzip => "gzip",
        Format::Zlib => "zlib",
        Format::Deflate => "deflate",
    };
    // panic=-1: a panicking guest resets at once, so that the job ends.
    format!(
        "console=ttyAMA0 panic=-1 hisi_zip.uacce_mode=1 warp.run=\"zip-stream {verb} {format} {input_len}\""
    )
}

/// The machine ended before the guest said that it was done.
fn unfinished(args: &CompressArgs, ended: &Ended) -> anyhow::Result<Status> {
    let status = status_of(&ended.reason);
    let message = match &ended.reason {
        Reason::Guest(_) | Reason::Panic => panic_report(ended),
        Reason::Timeout => format!(
            "time limit of {:?} passed; the guest's last lines:\n{}",
            args.machine.process.timeout.unwrap_or_default(),
            ended.last_lines(CONSOLE_LINES)
        ),
        Reason::Broken(message) | Reason::Crashed(message) => message.clone(),
        Reason::Signal(_) | Reason::Quit | Reason::Control | Reason::Debugger => {
            "interrupted; no output was left".into()
        }
    };
    Err(Failed::with_status(status, message).into())
}

fn read_record(file: &File, offset: u64, ended: &Ended) -> anyhow::Result<Record> {
    let mut bytes = vec![0; RECORD_BYTES as usize];
    crate::host::disk::read_padded(file, offset, &mut bytes).context("cannot read the guest's result")?;
    // Not part of the output, whatever happens next.
    file.write_all_at(&[0; RECORD_BYTES as usize], offset).context("cannot clear the guest's result")?;
    Record::parse(&bytes).map_err(|e| match e {
        RecordError::Missing => {
            Failed::new(format!("{e}; its console's last lines:\n{}", ended.last_lines(CONSOLE_LINES))).into()
        }
        RecordError::Malformed(_) => Failed::new(e.to_string()).into(),
    })
}

impl Job<'_> {
    /// What comes of the job once the machine has ended. `figures` gets those of a job that went well.
    fn conclude(
        &self,
        ended: &Ended,
        wall: Duration,
        results: Results,
        figures: &mut Vec<Row>,
    ) -> anyhow::Result<Status> {
        let Self { args, input, signals, output: output_name } = self;
        let Results { first_error, record_offset, report_file, output } = results;
        for line in ended.remarks() {
            eprintln!("warpvmm: {line}");
        }
        if let Some(engine) = &ended.engine {
            eprintln!("{engine}");
        }
        // Before anything that may have come of it.
        let faults = finish(ended.faults.as_ref(), args.machine.strict, Status::Success);

        let disk_error = first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = disk_error {
            return Err(Failed::new(format!("cannot write {}: {error}", self.output_in_words())).into());
        }
        if ended.reason != Reason::Guest(crate::engine::Exit::SystemOff) {
            return unfinished(args, ended);
        }
        let record = read_record(output.file(), record_offset, ended)?;

        let verifying = Instant::now();
        let judged = self
            .check_record(&record, record_offset, ended)
            .and_then(|()| self.verify(output.file(), record.output_bytes));
        self.account_for_changes(judged)?;
        let status = faults?;
        let report = Report::new(args, output_name, &record, ended, input.len(), wall, verifying.elapsed());
        *figures = report.rows();
        let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
        if let Some(file) = report_file {
            file.finish(&format!("{json}\n")).context("cannot write the report")?;
        }
        output.finish(record.output_bytes, signals)?;
        let text = match (args.json, args.quiet) {
            (true, _) => format!("{json}\n"),
            (false, false) => report.to_string(),
            (false, true) => return Ok(status),
        };
        if *output_name == Path::new(STANDARD) {
            eprint!("{text}");
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .context("cannot write to standard output")?;
        }
        Ok(status)
    }

    fn output_in_words(&self) -> String {
        if self.output == Path::new(STANDARD) {
            "what waits for standard output".into()
        } else {
            format!("the output {:?}", self.output)
        }
    }

    fn interrupted(&self) -> bool {
        self.signals.arrived().is_some()
    }

    fn compressed_input(&self) -> (&File, u64) {
        (self.input.file(), self.input.len())
    }

    /// What the guest says of its work.
    fn check_record(&self, record: &Record, capacity: u64, ended: &Ended) -> Result<(), Failed> {
        let message = record.message.as_deref().unwrap_or("no reason given");
        let failed = match record.status.as_str() {
            "ok" if record.output_bytes > capacity => {
                "the guest claims more output than fits its disk".to_string()
            }
            "ok" if record.input_bytes != self.input.len() => {
                format!("the guest used {} of {} input bytes", record.input_bytes, self.input.len())
            }
            "ok" => return Ok(()),
            "corrupt" => return Err(self.judge_corrupt(record.error_at, message)),
            "full" => format!(
                "the output would be larger than the {} that the file system of {} allows",
                human_bytes(capacity),
                self.output_in_words()
            ),
            "device" => format!("the accelerator refused: {message}"),
            "setup" => {
                let hint = if !self.args.accel.can_stall() { format!("; {PRI_HINT}") } else { String::new() };
                let lines = ended.last_lines(CONSOLE_LINES);
                format!(
                    "the guest found no accelerator to work with: {message}{hint}; its console's last lines:\n{lines}"
                )
            }
            other => format!("the guest reports {other:?}: {message}"),
        };
        Err(Failed::new(failed))
    }

    /// The guest has found its input corrupt: is it?
    fn judge_corrupt(&self, at: Option<u64>, message: &str) -> Failed {
        match verify::examine(self.args.format, self.compressed_input(), || self.interrupted()) {
            Err(Mismatch::Interrupted) => Failed::with_status(Status::Interrupted, "interrupted"),
            Err(mismatch) => Failed::new(format!("{} is {mismatch}", self.input.name())),
            Ok(()) => {
                let place = at.map_or_else(String::new, |at| format!(" at byte {at}"));
                Failed::new(format!(
                    "the accelerator finds {} corrupt{place} ({message}), and the host's inflate does not",
                    self.input.name()
                ))
            }
        }
    }

    /// Compares the first `len` bytes of the output with the input.
    fn verify(&self, output: &File, len: u64) -> Result<(), Failed> {
        let output = (output, len);
        let (compressed, plain) = if self.args.decompress {
            (self.compressed_input(), output)
        } else {
            (output, self.compressed_input())
        };
        match verify::verify(self.args.format, compressed, plain, || self.interrupted()) {
            Ok(()) => Ok(()),
            Err(Mismatch::Interrupted) => Err(Failed::with_status(Status::Interrupted, "interrupted")),
            Err(Mismatch::Refused(fault)) if self.args.decompress => Err(Failed::new(format!(
                "{} is {fault}; the accelerator did not notice, and its output was not kept",
                self.input.name()
            ))),
            Err(mismatch) => {
                Err(Failed::new(format!("the accelerator's output is wrong, and was not kept: {mismatch}")))
            }
        }
    }

    /// Nobody else is to blame for an input that changes while it is read. If the output is right all the same, that is
    /// said and no more.
    fn account_for_changes(&self, judged: Result<(), Failed>) -> anyhow::Result<()> {
        let Some(change) = self.input.change().context("cannot look at the input again")? else {
            return Ok(judged?);
        };
        let (name, len) = (self.input.name(), self.input.len());
        match judged {
            Err(failed) if failed.status != Status::Failure => Err(failed.into()),
            Ok(()) if change != Change::Shrunk => {
                if !self.args.quiet {
                    eprintln!(
                        "warpvmm: {name} {change} while it was read; the output is that of its first {len} bytes"
                    );
                }
                Ok(())
            }
            _ => {
                Err(Failed::new(format!("{name} changed: it {change} while it was read; no output was kept"))
                    .into())
            }
        }
    }
}

/// A progress bar on a terminal, once the job takes its time.
struct Progress {
    furthest: Arc<AtomicU64>,
    bar: Option<indicatif::ProgressBar>,
}

impl Progress {
    fn new(args: &CompressArgs) -> Self {
        let bar = (!args.quiet && io::stderr().is_terminal()).then(|| {
            let bar = indicatif::ProgressBar::no_length();
            bar.set_style(indicatif::ProgressStyle::with_template("{msg:.dim} {bytes}").expect("a constant"));
            bar.set_message("reading the input");
            bar
        });
        Self { furthest: Arc::default(), bar }
    }

    /// So much of the input has been copied.
    fn copied(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// The guest is about to boot. The counter follows how far it has read.
    fn boot(&self, input_len: u64) -> Arc<AtomicU64> {
        if let Some(bar) = &self.bar {
            let style = "{msg:.dim} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}";
            bar.set_style(
                indicatif::ProgressStyle::with_template(style).expect("a constant").progress_chars("=> "),
            );
            bar.reset();
            bar.set_length(input_len);
            bar.set_message("booting the guest");
        }
        Arc::clone(&self.furthest)
    }

    fn tick(&self) -> Option<Box<dyn FnMut() + '_>> {
        let bar = self.bar.as_ref()?;
        Some(Box::new(move || {
            let done = self.furthest.load(Ordering::Relaxed);
            if done > 0 {
                bar.set_message("on the accelerator");
            }
            bar.set_position(done);
        }))
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
