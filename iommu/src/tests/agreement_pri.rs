//! Random page requests, queues and answers on which the SMMU and the slow model must agree: registers, records,
//! interrupts, and the responses that each device hears, after every step.
//!
//! `WARPVMM_SMMU_CASES` sets how many steps are compared, and has what they came to printed.

use std::collections::HashMap;

use hw::ats::{PageRequest, PageResponse, PrgIndex};

use super::agreement::{Random, cases, print};
use super::slow::bits;
use super::slow_pri::{Heard, Message, SlowPri};
use super::*;

/// Streams with a device, the last of them the highest that there can be.
const DEVICES: [u32; 3] = [SID, SID + 1, 0xffff];
/// One whose device has gone, two without, and two that no stream table can have.
const OTHERS: [u32; 5] = [SID + 2, SID + 3, 7, 0x1_0000, u32::MAX];
/// Bytes from [`PRIQ`] on in which queues may lie: the largest there is.
const WINDOW: u64 = 16 << 12;
/// Where a message of the page request queue may go.
const MESSAGE: u64 = PRIQ + WINDOW + 0x40;

const ALL_ON: u32 = SMMUEN | PRIQEN | EVENTQEN | CMDQEN | ATSCHK;

/// A step of a random machine.
#[derive(Clone, Copy, Debug)]
enum Step {
    Request(Message),
    Write(u64, u64),
}

/// A device that keeps all its responses in one list.
struct Device {
    sid: u32,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl AtsEndpoint for Device {
    fn invalidate(&self, _: &InvalidateRequest, _: InvalidateTag) {}

    fn page_response(&self, response: &PageResponse) {
        let &PageResponse { pasid, index, code } = response;
        let heard = (self.sid, index.get().into(), code.bits(), pasid.map(Pasid::get));
        self.heard.lock().unwrap().push(heard);
    }
}

struct World<'a> {
    m: &'a Bench,
    random: Random,
    seed: u64,
    steps: u64,
    slow: SlowPri,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl World<'_> {
    /// Takes a step in both models, and looks whether they are in the same state.
    fn step(&mut self, step: Step) {
        self.slow.record = None;
        match step {
            Step::Request(message) => {
                self.slow.receive(&message);
                self.m.smmu.request_page(&PageRequest {
                    tag: DmaTag {
                        stream: StreamId(message.sid),
                        pasid: message.pasid.and_then(Pasid::new),
                        privileged: message.privileged,
                        execute: message.execute,
                    },
                    address: Iova(message.address),
                    read: message.read,
                    write: message.write,
                    last: message.last,
                    index: PrgIndex::new(message.group as u16),
                });
            }
            Step::Write(offset, value) => {
                self.slow.write(self.m, offset, value);
                if matches!(offset, PRIQ_BASE | PRIQ_IRQ_CFG0) {
                    self.m.w64(offset, value);
                } else {
                    self.m.w32(offset, value as u32);
                }
            }
        }
        self.steps += 1;
        self.compare(step);
    }

    fn write(&mut self, offset: u64, value: impl Into<u64>) {
        self.step(Step::Write(offset, value.into()));
    }

    fn compare(&mut self, step: Step) {
        let (m, slow) = (self.m, &mut self.slow);
        let context = || format!("seed {:#x}, step {}: {step:x?}", self.seed, self.steps);
        let found = [PRIQ_PROD, PRIQ_CONS, GERROR, GERRORN, CR0ACK, IRQ_CTRLACK].map(|reg| m.r32(reg));
        let [prod, cons] = [slow.prod(), slow.cons()];
        let expected = [prod, cons, slow.gerror, slow.gerrorn, slow.cr0, slow.irq_ctrl];
        assert_eq!(found, expected, "{} {slow:x?}", context());
        assert_eq!(
            [PRIQ_PROD, PRIQ_CONS].map(|offset| m.r32(offset - crate::WINDOW_BYTES / 2)),
            [prod, cons],
            "page 0; {}",
            context()
        );
        assert_eq!(m.r64(PRIQ_BASE), slow.base, "{}", context());
        let cons = m.r32(CMDQ_CONS);
        assert_eq!(bits(cons.into(), CMDQ_LOG2, 0), slow.cmdq_cons, "{}", context());
        // CERROR_ILL, as long as it counts.
        assert!(!slow.is_active(0) || cons >> 24 == 1, "{cons:#x}; {}", context());
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        assert_eq!(heard, std::mem::take(&mut slow.heard), "{}", context());
        let edges = [m.priq.edges(), m.gerror.edges()];
        assert_eq!(edges, [slow.priq_edges, slow.gerror_edges], "{} {slow:x?}", context());
        assert_eq!(m.msi.take(), std::mem::take(&mut slow.messages), "{}", context());
        if let Some(at) = slow.record {
            for at in (at..at + 16).step_by(4) {
                assert_eq!(Some(&word(m, at)), slow.memory.get(&at), "{at:#x}; {}", context());
            }
        }
    }

    /// Nothing else has been written, and page requests make no events.
    fn compare_memory(&self) {
        for at in (PRIQ - WINDOW..PRIQ + 2 * WINDOW).step_by(4) {
            let expected = self.slow.memory.get(&at).copied().unwrap_or(0);
            assert_eq!(word(self.m, at), expected, "seed {:#x}: {at:#x}", self.seed);
        }
        assert_eq!(self.m.events(), [] as [Record; 0], "seed {:#x}", self.seed);
    }

    fn bring_up(&mut self) {
        for sid in DEVICES {
            // Whatever a stream may do, its page requests are taken.
            let d1 = self.random.next();
            if sid < 1 << STRTAB_LOG2 {
                self.m.put(STRTAB + 64 * u64::from(sid), &[self.random.below(16), d1]);
            }
        }
        self.configure_interrupt();
        self.configure_queue();
        self.write(CR0, ALL_ON);
    }

    fn configure_interrupt(&mut self) {
        self.write(IRQ_CTRL, 5_u32);
        let target = self.random.pick(&[0, 0, 0, DOORBELL, DOORBELL, MESSAGE, HOLE]);
        self.write(PRIQ_IRQ_CFG0, target);
        let data = self.random.next() as u32;
        self.write(PRIQ_IRQ_CFG1, data);
        let attributes = self.random.below(2) << 31 | self.random.below(64);
        self.write(PRIQ_IRQ_CFG2, attributes);
        let enables: u32 = self.random.pick(&[7, 7, 7, 7, 6, 5]);
        self.write(IRQ_CTRL, enables);
    }

    fn configure_queue(&mut self) {
        let cr0 = self.slow.cr0;
        self.write(CR0, cr0 & !PRIQEN);
        let log2 = self.random.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4, 12, 13, 31]);
        let inside = PRIQ | self.random.below(WINDOW) & !0x1f;
        let address = match self.random.below(12) {
            0 => HOLE | self.random.below(WINDOW) & !0x1f,
            1 => RAM + RAM_BYTES,
            // Addresses have 48 bits.
            2 => inside | (1 + self.random.below(15)) << 48,
            _ => inside,
        };
        let others = self.random.below(2) << 62;
        self.write(PRIQ_BASE, others | address | log2);
        // Above the wrap bit nothing counts.
        let noise = self.random.below(2) << 19 | self.random.below(2) << 25;
        let flag = self.random.below(2) << 31;
        let size = 1 << self.slow.log2size();
        let prod = match self.random.below(4) {
            0 => self.random.below(2 * size),
            1 => 2 * size - 1,
            2 => size - 1,
            _ => 0,
        };
        let behind = match self.random.below(16) {
            0 => self.random.next(),
            1 => size,
            2 => self.random.below(size + 1),
            _ => 0,
        };
        self.write(PRIQ_PROD, flag | noise & !size & !(2 * size - 1) | prod);
        let acknowledged = if self.random.rarely(8) { flag ^ 1 << 31 } else { flag };
        let cons = prod.wrapping_sub(behind) & (2 * size - 1);
        self.write(PRIQ_CONS, acknowledged | cons);
        self.write(CR0, cr0);
    }

    fn request(&mut self) {
        let r = &mut self.random;
        let sid = if r.rarely(6) { r.pick(&OTHERS) } else { r.pick(&DEVICES) };
        let any = r.below(1 << 20) as u32;
        let pasid = r.pick(&[None, None, Some(0), Some(1), Some(5), Some(0xf_ffff), Some(any), Some(any)]);
        let mut message = Message {
            sid,
            pasid,
            address: r.next(),
            group: r.below(512),
            read: r.below(2) == 0,
            write: r.below(2) == 0,
            execute: r.rarely(3),
            privileged: r.rarely(3),
            last: r.below(2) == 0,
        };
        if r.rarely(8) {
            // A stop marker, if it has a PASID.
            (message.read, message.write, message.last) = (false, false, true);
        }
        self.step(Step::Request(message));
    }

    /// Software moves on in the queue.
    fn consume(&mut self) {
        let size = 1 << self.slow.log2size();
        let (prod, cons) = (u64::from(self.slow.prod()), u64::from(self.slow.cons()));
        let index = |value: u64| value & (2 * size - 1);
        let acknowledged = if self.random.rarely(3) { cons } else { prod } & 1 << 31;
        let to = match self.random.below(12) {
            0 => self.random.next() & 0xfffff,
            1 => cons,
            2..6 => prod,
            _ if index(prod) != index(cons) => cons + 1,
            _ => cons,
        };
        self.write(PRIQ_CONS, acknowledged | index(to));
    }

    /// What a driver's handler does: answers each group whose last request it finds, and moves on.
    fn handle(&mut self) {
        let (prod, cons) = (self.slow.prod(), self.slow.cons());
        let size = 1_u64 << self.slow.log2size();
        let mut at = u64::from(cons) & (2 * size - 1);
        let align = (16 * size).max(32);
        let base = bits(self.slow.base, 47, 5) << 5 & !(align - 1);
        let mut answers = Vec::new();
        while at != u64::from(prod) & (2 * size - 1) && answers.len() < 16 {
            let place = base + 16 * (at % size);
            if let (Ok(d0), Ok(d1)) = (self.m.ram.load_u64(Pa(place)), self.m.ram.load_u64(Pa(place + 8)))
                && bits(d0, 62, 62) == 1
            {
                let (ssv, ssid) = (bits(d0, 63, 63), bits(d0, 51, 32));
                let code = self.random.below(3);
                answers.push([d0 << 32 | ssid << 12 | ssv << 11 | 0x41, code << 12 | bits(d1, 8, 0)]);
            }
            at = (at + 1) & (2 * size - 1);
        }
        self.write(PRIQ_CONS, u64::from(prod) & 1 << 31 | at);
        self.command(&answers);
    }

    /// As many of these commands as there is room for, all made visible at once.
    fn command(&mut self, commands: &[[u64; 2]]) {
        let prod = self.m.r32(CMDQ_PROD);
        let taken = (prod - self.slow.cmdq_cons as u32) & ((2 << CMDQ_LOG2) - 1);
        let room = (1 << CMDQ_LOG2) - taken;
        let count = room.min(commands.len() as u32);
        for (i, &[d0, d1]) in (0..count).zip(commands) {
            self.m.put_command(prod + i, d0, d1);
        }
        self.write(CMDQ_PROD, (prod + count) & ((2 << CMDQ_LOG2) - 1));
    }

    fn random_command(&mut self) -> [u64; 2] {
        let r = &mut self.random;
        let sid = if r.rarely(6) { r.pick(&OTHERS) } else { r.pick(&DEVICES) };
        let (ssid, ssv) = (r.below(1 << 20), r.below(2));
        let d0 = u64::from(sid) << 32 | ssid << 12 | ssv << 11 | 0x41;
        let d1 = r.below(3) << 12 | r.below(512);
        match r.below(40) {
            0 => [d0, d1 | 3 << 12],
            1 => [d0 | 1 << 10, d1],
            2 => [d0 & !0xff | r.pick(&[0, 0x42, 0x47, 0xff]), d1],
            3 => [0x46 | r.below(4) << 12, 0],
            4 => [0x04, 31],
            // Reserved fields are ignored.
            5 => [d0, d1 | r.next() << 14 | r.below(8) << 9],
            _ => [d0, d1],
        }
    }

    /// The handler of global errors, which sometimes acknowledges what is not active.
    fn acknowledge(&mut self) {
        if self.slow.is_active(0) && !self.random.rarely(4) {
            let at = self.slow.cmdq_cons as u32;
            self.m.put_command(at, 0x46, 0);
        }
        let (gerror, gerrorn) = (self.slow.gerror, self.slow.gerrorn);
        let some = self.random.next() as u32;
        let value = match self.random.below(4) {
            0 => gerrorn ^ some & (gerror ^ gerrorn),
            1 => some,
            _ => gerror,
        };
        self.write(GERRORN, value);
    }

    /// Writes that have an effect only while nothing is on.
    fn disturb(&mut self) {
        let value = self.random.next();
        match self.random.below(5) {
            // Whoever changes the size puts the indexes right.
            0 if self.slow.cr0 & PRIQEN == 0 => self.configure_queue(),
            0 => self.write(PRIQ_BASE, value),
            1 => self.write(PRIQ_PROD, value & (1 << 31 | 0xfffff)),
            2 => self.write(PRIQ_IRQ_CFG0, self.slow_target(value)),
            3 => self.write(PRIQ_IRQ_CFG1, value as u32),
            _ => self.write(PRIQ_IRQ_CFG2, value & 0x8000_003f),
        }
    }

    fn slow_target(&self, value: u64) -> u64 {
        [0, DOORBELL, MESSAGE, HOLE][(value % 4) as usize]
    }

    fn change_enables(&mut self) {
        let r = &mut self.random;
        let cr0 = if r.rarely(3) { ALL_ON & r.next() as u32 } else { ALL_ON };
        self.write(CR0, cr0);
    }

    fn go_on(&mut self) {
        match self.random.below(24) {
            0..11 => self.request(),
            11..14 => self.consume(),
            14 | 15 => self.handle(),
            16..19 => {
                let count = 1 + self.random.below(3);
                let commands = Vec::from_iter((0..count).map(|_| self.random_command()));
                self.command(&commands);
            }
            19 => self.acknowledge(),
            20 => self.change_enables(),
            21 => self.disturb(),
            22 => self.configure_interrupt(),
            _ if self.random.rarely(2) => self.configure_queue(),
            _ => self.write(CR0, ALL_ON),
        }
    }
}

fn word(m: &Bench, at: u64) -> u32 {
    m.ram.load_u32(Pa(at)).unwrap()
}

/// All that random machines should come to, so that agreement means something.
const MUST_BE_MET: &[&str] = &[
    "abort",
    "abort: marker",
    "error is active",
    "guarded",
    "illegal command",
    "interrupt: guarded",
    "interrupt: last",
    "interrupt: was empty",
    "message",
    "message: abort",
    "off",
    "off: marker",
    "overflow",
    "overflow begins",
    "overflow begins: nonsense",
    "overflow: interrupt",
    "overflow: marker",
    "overflow: not the last",
    "overflow: with space",
    "recorded",
    "recorded: marker",
    "recorded: wraps",
    "response to nobody",
    "response: failure",
    "response: ignored",
    "response: invalid",
    "response: success",
];

/// What `steps` steps come to.
fn run(features: Features, first_seed: u64, steps: u64) -> HashMap<&'static str, u64> {
    let (mut done, mut seed, mut met) = (0, first_seed, HashMap::new());
    while done < steps {
        seed += 1;
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let features = Features { priq_log2: random.pick(&[12, 12, 3, 0]), ..features };
        let m = Bench::reset(features);
        m.set_up(4);
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let attach = |sid: u32| {
            let device: Arc<dyn AtsEndpoint> = Arc::new(Device { sid, heard: Arc::clone(&heard) });
            m.smmu.attach(StreamId(sid), Arc::downgrade(&device));
            device
        };
        let devices = DEVICES.map(attach);
        drop(attach(OTHERS[0]));
        let mut slow = SlowPri::new(&features, &DEVICES);
        // As the bench sets it up.
        slow.write(&m, IRQ_CTRL, 5);
        slow.met = met;
        let mut world = World { m: &m, random, seed, steps: 0, slow, heard: Arc::clone(&heard) };
        world.bring_up();
        while world.steps < 250 {
            world.go_on();
        }
        world.compare_memory();
        done += world.steps;
        met = world.slow.met;
        drop(devices);
    }
    print(&met);
    met
}

#[test]
fn both_models_agree_on_page_requests() {
    let steps = cases();
    let met = run(Features::default(), 0x3_0000_0000, steps);
    let missed: Vec<_> = MUST_BE_MET.iter().filter(|&&name| !met.contains_key(name)).collect();
    assert!(missed.is_empty() || steps < 30_000, "{missed:?}");
}

#[test]
fn both_models_agree_on_page_requests_without_pasids() {
    run(Features { ssid_bits: 0, ..Features::default() }, 0x4_0000_0000, cases() / 4);
}

#[test]
fn both_models_agree_that_without_pri_nothing_is_there() {
    run(Features { pri: false, ..Features::default() }, 0x5_0000_0000, cases() / 4);
}
