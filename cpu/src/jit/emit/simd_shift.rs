//! Shifts by an immediate amount, which is in slot `imm`.

use super::constants;
use super::lanes::*;
use crate::insn::Insn;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;

fn amount(i: &Insn) -> u8 {
    i.imm as u8
}

fn lane_bits(i: &Insn) -> u8 {
    8 << i.a
}

fn right(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    t.shift_right(d, x, i.a, amount(i), signed);
    t.cut(d, i.b);
}

pub(crate) fn sshr(t: &mut Translator<'_>, i: &Insn) {
    right(t, i, true);
}

pub(crate) fn ushr(t: &mut Translator<'_>, i: &Insn) {
    right(t, i, false);
}

fn right_rounding(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let x = t.read_vector(i.rn);
    t.shift_right_rounding(x, i.a, amount(i), signed);
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn srshr(t: &mut Translator<'_>, i: &Insn) {
    right_rounding(t, i, true);
}

pub(crate) fn urshr(t: &mut Translator<'_>, i: &Insn) {
    right_rounding(t, i, false);
}

/// Adds [`T0`] to the destination.
fn accumulate(t: &mut Translator<'_>, i: &Insn) {
    t.read_vector(i.rd);
    let d = t.write_vector(i.rd);
    t.lanes(by_size(&ADD, i), d, d, T0);
    t.cut(d, i.b);
}

fn right_sum(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let x = t.read_vector(i.rn);
    t.shift_right(T0, x, i.a, amount(i), signed);
    accumulate(t, i);
}

pub(crate) fn ssra(t: &mut Translator<'_>, i: &Insn) {
    right_sum(t, i, true);
}

pub(crate) fn usra(t: &mut Translator<'_>, i: &Insn) {
    right_sum(t, i, false);
}

fn right_rounding_sum(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let x = t.read_vector(i.rn);
    t.shift_right_rounding(x, i.a, amount(i), signed);
    accumulate(t, i);
}

pub(crate) fn srsra(t: &mut Translator<'_>, i: &Insn) {
    right_rounding_sum(t, i, true);
}

pub(crate) fn ursra(t: &mut Translator<'_>, i: &Insn) {
    right_rounding_sum(t, i, false);
}

pub(crate) fn shl(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    t.shift_left(d, x, i.a, amount(i));
    t.cut(d, i.b);
}

/// The destination keeps its highest `amount` bits, which two shifts leave of it.
pub(crate) fn sri(t: &mut Translator<'_>, i: &Insn) {
    let kept = amount(i);
    let x = t.read_vector(i.rn);
    let old = t.read_vector(i.rd);
    if i.a == 0 {
        t.lanes_with(PAND, T0, old, constants::BYTES_LEFT.plus(8 - kept));
    } else {
        t.shift_right(T0, old, i.a, lane_bits(i) - kept, false);
        t.shift_left(T0, T0, i.a, lane_bits(i) - kept);
    }
    t.shift_right(T1, x, i.a, kept, false);
    let d = t.write_vector(i.rd);
    t.lanes(POR, d, T0, T1);
    t.cut(d, i.b);
}

/// The destination keeps its lowest `amount` bits.
pub(crate) fn sli(t: &mut Translator<'_>, i: &Insn) {
    let kept = amount(i);
    let x = t.read_vector(i.rn);
    let old = t.read_vector(i.rd);
    if kept == 0 {
        t.clear(T0);
    } else if i.a == 0 {
        t.lanes_with(PAND, T0, old, constants::BYTES_RIGHT.plus(8 - kept));
    } else {
        t.shift_left(T0, old, i.a, lane_bits(i) - kept);
        t.shift_right(T0, T0, i.a, lane_bits(i) - kept, false);
    }
    t.shift_left(T1, x, i.a, kept);
    let d = t.write_vector(i.rd);
    t.lanes(POR, d, T0, T1);
    t.cut(d, i.b);
}

pub(crate) fn shrn(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.shift_right(T0, x, i.a + 1, amount(i), false);
    t.write_narrowed(i, T0);
}

pub(crate) fn rshrn(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.shift_right_rounding(x, i.a + 1, amount(i), false);
    t.write_narrowed(i, T0);
}

/// Narrowing with saturation, of which the host is capable to lanes of 8 and 16 bits.
fn saturated(t: &mut Translator<'_>, i: &Insn, from_signed: bool, to_signed: bool, rounding: bool) {
    if i.a >= 2 || i.b == 2 {
        t.call_handler(i);
        return;
    }
    let x = t.read_vector(i.rn);
    if rounding {
        t.shift_right_rounding(x, i.a + 1, amount(i), from_signed);
    } else {
        t.shift_right(T0, x, i.a + 1, amount(i), from_signed);
    }
    t.write_saturated(i, T0, from_signed, to_signed);
}

pub(crate) fn sqshrn(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, true, true, false);
}

pub(crate) fn sqrshrn(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, true, true, true);
}

pub(crate) fn sqshrun(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, true, false, false);
}

pub(crate) fn sqrshrun(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, true, false, true);
}

pub(crate) fn uqshrn(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, false, false, false);
}

pub(crate) fn uqrshrn(t: &mut Translator<'_>, i: &Insn) {
    saturated(t, i, false, false, true);
}

fn left_long(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    t.widen(d, x, i.a, i.b == 1, signed);
    t.shift_left(d, d, i.a + 1, amount(i));
}

pub(crate) fn sshll(t: &mut Translator<'_>, i: &Insn) {
    left_long(t, i, true);
}

pub(crate) fn ushll(t: &mut Translator<'_>, i: &Insn) {
    left_long(t, i, false);
}
