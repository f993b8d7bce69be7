//! The walker (D8.2): from a table base and an input address to a leaf, or to the level where it ended.

use crate::descriptor::{Inherited, address, descriptor_type};
use crate::{Granule, LeafDescriptor};

/// A descriptor could not be loaded: nothing answers at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalAbort;

/// Where translation tables are.
pub trait TableMemory {
    /// Loads the aligned little-endian doubleword at `pa`, single-copy atomic.
    ///
    /// # Errors
    /// [`ExternalAbort`], if there is no memory.
    fn load(&self, pa: u64) -> Result<u64, ExternalAbort>;
}

impl TableMemory for hw::Ram {
    #[inline]
    fn load(&self, pa: u64) -> Result<u64, ExternalAbort> {
        self.load_u64(hw::Pa(pa)).map_err(|_| ExternalAbort)
    }
}

/// Which of the two tables of a regime an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// TTBR0 (TTB0): addresses that start with zeros.
    Low,
    /// TTBR1 (TTB1): addresses that start with ones.
    High,
}

impl Half {
    /// The half of an address, by bit 55 (D8.2.3).
    #[inline]
    #[must_use]
    pub const fn of(va: u64) -> Self {
        if va >> 55 & 1 == 0 { Self::Low } else { Self::High }
    }
}

/// Whether the bits of `va` above `input_bits` all equal bit 55 (D8.2.3), leaving out \[63:56\] with `tbi` (top byte
/// ignored). Outside, the access ends in a translation fault at level 0.
#[inline]
#[must_use]
pub const fn in_range(va: u64, input_bits: u32, tbi: bool) -> bool {
    // Bit 55 spread over the word; equal bits vanish in the exclusive or.
    let spread = ((va << 8) as i64 >> 63) as u64;
    let above = if input_bits >= 64 { 0 } else { u64::MAX << input_bits };
    let checked = if tbi { above & (u64::MAX >> 8) } else { above };
    (va ^ spread) & checked == 0
}

/// All that a walk depends on. Cheap to build; CPUs and SMMUs keep one for each table base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkParams {
    /// Physical address of the first table, without the other fields of its register (ASID, CnP). Bits below the
    /// table's own size are ignored.
    pub ttb: u64,
    /// Translation granule.
    pub granule: Granule,
    /// Bits of the input address that are resolved: 64 - TxSZ. Higher bits are ignored here: see [`in_range`].
    pub input_bits: u32,
    /// Bits of the output address (the lesser of IPS and what the machine has): addresses above are an address size
    /// fault.
    pub output_bits: u32,
    /// The machine has 52-bit physical addresses (FEAT_LPA): what descriptors of the 64 KiB granule mean.
    pub pa52: bool,
    /// Level of the first table; [`Granule::start_level`] for stage 1.
    pub start_level: u8,
    /// Table attributes (APTable, UXNTable, PXNTable) are ignored: HPDx, HADx.
    pub hierarchical_attrs_disabled: bool,
    /// A clear access flag is no fault: it is managed by hardware, or access flag faults are disabled.
    pub access_flag_ignored: bool,
}

impl WalkParams {
    /// A stage 1 walk whose start level follows from the input size, with hierarchical attributes and access flag
    /// faults.
    #[inline]
    #[must_use]
    pub const fn stage1(ttb: u64, granule: Granule, input_bits: u32, output_bits: u32) -> Self {
        Self {
            ttb,
            granule,
            input_bits: granule.clamp_input_bits(input_bits),
            output_bits,
            pa52: output_bits > 48,
            start_level: granule.start_level(input_bits),
            hierarchical_attrs_disabled: false,
            access_flag_ignored: false,
        }
    }
}

/// Why a walk found no leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WalkFaultKind {
    /// An invalid or reserved descriptor.
    Translation,
    /// A base, table or output address beyond the output size.
    AddressSize,
    /// The leaf's access flag is clear.
    AccessFlag,
    /// A descriptor could not be loaded.
    ExternalAbort,
}

/// A walk that found no leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkFault {
    /// Why.
    pub kind: WalkFaultKind,
    /// At which level, as fault status codes count.
    pub level: u8,
    /// Physical address of the descriptor that ended the walk, or of the first table if its own address did.
    pub descriptor_pa: u64,
}

/// A block or page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its physical address, aligned to its size.
    pub pa: u64,
    /// Log2 of its size in bytes.
    pub size_log2: u8,
    /// Level of its descriptor, 0 to 3.
    pub level: u8,
    /// AttrIndx, SH, AP, AF, nG, DBM, PXN, UXN and the contiguous hint, table attributes folded in.
    pub attributes: LeafDescriptor,
    /// The descriptor as it is in memory.
    pub descriptor: u64,
    /// Physical address of the descriptor.
    pub descriptor_pa: u64,
}

impl Leaf {
    /// The physical address that `input` has in this block or page.
    #[inline]
    #[must_use]
    pub const fn translate(&self, input: u64) -> u64 {
        self.pa | input & !(u64::MAX << self.size_log2)
    }
}

#[inline]
const fn beyond(address: u64, bits: u32) -> bool {
    bits < 64 && address >> bits != 0
}

/// Walks the tables for `input`.
///
/// Order of the checks at each level: external abort, translation, address size; access flag at the leaf (D8.15).
/// Permissions are the caller's: [`Permissions`](crate::Permissions).
///
/// # Errors
/// [`WalkFault`].
#[inline]
pub fn walk<M: TableMemory + ?Sized>(params: &WalkParams, input: u64, memory: &M) -> Result<Leaf, WalkFault> {
    let &WalkParams { granule, output_bits, pa52, .. } = params;
    let step = granule.bits_per_level();
    let mut level = if params.start_level > 3 { 3 } else { params.start_level };
    let mut shift = granule.level_shift(level);
    // The first table has as many entries as bits remain: fewer than a page, or at stage 2 up to sixteen pages.
    let first_bits = params.input_bits.saturating_sub(shift).clamp(1, 32);
    // A base with 52 bits has the upper four where smaller ones have address bits \[5:2\]: TTBR0_EL1.BADDR.
    let least_align = if matches!(granule, Granule::K64) && output_bits > 48 { 6 } else { 0 };
    let align = if first_bits + 3 > least_align { first_bits + 3 } else { least_align };
    let mut table = params.ttb & (u64::MAX << align);
    let mut index = (input >> shift) & !(u64::MAX << first_bits);
    let mut inherited = Inherited::default();
    if beyond(table, output_bits) {
        return Err(WalkFault { kind: WalkFaultKind::AddressSize, level: 0, descriptor_pa: table });
    }
    loop {
        let descriptor_pa = table | index << 3;
        let fault = |kind| WalkFault { kind, level, descriptor_pa };
        let descriptor =
            memory.load(descriptor_pa).map_err(|ExternalAbort| fault(WalkFaultKind::ExternalAbort))?;
        let is_leaf = match descriptor & 0b11 {
            descriptor_type::TABLE_OR_PAGE => level == 3,
            descriptor_type::BLOCK if granule.block_at(level, pa52) => true,
            _ => return Err(fault(WalkFaultKind::Translation)),
        };
        if is_leaf {
            let pa = address(descriptor, granule, shift, pa52);
            if beyond(pa, output_bits) {
                return Err(fault(WalkFaultKind::AddressSize));
            }
            let attributes = inherited.apply(descriptor);
            if !attributes.af() && !params.access_flag_ignored {
                return Err(fault(WalkFaultKind::AccessFlag));
            }
            return Ok(Leaf { pa, size_log2: shift as u8, level, attributes, descriptor, descriptor_pa });
        }
        table = address(descriptor, granule, granule.page_shift(), pa52);
        if beyond(table, output_bits) {
            return Err(fault(WalkFaultKind::AddressSize));
        }
        if !params.hierarchical_attrs_disabled {
            inherited = inherited.and_below(descriptor);
        }
        level += 1;
        shift -= step;
        index = (input >> shift) & !(u64::MAX << step);
    }
}
