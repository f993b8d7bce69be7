//! Loads and stores: the inline look into the software TLB, and what happens out of the way when it misses.
//!
//! The address is in RAX. The last byte is compared with the page in the first byte's entry, which also catches accesses that
//! leave the page; see [`Entry`]. What is emitted out of the way first writes the registers back that memory has older
//! values of, so that an exception finds the guest's state as it was before the instruction.

use std::mem::offset_of;

use super::Frame;
use super::registers::Registers;
use super::runtime::Access;
use super::stubs::{POOL, cpu_at, state_at, x_at};
use super::translator::{LinkKind, Translator};
use super::x64::{Alu, Cond, Gpr, Label, Mem, Shift, Size};
use crate::Cpu;
use crate::insn::Extend;
use crate::mem::tlb::{EL0_ENTRIES, EL1_ENTRIES, Entry};
use crate::state::{SP, State};

/// Code that is emitted behind a block.
#[derive(Clone, Debug)]
pub(crate) struct Cold {
    /// Where it starts.
    entry: Label,
    /// Registers that memory has older values of, by slot of the pool.
    dirty: Dirty,
    what: What,
}

#[derive(Clone, Copy, Debug)]
struct Dirty {
    len: u8,
    /// Slot and guest register.
    pairs: [(u8, u8); POOL.len()],
}

impl Dirty {
    const NONE: Self = Self { len: 0, pairs: [(0, 0); POOL.len()] };

    fn of(registers: &Registers<{ POOL.len() }>) -> Self {
        let mut dirty = Self::NONE;
        for (slot, guest) in registers.dirty() {
            dirty.pairs[usize::from(dirty.len)] = (slot as u8, guest);
            dirty.len += 1;
        }
        dirty
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    /// Leaves by a stub, with `state.pc` set.
    Leave { pc: u64, stub: u64 },
    /// Leaves to have a link made.
    Link { number: usize, stub: u64 },
    /// The stamp and the address of a link to another page.
    Data { address: Label, number: usize },
    /// An access, and what becomes of its value.
    Access { access: Access, moves: Moves, back: Label },
}

/// The registers of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moves {
    Load { to: Gpr, size: Size, extend: Extend },
    LoadPair { to: [Gpr; 2], size: Size, extend: Extend },
    Store { from: Gpr },
    StorePair { from: [Gpr; 2] },
}

impl Cold {
    /// Leaves by `stub`, for the code at `pc`.
    pub(crate) fn leave(entry: Label, pc: u64, stub: u64) -> Self {
        Self { entry, dirty: Dirty::NONE, what: What::Leave { pc, stub } }
    }

    /// Leaves by `stub` in the middle of a block, before the instruction at `pc`.
    pub(crate) fn bail(entry: Label, registers: &Registers<{ POOL.len() }>, pc: u64, stub: u64) -> Self {
        Self { entry, dirty: Dirty::of(registers), what: What::Leave { pc, stub } }
    }

    /// Leaves by `stub`, which has link `number` made.
    pub(crate) fn link(entry: Label, number: usize, stub: u64) -> Self {
        Self { entry, dirty: Dirty::NONE, what: What::Link { number, stub } }
    }

    /// The stamp, at `entry`, and the address of link `number`.
    pub(crate) fn data(entry: Label, address: Label, number: usize) -> Self {
        Self { entry, dirty: Dirty::NONE, what: What::Data { address, number } }
    }
}

fn transfer_at(index: usize) -> Mem {
    cpu_at(offset_of!(Cpu, frame) + offset_of!(Frame, transfer) + 8 * index)
}

impl Translator<'_> {
    /// Emits what is out of the way.
    pub(crate) fn emit_cold(&mut self) {
        for cold in std::mem::take(&mut self.cold) {
            if matches!(cold.what, What::Data { .. }) {
                self.asm.align(8);
            }
            self.asm.bind(cold.entry);
            for &(slot, guest) in &cold.dirty.pairs[..usize::from(cold.dirty.len)] {
                self.asm.mov_store(Size::Qword, x_at(guest), POOL[usize::from(slot)]);
            }
            match cold.what {
                What::Leave { pc, stub } => {
                    self.asm.mov_imm(Gpr::Rax, pc);
                    self.asm.mov_store(Size::Qword, state_at(offset_of!(State, pc)), Gpr::Rax);
                    self.asm.jmp_to(stub);
                }
                What::Link { number, stub } => {
                    self.asm.mov_imm(Gpr::Rax, number as u64);
                    self.asm.jmp_to(stub);
                }
                What::Data { address, number } => {
                    self.set_link_kind(number, LinkKind::Stamped(self.asm.here()));
                    self.asm.data(&u64::MAX.to_le_bytes());
                    self.asm.bind(address);
                    self.asm.data(&0u64.to_le_bytes());
                }
                What::Access { access, moves, back } => {
                    self.call_access(access, moves);
                    self.asm.jmp(back);
                }
            }
        }
    }

    fn call_access(&mut self, access: Access, moves: Moves) {
        let asm = &mut *self.asm;
        match moves {
            Moves::Store { from } => asm.mov(Size::Qword, Gpr::Rcx, from),
            Moves::StorePair { from } => {
                for (index, from) in from.into_iter().enumerate() {
                    asm.mov_store(Size::Qword, transfer_at(index), from);
                }
            }
            Moves::Load { .. } | Moves::LoadPair { .. } => {}
        }
        asm.mov_imm(Gpr::Rdx, access.0.into());
        asm.call_to(self.stubs.access);
        match moves {
            Moves::Load { to, size, extend } => self.extend(to, Gpr::Rax, size, extend),
            Moves::LoadPair { to, size, extend } => {
                // The first may be what the second is moved over: the order is that of the handler.
                for (index, to) in to.into_iter().enumerate() {
                    self.extend(to, transfer_at(index), size, extend);
                }
            }
            Moves::Store { .. } | Moves::StorePair { .. } => {}
        }
    }

    /// Moves a value of memory into a general register.
    pub(crate) fn extend(&mut self, to: Gpr, from: impl super::x64::GprRm, size: Size, extend: Extend) {
        let asm = &mut *self.asm;
        match (extend, size) {
            (_, Size::Qword) | (Extend::Zero, Size::Dword) => asm.mov(size, to, from),
            (Extend::Zero, _) => asm.movzx(to, from, size),
            (Extend::Sign32, _) => asm.movsx(Size::Dword, to, from, size),
            (Extend::Sign64, _) => asm.movsx(Size::Qword, to, from, size),
        }
    }

    /// Emits the look into the TLB for `bytes` at RAX; RAX is then the host address. Changes RCX and RDX. A miss goes to
    /// `miss` with RAX unchanged.
    fn look_up(&mut self, bytes: u32, store: bool, unprivileged: bool, miss: Label) {
        let entries = if self.el0 || unprivileged { EL0_ENTRIES } else { EL1_ENTRIES };
        let start =
            if unprivileged { offset_of!(Cpu, mem.tlb.el0_start) } else { offset_of!(Cpu, mem.tlb.current_start) };
        let tag = if store { offset_of!(Entry, tag_w) } else { offset_of!(Entry, tag_r) };
        let asm = &mut *self.asm;
        // Entries are 32 bytes, found by the page's number.
        asm.mov(Size::Dword, Gpr::Rcx, Gpr::Rax);
        asm.shift(Shift::Shr, Size::Dword, Gpr::Rcx, 7);
        asm.alu_imm(Alu::And, Size::Dword, Gpr::Rcx, ((entries - 1) << 5) as i32);
        asm.alu(Alu::Add, Size::Qword, Gpr::Rcx, cpu_at(start));
        if bytes == 1 {
            asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
        } else {
            asm.lea(Size::Qword, Gpr::Rdx, Mem::base(Gpr::Rax, bytes as i32 - 1));
        }
        asm.alu(Alu::Xor, Size::Qword, Gpr::Rdx, Mem::base(Gpr::Rcx, tag as i32));
        asm.alu_imm(Alu::Cmp, Size::Qword, Gpr::Rdx, 0xfff);
        asm.jcc(Cond::A, miss);
        asm.alu(Alu::Add, Size::Qword, Gpr::Rax, Mem::base(Gpr::Rcx, offset_of!(Entry, addend) as i32));
    }

    /// An access to the address in RAX. The registers that it loads are [reserved](Self::reserve); what the caller
    /// changes besides, it changes afterwards.
    pub(crate) fn access(&mut self, access: Access, size: Size, moves: Moves) {
        // Before the host registers' state is noted for the way of a fault.
        self.store_all_known();
        let entry = self.asm.label();
        let back = self.asm.label();
        let dirty = Dirty::of(&self.registers);
        let bytes = size.bytes() << u32::from(access.is_pair());
        if access.is_ordered() && bytes > 1 {
            self.asm.test_imm(Size::Byte, Gpr::Rax, bytes as i32 - 1);
            self.asm.jcc(Cond::Ne, entry);
        }
        self.look_up(bytes, access.is_store(), access.is_unprivileged(), entry);
        let at = |index: i32| Mem::base(Gpr::Rax, index * size.bytes() as i32);
        match moves {
            Moves::Load { to, size, extend } => self.extend(to, at(0), size, extend),
            Moves::LoadPair { to, size, extend } => {
                self.extend(to[0], at(0), size, extend);
                self.extend(to[1], at(1), size, extend);
            }
            Moves::Store { from } if access.is_ordered() => {
                // Not passed by a later load: a locked exchange is a full barrier.
                self.asm.mov(Size::Qword, Gpr::Rcx, from);
                self.asm.xchg(size, at(0), Gpr::Rcx);
            }
            Moves::Store { from } => self.asm.mov_store(size, at(0), from),
            Moves::StorePair { from } => {
                self.asm.mov_store(size, at(0), from[0]);
                self.asm.mov_store(size, at(1), from[1]);
            }
        }
        self.asm.bind(back);
        self.cold.push(Cold { entry, dirty, what: What::Access { access, moves, back } });
    }

    /// The base register of an access, which must be a multiple of 16 if it is SP (CheckSPAlignment). A misaligned one is
    /// the interpreter's, which knows whether that is checked.
    pub(crate) fn base(&mut self, n: u8) -> Gpr {
        let base = self.read(n);
        if n == SP && !self.sp_is_aligned {
            self.asm.test_imm(Size::Byte, base, 15);
            self.interpret_if(Cond::Ne);
            self.sp_is_aligned = true;
        }
        base
    }
}
