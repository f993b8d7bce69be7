//! From SubstreamID to context: context descriptor tables, and what makes a context descriptor illegal (3.3.1, 5.3, 5.4).

use vmsa::{ExternalAbort, Granule, UpdatableMemory};

use crate::features::{Features, StallModel};
use crate::spec::cd::{CD_BYTES, Cd, CdD0, CdTtb, L1Cd};
use crate::spec::event::{EventType, class};
use crate::spec::granule::{tg0, tg1};
use crate::spec::ste::{Ste, s1dss, s1fmt};
use crate::stage2::Translator;
use crate::transaction::{Fault, Transaction};

/// StreamWorld: the exception levels that a stream's translations belong to (3.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum World {
    /// EL1 and EL0.
    El1 = 0,
    /// EL2 alone: one table, one privilege level, no ASID.
    El2 = 1,
    /// EL2 and EL0.
    El2E2h = 2,
}

/// Which context descriptor a transaction uses; `None`: stage 1 is bypassed.
pub(crate) fn context_index(features: &Features, ste: &Ste, tx: &Transaction) -> Result<Option<u32>, Fault> {
    let max = ste.d0.s1cdmax();
    let disabled = || {
        // No SubstreamID in this record (7.3.7).
        let event = Transaction { ssid: None, ..*tx }.event(EventType::F_STREAM_DISABLED);
        Err(Fault::Recorded(event))
    };
    if features.ssid_bits == 0 || max == 0 {
        return if tx.ssid.is_some() { Err(Fault::bad_substream(tx)) } else { Ok(Some(0)) };
    }
    match (tx.ssid, ste.d1.s1dss()) {
        (Some(ssid), _) if ssid >> max != 0 => Err(Fault::bad_substream(tx)),
        (Some(0), s1dss::SSID0) => disabled(),
        (Some(ssid), _) => Ok(Some(ssid)),
        (None, s1dss::BYPASS) => Ok(None),
        (None, s1dss::SSID0) => Ok(Some(0)),
        (None, _) => disabled(),
    }
}

/// The context descriptors of a stream: where they are, and what their addresses go through.
pub(crate) struct ContextTable<'a, M> {
    pub(crate) ram: &'a M,
    pub(crate) features: &'a Features,
    /// The stream table entry, which is legal and has stage 1.
    pub(crate) ste: &'a Ste,
    pub(crate) world: World,
    /// With stage 2, the addresses of the table are intermediate physical ones.
    pub(crate) stage2: Option<Translator<'a, M>>,
}

impl<M: UpdatableMemory> ContextTable<'_, M> {
    /// The context descriptor of an index, for a transaction that uses it.
    pub(crate) fn fetch(&self, tx: &Transaction, index: u32) -> Result<Cd, Fault> {
        let (_, cd) = self.load_cd(tx, index)?;
        if self.is_legal(&cd) { Ok(cd) } else { Err(Fault::Recorded(tx.event(EventType::C_BAD_CD))) }
    }

    /// The context descriptor of an index, legal or not, and its physical address.
    pub(crate) fn load_cd(&self, tx: &Transaction, index: u32) -> Result<(u64, Cd), Fault> {
        let at = self.physical(tx, self.find(tx, index.into())?)?;
        let cd = Cd {
            d0: CdD0::from(self.load(tx, at, at)?),
            d1: CdTtb::from(self.load(tx, at + 8, at)?),
            d2: CdTtb::from(self.load(tx, at + 16, at)?),
        };
        Ok((at, cd))
    }

    /// The address of a context descriptor, before stage 2.
    fn find(&self, tx: &Transaction, index: u64) -> Result<u64, Fault> {
        let Ste { d0, .. } = self.ste;
        let table = d0.s1contextptr_55_6() << 6;
        let leaf_bits = match d0.s1fmt() {
            _ if d0.s1cdmax() == 0 || self.features.ssid_bits == 0 => None,
            s1fmt::L2_4K => Some(6),
            s1fmt::L2_64K => Some(10),
            _ => None,
        };
        let Some(bits) = leaf_bits else { return Ok(table + index * CD_BYTES) };
        let at = self.physical(tx, table + (index >> bits) * 8)?;
        let l1cd = L1Cd::from(self.load(tx, at, at)?);
        // Bits of L2Ptr inside the second level table are RES0.
        let l2ptr = l1cd.l2ptr_55_12() << 12 & !((CD_BYTES << bits) - 1);
        if !l1cd.v() || !self.features.in_output_range(l2ptr) {
            return Err(Fault::bad_substream(tx));
        }
        Ok(l2ptr + (index & ((1 << bits) - 1)) * CD_BYTES)
    }

    fn physical(&self, tx: &Transaction, address: u64) -> Result<u64, Fault> {
        let Some(stage2) = &self.stage2 else { return Ok(address) };
        stage2
            .table(address, false, class::CD)
            .map_err(|fault| Fault::of_stage2(&tx.with_overrides(self.ste.d1), stage2.stage2, &fault))
    }

    /// A dword of the structure that begins at `start`.
    fn load(&self, tx: &Transaction, at: u64, start: u64) -> Result<u64, Fault> {
        self.ram.load(at).map_err(|ExternalAbort| Fault::of_fetch(tx, EventType::F_CD_FETCH, start))
    }

    /// ILLEGAL rules of the context descriptor (5.4), V included.
    pub(crate) fn is_legal(&self, cd: &Cd) -> bool {
        let Self { features, ste, world, .. } = *self;
        let d0 = cd.d0;
        let half = |enabled: bool, tsz: u8, granule: Option<Granule>, ttb: u64| {
            !enabled
                || granule.filter(|&granule| features.has_granule(granule)).is_some_and(|granule| {
                    let least_tsz = if features.va52 && granule == Granule::K64 { 12 } else { 16 };
                    (least_tsz..=features.most_tsz(granule)).contains(&tsz)
                        && ttb >> features.output_bits(d0.ips(), granule) == 0
                })
        };
        let stall = if d0.s() {
            features.can_stall() && !ste.d1.s1stalld()
        } else {
            features.stall_model != StallModel::StallForced
        };
        let (low, high) = halves(world, d0);
        d0.v()
            && d0.aa64()
            && d0.a() // TERM_MODEL is 1
            && features.allows_updates(d0.ha(), d0.hd())
            && !(d0.endi() && (low || high))
            && stall
            && half(low, d0.t0sz(), tg0(d0.tg0()), cd.d1.ttb())
            && half(high, d0.t1sz(), tg1(d0.tg1()), cd.d2.ttb())
    }
}

/// Which halves of the address space are walked. EL2 alone has the lower one, which can't be turned off.
#[inline]
pub(crate) fn halves(world: World, d0: CdD0) -> (bool, bool) {
    match world {
        World::El2 => (true, false),
        _ => (!d0.epd0(), !d0.epd1()),
    }
}
