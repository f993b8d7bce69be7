//! Barriers of memory accesses, and CLREX. Arm ARM B2.3.12, C6.2.
//!
//! ISB ends a block and is in `system`.

use std::sync::atomic::{Ordering, compiler_fence, fence};

use crate::Cpu;
use crate::insn::Insn;

pub(crate) fn clrex(cpu: &mut Cpu, _i: &Insn) {
    cpu.clear_exclusive();
}

pub(crate) fn dsb(cpu: &mut Cpu, _i: &Insn) {
    fence(Ordering::SeqCst);
    cpu.complete_requests();
}

#[inline(always)]
pub(crate) fn dmb_full(_cpu: &mut Cpu, _i: &Insn) {
    fence(Ordering::SeqCst);
}

/// DMB of loads (LD) or of stores (ST).
#[inline(always)]
pub(crate) fn dmb_partial(_cpu: &mut Cpu, _i: &Insn) {
    if cfg!(target_arch = "x86_64") {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}
