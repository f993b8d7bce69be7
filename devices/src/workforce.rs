//! Where devices get their threads from: they have none of their own.
//!
//! A device hires the threads without which it could do nothing when it is made, and does not come to be without them.
//! Further ones it hires when they are needed; without one, the work waits for a thread that there is.

use std::io;

/// Threads for workers.
pub trait Workforce: Send + Sync {
    /// Runs `worker` on a thread of its own; the call returns at once. `worker` returns when its device is shut down.
    ///
    /// # Errors
    /// If there is no further thread. `worker` is dropped.
    fn hire(&self, worker: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// A workforce of nobody, which takes any work and does none: whoever owns the device steps it.
#[derive(Debug, Default)]
pub struct NoWorkforce;

impl Workforce for NoWorkforce {
    fn hire(&self, _worker: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Ok(())
    }
}
