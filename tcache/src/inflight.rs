//! Accesses under way: what an invalidation waits for.
//!
//! An access counts itself in before it looks anything up and out after its last byte. [`Inflight::drain`] returns
//! when every access that was counted in before it has been counted out. Entering never waits, so an access may
//! be made while another of the same thread is held. Two counters take turns, so that a stream of new accesses
//! can't keep a drain from ending.
//!
//! Why it holds: the invalidation comes first, then [`Age::advance`] in [`Inflight::drain`], then its reads of the
//! counters. An access counts itself in and then reads the age. All four are sequentially consistent: either the
//! drain sees the access, or the access sees the age and with it the invalidation.
//!
//! Each thread has counters of its own, which it alone writes: counting in is one store that later loads may not
//! overtake, counting out is a plain one. Nobody can be told of a plain store without the barrier that it saves, so
//! a drain looks again and again, yielding its processor, for as long as such an access lasts. An access that may
//! last longer is [held](Inflight::hold): it is counted in a place for all threads, and a drain sleeps until it ends.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};

use crate::age::Age;
use crate::sync::{
    AtomicU32, AtomicU64, AtomicUsize, Backoff, Mutex, Ordering, Scheduler, SleepMutex, WaitQueue, fence,
    store_first,
};
use crate::threads;

/// Places of threads, and behind them the shared one.
const SHARED: usize = if cfg!(loom) { 2 } else { threads::LIMIT };

/// Looks before a drain gives its processor to others.
const SPINS: u32 = 200;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Place<T> {
    inside: [AtomicU32; 2],
    local: T,
}

/// The count of accesses. `T` is what is kept beside it for each thread, for counters of the caller's own.
pub struct Inflight<T> {
    places: Box<[Place<T>]>,
    /// Which counter new accesses take.
    turn: AtomicUsize,
    /// Above zero: a drain waits on `left`.
    waiting: AtomicUsize,
    /// Drains go one at a time.
    draining: SleepMutex<()>,
    lock: Mutex<()>,
    left: WaitQueue,
    /// What runs those who make accesses and those who drain.
    scheduler: Arc<dyn Scheduler>,
}

impl<T> fmt::Debug for Inflight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflight").field("turn", &self.turn).finish_non_exhaustive()
    }
}

/// A place that one thread has for itself.
#[derive(Debug)]
pub struct Own<'a, T> {
    inflight: &'a Inflight<T>,
    place: &'a Place<T>,
    _not_send: PhantomData<*const ()>,
}

/// An access under way. What it finds in caches stays good until it is dropped.
#[derive(Debug)]
pub struct Access<'a, T> {
    inflight: &'a Inflight<T>,
    place: &'a Place<T>,
    turn: usize,
    is_shared: bool,
    /// Counted out by the thread that was counted in.
    _not_send: PhantomData<*const ()>,
}

impl<T: Default> Inflight<T> {
    /// No access is under way; those to come are made by tasks of `scheduler`, which drain as well.
    #[must_use]
    pub fn new(scheduler: &Arc<dyn Scheduler>) -> Self {
        Self {
            places: (0..=SHARED).map(|_| Place::default()).collect(),
            turn: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            draining: SleepMutex::new(Arc::clone(scheduler), ()),
            lock: Mutex::new(()),
            left: scheduler.wait_queue(),
            scheduler: Arc::clone(scheduler),
        }
    }
}

impl<T> Inflight<T> {
    /// Counts an access in that ends soon: a bounded number of bytes, no wait for anybody.
    #[inline]
    pub fn enter(&self) -> Access<'_, T> {
        self.enter_at(threads::this_thread().unwrap_or(SHARED))
    }

    /// Counts an access in that may last.
    pub fn hold(&self) -> Access<'_, T> {
        self.enter_at(SHARED)
    }

    #[inline]
    pub(crate) fn enter_at(&self, number: usize) -> Access<'_, T> {
        self.count_in(&self.places[number], number == SHARED)
    }

    #[inline]
    fn count_in<'a>(&'a self, place: &'a Place<T>, is_shared: bool) -> Access<'a, T> {
        let turn = self.turn.load(Ordering::Relaxed) & 1;
        let inside = &place.inside[turn];
        if is_shared {
            inside.fetch_add(1, Ordering::SeqCst);
            // Implied, but not known to the model checker.
            #[cfg(loom)]
            fence(Ordering::SeqCst);
        } else {
            store_first(inside, inside.load(Ordering::Relaxed) + 1);
        }
        Access { inflight: self, place, turn, is_shared, _not_send: PhantomData }
    }

    /// Begins a new age and waits for the end of all accesses that were counted in before it. The caller holds no lock
    /// that an access takes, and has no access under way itself.
    pub fn drain(&self, age: &Age) {
        age.advance();
        self.wait();
    }

    /// The second half of [`Self::drain`], for accesses that read an age which the caller has advanced already.
    pub fn wait(&self) {
        let _one_at_a_time = self.draining.lock().unwrap_or_else(PoisonError::into_inner);
        fence(Ordering::SeqCst);
        // An access may read the turn, be held up, and count itself in after the turn has changed twice. So the
        // counter whose turn it isn't is waited for first: such a one is older than this drain.
        let turn = self.turn.load(Ordering::Relaxed) & 1;
        self.wait_for(1 - turn);
        self.turn.store(1 - turn, Ordering::Relaxed);
        self.wait_for(turn);
    }

    fn wait_for(&self, turn: usize) {
        let own = &self.places[..threads::bound().min(SHARED)];
        for place in own {
            let mut backoff = Backoff::new(&*self.scheduler, SPINS);
            while place.inside[turn].load(Ordering::SeqCst) != 0 {
                backoff.snooze();
            }
        }
        let shared = &self.places[SHARED].inside[turn];
        if shared.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while shared.load(Ordering::SeqCst) != 0 {
            guard = self.left.wait(&self.lock, guard);
        }
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    #[cold]
    fn leave_shared(&self, inside: &AtomicU32) {
        inside.fetch_sub(1, Ordering::SeqCst);
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            // The lock orders this after a look that found the access and before the wait that follows it.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.left.notify_all();
        }
    }

    /// The place that this thread has for itself, if there was one left; without being counted in.
    #[inline]
    #[must_use]
    pub fn own(&self) -> Option<Own<'_, T>> {
        let place = &self.places[threads::this_thread()?];
        Some(Own { inflight: self, place, _not_send: PhantomData })
    }

    /// What is kept for each thread.
    pub fn locals(&self) -> impl Iterator<Item = &T> {
        self.places.iter().map(|place| &place.local)
    }
}

impl<'a, T> Own<'a, T> {
    /// What is kept for this thread, where it is written by this thread alone.
    #[inline]
    #[must_use]
    pub fn local(&self) -> &'a T {
        &self.place.local
    }

    /// Counts an access in as [`Inflight::enter`] does.
    #[inline]
    pub fn enter(&self) -> Access<'a, T> {
        self.inflight.count_in(self.place, false)
    }
}

impl<T> Access<'_, T> {
    /// What is kept for this thread.
    #[inline]
    #[must_use]
    pub fn local(&self) -> &T {
        &self.place.local
    }

    /// The same, where it is written by this thread alone while the access is under way.
    #[inline]
    #[must_use]
    pub fn own(&self) -> Option<&T> {
        (!self.is_shared).then_some(&self.place.local)
    }

    /// Adds to a counter in [`Self::local`], which nobody else adds to in another way. Exact, and cheap.
    #[inline]
    pub fn add(&self, counter: &AtomicCounter, n: u64) {
        if self.is_shared {
            counter.0.fetch_add(n, Ordering::Relaxed);
        } else {
            counter.add_alone(n);
        }
    }
}

/// A counter that [`Access::add`] adds to.
#[derive(Debug, Default)]
pub struct AtomicCounter(AtomicU64);

impl AtomicCounter {
    /// Adds where nobody else adds meanwhile: to a counter of [`Inflight::own`].
    #[inline]
    pub fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Access<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let inside = &self.place.inside[self.turn];
        if !self.is_shared {
            inside.store(inside.load(Ordering::Relaxed) - 1, Ordering::Release);
        } else {
            self.inflight.leave_shared(inside);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use hw::schedule::Threads;
    use hw::schedule::seeded::SeededScheduler;
    use std::sync::atomic::AtomicBool;

    fn threaded<T: Default>() -> Inflight<T> {
        let scheduler: Arc<dyn Scheduler> = Arc::new(Threads);
        Inflight::new(&scheduler)
    }

    fn drain_waits_for_earlier_accesses_and_not_for_later_ones(enter: fn(&Inflight<()>) -> Access<'_, ()>) {
        let (inflight, age) = (threaded(), Age::default());
        let drained = AtomicBool::new(false);
        let earlier = enter(&inflight);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                inflight.drain(&age);
                drained.store(true, Ordering::SeqCst);
            });
            while inflight.turn.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let _later = enter(&inflight);
            assert!(!drained.load(Ordering::SeqCst));
            drop(earlier);
            while !drained.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn drain_waits_for_earlier_accesses_of_threads_with_a_place() {
        drain_waits_for_earlier_accesses_and_not_for_later_ones(Inflight::enter);
    }

    #[test]
    fn drain_waits_for_earlier_accesses_that_are_held() {
        drain_waits_for_earlier_accesses_and_not_for_later_ones(Inflight::hold);
    }

    #[test]
    fn drain_under_a_scheduler_that_runs_one_task_at_a_time_lets_the_accesses_end_that_it_waits_for() {
        for seed in 0..20 {
            let seeded = SeededScheduler::new(seed);
            let scheduler: Arc<dyn Scheduler> = seeded.clone();
            let inflight = Arc::new(Inflight::<()>::new(&scheduler));
            let [begun, ended, drains] = std::array::from_fn(|_| Arc::new(AtomicUsize::new(0)));
            for enter in [Inflight::enter, Inflight::hold] {
                let (inflight, yields) = (inflight.clone(), seeded.clone());
                let (begun, ended) = (begun.clone(), ended.clone());
                let work = move || {
                    let access = enter(&inflight);
                    begun.fetch_add(1, Ordering::SeqCst);
                    yields.yield_now();
                    ended.fetch_add(1, Ordering::SeqCst);
                    drop(access);
                };
                seeded.spawn("device", Box::new(work)).unwrap();
            }
            for _ in 0..2 {
                let (inflight, drains) = (inflight.clone(), drains.clone());
                let (begun, ended) = (begun.clone(), ended.clone());
                let work = move || {
                    let earlier = begun.load(Ordering::SeqCst);
                    inflight.drain(&Age::default());
                    assert!(ended.load(Ordering::SeqCst) >= earlier);
                    drains.fetch_add(1, Ordering::SeqCst);
                };
                seeded.spawn("mapper", Box::new(work)).unwrap();
            }
            seeded.run_until_idle();
            assert_eq!((drains.load(Ordering::SeqCst), seeded.tasks()), (2, 0));
        }
    }

    #[test]
    fn drain_with_nothing_under_way_returns() {
        let (inflight, age) = (threaded::<()>(), Age::default());
        drop(inflight.enter());
        drop(inflight.hold());
        inflight.drain(&age);
        inflight.drain(&age);
        assert!(
            inflight.places.iter().all(|place| place.inside.iter().all(|n| n.load(Ordering::SeqCst) == 0))
        );
    }

    #[test]
    fn more_threads_than_places_are_counted_exactly() {
        let inflight = threaded::<AtomicCounter>();
        let threads = 2 * threads::LIMIT as u64;
        let all_here = std::sync::Barrier::new(threads as usize);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    drop(inflight.enter());
                    all_here.wait();
                    for _ in 0..100 {
                        let access = inflight.enter();
                        access.add(access.local(), 1);
                    }
                });
            }
        });
        assert_eq!(inflight.locals().map(AtomicCounter::get).sum::<u64>(), 100 * threads);
    }
}
