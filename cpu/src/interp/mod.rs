//! The interpreter (tier T0): runs pre-decoded blocks in one `match` loop.
//!
//! Blocks are found and kept by `code`. The loop leaves a block by its links where it can, and looks at the pending word
//! before each one. The address of an instruction is its place in its block: `state.pc` is written only where somebody
//! looks at it. Deliberately absent: what happens when the loop is left, which is `run`'s business.

mod handlers;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

pub use handlers::{Handler, Raising};

use crate::code::Block;
use crate::exec::memory::{S8, S8w, S16, S16w, S32, U8, U16, U32, U64};
#[allow(clippy::wildcard_imports, reason = "the variants that handlers in the table are generic over")]
use crate::exec::width::*;
use crate::insn::{Insn, Op};
use crate::{Cpu, Exception};

impl Cpu {
    /// Runs `block` and what follows it, until somebody has to look at something else. With `first`, the first block is
    /// run whatever is pending, and whatever is to be done about it. With `COUNTED`, each block is paid for from
    /// `self.budget`.
    pub(crate) fn interpret<const COUNTED: bool>(
        &mut self,
        mut block: NonNull<Block>,
        mut first: bool,
    ) -> Left {
        let cpu = self;
        'blocks: loop {
            // SAFETY: blocks come from `find_block` and valid links, and stay where they are until the arena is
            // emptied, which happens only in `find_block` and between calls: after it this reference is not used.
            let header = unsafe { block.as_ref() };
            // Taken first: it speaks of the first block only, also when nothing is pending there any more.
            if !std::mem::take(&mut first) {
                if cpu.state.is_wanted() {
                    cpu.state.pc = header.pc;
                    return Left::LookAround;
                }
                // A run that is counted stays here, however hot the block is.
                if !COUNTED {
                    if header.heat == 0 {
                        return Left::Block(block);
                    }
                    // SAFETY: as above; nobody else refers to the block, and `header` is not used across this write.
                    unsafe { (*block.as_ptr()).heat -= 1 };
                }
            }
            if COUNTED {
                let cost = u64::from(header.len);
                if cpu.budget < cost {
                    cpu.state.pc = header.pc;
                    return Left::LookAround;
                }
                cpu.budget -= cost;
            }
            let start = Block::insns(block);
            let mut at = start;
            let end = loop {
                // SAFETY: every block ends in an instruction that leaves this loop.
                let i: &Insn = unsafe { &*at };
                macro_rules! plain {
                    ($($handler:tt)*) => { $($handler)*(cpu, i) };
                }
                macro_rules! fallible {
                    ($($handler:tt)*) => {
                        if let Err(exception) = $($handler)*(cpu, i) {
                            break End::Raised(exception);
                        }
                    };
                }
                macro_rules! branch {
                    ($($handler:tt)*) => {{
                        let slot = if $($handler)*(cpu, i) { 0 } else { 1 };
                        let link = &header.links[slot];
                        if link.stamp == cpu.state.stamp[usize::from(header.half) & 1] {
                            block = link.block;
                            continue 'blocks;
                        }
                        break End::Unlinked(slot, if slot == 0 { i.imm } else { header.end });
                    }};
                }
                macro_rules! indirect {
                    ($($handler:tt)*) => {{
                        let target = $($handler)*(cpu, i);
                        if let Some(found) = cpu.cached_block(target) {
                            block = found;
                            continue 'blocks;
                        }
                        break End::Unknown(target);
                    }};
                }
                macro_rules! call {
                    () => {{
                        let mut raised = MaybeUninit::uninit();
                        match i.op.handler() {
                            Handler::Plain(handler) => handler(cpu, i),
                            Handler::Fallible(handler) => {
                                if handler(cpu, i, &mut raised) {
                                    // SAFETY: what the handler returned says that it has written it.
                                    break End::Raised(unsafe { raised.assume_init() });
                                }
                            }
                            Handler::System(handler) => {
                                cpu.state.pc = header.end;
                                if handler(cpu, i, &mut raised) {
                                    // SAFETY: as above.
                                    break End::Raised(unsafe { raised.assume_init() });
                                }
                                // A context synchronization event (ISB, ERET) comes after loads by which the guest has
                                // learnt of new code: the look at what is pending must not be older than they.
                                fence(Ordering::Acquire);
                                match cpu.cached_block(cpu.state.pc) {
                                    Some(found) => block = found,
                                    None => return Left::LookAround,
                                }
                                continue 'blocks;
                            }
                            Handler::Branch(_) | Handler::Indirect(_) => {
                                unreachable!("the other arms have these")
                            }
                        }
                    }};
                }
                let op = i.op;
                include!(concat!(env!("OUT_DIR"), "/dispatch.rs"));
                // SAFETY: the instruction was not the block's last one: those have left the loop.
                at = unsafe { at.add(1) };
            };
            let raised = matches!(end, End::Raised(_));
            let (found, target) = match end {
                End::Raised(exception) => {
                    // SAFETY: both point into the same block.
                    let index = unsafe { at.offset_from_unsigned(start) };
                    if COUNTED {
                        // What comes after the instruction that raised has not been run.
                        cpu.budget += u64::from(header.len).saturating_sub(index as u64 + 1);
                    }
                    (Err(exception), header.pc.wrapping_add(4 * index as u64))
                }
                End::Unlinked(slot, target) => (cpu.follow(block, slot, target), target),
                End::Unknown(target) => {
                    let target = cpu.mem.branch_target(target);
                    (cpu.find_block(target), target)
                }
            };
            match found {
                Ok(found) => block = found,
                Err(exception) => {
                    cpu.state.pc = target;
                    if COUNTED && !raised {
                        // The fetch is met again by the run loop, which pays for it.
                        return Left::LookAround;
                    }
                    cpu.take_exception(exception);
                    return Left::LookAround;
                }
            }
        }
    }
}

/// Why the interpreter's loop was left.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    /// Something is pending, the budget is spent, or an exception has been taken: `state.pc` says where to go on.
    LookAround,
    /// This block is to be run, but is, or may become, a translated one.
    Block(NonNull<Block>),
}

/// How a block has ended, where the loop could not go straight on.
enum End {
    /// An exception, by the instruction that was running.
    Raised(Exception),
    /// The branch to this address, by the link in this slot, which is not valid.
    Unlinked(usize, u64),
    /// A branch to an address that is not in the jump cache.
    Unknown(u64),
}
