//! Kernel files: what they are, and the raw arm64 `Image` inside.
//!
//! Takes `Image`, the same compressed, and EFI zboot images (`vmlinuz.efi`). Anything else is refused with a line that says
//! what it is.

use thiserror::Error;

use crate::boot::unpack::Packing;

/// Offset and value of the arm64 header's magic.
const MAGIC: (usize, [u8; 4]) = (56, *b"ARM\x64");
const HEADER_BYTES: usize = 64;

/// Why a file is no kernel for this machine.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImageError {
    /// Too short for any kernel.
    #[error("has only {0} bytes: truncated?")]
    Short(usize),
    /// Compressed data end early or are damaged.
    #[error("is compressed with {packing}, but unpacking fails: {why}; truncated?")]
    Damaged {
        /// The format.
        packing: &'static str,
        /// What its decoder says.
        why: String,
    },
    /// Unpacks to more than the machine's memory.
    #[error("unpacks to more than the {limit} bytes of the machine's memory; try a larger --memory")]
    Huge {
        /// What would fit.
        limit: u64,
    },
    /// A format that is known, and not unpacked.
    #[error("is compressed with {0}, which is not unpacked here; take the raw arch/arm64/boot/Image instead")]
    Packed(&'static str),
    /// EFI zboot with a payload in a format that we don't know.
    #[error("is an EFI zboot image compressed with {0:?}; take the raw arch/arm64/boot/Image instead")]
    ZbootCompression(String),
    /// EFI zboot whose payload lies outside the file.
    #[error("is an EFI zboot image, but its payload lies beyond its end: truncated?")]
    ZbootTruncated,
    /// An x86 kernel.
    #[error("is an x86 bzImage; this machine needs an arm64 Image")]
    X86,
    /// An ELF file.
    #[error("is an ELF file (vmlinux?); take arch/arm64/boot/Image instead")]
    Elf,
    /// No arm64 magic.
    #[error("is not an arm64 kernel Image (no magic at offset 56)")]
    Unknown,
    /// A big-endian kernel.
    #[error("is a big-endian kernel; this machine is little-endian")]
    BigEndian,
    /// The PE header promises more bytes than there are.
    #[error("is truncated: its header promises {need} bytes, there are {have}")]
    Truncated {
        /// Bytes that the sections need.
        need: u64,
        /// Bytes in the file.
        have: u64,
    },
}

/// A raw kernel image and what its header says.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// The bytes to load.
    pub bytes: Vec<u8>,
    /// Offset from a 2 MiB boundary to load at.
    pub text_offset: u64,
    /// Bytes from there that must be free, .bss included.
    pub image_size: u64,
    /// Page size: log2, or `None` if the header leaves it open.
    pub page_shift: Option<u32>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Whether this is the start of an arm64 `Image`.
pub(super) fn has_magic(bytes: &[u8]) -> bool {
    bytes.get(MAGIC.0..MAGIC.0 + 4) == Some(&MAGIC.1)
}

/// The payload of an EFI zboot image: offset and size at 8 and 12, compression name at 24.
fn unpack_zboot(bytes: &[u8], limit: u64) -> Result<Vec<u8>, ImageError> {
    let name = bytes.get(24..56).unwrap_or_default();
    let name = String::from_utf8_lossy(name.split(|&b| b == 0).next().unwrap_or_default()).into_owned();
    let payload = u32_at(bytes, 8)
        .zip(u32_at(bytes, 12))
        .and_then(|(offset, size)| bytes.get(offset as usize..(offset as usize).checked_add(size as usize)?))
        .ok_or(ImageError::ZbootTruncated)?;
    Packing::of_zboot(&name).ok_or(ImageError::ZbootCompression(name))?.unpack(payload, limit)
}

/// The end of the last section's data, from the PE header that kernels with an EFI stub carry.
fn pe_file_size(bytes: &[u8]) -> Option<u64> {
    let pe = u32_at(bytes, 60)? as usize;
    if bytes.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let sections = u16::from_le_bytes(bytes.get(pe + 6..pe + 8)?.try_into().ok()?);
    let optional = u16::from_le_bytes(bytes.get(pe + 20..pe + 22)?.try_into().ok()?);
    let table = pe + 24 + usize::from(optional);
    (0..usize::from(sections))
        .map(|i| {
            let raw_size = u32_at(bytes, table + 40 * i + 16)?;
            let raw_offset = u32_at(bytes, table + 40 * i + 20)?;
            Some(u64::from(raw_size) + u64::from(raw_offset))
        })
        .try_fold(0, |end, section| Some(end.max(section?)))
}

impl Image {
    /// Unpacks and checks the contents of a kernel file, for a machine with this much memory.
    ///
    /// # Errors
    /// [`ImageError`], worded to follow the file's name.
    pub fn parse(file: Vec<u8>, ram_bytes: u64) -> Result<Self, ImageError> {
        if file.len() < HEADER_BYTES {
            return Err(ImageError::Short(file.len()));
        }
        let bytes = if file[..2] == *b"MZ" && file[4..8] == *b"zimg" {
            unpack_zboot(&file, ram_bytes)?
        } else if has_magic(&file) {
            file
        } else if let Some(packing) = Packing::of_file(&file) {
            packing.unpack(&file, ram_bytes)?
        } else {
            file
        };
        if bytes.len() < HEADER_BYTES {
            return Err(ImageError::Short(bytes.len()));
        }
        if !has_magic(&bytes) {
            return Err(if bytes.starts_with(b"\x7fELF") {
                ImageError::Elf
            } else if bytes.get(0x202..0x206) == Some(b"HdrS") {
                ImageError::X86
            } else {
                ImageError::Unknown
            });
        }
        let text_offset = u64_at(&bytes, 8).unwrap_or(0);
        let image_size = u64_at(&bytes, 16).unwrap_or(0).max(bytes.len() as u64);
        let flags = u64_at(&bytes, 24).unwrap_or(0);
        if flags & 1 != 0 {
            return Err(ImageError::BigEndian);
        }
        let have = bytes.len() as u64;
        if let Some(need) = pe_file_size(&bytes)
            && need > have
        {
            return Err(ImageError::Truncated { need, have });
        }
        let page_shift = match flags >> 1 & 3 {
            1 => Some(12),
            2 => Some(14),
            3 => Some(16),
            _ => None,
        };
        Ok(Self { bytes, text_offset, image_size, page_shift })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(file: Vec<u8>) -> Result<Image, ImageError> {
        Image::parse(file, 64 << 20)
    }

    fn raw(flags: u64) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[16..24].copy_from_slice(&0x10_0000u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&flags.to_le_bytes());
        bytes[56..60].copy_from_slice(&MAGIC.1);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn raw_image_is_taken_with_size_and_page_size_from_its_header() {
        let image = parse(raw(0b1010)).unwrap();
        assert_eq!((image.text_offset, image.image_size, image.page_shift), (0, 0x10_0000, Some(12)));
        assert_eq!(image.bytes.len(), 4096);
    }

    #[test]
    fn gzip_image_is_unpacked_and_a_truncated_one_is_named() {
        let packed = gzip(&raw(0));
        assert_eq!(parse(packed.clone()).unwrap(), parse(raw(0)).unwrap());
        let noise: Vec<u8> = (0..8192u32).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        let packed = gzip(&[raw(0), noise].concat());
        assert!(matches!(
            parse(packed[..packed.len() / 2].to_vec()),
            Err(ImageError::Damaged { packing: "gzip", .. })
        ));
    }

    #[test]
    fn zboot_image_is_unpacked_if_its_payload_is_gzip_and_inside_the_file() {
        let payload = gzip(&raw(0));
        let mut file = vec![0; 64];
        file[..2].copy_from_slice(b"MZ");
        file[4..8].copy_from_slice(b"zimg");
        file[8..12].copy_from_slice(&64u32.to_le_bytes());
        file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        file[24..28].copy_from_slice(b"gzip");
        file.extend(&payload);
        assert_eq!(parse(file.clone()).unwrap(), parse(raw(0)).unwrap());
        assert_eq!(parse(file[..100].to_vec()), Err(ImageError::ZbootTruncated));
        file[24..28].copy_from_slice(b"zip\0");
        assert_eq!(parse(file), Err(ImageError::ZbootCompression("zip".into())));
    }

    #[test]
    fn other_files_are_refused_by_what_they_are() {
        assert_eq!(parse(vec![0; 10]), Err(ImageError::Short(10)));
        assert_eq!(parse(vec![0; 4096]), Err(ImageError::Unknown));
        assert_eq!(parse(raw(1)), Err(ImageError::BigEndian));
        let mut elf = vec![0; 4096];
        elf[..4].copy_from_slice(b"\x7fELF");
        assert_eq!(parse(elf), Err(ImageError::Elf));
        let mut bzimage = vec![0; 4096];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(parse(bzimage), Err(ImageError::X86));
    }

    #[test]
    fn image_shorter_than_its_pe_sections_is_truncated() {
        let mut bytes = raw(0);
        bytes[60..64].copy_from_slice(&64u32.to_le_bytes());
        bytes[64..68].copy_from_slice(b"PE\0\0");
        bytes[70] = 1; // one section
        let table = 64 + 24;
        bytes[table + 16..table + 20].copy_from_slice(&0x2000u32.to_le_bytes());
        bytes[table + 20..table + 24].copy_from_slice(&0x100u32.to_le_bytes());
        assert_eq!(parse(bytes), Err(ImageError::Truncated { need: 0x2100, have: 4096 }));
    }
}
