//! How models wait and let others run: the seam between them and what schedules the machine's tasks.
//!
//! A *task* is a flow of control that may wait in the midst of its calls: a vCPU, a device's worker, the alarm service. Whoever puts
//! the machine together says what runs them, by a [`Scheduler`] that models are given as they are given a
//! [`Clock`](crate::Clock). Ordinarily tasks are threads of the host ([`Threads`]); then a [`WaitQueue`] is a condition
//! variable and nothing else. Another scheduler may run one task at a time in an order of its own choice, as
//! [`seeded::SeededScheduler`] does.
//!
//! Below the machine monitor nobody waits in another way: no condition variable, sleep, channel or thread but in here, which the
//! lints of these crates enforce. A wait has no deadline: who waits for guest time sets an alarm ([`Alarms`](crate::Alarms)). Plain
//! mutexes are no part of the seam, because who holds one does not wait; the few locks whose holders do are a
//! [`SleepMutex`].

// The ordinary scheduler is the host's threads, so that here is what is used nowhere else.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod seeded;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Condvar, LockResult, Mutex, MutexGuard, PoisonError, TryLockError};
use std::{fmt, hint, io, thread};

/// What a task does.
pub type Work = Box<dyn FnOnce() + Send>;

/// What runs tasks. Everything but [`Self::spawn`] is the host's threads' unless an implementation says otherwise.
pub trait Scheduler: Send + Sync {
    /// Starts a task, which returns when its device is shut down. The call returns at once. `name` says to people what it is.
    ///
    /// A device starts the tasks without which it could do nothing when it is made, and does not come to be without
    /// them. Further ones it starts when they are needed; without one, the work waits for a task that there is.
    ///
    /// # Errors
    /// If there is no room for a further task. `work` is dropped.
    fn spawn(&self, name: &'static str, work: Work) -> io::Result<()>;

    /// A queue on which this scheduler's tasks wait.
    fn wait_queue(&self) -> WaitQueue {
        WaitQueue::of_threads()
    }

    /// Lets others run before the caller goes on.
    fn yield_now(&self) {
        thread::yield_now();
    }

    /// Whether no other task runs until the present one waits, yields or ends. It then yields for a lock that it finds taken
    /// ([`SleepMutex`]).
    fn is_cooperative(&self) -> bool {
        false
    }
}

/// Threads of the host, started without further ado.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

impl Scheduler for Threads {
    fn spawn(&self, name: &'static str, work: Work) -> io::Result<()> {
        thread::Builder::new().name(name.into()).spawn(work).map(drop)
    }
}

/// Takes any work and does none: whoever owns the device steps it, on a thread of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stepped;

impl Scheduler for Stepped {
    fn spawn(&self, _name: &'static str, _work: Work) -> io::Result<()> {
        Ok(())
    }
}

/// Where a scheduler's tasks wait: what is behind a [`WaitQueue`] that is not of the host's threads.
pub trait TaskQueue: Send + Sync {
    /// Puts the present task into the queue, calls `unlock`, and returns when the task has been notified; also sooner,
    /// because whoever waits looks again. A notification after `unlock` has been called is not missed.
    fn wait(&self, unlock: &mut dyn FnMut());

    /// Notifies one task of those that wait.
    fn notify_one(&self);

    /// Notifies all tasks that wait.
    fn notify_all(&self);

    /// An empty queue of the same scheduler.
    fn another(&self) -> Box<dyn TaskQueue>;
}

/// Tasks that wait for a change of what a mutex protects, as with a condition variable. Several queues may belong to one
/// mutex.
pub struct WaitQueue(Kind);

enum Kind {
    Threads(Condvar),
    Tasks(Box<dyn TaskQueue>),
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}

impl WaitQueue {
    /// A queue of the host's threads.
    #[must_use]
    pub const fn of_threads() -> Self {
        Self(Kind::Threads(Condvar::new()))
    }

    /// A queue of another scheduler's tasks.
    #[must_use]
    pub const fn of_tasks(queue: Box<dyn TaskQueue>) -> Self {
        Self(Kind::Tasks(queue))
    }

    /// An empty queue of the same scheduler.
    #[must_use]
    pub fn another(&self) -> Self {
        match &self.0 {
            Kind::Threads(_) => Self::of_threads(),
            Kind::Tasks(queue) => Self::of_tasks(queue.another()),
        }
    }

    /// Releases the lock, waits for a notification, and takes the lock again. It may return without one. `guard` is of
    /// `mutex`, and the caller holds no other lock but such as its notifier does not take.
    pub fn wait<'a, T>(&self, mutex: &'a Mutex<T>, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        match &self.0 {
            Kind::Threads(condition) => condition.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Kind::Tasks(queue) => {
                let mut guard = Some(guard);
                queue.wait(&mut || drop(guard.take()));
                mutex.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }

    /// Waits as long as `condition` says. It is asked with the lock held, at once and after each notification.
    pub fn wait_while<'a, T>(
        &self,
        mutex: &'a Mutex<T>,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(mutex, guard);
        }
        guard
    }

    /// Makes one of those who wait look again.
    #[inline]
    pub fn notify_one(&self) {
        match &self.0 {
            Kind::Threads(condition) => condition.notify_one(),
            Kind::Tasks(queue) => queue.notify_one(),
        }
    }

    /// Makes all who wait look again.
    #[inline]
    pub fn notify_all(&self) {
        match &self.0 {
            Kind::Threads(condition) => condition.notify_all(),
            Kind::Tasks(queue) => queue.notify_all(),
        }
    }
}

/// Looks again and again for what another task is about to do, and has not the means to tell. First it looks often, because that task
/// is probably running on another processor; then it lets others run between two looks.
pub struct Backoff<'a> {
    scheduler: &'a dyn Scheduler,
    spins: u32,
    most_spins: u32,
}

impl fmt::Debug for Backoff<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backoff").field("spins", &self.spins).finish_non_exhaustive()
    }
}

impl<'a> Backoff<'a> {
    /// Yields after so many looks.
    #[must_use]
    pub fn new(scheduler: &'a dyn Scheduler, most_spins: u32) -> Self {
        Self { scheduler, spins: 0, most_spins }
    }

    /// Between two looks.
    #[inline]
    pub fn snooze(&mut self) {
        if self.spins < self.most_spins {
            self.spins += 1;
            hint::spin_loop();
        } else {
            self.scheduler.yield_now();
        }
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.spins = 0;
    }
}

/// A mutex whose holder may wait or yield.
pub struct SleepMutex<T> {
    mutex: Mutex<T>,
    scheduler: Arc<dyn Scheduler>,
}

impl<T: fmt::Debug> fmt::Debug for SleepMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SleepMutex").field(&self.mutex).finish()
    }
}

impl<T> SleepMutex<T> {
    /// A mutex of tasks of this scheduler.
    #[must_use]
    pub const fn new(scheduler: Arc<dyn Scheduler>, value: T) -> Self {
        Self { mutex: Mutex::new(value), scheduler }
    }

    /// Takes the lock.
    ///
    /// # Errors
    /// As [`Mutex::lock`].
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        loop {
            match self.mutex.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if self.scheduler.is_cooperative() => {
                    self.scheduler.yield_now()
                }
                Err(TryLockError::WouldBlock) => return self.mutex.lock(),
            }
        }
    }
}
