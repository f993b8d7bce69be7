//! What accelerators, SMMU and fault plan counted in a run, and what the guest did wrong: as JSON for scripts and tests
//! (`--report-json FILE`), and as a page for people (`--report-html FILE`, [`page`]). `docs/reports.md` has both.

mod accelerators;
pub(crate) mod page;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use devices::pci::AtcTotals;
use hw::guest_error::ModelErrors;
use hw::series::Counts;
use iommu::Snapshot;
use serde::Serialize;

pub(crate) use self::accelerators::{AcceleratorReport, LatencyReport};
use crate::board::Board;
use crate::board::stats::Stats;
use crate::engine::statistics::EngineReport;
use crate::exit::Failed;
use crate::faults::FaultReport;
use crate::machine::Ended;

/// A run's numbers. Times in nanoseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    accelerator: Accelerator,
    accelerators: Vec<AcceleratorReport>,
    pub(crate) smmu: SmmuReport,
    atc: AtcReport,
    /// Absent without `--stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<EngineReport>,
    guest_errors: ErrorsReport,
    /// Absent without a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<FaultReport>,
}

/// All of them together.
#[derive(Debug, Serialize)]
struct Accelerator {
    commands: u64,
    busy_ns: u64,
}

/// By model, and for each by kind, how often the guest did something wrong; see [`hw::guest_error`].
pub(crate) type ErrorsReport = BTreeMap<String, BTreeMap<&'static str, u64>>;

/// What the models have counted.
pub(crate) fn errors_report(errors: &[ModelErrors]) -> ErrorsReport {
    errors.iter().map(|errors| (errors.model.clone(), errors.kinds.iter().copied().collect())).collect()
}

/// See [`Snapshot`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SmmuReport {
    pub(crate) tlb_hits: u64,
    pub(crate) walks: u64,
    pub(crate) config_fetches: u64,
    pub(crate) stalls: u64,
    pub(crate) retries: u64,
    pub(crate) unanswered_stalls: u64,
    pub(crate) aborts: u64,
    pub(crate) events: BTreeMap<&'static str, u64>,
    pub(crate) events_lost: u64,
    pub(crate) commands: BTreeMap<&'static str, u64>,
    pub(crate) illegal_commands: u64,
    pub(crate) translation_requests: u64,
    pub(crate) page_requests: u64,
    pub(crate) page_requests_lost: u64,
    /// Absent from the counters of a machine that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page_faults_over_time: Option<SeriesReport>,
}

/// Stalls and groups of page requests, by guest time; see [`Counts`].
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SeriesReport {
    pub(crate) bucket_ns: u64,
    pub(crate) counts: Vec<u64>,
}

impl From<&Counts> for SeriesReport {
    fn from(series: &Counts) -> Self {
        Self { bucket_ns: series.bucket_ns, counts: series.counts.clone() }
    }
}

/// See [`AtcTotals`].
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct AtcReport {
    pub(crate) hits: u64,
    pub(crate) translation_requests: u64,
    pub(crate) invalidations: u64,
    pub(crate) page_requests: u64,
    pub(crate) credit_waits: u64,
    pub(crate) page_responses: u64,
    pub(crate) unexpected_responses: u64,
    pub(crate) unanswered_groups: u64,
}

impl From<&Snapshot> for SmmuReport {
    fn from(smmu: &Snapshot) -> Self {
        Self {
            tlb_hits: smmu.tlb_hits,
            walks: smmu.walks,
            config_fetches: smmu.config_fetches,
            stalls: smmu.stalls,
            retries: smmu.retries,
            unanswered_stalls: smmu.unanswered_stalls,
            aborts: smmu.aborts,
            events: smmu.events.iter().copied().collect(),
            events_lost: smmu.events_lost,
            commands: smmu.commands.iter().copied().collect(),
            illegal_commands: smmu.illegal_commands,
            translation_requests: smmu.translation_requests,
            page_requests: smmu.page_requests,
            page_requests_lost: smmu.page_requests_lost,
            page_faults_over_time: smmu.page_faults_over_time.as_ref().map(SeriesReport::from),
        }
    }
}

impl From<&AtcTotals> for AtcReport {
    fn from(atc: &AtcTotals) -> Self {
        Self {
            hits: atc.hits,
            translation_requests: atc.translation_requests,
            invalidations: atc.invalidations,
            page_requests: atc.page_requests,
            credit_waits: atc.credit_waits,
            page_responses: atc.page_responses,
            unexpected_responses: atc.unexpected_responses,
            unanswered_groups: atc.unanswered_groups,
        }
    }
}

impl Report {
    fn new(
        stats: &Stats,
        accelerators: Vec<AcceleratorReport>,
        smmu: &Snapshot,
        engine: Option<EngineReport>,
        guest_errors: &[ModelErrors],
        faults: Option<FaultReport>,
    ) -> Self {
        let accelerator = Accelerator { commands: stats.accel_commands, busy_ns: stats.accel_busy_ns };
        Self {
            accelerator,
            accelerators,
            smmu: smmu.into(),
            atc: (&stats.atc).into(),
            engine,
            guest_errors: errors_report(guest_errors),
            faults,
        }
    }

    /// The numbers so far. What the engine counts is as old as each vCPU's last stop. Without what is long, because some
    /// clients ask often: histograms, and counts over time.
    pub(crate) fn so_far(board: &Board) -> Self {
        let mut smmu = board.smmu_stats();
        smmu.page_faults_over_time = None;
        let mut accelerators = board.accelerator_reports();
        accelerators.iter_mut().for_each(|accelerator| accelerator.latency.clear());
        let engine = board.engine().statistics();
        Self::new(&board.stats(), accelerators, &smmu, engine, &board.guest_errors(), board.fault_report())
    }
}

impl Report {
    /// With these many firings of fault rules at most.
    pub(crate) fn with_firings(self, most: usize) -> Self {
        Self { faults: self.faults.map(|faults| faults.shortened(most)), ..self }
    }
}

/// Where the report goes: opened before the boot, so that a wrong name costs no run.
pub(crate) struct ReportFile {
    path: PathBuf,
    file: File,
}

impl AsRawFd for ReportFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl ReportFile {
    /// # Errors
    /// A line for the user.
    pub(crate) fn create(path: &Path) -> Result<Self, Failed> {
        let file =
            File::create(path).map_err(|e| Failed::new(format!("cannot write the report {path:?}: {e}")))?;
        Ok(Self { path: path.into(), file })
    }

    /// # Errors
    /// A line for the user.
    pub(crate) fn write(mut self, ended: &Ended) -> Result<(), Failed> {
        let report = Report::new(
            &ended.stats,
            ended.accelerators.clone(),
            &ended.smmu,
            ended.engine.clone(),
            &ended.guest_errors,
            ended.faults.clone(),
        );
        let mut text = serde_json::to_string_pretty(&report).expect("only strings are keys");
        text.push('\n');
        let path = &self.path;
        self.file
            .write_all(text.as_bytes())
            .map_err(|e| Failed::new(format!("cannot write the report {path:?}: {e}")))
    }
}
