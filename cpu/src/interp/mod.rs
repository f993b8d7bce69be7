//! The interpreter (tier T0): runs pre-decoded blocks in one `match` loop.
//!
//! `cache` finds blocks, `block` holds them, `code_pages` knows what memory they came from. The loop leaves a
//! block by its links where it can, and looks at the pending word before each one. The address of an instruction is
//! its place in its block: `state.pc` is written only where somebody looks at it.

mod block;
mod cache;
mod code_pages;
mod handlers;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

pub(crate) use cache::Code;
pub use code_pages::CodePages;
pub use handlers::{Handler, Raising};

use crate::exec::memory::{S8, S8w, S16, S16w, S32, U8, U16, U32, U64};
#[allow(clippy::wildcard_imports, reason = "the variants that handlers in the table are generic over")]
use crate::exec::width::*;
use crate::insn::{Insn, Op};
use crate::state::pending;
use crate::sys::signals::Signal;
use crate::{Cpu, Exception, Exit};
use block::Block;

impl Cpu {
    /// Runs guest code until there is a reason to leave.
    ///
    /// # Panics
    /// If a device does. The vCPU then counts as one that has left, and the others go on.
    pub fn run(&mut self) -> Exit {
        let _stay = Stay(Arc::clone(self.cluster.signal(self.index)));
        // Registers may have been set from outside.
        self.debug_registers_changed();
        loop {
            // What is still pending after it has been served, such as a masked interrupt, must not stop the guest: one
            // block is run before the next look.
            // Exceptions synchronize the context, as ISB does below.
            fence(Ordering::Acquire);
            let looked = self.state.pending() != 0;
            if looked && let Some(exit) = self.serve_pending() {
                return exit;
            }
            match self.find_block(self.state.pc) {
                Ok(block) => self.run_blocks(block, looked),
                Err(exception) => self.take_exception(exception),
            }
        }
    }

    /// Runs `block` and what follows it, until something is pending or an exception has been taken.
    /// With `looked`, the first block is run whatever is pending.
    fn run_blocks(&mut self, mut block: NonNull<Block>, mut looked: bool) {
        let cpu = self;
        'blocks: loop {
            // SAFETY: blocks come from `find_block` and valid links, and stay where they are until the arena is
            // emptied, which happens only in `find_block`: after it this reference is not used.
            let header = unsafe { block.as_ref() };
            // Taken first: it speaks of the first block only, also when nothing is pending there any more.
            if !std::mem::take(&mut looked) && cpu.state.pending() != 0 {
                cpu.state.pc = header.pc;
                return;
            }
            let first = Block::insns(block);
            let mut at = first;
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
                                    None => return,
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
            let (found, target) = match end {
                End::Raised(exception) => {
                    // SAFETY: both point into the same block.
                    let index = unsafe { at.offset_from_unsigned(first) };
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
                    cpu.take_exception(exception);
                    return;
                }
            }
        }
    }
}

/// A vCPU's time in [`Cpu::run`]. However it ends, by a panic too, the vCPU executes nothing from then on and
/// looks around before it does again: others that wait for it must not do so for ever.
struct Stay(Arc<Signal>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.raise(pending::RECHECK);
        self.0.fall_asleep();
    }
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
