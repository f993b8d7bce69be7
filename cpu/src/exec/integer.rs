//! Data processing on general registers: arithmetic, logic, bitfields, conditionals, multiply, divide, CRC.
//!
//! Arm ARM C3.4, C3.5. Semantics follow the pseudocode of each instruction in C6.2.

use super::crc;
use super::width::{Logic, Otherwise, Shift, Width};
use crate::Cpu;
use crate::insn::Insn;
use crate::state::Flags;

#[inline(always)]
pub(crate) fn add_imm<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).add(T::cut(i.imm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn adds_imm<T: Width>(cpu: &mut Cpu, i: &Insn) {
    adds(cpu, i, T::read(cpu, i.rn), T::cut(i.imm));
}

#[inline(always)]
pub(crate) fn subs_imm<T: Width>(cpu: &mut Cpu, i: &Insn) {
    subs(cpu, i, T::read(cpu, i.rn), T::cut(i.imm));
}

#[inline(always)]
fn adds<T: Width>(cpu: &mut Cpu, i: &Insn, a: T, b: T) {
    let (sum, flags) = a.add_flags(b);
    cpu.state.flags = flags;
    sum.write(cpu, i.rd);
}

#[inline(always)]
fn subs<T: Width>(cpu: &mut Cpu, i: &Insn, a: T, b: T) {
    let (difference, flags) = a.sub_flags(b);
    cpu.state.flags = flags;
    difference.write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn add_reg<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).add(T::read(cpu, i.rm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn sub_reg<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).sub(T::read(cpu, i.rm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn adds_reg<T: Width>(cpu: &mut Cpu, i: &Insn) {
    adds(cpu, i, T::read(cpu, i.rn), T::read(cpu, i.rm));
}

#[inline(always)]
pub(crate) fn subs_reg<T: Width>(cpu: &mut Cpu, i: &Insn) {
    subs(cpu, i, T::read(cpu, i.rn), T::read(cpu, i.rm));
}

#[inline(always)]
fn shifted<T: Width, S: Shift>(cpu: &Cpu, i: &Insn) -> T {
    S::apply(T::read(cpu, i.rm), u32::from(i.a))
}

#[inline(always)]
pub(crate) fn add_shifted<T: Width, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).add(shifted::<T, S>(cpu, i)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn sub_shifted<T: Width, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).sub(shifted::<T, S>(cpu, i)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn adds_shifted<T: Width, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    adds(cpu, i, T::read(cpu, i.rn), shifted::<T, S>(cpu, i));
}

#[inline(always)]
pub(crate) fn subs_shifted<T: Width, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    subs(cpu, i, T::read(cpu, i.rn), shifted::<T, S>(cpu, i));
}

/// ExtendReg: `a` is 64 minus the bits that count, `b` the shift.
#[inline(always)]
fn extended<T: Width, const SIGNED: bool>(cpu: &Cpu, i: &Insn) -> T {
    let high = cpu.x(i.rm).lsl(u32::from(i.a));
    let value = if SIGNED { high.asr(u32::from(i.a)) } else { high.lsr(u32::from(i.a)) };
    T::cut(value.lsl(u32::from(i.b)))
}

#[inline(always)]
pub(crate) fn add_extended<T: Width, const SIGNED: bool>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).add(extended::<T, SIGNED>(cpu, i)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn sub_extended<T: Width, const SIGNED: bool>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).sub(extended::<T, SIGNED>(cpu, i)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn adds_extended<T: Width, const SIGNED: bool>(cpu: &mut Cpu, i: &Insn) {
    adds(cpu, i, T::read(cpu, i.rn), extended::<T, SIGNED>(cpu, i));
}

#[inline(always)]
pub(crate) fn subs_extended<T: Width, const SIGNED: bool>(cpu: &mut Cpu, i: &Insn) {
    subs(cpu, i, T::read(cpu, i.rn), extended::<T, SIGNED>(cpu, i));
}

/// ADC and SBC: a subtraction adds the complement.
#[inline(always)]
fn with_carry<T: Width, const SUB: bool>(cpu: &Cpu, i: &Insn) -> (T, Flags) {
    let b = T::read(cpu, i.rm);
    T::read(cpu, i.rn).adc_flags(if SUB { b.not() } else { b }, cpu.state.flags.c)
}

#[inline(always)]
pub(crate) fn adc<T: Width, const SUB: bool>(cpu: &mut Cpu, i: &Insn) {
    with_carry::<T, SUB>(cpu, i).0.write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn adcs<T: Width, const SUB: bool>(cpu: &mut Cpu, i: &Insn) {
    let (sum, flags) = with_carry::<T, SUB>(cpu, i);
    cpu.state.flags = flags;
    sum.write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn logic_imm<T: Width, L: Logic>(cpu: &mut Cpu, i: &Insn) {
    L::apply(T::read(cpu, i.rn), T::cut(i.imm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn ands_imm<T: Width>(cpu: &mut Cpu, i: &Insn) {
    logics(cpu, i, T::read(cpu, i.rn).and(T::cut(i.imm)));
}

#[inline(always)]
fn logics<T: Width>(cpu: &mut Cpu, i: &Insn, result: T) {
    cpu.state.flags = result.nz();
    result.write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn logic_reg<T: Width, L: Logic>(cpu: &mut Cpu, i: &Insn) {
    L::apply(T::read(cpu, i.rn), T::read(cpu, i.rm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn logics_reg<T: Width, L: Logic>(cpu: &mut Cpu, i: &Insn) {
    logics(cpu, i, L::apply(T::read(cpu, i.rn), T::read(cpu, i.rm)));
}

#[inline(always)]
pub(crate) fn logic_shifted<T: Width, L: Logic, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    L::apply(T::read(cpu, i.rn), shifted::<T, S>(cpu, i)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn logics_shifted<T: Width, L: Logic, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    logics(cpu, i, L::apply(T::read(cpu, i.rn), shifted::<T, S>(cpu, i)));
}

/// MOVZ, MOVN, ADR, ADRP: the value is known when the instruction is decoded.
#[inline(always)]
pub(crate) fn mov_imm(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, i.imm);
}

#[inline(always)]
pub(crate) fn movk_32(cpu: &mut Cpu, i: &Insn) {
    cpu.set_w(i.rd, cpu.w(i.rn) & !(0xffff << (i.a & 31)) | i.imm as u32);
}

#[inline(always)]
pub(crate) fn movk_64(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.rn) & !(0xffff << (i.a & 63)) | i.imm);
}

#[inline(always)]
pub(crate) fn sbfm_32(cpu: &mut Cpu, i: &Insn) {
    cpu.set_w(i.rd, cpu.w(i.rn).lsl(i.a.into()).asr(i.b.into()));
}

#[inline(always)]
pub(crate) fn ubfm_32(cpu: &mut Cpu, i: &Insn) {
    cpu.set_w(i.rd, cpu.w(i.rn).lsl(i.a.into()).lsr(i.b.into()));
}

#[inline(always)]
pub(crate) fn bfm_32(cpu: &mut Cpu, i: &Insn) {
    let mask = i.imm as u32;
    cpu.set_w(i.rd, cpu.w(i.rm) & !mask | cpu.w(i.rn).ror(i.a.into()) & mask);
}

#[inline(always)]
pub(crate) fn sbfm_64(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.rn).lsl(i.a.into()).asr(i.b.into()));
}

#[inline(always)]
pub(crate) fn ubfm_64(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.rn).lsl(i.a.into()).lsr(i.b.into()));
}

#[inline(always)]
pub(crate) fn bfm_64(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.rm) & !i.imm | cpu.x(i.rn).ror(i.a.into()) & i.imm);
}

#[inline(always)]
pub(crate) fn extr_32(cpu: &mut Cpu, i: &Insn) {
    let both = u64::from(cpu.w(i.rn)) << 32 | u64::from(cpu.w(i.rm));
    cpu.set_w(i.rd, (both >> (i.a & 31)) as u32);
}

#[inline(always)]
pub(crate) fn extr_64(cpu: &mut Cpu, i: &Insn) {
    let both = u128::from(cpu.x(i.rn)) << 64 | u128::from(cpu.x(i.rm));
    cpu.set_x(i.rd, (both >> (i.a & 63)) as u64);
}

#[inline(always)]
pub(crate) fn csel<T: Width, O: Otherwise>(cpu: &mut Cpu, i: &Insn) {
    let yes = T::read(cpu, i.rn);
    let no = O::apply(T::read(cpu, i.rm));
    let result = if cpu.state.flags.holds(i.a) { yes } else { no };
    result.write(cpu, i.rd);
}

#[inline(always)]
fn conditional_compare(cpu: &mut Cpu, i: &Insn, compared: Flags) {
    let flags = if cpu.state.flags.holds(i.a) { compared } else { Flags::from_nzcv(u32::from(i.b) << 28) };
    cpu.state.flags = flags;
}

#[inline(always)]
pub(crate) fn ccmn_reg<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let flags = T::read(cpu, i.rn).add_flags(T::read(cpu, i.rm)).1;
    conditional_compare(cpu, i, flags);
}

#[inline(always)]
pub(crate) fn ccmp_reg<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let flags = T::read(cpu, i.rn).sub_flags(T::read(cpu, i.rm)).1;
    conditional_compare(cpu, i, flags);
}

#[inline(always)]
pub(crate) fn ccmn_imm<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let flags = T::read(cpu, i.rn).add_flags(T::cut(i.imm)).1;
    conditional_compare(cpu, i, flags);
}

#[inline(always)]
pub(crate) fn ccmp_imm<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let flags = T::read(cpu, i.rn).sub_flags(T::cut(i.imm)).1;
    conditional_compare(cpu, i, flags);
}

pub(crate) fn rmif(cpu: &mut Cpu, i: &Insn) {
    let rotated = cpu.x(i.rn).ror(i.a.into()) as u32;
    let mask = u32::from(i.b);
    let nibble = cpu.state.flags.nibble() & !mask | rotated & mask;
    cpu.state.flags = Flags::from_nzcv(nibble << 28);
}

/// SETF8 and SETF16: N, Z and V of a narrow result; C stays.
fn setf(cpu: &mut Cpu, value: u32, bits: u32) {
    let sign = value >> (bits - 1) & 1;
    cpu.state.flags = Flags {
        n: u64::from(sign) << 63,
        z: u64::from(value & ((1 << bits) - 1)),
        c: cpu.state.flags.c,
        v: value >> bits & 1 ^ sign,
    };
}

pub(crate) fn setf8(cpu: &mut Cpu, i: &Insn) {
    setf(cpu, cpu.w(i.rn), 8);
}

pub(crate) fn setf16(cpu: &mut Cpu, i: &Insn) {
    setf(cpu, cpu.w(i.rn), 16);
}

#[inline(always)]
pub(crate) fn udiv<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).udiv(T::read(cpu, i.rm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn sdiv<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).sdiv(T::read(cpu, i.rm)).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn shift_reg<T: Width, S: Shift>(cpu: &mut Cpu, i: &Insn) {
    let amount = cpu.w(i.rm) % T::BITS;
    S::apply(T::read(cpu, i.rn), amount).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn rbit<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).rbit().write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn rev<T: Width>(cpu: &mut Cpu, i: &Insn) {
    T::read(cpu, i.rn).rev().write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn rev16<T: Width>(cpu: &mut Cpu, i: &Insn) {
    const LOW: u64 = 0x00ff_00ff_00ff_00ff;
    let value = T::read(cpu, i.rn);
    let swapped = value.lsr(8).and(T::cut(LOW)).or(value.and(T::cut(LOW)).lsl(8));
    swapped.write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn rev32_64(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.rn).swap_bytes().rotate_right(32));
}

#[inline(always)]
pub(crate) fn clz<T: Width>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, T::read(cpu, i.rn).clz().into());
}

/// Leading bits equal to the sign, the sign itself not counted.
#[inline(always)]
pub(crate) fn cls<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let value = T::read(cpu, i.rn);
    let changes = value.xor(value.asr(T::BITS - 1));
    cpu.set_x(i.rd, u64::from(changes.clz()) - 1);
}

#[inline(always)]
pub(crate) fn madd<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let product = T::read(cpu, i.rn).mul(T::read(cpu, i.rm));
    T::read(cpu, i.ra).add(product).write(cpu, i.rd);
}

#[inline(always)]
pub(crate) fn msub<T: Width>(cpu: &mut Cpu, i: &Insn) {
    let product = T::read(cpu, i.rn).mul(T::read(cpu, i.rm));
    T::read(cpu, i.ra).sub(product).write(cpu, i.rd);
}

#[inline(always)]
fn signed_product(cpu: &Cpu, i: &Insn) -> u64 {
    let (a, b) = (cpu.w(i.rn).cast_signed(), cpu.w(i.rm).cast_signed());
    (i64::from(a) * i64::from(b)).cast_unsigned()
}

#[inline(always)]
fn unsigned_product(cpu: &Cpu, i: &Insn) -> u64 {
    u64::from(cpu.w(i.rn)) * u64::from(cpu.w(i.rm))
}

#[inline(always)]
pub(crate) fn smaddl(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.ra).wrapping_add(signed_product(cpu, i)));
}

#[inline(always)]
pub(crate) fn smsubl(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.ra).wrapping_sub(signed_product(cpu, i)));
}

#[inline(always)]
pub(crate) fn umaddl(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.ra).wrapping_add(unsigned_product(cpu, i)));
}

#[inline(always)]
pub(crate) fn umsubl(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.ra).wrapping_sub(unsigned_product(cpu, i)));
}

#[inline(always)]
pub(crate) fn smulh(cpu: &mut Cpu, i: &Insn) {
    let (a, b) = (cpu.x(i.rn).cast_signed(), cpu.x(i.rm).cast_signed());
    cpu.set_x(i.rd, ((i128::from(a) * i128::from(b)) >> 64) as u64);
}

#[inline(always)]
pub(crate) fn umulh(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, ((u128::from(cpu.x(i.rn)) * u128::from(cpu.x(i.rm))) >> 64) as u64);
}

pub(crate) fn crc32<T: crc::Chunk>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_w(i.rd, crc::update(&crc::IEEE, cpu.w(i.rn), T::cut(cpu.x(i.rm))));
}

pub(crate) fn crc32c<T: crc::Chunk>(cpu: &mut Cpu, i: &Insn) {
    cpu.set_w(i.rd, crc::update(&crc::CASTAGNOLI, cpu.w(i.rn), T::cut(cpu.x(i.rm))));
}

#[cfg(test)]
mod tests;
