//! What a kind of virtio device is to its transport.

use hw::{DmaFault, DmaPort, Iova, Requester};

use super::chain::Request;

/// Feature bits that do not depend on the kind of device (6).
pub mod feature {
    /// The driver may use indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Notifications are suppressed by ring positions.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device follows VIRTIO 1.0 or later.
    pub const VERSION_1: u64 = 1 << 32;
    /// The device's addresses go through the platform's translation.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// A request could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// The request's form leaves no way to answer it: the device needs a reset.
    Malformed,
    /// The device is being reset: nobody waits for an answer.
    Cancelled,
}

/// The device's way to memory while it serves a request.
#[derive(Clone, Copy)]
pub struct Io<'a> {
    pub(super) port: &'a dyn DmaPort,
    pub(super) who: &'a Requester,
    /// Negotiated features.
    pub features: u64,
}

impl Io<'_> {
    /// Reads guest memory.
    ///
    /// # Errors
    /// [`DmaFault`]
    pub fn read(&self, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.port.read(self.who, at, out)
    }

    /// Writes guest memory.
    ///
    /// # Errors
    /// [`DmaFault`]
    pub fn write(&self, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.port.write(self.who, at, data)
    }
}

/// A kind of virtio device.
pub trait VirtioDevice: Send + Sync {
    /// Virtio device ID (5).
    fn device_id(&self) -> u16;

    /// PCI class code.
    fn class(&self) -> u32;

    /// Features of this kind that the device offers.
    fn features(&self) -> u64;

    /// The largest size of each queue: powers of two, at most 32 of them.
    fn queue_sizes(&self) -> &[u16];

    /// Reads the device-specific configuration; zeros beyond its end.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes the device-specific configuration, where it can be written.
    fn config_write(&self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Serves one request and says how many bytes were written to its buffers, from their beginning. Called on the
    /// worker, for one request at a time; may wait.
    ///
    /// # Errors
    /// [`ServeError`]
    fn serve(&self, queue: u16, request: Request, io: &Io<'_>) -> Result<u32, ServeError>;

    /// The device's reset. No request is being served.
    fn reset(&self) {}
}
