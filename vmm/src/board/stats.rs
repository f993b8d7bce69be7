//! Numbers of a run that the board's devices count.

use devices::pci::AtcTotals;

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commands completed by all accelerators.
    pub accel_commands: u64,
    /// Time their engines spent on commands, in nanoseconds.
    pub accel_busy_ns: u64,
    /// Stalled accesses that the guest answered with a retry.
    pub page_faults: u64,
    /// SMMU TLB hits.
    pub tlb_hits: u64,
    /// SMMU table walks.
    pub table_walks: u64,
    /// What the accelerators' own translation caches did.
    pub atc: AtcTotals,
}
