//! Barriers of memory accesses, and CLREX.

use std::mem::offset_of;

use crate::Cpu;
use crate::insn::Insn;
use crate::jit::stubs::cpu_at;
use crate::jit::translator::Translator;
use crate::jit::x64::{Alu, Cond, Size};
use crate::mem::Monitor;

pub(crate) fn clrex(t: &mut Translator<'_>, _i: &Insn) {
    let bytes = offset_of!(Cpu, mem.monitor) + offset_of!(Monitor, bytes);
    t.asm.mov_store_imm(Size::Qword, cpu_at(bytes), 0);
}

/// DSB: a fence, and the handler if other vCPUs have been asked for something that they may not have done yet.
pub(crate) fn dsb(t: &mut Translator<'_>, i: &Insn) {
    let rare = t.rare(i);
    t.asm.full_barrier();
    t.asm.alu_imm(Alu::Cmp, Size::Byte, cpu_at(Cpu::OUTSTANDING), 0);
    t.asm.jcc(Cond::Ne, rare.entry());
    t.rejoin(rare, i);
}

pub(crate) fn dmb_full(t: &mut Translator<'_>, _i: &Insn) {
    t.asm.full_barrier();
}

/// DMB of loads or of stores: this host orders loads with all that follows, and stores with stores.
pub(crate) fn dmb_partial(_t: &mut Translator<'_>, _i: &Insn) {}
