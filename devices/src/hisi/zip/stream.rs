//! Stateful decompression: a stream that comes in requests of any size, its state in the guest's context memory.
//!
//! Layout of the context memory, from the address in the SQE: the decoder's state at 0, the history at 0xc00. Words of
//! the SQE: context word 0 is 2 while decoded output has no room (bit 7: in the last block), word 1 then tells how
//! many bytes of it, word 2 the length of the history. All input is consumed as long as there is room for the output;
//! what does not make up a symbol stays in the state. When there is no room, whole bytes that are not needed yet are
//! left to software.

use hw::Iova;

use super::checksum::{Digest, Format};
use super::deflate::{HISTORY_OFFSET, LastWrites, Output, Scratch, Stop, failed, in_context, read_context};
use super::inflate::{Inflate, Pause, STATE_BYTES};
use super::sqe::{Report, Request, Status, StreamWords};
use crate::hisi::qm::EngineDma;
use crate::hisi::sgl::Walk;

/// Context word 0: output has no room in the middle of a block.
const CTX_OUTPUT_FULL: u32 = 2;
/// Context word 0: the block in progress is the last.
const CTX_BFINAL: u32 = 1 << 7;

pub(super) fn decompress(
    scratch: &mut Scratch,
    request: &Request,
    is_new: bool,
    context: Iova,
    dma: &EngineDma<'_>,
) -> Result<(Report, LastWrites), Stop> {
    let Scratch { input, source_list, destination_list, inflate, .. } = scratch;
    let inflate = inflate.get_or_insert_with(|| Box::new(Inflate::new()));
    let format = request.format;
    let mut digest = if is_new {
        inflate.start(format.trailer_bytes());
        Digest::new(format)
    } else {
        resume(inflate, request, context, dma)?;
        Digest::resume(format, request.words.checksum, request.words.isize)
    };
    if inflate.is_done() {
        let (status, words) = (end_status(inflate, &digest, format), request.words);
        let report = Report { status, is_last_block: true, consumed: 0, produced: 0, words };
        return Ok((report, LastWrites::new()));
    }

    let mut source = Walk::new(request.input, dma, source_list);
    let mut sink = Output::new(request.output, dma, destination_list);
    let mut given = 0_u32;
    let (mut filled, mut at) = (0, 0);
    let end = loop {
        let room = usize::try_from(sink.room()).unwrap_or(usize::MAX);
        let mut chunk = input.get(at..filled).unwrap_or_default();
        let pause = inflate.run(&mut chunk, room).map_err(|_| Stop::Failed(Status::BadData))?;
        at = filled - chunk.len();
        let data = inflate.take_output();
        digest.update(data);
        sink.write(data)?;
        match pause {
            Pause::End => break Pause::End,
            Pause::Output if sink.room() == 0 => break Pause::Output,
            Pause::Output => {}
            Pause::Input => {
                (filled, at) = (source.read(input).map_err(failed(Status::SourceFault))?, 0);
                if filled == 0 && source.left() != 0 {
                    return Err(Stop::Failed(Status::SourceFault)); // the scatter list is shorter than its data
                }
                if filled == 0 {
                    break Pause::Input;
                }
                given = given.wrapping_add(filled as u32);
            }
        }
        if dma.is_cancelled() {
            return Err(Stop::Cancelled);
        }
    };

    let unread = (filled - at) as u32;
    // With room for output all input is consumed, also the part of a symbol: software that offers just what it has not
    // seen consumed would otherwise offer the same part for ever.
    let unused = if end == Pause::Input { 0 } else { inflate.give_back(given.wrapping_sub(unread)) };
    let consumed = given.wrapping_sub(unread).wrapping_sub(unused);
    let history = inflate.history();
    let last =
        vec![(context, inflate.save().to_vec()), (in_context(context, HISTORY_OFFSET), history.to_vec())];
    let mut ctx = [0, 0, history.len() as u32];
    if end == Pause::Output {
        ctx[0] = CTX_OUTPUT_FULL | if inflate.is_last_block() { CTX_BFINAL } else { 0 };
        ctx[1] = inflate.pending_bytes();
    }
    let report = Report {
        status: if end == Pause::End { end_status(inflate, &digest, format) } else { Status::Success },
        is_last_block: end == Pause::End,
        consumed,
        produced: sink.produced,
        words: StreamWords { ctx, isize: digest.len, checksum: digest.word() },
    };
    Ok((report, last))
}

/// How a stream ends whose trailer is complete. Not even a wrong one takes back what has been written and counted, and it
/// is still wrong if software asks again.
fn end_status(inflate: &Inflate, digest: &Digest, format: Format) -> Status {
    if inflate.trailer() == digest.trailer().get(..format.trailer_bytes()).unwrap_or_default() {
        Status::StreamEnd
    } else {
        Status::ChecksumMismatch
    }
}

/// Takes a stream up from its context memory.
fn resume(inflate: &mut Inflate, request: &Request, context: Iova, dma: &EngineDma<'_>) -> Result<(), Stop> {
    let [_, _, history_bytes] = request.words.ctx;
    let history = inflate.restore_history(usize::try_from(history_bytes & 0xffff).unwrap_or(0));
    read_context(dma, context, HISTORY_OFFSET, history)?;
    let mut state = [0; STATE_BYTES];
    read_context(dma, context, 0, &mut state)?;
    inflate.restore(state).map_err(|_| Stop::Failed(Status::ContextFault))
}
