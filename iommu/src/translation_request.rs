//! What endpoints with a translation cache may do: translation requests and translated accesses (3.9.1; the flow
//! in 15.1).
//!
//! A request is translated as the accesses are that it asks permission for, one after the other. Where one of them
//! would fault, it is not granted: no record, no stall. With split-stage ATS the address that it gets is an intermediate
//! physical one. Deliberately absent: requests for several translations.

use std::ops::Range;
use std::sync::Weak;

use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, AtsTranslation, InvalidateTag, PageRequest, Stamp, TranslatedFault,
    TranslationRequest,
};
use hw::dma::write_physical;
use hw::{DmaFault, DmaTag, Iova, NotRam, Pa, RamSpan, Requester, StreamId};
use vmsa::{Access, AccessKind};

use crate::Smmu;
use crate::config::Ats;
use crate::spec::event::{Event, EventD1, EventType, bad_ats_treq};
use crate::stats::{Access as InflightAccess, count};
use crate::translate::{Fault, Kind, Mapping, Mode, Route, Transaction};

impl Transaction {
    fn request(request: &TranslationRequest) -> Self {
        let DmaTag { stream, pasid, privileged, execute } = request.tag;
        // Without a PASID nothing but data is asked for, without privilege.
        let kind = match (pasid.is_some() && execute, request.no_write) {
            (true, _) => AccessKind::Execute,
            (false, true) => AccessKind::Read,
            (false, false) => AccessKind::Write,
        };
        Self {
            kind: Kind::Request,
            sid: stream.0,
            ssid: pasid.map(hw::Pasid::get),
            address: request.address.0 & !0xfff,
            access: Access { kind, privileged: privileged && pasid.is_some() },
            command: None,
            was_delayed: false,
        }
    }

    fn translated(stream: StreamId, at: Pa, kind: AccessKind) -> Self {
        let access = Access { kind, privileged: false };
        Self {
            kind: Kind::Translated,
            sid: stream.0,
            ssid: None,
            address: at.0,
            access,
            command: None,
            was_delayed: false,
        }
    }

    /// The fault of a request or a translated access that the stream does not allow (7.3.6, 7.3.8).
    #[cold]
    pub(crate) fn not_allowed(&self) -> Fault {
        let d1 = EventD1::new().with_rnw(self.access.kind == AccessKind::Read);
        let event = self.event(EventType::F_TRANSL_FORBIDDEN);
        Fault::Recorded(Event { d1, d2: self.address, ..event })
    }

    fn bad_request(&self, request: &TranslationRequest) -> Event {
        let bit = |condition, bit| if condition { bit } else { 0 };
        let d1 = bad_ats_treq::SPAN_1
            | bad_ats_treq::R
            | bit(!request.no_write, bad_ats_treq::W)
            | bit(self.access.kind == AccessKind::Execute, bad_ats_treq::X)
            | bit(self.access.privileged, bad_ats_treq::PRIV);
        let event = self.event(EventType::F_BAD_ATS_TREQ);
        Event { d1: EventD1::from_bits(d1), d2: self.address, ..event }
    }
}

/// What a request comes to where nothing is granted.
fn nothing(request: &TranslationRequest) -> AtsTranslation {
    AtsTranslation {
        address: Pa(0),
        size_log2: 12,
        read: false,
        write: false,
        execute: false,
        privileged: request.tag.pasid.is_some() && request.tag.privileged,
        global: false,
        untranslated_only: false,
    }
}

/// What the address of a translated access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translated {
    Physical,
    /// Stage 2 is left to do.
    Intermediate,
}

impl Smmu {
    /// Records an event of a transaction, unless it is one that requests and translated accesses don't cause (3.9.1.2,
    /// 3.9.1.3).
    pub(crate) fn record_for(&self, tx: &Transaction, event: &Event) {
        let mut state = self.state();
        let cr2 = state.cr2();
        let is_recorded = match (tx.kind, event.d0.event()) {
            (Kind::Untranslated, _) => true,
            (_, EventType::F_BAD_ATS_TREQ | EventType::F_TRANSL_FORBIDDEN) => true,
            // RECINVSID is not asked for translated accesses.
            (Kind::Request, EventType::C_BAD_STREAMID) => cr2.rec_cfg_ats() && cr2.recinvsid(),
            (
                Kind::Request,
                EventType::F_TRANSLATION
                | EventType::F_ADDR_SIZE
                | EventType::F_ACCESS
                | EventType::F_PERMISSION,
            ) => false,
            // Stage 2 of split-stage ATS is an ordinary one.
            (Kind::Translated, event) if event.0 >= EventType::F_WALK_EABT.0 => true,
            _ => cr2.rec_cfg_ats(),
        };
        if is_recorded {
            self.record(&mut state, event);
        }
    }

    /// Where an access of this kind would go, or `None` if it would fault.
    fn granted(
        &self,
        access: &InflightAccess<'_>,
        route: &Route,
        tx: &Transaction,
        kind: AccessKind,
    ) -> Result<Option<Mapping>, Fault> {
        let tx = Transaction { access: Access { kind, ..tx.access }, ..*tx };
        let found = match &route.config {
            Some(config) if config.ats == Ats::Split => self.translate_to_intermediate(access, config, &tx),
            _ => self.translate(access, route, &tx),
        };
        match found {
            Ok(mapping) => Ok(Some(mapping)),
            Err(fault) if fault.is_of_translation() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn answer(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        let tx = Transaction::request(request);
        let access = self.inflight.enter();
        self.grant(&access, &tx, request).map_err(|fault| match fault {
            Fault::Blocked => AtsRefusal::UnsupportedRequest,
            Fault::Recorded(event) if event.d0.event() == EventType::F_TRANSL_FORBIDDEN => {
                self.record_for(&tx, &tx.bad_request(request));
                AtsRefusal::UnsupportedRequest
            }
            Fault::Recorded(event) => {
                self.record_for(&tx, &event);
                AtsRefusal::CompleterAbort
            }
            Fault::Silent | Fault::Stalled(_) => AtsRefusal::CompleterAbort,
        })
    }

    fn grant(
        &self,
        access: &InflightAccess<'_>,
        tx: &Transaction,
        request: &TranslationRequest,
    ) -> Result<AtsTranslation, Fault> {
        let mut route = None;
        let route = match self.route(access, tx, &mut route) {
            // Stage 2 has refused the context descriptor.
            Err(fault) if fault.is_of_translation() => return Ok(nothing(request)),
            route => route?,
        };
        let granted = |kind| self.granted(access, route, tx, kind);
        let read = granted(AccessKind::Read)?;
        let write = if request.no_write { None } else { granted(AccessKind::Write)? };
        let Some(found) = read.or(write) else { return Ok(nothing(request)) };
        // Without reading there is no execution.
        let execute = match tx.access.kind {
            AccessKind::Execute if read.is_some() => granted(AccessKind::Execute)?,
            _ => None,
        };
        // A table that changes meanwhile may give another address, then only what was found first counts; or it may give
        // a smaller page, then more than that is not granted.
        let same = |other: Option<Mapping>| other.filter(|other| other.pa == found.pa);
        let (write, execute) = (same(write), same(execute));
        let size_log2 = [write, execute]
            .into_iter()
            .flatten()
            .fold(found.size_log2, |least, other| least.min(other.size_log2));
        Ok(AtsTranslation {
            address: Pa(found.pa & (u64::MAX << size_log2)),
            size_log2: size_log2 as u8,
            read: read.is_some(),
            write: write.is_some(),
            execute: execute.is_some(),
            ..nothing(request)
        })
    }

    /// Counts a translated access in, if its address is a physical one of RAM and still good, and this thread has found
    /// accesses of its stream to be admitted. What can be found out before is: the access is short.
    #[inline(always)]
    fn enter_admitted(
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
            return Err(self.aborted(tx));
        }
        let end = tx.address.checked_add(len as u64);
        let config = route.and_then(|route| route.config);
        if end.is_some() && config.is_some_and(|config| config.stage2.is_some()) {
            return Ok(Translated::Intermediate);
        }
        if !self.is_physical(end) {
            return Err(self.aborted(tx));
        }
        if let Some(own) = access.own() {
            own.admitted.set(age, tx.sid);
        }
        Ok(Translated::Physical)
    }

    #[cold]
    fn read_checked(
        &self,
        stream: StreamId,
        at: Pa,
        out: &mut [u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Read);
        self.access_translated(tx, out.len(), from, |pa, range| {
            out.get_mut(range).map_or(Ok(()), |piece| self.ram.read(pa, piece))
        })
    }

    #[cold]
    fn write_checked(
        &self,
        stream: StreamId,
        at: Pa,
        data: &[u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Write);
        self.access_translated(tx, data.len(), from, |pa, range| {
            let piece = data.get(range).unwrap_or_default();
            write_physical(&self.ram, &*self.msi, stream, pa, piece)
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
            Translated::Physical => copy(Pa(tx.address), 0..len).map_err(|_| self.aborted(&tx))?,
            Translated::Intermediate => {
                let who = Requester::new(DmaTag::untagged(StreamId(tx.sid)));
                self.access_in_pieces(&who, tx, len, self.inflight.enter(), copy)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn aborted(&self, tx: &Transaction) -> DmaFault {
        count(&self.stats.aborts);
        DmaFault::Aborted(Iova(tx.address))
    }
}

impl AtsPort for Smmu {
    fn attach(&self, stream: StreamId, endpoint: Weak<dyn AtsEndpoint>) {
        self.ats.attach(stream.0, endpoint);
    }

    fn request_translation(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        count(&self.stats.translation_requests);
        self.answer(request)
    }

    fn read_translated_if(
        &self,
        stream: StreamId,
        at: Pa,
        out: &mut [u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        if let Some((_access, span)) = self.enter_admitted(stream, at, out.len(), from) {
            span.read(out);
            return Ok(());
        }
        self.read_checked(stream, at, out, from)
    }

    fn write_translated_if(
        &self,
        stream: StreamId,
        at: Pa,
        data: &[u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault> {
        if let Some((_access, span)) = self.enter_admitted(stream, at, data.len(), from) {
            span.write(data);
            return Ok(());
        }
        self.write_checked(stream, at, data, from)
    }

    fn await_translated(&self) {
        self.inflight.wait();
    }

    fn request_page(&self, request: &PageRequest) {
        self.take_page_request(request);
    }

    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag) {
        self.complete_invalidation(stream.0, tag);
    }
}
