//! AES rounds, SHA-1 and SHA-256 rounds, and polynomial multiplication of doublewords.
//!
//! Arm ARM C3.6, `AESSubBytes` and its kin, `SHA256hash`; FIPS 197 and FIPS 180-4. The S-boxes are computed from their
//! definition at compile time. Table lookups are not constant-time: the guest's secrets are not protected from the host
//! that runs it anyway.

use core::array;

use super::simd::{Lane, map};
use crate::Cpu;
use crate::insn::Insn;

/// A product in AES's field: polynomials over {0, 1} modulo x^8 + x^4 + x^3 + x + 1.
const fn field_product(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    product
}

/// FIPS 197, 5.1.1: the inverse in the field, then an affine transformation.
const S_BOX: [u8; 256] = {
    // Walk the powers of the generator 3 and those of its inverse 0xf6 side by side.
    let mut table = [0u8; 256];
    let (mut power, mut inverse) = (1u8, 1u8);
    let mut n = 0;
    while n < 255 {
        table[power as usize] = inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4)
            ^ 0x63;
        power = field_product(power, 3);
        inverse = field_product(inverse, 0xf6);
        n += 1;
    }
    table[0] = 0x63;
    table
};

const INVERSE_S_BOX: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut n = 0;
    while n < 256 {
        table[S_BOX[n] as usize] = n as u8;
        n += 1;
    }
    table
};

/// Products of every byte with the first column of MixColumns (2, 1, 1, 3), one byte per row, row 0 lowest.
const MIX: [u32; 256] = columns([2, 1, 1, 3]);
/// As [`MIX`], for InvMixColumns.
const INVERSE_MIX: [u32; 256] = columns([14, 9, 13, 11]);

const fn columns(coefficients: [u8; 4]) -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut n = 0;
    while n < 256 {
        let mut row = 0;
        while row < 4 {
            table[n] |= (field_product(n as u8, coefficients[row]) as u32) << (8 * row);
            row += 1;
        }
        n += 1;
    }
    table
}

/// AESE: adds the key, shifts rows, substitutes bytes.
#[inline(never)]
pub(crate) fn aese(cpu: &mut Cpu, i: &Insn) {
    let state = (cpu.v(i.rd) ^ cpu.v(i.rn)).to_le_bytes();
    // Byte `row + 4 * column`; row r moves left by r columns.
    let out = array::from_fn(|n| S_BOX[usize::from(state[(n + 4 * (n % 4)) % 16])]);
    cpu.set_v(i.rd, u128::from_le_bytes(out));
}

/// AESD: the inverse, with rows moving right.
#[inline(never)]
pub(crate) fn aesd(cpu: &mut Cpu, i: &Insn) {
    let state = (cpu.v(i.rd) ^ cpu.v(i.rn)).to_le_bytes();
    let out = array::from_fn(|n| INVERSE_S_BOX[usize::from(state[(n + 16 - 4 * (n % 4)) % 16])]);
    cpu.set_v(i.rd, u128::from_le_bytes(out));
}

/// AESMC.
#[inline(never)]
pub(crate) fn aesmc(cpu: &mut Cpu, i: &Insn) {
    cpu.set_v(i.rd, mix(cpu.v(i.rn), &MIX));
}

/// AESIMC.
#[inline(never)]
pub(crate) fn aesimc(cpu: &mut Cpu, i: &Insn) {
    cpu.set_v(i.rd, mix(cpu.v(i.rn), &INVERSE_MIX));
}

fn mix(state: u128, products: &[u32; 256]) -> u128 {
    map::<u32>(state, |column| {
        column
            .to_le_bytes()
            .iter()
            .enumerate()
            .fold(0, |sum, (row, &byte)| sum ^ products[usize::from(byte)].rotate_left(8 * row as u32))
    })
}

/// PMULL, PMULL2 (1D, 2D): `b` says which doublewords.
#[inline(never)]
pub(crate) fn pmull_64(cpu: &mut Cpu, i: &Insn) {
    let half = 64 * u32::from(i.b & 1);
    let x = u128::from((cpu.v(i.rn) >> half) as u64);
    let y = (cpu.v(i.rm) >> half) as u64;
    // Four bits of `y` at a time, from a table of all products with four bits.
    let mut products = [0u128; 16];
    for n in 1..16 {
        products[n] = if n & 1 == 0 { products[n / 2] << 1 } else { products[n - 1] ^ x };
    }
    let product = (0..16).rev().fold(0, |sum, digit| sum << 4 ^ products[(y >> (4 * digit) & 15) as usize]);
    cpu.set_v(i.rd, product);
}

const fn choose(x: u32, y: u32, z: u32) -> u32 {
    (y ^ z) & x ^ z
}

const fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y | (x | y) & z
}

const fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

/// Four rounds of SHA-1: the state is in `rd` (a to d) and the low word of `rn` (e).
#[inline(always)]
fn sha1_rounds(cpu: &mut Cpu, i: &Insn, f: impl Fn(u32, u32, u32) -> u32) {
    let [mut a, mut b, mut c, mut d] = u32::split(cpu.v(i.rd));
    let mut e = cpu.v(i.rn) as u32;
    for word in u32::split(cpu.v(i.rm)) {
        let next = e.wrapping_add(a.rotate_left(5)).wrapping_add(f(b, c, d)).wrapping_add(word);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    let state = [a, b, c, d];
    cpu.set_v(i.rd, u32::build(|n| state[n]));
}

/// SHA1C: rounds 0 to 19.
#[inline(never)]
pub(crate) fn sha1c(cpu: &mut Cpu, i: &Insn) {
    sha1_rounds(cpu, i, choose);
}

/// SHA1P: rounds 20 to 39 and 60 to 79.
#[inline(never)]
pub(crate) fn sha1p(cpu: &mut Cpu, i: &Insn) {
    sha1_rounds(cpu, i, parity);
}

/// SHA1M: rounds 40 to 59.
#[inline(never)]
pub(crate) fn sha1m(cpu: &mut Cpu, i: &Insn) {
    sha1_rounds(cpu, i, majority);
}

/// SHA1H: the fixed rotation.
#[inline(never)]
pub(crate) fn sha1h(cpu: &mut Cpu, i: &Insn) {
    cpu.set_v(i.rd, u128::from((cpu.v(i.rn) as u32).rotate_left(30)));
}

/// SHA1SU0: first part of the schedule.
#[inline(never)]
pub(crate) fn sha1su0(cpu: &mut Cpu, i: &Insn) {
    let (d, n, m) = (cpu.v(i.rd), cpu.v(i.rn), cpu.v(i.rm));
    cpu.set_v(i.rd, (n << 64 | d >> 64) ^ d ^ m);
}

/// SHA1SU1: second part of the schedule.
#[inline(never)]
pub(crate) fn sha1su1(cpu: &mut Cpu, i: &Insn) {
    let t = u32::split(cpu.v(i.rd) ^ cpu.v(i.rn) >> 32);
    let last = t[0].rotate_left(2);
    cpu.set_v(i.rd, u32::build(|n| t[n].rotate_left(1) ^ if n == 3 { last } else { 0 }));
}

/// Four rounds of SHA-256 on the state `x` (a to d) and `y` (e to h).
fn sha256_rounds(x: u128, y: u128, words: u128) -> (u128, u128) {
    let [mut a, mut b, mut c, mut d] = u32::split(x);
    let [mut e, mut f, mut g, mut h] = u32::split(y);
    for word in u32::split(words) {
        let sigma1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sigma0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t = h.wrapping_add(sigma1).wrapping_add(choose(e, f, g)).wrapping_add(word);
        let next = t.wrapping_add(sigma0).wrapping_add(majority(a, b, c));
        (a, b, c, d, e, f, g, h) = (next, a, b, c, d.wrapping_add(t), e, f, g);
    }
    let (low, high) = ([a, b, c, d], [e, f, g, h]);
    (u32::build(|n| low[n]), u32::build(|n| high[n]))
}

/// SHA256H: the new a to d.
#[inline(never)]
pub(crate) fn sha256h(cpu: &mut Cpu, i: &Insn) {
    let (low, _) = sha256_rounds(cpu.v(i.rd), cpu.v(i.rn), cpu.v(i.rm));
    cpu.set_v(i.rd, low);
}

/// SHA256H2: the new e to h.
#[inline(never)]
pub(crate) fn sha256h2(cpu: &mut Cpu, i: &Insn) {
    let (_, high) = sha256_rounds(cpu.v(i.rn), cpu.v(i.rd), cpu.v(i.rm));
    cpu.set_v(i.rd, high);
}

/// SHA256SU0: first part of the schedule.
#[inline(never)]
pub(crate) fn sha256su0(cpu: &mut Cpu, i: &Insn) {
    let (d, n) = (cpu.v(i.rd), cpu.v(i.rn));
    let (words, next) = (u32::split(d), u32::split(d >> 32 | n << 96));
    let result = u32::build(|k| {
        let x = next[k];
        words[k].wrapping_add(x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3)
    });
    cpu.set_v(i.rd, result);
}

/// SHA256SU1: second part of the schedule; its last two words depend on its first two.
#[inline(never)]
pub(crate) fn sha256su1(cpu: &mut Cpu, i: &Insn) {
    let (d, n, m) = (cpu.v(i.rd), cpu.v(i.rn), cpu.v(i.rm));
    let (words, shifted, last) = (u32::split(d), u32::split(n >> 32 | m << 96), u32::split(m));
    let sigma = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let mut out = [last[2], last[3], 0, 0];
    for k in 0..4 {
        let from = if k < 2 { out[k] } else { out[k - 2] };
        out[k] = sigma(from).wrapping_add(words[k]).wrapping_add(shifted[k]);
    }
    cpu.set_v(i.rd, u32::build(|k| out[k]));
}
