//! The saved state: what the distributor, the redistributors with their PEs' CPU interfaces, and the ITS keep.
//!
//! Interrupts are listed by INTID, only those that are not as after reset. The tables of the ITS and of LPIs are in guest memory;
//! what is read from those at most once, the configurations of LPIs, and what is pending are here. Best interrupts and the
//! wires to the PEs follow from the rest. Deliberately absent: counters.

use std::collections::BTreeMap;

use hw::regmap::RegisterMap;
use hw::saved::{Hex, RestoreError, SavedState, hex, index_of};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bank::{Bank, PRIORITY_MASK};
use super::cpuif::InterfaceState;
use super::delivery::{Core, Pe, SGI_BITS};
use super::its::ItsState;
use super::lpi::{Config, FIRST_LPI, Lpi, LpiSet};
use super::regs::{DistributorReg, GicdCtlr, GicrCtlr, GicrWaker, Pendbaser, Propbaser, RedistributorReg};
use super::{Gic, lock};

/// The controller.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GicState {
    distributor: DistributorState,
    /// By processor number.
    redistributors: BTreeMap<String, RedistributorState>,
    its: ItsState,
}

impl SavedState for GicState {
    const VERSION: u32 = 1;
}

/// The distributor, and what all redistributors share.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DistributorState {
    #[serde(rename = "GICD_CTLR", with = "hex")]
    ctlr: u32,
    /// Those that are not as after reset, by INTID.
    spi: BTreeMap<String, SpiState>,
    /// The configurations that have been read from the LPI configuration table and not been invalidated, by INTID.
    lpi_configurations: BTreeMap<String, Hex>,
}

/// One interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InterruptState {
    group1: bool,
    enabled: bool,
    active: bool,
    edge: bool,
    /// Pending by an edge or by software; a level-sensitive one is also pending while its input is high.
    pending: bool,
    /// The level of its input.
    input: bool,
    #[serde(with = "hex")]
    priority: u8,
}

/// One SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpiState {
    interrupt: InterruptState,
    #[serde(rename = "GICD_IROUTER", with = "hex")]
    route: u64,
}

/// One PE.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RedistributorState {
    #[serde(rename = "GICR_CTLR", with = "hex")]
    ctlr: u32,
    #[serde(rename = "GICR_WAKER", with = "hex")]
    waker: u32,
    #[serde(rename = "GICR_PROPBASER", with = "hex")]
    propbaser: u64,
    #[serde(rename = "GICR_PENDBASER", with = "hex")]
    pendbaser: u64,
    /// SGIs and PPIs that are not as after reset, by INTID.
    private: BTreeMap<String, InterruptState>,
    /// INTIDs, ascending.
    pending_lpis: Vec<u32>,
    cpu_interface: InterfaceState,
}

impl InterruptState {
    const fn reset(edge: bool) -> Self {
        Self { group1: false, enabled: false, active: false, edge, pending: false, input: false, priority: 0 }
    }

    /// `bit` is below 32.
    fn of(bank: &Bank, bit: usize) -> Self {
        let is_set = |mask: u32| mask >> bit & 1 != 0;
        Self {
            group1: is_set(bank.group1),
            enabled: is_set(bank.enabled),
            active: is_set(bank.active),
            edge: is_set(bank.edge),
            pending: is_set(bank.latch),
            input: is_set(bank.line),
            priority: bank.priority[bit],
        }
    }

    fn put(self, bank: &mut Bank, bit: usize) -> Result<(), RestoreError> {
        let Self { group1, enabled, active, edge, pending, input, priority } = self;
        if priority & !PRIORITY_MASK != 0 {
            return Err(RestoreError::value("priority", "has bits that are not implemented"));
        }
        for (mask, is_set) in [
            (&mut bank.group1, group1),
            (&mut bank.enabled, enabled),
            (&mut bank.active, active),
            (&mut bank.edge, edge),
            (&mut bank.latch, pending),
            (&mut bank.line, input),
        ] {
            *mask = *mask & !(1 << bit) | u32::from(is_set) << bit;
        }
        bank.priority[bit] = priority;
        Ok(())
    }
}

/// A value that a write to the register can leave there, where reading it needs nothing else.
fn check_written<R: RegisterMap>(reg: R, value: u64) -> Result<(), RestoreError> {
    if reg.info().written(reg.info().reset, value) == value {
        Ok(())
    } else {
        Err(RestoreError::value(reg.info().name, "has other bits than software can write"))
    }
}

/// The reverse of `INTID.to_string()`.
fn intid_of(key: &str, first: usize, count: usize) -> Result<usize, RestoreError> {
    let intid = index_of(key, first + count)?;
    intid.checked_sub(first).ok_or_else(|| RestoreError::value(key, format!("is no INTID from {first} on")))
}

impl Core {
    fn save_distributor(&self) -> DistributorState {
        let ctlr = GicdCtlr::from(DistributorReg::GICD_CTLR.info().reset as u32)
            .with_enable_grp0(self.enable_grp0)
            .with_enable_grp1(self.enable_grp1);
        let spis = self.spi_banks.iter().enumerate().flat_map(|(index, bank)| {
            (0..32).map(move |bit| (32 * index + bit, InterruptState::of(bank, bit)))
        });
        let spis = spis.map(|(spi, interrupt)| (spi, SpiState { interrupt, route: self.route(spi) }));
        let reset = SpiState { interrupt: InterruptState::reset(false), route: 0 };
        DistributorState {
            ctlr: ctlr.into_bits(),
            spi: spis
                .filter(|(_, state)| *state != reset)
                .map(|(spi, state)| ((32 + spi).to_string(), state))
                .collect(),
            lpi_configurations: self
                .configs
                .all_read()
                .map(|(lpi, config)| (lpi.intid().to_string(), Hex(config.bits().into())))
                .collect(),
        }
    }

    fn restore_distributor(&mut self, state: DistributorState) -> Result<(), RestoreError> {
        let DistributorState { ctlr, spi, lpi_configurations } = state;
        check_written(DistributorReg::GICD_CTLR, ctlr.into())?;
        let ctlr = GicdCtlr::from(ctlr);
        (self.enable_grp0, self.enable_grp1) = (ctlr.enable_grp0(), ctlr.enable_grp1());
        for (key, SpiState { interrupt, route }) in spi {
            let within = |error: RestoreError| error.within(&key).within("spi");
            let n = intid_of(&key, 32, 32 * self.spi_banks.len()).map_err(|error| error.within("spi"))?;
            interrupt.put(&mut self.spi_banks[n / 32], n % 32).map_err(within)?;
            check_written(DistributorReg::GICD_IROUTER, route).map_err(within)?;
            // Interrupts above INTID 1019, which share a register with those below, have no route.
            if n < self.spis() {
                self.put_route(n, route);
            } else if route != 0 {
                return Err(within(RestoreError::value("GICD_IROUTER", "there is none for this INTID")));
            }
        }
        for (key, Hex(byte)) in lpi_configurations {
            let within = |error: RestoreError| error.within("lpi_configurations");
            let lpi = lpi_of(&key).map_err(within)?;
            let config = u8::try_from(byte).ok().and_then(Config::from_bits);
            let config = config
                .ok_or_else(|| within(RestoreError::value(key, "has bits that no configuration has")))?;
            self.configs.put(lpi, config);
        }
        Ok(())
    }

    fn save_pe(pe: &Pe) -> RedistributorState {
        let waker = GicrWaker::new().with_processor_sleep(pe.is_asleep).with_children_asleep(pe.is_asleep);
        let ctlr = GicrCtlr::from(RedistributorReg::GICR_CTLR.info().reset as u32);
        RedistributorState {
            ctlr: ctlr.with_enable_lpis(pe.lpis.is_on()).into_bits(),
            waker: waker.into_bits(),
            propbaser: pe.propbaser.into_bits(),
            pendbaser: pe.pendbaser.into_bits(),
            private: (0..32)
                .map(|bit| (bit, InterruptState::of(&pe.bank, bit)))
                .filter(|&(bit, state)| state != InterruptState::reset(bit < 16))
                .map(|(bit, state)| (bit.to_string(), state))
                .collect(),
            pending_lpis: pe.lpis.pending().map(Lpi::intid).collect(),
            cpu_interface: pe.icc.save(),
        }
    }

    fn restore_pe(&mut self, cpu: usize, state: RedistributorState) -> Result<(), RestoreError> {
        use RedistributorReg as Reg;
        let RedistributorState { ctlr, waker, propbaser, pendbaser, private, pending_lpis, cpu_interface } =
            state;
        check_written(Reg::GICR_CTLR, ctlr.into())?;
        let is_asleep = GicrWaker::from(waker).processor_sleep();
        let possible = GicrWaker::new().with_processor_sleep(is_asleep).with_children_asleep(is_asleep);
        if waker != possible.into_bits() {
            return Err(RestoreError::value("GICR_WAKER", "children sleep exactly if the processor does"));
        }
        check_written(Reg::GICR_PROPBASER, propbaser)?;
        check_written(Reg::GICR_PENDBASER, pendbaser)?;
        let pe = &mut self.pes[cpu];
        for (key, interrupt) in private {
            let within = |error: RestoreError| error.within("private");
            let bit = index_of(&key, 32).map_err(within)?;
            interrupt.put(&mut pe.bank, bit).map_err(|error| within(error.within(&key)))?;
        }
        if pe.bank.edge & SGI_BITS != SGI_BITS || pe.bank.line & SGI_BITS != 0 {
            return Err(RestoreError::value("private", "SGIs are edge-triggered and have no inputs"));
        }
        pe.is_asleep = is_asleep;
        pe.propbaser = Propbaser::from(propbaser);
        pe.pendbaser = Pendbaser::from(pendbaser);
        pe.icc.restore(cpu_interface).map_err(|error| error.within("cpu_interface"))?;
        let mut pending = LpiSet::new();
        for &intid in &pending_lpis {
            let refused = |why: &str| RestoreError::value("pending_lpis", format!("{intid} {why}"));
            let lpi = Lpi::new(intid).ok_or_else(|| refused("is no LPI"))?;
            if pending.contains(lpi) {
                return Err(refused("is there twice"));
            }
            // It was read when the LPI became pending, and is read again when it is invalidated.
            if !self.configs.has_read(lpi) {
                return Err(refused("is not among the configurations"));
            }
            pending.insert(lpi);
        }
        if GicrCtlr::from(ctlr).enable_lpis() {
            pe.lpis.turn_on(pending);
            pe.lpis.sort(|lpi| self.configs.known(lpi));
        } else if !pending.is_empty() {
            return Err(RestoreError::value("pending_lpis", "LPIs are disabled"));
        }
        Ok(())
    }
}

/// The LPI of an INTID as a key.
fn lpi_of(key: &str) -> Result<Lpi, RestoreError> {
    let intid = index_of(key, 1 << super::lpi::INTID_BITS)?;
    let lpi = u32::try_from(intid).ok().and_then(Lpi::new);
    lpi.ok_or_else(|| RestoreError::value(key, format!("LPIs begin at {FIRST_LPI}")))
}

pub(super) fn save(gic: &Gic) -> Value {
    let its = lock(&gic.its);
    let core = lock(&gic.core);
    let state = GicState {
        distributor: core.save_distributor(),
        redistributors: core
            .pes
            .iter()
            .enumerate()
            .map(|(cpu, pe)| (cpu.to_string(), Core::save_pe(pe)))
            .collect(),
        its: its.save(),
    };
    state.to_value()
}

pub(super) fn restore(gic: &Gic, state: Value) -> Result<(), RestoreError> {
    let GicState { distributor, mut redistributors, its: its_state } = GicState::from_value(state)?;
    let mut its = lock(&gic.its);
    let mut core = lock(&gic.core);
    core.clear();
    its.restore(its_state).map_err(|error| error.within("its"))?;
    core.restore_distributor(distributor).map_err(|error| error.within("distributor"))?;
    for cpu in 0..core.pes.len() {
        let key = cpu.to_string();
        let within = |error: RestoreError| error.within(&key).within("redistributors");
        let pe = redistributors
            .remove(&key)
            .ok_or_else(|| RestoreError::value(format!("redistributors/{key}"), "is missing"))?;
        core.restore_pe(cpu, pe).map_err(within)?;
    }
    if let Some(key) = redistributors.into_keys().next() {
        return Err(RestoreError::value(format!("redistributors/{key}"), "there is no such PE"));
    }
    core.update_all();
    Ok(())
}
