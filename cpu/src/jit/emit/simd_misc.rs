//! Integers: operations on one vector, narrowing moves, and reductions across lanes.

use super::constants::{self, Constant};
use super::lanes::*;
use crate::insn::Insn;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;

/// The lanes shuffled by a constant.
fn shuffle(t: &mut Translator<'_>, i: &Insn, constant: Constant) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    t.lanes_with(PSHUFB, d, x, constant);
    t.cut(d, i.b);
}

pub(crate) fn rev64(t: &mut Translator<'_>, i: &Insn) {
    match i.a {
        0 => shuffle(t, i, constants::REVERSE_BYTES.plus(2)),
        1 => shuffle(t, i, constants::REVERSE_HALVES.plus(1)),
        _ => {
            let x = t.read_vector(i.rn);
            let d = t.write_vector(i.rd);
            t.lanes_unary_imm(PSHUFD, d, x, 0xb1);
            t.cut(d, i.b);
        }
    }
}

pub(crate) fn rev32(t: &mut Translator<'_>, i: &Insn) {
    shuffle(t, i, if i.a == 0 { constants::REVERSE_BYTES.plus(1) } else { constants::REVERSE_HALVES });
}

pub(crate) fn rev16(t: &mut Translator<'_>, i: &Insn) {
    shuffle(t, i, constants::REVERSE_BYTES);
}

/// The sum or union of what two tables have for the lower and the upper four bits of each byte.
fn by_nibbles(t: &mut Translator<'_>, i: &Insn, low: Constant, high: Constant, op: Binary) {
    let x = t.read_vector(i.rn);
    t.lanes_with(PAND, T0, x, constants::NIBBLE);
    t.load(T1, low);
    t.lanes(PSHUFB, T1, T1, T0);
    t.lanes_shift(PSRLW_IMM, T0, x, 4);
    t.lanes_with(PAND, T0, T0, constants::NIBBLE);
    t.load(T2, high);
    t.lanes(PSHUFB, T2, T2, T0);
    let d = t.write_vector(i.rd);
    t.lanes(op, d, T1, T2);
    t.cut(d, i.b);
}

pub(crate) fn cnt(t: &mut Translator<'_>, i: &Insn) {
    by_nibbles(t, i, constants::COUNTS_OF_ONES, constants::COUNTS_OF_ONES, PADDB);
}

pub(crate) fn rbit(t: &mut Translator<'_>, i: &Insn) {
    by_nibbles(t, i, constants::REVERSED_HIGH, constants::REVERSED_LOW, POR);
}

pub(crate) fn not(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    t.invert(d, x);
    t.cut(d, i.b);
}

/// Comparison with zero: x > 0, or 0 > x if `reversed`, or the opposite.
fn compare(t: &mut Translator<'_>, i: &Insn, reversed: bool, holds: bool) {
    let x = t.read_vector(i.rn);
    t.clear(T0);
    let d = t.write_vector(i.rd);
    let (a, b) = if reversed { (T0, x) } else { (x, T0) };
    t.lanes(by_size(&GREATER, i), d, a, b);
    if !holds {
        t.invert(d, d);
    }
    t.cut(d, i.b);
}

pub(crate) fn cmgt_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, false, true);
}

pub(crate) fn cmle_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, false, false);
}

pub(crate) fn cmlt_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, true, true);
}

pub(crate) fn cmge_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, true, false);
}

pub(crate) fn cmeq_zero(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.clear(T0);
    let d = t.write_vector(i.rd);
    t.lanes(by_size(&EQUAL, i), d, x, T0);
    t.cut(d, i.b);
}

pub(crate) fn abs(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    if i.a < 3 {
        let d = t.write_vector(i.rd);
        t.lanes_unary(by_size(&[PABSB, PABSW, PABSD], i), d, x);
        t.cut(d, i.b);
        return;
    }
    t.clear(T0);
    t.lanes(PCMPGTQ, T0, T0, x);
    let d = t.write_vector(i.rd);
    t.lanes(PXOR, d, x, T0);
    t.lanes(PSUBQ, d, d, T0);
    t.cut(d, i.b);
}

pub(crate) fn neg(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.clear(T0);
    let d = t.write_vector(i.rd);
    t.lanes(by_size(&SUB, i), d, T0, x);
    t.cut(d, i.b);
}

/// [`T0`] = the sums of adjacent lanes at twice their width.
fn long_pairs(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let x = t.read_vector(i.rn);
    match (i.a, signed) {
        (0, true) => {
            // Products of an unsigned first with a signed second operand.
            t.load(T0, constants::ONE);
            t.lanes(PMADDUBSW, T0, T0, x);
        }
        (0, false) => t.lanes_with(PMADDUBSW, T0, x, constants::ONE),
        (1, true) => t.lanes_with(PMADDWD, T0, x, constants::ONE.plus(1)),
        (size, false) => {
            t.lanes_with(PAND, T0, x, constants::LOWER.plus(size));
            t.shift_right(T1, x, size + 1, 8 << size, false);
            t.lanes(ADD[usize::from(size) + 1], T0, T0, T1);
        }
        (_, true) => {
            t.lanes_unary_imm(PSHUFD, T0, x, 0x08);
            t.lanes_unary(PMOVSXDQ, T0, T0);
            t.lanes_unary_imm(PSHUFD, T1, x, 0x0d);
            t.lanes_unary(PMOVSXDQ, T1, T1);
            t.lanes(PADDQ, T0, T0, T1);
        }
    }
}

fn write_pairs(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    long_pairs(t, i, signed);
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn saddlp(t: &mut Translator<'_>, i: &Insn) {
    write_pairs(t, i, true);
}

pub(crate) fn uaddlp(t: &mut Translator<'_>, i: &Insn) {
    write_pairs(t, i, false);
}

fn add_pairs(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    long_pairs(t, i, signed);
    t.read_vector(i.rd);
    let d = t.write_vector(i.rd);
    t.lanes(ADD[usize::from(i.a) + 1], d, d, T0);
    t.cut(d, i.b);
}

pub(crate) fn sadalp(t: &mut Translator<'_>, i: &Insn) {
    add_pairs(t, i, true);
}

pub(crate) fn uadalp(t: &mut Translator<'_>, i: &Insn) {
    add_pairs(t, i, false);
}

pub(crate) fn xtn(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.write_narrowed(i, x);
}

/// The host saturates to lanes of 8 and 16 bits.
fn saturated(t: &mut Translator<'_>, i: &Insn, from_signed: bool, to_signed: bool) {
    if i.a >= 2 || i.b == 2 {
        t.call_handler(i);
        return;
    }
    let x = t.read_vector(i.rn);
    t.write_saturated(i, x, from_signed, to_signed);
}

pub(crate) fn sqxtn(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, true, true);
}

pub(crate) fn sqxtun(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, true, false);
}

pub(crate) fn uqxtn(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, false, false);
}

pub(crate) fn shll(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    t.widen(d, x, i.a, i.b == 1, false);
    t.shift_left(d, d, i.a + 1, 8 << i.a);
}

/// Folds the lanes in halves until the result is in the lowest one.
fn reduce(t: &mut Translator<'_>, i: &Insn, op: Binary) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    let mut from = x;
    let mut bytes = i.b / 2;
    while bytes >= 1 << i.a {
        t.lanes_shift(PSRLDQ, T0, from, bytes);
        t.lanes(op, d, from, T0);
        from = d;
        bytes /= 2;
    }
    t.cut(d, 1 << i.a);
}

/// [`T0`] = the sum of the unsigned bytes, in 64 bits. Changes [`T1`].
fn sum_of_bytes(t: &mut Translator<'_>, x: crate::jit::x64::Xmm, bytes: u8) {
    t.clear(T1);
    t.lanes(PSADBW, T0, x, T1);
    if bytes == 16 {
        t.lanes_unary_imm(PSHUFD, T1, T0, UPPER_HALF);
        t.lanes(PADDD, T0, T0, T1);
    }
}

pub(crate) fn addv(t: &mut Translator<'_>, i: &Insn) {
    if i.a > 0 {
        reduce(t, i, by_size(&ADD, i));
        return;
    }
    let x = t.read_vector(i.rn);
    sum_of_bytes(t, x, i.b);
    let d = t.write_vector(i.rd);
    t.lanes_with(PAND, d, T0, constants::FIRST);
}

pub(crate) fn smaxv(t: &mut Translator<'_>, i: &Insn) {
    reduce(t, i, by_size(&MAX_S, i));
}

pub(crate) fn sminv(t: &mut Translator<'_>, i: &Insn) {
    reduce(t, i, by_size(&MIN_S, i));
}

pub(crate) fn umaxv(t: &mut Translator<'_>, i: &Insn) {
    reduce(t, i, by_size(&MAX_U, i));
}

pub(crate) fn uminv(t: &mut Translator<'_>, i: &Insn) {
    reduce(t, i, by_size(&MIN_U, i));
}

/// Sums at twice the width: of pairs first, then of those.
fn long_sum(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    long_pairs(t, i, signed);
    let wide = 2 << i.a;
    let add = ADD[usize::from(i.a) + 1];
    let mut bytes = i.b / 2;
    while bytes >= wide {
        t.lanes_shift(PSRLDQ, T1, T0, bytes);
        t.lanes(add, T0, T0, T1);
        bytes /= 2;
    }
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, wide);
}

pub(crate) fn saddlv(t: &mut Translator<'_>, i: &Insn) {
    long_sum(t, i, true);
}

pub(crate) fn uaddlv(t: &mut Translator<'_>, i: &Insn) {
    if i.a > 0 {
        long_sum(t, i, false);
        return;
    }
    let x = t.read_vector(i.rn);
    sum_of_bytes(t, x, i.b);
    let d = t.write_vector(i.rd);
    t.lanes_unary(MOVQ, d, T0);
}
