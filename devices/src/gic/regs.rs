//! Register maps of the frames and the fields of their registers (IHI 0069, chapter 12).
//!
//! Registers of the GICv2 legacy, of the second Security state and of absent features are left out: they are
//! reserved, read as zero and ignore writes.

use bitfield_struct::bitfield;
use hw::SysReg;

hw::register_map! {
    /// The distributor (12.9).
    pub enum DistributorReg {
        GICD_CTLR @ 0x0000: 4 Rw(0x3) = 0x50, "12.9" {
            DS[6] "one Security state";
            ARE[4] "affinity routing";
            EnableGrp1[1] "interrupts of group 1 are forwarded";
            EnableGrp0[0] "interrupts of group 0 are forwarded";
        };
        GICD_TYPER @ 0x0004: 4 Ro(0) = 0, "12.9" {
            RSS[26] "SGIs reach Aff0 above 15";
            No1N[25] "no SPI for any one of several PEs";
            A3V[24] "Aff3 may be other than zero";
            IDbits[23:19] "bits of an INTID, less one";
            LPIS[17] "there are LPIs";
            ITLinesNumber[4:0] "INTIDs in units of 32, less one";
        };
        /// Designer Arm, no product.
        GICD_IIDR @ 0x0008: 4 Ro(0) = 0x43b, "12.9";
        /// Nothing is offered.
        GICD_TYPER2 @ 0x000c: 4 Ro(0) = 0, "12.9";
        /// A bit for each INTID: group 1, not 0.
        GICD_IGROUPR[32; 4] @ 0x0080: 4 Rw(0xffff_ffff) = 0, "12.9";
        /// A bit for each INTID: reads whether it is enabled; ones enable.
        GICD_ISENABLER[32; 4] @ 0x0100: 4 Special(0xffff_ffff) = 0, "12.9";
        /// As before; ones disable.
        GICD_ICENABLER[32; 4] @ 0x0180: 4 Special(0xffff_ffff) = 0, "12.9";
        /// A bit for each INTID: reads whether it is pending; ones make it so.
        GICD_ISPENDR[32; 4] @ 0x0200: 4 Special(0xffff_ffff) = 0, "12.9";
        /// As before; ones end what an edge or software has made pending.
        GICD_ICPENDR[32; 4] @ 0x0280: 4 Special(0xffff_ffff) = 0, "12.9";
        /// A bit for each INTID: reads whether it is active; ones make it so.
        GICD_ISACTIVER[32; 4] @ 0x0300: 4 Special(0xffff_ffff) = 0, "12.9";
        /// As before; ones deactivate.
        GICD_ICACTIVER[32; 4] @ 0x0380: 4 Special(0xffff_ffff) = 0, "12.9";
        /// A byte for each INTID, of 32 levels. Takes bytes.
        GICD_IPRIORITYR[255; 4] @ 0x0400: 4 Rw(0xf8f8_f8f8) = 0, "12.9";
        /// Two bits for each INTID, the upper one: edge-triggered.
        GICD_ICFGR[64; 4] @ 0x0c00: 4 Rw(0xaaaa_aaaa) = 0, "12.9";
        GICD_IROUTER[988; 8] @ 0x6100: 8 Rw(0xff_00ff_ffff) = 0, "12.9" {
            Aff3[39:32] "the PE's";
            Aff2[23:16] "the PE's";
            Aff1[15:8] "the PE's";
            Aff0[7:0] "the PE's";
        };
        /// Continuation code of the designer, and the size of the frame.
        GICD_PIDR4 @ 0xffd0: 4 Ro(0) = 0x44, "12.1";
        /// Part number, low.
        GICD_PIDR0 @ 0xffe0: 4 Ro(0) = 0x92, "12.1";
        /// Part number, high, and designer.
        GICD_PIDR1 @ 0xffe4: 4 Ro(0) = 0xb4, "12.1";
        GICD_PIDR2 @ 0xffe8: 4 Ro(0) = 0x3b, "12.9" {
            ArchRev[7:4] "3: GICv3";
            Other[3:0] "designer";
        };
        /// Component identification.
        GICD_CIDR0 @ 0xfff0: 4 Ro(0) = 0x0d, "12.1";
        /// Component identification.
        GICD_CIDR1 @ 0xfff4: 4 Ro(0) = 0xf0, "12.1";
        /// Component identification.
        GICD_CIDR2 @ 0xfff8: 4 Ro(0) = 0x05, "12.1";
        /// Component identification.
        GICD_CIDR3 @ 0xfffc: 4 Ro(0) = 0xb1, "12.1";
    }
}

hw::register_map! {
    /// One PE's redistributor: the RD frame (12.11), then the SGI frame (12.11, from 0x10000).
    pub enum RedistributorReg {
        GICR_CTLR @ 0x0000: 4 Rw(0x1) = 0x6, "12.11" {
            IR[2] "invalidation by register";
            CES[1] "EnableLPIs can be cleared";
            EnableLPIs[0] "LPIs are forwarded";
        };
        /// Designer Arm, no product.
        GICR_IIDR @ 0x0004: 4 Ro(0) = 0x43b, "12.11";
        GICR_TYPER @ 0x0008: 8 Ro(0) = 0, "12.11" {
            Affinity[63:32] "the PE's";
            CommonLPIAff[25:24] "0: all share one configuration table";
            Processor_Number[23:8] "the PE's, for the ITS";
            Last[4] "the last redistributor";
            PLPIS[0] "there are LPIs";
        };
        GICR_WAKER @ 0x0014: 4 Rw(0x2) = 0x6, "12.11" {
            ChildrenAsleep[2] "the CPU interface takes no interrupts";
            ProcessorSleep[1] "the PE is not to be interrupted";
        };
        GICR_PROPBASER @ 0x0070: 8 Rw(0x070f_ffff_ffff_ff9f) = 0, "12.11" fixed(ENABLE_LPIS) {
            OuterCache[58:56] "outer cacheability";
            Physical_Address[51:12] "where the configurations of LPIs lie";
            Shareability[11:10] "of the table";
            InnerCache[9:7] "inner cacheability";
            IDbits[4:0] "bits of an INTID, less one";
        };
        GICR_PENDBASER @ 0x0078: 8 Rw(0x470f_ffff_ffff_0f80) = 0, "12.11" fixed(ENABLE_LPIS) {
            PTZ[62] "the table is zero; reads as zero";
            OuterCache[58:56] "outer cacheability";
            Physical_Address[51:16] "where the pending bits of LPIs lie";
            Shareability[11:10] "of the table";
            InnerCache[9:7] "inner cacheability";
        };
        GICR_INVLPIR @ 0x00a0: 8 Wo(0xffff_ffff) = 0, "12.11" {
            INTID[31:0] "whose configuration is read anew";
        };
        /// A write has all configurations read anew.
        GICR_INVALLR @ 0x00b0: 8 Wo(0) = 0, "12.11";
        /// Not busy: invalidations are done when their writes return.
        GICR_SYNCR @ 0x00c0: 4 Ro(0) = 0, "12.11";
        /// Continuation code of the designer, and the size of the frame.
        GICR_PIDR4 @ 0xffd0: 4 Ro(0) = 0x44, "12.1";
        /// Part number, low.
        GICR_PIDR0 @ 0xffe0: 4 Ro(0) = 0x93, "12.1";
        /// Part number, high, and designer.
        GICR_PIDR1 @ 0xffe4: 4 Ro(0) = 0xb4, "12.1";
        GICR_PIDR2 @ 0xffe8: 4 Ro(0) = 0x3b, "12.11" {
            ArchRev[7:4] "3: GICv3";
            Other[3:0] "designer";
        };
        /// Component identification.
        GICR_CIDR0 @ 0xfff0: 4 Ro(0) = 0x0d, "12.1";
        /// Component identification.
        GICR_CIDR1 @ 0xfff4: 4 Ro(0) = 0xf0, "12.1";
        /// Component identification.
        GICR_CIDR2 @ 0xfff8: 4 Ro(0) = 0x05, "12.1";
        /// Component identification.
        GICR_CIDR3 @ 0xfffc: 4 Ro(0) = 0xb1, "12.1";
        /// A bit for each SGI and PPI: group 1, not 0.
        GICR_IGROUPR0 @ 0x1_0080: 4 Rw(0xffff_ffff) = 0, "12.11";
        /// A bit for each: reads whether it is enabled; ones enable.
        GICR_ISENABLER0 @ 0x1_0100: 4 Special(0xffff_ffff) = 0, "12.11";
        /// As before; ones disable.
        GICR_ICENABLER0 @ 0x1_0180: 4 Special(0xffff_ffff) = 0, "12.11";
        /// A bit for each: reads whether it is pending; ones make it so.
        GICR_ISPENDR0 @ 0x1_0200: 4 Special(0xffff_ffff) = 0, "12.11";
        /// As before; ones end what an edge or software has made pending.
        GICR_ICPENDR0 @ 0x1_0280: 4 Special(0xffff_ffff) = 0, "12.11";
        /// A bit for each: reads whether it is active; ones make it so.
        GICR_ISACTIVER0 @ 0x1_0300: 4 Special(0xffff_ffff) = 0, "12.11";
        /// As before; ones deactivate.
        GICR_ICACTIVER0 @ 0x1_0380: 4 Special(0xffff_ffff) = 0, "12.11";
        /// A byte for each, of 32 levels. Takes bytes.
        GICR_IPRIORITYR[8; 4] @ 0x1_0400: 4 Rw(0xf8f8_f8f8) = 0, "12.11";
        /// SGIs are always edge-triggered.
        GICR_ICFGR0 @ 0x1_0c00: 4 Ro(0) = 0xaaaa_aaaa, "12.11";
        /// Two bits for each PPI, the upper one: edge-triggered.
        GICR_ICFGR1 @ 0x1_0c04: 4 Rw(0xaaaa_aaaa) = 0, "12.11";
    }
    /// What registers of a redistributor depend on.
    pub enum RedistributorCondition {
        ENABLE_LPIS "GICR_CTLR.EnableLPIs is 1";
    }
}

hw::register_map! {
    /// The ITS: the control frame (12.19), then the translation frame (12.20, from 0x10000).
    pub enum ItsReg {
        GITS_CTLR @ 0x0000: 4 Rw(0x1) = 0x8000_0000, "12.19" {
            Quiescent[31] "nothing is under way";
            Enabled[0] "commands and messages are taken";
        };
        /// Designer Arm, no product.
        GITS_IIDR @ 0x0004: 4 Ro(0) = 0x43b, "12.19";
        GITS_TYPER @ 0x0008: 8 Ro(0) = 0x1f_0002_0f71, "12.19" {
            CIL[36] "CIDbits counts";
            CIDbits[35:32] "bits of a collection's number, less one";
            HCC[31:24] "collections kept in hardware";
            PTA[19] "a redistributor is named by address, not by number";
            Devbits[17:13] "bits of a DeviceID, less one";
            ID_bits[12:8] "bits of an EventID, less one";
            ITT_entry_size[7:4] "bytes of a translation, less one";
            Physical[0] "physical LPIs";
        };
        GITS_CBASER @ 0x0080: 8 Rw(0xb8ef_ffff_ffff_fcff) = 0, "12.19" fixed(ENABLED) {
            Valid[63] "there is a queue";
            InnerCache[61:59] "inner cacheability";
            OuterCache[55:53] "outer cacheability";
            Physical_Address[51:12] "where the queue lies";
            Shareability[11:10] "of the queue";
            Size[7:0] "pages of 4 KiB, less one";
        };
        GITS_CWRITER @ 0x0088: 8 Special(0xf_ffe0) = 0, "12.19" {
            Offset[19:5] "behind the last command";
        };
        GITS_CREADR @ 0x0090: 8 Ro(0) = 0, "12.19" {
            Offset[19:5] "of the next command";
        };
        // Two tables: GITS_BASER0 for devices, GITS_BASER1 for collections. The others are not implemented.
        GITS_BASER0 @ 0x0100: 8 Rw(0xf8e0_ffff_ffff_ffff) = 0x0107_0000_0000_0000, "12.19" fixed(ENABLED) {
            Valid[63] "there is a table";
            Indirect[62] "of two levels";
            InnerCache[61:59] "inner cacheability";
            Type[58:56] "1: devices";
            OuterCache[55:53] "outer cacheability";
            Entry_Size[52:48] "bytes, less one";
            Physical_Address[47:12] "where the table lies; with 64 KiB pages the low four bits are the highest of the address";
            Shareability[11:10] "of the table";
            Page_Size[9:8] "4, 16 or 64 KiB";
            Size[7:0] "pages, less one";
        };
        GITS_BASER1 @ 0x0108: 8 Rw(0xb8e0_ffff_ffff_ffff) = 0x0407_0000_0000_0000, "12.19" fixed(ENABLED) {
            Valid[63] "there is a table";
            Indirect[62] "one level only";
            InnerCache[61:59] "inner cacheability";
            Type[58:56] "4: collections";
            OuterCache[55:53] "outer cacheability";
            Entry_Size[52:48] "bytes, less one";
            Physical_Address[47:12] "where the table lies; with 64 KiB pages the low four bits are the highest of the address";
            Shareability[11:10] "of the table";
            Page_Size[9:8] "4, 16 or 64 KiB";
            Size[7:0] "pages, less one";
        };
        /// Continuation code of the designer, and the size of the frame.
        GITS_PIDR4 @ 0xffd0: 4 Ro(0) = 0x44, "12.1";
        /// Part number, low.
        GITS_PIDR0 @ 0xffe0: 4 Ro(0) = 0x94, "12.1";
        /// Part number, high, and designer.
        GITS_PIDR1 @ 0xffe4: 4 Ro(0) = 0xb4, "12.1";
        GITS_PIDR2 @ 0xffe8: 4 Ro(0) = 0x3b, "12.19" {
            ArchRev[7:4] "3: GICv3";
            Other[3:0] "designer";
        };
        /// Component identification.
        GITS_CIDR0 @ 0xfff0: 4 Ro(0) = 0x0d, "12.1";
        /// Component identification.
        GITS_CIDR1 @ 0xfff4: 4 Ro(0) = 0xf0, "12.1";
        /// Component identification.
        GITS_CIDR2 @ 0xfff8: 4 Ro(0) = 0x05, "12.1";
        /// Component identification.
        GITS_CIDR3 @ 0xfffc: 4 Ro(0) = 0xb1, "12.1";
        /// A message needs a DeviceID: it comes by `MsiSink`. A PE has none, so its writes are ignored.
        GITS_TRANSLATER @ 0x1_0040: 4 Wo(0) = 0, "12.20";
    }
    /// What registers of the ITS depend on.
    pub enum ItsCondition {
        ENABLED "GITS_CTLR.Enabled is 1";
    }
}

hw::register_map! {
    /// The CPU interface: system registers at EL1 (12.2).
    pub enum CpuInterfaceReg {
        /// Lowest priority that is not taken: only what is more urgent interrupts.
        ICC_PMR_EL1 @ (SysReg::place(3, 0, 4, 6, 0)): 8 Rw(0xf8) = 0, "12.2";
        /// A read acknowledges an interrupt of group 0 and gives its INTID.
        ICC_IAR0_EL1 @ (SysReg::place(3, 0, 12, 8, 0)): 8 Special(0) = 1023, "12.2";
        /// A write ends an interrupt of group 0.
        ICC_EOIR0_EL1 @ (SysReg::place(3, 0, 12, 8, 1)): 8 Wo(0xff_ffff) = 0, "12.2";
        /// The INTID that ICC_IAR0_EL1 would give.
        ICC_HPPIR0_EL1 @ (SysReg::place(3, 0, 12, 8, 2)): 8 Ro(0) = 1023, "12.2";
        ICC_BPR0_EL1 @ (SysReg::place(3, 0, 12, 8, 3)): 8 Special(0x7) = 2, "12.2" {
            BinaryPoint[2:0] "how much of a priority decides on preemption";
        };
        /// A bit for each priority that is active in group 0.
        ICC_AP0R0_EL1 @ (SysReg::place(3, 0, 12, 8, 4)): 8 Rw(0xffff_ffff) = 0, "12.2";
        /// A bit for each priority that is active in group 1.
        ICC_AP1R0_EL1 @ (SysReg::place(3, 0, 12, 9, 0)): 8 Rw(0xffff_ffff) = 0, "12.2";
        /// A write deactivates an interrupt, if ICC_CTLR_EL1.EOImode splits that off.
        ICC_DIR_EL1 @ (SysReg::place(3, 0, 12, 11, 1)): 8 Wo(0xff_ffff) = 0, "12.2";
        /// The priority of the interrupt that is running.
        ICC_RPR_EL1 @ (SysReg::place(3, 0, 12, 11, 3)): 8 Ro(0) = 0xff, "12.2";
        ICC_SGI1R_EL1 @ (SysReg::place(3, 0, 12, 11, 5)): 8 Wo(0x00ff_f1ff_0fff_ffff) = 0, "12.2" {
            Aff3[55:48] "of the PEs";
            RS[47:44] "which sixteen of Aff0";
            IRM[40] "all PEs but this one";
            Aff2[39:32] "of the PEs";
            INTID[27:24] "which SGI";
            Aff1[23:16] "of the PEs";
            TargetList[15:0] "a bit for each PE";
        };
        /// As ICC_SGI1R_EL1, of group 0: with one Security state the other's group 1 is group 0.
        ICC_ASGI1R_EL1 @ (SysReg::place(3, 0, 12, 11, 6)): 8 Wo(0x00ff_f1ff_0fff_ffff) = 0, "12.2";
        /// As ICC_SGI1R_EL1, of group 0.
        ICC_SGI0R_EL1 @ (SysReg::place(3, 0, 12, 11, 7)): 8 Wo(0x00ff_f1ff_0fff_ffff) = 0, "12.2";
        /// A read acknowledges an interrupt of group 1 and gives its INTID.
        ICC_IAR1_EL1 @ (SysReg::place(3, 0, 12, 12, 0)): 8 Special(0) = 1023, "12.2";
        /// A write ends an interrupt of group 1.
        ICC_EOIR1_EL1 @ (SysReg::place(3, 0, 12, 12, 1)): 8 Wo(0xff_ffff) = 0, "12.2";
        /// The INTID that ICC_IAR1_EL1 would give.
        ICC_HPPIR1_EL1 @ (SysReg::place(3, 0, 12, 12, 2)): 8 Ro(0) = 1023, "12.2";
        ICC_BPR1_EL1 @ (SysReg::place(3, 0, 12, 12, 3)): 8 Special(0x7) = 3, "12.2" fixed(CBPR) {
            BinaryPoint[2:0] "how much of a priority decides on preemption";
        };
        ICC_CTLR_EL1 @ (SysReg::place(3, 0, 12, 12, 4)): 8 Special(0x43) = 0, "12.2" {
            RSS[18] "SGIs reach Aff0 above 15";
            A3V[15] "Aff3 may be other than zero";
            IDbits[13:11] "bits of an INTID, encoded";
            PRIbits[10:8] "bits of a priority, less one";
            PMHE[6] "priority hint; held, without effect";
            EOImode[1] "an end only drops the priority";
            CBPR[0] "one binary point for both groups";
        };
        ICC_SRE_EL1 @ (SysReg::place(3, 0, 12, 12, 5)): 8 Ro(0) = 0x7, "12.2" {
            DIB[2] "no bypass of interrupts";
            DFB[1] "no bypass of fast interrupts";
            SRE[0] "system registers are on";
        };
        ICC_IGRPEN0_EL1 @ (SysReg::place(3, 0, 12, 12, 6)): 8 Rw(0x1) = 0, "12.2" {
            Enable[0] "interrupts of group 0 are taken";
        };
        ICC_IGRPEN1_EL1 @ (SysReg::place(3, 0, 12, 12, 7)): 8 Rw(0x1) = 0, "12.2" {
            Enable[0] "interrupts of group 1 are taken";
        };
    }
    /// What registers of the CPU interface depend on.
    pub enum CpuInterfaceCondition {
        CBPR "ICC_CTLR_EL1.CBPR is 1";
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
