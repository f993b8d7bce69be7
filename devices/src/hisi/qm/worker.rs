//! The loops that workers run, and the accesses that they make. No lock is held during an access.
//!
//! There is one *control worker*, which makes the accesses of mailbox commands and sends the messages that registers
//! ask for; it never executes a task, so that a stopped queue can be reported whatever the tasks wait for. And there is
//! the pool of workers for tasks, the first started with it and others when a queue becomes runnable and none is idle: a
//! task that waits for a page occupies its worker, and a small pool would let a few such tasks stop all queues.
//! When the host has no further thread, queues wait for those workers that there are. Idle workers sleep.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};

use hw::trace::{Ending, Slice, SliceKind};
use hw::{DmaFault, DmaTag, Iova, Requester, Track, Waiter};

use super::Qm;
use super::context::{CONTEXT_BYTES, Eqe};
use super::control::{Request, context_bytes};
use super::engine::{Done, Engine, EngineDma, QueueInfo};
use super::events::{Action, Ring, Written};
use super::front::{Front, Next};
use super::task::{Outcome, Stage, Task};

/// What a worker for tasks keeps from one to the next.
pub struct WorkerMemory<E: Engine> {
    scratch: E::Scratch,
    sqe: Vec<u8>,
}

impl<E: Engine> Qm<E> {
    /// Working memory for [`Self::step`].
    #[must_use]
    pub fn worker_memory(&self) -> WorkerMemory<E> {
        WorkerMemory { scratch: self.engine.scratch(), sqe: vec![0; 1 << E::LOG2_SQE] }
    }

    /// Does one thing that is due: a request of the control worker, or one task. `false` if nothing is. For owners
    /// that give the queue manager no threads.
    pub fn step(&self, memory: &mut WorkerMemory<E>) -> bool {
        if self.step_control() {
            return true;
        }
        let Some(task) = self.with(Front::take_task) else { return false };
        let outcome = self.execute(memory, &task);
        self.with(|front| front.finish_task(&task, outcome));
        self.write_events();
        true
    }

    /// Starts the workers without which nothing would ever be done: the one for control, and, unless the owner steps the
    /// queue manager, one for tasks. What is started later only makes more of them.
    ///
    /// # Errors
    /// If there is no thread. The queue manager is then of no use.
    pub fn start_first(self: &Arc<Self>) -> io::Result<()> {
        let start = |work: fn(&Self)| {
            let qm = Arc::clone(self);
            self.wiring.scheduler.spawn("accel", Box::new(move || work(&qm)))
        };
        let start_all = || {
            start(Self::run_control)?;
            if self.with(|front| front.scheduler.pool.grow()) { start(Self::run_tasks) } else { Ok(()) }
        };
        start_all().inspect_err(|_| self.shut_down())
    }

    /// The control worker: returns after [`Self::shut_down`].
    fn run_control(&self) {
        loop {
            while self.step_control() {}
            let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
            while !front.has_request() {
                if front.gate.is_shut_down() {
                    return;
                }
                front = self.requests.wait(&self.front, front);
            }
        }
    }

    /// A worker of the pool: returns after [`Self::shut_down`].
    pub(super) fn run_tasks(&self) {
        let mut memory = self.worker_memory();
        let mut next = None;
        loop {
            let Some(task) = next.take().or_else(|| self.wait_for_task()) else { return };
            let outcome = self.execute(&mut memory, &task);
            next = match self.with(|front| front.next_work(&task, outcome)) {
                Next::Nothing => None,
                Next::Task(task) => Some(task),
                Next::Event(action, waiter) => {
                    self.write_events_from(action, waiter);
                    self.with(Front::after_events)
                }
            };
        }
    }

    fn wait_for_task(&self) -> Option<Task> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if front.gate.is_shut_down() {
                return None;
            }
            if let Some(task) = front.take_task_for_idle() {
                return Some(task);
            }
            front = self.tasks.wait(&self.front, front);
        }
    }

    /// Who the function is, without a PASID: rings, contexts and messages.
    fn untagged(&self, waiter: Arc<Waiter>) -> Requester {
        Requester { tag: DmaTag::untagged(self.wiring.stream), waiter, command: None }
    }

    /// One SQE from fetch to completion, as a timeline has it.
    fn execute(&self, memory: &mut WorkerMemory<E>, task: &Task) -> Outcome {
        let track = self.track(task);
        self.wiring.trace.begin(track, || {
            let &Task { index, pasid, info: QueueInfo { queue_type, .. }, .. } = task;
            Slice::Command { index, pasid, queue_type }
        });
        let outcome = self.carry_out(memory, task);
        self.wiring.trace.end(track, SliceKind::Command, Ending::Said(outcome.name()));
        outcome
    }

    /// Where a timeline has a task.
    fn track(&self, task: &Task) -> Track {
        Track::Queue { stream: self.wiring.stream, queue: task.info.qn }
    }

    /// One SQE from fetch to completion.
    fn carry_out(&self, memory: &mut WorkerMemory<E>, task: &Task) -> Outcome {
        let or = |outcome: Outcome| {
            move |fault| match fault {
                DmaFault::Cancelled => Outcome::Cancelled,
                DmaFault::Aborted(_) => outcome,
            }
        };
        let ring = Requester { command: Some(task.command()), ..self.untagged(Arc::clone(&task.waiter)) };
        let tag = match task.pasid {
            Some(pasid) => DmaTag::process(self.wiring.stream, pasid),
            None => ring.tag,
        };
        let data = Requester { tag, ..ring.clone() };
        let port = &*self.wiring.dma;
        // Where a task goes on that was under way when the state was saved. A plan has been asked about that stage already.
        let parked = task.parked.as_deref();
        let asked = parked.map(|parked| parked.stage);
        let (trace, track) = (&self.wiring.trace, self.track(task));
        let run = || -> Result<Done, Outcome> {
            let mut done = Done::default();
            if let Some(due_in_ns) = parked.and_then(|parked| parked.due_in_ns) {
                self.wait_or_hang(due_in_ns, task)?;
            }
            if asked.is_none_or(|stage| matches!(stage, Stage::Fetch | Stage::Execute)) {
                let dma = EngineDma::of_task(port, data, &task.stage);
                let start = || {
                    trace.begin(track, || Slice::Execute);
                    self.wiring.clock.now_ns()
                };
                let (start_ns, result) = match parked.and_then(|parked| parked.last.as_deref()) {
                    None => {
                        trace.begin(track, || Slice::Fetch { at: task.at });
                        if asked.is_none() {
                            self.fault_of_sqe(task)?;
                        }
                        // What software wrote before it rang the doorbell is seen after this.
                        fence(Ordering::Acquire);
                        port.read(&ring, task.at, &mut memory.sqe).map_err(or(Outcome::SqeUnreadable))?;
                        task.stage.set(Stage::Execute);
                        let WorkerMemory { scratch, sqe } = memory;
                        (start(), self.engine.run(scratch, sqe, task.info, &dma))
                    }
                    Some(last) => {
                        memory.sqe.clone_from(&last.sqe);
                        (start(), self.engine.finish(&mut memory.sqe, &last.writes, &dma))
                    }
                };
                done = result.map_err(|_| Outcome::Cancelled)?;
                let ns = self.wiring.clock.now_ns().saturating_sub(start_ns);
                self.totals.count(done, ns);
                self.engine.count(&memory.sqe, task.info, done, ns);
                let Done { consumed, produced, .. } = done;
                trace.end(track, SliceKind::Execute, Ending::Bytes { consumed, produced });
                trace.begin(track, || Slice::WriteBack { at: task.at });
                task.stage.put_sqe(&memory.sqe);
                task.stage.set(Stage::WriteBack);
                fence(Ordering::Release);
                if self.fault_of_write_back(task, &mut memory.sqe)?.is_continue() {
                    port.write(&ring, task.at, &memory.sqe).map_err(or(Outcome::SqeUnwritable))?;
                }
            } else if asked == Some(Stage::WriteBack) {
                trace.begin(track, || Slice::WriteBack { at: task.at });
                memory.sqe.clone_from(&parked.expect("what has a stage is parked").sqe);
                port.write(&ring, task.at, &memory.sqe).map_err(or(Outcome::SqeUnwritable))?;
            }
            let completion = self.with(|front| front.completion(task)).ok_or(Outcome::Cancelled)?;
            trace.begin(track, || Slice::Complete { at: completion.at });
            if asked != Some(Stage::Complete) && self.fault_of_cqe(task, completion.at)?.is_break() {
                return Ok(done);
            }
            // The phase makes the entry valid, so it comes last and with the fields that software reads.
            port.write(&ring, completion.at, &[0; 8]).map_err(or(Outcome::CqeUnwritable))?;
            fence(Ordering::Release);
            let tail_at = Iova(completion.at.0.wrapping_add(8));
            let tail = completion.tail.to_le_bytes();
            port.write(&ring, tail_at, &tail).map_err(or(Outcome::CqeUnwritable))?;
            Ok(done)
        };
        run().map_or_else(|outcome| outcome, Outcome::Completed)
    }

    /// One request, or the events that are due.
    fn step_control(&self) -> bool {
        let Some(request) = self.with(Front::next_request) else { return self.write_events() };
        let port = &*self.wiring.dma;
        let image = match &request {
            Request::StartWorkers(count) => {
                self.start_workers(*count);
                None
            }
            Request::Load { context, at, waiter, .. } => {
                let mut image = [0; CONTEXT_BYTES];
                let who = self.untagged(Arc::clone(waiter));
                let read = port.read(&who, *at, &mut image[..context_bytes(*context)]);
                read.is_ok().then_some(image)
            }
            Request::Dump { context, at, image, waiter, .. } => {
                let who = self.untagged(Arc::clone(waiter));
                let write = port.write(&who, *at, &image[..context_bytes(*context)]);
                write.is_ok().then_some(*image)
            }
            Request::WriteBack { tables, waiter, .. } => {
                let who = self.untagged(Arc::clone(waiter));
                for (at, image) in tables {
                    if let Err(DmaFault::Cancelled) = port.write(&who, *at, image) {
                        break;
                    }
                }
                None
            }
        };
        self.with(|front| front.finish_request(&request, image));
        true
    }

    fn start_workers(&self, count: usize) {
        for done in 0..count {
            let qm = self.this.upgrade().expect("who runs this has the queue manager");
            if let Err(error) = self.wiring.scheduler.spawn("accel", Box::new(move || qm.run_tasks())) {
                log::warn!("no further worker for an accelerator's queues: {error}");
                self.with(|front| front.scheduler.pool.start_failed(count - done));
                return;
            }
        }
    }

    /// Writes the event entries and sends the messages that are due, unless somebody else is at it. Whether there
    /// was anything.
    pub(super) fn write_events(&self) -> bool {
        let Some((action, waiter)) = self.with(Front::start_events) else { return false };
        self.write_events_from(action, waiter);
        true
    }

    /// Writes events from this one on, as the writer.
    fn write_events_from(&self, action: Action, waiter: Arc<Waiter>) {
        let (trace, track) = (&self.wiring.trace, Track::Events { stream: self.wiring.stream });
        let mut action = Some((action, waiter));
        while let Some((now, waiter)) = action {
            let who = self.untagged(waiter);
            let outcome = match now {
                Action::Message(vector) => {
                    trace.begin(track, || Slice::Message { vector });
                    self.wiring.messages.raise(vector, &who);
                    trace.end(track, SliceKind::Message, Ending::Plain);
                    None
                }
                Action::SendDue => {
                    self.wiring.messages.send_due(&who);
                    None
                }
                Action::Write { ring, at, entry, life } => {
                    if trace.is_on() && ring == Ring::Eq {
                        let queue = Eqe::from(entry).qn();
                        let index = self.with(|front| front.function.known(queue).latest_completed());
                        trace.begin(track, || Slice::EventEntry { queue, index });
                    }
                    let write = || self.wiring.dma.write(&who, at, &entry.to_le_bytes());
                    let is_ok = match self.fault_of_event(ring, &who, at, Eqe::from(entry)) {
                        Ok(ControlFlow::Continue(())) => write().is_ok(),
                        Ok(ControlFlow::Break(())) => true,
                        Err(_) => false,
                    };
                    fence(Ordering::Release);
                    trace.end(track, SliceKind::EventEntry, Ending::Plain);
                    Some((ring, life, is_ok))
                }
            };
            action = self.with(|front| {
                if let Some((ring, life, is_ok)) = outcome {
                    match front.function.events.done(ring, life, is_ok) {
                        Written::Yes if ring == Ring::Eq => {
                            front.device.counters.event_written();
                        }
                        Written::Yes => front.device.counters.asynchronous_event_written(),
                        Written::Faulted => front.event_lost(ring),
                        Written::Stale => {}
                    }
                }
                front.next_event()
            });
        }
    }
}
