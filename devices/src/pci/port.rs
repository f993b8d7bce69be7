//! A root port: a bridge from the root bus to a bus of its own, with a device behind it.
//!
//! PCI Express Base 7.5.1.3. The guest gives the secondary bus its number and opens the windows. As on a link, there
//! is one device behind a port, number 0; with ARI forwarding its function numbers go up to 255. Its ACS capability
//! offers nothing, which software takes as redirection being hard-wired: requests go up to the root complex and
//! nowhere else. Deliberately absent: switches, I/O windows, hot-plug, interrupts of the port itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use hw::BusError;
use hw::saved::RestoreError;

use super::caps::{PortType, bridge};
use super::config::{ConfigSpace, Effects, Identity};
use super::{AttachError, PciFunction};

/// A root port.
pub struct RootPort {
    config: ConfigSpace,
    functions: RwLock<BTreeMap<u8, Arc<dyn PciFunction>>>,
}

impl RootPort {
    /// The identity of QEMU's generic root port.
    pub const IDENTITY: Identity = Identity {
        vendor: 0x1b36,
        device: 0x000c,
        class: 0x06_04_00,
        revision: 0,
        subsystem_vendor: 0,
        subsystem: 0,
    };

    /// A port with nothing behind it. It goes onto the root bus with [`super::PciHost::attach`].
    #[must_use]
    pub fn new() -> Arc<Self> {
        let config = ConfigSpace::bridge_builder(Self::IDENTITY)
            .express(PortType::RootPort)
            .power_management()
            .acs(0)
            .build();
        Arc::new(Self { config, functions: RwLock::default() })
    }

    /// Puts a function behind the port, while the machine is put together.
    ///
    /// # Errors
    /// If the place is taken.
    pub fn attach(&self, devfn: u8, function: Arc<dyn PciFunction>) -> Result<(), AttachError> {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if functions.contains_key(&devfn) {
            return Err(AttachError::Taken(devfn.into()));
        }
        function.config().set_upstream(&self.config);
        functions.insert(devfn, function);
        Ok(())
    }

    fn get(&self, reg: bridge::BridgeReg) -> u64 {
        self.config.register(0, reg).into()
    }

    fn is_bus_in_reset(&self) -> bool {
        self.config.register(0, bridge::CONTROL) & bridge::SECONDARY_BUS_RESET != 0
    }

    /// The function that answers for `devfn` on bus number `bus`.
    pub(super) fn function(&self, bus: u8, devfn: u8) -> Option<Arc<dyn PciFunction>> {
        let secondary = self.get(bridge::SECONDARY_BUS);
        // Bus 0 is the root bus: a port that has no number yet forwards nothing.
        if secondary == 0 || u64::from(bus) != secondary || self.is_bus_in_reset() {
            return None;
        }
        if devfn >> 3 != 0 && !self.config.forwards_ari() {
            return None;
        }
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(&devfn).cloned()
    }

    /// After a restore: whether each function behind the port has a requester ID that it can have captured here.
    pub(super) fn check_requesters(&self) -> Result<(), RestoreError> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        for (devfn, function) in functions.iter() {
            if function
                .config()
                .requester_id()
                .is_some_and(|requester| requester.0 & 0xff != u32::from(*devfn))
            {
                let what = format!("requester ID of function {devfn:#04x} behind it");
                return Err(RestoreError::value(what, "is another function's"));
            }
        }
        Ok(())
    }

    /// All functions behind the port.
    pub(super) fn functions(&self) -> Vec<Arc<dyn PciFunction>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// First and last address of each open memory window (7.5.1.3.8, 7.5.1.3.9).
    pub(super) fn memory_windows(&self) -> Vec<(u64, u64)> {
        if !self.config.decodes_memory() || self.is_bus_in_reset() {
            return Vec::new();
        }
        let low = |field| (self.get(field) & 0xfff0) << 16;
        let memory = (low(bridge::MEMORY_BASE), low(bridge::MEMORY_LIMIT) | 0xf_ffff);
        let upper = |field| self.get(field) << 32;
        let prefetchable = (
            upper(bridge::PREFETCHABLE_BASE_UPPER) | low(bridge::PREFETCHABLE_BASE),
            upper(bridge::PREFETCHABLE_LIMIT_UPPER) | low(bridge::PREFETCHABLE_LIMIT) | 0xf_ffff,
        );
        // A limit below the base closes a window.
        [memory, prefetchable].into_iter().filter(|(base, limit)| base <= limit).collect()
    }

    /// A reset of the bus, by software or of the machine, as far as configuration spaces go: functions also forget the bus
    /// number that they have captured.
    pub(super) fn reset_configurations(&self) {
        for function in self.functions() {
            function.config().reset();
            function.config().forget_requester();
        }
    }

    fn reset_bus(&self) {
        self.reset_configurations();
        self.functions().iter().for_each(|function| function.function_reset());
    }
}

impl PciFunction for RootPort {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn as_port(&self) -> Option<&RootPort> {
        Some(self)
    }

    fn config_write(&self, offset: u64, data: &[u8]) -> Effects {
        let was_in_reset = self.is_bus_in_reset();
        let effects = self.config.write(offset, data);
        if !was_in_reset && self.is_bus_in_reset() {
            self.reset_bus();
        }
        effects
    }

    fn bar_read(&self, _bar: u8, offset: u64, _data: &mut [u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(offset))
    }

    fn bar_write(&self, _bar: u8, offset: u64, _data: &[u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(offset))
    }

    /// Ports have no function-level reset.
    fn function_reset(&self) {}
}
