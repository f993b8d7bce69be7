//! The threads that do the devices' work, and their orderly end.
//!
//! Devices hire workers from vCPU threads and from other workers, none of which may start a thread. One thread does that
//! for all of them, and nothing else.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use devices::hisi::qm::Workforce;

use crate::sandbox::{Sandbox, Thread};

type Work = Box<dyn FnOnce() + Send>;

/// A worker to hire, and where to say whether there is one.
struct Order {
    work: Work,
    hired: mpsc::SyncSender<io::Result<()>>,
}

/// The thread that starts the others.
struct Foreman {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

type Threads = Arc<Mutex<Vec<JoinHandle<()>>>>;

/// Threads hired by devices. They end when their device is shut down; [`Crew::join`] waits for that.
pub struct Crew {
    sandbox: Sandbox,
    threads: Threads,
    foreman: Mutex<Option<Foreman>>,
}

impl Crew {
    /// A crew of nobody but the thread that hires.
    ///
    /// # Errors
    /// If the host gives none.
    pub fn start(sandbox: &Sandbox) -> io::Result<Arc<Self>> {
        let threads = Threads::default();
        let (orders, ordered) = mpsc::channel::<Order>();
        let (for_foreman, for_workers) = (Arc::clone(&threads), sandbox.clone());
        let thread = sandbox.spawn(Thread::Crew, "crew", move || {
            for order in ordered {
                let hired = for_workers.spawn(Thread::Accel, "accel", order.work).map(|thread| {
                    for_foreman.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                });
                // The device waits for the answer.
                let _ = order.hired.send(hired);
            }
        })?;
        let foreman = Mutex::new(Some(Foreman { orders, thread }));
        Ok(Arc::new(Self { sandbox: sandbox.clone(), threads, foreman }))
    }

    /// Starts a thread that no device asks for. From a thread that may.
    ///
    /// # Errors
    /// If the host gives none.
    pub fn employ(&self, kind: Thread, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = self.sandbox.spawn(kind, name, work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits for all threads; their devices have been told to end. Nobody is hired after that.
    pub fn join(&self) {
        let foreman = self.foreman.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Foreman { orders, thread }) = foreman {
            drop(orders);
            let _ = thread.join();
        }
        loop {
            let thread = self.threads.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(thread) = thread else { return };
            // A panic in a worker has been printed; the machine is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Workforce for Crew {
    fn hire(&self, work: Work) -> io::Result<()> {
        let is_ending = || io::Error::other("the machine is ending");
        let (hired, answer) = mpsc::sync_channel(1);
        {
            let foreman = self.foreman.lock().unwrap_or_else(PoisonError::into_inner);
            let foreman = foreman.as_ref().ok_or_else(is_ending)?;
            foreman.orders.send(Order { work, hired }).map_err(|_| is_ending())?;
        }
        // The foreman takes no lock that the caller may hold, and a worker answers before it begins.
        answer.recv().map_err(|_| is_ending())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hired_threads_have_ended_after_join_and_then_nobody_is_hired() {
        let crew = Crew::start(&Sandbox::off()).unwrap();
        let (tx, rx) = mpsc::channel();
        for i in 0..4 {
            let tx = tx.clone();
            crew.hire(Box::new(move || tx.send(i).unwrap())).unwrap();
        }
        crew.join();
        assert_eq!(rx.try_iter().count(), 4);
        assert!(crew.hire(Box::new(|| ())).is_err());
    }
}
