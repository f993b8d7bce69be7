//! Compression, stateless and stateful, and stateless decompression, through `flate2`.
//!
//! A stateful request ends with a sync flush, so that its output is complete and byte-aligned and no bits are held
//! back; the next request starts a new compressor with the last 32 KiB of the data before it as dictionary. All that a
//! stream needs is thus in the guest's context memory, and a stream may move from queue to queue, or stop, at will.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status as Step};
use hw::Iova;

use super::checksum::Digest;
use super::cores::Direction;
use super::inflate::Inflate;
use super::sqe::{Mode, Report, Request, Status, StreamWords};
use crate::hisi::qm::{Cancelled, EngineDma};
use crate::hisi::sgl::{AccessError, ListMemory, Place, Walk};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 128 << 10;
/// Bytes compressed at a time: a millisecond's work or so, after which a stopped queue's task ends.
const COMPRESS_BYTES: usize = 32 << 10;
/// Most bytes decompressed at a time. At each beginning the library copies its window and is slow for as long as
/// matches reach back into it, so a request of usual size is decompressed at one go.
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// The largest distance of deflate: history that a stream needs.
pub(super) const WINDOW_BYTES: usize = 32 << 10;
/// Where the history of a stream is in its context memory. It ends before 0x97c0, where software's own memory begins.
pub(super) const HISTORY_OFFSET: u64 = 0xc00;

/// Memory that a worker keeps from task to task. The larger parts are made when first needed.
pub struct Scratch {
    pub(super) input: Vec<u8>,
    output: Vec<u8>,
    pub(super) source_list: ListMemory,
    pub(super) destination_list: ListMemory,
    compress: Option<(Settings, Compress)>,
    decompress: Option<Decompress>,
    pub(super) inflate: Option<Box<Inflate>>,
    history: Vec<u8>,
}

/// What a compressor is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) level: u32,
    pub(super) window_bits: u8,
}

/// How a request ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Cancelled,
    Failed(Status),
}

impl From<Cancelled> for Stop {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// A failed access, with the status that stands for it.
pub(super) fn failed(status: Status) -> impl Fn(AccessError) -> Stop {
    move |error| match error {
        AccessError::Cancelled => Stop::Cancelled,
        AccessError::Fault => Stop::Failed(status),
    }
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            input: vec![0; CHUNK_BYTES],
            output: vec![0; CHUNK_BYTES],
            source_list: ListMemory::new(),
            destination_list: ListMemory::new(),
            compress: None,
            decompress: None,
            inflate: None,
            history: Vec::new(),
        }
    }
}

/// What is written to a stream's context memory when all the rest is done: from then on it is the state after the request.
pub(super) type LastWrites = Vec<(Iova, Vec<u8>)>;

/// Executes a request, but for its last writes. An error other than a cancellation becomes the report's status.
pub(super) fn run(
    scratch: &mut Scratch,
    request: &Request,
    level: u32,
    dma: &EngineDma<'_>,
) -> Result<(Report, LastWrites), Cancelled> {
    if request.is_ignored() {
        return Ok((Report::nothing_done(request.words), LastWrites::new()));
    }
    let settings = Settings { level, window_bits: request.window_bits };
    let result = match (request.direction, request.mode) {
        (Direction::Compress, _) => compress(scratch, request, settings, dma),
        (Direction::Decompress, Mode::Stateless) => {
            decompress(scratch, request, dma).map(|report| (report, LastWrites::new()))
        }
        (Direction::Decompress, Mode::Stateful { is_new, context, .. }) => {
            super::stream::decompress(scratch, request, is_new, context, dma)
        }
    };
    match result {
        Ok(report) => Ok(report),
        Err(Stop::Cancelled) => Err(Cancelled),
        Err(Stop::Failed(status)) => Ok((Report::failure(status), LastWrites::new())),
    }
}

/// Output of a request: counted, and refused where it does not fit.
pub(super) struct Output<'a> {
    walk: Walk<'a>,
    pub(super) produced: u32,
}

impl<'a> Output<'a> {
    pub(super) fn new(place: Place, dma: &'a EngineDma<'a>, memory: &'a mut ListMemory) -> Self {
        Self { walk: Walk::new(place, dma, memory), produced: 0 }
    }

    /// Room for output; a scatter list may have less.
    pub(super) const fn room(&self) -> u32 {
        self.walk.left()
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), Stop> {
        let written = self.walk.write(data).map_err(failed(Status::DestinationFault))?;
        // At most the length of a guest's buffer, which has 32 bits.
        self.produced = self.produced.wrapping_add(written as u32);
        if written < data.len() { Err(Stop::Failed(Status::DestinationTooSmall)) } else { Ok(()) }
    }
}

fn compress(
    scratch: &mut Scratch,
    request: &Request,
    settings: Settings,
    dma: &EngineDma<'_>,
) -> Result<(Report, LastWrites), Stop> {
    let (context, is_last) = match request.mode {
        Mode::Stateless => (None, true),
        Mode::Stateful { context, is_last, .. } => (Some(context), is_last),
    };
    let is_new = !matches!(request.mode, Mode::Stateful { is_new: false, .. });
    let StreamWords { ctx, isize, checksum } = request.words;
    if context.is_some() && request.input.len == 0 && !is_last {
        // Nothing to do: the stream stays as it is. One that is only beginning has its first words set.
        let digest = Digest::new(request.format);
        let words = if is_new {
            StreamWords { ctx: [0; 3], isize: 0, checksum: digest.word() }
        } else {
            request.words
        };
        return Ok((Report::nothing_done(words), LastWrites::new()));
    }
    let mut digest =
        if is_new { Digest::new(request.format) } else { Digest::resume(request.format, checksum, isize) };
    scratch.history.clear();
    if let Some(context) = context.filter(|_| !is_new) {
        let len = usize::try_from(ctx[2] & 0xffff).unwrap_or(0).min(WINDOW_BYTES);
        scratch.history.resize(len, 0);
        read_context(dma, context, HISTORY_OFFSET, &mut scratch.history)?;
    }

    if scratch.compress.as_ref().is_none_or(|(made_for, _)| *made_for != settings) {
        let level = Compression::new(settings.level);
        scratch.compress =
            Some((settings, Compress::new_with_window_bits(level, false, settings.window_bits)));
    }
    let Scratch { input, output, source_list, destination_list, compress, history, .. } = scratch;
    let Some((_, compress)) = compress else { return Err(Stop::Failed(Status::BadRequest)) };
    compress.reset();
    if !history.is_empty() {
        // A compressor that has just been reset takes any dictionary.
        compress.set_dictionary(history).map_err(|_| Stop::Failed(Status::ContextFault))?;
    }

    let mut source = Walk::new(request.input, dma, source_list);
    let mut sink = Output::new(request.output, dma, destination_list);
    let mut consumed = 0_u32;
    loop {
        let space = input.get_mut(..COMPRESS_BYTES).unwrap_or_default();
        let len = source.read(space).map_err(failed(Status::SourceFault))?;
        let chunk = input.get(..len).unwrap_or_default();
        if len == 0 && source.left() != 0 {
            return Err(Stop::Failed(Status::SourceFault)); // the scatter list is shorter than its data
        }
        consumed = consumed.wrapping_add(len as u32);
        digest.update(chunk);
        if context.is_some() {
            remember(history, chunk);
        }
        let flush = match (source.left(), is_last) {
            (0, true) => FlushCompress::Finish,
            (0, false) => FlushCompress::Sync,
            _ => FlushCompress::None,
        };
        squeeze(compress, chunk, flush, output, &mut sink)?;
        if source.left() == 0 {
            break;
        }
        if dma.is_cancelled() {
            return Err(Stop::Cancelled);
        }
    }
    if is_last {
        sink.write(digest.trailer().get(..request.format.trailer_bytes()).unwrap_or_default())?;
    }
    let mut words = StreamWords { ctx: [0; 3], isize: digest.len, checksum: digest.word() };
    let mut last = LastWrites::new();
    if let Some(context) = context {
        last.push((in_context(context, HISTORY_OFFSET), history.clone()));
        words.ctx[2] = history.len() as u32;
    }
    let produced = sink.produced;
    let status = Status::compressed(consumed, produced);
    Ok((Report { status, is_last_block: false, consumed, produced, words }, last))
}

/// Feeds one chunk to the compressor and writes what comes out.
fn squeeze(
    compress: &mut Compress,
    mut chunk: &[u8],
    flush: FlushCompress,
    buffer: &mut [u8],
    sink: &mut Output<'_>,
) -> Result<(), Stop> {
    loop {
        let (before_in, before_out) = (compress.total_in(), compress.total_out());
        let step = compress.compress(chunk, buffer, flush).map_err(|_| Stop::Failed(Status::BadRequest))?;
        let used = usize::try_from(compress.total_in() - before_in).unwrap_or(usize::MAX);
        let made = usize::try_from(compress.total_out() - before_out).unwrap_or(usize::MAX);
        chunk = chunk.get(used..).unwrap_or_default();
        sink.write(buffer.get(..made).unwrap_or_default())?;
        let is_done = match flush {
            FlushCompress::Finish => step == Step::StreamEnd,
            _ => chunk.is_empty() && made < buffer.len(),
        };
        if is_done {
            return Ok(());
        }
        if used == 0 && made == 0 {
            return Err(Stop::Failed(Status::BadRequest)); // cannot be: there is input or output to come
        }
    }
}

/// Adds data to a history and cuts it to the window.
fn remember(history: &mut Vec<u8>, data: &[u8]) {
    let kept = data.get(data.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
    let excess = (history.len() + kept.len()).saturating_sub(WINDOW_BYTES);
    history.drain(..excess.min(history.len()));
    history.extend_from_slice(kept);
}

fn decompress(scratch: &mut Scratch, request: &Request, dma: &EngineDma<'_>) -> Result<Report, Stop> {
    let Scratch { input, output, source_list, destination_list, decompress, .. } = scratch;
    let decompress = decompress.get_or_insert_with(|| Decompress::new(false));
    decompress.reset(false);
    grow(input, request.input.len);
    grow(output, request.output.len);
    let mut digest = Digest::new(request.format);
    let mut source = Walk::new(request.input, dma, source_list);
    let mut sink = Output::new(request.output, dma, destination_list);
    let (mut filled, mut at) = (0, 0);
    let mut given = 0_u32;
    loop {
        if at == filled {
            (filled, at) = (source.read(input).map_err(failed(Status::SourceFault))?, 0);
            if filled == 0 && source.left() != 0 {
                return Err(Stop::Failed(Status::SourceFault)); // the scatter list is shorter than its data
            }
            given = given.wrapping_add(filled as u32);
            if dma.is_cancelled() {
                return Err(Stop::Cancelled);
            }
        }
        let chunk = input.get(at..filled).unwrap_or_default();
        let (before_in, before_out) = (decompress.total_in(), decompress.total_out());
        let step = decompress
            .decompress(chunk, output, FlushDecompress::None)
            .map_err(|_| Stop::Failed(Status::BadData))?;
        let used = usize::try_from(decompress.total_in() - before_in).unwrap_or(usize::MAX);
        let made = usize::try_from(decompress.total_out() - before_out).unwrap_or(usize::MAX);
        at = at.saturating_add(used).min(filled);
        let data = output.get(..made).unwrap_or_default();
        digest.update(data);
        sink.write(data)?;
        if step == Step::StreamEnd {
            break;
        }
        if used == 0 && made == 0 && at == filled && source.left() == 0 {
            return Err(Stop::Failed(Status::BadData)); // ends early
        }
        if used == 0 && made == 0 && at < filled {
            return Err(Stop::Failed(Status::BadData)); // cannot be: there is room and input
        }
    }
    let mut trailer = [0; 8];
    let trailer = trailer.get_mut(..request.format.trailer_bytes()).unwrap_or_default();
    let rest = input.get(at..filled).unwrap_or_default();
    let have = rest.len().min(trailer.len());
    let (first, second) = trailer.split_at_mut(have);
    first.copy_from_slice(rest.get(..have).unwrap_or_default());
    at += have;
    let more = source.read(second).map_err(failed(Status::SourceFault))?;
    given = given.wrapping_add(more as u32);
    if more < second.len() {
        return Err(Stop::Failed(Status::BadData));
    }
    let is_equal = *trailer == digest.trailer()[..trailer.len()];
    let status = if is_equal { Status::Success } else { Status::ChecksumMismatch };
    let consumed = given.wrapping_sub((filled - at) as u32);
    let words = StreamWords { ctx: [0; 3], isize: digest.len, checksum: digest.word() };
    Ok(Report { status, is_last_block: false, consumed, produced: sink.produced, words })
}

/// Makes a buffer as large as a request can use, within bounds.
fn grow(buffer: &mut Vec<u8>, bytes: u32) {
    let useful = usize::try_from(bytes).unwrap_or(usize::MAX).min(MAX_CHUNK_BYTES);
    if buffer.len() < useful {
        buffer.resize(useful.next_power_of_two(), 0);
    }
}

/// Reads a part of a stream's context memory.
pub(super) fn read_context(
    dma: &EngineDma<'_>,
    context: Iova,
    offset: u64,
    out: &mut [u8],
) -> Result<(), Stop> {
    dma.read(in_context(context, offset), out).map_err(|fault| failed(Status::ContextFault)(fault.into()))
}

/// A place in a stream's context memory.
pub(super) const fn in_context(context: Iova, offset: u64) -> Iova {
    Iova(context.0.wrapping_add(offset))
}
