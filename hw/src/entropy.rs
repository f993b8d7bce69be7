//! Random numbers that a model hands to the guest: an input of the machine, like time.

use std::sync::Mutex;
use std::sync::PoisonError;

/// Where random numbers come from.
pub trait Entropy: Send + Sync {
    /// 64 bits that nobody can foretell who has not been told, unless the machine is to be repeatable. From any thread.
    fn next(&self) -> u64;
}

/// Numbers that follow from a seed, for tests and for runs that are to be repeatable. They are no secret: anybody can compute those that
/// follow from a few of them.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn next(&self) -> u64 {
        // SplitMix64: a counter whose bits are mixed.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *state;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_numbers_and_another_seed_others() {
        let first = |seed| {
            let entropy = SeededEntropy::new(seed);
            [(); 3].map(|()| entropy.next())
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        assert_eq!(first(0)[0], 0xe220_a839_7b1d_cdaf, "as published for this seed");
    }
}
