//! Which maps there are, where their models and tests are, and how to read a model's registers after power-on.

use std::sync::Arc;

use cpu::sys::declared::{SystemReg, value_after_reset};
use devices::dma_test::regs::DmaTestReg;
use devices::dma_test::{DmaTest, DmaTestWiring};
use devices::gic::{CpuInterfaceReg, DistributorReg, Gic, GicConfig, ItsReg, RedistributorReg};
use devices::hisi::qm::Limits;
use devices::hisi::qm::regs::QmReg;
use devices::hisi::zip::Zip;
use devices::hisi::zip::regs::ZipReg;
use devices::hisi::{FunctionWiring, Translation};
use devices::pci::PciFunction;
use devices::pci::caps::{
    acs::AcsReg, ari::AriReg, ats::AtsReg, bridge::BridgeReg, capability::CapabilityReg, express::ExpressReg,
    extended::ExtendedReg, header::HeaderReg, msi::MsiReg, msix::MsixReg, page_request::PageRequestReg,
    pasid::PasidReg, pm::PmReg,
};
use devices::rtc::{Pl031, Pl031Reg};
use devices::uart::{ConsoleOut, Pl011, Pl011Reg};
use devices::virtio::CommonCfg;
use devices::virtio::cap::{CapReg, PciCfgReg};
use hw::mmio::value_of;
use hw::regmap::{RegisterInfo, RegisterMap};
use hw::schedule::Stepped;
use hw::{
    AlarmTarget, Alarms, DeviceId, DirectPort, ManualClock, MmioDevice, Pa, Ram, RecordingMsiSink, StreamId,
    SysReg, SysRegDevice, UnconnectedLine,
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
    /// The registers are named by the module that they are in, as `module::NAME`; alone their names say too little.
    pub(crate) is_module: bool,
    /// Offsets are places of system registers.
    pub(crate) is_encoded: bool,
    /// How far registers go of which neither the declaration nor the sources say it.
    pub(crate) status: Option<&'static str>,
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
    Map {
        title,
        name,
        about: R::ABOUT,
        registers,
        sources,
        prefix: "",
        is_module: false,
        is_encoded: false,
        status: None,
        live,
    }
}

/// A capability of configuration space: a module of [`devices::pci::caps`].
fn capability<R: RegisterMap>(title: &'static str, module: &'static str) -> Map {
    Map { is_module: true, ..map::<R>(title, module, &["devices/src/pci", "devices/src/virtio"], None) }
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
        scheduler: Arc::new(Stepped),
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
        errors: hw::GuestErrors::default(),
    });
    let dma = Arc::new(DirectPort::new(ram, msi));
    let dma_test = DmaTest::new(DmaTestWiring {
        stream: StreamId(8),
        dma: dma.clone(),
        ats: None,
        scheduler: Arc::new(Stepped),
    })
    .expect("nothing is started");
    let zip = Zip::new(FunctionWiring {
        stream: StreamId(8),
        dma,
        translation: Translation::Untranslated,
        clock: Arc::new(ManualClock::default()),
        alarms: Arc::new(Never),
        scheduler: Arc::new(Stepped),
        limits: Limits { workers: 1, mailbox_patience_ns: 0 },
        faults: hw::Faults::default(),
        trace: hw::Trace::default(),
        errors: hw::GuestErrors::default(),
    })
    .expect("nothing is started");
    let bar2 = || bar(zip.clone(), 2);

    let cpu_interface = gic.clone();
    let interface: Option<Live> =
        Some(Box::new(move |place, _| cpu_interface.sysreg_read(0, SysReg::at(place))));

    const GIC: &[&str] = &["devices/src/gic"];
    const VIRTIO: &[&str] = &["devices/src/virtio"];
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
            file: "system.md",
            maps: vec![
                Map {
                    is_encoded: true,
                    // What the CPU does with them is in a table that names them all.
                    status: Some("modelled"),
                    ..map::<SystemReg>(
                        "System registers",
                        "SystemReg",
                        &["cpu/src", "firmware/tests"],
                        Some(Box::new(|place, _| {
                            Some(value_after_reset(cpu::sys::features::Features::default(), place))
                        })),
                    )
                },
                Map {
                    is_encoded: true,
                    ..map::<CpuInterfaceReg>("CPU interface of the GIC", "CpuInterfaceReg", GIC, interface)
                },
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
            maps: vec![
                map::<CommonCfg>("virtio-pci", "CommonCfg", VIRTIO, None),
                map::<CapReg>("Capability of a structure", "CapReg", VIRTIO, None),
                map::<PciCfgReg>("Capability for accesses", "PciCfgReg", VIRTIO, None),
            ],
        },
        Document {
            file: "pci.md",
            maps: vec![
                capability::<HeaderReg>("Header of a function", "header"),
                capability::<BridgeReg>("Header of a port", "bridge"),
                capability::<CapabilityReg>("Capability", "capability"),
                capability::<PmReg>("Power management", "pm"),
                capability::<MsiReg>("MSI", "msi"),
                capability::<MsixReg>("MSI-X", "msix"),
                capability::<ExpressReg>("PCI Express", "express"),
                capability::<ExtendedReg>("Extended capability", "extended"),
                capability::<AtsReg>("ATS", "ats"),
                capability::<PageRequestReg>("Page requests", "page_request"),
                capability::<PasidReg>("PASID", "pasid"),
                capability::<AcsReg>("Access control services", "acs"),
                capability::<AriReg>("Alternative routing-ID interpretation", "ari"),
            ],
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
