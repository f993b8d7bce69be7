//! Interrupts as devices see them: a wire, or a message. Devices never know a number.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use thiserror::Error;

use crate::{DeviceId, Pa};

/// One interrupt wire. What is at the other end (an interrupt controller's input, an OR gate) is not the device's
/// business. Implementations take only leaf locks and never call back.
pub trait IrqLine: Send + Sync {
    /// Drives the level. Repeating the present level changes nothing.
    fn set(&self, high: bool);

    /// One rising edge, for edge-triggered inputs.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// A wire that leads nowhere.
#[derive(Debug, Default)]
pub struct UnconnectedLine;

impl IrqLine for UnconnectedLine {
    fn set(&self, _high: bool) {}
}

/// A wire for tests: remembers its level and counts rising edges.
#[derive(Debug, Default)]
pub struct RecordingLine {
    level: AtomicBool,
    edges: AtomicUsize,
}

impl RecordingLine {
    /// The present level.
    #[must_use]
    pub fn level(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }

    /// Rising edges so far.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.edges.load(Ordering::SeqCst)
    }
}

impl IrqLine for RecordingLine {
    fn set(&self, high: bool) {
        if !self.level.swap(high, Ordering::SeqCst) && high {
            self.edges.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The written address is no message doorbell.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0} is no MSI doorbell")]
pub struct NotADoorbell(pub Pa);

/// Where 32-bit message writes that are not RAM go: the ITS's translation register.
pub trait MsiSink: Send + Sync {
    /// A write of `data` by `device` to physical address `pa`.
    ///
    /// # Errors
    /// If `pa` is no doorbell: the bus then answers as for a hole.
    fn write(&self, device: DeviceId, pa: Pa, data: u32) -> Result<(), NotADoorbell>;
}

/// A sink for tests: one doorbell address, and what was written to it.
#[derive(Debug)]
pub struct RecordingMsiSink {
    doorbell: Pa,
    messages: Mutex<Vec<(DeviceId, u32)>>,
}

impl RecordingMsiSink {
    /// A sink that takes writes to `doorbell`.
    #[must_use]
    pub fn new(doorbell: Pa) -> Self {
        Self { doorbell, messages: Mutex::default() }
    }

    /// The messages since the last call.
    ///
    /// # Panics
    /// If another thread panicked while it wrote.
    #[must_use]
    pub fn take(&self) -> Vec<(DeviceId, u32)> {
        std::mem::take(&mut *self.messages.lock().expect("no writer panics"))
    }
}

impl MsiSink for RecordingMsiSink {
    fn write(&self, device: DeviceId, pa: Pa, data: u32) -> Result<(), NotADoorbell> {
        if pa != self.doorbell {
            return Err(NotADoorbell(pa));
        }
        self.messages.lock().expect("no writer panics").push((device, data));
        Ok(())
    }
}
