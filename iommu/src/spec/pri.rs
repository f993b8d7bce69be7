//! Page request records (8.1): two dwords each.

use bitfield_struct::bitfield;

/// Bytes of a page request record.
pub const PRI_BYTES: u64 = 16;

/// D0.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PriD0 {
    pub sid: u32,
    #[bits(20)]
    pub ssid: u32,
    #[bits(6)]
    _res0_52: u8,
    pub privileged: bool,
    pub x: bool,
    pub r: bool,
    pub w: bool,
    pub last: bool,
    pub ssv: bool,
}

/// D1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PriD1 {
    #[bits(9)]
    pub prg_index: u16,
    #[bits(3)]
    _res0_9: u8,
    /// Bits \[63:12\] of the page's address.
    #[bits(52)]
    pub address_63_12: u64,
}
