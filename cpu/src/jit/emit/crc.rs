//! CRC-32C by the host's instruction for it, CRC-32 by polynomial multiplication.

use super::constants;
use super::lanes::{T0, T1};
use crate::exec::crc::{self, Chunk};
use crate::insn::Insn;
use crate::jit::access::size_of;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{Alu, Gpr, HostFeatures, Mem, Scale, Shift, Size};

pub(crate) fn crc32c<T: Chunk>(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().sse4_2 {
        t.call_handler(i);
        return;
    }
    let (crc, data) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(Size::Dword, Gpr::Rax, crc);
    t.asm.crc32(size_of(T::BYTES.trailing_zeros()), Gpr::Rax, data);
    let d = t.write(i.rd);
    t.asm.mov(Size::Dword, d, Gpr::Rax);
}

/// The polynomials have their bits reversed, so what comes first is lowest. A chunk of less than 64 bits is one of 64
/// with zeros first, which change nothing.
pub(crate) fn crc32<T: Chunk>(t: &mut Translator<'_>, i: &Insn) {
    if T::BYTES > 1 && !HostFeatures::get().pclmulqdq {
        t.call_handler(i);
        return;
    }
    let (crc, data) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(Size::Dword, Gpr::Rax, crc);
    if T::BYTES < 4 {
        // The bytes of the CRC that the chunk does not reach.
        t.asm.mov(Size::Dword, Gpr::Rdx, Gpr::Rax);
        t.asm.shift(Shift::Shr, Size::Dword, Gpr::Rdx, 8 * T::BYTES as u8);
    }
    if T::BYTES == 1 {
        t.asm.alu(Alu::Xor, Size::Dword, Gpr::Rax, data);
        t.asm.movzx(Gpr::Rax, Gpr::Rax, Size::Byte);
        t.asm.mov_imm64(Gpr::Rcx, std::ptr::from_ref(&crc::IEEE[0]) as u64);
        t.asm.mov(Size::Dword, Gpr::Rax, Mem::indexed(Gpr::Rcx, Gpr::Rax, Scale::By4, 0));
    } else {
        t.asm.alu(Alu::Xor, Size::Qword, Gpr::Rax, data);
        if T::BYTES < 8 {
            t.asm.shift(Shift::Shl, Size::Qword, Gpr::Rax, 64 - 8 * T::BYTES as u8);
        }
        // Barrett reduction: the quotient, and what its product with P leaves.
        t.load(T1, constants::CRC32_REDUCTION);
        t.asm.sse_movd(Size::Qword, T0, Gpr::Rax);
        t.asm.sse_imm(PCLMULQDQ, T0, T1, 0x00);
        t.asm.sse_imm(PCLMULQDQ, T0, T1, 0x10);
        t.asm.sse_extract(PEXTRD, Gpr::Rax, T0, 2);
    }
    if T::BYTES < 4 {
        t.asm.alu(Alu::Xor, Size::Dword, Gpr::Rax, Gpr::Rdx);
    }
    let d = t.write(i.rd);
    t.asm.mov(Size::Dword, d, Gpr::Rax);
}
