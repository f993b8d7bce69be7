//! Three vectors of the same type, integers: logic, arithmetic, comparison, shifts by register, pairwise.
//!
//! Arm ARM C4.1.94, "Advanced SIMD three same" and "scalar three same".

use super::simd::*;
use crate::Cpu;
use crate::insn::Insn;

macro_rules! logic {
    ($($(#[$doc:meta])* $name:ident($d:ident, $x:ident, $y:ident) = $result:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let ($d, $x, $y) = (cpu.v(i.rd), cpu.v(i.rn), cpu.v(i.rm));
            cpu.set_v(i.rd, active($result, i.b));
        }
    )*};
}

logic! {
    /// AND.
    and(d, x, y) = x & y;
    /// BIC: and not.
    bic(d, x, y) = x & !y;
    /// ORR.
    orr(d, x, y) = x | y;
    /// ORN.
    orn(d, x, y) = x | !y;
    /// EOR.
    eor(d, x, y) = x ^ y;
    /// BSL: the destination selects.
    bsl(d, x, y) = y ^ ((y ^ x) & d);
    /// BIT: inserts where the second source has ones.
    bit(d, x, y) = d ^ ((d ^ x) & y);
    /// BIF: inserts where it has zeros.
    bif(d, x, y) = d ^ ((d ^ x) & !y);
}

macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident($x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (x, y) = (cpu.v(i.rn), cpu.v(i.rm));
            let result = with_lane!(i.a, map2::<L>(x, y, |$x, $y| $lane));
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

// Sums and differences of lanes of up to 32 bits fit an i64; the wider forms wrap as they must.
lanewise! {
    /// ADD.
    add(x, y) = L::of(x.u().wrapping_add(y.u()));
    /// SUB.
    sub(x, y) = L::of(x.u().wrapping_sub(y.u()));
    /// MUL.
    mul(x, y) = L::of(x.u().wrapping_mul(y.u()));
    /// SHADD: half of the sum, rounded down.
    shadd(x, y) = L::of_signed(x.s().wrapping_add(y.s()) >> 1);
    /// UHADD.
    uhadd(x, y) = L::of(x.u().wrapping_add(y.u()) >> 1);
    /// SRHADD: half of the sum, rounded up.
    srhadd(x, y) = L::of_signed(x.s().wrapping_add(y.s()).wrapping_add(1) >> 1);
    /// URHADD.
    urhadd(x, y) = L::of(x.u().wrapping_add(y.u()).wrapping_add(1) >> 1);
    /// SHSUB: half of the difference.
    shsub(x, y) = L::of_signed(x.s().wrapping_sub(y.s()) >> 1);
    /// UHSUB.
    uhsub(x, y) = L::of_signed((x.u() as i64).wrapping_sub(y.u() as i64) >> 1);
    /// SMAX.
    smax(x, y) = if x.s() >= y.s() { x } else { y };
    /// SMIN.
    smin(x, y) = if x.s() <= y.s() { x } else { y };
    /// UMAX.
    umax(x, y) = if x.u() >= y.u() { x } else { y };
    /// UMIN.
    umin(x, y) = if x.u() <= y.u() { x } else { y };
    /// SABD: absolute difference.
    sabd(x, y) = L::of(x.s().abs_diff(y.s()));
    /// UABD.
    uabd(x, y) = L::of(x.u().abs_diff(y.u()));
    /// CMEQ.
    cmeq(x, y) = L::mask(x == y);
    /// CMTST: any bit in common.
    cmtst(x, y) = L::mask(x.u() & y.u() != 0);
    /// CMGT.
    cmgt(x, y) = L::mask(x.s() > y.s());
    /// CMGE.
    cmge(x, y) = L::mask(x.s() >= y.s());
    /// CMHI.
    cmhi(x, y) = L::mask(x.u() > y.u());
    /// CMHS.
    cmhs(x, y) = L::mask(x.u() >= y.u());
    /// SSHL: to the right if the amount is negative.
    sshl(x, y) = L::of(shift_signed::<L>(x, y, false) as u64);
    /// SRSHL: right shifts round to nearest.
    srshl(x, y) = L::of(shift_signed::<L>(x, y, true) as u64);
    /// USHL.
    ushl(x, y) = L::of(shift_unsigned::<L>(x, y, false) as u64);
    /// URSHL.
    urshl(x, y) = L::of(shift_unsigned::<L>(x, y, true) as u64);
}

/// The amount of a shift by register: the low byte of the lane, signed.
#[inline(always)]
fn amount<L: Lane>(by: L) -> i32 {
    i32::from(by.u() as u8 as i8)
}

/// A signed lane shifted by register, before it is cut or saturated. A left shift by more than the lane's width gives
/// what one by the width does: nothing fits, and no bit is left.
#[inline(always)]
fn shift_signed<L: Lane>(x: L, by: L, rounding: bool) -> i128 {
    match amount(by) {
        left @ 0.. => i128::from(x.s()) << left.min(L::BITS as i32),
        right => shifted_right(x.s().into(), right.unsigned_abs(), rounding),
    }
}

/// As [`shift_signed`], for an unsigned lane. By the width or more, a lane that is not zero loses all its bits.
#[inline(always)]
fn shift_unsigned<L: Lane>(x: L, by: L, rounding: bool) -> i128 {
    match amount(by) {
        left @ 0.. if left < L::BITS as i32 => i128::from(x.u()) << left,
        0.. => i128::from(x.u() != 0) << L::BITS,
        right => shifted_right(x.u().into(), right.unsigned_abs(), rounding),
    }
}

macro_rules! saturating {
    ($($(#[$doc:meta])* $name:ident($x:ident, $y:ident, $saturated:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            // Lanes that take no part are zero, and zeros never saturate.
            let (x, y) = (active(cpu.v(i.rn), i.b), active(cpu.v(i.rm), i.b));
            let mut flag = false;
            let $saturated = &mut flag;
            let result = with_lane!(i.a, map2::<L>(x, y, |$x, $y| $lane));
            cpu.note_saturation(flag);
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

saturating! {
    /// SQADD.
    sqadd(x, y, q) = saturate_signed::<L>(i128::from(x.s()) + i128::from(y.s()), q);
    /// SQSUB.
    sqsub(x, y, q) = saturate_signed::<L>(i128::from(x.s()) - i128::from(y.s()), q);
    /// UQADD.
    uqadd(x, y, q) = saturate_unsigned::<L>(i128::from(x.u()) + i128::from(y.u()), q);
    /// UQSUB.
    uqsub(x, y, q) = saturate_unsigned::<L>(i128::from(x.u()) - i128::from(y.u()), q);
    /// SQSHL (register).
    sqshl(x, y, q) = saturate_signed::<L>(shift_signed::<L>(x, y, false), q);
    /// SQRSHL.
    sqrshl(x, y, q) = saturate_signed::<L>(shift_signed::<L>(x, y, true), q);
    /// UQSHL (register).
    uqshl(x, y, q) = saturate_unsigned::<L>(shift_unsigned::<L>(x, y, false), q);
    /// UQRSHL.
    uqrshl(x, y, q) = saturate_unsigned::<L>(shift_unsigned::<L>(x, y, true), q);
    /// SQDMULH: the high half of twice the product.
    sqdmulh(x, y, q) = doubled_high::<L>(x, y, 0, q);
    /// SQRDMULH: rounded.
    sqrdmulh(x, y, q) = doubled_high::<L>(x, y, 1 << (L::BITS - 1), q);
}

/// `(2 * x * y + rounding) >> width`, saturated. Also for the forms by element.
#[inline(always)]
pub(super) fn doubled_high<L: Lane>(x: L, y: L, rounding: i128, saturated: &mut bool) -> L {
    let product = 2 * i128::from(x.s()) * i128::from(y.s());
    saturate_signed::<L>((product + rounding) >> L::BITS, saturated)
}

macro_rules! accumulating {
    ($($(#[$doc:meta])* $name:ident($d:ident, $x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (d, x, y) = (cpu.v(i.rd), cpu.v(i.rn), cpu.v(i.rm));
            let result = with_lane!(i.a, map3::<L>(d, x, y, |$d, $x, $y| $lane));
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

accumulating! {
    /// SABA.
    saba(d, x, y) = L::of(d.u().wrapping_add(x.s().abs_diff(y.s())));
    /// UABA.
    uaba(d, x, y) = L::of(d.u().wrapping_add(x.u().abs_diff(y.u())));
    /// MLA.
    mla(d, x, y) = L::of(d.u().wrapping_add(x.u().wrapping_mul(y.u())));
    /// MLS.
    mls(d, x, y) = L::of(d.u().wrapping_sub(x.u().wrapping_mul(y.u())));
}

macro_rules! pairwise {
    ($($(#[$doc:meta])* $name:ident($x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (x, y) = (cpu.v(i.rn), cpu.v(i.rm));
            let result = with_lane!(i.a, map_pairs::<L>(x, y, i.b, |$x, $y| $lane));
            cpu.set_v(i.rd, result);
        }
    )*};
}

pairwise! {
    /// ADDP (vector).
    addp(x, y) = L::of(x.u().wrapping_add(y.u()));
    /// SMAXP.
    smaxp(x, y) = if x.s() >= y.s() { x } else { y };
    /// SMINP.
    sminp(x, y) = if x.s() <= y.s() { x } else { y };
    /// UMAXP.
    umaxp(x, y) = if x.u() >= y.u() { x } else { y };
    /// UMINP.
    uminp(x, y) = if x.u() <= y.u() { x } else { y };
}

/// ADDP (scalar): the sum of both doublewords.
#[inline(never)]
pub(crate) fn addp_scalar(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    cpu.set_v(i.rd, u128::from((x as u64).wrapping_add((x >> 64) as u64)));
}

/// PMUL: products of polynomials over {0, 1}, low halves.
#[inline(never)]
pub(crate) fn pmul(cpu: &mut Cpu, i: &Insn) {
    let result = map2::<u8>(cpu.v(i.rn), cpu.v(i.rm), |x, y| polynomial_product(x, y) as u8);
    cpu.set_v(i.rd, active(result, i.b));
}

/// The product of two polynomials over {0, 1} of degree up to 7.
#[inline(always)]
pub(super) fn polynomial_product(x: u8, y: u8) -> u16 {
    (0..8).fold(0, |sum, bit| sum ^ if y >> bit & 1 != 0 { u16::from(x) << bit } else { 0 })
}
