//! The run loop: looks at what is pending, finds the next block, and gives it to the tier that runs it.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::code::Block;
use crate::interp::Left;
use crate::observe::Activity;
use crate::state::pending;
use crate::sys::signals::Signal;
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
    /// The same, and each block is compared with what the interpreter makes of it; a difference is a panic. Very slow.
    Lockstep,
}

impl Tier {
    /// How often a block is interpreted before it is translated.
    pub(crate) const fn heat(self) -> u32 {
        match self {
            Self::Auto => 16,
            Self::Interpreter => u32::MAX,
            Self::Translated | Self::Lockstep => 0,
        }
    }

    /// How many rounds of a loop are translated block by block before it becomes a region.
    pub(crate) const fn rounds(self) -> i32 {
        match self {
            Self::Auto | Self::Interpreter => 512,
            Self::Translated | Self::Lockstep => 1,
        }
    }
}

impl Cpu {
    /// Runs guest code until there is a reason to leave, or until `budget` instructions have been run, if it is given.
    ///
    /// An instruction that takes an exception counts as one, and so does a fetch that fails. A run with a budget is
    /// interpreted, because translated code does not count; without one, counting costs nothing.
    ///
    /// # Panics
    /// If a device does. The vCPU then counts as one that has left, and the others go on.
    pub fn run(&mut self, budget: Option<u64>) -> Exit {
        let _stay = self.begin_run();
        let track = hw::Track::Vcpu(self.index as u32);
        self.cluster.observation.trace.begin(track, || hw::trace::Slice::Guest);
        let passed = if budget == Some(0) { Ok(false) } else { self.pass_debug_point() };
        let exit = match (passed, budget) {
            (Err(exit), _) => exit,
            (Ok(_), None) => self.run_tiers::<false>(),
            (Ok(passed), Some(budget)) => self.run_counted(budget - u64::from(passed)),
        };
        self.watch.switch(Activity::Between);
        let (kind, ending) = (hw::trace::SliceKind::Guest, hw::trace::Ending::Plain);
        self.cluster.observation.trace.end(track, kind, ending);
        exit
    }

    /// What comes before the first instruction of a run. What it gives ends the run when it goes.
    pub(crate) fn begin_run(&mut self) -> Stay {
        // Registers may have been set from outside.
        self.debug_registers_changed();
        self.context_changed();
        self.watch.skip();
        Stay(Arc::clone(self.cluster.signal(self.index)))
    }

    /// Runs so many instructions.
    pub(crate) fn run_counted(&mut self, budget: u64) -> Exit {
        self.budget = budget;
        let exit = self.run_tiers::<true>();
        self.code.set_single(false);
        exit
    }

    fn run_tiers<const COUNTED: bool>(&mut self) -> Exit {
        loop {
            // What is still pending after it has been served, such as a masked interrupt, must not stop the guest: one
            // block is run before the next look.
            // Exceptions synchronize the context, as ISB does.
            fence(Ordering::Acquire);
            let looked = self.state.pending() != 0;
            let pc = self.state.pc;
            if COUNTED && self.budget == 0 && self.is_debug_stepping() {
                return self.debug_step_done();
            }
            if looked && let Some(exit) = self.serve_pending() {
                return exit;
            }
            if COUNTED && self.state.pc != pc && self.is_debug_stepping() {
                // An exception of the guest's own software step has come in place of the instruction.
                return self.debug_step_done();
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
        if self.cluster.tier == Tier::Lockstep && self.jit.is_some() {
            return self.run_lockstep(block);
        }
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

/// A vCPU's time in [`Cpu::run`]. However it ends, by a panic too, the vCPU executes nothing from then on and
/// looks around before it does again: others that wait for it must not do so for ever.
pub(crate) struct Stay(Arc<Signal>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.raise(pending::RECHECK);
        self.0.fall_asleep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{Bench, RAM};

    const ADD: u32 = 0x9100_0463; // add x3, x3, #1

    fn tiers() -> [Tier; 3] {
        [Tier::Auto, Tier::Interpreter, Tier::Translated]
    }

    #[test]
    fn run_with_a_budget_executes_exactly_as_many_instructions_in_every_tier() {
        for tier in tiers() {
            let bench = Bench::with_tier(1, tier);
            // Blocks of three and two instructions, round and round: add, add, b; add, b.
            bench.code(RAM, &[ADD, ADD, 0x1400_0001, ADD, 0x17ff_fffc]);
            let mut cpu = bench.cpu(0);
            cpu.set_boot_state(RAM, 0);
            let mut done = 0u64;
            for budget in (0..40).chain([1000, 1001, 1002]) {
                assert_eq!(cpu.run(Some(budget)), Exit::BudgetSpent);
                done += budget;
                let adds = [0, 1, 2, 2, 3][(done % 5) as usize];
                assert_eq!(cpu.state.x[3], done / 5 * 3 + adds, "{tier:?} after {done}");
                assert_eq!(cpu.state.pc, RAM + done % 5 * 4, "{tier:?} after {done}");
            }
        }
    }

    #[test]
    fn run_with_a_budget_pays_for_each_exception_and_each_fetch_that_fails() {
        for tier in tiers() {
            let bench = Bench::with_tier(1, tier);
            // br x1 to a hole; the vector adds one and branches there again.
            bench.code(RAM, &[0xd61f_0020]);
            bench.code(RAM + 0x1200, &[ADD, 0xd61f_0020]);
            let mut cpu = bench.cpu(0);
            cpu.set_boot_state(RAM, 0);
            cpu.state.sys.vbar = RAM + 0x1000;
            cpu.state.x[1] = 0x1000;
            for n in 0..30 {
                // The branch, the fetch that fails, the addition.
                assert_eq!(cpu.state.x[3], n / 3, "{tier:?} after {n}");
                assert_eq!(cpu.run(Some(1)), Exit::BudgetSpent);
            }
            let before = cpu.state.x[3];
            assert_eq!(cpu.run(Some(3000)), Exit::BudgetSpent);
            assert_eq!(cpu.state.x[3] - before, 1000, "{tier:?}");
        }
    }

    #[test]
    fn run_with_a_budget_ends_where_not_even_the_vector_can_be_fetched() {
        for tier in tiers() {
            let bench = Bench::with_tier(1, tier);
            let mut cpu = bench.cpu(0);
            cpu.set_boot_state(0x1000, 0);
            cpu.state.sys.vbar = 0x2000;
            assert_eq!(cpu.run(Some(1000)), Exit::BudgetSpent);
            assert_eq!(cpu.state.pc, 0x2200);
        }
    }
}
