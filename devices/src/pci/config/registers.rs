//! The registers of a configuration space as words with masks: what a write does where nothing else is said. They are declared by the
//! maps of [`super::super::caps`]; which of them are where, and what a function says in them, is decided when it is built.

use std::collections::BTreeMap;

use hw::regmap::{Access, RegisterInfo, RegisterMap};

use super::super::caps::header::HeaderReg;

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
    pub(super) declared: BTreeMap<u16, &'static RegisterInfo>,
}

/// Where a register of a capability at `base` is.
pub(super) fn place<R: RegisterMap>(base: u16, reg: R) -> u16 {
    // An offset in a space of 4096 bytes.
    base + reg.info().offset as u16
}

/// The bits of a register, which has at most 32.
pub(super) fn mask_of(info: &RegisterInfo) -> u32 {
    info.mask() as u32
}

impl Registers {
    pub(super) fn new() -> Self {
        let zeros = || vec![0; WORDS].into_boxed_slice();
        Self { value: zeros(), reset: zeros(), writable: zeros(), w1c: zeros(), declared: BTreeMap::new() }
    }

    /// Puts a declared register at `at`, only while building, at offsets that the builder chose. `changeable` are the bits that
    /// software can change of those that the declaration has.
    pub(super) fn declare(&mut self, at: u16, info: &'static RegisterInfo, changeable: u32, value: u32) {
        let (word, shift) = (usize::from(at) / 4, 8 * (at % 4));
        let mask = mask_of(info);
        assert!(value & !mask == 0, "{}: value wider than the register", info.name);
        self.reset[word] = self.reset[word] & !(mask << shift) | value << shift;
        let changeable = (changeable & info.writable as u32) << shift;
        match info.access {
            Access::W1c => self.w1c[word] |= changeable,
            _ => self.writable[word] |= changeable,
        }
        self.declared.insert(at, info);
    }

    /// A BAR's register, whose writable bits are those of its size and may be any.
    pub(super) fn declare_bar(&mut self, at: u16, changeable: u32, flags: u32) {
        self.declare(at, HeaderReg::BAR.info(), 0, flags);
        self.writable[usize::from(at) / 4] = changeable;
    }

    /// One of the four rows from offset `at` on, to the end of its word.
    pub(super) fn lane(row: &[u32], at: u16) -> u32 {
        row[usize::from(at) / 4] >> (8 * (at % 4))
    }

    pub(super) fn get<R: RegisterMap>(&self, base: u16, reg: R) -> u32 {
        Self::lane(&self.value, place(base, reg)) & mask_of(reg.info())
    }

    /// Sets a register from the model's side, masks aside.
    pub(super) fn put<R: RegisterMap>(&mut self, base: u16, reg: R, value: u32) {
        self.put_at(place(base, reg), reg.info(), value);
    }

    /// The same, of the register that is at an offset of the space.
    pub(super) fn put_at(&mut self, at: u16, info: &RegisterInfo, value: u32) {
        let shift = 8 * (at % 4);
        let mask = mask_of(info) << shift;
        let word = &mut self.value[usize::from(at) / 4];
        *word = *word & !mask | value << shift & mask;
    }
}
