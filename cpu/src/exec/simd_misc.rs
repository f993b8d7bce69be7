//! Integers: operations on one vector, narrowing moves, and reductions across lanes.
//!
//! Arm ARM C4.1.94, "Advanced SIMD two-register miscellaneous", "across lanes" and their scalar forms.

use super::simd::*;
use crate::Cpu;
use crate::insn::Insn;
use crate::softfloat::{unsigned_recip_estimate, unsigned_recip_sqrt_estimate};

macro_rules! lanewise {
    ($($(#[$doc:meta])* $name:ident($x:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let x = cpu.v(i.rn);
            let result = with_lane!(i.a, map::<L>(x, |$x| $lane));
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

lanewise! {
    /// ABS: the most negative number stays.
    abs(x) = L::of(x.s().unsigned_abs());
    /// NEG.
    neg(x) = L::of(x.u().wrapping_neg());
    /// CLS: copies of the sign bit below it.
    cls(x) = L::of(u64::from((x.s() ^ x.s() >> 1).unsigned_abs().leading_zeros() + L::BITS - 64 - 1));
    /// CLZ.
    clz(x) = L::of(u64::from(x.u().leading_zeros() + L::BITS - 64));
    /// CMGT (zero).
    cmgt_zero(x) = L::mask(x.s() > 0);
    /// CMGE (zero).
    cmge_zero(x) = L::mask(x.s() >= 0);
    /// CMEQ (zero).
    cmeq_zero(x) = L::mask(x.s() == 0);
    /// CMLE (zero).
    cmle_zero(x) = L::mask(x.s() <= 0);
    /// CMLT (zero).
    cmlt_zero(x) = L::mask(x.s() < 0);
}

macro_rules! bytewise {
    ($($(#[$doc:meta])* $name:ident($x:ident) = $byte:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let result = map::<u8>(cpu.v(i.rn), |$x| $byte);
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

bytewise! {
    /// CNT: ones in each byte.
    cnt(x) = x.count_ones() as u8;
    /// NOT.
    not(x) = !x;
    /// RBIT: bits of each byte reversed.
    rbit(x) = x.reverse_bits();
}

/// Lanes in reverse order within groups of `group_bits`.
#[inline(always)]
fn reverse(cpu: &mut Cpu, i: &Insn, group_bits: u32) {
    let x = cpu.v(i.rn);
    let result = with_lane!(i.a, {
        let lanes = L::split(x);
        let flip = (group_bits / L::BITS).saturating_sub(1) as usize;
        L::build(|k| lanes.as_ref()[(k ^ flip) % L::COUNT])
    });
    cpu.set_v(i.rd, active(result, i.b));
}

/// REV64.
#[inline(never)]
pub(crate) fn rev64(cpu: &mut Cpu, i: &Insn) {
    reverse(cpu, i, 64);
}

/// REV32.
#[inline(never)]
pub(crate) fn rev32(cpu: &mut Cpu, i: &Insn) {
    reverse(cpu, i, 32);
}

/// REV16.
#[inline(never)]
pub(crate) fn rev16(cpu: &mut Cpu, i: &Insn) {
    reverse(cpu, i, 16);
}

macro_rules! saturating {
    ($($(#[$doc:meta])* $name:ident($d:ident, $x:ident, $saturated:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            // Lanes that take no part are zero, and zeros never saturate.
            let (d, x) = (active(cpu.v(i.rd), i.b), active(cpu.v(i.rn), i.b));
            let mut flag = false;
            let $saturated = &mut flag;
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let result = with_lane!(i.a, map2::<L>(d, x, |$d, $x| $lane));
            cpu.note_saturation(flag);
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

saturating! {
    /// SQABS.
    sqabs(d, x, q) = saturate_signed::<L>(i128::from(x.s()).abs(), q);
    /// SQNEG.
    sqneg(d, x, q) = saturate_signed::<L>(-i128::from(x.s()), q);
    /// SUQADD: an unsigned number added to a signed accumulator.
    suqadd(d, x, q) = saturate_signed::<L>(i128::from(d.s()) + i128::from(x.u()), q);
    /// USQADD: a signed number added to an unsigned accumulator.
    usqadd(d, x, q) = saturate_unsigned::<L>(i128::from(d.u()) + i128::from(x.s()), q);
}

/// `f` over a wide destination and adjacent pairs of a narrow source.
#[inline(always)]
fn long_pairs<N: Lane, W: Lane>(d: u128, x: u128, mut f: impl FnMut(W, N, N) -> W) -> u128 {
    let (d, x) = (W::split(d), N::split(x));
    W::build(|k| f(d.as_ref()[k], x.as_ref()[2 * k], x.as_ref()[2 * k + 1]))
}

macro_rules! long_pairs {
    ($($(#[$doc:meta])* $name:ident($d:ident, $x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (d, x) = (cpu.v(i.rd), cpu.v(i.rn));
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let result = with_pair!(i.a, long_pairs::<N, W>(d, x, |$d, $x, $y| $lane));
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

long_pairs! {
    /// SADDLP.
    saddlp(d, x, y) = W::of_signed(x.s() + y.s());
    /// UADDLP.
    uaddlp(d, x, y) = W::of(x.u() + y.u());
    /// SADALP.
    sadalp(d, x, y) = W::of_signed(d.s().wrapping_add(x.s() + y.s()));
    /// UADALP.
    uadalp(d, x, y) = W::of(d.u().wrapping_add(x.u() + y.u()));
}

/// Narrows every wide lane of the source; a scalar form narrows only the first. Also for shifts.
#[inline(always)]
pub(super) fn narrow<N: Lane, W: Lane>(cpu: &mut Cpu, i: &Insn, mut f: impl FnMut(W) -> N) {
    let x = cpu.v(i.rn);
    let x = W::split(if i.b == 2 { x & u128::from(W::UNSIGNED_MAX) } else { x });
    let result = N::build(|k| x.as_ref().get(k).map_or(N::default(), |&lane| f(lane)));
    cpu.set_narrowed(i.rd, i.b, result as u64);
}

/// XTN, XTN2.
#[inline(never)]
pub(crate) fn xtn(cpu: &mut Cpu, i: &Insn) {
    with_pair!(i.a, narrow::<N, W>(cpu, i, |x| N::of(x.u())));
}

/// SQXTN, SQXTN2.
#[inline(never)]
pub(crate) fn sqxtn(cpu: &mut Cpu, i: &Insn) {
    let mut q = false;
    with_pair!(i.a, narrow::<N, W>(cpu, i, |x| saturate_signed(x.s().into(), &mut q)));
    cpu.note_saturation(q);
}

/// UQXTN, UQXTN2.
#[inline(never)]
pub(crate) fn uqxtn(cpu: &mut Cpu, i: &Insn) {
    let mut q = false;
    with_pair!(i.a, narrow::<N, W>(cpu, i, |x| saturate_unsigned(x.u().into(), &mut q)));
    cpu.note_saturation(q);
}

/// SQXTUN, SQXTUN2: signed to unsigned.
#[inline(never)]
pub(crate) fn sqxtun(cpu: &mut Cpu, i: &Insn) {
    let mut q = false;
    with_pair!(i.a, narrow::<N, W>(cpu, i, |x| saturate_unsigned(x.s().into(), &mut q)));
    cpu.note_saturation(q);
}

/// SHLL, SHLL2: to twice the width, shifted left by the narrow width.
#[inline(never)]
pub(crate) fn shll(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let result = with_pair!(i.a, {
        let lanes = N::split(source_half::<N>(x, i.b));
        W::build(|k| W::of(lanes.as_ref()[k].u() << N::BITS))
    });
    cpu.set_v(i.rd, result);
}

/// URECPE.
#[inline(never)]
pub(crate) fn urecpe(cpu: &mut Cpu, i: &Insn) {
    let result = map::<u32>(cpu.v(i.rn), unsigned_recip_estimate);
    cpu.set_v(i.rd, active(result, i.b));
}

/// URSQRTE.
#[inline(never)]
pub(crate) fn ursqrte(cpu: &mut Cpu, i: &Insn) {
    let result = map::<u32>(cpu.v(i.rn), unsigned_recip_sqrt_estimate);
    cpu.set_v(i.rd, active(result, i.b));
}

/// Folds the lanes that take part, `i.b` bytes, from the first on; the result is a scalar.
macro_rules! reduce {
    ($($(#[$doc:meta])* $name:ident($sum:ident, $x:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let x = cpu.v(i.rn);
            let result = with_lane!(i.a, {
                let lanes = L::split(x);
                let count = usize::from(i.b) * 8 / L::BITS as usize;
                let mut lanes = lanes.as_ref().iter().take(count).copied();
                let first = lanes.next().unwrap_or_default();
                lanes.fold(first, |$sum, $x| $lane).u()
            });
            cpu.set_v(i.rd, result.into());
        }
    )*};
}

reduce! {
    /// ADDV.
    addv(sum, x) = L::of(sum.u().wrapping_add(x.u()));
    /// SMAXV.
    smaxv(best, x) = if x.s() > best.s() { x } else { best };
    /// SMINV.
    sminv(best, x) = if x.s() < best.s() { x } else { best };
    /// UMAXV.
    umaxv(best, x) = if x.u() > best.u() { x } else { best };
    /// UMINV.
    uminv(best, x) = if x.u() < best.u() { x } else { best };
}

/// SADDLV: the sum, in twice the width.
#[inline(never)]
pub(crate) fn saddlv(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let sum = with_pair!(i.a, {
        let lanes = N::split(x);
        let sum: i64 =
            lanes.as_ref().iter().take(usize::from(i.b) * 8 / N::BITS as usize).map(|lane| lane.s()).sum();
        W::of_signed(sum).u()
    });
    cpu.set_v(i.rd, sum.into());
}

/// UADDLV.
#[inline(never)]
pub(crate) fn uaddlv(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let sum: u64 = with_pair!(i.a, {
        let _: W = W::default();
        let lanes = N::split(x);
        lanes.as_ref().iter().take(usize::from(i.b) * 8 / N::BITS as usize).map(|lane| lane.u()).sum()
    });
    cpu.set_v(i.rd, sum.into());
}
