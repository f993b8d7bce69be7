//! virtio devices.
mod backend;
pub use backend::BlockBackend;
