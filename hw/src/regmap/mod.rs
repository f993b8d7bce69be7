//! Registers declared once.
//!
//! [`register_map!`](crate::register_map) (`declare`) makes an enum of registers and a table with name, offset, width, access,
//! writable bits, reset value, section of the specification, other places, conditions, locks and fields. Decoding, reset, write masks, trace
//! names and the generated register documents all come from that one declaration. [`Store`] keeps the values of a map, and
//! [`Frame`] is how an access of the bus reaches its registers.

mod access;
mod declare;
mod store;

pub use access::{Frame, read, whole_register, write};
pub use store::Store;

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

/// One of the conditions that a map names: a feature that is there, or something that is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its place among the map's.
    pub number: usize,
    /// What holds then, in words.
    pub text: &'static str,
}

/// The conditions of a map that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconditional {}

/// Some neighbouring bits of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The specification's name.
    pub name: &'static str,
    /// The highest bit.
    pub high: u32,
    /// The lowest bit.
    pub low: u32,
    /// What it says, in a few words.
    pub text: &'static str,
    /// It exists only if all of these hold.
    pub only: &'static [Condition],
    /// Software cannot change it while one of these holds.
    pub fixed: &'static [Condition],
}

impl Field {
    /// Its bits.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        (u64::MAX >> (63 - (self.high - self.low))) << self.low
    }
}

/// One declared register, or a row of `count` like ones, `stride` bytes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterInfo {
    /// The specification's name.
    pub name: &'static str,
    /// The name in the enum: the same, if it has no spaces.
    pub ident: &'static str,
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
    /// Other offsets at which it shows.
    pub aliases: &'static [u64],
    /// It exists only if all of these hold; otherwise it reads as zero and ignores writes.
    pub only: &'static [Condition],
    /// Writes are ignored while one of these holds.
    pub fixed: &'static [Condition],
    /// What it is made of, if it is more than one thing.
    pub fields: &'static [Field],
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
        self.locate_from(self.offset, offset)
    }

    /// The same, of one of its places.
    const fn locate_from(&self, start: u64, offset: u64) -> Option<(u64, u64)> {
        if offset < start {
            return None;
        }
        let from = offset - start;
        let (index, byte) =
            if self.count == 1 { (0, from) } else { (from / self.stride, from % self.stride) };
        if index < self.count && byte < self.bytes { Some((index, byte)) } else { None }
    }

    /// Bytes from the first of the row to the end of the last.
    const fn span(&self) -> u64 {
        (self.count - 1) * self.stride + self.bytes
    }

    /// All bits that a register of this width has.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes)
    }
}

/// What the macro computes of a map when it is compiled, so that an access finds its register without looking at all of the
/// declaration.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where the row begins and how far it goes.
    start: u64,
    span: u64,
    /// The first of its values in a [`Store`].
    first: usize,
}

#[doc(hidden)]
#[must_use]
pub const fn places<R: Copy, const N: usize>(all: &[(R, RegisterInfo)]) -> [Place; N] {
    let mut places = [Place { start: 0, span: 0, first: 0 }; N];
    let (mut n, mut first) = (0, 0);
    while n < N {
        let info = &all[n].1;
        places[n] = Place { start: info.offset, span: info.span(), first };
        first += info.count as usize; // as many values, of a row that a device has room for
        n += 1;
    }
    places
}

#[doc(hidden)]
#[must_use]
pub const fn is_ascending(places: &[Place]) -> bool {
    let mut n = 1;
    while n < places.len() {
        if places[n - 1].start + places[n - 1].span > places[n].start {
            return false;
        }
        n += 1;
    }
    true
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

    /// What registers and fields depend on.
    type Condition: Copy + 'static;

    /// All of those.
    const CONDITIONS: &'static [Self::Condition];

    #[doc(hidden)]
    const PLACES: &'static [Place];

    #[doc(hidden)]
    const IS_ASCENDING: bool;

    /// Its place in the declaration.
    fn number(self) -> usize;

    /// This register's table row.
    #[must_use]
    fn info(self) -> &'static RegisterInfo {
        &Self::ALL[self.number()].1
    }

    /// The register at a byte offset.
    #[must_use]
    #[inline]
    fn locate(offset: u64) -> Option<Located<Self>> {
        let places = Self::PLACES;
        // Rows that lie between each other cannot be searched by halves.
        let (from, to) = if Self::IS_ASCENDING {
            let end = places.partition_point(|place| place.start <= offset);
            (end.saturating_sub(1), end)
        } else {
            (0, places.len())
        };
        for (place, (reg, info)) in places[from..to].iter().zip(&Self::ALL[from..to]) {
            if offset.wrapping_sub(place.start) < place.span
                && let Some((index, byte)) = info.locate(offset)
            {
                return Some(Located { reg: *reg, index, byte });
            }
        }
        Self::locate_alias(offset)
    }

    /// The register that shows at a byte offset besides its own.
    #[doc(hidden)]
    #[cold]
    fn locate_alias(offset: u64) -> Option<Located<Self>> {
        Self::ALL.iter().find_map(|(reg, info)| {
            let (index, byte) = info.aliases.iter().find_map(|&alias| info.locate_from(alias, offset))?;
            Some(Located { reg: *reg, index, byte })
        })
    }

    /// Whether the register exists, with the conditions that hold.
    #[must_use]
    #[inline]
    fn exists(self, holds: impl Fn(Self::Condition) -> bool) -> bool {
        self.info().only.iter().all(|condition| holds(Self::CONDITIONS[condition.number]))
    }

    /// The writable bits that exist, with the conditions that hold, locked or not.
    #[must_use]
    fn possible(self, holds: impl Fn(Self::Condition) -> bool) -> u64 {
        let info = self.info();
        let all = |conditions: &[Condition]| {
            conditions.iter().all(|condition| holds(Self::CONDITIONS[condition.number]))
        };
        if !all(info.only) {
            return 0;
        }
        let absent = info.fields.iter().filter(|field| !all(field.only));
        info.writable & !absent.fold(0, |bits, field| bits | field.mask())
    }

    /// Whether writes are ignored as a whole, with the conditions that hold.
    #[must_use]
    fn is_fixed(self, holds: impl Fn(Self::Condition) -> bool) -> bool {
        self.info().fixed.iter().any(|condition| holds(Self::CONDITIONS[condition.number]))
    }

    /// The writable bits that software can change now: they exist, and nothing locks them.
    #[must_use]
    fn unlocked(self, holds: impl Fn(Self::Condition) -> bool) -> u64 {
        let info = self.info();
        let any = |conditions: &[Condition]| {
            conditions.iter().any(|condition| holds(Self::CONDITIONS[condition.number]))
        };
        if self.is_fixed(&holds) {
            return 0;
        }
        let locked = info.fields.iter().filter(|field| any(field.fixed));
        self.possible(&holds) & !locked.fold(0, |bits, field| bits | field.mask())
    }

    /// What a write of the bits in `mask` leaves in the register, by its access kind, conditions and locks. `value` has no
    /// other bits than those of `mask`.
    #[must_use]
    fn written(self, old: u64, value: u64, mask: u64, holds: impl Fn(Self::Condition) -> bool) -> u64 {
        let info = self.info();
        let mask = mask & self.unlocked(holds);
        match info.access {
            Access::Ro => old,
            Access::Rw | Access::Wo | Access::Special => old & !mask | value & mask,
            Access::W1c => old & !(value & mask),
        }
    }
}

/// Panics if entries of a map overlap, do not decode to themselves, or reset to bits that do not exist, if fields overlap or leave
/// out a writable bit, or if a register is not described: each map's own tests call it.
///
/// # Panics
/// See above.
pub fn check_map<R: RegisterMap + PartialEq + core::fmt::Debug>() {
    let mut spans = Vec::new();
    for (reg, info) in R::ALL {
        assert!(matches!(info.bytes, 1 | 2 | 4 | 8), "{}: width {}", info.name, info.bytes);
        assert!(info.offset.is_multiple_of(info.bytes.min(4)), "{}: misaligned", info.name);
        assert!(info.count == 1 || info.stride >= info.bytes, "{}: stride", info.name);
        let mask = info.mask();
        assert_eq!(info.reset & !mask, 0, "{}: reset value wider than the register", info.name);
        assert_eq!(info.writable & !mask, 0, "{}: mask wider than the register", info.name);
        for index in 0..info.count {
            for start in [info.offset].iter().chain(info.aliases) {
                let at = start + index * info.stride;
                assert_eq!(R::locate(at), Some(Located { reg: *reg, index, byte: 0 }), "{}", info.name);
                spans.push((at, at + info.bytes, info.name));
            }
        }
        check_fields(info);
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{} and {} overlap", pair[0].2, pair[1].2);
    }
}

/// Panics if a register has no description, or fields that it cannot have.
fn check_fields(info: &RegisterInfo) {
    let RegisterInfo { name, fields, remark, .. } = info;
    assert!(!fields.is_empty() || !remark.trim().is_empty(), "{name}: neither fields nor a remark");
    let mut bits = 0;
    for field in *fields {
        assert!(field.low <= field.high && u64::from(field.high) < 8 * info.bytes, "{name}.{}", field.name);
        assert_eq!(bits & field.mask(), 0, "{name}.{} overlaps another field", field.name);
        assert!(!field.text.is_empty(), "{name}.{} has no description", field.name);
        bits |= field.mask();
    }
    assert!(fields.is_empty() || info.writable & !bits == 0, "{name}: writable bits without a field");
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
            for value in [info.mask(), 0] {
                write(at, bytes, value);
                kept = info.written(kept, value);
                reads(kept, "after a write");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::register_map! {
        /// Some device.
        enum Good {
            /// Its first.
            A @ 0x0: 4 Rw(0xff) = 0x12, "1", Storage;
            B[2; 8] @ 0x8: 4 W1c(0x3) = 0, "2" also(0x40, 0x80) { SECOND[1] "two"; FIRST[0] "one"; };
            /// Third.
            C "The Third" @ 0x18: 8 Ro(0) = 0, "3";
            /// Fourth.
            D @ 0x22: 2 Rw(0xffff) = 0, "4";
            /// Fifth.
            E @ 0x25: 1 Ro(0) = 0xff, "5";
        }
    }
    crate::register_map! {
        enum Overlapping {
            /// One.
            A @ 0x0: 8 Rw(0xff) = 0, "1";
            /// Two.
            B @ 0x4: 4 Rw(0xff) = 0, "2";
        }
    }
    crate::register_map! {
        enum Undescribed {
            A @ 0x0: 4 Rw(0xff) = 0, "1";
        }
    }
    crate::register_map! {
        enum HalfDescribed {
            A @ 0x0: 4 Rw(0x3) = 0, "1" { LOW[0] "the lower one"; };
        }
    }
    crate::register_map! {
        /// A device with a switch, and with two features.
        enum Locked {
            CTRL @ 0x0: 4 Rw(0xff) = 0, "1" {
                ATTRIBUTES[7:4] "fixed with either" fixed(ON, BUSY);
                WIDE[3:2] "of a feature" only(WIDE);
                PLAIN[1:0] "always";
            };
            /// Fixed as a whole.
            BASE @ 0x8: 8 Rw(u64::MAX) = 0, "2" fixed(ON);
            /// Of two features, at two places.
            QUEUE @ 0x10: 4 Rw(0xff) = 0, "3" also(0x20) only(WIDE, DEEP) fixed(BUSY);
            CLEAR @ 0x18: 4 W1c(0xf) = 0, "4" { HIGH[3:2] "fixed" fixed(ON); LOW[1:0] "free"; };
        }
        /// What they depend on.
        enum LockedCondition {
            WIDE "it is wide";
            DEEP "it is deep";
            ON "it is on";
            BUSY "it is busy";
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
        assert_eq!((Good::C.info().name, Good::C.info().ident, Good::B.info().name), ("The Third", "C", "B"));
    }

    #[test]
    fn register_shows_at_each_of_its_places() {
        for (offset, index, byte) in [(0x8, 0, 0), (0x40, 0, 0), (0x49, 1, 1), (0x8b, 1, 3)] {
            assert_eq!(Good::locate(offset), Some(Located { reg: Good::B, index, byte }), "{offset:#x}");
        }
        assert_eq!((Good::locate(0x44), Good::locate(0x50)), (None, None));
        assert_eq!((Good::B.offset(), Good::B.at(1)), (0x8, 0x10));
    }

    #[test]
    fn row_between_whose_registers_others_lie_is_found() {
        crate::register_map! {
            enum Channels {
                /// Of each channel.
                A[2; 0x10] @ 0x0: 4 Ro(0) = 0, "1";
                /// Of each channel.
                B[2; 0x10] @ 0x4: 4 Ro(0) = 0, "2";
            }
        }
        check_map::<Channels>();
        assert_eq!(Channels::locate(0x14), Some(Located { reg: Channels::B, index: 1, byte: 0 }));
    }

    #[test]
    fn what_does_not_exist_or_is_locked_is_not_written() {
        use LockedCondition::{BUSY, DEEP, ON, WIDE};
        check_map::<Locked>();
        let with = |holding: &'static [LockedCondition]| move |condition| holding.contains(&condition);
        for (reg, holding, possible, unlocked) in [
            (Locked::CTRL, &[][..], 0xf3, 0xf3),
            (Locked::CTRL, &[WIDE], 0xff, 0xff),
            (Locked::CTRL, &[WIDE, BUSY], 0xff, 0x0f),
            (Locked::CTRL, &[ON], 0xf3, 0x03),
            (Locked::BASE, &[BUSY], u64::MAX, u64::MAX),
            (Locked::BASE, &[ON], u64::MAX, 0),
            (Locked::QUEUE, &[WIDE], 0, 0),
            (Locked::QUEUE, &[WIDE, DEEP], 0xff, 0xff),
            (Locked::QUEUE, &[WIDE, DEEP, BUSY], 0xff, 0),
        ] {
            assert_eq!(reg.possible(with(holding)), possible, "{reg:?} {holding:?}");
            assert_eq!(reg.unlocked(with(holding)), unlocked, "{reg:?} {holding:?}");
        }
        assert!(Locked::BASE.is_fixed(with(&[ON])) && !Locked::CTRL.is_fixed(with(&[ON])));
        assert!(Locked::QUEUE.exists(with(&[WIDE, DEEP])) && !Locked::QUEUE.exists(with(&[DEEP])));
        assert_eq!(Locked::CTRL.written(0xab, 0xff, 0xff, with(&[ON])), 0xab | 0x3);
        assert_eq!(Locked::CTRL.written(0xab, 0x1, 0x3, with(&[])), 0xa9);
        assert_eq!(Locked::CLEAR.written(0xf, 0xf, 0xff, with(&[ON])), 0xc);
        assert_eq!(Locked::CTRL.info().fields[0].fixed[1].text, "it is busy");
    }

    #[test]
    #[should_panic(expected = "A: neither fields nor a remark")]
    fn register_without_description_is_refused() {
        check_map::<Undescribed>();
    }

    #[test]
    #[should_panic(expected = "A: writable bits without a field")]
    fn writable_bit_without_field_is_refused() {
        check_map::<HalfDescribed>();
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
