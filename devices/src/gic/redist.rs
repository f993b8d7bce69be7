//! The redistributors' registers (IHI 0069, 12.11): sleep, LPIs, and the private interrupts of each PE.

use hw::regmap::{Frame, RegisterMap};

use super::bank::Bank;
use super::delivery::{Core, Pe};
use super::lpi::Lpi;
use super::regs::{
    GicrCtlr, GicrTyper, GicrWaker, Pendbaser, Propbaser, RedistributorCondition, RedistributorReg as Reg,
};

/// One PE's redistributor. The PE exists.
pub(super) struct Redistributor<'a> {
    core: &'a mut Core,
    cpu: usize,
}

impl Core {
    pub(super) fn redistributor(&mut self, cpu: usize) -> Redistributor<'_> {
        Redistributor { core: self, cpu }
    }
}

impl Frame for Redistributor<'_> {
    type Reg = Reg;

    fn holds(&self, RedistributorCondition::ENABLE_LPIS: RedistributorCondition) -> bool {
        self.core.pes.get(self.cpu).is_some_and(|pe| pe.lpis.is_on())
    }

    fn read(&self, reg: Reg, index: usize) -> u64 {
        let Some(pe) = self.core.pes.get(self.cpu) else { return 0 };
        match reg {
            Reg::GICR_CTLR => {
                GicrCtlr::from(reg.info().reset as u32).with_enable_lpis(pe.lpis.is_on()).into_bits().into()
            }
            Reg::GICR_TYPER => GicrTyper::new()
                .with_plpis(true)
                .with_last(self.cpu + 1 == self.core.pes.len())
                .with_processor_number(self.cpu as u64)
                .with_affinity(pe.affinity.into())
                .into_bits(),
            Reg::GICR_WAKER => GicrWaker::new()
                .with_processor_sleep(pe.is_asleep)
                .with_children_asleep(pe.is_asleep)
                .into_bits()
                .into(),
            Reg::GICR_PROPBASER => pe.propbaser.into_bits(),
            Reg::GICR_PENDBASER => pe.pendbaser.with_ptz(false).into_bits(),
            Reg::GICR_IGROUPR0 => pe.bank.group1.into(),
            Reg::GICR_ISENABLER0 | Reg::GICR_ICENABLER0 => pe.bank.enabled.into(),
            Reg::GICR_ISPENDR0 | Reg::GICR_ICPENDR0 => pe.bank.pending().into(),
            Reg::GICR_ISACTIVER0 | Reg::GICR_ICACTIVER0 => pe.bank.active.into(),
            Reg::GICR_IPRIORITYR => pe.bank.priorities(index).into(),
            Reg::GICR_ICFGR0 => pe.bank.config(false).into(),
            Reg::GICR_ICFGR1 => pe.bank.config(true).into(),
            _ => reg.info().reset,
        }
    }

    fn write(&mut self, reg: Reg, index: usize, value: u64, mask: u64) {
        if reg.is_fixed(|condition| self.holds(condition)) {
            return;
        }
        let value = reg.info().written(0, self.merged(reg, index, value, mask));
        let word = value as u32;
        let Some(pe) = self.core.pes.get_mut(self.cpu) else { return };
        match reg {
            Reg::GICR_CTLR if GicrCtlr::from(word).enable_lpis() => self.core.enable_lpis(self.cpu),
            Reg::GICR_CTLR => self.core.disable_lpis(self.cpu),
            Reg::GICR_INVLPIR => {
                if let Some(lpi) = Lpi::new(word).filter(|_| pe.lpis.is_on()) {
                    self.core.invalidate_lpi(lpi);
                }
            }
            Reg::GICR_INVALLR if pe.lpis.is_on() => self.core.invalidate_all_lpis(),
            _ => {
                write_pe(pe, reg, index, value);
                self.core.update(self.cpu);
            }
        }
    }

    fn narrowest(reg: Reg) -> usize {
        if reg == Reg::GICR_IPRIORITYR { 1 } else { 4 }
    }
}

/// The writes that concern nothing but the PE itself.
fn write_pe(pe: &mut Pe, reg: Reg, index: usize, value: u64) {
    let word = value as u32;
    let bank: &mut Bank = &mut pe.bank;
    match reg {
        Reg::GICR_WAKER => pe.is_asleep = GicrWaker::from(word).processor_sleep(),
        Reg::GICR_PROPBASER => pe.propbaser = Propbaser::from(value),
        Reg::GICR_PENDBASER => pe.pendbaser = Pendbaser::from(value),
        Reg::GICR_IGROUPR0 => bank.group1 = word,
        Reg::GICR_ISENABLER0 => bank.enabled |= word,
        Reg::GICR_ICENABLER0 => bank.enabled &= !word,
        Reg::GICR_ISPENDR0 => bank.set_pending(word),
        Reg::GICR_ICPENDR0 => bank.clear_pending(word),
        Reg::GICR_ISACTIVER0 => bank.active |= word,
        Reg::GICR_ICACTIVER0 => bank.active &= !word,
        Reg::GICR_IPRIORITYR => bank.set_priorities(index, word),
        Reg::GICR_ICFGR1 => bank.set_config(true, word),
        _ => {}
    }
}
