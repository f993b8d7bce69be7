//! Accesses of devices: reads, writes and pins by stream and PASID.
//!
//! An access goes page by page. It is counted in from translation to the last byte of a piece, in pieces of bounded
//! size, so that an invalidation is soon complete; between pieces and while it is stalled it holds nothing.

use std::ops::Range;

use hw::dma::write_physical;
use hw::{Dir, DmaFault, DmaPort, Iova, NotRam, Pa, Pinned, Requester};

use crate::memo;
use crate::smmu::Smmu;
use crate::stats::Access;
use crate::transaction::{Fault, Mapping, Transaction};
use crate::translate::Route;

/// Bytes after which an access is counted out and in again, so that an invalidation waits for a copy of tens of
/// microseconds at most. Counting in waits for all stores of the copy before, so smaller pieces make large copies
/// slower.
const PIECE_BYTES: u64 = 1024 * 1024;

/// An access within one aligned range of this size is within one page, whatever the granule.
const SMALLEST_PAGE: u64 = 0x1000;

impl Smmu {
    /// Makes an access: `copy` moves the bytes of a range of the buffer from or to a physical address.
    #[inline]
    fn access(
        &self,
        who: &Requester,
        at: Iova,
        len: usize,
        dir: Dir,
        mut copy: impl FnMut(Pa, Range<usize>) -> Result<(), NotRam>,
    ) -> Result<(), DmaFault> {
        let tx = self.begin(who, at, len, dir)?;
        let access = self.inflight.enter();
        // Most accesses are within a page that the thread has used before.
        if at.0 % SMALLEST_PAGE + len as u64 <= SMALLEST_PAGE
            && let Some(own) = access.own()
            && let Some(pa) = memo::view(&own.memo, self.age.now(), &tx).and_then(|view| view.pa(at.0))
        {
            access.add(&own.tlb_hits, 1);
            return self.copy(at, 0..len, Pa(pa), &mut copy);
        }
        self.access_in_pieces(who, tx, len, access, copy)
    }

    /// Makes an access in pieces. Pages that are contiguous in memory are copied at once.
    #[inline(never)]
    pub(crate) fn access_in_pieces<'a>(
        &'a self,
        who: &Requester,
        mut tx: Transaction,
        len: usize,
        mut access: Access<'a>,
        mut copy: impl FnMut(Pa, Range<usize>) -> Result<(), NotRam>,
    ) -> Result<(), DmaFault> {
        let at = Iova(tx.address);
        let mut done = 0;
        while done < len {
            let piece_end = len.min(done + PIECE_BYTES as usize);
            let (mut route, mut fault, mut hits) = (None, None, 0);
            let memo = access.own().map(|own| &own.memo);
            let view = memo.and_then(|memo| memo::view(memo, self.age.now(), &tx));
            // The bytes of the range that is not copied yet end at `found`.
            let (mut start, mut found) = (Pa(0), done);
            while found < piece_end {
                let address = at.0 + found as u64;
                let left = (piece_end - found) as u64;
                let (pa, bytes) = match view.and_then(|view| view.run(address, left)) {
                    Some((pa, bytes)) => {
                        hits += (address % SMALLEST_PAGE + bytes).div_ceil(SMALLEST_PAGE);
                        (pa, bytes)
                    }
                    None => {
                        tx.address = address;
                        match self.find_and_remember(&access, memo, &mut route, who, &tx) {
                            Ok(mapping) => (mapping.pa, mapping.len.min(PIECE_BYTES)),
                            Err(found) => {
                                fault = Some(found);
                                break;
                            }
                        }
                    }
                };
                if start.0 + (found - done) as u64 != pa || found == done {
                    self.copy(at, done..found, start, &mut copy)?;
                    (start, done) = (Pa(pa), found);
                }
                found = piece_end.min(found + bytes as usize);
            }
            access.add(&access.local().tlb_hits, hits);
            self.copy(at, done..found, start, &mut copy)?;
            done = found;
            let resets = match fault {
                Some(fault) => self.handle_fault(who, &mut tx, fault, access)?,
                None if done == len => return Ok(()),
                None => self.leave(access),
            };
            access = self.inflight.enter();
            if self.is_reset_since(resets) {
                return Err(self.aborted(at.0 + done as u64));
            }
        }
        Ok(())
    }

    /// Translates the first byte of a transaction. The route is looked up when it is first needed.
    #[inline(never)]
    fn find_and_remember(
        &self,
        access: &Access<'_>,
        memo: Option<&tcache::Memo>,
        route: &mut Option<Route>,
        who: &Requester,
        tx: &Transaction,
    ) -> Result<Mapping, Fault> {
        let watched;
        let tx = if self.describes_commands {
            watched = Transaction { command: who.command, ..*tx };
            &watched
        } else {
            tx
        };
        let route = match route {
            Some(route) => &*route,
            None => self.route(access, tx, route)?,
        };
        let mapping = self.translate(access, route, tx)?;
        // With a plan that names lookups nothing is remembered, so that each one comes here.
        if let Some(memo) = memo
            && !self.faults.watches_lookups()
        {
            memo::put(memo, route.age, tx, &mapping);
        }
        Ok(mapping)
    }

    #[inline]
    fn copy(
        &self,
        at: Iova,
        range: Range<usize>,
        pa: Pa,
        copy: &mut impl FnMut(Pa, Range<usize>) -> Result<(), NotRam>,
    ) -> Result<(), DmaFault> {
        if range.is_empty() || copy(pa, range.clone()).is_ok() {
            return Ok(());
        }
        self.nothing_there(at, range, pa, copy)
    }

    /// Part of a range of several pages is not RAM: the bytes before that part are transferred.
    #[cold]
    fn nothing_there(
        &self,
        at: Iova,
        range: Range<usize>,
        pa: Pa,
        copy: &mut impl FnMut(Pa, Range<usize>) -> Result<(), NotRam>,
    ) -> Result<(), DmaFault> {
        const PAGE: usize = SMALLEST_PAGE as usize;
        let mut done = range.start;
        while done < range.end {
            let here = pa.0 + (done - range.start) as u64;
            let end = range.end.min(done + PAGE - here as usize % PAGE);
            if copy(Pa(here), done..end).is_err() {
                return Err(self.aborted(at.0 + done as u64));
            }
            done = end;
        }
        Ok(())
    }

    /// The transaction of an access, if its addresses exist and its device has not given up.
    #[inline]
    fn begin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Transaction, DmaFault> {
        if len != 0 && at.0.checked_add(len as u64 - 1).is_none() {
            return Err(DmaFault::Aborted(at));
        }
        let tx = Transaction::untranslated(who, at.0, dir == Dir::Write);
        if who.waiter.needs_attention() {
            self.attend(who, &tx, len)?;
        }
        Ok(tx)
    }

    /// The device has given up, or the access is one that waited when the state was saved, and may have been answered.
    #[cold]
    fn attend(&self, who: &Requester, tx: &Transaction, len: usize) -> Result<(), DmaFault> {
        if who.waiter.is_cancelled() {
            return Err(DmaFault::Cancelled);
        }
        let aborted = self.state().stalls.take_abort(tx, len as u64);
        // The bytes before that address were transferred before the state was saved.
        aborted.map_or(Ok(()), |address| Err(self.aborted(address)))
    }
}

impl DmaPort for Smmu {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        self.access(who, at, out.len(), Dir::Read, |pa, range| {
            // Ranges are of `0..out.len()`.
            self.ram.read(pa, &mut out[range])
        })
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        self.access(who, at, data.len(), Dir::Write, |pa, range| {
            // Ranges are of `0..data.len()`.
            write_physical(&self.ram, &*self.msi, who.tag.stream, pa, &data[range])
        })
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        let mut tx = self.begin(who, at, len, dir)?;
        if len == 0 {
            return Ok(Pinned::new(Vec::new(), ()));
        }
        let mut resets = self.resets();
        'again: loop {
            let access = self.inflight.hold();
            if self.is_reset_since(resets) {
                return Err(self.aborted(tx.address));
            }
            let mut pieces: Vec<(Pa, usize)> = Vec::new();
            let mut done = 0;
            tx.address = at.0;
            let mut route = None;
            let route = match self.route(&access, &tx, &mut route) {
                Ok(route) => route,
                Err(fault) => {
                    resets = self.handle_fault(who, &mut tx, fault, access)?;
                    continue 'again;
                }
            };
            while done < len {
                tx.address = at.0 + done as u64;
                let mapping = match self.translate(&access, route, &tx) {
                    Ok(mapping) => mapping,
                    Err(fault) => {
                        // What is pinned so far may change while this waits: from the start again.
                        resets = self.handle_fault(who, &mut tx, fault, access)?;
                        continue 'again;
                    }
                };
                let bytes = mapping.len.min((len - done) as u64) as usize;
                if !self.ram.contains(Pa(mapping.pa), bytes as u64) {
                    return Err(self.aborted(tx.address));
                }
                match pieces.last_mut() {
                    Some((pa, so_far)) if pa.0 + *so_far as u64 == mapping.pa => *so_far += bytes,
                    _ => pieces.push((Pa(mapping.pa), bytes)),
                }
                done += bytes;
            }
            return Ok(Pinned::new(pieces, access));
        }
    }
}
