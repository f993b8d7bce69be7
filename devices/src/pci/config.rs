//! The configuration space of one function: registers with their masks, and the few that do something.
//!
//! PCI Express Base 7.5. Built by a [`ConfigBuilder`], then used from all threads. One lock holds the registers
//! and the state of messages; the gates that every DMA asks (bus master, power) are atomics beside it. The space
//! itself never calls its function: a write returns [`Effects`] and the host acts on them.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hw::{DmaTag, StreamId};

use super::bar::{Bar, Decoded};
use super::caps::{
    self, Command, Field, PortType, acs, ari, ats, bridge, express, header, msi, msix, page_request, pasid,
    pm,
};
use super::interrupts::{MsixLayout, MsixState};

/// Bytes of a configuration space.
const CONFIG_BYTES: usize = 4096;
const WORDS: usize = CONFIG_BYTES / 4;
/// Words of the header with BARs, or with bus numbers, windows and bridge control.
const ADDRESS_WORDS: RangeInclusive<usize> = 4..=15;
const FIRST_CAPABILITY: u16 = 0x40;
const FIRST_EXTENDED: u16 = 0x100;

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

/// What is let through at present, and under which requester ID. Atomic, so that no DMA takes the registers' lock.
#[derive(Debug)]
pub(super) struct Gates {
    open: AtomicU8,
    /// The requester ID; [`NO_REQUESTER`] before there is one.
    requester: AtomicU32,
    /// Counts the changes of ATS Control.Enable: odd while it is set.
    ats: AtomicU32,
    /// The port above, which also has to let requests through.
    upstream: OnceLock<Arc<Gates>>,
}

const NO_REQUESTER: u32 = u32::MAX;

impl Default for Gates {
    fn default() -> Self {
        Self {
            open: AtomicU8::new(0),
            requester: AtomicU32::new(NO_REQUESTER),
            ats: AtomicU32::new(0),
            upstream: OnceLock::new(),
        }
    }
}

impl Gates {
    const MEMORY: u8 = 1;
    const IO: u8 = 2;
    const BUS_MASTER: u8 = 4;
    const PASID: u8 = 8;
    const EXECUTE: u8 = 0x10;
    const PRIVILEGED: u8 = 0x20;

    pub(super) fn bus_master(&self) -> bool {
        self.open.load(Ordering::Acquire) & Self::BUS_MASTER != 0
            && self.upstream.get().is_none_or(|port| port.bus_master())
    }

    /// Whether a request of this kind may be made.
    pub(super) fn allow(&self, tag: &DmaTag) -> bool {
        let with = |claim: bool, bit: u8| if claim { bit } else { 0 };
        let needed = match tag.pasid {
            None => 0,
            Some(_) => {
                Self::PASID | with(tag.execute, Self::EXECUTE) | with(tag.privileged, Self::PRIVILEGED)
            }
        };
        self.bus_master() && self.open.load(Ordering::Acquire) & needed == needed
    }

    /// The requester ID, once the function is on a bus.
    pub(super) fn requester(&self) -> Option<StreamId> {
        let requester = self.requester.load(Ordering::Acquire);
        (requester != NO_REQUESTER).then_some(StreamId(requester))
    }

    /// Which enabling of ATS this is, since power-on; `None` while it is off.
    pub(super) fn ats(&self) -> Option<u32> {
        let changes = self.ats.load(Ordering::SeqCst);
        (changes & 1 != 0).then_some(changes)
    }

    fn set_ats(&self, is_on: bool) {
        if self.ats().is_some() != is_on {
            self.ats.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn set(&self, command: Command, pasid_control: u32, is_on: bool) {
        let bit = |claim: bool, bit: u8| if claim && is_on { bit } else { 0 };
        let gates = bit(command.memory_space_enable(), Self::MEMORY)
            | bit(command.io_space_enable(), Self::IO)
            | bit(command.bus_master_enable(), Self::BUS_MASTER)
            | bit(pasid_control & pasid::ENABLE != 0, Self::PASID)
            | bit(pasid_control & pasid::EXECUTE_ENABLE != 0, Self::EXECUTE)
            | bit(pasid_control & pasid::PRIVILEGED_ENABLE != 0, Self::PRIVILEGED);
        self.open.store(gates, Ordering::Release);
    }
}

/// Registers of 4096 bytes: a value, and what a write may do to it.
#[derive(Clone)]
struct Registers {
    value: Box<[u32]>,
    reset: Box<[u32]>,
    writable: Box<[u32]>,
    w1c: Box<[u32]>,
}

impl Registers {
    fn new() -> Self {
        let zeros = || vec![0; WORDS].into_boxed_slice();
        Self { value: zeros(), reset: zeros(), writable: zeros(), w1c: zeros() }
    }

    /// Declares a register; only while building, at offsets that the builder chose.
    fn declare(&mut self, base: u16, field: &Field, value: u32) {
        let at = usize::from(base + field.offset);
        let (word, shift) = (at / 4, 8 * (at % 4));
        let mask = width_mask(field.bytes);
        assert!(value & !mask == 0, "{}: value wider than the register", field.name);
        self.reset[word] = self.reset[word] & !(mask << shift) | value << shift;
        self.writable[word] |= field.writable << shift;
        self.w1c[word] |= field.w1c << shift;
    }

    fn get(&self, base: u16, field: &Field) -> u32 {
        let at = usize::from(base + field.offset);
        self.value[at / 4] >> (8 * (at % 4)) & width_mask(field.bytes)
    }

    /// Sets a register from the model's side, masks aside.
    fn put(&mut self, base: u16, field: &Field, value: u32) {
        let at = usize::from(base + field.offset);
        let shift = 8 * (at % 4);
        let mask = width_mask(field.bytes) << shift;
        let word = &mut self.value[at / 4];
        *word = *word & !mask | value << shift & mask;
    }
}

const fn width_mask(bytes: u16) -> u32 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
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
}

/// The configuration space of one function.
pub struct ConfigSpace {
    layout: Layout,
    state: Mutex<State>,
    gates: Arc<Gates>,
    waker: OnceLock<Arc<dyn PendingWaker>>,
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
        self.gates.requester.store(requester.0, Ordering::Release);
    }

    /// Puts the function below a port, whose gates from now on also count.
    pub(super) fn set_upstream(&self, port: &Self) {
        // A function is below one port for all its life; the first stays.
        let _ = self.gates.upstream.set(Arc::clone(&port.gates));
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
            self.register(base, &express::DEVICE_CONTROL_2) & express::ARI_FORWARDING_ENABLE != 0
        })
    }

    /// Command.Memory Space Enable in D0.
    pub(super) fn decodes_memory(&self) -> bool {
        self.gates.open.load(Ordering::Acquire) & Gates::MEMORY != 0
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
        self.layout.pasid.is_some_and(|base| self.register(base, &pasid::CONTROL) & pasid::ENABLE != 0)
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
        let get = |field| state.registers.get(base, field);
        let has_failed = get(&page_request::STATUS) & page_request::RESPONSE_FAILURE != 0;
        let credits = get(&page_request::CAPACITY).min(get(&page_request::ALLOCATION));
        let is_on = get(&page_request::CONTROL) & page_request::ENABLE != 0 && !has_failed;
        PageRequestControl { is_on, has_failed, credits }
    }

    /// Sets bits of Page Request Status; Stopped only while Enable is clear.
    pub fn set_page_request_status(&self, bits: u32) {
        let Some(base) = self.layout.page_request else { return };
        let mut state = self.lock();
        let is_enabled = state.registers.get(base, &page_request::CONTROL) & page_request::ENABLE != 0;
        let bits = if is_enabled { bits & !page_request::STOPPED } else { bits };
        let status = state.registers.get(base, &page_request::STATUS);
        state.registers.put(base, &page_request::STATUS, status | bits);
    }

    /// The present value of a register; `base` is the offset of its capability, 0 for the header.
    #[must_use]
    pub fn register(&self, base: u16, field: &Field) -> u32 {
        self.lock().registers.get(base, field)
    }

    /// Changes a register from the function's side, write masks aside: for status that software only reads.
    pub fn set_register(&self, base: u16, field: &Field, value: u32) {
        self.lock().registers.put(base, field, value);
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

        let holds = |base: u16, field: &Field| usize::from(base + field.offset) / 4 == word;
        // The value that a write leaves in the lanes of a register, and zero in lanes that are not written.
        let written = |base: u16, field: &Field| {
            (value & enables) >> (8 * (usize::from(base + field.offset) % 4)) & width_mask(field.bytes)
        };

        if let Some(base) = self.layout.express.filter(|&base| holds(base, &express::DEVICE_CONTROL)) {
            let may_reset = registers.get(base, &express::DEVICE_CAPABILITIES) & express::FLR_CAPABLE != 0;
            if may_reset && written(base, &express::DEVICE_CONTROL) & express::INITIATE_FLR != 0 {
                self.reset_state(state);
                effects.reset = true;
                effects.services_changed = true;
                effects.decode_changed = true;
                return false;
            }
        }
        if let Some(base) = self.layout.pm.filter(|&base| holds(base, &pm::PMCSR)) {
            let pmcsr = registers.get(base, &pm::PMCSR);
            if !matches!(pmcsr & 3, 0 | 3) {
                // D1 and D2 do not exist: the write completes and changes nothing (7.5.2.2).
                registers.value[word] = old;
            }
            self.update_gates(registers);
            effects.decode_changed = true;
        }
        if holds(0, &header::COMMAND) {
            self.update_gates(registers);
            effects.decode_changed = true;
        }
        if self.layout.pasid.is_some_and(|base| holds(base, &pasid::CONTROL)) {
            self.update_gates(registers);
        }
        if self.layout.ats.is_some_and(|base| holds(base, &ats::CONTROL)) {
            self.update_gates(registers);
            effects.services_changed = true;
        }
        if let Some(base) = self.layout.page_request.filter(|&base| holds(base, &page_request::CONTROL)) {
            let was_enabled = old >> (8 * (page_request::CONTROL.offset % 4)) & page_request::ENABLE != 0;
            let is_enabled = registers.get(base, &page_request::CONTROL) & page_request::ENABLE != 0;
            if is_enabled && !was_enabled {
                registers.put(base, &page_request::STATUS, page_request::PASID_REQUIRED);
            }
            effects.services_changed |= is_enabled != was_enabled;
            effects.page_requests_reset |=
                !is_enabled && written(base, &page_request::CONTROL) & page_request::RESET != 0;
        }
        if ADDRESS_WORDS.contains(&word) {
            effects.decode_changed = true;
        }
        if let Some(base) = self.layout.msi {
            let was = old >> 16 & 1;
            if holds(base, &msi::CONTROL) && was == 1 && registers.get(base, &msi::CONTROL) & 1 == 0 {
                registers.put(base, &msi::PENDING, 0);
            }
        }
        self.has_deliverable(state)
    }

    fn update_gates(&self, registers: &Registers) {
        let command = Command::from_bits(registers.get(0, &header::COMMAND) as u16);
        let is_on = self.layout.pm.is_none_or(|base| registers.get(base, &pm::PMCSR) & 3 == 0);
        let pasid_control = self.layout.pasid.map_or(0, |base| registers.get(base, &pasid::CONTROL));
        self.gates.set(command, pasid_control, is_on);
        let ats_control = self.layout.ats.map_or(0, |base| registers.get(base, &ats::CONTROL));
        self.gates.set_ats(ats_control & ats::ENABLE != 0);
    }

    fn reset_state(&self, state: &mut State) {
        let State { registers, msix } = state;
        registers.value.copy_from_slice(&registers.reset);
        msix.reset();
        self.update_gates(registers);
    }

    /// A conventional reset, of the whole machine or of a bus. The function resets itself besides.
    pub fn reset(&self) {
        self.reset_state(&mut self.lock());
    }

    /// Where each BAR answers now, by Command, power state and the addresses in the BARs.
    #[must_use]
    pub fn decoded_bars(&self) -> Vec<Decoded> {
        let state = self.lock();
        let gates = self.gates.open.load(Ordering::Acquire);
        let mut decoded = Vec::new();
        for (number, bar) in (0u8..).zip(&self.layout.bars) {
            let Some(bar) = bar else { continue };
            let gate = if bar.is_io() { Gates::IO } else { Gates::MEMORY };
            if gates & gate == 0 {
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

impl State {
    pub(super) fn get(&self, base: u16, field: &Field) -> u32 {
        self.registers.get(base, field)
    }

    pub(super) fn put(&mut self, base: u16, field: &Field, value: u32) {
        self.registers.put(base, field, value);
    }
}

/// Puts a configuration space together. Capabilities are chained in the order of the calls.
///
/// The calls panic on layouts that no function can have: they are constants of the models.
pub struct ConfigBuilder {
    registers: Registers,
    layout: Layout,
    next: u16,
    link: u16,
    next_extended: u16,
    last_extended: Option<u16>,
    msix_vectors: u16,
}

impl ConfigBuilder {
    fn new(identity: Identity) -> Self {
        let mut builder = Self::common(identity);
        for (field, value) in [
            (&header::HEADER_TYPE, 0),
            (&header::SUBSYSTEM_VENDOR_ID, u32::from(identity.subsystem_vendor)),
            (&header::SUBSYSTEM_ID, u32::from(identity.subsystem)),
        ] {
            builder.registers.declare(0, field, value);
        }
        builder
    }

    fn new_bridge(identity: Identity) -> Self {
        let mut builder = Self::common(identity);
        for (field, value) in [
            (&header::HEADER_TYPE, 1),
            (&bridge::PRIMARY_BUS, 0),
            (&bridge::SECONDARY_BUS, 0),
            (&bridge::SUBORDINATE_BUS, 0),
            (&bridge::IO_BASE, 0),
            (&bridge::IO_LIMIT, 0),
            (&bridge::SECONDARY_STATUS, 0),
            (&bridge::MEMORY_BASE, 0),
            (&bridge::MEMORY_LIMIT, 0),
            (&bridge::PREFETCHABLE_BASE, bridge::IS_64_BIT),
            (&bridge::PREFETCHABLE_LIMIT, bridge::IS_64_BIT),
            (&bridge::PREFETCHABLE_BASE_UPPER, 0),
            (&bridge::PREFETCHABLE_LIMIT_UPPER, 0),
            (&bridge::CONTROL, 0),
        ] {
            builder.registers.declare(0, field, value);
        }
        builder
    }

    /// What both types of header have.
    fn common(identity: Identity) -> Self {
        let mut registers = Registers::new();
        assert!(identity.class >> 24 == 0, "a class code has 24 bits");
        let class = identity.class.to_le_bytes();
        for (field, value) in [
            (&header::VENDOR_ID, u32::from(identity.vendor)),
            (&header::DEVICE_ID, u32::from(identity.device)),
            (&header::COMMAND, 0),
            (&header::STATUS, caps::STATUS_CAPABILITIES_LIST),
            (&header::REVISION_ID, u32::from(identity.revision)),
            (&header::CLASS_CODE[0], u32::from(class[0])),
            (&header::CLASS_CODE[1], u32::from(class[1])),
            (&header::CLASS_CODE[2], u32::from(class[2])),
            (&header::CACHE_LINE_SIZE, 0),
            (&header::CAPABILITIES_POINTER, 0),
            (&header::INTERRUPT_LINE, 0),
            (&header::INTERRUPT_PIN, 0),
        ] {
            registers.declare(0, field, value);
        }
        Self {
            registers,
            layout: Layout::default(),
            next: FIRST_CAPABILITY,
            link: header::CAPABILITIES_POINTER.offset,
            next_extended: FIRST_EXTENDED,
            last_extended: None,
            msix_vectors: 0,
        }
    }

    /// Declares that this function is one of several of its device (header type bit 7); for function 0.
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        self.registers.declare(0, &header::HEADER_TYPE, 0x80);
        self
    }

    /// Base address register `index`.
    #[must_use]
    pub fn bar(mut self, index: u8, bar: Bar) -> Self {
        let number = usize::from(index);
        let halves = if bar.is_64_bit() { 2 } else { 1 };
        assert!(number + halves <= 6, "BAR {index} does not exist");
        for half in 0..halves {
            let taken = self.layout.bars[number + half].is_some()
                || number > 0 && half == 0 && self.layout.bars[number - 1].is_some_and(|b| b.is_64_bit());
            assert!(!taken, "BAR {index} is taken");
            let flags = if half == 0 { bar.flags() } else { 0 };
            let writable = (bar.writable() >> (32 * half)) as u32;
            let field = Field { offset: 4 * (number + half) as u16, writable, ..header::BAR0 };
            self.registers.declare(header::BAR0.offset, &field, flags);
        }
        self.layout.bars[number] = Some(bar);
        self
    }

    /// Adds a capability of `len` bytes and returns its offset.
    fn capability(&mut self, id: u8, len: u16) -> u16 {
        let base = self.next;
        assert!(base + len <= FIRST_EXTENDED, "capabilities do not fit into 256 bytes");
        self.registers.declare(self.link, &Field { name: "Next Capability Pointer", ..POINTER }, base.into());
        self.registers.declare(base, &POINTER, id.into());
        self.link = base + 1;
        self.next = base + len.next_multiple_of(4);
        base
    }

    /// Adds an extended capability of `len` bytes and returns its offset.
    fn extended(&mut self, id: u16, version: u8, len: u16) -> u16 {
        let base = self.next_extended;
        assert!(usize::from(base + len) <= CONFIG_BYTES, "extended capabilities do not fit");
        if let Some(last) = self.last_extended {
            self.registers.reset[usize::from(last) / 4] |= u32::from(base) << 20;
        }
        self.registers.declare(base, &EXTENDED_HEADER, u32::from(id) | u32::from(version) << 16);
        self.last_extended = Some(base);
        self.next_extended = base + len.next_multiple_of(4);
        base
    }

    /// The PCI Express capability (7.5.3); endpoints are capable of function-level reset.
    #[must_use]
    pub fn express(mut self, kind: PortType) -> Self {
        let base = self.capability(express::ID, express::LEN);
        let is_port = kind == PortType::RootPort;
        let flr = if is_port { 0 } else { express::FLR_CAPABLE };
        let (forwarding, may_forward) = if is_port {
            (express::ARI_FORWARDING_SUPPORTED, express::ARI_FORWARDING_ENABLE)
        } else {
            (0, 0)
        };
        let control_2 =
            Field { writable: express::DEVICE_CONTROL_2.writable | may_forward, ..express::DEVICE_CONTROL_2 };
        let version = 2;
        for (field, value) in [
            (&express::CAPABILITIES, version | kind.encoding() << 4),
            (&express::DEVICE_CAPABILITIES, express::ROLE_BASED_ERRORS | flr),
            (&express::DEVICE_CONTROL, express::DEVICE_CONTROL_RESET),
            (&express::DEVICE_STATUS, 0),
            (&express::DEVICE_CAPABILITIES_2, express::DEVICE_CAPABILITIES_2_VALUE | forwarding),
            (&control_2, 0),
        ] {
            self.registers.declare(base, field, value);
        }
        if kind != PortType::RcIntegratedEndpoint {
            // 16 GT/s, one lane, port number 0; the link is up.
            self.registers.declare(base, &express::LINK_CAPABILITIES, 0x14);
            self.registers.declare(base, &express::LINK_CONTROL, 0);
            self.registers.declare(base, &express::LINK_STATUS, 0x14);
        }
        if is_port {
            for field in &express::ROOT {
                self.registers.declare(base, field, 0);
            }
        }
        self.layout.express = Some(base);
        self
    }

    /// The power management capability (7.5.2): D0 and D3hot.
    #[must_use]
    pub fn power_management(mut self) -> Self {
        let base = self.capability(pm::ID, pm::LEN);
        self.registers.declare(base, &pm::PMC, pm::PMC_VALUE);
        self.registers.declare(base, &pm::PMCSR, pm::NO_SOFT_RESET);
        self.layout.pm = Some(base);
        self
    }

    /// MSI (7.7.1) with `vectors` messages: 1, 2, 4, 8, 16 or 32. 64-bit addresses, per-vector masking.
    #[must_use]
    pub fn msi(mut self, vectors: u8) -> Self {
        assert!(vectors.is_power_of_two() && vectors <= 32, "MSI has 1 to 32 vectors, a power of two");
        let base = self.capability(msi::ID, msi::LEN);
        let all = u32::MAX >> (32 - u32::from(vectors));
        self.registers.declare(base, &msi::CONTROL, msi::CONTROL_FIXED | vectors.trailing_zeros() << 1);
        self.registers.declare(base, &msi::ADDRESS, 0);
        self.registers.declare(base, &msi::UPPER_ADDRESS, 0);
        self.registers.declare(base, &msi::DATA, 0);
        self.registers.declare(base, &Field { writable: all, ..msi::MASK }, 0);
        self.registers.declare(base, &msi::PENDING, 0);
        self.layout.msi = Some(base);
        self
    }

    /// MSI-X (7.7.2), its table and pending bits inside a BAR declared before.
    #[must_use]
    pub fn msix(mut self, place: MsixLayout) -> Self {
        place.check(self.layout.bars.get(usize::from(place.bar)).and_then(Option::as_ref));
        let base = self.capability(msix::ID, msix::LEN);
        self.registers.declare(base, &msix::CONTROL, u32::from(place.vectors - 1));
        self.registers.declare(base, &msix::TABLE, place.table_offset | u32::from(place.bar));
        self.registers.declare(base, &msix::PBA, place.pba_offset | u32::from(place.bar));
        self.layout.msix = Some((base, place));
        self.msix_vectors = place.vectors;
        self
    }

    /// Adds a capability of the caller's own, `len` bytes in all, and returns its offset. `fields` are its registers
    /// behind the two header bytes, with their reset values.
    pub fn own_capability(&mut self, id: u8, len: u16, fields: &[(Field, u32)]) -> u16 {
        let base = self.capability(id, len);
        for (field, value) in fields {
            self.registers.declare(base, field, *value);
        }
        base
    }

    /// Adds an extended capability of the caller's own; as [`Self::own_capability`], behind four header bytes.
    pub fn own_extended_capability(
        &mut self,
        id: u16,
        version: u8,
        len: u16,
        fields: &[(Field, u32)],
    ) -> u16 {
        let base = self.extended(id, version, len);
        for (field, value) in fields {
            self.registers.declare(base, field, *value);
        }
        base
    }

    /// PASID (7.8.9): `width` bits, 1 to 20; whether Execute and Privileged requests may be made.
    #[must_use]
    pub fn pasid(mut self, width: u8, execute: bool, privileged: bool) -> Self {
        assert!((1..=20).contains(&width), "a PASID has 1 to 20 bits");
        let base = self.extended(pasid::ID, 1, pasid::LEN);
        let offered = u32::from(execute) << 1 | u32::from(privileged) << 2;
        self.registers.declare(base, &pasid::CAPABILITY, offered | u32::from(width) << 8);
        self.registers.declare(base, &Field { writable: offered | 1, ..pasid::CONTROL }, 0);
        self.layout.pasid = Some(base);
        self
    }

    /// Address translation services (10.5.1), for a function with an ATC.
    #[must_use]
    pub fn ats(mut self) -> Self {
        let base = self.extended(ats::ID, 1, ats::LEN);
        self.registers.declare(base, &ats::CAPABILITY, ats::CAPABILITY_VALUE);
        self.registers.declare(base, &ats::CONTROL, 0);
        self.layout.ats = Some(base);
        self
    }

    /// Page requests (10.5.2), `capacity` of them without answer at most. Responses have to carry the PASID.
    #[must_use]
    pub fn page_requests(mut self, capacity: u32) -> Self {
        let base = self.extended(page_request::ID, 1, page_request::LEN);
        let status = page_request::STOPPED | page_request::PASID_REQUIRED;
        self.registers.declare(base, &page_request::CONTROL, 0);
        self.registers.declare(base, &page_request::STATUS, status);
        self.registers.declare(base, &page_request::CAPACITY, capacity);
        self.registers.declare(base, &page_request::ALLOCATION, 0);
        self.layout.page_request = Some(base);
        self
    }

    /// Access Control Services (7.7.11), offering the `services` bits.
    #[must_use]
    pub fn acs(mut self, services: u16) -> Self {
        let services = u32::from(services) & acs::CONTROL.writable;
        let base = self.extended(acs::ID, 1, acs::LEN);
        self.registers.declare(base, &acs::CAPABILITY, services);
        self.registers.declare(base, &Field { writable: services, ..acs::CONTROL }, 0);
        self
    }

    /// Alternative routing-ID interpretation (7.8.8), with the number of the device's next function, 0 for none.
    #[must_use]
    pub fn ari(mut self, next_function: u8) -> Self {
        let base = self.extended(ari::ID, 1, ari::LEN);
        self.registers.declare(base, &ari::CAPABILITY, u32::from(next_function) << 8);
        self.registers.declare(base, &ari::CONTROL, 0);
        self
    }

    /// The finished space, at its reset values.
    #[must_use]
    pub fn build(self) -> ConfigSpace {
        let mut registers = self.registers;
        if self.link == header::CAPABILITIES_POINTER.offset {
            registers.declare(0, &header::STATUS, 0);
        }
        registers.value.copy_from_slice(&registers.reset);
        ConfigSpace {
            layout: self.layout,
            state: Mutex::new(State { registers, msix: MsixState::new(self.msix_vectors) }),
            gates: Arc::default(),
            waker: OnceLock::new(),
        }
    }
}

const POINTER: Field = Field { name: "Capability ID", offset: 0, bytes: 1, writable: 0, w1c: 0 };
const EXTENDED_HEADER: Field =
    Field { name: "Extended Capability Header", offset: 0, bytes: 4, writable: 0, w1c: 0 };
