//! Special values, NaN rules, flags and rounding modes by table; ordinary values against the host.

use proptest::prelude::*;

use super::*;

const FZ: u32 = control::FZ;
const DN: u32 = control::DN;
const AHP: u32 = control::AHP;
const TO_PLUS: u32 = 1 << control::RMODE_SHIFT;
const TO_MINUS: u32 = 2 << control::RMODE_SHIFT;
const TO_ZERO: u32 = 3 << control::RMODE_SHIFT;

const QNAN: u64 = 0x7fc0_0001;
const SNAN: u64 = 0x7f80_0002;
const QUIETED_SNAN: u64 = 0x7fc0_0002;
const DEFAULT: u64 = F32::DEFAULT_NAN;
const INF: u64 = F32::INFINITY;
const MINUS: u64 = F32::SIGN;
const MAX: u64 = F32::INFINITY - 1;
const MIN_NORMAL: u64 = 1 << F32::FRAC;
const DENORMAL: u64 = 0x0012_3456;

const W: Int = Int { bits: 32, is_signed: true };
const X: Int = Int { bits: 64, is_signed: true };
const UW: Int = Int { bits: 32, is_signed: false };
const UX: Int = Int { bits: 64, is_signed: false };

fn f(value: f32) -> u64 {
    value.to_bits().into()
}

fn d(value: f64) -> u64 {
    value.to_bits()
}

/// Runs an operation with the given FPCR from a clear FPSR.
fn with(fpcr: u32, operation: impl FnOnce(&mut Env) -> u64) -> (u64, u32) {
    let mut env = Env { fpcr, fpsr: 0 };
    let result = operation(&mut env);
    (result, env.fpsr)
}

fn plain(operation: impl FnOnce(&mut Env) -> u64) -> (u64, u32) {
    with(0, operation)
}

#[test]
fn nan_signalling_operand_wins_over_earlier_quiet_one() {
    assert_eq!(plain(|e| add::<F32>(QNAN, SNAN, e)), (QUIETED_SNAN, flag::IOC));
    assert_eq!(plain(|e| add::<F32>(SNAN, QNAN, e)), (QUIETED_SNAN, flag::IOC));
    assert_eq!(plain(|e| add::<F32>(QNAN, MINUS | 0x7fc0_0005, e)), (QNAN, 0));
    assert_eq!(plain(|e| add::<F32>(f(1.0), MINUS | QNAN, e)), (MINUS | QNAN, 0));
}

#[test]
fn nan_with_default_nan_mode_is_replaced_but_still_signals() {
    assert_eq!(with(DN, |e| mul::<F32>(MINUS | QNAN, f(1.0), e)), (DEFAULT, 0));
    assert_eq!(with(DN, |e| mul::<F32>(f(1.0), SNAN, e)), (DEFAULT, flag::IOC));
}

#[test]
fn invalid_operations_give_the_positive_quiet_default_nan() {
    for operation in [
        |e: &mut Env| add::<F32>(INF, MINUS | INF, e),
        |e: &mut Env| sub::<F32>(INF, INF, e),
        |e: &mut Env| mul::<F32>(INF, MINUS, e),
        |e: &mut Env| div::<F32>(INF, MINUS | INF, e),
        |e: &mut Env| div::<F32>(0, MINUS, e),
        |e: &mut Env| sqrt::<F32>(f(-1.0), e),
        |e: &mut Env| recip_sqrt_estimate::<F32>(f(-1.0), e),
        |e: &mut Env| mul_add::<F32>(f(1.0), INF, 0, e),
        |e: &mut Env| mul_add::<F32>(MINUS | INF, INF, f(2.0), e),
        // A quiet NaN addend does not hide an invalid product.
        |e: &mut Env| mul_add::<F32>(QNAN, INF, 0, e),
    ] {
        assert_eq!(plain(operation), (DEFAULT, flag::IOC));
    }
}

#[test]
fn fused_multiply_add_takes_nans_addend_first() {
    assert_eq!(plain(|e| mul_add::<F32>(QNAN, QNAN + 1, QNAN + 2, e)), (QNAN, 0));
    assert_eq!(plain(|e| mul_add::<F32>(QNAN, QNAN + 1, SNAN, e)), (QUIETED_SNAN, flag::IOC));
    assert_eq!(plain(|e| mul_add::<F32>(SNAN, INF, 0, e)), (QUIETED_SNAN, flag::IOC));
}

#[test]
fn division_by_zero_raises_dzc_only_for_finite_dividends() {
    assert_eq!(plain(|e| div::<F32>(f(1.0), MINUS, e)), (MINUS | INF, flag::DZC));
    assert_eq!(plain(|e| div::<F32>(INF, 0, e)), (INF, 0));
    assert_eq!(plain(|e| recip_estimate::<F32>(MINUS, e)), (MINUS | INF, flag::DZC));
    assert_eq!(plain(|e| recip_sqrt_estimate::<F32>(MINUS, e)), (MINUS | INF, flag::DZC));
}

#[test]
fn exact_cancellation_is_negative_zero_only_towards_minus_infinity() {
    for fpcr in [0, TO_PLUS, TO_ZERO] {
        assert_eq!(with(fpcr, |e| sub::<F32>(f(1.5), f(1.5), e)), (0, 0));
        assert_eq!(with(fpcr, |e| add::<F32>(0, MINUS, e)), (0, 0));
    }
    assert_eq!(with(TO_MINUS, |e| sub::<F32>(f(1.5), f(1.5), e)), (MINUS, 0));
    assert_eq!(with(TO_MINUS, |e| add::<F32>(0, MINUS, e)), (MINUS, 0));
    assert_eq!(with(TO_MINUS, |e| mul_add::<F32>(f(-6.0), f(2.0), f(3.0), e)), (MINUS, 0));
    assert_eq!(plain(|e| add::<F32>(MINUS, MINUS, e)), (MINUS, 0));
}

#[test]
fn overflow_goes_to_infinity_or_the_largest_number_by_mode_and_sign() {
    let flags = flag::OFC | flag::IXC;
    for (fpcr, positive, negative) in [
        (0, INF, MINUS | INF),
        (TO_PLUS, INF, MINUS | MAX),
        (TO_MINUS, MAX, MINUS | INF),
        (TO_ZERO, MAX, MINUS | MAX),
    ] {
        assert_eq!(with(fpcr, |e| add::<F32>(MAX, MAX, e)), (positive, flags));
        assert_eq!(with(fpcr, |e| mul::<F32>(MINUS | MAX, f(2.0), e)), (negative, flags));
    }
}

#[test]
fn underflow_is_judged_before_rounding() {
    // (1 - 2^-24) * 2^-126 is tiny, although it rounds up to the smallest normal number.
    let largest_below_one = f(1.0) - 1;
    let result = plain(|e| mul::<F32>(largest_below_one, MIN_NORMAL, e));
    assert_eq!(result, (MIN_NORMAL, flag::UFC | flag::IXC));
}

#[test]
fn underflow_exact_denormal_result_raises_nothing() {
    assert_eq!(plain(|e| mul::<F32>(MIN_NORMAL, f(0.5), e)), (MIN_NORMAL >> 1, 0));
    assert_eq!(plain(|e| mul::<F32>(1, f(0.5), e)), (0, flag::UFC | flag::IXC));
    assert_eq!(with(TO_PLUS, |e| mul::<F32>(1, f(0.5), e)), (1, flag::UFC | flag::IXC));
}

#[test]
fn flush_to_zero_input_raises_idc_and_keeps_the_sign() {
    assert_eq!(with(FZ, |e| add::<F32>(MINUS | DENORMAL, MINUS, e)), (MINUS, flag::IDC));
    assert_eq!(with(FZ, |e| div::<F32>(f(1.0), DENORMAL, e)), (INF, flag::IDC | flag::DZC));
    assert_eq!(with(FZ, |e| max::<F32>(DENORMAL, MINUS, e)), (0, flag::IDC));
    assert_eq!(with(FZ, |e| add::<F32>(QNAN, DENORMAL, e)), (QNAN, flag::IDC));
    assert_eq!(with(FZ, |e| to_int::<F32>(DENORMAL, W, 0, Rounding::PosInf, e)), (0, flag::IDC));
    assert_eq!(with(FZ, |e| convert::<F32, F64>(DENORMAL, Rounding::TieEven, e)), (0, flag::IDC));
}

#[test]
fn flush_to_zero_result_raises_ufc_alone() {
    assert_eq!(with(FZ, |e| mul::<F32>(MINUS | MIN_NORMAL, f(0.5), e)), (MINUS, flag::UFC));
    assert_eq!(with(FZ, |e| sub::<F32>(MIN_NORMAL + 1, MIN_NORMAL, e)), (0, flag::UFC));
    let huge = f(2.0f32.powi(126));
    assert_eq!(with(FZ, |e| recip_estimate::<F32>(huge, e)), (0, flag::UFC));
}

#[test]
fn flush_to_zero_leaves_half_precision_alone() {
    assert_eq!(with(FZ, |e| convert::<F16, F32>(1, Rounding::TieEven, e)), (f(2.0f32.powi(-24)), 0));
    let tiny = f(2.0f32.powi(-24));
    assert_eq!(with(FZ, |e| convert::<F32, F16>(tiny, Rounding::TieEven, e)), (1, 0));
}

#[test]
fn mulx_infinity_times_zero_is_two() {
    assert_eq!(plain(|e| mulx::<F32>(INF, MINUS, e)), (f(-2.0), 0));
    assert_eq!(plain(|e| mulx::<F64>(0, F64::INFINITY, e)), (d(2.0), 0));
    assert_eq!(plain(|e| mulx::<F64>(d(3.0), d(0.5), e)), (d(1.5), 0));
}

#[test]
fn sqrt_special_values() {
    assert_eq!(plain(|e| sqrt::<F64>(F64::SIGN, e)), (F64::SIGN, 0));
    assert_eq!(plain(|e| sqrt::<F64>(F64::INFINITY, e)), (F64::INFINITY, 0));
    assert_eq!(plain(|e| sqrt::<F64>(d(6.25), e)), (d(2.5), 0));
    assert_eq!(plain(|e| sqrt::<F64>(d(2.0), e)), (d(2.0f64.sqrt()), flag::IXC));
}

#[test]
fn compare_quiet_nan_signals_only_when_asked() {
    let relation = |a, b, signal| {
        let mut env = Env { fpcr: 0, fpsr: 0 };
        (compare::<F32>(a, b, signal, &mut env), env.fpsr)
    };
    assert_eq!(relation(QNAN, f(1.0), false), (Relation::Unordered, 0));
    assert_eq!(relation(QNAN, f(1.0), true), (Relation::Unordered, flag::IOC));
    assert_eq!(relation(f(1.0), SNAN, false), (Relation::Unordered, flag::IOC));
    assert_eq!(relation(0, MINUS, true), (Relation::Equal, 0));
    assert_eq!(relation(f(-2.0), f(-1.0), false), (Relation::Less, 0));
}

#[test]
fn compare_flushed_denormals_are_equal_to_zero() {
    let mut env = Env { fpcr: FZ, fpsr: 0 };
    assert!(is_equal::<F32>(DENORMAL, MINUS, &mut env));
    assert!(!is_greater::<F32>(DENORMAL, MINUS, &mut env));
    assert_eq!(env.fpsr, flag::IDC);
}

#[test]
fn extremes_order_the_zeros_and_propagate_nans() {
    assert_eq!(plain(|e| max::<F32>(MINUS, 0, e)), (0, 0));
    assert_eq!(plain(|e| min::<F32>(0, MINUS, e)), (MINUS, 0));
    assert_eq!(plain(|e| max::<F32>(f(-1.0), f(-2.0), e)), (f(-1.0), 0));
    assert_eq!(plain(|e| min::<F32>(f(3.0), QNAN, e)), (QNAN, 0));
}

#[test]
fn number_extremes_prefer_numbers_to_quiet_nans_only() {
    assert_eq!(plain(|e| max_num::<F32>(QNAN, f(-3.0), e)), (f(-3.0), 0));
    assert_eq!(plain(|e| min_num::<F32>(f(3.0), QNAN, e)), (f(3.0), 0));
    assert_eq!(plain(|e| min_num::<F32>(f(3.0), SNAN, e)), (QUIETED_SNAN, flag::IOC));
    assert_eq!(plain(|e| max_num::<F32>(QNAN, QNAN + 1, e)), (QNAN, 0));
    assert_eq!(plain(|e| max_num::<F32>(QNAN, SNAN, e)), (QUIETED_SNAN, flag::IOC));
}

#[test]
fn to_int_saturates_with_ioc_alone() {
    use Rounding::Zero;
    assert_eq!(plain(|e| to_int::<F64>(d(3e9), W, 0, Zero, e)), (0x7fff_ffff, flag::IOC));
    assert_eq!(plain(|e| to_int::<F64>(d(-3e9), W, 0, Zero, e)), (0x8000_0000, flag::IOC));
    assert_eq!(plain(|e| to_int::<F64>(d(-2147483648.0), W, 0, Zero, e)), (0x8000_0000, 0));
    assert_eq!(plain(|e| to_int::<F64>(d(-2147483648.5), W, 0, Zero, e)), (0x8000_0000, flag::IXC));
    assert_eq!(plain(|e| to_int::<F64>(d(4294967295.5), UW, 0, Zero, e)), (0xffff_ffff, flag::IXC));
    assert_eq!(plain(|e| to_int::<F64>(d(-1.0), UX, 0, Zero, e)), (0, flag::IOC));
    assert_eq!(plain(|e| to_int::<F64>(d(-0.5), UX, 0, Zero, e)), (0, flag::IXC));
    assert_eq!(plain(|e| to_int::<F32>(INF, UX, 0, Zero, e)), (u64::MAX, flag::IOC));
    assert_eq!(plain(|e| to_int::<F32>(MINUS | INF, X, 0, Zero, e)), (1 << 63, flag::IOC));
    assert_eq!(plain(|e| to_int::<F32>(QNAN, X, 0, Zero, e)), (0, flag::IOC));
    assert_eq!(
        plain(|e| to_int::<F64>(d(9223372036854775808.0), X, 0, Zero, e)),
        (i64::MAX as u64, flag::IOC)
    );
    assert_eq!(plain(|e| to_int::<F64>(d(9223372036854775808.0), UX, 0, Zero, e)), (1 << 63, 0));
    assert_eq!(plain(|e| to_int::<F64>(d(f64::MAX), X, 64, Zero, e)), (i64::MAX as u64, flag::IOC));
}

#[test]
fn to_int_rounds_in_every_mode() {
    use Rounding::*;
    for (mode, of_half, of_one_and_a_half, of_minus_half) in
        [(TieEven, 0, 2, 0), (TieAway, 1, 2, -1), (PosInf, 1, 2, 0), (NegInf, 0, 1, -1), (Zero, 0, 1, 0i64)]
    {
        assert_eq!(plain(|e| to_int::<F64>(d(0.5), X, 0, mode, e)), (of_half, flag::IXC));
        assert_eq!(plain(|e| to_int::<F64>(d(1.5), X, 0, mode, e)), (of_one_and_a_half, flag::IXC));
        assert_eq!(plain(|e| to_int::<F64>(d(-0.5), X, 0, mode, e)), (of_minus_half as u64, flag::IXC));
    }
    assert_eq!(plain(|e| to_int::<F64>(1, X, 0, PosInf, e)), (1, flag::IXC));
    assert_eq!(plain(|e| to_int::<F64>(1, X, 0, TieAway, e)), (0, flag::IXC));
}

#[test]
fn fixed_point_scales_by_the_fraction_bits() {
    assert_eq!(plain(|e| to_int::<F32>(f(1.25), W, 2, Rounding::Zero, e)), (5, 0));
    assert_eq!(plain(|e| to_int::<F32>(f(-1.25), W, 1, Rounding::Zero, e)), (0xffff_fffe, flag::IXC));
    assert_eq!(plain(|e| from_int::<F32>(5, W, 2, e)), (f(1.25), 0));
    assert_eq!(plain(|e| from_int::<F64>(u64::MAX, X, 64, e)), (d(-(2f64.powi(-64))), 0));
}

#[test]
fn from_int_rounds_as_fpcr_says() {
    let value = 0x0100_0001; // one more than 2^24
    assert_eq!(plain(|e| from_int::<F32>(value, W, 0, e)), (f(16777216.0), flag::IXC));
    assert_eq!(with(TO_PLUS, |e| from_int::<F32>(value, W, 0, e)), (f(16777218.0), flag::IXC));
    assert_eq!(plain(|e| from_int::<F64>(u64::MAX, UX, 0, e)), (d(18446744073709551616.0), flag::IXC));
    assert_eq!(plain(|e| from_int::<F64>(1 << 63, X, 0, e)), (d(-9223372036854775808.0), 0));
    assert_eq!(plain(|e| from_int::<F64>(0x1_ffff_ffff, W, 0, e)), (d(-1.0), 0));
    assert_eq!(with(TO_MINUS, |e| from_int::<F32>(0, W, 0, e)), (0, 0));
}

#[test]
fn round_to_integral_raises_ixc_only_when_exactness_was_asked() {
    use Rounding::*;
    for (mode, expected) in [(TieEven, 2.0), (TieAway, 3.0), (PosInf, 3.0), (NegInf, 2.0), (Zero, 2.0)] {
        assert_eq!(plain(|e| round_to_integral::<F64>(d(2.5), mode, false, e)), (d(expected), 0));
        assert_eq!(plain(|e| round_to_integral::<F64>(d(2.5), mode, true, e)), (d(expected), flag::IXC));
    }
    assert_eq!(plain(|e| round_to_integral::<F64>(d(-0.25), Zero, false, e)), (F64::SIGN, 0));
    assert_eq!(plain(|e| round_to_integral::<F64>(d(1e300), Zero, true, e)), (d(1e300), 0));
    assert_eq!(plain(|e| round_to_integral::<F32>(SNAN, Zero, false, e)), (QUIETED_SNAN, flag::IOC));
    assert_eq!(with(FZ, |e| round_to_integral::<F32>(DENORMAL, PosInf, true, e)), (0, flag::IDC));
}

#[test]
fn convert_narrows_and_widens_nans_by_their_top_payload() {
    let mode = Rounding::TieEven;
    assert_eq!(plain(|e| convert::<F32, F64>(SNAN, mode, e)), (0x7ff8_0000_4000_0000, flag::IOC));
    assert_eq!(plain(|e| convert::<F64, F32>(0xfff8_0000_4000_0000, mode, e)), (0xffc0_0002, 0));
    assert_eq!(with(DN, |e| convert::<F64, F32>(0xfff8_0000_4000_0000, mode, e)), (DEFAULT, 0));
    assert_eq!(plain(|e| convert::<F32, F16>(MINUS | 0x7fc0_2000, mode, e)), (0xfe01, 0));
}

#[test]
fn convert_to_alternative_half_has_neither_infinities_nor_nans() {
    let mode = Rounding::TieEven;
    assert_eq!(with(AHP, |e| convert::<F32, F16>(MINUS | QNAN, mode, e)), (0x8000, flag::IOC));
    assert_eq!(with(AHP, |e| convert::<F32, F16>(INF, mode, e)), (0x7fff, flag::IOC));
    assert_eq!(with(AHP, |e| convert::<F32, F16>(f(1e6), mode, e)), (0x7fff, flag::IOC));
    assert_eq!(with(AHP, |e| convert::<F32, F16>(f(65536.0), mode, e)), (0x7c00, 0));
    assert_eq!(with(AHP, |e| convert::<F16, F32>(0x7fff, mode, e)), (f(131008.0), 0));
    assert_eq!(plain(|e| convert::<F32, F16>(f(65536.0), mode, e)), (0x7c00, flag::OFC | flag::IXC));
}

#[test]
fn convert_to_odd_never_rounds_to_infinity() {
    let odd = Rounding::Odd;
    assert_eq!(plain(|e| convert::<F64, F32>(d(1.0) + 1, odd, e)), (f(1.0) + 1, flag::IXC));
    assert_eq!(plain(|e| convert::<F64, F32>(d(1e300), odd, e)), (MAX, flag::OFC | flag::IXC));
    assert_eq!(plain(|e| convert::<F64, F32>(1, odd, e)), (1, flag::UFC | flag::IXC));
}

#[test]
fn estimates_are_the_architected_table() {
    assert_eq!(plain(|e| recip_estimate::<F32>(f(1.0), e)), (0x3f7f_8000, 0));
    assert_eq!(plain(|e| recip_sqrt_estimate::<F32>(f(1.0), e)), (0x3f7f_8000, 0));
    assert_eq!(plain(|e| recip_sqrt_estimate::<F64>(d(2.0), e)), (0x3fe6_9000_0000_0000, 0));
    assert_eq!(plain(|e| recip_estimate::<F32>(1, e)), (INF, flag::OFC | flag::IXC));
    assert_eq!(with(TO_ZERO, |e| recip_estimate::<F32>(1, e)), (MAX, flag::OFC | flag::IXC));
    assert_eq!(plain(|e| recip_estimate::<F32>(MAX, e)), (0x0020_0000, 0));
    assert_eq!(unsigned_recip_estimate(0x7fff_ffff), u32::MAX);
    assert_eq!(unsigned_recip_estimate(0x8000_0000), 0xff80_0000);
    assert_eq!(unsigned_recip_sqrt_estimate(0x3fff_ffff), u32::MAX);
    assert_eq!(unsigned_recip_sqrt_estimate(0x4000_0000), 0xff80_0000);
}

#[test]
fn recip_exponent_inverts_the_exponent_field() {
    assert_eq!(plain(|e| recip_exponent::<F32>(f(1.5), e)), (0x4000_0000, 0));
    assert_eq!(plain(|e| recip_exponent::<F32>(MINUS, e)), (0xff00_0000, 0));
    assert_eq!(plain(|e| recip_exponent::<F32>(INF, e)), (0, 0));
}

#[test]
fn steps_negate_before_nans_propagate() {
    assert_eq!(plain(|e| recip_step::<F32>(QNAN, f(1.0), e)), (MINUS | QNAN, 0));
    assert_eq!(plain(|e| recip_step::<F32>(INF, 0, e)), (f(2.0), 0));
    assert_eq!(plain(|e| recip_step::<F32>(f(0.5), f(3.0), e)), (f(0.5), 0));
    assert_eq!(plain(|e| recip_sqrt_step::<F32>(0, INF, e)), (f(1.5), 0));
    assert_eq!(plain(|e| recip_sqrt_step::<F32>(f(2.0), f(1.0), e)), (f(0.5), 0));
}

#[test]
fn expand_imm_covers_the_encodable_constants() {
    assert_eq!(expand_imm::<F64>(0x70), d(1.0));
    assert_eq!(expand_imm::<F32>(0x00), f(2.0));
    assert_eq!(expand_imm::<F32>(0xff), f(-1.9375));
    assert_eq!(expand_imm::<F32>(0x3f), f(31.0));
    assert_eq!(expand_imm::<F64>(0x40), d(0.125));
}

/// Bit patterns that find trouble: uniform bits, small exponent ranges, sparse fractions, specials.
fn interesting<F: Format>() -> impl Strategy<Value = u64> {
    let width_mask = u64::MAX >> (64 - F::WIDTH);
    prop_oneof![
        4 => any::<u64>().prop_map(move |bits| bits & width_mask),
        3 => (any::<u64>(), 0..70u64).prop_map(move |(bits, spread)| {
            let frac = bits & F::FRAC_MASK;
            let exponent = (F::BIAS as u64 + spread).saturating_sub(35).min(F::EXP_MAX);
            (bits & F::SIGN) | exponent << F::FRAC | frac
        }),
        2 => (any::<u64>(), 0..F::FRAC).prop_map(move |(bits, cut)| bits & width_mask & !((1 << cut) - 1)),
        1 => prop::sample::select(vec![
            0, F::SIGN, F::INFINITY, F::SIGN | F::INFINITY, F::DEFAULT_NAN, F::INFINITY | 1,
            F::INFINITY - 1, 1, 1 << F::FRAC, (1 << F::FRAC) - 1, F::ONE, F::ONE - 1, F::TWO,
        ]),
    ]
}

/// The host's answer in a given rounding mode, with the flags that it raised as FPSR has them.
#[cfg(target_arch = "x86_64")]
mod host {
    use core::arch::asm;

    use super::*;

    const ALL_MASKED: u32 = 0x1f80;

    fn mxcsr(fpcr: u32) -> u32 {
        // Arm numbers the modes nearest, plus, minus, zero; x86 nearest, minus, plus, zero.
        let mode = [0, 2, 1, 3][(fpcr >> control::RMODE_SHIFT & 3) as usize];
        ALL_MASKED | mode << 13
    }

    fn flags(mxcsr: u32) -> u32 {
        [(0, flag::IOC), (2, flag::DZC), (3, flag::OFC), (4, flag::UFC), (5, flag::IXC)]
            .into_iter()
            .filter(|(bit, _)| mxcsr >> bit & 1 != 0)
            .fold(0, |all, (_, flag)| all | flag)
    }

    macro_rules! host_operation {
        ($name:ident, $instruction:literal) => {
            pub(super) fn $name(fpcr: u32, a: u64, b: u64) -> (u64, u32) {
                let mut csr = mxcsr(fpcr);
                let normal = ALL_MASKED;
                let mut result = f64::from_bits(a);
                // SAFETY: the control register is put back before the block ends.
                unsafe {
                    asm!(
                        "ldmxcsr [{csr}]",
                        concat!($instruction, " {r}, {b}"),
                        "stmxcsr [{csr}]",
                        "ldmxcsr [{normal}]",
                        csr = in(reg) &raw mut csr,
                        normal = in(reg) &raw const normal,
                        r = inout(xmm_reg) result,
                        b = in(xmm_reg) f64::from_bits(b),
                    );
                }
                (result.to_bits(), flags(csr))
            }
        };
    }
    host_operation!(addsd, "addsd");
    host_operation!(subsd, "subsd");
    host_operation!(mulsd, "mulsd");
    host_operation!(divsd, "divsd");
    host_operation!(sqrtsd, "sqrtsd");
    host_operation!(addss, "addss");
    host_operation!(mulss, "mulss");
    host_operation!(divss, "divss");
    host_operation!(sqrtss, "sqrtss");
    host_operation!(cvtsd2ss, "cvtsd2ss");
}

/// NaNs differ by design, and so does the underflow flag of a result rounded up to the smallest normal.
#[cfg(target_arch = "x86_64")]
fn agrees<F: Format>(ours: (u64, u32), host: (u64, u32)) -> bool {
    let mask = u64::MAX >> (64 - F::WIDTH);
    let is_nan = |bits: u64| abs::<F>(bits) > F::INFINITY;
    let host_result = host.0 & mask;
    let ignored = if abs::<F>(ours.0) == 1 << F::FRAC { flag::UFC } else { 0 };
    (ours.0 == host_result || (is_nan(ours.0) && is_nan(host_result)))
        && ours.1 & !ignored == host.1 & !ignored
}

#[cfg(target_arch = "x86_64")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn double_arithmetic_equals_the_host(
        a in interesting::<F64>(), b in interesting::<F64>(), mode in 0u32..4,
    ) {
        let fpcr = mode << control::RMODE_SHIFT;
        prop_assert!(agrees::<F64>(with(fpcr, |e| add::<F64>(a, b, e)), host::addsd(fpcr, a, b)));
        prop_assert!(agrees::<F64>(with(fpcr, |e| sub::<F64>(a, b, e)), host::subsd(fpcr, a, b)));
        prop_assert!(agrees::<F64>(with(fpcr, |e| mul::<F64>(a, b, e)), host::mulsd(fpcr, a, b)));
        prop_assert!(agrees::<F64>(with(fpcr, |e| div::<F64>(a, b, e)), host::divsd(fpcr, a, b)));
        prop_assert!(agrees::<F64>(with(fpcr, |e| sqrt::<F64>(a, e)), host::sqrtsd(fpcr, 0, a)));
        let single = with(fpcr, |e| convert::<F64, F32>(a, e.rounding(), e));
        prop_assert!(agrees::<F32>(single, host::cvtsd2ss(fpcr, 0, a)));
    }

    #[test]
    fn single_arithmetic_equals_the_host(
        a in interesting::<F32>(), b in interesting::<F32>(), mode in 0u32..4,
    ) {
        let fpcr = mode << control::RMODE_SHIFT;
        prop_assert!(agrees::<F32>(with(fpcr, |e| add::<F32>(a, b, e)), host::addss(fpcr, a, b)));
        prop_assert!(agrees::<F32>(with(fpcr, |e| mul::<F32>(a, b, e)), host::mulss(fpcr, a, b)));
        prop_assert!(agrees::<F32>(with(fpcr, |e| div::<F32>(a, b, e)), host::divss(fpcr, a, b)));
        prop_assert!(agrees::<F32>(with(fpcr, |e| sqrt::<F32>(a, e)), host::sqrtss(fpcr, 0, a)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// The road through host arithmetic, open when IXC is set, gives what the exact road gives.
    #[test]
    fn host_road_equals_exact_road(
        a in interesting::<F64>(), b in interesting::<F64>(), c in interesting::<F64>(),
        s in interesting::<F32>(), t in interesting::<F32>(), u in interesting::<F32>(),
    ) {
        let both = |operation: &dyn Fn(&mut Env) -> u64| {
            let (mut exact, mut quick) = (Env { fpcr: 0, fpsr: 0 }, Env { fpcr: 0, fpsr: flag::IXC });
            let results = (operation(&mut exact), operation(&mut quick));
            exact.raise(flag::IXC);
            ((results.0, exact.fpsr), (results.1, quick.fpsr))
        };
        let operations: [&dyn Fn(&mut Env) -> u64; 14] = [
            &|e| add::<F64>(a, b, e), &|e| sub::<F64>(a, b, e), &|e| mul::<F64>(a, b, e),
            &|e| div::<F64>(a, b, e), &|e| sqrt::<F64>(a, e), &|e| mul_add::<F64>(c, a, b, e),
            &|e| from_int::<F64>(a, X, 0, e), &|e| from_int::<F64>(a, UX, 0, e),
            &|e| add::<F32>(s, t, e), &|e| mul::<F32>(s, t, e), &|e| div::<F32>(s, t, e),
            &|e| mul_add::<F32>(u, s, t, e), &|e| from_int::<F32>(a, X, 0, e), &|e| sqrt::<F32>(s, e),
        ];
        for (index, operation) in operations.into_iter().enumerate() {
            let (exact, quick) = both(operation);
            prop_assert_eq!(exact, quick, "operation {}", index);
        }
    }

    #[test]
    fn comparison_and_truncation_equal_the_host(a in interesting::<F64>(), b in interesting::<F64>()) {
        let mut env = Env { fpcr: 0, fpsr: 0 };
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        prop_assert_eq!(is_equal::<F64>(a, b, &mut env), x == y);
        prop_assert_eq!(is_greater::<F64>(a, b, &mut env), x > y);
        // Rust's casts saturate and send NaN to zero, as the architecture does.
        prop_assert_eq!(to_int::<F64>(a, X, 0, Rounding::Zero, &mut env), (x as i64) as u64);
        prop_assert_eq!(to_int::<F64>(a, UX, 0, Rounding::Zero, &mut env), x as u64);
        prop_assert_eq!(to_int::<F64>(a, W, 0, Rounding::Zero, &mut env), u64::from(x as i32 as u32));
        prop_assert_eq!(to_int::<F64>(a, UW, 0, Rounding::Zero, &mut env), u64::from(x as u32));
    }

    #[test]
    fn round_to_integral_equals_the_host(a in interesting::<F64>()) {
        prop_assume!(abs::<F64>(a) <= F64::INFINITY);
        let mut env = Env { fpcr: 0, fpsr: 0 };
        let x = f64::from_bits(a);
        for (mode, expected) in [
            (Rounding::Zero, x.trunc()), (Rounding::PosInf, x.ceil()), (Rounding::NegInf, x.floor()),
            (Rounding::TieEven, x.round_ties_even()), (Rounding::TieAway, x.round()),
        ] {
            prop_assert_eq!(round_to_integral::<F64>(a, mode, false, &mut env), expected.to_bits());
        }
    }
}
