//! Functions for operand expressions of Advanced SIMD rows. All are total, also where the row calls a word UNDEFINED.

/// Number of the vector register of a by-element operand: bit M belongs to it only for words.
#[inline]
pub(super) const fn element_register(size: u32, m: u32, rm: u32) -> u32 {
    if size == 1 { rm } else { m << 4 | rm }
}

/// Which element of that register.
#[inline]
pub(super) const fn element_index(size: u32, l: u32, m: u32, h: u32) -> u32 {
    if size == 1 { h << 2 | l << 1 | m } else { h << 1 | l }
}

/// Element size (log2 of bytes) of a shift by immediate: the highest bit set in `immh`.
#[inline]
pub(super) const fn shift_size(immh: u32) -> u32 {
    match immh {
        0..=1 => 0,
        2..=3 => 1,
        4..=7 => 2,
        _ => 3,
    }
}

/// Amount of a right shift: 1 to the element's width.
#[inline]
pub(super) const fn shift_right(immh: u32, immb: u32) -> u32 {
    (16u32 << shift_size(immh)).wrapping_sub(immh << 3 | immb) & 0x7f
}

/// Amount of a left shift: 0 to the element's width less one.
#[inline]
pub(super) const fn shift_left(immh: u32, immb: u32) -> u32 {
    (immh << 3 | immb).wrapping_sub(8 << shift_size(immh)) & 0x3f
}

/// Element size (log2 of bytes) in a copy's `imm5`: the lowest bit set.
#[inline]
pub(super) const fn lane_size(imm5: u32) -> u32 {
    let zeros = imm5.trailing_zeros();
    if zeros > 3 { 3 } else { zeros }
}

/// Element number in a copy's `imm5`: the bits above the size marker.
#[inline]
pub(super) const fn lane_index(imm5: u32) -> u32 {
    imm5 >> (lane_size(imm5) + 1)
}

/// The constant of a modified-immediate instruction (AdvSIMDExpandImm), inverted for MVNI.
#[inline]
pub(super) const fn modified_imm(op: u32, cmode: u32, imm8: u32) -> u64 {
    const fn twice(word: u32) -> u64 {
        (word as u64) << 32 | word as u64
    }
    let value = match cmode >> 1 {
        shift @ 0..=3 => twice(imm8 << (8 * shift)),
        shift @ 4..=5 => twice(0x1_0001 * (imm8 << (8 * (shift - 4)))),
        // Shifted in from below: ones, not zeros.
        6 if cmode & 1 == 0 => twice(imm8 << 8 | 0xff),
        6 => twice(imm8 << 16 | 0xffff),
        _ if cmode & 1 == 1 && op == 0 => {
            twice(crate::softfloat::expand_imm::<crate::softfloat::F32>(imm8 as u8) as u32)
        }
        _ if cmode & 1 == 1 => crate::softfloat::expand_imm::<crate::softfloat::F64>(imm8 as u8),
        _ if op == 0 => twice(0x0101_0101 * imm8),
        _ => spread_bits(imm8),
    };
    if op == 1 && cmode < 14 { !value } else { value }
}

/// Each bit of `imm8` becomes a byte of zeros or ones.
const fn spread_bits(imm8: u32) -> u64 {
    let mut out = 0;
    let mut bit = 0;
    while bit < 8 {
        if imm8 >> bit & 1 != 0 {
            out |= 0xff << (8 * bit);
        }
        bit += 1;
    }
    out
}
