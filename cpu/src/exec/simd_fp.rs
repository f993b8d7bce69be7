//! Floating point on vectors and on the scalar forms of Advanced SIMD.
//!
//! Arm ARM C3.6, C4.1.94; the arithmetic is [`crate::softfloat`]. Slot `a` is 0 for single, 1 for double precision. Only
//! the lanes of the `b` active bytes are computed, since each computation may raise flags.

use super::simd::*;
use crate::Cpu;
use crate::insn::Insn;
use crate::softfloat::{self as sf, Env, Format, Int, Rounding};

/// Runs `$body` with the format `F` and its lane type `L`.
macro_rules! with_format {
    ($double:expr, $body:expr) => {
        if $double == 0 {
            type F = sf::F32;
            type L = u32;
            $body
        } else {
            type F = sf::F64;
            type L = u64;
            $body
        }
    };
}

/// Number of active lanes.
#[inline(always)]
fn count<L: Lane>(i: &Insn) -> usize {
    usize::from(i.b) * 8 / L::BITS as usize
}

/// Writes lane values for the active lanes, in order, zeros above.
#[inline(always)]
fn compute<L: Lane>(cpu: &mut Cpu, i: &Insn, mut lane: impl FnMut(usize, &mut Env) -> u64) {
    let active = count::<L>(i);
    let result = cpu.fp_env(|env| L::build(|k| if k < active { L::of(lane(k, env)) } else { L::default() }));
    cpu.set_v(i.rd, result);
}

/// All ones if so.
fn mask(holds: bool) -> u64 {
    if holds { u64::MAX } else { 0 }
}

macro_rules! two_sources {
    ($($(#[$doc:meta])* $name:ident = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            with_format!(i.a, {
                let (x, y) = (L::split(cpu.v(i.rn)), L::split(cpu.v(i.rm)));
                compute::<L>(cpu, i, |k, env| ($lane)(x[k].u(), y[k].u(), env));
            });
        }
    )*};
}

two_sources! {
    /// FADD.
    fadd = sf::add::<F>;
    /// FSUB.
    fsub = sf::sub::<F>;
    /// FMUL.
    fmul = sf::mul::<F>;
    /// FMULX.
    fmulx = sf::mulx::<F>;
    /// FDIV.
    fdiv = sf::div::<F>;
    /// FABD: absolute difference.
    fabd = |x, y, env: &mut Env| sf::abs::<F>(sf::sub::<F>(x, y, env));
    /// FMAX.
    fmax = sf::max::<F>;
    /// FMIN.
    fmin = sf::min::<F>;
    /// FMAXNM.
    fmaxnm = sf::max_num::<F>;
    /// FMINNM.
    fminnm = sf::min_num::<F>;
    /// FRECPS.
    frecps = sf::recip_step::<F>;
    /// FRSQRTS.
    frsqrts = sf::recip_sqrt_step::<F>;
    /// FCMEQ.
    fcmeq = |x, y, env: &mut Env| mask(sf::is_equal::<F>(x, y, env));
    /// FCMGE.
    fcmge = |x, y, env: &mut Env| mask(sf::is_greater_or_equal::<F>(x, y, env));
    /// FCMGT.
    fcmgt = |x, y, env: &mut Env| mask(sf::is_greater::<F>(x, y, env));
    /// FACGE: magnitudes.
    facge = |x, y, env: &mut Env| mask(sf::is_greater_or_equal::<F>(sf::abs::<F>(x), sf::abs::<F>(y), env));
    /// FACGT.
    facgt = |x, y, env: &mut Env| mask(sf::is_greater::<F>(sf::abs::<F>(x), sf::abs::<F>(y), env));
}

macro_rules! pairwise {
    ($($(#[$doc:meta])* $name:ident $scalar:ident = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            with_format!(i.a, {
                let (x, y) = (L::split(cpu.v(i.rn)), L::split(cpu.v(i.rm)));
                let half = count::<L>(i) / 2;
                compute::<L>(cpu, i, |k, env| {
                    let (from, k) = if k < half { (x, k) } else { (y, k - half) };
                    ($lane)(from[2 * k % L::COUNT].u(), from[(2 * k + 1) % L::COUNT].u(), env)
                });
            });
        }
        /// Of the two lowest lanes, as a scalar.
        #[inline(never)]
        pub(crate) fn $scalar(cpu: &mut Cpu, i: &Insn) {
            with_format!(i.a, {
                let x = L::split(cpu.v(i.rn));
                let result = cpu.fp_env(|env| ($lane)(x[0].u(), x[1].u(), env));
                cpu.set_v(i.rd, result.into());
            });
        }
    )*};
}

pairwise! {
    /// FADDP.
    faddp faddp_scalar = sf::add::<F>;
    /// FMAXP.
    fmaxp fmaxp_scalar = sf::max::<F>;
    /// FMINP.
    fminp fminp_scalar = sf::min::<F>;
    /// FMAXNMP.
    fmaxnmp fmaxnmp_scalar = sf::max_num::<F>;
    /// FMINNMP.
    fminnmp fminnmp_scalar = sf::min_num::<F>;
}

/// Reductions of four singles: pairs first, as the architecture's `Reduce` recurses.
macro_rules! across {
    ($($(#[$doc:meta])* $name:ident = $pair:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let [a, b, c, d] = u32::split(cpu.v(i.rn)).map(u64::from);
            let result = cpu.fp_env(|env| {
                let low = ($pair)(a, b, env);
                let high = ($pair)(c, d, env);
                ($pair)(low, high, env)
            });
            cpu.set_v(i.rd, result.into());
        }
    )*};
}

across! {
    /// FMAXV.
    fmaxv = sf::max::<sf::F32>;
    /// FMINV.
    fminv = sf::min::<sf::F32>;
    /// FMAXNMV.
    fmaxnmv = sf::max_num::<sf::F32>;
    /// FMINNMV.
    fminnmv = sf::min_num::<sf::F32>;
}

macro_rules! with_element {
    ($($(#[$doc:meta])* $name:ident = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            with_format!(i.a, {
                let (d, x) = (L::split(cpu.v(i.rd)), L::split(cpu.v(i.rn)));
                let y = L::get(cpu.v(i.rm), i.imm as usize).u();
                compute::<L>(cpu, i, |k, env| ($lane)(d[k].u(), x[k].u(), y, env));
            });
        }
    )*};
}

with_element! {
    /// FMLA (by element).
    fmla_element = sf::mul_add::<F>;
    /// FMLS (by element).
    fmls_element = |d, x, y, env: &mut Env| sf::mul_add::<F>(d, sf::neg::<F>(x), y, env);
    /// FMUL (by element).
    fmul_element = |_, x, y, env: &mut Env| sf::mul::<F>(x, y, env);
    /// FMULX (by element).
    fmulx_element = |_, x, y, env: &mut Env| sf::mulx::<F>(x, y, env);
}

/// FMLA (vector).
#[inline(never)]
pub(crate) fn fmla(cpu: &mut Cpu, i: &Insn) {
    multiply_accumulate(cpu, i, false);
}

/// FMLS (vector).
#[inline(never)]
pub(crate) fn fmls(cpu: &mut Cpu, i: &Insn) {
    multiply_accumulate(cpu, i, true);
}

#[inline(always)]
fn multiply_accumulate(cpu: &mut Cpu, i: &Insn, negate: bool) {
    with_format!(i.a, {
        let (d, x, y) = (L::split(cpu.v(i.rd)), L::split(cpu.v(i.rn)), L::split(cpu.v(i.rm)));
        compute::<L>(cpu, i, |k, env| {
            let x = x[k].u() ^ if negate { F::SIGN } else { 0 };
            sf::mul_add::<F>(d[k].u(), x, y[k].u(), env)
        });
    });
}

macro_rules! one_source {
    ($($(#[$doc:meta])* $name:ident($i:ident) = $lane:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, $i: &Insn) {
            with_format!($i.a, {
                let x = L::split(cpu.v($i.rn));
                compute::<L>(cpu, $i, |k, env| ($lane)(x[k].u(), env));
            });
        }
    )*};
}

one_source! {
    /// FABS.
    fabs(i) = |x, _: &mut Env| sf::abs::<F>(x);
    /// FNEG.
    fneg(i) = |x, _: &mut Env| sf::neg::<F>(x);
    /// FSQRT.
    fsqrt(i) = sf::sqrt::<F>;
    /// FRINTN, FRINTP, FRINTM, FRINTZ: `imm` is the mode.
    frint(i) = |x, env: &mut Env| sf::round_to_integral::<F>(x, Rounding::from_rmode(i.imm as u32), false, env);
    /// FRINTA.
    frinta(i) = |x, env: &mut Env| sf::round_to_integral::<F>(x, Rounding::TieAway, false, env);
    /// FRINTX.
    frintx(i) = |x, env: &mut Env| sf::round_to_integral::<F>(x, env.rounding(), true, env);
    /// FRINTI.
    frinti(i) = |x, env: &mut Env| sf::round_to_integral::<F>(x, env.rounding(), false, env);
    /// FRECPE.
    frecpe(i) = sf::recip_estimate::<F>;
    /// FRSQRTE.
    frsqrte(i) = sf::recip_sqrt_estimate::<F>;
    /// FRECPX.
    frecpx(i) = sf::recip_exponent::<F>;
    /// FCMEQ (zero).
    fcmeq_zero(i) = |x, env: &mut Env| mask(sf::is_equal::<F>(x, 0, env));
    /// FCMGE (zero).
    fcmge_zero(i) = |x, env: &mut Env| mask(sf::is_greater_or_equal::<F>(x, 0, env));
    /// FCMGT (zero).
    fcmgt_zero(i) = |x, env: &mut Env| mask(sf::is_greater::<F>(x, 0, env));
    /// FCMLE (zero).
    fcmle_zero(i) = |x, env: &mut Env| mask(sf::is_greater_or_equal::<F>(0, x, env));
    /// FCMLT (zero).
    fcmlt_zero(i) = |x, env: &mut Env| mask(sf::is_greater::<F>(0, x, env));
    /// FCVT{N,P,M,Z}{S,U}: `imm` is the mode.
    fcvt_int(i) = |x, env: &mut Env| sf::to_int::<F>(x, integer::<F>(i), 0, Rounding::from_rmode(i.imm as u32), env);
    /// FCVTA{S,U}.
    fcvta(i) = |x, env: &mut Env| sf::to_int::<F>(x, integer::<F>(i), 0, Rounding::TieAway, env);
    /// FCVTZ{S,U} to fixed point.
    fcvt_fixed(i) = |x, env: &mut Env| sf::to_int::<F>(x, integer::<F>(i), (i.imm >> 8) as u32, Rounding::Zero, env);
    /// SCVTF, UCVTF.
    cvtf(i) = |x, env: &mut Env| sf::from_int::<F>(x, integer::<F>(i), 0, env);
    /// SCVTF, UCVTF from fixed point.
    cvtf_fixed(i) = |x, env: &mut Env| sf::from_int::<F>(x, integer::<F>(i), (i.imm >> 8) as u32, env);
}

/// The integer as wide as the format; bit 2 of `imm` says unsigned.
fn integer<F: Format>(i: &Insn) -> Int {
    Int { bits: F::WIDTH, is_signed: i.imm & 4 == 0 }
}

/// FCVTN, FCVTN2: `a` 0 from single to half, 1 from double to single.
#[inline(never)]
pub(crate) fn fcvtn(cpu: &mut Cpu, i: &Insn) {
    if i.a == 0 {
        narrow::<sf::F32, sf::F16, u32, u16>(cpu, i, Env::rounding);
    } else {
        narrow::<sf::F64, sf::F32, u64, u32>(cpu, i, Env::rounding);
    }
}

/// FCVTXN, FCVTXN2: double to single, rounded to odd.
#[inline(never)]
pub(crate) fn fcvtxn(cpu: &mut Cpu, i: &Insn) {
    narrow::<sf::F64, sf::F32, u64, u32>(cpu, i, |_| Rounding::Odd);
}

#[inline(always)]
fn narrow<F: Format, T: Format, W: Lane, N: Lane>(cpu: &mut Cpu, i: &Insn, mode: impl Fn(&Env) -> Rounding) {
    let x = W::split(cpu.v(i.rn));
    let count = if i.b == 2 { 1 } else { W::COUNT };
    let half = cpu.fp_env(|env| {
        N::build(|k| match x.as_ref().get(k) {
            Some(lane) if k < count => N::of(sf::convert::<F, T>(lane.u(), mode(env), env)),
            _ => N::default(),
        })
    });
    cpu.set_narrowed(i.rd, i.b, half as u64);
}

/// FCVTL, FCVTL2: `a` 0 from half to single, 1 from single to double.
#[inline(never)]
pub(crate) fn fcvtl(cpu: &mut Cpu, i: &Insn) {
    if i.a == 0 {
        widen::<sf::F16, sf::F32, u16, u32>(cpu, i);
    } else {
        widen::<sf::F32, sf::F64, u32, u64>(cpu, i);
    }
}

#[inline(always)]
fn widen<F: Format, T: Format, N: Lane, W: Lane>(cpu: &mut Cpu, i: &Insn) {
    let x = N::split(source_half::<N>(cpu.v(i.rn), i.b));
    let result =
        cpu.fp_env(|env| W::build(|k| W::of(sf::convert::<F, T>(x.as_ref()[k].u(), env.rounding(), env))));
    cpu.set_v(i.rd, result);
}
