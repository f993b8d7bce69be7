//! What goes wrong on purpose: the queue manager's fault points (`hw::fault`).
//!
//! Each function is asked before the access that it can spoil. `Break` leaves the access out as if it had been made; an
//! [`Outcome`] ends the task as the same error on the bus would.

use std::ops::ControlFlow;

use hw::fault::{Command, FaultAction, FaultPoint, Occasion};
use hw::{DmaFault, Iova, Requester};

use super::Qm;
use super::context::{CQE_BYTES, EVENT_ENTRY_BYTES, Eqe};
use super::engine::Engine;
use super::events::Ring;
use super::task::{HANGS, Outcome, Task};

const GO_ON: ControlFlow<()> = ControlFlow::Continue(());
const LEAVE_OUT: ControlFlow<()> = ControlFlow::Break(());

impl<E: Engine> Qm<E> {
    fn ask(&self, point: FaultPoint, task: &Task, at: Iova, len: u64) -> Option<FaultAction> {
        self.wiring.faults.at(point, |point| {
            Occasion::new(point, self.wiring.stream, task.pasid).at(at, len).during(Some(task.command()))
        })
    }

    fn wait(&self, ns: u64, task: &Task) -> Result<(), Outcome> {
        task.stage.set_due(self.wiring.clock.now_ns().saturating_add(ns).clamp(1, HANGS - 1));
        let result = self.wiring.faults.wait(ns, &task.waiter).map_err(|_| Outcome::Cancelled);
        task.stage.set_due(0);
        result
    }

    /// A delay, as it is saved. Until the queue is stopped, if it is [`HANGS`].
    pub(super) fn wait_or_hang(&self, ns: u64, task: &Task) -> Result<(), Outcome> {
        if ns == HANGS {
            task.stage.set_due(HANGS);
            return task.waiter.wait(|| None).map_err(|_| Outcome::Cancelled);
        }
        self.wait(ns, task)
    }

    /// Before an SQE is read.
    pub(super) fn fault_of_sqe(&self, task: &Task) -> Result<(), Outcome> {
        match self.ask(FaultPoint::QmSqe, task, task.at, 1 << E::LOG2_SQE) {
            Some(FaultAction::Hang) => self.wait_or_hang(HANGS, task),
            Some(FaultAction::Delay { delay }) => self.wait(delay, task),
            _ => Ok(()),
        }
    }

    /// Before an SQE is written back.
    pub(super) fn fault_of_write_back(
        &self,
        task: &Task,
        sqe: &mut [u8],
    ) -> Result<ControlFlow<()>, Outcome> {
        match self.ask(FaultPoint::QmSqeWriteback, task, task.at, 1 << E::LOG2_SQE) {
            Some(FaultAction::Drop) => return Ok(LEAVE_OUT),
            Some(FaultAction::Abort { .. }) => return Err(Outcome::SqeUnwritable),
            Some(FaultAction::BitFlip { byte, bit }) => {
                if let Some(byte) = usize::try_from(byte).ok().and_then(|byte| sqe.get_mut(byte)) {
                    *byte ^= 1 << (bit & 7);
                }
            }
            Some(FaultAction::WrongStatus { status }) => self.engine.set_status(sqe, status),
            Some(FaultAction::Delay { delay }) => self.wait(delay, task)?,
            _ => return Ok(GO_ON),
        }
        // As the plan has made it.
        task.stage.put_sqe(sqe);
        Ok(GO_ON)
    }

    /// Before a CQE is written.
    pub(super) fn fault_of_cqe(&self, task: &Task, at: Iova) -> Result<ControlFlow<()>, Outcome> {
        match self.ask(FaultPoint::QmCqe, task, at, CQE_BYTES) {
            Some(FaultAction::Drop) => return Ok(LEAVE_OUT),
            Some(FaultAction::Abort { .. }) => return Err(Outcome::CqeUnwritable),
            Some(FaultAction::Delay { delay }) => self.wait(delay, task)?,
            _ => {}
        }
        Ok(GO_ON)
    }

    /// Before an entry of an event ring is written. Those of the asynchronous event queue are left alone.
    pub(super) fn fault_of_event(
        &self,
        ring: Ring,
        who: &Requester,
        at: Iova,
        entry: Eqe,
    ) -> Result<ControlFlow<()>, DmaFault> {
        if ring != Ring::Eq {
            return Ok(GO_ON);
        }
        let occasion = |point| {
            let command = Command { queue: entry.qn(), index: None };
            Occasion::new(point, who.tag.stream, None).at(at, EVENT_ENTRY_BYTES).during(Some(command))
        };
        match self.wiring.faults.at(FaultPoint::QmEqe, occasion) {
            Some(FaultAction::Drop) => return Ok(LEAVE_OUT),
            Some(FaultAction::Abort { .. }) => return Err(DmaFault::Aborted(at)),
            Some(FaultAction::Delay { delay }) => self.wiring.faults.wait(delay, &who.waiter)?,
            _ => {}
        }
        Ok(GO_ON)
    }
}
