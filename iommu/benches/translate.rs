//! What translation costs: a TLB hit, a walk of four levels, a large copy beside the same copy without an SMMU; and that
//! it does not depend on how much there is.

#![allow(missing_docs, reason = "`criterion_group!` makes undocumented items")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hw::{
    DeviceId, Dir, DirectPort, DmaPort, DmaTag, Iova, MmioDevice, NotADoorbell, Pa, Pasid, Ram, Requester,
    StreamId,
};
use iommu::{Features, Smmu, SmmuConfig, Wires};

struct NoMessages;

impl hw::MsiSink for NoMessages {
    fn write(&self, _: DeviceId, pa: Pa, _: u32) -> Result<(), NotADoorbell> {
        Err(NotADoorbell(pa))
    }
}

const RAM: u64 = 0x4000_0000;
const STRTAB: u64 = RAM;
const CDTAB: u64 = RAM + 0x1_0000;
/// Three levels of one table each, then the last level tables.
const PGD: u64 = RAM + 0x2_0000;
const DATA: u64 = RAM + 0x100_0000;
const PAGES: u64 = 4096;

fn set_up() -> (Arc<Smmu>, Arc<Ram>, Requester) {
    let ram = Arc::new(Ram::new(&[(Pa(RAM), 64 << 20)]).expect("64 MiB"));
    let put = |pa: u64, dword: u64| ram.store_u64(Pa(pa), dword).expect("in RAM");
    put(STRTAB, 6 << 59 | CDTAB | 5 << 1 | 1);
    put(STRTAB + 8, 0xd6);
    put(CDTAB + 64, 0x0002_e205_c000_3510);
    put(CDTAB + 64 + 8, PGD);
    put(PGD, (PGD + 0x1000) | 3);
    put(PGD + 0x1000, (PGD + 0x2000) | 3);
    for table in 0..PAGES / 512 {
        put(PGD + 0x2000 + 8 * table, (PGD + 0x3000 + (table << 12)) | 3);
    }
    for page in 0..PAGES {
        put(PGD + 0x3000 + 8 * page, (DATA + (page << 12)) | 0xc43);
    }
    let smmu = Smmu::new(SmmuConfig {
        features: Features::default(),
        ram: ram.clone(),
        msi: Arc::new(NoMessages),
        device_id: DeviceId(0),
        wires: Wires::unconnected(),
        clock: Arc::new(hw::ManualClock::default()),
        alarms: Arc::new(hw::ManualAlarms::default()),
        faults: hw::Faults::default(),
    });
    smmu.mmio_write(0x80, &STRTAB.to_le_bytes()).expect("a register");
    smmu.mmio_write(0x90, &(CDTAB + 0x4000 + 4).to_le_bytes()).expect("a register");
    for slot in 0..16 {
        put(CDTAB + 0x4000 + 16 * slot, 0x30); // CMD_TLBI_NSNH_ALL
    }
    smmu.mmio_write(0x20, &[1, 0, 0, 0]).expect("a register");
    let tag = DmaTag::process(StreamId(0), Pasid::new(1).expect("small"));
    (smmu, ram, Requester::new(tag))
}

fn small_accesses(c: &mut Criterion) {
    let (smmu, ram, who) = set_up();
    let direct = DirectPort::new(ram.clone(), Arc::new(NoMessages));
    let mut group = c.benchmark_group("8-byte read");
    let mut out = [0; 8];
    group.bench_function("without SMMU", |b| {
        b.iter(|| direct.read(&who, Iova(black_box(DATA + 8)), &mut out));
    });
    group.bench_function("TLB hit, one page", |b| {
        b.iter(|| smmu.read(&who, Iova(black_box(0x1008)), &mut out));
    });
    let mut page = 0;
    group.bench_function("without SMMU, 256 pages in turn", |b| {
        b.iter(|| {
            page = (page + 1) % 256;
            direct.read(&who, Iova(DATA + (page << 12)), &mut out)
        });
    });
    group.bench_function("TLB hit, 256 pages in turn", |b| {
        b.iter(|| {
            page = (page + 1) % 256;
            smmu.read(&who, Iova(page << 12), &mut out)
        });
    });
    group.finish();
}

/// Each read misses the TLB: an invalidation in front of it, whose own cost is measured besides.
fn walks(c: &mut Criterion) {
    let (smmu, _, who) = set_up();
    let mut group = c.benchmark_group("walk");
    let mut out = [0; 8];
    let mut prod = 0u32;
    smmu.mmio_write(0x20, &[9, 0, 0, 0]).expect("a register");
    let mut invalidate_all = move |smmu: &Smmu| {
        prod = (prod + 1) & 31;
        smmu.mmio_write(0x98, &prod.to_le_bytes()).expect("a register");
    };
    group.bench_function("CMD_TLBI_NSNH_ALL alone", |b| b.iter(|| invalidate_all(&smmu)));
    group.bench_function("CMD_TLBI_NSNH_ALL and 256 reads with four levels each", |b| {
        b.iter(|| {
            invalidate_all(&smmu);
            for page in 0..256u64 {
                let _ = black_box(smmu.read(&who, Iova(page << 12), &mut out));
            }
        });
    });
    group.finish();
}

fn large_copies(c: &mut Criterion) {
    let (smmu, ram, who) = set_up();
    let mut group = c.benchmark_group("1 MiB");
    group.throughput(Throughput::Bytes(1 << 20));
    let source = vec![0x5a_u8; 1 << 20];
    let mut target = vec![0_u8; 1 << 20];
    group.bench_function("memcpy", |b| b.iter(|| black_box(&mut target).copy_from_slice(black_box(&source))));
    group.bench_function("write to RAM", |b| b.iter(|| ram.write(Pa(DATA), &source)));
    group.bench_function("write through the SMMU", |b| b.iter(|| smmu.write(&who, Iova(0), &source)));
    group.bench_function("read through the SMMU", |b| b.iter(|| smmu.read(&who, Iova(0), &mut target)));
    group.bench_function("pin", |b| {
        b.iter(|| smmu.pin(&who, Iova(0), 1 << 20, Dir::Read).map(|pinned| pinned.pieces.len()));
    });
    group.finish();
}

/// Many streams, PASIDs and pages at once: what a hit costs must not depend on how many there are.
fn many(c: &mut Criterion) {
    let (smmu, ram, who) = set_up();
    let put = |pa: u64, dword: u64| ram.store_u64(Pa(pa), dword).expect("in RAM");
    // Two-level context tables for 2^17 PASIDs, which all share one table of pages; ASIDs differ.
    let (l1, leaves) = (RAM + 0x200_0000, RAM + 0x280_0000);
    for leaf in 0..128u64 {
        put(l1 + 8 * leaf, (leaves + (leaf << 16)) | 1);
    }
    for pasid in 0..1u64 << 17 {
        put(leaves + 64 * pasid, (pasid & 0xffff) << 48 | 0xe205_c000_3510);
        put(leaves + 64 * pasid + 8, PGD);
    }
    let mut group = c.benchmark_group("hit among many");
    let mut out = [0; 8];
    // Streams 1 to 1023 share those contexts.
    for sid in 1..1024u64 {
        put(STRTAB + 0x40_0000 + 64 * sid, 17 << 59 | l1 | 2 << 4 | 5 << 1 | 1);
        put(STRTAB + 0x40_0000 + 64 * sid + 8, 0xd6);
    }
    smmu.mmio_write(0x20, &[0, 0, 0, 0]).expect("a register");
    smmu.mmio_write(0x80, &(STRTAB + 0x40_0000).to_le_bytes()).expect("a register");
    smmu.mmio_write(0x88, &[10, 0, 0, 0]).expect("a register");
    smmu.mmio_write(0x20, &[1, 0, 0, 0]).expect("a register");
    let requester = |sid: u32, pasid: u32| Requester {
        tag: DmaTag::process(StreamId(sid), Pasid::new(pasid).expect("20 bits")),
        waiter: Arc::clone(&who.waiter),
        command: None,
    };
    for (streams, pasids) in [(1, 1), (1, 1_000), (1, 100_000), (1_000, 1), (1_000, 100)] {
        // All of them are used; then one of them is measured.
        for stream in 0..streams {
            for pasid in 0..pasids {
                let _ = smmu.read(&requester(1 + stream, 1 + pasid), Iova(0x1008), &mut out);
            }
        }
        let one = requester(streams, pasids);
        group.bench_function(format!("{streams} streams with {pasids} PASIDs"), |b| {
            b.iter(|| smmu.read(&one, Iova(black_box(0x1008)), &mut out));
        });
    }
    group.finish();
}

/// The same work on one thread and on two at once, each with its own pages: twice the bytes in the same time.
fn threads(c: &mut Criterion) {
    let (smmu, _, who) = set_up();
    let work = |n: u64| {
        let mut out = [0; 8];
        for i in 0..100_000 {
            let _ = black_box(smmu.read(&who, Iova((n * 64 + i % 64) << 12), &mut out));
        }
    };
    let mut group = c.benchmark_group("100,000 hits per thread");
    for count in [1u64, 2] {
        group.throughput(Throughput::Elements(100_000 * count));
        group.bench_function(format!("threads: {count}"), |b| {
            b.iter(|| {
                std::thread::scope(|scope| {
                    for n in 1..count {
                        scope.spawn(move || work(n));
                    }
                    work(0);
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, small_accesses, walks, large_copies, many, threads);
criterion_main!(benches);
