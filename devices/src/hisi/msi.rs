//! The queue manager's messages through the function's MSI capability, and their fault point.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hw::fault::{Delays, FaultAction, FaultPoint, Occasion};
use hw::timer::Later;
use hw::{DmaPort, Faults, Requester, RestoreError, TimerTarget};
use serde::{Deserialize, Serialize};

use super::qm::Messages;
use crate::pci::ConfigSpace;

/// Messages of the function.
pub(super) const VECTORS: u16 = 4;
/// Most messages that are due: as many as a plan delays.
const MOST_DUE: usize = 1 << 16;

/// Messages that a fault plan has delayed, as they are saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedMessages {
    due: Vec<u16>,
    delayed: Vec<Later<u16>>,
}

pub(super) struct Msi {
    config: Arc<ConfigSpace>,
    port: Arc<dyn DmaPort>,
    faults: Faults,
    /// Vectors whose delay is over. Whoever sends what is due takes them.
    late: Mutex<Vec<u16>>,
    /// Vectors whose delay is not over.
    delays: Delays<u16>,
}

impl TimerTarget<u16> for Msi {
    /// The delay of a message is over.
    fn step(&self, vector: u16) {
        self.send_later(vector);
    }
}

impl Msi {
    pub(super) fn new(config: &Arc<ConfigSpace>, port: Arc<dyn DmaPort>, faults: &Faults) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            config: Arc::clone(config),
            port,
            faults: faults.clone(),
            late: Mutex::default(),
            delays: faults.delays(this.clone()),
        })
    }

    /// Has whoever sends what is due send this message. Too many of them at once are as one.
    pub(super) fn send_later(&self, vector: u16) {
        let mut late = self.late();
        if late.len() < MOST_DUE {
            late.push(vector);
        }
        drop(late);
        self.config.wake();
    }

    /// Forgets the messages that a fault plan has delayed.
    pub(super) fn reset(&self) {
        self.delays.clear();
        self.late().clear();
    }

    /// What a fault plan has delayed: vectors that are due, and those that are not yet.
    pub(super) fn save(&self) -> SavedMessages {
        SavedMessages { due: self.late().clone(), delayed: self.delays.save() }
    }

    pub(super) fn restore(&self, saved: SavedMessages) -> Result<(), RestoreError> {
        let SavedMessages { due, delayed } = saved;
        let vectors = due.iter().chain(delayed.iter().map(|later| &later.step));
        if due.len() > MOST_DUE || vectors.into_iter().any(|vector| *vector >= VECTORS) {
            return Err(RestoreError::value("due", "more than there can be, or no such message"));
        }
        self.delays.restore(delayed)?;
        *self.late() = due;
        Ok(())
    }

    fn late(&self) -> MutexGuard<'_, Vec<u16>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages for Msi {
    fn raise(&self, vector: u16, who: &Requester) {
        let occasion =
            |point| Occasion { vector: Some(vector), ..Occasion::new(point, who.tag.stream, None) };
        match self.faults.at(FaultPoint::Msi, occasion) {
            Some(FaultAction::Drop) => return,
            Some(FaultAction::Duplicate) => self.config.raise(vector, &*self.port, who),
            Some(FaultAction::Delay { delay }) => {
                return self.delays.later(delay, vector);
            }
            _ => {}
        }
        self.config.raise(vector, &*self.port, who);
    }

    fn send_due(&self, who: &Requester) {
        let late = std::mem::take(&mut *self.late());
        for vector in late {
            self.config.raise(vector, &*self.port, who);
        }
        self.config.deliver_pending(&*self.port, who);
    }
}
