//! A handle to a machine: pause, resume, reset, look inside, end; from any thread, at any time of its life.
//!
//! What is asked for is done by one thread, that of [`super::life_cycle`], one thing after the other. While the machine still starts,
//! requests wait; when it has ended, they are refused.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::faults::FaultRefused;
use crate::machine::debug::DebugRequest;
use crate::machine::saving::SaveTo;
use crate::supervise::{Reason, StopSwitch};

/// Where in its life a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its threads are being started.
    Starting,
    /// Guest code runs.
    Running,
    /// Everything stands still, guest time too.
    Paused,
    /// It is being brought back to power-on.
    Resetting,
    /// Guest code will not run any more.
    Ended,
}

/// Who has stopped a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoppedBy {
    /// It was started so.
    Start,
    /// Whoever has a handle: the control socket.
    Control,
    /// A debugger: when it came, by its breakpoints and steps, by an interrupt.
    Gdb,
}

/// What can be told of a machine at any time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where in its life it is.
    pub phase: Phase,
    /// Who has stopped it, while it is paused.
    pub stopped_by: Option<StoppedBy>,
    /// How often it has been reset.
    pub resets: u64,
    /// Name of the engine.
    pub engine: &'static str,
    /// vCPUs.
    pub cpus: u32,
    /// Bytes of RAM.
    pub memory_bytes: u64,
}

/// What is asked of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Everything stands still, guest time too. A machine that is paused stays so.
    Pause,
    /// Everything goes on. A machine that runs does so.
    Resume,
    /// Power-on. A paused machine is then paused before its first instruction.
    Reset,
    /// The numbers of a run so far.
    Counters,
    /// What is at this path.
    Inspect(String),
    /// Something about the fault rules.
    Fault(FaultOrder),
}

/// What is asked of the fault rules. Rules are in one line, as [`crate::faults::line`] has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultOrder {
    /// The rules from this number on.
    List(u32),
    /// One more rule.
    Arm(String),
    /// The rule of this number counts and fires no more.
    Disarm(u32),
    /// Something goes wrong once.
    Trigger(String),
}

/// Why something is not done.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The machine has ended.
    #[error("the machine has ended")]
    Ended,
    /// This machine cannot be reset.
    #[error("this machine cannot be reset: {0}")]
    NoReset(String),
    /// This machine cannot be saved.
    #[error("this machine cannot be saved: {0}")]
    NoSave(String),
    /// The save has failed; the machine is as before.
    #[error("the save has failed: {0}")]
    SaveFailed(String),
    /// The reset has failed, and the machine ends.
    #[error("the reset has failed, and the machine ends: {0}")]
    ResetFailed(String),
    /// Nothing is at a path.
    #[error("nothing is at {path:?}; {}there is {}", at_part(.at), .there.join(", "))]
    NoSuchPath {
        /// The path.
        path: String,
        /// The deepest part of it at which there is something; empty if there is none.
        at: String,
        /// What there is.
        there: Vec<String>,
    },
    /// What the path names is not there.
    #[error("nothing is at {path:?}: {why}")]
    Nothing {
        /// The path.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// What is at a path is too long.
    #[error("what is at {path:?} has {bytes} bytes, too much for an answer: ask for a part; there is {}", .there.join(", "))]
    TooMuch {
        /// The path.
        path: String,
        /// How much it is.
        bytes: usize,
        /// Its parts.
        there: Vec<String>,
    },
    /// A line is no fault rule.
    #[error("{0}")]
    NoRule(String),
    /// What is asked of the fault rules cannot be done.
    #[error(transparent)]
    Fault(#[from] FaultRefused),
    /// The engine gives no answer.
    #[error("the engine gives no answer: {0}")]
    Engine(String),
}

fn at_part(at: &str) -> String {
    if at.is_empty() { String::new() } else { format!("at {at} ") }
}

/// What came of an [`Operation`].
pub type Answer = Result<Value, Refused>;

/// Where an answer goes, once. If nobody answers, the machine has ended.
pub struct Reply(Option<Box<dyn FnOnce(Answer) + Send>>);

impl Reply {
    /// A reply by a function, which is called on the machine's thread and must not wait for anything.
    pub fn new(function: impl FnOnce(Answer) + Send + 'static) -> Self {
        Self(Some(Box::new(function)))
    }

    pub(super) fn give(mut self, answer: Answer) {
        if let Some(function) = self.0.take() {
            function(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(function) = self.0.take() {
            function(Err(Refused::Ended));
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// What the machine's thread is told.
#[derive(Debug)]
pub(super) enum Request {
    /// All threads are in the sandbox: guest code may run.
    Start,
    /// vCPUs have come back because the guest has asked for something.
    GuestWish,
    /// Somebody asks.
    Do(Operation, Reply),
    /// Somebody asks for a save.
    Save(SaveTo, Reply),
    /// A vCPU has come back for the debugger.
    DebugStop,
    /// The debugger asks.
    Debug(DebugRequest),
    /// The machine ends.
    End,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    status: Arc<Mutex<Status>>,
    switch: Arc<StopSwitch>,
}

impl Handle {
    pub(super) fn new(status: Status, switch: Arc<StopSwitch>) -> (Self, mpsc::Receiver<Request>) {
        let (requests, requested) = mpsc::channel();
        (Self { requests, status: Arc::new(Mutex::new(status)), switch }, requested)
    }

    pub(super) fn send(&self, request: Request) {
        // If the machine's thread has ended, the request is dropped, by which its reply is given.
        let _ = self.requests.send(request);
    }

    pub(super) fn status_mut(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where in its life the machine is. Does not wait for what is under way.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status_mut().clone()
    }

    /// Asks for something, and does not wait.
    pub fn ask(&self, operation: Operation, reply: Reply) {
        self.send(Request::Do(operation, reply));
    }

    /// Asks for a save, and does not wait. The machine stands still while it is written, and is then as before.
    pub fn save(&self, to: SaveTo, reply: Reply) {
        self.send(Request::Save(to, reply));
    }

    /// Asks for a save to the file of the command line, and waits for it.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn wait_for_save(&self) -> Answer {
        let (sender, answer) = mpsc::sync_channel(1);
        self.save(SaveTo::Target, Reply::new(move |answer| drop(sender.send(answer))));
        answer.recv().unwrap_or(Err(Refused::Ended))
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn wait_for(&self, operation: Operation) -> Answer {
        let (sender, answer) = mpsc::sync_channel(1);
        self.ask(operation, Reply::new(move |answer| drop(sender.send(answer))));
        answer.recv().unwrap_or(Err(Refused::Ended))
    }

    /// Makes everything stand still, guest time too.
    ///
    /// # Errors
    /// [`Refused::Ended`]
    pub fn pause(&self) -> Result<(), Refused> {
        self.wait_for(Operation::Pause).map(drop)
    }

    /// Ends what [`Self::pause`] has begun.
    ///
    /// # Errors
    /// [`Refused::Ended`]
    pub fn resume(&self) -> Result<(), Refused> {
        self.wait_for(Operation::Resume).map(drop)
    }

    /// Brings the machine back to power-on, with the same files and options.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn reset(&self) -> Result<(), Refused> {
        self.wait_for(Operation::Reset).map(drop)
    }

    /// Looks inside; see `docs/control.md` for the paths.
    ///
    /// # Errors
    /// [`Refused`]
    pub fn inspect(&self, path: &str) -> Answer {
        self.wait_for(Operation::Inspect(path.to_owned()))
    }

    /// Ends the machine; the first reason counts.
    pub fn end(&self, reason: Reason) {
        self.switch.stop(reason);
    }
}
