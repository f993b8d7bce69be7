//! The MMIO bus: physical addresses to devices.
//!
//! Built once, then never changed, so that a vCPU's access takes no lock. What moves (PCI BARs) moves inside the
//! window of the PCI host.

use std::sync::Arc;

use hw::{BusError, GuestErrors, MmioDevice, Pa};
use vm_device::bus::{self, MmioAddress, MmioBus, MmioRange};

use crate::board::map::Window;

/// The bus as vCPUs see it.
#[derive(Default)]
pub struct Bus {
    devices: MmioBus<Arc<dyn MmioDevice>>,
    errors: GuestErrors,
}

impl Bus {
    /// A bus without devices, and where accesses are counted that nobody answers.
    #[must_use]
    pub fn new(errors: GuestErrors) -> Self {
        Self { errors, ..Self::default() }
    }

    /// Puts a device into a window.
    ///
    /// # Errors
    /// If the window overlaps another.
    pub fn attach(&mut self, window: Window, device: Arc<dyn MmioDevice>) -> Result<(), bus::Error> {
        let range = MmioRange::new(MmioAddress(window.base), window.size)?;
        self.devices.register(range, device)
    }

    fn find(&self, pa: Pa, len: usize) -> Result<(u64, &dyn MmioDevice), BusError> {
        let (range, device) = self.devices.check_access(MmioAddress(pa.0), len).map_err(|_| {
            let what = format_args!("access of {len} bytes at {pa}: no device is there");
            self.errors.report("accesses to addresses where no device is", what);
            BusError::NoRegister(pa.0)
        })?;
        Ok((pa.0 - range.base().0, &**device))
    }
}

impl cpu::Bus for Bus {
    fn read(&self, pa: Pa, data: &mut [u8]) -> Result<(), BusError> {
        let (offset, device) = self.find(pa, data.len())?;
        let result = device.mmio_read(offset, data);
        log::trace!(target: "mmio", "read {pa} {data:02x?} {result:?}");
        result
    }

    fn write(&self, pa: Pa, data: &[u8]) -> Result<(), BusError> {
        let (offset, device) = self.find(pa, data.len())?;
        let result = device.mmio_write(offset, data);
        log::trace!(target: "mmio", "write {pa} {data:02x?} {result:?}");
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::map;
    use cpu::Bus as _;

    struct Echo;
    impl MmioDevice for Echo {
        fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
            data.fill(offset as u8);
            Ok(())
        }
        fn mmio_write(&self, _offset: u64, _data: &[u8]) -> Result<(), BusError> {
            Ok(())
        }
    }

    #[test]
    fn access_in_a_hole_or_across_a_windows_end_is_no_register() {
        let errors = GuestErrors::default();
        let mut bus = Bus::new(errors.clone());
        bus.attach(map::UART, Arc::new(Echo)).unwrap();
        assert!(bus.attach(map::UART, Arc::new(Echo)).is_err());
        let mut data = [0; 4];
        bus.read(Pa(map::UART.base + 0x18), &mut data).unwrap();
        assert_eq!(data, [0x18; 4]);
        assert!(bus.read(Pa(map::UART.end() - 2), &mut data).is_err());
        assert!(bus.write(Pa(0), &data).is_err());
        assert!(bus.read(Pa(u64::MAX - 1), &mut data).is_err());
        assert_eq!(errors.counted(), [("accesses to addresses where no device is", 3)]);
    }
}
