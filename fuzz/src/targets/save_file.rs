//! Save files: header, lengths, checksums, state, table and chunks of RAM.

use vmm::save::{SaveFile, Stretch};

use crate::input::Input;
use crate::machine::{RAM, RAM_BYTES, ram};

/// Where the header has what a checksum is made of: bytes and length of each section, and the place of its sum.
const HEADER: usize = 64;

/// Reads the input as a save file: as it is, and once more with checksums that fit, which random changes never have.
pub fn save_file(data: &[u8]) {
    restore(data.to_vec());
    let mut repaired = data.to_vec();
    if repair(&mut repaired).is_some() {
        restore(repaired);
    }
    // The state alone, as the file's.
    let mut input = Input::new(data);
    let _ = input.u8();
    restore(framed(input.bytes(data.len())));
}

fn restore(bytes: Vec<u8>) {
    let Ok(file) = SaveFile::of(bytes.into_boxed_slice()) else { return };
    let _ = file.read_ram(&ram(), Stretch { base: RAM, bytes: RAM_BYTES });
}

/// CRC-32, bit by bit: inputs are short.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// Puts right the checksums of header, state, table and chunks, as far as there are such parts.
fn repair(bytes: &mut [u8]) -> Option<()> {
    let word = |bytes: &[u8], at: usize| -> Option<usize> {
        usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok()
    };
    let (state, ram) = (word(bytes, 16)?, word(bytes, 24)?);
    let ram_at = HEADER.checked_add(state)?.checked_next_multiple_of(4096)?;
    let table_at = ram_at.checked_add(ram)?;
    let state_sum = checksum(bytes.get(HEADER..HEADER + state)?);
    let mut at = ram_at;
    let mut entry = table_at;
    while entry + 12 <= bytes.len() {
        let len = u32::from_le_bytes(bytes.get(entry + 4..entry + 8)?.try_into().ok()?) as usize;
        if let Some(chunk) = bytes.get(at..at.checked_add(len)?) {
            let sum = checksum(chunk);
            bytes.get_mut(entry + 8..entry + 12)?.copy_from_slice(&sum.to_le_bytes());
        }
        at = at.checked_add(len)?;
        entry += 12;
    }
    let table_sum = checksum(bytes.get(table_at..)?);
    let header = bytes.get_mut(..HEADER)?;
    header[40..44].copy_from_slice(&state_sum.to_le_bytes());
    header[44..48].copy_from_slice(&table_sum.to_le_bytes());
    let sum = checksum(&header[..60]);
    header[60..].copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// A file with this state and no RAM.
fn framed(state: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..8].copy_from_slice(&vmm::save::format::MAGIC);
    bytes[8..12].copy_from_slice(&vmm::save::format::VERSION.to_le_bytes());
    bytes[12] = 1;
    bytes[16..24].copy_from_slice(&(state.len() as u64).to_le_bytes());
    bytes.extend_from_slice(state);
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    let _ = repair(&mut bytes);
    bytes
}
