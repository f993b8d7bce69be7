//! The run loop: looks at what is pending, finds the next block, and gives it to the tier that runs it.

use std::ptr::NonNull;

use crate::code::Block;
use crate::interp::Left;
use crate::observe::Activity;
use crate::{Cpu, Exit};

/// What runs guest code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The interpreter first, translations of what is run often; the interpreter alone where the host does not allow
    /// translations.
    #[default]
    Auto,
    /// The interpreter alone.
    Interpreter,
    /// Everything is translated when it is run first.
    Translated,
}

impl Tier {
    /// How often a block is interpreted before it is translated.
    pub(crate) const fn heat(self) -> u32 {
        match self {
            Self::Auto => 16,
            Self::Interpreter => u32::MAX,
            Self::Translated => 0,
        }
    }

    /// How many rounds of a loop are translated block by block before it becomes a region.
    pub(crate) const fn rounds(self) -> i32 {
        match self {
            Self::Auto | Self::Interpreter => 512,
            Self::Translated => 1,
        }
    }
}

impl Cpu {
    /// Runs guest code until there is a reason to leave, or until `budget` instructions have been run, if it is given.
    ///
    /// An instruction that takes an exception counts as one, and so does a fetch that fails. A run with a budget is
    /// interpreted, because translated code does not count; without one, counting costs nothing.
    pub fn run(&mut self, budget: Option<u64>) -> Exit {
        // Registers may have been set from outside.
        self.debug_registers_changed();
        self.context_changed();
        self.watch.skip();
        let exit = match budget {
            None => self.run_tiers::<false>(),
            Some(budget) => {
                self.budget = budget;
                let exit = self.run_tiers::<true>();
                self.code.set_single(false);
                exit
            }
        };
        self.watch.switch(Activity::Between);
        exit
    }

    fn run_tiers<const COUNTED: bool>(&mut self) -> Exit {
        loop {
            // What is still pending after it has been served, such as a masked interrupt, must not stop the guest: one
            // block is run before the next look.
            let looked = self.state.pending() != 0;
            if looked && let Some(exit) = self.serve_pending() {
                return exit;
            }
            if COUNTED && self.budget == 0 {
                return Exit::BudgetSpent;
            }
            let block = match self.find_block(self.state.pc) {
                Ok(block) => block,
                Err(exception) => {
                    self.budget = self.budget.saturating_sub(1);
                    self.take_exception(exception);
                    continue;
                }
            };
            if COUNTED {
                // SAFETY: found just now, and blocks stay where they are until the next look-up.
                let len = unsafe { block.as_ref() }.len;
                if self.budget < u64::from(len) {
                    // The rest goes in blocks of one instruction.
                    self.code.set_single(true);
                    self.context_changed();
                    continue;
                }
                self.interpret_from::<true>(block);
            } else {
                self.run_block(block, looked);
            }
        }
    }

    /// Runs `block` and what follows, until something has to be looked at with `state.pc` exact.
    #[cfg(target_arch = "x86_64")]
    fn run_block(&mut self, mut block: NonNull<Block>, mut looked: bool) {
        loop {
            let left = if self.jit.is_some() { self.run_translated(block, looked) } else { self.keep(block) };
            let interpreted = match left {
                Left::LookAround => return,
                Left::Block(next) => {
                    // What the translator gave back, it has nothing to say about.
                    self.interpret_from::<false>(next)
                }
            };
            match interpreted {
                Left::LookAround => return,
                Left::Block(next) => (block, looked) = (next, false),
            }
        }
    }

    /// Runs `block` and what follows, until something has to be looked at with `state.pc` exact.
    #[cfg(not(target_arch = "x86_64"))]
    fn run_block(&mut self, mut block: NonNull<Block>, _looked: bool) {
        while let Left::Block(next) = self.interpret_from::<false>(block) {
            self.keep(next);
            block = next;
        }
    }

    /// Interprets `block`, whatever is pending, and what follows.
    fn interpret_from<const COUNTED: bool>(&mut self, block: NonNull<Block>) -> Left {
        self.counts.interpreted += 1;
        self.watch.switch(Activity::Interpreter);
        let left = self.interpret::<COUNTED>(block, true);
        self.watch.switch(Activity::Between);
        left
    }

    /// Lets the interpreter run a block as often as ever.
    fn keep(&mut self, block: NonNull<Block>) -> Left {
        // SAFETY: the block has been found, or come out of the loop, just now; nobody else refers to it.
        unsafe { (*block.as_ptr()).heat = u32::MAX };
        Left::Block(block)
    }
}
