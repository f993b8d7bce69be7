//! What the guest can see of one vCPU, laid out by heat so that translated code reaches it with short displacements.
//!
//! Registers that handlers index are resolved when an instruction is decoded: number 31 becomes [`SP`], [`ZERO`] or
//! [`DISCARD`], so that no handler tests for it. Deliberately absent: anything host-side except the pointer to the
//! pending word, which generated code must reach from here.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

mod sys_regs;

pub(crate) use sys_regs::SCTLR_RESET;
pub use sys_regs::SysRegs;

/// Index in [`State::x`] of the stack pointer in use.
pub const SP: u8 = 31;
/// Index in [`State::x`] of a register that always holds zero: XZR as a source.
pub const ZERO: u8 = 32;
/// Index in [`State::x`] of a register that nobody reads: XZR as a destination.
pub const DISCARD: u8 = 33;

/// Condition flags, kept in the form in which they are cheapest to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flags {
    /// N is bit 63.
    pub n: u64,
    /// Z is set when this is zero.
    pub z: u64,
    /// C: 0 or 1.
    pub c: u32,
    /// V: 0 or 1.
    pub v: u32,
}

impl Flags {
    /// NZCV in bits \[31:28\], as in the NZCV register and SPSR.
    #[inline]
    #[must_use]
    pub const fn nzcv(&self) -> u32 {
        self.nibble() << 28
    }

    /// NZCV in bits \[3:0\].
    #[inline]
    #[must_use]
    pub const fn nibble(&self) -> u32 {
        ((self.n >> 63) as u32 * 8) | ((self.z == 0) as u32 * 4) | (self.c * 2) | self.v
    }

    /// The flags of bits \[31:28\].
    #[inline]
    #[must_use]
    pub const fn from_nzcv(nzcv: u32) -> Self {
        Self {
            n: ((nzcv >> 31) as u64) << 63,
            z: (nzcv >> 30 & 1 == 0) as u64,
            c: nzcv >> 29 & 1,
            v: nzcv >> 28 & 1,
        }
    }

    /// Whether condition `cond` (0 to 15, as encoded) holds.
    #[inline]
    #[must_use]
    pub const fn holds(&self, cond: u8) -> bool {
        CONDITIONS[(cond & 15) as usize] >> self.nibble() & 1 != 0
    }
}

/// For each condition, the set of NZCV nibbles for which it holds (C1.2.4).
const CONDITIONS: [u16; 16] = {
    let mut table = [0u16; 16];
    let mut cond = 0;
    while cond < 16 {
        let mut nzcv = 0u16;
        while nzcv < 16 {
            let (n, z, c, v) = (nzcv & 8 != 0, nzcv & 4 != 0, nzcv & 2 != 0, nzcv & 1 != 0);
            let base = match cond >> 1 {
                0 => z,
                1 => c,
                2 => n,
                3 => v,
                4 => c && !z,
                5 => n == v,
                6 => n == v && !z,
                _ => true,
            };
            let holds = if cond & 1 == 1 && cond != 15 { !base } else { base };
            if holds {
                table[cond] |= 1 << nzcv;
            }
            nzcv += 1;
        }
        cond += 1;
    }
    table
};

/// PSTATE without NZCV, each field where SPSR_EL1 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pstate(pub u32);

impl Pstate {
    /// SPSel: the stack pointer of the current EL (1) or SP_EL0 (0). M\[0\].
    pub const SP: u32 = 1;
    /// The exception level. M\[3:2\].
    pub const EL_SHIFT: u32 = 2;
    /// FIQ mask.
    pub const F: u32 = 1 << 6;
    /// IRQ mask.
    pub const I: u32 = 1 << 7;
    /// SError mask.
    pub const A: u32 = 1 << 8;
    /// Debug exception mask.
    pub const D: u32 = 1 << 9;
    /// All four masks.
    pub const DAIF: u32 = 0xf << 6;
    /// Illegal execution state.
    pub const IL: u32 = 1 << 20;
    /// Software step.
    pub const SS: u32 = 1 << 21;
    /// Privileged access never.
    pub const PAN: u32 = 1 << 22;

    /// EL1h with everything masked: the state after reset.
    pub const RESET: Self = Self(1 << Self::EL_SHIFT | Self::SP | Self::DAIF);

    /// The exception level: 0 or 1.
    #[inline]
    #[must_use]
    pub const fn el(self) -> u32 {
        self.0 >> Self::EL_SHIFT & 3
    }

    /// Whether all bits of `mask` are set.
    #[inline]
    #[must_use]
    pub const fn has(self, mask: u32) -> bool {
        self.0 & mask == mask
    }
}

/// One vCPU's registers. The order is part of the interface to translated code.
#[repr(C, align(64))]
pub struct State {
    /// X0 to X30, the stack pointer in use, zero, and a place for results that nobody wants.
    pub x: [u64; 34],
    /// Address of the next instruction. Exact between blocks and when an exception is taken.
    pub pc: u64,
    /// Condition flags.
    pub flags: Flags,
    /// While translated code runs: condition flags newer than those in `flags`, as [`shown`] has them, or 0.
    pub(crate) shown: u32,
    /// Bits of [`pending`]; shared with other threads.
    pending: NonNull<AtomicU32>,
    /// Bits of the pending word that end the run of blocks: all but those of interrupts that PSTATE masks.
    pub(crate) interest: u32,
    /// What a block lookup must match besides the address; see `code::context`.
    pub(crate) stamp: [u64; 2],
    /// PSTATE without NZCV.
    pub pstate: Pstate,
    /// Floating-point control: rounding mode, flush to zero, default NaN.
    pub fpcr: u32,
    /// Floating-point status: cumulative flags and QC.
    pub fpsr: u32,
    /// V0 to V31.
    pub v: [u128; 32],
    /// SP_EL0 and SP_EL1; the one in use is in `x[31]` and stale here.
    pub sp_bank: [u64; 2],
    /// Everything else: system registers.
    pub sys: SysRegs,
}

// SAFETY: the pending word belongs to the cluster that `Cpu` keeps alive beside this state, and is atomic.
unsafe impl Send for State {}

impl State {
    /// Where the pointer to the pending word is, for translated code.
    pub(crate) const PENDING: usize = std::mem::offset_of!(Self, pending);

    pub(crate) fn new(pending: &AtomicU32) -> Self {
        Self {
            x: [0; 34],
            pc: 0,
            flags: Flags::default(),
            shown: 0,
            pending: NonNull::from(pending),
            interest: !(pending::IRQ | pending::FIQ),
            stamp: [0; 2],
            pstate: Pstate::RESET,
            fpcr: 0,
            fpsr: 0,
            v: [0; 32],
            sp_bank: [0; 2],
            sys: SysRegs::default(),
        }
    }

    /// Brings the flags up to date if translated code has left newer ones.
    #[inline]
    pub(crate) fn take_shown_flags(&mut self) {
        let shown = std::mem::take(&mut self.shown);
        if shown != 0 {
            let bit = |mask: u32| u32::from(shown & mask != 0);
            let carry = bit(shown::CARRY) ^ bit(shown::BORROW);
            let nibble = bit(shown::N) << 3 | bit(shown::Z) << 2 | carry << 1 | bit(shown::V);
            self.flags = Flags::from_nzcv(nibble << 28);
        }
    }

    /// PSTATE.I or F may have changed.
    #[inline]
    pub(crate) fn masks_changed(&mut self) {
        let irq = if self.pstate.has(Pstate::I) { pending::IRQ } else { 0 };
        let fiq = if self.pstate.has(Pstate::F) { pending::FIQ } else { 0 };
        self.interest = !(irq | fiq);
    }

    /// Whether something is pending that must be looked at before the next block.
    #[inline(always)]
    pub(crate) fn is_wanted(&self) -> bool {
        self.pending() & self.interest != 0
    }

    /// What others want of this vCPU: bits of [`pending`]. Relaxed, for it is asked before each block. Where it must not be
    /// older than something else that the vCPU has seen, a fence stands between: in `Signal::get_up` and after
    /// instructions that synchronize the context.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u32 {
        // SAFETY: the word lives in the cluster, which the `Cpu` around this state holds by `Arc`.
        unsafe { self.pending.as_ref() }.load(Ordering::Relaxed)
    }
}

/// The form of [`State::shown`]: bits as an x86 host has them, AH and AL of its LAHF and SETO.
pub(crate) mod shown {
    pub(crate) const V: u32 = 1 << 0;
    /// The host's CF.
    pub(crate) const CARRY: u32 = 1 << 8;
    pub(crate) const Z: u32 = 1 << 14;
    pub(crate) const N: u32 = 1 << 15;
    /// There are flags.
    pub(crate) const VALID: u32 = 1 << 16;
    /// C is not CF: as after a subtraction.
    pub(crate) const BORROW: u32 = 1 << 17;
}

/// Bits of the pending word.
pub mod pending {
    /// The GIC's IRQ output is high.
    pub const IRQ: u32 = 1 << 0;
    /// The GIC's FIQ output is high.
    pub const FIQ: u32 = 1 << 1;
    /// Leave [`crate::Cpu::run`].
    pub const STOP: u32 = 1 << 2;
    /// The request queue is not empty.
    pub const REQUESTS: u32 = 1 << 3;
    /// The GIC's WakeRequest is high: it ends WFI and is no interrupt.
    pub const WAKE: u32 = 1 << 4;
    /// PSTATE masks have changed: look at the pending interrupts again.
    pub const RECHECK: u32 = 1 << 5;
    /// Leave translated code at the next block border.
    pub const BORDER: u32 = 1 << 6;
}
