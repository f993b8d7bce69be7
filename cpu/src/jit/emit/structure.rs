//! LD1 to LD4 and ST1 to ST4: structures of vector elements.
//!
//! One look into the TLB serves all registers of an instruction. Where it misses, the handler does all of it.

use super::lanes::*;
use crate::insn::Insn;
use crate::jit::access::{Moves, Rare};
use crate::jit::runtime::Access;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{Alu, Gpr, HostFeatures, Mem, Size, Xmm};
use crate::mem::Scalar;
use crate::state::SP;

/// Register `n` places after the first, modulo 32.
fn nth(i: &Insn, n: u32) -> u8 {
    (i.rd + n as u8) & 31
}

/// Puts the address into RAX. The index of a writeback is read here, since nothing may be loaded once the way of the
/// handler has been left open.
fn address<const WRITEBACK: u8>(t: &mut Translator<'_>, i: &Insn) {
    let base = t.base(i.rn);
    if WRITEBACK == 2 {
        t.read(i.rm);
    }
    t.asm.mov(Size::Qword, Gpr::Rax, base);
}

fn write_back<const WRITEBACK: u8>(t: &mut Translator<'_>, i: &Insn, bytes: u32) {
    if WRITEBACK == 0 {
        return;
    }
    let base = t.read(i.rn);
    let aligned = t.sp_is_aligned && WRITEBACK == 1 && bytes.is_multiple_of(16);
    if WRITEBACK == 1 {
        t.asm.lea(Size::Qword, base, Mem::base(base, bytes as i32));
    } else {
        let index = t.read(i.rm);
        t.asm.alu(Alu::Add, Size::Qword, base, index);
    }
    t.written(i.rn);
    if i.rn == SP {
        t.sp_is_aligned = aligned;
    }
}

/// Looks `bytes` at RAX up. What misses goes to the handler.
fn look_up(t: &mut Translator<'_>, i: &Insn, bytes: u32, store: bool) -> Rare {
    t.store_all_known();
    let rare = t.rare(i);
    t.look_up(bytes, store, false, rare.entry());
    rare
}

/// Even lanes of `a` and `b` to `a`, odd ones to `b`.
fn unzip(t: &mut Translator<'_>, i: &Insn, a: Xmm, b: Xmm) {
    t.unzip(a, b, i.a, 16);
    t.copy(a, T0);
    t.copy(b, T1);
}

/// `a` and `b` interleaved: the lower half to [`T0`], the upper to [`T1`].
fn zip(t: &mut Translator<'_>, i: &Insn, a: Xmm, b: Xmm) {
    t.lanes(by_size(&UNPACK_LOW, i), T0, a, b);
    t.lanes(by_size(&UNPACK_HIGH, i), T1, a, b);
}

/// Whether the host's code for structures of `each` elements is at hand.
fn can_interleave(i: &Insn, each: u32) -> bool {
    match each {
        1 => true,
        2 => HostFeatures::get().sse4_2,
        4 => HostFeatures::get().sse4_2 && i.b == 1,
        _ => false,
    }
}

/// Begins the host's code for structures of `EACH` elements: their address is in RAX. Where there is none, the handler
/// does it all: `false`.
fn begins<const EACH: u32, const WRITEBACK: u8>(t: &mut Translator<'_>, i: &Insn) -> bool {
    let is_ours = can_interleave(i, EACH);
    if is_ours {
        address::<WRITEBACK>(t, i);
    } else {
        t.call_handler(i);
    }
    is_ours
}

pub(crate) fn multiple_load<const REGS: u32, const EACH: u32, const WRITEBACK: u8>(
    t: &mut Translator<'_>,
    i: &Insn,
) {
    if !begins::<EACH, WRITEBACK>(t, i) {
        return;
    }
    let mut to = [T0; 4];
    for (n, to) in (0..REGS).zip(&mut to) {
        *to = t.reserve_vector(nth(i, n));
    }
    let bytes = 8 << i.b;
    let rare = look_up(t, i, bytes * REGS, false);
    if EACH == 2 && i.b == 0 {
        t.asm.sse(MOVUPS, T0, Mem::base(Gpr::Rax, 0));
        t.unzip_halves(i.a);
        t.lanes_unary(MOVQ, to[0], T0);
        t.lanes_shift(PSRLDQ, to[1], T0, 8);
    } else {
        for (n, &to) in (0..REGS).zip(&to) {
            t.asm.sse(if i.b == 0 { MOVQ } else { MOVUPS }, to, Mem::base(Gpr::Rax, (n * bytes) as i32));
        }
        let [a, b, c, d] = to;
        match EACH {
            2 => unzip(t, i, a, b),
            4 => {
                // Even elements of the structures to a and c, odd ones to b and d, and these halved again.
                unzip(t, i, a, b);
                unzip(t, i, c, d);
                // a has elements 0 and 2 of the first structures, c of the others; b and d have 1 and 3.
                t.unzip(a, c, i.a, 16);
                t.copy(a, T0);
                t.copy(c, T1);
                t.unzip(b, d, i.a, 16);
                t.copy(b, T0);
                t.copy(d, T1);
            }
            _ => {}
        }
    }
    write_back::<WRITEBACK>(t, i, bytes * REGS);
    t.rejoin(rare, i);
    for n in 0..REGS {
        t.vector_written(nth(i, n));
    }
}

pub(crate) fn multiple_store<const REGS: u32, const EACH: u32, const WRITEBACK: u8>(
    t: &mut Translator<'_>,
    i: &Insn,
) {
    if !begins::<EACH, WRITEBACK>(t, i) {
        return;
    }
    let mut from = [T0; 4];
    for (n, from) in (0..REGS).zip(&mut from) {
        *from = t.read_vector(nth(i, n));
    }
    let bytes = 8 << i.b;
    let rare = look_up(t, i, bytes * REGS, true);
    if EACH == 2 {
        zip(t, i, from[0], from[1]);
        t.asm.sse_store(MOVUPS_STORE, Mem::base(Gpr::Rax, 0), T0);
        if i.b == 1 {
            t.asm.sse_store(MOVUPS_STORE, Mem::base(Gpr::Rax, 16), T1);
        }
    } else if EACH == 4 {
        let [a, b, c, d] = from;
        let (low, high) = (by_size(&UNPACK_LOW, i), by_size(&UNPACK_HIGH, i));
        // Elements 0 and 2 of structures, 1 and 3 of them, and both together.
        for (n, half) in (0..).zip([low, high]) {
            t.lanes(half, T0, a, c);
            t.lanes(half, T1, b, d);
            t.lanes(low, T2, T0, T1);
            t.asm.sse_store(MOVUPS_STORE, Mem::base(Gpr::Rax, 32 * n), T2);
            t.lanes(high, T2, T0, T1);
            t.asm.sse_store(MOVUPS_STORE, Mem::base(Gpr::Rax, 32 * n + 16), T2);
        }
    } else {
        let store = if i.b == 0 { MOVQ_STORE } else { MOVUPS_STORE };
        for (n, &from) in (0..REGS).zip(&from) {
            t.asm.sse_store(store, Mem::base(Gpr::Rax, (n * bytes) as i32), from);
        }
    }
    write_back::<WRITEBACK>(t, i, bytes * REGS);
    t.rejoin(rare, i);
}

pub(crate) fn single_load<T: Scalar, const REGS: u32, const WRITEBACK: u8>(t: &mut Translator<'_>, i: &Insn) {
    if REGS > 1 || !HostFeatures::get().sse4_2 {
        t.call_handler(i);
        return;
    }
    address::<WRITEBACK>(t, i);
    let d = t.read_vector(i.rd);
    let log2 = T::BYTES.trailing_zeros();
    t.access(Access::new(log2, t.pc()), Moves::LoadVector { to: T0 });
    match log2 {
        0 | 1 => {
            t.asm.sse_movd_store(Size::Dword, Gpr::Rax, T0);
            t.asm.sse_insert(if log2 == 0 { PINSRB } else { PINSRW }, d, Gpr::Rax, i.b);
        }
        2 => t.lanes_imm(INSERTPS, d, d, T0, i.b << 4),
        _ if i.b == 0 => t.lanes_imm(SHUFPD, d, T0, d, 2),
        _ => t.lanes(PUNPCKLQDQ, d, d, T0),
    }
    write_back::<WRITEBACK>(t, i, T::BYTES as u32);
    t.vector_written(i.rd);
}

pub(crate) fn single_store<T: Scalar, const REGS: u32, const WRITEBACK: u8>(
    t: &mut Translator<'_>,
    i: &Insn,
) {
    if REGS > 1 {
        t.call_handler(i);
        return;
    }
    address::<WRITEBACK>(t, i);
    let from = t.read_vector(i.rd);
    let log2 = T::BYTES.trailing_zeros();
    let lane = if i.b == 0 {
        from
    } else {
        t.lanes_shift(PSRLDQ, T0, from, i.b << log2);
        T0
    };
    t.access(Access::new(log2, t.pc()).store(), Moves::StoreVector { from: lane });
    write_back::<WRITEBACK>(t, i, T::BYTES as u32);
}

pub(crate) fn replicate<const REGS: u32, const WRITEBACK: u8>(t: &mut Translator<'_>, i: &Insn) {
    if REGS > 1 || !HostFeatures::get().sse4_2 {
        t.call_handler(i);
        return;
    }
    address::<WRITEBACK>(t, i);
    let d = t.reserve_vector(i.rd);
    t.access(Access::new(i.a.into(), t.pc()), Moves::LoadVector { to: d });
    t.duplicate(d, d, i.a, 0);
    t.cut(d, 8 << i.b);
    write_back::<WRITEBACK>(t, i, 1 << i.a);
    t.vector_written(i.rd);
}
