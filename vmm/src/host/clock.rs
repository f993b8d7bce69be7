//! The host's monotonic time as the guest's, and the thread that keeps the machine's alarms.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hw::{AlarmTarget, Alarms, Clock};

use crate::sandbox::{Sandbox, Thread};

/// Guest time runs with the host's, from zero when the machine is made, and stands still while the machine is paused.
#[derive(Debug)]
pub struct HostClock {
    start: Instant,
    /// Even, but while the two others change: whoever reads them looks at it before and after, and tries again.
    sequence: AtomicU64,
    /// What guest time is behind the host's: what was spent in pauses. Modulo 2^64, because a restored machine's is before it.
    paused_ns: AtomicU64,
    /// Guest time during a pause; [`RUNS`] outside.
    stands_at_ns: AtomicU64,
}

/// No time that is ever reached.
const RUNS: u64 = u64::MAX;

impl HostClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            sequence: AtomicU64::new(0),
            paused_ns: AtomicU64::new(0),
            stands_at_ns: AtomicU64::new(RUNS),
        })
    }

    fn host_ns(&self) -> u64 {
        // 584 years of run time fit.
        self.start.elapsed().as_nanos() as u64
    }

    /// Guest time stands still from now on. From one thread at a time, as [`Self::go_on`].
    pub fn stand_still(&self) {
        if !self.stands_still() {
            self.change(|| {
                let now = self.host_ns().wrapping_sub(self.paused_ns.load(Ordering::Relaxed));
                self.stands_at_ns.store(now, Ordering::Relaxed);
            });
        }
    }

    /// Guest time goes on where it stands.
    pub fn go_on(&self) {
        if self.stands_still() {
            self.change(|| {
                let stood_at = self.stands_at_ns.swap(RUNS, Ordering::Relaxed);
                self.paused_ns.store(self.host_ns().wrapping_sub(stood_at), Ordering::Relaxed);
            });
        }
    }

    /// Guest time, which stands still, is this from now on, and stands still.
    pub fn set(&self, now_ns: u64) {
        self.change(|| self.stands_at_ns.store(now_ns, Ordering::Relaxed));
    }

    /// Whether guest time stands still.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        self.stands_at_ns.load(Ordering::Relaxed) != RUNS
    }

    fn change(&self, change: impl FnOnce()) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        // What `change` stores is seen by nobody who has not seen the odd number.
        fence(Ordering::Release);
        change();
        self.sequence.store(before.wrapping_add(2), Ordering::Release);
    }
}

impl Clock for HostClock {
    fn now_ns(&self) -> u64 {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let stands_at = self.stands_at_ns.load(Ordering::Relaxed);
            let paused = self.paused_ns.load(Ordering::Relaxed);
            let now = if stands_at == RUNS { self.host_ns().wrapping_sub(paused) } else { stands_at };
            // The host's time belongs to the pauses that were known when it was read.
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return now;
            }
            std::hint::spin_loop();
        }
    }
}

#[derive(Default)]
struct Deadlines {
    targets: Vec<Arc<dyn AlarmTarget>>,
    /// Deadline of each slot, and the same again in order.
    by_slot: Vec<Option<u64>>,
    ordered: BTreeSet<(u64, usize)>,
    /// No target is called.
    is_held: bool,
    /// A target is being called.
    is_calling: bool,
    stopped: bool,
}

struct Shared {
    clock: Arc<HostClock>,
    deadlines: Mutex<Deadlines>,
    changed: Condvar,
    /// A target has been called.
    called: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let shared = Arc::new(Shared {
            clock,
            deadlines: Mutex::default(),
            changed: Condvar::new(),
            called: Condvar::new(),
        });
        let weak = Arc::downgrade(&shared);
        sandbox.spawn(Thread::Alarms, "alarms", move || serve(&weak))?;
        Ok(Arc::new(Self { shared }))
    }

    /// Calls no target from now on. When this returns, none is being called.
    pub fn hold(&self) {
        let mut deadlines = self.shared.lock();
        deadlines.is_held = true;
        while deadlines.is_calling {
            deadlines = self.shared.called.wait(deadlines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends what [`Self::hold`] has begun: what has come due meanwhile is called soon.
    pub fn release(&self) {
        self.shared.lock().is_held = false;
        self.shared.changed.notify_one();
    }
}

impl Drop for AlarmThread {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Alarms for AlarmThread {
    fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
        let mut deadlines = self.shared.lock();
        deadlines.targets.push(target);
        deadlines.by_slot.push(None);
        deadlines.targets.len() - 1
    }

    fn set(&self, slot: usize, deadline_ns: Option<u64>) {
        let mut deadlines = self.shared.lock();
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
        let mut deadlines = shared.lock();
        if deadlines.stopped {
            return;
        }
        if deadlines.is_held {
            drop(shared.changed.wait(deadlines));
            continue;
        }
        let now = shared.clock.now_ns();
        match deadlines.ordered.first().copied() {
            Some((at, slot)) if at <= now => {
                deadlines.ordered.remove(&(at, slot));
                deadlines.by_slot[slot] = None;
                let target = Arc::clone(&deadlines.targets[slot]);
                deadlines.is_calling = true;
                drop(deadlines);
                target.alarm();
                shared.lock().is_calling = false;
                shared.called.notify_all();
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

    #[test]
    fn guest_time_of_a_restored_machine_goes_on_from_a_time_before_its_process_began() {
        let clock = HostClock::new();
        const HOURS: u64 = 7 * 3_600_000_000_000;
        clock.stand_still();
        clock.set(HOURS);
        assert_eq!(clock.now_ns(), HOURS);
        clock.go_on();
        let now = clock.now_ns();
        assert!((HOURS..HOURS + 600_000_000_000).contains(&now), "{now}");
        clock.stand_still();
        let stands_at = clock.now_ns();
        assert!(stands_at >= now && clock.now_ns() == stands_at);
    }

    #[test]
    fn guest_time_stands_still_in_a_pause_and_goes_on_where_it_stood() {
        let clock = HostClock::new();
        let mut paused = Duration::ZERO;
        for _ in 0..3 {
            clock.stand_still();
            let stands_at = clock.now_ns();
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(20));
            clock.stand_still();
            assert_eq!(clock.now_ns(), stands_at);
            paused += begin.elapsed();
            clock.go_on();
            clock.go_on();
            assert!(clock.now_ns() >= stands_at);
        }
        assert!(clock.now_ns() <= (clock.start.elapsed() - paused).as_nanos() as u64);
    }

    #[test]
    fn guest_time_never_runs_backwards_for_those_who_read_it_while_pauses_begin_and_end() {
        let clock = HostClock::new();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    while done.load(Ordering::Relaxed) == 0 {
                        let now = clock.now_ns();
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                    }
                });
            }
            for _ in 0..20_000 {
                clock.stand_still();
                clock.go_on();
            }
            done.store(1, Ordering::Relaxed);
        });
    }

    #[test]
    fn held_alarms_call_nobody_until_they_are_released() {
        let clock = HostClock::new();
        let alarms = AlarmThread::start(clock.clone(), &Sandbox::off()).unwrap();
        let (tx, rx) = mpsc::channel();
        let slot = alarms.register(Arc::new(Send(tx, clock.clone())));
        alarms.hold();
        alarms.set(slot, Some(clock.now_ns()));
        assert!(rx.recv_timeout(Duration::from_millis(50)).is_err());
        alarms.release();
        assert!(rx.recv_timeout(Duration::from_secs(10)).is_ok());
    }

    /// Whoever holds them may then change what targets use.
    #[test]
    fn alarms_are_held_when_the_call_under_way_has_come_back() {
        struct Slow(mpsc::Sender<()>, AtomicU64);
        impl AlarmTarget for Slow {
            fn alarm(&self) {
                self.0.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                self.1.store(1, Ordering::SeqCst);
            }
        }
        let clock = HostClock::new();
        let alarms = AlarmThread::start(clock, &Sandbox::off()).unwrap();
        let (tx, rx) = mpsc::channel();
        let slow = Arc::new(Slow(tx, AtomicU64::new(0)));
        let slot = alarms.register(slow.clone());
        alarms.set(slot, Some(0));
        rx.recv_timeout(Duration::from_secs(10)).unwrap();
        alarms.hold();
        assert_eq!(slow.1.load(Ordering::SeqCst), 1);
    }
}
