//! Known values of floating point, Advanced SIMD and cryptography, through decoder and handler: edges of saturation,
//! halves and scalars, flags, and what is UNDEFINED.

use crate::Cpu;
use crate::insn::{Features, Op, op_of};
use crate::softfloat::flag;
use crate::state::Flags;
use crate::testbed::{Bench, RAM};

const QC: u32 = 1 << 27;
/// CPACR_EL1.FPEN: no trap.
const FPEN: u64 = 3 << 20;
/// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

/// A vCPU that may use floating point.
fn bench() -> (Bench, Cpu) {
    let bench = Bench::new(1);
    let mut cpu = bench.cpu(0);
    cpu.state.sys.cpacr = FPEN;
    (bench, cpu)
}

/// Runs one instruction. x0 is lost.
fn execute((bench, cpu): &mut (Bench, Cpu), word: u32) {
    // Each instruction gets fresh memory, so that no block is decoded twice.
    let at = RAM + 16 * u64::from(word >> 8 & 0xffff);
    bench.code(at, &[word]);
    bench.code(at + 4, &OFF);
    cpu.state.pc = at;
    assert_eq!(cpu.run(None), crate::Exit::SystemOff, "{word:#010x}");
    cpu.cluster.resume();
}

/// v0 and FPSR after one instruction that started with v0 = `d` and v1 to v3 = `sources`.
fn run(word: u32, d: u128, sources: [u128; 3]) -> (u128, u32) {
    let mut machine = bench();
    machine.1.state.v[0] = d;
    machine.1.state.v[1..4].copy_from_slice(&sources);
    execute(&mut machine, word);
    (machine.1.state.v[0], machine.1.state.fpsr)
}

/// As [`run`], for two sources and a destination that is only written.
fn two(word: u32, x: u128, y: u128) -> (u128, u32) {
    run(word, u128::MAX, [x, y, 0])
}

/// As [`run`], for one source.
fn one(word: u32, x: u128) -> (u128, u32) {
    two(word, x, 0)
}

fn f32s(lanes: [f32; 4]) -> u128 {
    lanes.iter().rev().fold(0, |vector, lane| vector << 32 | u128::from(lane.to_bits()))
}

fn f64s(low: f64, high: f64) -> u128 {
    u128::from(high.to_bits()) << 64 | u128::from(low.to_bits())
}

// ---- Integers of one width ----

#[test]
fn sqadd_saturates_both_ways_and_sets_qc() {
    // sqadd v0.8b, v1.8b, v2.8b: 127+1, -128-1, 1+1
    assert_eq!(two(0x0e22_0c20, 0x01_80_7f, 0x01_ff_01), (0x02_80_7f, QC));
    assert_eq!(two(0x0e22_0c20, 0x01, 0x7e), (0x7f, 0));
    // sqadd d0, d1, d2
    assert_eq!(two(0x5ee2_0c20, i64::MAX as u128, 1), (i64::MAX as u128, QC));
}

#[test]
fn saturation_in_lanes_beyond_a_64_bit_vector_is_not_noticed() {
    assert_eq!(two(0x0e22_0c20, 0x7f << 64, 0x7f << 64), (0, 0));
}

#[test]
fn uqsub_stops_at_zero() {
    // uqsub v0.16b, v1.16b, v2.16b
    assert_eq!(two(0x6e22_2c20, 0x05_01, 0x03_02), (0x02_00, QC));
}

#[test]
fn sqdmulh_of_the_most_negative_numbers_saturates() {
    // sqdmulh v0.8h; sqrdmulh v0.4s
    assert_eq!(two(0x4e62_b420, 0x4000_8000, 0x4000_8000), (0x2000_7fff, QC));
    assert_eq!(two(0x6ea2_b420, 0x8000_0000, 0x8000_0000), (0x7fff_ffff, QC));
    assert_eq!(two(0x6ea2_b420, 0x4000_0000, 1), (1, 0), "a half rounds up");
}

#[test]
fn shifts_by_register_go_both_ways_by_the_low_byte() {
    // ushl v0.2d, v1.2d, v2.2d: left by 64 leaves nothing, right by 4
    let amounts = u128::from(0xfcu8) << 64 | 64;
    assert_eq!(two(0x6ee2_4420, 0x100 << 64 | 0xff, amounts), (0x10 << 64, 0));
    // srshl d0, d1, d2: right by 1, rounded; right by 128 of a negative number is zero
    assert_eq!(two(0x5ee2_5420, 3, 0xff), (2, 0));
    assert_eq!(two(0x5ee2_5420, u64::MAX.into(), 0x80), (0, 0));
    // sqrshl v0.16b: 0x40 << 1 saturates, 5 >> 1 rounds to 3
    assert_eq!(two(0x4e22_5c20, 0x05_40, 0xff_01), (0x03_7f, QC));
}

#[test]
fn pairwise_operations_take_all_of_the_first_source_before_the_second() {
    // addp v0.8b; umaxp v0.16b
    assert_eq!(two(0x0e22_bc20, 0x08_07_06_05_04_03_02_01, 0x80).0, 0x00_00_00_80_0f_0b_07_03);
    let first = 0x10_0f_0e_0d_0c_0b_0a_09_08_07_06_05_04_03_02_01;
    assert_eq!(two(0x6e22_a420, first, 0xff).0, 0xff_10_0e_0c_0a_08_06_04_02);
}

#[test]
fn absolute_and_negated_minimum_saturates() {
    // sqabs v0.16b; sqneg d0
    assert_eq!(one(0x4e20_7820, 0xff_80), (0x01_7f, QC));
    assert_eq!(one(0x7ee0_7820, 1 << 63), (i64::MAX as u128, QC));
}

#[test]
fn accumulating_saturation_mixes_signs() {
    // suqadd: -1 + 255 = 254 saturates to 127; usqadd: 5 + -6 saturates to 0
    assert_eq!(run(0x4e20_3820, 0xff, [0xff, 0, 0]), (0x7f, QC));
    assert_eq!(run(0x6e20_3820, 0x05, [0xfa, 0, 0]), (0x00, QC));
}

// ---- Widening, narrowing, by element ----

#[test]
fn sqdmlal_saturates_the_product_and_the_sum() {
    // sqdmlal s0, h1, h2: 2 * 0x8000^2 saturates; adding 1 saturates again
    assert_eq!(run(0x5e62_9020, 1, [0x8000, 0x8000, 0]), (0x7fff_ffff, QC));
    assert_eq!(run(0x5e62_9020, u128::MAX << 32, [2, 3, 0]), (12, 0), "the rest of the register is cleared");
    // sqdmlal v0.4s, v1.4h, v2.4h reads the lower half only
    assert_eq!(run(0x0e62_9020, 0, [0x8000 << 64 | 1, 0x8000 << 64 | 1, 0]), (2, 0));
}

#[test]
fn narrowing_to_the_upper_half_keeps_the_lower() {
    // sqxtun2 v0.16b, v1.8h: -1 becomes 0, 0x0100 becomes 255
    assert_eq!(run(0x6e21_2820, 0x1234, [0x0100_ffff, 0, 0]), (0xff00 << 64 | 0x1234, QC));
    // shrn2 v0.4s, v1.2d, #32
    assert_eq!(run(0x4f20_8420, 7, [0x5_0000_0000, 0, 0]).0, 5 << 64 | 7);
    // raddhn2 v0.16b, v1.8h, v2.8h: 0x0080 rounds up
    assert_eq!(run(0x6e22_4020, 7, [0x0070, 0x0010, 0]).0, 1 << 64 | 7);
}

#[test]
fn narrowing_to_the_lower_half_clears_the_upper() {
    // sqxtn v0.8b, v1.8h; addhn v0.8b, v1.8h, v2.8h
    assert_eq!(one(0x0e21_4820, 0xff7f_0080), (0x80_7f, QC));
    assert_eq!(two(0x0e22_4020, 0x1234, 0x1000).0, 0x22);
}

#[test]
fn scalar_narrowing_looks_at_one_element() {
    // uqxtn b0, h1
    assert_eq!(one(0x7e21_4820, 0xffff_0012), (0x12, 0));
    assert_eq!(one(0x7e21_4820, 0x0100), (0xff, QC));
}

#[test]
fn by_element_forms_use_one_lane_of_the_second_source() {
    // mla v0.8h, v1.8h, v2.h[7]
    assert_eq!(run(0x6f72_0820, 1, [0x0003_0002, 5 << 112, 0]).0, 0x000f_000b);
}

// ---- Shifts by immediate ----

#[test]
fn right_shifts_by_the_whole_width_are_shifts() {
    // sshr v0.4s, v1.4s, #32; urshr d0, d1, #64; sri v0.8h, v1.8h, #16
    assert_eq!(one(0x4f20_0420, 0x7fff_ffff_8000_0000).0, 0x0000_0000_ffff_ffff);
    assert_eq!(one(0x7f40_2420, 1 << 63).0, 1);
    assert_eq!(run(0x6f10_4420, 0x1234, [0xffff, 0, 0]).0, 0x1234);
}

#[test]
fn inserting_shift_keeps_the_low_bits_of_the_destination() {
    // sli v0.16b, v1.16b, #3
    assert_eq!(run(0x6f0b_5420, 0x07, [0xff, 0, 0]).0, 0xff);
    assert_eq!(run(0x6f0b_5420, 0xff, [0, 0, 0]).0, 0x07);
}

#[test]
fn signed_to_unsigned_shifts_saturate_at_zero() {
    // sqshlu v0.8h, v1.8h, #4; sqrshrun v0.8b, v1.8h, #8
    assert_eq!(one(0x6f14_6420, 0x1000_ffff_0001), (0xffff_0000_0010, QC));
    assert_eq!(one(0x2f08_8c20, 0x8000_7fff_0080), (0x00_80_01, QC));
}

// ---- Reductions, permutations, copies, constants ----

#[test]
fn long_reductions_widen_the_sum() {
    // uaddlv d0, v1.4s; saddlv h0, v1.16b
    assert_eq!(one(0x6eb0_3820, u128::MAX).0, 4 * u128::from(u32::MAX));
    assert_eq!(one(0x4e30_3820, u128::MAX).0, 0xfff0);
}

#[test]
fn polynomial_products_have_no_carries() {
    // pmul v0.8b; pmull v0.1q, v1.1d, v2.1d
    assert_eq!(two(0x2e22_9c20, 0x03_ff, 0x03_ff).0, 0x05_55);
    assert_eq!(two(0x0ee2_e020, u64::MAX.into(), 3).0, 1 << 64 | 1);
}

#[test]
fn table_lookup_beyond_the_table_is_zero_or_keeps() {
    let bytes = |first: u8| u128::from_le_bytes(std::array::from_fn(|n| first + n as u8));
    // tbl v0.16b, {v1.16b, v2.16b}, v3.16b
    assert_eq!(
        run(0x4e03_2020, u128::MAX, [bytes(0x10), bytes(0x20), 0xff_20_1f_0f_00]).0 & 0xff_ffff_ffff,
        0x00_00_2f_1f_10
    );
    // tbx v0.8b, {v31.16b, v0.16b}, v3.8b: register numbers wrap
    let mut machine = bench();
    (machine.1.state.v[31], machine.1.state.v[0], machine.1.state.v[3]) =
        (bytes(0x40), bytes(0x50), 0x20_10_00);
    execute(&mut machine, 0x0e03_33e0);
    assert_eq!(machine.1.state.v[0], 0x40_40_40_40_40_52_50_40);
}

#[test]
fn ext_takes_bytes_across_both_sources() {
    let (x, y) = (0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100, 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110);
    assert_eq!(two(0x2e02_1820, x, y).0, 0x1211_1007_0605_0403);
    assert_eq!(two(0x6e02_7820, x, y).0, 0x1e1d_1c1b_1a19_1817_1615_1413_1211_100f);
}

#[test]
fn permutations_of_two_vectors() {
    let (x, y) = (0x0007_0006_0005_0004_0003_0002_0001_0000, 0x0017_0016_0015_0014_0013_0012_0011_0010);
    // zip2 v0.8h; uzp2 v0.4s; trn1 v0.8b
    assert_eq!(two(0x4e42_7820, x, y).0, 0x0017_0007_0016_0006_0015_0005_0014_0004);
    assert_eq!(two(0x4e82_5820, x, y).0, 0x0017_0016_0013_0012_0007_0006_0003_0002);
    assert_eq!(two(0x0e02_2820, 0x0706_0504_0302_0100, 0x1716_1514_1312_1110).0, 0x1606_1404_1202_1000);
}

#[test]
fn copies_between_lanes_and_registers() {
    // dup v0.4h, v1.h[5]; mov v0.b[15], v1.b[1]
    assert_eq!(one(0x0e16_0420, 0xabcd << 80).0, 0xabcd_abcd_abcd_abcd);
    assert_eq!(run(0x6e1f_0c20, 1, [0x7700, 0, 0]).0, 0x77 << 120 | 1);
    let mut machine = bench();
    machine.1.state.v[1] = 0x8234 << 112 | 0x8000_0000;
    execute(&mut machine, 0x4e07_2c25); // smov x5, v1.b[3]
    assert_eq!(machine.1.state.x[5], 0xffff_ffff_ffff_ff80);
    execute(&mut machine, 0x0e1e_3c25); // umov w5, v1.h[7]
    assert_eq!(machine.1.state.x[5], 0x8234);
}

#[test]
fn modified_immediates_expand() {
    for (word, expected) in [
        (0x6f05_e540, 0xff00_ff00_ff00_ff00_ff00_ff00_ff00_ff00), // movi v0.2d, #0xff00ff00ff00ff00
        (0x6f00_d640, 0xffed_0000_ffed_0000_ffed_0000_ffed_0000), // mvni v0.4s, #0x12, msl #16
        (0x6f03_f600, f64s(1.0, 1.0)),                            // fmov v0.2d, #1.0
        (0x6f07_b600, 0x0fff_0fff_0fff_0fff_0fff_0fff_0fff_0fff), // bic v0.8h, #0xf0, lsl #8
    ] {
        assert_eq!(run(word, u128::MAX, [0; 3]).0, expected, "{word:#010x}");
    }
}

// ---- Floating point on vectors ----

#[test]
fn vector_flags_come_from_active_lanes_only() {
    // fdiv v0.2s, v1.2s, v2.2s: 0/0 in the upper half is not computed
    let (x, y) = (f32s([1.0, 3.0, 0.0, 0.0]), f32s([2.0, 2.0, 0.0, 0.0]));
    assert_eq!(two(0x2e22_fc20, x, y), (f32s([0.5, 1.5, 0.0, 0.0]), 0));
    // fadd v0.2s: 1 + 2^-30 is inexact
    let tiny = 2.0f32.powi(-30);
    assert_eq!(two(0x0e22_d420, f32s([1.0; 4]), f32s([tiny; 4])), (f32s([1.0, 1.0, 0.0, 0.0]), flag::IXC));
}

#[test]
fn fused_by_element_rounds_once() {
    // fmla v0.2d, v1.2d, v2.d[1]: x * x = 1 + 2^-29 + 2^-60 has too many bits for a double, less 1 it has not
    let x = 1.0 + 2.0f64.powi(-30);
    let (result, flags) = run(0x4fc2_1820, f64s(-1.0, -1.0), [f64s(x, 2.0), f64s(9.0, x), 0]);
    let expected = f64s(2.0f64.powi(-29) + 2.0f64.powi(-60), 1.0 + 2.0f64.powi(-29));
    assert_eq!((result, flags), (expected, 0));
}

#[test]
fn reductions_and_pairs() {
    // fmaxnmv s0, v1.4s: numbers win over a quiet NaN
    assert_eq!(one(0x6e30_c820, f32s([1.0, f32::NAN, -2.0, 4.0])), (f32s([4.0, 0.0, 0.0, 0.0]), 0));
    // faddp d0, v1.2d
    assert_eq!(one(0x7e70_d820, f64s(1.5, 2.5)), (f64s(4.0, 0.0), 0));
}

#[test]
fn comparisons_give_masks_and_signal_on_any_nan() {
    // fcmgt v0.4s, v1.4s, v2.4s; facge d0, d1, d2
    let nan = f32::from_bits(0x7fc0_0000);
    let result = two(0x6ea2_e420, f32s([2.0, 1.0, nan, -0.0]), f32s([1.0, 1.0, 0.0, 0.0]));
    assert_eq!(result, (0xffff_ffff, flag::IOC));
    assert_eq!(two(0x7e62_ec20, f64s(-2.0, 0.0), f64s(1.0, 0.0)), (u64::MAX.into(), 0));
}

#[test]
fn conversions_between_vector_formats() {
    // fcvtn2 v0.8h, v1.4s; fcvtl v0.4s, v1.4h; fcvtxn s0, d1
    let halves = 0x4200_4000_3c00_0001u128;
    let singles = f32s([2.0f32.powi(-24), 1.0, 2.0, 3.0]);
    assert_eq!(run(0x4e21_6820, 5, [singles, 0, 0]), (halves << 64 | 5, 0));
    assert_eq!(one(0x0e21_7820, halves), (singles, 0));
    assert_eq!(one(0x7e61_6820, f64s(1.0 + f64::EPSILON, 0.0)), (0x3f80_0001, flag::IXC));
}

#[test]
fn fixed_point_conversions_scale() {
    // fcvtzs v0.2s, v1.2s, #8; ucvtf d0, d1, #64
    assert_eq!(one(0x0f38_fc20, f32s([1.5, -1.5, 9.0, 9.0])), (0xffff_fe80_0000_0180, 0));
    assert_eq!(one(0x7f40_e420, 1 << 63), (f64s(0.5, 0.0), 0));
}

#[test]
fn mulx_and_recpx_scalars() {
    // fmulx s0, s1, v2.s[3]; frecpx s0, s1
    assert_eq!(
        two(0x7fa2_9820, f32s([0.0; 4]), f32s([0.0, 0.0, 0.0, f32::INFINITY])),
        (f32s([2.0, 0.0, 0.0, 0.0]), 0)
    );
    assert_eq!(one(0x5ea1_f820, f32s([1.5, 0.0, 0.0, 0.0])), (0x4000_0000, 0));
}

// ---- Scalar floating point ----

#[test]
fn moves_between_register_files() {
    let mut machine = bench();
    (machine.1.state.v[1], machine.1.state.v[0]) = (u128::from(0x1234u64) << 64 | 0x5678, 7);
    execute(&mut machine, 0x9eae_0025); // fmov x5, v1.d[1]
    assert_eq!(machine.1.state.x[5], 0x1234);
    machine.1.state.x[1] = 0xffff_ffff_8000_0001;
    execute(&mut machine, 0x9eaf_0020); // fmov v0.d[1], x1
    assert_eq!(machine.1.state.v[0], 0xffff_ffff_8000_0001 << 64 | 7);
    execute(&mut machine, 0x1e27_0020); // fmov s0, w1
    assert_eq!(machine.1.state.v[0], 0x8000_0001);
}

#[test]
fn selection_and_conditional_comparison_follow_the_condition() {
    let mut machine = bench();
    (machine.1.state.v[1], machine.1.state.v[2]) = (f64s(1.0, 9.0), f64s(2.0, 9.0));
    machine.1.state.flags = Flags::from_nzcv(0b1000 << 28);
    execute(&mut machine, 0x1e62_ac20); // fcsel d0, d1, d2, ge
    assert_eq!(machine.1.state.v[0], f64s(2.0, 0.0));
    (machine.1.state.v[1], machine.1.state.v[2]) = (f32s([1.0; 4]), f32s([1.0; 4]));
    execute(&mut machine, 0x1e22_1429); // fccmp s1, s2, #9, ne
    assert_eq!(machine.1.state.flags.nzcv() >> 28, 0b0110);
    execute(&mut machine, 0x1e22_1429);
    assert_eq!(machine.1.state.flags.nzcv() >> 28, 9);
}

#[test]
fn comparison_with_a_quiet_nan_signals_only_for_fcmpe() {
    let mut machine = bench();
    machine.1.state.v[1] = f64s(f64::NAN, 0.0);
    execute(&mut machine, 0x1e60_2028); // fcmp d1, #0.0
    assert_eq!((machine.1.state.flags.nzcv() >> 28, machine.1.state.fpsr), (0b0011, 0));
    machine.1.state.v[1] = f32s([f32::NAN, 0.0, 0.0, 0.0]);
    execute(&mut machine, 0x1e22_2030); // fcmpe s1, s2
    assert_eq!((machine.1.state.flags.nzcv() >> 28, machine.1.state.fpsr), (0b0011, flag::IOC));
}

#[test]
fn negated_products_and_sums() {
    // fnmul d0, d1, d2: a NaN's sign flips too; fmsub s0, s1, s2, s3
    let nan = 0x7ff8_0000_0000_0001u128;
    assert_eq!(two(0x1e62_8820, nan, f64s(1.0, 0.0)), (1 << 63 | nan, 0));
    let [x, y, a] = [2.0, 3.0, 10.0].map(|s| f32s([s, 0.0, 0.0, 0.0]));
    assert_eq!(run(0x1f02_8c20, 0, [x, y, a]), (f32s([4.0, 0.0, 0.0, 0.0]), 0));
}

#[test]
fn scalar_conversions() {
    let mut machine = bench();
    // fcvtas w5, s1: ties away, upper half cleared
    machine.1.state.x[5] = u64::MAX;
    machine.1.state.v[1] = f32s([-2.5, 0.0, 0.0, 0.0]);
    execute(&mut machine, 0x1e24_0025);
    assert_eq!((machine.1.state.x[5], machine.1.state.fpsr), (0xffff_fffd, flag::IXC));
    // fcvtzu x5, d1, #64
    machine.1.state.v[1] = f64s(0.5, 0.0);
    execute(&mut machine, 0x9e59_0025);
    assert_eq!(machine.1.state.x[5], 1 << 63);
    // scvtf s0, x1
    machine.1.state.x[1] = (-3i64) as u64;
    execute(&mut machine, 0x9e22_0020);
    assert_eq!(machine.1.state.v[0], f32s([-3.0, 0.0, 0.0, 0.0]));
    // fcvt s0, h1; frintx d0, d1
    assert_eq!(one(0x1ee2_4020, 0x3c00), (f32s([1.0, 0.0, 0.0, 0.0]), 0));
    assert_eq!(one(0x1e67_4020, f64s(2.5, 0.0)), (f64s(2.0, 0.0), flag::IXC));
}

// ---- Cryptography ----

/// FIPS 197, appendix B: the first round of the worked example.
#[test]
fn aes_round_matches_the_standard() {
    let bytes = |hex: u128| u128::from_le_bytes(hex.to_be_bytes());
    let input = bytes(0x3243_f6a8_885a_308d_3131_98a2_e037_0734);
    let key = bytes(0x2b7e_1516_28ae_d2a6_abf7_1588_09cf_4f3c);
    let after_shift_rows = bytes(0xd4bf_5d30_e0b4_52ae_b841_11f1_1e27_98e5);
    let after_mix_columns = bytes(0x0466_81e5_e0cb_199a_48f8_d37a_2806_264c);

    assert_eq!(run(0x4e28_4820, input, [key, 0, 0]).0, after_shift_rows); // aese
    assert_eq!(one(0x4e28_6820, after_shift_rows).0, after_mix_columns); // aesmc
    assert_eq!(one(0x4e28_7820, after_mix_columns).0, after_shift_rows); // aesimc
    assert_eq!(run(0x4e28_5820, after_shift_rows, [0; 3]).0, input ^ key); // aesd
}

// ---- What does not exist ----

#[test]
fn reserved_sizes_and_absent_extensions_are_undefined() {
    for (word, what) in [
        (0x0ee2_8420, "add v0.1d"),
        (0x4ee2_9c20, "mul v0.2d"),
        (0x4e22_b420, "sqdmulh v0.16b"),
        (0x4ee2_0020, "saddl from doublewords"),
        (0x0ee1_d420, "fsub v0.1d"),
        (0x4ee0_1820, "rev16 of doublewords"),
        (0x0eb1_b820, "addv of two words"),
        (0x0f40_0420, "sshr v0.1d"),
        (0x6f00_8d20, "a saturating shift with immh 0 is no shift"),
        (0x2f00_f400, "fmov v0.1d"),
        (0x4e00_0420, "dup with imm5 0"),
        (0x2e02_4020, "ext v0.8b with index 8"),
        (0x1e20_0020 | 2 << 22, "scalar type 10"),
        (0x1ee2_2820, "fadd h0: half-precision arithmetic"),
        (0x4e42_1420, "fadd v0.8h: half-precision arithmetic"),
        (0x6e82_c420, "fcmla"),
        (0x4e80_a420, "smmla"),
        (0x6e42_ec20, "bfdot and neighbours"),
        (0xce60_8020, "sha512h"),
        (0xce02_0020, "eor3"),
        (0x1e18_7c20, "fcvtzs w0, s1 with 33 fraction bits"),
    ] {
        assert_eq!(op_of(word, Features::default()), Op::Undefined, "{word:#010x}: {what}");
    }
}

#[test]
fn crypto_rows_disappear_with_their_features() {
    for word in [0x4e28_4820, 0x0ee2_e020, 0x5e02_0020, 0x5e02_4020] {
        assert_ne!(op_of(word, Features::default()), Op::Undefined, "{word:#010x}");
        assert_eq!(op_of(word, Features::BASE), Op::Undefined, "{word:#010x}");
    }
}
