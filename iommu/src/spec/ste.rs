//! Stream table: level 1 descriptor and stream table entry (5.1, 5.2).

use bitfield_struct::bitfield;

/// Bytes of a stream table entry.
pub const STE_BYTES: u64 = 64;

/// Level 1 stream table descriptor (5.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct L1Std {
    /// 0: invalid; 1 to 11: 2^(Span - 1) entries.
    #[bits(5)]
    pub span: u8,
    _res0_5: bool,
    /// Bits \[55:6\] of L2Ptr.
    #[bits(50)]
    pub l2ptr_55_6: u64,
    _res0_56: u8,
}

/// STE.Config. Not an enum: reserved encodings survive decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config(pub u8);

impl Config {
    pub const ABORT: Self = Self(0b000);
    pub const BYPASS: Self = Self(0b100);
    pub const S1: Self = Self(0b101);
    pub const S2: Self = Self(0b110);
    pub const S1_S2: Self = Self(0b111);

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(crate) const fn into_bits(self) -> u8 {
        self.0
    }
}

/// STE.S1DSS: what becomes of transactions without SubstreamID. 3 behaves as TERMINATE.
pub mod s1dss {
    pub const TERMINATE: u8 = 0;
    pub const BYPASS: u8 = 1;
    pub const SSID0: u8 = 2;
}

/// STE.EATS: what the endpoint behind the stream may do. 3 behaves as NONE.
pub mod eats {
    pub const NONE: u8 = 0;
    pub const FULL: u8 = 1;
    /// Stage 1 by the endpoint, stage 2 by the SMMU.
    pub const SPLIT: u8 = 2;
}

/// STE.S1Fmt. 3 behaves as LINEAR.
pub mod s1fmt {
    pub const LINEAR: u8 = 0;
    /// Two levels, second level tables of 4 KiB.
    pub const L2_4K: u8 = 1;
    /// Two levels, second level tables of 64 KiB.
    pub const L2_64K: u8 = 2;
}

/// STE, D0.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteD0 {
    pub v: bool,
    #[bits(3)]
    pub config: Config,
    #[bits(2)]
    pub s1fmt: u8,
    /// Bits \[55:6\] of S1ContextPtr.
    #[bits(50)]
    pub s1contextptr_55_6: u64,
    #[bits(3)]
    _res0_56: u8,
    #[bits(5)]
    pub s1cdmax: u8,
}

/// STE, D1.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteD1 {
    #[bits(2)]
    pub s1dss: u8,
    #[bits(2)]
    pub s1cir: u8,
    #[bits(2)]
    pub s1cor: u8,
    #[bits(2)]
    pub s1csh: u8,
    #[bits(4)]
    pub s2hwu: u8,
    pub dre: bool,
    #[bits(4)]
    pub cont: u8,
    pub dcp: bool,
    pub ppar: bool,
    pub mev: bool,
    #[bits(4)]
    _sw_reserved: u8,
    _res0_24: bool,
    pub s2fwb: bool,
    pub s1mpam: bool,
    pub s1stalld: bool,
    #[bits(2)]
    pub eats: u8,
    #[bits(2)]
    pub strw: u8,
    #[bits(4)]
    pub memattr: u8,
    pub mtcfg: bool,
    #[bits(4)]
    pub alloccfg: u8,
    #[bits(3)]
    _res0_41: u8,
    #[bits(2)]
    pub shcfg: u8,
    #[bits(2)]
    pub nscfg: u8,
    #[bits(2)]
    pub privcfg: u8,
    #[bits(2)]
    pub instcfg: u8,
    #[bits(12)]
    _res0_52: u16,
}

/// STE.STRW, for streams with stage 1 only: which exception level's translations these are.
pub mod strw {
    pub const EL1: u8 = 0;
    pub const EL2: u8 = 2;
}

/// STE.PRIVCFG and STE.INSTCFG: what is made of the privilege and the kind of accesses. Others: as they come in.
pub mod permscfg {
    pub const UNPRIVILEGED: u8 = 2;
    pub const PRIVILEGED: u8 = 3;
    pub const DATA: u8 = 2;
    pub const INSTRUCTION: u8 = 3;
}

/// STE, D2: stage 2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteD2 {
    pub s2vmid: u16,
    #[bits(16)]
    _res0_16: u16,
    #[bits(6)]
    pub s2t0sz: u8,
    #[bits(2)]
    pub s2sl0: u8,
    #[bits(2)]
    pub s2ir0: u8,
    #[bits(2)]
    pub s2or0: u8,
    #[bits(2)]
    pub s2sh0: u8,
    #[bits(2)]
    pub s2tg: u8,
    #[bits(3)]
    pub s2ps: u8,
    pub s2aa64: bool,
    pub s2endi: bool,
    pub s2affd: bool,
    pub s2ptw: bool,
    pub s2hd: bool,
    pub s2ha: bool,
    pub s2s: bool,
    pub s2r: bool,
    #[bits(5)]
    _res0_59: u8,
}

/// STE, D3: the table base of stage 2.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SteD3 {
    #[bits(4)]
    _res0: u8,
    /// Bits \[51:4\] of S2TTB.
    #[bits(48)]
    pub s2ttb_51_4: u64,
    #[bits(12)]
    _res0_52: u16,
}

impl SteD3 {
    /// S2TTB, before alignment to the size of the table.
    pub const fn s2ttb(self) -> u64 {
        self.s2ttb_51_4() << 4
    }
}

/// Stream table entry (5.2). D4 to D7 belong to features that are not modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ste {
    pub d0: SteD0,
    pub d1: SteD1,
    pub d2: SteD2,
    pub d3: SteD3,
}
