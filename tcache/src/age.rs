//! Ages: an invalidation begins a new one, and what was looked up in an earlier one is not believed any more.

use crate::sync::{AtomicU64, Ordering};

/// The present age. Ages advance with each invalidation and never wrap.
#[derive(Debug, Default)]
pub struct Age(AtomicU64);

impl Age {
    /// The present age: the stamp for what is looked up in memory from now on.
    ///
    /// Sequentially consistent, as [`Inflight`](crate::Inflight) needs.
    #[inline]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// The word that the present age is in, for those who know no caches; to be read like this.
    #[inline]
    #[must_use]
    pub fn word(&self) -> &AtomicU64 {
        &self.0
    }

    /// Begins a new age and returns it.
    pub fn advance(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

/// The age that entries of some kind must at least have.
#[derive(Debug, Default)]
pub struct LeastAge(AtomicU64);

impl LeastAge {
    /// The least age.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Refuses what is older than `age` from now on.
    pub fn raise(&self, age: u64) {
        self.0.fetch_max(age, Ordering::AcqRel);
    }
}

/// Least ages by number. Numbers that fall on the same slot are invalidated together, which is always allowed.
#[derive(Debug)]
pub struct LeastAges(Box<[LeastAge]>);

impl Default for LeastAges {
    fn default() -> Self {
        Self((0..Self::SLOTS).map(|_| LeastAge::default()).collect())
    }
}

impl LeastAges {
    const SLOTS: usize = if cfg!(loom) { 1 } else { 4096 };

    #[inline]
    fn slot(&self, number: u32) -> &LeastAge {
        &self.0[number as usize % Self::SLOTS]
    }

    /// The least age of a number.
    #[inline]
    #[must_use]
    pub fn of(&self, number: u32) -> u64 {
        self.slot(number).get()
    }

    /// Refuses what is older than `age` for a number from now on.
    pub fn raise(&self, number: u32, age: u64) {
        self.slot(number).raise(age);
    }
}
