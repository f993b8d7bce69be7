//! Small numbers for threads, so that each can have a place of its own in an array.
//!
//! A number is a thread's from its first use to its end. There are [`LIMIT`] of them; threads beyond get none.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Numbers are below this.
pub(crate) const LIMIT: usize = 64;

/// Numbers that are taken, as bits.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Numbers that were ever taken are below this.
static BOUND: AtomicUsize = AtomicUsize::new(0);

const NOT_ASKED: usize = usize::MAX;
const NONE_LEFT: usize = LIMIT;

/// Gives a thread's number back when the thread ends.
struct Return;

impl Drop for Return {
    fn drop(&mut self) {
        let number = NUMBER.replace(NONE_LEFT);
        if number < LIMIT {
            TAKEN.fetch_and(!(1 << number), Ordering::SeqCst);
        }
    }
}

thread_local! {
    // Has nothing to drop, so that reading it is a load and no more.
    static NUMBER: Cell<usize> = const { Cell::new(NOT_ASKED) };
    static RETURN: Return = const { Return };
}

/// The number of this thread, if it has one.
#[inline]
pub(crate) fn this_thread() -> Option<usize> {
    match NUMBER.get() {
        number if number < LIMIT => Some(number),
        NOT_ASKED => ask(),
        _ => None,
    }
}

#[cold]
fn ask() -> Option<usize> {
    // Registers the return; a thread that is ending already gets no number.
    let taken = RETURN.try_with(|_| take()).unwrap_or(NONE_LEFT);
    NUMBER.set(taken);
    (taken < LIMIT).then_some(taken)
}

fn take() -> usize {
    let lowest_free = |taken: u64| taken.checked_add(1).map(|next| taken | next);
    match TAKEN.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lowest_free) {
        Ok(before) => {
            let number = before.trailing_ones() as usize;
            BOUND.fetch_max(number + 1, Ordering::SeqCst);
            number
        }
        Err(_) => NONE_LEFT,
    }
}

/// All numbers taken before are below this.
pub(crate) fn bound() -> usize {
    if cfg!(loom) { LIMIT } else { BOUND.load(Ordering::SeqCst) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn threads_alive_have_different_numbers_and_ended_ones_give_them_back() {
        let mine = this_thread();
        assert_eq!(this_thread(), mine);
        // Other tests may have all numbers for a while.
        let mut taken = 0;
        while taken < 3 * LIMIT {
            if let Some(other) = std::thread::spawn(this_thread).join().unwrap() {
                assert!(Some(other) != mine && other < bound());
                taken += 1;
            }
        }
    }
}
