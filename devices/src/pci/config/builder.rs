//! How a configuration space is put together: the header, BARs and capabilities, each once.

use std::sync::{Arc, Mutex, OnceLock};

use super::super::bar::Bar;
use super::super::caps::{
    self, Field, PortType, acs, ari, ats, bridge, express, header, msi, msix, page_request, pasid, pm,
};
use super::super::interrupts::{MsixLayout, MsixState};
use super::registers::{CONFIG_BYTES, Registers};
use super::{ConfigSpace, Identity, Layout, State};

const FIRST_CAPABILITY: u16 = 0x40;
const FIRST_EXTENDED: u16 = 0x100;

/// Puts a configuration space together. Capabilities are chained in the order of the calls.
///
/// The calls panic on layouts that no function can have: they are constants of the models.
pub struct ConfigBuilder {
    registers: Registers,
    layout: Layout,
    next: u16,
    link: u16,
    next_extended: u16,
    last_extended: Option<u16>,
    msix_vectors: u16,
}

impl ConfigBuilder {
    pub(super) fn new(identity: Identity) -> Self {
        let mut builder = Self::common(identity);
        for (field, value) in [
            (&header::HEADER_TYPE, 0),
            (&header::SUBSYSTEM_VENDOR_ID, u32::from(identity.subsystem_vendor)),
            (&header::SUBSYSTEM_ID, u32::from(identity.subsystem)),
        ] {
            builder.registers.declare(0, field, value);
        }
        builder
    }

    pub(super) fn new_bridge(identity: Identity) -> Self {
        let mut builder = Self::common(identity);
        for (field, value) in [
            (&header::HEADER_TYPE, 1),
            (&bridge::PRIMARY_BUS, 0),
            (&bridge::SECONDARY_BUS, 0),
            (&bridge::SUBORDINATE_BUS, 0),
            (&bridge::IO_BASE, 0),
            (&bridge::IO_LIMIT, 0),
            (&bridge::SECONDARY_STATUS, 0),
            (&bridge::MEMORY_BASE, 0),
            (&bridge::MEMORY_LIMIT, 0),
            (&bridge::PREFETCHABLE_BASE, bridge::IS_64_BIT),
            (&bridge::PREFETCHABLE_LIMIT, bridge::IS_64_BIT),
            (&bridge::PREFETCHABLE_BASE_UPPER, 0),
            (&bridge::PREFETCHABLE_LIMIT_UPPER, 0),
            (&bridge::CONTROL, 0),
        ] {
            builder.registers.declare(0, field, value);
        }
        builder
    }

    /// What both types of header have.
    fn common(identity: Identity) -> Self {
        let mut registers = Registers::new();
        assert!(identity.class >> 24 == 0, "a class code has 24 bits");
        let class = identity.class.to_le_bytes();
        for (field, value) in [
            (&header::VENDOR_ID, u32::from(identity.vendor)),
            (&header::DEVICE_ID, u32::from(identity.device)),
            (&header::COMMAND, 0),
            (&header::STATUS, caps::STATUS_CAPABILITIES_LIST),
            (&header::REVISION_ID, u32::from(identity.revision)),
            (&header::CLASS_CODE[0], u32::from(class[0])),
            (&header::CLASS_CODE[1], u32::from(class[1])),
            (&header::CLASS_CODE[2], u32::from(class[2])),
            (&header::CACHE_LINE_SIZE, 0),
            (&header::CAPABILITIES_POINTER, 0),
            (&header::INTERRUPT_LINE, 0),
            (&header::INTERRUPT_PIN, 0),
        ] {
            registers.declare(0, field, value);
        }
        Self {
            registers,
            layout: Layout::default(),
            next: FIRST_CAPABILITY,
            link: header::CAPABILITIES_POINTER.offset,
            next_extended: FIRST_EXTENDED,
            last_extended: None,
            msix_vectors: 0,
        }
    }

    /// Declares that this function is one of several of its device (header type bit 7); for function 0.
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        self.registers.declare(0, &header::HEADER_TYPE, 0x80);
        self
    }

    /// Base address register `index`.
    #[must_use]
    pub fn bar(mut self, index: u8, bar: Bar) -> Self {
        let number = usize::from(index);
        let halves = if bar.is_64_bit() { 2 } else { 1 };
        assert!(number + halves <= 6, "BAR {index} does not exist");
        for half in 0..halves {
            let taken = self.layout.bars[number + half].is_some()
                || number > 0 && half == 0 && self.layout.bars[number - 1].is_some_and(|b| b.is_64_bit());
            assert!(!taken, "BAR {index} is taken");
            let flags = if half == 0 { bar.flags() } else { 0 };
            let writable = (bar.writable() >> (32 * half)) as u32;
            let field = Field { offset: 4 * (number + half) as u16, writable, ..header::BAR0 };
            self.registers.declare(header::BAR0.offset, &field, flags);
        }
        self.layout.bars[number] = Some(bar);
        self
    }

    /// Adds a capability of `len` bytes and returns its offset.
    fn capability(&mut self, id: u8, len: u16) -> u16 {
        let base = self.next;
        assert!(base + len <= FIRST_EXTENDED, "capabilities do not fit into 256 bytes");
        self.registers.declare(self.link, &Field { name: "Next Capability Pointer", ..POINTER }, base.into());
        self.registers.declare(base, &POINTER, id.into());
        self.link = base + 1;
        self.next = base + len.next_multiple_of(4);
        base
    }

    /// Adds an extended capability of `len` bytes and returns its offset.
    fn extended(&mut self, id: u16, version: u8, len: u16) -> u16 {
        let base = self.next_extended;
        assert!(usize::from(base + len) <= CONFIG_BYTES, "extended capabilities do not fit");
        if let Some(last) = self.last_extended {
            self.registers.reset[usize::from(last) / 4] |= u32::from(base) << 20;
        }
        self.registers.declare(base, &EXTENDED_HEADER, u32::from(id) | u32::from(version) << 16);
        self.last_extended = Some(base);
        self.next_extended = base + len.next_multiple_of(4);
        base
    }

    /// The PCI Express capability (7.5.3); endpoints are capable of function-level reset.
    #[must_use]
    pub fn express(mut self, kind: PortType) -> Self {
        let base = self.capability(express::ID, express::LEN);
        let is_port = kind == PortType::RootPort;
        let flr = if is_port { 0 } else { express::FLR_CAPABLE };
        let (forwarding, may_forward) = if is_port {
            (express::ARI_FORWARDING_SUPPORTED, express::ARI_FORWARDING_ENABLE)
        } else {
            (0, 0)
        };
        let control_2 =
            Field { writable: express::DEVICE_CONTROL_2.writable | may_forward, ..express::DEVICE_CONTROL_2 };
        let version = 2;
        for (field, value) in [
            (&express::CAPABILITIES, version | kind.encoding() << 4),
            (&express::DEVICE_CAPABILITIES, express::ROLE_BASED_ERRORS | flr),
            (&express::DEVICE_CONTROL, express::DEVICE_CONTROL_RESET),
            (&express::DEVICE_STATUS, 0),
            (&express::DEVICE_CAPABILITIES_2, express::DEVICE_CAPABILITIES_2_VALUE | forwarding),
            (&control_2, 0),
        ] {
            self.registers.declare(base, field, value);
        }
        if kind != PortType::RcIntegratedEndpoint {
            // 16 GT/s, one lane, port number 0; the link is up.
            self.registers.declare(base, &express::LINK_CAPABILITIES, 0x14);
            self.registers.declare(base, &express::LINK_CONTROL, 0);
            self.registers.declare(base, &express::LINK_STATUS, 0x14);
        }
        if is_port {
            for field in &express::ROOT {
                self.registers.declare(base, field, 0);
            }
        }
        self.layout.express = Some(base);
        self
    }

    /// The power management capability (7.5.2): D0 and D3hot.
    #[must_use]
    pub fn power_management(mut self) -> Self {
        let base = self.capability(pm::ID, pm::LEN);
        self.registers.declare(base, &pm::PMC, pm::PMC_VALUE);
        self.registers.declare(base, &pm::PMCSR, pm::NO_SOFT_RESET);
        self.layout.pm = Some(base);
        self
    }

    /// MSI (7.7.1) with `vectors` messages: 1, 2, 4, 8, 16 or 32. 64-bit addresses, per-vector masking.
    #[must_use]
    pub fn msi(mut self, vectors: u8) -> Self {
        assert!(vectors.is_power_of_two() && vectors <= 32, "MSI has 1 to 32 vectors, a power of two");
        let base = self.capability(msi::ID, msi::LEN);
        let all = u32::MAX >> (32 - u32::from(vectors));
        self.registers.declare(base, &msi::CONTROL, msi::CONTROL_FIXED | vectors.trailing_zeros() << 1);
        self.registers.declare(base, &msi::ADDRESS, 0);
        self.registers.declare(base, &msi::UPPER_ADDRESS, 0);
        self.registers.declare(base, &msi::DATA, 0);
        self.registers.declare(base, &Field { writable: all, ..msi::MASK }, 0);
        self.registers.declare(base, &msi::PENDING, 0);
        self.layout.msi = Some(base);
        self
    }

    /// MSI-X (7.7.2), its table and pending bits inside a BAR declared before.
    #[must_use]
    pub fn msix(mut self, place: MsixLayout) -> Self {
        place.check(self.layout.bars.get(usize::from(place.bar)).and_then(Option::as_ref));
        let base = self.capability(msix::ID, msix::LEN);
        self.registers.declare(base, &msix::CONTROL, u32::from(place.vectors - 1));
        self.registers.declare(base, &msix::TABLE, place.table_offset | u32::from(place.bar));
        self.registers.declare(base, &msix::PBA, place.pba_offset | u32::from(place.bar));
        self.layout.msix = Some((base, place));
        self.msix_vectors = place.vectors;
        self
    }

    /// Adds a capability of the caller's own, `len` bytes in all, and returns its offset. `fields` are its registers
    /// behind the two header bytes, with their reset values.
    pub fn own_capability(&mut self, id: u8, len: u16, fields: &[(Field, u32)]) -> u16 {
        let base = self.capability(id, len);
        for (field, value) in fields {
            self.registers.declare(base, field, *value);
        }
        base
    }

    /// Adds an extended capability of the caller's own; as [`Self::own_capability`], behind four header bytes.
    pub fn own_extended_capability(
        &mut self,
        id: u16,
        version: u8,
        len: u16,
        fields: &[(Field, u32)],
    ) -> u16 {
        let base = self.extended(id, version, len);
        for (field, value) in fields {
            self.registers.declare(base, field, *value);
        }
        base
    }

    /// PASID (7.8.9): `width` bits, 1 to 20; whether Execute and Privileged requests may be made.
    #[must_use]
    pub fn pasid(mut self, width: u8, execute: bool, privileged: bool) -> Self {
        assert!((1..=20).contains(&width), "a PASID has 1 to 20 bits");
        let base = self.extended(pasid::ID, 1, pasid::LEN);
        let offered = u32::from(execute) << 1 | u32::from(privileged) << 2;
        self.registers.declare(base, &pasid::CAPABILITY, offered | u32::from(width) << 8);
        self.registers.declare(base, &Field { writable: offered | 1, ..pasid::CONTROL }, 0);
        self.layout.pasid = Some(base);
        self
    }

    /// Address translation services (10.5.1), for a function with an ATC.
    #[must_use]
    pub fn ats(mut self) -> Self {
        let base = self.extended(ats::ID, 1, ats::LEN);
        self.registers.declare(base, &ats::CAPABILITY, ats::CAPABILITY_VALUE);
        self.registers.declare(base, &ats::CONTROL, 0);
        self.layout.ats = Some(base);
        self
    }

    /// Page requests (10.5.2), `capacity` of them without answer at most. Responses have to carry the PASID.
    #[must_use]
    pub fn page_requests(mut self, capacity: u32) -> Self {
        let base = self.extended(page_request::ID, 1, page_request::LEN);
        let status = page_request::STOPPED | page_request::PASID_REQUIRED;
        self.registers.declare(base, &page_request::CONTROL, 0);
        self.registers.declare(base, &page_request::STATUS, status);
        self.registers.declare(base, &page_request::CAPACITY, capacity);
        self.registers.declare(base, &page_request::ALLOCATION, 0);
        self.layout.page_request = Some(base);
        self
    }

    /// Access Control Services (7.7.11), offering the `services` bits.
    #[must_use]
    pub fn acs(mut self, services: u16) -> Self {
        let services = u32::from(services) & acs::CONTROL.writable;
        let base = self.extended(acs::ID, 1, acs::LEN);
        self.registers.declare(base, &acs::CAPABILITY, services);
        self.registers.declare(base, &Field { writable: services, ..acs::CONTROL }, 0);
        self
    }

    /// Alternative routing-ID interpretation (7.8.8), with the number of the device's next function, 0 for none.
    #[must_use]
    pub fn ari(mut self, next_function: u8) -> Self {
        let base = self.extended(ari::ID, 1, ari::LEN);
        self.registers.declare(base, &ari::CAPABILITY, u32::from(next_function) << 8);
        self.registers.declare(base, &ari::CONTROL, 0);
        self
    }

    /// The finished space, at its reset values.
    #[must_use]
    pub fn build(self) -> ConfigSpace {
        let mut registers = self.registers;
        if self.link == header::CAPABILITIES_POINTER.offset {
            registers.declare(0, &header::STATUS, 0);
        }
        registers.value.copy_from_slice(&registers.reset);
        ConfigSpace {
            layout: self.layout,
            state: Mutex::new(State {
                registers,
                msix: MsixState::new(self.msix_vectors),
                leaving: Vec::new(),
            }),
            gates: Arc::default(),
            waker: OnceLock::new(),
        }
    }
}

const POINTER: Field = Field { name: "Capability ID", offset: 0, bytes: 1, writable: 0, w1c: 0 };
const EXTENDED_HEADER: Field =
    Field { name: "Extended Capability Header", offset: 0, bytes: 4, writable: 0, w1c: 0 };
