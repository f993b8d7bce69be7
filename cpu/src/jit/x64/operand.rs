//! Operands: registers, memory addresses, operand sizes and conditions, and how ModRM, SIB and REX show them.
//!
//! Intel SDM volume 2, 2.1.3 (ModR/M and SIB) and 2.2.1 (REX).

use super::asm::Asm;
use super::label::Label;

/// General-purpose registers; the [`Size`] of an instruction says how much of one it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum Gpr { Rax, Rcx, Rdx, Rbx, Rsp, Rbp, Rsi, Rdi, R8, R9, R10, R11, R12, R13, R14, R15 }

impl Gpr {
    /// All of them, in the order of their numbers.
    #[rustfmt::skip]
    pub(crate) const ALL: [Self; 16] = [
        Self::Rax, Self::Rcx, Self::Rdx, Self::Rbx, Self::Rsp, Self::Rbp, Self::Rsi, Self::Rdi,
        Self::R8, Self::R9, Self::R10, Self::R11, Self::R12, Self::R13, Self::R14, Self::R15,
    ];

    /// The number that encodes it.
    #[inline(always)]
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }
}

/// A vector register, by its number below 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Xmm(u8);

impl Xmm {
    /// Register `number`.
    ///
    /// # Panics
    /// From 16 on: only EVEX, which is not used here, encodes those.
    #[inline(always)]
    pub(crate) const fn new(number: u8) -> Self {
        assert!(number < 16);
        Self(number)
    }

    /// The number that encodes it.
    #[inline(always)]
    pub(crate) const fn number(self) -> u8 {
        self.0
    }
}

/// Operand size of an instruction on general-purpose registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// 8 bits; leaves the rest of a destination register as it was.
    Byte,
    /// 16 bits; leaves the rest of a destination register as it was.
    Word,
    /// 32 bits; clears the upper half of a destination register.
    Dword,
    /// 64 bits.
    Qword,
}

impl Size {
    /// How many bytes that is.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> u32 {
        1 << self as u32
    }
}

/// What an index register is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum Scale { By1, By2, By4, By8 }

/// Condition codes, by the encoding in the low four bits of Jcc, SETcc and CMOVcc (SDM volume 1, appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cond {
    /// OF.
    O,
    /// Not OF.
    No,
    /// CF: below, unsigned.
    B,
    /// Not CF: above or equal, unsigned.
    Ae,
    /// ZF: equal.
    E,
    /// Not ZF.
    Ne,
    /// CF or ZF: below or equal, unsigned.
    Be,
    /// Neither CF nor ZF: above, unsigned.
    A,
    /// SF.
    S,
    /// Not SF.
    Ns,
    /// PF; after UCOMISS and UCOMISD: unordered.
    P,
    /// Not PF.
    Np,
    /// SF differs from OF: less, signed.
    L,
    /// SF equals OF: greater or equal, signed.
    Ge,
    /// ZF, or SF differs from OF: less or equal, signed.
    Le,
    /// Not ZF, and SF equals OF: greater, signed.
    G,
}

impl Cond {
    /// All of them, in the order of their encodings.
    #[rustfmt::skip]
    pub(crate) const ALL: [Self; 16] = [
        Self::O, Self::No, Self::B, Self::Ae, Self::E, Self::Ne, Self::Be, Self::A,
        Self::S, Self::Ns, Self::P, Self::Np, Self::L, Self::Ge, Self::Le, Self::G,
    ];

    /// The condition that holds when this one does not.
    #[inline(always)]
    pub(crate) const fn not(self) -> Self {
        Self::ALL[self as usize ^ 1]
    }
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mem {
    /// `[base + disp]`.
    Base(Gpr, i32),
    /// `[base + index * scale + disp]`; made by [`Mem::indexed`].
    Indexed(Gpr, Index, i32),
    /// `[index * scale + disp]`, disp being sign-extended to 64 bits; made by [`Mem::scaled`].
    Scaled(Index, i32),
    /// `[disp]`, sign-extended to 64 bits.
    Absolute(i32),
    /// The absolute address of something within 2 GiB of the code, encoded relative to RIP.
    Near(u64),
    /// A place in the code that is being emitted, encoded relative to RIP.
    At(Label),
}

/// An index register and its scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    register: Gpr,
    scale: Scale,
}

impl Index {
    /// # Panics
    /// For RSP, whose number stands for "no index".
    #[inline(always)]
    const fn new(register: Gpr, scale: Scale) -> Self {
        assert!(!matches!(register, Gpr::Rsp), "RSP cannot be an index");
        Self { register, scale }
    }

    /// The register and its scale.
    #[cfg(test)]
    pub(super) const fn parts(self) -> (Gpr, Scale) {
        (self.register, self.scale)
    }

    /// SIB byte with `base`, a register number or 5 for none.
    #[inline(always)]
    const fn sib(self, base: u8) -> u8 {
        (self.scale as u8) << 6 | (self.register.number() & 7) << 3 | base & 7
    }
}

impl Mem {
    /// `[base + disp]`.
    #[inline(always)]
    pub(crate) const fn base(base: Gpr, disp: i32) -> Self {
        Self::Base(base, disp)
    }

    /// `[base + index * scale + disp]`.
    ///
    /// # Panics
    /// If `index` is RSP.
    #[inline(always)]
    pub(crate) const fn indexed(base: Gpr, index: Gpr, scale: Scale, disp: i32) -> Self {
        Self::Indexed(base, Index::new(index, scale), disp)
    }

    /// `[index * scale + disp]`.
    ///
    /// # Panics
    /// If `index` is RSP.
    #[inline(always)]
    pub(crate) const fn scaled(index: Gpr, scale: Scale, disp: i32) -> Self {
        Self::Scaled(Index::new(index, scale), disp)
    }
}

/// What the r/m field of ModRM can name: a register or memory.
pub(crate) trait Rm: Copy {
    /// Bits X and B of REX, in their places.
    fn rex_xb(self) -> u8;

    /// Whether a REX prefix must be there for the byte register of this number: without one, 4 to 7 are AH to BH.
    fn byte_needs_rex(self) -> bool;

    /// Appends ModRM with `reg` in the reg field, SIB and displacement. `tail` bytes of immediate follow.
    fn modrm(self, asm: &mut Asm, reg: u8, tail: u8);
}

/// An [`Rm`] of instructions on general-purpose registers.
pub(crate) trait GprRm: Rm {}

/// An [`Rm`] of instructions on vector registers.
pub(crate) trait XmmRm: Rm {}

impl GprRm for Gpr {}
impl GprRm for Mem {}
impl XmmRm for Xmm {}
impl XmmRm for Mem {}

/// ModRM that names register `rm`.
#[inline(always)]
const fn direct(reg: u8, rm: u8) -> u64 {
    (0xc0 | (reg & 7) << 3 | rm & 7) as u64
}

impl Rm for Gpr {
    #[inline(always)]
    fn rex_xb(self) -> u8 {
        self.number() >> 3
    }

    #[inline(always)]
    fn byte_needs_rex(self) -> bool {
        self.number() >= 4
    }

    #[inline(always)]
    fn modrm(self, asm: &mut Asm, reg: u8, _tail: u8) {
        asm.put(direct(reg, self.number()), 1);
    }
}

impl Rm for Xmm {
    #[inline(always)]
    fn rex_xb(self) -> u8 {
        self.number() >> 3
    }

    #[inline(always)]
    fn byte_needs_rex(self) -> bool {
        false
    }

    #[inline(always)]
    fn modrm(self, asm: &mut Asm, reg: u8, _tail: u8) {
        asm.put(direct(reg, self.number()), 1);
    }
}

/// r/m value that a SIB byte follows.
const RM_SIB: u8 = 4;
/// With mod 0: as r/m value disp32 relative to RIP, as SIB base no base but disp32.
const NO_BASE: u8 = 5;
/// SIB index value for none.
const NO_INDEX: u8 = 4;

/// The mod field and the displacement's bytes. A base whose low bits are [`NO_BASE`] (RBP, R13) always has one.
#[inline(always)]
fn displacement(base: Gpr, disp: i32) -> (u8, usize) {
    if disp == 0 && base.number() & 7 != NO_BASE {
        (0, 0)
    } else if disp == i32::from(disp as i8) {
        (1, 1)
    } else {
        (2, 4)
    }
}

impl Rm for Mem {
    #[inline(always)]
    fn rex_xb(self) -> u8 {
        match self {
            Self::Base(base, _) => base.number() >> 3,
            Self::Indexed(base, index, _) => base.number() >> 3 | index.register.number() >> 3 << 1,
            Self::Scaled(index, _) => index.register.number() >> 3 << 1,
            Self::Absolute(_) | Self::Near(_) | Self::At(_) => 0,
        }
    }

    #[inline(always)]
    fn byte_needs_rex(self) -> bool {
        false
    }

    #[inline(always)]
    fn modrm(self, asm: &mut Asm, reg: u8, tail: u8) {
        let reg = (reg & 7) << 3;
        let disp32 = |disp: i32| u64::from(disp as u32);
        match self {
            Self::Base(base, disp) => {
                let (mode, bytes) = displacement(base, disp);
                let rm = base.number() & 7;
                let modrm = u64::from(mode << 6 | reg | rm);
                if rm == RM_SIB {
                    // RSP and R12: their number asks for a SIB byte, which then names them as the base.
                    let sib = u64::from(NO_INDEX << 3 | rm);
                    asm.put(modrm | sib << 8 | disp32(disp) << 16, 2 + bytes);
                } else {
                    asm.put(modrm | disp32(disp) << 8, 1 + bytes);
                }
            }
            Self::Indexed(base, index, disp) => {
                let (mode, bytes) = displacement(base, disp);
                let modrm = u64::from(mode << 6 | reg | RM_SIB);
                let sib = u64::from(index.sib(base.number()));
                asm.put(modrm | sib << 8 | disp32(disp) << 16, 2 + bytes);
            }
            Self::Scaled(index, disp) => {
                asm.put(u64::from(reg | RM_SIB) | u64::from(index.sib(NO_BASE)) << 8 | disp32(disp) << 16, 6);
            }
            Self::Absolute(disp) => {
                let sib = u64::from(NO_INDEX << 3 | NO_BASE);
                asm.put(u64::from(reg | RM_SIB) | sib << 8 | disp32(disp) << 16, 6);
            }
            Self::Near(target) => {
                asm.put(u64::from(reg | NO_BASE), 1);
                asm.rel32(target, tail);
            }
            Self::At(label) => {
                asm.put(u64::from(reg | NO_BASE), 1);
                asm.rel32_label(label, tail);
            }
        }
    }
}
