//! Condition flags: which must be kept, and how conditions are tested.
//!
//! An instruction that sets flags leaves them in the host's flags; the ones right behind it that read flags take them from
//! there. In [`State`] they are stored only if somebody may read them later. Between blocks they are always in memory, in
//! the interpreter's form; a result that is certainly overwritten before it is read is not stored, also across an
//! instruction that may fault: only a debugger could tell.

use std::mem::offset_of;

use super::stubs::state_at;
use super::translator::Translator;
use super::x64::{Alu, Cond, Gpr, Mem, Size};
use crate::insn::{Class, Insn, Kind, Op};
use crate::state::{Flags, State};

/// What the host's flags hold of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostFlags {
    /// Nothing.
    Unknown,
    /// N is SF, Z is ZF, V is OF, and C is not CF: as after a subtraction.
    Borrow,
    /// The same, but C is CF: as after an addition, and after bitwise operations, which clear C and V.
    Carry,
    /// As UCOMISD leaves them, and [`Translator::flags_compared`] says.
    Compared,
}

const fn flags_at(offset: usize) -> Mem {
    state_at(offset_of!(State, flags) + offset)
}

const N: Mem = flags_at(offset_of!(Flags, n));
const N_TOP: Mem = flags_at(offset_of!(Flags, n) + 4);
const Z: Mem = flags_at(offset_of!(Flags, z));
pub(super) const C: Mem = flags_at(offset_of!(Flags, c));
const V: Mem = flags_at(offset_of!(Flags, v));

/// Whether the flags that an instruction sets must be in memory, given what follows it in its block. `live_out` says
/// whether they may be read after the block.
pub(crate) fn are_kept(rest: &[Insn], live_out: bool) -> bool {
    let mut direct = true;
    for insn in rest {
        let (reads, writes) = effects(insn.op);
        direct &= reads && takes_host_flags(insn.op);
        if reads && !direct {
            return true;
        }
        if writes {
            return false;
        }
    }
    live_out
}

/// Whether flags may be read by the code that `insns` is the beginning of, before they are overwritten.
pub(crate) fn are_live(insns: &[Insn]) -> bool {
    for insn in insns {
        let (reads, writes) = effects(insn.op);
        if reads {
            return true;
        }
        if writes {
            return false;
        }
    }
    true
}

/// Whether an instruction reads NZCV, and whether it writes all of it.
pub(crate) fn effects(op: Op) -> (bool, bool) {
    match op.row() {
        // What ends a block in its own way may show the flags to anybody.
        Some(row) if row.kind == Kind::System => (true, row.writes_flags),
        // A NOP may become a branch to other code at any time, without a context synchronization event (B2.2.5).
        Some(row) if row.class == Class::Hint => (true, false),
        Some(row) => (row.reads_flags, row.writes_flags),
        None => (op != Op::FallThrough, false),
    }
}

/// Whether its emitter tests the host's flags, and leaves them as they are.
fn takes_host_flags(op: Op) -> bool {
    let tests = |name: &str| {
        name.starts_with("b_") || name.starts_with("cs") || name.starts_with("ccm") || name.starts_with("fcs")
    };
    op.row().is_some_and(|row| row.has_emitter && row.reads_flags && tests(row.name))
}

/// The condition that an instruction tests with the host's flags, if it does: one that [`takes_host_flags`], or FCCMP, which
/// wants them in memory, too.
fn tested(insn: &Insn) -> Option<u8> {
    const NAMES: [&str; 16] =
        ["eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv"];
    let name = insn.op.row()?.name;
    if name.starts_with("fccmp") {
        return Some(insn.b);
    }
    if !takes_host_flags(insn.op) {
        return None;
    }
    match name.strip_prefix("b_") {
        Some(name) => NAMES.iter().position(|&known| known == name).map(|cond| cond as u8),
        None => Some(insn.a),
    }
}

/// What readers of a comparison that found no order need: see [`Translator::flags_compared`]. None if they do not agree.
fn wanted_unordered(rest: &[Insn]) -> Option<bool> {
    let mut wanted = None;
    for insn in rest {
        let Some(cond) = tested(insn) else { break };
        let this = match cond {
            6 | 7 | 14 | 15 => None,
            10..=13 => Some(true),
            _ => Some(false),
        };
        if wanted.is_some() && this.is_some() && wanted != this {
            return None;
        }
        wanted = wanted.or(this);
        if effects(insn.op).1 {
            break;
        }
    }
    Some(wanted.unwrap_or(false))
}

impl Translator<'_> {
    /// The host's flags are those of UCOMISS or UCOMISD of ordered numbers: less is CF, equal is ZF. Tells what they are
    /// to be if there was no order: GE, LT, GT and LE are right with both of them set, the other conditions with both
    /// clear. PF, which is V, is set then.
    pub(crate) fn flags_compared(&mut self) -> bool {
        let wanted = wanted_unordered(self.rest());
        if wanted.is_none() || self.keeps_flags() {
            self.store_compared();
        }
        self.host_flags = if wanted.is_some() { HostFlags::Compared } else { HostFlags::Unknown };
        wanted.unwrap_or(false)
    }

    /// Stores the flags of a comparison of ordered numbers, each at once: who reads them soon does not wait for parts. Changes
    /// RAX, RCX and RDX, no flags.
    pub(crate) fn store_compared(&mut self) {
        let (one, none) = (Gpr::Rdx, Gpr::Rcx);
        self.asm.mov_imm(none, 0);
        self.asm.mov_store(Size::Dword, V, none);
        self.asm.mov_imm(Gpr::Rax, 0);
        self.asm.mov_imm(one, u64::MAX);
        self.asm.cmovcc(Cond::B, Size::Qword, Gpr::Rax, one);
        self.asm.mov_store(Size::Qword, N, Gpr::Rax);
        self.asm.mov_imm(one, 1);
        self.asm.mov_imm(Gpr::Rax, 0);
        self.asm.cmovcc(Cond::Ae, Size::Dword, Gpr::Rax, one);
        self.asm.mov_store(Size::Dword, C, Gpr::Rax);
        self.asm.cmovcc(Cond::Ne, Size::Dword, none, one);
        self.asm.mov_store(Size::Qword, Z, none);
    }

    /// The host's flags are now those of the guest's instruction. `result` is what N and Z were made from.
    pub(crate) fn flags_set(&mut self, form: HostFlags, size: Size, result: Gpr) {
        if self.keeps_flags() {
            self.store_flags(form, size, result);
        }
        self.host_flags = form;
    }

    /// Stores the host's flags. Changes none: MOV and SETcc do not.
    pub(crate) fn store_flags(&mut self, form: HostFlags, size: Size, result: Gpr) {
        match size {
            Size::Dword => self.asm.mov_store(Size::Dword, N_TOP, result),
            _ => self.asm.mov_store(Size::Qword, N, result),
        }
        self.asm.mov_store(Size::Qword, Z, result);
        let carry = if form == HostFlags::Borrow { Cond::Ae } else { Cond::B };
        self.asm.setcc(carry, C);
        self.asm.setcc(Cond::O, V);
    }

    /// Stores the flags of a nibble, N in its bit 3.
    pub(crate) fn store_given_flags(&mut self, nibble: u8) {
        let given = Flags::from_nzcv(u32::from(nibble) << 28);
        self.asm.mov_store_imm(Size::Dword, N_TOP, (given.n >> 32) as i32);
        self.asm.mov_store_imm(Size::Qword, Z, given.z as i32);
        self.asm.mov_store_imm(Size::Dword, C, given.c as i32);
        self.asm.mov_store_imm(Size::Dword, V, given.v as i32);
    }

    /// Makes the host's flags say whether condition `cond` holds: gives the host's condition. Changes RAX and RDX if the
    /// flags come from memory.
    ///
    /// # Panics
    /// For the conditions that always hold.
    pub(crate) fn condition(&mut self, cond: u8) -> Cond {
        assert!(cond < 14, "AL and NV are no conditions");
        let holds = match self.host_flags {
            HostFlags::Unknown => self.condition_from_memory(cond >> 1),
            HostFlags::Compared => match cond >> 1 {
                0 => Cond::E,
                2 => Cond::B,
                3 => Cond::P,
                4 | 6 => Cond::A,
                _ => Cond::Ae,
            },
            form => {
                if form == HostFlags::Carry && matches!(cond >> 1, 1 | 4) {
                    self.asm.cmc();
                    self.host_flags = HostFlags::Borrow;
                }
                match cond >> 1 {
                    0 => Cond::E,
                    1 => Cond::Ae,
                    2 => Cond::S,
                    3 => Cond::O,
                    4 => Cond::A,
                    5 => Cond::Ge,
                    _ => Cond::G,
                }
            }
        };
        if cond & 1 == 0 { holds } else { holds.not() }
    }

    fn condition_from_memory(&mut self, base: u8) -> Cond {
        let asm = &mut self.asm;
        let mut against_zero = |size, flag, holds| {
            asm.alu_imm(Alu::Cmp, size, flag, 0);
            holds
        };
        match base {
            0 => against_zero(Size::Qword, Z, Cond::E),
            1 => against_zero(Size::Dword, C, Cond::Ne),
            2 => against_zero(Size::Qword, N, Cond::S),
            3 => against_zero(Size::Dword, V, Cond::Ne),
            4 => {
                // C and not Z: the carry is above zero, minus one if Z.
                asm.alu_imm(Alu::Cmp, Size::Qword, Z, 1);
                asm.mov(Size::Dword, Gpr::Rax, C);
                // CF is Z now.
                asm.alu_imm(Alu::Sbb, Size::Dword, Gpr::Rax, 0);
                Cond::G
            }
            _ => {
                // N in the top bit, V moved there too.
                asm.mov(Size::Dword, Gpr::Rax, V);
                asm.shift(super::x64::Shift::Shl, Size::Qword, Gpr::Rax, 63);
                asm.alu(Alu::Xor, Size::Qword, Gpr::Rax, N);
                if base == 5 {
                    // N = V: the top bit is 0.
                    asm.test(Size::Qword, Gpr::Rax, Gpr::Rax);
                    return Cond::Ns;
                }
                // And not Z: the top bit moves to the bottom of a value that is 0 exactly if they differ or Z is set.
                asm.shift(super::x64::Shift::Shr, Size::Qword, Gpr::Rax, 63);
                asm.alu_imm(Alu::Cmp, Size::Qword, Z, 1);
                // CF is Z: RAX is (N xor V) + Z.
                asm.alu_imm(Alu::Adc, Size::Dword, Gpr::Rax, 0);
                Cond::E
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::{Features, decode};

    fn insns(words: &[u32]) -> Vec<Insn> {
        words.iter().map(|&word| decode(word, 0, Features::default(), false)).collect()
    }

    #[test]
    fn flags_that_a_branch_in_place_of_a_nop_might_read_are_kept() {
        const NOP: u32 = 0xd503_201f;
        const CMP: u32 = 0xeb02_003f;
        const ADD: u32 = 0x8b02_0020;
        assert!(!are_kept(&insns(&[ADD, CMP]), true) && !are_live(&insns(&[ADD, CMP])));
        assert!(are_kept(&insns(&[NOP, CMP]), false) && are_live(&insns(&[ADD, NOP, CMP])));
    }
}
