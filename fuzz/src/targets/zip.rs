//! HiSilicon queue manager and ZIP engine, without threads: the input says when they work.

use std::sync::Arc;

use devices::hisi::qm::regs::QmReg;
use devices::hisi::qm::{Limits, WorkerMemory};
use devices::hisi::zip::regs::ZipReg;
use devices::hisi::zip::{Zip, ZipEngine};
use devices::hisi::{Accelerator, FunctionWiring, Translation};
use devices::pci::PciFunction;
use hw::schedule::Stepped;
use hw::{Clock, DirectPort, LifeCycle, ManualAlarms, ManualClock, Pa, Ram, RecordingMsiSink, StreamId};
use serde_json::Value;

use crate::input::Input;
use crate::machine::{DOORBELL, PLACES, RAM, access, offsets, put, ram, scribble};

const BAR2_BYTES: u64 = 4 << 20;

// Where the driver that comes before the hostile one puts its things.
const EQ: u64 = RAM + 0x1000;
const AEQ: u64 = RAM + 0x4000;
const TABLES: u64 = RAM + 0x6000;
const CONTEXT: u64 = RAM + 0x7000;
const RINGS: u64 = RAM + 0x1_0000;
const RING_BYTES: u64 = 0x2_0000;
const SOURCE: u64 = RAM + 0x10_0000;
const DESTINATION: u64 = RAM + 0x11_0000;
const LISTS: u64 = RAM + 0x12_0000;
const STREAMS: u64 = RAM + 0x13_0000;
/// Queues of the function, and of those the ones that are started: half compress, half decompress.
const QUEUES: u16 = 8;
const STARTED: u16 = 4;
/// Entries of a submission ring.
const DEPTH: u16 = 16;

struct Machine {
    zip: Arc<Zip>,
    bench: WorkerMemory<ZipEngine>,
    ram: Arc<Ram>,
    msi: Arc<RecordingMsiSink>,
    clock: Arc<ManualClock>,
    alarms: Arc<ManualAlarms>,
    tails: [u16; STARTED as usize],
}

impl Machine {
    fn new() -> Self {
        Self::on(ram())
    }

    fn on(ram: Arc<Ram>) -> Self {
        let msi = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
        let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
        let zip = Zip::new(FunctionWiring {
            stream: StreamId(8),
            dma: Arc::new(DirectPort::new(ram.clone(), msi.clone())),
            translation: Translation::Untranslated,
            clock: clock.clone(),
            alarms: alarms.clone(),
            scheduler: Arc::new(Stepped),
            limits: Limits { workers: 0, mailbox_patience_ns: 0 },
            faults: hw::Faults::default(),
            trace: hw::Trace::default(),
            errors: hw::GuestErrors::default(),
        })
        .expect("nothing is started");
        let bench = zip.qm().worker_memory();
        Self { zip, bench, ram, msi, clock, alarms, tails: [0; STARTED as usize] }
    }

    fn write(&self, offset: u64, value: u64, len: usize) {
        let _ = self.zip.bar_write(2, offset, &value.to_le_bytes()[..len]);
    }

    /// Works until there is nothing to do. What can be due is bounded by the rings.
    fn run(&mut self) {
        let mut steps = 0_u32;
        while self.zip.qm().step(&mut self.bench) {
            steps += 1;
            assert!(steps < 100_000, "the accelerator never comes to rest");
        }
    }

    fn mailbox(&mut self, command: u16, qn: u16, base: u64) {
        let mut message = [0; 16];
        message[..2].copy_from_slice(&(command | 0x2000).to_le_bytes());
        message[2..4].copy_from_slice(&qn.to_le_bytes());
        message[4..12].copy_from_slice(&base.to_le_bytes());
        let _ = self.zip.bar_write(2, 0x300, &message);
    }

    /// What the Linux driver does before there is a queue: the bus, the function table, the event rings.
    fn bring_up(&mut self) {
        let config = self.zip.config();
        let _ = config.write(0x4, &[6, 0]);
        let byte = |at: u64| {
            let mut byte = [0];
            config.read(at, &mut byte);
            u64::from(byte[0])
        };
        let mut at = byte(0x34);
        while at != 0 {
            if byte(at) == 5 {
                let _ = config.write(at + 4, &DOORBELL.to_le_bytes());
                let _ = config.write(at + 2, &[0x21, 0]);
            }
            at = byte(at + 1);
        }
        let _ = config.write(0x106, &[1, 0]);
        for (kind, value) in [(0, u64::from(QUEUES - 1) << 45 | 1 << 44), (1, 1 << 28)] {
            for (offset, word) in
                [(0x58, 0), (0x5c, kind), (0x60, 0), (0x64, value), (0x68, value >> 32), (0x6c, 0), (0x54, 1)]
            {
                self.write(0x10_0000 + offset, word, 4);
            }
        }
        for (command, ring, depth) in [(2, EQ, 0x1_07ff), (3, AEQ, 0x1_03ff)] {
            put(&self.ram, CONTEXT, &[ring << 32, ring >> 32, 0, depth]);
            self.mailbox(command, 0, CONTEXT);
            self.run();
        }
        self.mailbox(4, 0, TABLES);
        self.run();
        self.mailbox(5, 0, TABLES + 0x800);
        self.run();
        self.write(0x2000, 3 << 12, 8);
        self.write(0x2000, 2 << 12, 8);
        self.write(0xc, 0, 4);
        self.write(0x4, 0, 4);
        for qn in 0..STARTED {
            self.start_queue(qn, false);
        }
    }

    /// Contexts of a queue: SQC and CQC, into the mailbox.
    fn start_queue(&mut self, qn: u16, with_pasid: bool) {
        let ring = RINGS + u64::from(qn) * RING_BYTES;
        let pasid = u64::from(with_pasid) << 55 | u64::from(qn) << 32;
        let depth = u64::from(DEPTH - 1);
        let sqc = [
            ring << 32,
            ring >> 32 | (0x7000 | depth) << 32,
            pasid,
            u64::from(qn) | u64::from(0x10 | ((qn % 2) << 8)) << 16,
        ];
        let cq = ring + RING_BYTES / 2;
        put(&self.ram, CONTEXT, &sqc);
        self.mailbox(0, qn, CONTEXT);
        self.run();
        put(&self.ram, CONTEXT, &[cq << 32, cq >> 32 | (0x4000 | depth) << 32, pasid, 3]);
        self.mailbox(1, qn, CONTEXT);
        self.run();
    }

    /// A scatter list at `at` over `data`, and then perhaps something wrong in it.
    fn scatter_list(&self, input: &mut Input<'_>, at: u64, data: u64) {
        let entries = u64::from(input.u8() % 8);
        // Next, entries in all and here; each entry has an address and a length.
        put(&self.ram, at, &[0, entries | entries << 16]);
        for i in 0..entries {
            put(&self.ram, at + 64 + 32 * i, &[data + 0x1000 * i, 0, input.u16().into()]);
        }
        if input.u8() & 1 != 0 {
            put(&self.ram, at + 8 * u64::from(input.u8() % 48), &[input.word(&[at, data, LISTS])]);
        }
    }

    /// A request as the driver makes it, with data from the input, and then perhaps something wrong in it.
    fn submit(&mut self, input: &mut Input<'_>) {
        let qn = u16::from(input.u8()) % STARTED;
        let how = input.u8();
        let len = usize::from(input.u8()) << (how & 3);
        let mut source = match input.u8() % 5 {
            // Headers of gzip and zlib.
            0 => vec![0x1f, 0x8b, 8, input.u8() & 0x1f, 0, 0, 0, 0, 0, 3],
            1 => vec![0x78, 0x9c],
            _ => Vec::new(),
        };
        source.extend(input.bytes(len));
        let source_len = source.len().max(usize::from(how >> 2 & 1) << 12) as u32;
        let _ = self.ram.write(Pa(SOURCE), &source);
        let is_sgl = how & 8 != 0;
        let (from, to) = if is_sgl { (LISTS, LISTS + 0x1000) } else { (SOURCE, DESTINATION) };
        if is_sgl {
            self.scatter_list(input, LISTS, SOURCE);
            self.scatter_list(input, LISTS + 0x1000, DESTINATION);
        }
        let mut sqe = [0_u32; 32];
        let mut put64 = |at: usize, value: u64| {
            sqe[at] = value as u32;
            sqe[at + 1] = (value >> 32) as u32;
        };
        put64(18, from);
        put64(20, to);
        put64(22, STREAMS + 0x4000 * u64::from(qn));
        sqe[4] = source_len;
        sqe[14] = if how & 0x10 != 0 { input.u8().into() } else { 0x8000 };
        let stream = u32::from(input.u8() & 7) << 25;
        sqe[7] = stream | 3 << 28;
        sqe[9] = u32::from(1 + input.u8() % 3) | u32::from(is_sgl) << 8 | u32::from(input.u8() % 5) << 12;
        if how & 0x20 != 0 {
            // Mutations of what is there.
            for _ in 0..1 + input.u8() % 4 {
                sqe[input.below(32)] = input.word(&PLACES) as u32;
            }
        }
        let tail = self.tails[usize::from(qn)];
        let bytes: Vec<u8> = sqe.iter().flat_map(|word| word.to_le_bytes()).collect();
        let _ = self.ram.write(Pa(RINGS + u64::from(qn) * RING_BYTES + 128 * u64::from(tail)), &bytes);
        let tail = (tail + 1) % DEPTH;
        self.tails[usize::from(qn)] = tail;
        self.write(0x1000, u64::from(tail) << 32 | u64::from(qn), 8);
        if how & 0x40 == 0 {
            self.run();
            // The driver has seen the completion.
            self.write(0x1000, 1 << 48 | u64::from(tail) << 32 | 1 << 12 | u64::from(qn), 8);
        }
    }

    /// A context in memory, mostly wrong, and the mailbox command for it.
    fn context(&mut self, input: &mut Input<'_>) {
        let words: [u64; 4] = std::array::from_fn(|_| input.word(&PLACES));
        put(&self.ram, CONTEXT, &words);
        let command = u16::from(input.u8() % 9) | u16::from(input.u8() & 1) << 14;
        let base = if input.u8() & 7 == 0 { input.word(&PLACES) } else { CONTEXT };
        let qn = u16::from(input.u8()) % (QUEUES + 2);
        self.mailbox(command, qn, base);
    }
}

/// Registers, mailbox, doorbells, contexts, requests and their data; the device works when the input says so.
pub fn zip(data: &[u8]) {
    let mut input = Input::new(data);
    let mut machine = Machine::new();
    if input.u8() & 0x80 == 0 {
        machine.bring_up();
    }
    let registers: Vec<u64> = [offsets::<QmReg>(), offsets::<ZipReg>()].concat();
    while !input.is_empty() {
        match input.u8() % 16 {
            0 | 1 => access(
                &mut input,
                BAR2_BYTES,
                &registers,
                |offset, data| machine.zip.bar_read(2, offset, data),
                |offset, data| machine.zip.bar_write(2, offset, data),
            ),
            2 => {
                let config: Vec<u64> = (0..0x120).step_by(4).collect();
                access(
                    &mut input,
                    0x1000,
                    &config,
                    |offset, data| {
                        machine.zip.config_read(offset, data);
                        Ok(())
                    },
                    |offset, data| {
                        let _ = machine.zip.config_write(offset, data);
                        Ok(())
                    },
                );
            }
            3 => scribble(&machine.ram, &mut input, &[RINGS, EQ, SOURCE, LISTS, STREAMS, STREAMS + 0x4000]),
            4 => machine.context(&mut input),
            5 => {
                let (qn, with_pasid) = (u16::from(input.u8()) % QUEUES, input.u8() & 3 == 0);
                machine.start_queue(qn, with_pasid);
                if let Some(tail) = machine.tails.get_mut(usize::from(qn)) {
                    *tail = 0;
                }
            }
            6 => {
                let bell = input.u64() & 0xffff_ffff_ffff_f00f | u64::from(input.u8() % 4) << 12;
                machine.write(input.choose(&[0x1000, 0x2000]), bell, 8);
            }
            7 => machine.run(),
            8 => drop(machine.zip.qm().step(&mut machine.bench)),
            9 => {
                let ns = u64::from(input.u32());
                machine.clock.advance_ns(ns.min(u64::MAX - machine.clock.now_ns()));
                machine.alarms.fire();
            }
            10 if input.u8() & 15 == 0 => {
                machine.zip.function_reset();
                machine.bring_up();
            }
            _ => machine.submit(&mut input),
        }
    }
    machine.run();
    machine.zip.shut_down();
    let _ = machine.msi.take();
}

/// A device with queues and commands in them is saved; a new one on the same memory takes up a state by `restore`; if it does, it is used.
pub(super) fn with_saved(input: &mut Input<'_>, restore: impl FnOnce(&mut Input<'_>, Value, &Zip) -> bool) {
    let mut before = Machine::new();
    before.bring_up();
    for _ in 0..input.u8() % 8 {
        before.submit(input);
    }
    before.zip.qm().step(&mut before.bench);
    before.zip.quiesce();
    let mut after = Machine::on(Arc::clone(&before.ram));
    after.tails = before.tails;
    after.zip.quiesce();
    if restore(input, before.zip.save(), &after.zip) {
        after.zip.resume();
        after.run();
        for _ in 0..8 {
            after.submit(input);
            after.run();
        }
    }
    let _ = after.zip.save();
    after.zip.shut_down();
    before.zip.shut_down();
}
