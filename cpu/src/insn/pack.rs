//! Functions that the table's operand expressions may call. All are total: any field value gives a result.
#![allow(dead_code)]

/// Sign-extends the low `bits` of `value`.
#[inline]
pub(super) const fn sext(value: u32, bits: u32) -> u64 {
    ((value as u64) << (64 - bits)).cast_signed().wrapping_shr(64 - bits).cast_unsigned()
}

/// The target of a branch: `pc` plus a signed count of words.
#[inline]
pub(super) const fn target(pc: u64, words: u32, bits: u32) -> u64 {
    pc.wrapping_add(sext(words, bits) << 2)
}

/// A bitmask immediate (DecodeBitMasks, immediate form), or `None` if reserved. For 32-bit instructions `n` is 0 and
/// the result's halves are equal.
#[inline]
pub(super) const fn bitmask(n: u32, imms: u32, immr: u32) -> Option<u64> {
    let selector = n << 6 | !imms & 0x3f;
    if selector < 2 {
        return None; // element size below 2
    }
    let len = 31 - selector.leading_zeros();
    let size = 1 << len;
    let levels = size - 1;
    let s = imms & levels;
    let r = immr & levels;
    if s == levels {
        return None;
    }
    let ones = (1u64 << (s + 1)) - 1;
    let mask = if size == 64 { u64::MAX } else { (1 << size) - 1 };
    let element = if r == 0 { ones } else { (ones >> r | ones << (size - r)) & mask };
    let mut out = element;
    let mut width = size;
    while width < 64 {
        out |= out << width;
        width *= 2;
    }
    Some(out)
}

/// [`bitmask`], with zero for reserved ones: rows call those UNDEFINED.
#[inline]
pub(super) const fn bitmask_or_zero(n: u32, imms: u32, immr: u32) -> u64 {
    match bitmask(n, imms, immr) {
        Some(mask) => mask,
        None => 0,
    }
}
