//! How an access of the bus reaches registers.
//!
//! Registers of 32 bits take words; those of 64 bits take doublewords or either half; a few take less. What is not a register,
//! or does not exist for want of a feature, is reserved: it reads as zero and ignores writes. A wider access is done in parts,
//! in ascending order. A bus without byte lanes has [`whole_register`] instead.

use super::{Located, RegisterMap};
use crate::BusError;
use crate::mmio::{put_value, value_of};

/// A frame of registers.
pub trait Frame {
    /// Its map.
    type Reg: RegisterMap;

    /// Bytes of the shortest access that the frame takes, whatever is there.
    const SHORTEST: usize = 1;

    /// Whether a condition of the map holds now.
    fn holds(&self, condition: <Self::Reg as RegisterMap>::Condition) -> bool;

    /// The value of the `index`th register of the row.
    fn read(&self, reg: Self::Reg, index: usize) -> u64;

    /// A write of the bits in `mask`; `value` has no others.
    fn write(&mut self, reg: Self::Reg, index: usize, value: u64, mask: u64);

    /// The value of a whole register, of which the bits in `mask` are written and the others stay as they read.
    #[inline]
    fn merged(&self, reg: Self::Reg, index: usize, value: u64, mask: u64) -> u64 {
        if mask & reg.info().mask() == reg.info().mask() {
            value
        } else {
            self.read(reg, index) & !mask | value
        }
    }

    /// The narrowest access in bytes that the register takes.
    fn narrowest(_reg: Self::Reg) -> usize {
        4
    }

    /// The register at an offset, if it exists now. A frame with a register that is asked for far more often than all others
    /// finds that one first.
    #[inline]
    fn find(&self, offset: u64) -> Option<Located<Self::Reg>> {
        Self::Reg::locate(offset).filter(|at| at.reg.exists(|condition| self.holds(condition)))
    }
}

/// The part of a register that an access of one step touches.
struct Part<R> {
    reg: R,
    index: usize,
    /// First bit.
    shift: u32,
    /// The bits, from bit 0 on.
    mask: u64,
}

/// One step of an access: its bytes, and what it touches if anything is there.
struct Step<R> {
    len: usize,
    part: Option<Part<R>>,
}

/// The widest step that `len` bytes at an offset can be done in.
fn step<F: Frame>(frame: &F, offset: u64, len: usize) -> Result<Step<F::Reg>, BusError> {
    let Some(Located { reg, index, byte }) = frame.find(offset) else {
        return Ok(Step { len: len.min(4), part: None });
    };
    let bytes = reg.info().bytes;
    let len = if bytes == 8 && byte == 0 { len.min(8) } else { len.min(4) };
    if len < F::narrowest(reg) || byte + len as u64 > bytes {
        return Err(BusError::BadAccess { offset, len });
    }
    let index = usize::try_from(index).map_err(|_| BusError::NoRegister(offset))?;
    let mask = if len >= 8 { u64::MAX } else { (1 << (8 * len)) - 1 };
    // `byte` is below 8: a register has at most 8 bytes.
    Ok(Step { len, part: Some(Part { reg, index, shift: 8 * byte as u32, mask }) })
}

fn check<F: Frame>(offset: u64, len: usize) -> Result<(), BusError> {
    if matches!(len, 1 | 2 | 4 | 8 | 16) && len >= F::SHORTEST && offset.is_multiple_of(len as u64) {
        Ok(())
    } else {
        Err(BusError::BadAccess { offset, len })
    }
}

/// A read.
///
/// # Errors
/// [`BusError::BadAccess`] for a length or alignment that the frame or the register does not take.
pub fn read<F: Frame>(frame: &F, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
    check::<F>(offset, data.len())?;
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let Step { len, part } = step(frame, at, rest.len())?;
        let (now, later) = rest.split_at_mut(len);
        let value = part.map_or(0, |part| frame.read(part.reg, part.index) >> part.shift & part.mask);
        put_value(now, value);
        (at, rest) = (at + len as u64, later);
    }
    Ok(())
}

/// A write.
///
/// # Errors
/// As [`read`].
pub fn write<F: Frame>(frame: &mut F, offset: u64, data: &[u8]) -> Result<(), BusError> {
    check::<F>(offset, data.len())?;
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let Step { len, part } = step(frame, at, rest.len())?;
        let (now, later) = rest.split_at(len);
        if let Some(Part { reg, index, shift, mask }) = part {
            frame.write(reg, index, value_of(now) << shift, mask << shift);
        }
        (at, rest) = (at + len as u64, later);
    }
    Ok(())
}

/// The register that an access names on a bus without byte lanes, as the APB, and its index in its row: an access narrower than
/// a word is one of the whole register, and it has to begin at it.
///
/// # Errors
/// No register there, or an access that is wider than a word or begins inside a register.
pub fn whole_register<R: RegisterMap>(offset: u64, len: usize) -> Result<(R, u64), BusError> {
    let located = R::locate(offset).ok_or(BusError::NoRegister(offset))?;
    if located.byte == 0 && matches!(len, 1 | 2 | 4) {
        Ok((located.reg, located.index))
    } else {
        Err(BusError::BadAccess { offset, len })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::regmap::Store;

    crate::register_map! {
        enum Demo {
            /// A word.
            WORD @ 0x0: 4 Rw(0xffff_ffff) = 0x1122_3344, "1";
            /// A doubleword that is there with a feature.
            WIDE @ 0x8: 8 Rw(u64::MAX) = 0x1020_3040_5060_7080, "2" only(WIDE);
            /// Takes bytes.
            BYTES @ 0x10: 4 Rw(0xffff_ffff) = 0, "3";
            /// Doublewords are cleared by ones, in halves too.
            CLEAR @ 0x18: 8 W1c(u64::MAX) = u64::MAX, "4";
        }
        enum DemoCondition {
            WIDE "the device is wide";
        }
    }

    struct Device {
        store: Store<Demo>,
        is_wide: bool,
        touched: RefCell<Vec<Demo>>,
    }

    impl Frame for Device {
        type Reg = Demo;

        fn holds(&self, DemoCondition::WIDE: DemoCondition) -> bool {
            self.is_wide
        }

        fn read(&self, reg: Demo, index: usize) -> u64 {
            self.touched.borrow_mut().push(reg);
            self.store.read(reg, index)
        }

        fn write(&mut self, reg: Demo, index: usize, value: u64, mask: u64) {
            self.store.write(reg, index, value, mask, |_| self.is_wide);
        }

        fn narrowest(reg: Demo) -> usize {
            if reg == Demo::BYTES { 1 } else { 4 }
        }
    }

    fn device(is_wide: bool) -> Device {
        Device { store: Store::at_reset(), is_wide, touched: RefCell::default() }
    }

    fn get(device: &Device, offset: u64, len: usize) -> Result<u64, BusError> {
        let mut data = vec![0xee; len];
        read(device, offset, &mut data).map(|()| value_of(&data))
    }

    #[test]
    fn wide_access_is_done_in_parts_and_reserved_parts_are_zero() {
        let mut device = device(true);
        assert_eq!(get(&device, 0, 8), Ok(0x1122_3344));
        let mut data = [0xee; 16];
        read(&device, 0, &mut data).unwrap();
        assert_eq!(value_of(&data[8..]), 0x1020_3040_5060_7080);
        assert_eq!(device.touched.take(), [Demo::WORD, Demo::WORD, Demo::WIDE]);
        write(&mut device, 0, &[0xff; 16]).unwrap();
        assert_eq!((device.store.get(Demo::WORD), device.store.get(Demo::WIDE)), (0xffff_ffff, u64::MAX));
    }

    #[test]
    fn half_of_a_register_leaves_the_other_alone() {
        let mut device = device(true);
        assert_eq!(get(&device, 0xc, 4), Ok(0x1020_3040));
        write(&mut device, 0xc, &[0; 4]).unwrap();
        assert_eq!(device.store.get(Demo::WIDE), 0x5060_7080);
        write(&mut device, 0x1c, &[0xff; 4]).unwrap();
        assert_eq!(
            device.store.get(Demo::CLEAR),
            0xffff_ffff,
            "the lower half is not cleared with the upper one"
        );
        write(&mut device, 0x12, &[0xab]).unwrap();
        assert_eq!(get(&device, 0x10, 4), Ok(0xab_0000));
    }

    #[test]
    fn register_of_an_absent_feature_is_reserved() {
        let mut device = device(false);
        assert_eq!(get(&device, 0x8, 8), Ok(0));
        write(&mut device, 0x8, &[0xff; 8]).unwrap();
        assert_eq!(device.touched.take(), []);
        assert_eq!(device.store.get(Demo::WIDE), Demo::WIDE.info().reset);
    }

    #[test]
    fn access_that_register_or_bus_do_not_take_is_refused() {
        let device = device(true);
        for (offset, len) in [(0, 1), (2, 2), (2, 4), (4, 8), (0, 3), (0, 32), (0x14, 8)] {
            assert_eq!(get(&device, offset, len), Err(BusError::BadAccess { offset, len }), "{offset:#x}");
        }
        assert_eq!(get(&device, 0x20, 1), Ok(0), "reserved");
        assert_eq!(whole_register(0x0, 1), Ok((Demo::WORD, 0)));
        assert_eq!(whole_register::<Demo>(0x2, 2), Err(BusError::BadAccess { offset: 2, len: 2 }));
        assert_eq!(whole_register::<Demo>(0x0, 8), Err(BusError::BadAccess { offset: 0, len: 8 }));
        assert_eq!(whole_register::<Demo>(0x4, 4), Err(BusError::NoRegister(4)));
    }
}
