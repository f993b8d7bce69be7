//! Floating point on vectors and on the scalar forms of Advanced SIMD. The handlers in `exec::simd_fp` say what each
//! instruction does, `jit::float` how the host's arithmetic stands in for them.
//!
//! Slot `a` is 0 for single, 1 for double precision; the `b` lowest bytes of the register take part. The others are
//! cleared in what is computed with, so that nothing comes of them. XMM0 is where results are made.

use super::constants;
use super::fp::{QUIETLY, from_integer, rounding};
use crate::insn::Insn;
use crate::jit::float::{Factor, Zeros};
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{Alu, Cond, Gpr, HostFeatures, Label, Size, Xmm};
use crate::softfloat::{F32, F64};

const R: Xmm = Xmm::new(0);
const S: Xmm = Xmm::new(1);
const U: Xmm = Xmm::new(2);

/// Predicates of CMPPS and CMPPD.
mod predicate {
    pub(super) const EQUAL: u8 = 0;
    pub(super) const LESS: u8 = 1;
    pub(super) const LESS_OR_EQUAL: u8 = 2;
    pub(super) const UNORDERED: u8 = 3;
}

fn pick<T: Copy>(i: &Insn, single: T, double: T) -> T {
    if i.a == 0 { single } else { double }
}

/// The lanes that take part of `from` to `to`, the others being cleared.
fn take(t: &mut Translator<'_>, i: &Insn, to: Xmm, from: Xmm) {
    match i.b {
        16 => t.asm.sse(MOVAPS, to, from),
        8 => t.asm.sse(MOVQ, to, from),
        _ => {
            debug_assert!(to != from, "cleared before it is read");
            t.asm.sse(XORPS, to, to);
            t.asm.sse_registers(MOVSS_MERGE, to, from);
        }
    }
}

/// Clears what does not take part in XMM0. Changes XMM1.
fn cut(t: &mut Translator<'_>, i: &Insn) {
    match i.b {
        16 => {}
        8 => t.asm.sse(MOVQ, R, R),
        _ => {
            take(t, i, S, R);
            t.asm.sse(MOVAPS, R, S);
        }
    }
}

/// Goes to `bad` if a lane of `mask` that takes part is set; those are in EAX then.
fn leave_if_any(t: &mut Translator<'_>, i: &Insn, mask: Xmm, bad: Label) {
    let lanes = (1 << (i.b >> (2 + i.a))) - 1;
    t.asm.sse_mask(pick(i, MOVMSKPS, MOVMSKPD), Gpr::Rax, mask);
    if i.b == 16 {
        t.asm.test(Size::Dword, Gpr::Rax, Gpr::Rax);
    } else {
        t.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rax, lanes);
    }
    t.asm.jcc(Cond::Ne, bad);
}

/// Goes to `bad` if there is a NaN or an infinity in XMM0, or with `small` a number that might be tiny. Changes XMM1 and
/// XMM2.
fn check(t: &mut Translator<'_>, i: &Insn, small: bool, bad: Label) {
    if small {
        // The words that have the exponents, as integers: NaNs, infinities and what is small are the smallest ones.
        let (bias, limit) =
            (t.constant(constants::EXTREME_BIAS.plus(i.a)), t.constant(constants::EXTREME_LIMIT.plus(i.a)));
        t.asm.sse(MOVAPS, S, R);
        t.asm.sse(PADDD, S, S);
        t.asm.sse(PADDD, S, bias);
        t.asm.sse(MOVAPS, U, limit);
        t.asm.sse(PCMPGTD, U, S);
        leave_if_any(t, i, U, bad);
    } else {
        let exponent = t.constant(constants::EXPONENT.plus(i.a));
        t.asm.sse(MOVAPS, S, exponent);
        t.asm.sse(ANDPS, S, R);
        t.asm.sse(PCMPEQD, S, exponent);
        leave_if_any(t, i, S, bad);
    }
}

/// Goes to `bad` if a lane of `a` or `b` is a NaN. Changes XMM1.
fn check_ordered(t: &mut Translator<'_>, i: &Insn, a: Xmm, b: Xmm, bad: Label) {
    t.asm.sse(MOVAPS, S, a);
    t.asm.sse_imm(pick(i, CMPPS, CMPPD), S, b, predicate::UNORDERED);
    leave_if_any(t, i, S, bad);
}

/// A second source: a register, or one lane of it for all.
#[derive(Clone, Copy, Debug)]
struct Second {
    from: Xmm,
    lane: Option<u8>,
}

impl Second {
    fn register(t: &mut Translator<'_>, i: &Insn) -> Self {
        Self { from: t.read_vector(i.rm), lane: None }
    }

    fn element(t: &mut Translator<'_>, i: &Insn) -> Self {
        let index = i.imm as u8;
        let shuffle = if i.a == 0 {
            0x55 * (index & 3)
        } else if index & 1 == 0 {
            0x44
        } else {
            0xee
        };
        Self { from: t.read_vector(i.rm), lane: Some(shuffle) }
    }

    fn factor(self) -> Factor {
        self.lane.map_or(Factor::All(self.from), |lane| Factor::Lane(self.from, lane))
    }

    /// A register with it, perhaps `scratch`, all lanes or those that take part and zeros.
    fn get(self, t: &mut Translator<'_>, i: &Insn, scratch: Xmm) -> Xmm {
        match self.lane {
            Some(lane) => t.asm.sse_imm(PSHUFD, scratch, self.from, lane),
            None if i.b == 16 => return self.from,
            None => take(t, i, scratch, self.from),
        }
        scratch
    }
}

fn arithmetic(
    t: &mut Translator<'_>,
    i: &Insn,
    op: Binary,
    second: impl FnOnce(&mut Translator<'_>, &Insn) -> Second,
    zeros: Option<[bool; 2]>,
    absolute: bool,
) {
    if !t.computes(i) {
        return;
    }
    let a = t.read_vector(i.rn);
    let second = second(t, i);
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    let good = t.asm.label();
    take(t, i, R, a);
    let b = second.get(t, i, S);
    t.asm.sse(op, R, b);
    match zeros {
        None => check(t, i, false, rare.entry()),
        Some([first, other]) => {
            let factors = [first.then_some(Factor::All(a)), other.then_some(second.factor())];
            let zeros = Zeros { double: i.a != 0, certain: false, factors, addend: None, in_rax: true };
            let bad = t.unless_zeros(zeros, good, &rare);
            check(t, i, true, bad);
        }
    }
    t.asm.bind(good);
    if absolute {
        let magnitude = t.constant(constants::MAGNITUDE.plus(i.a));
        t.asm.sse(ANDPS, R, magnitude);
    }
    cut(t, i);
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

pub(crate) fn fadd(t: &mut Translator<'_>, i: &Insn) {
    arithmetic(t, i, pick(i, ADDPS, ADDPD), Second::register, None, false);
}

pub(crate) fn fsub(t: &mut Translator<'_>, i: &Insn) {
    arithmetic(t, i, pick(i, SUBPS, SUBPD), Second::register, None, false);
}

pub(crate) fn fabd(t: &mut Translator<'_>, i: &Insn) {
    arithmetic(t, i, pick(i, SUBPS, SUBPD), Second::register, None, true);
}

pub(crate) fn fmul(t: &mut Translator<'_>, i: &Insn) {
    arithmetic(t, i, pick(i, MULPS, MULPD), Second::register, Some([true; 2]), false);
}

/// It differs from FMUL in what infinity times zero is, and that is no good result.
pub(crate) fn fmulx(t: &mut Translator<'_>, i: &Insn) {
    fmul(t, i);
}

pub(crate) fn fdiv(t: &mut Translator<'_>, i: &Insn) {
    arithmetic(t, i, pick(i, DIVPS, DIVPD), Second::register, Some([true, false]), false);
}

pub(crate) fn fmul_element(t: &mut Translator<'_>, i: &Insn) {
    arithmetic(t, i, pick(i, MULPS, MULPD), Second::element, Some([true; 2]), false);
}

pub(crate) fn fmulx_element(t: &mut Translator<'_>, i: &Insn) {
    fmul_element(t, i);
}

fn multiply_accumulate(
    t: &mut Translator<'_>,
    i: &Insn,
    kind: FmaKind,
    second: impl FnOnce(&mut Translator<'_>, &Insn) -> Second,
) {
    if !HostFeatures::get().fma {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let (a, c) = (t.read_vector(i.rn), t.read_vector(i.rd));
    let second = second(t, i);
    let rare = t.rare(i);
    let good = t.asm.label();
    take(t, i, R, a);
    let b = second.get(t, i, S);
    let mut addend = c;
    if i.b != 16 {
        take(t, i, U, c);
        addend = U;
    }
    t.asm.avx(fma(kind, FmaOrder::O213, pick(i, FpLanes::Ps, FpLanes::Pd)), R, b, addend);
    let factors = [Some(Factor::All(a)), Some(second.factor())];
    let zeros = Zeros { double: i.a != 0, certain: false, factors, addend: Some(c), in_rax: true };
    let bad = t.unless_zeros(zeros, good, &rare);
    check(t, i, true, bad);
    t.asm.bind(good);
    cut(t, i);
    t.asm.sse(MOVAPS, c, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

pub(crate) fn fmla(t: &mut Translator<'_>, i: &Insn) {
    multiply_accumulate(t, i, FmaKind::Madd, Second::register);
}

pub(crate) fn fmls(t: &mut Translator<'_>, i: &Insn) {
    multiply_accumulate(t, i, FmaKind::Nmadd, Second::register);
}

pub(crate) fn fmla_element(t: &mut Translator<'_>, i: &Insn) {
    multiply_accumulate(t, i, FmaKind::Madd, Second::element);
}

pub(crate) fn fmls_element(t: &mut Translator<'_>, i: &Insn) {
    multiply_accumulate(t, i, FmaKind::Nmadd, Second::element);
}

/// The larger or the smaller of two numbers: see the scalar forms.
fn extreme(t: &mut Translator<'_>, i: &Insn, op: Binary, join: Binary) {
    if !t.computes_exactly(i) {
        return;
    }
    let (a, b) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    check_ordered(t, i, a, b, rare.entry());
    t.asm.sse(MOVAPS, R, a);
    t.asm.sse(MOVAPS, S, b);
    t.asm.sse(op, R, b);
    t.asm.sse(op, S, a);
    t.asm.sse(join, R, S);
    cut(t, i);
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

pub(crate) fn fmax(t: &mut Translator<'_>, i: &Insn) {
    extreme(t, i, pick(i, MAXPS, MAXPD), ANDPS);
}

pub(crate) fn fmin(t: &mut Translator<'_>, i: &Insn) {
    extreme(t, i, pick(i, MINPS, MINPD), ORPS);
}

pub(crate) fn fmaxnm(t: &mut Translator<'_>, i: &Insn) {
    fmax(t, i);
}

pub(crate) fn fminnm(t: &mut Translator<'_>, i: &Insn) {
    fmin(t, i);
}

/// Lanes of ones where `a` and `b` compare so; with `None` the other is zero.
fn compare(t: &mut Translator<'_>, i: &Insn, a: Option<u8>, predicate: u8, b: Option<u8>, magnitudes: bool) {
    if !t.computes_exactly(i) {
        return;
    }
    let (a, b) = (a.map(|n| t.read_vector(n)), b.map(|n| t.read_vector(n)));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    // A NaN in the one that is there shows against itself.
    let there = a.or(b).unwrap_or(R);
    check_ordered(t, i, there, b.unwrap_or(there), rare.entry());
    match a {
        Some(a) => t.asm.sse(MOVAPS, R, a),
        None => t.asm.sse(XORPS, R, R),
    }
    match b {
        Some(b) => t.asm.sse(MOVAPS, S, b),
        None => t.asm.sse(XORPS, S, S),
    }
    if magnitudes {
        let magnitude = t.constant(constants::MAGNITUDE.plus(i.a));
        t.asm.sse(ANDPS, R, magnitude);
        t.asm.sse(ANDPS, S, magnitude);
    }
    t.asm.sse_imm(pick(i, CMPPS, CMPPD), R, S, predicate);
    cut(t, i);
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

pub(crate) fn fcmeq(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rn), predicate::EQUAL, Some(i.rm), false);
}

pub(crate) fn fcmge(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rm), predicate::LESS_OR_EQUAL, Some(i.rn), false);
}

pub(crate) fn fcmgt(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rm), predicate::LESS, Some(i.rn), false);
}

pub(crate) fn facge(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rm), predicate::LESS_OR_EQUAL, Some(i.rn), true);
}

pub(crate) fn facgt(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rm), predicate::LESS, Some(i.rn), true);
}

pub(crate) fn fcmeq_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rn), predicate::EQUAL, None, false);
}

pub(crate) fn fcmge_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, None, predicate::LESS_OR_EQUAL, Some(i.rn), false);
}

pub(crate) fn fcmgt_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, None, predicate::LESS, Some(i.rn), false);
}

pub(crate) fn fcmle_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rn), predicate::LESS_OR_EQUAL, None, false);
}

pub(crate) fn fcmlt_zero(t: &mut Translator<'_>, i: &Insn) {
    compare(t, i, Some(i.rn), predicate::LESS, None, false);
}

fn change_sign(t: &mut Translator<'_>, i: &Insn, op: Binary, constant: constants::Constant) {
    let a = t.read_vector(i.rn);
    let to = t.write_vector(i.rd);
    take(t, i, R, a);
    let constant = t.constant(constant.plus(i.a));
    t.asm.sse(op, R, constant);
    cut(t, i);
    t.asm.sse(MOVAPS, to, R);
}

pub(crate) fn fabs(t: &mut Translator<'_>, i: &Insn) {
    change_sign(t, i, ANDPS, constants::MAGNITUDE);
}

pub(crate) fn fneg(t: &mut Translator<'_>, i: &Insn) {
    change_sign(t, i, XORPS, constants::SIGN.plus(2));
}

/// `op` in XMM0, and what makes the result bad.
fn one_source(
    t: &mut Translator<'_>,
    i: &Insn,
    op: impl FnOnce(&mut Translator<'_>),
    bad: impl FnOnce(&mut Translator<'_>, Label),
) {
    let a = t.read_vector(i.rn);
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    take(t, i, R, a);
    op(t);
    bad(t, rare.entry());
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

pub(crate) fn fsqrt(t: &mut Translator<'_>, i: &Insn) {
    if t.computes(i) {
        one_source(t, i, |t| t.asm.sse(pick(i, SQRTPS, SQRTPD), R, R), |t, bad| check(t, i, false, bad));
    }
}

fn round(t: &mut Translator<'_>, i: &Insn, rounding: u8) {
    let op = |t: &mut Translator<'_>| t.asm.sse_imm(pick(i, ROUNDPS, ROUNDPD), R, R, rounding);
    one_source(t, i, op, |t, bad| check_ordered(t, i, R, R, bad));
}

pub(crate) fn frint(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if t.computes_exactly(i) {
        round(t, i, rounding(i.imm as u8) | QUIETLY);
    }
}

pub(crate) fn frinti(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if t.computes_exactly(i) {
        round(t, i, QUIETLY);
    }
}

pub(crate) fn frintx(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if t.computes(i) {
        round(t, i, 0);
    }
}

/// FCVTZS: lanes of 32 bits, and the scalar of 64. The rest is rare.
pub(crate) fn fcvt_int(t: &mut Translator<'_>, i: &Insn) {
    if i.imm != 3 || i.a == 1 && i.b == 16 {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let op = |t: &mut Translator<'_>| {
        if i.a == 0 {
            t.asm.sse(CVTTPS2DQ, R, R);
        } else {
            t.asm.sse_to_gpr(CVTTSD2SI, Size::Qword, Gpr::Rax, R);
            t.asm.sse_movd(Size::Qword, R, Gpr::Rax);
        }
    };
    one_source(t, i, op, |t, bad| {
        // What does not fit becomes the smallest integer.
        if i.a == 0 {
            let smallest = t.constant(constants::SIGN.plus(2));
            t.asm.sse(MOVAPS, S, smallest);
            t.asm.sse(PCMPEQD, S, R);
            leave_if_any(t, i, S, bad);
        } else {
            t.asm.alu_imm(Alu::Cmp, Size::Qword, Gpr::Rax, 1);
            t.asm.jcc(Cond::O, bad);
        }
    });
}

/// SCVTF of lanes of 32 bits, and the scalars.
pub(crate) fn cvtf(t: &mut Translator<'_>, i: &Insn) {
    let signed = i.imm & 4 == 0;
    let is_scalar = i.b == 4 << i.a;
    if !is_scalar && (!signed || i.a != 0) {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let a = t.read_vector(i.rn);
    let to = t.write_vector(i.rd);
    if is_scalar {
        t.asm.sse_movd_store(if i.a == 0 { Size::Dword } else { Size::Qword }, Gpr::Rcx, a);
        if i.a == 0 {
            from_integer::<F32>(t, Gpr::Rcx, false, signed);
        } else {
            from_integer::<F64>(t, Gpr::Rcx, true, signed);
        }
    } else {
        take(t, i, R, a);
        t.asm.sse(CVTDQ2PS, R, R);
    }
    t.asm.sse(MOVAPS, to, R);
}

/// Pairs of neighbours: the first of each to XMM0, the second to XMM1, in the lanes of the result.
fn pairs(t: &mut Translator<'_>, i: &Insn, a: Xmm, b: Xmm) {
    match (i.a, i.b) {
        (0, 16) => {
            t.asm.sse(MOVAPS, S, a);
            t.asm.sse(MOVAPS, R, a);
            t.asm.sse_imm(SHUFPS, R, b, 0x88);
            t.asm.sse_imm(SHUFPS, S, b, 0xdd);
        }
        (0, _) => {
            t.asm.sse(MOVQ, R, a);
            t.asm.sse(PUNPCKLQDQ, R, b);
            t.asm.sse_imm(PSHUFD, S, R, 0x0d);
            t.asm.sse_imm(PSHUFD, R, R, 0x08);
            t.asm.sse(MOVQ, S, S);
            t.asm.sse(MOVQ, R, R);
        }
        _ => {
            t.asm.sse(MOVAPS, S, a);
            t.asm.sse(MOVAPS, R, a);
            t.asm.sse_imm(SHUFPD, R, b, 0);
            t.asm.sse_imm(SHUFPD, S, b, 3);
        }
    }
}

/// FADDP.
pub(crate) fn faddp(t: &mut Translator<'_>, i: &Insn) {
    if !t.computes(i) {
        return;
    }
    let (a, b) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    pairs(t, i, a, b);
    t.asm.sse(pick(i, ADDPS, ADDPD), R, S);
    check(t, i, false, rare.entry());
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

/// FADDP of two lanes to a scalar.
pub(crate) fn faddp_scalar(t: &mut Translator<'_>, i: &Insn) {
    if !t.computes(i) {
        return;
    }
    let scalar = Insn { b: 4 << i.a, ..*i };
    let a = t.read_vector(i.rn);
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    t.asm.sse(MOVAPS, U, a);
    t.asm.sse_shift(PSRLDQ, U, 4 << i.a);
    take(t, &scalar, R, a);
    take(t, &scalar, S, U);
    t.asm.sse(pick(i, ADDPS, ADDPD), R, S);
    check(t, &scalar, false, rare.entry());
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

fn extreme_of_pairs(t: &mut Translator<'_>, i: &Insn, op: Binary, join: Binary) {
    if !t.computes_exactly(i) {
        return;
    }
    let (a, b) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    pairs(t, i, a, b);
    t.asm.sse(MOVAPS, U, R);
    t.asm.sse_imm(pick(i, CMPPS, CMPPD), U, S, predicate::UNORDERED);
    leave_if_any(t, i, U, rare.entry());
    t.asm.sse(MOVAPS, U, R);
    t.asm.sse(op, R, S);
    t.asm.sse(op, S, U);
    t.asm.sse(join, R, S);
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

pub(crate) fn fmaxp(t: &mut Translator<'_>, i: &Insn) {
    extreme_of_pairs(t, i, pick(i, MAXPS, MAXPD), ANDPS);
}

pub(crate) fn fminp(t: &mut Translator<'_>, i: &Insn) {
    extreme_of_pairs(t, i, pick(i, MINPS, MINPD), ORPS);
}

pub(crate) fn fmaxnmp(t: &mut Translator<'_>, i: &Insn) {
    fmaxp(t, i);
}

pub(crate) fn fminnmp(t: &mut Translator<'_>, i: &Insn) {
    fminp(t, i);
}

/// FCVTL of singles.
pub(crate) fn fcvtl(t: &mut Translator<'_>, i: &Insn) {
    if i.a == 0 {
        return t.call_handler(i);
    }
    if !t.computes_exactly(i) {
        return;
    }
    let whole = Insn { b: 16, ..*i };
    let a = t.read_vector(i.rn);
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    if i.b == 0 {
        t.asm.sse(CVTPS2PD, R, a);
    } else {
        t.asm.sse_imm(PSHUFD, R, a, 0xee);
        t.asm.sse(CVTPS2PD, R, R);
    }
    check(t, &whole, false, rare.entry());
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}

/// FCVTN of doubles.
pub(crate) fn fcvtn(t: &mut Translator<'_>, i: &Insn) {
    if i.a == 0 {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let half = Insn { a: 0, b: 8, ..*i };
    let (a, old) = (t.read_vector(i.rn), t.read_vector(i.rd));
    let rare = t.rare(i);
    t.asm.sse(CVTPD2PS, R, a);
    check(t, &half, true, rare.entry());
    if i.b == 0 {
        t.asm.sse(MOVAPS, old, R);
    } else {
        t.asm.sse(PUNPCKLQDQ, old, R);
    }
    t.vector_written(i.rd);
    t.rejoin(rare, i);
}
