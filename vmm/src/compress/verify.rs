//! Checks the accelerator's output with the host's own inflate.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use thiserror::Error;

use crate::cli::Format;

/// Bytes compared at a time.
const CHUNK: usize = 256 << 10;

/// The two sides do not belong together.
#[derive(Debug, Error)]
pub(crate) enum Mismatch {
    /// Inflate refuses the compressed side.
    #[error("the host's inflate refuses the compressed data after {at} plain bytes: {source}")]
    Inflate {
        /// Plain bytes that were right.
        at: u64,
        /// What inflate says.
        source: io::Error,
    },
    /// Plain bytes differ.
    #[error("plain data differ at byte {0}")]
    Differs(u64),
    /// One side is longer.
    #[error("lengths differ: inflate gives {inflated} bytes, the plain side has {plain}")]
    Length {
        /// Bytes out of inflate.
        inflated: u64,
        /// Bytes of the plain side.
        plain: u64,
    },
    /// Bytes follow the compressed data.
    #[error("{0} bytes follow the end of the compressed data")]
    Trailing(u64),
    /// The user wants to leave.
    #[error("interrupted")]
    Interrupted,
    /// A file cannot be read.
    #[error("cannot read back: {0}")]
    Read(io::Error),
}

/// The first `len` bytes of a file, without moving its cursor.
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(out.len());
        let got = self.file.read_at(&mut out[..want], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

fn fill(reader: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match reader.read(&mut out[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The host's inflate over a source, by format.
enum Inflate<R> {
    Gzip(MultiGzDecoder<R>),
    Zlib(ZlibDecoder<R>),
    Deflate(DeflateDecoder<R>),
}

impl<R> Inflate<R> {
    /// Compressed bytes that belong to what has been inflated; `None` for gzip, where what follows a member is the
    /// next one or an error.
    fn taken(&self) -> Option<u64> {
        match self {
            Self::Gzip(_) => None,
            Self::Zlib(decoder) => Some(decoder.total_in()),
            Self::Deflate(decoder) => Some(decoder.total_in()),
        }
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zlib(decoder) => decoder.read(out),
            Self::Deflate(decoder) => decoder.read(out),
        }
    }
}

/// Inflates the first `compressed_len` bytes of `compressed` and compares with the first `plain_len` of `plain`.
/// `interrupted` is asked now and then.
///
/// # Errors
/// [`Mismatch`]
pub(crate) fn verify(
    format: Format,
    (compressed, compressed_len): (&File, u64),
    (plain, plain_len): (&File, u64),
    mut interrupted: impl FnMut() -> bool,
) -> Result<(), Mismatch> {
    let source = BufReader::with_capacity(CHUNK, Section { file: compressed, at: 0, end: compressed_len });
    let mut plain = Section { file: plain, at: 0, end: plain_len };
    let mut inflate = match format {
        // A reader of members takes no member at all for an empty file; gzip does not.
        Format::Gzip if compressed_len == 0 => {
            return Err(Mismatch::Inflate { at: 0, source: io::ErrorKind::UnexpectedEof.into() });
        }
        Format::Gzip => Inflate::Gzip(MultiGzDecoder::new(source)),
        Format::Zlib => Inflate::Zlib(ZlibDecoder::new(source)),
        Format::Deflate => Inflate::Deflate(DeflateDecoder::new(source)),
    };
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        if interrupted() {
            return Err(Mismatch::Interrupted);
        }
        let inflated = fill(&mut inflate, &mut left).map_err(|source| Mismatch::Inflate { at, source })?;
        let wanted = fill(&mut plain, &mut right).map_err(Mismatch::Read)?;
        let same = left[..inflated].iter().zip(&right[..wanted]).take_while(|(a, b)| a == b).count();
        if same < inflated.min(wanted) {
            return Err(Mismatch::Differs(at + same as u64));
        }
        if inflated != wanted {
            return Err(Mismatch::Length { inflated: at + inflated as u64, plain: plain_len });
        }
        at += inflated as u64;
        if inflated < CHUNK {
            return match compressed_len - inflate.taken().unwrap_or(compressed_len) {
                0 => Ok(()),
                left => Err(Mismatch::Trailing(left)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn data() -> Vec<u8> {
        (0..1_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect()
    }

    fn packed(format: Format, data: &[u8]) -> Vec<u8> {
        match format {
            Format::Gzip => {
                let mut e = GzEncoder::new(Vec::new(), Compression::fast());
                e.write_all(data).unwrap();
                e.finish().unwrap()
            }
            Format::Zlib => {
                let mut e = ZlibEncoder::new(Vec::new(), Compression::fast());
                e.write_all(data).unwrap();
                e.finish().unwrap()
            }
            Format::Deflate => {
                let mut e = DeflateEncoder::new(Vec::new(), Compression::fast());
                e.write_all(data).unwrap();
                e.finish().unwrap()
            }
        }
    }

    fn check(format: Format, compressed: &[u8], plain: &[u8]) -> Result<(), Mismatch> {
        let (c, p) = (file(compressed), file(plain));
        verify(format, (&c, compressed.len() as u64), (&p, plain.len() as u64), || false)
    }

    #[test]
    fn right_output_passes_in_every_format_and_gzip_members_may_follow_one_another() {
        for format in [Format::Gzip, Format::Zlib, Format::Deflate] {
            check(format, &packed(format, &data()), &data()).unwrap();
            check(format, &packed(format, &[]), &[]).unwrap();
        }
        let members = [packed(Format::Gzip, b"ab"), packed(Format::Gzip, b"c")].concat();
        check(Format::Gzip, &members, b"abc").unwrap();
    }

    #[test]
    fn each_kind_of_mismatch_is_told_with_its_place() {
        let mut wrong = data();
        wrong[700_000] ^= 1;
        let gzip = packed(Format::Gzip, &data());
        assert!(matches!(check(Format::Gzip, &gzip, &wrong), Err(Mismatch::Differs(700_000))));
        assert!(matches!(
            check(Format::Gzip, &gzip, &data()[1..]),
            Err(Mismatch::Differs(_) | Mismatch::Length { .. })
        ));
        assert!(matches!(check(Format::Gzip, &gzip, &data()[..999]), Err(Mismatch::Length { .. })));
        let cut = &gzip[..gzip.len() - 4];
        assert!(matches!(check(Format::Gzip, cut, &data()), Err(Mismatch::Inflate { .. })));
        assert!(matches!(check(Format::Gzip, &[], &[]), Err(Mismatch::Inflate { .. })));
        for format in [Format::Zlib, Format::Deflate] {
            let mut longer = packed(format, &data());
            longer.extend(b"xyz");
            assert!(matches!(check(format, &longer, &data()), Err(Mismatch::Trailing(3))));
        }
        for format in [Format::Zlib, Format::Deflate] {
            let longer = [packed(format, &data()), vec![0; 3]].concat();
            assert!(matches!(check(format, &longer, &data()), Err(Mismatch::Trailing(3))));
        }
    }
}
