//! Which files are certainly no raw disk images: the formats of other programs, by what is at a fixed place in them.
//!
//! The formats are not read, only known by name. A guest sees the bytes of the file; of such a file it would see the
//! format's own tables, and the first write would destroy it. Their specifications are those of QEMU (`docs/interop`), of
//! VMware, Microsoft and `VirtualBox`, and for the compressed ones of their programs.

use std::fs::File;
use std::io;

use crate::host::disk::{SECTOR, read_padded};

/// A format that is not raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A disk image of this kind, by the name that `qemu-img` gives it.
    Image(&'static str),
    /// Encrypted; a raw disk that a guest has encrypted as a whole looks the same.
    Luks,
    /// Compressed, with the command that unpacks it.
    Compressed(&'static str),
}

/// Where a format has what.
struct Magic {
    at: Place,
    bytes: &'static [u8],
    format: Format,
}

enum Place {
    /// From the beginning.
    Start(u64),
    /// In the last 512 bytes, where a trailer is.
    LastSector,
}

const fn start(at: u64, bytes: &'static [u8], format: Format) -> Magic {
    Magic { at: Place::Start(at), bytes, format }
}

const fn last(bytes: &'static [u8], format: Format) -> Magic {
    Magic { at: Place::LastSector, bytes, format }
}

const MAGICS: [Magic; 20] = [
    // The first version of qcow too.
    start(0, b"QFI\xfb", Format::Image("qcow2")),
    start(0, b"QED\0", Format::Image("qed")),
    start(0x40, b"\x7f\x10\xda\xbe", Format::Image("vdi")),
    start(0, b"KDMV", Format::Image("vmdk")),
    start(0, b"COWD", Format::Image("vmdk")),
    // SESparse: 0xcafebabe as a 64-bit number.
    start(0, b"\xbe\xba\xfe\xca\0\0\0\0", Format::Image("vmdk")),
    start(0, b"# Disk DescriptorFile", Format::Image("vmdk")),
    start(0, b"vhdxfile", Format::Image("vhdx")),
    // A dynamic one has a copy of its trailer at the start, a fixed one has the trailer alone.
    start(0, b"conectix", Format::Image("vpc (vhd)")),
    last(b"conectix", Format::Image("vpc (vhd)")),
    start(0, b"WithoutFreeSpace", Format::Image("parallels")),
    start(0, b"WithouFreSpacExt", Format::Image("parallels")),
    last(b"koly", Format::Image("dmg")),
    start(0, b"LUKS\xba\xbe", Format::Luks),
    // With the method, which is always deflate.
    start(0, b"\x1f\x8b\x08", Format::Compressed("gzip -d")),
    start(0, b"\xfd7zXZ\0", Format::Compressed("xz -d")),
    start(0, b"\x28\xb5\x2f\xfd", Format::Compressed("zstd -d")),
    start(0, b"\x04\x22\x4d\x18", Format::Compressed("lz4 -d")),
    // The block size is a digit between the two parts, of which this is the second: the number pi.
    start(4, b"1AY&SY", Format::Compressed("bzip2 -d")),
    start(0, b"PK\x03\x04", Format::Compressed("unzip")),
];

/// Bytes of the beginning that are looked at.
const HEAD: usize = 512;

/// The format of a file of this length, if it is known not to be raw.
///
/// # Errors
/// The host's.
pub fn recognise(file: &File, len: u64) -> io::Result<Option<Format>> {
    let (mut head, mut tail) = ([0; HEAD], [0; SECTOR as usize]);
    read_padded(file, 0, &mut head)?;
    read_padded(file, len.saturating_sub(SECTOR), &mut tail)?;
    let found = MAGICS.iter().find(|magic| {
        let (from, at) = match magic.at {
            Place::Start(at) => (&head, at as usize),
            Place::LastSector => (&tail, 0),
        };
        from[at..].starts_with(magic.bytes)
    });
    Ok(found.map(|magic| magic.format))
}
