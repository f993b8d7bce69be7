//! Branches. They write the registers back first: MOV changes no flags.

use super::size;
use crate::exec::width::Width;
use crate::insn::Insn;
use crate::jit::translator::Translator;
use crate::jit::x64::{BitTest, Cond, Gpr, Size};

pub(crate) fn b(t: &mut Translator<'_>, i: &Insn) {
    t.leave_to(i.imm);
}

pub(crate) fn bl(t: &mut Translator<'_>, i: &Insn) {
    let next = t.pc().wrapping_add(4);
    t.set_known(i.rd, next);
    t.leave_to(i.imm);
}

pub(crate) fn b_cond<const COND: u8>(t: &mut Translator<'_>, i: &Insn) {
    t.write_back();
    if COND >= 14 {
        t.leave_to(i.imm);
        return;
    }
    let cond = t.condition(COND);
    t.leave_if(cond, i.imm);
}

pub(crate) fn cbz<T: Width, const NOT: bool>(t: &mut Translator<'_>, i: &Insn) {
    let value = t.read(i.rn);
    t.write_back();
    t.asm.test(size::<T>(), value, value);
    t.leave_if(if NOT { Cond::Ne } else { Cond::E }, i.imm);
}

pub(crate) fn tbz<const SET: bool>(t: &mut Translator<'_>, i: &Insn) {
    let value = t.read(i.rn);
    t.write_back();
    t.asm.bit_test_imm(BitTest::Bt, Size::Qword, value, i.a & 63);
    t.leave_if(if SET { Cond::B } else { Cond::Ae }, i.imm);
}

pub(crate) fn br(t: &mut Translator<'_>, i: &Insn) {
    let target = t.read(i.rn);
    t.asm.mov(Size::Qword, Gpr::Rax, target);
    t.write_back();
    t.leave_to_rax();
}

pub(crate) fn blr(t: &mut Translator<'_>, i: &Insn) {
    let target = t.read(i.rn);
    t.asm.mov(Size::Qword, Gpr::Rax, target);
    t.set_known(i.rd, i.imm);
    t.write_back();
    t.leave_to_rax();
}
