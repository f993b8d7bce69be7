//! NUMA: which node memory, CPUs and accelerators belong to, and the PCI host bridges of the nodes.
//!
//! Linux gives a PCI function the node of its host bridge and looks at no property of the function's own node, so each node
//! has a host bridge: a PCI segment with its share of the buses and of the windows. The shares are disjoint, and requester
//! IDs with them, so that StreamIDs and DeviceIDs stay the requester IDs. One host model serves all segments.
//!
//! Without `--numa` there is one host bridge with everything, and nobody speaks of nodes.

use hw::Pa;

use crate::board::map::{self, Window};
use crate::exit::{Failed, Status};

/// Nodes that a machine can have. Linux for arm64 is built for 16 by default.
pub const MAX_NODES: u32 = 8;
/// The least memory of a node: what the smallest machine has.
const LEAST_MEMORY: u64 = 32 << 20;
/// Nodes begin at multiples of this: no huge page is in two.
const ALIGN: u64 = 2 << 20;
/// Windows for memory begin at multiples of this.
const WINDOW_ALIGN: u64 = 1 << 20;
const BUSES: u32 = 256;

/// Distances as ACPI's SLIT counts: ten is a node's own memory.
const LOCAL: u32 = 10;
const REMOTE: u32 = 20;

/// A PCI host bridge: a segment's root bus and what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootBus {
    /// Segment, Linux's domain.
    pub(crate) segment: u32,
    /// The root bus; the others up to `last_bus` are for bridges behind it.
    pub(crate) first_bus: u8,
    /// The last bus of the segment.
    pub(crate) last_bus: u8,
    /// Configuration space of these buses.
    pub(crate) ecam: Window,
    /// Memory below 4 GiB.
    pub(crate) mmio32: Window,
    /// Memory above.
    pub(crate) mmio64: Window,
    /// I/O ports; port numbers are offsets in [`map::PCI_IO`].
    pub(crate) io: Window,
    /// Its node, if there are nodes.
    pub(crate) node: Option<u32>,
}

/// How a machine's parts are spread over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    cpus: u32,
    ram_bytes: u64,
    nodes: Option<u32>,
}

/// The share with this number of a window that is cut in `of` equal parts.
fn share(window: Window, number: u32, of: u32, align: u64) -> Window {
    if of == 1 {
        return window;
    }
    let size = window.size / u64::from(of) / align * align;
    Window { base: window.base + u64::from(number) * size, size }
}

impl Topology {
    /// Of a machine with this many vCPUs and bytes of RAM; `nodes` is the user's wish.
    ///
    /// # Errors
    /// A line for the user.
    pub fn new(cpus: u32, ram_bytes: u64, nodes: Option<u32>) -> Result<Self, Failed> {
        let least = u64::from(nodes.unwrap_or(1)) * LEAST_MEMORY;
        if ram_bytes < least {
            let message = format!(
                "--numa {} needs --memory {}M or more: a node has at least {}M",
                nodes.unwrap_or(1),
                least >> 20,
                LEAST_MEMORY >> 20
            );
            return Err(Failed::with_status(Status::Usage, message));
        }
        Ok(Self { cpus, ram_bytes, nodes })
    }

    /// vCPUs of the machine.
    #[must_use]
    pub const fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Bytes of RAM.
    #[must_use]
    pub const fn ram_bytes(&self) -> u64 {
        self.ram_bytes
    }

    /// The node of a vCPU: neighbours are together. With more nodes than vCPUs some have memory only.
    pub(crate) fn cpu_node(&self, cpu: u32) -> Option<u32> {
        self.nodes.map(|nodes| (u64::from(cpu) * u64::from(nodes) / u64::from(self.cpus)) as u32)
    }

    /// RAM in the order of nodes: address, bytes, node. The last node has what does not divide.
    pub(crate) fn memory(&self) -> Vec<(Pa, u64, Option<u32>)> {
        let count = self.nodes.unwrap_or(1);
        let size = self.ram_bytes / u64::from(count) / ALIGN * ALIGN;
        let part = |index: u32| {
            let offset = u64::from(index) * size;
            let size = if index + 1 == count { self.ram_bytes - offset } else { size };
            (Pa(map::RAM_BASE + offset), size, self.nodes.map(|_| index))
        };
        (0..count).map(part).collect()
    }

    /// The distances of each pair of nodes, once: from, to, distance. Empty without nodes.
    pub(crate) fn distances(&self) -> Vec<[u32; 3]> {
        let nodes = self.nodes.unwrap_or(0);
        (0..nodes)
            .flat_map(|from| (from..nodes).map(move |to| [from, to, if from == to { LOCAL } else { REMOTE }]))
            .collect()
    }

    /// The host bridges, one per node.
    pub(crate) fn root_buses(&self) -> Vec<RootBus> {
        let count = self.nodes.unwrap_or(1);
        // A power of two, so that shares of buses are whole and their configuration space is aligned.
        let shares = count.next_power_of_two();
        let buses = BUSES / shares;
        let root_bus = |segment: u32| RootBus {
            segment,
            // Both are below 256.
            first_bus: (segment * buses) as u8,
            last_bus: (segment * buses + buses - 1) as u8,
            ecam: share(map::PCI_ECAM, segment, shares, 1),
            mmio32: share(map::PCI_MMIO32, segment, shares, WINDOW_ALIGN),
            mmio64: share(map::PCI_MMIO64, segment, shares, 1),
            io: share(map::PCI_IO, segment, shares, 1),
            node: self.nodes.map(|_| segment),
        };
        (0..count).map(root_bus).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(cpus: u32, nodes: u32) -> Topology {
        Topology::new(cpus, 1 << 30, Some(nodes)).unwrap()
    }

    #[test]
    fn machine_without_nodes_has_one_host_bridge_with_everything() {
        let plain = Topology::new(4, 1 << 30, None).unwrap();
        assert_eq!(plain.memory(), [(Pa(map::RAM_BASE), 1 << 30, None)]);
        assert_eq!((plain.cpu_node(3), plain.distances().len()), (None, 0));
        let [only] = plain.root_buses()[..] else { panic!("one host bridge") };
        assert_eq!((only.first_bus, only.last_bus, only.segment, only.node), (0, 255, 0, None));
        let windows = (only.ecam, only.mmio32, only.mmio64, only.io);
        assert_eq!(windows, (map::PCI_ECAM, map::PCI_MMIO32, map::PCI_MMIO64, map::PCI_IO));
    }

    #[test]
    fn memory_of_the_nodes_is_all_of_ram_without_gaps() {
        for nodes in 1..=MAX_NODES {
            for ram in [256 << 20, (256 << 20) + ALIGN, 3 << 30] {
                let memory = Topology::new(1, ram, Some(nodes)).unwrap().memory();
                let mut next = map::RAM_BASE;
                for &(base, size, _) in &memory {
                    assert_eq!((base.0, base.0 % ALIGN), (next, 0));
                    assert!(size >= LEAST_MEMORY);
                    next += size;
                }
                assert_eq!((next, memory.len()), (map::RAM_BASE + ram, nodes as usize));
            }
        }
    }

    #[test]
    fn vcpus_are_spread_evenly_and_neighbours_are_together() {
        let nodes = |cpus, nodes| {
            let machine = topology(cpus, nodes);
            (0..cpus).map(|cpu| machine.cpu_node(cpu).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(nodes(4, 2), [0, 0, 1, 1]);
        assert_eq!(nodes(5, 2), [0, 0, 0, 1, 1]);
        assert_eq!(nodes(3, 3), [0, 1, 2]);
        assert_eq!(nodes(1, 2), [0]);
        assert_eq!(nodes(map::MAX_CPUS, MAX_NODES).last(), Some(&(MAX_NODES - 1)));
    }

    #[test]
    fn host_bridges_share_buses_and_windows_without_overlap() {
        for nodes in 1..=MAX_NODES {
            let all = topology(1, nodes).root_buses();
            assert_eq!(all.len(), nodes as usize);
            let (first, last) = (all[0], all[nodes as usize - 1]);
            for (start, end, whole) in [
                (first.ecam, last.ecam, map::PCI_ECAM),
                (first.mmio32, last.mmio32, map::PCI_MMIO32),
                (first.mmio64, last.mmio64, map::PCI_MMIO64),
                (first.io, last.io, map::PCI_IO),
            ] {
                assert!(start.base == whole.base && end.end() <= whole.end());
            }
            for pair in all.windows(2) {
                let [one, next] = pair else { panic!("two") };
                assert!(one.ecam.end() <= next.ecam.base && one.mmio32.end() <= next.mmio32.base);
                assert!(one.mmio64.end() <= next.mmio64.base && one.io.end() <= next.io.base);
            }
            for bus in &all {
                let buses = u64::from(bus.last_bus) - u64::from(bus.first_bus) + 1;
                assert_eq!(bus.ecam.size, buses << 20);
                assert_eq!(bus.ecam.base, map::PCI_ECAM.base + (u64::from(bus.first_bus) << 20));
            }
        }
    }

    #[test]
    fn distances_are_ten_at_home_and_twenty_elsewhere() {
        assert_eq!(topology(2, 2).distances(), [[0, 0, 10], [0, 1, 20], [1, 1, 10]]);
    }

    #[test]
    fn nodes_with_too_little_memory_are_refused_with_what_would_do() {
        let refused = Topology::new(1, 64 << 20, Some(4)).unwrap_err();
        assert_eq!(refused.status, Status::Usage);
        assert!(refused.message.contains("--memory 128M"), "{}", refused.message);
        Topology::new(1, 128 << 20, Some(4)).unwrap();
    }
}
