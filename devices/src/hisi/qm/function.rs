//! What each function has for itself: its registers, mailbox and doorbells, its queues, event rings and context tables, and
//! how far it has come with stopping queues. Nothing here knows of workers or of other functions.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use hw::regmap::Store;
use hw::trace::Mark;
use hw::{Activity, Iova, Waiter};

use super::context::{CONTEXT_BYTES, ContextImage, Cqc, Doorbell, Eqc, Sqc, entry};
use super::device::FUNCTION_QUEUES;
use super::events::{Action, Events, Ring};
use super::mailbox::{Context, Mailbox};
use super::patience::Patience;
use super::queue::{Place, Queue};
use super::regs::{QmReg, is_of_function};
use super::saved::SavedQueue;
use super::task::TaskState;

/// A mailbox command that waits until tasks are finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Queue(u16),
    Function,
}

/// What a doorbell has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// Nothing.
    Ignored,
    /// Nothing, because its index is none of this many entries.
    OutsideRing(u16),
    /// Its queue has commands that it had not: what a timeline says of it.
    Submitted(Mark),
    /// Its queue may have something to do.
    Runnable,
    /// So may it, and an event of it has become due.
    EventDue,
}

#[derive(Debug)]
pub(super) struct Function {
    pub(super) regs: Store<QmReg>,
    pub(super) mailbox: Mailbox,
    /// Low halves of doorbells that arrive in two writes.
    pub(super) bell_low: [u32; 2],
    pub(super) events: Events,
    pub(super) patience: Patience,
    /// As many as a function can have.
    queues: Vec<Queue>,
    /// How many of them the table of functions gives it: what mailbox, doorbells and events may name.
    count: u16,
    pub(super) sqc_table: Option<Iova>,
    pub(super) cqc_table: Option<Iova>,
    stop: Option<Stop>,
    log2_sqe: u8,
}

impl Function {
    pub(super) fn new(log2_sqe: u8, activity: &Arc<Activity>) -> Self {
        Self {
            regs: Store::at_reset_of(is_of_function),
            mailbox: Mailbox::at_reset(),
            bell_low: [0; 2],
            events: Events::new(activity),
            patience: Patience::default(),
            queues: (0..FUNCTION_QUEUES).map(|_| Queue::new(log2_sqe, activity)).collect(),
            count: 0,
            sqc_table: None,
            cqc_table: None,
            stop: None,
            log2_sqe,
        }
    }

    /// As after power-on; what is under way is given up.
    pub(super) fn reset(&mut self) {
        // By name: a new field must be decided on here.
        let Self {
            regs,
            mailbox,
            bell_low,
            events,
            patience,
            queues,
            count,
            sqc_table,
            cqc_table,
            stop,
            log2_sqe: _,
        } = self;
        *regs = Store::at_reset_of(is_of_function);
        mailbox.reset();
        *bell_low = [0; 2];
        events.reset();
        *patience = Patience::default();
        queues.iter_mut().for_each(Queue::reset);
        *count = 0;
        (*sqc_table, *cqc_table, *stop) = (None, None, None);
    }

    // ---- queues

    /// A queue that the function has.
    pub(super) fn queue(&mut self, qn: u16) -> Option<&mut Queue> {
        if qn >= self.count {
            return None;
        }
        self.queues.get_mut(usize::from(qn))
    }

    /// A queue that a task or the list of runnable queues names, whether or not the function still has it.
    pub(super) fn known(&mut self, qn: u16) -> &mut Queue {
        self.queues.get_mut(usize::from(qn)).expect("only queues that there are become runnable")
    }

    /// A queue that a register or an address names, whether or not the function has it.
    pub(super) fn place_of(&mut self, qn: usize) -> Option<&mut Queue> {
        self.queues.get_mut(qn)
    }

    pub(super) const fn has_queue(&self, qn: u16) -> bool {
        qn < self.count
    }

    /// The table of functions gives it so many queues; those beyond end.
    pub(super) fn set_count(&mut self, count: u16) {
        self.count = count;
        self.queues.iter_mut().skip(usize::from(count)).for_each(Queue::kill);
    }

    pub(super) fn kill_all(&mut self) {
        self.queues.iter_mut().for_each(Queue::kill);
    }

    /// Internal memory is initialised: no context is there any more. No queue is live.
    pub(super) fn forget_contexts(&mut self) {
        self.queues.iter_mut().for_each(Queue::forget_contexts);
        self.events.forget_contexts();
    }

    /// Where the tasks are that workers have.
    pub(super) fn task_states(&self) -> Vec<TaskState> {
        (0..).zip(&self.queues).filter_map(|(qn, queue)| queue.task_state(qn)).collect()
    }

    /// The queues that are not as after power-on, by number.
    pub(super) fn save_queues(&self, now_ns: u64) -> BTreeMap<String, SavedQueue> {
        let queues = self.queues.iter().enumerate();
        queues.filter_map(|(qn, queue)| Some((qn.to_string(), queue.save(now_ns)?))).collect()
    }

    /// Whether a task of this queue has begun that is not complete.
    pub(super) fn has_begun(&self, qn: u16) -> bool {
        self.queues.get(usize::from(qn)).is_some_and(Queue::has_begun)
    }

    /// Whether a task is under way that no worker has taken up after a restore.
    pub(super) fn has_parked(&self) -> bool {
        self.queues.iter().any(|queue| queue.has_begun() && !queue.is_in_flight())
    }

    /// Whether all tasks that workers have wait for the guest or for guest time, and so does the writer of events.
    pub(super) fn is_still(&self) -> bool {
        self.queues.iter().all(|queue| !queue.is_in_flight() || queue.waits()) && self.events.is_still()
    }

    // ---- doorbells

    pub(super) fn ring_sq(&mut self, bell: Doorbell, now_ns: u64) -> Rung {
        let is_stopping = match self.stop {
            Some(Stop::Queue(qn)) => qn == bell.qn(),
            Some(Stop::Function) => true,
            None => false,
        };
        // Priority 1 is not a submission: live migration rings it after it has restored the contexts.
        if is_stopping || bell.priority() != 0 {
            return Rung::Ignored;
        }
        let Some(queue) = self.queue(bell.qn()) else { return Rung::Ignored };
        if let Some(sqc) = queue.sqc.as_ref().filter(|sqc| queue.is_live() && bell.index() >= sqc.depth) {
            return Rung::OutsideRing(sqc.depth);
        }
        queue.submit(bell, now_ns).map_or(Rung::Ignored, Rung::Submitted)
    }

    pub(super) fn ring_cq(&mut self, bell: Doorbell) -> Rung {
        let Some(queue) = self.queue(bell.qn()).filter(|queue| queue.is_live()) else { return Rung::Ignored };
        let is_in_flight = queue.has_begun();
        let Some(cqc) = &mut queue.cqc else { return Rung::Ignored };
        if bell.index() >= cqc.depth {
            return Rung::OutsideRing(cqc.depth);
        }
        cqc.head = bell.index();
        queue.overflow_told = false;
        if bell.priority() & 1 != 0 {
            // A completion counts only after it is in memory, where software may have read it already.
            let has_read_ahead = is_in_flight && cqc.is_full();
            // Software does not look again after this doorbell: entries that it has not seen raise an event now.
            cqc.armed = cqc.tail == cqc.head || has_read_ahead;
            if !cqc.armed {
                self.post_event(bell.qn());
                return Rung::EventDue;
            }
        }
        Rung::Runnable
    }

    pub(super) fn post_event(&mut self, qn: u16) {
        if !std::mem::replace(&mut self.known(qn).wants_event, true) {
            self.events.post(qn);
        }
    }

    /// What the event writer does next, and what its access waits on; see [`Events::next`].
    pub(super) fn next_event(&mut self) -> Option<(Action, Arc<Waiter>)> {
        let Self { events, queues, .. } = self;
        let action = events.next(|qn| {
            queues.get_mut(usize::from(qn)).is_some_and(|queue| std::mem::take(&mut queue.wants_event))
        })?;
        Some((action, events.waiter(action)))
    }

    // ---- contexts

    /// A context of a queue or ring, read from memory, takes effect. Whether it was accepted.
    pub(super) fn load(&mut self, context: Context, image: &ContextImage) -> bool {
        match context {
            Context::Sqc(qn) => {
                let log2_sqe = self.log2_sqe;
                let decoded = Sqc::decode(image).filter(|sqc| sqc.log2_sqe == log2_sqe);
                let (Some(sqc), Some(queue)) = (decoded, self.queue(qn)) else { return false };
                queue.new_life();
                queue.sqc = Some(sqc);
                queue.sq_live = true;
            }
            Context::Cqc(qn) => {
                let (Some(cqc), Some(queue)) = (Cqc::decode(image), self.queue(qn)) else { return false };
                queue.new_life();
                queue.cqc = Some(cqc);
                queue.cq_live = true;
            }
            Context::Eqc => {
                let Some(eqc) = Eqc::decode(image) else { return false };
                // The first command of the function's next start: its old queues are gone, with all that they were owed.
                self.kill_all();
                self.events.give_up();
                self.events.load(Ring::Eq, eqc);
            }
            Context::Aeqc => {
                let Some(aeqc) = Eqc::decode(image) else { return false };
                self.events.load(Ring::Aeq, aeqc);
            }
        }
        true
    }

    pub(super) fn dump(&mut self, context: Context) -> Option<ContextImage> {
        const EMPTY: ContextImage = [0; CONTEXT_BYTES];
        Some(match context {
            Context::Sqc(qn) => self.queue(qn)?.sqc.as_ref().map_or(EMPTY, Sqc::encode),
            Context::Cqc(qn) => self.queue(qn)?.cqc.as_ref().map_or(EMPTY, Cqc::encode),
            Context::Eqc => self.events.eq.context.as_ref().map_or(EMPTY, Eqc::encode),
            Context::Aeqc => self.events.aeq.context.as_ref().map_or(EMPTY, Eqc::encode),
        })
    }

    /// Whether a write-back would write anything.
    pub(super) fn has_table_images(&self) -> bool {
        (self.sqc_table.is_some() || self.cqc_table.is_some()) && self.queues.iter().any(Queue::is_live)
    }

    /// What a write-back writes, and where.
    pub(super) fn table_images(&self) -> Vec<(Iova, ContextImage)> {
        let mut tables = Vec::new();
        for (qn, queue) in (0..self.count).zip(&self.queues).filter(|(_, queue)| queue.is_live()) {
            let slot = |table: Option<Iova>| table.map(|base| entry(base, qn, CONTEXT_BYTES as u64));
            if let (Some(at), Some(sqc)) = (slot(self.sqc_table), &queue.sqc) {
                tables.push((at, sqc.encode()));
            }
            if let (Some(at), Some(cqc)) = (slot(self.cqc_table), &queue.cqc) {
                tables.push((at, cqc.encode()));
            }
        }
        tables
    }

    // ---- stopping

    pub(super) const fn begin_stop(&mut self, stop: Stop) {
        self.stop = Some(stop);
    }

    /// Whether queues are being stopped.
    pub(super) const fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether queues are being stopped and have nothing more to do.
    pub(super) fn is_stop_over(&self) -> bool {
        let is_busy = |queue: &Queue| queue.is_in_flight() || queue.is_ready();
        self.is_stopping() && !self.stopping().iter().any(is_busy)
    }

    /// The stop is over: its queues end.
    pub(super) fn end_stop(&mut self) {
        self.kill_stopping();
        self.stop = None;
    }

    /// A stop has taken too long: the rest of the work is dropped.
    pub(super) fn cut_stop(&mut self) {
        if let Some(stop) = &self.stop {
            log::debug!("{stop:?} is not stopped in time: what is left of its work is dropped");
        }
        self.kill_stopping();
    }

    /// Whether polls for the end of a stop are answered at once: a task waits for a page, and there is time to serve it.
    pub(super) fn is_polled(&self, now_ns: u64) -> bool {
        now_ns < self.patience.polled_ns && self.stopping().iter().any(Queue::waits)
    }

    /// The queues that are being stopped.
    fn stopping(&self) -> &[Queue] {
        self.queues.get(self.stopping_range()).unwrap_or_default()
    }

    fn stopping_range(&self) -> Range<usize> {
        match self.stop {
            None => 0..0,
            Some(Stop::Queue(qn)) => usize::from(qn)..usize::from(qn) + 1,
            Some(Stop::Function) => 0..self.queues.len(),
        }
    }

    fn kill_stopping(&mut self) {
        let range = self.stopping_range();
        self.queues.get_mut(range).unwrap_or_default().iter_mut().for_each(Queue::kill);
    }

    // ---- scheduling, as far as one queue goes

    /// Makes a queue runnable that has something to do, is not yet, and of which no worker has a task.
    pub(super) fn make_runnable(&mut self, qn: u16) -> Schedule {
        let queue = self.known(qn);
        if queue.place != Place::Idle || !queue.has_tasks() {
            return Schedule::Nothing;
        }
        if queue.is_ready() {
            queue.place = Place::Runnable;
            Schedule::Enqueue
        } else if !std::mem::replace(&mut queue.overflow_told, true) {
            Schedule::Overflow
        } else {
            Schedule::Nothing
        }
    }
}

/// What becomes of a queue that may have something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    Nothing,
    /// It goes to the end of the list.
    Enqueue,
    /// Its completions have no room, which has not been told yet.
    Overflow,
}
