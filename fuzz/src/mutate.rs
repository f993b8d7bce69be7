//! Random numbers from a seed, and inputs made from other inputs.

/// SplitMix64: small, and good enough to choose.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Longest input: some hundred operations.
pub(crate) const MOST_BYTES: usize = 2048;

/// Numbers at which arithmetic goes wrong.
const INTERESTING: [u64; 14] = [
    0,
    1,
    7,
    0x10,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// The next input: random bytes, or one of the corpus with a few changes.
pub(crate) fn next(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    if corpus.is_empty() || random.below(4) == 0 {
        let len = 1 << random.below(MOST_BYTES.ilog2() as usize + 1);
        let len = 1 + random.below(len);
        return random.bytes(len);
    }
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 << random.below(4) {
        change(random, &mut input, corpus);
    }
    input.truncate(MOST_BYTES);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    match random.below(8) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        3 => {
            let value = INTERESTING[random.below(INTERESTING.len())].to_le_bytes();
            let len = 1 << random.below(4);
            for (byte, new) in input.iter_mut().skip(at).zip(&value[..len]) {
                *byte = *new;
            }
        }
        4 => input.truncate(at),
        5 => {
            let len = 1 + random.below(64);
            let new = random.bytes(len);
            input.splice(at..at, new);
        }
        6 => {
            let end = (at + 1 + random.below(32)).min(input.len());
            input.drain(at..end.max(at));
        }
        _ => {
            // Splice: from here on, the rest of another input or of this one.
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_makes_the_same_inputs_and_none_is_too_long() {
        let corpus = vec![vec![1; 10], vec![2; 5000], Vec::new()];
        let inputs = || {
            let mut random = Random::new(7);
            (0..2000).map(|_| next(&mut random, &corpus)).collect::<Vec<_>>()
        };
        let (first, second) = (inputs(), inputs());
        assert_eq!(first, second);
        assert!(first.iter().all(|input| input.len() <= MOST_BYTES));
    }
}
