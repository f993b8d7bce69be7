//! 32- and 64-bit forms of an instruction as one generic handler, and the small functions that select a variant.

use crate::Cpu;
use crate::state::Flags;

/// The width of a data-processing instruction.
pub(crate) trait Width: Copy + Eq {
    /// Bits.
    const BITS: u32;
    /// Zero.
    const ZERO: Self;

    /// Register `n` at this width.
    fn read(cpu: &Cpu, n: u8) -> Self;
    /// Writes register `n`; a 32-bit result clears the upper half.
    fn write(self, cpu: &mut Cpu, n: u8);
    /// The low bits of `value`.
    fn cut(value: u64) -> Self;
    /// Zero-extended.
    fn wide(self) -> u64;
    /// The sum modulo 2^BITS.
    fn add(self, other: Self) -> Self;
    /// The difference modulo 2^BITS.
    fn sub(self, other: Self) -> Self;
    /// The product modulo 2^BITS.
    fn mul(self, other: Self) -> Self;
    /// Bitwise.
    fn and(self, other: Self) -> Self;
    /// Bitwise.
    fn or(self, other: Self) -> Self;
    /// Bitwise.
    fn xor(self, other: Self) -> Self;
    /// Bitwise.
    fn not(self) -> Self;
    /// Shifts take `amount` modulo BITS.
    fn lsl(self, amount: u32) -> Self;
    /// Logical shift right.
    fn lsr(self, amount: u32) -> Self;
    /// Arithmetic shift right.
    fn asr(self, amount: u32) -> Self;
    /// Rotation right.
    fn ror(self, amount: u32) -> Self;
    /// Quotient, 0 for a divisor of 0.
    fn udiv(self, divisor: Self) -> Self;
    /// Signed quotient, rounded to zero; 0 for a divisor of 0, and the overflow wraps.
    fn sdiv(self, divisor: Self) -> Self;
    /// Bits in reverse order.
    fn rbit(self) -> Self;
    /// Bytes in reverse order.
    fn rev(self) -> Self;
    /// Leading zeros.
    fn clz(self) -> u32;
    /// N and Z of a result, with C and V clear.
    fn nz(self) -> Flags;
    /// AddWithCarry(self, other, 0).
    fn add_flags(self, other: Self) -> (Self, Flags);
    /// AddWithCarry(self, NOT(other), 1).
    fn sub_flags(self, other: Self) -> (Self, Flags);
    /// AddWithCarry.
    fn adc_flags(self, other: Self, carry: u32) -> (Self, Flags);
}

macro_rules! width {
    ($t:ty, $signed:ty) => {
        impl Width for $t {
            const BITS: u32 = <$t>::BITS;
            const ZERO: Self = 0;

            #[inline(always)]
            fn read(cpu: &Cpu, n: u8) -> Self {
                cpu.x(n) as $t
            }
            #[inline(always)]
            fn write(self, cpu: &mut Cpu, n: u8) {
                cpu.set_x(n, self.wide());
            }
            #[inline(always)]
            fn cut(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn wide(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            fn not(self) -> Self {
                !self
            }
            #[inline(always)]
            fn lsl(self, amount: u32) -> Self {
                self.wrapping_shl(amount)
            }
            #[inline(always)]
            fn lsr(self, amount: u32) -> Self {
                self.wrapping_shr(amount)
            }
            #[inline(always)]
            fn asr(self, amount: u32) -> Self {
                (self as $signed).wrapping_shr(amount) as $t
            }
            #[inline(always)]
            fn ror(self, amount: u32) -> Self {
                self.rotate_right(amount % <$t>::BITS)
            }
            #[inline(always)]
            fn udiv(self, divisor: Self) -> Self {
                self.checked_div(divisor).unwrap_or(0)
            }
            #[inline(always)]
            fn sdiv(self, divisor: Self) -> Self {
                if divisor == 0 { 0 } else { (self as $signed).wrapping_div(divisor as $signed) as $t }
            }
            #[inline(always)]
            fn rbit(self) -> Self {
                self.reverse_bits()
            }
            #[inline(always)]
            fn rev(self) -> Self {
                self.swap_bytes()
            }
            #[inline(always)]
            fn clz(self) -> u32 {
                self.leading_zeros()
            }
            #[inline(always)]
            fn nz(self) -> Flags {
                Flags { n: (self as u64) << (64 - <$t>::BITS), z: self as u64, c: 0, v: 0 }
            }
            #[inline(always)]
            fn add_flags(self, other: Self) -> (Self, Flags) {
                let (sum, c) = self.overflowing_add(other);
                let (_, v) = (self as $signed).overflowing_add(other as $signed);
                (sum, Flags { c: u32::from(c), v: u32::from(v), ..sum.nz() })
            }
            #[inline(always)]
            fn sub_flags(self, other: Self) -> (Self, Flags) {
                let difference = self.wrapping_sub(other);
                let (_, v) = (self as $signed).overflowing_sub(other as $signed);
                (difference, Flags { c: u32::from(self >= other), v: u32::from(v), ..difference.nz() })
            }
            #[inline(always)]
            fn adc_flags(self, other: Self, carry: u32) -> (Self, Flags) {
                let (half, c1) = self.overflowing_add(other);
                let (sum, c2) = half.overflowing_add(carry as $t);
                let v = ((self ^ sum) & (other ^ sum)) >> (<$t>::BITS - 1);
                (sum, Flags { c: u32::from(c1 | c2), v: v as u32, ..sum.nz() })
            }
        }
    };
}

width!(u32, i32);
width!(u64, i64);

/// A shift, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the instructions")]
pub(crate) enum ShiftKind {
    Lsl,
    Lsr,
    Asr,
    Ror,
}

/// How a register operand is shifted, by less than the width.
pub(crate) trait Shift {
    /// Which it is.
    const KIND: ShiftKind;

    /// The shifted value.
    fn apply<T: Width>(a: T, amount: u32) -> T;
}

/// A bitwise operation, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the instructions")]
pub(crate) enum LogicKind {
    And,
    Bic,
    Orr,
    Orn,
    Eor,
    Eon,
}

/// A bitwise operation.
pub(crate) trait Logic {
    /// Which it is.
    const KIND: LogicKind;

    /// Its result.
    fn apply<T: Width>(a: T, b: T) -> T;
}

/// What becomes of a second operand, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the instructions")]
pub(crate) enum OtherwiseKind {
    Same,
    Inc,
    Inv,
    Neg,
}

/// What a conditional select does with its second operand.
pub(crate) trait Otherwise {
    /// Which it is.
    const KIND: OtherwiseKind;

    /// The value if the condition does not hold.
    fn apply<T: Width>(a: T) -> T;
}

macro_rules! variant {
    ($trait:ident $kind:ident: $($name:ident = |$($arg:ident: $ty:ty),*| $body:expr;)*) => {$(
        #[doc = concat!("The `", stringify!($trait), "` of ", stringify!($name), ".")]
        pub(crate) struct $name;
        impl $trait for $name {
            const KIND: $kind = $kind::$name;

            #[inline(always)]
            fn apply<T: Width>($($arg: $ty),*) -> T {
                $body
            }
        }
    )*};
}

variant! { Shift ShiftKind:
    Lsl = |a: T, amount: u32| a.lsl(amount);
    Lsr = |a: T, amount: u32| a.lsr(amount);
    Asr = |a: T, amount: u32| a.asr(amount);
    Ror = |a: T, amount: u32| a.ror(amount);
}

variant! { Logic LogicKind:
    And = |a: T, b: T| a.and(b);
    Bic = |a: T, b: T| a.and(b.not());
    Orr = |a: T, b: T| a.or(b);
    Orn = |a: T, b: T| a.or(b.not());
    Eor = |a: T, b: T| a.xor(b);
    Eon = |a: T, b: T| a.xor(b.not());
}

variant! { Otherwise OtherwiseKind:
    Same = |a: T| a;
    Inc = |a: T| a.add(T::cut(1));
    Inv = |a: T| a.not();
    Neg = |a: T| T::ZERO.sub(a);
}
