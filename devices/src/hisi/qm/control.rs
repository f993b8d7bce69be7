//! What the control worker is asked to do: the accesses of mailbox commands and of write-backs.

use std::sync::Arc;

use hw::{Activity, Iova, Waiter};

use super::context::{CONTEXT_BYTES, ContextImage, EVENT_CONTEXT_BYTES};
use super::mailbox::{Context, Transfer};

/// What the control worker does without the lock; [`super::front::Front::finish_request`] follows.
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Reads a context.
    Load { context: Context, at: Iova, life: u64, waiter: Arc<Waiter> },
    /// Writes a context.
    Dump { context: Context, at: Iova, image: ContextImage, life: u64, waiter: Arc<Waiter> },
    /// Writes all live contexts to the tables.
    WriteBack { tables: Vec<(Iova, ContextImage)>, life: u64, waiter: Arc<Waiter> },
    /// Starts so many workers.
    StartWorkers(usize),
}

/// Bytes of a context in memory.
pub(super) const fn context_bytes(context: Context) -> usize {
    match context {
        Context::Sqc(_) | Context::Cqc(_) => CONTEXT_BYTES,
        Context::Eqc | Context::Aeqc => EVENT_CONTEXT_BYTES,
    }
}

#[derive(Debug)]
pub(super) struct Control {
    /// A mailbox command that needs DMA, and which one it is.
    pub(super) transfer: Option<(Transfer, u64)>,
    pub(super) write_back_due: bool,
    is_write_back_asked: bool,
    /// Write-backs so far; tells what a poll waits for from what began later.
    write_backs: u64,
    /// The control worker has a request with accesses.
    is_in_flight: bool,
    /// Of its accesses; replaced when they are given up.
    waiter: Arc<Waiter>,
    /// Its next request was under way when the state was saved.
    is_made_again: bool,
    /// Counts resets, so that a request of before has no effect.
    life: u64,
}

impl Control {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        Self {
            transfer: None,
            write_back_due: false,
            is_write_back_asked: false,
            write_backs: 0,
            is_in_flight: false,
            waiter: Waiter::watched(activity),
            is_made_again: false,
            life: 0,
        }
    }

    /// As after power-on, but for the request that the worker still has: it is of an older life.
    pub(super) fn reset(&mut self) {
        self.give_up();
        let Self {
            transfer,
            write_back_due,
            is_write_back_asked,
            write_backs: _,
            is_in_flight: _,
            waiter: _,
            is_made_again,
            life,
        } = self;
        *transfer = None;
        (*write_back_due, *is_write_back_asked, *is_made_again) = (false, false, false);
        *life += 1;
    }

    /// Ends the accesses of the request under way.
    pub(super) fn give_up(&mut self) {
        Waiter::replace(&mut self.waiter);
    }

    /// After a restore: what was asked for and is not done is begun anew.
    pub(super) fn take_up(
        &mut self,
        transfer: Option<Transfer>,
        is_write_back_asked: bool,
        is_write_back_due: bool,
        life: u64,
    ) {
        self.transfer = transfer.map(|transfer| (transfer, life));
        self.is_write_back_asked = is_write_back_asked;
        self.write_back_due = is_write_back_due;
        if self.has_request() {
            self.is_made_again = true;
            self.waiter.set_made_again(true);
        }
    }

    pub(super) fn waiter(&self) -> Arc<Waiter> {
        Arc::clone(&self.waiter)
    }

    pub(super) const fn life(&self) -> u64 {
        self.life
    }

    pub(super) const fn write_backs(&self) -> u64 {
        self.write_backs
    }

    /// A write-back is asked for. `is_needed`: there is something to write; `is_under_way`: another has not been done. Whether
    /// one has begun.
    pub(super) fn ask_write_back(&mut self, is_needed: bool, is_under_way: bool) -> bool {
        // Asked for again while one is under way, it takes as long as it does: its time does not begin anew.
        let has_begun = is_needed && !is_under_way;
        self.write_backs += u64::from(has_begun);
        self.write_back_due = is_needed;
        self.is_write_back_asked = true;
        has_begun
    }

    pub(super) const fn is_write_back_asked(&self) -> bool {
        self.is_write_back_asked
    }

    /// Whether a request with accesses waits for the worker.
    pub(super) const fn has_request(&self) -> bool {
        self.transfer.is_some() || self.write_back_due
    }

    pub(super) const fn begun(&mut self) {
        self.is_in_flight = true;
    }

    pub(super) fn ended(&mut self) {
        assert!(
            std::mem::replace(&mut self.is_in_flight, false),
            "one control worker has one request at a time"
        );
        if std::mem::take(&mut self.is_made_again) {
            self.waiter.set_made_again(false);
        }
    }

    /// Whether the worker makes no access.
    pub(super) const fn is_quiet(&self) -> bool {
        !self.is_in_flight
    }

    /// Whether it makes none, or one that waits for the guest or for guest time.
    pub(super) fn is_still(&self) -> bool {
        self.is_quiet() || self.waiter.is_waiting()
    }
}
