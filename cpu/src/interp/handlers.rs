//! Every operation's handler as a function that can be called through a pointer.
//!
//! The interpreter's loop contains the handlers of the rows that the table calls hot, and calls the others from here. A
//! translating tier needs all of them: it compiles a row for which it has no emitter as a call. So they have the C calling
//! convention, and an exception is handed out through a pointer. They unwind, so that a fault of ours is reported as
//! one.

use std::mem::MaybeUninit;

use crate::exec::atomic::AtomicOp;
use crate::exec::memory::{S8, S8w, S16, S16w, S32, U8, U16, U32, U64};
#[allow(clippy::wildcard_imports, reason = "the variants that handlers in the table are generic over")]
use crate::exec::width::*;
use crate::insn::{Insn, Op, ROW_COUNT};
use crate::{Cpu, Exception};

/// Whether an exception was raised; if so, the last argument has been written, and nothing that the guest can see has.
pub type Raising = extern "C-unwind" fn(&mut Cpu, &Insn, &mut MaybeUninit<Exception>) -> bool;

/// A handler, by the [`Kind`](crate::insn::Kind) that says how it is called.
#[derive(Clone, Copy, Debug)]
pub enum Handler {
    /// Then comes the next instruction.
    Plain(extern "C-unwind" fn(&mut Cpu, &Insn)),
    /// Then comes the next instruction, or the exception.
    Fallible(Raising),
    /// Then comes `imm` if it returns true, else the next instruction.
    Branch(extern "C-unwind" fn(&mut Cpu, &Insn) -> bool),
    /// Then comes the address that it returns.
    Indirect(extern "C-unwind" fn(&mut Cpu, &Insn) -> u64),
    /// Is called with `state.pc` at the next instruction; then comes what `state.pc` is, or the exception.
    System(Raising),
}

impl Op {
    /// The operation's handler. It never tests what the decoder has: it must be given an [`Insn`] of this operation.
    #[inline]
    #[must_use]
    pub fn handler(self) -> Handler {
        HANDLERS[self as usize]
    }
}

macro_rules! plain {
    ($($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn) {
            $($handler)*(cpu, i);
        }
        Handler::Plain(call)
    }};
}

macro_rules! raising {
    ($kind:ident, $($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn, raised: &mut MaybeUninit<Exception>) -> bool {
            match $($handler)*(cpu, i) {
                Ok(()) => false,
                Err(exception) => {
                    raised.write(exception);
                    true
                }
            }
        }
        Handler::$kind(call)
    }};
}

macro_rules! fallible {
    ($($handler:tt)*) => { raising!(Fallible, $($handler)*) };
}

macro_rules! system {
    ($($handler:tt)*) => { raising!(System, $($handler)*) };
}

macro_rules! branch {
    ($($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn) -> bool {
            $($handler)*(cpu, i)
        }
        Handler::Branch(call)
    }};
}

macro_rules! indirect {
    ($($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn) -> u64 {
            $($handler)*(cpu, i)
        }
        Handler::Indirect(call)
    }};
}

/// In the order of [`Op`]: the rows, and the engine's own three.
static HANDLERS: [Handler; ROW_COUNT + 3] = include!(concat!(env!("OUT_DIR"), "/handlers.rs"));
