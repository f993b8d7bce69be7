//! What goes wrong on purpose: the SMMU's fault points (`hw::fault`).
//!
//! The plan is asked at the place where the real fault would be found, and its action is carried out there, so that
//! an injected fault has the same record, stall and answer. A walk with a fault at some level reads the tables above
//! it first. Deliberately absent: stage 2, whose faults a plan can't name.

use std::cell::Cell;
use std::mem;

use hw::ats::{PageRequest, PageResponse};
use hw::fault::{FaultAction, FaultPoint, Occasion};
use hw::{Faults, Iova, Pasid, StreamId};
use vmsa::{ExternalAbort, Leaf, TableMemory, WalkParams, walk};

use crate::spec::event::{Event, EventType};
use crate::stalls::Stalled;
use crate::transaction::Transaction;

/// The questions that the SMMU asks the fault plan.
#[derive(Debug)]
pub(crate) struct FaultPoints(pub(crate) Faults);

/// What goes wrong with a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupFault {
    /// The TLB counts as empty.
    Miss,
    /// The lookup ends with this event.
    Event(EventType),
}

fn occasion(tx: &Transaction, point: FaultPoint) -> Occasion {
    Occasion::new(point, StreamId(tx.sid), tx.ssid.and_then(Pasid::new))
        .at(Iova(tx.address), 1)
        .during(tx.command)
}

/// The event of an injected fault of translation.
fn event_of(action: FaultAction) -> EventType {
    match action {
        FaultAction::Translation => EventType::F_TRANSLATION,
        FaultAction::Permission => EventType::F_PERMISSION,
        FaultAction::AccessFlag => EventType::F_ACCESS,
        FaultAction::AddressSize => EventType::F_ADDR_SIZE,
        FaultAction::ExternalAbort => EventType::F_WALK_EABT,
        other => not_of_this_point(other),
    }
}

/// [`Faults::at`] gives only actions from the list of the point that it is asked about.
pub(crate) fn not_of_this_point(action: FaultAction) -> ! {
    unreachable!("{action:?} is not among the actions of the fault point")
}

/// Tables of stage 1 that ask the plan at each descriptor.
struct WatchedTables<'a, M> {
    faults: &'a Faults,
    tx: &'a Transaction,
    memory: &'a M,
    level: Cell<u8>,
    injected: Cell<Option<EventType>>,
}

impl<M: TableMemory> TableMemory for WatchedTables<'_, M> {
    fn load(&self, address: u64) -> Result<u64, ExternalAbort> {
        let level = self.level.replace(self.level.get().wrapping_add(1));
        let occasion = |point| Occasion { level: Some(level), ..occasion(self.tx, point) };
        let injected = self.faults.at(FaultPoint::SmmuWalk, occasion).map(event_of);
        let descriptor = self.memory.load(address)?;
        self.injected.set(injected);
        if injected.is_some() { Err(ExternalAbort) } else { Ok(descriptor) }
    }
}

impl FaultPoints {
    /// Whether the plan names lookups: then each page of an access is looked up.
    #[inline]
    pub(crate) fn watches_lookups(&self) -> bool {
        self.0.watches(FaultPoint::SmmuLookup)
    }

    /// Walks the tables of stage 1; the fault of a walk, as an event, and the address of the descriptor that it is about.
    #[inline]
    pub(crate) fn walk<M: TableMemory>(
        &self,
        params: &WalkParams,
        tx: &Transaction,
        memory: &M,
    ) -> Result<Leaf, (EventType, u64)> {
        if self.0.watches(FaultPoint::SmmuWalk) {
            return self.walk_watched(params, tx, memory);
        }
        walk(params, tx.address, memory)
            .map_err(|fault| (EventType::of_walk(fault.kind), fault.descriptor_pa))
    }

    #[cold]
    fn walk_watched<M: TableMemory>(
        &self,
        params: &WalkParams,
        tx: &Transaction,
        memory: &M,
    ) -> Result<Leaf, (EventType, u64)> {
        let level = Cell::new(params.start_level);
        let watched = WatchedTables { faults: &self.0, tx, memory, level, injected: Cell::new(None) };
        walk(params, tx.address, &watched).map_err(|fault| {
            let event = watched.injected.get().unwrap_or_else(|| EventType::of_walk(fault.kind));
            (event, fault.descriptor_pa)
        })
    }

    /// At the lookup of a transaction, with its stream's overrides.
    #[cold]
    pub(crate) fn at_lookup(&self, tx: &Transaction) -> Option<LookupFault> {
        let action = self.0.at(FaultPoint::SmmuLookup, |point| occasion(tx, point))?;
        Some(match action {
            FaultAction::Miss => LookupFault::Miss,
            fault => LookupFault::Event(event_of(fault)),
        })
    }

    /// When a stall is about to be recorded: the guest time after which it is to be found again instead. Each stall is
    /// delayed once.
    pub(crate) fn delay_of_stall(&self, tx: &mut Transaction) -> Option<u64> {
        if mem::take(&mut tx.was_delayed) {
            return None;
        }
        match self.0.at(FaultPoint::SmmuStall, |point| occasion(tx, point))? {
            FaultAction::Delay { delay } => {
                tx.was_delayed = true;
                Some(delay)
            }
            other => not_of_this_point(other),
        }
    }

    /// When the event of an aborted access is about to be recorded.
    pub(crate) fn at_event(&self, event: &Event) -> Option<FaultAction> {
        self.0.at(FaultPoint::SmmuEvent, |point| {
            let pasid = if event.d0.ssv() { Pasid::new(event.d0.ssid()) } else { None };
            Occasion::new(point, StreamId(event.d0.sid()), pasid).at(Iova(event.d2), 1)
        })
    }

    /// When a page request comes in.
    pub(crate) fn at_page_request(&self, request: &PageRequest) -> Option<FaultAction> {
        self.0.at(FaultPoint::SmmuPageRequest, |point| {
            Occasion::new(point, request.tag.stream, request.tag.pasid).at(request.address, 0x1000)
        })
    }

    /// When software answers a stalled transaction.
    pub(crate) fn at_resume(&self, sid: u32, stalled: &Stalled) -> Option<FaultAction> {
        self.0.at(FaultPoint::SmmuResume, |point| {
            Occasion::new(point, StreamId(sid), stalled.ssid.and_then(Pasid::new))
                .at(Iova(stalled.address), 1)
                .during(stalled.command)
        })
    }

    /// When software answers a group of page requests.
    pub(crate) fn at_page_response(&self, sid: u32, response: &PageResponse) -> Option<FaultAction> {
        let occasion = |point| Occasion::new(point, StreamId(sid), response.pasid);
        self.0.at(FaultPoint::SmmuPageResponse, occasion)
    }
}
