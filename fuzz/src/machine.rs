//! What several targets need around their model: RAM, alarms that nobody sets off, and register accesses.

use std::sync::Arc;

use hw::mmio::put_value;
use hw::regmap::RegisterMap;
use hw::{BusError, MmioDevice, Pa, Ram};

use crate::input::Input;

/// Where RAM starts.
pub(crate) const RAM: u64 = 0x4000_0000;
/// Bytes of RAM: tables of a hostile shape leave it soon.
pub(crate) const RAM_BYTES: u64 = 4 << 20;
/// The ITS's window, and in it the doorbell.
pub(crate) const ITS: u64 = 0x0808_0000;
pub(crate) const DOORBELL: u64 = ITS + 0x1_0040;
/// Addresses that mean something.
pub(crate) const PLACES: [u64; 5] =
    [RAM, RAM + (1 << 20), RAM + (2 << 20), RAM + RAM_BYTES - 0x8000, ITS + 0x1_0000];

pub(crate) fn ram() -> Arc<Ram> {
    Arc::new(Ram::new(&[(Pa(RAM), RAM_BYTES)]).expect("the host has a few MiB"))
}

/// Stores dwords, as far as there is RAM.
pub(crate) fn put(ram: &Ram, at: u64, dwords: &[u64]) {
    for (i, dword) in dwords.iter().enumerate() {
        let _ = ram.store_u64(Pa(at + 8 * i as u64), *dword);
    }
}

/// Puts something into RAM: a few words, bytes of the input, or one byte many times.
pub(crate) fn scribble(ram: &Ram, input: &mut Input<'_>, places: &[u64]) {
    let at = input.word(places);
    match input.u8() % 4 {
        0 => {
            let _ = ram.store_u64(Pa(at & !7), input.word(places));
        }
        1 => {
            for i in 0..input.u8() % 8 {
                let _ = ram.store_u64(Pa((at & !7).wrapping_add(8 * u64::from(i))), input.word(places));
            }
        }
        2 => {
            let len = input.u8();
            let _ = ram.write(Pa(at), input.bytes(len.into()));
        }
        _ => {
            let len = usize::from(input.u8()) << 5;
            let _ = ram.write(Pa(at), &vec![input.u8(); len]);
        }
    }
}

/// The offsets of a map's registers, of long rows only some.
pub(crate) fn offsets<R: RegisterMap>() -> Vec<u64> {
    R::ALL
        .iter()
        .flat_map(|(_, info)| (0..info.count.min(12)).map(|i| info.offset + i * info.stride))
        .collect()
}

/// One access to registers: near one of `offsets` or anywhere in the window. What the device says to it is its
/// business; that it says something is the test.
pub(crate) fn access(
    input: &mut Input<'_>,
    window: u64,
    offsets: &[u64],
    read: impl FnOnce(u64, &mut [u8]) -> Result<(), BusError>,
    write: impl FnOnce(u64, &[u8]) -> Result<(), BusError>,
) {
    let how = input.u8();
    let len = [4, 8, 1, 2, 4, 8, 16, 4][usize::from(how & 7)];
    let offset = match how >> 3 & 3 {
        0 => u64::from(input.u32()) % window,
        1 => input.choose(offsets).wrapping_add((input.u8() % 16).into()),
        _ => input.choose(offsets),
    };
    // A bus never lets an access leave its window.
    let offset = offset.min(window - len as u64);
    let mut data = [0; 16];
    if how & 0x80 == 0 {
        put_value(&mut data, input.word(&PLACES));
        let _ = write(offset, &data[..len]);
    } else {
        let _ = read(offset, &mut data[..len]);
    }
}

/// [`access`] to a device.
pub(crate) fn mmio(input: &mut Input<'_>, window: u64, offsets: &[u64], device: &dyn MmioDevice) {
    access(
        input,
        window,
        offsets,
        |offset, data| device.mmio_read(offset, data),
        |offset, data| device.mmio_write(offset, data),
    );
}

/// A register write of a driver that knows what it does.
pub(crate) fn w32(device: &dyn MmioDevice, offset: u64, value: u32) {
    let _ = device.mmio_write(offset, &value.to_le_bytes());
}

/// See [`w32`].
pub(crate) fn w64(device: &dyn MmioDevice, offset: u64, value: u64) {
    let _ = device.mmio_write(offset, &value.to_le_bytes());
}
