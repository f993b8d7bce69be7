//! One queue: its two contexts, whether they are live, and where it is with regard to the workers.

use std::sync::Arc;

use hw::Waiter;

use super::context::{Cqc, Sqc};

/// Where a queue is with regard to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    /// In the list of runnable queues.
    Waiting,
    /// A worker has a task of it.
    Running,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) sqc: Option<Sqc>,
    pub(super) cqc: Option<Cqc>,
    pub(super) sq_live: bool,
    pub(super) cq_live: bool,
    /// A ring could not be accessed.
    pub(super) is_halted: bool,
    pub(super) overflow_told: bool,
    /// An event is due that has not been written.
    pub(super) wants_event: bool,
    pub(super) place: Place,
    pub(super) life: u64,
    pub(super) waiter: Arc<Waiter>,
    /// Low half of a doorbell that arrives at the queue's own page in two writes.
    pub(super) bell_low: u32,
    pub(super) sqes: u32,
    pub(super) cqes: u32,
}

impl Queue {
    pub(super) fn at_reset() -> Self {
        Self {
            sqc: None,
            cqc: None,
            sq_live: false,
            cq_live: false,
            is_halted: false,
            overflow_told: false,
            wants_event: false,
            place: Place::Idle,
            life: 0,
            waiter: Waiter::new(),
            bell_low: 0,
            sqes: 0,
            cqes: 0,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        self.sq_live && self.cq_live
    }

    pub(super) fn has_tasks(&self) -> bool {
        self.is_live() && !self.is_halted && self.sqc.as_ref().is_some_and(|sqc| sqc.head != sqc.tail)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.has_tasks() && self.cqc.as_ref().is_some_and(|cqc| !cqc.is_full())
    }

    pub(super) fn new_life(&mut self) {
        self.life += 1;
        self.waiter.cancel();
        self.waiter = Waiter::new();
        self.is_halted = false;
        self.overflow_told = false;
        self.wants_event = false;
    }

    /// From now on the queue makes no access and takes no doorbell.
    pub(super) fn kill(&mut self) {
        if self.sq_live || self.cq_live {
            self.new_life();
        }
        self.sq_live = false;
        self.cq_live = false;
    }
}
