//! The configuration space of one function: registers with their masks, and the few that do something.
//!
//! PCI Express Base 7.5. Built by a [`ConfigBuilder`] (`builder`), then used from all threads. One lock holds the registers
//! (`registers`) and the state of messages, which are saved and restored with it (`saved`); what every DMA asks (bus master, power) are atomics beside it (`gates`). The space
//! itself never calls its function: a write returns [`Effects`] and the host acts on them.

mod builder;
mod gates;
mod registers;
mod saved;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hw::regmap::RegisterMap;
use hw::{DmaTag, GuestErrors, StreamId};

pub use self::builder::ConfigBuilder;
pub(super) use self::gates::Gates;
use self::registers::{Registers, WORDS, mask_of, place};
pub use self::saved::ConfigState;
use super::bar::{Bar, Decoded};
use super::caps::{Command, ats, express, header, msi, page_request, pasid, pm};
use super::interrupts::{MsixLayout, MsixState};

/// Words of the header with BARs, or with bus numbers, windows and bridge control.
const ADDRESS_WORDS: RangeInclusive<usize> = 4..=15;

/// Who a function is (7.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, sub-class, programming interface: 24 bits.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// What a configuration write asks of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Effects {
    /// BARs may answer at other addresses than before.
    pub decode_changed: bool,
    /// A function-level reset has begun: the registers are at their reset values, the function has to follow.
    pub reset: bool,
    /// ATS or page requests may have been enabled or disabled: the function's translation cache has to follow.
    pub services_changed: bool,
    /// Page requests without answer are to be forgotten (10.5.2.2, Reset).
    pub page_requests_reset: bool,
}

/// Told when a message that was held back by a mask can go: wakes the thread that will call
/// [`ConfigSpace::deliver_pending`]. Called on vCPU threads.
pub trait PendingWaker: Send + Sync {
    /// A pending message can be delivered.
    fn messages_ready(&self);
}

/// Where the capabilities are that do something.
#[derive(Clone, Copy, Debug, Default)]
struct Layout {
    bars: [Option<Bar>; 6],
    express: Option<u16>,
    pm: Option<u16>,
    msi: Option<u16>,
    msix: Option<(u16, MsixLayout)>,
    pasid: Option<u16>,
    ats: Option<u16>,
    page_request: Option<u16>,
}

/// What software says about page requests (10.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequestControl {
    /// Requests may be sent: Enable is set, Response Failure is not.
    pub is_on: bool,
    /// A request has failed: responses are ignored.
    pub has_failed: bool,
    /// Most requests without answer.
    pub credits: u32,
}

pub(super) struct State {
    registers: Registers,
    pub(super) msix: MsixState,
    /// Vectors that were held back and whose messages are on their way: pending no more, but not sent either.
    pub(super) leaving: Vec<u16>,
}

/// The configuration space of one function.
pub struct ConfigSpace {
    layout: Layout,
    state: Mutex<State>,
    gates: Arc<Gates>,
    waker: OnceLock<Arc<dyn PendingWaker>>,
    errors: GuestErrors,
}

impl ConfigSpace {
    /// Starts a type 0 configuration space.
    #[must_use]
    pub fn builder(identity: Identity) -> ConfigBuilder {
        ConfigBuilder::new(identity)
    }

    /// Starts a type 1 configuration space, of a bridge. It has no subsystem IDs.
    pub(super) fn bridge_builder(identity: Identity) -> ConfigBuilder {
        ConfigBuilder::new_bridge(identity)
    }

    /// Where mistakes of software with the function are counted.
    pub(crate) const fn errors(&self) -> &GuestErrors {
        &self.errors
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names whom to wake for messages that were held back. Only the first call counts.
    pub fn set_pending_waker(&self, waker: Arc<dyn PendingWaker>) {
        // A function has one worker; the first stays.
        let _ = self.waker.set(waker);
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.messages_ready();
        }
    }

    /// Makes the function take this requester ID, as it does from each configuration write (2.2.6.2).
    pub(super) fn capture_requester(&self, requester: StreamId) {
        self.gates.set_requester(Some(requester));
    }

    /// The function has not captured a requester ID, as after a reset of its bus.
    pub(super) fn forget_requester(&self) {
        self.gates.set_requester(None);
    }

    /// Puts the function below a port, whose gates from now on also count.
    pub(super) fn set_upstream(&self, port: &Self) {
        self.gates.set_upstream(&port.gates);
    }

    /// The requester ID that the function uses at present: by the place it was attached to or, below a port, by the
    /// bus number that the guest has given.
    #[must_use]
    pub fn requester_id(&self) -> Option<StreamId> {
        self.gates.requester()
    }

    /// Whether Device Control 2 of a port lets it forward to device numbers other than 0 (7.5.3.16).
    pub(super) fn forwards_ari(&self) -> bool {
        self.layout.express.is_some_and(|base| {
            self.register(base, express::DEVICE_CONTROL_2) & express::ARI_FORWARDING_ENABLE != 0
        })
    }

    /// Command.Memory Space Enable in D0.
    pub(super) fn decodes_memory(&self) -> bool {
        self.gates.decodes(false)
    }

    pub(super) fn gates(&self) -> &Arc<Gates> {
        &self.gates
    }

    /// Command.Bus Master Enable, and power state D0: whether the function may issue requests.
    #[must_use]
    pub fn is_bus_master(&self) -> bool {
        self.gates.bus_master()
    }

    /// Whether the function may make a request with this tag: as a bus master, and as PASID Control says.
    #[must_use]
    pub fn may_request(&self, tag: &DmaTag) -> bool {
        self.gates.allow(tag)
    }

    /// PASID Control.PASID Enable (7.8.9.3).
    #[must_use]
    pub fn is_pasid_enabled(&self) -> bool {
        self.layout.pasid.is_some_and(|base| self.register(base, pasid::CONTROL) & pasid::ENABLE != 0)
    }

    /// ATS Control.Enable (10.5.1.3).
    #[must_use]
    pub fn is_ats_enabled(&self) -> bool {
        self.gates.ats().is_some()
    }

    /// What software says about page requests; off, if there is no such capability.
    #[must_use]
    pub fn page_request_control(&self) -> PageRequestControl {
        let Some(base) = self.layout.page_request else {
            return PageRequestControl { is_on: false, has_failed: false, credits: 0 };
        };
        let state = self.lock();
        let get = |reg| state.registers.get(base, reg);
        let has_failed = get(page_request::STATUS) & page_request::RESPONSE_FAILURE != 0;
        let credits = get(page_request::CAPACITY).min(get(page_request::ALLOCATION));
        let is_on = get(page_request::CONTROL) & page_request::ENABLE != 0 && !has_failed;
        PageRequestControl { is_on, has_failed, credits }
    }

    /// Most page requests that the function can have without answer, whatever software allows; 0 without the interface.
    pub(in crate::pci) fn page_request_capacity(&self) -> u32 {
        self.layout.page_request.map_or(0, |base| self.register(base, page_request::CAPACITY))
    }

    /// Sets bits of Page Request Status; Stopped only while Enable is clear.
    pub fn set_page_request_status(&self, bits: u32) {
        let Some(base) = self.layout.page_request else { return };
        let mut state = self.lock();
        let is_enabled = state.registers.get(base, page_request::CONTROL) & page_request::ENABLE != 0;
        let bits = if is_enabled { bits & !page_request::STOPPED } else { bits };
        let status = state.registers.get(base, page_request::STATUS);
        state.registers.put(base, page_request::STATUS, status | bits);
    }

    /// The present value of a register; `base` is the offset of its capability, 0 for the header.
    #[must_use]
    pub fn register<R: RegisterMap>(&self, base: u16, reg: R) -> u32 {
        self.lock().registers.get(base, reg)
    }

    /// Changes a register from the function's side, write masks aside: for status that software only reads.
    pub fn set_register<R: RegisterMap>(&self, base: u16, reg: R, value: u32) {
        self.lock().registers.put(base, reg, value);
    }

    /// The MSI-X table's place, if there is one.
    #[must_use]
    pub fn msix_layout(&self) -> Option<&MsixLayout> {
        self.layout.msix.as_ref().map(|(_, layout)| layout)
    }

    /// Reads `data.len()` bytes at `offset`, of any alignment; zeros beyond the space.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.lock();
        for (at, byte) in (offset..).zip(data) {
            let word = usize::try_from(at / 4).ok().and_then(|word| state.registers.value.get(word));
            *byte = word.map_or(0, |word| word.to_le_bytes()[(at % 4) as usize]);
        }
    }

    /// Writes `data` at `offset`, of any alignment; bytes beyond the space are dropped.
    pub fn write(&self, offset: u64, data: &[u8]) -> Effects {
        let mut effects = Effects::default();
        let mut messages = false;
        {
            let mut state = self.lock();
            let mut rest = data;
            let mut at = offset;
            while !rest.is_empty() {
                let lane = (at % 4) as usize;
                let (now, later) = rest.split_at(rest.len().min(4 - lane));
                let mut bytes = [0; 4];
                let mut enables = [0; 4];
                bytes[lane..lane + now.len()].copy_from_slice(now);
                enables[lane..lane + now.len()].fill(0xff);
                if let Some(word) = usize::try_from(at / 4).ok().filter(|&word| word < WORDS) {
                    let (value, enables) = (u32::from_le_bytes(bytes), u32::from_le_bytes(enables));
                    messages |= self.write_word(&mut state, word, value, enables, &mut effects);
                }
                rest = later;
                at = at.saturating_add(now.len() as u64);
            }
        }
        if messages {
            self.wake();
        }
        effects
    }

    /// Writes the enabled bytes of one word; says whether held-back messages may go now.
    fn write_word(
        &self,
        state: &mut State,
        word: usize,
        value: u32,
        enables: u32,
        effects: &mut Effects,
    ) -> bool {
        let registers = &mut state.registers;
        let old = registers.value[word];
        let writable = registers.writable[word] & enables;
        let cleared = value & registers.w1c[word] & enables;
        registers.value[word] = (old & !writable | value & writable) & !cleared;

        // Zero in lanes that are not written.
        let value = value & enables;

        if let Some(base) = self.layout.express.filter(|&base| holds(word, base, express::DEVICE_CONTROL)) {
            let may_reset = registers.get(base, express::DEVICE_CAPABILITIES) & express::FLR_CAPABLE != 0;
            if may_reset && lanes(value, base, express::DEVICE_CONTROL) & express::INITIATE_FLR != 0 {
                self.reset_state(state);
                effects.reset = true;
                effects.services_changed = true;
                effects.decode_changed = true;
                return false;
            }
        }
        if let Some(base) = self.layout.pm.filter(|&base| holds(word, base, pm::PMCSR)) {
            let pmcsr = registers.get(base, pm::PMCSR);
            if !matches!(pmcsr & 3, 0 | 3) {
                // D1 and D2 do not exist: the write completes and changes nothing (7.5.2.2).
                registers.value[word] = old;
            }
            self.update_gates(registers);
            effects.decode_changed = true;
        }
        if holds(word, 0, header::COMMAND) {
            self.update_gates(registers);
            effects.decode_changed = true;
        }
        if self.layout.pasid.is_some_and(|base| holds(word, base, pasid::CONTROL)) {
            self.update_gates(registers);
        }
        if self.layout.ats.is_some_and(|base| holds(word, base, ats::CONTROL)) {
            self.update_gates(registers);
            effects.services_changed = true;
        }
        if let Some(base) = self.layout.page_request.filter(|&base| holds(word, base, page_request::CONTROL))
        {
            let was_enabled = lanes(old, base, page_request::CONTROL) & page_request::ENABLE != 0;
            let is_enabled = registers.get(base, page_request::CONTROL) & page_request::ENABLE != 0;
            if is_enabled && !was_enabled {
                registers.put(base, page_request::STATUS, page_request::PASID_REQUIRED);
            }
            effects.services_changed |= is_enabled != was_enabled;
            effects.page_requests_reset |=
                !is_enabled && lanes(value, base, page_request::CONTROL) & page_request::RESET != 0;
        }
        if ADDRESS_WORDS.contains(&word) {
            effects.decode_changed = true;
        }
        if let Some(base) = self.layout.msi
            && holds(word, base, msi::CONTROL)
            && lanes(old, base, msi::CONTROL) & 1 == 1
            && registers.get(base, msi::CONTROL) & 1 == 0
        {
            registers.put(base, msi::PENDING, 0);
        }
        self.has_deliverable(state)
    }

    fn update_gates(&self, registers: &Registers) {
        let command = Command::from_bits(registers.get(0, header::COMMAND) as u16);
        let is_on = self.layout.pm.is_none_or(|base| registers.get(base, pm::PMCSR) & 3 == 0);
        let pasid_control = self.layout.pasid.map_or(0, |base| registers.get(base, pasid::CONTROL));
        self.gates.set(command, pasid_control, is_on);
        let ats_control = self.layout.ats.map_or(0, |base| registers.get(base, ats::CONTROL));
        self.gates.set_ats(ats_control & ats::ENABLE != 0);
    }

    fn reset_state(&self, state: &mut State) {
        let State { registers, msix, leaving } = state;
        registers.value.copy_from_slice(&registers.reset);
        msix.reset();
        leaving.clear();
        self.update_gates(registers);
    }

    /// A conventional reset, of the whole machine or of a bus, which does what a function-level one does. The function resets
    /// itself besides.
    pub fn reset(&self) {
        self.reset_state(&mut self.lock());
    }

    /// Where each BAR answers now, by Command, power state and the addresses in the BARs.
    #[must_use]
    pub fn decoded_bars(&self) -> Vec<Decoded> {
        let state = self.lock();
        let mut decoded = Vec::new();
        for (number, bar) in (0u8..).zip(&self.layout.bars) {
            let Some(bar) = bar else { continue };
            if !self.gates.decodes(bar.is_io()) {
                continue;
            }
            let at = 4 + usize::from(number);
            let mut base = u64::from(state.registers.value[at]);
            if bar.is_64_bit() {
                base |= u64::from(state.registers.value[at + 1]) << 32;
            }
            decoded.push(Decoded {
                bar: number,
                is_io: bar.is_io(),
                base: base & bar.writable(),
                size: bar.size(),
            });
        }
        decoded
    }

    pub(super) fn msi_base(&self) -> Option<u16> {
        self.layout.msi
    }

    pub(super) fn msix_base(&self) -> Option<(u16, MsixLayout)> {
        self.layout.msix
    }
}

/// Whether a word has a register in it.
fn holds<R: RegisterMap>(word: usize, base: u16, reg: R) -> bool {
    usize::from(place(base, reg)) / 4 == word
}

/// The lanes of a register in the word that it is in.
fn lanes<R: RegisterMap>(word: u32, base: u16, reg: R) -> u32 {
    word >> (8 * (place(base, reg) % 4)) & mask_of(reg.info())
}

impl State {
    pub(super) fn get<R: RegisterMap>(&self, base: u16, reg: R) -> u32 {
        self.registers.get(base, reg)
    }

    pub(super) fn put<R: RegisterMap>(&mut self, base: u16, reg: R, value: u32) {
        self.registers.put(base, reg, value);
    }
}
