//! What a hit in an accelerator's own translation cache costs, beside a hit in the SMMU's TLB.

#![allow(missing_docs, reason = "`criterion_group!` makes undocumented items")]

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use devices::pci::caps::ats;
use devices::pci::{Atc, AtcWiring, ConfigSpace, Identity};
use hw::{
    DeviceId, DmaPort, DmaTag, Iova, ManualAlarms, ManualClock, MmioDevice, Pa, Pasid, Ram, RecordingMsiSink,
    Requester, StreamId,
};
use iommu::{Features, Smmu, SmmuConfig, Wires};

const RAM: u64 = 0x4000_0000;
const STRTAB: u64 = RAM;
const CDTAB: u64 = RAM + 0x1_0000;
/// Three levels of one table each, then one of the last level.
const PGD: u64 = RAM + 0x2_0000;
const DATA: u64 = RAM + 0x100_0000;
const PAGES: u64 = 512;
const STREAM: StreamId = StreamId(0);

/// An SMMU with one process, ATSCHK as Linux sets it, and a function's cache in front of it.
fn set_up() -> (Arc<Smmu>, Arc<Atc>, Requester) {
    let ram = Arc::new(Ram::new(&[(Pa(RAM), 64 << 20)]).expect("64 MiB"));
    let put = |pa: u64, dword: u64| ram.store_u64(Pa(pa), dword).expect("in RAM");
    put(STRTAB, 6 << 59 | CDTAB | 5 << 1 | 1);
    put(STRTAB + 8, 1 << 28 | 0xd6);
    put(CDTAB + 64, 0x0002_e205_c000_3510);
    put(CDTAB + 64 + 8, PGD);
    for level in 0..3 {
        put(PGD + 0x1000 * level, (PGD + 0x1000 * (level + 1)) | 3);
    }
    for page in 0..PAGES {
        put(PGD + 0x3000 + 8 * page, (DATA + (page << 12)) | 0xc43);
    }
    let smmu = Smmu::new(SmmuConfig {
        features: Features::default(),
        ram,
        msi: Arc::new(RecordingMsiSink::new(Pa(0))),
        device_id: DeviceId(0),
        wires: Wires::unconnected(),
        clock: Arc::new(ManualClock::default()),
        alarms: Arc::new(ManualAlarms::default()),
        faults: hw::Faults::default(),
    });
    smmu.mmio_write(0x80, &STRTAB.to_le_bytes()).expect("a register");
    smmu.mmio_write(0x20, &[0x11, 0, 0, 0]).expect("a register");
    let identity =
        Identity { vendor: 1, device: 1, class: 0, revision: 0, subsystem_vendor: 0, subsystem: 0 };
    let config = Arc::new(ConfigSpace::builder(identity).ats().build());
    let (port, agent) = (Arc::clone(&smmu), Arc::clone(&smmu));
    let atc = Atc::new(AtcWiring {
        stream: STREAM,
        config: Arc::clone(&config),
        port,
        agent,
        faults: hw::Faults::default(),
    });
    let control = 0x100 + u64::from(ats::CONTROL.offset);
    atc.config_written(&config.write(control, &(ats::ENABLE as u16).to_le_bytes()));
    (smmu, atc, Requester::new(DmaTag::process(STREAM, Pasid::new(1).expect("small"))))
}

fn hits(c: &mut Criterion) {
    let (smmu, atc, who) = set_up();
    let ports: [(&str, &dyn DmaPort); 2] = [("SMMU TLB", &*smmu), ("ATC", &*atc)];
    let mut out = [0; 8];
    let mut group = c.benchmark_group("8-byte read, 256 pages in turn");
    for (name, port) in ports {
        let mut page = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                page = (page + 1) % 256;
                port.read(&who, Iova(page << 12), &mut out)
            });
        });
    }
    group.finish();
    let mut buffer = vec![0; 1 << 20];
    let mut group = c.benchmark_group("read of 1 MiB");
    group.throughput(Throughput::Bytes(1 << 20));
    for (name, port) in ports {
        group.bench_function(name, |b| b.iter(|| port.read(&who, Iova(0), &mut buffer)));
    }
    group.finish();
    let totals = atc.totals();
    assert!(totals.hits > 1000 * totals.translation_requests, "hits were measured: {totals:?}");
}

criterion_group!(benches, hits);
criterion_main!(benches);
