//! Data processing on general registers: arithmetic, logic, bitfields, conditionals, multiply, divide, CRC.
//!
//! Arm ARM C3.4, C3.5. Semantics follow the pseudocode of each instruction in C6.2.

use crate::Cpu;
use crate::insn::Insn;

/// ADD (immediate), 64-bit.
#[inline(always)]
pub(crate) fn add_imm_64(cpu: &mut Cpu, i: &Insn) {
    cpu.set_x(i.rd, cpu.x(i.rn).wrapping_add(i.imm));
}
