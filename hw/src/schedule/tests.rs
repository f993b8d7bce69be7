//! Models that wait, under a scheduler that is not the host's threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::seeded::SeededScheduler;
use super::*;
use crate::{Activity, Clock, DmaFault, ManualAlarms, ManualClock, Timer, Waiter};

type Notes = Arc<Mutex<Vec<usize>>>;

/// In which order accesses go on that wait for guest time, of which the second half is given up.
fn accesses_that_wait_for_guest_time(seed: u64) -> (Vec<usize>, Vec<&'static str>) {
    const ACCESSES: usize = 8;
    let scheduler = SeededScheduler::new(seed);
    let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
    let timer = Timer::of_waits(clock.clone(), alarms.clone(), &*scheduler);
    let waiters = [Waiter::new(&*scheduler), Waiter::new(&*scheduler)];
    let notes = Notes::default();
    for access in 0..ACCESSES {
        let is_given_up = access >= ACCESSES / 2;
        let (timer, waiter) = (timer.clone(), waiters[usize::from(is_given_up)].clone());
        let notes = notes.clone();
        let work = move || {
            let result = timer.wait(10, &waiter);
            assert_eq!(result, if is_given_up { Err(DmaFault::Cancelled) } else { Ok(()) });
            notes.lock().unwrap().push(access);
        };
        scheduler.spawn(if is_given_up { "given up" } else { "in time" }, Box::new(work)).unwrap();
    }
    scheduler.run_until_idle();
    assert_eq!((timer.len(), notes.lock().unwrap().len()), (ACCESSES, 0));
    waiters[1].cancel();
    scheduler.run_until_idle();
    assert_eq!(notes.lock().unwrap().len(), ACCESSES / 2);
    clock.advance_ns(10);
    alarms.ring(clock.now_ns());
    scheduler.run_until_idle();
    assert_eq!((timer.len(), scheduler.tasks()), (0, 0));
    let order = notes.lock().unwrap().clone();
    (order, scheduler.log())
}

#[test]
fn accesses_that_wait_for_guest_time_go_on_in_an_order_that_follows_from_the_seed() {
    let of_first = accesses_that_wait_for_guest_time(1);
    assert_eq!(accesses_that_wait_for_guest_time(1), of_first);
    assert!((2..10).any(|seed| accesses_that_wait_for_guest_time(seed) != of_first));
}

#[test]
fn owner_that_waits_for_the_end_of_work_lets_the_tasks_do_it() {
    let scheduler = SeededScheduler::new(3);
    let activity = Arc::new(Activity::new(&*scheduler));
    let left = Arc::new(AtomicUsize::new(5));
    for _ in 0..5 {
        let (activity, left, yields) = (activity.clone(), left.clone(), scheduler.clone());
        let work = move || {
            yields.yield_now();
            left.fetch_sub(1, Ordering::SeqCst);
            activity.changed();
        };
        scheduler.spawn("worker", Box::new(work)).unwrap();
    }
    activity.wait_until(|| left.load(Ordering::SeqCst) == 0);
}

#[test]
fn lock_whose_holder_waits_is_taken_by_the_next_when_the_holder_lets_go() {
    for seed in 0..20 {
        let scheduler = SeededScheduler::new(seed);
        let lock = Arc::new(SleepMutex::new(scheduler.clone(), 0));
        let (waiter, is_answered) = (Waiter::new(&*scheduler), Arc::new(AtomicBool::new(false)));
        for _ in 0..4 {
            let (lock, waiter, is_answered) = (lock.clone(), waiter.clone(), is_answered.clone());
            let work = move || {
                let mut count = lock.lock().unwrap();
                waiter.wait(|| is_answered.load(Ordering::SeqCst).then_some(())).unwrap();
                *count += 1;
            };
            scheduler.spawn("holder", Box::new(work)).unwrap();
        }
        // Whoever finds the lock taken is never idle.
        while !waiter.is_waiting() {
            scheduler.yield_now();
        }
        is_answered.store(true, Ordering::SeqCst);
        waiter.notify();
        scheduler.run_until_idle();
        assert_eq!((*lock.lock().unwrap(), scheduler.tasks()), (4, 0));
    }
}

#[test]
fn backoff_lets_the_task_run_that_it_waits_for() {
    let scheduler = SeededScheduler::new(7);
    let is_done = Arc::new(AtomicBool::new(false));
    let done = is_done.clone();
    scheduler.spawn("worker", Box::new(move || done.store(true, Ordering::SeqCst))).unwrap();
    let mut backoff = Backoff::new(&*scheduler, 5);
    while !is_done.load(Ordering::SeqCst) {
        backoff.snooze();
    }
}

#[test]
fn owner_learns_that_a_task_has_panicked_and_that_nobody_is_left_to_notify() {
    let scheduler = SeededScheduler::new(0);
    scheduler.spawn("worker", Box::new(|| std::panic::resume_unwind(Box::new("a fault")))).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| scheduler.run_until_idle())).is_err());
    let scheduler = SeededScheduler::new(0);
    let waiter = Waiter::new(&*scheduler);
    assert!(catch_unwind(AssertUnwindSafe(|| waiter.wait(|| None::<()>))).is_err());
}

#[test]
fn queue_of_the_hosts_threads_wakes_whom_it_is_told_to() {
    let (queue, lock) = (Threads.wait_queue().another(), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let guard = lock.lock().unwrap();
                let mut tokens = queue.wait_while(&lock, guard, |tokens| *tokens == 0);
                *tokens -= 1;
            });
        }
        *lock.lock().unwrap() += 1;
        queue.notify_one();
        *lock.lock().unwrap() += 2;
        queue.notify_all();
    });
    assert_eq!(*lock.lock().unwrap(), 0);
}
