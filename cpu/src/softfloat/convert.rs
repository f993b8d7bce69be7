//! Conversions between formats, to and from integers and fixed point, and rounding to integral.
//!
//! Arm ARM: `FPConvert`, `FPToFixed`, `FixedToFP`, `FPRoundInt`.

use super::*;

/// An integer type of the guest: how many bits, and whether the first is a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// 16, 32 or 64.
    pub bits: u32,
    /// Two's complement if so.
    pub is_signed: bool,
}

impl Int {
    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// The largest magnitude on the given side of zero.
    fn limit(self, sign: bool) -> u128 {
        match (self.is_signed, sign) {
            (true, true) => 1 << (self.bits - 1),
            (true, false) => (1 << (self.bits - 1)) - 1,
            (false, true) => 0,
            (false, false) => (1 << self.bits) - 1,
        }
    }
}

/// `FPConvert` from format `F` to format `T`. FCVT passes [`Env::rounding`], FCVTXN [`Rounding::Odd`].
pub fn convert<F: Format, T: Format>(bits: u64, rounding: Rounding, env: &mut Env) -> u64 {
    let x = unpack::<F>(bits, env);
    let is_alternative = T::WIDTH == 16 && env.alternative_half();
    match x.class {
        Class::QuietNan | Class::SignallingNan => {
            if x.class == Class::SignallingNan || is_alternative {
                env.raise(flag::IOC);
            }
            if is_alternative {
                zero::<T>(x.sign)
            } else if env.default_nan() {
                T::DEFAULT_NAN
            } else {
                // The payload keeps its most significant bits.
                let payload = (bits & F::FRAC_MASK) << (64 - F::FRAC) >> (64 - T::FRAC);
                infinity::<T>(x.sign) | T::QUIET | payload
            }
        }
        Class::Infinity if is_alternative => {
            env.raise(flag::IOC);
            zero::<T>(x.sign) | (T::SIGN - 1)
        }
        Class::Infinity => infinity::<T>(x.sign),
        Class::Zero => zero::<T>(x.sign),
        Class::Finite => round::<T>(x.sign, x.exp, x.sig, rounding, env),
    }
}

/// Splits `sig * 2^(exp - POINT)` into an integer rounded as asked, and whether that was inexact.
/// The caller has made sure that `exp` is at most 64.
fn to_magnitude(sign: bool, exp: i32, sig: u64, rounding: Rounding) -> (u128, bool) {
    let sig = u128::from(sig);
    if exp >= POINT as i32 {
        return (sig << (exp - POINT as i32), false);
    }
    // Below one quarter only "not zero" matters, and that much a shift by 64 still shows.
    let drop = (POINT as i32 - exp).min(64) as u32;
    let whole = sig >> drop;
    let rest = sig & ((1 << drop) - 1);
    // The rest left-aligned in 64 bits; 0x8000... is a half. Nothing is lost: `drop` is at most 64.
    let rest = (rest << (64 - drop)) as u64;
    let up = rounding.increments(sign, whole & 1 != 0, rest, 1 << 63);
    (whole + u128::from(up), rest != 0)
}

/// `FPToFixed`: `bits * 2^fraction_bits` as an integer, saturated, in the low `to.bits` bits.
#[inline]
pub fn to_int<F: Host>(bits: u64, to: Int, fraction_bits: u32, rounding: Rounding, env: &mut Env) -> u64 {
    if fraction_bits == 0 && to.is_signed && !env.flushes::<F>() {
        let quick = F::host_truncate(bits);
        let in_range = quick.unsigned_abs() < 1 << (to.bits - 2);
        // Exact means the same in every mode; but a zero may come of a NaN.
        if in_range && quick != 0 && F::host_from_int(quick) == bits {
            return quick as u64 & to.mask();
        }
    }
    to_int_exactly::<F>(bits, to, fraction_bits, rounding, env)
}

#[inline(never)]
fn to_int_exactly<F: Format>(
    bits: u64,
    to: Int,
    fraction_bits: u32,
    rounding: Rounding,
    env: &mut Env,
) -> u64 {
    let x = unpack::<F>(bits, env);
    let (magnitude, inexact) = match x.class {
        Class::QuietNan | Class::SignallingNan => {
            env.raise(flag::IOC);
            return 0;
        }
        Class::Zero => return 0,
        Class::Infinity => (u128::MAX, false),
        Class::Finite => match x.exp + fraction_bits as i32 {
            exp @ ..=64 => to_magnitude(x.sign, exp, x.sig, rounding),
            _ => (u128::MAX, false),
        },
    };
    let limit = to.limit(x.sign);
    let magnitude = if magnitude > limit {
        env.raise(flag::IOC);
        limit as u64
    } else {
        if inexact {
            env.raise(flag::IXC);
        }
        magnitude as u64
    };
    let value = if x.sign { magnitude.wrapping_neg() } else { magnitude };
    value & to.mask()
}

/// `FixedToFP`: the integer in the low `from.bits` bits of `value`, divided by `2^fraction_bits`.
#[inline]
pub fn from_int<F: Host>(value: u64, from: Int, fraction_bits: u32, env: &mut Env) -> u64 {
    let value = value & from.mask();
    let spare = 64 - from.bits;
    let sign = from.is_signed && value >> (from.bits - 1) != 0;
    let magnitude = if sign { (value << spare).wrapping_neg() >> spare } else { value };
    if magnitude == 0 {
        return 0;
    }
    if fraction_bits == 0 && magnitude >> 63 == 0 && (magnitude >> F::FRAC == 0 || env.host_may_round()) {
        let signed = if sign { -(magnitude as i64) } else { magnitude as i64 };
        return F::host_from_int(signed);
    }
    let top = 63 - magnitude.leading_zeros();
    let sig = if top > POINT { shift_right_jam(magnitude, 1) } else { magnitude << (POINT - top) };
    round::<F>(sign, top as i32 - fraction_bits as i32, sig, env.rounding(), env)
}

/// `FPRoundInt`: the nearest integral number in the given direction. IXC only if `exact` (FRINTX).
pub fn round_to_integral<F: Format>(bits: u64, rounding: Rounding, exact: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(bits, env);
    match x.class {
        Class::QuietNan | Class::SignallingNan => process_nan::<F>(x.class, bits, env),
        Class::Infinity => bits,
        Class::Zero => zero::<F>(x.sign),
        Class::Finite if x.exp >= F::FRAC as i32 => bits,
        Class::Finite => {
            let (magnitude, inexact) = to_magnitude(x.sign, x.exp, x.sig, rounding);
            if inexact && exact {
                env.raise(flag::IXC);
            }
            // At most 2^FRAC, so it fits the format exactly.
            let magnitude = magnitude as u64;
            if magnitude == 0 {
                return zero::<F>(x.sign);
            }
            let top = 63 - magnitude.leading_zeros();
            round::<F>(x.sign, top as i32, magnitude << (POINT - top), Rounding::Zero, env)
        }
    }
}
