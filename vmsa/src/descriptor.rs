//! Descriptor formats: what the 64 bits mean (D8.3).

use bitfield_struct::bitfield;

use crate::Granule;

/// Values of bits \[1:0\] of a descriptor.
pub mod descriptor_type {
    /// Block, at levels 0 to 2; reserved, thus invalid, at level 3.
    pub const BLOCK: u64 = 0b01;
    /// Table at levels 0 to 2, page at level 3.
    pub const TABLE_OR_PAGE: u64 = 0b11;
}

/// Stage 1 table descriptor (D8.3.1). The hierarchical attributes restrict everything below.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct TableDescriptor {
    #[bits(2)]
    pub descriptor_type: u8,
    #[bits(10)]
    _ignored: u16,
    /// Bits \[47:12\] of the next table's address.
    #[bits(36)]
    pub address_47_12: u64,
    #[bits(11)]
    _ignored_58_48: u16,
    /// PXNTable.
    pub pxn_table: bool,
    /// UXNTable (XNTable where the regime has one privilege level).
    pub uxn_table: bool,
    /// APTable\[0\]: no access at EL0 below.
    pub ap_table_no_el0: bool,
    /// APTable\[1\]: no writes below.
    pub ap_table_read_only: bool,
    pub ns_table: bool,
}

/// Stage 1 block or page descriptor (D8.3.2), with its address fields left out.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct LeafDescriptor {
    #[bits(2)]
    pub descriptor_type: u8,
    /// AttrIndx\[2:0\]: which byte of MAIR.
    #[bits(3)]
    pub attr_indx: u8,
    pub ns: bool,
    /// AP\[1\]: EL0 may access.
    pub ap_el0: bool,
    /// AP\[2\]: read-only.
    pub ap_read_only: bool,
    /// SH\[1:0\]: 0 non-, 2 outer, 3 inner shareable.
    #[bits(2)]
    pub sh: u8,
    /// Access flag.
    pub af: bool,
    /// Not global: belongs to one ASID.
    pub ng: bool,
    #[bits(38)]
    _address: u64,
    /// Guarded page (BTI).
    pub gp: bool,
    /// Dirty bit modifier: a read-only page that hardware may make writable.
    pub dbm: bool,
    /// Contiguous hint.
    pub contiguous: bool,
    /// Privileged execute-never.
    pub pxn: bool,
    /// Unprivileged execute-never (XN where the regime has one privilege level).
    pub uxn: bool,
    #[bits(9)]
    _software_and_ignored: u16,
}

/// Hierarchical attributes gathered on the way down, in a form that makes a leaf stricter with two operations.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inherited {
    set: u64,
    clear: u64,
}

impl Inherited {
    const PXN: u64 = LeafDescriptor::new().with_pxn(true).0;
    const UXN: u64 = LeafDescriptor::new().with_uxn(true).0;
    const AP_EL0: u64 = LeafDescriptor::new().with_ap_el0(true).0;
    const AP_READ_ONLY: u64 = LeafDescriptor::new().with_ap_read_only(true).0;
    const DBM: u64 = LeafDescriptor::new().with_dbm(true).0;
    const TABLE_ATTRIBUTES: u64 = 0xf << 59;

    /// Takes the table attributes of one more level (D8.4.3).
    #[inline]
    pub(crate) const fn and_below(self, table: u64) -> Self {
        if table & Self::TABLE_ATTRIBUTES == 0 {
            return self; // nearly always
        }
        let table = TableDescriptor::from_bits(table);
        let Self { mut set, mut clear } = self;
        if table.pxn_table() {
            set |= Self::PXN;
        }
        if table.uxn_table() {
            set |= Self::UXN;
        }
        if table.ap_table_no_el0() {
            clear |= Self::AP_EL0;
        }
        if table.ap_table_read_only() {
            // Nor may hardware management of dirty state make it writable again.
            set |= Self::AP_READ_ONLY;
            clear |= Self::DBM;
        }
        Self { set, clear }
    }

    /// A leaf's own attributes, restricted by what was gathered.
    #[inline]
    pub(crate) const fn apply(self, leaf: u64) -> LeafDescriptor {
        LeafDescriptor::from_bits((leaf | self.set) & !self.clear)
    }
}

/// The address in a descriptor that names `1 << align_log2` aligned bytes. With the 64 KiB granule and 52-bit
/// physical addresses, bits \[15:12\] carry address bits \[51:48\] (D8.3.1, 52-bit addresses).
#[inline]
pub(crate) const fn address(descriptor: u64, granule: Granule, align_log2: u32, pa52: bool) -> u64 {
    let low = descriptor & 0x0000_ffff_ffff_ffff & (u64::MAX << align_log2);
    if matches!(granule, Granule::K64) && pa52 { low | (descriptor & 0xf000) << 36 } else { low }
}
