//! Loads and stores of general registers, from what the table says of each row: element, addressing, writeback.

use crate::insn::{Access as Row, Addressing, Extend, Insn};
use crate::jit::access::{Moves, size_of};
use crate::jit::runtime::Access;
use crate::jit::translator::Translator;
use crate::jit::x64::{Alu, Gpr, Mem, Scale, Shift, Size};
use crate::mem::Scalar;

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

/// The row's description of the present access.
fn describe(t: &Translator<'_>, row: &Row) -> Access {
    let access = Access::new(row.bytes.trailing_zeros(), t.pc());
    if row.addressing == Addressing::Unprivileged { access.unprivileged() } else { access }
}

fn row_of(i: &Insn) -> Row {
    i.op.row().and_then(|row| row.access).expect("the table has these emitters for such rows only")
}

/// LDR and its kin.
pub(crate) fn load(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let to = t.reserve(i.rd);
    let access = describe(t, &row);
    t.access(access, Moves::Load { to, size: size_of(access.log2()), extend: row.extend });
    // The loaded value stays, where both are one register.
    if i.rn != i.rd {
        write_back_base(t, i, row.addressing);
    }
    t.written(i.rd);
}

/// STR and its kin.
pub(crate) fn store(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let from = t.read(i.rd);
    let access = describe(t, &row).store();
    t.access(access, Moves::Store { from });
    write_back_base(t, i, row.addressing);
}

/// LDP, LDPSW, LDNP.
pub(crate) fn load_pair(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let to = [t.reserve(i.rd), t.reserve(i.ra)];
    let access = describe(t, &row).pair();
    t.access(access, Moves::LoadPair { to, size: size_of(access.log2()), extend: row.extend });
    if i.rn != i.rd && i.rn != i.ra {
        write_back_base(t, i, row.addressing);
    }
    t.written(i.rd);
    t.written(i.ra);
}

/// STP, STNP.
pub(crate) fn store_pair(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let from = [t.read(i.rd), t.read(i.ra)];
    let access = describe(t, &row).pair().store();
    t.access(access, Moves::StorePair { from });
    write_back_base(t, i, row.addressing);
}

/// LDR of a vector register.
pub(crate) fn vector_load(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let to = t.reserve_vector(i.rd);
    let access = describe(t, &row);
    t.access(access, Moves::LoadVector { to });
    write_back_base(t, i, row.addressing);
    t.vector_written(i.rd);
}

/// STR of a vector register.
pub(crate) fn vector_store(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let from = t.read_vector(i.rd);
    let access = describe(t, &row).store();
    t.access(access, Moves::StoreVector { from });
    write_back_base(t, i, row.addressing);
}

/// LDP and LDNP of vector registers.
pub(crate) fn vector_load_pair(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let to = [t.reserve_vector(i.rd), t.reserve_vector(i.ra)];
    let access = describe(t, &row).pair();
    t.access(access, Moves::LoadVectors { to });
    write_back_base(t, i, row.addressing);
    t.vector_written(i.rd);
    t.vector_written(i.ra);
}

/// STP and STNP of vector registers.
pub(crate) fn vector_store_pair(t: &mut Translator<'_>, i: &Insn) {
    let row = row_of(i);
    address(t, i, row.addressing);
    let from = [t.read_vector(i.rd), t.read_vector(i.ra)];
    let access = describe(t, &row).pair().store();
    t.access(access, Moves::StoreVectors { from });
    write_back_base(t, i, row.addressing);
}

/// LDAR, LDAPR.
pub(crate) fn ldar<T: Scalar>(t: &mut Translator<'_>, i: &Insn) {
    let base = t.base(i.rn);
    t.asm.mov(Size::Qword, Gpr::Rax, base);
    let to = t.reserve(i.rd);
    let access = Access::new(T::BYTES.trailing_zeros(), t.pc()).ordered();
    // On this host every load acquires.
    t.access(access, Moves::Load { to, size: size_of(access.log2()), extend: Extend::Zero });
    t.written(i.rd);
}

/// STLR.
pub(crate) fn stlr<T: Scalar>(t: &mut Translator<'_>, i: &Insn) {
    let base = t.base(i.rn);
    t.asm.mov(Size::Qword, Gpr::Rax, base);
    let from = t.read(i.rd);
    let access = Access::new(T::BYTES.trailing_zeros(), t.pc()).ordered().store();
    t.access(access, Moves::Store { from });
}

/// PRFM: a hint that is not taken.
pub(crate) fn prefetch(_t: &mut Translator<'_>, _i: &Insn) {}
