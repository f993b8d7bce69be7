//! How a bus access reaches the registers of a frame (IHI 0069, 12.1.3).
//!
//! 32-bit registers take words, 64-bit registers take doublewords or either half; a few take bytes. What is not a
//! register is reserved: it reads as zero and ignores writes. A wider access is done in parts, in ascending order.

use hw::BusError;
use hw::mmio::{put_value, value_of};
use hw::regmap::{Located, RegisterMap};

/// A frame of registers.
pub(super) trait Frame {
    /// Its map.
    type Reg: RegisterMap;

    /// The value of the `index`th register of the row.
    fn read(&self, reg: Self::Reg, index: usize) -> u64;

    /// A write of a whole register; what a narrower write leaves alone has the value that was read.
    fn write(&mut self, reg: Self::Reg, index: usize, value: u64);

    /// The narrowest access in bytes that the register takes.
    fn narrowest(_reg: Self::Reg) -> usize {
        4
    }
}

/// The part of a register that an access of one step touches.
struct Part<R> {
    reg: R,
    index: usize,
    /// First bit and mask, of the bits touched.
    shift: u32,
    mask: u64,
    whole: bool,
}

/// The register under an access of `len` bytes, or `None` if nothing is there.
fn part<R: RegisterMap>(
    offset: u64,
    len: usize,
    narrowest: impl Fn(R) -> usize,
) -> Result<Option<Part<R>>, BusError> {
    let Some(Located { reg, index, byte }) = R::locate(offset) else { return Ok(None) };
    let len64 = len as u64;
    if len < narrowest(reg) || byte + len64 > reg.info().bytes {
        return Err(BusError::BadAccess { offset, len });
    }
    let index = usize::try_from(index).map_err(|_| BusError::NoRegister(offset))?;
    let mask = if len >= 8 { u64::MAX } else { (1 << (8 * len64)) - 1 };
    // `byte` is below 8: a register has at most 8 bytes.
    Ok(Some(Part { reg, index, shift: 8 * byte as u32, mask, whole: len64 == reg.info().bytes }))
}

/// The widest step that `len` bytes at `offset` can be done in.
fn step<R: RegisterMap>(offset: u64, len: usize) -> usize {
    let wide = R::locate(offset).is_some_and(|at| at.reg.info().bytes == 8 && at.byte == 0);
    if wide { len.min(8) } else { len.min(4) }
}

fn check(offset: u64, len: usize) -> Result<(), BusError> {
    if matches!(len, 1 | 2 | 4 | 8 | 16) && offset.is_multiple_of(len as u64) {
        Ok(())
    } else {
        Err(BusError::BadAccess { offset, len })
    }
}

/// A bus read.
pub(super) fn read<F: Frame>(frame: &F, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
    check(offset, data.len())?;
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let len = step::<F::Reg>(at, rest.len());
        let (now, later) = rest.split_at_mut(len);
        let value =
            part(at, len, F::narrowest)?.map_or(0, |p| (frame.read(p.reg, p.index) >> p.shift) & p.mask);
        put_value(now, value);
        (at, rest) = (at + len as u64, later);
    }
    Ok(())
}

/// A bus write.
pub(super) fn write<F: Frame>(frame: &mut F, offset: u64, data: &[u8]) -> Result<(), BusError> {
    check(offset, data.len())?;
    let (mut at, mut rest) = (offset, data);
    while !rest.is_empty() {
        let len = step::<F::Reg>(at, rest.len());
        let (now, later) = rest.split_at(len);
        if let Some(p) = part(at, len, F::narrowest)? {
            let value = value_of(now);
            let value = if p.whole {
                value
            } else {
                (frame.read(p.reg, p.index) & !(p.mask << p.shift)) | (value << p.shift)
            };
            frame.write(p.reg, p.index, value);
        }
        (at, rest) = (at + len as u64, later);
    }
    Ok(())
}
