//! A transaction as it comes in, and why one does not go on: the record that its fault has, and whether it stalls (7.3).

use hw::ats::TranslationRequest;
use hw::fault::Command;
use hw::{DmaTag, Pa, Pasid, Requester, StreamId};
use vmsa::{Access, AccessKind};

use crate::spec::cd::Cd;
use crate::spec::event::{Event, EventD0, EventD1, EventType, FETCH_ADDR, IPA, bad_ats_treq, class};
use crate::spec::ste::{SteD1, permscfg};
use crate::stage2::{Stage2, Stage2Fault};

/// What a transaction is to address translation services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An access with an untranslated address.
    Untranslated,
    /// A Translation Request.
    Request,
    /// An access with an address that an earlier request was given.
    Translated,
}

/// A transaction as it comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction {
    pub(crate) kind: Kind,
    pub(crate) sid: u32,
    pub(crate) ssid: Option<u32>,
    pub(crate) address: u64,
    pub(crate) access: Access,
    /// The device's command that it belongs to. Set only where a fault plan may ask for it.
    pub(crate) command: Option<Command>,
    /// The record of its stall has been delayed by a fault plan before.
    pub(crate) was_delayed: bool,
}

/// Where a transaction goes.
pub(crate) type Mapping = tcache::Place;

impl Transaction {
    /// The first byte of a device's access. Without a PASID it is an unprivileged access to data (PCIe Base, 6.20); writes
    /// are always of data.
    pub(crate) fn untranslated(who: &Requester, address: u64, is_write: bool) -> Self {
        let DmaTag { pasid, privileged, execute, .. } = who.tag;
        let kind = match (is_write, execute && pasid.is_some()) {
            (true, _) => AccessKind::Write,
            (false, true) => AccessKind::Execute,
            (false, false) => AccessKind::Read,
        };
        let access = Access { kind, privileged: privileged && pasid.is_some() };
        Self::new(Kind::Untranslated, who.tag.stream, pasid, address, access)
    }

    /// A Translation Request. Without a PASID it asks for unprivileged access to data only.
    pub(crate) fn request(request: &TranslationRequest) -> Self {
        let DmaTag { stream, pasid, privileged, execute } = request.tag;
        let kind = match (pasid.is_some() && execute, request.no_write) {
            (true, _) => AccessKind::Execute,
            (false, true) => AccessKind::Read,
            (false, false) => AccessKind::Write,
        };
        let access = Access { kind, privileged: privileged && pasid.is_some() };
        Self::new(Kind::Request, stream, pasid, request.address.0 & !0xfff, access)
    }

    /// An access with a translated address.
    pub(crate) fn translated(stream: StreamId, at: Pa, kind: AccessKind) -> Self {
        Self::new(Kind::Translated, stream, None, at.0, Access { kind, privileged: false })
    }

    /// A read of address 0, for a look at the configuration of a stream and SubstreamID alone.
    pub(crate) fn probe(sid: u32, ssid: Option<u32>) -> Self {
        let access = Access { kind: AccessKind::Read, privileged: false };
        let new = Self::new(Kind::Untranslated, StreamId(sid), None, 0, access);
        Self { ssid, ..new }
    }

    fn new(kind: Kind, stream: StreamId, pasid: Option<Pasid>, address: u64, access: Access) -> Self {
        let (sid, ssid) = (stream.0, pasid.map(Pasid::get));
        Self { kind, sid, ssid, address, access, command: None, was_delayed: false }
    }

    /// The transaction as its stream's PRIVCFG and INSTCFG make it; writes stay writes of data.
    #[inline]
    pub(crate) fn with_overrides(&self, d1: SteD1) -> Self {
        let mut tx = *self;
        match d1.privcfg() {
            permscfg::UNPRIVILEGED => tx.access.privileged = false,
            permscfg::PRIVILEGED => tx.access.privileged = true,
            _ => {}
        }
        match (tx.access.kind, d1.instcfg()) {
            (AccessKind::Execute, permscfg::DATA) => tx.access.kind = AccessKind::Read,
            (AccessKind::Read, permscfg::INSTRUCTION) => tx.access.kind = AccessKind::Execute,
            _ => {}
        }
        tx
    }

    /// A record with the StreamID and SubstreamID of the transaction and nothing else.
    pub(crate) fn event(&self, event: EventType) -> Event {
        let d0 = EventD0::new()
            .with_event(event)
            .with_ssv(self.ssid.is_some())
            .with_ssid(self.ssid.unwrap_or(0))
            .with_sid(self.sid);
        Event { d0, d1: EventD1::new(), d2: 0, d3: 0 }
    }

    /// A record that also has the kind of access and the input address.
    fn access_event(&self, event: EventType, class: u8) -> Event {
        let d1 = EventD1::new()
            .with_pnu(self.access.privileged)
            .with_ind(self.access.kind == AccessKind::Execute)
            .with_rnw(self.access.kind != AccessKind::Write)
            .with_class(class);
        Event { d1, d2: self.address, ..self.event(event) }
    }

    /// F_BAD_ATS_TREQ (7.3.6).
    pub(crate) fn bad_request(&self, request: &TranslationRequest) -> Event {
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

/// Why a transaction does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Aborted without a record.
    Silent,
    /// The stream is blocked, by STE.Config or by GBPA: aborted without a record.
    Blocked,
    /// Aborted with a record.
    Recorded(Event),
    /// Recorded, and stalled until software answers.
    Stalled(Event),
}

impl Fault {
    /// A configuration structure could not be read.
    pub(crate) fn of_fetch(tx: &Transaction, event: EventType, address: u64) -> Self {
        Self::Recorded(Event { d3: address & FETCH_ADDR, ..tx.event(event) })
    }

    /// C_BAD_SUBSTREAMID. The record has the SubstreamID, but SSV is 0 (7.3.9).
    pub(crate) fn bad_substream(tx: &Transaction) -> Self {
        let event = tx.event(EventType::C_BAD_SUBSTREAMID);
        Self::Recorded(Event { d0: event.d0.with_ssv(false), ..event })
    }

    /// The fault of a request or a translated access that the stream does not allow (7.3.6, 7.3.8).
    #[cold]
    pub(crate) fn not_allowed(tx: &Transaction) -> Self {
        let d1 = EventD1::new().with_rnw(tx.access.kind == AccessKind::Read);
        let event = tx.event(EventType::F_TRANSL_FORBIDDEN);
        Self::Recorded(Event { d1, d2: tx.address, ..event })
    }

    /// The input address is beyond the address space, and no table translates it.
    #[cold]
    pub(crate) fn address_size(tx: &Transaction) -> Self {
        Self::Recorded(tx.access_event(EventType::F_ADDR_SIZE, class::IN))
    }

    /// The four faults that the S and R bits of a context govern (5.5).
    #[cold]
    pub(crate) fn of_stage1(tx: &Transaction, cd: &Cd, event: EventType) -> Self {
        Self::governed(cd.d0.s(), cd.d0.r(), tx.access_event(event, class::IN))
    }

    /// A fault of stage 2: the same four, governed by S2S and S2R.
    #[cold]
    pub(crate) fn of_stage2(tx: &Transaction, stage2: &Stage2, fault: &Stage2Fault) -> Self {
        let event = tx.access_event(fault.event, fault.class);
        let event = Event { d1: event.d1.with_s2(true), ..event };
        if fault.event == EventType::F_WALK_EABT {
            return Self::Recorded(Event { d3: fault.fetch_addr & FETCH_ADDR, ..event });
        }
        let is_table_read =
            fault.event == EventType::F_PERMISSION && fault.class == class::TT && !fault.is_table_write;
        let event = Event { d1: event.d1.with_ttrnw(is_table_read), d3: fault.ipa & IPA, ..event };
        Self::governed(stage2.d2.s2s(), stage2.d2.s2r(), event)
    }

    /// A table of stage 1 could not be accessed.
    #[cold]
    pub(crate) fn of_table(tx: &Transaction, at: u64) -> Self {
        let event = tx.access_event(EventType::F_WALK_EABT, class::TT);
        Self::Recorded(Event { d3: at & FETCH_ADDR, ..event })
    }

    fn governed(stall: bool, record: bool, event: Event) -> Self {
        match (stall, record) {
            (true, _) => Self::Stalled(event),
            (false, true) => Self::Recorded(event),
            (false, false) => Self::Silent,
        }
    }

    /// Whether it is one of the four faults that S and R govern. Only for requests, which have no other silent faults.
    pub(crate) fn is_of_translation(&self) -> bool {
        match self {
            Self::Silent | Self::Stalled(_) => true,
            Self::Blocked => false,
            Self::Recorded(event) => event.d0.event().is_of_translation(),
        }
    }
}
