//! What emitters of vector instructions share: operations on lanes with a destination of its own, whether the host has VEX
//! or not, and short sequences for what the host has no instruction for.
//!
//! Emitters use XMM0 and XMM1 ([`T0`], [`T1`]) for what they need in between. Sequences here may use XMM2 ([`T2`]), and
//! so does every operation whose destination is its second source on a host without VEX.

use std::mem::offset_of;

use super::constants::{self, Constant};
use crate::exec::simd::QC;
use crate::insn::Insn;
use crate::jit::stubs::state_at;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{Alu, Cond, Gpr, HostFeatures, Mem, Size, Xmm};
use crate::state::State;

pub(super) const T0: Xmm = Xmm::new(0);
pub(super) const T1: Xmm = Xmm::new(1);
pub(super) const T2: Xmm = Xmm::new(2);

/// Operations by the size of the lanes.
pub(super) const ADD: [Binary; 4] = [PADDB, PADDW, PADDD, PADDQ];
pub(super) const SUB: [Binary; 4] = [PSUBB, PSUBW, PSUBD, PSUBQ];
pub(super) const EQUAL: [Binary; 4] = [PCMPEQB, PCMPEQW, PCMPEQD, PCMPEQQ];
pub(super) const GREATER: [Binary; 4] = [PCMPGTB, PCMPGTW, PCMPGTD, PCMPGTQ];
pub(super) const MIN_S: [Binary; 3] = [PMINSB, PMINSW, PMINSD];
pub(super) const MAX_S: [Binary; 3] = [PMAXSB, PMAXSW, PMAXSD];
pub(super) const MIN_U: [Binary; 3] = [PMINUB, PMINUW, PMINUD];
pub(super) const MAX_U: [Binary; 3] = [PMAXUB, PMAXUW, PMAXUD];
pub(super) const UNPACK_LOW: [Binary; 4] = [PUNPCKLBW, PUNPCKLWD, PUNPCKLDQ, PUNPCKLQDQ];
pub(super) const UNPACK_HIGH: [Binary; 4] = [PUNPCKHBW, PUNPCKHWD, PUNPCKHDQ, PUNPCKHQDQ];

/// PSHUFD: the upper half in both.
pub(super) const UPPER_HALF: u8 = 0xee;

pub(super) fn by_size<T: Copy>(ops: &[T], i: &Insn) -> T {
    ops[usize::from(i.a)]
}

/// The smaller or the larger of two lanes.
pub(super) fn extreme(max: bool, signed: bool, size: u8) -> Binary {
    let ops = match (max, signed) {
        (false, false) => MIN_U,
        (false, true) => MIN_S,
        (true, false) => MAX_U,
        (true, true) => MAX_S,
    };
    ops[usize::from(size)]
}

impl Translator<'_> {
    /// A constant, as an operand.
    pub(super) fn constant(&self, constant: Constant) -> Mem {
        Mem::Near(self.stubs.constants + constant.offset())
    }

    /// `d = a op b`.
    pub(super) fn lanes(&mut self, op: Binary, d: Xmm, a: Xmm, b: Xmm) {
        if HostFeatures::get().avx {
            self.asm.avx(op, d, a, b);
        } else if d == b && d != a {
            self.copy(T2, a);
            self.asm.sse(op, T2, b);
            self.copy(d, T2);
        } else {
            self.copy(d, a);
            self.asm.sse(op, d, b);
        }
    }

    /// `d = a op constant`.
    pub(super) fn lanes_with(&mut self, op: Binary, d: Xmm, a: Xmm, constant: Constant) {
        let constant = self.constant(constant);
        if HostFeatures::get().avx {
            self.asm.avx(op, d, a, constant);
        } else {
            self.copy(d, a);
            self.asm.sse(op, d, constant);
        }
    }

    /// `d = a op b`, with an immediate.
    pub(super) fn lanes_imm(&mut self, op: BinaryImm, d: Xmm, a: Xmm, b: Xmm, imm: u8) {
        if HostFeatures::get().avx {
            self.asm.avx_imm(op, d, a, b, imm);
        } else if d == b && d != a {
            self.copy(T2, a);
            self.asm.sse_imm(op, T2, b, imm);
            self.copy(d, T2);
        } else {
            self.copy(d, a);
            self.asm.sse_imm(op, d, b, imm);
        }
    }

    /// `d = a` shifted.
    pub(super) fn lanes_shift(&mut self, op: ShiftImm, d: Xmm, a: Xmm, count: u8) {
        if HostFeatures::get().avx {
            self.asm.avx_shift(op, d, a, count);
        } else {
            self.copy(d, a);
            self.asm.sse_shift(op, d, count);
        }
    }

    /// `d = op a`.
    pub(super) fn lanes_unary(&mut self, op: Unary, d: Xmm, a: Xmm) {
        if HostFeatures::get().avx {
            self.asm.avx_unary(op, d, a);
        } else {
            self.asm.sse(op, d, a);
        }
    }

    /// `d = op a`, with an immediate.
    pub(super) fn lanes_unary_imm(&mut self, op: UnaryImm, d: Xmm, a: Xmm, imm: u8) {
        if HostFeatures::get().avx {
            self.asm.avx_unary_imm(op, d, a, imm);
        } else {
            self.asm.sse_imm(op, d, a, imm);
        }
    }

    /// `d = a`.
    pub(super) fn copy(&mut self, d: Xmm, a: Xmm) {
        if d != a {
            self.asm.sse(MOVAPS, d, a);
        }
    }

    /// `d = constant`.
    pub(super) fn load(&mut self, d: Xmm, constant: Constant) {
        let constant = self.constant(constant);
        self.asm.sse(MOVAPS, d, constant);
    }

    /// `d = 0`.
    pub(super) fn clear(&mut self, d: Xmm) {
        self.asm.sse(PXOR, d, d);
    }

    /// `d = !a`.
    pub(super) fn invert(&mut self, d: Xmm, a: Xmm) {
        self.lanes_with(PXOR, d, a, constants::ONES);
    }

    /// Both halves of `d` become `value`. Changes RAX.
    pub(super) fn fill(&mut self, d: Xmm, value: u64) {
        match value {
            0 => self.clear(d),
            u64::MAX => self.asm.sse(PCMPEQD, d, d),
            _ => {
                self.asm.mov_imm(Gpr::Rax, value);
                self.asm.sse_movd(Size::Qword, d, Gpr::Rax);
                self.asm.sse(PUNPCKLQDQ, d, d);
            }
        }
    }

    /// Clears what is above the `bytes` bytes of `d` that take part: 1, 2, 4, 8 or 16.
    pub(super) fn cut(&mut self, d: Xmm, bytes: u8) {
        match bytes {
            16 => {}
            8 => self.lanes_unary(MOVQ, d, d),
            _ => self.lanes_with(PAND, d, d, constants::FIRST.plus(bytes.trailing_zeros() as u8)),
        }
    }

    /// `d = a << count`, for less than the lane's width.
    pub(super) fn shift_left(&mut self, d: Xmm, a: Xmm, size: u8, count: u8) {
        match size {
            _ if count == 0 => self.copy(d, a),
            0 => {
                self.lanes_shift(PSLLW_IMM, d, a, count);
                self.lanes_with(PAND, d, d, constants::BYTES_LEFT.plus(count));
            }
            1 => self.lanes_shift(PSLLW_IMM, d, a, count),
            2 => self.lanes_shift(PSLLD_IMM, d, a, count),
            _ => self.lanes_shift(PSLLQ_IMM, d, a, count),
        }
    }

    /// `d = a >> count`, for up to the lane's width. Changes [`T2`], which must not be `a`, if `signed`.
    pub(super) fn shift_right(&mut self, d: Xmm, a: Xmm, size: u8, count: u8, signed: bool) {
        match (size, signed) {
            _ if count == 0 => self.copy(d, a),
            (0, false) => {
                self.lanes_shift(PSRLW_IMM, d, a, count);
                self.lanes_with(PAND, d, d, constants::BYTES_RIGHT.plus(count));
            }
            (0, true) => {
                self.shift_right(d, a, size, count.min(7), false);
                let sign = constants::BYTES_SIGN.plus(count.min(7));
                self.lanes_with(PXOR, d, d, sign);
                self.lanes_with(PSUBB, d, d, sign);
            }
            (1, false) => self.lanes_shift(PSRLW_IMM, d, a, count),
            (1, true) => self.lanes_shift(PSRAW_IMM, d, a, count),
            (2, false) => self.lanes_shift(PSRLD_IMM, d, a, count),
            (2, true) => self.lanes_shift(PSRAD_IMM, d, a, count),
            (_, false) => self.lanes_shift(PSRLQ_IMM, d, a, count),
            (_, true) => {
                self.clear(T2);
                self.lanes(PCMPGTQ, T2, T2, a);
                if count == 64 {
                    self.copy(d, T2);
                } else {
                    self.lanes_shift(PSLLQ_IMM, T2, T2, 64 - count);
                    self.lanes_shift(PSRLQ_IMM, d, a, count);
                    self.lanes(POR, d, d, T2);
                }
            }
        }
    }

    /// [`T0`]` = a >> count`, rounded to nearest with ties up, for 1 to the lane's width. Changes [`T1`] and [`T2`].
    pub(super) fn shift_right_rounding(&mut self, a: Xmm, size: u8, count: u8, signed: bool) {
        self.shift_right(T1, a, size, count - 1, false);
        self.lanes_with(PAND, T1, T1, constants::ONE.plus(size));
        self.shift_right(T0, a, size, count, signed);
        self.lanes(ADD[usize::from(size)], T0, T0, T1);
    }

    /// `d` = lane `index` of `a` in all lanes.
    pub(super) fn duplicate(&mut self, d: Xmm, a: Xmm, size: u8, index: u8) {
        match size {
            0 => self.lanes_with(PSHUFB, d, a, constants::DUP_BYTE.plus(index & 15)),
            1 => self.lanes_with(PSHUFB, d, a, constants::DUP_HALF.plus(index & 7)),
            2 => self.lanes_unary_imm(PSHUFD, d, a, 0x55 * (index & 3)),
            _ => self.lanes_unary_imm(PSHUFD, d, a, if index & 1 == 0 { 0x44 } else { UPPER_HALF }),
        }
    }

    /// `d` = the lanes of the lower or `upper` half of `a`, of `size`, at twice their width.
    pub(super) fn widen(&mut self, d: Xmm, a: Xmm, size: u8, upper: bool, signed: bool) {
        const SIGNED: [Unary; 3] = [PMOVSXBW, PMOVSXWD, PMOVSXDQ];
        const UNSIGNED: [Unary; 3] = [PMOVZXBW, PMOVZXWD, PMOVZXDQ];
        let op = (if signed { SIGNED } else { UNSIGNED })[usize::from(size)];
        if upper {
            self.lanes_unary_imm(PSHUFD, d, a, UPPER_HALF);
            self.lanes_unary(op, d, d);
        } else {
            self.lanes_unary(op, d, a);
        }
    }

    /// Writes the lower halves of the lanes of `a`, halves of `size`, to the lower half of the destination, clearing the
    /// upper, or to its upper half. `a` is no register of the guest that the instruction writes. Changes [`T1`].
    pub(super) fn write_narrowed(&mut self, i: &Insn, a: Xmm) {
        let shuffle = constants::NARROW.plus(i.a);
        if i.b == 1 {
            let old = self.read_vector(i.rd);
            self.lanes_with(PSHUFB, T1, a, shuffle);
            let d = self.write_vector(i.rd);
            self.lanes(PUNPCKLQDQ, d, old, T1);
        } else {
            let d = self.write_vector(i.rd);
            self.lanes_with(PSHUFB, d, a, shuffle);
        }
    }

    /// [`T0`]` = a * b`, modulo the lane's width, of up to 32 bits. Changes [`T1`].
    pub(super) fn multiply(&mut self, a: Xmm, b: Xmm, size: u8) {
        match size {
            0 => {
                self.lanes_shift(PSRLW_IMM, T0, a, 8);
                self.lanes_shift(PSRLW_IMM, T1, b, 8);
                self.lanes(PMULLW, T0, T0, T1);
                self.lanes_shift(PSLLW_IMM, T0, T0, 8);
                self.lanes(PMULLW, T1, a, b);
                self.lanes_with(PAND, T1, T1, constants::LOWER);
                self.lanes(POR, T0, T0, T1);
            }
            1 => self.lanes(PMULLW, T0, a, b),
            _ => self.lanes(PMULLD, T0, a, b),
        }
    }

    /// [`T0`] = the products of the lanes of the lower or `upper` halves of `a` and `b`, at twice their width. Changes
    /// [`T1`], which may be `b`.
    pub(super) fn multiply_long(&mut self, a: Xmm, b: Xmm, size: u8, upper: bool, signed: bool) {
        match size {
            0 => {
                self.widen(T0, a, 0, upper, signed);
                self.widen(T1, b, 0, upper, signed);
                self.lanes(PMULLW, T0, T0, T1);
            }
            1 => {
                self.lanes(PMULLW, T0, a, b);
                self.lanes(if signed { PMULHW } else { PMULHUW }, T1, a, b);
                self.lanes(if upper { PUNPCKHWD } else { PUNPCKLWD }, T0, T0, T1);
            }
            _ => {
                let spread = if upper { 0xfa } else { 0x50 };
                self.lanes_unary_imm(PSHUFD, T0, a, spread);
                self.lanes_unary_imm(PSHUFD, T1, b, spread);
                self.lanes(if signed { PMULDQ } else { PMULUDQ }, T0, T0, T1);
            }
        }
    }

    /// [`T0`] = the absolute differences of the lanes of `a` and `b`, of up to 32 bits. Changes [`T1`].
    pub(super) fn absolute_difference(&mut self, a: Xmm, b: Xmm, size: u8, signed: bool) {
        self.lanes(extreme(true, signed, size), T0, a, b);
        self.lanes(extreme(false, signed, size), T1, a, b);
        self.lanes(SUB[usize::from(size)], T0, T0, T1);
    }

    /// Even lanes of [`T0`] to its lower half, odd ones to the upper, of up to 32 bits.
    pub(super) fn unzip_halves(&mut self, size: u8) {
        self.lanes_with(PSHUFB, T0, T0, constants::UNZIP.plus(size));
    }

    /// Even lanes of `a` and `b` to [`T0`], odd ones to [`T1`], of all or of the lower `bytes`.
    pub(super) fn unzip(&mut self, a: Xmm, b: Xmm, size: u8, bytes: u8) {
        if bytes == 8 {
            self.lanes(PUNPCKLQDQ, T0, a, b);
            self.unzip_halves(size);
            self.lanes_unary_imm(PSHUFD, T1, T0, UPPER_HALF);
            return;
        }
        match size {
            0 | 1 => {
                self.lanes_with(PSHUFB, T0, a, constants::UNZIP.plus(size));
                self.lanes_with(PSHUFB, T1, b, constants::UNZIP.plus(size));
                self.lanes(PUNPCKHQDQ, T2, T0, T1);
                self.lanes(PUNPCKLQDQ, T0, T0, T1);
                self.copy(T1, T2);
            }
            2 => {
                self.lanes_imm(SHUFPS, T0, a, b, 0x88);
                self.lanes_imm(SHUFPS, T1, a, b, 0xdd);
            }
            _ => {
                self.lanes(PUNPCKLQDQ, T0, a, b);
                self.lanes(PUNPCKHQDQ, T1, a, b);
            }
        }
    }

    /// Sets FPSR.QC if the low `bytes` bytes of [`T1`], a result that has not been saturated, differ from those of `a`.
    /// Changes [`T1`] and RAX.
    pub(super) fn note_saturation(&mut self, a: Xmm, bytes: u8) {
        let all = (1 << bytes) - 1;
        self.lanes(PCMPEQB, T1, T1, a);
        self.asm.sse_mask(PMOVMSKB, Gpr::Rax, T1);
        if bytes < 16 {
            self.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rax, all);
        }
        self.asm.alu_imm(Alu::Cmp, Size::Dword, Gpr::Rax, all);
        let same = self.asm.label();
        self.asm.jcc(Cond::E, same);
        self.asm.alu_imm(Alu::Or, Size::Dword, state_at(offset_of!(State, fpsr)), QC as i32);
        self.asm.bind(same);
    }

    /// Writes the lanes of `x` narrowed to `size`, at most halfwords, as [`Self::write_narrowed`] does but with saturation.
    /// Changes [`T1`] and [`T2`], which `x` is not, and RAX.
    pub(super) fn write_saturated(&mut self, i: &Insn, x: Xmm, from_signed: bool, to_signed: bool) {
        if from_signed {
            let pack = if to_signed { [PACKSSWB, PACKSSDW] } else { [PACKUSWB, PACKUSDW] };
            self.lanes(by_size(&pack, i), T2, x, x);
            self.widen(T1, T2, i.a, false, to_signed);
        } else {
            self.lanes_with(MIN_U[usize::from(i.a) + 1], T2, x, constants::LOWER.plus(i.a));
            self.copy(T1, T2);
            self.lanes_with(PSHUFB, T2, T2, constants::NARROW.plus(i.a));
        }
        self.note_saturation(x, 16);
        if i.b == 1 {
            let old = self.read_vector(i.rd);
            let d = self.write_vector(i.rd);
            self.lanes(PUNPCKLQDQ, d, old, T2);
        } else {
            let d = self.write_vector(i.rd);
            self.lanes_unary(MOVQ, d, T2);
        }
    }
}
