//! Values of the registers of one map, for those that are mostly storage.

use hw::Registers;
use hw::regmap::{Access, Located, RegisterMap};

/// One value for each declared register and row entry.
#[derive(Debug)]
pub(crate) struct Bank<R> {
    /// For each register of the bank: its entries.
    values: Vec<(R, Vec<u64>)>,
}

impl<R: RegisterMap + PartialEq> Bank<R> {
    /// All registers at their reset values.
    pub(crate) fn at_reset() -> Self {
        Self::at_reset_of(|_| true)
    }

    /// Some of the map's registers, at their reset values; the others are none of this bank's.
    pub(crate) fn at_reset_of(is_mine: impl Fn(R) -> bool) -> Self {
        let values = R::ALL
            .iter()
            .filter(|(reg, _)| is_mine(*reg))
            .map(|(reg, info)| (*reg, vec![info.reset; usize::try_from(info.count).unwrap_or(0)]))
            .collect();
        Self { values }
    }

    /// Those registers that do not have their value of power-on. What is write-only keeps nothing that anybody asks for.
    pub(crate) fn save(&self) -> Registers {
        let is_saved = |reg: R| reg.info().access != Access::Wo && self.slot(reg, 0).is_some();
        Registers::changed(is_saved, |reg, index| self.slot(reg, index).copied().unwrap_or(0))
    }

    /// Puts a saved value into its place. `possible` are the bits that can differ from the value of power-on.
    pub(crate) fn restore(
        &mut self,
        reg: R,
        index: u64,
        value: u64,
        possible: u64,
    ) -> Result<(), &'static str> {
        if (value ^ reg.info().reset) & !possible != 0 {
            return Err("has bits that software cannot set");
        }
        match self.slot_mut(reg, index) {
            Some(slot) => *slot = value,
            None => return Err("is not of this part"),
        }
        Ok(())
    }

    fn slot(&self, reg: R, index: u64) -> Option<&u64> {
        let (_, row) = self.values.iter().find(|(r, _)| *r == reg)?;
        row.get(usize::try_from(index).ok()?)
    }

    fn slot_mut(&mut self, reg: R, index: u64) -> Option<&mut u64> {
        let (_, row) = self.values.iter_mut().find(|(r, _)| *r == reg)?;
        row.get_mut(usize::try_from(index).ok()?)
    }

    /// The stored value of a single register.
    pub(crate) fn get(&self, reg: R) -> u32 {
        self.slot(reg, 0).map_or(0, |&value| value as u32)
    }

    /// The stored value of one of a row.
    pub(crate) fn entry(&self, reg: R, index: usize) -> u64 {
        self.slot(reg, index as u64).copied().unwrap_or(0)
    }

    /// Puts a value into one of a row, whatever software may write.
    pub(crate) fn set_entry(&mut self, reg: R, index: usize, value: u64) {
        if let Some(slot) = self.slot_mut(reg, index as u64) {
            *slot = value;
        }
    }

    /// Puts a value, whatever software may write.
    pub(crate) fn set(&mut self, reg: R, value: u32) {
        if let Some(slot) = self.slot_mut(reg, 0) {
            *slot = u64::from(value);
        }
    }

    /// The 32-bit word of a located register as software reads it: write-only ones as zero.
    pub(crate) fn read_word(&self, at: Located<R>) -> u32 {
        if at.reg.info().access == Access::Wo {
            return 0;
        }
        let value = self.slot(at.reg, at.index).copied().unwrap_or(0);
        (value >> (8 * (at.byte & 4))) as u32
    }

    /// A 32-bit write by software to a located register, by its access kind.
    pub(crate) fn write_word(&mut self, at: Located<R>, word: u32) {
        let info = at.reg.info();
        let shift = 8 * (at.byte & 4);
        let Some(slot) = self.slot_mut(at.reg, at.index) else { return };
        let half = 0xffff_ffff_u64 << shift;
        let value = match info.access {
            // The other half of a write-1-to-clear register is written with zeros, which clear nothing.
            Access::W1c => u64::from(word) << shift,
            _ => (*slot & !half) | u64::from(word) << shift,
        };
        *slot = info.written(*slot, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    hw::register_map! {
        enum Demo {
            PLAIN @ 0x0: 4 Rw(0xff) = 0x12, "1";
            CLEAR @ 0x8: 8 W1c(u64::MAX) = 0xf_0000_000f, "2";
            ROW[2; 4] @ 0x10: 4 Rw(0xf) = 3, "3";
        }
    }

    #[test]
    fn writes_follow_mask_and_kind_for_each_half() {
        let mut bank = Bank::<Demo>::at_reset();
        bank.write_word(Demo::locate(0x0).unwrap(), 0xabcd);
        assert_eq!(bank.get(Demo::PLAIN), 0xcd);
        bank.write_word(Demo::locate(0xc).unwrap(), 0x3);
        assert_eq!(bank.read_word(Demo::locate(0x8).unwrap()), 0xf);
        assert_eq!(bank.read_word(Demo::locate(0xc).unwrap()), 0xc);
        bank.write_word(Demo::locate(0x14).unwrap(), 0xff);
        assert_eq!(bank.read_word(Demo::locate(0x10).unwrap()), 3);
        assert_eq!(bank.read_word(Demo::locate(0x14).unwrap()), 0xf);
    }
}
