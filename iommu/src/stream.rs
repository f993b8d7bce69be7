//! From StreamID to configuration: the stream table, its entries, and what makes one illegal (3.3, 3.4, 5.2; order of
//! errors: 7.2).

use hw::Ram;
use vmsa::{ExternalAbort, TableMemory};

use crate::context::{ContextTable, World, context_index};
use crate::features::{Features, StallModel};
use crate::spec::cd::Cd;
use crate::spec::event::EventType;
use crate::spec::granule::tg0;
use crate::spec::regs::{Cr2, StrtabBaseCfg};
use crate::spec::ste::{Config, L1Std, STE_BYTES, Ste, SteD0, SteD1, SteD2, SteD3, eats, strw};
use crate::stage2::{Stage2, Translator, start_level};
use crate::transaction::{Fault, Kind, Transaction};

/// The configuration of transactions by a stream's structures, which are legal. With neither stage, addresses are not
/// translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamConfig {
    pub(crate) world: World,
    /// Stage 1 by this context descriptor.
    pub(crate) stage1: Option<Cd>,
    pub(crate) stage2: Option<Stage2>,
    /// The stream table entry's further attributes.
    pub(crate) d1: SteD1,
    /// Tag of EL1's translations; 0 without stage 2 in the machine.
    pub(crate) vmid: u16,
    pub(crate) ats: Ats,
}

impl StreamConfig {
    /// EL2 without E2H has no unprivileged accesses, so PAN has no effect there.
    #[inline]
    pub(crate) fn has_pan(&self) -> bool {
        self.world != World::El2 && self.stage1.is_some_and(|cd| cd.d0.pan())
    }
}

/// What the endpoint may do with address translation services: STE.EATS, where the stream has the stages for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ats {
    /// Nothing.
    Off = 0,
    /// Translated addresses are physical ones.
    Full = 1,
    /// Translated addresses are intermediate physical ones, and translated accesses go through stage 2.
    Split = 2,
}

impl Ats {
    /// Split-stage ATS needs CR0.ATSCHK: without it translated accesses are not checked and skip stage 2.
    pub(crate) const fn is_on(self, checks_translated: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Full => true,
            Self::Split => checks_translated,
        }
    }
}

/// The registers that a look-up starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamTable {
    pub(crate) base: u64,
    pub(crate) cfg: StrtabBaseCfg,
    pub(crate) cr2: Cr2,
    /// CR0.ATSCHK.
    pub(crate) checks_translated: bool,
}

/// Looks the configuration of a transaction up in memory.
pub(crate) fn fetch(
    ram: &Ram,
    features: &Features,
    table: &StreamTable,
    tx: &Transaction,
) -> Result<StreamConfig, Fault> {
    let (_, ste) = load_ste(ram, features, table, tx)?;
    if !is_legal_ste(features, &ste) {
        return Err(Fault::Recorded(tx.event(EventType::C_BAD_STE)));
    }
    let mut config = shape(features, table, &ste).ok_or(Fault::Blocked)?;
    match tx.kind {
        Kind::Untranslated => {}
        _ if !config.ats.is_on(table.checks_translated) => return Err(Fault::not_allowed(tx)),
        Kind::Request => {}
        // The request that gave the endpoint the address has used the context.
        Kind::Translated => {
            return Ok(StreamConfig { stage2: config.stage2.filter(|_| config.ats == Ats::Split), ..config });
        }
    }
    if !matches!(ste.d0.config(), Config::S1 | Config::S1_S2) {
        return if tx.ssid.is_some() { Err(Fault::bad_substream(tx)) } else { Ok(config) };
    }
    if let Some(index) = context_index(features, &ste, tx)? {
        let stage2 = config.stage2;
        let contexts = ContextTable {
            ram,
            features,
            ste: &ste,
            world: config.world,
            stage2: stage2.as_ref().map(|stage2| Translator { ram, features, stage2 }),
        };
        config.stage1 = Some(contexts.fetch(tx, index)?);
    }
    Ok(config)
}

/// The stream table entry of a transaction, legal or not, and its physical address.
pub(crate) fn load_ste<M: TableMemory>(
    ram: &M,
    features: &Features,
    table: &StreamTable,
    tx: &Transaction,
) -> Result<(u64, Ste), Fault> {
    let ste_address = find_ste(ram, features, table, tx)?;
    let load = |offset: u64| {
        ram.load(ste_address + offset)
            .map_err(|ExternalAbort| Fault::of_fetch(tx, EventType::F_STE_FETCH, ste_address))
    };
    if !features.in_output_range(ste_address) {
        return Err(Fault::of_fetch(tx, EventType::F_STE_FETCH, ste_address));
    }
    let ste = Ste {
        d0: SteD0::from(load(0)?),
        d1: SteD1::from(load(8)?),
        d2: SteD2::from(load(16)?),
        d3: SteD3::from(load(24)?),
    };
    Ok((ste_address, ste))
}

/// What a stream table entry that is legal configures, without a context. `None` if it blocks the stream.
pub(crate) fn shape(features: &Features, table: &StreamTable, ste: &Ste) -> Option<StreamConfig> {
    let (has_stage1, has_stage2) = match ste.d0.config() {
        Config::BYPASS => (false, false),
        Config::S1 => (true, false),
        Config::S2 => (false, true),
        Config::S1_S2 => (true, true),
        _ => return None, // 0b0xx
    };
    let world = world(features, table.cr2, ste);
    Some(StreamConfig {
        world,
        stage1: None,
        stage2: has_stage2.then_some(Stage2 { d1: ste.d1, d2: ste.d2, d3: ste.d3 }),
        d1: ste.d1,
        vmid: if features.stage2 && world == World::El1 { ste.d2.s2vmid() } else { 0 },
        ats: match ste.d1.eats() {
            eats::FULL if features.ats && (has_stage1 || has_stage2) => Ats::Full,
            eats::SPLIT if features.ats && has_stage1 && has_stage2 => Ats::Split,
            _ => Ats::Off,
        },
    })
}

/// STRW means something only for streams with stage 1 alone, on a machine with EL2.
pub(crate) fn world(features: &Features, cr2: Cr2, ste: &Ste) -> World {
    if !features.stage2 || ste.d0.config() != Config::S1 || ste.d1.strw() != strw::EL2 {
        return World::El1;
    }
    if cr2.e2h() { World::El2E2h } else { World::El2 }
}

/// Physical address of the stream table entry (3.3.2).
fn find_ste<M: TableMemory>(
    ram: &M,
    features: &Features,
    table: &StreamTable,
    tx: &Transaction,
) -> Result<u64, Fault> {
    // `Smmu::record_for` decides about the records of requests and translated accesses.
    let bad_stream = || match table.cr2.recinvsid() || tx.kind != Kind::Untranslated {
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
        .load(l1std_address)
        .map_err(|ExternalAbort| Fault::of_fetch(tx, EventType::F_STE_FETCH, l1std_address))?;
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
pub(crate) fn is_legal_ste(features: &Features, ste: &Ste) -> bool {
    let Ste { d0, .. } = ste;
    if !d0.v() {
        return false;
    }
    // ATS and stalls of stage 2 exclude each other; split-stage ATS is for both stages.
    let stalls = d0.config().0 & 0b10 != 0 && ste.d2.s2s();
    let ats = !features.ats
        || match ste.d1.eats() {
            eats::FULL => !stalls,
            eats::SPLIT => d0.config() == Config::S1_S2 && !stalls,
            _ => true,
        };
    match d0.config() {
        Config::BYPASS => true,
        Config::S1 | Config::S2 | Config::S1_S2 if !ats => false,
        Config::S1 => {
            // STRW is ignored without EL2.
            let strw = !features.stage2 || matches!(ste.d1.strw(), strw::EL1 | strw::EL2);
            strw && is_legal_stage1(features, ste)
        }
        Config::S2 => features.stage2 && is_legal_stage2(features, ste),
        Config::S1_S2 => features.stage2 && is_legal_stage1(features, ste) && is_legal_stage2(features, ste),
        _ => true,
    }
}

fn is_legal_stage1(features: &Features, Ste { d0, d1, .. }: &Ste) -> bool {
    let cds = features.ssid_bits == 0 || d0.s1cdmax() <= features.ssid_bits;
    let stall = !d1.s1stalld() || features.stall_model == StallModel::StallAndTerminate;
    cds && stall && features.in_output_range(d0.s1contextptr_55_6() << 6)
}

/// The intermediate physical address space is as large as the physical one (3.4, IAS).
fn is_legal_stage2(features: &Features, Ste { d2, d3, .. }: &Ste) -> bool {
    let Some(granule) = tg0(d2.s2tg()).filter(|&granule| features.has_granule(granule)) else { return false };
    let most_bits = features.output.bits().min(granule.max_input_bits());
    let least_tsz = 64 - most_bits;
    let stall = if d2.s2s() { features.can_stall() } else { features.stall_model != StallModel::StallForced };
    d2.s2aa64()
        && !d2.s2endi()
        && (least_tsz..=u32::from(features.most_tsz(granule))).contains(&u32::from(d2.s2t0sz()))
        && start_level(features, *d2).is_some()
        && stall
        && features.allows_updates(d2.s2ha(), d2.s2hd())
        && d3.s2ttb() >> features.output_bits(d2.s2ps(), granule) == 0
}
