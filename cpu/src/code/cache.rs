//! How blocks are found: by direct links, by a small cache on the virtual address, by a table on everything.
//!
//! A block's key is the physical and the virtual address of its first instruction and the context that it was decoded
//! for; ASIDs and table bases are not part of it, so process switches keep all blocks. Links and the jump cache skip
//! translation, so they hold only while nothing that translation depends on has changed: each carries a *stamp*, and
//! the vCPU has a current stamp for each half of its address space. To invalidate all of them is to take new stamps.

use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::NonNull;

use hw::Pa;

use super::block::{Arena, Block, LONGEST, Link, NEVER};
use super::code_pages::granules;
use crate::insn::{Features, Insn, Kind, decode};
use crate::state::Pstate;
use crate::{Cpu, Exception};

/// What the meaning of an instruction depends on besides its bits: part of a block's key and of stamps.
pub(crate) mod context {
    /// PSTATE.EL, as a number.
    pub(crate) const EL: u16 = 3;
    /// Stage 1 translation is on: SCTLR_ELx.M.
    pub(crate) const MMU: u16 = 1 << 2;
    /// CPACR_EL1.FPEN traps floating point and SIMD at this EL.
    pub(crate) const FP_TRAPPED: u16 = 1 << 3;
    /// PSTATE.IL: every instruction takes an exception.
    pub(crate) const ILLEGAL: u16 = 1 << 4;
    /// Software step: blocks of one instruction.
    pub(crate) const STEP: u16 = 1 << 5;
    /// There are breakpoints that match. In a block's key: one of them is in its page, so that it is one instruction
    /// long.
    pub(crate) const BREAKPOINTS: u16 = 1 << 6;
    /// Blocks of one instruction, because a budget of instructions is nearly spent.
    pub(crate) const SINGLE: u16 = 1 << 7;
    /// FPCR asks for another rounding than to nearest, or flushes denormals: translations leave arithmetic to the
    /// handlers.
    pub(crate) const FP_CONTROLLED: u16 = 1 << 8;
    /// Any of the contexts whose blocks are one instruction long.
    pub(crate) const SHORT: u16 = STEP | BREAKPOINTS | SINGLE;
}

/// Entries of the jump cache.
pub(crate) const JUMPS: usize = 8192;

/// Where a branch to `pc` leads. 32 bytes, so that translated code finds an entry by a shift.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Jump {
    pub pc: u64,
    /// Valid while this is the vCPU's stamp for the half of the address space that `pc` is in.
    pub stamp: u64,
    pub block: NonNull<Block>,
}

impl Jump {
    const NONE: Self = Self { pc: 0, stamp: NEVER, block: NonNull::dangling() };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    pa: u64,
    pc: u64,
    context: u16,
}

/// Pages whose rewriting is counted, at most; the count begins anew when the arena is emptied.
const REWRITTEN: usize = 1 << 16;

/// Multiply and fold: keys are addresses, and nobody gains by making them collide but the guest that pays for it.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

#[allow(clippy::disallowed_types, reason = "this hash takes nothing from the host")]
type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<AddressHasher>>;

/// One vCPU's blocks.
pub(crate) struct Code {
    arena: Arena,
    blocks: Map<Key, NonNull<Block>>,
    /// Blocks by physical page.
    pages: Map<u64, Vec<NonNull<Block>>>,
    pub(crate) jumps: Box<[Jump; JUMPS]>,
    /// The vCPU's present context.
    context: u16,
    /// Counts changes of mappings, for each half of the address space.
    generations: [u64; 2],
    /// Counts how often the arena has been emptied.
    pub(crate) emptied: u64,
    features: Features,
    /// What blocks have in place of a translation.
    pub(crate) untranslated: *const u8,
    /// Blocks of one instruction are wanted.
    single: bool,
    /// What a new block has as its [`Block::heat`].
    heat: u32,
    /// How often code of a page has been overwritten: the more, the hotter a block there must be to be translated.
    rewritten: Map<u64, u32>,
    /// The instructions of the last block that was decoded; the room is kept for the next.
    decoded: Vec<Insn>,
    /// Translations that have lost their block since the last look.
    pub(crate) dropped: Vec<*const u8>,
}

// SAFETY: all pointers lead into the arena, which belongs to this value.
unsafe impl Send for Code {}

impl Code {
    /// No blocks yet. Each is interpreted `heat` times before it is asked whether to translate it.
    pub(crate) fn new(features: Features, heat: u32) -> Self {
        Self {
            arena: Arena::default(),
            blocks: Map::default(),
            pages: Map::default(),
            jumps: Box::new([Jump::NONE; JUMPS]),
            context: 0,
            generations: [0; 2],
            emptied: 0,
            features,
            untranslated: std::ptr::null(),
            single: false,
            heat,
            rewritten: Map::default(),
            dropped: Vec::new(),
            decoded: Vec::with_capacity(LONGEST + 1),
        }
    }

    /// The stamp of now. Stamps of the two halves are never equal.
    fn stamp(&self, half: usize) -> u64 {
        self.generations[half] << 17 | (half as u64) << 16 | u64::from(self.context)
    }

    /// Forgets everything. Only between blocks, and links of blocks that are still running are not followed after.
    fn empty(&mut self) {
        self.blocks.clear();
        self.pages.clear();
        self.jumps.fill(Jump::NONE);
        self.rewritten.clear();
        self.dropped.clear();
        self.arena.empty();
        self.emptied += 1;
    }
}

impl Code {
    /// The block at `pc`, in the page and context of `block`, if there is one.
    pub(crate) fn block_beside(&self, block: &Block, pc: u64) -> Option<NonNull<Block>> {
        let key = Key { pa: block.pa & !0xfff | pc & 0xfff, pc, context: block.context };
        self.blocks.get(&key).copied()
    }

    /// Leaves all blocks to the interpreter.
    pub(crate) fn never_translate(&mut self) {
        self.heat = u32::MAX;
    }

    /// Asks for blocks of one instruction, or no longer. The context has changed then.
    pub(crate) fn set_single(&mut self, single: bool) {
        self.single = single;
    }

    /// How often a new block at `pa` is interpreted first.
    fn heat_at(&self, pa: u64) -> u32 {
        let rewritten = self.rewritten.get(&(pa & !0xfff)).copied().unwrap_or(0);
        if rewritten < PATIENCE {
            self.heat
        } else {
            self.heat.max(1).saturating_mul(1 << (rewritten - PATIENCE).min(DOUBLINGS))
        }
    }
}

/// Rewrites of a page after which its blocks are translated later each time.
const PATIENCE: u32 = 16;

/// How often the heat of such a page's blocks doubles, at most: what runs 10,000 times and more is worth a translation even
/// if it is rewritten then, and a page that one program has rewritten may later hold another's code.
const DOUBLINGS: u32 = 10;

/// Which half of the address space `va` is in: as for translation (D8.2.4) bit 55 tells, whatever is above it.
#[inline(always)]
pub(crate) const fn half(va: u64) -> usize {
    (va >> 55 & 1) as usize
}

#[inline(always)]
const fn jump_slot(pc: u64) -> usize {
    (pc >> 2) as usize % JUMPS
}

impl Cpu {
    /// PSTATE.EL, PSTATE.IL, SCTLR_EL1.M, CPACR_EL1.FPEN, FPCR, software step or the breakpoints that match may have
    /// changed.
    pub(crate) fn context_changed(&mut self) {
        let mut context = self.state.pstate.el() as u16 & context::EL;
        if self.mem.mmu_on() {
            context |= context::MMU;
        }
        if self.fp_is_trapped() {
            context |= context::FP_TRAPPED;
        }
        if self.state.pstate.has(Pstate::IL) {
            context |= context::ILLEGAL;
        }
        if !crate::softfloat::is_default(self.state.fpcr) {
            context |= context::FP_CONTROLLED;
        }
        if self.is_stepping() {
            context |= context::STEP;
        }
        if self.code.single {
            context |= context::SINGLE;
        }
        if let Some(others) = self.arm_breakpoints() {
            context |= context::BREAKPOINTS;
            if others {
                // Links and jumps may lead to instructions that now have a breakpoint.
                self.code.generations = self.code.generations.map(|generation| generation + 1);
            }
        }
        self.code.context = context;
        self.state.stamp = [self.code.stamp(0), self.code.stamp(1)];
    }

    /// CPACR_EL1.FPEN (bits \[21:20\]): 0b11 traps nothing, 0b01 traps EL0, the others trap both.
    fn fp_is_trapped(&self) -> bool {
        match self.state.sys.cpacr >> 20 & 3 {
            3 => false,
            1 => self.state.pstate.el() == 0,
            _ => true,
        }
    }

    /// A mapping that code may have been fetched through has changed: with `lower`, in TTBR0's half alone.
    pub(crate) fn mapping_changed(&mut self, lower: bool) {
        self.code.generations[0] += 1;
        if !lower {
            self.code.generations[1] += 1;
        }
        self.state.stamp = [self.code.stamp(0), self.code.stamp(1)];
    }

    /// Forgets all blocks, and with them their translations, which refer to them. Only between blocks.
    pub(crate) fn empty_code(&mut self) {
        self.code.empty();
        #[cfg(target_arch = "x86_64")]
        if let Some(jit) = &mut self.jit {
            jit.empty();
            // What one instruction remembers is not for another: it may be a store, or of another exception level.
            self.mem.tlb.forget_sites();
        }
    }

    /// Drops this vCPU's blocks that overlap `granules` (bits of 64 bytes each) of the page at `page`. They may still
    /// be running: their memory stays.
    pub(crate) fn drop_code(&mut self, page: Pa, granules: u64) {
        let Some(blocks) = self.code.pages.get_mut(&page.0) else { return };
        let mut dropped = false;
        let table = &mut self.code.blocks;
        let translations = &mut self.code.dropped;
        blocks.retain(|&pointer| {
            // SAFETY: blocks in the lists are in the arena.
            let block = unsafe { pointer.as_ref() };
            let overlap = block.granules & granules != 0;
            if overlap {
                table.remove(&Key { pa: block.pa, pc: block.pc, context: block.context });
                translations.push(block.code);
                dropped = true;
            }
            !overlap
        });
        if blocks.is_empty() {
            self.code.pages.remove(&page.0);
        }
        if dropped {
            if self.code.rewritten.len() < REWRITTEN {
                *self.code.rewritten.entry(page.0).or_default() += 1;
            }
            self.mapping_changed(false);
            #[cfg(target_arch = "x86_64")]
            self.drop_translations();
        }
    }

    /// Drops all of this vCPU's blocks. None may be running: their memory is used again.
    pub(crate) fn drop_all_code(&mut self) {
        self.empty_code();
    }

    /// The block at `pc`, if it is in the jump cache.
    #[inline(always)]
    pub(crate) fn cached_block(&self, pc: u64) -> Option<NonNull<Block>> {
        let jump = &self.code.jumps[jump_slot(pc)];
        (jump.pc == pc && jump.stamp == self.state.stamp[half(pc)]).then_some(jump.block)
    }

    /// The block at `pc`, decoded if need be.
    ///
    /// # Errors
    /// What fetching from `pc` raises.
    pub(crate) fn find_block(&mut self, pc: u64) -> Result<NonNull<Block>, Exception> {
        if let Some(block) = self.cached_block(pc) {
            return Ok(block);
        }
        // In the order of their priority (D1.3.5).
        if pc & 3 != 0 {
            return Err(Exception::pc_alignment(pc));
        }
        let pa = self.translate_fetch(pc)?;
        let mut context = self.code.context;
        if context & context::BREAKPOINTS != 0 {
            if let Some(stop) = self.debugger_breakpoint(pc) {
                return Err(stop);
            }
            if self.has_breakpoint(pc) {
                return Err(Exception::breakpoint());
            }
            if !self.has_breakpoint_in_page(pc) {
                context &= !context::BREAKPOINTS;
            }
        }
        if context & context::ILLEGAL != 0 {
            return Err(Exception::illegal_state());
        }
        let key = Key { pa: pa.0, pc, context };
        let block = match self.code.blocks.get(&key) {
            Some(&block) => block,
            None => self.build(key)?,
        };
        let stamp = self.state.stamp[half(pc)];
        self.code.jumps[jump_slot(pc)] = Jump { pc, stamp, block };
        Ok(block)
    }

    /// The block that follows `from` at `target`, by a link that is made here. `slot` is 0 for the branch's target
    /// and 1 for the next instruction.
    #[cold]
    pub(crate) fn follow(
        &mut self,
        from: NonNull<Block>,
        slot: usize,
        target: u64,
    ) -> Result<NonNull<Block>, Exception> {
        let emptied = self.code.emptied;
        let block = self.find_block(target)?;
        if self.code.emptied == emptied {
            // SAFETY: `from` is in the arena, which has not been emptied since it ran; nobody else refers to it.
            let from = unsafe { &mut *from.as_ptr() };
            // A link's stamp is compared with that of the block's own half.
            if usize::from(from.half) == half(target) {
                from.links[slot] = Link { stamp: self.state.stamp[half(target)], block };
            }
        }
        Ok(block)
    }

    /// Decodes the block of `key`.
    fn build(&mut self, key: Key) -> Result<NonNull<Block>, Exception> {
        let pa = Pa(key.pa);
        let mut words = [0u32; LONGEST];
        let mut insns = std::mem::take(&mut self.code.decoded);
        self.read_words(pa, &mut words)?;
        let count = loop {
            let count = self.decode_run(key, &words, &mut insns);
            // Marked before the bytes that count are read: see `CodePages`.
            // Even a page that another vCPU has marked may still have writers whose end that vCPU is waiting for.
            let _ = self.cluster.code_pages.add(pa, 4 * count as u64);
            self.protect_code_page(pa);
            let mut again = [0u32; LONGEST];
            self.read_words(pa, &mut again)?;
            if again[..count] == words[..count] {
                break count;
            }
            words = again;
        };
        let nowhere = Link { stamp: NEVER, block: NonNull::dangling() };
        let header = Block {
            pc: key.pc,
            end: key.pc.wrapping_add(4 * count as u64),
            pa: key.pa,
            links: [nowhere; 2],
            context: key.context,
            half: half(key.pc) as u8,
            len: count as u16,
            heat: self.code.heat_at(key.pa),
            rounds: self.cluster.tier.rounds(),
            is_region: false,
            renewed: 0,
            code: self.code.untranslated,
            granules: granules(key.pa, 4 * count as u64),
        };
        if !self.code.arena.has_room(insns.len()) {
            self.empty_code();
        }
        self.counts.blocks += 1;
        let block = self.code.arena.add(header, &insns);
        self.code.decoded = insns;
        self.code.blocks.insert(key, block);
        self.code.pages.entry(key.pa & !0xfff).or_default().push(block);
        Ok(block)
    }

    /// The words from `pa` on, up to the end of its page; zeros after it.
    fn read_words(&self, pa: Pa, words: &mut [u32; LONGEST]) -> Result<(), Exception> {
        let bytes = (0x1000 - (pa.0 & 0xfff)).min(4 * LONGEST as u64) as usize;
        let mut buffer = [0u8; 4 * LONGEST];
        // `translate_fetch` answers with RAM only, and RAM comes in whole pages.
        self.cluster.host.ram().read(pa, &mut buffer[..bytes]).expect("code is fetched from RAM");
        for (word, bytes) in words.iter_mut().zip(buffer.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Ok(())
    }

    /// Whether an instruction is to have a block to itself, because lockstep cannot run it twice.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_alone(&self, insn: &Insn) -> bool {
        self.cluster.tier == crate::Tier::Lockstep && !crate::lockstep::is_repeatable(insn)
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[expect(clippy::unused_self, reason = "as on hosts with translations")]
    pub(crate) fn is_alone(&self, _insn: &Insn) -> bool {
        false
    }

    /// Decodes up to the first instruction that ends a block, the end of the page or the longest block. Returns how
    /// many words that takes.
    fn decode_run(&self, key: Key, words: &[u32; LONGEST], insns: &mut Vec<Insn>) -> usize {
        insns.clear();
        let longest = if key.context & context::SHORT == 0 { LONGEST } else { 1 };
        let room = ((0x1000 - (key.pa & 0xfff)) / 4).min(longest as u64) as usize;
        let trapped = key.context & context::FP_TRAPPED != 0;
        for (n, &word) in words[..room].iter().enumerate() {
            let insn = decode(word, key.pc.wrapping_add(4 * n as u64), self.code.features, trapped);
            let alone = self.is_alone(&insn);
            if alone && n > 0 {
                insns.push(Insn::fall_through());
                return n;
            }
            insns.push(insn);
            if alone && !ends_block(&insn) {
                insns.push(Insn::fall_through());
                return 1;
            }
            if ends_block(&insn) {
                return n + 1;
            }
        }
        insns.push(Insn::fall_through());
        room
    }
}

/// Whether control does not simply go on to the next instruction.
fn ends_block(insn: &Insn) -> bool {
    use crate::insn::Op;
    match insn.op.kind() {
        Kind::Plain => false,
        // These always take their exception: what follows may not even be code.
        Kind::Fallible => matches!(insn.op, Op::Undefined | Op::FpTrapped),
        Kind::Branch | Kind::Indirect | Kind::System => true,
    }
}
