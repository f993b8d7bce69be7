//! Regions (tier T2): the blocks of a loop, translated together with guest registers fixed in host registers.
//!
//! A loop's rounds are counted where it jumps back. When there were many, the blocks that lie on a way round, within one
//! page, become one translation: branches among them are plain jumps, and the registers that they use most stay where
//! they are. Everything else (calls, returns, other pages, code that has never run) leaves the region. What changes
//! the code of any of its blocks ends the whole.

use std::ptr::NonNull;

use super::flags::{Kept, LiveOut};
use super::stubs::{POOL, VECTORS};
use super::translator::{Fixed, Part, Successors, insns_of};
use crate::Cpu;
use crate::code::{Block, context};
use crate::insn::{Insn, Kind};
use crate::state::{DISCARD, ZERO};

/// Blocks of a region, at most.
const BLOCKS: usize = 48;
/// Instructions of a region, at most.
const INSNS: usize = 512;
/// Host registers that an instruction may need for operands that are not fixed.
const SPARE: usize = 4;
/// The same for vector registers.
const SPARE_VECTORS: usize = 5;

/// The register operands of an instruction: number, whether it is a vector register, whether it is written.
fn operands(insn: &Insn) -> impl Iterator<Item = (u8, bool, bool)> + use<> {
    let insn = *insn;
    let registers = insn.op.row().map_or(&[][..], |row| row.registers);
    registers.iter().flat_map(move |register| {
        let first = insn.register(register.slot);
        let (vector, written) = (register.role.is_vector(), register.role.writes());
        (0..register.count).map(move |n| {
            let number = if vector { (first + n) & 31 } else { first + n };
            (number, vector, written)
        })
    })
}

/// Where a block's direct branches go.
fn successors(block: &Block, insns: &[Insn]) -> [Option<u64>; 2] {
    let Some(last) = insns.last() else { return [None; 2] };
    match (last.op.kind(), last.op.row().map(|row| row.name)) {
        (Kind::Branch, None) => [Some(block.end), None],
        (Kind::Branch, Some("b")) => [Some(last.imm), None],
        (Kind::Branch, Some("bl")) => [None; 2],
        (Kind::Branch, Some(_)) => [Some(last.imm), Some(block.end)],
        _ => [None; 2],
    }
}

/// The blocks of a region, the entered one first, and the address range of each loop.
pub(super) struct Plan {
    pub(super) blocks: Vec<NonNull<Block>>,
    /// From the target of a jump back to its origin.
    loops: Vec<(u64, u64)>,
}

impl Cpu {
    /// The blocks on a way round from `head` to itself, if there is one.
    pub(super) fn plan_region(&self, head: NonNull<Block>) -> Option<Plan> {
        // SAFETY: here and below, blocks of the table are in the arena, which is not emptied meanwhile.
        let first = unsafe { head.as_ref() };
        if first.context & context::SHORT != 0 {
            return None;
        }
        let mut found: Vec<Found> = Vec::new();
        let mut wanted = vec![first.pc];
        let mut insns = 0;
        while let Some(pc) = wanted.pop() {
            if (pc ^ first.pc) & !0xfff != 0 || found.iter().any(|other| other.pc == pc) {
                continue;
            }
            let Some(block) = self.code.block_beside(first, pc) else { continue };
            let own = insns_of(block);
            if found.len() == BLOCKS
                || insns + own.len() > INSNS
                || own.iter().any(|insn| self.is_alone(insn))
            {
                continue;
            }
            insns += own.len();
            // SAFETY: as above.
            let next = successors(unsafe { block.as_ref() }, own);
            found.push(Found { block, pc, next });
            wanted.extend(next.into_iter().flatten());
        }
        // Those from which there is a way to the head, by going backwards from it.
        let mut useful = vec![first.pc];
        let mut at = 0;
        while let Some(&target) = useful.get(at) {
            at += 1;
            for block in &found {
                if block.next.contains(&Some(target)) && !useful.contains(&block.pc) {
                    useful.push(block.pc);
                }
            }
        }
        found.retain(|block| useful.contains(&block.pc));
        let mut loops = Vec::new();
        for block in &found {
            let back = block.next.iter().flatten().filter(|&&to| to <= block.pc && useful.contains(&to));
            loops.extend(back.map(|&to| (to, block.pc)));
        }
        if !loops.iter().any(|&(to, _)| to == first.pc) {
            return None;
        }
        // In the order of their addresses from the head on, which is entered from above: what falls through stays together.
        found.sort_by_key(|block| (block.pc < first.pc, block.pc));
        Some(Plan { blocks: found.iter().map(|block| block.block).collect(), loops })
    }
}

/// A block that may become part of a region.
struct Found {
    block: NonNull<Block>,
    pc: u64,
    /// Where its direct branches go.
    next: [Option<u64>; 2],
}

impl Plan {
    /// The registers that are worth a place for the whole region: those used most, uses in inner loops counting more.
    pub(super) fn fixed(&self) -> Fixed {
        let mut general = [(0u64, false); 34];
        let mut vectors = [(0u64, false); 32];
        for &block in &self.blocks {
            // SAFETY: as in `plan_region`.
            let pc = unsafe { block.as_ref() }.pc;
            let depth = self.loops.iter().filter(|&&(from, to)| from <= pc && pc <= to).count();
            let weight = 1 << (3 * depth.min(8));
            for insn in insns_of(block) {
                for (number, vector, written) in operands(insn) {
                    let entry = if vector {
                        &mut vectors[usize::from(number)]
                    } else if number == ZERO || number == DISCARD {
                        continue;
                    } else {
                        &mut general[usize::from(number)]
                    };
                    entry.0 += weight;
                    entry.1 |= written;
                }
            }
        }
        Fixed {
            general: heaviest(&general, POOL.len() - SPARE),
            vectors: heaviest(&vectors, VECTORS - SPARE_VECTORS),
        }
    }
}

fn heaviest(uses: &[(u64, bool)], count: usize) -> Vec<(u8, bool)> {
    let mut used: Vec<(u64, u8, bool)> = uses
        .iter()
        .zip(0..)
        .filter(|((weight, _), _)| *weight > 0)
        .map(|(&(w, written), n)| (w, n, written))
        .collect();
    used.sort_by_key(|&(weight, number, _)| (std::cmp::Reverse(weight), number));
    used.truncate(count);
    used.into_iter().map(|(_, number, written)| (number, written)).collect()
}

/// A block as the translator takes it. Code at `successors`, if its end leads to them only, must find the flags where they
/// say.
pub(super) fn part<'a>(block: NonNull<Block>, successors: Option<Successors>) -> Part<'a> {
    // SAFETY: the caller has found the block just now.
    let (pc, counter) = unsafe { ((*block.as_ptr()).pc, &raw mut (*block.as_ptr()).rounds) };
    let after = successors.map_or(Kept::Whole, |successors| {
        successors.iter().flatten().map(|&(_, kept)| kept).max().unwrap_or(Kept::Whole)
    });
    let live_out = LiveOut::same(after);
    Part { pc, insns: insns_of(block), live_out, successors, counter: counter as u64 }
}
