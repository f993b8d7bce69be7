//! The PCI transport (4.1): capabilities, one BAR, MSI-X, and the worker's side of the queues.
//!
//! Two locks: the front, which vCPU threads take for register accesses, and the rings, which only the worker takes
//! and holds while it serves requests. The worker takes the front for short looks inside. A reset that finds the
//! worker busy cancels its DMA; the device status reads as zero once the worker has let go (4.1.4.3.1). Only the machine's
//! reset waits for that: the worker may be waiting for the host's disk, and a driver looks at the status.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::mmio::{put_value, value_of};
use hw::regmap::RegisterMap;
use hw::saved::{RestoreError, SavedState};
use hw::{
    Activity, BusError, DmaPort, DmaTag, GuestErrors, LifeCycle, Ram, Requester, Scheduler, StreamId, Waiter,
};
use serde_json::Value;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use self::cap::{CapReg, PciCfgReg};
use super::chain::Request;
use super::device::{Io, ServeError, VirtioDevice, feature};
use super::front::{Asked, COMMON_CFG_BYTES, Front, NO_VECTOR, QueueSetup, status};
use super::memory::DmaMemory;
use super::saved::VirtioState;
use super::work::{MESSAGES, Work};
use crate::gate::Gate;
use crate::pci::caps::PortType;
use crate::pci::{Bar, BusMasterPort, ConfigSpace, Effects, Identity, MsixLayout, PciFunction};

const BAR: u8 = 0;
const BAR_BYTES: u64 = 0x8000;
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const DEVICE_BYTES: u64 = 0x1000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_MULTIPLIER: u32 = 4;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PBA: u32 = 0x5000;
/// More queues than any device of ours has; the worker's bits and the notify window are made for this many.
const MAX_QUEUES: usize = 32;

/// Bits of the ISR status (4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;
/// Available ring flag: the driver wants no interrupts (2.7.6).
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// Registers of `struct virtio_pci_cap` (4.1.4).
pub mod cap {
    hw::register_map! {
        /// `struct virtio_pci_cap` (4.1.4): where a structure of the device lies.
        pub enum CapReg {
            /// Bytes of the capability.
            LEN "cap_len" @ 0x2: 1 Ro(0) = 16, "4.1.4";
            /// Which structure.
            CFG_TYPE "cfg_type" @ 0x3: 1 Ro(0) = 0, "4.1.4";
            /// In which BAR.
            BAR "bar" @ 0x4: 1 Ro(0) = 0, "4.1.4";
            /// Where in the BAR.
            OFFSET "offset" @ 0x8: 4 Ro(0) = 0, "4.1.4";
            /// Bytes of the structure.
            LENGTH "length" @ 0xc: 4 Ro(0) = 0, "4.1.4";
            /// Bytes from one queue's notification to the next; of notifications only.
            NOTIFY_OFF_MULTIPLIER "notify_off_multiplier" @ 0x10: 4 Ro(0) = 0, "4.1.4.4";
        }
    }

    hw::register_map! {
        /// `struct virtio_pci_cfg_cap` (4.1.4.9): an access to the BAR through configuration space.
        pub enum PciCfgReg {
            /// Bytes of the capability.
            LEN "cap_len" @ 0x2: 1 Ro(0) = 20, "4.1.4";
            /// Which structure: 5.
            CFG_TYPE "cfg_type" @ 0x3: 1 Ro(0) = 5, "4.1.4";
            /// The BAR of the access.
            BAR "bar" @ 0x4: 1 Rw(0xff) = 0, "4.1.4.9";
            /// Where in the BAR.
            OFFSET "offset" @ 0x8: 4 Rw(0xffff_ffff) = 0, "4.1.4.9";
            /// Bytes of the access: 1, 2 or 4.
            LENGTH "length" @ 0xc: 4 Rw(0xffff_ffff) = 0, "4.1.4.9";
            /// A read or write of it is the access.
            DATA "pci_cfg_data" @ 0x10: 4 Rw(0xffff_ffff) = 0, "4.1.4.9";
        }
    }

    pub(super) const ID: u8 = crate::pci::caps::vendor::ID;
    pub(super) const COMMON_CFG: u32 = 1;
    pub(super) const NOTIFY_CFG: u32 = 2;
    pub(super) const ISR_CFG: u32 = 3;
    pub(super) const DEVICE_CFG: u32 = 4;
}

/// A ring of one epoch.
pub(super) struct Ring {
    epoch: u64,
    queue: Queue,
}

/// Where serving a ring has come to.
enum Served {
    /// Its end.
    All,
    /// A pause: the rest is for later.
    Part,
}

/// A virtio device as a PCI function.
pub struct VirtioPci {
    config: ConfigSpace,
    /// Offset of the capability for accesses through configuration space.
    pci_cfg: u16,
    device: Box<dyn VirtioDevice>,
    front: Mutex<Front>,
    isr: AtomicU8,
    rings: Mutex<Vec<Option<Ring>>>,
    pub(super) work: Arc<Work>,
    /// Whoever waits for the end of work waits here.
    activity: Arc<Activity>,
    ram: Arc<Ram>,
    port: Arc<dyn DmaPort>,
    pub(super) who: Requester,
}

impl VirtioPci {
    /// `device` at the place on the bus that `stream` names, with its way to memory, and where mistakes of its driver are counted.
    /// Its worker is a task of `scheduler`.
    ///
    /// # Panics
    /// If the device has no queue, too many, or one whose size is no power of two.
    #[must_use]
    pub fn new(
        device: Box<dyn VirtioDevice>,
        ram: Arc<Ram>,
        port: Arc<dyn DmaPort>,
        scheduler: &dyn Scheduler,
        stream: StreamId,
        errors: GuestErrors,
    ) -> Arc<Self> {
        let sizes = device.queue_sizes();
        assert!(!sizes.is_empty() && sizes.len() <= MAX_QUEUES, "a device has 1 to {MAX_QUEUES} queues");
        assert!(sizes.iter().all(|size| size.is_power_of_two() && *size <= 32768), "no such queue size");
        let vectors = sizes.len() as u16 + 1;
        let (config, pci_cfg) = configuration(&*device, vectors, errors);
        let work = Arc::new(Work::new(scheduler));
        config.set_pending_waker(work.clone());
        let offered = device.features()
            | feature::VERSION_1
            | feature::ACCESS_PLATFORM
            | feature::INDIRECT_DESC
            | feature::EVENT_IDX;
        let front = Front::new(offered, vectors, sizes);
        let rings = sizes.iter().map(|_| None).collect();
        let activity = Arc::new(Activity::new(scheduler));
        let waiter = Waiter::watched(&activity);
        Arc::new(Self {
            port: Arc::new(BusMasterPort::new(&config, port)),
            config,
            pci_cfg,
            device,
            front: Mutex::new(front),
            isr: AtomicU8::new(0),
            rings: Mutex::new(rings),
            work,
            activity,
            ram,
            who: Requester { tag: DmaTag::untagged(stream), waiter, command: None },
        })
    }

    pub(super) fn front(&self) -> MutexGuard<'_, Front> {
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is work that may be begun; `false` once [`Self::stop`] has been called. For the worker's thread, which then
    /// calls [`Self::step`].
    #[must_use]
    pub fn wait_for_work(&self) -> bool {
        self.work.wait()
    }

    /// Ends the worker: [`Self::wait_for_work`] returns, and DMA that waits is given up.
    pub fn stop(&self) {
        self.work.set(Gate::shut_down);
        self.who.waiter.cancel();
    }

    /// Does the work that there is: serves notified queues until they are empty, and sends messages that were held
    /// back; nothing while the device is paused. On one thread at a time.
    pub fn step(&self) {
        let mut rings = self.rings();
        {
            // The front's lock makes this one with the question whether the worker is busy.
            let mut front = self.front();
            if !self.work.may_begin() {
                return;
            }
            front.is_busy = true;
        }
        let todo = self.work.take();
        if todo & MESSAGES != 0 {
            self.config.deliver_pending(&*self.port, &self.who);
        }
        for (index, ring) in (0u16..).zip(rings.iter_mut()) {
            if todo >> index & 1 != 0 {
                self.serve(index, ring);
            }
        }
        let mut front = self.front();
        front.is_busy = false;
        if front.is_resetting {
            self.finish_reset(&mut front);
        }
        drop(front);
        drop(rings);
        self.activity.changed();
    }

    pub(super) fn rings(&self) -> MutexGuard<'_, Vec<Option<Ring>>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, index: u16, ring: &mut Option<Ring>) {
        let (setup, epoch, features) = {
            let front = self.front();
            match front.queues.get(usize::from(index)) {
                Some(setup) if front.is_running() && setup.enabled => (*setup, front.epoch, front.features()),
                _ => return,
            }
        };
        if ring.as_ref().is_none_or(|ring| ring.epoch != epoch) {
            *ring = new_ring(&setup, epoch, features);
        }
        let io = Io { port: &*self.port, who: &self.who, features };
        let outcome = match ring {
            Some(ring) => {
                if setup.is_unannounced {
                    // Before a restore: once too often is allowed, not at all is not.
                    self.announce(index, setup.vector, true);
                }
                self.run(index, &mut ring.queue, setup.vector, &io)
            }
            None => Err(ServeError::Malformed),
        };
        match outcome {
            Ok(Served::Part) => self.work.add(1 << index),
            Ok(Served::All) | Err(ServeError::Cancelled) => {}
            Err(ServeError::Malformed) => self.fail(epoch),
        }
    }

    /// Serves requests until the ring is empty, the device is being reset or paused, or something is wrong.
    fn run(&self, index: u16, queue: &mut Queue, vector: u16, io: &Io<'_>) -> Result<Served, ServeError> {
        let memory = DmaMemory { ram: &self.ram, port: io.port, who: io.who };
        let failed = |_| self.why();
        loop {
            queue.disable_notification(&memory).map_err(failed)?;
            while queue.avail_idx(&memory, Ordering::Acquire).map_err(failed)?.0 != queue.next_avail() {
                if !self.front().is_running() || self.work.is_stopped() {
                    return Err(ServeError::Cancelled);
                }
                if !self.work.may_begin() {
                    return Ok(Served::Part);
                }
                let chain = queue.iter(&memory).map_err(failed)?.next().ok_or_else(|| self.why())?;
                let head = chain.head_index();
                let request = Request::parse(chain, queue.size()).map_err(|_| self.why())?;
                let written = self.device.serve(index, request, io)?;
                queue.add_used(&memory, head, written).map_err(failed)?;
                self.note_served(index, queue.next_used());
                let is_wanted = self.wants_interrupt(queue, &memory).map_err(failed)?;
                self.announce(index, vector, is_wanted);
            }
            if !queue.enable_notification(&memory).map_err(failed)? {
                return Ok(Served::All);
            }
        }
    }

    /// A request is in the used ring: from here on it is not served again.
    fn note_served(&self, index: u16, served: u16) {
        if let Some(queue) = self.front().queues.get_mut(usize::from(index)) {
            (queue.served, queue.is_unannounced) = (served, true);
        }
    }

    /// Tells the driver of requests in the used ring, if it wants to be told.
    fn announce(&self, index: u16, vector: u16, is_wanted: bool) {
        if is_wanted {
            self.interrupt(ISR_QUEUE, vector);
        }
        if let Some(queue) = self.front().queues.get_mut(usize::from(index)) {
            queue.is_unannounced = false;
        }
    }

    /// Why an access to a ring failed: the device's own doing, or the driver's.
    fn why(&self) -> ServeError {
        if self.who.waiter.is_cancelled() { ServeError::Cancelled } else { ServeError::Malformed }
    }

    fn wants_interrupt(
        &self,
        queue: &mut Queue,
        memory: &DmaMemory<'_>,
    ) -> Result<bool, virtio_queue::Error> {
        if queue.event_idx_enabled() {
            return queue.needs_notification(memory);
        }
        let flags: u16 = memory
            .load(GuestAddress(queue.avail_ring()), Ordering::Acquire)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT == 0)
    }

    fn interrupt(&self, cause: u8, vector: u16) {
        self.isr.fetch_or(cause, Ordering::AcqRel);
        if vector != NO_VECTOR {
            self.config.raise(vector, &*self.port, &self.who);
        }
    }

    /// The driver has left the device in a state that only a reset ends (2.1.2).
    fn fail(&self, epoch: u64) {
        let vector = {
            let mut front = self.front();
            if front.epoch != epoch || front.is_resetting {
                return;
            }
            front.status |= status::NEEDS_RESET;
            front.config_vector
        };
        let what = format_args!("a ring or a request cannot be used: the device needs a reset");
        self.config.errors().report("rings that stop the device", what);
        self.interrupt(ISR_CONFIG, vector);
    }

    fn begin_reset(&self, front: &mut Front) {
        if front.is_busy {
            front.is_resetting = true;
            self.who.waiter.cancel();
        } else {
            self.finish_reset(front);
        }
    }

    fn finish_reset(&self, front: &mut Front) {
        front.reset();
        self.isr.store(0, Ordering::Release);
        self.device.reset();
        if !self.work.is_stopped() {
            self.who.waiter.rearm();
        }
    }

    fn notify(&self, at: u64) {
        let queue = at / u64::from(NOTIFY_MULTIPLIER);
        if queue < self.device.queue_sizes().len() as u64 {
            self.work.add(1 << queue);
        }
    }

    /// The BAR access that the capability for accesses through configuration space describes now, if it is one.
    fn pci_cfg_access(&self) -> Option<(u64, usize)> {
        let get = |reg: PciCfgReg| self.config.register(self.pci_cfg, reg);
        let offset = u64::from(get(PciCfgReg::OFFSET));
        let len = get(PciCfgReg::LENGTH) as usize;
        let is_possible = get(PciCfgReg::BAR) == u32::from(BAR)
            && matches!(len, 1 | 2 | 4)
            && offset.is_multiple_of(len as u64)
            && offset < BAR_BYTES;
        is_possible.then_some((offset, len))
    }

    fn touches_pci_cfg_data(&self, offset: u64, len: usize) -> bool {
        let data = u64::from(self.pci_cfg) + PciCfgReg::DATA.offset();
        offset < data + 4 && offset.saturating_add(len as u64) > data
    }
}

/// Builds the configuration space of a device; also returns where the capability for accesses through it is.
fn configuration(device: &dyn VirtioDevice, vectors: u16, errors: GuestErrors) -> (ConfigSpace, u16) {
    let identity = Identity {
        vendor: 0x1af4,
        device: 0x1040 + device.device_id(),
        class: device.class(),
        revision: 1,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    };
    let notify_bytes = NOTIFY_MULTIPLIER * (u32::from(vectors) - 1);
    let mut builder = ConfigSpace::builder(identity)
        .errors(errors)
        .bar(BAR, Bar::memory64(BAR_BYTES))
        .express(PortType::RcIntegratedEndpoint)
        .power_management()
        .msix(MsixLayout { vectors, bar: BAR, table_offset: MSIX_TABLE, pba_offset: MSIX_PBA });
    for (kind, offset, length) in [
        (cap::COMMON_CFG, COMMON, COMMON_CFG_BYTES),
        (cap::ISR_CFG, ISR, 1),
        (cap::DEVICE_CFG, DEVICE, DEVICE_BYTES as u32),
    ] {
        builder.own_capability(
            cap::ID,
            16,
            &[
                (CapReg::LEN, 16),
                (CapReg::CFG_TYPE, kind),
                (CapReg::BAR, BAR.into()),
                (CapReg::OFFSET, offset as u32),
                (CapReg::LENGTH, length),
            ],
        );
    }
    builder.own_capability(
        cap::ID,
        20,
        &[
            (CapReg::LEN, 20),
            (CapReg::CFG_TYPE, cap::NOTIFY_CFG),
            (CapReg::BAR, BAR.into()),
            (CapReg::OFFSET, NOTIFY as u32),
            (CapReg::LENGTH, notify_bytes),
            (CapReg::NOTIFY_OFF_MULTIPLIER, NOTIFY_MULTIPLIER),
        ],
    );
    let registers: Vec<_> = PciCfgReg::ALL.iter().map(|(reg, info)| (*reg, info.reset as u32)).collect();
    let pci_cfg = builder.own_capability(cap::ID, 20, &registers);
    (builder.build(), pci_cfg)
}

/// The ring of a queue, or `None` if the driver's addresses do not have the alignment that rings need (2.7).
fn new_ring(setup: &QueueSetup, epoch: u64, features: u64) -> Option<Ring> {
    let mut queue = Queue::new(setup.size).ok()?;
    queue.try_set_desc_table_address(GuestAddress(setup.desc)).ok()?;
    queue.try_set_avail_ring_address(GuestAddress(setup.driver)).ok()?;
    queue.try_set_used_ring_address(GuestAddress(setup.device)).ok()?;
    queue.set_event_idx(features & feature::EVENT_IDX != 0);
    queue.set_next_avail(setup.served);
    queue.set_next_used(setup.served);
    queue.set_ready(true);
    Some(Ring { epoch, queue })
}

impl PciFunction for VirtioPci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        if self.touches_pci_cfg_data(offset, data.len())
            && let Some((at, len)) = self.pci_cfg_access()
        {
            let mut bytes = [0; 4];
            if self.bar_read(BAR, at, &mut bytes[..len]).is_ok() {
                self.config.set_register(self.pci_cfg, PciCfgReg::DATA, u32::from_le_bytes(bytes));
            }
        }
        self.config.read(offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8]) -> Effects {
        let effects = self.config.write(offset, data);
        if self.touches_pci_cfg_data(offset, data.len())
            && let Some((at, len)) = self.pci_cfg_access()
        {
            let bytes = self.config.register(self.pci_cfg, PciCfgReg::DATA).to_le_bytes();
            if let Err(error) = self.bar_write(BAR, at, &bytes[..len]) {
                let what = format_args!("write of the BAR by pci_cfg_data: {error}");
                self.config.errors().report("accesses through configuration space that are refused", what);
            }
        }
        effects
    }

    fn bar_read(&self, _bar: u8, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        match offset {
            COMMON..ISR => put_value(data, self.front().read(offset - COMMON, data.len())?),
            // Reading clears (4.1.4.5).
            ISR => put_value(data, self.isr.swap(0, Ordering::AcqRel).into()),
            DEVICE..NOTIFY => self.device.config_read(offset - DEVICE, data),
            _ => return Err(BusError::NoRegister(offset)),
        }
        Ok(())
    }

    fn bar_write(&self, _bar: u8, offset: u64, data: &[u8]) -> Result<(), BusError> {
        match offset {
            NOTIFY.. => self.notify(offset - NOTIFY),
            COMMON..ISR => {
                let mut front = self.front();
                match front.write(offset - COMMON, data.len(), value_of(data))? {
                    Asked::Nothing => {}
                    Asked::Reset => self.begin_reset(&mut front),
                    // Buffers may be there already.
                    Asked::Start => self.work.add((1 << front.queues.len()) - 1),
                }
            }
            DEVICE..NOTIFY => self.device.config_write(offset - DEVICE, data),
            _ => return Err(BusError::NoRegister(offset)),
        }
        Ok(())
    }

    fn function_reset(&self) {
        self.begin_reset(&mut self.front());
    }
}

impl LifeCycle for VirtioPci {
    fn reset(&self) {
        self.config.reset();
        {
            let mut front = self.front();
            self.work.set(Gate::begin_reset);
            self.begin_reset(&mut front);
        }
        self.activity.wait_until(|| !self.front().is_busy);
        self.rings().fill_with(|| None);
        self.work.take();
        self.work.set(Gate::end_reset);
    }

    fn quiesce(&self) {
        {
            let _front = self.front();
            self.work.set(|gate| gate.set_quiesced(true));
        }
        self.activity.wait_until(|| !self.front().is_busy || self.who.waiter.is_waiting());
    }

    fn resume(&self) {
        self.work.set(|gate| gate.set_quiesced(false));
    }

    fn save(&self) -> Value {
        let front = self.front();
        let (common, queues) = front.save();
        let isr = self.isr.load(Ordering::Acquire);
        VirtioState { config: self.config.save(), isr, common, queues }.to_value()
    }

    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let VirtioState { config, isr, common, queues } = VirtioState::from_value(state)?;
        if isr & !(ISR_QUEUE | ISR_CONFIG) != 0 {
            return Err(RestoreError::value("isr", "has bits that do not exist"));
        }
        self.config.restore(config).map_err(|error| error.within("config"))?;
        let mut front = self.front();
        front.restore(common, queues)?;
        self.isr.store(isr, Ordering::Release);
        // Whatever there was to do is found by looking.
        self.work.add(MESSAGES | ((1 << front.queues.len()) - 1));
        Ok(())
    }
}
