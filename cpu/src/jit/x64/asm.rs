//! The buffer that code is appended to, and the two instruction formats: legacy with REX, and VEX.
//!
//! Every instruction checks once that a longest one still fits, and where it does not the [`Asm`] notes that and goes
//! on overwriting its last bytes: emission never fails half-way, and [`Asm::finish`] tells. A caller that wants to
//! stop in time asks [`Asm::room`] before each guest instruction.

use std::fmt;

use super::label::Labels;
use super::operand::{Rm, Size};

/// An instruction has at most 15 bytes, and the last of its parts is stored as 8 bytes, whatever its length.
const SLACK: usize = 15 + 8;

/// Why emitted code cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsmError {
    /// The code is larger than the buffer.
    Full,
    /// The distance to a target does not fit its field: 8 bits of a short jump, or 32 bits.
    OutOfReach,
    /// A label is used but was never bound.
    Unbound,
}

impl fmt::Display for AsmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the code does not fit its buffer",
            Self::OutOfReach => "a jump or address is too far for its field",
            Self::Unbound => "a label was never bound",
        })
    }
}

impl std::error::Error for AsmError {}

/// Prefix, opcode map and opcode of an instruction, as the manual's opcode column has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    /// Mandatory prefix 0x66, 0xf2 or 0xf3, or 0.
    pub(super) prefix: u8,
    /// 0 (one-byte opcodes), 0x0f, 0x0f38 or 0x0f3a.
    pub(super) map: u16,
    pub(super) opcode: u8,
    /// Whether REX.W or VEX.W is set.
    pub(super) wide: bool,
}

impl Op {
    /// An opcode with W clear.
    pub(super) const fn new(prefix: u8, map: u16, opcode: u8) -> Self {
        Self { prefix, map, opcode, wide: false }
    }

    /// The same with W as given.
    #[inline(always)]
    pub(super) const fn w(self, wide: bool) -> Self {
        Self { wide, ..self }
    }
}

/// `op` with W for an operand of 32 or 64 bits.
#[inline(always)]
pub(super) fn wide(op: Op, size: Size) -> Op {
    debug_assert!(size >= Size::Dword);
    op.w(size == Size::Qword)
}

/// Appends machine code to a buffer.
#[derive(Debug)]
pub(crate) struct Asm {
    /// Where the next byte goes.
    at: *mut u8,
    /// The last place where an instruction may start.
    limit: *mut u8,
    start: *mut u8,
    /// Address at which the byte at `start` will run.
    origin: u64,
    error: Option<AsmError>,
    pub(super) labels: Labels,
}

// SAFETY: the buffer is this value's alone by the contract of `new` and `restart`, from whatever thread.
unsafe impl Send for Asm {}

impl Asm {
    /// Code of up to `capacity` bytes, written at `buffer` and meant to run at the address `origin`.
    ///
    /// # Panics
    /// If `capacity` is too small for a single instruction.
    ///
    /// # Safety
    /// `capacity` bytes from `buffer` are writable, and nobody else uses them, until the value is dropped or restarted.
    /// All of them may be written to, beyond the end of the code too.
    pub(crate) unsafe fn new(buffer: *mut u8, capacity: usize, origin: u64) -> Self {
        let mut asm =
            Self { at: buffer, limit: buffer, start: buffer, origin, error: None, labels: Labels::default() };
        // SAFETY: the caller's promise is the same one.
        unsafe { asm.restart(buffer, capacity, origin) };
        asm
    }

    /// Starts anew as [`Self::new`] does; only the memory that labels took is kept.
    ///
    /// # Panics
    /// If `capacity` is too small for a single instruction.
    ///
    /// # Safety
    /// As for [`Self::new`].
    pub(crate) unsafe fn restart(&mut self, buffer: *mut u8, capacity: usize, origin: u64) {
        assert!(capacity > SLACK, "a code buffer of {capacity} bytes");
        self.at = buffer;
        self.start = buffer;
        // SAFETY: capacity > SLACK, so this is within the caller's buffer.
        self.limit = unsafe { buffer.add(capacity - SLACK) };
        self.origin = origin;
        self.error = None;
        self.labels.clear();
    }

    /// Starts anew at the same place.
    pub(crate) fn rewind(&mut self) {
        self.at = self.start;
        self.error = None;
        self.labels.clear();
    }

    /// How many bytes of instructions surely fit. The one that goes over this may still, the next will not.
    #[inline(always)]
    pub(crate) fn room(&self) -> usize {
        (self.limit as usize).saturating_sub(self.at as usize)
    }

    /// How many bytes there are so far.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        self.at as usize - self.start as usize
    }

    /// The address at which the next instruction will run.
    #[inline(always)]
    pub(crate) fn here(&self) -> u64 {
        self.address(self.offset())
    }

    /// The address at which the byte at `offset` will run.
    #[inline(always)]
    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.origin.wrapping_add(offset as u64)
    }

    /// Whether something went wrong so far, which [`Self::finish`] will report.
    pub(crate) fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Fills in the distances to labels and gives the length of the code.
    ///
    /// # Errors
    /// If the code cannot be used; the buffer's content is then of no meaning.
    pub(crate) fn finish(&mut self) -> Result<usize, AsmError> {
        self.resolve_labels();
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.offset()),
        }
    }

    /// Keeps the first error.
    #[cold]
    pub(super) fn fail(&mut self, error: AsmError) {
        self.error.get_or_insert(error);
    }

    #[cold]
    #[inline(never)]
    fn full(&mut self) {
        self.fail(AsmError::Full);
        self.at = self.limit;
    }

    /// To be called before each instruction: afterwards one of 15 bytes fits.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        if self.at > self.limit {
            self.full();
        }
    }

    /// Appends the low `len` (at most 8) bytes of `bytes`, a part of the instruction that [`Self::begin`] made room for.
    #[inline(always)]
    pub(super) fn put(&mut self, bytes: u64, len: usize) {
        debug_assert!(len <= 8);
        // SAFETY: `begin` left `at` no later than `limit`, the parts of an instruction have 15 bytes together, and
        // SLACK bytes from `limit` on belong to the buffer.
        unsafe {
            self.at.cast::<u64>().write_unaligned(bytes.to_le());
            self.at = self.at.add(len);
        }
    }

    /// Overwrites the code at `offset` with `bytes`.
    ///
    /// # Panics
    /// If there is no code as yet.
    pub(super) fn overwrite(&mut self, offset: usize, bytes: &[u8]) {
        if self.failed() {
            // Then what was emitted last may have been taken back.
            return;
        }
        assert!(offset + bytes.len() <= self.offset());
        // SAFETY: the range is between the buffer's start and the current position, by the check above.
        unsafe { self.start.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Appends the distance from the end of the instruction to `target`; `tail` bytes of immediate follow.
    #[inline(always)]
    pub(super) fn rel32(&mut self, target: u64, tail: u8) {
        let end = self.here().wrapping_add(4 + u64::from(tail));
        let distance = target.wrapping_sub(end) as i64;
        if distance != i64::from(distance as i32) {
            self.fail(AsmError::OutOfReach);
        }
        self.put(distance as u64, 4);
    }

    /// Prefixes and opcode of the legacy format. `rex` has the bits RXB, and 0x40 where the prefix is needed anyway.
    #[inline(always)]
    fn legacy_head(&mut self, op: Op, rex: u8) {
        self.begin();
        if op.prefix != 0 {
            self.put(u64::from(op.prefix), 1);
        }
        let rex = rex | u8::from(op.wide) << 3;
        // Stored in any case and then kept or not, so that which registers are used decides no branch.
        self.put(u64::from(0x40 | rex), usize::from(rex != 0));
        let opcode = u64::from(op.opcode);
        match op.map {
            0 => self.put(opcode, 1),
            0x0f => self.put(0x0f | opcode << 8, 2),
            map => self.put(0x0f | u64::from(map as u8) << 8 | opcode << 16, 3),
        }
    }

    /// An instruction of the legacy format with ModRM; `reg` is a register or a group's opcode extension.
    #[inline(always)]
    pub(super) fn legacy(&mut self, op: Op, reg: u8, rm: impl Rm, tail: u8) {
        self.legacy_head(op, reg >> 3 << 2 | rm.rex_xb());
        rm.modrm(self, reg, tail);
    }

    /// The same with an operand size: 0x66 for 16 bits, W for 64.
    #[inline(always)]
    pub(super) fn sized(&mut self, size: Size, op: Op, reg: u8, rm: impl Rm, tail: u8) {
        if size == Size::Word {
            self.begin();
            self.put(0x66, 1);
        }
        self.legacy(op.w(size == Size::Qword), reg, rm, tail);
    }

    /// The same for opcodes whose lowest bit is clear for bytes and set for the other sizes. `reg_is_register`: the reg
    /// field is a register of that size.
    #[inline(always)]
    pub(super) fn sized_or_byte(
        &mut self,
        size: Size,
        op: Op,
        reg: u8,
        reg_is_register: bool,
        rm: impl Rm,
        tail: u8,
    ) {
        if size == Size::Byte {
            self.byte_operands(op, reg, reg_is_register, rm, true, tail);
        } else {
            self.sized(size, Op { opcode: op.opcode | 1, ..op }, reg, rm, tail);
        }
    }

    /// An instruction with byte registers in the fields for which the flags say so: SPL, BPL, SIL and DIL need REX.
    #[inline(always)]
    pub(super) fn byte_operands(
        &mut self,
        op: Op,
        reg: u8,
        reg_is_byte: bool,
        rm: impl Rm,
        rm_is_byte: bool,
        tail: u8,
    ) {
        let needs_rex = (reg_is_byte && reg >= 4) || (rm_is_byte && rm.byte_needs_rex());
        self.legacy_head(op, u8::from(needs_rex) << 6 | reg >> 3 << 2 | rm.rex_xb());
        rm.modrm(self, reg, tail);
    }

    /// An instruction whose opcode has a register in its low bits.
    #[inline(always)]
    pub(super) fn opcode_register(&mut self, op: Op, register: u8) {
        self.legacy_head(Op { opcode: op.opcode | register & 7, ..op }, register >> 3);
    }

    /// An instruction without operands.
    #[inline(always)]
    pub(super) fn plain(&mut self, op: Op) {
        self.legacy_head(op, 0);
    }

    /// An instruction of the VEX format, 128 bits; `vvvv` is 0 where the manual asks for 1111b, which is its inverse.
    /// SDM volume 2, 2.3.5: the two-byte form says nothing of X, B, W and other maps than 0x0f.
    #[inline(always)]
    pub(super) fn vex(&mut self, op: Op, reg: u8, vvvv: u8, rm: impl Rm, tail: u8) {
        self.begin();
        let pp = match op.prefix {
            0x66 => 1,
            0xf3 => 2,
            0xf2 => 3,
            _ => 0,
        };
        let not_r = !reg >> 3 << 7;
        let last = (!vvvv & 15) << 3 | pp;
        let xb = rm.rex_xb();
        let opcode = u64::from(op.opcode);
        if op.map == 0x0f && !op.wide && xb == 0 {
            self.put(0xc5 | u64::from(not_r | last) << 8 | opcode << 16, 3);
        } else {
            let map = match op.map {
                0x0f => 1,
                0x0f38 => 2,
                _ => 3,
            };
            let second = u64::from(not_r | (!xb & 3) << 5 | map);
            let third = u64::from(u8::from(op.wide) << 7 | last);
            self.put(0xc4 | second << 8 | third << 16 | opcode << 24, 4);
        }
        rm.modrm(self, reg, tail);
    }

    /// Appends bytes that are no instruction, such as constants.
    pub(crate) fn data(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.begin();
            self.put(u64::from_le_bytes(word), part.len());
        }
    }
}
