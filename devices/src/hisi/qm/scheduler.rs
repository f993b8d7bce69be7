//! Which queue is served next: the list of runnable queues, and the workers that serve it.

use std::collections::VecDeque;

use super::pool::Pool;

/// Who serves a queue that has just become runnable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// An idle worker, which has to be woken.
    ByIdle,
    /// A worker that has to be started.
    ByNew,
    /// The next that is done with its task.
    Later,
}

#[derive(Debug)]
pub(super) struct Scheduler {
    /// Each at most once.
    runnable: VecDeque<u16>,
    pub(super) pool: Pool,
    /// Tasks that workers have.
    in_flight: usize,
    /// Workers to start.
    to_start: usize,
}

impl Scheduler {
    /// With at most so many workers.
    pub(super) fn new(limit: usize) -> Self {
        Self { runnable: VecDeque::new(), pool: Pool::new(limit), in_flight: 0, to_start: 0 }
    }

    /// No queue is runnable any more. Workers stay, and give the tasks back that they have.
    pub(super) fn reset(&mut self) {
        let Self { runnable, pool: _, in_flight: _, to_start: _ } = self;
        runnable.clear();
    }

    /// Puts a queue at the end of the list, and sees to it that it is served.
    pub(super) fn enqueue(&mut self, qn: u16) -> Served {
        self.runnable.push_back(qn);
        self.serve()
    }

    /// A worker that was idle does something else than tasks. What becomes of the queues that it was to serve.
    pub(super) fn worker_left(&mut self) -> Served {
        self.pool.busy();
        if self.runnable.is_empty() { Served::Later } else { self.serve() }
    }

    /// Queues that wait for a worker, in their order.
    pub(super) fn runnable(&self) -> impl Iterator<Item = u16> {
        self.runnable.iter().copied()
    }

    fn serve(&mut self) -> Served {
        if self.runnable.len() <= self.pool.idle() {
            Served::ByIdle
        } else if self.pool.grow() {
            self.to_start += 1;
            Served::ByNew
        } else {
            Served::Later
        }
    }

    /// The queue whose turn it is.
    pub(super) fn next(&mut self) -> Option<u16> {
        self.runnable.pop_front()
    }

    pub(super) const fn taken(&mut self) {
        self.in_flight += 1;
    }

    pub(super) fn given_back(&mut self) {
        self.in_flight = self.in_flight.checked_sub(1).expect("a task is given back once");
    }

    /// Whether no worker has a task.
    pub(super) const fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether no queue waits for a worker either.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.runnable.is_empty()
    }

    /// Whether there are workers to start.
    pub(super) const fn wants_workers(&self) -> bool {
        self.to_start != 0
    }

    /// How many workers to start, each told once.
    pub(super) fn take_starts(&mut self) -> usize {
        std::mem::take(&mut self.to_start)
    }
}
