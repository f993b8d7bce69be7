//! What the user is told about a job that went well.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cli::{CompressArgs, Format};
use crate::compress::record::Record;
use crate::engine::statistics::EngineReport;
use crate::faults::FaultReport;
use crate::machine::Ended;
use crate::report::page::Row;
use crate::report::{AcceleratorReport, ErrorsReport, SeriesReport, errors_report};
use crate::size::human_bytes;

/// The report, as `--json` prints it. Sizes in bytes, times in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Input file; `-` is standard input.
    pub input: PathBuf,
    /// Output file; `-` is standard output.
    pub output: PathBuf,
    /// `compress` or `decompress`.
    pub operation: &'static str,
    /// Format of the compressed side.
    pub format: Format,
    /// Release of the guest's kernel.
    pub guest_kernel: String,
    /// The device that did it.
    pub device: String,
    /// Bytes in.
    pub bytes_in: u64,
    /// Bytes out.
    pub bytes_out: u64,
    /// Plain bytes per compressed byte; absent if there is none.
    pub ratio: Option<f64>,
    /// Commands that the accelerator completed.
    pub commands: u64,
    /// Queues that carried them.
    pub queues: u64,
    /// Time spent on commands by the accelerator's engines, added up.
    pub device_seconds: f64,
    /// Time with at least one command under way, seen by the process.
    pub busy_seconds: f64,
    /// Input bytes per second of `busy_seconds`.
    pub bytes_per_second: Option<f64>,
    /// Page faults that the guest's kernel served for the accelerator.
    pub page_faults: u64,
    /// SMMU TLB hits.
    pub tlb_hits: u64,
    /// SMMU translation table walks.
    pub table_walks: u64,
    /// Translations that the accelerator had in its own cache.
    pub atc_hits: u64,
    /// Translation requests of the accelerator.
    pub translation_requests: u64,
    /// Invalidations of the accelerator's cache.
    pub atc_invalidations: u64,
    /// Pages that the accelerator requested.
    pub page_requests: u64,
    /// Answers to those requests.
    pub page_responses: u64,
    /// What the engine counted; absent without `--stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineReport>,
    /// Each accelerator, with how long commands took by the size of their input.
    pub accelerators: Vec<AcceleratorReport>,
    /// Stalls and groups of page requests by guest time.
    pub page_faults_over_time: Option<SeriesReport>,
    /// What the guest did wrong, by model and kind.
    pub guest_errors: ErrorsReport,
    /// What came of the fault plan; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultReport>,
    /// The host's inflate agrees.
    pub verified: bool,
    /// Time that took.
    pub verify_seconds: f64,
    /// From the start of the machine to its power-off.
    pub machine_seconds: f64,
}

impl Report {
    /// Puts the guest's and the machine's numbers together.
    #[must_use]
    pub(crate) fn new(
        args: &CompressArgs,
        output: &Path,
        record: &Record,
        ended: &Ended,
        input_len: u64,
        machine: Duration,
        verify: Duration,
    ) -> Self {
        let (plain, compressed) =
            if args.decompress { (record.output_bytes, input_len) } else { (input_len, record.output_bytes) };
        let stats = &ended.stats;
        let busy_seconds = record.busy_ns as f64 / 1e9;
        Self {
            input: args.input.clone(),
            output: output.into(),
            operation: if args.decompress { "decompress" } else { "compress" },
            format: args.format,
            guest_kernel: record.kernel.clone(),
            device: record.device.clone().unwrap_or_else(|| "unknown".into()),
            bytes_in: input_len,
            bytes_out: record.output_bytes,
            ratio: (compressed > 0).then(|| plain as f64 / compressed as f64),
            commands: record.commands,
            queues: record.queues,
            device_seconds: stats.accel_busy_ns as f64 / 1e9,
            busy_seconds,
            bytes_per_second: (busy_seconds > 0.0).then(|| input_len as f64 / busy_seconds),
            page_faults: stats.page_faults,
            tlb_hits: stats.tlb_hits,
            table_walks: stats.table_walks,
            atc_hits: stats.atc.hits,
            translation_requests: stats.atc.translation_requests,
            atc_invalidations: stats.atc.invalidations,
            page_requests: stats.atc.page_requests,
            page_responses: stats.atc.page_responses,
            engine: ended.engine.clone(),
            accelerators: ended.accelerators.clone(),
            page_faults_over_time: ended.smmu.page_faults_over_time.as_ref().map(SeriesReport::from),
            guest_errors: errors_report(&ended.guest_errors),
            faults: ended.faults.clone(),
            verified: true,
            verify_seconds: verify.as_secs_f64(),
            machine_seconds: machine.as_secs_f64(),
        }
    }
}

impl Report {
    /// The job's figures, for a page.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let bytes = |n: u64| format!("{} ({n} bytes)", human_bytes(n));
        let none = || "none".to_owned();
        vec![
            ("Operation", format!("{} ({:?})", self.operation, self.format)),
            ("Input", self.input.display().to_string()),
            ("Output", self.output.display().to_string()),
            ("Guest kernel", self.guest_kernel.clone()),
            ("Device", self.device.clone()),
            ("Bytes in", bytes(self.bytes_in)),
            ("Bytes out", bytes(self.bytes_out)),
            ("Ratio", self.ratio.map_or_else(none, |ratio| format!("{ratio:.3}"))),
            ("Commands", format!("{} on {} queue(s)", self.commands, self.queues)),
            ("On the device", format!("{:.3} s", self.device_seconds)),
            ("Busy, seen by the process", format!("{:.3} s", self.busy_seconds)),
            (
                "Rate, seen by the process",
                self.bytes_per_second.map_or_else(none, |rate| format!("{}/s", human_bytes(rate as u64))),
            ),
            ("Verified with the host's inflate", format!("yes, in {:.2} s", self.verify_seconds)),
            ("From power-on to power-off", format!("{:.2} s", self.machine_seconds)),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes =
            |n: u64| if n < 1024 { human_bytes(n) } else { format!("{} ({n} bytes)", human_bytes(n)) };
        writeln!(f, "{} {} -> {}", self.operation, self.input.display(), self.output.display())?;
        writeln!(f, "  guest kernel  {}", self.guest_kernel)?;
        writeln!(f, "  device        {}", self.device)?;
        writeln!(f, "  in            {}", bytes(self.bytes_in))?;
        writeln!(f, "  out           {}", bytes(self.bytes_out))?;
        if let Some(ratio) = self.ratio {
            writeln!(f, "  ratio         {ratio:.3}")?;
        }
        write!(f, "  on the device {:.3} s", self.device_seconds)?;
        match self.bytes_per_second {
            Some(rate) => writeln!(f, ", {}/s seen by the process", human_bytes(rate as u64))?,
            None => writeln!(f)?,
        }
        writeln!(f, "  commands      {} on {} queue(s)", self.commands, self.queues)?;
        writeln!(
            f,
            "  SMMU          {} page faults served, {} TLB hits, {} walks",
            self.page_faults, self.tlb_hits, self.table_walks
        )?;
        if self.translation_requests != 0 {
            writeln!(
                f,
                "  ATC           {} hits, {} translation requests, {} invalidations, {} page requests, {} answers",
                self.atc_hits,
                self.translation_requests,
                self.atc_invalidations,
                self.page_requests,
                self.page_responses
            )?;
        }
        writeln!(f, "  verified      yes, with the host's inflate")?;
        writeln!(
            f,
            "  took          {:.2} s for the machine, {:.2} s to verify",
            self.machine_seconds, self.verify_seconds
        )
    }
}
