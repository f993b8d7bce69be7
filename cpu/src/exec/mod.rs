//! What instructions do: one handler per row of `spec/*.isa`, in the module of the row's file.
//!
//! Handlers are small functions over resolved operands. They never test for register 31, never decode and never
//! check whether floating point is enabled. Kinds and signatures: see [`crate::insn::Kind`]. Deliberately absent: the
//! order in which they run, which is `interp`'s.

#![allow(clippy::inline_always, reason = "the interpreter's loop is one function made of these")]

use crate::insn::Insn;
use crate::{Cpu, Exception};

pub(crate) mod atomic;
pub(crate) mod barrier;
pub(crate) mod branch;
pub(crate) mod crc;
pub(crate) mod crypto;
pub(crate) mod fp;
pub(crate) mod integer;
pub(crate) mod memory;
pub(crate) mod simd;
pub(crate) mod simd_fp;
pub(crate) mod simd_misc;
pub(crate) mod simd_move;
pub(crate) mod simd_same;
pub(crate) mod simd_shift;
#[cfg(test)]
mod simd_tests;
pub(crate) mod simd_wide;
pub(crate) mod structure;
pub(crate) mod system;
pub(crate) mod width;

/// [`crate::insn::Op::Undefined`].
#[cold]
pub(crate) fn undefined(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Exception> {
    Err(Exception::undefined())
}

/// [`crate::insn::Op::FpTrapped`].
#[cold]
pub(crate) fn fp_trapped(_cpu: &mut Cpu, _i: &Insn) -> Result<(), Exception> {
    Err(Exception::fp_access())
}

/// [`crate::insn::Op::FallThrough`].
#[inline(always)]
pub(crate) fn fall_through(_cpu: &mut Cpu, _i: &Insn) -> bool {
    false
}

/// Register access by the numbers of an [`Insn`].
impl Cpu {
    /// The 64-bit register in slot value `n`: `rd`, `rn`, `rm` or `ra` of an [`Insn`].
    #[inline(always)]
    pub(crate) fn x(&self, n: u8) -> u64 {
        debug_assert!(usize::from(n) < self.state.x.len());
        // SAFETY: the decoder puts only register numbers below 34 into these slots: every role ends in one, and
        // other expressions are cut to five bits.
        unsafe { *self.state.x.get_unchecked(usize::from(n)) }
    }

    /// The low 32 bits of register `n`.
    #[inline(always)]
    pub(crate) fn w(&self, n: u8) -> u32 {
        self.x(n) as u32
    }

    /// Writes all 64 bits of register `n`.
    #[inline(always)]
    pub(crate) fn set_x(&mut self, n: u8, value: u64) {
        debug_assert!(usize::from(n) < self.state.x.len());
        // SAFETY: as in `x`.
        unsafe { *self.state.x.get_unchecked_mut(usize::from(n)) = value };
    }

    /// Writes a 32-bit result: the upper half becomes zero.
    #[inline(always)]
    pub(crate) fn set_w(&mut self, n: u8, value: u32) {
        self.set_x(n, u64::from(value));
    }

    /// Vector register `n` as 128 bits.
    #[inline(always)]
    pub(crate) fn v(&self, n: u8) -> u128 {
        self.state.v[n as usize & 31]
    }

    /// Writes all 128 bits of vector register `n`: scalar results are zero-extended by the caller's cast.
    #[inline(always)]
    pub(crate) fn set_v(&mut self, n: u8, value: u128) {
        self.state.v[n as usize & 31] = value;
    }
}
