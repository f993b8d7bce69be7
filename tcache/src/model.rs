//! The protocol over every interleaving, and every reordering that the memory model allows.
//!
//! "Memory" holds one translation, a frame number. A device looks it up through the cache and marks the frame. The
//! mapper moves the translation to another frame, invalidates, and takes the old frame for its own: from then on the
//! device must not touch it.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::sync::{Checker, Scheduler};
use crate::{Access, Age, Aged, Cache, Inflight, LeastAges};

const KEY: [u64; 2] = [7, 0];
const MAPPERS: u64 = 100;
const DEVICES: u64 = 1;

struct Model {
    table: AtomicU64,
    frames: [AtomicU64; 2],
    cache: Cache<1, 1>,
    least: LeastAges,
    age: Age,
    inflight: Inflight<()>,
    /// The count of the agent behind the device, which knows nothing of its translations.
    agent: Inflight<()>,
}

#[derive(Clone, Copy)]
enum Invalidate {
    Remove,
    Raise,
}

impl Model {
    fn new(cached: bool) -> Arc<Self> {
        let scheduler: std::sync::Arc<dyn Scheduler> = std::sync::Arc::new(Checker);
        let model = Self {
            table: AtomicU64::new(0),
            frames: [AtomicU64::new(0), AtomicU64::new(0)],
            cache: Cache::new(0),
            least: LeastAges::default(),
            age: Age::default(),
            inflight: Inflight::new(&scheduler),
            agent: Inflight::new(&scheduler),
        };
        if cached {
            model.cache.insert(KEY, Aged { age: 0, data: [0] });
        }
        Arc::new(model)
    }

    fn device(&self, access: Access<'_, ()>) {
        let age = self.age.now();
        let cached = self.cache.get(KEY).filter(|found| found.age >= self.least.of(0));
        let frame = match cached {
            Some(Aged { data: [frame], .. }) => frame,
            None => {
                let frame = self.table.load(Ordering::Acquire);
                self.cache.insert(KEY, Aged { age, data: [frame] });
                frame
            }
        };
        self.frames[frame as usize].store(DEVICES, Ordering::Relaxed);
        drop(access);
    }

    /// Looks up first, and is counted in by the agent alone. Whether the translation was still good then.
    fn device_in_a_hurry(&self, place: usize) -> bool {
        let age = self.age.now();
        let cached = self.cache.get(KEY).filter(|found| found.age >= self.least.of(0));
        let Some(Aged { data: [frame], .. }) = cached else { return false };
        let access = self.agent.enter_at(place);
        let is_good = self.age.now() == age;
        if is_good {
            self.frames[frame as usize].store(DEVICES, Ordering::Relaxed);
        }
        drop(access);
        is_good
    }

    fn mapper(&self, how: Invalidate) {
        self.invalidate(how);
        self.frames[0].store(MAPPERS, Ordering::Relaxed);
    }

    /// Waits for both counts.
    fn mapper_of_a_hurried_device(&self, how: Invalidate) {
        self.invalidate(how);
        self.agent.wait();
        self.frames[0].store(MAPPERS, Ordering::Relaxed);
    }

    fn invalidate(&self, how: Invalidate) {
        self.table.store(1, Ordering::Release);
        let now = self.age.advance();
        match how {
            Invalidate::Remove => self.cache.remove(KEY, now),
            Invalidate::Raise => self.least.raise(0, now),
        }
        self.inflight.drain(&self.age);
    }

    fn is_kept(&self) {
        assert_eq!(self.frames[0].load(Ordering::Relaxed), MAPPERS);
    }
}

fn explore(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// `enter` says how the device counts itself in; it makes `accesses` one after the other.
fn one_device(how: Invalidate, cached: bool, place: usize, accesses: usize) {
    explore(3, move || {
        let model = Model::new(cached);
        let device = {
            let model = model.clone();
            thread::spawn(move || {
                for _ in 0..accesses {
                    model.device(model.inflight.enter_at(place));
                }
            })
        };
        model.mapper(how);
        device.join().unwrap();
        model.is_kept();
    });
}

const SHARED: usize = 2;

#[test]
fn removed_translation_is_not_used_after_the_drain() {
    one_device(Invalidate::Remove, true, 0, 2);
}

#[test]
fn translation_looked_up_during_a_removal_is_not_used_after_the_drain() {
    one_device(Invalidate::Remove, false, 0, 2);
}

#[test]
fn translation_below_the_least_age_is_not_used_after_the_drain() {
    one_device(Invalidate::Raise, true, 0, 2);
}

#[test]
fn translation_looked_up_during_a_raise_is_not_used_after_the_drain() {
    one_device(Invalidate::Raise, false, 0, 2);
}

#[test]
fn held_access_is_waited_for_and_wakes_the_drain() {
    one_device(Invalidate::Remove, true, SHARED, 1);
    one_device(Invalidate::Raise, false, SHARED, 1);
}

#[test]
fn two_devices_one_held_one_not() {
    explore(2, || {
        let model = Model::new(false);
        let devices = [0, SHARED].map(|place| {
            let model = model.clone();
            thread::spawn(move || model.device(model.inflight.enter_at(place)))
        });
        model.mapper(Invalidate::Remove);
        for device in devices {
            device.join().unwrap();
        }
        model.is_kept();
    });
}

/// The turn has changed twice before a slow access counts itself in.
#[test]
fn two_drains_one_after_the_other() {
    explore(2, || {
        let model = Model::new(true);
        let device = {
            let model = model.clone();
            thread::spawn(move || model.device(model.inflight.enter_at(0)))
        };
        model.inflight.drain(&model.age);
        model.mapper(Invalidate::Remove);
        device.join().unwrap();
        model.is_kept();
    });
}

/// What is found before the access is counted in, and what is looked up again where that was too late.
fn device_that_looks_up_first(how: Invalidate, cached: bool) {
    explore(2, move || {
        let model = Model::new(cached);
        let device = {
            let model = model.clone();
            thread::spawn(move || {
                if !model.device_in_a_hurry(0) {
                    model.device(model.inflight.enter_at(0));
                }
                model.device_in_a_hurry(0);
            })
        };
        model.mapper_of_a_hurried_device(how);
        device.join().unwrap();
        model.is_kept();
    });
}

#[test]
fn translation_looked_up_before_its_access_is_counted_in_is_not_used_after_the_drain() {
    device_that_looks_up_first(Invalidate::Remove, true);
    device_that_looks_up_first(Invalidate::Raise, true);
    device_that_looks_up_first(Invalidate::Remove, false);
    device_that_looks_up_first(Invalidate::Raise, false);
}

#[test]
fn reader_never_sees_half_of_an_entry() {
    explore(3, || {
        let cache = Arc::new(Cache::<1, 2>::new(0));
        cache.insert([1, 0], Aged { age: 1, data: [1, 1] });
        let writer = {
            let cache = cache.clone();
            thread::spawn(move || {
                cache.insert([2, 0], Aged { age: 2, data: [2, 2] });
                cache.insert([1, 0], Aged { age: 3, data: [3, 3] });
            })
        };
        if let Some(Aged { age, data }) = cache.get([1, 0]) {
            assert!((age == 1 || age == 3) && data == [age, age]);
        }
        writer.join().unwrap();
    });
}
