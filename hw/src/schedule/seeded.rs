//! A scheduler that runs one task at a time and chooses the next by a seed: what the models do is then the same in every run.
//!
//! Each task has a thread of the host, for its stack, but only the one whose turn it is runs. A turn ends where the task waits, yields
//! or ends; between these points nothing can come in between. Who made the scheduler is a task as well, the first: it has
//! the first turn, and gives turns away when it waits itself, or by [`SeededScheduler::run_until_idle`]. All who notify
//! are tasks too. Deliberately absent: guest time, which the owner moves when nobody can run ([`ManualAlarms`](crate::ManualAlarms)).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::{fmt, io, thread};

use super::{Scheduler, TaskQueue, WaitQueue, Work};
use crate::{Entropy, SeededEntropy};

/// A task's number, in the order in which they were started.
type Task = usize;

/// Who made the scheduler.
const OWNER: Task = 0;

#[derive(Default)]
struct Turns {
    /// Whose turn it is.
    now: Task,
    /// Who could run, in no particular order.
    ready: Vec<Task>,
    /// The owner runs when nobody else can.
    owner_is_patient: bool,
    tasks: usize,
    /// What the tasks but the owner are called; the entry goes with the task.
    names: BTreeMap<Task, &'static str>,
    /// Names of the tasks that got a turn.
    log: Vec<&'static str>,
    has_panicked: bool,
}

struct Shared {
    turns: Mutex<Turns>,
    /// The turn is another's.
    passed: Condvar,
    choices: SeededEntropy,
}

/// The scheduler.
pub struct SeededScheduler(Arc<Shared>);

impl fmt::Debug for SeededScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededScheduler").finish_non_exhaustive()
    }
}

impl SeededScheduler {
    /// A scheduler whose choices follow from `seed`, made by the thread that is to have the first turn.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        let turns = Mutex::new(Turns { tasks: 1, ..Turns::default() });
        Arc::new(Self(Arc::new(Shared { turns, passed: Condvar::new(), choices: SeededEntropy::new(seed) })))
    }

    /// Lets the tasks run until each waits or has ended. For the owner.
    ///
    /// # Panics
    /// If a task has.
    pub fn run_until_idle(&self) {
        let mut turns = self.0.turns();
        turns.owner_is_patient = true;
        drop(self.0.pass(turns));
    }

    /// The names of the tasks in the order in which they got turns.
    #[must_use]
    pub fn log(&self) -> Vec<&'static str> {
        self.0.turns().log.clone()
    }

    /// How many tasks there are that have not ended, without the owner.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.0.turns().names.len()
    }
}

impl Shared {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn choose(&self, among: usize) -> usize {
        (self.choices.next() % among as u64) as usize
    }

    /// Gives the turn to somebody who can run.
    fn give(&self, turns: &mut Turns) {
        turns.now = match turns.ready.len() {
            0 if std::mem::take(&mut turns.owner_is_patient) => OWNER,
            0 => {
                // The owner is told, wherever it waits.
                turns.has_panicked = true;
                OWNER
            }
            among => turns.ready.swap_remove(self.choose(among)),
        };
        if turns.has_panicked {
            turns.now = OWNER;
        }
        if let Some(name) = turns.names.get(&turns.now).copied() {
            turns.log.push(name);
        }
        self.passed.notify_all();
    }

    /// Ends the present task's turn, and returns with its next.
    fn pass<'a>(&'a self, mut turns: MutexGuard<'a, Turns>) -> MutexGuard<'a, Turns> {
        let me = turns.now;
        self.give(&mut turns);
        let turns = self.await_turn(me, turns);
        assert!(!turns.has_panicked, "a task has panicked, or everybody waits and nobody is left to notify");
        turns
    }

    fn await_turn<'a>(&'a self, me: Task, turns: MutexGuard<'a, Turns>) -> MutexGuard<'a, Turns> {
        self.passed.wait_while(turns, |turns| turns.now != me).unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, me: Task, work: Work) {
        drop(self.await_turn(me, self.turns()));
        // The turn goes on whatever becomes of the task.
        let end = catch_unwind(AssertUnwindSafe(work));
        let mut turns = self.turns();
        turns.names.remove(&me);
        turns.has_panicked |= end.is_err();
        self.give(&mut turns);
    }
}

impl Scheduler for SeededScheduler {
    fn spawn(&self, name: &'static str, work: Work) -> io::Result<()> {
        let mut turns = self.0.turns();
        let task = turns.tasks;
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name(name.into()).spawn(move || shared.run(task, work))?;
        turns.tasks += 1;
        turns.names.insert(task, name);
        turns.ready.push(task);
        Ok(())
    }

    fn wait_queue(&self) -> WaitQueue {
        WaitQueue::of_tasks(Box::new(Queue::new(Arc::downgrade(&self.0))))
    }

    fn yield_now(&self) {
        let mut turns = self.0.turns();
        let me = turns.now;
        turns.ready.push(me);
        drop(self.0.pass(turns));
    }

    fn is_cooperative(&self) -> bool {
        true
    }
}

/// Tasks that wait, in the order in which they came.
struct Queue {
    shared: Weak<Shared>,
    waiting: Mutex<Vec<Task>>,
}

impl Queue {
    const fn new(shared: Weak<Shared>) -> Self {
        Self { shared, waiting: Mutex::new(Vec::new()) }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Task>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, choose: impl FnOnce(&Shared, &mut Vec<Task>) -> Vec<Task>) {
        if let Some(shared) = self.shared.upgrade() {
            let chosen = choose(&shared, &mut self.waiting());
            shared.turns().ready.extend(chosen);
        }
    }
}

impl TaskQueue for Queue {
    fn wait(&self, unlock: &mut dyn FnMut()) {
        let shared = self.shared.upgrade().expect("who waits is a task of the scheduler's");
        let turns = shared.turns();
        self.waiting().push(turns.now);
        unlock();
        drop(shared.pass(turns));
    }

    fn notify_one(&self) {
        self.notify(|shared, waiting| match waiting.len() {
            0 => Vec::new(),
            among => vec![waiting.remove(shared.choose(among))],
        });
    }

    fn notify_all(&self) {
        self.notify(|_, waiting| std::mem::take(waiting));
    }

    fn another(&self) -> Box<dyn TaskQueue> {
        Box::new(Self::new(Weak::clone(&self.shared)))
    }
}
