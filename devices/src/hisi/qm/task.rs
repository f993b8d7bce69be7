//! A task: one SQE to execute, and where it is while a worker has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hw::{Iova, Pasid, Waiter};

use super::engine::QueueInfo;

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

/// The stage of a queue's task: written by its worker without the lock, read by anybody.
#[derive(Debug)]
pub(super) struct StageCell(AtomicU8);

impl StageCell {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(Stage::Fetch as u8))
    }

    pub(super) fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Stage {
        let all = [Stage::Fetch, Stage::Execute, Stage::WriteBack, Stage::Complete];
        let value = self.0.load(Ordering::Relaxed);
        all.into_iter().find(|stage| *stage as u8 == value).expect("only stages are stored")
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
    pub(super) stage: Arc<StageCell>,
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
    Completed,
    /// Its queue was stopped.
    Cancelled,
    SqeUnreadable,
    SqeUnwritable,
    CqeUnwritable,
}

/// Where a completion goes and what it says: its two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) at: Iova,
    pub(super) tail: u64,
}
