//! The machine code around the random instructions: the loop that runs the cases, and the EL1 stub that brings our
//! engine to the same place.
//!
//! Both are position-dependent and listed with their disassembly. The loop is the same in both worlds; the stub is
//! what an operating system does for it: MMU on with an identity map, EL0, and an answer to exceptions.

/// Where the stub is: EL1 code with the MMU off, entered first.
pub(crate) const BOOT_BASE: u64 = 0x4000_0000;
/// Exception vectors: each branches to [`FAULT`].
pub(crate) const VECTORS: u64 = 0x4000_0800;
/// Where [`FAULT`] is.
pub(crate) const FAULT_BASE: u64 = 0x4000_1000;
/// Level 1 table of the identity map.
pub(crate) const L1_TABLE: u64 = 0x4000_4000;
/// Level 2 table of the identity map.
pub(crate) const L2_TABLE: u64 = 0x4000_5000;
/// Where [`RUNNER`] and all that follows it is: what QEMU loads as a program.
pub(crate) const IMAGE_BASE: u64 = 0x4020_0000;
/// Where a case branches to when it is done, in [`RUNNER`].
pub(crate) const EPILOGUE: u64 = IMAGE_BASE + 0x100;
/// Input pointer, output pointer, cases left, dump address, dump bytes, fault records: 8 bytes each.
pub(crate) const VARIABLES: u64 = IMAGE_BASE + 0x1000;

/// For each case: loads the registers of its input block, branches to its code, stores them to its output block.
/// At the end writes the dump area to standard output and exits.
#[rustfmt::skip]
pub(crate) const RUNNER: &[u32] = &[
    0x5800_1000, // 40200000: ldr x0, 200
    0xd503_3f5f, // 40200004: clrex
    0x5800_0fc0, // 40200008: ldr x0, 200
    0xf940_0801, // 4020000c: ldr x1, [x0, #16]
    0xb400_0d61, // 40200010: cbz x1, 1bc
    0xd100_0421, // 40200014: sub x1, x1, #0x1
    0xf900_0801, // 40200018: str x1, [x0, #16]
    0xf940_001e, // 4020001c: ldr x30, [x0]
    0x910c_83c1, // 40200020: add x1, x30, #0x320
    0xf900_0001, // 40200024: str x1, [x0]
    0x9104_83c1, // 40200028: add x1, x30, #0x120
    0xad40_0420, // 4020002c: ldp q0, q1, [x1]
    0xad41_0c22, // 40200030: ldp q2, q3, [x1, #32]
    0xad42_1424, // 40200034: ldp q4, q5, [x1, #64]
    0xad43_1c26, // 40200038: ldp q6, q7, [x1, #96]
    0xad44_2428, // 4020003c: ldp q8, q9, [x1, #128]
    0xad45_2c2a, // 40200040: ldp q10, q11, [x1, #160]
    0xad46_342c, // 40200044: ldp q12, q13, [x1, #192]
    0xad47_3c2e, // 40200048: ldp q14, q15, [x1, #224]
    0xad48_4430, // 4020004c: ldp q16, q17, [x1, #256]
    0xad49_4c32, // 40200050: ldp q18, q19, [x1, #288]
    0xad4a_5434, // 40200054: ldp q20, q21, [x1, #320]
    0xad4b_5c36, // 40200058: ldp q22, q23, [x1, #352]
    0xad4c_6438, // 4020005c: ldp q24, q25, [x1, #384]
    0xad4d_6c3a, // 40200060: ldp q26, q27, [x1, #416]
    0xad4e_743c, // 40200064: ldp q28, q29, [x1, #448]
    0xad4f_7c3e, // 40200068: ldp q30, q31, [x1, #480]
    0xf940_83c1, // 4020006c: ldr x1, [x30, #256]
    0xd51b_4401, // 40200070: msr fpcr, x1
    0xf940_87c1, // 40200074: ldr x1, [x30, #264]
    0xd51b_4421, // 40200078: msr fpsr, x1
    0xf940_8bc1, // 4020007c: ldr x1, [x30, #272]
    0x9100_003f, // 40200080: mov sp, x1
    0xf940_7fc1, // 40200084: ldr x1, [x30, #248]
    0xd51b_4201, // 40200088: msr nzcv, x1
    0xa940_07c0, // 4020008c: ldp x0, x1, [x30]
    0xa941_0fc2, // 40200090: ldp x2, x3, [x30, #16]
    0xa942_17c4, // 40200094: ldp x4, x5, [x30, #32]
    0xa943_1fc6, // 40200098: ldp x6, x7, [x30, #48]
    0xa944_27c8, // 4020009c: ldp x8, x9, [x30, #64]
    0xa945_2fca, // 402000a0: ldp x10, x11, [x30, #80]
    0xa946_37cc, // 402000a4: ldp x12, x13, [x30, #96]
    0xa947_3fce, // 402000a8: ldp x14, x15, [x30, #112]
    0xa948_47d0, // 402000ac: ldp x16, x17, [x30, #128]
    0xa949_4fd2, // 402000b0: ldp x18, x19, [x30, #144]
    0xa94a_57d4, // 402000b4: ldp x20, x21, [x30, #160]
    0xa94b_5fd6, // 402000b8: ldp x22, x23, [x30, #176]
    0xa94c_67d8, // 402000bc: ldp x24, x25, [x30, #192]
    0xa94d_6fda, // 402000c0: ldp x26, x27, [x30, #208]
    0xa94e_77dc, // 402000c4: ldp x28, x29, [x30, #224]
    0xf940_7bde, // 402000c8: ldr x30, [x30, #240]
    0xd61f_03c0, // 402000cc: br x30
    0xd503_201f, // 402000d0: nop
    0xd503_201f, // 402000d4: nop
    0xd503_201f, // 402000d8: nop
    0xd503_201f, // 402000dc: nop
    0xd503_201f, // 402000e0: nop
    0xd503_201f, // 402000e4: nop
    0xd503_201f, // 402000e8: nop
    0xd503_201f, // 402000ec: nop
    0xd503_201f, // 402000f0: nop
    0xd503_201f, // 402000f4: nop
    0xd503_201f, // 402000f8: nop
    0xd503_201f, // 402000fc: nop
    0xd51b_d040, // 40200100: msr tpidr_el0, x0
    0x5800_07e0, // 40200104: ldr x0, 200
    0xf940_041e, // 40200108: ldr x30, [x0, #8]
    0xa901_0fc2, // 4020010c: stp x2, x3, [x30, #16]
    0xa902_17c4, // 40200110: stp x4, x5, [x30, #32]
    0xa903_1fc6, // 40200114: stp x6, x7, [x30, #48]
    0xa904_27c8, // 40200118: stp x8, x9, [x30, #64]
    0xa905_2fca, // 4020011c: stp x10, x11, [x30, #80]
    0xa906_37cc, // 40200120: stp x12, x13, [x30, #96]
    0xa907_3fce, // 40200124: stp x14, x15, [x30, #112]
    0xa908_47d0, // 40200128: stp x16, x17, [x30, #128]
    0xa909_4fd2, // 4020012c: stp x18, x19, [x30, #144]
    0xa90a_57d4, // 40200130: stp x20, x21, [x30, #160]
    0xa90b_5fd6, // 40200134: stp x22, x23, [x30, #176]
    0xa90c_67d8, // 40200138: stp x24, x25, [x30, #192]
    0xa90d_6fda, // 4020013c: stp x26, x27, [x30, #208]
    0xa90e_77dc, // 40200140: stp x28, x29, [x30, #224]
    0xd53b_d042, // 40200144: mrs x2, tpidr_el0
    0xa900_07c2, // 40200148: stp x2, x1, [x30]
    0xd53b_4201, // 4020014c: mrs x1, nzcv
    0xf900_7fc1, // 40200150: str x1, [x30, #248]
    0xd53b_4401, // 40200154: mrs x1, fpcr
    0xf900_83c1, // 40200158: str x1, [x30, #256]
    0xd53b_4421, // 4020015c: mrs x1, fpsr
    0xf900_87c1, // 40200160: str x1, [x30, #264]
    0x9100_03e1, // 40200164: mov x1, sp
    0xf900_8bc1, // 40200168: str x1, [x30, #272]
    0x9104_83c1, // 4020016c: add x1, x30, #0x120
    0xad00_0420, // 40200170: stp q0, q1, [x1]
    0xad01_0c22, // 40200174: stp q2, q3, [x1, #32]
    0xad02_1424, // 40200178: stp q4, q5, [x1, #64]
    0xad03_1c26, // 4020017c: stp q6, q7, [x1, #96]
    0xad04_2428, // 40200180: stp q8, q9, [x1, #128]
    0xad05_2c2a, // 40200184: stp q10, q11, [x1, #160]
    0xad06_342c, // 40200188: stp q12, q13, [x1, #192]
    0xad07_3c2e, // 4020018c: stp q14, q15, [x1, #224]
    0xad08_4430, // 40200190: stp q16, q17, [x1, #256]
    0xad09_4c32, // 40200194: stp q18, q19, [x1, #288]
    0xad0a_5434, // 40200198: stp q20, q21, [x1, #320]
    0xad0b_5c36, // 4020019c: stp q22, q23, [x1, #352]
    0xad0c_6438, // 402001a0: stp q24, q25, [x1, #384]
    0xad0d_6c3a, // 402001a4: stp q26, q27, [x1, #416]
    0xad0e_743c, // 402001a8: stp q28, q29, [x1, #448]
    0xad0f_7c3e, // 402001ac: stp q30, q31, [x1, #480]
    0x910c_83c1, // 402001b0: add x1, x30, #0x320
    0xf900_0401, // 402001b4: str x1, [x0, #8]
    0x17ff_ff93, // 402001b8: b 4
    0x5800_0220, // 402001bc: ldr x0, 200
    0xa941_8801, // 402001c0: ldp x1, x2, [x0, #24]
    0xb400_0122, // 402001c4: cbz x2, 1e8
    0xd280_0020, // 402001c8: mov x0, #0x1
    0xd280_0808, // 402001cc: mov x8, #0x40
    0xd400_0001, // 402001d0: svc #0x0
    0xf100_001f, // 402001d4: cmp x0, #0x0
    0x5400_00cd, // 402001d8: b.le 1f0
    0x8b00_0021, // 402001dc: add x1, x1, x0
    0xcb00_0042, // 402001e0: sub x2, x2, x0
    0x17ff_fff8, // 402001e4: b 1c4
    0xd280_0000, // 402001e8: mov x0, #0x0
    0x1400_0002, // 402001ec: b 1f4
    0xd280_0020, // 402001f0: mov x0, #0x1
    0xd280_0bc8, // 402001f4: mov x8, #0x5e
    0xd400_0001, // 402001f8: svc #0x0
    0x0000_0000, // 402001fc: (literal)
    0x4020_1000, // 40200200: (literal)
    0x0000_0000, // 40200204: (literal)
];

/// Sets up translation, vectors and FP, and enters [`RUNNER`] at EL0.
#[rustfmt::skip]
pub(crate) const BOOT: &[u32] = &[
    0x5800_0280, // 40000000: ldr x0, 50
    0xd518_2000, // 40000004: msr ttbr0_el1, x0
    0xd280_1fe0, // 40000008: mov x0, #0xff
    0xd518_a200, // 4000000c: msr mair_el1, x0
    0x5800_0240, // 40000010: ldr x0, 58
    0xd518_2040, // 40000014: msr tcr_el1, x0
    0x5800_0240, // 40000018: ldr x0, 60
    0xd518_c000, // 4000001c: msr vbar_el1, x0
    0xd2a0_0600, // 40000020: mov x0, #0x300000
    0xd518_1040, // 40000024: msr cpacr_el1, x0
    0xd503_3fdf, // 40000028: isb
    0x5800_01e0, // 4000002c: ldr x0, 68
    0xd538_1001, // 40000030: mrs x1, sctlr_el1
    0x5800_01a0, // 40000034: ldr x0, 68
    0xd518_1000, // 40000038: msr sctlr_el1, x0
    0xd503_3fdf, // 4000003c: isb
    0x5800_0180, // 40000040: ldr x0, 70
    0xd518_4020, // 40000044: msr elr_el1, x0
    0xd518_401f, // 40000048: msr spsr_el1, xzr
    0xd69f_03e0, // 4000004c: eret
    0x4000_4000, // 40000050: (literal)
    0x0000_0000, // 40000054: (literal)
    0x0080_3519, // 40000058: (literal)
    0x0000_0002, // 4000005c: (literal)
    0x4000_0800, // 40000060: (literal)
    0x0000_0000, // 40000064: (literal)
    0x34d0_d805, // 40000068: (literal)
    0x0000_0000, // 4000006c: (literal)
    0x4020_0000, // 40000070: (literal)
    0x0000_0000, // 40000074: (literal)
];

/// SVC, which only the end of [`RUNNER`] executes, powers off. Any other exception at EL0 is recorded under the number
/// of cases left (ESR, FAR, ELR, in 32 bytes), and ends its case.
#[rustfmt::skip]
pub(crate) const FAULT: &[u32] = &[
    0xd538_5201, // 40001000: mrs x1, esr_el1
    0xd35a_fc22, // 40001004: lsr x2, x1, #26
    0xf100_545f, // 40001008: cmp x2, #0x15
    0x5400_0180, // 4000100c: b.eq 103c
    0x5800_0200, // 40001010: ldr x0, 1050
    0xf940_0803, // 40001014: ldr x3, [x0, #16]
    0xf940_1404, // 40001018: ldr x4, [x0, #40]
    0xd538_6005, // 4000101c: mrs x5, far_el1
    0xd538_4026, // 40001020: mrs x6, elr_el1
    0x8b03_1484, // 40001024: add x4, x4, x3, lsl #5
    0xa900_1481, // 40001028: stp x1, x5, [x4]
    0xf900_0886, // 4000102c: str x6, [x4, #16]
    0x5800_0147, // 40001030: ldr x7, 1058
    0xd518_4027, // 40001034: msr elr_el1, x7
    0xd69f_03e0, // 40001038: eret
    0x5280_0100, // 4000103c: mov w0, #0x8
    0x72b0_8000, // 40001040: movk w0, #0x8400, lsl #16
    0xd400_0002, // 40001044: hvc #0x0
    0x1400_0000, // 40001048: b 1048
    0x0000_0000, // 4000104c: (literal)
    0x4020_1000, // 40001050: (literal)
    0x0000_0000, // 40001054: (literal)
    0x4020_0100, // 40001058: (literal)
    0x0000_0000, // 4000105c: (literal)
];
