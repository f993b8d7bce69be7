//! PCI: configuration spaces and the routes that follow from them.

use std::sync::Arc;

use devices::pci::caps::PortType;
use devices::pci::{Bar, BusMasterPort, ConfigSpace, Identity, MsixLayout, PciFunction, PciHost};
use hw::{BusError, DirectPort, DmaTag, LifeCycle, Pa, RecordingMsiSink, Requester, StreamId};

use crate::input::Input;
use crate::machine::{DOORBELL, access, mmio, ram};

/// Where the windows are in PCI address space.
const MEMORY: u64 = 0x1000_0000;
const MEMORY64: u64 = 0x80_0000_0000;
const WINDOW: u64 = 1 << 24;
const IO_WINDOW: u64 = 0x1_0000;
const ECAM: u64 = 1 << 28;
/// Vectors of the function with MSI-X.
const VECTORS: u16 = 70;

/// A function with every kind of BAR and capability. Its BARs take everything.
struct Anything {
    config: ConfigSpace,
}

impl Anything {
    fn new(kind: u8) -> Arc<Self> {
        let identity = Identity {
            vendor: 0x19e5,
            device: 0xa250,
            revision: 1,
            class: 0x12_0000,
            subsystem_vendor: 0x19e5,
            subsystem: 0,
        };
        let builder = ConfigSpace::builder(identity);
        let config = match kind {
            0 => builder
                .multifunction()
                .bar(0, Bar::memory32(0x8000))
                .bar(1, Bar::io(0x20))
                .bar(2, Bar::memory64(1 << 22))
                .bar(4, Bar::memory64(1 << 36))
                .express(PortType::RcIntegratedEndpoint)
                .power_management()
                .msi(32)
                .pasid(20, true, true)
                .acs(0x7f)
                .ari(1)
                .build(),
            _ => builder
                .bar(0, Bar::memory64(0x4000))
                .bar(5, Bar::memory32(0x10))
                .express(PortType::Endpoint)
                .msix(MsixLayout { vectors: VECTORS, bar: 0, table_offset: 0x1000, pba_offset: 0x3000 })
                .build(),
        };
        Arc::new(Self { config })
    }

    /// Whether an access is inside its BAR, as the trait promises.
    fn check(&self, bar: u8, offset: u64, len: usize) {
        let size = self
            .config
            .decoded_bars()
            .into_iter()
            .find(|decoded| decoded.bar == bar)
            .map(|decoded| decoded.size);
        // A BAR that has just been switched off is in no list any more; the access was then routed before.
        if let Some(size) = size {
            assert!(offset < size && len as u64 <= size - offset, "{len} bytes at {offset:#x} of BAR {bar}");
        }
    }
}

impl PciFunction for Anything {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        self.check(bar, offset, data.len());
        data.fill(0x5a);
        Ok(())
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Result<(), BusError> {
        self.check(bar, offset, data.len());
        Ok(())
    }

    fn function_reset(&self) {}
}

/// Configuration by ECAM, accesses through the windows, messages while all of that changes.
pub fn pci(data: &[u8]) {
    let mut input = Input::new(data);
    let host = PciHost::new();
    let functions = [Anything::new(0), Anything::new(1), Anything::new(1)];
    let places = [(0, 8), (0, 9), (3, 0xf8)];
    for (function, (bus, devfn)) in functions.iter().zip(places) {
        host.attach(bus, devfn, function.clone()).expect("the places are free");
    }
    let ecam = host.ecam();
    let windows = [host.memory_window(MEMORY), host.memory_window(MEMORY64)];
    let io = host.io_window(0);
    let msi = Arc::new(RecordingMsiSink::new(Pa(DOORBELL)));
    let direct = Arc::new(DirectPort::new(ram(), msi.clone()));

    // Registers of each function, the host bridge, and one that is not there.
    let registers: Vec<u64> = [0, 0x8000, 0x9000, 0x3f_8000, 0x10_0000]
        .into_iter()
        .flat_map(|base: u64| (0..0x100).step_by(4).chain(0x100..0x140).map(move |offset| base + offset))
        .collect();
    let bars: Vec<u64> = (0..16).map(|page| page << 12).collect();
    while !input.is_empty() {
        match input.u8() % 16 {
            0..7 => mmio(&mut input, ECAM, &registers, &*ecam),
            7 => {
                // BARs into the windows, and the functions on.
                let function = input.choose(&[0x8000, 0x9000, 0x3f_8000]);
                let bar = function + 0x10 + u64::from(input.u8() % 6) * 4;
                let address =
                    if input.u8() & 1 == 0 { MEMORY } else { MEMORY64 } + (u64::from(input.u8()) << 12);
                let _ = ecam.mmio_write(bar, &address.to_le_bytes());
                let _ = ecam.mmio_write(function + 4, &7_u16.to_le_bytes());
            }
            8..11 => {
                let window = input.choose(&[0, 1]);
                mmio(&mut input, WINDOW, &bars, &*windows[window]);
            }
            11 => mmio(&mut input, IO_WINDOW, &bars[..1], &*io),
            12 => {
                let config = input.choose(&[0, 1, 2]);
                let function = &functions[config];
                access(
                    &mut input,
                    0x1000,
                    &registers[..0x40],
                    |offset, data| {
                        function.config_read(offset, data);
                        Ok(())
                    },
                    |offset, data| {
                        let _ = function.config_write(offset, data);
                        Ok(())
                    },
                );
            }
            13 | 14 => {
                let which = input.choose(&[0, 1, 2]);
                let config = &functions[which].config;
                let port = BusMasterPort::new(config, direct.clone());
                let who = Requester::new(DmaTag::untagged(StreamId(u32::from(places[which].1))));
                // A device has the vectors that its layout says.
                let vectors = if which == 0 { 32 } else { VECTORS };
                config.raise(input.u16() % vectors, &port, &who);
                config.deliver_pending(&port, &who);
            }
            _ if input.u8() & 0xf == 0 => host.reset(),
            _ => {
                let taken = host.detach(StreamId(0x3f8));
                if taken.is_none() {
                    host.attach(3, 0xf8, functions[2].clone()).expect("it has been detached");
                }
            }
        }
    }
    let _ = msi.take();
}
