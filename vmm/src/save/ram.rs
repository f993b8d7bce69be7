//! RAM in a save file, in either form.
//!
//! Compressed: chunks of 64 KiB, each compressed by LZ4 or kept as it is, one after the other; those that are zero are absent. The
//! table has the number, the length and the checksum of each. Plain: RAM as it is, with holes for what is zero; no table.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;

use hw::{Pa, Ram};

use super::format::{FormatError, Header, RamForm, Source, checksum};

/// Bytes of a chunk. The last one of RAM may have less.
const CHUNK: usize = 64 << 10;
/// Bytes that are zero together, in the plain form: the host's pages.
const PAGE: usize = 4096;
/// Bytes that are written at once.
const PIECE: usize = 1 << 20;
/// Bytes of an entry of the table: number, length, checksum.
const ENTRY: usize = 12;

/// What has been written of RAM.
pub(super) struct Written {
    /// Bytes in the file.
    pub(super) bytes: u64,
    pub(super) table: Vec<u8>,
}

/// A stretch of RAM: where it is and how long. RAM is one stretch.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Its first address.
    pub base: u64,
    /// Its length.
    pub bytes: u64,
}

impl Stretch {
    fn chunks(self) -> u64 {
        self.bytes.div_ceil(CHUNK as u64)
    }

    /// Where a chunk is, and its length.
    fn chunk(self, number: u64) -> (Pa, usize) {
        let offset = number * CHUNK as u64;
        let len = usize::try_from(self.bytes - offset).map_or(CHUNK, |left| left.min(CHUNK));
        (Pa(self.base + offset), len)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // All of a line at once, so that the compiler takes wide registers.
    let (lines, rest) = bytes.as_chunks::<64>();
    lines.iter().all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

/// Writes RAM from `at` of the file on. Nobody writes to it meanwhile.
pub(super) fn write(ram: &Ram, stretch: Stretch, form: RamForm, file: &File, at: u64) -> io::Result<Written> {
    match form {
        RamForm::Compressed => write_compressed(ram, stretch, file, at),
        RamForm::Plain => write_plain(ram, stretch, file, at),
    }
}

fn write_compressed(ram: &Ram, stretch: Stretch, file: &File, at: u64) -> io::Result<Written> {
    let mut written = Written { bytes: 0, table: Vec::new() };
    let mut chunk = vec![0; CHUNK];
    let mut piece = Vec::with_capacity(2 * PIECE);
    let mut room = vec![0; lz4_flex::block::get_maximum_output_size(CHUNK)];
    let flush = |piece: &mut Vec<u8>, written: &mut Written| -> io::Result<()> {
        file.write_all_at(piece, at + written.bytes)?;
        written.bytes += piece.len() as u64;
        piece.clear();
        Ok(())
    };
    for number in 0..stretch.chunks() {
        let (from, len) = stretch.chunk(number);
        let chunk = &mut chunk[..len];
        ram.read(from, chunk).map_err(io::Error::other)?;
        if is_zero(chunk) {
            continue;
        }
        let compressed = lz4_flex::block::compress_into(chunk, &mut room).map_err(io::Error::other)?;
        let kept = if compressed < len { &room[..compressed] } else { &*chunk };
        // Below MAX_RAM / CHUNK, and not above CHUNK.
        written.table.extend((number as u32).to_le_bytes());
        written.table.extend((kept.len() as u32).to_le_bytes());
        written.table.extend(checksum(kept).to_le_bytes());
        piece.extend_from_slice(kept);
        if piece.len() >= PIECE {
            flush(&mut piece, &mut written)?;
        }
    }
    flush(&mut piece, &mut written)?;
    Ok(written)
}

fn write_plain(ram: &Ram, stretch: Stretch, file: &File, at: u64) -> io::Result<Written> {
    // Everything is a hole at first.
    file.set_len(at + stretch.bytes)?;
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    while done < stretch.bytes {
        let len = usize::try_from(stretch.bytes - done).map_or(PIECE, |left| left.min(PIECE));
        let piece = &mut piece[..len];
        ram.read(Pa(stretch.base + done), piece).map_err(io::Error::other)?;
        let mut page = 0;
        while page < len {
            let zero = piece[page..].chunks(PAGE).take_while(|page| is_zero(page)).count() * PAGE;
            page += zero;
            let rest = piece.get(page..).unwrap_or_default();
            let run = rest.chunks(PAGE).take_while(|page| !is_zero(page)).map(<[u8]>::len).sum::<usize>();
            file.write_all_at(&rest[..run], at + done + page as u64)?;
            page += run;
        }
        done += len as u64;
    }
    Ok(Written { bytes: stretch.bytes, table: Vec::new() })
}

/// A chunk that the file has.
#[derive(Clone, Copy)]
struct Kept {
    number: u64,
    at: u64,
    len: usize,
    checksum: u32,
}

/// Reads and checks the table of compressed RAM.
fn kept(header: &Header, table: &[u8], stretch: Stretch) -> Result<Vec<Kept>, FormatError> {
    let (entries, rest) = table.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return Err(FormatError::form("its table of RAM ends within an entry"));
    }
    let mut chunks = Vec::with_capacity(entries.len());
    let (mut at, mut next) = (Header::ram_at(header.state_bytes), 0);
    let end = at + header.ram_bytes;
    for entry in entries {
        let word = |index: usize| u32::from_le_bytes(entry[index..index + 4].try_into().expect("four bytes"));
        let (number, len) = (u64::from(word(0)), word(4) as usize);
        if number < next || number >= stretch.chunks() {
            return Err(FormatError::form(format!(
                "chunk {number} of RAM is out of order or beyond its end"
            )));
        }
        if len == 0 || len > stretch.chunk(number).1 || len as u64 > end - at {
            return Err(FormatError::form(format!("chunk {number} of RAM cannot have {len} bytes")));
        }
        chunks.push(Kept { number, at, len, checksum: word(8) });
        at += len as u64;
        next = number + 1;
    }
    if at != end {
        return Err(FormatError::form("it has more of RAM than its table tells"));
    }
    Ok(chunks)
}

/// Reads RAM, which is zero, from a file in either form.
pub(super) fn read<S: Source + ?Sized>(
    source: &S,
    header: &Header,
    ram: &Ram,
    stretch: Stretch,
) -> Result<(), FormatError> {
    let table = header.table(source)?;
    match header.form {
        RamForm::Compressed => {
            let chunks = kept(header, &table, stretch)?;
            let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
            let share = chunks.len().div_ceil(threads).max(1);
            thread::scope(|scope| {
                let shares: Vec<_> = chunks
                    .chunks(share)
                    .map(|share| {
                        scope.spawn(move || {
                            share.iter().try_for_each(|kept| unpack(source, *kept, ram, stretch))
                        })
                    })
                    .collect();
                // A panic is ours and goes on as one.
                shares.into_iter().try_for_each(|share| share.join().expect("nothing in here panics"))
            })
        }
        RamForm::Plain => {
            check_plain(header, stretch)?;
            let mut piece = vec![0; PIECE];
            let at = Header::ram_at(header.state_bytes);
            let mut done = 0;
            while done < stretch.bytes {
                let len = usize::try_from(stretch.bytes - done).map_or(PIECE, |left| left.min(PIECE));
                source.read_at(at + done, &mut piece[..len])?;
                if !is_zero(&piece[..len]) {
                    ram.write(Pa(stretch.base + done), &piece[..len]).map_err(io::Error::other)?;
                }
                done += len as u64;
            }
            Ok(())
        }
    }
}

/// Whether plain RAM can be mapped: it is there as a whole.
pub(super) fn check_plain(header: &Header, stretch: Stretch) -> Result<(), FormatError> {
    if header.ram_bytes != stretch.bytes || header.table_bytes != 0 {
        let (found, expected) = (header.ram_bytes, stretch.bytes);
        return Err(FormatError::form(format!(
            "it has {found} bytes of RAM, and its machine has {expected}"
        )));
    }
    Ok(())
}

fn unpack<S: Source + ?Sized>(
    source: &S,
    kept: Kept,
    ram: &Ram,
    stretch: Stretch,
) -> Result<(), FormatError> {
    let (to, len) = stretch.chunk(kept.number);
    let mut bytes = vec![0; kept.len];
    source.read_at(kept.at, &mut bytes)?;
    if checksum(&bytes) != kept.checksum {
        return Err(FormatError::Checksum("RAM"));
    }
    if kept.len < len {
        let mut chunk = vec![0; len];
        let unpacked = lz4_flex::block::decompress_into(&bytes, &mut chunk);
        if unpacked.ok() != Some(len) {
            let number = kept.number;
            return Err(FormatError::form(format!("chunk {number} of RAM cannot be decompressed")));
        }
        bytes = chunk;
    }
    Ok(ram.write(to, &bytes).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const BASE: u64 = 0x4000_0000;
    /// The last chunk has half of its bytes.
    const STRETCH: Stretch = Stretch { base: BASE, bytes: 8 * CHUNK as u64 + CHUNK as u64 / 2 };

    fn ram() -> Ram {
        Ram::new(&[(Pa(BASE), STRETCH.bytes)]).unwrap()
    }

    /// Text, noise, a single byte, and the end; between them, zeros.
    fn filled() -> Ram {
        let ram = ram();
        ram.write(Pa(BASE + 100), &b"a page ".repeat(3000)).unwrap();
        let mut state = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(CHUNK)
        .collect();
        ram.write(Pa(BASE + 3 * CHUNK as u64), &noise).unwrap();
        ram.write(Pa(BASE + 5 * CHUNK as u64 + 4095), &[7]).unwrap();
        ram.write(Pa(BASE + STRETCH.bytes - 1), &[9]).unwrap();
        ram
    }

    fn bytes(ram: &Ram) -> Vec<u8> {
        let mut bytes = vec![0; STRETCH.bytes as usize];
        ram.read(Pa(BASE), &mut bytes).unwrap();
        bytes
    }

    /// A file with an empty state.
    fn written(form: RamForm) -> (File, Header) {
        let file = tempfile::tempfile().unwrap();
        let at = Header::ram_at(0);
        let Written { bytes, table } = write(&filled(), STRETCH, form, &file, at).unwrap();
        file.write_all_at(&table, at + bytes).unwrap();
        let header = Header {
            form,
            state_bytes: 0,
            ram_bytes: bytes,
            table_bytes: table.len() as u64,
            state_checksum: checksum(&[]),
            table_checksum: checksum(&table),
        };
        header.write(&file).unwrap();
        assert_eq!(Header::read(&file).unwrap(), header);
        (file, header)
    }

    #[test]
    fn ram_comes_back_from_either_form_and_takes_no_room_where_it_is_zero() {
        for form in [RamForm::Compressed, RamForm::Plain] {
            let (file, header) = written(form);
            let back = ram();
            read(&file, &header, &back, STRETCH).unwrap();
            assert!(bytes(&back) == bytes(&filled()), "{form:?}");
            let room = file.metadata().unwrap().blocks() * 512;
            assert!(room < 4 * CHUNK as u64, "{form:?}: {room}");
        }
    }

    #[test]
    fn plain_ram_is_mapped_and_what_is_written_to_it_stays_out_of_the_file() {
        let (file, header) = written(RamForm::Plain);
        let before = checksum(
            &std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap(),
        );
        let machines = [ram(), ram()];
        for ram in &machines {
            crate::host::ram::map_file(ram, &file, Header::ram_at(header.state_bytes)).unwrap();
            assert!(bytes(ram) == bytes(&filled()));
            ram.write(Pa(BASE), &vec![0xff; CHUNK]).unwrap();
        }
        assert!(bytes(&machines[0])[CHUNK..] == bytes(&filled())[CHUNK..]);
        // A reset makes it zero, not what the file has.
        crate::host::ram::clear(&machines[0]);
        assert!(is_zero(&bytes(&machines[0])));
        assert!(bytes(&machines[1])[..CHUNK].iter().all(|byte| *byte == 0xff));
        let after = checksum(
            &std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap(),
        );
        assert_eq!(before, after);
    }

    #[test]
    fn flipped_bit_in_compressed_ram_is_found() {
        let (file, header) = written(RamForm::Compressed);
        let mut byte = [0];
        let at = Header::ram_at(0) + header.ram_bytes / 2;
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        assert!(matches!(read(&file, &header, &ram(), STRETCH), Err(FormatError::Checksum("RAM"))));
    }

    #[test]
    fn hostile_tables_are_refused() {
        let (file, header) = written(RamForm::Compressed);
        let table = header.table(&file).unwrap();
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut table = table.clone();
            change(&mut table);
            kept(&header, &table, STRETCH).map(|chunks| chunks.len()).unwrap_err().to_string()
        };
        assert!(refused(&|table| table.truncate(13)).contains("within an entry"));
        assert!(refused(&|table| table.truncate(12)).contains("more of RAM than"));
        assert!(refused(&|table| table.clear()).contains("more of RAM than"));
        assert!(
            refused(&|table| table[..4].copy_from_slice(&u32::MAX.to_le_bytes())).contains("out of order")
        );
        assert!(refused(&|table| table[12..16].fill(0)).contains("out of order"));
        for len in [0, CHUNK as u32 + 1, u32::MAX] {
            let text = refused(&|table| table[4..8].copy_from_slice(&len.to_le_bytes()));
            assert!(text.contains(&format!("cannot have {len} bytes")), "{text}");
        }
        // Bytes that no compressor has written, with the right checksum.
        let mut entries = table.clone();
        let len = u32::from_le_bytes(entries[4..8].try_into().unwrap()) as usize;
        let junk = vec![0xff; len];
        entries[8..12].copy_from_slice(&checksum(&junk).to_le_bytes());

        file.write_all_at(&junk, Header::ram_at(0)).unwrap();
        file.write_all_at(&entries, Header::ram_at(0) + header.ram_bytes).unwrap();
        let header = Header { table_checksum: checksum(&entries), ..header };
        let error = read(&file, &header, &ram(), STRETCH).unwrap_err().to_string();
        assert!(error.contains("cannot be decompressed"), "{error}");
    }

    #[test]
    fn ram_of_another_size_is_refused() {
        let (file, header) = written(RamForm::Plain);
        let other = Stretch { bytes: STRETCH.bytes - 4096, ..STRETCH };
        assert!(read(&file, &header, &ram(), other).unwrap_err().to_string().contains("its machine has"));
        assert!(check_plain(&header, other).is_err());
        let (_, header) = written(RamForm::Compressed);
        let less = Stretch { bytes: CHUNK as u64, ..STRETCH };
        assert!(read(&file, &header, &ram(), less).is_err());
    }
}
