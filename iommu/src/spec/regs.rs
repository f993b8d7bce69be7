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
        SMMU_IDR0              @ 0x0_0000: 4 Ro(0) = 0, "6.3.1";
        SMMU_IDR1              @ 0x0_0004: 4 Ro(0) = 0, "6.3.2";
        SMMU_IDR2              @ 0x0_0008: 4 Ro(0) = 0, "6.3.3";
        SMMU_IDR3              @ 0x0_000c: 4 Ro(0) = 0, "6.3.4";
        SMMU_IDR4              @ 0x0_0010: 4 Ro(0) = 0, "6.3.5";
        SMMU_IDR5              @ 0x0_0014: 4 Ro(0) = 0, "6.3.6";
        SMMU_IIDR              @ 0x0_0018: 4 Ro(0) = 0, "6.3.7";
        SMMU_AIDR              @ 0x0_001c: 4 Ro(0) = 0, "6.3.8";
        SMMU_CR0               @ 0x0_0020: 4 Special(0b1_1111) = 0, "6.3.9";
        SMMU_CR0ACK            @ 0x0_0024: 4 Ro(0) = 0, "6.3.10";
        SMMU_CR1               @ 0x0_0028: 4 Rw(0xfff) = 0, "6.3.11", Storage;
        SMMU_CR2               @ 0x0_002c: 4 Rw(0b1011) = 0, "6.3.12";
        SMMU_STATUSR           @ 0x0_0040: 4 Ro(0) = 0, "6.3.13";
        SMMU_GBPA              @ 0x0_0044: 4 Special(0x801f_3f1f) = 0x1000, "6.3.14";
        SMMU_AGBPA             @ 0x0_0048: 4 Ro(0) = 0, "6.3.15";
        SMMU_IRQ_CTRL          @ 0x0_0050: 4 Special(0b111) = 0, "6.3.16";
        SMMU_IRQ_CTRLACK       @ 0x0_0054: 4 Ro(0) = 0, "6.3.18";
        SMMU_GERROR            @ 0x0_0060: 4 Ro(0) = 0, "6.3.19";
        SMMU_GERRORN           @ 0x0_0064: 4 Special(0b1111_1101) = 0, "6.3.20";
        SMMU_GERROR_IRQ_CFG0   @ 0x0_0068: 8 Rw(0x00ff_ffff_ffff_fffc) = 0, "6.3.21";
        SMMU_GERROR_IRQ_CFG1   @ 0x0_0070: 4 Rw(0xffff_ffff) = 0, "6.3.22";
        SMMU_GERROR_IRQ_CFG2   @ 0x0_0074: 4 Rw(0x3f) = 0, "6.3.23", Storage;
        SMMU_STRTAB_BASE       @ 0x0_0080: 8 Rw(0x40ff_ffff_ffff_ffc0) = 0, "6.3.24";
        SMMU_STRTAB_BASE_CFG   @ 0x0_0088: 4 Rw(0x3_07ff) = 0, "6.3.25";
        SMMU_CMDQ_BASE         @ 0x0_0090: 8 Rw(0x40ff_ffff_ffff_ffff) = 0, "6.3.26";
        SMMU_CMDQ_PROD         @ 0x0_0098: 4 Special(0xf_ffff) = 0, "6.3.27";
        SMMU_CMDQ_CONS         @ 0x0_009c: 4 Special(0x7f0f_ffff) = 0, "6.3.28";
        SMMU_EVENTQ_BASE       @ 0x0_00a0: 8 Rw(0x40ff_ffff_ffff_ffff) = 0, "6.3.29";
        SMMU_EVENTQ_IRQ_CFG0   @ 0x0_00b0: 8 Rw(0x00ff_ffff_ffff_fffc) = 0, "6.3.30";
        SMMU_EVENTQ_IRQ_CFG1   @ 0x0_00b8: 4 Rw(0xffff_ffff) = 0, "6.3.31";
        SMMU_EVENTQ_IRQ_CFG2   @ 0x0_00bc: 4 Rw(0x3f) = 0, "6.3.32", Storage;
        // The page request queue's are RAZ/WI without IDR0.PRI.
        SMMU_PRIQ_BASE         @ 0x0_00c0: 8 Rw(0x40ff_ffff_ffff_ffff) = 0, "6.3.33";
        SMMU_PRIQ_IRQ_CFG0     @ 0x0_00d0: 8 Rw(0x00ff_ffff_ffff_fffc) = 0, "6.3.34";
        SMMU_PRIQ_IRQ_CFG1     @ 0x0_00d8: 4 Rw(0xffff_ffff) = 0, "6.3.35";
        SMMU_PRIQ_IRQ_CFG2     @ 0x0_00dc: 4 Rw(0x8000_003f) = 0, "6.3.36";
        SMMU_PIDR4[4; 4]       @ 0x0_0fd0: 4 Ro(0) = 0, "6.2.1";
        SMMU_PIDR0[4; 4]       @ 0x0_0fe0: 4 Ro(0) = 0, "6.2.1";
        SMMU_CIDR0[4; 4]       @ 0x0_0ff0: 4 Ro(0) = 0, "6.2.1";
        /// Also at 0xa8, in page 0.
        SMMU_EVENTQ_PROD       @ 0x1_00a8: 4 Special(0x800f_ffff) = 0, "6.3.95";
        /// Also at 0xac, in page 0.
        SMMU_EVENTQ_CONS       @ 0x1_00ac: 4 Special(0x800f_ffff) = 0, "6.3.96";
        /// Also at 0xc8, in page 0.
        SMMU_PRIQ_PROD         @ 0x1_00c8: 4 Special(0x800f_ffff) = 0, "6.3.97";
        /// Also at 0xcc, in page 0.
        SMMU_PRIQ_CONS         @ 0x1_00cc: 4 Special(0x800f_ffff) = 0, "6.3.98";
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
