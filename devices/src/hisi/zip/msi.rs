//! The queue manager's messages through the function's MSI capability, and their fault point.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hw::fault::{Delays, FaultAction, FaultPoint, Occasion};
use hw::{DmaPort, Faults, Requester, TimerTarget};

use crate::hisi::qm::Messages;
use crate::pci::ConfigSpace;

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
        self.late().push(vector);
        self.config.wake();
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

    /// Forgets the messages that a fault plan has delayed.
    pub(super) fn reset(&self) {
        self.delays.clear();
        self.late().clear();
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
