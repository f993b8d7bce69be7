//! Moves: copies between lanes and registers, permutations, table lookup, constants.

use super::constants;
use super::lanes::*;
use crate::insn::Insn;
use crate::jit::translator::Translator;
use crate::jit::x64::simd_ops::*;
use crate::jit::x64::{Gpr, Size};

pub(crate) fn dup_element(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    let d = t.write_vector(i.rd);
    if i.b == 1 << i.a {
        // One lane alone.
        t.lanes_shift(PSRLDQ, d, x, (i.imm as u8) << i.a);
    } else {
        t.duplicate(d, x, i.a, i.imm as u8);
    }
    t.cut(d, i.b);
}

pub(crate) fn dup_general(t: &mut Translator<'_>, i: &Insn) {
    if let Some(value) = t.known(i.rn) {
        let lanes = match i.a {
            0 => (value & 0xff) * 0x0101_0101_0101_0101,
            1 => (value & 0xffff) * 0x0001_0001_0001_0001,
            2 => (value & 0xffff_ffff) * 0x0000_0001_0000_0001,
            _ => value,
        };
        let d = t.write_vector(i.rd);
        t.fill(d, lanes);
        t.cut(d, i.b);
        return;
    }
    let x = t.read(i.rn);
    let d = t.write_vector(i.rd);
    t.asm.sse_movd(if i.a == 3 { Size::Qword } else { Size::Dword }, d, x);
    t.duplicate(d, d, i.a, 0);
    t.cut(d, i.b);
}

pub(crate) fn umov(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    let d = t.write(i.rd);
    let lane = i.imm as u8;
    match (i.a, lane) {
        (0, _) => t.asm.sse_extract(PEXTRB, d, x, lane),
        (1, _) => t.asm.sse_extract(PEXTRW, d, x, lane),
        (2, 0) => t.asm.sse_movd_store(Size::Dword, d, x),
        (2, _) => t.asm.sse_extract(PEXTRD, d, x, lane),
        (_, 0) => t.asm.sse_movd_store(Size::Qword, d, x),
        _ => t.asm.sse_extract(PEXTRQ, d, x, lane),
    }
}

pub(crate) fn smov(t: &mut Translator<'_>, i: &Insn) {
    umov(t, i);
    // It is a lane of less than 64 bits.
    let d = t.read(i.rd);
    let from = [Size::Byte, Size::Word, Size::Dword][usize::from(i.a)];
    t.asm.movsx(if i.b == 1 { Size::Qword } else { Size::Dword }, d, d, from);
}

pub(crate) fn ins_general(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read(i.rn);
    t.read_vector(i.rd);
    let d = t.write_vector(i.rd);
    t.asm.sse_insert([PINSRB, PINSRW, PINSRD, PINSRQ][usize::from(i.a)], d, x, i.imm as u8);
}

pub(crate) fn ins_element(t: &mut Translator<'_>, i: &Insn) {
    let x = t.read_vector(i.rn);
    t.read_vector(i.rd);
    let d = t.write_vector(i.rd);
    let (to, from) = (i.imm as u8, i.b);
    match i.a {
        0 => {
            t.asm.sse_extract(PEXTRB, Gpr::Rax, x, from & 15);
            t.asm.sse_insert(PINSRB, d, Gpr::Rax, to);
        }
        1 => {
            t.asm.sse_extract(PEXTRW, Gpr::Rax, x, from & 7);
            t.asm.sse_insert(PINSRW, d, Gpr::Rax, to);
        }
        2 => t.lanes_imm(INSERTPS, d, d, x, (from & 3) << 6 | to << 4),
        _ if to == 0 => t.lanes_imm(SHUFPD, d, x, d, from & 1 | 2),
        _ => t.lanes_imm(SHUFPD, d, d, x, (from & 1) << 1),
    }
}

fn zip(t: &mut Translator<'_>, i: &Insn, upper: bool) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let d = t.write_vector(i.rd);
    match (i.b, upper) {
        (16, true) => t.lanes(by_size(&UNPACK_HIGH, i), d, x, y),
        (_, true) => {
            t.lanes(by_size(&UNPACK_LOW, i), d, x, y);
            t.lanes_shift(PSRLDQ, d, d, 8);
        }
        (16, false) => t.lanes(by_size(&UNPACK_LOW, i), d, x, y),
        (_, false) => {
            t.lanes(by_size(&UNPACK_LOW, i), d, x, y);
            t.cut(d, 8);
        }
    }
}

pub(crate) fn zip1(t: &mut Translator<'_>, i: &Insn) {
    zip(t, i, false);
}

pub(crate) fn zip2(t: &mut Translator<'_>, i: &Insn) {
    zip(t, i, true);
}

fn uzp(t: &mut Translator<'_>, i: &Insn, odd: bool) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    if i.b == 8 {
        t.unzip(x, y, i.a, 8);
        let d = t.write_vector(i.rd);
        t.lanes_unary(MOVQ, d, if odd { T1 } else { T0 });
        return;
    }
    let halves = if odd { PUNPCKHQDQ } else { PUNPCKLQDQ };
    match i.a {
        0 | 1 => {
            t.lanes_with(PSHUFB, T0, x, constants::UNZIP.plus(i.a));
            t.lanes_with(PSHUFB, T1, y, constants::UNZIP.plus(i.a));
            let d = t.write_vector(i.rd);
            t.lanes(halves, d, T0, T1);
        }
        2 => {
            let d = t.write_vector(i.rd);
            t.lanes_imm(SHUFPS, d, x, y, if odd { 0xdd } else { 0x88 });
        }
        _ => {
            let d = t.write_vector(i.rd);
            t.lanes(halves, d, x, y);
        }
    }
}

pub(crate) fn uzp1(t: &mut Translator<'_>, i: &Insn) {
    uzp(t, i, false);
}

pub(crate) fn uzp2(t: &mut Translator<'_>, i: &Insn) {
    uzp(t, i, true);
}

/// Even lanes of both sources, alternating.
pub(crate) fn trn1(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    match i.a {
        0 => {
            t.lanes_with(PAND, T0, x, constants::LOWER);
            t.lanes_shift(PSLLW_IMM, T1, y, 8);
        }
        1 => t.lanes_shift(PSLLD_IMM, T1, y, 16),
        2 => t.lanes_shift(PSLLQ_IMM, T1, y, 32),
        _ => {}
    }
    let d = t.write_vector(i.rd);
    match i.a {
        0 => t.lanes(POR, d, T0, T1),
        1 => t.lanes_imm(PBLENDW, d, x, T1, 0xaa),
        2 => t.lanes_imm(PBLENDW, d, x, T1, 0xcc),
        _ => t.lanes(PUNPCKLQDQ, d, x, y),
    }
    t.cut(d, i.b);
}

/// Odd lanes of both sources, alternating.
pub(crate) fn trn2(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    match i.a {
        0 => {
            t.lanes_shift(PSRLW_IMM, T0, x, 8);
            t.lanes_with(PAND, T1, y, constants::UPPER_BYTES);
        }
        1 => t.lanes_shift(PSRLD_IMM, T0, x, 16),
        2 => t.lanes_shift(PSRLQ_IMM, T0, x, 32),
        _ => {}
    }
    let d = t.write_vector(i.rd);
    match i.a {
        0 => t.lanes(POR, d, T0, T1),
        1 => t.lanes_imm(PBLENDW, d, T0, y, 0xaa),
        2 => t.lanes_imm(PBLENDW, d, T0, y, 0xcc),
        _ => t.lanes(PUNPCKHQDQ, d, x, y),
    }
    t.cut(d, i.b);
}

pub(crate) fn ext(t: &mut Translator<'_>, i: &Insn) {
    let (x, y) = (t.read_vector(i.rn), t.read_vector(i.rm));
    let d = t.write_vector(i.rd);
    if i.b == 16 {
        t.lanes_imm(PALIGNR, d, y, x, i.imm as u8);
    } else {
        t.lanes(PUNPCKLQDQ, d, x, y);
        t.lanes_shift(PSRLDQ, d, d, i.imm as u8);
        t.cut(d, 8);
    }
}

/// [`T0`] = the bytes looked up, zero where the index is beyond the table. PSHUFB gives zero for an index whose top bit
/// is set, and else looks at the low four bits: a saturating addition makes it so for indices from 16 on.
fn lookup(t: &mut Translator<'_>, i: &Insn) {
    let index = t.read_vector(i.rm);
    for n in 0..i.a {
        let table = t.read_vector(i.rn.wrapping_add(n) & 31);
        let to = if n == 0 { T0 } else { T1 };
        if n == 0 {
            t.lanes_with(PADDUSB, T2, index, constants::SIXTEENS.plus(7));
        } else {
            t.lanes_with(PSUBB, T2, index, constants::SIXTEENS.plus(n));
            t.lanes_with(PADDUSB, T2, T2, constants::SIXTEENS.plus(7));
        }
        // T2 may be written to: the destination is not the second source.
        t.lanes(PSHUFB, to, table, T2);
        if n > 0 {
            t.lanes(POR, T0, T0, T1);
        }
    }
}

pub(crate) fn tbl(t: &mut Translator<'_>, i: &Insn) {
    lookup(t, i);
    let d = t.write_vector(i.rd);
    t.copy(d, T0);
    t.cut(d, i.b);
}

pub(crate) fn tbx(t: &mut Translator<'_>, i: &Insn) {
    lookup(t, i);
    let index = t.read_vector(i.rm);
    t.read_vector(i.rd);
    // Where the index is beyond.
    t.lanes_with(PMAXUB, T1, index, constants::SIXTEENS.plus(i.a));
    t.lanes(PCMPEQB, T1, T1, index);
    let d = t.write_vector(i.rd);
    t.lanes(PAND, d, d, T1);
    t.lanes(POR, d, d, T0);
    t.cut(d, i.b);
}

pub(crate) fn move_imm(t: &mut Translator<'_>, i: &Insn) {
    let d = t.write_vector(i.rd);
    if i.b == 8 && i.imm != 0 {
        t.asm.mov_imm(Gpr::Rax, i.imm);
        t.asm.sse_movd(Size::Qword, d, Gpr::Rax);
    } else {
        t.fill(d, i.imm);
    }
}

fn with_constant(t: &mut Translator<'_>, i: &Insn, op: Binary) {
    t.fill(T0, i.imm);
    t.read_vector(i.rd);
    let d = t.write_vector(i.rd);
    t.lanes(op, d, T0, d);
    t.cut(d, i.b);
}

pub(crate) fn orr_imm(t: &mut Translator<'_>, i: &Insn) {
    with_constant(t, i, POR);
}

pub(crate) fn bic_imm(t: &mut Translator<'_>, i: &Insn) {
    with_constant(t, i, PANDN);
}
