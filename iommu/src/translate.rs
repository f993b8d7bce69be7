//! From the input address of a transaction to a physical address or a fault (chapter 3; the flow in 15.1).

use hw::trace::{Ending, Slice, SliceKind};
use hw::{Iova, StreamId, Track};
use vmsa::{
    AccessKind, ExternalAbort, Half, Managed, Permissions, Stage1Rules, UpdatableMemory, WalkParams, in_range,
};

use crate::config_cache::Part;
use crate::context::{World, halves};
use crate::faults::{FaultPoints, LookupFault};
use crate::features::Features;
use crate::smmu::Smmu;
use crate::spec::cd::Cd;
use crate::spec::event::{EventType, class};
use crate::spec::granule::{tg0, tg1};
use crate::stage2::{Memories, Stage1Memory, Stage2, Stage2Fault, Translator, UPDATE_ATTEMPTS};
use crate::state::Mode;
use crate::stats::Access as InflightAccess;
use crate::stream::{self, StreamConfig};
use crate::tlb::{Space, Translation};
use crate::transaction::{Fault, Kind, Mapping, Transaction};

/// How transactions of one stream and SubstreamID are translated: what is looked up once for all pages of an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// Translations that are looked up with this route are inserted with this age.
    pub(crate) age: u64,
    /// `None` while translation is off and transactions pass.
    pub(crate) config: Option<StreamConfig>,
}

impl Smmu {
    /// Finds the route of a transaction and puts it in `place`. It is valid as long as `access` lives.
    // A route is too large to be returned by value on a path that takes nanoseconds.
    pub(crate) fn route<'r>(
        &self,
        access: &InflightAccess<'_>,
        tx: &Transaction,
        place: &'r mut Option<Route>,
    ) -> Result<&'r Route, Fault> {
        // Read first, so that everything below is looked up in this age or a later one.
        let age = self.age.now();
        let config = match self.mode() {
            Mode::Bypass | Mode::Abort if tx.kind != Kind::Untranslated => {
                return Err(Fault::not_allowed(tx));
            }
            Mode::Bypass => None,
            Mode::Abort => return Err(Fault::Blocked),
            Mode::Translate => {
                let config = match self.configs.get(tx.sid, Part::of(tx)) {
                    Some(config) => config,
                    None => self.fetch_config(access, tx, age)?,
                };
                if tx.kind == Kind::Request && !config.ats.is_on(self.checks_translated()) {
                    return Err(Fault::not_allowed(tx));
                }
                Some(config)
            }
        };
        Ok(place.insert(Route { age, config }))
    }

    /// Translates the first byte of a transaction on its route.
    #[inline]
    pub(crate) fn translate(
        &self,
        access: &InflightAccess<'_>,
        route: &Route,
        tx: &Transaction,
    ) -> Result<Mapping, Fault> {
        let Some(config) = &route.config else { return self.bypass(tx).ok_or(Fault::Silent) };
        let tx = &tx.with_overrides(config.d1);
        if config.stage1.is_none() && config.stage2.is_none() {
            return self.bypass(tx).ok_or_else(|| Fault::address_size(tx));
        }
        self.look_up(access, config, tx, route.age).map(|found| mapping(tx.address, &found))
    }

    /// The address itself, if there is such a physical address.
    fn bypass(&self, tx: &Transaction) -> Option<Mapping> {
        let end = self.features.output_mask() + 1;
        let size_log2 = self.features.output.bits();
        (tx.address < end).then(|| Mapping { pa: tx.address, len: end - tx.address, size_log2 })
    }

    #[cold]
    fn fetch_config(
        &self,
        access: &InflightAccess<'_>,
        tx: &Transaction,
        age: u64,
    ) -> Result<StreamConfig, Fault> {
        access.add(&access.local().config_fetches, 1);
        let table = self.state().stream_table(&self.features);
        let config = stream::fetch(&self.ram, &self.features, &table, tx)?;
        self.configs.insert(tx.sid, Part::of(tx), age, config);
        Ok(config)
    }

    /// Finds the page of a transaction, overrides applied, that at least one stage translates.
    #[inline]
    pub(crate) fn look_up(
        &self,
        access: &InflightAccess<'_>,
        config: &StreamConfig,
        tx: &Transaction,
        age: u64,
    ) -> Result<Translation, Fault> {
        let walker = self.walker();
        let input = walker.input(config, tx)?;
        let space = Space::of(config);
        let pan = config.has_pan();
        // An entry with too few permissions counts as a miss: software need not invalidate when it adds permissions.
        let is_forgotten = self.faults.watches_lookups() && self.is_injected_miss(config, tx)?;
        if !is_forgotten
            && let Some(found) = self.tlb.get(space, input)
            && found.permissions.allow(tx.access, pan)
        {
            access.add(&access.local().tlb_hits, 1);
            return Ok(found);
        }
        access.add(&access.local().walks, 1);
        let track = Track::of_command(StreamId(tx.sid), tx.command);
        if let Some(track) = track {
            self.trace.begin(track, || Slice::Walk { at: Iova(tx.address) });
        }
        let found = walker.walk(config, tx);
        if let Some(track) = track {
            let ending = if found.is_ok() { Ending::Plain } else { Ending::Said("fault") };
            self.trace.end(track, SliceKind::Walk, ending);
        }
        let found = found?;
        self.tlb.insert(space, input, age, found);
        Ok(found)
    }

    /// Asks the fault plan about a lookup: its fault, or whether the TLB counts as empty.
    #[cold]
    fn is_injected_miss(&self, config: &StreamConfig, tx: &Transaction) -> Result<bool, Fault> {
        let event = match self.faults.at_lookup(tx) {
            None => return Ok(false),
            Some(LookupFault::Miss) => return Ok(true),
            Some(LookupFault::Event(event)) => event,
        };
        Err(match (&config.stage1, &config.stage2) {
            (None, Some(stage2)) => {
                let (class, ipa) = (class::IN, tx.address);
                let fault = Stage2Fault { event, class, ipa, fetch_addr: 0, is_table_write: false };
                Fault::of_stage2(tx, stage2, &fault)
            }
            (Some(cd), _) => Fault::of_stage1(tx, cd, event),
            (None, None) => unreachable!("nothing is looked up where both stages are bypassed"),
        })
    }

    /// For split-stage ATS: the address after stage 1, with size and permissions of both stages. The endpoint caches
    /// the result; the TLB does not.
    pub(crate) fn translate_to_intermediate(
        &self,
        access: &InflightAccess<'_>,
        config: &StreamConfig,
        tx: &Transaction,
    ) -> Result<Mapping, Fault> {
        let tx = &tx.with_overrides(config.d1);
        let walker = self.walker();
        walker.input(config, tx)?;
        access.add(&access.local().walks, 1);
        // An STE with EATS = 0b10 is legal only with both stages.
        let stage2 = walker.translator(config.stage2.as_ref()).expect("split-stage ATS has stage 2");
        let stage1 = match &config.stage1 {
            Some(cd) => walker.walk_stage1_behind(stage2, config.world, cd, tx, config.has_pan())?,
            None => IDENTITY,
        };
        let both = behind_stage2(tx, &stage1, &stage2)?;
        let intermediate = mapping(tx.address, &stage1).pa & (u64::MAX << both.size_log2);
        Ok(mapping(tx.address, &Translation { pa: intermediate, ..both }))
    }

    #[inline]
    fn walker(&self) -> Walker<'_, hw::Ram> {
        Walker { memories: Memories::both_in(&*self.ram), features: &self.features, faults: &self.faults }
    }
}

/// What turns input addresses into addresses by tables in memory, with nothing cached.
pub(crate) struct Walker<'a, M> {
    pub(crate) memories: Memories<'a, M>,
    pub(crate) features: &'a Features,
    pub(crate) faults: &'a FaultPoints,
}

impl<'a, M: UpdatableMemory> Walker<'a, M> {
    /// The page of a transaction, overrides applied, whose address [`Self::input`] has let pass, and that at least one
    /// stage translates.
    #[inline]
    pub(crate) fn walk(&self, config: &StreamConfig, tx: &Transaction) -> Result<Translation, Fault> {
        match &config.stage1 {
            Some(cd) => self.walk_stage1(config, cd, tx, config.has_pan()),
            None => self.walk_stage2_only(config, tx),
        }
    }

    /// The address that a transaction enters the tables with.
    #[inline]
    pub(crate) fn input(&self, config: &StreamConfig, tx: &Transaction) -> Result<u64, Fault> {
        match &config.stage1 {
            Some(cd) => self.stage1_input(config.world, cd, tx),
            // The intermediate physical address space is as large as the physical one.
            None if self.features.in_output_range(tx.address) => Ok(tx.address),
            None => Err(Fault::address_size(tx)),
        }
    }

    /// Checks the input address against the tables' range.
    #[inline]
    fn stage1_input(&self, world: World, cd: &Cd, tx: &Transaction) -> Result<u64, Fault> {
        let (va, d0) = (tx.address, cd.d0);
        let (low, high) = halves(world, d0);
        let inside = match (world, Half::of(va)) {
            (World::El2, _) => {
                let checked = if d0.tbi0() { va << 8 >> 8 } else { va };
                checked >> (64 - u32::from(d0.t0sz())) == 0
            }
            (_, Half::Low) => low && in_range(va, 64 - u32::from(d0.t0sz()), d0.tbi0()),
            (_, Half::High) => high && in_range(va, 64 - u32::from(d0.t1sz()), d0.tbi1()),
        };
        if inside { Ok(va) } else { Err(Fault::of_stage1(tx, cd, EventType::F_TRANSLATION)) }
    }

    /// Stage 1, and stage 2 behind it if there is one.
    fn walk_stage1(
        &self,
        config: &StreamConfig,
        cd: &Cd,
        tx: &Transaction,
        pan: bool,
    ) -> Result<Translation, Fault> {
        let Some(stage2) = self.translator(config.stage2.as_ref()) else {
            // The most common case, without the cost of the others.
            let tables = self.memories.stage1;
            return self.walk_stage1_in(tables, config.world, cd, tx, pan, |at| Fault::of_table(tx, at));
        };
        let stage1 = self.walk_stage1_behind(stage2, config.world, cd, tx, pan)?;
        behind_stage2(tx, &stage1, &stage2)
    }

    /// Stage 1 in tables behind stage 2.
    fn walk_stage1_behind(
        &self,
        stage2: Translator<'_, M>,
        world: World,
        cd: &Cd,
        tx: &Transaction,
        pan: bool,
    ) -> Result<Translation, Fault> {
        let memory = Stage1Memory::new(self.memories.stage1, stage2);
        self.walk_stage1_in(&memory, world, cd, tx, pan, |_| match memory.abort() {
            Err(fault) => Fault::of_stage2(tx, stage2.stage2, &fault),
            Ok(at) => Fault::of_table(tx, at),
        })
    }

    /// Stage 1 in tables that `memory` gives access to; `aborted` makes the fault of a descriptor that can't be
    /// accessed.
    #[inline]
    fn walk_stage1_in<T: UpdatableMemory>(
        &self,
        memory: &T,
        world: World,
        cd: &Cd,
        tx: &Transaction,
        pan: bool,
        aborted: impl Fn(u64) -> Fault,
    ) -> Result<Translation, Fault> {
        let d0 = cd.d0;
        let params = self.stage1_params(world, cd, tx.address);
        let managed = Managed::new(d0.ha(), d0.hd());
        let is_write = tx.access.kind == AccessKind::Write;
        // EL2 has one level of privilege: UXN is XN there, and every access is privileged.
        let rules = Stage1Rules { wxn: d0.wxn(), has_el0: world != World::El2 };
        let mut descriptor_pa = 0;
        for _ in 0..UPDATE_ATTEMPTS {
            let leaf =
                self.faults.walk(&params, tx, memory).map_err(|(event, descriptor_pa)| match event {
                    EventType::F_WALK_EABT => aborted(descriptor_pa),
                    event => Fault::of_stage1(tx, cd, event),
                })?;
            let (attributes, is_clean) = managed.stage1(&leaf);
            let mut permissions = Permissions::stage1(attributes, rules);
            if world == World::El2 {
                permissions = permissions.privileged_for_all();
            }
            if !permissions.allow(tx.access, pan) {
                return Err(Fault::of_stage1(tx, cd, EventType::F_PERMISSION));
            }
            descriptor_pa = leaf.descriptor_pa;
            if let Some(new) = managed.stage1_update(&leaf, is_write)
                && !memory
                    .replace(descriptor_pa, leaf.descriptor, new)
                    .map_err(|ExternalAbort| aborted(descriptor_pa))?
            {
                continue;
            }
            if is_clean && !is_write {
                permissions = permissions.without_writes();
            }
            return Ok(Translation {
                pa: leaf.pa,
                size_log2: u32::from(leaf.size_log2),
                permissions,
                global: !leaf.attributes.ng(),
                fractured: false,
            });
        }
        Err(aborted(descriptor_pa))
    }

    /// What the walk of an address depends on that [`Self::input`] has let pass.
    #[inline]
    pub(crate) fn stage1_params(&self, world: World, cd: &Cd, address: u64) -> WalkParams {
        let d0 = cd.d0;
        let half = if world == World::El2 { Half::Low } else { Half::of(address) };
        let (tsz, granule, base) = match half {
            Half::Low => (d0.t0sz(), tg0(d0.tg0()), cd.d1),
            Half::High => (d0.t1sz(), tg1(d0.tg1()), cd.d2),
        };
        // `Walker::input` has let no address of a disabled half pass, and the granule of an enabled one is legal:
        // `ContextTable::fetch`.
        let granule = granule.expect("an enabled half has a legal granule");
        WalkParams {
            hierarchical_attrs_disabled: base.had(),
            access_flag_ignored: d0.affd() || d0.ha(),
            pa52: self.features.has_52_bit_output(),
            ..WalkParams::stage1(
                base.ttb(),
                granule,
                64 - u32::from(tsz),
                self.features.output_bits(d0.ips(), granule),
            )
        }
    }

    fn walk_stage2_only(&self, config: &StreamConfig, tx: &Transaction) -> Result<Translation, Fault> {
        // `Smmu::translate` looks nothing up where both stages are bypassed.
        let stage2 = self.translator(config.stage2.as_ref()).expect("without stage 1 there is stage 2");
        let found = behind_stage2(tx, &IDENTITY, &stage2)?;
        Ok(Translation { fractured: false, ..found })
    }

    pub(crate) fn translator<'s>(&self, stage2: Option<&'s Stage2>) -> Option<Translator<'s, M>>
    where
        'a: 's,
    {
        stage2.map(|stage2| Translator { ram: self.memories.stage2, features: self.features, stage2 })
    }
}

/// Stage 1 where it is bypassed.
const IDENTITY: Translation =
    Translation { pa: 0, size_log2: 63, permissions: Permissions::ALL, global: false, fractured: false };

/// Stage 2 for the result of stage 1.
fn behind_stage2<M: UpdatableMemory>(
    tx: &Transaction,
    stage1: &Translation,
    stage2: &Translator<'_, M>,
) -> Result<Translation, Fault> {
    let ipa = mapping(tx.address, stage1).pa;
    let found = stage2
        .translate(ipa, tx.access, class::IN)
        .map_err(|fault| Fault::of_stage2(tx, stage2.stage2, &fault))?;
    let size_log2 = found.size_log2.min(stage1.size_log2);
    let mut permissions = stage1.permissions.and(found.permissions);
    if stage1.permissions.contains(Permissions::UR) && !found.permissions.contains(Permissions::UR) {
        // PAN depends on what stage 1 lets user space read, which the permissions of both stages don't show: no
        // privileged access to data is cached, so that each one is checked with stage 1.
        permissions = permissions.and(Permissions::PX.or(Permissions::UX).or(Permissions::UW));
    }
    Ok(Translation {
        pa: found.pa & (u64::MAX << size_log2),
        size_log2,
        permissions,
        global: stage1.global,
        fractured: size_log2 < stage1.size_log2,
    })
}

#[inline]
pub(crate) fn mapping(va: u64, found: &Translation) -> Mapping {
    let size = 1 << found.size_log2;
    let offset = va & (size - 1);
    Mapping { pa: found.pa | offset, len: size - offset, size_log2: found.size_log2 }
}
