//! What translation adds to an access, beside the limits that it shall keep. `cargo xtask bench --only smmu` runs it.
//!
//! Each number is the least of many short rounds, in which what is compared takes turns: other work on the machine makes
//! rounds slower, never faster. An access is a read or write of a device model, with all that belongs to it: counting it in
//! and out, the look-up, and the copy. What the SMMU adds is the difference to the same access of a device without one.
//!
//! A TLB hit is one in what the thread remembers, the first level; behind it is the TLB that all threads share, which is
//! of the same make as a translation cache.
//!
//! Output: `bench NAME VALUE UNIT at-most|at-least LIMIT`, or without the last two where nothing is asked for.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use devices::pci::caps::ats;
use devices::pci::{Atc, AtcWiring, ConfigSpace, Identity};
use hw::schedule::Threads;
use hw::{
    DeviceId, DirectPort, DmaPort, DmaTag, Faults, Iova, ManualAlarms, ManualClock, MmioDevice, Pa, Pasid,
    Ram, RecordingMsiSink, Requester, StreamId,
};
use iommu::{Features, Smmu, SmmuConfig, Wires};

const RAM: u64 = 0x4000_0000;
const STRTAB: u64 = RAM;
const STRTAB_LOG2: u8 = 10;
const CMDQ: u64 = RAM + 0x1_0000;
/// Three levels of one table each, then eight of the last level.
const PGD: u64 = RAM + 0x2_0000;
/// Two levels for all contexts: every stream has the same, every context the same tables of pages and another ASID.
const CD_L1: u64 = RAM + 0x10_0000;
const CD_L2: u64 = RAM + 0x80_0000;
const CONTEXTS_LOG2: u64 = 17;
const DATA: u64 = RAM + 0x200_0000;
const PAGES: u64 = 4096;
/// Pages that small accesses go through in turn.
const HOT_PAGES: u64 = 256;

struct Machine {
    smmu: Arc<Smmu>,
    atc: Arc<Atc>,
    direct: DirectPort,
    ram: Arc<Ram>,
    commands: u32,
}

fn requester(sid: u32, pasid: u32) -> Requester {
    Requester::new(DmaTag::process(StreamId(sid), Pasid::new(pasid).expect("20 bits")))
}

impl Machine {
    /// ATSCHK is on, as Linux has it.
    fn new() -> Self {
        let ram = Arc::new(Ram::new(&[(Pa(RAM), 64 << 20)]).expect("64 MiB"));
        let put = |pa: u64, dword: u64| ram.store_u64(Pa(pa), dword).expect("in RAM");
        for sid in 0..1u64 << STRTAB_LOG2 {
            put(STRTAB + 64 * sid, CONTEXTS_LOG2 << 59 | CD_L1 | 2 << 4 | 5 << 1 | 1);
            put(STRTAB + 64 * sid + 8, 1 << 28 | 0xd6);
        }
        for leaf in 0..1 << CONTEXTS_LOG2 >> 10 {
            put(CD_L1 + 8 * leaf, (CD_L2 + (leaf << 16)) | 1);
        }
        for pasid in 0..1u64 << CONTEXTS_LOG2 {
            put(CD_L2 + 64 * pasid, (pasid & 0xffff) << 48 | 0xe205_c000_3510);
            put(CD_L2 + 64 * pasid + 8, PGD);
        }
        put(PGD, (PGD + 0x1000) | 3);
        put(PGD + 0x1000, (PGD + 0x2000) | 3);
        for table in 0..PAGES / 512 {
            put(PGD + 0x2000 + 8 * table, (PGD + 0x3000 + (table << 12)) | 3);
        }
        for page in 0..PAGES {
            put(PGD + 0x3000 + 8 * page, (DATA + (page << 12)) | 0xc43);
        }
        for slot in 0..16 {
            put(CMDQ + 16 * slot, 0x30); // CMD_TLBI_NSNH_ALL
        }
        let no_messages = Arc::new(RecordingMsiSink::new(Pa(0)));
        let smmu = Smmu::new(SmmuConfig {
            features: Features::default(),
            ram: Arc::clone(&ram),
            msi: no_messages.clone(),
            device_id: DeviceId(0),
            wires: Wires::unconnected(),
            clock: Arc::new(ManualClock::default()),
            alarms: Arc::new(ManualAlarms::default()),
            scheduler: Arc::new(Threads),
            faults: Faults::default(),
            trace: hw::Trace::default(),
            errors: hw::GuestErrors::default(),
        });
        let write = |offset: u64, value: &[u8]| smmu.mmio_write(offset, value).expect("a register");
        write(0x80, &STRTAB.to_le_bytes());
        write(0x88, &[STRTAB_LOG2, 0, 0, 0]);
        write(0x90, &(CMDQ | 4).to_le_bytes());
        write(0x20, &[0x19, 0, 0, 0]); // CR0: SMMUEN, CMDQEN, ATSCHK
        let identity =
            Identity { vendor: 1, device: 1, class: 0, revision: 0, subsystem_vendor: 0, subsystem: 0 };
        let config = Arc::new(ConfigSpace::builder(identity).ats().build());
        let (port, agent) = (Arc::clone(&smmu), Arc::clone(&smmu));
        let atc = Atc::new(AtcWiring {
            stream: StreamId(0),
            config: Arc::clone(&config),
            port,
            agent,
            clock: Arc::new(ManualClock::default()),
            alarms: Arc::new(ManualAlarms::default()),
            scheduler: Arc::new(Threads),
            faults: Faults::default(),
            trace: hw::Trace::default(),
            errors: hw::GuestErrors::default(),
        });
        let control = 0x100 + ats::CONTROL.offset();
        atc.config_written(&config.write(control, &(ats::ENABLE as u16).to_le_bytes()));
        let direct = DirectPort::new(Arc::clone(&ram), no_messages);
        Self { smmu, atc, direct, ram, commands: 0 }
    }

    fn invalidate_all(&mut self) {
        self.commands = (self.commands + 1) & 31;
        self.smmu.mmio_write(0x98, &self.commands.to_le_bytes()).expect("a register");
    }
}

/// Nanoseconds that `work` takes.
fn time(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

/// The least time of each of several things, which take turns.
fn least<const N: usize>(rounds: u32, mut works: [&mut dyn FnMut(); N]) -> [f64; N] {
    let mut least = [f64::INFINITY; N];
    for _ in 0..rounds {
        for (least, work) in least.iter_mut().zip(&mut works) {
            *least = least.min(time(work));
        }
    }
    least
}

const READS: u64 = 20_000;

/// Reads of 8 bytes each, in the hot pages in turn.
fn read_hot_pages(port: &dyn DmaPort, who: &Requester, base: u64) {
    let mut out = [0; 8];
    for n in 0..READS {
        port.read(who, Iova(base + black_box((n % HOT_PAGES) << 12)), &mut out).expect("mapped");
        black_box(&out);
    }
}

/// Nanoseconds of one read without SMMU, with one, and with an ATC in front of it.
fn hits(m: &Machine) -> [f64; 3] {
    let who = requester(0, 1);
    least(
        400,
        [
            &mut || read_hot_pages(&m.direct, &who, DATA),
            &mut || read_hot_pages(&*m.smmu, &who, 0),
            &mut || read_hot_pages(&*m.atc, &who, 0),
        ],
    )
    .map(|time| time / READS as f64)
}

/// Nanoseconds of a hit in the TLB that threads share: more pages in turn than a thread remembers for itself.
fn shared_hit(m: &Machine) -> f64 {
    let who = requester(0, 1);
    let mut out = [0; 8];
    let mut go = || {
        for page in 0..PAGES {
            m.smmu.read(&who, Iova(page << 12), &mut out).expect("mapped");
        }
    };
    let [time] = least(400, [&mut go]);
    time / PAGES as f64
}

fn walk(m: &mut Machine) -> f64 {
    let who = requester(0, 1);
    let mut out = [0; 8];
    let mut walks = f64::INFINITY;
    for _ in 0..2000 {
        m.invalidate_all();
        let mut go = || {
            for page in 0..HOT_PAGES {
                m.smmu.read(&who, Iova(page << 12), &mut out).expect("mapped");
            }
        };
        walks = walks.min(time(&mut go));
    }
    walks / HOT_PAGES as f64
}

/// Reads per nanosecond of one thread, and of two threads together.
fn two_threads(m: &Machine) -> [f64; 2] {
    const ROUNDS: u64 = 400;
    let (turn, ready) = (AtomicU64::new(0), AtomicU64::new(0));
    let rate = |who: &Requester| READS as f64 / time(&mut || read_hot_pages(&*m.smmu, who, 0));
    let (mut alone, mut together) = (0f64, 0f64);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let who = requester(0, 2);
            let mut rates = Vec::new();
            for round in 1..=ROUNDS {
                ready.store(round, Ordering::SeqCst);
                while turn.load(Ordering::SeqCst) < round {
                    std::hint::spin_loop();
                }
                rates.push(rate(&who));
            }
            rates
        });
        let who = requester(0, 1);
        let mut rates = Vec::new();
        for round in 1..=ROUNDS {
            alone = alone.max(rate(&who));
            while ready.load(Ordering::SeqCst) < round {
                thread::yield_now();
            }
            turn.store(round, Ordering::SeqCst);
            rates.push(rate(&who));
        }
        let others = other.join().expect("no panic");
        for (one, two) in rates.into_iter().zip(others) {
            together = together.max(one + two);
        }
    });
    [alone, together]
}

/// Nanoseconds of 1 MiB: `memcpy`, write and read by a device, read without an SMMU. Each goes several times over its own
/// memory before the next has its turn, so that none works for another's caches.
fn large_copies(m: &Machine) -> [f64; 4] {
    const TIMES: u32 = 8;
    let who = requester(0, 1);
    let (source, mut target) = (vec![0x5a_u8; 1 << 20], vec![0_u8; 1 << 20]);
    let (mut copy, mut out) = (vec![0_u8; 1 << 20], vec![0_u8; 1 << 20]);
    let mut works: [&mut dyn FnMut(); 4] = [
        &mut || black_box(&mut target).copy_from_slice(black_box(&source)),
        &mut || m.smmu.write(&who, Iova(0), &source).expect("mapped"),
        &mut || m.smmu.read(&who, Iova(0), &mut copy).expect("mapped"),
        &mut || m.ram.read(Pa(DATA), &mut out).expect("RAM"),
    ];
    let mut best = [f64::INFINITY; 4];
    for _ in 0..250 {
        for (best, work) in best.iter_mut().zip(&mut works) {
            for _ in 0..TIMES {
                *best = best.min(time(work));
            }
        }
    }
    best
}

/// Nanoseconds of a hit in one of many contexts that are all in use.
fn hit_among(m: &Machine, streams: u32, pasids: u32) -> f64 {
    let mut out = [0; 8];
    for sid in 0..streams {
        for pasid in 1..=pasids {
            m.smmu.read(&requester(sid, pasid), Iova(0x1000), &mut out).expect("mapped");
        }
    }
    let who = requester(streams - 1, pasids);
    let [time] = least(200, [&mut || read_hot_pages(&*m.smmu, &who, 0)]);
    time / READS as f64
}

/// Nanoseconds of a read where each is in another context than the one before.
fn other_context_each_time(m: &Machine, pasids: u32) -> f64 {
    let contexts: Vec<Requester> = (1..=pasids).map(|pasid| requester(0, pasid)).collect();
    let mut out = [0; 8];
    let repeat = 10_000_u32.div_ceil(pasids);
    let mut all = || {
        for _ in 0..repeat {
            for who in &contexts {
                m.smmu.read(who, Iova(0x1000), &mut out).expect("mapped");
            }
        }
    };
    let [time] = least(if pasids > 10_000 { 20 } else { 200 }, [&mut all]);
    time / f64::from(repeat * pasids)
}

fn main() {
    let mut m = Machine::new();
    let [direct, hit, atc] = hits(&m);
    let shared = shared_hit(&m);
    println!("bench read-without-smmu {direct:.1} ns");
    println!("bench tlb-hit {:.1} ns at-most 10", hit - direct);
    println!("bench shared-tlb-hit {:.1} ns", shared - direct);
    println!("bench walk-of-4-levels {:.1} ns at-most 100", walk(&mut m) - direct);
    println!("bench atc-hit {:.1} ns", atc - direct);
    println!("bench atc-hit-beside-shared-tlb-hit {:.2} times at-most 1", atc / shared);
    println!("bench atc-hit-beside-tlb-hit {:.2} times at-most 1", atc / hit);
    let [alone, together] = two_threads(&m);
    println!("bench two-threads {:.2} times at-least 1.8", together / alone);
    let [memcpy, write, read, plain] = large_copies(&m);
    println!("bench memcpy-1-mib {:.1} us", memcpy / 1e3);
    println!("bench write-1-mib-beside-memcpy {:.2} times at-least 0.9", memcpy / write);
    println!("bench read-1-mib-beside-memcpy {:.2} times at-least 0.9", memcpy / read);
    println!("bench read-1-mib-without-smmu-beside-memcpy {:.2} times", memcpy / plain);
    for (streams, pasids) in [(1, 1), (1, 1_000), (1, 100_000), (1_000, 1), (1_000, 100)] {
        let among = hit_among(&m, streams, pasids);
        println!("bench hit-among-{streams}-streams-of-{pasids}-pasids {:.1} ns at-most 10", among - direct);
    }
    for pasids in [1, 1_000, 100_000] {
        println!("bench another-of-{pasids}-pasids-each-time {:.1} ns", other_context_each_time(&m, pasids));
    }
}
