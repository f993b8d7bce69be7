//! A set-associative cache that is read without a lock.
//!
//! Each set is a sequence lock over plain atomics: a reader copies an entry out and takes it only if no writer was
//! there meanwhile. Entries carry the *age* at which the look-up that made them began. A removal leaves its age in the
//! set, and refuses what is inserted late by a look-up that began before it.

use std::array;
use std::sync::PoisonError;

use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, fence};

/// What an entry is found by. Both zero means no entry.
pub type Key = [u64; 2];

const NO_KEY: Key = [0; 2];

#[derive(Debug)]
struct Way<const WORDS: usize> {
    key: [AtomicU64; 2],
    age: AtomicU64,
    data: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Way<WORDS> {
    fn new() -> Self {
        Self {
            key: [AtomicU64::new(0), AtomicU64::new(0)],
            age: AtomicU64::new(0),
            data: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn has(&self, key: Key) -> bool {
        self.key[0].load(Ordering::Relaxed) == key[0] && self.key[1].load(Ordering::Relaxed) == key[1]
    }
}

#[derive(Debug)]
#[repr(align(64))]
struct Set<const WAYS: usize, const WORDS: usize> {
    /// Odd while a writer is at it.
    sequence: AtomicU64,
    ways: [Way<WORDS>; WAYS],
    /// Held by writers. The age of the last removal from this set: what began before it isn't inserted any more.
    removed: Mutex<u64>,
}

/// A value and the age at which its making began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged<const WORDS: usize> {
    /// The age.
    pub age: u64,
    /// The value.
    pub data: [u64; WORDS],
}

/// The cache: `WORDS` words for each key.
#[derive(Debug)]
pub struct Cache<const WAYS: usize, const WORDS: usize> {
    sets: Box<[Set<WAYS, WORDS>]>,
    next_victim: AtomicUsize,
}

impl<const WAYS: usize, const WORDS: usize> Cache<WAYS, WORDS> {
    /// A cache of `1 << log2_sets` sets.
    #[must_use]
    pub fn new(log2_sets: u32) -> Self {
        let set = || Set {
            sequence: AtomicU64::new(0),
            ways: array::from_fn(|_| Way::new()),
            removed: Mutex::new(0),
        };
        Self { sets: (0..1 << log2_sets).map(|_| set()).collect(), next_victim: AtomicUsize::new(0) }
    }

    #[inline]
    fn set(&self, key: Key) -> &Set<WAYS, WORDS> {
        // A multiplication by an odd constant brings each bit of the key up; the top bits depend on all of them.
        let mixed = (key[0] ^ key[1].rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.sets[(mixed >> 40) as usize & (self.sets.len() - 1)]
    }

    /// The entry of a key.
    #[inline]
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Aged<WORDS>> {
        let set = self.set(key);
        let before = set.sequence.load(Ordering::Acquire);
        if before & 1 != 0 {
            return None; // a writer is at it; a miss is always a right answer
        }
        let way = set.ways.iter().find(|way| way.has(key))?;
        let age = way.age.load(Ordering::Relaxed);
        let data = array::from_fn(|i| way.data[i].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (set.sequence.load(Ordering::Relaxed) == before).then_some(Aged { age, data })
    }

    /// Puts an entry in, unless something was removed from its set since its age.
    pub fn insert(&self, key: Key, entry: Aged<WORDS>) {
        debug_assert_ne!(key, NO_KEY);
        let set = self.set(key);
        let removed = set.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if *removed > entry.age {
            return;
        }
        let same = || set.ways.iter().position(|way| way.has(key));
        let free = || set.ways.iter().position(|way| way.has(NO_KEY));
        let victim = || self.next_victim.fetch_add(1, Ordering::Relaxed) % WAYS;
        let index = same().or_else(free).unwrap_or_else(victim);
        set.write(index, key, entry);
    }

    /// Takes an entry out; `now` is the age that the invalidation began.
    pub fn remove(&self, key: Key, now: u64) {
        let set = self.set(key);
        let mut removed = set.removed.lock().unwrap_or_else(PoisonError::into_inner);
        *removed = (*removed).max(now);
        if let Some(index) = set.ways.iter().position(|way| way.has(key)) {
            set.write(index, NO_KEY, Aged { age: 0, data: [0; WORDS] });
        }
    }
}

impl<const WAYS: usize, const WORDS: usize> Set<WAYS, WORDS> {
    /// With `removed` held.
    fn write(&self, index: usize, key: Key, entry: Aged<WORDS>) {
        let way = &self.ways[index];
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        way.key[0].store(key[0], Ordering::Relaxed);
        way.key[1].store(key[1], Ordering::Relaxed);
        way.age.store(entry.age, Ordering::Relaxed);
        for (word, value) in way.data.iter().zip(entry.data) {
            word.store(value, Ordering::Relaxed);
        }
        self.sequence.store((sequence | 1) + 1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn aged(age: u64, word: u64) -> Aged<2> {
        Aged { age, data: [word, !word] }
    }

    #[test]
    fn entry_is_found_until_removed() {
        let cache = Cache::<2, 2>::new(4);
        cache.insert([1, 2], aged(0, 5));
        assert_eq!(cache.get([1, 2]), Some(aged(0, 5)));
        assert_eq!(cache.get([1, 3]), None);
        cache.remove([1, 2], 1);
        assert_eq!(cache.get([1, 2]), None);
    }

    #[test]
    fn entry_that_began_before_a_removal_is_not_inserted_after_it() {
        let cache = Cache::<2, 2>::new(4);
        cache.remove([1, 2], 7);
        cache.insert([1, 2], aged(6, 5));
        assert_eq!(cache.get([1, 2]), None);
        cache.insert([1, 2], aged(7, 5));
        assert_eq!(cache.get([1, 2]), Some(aged(7, 5)));
    }

    #[test]
    fn cache_stays_within_its_size() {
        let cache = Cache::<2, 2>::new(2);
        for key in 1..1000 {
            cache.insert([key, 0], aged(0, key));
            assert_eq!(cache.get([key, 0]), Some(aged(0, key)));
        }
        assert!((1..1000).filter(|&key| cache.get([key, 0]).is_some()).count() <= 8);
    }

    #[test]
    fn readers_never_see_half_of_an_entry() {
        let cache = Cache::<1, 2>::new(0);
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..50_000u64 {
                    let key = 1 + round % 2;
                    cache.insert([key, 0], aged(round, round));
                }
                done.store(1, Ordering::Relaxed);
            });
            while done.load(Ordering::Relaxed) == 0 {
                for key in [1, 2] {
                    if let Some(Aged { age, data }) = cache.get([key, 0]) {
                        assert_eq!((data, age % 2), ([age, !age], key - 1));
                    }
                }
            }
        });
    }
}
