//! The table of virtual functions: which queues of the device belong to which function.

use std::collections::BTreeMap;

use bitfield_struct::bitfield;
use hw::RestoreError;
use hw::saved::{Hex, index_of};

/// Functions that the table has room for: the PF and 63 VFs.
pub const FUNCTIONS: usize = 64;

/// An entry of the submission queue table (type 0).
#[bitfield(u64)]
pub struct SqcVft {
    #[bits(28)]
    _reserved: u32,
    /// First queue of the device that is this function's.
    pub base: u16,
    pub valid: bool,
    /// Queues, less one.
    #[bits(10)]
    pub count_minus_1: u16,
    #[bits(9)]
    _reserved2: u16,
}

/// An entry of the completion queue table (type 1).
#[bitfield(u64)]
pub struct CqcVft {
    #[bits(28)]
    _reserved: u32,
    pub valid: bool,
    #[bits(35)]
    _reserved2: u64,
}

/// The tables as software has written them.
#[derive(Debug)]
pub(super) struct Vft {
    /// Types 0 (SQC), 1 (CQC) and 2 (shaper; stored, not applied, not advertised).
    entries: [[u64; FUNCTIONS]; 3],
}

impl Vft {
    pub(super) const fn at_reset() -> Self {
        Self { entries: [[0; FUNCTIONS]; 3] }
    }

    /// Entry of `kind` for `function`; the bits that say more than the function do not matter.
    pub(super) fn get(&self, kind: u32, function: u32) -> u64 {
        let row = self.entries.get(kind as usize);
        row.and_then(|row| row.get(function as usize % FUNCTIONS)).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, kind: u32, function: u32, value: u64) {
        if let Some(entry) =
            self.entries.get_mut(kind as usize).and_then(|row| row.get_mut(function as usize % FUNCTIONS))
        {
            *entry = value;
        }
    }

    /// The entries that are not zero, by type and function.
    pub(super) fn save(&self) -> BTreeMap<String, BTreeMap<String, Hex>> {
        let row = |row: &[u64; FUNCTIONS]| -> BTreeMap<String, Hex> {
            let entries = row.iter().enumerate().filter(|(_, value)| **value != 0);
            entries.map(|(function, value)| (function.to_string(), Hex(*value))).collect()
        };
        let rows = self.entries.iter().enumerate().map(|(kind, entries)| (kind.to_string(), row(entries)));
        rows.filter(|(_, row)| !row.is_empty()).collect()
    }

    pub(super) fn of_saved(saved: BTreeMap<String, BTreeMap<String, Hex>>) -> Result<Self, RestoreError> {
        let mut table = Self::at_reset();
        for (kind, row) in saved {
            let entries = &mut table.entries[index_of(&kind, 3)?];
            for (function, Hex(value)) in row {
                entries[index_of(&function, FUNCTIONS).map_err(|error| error.within(&kind))?] = value;
            }
        }
        Ok(table)
    }

    /// Queues that the PF may use: none without both entries, and no more than the device has.
    pub(super) fn pf_queues(&self, of_device: u16) -> u16 {
        let sq = SqcVft::from(self.get(0, 0));
        if !sq.valid() || !CqcVft::from(self.get(1, 0)).valid() {
            return 0;
        }
        (sq.count_minus_1() + 1).min(of_device.saturating_sub(sq.base()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_has_queues_once_both_tables_say_so_and_never_more_than_the_device() {
        let mut vft = Vft::at_reset();
        assert_eq!(vft.pf_queues(1024), 0);
        vft.set(0, 0, 63 << 45 | 1 << 44);
        assert_eq!(vft.pf_queues(1024), 0);
        vft.set(1, 0, 1 << 28);
        assert_eq!(vft.pf_queues(1024), 64);
        vft.set(0, 0, 1023 << 45 | 1 << 44 | 1000 << 28);
        assert_eq!(vft.pf_queues(1024), 24);
        vft.set(0, 0, 0);
        assert_eq!(vft.pf_queues(1024), 0);
    }
}
