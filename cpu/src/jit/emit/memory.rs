//! Loads and stores of general registers, from what the table says of each row: element, addressing, writeback.

use crate::insn::{Access as Row, Addressing, Extend, Insn};
use crate::jit::access::Moves;
use crate::jit::runtime::Access;
use crate::jit::translator::Translator;
use crate::jit::x64::{Alu, Gpr, Mem, Scale, Shift, Size};

fn size_of(row: &Row) -> Size {
    match row.bytes {
        1 => Size::Byte,
        2 => Size::Word,
        4 => Size::Dword,
        _ => Size::Qword,
    }
}

/// Puts the address of an access into RAX.
///
/// # Panics
/// For rows that are no load or store: they have other emitters.
pub(super) fn address(t: &mut Translator<'_>, i: &Insn, addressing: Addressing) {
    match addressing {
        Addressing::Literal => t.asm.mov_imm(Gpr::Rax, i.imm),
        Addressing::Offset | Addressing::Unprivileged | Addressing::Pre => {
            let base = t.base(i.rn);
            match i32::try_from(i.imm as i64) {
                Ok(0) => t.asm.mov(Size::Qword, Gpr::Rax, base),
                Ok(offset) => t.asm.lea(Size::Qword, Gpr::Rax, Mem::base(base, offset)),
                Err(_) => unreachable!("offsets have at most 16 bits"),
            }
        }
        Addressing::Post => {
            let base = t.base(i.rn);
            t.asm.mov(Size::Qword, Gpr::Rax, base);
        }
        Addressing::Reg => {
            let base = t.base(i.rn);
            let index = t.read(i.rm);
            let scale = match i.a & 7 {
                0 => Scale::By1,
                1 => Scale::By2,
                2 => Scale::By4,
                3 => Scale::By8,
                more => {
                    t.asm.mov(Size::Qword, Gpr::Rax, index);
                    t.asm.shift(Shift::Shl, Size::Qword, Gpr::Rax, more);
                    t.asm.alu(Alu::Add, Size::Qword, Gpr::Rax, base);
                    return;
                }
            };
            t.asm.lea(Size::Qword, Gpr::Rax, Mem::indexed(base, index, scale, 0));
        }
        Addressing::Uxtw | Addressing::Sxtw => {
            let base = t.base(i.rn);
            let index = t.read(i.rm);
            if addressing == Addressing::Uxtw {
                t.asm.mov(Size::Dword, Gpr::Rax, index);
            } else {
                t.asm.movsx(Size::Qword, Gpr::Rax, index, Size::Dword);
            }
            t.asm.shift(Shift::Shl, Size::Qword, Gpr::Rax, i.a & 7);
            t.asm.alu(Alu::Add, Size::Qword, Gpr::Rax, base);
        }
    }
}

/// Writes the base register back, after the access.
pub(super) fn write_back_base(t: &mut Translator<'_>, i: &Insn, addressing: Addressing) {
    if !matches!(addressing, Addressing::Pre | Addressing::Post) {
        return;
    }
    let aligned = t.sp_is_aligned && i.imm & 15 == 0;
    let base = t.read(i.rn);
    t.written(i.rn);
    // The host's flags are not of interest here: no access keeps them.
    t.asm.lea(Size::Qword, base, Mem::base(base, i.imm as i32));
    if i.rn == crate::state::SP {
        t.sp_is_aligned = aligned;
    }
}

fn describe(t: &Translator<'_>, size: Size, addressing: Addressing, ordered: bool) -> Access {
    let mut access = Access::new(size as u32, t.pc());
    if addressing == Addressing::Unprivileged {
        access = access.unprivileged();
    }
    if ordered {
        access = access.ordered();
    }
    access
}

/// LDR and its kin, LDAR, LDAPR.
pub(crate) fn load(t: &mut Translator<'_>, i: &Insn) {
    let (row, ordered) = row_of(i);
    address(t, i, row.addressing);
    let to = t.reserve(i.rd);
    let access = describe(t, size_of(&row), row.addressing, ordered);
    t.access(access, size_of(&row), Moves::Load { to, size: size_of(&row), extend: row.extend });
    // In this order the loaded value stays, where both are one register.
    write_back_base_unless(t, i, row.addressing, i.rn == i.rd);
    t.written(i.rd);
}

fn write_back_base_unless(t: &mut Translator<'_>, i: &Insn, addressing: Addressing, same: bool) {
    if !same {
        write_back_base(t, i, addressing);
    }
}

/// STR and its kin, STLR.
pub(crate) fn store(t: &mut Translator<'_>, i: &Insn) {
    let (row, ordered) = row_of(i);
    address(t, i, row.addressing);
    let from = t.read(i.rd);
    let access = describe(t, size_of(&row), row.addressing, ordered).store();
    t.access(access, size_of(&row), Moves::Store { from });
    write_back_base(t, i, row.addressing);
}

/// LDP, LDPSW, LDNP.
pub(crate) fn load_pair(t: &mut Translator<'_>, i: &Insn) {
    let (row, _) = row_of(i);
    address(t, i, row.addressing);
    let to = [t.reserve(i.rd), t.reserve(i.ra)];
    let access = describe(t, size_of(&row), row.addressing, false).pair();
    t.access(access, size_of(&row), Moves::LoadPair { to, size: size_of(&row), extend: row.extend });
    write_back_base_unless(t, i, row.addressing, i.rn == i.rd || i.rn == i.ra);
    t.written(i.rd);
    t.written(i.ra);
}

/// STP, STNP.
pub(crate) fn store_pair(t: &mut Translator<'_>, i: &Insn) {
    let (row, _) = row_of(i);
    address(t, i, row.addressing);
    let from = [t.read(i.rd), t.read(i.ra)];
    let access = describe(t, size_of(&row), row.addressing, false).pair().store();
    t.access(access, size_of(&row), Moves::StorePair { from });
    write_back_base(t, i, row.addressing);
}

/// PRFM: a hint that is not taken.
pub(crate) fn prefetch(_t: &mut Translator<'_>, _i: &Insn) {}

fn row_of(i: &Insn) -> (Row, bool) {
    let row = i.op.row().expect("an instruction of the table");
    (row.access.expect("a load or store of whole registers"), row.ordered)
}

const _: fn(Extend) = |_| ();
