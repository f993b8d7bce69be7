//! Scalar floating point. The handlers in `exec::fp` say what each instruction does, `jit::float` how the host's
//! arithmetic stands in for them.
//!
//! XMM0 is where results are made; the sources stay as they are until a result is known to be good.

use crate::insn::Insn;
use crate::jit::emit::constants;
use crate::jit::float::{Factor, Zeros};
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{Alu, Cond, Gpr, HostFeatures, Label, Shift, Size, Xmm};
use crate::softfloat::Format;

const R: Xmm = Xmm::new(0);
const S: Xmm = Xmm::new(1);

/// What is to be seen in a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// No NaN and no infinity: for what is exact when it is small.
    Large,
    /// Nor a number that might be tiny.
    Both,
}

pub(super) const fn is_double<F: Format>() -> bool {
    F::WIDTH == 64
}

const fn size<F: Format>() -> Size {
    if is_double::<F>() { Size::Qword } else { Size::Dword }
}

const fn pick<F: Format, T: Copy>(single: T, double: T) -> T {
    if is_double::<F>() { double } else { single }
}

/// The scalar in `from`, alone, to `to`.
fn take<F: Format>(t: &mut Translator<'_>, to: Xmm, from: Xmm) {
    if is_double::<F>() {
        t.asm.sse(MOVQ, to, from);
    } else {
        debug_assert!(to != from, "cleared before it is read");
        t.asm.sse(XORPS, to, to);
        t.asm.sse_registers(MOVSS_MERGE, to, from);
    }
}

/// The exponent of `from`, and above it the sign, into EAX.
fn exponent<F: Format>(t: &mut Translator<'_>, from: Xmm) {
    t.asm.sse_movd_store(size::<F>(), Gpr::Rax, from);
    t.asm.shift(Shift::Shr, size::<F>(), Gpr::Rax, F::FRAC as u8);
}

/// Goes to `bad` if the result is not what `look` wants. Changes RAX.
fn check<F: Format>(t: &mut Translator<'_>, look: Look, bad: Label) {
    exponent::<F>(t, R);
    // Now the exponents of NaNs and infinities, zeros and denormals, and the two smallest ones are 0 to 3.
    t.asm.alu_imm(Alu::Add, Size::Dword, Gpr::Rax, 1);
    let mask = if look == Look::Both { F::EXP_MAX & !3 } else { F::EXP_MAX };
    t.asm.test_imm(Size::Dword, Gpr::Rax, mask as i32);
    t.asm.jcc(Cond::E, bad);
}

/// The result becomes that of the instruction.
fn finish(t: &mut Translator<'_>, i: &Insn, to: Xmm) {
    t.asm.sse(MOVAPS, to, R);
    t.vector_written(i.rd);
}

fn factors(a: Option<Xmm>, b: Option<Xmm>) -> [Option<Factor>; 2] {
    [a.map(Factor::All), b.map(Factor::All)]
}

/// `op` on two sources. `zeros` says which of them make an exact zero.
fn two_sources<F: Format>(
    t: &mut Translator<'_>,
    i: &Insn,
    op: Binary,
    look: Look,
    zeros: [bool; 2],
    negate: bool,
) {
    if !t.computes(i) {
        return;
    }
    let (a, b) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    let good = t.asm.label();
    take::<F>(t, R, a);
    t.asm.sse(op, R, b);
    let bad = if zeros == [false; 2] {
        rare.entry()
    } else {
        let factors = factors(zeros[0].then_some(a), zeros[1].then_some(b));
        let zeros = Zeros { double: is_double::<F>(), certain: false, factors, addend: None, in_rax: false };
        t.unless_zeros(zeros, good, &rare)
    };
    check::<F>(t, look, bad);
    t.asm.bind(good);
    if negate {
        let sign = t.constant(constants::SCALAR_SIGN.plus(is_double::<F>().into()));
        t.asm.sse(XORPS, R, sign);
    }
    finish(t, i, to);
    t.rejoin(rare, i);
}

pub(crate) fn fadd<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    two_sources::<F>(t, i, pick::<F, _>(ADDSS, ADDSD), Look::Large, [false; 2], false);
}

pub(crate) fn fsub<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    two_sources::<F>(t, i, pick::<F, _>(SUBSS, SUBSD), Look::Large, [false; 2], false);
}

pub(crate) fn fmul<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    two_sources::<F>(t, i, pick::<F, _>(MULSS, MULSD), Look::Both, [true; 2], false);
}

pub(crate) fn fnmul<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    two_sources::<F>(t, i, pick::<F, _>(MULSS, MULSD), Look::Both, [true; 2], true);
}

pub(crate) fn fdiv<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    two_sources::<F>(t, i, pick::<F, _>(DIVSS, DIVSD), Look::Both, [true, false], false);
}

/// The larger or the smaller of two numbers. The host gives its second operand if both are zeros: the two ways round
/// differ in the sign alone then, of which the bitwise operation makes the right one.
fn extreme<F: Format>(t: &mut Translator<'_>, i: &Insn, op: Binary, join: Binary) {
    if !t.computes_exactly(i) {
        return;
    }
    let (a, b) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    t.asm.sse(pick::<F, _>(UCOMISS, UCOMISD), a, b);
    t.asm.jcc(Cond::P, rare.entry());
    take::<F>(t, R, a);
    take::<F>(t, S, b);
    t.asm.sse(op, R, b);
    t.asm.sse(op, S, a);
    t.asm.sse(join, R, S);
    finish(t, i, to);
    t.rejoin(rare, i);
}

pub(crate) fn fmax<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    extreme::<F>(t, i, pick::<F, _>(MAXSS, MAXSD), ANDPS);
}

pub(crate) fn fmin<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    extreme::<F>(t, i, pick::<F, _>(MINSS, MINSD), ORPS);
}

pub(crate) fn fmaxnm<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    fmax::<F>(t, i);
}

pub(crate) fn fminnm<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    fmin::<F>(t, i);
}

fn three_sources<F: Format>(t: &mut Translator<'_>, i: &Insn, kind: FmaKind) {
    if !HostFeatures::get().fma {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let (a, b, c) = (t.read_vector(i.rn), t.read_vector(i.rm), t.read_vector(i.ra));
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    let good = t.asm.label();
    take::<F>(t, R, a);
    t.asm.avx(fma(kind, FmaOrder::O213, pick::<F, _>(FpLanes::Ss, FpLanes::Sd)), R, b, c);
    let factors = factors(Some(a), Some(b));
    let zeros = Zeros { double: is_double::<F>(), certain: false, factors, addend: Some(c), in_rax: false };
    let bad = t.unless_zeros(zeros, good, &rare);
    check::<F>(t, Look::Both, bad);
    t.asm.bind(good);
    finish(t, i, to);
    t.rejoin(rare, i);
}

pub(crate) fn fmadd<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    three_sources::<F>(t, i, FmaKind::Madd);
}

pub(crate) fn fmsub<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    three_sources::<F>(t, i, FmaKind::Nmadd);
}

pub(crate) fn fnmadd<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    three_sources::<F>(t, i, FmaKind::Nmsub);
}

pub(crate) fn fnmsub<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    three_sources::<F>(t, i, FmaKind::Msub);
}

pub(crate) fn fmov<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read_vector(i.rn);
    let to = t.write_vector(i.rd);
    if to == a {
        take::<F>(t, R, a);
        t.asm.sse(MOVAPS, to, R);
    } else {
        take::<F>(t, to, a);
    }
}

/// `op` with a constant on the bits of a scalar.
fn change_sign<F: Format>(t: &mut Translator<'_>, i: &Insn, op: Binary, constant: constants::Constant) {
    let a = t.read_vector(i.rn);
    let to = t.write_vector(i.rd);
    take::<F>(t, R, a);
    let constant = t.constant(constant.plus(is_double::<F>().into()));
    t.asm.sse(op, R, constant);
    t.asm.sse(MOVAPS, to, R);
}

pub(crate) fn fabs<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    change_sign::<F>(t, i, ANDPS, constants::MAGNITUDE);
}

pub(crate) fn fneg<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    change_sign::<F>(t, i, XORPS, constants::SCALAR_SIGN);
}

/// `op` on one source, with the rest of XMM0 clear, and what makes its result bad.
fn one_source(
    t: &mut Translator<'_>,
    i: &Insn,
    op: impl FnOnce(&mut Translator<'_>, Xmm),
    bad: impl FnOnce(&mut Translator<'_>, Label),
) {
    let a = t.read_vector(i.rn);
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    t.asm.sse(XORPS, R, R);
    op(t, a);
    bad(t, rare.entry());
    finish(t, i, to);
    t.rejoin(rare, i);
}

/// Roots are never tiny.
pub(crate) fn fsqrt<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    if t.computes(i) {
        let op = pick::<F, _>(SQRTSS, SQRTSD);
        one_source(t, i, |t, a| t.asm.sse(op, R, a), |t, bad| check::<F>(t, Look::Large, bad));
    }
}

/// The host's rounding for an RMode.
pub(super) const fn rounding(mode: u8) -> u8 {
    match mode & 3 {
        0 => 0,
        1 => 2,
        2 => 1,
        _ => 3,
    }
}

/// ROUNDSS and its kin raise no precision flag.
pub(super) const QUIETLY: u8 = 8;

fn round<F: Format>(t: &mut Translator<'_>, i: &Insn, rounding: u8) {
    let op = pick::<F, _>(ROUNDSS, ROUNDSD);
    let nan = |t: &mut Translator<'_>, bad| {
        t.asm.sse(pick::<F, _>(UCOMISS, UCOMISD), R, R);
        t.asm.jcc(Cond::P, bad);
    };
    one_source(t, i, |t, a| t.asm.sse_imm(op, R, a, rounding), nan);
}

pub(crate) fn frint<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if t.computes_exactly(i) {
        round::<F>(t, i, rounding(i.a) | QUIETLY);
    }
}

pub(crate) fn frinti<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if t.computes_exactly(i) {
        round::<F>(t, i, QUIETLY);
    }
}

pub(crate) fn frintx<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if t.computes(i) {
        round::<F>(t, i, 0);
    }
}

/// FCMP and FCMPE: NaNs are the handler's, since they may raise IOC.
fn compare<F: Format>(t: &mut Translator<'_>, i: &Insn, b: Option<u8>) {
    if !t.computes_exactly(i) {
        return;
    }
    let a = t.read_vector(i.rn);
    let b = b.map_or(R, |b| t.read_vector(b));
    let rare = t.rare(i);
    if b == R {
        t.asm.sse(XORPS, R, R);
    }
    t.asm.sse(pick::<F, _>(UCOMISS, UCOMISD), a, b);
    t.asm.jcc(Cond::P, rare.entry());
    let below = t.flags_compared();
    t.rejoin_compared(rare, i, below);
}

pub(crate) fn fcmp<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    compare::<F>(t, i, Some(i.rm));
}

pub(crate) fn fcmp_zero<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    compare::<F>(t, i, None);
}

/// FCCMP and FCCMPE: the flags go to memory, from where the handler takes the condition, too.
pub(crate) fn fccmp<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    if !t.computes_exactly(i) {
        return;
    }
    let (a, b) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let rare = t.rare(i);
    let (given, done) = (t.asm.label(), t.asm.label());
    if i.b < 14 {
        let cond = t.condition(i.b);
        t.asm.jcc(cond.not(), given);
    }
    t.asm.sse(pick::<F, _>(UCOMISS, UCOMISD), a, b);
    t.asm.jcc(Cond::P, rare.entry());
    t.store_compared();
    t.asm.jmp(done);
    t.asm.bind(given);
    t.store_given_flags(i.imm as u8);
    t.asm.bind(done);
    t.rejoin(rare, i);
    t.host_flags = crate::jit::flags::HostFlags::Unknown;
}

/// FCSEL. MOVQ and CMOV change no flags; the host's are made first.
pub(crate) fn fcsel<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    let (yes, no) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let to = t.write_vector(i.rd);
    if i.a >= 14 {
        t.asm.sse_movd_store(size::<F>(), Gpr::Rax, yes);
    } else {
        let cond = t.condition(i.a);
        t.asm.sse_movd_store(size::<F>(), Gpr::Rax, no);
        t.asm.sse_movd_store(size::<F>(), Gpr::Rdx, yes);
        t.asm.cmovcc(cond, size::<F>(), Gpr::Rax, Gpr::Rdx);
    }
    t.asm.sse_movd(size::<F>(), to, Gpr::Rax);
}

pub(crate) fn fmov_imm(t: &mut Translator<'_>, i: &Insn) {
    let to = t.write_vector(i.rd);
    t.asm.mov_imm(Gpr::Rax, i.imm);
    t.asm.sse_movd(Size::Qword, to, Gpr::Rax);
}

/// To general registers, as `i.b` says: 64 bits by bit 0, unsigned by bit 1. Nothing is tried that might raise the
/// precision flag and be out of range.
pub(crate) fn fcvt_int<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    let (bits, signed) = (32 << (i.b & 1), i.b & 2 == 0);
    let toward_zero = i.a == 3;
    if !toward_zero && !HostFeatures::get().sse4_1 {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let mut a = t.read_vector(i.rn);
    let to = t.reserve(i.rd);
    let rare = t.rare(i);
    let convert = pick::<F, _>(CVTTSS2SI, CVTTSD2SI);
    let result = if bits == 64 { Size::Qword } else { Size::Dword };
    if signed && toward_zero {
        t.asm.sse_to_gpr(convert, result, Gpr::Rax, a);
        // What does not fit becomes the smallest integer, and only invalid is raised.
        t.asm.alu_imm(Alu::Cmp, result, Gpr::Rax, 1);
        t.asm.jcc(Cond::O, rare.entry());
    } else {
        exponent::<F>(t, a);
        // Below this power of two nothing is out of range, whichever way it is rounded.
        let limit = match (signed, bits) {
            (true, _) => bits - 2,
            (false, 32) if toward_zero => 32,
            (false, _) => bits - 1,
        };
        if signed {
            t.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rax, F::EXP_MAX as i32);
        }
        t.asm.alu_imm(Alu::Cmp, Size::Dword, Gpr::Rax, F::BIAS + limit);
        t.asm.jcc(Cond::Ae, rare.entry());
        if !toward_zero {
            t.asm.sse_imm(pick::<F, _>(ROUNDSS, ROUNDSD), R, a, rounding(i.a));
            a = R;
        }
        t.asm.sse_to_gpr(convert, if signed { result } else { Size::Qword }, Gpr::Rax, a);
    }
    t.asm.mov(result, to, Gpr::Rax);
    t.written(i.rd);
    t.rejoin(rare, i);
}

/// The integer in `from` to the scalar XMM0, the rest of which becomes clear. Changes RAX and RDX.
pub(super) fn from_integer<F: Format>(t: &mut Translator<'_>, from: Gpr, is_64: bool, signed: bool) {
    let convert = pick::<F, _>(CVTSI2SS, CVTSI2SD);
    t.asm.sse(XORPS, R, R);
    match (is_64, signed) {
        (false, true) => t.asm.sse_from_gpr(convert, Size::Dword, R, from),
        (true, true) => t.asm.sse_from_gpr(convert, Size::Qword, R, from),
        (false, false) => {
            t.asm.mov(Size::Dword, Gpr::Rax, from);
            t.asm.sse_from_gpr(convert, Size::Qword, R, Gpr::Rax);
        }
        (true, false) => {
            let (large, done) = (t.asm.label(), t.asm.label());
            t.asm.test(Size::Qword, from, from);
            t.asm.jcc(Cond::S, large);
            t.asm.sse_from_gpr(convert, Size::Qword, R, from);
            t.asm.jmp(done);
            t.asm.bind(large);
            // Half of it, the last bit standing for both that were there: it is far below the place that is rounded.
            t.asm.mov(Size::Qword, Gpr::Rdx, from);
            t.asm.mov(Size::Qword, Gpr::Rax, from);
            t.asm.shift(Shift::Shr, Size::Qword, Gpr::Rax, 1);
            t.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rdx, 1);
            t.asm.alu(Alu::Or, Size::Qword, Gpr::Rax, Gpr::Rdx);
            t.asm.sse_from_gpr(convert, Size::Qword, R, Gpr::Rax);
            t.asm.sse(pick::<F, _>(ADDSS, ADDSD), R, R);
            t.asm.bind(done);
        }
    }
}

/// From general registers. Nothing but inexactness can come of it.
pub(crate) fn cvtf<F: Format>(t: &mut Translator<'_>, i: &Insn) {
    let is_64 = i.b & 1 != 0;
    let exact = is_double::<F>() && !is_64;
    if !(if exact { t.computes_exactly(i) } else { t.computes(i) }) {
        return;
    }
    let from = t.read(i.rn);
    from_integer::<F>(t, from, is_64, i.b & 2 == 0);
    if i.a != 0 {
        // A power of two, and no result is tiny: exact.
        let scale = ((F::BIAS - i32::from(i.a)) as u64) << F::FRAC;
        t.asm.mov_imm(Gpr::Rax, scale);
        t.asm.sse_movd(Size::Qword, S, Gpr::Rax);
        t.asm.sse(pick::<F, _>(MULSS, MULSD), R, S);
    }
    let to = t.write_vector(i.rd);
    t.asm.sse(MOVAPS, to, R);
}

/// FCVT. A single as a double is exact, and so is zero.
pub(crate) fn fcvt<F: Format, T: Format>(t: &mut Translator<'_>, i: &Insn) {
    if F::WIDTH == 16 || T::WIDTH == 16 {
        return t.call_handler(i);
    }
    if !t.computes(i) {
        return;
    }
    let a = t.read_vector(i.rn);
    let to = t.reserve_vector(i.rd);
    let rare = t.rare(i);
    let good = t.asm.label();
    t.asm.sse(XORPS, R, R);
    if is_double::<T>() {
        t.asm.sse(CVTSS2SD, R, a);
        check::<T>(t, Look::Large, rare.entry());
    } else {
        t.asm.sse(CVTSD2SS, R, a);
        let factors = factors(Some(a), None);
        let zeros = Zeros { double: true, certain: true, factors, addend: None, in_rax: false };
        let bad = t.unless_zeros(zeros, good, &rare);
        check::<T>(t, Look::Both, bad);
    }
    t.asm.bind(good);
    finish(t, i, to);
    t.rejoin(rare, i);
}

pub(crate) fn fmov_from_general<const BITS: u32>(t: &mut Translator<'_>, i: &Insn) {
    let from = t.read(i.rn);
    let to = t.write_vector(i.rd);
    t.asm.sse_movd(if BITS == 64 { Size::Qword } else { Size::Dword }, to, from);
}

pub(crate) fn fmov_to_general<const BITS: u32, const LSB: u32>(t: &mut Translator<'_>, i: &Insn) {
    let mut from = t.read_vector(i.rn);
    let to = t.write(i.rd);
    if LSB == 64 {
        t.asm.sse_registers(MOVHLPS, R, from);
        from = R;
    }
    t.asm.sse_movd_store(if BITS == 64 { Size::Qword } else { Size::Dword }, to, from);
}

pub(crate) fn fmov_top_from_general(t: &mut Translator<'_>, i: &Insn) {
    let from = t.read(i.rn);
    let low = t.read_vector(i.rd);
    t.asm.sse_movd(Size::Qword, R, from);
    t.asm.sse(PUNPCKLQDQ, low, R);
    t.vector_written(i.rd);
}
