//! All state of the queue manager, under one lock, and the transitions that concern more than one of its parts. Nothing
//! here waits or makes DMA.
//!
//! The parts: the *device* and the *function* hold what software sees, the *scheduler* and the *control* requests hold what
//! workers are to do and have, the *gate* says whether they may begin anything.

use std::fmt;
use std::sync::Arc;

use hw::{Activity, Clock, GuestErrors, Latencies, RestoreError, StreamId, Trace, Track, Waiter};

use super::context::{AsyncEvent, ContextImage, Doorbell};
use super::control::{Control, Request};
use super::device::{Device, Raised, error};
use super::engine::Done;
use super::events::{Action, Ring};
use super::function::{Function, Rung, Schedule, Stop};
use super::mailbox::{Command, STATUS_REFUSED, Transfer};
use super::patience::Poll;
use super::queue::Place;
use super::regs::QmReg;
use super::scheduler::{Scheduler, Served};
use super::task::{Completion, Outcome, Stage, Task, TaskState};
use crate::gate::Gate;

/// Commands of doorbells.
mod doorbell {
    pub(super) const SQ: u8 = 0;
    pub(super) const CQ: u8 = 1;
    pub(super) const EQ: u8 = 2;
    pub(super) const AEQ: u8 = 3;
}

/// Who must be woken once the lock is free.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wake {
    pub(super) workers: usize,
    pub(super) control: bool,
    /// All workers: they may begin something again.
    pub(super) everyone: bool,
    /// Readers of a busy mailbox.
    pub(super) readers: bool,
    /// Whoever waits for the end of work.
    pub(super) observers: bool,
    /// A mailbox command has begun that is not done yet: it may take so long and no longer.
    pub(super) command_began: bool,
    /// So has a write-back.
    pub(super) write_back_began: bool,
}

/// What a worker of the pool does after a task.
#[derive(Debug)]
pub(super) enum Next {
    /// It waits to be woken.
    Nothing,
    Task(Task),
    /// It writes events, from this one on; the access waits on this.
    Event(Action, Arc<Waiter>),
}

#[derive(Debug)]
pub(super) struct Front {
    pub(super) device: Device,
    pub(super) function: Function,
    pub(super) scheduler: Scheduler,
    control: Control,
    pub(super) gate: Gate,
    pub(super) wake: Wake,
    tells: Tells,
}

/// To whom the state tells what happens to it.
#[derive(Clone)]
pub(super) struct Tells {
    pub(super) stream: StreamId,
    pub(super) clock: Arc<dyn Clock>,
    /// From doorbells to completions.
    pub(super) latencies: Arc<Latencies>,
    pub(super) trace: Trace,
    pub(super) errors: GuestErrors,
}

impl Tells {
    /// The completion of a task is in memory.
    fn completed(&self, task: &Task, done: Done) {
        match task.rung_ns {
            Some(rung_ns) => {
                self.latencies.count(done.consumed, self.clock.now_ns().saturating_sub(rung_ns));
            }
            None => self.latencies.count_unmeasured(),
        }
    }

    /// A task could not be brought to its end, because of an entry of its rings.
    fn ring_fault(&self, qn: u16, outcome: Outcome) {
        if !matches!(outcome, Outcome::Completed(_) | Outcome::Cancelled) {
            let what = format_args!("queue {qn} stops: {}", outcome.name());
            self.errors.report("queues whose rings cannot be accessed", what);
        }
    }
}

impl fmt::Debug for Tells {
    /// Nothing of it is the device's state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tells({:?})", self.stream)
    }
}

impl Front {
    pub(super) fn new(log2_sqe: u8, workers: usize, activity: &Arc<Activity>, tells: Tells) -> Self {
        Self {
            device: Device::at_reset(),
            function: Function::new(log2_sqe, activity),
            scheduler: Scheduler::new(workers),
            control: Control::new(activity),
            gate: Gate::default(),
            wake: Wake::default(),
            tells,
        }
    }

    // ---- resets, whole and in part

    /// All state goes back to that of power-on, and what is under way is given up. Workers stay, and begin nothing until
    /// [`Self::end_reset`].
    pub(super) fn begin_reset(&mut self) {
        self.gate.begin_reset();
        self.give_up();
        let Self { device, function, scheduler, control, gate: _, wake, tells: _ } = self;
        *device = Device::at_reset();
        function.reset();
        scheduler.reset();
        control.reset();
        wake.readers = true;
    }

    /// What was under way at the reset has ended.
    pub(super) fn end_reset(&mut self) {
        self.gate.end_reset();
        self.wake.everyone = true;
    }

    /// Ends all work: no queue is live, no event is owed, and every access under way is given up.
    fn give_up(&mut self) {
        self.function.kill_all();
        self.function.events.give_up();
        self.control.give_up();
        self.check_stop();
    }

    /// No new DMA.
    pub(super) fn shut_master(&mut self) {
        self.device.is_shut = true;
        self.give_up();
    }

    /// Internal memory is initialised: contexts and the table of functions are empty.
    pub(super) fn initialise_memory(&mut self) {
        self.function.kill_all();
        self.device.forget_table();
        self.function.forget_contexts();
        self.table_changed();
    }

    /// The table of functions has changed: queues that are no longer the function's end.
    pub(super) fn table_changed(&mut self) {
        self.function.set_count(self.device.pf_queues());
        self.check_stop();
    }

    /// The end: workers leave, accesses are given up.
    pub(super) fn shut_down(&mut self) {
        self.gate.shut_down();
        self.give_up();
        self.wake.readers = true;
        self.wake.everyone = true;
    }

    // ---- what is under way

    /// Whether no access is under way.
    pub(super) const fn is_quiet(&self) -> bool {
        self.scheduler.is_quiet() && self.control.is_quiet() && !self.function.events.is_writing()
    }

    /// Whether no access is under way but such as wait for the guest or for guest time.
    pub(super) fn is_still(&self) -> bool {
        self.is_quiet() || self.function.is_still() && self.control.is_still()
    }

    /// Whether no task is in the device.
    pub(super) fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.control.is_quiet()
    }

    /// Where the tasks are that workers have.
    pub(super) fn task_states(&self) -> Vec<TaskState> {
        self.function.task_states()
    }

    // ---- doorbells

    /// A doorbell of a queue has rung.
    pub(super) fn ring_queue(&mut self, bell: Doorbell) {
        self.device.counters.doorbell(bell.into());
        let rung = match bell.command() {
            doorbell::SQ => self.function.ring_sq(bell, self.tells.clock.now_ns()),
            doorbell::CQ => self.function.ring_cq(bell),
            _ => Rung::Ignored,
        };
        match rung {
            Rung::OutsideRing(depth) => {
                let (qn, index) = (bell.qn(), bell.index());
                let what = format_args!("doorbell to queue {qn} with index {index}, of {depth} entries");
                return self.tells.errors.report("doorbells with an index outside the ring", what);
            }
            Rung::Ignored => {
                if !self.function.has_queue(bell.qn()) {
                    let what = format_args!("doorbell to queue {}, which is not there", bell.qn());
                    self.tells.errors.report("doorbells to queues that are not there", what);
                }
                return;
            }
            Rung::Submitted(mark) => {
                let track = Track::Queue { stream: self.tells.stream, queue: bell.qn() };
                self.tells.trace.mark(track, || mark);
            }
            Rung::Runnable => {}
            Rung::EventDue => self.wake.control |= self.function.events.is_due(),
        }
        self.schedule(bell.qn());
    }

    /// A doorbell of the function has rung. These have an address of their own, which no process is given.
    pub(super) fn ring_events(&mut self, bell: Doorbell) {
        self.device.counters.doorbell(bell.into());
        let events = &mut self.function.events;
        match bell.command() {
            doorbell::EQ => self.wake.control |= events.doorbell(Ring::Eq, bell.index()),
            doorbell::AEQ => self.wake.control |= events.doorbell(Ring::Aeq, bell.index()),
            _ => {}
        }
    }

    // ---- tasks

    /// Puts a queue that has something to do at the end of the list.
    fn schedule(&mut self, qn: u16) {
        if self.device.is_shut || self.gate.is_shut_down() {
            return;
        }
        match self.function.make_runnable(qn) {
            Schedule::Nothing => {}
            Schedule::Overflow => {
                let what = format_args!("the CQ of queue {qn} has no room for a completion");
                self.tells.errors.report("completion queues without room", what);
                self.function.events.post_async(AsyncEvent::CqOverflow, qn);
                self.wake.control = true;
            }
            Schedule::Enqueue => {
                let served = self.scheduler.enqueue(qn);
                self.call(served);
            }
        }
    }

    fn call(&mut self, served: Served) {
        match served {
            Served::ByIdle => self.wake.workers += 1,
            Served::ByNew => self.wake.control = true,
            Served::Later => {}
        }
    }

    /// The next task of the queue whose turn it is.
    pub(super) fn take_task(&mut self) -> Option<Task> {
        if !self.gate.is_open() {
            return None;
        }
        while let Some(qn) = self.scheduler.next() {
            let may_run = !self.device.is_shut && self.function.has_queue(qn);
            let queue = self.function.known(qn);
            queue.place = Place::Idle;
            if !may_run {
                continue;
            }
            let Some(task) = queue.take(qn) else { continue };
            self.scheduler.taken();
            if task.parked.is_none() {
                self.device.counters.sent_to_engine();
            }
            return Some(task);
        }
        None
    }

    /// The next task for a worker of the pool, which was idle.
    pub(super) fn take_task_for_idle(&mut self) -> Option<Task> {
        self.take_task().inspect(|_| self.scheduler.pool.busy())
    }

    /// The engine is done with a task and its SQE is back in memory: what its completion says. `None` if the queue
    /// has been stopped.
    pub(super) fn completion(&mut self, task: &Task) -> Option<Completion> {
        let queue = self.function.known(task.info.qn);
        if !queue.owns(task) {
            return None;
        }
        let completion = queue.completion(task);
        task.stage.set(Stage::Complete);
        if task.parked.as_ref().is_none_or(|parked| parked.stage != Stage::Complete) {
            self.device.counters.back_from_engine();
        }
        Some(completion)
    }

    /// A worker gives its task back.
    pub(super) fn finish_task(&mut self, task: &Task, outcome: Outcome) {
        self.scheduler.given_back();
        self.wake.observers = true;
        let qn = task.info.qn;
        let queue = self.function.known(qn);
        queue.place = Place::Idle;
        if queue.owns(task) {
            queue.ended(task);
            queue.is_halted |= !matches!(outcome, Outcome::Completed(_));
            self.tells.ring_fault(qn, outcome);
            match outcome {
                Outcome::Completed(done) => {
                    let is_event_due = queue.complete();
                    self.tells.completed(task, done);
                    self.device.counters.finished();
                    if is_event_due {
                        self.function.post_event(qn);
                    }
                }
                Outcome::Cancelled => {
                    unreachable!("a task's waiter is cancelled with its queue's life, under this lock")
                }
                Outcome::SqeUnreadable => self.raise_error(error::AXI_RRESP),
                Outcome::SqeUnwritable => self.raise_error(error::AXI_BRESP),
                Outcome::CqeUnwritable => {
                    self.device.counters.completion_error();
                    self.function.events.post_async(AsyncEvent::CqeError, qn);
                }
            }
        }
        self.schedule(qn);
        self.check_stop();
    }

    /// A worker of the pool gives its task back. It writes the events that are due, if nobody else does, before it takes
    /// another task: while an event waits for the guest, no task waits for its worker.
    pub(super) fn next_work(&mut self, task: &Task, outcome: Outcome) -> Next {
        self.scheduler.pool.free();
        self.finish_task(task, outcome);
        match self.start_events() {
            Some((action, waiter)) => {
                let served = self.scheduler.worker_left();
                self.call(served);
                Next::Event(action, waiter)
            }
            None => self.next_task().map_or(Next::Nothing, Next::Task),
        }
    }

    /// A worker of the pool has written the events that were due.
    pub(super) fn after_events(&mut self) -> Option<Task> {
        self.scheduler.pool.free();
        self.take_task_for_idle()
    }

    fn next_task(&mut self) -> Option<Task> {
        let next = self.take_task_for_idle();
        if next.is_some() {
            // One queue less that another worker has to be woken for.
            self.wake.workers = self.wake.workers.saturating_sub(1);
        }
        next
    }

    // ---- events and errors

    /// Takes the event writer's place, if it is free and there is something to write: what, and what its access waits on.
    pub(super) fn start_events(&mut self) -> Option<(Action, Arc<Waiter>)> {
        let events = &mut self.function.events;
        let is_mine = self.gate.is_open() && events.is_due() && events.start_writing();
        if is_mine { self.next_event() } else { None }
    }

    /// What the event writer does next, and what its access waits on; see [`super::events::Events::next`].
    pub(super) fn next_event(&mut self) -> Option<(Action, Arc<Waiter>)> {
        let action = if self.gate.is_open() {
            self.function.next_event()
        } else {
            self.function.events.stop_writing();
            None
        };
        self.wake.observers |= action.is_none();
        action
    }

    /// An entry of this ring could not be written.
    pub(super) fn event_lost(&mut self, ring: Ring) {
        let what = format_args!("an entry of the ring {ring:?} cannot be written");
        self.tells.errors.report("event rings that cannot be accessed", what);
        self.raise_error(error::AXI_BRESP);
    }

    /// Latches an error, and shuts the master or asks for the interrupt if it has been told to.
    pub(super) fn raise_error(&mut self, bits: u32) {
        let Raised { shuts, interrupts } = self.device.latch(bits);
        if shuts {
            self.shut_master();
        }
        if interrupts {
            self.post_abnormal();
        }
    }

    /// The abnormal interrupt's message is due.
    pub(super) fn post_abnormal(&mut self) {
        self.function.events.post_abnormal();
        self.wake.control = true;
    }

    // ---- mailbox

    /// Begins a command. Those without DMA and without a wait are done at once.
    pub(super) fn start_command(&mut self, command: Command) {
        self.device.counters.mailbox();
        match command {
            Command::Transfer(transfer) => {
                self.control.transfer = Some((transfer, self.function.mailbox.life));
                self.wake.control = true;
                self.wake.command_began = true;
            }
            Command::SetSqcTable(at) => {
                self.function.sqc_table = Some(at);
                self.finish_command(0, None);
            }
            Command::SetCqcTable(at) => {
                self.function.cqc_table = Some(at);
                self.finish_command(0, None);
            }
            Command::GetSqcTable => {
                self.finish_command(0, Some(self.function.sqc_table.map_or(0, |at| at.0)))
            }
            Command::GetCqcTable => {
                self.finish_command(0, Some(self.function.cqc_table.map_or(0, |at| at.0)))
            }
            Command::GetVft => self.finish_command(0, Some(self.device.pf_entry())),
            Command::StopQueue(qn) if !self.function.has_queue(qn) => {
                self.finish_command(STATUS_REFUSED, None)
            }
            Command::StopQueue(qn) => self.begin_stop(Stop::Queue(qn)),
            Command::Flush => self.begin_stop(Stop::Function),
            Command::Unknown => self.finish_command(STATUS_REFUSED, None),
        }
    }

    fn finish_command(&mut self, status: u8, data: Option<u64>) {
        if status != 0 {
            // Nothing can be written while a command is under way, so the word is still the one that started it.
            let word = self.function.mailbox.word(0);
            let (command, queue) = (word as u8, word >> 16);
            let what =
                format_args!("mailbox command {command:#x} (queue {queue}) ends with status {status:#x}");
            self.tells.errors.report("mailbox commands that are refused", what);
        }
        self.function.mailbox.finish(status, data);
        self.wake.readers = true;
    }

    fn begin_stop(&mut self, stop: Stop) {
        self.function.begin_stop(stop);
        self.check_stop();
        self.wake.command_began = self.function.is_stopping();
    }

    /// A stop has taken too long: the rest of the work is dropped.
    pub(super) fn cut_stop(&mut self) {
        self.function.cut_stop();
        self.check_stop();
    }

    /// Completes a stop once its queues have nothing more to do.
    fn check_stop(&mut self) {
        if self.function.is_stop_over() {
            self.function.end_stop();
            self.finish_command(0, None);
        }
    }

    /// What a read at this offset of BAR2 asks whether it is done, if it does.
    pub(super) const fn poll(&self, offset: u64) -> Option<Poll> {
        match offset {
            super::offset::MAILBOX => Some(Poll::Command(self.function.mailbox.life)),
            super::offset::CACHE_WB_DONE => Some(Poll::WriteBack(self.control.write_backs())),
            _ => None,
        }
    }

    /// Whether whoever has asked this is to be held further. What has begun since then is not what was asked for: a
    /// poll is held for one command at most.
    pub(super) fn holds(&self, poll: Poll, now_ns: u64) -> bool {
        let mailbox = &self.function.mailbox;
        let is_under_way = match poll {
            Poll::Command(life) => mailbox.is_started() && mailbox.life == life,
            Poll::WriteBack(count) => self.is_writing_back() && self.control.write_backs() == count,
        };
        is_under_way
            && self.function.patience.lasts(poll, now_ns)
            && !self.function.is_polled(now_ns)
            && !self.gate.is_shut_down()
    }

    /// When to look again at what takes long.
    pub(super) fn next_look_ns(&self, now_ns: u64) -> Option<u64> {
        let Function { patience, mailbox, .. } = &self.function;
        patience.next_ns(now_ns, self.function.is_stopping(), mailbox.is_started(), self.is_writing_back())
    }

    // ---- restore

    pub(super) const fn is_write_back_asked(&self) -> bool {
        self.control.is_write_back_asked()
    }

    /// Begins what the control worker had not done, and the stop under way, as the mailbox and the registers tell of them.
    pub(super) fn take_up_requests(&mut self, is_write_back_asked: bool) -> Result<(), RestoreError> {
        let is_written = self.function.regs.word(QmReg::CACHE_WB_DONE) != 0;
        let mut transfer = None;
        match self.function.mailbox.under_way() {
            None => {}
            Some(Command::Transfer(under_way)) => transfer = Some(under_way),
            Some(Command::StopQueue(qn)) if self.function.has_queue(qn) => {
                self.function.begin_stop(Stop::Queue(qn));
            }
            Some(Command::Flush) => self.function.begin_stop(Stop::Function),
            Some(_) => return Err(RestoreError::value("mailbox", "this command does not take time")),
        }
        let life = self.function.mailbox.life;
        self.control.take_up(transfer, is_write_back_asked, is_write_back_asked && !is_written, life);
        self.wake.control = true;
        Ok(())
    }

    /// A queue that was in the list, or whose task was under way.
    pub(super) fn make_runnable(&mut self, qn: u16) {
        self.function.known(qn).place = Place::Runnable;
        let served = self.scheduler.enqueue(qn);
        self.call(served);
    }

    // ---- requests of the control worker

    /// Cached contexts go back to the tables. Done at once if there is nothing to write.
    pub(super) fn start_write_back(&mut self) {
        let is_needed = !self.device.is_shut && self.function.has_table_images();
        let has_begun = self.control.ask_write_back(is_needed, self.is_writing_back());
        self.wake.write_back_began |= has_begun;
        self.function.regs.set_word(QmReg::CACHE_WB_DONE, u32::from(!is_needed));
        self.wake.control |= is_needed;
        self.wake.readers |= !is_needed;
    }

    /// Whether a write-back has been asked for and is not done.
    fn is_writing_back(&self) -> bool {
        self.control.is_write_back_asked() && self.function.regs.word(QmReg::CACHE_WB_DONE) == 0
    }

    /// Whether the control worker has something to do.
    pub(super) fn has_request(&self) -> bool {
        let events = &self.function.events;
        self.gate.is_open()
            && (self.scheduler.wants_workers()
                || self.control.has_request()
                || (events.is_due() && !events.is_writing()))
    }

    /// The next thing for the control worker to do; [`Self::finish_request`] follows.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        if !self.gate.is_open() {
            return None;
        }
        if self.scheduler.wants_workers() {
            return Some(Request::StartWorkers(self.scheduler.take_starts()));
        }
        let request = if let Some((transfer, life)) = self.control.transfer.take() {
            let waiter = self.control.waiter();
            let request = match transfer {
                _ if self.device.is_shut => None,
                Transfer::Load(context, at) => Some(Request::Load { context, at, life, waiter }),
                Transfer::Dump(context, at) => {
                    let image = self.function.dump(context);
                    image.map(|image| Request::Dump { context, at, image, life, waiter })
                }
            };
            if request.is_none() {
                self.finish_command(STATUS_REFUSED, None);
            }
            request
        } else if std::mem::take(&mut self.control.write_back_due) {
            let tables = self.function.table_images();
            Some(Request::WriteBack { tables, life: self.control.life(), waiter: self.control.waiter() })
        } else {
            None
        };
        if request.is_some() {
            self.control.begun();
        }
        request
    }

    /// A request's accesses have been made; `image` is what it read or wrote, `None` if an access failed.
    pub(super) fn finish_request(&mut self, request: &Request, image: Option<ContextImage>) {
        if let Request::StartWorkers(_) = request {
            return;
        }
        self.control.ended();
        self.wake.observers = true;
        match request {
            Request::Load { life, .. } | Request::Dump { life, .. } => {
                let mailbox = &self.function.mailbox;
                if *life != mailbox.life || !mailbox.is_started() {
                    return;
                }
                let is_ok = match (request, image) {
                    (Request::Load { context, .. }, Some(image)) => {
                        let is_ok = self.function.load(*context, &image);
                        if let (true, Some(qn)) = (is_ok, context.queue()) {
                            self.schedule(qn);
                        }
                        is_ok
                    }
                    (_, image) => image.is_some(),
                };
                self.finish_command(if is_ok { 0 } else { STATUS_REFUSED }, None);
            }
            Request::WriteBack { life, .. } => {
                if *life == self.control.life() && !self.control.write_back_due {
                    self.function.regs.set_word(QmReg::CACHE_WB_DONE, 1);
                    self.wake.readers = true;
                }
            }
            Request::StartWorkers(_) => {}
        }
    }
}
