//! Ordered loads and stores, exclusives, and the atomics of FEAT_LSE.
//!
//! Arm ARM B2.12, C3.2.6 to C3.2.14. What makes them atomic is in `mem`.

use super::memory::base;
use crate::insn::Insn;
pub(crate) use crate::mem::AtomicOp;
use crate::mem::{Order, Scalar};
use crate::{Cpu, Exception};

const fn order(ordered: bool) -> Order {
    if ordered { Order::Ordered } else { Order::Relaxed }
}

/// The value of a general register as `T`.
#[inline(always)]
fn register<T: Scalar>(cpu: &Cpu, n: u8) -> T {
    T::from_u128(cpu.x(n).into())
}

/// LDAR and LDAPR.
#[inline(always)]
pub(crate) fn ldar<T: Scalar>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let value = cpu.load_acquire::<T>(va)?;
    cpu.set_x(i.rd, value.to_u128() as u64);
    Ok(())
}

#[inline(always)]
pub(crate) fn stlr<T: Scalar>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    cpu.store_release::<T>(va, register(cpu, i.rd))
}

/// LDXR and LDAXR.
pub(crate) fn ldxr<T: Scalar, const ORDERED: bool>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let value = cpu.load_exclusive::<T>(va, order(ORDERED))?;
    cpu.set_x(i.rd, value.to_u128() as u64);
    Ok(())
}

/// STXR and STLXR: the status is 0 for a store that was made.
pub(crate) fn stxr<T: Scalar, const ORDERED: bool>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let stored = cpu.store_exclusive::<T>(va, register(cpu, i.rm), order(ORDERED))?;
    cpu.set_x(i.rd, (!stored).into());
    Ok(())
}

pub(crate) fn ldxp_32<const ORDERED: bool>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let both = cpu.load_exclusive::<u64>(va, order(ORDERED))?;
    cpu.set_w(i.rd, both as u32);
    cpu.set_w(i.ra, (both >> 32) as u32);
    Ok(())
}

pub(crate) fn ldxp_64<const ORDERED: bool>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let both = cpu.load_exclusive::<u128>(va, order(ORDERED))?;
    cpu.set_x(i.rd, both as u64);
    cpu.set_x(i.ra, (both >> 64) as u64);
    Ok(())
}

pub(crate) fn stxp_32<const ORDERED: bool>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let both = u64::from(cpu.w(i.rm)) | u64::from(cpu.w(i.ra)) << 32;
    let stored = cpu.store_exclusive::<u64>(va, both, order(ORDERED))?;
    cpu.set_x(i.rd, (!stored).into());
    Ok(())
}

pub(crate) fn stxp_64<const ORDERED: bool>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let both = u128::from(cpu.x(i.rm)) | u128::from(cpu.x(i.ra)) << 64;
    let stored = cpu.store_exclusive::<u128>(va, both, order(ORDERED))?;
    cpu.set_x(i.rd, (!stored).into());
    Ok(())
}

/// LDADD, LDCLR, LDEOR, LDSET, LDSMAX, ... and SWP.
pub(crate) fn rmw<T: Scalar, const OP: u8>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let old =
        cpu.atomic::<T>(const { AtomicOp::ALL[OP as usize] }, va, register(cpu, i.rm), Order::Ordered)?;
    cpu.set_x(i.rd, old.to_u128() as u64);
    Ok(())
}

pub(crate) fn cas<T: Scalar>(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    let va = base(cpu, i)?;
    let old = cpu.compare_and_swap::<T>(va, register(cpu, i.ra), register(cpu, i.rm), Order::Ordered)?;
    cpu.set_x(i.rd, old.to_u128() as u64);
    Ok(())
}

/// The register after `n`: the second of an even-odd pair. 31 is the zero register.
const fn next(n: u8, last: u8) -> u8 {
    if n == 30 { last } else { n + 1 }
}

pub(crate) fn casp_32(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    use crate::state::{DISCARD, ZERO};
    let va = base(cpu, i)?;
    let pair = |cpu: &Cpu, n: u8| u64::from(cpu.w(n)) | u64::from(cpu.w(next(n, ZERO))) << 32;
    let (expected, new) = (pair(cpu, i.ra), pair(cpu, i.rm));
    let old = cpu.compare_and_swap::<u64>(va, expected, new, Order::Ordered)?;
    cpu.set_w(i.rd, old as u32);
    cpu.set_w(next(i.rd, DISCARD), (old >> 32) as u32);
    Ok(())
}

pub(crate) fn casp_64(cpu: &mut Cpu, i: &Insn) -> Result<(), Exception> {
    use crate::state::{DISCARD, ZERO};
    let va = base(cpu, i)?;
    let pair = |cpu: &Cpu, n: u8| u128::from(cpu.x(n)) | u128::from(cpu.x(next(n, ZERO))) << 64;
    let (expected, new) = (pair(cpu, i.ra), pair(cpu, i.rm));
    let old = cpu.compare_and_swap::<u128>(va, expected, new, Order::Ordered)?;
    cpu.set_x(i.rd, old as u64);
    cpu.set_x(next(i.rd, DISCARD), (old >> 64) as u64);
    Ok(())
}
