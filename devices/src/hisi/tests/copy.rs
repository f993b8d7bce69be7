//! An engine that copies. SQE of 64 bytes: dword 0 status (written back), 1 bytes to copy, 2 and 3 source, 4 and 5 destination, 6
//! bit 0 the source is a scatter list; the others come back as they were. Queue type 0 alone.

use std::sync::atomic::{AtomicU64, Ordering};

use hw::{DmaFault, Iova};

use crate::hisi::qm::{Cancelled, Done, Engine, EngineDma, ErrorClasses, QueueInfo};
use crate::hisi::registers::{EngineMap, EngineRegisters, ErrorRegisters, MaskSays};
use crate::hisi::sgl::{AccessError, ListMemory, Place, Walk};
use crate::hisi::words::{address, dword, put};

/// It has been copied.
pub(super) const OK: u32 = 0x8000_0000;
/// The queue is of a type that this engine has not.
pub(super) const REFUSED: u32 = 0x8000_0001;
/// The source could not be read, or is shorter than it was said to be.
pub(super) const SOURCE_FAULT: u32 = 0x8000_0002;
/// The destination could not be written.
const DESTINATION_FAULT: u32 = 0x8000_0003;

hw::register_map! {
    /// Registers of the engine that copies.
    pub(super) enum CopyReg {
        /// Bit by bit: the error interrupts.
        ERROR_ENABLE   @ 0x30_1000: 4 Rw(0x7) = 0, "errors";
        /// Errors that have happened.
        ERROR_STATUS   @ 0x30_1008: 4 Special(0) = 0, "errors";
        /// The same; ones clear them.
        ERROR_SOURCE   @ 0x30_1010: 4 W1c(0x7) = 0, "errors";
        /// Ones make errors happen.
        ERROR_SET      @ 0x30_1020: 4 Special(0x7) = 0, "errors";
        /// Bit 0: counters clear when read.
        COUNTERS_CLEAR @ 0x30_1120: 4 Rw(1) = 0, "control";
        /// Bit 0: what is copied is inverted.
        INVERT         @ 0x30_1200: 4 Rw(1) = 0, "control";
        /// Bytes copied.
        COPIED_BYTES   @ 0x30_1600: 8 Special(0) = 0, "counters";
    }
}

impl EngineMap for CopyReg {
    const ERRORS: ErrorRegisters<Self> = ErrorRegisters {
        source: Self::ERROR_SOURCE,
        status: Self::ERROR_STATUS,
        mask: Self::ERROR_ENABLE,
        mask_says: MaskSays::Enabled,
        set: Some(Self::ERROR_SET),
    };
    const COUNTERS_CLEAR: Self = Self::COUNTERS_CLEAR;
}

/// Most bytes of a request.
const MOST_BYTES: u32 = 0xffff;

/// Puts the status into the SQE.
fn end(status: u32, sqe: &mut [u8]) -> Done {
    put(sqe, 0, status);
    let moved = if status == OK { u64::from(dword(sqe, 1)) } else { 0 };
    Done { is_ok: status == OK, consumed: moved, produced: moved }
}

/// The end of a request whose data have been written or could not be.
fn written(done: Done, result: Result<(), DmaFault>, sqe: &mut [u8]) -> Result<Done, Cancelled> {
    match result {
        Ok(()) => Ok(done),
        Err(DmaFault::Cancelled) => Err(Cancelled),
        Err(DmaFault::Aborted(_)) => Ok(end(DESTINATION_FAULT, sqe)),
    }
}

#[derive(Default)]
pub(super) struct CopyEngine {
    registers: EngineRegisters<CopyReg>,
    copied: AtomicU64,
}

impl Engine for CopyEngine {
    type Register = CopyReg;
    type Scratch = ListMemory;

    const NAME: &'static str = "copy";
    const ABOUT: &'static str = "copies";
    const DEVICE_ID: u16 = 0xa2ff;
    const LOG2_SQE: u8 = 6;
    const QM_ERRORS: ErrorClasses = ErrorClasses { corrected: 0x8, not_fatal: 0x7c37, reset: 0x6c37 };
    const ERRORS: ErrorClasses = ErrorClasses { corrected: 0x1, not_fatal: 0x6, reset: 0x2 };

    fn capability(offset: u64) -> u32 {
        if offset == 0x313c { 0x11_0101 } else { 0 }
    }

    fn new() -> Self {
        Self::default()
    }

    fn registers(&self) -> &EngineRegisters<CopyReg> {
        &self.registers
    }

    fn counter(&self, reg: CopyReg, _: u64) -> Option<&AtomicU64> {
        (reg == CopyReg::COPIED_BYTES).then_some(&self.copied)
    }

    fn count(&self, _: &[u8], _: QueueInfo, done: Done, _: u64) {
        self.copied.fetch_add(done.produced, Ordering::Relaxed);
    }

    fn scratch(&self) -> ListMemory {
        ListMemory::new()
    }

    fn run(
        &self,
        scratch: &mut ListMemory,
        sqe: &mut [u8],
        queue: QueueInfo,
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled> {
        let len = dword(sqe, 1);
        if queue.queue_type != 0 || len > MOST_BYTES {
            return Ok(end(REFUSED, sqe));
        }
        let mut data = vec![0; len as usize];
        let place = Place { at: address(sqe, 2), len, skip: 0, is_sgl: dword(sqe, 6) & 1 != 0 };
        match Walk::new(place, dma, scratch).read(&mut data) {
            Ok(read) if read == data.len() => {}
            Err(AccessError::Cancelled) => return Err(Cancelled),
            _ => return Ok(end(SOURCE_FAULT, sqe)),
        }
        if self.registers.get(CopyReg::INVERT) & 1 != 0 {
            data.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let done = end(OK, sqe);
        // The destination may overlap the source, so this is what it takes effect with.
        written(done, dma.write_last(sqe, vec![(address(sqe, 4), data)]), sqe)
    }

    fn finish(
        &self,
        sqe: &mut [u8],
        writes: &[(Iova, Vec<u8>)],
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled> {
        written(end(OK, sqe), dma.write_again(writes), sqe)
    }

    fn set_status(&self, sqe: &mut [u8], status: u8) {
        put(sqe, 0, OK & !0xff | u32::from(status));
    }
}
