//! A translation regime of stage 1: what SCTLR, TCR, TTBRn and MAIR make of an address.
//!
//! Which registers control it, and what they mean there, is data ([`Controls`]); EL1&0 is the only one so far.
//! Arm ARM (DDI 0487) D8. The walk itself is `vmsa`'s. Deliberately absent, and advertised so: hardware management
//! of the access flag and dirty state, 52-bit addresses, hierarchical permission disables, E0PD.

use vmsa::{
    Access, AccessKind, Granule, Half, Permissions, Stage1Rules, TableMemory, WalkFaultKind, WalkParams,
};

use super::tlb::{PAGE, Page, untagged};
use crate::exception::FaultStatus;
use crate::sizes::PA_BITS;
use crate::state::SysRegs;

/// MAIR_EL1.Attr of Normal memory that is Inner and Outer Non-cacheable.
const NON_CACHEABLE: u8 = 0x44;

/// SCTLR_ELx bits that this module reads.
mod sctlr {
    pub(super) const M: u64 = 1 << 0;
    pub(super) const A: u64 = 1 << 1;
    pub(super) const WXN: u64 = 1 << 19;
}

/// One of the two table bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    /// `None` where TCR_ELx.EPDn forbids walks.
    walk: Option<WalkParams>,
    /// Bits of the addresses of this side.
    input_bits: u32,
    /// Bits \[63:56\] of addresses are ignored.
    tbi: bool,
}

/// The control registers in the form that translation uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regime {
    mmu_on: bool,
    /// SCTLR_EL1.A: every access must be aligned.
    pub(crate) alignment_checked: bool,
    rules: Stage1Rules,
    sides: [Side; 2],
    mair: u64,
    /// The present ASID.
    pub(crate) asid: u16,
    /// The present TTBR0 without its ASID.
    pub(crate) ttbr0: u64,
}

/// An access as translation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intent {
    /// What it does.
    pub(crate) kind: AccessKind,
    /// Made with the rights of EL0: at EL0, and by LDTR and STTR.
    pub(crate) el0: bool,
    /// PSTATE.PAN, where it counts.
    pub(crate) pan: bool,
}

/// The granule that TCR_EL1.TG0 or TG1 names. Reserved values are taken as 4 KiB (D17.2.131 lets the
/// implementation choose).
fn granule(half: Half, tcr: u64) -> Granule {
    match half {
        Half::Low => match tcr >> 14 & 3 {
            1 => Granule::K64,
            2 => Granule::K16,
            _ => Granule::K4,
        },
        Half::High => match tcr >> 30 & 3 {
            1 => Granule::K16,
            3 => Granule::K64,
            _ => Granule::K4,
        },
    }
}

/// The registers that control a regime of two address ranges, one of which EL0 uses too (D8.1.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Controls {
    /// SCTLR_ELx.
    sctlr: u64,
    /// TCR_ELx, with the fields of TCR_EL1.
    tcr: u64,
    /// TTBR0_ELx and TTBR1_ELx.
    ttbr: [u64; 2],
    /// MAIR_ELx.
    mair: u64,
    /// The ASID, which TCR_ELx.A1 takes from one of the two.
    asid: u16,
    /// How permission bits are read.
    rules: Stage1Rules,
}

impl Controls {
    /// Those of EL1&0.
    #[must_use]
    pub(crate) const fn el1(sys: &SysRegs) -> Self {
        Self {
            sctlr: sys.sctlr,
            tcr: sys.tcr,
            ttbr: [sys.ttbr0, sys.ttbr1],
            mair: sys.mair,
            asid: sys.asid(),
            rules: Stage1Rules::EL1_AND_EL0,
        }
    }
}

impl Regime {
    /// What the registers say now.
    #[must_use]
    pub(crate) fn new(controls: &Controls) -> Self {
        let &Controls { sctlr, tcr, ttbr, mair, asid, rules } = controls;
        let output_bits = match tcr >> 32 & 7 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => PA_BITS, // 5, and larger sizes than there are
        };
        let side = |half: Half, txsz: u64, epd: u64, tbi: u64, ttbr: u64| {
            // Sizes outside 16 to 39 are taken as the nearest (D8.2.4: without FEAT_LVA and FEAT_TTST).
            let input_bits = 64 - txsz.clamp(16, 39) as u32;
            let base = ttbr & 0x0000_ffff_ffff_fffe;
            let walk = (tcr >> epd & 1 == 0)
                .then(|| WalkParams::stage1(base, granule(half, tcr), input_bits, output_bits));
            Side { walk, input_bits, tbi: tcr >> tbi & 1 != 0 }
        };
        Self {
            mmu_on: sctlr & sctlr::M != 0,
            alignment_checked: sctlr & sctlr::A != 0,
            rules: Stage1Rules { wxn: sctlr & sctlr::WXN != 0, ..rules },
            sides: [
                side(Half::Low, tcr & 0x3f, 7, 37, ttbr[0]),
                side(Half::High, tcr >> 16 & 0x3f, 23, 38, ttbr[1]),
            ],
            mair,
            asid,
            ttbr0: ttbr[0] & 0x0000_ffff_ffff_fffe,
        }
    }

    /// Whether stage 1 translation is on.
    #[inline]
    #[must_use]
    pub(crate) fn mmu_on(&self) -> bool {
        self.mmu_on
    }

    /// Whether every translation is as before.
    #[must_use]
    pub(crate) fn same_space_as(&self, other: &Self) -> bool {
        self.asid == other.asid && self.ttbr0 == other.ttbr0 && self.differs_only_in_process(other)
    }

    /// Whether all that differs is the process: ASID and TTBR0.
    #[must_use]
    pub(crate) fn differs_only_in_process(&self, other: &Self) -> bool {
        let without_base =
            |side: &Side| Side { walk: side.walk.map(|w| WalkParams { ttb: 0, ..w }), ..*side };
        (self.mmu_on, self.alignment_checked, self.rules, self.mair)
            == (other.mmu_on, other.alignment_checked, other.rules, other.mair)
            && self.sides[1] == other.sides[1]
            && without_base(&self.sides[0]) == without_base(&other.sides[0])
    }

    fn side(&self, va: u64) -> &Side {
        match Half::of(va) {
            Half::Low => &self.sides[0],
            Half::High => &self.sides[1],
        }
    }

    /// An address as the program counter takes it: where the top byte is ignored, it becomes a copy of bit 55
    /// (D8.2.5).
    #[inline]
    #[must_use]
    pub(crate) fn branch_target(&self, va: u64) -> u64 {
        if self.side(va).tbi { untagged(va) } else { va }
    }

    /// Translates the 4 KiB page of `va` for an access.
    ///
    /// # Errors
    /// The fault status code, with its level.
    pub(crate) fn translate<M: TableMemory + ?Sized>(
        &self,
        va: u64,
        intent: Intent,
        memory: &M,
    ) -> Result<Page, FaultStatus> {
        if !self.mmu_on {
            return self.flat(va, intent.kind);
        }
        let side = self.side(va);
        let params = match &side.walk {
            Some(params) if vmsa::in_range(va, side.input_bits, side.tbi) => params,
            _ => return Err(FaultStatus::translation(0)),
        };
        let leaf = vmsa::walk(params, va, memory).map_err(|fault| match fault.kind {
            WalkFaultKind::Translation => FaultStatus::translation(fault.level),
            WalkFaultKind::AddressSize => FaultStatus::address_size(fault.level),
            WalkFaultKind::AccessFlag => FaultStatus::access_flag(fault.level),
            WalkFaultKind::ExternalAbort => FaultStatus::external_abort_on_walk(fault.level),
        })?;
        let permissions = Permissions::stage1(leaf.attributes, self.rules);
        let access = Access { kind: intent.kind, privileged: !intent.el0 };
        if !permissions.allow(access, intent.pan) {
            return Err(FaultStatus::permission(leaf.level));
        }
        let attributes = (self.mair >> (8 * u32::from(leaf.attributes.attr_indx()))) as u8;
        Ok(Page {
            pa: leaf.translate(va) & !(PAGE - 1),
            permissions,
            // MAIR Attr = 0b0000ddxx: Device (D17.2.97). All else is taken as Normal.
            device: attributes & 0xf0 == 0,
            not_global: leaf.attributes.ng(),
            size_log2: leaf.size_log2,
            attributes,
            // Device memory and memory that no cache holds are outer shareable, whatever SH says (D8.6.2).
            shareability: if attributes & 0xf0 == 0 || attributes == NON_CACHEABLE {
                2
            } else {
                leaf.attributes.sh()
            },
        })
    }

    /// The physical address of `va`, if it is mapped at all.
    pub(crate) fn look_up<M: TableMemory + ?Sized>(&self, va: u64, memory: &M) -> Option<u64> {
        if !self.mmu_on {
            return self.flat(va, AccessKind::Read).ok().map(|page| page.pa | va & (PAGE - 1));
        }
        let side = self.side(va);
        let params = side.walk.filter(|_| vmsa::in_range(va, side.input_bits, side.tbi))?;
        let params = WalkParams { access_flag_ignored: true, ..params };
        vmsa::walk(&params, va, memory).ok().map(|leaf| leaf.translate(va))
    }

    /// Stage 1 off (D8.2.10): a flat map, Device-nGnRnE for data, Normal for instructions.
    fn flat(&self, va: u64, kind: AccessKind) -> Result<Page, FaultStatus> {
        let address = if self.side(va).tbi { va & (u64::MAX >> 8) } else { va };
        if address >> PA_BITS != 0 {
            return Err(FaultStatus::address_size(0));
        }
        Ok(Page {
            pa: address & !(PAGE - 1),
            permissions: Permissions::ALL,
            device: kind != AccessKind::Execute,
            not_global: false,
            size_log2: super::tlb::PAGE_SHIFT as u8,
            attributes: 0, // Device-nGnRnE
            shareability: 2,
        })
    }
}
