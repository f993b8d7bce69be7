//! The PCIe function in front of a queue manager and its engine, the same for every kind of accelerator: configuration space,
//! windows onto registers and doorbells, messages, translation cache, reset and saved state.

use std::io;
use std::sync::{Arc, Weak};

use hw::ats::AtsPort;
use hw::fault::{FaultEvent, FaultPoint};
use hw::mmio::{read_words, write_words};
use hw::{
    BusError, Clock, DmaPort, Faults, FaultyPort, GuestErrors, Latencies, LifeCycle, Registers, RestoreError,
    SavedState, Scheduler, StreamId, Trace,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::msi::{Msi, SavedMessages, VECTORS};
use super::qm::{DOORBELL_BAR_BYTES, Engine, Limits, Qm, QmState, Totals, Wiring};
use super::registers;
use crate::pci::caps::PortType;
use crate::pci::{
    Atc, AtcState, AtcTotals, AtcWiring, Bar, BusMasterPort, ConfigSpace, ConfigState, Effects, Identity,
    PciFunction, PendingWaker,
};

/// An accelerator of any kind, as a machine holds it.
pub trait Accelerator: PciFunction + LifeCycle {
    /// What it has done since it was made.
    fn totals(&self) -> Totals;

    /// How long its commands have taken.
    fn latencies(&self) -> &Latencies;

    /// What the translation cache has done so far; nothing, if there is none.
    fn atc_totals(&self) -> AtcTotals;

    /// Something goes wrong by itself. Says whether it can: there is no such message.
    fn go_wrong(&self, event: FaultEvent) -> bool;

    /// The fault plan mentions these points from now on, and did not before ([`Faults::changed`]).
    fn fault_points_added(&self, points: &[FaultPoint]);

    /// Ends all workers; see [`Qm::shut_down`].
    fn shut_down(&self);
}

/// The engine's registers in BAR2; the rest is the queue manager's.
const ENGINE_REGISTERS: std::ops::Range<u64> = 0x30_1000..BAR2_BYTES;
const BAR2_BYTES: u64 = 4 << 20;

/// What the machine gives the accelerator.
#[derive(Clone)]
pub struct FunctionWiring {
    /// Its requester ID.
    pub stream: StreamId,
    /// Its way to memory and to message doorbells.
    pub dma: Arc<dyn DmaPort>,
    /// What it does about pages that are not there.
    pub translation: Translation,
    /// Guest time.
    pub clock: Arc<dyn Clock>,
    /// Alarms in guest time.
    pub alarms: Arc<dyn hw::Alarms>,
    /// What runs its workers: one for control and one for tasks, started at once, and further ones for tasks, started when needed.
    pub scheduler: Arc<dyn Scheduler>,
    /// How many threads, among others.
    pub limits: Limits,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// Who takes what happens for a timeline.
    pub trace: Trace,
    /// Where mistakes of software are counted.
    pub errors: GuestErrors,
}

/// How the accelerator comes to addresses, and to pages that are not there.
#[derive(Clone)]
pub enum Translation {
    /// It leaves both to the IOMMU: accesses stall.
    Untranslated,
    /// It caches translations of this agent; what is not there is left to the IOMMU.
    Ats(Arc<dyn AtsPort>),
    /// It caches translations of this agent, and requests pages.
    Pri(Arc<dyn AtsPort>),
}

/// Page requests without answer: one for each queue that the board gives a thread.
const PAGE_REQUESTS: u32 = 256;

/// The function of an accelerator with this engine.
pub struct Function<E: Engine> {
    config: Arc<ConfigSpace>,
    atc: Option<Arc<Atc>>,
    qm: Arc<Qm<E>>,
    messages: Arc<Msi>,
}

/// Tells the queue manager that masked messages may go.
struct Unmasked<E: Engine>(Weak<Qm<E>>);

impl<E: Engine> PendingWaker for Unmasked<E> {
    fn messages_ready(&self) {
        if let Some(qm) = self.0.upgrade() {
            qm.messages_unmasked();
        }
    }
}

impl<E: Engine> Function<E> {
    /// The accelerator after power-on, its first workers started.
    ///
    /// # Errors
    /// If there are no threads for them.
    pub fn new(wiring: FunctionWiring) -> io::Result<Arc<Self>> {
        let FunctionWiring {
            stream,
            dma,
            translation,
            clock,
            alarms,
            scheduler,
            limits,
            faults,
            trace,
            errors,
        } = wiring;
        let identity = Identity {
            vendor: 0x19e5,
            device: E::DEVICE_ID,
            revision: 0x30,
            class: 0x12_0000,
            subsystem_vendor: 0x19e5,
            subsystem: 0,
        };
        let config = ConfigSpace::builder(identity)
            .errors(errors.clone())
            .bar(2, Bar::memory64(BAR2_BYTES))
            .bar(4, Bar::memory64(DOORBELL_BAR_BYTES))
            .express(PortType::RcIntegratedEndpoint)
            .power_management()
            .msi(VECTORS as u8)
            .pasid(16, false, false);
        let (config, agent) = match translation {
            Translation::Untranslated => (config, None),
            Translation::Ats(agent) => (config.ats(), Some(agent)),
            Translation::Pri(agent) => (config.ats().page_requests(PAGE_REQUESTS), Some(agent)),
        };
        let config = Arc::new(config.build());
        // Messages are never translated requests (PCIe Base, 10.1).
        let untranslated = Arc::new(BusMasterPort::new(&config, Arc::clone(&dma)));
        let messages = Msi::new(&config, untranslated, &faults);
        let atc = agent.map(|agent| {
            Atc::new(AtcWiring {
                stream,
                config: Arc::clone(&config),
                port: Arc::clone(&dma),
                agent,
                clock: Arc::clone(&clock),
                alarms: Arc::clone(&alarms),
                scheduler: Arc::clone(&scheduler),
                faults: faults.clone(),
                trace: trace.clone(),
                errors: errors.clone(),
            })
        });
        let dma = FaultyPort::before(atc.clone().map_or(dma, |atc| atc), &faults);
        let port: Arc<dyn DmaPort> = Arc::new(BusMasterPort::new(&config, dma));
        let wiring = Wiring {
            stream,
            dma: port,
            messages: messages.clone(),
            clock,
            alarms,
            scheduler,
            limits,
            faults,
            trace,
            errors,
        };
        let qm = Qm::new(E::new(), wiring);
        config.set_pending_waker(Arc::new(Unmasked(Arc::downgrade(&qm))));
        qm.start_first()?;
        Ok(Arc::new(Self { config, atc, qm, messages }))
    }

    /// The queue manager, for owners that give it no threads and step it.
    #[must_use]
    pub const fn qm(&self) -> &Arc<Qm<E>> {
        &self.qm
    }
}

impl<E: Engine> Accelerator for Function<E> {
    fn totals(&self) -> Totals {
        self.qm.totals()
    }

    fn go_wrong(&self, event: FaultEvent) -> bool {
        match event {
            FaultEvent::SpuriousMessage { vector } if vector >= VECTORS => return false,
            FaultEvent::SpuriousMessage { vector } => self.messages.send_later(vector),
            FaultEvent::AxiReadError => self.qm.axi_error(false),
            FaultEvent::AxiWriteError => self.qm.axi_error(true),
        }
        true
    }

    fn fault_points_added(&self, points: &[FaultPoint]) {
        if let Some(atc) = &self.atc {
            atc.fault_points_added(points);
        }
    }

    fn latencies(&self) -> &Latencies {
        self.qm.latencies()
    }

    fn atc_totals(&self) -> AtcTotals {
        self.atc.as_ref().map_or_else(AtcTotals::default, |atc| atc.totals())
    }

    fn shut_down(&self) {
        self.qm.shut_down();
    }
}

impl<E: Engine> PciFunction for Function<E> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&self, offset: u64, data: &[u8]) -> Effects {
        let effects = self.config.write(offset, data);
        if let Some(atc) = &self.atc {
            atc.config_written(&effects);
        }
        effects
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        match bar {
            2 if ENGINE_REGISTERS.contains(&offset) => {
                read_words(offset, data, |at| Ok(registers::read_word(self.qm.engine(), at)))
            }
            2 => self.qm.read(offset, data),
            4 => {
                data.fill(0);
                Ok(())
            }
            _ => Err(BusError::NoRegister(offset)),
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), BusError> {
        match bar {
            2 if ENGINE_REGISTERS.contains(&offset) => write_words(offset, data, |at, word| {
                if registers::write_word(self.qm.engine(), at, word) {
                    self.qm.engine_error();
                }
                Ok(())
            }),
            2 => self.qm.write(offset, data),
            4 => self.qm.write_doorbell(offset, data),
            _ => Err(BusError::NoRegister(offset)),
        }
    }

    fn function_reset(&self) {
        // First what makes accesses, messages and translations; it has ended when this returns.
        self.qm.reset();
        self.messages.reset();
        registers::reset(self.qm.engine());
        if let Some(atc) = &self.atc {
            atc.reset();
        }
    }
}

/// The state of the accelerator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionState {
    config: ConfigState,
    /// Of the engine; those that do not have their value of power-on.
    registers: Registers,
    qm: QmState,
    messages: SavedMessages,
    atc: Option<AtcState>,
}

impl SavedState for FunctionState {
    const VERSION: u32 = 1;
}

impl<E: Engine> LifeCycle for Function<E> {
    fn reset(&self) {
        self.config.reset();
        self.function_reset();
    }

    fn save(&self) -> Value {
        let state = FunctionState {
            config: self.config.save(),
            registers: registers::save(self.qm.engine()),
            qm: self.qm.saved(),
            messages: self.messages.save(),
            atc: self.atc.as_ref().map(|atc| atc.saved()),
        };
        state.to_value()
    }

    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let FunctionState { config, registers: saved, qm, messages, atc } = FunctionState::from_value(state)?;
        self.config.restore(config).map_err(|error| error.within("config"))?;
        registers::restore(self.qm.engine(), saved).map_err(|error| error.within("registers"))?;
        match (&self.atc, atc) {
            (Some(atc), Some(state)) => atc.take_up(state).map_err(|error| error.within("atc"))?,
            (None, None) => {}
            _ => return Err(RestoreError::value("atc", "only one of the two has a translation cache")),
        }
        self.messages.restore(messages).map_err(|error| error.within("messages"))?;
        self.qm.take_up(qm).map_err(|error| error.within("qm"))
    }

    fn quiesce(&self) {
        self.qm.quiesce();
    }

    fn resume(&self) {
        self.qm.resume();
    }
}
