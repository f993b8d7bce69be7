//! How long commands take, by the size of their input: a histogram for each power of two of bytes, with logarithmic buckets.
//! The memory has a bound, whatever is counted, and so has the error: a bucket is a quarter of its lower end wide.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Classes of size: no byte, 1, 2 to 3, 4 to 7 and so on; the last has all that is larger.
const CLASSES: usize = 33;
/// Buckets of a power of two of nanoseconds, as a power of two.
const LOG2_PARTS: u32 = 2;
/// Buckets for all times that there are.
const BUCKETS: usize = 252;

/// The class of a size.
fn class(bytes: u64) -> usize {
    let bits = u64::BITS - bytes.leading_zeros();
    (bits as usize).min(CLASSES - 1)
}

/// The least size of a class.
const fn least_bytes(class: usize) -> u64 {
    if class == 0 { 0 } else { 1 << (class - 1) }
}

/// The bucket of a time: the exponent and the bits after the leading one.
fn bucket(ns: u64) -> usize {
    match ns.checked_ilog2() {
        Some(exponent) if exponent >= LOG2_PARTS => {
            let parts = ns >> (exponent - LOG2_PARTS);
            // The leading one of `parts` makes room for the times without one.
            (u64::from(exponent - LOG2_PARTS) << LOG2_PARTS) as usize + parts as usize
        }
        _ => ns as usize,
    }
}

/// The least time of a bucket.
const fn least_ns(bucket: usize) -> u64 {
    let parts = 1 << LOG2_PARTS;
    if bucket < parts { bucket as u64 } else { ((parts + bucket % parts) as u64) << (bucket / parts - 1) }
}

/// Times of commands of one class of size.
struct Times {
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
    buckets: [u64; BUCKETS],
}

struct Counted {
    classes: [Option<Box<Times>>; CLASSES],
    unmeasured: u64,
}

impl Default for Counted {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| None), unmeasured: 0 }
    }
}

/// How long the commands of a model have taken, in guest time. Its lock is a leaf.
#[derive(Default)]
pub struct Latencies(Mutex<Counted>);

impl fmt::Debug for Latencies {
    /// Without the counts: they are for the user, no state of the model, and go on over a reset.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latencies")
    }
}

/// Times of a bucket, of which there is at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The shortest that it may have.
    pub from_ns: u64,
    /// The longest.
    pub to_ns: u64,
    /// How many there were.
    pub count: u64,
}

/// The times of commands whose input had so many bytes. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The smallest size that is counted here.
    pub from_bytes: u64,
    /// The largest.
    pub to_bytes: u64,
    /// How many commands there were.
    pub count: u64,
    /// Their times in all.
    pub sum_ns: u128,
    /// The shortest time.
    pub min_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// By time; those without any are left out.
    pub buckets: Vec<Bucket>,
}

impl Histogram {
    /// The mean time.
    #[must_use]
    pub fn mean_ns(&self) -> u64 {
        u64::try_from(self.sum_ns / u128::from(self.count.max(1))).unwrap_or(u64::MAX)
    }

    /// A time that so many of a hundred commands did not exceed: the upper end of its bucket, or the longest time.
    #[must_use]
    pub fn percentile_ns(&self, percent: u64) -> u64 {
        let rank = (u128::from(self.count) * u128::from(percent)).div_ceil(100);
        let mut seen = 0;
        let found = self.buckets.iter().find(|bucket| {
            seen += u128::from(bucket.count);
            seen >= rank
        });
        found.map_or(self.max_ns, |bucket| bucket.to_ns.min(self.max_ns))
    }
}

impl Latencies {
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command with so many bytes of input has taken so long.
    pub fn count(&self, bytes: u64, ns: u64) {
        let mut counted = self.lock();
        let times = counted.classes[class(bytes)].get_or_insert_with(|| {
            Box::new(Times { count: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0, buckets: [0; BUCKETS] })
        });
        times.count += 1;
        times.sum_ns += u128::from(ns);
        times.min_ns = times.min_ns.min(ns);
        times.max_ns = times.max_ns.max(ns);
        times.buckets[bucket(ns)] += 1;
    }

    /// A command has come to its end of which nobody knows when it began.
    pub fn count_unmeasured(&self) {
        self.lock().unmeasured += 1;
    }

    /// Commands that are in no histogram.
    #[must_use]
    pub fn unmeasured(&self) -> u64 {
        self.lock().unmeasured
    }

    /// Those classes of size of which there was a command, by size.
    #[must_use]
    pub fn histograms(&self) -> Vec<Histogram> {
        let counted = self.lock();
        let classes = counted.classes.iter().enumerate();
        classes.filter_map(|(class, times)| Some(histogram(class, times.as_deref()?))).collect()
    }
}

fn histogram(class: usize, times: &Times) -> Histogram {
    let &Times { count, sum_ns, min_ns, max_ns, ref buckets } = times;
    let to_ns = |bucket: usize| if bucket + 1 < BUCKETS { least_ns(bucket + 1) - 1 } else { u64::MAX };
    let buckets = buckets.iter().enumerate().filter(|(_, count)| **count != 0);
    Histogram {
        from_bytes: least_bytes(class),
        to_bytes: if class + 1 < CLASSES { least_bytes(class + 1) - 1 } else { u64::MAX },
        count,
        sum_ns,
        min_ns,
        max_ns,
        buckets: buckets
            .map(|(bucket, count)| Bucket { from_ns: least_ns(bucket), to_ns: to_ns(bucket), count: *count })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_of_its_own_that_is_a_quarter_wide() {
        let powers = (0..64).map(|bit| 1_u64 << bit);
        let around = powers.flat_map(|power| [power - 1, power, power | power >> 1, power | power >> 2]);
        for ns in around.chain(0..5000).chain([u64::MAX]) {
            let latencies = Latencies::default();
            latencies.count(1, ns);
            let all = latencies.histograms();
            let [Bucket { from_ns, to_ns, count: 1 }] = all[0].buckets[..] else { panic!("{ns}") };
            assert!((from_ns..=to_ns).contains(&ns), "{ns} is not in {from_ns} to {to_ns}");
            assert!(to_ns - from_ns <= from_ns / 4, "{from_ns} to {to_ns}");
        }
        assert!((1..BUCKETS).all(|bucket| least_ns(bucket) > least_ns(bucket - 1)));
    }

    #[test]
    fn sizes_are_in_classes_of_powers_of_two_up_to_any_size() {
        let latencies = Latencies::default();
        for bytes in [0, 1, 2, 3, 4096, 8191, 8192, 1 << 31, u64::MAX] {
            latencies.count(bytes, 10);
        }
        let classes: Vec<_> = latencies.histograms();
        let classes: Vec<_> = classes.iter().map(|all| (all.from_bytes, all.to_bytes, all.count)).collect();
        let last = (1 << 31, u64::MAX, 2);
        assert_eq!(classes, [(0, 0, 1), (1, 1, 1), (2, 3, 2), (4096, 8191, 2), (8192, 16383, 1), last]);
    }

    #[test]
    fn percentiles_are_upper_ends_of_buckets_and_no_longer_than_the_longest_time() {
        let latencies = Latencies::default();
        (0..90).for_each(|_| latencies.count(64, 1000));
        (0..10).for_each(|_| latencies.count(64, 1_000_000));
        let all = &latencies.histograms()[0];
        assert_eq!((all.percentile_ns(50), all.percentile_ns(90)), (1023, 1023));
        assert_eq!((all.percentile_ns(91), all.percentile_ns(100)), (1_000_000, 1_000_000));
        assert_eq!((all.min_ns, all.mean_ns(), all.max_ns), (1000, 100_900, 1_000_000));
    }

    #[test]
    fn command_without_a_beginning_is_in_no_histogram() {
        let latencies = Latencies::default();
        latencies.count_unmeasured();
        assert_eq!((latencies.unmeasured(), latencies.histograms().len()), (1, 0));
    }

    #[test]
    fn greatest_times_add_up() {
        let latencies = Latencies::default();
        latencies.count(0, u64::MAX);
        latencies.count(0, u64::MAX);
        assert_eq!(latencies.histograms()[0].mean_ns(), u64::MAX);
    }
}
