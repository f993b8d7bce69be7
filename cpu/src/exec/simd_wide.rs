//! Integers of two widths: long, wide and narrowing operations, and multiplication by one element.
//!
//! Arm ARM C4.1.94, "Advanced SIMD three different", "vector x indexed element" and their scalar forms. Slot `b` says
//! which half of a narrow operand takes part: 0 lower, 1 upper (the `2` instructions), 2 one element.

use super::simd::*;
use super::simd_same::{doubled_high, polynomial_product};
use crate::Cpu;
use crate::insn::Insn;

/// `f(d, x, y)` over the lanes of a wide destination and two narrow sources.
#[inline(always)]
fn long<N: Lane, W: Lane>(d: u128, x: u128, y: u128, part: u8, mut f: impl FnMut(W, N, N) -> W) -> u128 {
    let d = W::split(d);
    let (x, y) = (N::split(source_half::<N>(x, part)), N::split(source_half::<N>(y, part)));
    W::build(|k| f(d.as_ref()[k], x.as_ref()[k], y.as_ref()[k]))
}

/// The second source of a by-element instruction: element `imm` of `rm` in every lane.
#[inline(always)]
fn element<L: Lane>(cpu: &Cpu, i: &Insn) -> L {
    L::get(cpu.v(i.rm), i.imm as usize)
}

/// Defines the vector and the by-element handler of a long operation.
macro_rules! long {
    ($($(#[$doc:meta])* $name:ident $($by_element:ident)? ($d:ident, $x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (d, x, y) = (cpu.v(i.rd), cpu.v(i.rn), cpu.v(i.rm));
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let result = with_pair!(i.a, long::<N, W>(d, x, y, i.b, |$d, $x, $y| $lane));
            cpu.set_v(i.rd, result);
        }
        $(
            /// By element.
            #[inline(never)]
            pub(crate) fn $by_element(cpu: &mut Cpu, i: &Insn) {
                let (d, x) = (cpu.v(i.rd), cpu.v(i.rn));
                #[allow(unused_variables, reason = "not every operation uses every operand")]
                let result = with_pair!(i.a, {
                    let y = element::<N>(cpu, i);
                    long::<N, W>(d, x, 0, i.b, |$d, $x, _| {
                        let $y = y;
                        $lane
                    })
                });
                cpu.set_v(i.rd, result);
            }
        )?
    )*};
}

// Operands have at most 32 bits: sums and products fit an i64 or u64, except where accumulation wraps.
long! {
    /// SADDL.
    saddl(d, x, y) = W::of_signed(x.s() + y.s());
    /// SSUBL.
    ssubl(d, x, y) = W::of_signed(x.s() - y.s());
    /// SABDL.
    sabdl(d, x, y) = W::of(x.s().abs_diff(y.s()));
    /// SMULL.
    smull smull_element(d, x, y) = W::of_signed(x.s() * y.s());
    /// UADDL.
    uaddl(d, x, y) = W::of(x.u() + y.u());
    /// USUBL.
    usubl(d, x, y) = W::of(x.u().wrapping_sub(y.u()));
    /// UABDL.
    uabdl(d, x, y) = W::of(x.u().abs_diff(y.u()));
    /// UMULL.
    umull umull_element(d, x, y) = W::of(x.u() * y.u());
    /// SABAL.
    sabal(d, x, y) = W::of(d.u().wrapping_add(x.s().abs_diff(y.s())));
    /// UABAL.
    uabal(d, x, y) = W::of(d.u().wrapping_add(x.u().abs_diff(y.u())));
    /// SMLAL.
    smlal smlal_element(d, x, y) = W::of_signed(d.s().wrapping_add(x.s() * y.s()));
    /// SMLSL.
    smlsl smlsl_element(d, x, y) = W::of_signed(d.s().wrapping_sub(x.s() * y.s()));
    /// UMLAL.
    umlal umlal_element(d, x, y) = W::of(d.u().wrapping_add(x.u() * y.u()));
    /// UMLSL.
    umlsl umlsl_element(d, x, y) = W::of(d.u().wrapping_sub(x.u() * y.u()));
}

/// `f` over the lanes of a wide and a narrow source.
#[inline(always)]
fn wide<N: Lane, W: Lane>(cpu: &mut Cpu, i: &Insn, f: impl Fn(W, N) -> W) {
    let x = W::split(cpu.v(i.rn));
    let y = N::split(source_half::<N>(cpu.v(i.rm), i.b));
    cpu.set_v(i.rd, W::build(|k| f(x.as_ref()[k], y.as_ref()[k])));
}

macro_rules! wide {
    ($($(#[$doc:meta])* $name:ident($x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            with_pair!(i.a, wide::<N, W>(cpu, i, |$x, $y| $lane));
        }
    )*};
}

wide! {
    /// SADDW.
    saddw(x, y) = W::of_signed(x.s().wrapping_add(y.s()));
    /// SSUBW.
    ssubw(x, y) = W::of_signed(x.s().wrapping_sub(y.s()));
    /// UADDW.
    uaddw(x, y) = W::of(x.u().wrapping_add(y.u()));
    /// USUBW.
    usubw(x, y) = W::of(x.u().wrapping_sub(y.u()));
}

/// The high halves of `f` over the lanes of two wide sources.
#[inline(always)]
fn high_narrow<N: Lane, W: Lane>(cpu: &mut Cpu, i: &Insn, f: impl Fn(u64, u64) -> u64) {
    let (x, y) = (W::split(cpu.v(i.rn)), W::split(cpu.v(i.rm)));
    let result = N::build(|k| match (x.as_ref().get(k), y.as_ref().get(k)) {
        (Some(x), Some(y)) => N::of(f(x.u(), y.u()) >> N::BITS),
        _ => N::default(),
    });
    cpu.set_narrowed(i.rd, i.b, result as u64);
}

macro_rules! high_narrow {
    ($($(#[$doc:meta])* $name:ident($x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            with_pair!(i.a, high_narrow::<N, W>(cpu, i, |$x, $y| $lane));
        }
    )*};
}

high_narrow! {
    /// ADDHN.
    addhn(x, y) = x.wrapping_add(y);
    /// SUBHN.
    subhn(x, y) = x.wrapping_sub(y);
    /// RADDHN: rounded.
    raddhn(x, y) = x.wrapping_add(y).wrapping_add(1 << (N::BITS - 1));
    /// RSUBHN: rounded.
    rsubhn(x, y) = x.wrapping_sub(y).wrapping_add(1 << (N::BITS - 1));
}

/// Doubling multiplication: `accumulate(d, 2 * x * y)`, saturating twice.
#[inline(always)]
fn doubling<N: Lane, W: Lane>(
    cpu: &mut Cpu,
    i: &Insn,
    by_element: bool,
    accumulate: impl Fn(i128, i128) -> i128,
) {
    // A scalar form's other lanes multiply zeros, which leaves the accumulator alone; then they are cut off.
    let bytes = if i.b == 2 { 2 * (N::BITS / 8) as u8 } else { 16 };
    let y = element::<N>(cpu, i);
    let mut saturated = false;
    let d = active(cpu.v(i.rd), bytes);
    let result = long::<N, W>(d, cpu.v(i.rn), cpu.v(i.rm), i.b, |d: W, x: N, each| {
        let y = if by_element { y } else { each };
        let product: W = saturate_signed(2 * i128::from(x.s()) * i128::from(y.s()), &mut saturated);
        saturate_signed(accumulate(d.s().into(), product.s().into()), &mut saturated)
    });
    cpu.note_saturation(saturated);
    cpu.set_v(i.rd, active(result, bytes));
}

macro_rules! doubling {
    ($($(#[$doc:meta])* $name:ident $by_element:ident($d:ident, $product:ident) = $sum:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            with_pair!(i.a, doubling::<N, W>(cpu, i, false, |$d, $product| $sum));
        }
        /// By element.
        #[inline(never)]
        pub(crate) fn $by_element(cpu: &mut Cpu, i: &Insn) {
            with_pair!(i.a, doubling::<N, W>(cpu, i, true, |$d, $product| $sum));
        }
    )*};
}

doubling! {
    /// SQDMULL.
    sqdmull sqdmull_element(_d, product) = product;
    /// SQDMLAL.
    sqdmlal sqdmlal_element(d, product) = d + product;
    /// SQDMLSL.
    sqdmlsl sqdmlsl_element(d, product) = d - product;
}

/// PMULL, PMULL2 of bytes.
#[inline(never)]
pub(crate) fn pmull_8(cpu: &mut Cpu, i: &Insn) {
    let (x, y) = (cpu.v(i.rn), cpu.v(i.rm));
    cpu.set_v(i.rd, long::<u8, u16>(0, x, y, i.b, |_, x, y| polynomial_product(x, y)));
}

macro_rules! by_element {
    ($($(#[$doc:meta])* $name:ident($d:ident, $x:ident, $y:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (d, x) = (cpu.v(i.rd), cpu.v(i.rn));
            #[allow(unused_variables, reason = "not every operation uses every operand")]
            let result = with_lane!(i.a, {
                let $y = element::<L>(cpu, i);
                map2::<L>(d, x, |$d, $x| $lane)
            });
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

by_element! {
    /// MUL (by element).
    mul_element(d, x, y) = L::of(x.u().wrapping_mul(y.u()));
    /// MLA (by element).
    mla_element(d, x, y) = L::of(d.u().wrapping_add(x.u().wrapping_mul(y.u())));
    /// MLS (by element).
    mls_element(d, x, y) = L::of(d.u().wrapping_sub(x.u().wrapping_mul(y.u())));
}

/// SQDMULH (by element).
#[inline(never)]
pub(crate) fn sqdmulh_element(cpu: &mut Cpu, i: &Insn) {
    doubled_high_element(cpu, i, false);
}

/// SQRDMULH (by element).
#[inline(never)]
pub(crate) fn sqrdmulh_element(cpu: &mut Cpu, i: &Insn) {
    doubled_high_element(cpu, i, true);
}

fn doubled_high_element(cpu: &mut Cpu, i: &Insn, rounding: bool) {
    let x = active(cpu.v(i.rn), i.b);
    let mut saturated = false;
    let result = with_lane!(i.a, {
        let y = element::<L>(cpu, i);
        let half = if rounding { 1 << (L::BITS - 1) } else { 0 };
        map::<L>(x, |x| doubled_high::<L>(x, y, half, &mut saturated))
    });
    cpu.note_saturation(saturated);
    cpu.set_v(i.rd, active(result, i.b));
}
