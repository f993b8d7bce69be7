//! The device as its driver sees it, with a machine around it that has RAM, a doorbell and, for some, an agent.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hw::ats::{
    AtsRefusal, AtsTranslation, PageRequest, PageResponseCode, PrgIndex, Stamp, TranslatedFault,
    TranslationRequest,
};
use hw::mmio::value_of;
use hw::schedule::{Stepped, Work};
use hw::{DeviceId, Dir, DirectPort, DmaFault, Iova, Pa, Pasid, Pinned, Ram, RecordingMsiSink};
use proptest::prelude::*;

use super::regs::{AtsInfo, completion, opcode};
use super::*;

mod life;
mod saved;
mod schedule;

const RAM: u64 = 0x4000_0000;
const DOORBELL: u64 = 0x809_0040;
/// Takes no access.
const HOLE: u64 = 0x9000_0000;
/// Accesses to this page wait until somebody allows them or gives up.
const STALLING: u64 = 0xa000_0000;
const STREAM: StreamId = StreamId(8);

const DT_FEATURES: u64 = DmaTestReg::DT_FEATURES.offset();
const DT_CTRL: u64 = DmaTestReg::DT_CTRL.offset();
const DT_INV_COUNT: u64 = DmaTestReg::DT_INV_COUNT.offset();
const DT_INV_HELD: u64 = DmaTestReg::DT_INV_HELD.offset();
const DT_INV_ADDRESS: u64 = DmaTestReg::DT_INV_ADDRESS.offset();
const DT_INV_INFO: u64 = DmaTestReg::DT_INV_INFO.offset();
const DT_INV_ANSWER: u64 = DmaTestReg::DT_INV_ANSWER.offset();
const DT_PRG_COUNT: u64 = DmaTestReg::DT_PRG_COUNT.offset();
const DT_PRG_INFO: u64 = DmaTestReg::DT_PRG_INFO.offset();
const DT_PRG_PASID: u64 = DmaTestReg::DT_PRG_PASID.offset();
const CH_COMMAND: u64 = DmaTestReg::CH_COMMAND.offset();
const CH_STATUS: u64 = DmaTestReg::CH_STATUS.offset();
const CH_TAG: u64 = DmaTestReg::CH_TAG.offset();
const CH_LENGTH: u64 = DmaTestReg::CH_LENGTH.offset();
const CH_ADDRESS: u64 = DmaTestReg::CH_ADDRESS.offset();
const CH_TARGET: u64 = DmaTestReg::CH_TARGET.offset();
const CH_DATA: u64 = DmaTestReg::CH_DATA.offset();
const CH_FAULT: u64 = DmaTestReg::CH_FAULT.offset();
const CH_BYTES: u64 = DmaTestReg::CH_BYTES.offset();
const CH_GROUP: u64 = DmaTestReg::CH_GROUP.offset();
const CH_ATS_ADDRESS: u64 = DmaTestReg::CH_ATS_ADDRESS.offset();
const CH_ATS_INFO: u64 = DmaTestReg::CH_ATS_INFO.offset();
const CH_COUNT: u64 = DmaTestReg::CH_COUNT.offset();
const CH_GIVE_UP: u64 = DmaTestReg::CH_GIVE_UP.offset();

const DONE: u32 = 2;
const ABORTED: u32 = 4;
const GIVEN_UP: u32 = 8;
const BAD_COMMAND: u32 = 0x10;
const MISMATCH: u32 = 0x20;
const DROPPED: u32 = 0x40;
const MESSAGE: u32 = 1 << 8;

/// RAM, a hole, and a page whose accesses wait. Notes the tag of the last access.
struct Port {
    direct: DirectPort,
    is_mapped: AtomicBool,
    last: Mutex<Option<DmaTag>>,
    /// Happens once, after a write.
    reaction: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Port {
    fn pass(&self, who: &Requester, at: Iova) -> Result<Iova, DmaFault> {
        *self.last.lock().unwrap() = Some(who.tag);
        if at.0 & !0xfff != STALLING {
            return Ok(at);
        }
        who.waiter.wait(|| self.is_mapped.load(Ordering::SeqCst).then_some(()))?;
        Ok(Iova(RAM + (at.0 & 0xfff)))
    }
}

impl DmaPort for Port {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.direct.read(who, self.pass(who, at)?, out)
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.direct.write(who, self.pass(who, at)?, data)?;
        let reaction = self.reaction.lock().unwrap().take();
        if let Some(react) = reaction {
            react();
        }
        Ok(())
    }

    fn pin(&self, _: &Requester, at: Iova, _: usize, _: Dir) -> Result<Pinned<'_>, DmaFault> {
        Err(DmaFault::Aborted(at))
    }
}

/// An agent that grants the lower half of addresses and writes down what it hears.
#[derive(Default)]
struct Agent {
    requests: Mutex<Vec<PageRequest>>,
    completed: Mutex<Vec<(StreamId, InvalidateTag)>>,
}

impl AtsPort for Agent {
    fn attach(&self, _: StreamId, _: Weak<dyn AtsEndpoint>) {}

    fn request_translation(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        match request.address.0 >> 62 {
            0 => Ok(AtsTranslation {
                address: Pa(RAM),
                size_log2: 14,
                read: true,
                write: !request.no_write,
                execute: request.tag.execute,
                privileged: request.tag.privileged,
                global: false,
                untranslated_only: false,
            }),
            1 => Err(AtsRefusal::UnsupportedRequest),
            _ => Err(AtsRefusal::CompleterAbort),
        }
    }

    fn read_translated_if(
        &self,
        _: StreamId,
        _: Pa,
        out: &mut [u8],
        _: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        out.fill(0x5a);
        Ok(())
    }

    fn write_translated_if(
        &self,
        _: StreamId,
        at: Pa,
        _: &[u8],
        _: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        Err(DmaFault::Aborted(Iova(at.0)).into())
    }

    fn await_translated(&self) {}

    fn request_page(&self, request: &PageRequest) {
        self.requests.lock().unwrap().push(*request);
    }

    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag) {
        self.completed.lock().unwrap().push((stream, tag));
    }
}

/// Real threads, and a host that gives only so many.
struct Threads(Mutex<Vec<std::thread::JoinHandle<()>>>, usize);

impl Scheduler for Threads {
    fn spawn(&self, _name: &'static str, worker: Work) -> io::Result<()> {
        let mut threads = self.0.lock().unwrap();
        if threads.len() == self.1 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        threads.push(std::thread::spawn(worker));
        Ok(())
    }
}

struct Bench {
    device: Arc<DmaTest>,
    ram: Arc<Ram>,
    msi: Arc<RecordingMsiSink>,
    port: Arc<Port>,
    agent: Arc<Agent>,
    threads: Option<Arc<Threads>>,
}

impl Bench {
    /// A bus master with PASIDs, stepped by the test, in front of an agent.
    fn new() -> Self {
        Self::with(None, true)
    }

    fn threaded() -> Self {
        Self::hiring(usize::MAX).unwrap()
    }

    /// On a host that gives so many threads.
    fn hiring(most: usize) -> io::Result<Self> {
        Self::try_with(Some(Arc::new(Threads(Mutex::default(), most))), true)
    }

    fn with(threads: Option<Arc<Threads>>, has_agent: bool) -> Self {
        Self::try_with(threads, has_agent).unwrap()
    }

    fn try_with(threads: Option<Arc<Threads>>, has_agent: bool) -> io::Result<Self> {
        Self::powered_on(threads, has_agent).inspect(Self::enable)
    }

    fn powered_on(threads: Option<Arc<Threads>>, has_agent: bool) -> io::Result<Self> {
        let Some(threads) = threads else { return Self::scheduled(Arc::new(Stepped), has_agent) };
        let mut bench = Self::scheduled(threads.clone(), has_agent)?;
        bench.threads = Some(threads);
        Ok(bench)
    }

    /// After power-on, its workers run by a scheduler.
    fn scheduled(scheduler: Arc<dyn Scheduler>, has_agent: bool) -> io::Result<Self> {
        let ram = Arc::new(Ram::new(&[(Pa(RAM), 0x10_0000)]).unwrap());
        let msi = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
        let direct = DirectPort::new(ram.clone(), msi.clone());
        let port = Arc::new(Port {
            direct,
            is_mapped: AtomicBool::new(false),
            last: Mutex::default(),
            reaction: Mutex::default(),
        });
        let agent = Arc::new(Agent::default());
        let device = DmaTest::new(DmaTestWiring {
            stream: STREAM,
            dma: port.clone(),
            ats: has_agent.then(|| agent.clone() as Arc<dyn AtsPort>),
            scheduler,
        })?;
        Ok(Self { device, ram, msi, port, agent, threads: None })
    }

    fn memory(&self) -> Vec<u8> {
        let mut memory = vec![0; 0x10_0000];
        self.ram.read(Pa(RAM), &mut memory).unwrap();
        memory
    }

    /// A bus master with PASIDs and, in front of an agent, translation services.
    fn enable(&self) {
        self.config(4, &[6, 0]);
        let pasid = self.extended(0x1b);
        self.config(pasid + 6, &[7, 0]);
        if self.device.ats.is_some() {
            self.config(self.extended(0x0f) + 6, &[0, 0x80]);
            self.config(self.extended(0x13) + 4, &[1, 0]);
        }
    }

    /// Starts a command of a channel.
    fn start(&self, channel: u64, opcode: u8, address: u64, flags: u32) {
        self.w64(CH_ADDRESS + 0x100 * channel, address);
        self.w32(CH_LENGTH + 0x100 * channel, 8);
        self.w32(CH_COMMAND + 0x100 * channel, u32::from(opcode) | flags);
    }

    /// The page whose accesses wait is there.
    fn serve(&self) {
        self.port.is_mapped.store(true, Ordering::SeqCst);
        for channel in &self.device.lock().channels {
            channel.waiter.notify();
        }
    }

    fn config(&self, offset: u64, data: &[u8]) {
        let _ = self.device.config_write(offset, data);
    }

    fn dword(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.config().read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn extended(&self, id: u32) -> u64 {
        let mut at = 0x100;
        while self.dword(at) & 0xffff != id {
            at = u64::from(self.dword(at) >> 20);
            assert_ne!(at, 0, "no such capability");
        }
        at
    }

    /// The MSI capability, enabled with all vectors.
    fn enable_messages(&self) -> u64 {
        let mut at = u64::from(self.dword(0x34) & 0xff);
        while self.dword(at) & 0xff != 5 {
            at = u64::from(self.dword(at) >> 8 & 0xff);
        }
        self.config(at + 4, &DOORBELL.to_le_bytes());
        self.config(at + 12, &[0x40, 0]);
        self.config(at + 2, &[0x31, 0]);
        at
    }

    fn read(&self, offset: u64, len: usize) -> u64 {
        let mut data = [0; 8];
        self.device.bar_read(0, offset, &mut data[..len]).unwrap();
        value_of(&data[..len])
    }

    fn r32(&self, offset: u64) -> u32 {
        self.read(offset, 4) as u32
    }

    fn w32(&self, offset: u64, value: u32) {
        self.device.bar_write(0, offset, &value.to_le_bytes()).unwrap();
    }

    fn w64(&self, offset: u64, value: u64) {
        self.device.bar_write(0, offset, &value.to_le_bytes()).unwrap();
    }

    /// Starts a command of channel 0 and carries it out; its status.
    fn command(&self, opcode: u8, address: u64, length: u32) -> u32 {
        self.w64(CH_ADDRESS, address);
        self.w32(CH_LENGTH, length);
        self.w32(CH_COMMAND, opcode.into());
        assert_eq!(self.r32(CH_STATUS), 1, "busy");
        assert!(self.device.step());
        self.r32(CH_STATUS)
    }

    fn until(&self, mut condition: impl FnMut() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(20), "never came");
            std::thread::yield_now();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.device.shut_down();
        let Some(threads) = &self.threads else { return };
        for thread in threads.0.lock().unwrap().drain(..) {
            // Its panic has failed the test already.
            let _ = thread.join();
        }
    }
}

#[test]
fn function_is_what_its_document_says() {
    let bench = Bench::new();
    assert_eq!(bench.dword(0), 0x10f0_1af4);
    assert_eq!(bench.dword(8), 0xff00_0001);
    assert_eq!(bench.dword(0x2c), 0x10f0_1af4);
    assert_eq!(bench.read(0, 8), 1 << 32 | 0x414d_4454);
    assert_eq!(bench.r32(DT_FEATURES), 0x308);
    assert_eq!(Bench::with(None, false).r32(DT_FEATURES), 8);
    let pasid = bench.extended(0x1b);
    assert_eq!(bench.dword(pasid + 4) & 0xffff, 20 << 8 | 6, "20 bits, execute, privileged");
}

#[test]
fn write_and_read_move_up_to_eight_bytes() {
    let bench = Bench::new();
    bench.w64(CH_DATA, 0x8877_6655_4433_2211);
    assert_eq!(bench.command(opcode::WRITE, RAM + 0x10, 3), DONE);
    assert_eq!(bench.ram.load_u64(Pa(RAM + 0x10)).unwrap(), 0x33_2211);
    assert_eq!(bench.command(opcode::READ, RAM + 0x10, 8), DONE);
    assert_eq!((bench.read(CH_DATA, 8), bench.r32(CH_BYTES)), (0x33_2211, 8));
    assert_eq!(bench.r32(CH_COUNT), 2);
    for length in [0, 9] {
        assert_eq!(bench.command(opcode::READ, RAM, length), DONE | BAD_COMMAND);
        assert_eq!(bench.command(opcode::WRITE, RAM, length), DONE | BAD_COMMAND);
    }
}

#[test]
fn fill_copy_and_check_go_through_a_range() {
    let bench = Bench::new();
    bench.w64(CH_DATA, 0x0706_0504_0302_0100);
    assert_eq!(bench.command(opcode::FILL, RAM + 0xffc, 0x2001), DONE);
    assert_eq!(bench.command(opcode::CHECK, RAM + 0xffc, 0x2001), DONE);
    bench.w64(CH_TARGET, RAM + 0x8ffe);
    assert_eq!(bench.command(opcode::COPY, RAM + 0xffc, 0x2001), DONE);
    assert_eq!(bench.r32(CH_BYTES), 0x2001);
    assert_eq!(bench.command(opcode::CHECK, RAM + 0x8ffe, 0x2001), DONE);
    bench.ram.write(Pa(RAM + 0x9000), &[0xff]).unwrap();
    assert_eq!(bench.command(opcode::CHECK, RAM + 0x8ffe, 0x2001), DONE | MISMATCH);
    assert_eq!((bench.read(CH_FAULT, 8), bench.r32(CH_BYTES)), (RAM + 0x9000, 2));
}

#[test]
fn aborted_command_tells_the_address_and_the_bytes_before_it() {
    let bench = Bench::new();
    let end = RAM + 0x10_0000;
    assert_eq!(bench.command(opcode::FILL, end - 0x1004, 0x2000), DONE | ABORTED);
    assert_eq!((bench.read(CH_FAULT, 8), bench.r32(CH_BYTES)), (end, 0x1004));
    bench.w64(CH_TARGET, end - 8);
    assert_eq!(bench.command(opcode::COPY, RAM, 0x100), DONE | ABORTED);
    assert_eq!((bench.read(CH_FAULT, 8), bench.r32(CH_BYTES)), (end, 8));
    assert_eq!(bench.command(opcode::READ, HOLE, 4), DONE | ABORTED);
    assert_eq!(bench.read(CH_FAULT, 8), HOLE);
    assert_eq!(bench.command(opcode::READ, RAM, 4), DONE);
    assert_eq!(bench.read(CH_FAULT, 8), 0);
}

#[test]
fn tag_goes_with_every_access() {
    let bench = Bench::new();
    let tag_of = |word: u32| {
        bench.w32(CH_TAG, word);
        bench.command(opcode::READ, RAM, 4);
        bench.port.last.lock().unwrap().unwrap()
    };
    let plain = DmaTag::untagged(STREAM);
    let process = DmaTag::process(STREAM, Pasid::new(0xf_fffe).unwrap());
    assert_eq!(tag_of(0x6000_0005), plain, "privilege and execute go only with a PASID");
    assert_eq!(tag_of(0x800f_fffe), process);
    assert_eq!(tag_of(0xa00f_fffe), DmaTag { execute: true, ..process });
    assert_eq!(tag_of(0xc00f_fffe), DmaTag { privileged: true, ..process });
}

#[test]
fn requests_need_bus_master_enable_and_pasid_enable() {
    let bench = Bench::new();
    let pasid = bench.extended(0x1b);
    bench.config(pasid + 6, &[0, 0]);
    assert_eq!(bench.command(opcode::READ, RAM, 4), DONE);
    bench.w32(CH_TAG, 0x8000_0001);
    for opcode in [opcode::READ, opcode::TRANSLATE, opcode::PAGE_REQUEST] {
        assert_eq!(bench.command(opcode, RAM, 4), DONE | ABORTED);
    }
    bench.config(4, &[2, 0]);
    bench.w32(CH_TAG, 0);
    for opcode in [opcode::READ, opcode::TRANSLATE, opcode::READ_TRANSLATED] {
        assert_eq!(bench.command(opcode, RAM, 4), DONE | ABORTED);
    }
}

#[test]
fn services_need_their_own_enables() {
    let bench = Bench::new();
    let (ats, page_request) = (bench.extended(0x0f), bench.extended(0x13));
    bench.w32(CH_TAG, 0x8000_0001);
    bench.config(ats + 6, &[0, 0]);
    for opcode in [opcode::TRANSLATE, opcode::READ_TRANSLATED, opcode::WRITE_TRANSLATED] {
        assert_eq!(bench.command(opcode, RAM, 4), DONE | ABORTED);
    }
    assert_eq!(bench.command(opcode::PAGE_REQUEST, RAM, 4), DONE);
    // What fails ends page requests until software has cleared it.
    let code = PageResponseCode::ResponseFailure;
    bench.device.page_response(&PageResponse { pasid: None, index: PrgIndex::new(0), code });
    assert_eq!(bench.dword(page_request + 4) >> 16 & 0x103, 1);
    assert_eq!(bench.command(opcode::PAGE_REQUEST, RAM, 4), DONE | ABORTED);
    bench.config(page_request + 6, &[1, 0]);
    assert_eq!(bench.command(opcode::PAGE_REQUEST, RAM, 4), DONE);
    bench.config(page_request + 4, &[0, 0]);
    assert_eq!(bench.dword(page_request + 4) >> 16 & 0x103, 0x100, "stopped");
    for opcode in [opcode::PAGE_REQUEST, opcode::STOP_MARKER] {
        assert_eq!(bench.command(opcode, RAM, 4), DONE | ABORTED);
    }
}

#[test]
fn command_to_a_busy_channel_is_dropped_and_other_channels_take_theirs() {
    let bench = Bench::new();
    bench.w32(CH_COMMAND, opcode::READ.into());
    bench.w32(CH_COMMAND, opcode::FILL.into());
    assert_eq!(bench.r32(CH_STATUS), 1 | DROPPED);
    bench.w32(CH_COMMAND + 0x700, opcode::FILL.into());
    assert_eq!(bench.r32(CH_STATUS + 0x700), 1);
    while bench.device.step() {}
    assert_eq!(bench.r32(CH_STATUS), DONE | BAD_COMMAND | DROPPED, "a read of no bytes");
    assert_eq!(bench.r32(CH_STATUS + 0x700), DONE);
}

#[test]
fn unknown_opcodes_are_bad_commands() {
    let bench = Bench::new();
    for opcode in [0, 11, 0xff] {
        assert_eq!(bench.command(opcode, RAM, 4), DONE | BAD_COMMAND);
    }
    let alone = Bench::with(None, false);
    for opcode in opcode::TRANSLATE..=opcode::STOP_MARKER {
        assert_eq!(alone.command(opcode, RAM, 4), DONE | BAD_COMMAND, "there is no agent");
    }
}

#[test]
fn stalled_channel_holds_nobody_else_and_goes_on_when_it_is_answered() {
    let bench = Bench::threaded();
    let start = |channel: u64, address: u64| {
        bench.w64(CH_ADDRESS + 0x100 * channel, address);
        bench.w32(CH_LENGTH + 0x100 * channel, 8);
        bench.w32(CH_COMMAND + 0x100 * channel, opcode::WRITE.into());
    };
    start(0, STALLING);
    start(1, STALLING + 8);
    start(2, RAM);
    bench.until(|| bench.r32(CH_STATUS + 0x200) == DONE);
    assert_eq!([0, 0x100].map(|channel| bench.r32(CH_STATUS + channel)), [1, 1]);
    bench.w32(CH_GIVE_UP + 0x100, 1);
    bench.until(|| bench.r32(CH_STATUS + 0x100) == DONE | GIVEN_UP);
    bench.port.is_mapped.store(true, Ordering::SeqCst);
    bench.device.lock().channels[0].waiter.notify();
    bench.until(|| bench.r32(CH_STATUS) == DONE);
}

#[test]
fn channels_without_a_thread_of_their_own_are_served_by_the_one_for_messages() {
    assert!(Bench::hiring(0).is_err(), "without that one there is no device");
    for most in [1, 3] {
        let bench = Bench::hiring(most).unwrap();
        bench.enable_messages();
        for channel in (0..CHANNELS as u64).map(|channel| channel * 0x100) {
            bench.w64(CH_ADDRESS + channel, RAM);
            bench.w32(CH_LENGTH + channel, 8);
            bench.w32(CH_COMMAND + channel, u32::from(opcode::WRITE) | MESSAGE);
        }
        bench.until(|| (0..CHANNELS as u64).all(|channel| bench.r32(CH_STATUS + channel * 0x100) == DONE));
    }
}

#[test]
fn stalled_accesses_are_given_up_without_bus_master_enable() {
    let bench = Bench::threaded();
    bench.w64(CH_ADDRESS, STALLING);
    bench.w32(CH_LENGTH, 8);
    bench.w32(CH_COMMAND, opcode::READ.into());
    bench.until(|| bench.port.last.lock().unwrap().is_some());
    bench.config(4, &[2, 0]);
    bench.until(|| bench.r32(CH_STATUS) & 1 == 0);
    assert_eq!(bench.r32(CH_STATUS) & !GIVEN_UP & !ABORTED, DONE);
}

#[test]
fn reset_gives_up_forgets_everything_and_takes_commands_again() {
    let bench = Bench::threaded();
    for reset in [true, false] {
        bench.w64(CH_ADDRESS, STALLING);
        bench.w32(CH_LENGTH, 8);
        bench.w32(CH_COMMAND, u32::from(opcode::READ) | MESSAGE);
        if reset {
            bench.w32(DT_CTRL, 1);
        } else {
            bench.device.function_reset();
        }
        assert_eq!((bench.r32(CH_STATUS), bench.read(CH_ADDRESS, 8), bench.r32(CH_COUNT)), (0, 0, 0));
        bench.w64(CH_ADDRESS, RAM);
        bench.w32(CH_LENGTH, 8);
        bench.w32(CH_COMMAND, opcode::READ.into());
        bench.until(|| bench.r32(CH_STATUS) == DONE);
        assert_eq!(bench.r32(CH_COUNT), 1, "the old command is not counted");
    }
}

#[test]
fn message_of_its_channel_comes_after_the_status() {
    let bench = Bench::new();
    let msi = bench.enable_messages();
    bench.w32(CH_LENGTH + 0x300, 4);
    bench.w64(CH_ADDRESS + 0x300, RAM);
    bench.w32(CH_COMMAND + 0x300, u32::from(opcode::READ) | MESSAGE);
    assert!(bench.device.step());
    assert_eq!(bench.msi.take(), [(DeviceId(8), 0x43)]);
    bench.w32(CH_COMMAND + 0x300, opcode::READ.into());
    assert!(bench.device.step());
    assert_eq!(bench.msi.take(), [], "nobody asked for it");

    bench.config(msi + 0x10, &[8, 0, 0, 0]);
    bench.w32(CH_COMMAND + 0x300, u32::from(opcode::READ) | MESSAGE);
    assert!(bench.device.step());
    assert_eq!(bench.msi.take(), [], "masked");
    bench.config(msi + 0x10, &[0; 4]);
    while bench.device.step() {}
    assert_eq!(bench.msi.take(), [(DeviceId(8), 0x43)]);
}

#[test]
fn message_that_stalls_is_given_up_with_the_device() {
    let bench = Bench::threaded();
    let msi = bench.enable_messages();
    bench.config(msi + 4, &STALLING.to_le_bytes());
    bench.w32(CH_COMMAND, MESSAGE);
    bench.until(|| bench.port.last.lock().unwrap().is_some());
    assert_eq!(bench.r32(CH_STATUS), DONE | BAD_COMMAND);
    // The end of the bench would wait for ever.
}

#[test]
fn translation_request_shows_the_completion() {
    let bench = Bench::new();
    bench.w32(CH_TAG, 0xe000_0001);
    assert_eq!(bench.command(opcode::TRANSLATE, 0x1234, 0), DONE);
    assert_eq!(bench.read(CH_ATS_ADDRESS, 8), RAM);
    assert_eq!(bench.r32(CH_ATS_INFO), 14 << 8 | 0b1111);
    let no_write = u32::from(opcode::TRANSLATE) | 1 << 9;
    bench.w32(CH_COMMAND, no_write);
    bench.device.step();
    assert_eq!(bench.r32(CH_ATS_INFO), 14 << 8 | 0b1101);
    for (address, code) in
        [(1 << 62, completion::UNSUPPORTED_REQUEST), (1 << 63, completion::COMPLETER_ABORT)]
    {
        assert_eq!(bench.command(opcode::TRANSLATE, address, 0), DONE);
        assert_eq!(bench.r32(CH_ATS_INFO), u32::from(AtsInfo::new().with_completion(code)));
    }
}

#[test]
fn translated_accesses_go_to_the_agent() {
    let bench = Bench::new();
    assert_eq!(bench.command(opcode::READ_TRANSLATED, RAM, 4), DONE);
    assert_eq!(bench.read(CH_DATA, 8), 0x5a5a_5a5a);
    assert_eq!(bench.command(opcode::WRITE_TRANSLATED, RAM, 4), DONE | ABORTED);
    assert_eq!(bench.read(CH_FAULT, 8), RAM);
    assert_eq!(bench.command(opcode::WRITE_TRANSLATED, RAM, 9), DONE | BAD_COMMAND);
}

#[test]
fn page_requests_and_their_responses() {
    let bench = Bench::new();
    let pasid = Pasid::new(7).unwrap();
    bench.w32(CH_TAG, 0x8000_0007);
    bench.w32(CH_GROUP, 0x1ff);
    bench.w64(CH_ADDRESS, 0x7000);
    bench.w32(CH_COMMAND, u32::from(opcode::PAGE_REQUEST) | 0b110 << 16);
    bench.device.step();
    bench.w32(CH_COMMAND, opcode::STOP_MARKER.into());
    bench.device.step();
    let expected = PageRequest {
        tag: DmaTag::process(STREAM, pasid),
        address: Iova(0x7000),
        read: false,
        write: true,
        last: true,
        index: PrgIndex::new(0x1ff),
    };
    assert_eq!(*bench.agent.requests.lock().unwrap(), [expected, PageRequest::stop_marker(STREAM, pasid)]);
    bench.w32(CH_TAG, 0);
    assert_eq!(bench.command(opcode::STOP_MARKER, 0, 0), DONE | BAD_COMMAND, "a stop marker has a PASID");

    let code = PageResponseCode::ResponseFailure;
    bench.device.page_response(&PageResponse { pasid: Some(pasid), index: PrgIndex::new(0x1ff), code });
    assert_eq!(
        [DT_PRG_COUNT, DT_PRG_INFO, DT_PRG_PASID].map(|offset| bench.r32(offset)),
        [1, 0xf1ff, 0x8000_0007]
    );
}

#[test]
fn invalidations_are_answered_at_once_or_when_released() {
    let bench = Bench::new();
    let request =
        InvalidateRequest { pasid: Pasid::new(5), global: false, address: Iova(0x4000), size_log2: 14 };
    bench.device.invalidate(&request, InvalidateTag(1));
    assert_eq!(*bench.agent.completed.lock().unwrap(), [(STREAM, InvalidateTag(1))]);
    assert_eq!((bench.r32(DT_INV_COUNT), bench.read(DT_INV_ADDRESS, 8)), (1, 0x4000));
    assert_eq!(bench.r32(DT_INV_INFO), 14 << 24 | 1 << 20 | 5);

    bench.w32(DT_CTRL, 2);
    for tag in 2..100 {
        bench.device.invalidate(&request, InvalidateTag(tag));
    }
    assert_eq!((bench.r32(DT_INV_COUNT), bench.r32(DT_INV_HELD)), (99, 32));
    assert_eq!(bench.agent.completed.lock().unwrap().len(), 1);
    bench.w32(DT_INV_ANSWER, 1);
    assert_eq!((bench.r32(DT_INV_HELD), bench.agent.completed.lock().unwrap().len()), (0, 33));
    bench.device.invalidate(&request, InvalidateTag(100));
    bench.w32(DT_CTRL, 1);
    assert_eq!(bench.agent.completed.lock().unwrap().len(), 34, "reset answers");
    assert_eq!((bench.r32(DT_CTRL), bench.r32(DT_INV_COUNT)), (0, 0));
}

#[test]
fn narrow_writes_and_other_bars_are_refused_and_gaps_read_zero() {
    let bench = Bench::new();
    assert!(bench.device.bar_write(0, CH_COMMAND, &[1]).is_err());
    assert!(bench.device.bar_write(0, CH_COMMAND + 2, &[0; 4]).is_err());
    assert!(bench.device.bar_read(2, 0, &mut [0; 4]).is_err());
    assert!(bench.device.bar_write(2, 0, &[0; 4]).is_err());
    bench.w32(0x800, 0xffff_ffff);
    assert_eq!((bench.r32(0x800), bench.r32(0x1ffc), bench.read(0x1005, 2)), (0, 0, 0));
    bench.w32(0, 0);
    assert_eq!(bench.r32(0), 0x414d_4454);
}

proptest! {
    /// Whatever is written, each started command ends once it is stepped, and says so.
    #[test]
    fn every_command_ends(
        words in proptest::collection::vec((0u64..0x12, any::<u32>()), 0..40),
        opcode in any::<u8>(),
    ) {
        let bench = Bench::new();
        for (word, value) in words {
            bench.w32(CH_COMMAND + 4 * (word + 1), value);
            // Ranges that take long show nothing more.
            bench.w32(CH_LENGTH, bench.r32(CH_LENGTH) & 0xffff);
        }
        let before = bench.r32(CH_COUNT);
        bench.port.is_mapped.store(true, Ordering::SeqCst);
        bench.w32(CH_COMMAND, opcode.into());
        prop_assert!(bench.device.step());
        prop_assert_eq!(bench.r32(CH_STATUS) & 3, DONE);
        prop_assert_eq!(bench.r32(CH_COUNT), before + 1);
    }
}
