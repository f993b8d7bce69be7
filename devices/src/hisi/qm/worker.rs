//! The loops that workers run, and the accesses that they make. No lock is held during an access.
//!
//! There is one *control worker*, which makes the accesses of mailbox commands and sends the messages that registers
//! ask for; it never executes a task, so that a stopped queue can be reported whatever the tasks wait for. And there
//! are workers for tasks, the first hired with it and others when a queue becomes runnable and none is free: a task that
//! waits for a page occupies its worker, and a fixed small number of workers would let a few such tasks stop all queues.
//! When the host has no further thread, queues wait for those workers that there are. Idle workers sleep.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};

use hw::{DmaFault, DmaTag, Iova, Requester, Waiter};

use super::Qm;
use super::context::{CONTEXT_BYTES, EVENT_CONTEXT_BYTES, Eqe};
use super::engine::{Engine, EngineDma};
use super::events::{Action, Ring, Written};
use super::front::{Errand, Outcome, Task, error};

/// What a worker for tasks keeps from one to the next.
pub struct Bench<E: Engine> {
    scratch: E::Scratch,
    sqe: Vec<u8>,
}

impl<E: Engine> Qm<E> {
    /// Working memory for [`Self::step`].
    #[must_use]
    pub fn bench(&self) -> Bench<E> {
        Bench { scratch: self.engine.scratch(), sqe: vec![0; 1 << E::LOG2_SQE] }
    }

    /// Does one thing that is due: an errand of the control worker, or one task. `false` if nothing is. For owners
    /// that give the queue manager no threads.
    pub fn step(&self, bench: &mut Bench<E>) -> bool {
        if self.step_control() {
            return true;
        }
        let Some(task) = self.with(|front| front.take_task()) else { return false };
        let outcome = self.execute(bench, &task);
        self.with(|front| front.finish_task(&task, outcome));
        self.write_events();
        true
    }

    /// Hires the workers without which nothing would ever be done: the one for control, and, unless the owner steps the
    /// queue manager, one for tasks. What is hired later only makes more of them.
    ///
    /// # Errors
    /// If there is no thread. The queue manager is then of no use.
    pub fn hire_first(self: &Arc<Self>) -> io::Result<()> {
        let hire = |work: fn(&Self)| {
            let qm = Arc::clone(self);
            self.wiring.workforce.hire(Box::new(move || work(&qm)))
        };
        let hire_all = || {
            hire(Self::run_control)?;
            if self.with(|front| front.crew.hire()) { hire(Self::run_tasks) } else { Ok(()) }
        };
        hire_all().inspect_err(|_| self.shut_down())
    }

    /// The control worker's life: returns after [`Self::shut_down`].
    fn run_control(&self) {
        loop {
            while self.step_control() {}
            let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
            while !front.has_errand() {
                if front.is_shutting_down {
                    return;
                }
                front = self.errands.wait(front).unwrap_or_else(PoisonError::into_inner);
            }
            if front.is_shutting_down {
                return;
            }
        }
    }

    /// A hired worker's life: returns after [`Self::shut_down`].
    pub(super) fn run_tasks(&self) {
        let mut bench = self.bench();
        let mut next = None;
        loop {
            let Some(task) = next.take().or_else(|| self.wait_for_task()) else { return };
            let outcome = self.execute(&mut bench, &task);
            next = self.with(|front| {
                front.crew.idle += 1;
                front.finish_task(&task, outcome);
                let next = front.take_task();
                if next.is_some() {
                    front.crew.idle = front.crew.idle.saturating_sub(1);
                    front.wake.workers = front.wake.workers.saturating_sub(1);
                }
                next
            });
            self.write_events();
        }
    }

    fn wait_for_task(&self) -> Option<Task> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if front.is_shutting_down {
                return None;
            }
            if let Some(task) = front.take_task() {
                front.crew.idle = front.crew.idle.saturating_sub(1);
                return Some(task);
            }
            front = self.tasks.wait(front).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Who the function is, without a PASID: rings, contexts and messages.
    fn untagged(&self, waiter: Arc<Waiter>) -> Requester {
        Requester { tag: DmaTag::untagged(self.wiring.stream), waiter, command: None }
    }

    /// One SQE from fetch to completion.
    fn execute(&self, bench: &mut Bench<E>, task: &Task) -> Outcome {
        let or = |trouble: Outcome| {
            move |fault| match fault {
                DmaFault::Cancelled => Outcome::Cancelled,
                DmaFault::Aborted(_) => trouble,
            }
        };
        let ring = Requester { command: Some(task.command()), ..self.untagged(Arc::clone(&task.waiter)) };
        let tag = match task.pasid {
            Some(pasid) => DmaTag::process(self.wiring.stream, pasid),
            None => ring.tag,
        };
        let data = Requester { tag, ..ring.clone() };
        let port = &*self.wiring.dma;
        let run = || -> Result<(), Outcome> {
            self.fault_of_sqe(task)?;
            // What software wrote before it rang the doorbell is seen after this.
            fence(Ordering::Acquire);
            port.read(&ring, task.at, &mut bench.sqe).map_err(or(Outcome::SqeUnreadable))?;
            let dma = EngineDma::new(port, data);
            self.engine
                .run(&mut bench.scratch, &mut bench.sqe, task.info, &dma)
                .map_err(|_| Outcome::Cancelled)?;
            fence(Ordering::Release);
            if self.fault_of_write_back(task, &mut bench.sqe)?.is_continue() {
                port.write(&ring, task.at, &bench.sqe).map_err(or(Outcome::SqeUnwritable))?;
            }
            let completion = self.with(|front| front.completion(task)).ok_or(Outcome::Cancelled)?;
            if self.fault_of_cqe(task, completion.at)?.is_break() {
                return Ok(());
            }
            // The phase makes the entry valid, so it comes last and with the fields that software reads.
            port.write(&ring, completion.at, &[0; 8]).map_err(or(Outcome::CqeUnwritable))?;
            fence(Ordering::Release);
            let tail_at = Iova(completion.at.0.wrapping_add(8));
            port.write(&ring, tail_at, &completion.tail.to_le_bytes()).map_err(or(Outcome::CqeUnwritable))
        };
        run().err().unwrap_or(Outcome::Completed)
    }

    /// One errand, or the events that are due.
    fn step_control(&self) -> bool {
        let Some(errand) = self.with(|front| front.next_errand()) else { return self.write_events() };
        let port = &*self.wiring.dma;
        let image = match &errand {
            Errand::Hire(count) => {
                self.hire(*count);
                None
            }
            Errand::Load { at, waiter, .. } => {
                let mut image = [0; CONTEXT_BYTES];
                // Event queue contexts are 28 bytes in a slot of 32.
                let (context, rest) = image.split_at_mut(EVENT_CONTEXT_BYTES);
                let who = self.untagged(Arc::clone(waiter));
                let rest_at = Iova(at.0.wrapping_add(EVENT_CONTEXT_BYTES as u64));
                let wants_rest = errand.is_queue_context();
                let read = port
                    .read(&who, *at, context)
                    .and_then(|()| if wants_rest { port.read(&who, rest_at, rest) } else { Ok(()) });
                read.is_ok().then_some(image)
            }
            Errand::Dump { at, image, bytes, waiter, .. } => {
                let who = self.untagged(Arc::clone(waiter));
                let data = image.get(..*bytes).unwrap_or(image);
                port.write(&who, *at, data).is_ok().then_some(*image)
            }
            Errand::WriteBack { tables, waiter, .. } => {
                let who = self.untagged(Arc::clone(waiter));
                for (at, image) in tables {
                    if let Err(DmaFault::Cancelled) = port.write(&who, *at, image) {
                        break;
                    }
                }
                None
            }
        };
        self.with(|front| front.finish_errand(&errand, image));
        true
    }

    fn hire(&self, count: usize) {
        for done in 0..count {
            let Some(qm) = self.this.upgrade() else { return };
            if let Err(error) = self.wiring.workforce.hire(Box::new(move || qm.run_tasks())) {
                log::warn!("no further worker for an accelerator's queues: {error}");
                self.with(|front| front.crew.hire_failed(count - done));
                return;
            }
        }
    }

    /// Writes the event entries and sends the messages that are due, unless somebody else is at it. Whether there
    /// was anything.
    pub(super) fn write_events(&self) -> bool {
        let start = self.with(|front| {
            let is_mine = front.events.is_due() && front.events.start_writing();
            is_mine.then(|| front.next_event())
        });
        let Some(mut action) = start else { return false };
        while let Some((now, waiter)) = action {
            let who = self.untagged(waiter);
            let outcome = match now {
                Action::Message(vector) => {
                    self.wiring.messages.raise(vector, &who);
                    None
                }
                Action::SendDue => {
                    self.wiring.messages.send_due(&who);
                    None
                }
                Action::Write { ring, at, entry, life } => {
                    let write = || self.wiring.dma.write(&who, at, &entry.to_le_bytes());
                    let is_ok = match self.fault_of_event(ring, &who, at, Eqe::from(entry)) {
                        Ok(ControlFlow::Continue(())) => write().is_ok(),
                        Ok(ControlFlow::Break(())) => true,
                        Err(_) => false,
                    };
                    fence(Ordering::Release);
                    Some((ring, life, is_ok))
                }
            };
            action = self.with(|front| {
                if let Some((ring, life, is_ok)) = outcome {
                    match front.events.done(ring, life, is_ok) {
                        Written::Yes if ring == Ring::Eq => {
                            front.counters.eqe_out = front.counters.eqe_out.wrapping_add(1);
                        }
                        Written::Yes => {
                            front.counters.aeqe_out = front.counters.aeqe_out.wrapping_add(1);
                        }
                        Written::Faulted => front.raise_error(error::AXI_BRESP),
                        Written::Stale => {}
                    }
                }
                front.next_event()
            });
        }
        true
    }
}
