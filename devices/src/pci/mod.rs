//! PCI Express: the host bridge with its ECAM and windows, and what every function has in common.
//!
//! PCI Express Base 6.0. A function ([`PciFunction`]) owns a [`ConfigSpace`], which holds its BARs, capabilities,
//! messages and gates; [`PciHost`] routes accesses to functions by what the guest programmed. Deliberately absent:
//! INTx, expansion ROMs, links and their training, error messages (AER), SR-IOV.

use hw::{BusError, StreamId};

pub mod atc;
pub mod bar;
mod bus_master;
pub mod caps;
mod config;
mod host;
mod interrupts;
mod port;
#[cfg(test)]
mod tests;

pub(crate) use atc::AtcState;
pub use atc::{Atc, AtcTotals, AtcWiring};
pub use bar::Bar;
pub use bus_master::BusMasterPort;
pub use config::{
    ConfigBuilder, ConfigSpace, ConfigState, Effects, Identity, PageRequestControl, PendingWaker,
};
pub use host::{AttachError, HostBridge, PciHost, Window};
pub use interrupts::MsixLayout;
pub use port::RootPort;

/// A function of a PCI device: what the host needs of it.
///
/// All calls come on vCPU threads: they move state and wake workers, and never do DMA. Only a reset may wait, for the end of
/// accesses that it has given up.
pub trait PciFunction: Send + Sync {
    /// The function's configuration space.
    fn config(&self) -> &ConfigSpace;

    /// The bridge that this function is, if it is one.
    fn as_port(&self) -> Option<&RootPort> {
        None
    }

    /// Whether it is a bridge that has no state but its configuration space, which the host then saves and restores.
    fn is_bridge(&self) -> bool {
        self.as_port().is_some()
    }

    /// A read of the configuration space. Only a function whose registers act on reads has its own.
    fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.config().read(offset, data);
    }

    /// A write to the configuration space. Only a function with capabilities of its own that act has its own.
    fn config_write(&self, offset: u64, data: &[u8]) -> Effects {
        self.config().write(offset, data)
    }

    /// A read inside memory or I/O BAR `bar` (0 to 5; a 64-bit BAR has the number of its lower half). The MSI-X
    /// table and pending bits never come here.
    ///
    /// # Errors
    /// [`BusError`] where nothing takes it: the guest reads all ones.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), BusError>;

    /// A write inside memory or I/O BAR `bar`; see [`Self::bar_read`].
    ///
    /// # Errors
    /// [`BusError`] where nothing takes it: the write is dropped.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), BusError>;

    /// A reset of the function (6.6.2), of its bus, or of the machine. The configuration space has already gone back to its
    /// reset values, so no DMA and no message leaves any more; the function forgets everything else and gives up waiting
    /// accesses.
    fn function_reset(&self);
}

/// The requester ID of a function: what the SMMU sees as StreamID and the ITS as DeviceID. `devfn` is the device
/// number in bits 7:3 and the function number in bits 2:0.
#[must_use]
pub const fn requester_id(bus: u8, devfn: u8) -> StreamId {
    StreamId((bus as u32) << 8 | devfn as u32)
}
