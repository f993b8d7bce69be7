//! Hints, registers that are words of the state, interrupt masks, DC ZVA.
//!
//! What EL1 may forbid to EL0 is the handlers' where the context does not tell: `sys::regs` says which registers are as
//! simple as to be read or written here.

use std::mem::offset_of;

use crate::insn::Insn;
use crate::jit::access::Rare;
use crate::jit::stubs::state_at;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::{MOVUPS_STORE, PXOR};
use crate::jit::x64::{Alu, Cond, Gpr, Mem, Shift, Size, Xmm};
use crate::sizes::ZVA_BYTES;
use crate::state::{Pstate, State, SysRegs, pending};
use crate::sys::regs::{Plain, plain_to_read, plain_to_write, sctlr};

/// SP_EL0, while it is not in use.
const SP_EL0: Mem = state_at(offset_of!(State, sp_bank));

/// PSTATE without NZCV.
const PSTATE: Mem = state_at(offset_of!(State, pstate));

/// Which of what is pending is of interest.
const INTEREST: Mem = state_at(offset_of!(State, interest));

const fn register_at(offset: usize) -> Mem {
    state_at(offset_of!(State, sys) + offset)
}

/// A NOP, or what needs no more on this host.
pub(crate) fn hint(_t: &mut Translator<'_>, _i: &Insn) {}

pub(crate) fn mrs(t: &mut Translator<'_>, i: &Insn) {
    match plain_to_read(i.imm, t.el0) {
        Some(Plain::Stored { offset, .. }) => {
            let to = t.write(i.rd);
            t.asm.mov(Size::Qword, to, register_at(offset));
        }
        Some(Plain::SpEl0) => {
            let to = t.reserve(i.rd);
            let rare = rare_if_in_use(t, i);
            t.asm.mov(Size::Qword, to, SP_EL0);
            t.written(i.rd);
            t.rejoin(rare, i);
        }
        Some(Plain::Daif) => {
            let to = t.write(i.rd);
            t.asm.mov(Size::Dword, to, PSTATE);
            t.asm.alu_imm(Alu::And, Size::Dword, to, Pstate::DAIF as i32);
        }
        Some(Plain::Constant(value)) => t.set_known(i.rd, value),
        None => t.call_handler(i),
    }
}

pub(crate) fn msr(t: &mut Translator<'_>, i: &Insn) {
    match plain_to_write(i.imm, t.el0) {
        Some(Plain::Stored { offset, writable: u64::MAX }) => {
            let from = t.read(i.rn);
            t.asm.mov_store(Size::Qword, register_at(offset), from);
        }
        Some(Plain::Stored { offset, writable }) => {
            let from = t.read(i.rn);
            t.asm.mov_imm(Gpr::Rax, writable);
            t.asm.alu(Alu::And, Size::Qword, Gpr::Rax, from);
            t.asm.mov_store(Size::Qword, register_at(offset), Gpr::Rax);
        }
        Some(Plain::SpEl0) => {
            let from = t.read(i.rn);
            let rare = rare_if_in_use(t, i);
            t.asm.mov_store(Size::Qword, SP_EL0, from);
            t.rejoin(rare, i);
        }
        Some(Plain::Daif) => write_daif(t, i),
        Some(Plain::Constant(_)) | None => t.call_handler(i),
    }
}

/// Leaves the access to SP_EL0 to the handler, which refuses it, where that is the stack pointer in use.
fn rare_if_in_use(t: &mut Translator<'_>, i: &Insn) -> Rare {
    let rare = t.rare(i);
    t.asm.test_imm(Size::Byte, PSTATE, Pstate::SP as i32);
    t.asm.jcc(Cond::E, rare.entry());
    rare
}

/// MSR DAIF. The debug exception mask may decide which breakpoints match, and whether instructions are stepped: the
/// interpreter changes it.
fn write_daif(t: &mut Translator<'_>, i: &Insn) {
    let from = t.read(i.rn);
    t.asm.mov(Size::Dword, Gpr::Rax, from);
    t.asm.alu(Alu::Xor, Size::Dword, Gpr::Rax, PSTATE);
    t.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rax, Pstate::DAIF as i32);
    t.asm.test_imm(Size::Dword, Gpr::Rax, Pstate::D as i32);
    t.interpret_if(Cond::Ne);
    t.asm.alu_store(Alu::Xor, Size::Dword, PSTATE, Gpr::Rax);
    // The masks that change say which bits of interest do.
    const { assert!(pending::IRQ == 1 && pending::FIQ == 2 && Pstate::I == 1 << 7 && Pstate::F == 1 << 6) };
    t.asm.mov(Size::Dword, Gpr::Rdx, Gpr::Rax);
    t.asm.shift(Shift::Shr, Size::Dword, Gpr::Rax, 7);
    t.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rax, pending::IRQ as i32);
    t.asm.shift(Shift::Shr, Size::Dword, Gpr::Rdx, 5);
    t.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rdx, pending::FIQ as i32);
    t.asm.alu(Alu::Or, Size::Dword, Gpr::Rax, Gpr::Rdx);
    t.asm.alu_store(Alu::Xor, Size::Dword, INTEREST, Gpr::Rax);
    t.leave_to(t.end());
}

/// MSR (immediate) of DAIFSet and DAIFClr. What may be pending now is looked at by the block that follows.
pub(crate) fn msr_imm(t: &mut Translator<'_>, i: &Insn) {
    let masks = u32::from(i.b) << 6 & Pstate::DAIF;
    let clears = match i.a {
        1 => false,
        2 => true,
        _ => return t.call_handler(i),
    };
    if t.el0 || masks & Pstate::D != 0 {
        return t.call_handler(i);
    }
    let irq = if masks & Pstate::I != 0 { pending::IRQ } else { 0 };
    let fiq = if masks & Pstate::F != 0 { pending::FIQ } else { 0 };
    let (set, reset) = (masks as i32, (irq | fiq) as i32);
    if clears {
        t.asm.alu_imm(Alu::And, Size::Dword, PSTATE, !set);
        t.asm.alu_imm(Alu::Or, Size::Dword, INTEREST, reset);
    } else {
        t.asm.alu_imm(Alu::Or, Size::Dword, PSTATE, set);
        t.asm.alu_imm(Alu::And, Size::Dword, INTEREST, !reset);
    }
    t.leave_to(t.end());
}

/// What the TLB does not serve, and EL0 without SCTLR_EL1.DZE, is the handler's.
pub(crate) fn dc_zva(t: &mut Translator<'_>, i: &Insn) {
    const ZERO: Xmm = Xmm::new(0);
    let address = t.read(i.rn);
    t.asm.mov(Size::Qword, Gpr::Rax, address);
    t.asm.alu_imm(Alu::And, Size::Qword, Gpr::Rax, -(ZVA_BYTES as i32));
    let rare = t.rare(i);
    if t.el0 {
        t.asm.test_imm(Size::Dword, register_at(offset_of!(SysRegs, sctlr)), sctlr::DZE as i32);
        t.asm.jcc(Cond::E, rare.entry());
    }
    t.look_up(ZVA_BYTES as u32, true, false, rare.entry());
    t.asm.sse(PXOR, ZERO, ZERO);
    for offset in (0..ZVA_BYTES as i32).step_by(16) {
        t.asm.sse_store(MOVUPS_STORE, Mem::base(Gpr::Rax, offset), ZERO);
    }
    t.rejoin(rare, i);
}
