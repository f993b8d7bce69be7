//! What the PrimeCell peripherals on the APB have in common: how an access names a register.

use hw::BusError;
use hw::regmap::RegisterMap;

/// The register that an access names, and its index in its row. The bus has no byte lanes: an access narrower than a
/// word is one of the whole register, and it has to begin at it.
///
/// # Errors
/// No register there, or an access that is wider than a word or begins inside a register.
pub(crate) fn locate<R: RegisterMap>(offset: u64, len: usize) -> Result<(R, u64), BusError> {
    let located = R::locate(offset).ok_or(BusError::NoRegister(offset))?;
    if located.byte == 0 && matches!(len, 1 | 2 | 4) {
        Ok((located.reg, located.index))
    } else {
        Err(BusError::BadAccess { offset, len })
    }
}
