//! The part that all frames share: which interrupt is the best for each PE, and the wires that tell it.
//!
//! Whatever changes state calls `update` for the PEs concerned; it keeps each PE's best pending interrupt at hand,
//! so that an acknowledge costs no search. See IHI 0069, chapter 4.

use std::collections::BTreeMap;
use std::sync::Arc;

use hw::{IrqLine, Pa, Ram};

use super::bank::{Bank, bits};
use super::lpi::{ConfigCache, FIRST_LPI, INTID_BITS, LPIS, Lpi, LpiSet, PendingLpis};
use super::regs::{Pendbaser, Propbaser};

/// SGIs are edge-triggered for ever.
pub(super) const SGI_BITS: u32 = 0xffff;

/// What the PEs have taken, by kind, and the acknowledges that found nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Software-generated interrupts acknowledged.
    pub sgis: u64,
    /// Private peripheral interrupts acknowledged.
    pub ppis: u64,
    /// Shared peripheral interrupts acknowledged.
    pub spis: u64,
    /// Locality-specific interrupts acknowledged: messages, through the ITS.
    pub lpis: u64,
    /// Acknowledges answered with a special INTID.
    pub spurious: u64,
    /// Messages that no translation exists for.
    pub messages_dropped: u64,
}

/// What the core is connected to.
pub(super) struct Wiring {
    pub(super) irq: Vec<Arc<dyn IrqLine>>,
    pub(super) fiq: Vec<Arc<dyn IrqLine>>,
    pub(super) wake: Vec<Arc<dyn IrqLine>>,
    pub(super) ram: Arc<Ram>,
}

/// The group of an interrupt, and the register bank of the CPU interface that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Signalled by FIQ.
    Zero,
    /// Signalled by IRQ.
    One,
}

/// A pending interrupt that may be signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) priority: u8,
    pub(super) intid: u32,
    pub(super) group: Group,
}

/// A PE's CPU interface; see `cpuif`.
#[derive(Clone, Debug)]
pub(super) struct CpuInterface {
    pub(super) pmr: u8,
    pub(super) bpr0: u8,
    pub(super) bpr1: u8,
    pub(super) cbpr: bool,
    pub(super) eoi_mode: bool,
    pub(super) pmhe: bool,
    pub(super) igrpen0: bool,
    pub(super) igrpen1: bool,
    /// Active priorities, a bit for each of 32 levels.
    pub(super) ap0r: u32,
    pub(super) ap1r: u32,
}

/// One PE: its redistributor and CPU interface.
pub(super) struct Pe {
    pub(super) affinity: u32,
    /// INTIDs 0 to 31.
    pub(super) bank: Bank,
    /// GICR_WAKER.ProcessorSleep.
    pub(super) is_asleep: bool,
    pub(super) propbaser: Propbaser,
    pub(super) pendbaser: Pendbaser,
    pub(super) lpis: PendingLpis,
    pub(super) icc: CpuInterface,
    /// The best pending interrupt, by `update`.
    pub(super) best: Option<Candidate>,
    levels: Levels,
}

/// The levels of a PE's wires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Levels {
    irq: bool,
    fiq: bool,
    wake: bool,
}

impl Pe {
    fn new(affinity: u32, lines: u32) -> Self {
        Self {
            affinity,
            bank: Bank::new(SGI_BITS, lines),
            is_asleep: true,
            propbaser: Propbaser::new(),
            pendbaser: Pendbaser::new(),
            lpis: PendingLpis::default(),
            icc: CpuInterface::new(),
            best: None,
            levels: Levels::default(),
        }
    }
}

/// Distributor, redistributors and CPU interfaces.
pub(super) struct Core {
    pub(super) wiring: Wiring,
    pub(super) enable_grp0: bool,
    pub(super) enable_grp1: bool,
    /// INTIDs 32 on.
    pub(super) spi_banks: Vec<Bank>,
    /// GICD_IROUTERn of each SPI.
    routes: Vec<u64>,
    /// The PE that each route names, if there is one.
    targets: Vec<Option<usize>>,
    pub(super) pes: Vec<Pe>,
    by_affinity: BTreeMap<u32, usize>,
    pub(super) configs: ConfigCache,
    pub(super) counters: Counters,
}

impl Core {
    pub(super) fn new(wiring: Wiring, affinities: Vec<u32>, spis: u32) -> Self {
        let by_affinity: BTreeMap<u32, usize> =
            affinities.iter().enumerate().map(|(cpu, &affinity)| (affinity, cpu)).collect();
        let target = by_affinity.get(&0).copied();
        Self {
            wiring,
            enable_grp0: false,
            enable_grp1: false,
            spi_banks: vec![Bank::new(0, 0); spis.div_ceil(32) as usize],
            routes: vec![0; spis as usize],
            targets: vec![target; spis as usize],
            pes: affinities.into_iter().map(|affinity| Pe::new(affinity, 0)).collect(),
            by_affinity,
            configs: ConfigCache::new(),
            counters: Counters::default(),
        }
    }

    pub(super) fn reset(&mut self) {
        self.clear();
        self.update_all();
    }

    /// As after reset, but for the wires, which [`Self::update_all`] drives.
    pub(super) fn clear(&mut self) {
        // By name: a new field must be decided on here.
        let Self {
            wiring: _,
            enable_grp0,
            enable_grp1,
            spi_banks,
            routes,
            targets,
            pes,
            by_affinity,
            configs,
            counters: _,
        } = self;
        (*enable_grp0, *enable_grp1) = (false, false);
        for bank in spi_banks {
            *bank = Bank::new(0, bank.lines());
        }
        routes.fill(0);
        targets.fill(by_affinity.get(&0).copied());
        for pe in pes {
            *pe = Pe { levels: pe.levels, ..Pe::new(pe.affinity, pe.bank.lines()) };
        }
        configs.forget_all();
    }

    pub(super) const fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn spis(&self) -> usize {
        self.routes.len()
    }

    pub(super) fn set_spi_line(&mut self, n: u32, high: bool) {
        let Some(bank) = self.spi_banks.get_mut((n / 32) as usize) else { return };
        if bank.set_line(n % 32, high) {
            self.update_spi(n);
        }
    }

    pub(super) fn set_ppi_line(&mut self, cpu: usize, n: u32, high: bool) {
        let Some(pe) = self.pes.get_mut(cpu) else { return };
        if pe.bank.set_line(16 + n, high) {
            self.update(cpu);
        }
    }

    pub(super) fn route(&self, spi: usize) -> u64 {
        self.routes.get(spi).copied().unwrap_or(0)
    }

    pub(super) fn set_route(&mut self, spi: usize, route: u64) {
        for cpu in self.put_route(spi, route).into_iter().flatten() {
            self.update(cpu);
        }
    }

    /// The PEs before and now, if the route names any: they are to be updated.
    pub(super) fn put_route(&mut self, spi: usize, route: u64) -> [Option<usize>; 2] {
        let (Some(old), Some(target)) = (self.routes.get_mut(spi), self.targets.get_mut(spi)) else {
            return [None; 2];
        };
        *old = route;
        let affinity = (route >> 8 & 0xff00_0000) as u32 | (route as u32 & 0x00ff_ffff);
        let new_target = self.by_affinity.get(&affinity).copied();
        [std::mem::replace(target, new_target), new_target]
    }

    /// The PE with this affinity.
    pub(super) fn cpu_of(&self, affinity: u32) -> Option<usize> {
        self.by_affinity.get(&affinity).copied()
    }

    /// Pending becomes active. LPIs have no active state.
    pub(super) fn activate(&mut self, cpu: usize, intid: u32) {
        match intid {
            0..32 => {
                let Some(pe) = self.pes.get_mut(cpu) else { return };
                pe.bank.acknowledge(intid);
                *(if intid < 16 { &mut self.counters.sgis } else { &mut self.counters.ppis }) += 1;
            }
            32..FIRST_LPI => {
                let Some(bank) = self.spi_banks.get_mut((intid / 32 - 1) as usize) else { return };
                bank.acknowledge(intid % 32);
                self.counters.spis += 1;
            }
            FIRST_LPI.. => {
                let (Some(lpi), Some(pe)) = (Lpi::new(intid), self.pes.get_mut(cpu)) else { return };
                pe.lpis.clear(lpi, self.configs.known(lpi));
                self.counters.lpis += 1;
            }
        }
    }

    /// Active becomes inactive. The caller updates `cpu`.
    pub(super) fn deactivate(&mut self, cpu: usize, intid: u32) {
        match intid {
            0..32 => {
                if let Some(pe) = self.pes.get_mut(cpu) {
                    pe.bank.active &= !(1 << intid);
                }
            }
            32..FIRST_LPI => {
                let Some(bank) = self.spi_banks.get_mut((intid / 32 - 1) as usize) else { return };
                bank.active &= !(1 << (intid % 32));
                // It may have been routed to another PE since it was taken.
                match self.targets.get((intid - 32) as usize) {
                    Some(&Some(target)) if target != cpu => self.update(target),
                    _ => {}
                }
            }
            FIRST_LPI.. => {}
        }
    }

    fn update_spi(&mut self, n: u32) {
        if let Some(Some(cpu)) = self.targets.get(n as usize).copied() {
            self.update(cpu);
        }
    }

    pub(super) fn update_all(&mut self) {
        for cpu in 0..self.pes.len() {
            self.update(cpu);
        }
    }

    /// Finds a PE's best pending interrupt anew and drives its wires.
    pub(super) fn update(&mut self, cpu: usize) {
        let best = self.best_of(cpu);
        let Some(pe) = self.pes.get_mut(cpu) else { return };
        pe.best = best;
        let group = pe.signalled().map(|candidate| candidate.group);
        let new = Levels {
            irq: group == Some(Group::One),
            fiq: group == Some(Group::Zero),
            // While ProcessorSleep is set there is nothing to take, but a PE that waits is to look.
            wake: pe.is_asleep && best.is_some(),
        };
        let old = std::mem::replace(&mut pe.levels, new);
        let Wiring { irq, fiq, wake, .. } = &self.wiring;
        for (wires, old, new) in
            [(irq, old.irq, new.irq), (fiq, old.fiq, new.fiq), (wake, old.wake, new.wake)]
        {
            if old != new
                && let Some(line) = wires.get(cpu)
            {
                line.set(new);
            }
        }
    }

    /// A PE has been reset: its CPU interface, which is part of it, and nothing else here.
    pub(super) fn reset_cpu_interface(&mut self, cpu: usize) {
        if let Some(pe) = self.pes.get_mut(cpu) {
            pe.icc = CpuInterface::new();
            self.update(cpu);
        }
    }

    fn best_of(&self, cpu: usize) -> Option<Candidate> {
        let pe = self.pes.get(cpu)?;
        // A sleeping PE's interface takes part in nothing: what its enables say does not count for waking it.
        let group0 = self.enable_grp0 && (pe.is_asleep || pe.icc.igrpen0);
        let group1 = self.enable_grp1 && (pe.is_asleep || pe.icc.igrpen1);
        let allowed =
            |bank: &Bank| (if group0 { !bank.group1 } else { 0 }) | (if group1 { bank.group1 } else { 0 });
        let mut best: Option<Candidate> = None;
        // Candidates come in ascending order of INTID: of equals the first stays.
        let mut consider = |bank: &Bank, bit: u32, first: u32| {
            let Some(&priority) = bank.priority.get(bit as usize) else { return };
            if best.is_none_or(|best| priority < best.priority) {
                let group = if bank.group1 >> bit & 1 != 0 { Group::One } else { Group::Zero };
                best = Some(Candidate { priority, intid: first + bit, group });
            }
        };
        for bit in bits(pe.bank.ready() & allowed(&pe.bank)) {
            consider(&pe.bank, bit, 0);
        }
        for (first, bank) in (32..).step_by(32).zip(&self.spi_banks) {
            for bit in bits(bank.ready() & allowed(bank)) {
                let spi = (first - 32 + bit) as usize;
                if self.targets.get(spi).copied().flatten() == Some(cpu) {
                    consider(bank, bit, first);
                }
            }
        }
        if group1
            && let Some((priority, lpi)) = pe.lpis.best()
            && best.is_none_or(|best| priority < best.priority)
        {
            best = Some(Candidate { priority, intid: lpi.intid(), group: Group::One });
        }
        best
    }
}

/// LPIs.
impl Core {
    /// Makes an LPI pending on a PE.
    pub(super) fn set_lpi(&mut self, cpu: usize, lpi: Lpi) {
        let Some(pe) = self.pes.get_mut(cpu) else { return };
        if !pe.lpis.is_on() || lpi.intid() >= intids(pe.propbaser) {
            return;
        }
        let config = self.configs.get(lpi, |lpi| read_config(&self.wiring.ram, pe.propbaser, lpi));
        pe.lpis.set(lpi, config);
        self.update(cpu);
    }

    /// Makes an LPI not pending on a PE. Returns whether it was.
    pub(super) fn clear_lpi(&mut self, cpu: usize, lpi: Lpi) -> bool {
        let Some(pe) = self.pes.get_mut(cpu) else { return false };
        let was = pe.lpis.clear(lpi, self.configs.known(lpi));
        if was {
            self.update(cpu);
        }
        was
    }

    /// An LPI's pending state follows it to another PE.
    pub(super) fn move_lpi(&mut self, from: usize, to: usize, lpi: Lpi) {
        if from != to && self.clear_lpi(from, lpi) {
            self.set_lpi(to, lpi);
        }
    }

    /// All LPIs' pending states go to another PE.
    pub(super) fn move_all_lpis(&mut self, from: usize, to: usize) {
        if let Ok([source, target]) = self.pes.get_disjoint_mut([from, to]) {
            target.lpis.take_all(&mut source.lpis);
            self.update(from);
            self.update(to);
        }
    }

    /// The LPI's configuration has changed in memory.
    pub(super) fn invalidate_lpi(&mut self, lpi: Lpi) {
        let known = self.configs.known(lpi);
        let holders: Vec<usize> =
            (0..self.pes.len()).filter(|&cpu| self.pes[cpu].lpis.is_pending(lpi)).collect();
        for &cpu in &holders {
            self.pes[cpu].lpis.clear(lpi, known);
        }
        self.configs.forget(lpi);
        for cpu in holders {
            self.set_lpi(cpu, lpi);
        }
    }

    /// Any LPI's configuration may have changed in memory.
    pub(super) fn invalidate_all_lpis(&mut self) {
        self.configs.forget_all();
        for pe in &mut self.pes {
            let propbaser = pe.propbaser;
            pe.lpis.sort(|lpi| self.configs.get(lpi, |lpi| read_config(&self.wiring.ram, propbaser, lpi)));
        }
        self.update_all();
    }

    /// GICR_CTLR.EnableLPIs becomes one: the pending table is read, unless it is said to be zero.
    pub(super) fn enable_lpis(&mut self, cpu: usize) {
        let Some(pe) = self.pes.get_mut(cpu) else { return };
        if pe.lpis.is_on() {
            return;
        }
        let pending = if pe.pendbaser.ptz() {
            LpiSet::new()
        } else {
            let mut bytes = vec![0; pending_table_bytes(pe.propbaser)];
            match self.wiring.ram.read(pending_table(pe.pendbaser), &mut bytes) {
                Ok(()) => LpiSet::from_bytes(&bytes),
                Err(_) => LpiSet::new(),
            }
        };
        pe.lpis.turn_on(pending);
        self.invalidate_all_lpis();
    }

    /// GICR_CTLR.EnableLPIs becomes zero: what is pending goes to the pending table.
    pub(super) fn disable_lpis(&mut self, cpu: usize) {
        let Some(pe) = self.pes.get_mut(cpu) else { return };
        let Some(pending) = pe.lpis.turn_off() else { return };
        let mut bytes = pending.to_bytes();
        bytes.truncate(pending_table_bytes(pe.propbaser));
        // A table outside RAM keeps nothing.
        let _ = self.wiring.ram.write(pending_table(pe.pendbaser), &bytes);
        self.update(cpu);
    }
}

/// INTIDs that the tables have entries for: one past the last.
fn intids(propbaser: Propbaser) -> u32 {
    1 << (propbaser.id_bits() + 1).min(INTID_BITS)
}

fn read_config(ram: &Ram, propbaser: Propbaser, lpi: Lpi) -> Option<u8> {
    let mut byte = [0];
    let at = (propbaser.page() << 12) + u64::from(lpi.intid() - FIRST_LPI);
    ram.read(Pa(at), &mut byte).ok()?;
    Some(byte[0])
}

/// Where the pending table's bit of the first LPI is.
fn pending_table(pendbaser: Pendbaser) -> Pa {
    Pa((pendbaser.page() << 16) + u64::from(FIRST_LPI / 8))
}

/// Bytes of the pending table from there on.
fn pending_table_bytes(propbaser: Propbaser) -> usize {
    (intids(propbaser).saturating_sub(FIRST_LPI) / 8).min(LPIS as u32 / 8) as usize
}
