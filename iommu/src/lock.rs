//! Locking of the SMMU's own state.

use std::sync::{Mutex, MutexGuard};

/// Locks a part of the SMMU's state.
///
/// # Panics
/// If a thread has panicked with the lock held. No guest can cause that, and what such a thread leaves behind may be
/// half changed: nothing may be built on it.
#[track_caller]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds a lock of the SMMU")
}
