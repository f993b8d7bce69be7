//! The distributor's registers (IHI 0069, 12.9).
//!
//! With affinity routing on, what GICD says of INTIDs 0 to 31 is reserved: those are in the redistributors.

use hw::regmap::{Frame, RegisterMap, Unconditional};

use super::bank::Bank;
use super::delivery::Core;
use super::lpi::INTID_BITS;
use super::regs::{DistributorReg as Reg, GicdCtlr, GicdTyper};

impl Core {
    fn typer(&self) -> GicdTyper {
        GicdTyper::new()
            // At most 31: there are no more than 988 SPIs.
            .with_it_lines_number(self.spi_banks.len() as u32)
            .with_lpis(true)
            .with_id_bits(INTID_BITS - 1)
            .with_a3v(true)
            .with_no_1_of_n(true)
            .with_rss(true)
    }

    /// The bank of the SPIs 32 * `index` - 32 on; none for INTIDs 0 to 31 and beyond the last.
    fn spi_bank(&self, index: usize) -> Option<&Bank> {
        self.spi_banks.get(index.checked_sub(1)?)
    }

    fn spi_bank_mut(&mut self, index: usize) -> Option<&mut Bank> {
        self.spi_banks.get_mut(index.checked_sub(1)?)
    }
}

impl Frame for Core {
    type Reg = Reg;

    fn holds(&self, condition: Unconditional) -> bool {
        match condition {}
    }

    fn read(&self, reg: Reg, index: usize) -> u64 {
        let of_bank = |field: fn(&Bank) -> u32| self.spi_bank(index).map_or(0, field).into();
        match reg {
            Reg::GICD_CTLR => GicdCtlr::from(reg.info().reset as u32)
                .with_enable_grp0(self.enable_grp0)
                .with_enable_grp1(self.enable_grp1)
                .into_bits()
                .into(),
            Reg::GICD_TYPER => self.typer().into_bits().into(),
            Reg::GICD_IGROUPR => of_bank(|bank| bank.group1),
            Reg::GICD_ISENABLER | Reg::GICD_ICENABLER => of_bank(|bank| bank.enabled),
            Reg::GICD_ISPENDR | Reg::GICD_ICPENDR => of_bank(Bank::pending),
            Reg::GICD_ISACTIVER | Reg::GICD_ICACTIVER => of_bank(|bank| bank.active),
            Reg::GICD_IPRIORITYR => {
                self.spi_bank(index / 8).map_or(0, |bank| bank.priorities(index % 8)).into()
            }
            Reg::GICD_ICFGR => self.spi_bank(index / 2).map_or(0, |bank| bank.config(index % 2 == 1)).into(),
            Reg::GICD_IROUTER => self.route(index),
            _ => reg.info().reset,
        }
    }

    fn write(&mut self, reg: Reg, index: usize, value: u64, mask: u64) {
        let value = reg.info().written(0, self.merged(reg, index, value, mask));
        // All registers but IROUTER are 32 bits wide.
        let word = value as u32;
        let per_register = match reg {
            Reg::GICD_IPRIORITYR => 8,
            Reg::GICD_ICFGR => 2,
            _ => 1,
        };
        match reg {
            Reg::GICD_CTLR => {
                let ctlr = GicdCtlr::from(word);
                (self.enable_grp0, self.enable_grp1) = (ctlr.enable_grp0(), ctlr.enable_grp1());
            }
            Reg::GICD_IROUTER => return self.set_route(index, value),
            _ => {
                let Some(bank) = self.spi_bank_mut(index / per_register) else { return };
                match reg {
                    Reg::GICD_IGROUPR => bank.group1 = word,
                    Reg::GICD_ISENABLER => bank.enabled |= word,
                    Reg::GICD_ICENABLER => bank.enabled &= !word,
                    Reg::GICD_ISPENDR => bank.set_pending(word),
                    Reg::GICD_ICPENDR => bank.clear_pending(word),
                    Reg::GICD_ISACTIVER => bank.active |= word,
                    Reg::GICD_ICACTIVER => bank.active &= !word,
                    Reg::GICD_IPRIORITYR => bank.set_priorities(index % 8, word),
                    Reg::GICD_ICFGR => bank.set_config(index % 2 == 1, word),
                    _ => return,
                }
            }
        }
        self.update_all();
    }

    fn narrowest(reg: Reg) -> usize {
        if reg == Reg::GICD_IPRIORITYR { 1 } else { 4 }
    }
}
