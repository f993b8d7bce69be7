//! Lockstep: each block is run by the interpreter's handlers first, undone, run in translated code, and compared.
//!
//! The handlers run on the vCPU itself, with the software TLB hidden, so that every access takes the slow path: there a
//! write notes what it overwrites, and a device makes the try end. What has been written is then undone, the registers
//! are put back, and the translation runs for good, up to the next block border. All registers, the flags, what an
//! exception reports, and the written memory must be the same. Blocks are cut so that an instruction that must not run
//! twice (a system register with side effects, a barrier that waits for others) has a block to itself, which is not
//! compared; nor is a block that reaches a device. vCPUs take turns, so that none sees what is undone. A device that
//! writes to memory meanwhile is no difference: a block that differs is tried a third time, and only one that repeats
//! itself counts.

use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError};

use crate::code::{Block, context};
use crate::insn::{Class, Insn, Kind, Memory, disassemble};
use crate::interp::Handler;
use crate::jit::{Stopped, insns_of};
use crate::mem::Writes;
use crate::state::SysRegs;
use crate::state::{Flags, Pstate, State};
use crate::{Cpu, Exception};

/// What is compared, and put back before the second run.
#[derive(Clone, Debug, PartialEq)]
struct Registers {
    x: [u64; 32],
    v: [u128; 32],
    pc: u64,
    nzcv: u32,
    pstate: Pstate,
    fpcr: u32,
    fpsr: u32,
    sp_bank: [u64; 2],
    sys: SysRegs,
    /// The exclusive monitor: its address, size and value.
    monitor: Option<(u64, u64, u128)>,
}

impl Registers {
    fn of(cpu: &Cpu) -> Self {
        let state = &cpu.state;
        let mut x = [0; 32];
        x.copy_from_slice(&state.x[..32]);
        let State { pc, pstate, fpcr, fpsr, v, sp_bank, ref sys, .. } = *state;
        let monitor = cpu.mem.monitor().map(|monitor| monitor.seen());
        Self { x, v, pc, nzcv: state.flags.nzcv(), pstate, fpcr, fpsr, sp_bank, sys: sys.clone(), monitor }
    }

    /// The first difference, as text.
    fn difference(&self, other: &Self) -> Option<String> {
        for n in 0..32 {
            if self.x[n] != other.x[n] {
                return Some(format!("x{n}: {:#x} and {:#x}", self.x[n], other.x[n]));
            }
            if self.v[n] != other.v[n] {
                return Some(format!("v{n}: {:#034x} and {:#034x}", self.v[n], other.v[n]));
            }
        }
        let words = [
            ("pc", self.pc, other.pc),
            ("NZCV", self.nzcv.into(), other.nzcv.into()),
            ("PSTATE", self.pstate.0.into(), other.pstate.0.into()),
            ("FPCR", self.fpcr.into(), other.fpcr.into()),
            ("FPSR", self.fpsr.into(), other.fpsr.into()),
            ("SP_EL0", self.sp_bank[0], other.sp_bank[0]),
            ("SP_EL1", self.sp_bank[1], other.sp_bank[1]),
        ];
        if let Some((name, first, second)) = words.into_iter().find(|(_, first, second)| first != second) {
            return Some(format!("{name}: {first:#x} and {second:#x}"));
        }
        if self.monitor != other.monitor {
            return Some(format!("the exclusive monitor: {:x?} and {:x?}", self.monitor, other.monitor));
        }
        (self.sys != other.sys).then(|| format!("system registers: {:?} and {:?}", self.sys, other.sys))
    }
}

/// What the handlers have made of a block and those behind it.
struct Expected {
    /// After each of them.
    steps: Vec<Step>,
    writes: Writes,
}

/// How things are at a block border.
struct Step {
    registers: Registers,
    /// The bytes that each of the writes so far has left.
    written: Vec<Vec<u8>>,
}

impl Step {
    fn difference(&self, registers: &Registers, written: &[Vec<u8>], writes: &Writes) -> Option<String> {
        self.registers.difference(registers).or_else(|| {
            let at = (0..self.written.len()).find(|&n| Some(&self.written[n]) != written.get(n))?;
            let place = writes.place(at);
            Some(format!(
                "memory at host address {place:#x}: {:02x?} and {:02x?}",
                self.written[at],
                written.get(at)
            ))
        })
    }
}

impl Expected {
    /// A difference from every border at this address: a loop may come to one a second time.
    fn difference(&self, registers: &Registers, written: &[Vec<u8>]) -> Option<String> {
        let mut difference = None;
        for step in self.steps.iter().filter(|step| step.registers.pc == registers.pc) {
            difference = Some(step.difference(registers, written, &self.writes)?);
        }
        difference.or_else(|| {
            let pcs: Vec<u64> = self.steps.iter().map(|step| step.registers.pc).collect();
            Some(format!("the next address: one of {pcs:x?} and {:#x}", registers.pc))
        })
    }

    /// Whether another try has made the same.
    fn repeats(&self, other: &Self) -> bool {
        self.steps.len() == other.steps.len()
            && self.steps.iter().zip(&other.steps).all(|(first, second)| {
                first.difference(&second.registers, &second.written, &self.writes).is_none()
            })
    }
}

/// Whether an instruction may be run twice, with what the first run did undone.
pub(crate) fn is_repeatable(insn: &Insn) -> bool {
    let Some(row) = insn.op.row() else { return true };
    match row.class {
        _ if row.kind == Kind::System => false,
        Class::System => row.memory == Memory::Zero || row.kind == Kind::Plain,
        Class::Barrier => row.name != "dsb",
        Class::Hint => !matches!(row.name, "sev" | "sevl"),
        _ => true,
    }
}

/// Instructions of a block, with where they are.
#[derive(Clone, Copy)]
struct Piece<'a> {
    pc: u64,
    end: u64,
    insns: &'a [Insn],
}

impl Piece<'_> {
    fn of(block: NonNull<Block>) -> Self {
        // SAFETY: blocks are found just before, and the arena is not emptied in between.
        let header = unsafe { block.as_ref() };
        Self { pc: header.pc, end: header.end, insns: insns_of(block) }
    }

    fn text(&self, cpu: &Cpu) -> String {
        let mut text = String::new();
        for (pc, insn) in (self.pc..).step_by(4).zip(self.insns) {
            let _ = match insn.op.row() {
                Some(_) => writeln!(text, "{pc:#x}: {}", disassemble(insn.raw, pc, cpu.cluster.features)),
                None => writeln!(text, "{pc:#x}: {:?}", insn.op),
            };
        }
        text
    }
}

impl Cpu {
    /// Runs `block`, and compares if it can. `state.pc` then says where to go on.
    ///
    /// # Panics
    /// If handlers and translation differ.
    pub(crate) fn run_lockstep(&mut self, block: NonNull<Block>) {
        let piece = Piece::of(block);
        // SAFETY: the caller has found the block just now.
        let is_short = unsafe { block.as_ref() }.context & context::SHORT != 0;
        self.state.pc = piece.pc;
        if piece.insns.iter().any(|insn| insn.op.kind() == Kind::System) {
            self.run_handlers(piece);
            return;
        }
        let cluster = Arc::clone(&self.cluster);
        // Blocks of one instruction are not translated, and a step must not be taken twice.
        let comparable = !is_short && piece.insns.iter().all(is_repeatable);
        // One that waits for other vCPUs must not make them wait.
        let turn = comparable.then(|| cluster.turn.lock().unwrap_or_else(PoisonError::into_inner));
        let before = Registers::of(self);
        let monitor = self.mem.monitor();
        let expected = if comparable { self.try_handlers(block, &before) } else { None };
        self.mem.set_monitor(monitor);
        let emptied = self.code.emptied;
        let stopped = self.run_one_translated(block);
        match stopped {
            Stopped::AtBorder | Stopped::Hot(_) => {}
            Stopped::Inside => {
                drop(turn);
                match self.find_block(self.state.pc) {
                    Ok(rest) => self.run_handlers(Piece::of(rest)),
                    Err(exception) => self.take_exception(exception),
                }
                return;
            }
            Stopped::Untranslated => {
                if self.code.emptied == emptied {
                    self.run_handlers(piece);
                }
                return;
            }
        }
        if let Some(expected) = expected {
            let found = Registers::of(self);
            let written = expected.writes.bytes();
            if let Some(difference) = expected.difference(&found, &written) {
                // A device may have written to what is read: then it is not the same when it is tried again.
                expected.writes.undo();
                self.put_back(&before);
                self.mem.set_monitor(monitor);
                let again = self.try_handlers(block, &before);
                let text = piece.text(self);
                assert!(
                    !again.is_some_and(|again| again.repeats(&expected)),
                    "interpreter and translation differ in {difference}\nafter the block\n{text}and those behind it\nbefore {before:x?}"
                );
                self.mem.set_monitor(monitor);
                self.run_handlers(piece);
                return;
            }
        }
        drop(turn);
        if let Stopped::Hot(number) = stopped {
            // A region for the next rounds.
            let _ = self.heat_up(number);
        }
    }

    /// Runs instructions as the interpreter does, from the block on up to where a region might leave, and undoes it. None
    /// if that ends at a device before there is anything to compare.
    fn try_handlers(&mut self, block: NonNull<Block>, before: &Registers) -> Option<Expected> {
        let mut steps = Vec::new();
        let mut next = Some(block);
        let (exception, replay) = self.trying(|cpu| {
            while let Some(block) = next {
                let piece = Piece::of(block);
                let exception = cpu.call_handlers(piece);
                let replay = cpu.replay().filter(|replay| !replay.reached_device)?;
                if exception.is_some() {
                    return exception;
                }
                steps.push(Step { written: replay.writes.bytes(), registers: Registers::of(cpu) });
                next = cpu.next_of_region(block, piece);
            }
            None
        });
        if let Some(exception) = exception {
            self.take_exception(exception);
            steps.push(Step { written: replay.writes.bytes(), registers: Registers::of(self) });
        }
        replay.writes.undo();
        self.put_back(before);
        (!steps.is_empty()).then_some(Expected { steps, writes: replay.writes })
    }

    /// The block that a region which contains `block` may go on with at `state.pc`, without a look at the pending word.
    fn next_of_region(&self, block: NonNull<Block>, piece: Piece<'_>) -> Option<NonNull<Block>> {
        let jit = self.jit.as_ref()?;
        // SAFETY: the arena is not emptied during a try.
        let header = unsafe { block.as_ref() };
        let pc = self.state.pc;
        if !jit.has_regions() || pc < piece.end || (pc ^ piece.pc) & !0xfff != 0 {
            return None;
        }
        self.code.block_beside(header, pc).filter(|&next| insns_of(next).iter().all(is_repeatable))
    }

    /// Runs instructions as the interpreter does.
    fn run_handlers(&mut self, piece: Piece<'_>) {
        if let Some(exception) = self.call_handlers(piece) {
            self.take_exception(exception);
        }
    }

    /// The same, but for taking the exception: it is given, with `state.pc` at its instruction.
    fn call_handlers(&mut self, piece: Piece<'_>) -> Option<Exception> {
        self.state.pc = piece.end;
        for (pc, insn) in (piece.pc..).step_by(4).zip(piece.insns) {
            let mut raised = MaybeUninit::uninit();
            match insn.op.handler() {
                Handler::Plain(handler) => handler(self, insn),
                Handler::Fallible(handler) | Handler::System(handler) => {
                    if handler(self, insn, &mut raised) {
                        self.state.pc = pc;
                        // SAFETY: what the handler returned says that it has written it.
                        return Some(unsafe { raised.assume_init() });
                    }
                }
                Handler::Branch(handler) => {
                    if handler(self, insn) {
                        self.state.pc = insn.imm;
                    }
                }
                Handler::Indirect(handler) => {
                    let target = handler(self, insn);
                    self.state.pc = self.mem.branch_target(target);
                }
            }
        }
        None
    }

    /// Undoes what a try has done to the registers, an exception that it has taken included.
    fn put_back(&mut self, registers: &Registers) {
        if self.state.pstate != registers.pstate {
            self.replace_pstate(registers.pstate.0);
        }
        let state = &mut self.state;
        state.x[..32].copy_from_slice(&registers.x);
        state.v = registers.v;
        state.pc = registers.pc;
        state.flags = Flags::from_nzcv(registers.nzcv);
        (state.fpcr, state.fpsr) = (registers.fpcr, registers.fpsr);
        state.sp_bank = registers.sp_bank;
        state.sys = registers.sys.clone();
    }
}
