//! A look inside for the user: what the SMMU finds in guest memory for a stream, a context and an address, by the
//! specification's names.
//!
//! Tables are read as for a transaction, by the same code, through a memory that notes each read and makes no write.
//! So a look has no effect: no event, nothing cached, no flag of a table updated, nothing counted, and a fault plan is
//! not asked. It takes no notice of caches either: it shows what a transaction finds after their invalidation.

use std::cell::RefCell;
use std::mem;

use hw::saved::hex::value as hex;
use hw::{Faults, Pasid, Ram};
use serde_json::{Map, Value, json};
use vmsa::{Access, AccessKind, ExternalAbort, TableMemory, UpdatableMemory};

use crate::context::{ContextTable, context_index};
use crate::faults::FaultPoints;
use crate::lock::lock;
use crate::smmu::Smmu;
use crate::spec::cd::{Cd, L1Cd};
use crate::spec::event::{Event, EventType, class};
use crate::spec::regs::StrtabBaseCfg;
use crate::spec::ste::{Config, L1Std, Ste};
use crate::stage2::{Memories, Stage2, Translator};
use crate::stream::{self, StreamConfig, StreamTable};
use crate::tlb::Translation;
use crate::transaction::{Fault, Transaction};
use crate::translate::{Walker, mapping};

/// What a structure in memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Configuration,
    Stage1,
    Stage2,
}

/// What was done to memory, or would have been.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A load and its value, if something answers at the address.
    Load { of: Of, address: u64, value: Option<u64> },
    /// A transaction would have updated a descriptor here.
    Update,
}

/// RAM whose reads are noted, and that is not written.
struct Noted<'a> {
    ram: &'a Ram,
    of: Of,
    steps: &'a RefCell<Vec<Step>>,
}

impl TableMemory for Noted<'_> {
    fn load(&self, address: u64) -> Result<u64, ExternalAbort> {
        let value = self.ram.load(address);
        self.steps.borrow_mut().push(Step::Load { of: self.of, address, value: value.ok() });
        value
    }
}

impl UpdatableMemory for Noted<'_> {
    fn replace(&self, _: u64, _: u64, _: u64) -> Result<bool, ExternalAbort> {
        self.steps.borrow_mut().push(Step::Update);
        Ok(true)
    }
}

/// Fields of a structure as numbers, by name.
macro_rules! fields {
    ($($name:literal = $value:expr),* $(,)?) => {
        Map::from_iter([$(($name.to_owned(), Value::from(u64::from($value)))),*])
    };
}

fn ste_fields(&Ste { d0, d1, d2, d3 }: &Ste) -> Map<String, Value> {
    let mut fields = fields! {
        "V" = d0.v(), "Config" = d0.config().0, "S1Fmt" = d0.s1fmt(), "S1CDMax" = d0.s1cdmax(),
        "S1DSS" = d1.s1dss(), "S1CIR" = d1.s1cir(), "S1COR" = d1.s1cor(), "S1CSH" = d1.s1csh(), "DRE" = d1.dre(),
        "CONT" = d1.cont(), "DCP" = d1.dcp(), "PPAR" = d1.ppar(), "MEV" = d1.mev(), "S2FWB" = d1.s2fwb(),
        "S1MPAM" = d1.s1mpam(), "S1STALLD" = d1.s1stalld(), "EATS" = d1.eats(), "STRW" = d1.strw(),
        "MemAttr" = d1.memattr(), "MTCFG" = d1.mtcfg(), "ALLOCCFG" = d1.alloccfg(), "SHCFG" = d1.shcfg(),
        "NSCFG" = d1.nscfg(), "PRIVCFG" = d1.privcfg(), "INSTCFG" = d1.instcfg(),
        "S2T0SZ" = d2.s2t0sz(), "S2SL0" = d2.s2sl0(), "S2IR0" = d2.s2ir0(), "S2OR0" = d2.s2or0(),
        "S2SH0" = d2.s2sh0(), "S2TG" = d2.s2tg(), "S2PS" = d2.s2ps(), "S2AA64" = d2.s2aa64(), "S2ENDI" = d2.s2endi(),
        "S2AFFD" = d2.s2affd(), "S2PTW" = d2.s2ptw(), "S2HD" = d2.s2hd(), "S2HA" = d2.s2ha(), "S2S" = d2.s2s(),
        "S2R" = d2.s2r(),
    };
    fields.insert("S1ContextPtr".into(), hex(d0.s1contextptr_55_6() << 6));
    fields.insert("S2VMID".into(), hex(d2.s2vmid()));
    fields.insert("S2TTB".into(), hex(d3.s2ttb()));
    fields
}

fn cd_fields(&Cd { d0, d1, d2 }: &Cd) -> Map<String, Value> {
    let mut fields = fields! {
        "T0SZ" = d0.t0sz(), "TG0" = d0.tg0(), "IR0" = d0.ir0(), "OR0" = d0.or0(), "SH0" = d0.sh0(), "EPD0" = d0.epd0(),
        "ENDI" = d0.endi(), "T1SZ" = d0.t1sz(), "TG1" = d0.tg1(), "IR1" = d0.ir1(), "OR1" = d0.or1(),
        "SH1" = d0.sh1(), "EPD1" = d0.epd1(), "V" = d0.v(), "IPS" = d0.ips(), "AFFD" = d0.affd(), "WXN" = d0.wxn(),
        "UWXN" = d0.uwxn(), "TBI0" = d0.tbi0(), "TBI1" = d0.tbi1(), "PAN" = d0.pan(), "AA64" = d0.aa64(),
        "HD" = d0.hd(), "HA" = d0.ha(), "S" = d0.s(), "R" = d0.r(), "A" = d0.a(), "ASET" = d0.aset(),
        "HAD0" = d1.had(), "NSCFG0" = d1.nscfg(), "HAD1" = d2.had(), "NSCFG1" = d2.nscfg(),
    };
    fields.insert("ASID".into(), hex(d0.asid()));
    fields.insert("TTB0".into(), hex(d1.ttb()));
    fields.insert("TTB1".into(), hex(d2.ttb()));
    fields
}

fn name_of(event: EventType) -> &'static str {
    EventType::ALL.iter().find(|(other, _)| *other == event).map_or("an unknown event", |(_, name)| name)
}

/// A look at what one stream and SubstreamID lead to.
struct Look<'a> {
    smmu: &'a Smmu,
    table: StreamTable,
    /// A transaction that would look the same up.
    tx: Transaction,
    steps: RefCell<Vec<Step>>,
}

impl<'a> Look<'a> {
    fn new(smmu: &'a Smmu, sid: u32, ssid: Option<u32>) -> Result<Self, String> {
        if let Some(ssid) = ssid.filter(|&ssid| Pasid::new(ssid).is_none()) {
            return Err(format!("SubstreamID {ssid:#x}: has more than 20 bits"));
        }
        let state = lock(&smmu.state);
        if !state.cr0().smmuen() {
            return Err(format!("StreamID {sid:#x}: SMMU_CR0.SMMUEN is 0, so that no table is read"));
        }
        let table = state.stream_table(&smmu.features);
        Ok(Self { smmu, table, tx: Transaction::probe(sid, ssid), steps: RefCell::default() })
    }

    /// An error in one line.
    fn error(&self, why: impl AsRef<str>) -> String {
        let ssid = self.tx.ssid.map_or_else(String::new, |ssid| format!(", SubstreamID {ssid:#x}"));
        format!("StreamID {:#x}{ssid}: {}", self.tx.sid, why.as_ref())
    }

    fn noted(&self, of: Of) -> Noted<'_> {
        Noted { ram: &self.smmu.ram, of, steps: &self.steps }
    }

    /// The latest load of a configuration structure since the steps were taken last.
    fn last_configuration(&self) -> Option<(u64, u64)> {
        self.steps.borrow().iter().rev().find_map(|step| match *step {
            Step::Load { of: Of::Configuration, address, value } => Some((address, value?)),
            _ => None,
        })
    }

    /// The error that a fault of the configuration is, `missing` if the ID leads nowhere.
    fn refused(&self, fault: Fault, missing: impl FnOnce() -> String) -> String {
        let event = match fault {
            Fault::Recorded(event) | Fault::Stalled(event) => event,
            Fault::Silent | Fault::Blocked => return self.error(missing()),
        };
        let name = name_of(event.d0.event());
        self.error(match event.d0.event() {
            EventType::C_BAD_STREAMID | EventType::C_BAD_SUBSTREAMID => format!("{} ({name})", missing()),
            EventType::F_STE_FETCH | EventType::F_CD_FETCH => {
                format!("no memory answers at {:#x} ({name})", event.d3)
            }
            EventType::F_STREAM_DISABLED => match self.tx.ssid {
                Some(_) => {
                    format!("STE.S1DSS gives this context to transactions without SubstreamID ({name})")
                }
                None => format!("STE.S1DSS terminates transactions without SubstreamID ({name})"),
            },
            _ if event.d1.s2() => format!("stage 2 of the context descriptor's address ends with {name}"),
            _ => name.to_owned(),
        })
    }

    /// The stream table entry, whose V is 1, and its address.
    fn ste(&self) -> Result<(u64, Ste), String> {
        let found =
            stream::load_ste(&self.noted(Of::Configuration), &self.smmu.features, &self.table, &self.tx);
        let (address, ste) = found.map_err(|fault| {
            self.refused(fault, || match self.last_configuration() {
                Some((_, l1std)) => {
                    format!("is beyond L1STD.Span, which is {}", L1Std::from(l1std).span())
                }
                None => {
                    format!("is beyond SMMU_STRTAB_BASE_CFG.LOG2SIZE, which is {}", self.table.cfg.log2size())
                }
            })
        })?;
        if ste.d0.v() { Ok((address, ste)) } else { Err(self.error("STE.V is 0")) }
    }

    /// The stream table entry, which is legal and lets transactions pass.
    fn legal_ste(&self) -> Result<Ste, String> {
        let (_, ste) = self.ste()?;
        if !stream::is_legal_ste(&self.smmu.features, &ste) {
            return Err(self.error("the STE is ILLEGAL (C_BAD_STE)"));
        }
        match ste.d0.config() {
            Config::BYPASS | Config::S1 | Config::S2 | Config::S1_S2 => Ok(ste),
            Config(config) => Err(self.error(format!("STE.Config is {config:#05b}: all is aborted"))),
        }
    }

    /// The context descriptor of a stream with stage 1, whose V is 1: its address and whether it is legal. `None` if
    /// stage 1 is bypassed.
    fn context(&self, ste: &Ste) -> Result<Option<(u64, Cd, bool)>, String> {
        let features = &self.smmu.features;
        let beyond = || format!("is beyond STE.S1CDMax, which is {}", ste.d0.s1cdmax());
        let index = context_index(features, ste, &self.tx).map_err(|fault| self.refused(fault, beyond))?;
        let Some(index) = index else { return Ok(None) };
        let (configuration, stage2_tables) = (self.noted(Of::Configuration), self.noted(Of::Stage2));
        // So that its faults say what they are.
        let stage2 = Stage2 { d1: ste.d1, d2: ste.d2.with_s2s(false).with_s2r(true), d3: ste.d3 };
        let has_stage2 = ste.d0.config() == Config::S1_S2;
        let contexts = ContextTable {
            ram: &configuration,
            features,
            ste,
            world: stream::world(features, self.table.cr2, ste),
            stage2: has_stage2.then_some(Translator { ram: &stage2_tables, features, stage2: &stage2 }),
        };
        self.steps.take();
        let (address, cd) = contexts.load_cd(&self.tx, index).map_err(|fault| {
            self.refused(fault, || match self.last_configuration() {
                Some((_, l1cd)) if L1Cd::from(l1cd).v() => {
                    "L1CD.L2Ptr is beyond the physical addresses that there are".into()
                }
                _ => "L1CD.V is 0".into(),
            })
        })?;
        if !cd.d0.v() {
            return Err(self.error("CD.V is 0"));
        }
        Ok(Some((address, cd, contexts.is_legal(&cd))))
    }

    /// The descriptors that the latest walk has loaded, in order.
    fn levels(&self, walker: &Walker<'_, Noted<'_>>, config: &StreamConfig, input: u64) -> Vec<Value> {
        let steps = self.steps.take();
        let has = |wanted| steps.iter().any(|step| matches!(step, Step::Load { of, .. } if *of == wanted));
        // Whose tables were read, their parameters are in range.
        let start = |of| match (of, &config.stage1) {
            (Of::Stage1, Some(cd)) if has(of) => walker.stage1_params(config.world, cd, input).start_level,
            (Of::Stage2, _) if has(of) => {
                walker.translator(config.stage2.as_ref()).map_or(0, |stage2| stage2.params().start_level)
            }
            _ => 0,
        };
        let (start1, start2) = (start(Of::Stage1), start(Of::Stage2));
        let (mut next1, mut next2) = (start1, start2);
        let mut levels = Vec::new();
        for step in steps {
            let Step::Load { of, address, value } = step else {
                next2 = start2;
                continue;
            };
            let (stage, next) = match of {
                Of::Stage2 => (2, &mut next2),
                // Each table of stage 1 is found by a walk of stage 2 of its own.
                Of::Stage1 | Of::Configuration => {
                    next2 = start2;
                    (1, &mut next1)
                }
            };
            let level = mem::replace(next, next.saturating_add(1));
            let descriptor = value.map(hex);
            levels.push(json!({
                "stage": stage, "level": level, "address": hex(address), "descriptor": descriptor,
            }));
        }
        levels
    }
}

/// The fault that a walk ended with, and what the context makes of it: S, R, S2S and S2R.
fn fault_fields(event: &Event, ste: &Ste, cd: Option<&Cd>) -> Value {
    let (name, d1) = (event.d0.event(), event.d1);
    let (stage, stalls, records) = match (d1.s2(), cd) {
        (true, _) => (Some(2), ste.d2.s2s(), ste.d2.s2r()),
        (false, Some(cd)) => (Some(1), cd.d0.s(), cd.d0.r()),
        // An address beyond the address space, which no table translates.
        (false, None) => (None, false, true),
    };
    let is_governed = name.is_of_translation();
    let class = match d1.class() {
        class::CD => "CD",
        class::TT => "TT",
        _ => "IN",
    };
    let (ipa, fetch_addr) = match name {
        EventType::F_WALK_EABT => (None, Some(hex(event.d3))),
        _ if d1.s2() => (Some(hex(event.d3)), None),
        _ => (None, None),
    };
    json!({
        "fault": name_of(name), "stage": stage, "CLASS": class, "IPA": ipa, "FetchAddr": fetch_addr,
        "is_stalled": is_governed && stalls, "is_recorded": !is_governed || stalls || records,
    })
}

impl Smmu {
    /// The stream table entry of a stream (5.2), and the level 1 descriptor that leads to it.
    ///
    /// # Errors
    /// A line that says why there is none.
    pub fn inspect_stream(&self, sid: u32) -> Result<Value, String> {
        let look = Look::new(self, sid, None)?;
        let (address, ste) = look.ste()?;
        let mut found = json!({
            "StreamID": hex(sid), "address": hex(address), "STE": ste_fields(&ste),
            "is_legal": stream::is_legal_ste(&self.features, &ste),
        });
        // The level 1 descriptor is what is read first.
        if look.table.cfg.fmt() == StrtabBaseCfg::FMT_2LVL
            && let Some(Step::Load { address, value: Some(l1std), .. }) = look.steps.take().first()
        {
            let l1std = L1Std::from(*l1std);
            let (span, l2ptr) = (l1std.span(), hex(l1std.l2ptr_55_6() << 6));
            found["L1STD"] = json!({ "address": hex(*address), "Span": span, "L2Ptr": l2ptr });
        }
        Ok(found)
    }

    /// The context descriptor of a stream's SubstreamID (5.4), or of its transactions without one.
    ///
    /// # Errors
    /// A line that says why there is none.
    pub fn inspect_cd(&self, sid: u32, ssid: Option<u32>) -> Result<Value, String> {
        let look = Look::new(self, sid, ssid)?;
        let ste = look.legal_ste()?;
        let config = ste.d0.config();
        if config != Config::S1 && config != Config::S1_S2 {
            return Err(look.error(format!("STE.Config is {:#05b}: there is no stage 1", config.0)));
        }
        let Some((address, cd, is_legal)) = look.context(&ste)? else {
            return Err(look.error("STE.S1DSS lets transactions without SubstreamID bypass stage 1"));
        };
        let mut fields = cd_fields(&cd);
        // D3, which translation makes no use of.
        fields.insert("MAIR".into(), self.ram.load(address + 24).map_or(Value::Null, hex));
        Ok(json!({
            "StreamID": hex(sid), "SubstreamID": ssid.map(hex), "address": hex(address), "CD": fields,
            "is_legal": is_legal,
        }))
    }

    /// The walk of an input address: each descriptor that is read, by stage and level, and where it leads. `levels` are
    /// those of the first access that is permitted, or of an unprivileged read; what is permitted is asked for each kind
    /// of access that a transaction with or without a SubstreamID can be.
    ///
    /// # Errors
    /// A line that says why there is no walk.
    pub fn inspect_walk(&self, sid: u32, ssid: Option<u32>, iova: u64) -> Result<Value, String> {
        let look = Look::new(self, sid, ssid)?;
        let ste = look.legal_ste()?;
        let cd = match ste.d0.config() {
            Config::S1 | Config::S1_S2 => match look.context(&ste)? {
                Some((.., false)) => return Err(look.error("the CD is ILLEGAL (C_BAD_CD)")),
                found => found.map(|(_, cd, _)| cd),
            },
            _ if ssid.is_some() => {
                return Err(look.error("without stage 1 there are no SubstreamIDs (C_BAD_SUBSTREAMID)"));
            }
            _ => None,
        };
        let no_plan = FaultPoints(Faults::default());
        let (stage1, stage2) = (look.noted(Of::Stage1), look.noted(Of::Stage2));
        let memories = Memories { stage1: &stage1, stage2: &stage2 };
        let walker = Walker { memories, features: &self.features, faults: &no_plan };
        // As if each fault were recorded: what a context records is told apart from what happens.
        let recording = Ste { d2: ste.d2.with_s2s(false).with_s2r(true), ..ste };
        let Some(shape) = stream::shape(&self.features, &look.table, &recording) else {
            return Err(look.error("all is aborted"));
        };
        let stage1 = cd.map(|cd| Cd { d0: cd.d0.with_s(false).with_r(true), ..cd });
        let config = StreamConfig { stage1, ..shape };
        if config.stage1.is_none() && config.stage2.is_none() {
            let outcome = match self.features.in_output_range(iova) {
                true => json!({ "output_address": hex(iova) }),
                false => json!({ "fault": name_of(EventType::F_ADDR_SIZE) }),
            };
            return Ok(json!({ "input_address": hex(iova), "levels": [], "outcome": outcome }));
        }

        let attempt = |access| -> (Result<Translation, Fault>, Vec<Value>) {
            let tx = Transaction { address: iova, access, ..look.tx }.with_overrides(config.d1);
            look.steps.take();
            let found = walker.input(&config, &tx).and_then(|_| walker.walk(&config, &tx));
            (found, look.levels(&walker, &config, iova))
        };
        let mut first_refused = None;
        let mut first_permitted = None;
        let mut permissions = Map::new();
        for (privileged, name) in [(false, "unprivileged"), (true, "privileged")] {
            if privileged && ssid.is_none() {
                continue;
            }
            let mut letters = String::new();
            for (kind, letter) in
                [(AccessKind::Read, 'r'), (AccessKind::Write, 'w'), (AccessKind::Execute, 'x')]
            {
                if kind == AccessKind::Execute && ssid.is_none() {
                    continue;
                }
                let (found, levels) = attempt(Access { kind, privileged });
                letters.push(if found.is_ok() { letter } else { '-' });
                match found {
                    Ok(found) => first_permitted = first_permitted.or(Some((found, levels))),
                    Err(fault) => first_refused = first_refused.or(Some((fault, levels))),
                }
            }
            permissions.insert(name.into(), letters.into());
        }
        let (outcome, levels) = match (first_permitted, first_refused) {
            (Some((found, levels)), _) => {
                let outcome = json!({
                    "output_address": hex(mapping(iova, &found).pa), "bytes": hex(1u64 << found.size_log2),
                    "permissions": permissions,
                });
                (outcome, levels)
            }
            (None, Some((Fault::Recorded(event) | Fault::Stalled(event), levels))) => {
                (fault_fields(&event, &ste, cd.as_ref()), levels)
            }
            (None, _) => return Err(look.error("is aborted without a record")),
        };
        Ok(json!({ "input_address": hex(iova), "levels": levels, "outcome": outcome }))
    }
}
