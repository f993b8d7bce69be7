//! Shifts by an immediate amount, which is in slot `imm`.
//!
//! Arm ARM C4.1.94, "Advanced SIMD shift by immediate" and "scalar shift by immediate". Conversions to and from fixed
//! point share that encoding space but live with the other conversions.

use super::simd::*;
use super::simd_misc::narrow;
use crate::Cpu;
use crate::insn::Insn;

macro_rules! shift {
    ($($(#[$doc:meta])* $name:ident($d:ident, $x:ident, $amount:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (d, x, $amount) = (cpu.v(i.rd), cpu.v(i.rn), i.imm as u32);
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let result = with_lane!(i.a, map2::<L>(d, x, |$d, $x| $lane));
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

shift! {
    /// SSHR.
    sshr(d, x, n) = L::of_signed(right::<L>(x, n));
    /// USHR.
    ushr(d, x, n) = L::of(logical::<L>(x, n));
    /// SRSHR: rounded.
    srshr(d, x, n) = L::of(shifted_right(x.s().into(), n, true) as u64);
    /// URSHR.
    urshr(d, x, n) = L::of(shifted_right(x.u().into(), n, true) as u64);
    /// SSRA: and accumulate.
    ssra(d, x, n) = L::of_signed(d.s().wrapping_add(right::<L>(x, n)));
    /// USRA.
    usra(d, x, n) = L::of(d.u().wrapping_add(logical::<L>(x, n)));
    /// SRSRA.
    srsra(d, x, n) = L::of(d.u().wrapping_add(shifted_right(x.s().into(), n, true) as u64));
    /// URSRA.
    ursra(d, x, n) = L::of(d.u().wrapping_add(shifted_right(x.u().into(), n, true) as u64));
    /// SRI: the destination keeps its highest bits.
    sri(d, x, n) = L::of(logical::<L>(x, n) | d.u() & !logical::<L>(L::of(L::UNSIGNED_MAX), n));
    /// SHL.
    shl(d, x, n) = L::of(x.u() << (n & 63));
    /// SLI: the destination keeps its lowest bits.
    sli(d, x, n) = L::of(x.u() << (n & 63) | d.u() & !(L::UNSIGNED_MAX << (n & 63)));
}

/// Arithmetic shift by 1 to the lane's width.
#[inline(always)]
fn right<L: Lane>(x: L, amount: u32) -> i64 {
    x.s() >> amount.min(63)
}

/// Logical shift by 1 to the lane's width.
#[inline(always)]
fn logical<L: Lane>(x: L, amount: u32) -> u64 {
    x.u().checked_shr(amount).unwrap_or(0)
}

macro_rules! saturating {
    ($($(#[$doc:meta])* $name:ident($x:ident, $amount:ident, $saturated:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (x, $amount) = (active(cpu.v(i.rn), i.b), i.imm as u32 & 63);
            let mut flag = false;
            let $saturated = &mut flag;
            let result = with_lane!(i.a, map::<L>(x, |$x| $lane));
            cpu.note_saturation(flag);
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

saturating! {
    /// SQSHL (immediate).
    sqshl_imm(x, n, q) = saturate_signed::<L>(i128::from(x.s()) << n, q);
    /// UQSHL (immediate).
    uqshl_imm(x, n, q) = saturate_unsigned::<L>(i128::from(x.u()) << n, q);
    /// SQSHLU: signed to unsigned.
    sqshlu(x, n, q) = saturate_unsigned::<L>(i128::from(x.s()) << n, q);
}

macro_rules! narrowing {
    ($($(#[$doc:meta])* $name:ident($x:ident, $amount:ident, $saturated:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let $amount = i.imm as u32;
            let mut flag = false;
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let $saturated = &mut flag;
            with_pair!(i.a, narrow::<N, W>(cpu, i, |$x| $lane));
            cpu.note_saturation(flag);
        }
    )*};
}

narrowing! {
    /// SHRN.
    shrn(x, n, q) = N::of(x.u() >> (n & 63));
    /// RSHRN: rounded.
    rshrn(x, n, q) = N::of(shifted_right(x.u().into(), n, true) as u64);
    /// SQSHRN.
    sqshrn(x, n, q) = saturate_signed(shifted_right(x.s().into(), n, false), q);
    /// SQRSHRN.
    sqrshrn(x, n, q) = saturate_signed(shifted_right(x.s().into(), n, true), q);
    /// UQSHRN.
    uqshrn(x, n, q) = saturate_unsigned(shifted_right(x.u().into(), n, false), q);
    /// UQRSHRN.
    uqrshrn(x, n, q) = saturate_unsigned(shifted_right(x.u().into(), n, true), q);
    /// SQSHRUN: signed to unsigned.
    sqshrun(x, n, q) = saturate_unsigned(shifted_right(x.s().into(), n, false), q);
    /// SQRSHRUN.
    sqrshrun(x, n, q) = saturate_unsigned(shifted_right(x.s().into(), n, true), q);
}

/// SSHLL, SSHLL2 (SXTL with amount 0).
#[inline(never)]
pub(crate) fn sshll(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let result = with_pair!(i.a, {
        let lanes = N::split(source_half::<N>(x, i.b));
        W::build(|k| W::of_signed(lanes.as_ref()[k].s() << (i.imm & 31)))
    });
    cpu.set_v(i.rd, result);
}

/// USHLL, USHLL2 (UXTL with amount 0).
#[inline(never)]
pub(crate) fn ushll(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let result = with_pair!(i.a, {
        let lanes = N::split(source_half::<N>(x, i.b));
        W::build(|k| W::of(lanes.as_ref()[k].u() << (i.imm & 31)))
    });
    cpu.set_v(i.rd, result);
}
