//! Accesses under way: what CMD_SYNC waits for.
//!
//! An access counts itself in before it looks anything up and out after its last byte. [`Inflight::drain`] returns
//! when every access that was counted in before it has been counted out. Entering never waits, so an access may
//! be made while another of the same thread is pinned. Two counters take turns, so that a stream of new accesses
//! can't keep a drain from ending; they are spread over stripes, so that threads don't share a cache line.
//!
//! Why it holds: the invalidation comes first, then `Age::advance` in [`Inflight::drain`], then its reads of the
//! counters. An access counts itself in and then reads the age. All four are sequentially consistent: either the
//! drain sees the access, or the access sees the age and with it the invalidation.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::cache::Age;
use crate::stats::{Counts, StripeStats};

const STRIPES: usize = 16;

#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Stripe {
    inside: [AtomicUsize; 2],
    pub(crate) stats: StripeStats,
}

/// The count of accesses.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    stripes: [Stripe; STRIPES],
    /// Which counter new accesses take.
    turn: AtomicUsize,
    /// Drains go one at a time. Above zero: someone waits on `left`.
    waiting: AtomicUsize,
    draining: Mutex<()>,
    lock: Mutex<()>,
    left: Condvar,
}

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn stripe_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let stripe = STRIPE.get();
    if stripe < STRIPES {
        return stripe;
    }
    let stripe = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    STRIPE.set(stripe);
    stripe
}

/// An access under way. Its translations stay good until it is dropped.
#[derive(Debug)]
pub(crate) struct Access<'a> {
    inflight: &'a Inflight,
    stripe: &'a Stripe,
    turn: usize,
    pub(crate) counts: Counts,
}

impl Inflight {
    /// Counts an access in.
    #[inline]
    pub(crate) fn enter(&self) -> Access<'_> {
        let stripe = &self.stripes[stripe_of_this_thread()];
        let turn = self.turn.load(Ordering::SeqCst) & 1;
        stripe.inside[turn].fetch_add(1, Ordering::SeqCst);
        Access { inflight: self, stripe, turn, counts: Counts::default() }
    }

    /// Waits for the end of all accesses that were counted in before. The caller holds no lock that an access takes.
    pub(crate) fn drain(&self, age: &Age) {
        let _one_at_a_time = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        age.advance();
        // An access may read the turn, be held up, and count itself in after the turn has changed twice. So the
        // counter whose turn it isn't is waited for first: such a one is older than this drain.
        let turn = self.turn.load(Ordering::SeqCst) & 1;
        self.wait_for(1 - turn);
        self.turn.store(1 - turn, Ordering::SeqCst);
        self.wait_for(turn);
    }

    #[cfg(test)]
    fn is_empty(&self, turn: usize) -> bool {
        self.stripes.iter().all(|stripe| stripe.inside[turn].load(Ordering::SeqCst) == 0)
    }

    fn wait_for(&self, turn: usize) {
        for stripe in &self.stripes {
            let is_empty = || stripe.inside[turn].load(Ordering::SeqCst) == 0;
            for _ in 0..200 {
                if is_empty() {
                    break;
                }
                std::hint::spin_loop();
            }
            if is_empty() {
                continue;
            }
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            while !is_empty() {
                guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
            drop(guard);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Stripes, for their statistics.
    pub(crate) fn stripes(&self) -> &[Stripe] {
        &self.stripes
    }
}

impl Drop for Access<'_> {
    #[inline]
    fn drop(&mut self) {
        self.stripe.stats.add(&self.counts);
        self.stripe.inside[self.turn].fetch_sub(1, Ordering::SeqCst);
        if self.inflight.waiting.load(Ordering::SeqCst) != 0 {
            // The lock orders this after a look that found the access and before the wait that follows it.
            drop(self.inflight.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.inflight.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    #[test]
    fn drain_waits_for_earlier_accesses_and_not_for_later_ones() {
        let (inflight, age) = (Inflight::default(), Age::default());
        let drained = AtomicBool::new(false);
        let earlier = inflight.enter();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                inflight.drain(&age);
                drained.store(true, Ordering::SeqCst);
            });
            while inflight.turn.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let _later = inflight.enter();
            assert!(!drained.load(Ordering::SeqCst));
            drop(earlier);
            while !drained.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }

    #[test]
    fn drain_with_nothing_under_way_returns() {
        let (inflight, age) = (Inflight::default(), Age::default());
        drop(inflight.enter());
        inflight.drain(&age);
        inflight.drain(&age);
        assert!(inflight.is_empty(0) && inflight.is_empty(1));
    }
}
