//! What instructions become: an emitter for each row of the table that has one, in the module of its handler's name.
//!
//! Emitters are named as the handlers are, with the same parameters. A row without one is translated as a call of its
//! handler.

mod atomic;
mod branch;
pub(crate) mod constants;
mod fp;
mod integer;
mod memory;
mod simd_fp;

#[allow(clippy::wildcard_imports, reason = "the variants that emitters in the table are generic over")]
use crate::exec::width::*;
use crate::insn::Op;

use super::translator::Translator;
use super::x64::Size;
use crate::insn::Insn;

/// The operand size of an instruction.
const fn size<T: Width>() -> Size {
    if T::BITS == 32 { Size::Dword } else { Size::Qword }
}

/// Emits an instruction. Tells if it has an emitter.
#[allow(clippy::too_many_lines, reason = "generated from the table")]
pub(super) fn emit(t: &mut Translator<'_>, i: &Insn) -> bool {
    macro_rules! emit {
        ($($path:tt)*) => {{
            $($path)*(t, i);
            true
        }};
    }
    macro_rules! call {
        () => {
            false
        };
    }
    let op = i.op;
    include!(concat!(env!("OUT_DIR"), "/t1.rs"))
}
