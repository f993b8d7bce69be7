//! The registers of an engine, behind those of the queue manager in BAR2. A map declares them; what engines have in common is
//! done here: they are storage but for those of errors, which have other names and places in each engine and do the same, and for
//! counters, which the engine keeps and which clear when read if software wants it.

use std::fmt::Debug;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hw::regmap::{Access, RegisterMap, Store, Unconditional};
use hw::{Registers, RestoreError};

use super::qm::Engine;

/// The map of an engine's registers.
pub trait EngineMap: RegisterMap<Condition = Unconditional> + PartialEq + Debug + Send + Sync {
    /// Where errors are.
    const ERRORS: ErrorRegisters<Self>;
    /// Bit 0 of it says that counters clear when read.
    const COUNTERS_CLEAR: Self;
}

/// Where an engine's errors are. Which bits there are the map says, as what is writable of the source.
#[derive(Clone, Copy, Debug)]
pub struct ErrorRegisters<R> {
    /// Latched errors: writing ones clears them.
    pub source: R,
    /// The same, without the clearing.
    pub status: R,
    /// Which of them interrupt.
    pub mask: R,
    /// What a 1 in the mask says.
    pub mask_says: MaskSays,
    /// What latches errors that software asks for, if the engine has it.
    pub set: Option<R>,
}

/// What a 1 in the mask of an engine's errors says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskSays {
    /// The error does not interrupt.
    Masked,
    /// It does.
    Enabled,
}

/// The values of an engine's registers.
#[derive(Debug)]
pub struct EngineRegisters<R>(Mutex<Store<R>>);

impl<R: EngineMap> Default for EngineRegisters<R> {
    fn default() -> Self {
        Self(Mutex::new(Store::at_reset()))
    }
}

impl<R: EngineMap> EngineRegisters<R> {
    fn lock(&self) -> MutexGuard<'_, Store<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a register that is no counter.
    #[must_use]
    pub fn get(&self, reg: R) -> u32 {
        self.lock().word(reg)
    }
}

/// Errors that are latched and interrupt.
fn interrupting<R: EngineMap>(store: &Store<R>) -> u32 {
    let ErrorRegisters { source, mask, mask_says, .. } = R::ERRORS;
    let mask = store.word(mask);
    store.word(source) & if mask_says == MaskSays::Masked { !mask } else { mask }
}

/// The bits that a register can keep.
fn writable<R: EngineMap>(reg: R) -> u32 {
    reg.info().writable as u32
}

/// The aligned word at `offset` of BAR2; zero where there is no register.
pub(super) fn read_word<E: Engine>(engine: &E, offset: u64) -> u32 {
    let Some(at) = E::Register::locate(offset) else { return 0 };
    let store = engine.registers().lock();
    let ErrorRegisters { source, status, .. } = E::Register::ERRORS;
    if at.reg == status {
        return store.word(source);
    }
    let Some(counter) = engine.counter(at.reg, at.index) else { return store.read_word(at) };
    let value = if store.word(E::Register::COUNTERS_CLEAR) & 1 != 0 {
        // The 32 bits that are asked for.
        counter.fetch_and(if at.byte & 4 == 0 { !0xffff_ffff } else { 0xffff_ffff }, Ordering::Relaxed)
    } else {
        counter.load(Ordering::Relaxed)
    };
    (value >> (8 * (at.byte & 4))) as u32
}

/// A write of the aligned word at `offset` of BAR2. Whether it makes the abnormal interrupt due.
pub(super) fn write_word<E: Engine>(engine: &E, offset: u64, word: u32) -> bool {
    let Some(at) = E::Register::locate(offset) else { return false };
    let mut store = engine.registers().lock();
    let before = interrupting(&store);
    let ErrorRegisters { source, mask, set, .. } = E::Register::ERRORS;
    if Some(at.reg) == set {
        let latched = store.word(source);
        store.set_word(source, latched | word & writable(source));
    } else if at.reg == mask {
        store.set_word(mask, word & writable(mask));
    } else {
        store.write_word(at, word);
    }
    interrupting(&store) & !before != 0
}

/// All registers, and counters among them, get their values of power-on.
pub(super) fn reset<E: Engine>(engine: &E) {
    *engine.registers().lock() = Store::at_reset();
    for (reg, info) in E::Register::ALL {
        for counter in (0..info.count).filter_map(|index| engine.counter(*reg, index)) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Those that do not have their value of power-on.
pub(super) fn save<E: Engine>(engine: &E) -> Registers {
    let mut registers = engine.registers().lock().save();
    let counter = |reg: E::Register, index| {
        let shown = u64::MAX >> (64 - 8 * reg.info().bytes);
        engine.counter(reg, index).map_or(0, |counter| counter.load(Ordering::Relaxed) & shown)
    };
    let is_counter = |reg: E::Register| engine.counter(reg, 0).is_some();
    registers.extend(Registers::changed(is_counter, counter));
    registers
}

/// Takes up what [`save`] has given.
pub(super) fn restore<E: Engine>(engine: &E, registers: Registers) -> Result<(), RestoreError> {
    let mut store = engine.registers().lock();
    let ErrorRegisters { status, set, .. } = E::Register::ERRORS;
    registers.restore_changed(
        |reg: E::Register| reg.info().access != Access::Wo,
        |reg, index, value| match engine.counter(reg, index) {
            Some(counter) => {
                counter.store(value, Ordering::Relaxed);
                Ok(())
            }
            None => {
                // Some keep nothing, and some never change.
                let keeps = reg != status && Some(reg) != set && reg.info().access != Access::Ro;
                store.restore(reg, index, value, if keeps { reg.info().writable } else { 0 })
            }
        },
    )
}
