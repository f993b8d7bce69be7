//! LD1 to LD4 and ST1 to ST4: structures of vector elements.
//!
//! Arm ARM C3.2.9, C7.2 LD1 and following. An instruction that crosses into a page it may not access must have
//! changed nothing: loads collect all elements before they write a register, stores of more than one access probe all
//! of their bytes first. `WRITEBACK` is 0 for none, 1 for the bytes transferred, 2 for a register.

use super::memory::base;
use crate::insn::Insn;
use crate::mem::Scalar;
use crate::{Cpu, Exception};

/// Lane `lane` of `vector`.
#[inline]
fn lane(vector: u128, log: u8, lane: u32) -> u64 {
    let bits = 8u32 << log;
    let element = vector >> ((lane * bits) & 127);
    if bits == 64 { element as u64 } else { element as u64 & ((1 << bits) - 1) }
}

/// `vector` with `lane` replaced.
#[inline]
fn with_lane(vector: u128, log: u8, lane: u32, value: u64) -> u128 {
    let bits = 8u32 << log;
    let shift = (lane * bits) & 127;
    let mask = if bits == 64 { u128::from(u64::MAX) } else { (1 << bits) - 1 };
    vector & !(mask << shift) | (u128::from(value) & mask) << shift
}

fn load_element(cpu: &mut Cpu, log: u8, va: u64) -> Result<u64, Exception> {
    Ok(match log {
        0 => cpu.load::<u8>(va)?.into(),
        1 => cpu.load::<u16>(va)?.into(),
        2 => cpu.load::<u32>(va)?.into(),
        _ => cpu.load::<u64>(va)?,
    })
}

fn store_element(cpu: &mut Cpu, log: u8, va: u64, value: u64) -> Result<(), Exception> {
    match log {
        0 => cpu.store(va, value as u8),
        1 => cpu.store(va, value as u16),
        2 => cpu.store(va, value as u32),
        _ => cpu.store(va, value),
    }
}

#[inline]
fn write_back<const WRITEBACK: u8>(cpu: &mut Cpu, i: &Insn, base: u64, bytes: u64) {
    match WRITEBACK {
        1 => cpu.set_x(i.rn, base.wrapping_add(bytes)),
        2 => cpu.set_x(i.rn, base.wrapping_add(cpu.x(i.rm))),
        _ => {}
    }
}

/// Register `n` places after the first, modulo 32.
#[inline]
fn nth(i: &Insn, n: u32) -> u8 {
    (i.rd + n as u8) & 31
}

/// LD1 to LD4, multiple structures: `REGS` registers, of which `EACH` are interleaved. `a` is log2 of the element's
/// bytes, `b` Q.
pub(crate) fn multiple_load<const REGS: u32, const EACH: u32, const WRITEBACK: u8>(
    cpu: &mut Cpu,
    i: &Insn,
) -> Result<(), Exception> {
    let start = base(cpu, i)?;
    let register_bytes = 8u64 << i.b;
    let bytes = register_bytes * u64::from(REGS);
    let mut loaded = [0u128; 4];
    if EACH == 1 {
        // Registers one after the other: lanes don't matter on a little-endian host.
        for (n, value) in (0..).zip(loaded.iter_mut().take(REGS as usize)) {
            let va = start.wrapping_add(n * register_bytes);
            *value = if i.b == 0 { cpu.load::<u64>(va)?.into() } else { cpu.load::<u128>(va)? };
        }
    } else {
        let mut va = start;
        for element in 0..(register_bytes >> i.a) as u32 {
            for value in loaded.iter_mut().take(REGS as usize) {
                *value = with_lane(*value, i.a, element, load_element(cpu, i.a, va)?);
                va = va.wrapping_add(1 << i.a);
            }
        }
    }
    write_back::<WRITEBACK>(cpu, i, start, bytes);
    for (n, &value) in (0..REGS).zip(&loaded) {
        cpu.set_v(nth(i, n), value);
    }
    Ok(())
}

/// ST1 to ST4, multiple structures.
pub(crate) fn multiple_store<const REGS: u32, const EACH: u32, const WRITEBACK: u8>(
    cpu: &mut Cpu,
    i: &Insn,
) -> Result<(), Exception> {
    let start = base(cpu, i)?;
    let register_bytes = 8u64 << i.b;
    let bytes = register_bytes * u64::from(REGS);
    if !(EACH == 1 && REGS == 1) {
        cpu.probe_store(start, bytes)?;
    }
    let mut va = start;
    if EACH == 1 {
        for n in 0..REGS {
            let value = cpu.v(nth(i, n));
            if i.b == 0 {
                cpu.store(va, value as u64)?
            } else {
                cpu.store(va, value)?
            }
            va = va.wrapping_add(register_bytes);
        }
    } else {
        for element in 0..(register_bytes >> i.a) as u32 {
            for n in 0..REGS {
                store_element(cpu, i.a, va, lane(cpu.v(nth(i, n)), i.a, element))?;
                va = va.wrapping_add(1 << i.a);
            }
        }
    }
    write_back::<WRITEBACK>(cpu, i, start, bytes);
    Ok(())
}

/// LD1 to LD4, single structure: one lane (`b`) of each register.
pub(crate) fn single_load<T: Scalar, const REGS: u32, const WRITEBACK: u8>(
    cpu: &mut Cpu,
    i: &Insn,
) -> Result<(), Exception> {
    let start = base(cpu, i)?;
    let mut loaded = [0u64; 4];
    for (n, value) in (0..).zip(loaded.iter_mut().take(REGS as usize)) {
        *value = cpu.load::<T>(start.wrapping_add(n * T::BYTES))?.to_u128() as u64;
    }
    write_back::<WRITEBACK>(cpu, i, start, u64::from(REGS) * T::BYTES);
    for (n, &value) in (0..REGS).zip(&loaded) {
        let register = nth(i, n);
        let log = T::BYTES.ilog2() as u8;
        cpu.set_v(register, with_lane(cpu.v(register), log, i.b.into(), value));
    }
    Ok(())
}

/// ST1 to ST4, single structure.
pub(crate) fn single_store<T: Scalar, const REGS: u32, const WRITEBACK: u8>(
    cpu: &mut Cpu,
    i: &Insn,
) -> Result<(), Exception> {
    let start = base(cpu, i)?;
    let bytes = u64::from(REGS) * T::BYTES;
    if REGS > 1 {
        cpu.probe_store(start, bytes)?;
    }
    let mut va = start;
    for n in 0..REGS {
        let value = lane(cpu.v(nth(i, n)), T::BYTES.ilog2() as u8, i.b.into());
        cpu.store::<T>(va, T::from_u128(value.into()))?;
        va = va.wrapping_add(T::BYTES);
    }
    write_back::<WRITEBACK>(cpu, i, start, bytes);
    Ok(())
}

/// LD1R to LD4R: one element per register, in all its lanes.
pub(crate) fn replicate<const REGS: u32, const WRITEBACK: u8>(
    cpu: &mut Cpu,
    i: &Insn,
) -> Result<(), Exception> {
    let start = base(cpu, i)?;
    let mut loaded = [0u64; 4];
    for (n, value) in (0..).zip(loaded.iter_mut().take(REGS as usize)) {
        *value = load_element(cpu, i.a, start.wrapping_add(n << i.a))?;
    }
    write_back::<WRITEBACK>(cpu, i, start, u64::from(REGS) << i.a);
    for (n, &value) in (0..REGS).zip(&loaded) {
        let mut vector = u128::from(value);
        for step in u32::from(i.a)..4 {
            vector |= vector << (8 << step);
        }
        if i.b == 0 {
            vector &= u128::from(u64::MAX);
        }
        cpu.set_v(nth(i, n), vector);
    }
    Ok(())
}
