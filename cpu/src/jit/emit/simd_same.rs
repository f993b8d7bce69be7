//! Three vectors of the same type, integers: logic, arithmetic, comparison, shifts by register, pairwise.

use super::constants;
use super::lanes::*;
use crate::insn::Insn;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{HostFeatures, Xmm};

/// The sources.
fn sources(t: &mut Translator<'_>, i: &Insn) -> (Xmm, Xmm) {
    (t.read_vector(i.rn), t.read_vector(i.rm))
}

/// An instruction that is one of the host's: `rd = rn op rm`.
fn one(t: &mut Translator<'_>, i: &Insn, op: Binary) {
    let (x, y) = sources(t, i);
    let d = t.write_vector(i.rd);
    t.lanes(op, d, x, y);
    t.cut(d, i.b);
}

/// `rd = rm op rn`.
fn one_reversed(t: &mut Translator<'_>, i: &Insn, op: Binary) {
    let (x, y) = sources(t, i);
    let d = t.write_vector(i.rd);
    t.lanes(op, d, y, x);
    t.cut(d, i.b);
}

pub(crate) fn and(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, PAND);
}

pub(crate) fn eor(t: &mut Translator<'_>, i: &Insn) {
    if i.rn == i.rm {
        let d = t.write_vector(i.rd);
        t.clear(d);
    } else {
        one(t, i, PXOR);
    }
}

/// Also MOV, with one source.
pub(crate) fn orr(t: &mut Translator<'_>, i: &Insn) {
    if i.rn == i.rm {
        let x = t.read_vector(i.rn);
        let d = t.write_vector(i.rd);
        if i.b == 8 {
            t.lanes_unary(MOVQ, d, x);
        } else {
            t.copy(d, x);
        }
    } else {
        one(t, i, POR);
    }
}

pub(crate) fn bic(t: &mut Translator<'_>, i: &Insn) {
    one_reversed(t, i, PANDN);
}

pub(crate) fn orn(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = sources(t, i);
    t.invert(T0, y);
    let d = t.write_vector(i.rd);
    t.lanes(POR, d, x, T0);
    t.cut(d, i.b);
}

/// The destination and the sources of an instruction that also reads the former.
fn three(t: &mut Translator<'_>, i: &Insn) -> (Xmm, Xmm, Xmm) {
    let (x, y) = sources(t, i);
    t.read_vector(i.rd);
    (t.write_vector(i.rd), x, y)
}

pub(crate) fn bsl(t: &mut Translator<'_>, i: &Insn) {
    let (d, x, y) = three(t, i);
    t.lanes(PXOR, T0, x, y);
    t.lanes(PAND, T0, T0, d);
    t.lanes(PXOR, d, y, T0);
    t.cut(d, i.b);
}

pub(crate) fn bit(t: &mut Translator<'_>, i: &Insn) {
    let (d, x, y) = three(t, i);
    t.lanes(PXOR, T0, d, x);
    t.lanes(PAND, T0, T0, y);
    t.lanes(PXOR, d, d, T0);
    t.cut(d, i.b);
}

pub(crate) fn bif(t: &mut Translator<'_>, i: &Insn) {
    let (d, x, y) = three(t, i);
    t.lanes(PXOR, T0, d, x);
    t.lanes(PANDN, T1, y, T0);
    t.lanes(PXOR, d, d, T1);
    t.cut(d, i.b);
}

pub(crate) fn add(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&ADD, i));
}

pub(crate) fn sub(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&SUB, i));
}

pub(crate) fn mul(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = sources(t, i);
    t.multiply(x, y, i.a);
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn mla(t: &mut Translator<'_>, i: &Insn) {
    let (d, x, y) = three(t, i);
    t.multiply(x, y, i.a);
    t.lanes(by_size(&ADD, i), d, d, T0);
    t.cut(d, i.b);
}

pub(crate) fn mls(t: &mut Translator<'_>, i: &Insn) {
    let (d, x, y) = three(t, i);
    t.multiply(x, y, i.a);
    t.lanes(by_size(&SUB, i), d, d, T0);
    t.cut(d, i.b);
}

/// Halving: x + y = 2 * (x & y) + (x ^ y), and with x | y in place of x & y for rounding up, subtracting.
fn halving_sum(t: &mut Translator<'_>, i: &Insn, signed: bool, rounding: bool) {
    let (x, y) = sources(t, i);
    t.lanes(PXOR, T0, x, y);
    t.shift_right(T0, T0, i.a, 1, signed);
    let (bits, op) = if rounding { (POR, &SUB) } else { (PAND, &ADD) };
    t.lanes(bits, T1, x, y);
    let d = t.write_vector(i.rd);
    t.lanes(by_size(op, i), d, T1, T0);
    t.cut(d, i.b);
}

/// Halving: x - y = (x ^ y) - 2 * (!x & y).
fn halving_difference(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let (x, y) = sources(t, i);
    t.lanes(PXOR, T0, x, y);
    t.shift_right(T0, T0, i.a, 1, signed);
    t.lanes(PANDN, T1, x, y);
    let d = t.write_vector(i.rd);
    t.lanes(by_size(&SUB, i), d, T0, T1);
    t.cut(d, i.b);
}

pub(crate) fn shadd(t: &mut Translator<'_>, i: &Insn) {
    halving_sum(t, i, true, false);
}

pub(crate) fn uhadd(t: &mut Translator<'_>, i: &Insn) {
    halving_sum(t, i, false, false);
}

pub(crate) fn srhadd(t: &mut Translator<'_>, i: &Insn) {
    halving_sum(t, i, true, true);
}

pub(crate) fn urhadd(t: &mut Translator<'_>, i: &Insn) {
    match i.a {
        0 => one(t, i, PAVGB),
        1 => one(t, i, PAVGW),
        _ => halving_sum(t, i, false, true),
    }
}

pub(crate) fn shsub(t: &mut Translator<'_>, i: &Insn) {
    halving_difference(t, i, true);
}

pub(crate) fn uhsub(t: &mut Translator<'_>, i: &Insn) {
    halving_difference(t, i, false);
}

pub(crate) fn smax(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&MAX_S, i));
}

pub(crate) fn smin(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&MIN_S, i));
}

pub(crate) fn umax(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&MAX_U, i));
}

pub(crate) fn umin(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&MIN_U, i));
}

fn difference(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let (x, y) = sources(t, i);
    t.absolute_difference(x, y, i.a, signed);
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn sabd(t: &mut Translator<'_>, i: &Insn) {
    difference(t, i, true);
}

pub(crate) fn uabd(t: &mut Translator<'_>, i: &Insn) {
    difference(t, i, false);
}

fn difference_sum(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let (d, x, y) = three(t, i);
    t.absolute_difference(x, y, i.a, signed);
    t.lanes(by_size(&ADD, i), d, d, T0);
    t.cut(d, i.b);
}

pub(crate) fn saba(t: &mut Translator<'_>, i: &Insn) {
    difference_sum(t, i, true);
}

pub(crate) fn uaba(t: &mut Translator<'_>, i: &Insn) {
    difference_sum(t, i, false);
}

pub(crate) fn cmeq(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&EQUAL, i));
}

pub(crate) fn cmtst(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = sources(t, i);
    t.lanes(PAND, T0, x, y);
    t.clear(T1);
    t.lanes(by_size(&EQUAL, i), T0, T0, T1);
    let d = t.write_vector(i.rd);
    t.invert(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn cmgt(t: &mut Translator<'_>, i: &Insn) {
    one(t, i, by_size(&GREATER, i));
}

pub(crate) fn cmge(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = sources(t, i);
    t.lanes(by_size(&GREATER, i), T0, y, x);
    let d = t.write_vector(i.rd);
    t.invert(d, T0);
    t.cut(d, i.b);
}

/// x >= y of unsigned lanes, or its opposite. The host compares signed lanes only.
fn unsigned_at_least(t: &mut Translator<'_>, i: &Insn, x: Xmm, y: Xmm, holds: bool) {
    if i.a == 3 {
        t.lanes_with(PXOR, T0, x, constants::SIGN.plus(3));
        t.lanes_with(PXOR, T1, y, constants::SIGN.plus(3));
        let d = t.write_vector(i.rd);
        t.lanes(PCMPGTQ, d, T1, T0);
        if holds {
            t.invert(d, d);
        }
        t.cut(d, i.b);
        return;
    }
    t.lanes(by_size(&MAX_U, i), T0, x, y);
    let d = t.write_vector(i.rd);
    t.lanes(by_size(&EQUAL, i), d, x, T0);
    if !holds {
        t.invert(d, d);
    }
    t.cut(d, i.b);
}

pub(crate) fn cmhs(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = sources(t, i);
    unsigned_at_least(t, i, x, y, true);
}

pub(crate) fn cmhi(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = sources(t, i);
    unsigned_at_least(t, i, y, x, false);
}

/// Shifts by register are the host's for lanes of 32 and 64 bits, and there only by AVX2.
fn shifts_by_register(i: &Insn) -> bool {
    i.a >= 2 && HostFeatures::get().avx2
}

/// [`T0`] = the amounts, which are signed bytes at the bottom of the lanes, and [`T1`] = their opposites.
fn amounts(t: &mut Translator<'_>, y: Xmm, size: u8) {
    t.lanes_shift(PSLLD_IMM, T0, y, 24);
    t.lanes_shift(PSRAD_IMM, T0, T0, 24);
    if size == 3 {
        t.lanes_unary_imm(PSHUFD, T0, T0, 0x08);
        t.lanes_unary(PMOVSXDQ, T0, T0);
    }
    t.clear(T1);
    t.lanes(SUB[usize::from(size)], T1, T1, T0);
}

/// The host takes amounts as unsigned numbers, and shifts all bits out from the lane's width on: a negative amount
/// contributes nothing to the shift in the other direction.
pub(crate) fn ushl(t: &mut Translator<'_>, i: &Insn) {
    if !shifts_by_register(i) {
        t.call_handler(i);
        return;
    }
    let (left, right) = if i.a == 2 { (VPSLLVD, VPSRLVD) } else { (VPSLLVQ, VPSRLVQ) };
    let (x, y) = sources(t, i);
    amounts(t, y, i.a);
    t.asm.avx(left, T0, x, T0);
    t.asm.avx(right, T1, x, T1);
    let d = t.write_vector(i.rd);
    // With an amount of 0 both are x.
    t.lanes(POR, d, T0, T1);
    t.cut(d, i.b);
}

pub(crate) fn sshl(t: &mut Translator<'_>, i: &Insn) {
    if !shifts_by_register(i) {
        t.call_handler(i);
        return;
    }
    let (x, y) = sources(t, i);
    amounts(t, y, i.a);
    if i.a == 2 {
        t.asm.avx(VPSRAVD, T1, x, T1);
        t.asm.avx(VPSLLVD, T2, x, T0);
        let d = t.write_vector(i.rd);
        t.asm.avx_blend(VBLENDVPS, d, T2, T1, T0);
        t.cut(d, i.b);
        return;
    }
    // The shift to the right, for which the host has no instruction, is a logical one of the number or its complement.
    t.clear(T2);
    t.lanes(PCMPGTQ, T2, T2, x);
    t.asm.avx(VPSLLVQ, T0, x, T0);
    let d = t.write_vector(i.rd);
    t.lanes(PXOR, d, x, T2);
    t.asm.avx(VPSRLVQ, d, d, T1);
    t.lanes(PXOR, d, d, T2);
    // The opposite's sign is clear if the amount is 0 or less: then this is the result. -128 has an opposite, too.
    t.asm.avx_blend(VBLENDVPD, d, d, T0, T1);
    t.cut(d, i.b);
}

/// `op` over even and odd lanes of both sources.
fn pairwise(t: &mut Translator<'_>, i: &Insn, op: Binary) {
    let (x, y) = sources(t, i);
    t.unzip(x, y, i.a, i.b);
    let d = t.write_vector(i.rd);
    t.lanes(op, d, T0, T1);
    t.cut(d, i.b);
}

pub(crate) fn addp(t: &mut Translator<'_>, i: &Insn) {
    pairwise(t, i, by_size(&ADD, i));
}

pub(crate) fn smaxp(t: &mut Translator<'_>, i: &Insn) {
    pairwise(t, i, by_size(&MAX_S, i));
}

pub(crate) fn sminp(t: &mut Translator<'_>, i: &Insn) {
    pairwise(t, i, by_size(&MIN_S, i));
}

pub(crate) fn umaxp(t: &mut Translator<'_>, i: &Insn) {
    pairwise(t, i, by_size(&MAX_U, i));
}

pub(crate) fn uminp(t: &mut Translator<'_>, i: &Insn) {
    pairwise(t, i, by_size(&MIN_U, i));
}

pub(crate) fn addp_scalar(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.lanes_unary_imm(PSHUFD, T0, x, UPPER_HALF);
    let d = t.write_vector(i.rd);
    t.lanes(PADDQ, d, x, T0);
    t.cut(d, 8);
}

/// The host saturates lanes of 8 and 16 bits. What wraps differently has saturated.
fn saturating(t: &mut Translator<'_>, i: &Insn, ops: [Binary; 2], wrapping: [Binary; 4]) {
    if i.a >= 2 {
        t.call_handler(i);
        return;
    }
    let (x, y) = sources(t, i);
    t.lanes(by_size(&ops, i), T0, x, y);
    t.lanes(by_size(&wrapping, i), T1, x, y);
    t.note_saturation(T0, i.b);
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn sqadd(t: &mut Translator<'_>, i: &Insn) {
    saturating(t, i, [PADDSB, PADDSW], ADD);
}

pub(crate) fn uqadd(t: &mut Translator<'_>, i: &Insn) {
    saturating(t, i, [PADDUSB, PADDUSW], ADD);
}

pub(crate) fn sqsub(t: &mut Translator<'_>, i: &Insn) {
    saturating(t, i, [PSUBSB, PSUBSW], SUB);
}

pub(crate) fn uqsub(t: &mut Translator<'_>, i: &Insn) {
    saturating(t, i, [PSUBUSB, PSUBUSW], SUB);
}
