//! Counts over time in a fixed number of buckets: when the time no longer fits, two buckets become one.

use std::sync::{Mutex, PoisonError};

/// Buckets. Even.
const BUCKETS: usize = 240;
/// Nanoseconds of a bucket at first.
const FIRST_WIDTH_NS: u64 = 1_000_000;

/// How often something has happened, by guest time. Its lock is a leaf.
#[derive(Debug)]
pub struct TimeSeries(Mutex<Counts>);

/// What a [`TimeSeries`] has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Nanoseconds of a bucket.
    pub bucket_ns: u64,
    /// By time, from 0 on; up to the last bucket in which there is anything.
    pub counts: Vec<u64>,
}

impl Default for TimeSeries {
    fn default() -> Self {
        Self(Mutex::new(Counts { bucket_ns: FIRST_WIDTH_NS, counts: Vec::new() }))
    }
}

impl TimeSeries {
    /// It has happened at this time.
    pub fn count(&self, at_ns: u64) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while at_ns / series.bucket_ns >= BUCKETS as u64 {
            // No more than some forty times.
            series.counts = series.counts.chunks(2).map(|pair| pair.iter().sum()).collect();
            series.bucket_ns *= 2;
        }
        let bucket = (at_ns / series.bucket_ns) as usize;
        if series.counts.len() <= bucket {
            series.counts.resize(bucket + 1, 0);
        }
        series.counts[bucket] += 1;
    }

    /// What has been counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_fits_and_no_count_is_lost() {
        let series = TimeSeries::default();
        let times = [0, 1, FIRST_WIDTH_NS, 239 * FIRST_WIDTH_NS, 500 * FIRST_WIDTH_NS, 1 << 50, u64::MAX, 3];
        for (before, at) in times.into_iter().enumerate() {
            series.count(at);
            let Counts { bucket_ns, counts } = series.counts();
            assert!(counts.len() <= BUCKETS && counts[(at / bucket_ns) as usize] > 0);
            assert_eq!(counts.iter().sum::<u64>(), before as u64 + 1);
        }
    }

    #[test]
    fn two_buckets_become_one_when_the_time_no_longer_fits() {
        let series = TimeSeries::default();
        [0, 1, 2, 3, 240].into_iter().for_each(|bucket| series.count(bucket * FIRST_WIDTH_NS));
        let Counts { bucket_ns, counts } = series.counts();
        assert_eq!(bucket_ns, 2 * FIRST_WIDTH_NS);
        assert_eq!((counts[0], counts[1], counts[120]), (2, 2, 1));
    }
}
