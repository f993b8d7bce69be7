//! The interpreter: pre-decoded blocks, how they are found, and the loop that runs them.

mod code_pages;

pub use code_pages::CodePages;

use crate::exec::atomic::AtomicOp;
use crate::exec::memory::{S8, S8w, S16, S16w, S32, U8, U16, U32, U64};
#[allow(clippy::wildcard_imports, reason = "the variants that handlers in the table are generic over")]
use crate::exec::width::*;
use crate::insn::{Insn, Op};
use crate::{Cpu, Exception};

/// Why [`Cpu::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Somebody set [`crate::state::pending::STOP`].
    Kicked,
    /// PSCI CPU_OFF: this vCPU is off until it is turned on again.
    CpuOff,
    /// PSCI SYSTEM_OFF.
    SystemOff,
    /// PSCI SYSTEM_RESET or SYSTEM_RESET2.
    SystemReset,
}

/// One vCPU's blocks.
#[derive(Debug, Default)]
pub(crate) struct Code {}

impl Code {
    pub(crate) fn new() -> Self {
        Self {}
    }
}

impl Cpu {
    /// Runs guest code until there is a reason to leave.
    pub fn run(&mut self) -> Exit {
        loop {
            if self.state.pending() != 0
                && let Some(exit) = self.serve_pending()
            {
                return exit;
            }
            let _ = self.run_block(&[Insn::fall_through()]);
        }
    }

    /// EL, MMU, FP trap or translation regime may have changed: called by whoever changes PSTATE.EL, SCTLR_EL1.M,
    /// CPACR_EL1.FPEN.
    pub(crate) fn context_changed(&mut self) {}

    /// A mapping that code may have been fetched through has changed: `lower` for TTBR0's half alone (a context
    /// switch), otherwise both.
    pub(crate) fn mapping_changed(&mut self, _lower: bool) {}

    /// Drops this vCPU's blocks that overlap `granules` (bits of 64 bytes each) of the page at `page`.
    pub(crate) fn drop_code(&mut self, _page: hw::Pa, _granules: u64) {}

    fn run_block(&mut self, code: &[Insn]) -> Result<(), Exception> {
        let cpu = self;
        for i in code {
            let op = i.op;
            macro_rules! plain {
                ($($handler:tt)*) => { $($handler)*(cpu, i) };
            }
            macro_rules! fallible {
                ($($handler:tt)*) => { $($handler)*(cpu, i)? };
            }
            macro_rules! branch {
                ($($handler:tt)*) => { { $($handler)*(cpu, i); } };
            }
            #[allow(unused_macros)]
            macro_rules! indirect {
                ($($handler:tt)*) => { { $($handler)*(cpu, i); } };
            }
            #[allow(unused_macros)]
            macro_rules! system {
                ($($handler:tt)*) => { $($handler)*(cpu, i)? };
            }
            include!(concat!(env!("OUT_DIR"), "/dispatch.rs"));
        }
        Ok(())
    }
}
