//! Addresses and identities, one type each, so that they cannot be mixed up.

use core::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` past the end of the 64-bit space.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The address rounded down to a multiple of `align`, a power of two.
            #[must_use]
            pub const fn align_down(self, align: u64) -> Self {
                Self(self.0 & !(align - 1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// A guest-physical address: what comes out of translation.
    Pa
);
address!(
    /// The address a device puts on the bus, before any translation.
    Iova
);

/// Who is asking, as the SMMU knows it. For PCI functions the requester ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// Who is asking, as the ITS knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// A process address space identifier (PCIe), called SubstreamID by the SMMU. 20 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pasid(u32);

impl Pasid {
    /// Bits in a PASID (PCIe Base, 6.20).
    pub const BITS: u32 = 20;

    /// The PASID of this number, or `None` if it does not fit in 20 bits.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The number, below 2^20.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasid_of_more_than_20_bits_does_not_exist() {
        assert_eq!(Pasid::new(0xf_ffff).map(Pasid::get), Some(0xf_ffff));
        assert_eq!(Pasid::new(0x10_0000), None);
    }

    #[test]
    fn address_sum_past_the_end_is_none() {
        assert_eq!(Pa(u64::MAX).checked_add(1), None);
        assert_eq!(Pa(0x1fff).align_down(0x1000), Pa(0x1000));
    }
}
