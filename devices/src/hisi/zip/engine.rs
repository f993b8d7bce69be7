//! The engine behind the queue manager: its capability words, its registers, and the way from SQE to result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hw::regmap::{Access, RegisterMap, Store};
use hw::{Clock, DmaFault, Iova, Registers, RestoreError};

use super::deflate::{self, Scratch};
use super::regs::ZipReg;
use super::sqe::{Report, Request, Status, set_status};
use super::stats::{Sample, Stats, Totals};
use crate::hisi::qm::{Cancelled, Done, Engine, EngineDma, QueueInfo};

/// Levels of the library for the two modes of `HIGH_PERF`.
const LEVEL_RATIO: u32 = 6;
const LEVEL_SPEED: u32 = 1;

/// Capability words: error masks, cores, algorithms. LZ77 and LZ4 are not built and not offered.
fn capability(offset: u64) -> u32 {
    match offset {
        0x3124 => 0x7c77,      // QM errors that are not fatal
        0x3128 => 0x6c77,      // QM errors that need a reset
        0x312c => 0x8,         // QM errors that are corrected
        0x3130 => 0x1ffe,      // ZIP errors that are not fatal
        0x3134 => 0x7fe,       // ZIP errors that need a reset
        0x3138 => 0x1,         // ZIP errors that are corrected
        0x313c => 0x1205_0203, // 1 cluster, 2 kinds of core, 5 cores: 2 compress, 3 decompress
        0x3140 => 0x001c_0003, // which core is of which kind
        0x3144 => 0x30,        // kernel algorithms: deflate
        0x3148 => 0x3f,        // user algorithms: zlib, gzip, deflate
        0x314c | 0x3150 => 0x15,
        0x3154 | 0x3158 | 0x315c => 0x2a,
        _ => 0,
    }
}

/// The ZIP engine.
pub struct ZipEngine {
    clock: Arc<dyn Clock>,
    regs: Mutex<Store<ZipReg>>,
    stats: Stats,
}

impl ZipEngine {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, regs: Mutex::new(Store::at_reset()), stats: Stats::default() }
    }

    pub(super) fn totals(&self) -> Totals {
        self.stats.totals()
    }

    pub(super) fn reset(&self) {
        *self.lock() = Store::at_reset();
        self.stats.reset_cores();
    }

    /// Registers, and the counters of the cores among them, that do not have their value of power-on.
    pub(super) fn save(&self) -> Registers {
        let mut registers = self.lock().save();
        let counter =
            |reg, index| self.counter(reg, index).map_or(0, |of| of.load(Ordering::Relaxed) & mask(reg));
        registers.extend(Registers::changed(is_counter, counter));
        registers
    }

    pub(super) fn restore(&self, registers: Registers) -> Result<(), RestoreError> {
        let mut bank = self.lock();
        registers.restore_changed(
            |reg: ZipReg| reg.info().access != Access::Wo,
            |reg, index, value| match self.counter(reg, index) {
                Some(counter) => {
                    counter.store(value, Ordering::Relaxed);
                    Ok(())
                }
                None => {
                    let possible = match reg {
                        // They keep nothing.
                        ZipReg::CORE_INT_SET | ZipReg::CORE_INT_STATUS => 0,
                        _ if reg.info().access == Access::Ro => 0,
                        _ => reg.info().writable,
                    };
                    bank.restore(reg, index, value, possible)
                }
            },
        )
    }

    /// The counter of a core that a register shows.
    fn counter(&self, reg: ZipReg, core: u64) -> Option<&AtomicU64> {
        let core = self.stats.cores.get(core as usize)?;
        Some(match reg {
            ZipReg::GET_BD_NUM => &core.taken,
            ZipReg::GET_RIGHT_BD => &core.right,
            ZipReg::GET_ERROR_BD => &core.wrong,
            ZipReg::DONE_BD_NUM => &core.done,
            ZipReg::MAX_DELAY => &core.max_delay_ns,
            ZipReg::CONSUMED_BYTE => &core.consumed,
            ZipReg::PRODUCED_BYTE => &core.produced,
            _ => return None,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Store<ZipReg>> {
        self.regs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn level(&self) -> u32 {
        if self.lock().word(ZipReg::HIGH_PERF) & 1 == 0 { LEVEL_RATIO } else { LEVEL_SPEED }
    }

    /// The aligned word at `offset`; zero where there is no register.
    pub(super) fn read_word(&self, offset: u64) -> u32 {
        let Some(at) = ZipReg::locate(offset) else { return 0 };
        let regs = self.lock();
        if at.reg == ZipReg::CORE_INT_STATUS {
            return regs.word(ZipReg::CORE_INT_SOURCE);
        }
        let Some(counter) = self.counter(at.reg, at.index) else { return regs.read_word(at) };
        let value = if regs.word(ZipReg::SOFT_CTRL_CNT_CLR_CE) & 1 != 0 {
            take_word(counter, at.byte)
        } else {
            counter.load(Ordering::Relaxed)
        };
        (value >> (8 * (at.byte & 4))) as u32
    }

    /// A write of the aligned word at `offset`. Whether it makes the abnormal interrupt due.
    pub(super) fn write_word(&self, offset: u64, word: u32) -> bool {
        let Some(at) = ZipReg::locate(offset) else { return false };
        let mut regs = self.lock();
        let before = regs.word(ZipReg::CORE_INT_SOURCE) & !regs.word(ZipReg::CORE_INT_MASK);
        match at.reg {
            ZipReg::CORE_INT_SET => {
                let source = regs.word(ZipReg::CORE_INT_SOURCE);
                regs.set_word(ZipReg::CORE_INT_SOURCE, source | word & 0x1fff);
            }
            ZipReg::CORE_INT_MASK => regs.set_word(ZipReg::CORE_INT_MASK, word & 0x1fff),
            _ => regs.write_word(at, word),
        }
        let now = regs.word(ZipReg::CORE_INT_SOURCE) & !regs.word(ZipReg::CORE_INT_MASK);
        now & !before != 0
    }
}

/// What is shown of a counter.
fn mask(reg: ZipReg) -> u64 {
    u64::MAX >> (64 - 8 * reg.info().bytes)
}

fn is_counter(reg: ZipReg) -> bool {
    reg.info().section == "cores"
}

/// Reads a counter and clears the 32 bits that were asked for.
fn take_word(counter: &AtomicU64, byte: u64) -> u64 {
    let kept = if byte & 4 == 0 { 0xffff_ffff_0000_0000 } else { 0xffff_ffff };
    counter.fetch_and(kept, Ordering::Relaxed)
}

impl ZipEngine {
    /// The end of a request whose results are in `sqe`, and whose context has been written or could not be.
    fn end(
        &self,
        context: Result<(), DmaFault>,
        sqe: &mut [u8],
        queue: QueueInfo,
        start_ns: u64,
    ) -> Result<Done, Cancelled> {
        match context {
            Ok(()) => {}
            Err(DmaFault::Cancelled) => return Err(Cancelled),
            Err(DmaFault::Aborted(_)) => Report::failure(Status::ContextFault).encode(sqe),
        }
        let sample = Sample::of_sqe(sqe, self.clock.now_ns().saturating_sub(start_ns));
        let direction = Request::decode(sqe, queue.queue_type).ok().map(|request| request.direction);
        let done = Done { consumed: sample.consumed.into(), produced: sample.produced.into() };
        self.stats.count(direction, queue.qn, sample);
        Ok(done)
    }
}

impl Engine for ZipEngine {
    type Scratch = Scratch;

    const LOG2_SQE: u8 = 7;

    fn capability(&self, offset: u64) -> u32 {
        capability(offset)
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
        let start = self.clock.now_ns();
        let request = Request::decode(sqe, queue.queue_type);
        let (report, last) = match &request {
            Ok(request) => deflate::run(scratch, request, self.level(), dma)?,
            Err(status) => (Report::failure(*status), Vec::new()),
        };
        report.encode(sqe);
        let end = if last.is_empty() { Ok(()) } else { dma.write_last(sqe, last) };
        self.end(end, sqe, queue, start)
    }

    fn finish(
        &self,
        sqe: &mut [u8],
        writes: &[(Iova, Vec<u8>)],
        queue: QueueInfo,
        dma: &EngineDma<'_>,
    ) -> Result<Done, Cancelled> {
        let start = self.clock.now_ns();
        self.end(dma.write_again(writes), sqe, queue, start)
    }

    fn set_status(&self, sqe: &mut [u8], status: u8) {
        set_status(sqe, status);
    }
}
