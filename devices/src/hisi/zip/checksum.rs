//! Formats around raw deflate: checksums and trailers. Headers are software's: the engine neither writes nor reads them.

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Raw deflate (RFC 1951).
    Deflate,
    /// With the Adler-32 trailer of zlib (RFC 1950).
    Zlib,
    /// With the CRC-32 and length of gzip (RFC 1952).
    Gzip,
}

impl Format {
    /// Bytes of the trailer.
    #[must_use]
    pub(super) const fn trailer_bytes(self) -> usize {
        match self {
            Self::Deflate => 0,
            Self::Zlib => 4,
            Self::Gzip => 8,
        }
    }
}

/// Checksum and length of the uncompressed data so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    format: Format,
    sum: u32,
    /// Bytes so far, modulo 2^32.
    pub(super) len: u32,
}

impl Digest {
    /// Of no data.
    #[must_use]
    pub(super) const fn new(format: Format) -> Self {
        let sum = match format {
            Format::Zlib => 1,
            Format::Deflate | Format::Gzip => 0,
        };
        Self { format, sum, len: 0 }
    }

    /// Goes on from the words of an SQE.
    #[must_use]
    pub(super) const fn resume(format: Format, checksum: u32, isize: u32) -> Self {
        let sum = match format {
            Format::Deflate => 0,
            Format::Zlib => checksum,
            Format::Gzip => (!checksum).reverse_bits(),
        };
        Self { format, sum, len: isize }
    }

    /// Adds data.
    pub(super) fn update(&mut self, data: &[u8]) {
        self.sum = match self.format {
            Format::Deflate => 0,
            Format::Zlib => zlib_rs::adler32::adler32(self.sum, data),
            Format::Gzip => zlib_rs::crc32::crc32(self.sum, data),
        };
        self.len = self.len.wrapping_add(data.len() as u32);
    }

    /// The checksum word of the SQE: for gzip the CRC register itself, that is bit-reversed and not inverted.
    #[must_use]
    pub(super) const fn word(&self) -> u32 {
        match self.format {
            Format::Deflate | Format::Zlib => self.sum,
            Format::Gzip => !self.sum.reverse_bits(),
        }
    }

    /// The trailer, in the first [`Format::trailer_bytes`] bytes.
    #[must_use]
    pub(super) fn trailer(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        let (first, second) = bytes.split_at_mut(4);
        match self.format {
            Format::Deflate => {}
            Format::Zlib => first.copy_from_slice(&self.sum.to_be_bytes()),
            Format::Gzip => {
                first.copy_from_slice(&self.sum.to_le_bytes());
                second.copy_from_slice(&self.len.to_le_bytes());
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_word_is_the_crc_register() {
        let mut digest = Digest::new(Format::Gzip);
        digest.update(b"123456789");
        assert_eq!(digest.word(), 0x9b63_d02c);
        assert_eq!(digest.trailer()[..4], 0xcbf4_3926_u32.to_le_bytes());
    }

    #[test]
    fn digest_resumed_from_its_words_is_the_same() {
        for format in [Format::Deflate, Format::Zlib, Format::Gzip] {
            let mut whole = Digest::new(format);
            whole.update(b"123456789");
            let mut part = Digest::new(format);
            part.update(b"1234");
            let mut rest = Digest::resume(format, part.word(), part.len);
            rest.update(b"56789");
            assert_eq!(rest, whole);
        }
    }

    #[test]
    fn adler_trailer_is_big_endian() {
        let mut digest = Digest::new(Format::Zlib);
        digest.update(b"Wikipedia");
        assert_eq!(digest.trailer()[..4], [0x11, 0xe6, 0x03, 0x98]);
    }
}
