//! One queue: its two contexts, whether they are live, and where it is with regard to the workers.
//!
//! A queue is *live* from the commands that load its two contexts until it is stopped; doorbells of other queues are
//! ignored. Each start and stop begins a new *life*: what a worker brings back from an older one does not count, and
//! the accesses of an older one are given up through its `Waiter`. So a task of the present life has both contexts.

use std::sync::Arc;

use hw::trace::Mark;
use hw::{Activity, RestoreError, Waiter};

use super::context::{CQE_BYTES, Doorbell};
use super::context::{Cqc, CqeTail, Sqc, entry, next};
use super::engine::QueueInfo;
use super::events::SavedContext;
use super::saved::{SavedQueue, SavedTask};
use super::submissions::Submissions;
use super::task::{Completion, Parked, Progress, Task, TaskState};

/// Where a queue is with regard to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Idle,
    /// In the list of runnable queues.
    Runnable,
    /// A worker has the task of this SQE.
    InFlight(u16),
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
    life: u64,
    waiter: Arc<Waiter>,
    stage: Arc<Progress>,
    log2_sqe: u8,
    submissions: Submissions,
    /// A task that was under way when the state was saved, and that no worker has taken yet.
    parked: Option<Parked>,
    /// Low half of a doorbell that arrives at the queue's own page in two writes.
    pub(super) bell_low: u32,
    pub(super) sqes: u32,
    pub(super) cqes: u32,
}

impl Queue {
    pub(super) fn new(log2_sqe: u8, activity: &Arc<Activity>) -> Self {
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
            waiter: Waiter::watched(activity),
            stage: Arc::new(Progress::new(log2_sqe)),
            log2_sqe,
            submissions: Submissions::default(),
            parked: None,
            bell_low: 0,
            sqes: 0,
            cqes: 0,
        }
    }

    /// As after power-on, but for the task that a worker still has: it is of an older life.
    pub(super) fn reset(&mut self) {
        self.new_life();
        self.forget_contexts();
        // By name: a new field must be decided on here.
        let Self {
            sqc: _,
            cqc: _,
            sq_live,
            cq_live,
            is_halted: _,
            overflow_told: _,
            wants_event: _,
            place,
            life: _,
            waiter: _,
            stage,
            log2_sqe,
            submissions: _,
            parked: _,
            bell_low,
            sqes,
            cqes,
        } = self;
        (*sq_live, *cq_live) = (false, false);
        (*bell_low, *sqes, *cqes) = (0, 0, 0);
        // A worker that still has a task keeps the cell of before.
        *stage = Arc::new(Progress::new(*log2_sqe));
        if *place == Place::Runnable {
            *place = Place::Idle;
        }
    }

    /// The contexts that the function's memory holds are gone. Only of a queue that is not live.
    pub(super) fn forget_contexts(&mut self) {
        (self.sqc, self.cqc) = (None, None);
    }

    pub(super) const fn is_live(&self) -> bool {
        self.sq_live && self.cq_live
    }

    /// Whether a task has begun that is not complete, whether or not a worker has it.
    pub(super) const fn has_begun(&self) -> bool {
        self.is_in_flight() || self.parked.is_some()
    }

    pub(super) fn has_tasks(&self) -> bool {
        self.parked.is_some() || self.has_new_tasks()
    }

    fn has_new_tasks(&self) -> bool {
        self.is_live() && !self.is_halted && self.sqc.as_ref().is_some_and(|sqc| sqc.head != sqc.tail)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.parked.is_some() || self.has_new_tasks() && self.cqc.as_ref().is_some_and(|cqc| !cqc.is_full())
    }

    pub(super) const fn is_in_flight(&self) -> bool {
        matches!(self.place, Place::InFlight(_))
    }

    /// Whether the task that a worker has waits for the guest or for guest time. One of an older life does not: it has
    /// been given up, and ends.
    pub(super) fn waits(&self) -> bool {
        self.waiter.is_waiting()
    }

    /// Where the task is that a worker has.
    pub(super) fn task_state(&self, qn: u16) -> Option<TaskState> {
        let Place::InFlight(index) = self.place else { return None };
        Some(TaskState { qn, index, stage: self.stage.get(), waits: self.waits() })
    }

    pub(super) fn new_life(&mut self) {
        self.life += 1;
        Waiter::replace(&mut self.waiter);
        self.submissions.forget();
        self.parked = None;
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

    /// A doorbell of the submission queue: what a timeline says of it, if it counts.
    pub(super) fn submit(&mut self, bell: Doorbell, now_ns: u64) -> Option<Mark> {
        let sqc = self.sqc.as_mut().filter(|_| self.sq_live && self.cq_live)?;
        if bell.random() != sqc.random || bell.index() >= sqc.depth {
            return None;
        }
        sqc.wrap ^= bell.index() < sqc.tail;
        let first = std::mem::replace(&mut sqc.tail, bell.index());
        self.submissions.rung(sqc.head, first, sqc.tail, sqc.depth, now_ns);
        Some(Mark::Doorbell { first, tail: sqc.tail, depth: sqc.depth })
    }

    /// A worker takes the next task. `None` if there is none, or no room for its completion.
    pub(super) fn take(&mut self, qn: u16) -> Option<Task> {
        let sqc = self.sqc.as_ref().filter(|_| self.is_ready())?;
        let parked = self.parked.take().map(Box::new);
        // One that goes on after a restore began in another process.
        let rung_ns = if parked.is_some() { None } else { self.submissions.taken(sqc.head, sqc.depth) };
        let task = Task {
            info: QueueInfo { qn, queue_type: sqc.queue_type },
            life: self.life,
            index: sqc.head,
            at: entry(sqc.base, sqc.head, 1 << sqc.log2_sqe),
            pasid: sqc.pasid,
            waiter: Arc::clone(&self.waiter),
            stage: Arc::clone(&self.stage),
            rung_ns,
            parked,
        };
        self.stage.begin(task.parked.as_deref());
        self.place = Place::InFlight(sqc.head);
        if task.parked.is_some() {
            self.waiter.set_made_again(true);
        } else {
            self.sqes = self.sqes.wrapping_add(1);
        }
        Some(task)
    }

    /// Place of the SQE that was completed last, if its contexts are known.
    pub(super) fn latest_completed(&self) -> Option<u16> {
        let sqc = self.sqc.as_ref()?;
        Some(sqc.head.checked_sub(1).unwrap_or(sqc.depth - 1))
    }

    /// Whether a task is of the present life.
    pub(super) const fn owns(&self, task: &Task) -> bool {
        self.life == task.life
    }

    /// What the completion of a task of the present life says.
    pub(super) fn completion(&self, task: &Task) -> Completion {
        let (Some(sqc), Some(cqc)) = (&self.sqc, &self.cqc) else {
            unreachable!("contexts are only forgotten when a queue is not live, and that ends its life")
        };
        let tail = CqeTail::new().with_sq_head(sqc.head).with_sq_num(task.info.qn).with_phase(cqc.phase);
        Completion { at: entry(cqc.base, cqc.tail, CQE_BYTES), tail: tail.into() }
    }

    /// As it is saved; `None` if it is as after power-on.
    pub(super) fn save(&self, now_ns: u64) -> Option<SavedQueue> {
        let parked = match self.place {
            Place::InFlight(_) => Some(self.stage.park(now_ns)),
            Place::Idle | Place::Runnable => self.parked.clone(),
        };
        let saved = SavedQueue {
            sqc: self.sqc.as_ref().map(|sqc| SavedContext(sqc.encode())),
            cqc: self.cqc.as_ref().map(|cqc| SavedContext(cqc.encode())),
            sq_live: self.sq_live,
            cq_live: self.cq_live,
            is_halted: self.is_halted,
            overflow_told: self.overflow_told,
            wants_event: self.wants_event,
            doorbell_low: self.bell_low,
            sqes: self.sqes,
            cqes: self.cqes,
            task: parked.map(SavedTask::of),
        };
        let is_new = saved.sqc.is_none()
            && saved.cqc.is_none()
            && !(self.sq_live || self.cq_live || self.is_halted || self.overflow_told || self.wants_event)
            && (self.bell_low, self.sqes, self.cqes) == (0, 0, 0);
        (!is_new).then_some(saved)
    }

    /// Takes up what [`Self::save`] has given.
    pub(super) fn restore(&mut self, saved: SavedQueue) -> Result<(), RestoreError> {
        let SavedQueue { sqc, cqc, sq_live, cq_live, is_halted, overflow_told, wants_event, .. } = saved;
        let log2_sqe = self.log2_sqe;
        let sqc = sqc.map(|SavedContext(image)| {
            let sqc = Sqc::decode(&image).filter(|sqc| sqc.log2_sqe == log2_sqe);
            sqc.ok_or_else(|| RestoreError::value("SQC", "is none that the device would accept"))
        });
        let cqc = cqc.map(|SavedContext(image)| {
            Cqc::decode(&image)
                .ok_or_else(|| RestoreError::value("CQC", "is none that the device would accept"))
        });
        (self.sqc, self.cqc) = (sqc.transpose()?, cqc.transpose()?);
        if sq_live && self.sqc.is_none() || cq_live && self.cqc.is_none() {
            return Err(RestoreError::value("sq_live", "a queue without its context"));
        }
        (self.sq_live, self.cq_live) = (sq_live, cq_live);
        (self.is_halted, self.overflow_told, self.wants_event) = (is_halted, overflow_told, wants_event);
        (self.bell_low, self.sqes, self.cqes) = (saved.doorbell_low, saved.sqes, saved.cqes);
        if let Some(task) = saved.task {
            if !self.is_live() || is_halted {
                return Err(RestoreError::value("task", "the queue does not run"));
            }
            self.parked = Some(task.parked(1 << log2_sqe).map_err(|error| error.within("task"))?);
        }
        Ok(())
    }

    /// A task of the present life is over: accesses from now on are made for the first time.
    pub(super) fn ended(&self, task: &Task) {
        if task.parked.is_some() {
            self.waiter.set_made_again(false);
        }
    }

    /// The completion of a task of the present life is in memory. Whether an event is due for it.
    pub(super) fn complete(&mut self) -> bool {
        self.cqes = self.cqes.wrapping_add(1);
        let (Some(sqc), Some(cqc)) = (&mut self.sqc, &mut self.cqc) else {
            unreachable!("contexts are only forgotten when a queue is not live, and that ends its life")
        };
        sqc.head = next(sqc.head, sqc.depth).0;
        cqc.advance();
        // Software that has read the entry needs no event for it: it is armed for the next one.
        cqc.tail != cqc.head && std::mem::take(&mut cqc.armed)
    }
}
