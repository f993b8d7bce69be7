//! The gate between a function and the bus: Command.Bus Master Enable (7.5.1.1.3) and PASID Control (7.8.9.3).

use std::borrow::Cow;
use std::sync::Arc;

use hw::{Dir, DmaFault, DmaPort, DmaTag, Iova, Pinned, Requester};

use super::config::{ConfigSpace, Gates};

/// A DMA port that aborts every access while its function is no bus master: Bus Master Enable is off, here or in the
/// port above, or the function is not in D0. So it aborts accesses with a PASID, and those that execute or are privileged,
/// unless PASID Control enables them. What goes through carries the requester ID that the function has at
/// present, whatever the caller's tag says.
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

    fn admit<'r>(&self, who: &'r Requester, at: Iova) -> Result<Cow<'r, Requester>, DmaFault> {
        if !self.gates.allow(&who.tag) {
            return Err(DmaFault::Aborted(at));
        }
        match self.gates.requester() {
            Some(stream) if stream != who.tag.stream => {
                let tag = DmaTag { stream, ..who.tag };
                Ok(Cow::Owned(Requester { tag, ..who.clone() }))
            }
            _ => Ok(Cow::Borrowed(who)),
        }
    }
}

impl DmaPort for BusMasterPort {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.port.read(&*self.admit(who, at)?, at, out)
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.port.write(&*self.admit(who, at)?, at, data)
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        self.port.pin(&*self.admit(who, at)?, at, len, dir)
    }
}
