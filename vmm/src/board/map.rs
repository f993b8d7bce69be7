//! Where things are: the physical memory map and the interrupt map, compatible with QEMU's `virt` board.

use hw::Pa;

/// A window of the physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl Window {
    const fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }

    /// First address.
    #[must_use]
    pub const fn pa(self) -> Pa {
        Pa(self.base)
    }

    /// First address after the window.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base + self.size
    }
}

/// GICv3 distributor.
pub const GICD: Window = Window::new(0x0800_0000, 0x1_0000);
/// GICv3 ITS: control frame and translation frame.
pub const ITS: Window = Window::new(0x0808_0000, 0x2_0000);
/// GICv3 redistributors, [`GICR_STRIDE`] each. The window in use ends with the last CPU's.
pub const GICR: Window = Window::new(0x080a_0000, 0xf6_0000);
/// Bytes of one redistributor: RD frame and SGI frame.
pub const GICR_STRIDE: u64 = 0x2_0000;
/// The part of [`GICR`] that `cpus` CPUs use.
#[must_use]
pub const fn redistributors(cpus: usize) -> Window {
    Window::new(GICR.base, GICR_STRIDE * cpus as u64)
}

/// PL011.
pub const UART: Window = Window::new(0x0900_0000, 0x1000);
/// PL031.
pub const RTC: Window = Window::new(0x0901_0000, 0x1000);
/// SMMUv3: two 64 KiB pages.
pub const SMMU: Window = Window::new(0x0905_0000, 0x2_0000);
/// PCIe memory below 4 GiB, 1:1.
pub const PCI_MMIO32: Window = Window::new(0x1000_0000, 0x2eff_0000);
/// PCIe I/O ports; PCI address 0.
pub const PCI_IO: Window = Window::new(0x3eff_0000, 0x1_0000);
/// RAM; its size is the user's.
pub const RAM_BASE: u64 = 0x4000_0000;
/// PCIe configuration space of 256 buses.
pub const PCI_ECAM: Window = Window::new(0x40_1000_0000, 0x1000_0000);
/// PCIe memory above 4 GiB, 1:1.
pub const PCI_MMIO64: Window = Window::new(0x80_0000_0000, 0x80_0000_0000);

/// RAM ends below this: the second redistributor region of `virt` and the high ECAM start there.
pub const RAM_LIMIT: u64 = 0x40_0000_0000;

/// How many CPUs the redistributor window has room for.
pub const MAX_CPUS: u32 = (GICR.size / GICR_STRIDE) as u32;

/// SPI numbers: the interrupt cell in the device tree, INTID - 32.
pub mod spi {
    /// PL011, level.
    pub const UART: u32 = 1;
    /// PL031, level.
    pub const RTC: u32 = 2;
    /// First of the four PCI pins INTA to INTD, level, swizzled by slot.
    pub const PCI_INTA: u32 = 3;
    /// SMMUv3 event queue, edge.
    pub const SMMU_EVENTQ: u32 = 74;
    /// SMMUv3 page request queue, edge.
    pub const SMMU_PRIQ: u32 = 75;
    /// SMMUv3 CMD_SYNC, edge.
    pub const SMMU_CMDQ_SYNC: u32 = 76;
    /// SMMUv3 global errors, edge.
    pub const SMMU_GERROR: u32 = 77;
    /// SPIs that the distributor has: INTIDs 32 to 287, as on `virt`.
    pub const COUNT: u32 = 256;
}

/// PPI numbers: INTID - 16.
pub mod ppi {
    /// EL1 virtual timer (INTID 27).
    pub const VIRTUAL_TIMER: u32 = 11;
    /// EL1 non-secure physical timer (INTID 30).
    pub const PHYSICAL_TIMER: u32 = 14;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_ram_fits_below_the_high_devices() {
        let mut all = [GICD, ITS, GICR, UART, RTC, SMMU, PCI_MMIO32, PCI_IO, PCI_ECAM, PCI_MMIO64];
        all.sort_by_key(|w| w.base);
        for pair in all.windows(2) {
            assert!(pair[0].end() <= pair[1].base, "{pair:x?}");
        }
        assert!(PCI_IO.end() <= RAM_BASE && RAM_LIMIT <= PCI_ECAM.base);
        assert_eq!(MAX_CPUS, 123);
    }

    #[test]
    fn kernel_of_our_guest_uses_as_many_cpus_as_there_can_be() {
        let config = include_str!("../../../guest/kernel/config");
        let most = config.lines().find_map(|line| line.strip_prefix("CONFIG_NR_CPUS="));
        assert!(most.and_then(|number| number.parse().ok()).is_some_and(|most: u32| most >= MAX_CPUS));
    }
}
