//! The device-tree nodes of the board's parts, with the addresses and interrupts of [`super::map`].
//!
//! Bindings: `Documentation/devicetree/bindings` of Linux.

use devices::gic::virt_affinity;

use crate::board::map::{self, Window, ppi, spi};
use crate::board::numa::{RootBus, Topology};
use crate::board::pci::Described;
use crate::boot::fdt::{EDGE, LEVEL, Node, PPI, SPI, Value, phandle};

/// What `/chosen` tells the kernel.
pub(crate) struct Chosen<'a> {
    /// Command line.
    pub(crate) bootargs: &'a str,
    /// First and one past the last byte of the initramfs.
    pub(crate) initrd: Option<(u64, u64)>,
    /// Randomness for the kernel's generator and its placement.
    pub(crate) seed: [u8; 64],
}

fn reg(window: Window) -> [u64; 2] {
    [window.base, window.size]
}

fn at(name: &str, window: Window) -> Node {
    Node::new(format!("{name}@{:x}", window.base))
}

/// The root with everything below it.
pub(crate) fn root(topology: &Topology, chosen: &Chosen<'_>, parts: &[Node]) -> Node {
    let mut root = Node::new("")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .strings("compatible", &["linux,dummy-virt"])
        .strings("model", &["warpvmm"])
        .cells("interrupt-parent", &[phandle::GIC])
        .flag("dma-coherent")
        .child(chosen_node(chosen))
        .child(Node::new("aliases").strings("serial0", &[&uart_path()]))
        .child(cpus_node(topology))
        .child(
            Node::new("psci")
                .strings("compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])
                .strings("method", &["hvc"]),
        );
    for (base, bytes, node) in topology.memory() {
        let memory = Node::new(format!("memory@{:x}", base.0))
            .strings("device_type", &["memory"])
            .cells64("reg", &[base.0, bytes]);
        root = root.child(in_numa_node(memory, node));
    }
    let distances = topology.distances().concat();
    if !distances.is_empty() {
        let map = Node::new("distance-map")
            .strings("compatible", &["numa-distance-map-v1"])
            .cells("distance-matrix", &distances);
        root = root.child(map);
    }
    for part in parts {
        root = root.child(part.clone());
    }
    root
}

/// Says which NUMA node a part belongs to, if there are nodes (`numa.txt` of the bindings).
fn in_numa_node(part: Node, node: Option<u32>) -> Node {
    match node {
        Some(node) => part.cells("numa-node-id", &[node]),
        None => part,
    }
}

fn uart_path() -> String {
    format!("/pl011@{:x}", map::UART.base)
}

fn chosen_node(chosen: &Chosen<'_>) -> Node {
    let (kaslr, rng) = chosen.seed.split_at(8);
    let mut node = Node::new("chosen")
        .strings("stdout-path", &[&uart_path()])
        .strings("bootargs", &[chosen.bootargs])
        .with("kaslr-seed", Value::Bytes(kaslr.to_vec()))
        .with("rng-seed", Value::Bytes(rng.to_vec()));
    if let Some((start, end)) = chosen.initrd {
        node = node.cells64("linux,initrd-start", &[start]).cells64("linux,initrd-end", &[end]);
    }
    node
}

fn cpus_node(topology: &Topology) -> Node {
    let cpus = topology.cpus();
    let mut node = Node::new("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    for cpu in 0..cpus {
        let mut one = Node::new(format!("cpu@{:x}", virt_affinity(cpu as usize)))
            .strings("device_type", &["cpu"])
            .strings("compatible", &["arm,armv8"])
            .cells("reg", &[virt_affinity(cpu as usize)])
            .cells("phandle", &[phandle::CPU0 + cpu]);
        if cpus > 1 {
            one = one.strings("enable-method", &["psci"]);
        }
        node = node.child(in_numa_node(one, topology.cpu_node(cpu)));
    }
    node
}

/// The generic timers. The firmware-only ones are listed as on `virt`, because the binding's order is fixed.
pub(crate) fn timer() -> Node {
    const SECURE: u32 = 13;
    const HYPERVISOR: u32 = 10;
    let interrupts: Vec<u32> = [SECURE, ppi::PHYSICAL_TIMER, ppi::VIRTUAL_TIMER, HYPERVISOR]
        .iter()
        .flat_map(|&n| [PPI, n, LEVEL])
        .collect();
    Node::new("timer")
        .strings("compatible", &["arm,armv8-timer", "arm,armv7-timer"])
        .cells("interrupts", &interrupts)
        .flag("always-on")
}

/// GICv3 with its ITS.
pub(crate) fn gic(redistributors: Window) -> Node {
    at("intc", map::GICD)
        .strings("compatible", &["arm,gic-v3"])
        .cells("#interrupt-cells", &[3])
        .flag("interrupt-controller")
        .cells("#redistributor-regions", &[1])
        .cells64("reg", &[reg(map::GICD), reg(redistributors)].concat())
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2])
        .flag("ranges")
        .cells("phandle", &[phandle::GIC])
        .child(
            at("its", map::ITS)
                .strings("compatible", &["arm,gic-v3-its"])
                .flag("msi-controller")
                .cells("#msi-cells", &[1])
                .cells64("reg", &reg(map::ITS))
                .cells("phandle", &[phandle::ITS]),
        )
}

/// The clock of UART and RTC.
pub(crate) fn clock24mhz() -> Node {
    Node::new("apb-pclk")
        .strings("compatible", &["fixed-clock"])
        .cells("#clock-cells", &[0])
        .cells("clock-frequency", &[24_000_000])
        .strings("clock-output-names", &["clk24mhz"])
        .cells("phandle", &[phandle::CLK24MHZ])
}

/// PL011.
pub(crate) fn uart() -> Node {
    at("pl011", map::UART)
        .strings("compatible", &["arm,pl011", "arm,primecell"])
        .cells64("reg", &reg(map::UART))
        .cells("interrupts", &[SPI, spi::UART, LEVEL])
        .cells("clocks", &[phandle::CLK24MHZ, phandle::CLK24MHZ])
        .strings("clock-names", &["uartclk", "apb_pclk"])
}

/// PL031.
pub(crate) fn rtc() -> Node {
    at("pl031", map::RTC)
        .strings("compatible", &["arm,pl031", "arm,primecell"])
        .cells64("reg", &reg(map::RTC))
        .cells("interrupts", &[SPI, spi::RTC, LEVEL])
        .cells("clocks", &[phandle::CLK24MHZ])
        .strings("clock-names", &["apb_pclk"])
}

/// SMMUv3, wired interrupts.
pub(crate) fn smmu() -> Node {
    at("iommu", map::SMMU)
        .strings("compatible", &["arm,smmu-v3"])
        .cells64("reg", &reg(map::SMMU))
        .cells(
            "interrupts",
            &[
                [SPI, spi::SMMU_EVENTQ, EDGE],
                [SPI, spi::SMMU_PRIQ, EDGE],
                [SPI, spi::SMMU_CMDQ_SYNC, EDGE],
                [SPI, spi::SMMU_GERROR, EDGE],
            ]
            .concat(),
        )
        .strings("interrupt-names", &["eventq", "priq", "cmdq-sync", "gerror"])
        .cells("#iommu-cells", &[1])
        .flag("dma-coherent")
        .cells("phandle", &[phandle::SMMU])
}

/// A PCI host bridge, with nodes for functions on its root bus. `has_ats`: some have translation caches.
pub(crate) fn pcie(root: &RootBus, described: &[Described], has_ats: bool) -> Node {
    let hi_lo = |v: u64| [(v >> 32) as u32, v as u32];
    let window = |space: u32, pci: u64, w: Window| -> Vec<u32> {
        [&[space][..], &hi_lo(pci), &hi_lo(w.base), &hi_lo(w.size)].concat()
    };
    const IO: u32 = 0x0100_0000;
    const MEM32: u32 = 0x0200_0000;
    const MEM64: u32 = 0x0300_0000;
    let ranges = [
        window(IO, root.io.base - map::PCI_IO.base, root.io),
        window(MEM32, root.mmio32.base, root.mmio32),
        window(MEM64, root.mmio64.base, root.mmio64),
    ]
    .concat();
    // INTA to INTD of four neighbouring slots, swizzled over four SPIs.
    let mut intx = Vec::new();
    for slot in 0..4 {
        for pin in 1..=4 {
            let line = spi::PCI_INTA + (slot + pin - 1) % 4;
            intx.extend([slot << 11, 0, 0, pin, phandle::GIC, 0, 0, SPI, line, LEVEL]);
        }
    }
    let first_rid = u32::from(root.first_bus) << 8;
    let rids = ((u32::from(root.last_bus) + 1) << 8) - first_rid;
    let mut node = Node::new(format!("pcie@{:x}", root.mmio32.base))
        .strings("compatible", &["pci-host-ecam-generic"])
        .strings("device_type", &["pci"])
        .cells("#address-cells", &[3])
        .cells("#size-cells", &[2])
        .cells("#interrupt-cells", &[1])
        .cells64("reg", &reg(root.ecam))
        .cells("bus-range", &[root.first_bus.into(), root.last_bus.into()])
        .cells("linux,pci-domain", &[root.segment])
        .flag("dma-coherent")
        .cells("ranges", &ranges)
        // DeviceIDs and StreamIDs are requester IDs.
        .cells("msi-map", &[first_rid, phandle::ITS, first_rid, rids])
        .cells("iommu-map", &[first_rid, phandle::SMMU, first_rid, rids])
        .cells("interrupt-map-mask", &[0x1800, 0, 0, 7])
        .cells("interrupt-map", &intx);
    if has_ats {
        node = node.flag("ats-supported");
    }
    node = in_numa_node(node, root.node);
    for &Described { name, bus, devfn, can_stall } in described.iter().filter(|one| one.bus == root.first_bus)
    {
        let function = Node::new(format!("{name}@{:x},{:x}", devfn >> 3, devfn & 7))
            .cells("reg", &[u32::from(bus) << 16 | u32::from(devfn) << 8, 0, 0, 0, 0]);
        node = node.child(if can_stall { function.flag("dma-can-stall") } else { function });
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::numa::MAX_NODES;

    #[test]
    fn whole_tree_flattens_for_one_and_for_all_cpus() {
        for (cpus, nodes) in [(1, None), (4, Some(2)), (map::MAX_CPUS, Some(MAX_NODES))] {
            let topology = Topology::new(cpus, 1 << 30, nodes).unwrap();
            let zip = Described { name: "accelerator", bus: 0, devfn: 8, can_stall: true };
            let chosen = Chosen { bootargs: "console=ttyAMA0", initrd: Some((1, 2)), seed: [1; 64] };
            let mut parts = vec![gic(map::GICR), timer(), clock24mhz(), uart(), rtc(), smmu()];
            parts.extend(topology.root_buses().iter().map(|bus| pcie(bus, &[zip], true)));
            let fdt = root(&topology, &chosen, &parts).flatten().unwrap();
            assert!(fdt.len() < 64 << 10);
        }
    }

    #[test]
    fn parts_name_their_nodes_only_in_a_machine_that_has_nodes() {
        let tree = |nodes| {
            let topology = Topology::new(2, 1 << 30, nodes).unwrap();
            let bridges: Vec<_> = topology.root_buses().iter().map(|bus| pcie(bus, &[], false)).collect();
            let chosen = Chosen { bootargs: "", initrd: None, seed: [0; 64] };
            format!("{:?}", root(&topology, &chosen, &bridges))
        };
        let (plain, two) = (tree(None), tree(Some(2)));
        assert!(!plain.contains("numa"), "{plain}");
        // Two of each: memory, vCPU, host bridge.
        assert_eq!(two.matches("(\"numa-node-id\", Cells([0]))").count(), 3);
        assert_eq!(two.matches("(\"numa-node-id\", Cells([1]))").count(), 3);
        assert!(two.contains("(\"distance-matrix\", Cells([0, 0, 10, 0, 1, 20, 1, 1, 10]))"), "{two}");
        assert!(two.contains("(\"iommu-map\", Cells([32768, 4, 32768, 32768]))"), "{two}");
    }
}
