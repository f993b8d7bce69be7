//! Branches. Arm ARM C3.1. Targets are absolute by the time they come here.

use super::width::Width;
use crate::Cpu;
use crate::insn::Insn;
use crate::state::Flags;

#[inline(always)]
pub(crate) fn b(_cpu: &mut Cpu, _i: &Insn) -> bool {
    true
}

#[inline(always)]
pub(crate) fn bl(cpu: &mut Cpu, i: &Insn) -> bool {
    // The offset in the word leads from the target back to the instruction.
    let offset = i64::from(i.raw.cast_signed() << 6 >> 4);
    cpu.set_x(i.rd, i.imm.wrapping_add_signed(-offset).wrapping_add(4));
    true
}

/// The condition `COND`, straight from the flags' parts.
#[inline(always)]
const fn holds<const COND: u8>(f: &Flags) -> bool {
    let negative = f.n >> 63 != 0;
    let overflow = f.v != 0;
    match COND {
        0 => f.z == 0,
        1 => f.z != 0,
        2 => f.c != 0,
        3 => f.c == 0,
        4 => negative,
        5 => !negative,
        6 => overflow,
        7 => !overflow,
        8 => f.c != 0 && f.z != 0,
        9 => f.c == 0 || f.z == 0,
        10 => negative == overflow,
        11 => negative != overflow,
        12 => f.z != 0 && negative == overflow,
        13 => f.z == 0 || negative != overflow,
        _ => true,
    }
}

#[inline(always)]
pub(crate) fn b_cond<const COND: u8>(cpu: &mut Cpu, _i: &Insn) -> bool {
    holds::<COND>(&cpu.state.flags)
}

/// CBZ, and CBNZ with `NOT`.
#[inline(always)]
pub(crate) fn cbz<T: Width, const NOT: bool>(cpu: &mut Cpu, i: &Insn) -> bool {
    (T::read(cpu, i.rn) == T::ZERO) != NOT
}

/// TBZ, and TBNZ with `SET`.
#[inline(always)]
pub(crate) fn tbz<const SET: bool>(cpu: &mut Cpu, i: &Insn) -> bool {
    (cpu.x(i.rn) >> (i.a & 63) & 1 != 0) == SET
}

/// BR and RET.
#[inline(always)]
pub(crate) fn br(cpu: &mut Cpu, i: &Insn) -> u64 {
    cpu.x(i.rn)
}

#[inline(always)]
pub(crate) fn blr(cpu: &mut Cpu, i: &Insn) -> u64 {
    let target = cpu.x(i.rn);
    cpu.set_x(i.rd, i.imm);
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_by_parts_agree_with_the_table_for_every_nzcv() {
        fn check<const COND: u8>() {
            for nibble in 0..16 {
                let flags = Flags::from_nzcv(nibble << 28);
                assert_eq!(flags.nibble(), nibble);
                assert_eq!(holds::<COND>(&flags), flags.holds(COND), "condition {COND} nzcv {nibble:04b}");
            }
        }
        check::<0>();
        check::<1>();
        check::<2>();
        check::<3>();
        check::<4>();
        check::<5>();
        check::<6>();
        check::<7>();
        check::<8>();
        check::<9>();
        check::<10>();
        check::<11>();
        check::<12>();
        check::<13>();
        check::<14>();
        check::<15>();
    }
}
