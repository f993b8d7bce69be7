//! Translation granules (D8.2) and the arithmetic of levels that follows from them.

/// Size of the smallest page and of the tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Granule {
    /// 4 KiB pages; 9 bits resolved at each level.
    #[default]
    K4,
    /// 16 KiB pages; 11 bits.
    K16,
    /// 64 KiB pages; 13 bits.
    K64,
}

impl Granule {
    /// All granules.
    pub const ALL: [Self; 3] = [Self::K4, Self::K16, Self::K64];

    /// Log2 of the page size in bytes.
    #[inline]
    #[must_use]
    pub const fn page_shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Address bits resolved by one full table: a table is one page of 8-byte descriptors.
    #[inline]
    #[must_use]
    pub const fn bits_per_level(self) -> u32 {
        self.page_shift() - 3
    }

    /// Log2 of the bytes that one descriptor at `level` (0 to 3) covers.
    #[inline]
    #[must_use]
    pub const fn level_shift(self, level: u8) -> u32 {
        self.page_shift() + self.bits_per_level() * (3 - if level > 3 { 3 } else { level as u32 })
    }

    /// Whether a block descriptor may stand at `level` (D8.3.1), without LPA2; 52-bit physical addresses (`pa52`)
    /// permit the 4 TiB blocks of the 64 KiB granule.
    #[inline]
    #[must_use]
    pub const fn block_at(self, level: u8, pa52: bool) -> bool {
        match self {
            Self::K4 => level == 1 || level == 2,
            Self::K16 => level == 2,
            Self::K64 => level == 2 || (level == 1 && pa52),
        }
    }

    /// The most input address bits that tables of this granule resolve without LPA2: 52 with 64 KiB (LVA), else 48.
    #[inline]
    #[must_use]
    pub const fn max_input_bits(self) -> u32 {
        match self {
            Self::K4 | Self::K16 => 48,
            Self::K64 => 52,
        }
    }

    /// The level at which a stage 1 walk of `input_bits` starts (D8.2.4). Input sizes that the granule can't
    /// resolve are taken as the nearest that it can.
    #[inline]
    #[must_use]
    pub const fn start_level(self, input_bits: u32) -> u8 {
        let input_bits = self.clamp_input_bits(input_bits);
        (3 - (input_bits - 1 - self.page_shift()) / self.bits_per_level()) as u8
    }

    /// `input_bits` brought into the range that the granule can resolve.
    #[inline]
    #[must_use]
    pub(crate) const fn clamp_input_bits(self, input_bits: u32) -> u32 {
        let (least, most) = (self.page_shift() + 1, self.max_input_bits());
        if input_bits < least {
            least
        } else if input_bits > most {
            most
        } else {
            input_bits
        }
    }
}
