//! Integers of two widths: long, wide and narrowing operations, and multiplication by one element.

use super::constants;
use super::lanes::*;
use crate::insn::Insn;
use crate::jit::translator::Translator;
use crate::jit::x64::Xmm;
use crate::jit::x64::simd_ops::*;

/// The operation of lanes of twice the size in slot `a`.
fn by_double_size(ops: &[Binary; 4], i: &Insn) -> Binary {
    ops[usize::from(i.a) + 1]
}

fn is_upper(i: &Insn) -> bool {
    i.b == 1
}

/// What becomes of a result in [`T0`].
#[derive(Clone, Copy)]
enum Then {
    Write,
    Add,
    Subtract,
}

fn finish(t: &mut Translator<'_>, i: &Insn, then: Then) {
    match then {
        Then::Write => {
            let d = t.write_vector(i.rd);
            t.copy(d, T0);
        }
        Then::Add | Then::Subtract => {
            t.read_vector(i.rd);
            let d = t.write_vector(i.rd);
            let op = by_double_size(if matches!(then, Then::Add) { &ADD } else { &SUB }, i);
            t.lanes(op, d, d, T0);
        }
    }
}

/// Both sources widened, and a sum or difference of them.
fn long(t: &mut Translator<'_>, i: &Insn, ops: &[Binary; 4], signed: bool) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    t.widen(T0, x, i.a, is_upper(i), signed);
    t.widen(T1, y, i.a, is_upper(i), signed);
    let d = t.write_vector(i.rd);
    t.lanes(by_double_size(ops, i), d, T0, T1);
}

/// The second source widened, and a sum or difference with the first.
fn wide(t: &mut Translator<'_>, i: &Insn, ops: &[Binary; 4], signed: bool) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    t.widen(T1, y, i.a, is_upper(i), signed);
    let d = t.write_vector(i.rd);
    t.lanes(by_double_size(ops, i), d, x, T1);
}

macro_rules! sums {
    ($($long:ident $wide:ident: $ops:ident, $signed:literal;)*) => {$(
        pub(crate) fn $long(t: &mut Translator<'_>, i: &Insn) {
            long(t, i, &$ops, $signed);
        }

        pub(crate) fn $wide(t: &mut Translator<'_>, i: &Insn) {
            wide(t, i, &$ops, $signed);
        }
    )*};
}

sums! {
    saddl saddw: ADD, true;
    uaddl uaddw: ADD, false;
    ssubl ssubw: SUB, true;
    usubl usubw: SUB, false;
}

/// A difference of narrow lanes is an unsigned number of that width.
fn difference(t: &mut Translator<'_>, i: &Insn, signed: bool, then: Then) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    t.absolute_difference(x, y, i.a, signed);
    t.widen(T0, T0, i.a, is_upper(i), false);
    finish(t, i, then);
}

pub(crate) fn sabdl(t: &mut Translator<'_>, i: &Insn) {
    difference(t, i, true, Then::Write);
}

pub(crate) fn uabdl(t: &mut Translator<'_>, i: &Insn) {
    difference(t, i, false, Then::Write);
}

pub(crate) fn sabal(t: &mut Translator<'_>, i: &Insn) {
    difference(t, i, true, Then::Add);
}

pub(crate) fn uabal(t: &mut Translator<'_>, i: &Insn) {
    difference(t, i, false, Then::Add);
}

/// The second source: a vector, or one element of it in all lanes, in [`T1`].
fn factor(t: &mut Translator<'_>, i: &Insn, by_element: bool) -> Xmm {
    let y = t.read_vector(i.rm);
    if !by_element {
        return y;
    }
    t.duplicate(T1, y, i.a, i.imm as u8);
    T1
}

fn product(t: &mut Translator<'_>, i: &Insn, by_element: bool, signed: bool, then: Then) {
    let x = t.read_vector(i.rn);
    let y = factor(t, i, by_element);
    t.multiply_long(x, y, i.a, is_upper(i), signed);
    finish(t, i, then);
}

macro_rules! products {
    ($($name:ident $by_element:ident: $signed:literal, $then:ident;)*) => {$(
        pub(crate) fn $name(t: &mut Translator<'_>, i: &Insn) {
            product(t, i, false, $signed, Then::$then);
        }

        pub(crate) fn $by_element(t: &mut Translator<'_>, i: &Insn) {
            product(t, i, true, $signed, Then::$then);
        }
    )*};
}

products! {
    smull smull_element: true, Write;
    umull umull_element: false, Write;
    smlal smlal_element: true, Add;
    umlal umlal_element: false, Add;
    smlsl smlsl_element: true, Subtract;
    umlsl umlsl_element: false, Subtract;
}

/// Products of the same width, of lanes of 16 or 32 bits. [`T1`] is not changed for those.
fn same_width(t: &mut Translator<'_>, i: &Insn, then: Then) {
    let x = t.read_vector(i.rn);
    let y = factor(t, i, true);
    t.multiply(x, y, i.a);
    let d = match then {
        Then::Write => {
            let d = t.write_vector(i.rd);
            t.copy(d, T0);
            d
        }
        Then::Add | Then::Subtract => {
            t.read_vector(i.rd);
            let d = t.write_vector(i.rd);
            t.lanes(by_size(if matches!(then, Then::Add) { &ADD } else { &SUB }, i), d, d, T0);
            d
        }
    };
    t.cut(d, i.b);
}

pub(crate) fn mul_element(t: &mut Translator<'_>, i: &Insn) {
    same_width(t, i, Then::Write);
}

pub(crate) fn mla_element(t: &mut Translator<'_>, i: &Insn) {
    same_width(t, i, Then::Add);
}

pub(crate) fn mls_element(t: &mut Translator<'_>, i: &Insn) {
    same_width(t, i, Then::Subtract);
}

/// The upper halves of sums or differences.
fn high_narrow(t: &mut Translator<'_>, i: &Insn, ops: &[Binary; 4], rounding: bool) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let size = i.a + 1;
    t.lanes(by_double_size(ops, i), T0, x, y);
    if rounding {
        // Half of the last place that stays: the sign of the narrow lane.
        let half = constants::HALF.plus(i.a);
        t.lanes_with(by_double_size(&ADD, i), T0, T0, half);
    }
    t.shift_right(T0, T0, size, 8 << i.a, false);
    t.write_narrowed(i, T0);
}

pub(crate) fn addhn(t: &mut Translator<'_>, i: &Insn) {
    high_narrow(t, i, &ADD, false);
}

pub(crate) fn subhn(t: &mut Translator<'_>, i: &Insn) {
    high_narrow(t, i, &SUB, false);
}

pub(crate) fn raddhn(t: &mut Translator<'_>, i: &Insn) {
    high_narrow(t, i, &ADD, true);
}

pub(crate) fn rsubhn(t: &mut Translator<'_>, i: &Insn) {
    high_narrow(t, i, &SUB, true);
}
