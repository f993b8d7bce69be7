//! An encoder of x86-64 machine code, made for a translator that emits a few instructions per guest instruction.
//!
//! [`Asm`] appends to memory that the caller provides; nothing is allocated per instruction and nothing is looked up.
//! Instructions of one encoding share a method that takes the operation as a value: an enum for the general-purpose
//! groups ([`gpr`]), a constant with the manual's prefix, map and opcode for the others ([`bmi`], [`simd_ops`] with
//! [`simd`]). What an operand is, register or memory, is the trait [`operand::Rm`], so each method exists once for both.
//!
//! Encodings are those of the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2. Deliberately
//! absent: 256-bit and wider vectors, the high byte registers AH, CH, DH and BH, segment overrides, x87.

#![allow(dead_code, reason = "instructions come in groups, of which the translator does not use every one")]

pub(crate) mod asm;
pub(crate) mod bmi;
pub(crate) mod features;
pub(crate) mod gpr;
pub(crate) mod label;
pub(crate) mod operand;
pub(crate) mod simd;
pub(crate) mod simd_ops;
#[cfg(test)]
mod tests;

pub(crate) use asm::{Asm, AsmError};
pub(crate) use features::HostFeatures;
pub(crate) use gpr::{Alu, BitTest, Shift, Unary};
pub(crate) use label::Label;
pub(crate) use operand::{Cond, Gpr, GprRm, Mem, Scale, Size, Xmm};
