//! What all Advanced SIMD groups share: a vector register as lanes, active bytes, saturation.
//!
//! A vector is a `u128` whose lanes are numbered from the low end (C1.2.2). Handlers choose the lane type once, by the
//! element size in slot `a`, and then run one closure over all lanes, which the compiler turns into host vectors.
//! Slot `b` is the number of bytes that take part: 8 or 16, or one element in scalar forms; all above becomes zero.

use core::array;

use crate::Cpu;

/// FPSR.QC: a saturating instruction has saturated.
pub(crate) const QC: u32 = 1 << 27;

/// An element type, without a sign of its own.
pub(super) trait Lane: Copy + Default + Eq {
    /// Width.
    const BITS: u32;
    /// Lanes in 128 bits.
    const COUNT: usize = 128 / Self::BITS as usize;
    /// Largest unsigned value.
    const UNSIGNED_MAX: u64 = u64::MAX >> (64 - Self::BITS);
    /// Largest signed value.
    const SIGNED_MAX: i64 = (Self::UNSIGNED_MAX >> 1) as i64;
    /// Smallest signed value.
    const SIGNED_MIN: i64 = -Self::SIGNED_MAX - 1;

    /// All lanes of a vector.
    type Lanes: AsRef<[Self]> + Copy;

    /// The low bits of `value`.
    fn of(value: u64) -> Self;
    /// The lane as an unsigned number.
    fn u(self) -> u64;
    /// The lane as a signed number.
    fn s(self) -> i64;
    /// Takes a vector apart.
    fn split(vector: u128) -> Self::Lanes;
    /// Makes a vector of the lane values for 0, 1, ...
    fn build(lane: impl FnMut(usize) -> Self) -> u128;

    /// The low bits of a signed number.
    #[inline(always)]
    fn of_signed(value: i64) -> Self {
        Self::of(value as u64)
    }

    /// One lane; `index` is cut to the lanes that there are.
    #[inline(always)]
    fn get(vector: u128, index: usize) -> Self {
        Self::split(vector).as_ref()[index % Self::COUNT]
    }

    /// All ones or all zeros.
    #[inline(always)]
    fn mask(holds: bool) -> Self {
        Self::of(if holds { u64::MAX } else { 0 })
    }
}

macro_rules! lane {
    ($type:ty, $signed:ty, $count:literal) => {
        impl Lane for $type {
            const BITS: u32 = <$type>::BITS;
            type Lanes = [$type; $count];

            #[inline(always)]
            fn of(value: u64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn u(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn s(self) -> i64 {
                i64::from(self as $signed)
            }
            #[inline(always)]
            fn split(vector: u128) -> Self::Lanes {
                zerocopy::transmute!(vector)
            }
            #[inline(always)]
            fn build(lane: impl FnMut(usize) -> Self) -> u128 {
                let lanes: Self::Lanes = array::from_fn(lane);
                zerocopy::transmute!(lanes)
            }
        }
    };
}
lane!(u8, i8, 16);
lane!(u16, i16, 8);
lane!(u32, i32, 4);
lane!(u64, i64, 2);

// Lanes are numbered from the low end: in memory order only on little-endian hosts.
const _: () = assert!(cfg!(target_endian = "little"), "the engine needs a little-endian host");

/// Runs `$body` with the type `L` of the element size `$size` (log2 of bytes).
macro_rules! with_lane {
    ($size:expr, $body:expr) => {
        match $size {
            0 => {
                type L = u8;
                $body
            }
            1 => {
                type L = u16;
                $body
            }
            2 => {
                type L = u32;
                $body
            }
            _ => {
                type L = u64;
                $body
            }
        }
    };
}

/// Runs `$body` with `N` the element type of `$size` and `W` the one twice as wide.
macro_rules! with_pair {
    ($size:expr, $body:expr) => {
        match $size {
            0 => {
                type N = u8;
                type W = u16;
                $body
            }
            1 => {
                type N = u16;
                type W = u32;
                $body
            }
            _ => {
                type N = u32;
                type W = u64;
                $body
            }
        }
    };
}

pub(super) use {with_lane, with_pair};

/// `f` over the lanes of one vector.
#[inline(always)]
pub(super) fn map<L: Lane>(x: u128, mut f: impl FnMut(L) -> L) -> u128 {
    let x = L::split(x);
    L::build(|k| f(x.as_ref()[k]))
}

/// `f` over the lanes of two vectors.
#[inline(always)]
pub(super) fn map2<L: Lane>(x: u128, y: u128, mut f: impl FnMut(L, L) -> L) -> u128 {
    let (x, y) = (L::split(x), L::split(y));
    L::build(|k| f(x.as_ref()[k], y.as_ref()[k]))
}

/// `f` over the lanes of three vectors.
#[inline(always)]
pub(super) fn map3<L: Lane>(d: u128, x: u128, y: u128, mut f: impl FnMut(L, L, L) -> L) -> u128 {
    let (d, x, y) = (L::split(d), L::split(x), L::split(y));
    L::build(|k| f(d.as_ref()[k], x.as_ref()[k], y.as_ref()[k]))
}

/// `f` over adjacent pairs of two vectors of `bytes` bytes, the pairs of `x` first.
#[inline(always)]
pub(super) fn map_pairs<L: Lane>(x: u128, y: u128, bytes: u8, mut f: impl FnMut(L, L) -> L) -> u128 {
    let half = L::COUNT / 2;
    if bytes == 16 {
        let (x, y) = (L::split(x), L::split(y));
        L::build(|k| {
            let from = if k < half { x.as_ref() } else { y.as_ref() };
            let k = 2 * (k % half);
            f(from[k], from[k + 1])
        })
    } else {
        let both = L::split(y << 64 | u128::from(x as u64));
        L::build(|k| if k < half { f(both.as_ref()[2 * k], both.as_ref()[2 * k + 1]) } else { L::default() })
    }
}

/// The low `bytes` bytes (1 to 16); the rest zero.
#[inline(always)]
pub(super) fn active(vector: u128, bytes: u8) -> u128 {
    vector & (u128::MAX >> (128 - 8 * u32::from(bytes.clamp(1, 16))))
}

/// The lower (`part` 0) or upper (1) half of a vector, or one element alone (2), as the source of a widening operation.
#[inline(always)]
pub(super) fn source_half<N: Lane>(vector: u128, part: u8) -> u128 {
    match part {
        0 => u128::from(vector as u64),
        1 => vector >> 64,
        _ => vector & u128::from(N::UNSIGNED_MAX),
    }
}

impl Cpu {
    /// Writes the 64-bit result of a narrowing operation: to the upper half if `part` is 1, keeping the lower; else to
    /// the lower half, clearing the upper.
    #[inline(always)]
    pub(super) fn set_narrowed(&mut self, n: u8, part: u8, half: u64) {
        let half = u128::from(half);
        let vector = if part == 1 { half << 64 | u128::from(self.v(n) as u64) } else { half };
        self.set_v(n, vector);
    }

    /// Sets FPSR.QC if any lane saturated.
    #[inline(always)]
    pub(super) fn note_saturation(&mut self, saturated: bool) {
        if saturated {
            self.state.fpsr |= QC;
        }
    }
}

/// `SignedSat`: the nearest signed lane value.
#[inline(always)]
pub(super) fn saturate_signed<L: Lane>(value: i128, saturated: &mut bool) -> L {
    let nearest = value.clamp(L::SIGNED_MIN.into(), L::SIGNED_MAX.into());
    *saturated |= nearest != value;
    L::of(nearest as u64)
}

/// `UnsignedSat`: the nearest unsigned lane value.
#[inline(always)]
pub(super) fn saturate_unsigned<L: Lane>(value: i128, saturated: &mut bool) -> L {
    let nearest = value.clamp(0, L::UNSIGNED_MAX.into());
    *saturated |= nearest != value;
    L::of(nearest as u64)
}

/// `value / 2^amount`, rounded down or, if `rounding`, to nearest with ties up. Any amount of bits.
#[inline(always)]
pub(super) fn shifted_right(value: i128, amount: u32, rounding: bool) -> i128 {
    // Lanes have at most 64 bits: beyond 66 nothing changes any more, and the sum stays in range.
    let amount = amount.min(66);
    let half = if rounding && amount > 0 { 1i128 << (amount - 1) } else { 0 };
    (value + half) >> amount
}
