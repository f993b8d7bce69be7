//! The seam between the queue manager and an accelerator engine.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::task::{LastWrites, Progress};
use crate::hisi::registers::{EngineMap, EngineRegisters};
use hw::{DmaFault, DmaPort, Iova, Requester, Scheduler};

/// What is behind the queue manager, and all that one kind of accelerator does not share with the others. Nothing in the queue
/// manager and its function knows what an engine does.
pub trait Engine: Send + Sync + Sized + 'static {
    /// The map of the engine's own registers.
    type Register: EngineMap;
    /// Working memory that a worker keeps from task to task.
    type Scratch: Send + 'static;

    /// What users know accelerators of this kind by: the first is `NAME0`.
    const NAME: &'static str;
    /// A few words for users on what it is.
    const ABOUT: &'static str;
    /// The PCI device ID of the physical function.
    const DEVICE_ID: u16;
    /// Log2 of the bytes of this engine's SQE.
    const LOG2_SQE: u8;
    /// What follows from the queue manager's errors.
    const QM_ERRORS: ErrorClasses;
    /// What follows from the engine's own errors.
    const ERRORS: ErrorClasses;

    /// The engine's capability word at `offset` in BAR2 (0x313c to 0x317c); 0 where it has none.
    fn capability(offset: u64) -> u32;

    /// The engine after power-on.
    fn new() -> Self;

    /// Its own registers.
    fn registers(&self) -> &EngineRegisters<Self::Register>;

    /// The counter that one of a row of registers shows; none if it is stored as it is written. A row has counters or has
    /// none.
    fn counter(&self, reg: Self::Register, index: u64) -> Option<&AtomicU64> {
        _ = (reg, index);
        None
    }

    /// Counts a task that has ended after `ns` nanoseconds of guest time, with its results in `sqe`, in the engine's own counters.
    fn count(&self, sqe: &[u8], queue: QueueInfo, done: Done, ns: u64) {
        _ = (sqe, queue, done, ns);
    }

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
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled>;

    /// Makes the results in `sqe` say this status, in the engine's own encoding. Only fault plans ask for it.
    fn set_status(&self, sqe: &mut [u8], status: u8);
}

/// Errors by what follows from them, as bits of the register that latches them. Software reads it from the capability words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorClasses {
    /// Corrected.
    pub corrected: u32,
    /// Not corrected, and not fatal.
    pub not_fatal: u32,
    /// Such that software resets the device.
    pub reset: u32,
}

/// How a task has ended, and how much it has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Whether it has done what it was asked for.
    pub is_ok: bool,
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
