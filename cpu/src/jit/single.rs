//! Translated code for the length of one block: what lockstep compares.

use std::ptr::NonNull;

use super::stubs::exit;
use crate::Cpu;
use crate::code::Block;
use crate::state::pending;

/// Where a block that has been run alone has stopped; `state.pc` says where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// At its end, or with an exception.
    AtBorder,
    /// At its end, from where a loop that goes round often enough for [`Cpu::heat_up`] goes on, by its number.
    Hot(usize),
    /// At an instruction that is left to the interpreter.
    Inside,
    /// There is no translation, and nothing has been run. If that is because the arena was full, the block is gone.
    Untranslated,
}

impl Cpu {
    /// Runs the translation of `block` up to the next look at the pending word.
    pub(crate) fn run_one_translated(&mut self, block: NonNull<Block>) -> Stopped {
        let Some(code) = self.translation_of(block) else { return Stopped::Untranslated };
        let Some(head) = self.jit.as_ref().map(|jit| jit.head) else { return Stopped::Untranslated };
        // Whatever the block leads to then looks at the word, and leaves.
        let signal = std::sync::Arc::clone(self.cluster.signal(self.index));
        signal.note(pending::BORDER);
        let left = self.enter_translated(code as u64 + head);
        signal.clear(pending::BORDER);
        match left & 0xff {
            exit::LOOKUP => self.state.pc = self.mem.branch_target(self.state.pc),
            exit::LINK | exit::HOT => {
                let number = (left >> 8) as usize;
                if let Some(jit) = &self.jit {
                    self.state.pc = jit.links[number].target;
                }
                if left & 0xff == exit::HOT {
                    return Stopped::Hot(number);
                }
            }
            exit::INTERPRET => return Stopped::Inside,
            _ => {}
        }
        Stopped::AtBorder
    }
}
