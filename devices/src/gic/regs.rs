//! Register maps of the frames and the fields of their registers (IHI 0069, chapter 12).
//!
//! Registers of the GICv2 legacy, of the second Security state and of absent features are left out: they are
//! reserved, read as zero and ignore writes.

use bitfield_struct::bitfield;

hw::register_map! {
    /// The distributor (12.9).
    pub enum DistributorReg {
        GICD_CTLR @ 0x0000: 4 Rw(0x3) = 0x50, "12.9";
        // Computed from the number of SPIs.
        GICD_TYPER @ 0x0004: 4 Ro(0) = 0, "12.9";
        GICD_IIDR @ 0x0008: 4 Ro(0) = 0x43b, "12.9";
        GICD_TYPER2 @ 0x000c: 4 Ro(0) = 0, "12.9";
        GICD_IGROUPR[32; 4] @ 0x0080: 4 Rw(0xffff_ffff) = 0, "12.9";
        GICD_ISENABLER[32; 4] @ 0x0100: 4 Special(0xffff_ffff) = 0, "12.9";
        GICD_ICENABLER[32; 4] @ 0x0180: 4 Special(0xffff_ffff) = 0, "12.9";
        GICD_ISPENDR[32; 4] @ 0x0200: 4 Special(0xffff_ffff) = 0, "12.9";
        GICD_ICPENDR[32; 4] @ 0x0280: 4 Special(0xffff_ffff) = 0, "12.9";
        GICD_ISACTIVER[32; 4] @ 0x0300: 4 Special(0xffff_ffff) = 0, "12.9";
        GICD_ICACTIVER[32; 4] @ 0x0380: 4 Special(0xffff_ffff) = 0, "12.9";
        GICD_IPRIORITYR[255; 4] @ 0x0400: 4 Rw(0xf8f8_f8f8) = 0, "12.9";
        GICD_ICFGR[64; 4] @ 0x0c00: 4 Rw(0xaaaa_aaaa) = 0, "12.9";
        GICD_IROUTER[988; 8] @ 0x6100: 8 Rw(0xff_00ff_ffff) = 0, "12.9";
        GICD_PIDR4 @ 0xffd0: 4 Ro(0) = 0x44, "12.1";
        GICD_PIDR0 @ 0xffe0: 4 Ro(0) = 0x92, "12.1";
        GICD_PIDR1 @ 0xffe4: 4 Ro(0) = 0xb4, "12.1";
        GICD_PIDR2 @ 0xffe8: 4 Ro(0) = 0x3b, "12.9";
        GICD_CIDR0 @ 0xfff0: 4 Ro(0) = 0x0d, "12.1";
        GICD_CIDR1 @ 0xfff4: 4 Ro(0) = 0xf0, "12.1";
        GICD_CIDR2 @ 0xfff8: 4 Ro(0) = 0x05, "12.1";
        GICD_CIDR3 @ 0xfffc: 4 Ro(0) = 0xb1, "12.1";
    }
}

hw::register_map! {
    /// One PE's redistributor: the RD frame (12.11), then the SGI frame (12.11, from 0x10000).
    pub enum RedistributorReg {
        GICR_CTLR @ 0x0000: 4 Rw(0x1) = 0x6, "12.11";
        GICR_IIDR @ 0x0004: 4 Ro(0) = 0x43b, "12.11";
        // Computed from the PE's number and affinity.
        GICR_TYPER @ 0x0008: 8 Ro(0) = 0, "12.11";
        GICR_WAKER @ 0x0014: 4 Rw(0x2) = 0x6, "12.11";
        GICR_PROPBASER @ 0x0070: 8 Rw(0x070f_ffff_ffff_ff9f) = 0, "12.11";
        GICR_PENDBASER @ 0x0078: 8 Rw(0x470f_ffff_ffff_0f80) = 0, "12.11";
        GICR_INVLPIR @ 0x00a0: 8 Wo(0xffff_ffff) = 0, "12.11";
        GICR_INVALLR @ 0x00b0: 8 Wo(0) = 0, "12.11";
        GICR_SYNCR @ 0x00c0: 4 Ro(0) = 0, "12.11";
        GICR_PIDR4 @ 0xffd0: 4 Ro(0) = 0x44, "12.1";
        GICR_PIDR0 @ 0xffe0: 4 Ro(0) = 0x93, "12.1";
        GICR_PIDR1 @ 0xffe4: 4 Ro(0) = 0xb4, "12.1";
        GICR_PIDR2 @ 0xffe8: 4 Ro(0) = 0x3b, "12.11";
        GICR_CIDR0 @ 0xfff0: 4 Ro(0) = 0x0d, "12.1";
        GICR_CIDR1 @ 0xfff4: 4 Ro(0) = 0xf0, "12.1";
        GICR_CIDR2 @ 0xfff8: 4 Ro(0) = 0x05, "12.1";
        GICR_CIDR3 @ 0xfffc: 4 Ro(0) = 0xb1, "12.1";
        GICR_IGROUPR0 @ 0x1_0080: 4 Rw(0xffff_ffff) = 0, "12.11";
        GICR_ISENABLER0 @ 0x1_0100: 4 Special(0xffff_ffff) = 0, "12.11";
        GICR_ICENABLER0 @ 0x1_0180: 4 Special(0xffff_ffff) = 0, "12.11";
        GICR_ISPENDR0 @ 0x1_0200: 4 Special(0xffff_ffff) = 0, "12.11";
        GICR_ICPENDR0 @ 0x1_0280: 4 Special(0xffff_ffff) = 0, "12.11";
        GICR_ISACTIVER0 @ 0x1_0300: 4 Special(0xffff_ffff) = 0, "12.11";
        GICR_ICACTIVER0 @ 0x1_0380: 4 Special(0xffff_ffff) = 0, "12.11";
        GICR_IPRIORITYR[8; 4] @ 0x1_0400: 4 Rw(0xf8f8_f8f8) = 0, "12.11";
        // SGIs are always edge-triggered.
        GICR_ICFGR0 @ 0x1_0c00: 4 Ro(0) = 0xaaaa_aaaa, "12.11";
        GICR_ICFGR1 @ 0x1_0c04: 4 Rw(0xaaaa_aaaa) = 0, "12.11";
    }
}

hw::register_map! {
    /// The ITS: the control frame (12.19), then the translation frame (12.20, from 0x10000).
    pub enum ItsReg {
        GITS_CTLR @ 0x0000: 4 Rw(0x1) = 0x8000_0000, "12.19";
        GITS_IIDR @ 0x0004: 4 Ro(0) = 0x43b, "12.19";
        // See `GitsTyper`.
        GITS_TYPER @ 0x0008: 8 Ro(0) = 0x1f_0002_0f71, "12.19";
        GITS_CBASER @ 0x0080: 8 Rw(0xb8ef_ffff_ffff_fcff) = 0, "12.19";
        GITS_CWRITER @ 0x0088: 8 Special(0xf_ffe0) = 0, "12.19";
        GITS_CREADR @ 0x0090: 8 Ro(0) = 0, "12.19";
        // Two tables: GITS_BASER0 for devices, GITS_BASER1 for collections. The others are not implemented.
        GITS_BASER0 @ 0x0100: 8 Rw(0xf8e0_ffff_ffff_ffff) = 0x0107_0000_0000_0000, "12.19";
        GITS_BASER1 @ 0x0108: 8 Rw(0xb8e0_ffff_ffff_ffff) = 0x0407_0000_0000_0000, "12.19";
        GITS_PIDR4 @ 0xffd0: 4 Ro(0) = 0x44, "12.1";
        GITS_PIDR0 @ 0xffe0: 4 Ro(0) = 0x94, "12.1";
        GITS_PIDR1 @ 0xffe4: 4 Ro(0) = 0xb4, "12.1";
        GITS_PIDR2 @ 0xffe8: 4 Ro(0) = 0x3b, "12.19";
        GITS_CIDR0 @ 0xfff0: 4 Ro(0) = 0x0d, "12.1";
        GITS_CIDR1 @ 0xfff4: 4 Ro(0) = 0xf0, "12.1";
        GITS_CIDR2 @ 0xfff8: 4 Ro(0) = 0x05, "12.1";
        GITS_CIDR3 @ 0xfffc: 4 Ro(0) = 0xb1, "12.1";
        // A message needs a DeviceID: it comes by `MsiSink`. A PE has none, so its writes are ignored.
        GITS_TRANSLATER @ 0x1_0040: 4 Wo(0) = 0, "12.20";
    }
}

/// GICD_CTLR with one Security state (12.9).
#[bitfield(u32)]
pub(super) struct GicdCtlr {
    pub(super) enable_grp0: bool,
    pub(super) enable_grp1: bool,
    #[bits(2)]
    _res0: u32,
    /// Affinity routing: always one.
    pub(super) are: bool,
    _res0b: bool,
    /// Security disabled: always one.
    pub(super) ds: bool,
    #[bits(25)]
    _rest: u32,
}

/// GICD_TYPER (12.9).
#[bitfield(u32)]
pub(super) struct GicdTyper {
    /// INTIDs in units of 32, less one.
    #[bits(5)]
    pub(super) it_lines_number: u32,
    #[bits(3)]
    _cpu_number: u32,
    _espi: bool,
    _nmi: bool,
    _security_extn: bool,
    #[bits(5)]
    _num_lpis: u32,
    _mbis: bool,
    pub(super) lpis: bool,
    _dvis: bool,
    /// Bits of an INTID, less one.
    #[bits(5)]
    pub(super) id_bits: u32,
    /// Aff3 may be other than zero.
    pub(super) a3v: bool,
    pub(super) no_1_of_n: bool,
    /// SGIs reach Aff0 values above 15.
    pub(super) rss: bool,
    #[bits(5)]
    _espi_range: u32,
}

/// GICR_CTLR (12.11).
#[bitfield(u32)]
pub(super) struct GicrCtlr {
    pub(super) enable_lpis: bool,
    /// Clear Enable Supported: EnableLPIs can be cleared.
    pub(super) ces: bool,
    /// GICR_INVLPIR, GICR_INVALLR and GICR_SYNCR are implemented.
    pub(super) ir: bool,
    #[bits(29)]
    _rest: u32,
}

/// GICR_TYPER (12.11).
#[bitfield(u64)]
pub(super) struct GicrTyper {
    pub(super) plpis: bool,
    #[bits(3)]
    _vlpis_dirty_direct: u64,
    pub(super) last: bool,
    #[bits(3)]
    _mpam_dpgs: u64,
    #[bits(16)]
    pub(super) processor_number: u64,
    /// 0: all redistributors share one LPI configuration table.
    #[bits(2)]
    _common_lpi_aff: u64,
    #[bits(6)]
    _vsgi_ppinum: u64,
    #[bits(32)]
    pub(super) affinity: u64,
}

/// GICR_WAKER (12.11).
#[bitfield(u32)]
pub(super) struct GicrWaker {
    _implementation: bool,
    pub(super) processor_sleep: bool,
    pub(super) children_asleep: bool,
    #[bits(29)]
    _rest: u32,
}

/// GICR_PROPBASER (12.11).
#[bitfield(u64)]
pub(super) struct Propbaser {
    /// Bits of an INTID, less one.
    #[bits(5)]
    pub(super) id_bits: u32,
    #[bits(7)]
    _attributes: u64,
    /// Address bits \[51:12\].
    #[bits(40)]
    pub(super) page: u64,
    #[bits(12)]
    _more_attributes: u64,
}

/// GICR_PENDBASER (12.11).
#[bitfield(u64)]
pub(super) struct Pendbaser {
    #[bits(16)]
    _attributes: u64,
    /// Address bits \[51:16\].
    #[bits(36)]
    pub(super) page: u64,
    #[bits(10)]
    _more_attributes: u64,
    /// Pending table zero: nothing needs to be read. Reads as zero.
    pub(super) ptz: bool,
    _res0: bool,
}

/// GITS_TYPER (12.19).
#[bitfield(u64)]
pub(super) struct GitsTyper {
    pub(super) physical: bool,
    _virtual: bool,
    _cct: bool,
    _impl: bool,
    /// Bytes of an interrupt translation entry, less one.
    #[bits(4)]
    pub(super) itt_entry_size: u64,
    /// Bits of an EventID, less one.
    #[bits(5)]
    pub(super) id_bits: u64,
    /// Bits of a DeviceID, less one.
    #[bits(5)]
    pub(super) dev_bits: u64,
    _seis: bool,
    /// RDbase is an address, else a processor number.
    pub(super) pta: bool,
    #[bits(4)]
    _res0: u64,
    /// Collections kept in hardware.
    #[bits(8)]
    pub(super) hcc: u64,
    /// Bits of an ICID, less one, if `cil`.
    #[bits(4)]
    pub(super) cid_bits: u64,
    pub(super) cil: bool,
    #[bits(27)]
    _rest: u64,
}

/// GITS_CBASER (12.19).
#[bitfield(u64)]
pub(super) struct Cbaser {
    /// 4 KiB pages, less one.
    #[bits(8)]
    pub(super) size: u64,
    #[bits(4)]
    _attributes: u64,
    /// Address bits \[51:12\].
    #[bits(40)]
    pub(super) page: u64,
    #[bits(11)]
    _more_attributes: u64,
    pub(super) valid: bool,
}

/// GITS_BASERn (12.19).
#[bitfield(u64)]
pub(super) struct Baser {
    /// Pages, less one.
    #[bits(8)]
    pub(super) size: u64,
    /// 4, 16 or 64 KiB.
    #[bits(2)]
    pub(super) page_size: u64,
    #[bits(2)]
    _shareability: u64,
    /// Address bits \[47:12\]; with 64 KiB pages, the low four are address bits \[51:48\].
    #[bits(36)]
    pub(super) page: u64,
    /// Bytes of an entry, less one.
    #[bits(5)]
    pub(super) entry_size: u64,
    #[bits(3)]
    _outer_cache: u64,
    #[bits(3)]
    pub(super) table_type: u64,
    #[bits(3)]
    _inner_cache: u64,
    /// Two levels: the table holds addresses of pages of entries.
    pub(super) indirect: bool,
    pub(super) valid: bool,
}
