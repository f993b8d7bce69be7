//! LD1 to LD4 and ST1 to ST4: structures of vector elements.
//!
//! Arm ARM C3.2.9, C7.2 LD1 and following. An instruction that crosses into a page it may not access must have
//! changed nothing: loads collect all elements before they write a register, stores of more than one access probe all
//! of their bytes first. Each element is an access of its own: no more than an element must be aligned, and devices see
//! elements. Where memory can be reached directly nobody can tell, and whole registers are moved. `WRITEBACK` is 0 for none, 1 for the bytes transferred, 2 for a register.

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

/// Lanes of a register: 8 bytes, or 16 with `q`.
#[inline]
fn lanes(log: u8, q: u8) -> u32 {
    (8u32 << q) >> log
}

/// All elements of a register from consecutive addresses.
#[inline]
fn load_register(cpu: &mut Cpu, log: u8, q: u8, va: u64) -> Result<u128, Exception> {
    let whole = if q == 0 { cpu.load_fast::<u64>(va).map(u128::from) } else { cpu.load_fast::<u128>(va) };
    if let Some(whole) = whole {
        return Ok(whole);
    }
    let mut value = 0;
    for element in 0..lanes(log, q) {
        let at = va.wrapping_add(u64::from(element) << log);
        value = with_lane(value, log, element, load_element(cpu, log, at)?);
    }
    Ok(value)
}

/// All elements of a register to consecutive addresses, which can be written.
#[inline]
fn store_register(cpu: &mut Cpu, log: u8, q: u8, va: u64, value: u128) -> Result<(), Exception> {
    if if q == 0 { cpu.store_fast(va, value as u64) } else { cpu.store_fast(va, value) } {
        return Ok(());
    }
    for element in 0..lanes(log, q) {
        let at = va.wrapping_add(u64::from(element) << log);
        store_element(cpu, log, at, lane(value, log, element))?;
    }
    Ok(())
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
        for (n, value) in (0..).zip(loaded.iter_mut().take(REGS as usize)) {
            *value = load_register(cpu, i.a, i.b, start.wrapping_add(n * register_bytes))?;
        }
    } else {
        let mut va = start;
        for element in 0..lanes(i.a, i.b) {
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
    cpu.probe_store(start, bytes, 1 << i.a)?;
    let mut va = start;
    if EACH == 1 {
        for n in 0..REGS {
            store_register(cpu, i.a, i.b, va, cpu.v(nth(i, n)))?;
            va = va.wrapping_add(register_bytes);
        }
    } else {
        for element in 0..lanes(i.a, i.b) {
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
        cpu.probe_store(start, bytes, T::BYTES)?;
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

#[cfg(test)]
mod tests {
    use crate::testbed::{Bench, DEVICE, RAM};
    use crate::{Cpu, Exit};

    /// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
    const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
    /// Load instead of store.
    const LOAD: u32 = 1 << 22;

    /// Runs one instruction with x1 as its base, with the MMU off: all memory is Device memory. Gives ESR_EL1 and
    /// FAR_EL1, zero without an exception.
    fn run(bench: &Bench, word: u32, base: u64) -> (u64, u64, Cpu) {
        bench.code(RAM, &[word]);
        bench.code(RAM + 4, &OFF);
        bench.code(RAM + 0x1200, &OFF);
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        cpu.state.sys.vbar = RAM + 0x1000;
        cpu.state.sys.cpacr = 3 << 20;
        cpu.state.x[1] = base;
        cpu.state.v[0] = 0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110;
        assert_eq!(cpu.run(None), Exit::SystemOff);
        bench.cluster.resume();
        (cpu.state.sys.esr, cpu.state.sys.far, cpu)
    }

    #[test]
    fn structures_must_be_aligned_to_their_elements_and_to_no_more() {
        let bench = Bench::new(1);
        const BUFFER: u64 = RAM + 0x2000;
        // Instruction, log2 of the element's bytes. All with base x1.
        let cases = [
            ("st1 {v0.8b}", 0x0c00_7020, 0),
            ("st1 {v0.16b}", 0x4c00_7020, 0),
            ("st1 {v0.8h}", 0x4c00_7420, 1),
            ("st1 {v0.4s}", 0x4c00_7820, 2),
            ("st1 {v0.2d}", 0x4c00_7c20, 3),
            ("st1 {v0.4h-v1.4h}", 0x0c00_a420, 1),
            ("st1 {v0.2d-v3.2d}", 0x4c00_2c20, 3),
            ("st2 {v0.4s, v1.4s}", 0x4c00_8820, 2),
        ];
        for (name, word, log) in cases {
            for (word, write) in [(word, 1 << 6), (word | LOAD, 0)] {
                let element = 1 << log;
                let (esr, _, cpu) = run(&bench, word, BUFFER + element);
                assert_eq!(esr, 0, "{name} {word:#x}, aligned to its elements");
                assert_eq!(cpu.state.v[0] as u8, 0x10, "{name} {word:#x}");
                if log > 0 {
                    let (esr, far, _) = run(&bench, word, BUFFER + element / 2);
                    let fault = 0x25 << 26 | 1 << 25 | write | 0x21;
                    assert_eq!(
                        (esr, far),
                        (fault, BUFFER + element / 2),
                        "{name} {word:#x}, aligned to less"
                    );
                }
            }
        }
    }

    #[test]
    fn device_sees_an_access_for_each_element() {
        let bench = Bench::new(1);
        let (esr, _, _) = run(&bench, 0x4c00_7820, DEVICE + 4);
        assert_eq!(esr, 0);
        let seen = std::mem::take(&mut *bench.bus.0.lock().unwrap());
        let expected: Vec<_> =
            (0..4u64).map(|n| (DEVICE + 4 + 4 * n, (0x10 + 4 * n as u8..).take(4).collect())).collect();
        assert_eq!(seen, expected);
        let (_, _, cpu) = run(&bench, 0x4c00_7c20 | LOAD, DEVICE + 8);
        assert_eq!(cpu.state.v[0], u128::from(DEVICE + 16) << 64 | u128::from(DEVICE + 8));
    }
}
