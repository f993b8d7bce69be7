//! Where devices get their threads from: they have none of their own.

/// Threads for workers.
pub trait Workforce: Send + Sync {
    /// Runs `worker` on a thread of its own; the call returns at once. `worker` returns when its device is shut down.
    /// `false` if there is no further thread: the work then waits for a worker that there is.
    fn hire(&self, worker: Box<dyn FnOnce() + Send>) -> bool;
}

/// A workforce of nobody: whoever owns the device steps it.
#[derive(Debug, Default)]
pub struct NoWorkforce;

impl Workforce for NoWorkforce {
    fn hire(&self, _worker: Box<dyn FnOnce() + Send>) -> bool {
        false
    }
}
