//! Translation to the host's code (tiers T1 and T2), on x86-64.
//!
//! A block that has been interpreted often enough is translated: `translator` goes through its instructions, `emit` has
//! what each becomes, `access` the loads and stores, `flags` the condition flags, `registers` the books of who is
//! where. Translations jump to one another directly; what all of them share is in `stubs`, what they call in `runtime`.
//! `x64` encodes instructions, `memory` is where the code lives. docs/cpu-engine.md has the whole picture. The oracle for all
//! of it is the interpreter: what a translation leaves in [`State`](crate::State) is what the handlers would have left.

mod access;
mod emit;
mod flags;
mod float;
mod leave;
mod memory;
mod region;
mod region_flags;
mod registers;
mod runtime;
mod single;
mod sites;
mod stubs;
#[cfg(test)]
mod tests;
mod translator;
mod x64;

use std::any::Any;
use std::collections::BTreeSet;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use access::Cold;
use flags::Kept;
use memory::CodeMemory;
pub(crate) use single::Stopped;
use sites::{Patience, RENEWALS, SiteCode};
use stubs::{Stubs, exit};
pub(crate) use translator::insns_of;
use translator::{Fixed, LinkKind, LinkSite, Made, Part, Sites, Successors, Translator};
use x64::{Asm, AsmError};

use crate::code::{Block, context, granules};
use crate::insn::{Insn, Kind, decode};
use crate::interp::{Handler, Left};
use crate::observe::Activity;
use crate::{CodeKind, CodeMap, Cpu, MappedCode};

/// Bytes for the translations of one vCPU, at most and at least. The host provides them when they are first used.
const ARENA: usize = 32 << 20;
const SMALLEST_ARENA: usize = 8 << 20;
/// Bytes for those of all vCPUs, as long as each has the least.
const ARENAS: usize = 1 << 30;

/// Room that must be left for a block: the longest with the largest emitters takes about half of it.
const ROOM: usize = 256 << 10;

/// What translated code and the functions that it calls hand each other.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Frame {
    /// Host registers that the functions may change.
    saved: [u64; 6],
    /// Values of accesses of more than 8 bytes.
    pub(crate) transfer: [u64; 4],
    /// Where MXCSR is read.
    mxcsr: u32,
    /// Not zero while MXCSR's sticky flag is to be trusted: see `float`.
    collects: u32,
    /// Host registers that hold vector registers of the guest.
    vectors: [u128; stubs::VECTORS],
    /// A panic on its way from a function to the caller of the translated code.
    panic: Option<Box<dyn Any + Send>>,
}

/// A translation, by its place in the arena.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Where it starts.
    offset: u32,
    /// The code that leaves it before its first instruction.
    leave: u32,
    /// The guest page of its instructions.
    page: u64,
}

/// How much has been translated since the vCPU was made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MadeCode {
    pub(crate) blocks: u64,
    pub(crate) regions: u64,
    pub(crate) bytes: u64,
}

/// What a translation adds to: links, and code out of the way.
type Lists<'a> = (&'a mut Vec<LinkSite>, &'a mut Vec<Cold>);

/// The translations of one vCPU.
pub(crate) struct Jit {
    memory: CodeMemory,
    asm: Asm,
    stubs: Stubs,
    /// Bytes in use.
    used: usize,
    /// In the order of their offsets.
    starts: Vec<Start>,
    links: Vec<LinkSite>,
    /// Of the translation that is being made; the room is kept for the next.
    cold: Vec<Cold>,
    /// How many translations are of regions.
    regions: usize,
    /// Bytes of the look at the pending word that each translation starts with.
    head: u64,
    /// Those sites that regions use.
    sites: Vec<SiteCode>,
    /// Instructions, by where they are, whose accesses have no site: theirs were crowded.
    siteless: BTreeSet<usize>,
    /// The first address of a region that is to be made anew, because more of its instructions have no site.
    outdated: Option<u64>,
    patience: Patience,
    /// Who hears of each translation.
    code_map: Option<Arc<dyn CodeMap>>,
    /// What was ever made.
    pub(crate) made: MadeCode,
}

impl Jit {
    /// No translations yet, for one of `cpus` vCPUs. With `keeps_all_flags`, they store the flags whether anybody reads
    /// them or not.
    ///
    /// # Errors
    /// If the host gives no executable memory.
    pub(crate) fn new(
        cpus: usize,
        keeps_all_flags: bool,
        code_map: Option<Arc<dyn CodeMap>>,
    ) -> io::Result<Self> {
        let bytes = (ARENAS / cpus).clamp(SMALLEST_ARENA, ARENA).next_multiple_of(4096);
        let memory =
            if code_map.is_some() { CodeMemory::for_profilers(bytes) } else { CodeMemory::new(bytes) }?;
        // SAFETY: the writable view is as large, and only this value writes to it.
        let mut asm = unsafe { Asm::new(memory.write_start(), bytes, memory.exec_start()) };
        let mut stubs = stubs::emit(&mut asm);
        let mut patience = Patience::new();
        stubs.patience = patience.start();
        stubs.keeps_all_flags = keeps_all_flags;
        stubs.len = asm.finish().map_err(|error| io::Error::other(format!("{error:?}")))?;
        let used = stubs.len;
        let jit = Self {
            memory,
            asm,
            stubs,
            used,
            starts: Vec::new(),
            links: Vec::new(),
            cold: Vec::new(),
            regions: 0,
            head: 0,
            sites: Vec::new(),
            siteless: BTreeSet::new(),
            outdated: None,
            patience,
            code_map,
            made: MadeCode::default(),
        };
        jit.map(0, used, CodeKind::Stubs);
        Ok(jit)
    }

    /// Tells where code is that has been made.
    fn map(&self, offset: usize, len: usize, kind: CodeKind) {
        if let Some(map) = &self.code_map {
            map.added(&MappedCode { start: self.memory.exec_start() + offset as u64, len: len as u64, kind });
        }
    }

    /// The code that blocks without a translation lead to.
    pub(crate) fn untranslated(&self) -> *const u8 {
        self.stubs.untranslated as *const u8
    }

    /// The page of the instructions of the translation that the address `back` is in.
    fn page_of(&self, back: u64) -> u64 {
        let offset = (back - self.memory.exec_start()) as u32;
        let next = self.starts.partition_point(|start| start.offset < offset);
        self.starts[next - 1].page
    }

    /// Forgets all translations.
    pub(crate) fn empty(&mut self) {
        self.used = self.stubs.len;
        self.starts.clear();
        self.links.clear();
        self.regions = 0;
        self.sites.clear();
        self.siteless.clear();
        self.outdated = None;
        self.patience.renew();
    }

    /// Whether any translation may be that of a region.
    pub(crate) fn has_regions(&self) -> bool {
        self.regions > 0
    }

    fn has_room(&self) -> bool {
        self.used + ROOM <= self.memory.bytes()
    }

    /// Makes a translation, for which there is room, of instructions in the page of `pc`.
    fn make(
        &mut self,
        pc: u64,
        kind: CodeKind,
        translate: impl FnOnce(&mut Asm, &Stubs, Lists<'_>) -> Result<Made, AsmError>,
    ) -> Option<*const u8> {
        let origin = self.memory.exec_start() + self.used as u64;
        // SAFETY: `used` bytes are in use and not touched any more; the rest of the view is free.
        unsafe {
            let place = self.memory.write_start().add(self.used);
            self.asm.restart(place, self.memory.bytes() - self.used, origin);
        }
        let links = self.links.len();
        let Ok(made) = translate(&mut self.asm, &self.stubs, (&mut self.links, &mut self.cold)) else {
            self.links.truncate(links);
            return None;
        };
        self.sites.extend(made.sites);
        let leave = self.used + made.leave;
        self.starts.push(Start { offset: self.used as u32, leave: leave as u32, page: pc & !0xfff });
        self.head = made.head as u64;
        self.made.bytes += made.len as u64;
        match kind {
            CodeKind::Region(_) => self.made.regions += 1,
            CodeKind::Block(_) | CodeKind::Stubs => self.made.blocks += 1,
        }
        self.map(self.used, made.len, kind);
        self.used += made.len.next_multiple_of(16);
        Some(origin as *const u8)
    }

    /// Translates a block.
    fn translate(&mut self, part: &Part<'_>, context: u16) -> Option<*const u8> {
        self.make(part.pc, CodeKind::Block(part.pc), |asm, stubs, lists| {
            Translator::translate(asm, stubs, lists, part, context)
        })
    }

    /// Translates a region.
    fn translate_region(&mut self, parts: &[Part<'_>], fixed: &Fixed, context: u16) -> Option<*const u8> {
        let siteless = std::mem::take(&mut self.siteless);
        let sites = Sites { next: self.sites.len(), siteless: &siteless };
        let code = self.make(parts[0].pc, CodeKind::Region(parts[0].pc), |asm, stubs, lists| {
            Translator::translate_region(asm, stubs, lists, parts, fixed, context, sites)
        });
        self.siteless = siteless;
        code
    }

    /// Puts a jump to `target` at the start of a translation, or of a site: all that leads to it goes on there.
    fn redirect(&mut self, code: *const u8, target: u64) {
        let Some(offset) = self.memory.offset_of(code as u64) else { return };
        let Some(distance) = x64::label::rel32(code as u64 + 1, target) else { return };
        let mut jump = [0xe9, 0, 0, 0, 0];
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        // SAFETY: what starts there is longer than five bytes. This thread alone runs it, and is not there now; nothing leads
        // to the middle of these five but what has run before them.
        unsafe {
            self.memory.write_start().add(offset).copy_from_nonoverlapping(jump.as_ptr(), jump.len());
        }
    }

    /// Makes a translation that has lost its block leave at its start, to have the block looked up anew.
    fn kill(&mut self, code: *const u8) {
        let Some(offset) = self.memory.offset_of(code as u64) else { return };
        let Ok(index) = self.starts.binary_search_by_key(&(offset as u32), |start| start.offset) else {
            return;
        };
        let leave = self.memory.exec_start() + u64::from(self.starts[index].leave);
        self.redirect(code, leave);
    }

    /// Stops counting the rounds of the loop that link `number` tells of.
    fn stop_counting(&mut self, number: usize) {
        if let LinkKind::Counter(rounds) = self.links[number].kind {
            // SAFETY: the address is that of a block's field, and blocks live as long as their translations.
            unsafe { (rounds as *mut i32).write(i32::MAX) };
        }
    }

    /// Makes link `number` lead to `code`, as long as `stamp` is the vCPU's.
    fn make_link(&mut self, number: usize, code: *const u8, stamp: u64) {
        match self.links[number].kind {
            LinkKind::Jump(field) => {
                let done = self.memory.patch_rel32(field, code as u64);
                debug_assert!(done, "links are aligned and in reach");
            }
            LinkKind::Stamped(place) => {
                let Some(place) = self.memory.to_write(place) else { return };
                // SAFETY: two aligned words of a translation's data, which does not run now.
                unsafe {
                    place.cast::<u64>().write(stamp);
                    place.cast::<u64>().add(1).write(code as u64);
                }
            }
            LinkKind::Counter(_) => unreachable!("counters are no links"),
        }
    }
}

impl Cpu {
    /// Runs `block` and what follows it in translated code, until something else is to be done. With `looked`, it is run
    /// whatever is pending.
    pub(crate) fn run_translated(&mut self, mut block: NonNull<Block>, mut looked: bool) -> Left {
        loop {
            // SAFETY: the caller, or the loop, has found the block just now.
            let pc = unsafe { block.as_ref() }.pc;
            let emptied = self.code.emptied;
            let Some(code) = self.translation_of(block) else {
                if self.code.emptied == emptied {
                    return Left::Block(block);
                }
                self.state.pc = pc;
                return Left::LookAround;
            };
            let Some(jit) = &self.jit else { return Left::Block(block) };
            let skipped = if std::mem::take(&mut looked) { jit.head } else { 0 };
            let left = self.enter_translated(code as u64 + skipped);
            let (target, link) = match left & 0xff {
                exit::PENDING => {
                    self.counts.exits.pending += 1;
                    self.settle_flags();
                    self.renew_region();
                    return Left::LookAround;
                }
                exit::LOOKUP => {
                    self.counts.exits.lookup += 1;
                    (self.mem.branch_target(self.state.pc), None)
                }
                exit::HOT => {
                    self.counts.exits.hot += 1;
                    let number = (left >> 8) as usize;
                    match self.heat_up(number) {
                        Some(next) => {
                            block = next;
                            continue;
                        }
                        None => return Left::LookAround,
                    }
                }
                exit::LINK => {
                    self.counts.exits.link += 1;
                    let number = (left >> 8) as usize;
                    let Some(jit) = &self.jit else { return Left::LookAround };
                    (jit.links[number].target, Some(number))
                }
                _ => {
                    self.counts.exits.interpret += 1;
                    return match self.find_block(self.state.pc) {
                        Ok(block) => Left::Block(block),
                        Err(exception) => self.raise_at(self.state.pc, exception),
                    };
                }
            };
            let emptied = self.code.emptied;
            block = match self.find_block(target) {
                Ok(block) => block,
                Err(exception) => return self.raise_at(target, exception),
            };
            if self.code.emptied != emptied {
                // The link is gone.
                continue;
            }
            let code = self.translation_of(block);
            if self.code.emptied != emptied {
                // Now the block is gone, too.
                self.state.pc = target;
                return Left::LookAround;
            }
            let Some(code) = code else { return Left::Block(block) };
            if let Some(number) = link
                && let Some(jit) = &mut self.jit
            {
                jit.make_link(number, code, self.state.stamp[crate::code::half(target)]);
            }
        }
    }

    /// Runs translated code from `code` on, until it leaves; tells how, see [`exit`].
    fn enter_translated(&mut self, code: u64) -> u64 {
        let Some(jit) = &self.jit else { return exit::PENDING };
        // SAFETY: `enter` is the code that `stubs` has emitted for this signature.
        let enter: extern "C" fn(*mut u8, u64) -> u64 = unsafe { std::mem::transmute(jit.stubs.enter) };
        let base = std::ptr::from_mut(self).cast::<u8>().wrapping_add(stubs::BASE);
        self.watch.switch(Activity::Translated);
        let left = enter(base, code);
        self.state.take_shown_flags();
        self.watch.switch(Activity::Between);
        if let Some(panic) = self.frame.panic.take() {
            std::panic::resume_unwind(panic);
        }
        left
    }

    /// Makes a region of the loop that link `number` tells of, if that is possible. Gives its block, or none if `state.pc`
    /// says where to go on.
    pub(crate) fn heat_up(&mut self, number: usize) -> Option<NonNull<Block>> {
        let jit = self.jit.as_mut()?;
        let target = jit.links[number].target;
        jit.stop_counting(number);
        self.state.pc = target;
        let emptied = self.code.emptied;
        // A fault, or an arena that was emptied: the run loop meets it again.
        let head = self.find_block(target).ok().filter(|_| self.code.emptied == emptied)?;
        // SAFETY: found just now.
        let known = unsafe { head.as_ref() };
        let jit = self.jit.as_ref()?;
        if known.heat != 0 || known.code == jit.untranslated() || known.is_region || !jit.has_room() {
            return Some(head);
        }
        self.make_region(head);
        Some(head)
    }

    /// Makes a region that begins with `head`, if that is possible, in place of its translation.
    fn make_region(&mut self, head: NonNull<Block>) {
        let Some(plan) = self.plan_region(head) else { return };
        let successors: Vec<_> = plan.blocks.iter().map(|&block| self.flags_live_after(block)).collect();
        // SAFETY: here and below, the caller has found the block just now.
        let granules = plan.blocks.iter().fold(0, |all, block| all | unsafe { block.as_ref() }.granules);
        let parts: Vec<Part<'_>> = plan
            .blocks
            .iter()
            .zip(successors)
            .map(|(&block, successors)| region::part(block, successors))
            .collect();
        // SAFETY: as above.
        let context = unsafe { head.as_ref() }.context;
        let Some(jit) = self.jit.as_mut() else { return };
        self.watch.switch(Activity::Translating);
        let code = jit.translate_region(&parts, &plan.fixed(), context);
        self.watch.switch(Activity::Between);
        if let Some(code) = code {
            // SAFETY: as above.
            let head = unsafe { &mut *head.as_ptr() };
            jit.redirect(head.code, code as u64);
            jit.regions += 1;
            head.code = code;
            head.is_region = true;
            head.granules |= granules;
        }
    }

    /// Makes the region anew that has instructions whose sites were crowded, if there is one, and it is still there.
    fn renew_region(&mut self) {
        let Some(pc) = self.jit.as_mut().and_then(|jit| jit.outdated.take()) else { return };
        let emptied = self.code.emptied;
        let Ok(mut head) = self.find_block(pc) else { return };
        let has_room = self.jit.as_ref().is_some_and(|jit| jit.has_room());
        if !has_room || self.code.emptied != emptied {
            return;
        }
        // SAFETY: found just now.
        let header = unsafe { head.as_mut() };
        if header.is_region && header.renewed < RENEWALS {
            header.renewed += 1;
            self.make_region(head);
        }
    }

    fn raise_at(&mut self, pc: u64, exception: crate::Exception) -> Left {
        self.state.pc = pc;
        self.take_exception(exception);
        Left::LookAround
    }

    /// The translation of `block`, made now if it is hot enough.
    fn translation_of(&mut self, block: NonNull<Block>) -> Option<*const u8> {
        // SAFETY: the caller has found the block just now.
        let header = unsafe { &mut *block.as_ptr() };
        if header.heat != 0 {
            // It is interpreted once more.
            header.heat -= 1;
            return None;
        }
        let jit = self.jit.as_mut()?;
        if header.code != jit.untranslated() {
            return Some(header.code);
        }
        if header.context & context::SHORT != 0 {
            header.heat = u32::MAX;
            return None;
        }
        if !jit.has_room() {
            self.empty_code();
            return None;
        }
        let successors = self.flags_live_after(block);
        // SAFETY: as above; looking at code does not empty the arena.
        let header = unsafe { &mut *block.as_ptr() };
        let jit = self.jit.as_mut()?;
        let context = header.context;
        self.watch.switch(Activity::Translating);
        let code = jit.translate(&region::part(block, successors), context);
        self.watch.switch(Activity::Between);
        match code {
            Some(code) => header.code = code,
            None => {
                header.heat = u32::MAX;
                return None;
            }
        }
        Some(header.code)
    }

    /// Brings the flags in memory up to date, where translated code has been left at the start of a block: if it did not
    /// store them because what follows overwrites them, that is done first.
    fn settle_flags(&mut self) {
        let Ok(block) = self.find_block(self.state.pc) else { return };
        // SAFETY: found just now.
        if unsafe { block.as_ref() }.context & context::SHORT != 0 {
            // Translations of these contexts store all flags.
            return;
        }
        let insns = insns_of(block);
        let Some(last) = flags::overwritten_at(insns) else { return };
        for insn in &insns[..=last] {
            let Handler::Plain(handler) = insn.op.handler() else {
                unreachable!("others may show the flags")
            };
            handler(self, insn);
        }
        self.state.pc = self.state.pc.wrapping_add(4 * (last as u64 + 1));
    }

    /// Where the direct branches at the end of a block lead, and where code there must find the flags: it is looked at, if it
    /// is in the same page. Nothing if the block has another end.
    fn flags_live_after(&mut self, block: NonNull<Block>) -> Option<Successors> {
        let last = insns_of(block).last()?;
        // SAFETY: the caller has found the block just now.
        let end = unsafe { block.as_ref() }.end;
        let mut at = |target| Some((target, self.flags_live_at(block, target)));
        match last.op.kind() {
            Kind::Branch if last.op.row().is_none() => Some([at(end), None]),
            Kind::Branch if is_unconditional(last) => Some([at(last.imm), None]),
            Kind::Branch => Some([at(last.imm), at(end)]),
            _ => None,
        }
    }

    /// Where the flags must be before the code at `target`, if it is in the page of `block`. The block then depends on that
    /// code too.
    fn flags_live_at(&mut self, block: NonNull<Block>, target: u64) -> Kept {
        /// Instructions that are looked at, where there is no block.
        const AHEAD: usize = 12;
        // SAFETY: the caller has found the block just now.
        let header = unsafe { block.as_ref() };
        if (target ^ header.pc) & !0xfff != 0 || target & 3 != 0 {
            return Kept::Whole;
        }
        if let Some(decoded) = self.code.block_beside(header, target) {
            // SAFETY: as above; the other is in the table, and may be the same.
            unsafe { (*block.as_ptr()).granules |= decoded.as_ref().granules };
            return flags::kept_before(insns_of(decoded), Kept::Whole);
        }
        // SAFETY: the caller has found the block just now, and nobody else refers to it.
        let block = unsafe { &mut *block.as_ptr() };
        let place = hw::Pa(block.pa & !0xfff | target & 0xfff);
        let count = ((0x1000 - (target & 0xfff)) / 4).min(AHEAD as u64) as usize;
        // Marked before they are read, as decoded code is. Meanwhile another vCPU may have overwritten all that was
        // marked in this page, the block too, and have a fast write path to it again.
        let bytes = 4 * count as u64;
        block.granules |= granules(place.0, bytes);
        let _ = self.cluster.code_pages.add(place, bytes);
        self.protect_code_page(place);
        let mut insns = Vec::with_capacity(AHEAD);
        for n in 0..count {
            let Ok(word) = self.cluster.host.ram().load_u32(hw::Pa(place.0 + 4 * n as u64)) else {
                return Kept::Whole;
            };
            let insn = decode(word, target.wrapping_add(4 * n as u64), self.cluster.features, false);
            insns.push(insn);
            if !matches!(insn.op.kind(), Kind::Plain | Kind::Fallible) {
                break;
            }
        }
        flags::kept_before(&insns, Kept::Whole)
    }

    /// Translations that have lost their blocks lead nowhere any more.
    pub(crate) fn drop_translations(&mut self) {
        while let Some(code) = self.code.dropped.pop() {
            if let Some(jit) = &mut self.jit
                && code != jit.untranslated()
            {
                jit.kill(code);
                self.counts.stale += 1;
            }
        }
    }
}

/// B and BL.
fn is_unconditional(insn: &Insn) -> bool {
    insn.op.row().is_some_and(|row| matches!(row.name, "b" | "bl"))
}
