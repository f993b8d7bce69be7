//! What endpoints with a translation cache may do: translation requests and translated accesses (3.9.1; the flow
//! in 15.1).
//!
//! A request is translated as the accesses are that it asks permission for, one after the other. Where one of them
//! would fault, it is not granted: no record, no stall. Deliberately absent: requests for several translations.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use hw::ats::{
    AtsEndpoint, AtsPort, AtsRefusal, AtsTranslation, InvalidateTag, PageRequest, TranslationRequest,
};
use hw::dma::write_physical;
use hw::{DmaFault, DmaTag, Iova, Pa, StreamId};
use vmsa::{Access, AccessKind};

use crate::Smmu;
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

impl Smmu {
    /// Where an access of this kind would go, or `None` if it would fault.
    fn granted(
        &self,
        access: &InflightAccess<'_>,
        route: &Route,
        tx: &Transaction,
        kind: AccessKind,
    ) -> Result<Option<Mapping>, AtsRefusal> {
        let tx = Transaction { access: Access { kind, ..tx.access }, ..*tx };
        match self.translate(access, route, &tx) {
            Ok(mapping) => Ok(Some(mapping)),
            Err(Fault::Recorded(event)) if event.d0.event() == EventType::F_WALK_EABT => {
                Err(AtsRefusal::CompleterAbort)
            }
            Err(_) => Ok(None),
        }
    }

    fn answer(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
        let tx = Transaction::request(request);
        let access = self.inflight.enter();
        let refused = |fault| match fault {
            Fault::Blocked => AtsRefusal::UnsupportedRequest,
            Fault::Recorded(event) if event.d0.event() == EventType::F_TRANSL_FORBIDDEN => {
                self.record(&mut self.state(), &tx.bad_request(request));
                AtsRefusal::UnsupportedRequest
            }
            // Errors of the configuration aren't recorded: ATSRECERR is 0.
            _ => AtsRefusal::CompleterAbort,
        };
        if self.mode() != Mode::Translate {
            return Err(refused(tx.not_allowed()));
        }
        let route = match self.route(&access, &tx) {
            Ok(route) => route,
            // Stage 2 has refused the context descriptor.
            Err(fault) if fault.is_of_translation() => return Ok(nothing(request)),
            Err(fault) => return Err(refused(fault)),
        };
        let Some(read) = self.granted(&access, &route, &tx, AccessKind::Read)? else {
            return Ok(nothing(request));
        };
        // A table that changes meanwhile may give another address: then only what was found first counts.
        let also = |kind| -> Result<bool, AtsRefusal> {
            Ok(self.granted(&access, &route, &tx, kind)?.is_some_and(|other| other.pa == read.pa))
        };
        let write = !request.no_write && also(AccessKind::Write)?;
        let execute = tx.access.kind == AccessKind::Execute && also(AccessKind::Execute)?;
        let start = u64::MAX << read.size_log2;
        Ok(AtsTranslation {
            address: Pa(read.pa & start),
            size_log2: read.size_log2 as u8,
            read: true,
            write,
            execute,
            ..nothing(request)
        })
    }

    /// Whether a translated access may go on.
    fn admit(&self, access: &InflightAccess<'_>, tx: &Transaction, len: usize) -> Result<(), DmaFault> {
        let fault = match self.mode() {
            Mode::Translate if !self.checks_translated.load(Ordering::SeqCst) => None,
            Mode::Translate => self.route(access, tx).err(),
            Mode::Bypass | Mode::Abort => Some(tx.not_allowed()),
        };
        // Of the configuration's errors none is recorded: ATSRECERR is 0.
        let is_recorded = |event: &Event| event.d0.event() == EventType::F_TRANSL_FORBIDDEN;
        match fault {
            None => {}
            Some(Fault::Recorded(event)) if is_recorded(&event) => {
                // No SubstreamID in this record.
                self.record(&mut self.state(), &event);
                return self.aborted(tx);
            }
            Some(_) => return self.aborted(tx),
        }
        let end = tx.address.checked_add(len as u64);
        if end.is_none_or(|end| end > self.features.output_mask() + 1) {
            return self.aborted(tx);
        }
        Ok(())
    }

    fn aborted(&self, tx: &Transaction) -> Result<(), DmaFault> {
        count(&self.stats.aborts);
        Err(DmaFault::Aborted(Iova(tx.address)))
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
        self.admit(&access, &tx, out.len())?;
        self.ram.read(at, out).or_else(|_| self.aborted(&tx))
    }

    fn write_translated(&self, stream: StreamId, at: Pa, data: &[u8]) -> Result<(), DmaFault> {
        let tx = Transaction::translated(stream, at, AccessKind::Write);
        let access = self.inflight.enter();
        self.admit(&access, &tx, data.len())?;
        write_physical(&self.ram, &*self.msi, stream, at, data).or_else(|_| self.aborted(&tx))
    }

    fn request_page(&self, request: &PageRequest) {
        self.take_page_request(request);
    }

    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag) {
        self.complete_invalidation(stream.0, tag);
    }
}
