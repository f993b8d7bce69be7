//! Condition flags: which must be kept, and how conditions are tested.
//!
//! An instruction that sets flags leaves them in the host's flags; the ones right behind it that read flags take them from
//! there. They are stored only if somebody may look at them later ([`Kept`]): for those that read them in [`State::flags`], the
//! interpreter's form; where only an exception could show them, in one word as the host has them ([`State::shown`]), which
//! costs less. Nothing but an interrupt can come before what overwrites flags that are not stored at all: where something
//! is pending at a block's start, [`overwritten_at`] says how far to go on first.

use std::mem::offset_of;

use super::stubs::state_at;
use super::translator::Translator;
use super::x64::{Alu, Cond, Gpr, HostFeatures, Mem, Size};
use crate::insn::{Class, Insn, Kind, Op};
use crate::state::{Flags, State, shown};

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

impl HostFlags {
    /// Whether the host can store them in one word: LAHF in 64-bit mode, which came before SSSE3 on every processor, but has
    /// no name in the language's own list of features.
    pub(crate) fn can_be_packed() -> bool {
        HostFeatures::get().ssse3
    }

    /// Whether all of the guest's flags can be had from the host's.
    pub(crate) const fn can_be_stored(self) -> bool {
        matches!(self, Self::Borrow | Self::Carry)
    }
}

const SHOWN: Mem = state_at(offset_of!(State, shown));

const fn flags_at(offset: usize) -> Mem {
    state_at(offset_of!(State, flags) + offset)
}

const N: Mem = flags_at(offset_of!(Flags, n));
const N_TOP: Mem = flags_at(offset_of!(Flags, n) + 4);
const Z: Mem = flags_at(offset_of!(Flags, z));
pub(super) const C: Mem = flags_at(offset_of!(Flags, c));
const V: Mem = flags_at(offset_of!(Flags, v));

/// Where the flags that an instruction sets must be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// Nowhere: they are overwritten before anything can tell what they are.
    Nowhere,
    /// In [`State::shown`]: an instruction that may fault comes before what overwrites them.
    Shown,
    /// In [`State::flags`]: they may be read.
    Whole,
}

/// Where the flags must be at the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveOut {
    /// If the host's hold them there.
    pub(crate) host: Kept,
    /// If they do not.
    pub(crate) memory: Kept,
}

impl LiveOut {
    /// The same in both cases.
    pub(crate) const fn same(kept: Kept) -> Self {
        Self { host: kept, memory: kept }
    }
}

/// Where the flags that an instruction sets, and leaves in the host's, must be stored, given what follows it in its block,
/// and after the block.
pub(crate) fn kept(rest: &[Insn], after: LiveOut) -> Kept {
    let mut direct = true;
    let mut kept = Kept::Nowhere;
    for insn in rest {
        let effects = effects(insn.op);
        direct &= leaves_host_flags(insn.op);
        if effects.reads && !direct {
            return Kept::Whole;
        }
        if effects.shows {
            kept = Kept::Shown;
        }
        if effects.writes {
            return kept;
        }
    }
    kept.max(if direct { after.host } else { after.memory })
}

/// Where flags must be that are set before the code that `insns` is the beginning of, if the host's do not hold them.
pub(crate) fn kept_before(insns: &[Insn], after: Kept) -> Kept {
    let mut kept = Kept::Nowhere;
    for insn in insns {
        let effects = effects(insn.op);
        if effects.reads {
            return Kept::Whole;
        }
        if effects.shows {
            kept = Kept::Shown;
        }
        if effects.writes {
            return kept;
        }
    }
    kept.max(after)
}

/// The first of `insns` that overwrites the flags, if nothing can tell before what they are.
pub(crate) fn overwritten_at(insns: &[Insn]) -> Option<usize> {
    let at = insns.iter().position(|insn| effects(insn.op) != Effects::default())?;
    let Effects { reads, shows, .. } = effects(insns[at].op);
    (!reads && !shows).then_some(at)
}

/// What an instruction does with NZCV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) reads: bool,
    /// It may raise an exception, which has them in SPSR_EL1.
    pub(crate) shows: bool,
    /// It writes all of them.
    pub(crate) writes: bool,
}

/// What an instruction does with NZCV.
pub(crate) fn effects(op: Op) -> Effects {
    let Some(row) = op.row() else {
        return Effects { reads: op != Op::FallThrough, ..Effects::default() };
    };
    // What ends a block in its own way may let anybody read them. A NOP may become a branch to other code at any time,
    // without a context synchronization event (B2.2.5).
    let reads = row.reads_flags || row.kind == Kind::System || row.class == Class::Hint;
    Effects { reads, shows: row.kind == Kind::Fallible, writes: row.writes_flags && row.class != Class::Hint }
}

/// Whether its emitter leaves the host's flags as they are, and finds there what it reads of them: those that test them,
/// and direct branches, which write registers back by moves.
pub(crate) fn leaves_host_flags(op: Op) -> bool {
    op == Op::FallThrough || op.row().is_some_and(|row| row.name == "b") || takes_host_flags(op)
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
        if effects(insn.op).writes {
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
        // Who does not follow in this block finds them in memory.
        if wanted.is_none() || self.kept_flags_of(LiveOut::same(self.live_out().memory)) != Kept::Nowhere {
            self.store_compared();
            self.memory_is_old = false;
        } else {
            self.memory_is_old = true;
        }
        self.host_flags = if wanted.is_some() { HostFlags::Compared } else { HostFlags::Unknown };
        wanted.unwrap_or(false)
    }

    /// Stores the flags of a comparison of ordered numbers, each at once: who reads them soon does not wait for parts. Changes
    /// RAX, RCX and RDX, no flags.
    pub(crate) fn store_compared(&mut self) {
        let (one, none) = (Gpr::Rdx, Gpr::Rcx);
        self.asm.mov_store_imm(Size::Dword, SHOWN, 0);
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

    /// The host's flags are now those of the guest's instruction. `result` is what N and Z were made from. Changes RAX.
    pub(crate) fn flags_set(&mut self, form: HostFlags, size: Size, result: Gpr) {
        self.memory_is_old = true;
        match self.kept_flags() {
            Kept::Nowhere => {}
            Kept::Shown if HostFlags::can_be_packed() => self.pack_flags(form),
            _ => self.store_flags(form, size, result),
        }
        self.host_flags = form;
    }

    /// The same for an instruction that leaves no result. The flags are not kept whole.
    pub(crate) fn flags_compared_to(&mut self, form: HostFlags) {
        self.memory_is_old = true;
        if self.kept_flags() != Kept::Nowhere {
            self.pack_flags(form);
        }
        self.host_flags = form;
    }

    /// Whether the present instruction's flags can be stored without its result, if they are stored at all.
    pub(crate) fn needs_no_result(&self) -> bool {
        match self.kept_flags() {
            Kept::Nowhere => true,
            Kept::Shown => HostFlags::can_be_packed(),
            Kept::Whole => false,
        }
    }

    /// Stores the host's flags as they are, for exceptions. Changes RAX, no flags.
    pub(crate) fn pack_flags(&mut self, form: HostFlags) {
        let borrow = if form == HostFlags::Borrow { shown::BORROW } else { 0 };
        self.asm.mov_imm(Gpr::Rax, u64::from(shown::VALID | borrow));
        self.asm.lahf();
        self.asm.setcc(Cond::O, Gpr::Rax);
        self.asm.mov_store(Size::Dword, SHOWN, Gpr::Rax);
        self.may_have_shown = true;
    }

    /// Stores the host's flags. Changes none: MOV and SETcc do not.
    pub(crate) fn store_flags(&mut self, form: HostFlags, size: Size, result: Gpr) {
        self.memory_is_old = false;
        if std::mem::take(&mut self.may_have_shown) {
            self.asm.mov_store_imm(Size::Dword, SHOWN, 0);
        }
        match size {
            Size::Dword => self.asm.mov_store(Size::Dword, N_TOP, result),
            _ => self.asm.mov_store(Size::Qword, N, result),
        }
        self.asm.mov_store(Size::Qword, Z, result);
        let carry = if form == HostFlags::Borrow { Cond::Ae } else { Cond::B };
        self.asm.setcc(carry, C);
        self.asm.setcc(Cond::O, V);
    }

    /// Stores the host's flags, of which there is no result: what a way out of a region does. Changes RAX and RDX, no flags.
    pub(super) fn store_host_flags(&mut self, form: HostFlags) {
        self.asm.mov_store_imm(Size::Dword, SHOWN, 0);
        let carry = if form == HostFlags::Borrow { Cond::Ae } else { Cond::B };
        self.asm.setcc(carry, C);
        self.asm.setcc(Cond::O, V);
        self.asm.mov_imm(Gpr::Rdx, u64::MAX);
        for (cond, place) in [(Cond::S, N), (Cond::Ne, Z)] {
            self.asm.mov_imm(Gpr::Rax, 0);
            self.asm.cmovcc(cond, Size::Qword, Gpr::Rax, Gpr::Rdx);
            self.asm.mov_store(Size::Qword, place, Gpr::Rax);
        }
    }

    /// Makes the host's flags those of a nibble, N in its bit 3. Changes RAX.
    pub(crate) fn set_host_flags(&mut self, form: HostFlags, nibble: u8) {
        debug_assert!(HostFlags::can_be_packed());
        let [n, z, c, v] = [3, 2, 1, 0].map(|bit| nibble >> bit & 1);
        // The sum of these overflows exactly if V is set.
        self.asm.mov_imm(Gpr::Rax, if v == 1 { i32::MAX as u64 } else { 0 });
        self.asm.alu_imm(Alu::Add, Size::Dword, Gpr::Rax, 1);
        let carry = if form == HostFlags::Borrow { c ^ 1 } else { c };
        self.asm.mov_imm(Gpr::Rax, u64::from(n << 7 | z << 6 | carry) << 8);
        self.asm.sahf();
    }

    /// Stores the flags of a nibble, N in its bit 3.
    pub(crate) fn store_given_flags(&mut self, nibble: u8) {
        let given = Flags::from_nzcv(u32::from(nibble) << 28);
        self.asm.mov_store_imm(Size::Dword, SHOWN, 0);
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
            HostFlags::Unknown => {
                debug_assert!(!self.memory_is_old, "flags are stored for those that read them in memory");
                self.condition_from_memory(cond >> 1)
            }
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

    /// No part is loaded wider than it may have been stored just before, which the host would wait for.
    fn condition_from_memory(&mut self, base: u8) -> Cond {
        let asm = &mut self.asm;
        let mut against_zero = |size, flag, holds| {
            asm.alu_imm(Alu::Cmp, size, flag, 0);
            holds
        };
        match base {
            0 => against_zero(Size::Qword, Z, Cond::E),
            1 => against_zero(Size::Byte, C, Cond::Ne),
            2 => against_zero(Size::Dword, N_TOP, Cond::S),
            3 => against_zero(Size::Byte, V, Cond::Ne),
            4 => {
                // C and not Z: the carry is above zero, minus one if Z.
                asm.alu_imm(Alu::Cmp, Size::Qword, Z, 1);
                asm.movzx(Gpr::Rax, C, Size::Byte);
                // CF is Z now.
                asm.alu_imm(Alu::Sbb, Size::Dword, Gpr::Rax, 0);
                Cond::G
            }
            _ => {
                // N in the top bit, V moved there too.
                asm.movzx(Gpr::Rax, V, Size::Byte);
                asm.shift(super::x64::Shift::Shl, Size::Dword, Gpr::Rax, 31);
                asm.alu(Alu::Xor, Size::Dword, Gpr::Rax, N_TOP);
                if base == 5 {
                    // N = V: the top bit is 0.
                    asm.test(Size::Dword, Gpr::Rax, Gpr::Rax);
                    return Cond::Ns;
                }
                // And not Z: the top bit moves to the bottom of a value that is 0 exactly if they differ or Z is set.
                asm.shift(super::x64::Shift::Shr, Size::Dword, Gpr::Rax, 31);
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
        assert_eq!(kept(&insns(&[ADD, CMP]), LiveOut::same(Kept::Whole)), Kept::Nowhere);
        assert_eq!(kept_before(&insns(&[ADD, CMP]), Kept::Whole), Kept::Nowhere);
        assert_eq!(kept(&insns(&[NOP, CMP]), LiveOut::same(Kept::Nowhere)), Kept::Whole);
        assert_eq!(kept_before(&insns(&[ADD, NOP, CMP]), Kept::Whole), Kept::Whole);
    }

    #[test]
    fn flags_are_shown_by_what_may_fault_before_they_are_overwritten() {
        const LDR: u32 = 0xf940_0020;
        const CMP: u32 = 0xeb02_003f;
        const B_EQ: u32 = 0x5400_0040;
        assert_eq!(kept(&insns(&[LDR, CMP]), LiveOut::same(Kept::Whole)), Kept::Shown);
        assert_eq!(kept(&insns(&[CMP, LDR]), LiveOut::same(Kept::Whole)), Kept::Nowhere);
        assert_eq!(kept(&insns(&[B_EQ]), LiveOut::same(Kept::Shown)), Kept::Shown);
        assert_eq!(kept(&insns(&[LDR, B_EQ]), LiveOut::same(Kept::Nowhere)), Kept::Whole);
        assert_eq!(kept_before(&insns(&[LDR, CMP]), Kept::Whole), Kept::Shown);
        assert_eq!(overwritten_at(&insns(&[LDR, CMP])), None);
    }
}
