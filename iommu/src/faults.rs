//! What goes wrong on purpose: the SMMU's fault points (`hw::fault`), and answers that are held back.
//!
//! An injected fault takes the way of a real one from where it is found: the same record, stall and answer. A walk that
//! shall fault at a level reads the tables above it first. Deliberately absent: stage 2, whose faults a plan can't name.

use std::cell::Cell;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use hw::ats::{PageRequest, PageResponse, PageResponseCode};
use hw::fault::{FaultAction, FaultPoint, Occasion};
use hw::{Iova, Pasid, StreamId};
use vmsa::{Access, AccessKind, ExternalAbort, Leaf, TableMemory, WalkFaultKind, WalkParams, walk};

use crate::Smmu;
use crate::config::{self, StreamConfig};
use crate::eventq::NotRecorded;
use crate::registers::State;
use crate::spec::event::{Event, EventType, class};
use crate::spec::regs::gerror;
use crate::stage2::Stage2Fault;
use crate::stall::Verdict;
use crate::translate::{Fault, Kind, Transaction, stage1_fault, stage2_fault};

/// Most answers that are held back; further ones go at once.
const MOST_HELD: usize = 1024;

/// An answer of software to something that waits.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Resume(u16, Verdict),
    Pages(PageResponse),
}

/// An answer that waits for the end of its address space.
#[derive(Clone, Copy, Debug)]
struct Held {
    sid: u32,
    ssid: Option<u32>,
    answer: Answer,
}

/// Answers that are held back. Its lock is a leaf.
pub(crate) struct HeldAnswers {
    this: Weak<Smmu>,
    held: Mutex<Vec<Held>>,
}

impl HeldAnswers {
    pub(crate) fn new(this: &Weak<Smmu>) -> Self {
        Self { this: Weak::clone(this), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transaction {
    fn occasion(&self, point: FaultPoint) -> Occasion {
        Occasion::new(point, StreamId(self.sid), self.ssid.and_then(Pasid::new))
            .at(Iova(self.address), 1)
            .during(self.command)
    }
}

/// The event of an injected fault of translation.
const fn event_of(action: FaultAction) -> Option<EventType> {
    Some(match action {
        FaultAction::Translation => EventType::F_TRANSLATION,
        FaultAction::Permission => EventType::F_PERMISSION,
        FaultAction::AccessFlag => EventType::F_ACCESS,
        FaultAction::AddressSize => EventType::F_ADDR_SIZE,
        FaultAction::ExternalAbort => EventType::F_WALK_EABT,
        _ => return None,
    })
}

/// Tables of stage 1 whose descriptors are asked for one by one.
struct WatchedTables<'a, M> {
    smmu: &'a Smmu,
    tx: &'a Transaction,
    memory: &'a M,
    level: Cell<u8>,
    injected: Cell<Option<EventType>>,
}

impl<M: TableMemory> TableMemory for WatchedTables<'_, M> {
    fn load(&self, address: u64) -> Result<u64, ExternalAbort> {
        let level = self.level.replace(self.level.get().wrapping_add(1));
        let occasion = |point| Occasion { level: Some(level), ..self.tx.occasion(point) };
        let injected = self.smmu.faults.at(FaultPoint::SmmuWalk, occasion).and_then(event_of);
        let descriptor = self.memory.load(address)?;
        self.injected.set(injected);
        if injected.is_some() { Err(ExternalAbort) } else { Ok(descriptor) }
    }
}

impl Smmu {
    /// Walks the tables of stage 1; the fault of a walk, as an event, and the address of the descriptor that it is about.
    #[inline]
    pub(crate) fn walk_tables<M: TableMemory>(
        &self,
        params: &WalkParams,
        tx: &Transaction,
        memory: &M,
    ) -> Result<Leaf, (EventType, u64)> {
        if self.faults.watches(FaultPoint::SmmuWalk) {
            return self.walk_watched_tables(params, tx, memory);
        }
        walk(params, tx.address, memory).map_err(|fault| (event_of_walk(fault.kind), fault.descriptor_pa))
    }

    #[cold]
    fn walk_watched_tables<M: TableMemory>(
        &self,
        params: &WalkParams,
        tx: &Transaction,
        memory: &M,
    ) -> Result<Leaf, (EventType, u64)> {
        let level = Cell::new(params.start_level);
        let watched = WatchedTables { smmu: self, tx, memory, level, injected: Cell::new(None) };
        walk(params, tx.address, &watched).map_err(|fault| {
            let event = watched.injected.get().unwrap_or_else(|| event_of_walk(fault.kind));
            (event, fault.descriptor_pa)
        })
    }

    /// At the lookup of a transaction, overrides applied: its fault, or whether the TLB has forgotten the page.
    #[cold]
    pub(crate) fn fault_of_lookup(&self, config: &StreamConfig, tx: &Transaction) -> Result<bool, Fault> {
        let Some(action) = self.faults.at(FaultPoint::SmmuLookup, |point| tx.occasion(point)) else {
            return Ok(false);
        };
        let Some(event) = event_of(action) else { return Ok(action == FaultAction::Miss) };
        Err(match (&config.stage1, &config.stage2) {
            (None, Some(stage2)) => {
                let (class, ipa) = (class::IN, tx.address);
                let fault = Stage2Fault { event, class, ipa, fetch_addr: 0, is_table_write: false };
                stage2_fault(tx, stage2, &fault)
            }
            (Some(cd), _) => stage1_fault(tx, cd, event),
            // Nothing is looked up where nothing is translated.
            (None, None) => return Ok(false),
        })
    }

    /// Guest time after which a stall is to be found again, instead of being recorded now.
    pub(crate) fn delay_of_stall(&self, tx: &mut Transaction, fault: &Fault) -> Option<u64> {
        if !matches!(fault, Fault::Stalled(_)) || mem::take(&mut tx.was_delayed) {
            return None;
        }
        match self.faults.at(FaultPoint::SmmuStall, |point| tx.occasion(point))? {
            FaultAction::Delay { delay } => {
                tx.was_delayed = true;
                Some(delay)
            }
            _ => None,
        }
    }

    /// Why an event of an aborted access is not recorded although it could be.
    pub(crate) fn fault_of_event(&self, state: &mut State, event: &Event) -> Option<NotRecorded> {
        let occasion = |point| {
            let pasid = if event.d0.ssv() { Pasid::new(event.d0.ssid()) } else { None };
            Occasion::new(point, StreamId(event.d0.sid()), pasid).at(Iova(event.d2), 1)
        };
        match self.faults.at(FaultPoint::SmmuEvent, occasion)? {
            FaultAction::Overflow => Some(NotRecorded::Full),
            _ => {
                self.raise(state, gerror::EVENTQ_ABT_ERR);
                Some(NotRecorded::Off)
            }
        }
    }

    pub(crate) fn fault_of_page_request(&self, request: &PageRequest) -> Option<FaultAction> {
        self.faults.at(FaultPoint::SmmuPageRequest, |point| {
            Occasion::new(point, request.tag.stream, request.tag.pasid).at(request.address, 0x1000)
        })
    }

    /// CMD_RESUME.
    pub(crate) fn resume(&self, sid: u32, stag: u16, verdict: Verdict) {
        let mut state = self.state();
        let action = match state.stalls.recorded(sid, stag) {
            Some(stalled) => self
                .faults
                .at(FaultPoint::SmmuResume, |point| {
                    Occasion::new(point, StreamId(sid), stalled.ssid.and_then(Pasid::new))
                        .at(Iova(stalled.address), 1)
                        .during(stalled.command)
                })
                .map(|action| (action, stalled.ssid)),
            None => None,
        };
        let verdict = match action {
            None => verdict,
            Some((FaultAction::Abort { .. }, _)) => Verdict::Abort,
            Some((action, ssid)) => {
                drop(state);
                return self.put_off(action, Held { sid, ssid, answer: Answer::Resume(stag, verdict) });
            }
        };
        state.stalls.resume(sid, stag, verdict);
    }

    /// CMD_PRI_RESP.
    pub(crate) fn answer_pages(&self, sid: u32, response: PageResponse) {
        let occasion = |point| Occasion::new(point, StreamId(sid), response.pasid);
        let code = match self.faults.at(FaultPoint::SmmuPageResponse, occasion) {
            None => response.code,
            Some(FaultAction::Failure) => PageResponseCode::ResponseFailure,
            Some(FaultAction::Invalid) => PageResponseCode::InvalidRequest,
            Some(FaultAction::Duplicate) => {
                self.respond(sid, &response);
                response.code
            }
            Some(action) => {
                let ssid = response.pasid.map(Pasid::get);
                return self.put_off(action, Held { sid, ssid, answer: Answer::Pages(response) });
            }
        };
        self.respond(sid, &PageResponse { code, ..response });
    }

    /// An answer that is not given now.
    #[cold]
    fn put_off(&self, action: FaultAction, held: Held) {
        match action {
            FaultAction::Delay { delay } => {
                let this = Weak::clone(&self.held_answers.this);
                self.faults.later(delay, move || {
                    if let Some(smmu) = this.upgrade() {
                        smmu.give(&held);
                    }
                });
            }
            FaultAction::AfterUnbind => {
                let mut list = self.held_answers.held();
                if list.len() < MOST_HELD {
                    list.push(held);
                } else {
                    drop(list);
                    self.give(&held);
                }
            }
            _ => {}
        }
    }

    fn give(&self, held: &Held) {
        match held.answer {
            Answer::Resume(stag, verdict) => self.state().stalls.resume(held.sid, stag, verdict),
            Answer::Pages(response) => self.respond(held.sid, &response),
        }
    }

    /// Configurations have changed: what is held for contexts that are no more is given now.
    pub(crate) fn release_answers(&self) {
        if !self.faults.watches(FaultPoint::SmmuResume) && !self.faults.watches(FaultPoint::SmmuPageResponse)
        {
            return;
        }
        let table = self.state().stream_table(&self.features);
        let is_bound = |held: &mut Held| {
            let tx = Transaction {
                kind: Kind::Untranslated,
                sid: held.sid,
                ssid: held.ssid,
                address: 0,
                access: Access { kind: AccessKind::Read, privileged: false },
                command: None,
                was_delayed: false,
            };
            config::fetch(&self.ram, &self.features, &table, &tx).is_ok()
        };
        let late: Vec<Held> = self.held_answers.held().extract_if(.., |held| !is_bound(held)).collect();
        late.iter().for_each(|held| self.give(held));
    }
}

const fn event_of_walk(fault: WalkFaultKind) -> EventType {
    match fault {
        WalkFaultKind::Translation => EventType::F_TRANSLATION,
        WalkFaultKind::AddressSize => EventType::F_ADDR_SIZE,
        WalkFaultKind::AccessFlag => EventType::F_ACCESS,
        WalkFaultKind::ExternalAbort => EventType::F_WALK_EABT,
    }
}
