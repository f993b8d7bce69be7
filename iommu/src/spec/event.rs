//! Event records (7.3): four dwords each.

use bitfield_struct::bitfield;
use vmsa::WalkFaultKind;

/// Bytes of an event record.
pub const EVENT_BYTES: u64 = 32;

/// Event number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(pub u8);

macro_rules! events {
    ($($name:ident = $value:literal;)*) => {
        impl EventType {
            $(pub const $name: Self = Self($value);)*

            /// All events that are raised here, with their names.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

events! {
    C_BAD_STREAMID = 0x02;
    F_STE_FETCH = 0x03;
    C_BAD_STE = 0x04;
    F_BAD_ATS_TREQ = 0x05;
    F_STREAM_DISABLED = 0x06;
    F_TRANSL_FORBIDDEN = 0x07;
    C_BAD_SUBSTREAMID = 0x08;
    F_CD_FETCH = 0x09;
    C_BAD_CD = 0x0a;
    F_WALK_EABT = 0x0b;
    F_TRANSLATION = 0x10;
    F_ADDR_SIZE = 0x11;
    F_ACCESS = 0x12;
    F_PERMISSION = 0x13;
}

impl EventType {
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    pub(crate) const fn into_bits(self) -> u8 {
        self.0
    }

    /// The specification's name, if the event is raised here.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(event, _)| *event == self).map_or("unknown event", |(_, name)| name)
    }

    /// Whether the stream's configuration is what is wrong, and not the address: tables and descriptors, and requests
    /// that they do not permit.
    pub(crate) const fn is_of_configuration(self) -> bool {
        self.0 < Self::F_TRANSLATION.0
    }

    /// The event of a walk that ended with a fault.
    pub(crate) const fn of_walk(fault: WalkFaultKind) -> Self {
        match fault {
            WalkFaultKind::Translation => Self::F_TRANSLATION,
            WalkFaultKind::AddressSize => Self::F_ADDR_SIZE,
            WalkFaultKind::AccessFlag => Self::F_ACCESS,
            WalkFaultKind::ExternalAbort => Self::F_WALK_EABT,
        }
    }

    /// Whether it is one of the four faults of translation, which S and R of a context govern (5.5).
    pub(crate) const fn is_of_translation(self) -> bool {
        matches!(self, Self::F_TRANSLATION | Self::F_ADDR_SIZE | Self::F_ACCESS | Self::F_PERMISSION)
    }
}

/// CLASS: what was being translated when the fault came.
pub mod class {
    /// The address of a context descriptor.
    pub const CD: u8 = 0;
    /// The address of a translation table descriptor.
    pub const TT: u8 = 1;
    /// The input address of the transaction.
    pub const IN: u8 = 2;
}

/// D0 of every record.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventD0 {
    #[bits(8, default = EventType(0))]
    pub event: EventType,
    #[bits(3)]
    _res0_8: u8,
    pub ssv: bool,
    #[bits(20)]
    pub ssid: u32,
    pub sid: u32,
}

/// D1 of records about a transaction.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventD1 {
    /// STAG of a stalled transaction; REASON of a failed fetch, which is implementation defined and 0 here.
    pub stag: u16,
    #[bits(15)]
    _res0_16: u16,
    pub stall: bool,
    _res0_32: bool,
    /// 1: privileged.
    pub pnu: bool,
    /// 1: instruction. Only for reads.
    pub ind: bool,
    /// 1: read.
    pub rnw: bool,
    #[bits(2)]
    _res0_36: u8,
    pub nsipa: bool,
    pub s2: bool,
    #[bits(2)]
    pub class: u8,
    #[bits(2)]
    _res0_42: u8,
    pub ttrnw: bool,
    #[bits(19)]
    _res0_45: u32,
}

/// D1 of F_BAD_ATS_TREQ: what was asked for.
pub mod bad_ats_treq {
    /// Span in STUs; here always one.
    pub const SPAN_1: u64 = 1;
    pub const PRIV: u64 = 1 << 28;
    pub const X: u64 = 1 << 29;
    pub const W: u64 = 1 << 30;
    pub const R: u64 = 1 << 31;
}

/// FetchAddr in D3 is bits \[55:3\].
pub const FETCH_ADDR: u64 = 0x00ff_ffff_ffff_fff8;

/// IPA in D3 is bits \[55:12\].
pub const IPA: u64 = 0x00ff_ffff_ffff_f000;

/// An event record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub d0: EventD0,
    pub d1: EventD1,
    /// InputAddr, or 0.
    pub d2: u64,
    /// FetchAddr or IPA, or 0.
    pub d3: u64,
}
