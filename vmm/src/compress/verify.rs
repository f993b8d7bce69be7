//! Checks the accelerator's work with the host's own inflate.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use thiserror::Error;

use crate::cli::Format;
use crate::compress::container::{Fault, Plain};

/// Bytes compared at a time.
const CHUNK: usize = 256 << 10;

/// The two sides do not belong together.
#[derive(Debug, Error)]
pub(crate) enum Mismatch {
    /// The compressed side is not valid.
    #[error("{0}")]
    Refused(Fault),
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
    /// The user wants to leave.
    #[error("interrupted")]
    Interrupted,
    /// A file cannot be read.
    #[error("cannot read back: {0}")]
    Read(io::Error),
}

impl From<Fault> for Mismatch {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Read(error) => Self::Read(error),
            fault => Self::Refused(fault),
        }
    }
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

/// Reads until the buffer is full or the source has ended.
fn fill<E>(out: &mut [u8], mut read: impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
    let mut done = 0;
    while done < out.len() {
        match read(&mut out[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn plain_of(format: Format, (file, len): (&File, u64)) -> Plain<BufReader<Section<'_>>> {
    Plain::new(format, BufReader::with_capacity(CHUNK, Section { file, at: 0, end: len }))
}

/// Whether a compressed file begins as one of its format does.
///
/// # Errors
/// [`Fault`]
pub(crate) fn check_start(format: Format, compressed: (&File, u64)) -> Result<(), Fault> {
    plain_of(format, compressed).check_start()
}

/// Inflates the whole of a compressed file.
///
/// # Errors
/// [`Mismatch`]
pub(crate) fn examine(
    format: Format,
    compressed: (&File, u64),
    mut interrupted: impl FnMut() -> bool,
) -> Result<(), Mismatch> {
    let mut plain = plain_of(format, compressed);
    let mut part = vec![0; CHUNK];
    loop {
        if interrupted() {
            return Err(Mismatch::Interrupted);
        }
        if plain.read(&mut part)? == 0 {
            return Ok(());
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
    compressed: (&File, u64),
    (plain, plain_len): (&File, u64),
    mut interrupted: impl FnMut() -> bool,
) -> Result<(), Mismatch> {
    let mut inflate = plain_of(format, compressed);
    let mut plain = Section { file: plain, at: 0, end: plain_len };
    let mut read_plain = |out: &mut [u8]| loop {
        match plain.read(out) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done.map_err(Mismatch::Read),
        }
    };
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        if interrupted() {
            return Err(Mismatch::Interrupted);
        }
        let inflated = fill(&mut left, |out| inflate.read(out))?;
        let wanted = fill(&mut right, &mut read_plain)?;
        let same = left[..inflated].iter().zip(&right[..wanted]).take_while(|(a, b)| a == b).count();
        if same < inflated.min(wanted) {
            return Err(Mismatch::Differs(at + same as u64));
        }
        if inflated != wanted {
            return Err(Mismatch::Length { inflated: at + inflated as u64, plain: plain_len });
        }
        at += inflated as u64;
        if inflated < CHUNK {
            return Ok(());
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
        assert!(matches!(check(Format::Gzip, cut, &data()), Err(Mismatch::Refused(_))));
        assert!(matches!(check(Format::Gzip, &[], &[]), Err(Mismatch::Refused(_))));
        for format in [Format::Zlib, Format::Deflate] {
            let longer = [packed(format, &data()), vec![0; 3]].concat();
            assert!(matches!(check(format, &longer, &data()), Err(Mismatch::Refused(_))));
        }
    }

    #[test]
    fn padding_and_long_names_that_the_guest_takes_are_right() {
        let gzip = packed(Format::Gzip, &data());
        for zeros in [1, 512, 10_240] {
            check(Format::Gzip, &[&gzip[..], &vec![0; zeros]].concat(), &data()).unwrap();
        }
        let name = [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", &[b'n'; 70_000][..], b"\0", &gzip[10..]].concat();
        check(Format::Gzip, &name, &data()).unwrap();
    }

    #[test]
    fn examination_ends_with_the_fault_or_when_the_user_wants_to_leave() {
        let gzip = packed(Format::Gzip, &data());
        let look = |bytes: &[u8], leave| examine(Format::Gzip, (&file(bytes), bytes.len() as u64), || leave);
        look(&gzip, false).unwrap();
        assert!(matches!(look(&gzip[..gzip.len() / 2], false), Err(Mismatch::Refused(_))));
        assert!(matches!(look(&gzip, true), Err(Mismatch::Interrupted)));
    }
}
