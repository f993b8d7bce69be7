//! The threads that do the devices' work, and their orderly end.
//!
//! Devices ask for workers from vCPU threads and from other workers, none of which may start a thread. One thread, the
//! spawner, does that for all of them, and nothing else.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use hw::Scheduler;
use hw::schedule::Work;

use crate::sandbox::{Sandbox, Thread};

/// A worker to start, and where to say whether there is one.
struct Request {
    name: &'static str,
    work: Work,
    started: mpsc::SyncSender<io::Result<()>>,
}

/// The thread that starts the others.
struct Spawner {
    requests: mpsc::Sender<Request>,
    thread: JoinHandle<()>,
}

type Threads = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// The threads of devices. They end when their device is shut down; [`WorkerPool::join`] waits for that.
pub struct WorkerPool {
    sandbox: Sandbox,
    threads: Threads,
    spawner: Mutex<Option<Spawner>>,
}

impl WorkerPool {
    /// A pool of no thread but the spawner.
    ///
    /// # Errors
    /// If the host gives none.
    pub fn start(sandbox: &Sandbox) -> io::Result<Arc<Self>> {
        let threads = Threads::default();
        let (requests, requested) = mpsc::channel::<Request>();
        let (for_spawner, for_workers) = (Arc::clone(&threads), sandbox.clone());
        let thread = sandbox.spawn(Thread::Spawner, "spawner", move || {
            for request in requested {
                let started = for_workers.spawn(Thread::Accel, request.name, request.work).map(|thread| {
                    for_spawner.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                });
                // The device waits for the answer.
                let _ = request.started.send(started);
            }
        })?;
        let spawner = Mutex::new(Some(Spawner { requests, thread }));
        Ok(Arc::new(Self { sandbox: sandbox.clone(), threads, spawner }))
    }

    /// Starts a thread that no device asks for. From a thread that may.
    ///
    /// # Errors
    /// If the host gives none.
    pub fn start_one(
        &self,
        kind: Thread,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let thread = self.sandbox.spawn(kind, name, work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits for all threads; their devices have been told to end. None is started after that.
    pub fn join(&self) {
        let spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Spawner { requests, thread }) = spawner {
            drop(requests);
            let _ = thread.join();
        }
        loop {
            let thread = self.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return };
            // A worker that has panicked has ended the process instead.
            let _ = thread.join();
        }
    }
}

/// Everything but the start of threads is the host's own.
impl Scheduler for WorkerPool {
    fn spawn(&self, name: &'static str, work: Work) -> io::Result<()> {
        let is_ending = || io::Error::other("the machine is ending");
        let (started, answer) = mpsc::sync_channel(1);
        {
            let spawner = self.spawner.lock().unwrap_or_else(PoisonError::into_inner);
            let spawner = spawner.as_ref().ok_or_else(is_ending)?;
            spawner.requests.send(Request { name, work, started }).map_err(|_| is_ending())?;
        }
        // The spawner takes no lock that the caller may hold, and a worker answers before it begins.
        answer.recv().map_err(|_| is_ending())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_ended_after_join_and_none_is_started_then() {
        let pool = WorkerPool::start(&Sandbox::off()).unwrap();
        let (tx, rx) = mpsc::channel();
        for i in 0..4 {
            let tx = tx.clone();
            pool.spawn("accel", Box::new(move || tx.send(i).unwrap())).unwrap();
        }
        pool.join();
        assert_eq!(rx.try_iter().count(), 4);
        assert!(pool.spawn("accel", Box::new(|| ())).is_err());
    }
}
