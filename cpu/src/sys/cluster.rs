//! What all vCPUs of a machine share: memory, the bus, pending words and the request queues.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use hw::Ram;

/// What a cluster is made from.
pub struct ClusterConfig {
    /// How many vCPUs, at least 1.
    pub cpus: usize,
    /// Guest RAM.
    pub ram: Arc<Ram>,
}

/// Shared by all vCPUs.
pub struct Cluster {
    pending: Box<[AtomicU32]>,
    /// Guest RAM.
    pub ram: Arc<Ram>,
    /// Which pages hold decoded code.
    pub code_pages: crate::interp::CodePages,
}

impl Cluster {
    /// The shared part of a machine.
    #[must_use]
    pub fn new(config: ClusterConfig) -> Arc<Self> {
        let ClusterConfig { cpus, ram } = config;
        Arc::new(Self {
            pending: (0..cpus).map(|_| AtomicU32::new(0)).collect(),
            code_pages: crate::interp::CodePages::new(&ram),
            ram,
        })
    }

    /// The pending word of vCPU `index`: it must not move while the cluster lives.
    pub(crate) fn pending(&self, index: usize) -> &AtomicU32 {
        &self.pending[index]
    }
}
