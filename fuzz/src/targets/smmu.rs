//! SMMUv3, alone and with a function that has a translation cache.

use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use devices::pci::caps::{PortType, ats, page_request};
use devices::pci::{Atc, AtcWiring, ConfigSpace, Identity};
use hw::ats::{
    AtsEndpoint, AtsPort, InvalidateTag, PageRequest, PageResponse, PageResponseCode, PrgIndex,
    TranslationRequest,
};
use hw::regmap::{RegisterInfo, RegisterMap};
use hw::schedule::Threads;
use hw::{
    Clock, DeviceId, Dir, DmaPort, DmaTag, Iova, LifeCycle, MmioDevice, Pa, Pasid, Ram, RecordingMsiSink,
    Requester, StreamId, Waiter,
};
use iommu::spec::regs::SmmuReg;
use iommu::{Features, OutputSize, Smmu, SmmuConfig, StallModel, WINDOW_BYTES, Wires};
use serde_json::Value;

use crate::input::Input;
use crate::machine::{DOORBELL, PLACES, RAM, mmio, offsets, put, ram, scribble, w32, w64};

// Where the driver that comes before the hostile one puts its things.
const CMDQ: u64 = RAM;
const CMDQ_LOG2: u32 = 5;
const EVENTQ: u64 = RAM + 0x1000;
const STRTAB: u64 = RAM + 0x2000;
const STRTAB_LOG2: u32 = 5;
const CDTAB: u64 = RAM + 0x3000;
const PGD: u64 = RAM + 0x4000;

/// Accesses that may wait at the same time: each has a thread.
const MOST_STALLED: usize = 6;

/// Accesses of one input that get a thread. On a host with other work each of them takes ten milliseconds and more until
/// it has had its turn.
const MOST_THREADS: usize = 32;

struct Machine {
    smmu: Arc<Smmu>,
    ram: Arc<Ram>,
    msi: Arc<RecordingMsiSink>,
    registers: Vec<u64>,
    commands: u32,
    function: Option<Function>,
}

/// A function with a translation cache.
#[derive(Clone)]
struct Function {
    config: Arc<ConfigSpace>,
    clock: Arc<hw::ManualClock>,
    alarms: Arc<hw::ManualAlarms>,
    atc: Arc<Atc>,
}

/// The stream of the function.
const FUNCTION: StreamId = StreamId(3);
const PRIQ: u64 = RAM + 0x9000;
/// Offsets of its capabilities in configuration space.
const ATS_CAP: u16 = 0x100;
const PAGE_REQUEST_CAP: u16 = 0x108;

impl Function {
    fn new(smmu: &Arc<Smmu>, credits: u32) -> Self {
        let identity =
            Identity { vendor: 1, device: 1, class: 0, revision: 0, subsystem_vendor: 0, subsystem: 0 };
        let config = ConfigSpace::builder(identity)
            .express(PortType::RcIntegratedEndpoint)
            .ats()
            .page_requests(8)
            .build();
        let config = Arc::new(config);
        let (port, agent) = (Arc::clone(smmu), Arc::clone(smmu));
        let (clock, alarms) = (Arc::new(hw::ManualClock::default()), Arc::new(hw::ManualAlarms::default()));
        let wiring = AtcWiring {
            stream: FUNCTION,
            config: Arc::clone(&config),
            port,
            agent,
            clock: clock.clone(),
            alarms: alarms.clone(),
            scheduler: Arc::new(Threads),
            faults: hw::Faults::default(),
            trace: hw::Trace::default(),
            errors: hw::GuestErrors::default(),
        };
        let function = Self { config, clock, alarms, atc: Atc::new(wiring) };
        function.set(PAGE_REQUEST_CAP, page_request::ALLOCATION, credits);
        function.enable();
        function
    }

    fn enable(&self) {
        self.set(ATS_CAP, ats::CONTROL, ats::ENABLE);
        self.set(PAGE_REQUEST_CAP, page_request::CONTROL, page_request::ENABLE);
    }

    fn set<R: RegisterMap>(&self, base: u16, reg: R, value: u32) {
        let RegisterInfo { offset, bytes, .. } = reg.info();
        self.write(u64::from(base) + offset, &value.to_le_bytes()[..*bytes as usize]);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let effects = self.config.write(offset, data);
        self.atc.config_written(&effects);
        if effects.reset {
            self.atc.reset();
        }
    }

    /// What software, and an agent out of its mind, do to the function.
    fn disturb(&self, smmu: &Smmu, input: &mut Input<'_>) {
        let (what, group) = (input.u8(), PrgIndex::new(input.u8().into()));
        let pasid = if what & 0x80 != 0 { Pasid::new(u32::from(input.u8()) % 20) } else { None };
        // Time passes, for accesses that make a pause.
        self.clock.advance_ns(u64::from(what) << 20);
        self.alarms.ring(self.clock.now_ns());
        match what & 7 {
            0 => self.write(0x100 + u64::from(input.u8() % 0x18), &input.u16().to_le_bytes()),
            1 => self.write(0x48, &[0, input.u8()]), // perhaps a function-level reset
            2 => self.enable(),
            3 => smmu.invalidate_completed(FUNCTION, InvalidateTag(input.u8().into())),
            4 => {
                let prod = r32(smmu, 0x1_00c8);
                match what >> 3 & 3 {
                    // The reader of the page request queue.
                    0 | 1 => w32(smmu, 0x1_00cc, prod),
                    // One that forgets an overflow, or is anywhere in the queue.
                    2 => w32(smmu, 0x1_00cc, prod ^ 1 << 31 ^ u32::from(group.get())),
                    _ => {
                        // The queue begins anew, perhaps where there is no memory.
                        let base = if what & 0x20 != 0 { input.word(&PLACES) & !0x1f } else { PRIQ };
                        w32(smmu, 0x20, 0x1d); // CR0
                        w64(smmu, 0xc0, base | u64::from(input.u8() % 32));
                        w32(smmu, 0x1_00c8, group.get().into());
                        w32(smmu, 0x1_00cc, input.u8().into());
                        w32(smmu, 0x20, 0x1f);
                    }
                }
            }
            5 => {
                let stream = StreamId(u32::from(input.u8() % 34));
                let tag = DmaTag { pasid, ..DmaTag::untagged(stream) };
                let (read, write, last) = (what & 8 != 0, what & 0x10 != 0, what & 0x20 != 0);
                let address = Iova(input.word(&PLACES));
                smmu.request_page(&PageRequest { tag, address, read, write, last, index: group });
            }
            6 => {
                // A function that makes addresses up.
                let stream = StreamId(u32::from(input.u8() % 34));
                let (at, mut bytes) = (input.word(&PLACES), vec![0; input.u8().into()]);
                let tag = DmaTag { pasid, ..DmaTag::untagged(stream) };
                let address = Iova(at);
                let request = TranslationRequest { tag, address, no_write: what & 0x20 != 0 };
                let _ = match what >> 3 & 3 {
                    0 => smmu.read_translated(stream, Pa(at), &mut bytes),
                    1 => smmu.write_translated(stream, Pa(at), &bytes),
                    _ => smmu.request_translation(&request).map_or(Ok(()), |found| {
                        assert!(found.address.0 & !(u64::MAX << found.size_log2) == 0);
                        smmu.write_translated(stream, found.address, &bytes)
                    }),
                };
            }
            _ => {
                let code = match what >> 3 & 3 {
                    0 => PageResponseCode::ResponseFailure,
                    1 => PageResponseCode::InvalidRequest,
                    _ => PageResponseCode::Success,
                };
                self.atc.page_response(&PageResponse { pasid, index: group, code });
            }
        }
    }
}

impl Machine {
    fn new(input: &mut Input<'_>, has_function: bool) -> (Self, bool) {
        let how = input.u8();
        let stall_model = [StallModel::TerminateOnly, StallModel::StallAndTerminate, StallModel::StallForced]
            [usize::from(how & 3) % 3];
        let features = Features {
            stall_model,
            stall_max: if how & 4 != 0 { 2 } else { 256 },
            ssid_bits: if how & 8 != 0 { 4 } else { 20 },
            output: if how & 16 != 0 { OutputSize::BITS_40 } else { OutputSize::BITS_48 },
            msi: how & 32 == 0,
            // One register write executes a whole queue, and an input may have hundreds of them.
            cmdq_log2: 8,
            ..Features::default()
        };
        let (ram, msi) = (ram(), Arc::new(RecordingMsiSink::new(Pa(DOORBELL))));
        let smmu = Smmu::new(SmmuConfig {
            features,
            ram: ram.clone(),
            msi: msi.clone(),
            device_id: DeviceId(0xff),
            wires: Wires::unconnected(),
            clock: Arc::new(hw::ManualClock::default()),
            alarms: Arc::new(hw::ManualAlarms::default()),
            scheduler: Arc::new(Threads),
            faults: hw::Faults::default(),
            trace: hw::Trace::default(),
            errors: hw::GuestErrors::default(),
        });
        let function = has_function.then(|| Function::new(&smmu, if how & 4 != 0 { 2 } else { 64 }));
        let machine = Self { smmu, ram, msi, registers: offsets::<SmmuReg>(), commands: 0, function };
        if how & 0x80 == 0 {
            machine.bring_up(how & 0x40 != 0);
        }
        (machine, stall_model != StallModel::TerminateOnly)
    }

    /// What Linux leaves behind: queues, a linear stream table whose streams have contexts with four-level tables.
    fn bring_up(&self, stalls: bool) {
        for sid in 0..1 << STRTAB_LOG2 {
            // V, Config S1, 16 contexts in a linear table; S1DSS: SSID 0.
            let eats = u64::from(self.function.is_some()) << 28;
            put(&self.ram, STRTAB + 64 * sid, &[CDTAB | 4 << 59 | 0b1011, 2 | eats]);
        }
        for ssid in 0..16 {
            // T0SZ 16, 4 KiB, EPD1, V, IPS 48, AA64, A, R, perhaps S.
            let d0 = ssid << 48 | 0x6205_c000_3510 | u64::from(stalls) << 44 | 1 << 45;
            put(&self.ram, CDTAB + 64 * ssid, &[d0, PGD]);
        }
        for level in 0..4 {
            let table = PGD + 0x1000 * level;
            for i in 0..16 {
                let entry = match level {
                    3 => (RAM + 0x10_0000 + 0x1000 * i) | 0x0060_0000_0000_0c43,
                    _ => (table + 0x1000) | 3,
                };
                put(&self.ram, table + 8 * i, &[entry]);
            }
        }
        let smmu = &*self.smmu;
        w32(smmu, 0x2c, 2); // CR2
        w64(smmu, 0x80, STRTAB);
        w32(smmu, 0x88, STRTAB_LOG2);
        w64(smmu, 0x90, CMDQ | u64::from(CMDQ_LOG2));
        w64(smmu, 0xa0, EVENTQ | 4);
        w32(smmu, 0x50, 5); // IRQ_CTRL
        if self.function.is_some() {
            w64(smmu, 0xc0, PRIQ | 3);
            w32(smmu, 0x20, 0x1f); // CR0
        } else {
            w32(smmu, 0x20, 0xd);
        }
    }

    /// Counts what makes accesses wait.
    fn waits(&self) -> u64 {
        let function = self.function.as_ref().map(|function| function.atc.totals()).unwrap_or_default();
        self.smmu.stats().stalls + function.page_requests + function.credit_waits
    }

    /// The way of a stream's accesses.
    fn port(&self, access: &mut Access) -> Arc<dyn DmaPort> {
        match &self.function {
            Some(function) if !access.who.tag.stream.0.is_multiple_of(4) => {
                access.who.tag.stream = FUNCTION;
                Arc::clone(&function.atc) as Arc<dyn DmaPort>
            }
            _ => Arc::clone(&self.smmu) as Arc<dyn DmaPort>,
        }
    }

    /// A command at the place where the driver that brought the SMMU up puts the next.
    fn command(&mut self, input: &mut Input<'_>) {
        const OPCODES: [u64; 22] = [
            0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a,
            0x30, 0x44, 0x45, 0x46, 0x40, 0x41,
        ];
        let how = input.u8();
        let to_function = self.function.is_some() && how & 0x30 == 0;
        let opcode = if to_function {
            0x40 | u64::from(how >> 6 & 1)
        } else if how & 15 == 0 {
            input.u8().into()
        } else {
            input.choose(&OPCODES)
        };
        let (sid, ssid) = (u64::from(input.u8() % 40), u64::from(input.u8() % 20));
        let sid = if to_function { FUNCTION.0.into() } else { sid };
        let d0 = match input.u8() % 4 {
            0 => input.word(&PLACES) & !0xff | opcode,
            1 => sid << 32 | ssid << 12 | 1 << 11 | opcode,
            // Resume, with an answer.
            2 => sid << 32 | u64::from(input.u8() & 3) << 12 | opcode,
            _ => ssid << 48 | u64::from(input.u16()) << 12 | opcode,
        };
        let d1 = if input.u8() & 1 == 0 {
            // Of CMD_PRI_RESP a group and a code.
            let small = u64::from(input.u8());
            let code = if opcode == 0x41 { small >> 4 & 3 } else { 0 };
            code << 12 | small & 7
        } else {
            input.word(&PLACES)
        };
        let slot = u64::from(self.commands) & ((1 << CMDQ_LOG2) - 1);
        put(&self.ram, CMDQ + 16 * slot, &[d0, d1]);
        self.commands = self.commands.wrapping_add(1) & ((2 << CMDQ_LOG2) - 1);
        w32(&*self.smmu, 0x98, self.commands);
    }
}

/// A DMA access as the input describes it.
struct Access {
    who: Requester,
    at: Iova,
    len: usize,
    kind: u8,
}

impl Access {
    fn new(input: &mut Input<'_>) -> Self {
        let (kind, stream) = (input.u8(), u32::from(input.u8() % 34));
        let pasid = (kind & 0x80 != 0).then(|| Pasid::new(u32::from(input.u8()) % 20)).flatten();
        let tag = DmaTag {
            stream: StreamId(stream),
            pasid,
            privileged: pasid.is_some() && kind & 0x40 != 0,
            execute: pasid.is_some() && kind & 0x20 != 0,
        };
        // The first pages are mapped at the start.
        let at = match kind >> 3 & 3 {
            0 => input.word(&PLACES),
            _ => u64::from(input.u16()),
        };
        let len = if kind & 4 != 0 { usize::from(input.u16()) } else { usize::from(input.u8() % 17) };
        Self { who: Requester::new(tag), at: Iova(at), len, kind: kind & 3 }
    }

    fn make(&self, smmu: &dyn DmaPort) {
        let _ = match self.kind {
            0 => smmu.write(&self.who, self.at, &vec![0xa5; self.len]),
            1 => smmu.pin(&self.who, self.at, self.len, Dir::Write).map(|pinned| {
                assert_eq!(pinned.pieces.iter().map(|piece| piece.1).sum::<usize>(), self.len);
            }),
            _ => smmu.read(&self.who, self.at, &mut vec![0; self.len]),
        };
    }
}

/// Accesses under way, each on its thread.
#[derive(Default)]
struct Traffic<'s> {
    running: Vec<(ScopedJoinHandle<'s, ()>, Arc<Waiter>)>,
    threads: usize,
}

impl<'s> Traffic<'s> {
    fn forget_ended(&mut self) {
        let (ended, running) =
            std::mem::take(&mut self.running).into_iter().partition(|(t, _)| t.is_finished());
        self.running = running;
        join(ended);
    }

    /// Starts an access and goes on once it has ended or stalled, so that an input means the same each time.
    fn start<'e>(&mut self, scope: &'s Scope<'s, 'e>, machine: &Machine, mut access: Access) {
        self.threads += 1;
        let waits = machine.waits();
        let (waiter, port) = (Arc::clone(&access.who.waiter), machine.port(&mut access));
        let thread = scope.spawn(move || access.make(&*port));
        let mut pause = Duration::from_micros(10);
        while !thread.is_finished() && machine.waits() == waits {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        self.running.push((thread, waiter));
    }
}

fn join(threads: Vec<(ScopedJoinHandle<'_, ()>, Arc<Waiter>)>) {
    for (thread, _) in threads {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Registers, commands, tables that change under way, and DMA that may stall.
pub fn smmu(data: &[u8]) {
    run(data, false);
}

/// The same with a function that caches translations and requests pages, which a hostile guest answers.
pub fn ats(data: &[u8]) {
    run(data, true);
}

fn run(data: &[u8], has_function: bool) {
    let mut input = Input::new(data);
    let (mut machine, may_stall) = Machine::new(&mut input, has_function);
    let smmu = Arc::clone(&machine.smmu);
    thread::scope(|scope| {
        let mut traffic = Traffic::default();
        while !input.is_empty() && traffic.threads < MOST_THREADS {
            match input.u8() % 16 {
                0 | 1 => mmio(&mut input, WINDOW_BYTES, &machine.registers, &*smmu),
                2 => scribble(&machine.ram, &mut input, &PLACES),
                3 | 4 => {
                    // A word of the tables that are in use.
                    let table = input.choose(&[STRTAB, CDTAB, PGD, PGD + 0x1000, PGD + 0x2000, PGD + 0x3000]);
                    let at = table + u64::from(input.u8()) * 8;
                    let old = machine.ram.load_u64(Pa(at)).unwrap_or(0);
                    let new =
                        if input.u8() & 1 == 0 { old ^ 1 << (input.u8() % 64) } else { input.word(&PLACES) };
                    put(&machine.ram, at, &[new]);
                }
                5..9 => machine.command(&mut input),
                9 => {
                    // The reader of the event queue.
                    let prod = r32(&smmu, 0x1_00a8);
                    w32(&*smmu, 0x1_00ac, prod);
                }
                10 => {
                    // The handler of global errors.
                    let active = r32(&smmu, 0x60);
                    w32(&*smmu, 0x64, active);
                }
                12 | 13 if has_function => {
                    if let Some(function) = &machine.function {
                        function.disturb(&smmu, &mut input);
                    }
                }
                11 if !traffic.running.is_empty() => {
                    let index = input.below(traffic.running.len());
                    traffic.running[index].1.cancel();
                }
                _ => {
                    let access = Access::new(&mut input);
                    if !may_stall && !has_function {
                        access.make(&*smmu);
                        continue;
                    }
                    traffic.forget_ended();
                    if traffic.running.len() == MOST_STALLED {
                        traffic.running[0].1.cancel();
                        join(vec![traffic.running.remove(0)]);
                    }
                    traffic.start(scope, &machine, access);
                }
            }
        }
        // The devices give up, in whatever state the guest has left the SMMU.
        for (_, waiter) in &traffic.running {
            waiter.cancel();
        }
        join(traffic.running);
    });
    let _ = machine.msi.take();
}

fn r32(smmu: &Smmu, offset: u64) -> u32 {
    let mut data = [0; 4];
    let _ = smmu.mmio_read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// An SMMU that has executed commands and had accesses is saved; after a reset it takes up a state by `restore`; if it does, it is used.
pub(super) fn with_saved(input: &mut Input<'_>, restore: impl FnOnce(&mut Input<'_>, Value, &Smmu) -> bool) {
    let (mut machine, _) = Machine::new(input, false);
    for _ in 0..input.u8() % 8 {
        machine.command(input);
    }
    given_up(&machine, input);
    machine.smmu.quiesce();
    let state = machine.smmu.save();
    machine.smmu.reset();
    if restore(input, state, &machine.smmu) {
        machine.smmu.resume();
        for _ in 0..8 {
            machine.command(input);
            given_up(&machine, input);
        }
    }
    let _ = machine.smmu.save();
}

/// An access that its device gives up as soon as it waits.
fn given_up(machine: &Machine, input: &mut Input<'_>) {
    let access = Access::new(input);
    access.who.waiter.cancel();
    access.make(&*machine.smmu);
}
