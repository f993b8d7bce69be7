//! The host's monotonic time as the guest's, and the thread that keeps the machine's alarms.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hw::{AlarmTarget, Alarms, Clock};

use crate::sandbox::{Sandbox, Thread};

/// Guest time runs with the host's, from zero when the machine is made.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
}

impl HostClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        // 584 years of run time fit.
        self.start.elapsed().as_nanos() as u64
    }
}

#[derive(Default)]
struct Deadlines {
    targets: Vec<Arc<dyn AlarmTarget>>,
    /// Deadline of each slot, and the same again in order.
    by_slot: Vec<Option<u64>>,
    ordered: BTreeSet<(u64, usize)>,
    stopped: bool,
}

struct Shared {
    clock: Arc<HostClock>,
    deadlines: Mutex<Deadlines>,
    changed: Condvar,
}

/// The alarm service: one thread that sleeps until the earliest deadline.
pub struct AlarmThread {
    shared: Arc<Shared>,
}

impl AlarmThread {
    /// Starts the service. The thread ends when the service is dropped.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn start(clock: Arc<HostClock>, sandbox: &Sandbox) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared { clock, deadlines: Mutex::default(), changed: Condvar::new() });
        let weak = Arc::downgrade(&shared);
        sandbox.spawn(Thread::Alarms, "alarms", move || serve(&weak))?;
        Ok(Arc::new(Self { shared }))
    }
}

impl Drop for AlarmThread {
    fn drop(&mut self) {
        self.shared.deadlines.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Alarms for AlarmThread {
    fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
        let mut deadlines = self.shared.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        deadlines.targets.push(target);
        deadlines.by_slot.push(None);
        deadlines.targets.len() - 1
    }

    fn set(&self, slot: usize, deadline_ns: Option<u64>) {
        let mut deadlines = self.shared.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        let first_before = deadlines.ordered.first().copied();
        let Some(entry) = deadlines.by_slot.get_mut(slot) else { return };
        if let Some(old) = std::mem::replace(entry, deadline_ns) {
            deadlines.ordered.remove(&(old, slot));
        }
        if let Some(at) = deadline_ns {
            deadlines.ordered.insert((at, slot));
        }
        // A later first deadline only makes the thread look once too often.
        let sooner = match (first_before, deadlines.ordered.first()) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(now)) => *now < before,
        };
        drop(deadlines);
        if sooner {
            self.shared.changed.notify_one();
        }
    }
}

fn serve(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let mut deadlines = shared.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        if deadlines.stopped {
            return;
        }
        let now = shared.clock.now_ns();
        match deadlines.ordered.first().copied() {
            Some((at, slot)) if at <= now => {
                deadlines.ordered.remove(&(at, slot));
                deadlines.by_slot[slot] = None;
                let target = Arc::clone(&deadlines.targets[slot]);
                drop(deadlines);
                target.alarm();
            }
            Some((at, _)) => {
                let wait = Duration::from_nanos(at - now);
                drop(shared.changed.wait_timeout(deadlines, wait));
            }
            None => drop(shared.changed.wait(deadlines)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Send(mpsc::Sender<u64>, Arc<HostClock>);
    impl AlarmTarget for Send {
        fn alarm(&self) {
            let _ = self.0.send(self.1.now_ns());
        }
    }

    #[test]
    fn alarms_fire_after_their_deadline_and_cancelled_ones_never() {
        let clock = HostClock::new();
        let alarms = AlarmThread::start(clock.clone(), &Sandbox::off()).unwrap();
        let (tx, rx) = mpsc::channel();
        let early = alarms.register(Arc::new(Send(tx.clone(), clock.clone())));
        let (never_tx, never_rx) = mpsc::channel();
        let never = alarms.register(Arc::new(Send(never_tx, clock.clone())));

        alarms.set(never, Some(clock.now_ns() + 2_000_000));
        alarms.set(early, Some(u64::MAX));
        let deadline = clock.now_ns() + 5_000_000;
        alarms.set(early, Some(deadline));
        alarms.set(never, None);

        assert!(rx.recv_timeout(Duration::from_secs(10)).unwrap() >= deadline);
        assert!(never_rx.try_recv().is_err());
    }
}
