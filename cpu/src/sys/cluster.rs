//! What all vCPUs of a machine share: memory, the bus, power states, and the requests that they send one another.
//!
//! A request is posted to a vCPU's mailbox and noticed at its next block border. Whoever must know that it has been
//! served waits by ticket (`Cpu::complete_requests`, which DSB calls) and serves its own mailbox meanwhile, so that
//! two vCPUs can wait for each other. A vCPU that sleeps, is off or is outside `run` executes nothing; it looks into
//! its mailbox before it does, so nobody waits for it. That includes one whose thread unwinds out of `run`.
//!
//! A vCPU that is off gets no requests: when it starts, it has forgotten all that they could be about. For that, what a
//! request tells of is in memory before its sender looks whether the vCPU is off, and the vCPU counts as on before it
//! translates or decodes anything. With a fence between the two steps on either side, either the sender
//! sees that the vCPU is on, or the vCPU finds in memory what the request would have told. Mailboxes have a bounded size:
//! what exceeds it becomes a request for everything, which costs the receiver time only.
//!
//! The locks in here are leaves: nothing is called and no other lock is taken under them.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use hw::saved::{RestoreError, hex};
use hw::schedule::Backoff;
use hw::{Alarms, BusError, Clock, CodeWriteHook, Entropy, IrqLine, Pa, Ram, Scheduler, SysRegDevice};

use serde::{Deserialize, Serialize};

use super::Exit;
use super::features::Features;
use super::signals::{Signal, VcpuSignals};
use super::timer::Timer;
use super::wait::EventStream;
use crate::mem::{HostRam, Invalidation, Writers};
use crate::state::pending;
use crate::{Cpu, Observation, Tier};

/// Everything at physical addresses that are not RAM.
///
/// Called on vCPU threads, for 1, 2, 4, 8 or 16 bytes that do not cross a 4 KiB page. An error is an external abort
/// to the guest.
pub trait Bus: Send + Sync {
    /// Reads from a device.
    ///
    /// # Errors
    /// [`BusError`], if nothing answers.
    fn read(&self, pa: Pa, data: &mut [u8]) -> Result<(), BusError>;

    /// Writes to a device.
    ///
    /// # Errors
    /// [`BusError`], if nothing answers; nothing has then changed.
    fn write(&self, pa: Pa, data: &[u8]) -> Result<(), BusError>;
}

/// What a cluster is made from.
pub struct ClusterConfig {
    /// The vCPUs' signals, whose wires the interrupt controller drives: as many as there are vCPUs, at least one.
    pub signals: VcpuSignals,
    /// The instructions that exist.
    pub features: Features,
    /// What runs guest code.
    pub tier: Tier,
    /// What is wanted to be known of the vCPUs.
    pub observation: Observation,
    /// Guest RAM.
    pub ram: Arc<Ram>,
    /// Everything else at physical addresses.
    pub bus: Arc<dyn Bus>,
    /// The GIC's CPU interface: ICC_* registers.
    pub gic: Arc<dyn SysRegDevice>,
    /// Guest time.
    pub clock: Arc<dyn Clock>,
    /// What RNDR and RNDRRS give.
    pub entropy: Arc<dyn Entropy>,
    /// Who calls back when a timer's time has come. Must not call [`hw::AlarmTarget::alarm`] under a lock that
    /// [`Alarms::set`] takes.
    pub alarms: Arc<dyn Alarms>,
    /// What runs the vCPUs.
    pub scheduler: Arc<dyn Scheduler>,
    /// The virtual timer's interrupt of each vCPU.
    pub virtual_timer: Vec<Arc<dyn IrqLine>>,
    /// The physical timer's interrupt of each vCPU.
    pub physical_timer: Vec<Arc<dyn IrqLine>>,
}

/// Invalidations beyond this many are replaced by one of everything.
const INVALIDATIONS: usize = 64;

/// Pages named one by one; more are replaced by all of RAM. Enough for a vCPU that sleeps while others load programs.
const PAGES: usize = 512;

/// Parts of RAM: some pages with 64-byte granules, or everything.
#[derive(Debug)]
enum Parts {
    Some(BTreeMap<Pa, u64>),
    All,
}

impl Default for Parts {
    fn default() -> Self {
        Self::Some(BTreeMap::new())
    }
}

impl Parts {
    fn add(&mut self, page: Pa, granules: u64) {
        if let Self::Some(pages) = self {
            *pages.entry(page).or_default() |= granules;
            if pages.len() > PAGES {
                *self = Self::All;
            }
        }
    }
}

/// What others ask of a vCPU.
#[derive(Debug, Default)]
struct Letters {
    /// Broadcast TLBIs.
    invalidations: Vec<Invalidation>,
    /// Stale code.
    stale: Parts,
    /// Pages to which fast writes must end. Apart from the others: a vCPU that is about to decode code serves these
    /// alone, for an invalidation must not slip in between its translation and its use of it.
    protect: Parts,
}

/// A vCPU's mailbox.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: Mutex<Letters>,
    /// The vCPU is off: nothing is posted.
    is_off: AtomicBool,
    /// Tickets given out and served, for invalidations and for protections.
    invalidations: Tickets,
    protections: Tickets,
}

#[derive(Debug, Default)]
struct Tickets {
    given: AtomicU64,
    served: AtomicU64,
}

impl Tickets {
    fn give(&self) -> u64 {
        self.given.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn given(&self) -> u64 {
        self.given.load(Ordering::SeqCst)
    }

    fn serve(&self, up_to: u64) {
        self.served.fetch_max(up_to, Ordering::SeqCst);
    }

    fn are_served(&self, up_to: u64) -> bool {
        self.served.load(Ordering::SeqCst) >= up_to
    }
}

impl Mailbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the vCPU needs no requests because it is off. Asked when what they would tell has happened.
    fn is_off(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_off.load(Ordering::SeqCst)
    }

    fn post_invalidation(&self, what: Invalidation) -> u64 {
        let mut letters = self.letters();
        if letters.invalidations.len() < INVALIDATIONS {
            letters.invalidations.push(what);
        } else {
            letters.invalidations = vec![Invalidation::All];
        }
        self.invalidations.give()
    }

    fn post_protection(&self, page: Pa) -> u64 {
        let mut letters = self.letters();
        letters.protect.add(page, u64::MAX);
        self.protections.give()
    }

    fn post_stale(&self, page: Pa, granules: u64) {
        self.letters().stale.add(page, granules);
    }

    /// How many requests are kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        let letters = self.letters();
        let pages = |parts: &Parts| match parts {
            Parts::Some(pages) => pages.len(),
            Parts::All => 1,
        };
        letters.invalidations.len() + pages(&letters.stale) + pages(&letters.protect)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Off,
    /// CPU_ON has been accepted; the vCPU has not yet started.
    OnPending {
        entry: u64,
        context: u64,
    },
    On,
}

/// What CPU_ON and AFFINITY_INFO say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PowerState {
    Off,
    OnPending,
    On,
}

impl Power {
    const fn at_power_on(cpu: usize) -> Self {
        if cpu == 0 { Self::On } else { Self::Off }
    }

    fn seen(self) -> PowerState {
        match self {
            Self::Off => PowerState::Off,
            Self::OnPending { .. } => PowerState::OnPending,
            Self::On => PowerState::On,
        }
    }
}

#[derive(Debug)]
struct PowerBoard {
    states: Vec<Power>,
    /// Why everything stops, once somebody has said so.
    exit: Option<Exit>,
}

/// The power state of one vCPU as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum PowerWord {
    On,
    Off,
    /// CPU_ON has been accepted; the vCPU has not yet started.
    OnPending {
        #[serde(with = "hex")]
        entry: u64,
        #[serde(with = "hex")]
        context: u64,
    },
}

/// Those of all vCPUs, by number.
pub(crate) type PowerStates = BTreeMap<String, PowerWord>;

/// Shared by all vCPUs.
pub struct Cluster {
    signals: VcpuSignals,
    mailboxes: Box<[Mailbox]>,
    power: Mutex<PowerBoard>,
    pub(crate) features: Features,
    pub(crate) tier: Tier,
    pub(crate) observation: Observation,
    /// Why there are no translations, if the host has refused the memory for them.
    refused: OnceLock<std::io::Error>,
    pub(crate) host: HostRam,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) gic: Arc<dyn SysRegDevice>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(crate) scheduler: Arc<dyn Scheduler>,
    pub(crate) virtual_timers: Vec<Arc<Timer>>,
    pub(crate) physical_timers: Vec<Arc<Timer>>,
    pub(crate) event_streams: Vec<EventStream>,
    pub(crate) writers: Writers,
    /// Which pages hold decoded code.
    pub code_pages: crate::code::CodePages,
    /// Held while a vCPU runs a block in lockstep. A leaf.
    #[cfg(target_arch = "x86_64")]
    pub(crate) turn: Mutex<()>,
    /// Kept for the hook that RAM holds.
    itself: OnceLock<Weak<Self>>,
}

/// What RAM calls when a device has written to code.
struct DeviceWrites(Weak<Cluster>);

impl CodeWriteHook for DeviceWrites {
    fn code_written(&self, pa: Pa, len: u64) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.code_written(pa, len);
        }
    }
}

impl Cluster {
    /// The shared part of a machine. vCPU 0 is on, the others are off.
    ///
    /// # Panics
    /// If there is no vCPU, or not one line of each timer for each.
    #[must_use]
    pub fn new(config: ClusterConfig) -> Arc<Self> {
        let ClusterConfig {
            signals,
            features,
            tier,
            observation,
            ram,
            bus,
            gic,
            clock,
            entropy,
            alarms,
            scheduler,
            virtual_timer,
            physical_timer,
        } = config;
        let cpus = signals.len();
        assert!(cpus > 0, "a machine has at least one vCPU");
        assert!(virtual_timer.len() == cpus && physical_timer.len() == cpus, "one timer line per vCPU");
        let timers = |lines: Vec<Arc<dyn IrqLine>>| {
            lines
                .into_iter()
                .map(|line| Timer::new(Arc::clone(&clock), Arc::clone(&alarms), line))
                .collect::<Vec<_>>()
        };
        let cluster = Arc::new(Self {
            mailboxes: (0..cpus)
                .map(|cpu| {
                    let is_off = Power::at_power_on(cpu) == Power::Off;
                    Mailbox { is_off: AtomicBool::new(is_off), ..Mailbox::default() }
                })
                .collect(),
            power: Mutex::new(PowerBoard { states: (0..cpus).map(Power::at_power_on).collect(), exit: None }),
            features,
            tier,
            observation,
            refused: OnceLock::new(),
            code_pages: crate::code::CodePages::new(&ram),
            writers: Writers::new(&ram, cpus),
            host: HostRam::new(Arc::clone(&ram)),
            bus,
            gic,
            virtual_timers: timers(virtual_timer),
            physical_timers: timers(physical_timer),
            event_streams: signals.iter().map(|signal| EventStream::new(&alarms, signal)).collect(),
            clock,
            entropy,
            scheduler,
            signals,
            #[cfg(target_arch = "x86_64")]
            turn: Mutex::new(()),
            itself: OnceLock::new(),
        });
        // The first value: nobody else has the cluster yet.
        let _ = cluster.itself.set(Arc::downgrade(&cluster));
        let hook: Arc<dyn CodeWriteHook> = Arc::new(DeviceWrites(Arc::downgrade(&cluster)));
        ram.set_code_write_hook(&hook);
        cluster
    }

    /// How many vCPUs there are.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.signals.len()
    }

    /// vCPU `index`, in its reset state. To be made once for each.
    ///
    /// # Panics
    /// If there is no such vCPU.
    #[must_use]
    pub fn vcpu(&self, index: usize) -> Cpu {
        let itself = self.itself.get().and_then(Weak::upgrade);
        Cpu::new(itself.unwrap_or_else(|| unreachable!("a borrowed cluster is alive")), index)
    }

    /// Why there are no translations although the tier asks for them: the host has refused executable memory to a
    /// vCPU that has been made.
    #[must_use]
    pub fn translation_refused(&self) -> Option<&std::io::Error> {
        self.refused.get()
    }

    /// The first reason stays.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn no_translation(&self, why: std::io::Error) {
        let _ = self.refused.set(why);
    }

    /// Makes every vCPU return [`Exit::Stopped`] from [`Cpu::run`] soon, unless the guest has asked for an end or asks for
    /// one meanwhile. From any thread.
    pub fn stop_all(&self) {
        self.stop_for(Exit::Stopped);
    }

    /// Lets vCPUs run again after [`Self::stop_all`]: the next [`Cpu::run`] goes on where the last one stopped.
    pub fn resume(&self) {
        self.power().exit = None;
        for signal in self.signals.iter() {
            signal.clear(pending::STOP);
        }
    }

    /// Brings back what the vCPUs share at power-on: vCPU 0 is on, the others are off, nobody has asked anything of
    /// another. To be called while every vCPU is outside [`Cpu::run`], stopped; each is then to call
    /// [`Cpu::power_on`] before its next. The vCPUs' interrupt inputs are the interrupt controller's to reset. Guest time
    /// goes on.
    pub fn reset(&self) {
        let mut power = self.power();
        for (cpu, (state, mailbox)) in power.states.iter_mut().zip(&self.mailboxes).enumerate() {
            *state = Power::at_power_on(cpu);
            mailbox.is_off.store(*state == Power::Off, Ordering::SeqCst);
        }
        drop(power);
        for (cpu, signal) in self.signals.iter().enumerate() {
            self.event_streams[cpu].cancel();
            signal.take_event();
            signal.raise(pending::RECHECK);
        }
    }

    pub(crate) fn save_power(&self) -> PowerStates {
        let power = self.power();
        let states = power.states.iter().map(|state| match *state {
            Power::On => PowerWord::On,
            Power::Off => PowerWord::Off,
            Power::OnPending { entry, context } => PowerWord::OnPending { entry, context },
        });
        states.enumerate().map(|(cpu, state)| (cpu.to_string(), state)).collect()
    }

    pub(crate) fn restore_power(&self, mut states: PowerStates) -> Result<(), RestoreError> {
        let mut power = self.power();
        for (cpu, (state, mailbox)) in power.states.iter_mut().zip(&self.mailboxes).enumerate() {
            let name = cpu.to_string();
            let word = states.remove(&name).ok_or_else(|| RestoreError::value(&name, "is missing"))?;
            *state = match word {
                PowerWord::On => Power::On,
                PowerWord::Off => Power::Off,
                PowerWord::OnPending { entry, context } if self.can_start_at(entry) => {
                    Power::OnPending { entry, context }
                }
                PowerWord::OnPending { .. } => {
                    return Err(RestoreError::value(name, "CPU_ON refuses this entry point"));
                }
            };
            mailbox.is_off.store(*state == Power::Off, Ordering::SeqCst);
        }
        if let Some(cpu) = states.into_keys().next() {
            return Err(RestoreError::value(cpu, "there is no such vCPU"));
        }
        drop(power);
        for signal in self.signals.iter() {
            signal.raise(pending::RECHECK);
        }
        Ok(())
    }

    /// Whether CPU_ON takes an entry point.
    pub(super) fn can_start_at(&self, entry: u64) -> bool {
        entry & 3 == 0 && self.host.ram().contains(Pa(entry), 4)
    }

    /// Stops all vCPUs. The guest's first wish stays, and goes before a stop from outside: its vCPU is past the call, and
    /// will not make it again after a resume.
    pub(crate) fn stop_for(&self, exit: Exit) {
        let mut power = self.power();
        if matches!(power.exit, None | Some(Exit::Stopped)) {
            power.exit = Some(exit);
        }
        drop(power);
        for signal in self.signals.iter() {
            signal.raise(pending::STOP);
        }
    }

    /// Why everything stops, if it does.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.power().exit
    }

    pub(crate) fn signal(&self, cpu: usize) -> &Arc<Signal> {
        self.signals.get(cpu).unwrap_or_else(|| panic!("no vCPU {cpu}: `Cpu`s have numbers of this cluster"))
    }

    /// The signals, by vCPU.
    pub(crate) fn signals(&self) -> &VcpuSignals {
        &self.signals
    }

    fn power(&self) -> MutexGuard<'_, PowerBoard> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn power_state(&self, cpu: usize) -> Option<PowerState> {
        self.power().states.get(cpu).map(|state| state.seen())
    }

    /// Turns a vCPU on, to start at `entry` with `context` in x0. Gives the state that it was in: only one that was
    /// off starts.
    pub(crate) fn turn_on(&self, cpu: usize, entry: u64, context: u64) -> Option<PowerState> {
        let mut power = self.power();
        let state = power.states.get_mut(cpu)?;
        let before = state.seen();
        if before == PowerState::Off {
            *state = Power::OnPending { entry, context };
            self.mailboxes[cpu].is_off.store(false, Ordering::SeqCst);
            drop(power);
            // Any change of the word makes a sleeper look at its power state.
            self.signal(cpu).raise(pending::RECHECK);
        }
        Some(before)
    }

    /// Turns a vCPU off. Called by itself: it executes nothing until [`Self::take_start`] answers.
    pub(crate) fn turn_off(&self, cpu: usize) {
        if let Some(state) = self.power().states.get_mut(cpu) {
            *state = Power::Off;
            self.mailboxes[cpu].is_off.store(true, Ordering::SeqCst);
        }
    }

    /// Where a vCPU that CPU_ON has woken starts: entry and context, once. It must forget all translations and all
    /// code before it goes there: while it was off it got no requests.
    pub(crate) fn take_start(&self, cpu: usize) -> Option<(u64, u64)> {
        let mut power = self.power();
        let state = power.states.get_mut(cpu)?;
        if let Power::OnPending { entry, context } = *state {
            *state = Power::On;
            drop(power);
            // Whoever still saw the vCPU off has done what it would have asked for: from here on that is seen.
            fence(Ordering::SeqCst);
            return Some((entry, context));
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn mailbox(&self, cpu: usize) -> &Mailbox {
        &self.mailboxes[cpu]
    }

    /// Vcpu `cpu` is on, as if CPU_ON had started it, unless CPU_ON has been called and it is yet to start.
    #[cfg(test)]
    pub(crate) fn assume_on(&self, cpu: usize) {
        let mut power = self.power();
        if power.states[cpu] == Power::Off {
            power.states[cpu] = Power::On;
            self.mailboxes[cpu].is_off.store(false, Ordering::SeqCst);
        }
    }

    /// `len` bytes at `pa` have been written past the vCPUs' fast paths: all vCPUs drop code decoded from them.
    pub(crate) fn code_written(&self, pa: Pa, len: u64) {
        self.code_pages.written(pa, len, &mut |page, granules| {
            for (cpu, mailbox) in self.mailboxes.iter().enumerate().filter(|(_, mailbox)| !mailbox.is_off()) {
                mailbox.post_stale(page, granules);
                self.signal(cpu).note(pending::REQUESTS);
            }
        });
    }
}

/// Tickets of broadcasts whose end this vCPU has yet to wait for, by target; zero for none.
#[derive(Debug)]
pub(crate) struct Outstanding {
    tickets: Box<[u64]>,
    any: bool,
}

impl Outstanding {
    pub(crate) fn new(cpus: usize) -> Self {
        Self { tickets: vec![0; cpus].into(), any: false }
    }
}

impl Cpu {
    /// Where translated code finds whether [`Self::complete_requests`] has anything to do: a byte.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const OUTSTANDING: usize = std::mem::offset_of!(Self, local.outstanding.any);

    /// Posts a broadcast TLBI to all other vCPUs.
    pub(crate) fn broadcast(&mut self, what: Invalidation) {
        let cluster = &self.cluster;
        for (cpu, mailbox) in cluster.mailboxes.iter().enumerate() {
            if cpu == self.index || mailbox.is_off() {
                continue;
            }
            self.local.outstanding.tickets[cpu] = mailbox.post_invalidation(what);
            self.local.outstanding.any = true;
            cluster.signal(cpu).note(pending::REQUESTS);
        }
    }

    /// DSB beyond its host fence: waits until the requests that this vCPU has sent have been acknowledged.
    pub(crate) fn complete_requests(&mut self) {
        if !std::mem::take(&mut self.local.outstanding.any) {
            return;
        }
        let cluster = Arc::clone(&self.cluster);
        for cpu in 0..cluster.cpus() {
            let ticket = std::mem::take(&mut self.local.outstanding.tickets[cpu]);
            let (tickets, signal) = (&cluster.mailboxes[cpu].invalidations, cluster.signal(cpu));
            self.wait_serving(
                || tickets.are_served(ticket) || signal.is_asleep(),
                |cpu| {
                    cpu.serve_protections();
                    cpu.serve_invalidations();
                },
            );
        }
    }

    /// Makes those of `writers` that are other vCPUs give up their fast write path to a page, and waits until they
    /// have.
    pub(crate) fn protect_elsewhere(&mut self, page: Pa, writers: &[usize]) {
        let cluster = Arc::clone(&self.cluster);
        let others: Vec<(usize, u64)> = writers
            .iter()
            .filter(|&&cpu| cpu != self.index && !cluster.mailboxes[cpu].is_off())
            .map(|&cpu| {
                let ticket = cluster.mailboxes[cpu].post_protection(page);
                cluster.signal(cpu).note(pending::REQUESTS);
                (cpu, ticket)
            })
            .collect();
        for (cpu, ticket) in others {
            let (tickets, signal) = (&cluster.mailboxes[cpu].protections, cluster.signal(cpu));
            self.wait_serving(|| tickets.are_served(ticket) || signal.is_asleep(), Self::serve_protections);
        }
    }

    /// Waits for another vCPU's next block border, serving this one's mailbox so that the other may wait as well. A
    /// stop does not end the wait, for the instruction that waits must not look complete after a resume: the
    /// other leaves `run` as well, by the stop or by a panic, and then counts as asleep.
    fn wait_serving(&mut self, acknowledged: impl Fn() -> bool, serve: fn(&mut Self)) {
        let cluster = Arc::clone(&self.cluster);
        // The other thread may be waiting for this core.
        let mut backoff = Backoff::new(&*cluster.scheduler, 63);
        while !acknowledged() {
            serve(self);
            backoff.snooze();
        }
    }

    fn serve_protections(&mut self) {
        let cluster = Arc::clone(&self.cluster);
        let mailbox = &cluster.mailboxes[self.index];
        let (pages, given) = {
            let mut letters = mailbox.letters();
            (std::mem::take(&mut letters.protect), mailbox.protections.given())
        };
        match pages {
            Parts::Some(pages) => pages.into_keys().for_each(|page| self.protect(page)),
            Parts::All => self.protect_all(),
        }
        mailbox.protections.serve(given);
    }

    fn serve_invalidations(&mut self) {
        let cluster = Arc::clone(&self.cluster);
        let mailbox = &cluster.mailboxes[self.index];
        let (invalidations, given) = {
            let mut letters = mailbox.letters();
            (std::mem::take(&mut letters.invalidations), mailbox.invalidations.given())
        };
        for what in invalidations {
            self.invalidate(what);
        }
        mailbox.invalidations.serve(given);
    }

    /// Serves all of the mailbox. Between blocks: code may be dropped.
    pub(crate) fn serve_requests(&mut self) {
        let cluster = Arc::clone(&self.cluster);
        // Cleared first: what is posted from here on sets it again.
        cluster.signal(self.index).clear(pending::REQUESTS);
        self.serve_protections();
        self.serve_invalidations();
        let stale = std::mem::take(&mut cluster.mailboxes[self.index].letters().stale);
        match stale {
            Parts::Some(pages) => {
                pages.into_iter().for_each(|(page, granules)| self.drop_code(page, granules));
            }
            Parts::All => self.drop_all_code(),
        }
    }
}
