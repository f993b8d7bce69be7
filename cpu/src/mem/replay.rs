//! Writes that can be undone: what a try of some instructions (see `lockstep`) does to memory.
//!
//! While a vCPU tries, its TLB is hidden, so every access takes the slow path; the slow path asks here before it writes
//! to RAM or reaches a device. Costs nothing on the fast path, and one look at an option beside it.

use super::host;
use crate::Cpu;
use crate::exception::{Exception, FaultStatus};

/// A try that is going on.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub(crate) writes: Writes,
    /// A device was to be reached, which cannot be undone: the try has ended there.
    pub(crate) reached_device: bool,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    host: u64,
    len: usize,
    old: [u8; 64],
}

/// What has been written to RAM, with what was there before.
#[derive(Debug, Default)]
pub(crate) struct Writes(Vec<Write>);

impl Writes {
    /// Puts back what was there before the first of the writes.
    pub(crate) fn undo(&self) {
        for write in self.0.iter().rev() {
            // SAFETY: these bytes of RAM were written through this address, and RAM stays as long as the machine.
            unsafe { host::copy_to(write.host, &write.old[..write.len]) };
        }
    }

    /// What is there now, by write.
    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        let read = |write: &Write| {
            let mut bytes = vec![0; write.len];
            // SAFETY: as in `undo`.
            unsafe { host::copy_from(write.host, &mut bytes) };
            bytes
        };
        self.0.iter().map(read).collect()
    }

    /// The host address of write `index`.
    pub(crate) fn place(&self, index: usize) -> u64 {
        self.0[index].host
    }
}

impl Cpu {
    /// Notes what is at `len` bytes (64 at most) of RAM that are about to be written, if this is a try.
    #[inline]
    pub(super) fn note_write(&mut self, host: u64, len: u64) {
        if let Some(replay) = &mut self.mem.replay {
            let mut write = Write { host, len: len as usize, old: [0; 64] };
            // SAFETY: callers are about to write to these bytes of RAM.
            unsafe { host::copy_from(host, &mut write.old[..write.len]) };
            replay.writes.0.push(write);
        }
    }

    /// A device is about to be reached.
    ///
    /// # Errors
    /// If this is a try: it ends here. Which exception it is does not matter.
    #[inline]
    pub(super) fn note_device(&mut self, va: u64) -> Result<(), Exception> {
        match &mut self.mem.replay {
            Some(replay) => {
                replay.reached_device = true;
                Err(Exception::data_abort(va, FaultStatus::EXTERNAL_ABORT, false))
            }
            None => Ok(()),
        }
    }

    /// The try that is going on.
    pub(crate) fn replay(&self) -> Option<&Replay> {
        self.mem.replay.as_deref()
    }

    /// Does `work` as a try: what it writes to RAM is noted, and nobody is told of code that it overwrites.
    pub(crate) fn trying<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, Replay) {
        self.mem.replay = Some(Box::default());
        self.mem.tlb.hide();
        let done = work(self);
        let el0 = self.at_el0();
        self.mem.tlb.show(el0);
        (done, *self.mem.replay.take().unwrap_or_default())
    }
}
