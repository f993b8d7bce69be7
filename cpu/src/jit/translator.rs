//! Translation of one block: the state that emitters share, and what happens at the block's borders.
//!
//! An emitter is a function named after the instruction's handler. It asks for operands ([`Translator::read`],
//! [`Translator::write`]), emits a few host instructions, and never thinks of where guest registers live. What rarely
//! happens is emitted after the block, out of the way ([`Cold`]).

use std::collections::BTreeSet;
use std::ptr::NonNull;

use super::access::Cold;
use super::flags::{self, HostFlags, Kept, LiveOut};
use super::region_flags;
use super::registers::Registers;
use super::sites::SiteCode;
use super::stubs::{self, POOL, Stubs, VECTORS, v_at, vector, x_at};
use super::x64::simd_ops::{MOVUPS, MOVUPS_STORE};
use super::x64::{Asm, AsmError, Gpr, Label, Size, Xmm};
use crate::code::{Block, context};
use crate::insn::{Insn, Kind, Op};
use crate::mem::tlb::SITES;
use crate::state::{DISCARD, SP, ZERO};

/// A direct branch from one translation to another, which is made when it is first taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSite {
    /// Guest address that the branch leads to.
    pub(crate) target: u64,
    pub(crate) kind: LinkKind,
}

/// How a link is made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinkKind {
    /// Within a page: the displacement of the jump at this address of the executable view. It holds as long as both
    /// blocks, because what maps the one maps the other.
    Jump(u64),
    /// To another page: a stamp and an address at this address, looked at each time.
    Stamped(u64),
    /// No link: the [`Block::rounds`](crate::code::Block::rounds) at this address are over.
    Counter(u64),
}

/// Registers that stay in host registers for a whole region, and whether any of its blocks writes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fixed {
    pub(crate) general: Vec<(u8, bool)>,
    pub(crate) vectors: Vec<(u8, bool)>,
}

/// What a translation is made of besides its code.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// Bytes of the code.
    pub(crate) len: usize,
    /// Bytes of the look at the pending word at its start.
    pub(crate) head: usize,
    /// Where the code is that leaves it before its first instruction.
    pub(crate) leave: usize,
    /// Its sites, which have the numbers from the one that was given on.
    pub(super) sites: Vec<SiteCode>,
}

/// Which sites a region may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sites<'a> {
    /// The first that is free.
    pub(crate) next: usize,
    /// Instructions that get none.
    pub(crate) siteless: &'a BTreeSet<usize>,
}

static NO_SITELESS: BTreeSet<usize> = BTreeSet::new();

/// A block that is being translated.
pub(crate) struct Translator<'a> {
    pub(crate) asm: &'a mut Asm,
    pub(crate) stubs: &'a Stubs,
    pub(crate) registers: Registers<{ POOL.len() }>,
    /// Vector registers; none of them is known or special.
    pub(crate) vectors: Registers<VECTORS>,
    /// Values of general registers that are known while the block is being translated.
    known: [Option<u64>; 34],
    /// Registers whose known value is neither in memory nor in a host register.
    unstored: u64,
    pub(crate) host_flags: HostFlags,
    /// [`State::shown`](crate::state::State::shown) may hold flags.
    pub(crate) may_have_shown: bool,
    /// SP is a multiple of 16.
    pub(crate) sp_is_aligned: bool,
    pub(crate) cold: &'a mut Vec<Cold>,
    pub(super) links: &'a mut Vec<LinkSite>,
    insns: &'a [Insn],
    /// Index of the present instruction.
    at: usize,
    /// The present instruction's code does what the next one does, too.
    next_is_done: bool,
    /// Address of the first instruction.
    pub(super) start: u64,
    /// Where the flags must be after the block.
    pub(super) live_out: LiveOut,
    /// The block's [`Part::successors`].
    pub(super) successors: Successors,
    /// The flags in [`State::flags`](crate::state::State::flags) are older than those of the last instruction that has set them.
    pub(crate) memory_is_old: bool,
    /// In EL0's context.
    pub(crate) el0: bool,
    /// In a context where FPCR is not the default: floating-point arithmetic is the handlers'.
    pub(crate) fp_is_controlled: bool,
    /// FPSR.IXC is set, or MXCSR collects it: see `float`.
    pub(crate) collects: bool,
    /// All flags must be in memory.
    keeps_all_flags: bool,
    /// Address of the block's [`Block::rounds`].
    pub(super) counter: u64,
    /// The sites that accesses of a region take.
    sites: Sites<'a>,
    /// The sites whose code is complete.
    pub(super) site_codes: Vec<SiteCode>,
    /// The blocks that are translated together: their addresses, and where they are. None for a block alone.
    pub(super) region: Vec<(u64, Label)>,
    /// The next block of the region, whose code follows.
    pub(super) following: Option<u64>,
    /// Ways within the region: where to, what the host's flags hold there, and whether memory's are older.
    pub(super) edges: Vec<(u64, HostFlags, bool)>,
}

/// A block to be translated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) pc: u64,
    pub(crate) insns: &'a [Insn],
    /// Where the flags must be after the block.
    pub(crate) live_out: LiveOut,
    /// Where direct branches at its end lead, and where code there must find the flags; nothing if the end is of another
    /// kind.
    pub(crate) successors: Option<Successors>,
    /// Address of the block's [`Block::rounds`].
    pub(crate) counter: u64,
}

/// Targets of direct branches, and where code there must find the flags.
pub(crate) type Successors = [Option<(u64, Kept)>; 2];

impl Part<'_> {
    /// Address after it.
    fn end(&self) -> u64 {
        let own = usize::from(self.insns.last().is_some_and(|last| last.op == Op::FallThrough));
        self.pc.wrapping_add(4 * (self.insns.len() - own) as u64)
    }

    /// Whether a direct branch at its end may lead to `target`, or what follows it is there.
    fn leads_to(&self, target: u64) -> bool {
        let is_branch_there = |last: &Insn| last.op.kind() == Kind::Branch && last.imm == target;
        self.insns.last().is_some_and(is_branch_there) || self.end() == target
    }
}

impl<'a> Translator<'a> {
    fn new(
        asm: &'a mut Asm,
        stubs: &'a Stubs,
        (links, cold): (&'a mut Vec<LinkSite>, &'a mut Vec<Cold>),
        first: &Part<'a>,
        context: u16,
    ) -> Self {
        cold.clear();
        Self {
            asm,
            stubs,
            registers: Registers::new(),
            vectors: Registers::new(),
            known: [None; 34],
            unstored: 0,
            host_flags: HostFlags::Unknown,
            may_have_shown: true,
            sp_is_aligned: false,
            cold,
            links,
            insns: first.insns,
            at: 0,
            next_is_done: false,
            start: first.pc,
            live_out: first.live_out,
            successors: first.successors.unwrap_or_default(),
            memory_is_old: false,
            el0: context & context::EL == 0,
            fp_is_controlled: context & context::FP_CONTROLLED != 0,
            collects: false,
            counter: first.counter,
            sites: Sites { next: SITES, siteless: &NO_SITELESS },
            site_codes: Vec::new(),
            region: Vec::new(),
            following: None,
            edges: Vec::new(),
            keeps_all_flags: stubs.keeps_all_flags || context & context::SHORT != 0,
        }
    }

    /// Translates a block alone.
    ///
    /// # Errors
    /// If the code did not fit.
    pub(crate) fn translate(
        asm: &'a mut Asm,
        stubs: &'a Stubs,
        lists: (&'a mut Vec<LinkSite>, &'a mut Vec<Cold>),
        part: &Part<'a>,
        context: u16,
    ) -> Result<Made, AsmError> {
        let mut t = Self::new(asm, stubs, lists, part, context);
        let wanted = t.head();
        let head = t.asm.offset();
        t.body();
        t.finish(wanted, head)
    }

    /// Translates blocks of one page together, of which the first is the one that others enter. The `fixed` general
    /// and vector registers stay in host registers all the time; `written` are those of them that any block writes.
    ///
    /// # Errors
    /// If the code did not fit.
    pub(crate) fn translate_region(
        asm: &mut Asm,
        stubs: &Stubs,
        lists: (&mut Vec<LinkSite>, &mut Vec<Cold>),
        parts: &[Part<'_>],
        fixed: &Fixed,
        context: u16,
        sites: Sites<'_>,
    ) -> Result<Made, AsmError> {
        let (links, cold) = lists;
        let first_link = links.len();
        let mut parts = parts.to_vec();
        let first = Translator::new(asm, stubs, (links, cold), &parts[0], context);
        let (_, arrivals) = first.emit_region(&parts, fixed, sites)?;
        // Now it is known what each block finds in the host's flags; the second time stores no more than is needed.
        let needed = region_flags::live_out(&parts, &arrivals);
        parts.iter_mut().zip(needed).for_each(|(part, needed)| part.live_out = needed);
        asm.rewind();
        links.truncate(first_link);
        let second = Translator::new(asm, stubs, (links, cold), &parts[0], context);
        let (made, again) = second.emit_region(&parts, fixed, sites)?;
        debug_assert_eq!(arrivals, again, "what is stored does not change what the host's flags hold");
        Ok(made)
    }

    /// Emits the blocks of a region. Tells what each finds in the host's flags.
    fn emit_region(
        mut self,
        parts: &[Part<'a>],
        fixed: &Fixed,
        sites: Sites<'a>,
    ) -> Result<(Made, Vec<HostFlags>), AsmError> {
        self.sites = sites;
        self.region = parts.iter().map(|part| (part.pc, self.asm.label())).collect();
        let wanted = self.head();
        let head = self.asm.offset();
        self.fix(fixed);
        let mut arrivals = Vec::with_capacity(parts.len());
        for (part, at) in parts.iter().zip(0..) {
            self.begin(part);
            // Whoever enters the region brings no flags to its first block.
            if at > 0 {
                self.host_flags = self.arriving_flags(&parts[at..]);
                self.memory_is_old = self.edges.iter().any(|&(to, _, is_old)| to == part.pc && is_old);
            }
            arrivals.push(self.host_flags);
            let label = self.region[at].1;
            self.asm.bind(label);
            self.following = parts.get(at + 1).map(|next| next.pc);
            self.body();
        }
        Ok((self.finish(wanted, head)?, arrivals))
    }

    /// Gives registers their places for the whole region.
    fn fix(&mut self, fixed: &Fixed) {
        for &(guest, written) in &fixed.general {
            let Some(slot) = self.registers.fix(guest) else { continue };
            self.asm.mov(Size::Qword, POOL[slot], x_at(guest));
            if written {
                self.registers.set_dirty(slot);
            }
        }
        for &(guest, written) in &fixed.vectors {
            let Some(slot) = self.vectors.fix(guest) else { continue };
            self.asm.sse(MOVUPS, vector(slot), v_at(guest));
            if written {
                self.vectors.set_dirty(slot);
            }
        }
    }

    /// Begins another block: of registers, only the fixed ones are in host registers.
    fn begin(&mut self, part: &Part<'a>) {
        (self.insns, self.start, self.live_out) = (part.insns, part.pc, part.live_out);
        self.successors = part.successors.unwrap_or_default();
        self.memory_is_old = false;
        self.registers.forget_all();
        self.vectors.forget_all();
        self.known = [None; 34];
        self.unstored = 0;
        self.host_flags = HostFlags::Unknown;
        self.may_have_shown = true;
        self.sp_is_aligned = false;
        self.collects = false;
    }

    /// What the host's flags hold at the start of the present block of a region: what they do on all ways to it, none of
    /// which comes from the `rest` of the blocks, this one among them.
    fn arriving_flags(&self, rest: &[Part<'_>]) -> HostFlags {
        let target = self.start;
        let mut ways = self.edges.iter().filter(|(to, ..)| *to == target).map(|&(_, flags, _)| flags);
        let Some(flags) = ways.next() else { return HostFlags::Unknown };
        if rest.iter().any(|part| part.leads_to(target)) || ways.any(|other| other != flags) {
            return HostFlags::Unknown;
        }
        match flags {
            HostFlags::Borrow | HostFlags::Carry => flags,
            // Made for those readers that follow in the same block.
            HostFlags::Compared | HostFlags::Unknown => HostFlags::Unknown,
        }
    }

    fn body(&mut self) {
        let insns = self.insns;
        for (at, insn) in insns.iter().enumerate() {
            self.at = at;
            if std::mem::take(&mut self.next_is_done) {
                continue;
            }
            if !insn.op.row().is_some_and(|row| row.reads_flags) && !flags::leaves_host_flags(insn.op) {
                self.host_flags = HostFlags::Unknown;
            }
            self.instruction(insn);
            self.registers.unlock();
            self.vectors.unlock();
        }
    }

    fn finish(mut self, wanted: Label, head: usize) -> Result<Made, AsmError> {
        self.emit_cold();
        let leave = self.asm.label_offset(wanted).unwrap_or(0);
        let len = self.asm.finish()?;
        Ok(Made { len, head, leave, sites: self.site_codes })
    }

    /// The look at the pending word. Out of the way: the exit, which is also where a translation that has lost its block
    /// leads. So it looks for the block anew.
    fn head(&mut self) -> Label {
        let wanted = self.asm.label();
        stubs::jump_if_wanted(self.asm, wanted);
        self.cold.push(Cold::leave(wanted, self.start, self.stubs.dispatch));
        wanted
    }

    fn instruction(&mut self, insn: &Insn) {
        if !super::emit::emit(self, insn) {
            self.call_handler(insn);
        }
    }

    /// Translates an instruction as a call of its handler.
    pub(crate) fn call_handler(&mut self, insn: &Insn) {
        match insn.op.kind() {
            Kind::Plain => self.call_plain(insn),
            Kind::Fallible => self.call_fallible(insn),
            Kind::System => self.call_system(insn),
            Kind::Branch if insn.op == Op::FallThrough => self.leave_to(self.end()),
            Kind::Branch | Kind::Indirect => unreachable!("branches have emitters"),
        }
    }

    /// Address of the present instruction.
    pub(crate) fn pc(&self) -> u64 {
        self.start.wrapping_add(4 * self.at as u64)
    }

    /// Address after the block.
    pub(crate) fn end(&self) -> u64 {
        let own = usize::from(self.insns.last().is_some_and(|last| last.op == Op::FallThrough));
        self.start.wrapping_add(4 * (self.insns.len() - own) as u64)
    }

    /// What follows the present instruction.
    pub(crate) fn rest(&self) -> &'a [Insn] {
        &self.insns[self.at + 1..]
    }

    /// Where the flags must be after the block.
    pub(crate) fn live_out(&self) -> LiveOut {
        self.live_out
    }

    /// Where the flags that the present instruction sets, and leaves in the host's, must be stored.
    pub(crate) fn kept_flags(&self) -> Kept {
        self.kept_flags_of(self.live_out)
    }

    /// The same, if they must be there after the block.
    pub(crate) fn kept_flags_of(&self, after: LiveOut) -> Kept {
        if self.keeps_all_flags { Kept::Whole } else { flags::kept(&self.insns[self.at + 1..], after) }
    }

    pub(crate) fn set_link_kind(&mut self, number: usize, kind: LinkKind) {
        self.links[number].kind = kind;
    }

    // Registers.

    /// The host register with guest register `n`, for reading.
    pub(crate) fn read(&mut self, n: u8) -> Gpr {
        if let Some(slot) = self.registers.find(n) {
            return POOL[slot];
        }
        let host = self.place(n);
        match self.known[usize::from(n)] {
            Some(value) => {
                self.load_constant(host, value);
                if self.unstored >> n & 1 != 0 {
                    self.unstored &= !(1 << n);
                    self.mark_dirty(n);
                }
            }
            None if n == ZERO => self.load_constant(host, 0),
            None => self.asm.mov(Size::Qword, host, x_at(n)),
        }
        host
    }

    /// The host register for the new value of guest register `n`. What is needed of the old one has been read before.
    pub(crate) fn write(&mut self, n: u8) -> Gpr {
        let host = self.reserve(n);
        self.written(n);
        host
    }

    /// The host register for guest register `n`, whose old value still counts if the instruction fails before
    /// [`Self::written`].
    pub(crate) fn reserve(&mut self, n: u8) -> Gpr {
        if let Some(slot) = self.registers.find(n) {
            return POOL[slot];
        }
        // A known value that is nowhere else stays known until the new one is there.
        self.place(n)
    }

    /// Guest register `n`, which has a host register, has its new value there.
    pub(crate) fn written(&mut self, n: u8) {
        if n == SP {
            self.sp_is_aligned = false;
        }
        self.known[usize::from(n)] = None;
        self.unstored &= !(1 << n);
        if n != DISCARD && n != ZERO {
            self.mark_dirty(n);
        }
    }

    /// The value of guest register `n`, if it is known.
    pub(crate) fn known(&self, n: u8) -> Option<u64> {
        if n == ZERO { Some(0) } else { self.known[usize::from(n)] }
    }

    /// Guest register `n` gets a value that is known now.
    pub(crate) fn set_known(&mut self, n: u8, value: u64) {
        if n == DISCARD || n == ZERO {
            return;
        }
        if n == SP {
            self.sp_is_aligned = value & 15 == 0;
        }
        if self.registers.is_fixed(n) {
            let host = self.write(n);
            self.load_constant(host, value);
        } else {
            self.registers.forget(n);
            self.unstored |= 1 << n;
        }
        self.known[usize::from(n)] = Some(value);
    }

    fn mark_dirty(&mut self, n: u8) {
        if let Some(slot) = self.registers.peek(n) {
            self.registers.set_dirty(slot);
        }
    }

    fn place(&mut self, n: u8) -> Gpr {
        let (slot, evicted) = self.registers.allocate(n);
        if let Some(evicted) = evicted {
            self.asm.mov_store(Size::Qword, x_at(evicted), POOL[slot]);
        }
        POOL[slot]
    }

    /// Loads a constant without touching the host's flags.
    pub(crate) fn load_constant(&mut self, host: Gpr, value: u64) {
        self.asm.mov_imm(host, value);
    }

    /// Stores the known value of `n`. Changes RDX, no flags.
    fn store_known(&mut self, n: u8) {
        let Some(value) = self.known[usize::from(n)] else { return };
        match i32::try_from(value as i64) {
            Ok(imm) => self.asm.mov_store_imm(Size::Qword, x_at(n), imm),
            Err(_) => {
                self.asm.mov_imm(Gpr::Rdx, value);
                self.asm.mov_store(Size::Qword, x_at(n), Gpr::Rdx);
            }
        }
        self.unstored &= !(1 << n);
    }

    /// Stores all known values that memory lacks. Changes RDX, no flags.
    pub(crate) fn store_all_known(&mut self) {
        while self.unstored != 0 {
            self.store_known(self.unstored.trailing_zeros() as u8);
        }
    }

    /// Writes registers back, but for the fixed ones; host registers keep their values. Changes RDX, no flags.
    pub(crate) fn write_back(&mut self) {
        self.store_all_known();
        for (slot, guest) in self.registers.clone().dirty() {
            if !self.registers.is_fixed(guest) {
                self.asm.mov_store(Size::Qword, x_at(guest), POOL[slot]);
                self.registers.set_clean(slot);
            }
        }
        for (slot, guest) in self.vectors.clone().dirty() {
            if !self.vectors.is_fixed(guest) {
                self.asm.sse_store(MOVUPS_STORE, v_at(guest), vector(slot));
                self.vectors.set_clean(slot);
            }
        }
    }

    /// Writes the fixed registers back that any block of the region writes. Changes nothing.
    pub(crate) fn write_back_fixed(&mut self) {
        for (slot, guest) in self.registers.dirty_fixed() {
            self.asm.mov_store(Size::Qword, x_at(guest), POOL[slot]);
        }
        for (slot, guest) in self.vectors.dirty_fixed() {
            self.asm.sse_store(MOVUPS_STORE, v_at(guest), vector(slot));
        }
    }

    // Vector registers. XMM0 to XMM2 are scratch.

    /// The host register with vector register `n`, for reading: all 128 bits.
    pub(crate) fn read_vector(&mut self, n: u8) -> Xmm {
        if let Some(slot) = self.vectors.find(n) {
            return vector(slot);
        }
        let host = self.place_vector(n);
        self.asm.sse(MOVUPS, host, v_at(n));
        host
    }

    /// The host register for the new value of vector register `n`, all 128 bits of it. What is needed of the old one has
    /// been read before.
    pub(crate) fn write_vector(&mut self, n: u8) -> Xmm {
        let host = self.reserve_vector(n);
        self.vector_written(n);
        host
    }

    /// The host register for vector register `n`, whose old value still counts if the instruction fails before
    /// [`Self::vector_written`].
    pub(crate) fn reserve_vector(&mut self, n: u8) -> Xmm {
        match self.vectors.find(n) {
            Some(slot) => vector(slot),
            None => self.place_vector(n),
        }
    }

    /// Vector register `n`, which has a host register, has its new value there.
    pub(crate) fn vector_written(&mut self, n: u8) {
        if let Some(slot) = self.vectors.peek(n) {
            self.vectors.set_dirty(slot);
        }
    }

    fn place_vector(&mut self, n: u8) -> Xmm {
        let (slot, evicted) = self.vectors.allocate(n);
        if let Some(evicted) = evicted {
            self.asm.sse_store(MOVUPS_STORE, v_at(evicted), vector(slot));
        }
        vector(slot)
    }

    /// A site for the present access, if it is in a region and there is one left.
    pub(super) fn new_site(&mut self) -> Option<usize> {
        let site = self.sites.next;
        (site < SITES && !self.sites.siteless.contains(&self.insn_address())).then(|| {
            self.sites.next += 1;
            site
        })
    }

    /// Where the present instruction is: its name as long as there are translations of it.
    pub(super) fn insn_address(&self) -> usize {
        &raw const self.insns[self.at] as usize
    }

    /// The first address of the region.
    pub(super) fn region_start(&self) -> u64 {
        self.region.first().map_or(self.start, |&(pc, _)| pc)
    }

    // Calls of T0's handlers.

    fn call_plain(&mut self, insn: &Insn) {
        self.write_back();
        self.write_back_fixed();
        self.emit_call(insn.into(), self.pc());
        self.forget_written(insn);
        // It may have cleared FPSR.
        self.collects = false;
    }

    /// The call of the handler of the plain or fallible instruction at `pc`, which is where its block is: it stays there as
    /// long as translations of it. Memory has all registers.
    pub(crate) fn emit_call(&mut self, insn: NonNull<Insn>, pc: u64) {
        self.asm.mov_imm64(Gpr::Rdx, insn.as_ptr() as u64);
        // SAFETY: the block is being translated.
        if unsafe { insn.as_ref() }.op.kind() == Kind::Plain {
            self.asm.call_to(self.stubs.plain);
        } else {
            self.asm.mov_imm(Gpr::Rcx, pc & 0xfff);
            self.asm.call_to(self.stubs.fallible);
        }
    }

    /// The next instruction of the block.
    pub(crate) fn next(&self) -> Option<Insn> {
        self.insns.get(self.at + 1).copied()
    }

    /// The code of the present instruction does what the next one does, which cannot fail, too.
    pub(crate) fn skip_next(&mut self) {
        self.next_is_done = true;
    }

    /// Whether vector register `copy` was made equal to `original` shortly before the present instruction, and neither has
    /// changed since.
    pub(crate) fn is_copy(&self, copy: u8, original: u8) -> bool {
        /// Instructions that are looked at.
        const BACK: usize = 6;
        for insn in self.insns[..self.at].iter().rev().take(BACK) {
            if insn.op == Op::OrrV
                && insn.b == 16
                && insn.rd == copy
                && (insn.rn, insn.rm) == (original, original)
            {
                return true;
            }
            let Some(row) = insn.op.row() else { return false };
            let writes = |n: u8| {
                let written = row.registers.iter().filter(|register| register.role.is_vector());
                written.filter(|register| register.role.writes()).any(|register| {
                    let place = n.wrapping_sub(insn.register(register.slot)) & 31;
                    place < register.count
                })
            };
            if writes(copy) || writes(original) {
                return false;
            }
        }
        false
    }

    fn call_fallible(&mut self, insn: &Insn) {
        self.write_back();
        self.write_back_fixed();
        self.emit_call(insn.into(), self.pc());
        if matches!(insn.op, Op::Undefined | Op::FpTrapped) {
            // It has taken its exception: this is never reached.
            self.asm.ud2();
            return;
        }
        self.forget_written(insn);
    }

    fn call_system(&mut self, insn: &Insn) {
        self.write_back();
        self.write_back_fixed();
        self.asm.mov_imm64(Gpr::Rdx, std::ptr::from_ref(insn) as u64);
        self.asm.mov_imm(Gpr::Rcx, self.pc() & 0xfff);
        self.asm.call_to(self.stubs.system);
    }

    /// The registers that a handler has written are newer in memory; the host's flags are lost.
    fn forget_written(&mut self, insn: &Insn) {
        self.host_flags = HostFlags::Unknown;
        let Some(row) = insn.op.row() else { return };
        self.memory_is_old &= !row.writes_flags;
        // Functions in Rust may change them all.
        self.vectors.forget_all();
        for (slot, guest) in self.vectors.fixed() {
            self.asm.sse(MOVUPS, vector(slot), v_at(guest));
        }
        for register in row.registers {
            if register.role.is_vector() || !register.role.writes() {
                continue;
            }
            let first = insn.register(register.slot);
            for n in first..first + register.count {
                if n == SP {
                    self.sp_is_aligned = false;
                }
                if let Some(known) = self.known.get_mut(usize::from(n)) {
                    *known = None;
                    self.registers.forget(n);
                    self.reload_fixed(n);
                }
            }
        }
    }

    /// A fixed register's value in memory is the newer one.
    fn reload_fixed(&mut self, n: u8) {
        if let Some(slot) = self.registers.peek(n).filter(|_| self.registers.is_fixed(n)) {
            self.asm.mov(Size::Qword, POOL[slot], x_at(n));
        }
    }
}

/// The instructions of a block.
pub(crate) fn insns_of<'b>(block: NonNull<Block>) -> &'b [Insn] {
    // SAFETY: blocks are headers with `len` instructions behind, and one more if the last of these is not what ends
    // the block; they stay where they are until the arena is emptied, which never happens while one is translated.
    unsafe {
        let first = Block::insns(block);
        let len = usize::from(block.as_ref().len);
        let ends = len > 0 && !matches!((*first.add(len - 1)).op.kind(), Kind::Plain | Kind::Fallible);
        let trapped = len > 0 && matches!((*first.add(len - 1)).op, Op::Undefined | Op::FpTrapped);
        std::slice::from_raw_parts(first, if ends || trapped { len } else { len + 1 })
    }
}
