//! The values of the registers of a map.

use std::marker::PhantomData;

use super::{Access, Located, RegisterMap};
use crate::Registers;

/// One value for each declared register and entry of a row, side by side.
#[derive(Clone, Debug)]
pub struct Store<R> {
    values: Box<[u64]>,
    /// Which registers of the map are of this part of the device.
    is_mine: fn(R) -> bool,
    map: PhantomData<R>,
}

impl<R: RegisterMap> Store<R> {
    /// All registers at their reset values.
    #[must_use]
    pub fn at_reset() -> Self {
        Self::at_reset_of(|_| true)
    }

    /// The same, for a part of a device: it saves and restores only those registers.
    #[must_use]
    pub fn at_reset_of(is_mine: fn(R) -> bool) -> Self {
        let values = R::ALL.iter().flat_map(|(_, info)| (0..info.count).map(|_| info.reset)).collect();
        Self { values, is_mine, map: PhantomData }
    }

    /// Where a value is, of a register that may have no so many.
    fn slot(reg: R, index: usize) -> Option<usize> {
        let is_there = reg.info().count > index as u64;
        is_there.then(|| R::PLACES[reg.number()].first + index)
    }

    /// The stored value of a single register, or of the first of a row.
    #[must_use]
    #[inline]
    pub fn get(&self, reg: R) -> u64 {
        self.values[R::PLACES[reg.number()].first]
    }

    /// The same, of a register of 32 bits.
    #[must_use]
    #[inline]
    pub fn word(&self, reg: R) -> u32 {
        self.get(reg) as u32
    }

    /// The stored value of one of a row; zero beyond its end.
    #[must_use]
    pub fn entry(&self, reg: R, index: usize) -> u64 {
        Self::slot(reg, index).map_or(0, |slot| self.values[slot])
    }

    /// Puts a value, whatever software may write.
    #[inline]
    pub fn set(&mut self, reg: R, value: u64) {
        self.values[R::PLACES[reg.number()].first] = value;
    }

    /// The same, of a register of 32 bits.
    #[inline]
    pub fn set_word(&mut self, reg: R, value: u32) {
        self.set(reg, value.into());
    }

    /// Puts a value into one of a row, whatever software may write; lost beyond its end.
    pub fn set_entry(&mut self, reg: R, index: usize, value: u64) {
        if let Some(slot) = Self::slot(reg, index) {
            self.values[slot] = value;
        }
    }

    /// A register as software reads it: write-only ones as zero.
    #[must_use]
    pub fn read(&self, reg: R, index: usize) -> u64 {
        if reg.info().access == Access::Wo { 0 } else { self.entry(reg, index) }
    }

    /// A write by software of the bits in `mask`, by access kind, conditions and locks.
    pub fn write(
        &mut self,
        reg: R,
        index: usize,
        value: u64,
        mask: u64,
        holds: impl Fn(R::Condition) -> bool,
    ) {
        if let Some(slot) = Self::slot(reg, index) {
            self.values[slot] = reg.written(self.values[slot], value & mask, mask, holds);
        }
    }

    /// The 32-bit word of a located register as software reads it.
    #[must_use]
    pub fn read_word(&self, at: Located<R>) -> u32 {
        (self.read(at.reg, at.index as usize) >> (8 * (at.byte & 4))) as u32
    }

    /// A 32-bit write by software to a located register, of a map whose registers depend on nothing.
    pub fn write_word(&mut self, at: Located<R>, word: u32)
    where
        R: RegisterMap<Condition = super::Unconditional>,
    {
        let shift = 8 * (at.byte & 4);
        let value = u64::from(word) << shift;
        self.write(at.reg, at.index as usize, value, 0xffff_ffff << shift, |condition| match condition {});
    }

    /// Those registers that do not have their value of power-on. What is write-only keeps nothing that anybody asks for.
    #[must_use]
    pub fn save(&self) -> Registers {
        let is_saved = |reg: R| reg.info().access != Access::Wo && (self.is_mine)(reg);
        Registers::changed(is_saved, |reg, index| self.entry(reg, index as usize))
    }

    /// Puts a saved value into its place. `possible` are the bits that can differ from the value of power-on.
    ///
    /// # Errors
    /// If others do, or the register is not of this part.
    pub fn restore(&mut self, reg: R, index: u64, value: u64, possible: u64) -> Result<(), &'static str> {
        if (value ^ reg.info().reset) & !possible != 0 {
            return Err("has bits that software cannot set");
        }
        match Self::slot(reg, index as usize) {
            Some(slot) if (self.is_mine)(reg) => self.values[slot] = value,
            _ => return Err("is not of this part"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::register_map! {
        enum Demo {
            /// Plain.
            PLAIN @ 0x0: 4 Rw(0xff) = 0x12, "1";
            /// Cleared by ones.
            CLEAR @ 0x8: 8 W1c(u64::MAX) = 0xf_0000_000f, "2";
            /// Two.
            ROW[2; 4] @ 0x10: 4 Rw(0xf) = 3, "3";
            /// Not to be read.
            BELL @ 0x18: 4 Wo(0xff) = 0, "4";
        }
    }

    #[test]
    fn writes_follow_mask_and_kind_for_each_half() {
        let mut store = Store::<Demo>::at_reset();
        store.write_word(Demo::locate(Demo::PLAIN.offset()).unwrap(), 0xabcd);
        assert_eq!(store.word(Demo::PLAIN), 0xcd);
        let upper = Demo::locate(Demo::CLEAR.offset() + 4).unwrap();
        store.write_word(upper, 0x3);
        assert_eq!(store.read_word(Demo::locate(Demo::CLEAR.offset()).unwrap()), 0xf);
        assert_eq!(store.read_word(upper), 0xc);
        store.write_word(Demo::locate(Demo::ROW.at(1)).unwrap(), 0xff);
        assert_eq!((store.entry(Demo::ROW, 0), store.entry(Demo::ROW, 1)), (3, 0xf));
    }

    #[test]
    fn what_is_write_only_reads_as_zero_and_what_is_beyond_a_row_is_not_there() {
        let mut store = Store::<Demo>::at_reset();
        store.write(Demo::BELL, 0, 0x5, u64::MAX, |condition| match condition {});
        assert_eq!((store.get(Demo::BELL), store.read(Demo::BELL, 0)), (5, 0));
        store.set_entry(Demo::ROW, 2, 7);
        assert_eq!((store.entry(Demo::ROW, 2), store.get(Demo::BELL)), (0, 5), "the next register's value");
    }

    #[test]
    fn part_of_a_map_saves_and_restores_its_own_registers() {
        let mut store = Store::<Demo>::at_reset_of(|reg| reg == Demo::ROW);
        store.set_entry(Demo::ROW, 1, 9);
        store.set(Demo::PLAIN, 1);
        let saved = serde_json::to_value(store.save()).unwrap();
        assert_eq!(saved, serde_json::json!({ "ROW[1]": "0x9" }));
        assert_eq!(store.restore(Demo::PLAIN, 0, 0x12, 0), Err("is not of this part"));
        assert_eq!(store.restore(Demo::ROW, 0, 0x13, 0xf), Err("has bits that software cannot set"));
        assert_eq!(store.restore(Demo::ROW, 0, 0x5, 0xf), Ok(()));
        assert_eq!(store.entry(Demo::ROW, 0), 5);
    }
}
