//! How long things may take: the mailbox command and the write-back under way, and the polls that are held meanwhile.
//!
//! Both kinds have a time of their own, which begins with the command and which nothing that comes later makes longer.
//! All times are nanoseconds of guest time.

use hw::RestoreError;
use serde::{Deserialize, Serialize};

/// For how long a driver that polls for the end of a stop is answered at once while a task waits for a page: the page may
/// be served by the very processor that polls. Less than the driver's patience of 1 ms.
const STOP_POLLED_NS: u64 = 800_000;
/// How often it is seen whether the tasks that a held poll waits for have begun to wait themselves.
const STOP_LOOK_NS: u64 = 50_000;
/// How long a stop may take, as long as polls are held. Hardware finishes tasks within the driver's patience; here a busy
/// host may not run a worker, or the processor that serves a page, for many times that. Who is told of the end too early
/// takes what has not been written back for a success, and frees what a page fault still uses.
const STOP_WORK_NS: u64 = 100_000_000;

/// What a read of a register asks whether it is done, and which one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poll {
    /// The mailbox's command.
    Command(u64),
    /// The write-back of contexts.
    WriteBack(u64),
}

/// Times that are left, as they are saved.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedPatience {
    stop_polled_in_ns: u64,
    stop_cut_in_ns: u64,
    command_in_ns: u64,
    write_back_in_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Until when polls for the end of a stop may be answered at once.
    pub(super) polled_ns: u64,
    /// When the tasks of a queue that is being stopped have had all their time.
    cut_ns: u64,
    /// Until when polls of the mailbox are held.
    command_ns: u64,
    /// Until when polls for the write-back are held.
    write_back_ns: u64,
}

impl Patience {
    /// A mailbox command has begun. Its polls may be held for `most_ns`; for the end of a stop, after the tasks have had
    /// their time.
    pub(super) fn command_began(&mut self, now_ns: u64, most_ns: u64, is_stop: bool) {
        self.polled_ns = now_ns.saturating_add(STOP_POLLED_NS);
        self.cut_ns = now_ns.saturating_add(STOP_WORK_NS.min(most_ns)).max(self.polled_ns);
        let from = if is_stop { self.cut_ns } else { now_ns };
        self.command_ns = if most_ns == 0 { now_ns } else { from.saturating_add(most_ns) };
    }

    /// A write-back has begun.
    pub(super) fn write_back_began(&mut self, now_ns: u64, most_ns: u64) {
        self.write_back_ns = now_ns.saturating_add(most_ns);
    }

    /// The times that are left.
    pub(super) const fn save(&self, now_ns: u64) -> SavedPatience {
        SavedPatience {
            stop_polled_in_ns: self.polled_ns.saturating_sub(now_ns),
            stop_cut_in_ns: self.cut_ns.saturating_sub(now_ns),
            command_in_ns: self.command_ns.saturating_sub(now_ns),
            write_back_in_ns: self.write_back_ns.saturating_sub(now_ns),
        }
    }

    /// From times that are left. `most_ns` is what the device was made with.
    pub(super) fn restore(
        &mut self,
        saved: &SavedPatience,
        now_ns: u64,
        most_ns: u64,
    ) -> Result<(), RestoreError> {
        let longest_stop = STOP_WORK_NS.min(most_ns).max(STOP_POLLED_NS);
        let at = |name, in_ns: u64, longest: u64| match in_ns {
            0 => Ok(0),
            _ if in_ns <= longest => Ok(now_ns.saturating_add(in_ns)),
            _ => Err(RestoreError::value(name, "is longer than this takes")),
        };
        *self = Self {
            polled_ns: at("stop_polled_in_ns", saved.stop_polled_in_ns, STOP_POLLED_NS)?,
            cut_ns: at("stop_cut_in_ns", saved.stop_cut_in_ns, longest_stop)?,
            command_ns: at("command_in_ns", saved.command_in_ns, longest_stop.saturating_add(most_ns))?,
            write_back_ns: at("write_back_in_ns", saved.write_back_in_ns, most_ns)?,
        };
        Ok(())
    }

    /// Whether such a poll may be held.
    pub(super) const fn lasts(&self, poll: Poll, now_ns: u64) -> bool {
        match poll {
            Poll::Command(_) => now_ns < self.command_ns,
            Poll::WriteBack(_) => now_ns < self.write_back_ns,
        }
    }

    /// Whether the tasks of a queue that is being stopped have had all their time.
    pub(super) const fn is_stop_over(&self, now_ns: u64) -> bool {
        now_ns >= self.cut_ns
    }

    /// When the next of these times is over, given what is under way.
    pub(super) fn next_ns(
        &self,
        now_ns: u64,
        is_stopping: bool,
        is_command: bool,
        is_writing_back: bool,
    ) -> Option<u64> {
        let stop = if now_ns < self.polled_ns {
            now_ns.saturating_add(STOP_LOOK_NS).min(self.polled_ns)
        } else {
            self.cut_ns
        };
        [
            is_stopping.then_some(stop),
            is_command.then_some(self.command_ns),
            is_writing_back.then_some(self.write_back_ns),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now_ns)
        .min()
    }
}
