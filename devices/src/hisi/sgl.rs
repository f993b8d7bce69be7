//! A request's data in guest memory: one flat run, or a chain of the scatter lists that all engines understand. Read or
//! written in order, a piece at a time, so that no memory of ours depends on a guest's length.
//!
//! A scatter list has a header of 64 bytes (next list, entries in the chain, entries in this list) and entries of 32
//! (address, software's own, length). The second count of the header is the number of valid entries; the first is
//! the capacity and says nothing about the data.

use hw::{DmaFault, Iova};

use super::qm::EngineDma;

/// Most lists in a chain, as software builds it. Longer ones, loops among them, are refused.
const MAX_LISTS: u32 = 256;
/// Most entries in a list.
const MAX_ENTRIES: u16 = 255;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 32;

/// Where data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Data, or the first scatter list.
    pub(super) at: Iova,
    /// Most bytes.
    pub(super) len: u32,
    /// Bytes of the scatter list to skip first.
    pub(super) skip: u32,
    /// Whether `at` is a scatter list.
    pub(super) is_sgl: bool,
}

/// Why data could not be had or put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessError {
    /// The queue was stopped.
    Cancelled,
    /// An address that does not answer, or a chain that is none.
    Fault,
}

impl From<DmaFault> for AccessError {
    fn from(fault: DmaFault) -> Self {
        match fault {
            DmaFault::Cancelled => Self::Cancelled,
            DmaFault::Aborted(_) => Self::Fault,
        }
    }
}

/// Memory for one list's entries.
pub(super) struct ListMemory(Box<[u8]>);

impl ListMemory {
    pub(super) fn new() -> Self {
        Self(vec![0; HEADER_BYTES + usize::from(MAX_ENTRIES) * ENTRY_BYTES].into())
    }
}

/// Where a chain has come to.
struct Chain<'a> {
    memory: &'a mut ListMemory,
    /// The list to read next; none after the last.
    next: Option<Iova>,
    lists: u32,
    /// Entries of the present list, and the next of them.
    entries: usize,
    entry: usize,
    skip: u32,
}

/// A place being walked through.
pub(super) struct Walk<'a> {
    dma: &'a EngineDma<'a>,
    /// The rest of the present run.
    run: (Iova, u32),
    /// Bytes that may still be moved.
    left: u32,
    chain: Option<Chain<'a>>,
}

impl<'a> Walk<'a> {
    /// From the beginning of `place`.
    pub(super) fn new(place: Place, dma: &'a EngineDma<'a>, memory: &'a mut ListMemory) -> Self {
        if place.is_sgl {
            let chain =
                Chain { memory, next: Some(place.at), lists: 0, entries: 0, entry: 0, skip: place.skip };
            Self { dma, run: (Iova(0), 0), left: place.len, chain: Some(chain) }
        } else {
            Self { dma, run: (place.at, place.len), left: place.len, chain: None }
        }
    }

    /// Bytes that may still be moved; a chain may end before.
    pub(super) const fn left(&self) -> u32 {
        self.left
    }

    /// Makes the run non-empty. `false` at the end of the chain.
    fn find_run(&mut self) -> Result<bool, AccessError> {
        while self.run.1 == 0 {
            let Some(chain) = &mut self.chain else { return Ok(false) };
            match chain.next_entry(self.dma)? {
                Some(run) => self.run = run,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Moves up to `want` bytes in runs: `access` is given each run's address and its place in the request.
    fn each_run(
        &mut self,
        want: usize,
        mut access: impl FnMut(&EngineDma<'_>, Iova, std::ops::Range<usize>) -> Result<(), DmaFault>,
    ) -> Result<usize, AccessError> {
        let mut done = 0;
        while done < want && self.left != 0 && self.find_run()? {
            let (at, len) = self.run;
            let most = len.min(self.left);
            let take = u32::try_from(want - done).map_or(most, |rest| rest.min(most));
            access(self.dma, at, done..done + take as usize)?;
            self.run = (Iova(at.0.wrapping_add(u64::from(take))), len - take);
            self.left -= take;
            done += take as usize;
        }
        Ok(done)
    }

    /// Reads up to `out.len()` bytes; fewer only at the end.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, AccessError> {
        self.each_run(out.len(), |dma, at, range| match out.get_mut(range) {
            Some(piece) => dma.read(at, piece),
            None => Ok(()),
        })
    }

    /// Writes as much of `data` as there is room for.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<usize, AccessError> {
        self.each_run(data.len(), |dma, at, range| match data.get(range) {
            Some(piece) => dma.write(at, piece),
            None => Ok(()),
        })
    }
}

impl Chain<'_> {
    /// The next entry's run after the skipped bytes, `None` after the last.
    fn next_entry(&mut self, dma: &EngineDma<'_>) -> Result<Option<(Iova, u32)>, AccessError> {
        loop {
            while self.entry == self.entries {
                let Some(at) = self.next else { return Ok(None) };
                self.read_list(at, dma)?;
            }
            let at = HEADER_BYTES + self.entry * ENTRY_BYTES;
            self.entry += 1;
            let Some(entry) = self.memory.0.get(at..at + ENTRY_BYTES) else { return Err(AccessError::Fault) };
            let base = u64::from(u32_at(entry, 0)) | u64::from(u32_at(entry, 4)) << 32;
            let len = u32_at(entry, 16);
            let skipped = self.skip.min(len);
            self.skip -= skipped;
            if len != skipped {
                return Ok(Some((Iova(base.wrapping_add(u64::from(skipped))), len - skipped)));
            }
        }
    }

    fn read_list(&mut self, at: Iova, dma: &EngineDma<'_>) -> Result<(), AccessError> {
        if self.lists == MAX_LISTS {
            return Err(AccessError::Fault);
        }
        self.lists += 1;
        let (header, entries) = self.memory.0.split_at_mut(HEADER_BYTES);
        dma.read(at, header)?;
        let next = u64::from(u32_at(header, 0)) | u64::from(u32_at(header, 4)) << 32;
        let count = (u32_at(header, 8) >> 16) as u16;
        if count > MAX_ENTRIES {
            return Err(AccessError::Fault);
        }
        let count = usize::from(count);
        if let Some(entries) = entries.get_mut(..count * ENTRY_BYTES).filter(|entries| !entries.is_empty()) {
            dma.read(Iova(at.0.wrapping_add(HEADER_BYTES as u64)), entries)?;
        }
        (self.entries, self.entry) = (count, 0);
        self.next = (next != 0).then_some(Iova(next));
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}
