//! The gate between a function and the bus: Command.Bus Master Enable (7.5.1.1.3).

use std::sync::Arc;

use hw::{Dir, DmaFault, DmaPort, Iova, Pinned, Requester};

use super::config::{ConfigSpace, Gates};

/// A DMA port that aborts every access while its function is no bus master: Bus Master Enable is off, or the
/// function is not in D0.
pub struct BusMasterPort {
    gates: Arc<Gates>,
    port: Arc<dyn DmaPort>,
}

impl BusMasterPort {
    /// Puts the gate of `config` in front of `port`.
    #[must_use]
    pub fn new(config: &ConfigSpace, port: Arc<dyn DmaPort>) -> Self {
        Self { gates: Arc::clone(config.gates()), port }
    }

    fn check(&self, at: Iova) -> Result<(), DmaFault> {
        if self.gates.bus_master() { Ok(()) } else { Err(DmaFault::Aborted(at)) }
    }
}

impl DmaPort for BusMasterPort {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.check(at)?;
        self.port.read(who, at, out)
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.check(at)?;
        self.port.write(who, at, data)
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        self.check(at)?;
        self.port.pin(who, at, len, dir)
    }
}
