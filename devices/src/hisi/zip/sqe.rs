//! The submission queue entry of ZIP: 128 bytes, 32 dwords. What a request asks for and what is written back.
//!
//! Types 0 and 3 differ in where software keeps its tag. All input words are echoed, so that it comes back wherever
//! it is. Deliberately absent: the storage-integrity and cipher fields, and the LZ77 and LZ4 request types, which this
//! device does not offer.

use bitfield_struct::bitfield;
use hw::Iova;

use super::checksum::Format;
use super::cores::Direction;
use crate::hisi::qm::Done;
use crate::hisi::sgl::Place;
use crate::hisi::words::{address, dword, put};

/// Status codes, dword 3 bits 7:0. Where software tests for no particular code the values are this model's own; the
/// two for addresses are those of the corresponding engine errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// Done.
    Success = 0x00,
    /// A request type, SQE type, buffer type, window or queue type that this device does not have.
    BadRequest = 0x01,
    /// The compressed data are malformed, or end early.
    BadData = 0x03,
    /// The source, or its scatter list, could not be read.
    SourceFault = 0x04,
    /// The destination could not be written, or its scatter list not be read.
    DestinationFault = 0x05,
    /// The stream context could not be read or written, or holds no stream.
    ContextFault = 0x06,
    /// Compression has made more of the data than they were; all is as with [`Self::Success`].
    NegativeCompression = 0x0d,
    /// The output does not fit.
    DestinationTooSmall = 0x0e,
    /// The checksum or the length of the trailer is not that of the data, which are written and counted.
    ChecksumMismatch = 0x10,
    /// The stream has ended; stateful decompression only.
    StreamEnd = 0x13,
}

impl Status {
    /// The status of a compression that is complete.
    pub(super) const fn compressed(consumed: u32, produced: u32) -> Self {
        if produced > consumed { Self::NegativeCompression } else { Self::Success }
    }
}

/// Dword 7.
#[bitfield(u32)]
pub(super) struct Control {
    /// Bytes of the input scatter list to skip.
    #[bits(24)]
    pub(super) input_skip: u32,
    _reserved: bool,
    /// Last request of a stream.
    pub(super) finish: bool,
    /// Stateful.
    pub(super) stream_mode: bool,
    /// First request of a stream.
    pub(super) stream_new: bool,
    #[bits(4)]
    pub(super) sqe_type: u8,
}

/// Dword 9.
#[bitfield(u32)]
pub(super) struct Kind {
    pub(super) request_type: u8,
    /// 0 flat, 1 scatter list.
    #[bits(4)]
    pub(super) buffer_type: u8,
    /// 0 to 4: 4, 8, 16, 24, 32 KiB.
    #[bits(4)]
    pub(super) window: u8,
    #[bits(16)]
    _reserved: u16,
}

/// The four words of state that travel in the SQE, besides the context in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamWords {
    /// Stream context words 0 to 2.
    pub(super) ctx: [u32; 3],
    /// Uncompressed bytes so far.
    pub(super) isize: u32,
    /// Running checksum as the engine encodes it.
    pub(super) checksum: u32,
}

/// How a request stands in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is a stream of its own.
    Stateless,
    /// It goes on where another left off.
    Stateful {
        /// First of its stream: no state is looked at.
        is_new: bool,
        /// Last of its stream.
        is_last: bool,
        /// Memory for the stream's state.
        context: Iova,
    },
}

/// A decoded request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) direction: Direction,
    pub(super) format: Format,
    pub(super) mode: Mode,
    /// Log2 of the largest match distance when compressing.
    pub(super) window_bits: u8,
    pub(super) input: Place,
    pub(super) output: Place,
    pub(super) words: StreamWords,
}

/// What is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) status: Status,
    /// The stream's last block has been seen.
    pub(super) is_last_block: bool,
    pub(super) consumed: u32,
    pub(super) produced: u32,
    pub(super) words: StreamWords,
}

/// Room for output up to which a stateful request without input is none.
const IGNORED_ROOM: u32 = 0x10;

impl Request {
    /// Whether the device passes this request over. Software sends it while it has output of its own to deliver, and
    /// takes what it finds in the stream's words for the stream's.
    pub(super) const fn is_ignored(&self) -> bool {
        matches!(self.mode, Mode::Stateful { .. }) && self.input.len == 0 && self.output.len <= IGNORED_ROOM
    }
}

impl Report {
    /// A success without consequences.
    #[must_use]
    pub(super) const fn nothing_done(words: StreamWords) -> Self {
        Self { status: Status::Success, is_last_block: false, consumed: 0, produced: 0, words }
    }

    /// Nothing done, for this reason.
    #[must_use]
    pub(super) fn failure(status: Status) -> Self {
        Self { status, is_last_block: false, consumed: 0, produced: 0, words: StreamWords::default() }
    }
}

/// Replaces the status, dword 3 bits 7:0.
pub(super) fn set_status(sqe: &mut [u8], status: u8) {
    put(sqe, 3, dword(sqe, 3) & !0xff | u32::from(status));
}

impl Request {
    /// The request in this SQE of a queue of `queue_type`.
    ///
    /// # Errors
    /// [`Status::BadRequest`], if it asks for something that this device does not have.
    pub(super) fn decode(sqe: &[u8], queue_type: u8) -> Result<Self, Status> {
        let control = Control::from(dword(sqe, 7));
        let kind = Kind::from(dword(sqe, 9));
        let direction = match queue_type {
            0 => Direction::Compress,
            1 => Direction::Decompress,
            _ => return Err(Status::BadRequest),
        };
        let format = match kind.request_type() {
            1 => Format::Deflate,
            2 => Format::Zlib,
            3 => Format::Gzip,
            _ => return Err(Status::BadRequest),
        };
        let window_bits = match (direction, kind.window()) {
            (Direction::Decompress, _) => 15,
            (Direction::Compress, 0) => 12,
            (Direction::Compress, 1) => 13,
            // No distance above 24 KiB is allowed; the library's next smaller window is 16 KiB.
            (Direction::Compress, 2 | 3) => 14,
            (Direction::Compress, 4) => 15,
            (Direction::Compress, _) => return Err(Status::BadRequest),
        };
        if !matches!(control.sqe_type(), 0 | 3) || kind.buffer_type() > 1 {
            return Err(Status::BadRequest);
        }
        let is_sgl = kind.buffer_type() == 1;
        let mode = if control.stream_mode() {
            let context = address(sqe, 22);
            Mode::Stateful { is_new: control.stream_new(), is_last: control.finish(), context }
        } else {
            // Software leaves the stream words of stateless requests as they were.
            Mode::Stateless
        };
        Ok(Self {
            direction,
            format,
            mode,
            window_bits,
            input: Place { at: address(sqe, 18), len: dword(sqe, 4), skip: control.input_skip(), is_sgl },
            output: Place {
                at: address(sqe, 20),
                len: dword(sqe, 14),
                skip: dword(sqe, 8) & 0xff_ffff,
                is_sgl,
            },
            words: StreamWords {
                ctx: [dword(sqe, 15), dword(sqe, 28), dword(sqe, 29)],
                isize: dword(sqe, 30),
                checksum: dword(sqe, 31),
            },
        })
    }
}

/// The results in an SQE.
pub(super) fn results(sqe: &[u8]) -> Done {
    let is_ok = [Status::Success, Status::NegativeCompression, Status::StreamEnd]
        .iter()
        .any(|status| *status as u32 == dword(sqe, 3) & 0xff);
    Done { is_ok, consumed: dword(sqe, 0).into(), produced: dword(sqe, 1).into() }
}

impl Report {
    /// Puts the results into the SQE; all other words stay.
    pub(super) fn encode(&self, sqe: &mut [u8]) {
        put(sqe, 0, self.consumed);
        put(sqe, 1, self.produced);
        put(sqe, 2, self.produced);
        put(sqe, 3, u32::from(self.status as u8) | u32::from(self.is_last_block) << 8);
        let [ctx0, ctx1, ctx2] = self.words.ctx;
        put(sqe, 15, ctx0);
        put(sqe, 28, ctx1);
        put(sqe, 29, ctx2);
        put(sqe, 30, self.words.isize);
        put(sqe, 31, self.words.checksum);
    }
}
