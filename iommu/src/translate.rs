//! One transaction's way from its input address to a physical address or a fault (chapter 3; the flow in 15.1).

use std::sync::atomic::Ordering;

use hw::{Requester, StreamId};
use vmsa::{Access, AccessKind, Half, Permissions, Stage1Rules, WalkFaultKind, WalkParams, in_range, walk};

use crate::Smmu;
use crate::config::{self, Stream, StreamConfig};
use crate::config_cache::Part;
use crate::spec::cd::Cd;
use crate::spec::event::{Event, EventD0, EventD1, EventType, FETCH_ADDR, class};
use crate::stats::Access as InflightAccess;
use crate::tlb::{Space, Translation};

/// What a transaction is, as far as address translation services go.
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
}

impl Transaction {
    /// Without a PASID a transaction is unprivileged data (PCIe Base, 6.20); writes are always data.
    pub(crate) fn new(who: &Requester, address: u64, is_write: bool) -> Self {
        let hw::DmaTag { stream: StreamId(sid), pasid, privileged, execute } = who.tag;
        let kind = match (is_write, execute && pasid.is_some()) {
            (true, _) => AccessKind::Write,
            (false, true) => AccessKind::Execute,
            (false, false) => AccessKind::Read,
        };
        let access = Access { kind, privileged: privileged && pasid.is_some() };
        Self { kind: Kind::Untranslated, sid, ssid: pasid.map(hw::Pasid::get), address, access }
    }

    /// Which configuration it takes.
    fn part(&self) -> Part {
        match self.kind {
            Kind::Translated => Part::Translated,
            Kind::Untranslated | Kind::Request => Part::Context(self.ssid),
        }
    }

    /// A record that says whose transaction it was and no more.
    pub(crate) fn event(&self, event: EventType) -> Event {
        let d0 = EventD0::new()
            .with_event(event)
            .with_ssv(self.ssid.is_some())
            .with_ssid(self.ssid.unwrap_or(0))
            .with_sid(self.sid);
        Event { d0, d1: EventD1::new(), d2: 0, d3: 0 }
    }

    /// A record that also tells the access and its address.
    fn access_event(&self, event: EventType, class: u8) -> Event {
        let d1 = EventD1::new()
            .with_pnu(self.access.privileged)
            .with_ind(self.access.kind == AccessKind::Execute)
            .with_rnw(self.access.kind != AccessKind::Write)
            .with_class(class);
        Event { d1, d2: self.address, ..self.event(event) }
    }
}

/// Why a transaction does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Aborted without a record.
    Silent,
    /// The stream is shut, by STE.Config or by GBPA: aborted without a record.
    Blocked,
    /// Aborted with a record.
    Recorded(Event),
    /// Recorded, and held until the guest answers.
    Stalled(Event),
}

/// Where a transaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) pa: u64,
    /// Bytes from there on that go the same way; above zero.
    pub(crate) len: u64,
    /// Log2 of the bytes of the aligned range around it that does.
    pub(crate) size_log2: u32,
}

/// What becomes of transactions as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// SMMUEN is 0, GBPA.ABORT is 0.
    Bypass,
    /// SMMUEN is 0, GBPA.ABORT is 1.
    Abort,
    /// SMMUEN is 1.
    Translate,
}

impl Mode {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Bypass,
            1 => Self::Abort,
            _ => Self::Translate,
        }
    }
}

/// Which way the transactions of one stream and SubstreamID go: what is looked up once for many pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Everything found on this route is at least this new.
    age: u64,
    /// `None` while translation is off and transactions pass.
    config: Option<StreamConfig>,
}

impl Smmu {
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_bits(self.mode.load(Ordering::SeqCst))
    }

    /// Finds the route of a transaction. It is good as long as `access` lives.
    #[inline]
    pub(crate) fn route(&self, access: &InflightAccess<'_>, tx: &Transaction) -> Result<Route, Fault> {
        // First of all: everything looked up below is at least this new.
        let age = self.age.now();
        let config = match self.mode() {
            Mode::Bypass => None,
            Mode::Abort => return Err(Fault::Blocked),
            Mode::Translate => {
                let stream = match self.configs.get(tx.sid, tx.part()) {
                    Some(stream) => stream,
                    None => self.fetch_config(access, tx, age)?,
                };
                if tx.kind == Kind::Request && !stream.ats {
                    return Err(tx.not_allowed());
                }
                Some(stream.config)
            }
        };
        Ok(Route { age, config })
    }

    /// Translates the first byte of a transaction on its route.
    #[inline]
    pub(crate) fn translate(
        &self,
        access: &InflightAccess<'_>,
        route: &Route,
        tx: &Transaction,
    ) -> Result<Mapping, Fault> {
        match &route.config {
            Some(StreamConfig::Stage1(cd)) => self.stage1(access, tx, route.age, cd),
            Some(StreamConfig::Bypass) => self
                .bypass(tx)
                .ok_or_else(|| Fault::Recorded(tx.access_event(EventType::F_ADDR_SIZE, class::IN))),
            None => self.bypass(tx).ok_or(Fault::Silent),
        }
    }

    /// The address itself, if there is such a physical address.
    fn bypass(&self, tx: &Transaction) -> Option<Mapping> {
        let end = self.features.output_mask() + 1;
        let size_log2 = self.features.output.bits();
        (tx.address < end).then(|| Mapping { pa: tx.address, len: end - tx.address, size_log2 })
    }

    #[cold]
    fn fetch_config(&self, access: &InflightAccess<'_>, tx: &Transaction, age: u64) -> Result<Stream, Fault> {
        access.add(&access.local().config_fetches, 1);
        let table = self.state().stream_table(&self.features);
        let stream = config::fetch(&self.ram, &self.features, &table, tx)?;
        self.configs.insert(tx.sid, tx.part(), age, stream);
        Ok(stream)
    }

    #[inline]
    fn stage1(
        &self,
        access: &InflightAccess<'_>,
        tx: &Transaction,
        age: u64,
        cd: &Cd,
    ) -> Result<Mapping, Fault> {
        let va = tx.address;
        let half = Half::of(va);
        let (disabled, tsz, tbi) = match half {
            Half::Low => (cd.d0.epd0(), cd.d0.t0sz(), cd.d0.tbi0()),
            Half::High => (cd.d0.epd1(), cd.d0.t1sz(), cd.d0.tbi1()),
        };
        if disabled || !in_range(va, 64 - u32::from(tsz), tbi) {
            return Err(translation_fault(tx, cd, EventType::F_TRANSLATION));
        }
        let space = Space { asid: cd.d0.asid() };
        let allowed = |permissions: Permissions| permissions.allow(tx.access, cd.d0.pan());
        // Too few permissions in the TLB aren't believed: the table may grant more by now, and software need not
        // invalidate when it grants.
        if let Some(found) = self.tlb.get(space, va)
            && allowed(found.permissions)
        {
            access.add(&access.local().tlb_hits, 1);
            return Ok(mapping(va, &found));
        }
        access.add(&access.local().walks, 1);
        let found = self.walk(tx, cd, half)?;
        if !allowed(found.permissions) {
            return Err(translation_fault(tx, cd, EventType::F_PERMISSION));
        }
        self.tlb.insert(space, va, age, found);
        Ok(mapping(va, &found))
    }

    fn walk(&self, tx: &Transaction, cd: &Cd, half: Half) -> Result<Translation, Fault> {
        let d0 = cd.d0;
        let (tsz, granule, base) = match half {
            Half::Low => (d0.t0sz(), config::tg0(d0.tg0()), cd.d1),
            Half::High => (d0.t1sz(), config::tg1(d0.tg1()), cd.d2),
        };
        // A half that is walked has a legal granule: `config::fetch`.
        let granule = granule.unwrap_or_default();
        let output_bits = config::output_bits(&self.features, d0);
        let params = WalkParams {
            hierarchical_attrs_disabled: base.had(),
            access_flag_ignored: d0.affd(),
            ..WalkParams::stage1(base.ttb(), granule, 64 - u32::from(tsz), output_bits)
        };
        match walk(&params, tx.address, &*self.ram) {
            Ok(leaf) => {
                let rules = Stage1Rules { wxn: d0.wxn(), has_el0: true };
                Ok(Translation::of(&leaf, Permissions::stage1(leaf.attributes, rules)))
            }
            Err(fault) => Err(match fault.kind {
                WalkFaultKind::ExternalAbort => {
                    let event = tx.access_event(EventType::F_WALK_EABT, class::TT);
                    Fault::Recorded(Event { d3: fault.descriptor_pa & FETCH_ADDR, ..event })
                }
                WalkFaultKind::Translation => translation_fault(tx, cd, EventType::F_TRANSLATION),
                WalkFaultKind::AddressSize => translation_fault(tx, cd, EventType::F_ADDR_SIZE),
                WalkFaultKind::AccessFlag => translation_fault(tx, cd, EventType::F_ACCESS),
            }),
        }
    }
}

#[inline]
fn mapping(va: u64, found: &Translation) -> Mapping {
    let size = 1 << found.size_log2;
    let offset = va & (size - 1);
    Mapping { pa: found.pa | offset, len: size - offset, size_log2: found.size_log2 }
}

/// The four faults that a context's S and R bits govern (5.5).
#[cold]
fn translation_fault(tx: &Transaction, cd: &Cd, event: EventType) -> Fault {
    let event = tx.access_event(event, class::IN);
    match (cd.d0.s(), cd.d0.r()) {
        (true, _) => Fault::Stalled(event),
        (false, true) => Fault::Recorded(event),
        (false, false) => Fault::Silent,
    }
}
