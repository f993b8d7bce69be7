//! Floating-point arithmetic as the Arm architecture defines it, bit for bit and flag for flag.
//!
//! Arm ARM (DDI 0487), A1.5 and the shared pseudocode functions `FPUnpack`, `FPRound`, `FPAdd` and
//! their kin. All functions are pure: bits in, bits out, flags gathered in [`Env`]. Values of every
//! format travel as the low bits of a `u64`; bits above the format's width must be zero.
//!
//! Ordinary operands in the default rounding mode take a road through the host's own arithmetic,
//! which is correct only while the host rounds to nearest without flushing denormals (the state in
//! which all Rust code runs). Everything else is computed with integers.
//!
//! Deliberately absent: half-precision arithmetic (`FEAT_FP16`; half precision is a storage format
//! here, so FPCR.FZ16 has nothing to act on), alternate behaviours (`FEAT_AFP`), BFloat16 and trapped
//! exceptions (the FPCR enable bits are RAZ/WI).

mod arith;
mod compare;
mod convert;
mod estimate;
#[cfg(test)]
mod tests;

pub use arith::{Host, add, div, mul, mul_add, mulx, sqrt, sub};
pub use compare::{Relation, compare, is_equal, is_greater, is_greater_or_equal, max, max_num, min, min_num};
pub use convert::{Int, convert, from_int, round_to_integral, to_int};
pub use estimate::{
    recip_estimate, recip_exponent, recip_sqrt_estimate, recip_sqrt_step, recip_step,
    unsigned_recip_estimate, unsigned_recip_sqrt_estimate,
};

/// FPSR cumulative flags (Arm ARM C5.2.9) that this module raises.
pub mod flag {
    /// Invalid operation.
    pub const IOC: u32 = 1 << 0;
    /// Division by zero.
    pub const DZC: u32 = 1 << 1;
    /// Overflow.
    pub const OFC: u32 = 1 << 2;
    /// Underflow.
    pub const UFC: u32 = 1 << 3;
    /// Inexact.
    pub const IXC: u32 = 1 << 4;
    /// Input denormal.
    pub const IDC: u32 = 1 << 7;
}

/// FPCR fields (Arm ARM C5.2.8) that this module reads.
mod control {
    pub(super) const RMODE_SHIFT: u32 = 22;
    pub(super) const FZ: u32 = 1 << 24;
    pub(super) const DN: u32 = 1 << 25;
    pub(super) const AHP: u32 = 1 << 26;
}

/// `FPRounding`: the direction in which an inexact result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even (FPCR.RMode = 0b00).
    TieEven,
    /// Towards plus infinity (0b01).
    PosInf,
    /// Towards minus infinity (0b10).
    NegInf,
    /// Towards zero (0b11).
    Zero,
    /// To nearest, ties away from zero: only in FRINTA and FCVTA*.
    TieAway,
    /// Von Neumann rounding: an inexact result gets an odd last place. Only in FCVTXN.
    Odd,
}

impl Rounding {
    /// The mode of a 2-bit RMode field, as in FPCR and in FRINT*/FCVT* encodings.
    #[inline]
    pub const fn from_rmode(rmode: u32) -> Self {
        match rmode & 3 {
            0 => Self::TieEven,
            1 => Self::PosInf,
            2 => Self::NegInf,
            _ => Self::Zero,
        }
    }

    /// Whether a magnitude is incremented: `odd` is its last bit, `rest` the part cut off, in units
    /// where the last place is `2 * half`.
    #[inline]
    fn increments(self, sign: bool, odd: bool, rest: u64, half: u64) -> bool {
        match self {
            Self::TieEven => rest > half || (rest == half && odd),
            Self::TieAway => rest >= half,
            Self::PosInf => rest != 0 && !sign,
            Self::NegInf => rest != 0 && sign,
            Self::Zero | Self::Odd => false,
        }
    }

    /// Whether a result too large for the format becomes an infinity or the largest number.
    #[inline]
    fn overflows_to_infinity(self, sign: bool) -> bool {
        match self {
            Self::TieEven | Self::TieAway => true,
            Self::PosInf => !sign,
            Self::NegInf => sign,
            Self::Zero | Self::Odd => false,
        }
    }
}

/// Whether an FPCR asks for what hosts do by default: round to nearest, and keep denormals.
#[inline]
#[must_use]
pub const fn is_default(fpcr: u32) -> bool {
    fpcr & (control::FZ | 3 << control::RMODE_SHIFT) == 0
}

/// The two registers that every operation reads and writes: control in, cumulative flags out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Env {
    /// FPCR as the guest wrote it.
    pub fpcr: u32,
    /// FPSR; operations only ever set bits in it.
    pub fpsr: u32,
}

impl Env {
    /// FPCR.RMode.
    #[inline]
    pub const fn rounding(&self) -> Rounding {
        Rounding::from_rmode(self.fpcr >> control::RMODE_SHIFT)
    }

    /// Raises FPSR flags.
    #[inline]
    pub fn raise(&mut self, flags: u32) {
        self.fpsr |= flags;
    }

    #[inline]
    fn default_nan(&self) -> bool {
        self.fpcr & control::DN != 0
    }

    #[inline]
    fn alternative_half(&self) -> bool {
        self.fpcr & control::AHP != 0
    }

    #[inline]
    fn flushes<F: Format>(&self) -> bool {
        F::FLUSHES && self.fpcr & control::FZ != 0
    }

    /// Whether the host may compute: round to nearest, no flushing, default NaN aside (a NaN result
    /// always takes the exact road), and an inexact result would change nothing.
    #[inline]
    fn host_may_round(&self) -> bool {
        is_default(self.fpcr) && self.fpsr & flag::IXC != 0
    }
}

/// A binary interchange format.
pub trait Format: Copy {
    /// Bits of the fraction field.
    const FRAC: u32;
    /// Bits of the exponent field.
    const EXP: u32;
    /// Whether FPCR.FZ applies: not to half precision.
    const FLUSHES: bool;

    /// Bits of the whole format.
    const WIDTH: u32 = 1 + Self::EXP + Self::FRAC;
    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXP - 1)) - 1;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::WIDTH - 1);
    /// Fraction field mask.
    const FRAC_MASK: u64 = (1 << Self::FRAC) - 1;
    /// Largest value of the exponent field.
    const EXP_MAX: u64 = (1 << Self::EXP) - 1;
    /// Positive infinity.
    const INFINITY: u64 = Self::EXP_MAX << Self::FRAC;
    /// The fraction's top bit, set in quiet NaNs.
    const QUIET: u64 = 1 << (Self::FRAC - 1);
    /// `FPDefaultNaN`: positive, quiet, no payload.
    const DEFAULT_NAN: u64 = Self::INFINITY | Self::QUIET;
    /// 1.0.
    const ONE: u64 = (Self::BIAS as u64) << Self::FRAC;
    /// 2.0.
    const TWO: u64 = (Self::BIAS as u64 + 1) << Self::FRAC;
}

/// Half precision, IEEE or alternative by FPCR.AHP.
#[derive(Clone, Copy, Debug)]
pub struct F16;
/// Single precision.
#[derive(Clone, Copy, Debug)]
pub struct F32;
/// Double precision.
#[derive(Clone, Copy, Debug)]
pub struct F64;

impl Format for F16 {
    const FRAC: u32 = 10;
    const EXP: u32 = 5;
    const FLUSHES: bool = false;
}
impl Format for F32 {
    const FRAC: u32 = 23;
    const EXP: u32 = 8;
    const FLUSHES: bool = true;
}
impl Format for F64 {
    const FRAC: u32 = 52;
    const EXP: u32 = 11;
    const FLUSHES: bool = true;
}

/// `FPNeg`: flips the sign, NaN or not.
#[inline]
pub const fn neg<F: Format>(bits: u64) -> u64 {
    bits ^ F::SIGN
}

/// `FPAbs`: clears the sign, NaN or not.
#[inline]
pub const fn abs<F: Format>(bits: u64) -> u64 {
    bits & !F::SIGN
}

/// `VFPExpandImm`: the constant of FMOV (immediate).
pub const fn expand_imm<F: Format>(imm8: u8) -> u64 {
    let imm = imm8 as u64;
    let sign = (imm >> 7) << (F::WIDTH - 1);
    let b6 = imm >> 6 & 1;
    // Exponent: NOT(b6), then b6 replicated, then bits 5:4.
    let replicated = if b6 != 0 { (1u64 << (F::EXP - 3)) - 1 } else { 0 };
    let exponent = (b6 ^ 1) << (F::EXP - 1) | replicated << 2 | (imm >> 4 & 3);
    sign | exponent << F::FRAC | (imm & 0xf) << (F::FRAC - 4)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Zero,
    Finite,
    Infinity,
    QuietNan,
    SignallingNan,
}

/// Position of the leading one in [`Unpacked::sig`]: one bit is left for a carry, at least ten below
/// the last place of a double.
const POINT: u32 = 62;

/// `FPUnpack`'s answer. A finite number is `sig * 2^(exp - POINT)` with bit `POINT` of `sig` set.
#[derive(Clone, Copy, Debug)]
struct Unpacked {
    class: Class,
    sign: bool,
    exp: i32,
    sig: u64,
}

impl Unpacked {
    fn is_nan(self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignallingNan)
    }

    fn is_infinite(self) -> bool {
        self.class == Class::Infinity
    }

    fn is_zero(self) -> bool {
        self.class == Class::Zero
    }
}

/// `FPUnpack` (and `FPUnpackCV`, which differs for half precision only in FZ16).
fn unpack<F: Format>(bits: u64, env: &mut Env) -> Unpacked {
    let sign = bits & F::SIGN != 0;
    let field = bits >> F::FRAC & F::EXP_MAX;
    let frac = bits & F::FRAC_MASK;
    let of = |class| Unpacked { class, sign, exp: 0, sig: 0 };
    if field == 0 {
        if frac == 0 {
            return of(Class::Zero);
        }
        if env.flushes::<F>() {
            env.raise(flag::IDC);
            return of(Class::Zero);
        }
        let shift = frac.leading_zeros() - (63 - POINT);
        let exp = 1 - F::BIAS + (POINT - F::FRAC) as i32 - shift as i32;
        return Unpacked { class: Class::Finite, sign, exp, sig: frac << shift };
    }
    if field == F::EXP_MAX && !(F::WIDTH == 16 && env.alternative_half()) {
        return of(match frac {
            0 => Class::Infinity,
            _ if frac & F::QUIET != 0 => Class::QuietNan,
            _ => Class::SignallingNan,
        });
    }
    let sig = (1 << F::FRAC | frac) << (POINT - F::FRAC);
    Unpacked { class: Class::Finite, sign, exp: field as i32 - F::BIAS, sig }
}

/// `FPZero`.
fn zero<F: Format>(sign: bool) -> u64 {
    if sign { F::SIGN } else { 0 }
}

/// `FPInfinity`.
fn infinity<F: Format>(sign: bool) -> u64 {
    zero::<F>(sign) | F::INFINITY
}

/// The default NaN of an invalid operation.
fn invalid<F: Format>(env: &mut Env) -> u64 {
    env.raise(flag::IOC);
    F::DEFAULT_NAN
}

/// The zero of an exact cancellation: negative only when rounding towards minus infinity.
fn cancelled<F: Format>(env: &Env) -> u64 {
    zero::<F>(env.rounding() == Rounding::NegInf)
}

/// `FPProcessNaN`: quiets a signalling NaN, or replaces any by the default.
fn process_nan<F: Format>(class: Class, bits: u64, env: &mut Env) -> u64 {
    if class == Class::SignallingNan {
        env.raise(flag::IOC);
    }
    if env.default_nan() { F::DEFAULT_NAN } else { bits | F::QUIET }
}

/// `FPProcessNaNs` and `FPProcessNaNs3`: the first signalling NaN wins, then the first quiet one.
fn process_nans<F: Format, const N: usize>(operands: [(Unpacked, u64); N], env: &mut Env) -> Option<u64> {
    [Class::SignallingNan, Class::QuietNan].into_iter().find_map(|wanted| {
        let (found, bits) = operands.iter().find(|(operand, _)| operand.class == wanted)?;
        Some(process_nan::<F>(found.class, *bits, env))
    })
}

/// Shifts right, keeping a one in the last place if any one fell off.
fn shift_right_jam(value: u64, count: u32) -> u64 {
    match count {
        0 => value,
        1..=63 => value >> count | u64::from(value << (64 - count) != 0),
        _ => u64::from(value != 0),
    }
}

/// As [`shift_right_jam`], for double width.
fn shift_right_jam_wide(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..=127 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

/// `FPRound`: packs `sig * 2^(exp - POINT)`, where bit `POINT` of `sig` is the leading one and the last
/// bit also stands for anything non-zero below it.
fn round<F: Format>(sign: bool, exp: i32, sig: u64, rounding: Rounding, env: &mut Env) -> u64 {
    debug_assert!(sig >> POINT == 1, "the significand is normalised by every caller");
    let mut biased = exp.saturating_add(F::BIAS);
    let mut sig = sig;
    if biased < 1 {
        // Tininess is judged before rounding.
        if env.flushes::<F>() {
            env.raise(flag::UFC);
            return zero::<F>(sign);
        }
        sig = shift_right_jam(sig, biased.saturating_sub(1).unsigned_abs());
        biased = 0;
    }
    let dropped = POINT - F::FRAC;
    let mut mantissa = sig >> dropped;
    let rest = sig & ((1 << dropped) - 1);
    if biased == 0 && rest != 0 {
        env.raise(flag::UFC);
    }
    if rounding.increments(sign, mantissa & 1 != 0, rest, 1 << (dropped - 1)) {
        mantissa += 1;
    } else if rounding == Rounding::Odd && rest != 0 {
        mantissa |= 1;
    }
    // A carry out of the mantissa moves into the exponent by itself, also from the largest denormal.
    let is_alternative = F::WIDTH == 16 && env.alternative_half();
    let limit = if is_alternative { F::SIGN } else { F::INFINITY };
    let packed = if biased as i64 > F::EXP_MAX as i64 {
        limit
    } else {
        ((biased.max(1) as u64 - 1) << F::FRAC) + mantissa
    };
    if packed >= limit {
        if is_alternative {
            env.raise(flag::IOC);
            return zero::<F>(sign) | (F::SIGN - 1);
        }
        env.raise(flag::OFC | flag::IXC);
        let magnitude = if rounding.overflows_to_infinity(sign) { F::INFINITY } else { F::INFINITY - 1 };
        return zero::<F>(sign) | magnitude;
    }
    if rest != 0 {
        env.raise(flag::IXC);
    }
    zero::<F>(sign) | packed
}

/// Normalises a non-zero double-width significand with its point at bit `2 * POINT`, then rounds.
fn round_wide<F: Format>(sign: bool, exp: i32, sig: u128, rounding: Rounding, env: &mut Env) -> u64 {
    let top = 127 - sig.leading_zeros();
    let exp = exp + top as i32 - 2 * POINT as i32;
    let sig = if top >= POINT {
        shift_right_jam_wide(sig, top - POINT) as u64
    } else {
        (sig as u64) << (POINT - top)
    };
    round::<F>(sign, exp, sig, rounding, env)
}
