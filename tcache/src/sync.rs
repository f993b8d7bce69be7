//! The primitives, from the standard library and the scheduling seam or from the model checker.

#[cfg(not(loom))]
pub(crate) use hw::schedule::{Backoff, Scheduler, SleepMutex, WaitQueue};
#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

#[cfg(all(test, loom))]
pub(crate) use checked::Checker;
#[cfg(loom)]
pub(crate) use checked::{Backoff, Scheduler, SleepMutex, WaitQueue};

/// A store that comes before every sequentially consistent load that follows it.
#[inline]
pub(crate) fn store_first(word: &AtomicU32, value: u32) {
    #[cfg(not(loom))]
    word.store(value, Ordering::SeqCst);
    // The checker takes a sequentially consistent store for a release, so it needs the fence that is implied.
    #[cfg(loom)]
    {
        word.store(value, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

/// The scheduling seam in front of the model checker, which is the scheduler then.
#[cfg(loom)]
mod checked {
    use std::sync::{Arc, LockResult};

    use loom::sync::{Condvar, Mutex, MutexGuard};

    /// Whose threads they are.
    pub trait Scheduler: Send + Sync {
        /// A queue on which they wait.
        fn wait_queue(&self) -> WaitQueue {
            WaitQueue(Condvar::new())
        }
    }

    /// The model checker's.
    #[cfg(test)]
    pub(crate) struct Checker;

    #[cfg(test)]
    impl Scheduler for Checker {}

    #[derive(Debug)]
    pub struct WaitQueue(Condvar);

    impl WaitQueue {
        pub(crate) fn wait<'a, T>(
            &self,
            _mutex: &'a Mutex<T>,
            guard: MutexGuard<'a, T>,
        ) -> MutexGuard<'a, T> {
            self.0.wait(guard).unwrap()
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    #[derive(Debug)]
    pub(crate) struct SleepMutex<T>(Mutex<T>);

    impl<T> SleepMutex<T> {
        pub(crate) fn new(_scheduler: Arc<dyn Scheduler>, value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            self.0.lock()
        }
    }

    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new(_scheduler: &dyn Scheduler, _most_spins: u32) -> Self {
            Self
        }

        pub(crate) fn snooze(&mut self) {
            loom::thread::yield_now();
        }
    }
}
