//! The queue manager's messages through the function's MSI capability, and their fault point.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::fault::{FaultAction, FaultPoint, Occasion};
use hw::{DmaPort, Faults, Requester};

use crate::hisi::qm::Messages;
use crate::pci::ConfigSpace;

pub(super) struct Msi {
    config: Arc<ConfigSpace>,
    port: Arc<dyn DmaPort>,
    faults: Faults,
    /// Vectors whose delay is over. Whoever sends what is due takes them.
    late: Arc<Mutex<Vec<u16>>>,
}

impl Msi {
    pub(super) fn new(config: &Arc<ConfigSpace>, port: Arc<dyn DmaPort>, faults: &Faults) -> Self {
        Self { config: Arc::clone(config), port, faults: faults.clone(), late: Arc::default() }
    }

    /// Forgets messages whose delay is over; the fault plan has dropped those whose delay is not.
    pub(super) fn reset(&self) {
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
                let (late, config) = (Arc::clone(&self.late), Arc::downgrade(&self.config));
                return self.faults.later(delay, move || {
                    late.lock().unwrap_or_else(PoisonError::into_inner).push(vector);
                    if let Some(config) = config.upgrade() {
                        config.wake();
                    }
                });
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
