//! The SMMU with RAM and a requester, and nothing else: tables are built in RAM as a driver builds them.
//!
//! `docs/smmuv3-conformance.md` lists which test shows which rule.

mod agreement;
mod agreement_pri;
mod ats;
mod bring_up;
mod commands;
mod contexts;
mod events;
mod faults;
mod guest_errors;
mod hostile;
mod inspect;
mod invariants;
mod model;
mod modules;
mod port;
mod pri;
mod races;
mod registers;
mod reset;
mod saved;
mod slow;
mod slow_pri;
mod stage2;
mod stalls;
mod streams;
mod timeline;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use hw::ats::{AtsEndpoint, AtsPort, InvalidateRequest, InvalidateTag, PageResponse};
use hw::fault::FaultPlan;
use hw::schedule::Threads;
use hw::{
    DeviceId, DmaFault, DmaPort, DmaTag, Faults, Iova, ManualAlarms, ManualClock, MmioDevice, Pa, Pasid, Ram,
    RecordingLine, RecordingMsiSink, Requester, StreamId, mmio,
};
use vmsa::Granule;

use crate::spec::event::EventType;
use crate::spec::regs::SmmuReg;
use crate::{Features, Smmu, SmmuConfig, Wires};

pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: u64 = 64 << 20;
pub(crate) const CMDQ: u64 = 0x4000_0000;
pub(crate) const CMDQ_LOG2: u32 = 7;
pub(crate) const EVENTQ: u64 = 0x4001_0000;
pub(crate) const STRTAB: u64 = 0x4002_0000;
pub(crate) const STRTAB_LOG2: u32 = 6;
pub(crate) const CDTAB: u64 = 0x4003_0000;
pub(crate) const PRIQ: u64 = 0x4004_0000;
/// Tables are taken from here on.
const TABLES: u64 = 0x4010_0000;
/// Data pages of the tests: far from the tables.
pub(crate) const DATA: u64 = 0x4200_0000;
pub(crate) const DOORBELL: u64 = 0x0808_0040;
/// Reads as nothing, takes no writes.
pub(crate) const HOLE: u64 = 0x1_0000_0000;

pub(crate) const SID: u32 = 0x10;
pub(crate) const PASID: u32 = 5;
pub(crate) const ASID: u16 = 0x12;

// Registers, without their prefix. That the map has them where drivers look for them is a test of its own.
pub(crate) const IDR0: u64 = SmmuReg::SMMU_IDR0.offset();
pub(crate) const IDR1: u64 = SmmuReg::SMMU_IDR1.offset();
pub(crate) const IDR3: u64 = SmmuReg::SMMU_IDR3.offset();
pub(crate) const IDR5: u64 = SmmuReg::SMMU_IDR5.offset();
pub(crate) const CR0: u64 = SmmuReg::SMMU_CR0.offset();
pub(crate) const CR0ACK: u64 = SmmuReg::SMMU_CR0ACK.offset();
pub(crate) const CR1: u64 = SmmuReg::SMMU_CR1.offset();
pub(crate) const CR2: u64 = SmmuReg::SMMU_CR2.offset();
pub(crate) const GBPA: u64 = SmmuReg::SMMU_GBPA.offset();
pub(crate) const IRQ_CTRL: u64 = SmmuReg::SMMU_IRQ_CTRL.offset();
pub(crate) const IRQ_CTRLACK: u64 = SmmuReg::SMMU_IRQ_CTRLACK.offset();
pub(crate) const GERROR: u64 = SmmuReg::SMMU_GERROR.offset();
pub(crate) const GERRORN: u64 = SmmuReg::SMMU_GERRORN.offset();
pub(crate) const GERROR_IRQ_CFG0: u64 = SmmuReg::SMMU_GERROR_IRQ_CFG0.offset();
pub(crate) const STRTAB_BASE: u64 = SmmuReg::SMMU_STRTAB_BASE.offset();
pub(crate) const STRTAB_BASE_CFG: u64 = SmmuReg::SMMU_STRTAB_BASE_CFG.offset();
pub(crate) const CMDQ_BASE: u64 = SmmuReg::SMMU_CMDQ_BASE.offset();
pub(crate) const CMDQ_PROD: u64 = SmmuReg::SMMU_CMDQ_PROD.offset();
pub(crate) const CMDQ_CONS: u64 = SmmuReg::SMMU_CMDQ_CONS.offset();
pub(crate) const EVENTQ_BASE: u64 = SmmuReg::SMMU_EVENTQ_BASE.offset();
pub(crate) const EVENTQ_IRQ_CFG0: u64 = SmmuReg::SMMU_EVENTQ_IRQ_CFG0.offset();
pub(crate) const PRIQ_BASE: u64 = SmmuReg::SMMU_PRIQ_BASE.offset();
pub(crate) const PRIQ_IRQ_CFG0: u64 = SmmuReg::SMMU_PRIQ_IRQ_CFG0.offset();
pub(crate) const PRIQ_IRQ_CFG1: u64 = SmmuReg::SMMU_PRIQ_IRQ_CFG1.offset();
pub(crate) const PRIQ_IRQ_CFG2: u64 = SmmuReg::SMMU_PRIQ_IRQ_CFG2.offset();
pub(crate) const PRIQ_PROD: u64 = SmmuReg::SMMU_PRIQ_PROD.offset();
pub(crate) const PRIQ_CONS: u64 = SmmuReg::SMMU_PRIQ_CONS.offset();
pub(crate) const EVENTQ_PROD: u64 = SmmuReg::SMMU_EVENTQ_PROD.offset();
pub(crate) const EVENTQ_CONS: u64 = SmmuReg::SMMU_EVENTQ_CONS.offset();

pub(crate) const SMMUEN: u32 = 1;
pub(crate) const PRIQEN: u32 = 2;
pub(crate) const EVENTQEN: u32 = 4;
pub(crate) const CMDQEN: u32 = 8;
pub(crate) const ATSCHK: u32 = 16;

/// Context descriptor of a process: 48-bit addresses, 4 KiB granule, IPS 48, A = R = 1, S = 0, ASID 0x12.
pub(crate) const CD_D0: u64 = (ASID as u64) << 48 | 0xe205_c000_3510;
pub(crate) const CD_S: u64 = 1 << 44;
pub(crate) const CD_R: u64 = 1 << 45;

/// Page descriptor bits.
pub(crate) const AF: u64 = 1 << 10;
pub(crate) const NG: u64 = 1 << 11;
pub(crate) const EL0: u64 = 1 << 6;
pub(crate) const RO: u64 = 1 << 7;
pub(crate) const PXN: u64 = 1 << 53;
pub(crate) const UXN: u64 = 1 << 54;
/// Readable and writable by the process.
pub(crate) const USER_RW: u64 = AF | NG | EL0 | PXN | UXN;

/// An event as dwords: what the driver sees.
pub(crate) type Record = [u64; 4];

pub(crate) struct Bench {
    pub(crate) errors: hw::GuestErrors,
    pub(crate) smmu: Arc<Smmu>,
    pub(crate) ram: Arc<Ram>,
    pub(crate) msi: Arc<RecordingMsiSink>,
    pub(crate) eventq: Arc<RecordingLine>,
    pub(crate) gerror: Arc<RecordingLine>,
    pub(crate) cmdq_sync: Arc<RecordingLine>,
    pub(crate) priq: Arc<RecordingLine>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) alarms: Arc<ManualAlarms>,
    next_table: AtomicU64,
    eventq_log2: AtomicU32,
}

impl Bench {
    /// Just after reset.
    pub(crate) fn reset(features: Features) -> Self {
        Self::reset_with(features, None)
    }

    /// Just after reset, with a plan of what goes wrong.
    pub(crate) fn reset_with(features: Features, plan: Option<Arc<dyn FaultPlan>>) -> Self {
        Self::on(Self::memory(), features, plan, hw::Trace::default())
    }

    /// As [`Self::new`], and what happens is told.
    pub(crate) fn traced(trace: hw::Trace) -> Self {
        let m = Self::on(Self::memory(), Features::default(), None, trace);
        m.set_up(4);
        m.enable(SMMUEN | EVENTQEN | CMDQEN);
        m
    }

    fn memory() -> Arc<Ram> {
        Arc::new(Ram::new(&[(Pa(RAM), RAM_BYTES)]).unwrap())
    }

    /// Another one that has just been made, on the same memory.
    pub(crate) fn successor(&self, plan: Option<Arc<dyn FaultPlan>>) -> Self {
        let after = Self::on(Arc::clone(&self.ram), self.smmu.features, plan, hw::Trace::default());
        after.next_table.store(self.next_table.load(Ordering::Relaxed), Ordering::Relaxed);
        after.eventq_log2.store(self.eventq_log2.load(Ordering::Relaxed), Ordering::Relaxed);
        after
    }

    fn on(ram: Arc<Ram>, features: Features, plan: Option<Arc<dyn FaultPlan>>, trace: hw::Trace) -> Self {
        let msi = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
        let line = || Arc::new(RecordingLine::default());
        let (eventq, gerror, cmdq_sync, priq) = (line(), line(), line(), line());
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let faults = plan.map_or_else(Faults::default, |plan| {
            Faults::changing(plan, clock.clone(), alarms.clone(), Arc::new(Threads))
        });
        let errors = hw::GuestErrors::default();
        let smmu = Smmu::new(SmmuConfig {
            features,
            ram: ram.clone(),
            msi: msi.clone(),
            device_id: DeviceId(0xff),
            wires: Wires {
                eventq: eventq.clone(),
                priq: priq.clone(),
                cmdq_sync: cmdq_sync.clone(),
                gerror: gerror.clone(),
            },
            clock: clock.clone(),
            alarms: alarms.clone(),
            scheduler: Arc::new(Threads),
            faults,
            trace,
            errors: errors.clone(),
        });
        let next_table = AtomicU64::new(TABLES);
        Self {
            errors,
            smmu,
            ram,
            msi,
            eventq,
            gerror,
            cmdq_sync,
            priq,
            clock,
            alarms,
            next_table,
            eventq_log2: AtomicU32::new(4),
        }
    }

    /// Queues, a linear stream table of 64 aborting entries, everything enabled.
    pub(crate) fn new() -> Self {
        Self::with(Features::default())
    }

    pub(crate) fn with(features: Features) -> Self {
        let m = Self::reset(features);
        m.set_up(4);
        m.enable(SMMUEN | EVENTQEN | CMDQEN);
        m
    }

    /// As [`Self::new`], with an event queue of `1 << log2` entries.
    pub(crate) fn with_event_queue(log2: u32) -> Self {
        let m = Self::reset(Features::default());
        m.set_up(log2);
        m.enable(SMMUEN | EVENTQEN | CMDQEN);
        m
    }

    /// Everything but the enables.
    pub(crate) fn set_up(&self, eventq_log2: u32) {
        self.eventq_log2.store(eventq_log2, Ordering::Relaxed);
        for sid in 0..1 << STRTAB_LOG2 {
            self.put(STRTAB + 64 * sid, &[1]);
        }
        self.w32(CR2, 2);
        self.w64(STRTAB_BASE, STRTAB);
        self.w32(STRTAB_BASE_CFG, STRTAB_LOG2);
        self.w64(CMDQ_BASE, CMDQ | u64::from(CMDQ_LOG2));
        self.w64(EVENTQ_BASE, EVENTQ | u64::from(eventq_log2));
        self.w32(IRQ_CTRL, 5);
    }

    pub(crate) fn enable(&self, cr0: u32) {
        self.w32(CR0, cr0);
        assert_eq!(self.r32(CR0ACK), cr0);
    }

    pub(crate) fn r32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.smmu.mmio_read(offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    pub(crate) fn w32(&self, offset: u64, value: u32) {
        self.smmu.mmio_write(offset, &value.to_le_bytes()).unwrap();
    }

    pub(crate) fn r64(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.smmu.mmio_read(offset, &mut data).unwrap();
        mmio::value_of(&data)
    }

    pub(crate) fn w64(&self, offset: u64, value: u64) {
        self.smmu.mmio_write(offset, &value.to_le_bytes()).unwrap();
    }

    /// Dwords into RAM.
    pub(crate) fn put(&self, pa: u64, dwords: &[u64]) {
        for (pa, &dword) in (pa..).step_by(8).zip(dwords) {
            self.ram.store_u64(Pa(pa), dword).unwrap();
        }
    }

    pub(crate) fn dword(&self, pa: u64) -> u64 {
        self.ram.load_u64(Pa(pa)).unwrap()
    }

    /// An aligned zeroed table.
    pub(crate) fn table(&self, bytes: u64) -> u64 {
        let at = self.next_table.load(Ordering::Relaxed).next_multiple_of(bytes);
        self.next_table.store(at + bytes, Ordering::Relaxed);
        assert!(at + bytes <= DATA);
        at
    }

    // --- commands

    /// Writes a command to the queue without making it visible; returns its slot.
    pub(crate) fn push(&self, d0: u64, d1: u64) -> u64 {
        let prod = self.r32(CMDQ_PROD);
        self.put_command(prod, d0, d1)
    }

    pub(crate) fn put_command(&self, prod: u32, d0: u64, d1: u64) -> u64 {
        let slot = CMDQ + 16 * u64::from(prod & ((1 << CMDQ_LOG2) - 1));
        self.put(slot, &[d0, d1]);
        slot
    }

    /// One command, made visible.
    pub(crate) fn command(&self, d0: u64, d1: u64) -> u64 {
        let slot = self.push(d0, d1);
        let mask = (2 << CMDQ_LOG2) - 1;
        self.w32(CMDQ_PROD, (self.r32(CMDQ_PROD) + 1) & mask);
        slot
    }

    /// CMD_SYNC that answers into its own slot, as the driver polls.
    pub(crate) fn sync(&self) {
        let prod = self.r32(CMDQ_PROD);
        let slot = CMDQ + 16 * u64::from(prod & ((1 << CMDQ_LOG2) - 1));
        self.command(0x0fc0_1046, slot);
        assert_eq!(self.dword(slot) as u32, 0, "CMD_SYNC has answered");
    }

    pub(crate) fn cfgi_ste(&self, sid: u32) {
        self.command(u64::from(sid) << 32 | 0x03, 1);
        self.sync();
    }

    pub(crate) fn cfgi_cd(&self, sid: u32, ssid: u32) {
        self.command(u64::from(sid) << 32 | u64::from(ssid) << 12 | 0x05, 1);
        self.sync();
    }

    pub(crate) fn tlbi_asid(&self, asid: u16) {
        self.command(u64::from(asid) << 48 | 0x11, 0);
        self.sync();
    }

    /// CMD_TLBI_NH_VA as the driver sends it for `pages` of 4 KiB, at least two.
    pub(crate) fn tlbi_va(&self, asid: u16, va: u64, pages: u64) {
        assert!(pages >= 2);
        let scale = pages.trailing_zeros();
        let num = (pages >> scale) - 1;
        assert!(num < 31);
        self.command(u64::from(asid) << 48 | u64::from(scale) << 20 | num << 12 | 0x12, va | 1 << 10);
        self.sync();
    }

    pub(crate) fn resume(&self, sid: u32, stag: u16, retry: bool) {
        let answer = if retry { 0x1000 } else { 0x2000 };
        self.command(u64::from(sid) << 32 | answer | 0x44, stag.into());
    }

    // --- streams, contexts, pages

    pub(crate) fn ste(&self, sid: u32, dwords: &[u64]) {
        self.put(STRTAB + 64 * u64::from(sid), dwords);
        if self.r32(CR0) & CMDQEN != 0 {
            self.cfgi_ste(sid);
        }
    }

    /// A linear table of 64 contexts for `sid`; traffic without PASID uses context 0.
    pub(crate) fn contexts(&self, sid: u32) {
        self.ste(sid, &[6 << 59 | CDTAB | 5 << 1 | 1, 0xd6]);
    }

    pub(crate) fn cd(&self, ssid: u32, dwords: &[u64]) {
        self.put(CDTAB + 64 * u64::from(ssid), dwords);
        self.cfgi_cd(SID, ssid);
    }

    /// `SID` with an address space for `PASID`; the table's root. `d0` are further bits of the context.
    pub(crate) fn process(&self, d0: u64) -> u64 {
        let root = self.table(4096);
        self.contexts(SID);
        self.cd(PASID, &[CD_D0 | d0, root, 0, 0xff]);
        root
    }

    /// Maps a 4 KiB page of a 48-bit space.
    pub(crate) fn map(&self, root: u64, va: u64, pa: u64, attributes: u64) {
        self.map_at(Granule::K4, 48, 3, root, va, pa | attributes | 3);
    }

    /// Puts a leaf descriptor at `level`, with the tables above it.
    pub(crate) fn map_at(
        &self,
        granule: Granule,
        input_bits: u32,
        level: u8,
        root: u64,
        va: u64,
        descriptor: u64,
    ) {
        let mut table = root;
        for at in granule.start_level(input_bits)..level {
            let entry = self.entry(granule, input_bits, at, table, va);
            if self.dword(entry) & 1 == 0 {
                let next = self.table(1 << granule.page_shift());
                self.put(entry, &[next | 3]);
            }
            table = self.dword(entry) & 0xffff_ffff_f000;
        }
        self.put(self.entry(granule, input_bits, level, table, va), &[descriptor]);
    }

    fn entry(&self, granule: Granule, input_bits: u32, level: u8, table: u64, va: u64) -> u64 {
        let shift = granule.level_shift(level);
        let top = input_bits.min(shift + granule.bits_per_level());
        table + 8 * ((va >> shift) & ((1 << (top - shift)) - 1))
    }

    /// Physical address of the level 3 descriptor of a mapped 4 KiB page.
    pub(crate) fn pte(&self, root: u64, va: u64) -> u64 {
        let mut table = root;
        for level in 0..3 {
            table = self.dword(self.entry(Granule::K4, 48, level, table, va)) & 0xffff_ffff_f000;
        }
        self.entry(Granule::K4, 48, 3, table, va)
    }

    // --- the device

    pub(crate) fn read(&self, who: &Requester, at: u64, len: usize) -> Result<Vec<u8>, DmaFault> {
        let mut out = vec![0xee; len];
        self.smmu.read(who, Iova(at), &mut out).map(|()| out)
    }

    pub(crate) fn write(&self, who: &Requester, at: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.smmu.write(who, Iova(at), data)
    }

    // --- what the guest sees

    /// The records in the event queue; taken out, and an overflow acknowledged.
    pub(crate) fn events(&self) -> Vec<Record> {
        let log2 = self.eventq_log2.load(Ordering::Relaxed);
        let mask = (2u32 << log2) - 1;
        let prod = self.r32(EVENTQ_PROD);
        let mut cons = self.r32(EVENTQ_CONS) & mask;
        let mut records = Vec::new();
        while cons != prod & mask {
            let at = EVENTQ + 32 * u64::from(cons & (mask >> 1));
            records.push([0, 8, 16, 24].map(|offset| self.dword(at + offset)));
            cons = (cons + 1) & mask;
        }
        self.w32(EVENTQ_CONS, cons | prod & 1 << 31);
        records
    }

    /// Waits until there are records, for threads that stall meanwhile.
    pub(crate) fn await_events(&self, count: usize) -> Vec<Record> {
        let mut records = Vec::new();
        self.until(|| {
            records.extend(self.events());
            records.len() >= count
        });
        records
    }

    pub(crate) fn until(&self, mut condition: impl FnMut() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(20), "never came");
            std::thread::yield_now();
        }
    }

    /// Ends what is stalled when an assertion fails, so that the test fails too and does not wait for ever.
    pub(crate) fn unstuck_on_panic(&self) -> impl Drop {
        struct Unstuck<'a>(&'a Bench);
        impl Drop for Unstuck<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.w32(GBPA, 1 << 31 | 1 << 20);
                    self.0.w32(CR0, 0);
                }
            }
        }
        Unstuck(self)
    }

    pub(crate) fn active_errors(&self) -> u32 {
        self.r32(GERROR) ^ self.r32(GERRORN)
    }
}

pub(crate) fn plain() -> Requester {
    Requester::new(DmaTag::untagged(StreamId(SID)))
}

pub(crate) fn process() -> Requester {
    with_pasid(SID, PASID)
}

pub(crate) fn with_pasid(sid: u32, pasid: u32) -> Requester {
    Requester::new(DmaTag::process(StreamId(sid), Pasid::new(pasid).unwrap()))
}

pub(crate) fn aborted<T>(at: u64) -> Result<T, DmaFault> {
    Err(DmaFault::Aborted(Iova(at)))
}

/// A record of only an event, stream and (with SSV) SubstreamID.
pub(crate) fn record(event: EventType, sid: u32, ssid: Option<u32>) -> Record {
    let ssid = ssid.map_or(0, |ssid| 1 << 11 | u64::from(ssid) << 12);
    [u64::from(sid) << 32 | ssid | u64::from(event.0), 0, 0, 0]
}

/// A record of `PASID`'s fault at `address` with these D1 bits.
pub(crate) fn fault_record(event: EventType, d1: u64, address: u64) -> Record {
    let [d0, ..] = record(event, SID, Some(PASID));
    [d0, d1, address, 0]
}

/// D1: CLASS = IN, read.
pub(crate) const READ: u64 = 2 << 40 | 1 << 35;
/// D1: CLASS = IN, write.
pub(crate) const WRITE: u64 = 2 << 40;
/// D1: instruction.
pub(crate) const IND: u64 = 1 << 34;
/// D1: privileged.
pub(crate) const PNU: u64 = 1 << 33;
/// D1: stalled.
pub(crate) const STALL: u64 = 1 << 31;

/// An endpoint with a translation cache that remembers what it is sent.
pub(crate) struct Endpoint {
    smmu: Weak<Smmu>,
    /// Completes invalidations at once.
    pub(crate) is_prompt: AtomicBool,
    pub(crate) invalidations: Mutex<Vec<(InvalidateRequest, InvalidateTag)>>,
    pub(crate) responses: Mutex<Vec<PageResponse>>,
}

impl AtsEndpoint for Endpoint {
    fn invalidate(&self, request: &InvalidateRequest, tag: InvalidateTag) {
        self.invalidations.lock().unwrap().push((*request, tag));
        if self.is_prompt.load(Ordering::Relaxed)
            && let Some(smmu) = self.smmu.upgrade()
        {
            smmu.invalidate_completed(StreamId(SID), tag);
        }
    }

    fn page_response(&self, response: &PageResponse) {
        self.responses.lock().unwrap().push(*response);
    }
}

impl Bench {
    /// An endpoint behind `SID`.
    pub(crate) fn endpoint(&self) -> Arc<Endpoint> {
        let endpoint = Arc::new(Endpoint {
            smmu: Arc::downgrade(&self.smmu),
            is_prompt: AtomicBool::new(true),
            invalidations: Mutex::default(),
            responses: Mutex::default(),
        });
        let dynamic: Arc<dyn AtsEndpoint> = endpoint.clone();
        self.smmu.attach(StreamId(SID), Arc::downgrade(&dynamic));
        endpoint
    }

    /// As [`Self::process`], with address translation services.
    pub(crate) fn ats_process(&self, d0: u64) -> u64 {
        let root = self.process(d0);
        self.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, EATS_FULL | 0xd6]);
        root
    }
}

/// STE D1: EATS = 1.
pub(crate) const EATS_FULL: u64 = 1 << 28;
