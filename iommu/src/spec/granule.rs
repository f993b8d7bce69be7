//! Encodings of translation granules.

use vmsa::Granule;

/// CD.TG0 and STE.S2TG; `None` for the reserved encoding.
pub const fn tg0(bits: u8) -> Option<Granule> {
    match bits {
        0 => Some(Granule::K4),
        1 => Some(Granule::K64),
        2 => Some(Granule::K16),
        _ => None,
    }
}

/// CD.TG1, whose encodings are others; `None` for the reserved one.
pub const fn tg1(bits: u8) -> Option<Granule> {
    match bits {
        1 => Some(Granule::K16),
        2 => Some(Granule::K4),
        3 => Some(Granule::K64),
        _ => None,
    }
}
