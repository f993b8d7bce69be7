//! What accelerators, SMMU and fault plan counted in a run, as JSON for scripts and tests (`warpvmm run --report-json FILE`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use devices::pci::AtcTotals;
use iommu::Snapshot;
use serde::Serialize;

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
    pub(crate) smmu: SmmuReport,
    atc: AtcReport,
    /// Absent without `--stats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<EngineReport>,
    /// Absent without a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<FaultReport>,
}

#[derive(Debug, Serialize)]
struct Accelerator {
    commands: u64,
    busy_ns: u64,
}

/// See [`Snapshot`].
#[derive(Debug, Serialize)]
pub(crate) struct SmmuReport {
    tlb_hits: u64,
    walks: u64,
    config_fetches: u64,
    stalls: u64,
    retries: u64,
    unanswered_stalls: u64,
    aborts: u64,
    events: BTreeMap<&'static str, u64>,
    events_lost: u64,
    commands: BTreeMap<&'static str, u64>,
    illegal_commands: u64,
    translation_requests: u64,
    page_requests: u64,
    page_requests_lost: u64,
}

/// See [`AtcTotals`].
#[derive(Debug, Serialize)]
pub(crate) struct AtcReport {
    hits: u64,
    translation_requests: u64,
    invalidations: u64,
    page_requests: u64,
    credit_waits: u64,
    page_responses: u64,
    unexpected_responses: u64,
    unanswered_groups: u64,
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
        smmu: &Snapshot,
        engine: Option<EngineReport>,
        faults: Option<FaultReport>,
    ) -> Self {
        let accelerator = Accelerator { commands: stats.accel_commands, busy_ns: stats.accel_busy_ns };
        Self { accelerator, smmu: smmu.into(), atc: (&stats.atc).into(), engine, faults }
    }

    /// The numbers so far. What the engine counts is as old as each vCPU's last stop.
    pub(crate) fn of(board: &Board) -> Self {
        let smmu = board.smmu_stats();
        Self::new(&board.stats(), &smmu, board.engine().statistics(), board.fault_report())
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
        let report = Report::new(&ended.stats, &ended.smmu, ended.engine.clone(), ended.faults.clone());
        let mut text = serde_json::to_string_pretty(&report).expect("only strings are keys");
        text.push('\n');
        let path = &self.path;
        self.file
            .write_all(text.as_bytes())
            .map_err(|e| Failed::new(format!("cannot write the report {path:?}: {e}")))
    }
}
