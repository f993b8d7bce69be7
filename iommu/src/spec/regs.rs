//! The programming interface (chapter 6).

use bitfield_struct::bitfield;

/// Bytes of the register window: two pages of 64 KiB.
pub const WINDOW_BYTES: u64 = 0x2_0000;

hw::register_map! {
    /// SMMUv3 Non-secure programming interface. Arm IHI 0070, chapter 6.
    ///
    /// Section numbers move between issues of the specification; those here are of issue H.
    ///
    /// Absent, so RAZ/WI: the Secure registers, GATOS and VATOS, MPAM, DPT, command queue control pages.
    pub enum SmmuReg {
        SMMU_IDR0 @ 0x0_0000: 4 Ro(0) = 0, "6.3.1" {
            ST_LEVEL[28:27] "two-level stream tables";
            TERM_MODEL[26] "terminated transactions can only abort";
            STALL_MODEL[25:24] "stall, terminate, or both";
            ATSRECERR[23] "errors of translation requests can be recorded";
            TTENDIAN[22:21] "byte orders of translation tables";
            VATOS[20] "virtual address translation by register";
            CD2L[19] "two-level tables of context descriptors";
            VMID16[18] "16-bit VMIDs";
            VMW[17] "VMID wildcards";
            PRI[16] "page requests";
            ATOS[15] "address translation by register";
            SEV[14] "events to PEs";
            MSI[13] "interrupts as messages";
            ASID16[12] "16-bit ASIDs";
            NS1ATS[11] "no ATS with both stages split";
            ATS[10] "address translation services";
            HYP[9] "EL2 contexts";
            DORMHINT[8] "dormant hint";
            HTTU[7:6] "hardware update of access flag and dirty state";
            BTM[5] "broadcast TLB maintenance";
            COHACC[4] "coherent access to tables and queues";
            TTF[3:2] "formats of translation tables";
            S1P[1] "stage 1";
            S2P[0] "stage 2";
        };
        SMMU_IDR1 @ 0x0_0004: 4 Ro(0) = 0, "6.3.2" {
            ECMDQ[31] "command queue control pages";
            TABLES_PRESET[30] "table addresses are fixed";
            QUEUES_PRESET[29] "queue addresses are fixed";
            REL[28] "preset addresses are relative";
            ATTR_TYPES_OVR[27] "incoming types can be overridden";
            ATTR_PERMS_OVR[26] "incoming permissions can be overridden";
            CMDQS[25:21] "log2 of most commands";
            EVENTQS[20:16] "log2 of most events";
            PRIQS[15:11] "log2 of most page requests";
            SSIDSIZE[10:6] "bits of a SubstreamID";
            SIDSIZE[5:0] "bits of a StreamID";
        };
        /// Nothing is offered.
        SMMU_IDR2 @ 0x0_0008: 4 Ro(0) = 0, "6.3.3";
        SMMU_IDR3 @ 0x0_000c: 4 Ro(0) = 0, "6.3.4" {
            DPT[15] "device permission table";
            PTWNNC[14] "normal non-cacheable walks are as device ones";
            E0PD[13] "access of unprivileged code can be denied by table";
            BBML[12:11] "level of break-before-make";
            RIL[10] "invalidation by range";
            STT[9] "small translation tables";
            FWB[8] "stage 2 forces write-back";
            MPAM[7] "memory partitioning";
            PPS[5] "PASID in responses as in requests";
            XNX[4] "execute-never by privilege at stage 2";
            PBHA[3] "page-based attributes";
            HAD[2] "hierarchical attributes can be disabled";
        };
        /// Nothing is offered.
        SMMU_IDR4 @ 0x0_0010: 4 Ro(0) = 0, "6.3.5";
        SMMU_IDR5 @ 0x0_0014: 4 Ro(0) = 0, "6.3.6" {
            STALL_MAX[31:16] "most stalled transactions";
            VAX[11:10] "bits of a virtual address";
            DS[7] "52-bit addresses with small granules";
            GRAN64K[6] "64 KiB granule";
            GRAN16K[5] "16 KiB granule";
            GRAN4K[4] "4 KiB granule";
            OAS[2:0] "bits of a physical address, encoded";
        };
        /// No implementer, product or revision is claimed.
        SMMU_IIDR @ 0x0_0018: 4 Ro(0) = 0, "6.3.7";
        SMMU_AIDR @ 0x0_001c: 4 Ro(0) = 0, "6.3.8" {
            MAJOR[7:4] "0: SMMUv3";
            MINOR[3:0] "2: SMMUv3.2";
        };
        /// Complete when the write returns.
        SMMU_CR0 @ 0x0_0020: 4 Special(0b1_1111) = 0, "6.3.9" {
            ATSCHK[4] "what says that it is translated is checked" only(ATS);
            CMDQEN[3] "commands are taken";
            EVENTQEN[2] "events are recorded";
            PRIQEN[1] "page requests are recorded" only(PRI);
            SMMUEN[0] "streams are translated";
        };
        SMMU_CR0ACK @ 0x0_0024: 4 Ro(0) = 0, "6.3.10" {
            ATSCHK[4] "as in effect" only(ATS);
            CMDQEN[3] "as in effect";
            EVENTQEN[2] "as in effect";
            PRIQEN[1] "as in effect" only(PRI);
            SMMUEN[0] "as in effect";
        };
        SMMU_CR1 @ 0x0_0028: 4 Rw(0xfff) = 0, "6.3.11", Storage {
            TABLE_SH[11:10] "shareability of tables" fixed(SMMUEN);
            TABLE_OC[9:8] "outer cacheability of tables" fixed(SMMUEN);
            TABLE_IC[7:6] "inner cacheability of tables" fixed(SMMUEN);
            QUEUE_SH[5:4] "shareability of queues" fixed(CMDQEN, EVENTQEN, PRIQEN);
            QUEUE_OC[3:2] "outer cacheability of queues" fixed(CMDQEN, EVENTQEN, PRIQEN);
            QUEUE_IC[1:0] "inner cacheability of queues" fixed(CMDQEN, EVENTQEN, PRIQEN);
        };
        SMMU_CR2 @ 0x0_002c: 4 Rw(0b1011) = 0, "6.3.12" fixed(SMMUEN) {
            REC_CFG_ATS[3] "errors of translation requests are recorded" only(ATSRECERR);
            RECINVSID[1] "StreamIDs beyond the table are recorded";
            E2H[0] "EL2 contexts have ASIDs" only(S2P);
        };
        /// Nothing is ever wrong with power.
        SMMU_STATUSR @ 0x0_0040: 4 Ro(0) = 0, "6.3.13";
        /// Complete when the write returns.
        SMMU_GBPA @ 0x0_0044: 4 Special(0x801f_3f1f) = 0x1000, "6.3.14" {
            UPDATE[31] "with it a write counts; reads as zero when done";
            ABORT[20] "transactions abort while SMMUEN is 0";
            INSTCFG[19:18] "override of instruction or data";
            PRIVCFG[17:16] "override of privilege";
            SHCFG[13:12] "override of shareability";
            ALLOCCFG[11:8] "override of allocation hints";
            MTCFG[4] "MEMATTR replaces the type that came";
            MEMATTR[3:0] "memory type";
        };
        /// No attributes of an implementation.
        SMMU_AGBPA @ 0x0_0048: 4 Ro(0) = 0, "6.3.15";
        /// Complete when the write returns.
        SMMU_IRQ_CTRL @ 0x0_0050: 4 Special(0b111) = 0, "6.3.16" {
            EVENTQ_IRQEN[2] "the event queue interrupts";
            PRIQ_IRQEN[1] "the page request queue interrupts" only(PRI);
            GERROR_IRQEN[0] "global errors interrupt";
        };
        SMMU_IRQ_CTRLACK @ 0x0_0054: 4 Ro(0) = 0, "6.3.18" {
            EVENTQ_IRQEN[2] "as in effect";
            PRIQ_IRQEN[1] "as in effect" only(PRI);
            GERROR_IRQEN[0] "as in effect";
        };
        /// An error is active while its bit differs from that of SMMU_GERRORN.
        SMMU_GERROR @ 0x0_0060: 4 Ro(0) = 0, "6.3.19" {
            MSI_GERROR_ABT_ERR[7] "message of a global error aborted";
            MSI_PRIQ_ABT_ERR[6] "message of the page request queue aborted";
            MSI_EVENTQ_ABT_ERR[5] "message of the event queue aborted";
            MSI_CMDQ_ABT_ERR[4] "message of CMD_SYNC aborted";
            PRIQ_ABT_ERR[3] "write of a page request aborted";
            EVENTQ_ABT_ERR[2] "write of an event aborted";
            CMDQ_ERR[0] "a command could not be executed";
        };
        /// What software has acknowledged.
        SMMU_GERRORN @ 0x0_0064: 4 Special(0b1111_1101) = 0, "6.3.20" {
            MSI_GERROR_ABT_ERR[7] "toggled to acknowledge";
            MSI_PRIQ_ABT_ERR[6] "toggled to acknowledge";
            MSI_EVENTQ_ABT_ERR[5] "toggled to acknowledge";
            MSI_CMDQ_ABT_ERR[4] "toggled to acknowledge";
            PRIQ_ABT_ERR[3] "toggled to acknowledge";
            EVENTQ_ABT_ERR[2] "toggled to acknowledge";
            CMDQ_ERR[0] "toggled to acknowledge; commands go on";
        };
        SMMU_GERROR_IRQ_CFG0 @ 0x0_0068: 8 Rw(0x00ff_ffff_ffff_fffc) = 0, "6.3.21" only(MSI) fixed(GERROR_IRQEN) {
            ADDR[55:2] "where the message goes; 0: there is none";
        };
        SMMU_GERROR_IRQ_CFG1 @ 0x0_0070: 4 Rw(0xffff_ffff) = 0, "6.3.22" only(MSI) fixed(GERROR_IRQEN) {
            DATA[31:0] "what the message says";
        };
        SMMU_GERROR_IRQ_CFG2 @ 0x0_0074: 4 Rw(0x3f) = 0, "6.3.23", Storage only(MSI) fixed(GERROR_IRQEN) {
            SH[5:4] "shareability of the message";
            MEMATTR[3:0] "memory type of the message";
        };
        SMMU_STRTAB_BASE @ 0x0_0080: 8 Rw(0x40ff_ffff_ffff_ffc0) = 0, "6.3.24" fixed(SMMUEN) {
            RA[62] "read-allocate hint";
            ADDR[55:6] "where the stream table lies";
        };
        SMMU_STRTAB_BASE_CFG @ 0x0_0088: 4 Rw(0x3_07ff) = 0, "6.3.25" fixed(SMMUEN) {
            FMT[17:16] "1: two levels; else linear";
            SPLIT[10:6] "bits of a StreamID that select in the second level";
            LOG2SIZE[5:0] "bits of a StreamID that the table covers";
        };
        SMMU_CMDQ_BASE @ 0x0_0090: 8 Rw(0x40ff_ffff_ffff_ffff) = 0, "6.3.26" fixed(CMDQEN) {
            RA[62] "read-allocate hint";
            ADDR[55:5] "where the queue lies";
            LOG2SIZE[4:0] "log2 of its commands";
        };
        SMMU_CMDQ_PROD @ 0x0_0098: 4 Special(0xf_ffff) = 0, "6.3.27" {
            WR[19:0] "where software writes next, with the wrap bit above the index";
        };
        SMMU_CMDQ_CONS @ 0x0_009c: 4 Special(0x7f0f_ffff) = 0, "6.3.28" fixed(CMDQEN) {
            ERR[30:24] "why the queue stands";
            RD[19:0] "which command is next, with the wrap bit above the index";
        };
        SMMU_EVENTQ_BASE @ 0x0_00a0: 8 Rw(0x40ff_ffff_ffff_ffff) = 0, "6.3.29" fixed(EVENTQEN) {
            WA[62] "write-allocate hint";
            ADDR[55:5] "where the queue lies";
            LOG2SIZE[4:0] "log2 of its events";
        };
        SMMU_EVENTQ_IRQ_CFG0 @ 0x0_00b0: 8 Rw(0x00ff_ffff_ffff_fffc) = 0, "6.3.30" only(MSI) fixed(EVENTQ_IRQEN) {
            ADDR[55:2] "where the message goes; 0: there is none";
        };
        SMMU_EVENTQ_IRQ_CFG1 @ 0x0_00b8: 4 Rw(0xffff_ffff) = 0, "6.3.31" only(MSI) fixed(EVENTQ_IRQEN) {
            DATA[31:0] "what the message says";
        };
        SMMU_EVENTQ_IRQ_CFG2 @ 0x0_00bc: 4 Rw(0x3f) = 0, "6.3.32", Storage only(MSI) fixed(EVENTQ_IRQEN) {
            SH[5:4] "shareability of the message";
            MEMATTR[3:0] "memory type of the message";
        };
        SMMU_PRIQ_BASE @ 0x0_00c0: 8 Rw(0x40ff_ffff_ffff_ffff) = 0, "6.3.33" only(PRI) fixed(PRIQEN) {
            WA[62] "write-allocate hint";
            ADDR[55:5] "where the queue lies";
            LOG2SIZE[4:0] "log2 of its requests";
        };
        SMMU_PRIQ_IRQ_CFG0 @ 0x0_00d0: 8 Rw(0x00ff_ffff_ffff_fffc) = 0, "6.3.34" only(PRI, MSI) fixed(PRIQ_IRQEN) {
            ADDR[55:2] "where the message goes; 0: there is none";
        };
        SMMU_PRIQ_IRQ_CFG1 @ 0x0_00d8: 4 Rw(0xffff_ffff) = 0, "6.3.35" only(PRI, MSI) fixed(PRIQ_IRQEN) {
            DATA[31:0] "what the message says";
        };
        SMMU_PRIQ_IRQ_CFG2 @ 0x0_00dc: 4 Rw(0x8000_003f) = 0, "6.3.36" only(PRI) fixed(PRIQ_IRQEN) {
            LO[31] "interrupt on last requests, not on a queue that was empty";
            SH[5:4] "shareability of the message" only(MSI);
            MEMATTR[3:0] "memory type of the message" only(MSI);
        };
        /// No part is claimed.
        SMMU_PIDR4[4; 4] @ 0x0_0fd0: 4 Ro(0) = 0, "6.2.1";
        /// No part is claimed.
        SMMU_PIDR0[4; 4] @ 0x0_0fe0: 4 Ro(0) = 0, "6.2.1";
        /// A CoreLink component.
        SMMU_CIDR0[4; 4] @ 0x0_0ff0: 4 Ro(0) = 0, "6.2.1";
        SMMU_EVENTQ_PROD @ 0x1_00a8: 4 Special(0x800f_ffff) = 0, "6.3.95" also(0xa8) fixed(EVENTQEN) {
            OVFLG[31] "events were lost, if other than OVACKFLG";
            WR[19:0] "where the next event goes, with the wrap bit above the index";
        };
        SMMU_EVENTQ_CONS @ 0x1_00ac: 4 Special(0x800f_ffff) = 0, "6.3.96" also(0xac) {
            OVACKFLG[31] "toggled to acknowledge the loss";
            RD[19:0] "which event software reads next, with the wrap bit above the index";
        };
        SMMU_PRIQ_PROD @ 0x1_00c8: 4 Special(0x800f_ffff) = 0, "6.3.97" also(0xc8) only(PRI) fixed(PRIQEN) {
            OVFLG[31] "requests were lost, if other than OVACKFLG";
            WR[19:0] "where the next request goes, with the wrap bit above the index";
        };
        SMMU_PRIQ_CONS @ 0x1_00cc: 4 Special(0x800f_ffff) = 0, "6.3.98" also(0xcc) only(PRI) {
            OVACKFLG[31] "toggled to acknowledge the loss";
            RD[19:0] "which request software reads next, with the wrap bit above the index";
        };
    }
    /// What registers depend on: features, and what is enabled or was enabled and is not acknowledged as disabled.
    pub enum SmmuCondition {
        S2P "IDR0.S2P is 1";
        ATS "IDR0.ATS is 1";
        PRI "IDR0.PRI is 1";
        MSI "IDR0.MSI is 1";
        ATSRECERR "IDR0.ATSRECERR is 1";
        SMMUEN "SMMUEN is 1 in CR0 or CR0ACK";
        CMDQEN "CMDQEN is 1 in CR0 or CR0ACK";
        EVENTQEN "EVENTQEN is 1 in CR0 or CR0ACK";
        PRIQEN "PRIQEN is 1 in CR0 or CR0ACK";
        EVENTQ_IRQEN "EVENTQ_IRQEN is 1 in IRQ_CTRL or IRQ_CTRLACK";
        PRIQ_IRQEN "PRIQ_IRQEN is 1 in IRQ_CTRL or IRQ_CTRLACK";
        GERROR_IRQEN "GERROR_IRQEN is 1 in IRQ_CTRL or IRQ_CTRLACK";
    }
}

/// SMMU_IDR0: features.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr0 {
    pub s2p: bool,
    pub s1p: bool,
    #[bits(2)]
    pub ttf: u8,
    pub cohacc: bool,
    pub btm: bool,
    #[bits(2)]
    pub httu: u8,
    pub dormhint: bool,
    pub hyp: bool,
    pub ats: bool,
    pub ns1ats: bool,
    pub asid16: bool,
    pub msi: bool,
    pub sev: bool,
    pub atos: bool,
    pub pri: bool,
    pub vmw: bool,
    pub vmid16: bool,
    pub cd2l: bool,
    pub vatos: bool,
    #[bits(2)]
    pub ttendian: u8,
    pub atsrecerr: bool,
    #[bits(2)]
    pub stall_model: u8,
    pub term_model: bool,
    #[bits(2)]
    pub st_level: u8,
    #[bits(3)]
    _res0: u8,
}

/// SMMU_IDR1: sizes, log2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr1 {
    #[bits(6)]
    pub sidsize: u8,
    #[bits(5)]
    pub ssidsize: u8,
    #[bits(5)]
    pub priqs: u8,
    #[bits(5)]
    pub eventqs: u8,
    #[bits(5)]
    pub cmdqs: u8,
    pub attr_perms_ovr: bool,
    pub attr_types_ovr: bool,
    pub rel: bool,
    pub queues_preset: bool,
    pub tables_preset: bool,
    pub ecmdq: bool,
}

/// SMMU_IDR3: further features.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr3 {
    #[bits(2)]
    _res0: u8,
    pub had: bool,
    pub pbha: bool,
    pub xnx: bool,
    pub pps: bool,
    _res0_6: bool,
    pub mpam: bool,
    pub fwb: bool,
    pub stt: bool,
    pub ril: bool,
    #[bits(2)]
    pub bbml: u8,
    pub e0pd: bool,
    pub ptwnnc: bool,
    pub dpt: bool,
    #[bits(16)]
    _res0_16: u16,
}

/// SMMU_IDR5: address sizes, granules, stalls.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr5 {
    #[bits(3)]
    pub oas: u8,
    _res0_3: bool,
    pub gran4k: bool,
    pub gran16k: bool,
    pub gran64k: bool,
    pub ds: bool,
    #[bits(2)]
    _res0_8: u8,
    #[bits(2)]
    pub vax: u8,
    #[bits(4)]
    _res0_12: u8,
    pub stall_max: u16,
}

/// SMMU_CR0 and SMMU_CR0ACK: global enables.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr0 {
    pub smmuen: bool,
    pub priqen: bool,
    pub eventqen: bool,
    pub cmdqen: bool,
    pub atschk: bool,
    #[bits(27)]
    _res0: u32,
}

/// SMMU_CR2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr2 {
    pub e2h: bool,
    pub recinvsid: bool,
    pub ptm: bool,
    pub rec_cfg_ats: bool,
    #[bits(28)]
    _res0: u32,
}

/// SMMU_GBPA: what becomes of transactions while SMMUEN is 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gbpa {
    #[bits(4)]
    pub memattr: u8,
    pub mtcfg: bool,
    #[bits(3)]
    _res0_5: u8,
    #[bits(4)]
    pub alloccfg: u8,
    #[bits(2)]
    pub shcfg: u8,
    #[bits(2)]
    _res0_14: u8,
    #[bits(2)]
    pub privcfg: u8,
    #[bits(2)]
    pub instcfg: u8,
    pub abort: bool,
    #[bits(10)]
    _res0_21: u16,
    pub update: bool,
}

/// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IrqCtrl {
    pub gerror_irqen: bool,
    pub priq_irqen: bool,
    pub eventq_irqen: bool,
    #[bits(29)]
    _res0: u32,
}

/// Bits of SMMU_GERROR and SMMU_GERRORN.
pub mod gerror {
    pub const CMDQ_ERR: u32 = 1 << 0;
    pub const EVENTQ_ABT_ERR: u32 = 1 << 2;
    pub const PRIQ_ABT_ERR: u32 = 1 << 3;
    pub const MSI_CMDQ_ABT_ERR: u32 = 1 << 4;
    pub const MSI_EVENTQ_ABT_ERR: u32 = 1 << 5;
    pub const MSI_PRIQ_ABT_ERR: u32 = 1 << 6;
    pub const MSI_GERROR_ABT_ERR: u32 = 1 << 7;

    pub(crate) const fn name(error: u32) -> &'static str {
        match error {
            CMDQ_ERR => "CMDQ_ERR",
            EVENTQ_ABT_ERR => "EVENTQ_ABT_ERR",
            PRIQ_ABT_ERR => "PRIQ_ABT_ERR",
            MSI_CMDQ_ABT_ERR => "MSI_CMDQ_ABT_ERR",
            MSI_EVENTQ_ABT_ERR => "MSI_EVENTQ_ABT_ERR",
            MSI_PRIQ_ABT_ERR => "MSI_PRIQ_ABT_ERR",
            MSI_GERROR_ABT_ERR => "MSI_GERROR_ABT_ERR",
            _ => "several",
        }
    }
}

/// SMMU_CMDQ_CONS.ERR (7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cerror(pub u8);

impl Cerror {
    pub const NONE: Self = Self(0);
    /// The command is illegal.
    pub const ILL: Self = Self(1);
    /// The command could not be fetched.
    pub const ABT: Self = Self(2);
    /// An endpoint did not complete a CMD_ATC_INV before this CMD_SYNC.
    pub const ATC_INV_SYNC: Self = Self(3);

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ILL => "CERROR_ILL",
            Self::ABT => "CERROR_ABT",
            Self::ATC_INV_SYNC => "CERROR_ATC_INV_SYNC",
            _ => "CERROR_NONE",
        }
    }
}

/// SMMU_STRTAB_BASE_CFG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StrtabBaseCfg {
    #[bits(6)]
    pub log2size: u8,
    #[bits(5)]
    pub split: u8,
    #[bits(5)]
    _res0_11: u8,
    #[bits(2)]
    pub fmt: u8,
    #[bits(14)]
    _res0_18: u16,
}

impl StrtabBaseCfg {
    /// FMT: two-level stream table; every other value is linear.
    pub const FMT_2LVL: u8 = 1;
}

/// SMMU_CMDQ_BASE, SMMU_EVENTQ_BASE, SMMU_PRIQ_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueBase {
    #[bits(5)]
    pub log2size: u8,
    /// Bits \[55:5\] of the address.
    #[bits(51)]
    pub addr_55_5: u64,
    #[bits(6)]
    _res0_56: u8,
    /// Allocation hint.
    pub ra_wa: bool,
    _res0_63: bool,
}

/// The part of a queue index register that is not index and wrap.
pub mod queue_index {
    /// OVFLG of SMMU_EVENTQ_PROD and SMMU_PRIQ_PROD, OVACKFLG of their CONS.
    pub const OVERFLOW: u32 = 1 << 31;
    /// Lowest bit of SMMU_CMDQ_CONS.ERR.
    pub const ERR_SHIFT: u32 = 24;
    /// SMMU_CMDQ_CONS.ERR.
    pub const ERR_MASK: u32 = 0x7f << ERR_SHIFT;
}

/// SMMU_PRIQ_IRQ_CFG2.LO: interrupt when a message with Last arrives, not when the queue ceases to be empty.
pub const PRIQ_IRQ_CFG2_LO: u32 = 1 << 31;
