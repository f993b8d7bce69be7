//! Which maps there are, where their models and tests are, and how to read a model's registers after power-on.

use std::sync::Arc;

use devices::dma_test::regs::DmaTestReg;
use devices::dma_test::{DmaTest, DmaTestWiring};
use devices::gic::{DistributorReg, Gic, GicConfig, ItsReg, RedistributorReg};
use devices::hisi::qm::regs::QmReg;
use devices::hisi::qm::{Limits, NoWorkforce};
use devices::hisi::zip::regs::ZipReg;
use devices::hisi::zip::{Zip, ZipWiring};
use devices::pci::PciFunction;
use devices::rtc::{Pl031, Pl031Reg};
use devices::uart::{ConsoleOut, Pl011, Pl011Reg};
use devices::virtio::CommonCfg;
use hw::mmio::value_of;
use hw::regmap::{RegisterInfo, RegisterMap};
use hw::{
    AlarmTarget, Alarms, DeviceId, DirectPort, ManualClock, MmioDevice, Pa, Ram, RecordingMsiSink, StreamId,
    UnconnectedLine,
};
use iommu::spec::regs::SmmuReg;
use iommu::{Features, Smmu, SmmuConfig, Wires};

/// Reads a register of a model that has just been made, if it takes the access.
pub(crate) type Live = Box<dyn Fn(u64, usize) -> Option<u64>>;

/// A register map and where to look for what is known of it.
pub(crate) struct Map {
    /// The document's title.
    pub(crate) title: &'static str,
    /// The declared enum.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) registers: Vec<RegisterInfo>,
    /// Model and tests, files or folders.
    pub(crate) sources: &'static [&'static str],
    /// What tests leave out of a register's name.
    pub(crate) prefix: &'static str,
    pub(crate) live: Option<Live>,
}

/// A document with its maps.
pub(crate) struct Document {
    pub(crate) file: &'static str,
    pub(crate) maps: Vec<Map>,
}

fn map<R: RegisterMap>(
    title: &'static str,
    name: &'static str,
    sources: &'static [&'static str],
    live: Option<Live>,
) -> Map {
    let registers = R::ALL.iter().map(|(_, info)| *info).collect();
    Map { title, name, about: R::ABOUT, registers, sources, prefix: "", live }
}

/// Of an MMIO device.
fn live(device: Arc<dyn MmioDevice>) -> Option<Live> {
    Some(Box::new(move |offset, bytes| {
        let mut data = [0; 8];
        device.mmio_read(offset, &mut data[..bytes]).ok().map(|()| value_of(&data[..bytes]))
    }))
}

/// Of a PCI function's BAR.
fn bar(function: Arc<dyn PciFunction>, number: u8) -> Option<Live> {
    Some(Box::new(move |offset, bytes| {
        let mut data = [0; 8];
        function.bar_read(number, offset, &mut data[..bytes]).ok().map(|()| value_of(&data[..bytes]))
    }))
}

/// A console that takes everything.
struct Quiet;

impl ConsoleOut for Quiet {
    fn write(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

/// Alarms that never come: nothing runs here.
struct Never;

impl Alarms for Never {
    fn register(&self, _target: Arc<dyn AlarmTarget>) -> usize {
        0
    }

    fn set(&self, _slot: usize, _deadline_ns: Option<u64>) {}
}

/// All documents.
pub(crate) fn documents() -> Vec<Document> {
    let ram = Arc::new(Ram::new(&[(Pa(0x4000_0000), 1 << 20)]).expect("a MiB"));
    let msi = Arc::new(RecordingMsiSink::new(Pa(0x0809_0040)));
    let line = || Arc::new(UnconnectedLine);

    let smmu = Smmu::new(SmmuConfig {
        features: Features::default(),
        ram: ram.clone(),
        msi: msi.clone(),
        device_id: DeviceId(0x1_0000),
        wires: Wires { eventq: line(), priq: line(), cmdq_sync: line(), gerror: line() },
        clock: Arc::new(ManualClock::default()),
        alarms: Arc::new(Never),
        faults: hw::Faults::default(),
        trace: hw::Trace::default(),
        errors: hw::GuestErrors::default(),
    });
    let gic = Gic::new(GicConfig {
        affinities: vec![0],
        spis: 256,
        cpu_irq: vec![line()],
        cpu_fiq: vec![line()],
        cpu_wake: vec![line()],
        ram: ram.clone(),
        its_base: Pa(0x0808_0000),
    });
    let dma = Arc::new(DirectPort::new(ram, msi));
    let dma_test = DmaTest::new(DmaTestWiring {
        stream: StreamId(8),
        dma: dma.clone(),
        ats: None,
        workforce: Arc::new(NoWorkforce),
    })
    .expect("nobody is hired");
    let zip = Zip::new(ZipWiring {
        stream: StreamId(8),
        dma,
        translation: devices::hisi::zip::Translation::Untranslated,
        clock: Arc::new(ManualClock::default()),
        alarms: Arc::new(Never),
        workforce: Arc::new(NoWorkforce),
        limits: Limits { workers: 1, mailbox_patience_ns: 0 },
        faults: hw::Faults::default(),
        trace: hw::Trace::default(),
        errors: hw::GuestErrors::default(),
    })
    .expect("nobody is hired");
    let bar2 = || bar(zip.clone(), 2);

    const GIC: &[&str] = &["devices/src/gic"];
    vec![
        Document {
            file: "smmuv3.md",
            maps: vec![Map {
                prefix: "SMMU_",
                ..map::<SmmuReg>("SMMUv3", "SmmuReg", &["iommu/src", "firmware/tests"], live(smmu))
            }],
        },
        Document {
            file: "gicv3.md",
            maps: vec![
                map::<DistributorReg>("Distributor", "DistributorReg", GIC, live(gic.distributor())),
                map::<RedistributorReg>("Redistributor", "RedistributorReg", GIC, live(gic.redistributors())),
                map::<ItsReg>("ITS", "ItsReg", GIC, live(gic.its())),
            ],
        },
        Document {
            file: "pl011.md",
            maps: vec![map::<Pl011Reg>(
                "PL011",
                "Pl011Reg",
                &["devices/src/uart.rs", "devices/src/uart"],
                live(Pl011::new(Arc::new(Quiet), line())),
            )],
        },
        Document {
            file: "pl031.md",
            maps: vec![Map {
                prefix: "RTC",
                ..map::<Pl031Reg>(
                    "PL031",
                    "Pl031Reg",
                    &["devices/src/rtc.rs"],
                    live(Pl031::new(Arc::new(ManualClock::default()), Arc::new(Never), line(), 0)),
                )
            }],
        },
        Document {
            file: "virtio-pci.md",
            maps: vec![map::<CommonCfg>("virtio-pci", "CommonCfg", &["devices/src/virtio"], None)],
        },
        Document {
            file: "dma-test.md",
            maps: vec![map::<DmaTestReg>(
                "DMA test device",
                "DmaTestReg",
                &["devices/src/dma_test"],
                bar(dma_test, 0),
            )],
        },
        Document {
            file: "hisi-zip.md",
            maps: vec![
                map::<QmReg>("Queue manager", "QmReg", &["devices/src/hisi"], bar2()),
                map::<ZipReg>("ZIP engine", "ZipReg", &["devices/src/hisi"], bar2()),
            ],
        },
    ]
}
