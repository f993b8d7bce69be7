//! Commands (chapter 4): two dwords each.

use bitfield_struct::bitfield;

/// Bytes of a command.
pub const COMMAND_BYTES: u64 = 16;

/// Opcodes. Reserved ones, and those of features that are not modelled, are illegal commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opcode(pub u8);

macro_rules! opcodes {
    ($($name:ident = $value:literal;)*) => {
        impl Opcode {
            $(pub const $name: Self = Self($value);)*

            /// The specification's name, if the opcode has one here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(concat!("CMD_", stringify!($name))),)*
                    _ => None,
                }
            }
        }
    };
}

impl Opcode {
    /// CMD_CFGI_*.
    pub(crate) const fn is_cfgi(self) -> bool {
        matches!(self.0, 0x03..=0x06)
    }

    /// CMD_TLBI_*: all of them stand together.
    pub(crate) const fn is_tlbi(self) -> bool {
        matches!(self.0 >> 4, 1..=3)
    }
}

opcodes! {
    PREFETCH_CONFIG = 0x01;
    PREFETCH_ADDR = 0x02;
    CFGI_STE = 0x03;
    // CMD_CFGI_ALL is the same opcode with Range = 31.
    CFGI_STE_RANGE = 0x04;
    CFGI_CD = 0x05;
    CFGI_CD_ALL = 0x06;
    TLBI_NH_ALL = 0x10;
    TLBI_NH_ASID = 0x11;
    TLBI_NH_VA = 0x12;
    TLBI_NH_VAA = 0x13;
    TLBI_EL2_ALL = 0x20;
    TLBI_EL2_ASID = 0x21;
    TLBI_EL2_VA = 0x22;
    TLBI_EL2_VAA = 0x23;
    TLBI_S12_VMALL = 0x28;
    TLBI_S2_IPA = 0x2a;
    TLBI_NSNH_ALL = 0x30;
    ATC_INV = 0x40;
    PRI_RESP = 0x41;
    RESUME = 0x44;
    STALL_TERM = 0x45;
    SYNC = 0x46;
}

/// D0 of configuration commands and of CMD_RESUME and CMD_STALL_TERM.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StreamD0 {
    pub opcode: u8,
    #[bits(2)]
    _res0_8: u8,
    pub ssec: bool,
    pub ssv: bool,
    /// SubstreamID; in CMD_RESUME bit 0 is Ac and bit 1 is Ab.
    #[bits(20)]
    pub ssid: u32,
    pub sid: u32,
}

/// D0 of CMD_TLBI_*.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TlbiD0 {
    pub opcode: u8,
    #[bits(2)]
    _res0_8: u8,
    pub ssec: bool,
    _res0_11: bool,
    #[bits(5)]
    pub num: u8,
    #[bits(3)]
    _res0_17: u8,
    #[bits(6)]
    pub scale: u8,
    #[bits(6)]
    _res0_26: u8,
    pub vmid: u16,
    pub asid: u16,
}

/// D1 of CMD_TLBI_NH_VA and the others by address.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TlbiD1 {
    pub leaf: bool,
    #[bits(7)]
    _res0_1: u8,
    #[bits(2)]
    pub ttl: u8,
    #[bits(2)]
    pub tg: u8,
    /// Bits \[63:12\] of the address.
    #[bits(52)]
    pub address_63_12: u64,
}

/// D0 of CMD_ATC_INV and CMD_PRI_RESP.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct AtsD0 {
    pub opcode: u8,
    _res0_8: bool,
    /// CMD_ATC_INV: in every PASID's address space.
    pub global: bool,
    pub ssec: bool,
    pub ssv: bool,
    #[bits(20)]
    pub ssid: u32,
    pub sid: u32,
}

/// D1 of CMD_ATC_INV.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct AtcInvD1 {
    /// Log2 of the range in units of 4 KiB.
    #[bits(6)]
    pub size: u8,
    #[bits(6)]
    _res0_6: u8,
    /// Bits \[63:12\] of the address.
    #[bits(52)]
    pub address_63_12: u64,
}

/// D1 of CMD_PRI_RESP.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PriRespD1 {
    #[bits(9)]
    pub prg_index: u16,
    #[bits(3)]
    _res0_9: u8,
    #[bits(2)]
    pub resp: u8,
    #[bits(50)]
    _res0_14: u64,
}

/// CMD_PRI_RESP.Resp.
pub mod resp {
    pub const FAILURE: u8 = 0;
    pub const INVALID: u8 = 1;
    pub const SUCCESS: u8 = 2;
}

/// D0 of CMD_SYNC.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct SyncD0 {
    pub opcode: u8,
    #[bits(2)]
    _res0_8: u8,
    pub ssec: bool,
    _res0_11: bool,
    #[bits(2)]
    pub cs: u8,
    _res0_14: u8,
    #[bits(2)]
    pub msh: u8,
    #[bits(4)]
    pub msi_attr: u8,
    #[bits(4)]
    _res0_28: u8,
    pub msi_data: u32,
}

/// CMD_SYNC.CS: how the completion is signalled.
pub mod cs {
    pub const SIG_NONE: u8 = 0;
    pub const SIG_IRQ: u8 = 1;
    pub const SIG_SEV: u8 = 2;
}

/// D1 of CMD_SYNC: MSIAddress is bits \[55:2\].
pub const SYNC_MSI_ADDRESS: u64 = 0x00ff_ffff_ffff_fffc;
