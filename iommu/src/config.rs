//! From StreamID and SubstreamID to a context: stream table entry, context descriptor, and what makes them illegal
//! (chapter 5, 3.3, 3.4; order of errors: 7.2).

use hw::{Pa, Ram};
use vmsa::Granule;

use crate::features::{Features, OutputSize, StallModel};
use crate::spec::cd::{CD_BYTES, Cd, CdD0, CdTtb, L1Cd};
use crate::spec::event::{Event, EventType, FETCH_ADDR};
use crate::spec::regs::{Cr2, StrtabBaseCfg};
use crate::spec::ste::{Config, L1Std, STE_BYTES, Ste, SteD0, SteD1, eats, s1dss, s1fmt};
use crate::translate::{Fault, Kind, Transaction};

/// What a stream's structures say about its transactions. With stage 2, its parameters join here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamConfig {
    /// Addresses pass as they are.
    Bypass,
    /// Stage 1 by this context descriptor, which is legal.
    Stage1(Cd),
}

/// A stream's configuration for one SubstreamID, or for translated transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// The endpoint may ask for translations and use them: STE.EATS, as far as it counts.
    pub(crate) ats: bool,
    pub(crate) config: StreamConfig,
}

/// The registers that a look-up starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamTable {
    pub(crate) base: u64,
    pub(crate) cfg: StrtabBaseCfg,
    pub(crate) cr2: Cr2,
}

fn fetch_fault(tx: &Transaction, event: EventType, address: u64) -> Fault {
    Fault::Recorded(Event { d3: address & FETCH_ADDR, ..tx.event(event) })
}

/// Looks the configuration of a transaction up in memory.
pub(crate) fn fetch(
    ram: &Ram,
    features: &Features,
    table: &StreamTable,
    tx: &Transaction,
) -> Result<Stream, Fault> {
    let ste_address = find_ste(ram, features, table, tx)?;
    let load = |offset: u64| {
        ram.load_u64(Pa(ste_address + offset))
            .map_err(|_| fetch_fault(tx, EventType::F_STE_FETCH, ste_address))
    };
    if !features.in_output_range(ste_address) {
        return Err(fetch_fault(tx, EventType::F_STE_FETCH, ste_address));
    }
    let ste = Ste { d0: SteD0::from(load(0)?), d1: SteD1::from(load(8)?) };
    if !is_legal_ste(features, &ste) {
        return Err(Fault::Recorded(tx.event(EventType::C_BAD_STE)));
    }
    let config = ste.d0.config();
    if config.0 & 0b100 == 0 {
        return Err(Fault::Blocked);
    }
    let ats = features.ats && config.0 & 0b11 != 0 && ste.d1.eats() == eats::FULL;
    let stream = |config| Stream { ats, config };
    match (tx.kind, ats) {
        (Kind::Untranslated, _) | (Kind::Request, true) => {}
        // No context is looked up: the address is what it is.
        (Kind::Translated, true) => return Ok(stream(StreamConfig::Bypass)),
        (_, false) => return Err(tx.not_allowed()),
    }
    match config {
        Config::BYPASS if tx.ssid.is_some() => Err(bad_substream(tx)),
        Config::BYPASS => Ok(stream(StreamConfig::Bypass)),
        // The others are illegal without stage 2.
        _ => match context_index(features, &ste, tx)? {
            Some(index) => fetch_cd(ram, features, &ste, tx, index).map(StreamConfig::Stage1).map(stream),
            None => Ok(stream(StreamConfig::Bypass)),
        },
    }
}

fn bad_substream(tx: &Transaction) -> Fault {
    // The SubstreamID is given, SSV is not (7.3.9).
    let event = tx.event(EventType::C_BAD_SUBSTREAMID);
    Fault::Recorded(Event { d0: event.d0.with_ssv(false), ..event })
}

/// Physical address of the stream table entry (3.3.2).
fn find_ste(ram: &Ram, features: &Features, table: &StreamTable, tx: &Transaction) -> Result<u64, Fault> {
    // A request isn't recorded, but answered.
    let bad_stream = || match table.cr2.recinvsid() || tx.kind == Kind::Request {
        true => Fault::Recorded(tx.event(EventType::C_BAD_STREAMID)),
        false => Fault::Silent,
    };
    let sid = u64::from(tx.sid);
    let log2size = u32::from(table.cfg.log2size().min(features.sid_bits));
    if sid >> log2size != 0 {
        return Err(bad_stream());
    }
    if table.cfg.fmt() != StrtabBaseCfg::FMT_2LVL {
        let align = STE_BYTES << log2size;
        return Ok((table.base & !(align - 1)) + sid * STE_BYTES);
    }
    let split = match table.cfg.split() {
        split @ (8 | 10) => u32::from(split),
        _ => 6,
    };
    let align = (8u64 << log2size.saturating_sub(split)).max(64);
    let l1std_address = (table.base & !(align - 1)) + (sid >> split) * 8;
    let l1std = ram
        .load_u64(Pa(l1std_address))
        .map_err(|_| fetch_fault(tx, EventType::F_STE_FETCH, l1std_address))?;
    let l1std = L1Std::from(l1std);
    let span = u32::from(l1std.span());
    let index = sid & ((1 << split) - 1);
    if !(1..=11).contains(&span) || span > split + 1 || index >> (span - 1) != 0 {
        return Err(bad_stream());
    }
    let align = STE_BYTES << (span - 1);
    Ok((l1std.l2ptr_55_6() << 6 & !(align - 1)) + index * STE_BYTES)
}

/// ILLEGAL rules of the stream table entry (5.2), V included.
fn is_legal_ste(features: &Features, ste: &Ste) -> bool {
    let Ste { d0, d1 } = ste;
    if !d0.v() {
        return false;
    }
    match d0.config() {
        Config::BYPASS => true,
        Config::S1 => {
            let cds = features.ssid_bits == 0 || d0.s1cdmax() <= features.ssid_bits;
            let split = features.ats && d1.eats() == eats::SPLIT;
            let stall = !d1.s1stalld() || features.stall_model == StallModel::StallAndTerminate;
            cds && stall && !split && features.in_output_range(d0.s1contextptr_55_6() << 6)
        }
        Config::S2 | Config::S1_S2 => false,
        _ => true,
    }
}

/// Which context descriptor a transaction uses; `None`: stage 1 is bypassed.
fn context_index(features: &Features, ste: &Ste, tx: &Transaction) -> Result<Option<u32>, Fault> {
    let max = ste.d0.s1cdmax();
    let disabled = || {
        // No SubstreamID in this record (7.3.7).
        let event = Transaction { ssid: None, ..*tx }.event(EventType::F_STREAM_DISABLED);
        Err(Fault::Recorded(event))
    };
    if features.ssid_bits == 0 || max == 0 {
        return if tx.ssid.is_some() { Err(bad_substream(tx)) } else { Ok(Some(0)) };
    }
    match (tx.ssid, ste.d1.s1dss()) {
        (Some(ssid), _) if ssid >> max != 0 => Err(bad_substream(tx)),
        (Some(0), s1dss::SSID0) => disabled(),
        (Some(ssid), _) => Ok(Some(ssid)),
        (None, s1dss::BYPASS) => Ok(None),
        (None, s1dss::SSID0) => Ok(Some(0)),
        (None, _) => disabled(),
    }
}

fn fetch_cd(ram: &Ram, features: &Features, ste: &Ste, tx: &Transaction, index: u32) -> Result<Cd, Fault> {
    let table = ste.d0.s1contextptr_55_6() << 6;
    let index = u64::from(index);
    let leaf_bits = match ste.d0.s1fmt() {
        _ if ste.d0.s1cdmax() == 0 || features.ssid_bits == 0 => None,
        s1fmt::L2_4K => Some(6),
        s1fmt::L2_64K => Some(10),
        _ => None,
    };
    let cd_address = match leaf_bits {
        None => table + index * CD_BYTES,
        Some(bits) => {
            let l1cd_address = table + (index >> bits) * 8;
            let l1cd = ram
                .load_u64(Pa(l1cd_address))
                .map_err(|_| fetch_fault(tx, EventType::F_CD_FETCH, l1cd_address))?;
            let l1cd = L1Cd::from(l1cd);
            // Bits of L2Ptr inside the second level table are RES0.
            let l2ptr = l1cd.l2ptr_55_12() << 12 & !((CD_BYTES << bits) - 1);
            if !l1cd.v() || !features.in_output_range(l2ptr) {
                return Err(bad_substream(tx));
            }
            l2ptr + (index & ((1 << bits) - 1)) * CD_BYTES
        }
    };
    let load = |offset: u64| {
        ram.load_u64(Pa(cd_address + offset)).map_err(|_| fetch_fault(tx, EventType::F_CD_FETCH, cd_address))
    };
    let cd = Cd { d0: CdD0::from(load(0)?), d1: CdTtb::from(load(8)?), d2: CdTtb::from(load(16)?) };
    if is_legal_cd(features, ste, &cd) { Ok(cd) } else { Err(Fault::Recorded(tx.event(EventType::C_BAD_CD))) }
}

/// CD.TG0.
pub(crate) const fn tg0(bits: u8) -> Option<Granule> {
    match bits {
        0 => Some(Granule::K4),
        1 => Some(Granule::K64),
        2 => Some(Granule::K16),
        _ => None,
    }
}

/// CD.TG1, which counts differently.
pub(crate) const fn tg1(bits: u8) -> Option<Granule> {
    match bits {
        1 => Some(Granule::K16),
        2 => Some(Granule::K4),
        3 => Some(Granule::K64),
        _ => None,
    }
}

/// Output address bits of a context: CD.IPS, capped to what there is.
pub(crate) fn output_bits(features: &Features, cd: CdD0) -> u32 {
    OutputSize::bits_of(cd.ips()).min(features.output.bits())
}

/// ILLEGAL rules of the context descriptor (5.4), V included.
fn is_legal_cd(features: &Features, ste: &Ste, cd: &Cd) -> bool {
    let d0 = cd.d0;
    let output_bits = output_bits(features, d0);
    let half = |enabled: bool, tsz: u8, granule: Option<Granule>, ttb: u64| {
        let granule_exists = granule.is_some_and(|granule| features.has_granule(granule));
        !enabled || ((16..=39).contains(&tsz) && granule_exists && ttb >> output_bits == 0)
    };
    let stall = if d0.s() {
        features.can_stall() && !ste.d1.s1stalld()
    } else {
        features.stall_model != StallModel::StallForced
    };
    let any_walk = !d0.epd0() || !d0.epd1();
    d0.v()
        && d0.aa64()
        && d0.a() // TERM_MODEL is 1
        && !(d0.ha() || d0.hd()) // HTTU is 0
        && !(d0.endi() && any_walk)
        && stall
        && half(!d0.epd0(), d0.t0sz(), tg0(d0.tg0()), cd.d1.ttb())
        && half(!d0.epd1(), d0.t1sz(), tg1(d0.tg1()), cd.d2.ttb())
}
