//! Moves: copies between lanes and registers, permutations, table lookup, constants.
//!
//! Arm ARM C4.1.94, "Advanced SIMD copy", "permute", "extract", "table lookup", "modified immediate".

use super::simd::*;
use crate::Cpu;
use crate::insn::Insn;

/// DUP (element): one lane in all, or alone.
#[inline(never)]
pub(crate) fn dup_element(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let result = with_lane!(i.a, {
        let lane = L::get(x, i.imm as usize);
        L::build(|_| lane)
    });
    cpu.set_v(i.rd, active(result, i.b));
}

/// DUP (general).
#[inline(never)]
pub(crate) fn dup_general(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.x(i.rn);
    let result = with_lane!(i.a, L::build(|_| L::of(x)));
    cpu.set_v(i.rd, active(result, i.b));
}

/// SMOV: to a general register of 32 bits, or of 64 if `b` is 1.
#[inline(never)]
pub(crate) fn smov(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let value = with_lane!(i.a, L::get(x, i.imm as usize).s());
    cpu.set_x(i.rd, if i.b == 1 { value as u64 } else { u64::from(value as u32) });
}

/// UMOV.
#[inline(never)]
pub(crate) fn umov(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    let value = with_lane!(i.a, L::get(x, i.imm as usize).u());
    cpu.set_x(i.rd, value);
}

/// INS (general).
#[inline(never)]
pub(crate) fn ins_general(cpu: &mut Cpu, i: &Insn) {
    insert(cpu, i, cpu.x(i.rn));
}

/// INS (element): `b` is the source's number.
#[inline(never)]
pub(crate) fn ins_element(cpu: &mut Cpu, i: &Insn) {
    let x = cpu.v(i.rn);
    insert(cpu, i, with_lane!(i.a, L::get(x, i.b.into()).u()));
}

/// Replaces lane `imm` of the destination.
#[inline(always)]
fn insert(cpu: &mut Cpu, i: &Insn, value: u64) {
    let d = cpu.v(i.rd);
    let result = with_lane!(i.a, {
        let lanes = L::split(d);
        L::build(|k| if k as u64 == i.imm { L::of(value) } else { lanes.as_ref()[k] })
    });
    cpu.set_v(i.rd, result);
}

/// Builds each lane from lane `pick(k, lanes)` of one source: `(false, n)` of the first, `(true, n)` of the second.
macro_rules! permute {
    ($($(#[$doc:meta])* $name:ident($k:ident, $half:ident) = $pick:expr;)*) => {$(
        $(#[$doc])*
        #[inline(never)]
        pub(crate) fn $name(cpu: &mut Cpu, i: &Insn) {
            let (x, y) = (cpu.v(i.rn), cpu.v(i.rm));
            let result = with_lane!(i.a, {
                let (x, y) = (L::split(x), L::split(y));
                let $half = L::COUNT * usize::from(i.b) / 32;
                L::build(|$k| {
                    let (second, n) = $pick;
                    let from = if second { y.as_ref() } else { x.as_ref() };
                    from[n % L::COUNT]
                })
            });
            cpu.set_v(i.rd, active(result, i.b));
        }
    )*};
}

permute! {
    /// ZIP1: the lower halves interleaved.
    zip1(k, half) = { let _ = half; (k % 2 == 1, k / 2) };
    /// ZIP2: the upper halves.
    zip2(k, half) = (k % 2 == 1, half + k / 2);
    /// UZP1: the even lanes of both.
    uzp1(k, half) = (k >= half, 2 * (k % half));
    /// UZP2: the odd lanes.
    uzp2(k, half) = (k >= half, 2 * (k % half) + 1);
    /// TRN1: even lanes, alternating between the sources.
    trn1(k, half) = { let _ = half; (k % 2 == 1, k & !1) };
    /// TRN2: odd lanes.
    trn2(k, half) = { let _ = half; (k % 2 == 1, k | 1) };
}

/// EXT: bytes from `imm` on of both sources side by side.
#[inline(never)]
pub(crate) fn ext(cpu: &mut Cpu, i: &Insn) {
    let (x, y) = (cpu.v(i.rn), cpu.v(i.rm));
    let shift = 8 * (i.imm as u32 & 15);
    let (x, y) = if i.b == 8 { (u128::from(x as u64) | y << 64, 0) } else { (x, y) };
    // Two steps above, as no shift may be by the whole width.
    let result = x >> shift | y << (127 - shift) << 1;
    cpu.set_v(i.rd, active(result, i.b));
}

/// TBL: bytes looked up in `a` registers from `rn` on, zero where the index is beyond.
#[inline(never)]
pub(crate) fn tbl(cpu: &mut Cpu, i: &Insn) {
    lookup(cpu, i, 0);
}

/// TBX: bytes with an index beyond stay as they are.
#[inline(never)]
pub(crate) fn tbx(cpu: &mut Cpu, i: &Insn) {
    lookup(cpu, i, cpu.v(i.rd));
}

#[inline(always)]
fn lookup(cpu: &mut Cpu, i: &Insn, otherwise: u128) {
    let mut table = [0; 64];
    let length = 16 * usize::from(i.a);
    for (n, chunk) in table.chunks_exact_mut(16).enumerate().take(i.a.into()) {
        chunk.copy_from_slice(&cpu.v(i.rn.wrapping_add(n as u8)).to_le_bytes());
    }
    let table = table.get(..length).unwrap_or(&table);
    let result = map2::<u8>(cpu.v(i.rm), otherwise, |index, otherwise| {
        table.get(usize::from(index)).copied().unwrap_or(otherwise)
    });
    cpu.set_v(i.rd, active(result, i.b));
}

/// The constant of a modified immediate, in both halves.
fn constant(i: &Insn) -> u128 {
    u128::from(i.imm) << 64 | u128::from(i.imm)
}

/// MOVI, MVNI, FMOV (vector, immediate).
#[inline(always)]
pub(crate) fn move_imm(cpu: &mut Cpu, i: &Insn) {
    cpu.set_v(i.rd, active(constant(i), i.b));
}

/// ORR (vector, immediate).
#[inline(never)]
pub(crate) fn orr_imm(cpu: &mut Cpu, i: &Insn) {
    cpu.set_v(i.rd, active(cpu.v(i.rd) | constant(i), i.b));
}

/// BIC (vector, immediate).
#[inline(never)]
pub(crate) fn bic_imm(cpu: &mut Cpu, i: &Insn) {
    cpu.set_v(i.rd, active(cpu.v(i.rd) & !constant(i), i.b));
}
