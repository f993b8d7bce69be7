use std::io::{BufReader, Write};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

const FORMATS: [Format; 3] = [Format::Gzip, Format::Zlib, Format::Deflate];

fn packed(format: Format, data: &[u8]) -> Vec<u8> {
    let level = Compression::fast();
    match format {
        Format::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Format::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Format::Deflate => {
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn data() -> Vec<u8> {
    (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect()
}

/// Reads a file through buffers of this many bytes on both sides.
fn unpack_by(size: usize, format: Format, file: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut plain = Plain::new(format, BufReader::with_capacity(size, file));
    let (mut all, mut part) = (Vec::new(), vec![0; size]);
    loop {
        match plain.read(&mut part)? {
            0 => return Ok(all),
            count => all.extend(&part[..count]),
        }
    }
}

fn unpack(format: Format, file: &[u8]) -> Result<Vec<u8>, Fault> {
    let result = unpack_by(1 << 16, format, file);
    if file.len() < 10_000 {
        let by_bytes = unpack_by(1, format, file);
        assert_eq!(format!("{result:?}"), format!("{by_bytes:?}"), "the buffers' size does not matter");
    }
    result
}

#[track_caller]
fn assert_corrupt(format: Format, file: &[u8], at: usize, what: &str) {
    match unpack(format, file) {
        Err(Fault::Corrupt { at: found, what: why }) => assert_eq!((found, why), (at as u64, what)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn whole_files_of_every_format_are_read_to_their_end() {
    for format in FORMATS {
        for data in [&data()[..], b"x", b""] {
            assert!(unpack(format, &packed(format, data)).unwrap() == data);
        }
    }
}

/// The same table is read by the unit test of the guest's reader.
#[test]
fn headers_are_read_by_the_rules_that_the_guest_has() {
    let table = include_str!("../../../../guest/programs/tests/headers.def");
    let entries: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("HEADER(")).collect();
    assert!(entries.len() >= 20);
    for entry in entries {
        let fields: Vec<_> = entry.strip_suffix(')').unwrap().splitn(4, ", ").collect();
        let [format, bytes, taken, what] = fields[..] else { panic!("{entry}") };
        let format = match format {
            "gzip" => Format::Gzip,
            "zlib" => Format::Zlib,
            _ => Format::Deflate,
        };
        let digits = bytes.trim_matches('"');
        let file: Vec<u8> = (0..digits.len() / 2)
            .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let mut plain = Plain::new(format, &file[..]);
        let found = match plain.header() {
            Ok(()) => "",
            Err(Fault::Corrupt { what, .. }) => what,
            Err(other) => panic!("{other}"),
        };
        assert_eq!((plain.source.at, found), (taken.parse().unwrap(), what.trim_matches('"')), "{entry}");
    }
}

#[test]
fn gzip_header_with_every_field_and_its_checksum_is_read() {
    let mut header = b"\x1f\x8b\x08\x1f\0\0\0\0\0\x03\x03\0abcname\0comment\0".to_vec();
    let crc = zlib_rs::crc32::crc32(0, &header) as u16;
    header.extend(crc.to_le_bytes());
    let rest = &packed(Format::Gzip, b"data")[10..];
    assert_eq!(unpack(Format::Gzip, &[&header[..], rest].concat()).unwrap(), b"data");
}

#[test]
fn gzip_name_of_any_length_is_skipped() {
    let name = vec![b'n'; 70_000];
    let rest = &packed(Format::Gzip, b"data")[10..];
    let file = [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", &name[..], b"\0", rest].concat();
    assert_eq!(unpack(Format::Gzip, &file).unwrap(), b"data");
}

#[test]
fn gzip_members_follow_one_another_and_zeros_may_follow_the_last() {
    let members =
        [packed(Format::Gzip, b"ab"), packed(Format::Gzip, b""), packed(Format::Gzip, b"c")].concat();
    for zeros in [0, 1, 512, 10_240, 200_000] {
        assert_eq!(unpack(Format::Gzip, &[&members[..], &vec![0; zeros]].concat()).unwrap(), b"abc");
    }
}

#[test]
fn what_else_follows_is_corrupt_where_it_begins() {
    for format in FORMATS {
        let whole = packed(format, b"abc");
        assert_corrupt(format, &[&whole[..], b"xyz"].concat(), whole.len(), TRAILING);
    }
    let gzip = packed(Format::Gzip, b"abc");
    assert_corrupt(Format::Gzip, &[&gzip[..], &[0; 20], &gzip].concat(), gzip.len(), TRAILING);
    for format in [Format::Zlib, Format::Deflate] {
        let whole = packed(format, b"abc");
        assert_corrupt(format, &[&whole[..], &[0]].concat(), whole.len(), TRAILING);
    }
    let cut = [&gzip[..], &[0x1f]].concat();
    assert_corrupt(Format::Gzip, &cut, cut.len(), ENDS_IN_HEADER);
}

#[test]
fn wrong_trailer_is_told_with_its_offset() {
    for (format, trailer) in [(Format::Gzip, 8), (Format::Zlib, 4)] {
        let first = packed(format, &data());
        let mut wrong = first.clone();
        let at = wrong.len() - trailer;
        wrong[at] ^= 1;
        // For gzip, in a second member, so that the offset is the file's.
        let before = if format == Format::Gzip { first } else { Vec::new() };
        let fault = unpack(format, &[&before[..], &wrong].concat()).unwrap_err();
        let place = (before.len() + at) as u64;
        assert!(matches!(fault, Fault::Trailer { trailer, field: Field::Checksum, .. } if trailer == place));
        assert!(
            fault
                .to_string()
                .contains(&format!("corrupt at byte {place}: the trailer there has the checksum ")),
            "{fault}"
        );
    }
    let mut wrong = packed(Format::Gzip, b"abc");
    let at = wrong.len() - 4;
    wrong[at] = 4;
    assert!(matches!(
        unpack(Format::Gzip, &wrong),
        Err(Fault::Trailer { trailer, field: Field::Length, stored: 4, computed: 3 }) if trailer == at as u64 - 4
    ));
}

#[test]
fn file_that_ends_early_is_corrupt_at_its_end_wherever_that_is() {
    for format in FORMATS {
        let whole = packed(format, b"abcabcabc");
        let header = match format {
            Format::Gzip => 10,
            Format::Zlib => 2,
            Format::Deflate => 0,
        };
        for cut in 0..whole.len() {
            let what = if cut < header { ENDS_IN_HEADER } else { ENDS_EARLY };
            assert_corrupt(format, &whole[..cut], cut, what);
        }
    }
}

#[test]
fn damage_is_found_and_what_came_before_it_is_still_given() {
    // A block of the type that does not exist.
    assert!(matches!(unpack(Format::Deflate, &[7; 100]), Err(Fault::Corrupt { what: DAMAGED, .. })));
    let mut file = packed(Format::Gzip, &data());
    let middle = file.len() / 2;
    file[middle..middle + 64].fill(0xff);
    let mut plain = Plain::new(Format::Gzip, &file[..]);
    let mut part = [0; 1000];
    assert_eq!(plain.read(&mut part).unwrap(), 1000);
    assert!(part == data()[..1000]);
    assert!(unpack(Format::Gzip, &file).is_err());
}
