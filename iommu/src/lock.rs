//! Locking of the SMMU's own state.

use std::sync::{LockResult, Mutex, MutexGuard};

/// Locks a part of the SMMU's state.
///
/// # Panics
/// If a thread has panicked with the lock held. No guest can cause that, and what such a thread leaves behind may be
/// half changed: nothing may be built on it.
#[track_caller]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    held(mutex.lock())
}

/// What came of taking a lock.
///
/// # Panics
/// See [`lock`].
#[track_caller]
pub(crate) fn held<T>(lock: LockResult<MutexGuard<'_, T>>) -> MutexGuard<'_, T> {
    lock.expect("no thread panics while it holds a lock of the SMMU")
}
