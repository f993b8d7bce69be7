//! Translation Requests of endpoints with a translation cache (3.9.1; the flow in 15.1).
//!
//! A request is translated as the accesses are that it asks permission for, one after the other. A permission whose access
//! would fault is not granted: no record, no stall. With split-stage ATS the address that it gets is an intermediate
//! physical one. Deliberately absent: requests for several translations.

use hw::Pa;
use hw::ats::{AtsRefusal, AtsTranslation, TranslationRequest};
use vmsa::{Access, AccessKind};

use crate::smmu::Smmu;
use crate::spec::event::EventType;
use crate::stats::Access as InflightAccess;
use crate::stream::Ats;
use crate::transaction::{Fault, Mapping, Transaction};
use crate::translate::Route;

/// The translation of a request to which nothing is granted.
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
    ) -> Result<Option<Mapping>, Fault> {
        let tx = Transaction { access: Access { kind, ..tx.access }, ..*tx };
        // `Smmu::route` refuses requests while translation is off, and those of streams without ATS.
        let config = route.config.as_ref().expect("a request has a route only while translation is on");
        let found = match config.ats {
            Ats::Full => self.translate(access, route, &tx),
            Ats::Split => self.translate_to_intermediate(access, config, &tx),
            Ats::Off => unreachable!("a request has a route only where its stream has ATS"),
        };
        match found {
            Ok(mapping) => Ok(Some(mapping)),
            Err(fault) if fault.is_of_translation() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The completion of a request.
    pub(crate) fn answer_request(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal> {
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
            // `Smmu::grant` makes a translation without permissions of them.
            Fault::Silent | Fault::Stalled(_) => unreachable!("faults of translation refuse no request"),
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
        // A table may change between the lookups. A permission at another address than the first one is not granted,
        // and the range is the smallest page that was found.
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
}
