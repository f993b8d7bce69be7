//! The seam between the queue manager and an accelerator engine.

use std::sync::Arc;

use super::task::{LastWrites, Progress};
use hw::{DmaFault, DmaPort, Iova, Requester, Scheduler};

/// What is behind the queue manager. Nothing in the queue manager knows what the engine does.
pub trait Engine: Send + Sync + 'static {
    /// Working memory that a worker keeps from task to task.
    type Scratch: Send + 'static;

    /// Log2 of the bytes of this engine's SQE.
    const LOG2_SQE: u8;

    /// The engine's capability word at `offset` in BAR2 (0x3120 to 0x317c); 0 where it has none.
    fn capability(&self, offset: u64) -> u32;

    /// Working memory for one more worker.
    fn scratch(&self) -> Self::Scratch;

    /// Executes one task: reads `sqe`, does the work through `dma`, and puts the results into `sqe`, which is then
    /// written back. May wait in `dma` for as long as the guest takes to resolve a page fault. A task whose state is saved then is
    /// executed again from its beginning: so what it reads again must not be what it has written, but by
    /// [`EngineDma::write_last`].
    ///
    /// # Errors
    /// [`Cancelled`] if an access said [`DmaFault::Cancelled`]: the task is dropped, nothing is written back.
    fn run(
        &self,
        scratch: &mut Self::Scratch,
        sqe: &mut [u8],
        queue: QueueInfo,
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled>;

    /// Goes on with a task that had come to its last writes ([`EngineDma::write_last`]) when the state was saved: makes them again.
    /// `sqe` has the results.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn finish(
        &self,
        sqe: &mut [u8],
        writes: &[(Iova, Vec<u8>)],
        queue: QueueInfo,
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled>;

    /// Makes the results in `sqe` say this status, in the engine's own encoding. Only fault plans ask for it.
    fn set_status(&self, sqe: &mut [u8], status: u8);
}

/// How much a task has moved, whether it ended well or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Bytes of input.
    pub consumed: u64,
    /// Bytes of output.
    pub produced: u64,
}

/// The task's queue was stopped while it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// What a task knows of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Number in the function.
    pub qn: u16,
    /// Queue type of the context, 0 to 15; its meaning is the engine's.
    pub queue_type: u8,
}

/// An engine's way to the data of one task: in the address space of the process that owns the queue if it has a
/// PASID, else in the function's own.
pub struct EngineDma<'a> {
    port: &'a dyn DmaPort,
    who: Requester,
    progress: Option<&'a Progress>,
}

impl<'a> EngineDma<'a> {
    /// Accesses through `port` on behalf of `who`.
    #[must_use]
    pub fn new(port: &'a dyn DmaPort, who: Requester) -> Self {
        Self { port, who, progress: None }
    }

    pub(super) const fn of_task(port: &'a dyn DmaPort, who: Requester, progress: &'a Progress) -> Self {
        Self { port, who, progress: Some(progress) }
    }

    /// Writes with which the task takes effect: what it has read before they may change. The engine makes no access after them,
    /// and `sqe` has its results. If the state is saved while one of them waits, the task goes on with them after the restore, by
    /// [`Engine::finish`].
    ///
    /// # Errors
    /// [`DmaFault`], as [`DmaPort::write`]; the writes before the one that failed have been made.
    pub fn write_last(&self, sqe: &[u8], writes: Vec<(Iova, Vec<u8>)>) -> Result<(), DmaFault> {
        let last = Arc::new(LastWrites { sqe: sqe.to_vec(), writes });
        if let Some(progress) = self.progress {
            progress.put_last(&last);
        }
        self.write_again(&last.writes)
    }

    /// The same, of writes that [`Self::write_last`] has been given before the state was saved.
    ///
    /// # Errors
    /// See there.
    pub fn write_again(&self, writes: &[(Iova, Vec<u8>)]) -> Result<(), DmaFault> {
        writes.iter().try_for_each(|(at, data)| self.write(*at, data))
    }

    /// Reads data. May wait.
    ///
    /// # Errors
    /// [`DmaFault`], as [`DmaPort::read`].
    pub fn read(&self, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.port.read(&self.who, at, out)
    }

    /// Writes data. May wait.
    ///
    /// # Errors
    /// [`DmaFault`], as [`DmaPort::write`].
    pub fn write(&self, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.port.write(&self.who, at, data)
    }

    /// Whether the queue has been stopped: a long computation asks now and then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.who.waiter.is_cancelled()
    }
}

/// The function's messages: MSI through the PCI function's configuration.
pub trait Messages: Send + Sync {
    /// Sends message `vector`, or marks it pending if it is masked. May wait on `who`'s waiter.
    fn raise(&self, vector: u16, who: &Requester);

    /// Sends what was pending and is no longer masked. May wait on `who`'s waiter.
    fn send_due(&self, who: &Requester);
}

/// What the machine gives a queue manager.
#[derive(Clone)]
pub struct Wiring {
    /// Who the function is on the bus.
    pub stream: hw::StreamId,
    /// Its way to memory.
    pub dma: Arc<dyn DmaPort>,
    /// Its messages.
    pub messages: Arc<dyn Messages>,
    /// Guest time.
    pub clock: Arc<dyn hw::Clock>,
    /// For the time that a stopped queue has to finish its tasks.
    pub alarms: Arc<dyn hw::Alarms>,
    /// What runs its workers.
    pub scheduler: Arc<dyn Scheduler>,
    /// Limits.
    pub limits: Limits,
    /// What goes wrong on purpose.
    pub faults: hw::Faults,
    /// Who takes what happens for a timeline.
    pub trace: hw::Trace,
    /// Where mistakes of software are counted.
    pub errors: hw::GuestErrors,
}

/// How much of the host a queue manager takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most workers that execute tasks. A task that waits for a page keeps its worker: a queue makes progress
    /// whatever the others wait for as long as there are no more such tasks than this.
    pub workers: usize,
    /// For how long, in nanoseconds of guest time, a read of a busy mailbox may be held until the command is done.
    /// The driver gives a command 1 ms; a busy host may not run a worker for longer than that. 0: never.
    pub mailbox_patience_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { workers: 64, mailbox_patience_ns: 20_000_000 }
    }
}
