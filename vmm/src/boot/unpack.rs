//! Unpacks compressed kernels: the forms that the kernel's own build makes, told apart by their first bytes or by the name
//! in the header of an EFI zboot image.
//!
//! Whoever packs a file chooses what it unpacks to. So nothing but an arm64 `Image` is unpacked further than its first
//! page, an `Image` no further than it fits into the guest's memory, and a decoder's window is bounded as well.
//! Deliberately absent: lzo, which is told by its name only.

use std::io::{self, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::boot::image::{ImageError, has_magic};

#[cfg(test)]
mod tests;

/// What is unpacked to see whether it is a kernel, and enough to say what else it may be.
const FIRST: u64 = 4096;
/// What a decoder of LZMA may use, in KiB: the kernel's build asks for a dictionary of 128 MiB. (zstd's has the same bound.)
const LZMA_LIMIT_KIB: u32 = 136 << 10;

/// A format of compressed kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Xz,
    Lzma,
    Lz4,
    Bzip2,
    Lzo,
}

impl Packing {
    /// By the first bytes of a file. LZMA has no magic: these are the usual properties, and the kernel's own test.
    pub(super) fn of_file(bytes: &[u8]) -> Option<Self> {
        const FIRST_BYTES: [(&[u8], Packing); 8] = [
            (&[0x1f, 0x8b], Packing::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Packing::Zstd),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Packing::Xz),
            (&[0x5d, 0, 0], Packing::Lzma),
            (&[0x02, 0x21, 0x4c, 0x18], Packing::Lz4), // legacy frames, which the kernel's build makes
            (&[0x04, 0x22, 0x4d, 0x18], Packing::Lz4),
            (b"BZh", Packing::Bzip2),
            (&[0x89, b'L', b'Z', b'O', 0], Packing::Lzo),
        ];
        FIRST_BYTES.into_iter().find(|(first, _)| bytes.starts_with(first)).map(|(_, packing)| packing)
    }

    /// By the name in the header of an EFI zboot image; some releases name the recipe and not the format.
    pub(super) fn of_zboot(name: &str) -> Option<Self> {
        Some(match name {
            "gzip" => Self::Gzip,
            "zstd" | "zstd22" => Self::Zstd,
            "xz" | "xzkern" => Self::Xz,
            "lzma" => Self::Lzma,
            "lz4" => Self::Lz4,
            "bzip2" => Self::Bzip2,
            "lzo" => Self::Lzo,
            _ => return None,
        })
    }

    /// Its name in messages.
    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "lzo",
        }
    }

    fn reader(self, packed: &[u8]) -> Result<Box<dyn Read + '_>, ImageError> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::read::GzDecoder::new(packed)),
            Self::Zstd => Box::new(Zstd::new(packed).map_err(|e| self.damaged(&e))?),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, LZMA_LIMIT_KIB)),
            Self::Lzma => {
                let reader = lzma_rust2::LzmaReader::new_mem_limit(packed, LZMA_LIMIT_KIB, None);
                Box::new(reader.map_err(|e| self.damaged(&e))?)
            }
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
            // Parallel compressors write many streams, one after the other.
            Self::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(packed)),
            Self::Lzo => return Err(ImageError::Packed(self.name())),
        })
    }

    fn damaged(self, why: &io::Error) -> ImageError {
        ImageError::Damaged { packing: self.name(), why: why.to_string() }
    }

    /// Unpacks a kernel that may have up to `limit` bytes. Of anything else only the first page.
    pub(super) fn unpack(self, packed: &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut reader = self.reader(packed)?;
        let mut bytes = Vec::new();
        let read = |from: &mut dyn Read, bytes: &mut Vec<u8>| {
            from.read_to_end(bytes).map_err(|e| self.damaged(&e)).map(|_| ())
        };
        read(&mut reader.by_ref().take(FIRST), &mut bytes)?;
        if has_magic(&bytes) {
            // One byte more, to know that there is one.
            let rest = limit.saturating_add(1).saturating_sub(bytes.len() as u64);
            read(&mut reader.take(rest), &mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(ImageError::Huge { limit });
            }
        }
        Ok(bytes)
    }
}

/// A frame of zstd whose checksum is compared, which the decoder leaves to its caller.
struct Zstd<'a>(StreamingDecoder<&'a [u8], FrameDecoder>);

impl<'a> Zstd<'a> {
    fn new(packed: &'a [u8]) -> io::Result<Self> {
        StreamingDecoder::new(packed).map(Self).map_err(io::Error::other)
    }
}

impl Read for Zstd<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        let frame = &self.0.decoder;
        if count == 0
            && !buffer.is_empty()
            && let Some(expected) = frame.get_checksum_from_data()
            && frame.get_calculated_checksum() != Some(expected)
        {
            return Err(io::Error::other("the checksum does not match"));
        }
        Ok(count)
    }
}
