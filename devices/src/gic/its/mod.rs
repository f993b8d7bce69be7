//! The interrupt translation service: registers and command queue (IHI 0069, chapter 5 and 12.19).
//!
//! Commands run to the end on the write that makes them visible. A command that makes no sense is skipped and the
//! queue goes on, one of the answers that 5.3 leaves open; nothing ever stalls. Absent: virtual LPIs, collections
//! kept in hardware (GITS_TYPER.HCC = 0), the translation of writes by PEs, which have no DeviceID.

mod command;
mod tables;

use std::fmt;
use std::sync::{Arc, Mutex};

use hw::regmap::{Frame, RegisterMap};
use hw::saved::{RestoreError, hex};
use hw::{DeviceId, GuestErrors, Pa, Ram};
use serde::{Deserialize, Serialize};

use self::command::{COMMAND_BYTES, Command};
use self::tables::{EventEntry, Tables};
use super::delivery::Core;
use super::lock;
use super::lpi::Lpi;
use super::regs::{Baser, Cbaser, ItsCondition, ItsReg as Reg};

/// GITS_CTLR.Enabled.
const ENABLED: u64 = 1 << 0;
/// GITS_CTLR.Quiescent.
const QUIESCENT: u64 = 1 << 31;

/// The ITS.
pub(super) struct Its {
    ram: Arc<Ram>,
    cpus: usize,
    is_enabled: bool,
    cbaser: Cbaser,
    /// Byte offsets in the command queue.
    cwriter: u64,
    creadr: u64,
    tables: Tables,
    errors: GuestErrors,
}

/// Its registers as they are saved. Everything else is in guest memory.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItsState {
    #[serde(rename = "GITS_CTLR", with = "hex")]
    ctlr: u64,
    #[serde(rename = "GITS_CBASER", with = "hex")]
    cbaser: u64,
    #[serde(rename = "GITS_CWRITER", with = "hex")]
    cwriter: u64,
    #[serde(rename = "GITS_CREADR", with = "hex")]
    creadr: u64,
    #[serde(rename = "GITS_BASER0", with = "hex")]
    baser0: u64,
    #[serde(rename = "GITS_BASER1", with = "hex")]
    baser1: u64,
}

impl Its {
    pub(super) fn new(ram: Arc<Ram>, cpus: usize, errors: GuestErrors) -> Self {
        Self {
            tables: Tables::new(Arc::clone(&ram)),
            ram,
            cpus,
            is_enabled: false,
            cbaser: Cbaser::new(),
            cwriter: 0,
            creadr: 0,
            errors,
        }
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(Arc::clone(&self.ram), self.cpus, self.errors.clone());
    }

    /// Carries out the commands between GITS_CREADR and GITS_CWRITER: at most a queue full, 32768.
    pub(super) fn run(&mut self, core: &Mutex<Core>) {
        let bytes = self.queue_bytes();
        if !self.is_running() {
            return;
        }
        let mut batch = Batch { cpus: self.cpus, tables: &self.tables, core, all_invalid: false };
        while self.creadr != self.cwriter {
            let mut words = [0; COMMAND_BYTES];
            let at = (self.cbaser.page() << 12) + self.creadr;
            // Outside RAM there are no commands, only places in the queue.
            if self.ram.read(Pa(at), &mut words).is_ok() {
                let command = Command::decode(&words);
                if batch.execute(command).is_none() {
                    self.errors
                        .report("ITS commands that are skipped", format_args!("{}", Skipped { command, at }));
                }
            } else {
                let what = format_args!("no memory at {at:#x}, in the ITS's command queue");
                self.errors.report("ITS commands outside memory", what);
            }
            self.creadr = (self.creadr + COMMAND_BYTES as u64) % bytes;
        }
        batch.finish();
    }

    /// A message: an LPI becomes pending, if the device's event is mapped to one.
    pub(super) fn message(&self, core: &Mutex<Core>, device: DeviceId, event: u32) {
        let found = if self.is_enabled { self.tables.translate(device, event) } else { None };
        let mut core = lock(core);
        match found {
            Some((lpi, cpu)) if cpu < self.cpus => core.set_lpi(cpu, lpi),
            _ => {
                core.counters.messages_dropped += 1;
                drop(core);
                let what = format_args!("message {event:#x} of {device:?} is mapped to no LPI");
                self.errors.report("messages that are mapped to no LPI", what);
            }
        }
    }

    pub(super) fn save(&self) -> ItsState {
        let read = |reg| self.read(reg, 0);
        ItsState {
            ctlr: read(Reg::GITS_CTLR),
            cbaser: read(Reg::GITS_CBASER),
            cwriter: read(Reg::GITS_CWRITER),
            creadr: read(Reg::GITS_CREADR),
            baser0: read(Reg::GITS_BASER0),
            baser1: read(Reg::GITS_BASER1),
        }
    }

    pub(super) fn restore(&mut self, state: ItsState) -> Result<(), RestoreError> {
        let ItsState { ctlr, cbaser, cwriter, creadr, baser0, baser1 } = state;
        self.reset();
        // CTLR last: what it enables does not move afterwards.
        for (reg, value) in [
            (Reg::GITS_CBASER, cbaser),
            (Reg::GITS_CWRITER, cwriter),
            (Reg::GITS_BASER0, baser0),
            (Reg::GITS_BASER1, baser1),
            (Reg::GITS_CTLR, ctlr),
        ] {
            self.write(reg, 0, value, u64::MAX);
            if self.read(reg, 0) != value {
                return Err(RestoreError::value(reg.info().name, "no write leaves this value"));
            }
        }
        if creadr >= self.queue_bytes() || !creadr.is_multiple_of(COMMAND_BYTES as u64) {
            return Err(RestoreError::value("GITS_CREADR", "is no command of the queue"));
        }
        if self.is_running() && creadr != cwriter {
            return Err(RestoreError::value("GITS_CREADR", "a queue that is on has nothing left to do"));
        }
        self.creadr = creadr;
        Ok(())
    }

    const fn queue_bytes(&self) -> u64 {
        (self.cbaser.size() + 1) << 12
    }

    const fn is_running(&self) -> bool {
        self.is_enabled && self.cbaser.valid() && self.cwriter < self.queue_bytes()
    }

    fn baser(&self, reg: Reg) -> Baser {
        if reg == Reg::GITS_BASER0 { self.tables.devices } else { self.tables.collections }
    }
}

impl Frame for Its {
    type Reg = Reg;

    fn holds(&self, ItsCondition::ENABLED: ItsCondition) -> bool {
        self.is_enabled
    }

    fn read(&self, reg: Reg, _index: usize) -> u64 {
        match reg {
            // Between accesses nothing is under way.
            Reg::GITS_CTLR if self.is_enabled => ENABLED,
            Reg::GITS_CTLR => QUIESCENT,
            Reg::GITS_CBASER => self.cbaser.into_bits(),
            Reg::GITS_CWRITER => self.cwriter,
            Reg::GITS_CREADR => self.creadr,
            Reg::GITS_BASER0 | Reg::GITS_BASER1 => self.baser(reg).into_bits(),
            _ => reg.info().reset,
        }
    }

    /// Whoever calls lets the queue run afterwards.
    fn write(&mut self, reg: Reg, index: usize, value: u64, mask: u64) {
        // The tables and the queue stay where they are as long as they are in use.
        if reg.is_fixed(|condition| self.holds(condition)) {
            let what = format_args!("write to {}, while the ITS is on", reg.info().name);
            return self.errors.report("writes to registers that are in use", what);
        }
        let value = self.merged(reg, index, value, mask);
        let written = reg.info().written(reg.info().reset, value);
        match reg {
            Reg::GITS_CTLR => self.is_enabled = value & ENABLED != 0,
            Reg::GITS_CWRITER => self.cwriter = written,
            Reg::GITS_CBASER => {
                self.cbaser = Cbaser::from(written);
                self.creadr = 0;
            }
            Reg::GITS_BASER0 => self.tables.devices = tables::baser(written),
            Reg::GITS_BASER1 => self.tables.collections = tables::baser(written),
            _ => {}
        }
    }

    fn narrowest(reg: Reg) -> usize {
        if reg == Reg::GITS_TRANSLATER { 2 } else { 4 }
    }
}

/// A command that is skipped, for people.
struct Skipped {
    command: Option<Command>,
    at: u64,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command {
            Some(command) => write!(f, "{command:?} at {:#x} is skipped", self.at),
            None => write!(f, "a command at {:#x} that does not exist is skipped", self.at),
        }
    }
}

/// The commands of one run of the queue.
struct Batch<'a> {
    cpus: usize,
    tables: &'a Tables,
    core: &'a Mutex<Core>,
    /// INVALL has been seen: everything is read anew once, at the end.
    all_invalid: bool,
}

impl Batch<'_> {
    /// One command (5.3). `None` where the architecture has a command error.
    fn execute(&mut self, command: Option<Command>) -> Option<()> {
        match command? {
            Command::Mapd { device, itt } => self.tables.set_device(device, itt),
            Command::Mapc { icid, cpu } => match cpu {
                Some(cpu) => self.tables.set_collection(icid, Some(self.cpu(cpu)?)),
                None => self.tables.set_collection(icid, None),
            },
            Command::Mapti { device, event, intid, icid } => {
                let lpi = Lpi::new(intid)?;
                self.tables.set_event(device, event, Some(EventEntry { lpi, icid }))
            }
            Command::Movi { device, event, icid } => {
                let entry = self.tables.event(device, event)?;
                let from = self.target(entry.icid)?;
                let to = self.target(icid)?;
                self.tables.set_event(device, event, Some(EventEntry { icid, ..entry }))?;
                lock(self.core).move_lpi(from, to, entry.lpi);
                Some(())
            }
            Command::Int { device, event } => {
                let (lpi, cpu) = self.lpi(device, event)?;
                lock(self.core).set_lpi(cpu, lpi);
                Some(())
            }
            Command::Clear { device, event } => {
                let (lpi, cpu) = self.lpi(device, event)?;
                lock(self.core).clear_lpi(cpu, lpi);
                Some(())
            }
            Command::Discard { device, event } => {
                let entry = self.tables.event(device, event)?;
                if let Some(cpu) = self.target(entry.icid) {
                    lock(self.core).clear_lpi(cpu, entry.lpi);
                }
                self.tables.set_event(device, event, None)
            }
            Command::Inv { device, event } => {
                let entry = self.tables.event(device, event)?;
                lock(self.core).invalidate_lpi(entry.lpi);
                Some(())
            }
            Command::Invall { icid } => {
                self.target(icid)?;
                self.all_invalid = true;
                Some(())
            }
            Command::Movall { from, to } => {
                let (from, to) = (self.cpu(from)?, self.cpu(to)?);
                lock(self.core).move_all_lpis(from, to);
                Some(())
            }
            // Each command is complete before the next.
            Command::Sync => Some(()),
        }
    }

    fn finish(self) {
        if self.all_invalid {
            lock(self.core).invalidate_all_lpis();
        }
    }

    /// The PE of an RDbase.
    fn cpu(&self, processor_number: u64) -> Option<usize> {
        usize::try_from(processor_number).ok().filter(|&cpu| cpu < self.cpus)
    }

    /// The PE of a collection.
    fn target(&self, icid: u16) -> Option<usize> {
        self.tables.collection(icid).filter(|&cpu| cpu < self.cpus)
    }

    fn lpi(&self, device: DeviceId, event: u32) -> Option<(Lpi, usize)> {
        let entry = self.tables.event(device, event)?;
        Some((entry.lpi, self.target(entry.icid)?))
    }
}
