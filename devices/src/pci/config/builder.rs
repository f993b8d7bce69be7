//! How a configuration space is put together: the header, BARs and capabilities, each once.

use std::sync::{Arc, Mutex, OnceLock};

use hw::GuestErrors;
use hw::regmap::RegisterMap;

use super::super::bar::Bar;
use super::super::caps::{
    PortType, acs, ari, ats, bridge, capability, express, extended, header, msi, msix, page_request, pasid,
    pm,
};
use super::super::interrupts::{MsixLayout, MsixState};
use super::registers::{CONFIG_BYTES, Registers, place};
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
    errors: GuestErrors,
}

impl ConfigBuilder {
    pub(super) fn new(identity: Identity) -> Self {
        let mut builder = Self::common(identity);
        for (reg, value) in [
            (header::HEADER_TYPE, 0),
            (header::SUBSYSTEM_VENDOR_ID, u32::from(identity.subsystem_vendor)),
            (header::SUBSYSTEM_ID, u32::from(identity.subsystem)),
        ] {
            builder.declare(0, reg, value);
        }
        builder
    }

    pub(super) fn new_bridge(identity: Identity) -> Self {
        let mut builder = Self::common(identity);
        builder.declare(0, header::HEADER_TYPE, 1);
        builder.declare_all::<bridge::BridgeReg>(0);
        builder
    }

    /// What both types of header have.
    fn common(identity: Identity) -> Self {
        let mut builder = Self {
            registers: Registers::new(),
            layout: Layout::default(),
            next: FIRST_CAPABILITY,
            link: place(0, header::CAPABILITIES_POINTER),
            next_extended: FIRST_EXTENDED,
            last_extended: None,
            msix_vectors: 0,
            errors: GuestErrors::default(),
        };
        assert!(identity.class >> 24 == 0, "a class code has 24 bits");
        let class = identity.class.to_le_bytes();
        for (reg, value) in [
            (header::VENDOR_ID, u32::from(identity.vendor)),
            (header::DEVICE_ID, u32::from(identity.device)),
            (header::REVISION_ID, u32::from(identity.revision)),
            (header::PROGRAMMING_INTERFACE, u32::from(class[0])),
            (header::SUB_CLASS_CODE, u32::from(class[1])),
            (header::BASE_CLASS_CODE, u32::from(class[2])),
        ] {
            builder.declare(0, reg, value);
        }
        for reg in [
            header::COMMAND,
            header::STATUS,
            header::CACHE_LINE_SIZE,
            header::CAPABILITIES_POINTER,
            header::INTERRUPT_LINE,
            header::INTERRUPT_PIN,
        ] {
            builder.declare_as_declared(0, reg);
        }
        builder
    }

    /// Where mistakes of software with this function are counted.
    #[must_use]
    pub fn errors(mut self, errors: GuestErrors) -> Self {
        self.errors = errors;
        self
    }

    /// A register of the capability at `base`, with the value that this function has after reset.
    fn declare<R: RegisterMap>(&mut self, base: u16, reg: R, value: u32) {
        self.declare_changeable(base, reg, u32::MAX, value);
    }

    /// The same, of which software can change some of the bits only.
    fn declare_changeable<R: RegisterMap>(&mut self, base: u16, reg: R, changeable: u32, value: u32) {
        self.registers.declare(place(base, reg), reg.info(), changeable, value);
    }

    /// The same, with the value of the declaration.
    fn declare_as_declared<R: RegisterMap>(&mut self, base: u16, reg: R) {
        self.declare(base, reg, reg.info().reset as u32);
    }

    /// All registers of a map, with the values of their declarations.
    fn declare_all<R: RegisterMap>(&mut self, base: u16) {
        for (reg, _) in R::ALL {
            self.declare_as_declared(base, *reg);
        }
    }

    /// Declares that this function is one of several of its device (header type bit 7); for function 0.
    #[must_use]
    pub fn multifunction(mut self) -> Self {
        self.declare(0, header::HEADER_TYPE, header::MULTI_FUNCTION);
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
            let at = header::BAR.at((number + half) as u64) as u16; // in the header
            self.registers.declare_bar(at, writable, flags);
        }
        self.layout.bars[number] = Some(bar);
        self
    }

    /// Adds a capability of `len` bytes and returns its offset.
    fn capability(&mut self, id: u8, len: u16) -> u16 {
        let base = self.next;
        assert!(base + len <= FIRST_EXTENDED, "capabilities do not fit into 256 bytes");
        self.registers.declare(self.link, capability::NEXT.info(), 0, base.into());
        self.declare(base, capability::ID, id.into());
        self.link = place(base, capability::NEXT);
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
        self.declare(base, extended::HEADER, u32::from(id) | u32::from(version) << 16);
        self.last_extended = Some(base);
        self.next_extended = base + len.next_multiple_of(4);
        base
    }

    /// The PCI Express capability (7.5.3); endpoints are capable of function-level reset.
    #[must_use]
    pub fn express(mut self, kind: PortType) -> Self {
        let base = self.capability(express::ID, express::LEN);
        for (reg, info) in express::ExpressReg::ALL {
            if !reg.exists(|condition| kind.holds(condition)) {
                continue;
            }
            let own = match reg {
                express::CAPABILITIES => kind.encoding() << 4,
                express::DEVICE_CAPABILITIES if kind != PortType::RootPort => express::FLR_CAPABLE,
                express::DEVICE_CAPABILITIES_2 if kind == PortType::RootPort => {
                    express::ARI_FORWARDING_SUPPORTED
                }
                _ => 0,
            };
            let changeable = reg.possible(|condition| kind.holds(condition));
            self.declare_changeable(base, *reg, changeable as u32, info.reset as u32 | own);
        }
        self.layout.express = Some(base);
        self
    }

    /// The power management capability (7.5.2): D0 and D3hot.
    #[must_use]
    pub fn power_management(mut self) -> Self {
        let base = self.capability(pm::ID, pm::LEN);
        self.declare_all::<pm::PmReg>(base);
        self.layout.pm = Some(base);
        self
    }

    /// MSI (7.7.1) with `vectors` messages: 1, 2, 4, 8, 16 or 32. 64-bit addresses, per-vector masking.
    #[must_use]
    pub fn msi(mut self, vectors: u8) -> Self {
        assert!(vectors.is_power_of_two() && vectors <= 32, "MSI has 1 to 32 vectors, a power of two");
        let base = self.capability(msi::ID, msi::LEN);
        for (reg, info) in msi::MsiReg::ALL {
            let (changeable, own) = match reg {
                msi::CONTROL => (u32::MAX, vectors.trailing_zeros() << 1),
                msi::MASK => (u32::MAX >> (32 - u32::from(vectors)), 0),
                _ => (u32::MAX, 0),
            };
            self.declare_changeable(base, *reg, changeable, info.reset as u32 | own);
        }
        self.layout.msi = Some(base);
        self
    }

    /// MSI-X (7.7.2), its table and pending bits inside a BAR declared before.
    #[must_use]
    pub fn msix(mut self, place: MsixLayout) -> Self {
        place.check(self.layout.bars.get(usize::from(place.bar)).and_then(Option::as_ref));
        let base = self.capability(msix::ID, msix::LEN);
        self.declare(base, msix::CONTROL, u32::from(place.vectors - 1));
        self.declare(base, msix::TABLE, place.table_offset | u32::from(place.bar));
        self.declare(base, msix::PBA, place.pba_offset | u32::from(place.bar));
        self.layout.msix = Some((base, place));
        self.msix_vectors = place.vectors;
        self
    }

    /// Adds a capability of the caller's own, `len` bytes in all, and returns its offset. `registers` are those
    /// behind the two header bytes, with their reset values.
    pub fn own_capability<R: RegisterMap>(&mut self, id: u8, len: u16, registers: &[(R, u32)]) -> u16 {
        let base = self.capability(id, len);
        for (reg, value) in registers {
            self.declare(base, *reg, *value);
        }
        base
    }

    /// Adds an extended capability of the caller's own; as [`Self::own_capability`], behind four header bytes.
    pub fn own_extended_capability<R: RegisterMap>(
        &mut self,
        id: u16,
        version: u8,
        len: u16,
        registers: &[(R, u32)],
    ) -> u16 {
        let base = self.extended(id, version, len);
        for (reg, value) in registers {
            self.declare(base, *reg, *value);
        }
        base
    }

    /// PASID (7.8.9): `width` bits, 1 to 20; whether Execute and Privileged requests may be made.
    #[must_use]
    pub fn pasid(mut self, width: u8, execute: bool, privileged: bool) -> Self {
        assert!((1..=20).contains(&width), "a PASID has 1 to 20 bits");
        let base = self.extended(pasid::ID, 1, pasid::LEN);
        let offered = u32::from(execute) << 1 | u32::from(privileged) << 2;
        self.declare(base, pasid::CAPABILITY, offered | u32::from(width) << 8);
        let changeable = pasid::CONTROL.possible(|condition| match condition {
            pasid::PasidCondition::EXECUTE => execute,
            pasid::PasidCondition::PRIVILEGED => privileged,
        });
        self.declare_changeable(base, pasid::CONTROL, changeable as u32, 0);
        self.layout.pasid = Some(base);
        self
    }

    /// Address translation services (10.5.1), for a function with an ATC.
    #[must_use]
    pub fn ats(mut self) -> Self {
        let base = self.extended(ats::ID, 1, ats::LEN);
        self.declare_all::<ats::AtsReg>(base);
        self.layout.ats = Some(base);
        self
    }

    /// Page requests (10.5.2), `capacity` of them without answer at most. Responses have to carry the PASID.
    #[must_use]
    pub fn page_requests(mut self, capacity: u32) -> Self {
        let base = self.extended(page_request::ID, 1, page_request::LEN);
        self.declare_all::<page_request::PageRequestReg>(base);
        self.declare(base, page_request::CAPACITY, capacity);
        self.layout.page_request = Some(base);
        self
    }

    /// Access Control Services (7.7.11), offering the `services` bits.
    #[must_use]
    pub fn acs(mut self, services: u16) -> Self {
        let services = u32::from(services) & acs::CONTROL.info().writable as u32;
        let base = self.extended(acs::ID, 1, acs::LEN);
        self.declare(base, acs::CAPABILITY, services);
        self.declare_changeable(base, acs::CONTROL, services, 0);
        self
    }

    /// Alternative routing-ID interpretation (7.8.8), with the number of the device's next function, 0 for none.
    #[must_use]
    pub fn ari(mut self, next_function: u8) -> Self {
        let base = self.extended(ari::ID, 1, ari::LEN);
        self.declare(base, ari::CAPABILITY, u32::from(next_function) << 8);
        self.declare(base, ari::CONTROL, 0);
        self
    }

    /// The finished space, at its reset values.
    #[must_use]
    pub fn build(self) -> ConfigSpace {
        let mut registers = self.registers;
        if self.link == place(0, header::CAPABILITIES_POINTER) {
            registers.declare(place(0, header::STATUS), header::STATUS.info(), u32::MAX, 0);
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
            errors: self.errors,
        }
    }
}
