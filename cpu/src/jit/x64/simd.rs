//! How the vector instructions of [`simd_ops`](super::simd_ops) are emitted: `sse_...` in the legacy format, `avx_...`
//! with VEX, where there is a destination of its own.
//!
//! A legacy instruction needs memory operands of 16 bytes to be aligned, except for the moves that say otherwise; with
//! VEX the others need not be. The legacy form leaves, the VEX form clears bits 128 and up of the destination.

use super::asm::{Asm, Op, wide};
use super::operand::{Gpr, GprRm, Mem, Rm, Size, Xmm, XmmRm};
use super::simd_ops::*;

/// What has a legacy form of two operands.
pub(crate) trait TwoOperands: Copy {
    /// Its encoding.
    fn op(self) -> Op;
}

/// What has a legacy form of two operands and a constant.
pub(crate) trait TwoOperandsImm: Copy {
    /// Its encoding.
    fn op(self) -> Op;
}

/// What has a VEX form of a destination and one source.
pub(crate) trait VexOneSource: Copy {
    /// Its encoding.
    fn op(self) -> Op;
}

/// What has a VEX form of a destination and two sources.
pub(crate) trait VexTwoSources: Copy {
    /// Its encoding.
    fn op(self) -> Op;
}

macro_rules! forms {
    ($($form:ident: $($kind:ident)*;)*) => {
        $($(impl $form for $kind {
            #[inline(always)]
            fn op(self) -> Op {
                self.0
            }
        })*)*
    };
}

forms! {
    TwoOperands: Binary Unary LegacyBinary;
    TwoOperandsImm: BinaryImm UnaryImm LegacyBinaryImm;
    VexOneSource: Unary VexUnary;
    VexTwoSources: Binary VexBinary;
}

/// Moves of 32 or 64 bits between the two kinds of registers, the rest being cleared.
const MOVD_FROM_GPR: Op = Op::new(0x66, 0x0f, 0x6e);
const MOVD_TO_GPR: Op = Op::new(0x66, 0x0f, 0x7e);

impl Asm {
    /// An instruction of the legacy format that ends with a constant.
    #[inline(always)]
    fn legacy_imm(&mut self, op: Op, reg: u8, rm: impl Rm, imm: u8) {
        self.legacy(op, reg, rm, 1);
        self.put(u64::from(imm), 1);
    }

    /// An instruction of the VEX format that ends with a constant.
    #[inline(always)]
    fn vex_imm(&mut self, op: Op, reg: u8, vvvv: u8, rm: impl Rm, imm: u8) {
        self.vex(op, reg, vvvv, rm, 1);
        self.put(u64::from(imm), 1);
    }

    /// `dst = dst op src` or `dst = op src`.
    #[inline(always)]
    pub(crate) fn sse(&mut self, op: impl TwoOperands, dst: Xmm, src: impl XmmRm) {
        self.legacy(op.op(), dst.number(), src, 0);
    }

    /// `dst = dst op src` or `dst = op src`, with a constant.
    #[inline(always)]
    pub(crate) fn sse_imm(&mut self, op: impl TwoOperandsImm, dst: Xmm, src: impl XmmRm, imm: u8) {
        self.legacy_imm(op.op(), dst.number(), src, imm);
    }

    /// `dst = a op b`.
    #[inline(always)]
    pub(crate) fn avx(&mut self, op: impl VexTwoSources, dst: Xmm, a: Xmm, b: impl XmmRm) {
        self.vex(op.op(), dst.number(), a.number(), b, 0);
    }

    /// `dst = a op b`, with a constant.
    #[inline(always)]
    pub(crate) fn avx_imm(&mut self, op: BinaryImm, dst: Xmm, a: Xmm, b: impl XmmRm, imm: u8) {
        self.vex_imm(op.0, dst.number(), a.number(), b, imm);
    }

    /// `dst = op src`.
    #[inline(always)]
    pub(crate) fn avx_unary(&mut self, op: impl VexOneSource, dst: Xmm, src: impl XmmRm) {
        self.vex(op.op(), dst.number(), 0, src, 0);
    }

    /// `dst = op src`, with a constant.
    #[inline(always)]
    pub(crate) fn avx_unary_imm(&mut self, op: UnaryImm, dst: Xmm, src: impl XmmRm, imm: u8) {
        self.vex_imm(op.0, dst.number(), 0, src, imm);
    }

    /// `dst = dst op src`, of registers.
    #[inline(always)]
    pub(crate) fn sse_registers(&mut self, op: BinaryRegisters, dst: Xmm, src: Xmm) {
        self.legacy(op.0, dst.number(), src, 0);
    }

    /// `dst = a op b`, of registers.
    #[inline(always)]
    pub(crate) fn avx_registers(&mut self, op: BinaryRegisters, dst: Xmm, a: Xmm, b: Xmm) {
        self.vex(op.0, dst.number(), a.number(), b, 0);
    }

    /// `dst = dst op [src]`.
    #[inline(always)]
    pub(crate) fn sse_memory(&mut self, op: BinaryMemory, dst: Xmm, src: Mem) {
        self.legacy(op.0, dst.number(), src, 0);
    }

    /// `dst = a op [b]`.
    #[inline(always)]
    pub(crate) fn avx_memory(&mut self, op: BinaryMemory, dst: Xmm, a: Xmm, b: Mem) {
        self.vex(op.0, dst.number(), a.number(), b, 0);
    }

    /// `dst = [src]`, of one lane.
    #[inline(always)]
    pub(crate) fn sse_load(&mut self, op: Load, dst: Xmm, src: Mem) {
        self.legacy(op.0, dst.number(), src, 0);
    }

    /// `dst = [src]`, of one lane.
    #[inline(always)]
    pub(crate) fn avx_load(&mut self, op: Load, dst: Xmm, src: Mem) {
        self.vex(op.0, dst.number(), 0, src, 0);
    }

    /// `[dst] = src`.
    #[inline(always)]
    pub(crate) fn sse_store(&mut self, op: Store, dst: Mem, src: Xmm) {
        self.legacy(op.0, src.number(), dst, 0);
    }

    /// `[dst] = src`.
    #[inline(always)]
    pub(crate) fn avx_store(&mut self, op: Store, dst: Mem, src: Xmm) {
        self.vex(op.0, src.number(), 0, dst, 0);
    }

    /// `dst = dst shifted by count`.
    #[inline(always)]
    pub(crate) fn sse_shift(&mut self, op: ShiftImm, dst: Xmm, count: u8) {
        self.legacy_imm(op.0, op.1, dst, count);
    }

    /// `dst = src shifted by count`.
    #[inline(always)]
    pub(crate) fn avx_shift(&mut self, op: ShiftImm, dst: Xmm, src: Xmm, count: u8) {
        self.vex_imm(op.0, op.1, dst.number(), src, count);
    }

    /// `dst = mask ? b : a`, lane by lane.
    #[inline(always)]
    pub(crate) fn avx_blend(&mut self, op: VexBlend, dst: Xmm, a: Xmm, b: impl XmmRm, mask: Xmm) {
        self.vex_imm(op.0, dst.number(), a.number(), b, mask.number() << 4);
    }

    /// MOVD or MOVQ from a general-purpose register or memory of 32 or 64 bits; clears the rest.
    #[inline(always)]
    pub(crate) fn sse_movd(&mut self, size: Size, dst: Xmm, src: impl GprRm) {
        self.legacy(wide(MOVD_FROM_GPR, size), dst.number(), src, 0);
    }

    /// VMOVD or VMOVQ from a general-purpose register or memory of 32 or 64 bits; clears the rest.
    #[inline(always)]
    pub(crate) fn avx_movd(&mut self, size: Size, dst: Xmm, src: impl GprRm) {
        self.vex(wide(MOVD_FROM_GPR, size), dst.number(), 0, src, 0);
    }

    /// MOVD or MOVQ to a general-purpose register or memory of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn sse_movd_store(&mut self, size: Size, dst: impl GprRm, src: Xmm) {
        self.legacy(wide(MOVD_TO_GPR, size), src.number(), dst, 0);
    }

    /// VMOVD or VMOVQ to a general-purpose register or memory of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn avx_movd_store(&mut self, size: Size, dst: impl GprRm, src: Xmm) {
        self.vex(wide(MOVD_TO_GPR, size), src.number(), 0, dst, 0);
    }

    /// Conversion of an integer of 32 or 64 bits to the lowest lane; the others stay.
    #[inline(always)]
    pub(crate) fn sse_from_gpr(&mut self, op: FromGpr, size: Size, dst: Xmm, src: impl GprRm) {
        self.legacy(wide(op.0, size), dst.number(), src, 0);
    }

    /// Conversion of an integer of 32 or 64 bits to the lowest lane; the others come from `upper`.
    #[inline(always)]
    pub(crate) fn avx_from_gpr(&mut self, op: FromGpr, size: Size, dst: Xmm, upper: Xmm, src: impl GprRm) {
        self.vex(wide(op.0, size), dst.number(), upper.number(), src, 0);
    }

    /// Conversion of the lowest lane to an integer of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn sse_to_gpr(&mut self, op: ToGpr, size: Size, dst: Gpr, src: impl XmmRm) {
        self.legacy(wide(op.0, size), dst.number(), src, 0);
    }

    /// Conversion of the lowest lane to an integer of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn avx_to_gpr(&mut self, op: ToGpr, size: Size, dst: Gpr, src: impl XmmRm) {
        self.vex(wide(op.0, size), dst.number(), 0, src, 0);
    }

    /// The top bits of all lanes.
    #[inline(always)]
    pub(crate) fn sse_mask(&mut self, op: MaskToGpr, dst: Gpr, src: Xmm) {
        self.legacy(op.0, dst.number(), src, 0);
    }

    /// The top bits of all lanes.
    #[inline(always)]
    pub(crate) fn avx_mask(&mut self, op: MaskToGpr, dst: Gpr, src: Xmm) {
        self.vex(op.0, dst.number(), 0, src, 0);
    }

    /// `dst[lane] = src`.
    #[inline(always)]
    pub(crate) fn sse_insert(&mut self, op: Insert, dst: Xmm, src: impl GprRm, lane: u8) {
        self.legacy_imm(op.0, dst.number(), src, lane);
    }

    /// `dst = a` but for `dst[lane] = src`.
    #[inline(always)]
    pub(crate) fn avx_insert(&mut self, op: Insert, dst: Xmm, a: Xmm, src: impl GprRm, lane: u8) {
        self.vex_imm(op.0, dst.number(), a.number(), src, lane);
    }

    /// `dst = src[lane]`.
    #[inline(always)]
    pub(crate) fn sse_extract(&mut self, op: Extract, dst: impl GprRm, src: Xmm, lane: u8) {
        self.legacy_imm(op.0, src.number(), dst, lane);
    }

    /// `dst = src[lane]`.
    #[inline(always)]
    pub(crate) fn avx_extract(&mut self, op: Extract, dst: impl GprRm, src: Xmm, lane: u8) {
        self.vex_imm(op.0, src.number(), 0, dst, lane);
    }

    /// VCVTPS2PH: four singles to four halves (F16C); rounding by `imm`, 4 standing for that of MXCSR.
    #[inline(always)]
    pub(crate) fn vcvtps2ph(&mut self, dst: impl XmmRm, src: Xmm, imm: u8) {
        self.vex_imm(Op::new(0x66, 0x0f3a, 0x1d), src.number(), 0, dst, imm);
    }

    /// VZEROUPPER: clears bits 128 and up of all registers.
    #[inline(always)]
    pub(crate) fn vzeroupper(&mut self) {
        self.begin();
        self.put(0x77_f8_c5, 3);
    }

    /// LDMXCSR: floating-point control and flags from memory.
    #[inline(always)]
    pub(crate) fn ldmxcsr(&mut self, src: Mem) {
        self.legacy(Op::new(0, 0x0f, 0xae), 2, src, 0);
    }

    /// STMXCSR: floating-point control and flags to memory.
    #[inline(always)]
    pub(crate) fn stmxcsr(&mut self, dst: Mem) {
        self.legacy(Op::new(0, 0x0f, 0xae), 3, dst, 0);
    }
}
