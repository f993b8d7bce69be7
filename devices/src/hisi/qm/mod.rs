//! The queue manager that HiSilicon's ZIP, SEC2 and HPRE share: rings, mailbox, doorbells, function table, events,
//! interrupts, reset. Nothing here knows what the engine behind it does ([`Engine`]).
//!
//! Registers, structures and behaviour as the Linux driver (`hisi_qm`, 6.12) relies on them, for a physical function
//! of version 3. A store to a register moves state under one lock and wakes a worker; workers make all accesses to
//! memory, with no lock held (`worker`). Each queue has a doorbell page of its own in BAR4, so that a process sees no
//! register. Deliberately absent: virtual functions and what serves them (messages between functions, the shaper,
//! live migration), versions 1 and 2.
//!
//! The lock is the last that a vCPU takes on its way through here, but for a `Waiter`'s own; nothing that waits on a
//! `Waiter` comes back here while it holds that.
//!
//! One access of a vCPU may be held: a read of a busy mailbox, for at most [`Limits::mailbox_patience_ns`]. The driver
//! allows a command 1 ms of guest time, which runs on while a busy host gives no processor to the worker that
//! executes it; the poll is the only place where the device can make good for that.

pub mod context;
mod control;
mod counters;
mod device;
mod engine;
mod events;
mod faults;
mod front;
mod function;
pub mod mailbox;
mod patience;
mod pool;
mod queue;
mod registers;
pub mod regs;
mod saved;
mod scheduler;
mod submissions;
mod task;
#[cfg(test)]
mod tests;
mod totals;
pub mod vft;
mod worker;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hw::mmio::{read_words, write_words};
use hw::{Activity, AlarmTarget, BusError, Latencies, WaitQueue};

pub use engine::{Cancelled, Done, Engine, EngineDma, ErrorClasses, Limits, Messages, QueueInfo, Wiring};
pub use task::{Stage, TaskState};
pub use totals::Totals;
pub use worker::WorkerMemory;

use device::error;
use front::{Front, Tells, Wake};
pub(in crate::hisi) use saved::QmState;
use totals::Counts;

/// Log2 of the bytes of a queue's doorbell page in BAR4.
const DOORBELL_PAGE_SHIFT: u32 = 16;
/// Bytes of BAR4: a doorbell page for each queue that a function can have.
pub const DOORBELL_BAR_BYTES: u64 = (device::FUNCTION_QUEUES as u64) << DOORBELL_PAGE_SHIFT;

/// Offsets in BAR2.
mod offset {
    pub(super) const CACHE_WB_DONE: u64 = 0x208;
    pub(super) const MAILBOX: u64 = 0x300;
    pub(super) const MAILBOX_END: u64 = 0x310;
    pub(super) const CAPABILITIES: std::ops::Range<u64> = 0x3100..0x3180;
}

/// A queue manager and its engine.
pub struct Qm<E: Engine> {
    engine: E,
    wiring: Wiring,
    /// The one lock. The queues below belong to it.
    front: Mutex<Front>,
    /// Workers for tasks sleep here.
    tasks: WaitQueue,
    /// The control worker sleeps here.
    requests: WaitQueue,
    /// Readers of a busy mailbox are held here.
    done: WaitQueue,
    /// Whoever waits for the end of work waits here.
    activity: Arc<Activity>,
    totals: Counts,
    latencies: Arc<Latencies>,
    /// The alarm service's slot for [`Self::time_is_up`].
    timer: usize,
    this: Weak<Self>,
}

/// The queue manager as the alarm service knows it.
struct Timer<E: Engine>(Weak<Qm<E>>);

impl<E: Engine> AlarmTarget for Timer<E> {
    fn alarm(&self) {
        if let Some(qm) = self.0.upgrade() {
            qm.time_is_up();
        }
    }
}

impl<E: Engine> Qm<E> {
    /// A queue manager after reset, without workers ([`Self::start_first`]).
    #[must_use]
    pub fn new(engine: E, wiring: Wiring) -> Arc<Self> {
        Arc::new_cyclic(|this| {
            let timer = wiring.alarms.register(Arc::new(Timer(Weak::clone(this))));
            let activity = Arc::new(Activity::new(&*wiring.scheduler));
            let latencies = Arc::default();
            let tells = Tells {
                stream: wiring.stream,
                clock: Arc::clone(&wiring.clock),
                latencies: Arc::clone(&latencies),
                trace: wiring.trace.clone(),
                errors: wiring.errors.clone(),
            };
            Self {
                front: Mutex::new(Front::new(E::LOG2_SQE, wiring.limits.workers, &activity, tells)),
                activity,
                latencies,
                engine,
                tasks: wiring.scheduler.wait_queue(),
                requests: wiring.scheduler.wait_queue(),
                done: wiring.scheduler.wait_queue(),
                wiring,
                totals: Counts::default(),
                timer,
                this: Weak::clone(this),
            }
        })
    }

    /// The engine.
    #[must_use]
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// Changes state under the lock, then wakes those whom it concerns.
    fn with<T>(&self, change: impl FnOnce(&mut Front) -> T) -> T {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut front);
        let wake = std::mem::take(&mut front.wake);
        if wake.command_began || wake.write_back_began {
            let (now, most) = (self.wiring.clock.now_ns(), self.wiring.limits.mailbox_patience_ns);
            if wake.command_began {
                let is_stop = front.function.is_stopping();
                front.function.patience.command_began(now, most, is_stop);
            }
            if wake.write_back_began {
                front.function.patience.write_back_began(now, most);
            }
            self.set_timer(&front, now);
        }
        drop(front);
        self.wake(wake);
        result
    }

    fn wake(&self, wake: Wake) {
        if wake.everyone {
            self.tasks.notify_all();
        } else {
            for _ in 0..wake.workers {
                self.tasks.notify_one();
            }
        }
        if wake.control || wake.everyone {
            self.requests.notify_all();
        }
        if wake.observers {
            self.activity.changed();
        }
        if wake.readers {
            self.done.notify_all();
        }
    }

    /// With the lock held, so that the alarm is always that of the latest state.
    fn set_timer(&self, front: &Front, now_ns: u64) {
        self.wiring.alarms.set(self.timer, front.next_look_ns(now_ns));
    }

    /// Held readers look whether they are to be held any longer, and the tasks of a queue that is being stopped may have
    /// run out of time.
    fn time_is_up(&self) {
        self.with(|front| {
            let now = self.wiring.clock.now_ns();
            if front.function.is_stopping() && front.function.patience.is_stop_over(now) {
                front.cut_stop();
            }
            front.wake.readers = true;
            self.set_timer(front, now);
        });
    }

    /// A read at `offset` of BAR2, of any size and alignment. Offsets without a register read as zero.
    ///
    /// # Errors
    /// None; the type is that of the bus.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let mut front = self.front.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(poll) = front.poll(offset) {
            while front.holds(poll, self.wiring.clock.now_ns()) {
                front = self.done.wait(&self.front, front);
            }
        }
        read_words(offset, data, |at| {
            if offset::CAPABILITIES.contains(&at) {
                return Ok(registers::capability::<E>(at));
            }
            Ok(front.read_word(at))
        })
    }

    /// A write at `offset` of BAR2.
    ///
    /// # Errors
    /// [`BusError::BadAccess`] for other than 4, 8 or 16 aligned bytes; the mailbox takes any.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let end = offset.saturating_add(data.len() as u64);
        if offset >= offset::MAILBOX && end <= offset::MAILBOX_END {
            self.with(|front| {
                let byte = usize::try_from(offset - offset::MAILBOX).unwrap_or(usize::MAX);
                if let Some(command) = front.function.mailbox.write(byte, data) {
                    front.start_command(command);
                }
            });
            return Ok(());
        }
        self.with(|front| {
            write_words(offset, data, |at, word| {
                front.write_word(at, word);
                Ok(())
            })
        })
    }

    /// A write at `offset` of BAR4, the doorbell pages. They read as zero.
    ///
    /// # Errors
    /// [`BusError::BadAccess`] for other than 4, 8 or 16 aligned bytes.
    pub fn write_doorbell(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let in_page = offset & ((1 << DOORBELL_PAGE_SHIFT) - 1);
        let Ok(qn) = u16::try_from(offset >> DOORBELL_PAGE_SHIFT) else {
            return Err(BusError::NoRegister(offset));
        };
        self.with(|front| front.ring_page(qn, in_page, data))
    }

    /// An error of the engine that has no other way to the guest: the abnormal interrupt is raised.
    pub fn engine_error(&self) {
        self.with(Front::post_abnormal);
    }

    /// The AXI master hears an error in answer to an access that belongs to no queue: a write, or else a read.
    pub fn axi_error(&self, is_write: bool) {
        self.with(|front| front.raise_error(if is_write { error::AXI_BRESP } else { error::AXI_RRESP }));
    }

    /// Messages that were held back by a mask may be due: the control worker sends them.
    pub fn messages_unmasked(&self) {
        self.with(|front| {
            front.function.events.post_masked();
            front.wake.control = true;
        });
    }

    /// What the engine has done since the machine was made.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals.totals()
    }

    /// How long commands have taken, from the doorbell until their completion is in memory.
    #[must_use]
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Where the tasks are that workers have, by queue.
    #[must_use]
    pub fn tasks_in_flight(&self) -> Vec<TaskState> {
        self.with(|front| front.task_states())
    }

    /// Ends all workers and gives up their accesses. The queue manager is of no use afterwards.
    pub fn shut_down(&self) {
        self.with(Front::shut_down);
    }
}

/// Its function's life cycle ([`hw::LifeCycle`]), as far as it is the queue manager's.
impl<E: Engine> Qm<E> {
    /// The machine's reset and the function's are the same. Not from a worker, which would wait for itself.
    pub fn reset(&self) {
        self.with(|front| {
            front.begin_reset();
            self.set_timer(front, self.wiring.clock.now_ns());
        });
        self.activity.wait_until(|| self.with(|front| front.is_quiet()));
        self.with(Front::end_reset);
    }

    /// Begins no further task. Returns when those under way have ended, or wait for the guest or for guest time.
    pub fn quiesce(&self) {
        self.with(|front| front.gate.set_quiesced(true));
        self.activity.wait_until(|| self.with(|front| front.is_still()));
    }

    /// Ends what [`Self::quiesce`] has begun.
    pub fn resume(&self) {
        self.with(|front| {
            front.gate.set_quiesced(false);
            front.wake.everyone = true;
        });
    }
}
