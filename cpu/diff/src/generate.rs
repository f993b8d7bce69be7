//! Makes random cases from the instruction table.
//!
//! Instructions that touch memory need addresses inside the case's scratch memory. Where an instruction's address
//! comes from its registers is not written down here a second time: the case is first run in our engine with a base
//! that is mapped nowhere, and the fault's address tells what the instruction adds to it. If the engine is wrong about
//! that, the other side disagrees later.

use cpu::Features;
use cpu::insn::{Class, Kind, Memory, Role, Row, Slot, decode, op_of};
use cpu_diff::{Coverage, coverage};

use crate::case::{Case, SCRATCH};
use crate::machine_code::{EPILOGUE, IMAGE_BASE};
use crate::random::Random;

/// An address far from everything that is mapped, and canonical after any offset.
pub(crate) const UNMAPPED: u64 = 0x50_0000_0000;
const NOP: u32 = 0xd503_201f;

/// The rows of a class that random cases can use.
pub(crate) fn rows_of(class: Class, features: Features) -> Vec<&'static Row> {
    cpu::insn::ROWS
        .iter()
        .filter(|row| row.class == class && coverage(row, features) == Coverage::Compared)
        .collect()
}

/// What a case needs before it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// General register `base` (31: SP) must be given the address that makes the access hit scratch memory.
    Base(u8),
    /// General register `target` must be given the address of the epilogue.
    Target(u8),
}

fn base_of(row: &Row, word: u32) -> Option<u8> {
    let register = row.register(Slot::Rn).filter(|r| matches!(r.role, Role::Rsp | Role::Rwsp))?;
    let field = &row.fields[register.field?];
    Some((word >> field.lsb & 31) as u8)
}

/// General registers that an instruction names, for any purpose.
fn names_general(row: &Row, word: u32, number: u8) -> usize {
    row.registers
        .iter()
        .filter(|r| !r.role.is_vector())
        .filter_map(|r| r.field)
        .filter(|&field| {
            let field = &row.fields[field];
            field.width == 5 && (word >> field.lsb & 31) as u8 == number
        })
        .count()
}

/// A random word of a row, or `None` if the drawn one is of no use.
fn word_of(row: &Row, random: &mut Random, features: Features) -> Option<u32> {
    let mut word = row.value | random.next() as u32 & !row.mask;
    // Branches go to the instruction after the next: two words on.
    for (name, bits) in [("imm26", 26), ("imm19", 19), ("imm14", 14)] {
        if matches!(row.kind, Kind::Branch)
            && let Some(field) = row.field(name)
        {
            let mask = ((1u32 << bits) - 1) << field.lsb;
            word = word & !mask | 2 << field.lsb;
        }
    }
    // Should-be-one fields of exclusives.
    for name in ["rs", "rt2"] {
        if row.memory == Memory::Exclusive
            && row.unpredictable(word)
            && let Some(field) = row.field(name)
        {
            word = field.set(word, 31);
        }
    }
    // x30 holds the case's address.
    let usable =
        op_of(word, features) == row.op && !row.unpredictable(word) && names_general(row, word, 30) == 0;
    usable.then_some(word)
}

/// The store that ends what the exclusive load `load` begins: same size, base and number of registers.
fn exclusive_store(load: u32, random: &mut Random, features: Features) -> Option<u32> {
    const LOAD: u32 = 1 << 22;
    const PAIR: u32 = 1 << 21;
    let base = load >> 5 & 31;
    let (status, data) = (random.next() as u32 & 31, random.next() as u32 & 31);
    let data2 = if load & PAIR != 0 { random.next() as u32 & 31 } else { 31 };
    let word =
        load & 0xffe0_03e0 & !LOAD | status << 16 | (random.next() as u32 & 1) << 15 | data2 << 10 | data;
    let row = op_of(word, features).row()?;
    let usable = !row.unpredictable(word) && ![status, data, data2].contains(&30) && load & 31 != base;
    usable.then_some(word)
}

/// About `length` instructions from `rows`; memory and indirect branches come alone.
pub(crate) fn code(
    rows: &[&'static Row],
    length: usize,
    random: &mut Random,
    features: Features,
) -> (Vec<u32>, Need) {
    let mut words = Vec::new();
    let mut need = Need::Nothing;
    while words.len() < length {
        let row = rows[random.below(rows.len())];
        let alone = row.memory != Memory::None || matches!(row.kind, Kind::Indirect);
        if alone && !words.is_empty() {
            continue;
        }
        let Some(word) = word_of(row, random, features) else { continue };
        if row.memory != Memory::None {
            match base_of(row, word) {
                // A base that is also the offset or the data cannot be chosen freely.
                Some(base) if names_general(row, word, base) > 1 && base != 31 => continue,
                Some(base) => need = Need::Base(base),
                None => {
                    // A literal: only those that hit the image before the case itself.
                    let target = decode(word, IMAGE_BASE + 0x2000, features, false).imm;
                    if !(IMAGE_BASE..IMAGE_BASE + 0x1000).contains(&target) {
                        continue;
                    }
                }
            }
        }
        if matches!(row.kind, Kind::Indirect) {
            let target = (word >> 5 & 31) as u8;
            if target >= 30 {
                continue;
            }
            need = Need::Target(target);
        }
        words.push(word);
        const EXCLUSIVE_LOAD: u32 = 1 << 22;
        if row.memory == Memory::Exclusive
            && word & EXCLUSIVE_LOAD != 0
            && let Some(store) = exclusive_store(word, random, features)
        {
            words.push(store);
        }
        if matches!(row.kind, Kind::Branch) {
            words.push(NOP);
        }
        if alone {
            break;
        }
    }
    (words, need)
}

/// A case: the code `words`, number `group`, with registers and memory of its own.
pub(crate) fn case(words: &[u32], group: usize, need: Need, random: &mut Random) -> Case {
    let mut x = [0; 30];
    x.fill_with(|| random.integer());
    let mut v = [0; 32];
    v.fill_with(|| random.vector());
    let mut scratch = Vec::with_capacity(SCRATCH);
    while scratch.len() < SCRATCH {
        scratch.extend(random.integer().to_le_bytes());
    }
    if let Need::Target(target) = need {
        x[usize::from(target)] = EPILOGUE;
    }
    Case {
        group,
        words: words.to_vec(),
        x,
        nzcv: random.next() & 0xf << 28,
        fpcr: random.fpcr(),
        fpsr: if random.next() >> 63 == 0 { 0 } else { random.next() & 0x0800_009f },
        sp: random.integer() & !15,
        v,
        scratch,
    }
}

/// Gives the base register of a memory case its value.
pub(crate) fn set_base(case: &mut Case, base: u8, value: u64) {
    match base {
        31 => case.sp = value,
        n => {
            if let Some(x) = case.x.get_mut(usize::from(n)) {
                *x = value;
            }
        }
    }
}
