//! Structures in guest memory: queue contexts, completion and event entries.
//!
//! Layouts as the Linux driver declares them (`hisi_qm`, V3): little-endian, contexts of 32 bytes (event queue
//! contexts of 28). Each is copied out of memory once and then looked at.

use bitfield_struct::bitfield;
use hw::{Iova, Pasid};

/// Bytes of a queue context in memory and in the context tables.
pub const CONTEXT_BYTES: usize = 32;
/// Bytes of an event queue context.
pub const EVENT_CONTEXT_BYTES: usize = 28;
/// Bytes of a completion entry.
pub const CQE_BYTES: u64 = 16;
/// Bytes of an event or asynchronous event entry.
pub const EVENT_ENTRY_BYTES: u64 = 4;
/// The value of a context's random field after the driver has killed the queue in memory.
pub const DEAD_RANDOM: u16 = 0xaaaa;

/// A context as it lies in memory.
pub type ContextImage = [u8; CONTEXT_BYTES];

fn u16_at(image: &ContextImage, at: usize) -> u16 {
    match image.get(at..at + 2) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => 0,
    }
}

fn u32_at(image: &ContextImage, at: usize) -> u32 {
    u32::from(u16_at(image, at)) | u32::from(u16_at(image, at + 2)) << 16
}

fn put_u16(image: &mut ContextImage, at: usize, value: u16) {
    if let Some(bytes) = image.get_mut(at..at + 2) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

fn put_u32(image: &mut ContextImage, at: usize, value: u32) {
    if let Some(bytes) = image.get_mut(at..at + 4) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

fn base_of(image: &ContextImage) -> Iova {
    Iova(u64::from(u32_at(image, 4)) | u64::from(u32_at(image, 8)) << 32)
}

/// Depth and entry size of a ring: dword 3 of SQC and CQC.
#[bitfield(u32)]
pub struct RingShape {
    /// Entries, less one.
    #[bits(12)]
    pub depth_minus_1: u16,
    /// Log2 of the entry's bytes.
    #[bits(4)]
    pub log2_entry: u8,
    #[bits(16)]
    _reserved: u16,
}

/// SQC word 11.
#[bitfield(u16)]
pub struct SqcW11 {
    #[bits(6)]
    _reserved: u8,
    /// Flips each time the tail wraps.
    pub wrap: bool,
    /// Data accesses carry the PASID.
    pub pasid_enable: bool,
    #[bits(8)]
    _reserved2: u8,
}

/// SQC word 13.
#[bitfield(u16)]
pub struct SqcW13 {
    #[bits(4)]
    pub priority: u8,
    #[bits(4)]
    pub orders: u8,
    /// What the queue is for; the engine gives it its meaning.
    #[bits(4)]
    pub queue_type: u8,
    #[bits(4)]
    _reserved: u8,
}

impl SqcW13 {
    /// The whole word that the driver writes to kill a queue in memory.
    pub const DISABLED: u16 = 0x0040;
}

/// A submission queue context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sqc {
    /// As loaded; fields that the hardware does not change keep these values.
    image: ContextImage,
    /// Next SQE to fetch.
    pub head: u16,
    /// Where software will put its next SQE: the last doorbell's index.
    pub tail: u16,
    /// Flips each time the tail wraps.
    pub wrap: bool,
    /// The ring.
    pub base: Iova,
    /// Entries: 1 to 4096.
    pub depth: u16,
    /// Log2 of the entry's bytes.
    pub log2_sqe: u8,
    /// What doorbells must carry.
    pub random: u16,
    /// The address space of data accesses.
    pub pasid: Option<Pasid>,
    /// What the queue is for.
    pub queue_type: u8,
}

impl Sqc {
    /// The context in this image, or `None` if it is one of a killed queue or its indices leave the ring.
    #[must_use]
    pub fn decode(image: &ContextImage) -> Option<Self> {
        let shape = RingShape::from(u32_at(image, 12));
        let w11 = SqcW11::from(u16_at(image, 22));
        let w13 = u16_at(image, 26);
        let context = Self {
            image: *image,
            head: u16_at(image, 0),
            tail: u16_at(image, 2),
            wrap: w11.wrap(),
            base: base_of(image),
            depth: shape.depth_minus_1() + 1,
            log2_sqe: shape.log2_entry(),
            random: u16_at(image, 16),
            pasid: w11.pasid_enable().then(|| Pasid::new(u32::from(u16_at(image, 20)))).flatten(),
            queue_type: SqcW13::from(w13).queue_type(),
        };
        let killed = context.random == DEAD_RANDOM || w13 == SqcW13::DISABLED;
        let fits = context.head < context.depth && context.tail < context.depth;
        (!killed && fits).then_some(context)
    }

    /// The context as software reads it back.
    #[must_use]
    pub fn encode(&self) -> ContextImage {
        let mut image = self.image;
        put_u16(&mut image, 0, self.head);
        put_u16(&mut image, 2, self.tail);
        let w11 = SqcW11::from(u16_at(&image, 22)).with_wrap(self.wrap);
        put_u16(&mut image, 22, w11.into());
        image
    }
}

/// CQC dword 6.
#[bitfield(u32)]
pub struct CqcDw6 {
    /// Phase of the entry that is written next.
    pub phase: bool,
    /// Armed: the next completion raises an event.
    pub c_flag: bool,
    #[bits(30)]
    _reserved: u32,
}

/// A completion queue context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cqc {
    image: ContextImage,
    /// Next CQE that software will read: the last doorbell's index.
    pub head: u16,
    /// Next CQE to write.
    pub tail: u16,
    /// Flips each time the tail wraps.
    pub wrap: bool,
    /// Phase of the entry that is written next.
    pub phase: bool,
    /// Armed for one event.
    pub armed: bool,
    /// The ring.
    pub base: Iova,
    /// Entries: 1 to 4096.
    pub depth: u16,
}

impl Cqc {
    /// The context in this image, or `None` if it is one of a killed queue, its indices leave the ring or its
    /// entries are not of [`CQE_BYTES`].
    #[must_use]
    pub fn decode(image: &ContextImage) -> Option<Self> {
        let shape = RingShape::from(u32_at(image, 12));
        let dw6 = CqcDw6::from(u32_at(image, 24));
        let context = Self {
            image: *image,
            head: u16_at(image, 0),
            tail: u16_at(image, 2),
            wrap: SqcW11::from(u16_at(image, 22)).wrap(),
            phase: dw6.phase(),
            armed: dw6.c_flag(),
            base: base_of(image),
            depth: shape.depth_minus_1() + 1,
        };
        let killed = u16_at(image, 16) == DEAD_RANDOM;
        let fits = context.head < context.depth && context.tail < context.depth;
        (!killed && fits && 1 << shape.log2_entry() == CQE_BYTES).then_some(context)
    }

    /// The context as software reads it back.
    #[must_use]
    pub fn encode(&self) -> ContextImage {
        let mut image = self.image;
        put_u16(&mut image, 0, self.head);
        put_u16(&mut image, 2, self.tail);
        let w11 = SqcW11::from(u16_at(&image, 22)).with_wrap(self.wrap);
        put_u16(&mut image, 22, w11.into());
        let dw6 = CqcDw6::from(u32_at(&image, 24)).with_phase(self.phase).with_c_flag(self.armed);
        put_u32(&mut image, 24, dw6.into());
        image
    }

    /// Whether one more entry would meet the head: a full ring looks empty.
    #[must_use]
    pub fn is_full(&self) -> bool {
        next(self.tail, self.depth).0 == self.head
    }

    /// Counts the entry at the tail as written.
    pub fn advance(&mut self) {
        let (tail, wrapped) = next(self.tail, self.depth);
        self.tail = tail;
        self.wrap ^= wrapped;
        self.phase ^= wrapped;
    }
}

/// EQC and AEQC dword 6.
#[bitfield(u32)]
pub struct EqcDw6 {
    /// Entries, less one.
    pub depth_minus_1: u16,
    /// Phase of the entry that is written next.
    pub phase: bool,
    #[bits(15)]
    _reserved: u16,
}

/// An event or asynchronous event queue context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eqc {
    image: ContextImage,
    /// Next entry that software will read.
    pub head: u16,
    /// Next entry to write.
    pub tail: u16,
    /// Phase of the entry that is written next.
    pub phase: bool,
    /// The ring.
    pub base: Iova,
    /// Entries: 1 to 65536.
    pub depth: u32,
}

impl Eqc {
    /// The context in this image, or `None` if its indices leave the ring.
    #[must_use]
    pub fn decode(image: &ContextImage) -> Option<Self> {
        let dw6 = EqcDw6::from(u32_at(image, 24));
        let context = Self {
            image: *image,
            head: u16_at(image, 0),
            tail: u16_at(image, 2),
            phase: dw6.phase(),
            base: base_of(image),
            depth: u32::from(dw6.depth_minus_1()) + 1,
        };
        (u32::from(context.head) < context.depth && u32::from(context.tail) < context.depth)
            .then_some(context)
    }

    /// The context as software reads it back.
    #[must_use]
    pub fn encode(&self) -> ContextImage {
        let mut image = self.image;
        put_u16(&mut image, 0, self.head);
        put_u16(&mut image, 2, self.tail);
        let dw6 = EqcDw6::from(u32_at(&image, 24)).with_phase(self.phase);
        put_u32(&mut image, 24, dw6.into());
        image
    }

    fn after_tail(&self) -> (u16, bool) {
        let next = u32::from(self.tail) + 1;
        if next >= self.depth { (0, true) } else { (next as u16, false) }
    }

    /// Whether one more entry would meet the head.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.after_tail().0 == self.head
    }

    /// Whether software has read all entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Counts the entry at the tail as written.
    pub fn advance(&mut self) {
        let (tail, wrapped) = self.after_tail();
        self.tail = tail;
        self.phase ^= wrapped;
    }
}

/// The index after `index` in a ring of `depth` entries, and whether it wrapped.
#[must_use]
pub const fn next(index: u16, depth: u16) -> (u16, bool) {
    if index.wrapping_add(1) >= depth { (0, true) } else { (index.wrapping_add(1), false) }
}

/// The address of entry `index`, modulo 2^64 as the device's adder gives it.
#[must_use]
pub const fn entry(base: Iova, index: u16, bytes: u64) -> Iova {
    Iova(base.0.wrapping_add((index as u64).wrapping_mul(bytes)))
}

/// The second half of a CQE, which holds all that software reads: the phase arrives with the rest.
#[bitfield(u64)]
pub struct CqeTail {
    /// Index of the finished SQE.
    pub sq_head: u16,
    pub sq_num: u16,
    pub reserved: u16,
    pub phase: bool,
    #[bits(15)]
    pub status: u16,
}

/// An event entry: completion queue `qn` has something.
#[bitfield(u32)]
pub struct Eqe {
    pub qn: u16,
    pub phase: bool,
    #[bits(15)]
    _reserved: u16,
}

/// An asynchronous event entry.
#[bitfield(u32)]
pub struct Aeqe {
    pub qn: u16,
    pub phase: bool,
    #[bits(4)]
    pub kind: u8,
    #[bits(11)]
    _reserved: u16,
}

/// Types of asynchronous events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AsyncEvent {
    /// A completion queue has no room.
    CqOverflow,
    /// The event queue has no room.
    EqOverflow,
    /// A completion could not be written.
    CqeError,
}

impl AsyncEvent {
    /// The type field of the entry.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::CqOverflow => 0,
            Self::EqOverflow => 1,
            Self::CqeError => 2,
        }
    }
}

/// A doorbell's doubleword.
#[bitfield(u64)]
pub struct Doorbell {
    #[bits(12)]
    pub qn: u16,
    /// 0 SQ, 1 CQ, 2 EQ, 3 AEQ.
    #[bits(4)]
    pub command: u8,
    /// Must match the context's.
    pub random: u16,
    pub index: u16,
    /// For CQ: bit 0 arms.
    pub priority: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(words: &[(usize, u32)]) -> ContextImage {
        let mut image = [0; CONTEXT_BYTES];
        for &(at, value) in words {
            put_u32(&mut image, at, value);
        }
        image
    }

    #[test]
    fn sqc_of_a_user_queue_carries_the_pasid_only_if_enabled() {
        let user = image(&[(4, 0x8000_0000), (8, 1), (12, 0x73ff), (20, 0x0080_0007), (24, 0x0110_0003)]);
        let sqc = Sqc::decode(&user).unwrap();
        assert_eq!((sqc.base, sqc.depth, sqc.log2_sqe), (Iova(0x1_8000_0000), 1024, 7));
        assert_eq!((sqc.pasid, sqc.queue_type), (Pasid::new(7), 1));
        let kernel = image(&[(12, 0x73ff), (20, 0x0000_0007)]);
        assert_eq!(Sqc::decode(&kernel).unwrap().pasid, None);
    }

    #[test]
    fn context_of_a_killed_queue_is_none() {
        assert_eq!(Sqc::decode(&image(&[(12, 0x73ff), (16, 0xaaaa)])), None);
        assert_eq!(Sqc::decode(&image(&[(12, 0x73ff), (24, 0x0040_0000)])), None);
        assert_eq!(Cqc::decode(&image(&[(12, 0x43ff), (16, 0xaaaa)])), None);
    }

    #[test]
    fn context_whose_index_leaves_the_ring_is_none() {
        assert_eq!(Sqc::decode(&image(&[(0, 0x400), (12, 0x73ff)])), None);
        assert_eq!(Cqc::decode(&image(&[(0, 0x400_0000), (12, 0x43ff)])), None);
        assert_eq!(Eqc::decode(&image(&[(0, 0x800), (24, 0x1_07ff)])), None);
    }

    #[test]
    fn cq_tail_wrap_flips_phase_and_wrap_bit_and_reads_back() {
        let mut cqc = Cqc::decode(&image(&[(12, 0x4001), (24, 3)])).unwrap();
        assert!(cqc.phase && cqc.armed && !cqc.wrap);
        cqc.advance();
        assert!(cqc.is_full() && cqc.phase);
        cqc.advance();
        assert!(!cqc.phase && cqc.wrap);
        assert!(Cqc::decode(&cqc.encode()).unwrap().wrap);
        assert_eq!(cqc.encode()[24], 2);
    }

    #[test]
    fn event_ring_of_65536_entries_wraps_once() {
        let mut eqc = Eqc::decode(&image(&[(0, 0xffff_0000), (24, 0x1_ffff)])).unwrap();
        assert_eq!(eqc.depth, 65536);
        assert!(eqc.is_full());
        eqc.advance();
        assert!(eqc.is_empty() && !eqc.phase);
    }

    #[test]
    fn entries_encode_as_the_driver_reads_them() {
        assert_eq!(u32::from(Eqe::new().with_qn(5).with_phase(true)), 0x1_0005);
        assert_eq!(u32::from(Aeqe::new().with_qn(5).with_kind(2).with_phase(true)), 0x5_0005);
        let cqe = CqeTail::new().with_sq_head(9).with_sq_num(5).with_phase(true);
        assert_eq!(u64::from(cqe), 0x0001_0000_0005_0009);
        let bell = Doorbell::from(0x0001_0002_0000_1003);
        assert_eq!((bell.qn(), bell.command(), bell.index(), bell.priority()), (3, 1, 2, 1));
    }
}
