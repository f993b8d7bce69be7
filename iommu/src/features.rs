//! What this SMMU can do: the source of the ID registers and of the checks of guest structures.
//!
//! A feature that is not modelled has no field here, so it can be neither advertised nor accepted.

use hw::Pasid;
use vmsa::Granule;

use crate::spec::regs::{Idr0, Idr1, Idr3, Idr5};

/// SMMU_IDR0.STALL_MODEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallModel {
    /// A context chooses if its faults stall.
    StallAndTerminate,
    /// Faults never stall.
    TerminateOnly,
    /// Faults always stall.
    StallForced,
}

/// A physical address size that IDR5.OAS can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSize(u8);

impl OutputSize {
    /// 40 bits.
    pub const BITS_40: Self = Self(2);
    /// 44 bits.
    pub const BITS_44: Self = Self(4);
    /// 48 bits.
    pub const BITS_48: Self = Self(5);
    /// 52 bits; reached with the 64 KiB granule.
    pub const BITS_52: Self = Self(6);

    /// Address bits of an OAS, IPS or PS encoding; 7 behaves as 6.
    #[must_use]
    pub const fn bits_of(encoding: u8) -> u32 {
        match encoding {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        }
    }

    /// In bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        Self::bits_of(self.0)
    }
}

/// Hardware update of translation table flags (IDR0.HTTU).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Httu {
    /// None.
    None,
    /// Of the access flag.
    AccessFlag,
    /// Of access flag and dirty state.
    Dirty,
}

/// What the SMMU offers. Stage 1 with two-level tables, 16-bit ASIDs, range invalidation and little-endian AArch64
/// tables always; the rest is chosen here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Bits of a StreamID (IDR1.SIDSIZE), at most 32.
    pub sid_bits: u8,
    /// Bits of a SubstreamID (IDR1.SSIDSIZE), at most 20; 0: no SubstreamIDs.
    pub ssid_bits: u8,
    /// Physical address size (IDR5.OAS).
    pub output: OutputSize,
    /// 4 KiB granule.
    pub gran4k: bool,
    /// 16 KiB granule.
    pub gran16k: bool,
    /// 64 KiB granule.
    pub gran64k: bool,
    /// Stalls (IDR0.STALL_MODEL).
    pub stall_model: StallModel,
    /// Most unanswered stall records (IDR5.STALL_MAX); at least 1.
    pub stall_max: u16,
    /// Message signalled interrupts and CMD_SYNC completion by a write to memory (IDR0.MSI).
    pub msi: bool,
    /// Table and queue accesses are coherent (IDR0.COHACC). This is what the guest is told; they are coherent either
    /// way.
    pub cohacc: bool,
    /// Stage 2 (IDR0.S2P), and with it 16-bit VMIDs and the EL2 stream worlds (IDR0.HYP).
    pub stage2: bool,
    /// Hardware update of translation table flags (IDR0.HTTU).
    pub httu: Httu,
    /// 52-bit virtual addresses with the 64 KiB granule (IDR5.VAX).
    pub va52: bool,
    /// Log2 of the most command queue entries (IDR1.CMDQS), at most 19.
    pub cmdq_log2: u8,
    /// Log2 of the most event queue entries (IDR1.EVENTQS), at most 19.
    pub eventq_log2: u8,
    /// Address translation services (IDR0.ATS).
    pub ats: bool,
    /// The page request queue (IDR0.PRI). Only with `ats`.
    pub pri: bool,
    /// Log2 of the most page request queue entries (IDR1.PRIQS), at most 19.
    pub priq_log2: u8,
    /// With `ats`: errors of the configuration that requests and translated accesses meet may be recorded
    /// (IDR0.ATSRECERR).
    pub ats_errors: bool,
    /// Small translation tables (IDR3.STT): input sizes down to 16 bits, 17 with the 64 KiB granule.
    pub small_tables: bool,
}

impl Default for Features {
    /// For a PCI segment on a 48-bit machine: both stages.
    fn default() -> Self {
        Self {
            sid_bits: 16,
            ssid_bits: 20,
            output: OutputSize::BITS_48,
            gran4k: true,
            gran16k: true,
            gran64k: true,
            stall_model: StallModel::StallAndTerminate,
            stall_max: 256,
            msi: true,
            cohacc: true,
            stage2: true,
            httu: Httu::Dirty,
            va52: false,
            cmdq_log2: 12,
            eventq_log2: 12,
            ats: true,
            pri: true,
            priq_log2: 12,
            ats_errors: true,
            small_tables: true,
        }
    }
}

impl Features {
    /// An SMMU without stage 2, EL2 stream worlds and hardware update of tables: the least that shares processes'
    /// address spaces.
    #[must_use]
    pub fn stage1_only() -> Self {
        Self { stage2: false, httu: Httu::None, ..Self::default() }
    }

    /// SMMU_AIDR: SMMUv3.2, with all that it makes mandatory (RIL, BBML, FWB where there is stage 2). Of SMMUv3.3, which a
    /// machine may have in parts, there is IDR0.ATSRECERR.
    pub const AIDR: u32 = 0x02;

    /// Whether every number is one that its ID register field allows.
    pub(crate) const fn are_sound(&self) -> bool {
        self.sid_bits <= 32
            && self.ssid_bits <= 20
            && self.stall_max >= 1
            && self.cmdq_log2 <= 19
            && self.eventq_log2 <= 19
            && self.priq_log2 <= 19
            && (self.ats || !self.pri)
            && (self.gran4k || self.gran16k || self.gran64k)
            && (self.gran64k || !(self.va52 || self.has_52_bit_output()))
    }

    pub(crate) fn idr0(&self) -> Idr0 {
        Idr0::new()
            .with_s2p(self.stage2)
            .with_s1p(true)
            .with_hyp(self.stage2)
            .with_vmid16(self.stage2)
            .with_httu(self.httu as u8)
            .with_ttf(2) // AArch64
            .with_cohacc(self.cohacc)
            .with_asid16(true)
            .with_msi(self.msi)
            .with_ats(self.ats)
            .with_pri(self.pri)
            .with_atsrecerr(self.can_record_ats_errors())
            .with_cd2l(true)
            .with_ttendian(2) // little
            .with_stall_model(match self.stall_model {
                StallModel::StallAndTerminate => 0,
                StallModel::TerminateOnly => 1,
                StallModel::StallForced => 2,
            })
            .with_term_model(true)
            .with_st_level(1)
    }

    pub(crate) fn idr1(&self) -> Idr1 {
        Idr1::new()
            .with_sidsize(self.sid_bits)
            .with_ssidsize(self.ssid_bits)
            .with_eventqs(self.eventq_log2)
            .with_priqs(if self.pri { self.priq_log2 } else { 0 })
            .with_cmdqs(self.cmdq_log2)
            .with_attr_perms_ovr(true)
            .with_attr_types_ovr(true)
    }

    pub(crate) fn idr3(&self) -> Idr3 {
        // BBML 2: of two sizes for one address either may answer, and an invalidation by address takes both.
        Idr3::new()
            .with_had(true)
            .with_stt(self.small_tables)
            .with_ril(true)
            .with_bbml(2)
            .with_xnx(self.stage2)
            .with_fwb(self.stage2)
            .with_pps(self.keeps_pasid_on_overflow())
    }

    pub(crate) fn idr5(&self) -> Idr5 {
        Idr5::new()
            .with_oas(self.output.0)
            .with_gran4k(self.gran4k)
            .with_gran16k(self.gran16k)
            .with_gran64k(self.gran64k)
            .with_vax(self.va52.into())
            .with_stall_max(if self.can_stall() { self.stall_max } else { 0 })
    }

    /// Largest TxSZ of tables with this granule.
    pub(crate) const fn most_tsz(&self, granule: Granule) -> u8 {
        match (self.small_tables, granule) {
            (false, _) => 39,
            (true, Granule::K64) => 47,
            (true, _) => 48,
        }
    }

    /// The PASID of a message to or from an endpoint: without SubstreamIDs no message has one (4.5, chapter 8).
    pub(crate) fn pasid(&self, of_message: Option<Pasid>) -> Option<Pasid> {
        of_message.filter(|_| self.ssid_bits != 0)
    }

    /// Responses to page requests that overflow the queue keep the PASID (IDR3.PPS).
    pub(crate) const fn keeps_pasid_on_overflow(&self) -> bool {
        self.pri && self.ssid_bits != 0
    }

    pub(crate) const fn can_record_ats_errors(&self) -> bool {
        self.ats && self.ats_errors
    }

    pub(crate) const fn can_stall(&self) -> bool {
        !matches!(self.stall_model, StallModel::TerminateOnly)
    }

    /// Whether a table may have its access flags (HA) and dirty state (HD) updated by hardware.
    pub(crate) fn allows_updates(&self, ha: bool, hd: bool) -> bool {
        (!ha || self.httu >= Httu::AccessFlag) && (!hd || self.httu >= Httu::Dirty)
    }

    pub(crate) const fn has_granule(&self, granule: Granule) -> bool {
        match granule {
            Granule::K4 => self.gran4k,
            Granule::K16 => self.gran16k,
            Granule::K64 => self.gran64k,
        }
    }

    /// Whether there are physical addresses of 52 bits.
    pub(crate) const fn has_52_bit_output(&self) -> bool {
        self.output.bits() > 48
    }

    /// Output address bits of tables with an IPS or S2PS: no more than there are, nor than the granule can give.
    pub(crate) const fn output_bits(&self, encoding: u8, granule: Granule) -> u32 {
        let (asked, there) = (OutputSize::bits_of(encoding), self.output.bits());
        let bits = if asked < there { asked } else { there };
        if bits > 48 && !matches!(granule, Granule::K64) { 48 } else { bits }
    }

    /// The bits of an address that reach the physical address space: what queues and MSIs are truncated to.
    pub(crate) const fn output_mask(&self) -> u64 {
        !(u64::MAX << self.output.bits())
    }

    /// Whether an address lies in the physical address space.
    pub(crate) const fn in_output_range(&self, address: u64) -> bool {
        address & !self.output_mask() == 0
    }
}
