//! The DMA test device: a PCI function that makes the accesses that software asks for, one by one.
//!
//! Described for those who write tests in `docs/dma-test.md`. Eight channels work independently, each on a thread of
//! its own, so that an access that stalls holds nothing but its channel, as long as the host has threads to give. It has
//! no address translation cache: software plays the cache, by Translation Requests and translated accesses. Deliberately absent: rings of commands, and
//! everything that a real engine does beyond moving bytes.

mod command;
pub mod regs;
mod saved;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use hw::ats::{AtsEndpoint, AtsPort, InvalidateRequest, InvalidateTag, PageResponse, PageResponseCode};
use hw::mmio::{read_words, write_words};
use hw::regmap::{RegisterMap, Store};
use hw::{
    Activity, BusError, DmaPort, DmaTag, LifeCycle, Requester, RestoreError, SavedState, Scheduler, StreamId,
    WaitQueue, Waiter,
};
use serde_json::Value;

use self::command::{Job, Outcome};
use self::regs::{BAR0_BYTES, CHANNELS, Command, Ctrl, DmaTestReg, InvInfo, Status, Tag};
use self::saved::DmaTestState;
use crate::gate::Gate;
use crate::pci::caps::{PortType, page_request};
use crate::pci::{Bar, BusMasterPort, ConfigSpace, Effects, Identity, PciFunction, PendingWaker};

/// Who the function is; `docs/dma-test.md` says why.
pub const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x10f0,
    revision: 1,
    class: 0xff_0000,
    subsystem_vendor: 0x1af4,
    subsystem: 0x10f0,
};
/// Most Invalidate Requests that are held back: what an Invalidate Queue Depth of 0 promises.
const HELD: usize = 32;
/// Outstanding Page Request Capacity. Nothing here counts them: software sends each one itself.
const PAGE_REQUESTS: u32 = 512;
/// DT_FEATURES: ATS and page requests.
const WITH_ATS: u32 = 0x300;

/// What the machine gives the device.
#[derive(Clone)]
pub struct DmaTestWiring {
    /// Its requester ID.
    pub stream: StreamId,
    /// Its way to memory and to message doorbells.
    pub dma: Arc<dyn DmaPort>,
    /// The translation agent, if there is one.
    pub ats: Option<Arc<dyn AtsPort>>,
    /// What runs its workers: one for messages, started at once, and one for each channel, started when needed.
    pub scheduler: Arc<dyn Scheduler>,
}

/// The function.
pub struct DmaTest {
    config: ConfigSpace,
    stream: StreamId,
    port: BusMasterPort,
    ats: Option<Arc<dyn AtsPort>>,
    scheduler: Arc<dyn Scheduler>,
    front: Mutex<Front>,
    /// For each channel's worker, and for the one that sends messages that were masked.
    work: [WaitQueue; CHANNELS + 1],
    /// Whoever waits for the end of work waits here.
    activity: Arc<Activity>,
    /// Read while an access with a translated address is made.
    translated: RwLock<()>,
    me: Weak<Self>,
}

/// The condition of the worker that sends messages that were masked.
const MESSENGER: usize = CHANNELS;

/// How far a thread has come with a channel's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It makes the accesses.
    Accesses,
    /// The result is shown; it sends the message.
    Message,
}

/// What a channel has for a thread.
#[derive(Debug)]
enum Task {
    Command(Job),
    /// A message that waits here.
    Message(Arc<Waiter>),
}

/// One channel besides its registers.
#[derive(Debug)]
struct Channel {
    queued: Option<Job>,
    /// The command whose accesses a thread makes.
    current: Option<Job>,
    /// The message of a command was on its way when the state was saved, and is sent again.
    is_unsent: bool,
    /// What a thread does for the channel.
    in_flight: Option<Stage>,
    /// Of the present command.
    waiter: Arc<Waiter>,
    /// Of the message at its end.
    message: Arc<Waiter>,
    /// Counts resets: the outcome of an older command is dropped.
    age: u64,
    has_thread: bool,
}

impl Channel {
    fn new(activity: &Arc<Activity>) -> Self {
        Self {
            queued: None,
            current: None,
            is_unsent: false,
            in_flight: None,
            waiter: Waiter::watched(activity),
            message: Waiter::watched(activity),
            age: 0,
            has_thread: false,
        }
    }

    fn give_up(&self) {
        self.waiter.cancel();
        self.message.cancel();
    }

    /// As after power-on, but for the thread, and for what it does: that is given up.
    fn reset(&mut self) {
        // By name: a new field must be decided on here.
        let Self { queued, current, is_unsent, in_flight: _, waiter, message, age, has_thread: _ } = self;
        (*queued, *current, *is_unsent) = (None, None, false);
        Waiter::replace(waiter);
        Waiter::replace(message);
        *age += 1;
    }

    fn take(&mut self) -> Option<Task> {
        if self.in_flight.is_some() {
            // The message of the command before may be on its way, on another thread.
            return None;
        }
        if std::mem::take(&mut self.is_unsent) {
            self.in_flight = Some(Stage::Message);
            return Some(Task::Message(Arc::clone(&self.message)));
        }
        let job = self.queued.take()?;
        self.in_flight = Some(Stage::Accesses);
        self.current = Some(job.clone());
        Some(Task::Command(job))
    }

    /// Whether no thread does anything for the channel but wait for the guest or for guest time.
    fn is_still(&self) -> bool {
        match self.in_flight {
            None => true,
            Some(Stage::Accesses) => self.waiter.is_waiting(),
            Some(Stage::Message) => self.message.is_waiting(),
        }
    }
}

/// Sends messages that were masked, and carries out the commands of channels for which the host has no thread.
#[derive(Debug)]
struct Messenger {
    is_due: bool,
    is_sending: bool,
    waiter: Arc<Waiter>,
}

#[derive(Debug)]
struct Front {
    registers: Store<DmaTestReg>,
    channels: [Channel; CHANNELS],
    messenger: Messenger,
    held: Vec<InvalidateTag>,
    gate: Gate,
}

impl Front {
    fn new(activity: &Arc<Activity>) -> Self {
        Self {
            registers: Store::at_reset(),
            channels: std::array::from_fn(|_| Channel::new(activity)),
            messenger: Messenger { is_due: false, is_sending: false, waiter: Waiter::watched(activity) },
            held: Vec::new(),
            gate: Gate::default(),
        }
    }

    fn give_up(&self) {
        self.channels.iter().for_each(Channel::give_up);
        self.messenger.waiter.cancel();
    }

    /// Whether no thread does anything.
    fn is_quiet(&self) -> bool {
        !self.messenger.is_sending && self.channels.iter().all(|channel| channel.in_flight.is_none())
    }

    /// Whether what threads do waits for the guest or for guest time.
    fn is_still(&self) -> bool {
        let Messenger { is_sending, waiter, .. } = &self.messenger;
        (!is_sending || waiter.is_waiting()) && self.channels.iter().all(Channel::is_still)
    }

    fn ctrl(&self) -> Ctrl {
        Ctrl::from(self.registers.word(DmaTestReg::DT_CTRL))
    }

    fn status(&self, channel: usize) -> Status {
        Status::from(self.registers.entry(DmaTestReg::CH_STATUS, channel) as u32)
    }

    fn set_status(&mut self, channel: usize, status: Status) {
        self.registers.set_entry(DmaTestReg::CH_STATUS, channel, u32::from(status).into());
    }

    fn count(&mut self, reg: DmaTestReg, channel: usize) {
        let count = self.registers.entry(reg, channel) as u32;
        self.registers.set_entry(reg, channel, count.wrapping_add(1).into());
    }

    /// Makes a job of a channel's registers.
    fn start(&mut self, channel: usize, command: Command) {
        Waiter::replace(&mut self.channels[channel].waiter);
        let entry = |reg| self.registers.entry(reg, channel);
        let job = Job {
            command,
            tag: Tag::from(entry(DmaTestReg::CH_TAG) as u32),
            length: entry(DmaTestReg::CH_LENGTH) as u32,
            address: entry(DmaTestReg::CH_ADDRESS),
            target: entry(DmaTestReg::CH_TARGET),
            data: entry(DmaTestReg::CH_DATA),
            group: entry(DmaTestReg::CH_GROUP) as u16,
            waiter: Arc::clone(&self.channels[channel].waiter),
            age: self.channels[channel].age,
        };
        self.channels[channel].queued = Some(job);
        self.set_status(channel, Status::new().with_busy(true));
    }

    /// What a channel has for a thread, if threads may begin one.
    fn take(&mut self, channel: usize) -> Option<Task> {
        if self.gate.is_open() { self.channels[channel].take() } else { None }
    }

    /// A command of a channel for which there is no thread.
    fn take_without_thread(&mut self) -> Option<(usize, Task)> {
        (0..CHANNELS).find_map(|channel| {
            if self.channels[channel].has_thread {
                return None;
            }
            Some((channel, self.take(channel)?))
        })
    }

    /// Shows what came of a command; whether its message is due.
    fn finish(&mut self, channel: usize, job: &Job, outcome: &Outcome) -> bool {
        self.channels[channel].in_flight = None;
        if self.channels[channel].age != job.age {
            return false;
        }
        self.channels[channel].current = None;
        let dropped = self.status(channel).dropped();
        self.set_status(channel, outcome.status.with_dropped(dropped));
        self.registers.set_entry(DmaTestReg::CH_FAULT, channel, outcome.fault.unwrap_or(0));
        self.registers.set_entry(DmaTestReg::CH_BYTES, channel, outcome.bytes.into());
        if let Some(data) = outcome.data {
            self.registers.set_entry(DmaTestReg::CH_DATA, channel, data);
        }
        if let Some((address, info)) = outcome.ats {
            self.registers.set_entry(DmaTestReg::CH_ATS_ADDRESS, channel, address);
            self.registers.set_entry(DmaTestReg::CH_ATS_INFO, channel, u32::from(info).into());
        }
        self.count(DmaTestReg::CH_COUNT, channel);
        let is_due = job.command.message() && !self.gate.is_shut_down();
        if is_due {
            self.channels[channel].message.rearm();
            self.channels[channel].in_flight = Some(Stage::Message);
        }
        is_due
    }

    /// What messages that were masked wait on, if they are due and threads may begin something.
    fn take_messages(&mut self) -> Option<Arc<Waiter>> {
        if !self.messenger.is_due || !self.gate.is_open() {
            return None;
        }
        let Messenger { is_due, is_sending, waiter } = &mut self.messenger;
        (*is_due, *is_sending) = (false, true);
        waiter.rearm();
        Some(Arc::clone(waiter))
    }

    /// Back to the state after power-on; the Invalidate Requests that were held back. What is under way is given up, and
    /// nothing is begun until the gate is told that it has ended.
    fn begin_reset(&mut self) -> Vec<InvalidateTag> {
        // By name: a new field must be decided on here.
        let Self { registers, channels, messenger, held, gate } = self;
        gate.begin_reset();
        *registers = Store::at_reset();
        channels.iter_mut().for_each(Channel::reset);
        messenger.is_due = false;
        Waiter::replace(&mut messenger.waiter);
        std::mem::take(held)
    }
}

impl DmaTest {
    /// The device after power-on.
    ///
    /// # Errors
    /// If there is no thread for its messages.
    pub fn new(wiring: DmaTestWiring) -> io::Result<Arc<Self>> {
        let DmaTestWiring { stream, dma, ats, scheduler } = wiring;
        let config = ConfigSpace::builder(IDENTITY)
            .bar(0, Bar::memory64(BAR0_BYTES))
            .express(PortType::RcIntegratedEndpoint)
            .power_management()
            .msi(CHANNELS as u8)
            .pasid(20, true, true);
        let config = match &ats {
            Some(_) => config.ats().page_requests(PAGE_REQUESTS),
            None => config,
        };
        let config = config.build();
        let activity = Arc::new(Activity::new(&*scheduler));
        let device = Arc::new_cyclic(|me: &Weak<Self>| Self {
            port: BusMasterPort::new(&config, dma),
            config,
            stream,
            ats,
            front: Mutex::new(Front::new(&activity)),
            work: std::array::from_fn(|_| scheduler.wait_queue()),
            scheduler,
            activity,
            translated: RwLock::default(),
            me: me.clone(),
        });
        let as_waker: Weak<Self> = Arc::downgrade(&device);
        device.config.set_pending_waker(Arc::new(Unmasked(as_waker.clone())));
        if let Some(ats) = &device.ats {
            ats.attach(stream, as_waker);
        }
        device.start(Self::run_messenger)?;
        Ok(device)
    }

    /// Gives everything up and ends the workers.
    pub fn shut_down(&self) {
        let mut front = self.lock();
        front.gate.shut_down();
        front.give_up();
        self.wake_all();
    }

    /// Carries out one command that is due, or sends the messages that are, for owners that give no threads. `false`
    /// if nothing is due.
    pub fn step(&self) -> bool {
        let mut front = self.lock();
        if let Some((channel, task)) = (0..CHANNELS).find_map(|channel| Some((channel, front.take(channel)?)))
        {
            drop(front);
            self.perform(channel, task);
            return true;
        }
        let messages = front.take_messages();
        drop(front);
        messages.map(|waiter| self.send_due(waiter)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, channel: usize, task: Task) {
        let waiter = match task {
            Task::Command(job) => {
                let outcome = self.run(&job);
                let mut front = self.lock();
                let is_due = front.finish(channel, &job, &outcome);
                is_due.then(|| Arc::clone(&front.channels[channel].message))
            }
            Task::Message(waiter) => Some(waiter),
        };
        if let Some(waiter) = waiter {
            self.config.raise(channel as u16, &self.port, &self.plain(Arc::clone(&waiter)));
            waiter.set_made_again(false);
            let mut front = self.lock();
            front.channels[channel].in_flight = None;
            if front.channels[channel].queued.is_some() {
                self.wake(&front, channel);
            }
        }
        self.activity.changed();
    }

    /// Wakes the thread that serves a channel.
    fn wake(&self, front: &Front, channel: usize) {
        let worker = if front.channels[channel].has_thread { channel } else { MESSENGER };
        self.work[worker].notify_all();
    }

    /// Sends messages that were masked.
    fn send_due(&self, waiter: Arc<Waiter>) {
        self.config.deliver_pending(&self.port, &self.plain(Arc::clone(&waiter)));
        waiter.set_made_again(false);
        self.lock().messenger.is_sending = false;
        self.activity.changed();
    }

    /// Without PASID: messages.
    fn plain(&self, waiter: Arc<Waiter>) -> Requester {
        Requester { tag: DmaTag::untagged(self.stream), waiter, command: None }
    }

    /// A channel's worker: returns after [`Self::shut_down`].
    fn run_channel(&self, channel: usize) {
        loop {
            let mut front = self.lock();
            let task = loop {
                if front.gate.is_shut_down() {
                    return;
                }
                if let Some(task) = front.take(channel) {
                    break task;
                }
                front = self.work[channel].wait(&self.front, front);
            };
            drop(front);
            self.perform(channel, task);
        }
    }

    /// The messenger: returns after [`Self::shut_down`].
    fn run_messenger(&self) {
        loop {
            let mut front = self.lock();
            let (messages, task) = loop {
                if front.gate.is_shut_down() {
                    return;
                }
                // One or the other: what has been taken is begun at once.
                let messages = front.take_messages();
                let task = if messages.is_none() { front.take_without_thread() } else { None };
                if messages.is_some() || task.is_some() {
                    break (messages, task);
                }
                front = self.work[MESSENGER].wait(&self.front, front);
            };
            drop(front);
            if let Some(waiter) = messages {
                self.send_due(waiter);
            }
            if let Some((channel, task)) = task {
                self.perform(channel, task);
            }
        }
    }

    /// Starts a worker.
    fn start(&self, work: impl FnOnce(&Self) + Send + 'static) -> io::Result<()> {
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        self.scheduler.spawn("accel", Box::new(move || work(&me)))
    }

    fn command(&self, channel: usize, command: Command) {
        let mut front = self.lock();
        if front.gate.is_shut_down() {
            return;
        }
        let status = front.status(channel);
        if status.busy() {
            front.set_status(channel, status.with_dropped(true));
            return;
        }
        front.registers.set_entry(DmaTestReg::CH_COMMAND, channel, u32::from(command).into());
        front.start(channel, command);
        self.start_for(&mut front, channel);
        self.wake(&front, channel);
    }

    /// Sees that a channel has a thread, if the host has one.
    fn start_for(&self, front: &mut Front, channel: usize) {
        if !front.channels[channel].has_thread {
            let started = self.start(move |me| me.run_channel(channel));
            front.channels[channel].has_thread = started.is_ok();
        }
    }

    /// Software's reset, the function's and the machine's.
    fn reset_device(&self) {
        let held = self.lock().begin_reset();
        self.activity.wait_until(|| self.lock().is_quiet());
        self.lock().gate.end_reset();
        self.wake_all();
        self.answer(held);
    }

    fn wake_all(&self) {
        self.work.iter().for_each(WaitQueue::notify_all);
    }

    /// Answers Invalidate Requests: nothing uses a translation from before any more.
    fn answer(&self, tags: Vec<InvalidateTag>) {
        let Some(ats) = self.ats.as_ref().filter(|_| !tags.is_empty()) else { return };
        // A translated access waits for nobody, so this does not wait long.
        drop(self.translated.write().unwrap_or_else(PoisonError::into_inner));
        let stream = self.config.requester_id().unwrap_or(self.stream);
        for tag in tags {
            ats.invalidate_completed(stream, tag);
        }
    }

    fn read_word(&self, offset: u64) -> u32 {
        let Some(at) = DmaTestReg::locate(offset) else { return 0 };
        let front = self.lock();
        match at.reg {
            DmaTestReg::DT_FEATURES if self.ats.is_some() => front.registers.read_word(at) | WITH_ATS,
            DmaTestReg::DT_INV_HELD => front.held.len() as u32,
            _ => front.registers.read_word(at),
        }
    }

    fn write_word(&self, offset: u64, word: u32) {
        let Some(at) = DmaTestReg::locate(offset) else { return };
        let channel = at.index as usize;
        match at.reg {
            DmaTestReg::CH_COMMAND => {
                let word = at.reg.info().written(0, word.into());
                self.command(channel, Command::from(word as u32));
            }
            DmaTestReg::CH_GIVE_UP if word & 1 != 0 => self.lock().channels[channel].waiter.cancel(),
            DmaTestReg::DT_INV_ANSWER if word & 1 != 0 => {
                let held = std::mem::take(&mut self.lock().held);
                self.answer(held);
            }
            DmaTestReg::DT_CTRL if Ctrl::from(word).reset() => self.reset_device(),
            _ => self.lock().registers.write_word(at, word),
        }
    }
}

/// Tells the device that masked messages may go.
struct Unmasked(Weak<DmaTest>);

impl PendingWaker for Unmasked {
    fn messages_ready(&self) {
        let Some(device) = self.0.upgrade() else { return };
        let mut front = device.lock();
        front.messenger.is_due = true;
        device.work[MESSENGER].notify_all();
    }
}

impl AtsEndpoint for DmaTest {
    fn invalidate(&self, request: &InvalidateRequest, tag: InvalidateTag) {
        let info = InvInfo::new()
            .with_pasid(request.pasid.map_or(0, |pasid| pasid.get()))
            .with_has_pasid(request.pasid.is_some())
            .with_global(request.global)
            .with_size_log2(request.size_log2);
        {
            let mut front = self.lock();
            front.count(DmaTestReg::DT_INV_COUNT, 0);
            front.registers.set_entry(DmaTestReg::DT_INV_ADDRESS, 0, request.address.0);
            front.registers.set_word(DmaTestReg::DT_INV_INFO, info.into());
            if front.ctrl().hold() {
                // An agent that sends more than it may gets no answer to them at all.
                if front.held.len() < HELD {
                    front.held.push(tag);
                }
                return;
            }
        }
        self.answer(vec![tag]);
    }

    fn page_response(&self, response: &PageResponse) {
        if response.code == PageResponseCode::ResponseFailure {
            self.config.set_page_request_status(page_request::RESPONSE_FAILURE);
        }
        let mut front = self.lock();
        front.count(DmaTestReg::DT_PRG_COUNT, 0);
        let info = u32::from(response.index.get()) | u32::from(response.code.bits()) << 12;
        front.registers.set_word(DmaTestReg::DT_PRG_INFO, info);
        let pasid = response.pasid.map_or(0, |pasid| pasid.get() | 1 << 31);
        front.registers.set_word(DmaTestReg::DT_PRG_PASID, pasid);
    }
}

impl PciFunction for DmaTest {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_write(&self, offset: u64, data: &[u8]) -> Effects {
        let effects = self.config.write(offset, data);
        if effects.services_changed {
            // A page request is on its way no longer than its command takes; this counts only without Enable.
            self.config.set_page_request_status(page_request::STOPPED);
        }
        if !self.config.is_bus_master() {
            self.lock().give_up();
        }
        effects
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        match bar {
            0 => read_words(offset, data, |at| Ok(self.read_word(at))),
            _ => Err(BusError::NoRegister(offset)),
        }
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), BusError> {
        match bar {
            0 => write_words(offset, data, |at, word| {
                self.write_word(at, word);
                Ok(())
            }),
            _ => Err(BusError::NoRegister(offset)),
        }
    }

    fn function_reset(&self) {
        self.reset_device();
    }
}

impl LifeCycle for DmaTest {
    fn reset(&self) {
        self.config.reset();
        self.reset_device();
    }

    fn quiesce(&self) {
        self.lock().gate.set_quiesced(true);
        self.activity.wait_until(|| self.lock().is_still());
    }

    fn resume(&self) {
        self.lock().gate.set_quiesced(false);
        self.wake_all();
    }

    fn save(&self) -> Value {
        self.saved().to_value()
    }

    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        self.take_up(DmaTestState::from_value(state)?)
    }
}
