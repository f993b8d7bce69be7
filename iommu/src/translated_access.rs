//! Accesses with translated addresses, by endpoints with a translation cache (3.9.1; the flow in 15.1).

use std::ops::Range;
use std::sync::Arc;

use hw::ats::{Stamp, TranslatedFault};
use hw::dma::write_physical;
use hw::{DmaFault, DmaTag, NotRam, Pa, RamSpan, Requester, StreamId};
use vmsa::AccessKind;

use crate::smmu::Smmu;
use crate::state::Mode;
use crate::stats::Access as InflightAccess;
use crate::transaction::{Fault, Transaction};

/// What the address of a translated access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translated {
    Physical,
    /// Stage 2 is left to do.
    Intermediate,
}

impl Smmu {
    /// Counts a translated access in, if its address is in RAM and still valid, and translated accesses of its stream
    /// have been admitted for this thread before. All that can be checked earlier is, so that the access is counted
    /// in for a short time.
    #[inline(always)]
    pub(crate) fn enter_admitted(
        &self,
        stream: StreamId,
        at: Pa,
        len: usize,
        from: Stamp<'_>,
    ) -> Option<(InflightAccess<'_>, RamSpan<'_>)> {
        let own = self.inflight.own()?;
        let age = own.local().admitted.age_of(stream.0)?;
        let is_physical = self.is_physical(at.0.checked_add(len as u64));
        let span = is_physical.then(|| self.ram.span(at, len))??;
        let access = own.enter();
        (from.is_good() && self.age.now() == age).then_some((access, span))
    }

    /// Whether addresses up to this end are physical ones.
    #[inline]
    fn is_physical(&self, end: Option<u64>) -> bool {
        end.is_some_and(|end| end <= self.output_end)
    }

    /// Whether a translated access may go on.
    fn admit(
        &self,
        access: &InflightAccess<'_>,
        tx: &Transaction,
        len: usize,
    ) -> Result<Translated, DmaFault> {
        let age = self.age.now();
        let is_unchecked = self.mode() == Mode::Translate && !self.checks_translated();
        let mut route = None;
        if !is_unchecked && let Err(fault) = self.route(access, tx, &mut route) {
            if let Fault::Recorded(event) = fault {
                self.record_for(tx, &event);
            }
            return Err(self.aborted(tx.address));
        }
        let end = tx.address.checked_add(len as u64);
        let config = route.and_then(|route| route.config);
        if end.is_some() && config.is_some_and(|config| config.stage2.is_some()) {
            return Ok(Translated::Intermediate);
        }
        if !self.is_physical(end) {
            return Err(self.aborted(tx.address));
        }
        if let Some(own) = access.own() {
            own.admitted.set(age, tx.sid);
        }
        Ok(Translated::Physical)
    }

    #[cold]
    pub(crate) fn read_checked(
        &self,
        stream: StreamId,
        at: Pa,
        out: &mut [u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Read);
        self.access_translated(tx, out.len(), from, |pa, range| {
            // Ranges are of `0..out.len()`.
            self.ram.read(pa, &mut out[range])
        })
    }

    #[cold]
    pub(crate) fn write_checked(
        &self,
        stream: StreamId,
        at: Pa,
        data: &[u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Write);
        self.access_translated(tx, data.len(), from, |pa, range| {
            // Ranges are of `0..data.len()`.
            write_physical(&self.ram, &*self.msi, stream, pa, &data[range])
        })
    }

    /// Makes a translated access. It is counted in throughout: a stream with split-stage ATS never stalls (5.2, STE.EATS).
    fn access_translated(
        &self,
        tx: Transaction,
        len: usize,
        from: Stamp<'_>,
        mut copy: impl FnMut(Pa, Range<usize>) -> Result<(), NotRam>,
    ) -> Result<(), TranslatedFault> {
        let access = self.inflight.enter();
        if !from.is_good() {
            return Err(TranslatedFault::OutOfDate);
        }
        match self.admit(&access, &tx, len)? {
            Translated::Physical => copy(Pa(tx.address), 0..len).map_err(|_| self.aborted(tx.address))?,
            Translated::Intermediate => {
                let tag = DmaTag::untagged(StreamId(tx.sid));
                let who = Requester { tag, waiter: Arc::clone(&self.never_waits), command: None };
                self.access_in_pieces(&who, tx, len, self.inflight.enter(), copy)?;
            }
        }
        Ok(())
    }
}
