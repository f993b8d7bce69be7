//! How long things may take: the mailbox command and the write-back under way, and the polls that are held meanwhile.
//!
//! Both kinds have a time of their own, which begins with the command and which nothing that comes later makes longer.
//! All times are nanoseconds of guest time.

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
