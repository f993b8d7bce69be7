//! The primitives, from the standard library or from the model checker.

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex},
    thread::yield_now,
};

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
