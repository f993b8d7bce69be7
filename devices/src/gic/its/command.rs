//! The ITS's commands (IHI 0069, 5.3): four doublewords each.

use hw::mmio::value_of;
use hw::{DeviceId, Pa};

use super::tables::Itt;

/// Bytes of a command in the queue.
pub(super) const COMMAND_BYTES: usize = 32;

/// A command with its parameters, as they are written: nothing but the form has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Maps a device to a table of its events, or unmaps it.
    Mapd { device: DeviceId, itt: Option<Itt> },
    /// Maps a collection to a PE, or unmaps it.
    Mapc { icid: u16, cpu: Option<u64> },
    /// Maps a device's event to an LPI in a collection; MAPI is the case that the numbers are equal.
    Mapti { device: DeviceId, event: u32, intid: u32, icid: u16 },
    /// Moves an event to another collection, with what is pending.
    Movi { device: DeviceId, event: u32, icid: u16 },
    /// Makes an event's LPI pending.
    Int { device: DeviceId, event: u32 },
    /// Makes an event's LPI not pending.
    Clear { device: DeviceId, event: u32 },
    /// Unmaps an event, and makes its LPI not pending.
    Discard { device: DeviceId, event: u32 },
    /// The configuration of an event's LPI has changed.
    Inv { device: DeviceId, event: u32 },
    /// The configurations of a collection's LPIs have changed.
    Invall { icid: u16 },
    /// Moves all that is pending from one PE to another.
    Movall { from: u64, to: u64 },
    /// Waits for the effects of earlier commands.
    Sync,
}

impl Command {
    /// The command of these bytes, or `None` for one that does not exist.
    pub(super) fn decode(bytes: &[u8; COMMAND_BYTES]) -> Option<Self> {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = value_of(chunk);
        }
        let [dw0, dw1, dw2, dw3] = words;
        let device = DeviceId((dw0 >> 32) as u32);
        let event = (dw1 & 0xffff_ffff) as u32;
        let icid = (dw2 & 0xffff) as u16;
        let is_valid = dw2 >> 63 != 0;
        let rdbase = |word: u64| word >> 16 & 0x7_ffff_ffff;
        Some(match dw0 & 0xff {
            0x01 => Self::Movi { device, event, icid },
            0x03 => Self::Int { device, event },
            0x04 => Self::Clear { device, event },
            0x05 => Self::Sync,
            0x08 => {
                let itt = Itt { base: Pa(dw2 & 0xf_ffff_ffff_ff00), event_bits: (dw1 & 0x1f) as u32 + 1 };
                Self::Mapd { device, itt: is_valid.then_some(itt) }
            }
            0x09 => Self::Mapc { icid, cpu: is_valid.then(|| rdbase(dw2)) },
            0x0a => Self::Mapti { device, event, intid: (dw1 >> 32) as u32, icid },
            0x0b => Self::Mapti { device, event, intid: event, icid },
            0x0c => Self::Inv { device, event },
            0x0d => Self::Invall { icid },
            0x0e => Self::Movall { from: rdbase(dw2), to: rdbase(dw3) },
            0x0f => Self::Discard { device, event },
            _ => return None,
        })
    }
}
