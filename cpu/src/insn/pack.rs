//! Functions that the table's operand expressions may call. All are total: any field value gives a result.

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

/// A bitfield move's right shift, after a left shift by `top - imms` (`top` is 31 or 63).
#[inline]
pub(super) const fn field_right(top: u32, immr: u32, imms: u32) -> u32 {
    if imms >= immr { top - imms + immr } else { immr - 1 - imms }
}

/// The destination bits that BFM replaces by the source rotated right by `immr`.
#[inline]
pub(super) const fn field_mask(top: u32, immr: u32, imms: u32) -> u64 {
    if imms >= immr { ones(imms - immr + 1) } else { ones(imms + 1) << (top + 1 - immr) }
}

/// The lowest `bits` bits set.
#[inline]
pub(super) const fn ones(bits: u32) -> u64 {
    if bits > 63 { u64::MAX } else { (1 << bits) - 1 }
}

/// The register number that means zero, for forms of a row that have no such field.
pub(super) const ZR: u32 = 31;

/// A system register's encoding, as [`hw::SysReg`] packs it.
pub(super) const fn sysreg(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u64 {
    hw::SysReg::new(op0 as u8, op1 as u8, crn as u8, crm as u8, op2 as u8).0 as u64
}
