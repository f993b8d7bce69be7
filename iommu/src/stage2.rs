//! Stage 2: from intermediate physical to physical addresses, and memory that stage 1 reads through it (3.3.3, 5.2).
//!
//! Deliberately absent: the memory type that the stages give together. A cache-coherent model needs of it no more than
//! whether stage 2 calls the memory of a table Device (S2PTW).

use std::cell::Cell;

use vmsa::{
    Access, AccessKind, ExternalAbort, Managed, Permissions, TableMemory, UpdatableMemory, WalkFaultKind,
    WalkParams, stage2_start, walk,
};

use crate::features::Features;
use crate::spec::event::{EventType, class};
use crate::spec::granule::tg0;
use crate::spec::ste::{SteD1, SteD2, SteD3};

/// Times that a walk is repeated because the descriptor that it was about to update had changed. If a processor keeps
/// changing it, the update ends as an external abort.
pub(crate) const UPDATE_ATTEMPTS: u32 = 1 << 16;

/// Stage 2 of a stream: its fields are legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage2 {
    pub(crate) d1: SteD1,
    pub(crate) d2: SteD2,
    pub(crate) d3: SteD3,
}

/// The level at which walks with these parameters start, if they are legal (S2SL0, S2T0SZ and S2TG).
pub(crate) fn start_level(features: &Features, d2: SteD2) -> Option<u8> {
    let input_bits = 64 - u32::from(d2.s2t0sz());
    stage2_start(tg0(d2.s2tg())?, d2.s2sl0(), input_bits, features.output.bits(), features.small_tables)
}

/// A stage 2 fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage2Fault {
    pub(crate) event: EventType,
    /// What was being translated ([`class`]).
    pub(crate) class: u8,
    pub(crate) ipa: u64,
    /// The descriptor that could not be accessed, if that is the fault.
    pub(crate) fetch_addr: u64,
    /// The access was a write of a descriptor.
    pub(crate) is_table_write: bool,
}

/// Where an intermediate physical address leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage2Leaf {
    /// Of the address itself.
    pub(crate) pa: u64,
    pub(crate) size_log2: u32,
    /// What may be cached: no write permission for a page that is still clean.
    pub(crate) permissions: Permissions,
}

/// Where translation tables are: both in RAM, but for who looks inside and tells reads of one from those of the other.
pub(crate) struct Memories<'a, M> {
    pub(crate) stage1: &'a M,
    pub(crate) stage2: &'a M,
}

impl<M> Clone for Memories<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Memories<'_, M> {}

impl<'a, M> Memories<'a, M> {
    /// The same memory for both.
    #[inline]
    pub(crate) const fn both_in(ram: &'a M) -> Self {
        Self { stage1: ram, stage2: ram }
    }
}

/// Stage 2 with what it needs.
pub(crate) struct Translator<'a, M> {
    pub(crate) ram: &'a M,
    pub(crate) features: &'a Features,
    pub(crate) stage2: &'a Stage2,
}

impl<M> Clone for Translator<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Translator<'_, M> {}

impl<M: UpdatableMemory> Translator<'_, M> {
    /// What its walks depend on.
    pub(crate) fn params(&self) -> WalkParams {
        let d2 = self.stage2.d2;
        // Legal, so it has a granule and a start level.
        // An STE with a reserved S2TG or without a start level is illegal: `stream::fetch`.
        let granule = tg0(d2.s2tg()).expect("a legal STE has a granule for stage 2");
        let start_level = start_level(self.features, d2).expect("a legal STE has a start level for stage 2");
        WalkParams {
            access_flag_ignored: d2.s2affd() || d2.s2ha(),
            pa52: self.features.has_52_bit_output(),
            ..WalkParams::stage2(
                self.stage2.d3.s2ttb(),
                granule,
                64 - u32::from(d2.s2t0sz()),
                self.features.output_bits(d2.s2ps(), granule),
                start_level,
            )
        }
    }

    /// Translates `ipa` for an access of a `class`.
    pub(crate) fn translate(&self, ipa: u64, access: Access, class: u8) -> Result<Stage2Leaf, Stage2Fault> {
        let d2 = self.stage2.d2;
        let is_write = access.kind == AccessKind::Write;
        let fault = |event| Stage2Fault {
            event,
            class,
            ipa,
            fetch_addr: 0,
            is_table_write: is_write && class == class::TT,
        };
        if ipa >> (64 - u32::from(d2.s2t0sz())) != 0 {
            return Err(fault(EventType::F_TRANSLATION));
        }
        let abort = |fetch_addr| Stage2Fault { fetch_addr, ..fault(EventType::F_WALK_EABT) };
        let params = self.params();
        let managed = Managed::new(d2.s2ha(), d2.s2hd());
        let mut descriptor_pa = 0;
        for _ in 0..UPDATE_ATTEMPTS {
            let leaf = walk(&params, ipa, self.ram).map_err(|found| match found.kind {
                WalkFaultKind::ExternalAbort => abort(found.descriptor_pa),
                kind => fault(EventType::of_walk(kind)),
            })?;
            let (attributes, is_clean) = managed.stage2(&leaf);
            let permissions = Permissions::stage2(attributes, true);
            let is_table = class != class::IN;
            let refused_by_ptw = is_table && d2.s2ptw() && attributes.is_device(self.stage2.d1.s2fwb());
            if !permissions.allow(access, false) || refused_by_ptw {
                return Err(fault(EventType::F_PERMISSION));
            }
            descriptor_pa = leaf.descriptor_pa;
            if let Some(new) = managed.stage2_update(&leaf, is_write)
                && !self
                    .ram
                    .replace(descriptor_pa, leaf.descriptor, new)
                    .map_err(|ExternalAbort| abort(descriptor_pa))?
            {
                continue;
            }
            let permissions = if is_clean && !is_write { permissions.without_writes() } else { permissions };
            return Ok(Stage2Leaf {
                pa: leaf.translate(ipa),
                size_log2: u32::from(leaf.size_log2),
                permissions,
            });
        }
        Err(abort(descriptor_pa))
    }

    /// Translates the address of a table of stage 1, or of a context descriptor.
    pub(crate) fn table(&self, ipa: u64, is_write: bool, class: u8) -> Result<u64, Stage2Fault> {
        let kind = if is_write { AccessKind::Write } else { AccessKind::Read };
        Ok(self.translate(ipa, Access { kind, privileged: true }, class)?.pa)
    }
}

/// Where stage 1 finds its tables behind stage 2.
pub(crate) struct Stage1Memory<'a, M> {
    /// Where the tables are, by physical address.
    tables: &'a M,
    stage2: Translator<'a, M>,
    /// The fault of stage 2 that an access ended with.
    fault: Cell<Option<Stage2Fault>>,
    /// Physical address of the latest access.
    pa: Cell<u64>,
}

impl<'a, M: UpdatableMemory> Stage1Memory<'a, M> {
    pub(crate) fn new(tables: &'a M, stage2: Translator<'a, M>) -> Self {
        Self { tables, stage2, fault: Cell::new(None), pa: Cell::new(0) }
    }

    /// Why an access was aborted: stage 2 refused it, or nothing answers at this physical address.
    pub(crate) fn abort(&self) -> Result<u64, Stage2Fault> {
        self.fault.get().map_or(Ok(self.pa.get()), Err)
    }

    fn translate(&self, address: u64, is_write: bool) -> Result<u64, ExternalAbort> {
        let pa = self.stage2.table(address, is_write, class::TT).map_err(|fault| {
            self.fault.set(Some(fault));
            ExternalAbort
        })?;
        self.pa.set(pa);
        Ok(pa)
    }
}

impl<M: UpdatableMemory> TableMemory for Stage1Memory<'_, M> {
    fn load(&self, address: u64) -> Result<u64, ExternalAbort> {
        self.tables.load(self.translate(address, false)?)
    }
}

impl<M: UpdatableMemory> UpdatableMemory for Stage1Memory<'_, M> {
    fn replace(&self, address: u64, expected: u64, new: u64) -> Result<bool, ExternalAbort> {
        self.tables.replace(self.translate(address, true)?, expected, new)
    }
}
