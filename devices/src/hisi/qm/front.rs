//! All state of the queue manager, under one lock, and its transitions. Nothing here waits or makes DMA.
//!
//! A queue is *live* from the commands that load its two contexts until it is stopped; doorbells of other queues are
//! ignored. Each start and stop begins a new *life*: what a worker brings back from an older one does not count, and
//! the accesses of an older one are given up through its `Waiter`.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use hw::{Iova, Pasid, Waiter};

use super::context::{
    AsyncEvent, CONTEXT_BYTES, CQE_BYTES, ContextImage, Cqc, CqeTail, Doorbell, Eqc, Sqc, entry, next,
};
use super::counters::Counters;
use super::crew::Crew;
use super::engine::QueueInfo;
use super::events::{Action, Events, Ring};
use super::mailbox::{Command, Context, Mailbox, STATUS_REFUSED};
use super::patience::{Patience, Poll};
use super::queue::{Place, Queue};
use super::regs::QmReg;
use super::vft::Vft;
use crate::bank::Bank;

/// Queues of the device.
pub(super) const DEVICE_QUEUES: u16 = 1024;
/// Most queues of one function: as many as have a doorbell page of their own.
pub(super) const FUNCTION_QUEUES: u16 = 256;

/// Error bits of the abnormal interrupt.
pub(super) mod error {
    pub(in crate::hisi::qm) const AXI_RRESP: u32 = 1 << 0;
    pub(in crate::hisi::qm) const AXI_BRESP: u32 = 1 << 1;
}

/// Commands of doorbells.
mod doorbell {
    pub(super) const SQ: u8 = 0;
    pub(super) const CQ: u8 = 1;
    pub(super) const EQ: u8 = 2;
    pub(super) const AEQ: u8 = 3;
}

/// One SQE to execute, with all that a worker needs to know of it.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) info: QueueInfo,
    life: u64,
    /// Place of the SQE in its ring.
    index: u16,
    /// Where the SQE is.
    pub(super) at: Iova,
    pub(super) pasid: Option<Pasid>,
    pub(super) waiter: Arc<Waiter>,
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

/// A mailbox command that waits until tasks are finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    Queue(u16),
    Function,
}

/// Accesses for the control worker to make.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    Load { context: Context, at: Iova, life: u64, waiter: Arc<Waiter> },
    Dump { at: Iova, image: ContextImage, bytes: usize, life: u64, waiter: Arc<Waiter> },
    WriteBack { tables: Vec<(Iova, ContextImage)>, life: u64, waiter: Arc<Waiter> },
    Hire(usize),
}

impl Errand {
    /// Contexts of queues have 32 bytes, those of event queues 28.
    pub(super) const fn is_queue_context(&self) -> bool {
        matches!(self, Self::Load { context: Context::Sqc(_) | Context::Cqc(_), .. })
    }
}

/// Who must be woken once the lock is free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wake {
    pub(super) workers: usize,
    pub(super) control: bool,
    /// Readers of a busy mailbox.
    pub(super) readers: bool,
    /// A mailbox command has begun that is not done yet: it may take so long and no longer.
    pub(super) command_began: bool,
    /// So has a write-back.
    pub(super) write_back_began: bool,
}

#[derive(Debug)]
pub(super) struct Front {
    pub(super) regs: Bank<QmReg>,
    pub(super) counters: Counters,
    pub(super) mailbox: Mailbox,
    /// Low halves of doorbells that arrive in two writes.
    pub(super) bell_low: [u32; 2],
    pub(super) vft: Vft,
    pub(super) queues: Vec<Queue>,
    pub(super) events: Events,
    runnable: VecDeque<u16>,
    pub(super) crew: Crew,
    /// Accesses of workers under way: tasks, errands.
    in_flight: usize,
    sqc_table: Option<Iova>,
    cqc_table: Option<Iova>,
    drain: Option<Drain>,
    /// The AXI master is shut down: no new DMA.
    pub(super) is_shut: bool,
    /// A mailbox command that needs DMA.
    mailbox_errand: Option<(Command, u64)>,
    write_back_due: bool,
    is_write_back_asked: bool,
    /// Write-backs so far; tells what a poll waits for from what began later.
    write_backs: u64,
    hires_due: usize,
    /// Of errands; replaced at reset.
    errand_waiter: Arc<Waiter>,
    /// Counts resets, so that an errand of an older life has no effect.
    life: u64,
    pub(super) patience: Patience,
    pub(super) wake: Wake,
    pub(super) is_shutting_down: bool,
    log2_sqe: u8,
}

impl Front {
    pub(super) fn at_reset(log2_sqe: u8, limit: usize) -> Self {
        Self {
            regs: Bank::at_reset(),
            counters: Counters::default(),
            mailbox: Mailbox::at_reset(),
            bell_low: [0; 2],
            vft: Vft::at_reset(),
            queues: (0..FUNCTION_QUEUES).map(|_| Queue::at_reset()).collect(),
            events: Events::at_reset(),
            runnable: VecDeque::new(),
            crew: Crew::new(limit),
            in_flight: 0,
            sqc_table: None,
            cqc_table: None,
            drain: None,
            is_shut: false,
            mailbox_errand: None,
            write_back_due: false,
            is_write_back_asked: false,
            write_backs: 0,
            hires_due: 0,
            errand_waiter: Waiter::new(),
            life: 0,
            patience: Patience::default(),
            wake: Wake::default(),
            is_shutting_down: false,
            log2_sqe,
        }
    }

    /// Function-level reset: all state goes, and accesses under way are given up. Workers stay.
    pub(super) fn reset(&mut self) {
        self.kill_all();
        let Self {
            regs,
            counters,
            mailbox,
            bell_low,
            vft,
            queues,
            events,
            runnable: _, // queues in it are no longer live and are passed over
            crew: _,
            in_flight: _, // workers count themselves out
            sqc_table,
            cqc_table,
            drain,
            is_shut,
            mailbox_errand,
            write_back_due,
            is_write_back_asked,
            write_backs: _,
            hires_due: _,
            errand_waiter,
            life,
            patience: _,
            wake,
            is_shutting_down: _,
            log2_sqe: _,
        } = self;
        *regs = Bank::at_reset();
        *counters = Counters::default();
        mailbox.reset();
        *bell_low = [0; 2];
        *vft = Vft::at_reset();
        for queue in queues {
            (queue.sqc, queue.cqc) = (None, None);
            (queue.sqes, queue.cqes, queue.bell_low) = (0, 0, 0);
        }
        events.reset();
        (*sqc_table, *cqc_table, *drain, *mailbox_errand) = (None, None, None, None);
        (*is_shut, *write_back_due, *is_write_back_asked) = (false, false, false);
        errand_waiter.cancel();
        *errand_waiter = Waiter::new();
        *life += 1;
        wake.readers = true;
    }

    /// Queues that the function has: what mailbox, doorbells and events may name.
    fn limit(&self) -> u16 {
        self.vft.pf_queues(DEVICE_QUEUES).min(FUNCTION_QUEUES)
    }

    fn queue(&mut self, qn: u16) -> Option<&mut Queue> {
        if qn >= self.limit() {
            return None;
        }
        self.queues.get_mut(usize::from(qn))
    }

    pub(super) fn kill_from(&mut self, first: u16) {
        self.queues.iter_mut().skip(usize::from(first)).for_each(Queue::kill);
        self.check_drain();
    }

    pub(super) fn kill_all(&mut self) {
        self.kill_from(0);
    }

    /// The table of functions has changed: queues that are no longer the function's end.
    pub(super) fn vft_changed(&mut self) {
        self.kill_from(self.limit());
    }

    /// Internal memory is initialised: contexts and the table of functions are empty.
    pub(super) fn initialise_memory(&mut self) {
        self.kill_all();
        self.vft = Vft::at_reset();
        for queue in &mut self.queues {
            (queue.sqc, queue.cqc) = (None, None);
        }
        self.events.eq.context = None;
        self.events.aeq.context = None;
    }

    // ---- doorbells

    /// A doorbell of a queue has rung.
    pub(super) fn ring_queue(&mut self, bell: Doorbell) {
        self.counters.doorbell(bell.into());
        match bell.command() {
            doorbell::SQ => self.ring_sq(bell),
            doorbell::CQ => self.ring_cq(bell),
            _ => {}
        }
    }

    /// A doorbell of the function has rung. These have an address of their own, which no process is given.
    pub(super) fn ring_events(&mut self, bell: Doorbell) {
        self.counters.doorbell(bell.into());
        match bell.command() {
            doorbell::EQ => self.wake.control |= self.events.doorbell(Ring::Eq, bell.index()),
            doorbell::AEQ => self.wake.control |= self.events.doorbell(Ring::Aeq, bell.index()),
            _ => {}
        }
    }

    fn ring_sq(&mut self, bell: Doorbell) {
        let closing = match self.drain {
            Some(Drain::Queue(qn)) => qn == bell.qn(),
            Some(Drain::Function) => true,
            None => false,
        };
        // Priority 1 is not a submission: live migration rings it after it has restored the contexts.
        if closing || bell.priority() != 0 {
            return;
        }
        let Some(queue) = self.queue(bell.qn()).filter(|queue| queue.is_live()) else { return };
        let Some(sqc) = &mut queue.sqc else { return };
        if bell.random() != sqc.random || bell.index() >= sqc.depth {
            return;
        }
        sqc.wrap ^= bell.index() < sqc.tail;
        sqc.tail = bell.index();
        self.schedule(bell.qn());
    }

    fn ring_cq(&mut self, bell: Doorbell) {
        let Some(queue) = self.queue(bell.qn()).filter(|queue| queue.is_live()) else { return };
        let Some(cqc) = &mut queue.cqc else { return };
        if bell.index() >= cqc.depth {
            return;
        }
        cqc.head = bell.index();
        queue.overflow_told = false;
        if bell.priority() & 1 != 0 {
            // A completion counts only after it is in memory, where software may have read it already.
            let has_read_ahead = queue.place == Place::Running && cqc.is_full();
            // Software does not look again after this doorbell: entries that it has not seen raise an event now.
            cqc.armed = cqc.tail == cqc.head || has_read_ahead;
            if !cqc.armed {
                self.post_event(bell.qn());
                self.wake.control |= self.events.is_due();
            }
        }
        self.schedule(bell.qn());
    }

    // ---- scheduling

    /// Puts a queue that has something to do at the end of the line.
    fn schedule(&mut self, qn: u16) {
        if self.is_shut || self.is_shutting_down {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(qn)) else { return };
        if queue.place != Place::Idle || !queue.has_tasks() {
            return;
        }
        if !queue.is_ready() {
            if !std::mem::replace(&mut queue.overflow_told, true) {
                self.events.post_trouble(AsyncEvent::CqOverflow, qn);
                self.wake.control = true;
            }
            return;
        }
        queue.place = Place::Waiting;
        self.runnable.push_back(qn);
        self.call_worker();
    }

    /// Sees to it that there is a worker for the queue that has just become runnable.
    fn call_worker(&mut self) {
        if self.runnable.len() <= self.crew.idle {
            self.wake.workers += 1;
        } else if self.crew.hire() {
            self.hires_due += 1;
            self.wake.control = true;
        }
    }

    /// The next task of the queue whose turn it is.
    pub(super) fn take_task(&mut self) -> Option<Task> {
        if self.is_shutting_down {
            return None;
        }
        while let Some(qn) = self.runnable.pop_front() {
            let is_held = self.is_shut || qn >= self.limit();
            let Some(queue) = self.queues.get_mut(usize::from(qn)) else { continue };
            queue.place = Place::Idle;
            if is_held || !queue.is_ready() {
                continue;
            }
            let Some(sqc) = &queue.sqc else { continue };
            queue.place = Place::Running;
            queue.sqes = queue.sqes.wrapping_add(1);
            self.in_flight += 1;
            self.counters.sent_to_engine();
            return Some(Task {
                info: QueueInfo { qn, queue_type: sqc.queue_type },
                life: queue.life,
                index: sqc.head,
                at: entry(sqc.base, sqc.head, 1 << sqc.log2_sqe),
                pasid: sqc.pasid,
                waiter: Arc::clone(&queue.waiter),
            });
        }
        None
    }

    /// The engine is done with a task and its SQE is back in memory: what its completion says. `None` if the queue
    /// has been stopped.
    pub(super) fn completion(&mut self, task: &Task) -> Option<Completion> {
        let queue = self.queues.get(usize::from(task.info.qn))?;
        if queue.life != task.life || self.is_shut {
            return None;
        }
        let (sqc, cqc) = (queue.sqc.as_ref()?, queue.cqc.as_ref()?);
        self.counters.back_from_engine();
        let tail = CqeTail::new().with_sq_head(sqc.head).with_sq_num(task.info.qn).with_phase(cqc.phase);
        Some(Completion { at: entry(cqc.base, cqc.tail, CQE_BYTES), tail: tail.into() })
    }

    /// A worker gives its task back.
    pub(super) fn finish_task(&mut self, task: &Task, outcome: Outcome) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let qn = task.info.qn;
        let Some(queue) = self.queues.get_mut(usize::from(qn)) else { return };
        queue.place = Place::Idle;
        if queue.life == task.life {
            match outcome {
                Outcome::Completed => self.count_completion(qn),
                // Its waiter is only cancelled with a new life; this is the answer if a port says otherwise.
                Outcome::Cancelled => queue.is_halted = true,
                Outcome::SqeUnreadable => {
                    queue.is_halted = true;
                    self.raise_error(error::AXI_RRESP);
                }
                Outcome::SqeUnwritable => {
                    queue.is_halted = true;
                    self.raise_error(error::AXI_BRESP);
                }
                Outcome::CqeUnwritable => {
                    queue.is_halted = true;
                    self.counters.completion_error();
                    self.events.post_trouble(AsyncEvent::CqeError, qn);
                }
            }
        }
        self.schedule(qn);
        self.check_drain();
    }

    fn count_completion(&mut self, qn: u16) {
        let Some(queue) = self.queues.get_mut(usize::from(qn)) else { return };
        queue.cqes = queue.cqes.wrapping_add(1);
        if let Some(sqc) = &mut queue.sqc {
            sqc.head = next(sqc.head, sqc.depth).0;
        }
        let is_armed = queue.cqc.as_mut().is_some_and(|cqc| {
            cqc.advance();
            // Software that has read the entry needs no event for it: it is armed for the next one.
            cqc.tail != cqc.head && std::mem::take(&mut cqc.armed)
        });
        self.counters.finished();
        if is_armed {
            self.post_event(qn);
        }
    }

    fn post_event(&mut self, qn: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(qn))
            && !std::mem::replace(&mut queue.wants_event, true)
        {
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

    /// Latches an error, and shuts the master or asks for the interrupt if it has been told to.
    pub(super) fn raise_error(&mut self, bits: u32) {
        let source = self.regs.get(QmReg::ABNORMAL_INT_SOURCE);
        self.regs.set(QmReg::ABNORMAL_INT_SOURCE, source | bits);
        if self.regs.get(QmReg::OOO_SHUTDOWN_SEL) & bits != 0 {
            self.shut_master();
        }
        if bits & !self.regs.get(QmReg::ABNORMAL_INT_MASK) != 0 {
            self.events.post_abnormal();
            self.wake.control = true;
        }
    }

    /// No new DMA: what is under way is given up, and no queue is live.
    pub(super) fn shut_master(&mut self) {
        self.is_shut = true;
        self.kill_all();
        self.events.give_up();
        self.errand_waiter.cancel();
        self.errand_waiter = Waiter::new();
    }

    /// Whether no access is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight == 0 && !self.events.is_writing()
    }

    /// Whether no task is in the device.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.runnable.is_empty()
    }

    // ---- mailbox

    /// Begins a command. Those without DMA and without a wait are done at once.
    pub(super) fn start_command(&mut self, command: Command) {
        self.counters.mailbox();
        match command {
            Command::Load(..) | Command::Dump(..) => {
                self.mailbox_errand = Some((command, self.mailbox.life));
                self.wake.control = true;
                self.wake.command_began = true;
            }
            Command::SetSqcTable(at) => {
                self.sqc_table = Some(at);
                self.finish_command(0, None);
            }
            Command::SetCqcTable(at) => {
                self.cqc_table = Some(at);
                self.finish_command(0, None);
            }
            Command::GetSqcTable => self.finish_command(0, Some(self.sqc_table.map_or(0, |at| at.0))),
            Command::GetCqcTable => self.finish_command(0, Some(self.cqc_table.map_or(0, |at| at.0))),
            Command::GetVft => self.finish_command(0, Some(self.vft.get(0, 0))),
            Command::StopQueue(qn) if qn >= self.limit() => self.finish_command(STATUS_REFUSED, None),
            Command::StopQueue(qn) => self.start_drain(Drain::Queue(qn)),
            Command::Flush => self.start_drain(Drain::Function),
            Command::Unknown => self.finish_command(STATUS_REFUSED, None),
        }
    }

    pub(super) fn finish_command(&mut self, status: u8, data: Option<u64>) {
        self.mailbox.finish(status, data);
        self.wake.readers = true;
    }

    fn start_drain(&mut self, drain: Drain) {
        self.drain = Some(drain);
        self.check_drain();
        self.wake.command_began = self.drain.is_some();
    }

    /// Whether queues are being stopped.
    pub(super) const fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether polls for the end of a stop are answered at once: a task waits for a page, and there is time to serve it.
    pub(super) fn is_polled(&self, now_ns: u64) -> bool {
        now_ns < self.patience.polled_ns && self.draining().iter().any(|queue| queue.waiter.is_waiting())
    }

    /// The queues that are being stopped.
    fn draining(&self) -> &[Queue] {
        self.queues.get(self.drained()).unwrap_or_default()
    }

    fn drained(&self) -> Range<usize> {
        match self.drain {
            None => 0..0,
            Some(Drain::Queue(qn)) => usize::from(qn)..usize::from(qn) + 1,
            Some(Drain::Function) => 0..self.queues.len(),
        }
    }

    fn kill_drained(&mut self) {
        let drained = self.drained();
        self.queues.get_mut(drained).unwrap_or_default().iter_mut().for_each(Queue::kill);
    }

    /// A stop has taken too long: the rest of the work is dropped.
    pub(super) fn cut_drain(&mut self) {
        if let Some(drain) = &self.drain {
            log::debug!("{drain:?} is not stopped in time: what is left of its work is dropped");
        }
        self.kill_drained();
        self.check_drain();
    }

    /// What a read at this offset of BAR2 asks whether it is done, if it does.
    pub(super) fn poll(&self, offset: u64) -> Option<Poll> {
        match offset {
            super::offset::MAILBOX => Some(Poll::Command(self.mailbox.life)),
            super::offset::CACHE_WB_DONE => Some(Poll::WriteBack(self.write_backs)),
            _ => None,
        }
    }

    /// Whether whoever has asked this is to be held further. What has begun since then is not what was asked for: a
    /// poll is held for one command at most.
    pub(super) fn holds(&self, poll: Poll, now_ns: u64) -> bool {
        let is_under_way = match poll {
            Poll::Command(life) => self.mailbox.is_started() && self.mailbox.life == life,
            Poll::WriteBack(count) => self.is_writing_back() && self.write_backs == count,
        };
        is_under_way && self.patience.lasts(poll, now_ns) && !self.is_polled(now_ns) && !self.is_shutting_down
    }

    /// When to look again at what takes long.
    pub(super) fn next_look_ns(&self, now_ns: u64) -> Option<u64> {
        self.patience.next_ns(now_ns, self.is_draining(), self.mailbox.is_started(), self.is_writing_back())
    }

    /// Completes a stop once its queues have nothing more to do.
    fn check_drain(&mut self) {
        let busy = |queue: &Queue| queue.place == Place::Running || queue.is_ready();
        if self.drain.is_none() || self.draining().iter().any(busy) {
            return;
        }
        self.kill_drained();
        self.drain = None;
        self.finish_command(0, None);
    }

    /// A context read from memory takes effect. Whether it was accepted.
    fn load(&mut self, context: Context, image: &ContextImage) -> bool {
        match context {
            Context::Sqc(qn) => {
                let log2_sqe = self.log2_sqe;
                let decoded = Sqc::decode(image).filter(|sqc| sqc.log2_sqe == log2_sqe);
                let (Some(sqc), Some(queue)) = (decoded, self.queue(qn)) else { return false };
                queue.new_life();
                queue.sqc = Some(sqc);
                queue.sq_live = true;
                self.schedule(qn);
            }
            Context::Cqc(qn) => {
                let (Some(cqc), Some(queue)) = (Cqc::decode(image), self.queue(qn)) else { return false };
                queue.new_life();
                queue.cqc = Some(cqc);
                queue.cq_live = true;
                self.schedule(qn);
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

    fn dump(&mut self, context: Context) -> Option<ContextImage> {
        const EMPTY: ContextImage = [0; CONTEXT_BYTES];
        Some(match context {
            Context::Sqc(qn) => self.queue(qn)?.sqc.as_ref().map_or(EMPTY, Sqc::encode),
            Context::Cqc(qn) => self.queue(qn)?.cqc.as_ref().map_or(EMPTY, Cqc::encode),
            Context::Eqc => self.events.eq.context.as_ref().map_or(EMPTY, Eqc::encode),
            Context::Aeqc => self.events.aeq.context.as_ref().map_or(EMPTY, Eqc::encode),
        })
    }

    // ---- errands of the control worker

    /// Cached contexts go back to the tables. Done at once if there is nothing to write.
    pub(super) fn start_write_back(&mut self) {
        let is_needed = !self.is_shut
            && (self.sqc_table.is_some() || self.cqc_table.is_some())
            && self.queues.iter().any(Queue::is_live);
        // Asked for again while one is under way, it takes as long as it does: its time does not begin anew.
        if is_needed && !self.is_writing_back() {
            self.write_backs += 1;
            self.wake.write_back_began = true;
        }
        self.regs.set(QmReg::CACHE_WB_DONE, u32::from(!is_needed));
        self.write_back_due = is_needed;
        self.is_write_back_asked = true;
        self.wake.control |= is_needed;
        self.wake.readers |= !is_needed;
    }

    /// Whether a write-back has been asked for and is not done.
    pub(super) fn is_writing_back(&self) -> bool {
        self.is_write_back_asked && self.regs.get(QmReg::CACHE_WB_DONE) == 0
    }

    /// Whether the control worker has something to do.
    pub(super) fn has_errand(&self) -> bool {
        self.hires_due != 0
            || self.mailbox_errand.is_some()
            || self.write_back_due
            || (self.events.is_due() && !self.events.is_writing())
    }

    /// The next thing for the control worker to do; [`Self::finish_errand`] follows.
    pub(super) fn next_errand(&mut self) -> Option<Errand> {
        let waiter = || Arc::clone(&self.errand_waiter);
        if self.hires_due != 0 {
            return Some(Errand::Hire(std::mem::take(&mut self.hires_due)));
        }
        if let Some((command, life)) = self.mailbox_errand.take() {
            let errand = match command {
                _ if self.is_shut => None,
                Command::Load(context, at) => Some(Errand::Load { context, at, life, waiter: waiter() }),
                Command::Dump(context, at) => {
                    let waiter = waiter();
                    self.dump(context).map(|image| {
                        let bytes = match context {
                            Context::Sqc(_) | Context::Cqc(_) => CONTEXT_BYTES,
                            Context::Eqc | Context::Aeqc => super::context::EVENT_CONTEXT_BYTES,
                        };
                        Errand::Dump { at, image, bytes, life, waiter }
                    })
                }
                _ => None,
            };
            if errand.is_none() {
                self.finish_command(STATUS_REFUSED, None);
            }
            self.in_flight += usize::from(errand.is_some());
            return errand;
        }
        if std::mem::take(&mut self.write_back_due) {
            let waiter = waiter();
            let tables = self.table_images();
            self.in_flight += 1;
            return Some(Errand::WriteBack { tables, life: self.life, waiter });
        }
        None
    }

    fn table_images(&self) -> Vec<(Iova, ContextImage)> {
        let mut tables = Vec::new();
        for (qn, queue) in (0..self.limit()).zip(&self.queues).filter(|(_, queue)| queue.is_live()) {
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

    /// An errand's accesses have been made; `image` is what it read, `None` if an access failed.
    pub(super) fn finish_errand(&mut self, errand: &Errand, image: Option<ContextImage>) {
        match errand {
            Errand::Load { context, life, .. } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                if *life == self.mailbox.life && self.mailbox.is_started() {
                    let is_ok = image.is_some_and(|image| self.load(*context, &image));
                    self.finish_command(if is_ok { 0 } else { STATUS_REFUSED }, None);
                }
            }
            Errand::Dump { life, .. } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                if *life == self.mailbox.life && self.mailbox.is_started() {
                    self.finish_command(if image.is_some() { 0 } else { STATUS_REFUSED }, None);
                }
            }
            Errand::WriteBack { life, .. } => {
                self.in_flight = self.in_flight.saturating_sub(1);
                if *life == self.life && !self.write_back_due {
                    self.regs.set(QmReg::CACHE_WB_DONE, 1);
                    self.wake.readers = true;
                }
            }
            Errand::Hire(_) => {}
        }
    }

    /// The end: workers leave, accesses are given up.
    pub(super) fn shut_down(&mut self) {
        self.is_shutting_down = true;
        self.kill_all();
        self.errand_waiter.cancel();
        self.events.shut_down();
        self.wake.readers = true;
    }
}
