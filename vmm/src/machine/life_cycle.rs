//! The thread that leads a machine through its life: starts and stops the vCPUs, pauses, resets, looks inside.
//!
//! One thing after the other, so that no two can meet. Guest code runs only between [`LifeCycle::let_run`] and
//! [`LifeCycle::stop_vcpus`], which are called by nobody else. A guest's SYSTEM_RESET is a reset like any other; its wish is
//! kept at the gate until it is granted, whatever else is asked for meanwhile.

use std::io;
use std::sync::{Arc, mpsc};

use anyhow::Context;
use serde_json::{Value, json};

use crate::board::Board;
use crate::console::Console;
use crate::engine::{Exit, Vcpu};
use crate::exit;
use crate::machine::boot::BootFiles;
use crate::machine::debug::Debugger;
use crate::machine::gate::{Gate, Order};
use crate::machine::handle::{Answer, Handle, Operation, Phase, Refused, Request, StoppedBy};
use crate::machine::saving::{SaveTo, Saving, Written};
use crate::machine::{faults, inspect, smmu_paths};
use crate::supervise::Reason;

/// What happens when the guest resets itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OnReset {
    /// It boots again.
    Reboot,
    /// The machine ends, because the user wants it so.
    End,
    /// The machine ends, because it cannot be reset for this reason.
    Impossible(String),
}

impl OnReset {
    /// Why the machine cannot be reset, if so.
    pub(super) fn impossible(&self) -> Option<String> {
        if let Self::Impossible(why) = self { Some(why.clone()) } else { None }
    }
}

/// See the module.
pub(super) struct LifeCycle {
    pub(super) board: Arc<Board>,
    pub(super) gate: Arc<Gate>,
    /// None of a restored machine whose files are gone: it cannot be reset.
    pub(super) boot: Option<BootFiles>,
    /// Why it cannot be saved, if so.
    pub(super) saving: Result<Saving, String>,
    pub(super) console: Arc<Console>,
    pub(super) handle: Handle,
    pub(super) on_reset: OnReset,
    pub(super) starts_paused: bool,
    /// The board stands still, whatever comes next.
    pub(super) is_still: bool,
    /// The debugger that is there.
    pub(super) debugger: Option<Debugger>,
}

impl LifeCycle {
    /// Serves requests until the machine ends.
    pub(super) fn serve(mut self, requests: &mpsc::Receiver<Request>) {
        let mut early = Vec::new();
        for request in requests {
            match request {
                Request::Start => {
                    self.start();
                    // They came before the first instruction, and are served before much else.
                    for request in early.drain(..) {
                        self.serve_one(request);
                    }
                }
                Request::End => return self.end(),
                other if self.phase() == Phase::Starting => early.push(other),
                other => self.serve_one(other),
            }
        }
    }

    fn serve_one(&mut self, request: Request) {
        match request {
            Request::GuestWish => self.grant_wish(),
            Request::Do(operation, reply) => reply.give(self.perform(&operation)),
            Request::Save(to, reply) => reply.give(self.save(&to)),
            Request::DebugStop => self.debug_stopped(),
            Request::Debug(request) => self.debug(request),
            Request::Start | Request::End => {}
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.handle.status_mut().phase
    }

    /// A machine that is paused already has been stopped by whom it was.
    pub(super) fn set_paused(&self, by: StoppedBy) {
        let mut status = self.handle.status_mut();
        status.phase = Phase::Paused;
        status.stopped_by.get_or_insert(by);
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        let mut status = self.handle.status_mut();
        status.phase = phase;
        if matches!(phase, Phase::Running | Phase::Ended) {
            status.stopped_by = None;
        }
    }

    /// The vCPUs stand already.
    fn stand_still(&mut self) {
        if !std::mem::replace(&mut self.is_still, true) {
            self.board.stand_still();
        }
    }

    fn go_on(&mut self) {
        if std::mem::take(&mut self.is_still) {
            self.board.go_on();
        }
    }

    fn start(&mut self) {
        if self.starts_paused {
            self.stand_still();
            self.set_paused(StoppedBy::Start);
        } else {
            // A restored machine stands still until here.
            self.go_on();
            self.set_phase(Phase::Running);
            self.let_run();
        }
    }

    /// The vCPUs stand at the gate when this returns.
    pub(super) fn stop_vcpus(&self) {
        self.gate.close();
        self.board.engine().stop();
        self.gate.wait_for_all();
    }

    /// Lets guest code run, unless the guest itself has asked for something that must come first.
    pub(super) fn let_run(&mut self) {
        if self.gate.has_wish() {
            return self.grant_wish();
        }
        if self.gate.has_stop() {
            return self.debug_stopped();
        }
        self.board.engine().resume();
        self.gate.open();
    }

    fn perform(&mut self, operation: &Operation) -> Answer {
        if self.phase() == Phase::Ended {
            return Err(Refused::Ended);
        }
        match operation {
            Operation::Pause => self.pause(StoppedBy::Control),
            Operation::Resume => {
                self.gate.order(|_| Order::Run);
                self.resume();
            }
            Operation::Reset => self.reset()?,
            Operation::Counters => return inspect::counters(&self.board),
            Operation::Inspect(path) => return self.inspect(path),
            Operation::Fault(order) => return faults::perform(&self.board, order),
        }
        Ok(json!(self.handle.status()))
    }

    pub(super) fn pause(&mut self, by: StoppedBy) {
        if self.phase() == Phase::Running {
            self.pause_untold();
            if self.phase() == Phase::Paused {
                self.set_paused(by);
            }
            self.tell_debugger();
        }
    }

    /// Pauses a machine that runs, without a word to the debugger: for what the machine itself does before it goes on.
    fn pause_untold(&mut self) {
        self.stop_vcpus();
        self.stand_still();
        self.set_phase(Phase::Paused);
        if self.gate.has_wish() {
            self.grant_wish();
        }
    }

    pub(super) fn resume(&mut self) {
        if self.phase() == Phase::Paused {
            self.go_on();
            self.set_phase(Phase::Running);
            self.let_run();
        }
    }

    /// What the guest has asked for, if it has not been granted yet.
    fn grant_wish(&mut self) {
        if self.phase() == Phase::Ended || !self.gate.has_wish() {
            return;
        }
        self.stop_vcpus();
        match (self.gate.take_wish(), &self.on_reset) {
            (Some(Exit::SystemReset), OnReset::Reboot) => {
                log::info!("the guest has reset itself");
                // Its failure has ended the machine.
                let _ = self.reset();
            }
            (Some(exit), _) => {
                self.set_phase(Phase::Ended);
                self.handle.end(Reason::Guest(exit));
            }
            (None, _) => {}
        }
    }

    fn reset(&mut self) -> Result<(), Refused> {
        if let OnReset::Impossible(why) = &self.on_reset {
            return Err(Refused::NoReset(why.clone()));
        }
        let before = self.phase();
        self.set_phase(Phase::Resetting);
        self.stop_vcpus();
        self.stand_still();
        // A wish, or a stop, of the guest that is about to be gone.
        let _ = self.gate.take_wish();
        let _ = self.gate.take_stop();
        if let Err(error) = self.power_on() {
            let why = exit::line(&error);
            self.set_phase(Phase::Ended);
            self.handle.end(Reason::Broken(format!("the machine cannot be reset: {why}")));
            return Err(Refused::ResetFailed(why));
        }
        self.handle.status_mut().resets += 1;
        if before == Phase::Paused {
            self.set_phase(Phase::Paused);
        } else {
            self.go_on();
            self.set_phase(Phase::Running);
            self.let_run();
        }
        Ok(())
    }

    /// Everything as at power-on, loaded anew.
    fn power_on(&self) -> anyhow::Result<()> {
        self.board.reset();
        for index in 0..self.cpus() {
            self.gate.ask(index, |vcpu| vcpu.power_on())?;
        }
        self.console.restarted();
        let boot = self.boot.as_ref().context("it has no files to boot from")?;
        let (pc, x0) = boot.load(boot.read()?, &self.board)?;
        self.gate.ask(0, move |vcpu| vcpu.set_boot_state(pc, x0))
    }

    pub(super) fn cpus(&self) -> usize {
        self.handle.status_mut().cpus as usize
    }

    fn inspect(&mut self, path: &str) -> Answer {
        if let Some(answer) = smmu_paths::look(self.board.smmu(), path) {
            return answer;
        }
        let mut steps = path.split('/').filter(|step| !step.is_empty());
        let first = steps.next().unwrap_or_default();
        let cpus = self.cpus();
        let value = match (0..cpus).find(|cpu| first == format!("cpu{cpu}")) {
            Some(cpu) => Some(self.vcpu(cpu)?),
            None => inspect::of_board(&self.board, first),
        };
        let Some(value) = value else {
            let cpus = (0..cpus).map(|cpu| format!("cpu{cpu}"));
            let there = inspect::names(&self.board).into_iter().chain(cpus).collect();
            return Err(Refused::NoSuchPath { path: path.to_owned(), at: String::new(), there });
        };
        inspect::descend(first, value, steps)
    }

    /// Does something while the vCPUs stand: those of a running machine stop for a moment.
    pub(super) fn while_standing<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let runs = self.phase() == Phase::Running;
        if runs {
            self.stop_vcpus();
        }
        let done = work(self);
        if runs {
            self.let_run();
        }
        done
    }

    /// All of a vCPU.
    fn vcpu(&mut self, cpu: usize) -> Answer {
        let answer = self.while_standing(|it| {
            it.gate.ask(cpu, |vcpu: &mut dyn Vcpu| -> anyhow::Result<Value> {
                let registers = inspect::registers(&vcpu.registers()?, &vcpu.system_registers());
                Ok(inspect::with(inspect::bare(vcpu.save()), "regs", registers))
            })
        });
        answer.map_err(|error| Refused::Engine(exit::line(&error)))
    }

    /// A machine that runs stands still meanwhile. The file gets its name when it goes on.
    fn save(&mut self, to: &SaveTo) -> Answer {
        if self.phase() == Phase::Ended {
            return Err(Refused::Ended);
        }
        if let Err(why) = &self.saving {
            return Err(Refused::NoSave(why.clone()));
        }
        let runs = self.phase() == Phase::Running;
        if runs {
            // A debugger that waits for a stop still does so when the machine goes on.
            self.pause_untold();
        }
        if self.phase() != Phase::Paused {
            // The guest has powered itself off at this moment.
            return Err(Refused::Ended);
        }
        let written = self.write_save(to);
        if runs {
            self.resume();
        }
        written.and_then(Written::finish).map_err(|e| Refused::SaveFailed(e.to_string()))
    }

    fn write_save(&self, to: &SaveTo) -> io::Result<Written> {
        let saving = self.saving.as_ref().map_err(|why| io::Error::other(why.clone()))?;
        let cpus = (0..self.cpus()).map(|index| self.gate.ask(index, |vcpu| vcpu.save()));
        saving.write(to, &self.board, cpus.collect(), self.handle.status().resets)
    }

    fn end(&mut self) {
        self.set_phase(Phase::Ended);
        self.stop_vcpus();
        // Whoever shuts down the devices finds them as ever.
        self.go_on();
        self.gate.end();
    }
}
