//! Pre-decoded instructions: the table of `spec/*.isa` as code.
//!
//! [`decode`] turns a word into an [`Insn`], whose operands are ready for use: register numbers resolved, immediates
//! extended, pc-relative targets absolute (blocks are keyed on their virtual address). [`ROWS`] is the table itself,
//! for test generators. Deliberately absent: what instructions do, which is in `exec`.

use crate::state::{DISCARD, SP, ZERO};

mod pack;
mod pack_simd;
mod syntax;

use pack::*;
use pack_simd::*;
use syntax::*;

include!(concat!(env!("OUT_DIR"), "/isa.rs"));

/// One instruction, ready to run.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Insn {
    /// What it does.
    pub op: Op,
    /// Destination, or the transferred register of a load or store.
    pub(crate) rd: u8,
    /// First source or base.
    pub(crate) rn: u8,
    /// Second source.
    pub(crate) rm: u8,
    /// Third source, or second transferred register.
    pub(crate) ra: u8,
    /// Small operand: a shift amount, condition, lane, ...
    pub(crate) a: u8,
    /// Another.
    pub(crate) b: u8,
    /// The instruction as it is in memory.
    pub raw: u32,
    /// Immediate, offset or absolute target.
    pub imm: u64,
}

impl Insn {
    const fn new(op: Op, raw: u32) -> Self {
        Self { op, rd: 0, rn: 0, rm: 0, ra: 0, a: 0, b: 0, raw, imm: 0 }
    }

    /// The number in a register slot: an index of `State::x` or `State::v`, as the row's [`Register`]s say.
    #[must_use]
    pub const fn register(&self, slot: Slot) -> u8 {
        match slot {
            Slot::Rd => self.rd,
            Slot::Rn => self.rn,
            Slot::Rm => self.rm,
            Slot::Ra => self.ra,
            Slot::A => self.a,
            Slot::B => self.b,
        }
    }

    /// The end of a block that runs into the next one.
    pub(crate) const fn fall_through() -> Self {
        Self::new(Op::FallThrough, 0)
    }
}

/// One candidate of the decoder.
struct Entry {
    mask: u32,
    value: u32,
    op: Op,
    feature: Feature,
    fp: bool,
}

/// The instructions that exist: what the ID registers advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// The base set alone.
    pub const BASE: Self = Self(1 << Feature::Base as u32);

    /// This set and `feature`.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u32)
    }

    /// Whether `feature` is in the set.
    #[inline]
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u32 & 1 != 0
    }
}

impl Default for Features {
    /// What the engine advertises. The ID registers are computed from this set.
    fn default() -> Self {
        Self::BASE
            .with(Feature::Crc32)
            .with(Feature::Lse)
            .with(Feature::Lrcpc)
            .with(Feature::Aes)
            .with(Feature::Pmull)
            .with(Feature::Sha1)
            .with(Feature::Sha256)
    }
}

/// The operation of `word`, or [`Op::Undefined`].
#[must_use]
pub fn op_of(word: u32, features: Features) -> Op {
    find(word, features).map_or(Op::Undefined, |entry| entry.op)
}

fn find(word: u32, features: Features) -> Option<&'static Entry> {
    let entry = candidates(word).iter().find(|e| word & e.mask == e.value)?;
    (features.has(entry.feature) && !is_undefined(entry.op, word)).then_some(entry)
}

/// Decodes `word` at virtual address `pc`. With `fp_trapped`, floating-point and SIMD instructions become
/// [`Op::FpTrapped`].
#[must_use]
pub fn decode(word: u32, pc: u64, features: Features, fp_trapped: bool) -> Insn {
    match find(word, features) {
        None => Insn::new(Op::Undefined, word),
        Some(entry) if entry.fp && fp_trapped => Insn::new(Op::FpTrapped, word),
        Some(entry) => pack(entry.op, word, pc),
    }
}

/// The text of `word` at `pc`, in the assembler's syntax where the table has one.
#[must_use]
pub fn disassemble(word: u32, pc: u64, features: Features) -> String {
    let op = op_of(word, features);
    let Some(row) = op.row() else { return format!("udf {word:#010x}") };
    text(op, word, pc).unwrap_or_else(|| {
        let fields: Vec<String> =
            row.fields.iter().map(|f| format!("{}={:#x}", f.name, f.of(word))).collect();
        format!("{} {}", row.name, fields.join(" "))
    })
}

impl Op {
    /// The table's row, or `None` for the engine's own operations.
    #[must_use]
    pub fn row(self) -> Option<&'static Row> {
        ROWS.get(self as usize)
    }

    /// How its handler is called.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::FallThrough => Kind::Branch,
            _ => self.row().map_or(Kind::Fallible, |row| row.kind),
        }
    }
}

/// How a handler is called, and whether a block goes on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Cannot fail: `fn(&mut Cpu, &Insn)`.
    Plain,
    /// May take an exception: `fn(&mut Cpu, &Insn) -> Result<(), Exception>`.
    Fallible,
    /// To `imm` if the handler says so, else on: `fn(&mut Cpu, &Insn) -> bool`. Ends the block.
    Branch,
    /// To the address that the handler gives: `fn(&mut Cpu, &Insn) -> u64`. Ends the block.
    Indirect,
    /// May change what follows: `fn(&mut Cpu, &Insn) -> Result<(), Exception>`, with `state.pc` already at the next
    /// instruction. Ends the block.
    System,
}

/// What an instruction does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Memory {
    None,
    Load,
    Store,
    Exclusive,
    Atomic,
    Prefetch,
    /// Cache maintenance by address.
    Maintenance,
    /// DC ZVA.
    Zero,
}

/// How a load or store moves one register, or each of the two whose second is in slot `ra`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bytes in memory of one register.
    pub bytes: u8,
    /// What a load makes of the rest of the register.
    pub extend: Extend,
    /// Where the address comes from.
    pub addressing: Addressing,
}

/// What a load makes of the bits of a register that are not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    /// Zeros.
    Zero,
    /// Copies of the sign up to bit 31, above that zeros.
    Sign32,
    /// Copies of the sign.
    Sign64,
}

/// Where a load or store has its address from. The base is in slot `rn`. Arm ARM C1.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// Base plus `imm`.
    Offset,
    /// The same, with the permissions of EL0 (LDTR and its kin).
    Unprivileged,
    /// Base plus `imm`, which is written back.
    Pre,
    /// Base; base plus `imm` is written back.
    Post,
    /// Base plus the register in slot `rm`, shifted left by `a`.
    Reg,
    /// The same with the low 32 bits of that register, zero-extended.
    Uxtw,
    /// The same with the low 32 bits of that register, sign-extended.
    Sxtw,
    /// `imm`.
    Literal,
}

/// Operand slots of [`Insn`] that hold registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Slot {
    Rd,
    Rn,
    Rm,
    Ra,
    A,
    B,
}

/// What a register operand is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// General source; 31 is zero.
    R,
    /// General destination; 31 is discarded.
    W,
    /// General source; 31 is SP.
    Rsp,
    /// General destination; 31 is SP.
    Wsp,
    /// Base register that is written back; 31 is SP.
    Rwsp,
    /// Vector source.
    Vr,
    /// Vector destination.
    Vw,
    /// Vector source and destination.
    Vrw,
}

/// A named field of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the table.
    pub name: &'static str,
    /// Its lowest bit.
    pub lsb: u32,
    /// Its bits, 1 to 26.
    pub width: u32,
}

impl Field {
    /// The field's value in `word`.
    #[must_use]
    pub const fn of(&self, word: u32) -> u32 {
        word >> self.lsb & ((1u64 << self.width) - 1) as u32
    }

    /// `word` with this field set to the low bits of `value`.
    #[must_use]
    pub const fn set(&self, word: u32, value: u32) -> u32 {
        let mask = ((1u64 << self.width) - 1) as u32;
        word & !(mask << self.lsb) | (value & mask) << self.lsb
    }
}

/// A register operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Where [`Insn`] has it.
    pub slot: Slot,
    /// What it is for.
    pub role: Role,
    /// Which of the row's fields it comes from, where it is one field as it is.
    pub field: Option<usize>,
    /// How many registers from this one on, at most. A vector register's successor is modulo 32; that of X30 is XZR.
    pub count: u8,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The operation.
    pub op: Op,
    /// The row's name.
    pub name: &'static str,
    /// The bits that the pattern fixes.
    pub mask: u32,
    /// Their values.
    pub value: u32,
    /// The group it belongs to.
    pub class: Class,
    /// What it needs to exist.
    pub feature: Feature,
    /// How its handler is called.
    pub kind: Kind,
    /// What it does with memory.
    pub memory: Memory,
    /// How it moves registers, if it is a load or store of whole registers without further effects.
    pub access: Option<Access>,
    /// Whether its access acquires or releases, and so must be aligned (LDAR, STLR, LDAPR).
    pub ordered: bool,
    /// Whether CPACR_EL1.FPEN can trap it.
    pub fp: bool,
    /// Whether it reads NZCV.
    pub reads_flags: bool,
    /// Whether it writes NZCV.
    pub writes_flags: bool,
    /// Whether translations have code of their own for it. Where they have none, they call
    /// [`Op::handler`](crate::interp::Handler).
    pub has_emitter: bool,
    /// The fields of the pattern.
    pub fields: &'static [Field],
    /// All general and vector registers that it reads or writes.
    pub registers: &'static [Register],
}

/// What documents say of a row, besides.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The pattern as it is in the table, from bit 31 down.
    pub pattern: &'static str,
    /// The handler's path below `exec`.
    pub handler: &'static str,
    /// Whether the interpreter's loop contains the handler.
    pub in_loop: bool,
}

impl Role {
    /// Whether it is a vector register's.
    #[must_use]
    pub const fn is_vector(self) -> bool {
        matches!(self, Self::Vr | Self::Vw | Self::Vrw)
    }

    /// Whether the register's old value matters.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::R | Self::Rsp | Self::Rwsp | Self::Vr | Self::Vrw)
    }

    /// Whether the register may change.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::W | Self::Wsp | Self::Rwsp | Self::Vw | Self::Vrw)
    }
}

impl Row {
    /// Whether the row's conditions call this word UNDEFINED.
    #[must_use]
    pub fn undefined(&self, word: u32) -> bool {
        is_undefined(self.op, word)
    }

    /// Whether the architecture leaves open what this word does (CONSTRAINED UNPREDICTABLE): test generators drop
    /// such words.
    #[must_use]
    pub fn unpredictable(&self, word: u32) -> bool {
        is_unpredictable(self.op, word)
    }

    /// What documents say of it.
    #[must_use]
    pub fn description(&self) -> &'static Description {
        &DESCRIPTIONS[self.op as usize]
    }

    /// The register operand in `slot`.
    #[must_use]
    pub fn register(&self, slot: Slot) -> Option<&'static Register> {
        self.registers.iter().find(|register| register.slot == slot)
    }

    /// The field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

/// Register numbers, as the roles of the table resolve them.
mod role {
    use super::{DISCARD, SP, ZERO};

    pub(super) const fn r(n: u32) -> u8 {
        if n == 31 { ZERO } else { n as u8 & 31 }
    }
    pub(super) const fn w(n: u32) -> u8 {
        if n == 31 { DISCARD } else { n as u8 & 31 }
    }
    pub(super) const fn rsp(n: u32) -> u8 {
        if n == 31 { SP } else { n as u8 & 31 }
    }
    pub(super) const fn wsp(n: u32) -> u8 {
        rsp(n)
    }
    pub(super) const fn rwsp(n: u32) -> u8 {
        rsp(n)
    }
    pub(super) const fn vr(n: u32) -> u8 {
        n as u8 & 31
    }
    pub(super) const fn vw(n: u32) -> u8 {
        n as u8 & 31
    }
    pub(super) const fn vrw(n: u32) -> u8 {
        n as u8 & 31
    }
}

#[cfg(test)]
mod tests;
