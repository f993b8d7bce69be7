//! Base address registers: PCI Express Base 7.5.1.2.1.

/// What a base address register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    pub(super) kind: BarKind,
    pub(super) size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BarKind {
    Memory32,
    Memory64 { prefetchable: bool },
    Io,
}

impl Bar {
    /// Memory below 4 GiB. `size` in bytes: a power of two from 16 to 2 GiB.
    #[must_use]
    pub const fn memory32(size: u64) -> Self {
        assert!(size.is_power_of_two() && size >= 16 && size <= 1 << 31, "no such 32-bit memory BAR");
        Self { kind: BarKind::Memory32, size }
    }

    /// Memory anywhere; takes this BAR and the next. `size` in bytes: a power of two of at least 16.
    #[must_use]
    pub const fn memory64(size: u64) -> Self {
        assert!(size.is_power_of_two() && size >= 16, "no such 64-bit memory BAR");
        Self { kind: BarKind::Memory64 { prefetchable: false }, size }
    }

    /// As [`Self::memory64`], without read side effects: the guest may put it into a prefetchable window.
    #[must_use]
    pub const fn prefetchable64(size: u64) -> Self {
        let bar = Self::memory64(size);
        Self { kind: BarKind::Memory64 { prefetchable: true }, ..bar }
    }

    /// I/O ports. `size` in bytes: a power of two from 4 to 256.
    #[must_use]
    pub const fn io(size: u64) -> Self {
        assert!(size.is_power_of_two() && size >= 4 && size <= 256, "no such I/O BAR");
        Self { kind: BarKind::Io, size }
    }

    /// Bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The read-only low bits that tell the kind.
    pub(super) const fn flags(&self) -> u32 {
        match self.kind {
            BarKind::Memory32 => 0,
            BarKind::Memory64 { prefetchable: false } => 0b0100,
            BarKind::Memory64 { prefetchable: true } => 0b1100,
            BarKind::Io => 0b01,
        }
    }

    /// Address bits that the guest can write, over both halves of a 64-bit BAR.
    pub(super) const fn writable(&self) -> u64 {
        let address = !(self.size - 1);
        match self.kind {
            BarKind::Memory64 { .. } => address,
            BarKind::Memory32 | BarKind::Io => address & u32::MAX as u64,
        }
    }

    pub(super) const fn is_64_bit(&self) -> bool {
        matches!(self.kind, BarKind::Memory64 { .. })
    }

    pub(super) const fn is_io(&self) -> bool {
        matches!(self.kind, BarKind::Io)
    }
}

/// Where a BAR answers now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// BAR number, of the lower half.
    pub bar: u8,
    /// I/O ports rather than memory.
    pub is_io: bool,
    /// First PCI address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}
