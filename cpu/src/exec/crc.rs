//! CRC-32 and CRC-32C of up to eight bytes: the CRC32 instructions.
//!
//! Arm ARM C6.2 CRC32B. No inversion before or after: programs do that. Slicing by as many tables as there are bytes.

/// Eight tables: `[k][b]` is the effect of byte `b` with `k` bytes after it.
pub(crate) type Tables = [[u32; 256]; 8];

const fn tables(reversed_polynomial: u32) -> Tables {
    let mut out = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut k = 0;
        while k < 8 {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 != 0 { crc >> 1 ^ reversed_polynomial } else { crc >> 1 };
                bit += 1;
            }
            out[k][byte] = crc;
            k += 1;
        }
        byte += 1;
    }
    out
}

/// 0x04C11DB7, reversed.
pub(crate) static IEEE: Tables = tables(0xedb8_8320);
/// 0x1EDC6F41, reversed.
pub(crate) static CASTAGNOLI: Tables = tables(0x82f6_3b78);

/// A chunk of 1, 2, 4 or 8 bytes.
pub(crate) trait Chunk: Copy {
    /// Bytes.
    const BYTES: usize;
    /// The low bytes of a register.
    fn cut(value: u64) -> Self;
    /// Zero-extended.
    fn wide(self) -> u64;
}

macro_rules! chunk {
    ($($t:ty)*) => {$(
        impl Chunk for $t {
            const BYTES: usize = size_of::<$t>();
            #[inline(always)]
            fn cut(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn wide(self) -> u64 {
                self.into()
            }
        }
    )*};
}

chunk!(u8 u16 u32 u64);

/// `crc` after the bytes of `chunk`, lowest first.
#[inline]
pub(crate) fn update<T: Chunk>(tables: &Tables, crc: u32, chunk: T) -> u32 {
    let mixed = chunk.wide() ^ u64::from(crc);
    let bytes = mixed.to_le_bytes();
    let mut out = if T::BYTES < 4 { crc >> (8 * T::BYTES) } else { 0 };
    for k in 0..T::BYTES {
        out ^= tables[T::BYTES - 1 - k][usize::from(bytes[k])];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usual check value is of "123456789", with inversion.
    #[test]
    fn check_values_match_at_every_chunking() {
        for (tables, expected) in [(&IEEE, 0xcbf4_3926u32), (&CASTAGNOLI, 0xe306_9283)] {
            let mut crc = !0;
            crc = update(tables, crc, u64::from_le_bytes(*b"12345678"));
            crc = update(tables, crc, b'9');
            assert_eq!(!crc, expected);
            let mut crc = !0;
            crc = update(tables, crc, u32::from_le_bytes(*b"1234"));
            crc = update(tables, crc, u16::from_le_bytes(*b"56"));
            crc = update(tables, crc, u16::from_le_bytes(*b"78"));
            crc = update(tables, crc, b'9');
            assert_eq!(!crc, expected);
        }
    }
}
