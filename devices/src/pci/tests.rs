use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hw::mmio::{put_value, value_of};
use hw::regmap::check_map;
use hw::{
    BusError, DeviceId, DirectPort, DmaFault, DmaPort, DmaTag, Iova, LifeCycle, MmioDevice, Pa, Pasid, Ram,
    RecordingMsiSink, Requester, StreamId,
};
use proptest::prelude::*;

use super::caps::{
    PortType, acs, ari, ats, bridge, capability, express, extended, header, msi, msix, page_request, pasid,
    pm,
};
use super::*;

mod saved;

const DOORBELL: u64 = 0x809_0040;
/// Where the builder puts the capabilities of the functions below: one behind the other.
const EXPRESS: u64 = 0x40;
const PM: u64 = EXPRESS + express::LEN as u64;
const MSI: u64 = PM + pm::LEN as u64;
const PASID: u64 = 0x100;
const PORT_ACS: u64 = 0x100;
const ACS: u64 = PASID + pasid::LEN as u64;
/// Of a function that has no other before it.
const MSIX: u64 = 0x40;
const MSIX_ENABLE: u64 = 1 << 31;

const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x5678,
    class: 0x12_00_00,
    revision: 0x30,
    subsystem_vendor: 1,
    subsystem: 2,
};

/// A function that remembers the accesses to its BARs.
struct Probe {
    config: ConfigSpace,
    seen: Mutex<Vec<(u8, u64, u64)>>,
    resets: AtomicUsize,
}

impl Probe {
    fn new(config: ConfigBuilder) -> Arc<Self> {
        Arc::new(Self { config: config.build(), seen: Mutex::default(), resets: AtomicUsize::new(0) })
    }

    fn seen(&self) -> Vec<(u8, u64, u64)> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl PciFunction for Probe {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        put_value(data, u64::from(bar) << 56 | offset);
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), BusError> {
        if offset == 0xff0 {
            return Err(BusError::NoRegister(offset));
        }
        self.seen.lock().unwrap().push((bar, offset, value_of(data)));
        Ok(())
    }

    fn function_reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl PendingWaker for CountingWaker {
    fn messages_ready(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn full() -> ConfigBuilder {
    ConfigSpace::builder(IDENTITY)
        .bar(0, Bar::memory32(0x1000))
        .bar(1, Bar::io(0x20))
        .bar(2, Bar::prefetchable64(0x40_0000))
        .express(PortType::RcIntegratedEndpoint)
        .power_management()
        .msi(4)
        .pasid(16, true, false)
        .acs(0x14)
}

fn with_msix(vectors: u16) -> ConfigBuilder {
    ConfigSpace::builder(IDENTITY).bar(4, Bar::memory64(0x4000)).msix(MsixLayout {
        vectors,
        bar: 4,
        table_offset: 0x1000,
        pba_offset: 0x2000,
    })
}

/// A host with ECAM and a memory window over the whole address space.
struct Bench {
    host: Arc<PciHost>,
    ecam: Arc<dyn MmioDevice>,
    memory: Arc<dyn MmioDevice>,
    io: Arc<dyn MmioDevice>,
    port: DirectPort,
    sink: Arc<RecordingMsiSink>,
}

impl Bench {
    fn new() -> Self {
        let host = PciHost::new();
        let sink = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
        let ram = Arc::new(Ram::new(&[(Pa(0x4000_0000), 0x1000)]).unwrap());
        Self {
            ecam: host.ecam(),
            memory: host.memory_window(0),
            io: host.io_window(0),
            host,
            port: DirectPort::new(ram, sink.clone()),
            sink,
        }
    }

    /// A register of the header, or an offset.
    fn config_read(&self, devfn: u64, at: impl Into<u64>, len: usize) -> u64 {
        read(&*self.ecam, devfn << 12 | at.into(), len)
    }

    fn config_write(&self, devfn: u64, at: impl Into<u64>, len: usize, value: u64) {
        write(&*self.ecam, devfn << 12 | at.into(), len, value);
    }

    fn messages(&self) -> Vec<(DeviceId, u32)> {
        self.sink.take()
    }

    /// Enables MSI with 4 vectors at the doorbell, data 0x40, and bus mastering.
    fn enable_msi(&self, devfn: u64) {
        self.config_write(devfn, MSI + msi::ADDRESS.offset(), 4, DOORBELL);
        self.config_write(devfn, MSI + msi::UPPER_ADDRESS.offset(), 4, 0);
        self.config_write(devfn, MSI + msi::DATA.offset(), 2, 0x40);
        self.config_write(devfn, MSI + msi::CONTROL.offset(), 2, 0x21);
        self.config_write(devfn, header::COMMAND, 2, 0x6);
    }
}

fn read(device: &dyn MmioDevice, offset: u64, len: usize) -> u64 {
    let mut data = vec![0; len];
    device.mmio_read(offset, &mut data).unwrap();
    value_of(&data)
}

fn write(device: &dyn MmioDevice, offset: u64, len: usize, value: u64) {
    let mut data = vec![0; len];
    put_value(&mut data, value);
    device.mmio_write(offset, &data).unwrap();
}

fn who() -> Requester {
    Requester::new(DmaTag::untagged(StreamId(8)))
}

#[test]
fn maps_of_headers_and_capabilities_are_sound() {
    check_map::<header::HeaderReg>();
    check_map::<bridge::BridgeReg>();
    check_map::<capability::CapabilityReg>();
    check_map::<extended::ExtendedReg>();
    check_map::<pm::PmReg>();
    check_map::<msi::MsiReg>();
    check_map::<msix::MsixReg>();
    check_map::<express::ExpressReg>();
    check_map::<pasid::PasidReg>();
    check_map::<ats::AtsReg>();
    check_map::<page_request::PageRequestReg>();
    check_map::<acs::AcsReg>();
    check_map::<ari::AriReg>();
}

#[test]
fn absent_function_reads_all_ones_at_any_width_and_drops_writes() {
    let bench = Bench::new();
    for (offset, len) in [(0x8000, 4), (0x8002, 2), (0xfff_ffff, 1), (0x10_0000, 8)] {
        let all = if len == 8 { u64::MAX } else { (1 << (8 * len)) - 1 };
        assert_eq!(read(&*bench.ecam, offset, len), all, "{offset:#x}");
        write(&*bench.ecam, offset, len, 0);
    }
}

#[test]
fn host_bridge_is_at_00_00_0_and_its_place_is_taken() {
    let bench = Bench::new();
    assert_eq!(bench.config_read(0, header::VENDOR_ID, 4), 0x0008_1b36);
    assert_eq!(bench.config_read(0, header::SUB_CLASS_CODE, 2), 0x0600);
    assert!(bench.host.attach(0, 0, Probe::new(full())).is_err());
    assert_eq!(bench.host.attach(1, 0x10, Probe::new(full())), Ok(StreamId(0x110)));
    assert_eq!(read(&*bench.ecam, 0x11_0000, 4), 0x5678_1234);
}

#[test]
fn identity_is_read_only_and_reads_at_every_width() {
    let bench = Bench::new();
    bench.host.attach(0, 8, Probe::new(full())).unwrap();
    bench.config_write(8, header::VENDOR_ID, 4, 0xdead_beef);
    bench.config_write(8, header::REVISION_ID, 4, 0xdead_beef);
    assert_eq!(bench.config_read(8, header::VENDOR_ID, 8), 0x0010_0000_5678_1234);
    assert_eq!(bench.config_read(8, header::REVISION_ID, 4), 0x1200_0030);
    assert_eq!(bench.config_read(8, header::BASE_CLASS_CODE, 1), 0x12);
    assert_eq!(bench.config_read(8, header::SUBSYSTEM_VENDOR_ID, 4), 0x0002_0001);
}

#[test]
fn bars_tell_their_size_and_kind_when_all_ones_are_written() {
    let bench = Bench::new();
    bench.host.attach(0, 8, Probe::new(full())).unwrap();
    for bar in 0..6 {
        bench.config_write(8, header::BAR.at(bar), 4, 0xffff_ffff);
    }
    assert_eq!(bench.config_read(8, header::BAR.at(0), 4), 0xffff_f000);
    assert_eq!(bench.config_read(8, header::BAR.at(1), 4), 0xffff_ffe1);
    assert_eq!(bench.config_read(8, header::BAR.at(2), 8), 0xffff_ffff_ffc0_000c);
    assert_eq!(bench.config_read(8, header::BAR.at(4), 8), 0, "no BAR 4");
    assert_eq!(bench.config_read(8, 0x30_u64, 4), 0, "no expansion ROM");
}

#[test]
fn bar_answers_where_it_was_put_and_only_while_command_enables_it() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.config_write(8, header::BAR.at(2), 4, 0x1000_0000);
    bench.config_write(8, header::BAR.at(3), 4, 0x80);
    bench.config_write(8, header::BAR.at(1), 4, 0x1000);
    write(&*bench.memory, 0x80_1000_0008, 8, 1);
    assert_eq!(probe.seen(), [], "memory space is not enabled");

    bench.config_write(8, header::COMMAND, 2, 0x2);
    write(&*bench.memory, 0x80_1000_0008, 8, 0x11_2233_4455);
    write(&*bench.io, 0x1004, 4, 7);
    assert_eq!(probe.seen(), [(2, 8, 0x11_2233_4455)], "I/O space is not enabled");

    bench.config_write(8, header::COMMAND, 2, 0x1);
    write(&*bench.memory, 0x80_1000_0008, 8, 1);
    write(&*bench.io, 0x1004, 4, 7);
    assert_eq!(probe.seen(), [(1, 4, 7)]);
    assert_eq!(read(&*bench.memory, 0x80_1000_0008, 4), 0xffff_ffff);
}

#[test]
fn window_translates_by_its_base_and_refused_accesses_read_all_ones() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.config_write(8, header::BAR.at(0), 4, 0x1000_2000);
    bench.config_write(8, header::COMMAND, 2, 0x2);
    let window = bench.host.memory_window(0x1000_0000);
    assert_eq!(read(&*window, 0x2010, 4), 0x10);
    assert_eq!(read(&*window, 0x3000, 4), 0xffff_ffff, "past the BAR");
    assert_eq!(read(&*window, 0x2ffc, 8), u64::MAX, "half past the BAR");
    write(&*window, 0x2ff0, 4, 1);
    assert_eq!(probe.seen(), []);
    assert_eq!(probe.config.errors().counted(), [("accesses to BARs that are refused", 1)]);
}

#[test]
fn overlapping_bars_are_answered_by_the_lowest_function() {
    let bench = Bench::new();
    let (low, high) = (Probe::new(full()), Probe::new(full()));
    bench.host.attach(0, 0x10, high.clone()).unwrap();
    bench.host.attach(0, 8, low.clone()).unwrap();
    bench.config_write(0x10, header::BAR.at(2), 4, 0x1000_0000);
    bench.config_write(8, header::BAR.at(0), 4, 0x1010_0000);
    for devfn in [8, 0x10] {
        bench.config_write(devfn, header::COMMAND, 2, 2);
    }
    // The small BAR of the lower function lies inside the large one of the higher.
    for (at, value) in [(0x100f_fffc, 1), (0x1010_0000, 2), (0x1010_1000, 3), (0x1010_0ffc, 4)] {
        write(&*bench.memory, at, 4, value);
    }
    assert_eq!(low.seen(), [(0, 0, 2), (0, 0xffc, 4)]);
    assert_eq!(high.seen(), [(2, 0xf_fffc, 1), (2, 0x10_1000, 3)]);
    // An access over the border is nobody's.
    assert_eq!(read(&*bench.memory, 0x1010_0ffc, 8), u64::MAX);
}

#[test]
fn bar_at_the_end_of_the_address_space_is_harmless() {
    let bench = Bench::new();
    bench.host.attach(0, 8, Probe::new(full())).unwrap();
    bench.config_write(8, header::BAR.at(2), 8, u64::MAX);
    bench.config_write(8, header::COMMAND, 2, 7);
    assert_eq!(read(&*bench.memory, u64::MAX - 7, 8), 0x0200_0000_003f_fff8);
}

#[test]
fn capability_chains_lead_through_all_and_end() {
    let bench = Bench::new();
    bench.host.attach(0, 8, Probe::new(full())).unwrap();
    assert_eq!(bench.config_read(8, header::STATUS, 2) & 0x10, 0x10);
    let mut at = bench.config_read(8, header::CAPABILITIES_POINTER, 1);
    let mut ids = Vec::new();
    while at != 0 {
        ids.push(bench.config_read(8, at, 1));
        at = bench.config_read(8, at + 1, 1);
    }
    assert_eq!(ids, [0x10, 0x01, 0x05]);
    let mut at = 0x100;
    let mut extended = Vec::new();
    while at != 0 {
        let head = bench.config_read(8, at, 4);
        extended.push(head & 0xffff);
        at = head >> 20;
    }
    assert_eq!(extended, [0x1b, 0x0d]);
    assert_eq!(bench.config_read(8, PASID + pasid::CAPABILITY.offset(), 2), 0x1002, "16 bits, execute");
    bench.config_write(8, PASID + pasid::CONTROL.offset(), 2, 0xffff);
    assert_eq!(bench.config_read(8, PASID + pasid::CONTROL.offset(), 2), 0x3);
    bench.config_write(8, ACS + acs::CONTROL.offset(), 2, 0xffff);
    assert_eq!(bench.config_read(8, ACS + acs::CONTROL.offset(), 2), 0x14, "only the offered services");
}

#[test]
fn function_without_capabilities_does_not_claim_a_list() {
    let config = ConfigSpace::builder(IDENTITY).build();
    let mut status = [0; 2];
    config.read(header::STATUS.offset(), &mut status);
    assert_eq!(status, [0, 0]);
}

#[test]
fn integrated_endpoint_shows_type_9_reset_and_prefix_support() {
    let bench = Bench::new();
    bench.host.attach(0, 8, Probe::new(full())).unwrap();
    assert_eq!(bench.config_read(8, EXPRESS + express::CAPABILITIES.offset(), 2), 0x92);
    assert_eq!(bench.config_read(8, EXPRESS + express::DEVICE_CAPABILITIES.offset(), 4) >> 28 & 1, 1);
    assert_eq!(bench.config_read(8, EXPRESS + express::DEVICE_CAPABILITIES_2.offset(), 4) >> 21 & 1, 1);
    assert_eq!(bench.config_read(8, EXPRESS + express::LINK_CAPABILITIES.offset(), 8), 0, "no link");
}

#[test]
fn message_goes_out_without_pasid_as_base_data_plus_vector() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    probe.config.raise(3, &bench.port, &who());
    assert_eq!(bench.messages(), [], "neither enabled nor bus master");
    bench.enable_msi(8);
    for vector in [0, 3, 5] {
        probe.config.raise(vector, &bench.port, &who());
    }
    let id = DeviceId(8);
    assert_eq!(bench.messages(), [(id, 0x40), (id, 0x43), (id, 0x41)], "vector 5 shares with 1 of 4");
    bench.config_write(8, MSI + msi::CONTROL.offset(), 2, 0x71);
    probe.config.raise(3, &bench.port, &who());
    assert_eq!(bench.messages(), [(id, 0x43)], "reserved Multiple Message Enable grants what is offered");
    bench.config_write(8, header::COMMAND, 2, 0x2);
    probe.config.raise(0, &bench.port, &who());
    assert_eq!(bench.messages(), [], "no bus master");
}

#[test]
fn message_to_an_address_where_nothing_is_is_counted() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.enable_msi(8);
    probe.config.raise(0, &bench.port, &who());
    assert_eq!(probe.config.errors().counted(), []);
    bench.config_write(8, MSI + 4, 4, 0x1000);
    probe.config.raise(0, &bench.port, &who());
    assert_eq!(probe.config.errors().counted(), [("messages (MSI) that are lost", 1)]);
}

#[test]
fn masked_message_pends_and_goes_when_unmasked() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    let waker = Arc::new(CountingWaker::default());
    probe.config.set_pending_waker(waker.clone());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.enable_msi(8);
    bench.config_write(8, MSI + msi::MASK.offset(), 4, 0xffff_ffff);
    assert_eq!(bench.config_read(8, MSI + msi::MASK.offset(), 4), 0xf, "four vectors");
    probe.config.raise(2, &bench.port, &who());
    probe.config.raise(2, &bench.port, &who());
    assert_eq!((bench.messages(), bench.config_read(8, MSI + msi::PENDING.offset(), 4)), (vec![], 0b100));
    assert_eq!(waker.0.load(Ordering::SeqCst), 0);

    bench.config_write(8, MSI + msi::MASK.offset(), 4, 0xb);
    assert_eq!(waker.0.load(Ordering::SeqCst), 1);
    assert_eq!(bench.messages(), [], "the unmasking CPU makes no DMA");
    probe.config.deliver_pending(&bench.port, &who());
    assert_eq!(bench.messages(), [(DeviceId(8), 0x42)]);
    assert_eq!(bench.config_read(8, MSI + msi::PENDING.offset(), 4), 0);
}

#[test]
fn disabling_messages_discards_what_is_pending() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.enable_msi(8);
    bench.config_write(8, MSI + msi::MASK.offset(), 4, 0xf);
    probe.config.raise(1, &bench.port, &who());
    bench.config_write(8, MSI, 4, 0x20_0000);
    assert_eq!(bench.config_read(8, MSI + msi::PENDING.offset(), 4), 0);
}

#[test]
fn msix_table_masks_each_vector_and_the_function() {
    let bench = Bench::new();
    let probe = Probe::new(with_msix(65));
    let waker = Arc::new(CountingWaker::default());
    probe.config.set_pending_waker(waker.clone());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.config_write(8, header::BAR.at(4), 4, 0x1000_0000);
    bench.config_write(8, header::COMMAND, 2, 0x6);
    bench.config_write(8, MSIX, 4, MSIX_ENABLE);
    assert_eq!(bench.config_read(8, MSIX + msix::CONTROL.offset(), 2), 0x8040, "enabled, 65 vectors");
    let entry = 0x1000_1000 + 64 * 16;
    assert_eq!(read(&*bench.memory, entry + 12, 4), 1, "masked at reset");
    write(&*bench.memory, entry, 8, DOORBELL);
    write(&*bench.memory, entry + 8, 4, 0x123);

    probe.config.raise(64, &bench.port, &who());
    assert_eq!(read(&*bench.memory, 0x1000_2008, 8), 1);
    write(&*bench.memory, entry + 12, 4, 0xffff_fffe);
    assert_eq!(read(&*bench.memory, entry + 12, 4), 0, "reserved bits");
    assert_eq!(waker.0.load(Ordering::SeqCst), 1);
    probe.config.deliver_pending(&bench.port, &who());
    assert_eq!(bench.messages(), [(DeviceId(8), 0x123)]);

    bench.config_write(8, MSIX, 4, 0xc000_0000);
    probe.config.raise(64, &bench.port, &who());
    write(&*bench.memory, 0x1000_2008, 8, 0);
    assert_eq!(read(&*bench.memory, 0x1000_2008, 8), 1, "pending bits are read-only");
    bench.config_write(8, MSIX, 4, MSIX_ENABLE);
    assert_eq!(waker.0.load(Ordering::SeqCst), 2);
    probe.config.deliver_pending(&bench.port, &who());
    assert_eq!(bench.messages(), [(DeviceId(8), 0x123)]);
    probe.config.raise(65, &bench.port, &who());
    assert_eq!(bench.messages(), [], "there is no vector 65");
}

#[test]
fn msix_table_takes_only_aligned_words_and_the_rest_of_the_bar_is_the_functions() {
    let bench = Bench::new();
    let probe = Probe::new(with_msix(2));
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.config_write(8, header::BAR.at(4), 4, 0x1000_0000);
    bench.config_write(8, header::COMMAND, 2, 0x2);
    assert_eq!(read(&*bench.memory, 0x1000_1000, 2), 0xffff);
    write(&*bench.memory, 0x1000_1004, 8, u64::MAX);
    assert_eq!(read(&*bench.memory, 0x1000_1008, 4), 0);
    write(&*bench.memory, 0x1000_1020, 4, 5);
    assert_eq!(probe.seen(), [(4, 0x1020, 5)]);
}

#[test]
fn function_level_reset_restores_registers_closes_the_gates_and_tells_the_function() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.config_write(8, header::BAR.at(2), 4, 0x1000_0000);
    bench.enable_msi(8);
    bench.config_write(8, PASID + pasid::CONTROL.offset(), 2, 1);
    assert!(probe.config.is_bus_master() && probe.config.is_pasid_enabled());

    bench.config_write(8, EXPRESS + express::DEVICE_CONTROL.offset(), 2, 0xa810);

    assert_eq!(probe.resets.load(Ordering::SeqCst), 1);
    assert!(!probe.config.is_bus_master() && !probe.config.is_pasid_enabled());
    assert_eq!(
        bench.config_read(8, EXPRESS + express::DEVICE_CONTROL.offset(), 2),
        0x2810,
        "Initiate reads as zero"
    );
    assert_eq!(bench.config_read(8, MSI + msi::CONTROL.offset(), 2) & 1, 0);
    assert_eq!(bench.config_read(8, header::BAR.at(2), 4), 0xc);
    assert_eq!(read(&*bench.memory, 0x1000_0000, 4), 0xffff_ffff);
    probe.config.raise(0, &bench.port, &who());
    assert_eq!(bench.messages(), []);
}

#[test]
fn d3hot_closes_bars_and_dma_and_d0_reopens_them_with_all_state() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    bench.config_write(8, header::BAR.at(0), 4, 0x1000_0000);
    bench.config_write(8, header::COMMAND, 2, 6);
    bench.config_write(8, PM + pm::PMCSR.offset(), 2, 1);
    assert_eq!(bench.config_read(8, PM + pm::PMCSR.offset(), 2), 8, "there is no D1; no soft reset");
    bench.config_write(8, PM + pm::PMCSR.offset(), 2, 3);
    assert!(!probe.config.is_bus_master());
    assert_eq!(read(&*bench.memory, 0x1000_0000, 4), 0xffff_ffff);
    bench.config_write(8, PM + pm::PMCSR.offset(), 2, 0);
    assert!(probe.config.is_bus_master());
    assert_eq!(read(&*bench.memory, 0x1000_0004, 4), 4);
}

#[test]
fn bus_master_port_aborts_until_the_guest_enables_it() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    let ram = Arc::new(Ram::new(&[(Pa(0x1000), 0x1000)]).unwrap());
    let port = BusMasterPort::new(&probe.config, Arc::new(DirectPort::new(ram, bench.sink.clone())));
    let at = Iova(0x1000);
    assert_eq!(port.write(&who(), at, &[1]), Err(DmaFault::Aborted(at)));
    assert!(port.pin(&who(), at, 1, hw::Dir::Read).is_err());
    bench.config_write(8, header::COMMAND, 2, 4);
    assert_eq!(port.write(&who(), at, &[1]), Ok(()));
}

#[test]
fn bus_master_port_aborts_what_pasid_control_does_not_enable() {
    let bench = Bench::new();
    let probe = Probe::new(full());
    bench.host.attach(0, 8, probe.clone()).unwrap();
    let ram = Arc::new(Ram::new(&[(Pa(0x1000), 0x1000)]).unwrap());
    let port = BusMasterPort::new(&probe.config, Arc::new(DirectPort::new(ram, bench.sink.clone())));
    bench.config_write(8, header::COMMAND, 2, 4);
    let process = DmaTag::process(StreamId(8), Pasid::new(1).unwrap());
    let execute = DmaTag { execute: true, ..process };
    let privileged = DmaTag { privileged: true, ..process };
    let allowed = || {
        [process, execute, privileged]
            .map(|tag| port.read(&Requester::new(tag), Iova(0x1000), &mut [0]).is_ok())
    };
    assert_eq!(allowed(), [false; 3]);
    bench.config_write(8, PASID + pasid::CONTROL.offset(), 2, 1);
    assert_eq!(allowed(), [true, false, false]);
    bench.config_write(8, PASID + pasid::CONTROL.offset(), 2, 7);
    assert_eq!(allowed(), [true, true, false], "privileged requests are not offered");
    bench.config_write(8, header::COMMAND, 2, 0);
    assert_eq!(allowed(), [false; 3]);
}

#[test]
fn detached_function_is_gone() {
    let bench = Bench::new();
    let rid = bench.host.attach(0, 8, Probe::new(full())).unwrap();
    assert!(bench.host.detach(rid).is_some());
    assert_eq!(bench.config_read(8, header::VENDOR_ID, 4), 0xffff_ffff);
}

/// The configuration space of a function, the MSI-X table and pending bits of one that has them.
fn space(config: &ConfigSpace) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    config.read(0, &mut bytes);
    if let Some(layout) = config.msix_layout() {
        for offset in (0..0x4000).step_by(4).filter(|at| layout.covers(layout.bar, *at)) {
            let mut word = [0; 4];
            config.msix_read(offset, &mut word).unwrap();
            bytes.extend(word);
        }
    }
    bytes
}

#[test]
fn machine_reset_brings_all_configuration_spaces_and_routes_back_to_power_on() {
    let bench = Bench::new();
    let (port, bridge) = (RootPort::new(), RootPort::new());
    let probes = [Probe::new(full().ats().page_requests(8)), Probe::new(with_msix(65)), Probe::new(full())];
    bench.host.attach(0, 8, probes[0].clone()).unwrap();
    bench.host.attach(0, 0x18, probes[1].clone()).unwrap();
    port.attach(0, probes[2].clone()).unwrap();
    bench.host.attach(0, 0x10, port.clone()).unwrap();
    bench.host.attach(0, 0x20, bridge).unwrap();
    let spaces = || -> Vec<_> {
        let configs = probes.iter().map(|probe| &probe.config).chain([port.config()]);
        configs.map(|config| (space(config), config.requester_id(), config.is_ats_enabled())).collect()
    };
    let at_power_on = spaces();
    for round in 0..100 {
        bench.config_write(0x10, bridge::PRIMARY_BUS, 4, 0x0005_0500);
        bench.config_write(0x10, header::COMMAND, 2, 6);
        for rid in [8, 0x18, CHILD] {
            bench.config_write(rid, header::BAR.at(0), 8, 0x1000_0000 + (rid << 12));
            bench.config_write(rid, header::BAR.at(4), 4, 0x2000_0000);
            bench.config_write(rid, header::COMMAND, 2, 7);
        }
        bench.enable_msi(8);
        bench.config_write(8, MSI + msi::MASK.offset(), 4, 0xf);
        probes[0].config.raise(1, &bench.port, &who());
        bench.config_write(0x18, MSIX, 4, MSIX_ENABLE);
        write(&*bench.memory, 0x2000_1000, 8, DOORBELL);
        probes[1].config.raise(3, &bench.port, &who());
        // Every bit that can be set, but for what resets.
        for at in (0x40_u64..0x100).chain(0x100..0x200) {
            bench.config_write(
                8,
                at,
                1,
                if at == EXPRESS + express::DEVICE_CONTROL.offset() + 1 { 0 } else { 0xff },
            );
        }
        assert!(probes[0].config.is_ats_enabled() && probes[2].config.requester_id().is_some());
        bench.host.reset();
        assert!(spaces() == at_power_on, "round {round}");
        assert_eq!(read(&*bench.memory, 0x2000_1000, 4), 0xffff_ffff, "nothing answers");
        for probe in &probes {
            probe.config.deliver_pending(&bench.port, &who());
            assert!(!probe.config.is_bus_master());
        }
        assert_eq!(bench.messages(), []);
    }
    assert!(
        probes.iter().all(|probe| probe.resets.load(Ordering::SeqCst) == 0),
        "they reset the rest themselves"
    );
}

/// A port at 00:02.0 with a function behind it, its bus given number 5.
fn behind_port() -> (Bench, Arc<Probe>) {
    let bench = Bench::new();
    let port = RootPort::new();
    let probe = Probe::new(full());
    port.attach(0, probe.clone()).unwrap();
    bench.host.attach(0, 0x10, port).unwrap();
    bench.config_write(0x10, bridge::PRIMARY_BUS, 4, 0x0005_0500);
    (bench, probe)
}

const CHILD: u64 = 5 << 8;

#[test]
fn port_is_a_bridge_with_hard_wired_redirection() {
    let (bench, _) = behind_port();
    assert_eq!(bench.config_read(0x10, header::VENDOR_ID, 4), 0x000c_1b36);
    assert_eq!(bench.config_read(0x10, header::HEADER_TYPE, 1), 1);
    assert_eq!(
        bench.config_read(0x10, EXPRESS + express::CAPABILITIES.offset(), 2),
        0x42,
        "type 4, version 2"
    );
    bench.config_write(0x10, bridge::IO_BASE, 4, 0xffff_ffff);
    assert_eq!(bench.config_read(0x10, bridge::IO_BASE, 2), 0, "no I/O window");
    assert_eq!(
        bench.config_read(0x10, PORT_ACS + acs::CAPABILITY.offset(), 4),
        0,
        "ACS offers nothing to switch"
    );
    bench.config_write(0x10, header::BAR.at(0), 4, 0xffff_ffff);
    assert_eq!(bench.config_read(0x10, header::BAR.at(0), 4), 0, "no BAR");
}

#[test]
fn function_behind_a_port_answers_on_the_bus_number_that_the_guest_gave() {
    let (bench, _) = behind_port();
    assert_eq!(bench.config_read(CHILD, header::VENDOR_ID, 4), 0x5678_1234);
    assert_eq!(bench.config_read(CHILD + 8, header::VENDOR_ID, 4), 0xffff_ffff, "one device behind a port");
    assert_eq!(bench.config_read(6 << 8, header::VENDOR_ID, 4), 0xffff_ffff);
    bench.config_write(0x10, bridge::SECONDARY_BUS, 1, 7);
    assert_eq!(bench.config_read(CHILD, header::VENDOR_ID, 4), 0xffff_ffff);
    assert_eq!(bench.config_read(7 << 8, header::VENDOR_ID, 4), 0x5678_1234);
    bench.config_write(0x10, bridge::SECONDARY_BUS, 1, 0);
    assert_eq!(bench.config_read(0, header::VENDOR_ID, 4), 0x0008_1b36, "the root bus stays itself");
}

#[test]
fn function_numbers_beyond_7_need_ari_forwarding() {
    let bench = Bench::new();
    let port = RootPort::new();
    port.attach(9, Probe::new(full().ari(0))).unwrap();
    assert!(port.attach(9, Probe::new(full())).is_err());
    bench.host.attach(0, 0x10, port).unwrap();
    bench.config_write(0x10, bridge::PRIMARY_BUS, 4, 0x0005_0500);
    assert_eq!(bench.config_read(CHILD + 9, header::VENDOR_ID, 4), 0xffff_ffff);
    bench.config_write(0x10, EXPRESS + express::DEVICE_CONTROL_2.offset(), 2, 0x20);
    assert_eq!(bench.config_read(CHILD + 9, header::VENDOR_ID, 4), 0x5678_1234);
}

#[test]
fn bars_behind_a_port_answer_only_inside_its_windows() {
    let (bench, probe) = behind_port();
    bench.config_write(CHILD, header::BAR.at(0), 4, 0x1020_0000);
    bench.config_write(CHILD, header::BAR.at(2), 8, 0x80_0040_0000);
    bench.config_write(CHILD, header::COMMAND, 2, 6);
    // Memory window 0x1010_0000 to 0x102f_ffff; prefetchable 0x80_0040_0000 to 0x80_005f_ffff: half of BAR 2.
    bench.config_write(0x10, bridge::MEMORY_BASE, 4, 0x1020_1010);
    bench.config_write(0x10, bridge::PREFETCHABLE_BASE, 4, 0x0050_0040);
    bench.config_write(0x10, bridge::PREFETCHABLE_BASE_UPPER, 4, 0x80);
    bench.config_write(0x10, bridge::PREFETCHABLE_LIMIT_UPPER, 4, 0x80);
    write(&*bench.memory, 0x1020_0008, 4, 1);
    assert_eq!(probe.seen(), [], "the port decodes no memory");
    bench.config_write(0x10, header::COMMAND, 2, 6);
    for (at, value) in [(0x1020_0008, 1), (0x80_0040_0010, 2), (0x80_005f_fffc, 3), (0x80_0060_0000, 4)] {
        write(&*bench.memory, at, 4, value);
    }
    assert_eq!(probe.seen(), [(0, 8, 1), (2, 0x10, 2), (2, 0x1f_fffc, 3)]);
    bench.config_write(0x10, bridge::MEMORY_BASE, 4, 0x1000_1010);
    write(&*bench.memory, 0x1020_0008, 4, 1);
    assert_eq!(probe.seen(), [], "limit below base");
}

#[test]
fn requests_from_behind_a_port_carry_the_present_bus_number_and_need_the_ports_mastering() {
    let (bench, probe) = behind_port();
    bench.enable_msi(CHILD);
    let sink = bench.sink.clone();
    let ram = Arc::new(Ram::new(&[(Pa(0x1000), 0x1000)]).unwrap());
    let port = BusMasterPort::new(&probe.config, Arc::new(DirectPort::new(ram, sink)));
    probe.config.raise(0, &port, &who());
    assert_eq!(port.read(&who(), Iova(0x1000), &mut [0]), Err(DmaFault::Aborted(Iova(0x1000))));
    assert_eq!(bench.messages(), []);
    bench.config_write(0x10, header::COMMAND, 2, 6);
    probe.config.raise(0, &port, &who());
    assert_eq!(bench.messages(), [(DeviceId(0x500), 0x40)]);
    bench.config_write(0x10, bridge::PRIMARY_BUS, 4, 0x0007_0700);
    bench.config_write(7 << 8, header::CACHE_LINE_SIZE, 1, 0);
    probe.config.raise(0, &port, &who());
    assert_eq!(bench.messages(), [(DeviceId(0x700), 0x40)]);
    assert_eq!(probe.config.requester_id(), Some(StreamId(0x700)));
}

#[test]
fn secondary_bus_reset_resets_what_is_behind_and_hides_it_meanwhile() {
    let (bench, probe) = behind_port();
    bench.config_write(CHILD, header::COMMAND, 2, 6);
    bench.config_write(0x10, bridge::CONTROL, 2, 0x40);
    assert_eq!(probe.resets.load(Ordering::SeqCst), 1);
    assert_eq!(bench.config_read(CHILD, header::VENDOR_ID, 4), 0xffff_ffff);
    bench.config_write(0x10, bridge::CONTROL, 2, 0x40);
    bench.config_write(0x10, bridge::CONTROL, 2, 0);
    assert_eq!(probe.resets.load(Ordering::SeqCst), 1, "once");
    assert_eq!(
        (bench.config_read(CHILD, header::VENDOR_ID, 4), bench.config_read(CHILD, header::COMMAND, 2)),
        (0x5678_1234, 0)
    );
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics_or_changes_who_the_function_is(
        accesses in prop::collection::vec((0u64..0x3000, 0usize..5, any::<u64>(), any::<bool>()), 1..60)
    ) {
        let bench = Bench::new();
        let probes = [Probe::new(full()), Probe::new(with_msix(3))];
        bench.host.attach(0, 1, probes[0].clone()).unwrap();
        bench.host.attach(0, 2, probes[1].clone()).unwrap();
        bench.host.attach(0, 3, RootPort::new()).unwrap();
        for (at, log2, value, to_config) in accesses {
            let (at, len) = (at & !((1 << log2) - 1), 1usize << log2);
            if to_config {
                let at = (at % 0x140) | ((at >> 12) << 12);
                write(&*bench.ecam, 0x1000 + at, len, value);
                read(&*bench.ecam, 0x1000 + at, len);
            } else {
                let mut base = [0; 8];
                probes[1].config.read(header::BAR.at(4), &mut base);
                let at = (value_of(&base) & !0xf).saturating_add(at);
                write(&*bench.memory, at, len, value);
                read(&*bench.memory, at, len);
            }
            probes[0].config.raise(value as u16, &bench.port, &who());
            probes[1].config.raise(value as u16, &bench.port, &who());
            probes[1].config.deliver_pending(&bench.port, &who());
        }
        prop_assert_eq!(bench.config_read(1, header::VENDOR_ID, 4), 0x5678_1234);
        prop_assert_eq!(bench.config_read(1, header::CAPABILITIES_POINTER, 1), 0x40);
    }

    #[test]
    fn overlapping_ranges_are_each_answered_by_the_first_function_that_covers_them(
        bars in prop::collection::vec((0u64..0x20, 0u32..5), 6),
        at in 0u64..0x30_000,
    ) {
        let bench = Bench::new();
        for (number, &(base, log2)) in (0u8..).zip(&bars) {
            // Function n has its one BAR at index n, so that an answer tells who gave it.
            let config = ConfigSpace::builder(IDENTITY).bar(number, Bar::memory32(0x1000 << log2));
            bench.host.attach(0, 1 + number, Probe::new(config)).unwrap();
            bench.config_write(1 + u64::from(number), header::BAR.at(number.into()), 4, base << 12);
            bench.config_write(1 + u64::from(number), header::COMMAND, 2, 2);
        }
        let at = at & !7;
        let expected = (0u64..).zip(&bars).find_map(|(number, &(base, log2))| {
            let size = 0x1000u64 << log2;
            let base = base << 12 & !(size - 1);
            (base..base + size).contains(&at).then(|| number << 56 | (at - base))
        });
        prop_assert_eq!(read(&*bench.memory, at, 8), expected.unwrap_or(u64::MAX));
    }
}
