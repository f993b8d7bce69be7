//! What stands around deflate data in gzip (RFC 1952) and zlib (RFC 1950) files, read while the data is inflated.
//!
//! This reader is the judge of what is a valid file, whoever asks: before the boot, when the guest says that its input is
//! damaged, and when the accelerator's output is compared. The guest's program reads headers by the same rules
//! (`guest/programs/framing.c`); the table of headers in `guest/programs/tests/headers.def` tests both.
//!
//! Deliberately as in gzip: members may follow one another, and zeros may follow the last one. Nothing may follow a zlib
//! or deflate stream. Fields of a header have any length and are not kept.

use std::io::{self, BufRead};

use flate2::{Decompress, FlushDecompress, Status};
use thiserror::Error;

use crate::cli::Format;

/// What is wrong with a file. Offsets are in the compressed file.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// Something that the format does not have.
    #[error("corrupt at byte {at}: {what}")]
    Corrupt {
        /// The first byte that could not be used; the file's length if it ends too early.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The data are not those that the trailer speaks of.
    #[error("corrupt at byte {trailer}: the trailer there has {}", field.words(*.stored, *.computed))]
    Trailer {
        /// Offset of the trailer.
        trailer: u64,
        /// Its field.
        field: Field,
        /// What the field says.
        stored: u32,
        /// What the data say.
        computed: u32,
    },
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
}

/// A field of a trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// CRC-32 or Adler-32.
    Checksum,
    /// The length modulo 2^32.
    Length,
}

impl Field {
    fn words(self, stored: u32, computed: u32) -> String {
        match self {
            Self::Checksum => format!("the checksum {stored:#010x}, the data before it {computed:#010x}"),
            Self::Length => format!("the length {stored}, the data before it {computed} (modulo 2^32)"),
        }
    }
}

const ENDS_IN_HEADER: &str = "the input ends inside a header";
const ENDS_EARLY: &str = "the input ends too early";
const DAMAGED: &str = "the compressed data is damaged";
const TRAILING: &str = "something else follows the compressed data";

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const METHOD_DEFLATE: u8 = 8;

/// Flags of a gzip header.
mod flag {
    pub(super) const HEADER_CRC: u8 = 1 << 1;
    pub(super) const EXTRA: u8 = 1 << 2;
    pub(super) const NAME: u8 = 1 << 3;
    pub(super) const COMMENT: u8 = 1 << 4;
    pub(super) const RESERVED: u8 = 0xe0;
}

/// A source that knows where it is.
struct Source<R> {
    reader: R,
    at: u64,
}

impl<R: BufRead> Source<R> {
    /// What is ready, empty at the end.
    fn ready(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.reader.fill_buf() {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        // What has just been filled is not read again.
        self.reader.fill_buf()
    }

    fn take(&mut self, count: usize) {
        self.reader.consume(count);
        self.at += count as u64;
    }

    fn next(&mut self) -> io::Result<Option<u8>> {
        let byte = self.ready()?.first().copied();
        if byte.is_some() {
            self.take(1);
        }
        Ok(byte)
    }

    /// The byte that was read last is wrong.
    fn wrong_byte(&self, what: &'static str) -> Fault {
        Fault::Corrupt { at: self.at.saturating_sub(1), what }
    }

    /// The byte that would be next is wrong, or missing.
    fn wrong_here(&self, what: &'static str) -> Fault {
        Fault::Corrupt { at: self.at, what }
    }
}

/// A header being read, with its own checksum so far.
struct Header<'a, R> {
    source: &'a mut Source<R>,
    crc: u32,
}

impl<R: BufRead> Header<'_, R> {
    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.source.next()?.ok_or_else(|| self.source.wrong_here(ENDS_IN_HEADER))?;
        self.crc = zlib_rs::crc32::crc32(self.crc, &[byte]);
        Ok(byte)
    }

    fn word(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    /// Skips a string with the zero at its end.
    fn string(&mut self) -> Result<(), Fault> {
        loop {
            let ready = self.source.ready()?;
            let length = ready.iter().position(|&byte| byte == 0).map_or(ready.len(), |zero| zero + 1);
            if length == 0 {
                return Err(self.source.wrong_here(ENDS_IN_HEADER));
            }
            let is_whole = ready[length - 1] == 0;
            self.crc = zlib_rs::crc32::crc32(self.crc, &ready[..length]);
            self.source.take(length);
            if is_whole {
                return Ok(());
            }
        }
    }

    /// RFC 1952, 2.3.
    fn gzip(&mut self) -> Result<(), Fault> {
        for expected in GZIP_MAGIC {
            if self.byte()? != expected {
                return Err(self.source.wrong_byte("not in gzip format"));
            }
        }
        if self.byte()? != METHOD_DEFLATE {
            return Err(self.source.wrong_byte("gzip with a method other than deflate"));
        }
        let flags = self.byte()?;
        if flags & flag::RESERVED != 0 {
            return Err(self.source.wrong_byte("gzip header with reserved flags"));
        }
        // Time, extra flags, operating system.
        for _ in 0..6 {
            self.byte()?;
        }
        if flags & flag::EXTRA != 0 {
            for _ in 0..self.word()? {
                self.byte()?;
            }
        }
        for field in [flag::NAME, flag::COMMENT] {
            if flags & field != 0 {
                self.string()?;
            }
        }
        if flags & flag::HEADER_CRC != 0 {
            let expected = self.crc as u16;
            if self.word()? != expected {
                return Err(self.source.wrong_byte("gzip header with a wrong checksum"));
            }
        }
        Ok(())
    }

    /// RFC 1950, 2.2.
    fn zlib(&mut self) -> Result<(), Fault> {
        const DICTIONARY: u8 = 1 << 5;
        let (method, flags) = (self.byte()?, self.byte()?);
        let is_checked = u16::from_be_bytes([method, flags]).is_multiple_of(31);
        if method & 15 != METHOD_DEFLATE || method >> 4 > 7 || !is_checked {
            return Err(self.source.wrong_byte("not in zlib format"));
        }
        if flags & DICTIONARY != 0 {
            return Err(self.source.wrong_byte("zlib stream that needs a preset dictionary"));
        }
        Ok(())
    }
}

/// Where in the file the reader is.
enum Place {
    Header,
    Body,
    Trailer,
    /// After a trailer.
    Between,
    End,
}

/// The plain data of a file.
pub(crate) struct Plain<R> {
    format: Format,
    source: Source<R>,
    inflate: Decompress,
    place: Place,
    /// Checksum and length of the member's data so far.
    sum: u32,
    length: u32,
}

impl<R: BufRead> Plain<R> {
    /// Of a file from its start.
    pub(crate) fn new(format: Format, reader: R) -> Self {
        Self {
            format,
            source: Source { reader, at: 0 },
            inflate: Decompress::new(false),
            place: Place::Header,
            sum: 0,
            length: 0,
        }
    }

    /// Reads the first header only.
    ///
    /// # Errors
    /// [`Fault`]
    pub(crate) fn check_start(mut self) -> Result<(), Fault> {
        self.header()
    }

    /// The next plain bytes: how many, 0 at the end of a file that is valid as a whole.
    ///
    /// # Errors
    /// [`Fault`]
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        while !out.is_empty() {
            match self.place {
                Place::Header => self.header()?,
                Place::Body => {
                    let produced = self.body(out)?;
                    if produced > 0 {
                        return Ok(produced);
                    }
                }
                Place::Trailer => self.trailer()?,
                Place::Between => self.between()?,
                Place::End => break,
            }
        }
        Ok(0)
    }

    fn header(&mut self) -> Result<(), Fault> {
        let mut header = Header { source: &mut self.source, crc: 0 };
        match self.format {
            Format::Gzip => header.gzip()?,
            Format::Zlib => header.zlib()?,
            Format::Deflate => {}
        }
        self.inflate.reset(false);
        // Adler-32 begins with 1, CRC-32 with 0.
        (self.sum, self.length) = (u32::from(self.format == Format::Zlib), 0);
        self.place = Place::Body;
        Ok(())
    }

    /// Inflates once. No output is not the end.
    fn body(&mut self, out: &mut [u8]) -> Result<usize, Fault> {
        let ready = self.source.ready()?;
        let is_end = ready.is_empty();
        let before = (self.inflate.total_in(), self.inflate.total_out());
        let result = self.inflate.decompress(ready, out, FlushDecompress::None);
        // Both are at most the lengths of the slices.
        let consumed = (self.inflate.total_in() - before.0) as usize;
        let produced = (self.inflate.total_out() - before.1) as usize;
        self.source.take(consumed);
        self.sum = match self.format {
            Format::Gzip => zlib_rs::crc32::crc32(self.sum, &out[..produced]),
            Format::Zlib => zlib_rs::adler32::adler32(self.sum, &out[..produced]),
            Format::Deflate => 0,
        };
        self.length = self.length.wrapping_add(produced as u32);
        match result {
            Ok(Status::StreamEnd) => self.place = Place::Trailer,
            Ok(_) if consumed == 0 && produced == 0 => {
                return Err(self.source.wrong_here(if is_end { ENDS_EARLY } else { DAMAGED }));
            }
            Ok(_) => {}
            // What came out before it is right, and is compared first.
            Err(_) if produced > 0 => {}
            Err(_) => return Err(self.source.wrong_here(DAMAGED)),
        }
        Ok(produced)
    }

    fn trailer(&mut self) -> Result<(), Fault> {
        let trailer = self.source.at;
        let mut word = || -> Result<[u8; 4], Fault> {
            let mut bytes = [0; 4];
            for byte in &mut bytes {
                *byte = self.source.next()?.ok_or_else(|| self.source.wrong_here(ENDS_EARLY))?;
            }
            Ok(bytes)
        };
        let fields = match self.format {
            Format::Gzip => [
                Some((Field::Checksum, u32::from_le_bytes(word()?), self.sum)),
                Some((Field::Length, u32::from_le_bytes(word()?), self.length)),
            ],
            Format::Zlib => [Some((Field::Checksum, u32::from_be_bytes(word()?), self.sum)), None],
            Format::Deflate => [None, None],
        };
        for (field, stored, computed) in fields.into_iter().flatten() {
            if stored != computed {
                return Err(Fault::Trailer { trailer, field, stored, computed });
            }
        }
        self.place = Place::Between;
        Ok(())
    }

    /// What follows a trailer: nothing; with gzip also another member, or zeros to the end.
    fn between(&mut self) -> Result<(), Fault> {
        let trailing = self.source.wrong_here(TRAILING);
        let is_gzip = self.format == Format::Gzip;
        match self.source.ready()?.first() {
            None => {
                self.place = Place::End;
                return Ok(());
            }
            Some(&first) if is_gzip && first == GZIP_MAGIC[0] => {
                self.place = Place::Header;
                return Ok(());
            }
            Some(_) => {}
        }
        loop {
            let ready = self.source.ready()?;
            let zeros = ready.iter().position(|&byte| byte != 0).unwrap_or(ready.len());
            let is_end = ready.is_empty();
            if is_end {
                self.place = Place::End;
                return Ok(());
            }
            if !is_gzip || zeros < ready.len() {
                return Err(trailing);
            }
            self.source.take(zeros);
        }
    }
}

#[cfg(test)]
mod tests;
