//! What instructions become: an emitter for each row of the table that has one, in the module of its handler's name.
//!
//! Emitters are named as the handlers are, with the same parameters. A row without one is translated as a call of its
//! handler.

mod atomic;
mod barrier;
mod branch;
pub(crate) mod constants;
mod crc;
mod crypto;
mod fp;
mod integer;
mod lanes;
mod memory;
mod simd_fp;
mod simd_misc;
mod simd_move;
mod simd_same;
mod simd_shift;
mod simd_wide;
mod structure;
mod system;

#[allow(clippy::wildcard_imports, reason = "the variants that emitters in the table are generic over")]
use crate::exec::width::*;
use crate::insn::{Class, Op};
use crate::mem::AtomicOp;

use super::translator::Translator;
use super::x64::{HostFeatures, Size};
use crate::insn::Insn;

/// The operand size of an instruction.
const fn size<T: Width>() -> Size {
    if T::BITS == 32 { Size::Dword } else { Size::Qword }
}

/// Whether the emitters of a class need SSE4.2 and what came before it. Hosts without it are so rare that they do with the
/// handlers.
fn needs_sse4(op: Op) -> bool {
    use Class::{Crypto, SimdMisc, SimdMove, SimdSame, SimdShift, SimdWide};
    op.row().is_some_and(|row| {
        matches!(row.class, SimdSame | SimdWide | SimdMisc | SimdShift | SimdMove | Crypto)
    })
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
    if !HostFeatures::get().sse4_2 && needs_sse4(op) {
        return false;
    }
    include!(concat!(env!("OUT_DIR"), "/emitters.rs"))
}
