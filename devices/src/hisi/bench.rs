//! What tests drive an accelerator of any kind with: RAM, address spaces whose pages can be missing, alarms moved by hand, and the
//! accesses that the Linux driver makes.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use hw::fault::FaultPlan;
use hw::schedule::{Stepped, Work};
use hw::{
    AlarmTarget, Alarms, Dir, DmaFault, DmaPort, Faults, Iova, ManualClock, Pa, Pasid, Pinned, Ram,
    RecordingMsiSink, Requester, Scheduler, StreamId, Waiter,
};

use super::qm::regs::QmReg;
use super::qm::{Engine, Limits, WorkerMemory};
use super::zip::ZipEngine;
use super::{Accelerator, Function, FunctionWiring, Translation};
use crate::pci::PciFunction;

pub(super) const RAM_BASE: u64 = 0x4000_0000;
pub(super) const RAM_BYTES: u64 = 64 << 20;
pub(super) const DOORBELL: u64 = 0x809_0040;
pub(super) const STREAM: StreamId = StreamId(8);
const PAGE: u64 = 4096;

/// A page of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    At(u64),
    /// An access stalls until the page is something else.
    Absent,
    /// An access is aborted.
    Refused,
}

/// What software does once it sees something in memory.
type Reaction = Box<dyn FnOnce() + Send>;

/// A port with an address space for each PASID; without one, addresses are physical unless a page says otherwise.
pub(super) struct Spaces {
    ram: Arc<Ram>,
    msi: Arc<RecordingMsiSink>,
    pages: Mutex<HashMap<(Option<u32>, u64), Page>>,
    stalled: Mutex<Vec<Weak<Waiter>>>,
    stalls: AtomicU64,
    reaction: Mutex<Option<(Iova, Reaction)>>,
}

impl Spaces {
    /// Once something has been written to `at`, and before the device goes on, software does this.
    pub(super) fn react(&self, at: u64, reaction: impl FnOnce() + Send + 'static) {
        *self.reaction.lock().unwrap() = Some((Iova(at), Box::new(reaction)));
    }

    pub(super) fn map(&self, pasid: Option<u32>, va: u64, page: Page) {
        self.pages.lock().unwrap().insert((pasid, va / PAGE), page);
        // Who finds another page missing waits on.
        self.stalled.lock().unwrap().retain(|waiter| match waiter.upgrade() {
            Some(waiter) => {
                waiter.notify();
                true
            }
            None => false,
        });
    }

    pub(super) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::SeqCst)
    }

    fn translate(&self, who: &Requester, at: Iova) -> Result<u64, DmaFault> {
        let pasid = who.tag.pasid.map(Pasid::get);
        let lookup = || match self.pages.lock().unwrap().get(&(pasid, at.0 / PAGE)).copied() {
            Some(Page::At(pa)) => Some(Ok(pa + at.0 % PAGE)),
            Some(Page::Absent) => None,
            Some(Page::Refused) => Some(Err(DmaFault::Aborted(at))),
            None if pasid.is_none() => Some(Ok(at.0)),
            None => Some(Err(DmaFault::Aborted(at))),
        };
        if who.waiter.is_cancelled() {
            return Err(DmaFault::Cancelled);
        }
        if let Some(found) = lookup() {
            return found;
        }
        self.stalled.lock().unwrap().push(Arc::downgrade(&who.waiter));
        let mut is_counted = false;
        // In here, so that who has seen the count finds the waiter waiting.
        who.waiter.wait(|| {
            let found = lookup();
            if found.is_none() && !std::mem::replace(&mut is_counted, true) {
                self.stalls.fetch_add(1, Ordering::SeqCst);
            }
            found
        })?
    }

    fn pieces(at: Iova, len: usize) -> impl Iterator<Item = (Iova, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let here = Iova(at.0.wrapping_add(done as u64));
            let take = (len - done).min((PAGE - here.0 % PAGE) as usize);
            let range = done..done + take;
            done += take;
            (take != 0).then_some((here, range))
        })
    }
}

impl DmaPort for Spaces {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        assert!(!(who.tag.privileged || who.tag.execute), "data accesses are unprivileged");
        for (here, range) in Self::pieces(at, out.len()) {
            let pa = self.translate(who, here)?;
            self.ram.read(Pa(pa), &mut out[range]).map_err(|_| DmaFault::Aborted(here))?;
        }
        Ok(())
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        for (here, range) in Self::pieces(at, data.len()) {
            let pa = self.translate(who, here)?;
            hw::dma::write_physical(&self.ram, &*self.msi, who.tag.stream, Pa(pa), &data[range])
                .map_err(|_| DmaFault::Aborted(here))?;
        }
        let reaction = self.reaction.lock().unwrap().take_if(|(awaited, _)| *awaited == at);
        if let Some((_, react)) = reaction {
            react();
        }
        Ok(())
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, _dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        let pieces = Self::pieces(at, len)
            .map(|(here, range)| Ok((Pa(self.translate(who, here)?), range.len())))
            .collect::<Result<_, _>>()?;
        Ok(Pinned::new(pieces, ()))
    }
}

/// Alarms that fire when the test says so.
#[derive(Default)]
pub(super) struct ManualAlarms {
    targets: Mutex<Vec<Arc<dyn AlarmTarget>>>,
    deadlines: Mutex<HashMap<usize, u64>>,
    /// Asked whenever an alarm is set.
    pub(super) when_set: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

impl Alarms for ManualAlarms {
    fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
        let mut targets = self.targets.lock().unwrap();
        targets.push(target);
        targets.len() - 1
    }

    fn set(&self, slot: usize, deadline_ns: Option<u64>) {
        if let Some(when_set) = &mut *self.when_set.lock().unwrap() {
            when_set();
        }
        let mut deadlines = self.deadlines.lock().unwrap();
        match deadline_ns {
            Some(at) => drop(deadlines.insert(slot, at)),
            None => drop(deadlines.remove(&slot)),
        }
    }
}

impl ManualAlarms {
    /// Fires what is due at `now_ns`.
    pub(super) fn fire(&self, now_ns: u64) {
        let due: Vec<usize> = {
            let mut deadlines = self.deadlines.lock().unwrap();
            let due = deadlines.iter().filter(|(_, at)| **at <= now_ns).map(|(slot, _)| *slot).collect();
            deadlines.retain(|_, at| *at > now_ns);
            due
        };
        for slot in due {
            let target = Arc::clone(&self.targets.lock().unwrap()[slot]);
            target.alarm();
        }
    }
}

/// Real threads, and a host that gives only so many.
pub(super) struct Threads {
    threads: Mutex<Vec<JoinHandle<()>>>,
    most: usize,
}

impl Scheduler for Threads {
    fn spawn(&self, _name: &'static str, worker: Work) -> io::Result<()> {
        let mut threads = self.threads.lock().unwrap();
        if threads.len() == self.most {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        threads.push(std::thread::spawn(worker));
        Ok(())
    }
}

impl Threads {
    fn at_most(most: usize) -> Arc<Self> {
        Arc::new(Self { threads: Mutex::default(), most })
    }

    pub(super) fn count(&self) -> usize {
        self.threads.lock().unwrap().len()
    }

    fn join(&self) {
        for thread in self.threads.lock().unwrap().drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking(), "a worker panicked");
        }
    }
}

/// An accelerator in a machine of RAM. That of most tests has the ZIP engine.
pub(super) type Machine = MachineWith<ZipEngine>;

/// An accelerator with this engine in a machine of RAM.
pub(super) struct MachineWith<E: Engine> {
    pub(super) errors: hw::GuestErrors,
    pub(super) ram: Arc<Ram>,
    pub(super) msi: Arc<RecordingMsiSink>,
    pub(super) spaces: Arc<Spaces>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) alarms: Arc<ManualAlarms>,
    pub(super) threads: Option<Arc<Threads>>,
    pub(super) zip: Arc<Function<E>>,
    next: AtomicU64,
    bench: Mutex<WorkerMemory<E>>,
}

impl<E: Engine> Drop for MachineWith<E> {
    fn drop(&mut self) {
        self.zip.shut_down();
        if let Some(threads) = &self.threads {
            threads.join();
        }
    }
}

/// A kernel's or process's view of a queue.
pub(super) struct Ring {
    pub(super) qn: u16,
    pub(super) sq: u64,
    pub(super) cq: u64,
    depth: u16,
    tail: u16,
    pub(super) cq_head: u16,
    phase: bool,
}

/// The CQ doorbell's value.
pub(super) fn cq_bell(qn: u16, head: u16, arm: bool) -> u64 {
    u64::from(arm) << 48 | u64::from(head) << 32 | 1 << 12 | u64::from(qn)
}

/// Writes to a queue's own doorbell page.
pub(super) fn ring_page<E: Engine>(zip: &Function<E>, qn: u16, bell: u64) {
    zip.bar_write(4, (u64::from(qn) << 16) + 0x1000, &bell.to_le_bytes()).unwrap();
}

impl<E: Engine> MachineWith<E> {
    const SQE_BYTES: u64 = 1 << E::LOG2_SQE;
    /// Of a submission queue, which its completion queue follows.
    const SQ_BYTES: u64 = 1024 * Self::SQE_BYTES;

    /// Without threads: the test steps it.
    pub(super) fn new() -> Self {
        Self::with(None, Limits { workers: 0, mailbox_patience_ns: 0 }, None)
    }

    /// Without threads, and with readers of a busy mailbox held: nobody reads it before [`Self::run`].
    pub(super) fn patient() -> Self {
        Self::with(None, Limits { workers: 0, mailbox_patience_ns: 1_000_000_000 }, None)
    }

    /// With threads, `workers` at most for tasks.
    pub(super) fn threaded(workers: usize) -> Self {
        // A second of manual time never passes by itself: a busy mailbox holds its reader until it is done.
        Self::hiring(usize::MAX, workers).unwrap()
    }

    /// With threads, on a host that gives `most` of them.
    pub(super) fn hiring(most: usize, workers: usize) -> io::Result<Self> {
        let limits = Limits { workers, mailbox_patience_ns: 1_000_000_000 };
        let threads = Threads::at_most(most);
        Self::try_with(Some(threads.clone()), limits, None).inspect_err(|_| threads.join())
    }

    /// A machine without threads in which this goes wrong.
    pub(super) fn with_faults(plan: Arc<dyn FaultPlan>) -> Self {
        Self::with(None, Limits { workers: 0, mailbox_patience_ns: 0 }, Some(plan))
    }

    /// The same with threads, for what waits.
    pub(super) fn threaded_with_faults(plan: Arc<dyn FaultPlan>) -> Self {
        let limits = Limits { workers: 4, mailbox_patience_ns: 1_000_000_000 };
        Self::with(Some(Threads::at_most(usize::MAX)), limits, Some(plan))
    }

    /// A machine without threads whose work is recorded.
    pub(super) fn traced(trace: hw::Trace) -> Self {
        let limits = Limits { workers: 0, mailbox_patience_ns: 0 };
        let machine = Self::powered_on(None, limits, None, trace).unwrap();
        machine.enable_function();
        machine
    }

    fn with(threads: Option<Arc<Threads>>, limits: Limits, plan: Option<Arc<dyn FaultPlan>>) -> Self {
        Self::try_with(threads, limits, plan).unwrap()
    }

    /// Without threads, and nothing has been enabled.
    pub(super) fn at_power_on() -> Self {
        let limits = Limits { workers: 0, mailbox_patience_ns: 0 };
        Self::powered_on(None, limits, None, hw::Trace::default()).unwrap()
    }

    fn try_with(
        threads: Option<Arc<Threads>>,
        limits: Limits,
        plan: Option<Arc<dyn FaultPlan>>,
    ) -> io::Result<Self> {
        let machine = Self::powered_on(threads, limits, plan, hw::Trace::default())?;
        machine.enable_function();
        Ok(machine)
    }

    fn powered_on(
        threads: Option<Arc<Threads>>,
        limits: Limits,
        plan: Option<Arc<dyn FaultPlan>>,
        trace: hw::Trace,
    ) -> io::Result<Self> {
        let ram = Arc::new(Ram::new(&[(Pa(RAM_BASE), RAM_BYTES)]).unwrap());
        let msi = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
        let spaces = Arc::new(Spaces {
            ram,
            msi,
            pages: Mutex::default(),
            stalled: Mutex::default(),
            stalls: AtomicU64::new(0),
            reaction: Mutex::default(),
        });
        Self::on(spaces, threads, limits, plan, trace)
    }

    /// An accelerator that has just been made, with the same memory.
    pub(super) fn successor(&self, plan: Option<Arc<dyn FaultPlan>>) -> Self {
        let threads = self.threads.as_ref().map(|_| Threads::at_most(usize::MAX));
        let (workers, mailbox_patience_ns) = if threads.is_some() { (4, 1_000_000_000) } else { (0, 0) };
        let limits = Limits { workers, mailbox_patience_ns };
        let after = Self::on(Arc::clone(&self.spaces), threads, limits, plan, hw::Trace::default()).unwrap();
        after.next.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
        after
    }

    fn on(
        spaces: Arc<Spaces>,
        threads: Option<Arc<Threads>>,
        limits: Limits,
        plan: Option<Arc<dyn FaultPlan>>,
        trace: hw::Trace,
    ) -> io::Result<Self> {
        let (ram, msi) = (Arc::clone(&spaces.ram), Arc::clone(&spaces.msi));
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let scheduler: Arc<dyn Scheduler> = match &threads {
            Some(threads) => threads.clone(),
            None => Arc::new(Stepped),
        };
        let errors = hw::GuestErrors::default();
        let faults = plan.map_or_else(Faults::default, |plan| {
            Faults::new(plan, clock.clone(), alarms.clone(), scheduler.clone())
        });
        let zip = Function::new(FunctionWiring {
            stream: STREAM,
            dma: spaces.clone(),
            translation: Translation::Untranslated,
            clock: clock.clone(),
            alarms: alarms.clone(),
            scheduler,
            limits,
            faults,
            trace,
            errors: errors.clone(),
        })?;
        let bench = Mutex::new(zip.qm().worker_memory());
        let next = AtomicU64::new(RAM_BASE + PAGE);
        Ok(Self { errors, ram, msi, spaces, clock, alarms, threads, zip, next, bench })
    }

    /// What the PCI core and the driver's probe set: memory, bus master, four MSI vectors, PASID.
    pub(super) fn enable_function(&self) {
        let config = self.zip.config();
        let write = |offset: u64, value: u32, len: usize| {
            let _ = config.write(offset, &value.to_le_bytes()[..len]);
        };
        write(0x04, 0x6, 2);
        let mut at = self.config8(0x34);
        while at != 0 {
            if self.config8(at) == 0x05 {
                write(at + 0x4, DOORBELL as u32, 4);
                write(at + 0x8, 0, 4);
                write(at + 0xc, 0x40, 2);
                write(at + 0x2, 0x21, 2);
            }
            at = self.config8(at + 1);
        }
        write(0x100 + 0x6, 1, 2);
    }

    fn config8(&self, offset: u64) -> u64 {
        let mut byte = [0];
        self.zip.config().read(offset, &mut byte);
        byte[0].into()
    }

    /// A register, or an offset in BAR2.
    pub(super) fn read(&self, at: impl Into<u64>) -> u32 {
        let mut data = [0; 4];
        self.zip.bar_read(2, at.into(), &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&self, at: impl Into<u64>, value: u32) {
        self.zip.bar_write(2, at.into(), &value.to_le_bytes()).unwrap();
    }

    /// Clears and sets bits, as a driver does.
    pub(super) fn modify(&self, at: impl Into<u64>, clear: u32, set: u32) {
        let at = at.into();
        self.write(at, self.read(at) & !clear | set);
    }

    pub(super) fn write64(&self, at: impl Into<u64>, value: u64) {
        self.zip.bar_write(2, at.into(), &value.to_le_bytes()).unwrap();
    }

    /// Does all that is due, without threads.
    pub(super) fn run(&self) {
        if self.threads.is_none() {
            let mut bench = self.bench.lock().unwrap();
            while self.zip.qm().step(&mut bench) {}
        }
    }

    /// Lets guest time pass.
    pub(super) fn pass_ns(&self, ns: u64) {
        use hw::Clock;
        self.clock.advance_ns(ns);
        self.alarms.fire(self.clock.now_ns());
    }

    /// The vectors of the messages since the last call.
    pub(super) fn vectors(&self) -> Vec<u32> {
        self.msi.take().into_iter().map(|(_, data)| data - 0x40).collect()
    }

    /// Zeroed memory, page-aligned.
    pub(super) fn alloc(&self, bytes: u64) -> u64 {
        let at = self.next.fetch_add(bytes.next_multiple_of(PAGE), Ordering::SeqCst);
        assert!(at + bytes <= RAM_BASE + RAM_BYTES, "the test needs more RAM");
        at
    }

    /// Memory with these bytes.
    pub(super) fn place(&self, data: &[u8]) -> u64 {
        let at = self.alloc(data.len() as u64);
        self.ram.write(Pa(at), data).unwrap();
        at
    }

    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.ram.read(Pa(at), &mut data).unwrap();
        data
    }

    pub(super) fn word(&self, at: u64) -> u32 {
        self.ram.load_u32(Pa(at)).unwrap()
    }

    // ---- the driver

    /// Writes the mailbox without looking at the outcome.
    pub(super) fn post_mailbox(&self, w0: u16, qn: u16, base: u64) {
        let mut message = [0; 16];
        message[..2].copy_from_slice(&(w0 | 0x2000).to_le_bytes());
        message[2..4].copy_from_slice(&qn.to_le_bytes());
        message[4..12].copy_from_slice(&base.to_le_bytes());
        self.zip.bar_write(2, QmReg::MAILBOX.at(0), &message).unwrap();
    }

    pub(super) fn mailbox_is_busy(&self) -> bool {
        self.read(QmReg::MAILBOX) & 0x2000 != 0
    }

    /// A mailbox command: its status.
    pub(super) fn mailbox(&self, w0: u16, qn: u16, base: u64) -> u32 {
        assert!(!self.mailbox_is_busy(), "mailbox busy before command {w0:#x}");
        self.post_mailbox(w0, qn, base);
        self.run();
        let start = std::time::Instant::now();
        while self.mailbox_is_busy() {
            let is_late = self.threads.is_none() || start.elapsed().as_secs() >= 60;
            assert!(!is_late, "command {w0:#x} is still busy");
            std::thread::yield_now();
        }
        self.read(QmReg::MAILBOX) >> 9 & 0xf
    }

    /// One entry of the function table.
    pub(super) fn set_vft(&self, kind: u32, value: u64) {
        assert_eq!(self.read(QmReg::VFT_CFG_RDY) & 1, 1);
        self.write(QmReg::VFT_CFG_OP_WR, 0);
        self.write(QmReg::VFT_CFG_TYPE, kind);
        self.write(QmReg::VFT_CFG, 0);
        self.write(QmReg::VFT_CFG_DATA_L, value as u32);
        self.write(QmReg::VFT_CFG_DATA_H, (value >> 32) as u32);
        self.write(QmReg::VFT_CFG_RDY, 0);
        self.write(QmReg::VFT_CFG_OP_ENABLE, 1);
        assert_eq!(self.read(QmReg::VFT_CFG_RDY) & 1, 1);
    }

    /// The context of an event ring: depth less one in bits 15:0 of `dw6`, the phase in 16.
    pub(super) fn event_context(&self, ring: u64, dw6: u32) -> u64 {
        let at = self.alloc(32);
        self.ram.store_u64(Pa(at), (ring & 0xffff_ffff) << 32).unwrap();
        self.ram.store_u32(Pa(at + 8), (ring >> 32) as u32).unwrap();
        self.ram.store_u32(Pa(at + 24), dw6).unwrap();
        at
    }

    /// What the driver does to start the function with `queues` queues. Returns the event rings.
    pub(super) fn start(&self, queues: u64) -> (u64, u64) {
        self.set_vft(0, (queues - 1) << 45 | 1 << 44);
        self.set_vft(1, 1 << 28);
        let (eq, aeq) = (self.alloc(2048 * 4), self.alloc(1024 * 4));
        let tables = self.alloc(queues * 64);
        assert_eq!(self.mailbox(0x2, 0, self.event_context(eq, 0x1_07ff)), 0);
        assert_eq!(self.mailbox(0x3, 0, self.event_context(aeq, 0x1_03ff)), 0);
        assert_eq!(self.mailbox(0x4, 0, tables), 0);
        assert_eq!(self.mailbox(0x5, 0, tables + queues * 32), 0);
        self.write64(QmReg::DOORBELL_EQ_AEQ, 3 << 12);
        self.write64(QmReg::DOORBELL_EQ_AEQ, 2 << 12);
        self.write(QmReg::EQ_INT_MASK, 0);
        self.write(QmReg::AEQ_INT_MASK, 0);
        (eq, aeq)
    }

    /// Starts queue `qn` of a type, for a process if there is a PASID.
    pub(super) fn start_queue(&self, qn: u16, queue_type: u16, pasid: Option<u16>) -> Ring {
        let memory = self.alloc(Self::SQ_BYTES + 5 * PAGE);
        self.start_queue_at(memory, qn, queue_type, pasid)
    }

    pub(super) fn start_queue_at(&self, sq: u64, qn: u16, queue_type: u16, pasid: Option<u16>) -> Ring {
        let cq = sq + Self::SQ_BYTES;
        self.ram.write(Pa(cq), &[0; 16384]).unwrap();
        assert_eq!(self.mailbox(0x0, qn, self.sqc(sq, qn, queue_type, pasid)), 0);
        assert_eq!(self.mailbox(0x1, qn, self.cqc(cq, pasid)), 0);
        Ring { qn, sq, cq, depth: 1024, tail: 0, cq_head: 0, phase: true }
    }

    pub(super) fn sqc(&self, sq: u64, qn: u16, queue_type: u16, pasid: Option<u16>) -> u64 {
        let mut sqc = [0; 32];
        sqc[4..12].copy_from_slice(&sq.to_le_bytes());
        sqc[12..16].copy_from_slice(&(u32::from(E::LOG2_SQE) << 12 | 0x3ff).to_le_bytes());
        sqc[20..22].copy_from_slice(&pasid.unwrap_or(0).to_le_bytes());
        sqc[22] = u8::from(pasid.is_some()) << 7;
        sqc[24..26].copy_from_slice(&qn.to_le_bytes());
        sqc[26..28].copy_from_slice(&(0x10 | queue_type << 8).to_le_bytes());
        self.place(&sqc)
    }

    pub(super) fn cqc(&self, cq: u64, pasid: Option<u16>) -> u64 {
        let mut cqc = [0; 32];
        cqc[4..12].copy_from_slice(&cq.to_le_bytes());
        cqc[12..16].copy_from_slice(&0x43ff_u32.to_le_bytes());
        cqc[20..22].copy_from_slice(&pasid.unwrap_or(0).to_le_bytes());
        cqc[22] = u8::from(pasid.is_some());
        cqc[24] = 3;
        self.place(&cqc)
    }

    /// Puts an SQE into the ring, without the doorbell.
    pub(super) fn put(&self, ring: &mut Ring, sqe: &[u32]) -> u16 {
        let bytes: Vec<u8> = sqe.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes.len() as u64, Self::SQE_BYTES);
        self.ram.write(Pa(ring.sq + Self::SQE_BYTES * u64::from(ring.tail)), &bytes).unwrap();
        let index = ring.tail;
        ring.tail = (ring.tail + 1) % ring.depth;
        index
    }

    pub(super) fn ring_sq(&self, ring: &Ring) {
        self.ring_page(ring.qn, u64::from(ring.tail) << 32 | u64::from(ring.qn));
    }

    /// Rings the CQ doorbell up to what has been read.
    pub(super) fn ring_cq(&self, ring: &Ring, arm: bool) {
        self.ring_page(ring.qn, cq_bell(ring.qn, ring.cq_head, arm));
    }

    /// Writes to a queue's own doorbell page.
    pub(super) fn ring_page(&self, qn: u16, bell: u64) {
        ring_page(&*self.zip, qn, bell);
    }

    /// All of RAM that the test has taken.
    pub(super) fn memory(&self) -> Vec<u8> {
        self.bytes(RAM_BASE, (self.next.load(Ordering::SeqCst) - RAM_BASE) as usize)
    }

    /// The next completion's SQE index, if there is one; the doorbell is the caller's.
    pub(super) fn poll(&self, ring: &mut Ring) -> Option<u16> {
        let tail = self.ram.load_u64(Pa(ring.cq + 16 * u64::from(ring.cq_head) + 8)).unwrap();
        if (tail >> 48 & 1 == 1) != ring.phase {
            return None;
        }
        ring.cq_head += 1;
        if ring.cq_head == ring.depth {
            (ring.cq_head, ring.phase) = (0, !ring.phase);
        }
        assert_eq!((tail >> 16) as u16, ring.qn);
        Some(tail as u16)
    }

    /// Waits for the next completion.
    pub(super) fn wait(&self, ring: &mut Ring) -> u16 {
        let start = std::time::Instant::now();
        loop {
            self.run();
            if let Some(index) = self.poll(ring) {
                return index;
            }
            assert!(start.elapsed().as_secs() < 60, "no completion");
            std::thread::yield_now();
        }
    }

    pub(super) fn sqe(&self, ring: &Ring, index: u16) -> Vec<u32> {
        let at = ring.sq + Self::SQE_BYTES * u64::from(index);
        (0..Self::SQE_BYTES).step_by(4).map(|byte| self.word(at + byte)).collect()
    }

    /// Submits and waits: the SQE as it came back.
    pub(super) fn submit(&self, ring: &mut Ring, sqe: &[u32]) -> Vec<u32> {
        let index = self.put(ring, sqe);
        self.ring_sq(ring);
        assert_eq!(self.wait(ring), index);
        self.ring_cq(ring, false);
        self.sqe(ring, index)
    }
}

/// A chain of lists over these runs, `per_list` entries in each; the count of the chain says nothing, as software's.
pub(super) fn chain<E: Engine>(machine: &MachineWith<E>, runs: &[(u64, usize)], per_list: usize) -> u64 {
    let lists: Vec<u64> = runs.chunks(per_list).map(|_| machine.alloc(64 + 255 * 32)).collect();
    for (index, chunk) in runs.chunks(per_list).enumerate() {
        let mut list = vec![0_u8; 64 + 32 * chunk.len()];
        list[..8].copy_from_slice(&lists.get(index + 1).copied().unwrap_or(0).to_le_bytes());
        list[8..10].copy_from_slice(&10_u16.to_le_bytes());
        list[10..12].copy_from_slice(&(chunk.len() as u16).to_le_bytes());
        for (entry, (at, len)) in chunk.iter().enumerate() {
            list[64 + 32 * entry..][..8].copy_from_slice(&at.to_le_bytes());
            list[64 + 32 * entry + 16..][..4].copy_from_slice(&(*len as u32).to_le_bytes());
        }
        machine.ram.write(Pa(lists[index]), &list).unwrap();
    }
    lists[0]
}

/// Waits for what other threads bring about.
pub(super) fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed().as_secs() < 60, "it does not happen");
        std::thread::yield_now();
    }
}
