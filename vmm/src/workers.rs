//! The threads that do the devices' work, and their orderly end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use devices::hisi::qm::Workforce;

/// Threads hired by devices. They end when their device is shut down; [`Crew::join`] waits for that.
#[derive(Default)]
pub struct Crew {
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Crew {
    /// A crew of nobody.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// If the host gives none.
    pub fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.into()).spawn(work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits for all threads; their devices have been told to end.
    pub fn join(&self) {
        loop {
            let thread = self.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return };
            // A panic in a worker has been printed; the machine is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Workforce for Crew {
    fn hire(&self, worker: Box<dyn FnOnce() + Send>) -> bool {
        self.start("accel", worker).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn hired_threads_have_ended_after_join() {
        let crew = Crew::new();
        let (tx, rx) = mpsc::channel();
        for i in 0..4 {
            let tx = tx.clone();
            assert!(crew.hire(Box::new(move || tx.send(i).unwrap())));
        }
        crew.join();
        assert_eq!(rx.try_iter().count(), 4);
    }
}
