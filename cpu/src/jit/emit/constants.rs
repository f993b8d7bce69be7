//! Vectors of constants that emitters take from memory: masks, shuffles, tables. They lie beside the shared code, in reach of
//! all translations.

/// The number of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constant(u16);

impl Constant {
    /// The constant `n` places on, in a family.
    pub(crate) const fn plus(self, n: u8) -> Self {
        Self(self.0 + n as u16)
    }

    /// Where it is, in bytes from the first.
    pub(crate) const fn offset(self) -> u64 {
        16 * self.0 as u64
    }
}

macro_rules! constants {
    ($($(#[$doc:meta])* $name:ident[$count:literal] = |$n:ident| $value:expr;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "counts the constants")]
        #[repr(usize)]
        enum Family { $($name),* }

        /// How many constants each family has.
        const COUNTS: &[usize] = &[$($count),*];

        const fn first(family: Family) -> usize {
            let (family, mut sum, mut n) = (family as usize, 0, 0);
            while n < family {
                sum += COUNTS[n];
                n += 1;
            }
            sum
        }

        $($(#[$doc])* pub(crate) const $name: Constant = Constant(first(Family::$name) as u16);)*

        /// All of them, in the order of their numbers.
        pub(crate) fn all() -> Vec<u128> {
            let mut all = Vec::new();
            $(all.extend((0..$count).map(|$n: u32| -> u128 { let _ = $n; $value }));)*
            all
        }
    };
}

/// The low `8 << log2` bits.
const fn low(log2: u32) -> u128 {
    u128::MAX >> (128 - (8 << log2))
}

/// `value` in each lane of `8 << log2` bits.
const fn each(log2: u32, value: u128) -> u128 {
    u128::MAX / low(log2) * (value & low(log2))
}

/// The bytes `f(0)` to `f(15)`.
fn bytes(f: impl Fn(u32) -> u32) -> u128 {
    (0..16).rev().fold(0, |sum, n| sum << 8 | u128::from(f(n) & 0xff))
}

/// What makes PSHUFB write zero.
const CLEAR: u32 = 0x80;

constants! {
    /// All bits.
    ONES[1] = |_n| u128::MAX;
    /// The lowest lane, by its size.
    FIRST[4] = |n| low(n);
    /// 1 in each lane, by the lanes' size.
    ONE[4] = |n| each(n, 1);
    /// The sign of each lane, by the lanes' size.
    SIGN[4] = |n| each(n, 1 << ((8 << n) - 1));
    /// The lower half of each lane, by the half's size.
    LOWER[3] = |n| each(n + 1, low(n));
    /// Half of what the upper half of each lane counts in, by the half's size.
    HALF[3] = |n| each(n + 1, 1 << ((8 << n) - 1));
    /// The upper half of each lane of 16 bits.
    UPPER_BYTES[1] = |_n| each(1, 0xff00);
    /// What is left of bytes that are shifted right by `n`.
    BYTES_RIGHT[9] = |n| each(0, 0xff >> n);
    /// What is left of bytes that are shifted left by `n`.
    BYTES_LEFT[9] = |n| each(0, 0xff << n);
    /// Where the sign of bytes is that are shifted right by `n`.
    BYTES_SIGN[9] = |n| each(0, 0x80 >> n);
    /// `16 * n` in each byte.
    SIXTEENS[8] = |n| each(0, (16 * n).into());
    /// 15 in each byte.
    NIBBLE[1] = |_n| each(0, 15);
    /// Ones in a number below 16.
    COUNTS_OF_ONES[1] = |_n| bytes(u32::count_ones);
    /// Numbers below 16 with their four bits reversed, in the upper half of a byte.
    REVERSED_HIGH[1] = |_n| bytes(|n| n.reverse_bits() >> 24);
    /// The same in the lower half.
    REVERSED_LOW[1] = |_n| bytes(|n| n.reverse_bits() >> 28);
    /// Shuffle: byte `n` everywhere.
    DUP_BYTE[16] = |n| bytes(|_| n);
    /// Shuffle: the halfword `n` everywhere.
    DUP_HALF[8] = |n| bytes(|byte| 2 * n + byte % 2);
    /// Shuffle: bytes reversed in groups of `2 << n`.
    REVERSE_BYTES[3] = |n| bytes(|byte| byte ^ ((2 << n) - 1));
    /// Shuffle: halfwords reversed in groups of `4 << n` bytes.
    REVERSE_HALVES[2] = |n| bytes(|byte| byte ^ ((4 << n) - 2));
    /// Shuffle: even lanes to the lower half, odd ones to the upper, by the lanes' size.
    UNZIP[3] = |n| bytes(|byte| {
        let (lane, within) = (byte >> n, byte & ((1 << n) - 1));
        let half = 8 >> n;
        let from = if lane < half { 2 * lane } else { 2 * (lane - half) + 1 };
        from << n | within
    });
    /// Shuffle: even lanes to the lower half, the upper cleared, by the lanes' size.
    NARROW[3] = |n| bytes(|byte| if byte < 8 { byte >> n << (n + 1) | byte & ((1 << n) - 1) } else { CLEAR });
    /// The constants of SHA-1's rounds, FIPS 180-4 4.2.1.
    SHA1_K[4] = |n| each(2, [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6][n as usize]);
    /// For the reduction of CRC-32: x^96 / P, and P, with their bits reversed.
    CRC32_REDUCTION[1] = |_n| u128::from(crc32_quotient()) | 0x1_db71_0641 << 64;
}

/// The low 64 bits of x^96 / P for CRC-32's P, in reversed order: the lowest bit belongs to the highest power.
fn crc32_quotient() -> u64 {
    // Long division. The quotient has degree 64; its power 64 - n comes out in step n.
    const P: u64 = 0x04c1_1db7;
    let mut quotient = 1;
    let mut rest = P;
    for n in 1..64 {
        let carry = rest >> 31 & 1;
        rest = rest << 1 & 0xffff_ffff;
        if carry != 0 {
            rest ^= P;
            quotient |= 1 << n;
        }
    }
    quotient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_where_their_names_say() {
        let all = all();
        let at = |constant: Constant| all[constant.offset() as usize / 16];
        assert_eq!(at(FIRST.plus(1)), 0xffff);
        assert_eq!(at(SIGN.plus(3)), 1 << 127 | 1 << 63);
        assert_eq!(at(SIXTEENS.plus(7)), each(0, 0x70));
        assert_eq!(
            at(NARROW.plus(2)),
            u128::from_le_bytes([0, 1, 2, 3, 8, 9, 10, 11, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80])
        );
        assert_eq!(all.len(), COUNTS.iter().sum::<usize>());
    }
}
