//! Instructions on general-purpose registers.
//!
//! The order of operands is that of the Intel manual: destination first.

use super::asm::{Asm, Op};
use super::operand::{Cond, Gpr, GprRm, Mem, Size};

/// Two-operand arithmetic, by the number in bits 5:3 of its opcodes and in group 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum Alu { Add, Or, Adc, Sbb, And, Sub, Xor, Cmp }

/// Shifts and rotations, by the number in group 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum Shift { Rol = 0, Ror = 1, Rcl = 2, Rcr = 3, Shl = 4, Shr = 5, Sar = 7 }

/// One-operand arithmetic, by the number in group 3; the last four work on RDX:RAX (AX for bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum Unary { Not = 2, Neg = 3, Mul = 4, Imul = 5, Div = 6, Idiv = 7 }

/// Bit tests, by the number in group 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum BitTest { Bt = 4, Bts = 5, Btr = 6, Btc = 7 }

const fn one_byte(opcode: u8) -> Op {
    Op::new(0, 0, opcode)
}

const fn two_byte(opcode: u8) -> Op {
    Op::new(0, 0x0f, opcode)
}

impl Asm {
    /// Appends an immediate of the size's width, at most 32 bits.
    #[inline(always)]
    fn immediate(&mut self, size: Size, imm: i32) {
        self.put(u64::from(imm as u32), immediate_bytes(size).into());
    }

    /// MOV to a register, from a register or memory.
    #[inline(always)]
    pub(crate) fn mov(&mut self, size: Size, dst: Gpr, src: impl GprRm) {
        self.sized_or_byte(size, one_byte(0x8a), dst.number(), true, src, 0);
    }

    /// MOV to memory.
    #[inline(always)]
    pub(crate) fn mov_store(&mut self, size: Size, dst: Mem, src: Gpr) {
        self.sized_or_byte(size, one_byte(0x88), src.number(), true, dst, 0);
    }

    /// MOV of a constant to memory, sign-extended from 32 bits for [`Size::Qword`].
    #[inline(always)]
    pub(crate) fn mov_store_imm(&mut self, size: Size, dst: Mem, imm: i32) {
        self.sized_or_byte(size, one_byte(0xc6), 0, false, dst, immediate_bytes(size));
        self.immediate(size, imm);
    }

    /// MOV of a constant to the whole register, in the shortest form that leaves the flags.
    #[inline(always)]
    pub(crate) fn mov_imm(&mut self, dst: Gpr, imm: u64) {
        if imm <= u64::from(u32::MAX) {
            self.opcode_register(one_byte(0xb8), dst.number());
            self.put(imm, 4);
        } else if imm == imm as i32 as u64 {
            self.legacy(one_byte(0xc7).w(true), 0, dst, 4);
            self.put(imm, 4);
        } else {
            self.mov_imm64(dst, imm);
        }
    }

    /// MOV of a constant in the 10-byte form, whose last 8 bytes are the constant, whatever it is.
    #[inline(always)]
    pub(crate) fn mov_imm64(&mut self, dst: Gpr, imm: u64) {
        self.opcode_register(one_byte(0xb8).w(true), dst.number());
        self.put(imm, 8);
    }

    /// MOVZX from the low `from` bits to the whole register; [`Size::Dword`] is MOV, [`Size::Qword`] too.
    #[inline(always)]
    pub(crate) fn movzx(&mut self, dst: Gpr, src: impl GprRm, from: Size) {
        match from {
            Size::Byte => self.byte_operands(two_byte(0xb6), dst.number(), false, src, true, 0),
            Size::Word => self.legacy(two_byte(0xb7), dst.number(), src, 0),
            Size::Dword | Size::Qword => self.mov(from, dst, src),
        }
    }

    /// MOVSX or MOVSXD from the low `from` bits to `to` (16, 32 or 64 bits).
    ///
    /// # Panics
    /// If `to` is no wider than `from`.
    #[inline(always)]
    pub(crate) fn movsx(&mut self, to: Size, dst: Gpr, src: impl GprRm, from: Size) {
        assert!(to > from, "MOVSX widens");
        match from {
            Size::Byte => {
                if to == Size::Word {
                    self.begin();
                    self.put(0x66, 1);
                }
                let op = two_byte(0xbe).w(to == Size::Qword);
                self.byte_operands(op, dst.number(), false, src, true, 0);
            }
            Size::Word => self.sized(to, two_byte(0xbf), dst.number(), src, 0),
            Size::Dword | Size::Qword => self.sized(to, one_byte(0x63), dst.number(), src, 0),
        }
    }

    /// LEA; of 32 bits it clears the upper half.
    #[inline(always)]
    pub(crate) fn lea(&mut self, size: Size, dst: Gpr, address: Mem) {
        self.sized(not_byte(size), one_byte(0x8d), dst.number(), address, 0);
    }

    /// `dst = dst op src`.
    #[inline(always)]
    pub(crate) fn alu(&mut self, op: Alu, size: Size, dst: Gpr, src: impl GprRm) {
        self.sized_or_byte(size, one_byte((op as u8) << 3 | 2), dst.number(), true, src, 0);
    }

    /// `[dst] = [dst] op src`.
    #[inline(always)]
    pub(crate) fn alu_store(&mut self, op: Alu, size: Size, dst: Mem, src: Gpr) {
        self.sized_or_byte(size, one_byte((op as u8) << 3), src.number(), true, dst, 0);
    }

    /// `dst = dst op imm`, sign-extended from 32 bits for [`Size::Qword`].
    #[inline(always)]
    pub(crate) fn alu_imm(&mut self, op: Alu, size: Size, dst: impl GprRm, imm: i32) {
        // What the operation sees of the constant: for bytes and words the bits above their width do not matter.
        let value = if size == Size::Word { i32::from(imm as i16) } else { imm };
        if size == Size::Byte || value == i32::from(value as i8) {
            self.sized_or_byte(
                size,
                one_byte(if size == Size::Byte { 0x80 } else { 0x83 }),
                op as u8,
                false,
                dst,
                1,
            );
            self.put(u64::from(imm as u8), 1);
        } else {
            self.sized(size, one_byte(0x81), op as u8, dst, immediate_bytes(size));
            self.immediate(size, imm);
        }
    }

    /// TEST: the flags of `a & b`.
    #[inline(always)]
    pub(crate) fn test(&mut self, size: Size, a: impl GprRm, b: Gpr) {
        self.sized_or_byte(size, one_byte(0x84), b.number(), true, a, 0);
    }

    /// TEST with a constant, sign-extended from 32 bits for [`Size::Qword`].
    #[inline(always)]
    pub(crate) fn test_imm(&mut self, size: Size, a: impl GprRm, imm: i32) {
        self.sized_or_byte(size, one_byte(0xf6), 0, false, a, immediate_bytes(size));
        self.immediate(size, imm);
    }

    /// One-operand arithmetic.
    #[inline(always)]
    pub(crate) fn unary(&mut self, op: Unary, size: Size, operand: impl GprRm) {
        self.sized_or_byte(size, one_byte(0xf6), op as u8, false, operand, 0);
    }

    /// INC: leaves CF.
    #[inline(always)]
    pub(crate) fn inc(&mut self, size: Size, operand: impl GprRm) {
        self.sized_or_byte(size, one_byte(0xfe), 0, false, operand, 0);
    }

    /// DEC: leaves CF.
    #[inline(always)]
    pub(crate) fn dec(&mut self, size: Size, operand: impl GprRm) {
        self.sized_or_byte(size, one_byte(0xfe), 1, false, operand, 0);
    }

    /// IMUL of two operands: `dst = dst * src`. Not for bytes.
    #[inline(always)]
    pub(crate) fn imul(&mut self, size: Size, dst: Gpr, src: impl GprRm) {
        self.sized(not_byte(size), two_byte(0xaf), dst.number(), src, 0);
    }

    /// IMUL of three operands: `dst = src * imm`. Not for bytes.
    #[inline(always)]
    pub(crate) fn imul_imm(&mut self, size: Size, dst: Gpr, src: impl GprRm, imm: i32) {
        let size = not_byte(size);
        if imm == i32::from(imm as i8) {
            self.sized(size, one_byte(0x6b), dst.number(), src, 1);
            self.put(u64::from(imm as u8), 1);
        } else {
            self.sized(size, one_byte(0x69), dst.number(), src, immediate_bytes(size));
            self.immediate(size, imm);
        }
    }

    /// CDQ or CQO: the sign of EAX or RAX in all bits of EDX or RDX. Of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn sign_to_rdx(&mut self, size: Size) {
        debug_assert!(size >= Size::Dword);
        self.plain(one_byte(0x99).w(size == Size::Qword));
    }

    /// Shift or rotation by a constant, of which the instruction takes the low 5 or, for 64 bits, 6 bits.
    #[inline(always)]
    pub(crate) fn shift(&mut self, op: Shift, size: Size, dst: impl GprRm, count: u8) {
        if count == 1 {
            self.sized_or_byte(size, one_byte(0xd0), op as u8, false, dst, 0);
        } else {
            self.sized_or_byte(size, one_byte(0xc0), op as u8, false, dst, 1);
            self.put(u64::from(count), 1);
        }
    }

    /// Shift or rotation by CL.
    #[inline(always)]
    pub(crate) fn shift_cl(&mut self, op: Shift, size: Size, dst: impl GprRm) {
        self.sized_or_byte(size, one_byte(0xd2), op as u8, false, dst, 0);
    }

    /// SHLD by a constant: `dst` shifted left, filled from the top of `fill`. Not for bytes.
    #[inline(always)]
    pub(crate) fn shld(&mut self, size: Size, dst: impl GprRm, fill: Gpr, count: u8) {
        self.sized(not_byte(size), two_byte(0xa4), fill.number(), dst, 1);
        self.put(u64::from(count), 1);
    }

    /// SHLD by CL.
    #[inline(always)]
    pub(crate) fn shld_cl(&mut self, size: Size, dst: impl GprRm, fill: Gpr) {
        self.sized(not_byte(size), two_byte(0xa5), fill.number(), dst, 0);
    }

    /// SHRD by a constant: `dst` shifted right, filled from the bottom of `fill`. Not for bytes.
    #[inline(always)]
    pub(crate) fn shrd(&mut self, size: Size, dst: impl GprRm, fill: Gpr, count: u8) {
        self.sized(not_byte(size), two_byte(0xac), fill.number(), dst, 1);
        self.put(u64::from(count), 1);
    }

    /// SHRD by CL.
    #[inline(always)]
    pub(crate) fn shrd_cl(&mut self, size: Size, dst: impl GprRm, fill: Gpr) {
        self.sized(not_byte(size), two_byte(0xad), fill.number(), dst, 0);
    }

    /// Bit test by a constant. Not for bytes.
    #[inline(always)]
    pub(crate) fn bit_test_imm(&mut self, op: BitTest, size: Size, operand: impl GprRm, bit: u8) {
        self.sized(not_byte(size), two_byte(0xba), op as u8, operand, 1);
        self.put(u64::from(bit), 1);
    }

    /// Bit test by a register, which for registers counts modulo the size. Memory, where it would reach beyond the
    /// operand, is left out on purpose.
    #[inline(always)]
    pub(crate) fn bit_test(&mut self, op: BitTest, size: Size, operand: Gpr, bit: Gpr) {
        self.sized(not_byte(size), two_byte(0x83 | (op as u8) << 3), bit.number(), operand, 0);
    }

    /// BSF; undefined for 0. Not for bytes.
    #[inline(always)]
    pub(crate) fn bsf(&mut self, size: Size, dst: Gpr, src: impl GprRm) {
        self.sized(not_byte(size), two_byte(0xbc), dst.number(), src, 0);
    }

    /// BSR; undefined for 0. Not for bytes.
    #[inline(always)]
    pub(crate) fn bsr(&mut self, size: Size, dst: Gpr, src: impl GprRm) {
        self.sized(not_byte(size), two_byte(0xbd), dst.number(), src, 0);
    }

    /// BSWAP of 32 or 64 bits.
    #[inline(always)]
    pub(crate) fn bswap(&mut self, size: Size, register: Gpr) {
        debug_assert!(size >= Size::Dword);
        self.opcode_register(two_byte(0xc8).w(size == Size::Qword), register.number());
    }

    /// SETcc of the low byte of a register, or of memory.
    #[inline(always)]
    pub(crate) fn setcc(&mut self, cond: Cond, dst: impl GprRm) {
        self.byte_operands(two_byte(0x90 | cond as u8), 0, false, dst, true, 0);
    }

    /// CMOVcc; of 32 bits it clears the upper half, whatever the condition. Not for bytes.
    #[inline(always)]
    pub(crate) fn cmovcc(&mut self, cond: Cond, size: Size, dst: Gpr, src: impl GprRm) {
        self.sized(not_byte(size), two_byte(0x40 | cond as u8), dst.number(), src, 0);
    }

    /// PUSH of a register.
    #[inline(always)]
    pub(crate) fn push(&mut self, register: Gpr) {
        self.opcode_register(one_byte(0x50), register.number());
    }

    /// PUSH of 64 bits of memory.
    #[inline(always)]
    pub(crate) fn push_mem(&mut self, src: Mem) {
        self.legacy(one_byte(0xff), 6, src, 0);
    }

    /// PUSH of a constant, sign-extended to 64 bits.
    #[inline(always)]
    pub(crate) fn push_imm(&mut self, imm: i32) {
        self.plain(one_byte(0x68));
        self.put(u64::from(imm as u32), 4);
    }

    /// POP of a register.
    #[inline(always)]
    pub(crate) fn pop(&mut self, register: Gpr) {
        self.opcode_register(one_byte(0x58), register.number());
    }

    /// POP of 64 bits of memory.
    #[inline(always)]
    pub(crate) fn pop_mem(&mut self, dst: Mem) {
        self.legacy(one_byte(0x8f), 0, dst, 0);
    }

    /// The LOCK prefix for the instruction that follows: `asm.lock().xadd(...)`.
    #[inline(always)]
    pub(crate) fn lock(&mut self) -> &mut Self {
        self.begin();
        self.put(0xf0, 1);
        self
    }

    /// XCHG; with memory it is atomic without a LOCK prefix.
    #[inline(always)]
    pub(crate) fn xchg(&mut self, size: Size, dst: impl GprRm, src: Gpr) {
        self.sized_or_byte(size, one_byte(0x86), src.number(), true, dst, 0);
    }

    /// XADD: adds `src` to `dst`, whose old value goes to `src`.
    #[inline(always)]
    pub(crate) fn xadd(&mut self, size: Size, dst: impl GprRm, src: Gpr) {
        self.sized_or_byte(size, two_byte(0xc0), src.number(), true, dst, 0);
    }

    /// CMPXCHG: if `dst` equals RAX, ZF and `dst = src`; else RAX gets `dst`.
    #[inline(always)]
    pub(crate) fn cmpxchg(&mut self, size: Size, dst: impl GprRm, src: Gpr) {
        self.sized_or_byte(size, two_byte(0xb0), src.number(), true, dst, 0);
    }

    /// CMPXCHG16B: the same with RDX:RAX and RCX:RBX. `dst` must be a multiple of 16.
    #[inline(always)]
    pub(crate) fn cmpxchg16b(&mut self, dst: Mem) {
        self.legacy(two_byte(0xc7).w(true), 1, dst, 0);
    }

    /// MFENCE.
    #[inline(always)]
    pub(crate) fn mfence(&mut self) {
        self.fence(0xf0);
    }

    /// LFENCE.
    #[inline(always)]
    pub(crate) fn lfence(&mut self) {
        self.fence(0xe8);
    }

    /// SFENCE.
    #[inline(always)]
    pub(crate) fn sfence(&mut self) {
        self.fence(0xf8);
    }

    #[inline(always)]
    fn fence(&mut self, modrm: u8) {
        self.plain(two_byte(0xae));
        self.put(u64::from(modrm), 1);
    }

    /// `lock or dword [rsp], 0`: orders as MFENCE does for ordinary memory, in less time. Changes the flags.
    #[inline(always)]
    pub(crate) fn full_barrier(&mut self) {
        self.lock().alu_imm(Alu::Or, Size::Dword, Mem::base(Gpr::Rsp, 0), 0);
    }

    /// LAHF: SF, ZF, AF, PF and CF to AH.
    #[inline(always)]
    pub(crate) fn lahf(&mut self) {
        self.plain(one_byte(0x9f));
    }

    /// SAHF: SF, ZF, AF, PF and CF from AH.
    #[inline(always)]
    pub(crate) fn sahf(&mut self) {
        self.plain(one_byte(0x9e));
    }

    /// CMC: inverts CF.
    #[inline(always)]
    pub(crate) fn cmc(&mut self) {
        self.plain(one_byte(0xf5));
    }

    /// CLC: clears CF.
    #[inline(always)]
    pub(crate) fn clc(&mut self) {
        self.plain(one_byte(0xf8));
    }

    /// STC: sets CF.
    #[inline(always)]
    pub(crate) fn stc(&mut self) {
        self.plain(one_byte(0xf9));
    }

    /// RDTSC: the time stamp counter to EDX:EAX.
    #[inline(always)]
    pub(crate) fn rdtsc(&mut self) {
        self.plain(two_byte(0x31));
    }

    /// PAUSE.
    #[inline(always)]
    pub(crate) fn pause(&mut self) {
        self.plain(Op::new(0xf3, 0, 0x90));
    }

    /// UD2, for what must not be reached.
    #[inline(always)]
    pub(crate) fn ud2(&mut self) {
        self.plain(two_byte(0x0b));
    }

    /// INT3.
    #[inline(always)]
    pub(crate) fn int3(&mut self) {
        self.plain(one_byte(0xcc));
    }
}

/// Bytes of an instruction's immediate: at most 4.
#[inline(always)]
const fn immediate_bytes(size: Size) -> u8 {
    match size {
        Size::Byte => 1,
        Size::Word => 2,
        Size::Dword | Size::Qword => 4,
    }
}

/// `size`, of instructions that have no form for bytes.
#[inline(always)]
fn not_byte(size: Size) -> Size {
    debug_assert!(size != Size::Byte);
    size
}
