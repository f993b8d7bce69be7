//! Later additions to the general-purpose instructions, each behind a CPUID bit: bit counts, BMI1, BMI2, MOVBE, CRC32.

use super::asm::{Asm, Op, wide};
use super::operand::{Gpr, GprRm, Mem, Size};

/// Counts the bits of `src`: operands `dst, src`, legacy encoding, not for bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(pub(super) Op);

/// Operands `dst, src, control`: VEX encoding with the last one in vvvv, 32 and 64 bits, leaves the flags (BEXTR and
/// BZHI do not).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShiftX(pub(super) Op);

/// Operands `dst, a, b`: VEX encoding with the middle one in vvvv, 32 and 64 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Combine(pub(super) Op);

/// Bits that are set.
pub(crate) const POPCNT: Count = Count(Op::new(0xf3, 0x0f, 0xb8));
/// Trailing zeros, the size for 0 (BMI1).
pub(crate) const TZCNT: Count = Count(Op::new(0xf3, 0x0f, 0xbc));
/// Leading zeros, the size for 0.
pub(crate) const LZCNT: Count = Count(Op::new(0xf3, 0x0f, 0xbd));

/// `src << control` (BMI2).
pub(crate) const SHLX: ShiftX = ShiftX(Op::new(0x66, 0x0f38, 0xf7));
/// `src >> control`, signed (BMI2).
pub(crate) const SARX: ShiftX = ShiftX(Op::new(0xf3, 0x0f38, 0xf7));
/// `src >> control`, unsigned (BMI2).
pub(crate) const SHRX: ShiftX = ShiftX(Op::new(0xf2, 0x0f38, 0xf7));
/// The bits of `src` from `control[7:0]` on, `control[15:8]` of them (BMI1).
pub(crate) const BEXTR: ShiftX = ShiftX(Op::new(0, 0x0f38, 0xf7));
/// The bits of `src` below `control[7:0]` (BMI2).
pub(crate) const BZHI: ShiftX = ShiftX(Op::new(0, 0x0f38, 0xf5));

/// `!a & b` (BMI1).
pub(crate) const ANDN: Combine = Combine(Op::new(0, 0x0f38, 0xf2));
/// `RDX * b`: the high half to `dst`, the low half to `a`; leaves the flags (BMI2).
pub(crate) const MULX: Combine = Combine(Op::new(0xf2, 0x0f38, 0xf6));
/// The low bits of `a` to the places that are set in `b` (BMI2).
pub(crate) const PDEP: Combine = Combine(Op::new(0xf2, 0x0f38, 0xf5));
/// The bits of `a` at the places that are set in `b`, gathered (BMI2).
pub(crate) const PEXT: Combine = Combine(Op::new(0xf3, 0x0f38, 0xf5));

impl Asm {
    /// POPCNT, TZCNT or LZCNT.
    #[inline(always)]
    pub(crate) fn count(&mut self, op: Count, size: Size, dst: Gpr, src: impl GprRm) {
        debug_assert!(size != Size::Byte);
        self.sized(size, op.0, dst.number(), src, 0);
    }

    /// A shift or bit extraction that takes its count from any register.
    #[inline(always)]
    pub(crate) fn shiftx(&mut self, op: ShiftX, size: Size, dst: Gpr, src: impl GprRm, control: Gpr) {
        self.vex(wide(op.0, size), dst.number(), control.number(), src, 0);
    }

    /// ANDN, MULX, PDEP or PEXT.
    #[inline(always)]
    pub(crate) fn combine(&mut self, op: Combine, size: Size, dst: Gpr, a: Gpr, b: impl GprRm) {
        self.vex(wide(op.0, size), dst.number(), a.number(), b, 0);
    }

    /// RORX: `src` rotated right by a constant; leaves the flags (BMI2).
    #[inline(always)]
    pub(crate) fn rorx(&mut self, size: Size, dst: Gpr, src: impl GprRm, count: u8) {
        self.vex(wide(Op::new(0xf2, 0x0f3a, 0xf0), size), dst.number(), 0, src, 1);
        self.put(u64::from(count), 1);
    }

    /// MOVBE: a load with the bytes reversed. Not for bytes.
    #[inline(always)]
    pub(crate) fn movbe(&mut self, size: Size, dst: Gpr, src: Mem) {
        debug_assert!(size != Size::Byte);
        self.sized(size, Op::new(0, 0x0f38, 0xf0), dst.number(), src, 0);
    }

    /// MOVBE: a store with the bytes reversed. Not for bytes.
    #[inline(always)]
    pub(crate) fn movbe_store(&mut self, size: Size, dst: Mem, src: Gpr) {
        debug_assert!(size != Size::Byte);
        self.sized(size, Op::new(0, 0x0f38, 0xf1), src.number(), dst, 0);
    }

    /// CRC32: goes on from `crc` (32 bits, polynomial 0x11edc6f41, reflected) with `size` bits of `src` (SSE4.2).
    #[inline(always)]
    pub(crate) fn crc32(&mut self, size: Size, crc: Gpr, src: impl GprRm) {
        if size == Size::Byte {
            self.byte_operands(Op::new(0xf2, 0x0f38, 0xf0), crc.number(), false, src, true, 0);
        } else {
            self.sized(size, Op::new(0xf2, 0x0f38, 0xf1), crc.number(), src, 0);
        }
    }
}
