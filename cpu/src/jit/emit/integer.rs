//! Data processing on general registers. The handlers in `exec::integer` say what each instruction does.

pub(crate) use super::crc::{crc32, crc32c};
use super::size;
use crate::exec::width::{Logic, LogicKind, Otherwise, OtherwiseKind, Shift, ShiftKind, Width};
use crate::insn::Insn;
use crate::jit::flags::{self, HostFlags, Kept};
use crate::jit::translator::Translator;
use crate::jit::x64::bmi::LZCNT;
use crate::jit::x64::{self, Alu, Cond, Gpr, HostFeatures, Mem, Scale, Size, Unary};
use crate::state::{SP, ZERO};

/// The second operand of an operation.
#[derive(Clone, Copy, Debug)]
enum Operand {
    Register(Gpr),
    Constant(u64),
}

/// The register as an operand: a constant if its value is known and short.
fn operand<T: Width>(t: &mut Translator<'_>, n: u8) -> Operand {
    match t.known(n).map(|value| T::cut(value).wide()) {
        Some(value) if short::<T>(value).is_some() => Operand::Constant(value),
        _ => Operand::Register(t.read(n)),
    }
}

/// A constant as an instruction can hold it.
fn short<T: Width>(value: u64) -> Option<i32> {
    if T::BITS == 32 { Some(value as u32 as i32) } else { i32::try_from(value as i64).ok() }
}

/// `host = host op b`.
fn apply<T: Width>(t: &mut Translator<'_>, op: Alu, host: Gpr, b: Operand) {
    match b {
        Operand::Register(b) => t.asm.alu(op, size::<T>(), host, b),
        Operand::Constant(value) => match short::<T>(value) {
            Some(imm) => t.asm.alu_imm(op, size::<T>(), host, imm),
            None => {
                t.asm.mov_imm(Gpr::Rdx, value);
                t.asm.alu(op, size::<T>(), host, Gpr::Rdx);
            }
        },
    }
}

/// Moves `a` to `to`, as a value of the instruction's width.
fn copy<T: Width>(t: &mut Translator<'_>, to: Gpr, a: Gpr) {
    if to != a || T::BITS == 32 {
        t.asm.mov(size::<T>(), to, a);
    }
}

/// `rd = rn op b`, with the flags if `form` is given.
fn arithmetic<T: Width>(t: &mut Translator<'_>, i: &Insn, op: Alu, b: Operand, form: Option<HostFlags>) {
    let a = t.read(i.rn);
    let commutes = op != Alu::Sub;
    // The result may go where `b` is: then it is made in scratch, or the other way round.
    let clash = |to: Gpr| matches!(b, Operand::Register(b) if b == to);
    let to = t.write(i.rd);
    if clash(to) && a != to {
        if commutes {
            t.asm.alu(op, size::<T>(), to, a);
        } else {
            t.asm.mov(size::<T>(), Gpr::Rax, a);
            apply::<T>(t, op, Gpr::Rax, b);
            t.asm.mov(size::<T>(), to, Gpr::Rax);
        }
    } else {
        if to != a {
            t.asm.mov(size::<T>(), to, a);
        }
        apply::<T>(t, op, to, b);
    }
    if let Some(form) = form {
        t.flags_set(form, size::<T>(), to);
    }
}

pub(crate) fn add_imm<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    if let Some(value) = t.known(i.rn) {
        t.set_known(i.rd, T::cut(value.wrapping_add(i.imm)).wide());
        return;
    }
    let aligned = t.sp_is_aligned && i.rn == SP && i.imm & 15 == 0 && T::BITS == 64;
    match i32::try_from(T::cut(i.imm).wide() as i64).or_else(|_| i32::try_from(i.imm as i64)) {
        Ok(imm) => {
            let a = t.read(i.rn);
            let to = t.write(i.rd);
            if imm == 0 {
                copy::<T>(t, to, a);
            } else {
                t.asm.lea(size::<T>(), to, Mem::base(a, imm));
            }
        }
        Err(_) => arithmetic::<T>(t, i, Alu::Add, Operand::Constant(i.imm), None),
    }
    if i.rd == SP {
        t.sp_is_aligned = aligned;
    }
}

pub(crate) fn adds_imm<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    arithmetic::<T>(t, i, Alu::Add, Operand::Constant(i.imm), Some(HostFlags::Carry));
}

pub(crate) fn subs_imm<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    compare_or_subtract::<T>(t, i, Operand::Constant(i.imm));
}

/// SUBS; with no destination, and nobody who reads flags from memory, a comparison.
fn compare_or_subtract<T: Width>(t: &mut Translator<'_>, i: &Insn, b: Operand) {
    if i.rd == crate::state::DISCARD && t.needs_no_result() {
        let a = t.read(i.rn);
        apply::<T>(t, Alu::Cmp, a, b);
        t.flags_compared_to(HostFlags::Borrow);
        return;
    }
    arithmetic::<T>(t, i, Alu::Sub, b, Some(HostFlags::Borrow));
}

pub(crate) fn add_reg<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let b = operand::<T>(t, i.rm);
    if let (Operand::Register(b), true) = (b, i.rn != i.rd && i.rm != i.rd) {
        let a = t.read(i.rn);
        let to = t.write(i.rd);
        t.asm.lea(size::<T>(), to, Mem::indexed(a, b, Scale::By1, 0));
        return;
    }
    arithmetic::<T>(t, i, Alu::Add, b, None);
}

pub(crate) fn sub_reg<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    if i.rn == ZERO {
        // NEG.
        let b = t.read(i.rm);
        let to = t.write(i.rd);
        copy::<T>(t, to, b);
        t.asm.unary(Unary::Neg, size::<T>(), to);
        return;
    }
    let b = operand::<T>(t, i.rm);
    arithmetic::<T>(t, i, Alu::Sub, b, None);
}

pub(crate) fn adds_reg<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let b = operand::<T>(t, i.rm);
    arithmetic::<T>(t, i, Alu::Add, b, Some(HostFlags::Carry));
}

pub(crate) fn subs_reg<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let b = operand::<T>(t, i.rm);
    compare_or_subtract::<T>(t, i, b);
}

/// Shifts a host register by a constant below the width.
fn shift_by<T: Width>(t: &mut Translator<'_>, host: Gpr, kind: ShiftKind, amount: u8) {
    let op = match kind {
        ShiftKind::Lsl => x64::Shift::Shl,
        ShiftKind::Lsr => x64::Shift::Shr,
        ShiftKind::Asr => x64::Shift::Sar,
        ShiftKind::Ror => x64::Shift::Ror,
    };
    t.asm.shift(op, size::<T>(), host, amount);
}

/// The shifted register operand, in RDX.
fn shifted<T: Width, S: Shift>(t: &mut Translator<'_>, i: &Insn) -> Operand {
    let b = t.read(i.rm);
    t.asm.mov(size::<T>(), Gpr::Rdx, b);
    shift_by::<T>(t, Gpr::Rdx, S::KIND, i.a);
    Operand::Register(Gpr::Rdx)
}

pub(crate) fn add_shifted<T: Width, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    if S::KIND == ShiftKind::Lsl && (1..=3).contains(&i.a) && i.rn != ZERO {
        let scale = [Scale::By1, Scale::By2, Scale::By4, Scale::By8][usize::from(i.a)];
        let (a, b) = (t.read(i.rn), t.read(i.rm));
        let to = t.write(i.rd);
        t.asm.lea(size::<T>(), to, Mem::indexed(a, b, scale, 0));
        return;
    }
    let b = shifted::<T, S>(t, i);
    arithmetic::<T>(t, i, Alu::Add, b, None);
}

pub(crate) fn sub_shifted<T: Width, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    let b = shifted::<T, S>(t, i);
    arithmetic::<T>(t, i, Alu::Sub, b, None);
}

pub(crate) fn adds_shifted<T: Width, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    let b = shifted::<T, S>(t, i);
    arithmetic::<T>(t, i, Alu::Add, b, Some(HostFlags::Carry));
}

pub(crate) fn subs_shifted<T: Width, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    let b = shifted::<T, S>(t, i);
    compare_or_subtract::<T>(t, i, b);
}

/// The extended register operand, in RDX.
fn extended<T: Width, const SIGNED: bool>(t: &mut Translator<'_>, i: &Insn) -> Operand {
    let b = t.read(i.rm);
    let from = match i.a {
        56 => Size::Byte,
        48 => Size::Word,
        32 => Size::Dword,
        _ => Size::Qword,
    };
    match (from, SIGNED) {
        (Size::Qword, _) => t.asm.mov(Size::Qword, Gpr::Rdx, b),
        (Size::Dword, false) => t.asm.mov(Size::Dword, Gpr::Rdx, b),
        (_, false) => t.asm.movzx(Gpr::Rdx, b, from),
        (_, true) => t.asm.movsx(Size::Qword, Gpr::Rdx, b, from),
    }
    if i.b != 0 {
        t.asm.shift(x64::Shift::Shl, Size::Qword, Gpr::Rdx, i.b);
    }
    Operand::Register(Gpr::Rdx)
}

pub(crate) fn add_extended<T: Width, const SIGNED: bool>(t: &mut Translator<'_>, i: &Insn) {
    let b = extended::<T, SIGNED>(t, i);
    arithmetic::<T>(t, i, Alu::Add, b, None);
}

pub(crate) fn sub_extended<T: Width, const SIGNED: bool>(t: &mut Translator<'_>, i: &Insn) {
    let b = extended::<T, SIGNED>(t, i);
    arithmetic::<T>(t, i, Alu::Sub, b, None);
}

pub(crate) fn adds_extended<T: Width, const SIGNED: bool>(t: &mut Translator<'_>, i: &Insn) {
    let b = extended::<T, SIGNED>(t, i);
    arithmetic::<T>(t, i, Alu::Add, b, Some(HostFlags::Carry));
}

pub(crate) fn subs_extended<T: Width, const SIGNED: bool>(t: &mut Translator<'_>, i: &Insn) {
    let b = extended::<T, SIGNED>(t, i);
    compare_or_subtract::<T>(t, i, b);
}

/// ADC and SBC into RAX, with the host's flags. The host subtracts with a borrow, the guest with a carry.
fn with_carry<T: Width, const SUB: bool>(t: &mut Translator<'_>, i: &Insn) {
    let (a, b) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    // CF from the guest's C, whose only byte that is not zero is its first: 0 is below 1.
    t.asm.alu_imm(Alu::Cmp, Size::Byte, flags::C, 1);
    if SUB {
        t.asm.alu(Alu::Sbb, size::<T>(), Gpr::Rax, b);
    } else {
        t.asm.cmc();
        t.asm.alu(Alu::Adc, size::<T>(), Gpr::Rax, b);
    }
}

pub(crate) fn adc<T: Width, const SUB: bool>(t: &mut Translator<'_>, i: &Insn) {
    with_carry::<T, SUB>(t, i);
    let to = t.write(i.rd);
    t.asm.mov(size::<T>(), to, Gpr::Rax);
    t.host_flags = HostFlags::Unknown;
}

pub(crate) fn adcs<T: Width, const SUB: bool>(t: &mut Translator<'_>, i: &Insn) {
    with_carry::<T, SUB>(t, i);
    let to = t.write(i.rd);
    t.asm.mov(size::<T>(), to, Gpr::Rax);
    t.flags_set(if SUB { HostFlags::Borrow } else { HostFlags::Carry }, size::<T>(), to);
}

/// `rd = rn op b`, bitwise.
fn bitwise<T: Width>(t: &mut Translator<'_>, i: &Insn, kind: LogicKind, b: Operand, flags: bool) {
    let (op, inverted) = match kind {
        LogicKind::And => (Alu::And, false),
        LogicKind::Bic => (Alu::And, true),
        LogicKind::Orr => (Alu::Or, false),
        LogicKind::Orn => (Alu::Or, true),
        LogicKind::Eor => (Alu::Xor, false),
        LogicKind::Eon => (Alu::Xor, true),
    };
    let b = match b {
        Operand::Constant(value) if inverted => Operand::Constant(T::cut(value).not().wide()),
        Operand::Register(b) if inverted => {
            if b != Gpr::Rdx {
                t.asm.mov(size::<T>(), Gpr::Rdx, b);
            }
            t.asm.unary(Unary::Not, size::<T>(), Gpr::Rdx);
            Operand::Register(Gpr::Rdx)
        }
        b => b,
    };
    if flags && i.rd == crate::state::DISCARD && t.needs_no_result() {
        let a = t.read(i.rn);
        match b {
            Operand::Register(b) => t.asm.test(size::<T>(), a, b),
            Operand::Constant(value) => match short::<T>(value) {
                Some(imm) => t.asm.test_imm(size::<T>(), a, imm),
                None => {
                    t.asm.mov_imm(Gpr::Rdx, value);
                    t.asm.test(size::<T>(), a, Gpr::Rdx);
                }
            },
        }
        t.flags_compared_to(HostFlags::Carry);
        return;
    }
    arithmetic::<T>(t, i, op, b, flags.then_some(HostFlags::Carry));
}

pub(crate) fn logic_imm<T: Width, L: Logic>(t: &mut Translator<'_>, i: &Insn) {
    if let Some(value) = t.known(i.rn) {
        t.set_known(i.rd, L::apply(T::cut(value), T::cut(i.imm)).wide());
        return;
    }
    bitwise::<T>(t, i, L::KIND, Operand::Constant(T::cut(i.imm).wide()), false);
}

pub(crate) fn ands_imm<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    bitwise::<T>(t, i, LogicKind::And, Operand::Constant(T::cut(i.imm).wide()), true);
}

pub(crate) fn logic_reg<T: Width, L: Logic>(t: &mut Translator<'_>, i: &Insn) {
    if i.rn == ZERO && L::KIND == LogicKind::Orr {
        // MOV.
        match t.known(i.rm) {
            Some(value) => t.set_known(i.rd, T::cut(value).wide()),
            None => {
                let b = t.read(i.rm);
                let to = t.write(i.rd);
                copy::<T>(t, to, b);
            }
        }
        return;
    }
    if i.rn == ZERO && L::KIND == LogicKind::Orn {
        // MVN.
        let b = t.read(i.rm);
        let to = t.write(i.rd);
        copy::<T>(t, to, b);
        t.asm.unary(Unary::Not, size::<T>(), to);
        return;
    }
    let b = operand::<T>(t, i.rm);
    bitwise::<T>(t, i, L::KIND, b, false);
}

pub(crate) fn logics_reg<T: Width, L: Logic>(t: &mut Translator<'_>, i: &Insn) {
    let b = operand::<T>(t, i.rm);
    bitwise::<T>(t, i, L::KIND, b, true);
}

pub(crate) fn logic_shifted<T: Width, L: Logic, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    let b = shifted::<T, S>(t, i);
    bitwise::<T>(t, i, L::KIND, b, false);
}

pub(crate) fn logics_shifted<T: Width, L: Logic, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    let b = shifted::<T, S>(t, i);
    bitwise::<T>(t, i, L::KIND, b, true);
}

pub(crate) fn mov_imm(t: &mut Translator<'_>, i: &Insn) {
    t.set_known(i.rd, i.imm);
}

pub(crate) fn movk_32(t: &mut Translator<'_>, i: &Insn) {
    movk::<u32>(t, i, 0xffff << (i.a & 31));
}

pub(crate) fn movk_64(t: &mut Translator<'_>, i: &Insn) {
    movk::<u64>(t, i, 0xffff << (i.a & 63));
}

fn movk<T: Width>(t: &mut Translator<'_>, i: &Insn, mask: u64) {
    if let Some(value) = t.known(i.rn) {
        t.set_known(i.rd, T::cut(value & !mask | i.imm).wide());
        return;
    }
    let a = t.read(i.rn);
    let to = t.write(i.rd);
    copy::<T>(t, to, a);
    for (op, value) in [(Alu::And, T::cut(!mask).wide()), (Alu::Or, T::cut(i.imm).wide())] {
        apply::<T>(t, op, to, Operand::Constant(value));
    }
}

/// Two shifts: left by `a`, right by `b`.
fn bitfield<T: Width>(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let a = t.read(i.rn);
    let to = t.write(i.rd);
    let width = T::BITS as u8;
    let field = width - i.a;
    // Fields at the bottom, and whole registers that are only shifted, take one instruction.
    if i.a == i.b {
        match (field, signed) {
            (8, false) => return t.asm.movzx(to, a, Size::Byte),
            (16, false) => return t.asm.movzx(to, a, Size::Word),
            (32, false) => return t.asm.mov(Size::Dword, to, a),
            (8, true) => return t.asm.movsx(size::<T>(), to, a, Size::Byte),
            (16, true) => return t.asm.movsx(size::<T>(), to, a, Size::Word),
            (32, true) if width == 64 => return t.asm.movsx(size::<T>(), to, a, Size::Dword),
            _ => {}
        }
    }
    copy::<T>(t, to, a);
    if i.a != 0 {
        shift_by::<T>(t, to, ShiftKind::Lsl, i.a);
    }
    if i.b != 0 {
        shift_by::<T>(t, to, if signed { ShiftKind::Asr } else { ShiftKind::Lsr }, i.b);
    }
}

pub(crate) fn sbfm_32(t: &mut Translator<'_>, i: &Insn) {
    bitfield::<u32>(t, i, true);
}

pub(crate) fn ubfm_32(t: &mut Translator<'_>, i: &Insn) {
    bitfield::<u32>(t, i, false);
}

pub(crate) fn sbfm_64(t: &mut Translator<'_>, i: &Insn) {
    bitfield::<u64>(t, i, true);
}

pub(crate) fn ubfm_64(t: &mut Translator<'_>, i: &Insn) {
    bitfield::<u64>(t, i, false);
}

/// BFM: the rotated source under the mask, the old value elsewhere.
fn insert<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let mask = T::cut(i.imm);
    let (a, old) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    if i.a != 0 {
        shift_by::<T>(t, Gpr::Rax, ShiftKind::Ror, i.a);
    }
    apply::<T>(t, Alu::And, Gpr::Rax, Operand::Constant(mask.wide()));
    let to = t.write(i.rd);
    copy::<T>(t, to, old);
    apply::<T>(t, Alu::And, to, Operand::Constant(mask.not().wide()));
    t.asm.alu(Alu::Or, size::<T>(), to, Gpr::Rax);
}

pub(crate) fn bfm_32(t: &mut Translator<'_>, i: &Insn) {
    insert::<u32>(t, i);
}

pub(crate) fn bfm_64(t: &mut Translator<'_>, i: &Insn) {
    insert::<u64>(t, i);
}

/// EXTR: the low half of a double-width value, shifted right. ROR is the case of equal registers.
fn extract<T: Width>(t: &mut Translator<'_>, i: &Insn, amount: u8) {
    let (high, low) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(size::<T>(), Gpr::Rax, low);
    if amount != 0 {
        if i.rn == i.rm {
            shift_by::<T>(t, Gpr::Rax, ShiftKind::Ror, amount);
        } else {
            t.asm.shrd(size::<T>(), Gpr::Rax, high, amount);
        }
    }
    let to = t.write(i.rd);
    t.asm.mov(size::<T>(), to, Gpr::Rax);
}

pub(crate) fn extr_32(t: &mut Translator<'_>, i: &Insn) {
    extract::<u32>(t, i, i.a & 31);
}

pub(crate) fn extr_64(t: &mut Translator<'_>, i: &Insn) {
    extract::<u64>(t, i, i.a & 63);
}

/// CSEL and its kin. Nothing here changes the host's flags after they have been made.
pub(crate) fn csel<T: Width, O: Otherwise>(t: &mut Translator<'_>, i: &Insn) {
    let (yes, no) = (t.read(i.rn), t.read(i.rm));
    let to = t.write(i.rd);
    if i.a >= 14 {
        copy::<T>(t, to, yes);
        return;
    }
    let cond = t.condition(i.a);
    // NOT and LEA change no flags.
    t.asm.mov(size::<T>(), Gpr::Rdx, no);
    match O::KIND {
        OtherwiseKind::Same => {}
        OtherwiseKind::Inc => t.asm.lea(size::<T>(), Gpr::Rdx, Mem::base(Gpr::Rdx, 1)),
        OtherwiseKind::Inv => t.asm.unary(Unary::Not, size::<T>(), Gpr::Rdx),
        OtherwiseKind::Neg => {
            t.asm.unary(Unary::Not, size::<T>(), Gpr::Rdx);
            t.asm.lea(size::<T>(), Gpr::Rdx, Mem::base(Gpr::Rdx, 1));
        }
    }
    t.asm.cmovcc(cond, size::<T>(), Gpr::Rdx, yes);
    t.asm.mov(size::<T>(), to, Gpr::Rdx);
}

/// CCMP and CCMN: the flags of the comparison, or the given ones. Both ways leave them in the host's, in the same form; hosts
/// that cannot be given flags have them in memory only.
fn conditional_compare<T: Width>(t: &mut Translator<'_>, i: &Insn, b: Operand, form: HostFlags) {
    let a = t.read(i.rn);
    let done = t.asm.label();
    let given = t.asm.label();
    if i.a < 14 {
        let cond = t.condition(i.a);
        t.asm.jcc(cond.not(), given);
    }
    let in_host = HostFlags::can_be_packed();
    let kept = if in_host { t.kept_flags() } else { Kept::Whole };
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    apply::<T>(t, if form == HostFlags::Borrow { Alu::Sub } else { Alu::Add }, Gpr::Rax, b);
    if kept == Kept::Whole {
        t.may_have_shown = true;
        t.store_flags(form, size::<T>(), Gpr::Rax);
    }
    t.asm.jmp(done);
    t.asm.bind(given);
    if kept == Kept::Whole {
        t.store_given_flags(i.b);
    }
    if in_host {
        t.set_host_flags(form, i.b);
    }
    t.asm.bind(done);
    if kept == Kept::Shown {
        t.pack_flags(form);
    }
    t.memory_is_old = kept != Kept::Whole;
    t.host_flags = if in_host { form } else { HostFlags::Unknown };
}

pub(crate) fn ccmn_reg<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let b = Operand::Register(t.read(i.rm));
    conditional_compare::<T>(t, i, b, HostFlags::Carry);
}

pub(crate) fn ccmp_reg<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let b = Operand::Register(t.read(i.rm));
    conditional_compare::<T>(t, i, b, HostFlags::Borrow);
}

pub(crate) fn ccmn_imm<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    conditional_compare::<T>(t, i, Operand::Constant(i.imm), HostFlags::Carry);
}

pub(crate) fn ccmp_imm<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    conditional_compare::<T>(t, i, Operand::Constant(i.imm), HostFlags::Borrow);
}

/// Division: 0 for a divisor of 0; the one signed overflow wraps.
fn divide<T: Width>(t: &mut Translator<'_>, i: &Insn, signed: bool) {
    let (a, b) = (t.read(i.rn), t.read(i.rm));
    let (done, by_zero) = (t.asm.label(), t.asm.label());
    t.asm.mov(size::<T>(), Gpr::Rcx, b);
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    t.asm.test(size::<T>(), Gpr::Rcx, Gpr::Rcx);
    t.asm.jcc(Cond::E, by_zero);
    if signed {
        // The host raises an exception for the overflow, which only a divisor of -1 can make: negate instead.
        let divide = t.asm.label();
        t.asm.alu_imm(Alu::Cmp, size::<T>(), Gpr::Rcx, -1);
        t.asm.jcc(Cond::Ne, divide);
        t.asm.unary(Unary::Neg, size::<T>(), Gpr::Rax);
        t.asm.jmp(done);
        t.asm.bind(divide);
        t.asm.sign_to_rdx(size::<T>());
        t.asm.unary(Unary::Idiv, size::<T>(), Gpr::Rcx);
    } else {
        t.asm.mov_imm(Gpr::Rdx, 0);
        t.asm.unary(Unary::Div, size::<T>(), Gpr::Rcx);
    }
    t.asm.jmp(done);
    t.asm.bind(by_zero);
    t.asm.mov_imm(Gpr::Rax, 0);
    t.asm.bind(done);
    let to = t.write(i.rd);
    t.asm.mov(size::<T>(), to, Gpr::Rax);
}

pub(crate) fn udiv<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    divide::<T>(t, i, false);
}

pub(crate) fn sdiv<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    divide::<T>(t, i, true);
}

/// Shifts by a register: modulo the width, as the host's are.
pub(crate) fn shift_reg<T: Width, S: Shift>(t: &mut Translator<'_>, i: &Insn) {
    let (a, amount) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(Size::Dword, Gpr::Rcx, amount);
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    let op = match S::KIND {
        ShiftKind::Lsl => x64::Shift::Shl,
        ShiftKind::Lsr => x64::Shift::Shr,
        ShiftKind::Asr => x64::Shift::Sar,
        ShiftKind::Ror => x64::Shift::Ror,
    };
    t.asm.shift_cl(op, size::<T>(), Gpr::Rax);
    let to = t.write(i.rd);
    // A shift by 0 does not clear the upper half.
    t.asm.mov(size::<T>(), to, Gpr::Rax);
}

pub(crate) fn rev<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read(i.rn);
    let to = t.write(i.rd);
    copy::<T>(t, to, a);
    t.asm.bswap(size::<T>(), to);
}

pub(crate) fn rev32_64(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read(i.rn);
    let to = t.write(i.rd);
    copy::<u64>(t, to, a);
    t.asm.bswap(Size::Qword, to);
    t.asm.shift(x64::Shift::Ror, Size::Qword, to, 32);
}

/// Exchanges neighbouring groups of bits.
fn exchange<T: Width>(t: &mut Translator<'_>, host: Gpr, mask: u64, bits: u8) {
    // host = (host >> bits & mask) | (host & mask) << bits
    t.asm.mov(size::<T>(), Gpr::Rax, host);
    t.asm.shift(x64::Shift::Shr, size::<T>(), Gpr::Rax, bits);
    apply::<T>(t, Alu::And, Gpr::Rax, Operand::Constant(T::cut(mask).wide()));
    apply::<T>(t, Alu::And, host, Operand::Constant(T::cut(mask).wide()));
    t.asm.shift(x64::Shift::Shl, size::<T>(), host, bits);
    t.asm.alu(Alu::Or, size::<T>(), host, Gpr::Rax);
}

pub(crate) fn rev16<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read(i.rn);
    let to = t.write(i.rd);
    copy::<T>(t, to, a);
    exchange::<T>(t, to, 0x00ff_00ff_00ff_00ff, 8);
}

pub(crate) fn rbit<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read(i.rn);
    let to = t.write(i.rd);
    copy::<T>(t, to, a);
    t.asm.bswap(size::<T>(), to);
    exchange::<T>(t, to, 0x0f0f_0f0f_0f0f_0f0f, 4);
    exchange::<T>(t, to, 0x3333_3333_3333_3333, 2);
    exchange::<T>(t, to, 0x5555_5555_5555_5555, 1);
}

/// Counts the leading zeros of RAX into RAX.
fn leading_zeros<T: Width>(t: &mut Translator<'_>) {
    if HostFeatures::get().lzcnt {
        t.asm.count(LZCNT, size::<T>(), Gpr::Rax, Gpr::Rax);
        return;
    }
    // BSR leaves its destination open for 0: an index that makes the width come out.
    t.asm.mov_imm(Gpr::Rdx, u64::from(2 * T::BITS - 1));
    t.asm.bsr(size::<T>(), Gpr::Rax, Gpr::Rax);
    t.asm.cmovcc(Cond::E, Size::Dword, Gpr::Rax, Gpr::Rdx);
    t.asm.alu_imm(Alu::Xor, Size::Dword, Gpr::Rax, T::BITS as i32 - 1);
}

pub(crate) fn clz<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read(i.rn);
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    leading_zeros::<T>(t);
    let to = t.write(i.rd);
    t.asm.mov(Size::Dword, to, Gpr::Rax);
}

pub(crate) fn cls<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    let a = t.read(i.rn);
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    t.asm.mov(size::<T>(), Gpr::Rdx, a);
    t.asm.shift(x64::Shift::Sar, size::<T>(), Gpr::Rdx, T::BITS as u8 - 1);
    t.asm.alu(Alu::Xor, size::<T>(), Gpr::Rax, Gpr::Rdx);
    leading_zeros::<T>(t);
    let to = t.write(i.rd);
    t.asm.lea(Size::Dword, to, Mem::base(Gpr::Rax, -1));
}

/// MADD and MSUB; with the zero register a product, or its negation.
fn multiply_add<T: Width>(t: &mut Translator<'_>, i: &Insn, subtract: bool) {
    let (a, b) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(size::<T>(), Gpr::Rax, a);
    t.asm.imul(size::<T>(), Gpr::Rax, b);
    finish_product(t, i, size::<T>(), subtract);
}

/// Adds RAX to the third operand, or subtracts it.
fn finish_product(t: &mut Translator<'_>, i: &Insn, size: Size, subtract: bool) {
    if i.ra != ZERO {
        let c = t.read(i.ra);
        if subtract {
            t.asm.unary(Unary::Neg, size, Gpr::Rax);
        }
        t.asm.alu(Alu::Add, size, Gpr::Rax, c);
    } else if subtract {
        t.asm.unary(Unary::Neg, size, Gpr::Rax);
    }
    let to = t.write(i.rd);
    t.asm.mov(size, to, Gpr::Rax);
}

pub(crate) fn madd<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    multiply_add::<T>(t, i, false);
}

pub(crate) fn msub<T: Width>(t: &mut Translator<'_>, i: &Insn) {
    multiply_add::<T>(t, i, true);
}

/// The product of the low halves, in 64 bits.
fn long_product(t: &mut Translator<'_>, i: &Insn, signed: bool, subtract: bool) {
    let (a, b) = (t.read(i.rn), t.read(i.rm));
    if signed {
        t.asm.movsx(Size::Qword, Gpr::Rax, a, Size::Dword);
        t.asm.movsx(Size::Qword, Gpr::Rdx, b, Size::Dword);
    } else {
        t.asm.mov(Size::Dword, Gpr::Rax, a);
        t.asm.mov(Size::Dword, Gpr::Rdx, b);
    }
    t.asm.imul(Size::Qword, Gpr::Rax, Gpr::Rdx);
    finish_product(t, i, Size::Qword, subtract);
}

pub(crate) fn smaddl(t: &mut Translator<'_>, i: &Insn) {
    long_product(t, i, true, false);
}

pub(crate) fn smsubl(t: &mut Translator<'_>, i: &Insn) {
    long_product(t, i, true, true);
}

pub(crate) fn umaddl(t: &mut Translator<'_>, i: &Insn) {
    long_product(t, i, false, false);
}

pub(crate) fn umsubl(t: &mut Translator<'_>, i: &Insn) {
    long_product(t, i, false, true);
}

fn high_product(t: &mut Translator<'_>, i: &Insn, op: Unary) {
    let (a, b) = (t.read(i.rn), t.read(i.rm));
    t.asm.mov(Size::Qword, Gpr::Rax, a);
    t.asm.unary(op, Size::Qword, b);
    let to = t.write(i.rd);
    t.asm.mov(Size::Qword, to, Gpr::Rdx);
}

pub(crate) fn smulh(t: &mut Translator<'_>, i: &Insn) {
    high_product(t, i, Unary::Imul);
}

pub(crate) fn umulh(t: &mut Translator<'_>, i: &Insn) {
    high_product(t, i, Unary::Mul);
}
