//! Ordered loads and stores, exclusives, and the atomics of FEAT_LSE: one locked instruction of the host, or a short loop
//! around one, where the software TLB leads straight to the bytes.
//!
//! Everything else is the handler's, out of the way: a miss, a misaligned address, a device, a page with code. The
//! exclusive monitor is the one that the handlers use, so either may end what the other has begun. Locked instructions
//! order all accesses around them, which is at least what acquire and release ask for.

use std::mem::offset_of;

pub(crate) use super::memory::{ldar, stlr};
use crate::Cpu;
use crate::insn::{Extend, Insn};
use crate::jit::access::{Rare, size_of, transfer_at};
use crate::jit::stubs::{cpu_at, saved_at};
use crate::jit::translator::Translator;
use crate::jit::x64::{Alu, Cond, Gpr, HostFeatures, Mem, Shift, Size, Unary};
use crate::mem::{AtomicOp, Monitor, Scalar};
use crate::state::{DISCARD, ZERO};

/// The bytes at the host address in RAX, and eight bytes behind it.
const HERE: Mem = Mem::base(Gpr::Rax, 0);
const BEHIND: Mem = Mem::base(Gpr::Rax, 8);

const fn width<T: Scalar>() -> Size {
    size_of(T::BYTES.trailing_zeros())
}

/// A field of the exclusive monitor.
fn monitor_at(field: usize) -> Mem {
    cpu_at(offset_of!(Cpu, mem.monitor) + field)
}

/// One of the two halves of what the exclusive monitor has seen.
fn seen_at(half: usize) -> Mem {
    monitor_at(offset_of!(Monitor, value) + 8 * half)
}

/// The host register for the new value of `n`, unless that is dropped.
fn reserve(t: &mut Translator<'_>, n: u8) -> Option<Gpr> {
    (n != DISCARD).then(|| t.reserve(n))
}

/// Leaves a misaligned address in RAX to the handler.
fn check_alignment(t: &mut Translator<'_>, rare: &Rare, bytes: u64) {
    if bytes > 1 {
        t.asm.test_imm(Size::Byte, Gpr::Rax, bytes as i32 - 1);
        t.asm.jcc(Cond::Ne, rare.entry());
    }
}

/// The host address of an update of `bytes` at the address in RAX, into RAX. What can be written can be read.
fn look_up_update(t: &mut Translator<'_>, rare: &Rare, bytes: u64) {
    check_alignment(t, rare, bytes);
    t.look_up(bytes as u32, true, false, rare.entry());
}

/// The address in the base register, into RAX. Gives the base register.
fn address(t: &mut Translator<'_>, i: &Insn) -> Gpr {
    let base = t.base(i.rn);
    t.asm.mov(Size::Qword, Gpr::Rax, base);
    base
}

/// LDADD, LDCLR, LDEOR, LDSET, LDSMAX, ... and SWP.
pub(crate) fn rmw<T: Scalar, const OP: u8>(t: &mut Translator<'_>, i: &Insn) {
    let op = const { AtomicOp::ALL[OP as usize] };
    address(t, i);
    let operand = t.read(i.rm);
    let to = reserve(t, i.rd);
    let rare = t.rare(i);
    look_up_update(t, &rare, T::BYTES);
    update(t, op, width::<T>(), operand, to);
    t.written(i.rd);
    t.rejoin(rare, i);
}

/// Emits the update of the bytes at RAX. What they were goes to `to`.
fn update(t: &mut Translator<'_>, op: AtomicOp, size: Size, operand: Gpr, to: Option<Gpr>) {
    let asm = &mut *t.asm;
    let plain = match op {
        AtomicOp::Add => Some(Alu::Add),
        AtomicOp::Clr => Some(Alu::And),
        AtomicOp::Eor => Some(Alu::Xor),
        AtomicOp::Set => Some(Alu::Or),
        AtomicOp::Smax | AtomicOp::Smin | AtomicOp::Umax | AtomicOp::Umin | AtomicOp::Swp => None,
    };
    match (op, plain, to) {
        (AtomicOp::Swp | AtomicOp::Add, _, Some(to)) => {
            asm.mov(Size::Qword, Gpr::Rcx, operand);
            if op == AtomicOp::Swp {
                asm.xchg(size, HERE, Gpr::Rcx);
            } else {
                asm.lock().xadd(size, HERE, Gpr::Rcx);
            }
            t.extend(to, Gpr::Rcx, size, Extend::Zero);
        }
        (AtomicOp::Swp, _, None) => {
            asm.mov(Size::Qword, Gpr::Rcx, operand);
            asm.xchg(size, HERE, Gpr::Rcx);
        }
        // Nobody wants what was there: the operation itself will do.
        (_, Some(plain), None) => {
            asm.mov(Size::Qword, Gpr::Rcx, operand);
            if op == AtomicOp::Clr {
                asm.unary(Unary::Not, Size::Qword, Gpr::Rcx);
            }
            asm.lock().alu_store(plain, size, HERE, Gpr::Rcx);
        }
        _ => {
            asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
            let here = Mem::base(Gpr::Rdx, 0);
            asm.mov(size, Gpr::Rax, here);
            let again = asm.label_here();
            match (op, plain) {
                (AtomicOp::Clr, _) => {
                    asm.mov(Size::Qword, Gpr::Rcx, operand);
                    asm.unary(Unary::Not, Size::Qword, Gpr::Rcx);
                    asm.alu(Alu::And, Size::Qword, Gpr::Rcx, Gpr::Rax);
                }
                (_, Some(plain)) => {
                    asm.mov(Size::Qword, Gpr::Rcx, Gpr::Rax);
                    asm.alu(plain, Size::Qword, Gpr::Rcx, operand);
                }
                (_, None) => {
                    // The bits above the size are not stored.
                    asm.mov(Size::Qword, Gpr::Rcx, Gpr::Rax);
                    asm.alu(Alu::Cmp, size, Gpr::Rax, operand);
                    let operand_wins = match op {
                        AtomicOp::Smax => Cond::L,
                        AtomicOp::Smin => Cond::G,
                        AtomicOp::Umax => Cond::B,
                        _ => Cond::A,
                    };
                    asm.cmovcc(operand_wins, Size::Qword, Gpr::Rcx, operand);
                }
            }
            asm.lock().cmpxchg(size, here, Gpr::Rcx);
            asm.jcc(Cond::Ne, again);
            if let Some(to) = to {
                t.extend(to, Gpr::Rax, size, Extend::Zero);
            }
        }
    }
}

pub(crate) fn cas<T: Scalar>(t: &mut Translator<'_>, i: &Insn) {
    address(t, i);
    let (expected, new) = (t.read(i.ra), t.read(i.rm));
    let to = reserve(t, i.rd);
    let rare = t.rare(i);
    look_up_update(t, &rare, T::BYTES);
    t.asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
    t.asm.mov(Size::Qword, Gpr::Rax, expected);
    t.asm.lock().cmpxchg(width::<T>(), Mem::base(Gpr::Rdx, 0), new);
    if let Some(to) = to {
        t.extend(to, Gpr::Rax, width::<T>(), Extend::Zero);
    }
    t.written(i.rd);
    t.rejoin(rare, i);
}

/// The register after `n`, as in the handlers: 31 is the zero register.
const fn next(n: u8, last: u8) -> u8 {
    if n == 30 { last } else { n + 1 }
}

/// The registers of a CASP.
struct Casp {
    expected: [Gpr; 2],
    new: [Gpr; 2],
    to: [Option<Gpr>; 2],
    rare: Rare,
}

/// Begins a CASP: RAX is then the host address.
fn casp(t: &mut Translator<'_>, i: &Insn, bytes: u64) -> Casp {
    address(t, i);
    let expected = [t.read(i.ra), t.read(next(i.ra, ZERO))];
    let new = [t.read(i.rm), t.read(next(i.rm, ZERO))];
    let to = [reserve(t, i.rd), reserve(t, next(i.rd, DISCARD))];
    let rare = t.rare(i);
    look_up_update(t, &rare, bytes);
    Casp { expected, new, to, rare }
}

fn end_casp(t: &mut Translator<'_>, i: &Insn, rare: Rare) {
    t.written(i.rd);
    t.written(next(i.rd, DISCARD));
    t.rejoin(rare, i);
}

pub(crate) fn casp_32(t: &mut Translator<'_>, i: &Insn) {
    let Casp { expected, new, to, rare } = casp(t, i, 8);
    t.asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
    join(t, Gpr::Rax, expected);
    join(t, Gpr::Rcx, new);
    t.asm.lock().cmpxchg(Size::Qword, Mem::base(Gpr::Rdx, 0), Gpr::Rcx);
    split(t, to);
    end_casp(t, i, rare);
}

/// The low words of two registers into one.
fn join(t: &mut Translator<'_>, into: Gpr, from: [Gpr; 2]) {
    t.asm.mov(Size::Qword, into, from[0]);
    t.asm.shift(Shift::Shl, Size::Qword, into, 32);
    t.asm.shrd(Size::Qword, into, from[1], 32);
}

/// The words of RAX to two registers.
fn split(t: &mut Translator<'_>, to: [Option<Gpr>; 2]) {
    if let Some(low) = to[0] {
        t.asm.mov(Size::Dword, low, Gpr::Rax);
    }
    if let Some(high) = to[1] {
        t.asm.mov(Size::Qword, high, Gpr::Rax);
        t.asm.shift(Shift::Shr, Size::Qword, high, 32);
    }
}

pub(crate) fn casp_64(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().cmpxchg16b {
        t.call_handler(i);
        return;
    }
    let Casp { expected, new, to, rare } = casp(t, i, 16);
    for (n, register) in expected.into_iter().enumerate() {
        t.asm.mov_store(Size::Qword, transfer_at(2 + n), register);
    }
    exchange_pair(t, new, [transfer_at(2), transfer_at(3)]);
    for (to, from) in to.into_iter().zip([Gpr::Rax, Gpr::Rdx]) {
        if let Some(to) = to {
            t.asm.mov(Size::Qword, to, from);
        }
    }
    end_casp(t, i, rare);
}

/// CMPXCHG16B at the host address in RAX. What was there is in RDX:RAX then.
fn exchange_pair(t: &mut Translator<'_>, new: [Gpr; 2], expected: [Mem; 2]) {
    /// Lent by the guest's registers, for the low half of the new value and the address.
    const LENT: [Gpr; 2] = [Gpr::Rbx, Gpr::Rsi];
    let asm = &mut *t.asm;
    for (n, register) in new.into_iter().enumerate() {
        asm.mov_store(Size::Qword, transfer_at(n), register);
    }
    for (n, register) in LENT.into_iter().enumerate() {
        asm.mov_store(Size::Qword, saved_at(n), register);
    }
    asm.mov(Size::Qword, Gpr::Rsi, Gpr::Rax);
    asm.mov(Size::Qword, Gpr::Rbx, transfer_at(0));
    asm.mov(Size::Qword, Gpr::Rcx, transfer_at(1));
    asm.mov(Size::Qword, Gpr::Rax, expected[0]);
    asm.mov(Size::Qword, Gpr::Rdx, expected[1]);
    asm.lock().cmpxchg16b(Mem::base(Gpr::Rsi, 0));
    for (n, register) in LENT.into_iter().enumerate() {
        asm.mov(Size::Qword, register, saved_at(n));
    }
}

/// The exclusive load of `bytes` that are at the host address in RAX, from the address in `base`: the monitor watches them.
fn begin_monitor(t: &mut Translator<'_>, base: Gpr, bytes: u64) {
    t.asm.mov_store(Size::Qword, monitor_at(offset_of!(Monitor, va)), base);
    t.asm.mov_store(Size::Qword, monitor_at(offset_of!(Monitor, at)), Gpr::Rax);
    t.asm.mov_store_imm(Size::Qword, monitor_at(offset_of!(Monitor, bytes)), bytes as i32);
}

/// LDXR and LDAXR.
pub(crate) fn ldxr<T: Scalar, const ORDERED: bool>(t: &mut Translator<'_>, i: &Insn) {
    load_exclusive(t, i, T::BYTES, &[i.rd], |t, to| {
        t.extend(Gpr::Rcx, HERE, width::<T>(), Extend::Zero);
        t.asm.mov_store(Size::Qword, seen_at(0), Gpr::Rcx);
        if let Some(to) = to[0] {
            t.asm.mov(Size::Qword, to, Gpr::Rcx);
        }
    });
}

pub(crate) fn ldxp_32<const ORDERED: bool>(t: &mut Translator<'_>, i: &Insn) {
    load_exclusive(t, i, 8, &[i.rd, i.ra], |t, to| {
        t.asm.mov(Size::Qword, Gpr::Rax, HERE);
        t.asm.mov_store(Size::Qword, seen_at(0), Gpr::Rax);
        split(t, [to[0], to[1]]);
    });
}

pub(crate) fn ldxp_64<const ORDERED: bool>(t: &mut Translator<'_>, i: &Insn) {
    load_exclusive(t, i, 16, &[i.rd, i.ra], |t, to| {
        t.asm.mov(Size::Qword, Gpr::Rcx, HERE);
        t.asm.mov(Size::Qword, Gpr::Rdx, BEHIND);
        for (n, (to, from)) in to.iter().zip([Gpr::Rcx, Gpr::Rdx]).enumerate() {
            t.asm.mov_store(Size::Qword, seen_at(n), from);
            if let Some(to) = *to {
                t.asm.mov(Size::Qword, to, from);
            }
        }
    });
}

/// An exclusive load of `bytes` into the registers `guests`. `load` emits what happens at the host address in RAX.
fn load_exclusive(
    t: &mut Translator<'_>,
    i: &Insn,
    bytes: u64,
    guests: &[u8],
    load: impl FnOnce(&mut Translator<'_>, &[Option<Gpr>]),
) {
    let base = address(t, i);
    let to: Vec<Option<Gpr>> = guests.iter().map(|&n| reserve(t, n)).collect();
    let rare = t.rare(i);
    check_alignment(t, &rare, bytes);
    t.look_up(bytes as u32, false, false, rare.entry());
    begin_monitor(t, base, bytes);
    load(t, &to);
    for &n in guests {
        t.written(n);
    }
    t.rejoin(rare, i);
}

/// STXR and STLXR.
pub(crate) fn stxr<T: Scalar, const ORDERED: bool>(t: &mut Translator<'_>, i: &Insn) {
    let new = t.read(i.rm);
    store_exclusive(t, i, T::BYTES, |t| {
        t.asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
        t.asm.mov(Size::Qword, Gpr::Rax, seen_at(0));
        t.asm.lock().cmpxchg(width::<T>(), Mem::base(Gpr::Rdx, 0), new);
    });
}

pub(crate) fn stxp_32<const ORDERED: bool>(t: &mut Translator<'_>, i: &Insn) {
    let new = [t.read(i.rm), t.read(i.ra)];
    store_exclusive(t, i, 8, |t| {
        t.asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
        join(t, Gpr::Rcx, new);
        t.asm.mov(Size::Qword, Gpr::Rax, seen_at(0));
        t.asm.lock().cmpxchg(Size::Qword, Mem::base(Gpr::Rdx, 0), Gpr::Rcx);
    });
}

pub(crate) fn stxp_64<const ORDERED: bool>(t: &mut Translator<'_>, i: &Insn) {
    if !HostFeatures::get().cmpxchg16b {
        t.call_handler(i);
        return;
    }
    let new = [t.read(i.rm), t.read(i.ra)];
    store_exclusive(t, i, 16, |t| exchange_pair(t, new, [seen_at(0), seen_at(1)]));
}

/// An exclusive store of `bytes`: `exchange` emits the store, at the host address in RAX, on condition that what is there
/// is what the monitor has seen. ZF then says whether it was.
fn store_exclusive(t: &mut Translator<'_>, i: &Insn, bytes: u64, exchange: impl FnOnce(&mut Translator<'_>)) {
    address(t, i);
    let to = reserve(t, i.rd);
    let rare = t.rare(i);
    let done = t.asm.label();
    check_alignment(t, &rare, bytes);
    // Without a monitor for just these bytes nothing is accessed, so nothing can fault.
    t.asm.alu_imm(Alu::Cmp, Size::Qword, monitor_at(offset_of!(Monitor, bytes)), bytes as i32);
    t.asm.jcc(Cond::Ne, done);
    t.asm.alu(Alu::Cmp, Size::Qword, Gpr::Rax, monitor_at(offset_of!(Monitor, va)));
    t.asm.jcc(Cond::Ne, done);
    t.look_up(bytes as u32, true, false, rare.entry());
    t.asm.alu(Alu::Cmp, Size::Qword, Gpr::Rax, monitor_at(offset_of!(Monitor, at)));
    t.asm.jcc(Cond::Ne, done);
    exchange(t);
    t.asm.bind(done);
    // ZF as it is on each of the ways here: MOV does not change it.
    t.asm.mov_store_imm(Size::Qword, monitor_at(offset_of!(Monitor, bytes)), 0);
    if let Some(to) = to {
        t.asm.mov_imm(to, 0);
        t.asm.setcc(Cond::Ne, to);
    }
    t.written(i.rd);
    t.rejoin(rare, i);
}
