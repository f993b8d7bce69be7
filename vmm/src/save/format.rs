//! The frame of a save file: a header, the state, RAM, and a table of what there is of RAM. `docs/save-files.md`
//!
//! Nothing in a file is believed: each length is compared with the file's own before anything is read or allocated by it, and each
//! section with its checksum before it is looked at. The header is written last, so that a file that was not completed is no save file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

/// How a save file begins. The first byte is no text, and the last one is changed by whoever takes it for text.
pub const MAGIC: [u8; 8] = *b"\x89WVSAVE\n";
/// The version of the frame and of the state's own fields.
pub const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER_BYTES: u64 = 64;
/// RAM begins at a multiple of this, so that it can be mapped.
const ALIGN: u64 = 4096;
/// Most bytes of the state. A machine with all its devices at work has some hundred KiB.
pub const MOST_STATE_BYTES: u64 = 64 << 20;

/// How RAM is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RamForm {
    /// In chunks, compressed; those that are zero are absent.
    #[default]
    Compressed,
    /// As it is, with holes where it is zero: it is mapped, and the machine goes on at once.
    Plain,
}

/// A file that cannot be restored. The messages go on from the file's name.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The host's.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Something else.
    #[error("is no save file of warpvmm")]
    NotASave,
    /// Of another version.
    #[error(
        "has version {found} of the format, and this program reads version {VERSION}: restore it with the warpvmm that made it"
    )]
    Version {
        /// In the file.
        found: u32,
    },
    /// Too short or too long.
    #[error(
        "has {found} bytes, and should have {expected}: it is not complete; copy it again, or save the machine anew"
    )]
    Length {
        /// Of the file.
        found: u64,
        /// By its header.
        expected: u64,
    },
    /// A checksum is wrong.
    #[error("is damaged: the checksum of its {0} is wrong; copy it again, or save the machine anew")]
    Checksum(&'static str),
    /// What no warpvmm writes, though the checksums are right.
    #[error("is not usable: {0}; save the machine anew")]
    Form(String),
}

impl FormatError {
    pub(super) fn form(why: impl Into<String>) -> Self {
        Self::Form(why.into())
    }
}

/// Something to read from at any place.
pub trait Source: Sync {
    /// Its length.
    ///
    /// # Errors
    /// The host's.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `out` from `at` on.
    ///
    /// # Errors
    /// The host's, and if there is less.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, at)
    }
}

impl Source for [u8] {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(at).ok();
        let part = start.and_then(|start| self.get(start..start.checked_add(out.len())?));
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The checksum of everything: CRC-32 as gzip has it.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    zlib_rs::crc32::crc32(0, bytes)
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) form: RamForm,
    pub(super) state_bytes: u64,
    pub(super) ram_bytes: u64,
    pub(super) table_bytes: u64,
    pub(super) state_checksum: u32,
    pub(super) table_checksum: u32,
}

/// Where the state begins.
pub(super) const STATE_AT: u64 = HEADER_BYTES;

impl Header {
    /// Where RAM begins.
    pub(super) const fn ram_at(state_bytes: u64) -> u64 {
        (STATE_AT + state_bytes).next_multiple_of(ALIGN)
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let form: u32 = match self.form {
            RamForm::Compressed => 1,
            RamForm::Plain => 2,
        };
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&form.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.state_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.ram_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.table_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.state_checksum.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.table_checksum.to_le_bytes());
        let sum = checksum(&bytes[..60]);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Writes it, which makes the file a save file.
    pub(super) fn write(self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.to_bytes(), 0)
    }

    /// Reads it and compares the lengths with the file's.
    pub(super) fn read<S: Source + ?Sized>(source: &S) -> Result<Self, FormatError> {
        let found = source.bytes()?;
        let mut bytes = [0; HEADER_BYTES as usize];
        // A file that is shorter than a magic number has not that one.
        let part = &mut bytes[..usize::try_from(found.min(HEADER_BYTES)).expect("64 or less")];
        source.read_at(0, part)?;
        if bytes[..8] != MAGIC {
            return Err(FormatError::NotASave);
        }
        if found < HEADER_BYTES {
            return Err(FormatError::Length { found, expected: HEADER_BYTES });
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let version = u32_at(8);
        if version != VERSION {
            return Err(FormatError::Version { found: version });
        }
        if u32_at(60) != checksum(&bytes[..60]) {
            return Err(FormatError::Checksum("header"));
        }
        let form = match u32_at(12) {
            1 => RamForm::Compressed,
            2 => RamForm::Plain,
            other => return Err(FormatError::form(format!("there is no form {other} of RAM"))),
        };
        let header = Self {
            form,
            state_bytes: u64_at(16),
            ram_bytes: u64_at(24),
            table_bytes: u64_at(32),
            state_checksum: u32_at(40),
            table_checksum: u32_at(44),
        };
        if header.state_bytes > MOST_STATE_BYTES {
            let bytes = header.state_bytes;
            return Err(FormatError::form(format!(
                "its state has {bytes} bytes, more than {MOST_STATE_BYTES}"
            )));
        }
        let ram_end = Self::ram_at(header.state_bytes).checked_add(header.ram_bytes);
        let expected = ram_end.and_then(|end| end.checked_add(header.table_bytes));
        let expected = expected.ok_or_else(|| FormatError::form("its lengths are those of no file"))?;
        if found != expected {
            return Err(FormatError::Length { found, expected });
        }
        Ok(header)
    }

    /// The state's bytes.
    pub(super) fn state<S: Source + ?Sized>(&self, source: &S) -> Result<Vec<u8>, FormatError> {
        section(source, STATE_AT, self.state_bytes, self.state_checksum, "state")
    }

    /// The table's.
    pub(super) fn table<S: Source + ?Sized>(&self, source: &S) -> Result<Vec<u8>, FormatError> {
        let at = Self::ram_at(self.state_bytes) + self.ram_bytes;
        section(source, at, self.table_bytes, self.table_checksum, "table of RAM")
    }
}

/// A section, which is in the file.
fn section<S: Source + ?Sized>(
    source: &S,
    at: u64,
    bytes: u64,
    sum: u32,
    what: &'static str,
) -> Result<Vec<u8>, FormatError> {
    let bytes = usize::try_from(bytes).map_err(|_| FormatError::form(format!("its {what} is too long")))?;
    let mut section = vec![0; bytes];
    source.read_at(at, &mut section)?;
    if checksum(&section) != sum {
        return Err(FormatError::Checksum(what));
    }
    Ok(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: Header) -> Vec<u8> {
        let mut bytes = header.to_bytes().to_vec();
        bytes
            .resize((Header::ram_at(header.state_bytes) + header.ram_bytes + header.table_bytes) as usize, 0);
        bytes
    }

    fn some() -> Header {
        let empty = |bytes: usize| checksum(&vec![0; bytes]);
        Header {
            form: RamForm::Compressed,
            state_bytes: 10,
            ram_bytes: 20,
            table_bytes: 12,
            state_checksum: empty(10),
            table_checksum: empty(12),
        }
    }

    fn refusal(bytes: &[u8]) -> String {
        Header::read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn header_is_read_as_it_was_written_and_finds_its_sections() {
        let bytes = file(some());
        let header = Header::read(&bytes[..]).unwrap();
        assert_eq!(header, some());
        assert_eq!(header.state(&bytes[..]).unwrap(), [0; 10]);
        assert_eq!(header.table(&bytes[..]).unwrap(), [0; 12]);
    }

    #[test]
    fn what_is_no_save_file_is_said_to_be_none() {
        for other in [&b""[..], b"\x89WVSAVE", b"\x7fELF", &[0; 8192], b"{\"version\": 1}"] {
            assert_eq!(refusal(other), "is no save file of warpvmm");
        }
        // Sent through something that changes the ends of lines.
        let mut text = file(some());
        text[7] = b'\r';
        assert_eq!(refusal(&text), "is no save file of warpvmm");
    }

    #[test]
    fn every_length_but_the_right_one_is_refused_with_both() {
        let whole = file(some());
        for len in [8, 63, 64, 100, whole.len() - 1] {
            assert!(refusal(&whole[..len]).contains(&format!("has {len} bytes")), "{len}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(refusal(&longer).contains("not complete"));
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_found() {
        let whole = file(some());
        for bit in 0..64 * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = refusal(&flipped);
            let expected = match bit / 8 {
                0..8 => "no save file",
                8..12 => "version",
                _ => "checksum of its header",
            };
            assert!(refused.contains(expected), "bit {bit}: {refused}");
        }
    }

    #[test]
    fn sections_with_a_flipped_bit_are_named() {
        let mut bytes = file(some());
        *bytes.last_mut().unwrap() ^= 1;
        bytes[64] ^= 0x80;
        let header = Header::read(&bytes[..]).unwrap();
        assert!(header.state(&bytes[..]).unwrap_err().to_string().contains("checksum of its state"));
        assert!(header.table(&bytes[..]).unwrap_err().to_string().contains("checksum of its table of RAM"));
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_allocated() {
        for (header, expected) in [
            (Header { state_bytes: u64::MAX, ..some() }, "its state has"),
            (Header { ram_bytes: u64::MAX, ..some() }, "lengths are those of no file"),
            (
                Header { ram_bytes: u64::MAX - 4096, table_bytes: u64::MAX, ..some() },
                "lengths are those of no file",
            ),
            (Header { table_bytes: 1 << 50, ..some() }, "should have"),
            (Header { ram_bytes: 1 << 50, ..some() }, "should have"),
        ] {
            let mut bytes = header.to_bytes().to_vec();
            bytes.resize(8192, 0);
            assert!(refusal(&bytes).contains(expected), "{header:?}: {}", refusal(&bytes));
        }
    }
}
