//! A task: one SQE to execute, and where it is while a worker has it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hw::{Iova, Pasid, Waiter};

use super::engine::{Done, QueueInfo};

/// How far a worker has come with its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Its SQE is read.
    Fetch,
    /// The engine executes it.
    Execute,
    /// Its SQE is written back.
    WriteBack,
    /// Its CQE is written.
    Complete,
}

/// Where a task is that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskState {
    /// Number of its queue.
    pub qn: u16,
    /// Place of its SQE in the ring.
    pub index: u16,
    /// How far the worker has come.
    pub stage: Stage,
    /// Its access waits for the guest or for guest time.
    pub waits: bool,
}

/// What an engine writes last, when all the rest of a task is done: with it the task has taken effect, and it is not
/// executed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastWrites {
    pub(super) sqe: Vec<u8>,
    pub(super) writes: Vec<(Iova, Vec<u8>)>,
}

/// How a task goes on that was under way when the state was saved: what its worker has put aside in [`Progress`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) stage: Stage,
    /// The SQE as it is to be written back: of stage [`Stage::WriteBack`].
    pub(super) sqe: Vec<u8>,
    /// Of stage [`Stage::Execute`], once the engine has come to its last writes.
    pub(super) last: Option<Arc<LastWrites>>,
    /// A fault plan has delayed it for so much longer; [`HANGS`]: for good.
    pub(super) due_in_ns: Option<u64>,
}

/// For good, as a delay.
pub(super) const HANGS: u64 = u64::MAX;

/// How far a queue's task has come: written by its worker without the lock, read by anybody.
#[derive(Debug)]
pub(super) struct Progress {
    stage: AtomicU8,
    /// The SQE that is written back.
    sqe: Box<[AtomicU64]>,
    /// Whether there is something in `last`.
    has_last: AtomicBool,
    last: Mutex<Option<Arc<LastWrites>>>,
    /// When a delay of a fault plan is over; 0: there is none.
    due_ns: AtomicU64,
}

impl Progress {
    pub(super) fn new(log2_sqe: u8) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Fetch as u8),
            sqe: (0..1_usize << log2_sqe.saturating_sub(3)).map(|_| AtomicU64::new(0)).collect(),
            has_last: AtomicBool::new(false),
            last: Mutex::default(),
            due_ns: AtomicU64::new(0),
        }
    }

    /// A task begins, or goes on.
    pub(super) fn begin(&self, parked: Option<&Parked>) {
        self.set(parked.map_or(Stage::Fetch, |parked| parked.stage));
        self.due_ns.store(0, Ordering::Relaxed);
        self.has_last.store(false, Ordering::Relaxed);
        if let Some(parked) = parked {
            self.put_sqe(&parked.sqe);
            if let Some(last) = &parked.last {
                self.put_last(last);
            }
        }
    }

    pub(super) fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Stage {
        let all = [Stage::Fetch, Stage::Execute, Stage::WriteBack, Stage::Complete];
        let value = self.stage.load(Ordering::Relaxed);
        all.into_iter().find(|stage| *stage as u8 == value).expect("only stages are stored")
    }

    /// Puts aside what is about to be written back. Plain stores, so that it costs a task nothing: whoever saves it knows by
    /// the worker's waiter, whose lock both have taken, that its access waits.
    pub(super) fn put_sqe(&self, sqe: &[u8]) {
        let (words, _) = sqe.as_chunks::<8>();
        for (cell, word) in self.sqe.iter().zip(words) {
            cell.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
    }

    /// Puts the last writes aside: from here on the task is not executed again.
    pub(super) fn put_last(&self, last: &Arc<LastWrites>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(last));
        self.has_last.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_due(&self, due_ns: u64) {
        self.due_ns.store(due_ns, Ordering::Relaxed);
    }

    /// How a task goes on whose access waits.
    pub(super) fn park(&self, now_ns: u64) -> Parked {
        let (stage, due_ns) = (self.get(), self.due_ns.load(Ordering::Relaxed));
        let sqe = || self.sqe.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        let has_last = stage == Stage::Execute && self.has_last.load(Ordering::Relaxed);
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Parked {
            stage,
            sqe: if stage == Stage::WriteBack { sqe() } else { Vec::new() },
            last: if has_last { last() } else { None },
            due_in_ns: match due_ns {
                0 => None,
                HANGS => Some(HANGS),
                at => Some(at.saturating_sub(now_ns)),
            },
        }
    }
}

/// One SQE to execute, with all that a worker needs to know of it.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) info: QueueInfo,
    /// The queue's life in which it was taken.
    pub(super) life: u64,
    /// Place of the SQE in its ring.
    pub(super) index: u16,
    /// Where the SQE is.
    pub(super) at: Iova,
    pub(super) pasid: Option<Pasid>,
    pub(super) waiter: Arc<Waiter>,
    pub(super) stage: Arc<Progress>,
    /// When its doorbell rang, if that is known.
    pub(super) rung_ns: Option<u64>,
    /// It was under way when the state was saved.
    pub(super) parked: Option<Box<Parked>>,
}

impl Task {
    /// As a fault plan knows it.
    pub(super) const fn command(&self) -> hw::fault::Command {
        hw::fault::Command { queue: self.info.qn, index: Some(self.index) }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With what its engine has moved in this process.
    Completed(Done),
    /// Its queue was stopped.
    Cancelled,
    SqeUnreadable,
    SqeUnwritable,
    CqeUnwritable,
}

impl Outcome {
    /// In a timeline.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Cancelled => "cancelled",
            Self::SqeUnreadable => "SQE unreadable",
            Self::SqeUnwritable => "SQE unwritable",
            Self::CqeUnwritable => "CQE unwritable",
        }
    }
}

/// Where a completion goes and what it says: its two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) at: Iova,
    pub(super) tail: u64,
}
