//! Registers declared once.
//!
//! [`register_map!`](crate::register_map) makes an enum of registers and a table with name, offset, width, access,
//! writable bits, reset value and section of the specification. Decoding, reset, write masks, trace names and the
//! generated register documents all come from that one declaration.

/// Who may do what to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read-only; writes are ignored.
    Ro,
    /// Read-write in its writable bits.
    Rw,
    /// Write-only; reads as zero.
    Wo,
    /// Writing one clears the writable bits.
    W1c,
    /// Reading or writing has its own meaning, told in the model.
    Special,
}

/// How far a register of the model goes, where that does not follow from the model's sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Behaves as its section says, as far as the features that are offered.
    Modelled,
    /// Behaves so in part; its remark says in which.
    Partial,
    /// Keeps what is written, and nothing depends on it.
    Storage,
    /// Always reads its reset value.
    Constant,
}

/// One declared register, or a row of `count` like ones, `stride` bytes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterInfo {
    /// The specification's name.
    pub name: &'static str,
    /// Offset in bytes in the device's window, of the first of the row.
    pub offset: u64,
    /// Width in bytes: 1, 2, 4 or 8.
    pub bytes: u64,
    /// How many in the row.
    pub count: u64,
    /// Bytes from one to the next.
    pub stride: u64,
    /// Access.
    pub access: Access,
    /// Bits that software can change.
    pub writable: u64,
    /// Value after reset. For ID registers that depend on the configuration: 0, and the model computes it.
    pub reset: u64,
    /// Section of the specification.
    pub section: &'static str,
    /// How far it goes, if the declaration says it.
    pub status: Option<Status>,
    /// The declaration's remark.
    pub remark: &'static str,
}

impl RegisterInfo {
    /// What a write of `value` over `old` leaves in the register, by its access kind.
    #[must_use]
    pub const fn written(&self, old: u64, value: u64) -> u64 {
        match self.access {
            Access::Ro => old,
            Access::Rw | Access::Wo | Access::Special => (old & !self.writable) | (value & self.writable),
            Access::W1c => old & !(value & self.writable),
        }
    }

    /// The index in the row and the byte offset inside the register, if `offset` is in it.
    #[must_use]
    pub const fn locate(&self, offset: u64) -> Option<(u64, u64)> {
        if offset < self.offset {
            return None;
        }
        let from = offset - self.offset;
        let (index, byte) =
            if self.count == 1 { (0, from) } else { (from / self.stride, from % self.stride) };
        if index < self.count && byte < self.bytes { Some((index, byte)) } else { None }
    }
}

/// A register found by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<R> {
    /// Which.
    pub reg: R,
    /// Index in its row; 0 for a single register.
    pub index: u64,
    /// Byte of the register that the offset names; 0 at its start.
    pub byte: u64,
}

/// What [`register_map!`](crate::register_map) makes.
pub trait RegisterMap: Copy + Sized + 'static {
    /// All registers, in the order of their declaration, with their tables.
    const ALL: &'static [(Self, RegisterInfo)];

    /// What the declaration says of the map as a whole.
    const ABOUT: &'static str;

    /// This register's table row.
    fn info(self) -> &'static RegisterInfo;

    /// The register at a byte offset. Maps are small and mostly hit early: a device with a hot register matches it
    /// before it asks.
    #[must_use]
    fn locate(offset: u64) -> Option<Located<Self>> {
        Self::ALL.iter().find_map(|(reg, info)| {
            info.locate(offset).map(|(index, byte)| Located { reg: *reg, index, byte })
        })
    }
}

/// Panics if entries of a map overlap, do not decode to themselves, or reset to bits that do not exist: each map's
/// own tests call it.
///
/// # Panics
/// See above.
pub fn check_map<R: RegisterMap + PartialEq + core::fmt::Debug>() {
    let mut spans = Vec::new();
    for (reg, info) in R::ALL {
        assert!(matches!(info.bytes, 1 | 2 | 4 | 8), "{}: width {}", info.name, info.bytes);
        assert!(info.offset.is_multiple_of(info.bytes.min(4)), "{}: misaligned", info.name);
        assert!(info.count == 1 || info.stride >= info.bytes, "{}: stride", info.name);
        let mask = u64::MAX >> (64 - 8 * info.bytes);
        assert_eq!(info.reset & !mask, 0, "{}: reset value wider than the register", info.name);
        assert_eq!(info.writable & !mask, 0, "{}: mask wider than the register", info.name);
        for index in 0..info.count {
            let at = info.offset + index * info.stride;
            assert_eq!(R::locate(at), Some(Located { reg: *reg, index, byte: 0 }), "{}", info.name);
            spans.push((at, at + info.bytes, info.name));
        }
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{} and {} overlap", pair[0].2, pair[1].2);
    }
}

/// Panics if a register is not what its declaration alone makes of it: constants that writes change, storage that keeps
/// other bits than its writable ones, another value after reset. `modelled` are those with a behaviour of their own,
/// which have tests of their own; registers with [`Access::Special`] always have.
///
/// # Panics
/// See above.
pub fn check_plain<R: RegisterMap + PartialEq>(
    read: impl Fn(u64, usize) -> u64,
    write: impl Fn(u64, usize, u64),
    modelled: &[R],
) {
    for (reg, info) in R::ALL {
        if info.access == Access::Special || modelled.contains(reg) {
            continue;
        }
        let bytes = usize::try_from(info.bytes).unwrap_or(8);
        for index in 0..info.count {
            let at = info.offset + index * info.stride;
            let reads = |value: u64, when: &str| {
                let expected = if info.access == Access::Wo { 0 } else { value };
                let found = read(at, bytes);
                assert_eq!(found, expected, "{} at {at:#x} {when}: {found:#x}", info.name);
            };
            reads(info.reset, "after reset");
            let mut kept = info.reset;
            for value in [u64::MAX >> (64 - 8 * info.bytes), 0] {
                write(at, bytes, value);
                kept = info.written(kept, value);
                reads(kept, "after a write");
            }
        }
    }
}

/// Declares a register map.
///
/// ```
/// hw::register_map! {
///     /// A two-register device. Some manual, chapter 3.
///     pub enum DemoReg {
///         // name @ offset: bytes access(writable bits) = reset, section
///         CTRL   @ 0x00: 4 Rw(0x3) = 0, "3.1";
///         STATUS @ 0x04: 4 W1c(0x1) = 0, "3.2";
///         // name[count; stride] @ offset ...
///         DATA[4; 8] @ 0x10: 8 Rw(u64::MAX) = 0, "3.3";
///         /// A remark for the generated document; and how far it goes, if the sources don't show it.
///         HINT   @ 0x30: 4 Rw(0x1) = 0, "3.4", Storage;
///     }
/// }
/// use hw::regmap::RegisterMap;
/// let data = DemoReg::locate(0x1c).unwrap();
/// assert_eq!((data.reg, data.index, data.byte), (DemoReg::DATA, 1, 4));
/// assert_eq!(DemoReg::CTRL.info().written(0, 0xff), 0x3);
/// ```
#[macro_export]
macro_rules! register_map {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $map:ident {
            $(
                $(#[doc = $regdoc:literal])*
                $name:ident $([$count:expr; $stride:expr])? @ $offset:literal : $bytes:literal
                $access:ident($writable:expr) = $reset:expr, $section:literal $(, $status:ident)?;
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[allow(non_camel_case_types, missing_docs, reason = "registers are named as in their specification")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $map {
            $( $(#[doc = $regdoc])* $name, )*
        }

        impl $crate::regmap::RegisterMap for $map {
            const ALL: &'static [(Self, $crate::regmap::RegisterInfo)] = &[
                $((
                    $map::$name,
                    $crate::regmap::RegisterInfo {
                        name: stringify!($name),
                        offset: $offset,
                        bytes: $bytes,
                        count: $crate::register_map!(@count $($count)?),
                        stride: $crate::register_map!(@stride $bytes $(, $stride)?),
                        access: $crate::regmap::Access::$access,
                        writable: $writable,
                        reset: $reset,
                        section: $section,
                        status: $crate::register_map!(@status $($status)?),
                        remark: concat!($($regdoc, "\n",)*),
                    },
                ),)*
            ];

            const ABOUT: &'static str = concat!($($doc, "\n",)*);

            fn info(self) -> &'static $crate::regmap::RegisterInfo {
                &<Self as $crate::regmap::RegisterMap>::ALL[self as usize].1
            }
        }
    };
    (@status) => { None };
    (@status $status:ident) => { Some($crate::regmap::Status::$status) };
    (@count) => { 1 };
    (@count $count:expr) => { $count };
    (@stride $bytes:literal) => { $bytes };
    (@stride $bytes:literal, $stride:expr) => { $stride };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::register_map! {
        /// Some device.
        enum Good {
            /// Its first.
            A @ 0x0: 4 Rw(0xff) = 0x12, "1", Storage;
            B[2; 8] @ 0x8: 4 W1c(0x3) = 0, "2";
            C @ 0x18: 8 Ro(0) = 0, "3";
            D @ 0x22: 2 Rw(0xffff) = 0, "4";
            E @ 0x25: 1 Ro(0) = 0xff, "5";
        }
    }
    crate::register_map! {
        enum Overlapping {
            A @ 0x0: 8 Rw(0xff) = 0, "1";
            B @ 0x4: 4 Rw(0xff) = 0, "2";
        }
    }

    #[test]
    fn rows_decode_to_index_and_byte_and_gaps_to_nothing() {
        check_map::<Good>();
        assert_eq!(Good::locate(0x11), Some(Located { reg: Good::B, index: 1, byte: 1 }));
        assert_eq!(Good::locate(0xc), None);
        assert_eq!(Good::locate(0x24), None);
        assert_eq!(Good::locate(0x23), Some(Located { reg: Good::D, index: 0, byte: 1 }));
        assert_eq!(Good::C.info().section, "3");
    }

    #[test]
    fn declaration_carries_remarks_and_status() {
        assert_eq!(Good::ABOUT.trim(), "Some device.");
        assert_eq!(Good::A.info().remark.trim(), "Its first.");
        assert_eq!((Good::A.info().status, Good::C.info().status), (Some(Status::Storage), None));
    }

    #[test]
    fn writes_follow_the_access_kind() {
        assert_eq!(Good::A.info().written(0x1200, 0xabcd), 0x12cd);
        assert_eq!(Good::B.info().written(0x7, 0x5), 0x6);
        assert_eq!(Good::C.info().written(7, 0), 7);
    }

    /// A device of storage alone, without regard to what is declared.
    fn storage(words: &[(u64, u64)]) -> std::cell::RefCell<std::collections::BTreeMap<u64, u64>> {
        std::cell::RefCell::new(words.iter().copied().collect())
    }

    #[test]
    fn plain_registers_pass_if_they_do_what_is_declared() {
        let words = storage(&[(0x0, 0x12), (0x25, 0xff)]);
        let read = |at, _| words.borrow().get(&at).copied().unwrap_or(0);
        let write = |at, _, value| {
            let Located { reg, .. } = Good::locate(at).unwrap();
            let old = read(at, 0);
            words.borrow_mut().insert(at, reg.info().written(old, value));
        };
        check_plain::<Good>(read, write, &[]);
    }

    #[test]
    #[should_panic(expected = "E at 0x25 after a write")]
    fn plain_constant_that_changes_is_found_unless_it_is_modelled() {
        let words = storage(&[(0x0, 0x12), (0x25, 0xff)]);
        let read = |at, _| words.borrow().get(&at).copied().unwrap_or(0);
        let write = |at, _, value: u64| {
            words.borrow_mut().insert(at, value);
        };
        check_plain::<Good>(read, write, &[Good::A, Good::B, Good::C, Good::D]);
    }

    #[test]
    #[should_panic(expected = "B")]
    fn overlapping_map_is_refused() {
        check_map::<Overlapping>();
    }
}
