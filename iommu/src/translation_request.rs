//! What endpoints with a translation cache may do: translation requests and translated accesses (3.9.1; the flow
//! in 15.1).
//!
//! A request is translated as the accesses are that it asks permission for, one after the other. Where one of them
//! would fault, it is not granted: no record, no stall. With split-stage ATS the address that it gets is an intermediate
//! physical one. Deliberately absent: requests for several translations.

use std::sync::Weak;

use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, AtsTranslation, InvalidateTag, PageRequest, TranslationRequest,
};
use hw::dma::write_physical;
use hw::{DmaFault, DmaTag, Iova, Pa, Requester, StreamId};
use vmsa::{Access, AccessKind};

use crate::Smmu;
use crate::config::Ats;
use crate::memo;
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
        let route = match self.route(access, tx) {
            // Stage 2 has refused the context descriptor.
            Err(fault) if fault.is_of_translation() => return Ok(nothing(request)),
            route => route?,
        };
        let granted = |kind| self.granted(access, &route, tx, kind);
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

    /// Whether a translated access may go on.
    #[inline]
    fn admit(
        &self,
        access: &InflightAccess<'_>,
        tx: &Transaction,
        len: usize,
    ) -> Result<Translated, DmaFault> {
        let age = self.age.now();
        let is_in_range = |end: Option<u64>| end.is_some_and(|end| end <= self.features.output_mask() + 1);
        let end = tx.address.checked_add(len as u64);
        if let Some(own) = access.own()
            && memo::has_admission(&own.memo, age, tx)
            && is_in_range(end)
        {
            return Ok(Translated::Physical);
        }
        let is_unchecked = self.mode() == Mode::Translate && !self.checks_translated();
        let config =
            match if is_unchecked { Ok(None) } else { self.route(access, tx).map(|route| route.config) } {
                Ok(config) => config,
                Err(fault) => {
                    if let Fault::Recorded(event) = fault {
                        self.record_for(tx, &event);
                    }
                    return Err(self.aborted(tx));
                }
            };
        if end.is_some() && config.is_some_and(|config| config.stage2.is_some()) {
            return Ok(Translated::Intermediate);
        }
        if !is_in_range(end) {
            return Err(self.aborted(tx));
        }
        if let Some(own) = access.own() {
            memo::put_admission(&own.memo, age, tx);
        }
        Ok(Translated::Physical)
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

    fn read_translated(&self, stream: StreamId, at: Pa, out: &mut [u8]) -> Result<(), DmaFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Read);
        let access = self.inflight.enter();
        match self.admit(&access, &tx, out.len())? {
            Translated::Physical => self.ram.read(at, out).map_err(|_| self.aborted(&tx)),
            Translated::Intermediate => {
                let who = Requester::new(DmaTag::untagged(stream));
                self.access_in_pieces(&who, tx, out.len(), access, |pa, range| {
                    out.get_mut(range).map_or(Ok(()), |piece| self.ram.read(pa, piece))
                })
            }
        }
    }

    fn write_translated(&self, stream: StreamId, at: Pa, data: &[u8]) -> Result<(), DmaFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Write);
        let access = self.inflight.enter();
        let write = |pa, piece: &[u8]| write_physical(&self.ram, &*self.msi, stream, pa, piece);
        match self.admit(&access, &tx, data.len())? {
            Translated::Physical => write(at, data).map_err(|_| self.aborted(&tx)),
            Translated::Intermediate => {
                let who = Requester::new(DmaTag::untagged(stream));
                self.access_in_pieces(&who, tx, data.len(), access, |pa, range| {
                    data.get(range).map_or(Ok(()), |piece| write(pa, piece))
                })
            }
        }
    }

    fn request_page(&self, request: &PageRequest) {
        self.take_page_request(request);
    }

    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag) {
        self.complete_invalidation(stream.0, tag);
    }
}
