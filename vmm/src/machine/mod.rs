//! A machine from power-on to its end: files loaded, board assembled, threads started, watched and joined.
//!
//! `life_cycle` is the thread that leads it through its life, `handle` how others reach that thread, `gate` where vCPUs
//! stand meanwhile, `debug` what a debugger asks, `boot` what the guest boots from, `inspect` what can be seen from outside.

mod boot;
pub(crate) mod debug;
mod faults;
pub(crate) mod gate;
mod handle;
mod inspect;
mod life_cycle;
mod saving;
mod smmu_paths;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use cpu::{CodeMap, Observation};
use devices::virtio::BlockBackend;
use hw::guest_error::ModelErrors;
use hw::{GuestErrors, Trace};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::accelerator::Accelerator;
use crate::board::numa::Topology;
use crate::board::stats::Stats;
use crate::board::{Board, BoardConfig};
use crate::cli::{Device, EngineChoice, MachineArgs, ProcessArgs, SandboxChoice};
use crate::console::{Console, Outputs};
use crate::control;
use crate::control::line::Line;
use crate::control::server::Server;
use crate::crash::Running;
use crate::engine::debug::DebugVcpu;
use crate::engine::soft::SoftOptions;
use crate::engine::statistics::EngineReport;
use crate::engine::{self, Exit, Vcpu};
use crate::exit::Failed;
use crate::faults::{FaultReport, Plan, Rules};
use crate::gdb;
use crate::host::disk::{Drive, FileDisk};
use crate::host::perf_map::PerfMap;
use crate::machine::boot::BootFiles;
use crate::machine::gate::{Gate, Pass};
use crate::machine::handle::Request;
pub use crate::machine::handle::{
    Answer, FaultOrder, Handle, Operation, Phase, Refused, Reply, Status, StoppedBy,
};
use crate::machine::life_cycle::{LifeCycle, OnReset};
pub use crate::machine::saving::SaveTo;
use crate::machine::saving::Saving;
use crate::report::AcceleratorReport;
use crate::sandbox::calls::{Descriptors, unused_descriptors};
use crate::sandbox::{Folders, Sandbox, Thread};
use crate::save::state::Options;
use crate::save::{SaveFile, Target};
use crate::supervise::{ConsoleInput, Inputs, Reason, StopSwitch, supervise};
use crate::trace::TraceFile;

/// Everything a machine is made from.
pub struct Setup {
    /// Kernel file.
    pub kernel: PathBuf,
    /// Initramfs file.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub append: String,
    /// Size, engine, limits.
    pub machine: MachineArgs,
    /// The guest's reset is a reboot, and no end.
    pub reboots: bool,
    /// The machine is paused before its first instruction.
    pub starts_paused: bool,
    /// Where the machine is asked and told from outside.
    pub control: Option<control::Socket>,
    /// Where a debugger finds it.
    pub gdb: Option<gdb::Socket>,
    /// Accelerators, in PCI order.
    pub accels: Vec<Accelerator>,
    /// Further devices, in PCI order, after the accelerators.
    pub devices: Vec<Device>,
    /// Disks, in PCI order.
    pub drives: Vec<Arc<dyn Drive>>,
    /// What saves need to know; without it, the machine cannot be saved.
    pub saves: Option<Saves>,
    /// The machine goes on from this save. Its files for a reset are those of the save, and not those above.
    pub restored: Option<SaveFile>,
    /// Where a timeline goes.
    pub trace: Option<TraceFile>,
    /// Where the console goes.
    pub outputs: Outputs,
    /// What [`Inputs`] will have the main thread read: signals, standard input.
    pub inputs: Vec<RawFd>,
    /// Files that the caller writes, reads back or cuts when the machine has ended.
    pub results: Vec<RawFd>,
    /// Folders in which the caller puts files in place when the machine has ended.
    pub result_folders: Vec<PathBuf>,
}

/// What saves of a machine need to know.
#[derive(Clone)]
pub struct Saves {
    /// Its drives, all of which are files.
    pub drives: Vec<Arc<FileDisk>>,
    /// Where a save goes at its end, and when a signal asks for one.
    pub target: Option<Target>,
}

/// What a machine is, for people.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) engine: &'static str,
    pub(crate) cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) numa: Option<u32>,
    pub(crate) accels: Vec<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) drives: usize,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) append: String,
    /// The save that it has gone on from; kernel, initramfs and command line are then that save's.
    pub(crate) restored: Option<PathBuf>,
}

impl Facts {
    /// But for the engine, which is chosen later.
    fn of(setup: &Setup) -> Self {
        let MachineArgs { cpus, memory, numa, .. } = setup.machine;
        let name = |device: &Device| device.to_possible_value().map(|value| value.get_name().to_owned());
        Self {
            engine: "none",
            cpus,
            memory_bytes: memory,
            numa,
            accels: setup.accels.iter().map(ToString::to_string).collect(),
            devices: setup.devices.iter().filter_map(name).collect(),
            drives: setup.drives.len(),
            kernel: setup.kernel.clone(),
            initrd: setup.initrd.clone(),
            append: setup.append.clone(),
            restored: setup.restored.as_ref().map(|file| file.path().to_owned()),
        }
    }
}

/// How a run ended.
pub struct Ended {
    /// What ran.
    pub(crate) facts: Facts,
    /// Why.
    pub reason: Reason,
    /// What came of the save at the end, if there was to be one: the name of its file.
    pub saved: Option<Result<PathBuf, Refused>>,
    /// By its console, the guest's kernel has panicked and stands still.
    pub stands_still: bool,
    /// Why a machine that should reboot has not, if so.
    pub no_reboot: Option<String>,
    /// Numbers.
    pub stats: Stats,
    /// The SMMU's own.
    pub smmu: iommu::Snapshot,
    /// What the engine has counted, if the user wants to know.
    pub engine: Option<EngineReport>,
    /// What became of the timeline, if there is one.
    pub trace: Option<String>,
    /// What the guest did wrong.
    pub guest_errors: Vec<ModelErrors>,
    /// What each accelerator has done.
    pub(crate) accelerators: Vec<AcceleratorReport>,
    /// Guest time at the end, in nanoseconds.
    pub guest_ns: u64,
    /// How long guest code could run: the host's time from its start to its end.
    pub took: Duration,
    /// What came of the fault plan, if there is one.
    pub faults: Option<FaultReport>,
    /// The first error of the terminal or the console log.
    pub console_error: Option<String>,
    console: Arc<Console>,
}

impl Ended {
    /// What the user is told of the run beside its results: the timeline's end, and what the guest did wrong.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let trace = self.trace.iter().cloned();
        trace.chain(self.guest_errors.iter().map(ToString::to_string)).collect()
    }

    /// The last lines of the guest's console.
    #[must_use]
    pub fn last_lines(&self, lines: usize) -> String {
        self.console.last_lines(lines)
    }
}

/// A machine that is ready to run.
pub struct Machine {
    vcpus: Vec<Box<dyn Vcpu>>,
    life_cycle: LifeCycle,
    requests: mpsc::Receiver<Request>,
    /// There is room again for what is typed.
    input_room: Arc<EventFd>,
    /// The control socket, and by what its thread learns of the guest's console.
    control: Option<(control::Socket, Arc<EventFd>)>,
    gdb: Option<gdb::Socket>,
    switch: Arc<StopSwitch>,
    sandbox: Sandbox,
    /// Lines for the user about how guest code will run.
    notes: Vec<String>,
    stats: bool,
    /// Where the save at the end goes.
    target: Option<PathBuf>,
    facts: Facts,
    /// Kept open: the sandbox's filters know its number as one that was taken.
    _restored: Option<SaveFile>,
}

/// Opens the console log that the user asked for.
///
/// # Errors
/// A line for the user.
pub fn open_console_log(args: &ProcessArgs) -> Result<Option<(File, String)>, Failed> {
    let Some(path) = &args.console_log else { return Ok(None) };
    match File::create(path) {
        Ok(file) => Ok(Some((file, path.display().to_string()))),
        Err(e) => Err(Failed::new(format!("cannot write the console log {path:?}: {e}"))),
    }
}

impl Machine {
    /// Loads the files and puts the board together. Nothing runs yet.
    ///
    /// # Errors
    /// A line for the user.
    pub fn build(setup: Setup) -> anyhow::Result<Self> {
        let mut facts = Facts::of(&setup);
        let MachineArgs { cpus, memory, numa, .. } = setup.machine;
        let topology = Topology::new(cpus, memory, numa)?;
        let mut faults = setup.machine.faults.as_deref().map(Plan::read).transpose()?;
        let (boot, loadable) = match &setup.restored {
            None => {
                let boot = BootFiles::open(&setup.kernel, setup.initrd.as_deref(), setup.append, memory)?;
                let loadable = boot.read()?;
                (Ok(boot), Some(loadable))
            }
            Some(restored) => {
                if let Some(saved) = restored.saved().faults.as_ref().filter(|saved| !saved.text.is_empty()) {
                    let plan = Plan::parse(&saved.text, &saved.file);
                    faults =
                        Some(plan.map_err(|e| {
                            restored.failed(&format_args!("has a fault plan that is none: {e}"))
                        })?);
                }
                (BootFiles::reopen(&restored.saved().boot, memory), None)
            }
        };

        // A restored machine may have rules that were armed later.
        let has_more = setup.restored.as_ref().is_some_and(|restored| restored.saved().faults.is_some());
        let faults = Rules::new(faults, setup.machine.fault.clone(), setup.control.is_some() || has_more)?;
        let args = &setup.machine;
        let (saved_accels, saved_devices) = (setup.accels.clone(), setup.devices.clone());
        let wants_saves = setup.saves.as_ref().is_some_and(|saves| saves.target.is_some());
        let perf_map = args.perf_map.then(|| PerfMap::create(args.symbols.as_deref())).transpose()?;
        let perf_map = perf_map.map(Arc::new);
        let switch = StopSwitch::new().context("cannot make an event descriptor")?;
        let event = || EventFd::new(EFD_NONBLOCK).context("cannot make an event descriptor").map(Arc::new);
        let input_room = event()?;
        let attached = setup.control.is_some().then(event).transpose()?;
        let sandbox = match setup.machine.process.sandbox {
            SandboxChoice::On => {
                let descriptors = Descriptors {
                    events: [switch.as_raw_fd(), input_room.as_raw_fd()]
                        .into_iter()
                        .chain(attached.iter().map(|event| event.as_raw_fd()))
                        .collect(),
                    inputs: setup.inputs,
                    results: setup.results,
                    logs: setup.outputs.log.iter().map(|(file, _)| file.as_raw_fd()).collect(),
                    maps: perf_map.iter().map(|map| map.as_raw_fd()).collect(),
                    drives: setup.drives.iter().map(|drive| drive.as_fd().as_raw_fd()).collect(),
                    boot: boot.iter().flat_map(BootFiles::descriptors).collect(),
                    traces: setup.trace.iter().map(AsRawFd::as_raw_fd).collect(),
                    control: setup.control.iter().map(control::Socket::listener_fd).collect(),
                    gdb: setup.gdb.iter().map(gdb::Socket::listener_fd).collect(),
                    console: attached.iter().map(|event| event.as_raw_fd()).collect(),
                    wakes: (setup.control.iter().map(control::Socket::wake_fd))
                        .chain(setup.gdb.iter().map(gdb::Socket::wake_fd))
                        .collect(),
                    // Whatever is opened up to here has been opened; what comes is made for saves, or given by their clients.
                    saves: match &setup.saves {
                        Some(_) => unused_descriptors().context("cannot list the process's descriptors")?,
                        None => Vec::new(),
                    },
                };
                let targets = setup.saves.iter().filter_map(|saves| saves.target.as_ref());
                let folders = Folders {
                    outputs: setup.result_folders,
                    removals: (setup.control.iter().map(control::Socket::folder))
                        .chain(setup.gdb.iter().filter_map(gdb::Socket::folder))
                        .collect(),
                    saves: targets.map(|target| target.folder().to_owned()).collect(),
                };
                Sandbox::new(folders, &descriptors, engine::SYSTEM_CALLS)?
            }
            SandboxChoice::Off => Sandbox::off(),
        };
        let sandbox = sandbox.pressing(&switch);
        let console = Console::start(setup.outputs, &sandbox).context("cannot start the console's thread")?;
        let board = Board::assemble(BoardConfig {
            topology,
            engine: setup.machine.engine,
            soft: SoftOptions {
                tier: setup.machine.tier,
                observation: Observation {
                    trace: Trace::default(),
                    errors: GuestErrors::default(),
                    timed: setup.machine.process.stats,
                    code_map: perf_map.map(|map| map as Arc<dyn CodeMap>),
                },
            },
            accels: setup.accels,
            devices: setup.devices,
            drives: setup.drives.into_iter().map(|drive| drive as Arc<dyn BlockBackend>).collect(),
            console: Arc::clone(&console),
            input_rooms: std::iter::once(Arc::clone(&input_room)).chain(attached.clone()).collect(),
            faults,
            trace: setup.trace,
            sandbox: sandbox.clone(),
        })?;
        facts.engine = board.engine().name();
        let mut vcpus: Vec<_> = (0..cpus as usize).map(|i| board.engine().vcpu(i)).collect();
        if setup.gdb.is_some() && !board.engine().can_debug() {
            let why = format!("--gdb does not work with the engine {}", board.engine().name());
            return Err(Failed::new(format!("{why}; try --engine soft")).into());
        }
        if let (Ok(boot), Some(loadable)) = (&boot, loadable) {
            let (pc, x0) = boot.load(loadable, &board)?;
            vcpus[0].set_boot_state(pc, x0).context("cannot set the vCPU's state")?;
        }
        let resets = setup.restored.as_ref().map_or(0, |file| file.saved().resets);
        if let Some(file) = &setup.restored {
            restore(file, &board, &mut vcpus)?;
        }
        let listens = setup.gdb.as_ref().map(|socket| format!("listening for gdb at {}", socket.place()));
        let notes = board
            .engine_note()
            .map(str::to_owned)
            .into_iter()
            .chain(board.engine().check()?)
            .chain(listens)
            .collect();
        let read_once = boot.as_ref().map_or_else(|why| Some(why.clone()), BootFiles::read_once);
        let on_reset = match (setup.reboots, read_once) {
            (_, Some(why)) => OnReset::Impossible(why),
            _ if !board.engine().can_reset() => {
                OnReset::Impossible(format!("the engine {} has no reset", board.engine().name()))
            }
            (true, None) => OnReset::Reboot,
            (false, None) => OnReset::End,
        };
        let status = Status {
            phase: Phase::Starting,
            stopped_by: None,
            resets,
            engine: board.engine().name(),
            cpus,
            memory_bytes: memory,
        };
        let (handle, requests) = Handle::new(status, Arc::clone(&switch));
        let source = match (&boot, &setup.restored) {
            (_, Some(file)) => Some(file.saved().boot.clone()),
            (Ok(boot), None) => Some(boot.source()),
            (Err(_), None) => None,
        };
        let options = Options {
            cpus,
            memory_bytes: memory,
            numa,
            engine: EngineChoice::Soft,
            tier: setup.machine.tier,
            accels: saved_accels,
            devices: saved_devices,
        };
        let saving = match (board.engine().can_save(), setup.saves, source) {
            (Err(why), _, _) => Err(why),
            (Ok(()), Some(Saves { drives, target }), Some(boot)) => {
                Ok(Saving { options, boot, drives, target })
            }
            _ => Err("it is a job's, and made anew for each".to_owned()),
        };
        if let Err(why) = &saving
            && wants_saves
        {
            return Err(Failed::new(format!("this machine cannot be saved: {why}")).into());
        }
        let target = saving
            .as_ref()
            .ok()
            .and_then(|saving| saving.target.as_ref())
            .map(|target| target.path().to_owned());
        let is_still = setup.restored.is_some();
        let life_cycle = LifeCycle {
            board: Arc::new(board),
            gate: Arc::new(Gate::new(vcpus.len())),
            boot: boot.ok(),
            saving,
            console,
            handle,
            on_reset,
            starts_paused: setup.starts_paused,
            is_still,
            debugger: None,
        };
        Ok(Self {
            vcpus,
            life_cycle,
            requests,
            input_room,
            control: setup.control.zip(attached),
            gdb: setup.gdb,
            switch,
            sandbox,
            notes,
            stats: setup.machine.process.stats,
            target,
            facts,
            _restored: setup.restored,
        })
    }

    /// How to reach the machine, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.life_cycle.handle.clone()
    }

    /// Lines for the user: which engine was taken and why, if the choice was ours, and whether it runs slower than it could.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The way from standard input to the guest's UART.
    #[must_use]
    pub fn console_input(&self) -> Box<dyn ConsoleInput> {
        self.life_cycle.board.console_input(&self.input_room)
    }

    /// Runs to the end, whatever it is, and joins every thread. The calling thread is in the sandbox from then on.
    ///
    /// # Errors
    /// If the host gives no threads, no sandbox or no epoll.
    pub fn run(self, inputs: Inputs<'_>) -> anyhow::Result<Ended> {
        let Self {
            vcpus,
            life_cycle,
            requests,
            input_room: _,
            control,
            gdb,
            switch,
            sandbox,
            notes: _,
            stats: wants_stats,
            target,
            facts,
            _restored,
        } = self;
        let running = Running::begin();
        let (board, console) = (Arc::clone(&life_cycle.board), Arc::clone(&life_cycle.console));
        let (gate, handle) = (Arc::clone(&life_cycle.gate), life_cycle.handle.clone());
        let no_reboot = life_cycle.on_reset.impossible();
        board.start_workers().context("cannot start the devices' threads")?;
        let mut threads = Vec::new();
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let runner = Runner { index, gate: Arc::clone(&gate), handle: handle.clone() };
            let thread = sandbox.spawn(Thread::Vcpu, format!("vcpu{index}"), move || runner.run(vcpu));
            threads.push(thread.context("cannot start a vCPU's thread")?);
        }
        let leads = sandbox.spawn(Thread::LifeCycle, "lifecycle", move || life_cycle.serve(&requests));
        threads.push(leads.context("cannot start the thread of the machine's life cycle")?);
        let control = control.map(|(socket, event)| {
            let line = Line::new(Arc::clone(&console), board.console_input(&event), event);
            Server::start(socket, handle.clone(), line, &sandbox)
        });
        let control = control.transpose();
        let control = control.context("cannot start the control socket's thread")?;
        let gdb = gdb.map(|socket| gdb::server::Server::start(socket, handle.clone(), &sandbox)).transpose();
        let gdb = gdb.context("cannot start the debugger's thread")?;
        sandbox.enter(Thread::Main)?;
        // Every thread is in the sandbox: guest code may run.
        let began_at = Instant::now();
        handle.send(Request::Start);
        let on_save = || handle.save(SaveTo::Target, Reply::new(tell_of_save));
        let reason = supervise(&switch, inputs, &on_save).context("cannot wait for events")?;
        let ended_at = Instant::now();
        if let Reason::Crashed(message) = reason {
            // What is locked stays so: nothing of the machine is looked at or taken down any more.
            std::mem::forget((board, threads, running));
            return Err(Failed::new(message).into());
        }
        let saved = target.filter(|_| reason.leaves_the_machine_whole());
        let saved = saved.map(|path| handle.wait_for_save().map(|_| path));
        handle.send(Request::End);
        for thread in threads {
            // One that has panicked has ended the process instead.
            let _ = thread.join();
        }
        // No vCPU prints any more: what is left goes to the outputs, and then to whoever is attached.
        let console_error = console.close();
        if let Some(control) = control {
            control.end();
        }
        if let Some(gdb) = gdb {
            gdb.end();
        }
        board.stop_workers();
        let trace = board.finish_trace();
        let panic = console.panic_seen();
        let reason = match reason {
            Reason::Guest(Exit::SystemReset) if panic.explains_reset(ended_at) => Reason::Panic,
            other => other,
        };
        let stats = board.stats();
        log::info!("at the end: {stats:?}");
        let engine = if wants_stats { board.engine().statistics() } else { None };
        let (smmu, faults) = (board.smmu_stats(), board.fault_report());
        let stands_still = panic.stands_still;
        Ok(Ended {
            facts,
            reason,
            saved,
            stands_still,
            no_reboot,
            stats,
            smmu,
            engine,
            faults,
            console_error,
            console,
            trace,
            guest_errors: board.guest_errors(),
            accelerators: board.accelerator_reports(),
            guest_ns: board.now_ns(),
            took: ended_at.duration_since(began_at),
        })
    }
}

/// Takes up a saved machine. The board stands still from here on.
fn restore(file: &SaveFile, board: &Board, vcpus: &mut [Box<dyn Vcpu>]) -> anyhow::Result<()> {
    board.stand_still();
    file.take_ram(board.ram(), board.ram_stretch()).map_err(|e| file.failed(&e))?;
    board.restore(file.saved()).map_err(|why| file.failed(&why))?;
    for (index, (vcpu, state)) in vcpus.iter_mut().zip(&file.saved().cpus).enumerate() {
        let restored = vcpu.restore(state.clone());
        restored.map_err(|e| file.failed(&format_args!("cannot be restored: cpu{index}: {e}")))?;
    }
    Ok(())
}

/// What came of a save that a signal has asked for.
fn tell_of_save(answer: Answer) {
    match answer {
        Ok(_) => eprint!("\r\nwarpvmm: saved\r\n"),
        Err(why) => eprint!("\r\nwarpvmm: not saved: {why}\r\n"),
    }
}

/// Runs one vCPU, whenever the gate lets it pass.
struct Runner {
    index: usize,
    gate: Arc<Gate>,
    handle: Handle,
}

impl Runner {
    fn run(&self, mut vcpu: Box<dyn Vcpu>) {
        loop {
            let exit = match self.gate.pass(self.index, &mut *vcpu) {
                Pass::Run => vcpu.run(),
                // Nobody asks for one of an engine that has none.
                Pass::Step => vcpu.debugged().map_or(Ok(Exit::Stopped), DebugVcpu::step),
                Pass::End => return,
            };
            match exit {
                Ok(Exit::Stopped) => {}
                Ok(Exit::Debug(stop)) => {
                    if self.gate.stop(self.index, stop) {
                        self.handle.send(Request::DebugStop);
                    } else if let Some(vcpu) = vcpu.debugged() {
                        vcpu.forget_stop();
                    }
                }
                Ok(exit) => {
                    if self.gate.wish(exit) {
                        self.handle.send(Request::GuestWish);
                    }
                }
                Err(error) => {
                    self.gate.close();
                    self.handle.end(Reason::Broken(format!("vCPU {} cannot go on: {error:#}", self.index)));
                }
            }
        }
    }
}
