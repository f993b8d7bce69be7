//! The seam between the bus and a device's registers.

use thiserror::Error;

/// The access does not suit the device: no register there, or a size or alignment it does not take.
/// The bus, not the device, turns it into all-ones, an external abort or nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BusError {
    /// Nothing answers at this offset.
    #[error("no register at offset {0:#x}")]
    NoRegister(u64),
    /// There is a register, but not for this size or alignment.
    #[error("{len}-byte access at offset {offset:#x} is not possible")]
    BadAccess {
        /// Offset in the device's window.
        offset: u64,
        /// Bytes of the access.
        len: usize,
    },
}

/// A device with memory-mapped registers. Little-endian; `offset` counts from the start of the device's window and
/// `offset + data.len()` never leaves it. Accesses are 1, 2, 4, 8 or 16 bytes (16: a store-pair of 64-bit
/// registers, delivered whole where the engine can).
///
/// Called on vCPU threads: a handler moves state and wakes workers, it never waits and never does DMA.
pub trait MmioDevice: Send + Sync {
    /// Fills `data` from the registers at `offset`.
    ///
    /// # Errors
    /// [`BusError`] if no such access is possible; `data` is then ignored.
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError>;

    /// Writes `data` to the registers at `offset`.
    ///
    /// # Errors
    /// [`BusError`] if no such access is possible; nothing has then changed.
    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError>;
}

/// The value of a little-endian access of up to 8 bytes; longer data give its low 8 bytes.
#[must_use]
pub fn value_of(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Puts the low bytes of `value` into `data`, little-endian, with zeros beyond 8 bytes.
pub fn put_value(data: &mut [u8], value: u64) {
    for (i, byte) in data.iter_mut().enumerate() {
        *byte = if i < 8 { (value >> (8 * i)) as u8 } else { 0 };
    }
}

/// Reads any access out of a device whose registers are 32 bits wide: `word` is called once for each aligned
/// word that the access touches, in ascending order.
///
/// # Errors
/// The first error of `word`.
pub fn read_words(
    offset: u64,
    data: &mut [u8],
    mut word: impl FnMut(u64) -> Result<u32, BusError>,
) -> Result<(), BusError> {
    let mut done = 0;
    while done < data.len() {
        let at = offset + done as u64;
        let bytes = word(at & !3)?.to_le_bytes();
        let skip = (at & 3) as usize;
        let take = (4 - skip).min(data.len() - done);
        data[done..done + take].copy_from_slice(&bytes[skip..skip + take]);
        done += take;
    }
    Ok(())
}

/// Splits an access of 4, 8 or 16 aligned bytes into 32-bit register writes, in ascending order.
///
/// # Errors
/// [`BusError::BadAccess`] for narrower or unaligned accesses (the device decides beforehand if it takes them),
/// or the first error of `word`.
pub fn write_words(
    offset: u64,
    data: &[u8],
    mut word: impl FnMut(u64, u32) -> Result<(), BusError>,
) -> Result<(), BusError> {
    if data.is_empty() || !data.len().is_multiple_of(4) || !offset.is_multiple_of(4) {
        return Err(BusError::BadAccess { offset, len: data.len() });
    }
    for (i, chunk) in data.chunks_exact(4).enumerate() {
        word(offset + 4 * i as u64, value_of(chunk) as u32)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_and_wide_reads_see_the_same_words() {
        let word = |at: u64| Ok(0x0302_0100 + 0x0404_0404 * (at as u32 / 4));
        for (offset, len) in [(0, 1), (3, 1), (2, 2), (0, 4), (4, 4), (0, 8), (0, 16), (1, 4)] {
            let mut data = vec![0; len];
            read_words(offset, &mut data, word).unwrap();
            let expected: Vec<u8> = (offset as u8..).take(len).collect();
            assert_eq!(data, expected, "offset {offset} len {len}");
        }
    }

    #[test]
    fn writes_narrower_than_a_word_are_bad_accesses() {
        assert_eq!(write_words(0, &[1, 2], |_, _| Ok(())), Err(BusError::BadAccess { offset: 0, len: 2 }));
        assert_eq!(write_words(2, &[0; 4], |_, _| Ok(())), Err(BusError::BadAccess { offset: 2, len: 4 }));
        let mut seen = Vec::new();
        write_words(8, &[1, 0, 0, 0, 2, 0, 0, 0], |at, v| {
            seen.push((at, v));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(8, 1), (12, 2)]);
    }

    #[test]
    fn values_round_trip_at_every_width() {
        for len in [1usize, 2, 4, 8] {
            let mut data = vec![0xee; len];
            put_value(&mut data, 0x8877_6655_4433_2211);
            let mask = if len == 8 { u64::MAX } else { (1 << (8 * len)) - 1 };
            assert_eq!(value_of(&data), 0x8877_6655_4433_2211 & mask);
        }
    }
}
