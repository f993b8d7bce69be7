//! The debug counters: how many doorbells, commands, tasks and entries there have been. They clear when read if
//! `DFX_CNT_CLR_CE` says so.

use serde::{Deserialize, Serialize};

/// Counters of the function.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Counters {
    pub(super) mailboxes: u32,
    pub(super) doorbells: u32,
    pub(super) sent: u32,
    pub(super) written_back: u32,
    pub(super) finished: u32,
    pub(super) completion_errors: u32,
    /// Entries written; these do not clear.
    pub(super) cqe_out: u32,
    pub(super) eqe_out: u32,
    pub(super) aeqe_out: u32,
    /// The last doorbell.
    #[serde(with = "hw::saved::hex")]
    pub(super) last_doorbell: u64,
}

impl Counters {
    pub(super) fn mailbox(&mut self) {
        self.mailboxes = self.mailboxes.wrapping_add(1);
    }

    pub(super) fn doorbell(&mut self, data: u64) {
        self.doorbells = self.doorbells.wrapping_add(1);
        self.last_doorbell = data;
    }

    pub(super) fn sent_to_engine(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }

    pub(super) fn back_from_engine(&mut self) {
        self.written_back = self.written_back.wrapping_add(1);
    }

    pub(super) fn finished(&mut self) {
        self.finished = self.finished.wrapping_add(1);
        self.cqe_out = self.cqe_out.wrapping_add(1);
    }

    pub(super) fn event_written(&mut self) {
        self.eqe_out = self.eqe_out.wrapping_add(1);
    }

    pub(super) fn asynchronous_event_written(&mut self) {
        self.aeqe_out = self.aeqe_out.wrapping_add(1);
    }

    pub(super) fn completion_error(&mut self) {
        self.completion_errors = self.completion_errors.wrapping_add(1);
    }
}

/// What a read of a counter gives: it may clear it.
pub(super) fn read(counter: &mut u32, clears: bool) -> u32 {
    if clears { std::mem::take(counter) } else { *counter }
}
