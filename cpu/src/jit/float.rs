//! Floating point in translated code: how the host's arithmetic stands in for the handlers, flags included.
//!
//! The handlers of `exec` say what results and FPSR are; they compute with integers what the host would not do the same.
//! Translated code lets the host compute into a scratch register and looks at the result; only one that settles
//! everything but IXC is kept. Others, and everything while FPCR asks for another rounding or for flushing, are the
//! handlers'. What settles a result is in docs/cpu-engine.md.
//!
//! FPSR.IXC is MXCSR's sticky precision flag while it is not set: the first computation of a block that finds IXC clear
//! clears that flag and says so in `Frame::collects`; before a function in Rust runs, and when translated code is
//! left, `stubs` moves it to FPSR. So no computation may be tried that raises the flag although the instruction would not.
//! Programs whose results are all exact, and those that have set IXC, pay a test per block.

use std::mem::offset_of;

use super::Frame;
use super::access::{Cold, Rare, What};
use super::emit::constants;
use super::stubs::{cpu_at, state_at};
use super::translator::Translator;
use super::x64::simd_ops::{ANDPS, CMPPD, CMPPS, MOVMSKPD, MOVMSKPS, ORPS, PSHUFD, XORPS};
use super::x64::{Alu, Asm, Cond, Gpr, Label, Mem, Size, Unary, Xmm};
use crate::Cpu;
use crate::insn::Insn;
use crate::softfloat::flag;
use crate::state::State;

/// MXCSR.PE.
const PRECISION: i32 = 1 << 5;
/// The comparison "equal" of CMPPS and its kin.
const EQUAL: u8 = 0;

const FPSR: Mem = state_at(offset_of!(State, fpsr));

const fn collects() -> Mem {
    cpu_at(offset_of!(Cpu, frame) + offset_of!(Frame, collects))
}

const fn mxcsr() -> Mem {
    cpu_at(offset_of!(Cpu, frame) + offset_of!(Frame, mxcsr))
}

/// What the host has collected goes to FPSR. Changes no register.
pub(super) fn merge(asm: &mut Asm) {
    let done = asm.label();
    asm.alu_imm(Alu::Cmp, Size::Dword, collects(), 0);
    asm.jcc(Cond::E, done);
    asm.stmxcsr(mxcsr());
    asm.test_imm(Size::Dword, mxcsr(), PRECISION);
    asm.jcc(Cond::E, done);
    asm.alu_imm(Alu::Or, Size::Dword, FPSR, flag::IXC as i32);
    asm.bind(done);
}

/// After [`merge`], when translated code is left.
pub(super) fn stop(asm: &mut Asm) {
    asm.mov_store_imm(Size::Dword, collects(), 0);
}

/// After a function in Rust, which may have rounded something itself: collects anew. Changes no register.
pub(super) fn resume(asm: &mut Asm, default: Mem) {
    let (done, settled) = (asm.label(), asm.label());
    asm.alu_imm(Alu::Cmp, Size::Dword, collects(), 0);
    asm.jcc(Cond::E, done);
    asm.test_imm(Size::Dword, FPSR, flag::IXC as i32);
    asm.jcc(Cond::Ne, settled);
    asm.ldmxcsr(default);
    asm.jmp(done);
    asm.bind(settled);
    asm.mov_store_imm(Size::Dword, collects(), 0);
    asm.bind(done);
}

/// A factor that is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Factor {
    All(Xmm),
    /// The lane in all lanes, as PSHUFD is told.
    Lane(Xmm, u8),
}

/// Results that are exactly zero, and are right, because one of the factors is, and the addend too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zeros {
    /// 64-bit lanes.
    pub(crate) double: bool,
    /// The result in XMM0 need not be looked at.
    pub(crate) certain: bool,
    pub(crate) factors: [Option<Factor>; 2],
    pub(crate) addend: Option<Xmm>,
    /// The lanes in question are in EAX; otherwise it is the lowest.
    pub(crate) in_rax: bool,
}

/// What happens out of the way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Float {
    /// IXC is clear: the host is to collect it.
    Collect { back: Label },
    /// A result that may be a good zero.
    Zeros { zeros: Zeros, good: Label, handler: Label },
    /// The handler has compared, and found no order: the host's flags are made to say so.
    Unordered { below: bool, back: Label },
}

impl Translator<'_> {
    /// Whether the host may compute for `i`; otherwise its handler is called. Changes the host's flags.
    pub(crate) fn computes(&mut self, i: &Insn) -> bool {
        if self.fp_is_controlled {
            self.call_handler(i);
            return false;
        }
        if !std::mem::replace(&mut self.collects, true) {
            let (entry, back) = (self.asm.label(), self.asm.label());
            self.asm.test_imm(Size::Dword, FPSR, flag::IXC as i32);
            self.asm.jcc(Cond::E, entry);
            self.asm.bind(back);
            self.cold.push(Cold::new(entry, What::Float(Float::Collect { back })));
        }
        true
    }

    /// The same for computations that are never inexact.
    pub(crate) fn computes_exactly(&mut self, i: &Insn) -> bool {
        if self.fp_is_controlled {
            self.call_handler(i);
        }
        !self.fp_is_controlled
    }

    /// Where to go with a result that may be a zero as `zeros` says: from there to `good`, or to the handler.
    pub(crate) fn unless_zeros(&mut self, zeros: Zeros, good: Label, rare: &Rare) -> Label {
        let entry = self.asm.label();
        self.cold.push(Cold::new(entry, What::Float(Float::Zeros { zeros, good, handler: rare.entry() })));
        entry
    }

    /// As [`Self::rejoin`], after a comparison: without an order the host's flags say "below" and "equal", or neither.
    pub(crate) fn rejoin_compared(&mut self, rare: Rare, i: &Insn, below: bool) {
        let back = self.asm.label();
        self.asm.bind(back);
        let entry = self.rejoin_elsewhere(rare, i);
        self.cold.push(Cold::new(entry, What::Float(Float::Unordered { below, back })));
    }

    pub(super) fn emit_float(&mut self, float: Float) {
        match float {
            Float::Collect { back } => {
                self.asm.alu_imm(Alu::Cmp, Size::Dword, collects(), 0);
                self.asm.jcc(Cond::Ne, back);
                let default = self.constant(constants::MXCSR);
                self.asm.ldmxcsr(default);
                self.asm.mov_store_imm(Size::Dword, collects(), 1);
                self.asm.jmp(back);
            }
            Float::Zeros { zeros, good, handler } => {
                self.emit_zeros(zeros);
                self.asm.jcc(Cond::E, good);
                self.asm.jmp(handler);
            }
            Float::Unordered { below, back } => {
                // PF is set in both cases: the result has an even number of ones.
                if below {
                    self.asm.mov_imm(Gpr::Rax, u64::from(u32::MAX));
                    self.asm.alu_imm(Alu::Add, Size::Dword, Gpr::Rax, 1);
                } else {
                    self.asm.mov_imm(Gpr::Rax, 3);
                    self.asm.test(Size::Dword, Gpr::Rax, Gpr::Rax);
                }
                self.asm.jmp(back);
            }
        }
    }

    /// Makes ZF say whether all lanes in question are good zeros. Changes XMM1, XMM2, RAX and RCX.
    fn emit_zeros(&mut self, zeros: Zeros) {
        let (result, all, one) = (Xmm::new(0), Xmm::new(1), Xmm::new(2));
        let compare = if zeros.double { CMPPD } else { CMPPS };
        let mut first = true;
        for factor in zeros.factors.into_iter().flatten() {
            let to = if std::mem::take(&mut first) { all } else { one };
            match factor {
                Factor::All(from) => {
                    self.asm.sse(XORPS, to, to);
                    self.asm.sse_imm(compare, to, from, EQUAL);
                }
                Factor::Lane(from, shuffle) => {
                    self.asm.sse_imm(PSHUFD, to, from, shuffle);
                    let zero = self.constant(constants::ZERO);
                    self.asm.sse_imm(compare, to, zero, EQUAL);
                }
            }
            if to == one {
                self.asm.sse(ORPS, all, one);
            }
        }
        for other in [zeros.addend, (!zeros.certain).then_some(result)].into_iter().flatten() {
            self.asm.sse(XORPS, one, one);
            self.asm.sse_imm(compare, one, other, EQUAL);
            self.asm.sse(ANDPS, all, one);
        }
        if !zeros.in_rax {
            self.asm.mov_imm(Gpr::Rax, 1);
        }
        self.asm.sse_mask(if zeros.double { MOVMSKPD } else { MOVMSKPS }, Gpr::Rcx, all);
        self.asm.unary(Unary::Not, Size::Dword, Gpr::Rcx);
        self.asm.test(Size::Dword, Gpr::Rax, Gpr::Rcx);
    }
}
