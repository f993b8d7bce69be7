//! What a debugger asks of a machine. All of it is done by the thread of [`super::life_cycle`], between what others ask.
//!
//! There is one state, running or paused, and whoever can change it does: a debugger that lets the machine go on ends a
//! pause of the control socket's, and the other way round. A debugger that waits for a stop is told of every stop,
//! whoever has made it, once.

use std::fmt;
use std::sync::{Arc, mpsc};

use cpu::DebugPoints;

use crate::engine::debug::{DebugStop, DebugVcpu};
use crate::machine::gate::Order;
use crate::machine::handle::{Handle, Phase, Request, StoppedBy};
use crate::machine::life_cycle::LifeCycle;

/// Why the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A vCPU has come back for it.
    Vcpu(usize, DebugStop),
    /// Somebody has stopped it.
    Interrupted,
}

/// How a debugger is told, on the machine's thread. Must not wait for anything.
pub(crate) type Tell = Box<dyn Fn(Stop) + Send>;

/// What is done with a vCPU that stands.
pub type Job = Box<dyn FnOnce(&mut dyn DebugVcpu) + Send>;

/// What a debugger asks for.
pub(crate) enum DebugRequest {
    /// It is there: the machine is paused, and the sender dropped then.
    Attach(Tell, mpsc::SyncSender<()>),
    /// It goes, and its breakpoints with it.
    Detach {
        /// It has said so, and the machine goes on. One that is lost leaves a machine that it has found paused, and never let
        /// run, as it was.
        goes_on: bool,
    },
    /// These are its breakpoints and watchpoints.
    Points(Arc<DebugPoints>),
    /// Something is to be done with a vCPU. It is dropped where there is none.
    Vcpu(usize, Job),
    /// The machine goes on, each vCPU as ordered, and the debugger waits for a stop.
    Resume(Vec<Order>),
    /// The machine is to stop.
    Interrupt,
}

impl fmt::Debug for DebugRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DebugRequest")
    }
}

/// The debugger that is there.
pub(super) struct Debugger {
    tell: Tell,
    /// It has let the machine go on, and is to be told of the next stop.
    waits: bool,
    /// It has found the machine paused and has not let it run.
    found_paused: bool,
}

impl Handle {
    /// Asks for something on behalf of a debugger. What is asked for is done in order.
    pub(crate) fn debug(&self, request: DebugRequest) {
        self.send(Request::Debug(request));
    }
}

impl LifeCycle {
    pub(super) fn debug(&mut self, request: DebugRequest) {
        if self.phase() == Phase::Ended {
            return;
        }
        match request {
            DebugRequest::Attach(tell, _done) => {
                let found_paused = self.phase() == Phase::Paused;
                self.debugger = Some(Debugger { tell, waits: false, found_paused });
                self.pause(StoppedBy::Gdb);
            }
            DebugRequest::Detach { goes_on } => {
                self.while_standing(|it| {
                    it.set_points(&Arc::default());
                    // Of what has been met meanwhile nobody is told.
                    let _ = it.gate.take_stop();
                    it.gate.order(|_| Order::Run);
                });
                let Some(debugger) = self.debugger.take() else { return };
                let by_gdb = self.handle.status().stopped_by == Some(StoppedBy::Gdb);
                if goes_on || by_gdb && !debugger.found_paused {
                    self.resume();
                }
            }
            DebugRequest::Points(points) => self.while_standing(|it| it.set_points(&points)),
            DebugRequest::Vcpu(cpu, job) => {
                if cpu < self.cpus() {
                    self.while_standing(|it| it.ask(cpu, job));
                }
            }
            DebugRequest::Resume(orders) => self.debug_resume(&orders),
            DebugRequest::Interrupt => {
                self.pause(StoppedBy::Gdb);
                // One that stands already is no less a stop.
                self.tell_debugger();
            }
        }
    }

    fn ask(&self, cpu: usize, job: Job) {
        self.gate.ask(cpu, |vcpu| {
            if let Some(vcpu) = vcpu.debugged() {
                job(vcpu);
            }
        });
    }

    /// The vCPUs stand.
    fn set_points(&self, points: &Arc<DebugPoints>) {
        for cpu in 0..self.cpus() {
            let points = Arc::clone(points);
            self.ask(cpu, Box::new(move |vcpu| vcpu.set_points(&points)));
        }
    }

    fn debug_resume(&mut self, orders: &[Order]) {
        if let Some(debugger) = &mut self.debugger {
            debugger.waits = true;
            debugger.found_paused = false;
        }
        let order = |cpu| orders.get(cpu).copied().unwrap_or_default();
        if self.phase() == Phase::Running {
            // Somebody else has let it go on already.
            self.while_standing(|it| it.gate.order(order));
        } else {
            self.gate.order(order);
            self.resume();
        }
    }

    /// A vCPU has come back for the debugger; unless it has been seen already.
    pub(super) fn debug_stopped(&mut self) {
        if self.gate.has_stop() {
            self.pause(StoppedBy::Gdb);
        }
    }

    /// Tells a debugger that waits for it that the machine stands, and why.
    pub(super) fn tell_debugger(&mut self) {
        let stop = self.gate.take_stop();
        if self.phase() != Phase::Paused {
            return;
        }
        if let Some(debugger) = self.debugger.as_mut().filter(|debugger| debugger.waits) {
            debugger.waits = false;
            (debugger.tell)(stop.map_or(Stop::Interrupted, |(cpu, stop)| Stop::Vcpu(cpu, stop)));
        }
    }
}
