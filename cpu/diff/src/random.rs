//! Seeded randomness, with the values that arithmetic gets wrong more often than its share.

/// xorshift64*: fast, and the same on every host.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }

    /// A general register's value.
    pub(crate) fn integer(&mut self) -> u64 {
        match self.next() >> 60 {
            0 | 1 => 0,
            2 | 3 => u64::MAX,
            4 => 1 << 63,
            5 => 1 << 31,
            6 | 7 => self.next() >> 32,
            8 | 9 => self.next() >> 58,
            10 => i64::from(self.next() as i32) as u64,
            _ => self.next(),
        }
    }

    fn single(&mut self) -> u32 {
        let sign = (self.next() as u32) & 0x8000_0000;
        sign | match self.next() >> 60 {
            0 => 0,
            1 => 0x7f80_0000,
            2 => 0x7fc0_0000 | (self.next() as u32 & 0x3f_ffff),
            3 => 0x7f80_0001 | (self.next() as u32 & 0x3f_fffe),
            4 => (self.next() as u32) & 0x7f_ffff,
            5 => 0x0080_0000,
            6 => 0x3f80_0000 + ((self.next() as u32 % 32) << 23),
            7 => 0x7f7f_ffff,
            8..=11 => 0x3f00_0000 + (self.next() as u32 & 0x01ff_ffff),
            _ => self.next() as u32 & 0x7fff_ffff,
        }
    }

    fn double(&mut self) -> u64 {
        let sign = self.next() & (1 << 63);
        sign | match self.next() >> 60 {
            0 => 0,
            1 => 0x7ff0 << 48,
            2 => 0x7ff8 << 48 | self.next() & 0x7_ffff_ffff_ffff,
            3 => 0x7ff0 << 48 | 1 | self.next() & 0x7_ffff_ffff_fffe,
            4 => self.next() & 0xf_ffff_ffff_ffff,
            5 => 0x0010 << 48,
            6 => (0x3ff0 << 48) + ((self.next() % 64) << 52),
            7 => 0x7fef_ffff_ffff_ffff,
            // Numbers that a single-precision result rounds, overflows or underflows.
            8 | 9 => ((0x3690 << 48) + ((self.next() % 0x120) << 52)) | (self.next() & 0xf_ffff_ffff_ffff),
            10 | 11 => (0x3fe0 << 48) + (self.next() & 0x3f_ffff_ffff_ffff),
            _ => self.next() & !(1 << 63),
        }
    }

    /// A vector register's value: lanes of one kind, sometimes mixed.
    pub(crate) fn vector(&mut self) -> u128 {
        let join = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        match self.next() >> 61 {
            0 | 1 => join(self.double(), self.double()),
            2 | 3 => {
                let mut pair = || u64::from(self.single()) << 32 | u64::from(self.single());
                join(pair(), pair())
            }
            4 => join(self.integer(), self.integer()),
            5 => {
                // Bytes and halfwords at their limits, for saturation.
                const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0x81, 0xff, 0xfe, 0x40];
                let mut byte = || u128::from(EDGES[self.below(8)]);
                (0..16).fold(0, |v, _| v << 8 | byte())
            }
            _ => join(self.next(), self.next()),
        }
    }

    /// FPCR: rounding mode, FZ, DN and AHP; usually the default.
    pub(crate) fn fpcr(&mut self) -> u64 {
        if self.next() >> 63 == 0 { 0 } else { (self.next() & 0x1f) << 22 }
    }
}
