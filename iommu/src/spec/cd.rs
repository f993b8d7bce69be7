//! Context descriptors (5.3, 5.4).

use bitfield_struct::bitfield;

/// Bytes of a context descriptor.
pub const CD_BYTES: u64 = 64;

/// Level 1 context descriptor (5.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct L1Cd {
    pub v: bool,
    #[bits(11)]
    _res0_1: u16,
    /// Bits \[55:12\] of L2Ptr.
    #[bits(44)]
    pub l2ptr_55_12: u64,
    _res0_56: u8,
}

/// CD, D0.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CdD0 {
    #[bits(6)]
    pub t0sz: u8,
    #[bits(2)]
    pub tg0: u8,
    #[bits(2)]
    pub ir0: u8,
    #[bits(2)]
    pub or0: u8,
    #[bits(2)]
    pub sh0: u8,
    pub epd0: bool,
    pub endi: bool,
    #[bits(6)]
    pub t1sz: u8,
    #[bits(2)]
    pub tg1: u8,
    #[bits(2)]
    pub ir1: u8,
    #[bits(2)]
    pub or1: u8,
    #[bits(2)]
    pub sh1: u8,
    pub epd1: bool,
    pub v: bool,
    #[bits(3)]
    pub ips: u8,
    pub affd: bool,
    pub wxn: bool,
    pub uwxn: bool,
    pub tbi0: bool,
    pub tbi1: bool,
    pub pan: bool,
    pub aa64: bool,
    pub hd: bool,
    pub ha: bool,
    pub s: bool,
    pub r: bool,
    pub a: bool,
    pub aset: bool,
    pub asid: u16,
}

/// CD, D1 and D2: the table bases of the lower and the upper half.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CdTtb {
    pub nscfg: bool,
    pub had: bool,
    #[bits(2)]
    _res0_2: u8,
    /// Bits \[51:4\] of TTBx.
    #[bits(48)]
    pub ttb_51_4: u64,
    #[bits(12)]
    _res0_52: u16,
}

impl CdTtb {
    /// TTBx, before alignment to the size of the table.
    pub const fn ttb(self) -> u64 {
        self.ttb_51_4() << 4
    }
}

/// Context descriptor (5.4). D3 is MAIR, of which a cache-coherent model needs nothing; the rest belongs to features
/// that are not modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cd {
    pub d0: CdD0,
    pub d1: CdTtb,
    pub d2: CdTtb,
}
