//! The registers of a configuration space as values with masks: what a write does where nothing else is said.

use std::collections::BTreeMap;

use super::super::caps::Field;

/// Bytes of a configuration space.
pub(super) const CONFIG_BYTES: usize = 4096;
/// Words of it.
pub(super) const WORDS: usize = CONFIG_BYTES / 4;

/// Registers of 4096 bytes: a value, and what a write may do to it.
#[derive(Clone)]
pub(super) struct Registers {
    pub(super) value: Box<[u32]>,
    pub(super) reset: Box<[u32]>,
    pub(super) writable: Box<[u32]>,
    pub(super) w1c: Box<[u32]>,
    /// What has been declared, by offset in the space.
    pub(super) declared: BTreeMap<u16, Field>,
}

impl Registers {
    pub(super) fn new() -> Self {
        let zeros = || vec![0; WORDS].into_boxed_slice();
        Self { value: zeros(), reset: zeros(), writable: zeros(), w1c: zeros(), declared: BTreeMap::new() }
    }

    /// Declares a register; only while building, at offsets that the builder chose.
    pub(super) fn declare(&mut self, base: u16, field: &Field, value: u32) {
        let at = usize::from(base + field.offset);
        let (word, shift) = (at / 4, 8 * (at % 4));
        let mask = width_mask(field.bytes);
        assert!(value & !mask == 0, "{}: value wider than the register", field.name);
        self.reset[word] = self.reset[word] & !(mask << shift) | value << shift;
        self.writable[word] |= field.writable << shift;
        self.w1c[word] |= field.w1c << shift;
        self.declared.insert(base + field.offset, *field);
    }

    /// One of the four rows from offset `at` on, to the end of its word.
    pub(super) fn lane(row: &[u32], at: u16) -> u32 {
        row[usize::from(at) / 4] >> (8 * (at % 4))
    }

    pub(super) fn get(&self, base: u16, field: &Field) -> u32 {
        let at = usize::from(base + field.offset);
        self.value[at / 4] >> (8 * (at % 4)) & width_mask(field.bytes)
    }

    /// Sets a register from the model's side, masks aside.
    pub(super) fn put(&mut self, base: u16, field: &Field, value: u32) {
        let at = usize::from(base + field.offset);
        let shift = 8 * (at % 4);
        let mask = width_mask(field.bytes) << shift;
        let word = &mut self.value[at / 4];
        *word = *word & !mask | value << shift & mask;
    }
}

pub(super) const fn width_mask(bytes: u16) -> u32 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}
