//! Reciprocal and reciprocal square root: estimates and Newton-Raphson steps.
//!
//! Arm ARM: `FPRecipEstimate`, `FPRSqrtEstimate`, `FPRecipStepFused`, `FPRSqrtStepFused`, `FPRecpX`,
//! `UnsignedRecipEstimate`, `UnsignedRSqrtEstimate`. The architecture fixes every bit of the estimates.

use super::arith::fused;
use super::*;

/// `RecipEstimate`: an operand in 256..512 stands for 0.5..1.0, the result for 1.0..2.0.
fn reciprocal(operand: u64) -> u64 {
    let midpoint = operand * 2 + 1;
    ((1 << 19) / midpoint).div_ceil(2)
}

/// `RecipSqrtEstimate`: an operand in 128..512 stands for 0.25..1.0, the result for 1.0..2.0.
fn reciprocal_root(operand: u64) -> u64 {
    let midpoint = if operand < 256 { operand * 2 + 1 } else { (operand | 1) * 2 };
    // The largest b with midpoint * b^2 < 2^28.
    let b = (((1u64 << 28) - 1) / midpoint).isqrt();
    b.div_ceil(2)
}

/// `FPRecipEstimate` (FRECPE).
pub fn recip_estimate<F: Format>(bits: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(bits, env);
    match x.class {
        Class::QuietNan | Class::SignallingNan => process_nan::<F>(x.class, bits, env),
        Class::Infinity => zero::<F>(x.sign),
        Class::Zero => {
            env.raise(flag::DZC);
            infinity::<F>(x.sign)
        }
        // The reciprocal of so small a denormal is beyond the format.
        Class::Finite if x.exp < -F::BIAS - 1 => {
            env.raise(flag::OFC | flag::IXC);
            let to_infinity = env.rounding().overflows_to_infinity(x.sign);
            zero::<F>(x.sign) | if to_infinity { F::INFINITY } else { F::INFINITY - 1 }
        }
        // The reciprocal of so large a number is a denormal.
        Class::Finite if env.flushes::<F>() && x.exp >= F::BIAS - 1 => {
            env.raise(flag::UFC);
            zero::<F>(x.sign)
        }
        Class::Finite => {
            let estimate = reciprocal(x.sig >> (POINT - 8));
            let biased = F::BIAS - 1 - x.exp;
            let frac = (estimate & 0xff) << (F::FRAC - 8);
            let (field, frac) = match biased {
                1.. => (biased as u64, frac),
                0 => (0, (1 << F::FRAC | frac) >> 1),
                _ => (0, (1 << F::FRAC | frac) >> 2),
            };
            zero::<F>(x.sign) | field << F::FRAC | frac
        }
    }
}

/// `FPRSqrtEstimate` (FRSQRTE).
pub fn recip_sqrt_estimate<F: Format>(bits: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(bits, env);
    match x.class {
        Class::QuietNan | Class::SignallingNan => process_nan::<F>(x.class, bits, env),
        Class::Zero => {
            env.raise(flag::DZC);
            infinity::<F>(x.sign)
        }
        _ if x.sign => invalid::<F>(env),
        Class::Infinity => zero::<F>(false),
        Class::Finite => {
            // Scaled to 0.25..1.0 with an even exponent: nine bits for odd ones, eight for even.
            let is_odd = x.exp & 1 != 0;
            let operand = x.sig >> (POINT - if is_odd { 8 } else { 7 });
            let estimate = reciprocal_root(operand);
            let exp = -(x.exp + if is_odd { 1 } else { 2 }) / 2;
            ((exp + F::BIAS) as u64) << F::FRAC | (estimate & 0xff) << (F::FRAC - 8)
        }
    }
}

/// `FPRecpX` (FRECPX): the power of two that is roughly the reciprocal; only the exponent is looked at.
pub fn recip_exponent<F: Format>(bits: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(bits, env);
    if x.is_nan() {
        return process_nan::<F>(x.class, bits, env);
    }
    let field = bits >> F::FRAC & F::EXP_MAX;
    let field = if field == 0 { F::EXP_MAX - 1 } else { field ^ F::EXP_MAX };
    zero::<F>(x.sign) | field << F::FRAC
}

/// `FPRecipStepFused` (FRECPS): `2 - a * b`.
pub fn recip_step<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    step::<F>(a, b, F::TWO, 0, F::TWO, env)
}

/// `FPRSqrtStepFused` (FRSQRTS): `(3 - a * b) / 2`.
pub fn recip_sqrt_step<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let three = F::TWO | F::QUIET;
    let one_and_a_half = F::ONE | F::QUIET;
    step::<F>(a, b, three, -1, one_and_a_half, env)
}

fn step<F: Format>(a: u64, b: u64, from: u64, scale: i32, of_invalid: u64, env: &mut Env) -> u64 {
    // The negation comes first, so a NaN in `a` propagates with its sign flipped.
    let a = neg::<F>(a);
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if let Some(nan) = process_nans::<F, 2>([(x, a), (y, b)], env) {
        return nan;
    }
    if (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite()) {
        return of_invalid;
    }
    let from = unpack::<F>(from, env);
    fused::<F>(from, x, y, scale, env)
}

/// `UnsignedRecipEstimate` (URECPE): operand and result as fractions of 2^32 and 2^31.
pub fn unsigned_recip_estimate(operand: u32) -> u32 {
    if operand >> 31 == 0 { u32::MAX } else { (reciprocal(u64::from(operand >> 23)) as u32) << 23 }
}

/// `UnsignedRSqrtEstimate` (URSQRTE).
pub fn unsigned_recip_sqrt_estimate(operand: u32) -> u32 {
    if operand >> 30 == 0 { u32::MAX } else { (reciprocal_root(u64::from(operand >> 23)) as u32) << 23 }
}
