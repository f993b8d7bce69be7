//! The state as it is saved. What workers are at is data: a task that waits goes on from what its worker has put aside, or
//! from its SQE; the control worker's request and the event writer's action are begun anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hw::regmap::{Access, RegisterMap};
use hw::saved::{Hex, index_of};
use hw::{Iova, Registers, RestoreError};
use serde::{Deserialize, Serialize};

use super::Qm;
use super::counters::Counters;
use super::device::FUNCTION_QUEUES;
use super::engine::Engine;
use super::events::{SavedContext, SavedEvents};
use super::front::Front;
use super::mailbox::SavedMailbox;
use super::patience::SavedPatience;
use super::regs::{QmReg, is_of_function};
use super::task::{HANGS, LastWrites, Parked, Stage};

/// Most writes with which a task takes effect, and most bytes of them: more than any engine makes.
const MOST_LAST_WRITES: usize = 16;
const MOST_LAST_BYTES: usize = 1 << 20;

/// The state of a queue manager, as it is saved with that of its function.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::hisi) struct QmState {
    /// Those that do not have their value of power-on.
    registers: Registers,
    counters: Counters,
    /// The table of functions: by type and function.
    vft: BTreeMap<String, BTreeMap<String, Hex>>,
    /// The AXI master is shut down.
    is_shut: bool,
    mailbox: SavedMailbox,
    /// Low halves of doorbells that arrive in two writes.
    doorbell_low: [u32; 2],
    sqc_table: Option<Hex>,
    cqc_table: Option<Hex>,
    is_write_back_asked: bool,
    patience: SavedPatience,
    events: SavedEvents,
    /// Queues that wait for a worker, in their order, and have no task under way.
    runnable: Vec<u16>,
    /// By number; those that have been used since power-on.
    queues: BTreeMap<String, SavedQueue>,
}

/// A queue as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedQueue {
    #[serde(rename = "SQC")]
    pub(super) sqc: Option<SavedContext>,
    #[serde(rename = "CQC")]
    pub(super) cqc: Option<SavedContext>,
    pub(super) sq_live: bool,
    pub(super) cq_live: bool,
    pub(super) is_halted: bool,
    pub(super) overflow_told: bool,
    pub(super) wants_event: bool,
    pub(super) doorbell_low: u32,
    pub(super) sqes: u32,
    pub(super) cqes: u32,
    /// The task of the SQE at the head, which is under way.
    pub(super) task: Option<SavedTask>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedStage {
    Fetch,
    Execute,
    WriteBack,
    Complete,
}

/// A task that is under way, as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedTask {
    stage: SavedStage,
    /// With its results; where it has not come so far, it is read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sqe: Option<HexBytes>,
    /// Writes with which it takes effect: it is not executed again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last_writes: Vec<SavedWrite>,
    /// What is left of a fault plan's delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_in_ns: Option<u64>,
    /// A fault plan lets it hang until the queue is stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hangs: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct HexBytes(#[serde(with = "hw::saved::hex_bytes")] Vec<u8>);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedWrite {
    #[serde(with = "hw::saved::hex")]
    address: u64,
    data: HexBytes,
}

impl SavedTask {
    pub(super) fn of(parked: Parked) -> Self {
        let Parked { stage, sqe, last, due_in_ns } = parked;
        let write = |(at, data): &(Iova, Vec<u8>)| SavedWrite { address: at.0, data: HexBytes(data.clone()) };
        Self {
            stage: match stage {
                Stage::Fetch => SavedStage::Fetch,
                Stage::Execute => SavedStage::Execute,
                Stage::WriteBack => SavedStage::WriteBack,
                Stage::Complete => SavedStage::Complete,
            },
            sqe: match &last {
                Some(last) => Some(HexBytes(last.sqe.clone())),
                None => (stage == Stage::WriteBack).then_some(HexBytes(sqe)),
            },
            last_writes: last.iter().flat_map(|last| last.writes.iter().map(write)).collect(),
            due_in_ns: due_in_ns.filter(|ns| *ns != HANGS),
            hangs: due_in_ns == Some(HANGS),
        }
    }

    pub(super) fn parked(self, sqe_bytes: usize) -> Result<Parked, RestoreError> {
        let Self { stage, sqe, last_writes, due_in_ns, hangs } = self;
        let stage = match stage {
            SavedStage::Fetch => Stage::Fetch,
            SavedStage::Execute => Stage::Execute,
            SavedStage::WriteBack => Stage::WriteBack,
            SavedStage::Complete => Stage::Complete,
        };
        let has_last = stage == Stage::Execute && !last_writes.is_empty();
        if (has_last || stage == Stage::WriteBack) != sqe.is_some() || has_last == last_writes.is_empty() {
            return Err(RestoreError::value("stage", "does not go with what has been put aside"));
        }
        let sqe = sqe.map_or_else(Vec::new, |HexBytes(sqe)| sqe);
        if !sqe.is_empty() && sqe.len() != sqe_bytes {
            return Err(RestoreError::value("sqe", "is not as long as one"));
        }
        let bytes: usize = last_writes.iter().map(|write| write.data.0.len()).sum();
        if last_writes.len() > MOST_LAST_WRITES || bytes > MOST_LAST_BYTES {
            return Err(RestoreError::value("last_writes", "more than an engine makes"));
        }
        if hangs && (stage != Stage::Fetch || due_in_ns.is_some()) || due_in_ns == Some(HANGS) {
            return Err(RestoreError::value("hangs", "no plan lets it hang there"));
        }
        if due_in_ns.is_some() && stage == Stage::Execute {
            return Err(RestoreError::value("due_in_ns", "no plan delays it there"));
        }
        let writes =
            last_writes.into_iter().map(|SavedWrite { address, data }| (Iova(address), data.0)).collect();
        let due_in_ns = if hangs { Some(HANGS) } else { due_in_ns };
        Ok(match has_last {
            true => {
                Parked { stage, last: Some(Arc::new(LastWrites { sqe, writes })), sqe: Vec::new(), due_in_ns }
            }
            false => Parked { stage, last: None, sqe, due_in_ns },
        })
    }
}

/// Registers whose value is in a bank.
fn is_saved(reg: QmReg) -> bool {
    let info = reg.info();
    info.access != Access::Wo && info.section != "capabilities"
}

/// The bits of a register that can differ from its value of power-on.
fn possible_bits(reg: QmReg) -> u64 {
    match reg {
        // Set by the device.
        QmReg::CACHE_WB_DONE => 1,
        // What they show is kept elsewhere, or they keep nothing.
        QmReg::MAILBOX
        | QmReg::DOORBELL_SQ_CQ
        | QmReg::DOORBELL_EQ_AEQ
        | QmReg::CACHE_WB_START
        | QmReg::ABNORMAL_INT_SET
        | QmReg::MEM_START_INIT
        | QmReg::VFT_CFG_OP_ENABLE => 0,
        _ if reg.info().access == Access::Ro => 0,
        _ => reg.info().writable,
    }
}

impl Front {
    pub(super) fn save(&self, now_ns: u64) -> QmState {
        let function = &self.function;
        let mut registers = self.device.regs.save();
        registers.extend(function.regs.save());
        QmState {
            registers,
            counters: self.device.counters.clone(),
            vft: self.device.vft().save(),
            is_shut: self.device.is_shut,
            mailbox: function.mailbox.save(),
            doorbell_low: function.bell_low,
            sqc_table: function.sqc_table.map(|at| Hex(at.0)),
            cqc_table: function.cqc_table.map(|at| Hex(at.0)),
            is_write_back_asked: self.is_write_back_asked(),
            patience: function.patience.save(now_ns),
            events: function.events.save(),
            runnable: self.scheduler.runnable().filter(|qn| !function.has_begun(*qn)).collect(),
            queues: function.save_queues(now_ns),
        }
    }

    /// Takes up what [`Self::save`] has given, on a queue manager that has just been made and is quiesced.
    pub(super) fn take_up(&mut self, state: QmState, now_ns: u64, most_ns: u64) -> Result<(), RestoreError> {
        let Self { device, function, .. } = self;
        state
            .registers
            .restore_changed(is_saved, |reg, index, value| {
                let bank = if is_of_function(reg) { &mut function.regs } else { &mut device.regs };
                bank.restore(reg, index, value, possible_bits(reg))
            })
            .map_err(|error| error.within("registers"))?;
        device.counters = state.counters;
        device.set_vft(state.vft).map_err(|error| error.within("vft"))?;
        device.is_shut = state.is_shut;
        function.set_count(device.pf_queues());
        function.mailbox.restore(&state.mailbox)?;
        function.bell_low = state.doorbell_low;
        function.sqc_table = state.sqc_table.map(|at| Iova(at.0));
        function.cqc_table = state.cqc_table.map(|at| Iova(at.0));
        function
            .patience
            .restore(&state.patience, now_ns, most_ns)
            .map_err(|error| error.within("patience"))?;
        function.events.restore(state.events, FUNCTION_QUEUES).map_err(|error| error.within("events"))?;
        let mut parked = Vec::new();
        for (key, queue) in state.queues {
            let qn = index_of(&key, FUNCTION_QUEUES.into()).map_err(|error| error.within("queues"))? as u16;
            let refuse = |error: RestoreError| error.within(&key).within("queues");
            if (queue.sq_live || queue.cq_live) && (state.is_shut || !function.has_queue(qn)) {
                return Err(refuse(RestoreError::value(
                    "sq_live",
                    "the function does not have this queue, or its master is shut",
                )));
            }
            if queue.task.is_some() {
                parked.push(qn);
            }
            function.known(qn).restore(queue).map_err(refuse)?;
        }
        self.take_up_requests(state.is_write_back_asked)?;
        // First what was under way.
        let mut listed = BTreeSet::new();
        for qn in parked.into_iter().chain(state.runnable) {
            if qn >= FUNCTION_QUEUES || !listed.insert(qn) {
                return Err(RestoreError::value("runnable", format!("queue {qn} is none, or comes twice")));
            }
            self.make_runnable(qn);
        }
        Ok(())
    }
}

impl<E: Engine> Qm<E> {
    /// As of now. After a quiesce it is whole.
    pub(in crate::hisi) fn saved(&self) -> QmState {
        let now_ns = self.wiring.clock.now_ns();
        self.with(|front| front.save(now_ns))
    }

    /// Takes up what [`Self::saved`] has given. Its accesses are made again after [`hw::LifeCycle::resume`].
    pub(in crate::hisi) fn take_up(&self, state: QmState) -> Result<(), RestoreError> {
        let now_ns = self.wiring.clock.now_ns();
        self.with(|front| {
            let result = front.take_up(state, now_ns, self.wiring.limits.mailbox_patience_ns);
            self.set_timer(front, now_ns);
            result
        })
    }
}
