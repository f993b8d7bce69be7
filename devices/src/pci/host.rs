//! The host bridge: ECAM and the three windows, and who answers where.
//!
//! PCI Express Base 7.2.2 (ECAM). The routes are a sorted list of disjoint ranges, made anew whenever the guest
//! changes a BAR, Command or the power state of a function; an access through a window takes only their read lock.
//! Where BARs overlap, the function with the lowest requester ID answers, and of one function the lowest BAR.
//!
//! Locks, from left to right: routes, functions, functions behind a port, registers of one function; none is held
//! while a function is called.
//!
//! Accesses that nobody takes, or that a function refuses, read all ones and drop writes, as a completion with
//! Unsupported Request does.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use hw::saved::{RestoreError, SavedState};
use hw::{BusError, LifeCycle, MmioDevice, StreamId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::config::{ConfigSpace, ConfigState, Identity};
use super::{PciFunction, requester_id};

/// A place on the bus cannot be taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AttachError {
    /// There is a function already.
    #[error("function {0:#x} is taken")]
    Taken(u32),
}

/// Routes of one address space, memory or I/O.
type Routes = Vec<Route>;

#[derive(Clone)]
struct Route {
    first: u64,
    last: u64,
    /// PCI address at which the BAR begins; below `first` where another BAR covers its start.
    base: u64,
    bar: u8,
    function: Arc<dyn PciFunction>,
}

#[derive(Default)]
struct Map {
    memory: Routes,
    io: Routes,
}

impl Map {
    /// Claims what `function` decodes: of memory only what is inside `windows`, of I/O only with `io`.
    fn claim_bars(&mut self, function: &Arc<dyn PciFunction>, windows: &[(u64, u64)], io: bool) {
        for decoded in function.config().decoded_bars() {
            let Some(last) = decoded.base.checked_add(decoded.size - 1) else { continue };
            let whole = Route {
                first: decoded.base,
                last,
                base: decoded.base,
                bar: decoded.bar,
                function: Arc::clone(function),
            };
            if !decoded.is_io {
                for &(from, to) in windows {
                    let (first, last) = (decoded.base.max(from), last.min(to));
                    if first <= last {
                        claim(&mut self.memory, Route { first, last, ..whole.clone() });
                    }
                }
            } else if io {
                claim(&mut self.io, whole);
            }
        }
    }
}

/// The PCI Express host: all functions, with requester IDs that are theirs alone. One root bus or several; several may be
/// one segment each, or one segment all.
pub struct PciHost {
    functions: RwLock<BTreeMap<u16, Arc<dyn PciFunction>>>,
    map: RwLock<Map>,
}

impl PciHost {
    /// A host with nothing but its host bridge, at 00:00.0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let bridge: Arc<dyn PciFunction> = Arc::new(HostBridge::new());
        Arc::new(Self { functions: RwLock::new(BTreeMap::from([(0, bridge)])), map: RwLock::default() })
    }

    /// Adds a root bus with its own host bridge, in slot 0.
    ///
    /// # Errors
    /// If there is something already.
    pub fn add_root_bus(&self, bus: u8) -> Result<(), AttachError> {
        self.attach(bus, 0, Arc::new(HostBridge::new())).map(drop)
    }

    /// Puts a function at a place of its own and returns its requester ID. `devfn` as in [`requester_id`].
    ///
    /// # Errors
    /// If the place is taken.
    pub fn attach(
        &self,
        bus: u8,
        devfn: u8,
        function: Arc<dyn PciFunction>,
    ) -> Result<StreamId, AttachError> {
        let rid = u16::from(bus) << 8 | u16::from(devfn);
        {
            let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
            if functions.contains_key(&rid) {
                return Err(AttachError::Taken(rid.into()));
            }
            function.config().capture_requester(requester_id(bus, devfn));
            functions.insert(rid, function);
        }
        self.remap();
        Ok(requester_id(bus, devfn))
    }

    /// Takes a function off the bus: a virtual function that the guest has disabled.
    pub fn detach(&self, rid: StreamId) -> Option<Arc<dyn PciFunction>> {
        let rid = u16::try_from(rid.0).ok()?;
        let function = self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(&rid);
        self.remap();
        function
    }

    /// The ECAM window: 4 KiB for each function of 256 buses, 256 MiB in all.
    #[must_use]
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Ecam { host: Arc::clone(self) })
    }

    /// A window into memory space: its first byte is PCI address `pci_base`.
    #[must_use]
    pub fn memory_window(self: &Arc<Self>, pci_base: u64) -> Arc<dyn MmioDevice> {
        Arc::new(Window { host: Arc::clone(self), pci_base, is_io: false })
    }

    /// A window into I/O space: its first byte is port `pci_base`.
    #[must_use]
    pub fn io_window(self: &Arc<Self>, pci_base: u64) -> Arc<dyn MmioDevice> {
        Arc::new(Window { host: Arc::clone(self), pci_base, is_io: true })
    }

    /// The function that answers to a requester ID: one that is attached there, or one behind a port.
    fn function(&self, rid: u16) -> Option<Arc<dyn PciFunction>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&rid) {
            return Some(Arc::clone(function));
        }
        let [devfn, bus] = rid.to_le_bytes();
        functions
            .values()
            .filter_map(|function| function.as_port())
            .find_map(|port| port.function(bus, devfn))
    }

    /// Makes the routes anew. The write lock is taken before the functions are asked, so that of two concurrent
    /// changes the later list has seen both.
    fn remap(&self) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.memory.clear();
        map.io.clear();
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        for function in functions.values() {
            map.claim_bars(function, &[(0, u64::MAX)], true);
            if let Some(port) = function.as_port() {
                let windows = port.memory_windows();
                for function in port.functions() {
                    map.claim_bars(&function, &windows, false);
                }
            }
        }
    }

    /// The function, BAR and offset that answer for `len` bytes at a PCI address.
    fn route(&self, is_io: bool, address: u64, len: usize) -> Option<(Arc<dyn PciFunction>, u8, u64)> {
        let end = address.checked_add(u64::try_from(len).ok()?.checked_sub(1)?)?;
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let routes = if is_io { &map.io } else { &map.memory };
        let after = routes.partition_point(|route| route.first <= address);
        let route = routes.get(after.checked_sub(1)?)?;
        (end <= route.last).then(|| (Arc::clone(&route.function), route.bar, address - route.base))
    }
}

/// Adds those parts of `new` that nobody has claimed yet, keeping the list sorted and disjoint.
fn claim(routes: &mut Routes, new: Route) {
    let mut free = Vec::new();
    let mut from = Some(new.first);
    for taken in routes.iter().filter(|taken| taken.last >= new.first && taken.first <= new.last) {
        let Some(start) = from else { break };
        if taken.first > start {
            free.push((start, taken.first - 1));
        }
        from = taken.last.checked_add(1).filter(|&next| next <= new.last);
    }
    if let Some(start) = from {
        free.push((start, new.last));
    }
    for (first, last) in free {
        let at = routes.partition_point(|route| route.first < first);
        routes.insert(at, Route { first, last, ..new.clone() });
    }
}

impl LifeCycle for PciHost {
    /// The configuration spaces of all functions, those of bridges among them, and with them the routes. What a function has
    /// besides it resets itself, before: it makes accesses, or is behind what does.
    fn reset(&self) {
        {
            let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
            for function in functions.values() {
                function.config().reset();
                if let Some(port) = function.as_port() {
                    port.reset_configurations();
                }
            }
        }
        self.remap();
    }

    /// The configuration spaces of bridges; those of other functions are in their own states.
    fn save(&self) -> Value {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let bridges = functions.iter().filter(|(_, function)| function.is_bridge());
        HostState { bridges: bridges.map(|(rid, bridge)| (key(*rid), bridge.config().save())).collect() }
            .to_value()
    }

    /// After the restore of all functions: the routes follow from all of them.
    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let HostState { mut bridges } = HostState::from_value(state)?;
        {
            let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
            for (rid, bridge) in functions.iter().filter(|(_, function)| function.is_bridge()) {
                let key = key(*rid);
                let config = bridges
                    .remove(&key)
                    .ok_or_else(|| RestoreError::value(format!("bridges/{key}"), "is missing"))?;
                let within = |error: RestoreError| error.within(&key).within("bridges");
                bridge.config().restore(config).map_err(within)?;
                if let Some(port) = bridge.as_port() {
                    port.check_requesters().map_err(within)?;
                }
            }
        }
        if let Some(key) = bridges.into_keys().next() {
            return Err(RestoreError::value(format!("bridges/{key}"), "there is no bridge"));
        }
        self.remap();
        Ok(())
    }
}

/// What the host saves, by requester ID.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostState {
    bridges: BTreeMap<String, ConfigState>,
}

impl SavedState for HostState {
    const VERSION: u32 = 1;
}

fn key(rid: u16) -> String {
    format!("{rid:#06x}")
}

struct Ecam {
    host: Arc<PciHost>,
}

impl Ecam {
    /// The requester ID and register of an offset: bus, device, function, register from bit 20, 15, 12, 0 on.
    fn split(offset: u64) -> Option<(u16, u64)> {
        Some((u16::try_from(offset >> 12).ok()?, offset & 0xfff))
    }
}

impl MmioDevice for Ecam {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        match Self::split(offset).and_then(|(rid, at)| Some((self.host.function(rid)?, at))) {
            Some((function, at)) => function.config_read(at, data),
            None => data.fill(0xff),
        }
        Ok(())
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let Some((function, at)) =
            Self::split(offset).and_then(|(rid, at)| Some((self.host.function(rid)?, at)))
        else {
            return Ok(());
        };
        if let Some((rid, _)) = Self::split(offset) {
            function.config().capture_requester(StreamId(rid.into()));
        }
        let effects = function.config_write(at, data);
        if effects.decode_changed {
            self.host.remap();
        }
        if effects.reset {
            function.function_reset();
        }
        Ok(())
    }
}

/// What functions' mistakes of this kind are called.
const REFUSED: &str = "accesses to BARs that are refused";

/// A window of the host bridge into memory or I/O space.
pub struct Window {
    host: Arc<PciHost>,
    pci_base: u64,
    is_io: bool,
}

impl Window {
    fn route(&self, offset: u64, len: usize) -> Option<(Arc<dyn PciFunction>, u8, u64)> {
        self.host.route(self.is_io, self.pci_base.checked_add(offset)?, len)
    }
}

impl MmioDevice for Window {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let Some((function, bar, at)) = self.route(offset, data.len()) else {
            data.fill(0xff);
            return Ok(());
        };
        let config = function.config();
        let answer = if config.msix_layout().is_some_and(|layout| layout.covers(bar, at)) {
            config.msix_read(at, data)
        } else {
            function.bar_read(bar, at, data)
        };
        if let Err(error) = answer {
            let what = format_args!("read of BAR {bar}: {error}");
            config.errors().report(REFUSED, what);
            data.fill(0xff);
        }
        Ok(())
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let Some((function, bar, at)) = self.route(offset, data.len()) else { return Ok(()) };
        let config = function.config();
        let answer = if config.msix_layout().is_some_and(|layout| layout.covers(bar, at)) {
            config.msix_write(at, data)
        } else {
            function.bar_write(bar, at, data)
        };
        if let Err(error) = answer {
            config.errors().report(REFUSED, format_args!("write to BAR {bar}: {error}"));
        }
        Ok(())
    }
}

/// A host bridge as a function of its root bus: an identity, nothing else.
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// The identity of QEMU's generic PCI Express host bridge, which `virt` guests know.
    pub const IDENTITY: Identity = Identity {
        vendor: 0x1b36,
        device: 0x0008,
        class: 0x06_00_00,
        revision: 0,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    };

    fn new() -> Self {
        Self { config: ConfigSpace::builder(Self::IDENTITY).build() }
    }
}

impl PciFunction for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn is_bridge(&self) -> bool {
        true
    }

    fn bar_read(&self, _bar: u8, offset: u64, _data: &mut [u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(offset))
    }

    fn bar_write(&self, _bar: u8, offset: u64, _data: &[u8]) -> Result<(), BusError> {
        Err(BusError::NoRegister(offset))
    }

    fn function_reset(&self) {}
}
