//! `warpvmm compress`: a file through the accelerator of a guest that is booted for the job.
//!
//! The input is the guest's first disk, the output its second; `docs/compress-protocol.md` is the agreement between
//! the two sides. What comes back is inflated (or compared) with the host's own library before it gets its name.

mod disks;
mod guest_files;
mod output;
pub mod record;
mod report;
mod verify;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::cli::{Accel, CompressArgs, Format};
use crate::compress::disks::{InputDisk, OutputDisk, output_bound};
use crate::compress::guest_files::{GuestFiles, PRI_HINT};
use crate::compress::output::{Output, ReportFile};
use crate::compress::record::{RECORD_BYTES, Record, RecordError};
use crate::compress::report::Report;
use crate::console::Outputs;
use crate::exit::{Failed, Status};
use crate::faults::finish;
use crate::host::disk::Drive;
use crate::host::signals::Signals;
use crate::machine::{Ended, Machine, Setup, open_console_log};
use crate::run::{panic_report, status_of};
use crate::size::human_bytes;
use crate::supervise::{Inputs, Reason};
use anyhow::Context;

/// Lines of the guest's console shown when the job did not end well.
const CONSOLE_LINES: usize = 15;

/// Runs the subcommand.
///
/// # Errors
/// A line for the user; the output then does not exist.
pub fn compress(args: &CompressArgs) -> anyhow::Result<Status> {
    let signals = Signals::block().context("cannot block signals")?;
    let guest = GuestFiles::find(args.kernel.as_deref(), args.initrd.as_deref(), args.accel)?;
    let input = open_input(&args.input)?;
    let input_len = input.metadata().context("cannot read the input's length")?.len();
    let output = Output::prepare(&args.output, &args.input, args.force)?;
    let report_file = match &args.report_json {
        Some(path) => {
            let file = ReportFile::prepare(path, &args.input);
            Some(file.with_context(|| format!("cannot write the report {path:?}"))?)
        }
        None => None,
    };
    let report_folder = report_file.as_ref().and_then(ReportFile::folder);
    let result_folders = [Some(output.folder()), report_folder].into_iter().flatten().map(Path::to_path_buf);
    // The input is read once more, to be compared with.
    let files = [Some(&input), Some(output.file()), report_file.as_ref().map(ReportFile::file)];
    let results = files.into_iter().flatten().map(AsRawFd::as_raw_fd).collect();
    let progress = Progress::new(args, input_len);

    let first_error = Arc::new(Mutex::new(None));
    let in_disk =
        InputDisk::new(input.try_clone().context("cannot reopen the input")?, input_len, progress.counter());
    let out_file = output.file().try_clone().context("cannot reopen the output")?;
    let out_disk =
        OutputDisk::new(out_file, output_bound(input_len, args.decompress), Arc::clone(&first_error))
            .map_err(|e| Failed::new(format!("cannot write the output {:?}: {e}", args.output)))?;
    let record_offset = out_disk.record_offset();

    let setup = Setup {
        kernel: guest.kernel,
        initrd: Some(guest.initrd),
        append: command_line(args, input_len),
        machine: args.machine.clone(),
        accels: vec![args.accel],
        devices: Vec::new(),
        drives: vec![Arc::new(in_disk) as Arc<dyn Drive>, Arc::new(out_disk)],
        outputs: Outputs { stdout: false, log: open_console_log(&args.machine)?, watch: None },
        inputs: vec![signals.as_raw_fd()],
        results,
        result_folders: result_folders.collect(),
    };
    let start = Instant::now();
    let machine = Machine::build(setup)?;
    for note in machine.notes().iter().filter(|_| !args.quiet) {
        eprintln!("warpvmm: {note}");
    }
    let ended = machine.run(Inputs {
        signals: &signals,
        timeout: args.machine.timeout,
        console: None,
        terminal: None,
        tick: progress.tick(),
    })?;
    progress.finish();
    if let Some(engine) = &ended.engine {
        eprintln!("{engine}");
    }
    let wall = start.elapsed();
    // Before anything that may have come of it.
    let faults = finish(ended.faults.as_ref(), args.machine.strict, Status::Success);

    let disk_error = first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(error) = disk_error {
        return Err(Failed::new(format!("cannot write the output {:?}: {error}", args.output)).into());
    }
    if ended.reason != Reason::Guest(crate::engine::Exit::SystemOff) {
        return unfinished(args, &ended);
    }
    let record = read_record(output.file(), record_offset, &ended)?;
    check_record(args, &record, input_len, record_offset, &ended)?;

    let (compressed, plain) = if args.decompress { (&input, output.file()) } else { (output.file(), &input) };
    let (compressed_len, plain_len) =
        if args.decompress { (input_len, record.output_bytes) } else { (record.output_bytes, input_len) };
    let verifying = Instant::now();
    match verify::verify(args.format, (compressed, compressed_len), (plain, plain_len), || {
        signals.arrived().is_some()
    }) {
        Ok(()) => {}
        Err(verify::Mismatch::Interrupted) => {
            return Err(Failed::with_status(Status::Interrupted, "interrupted").into());
        }
        Err(mismatch) => {
            return Err(Failed::new(format!(
                "the accelerator's output is wrong, and was not kept: {mismatch}"
            ))
            .into());
        }
    }
    let status = faults?;
    let report = Report::new(args, &record, &ended, input_len, wall, verifying.elapsed());
    let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
    if let Some(file) = report_file {
        file.finish(&format!("{json}\n")).context("cannot write the report")?;
    }
    output.finish(record.output_bytes)?;
    if args.json {
        println!("{json}");
    } else if !args.quiet {
        print!("{report}");
    }
    io::stdout().flush().context("cannot write to standard output")?;
    Ok(status)
}

fn open_input(path: &Path) -> Result<File, Failed> {
    let failed = |e: io::Error| Failed::new(format!("cannot read the input {path:?}: {e}"));
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Failed::new(format!("the input {path:?} is not a regular file")));
    }
    Ok(file)
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
            args.machine.timeout.unwrap_or_default(),
            ended.last_lines(CONSOLE_LINES)
        ),
        Reason::Broken(message) => message.clone(),
        Reason::Signal(_) | Reason::Quit => "interrupted; no output was left".into(),
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

fn check_record(
    args: &CompressArgs,
    record: &Record,
    input_len: u64,
    capacity: u64,
    ended: &Ended,
) -> anyhow::Result<()> {
    let message = record.message.as_deref().unwrap_or("no reason given");
    let failed = match record.status.as_str() {
        "ok" if record.output_bytes > capacity => {
            "the guest claims more output than fits its disk".to_string()
        }
        "ok" if record.input_bytes != input_len => {
            format!("the guest used {} of {input_len} input bytes", record.input_bytes)
        }
        "ok" => return Ok(()),
        "corrupt" => match record.error_at {
            Some(at) => format!("the input {:?} is corrupt at byte {at}: {message}", args.input),
            None => format!("the input {:?} is corrupt: {message}", args.input),
        },
        "full" => format!(
            "the output would be larger than the {} that the file system of {:?} allows",
            human_bytes(capacity),
            args.output
        ),
        "device" => format!("the accelerator refused: {message}"),
        "setup" => {
            let hint = if args.accel == Accel::ZipPri { format!("; {PRI_HINT}") } else { String::new() };
            let lines = ended.last_lines(CONSOLE_LINES);
            format!(
                "the guest found no accelerator to work with: {message}{hint}; its console's last lines:\n{lines}"
            )
        }
        other => format!("the guest reports {other:?}: {message}"),
    };
    Err(Failed::new(failed).into())
}

/// A progress bar on a terminal, once the job takes its time.
struct Progress {
    furthest: Arc<AtomicU64>,
    bar: Option<indicatif::ProgressBar>,
}

impl Progress {
    fn new(args: &CompressArgs, input_len: u64) -> Self {
        let bar = (!args.quiet && io::stderr().is_terminal()).then(|| {
            let style = "{msg:.dim} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} eta {eta}";
            let bar = indicatif::ProgressBar::new(input_len);
            bar.set_style(
                indicatif::ProgressStyle::with_template(style).expect("a constant").progress_chars("=> "),
            );
            bar.set_message("booting the guest");
            bar
        });
        Self { furthest: Arc::default(), bar }
    }

    fn counter(&self) -> Arc<AtomicU64> {
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
