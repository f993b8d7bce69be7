//! MSI and MSI-X: a function says "vector n", a 4-byte write without PASID leaves through its DMA port.
//!
//! PCI Express Base 6.1.4, 7.7.1, 7.7.2. A masked vector sets its pending bit; when the guest unmasks it, the
//! function's [`PendingWaker`](super::PendingWaker) is called and its worker sends what is due: a vCPU thread makes
//! no DMA. Disabling MSI discards what is pending, and so does a missing Bus Master Enable.

use std::collections::BTreeMap;

use hw::mmio::{put_value, value_of};
use hw::saved::{RestoreError, hex, index_of};
use hw::{BusError, DmaFault, DmaPort, DmaTag, Iova, Requester};
use serde::{Deserialize, Serialize};

use super::bar::Bar;
use super::caps::{msi, msix};
use super::config::{ConfigSpace, State};

/// Where a function has its MSI-X table and pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR number.
    pub bar: u8,
    /// Offset of the table in the BAR: 16 bytes for each vector.
    pub table_offset: u32,
    /// Offset of the pending bits in the BAR: 8 bytes for each 64 vectors.
    pub pba_offset: u32,
}

/// Bytes of a table entry: address, upper address, data, vector control.
const ENTRY_BYTES: u64 = 16;
/// Vector control: the vector is masked (7.7.2.8).
const VECTOR_MASKED: u32 = 1;

impl MsixLayout {
    pub(super) fn check(&self, bar: Option<&Bar>) {
        let size = bar.expect("the MSI-X table needs a BAR, declared before").size();
        assert!((1..=2048).contains(&self.vectors), "MSI-X has 1 to 2048 vectors");
        for (offset, bytes) in [(self.table_offset, self.table_bytes()), (self.pba_offset, self.pba_bytes())]
        {
            assert!(
                offset.is_multiple_of(8) && u64::from(offset) + bytes <= size,
                "MSI-X does not fit its BAR"
            );
        }
    }

    fn table_bytes(&self) -> u64 {
        u64::from(self.vectors) * ENTRY_BYTES
    }

    fn pba_bytes(&self) -> u64 {
        u64::from(self.vectors).div_ceil(64) * 8
    }

    /// Whether an access at `offset` of BAR `bar` is to the table or the pending bits.
    pub(super) fn covers(&self, bar: u8, offset: u64) -> bool {
        bar == self.bar && (self.table_at(offset).is_some() || self.pba_at(offset).is_some())
    }

    fn table_at(&self, offset: u64) -> Option<u64> {
        offset.checked_sub(self.table_offset.into()).filter(|&at| at < self.table_bytes())
    }

    fn pba_at(&self, offset: u64) -> Option<u64> {
        offset.checked_sub(self.pba_offset.into()).filter(|&at| at < self.pba_bytes())
    }
}

/// The MSI-X table and pending bits.
pub(super) struct MsixState {
    table: Vec<[u32; 4]>,
    pending: Vec<u32>,
}

impl MsixState {
    pub(super) fn new(vectors: u16) -> Self {
        let vectors = usize::from(vectors);
        // Whole doublewords of pending bits, held as words.
        let mut state = Self { table: vec![[0; 4]; vectors], pending: vec![0; 2 * vectors.div_ceil(64)] };
        state.reset();
        state
    }

    pub(super) fn reset(&mut self) {
        self.table.fill([0, 0, 0, VECTOR_MASKED]);
        self.pending.fill(0);
    }

    fn is_masked(&self, vector: usize) -> bool {
        self.table.get(vector).is_none_or(|entry| entry[3] & VECTOR_MASKED != 0)
    }

    fn pend(&mut self, vector: usize) {
        if vector < self.table.len() {
            self.pending[vector / 32] |= 1 << (vector % 32);
        }
    }

    fn is_pending(&self, vector: usize) -> bool {
        self.pending[vector / 32] >> (vector % 32) & 1 != 0
    }

    /// Vectors that are `leaving` count as pending: their messages are sent again.
    pub(super) fn save(&self, leaving: &[u16]) -> BTreeMap<String, MsixEntryState> {
        let entries = self.table.iter().enumerate().map(|(vector, &[low, high, data, control])| {
            let entry = MsixEntryState {
                address: u64::from(high) << 32 | u64::from(low),
                data,
                masked: control & VECTOR_MASKED != 0,
                pending: self.is_pending(vector) || leaving.contains(&(vector as u16)),
            };
            (vector.to_string(), entry)
        });
        entries.filter(|(_, entry)| *entry != MsixEntryState::RESET).collect()
    }

    pub(super) fn restore(&mut self, saved: BTreeMap<String, MsixEntryState>) -> Result<(), RestoreError> {
        self.reset();
        for (key, entry) in saved {
            let vector = index_of(&key, self.table.len())?;
            let MsixEntryState { address, data, masked, pending } = entry;
            let control = if masked { VECTOR_MASKED } else { 0 };
            self.table[vector] = [address as u32, (address >> 32) as u32, data, control];
            if pending {
                self.pend(vector);
            }
        }
        Ok(())
    }

    fn due(&self) -> Option<usize> {
        self.pending.iter().enumerate().find_map(|(index, &word)| {
            (0..32)
                .filter(|bit| word >> bit & 1 != 0)
                .map(|bit| 32 * index + bit)
                .find(|&vector| !self.is_masked(vector))
        })
    }

    fn take_due(&mut self) -> Option<usize> {
        let vector = self.due()?;
        self.pending[vector / 32] &= !(1 << (vector % 32));
        Some(vector)
    }

    fn message(&self, vector: usize) -> Option<Message> {
        let [low, high, data, _] = *self.table.get(vector)?;
        Some(Message { address: Iova(u64::from(high) << 32 | u64::from(low & !3)), data })
    }
}

/// One vector of MSI-X as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MsixEntryState {
    #[serde(with = "hex")]
    address: u64,
    #[serde(with = "hex")]
    data: u32,
    masked: bool,
    pending: bool,
}

impl MsixEntryState {
    const RESET: Self = Self { address: 0, data: 0, masked: true, pending: false };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    address: Iova,
    data: u32,
}

/// Which of the two is on; MSI-X, if the guest breaks the rule and enables both.
enum Enabled {
    Msi(u16),
    Msix { is_masked: bool },
}

impl ConfigSpace {
    fn enabled(&self, state: &State) -> Option<Enabled> {
        if let Some((base, _)) = self.msix_base() {
            let control = state.get(base, msix::CONTROL);
            if control & msix::ENABLE != 0 {
                return Some(Enabled::Msix { is_masked: control & msix::FUNCTION_MASK != 0 });
            }
        }
        self.msi_base().filter(|&base| state.get(base, msi::CONTROL) & 1 != 0).map(Enabled::Msi)
    }

    /// Sends message `vector` by whichever of MSI-X and MSI is enabled, or sets its pending bit if it is masked.
    /// Nothing happens if none is enabled, or the function is no bus master. MSI vectors beyond those that the guest
    /// has granted share the granted ones (7.7.1.2). The write carries `who`'s stream and waits on its waiter, never
    /// a PASID; a write that faults is lost, as on the bus.
    pub fn raise(&self, vector: u16, dma: &dyn DmaPort, who: &Requester) {
        if !self.is_bus_master() {
            return;
        }
        let message = {
            let mut state = self.lock();
            match self.enabled(&state) {
                None => None,
                Some(Enabled::Msi(base)) => {
                    let vector = u32::from(vector) & (granted(&state, base) - 1);
                    if state.get(base, msi::MASK) >> vector & 1 != 0 {
                        let pending = state.get(base, msi::PENDING) | 1 << vector;
                        state.put(base, msi::PENDING, pending);
                        None
                    } else {
                        Some(msi_message(&state, base, vector))
                    }
                }
                Some(Enabled::Msix { is_masked }) => {
                    let vector = usize::from(vector);
                    if is_masked || state.msix.is_masked(vector) {
                        state.msix.pend(vector);
                        None
                    } else {
                        state.msix.message(vector)
                    }
                }
            }
        };
        if let Some(message) = message {
            self.send(message, dma, who);
        }
    }

    fn send(&self, message: Message, dma: &dyn DmaPort, who: &Requester) {
        let untagged = Requester { tag: DmaTag::untagged(who.tag.stream), ..who.clone() };
        let Message { address, data } = message;
        if let Err(DmaFault::Aborted(_)) = dma.write(&untagged, address, &data.to_le_bytes()) {
            let what = format_args!("message {data:#x} to {address} is aborted");
            self.errors().report("messages (MSI) that are lost", what);
        }
    }

    /// Sends the messages that were held back and are not masked any more.
    pub fn deliver_pending(&self, dma: &dyn DmaPort, who: &Requester) {
        while self.is_bus_master() {
            let due = {
                let mut state = self.lock();
                let due = match self.enabled(&state) {
                    Some(Enabled::Msi(base)) => take_due_msi(&mut state, base),
                    Some(Enabled::Msix { is_masked: false }) => state
                        .msix
                        .take_due()
                        .and_then(|vector| Some((vector as u16, state.msix.message(vector)?))),
                    Some(Enabled::Msix { is_masked: true }) | None => None,
                };
                state.leaving.extend(due.map(|(vector, _)| vector));
                due
            };
            let Some((vector, message)) = due else { return };
            self.send(message, dma, who);
            let leaving = &mut self.lock().leaving;
            if let Some(place) = leaving.iter().position(|other| *other == vector) {
                leaving.swap_remove(place);
            }
        }
    }

    pub(super) fn has_deliverable(&self, state: &State) -> bool {
        match self.enabled(state) {
            Some(Enabled::Msi(base)) => due_msi(state, base) != 0,
            Some(Enabled::Msix { is_masked: false }) => state.msix.due().is_some(),
            Some(Enabled::Msix { is_masked: true }) | None => false,
        }
    }

    /// A read of the MSI-X table or pending bits, by aligned words (7.7.2.5, 7.7.2.10).
    pub(super) fn msix_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let layout = self.msix_layout().ok_or(BusError::NoRegister(offset))?;
        check_words(offset, data.len())?;
        let state = self.lock();
        for (at, word) in (offset..).step_by(4).zip(data.chunks_mut(4)) {
            let value = if let Some(at) = layout.table_at(at) {
                entry_word(at).and_then(|(entry, word)| Some(state.msix.table.get(entry)?[word]))
            } else {
                layout
                    .pba_at(at)
                    .and_then(|at| state.msix.pending.get(usize::try_from(at / 4).ok()?).copied())
            };
            put_value(word, value.ok_or(BusError::NoRegister(at))?.into());
        }
        Ok(())
    }

    /// A write to the MSI-X table, by aligned words; the pending bits are read-only.
    pub(super) fn msix_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let layout = self.msix_layout().ok_or(BusError::NoRegister(offset))?;
        check_words(offset, data.len())?;
        let ready = {
            let mut state = self.lock();
            for (at, bytes) in (offset..).step_by(4).zip(data.chunks(4)) {
                let Some((entry, word)) = layout.table_at(at).and_then(entry_word) else { continue };
                if let Some(entry) = state.msix.table.get_mut(entry) {
                    let writable = if word == 3 { VECTOR_MASKED } else { u32::MAX };
                    entry[word] = value_of(bytes) as u32 & writable;
                }
            }
            self.has_deliverable(&state)
        };
        if ready {
            self.wake();
        }
        Ok(())
    }
}

/// Vectors that the guest has granted: Multiple Message Enable, no more than are offered.
fn granted(state: &State, base: u16) -> u32 {
    let control = state.get(base, msi::CONTROL);
    1 << (control >> 4 & 7).min(control >> 1 & 7)
}

fn msi_message(state: &State, base: u16, vector: u32) -> Message {
    let low = state.get(base, msi::ADDRESS);
    let high = state.get(base, msi::UPPER_ADDRESS);
    let data = state.get(base, msi::DATA) & !(granted(state, base) - 1) | vector;
    Message { address: Iova(u64::from(high) << 32 | u64::from(low & !3)), data }
}

fn due_msi(state: &State, base: u16) -> u32 {
    state.get(base, msi::PENDING) & !state.get(base, msi::MASK)
}

fn take_due_msi(state: &mut State, base: u16) -> Option<(u16, Message)> {
    let due = due_msi(state, base);
    if due == 0 {
        return None;
    }
    let vector = due.trailing_zeros();
    let pending = state.get(base, msi::PENDING) & !(1 << vector);
    state.put(base, msi::PENDING, pending);
    // The guest may have granted fewer vectors since.
    Some((vector as u16, msi_message(state, base, vector & (granted(state, base) - 1))))
}

fn entry_word(at: u64) -> Option<(usize, usize)> {
    Some((usize::try_from(at / ENTRY_BYTES).ok()?, (at % ENTRY_BYTES / 4) as usize))
}

fn check_words(offset: u64, len: usize) -> Result<(), BusError> {
    if matches!(len, 4 | 8) && offset.is_multiple_of(len as u64) {
        Ok(())
    } else {
        Err(BusError::BadAccess { offset, len })
    }
}
