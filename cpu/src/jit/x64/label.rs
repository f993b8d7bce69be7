//! Places in the code: jumps to them, forward and backward, and addresses of them.
//!
//! Distances to labels that are bound later are filled in at the end, in one pass over the uses.

use super::asm::{Asm, AsmError, Op};
use super::operand::{Cond, Gpr, GprRm};

/// A place in the code being emitted, known now or later; valid until the [`Asm`] is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(u32);

/// Stands for a place that is not known yet.
const UNBOUND: usize = usize::MAX;

/// A distance to be filled in.
#[derive(Clone, Copy, Debug)]
struct Use {
    label: Label,
    /// Of the field.
    offset: usize,
    /// Bytes of the field: 1 or 4.
    bytes: usize,
    /// From the field's start to the instruction's end, which the distance counts from.
    to_end: usize,
}

/// All labels of a piece of code.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Offsets of the labels, or [`UNBOUND`].
    places: Vec<usize>,
    uses: Vec<Use>,
}

impl Labels {
    /// Forgets them, keeping their memory.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.uses.clear();
    }
}

impl Asm {
    /// A label to be bound later.
    #[inline]
    pub(crate) fn label(&mut self) -> Label {
        let label = Label(self.labels.places.len() as u32);
        self.labels.places.push(UNBOUND);
        label
    }

    /// A label for the place of the next instruction.
    #[inline]
    pub(crate) fn label_here(&mut self) -> Label {
        let label = self.label();
        self.bind(label);
        label
    }

    /// Says that `label` is the place of the next instruction.
    ///
    /// # Panics
    /// If it is already some other place.
    #[inline]
    pub(crate) fn bind(&mut self, label: Label) {
        let offset = self.offset();
        let place = &mut self.labels.places[label.0 as usize];
        assert!(*place == UNBOUND || *place == offset, "a label bound twice");
        *place = offset;
    }

    /// The offset of `label`, if it is bound.
    #[inline]
    pub(crate) fn label_offset(&self, label: Label) -> Option<usize> {
        Some(self.labels.places[label.0 as usize]).filter(|&place| place != UNBOUND)
    }

    #[inline]
    fn label_use(&mut self, label: Label, bytes: usize, tail: u8) {
        let offset = self.offset();
        self.labels.uses.push(Use { label, offset, bytes, to_end: bytes + usize::from(tail) });
        self.put(0, bytes);
    }

    /// Appends the distance from the end of the instruction to `label`; `tail` bytes of immediate follow.
    #[inline]
    pub(super) fn rel32_label(&mut self, label: Label, tail: u8) {
        self.label_use(label, 4, tail);
    }

    pub(super) fn resolve_labels(&mut self) {
        // After other errors the offsets may overlap, and nobody will read the code.
        if self.failed() {
            return;
        }
        for index in 0..self.labels.uses.len() {
            let Use { label, offset, bytes, to_end } = self.labels.uses[index];
            let Some(place) = self.label_offset(label) else {
                return self.fail(AsmError::Unbound);
            };
            let distance = place as i64 - (offset + to_end) as i64;
            let fits = if bytes == 1 {
                distance == i64::from(distance as i8)
            } else {
                distance == i64::from(distance as i32)
            };
            if !fits {
                return self.fail(AsmError::OutOfReach);
            }
            self.overwrite(offset, &distance.to_le_bytes()[..bytes]);
        }
        self.labels.uses.clear();
    }

    /// The distance to `label` from `length` bytes after here, if it is bound and near enough for a short jump.
    #[inline]
    fn short_distance(&self, label: Label, length: usize) -> Option<i8> {
        let place = self.label_offset(label)?;
        i8::try_from(place as i64 - (self.offset() + length) as i64).ok()
    }

    /// JMP to `label`: short where it is bound and near, else with 32 bits.
    #[inline]
    pub(crate) fn jmp(&mut self, label: Label) {
        self.begin();
        if let Some(distance) = self.short_distance(label, 2) {
            self.put(0xeb | u64::from(distance as u8) << 8, 2);
        } else {
            self.put(0xe9, 1);
            self.label_use(label, 4, 0);
        }
    }

    /// JMP rel8 to `label`, which the caller knows to be near.
    #[inline]
    pub(crate) fn jmp_short(&mut self, label: Label) {
        self.begin();
        self.put(0xeb, 1);
        self.label_use(label, 1, 0);
    }

    /// Jcc to `label`: short where it is bound and near, else with 32 bits.
    #[inline]
    pub(crate) fn jcc(&mut self, cond: Cond, label: Label) {
        self.begin();
        if let Some(distance) = self.short_distance(label, 2) {
            self.put(0x70 | cond as u64 | u64::from(distance as u8) << 8, 2);
        } else {
            self.put(0x0f | (0x80 | cond as u64) << 8, 2);
            self.label_use(label, 4, 0);
        }
    }

    /// Jcc rel8 to `label`, which the caller knows to be near.
    #[inline]
    pub(crate) fn jcc_short(&mut self, cond: Cond, label: Label) {
        self.begin();
        self.put(0x70 | cond as u64, 1);
        self.label_use(label, 1, 0);
    }

    /// CALL rel32 to `label`.
    #[inline]
    pub(crate) fn call_label(&mut self, label: Label) {
        self.begin();
        self.put(0xe8, 1);
        self.label_use(label, 4, 0);
    }

    /// JMP rel32 to an address.
    #[inline]
    pub(crate) fn jmp_to(&mut self, target: u64) {
        self.begin();
        self.put(0xe9, 1);
        self.rel32(target, 0);
    }

    /// Jcc rel32 to an address.
    #[inline]
    pub(crate) fn jcc_to(&mut self, cond: Cond, target: u64) {
        self.begin();
        self.put(0x0f | (0x80 | cond as u64) << 8, 2);
        self.rel32(target, 0);
    }

    /// CALL rel32 to an address.
    #[inline]
    pub(crate) fn call_to(&mut self, target: u64) {
        self.begin();
        self.put(0xe8, 1);
        self.rel32(target, 0);
    }

    /// JMP rel32 to an address, with the displacement at an address that is a multiple of 4, so that it can be
    /// patched while it runs. Gives the displacement's offset.
    #[inline]
    pub(crate) fn jmp_patchable(&mut self, target: u64) -> usize {
        self.align_field(1);
        self.jmp_to(target);
        self.offset().saturating_sub(4)
    }

    /// Jcc rel32 to an address, patchable like [`Self::jmp_patchable`].
    #[inline]
    pub(crate) fn jcc_patchable(&mut self, cond: Cond, target: u64) -> usize {
        self.align_field(2);
        self.jcc_to(cond, target);
        self.offset().saturating_sub(4)
    }

    /// CALL rel32 to an address, patchable like [`Self::jmp_patchable`].
    #[inline]
    pub(crate) fn call_patchable(&mut self, target: u64) -> usize {
        self.align_field(1);
        self.call_to(target);
        self.offset().saturating_sub(4)
    }

    /// Makes `here() + opcode` a multiple of 4.
    #[inline]
    fn align_field(&mut self, opcode: u64) {
        self.nop((self.here().wrapping_add(opcode).wrapping_neg() & 3) as usize);
    }

    /// Overwrites the 32-bit displacement at `offset`, which ends its instruction, so that it leads to `target`. For
    /// code that does not run yet.
    ///
    /// # Panics
    /// If there are no 4 bytes of code at `offset`.
    pub(crate) fn patch_rel32(&mut self, offset: usize, target: u64) {
        match rel32(self.address(offset), target) {
            Some(distance) => self.overwrite(offset, &distance.to_le_bytes()),
            None => self.fail(AsmError::OutOfReach),
        }
    }

    /// Makes the 32-bit displacement at `offset`, which ends its instruction, lead to `label`.
    #[inline]
    pub(crate) fn retarget(&mut self, offset: usize, label: Label) {
        self.labels.uses.push(Use { label, offset, bytes: 4, to_end: 4 });
    }

    /// JMP to the address in a register or memory.
    #[inline]
    pub(crate) fn jmp_rm(&mut self, target: impl GprRm) {
        self.legacy(Op::new(0, 0, 0xff), 4, target, 0);
    }

    /// CALL of the address in a register or memory.
    #[inline]
    pub(crate) fn call_rm(&mut self, target: impl GprRm) {
        self.legacy(Op::new(0, 0, 0xff), 2, target, 0);
    }

    /// CALL of an address anywhere: relative where it is in reach, else through `scratch`.
    #[inline]
    pub(crate) fn call_far(&mut self, target: u64, scratch: Gpr) {
        if rel32(self.here() + 1, target).is_some() {
            self.call_to(target);
        } else {
            self.mov_imm(scratch, target);
            self.call_rm(scratch);
        }
    }

    /// RET.
    #[inline]
    pub(crate) fn ret(&mut self) {
        self.plain(Op::new(0, 0, 0xc3));
    }

    /// `bytes` bytes that do nothing, in as few instructions as the manual's recommended forms allow (NOP, table 4-12).
    pub(crate) fn nop(&mut self, bytes: usize) {
        #[rustfmt::skip]
        const FORMS: [[u8; 8]; 9] = [
            [0; 8],
            [0x90, 0, 0, 0, 0, 0, 0, 0],
            [0x66, 0x90, 0, 0, 0, 0, 0, 0],
            [0x0f, 0x1f, 0x00, 0, 0, 0, 0, 0],
            [0x0f, 0x1f, 0x40, 0, 0, 0, 0, 0],
            [0x0f, 0x1f, 0x44, 0, 0, 0, 0, 0],
            [0x66, 0x0f, 0x1f, 0x44, 0, 0, 0, 0],
            [0x0f, 0x1f, 0x80, 0, 0, 0, 0, 0],
            [0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        ];
        let mut left = bytes;
        while left > 0 {
            let len = left.min(8);
            self.begin();
            self.put(u64::from_le_bytes(FORMS[len]), len);
            left -= len;
        }
    }

    /// NOPs until [`Self::here`] is a multiple of `alignment`, a power of two.
    pub(crate) fn align(&mut self, alignment: u64) {
        debug_assert!(alignment.is_power_of_two());
        self.nop((self.here().wrapping_neg() & (alignment - 1)) as usize);
    }
}

/// What a 32-bit displacement at address `field`, which ends its instruction, must be to lead to `target`; none if that
/// is more than 2 GiB away.
#[inline]
pub(crate) fn rel32(field: u64, target: u64) -> Option<i32> {
    i32::try_from(target.wrapping_sub(field.wrapping_add(4)) as i64).ok()
}
