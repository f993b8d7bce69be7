//! Comparison, minimum and maximum.
//!
//! Arm ARM: `FPCompare`, `FPCompareEQ/GE/GT`, `FPMax`, `FPMin`, `FPMaxNum`, `FPMinNum`.

use core::cmp::Ordering;

use super::*;

/// The outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// First operand smaller.
    Less,
    /// Equal; zeros of either sign are.
    Equal,
    /// First operand greater.
    Greater,
    /// At least one NaN.
    Unordered,
}

impl Relation {
    /// NZCV, N in bit 3, as FCMP sets it.
    pub const fn nzcv(self) -> u32 {
        match self {
            Self::Less => 0b1000,
            Self::Equal => 0b0110,
            Self::Greater => 0b0010,
            Self::Unordered => 0b0011,
        }
    }
}

/// A number's bits as an integer with the same order; zeros of both signs are equal.
fn ordinal<F: Format>(value: Unpacked, bits: u64) -> i64 {
    // A flushed denormal is a zero, whatever its bits say.
    let magnitude = if value.is_zero() { 0 } else { abs::<F>(bits) as i64 };
    if value.sign { -magnitude } else { magnitude }
}

/// `FPCompare`. With `signal_nans` a quiet NaN is invalid too (FCMPE).
#[inline]
pub fn compare<F: Host>(a: u64, b: u64, signal_nans: bool, env: &mut Env) -> Relation {
    if !env.flushes::<F>() {
        match F::host_compare(a, b) {
            Some(Ordering::Less) => return Relation::Less,
            Some(Ordering::Equal) => return Relation::Equal,
            Some(Ordering::Greater) => return Relation::Greater,
            None => {}
        }
    }
    compare_exactly::<F>(a, b, signal_nans, env)
}

#[inline(never)]
fn compare_exactly<F: Format>(a: u64, b: u64, signal_nans: bool, env: &mut Env) -> Relation {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if x.is_nan() || y.is_nan() {
        if signal_nans || x.class == Class::SignallingNan || y.class == Class::SignallingNan {
            env.raise(flag::IOC);
        }
        return Relation::Unordered;
    }
    match ordinal::<F>(x, a).cmp(&ordinal::<F>(y, b)) {
        Ordering::Less => Relation::Less,
        Ordering::Equal => Relation::Equal,
        Ordering::Greater => Relation::Greater,
    }
}

/// `FPCompareEQ`: quiet.
pub fn is_equal<F: Host>(a: u64, b: u64, env: &mut Env) -> bool {
    compare::<F>(a, b, false, env) == Relation::Equal
}

/// `FPCompareGE`: signalling.
pub fn is_greater_or_equal<F: Host>(a: u64, b: u64, env: &mut Env) -> bool {
    matches!(compare::<F>(a, b, true, env), Relation::Equal | Relation::Greater)
}

/// `FPCompareGT`: signalling.
pub fn is_greater<F: Host>(a: u64, b: u64, env: &mut Env) -> bool {
    compare::<F>(a, b, true, env) == Relation::Greater
}

/// `FPMax`: any NaN propagates; +0 is greater than -0.
pub fn max<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    extreme::<F>(a, b, Ordering::Greater, env)
}

/// `FPMin`: any NaN propagates; -0 is less than +0.
pub fn min<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    extreme::<F>(a, b, Ordering::Less, env)
}

/// `FPMaxNum`: a number wins over a quiet NaN.
pub fn max_num<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let (a, b) = without_quiet_nan::<F>(a, b, infinity::<F>(true), env);
    max::<F>(a, b, env)
}

/// `FPMinNum`: a number wins over a quiet NaN.
pub fn min_num<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let (a, b) = without_quiet_nan::<F>(a, b, infinity::<F>(false), env);
    min::<F>(a, b, env)
}

fn extreme<F: Format>(a: u64, b: u64, wanted: Ordering, env: &mut Env) -> u64 {
    let x = unpack::<F>(a, env);
    let y = unpack::<F>(b, env);
    if let Some(nan) = process_nans::<F, 2>([(x, a), (y, b)], env) {
        return nan;
    }
    if x.is_zero() && y.is_zero() {
        let sign = if wanted == Ordering::Greater { x.sign && y.sign } else { x.sign || y.sign };
        return zero::<F>(sign);
    }
    let (winner, bits) = if ordinal::<F>(x, a).cmp(&ordinal::<F>(y, b)) == wanted { (x, a) } else { (y, b) };
    if winner.is_zero() { zero::<F>(winner.sign) } else { bits }
}

/// Replaces the only quiet NaN of a pair by the infinity that loses every comparison.
fn without_quiet_nan<F: Format>(a: u64, b: u64, loser: u64, env: &mut Env) -> (u64, u64) {
    let first = unpack::<F>(a, env).class == Class::QuietNan;
    let second = unpack::<F>(b, env).class == Class::QuietNan;
    match (first, second) {
        (true, false) => (loser, b),
        (false, true) => (a, loser),
        _ => (a, b),
    }
}
