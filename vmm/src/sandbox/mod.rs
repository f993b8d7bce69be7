//! The sandbox: after set-up, each thread can do what its work needs and no more. `docs/sandbox.md`
//!
//! A guest that finds a hole in a device model or in the CPU engine has our process, and is then still here: filters of
//! system calls (seccomp), one for each kind of thread and one for each drive's ([`calls`]); no way to names of files but
//! those of the outputs, and none to other processes (Landlock); no new privileges. Deliberately absent: namespaces and
//! users, which whoever starts the program gives it.

pub mod calls;
mod files;
mod filter;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use landlock::RulesetStatus;
use thiserror::Error;

use crate::crash;
use crate::sandbox::calls::{Descriptors, EngineCalls, Names};
use crate::sandbox::filter::Filter;
use crate::supervise::StopSwitch;

/// What a thread is for, which decides what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// Watches over the machine; puts outputs in place.
    Main,
    /// Runs guest code and device registers.
    Vcpu,
    /// Calls timer targets.
    Alarms,
    /// Copies the guest's output.
    Console,
    /// Starts the threads that devices ask for.
    Spawner,
    /// Works for an accelerator or a DMA test device.
    Accel,
    /// Leads the machine through its life: pauses, resets.
    LifeCycle,
    /// Serves the control socket.
    Control,
    /// Serves a debugger.
    Gdb,
    /// Writes the timeline.
    Trace,
    /// Serves the drive of this index.
    Disk(usize),
}

impl Thread {
    /// All kinds, with the first drive's for all drives'.
    pub const ALL: [Self; 11] = [
        Self::Main,
        Self::Vcpu,
        Self::Alarms,
        Self::Console,
        Self::Spawner,
        Self::Accel,
        Self::LifeCycle,
        Self::Control,
        Self::Gdb,
        Self::Trace,
        Self::Disk(0),
    ];

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Alarms => "alarms",
            Self::Console => "console",
            Self::Spawner => "spawner",
            Self::Accel => "accel",
            Self::LifeCycle => "lifecycle",
            Self::Control => "control",
            Self::Gdb => "gdb",
            Self::Trace => "trace",
            Self::Disk(_) => "disk",
        }
    }
}

/// The sandbox cannot be had.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// Its filters of system calls.
    #[error("the sandbox's filter of system calls is refused: {0}; --sandbox off runs without")]
    Filter(seccompiler::Error),
    /// Its rules for files.
    #[error("the sandbox's rules for files are refused: {0}; --sandbox off runs without")]
    Files(String),
    /// The signal that a filter sends.
    #[error("the sandbox cannot take the signal SIGSYS: {0}; --sandbox off runs without")]
    Signal(io::Error),
}

/// Folders in which threads still reach names.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// Where the main thread puts files in place at the end.
    pub outputs: Vec<PathBuf>,
    /// Where it removes a name at the end.
    pub removals: Vec<PathBuf>,
    /// Where the thread of the machine's life cycle makes files for saves and puts them in place.
    pub saves: Vec<PathBuf>,
}

impl Folders {
    /// Those of one thread.
    fn of(&self, thread: Thread) -> Self {
        match thread {
            Thread::Main => Self { saves: Vec::new(), ..self.clone() },
            Thread::LifeCycle => Self { saves: self.saves.clone(), ..Self::default() },
            _ => Self::default(),
        }
    }
}

impl From<Vec<PathBuf>> for Folders {
    fn from(outputs: Vec<PathBuf>) -> Self {
        Self { outputs, ..Self::default() }
    }
}

struct Rules {
    filters: BTreeMap<Thread, Filter>,
    folders: Folders,
}

/// What threads are put into when they start.
#[derive(Clone)]
pub struct Sandbox {
    rules: Option<Arc<Rules>>,
    /// What a panic of a thread presses.
    switch: Option<Arc<StopSwitch>>,
}

impl Sandbox {
    /// No sandbox: threads do what they like.
    #[must_use]
    pub const fn off() -> Self {
        Self { rules: None, switch: None }
    }

    /// The same, whose threads press this switch when they panic; see [`crash`].
    #[must_use]
    pub fn pressing(self, switch: &Arc<StopSwitch>) -> Self {
        Self { switch: Some(Arc::clone(switch)), ..self }
    }

    /// The sandbox of a process. `folders` are those in which the main thread reaches names, `descriptors` what the threads work with; `engine` is what the engine needs beyond what all threads may do.
    ///
    /// From here on a forbidden call ends the process with a message, and neither the calling thread nor those that it
    /// starts reach other processes. The calling thread is not in the sandbox yet.
    ///
    /// # Errors
    /// [`SandboxError`]
    pub fn new(
        folders: impl Into<Folders>,
        descriptors: &Descriptors,
        engine: EngineCalls,
    ) -> Result<Self, SandboxError> {
        let folders = folders.into();
        let names = Names {
            puts: !folders.outputs.is_empty(),
            removes: !folders.removals.is_empty(),
            saves: !folders.saves.is_empty(),
        };
        let others = Thread::ALL.into_iter().filter(|thread| !matches!(thread, Thread::Disk(_)));
        // A drive that is not there has a thread that can do nothing with it; its kind exists.
        let disks = (0..descriptors.drives.len().max(1)).map(Thread::Disk);
        let filters = others.chain(disks).map(|t| Ok((t, Filter::new(t, names, descriptors, engine)?)));
        let filters = filters.collect::<Result<_, SandboxError>>()?;
        files::leave_other_processes()?;
        report::start().map_err(SandboxError::Signal)?;
        Ok(Self { rules: Some(Arc::new(Rules { filters, folders })), switch: None })
    }

    /// Puts the calling thread into the sandbox. There is no way out.
    ///
    /// # Errors
    /// [`SandboxError`]; the thread must then not go on.
    pub fn enter(&self, thread: Thread) -> Result<(), SandboxError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        report::name_thread(thread);
        let files = files::enter(&rules.folders.of(thread))?;
        rules.filters[&thread].enter()?;
        if thread == Thread::Main {
            match files {
                RulesetStatus::FullyEnforced => {}
                RulesetStatus::PartiallyEnforced => {
                    log::info!("sandbox: this kernel's Landlock knows only some of the rules for files");
                }
                RulesetStatus::NotEnforced => {
                    log::info!("sandbox: no Landlock in this kernel, only filters of system calls");
                }
            }
        }
        Ok(())
    }

    /// Starts a thread, which enters the sandbox before it does any work. A panic of its ends the machine.
    ///
    /// # Errors
    /// If the host gives no thread, or none in the sandbox.
    pub fn spawn(
        &self,
        thread: Thread,
        name: impl Into<String>,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let builder = thread::Builder::new().name(name.into());
        let switch = self.switch.clone();
        let work = move || {
            if let Some(switch) = switch {
                crash::press_on_panic(switch);
            }
            work();
        };
        if self.rules.is_none() {
            return builder.spawn(work).map_err(with_limits);
        }
        let sandbox = self.clone();
        let (report, entered) = mpsc::sync_channel(1);
        let handle = builder.spawn(move || {
            let result = sandbox.enter(thread);
            let is_inside = result.is_ok();
            // The other end waits for this.
            let _ = report.send(result);
            if is_inside {
                work();
            }
        });
        let handle = handle.map_err(with_limits)?;
        match entered.recv() {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::other("the thread ended on its way into the sandbox")),
        }
    }
}

/// The host's refusal of a thread, with what its user can look at.
fn with_limits(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::WouldBlock {
        return error;
    }
    let limits = "the host gives no further thread (limits are ulimit -u and pids.max of a container)";
    io::Error::new(error.kind(), limits)
}
