//! The engine behind the queue manager: what it offers, and the way from SQE to result.

use std::sync::atomic::AtomicU64;

use hw::{DmaFault, Iova};

use super::cores::Cores;
use super::deflate::{self, Scratch};
use super::regs::ZipReg;
use super::sqe::{Report, Request, Status, results, set_status};
use crate::hisi::qm::{Cancelled, Done, Engine, EngineDma, ErrorClasses, QueueInfo};
use crate::hisi::registers::EngineRegisters;

/// Levels of the library for the two modes of `HIGH_PERF`.
const LEVEL_RATIO: u32 = 6;
const LEVEL_SPEED: u32 = 1;

/// The ZIP engine.
#[derive(Default)]
pub struct ZipEngine {
    registers: EngineRegisters<ZipReg>,
    cores: Cores,
}

impl ZipEngine {
    fn level(&self) -> u32 {
        if self.registers.get(ZipReg::HIGH_PERF) & 1 == 0 { LEVEL_RATIO } else { LEVEL_SPEED }
    }

    /// The end of a request whose results are in `sqe`, and whose context has been written or could not be.
    fn end(context: Result<(), DmaFault>, sqe: &mut [u8]) -> Result<Done, Cancelled> {
        match context {
            Ok(()) => {}
            Err(DmaFault::Cancelled) => return Err(Cancelled),
            Err(DmaFault::Aborted(_)) => Report::failure(Status::ContextFault).encode(sqe),
        }
        Ok(results(sqe))
    }
}

impl Engine for ZipEngine {
    type Register = ZipReg;
    type Scratch = Scratch;

    const NAME: &'static str = "zip";
    const ABOUT: &'static str = "HiSilicon ZIP: deflate, zlib, gzip";
    const DEVICE_ID: u16 = 0xa250;
    const LOG2_SQE: u8 = 7;
    const QM_ERRORS: ErrorClasses = ErrorClasses { corrected: 0x8, not_fatal: 0x7c77, reset: 0x6c77 };
    const ERRORS: ErrorClasses = ErrorClasses { corrected: 0x1, not_fatal: 0x1ffe, reset: 0x7fe };

    /// Cores and algorithms. LZ77 and LZ4 are not built and not offered.
    fn capability(offset: u64) -> u32 {
        match offset {
            0x313c => 0x1205_0203, // 1 cluster, 2 kinds of core, 5 cores: 2 compress, 3 decompress
            0x3140 => 0x001c_0003, // which core is of which kind
            0x3144 => 0x30,        // kernel algorithms: deflate
            0x3148 => 0x3f,        // user algorithms: zlib, gzip, deflate
            0x314c | 0x3150 => 0x15,
            0x3154 | 0x3158 | 0x315c => 0x2a,
            _ => 0,
        }
    }

    fn new() -> Self {
        Self::default()
    }

    fn registers(&self) -> &EngineRegisters<ZipReg> {
        &self.registers
    }

    fn counter(&self, reg: ZipReg, index: u64) -> Option<&AtomicU64> {
        self.cores.counter(reg, index)
    }

    fn count(&self, sqe: &[u8], queue: QueueInfo, done: Done, ns: u64) {
        if let Ok(request) = Request::decode(sqe, queue.queue_type) {
            self.cores.count(request.direction, queue.qn, done, ns);
        }
    }

    fn scratch(&self) -> Scratch {
        Scratch::new()
    }

    fn run(
        &self,
        scratch: &mut Scratch,
        sqe: &mut [u8],
        queue: QueueInfo,
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled> {
        let request = Request::decode(sqe, queue.queue_type);
        let (report, last) = match &request {
            Ok(request) => deflate::run(scratch, request, self.level(), dma)?,
            Err(status) => (Report::failure(*status), Vec::new()),
        };
        report.encode(sqe);
        let end = if last.is_empty() { Ok(()) } else { dma.write_last(sqe, last) };
        Self::end(end, sqe)
    }

    fn finish(
        &self,
        sqe: &mut [u8],
        writes: &[(Iova, Vec<u8>)],
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled> {
        Self::end(dma.write_again(writes), sqe)
    }

    fn set_status(&self, sqe: &mut [u8], status: u8) {
        set_status(sqe, status);
    }
}
