//! Loads and stores: the inline look into the software TLB, and what happens out of the way when it misses.
//!
//! The address is in RAX. The last byte is compared with the page in the first byte's entry, which also catches accesses that
//! leave the page; see [`Entry`]. What is emitted out of the way first writes the registers back that memory has older
//! values of, so that an exception finds the guest's state as it was before the instruction.

use std::mem::offset_of;
use std::ptr::NonNull;

use super::Frame;
use super::flags::HostFlags;
use super::float::Float;
use super::registers::Registers;
use super::runtime::Access;
use super::sites::SiteCode;
use super::stubs::{POOL, VECTORS, cpu_at, state_at, v_at, vector, x_at};
use super::translator::{LinkKind, Translator};
use super::x64::simd_ops::{MOVQ, MOVQ_STORE, MOVSS, MOVSS_STORE, MOVUPS, MOVUPS_STORE};
use super::x64::{Alu, Cond, Gpr, Label, Mem, Shift, Size, Xmm};
use crate::Cpu;
use crate::insn::{Extend, Insn};
use crate::mem::tlb::{Entry, SLOTS, Site, Tlb};
use crate::state::{SP, State};

/// Code that is emitted behind a block.
#[derive(Clone, Debug)]
pub(crate) struct Cold {
    /// Where it starts.
    entry: Label,
    /// Registers that memory has older values of, by slot of the pool.
    dirty: Dirty<{ POOL.len() }>,
    dirty_vectors: Dirty<VECTORS>,
    /// Registers that are taken from memory when a handler has been called: those that it writes, and all vectors.
    held: Dirty<{ POOL.len() }>,
    held_vectors: Dirty<VECTORS>,
    /// Host registers hold vector registers, which a call must keep.
    keeps_vectors: bool,
    what: What,
}

// SAFETY: the instruction that it points to is in the arena of the vCPU that has it, and goes where that goes.
unsafe impl Send for Cold {}

#[derive(Clone, Copy, Debug)]
struct Dirty<const N: usize> {
    len: u8,
    /// Slot and guest register.
    pairs: [(u8, u8); N],
}

impl<const N: usize> Dirty<N> {
    const NONE: Self = Self { len: 0, pairs: [(0, 0); N] };

    fn of(registers: &Registers<N>) -> Self {
        Self::from(registers.dirty())
    }

    fn from(pairs: impl Iterator<Item = (usize, u8)>) -> Self {
        let mut dirty = Self::NONE;
        for (slot, guest) in pairs {
            dirty.pairs[usize::from(dirty.len)] = (slot as u8, guest);
            dirty.len += 1;
        }
        dirty
    }

    fn iter(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        self.pairs[..usize::from(self.len)].iter().map(|&(slot, guest)| (usize::from(slot), guest))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Leaves by a stub, with `state.pc` set.
    Leave { pc: u64, stub: u64 },
    /// Leaves to have a link made.
    Link { number: usize, stub: u64 },
    /// The stamp and the address of a link to another page.
    Data { address: Label, number: usize },
    /// Leaves for another block, with the host's flags stored.
    LeaveTo { target: u64, counted: bool, flags: Option<HostFlags> },
    /// Leaves a loop of the region, because something is pending.
    Wanted { target: u64 },
    /// Takes the page of the address in RAX from the TLB to a site of the instruction at `insn`, the code of which is at
    /// `start`; and looks into the TLB without it, for later.
    Refill { site: usize, start: u64, insn: usize, look: Look, hit: Label, done: Label, miss: Label },
    /// An access, and what becomes of its value.
    Access { access: Access, moves: Moves, back: Label },
    /// The handler does the instruction, which is at `pc`.
    Handler { insn: NonNull<Insn>, pc: u64, back: Label },
    /// Of floating point.
    Float(Float),
}

/// A case of an instruction that its handler does, out of the way.
#[derive(Clone, Debug)]
pub(crate) struct Rare {
    cold: Cold,
    back: Label,
}

impl Rare {
    /// Where it starts.
    pub(crate) fn entry(&self) -> Label {
        self.cold.entry
    }
}

/// A look into the TLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    bytes: u32,
    store: bool,
    unprivileged: bool,
}

/// The registers of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moves {
    Load {
        to: Gpr,
        size: Size,
        extend: Extend,
    },
    LoadPair {
        to: [Gpr; 2],
        size: Size,
        extend: Extend,
    },
    Store {
        from: Gpr,
    },
    StorePair {
        from: [Gpr; 2],
    },
    /// Into a vector register, whose other bits become zero.
    LoadVector {
        to: Xmm,
    },
    LoadVectors {
        to: [Xmm; 2],
    },
    StoreVector {
        from: Xmm,
    },
    StoreVectors {
        from: [Xmm; 2],
    },
}

impl Look {
    /// Makes a site cover the page of `va` and those around it that lie beside it in the host's memory, as far as the TLB
    /// has them: tells how many they are.
    pub(super) fn widen(&self, tlb: &mut Tlb, site: usize, va: u64) -> u64 {
        tlb.widen(site, va, self.store, self.unprivileged, u64::from(self.bytes))
    }

    /// The tag of an entry that counts.
    const fn tag(&self) -> i32 {
        if self.store { offset_of!(Entry, tag_w) as i32 } else { offset_of!(Entry, tag_r) as i32 }
    }
}

impl Cold {
    pub(super) const fn new(entry: Label, what: What) -> Self {
        Self {
            entry,
            dirty: Dirty::NONE,
            dirty_vectors: Dirty::NONE,
            held: Dirty::NONE,
            held_vectors: Dirty::NONE,
            keeps_vectors: false,
            what,
        }
    }

    /// Leaves by `stub`, for the code at `pc`.
    pub(crate) fn leave(entry: Label, pc: u64, stub: u64) -> Self {
        Self::new(entry, What::Leave { pc, stub })
    }

    /// Leaves by `stub`, which has link `number` made.
    pub(crate) fn link(entry: Label, number: usize, stub: u64) -> Self {
        Self::new(entry, What::Link { number, stub })
    }

    /// Leaves for `target`; `counted` if that is another round of a loop. What the host's flags hold is stored if `flags`
    /// tells.
    pub(crate) fn leave_to(entry: Label, target: u64, counted: bool, flags: Option<HostFlags>) -> Self {
        Self::new(entry, What::LeaveTo { target, counted, flags })
    }

    /// Leaves a loop of the region, on the way to its block at `target`.
    pub(crate) fn wanted(entry: Label, target: u64) -> Self {
        Self::new(entry, What::Wanted { target })
    }

    /// The stamp, at `entry`, and the address of link `number`.
    pub(crate) fn data(entry: Label, address: Label, number: usize) -> Self {
        Self::new(entry, What::Data { address, number })
    }
}

/// The operand size of `1 << log2` bytes, at most 8.
pub(crate) const fn size_of(log2: u32) -> Size {
    match log2 {
        0 => Size::Byte,
        1 => Size::Word,
        2 => Size::Dword,
        _ => Size::Qword,
    }
}

fn site_at(site: usize, offset: usize) -> Mem {
    cpu_at(offset_of!(Cpu, mem.tlb.sites) + std::mem::size_of::<Site>() * site + offset)
}

/// A word of [`Frame::transfer`].
pub(crate) fn transfer_at(index: usize) -> Mem {
    cpu_at(offset_of!(Cpu, frame) + offset_of!(Frame, transfer) + 8 * index)
}

impl Translator<'_> {
    /// Emits what is out of the way.
    pub(crate) fn emit_cold(&mut self) {
        // What is emitted here may ask for more.
        let mut next = 0;
        while let Some(cold) = self.cold.get(next).cloned() {
            next += 1;
            if matches!(cold.what, What::Data { .. }) {
                self.asm.align(8);
            }
            self.asm.bind(cold.entry);
            for (slot, guest) in cold.dirty.iter() {
                self.asm.mov_store(Size::Qword, x_at(guest), POOL[slot]);
            }
            for (slot, guest) in cold.dirty_vectors.iter() {
                self.asm.sse_store(MOVUPS_STORE, v_at(guest), vector(slot));
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
                What::LeaveTo { target, counted, flags } => self.emit_leave_to(target, counted, flags),
                What::Wanted { target } => self.emit_wanted(target),
                What::Refill { site, start, insn, look, hit, done, miss } => {
                    let refill = self.asm.here();
                    self.emit_refill(site, look, hit, miss);
                    let without = self.asm.here();
                    self.emit_without(site, look, done, miss);
                    let place = (insn, self.region_start());
                    self.site_codes.push(SiteCode::new(start, refill, without, place, look));
                }
                What::Access { access, moves, back } => {
                    self.call_access(access, moves, cold.keeps_vectors);
                    self.asm.jmp(back);
                }
                What::Float(float) => self.emit_float(float),
                What::Handler { insn, pc, back } => {
                    self.emit_call(insn, pc);
                    for (slot, guest) in cold.held.iter() {
                        self.asm.mov(Size::Qword, POOL[slot], x_at(guest));
                    }
                    for (slot, guest) in cold.held_vectors.iter() {
                        self.asm.sse(MOVUPS, vector(slot), v_at(guest));
                    }
                    self.asm.jmp(back);
                }
            }
        }
    }

    fn call_access(&mut self, access: Access, moves: Moves, keeps_vectors: bool) {
        let log2 = access.log2();
        // Where the second of two values is.
        let second = if log2 == 4 { 2 } else { 1 };
        match moves {
            Moves::Store { from } => self.asm.mov(Size::Qword, Gpr::Rcx, from),
            Moves::StorePair { from } => {
                self.asm.mov_store(Size::Qword, transfer_at(0), from[0]);
                self.asm.mov_store(Size::Qword, transfer_at(1), from[1]);
            }
            Moves::StoreVector { from } if log2 == 4 => self.store_vector(4, transfer_at(0), from),
            Moves::StoreVector { from } => self.asm.sse_movd_store(Size::Qword, Gpr::Rcx, from),
            Moves::StoreVectors { from } => {
                self.store_vector(log2, transfer_at(0), from[0]);
                self.store_vector(log2, transfer_at(second), from[1]);
            }
            Moves::Load { .. }
            | Moves::LoadPair { .. }
            | Moves::LoadVector { .. }
            | Moves::LoadVectors { .. } => {}
        }
        self.asm.mov_imm(Gpr::Rdx, access.0.into());
        self.asm.call_to(if keeps_vectors { self.stubs.access_keeping_vectors } else { self.stubs.access });
        match moves {
            Moves::Load { to, size, extend } => self.extend(to, Gpr::Rax, size, extend),
            Moves::LoadPair { to, size, extend } => {
                self.extend(to[0], transfer_at(0), size, extend);
                self.extend(to[1], transfer_at(1), size, extend);
            }
            Moves::LoadVector { to } if log2 == 4 => self.load_vector(4, to, transfer_at(0)),
            // The value is zero-extended.
            Moves::LoadVector { to } => self.asm.sse_movd(Size::Qword, to, Gpr::Rax),
            Moves::LoadVectors { to } => {
                self.load_vector(log2, to[0], transfer_at(0));
                self.load_vector(log2, to[1], transfer_at(second));
            }
            Moves::Store { .. }
            | Moves::StorePair { .. }
            | Moves::StoreVector { .. }
            | Moves::StoreVectors { .. } => {}
        }
    }

    /// Loads `1 << log2` bytes into a vector register, and zero above them. Changes RCX for 1 and 2 bytes.
    fn load_vector(&mut self, log2: u32, to: Xmm, from: Mem) {
        match log2 {
            0 | 1 => {
                self.asm.movzx(Gpr::Rcx, from, if log2 == 0 { Size::Byte } else { Size::Word });
                self.asm.sse_movd(Size::Dword, to, Gpr::Rcx);
            }
            2 => self.asm.sse_load(MOVSS, to, from),
            3 => self.asm.sse(MOVQ, to, from),
            _ => self.asm.sse(MOVUPS, to, from),
        }
    }

    /// Stores the low `1 << log2` bytes of a vector register. Changes RCX for 1 and 2 bytes.
    fn store_vector(&mut self, log2: u32, to: Mem, from: Xmm) {
        match log2 {
            0 | 1 => {
                self.asm.sse_movd_store(Size::Dword, Gpr::Rcx, from);
                self.asm.mov_store(if log2 == 0 { Size::Byte } else { Size::Word }, to, Gpr::Rcx);
            }
            2 => self.asm.sse_store(MOVSS_STORE, to, from),
            3 => self.asm.sse_store(MOVQ_STORE, to, from),
            _ => self.asm.sse_store(MOVUPS_STORE, to, from),
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

    /// Emits the look for the page of the address in RAX; RAX is then the host address. Changes RCX and RDX. A miss goes
    /// to `miss` with RAX unchanged.
    pub(crate) fn look_up(&mut self, bytes: u32, store: bool, unprivileged: bool, miss: Label) {
        let look = Look { bytes, store, unprivileged };
        let Some(site) = self.new_site() else {
            self.look_into_tlb(look, miss);
            self.add_addend();
            return;
        };
        // The host address depends on the address and on nothing that has to be looked up by it. A site that misses all
        // the time begins with a jump to the look into the TLB instead.
        let start = self.asm.here();
        let refill = self.asm.label();
        self.asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
        self.asm.alu(Alu::Sub, Size::Qword, Gpr::Rdx, site_at(site, offset_of!(Site, tag)));
        self.asm.alu(Alu::Cmp, Size::Qword, Gpr::Rdx, site_at(site, offset_of!(Site, limit)));
        self.asm.jcc(Cond::Ae, refill);
        let hit = self.asm.label_here();
        self.asm.alu(Alu::Add, Size::Qword, Gpr::Rax, site_at(site, offset_of!(Site, addend)));
        let (done, insn) = (self.asm.label_here(), self.insn_address());
        self.cold.push(Cold::new(refill, What::Refill { site, start, insn, look, hit, done, miss }));
    }

    /// The host address into RAX, from the entry that RCX points to.
    fn add_addend(&mut self) {
        let addend = Mem::base(Gpr::Rcx, offset_of!(Entry, addend) as i32);
        self.asm.alu(Alu::Add, Size::Qword, Gpr::Rax, addend);
    }

    /// The address of the last byte of an access into RDX.
    fn last_byte(&mut self, bytes: u32) {
        if bytes == 1 {
            self.asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
        } else {
            self.asm.lea(Size::Qword, Gpr::Rdx, Mem::base(Gpr::Rax, bytes as i32 - 1));
        }
    }

    /// Finds the entry of the TLB for the address in RAX: its address is then in RCX. Changes RDX.
    fn look_into_tlb(&mut self, look: Look, miss: Label) {
        let start = if look.unprivileged {
            offset_of!(Cpu, mem.tlb.user_start)
        } else {
            offset_of!(Cpu, mem.tlb.current_start)
        };
        // Entries are 32 bytes, found by the page's number.
        self.asm.mov(Size::Dword, Gpr::Rcx, Gpr::Rax);
        self.asm.shift(Shift::Shr, Size::Dword, Gpr::Rcx, 7);
        self.asm.alu_imm(Alu::And, Size::Dword, Gpr::Rcx, ((SLOTS - 1) << 5) as i32);
        self.asm.alu(Alu::Add, Size::Qword, Gpr::Rcx, cpu_at(start));
        self.last_byte(look.bytes);
        self.asm.alu(Alu::Xor, Size::Qword, Gpr::Rdx, Mem::base(Gpr::Rcx, look.tag()));
        self.asm.alu_imm(Alu::Cmp, Size::Qword, Gpr::Rdx, 0xfff);
        self.asm.jcc(Cond::A, miss);
    }

    /// Emits the refill of a site, which goes on at `hit`.
    fn emit_refill(&mut self, site: usize, look: Look, hit: Label, miss: Label) {
        self.look_into_tlb(look, miss);
        for (from, to) in [
            (look.tag(), offset_of!(Site, tag)),
            (offset_of!(Entry, addend) as i32, offset_of!(Site, addend)),
        ] {
            self.asm.mov(Size::Qword, Gpr::Rdx, Mem::base(Gpr::Rcx, from));
            self.asm.mov_store(Size::Qword, site_at(site, to), Gpr::Rdx);
        }
        // Where the last access may begin that does not leave the page.
        let limit = 0x1001 - look.bytes as i32;
        self.asm.mov_store_imm(Size::Qword, site_at(site, offset_of!(Site, limit)), limit);
        self.asm.mov_store_imm(Size::Dword, cpu_at(offset_of!(Cpu, mem.tlb.sites_filled)), 1);
        self.count_miss(site, hit);
        self.asm.jmp(hit);
    }

    /// Emits the look into the TLB for a site that is left as it is.
    fn emit_without(&mut self, site: usize, look: Look, done: Label, miss: Label) {
        let again = self.asm.label_here();
        let counted = self.asm.label();
        self.look_into_tlb(look, miss);
        // Leaves RCX, the entry.
        self.asm.mov_imm64(Gpr::Rdx, self.stubs.patience + 4 * site as u64);
        self.asm.alu_imm(Alu::Sub, Size::Dword, Mem::base(Gpr::Rdx, 0), 1);
        self.asm.jcc(Cond::S, counted);
        self.add_addend();
        self.asm.jmp(done);
        self.asm.bind(counted);
        self.asm.mov_imm(Gpr::Rdx, site as u64);
        self.asm.call_to(self.stubs.crowded);
        self.asm.jmp(again);
    }

    /// Counts a miss of a site, and has it looked at after many; else goes to `go_on`.
    fn count_miss(&mut self, site: usize, go_on: Label) {
        self.asm.mov_imm(Gpr::Rdx, site as u64);
        self.asm.mov_imm64(Gpr::Rcx, self.stubs.patience + 4 * site as u64);
        self.asm.alu_imm(Alu::Sub, Size::Dword, Mem::base(Gpr::Rcx, 0), 1);
        self.asm.jcc(Cond::Ns, go_on);
        self.asm.call_to(self.stubs.crowded);
    }

    /// An access to the address in RAX. The registers that it loads are [reserved](Self::reserve); what the caller
    /// changes besides, it changes afterwards. Changes RCX and RDX.
    pub(crate) fn access(&mut self, access: Access, moves: Moves) {
        // Before the host registers' state is noted for the way of a fault.
        self.store_all_known();
        let entry = self.asm.label();
        let back = self.asm.label();
        let cold = self.cold(entry, What::Access { access, moves, back });
        let log2 = access.log2();
        let bytes = 1 << log2 << u32::from(access.is_pair());
        if access.is_ordered() && bytes > 1 {
            self.asm.test_imm(Size::Byte, Gpr::Rax, bytes as i32 - 1);
            self.asm.jcc(Cond::Ne, entry);
        }
        self.look_up(bytes, access.is_store(), access.is_unprivileged(), entry);
        let (first, second) = (Mem::base(Gpr::Rax, 0), Mem::base(Gpr::Rax, 1 << log2));
        match moves {
            Moves::Load { to, size, extend } => self.extend(to, first, size, extend),
            Moves::LoadPair { to, size, extend } => {
                self.extend(to[0], first, size, extend);
                self.extend(to[1], second, size, extend);
            }
            Moves::Store { from } if access.is_ordered() => {
                // Not passed by a later load: a locked exchange is a full barrier.
                self.asm.mov(Size::Qword, Gpr::Rcx, from);
                self.asm.xchg(size_of(log2), first, Gpr::Rcx);
            }
            Moves::Store { from } => self.asm.mov_store(size_of(log2), first, from),
            Moves::StorePair { from } => {
                self.asm.mov_store(size_of(log2), first, from[0]);
                self.asm.mov_store(size_of(log2), second, from[1]);
            }
            Moves::LoadVector { to } => self.load_vector(log2, to, first),
            Moves::LoadVectors { to } => {
                self.load_vector(log2, to[0], first);
                self.load_vector(log2, to[1], second);
            }
            Moves::StoreVector { from } => self.store_vector(log2, first, from),
            Moves::StoreVectors { from } => {
                self.store_vector(log2, first, from[0]);
                self.store_vector(log2, second, from[1]);
            }
        }
        self.asm.bind(back);
        self.cold.push(cold);
    }

    /// Code out of the way that finds the registers as they are now.
    fn cold(&self, entry: Label, what: What) -> Cold {
        Cold {
            dirty: Dirty::of(&self.registers),
            dirty_vectors: Dirty::of(&self.vectors),
            keeps_vectors: self.vectors.any(),
            ..Cold::new(entry, what)
        }
    }

    /// From here until [`Self::rejoin`], code may jump to [`Rare::entry`] to have the handler of the present instruction do
    /// all of it. All operands have host registers by now, no guest register is changed before the last such jump, and
    /// no register is given a place in between. The host's flags are not kept.
    pub(crate) fn rare(&mut self, i: &Insn) -> Rare {
        self.store_all_known();
        let (entry, back) = (self.asm.label(), self.asm.label());
        Rare { cold: self.cold(entry, What::Handler { insn: i.into(), pc: self.pc(), back }), back }
    }

    /// The present instruction is done, in either way.
    pub(crate) fn rejoin(&mut self, rare: Rare, i: &Insn) {
        let back = self.rejoin_elsewhere(rare, i);
        self.asm.bind(back);
    }

    /// The same, but where the handler's way goes on is given, to be bound somewhere.
    pub(super) fn rejoin_elsewhere(&mut self, mut rare: Rare, i: &Insn) -> Label {
        let written = i.op.row().into_iter().flat_map(|row| row.registers);
        let written = written.filter(|register| !register.role.is_vector() && register.role.writes());
        let guests = written.flat_map(|register| {
            let first = i.register(register.slot);
            first..first + register.count
        });
        rare.cold.held = Dirty::from(guests.filter_map(|guest| Some((self.registers.peek(guest)?, guest))));
        rare.cold.held_vectors = Dirty::from(self.vectors.occupied());
        self.cold.push(rare.cold);
        rare.back
    }

    /// Leaves this instruction, and what follows in the block, to the interpreter if `cond` holds. Changes RDX.
    pub(crate) fn interpret_if(&mut self, cond: Cond) {
        self.store_all_known();
        let entry = self.asm.label();
        self.asm.jcc(cond, entry);
        let cold = self.cold(entry, What::Leave { pc: self.pc(), stub: self.stubs.interpret });
        self.cold.push(cold);
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
