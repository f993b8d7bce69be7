//! What each accelerator has done: totals, and how long its commands have taken by the size of their input.

use devices::hisi::Totals;
use devices::pci::AtcTotals;
use hw::Latencies;
use hw::latency::{Bucket, Histogram};
use serde::Serialize;

use super::AtcReport;

/// One accelerator's numbers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AcceleratorReport {
    /// As for `inspect`: `zip0`.
    pub(crate) name: String,
    pub(crate) commands: u64,
    /// Those of them that ended with an error status.
    pub(crate) errors: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) busy_ns: u64,
    /// Commands that are in no histogram, because their doorbell was not seen: it rang before a save.
    pub(crate) unmeasured: u64,
    /// Of its own translation cache.
    pub(crate) atc: AtcReport,
    /// By size of the input. Absent if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) latency: Vec<LatencyReport>,
}

/// Times of commands whose input was of such a size, from the doorbell until the completion is in memory.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyReport {
    pub(crate) from_bytes: u64,
    pub(crate) to_bytes: u64,
    pub(crate) commands: u64,
    pub(crate) min_ns: u64,
    pub(crate) mean_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p90_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
    /// By time; those without a command are left out.
    pub(crate) buckets: Vec<BucketReport>,
}

/// Commands that took from so long to so long.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct BucketReport {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    pub(crate) commands: u64,
}

impl AcceleratorReport {
    /// An accelerator's numbers with its histograms.
    pub(crate) fn new(name: String, totals: &Totals, atc: &AtcTotals, latencies: &Latencies) -> Self {
        let &Totals { commands, errors, bytes_in, bytes_out, busy_ns } = totals;
        Self {
            name,
            commands,
            errors,
            bytes_in,
            bytes_out,
            busy_ns,
            unmeasured: latencies.unmeasured(),
            atc: atc.into(),
            latency: latencies.histograms().iter().map(LatencyReport::from).collect(),
        }
    }
}

impl From<&Histogram> for LatencyReport {
    fn from(times: &Histogram) -> Self {
        Self {
            from_bytes: times.from_bytes,
            to_bytes: times.to_bytes,
            commands: times.count,
            min_ns: times.min_ns,
            mean_ns: times.mean_ns(),
            p50_ns: times.percentile_ns(50),
            p90_ns: times.percentile_ns(90),
            p99_ns: times.percentile_ns(99),
            max_ns: times.max_ns,
            buckets: times.buckets.iter().map(BucketReport::from).collect(),
        }
    }
}

impl From<&Bucket> for BucketReport {
    fn from(bucket: &Bucket) -> Self {
        let &Bucket { from_ns, to_ns, count } = bucket;
        Self { from_ns, to_ns, commands: count }
    }
}
