//! Addition, multiplication, fused multiply-add, division, square root.
//!
//! Arm ARM: `FPAdd`, `FPSub`, `FPMul`, `FPMulX`, `FPMulAdd`, `FPDiv`, `FPSqrt`.

use super::*;

/// A format in which the host computes too.
///
/// The host's result is used only when it settles everything: IXC is already set, so inexactness
/// changes nothing, and the result is beyond the smallest normal number in magnitude and finite, so no
/// other flag can be due (tininess is judged before rounding, hence *beyond*). NaNs never qualify.
pub trait Host: Format {
    /// Host addition.
    fn host_add(a: u64, b: u64) -> u64;
    /// Host subtraction.
    fn host_sub(a: u64, b: u64) -> u64;
    /// Host multiplication.
    fn host_mul(a: u64, b: u64) -> u64;
    /// Host division.
    fn host_div(a: u64, b: u64) -> u64;
    /// Host square root.
    fn host_sqrt(a: u64) -> u64;
    /// Host fused multiply-add: `a * b + addend`.
    fn host_mul_add(addend: u64, a: u64, b: u64) -> u64;
    /// Whether `a` is less than, equal to, greater than `b`; `None` if unordered.
    fn host_compare(a: u64, b: u64) -> Option<core::cmp::Ordering>;
    /// The signed integer nearest to zero from this number, saturated.
    fn host_truncate(a: u64) -> i64;
    /// The nearest number of this format, ties to even.
    fn host_from_int(value: i64) -> u64;
}

macro_rules! host_format {
    ($format:ty, $float:ty, $bits:ty) => {
        impl Host for $format {
            #[inline]
            fn host_add(a: u64, b: u64) -> u64 {
                (<$float>::from_bits(a as $bits) + <$float>::from_bits(b as $bits)).to_bits().into()
            }
            #[inline]
            fn host_sub(a: u64, b: u64) -> u64 {
                (<$float>::from_bits(a as $bits) - <$float>::from_bits(b as $bits)).to_bits().into()
            }
            #[inline]
            fn host_mul(a: u64, b: u64) -> u64 {
                (<$float>::from_bits(a as $bits) * <$float>::from_bits(b as $bits)).to_bits().into()
            }
            #[inline]
            fn host_div(a: u64, b: u64) -> u64 {
                (<$float>::from_bits(a as $bits) / <$float>::from_bits(b as $bits)).to_bits().into()
            }
            #[inline]
            fn host_sqrt(a: u64) -> u64 {
                <$float>::from_bits(a as $bits).sqrt().to_bits().into()
            }
            #[inline]
            fn host_mul_add(addend: u64, a: u64, b: u64) -> u64 {
                let (a, b) = (<$float>::from_bits(a as $bits), <$float>::from_bits(b as $bits));
                a.mul_add(b, <$float>::from_bits(addend as $bits)).to_bits().into()
            }
            #[inline]
            fn host_compare(a: u64, b: u64) -> Option<core::cmp::Ordering> {
                <$float>::from_bits(a as $bits).partial_cmp(&<$float>::from_bits(b as $bits))
            }
            #[inline]
            fn host_truncate(a: u64) -> i64 {
                <$float>::from_bits(a as $bits) as i64
            }
            #[inline]
            fn host_from_int(value: i64) -> u64 {
                (value as $float).to_bits().into()
            }
        }
    };
}
host_format!(F32, f32, u32);
host_format!(F64, f64, u64);

/// Whether a host result can owe no flag but IXC: see [`Host`].
#[inline]
fn is_settled<F: Format>(result: u64) -> bool {
    // Magnitudes from just above the smallest normal number up to the largest finite one.
    let smallest = 1 << F::FRAC;
    abs::<F>(result).wrapping_sub(smallest + 1) < F::INFINITY - (smallest + 1)
}

/// The host's result, if it may be computed and settles everything.
#[inline(always)]
fn settled<F: Format>(env: &Env, host: impl FnOnce() -> u64) -> Option<u64> {
    env.host_may_round().then(host).filter(|&result| is_settled::<F>(result))
}

/// `a + b`.
#[inline]
pub fn add<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    settled::<F>(env, || F::host_add(a, b)).unwrap_or_else(|| add_exactly::<F>(a, b, false, env))
}

/// `a - b`. NaNs keep their signs, so this is not `a + -b`.
#[inline]
pub fn sub<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    settled::<F>(env, || F::host_sub(a, b)).unwrap_or_else(|| add_exactly::<F>(a, b, true, env))
}

/// `a * b`.
#[inline]
pub fn mul<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    settled::<F>(env, || F::host_mul(a, b)).unwrap_or_else(|| mul_exactly::<F>(a, b, false, env))
}

/// `FPMulX`: as [`mul`], but infinity times zero is 2.0, with the product's sign.
pub fn mulx<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    mul_exactly::<F>(a, b, true, env)
}

/// `a / b`.
#[inline]
pub fn div<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    // A finite quotient also comes of a zero dividend or an infinite divisor, but never settled.
    settled::<F>(env, || F::host_div(a, b)).unwrap_or_else(|| div_exactly::<F>(a, b, env))
}

/// The square root.
#[inline]
pub fn sqrt<F: Host>(a: u64, env: &mut Env) -> u64 {
    settled::<F>(env, || F::host_sqrt(a)).unwrap_or_else(|| sqrt_exactly::<F>(a, env))
}

/// `FPMulAdd`: `addend + a * b`, rounded once.
#[inline]
pub fn mul_add<F: Host>(addend: u64, a: u64, b: u64, env: &mut Env) -> u64 {
    settled::<F>(env, || F::host_mul_add(addend, a, b))
        .unwrap_or_else(|| mul_add_exactly::<F>(addend, a, b, env))
}

#[inline(never)]
fn add_exactly<F: Format>(a: u64, b: u64, negate_b: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let mut y = unpack::<F>(b, env);
    if let Some(nan) = process_nans::<F, 2>([(x, a), (y, b)], env) {
        return nan;
    }
    y.sign ^= negate_b;
    match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) if x.sign != y.sign => invalid::<F>(env),
        (Class::Infinity, _) => infinity::<F>(x.sign),
        (_, Class::Infinity) => infinity::<F>(y.sign),
        (Class::Zero, Class::Zero) if x.sign == y.sign => zero::<F>(x.sign),
        (Class::Zero, Class::Zero) => cancelled::<F>(env),
        (_, Class::Zero) => round::<F>(x.sign, x.exp, x.sig, env.rounding(), env),
        (Class::Zero, _) => round::<F>(y.sign, y.exp, y.sig, env.rounding(), env),
        _ => add_finite::<F>(x, y, env),
    }
}

fn add_finite<F: Format>(x: Unpacked, y: Unpacked, env: &mut Env) -> u64 {
    let (x, y) = if (x.exp, x.sig) >= (y.exp, y.sig) { (x, y) } else { (y, x) };
    // Ten spare bits below the last place: a subtraction after a shift of two or more loses at most
    // one leading bit, so the jammed bit stays below the rounding position.
    let aligned = shift_right_jam(y.sig, x.exp.abs_diff(y.exp));
    let sum = if x.sign == y.sign { x.sig + aligned } else { x.sig - aligned };
    if sum == 0 {
        return cancelled::<F>(env);
    }
    let (exp, sig) = if sum >> (POINT + 1) != 0 {
        (x.exp + 1, shift_right_jam(sum, 1))
    } else {
        let shift = sum.leading_zeros() - (63 - POINT);
        (x.exp - shift as i32, sum << shift)
    };
    round::<F>(x.sign, exp, sig, env.rounding(), env)
}

#[inline(never)]
fn mul_exactly<F: Format>(a: u64, b: u64, extended: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if let Some(nan) = process_nans::<F, 2>([(x, a), (y, b)], env) {
        return nan;
    }
    let sign = x.sign ^ y.sign;
    match (x.class, y.class) {
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) if extended => {
            zero::<F>(sign) | F::TWO
        }
        (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => invalid::<F>(env),
        (Class::Infinity, _) | (_, Class::Infinity) => infinity::<F>(sign),
        (Class::Zero, _) | (_, Class::Zero) => zero::<F>(sign),
        _ => {
            let product = u128::from(x.sig) * u128::from(y.sig);
            round_wide::<F>(sign, x.exp + y.exp, product, env.rounding(), env)
        }
    }
}

#[inline(never)]
fn div_exactly<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if let Some(nan) = process_nans::<F, 2>([(x, a), (y, b)], env) {
        return nan;
    }
    let sign = x.sign ^ y.sign;
    match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => invalid::<F>(env),
        (Class::Infinity, _) => infinity::<F>(sign),
        (_, Class::Zero) => {
            env.raise(flag::DZC);
            infinity::<F>(sign)
        }
        (Class::Zero, _) | (_, Class::Infinity) => zero::<F>(sign),
        _ => {
            // The quotient of two significands lies in (1/2, 2): one more bit when it is below one.
            let below_one = u32::from(x.sig < y.sig);
            let dividend = u128::from(x.sig) << (POINT + below_one);
            let divisor = u128::from(y.sig);
            let quotient = (dividend / divisor) as u64;
            let sticky = u64::from(!dividend.is_multiple_of(divisor));
            let exp = x.exp - y.exp - below_one as i32;
            round::<F>(sign, exp, quotient | sticky, env.rounding(), env)
        }
    }
}

#[inline(never)]
fn sqrt_exactly<F: Format>(a: u64, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    match x.class {
        Class::QuietNan | Class::SignallingNan => process_nan::<F>(x.class, a, env),
        Class::Zero => zero::<F>(x.sign),
        _ if x.sign => invalid::<F>(env),
        Class::Infinity => infinity::<F>(false),
        Class::Finite => {
            // An even exponent halves exactly; an odd one lends a bit to the significand.
            let odd = x.exp & 1;
            let radicand = u128::from(x.sig) << (POINT + odd as u32);
            let root = radicand.isqrt();
            let sticky = u64::from(root * root != radicand);
            round::<F>(false, (x.exp - odd) / 2, root as u64 | sticky, env.rounding(), env)
        }
    }
}

#[inline(never)]
fn mul_add_exactly<F: Format>(addend: u64, a: u64, b: u64, env: &mut Env) -> u64 {
    let c = unpack::<F>(addend, env);
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    let product_is_invalid = (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite());
    let nan = process_nans::<F, 3>([(c, addend), (x, a), (y, b)], env);
    if c.class == Class::QuietNan && product_is_invalid {
        return invalid::<F>(env);
    }
    if let Some(nan) = nan {
        return nan;
    }
    if product_is_invalid {
        return invalid::<F>(env);
    }
    fused::<F>(c, x, y, 0, env)
}

/// `(c + x * y) * 2^scale` of operands that are no NaNs and whose product is valid, rounded once.
pub(super) fn fused<F: Format>(c: Unpacked, x: Unpacked, y: Unpacked, scale: i32, env: &mut Env) -> u64 {
    let sign = x.sign ^ y.sign;
    if x.is_infinite() || y.is_infinite() {
        if c.is_infinite() && c.sign != sign {
            return invalid::<F>(env);
        }
        return infinity::<F>(sign);
    }
    if c.is_infinite() {
        return infinity::<F>(c.sign);
    }
    if x.is_zero() || y.is_zero() {
        return match c.class {
            Class::Zero if c.sign == sign => zero::<F>(sign),
            Class::Zero => cancelled::<F>(env),
            _ => round::<F>(c.sign, c.exp + scale, c.sig, env.rounding(), env),
        };
    }
    // Both terms with their points at bit 2 * POINT and their leading ones at that bit or one above.
    // Each significand of a double has ten zero bits at its end, so a shift by one loses nothing.
    let product = u128::from(x.sig) * u128::from(y.sig);
    let product_exp = x.exp + y.exp;
    if c.is_zero() {
        return round_wide::<F>(sign, product_exp + scale, product, env.rounding(), env);
    }
    let term = u128::from(c.sig) << POINT;
    let exp = product_exp.max(c.exp);
    let product = shift_right_jam_wide(product, exp.abs_diff(product_exp));
    let term = shift_right_jam_wide(term, exp.abs_diff(c.exp));
    let (sign, sum) = match (sign == c.sign, product.cmp(&term)) {
        (true, _) => (sign, product + term),
        (false, core::cmp::Ordering::Equal) => return cancelled::<F>(env),
        (false, core::cmp::Ordering::Greater) => (sign, product - term),
        (false, core::cmp::Ordering::Less) => (c.sign, term - product),
    };
    round_wide::<F>(sign, exp + scale, sum, env.rounding(), env)
}
