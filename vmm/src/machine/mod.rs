//! A machine from power-on to its end: files loaded, board assembled, threads started, watched and joined.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::Context;
use cpu::{CodeMap, Observation};
use devices::pci::AtcTotals;
use devices::virtio::BlockBackend;
use hw::Pa;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::board::numa::Topology;
use crate::board::{Board, BoardConfig};
use crate::boot::image::Image;
use crate::boot::load::{self, FDT_ADDR};
use crate::cli::{Accel, Device, MachineArgs, SandboxChoice};
use crate::console::{Console, Outputs};
use crate::crash::Running;
use crate::engine::soft::SoftOptions;
use crate::engine::statistics::EngineReport;
use crate::engine::{self, Exit, Vcpu};
use crate::exit::{Failed, Status};
use crate::faults::{FaultReport, Plan};
use crate::host::disk::Drive;
use crate::host::perf_map::PerfMap;
use crate::sandbox::calls::Descriptors;
use crate::sandbox::{Sandbox, Thread};
use crate::supervise::{ConsoleInput, Inputs, Reason, StopSwitch, supervise};

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
    /// Accelerators, in PCI order.
    pub accels: Vec<Accel>,
    /// Further devices, in PCI order, after the accelerators.
    pub devices: Vec<Device>,
    /// Disks, in PCI order.
    pub drives: Vec<Arc<dyn Drive>>,
    /// Where the console goes.
    pub outputs: Outputs,
    /// What [`Inputs`] will have the main thread read: signals, standard input.
    pub inputs: Vec<RawFd>,
    /// Files that the caller writes, reads back or cuts when the machine has ended.
    pub results: Vec<RawFd>,
    /// Folders in which the caller puts files in place when the machine has ended.
    pub result_folders: Vec<PathBuf>,
}

/// Numbers of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commands completed by all accelerators.
    pub accel_commands: u64,
    /// Time their engines spent on commands, in nanoseconds.
    pub accel_busy_ns: u64,
    /// Stalled accesses that the guest answered with a retry.
    pub page_faults: u64,
    /// SMMU TLB hits.
    pub tlb_hits: u64,
    /// SMMU table walks.
    pub table_walks: u64,
    /// What the accelerators' own translation caches did.
    pub atc: AtcTotals,
}

/// How a run ended.
pub struct Ended {
    /// Why.
    pub reason: Reason,
    /// By its console, the guest's kernel has panicked and stands still.
    pub stands_still: bool,
    /// Numbers.
    pub stats: Stats,
    /// The SMMU's own.
    pub smmu: iommu::Snapshot,
    /// What the engine has counted, if the user wants to know.
    pub engine: Option<EngineReport>,
    /// What came of the fault plan, if there is one.
    pub faults: Option<FaultReport>,
    /// The first error of the terminal or the console log.
    pub console_error: Option<String>,
    console: Arc<Console>,
}

impl Ended {
    /// The last lines of the guest's console.
    #[must_use]
    pub fn last_lines(&self, lines: usize) -> String {
        self.console.last_lines(lines)
    }
}

/// A machine that is ready to run.
pub struct Machine {
    board: Board,
    vcpus: Vec<Box<dyn Vcpu>>,
    console: Arc<Console>,
    switch: Arc<StopSwitch>,
    sandbox: Sandbox,
    /// Lines for the user about how guest code will run.
    notes: Vec<String>,
    stats: bool,
}

/// Opens the console log that the user asked for.
///
/// # Errors
/// A line for the user.
pub fn open_console_log(args: &MachineArgs) -> Result<Option<(File, String)>, Failed> {
    let Some(path) = &args.console_log else { return Ok(None) };
    match File::create(path) {
        Ok(file) => Ok(Some((file, path.display().to_string()))),
        Err(e) => Err(Failed::new(format!("cannot write the console log {path:?}: {e}"))),
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, Failed> {
    std::fs::read(path).map_err(|e| Failed::new(format!("cannot read {what} {path:?}: {e}")))
}

/// The longest command line of an arm64 kernel: COMMAND_LINE_SIZE of its `asm/setup.h`, less the terminating NUL.
const MAX_COMMAND_LINE: usize = 2047;

/// Refuses a command line of which the kernel would drop the end without a word.
fn check_command_line(text: &str) -> Result<(), Failed> {
    if text.len() <= MAX_COMMAND_LINE {
        return Ok(());
    }
    let message = format!(
        "--append has {} bytes, and an arm64 kernel takes {MAX_COMMAND_LINE}: it would cut off the rest",
        text.len()
    );
    Err(Failed::with_status(Status::Usage, message))
}

impl Machine {
    /// Loads the files and puts the board together. Nothing runs yet.
    ///
    /// # Errors
    /// A line for the user.
    pub fn build(setup: Setup) -> anyhow::Result<Self> {
        check_command_line(&setup.append)?;
        let MachineArgs { cpus, memory, numa, .. } = setup.machine;
        let topology = Topology::new(cpus, memory, numa)?;
        let faults = setup.machine.faults.as_deref().map(Plan::read).transpose()?;
        let image = Image::parse(read("kernel", &setup.kernel)?, setup.machine.memory)
            .map_err(|e| Failed::new(format!("kernel {:?} {e}", setup.kernel)))?;
        // The initramfs's length is enough to know whether it fits: a file larger than our own memory is not read.
        let initrd_len = match &setup.initrd {
            Some(path) => {
                let failed = |e: io::Error| Failed::new(format!("cannot read initrd {path:?}: {e}"));
                Some(std::fs::metadata(path).map_err(failed)?.len())
            }
            None => None,
        };
        let mut placement = load::place(&image, initrd_len, setup.machine.memory)?;
        let initrd = setup.initrd.as_deref().map(|path| read("initrd", path)).transpose()?;
        if let Some(bytes) = &initrd {
            // It may have grown since.
            placement = load::place(&image, Some(bytes.len() as u64), setup.machine.memory)?;
        }

        let args = &setup.machine;
        let perf_map = args.perf_map.then(|| PerfMap::create(args.symbols.as_deref())).transpose()?;
        let perf_map = perf_map.map(Arc::new);
        let switch = StopSwitch::new().context("cannot make an event descriptor")?;
        let input_room = Arc::new(EventFd::new(EFD_NONBLOCK).context("cannot make an event descriptor")?);
        let sandbox = match setup.machine.sandbox {
            SandboxChoice::On => {
                let descriptors = Descriptors {
                    events: vec![switch.as_raw_fd(), input_room.as_raw_fd()],
                    inputs: setup.inputs,
                    results: setup.results,
                    logs: setup.outputs.log.iter().map(|(file, _)| file.as_raw_fd()).collect(),
                    maps: perf_map.iter().map(|map| map.as_raw_fd()).collect(),
                    drives: setup.drives.iter().map(|drive| drive.as_fd().as_raw_fd()).collect(),
                };
                Sandbox::new(setup.result_folders, &descriptors, engine::SYSTEM_CALLS)?
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
                    timed: setup.machine.stats,
                    code_map: perf_map.map(|map| map as Arc<dyn CodeMap>),
                },
            },
            accels: setup.accels,
            devices: setup.devices,
            drives: setup.drives.into_iter().map(|drive| drive as Arc<dyn BlockBackend>).collect(),
            console: Arc::clone(&console),
            input_room,
            faults,
            sandbox: sandbox.clone(),
        })?;
        let fdt = board.device_tree(&setup.append, placement.initrd)?;
        load::load(board.ram(), &placement, &image, initrd.as_deref(), &fdt);

        let mut vcpus: Vec<_> = (0..setup.machine.cpus as usize).map(|i| board.engine().vcpu(i)).collect();
        vcpus[0].set_boot_state(Pa(placement.entry.0), FDT_ADDR).context("cannot set the vCPU's state")?;
        let notes =
            board.engine_note().map(str::to_owned).into_iter().chain(board.engine().check()?).collect();
        Ok(Self { board, vcpus, console, switch, sandbox, notes, stats: setup.machine.stats })
    }

    /// Lines for the user: which engine was taken and why, if the choice was ours, and whether it runs slower than it could.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The way from standard input to the guest's UART.
    #[must_use]
    pub fn console_input(&self) -> Box<dyn ConsoleInput> {
        self.board.console_input()
    }

    /// Runs to the end, whatever it is, and joins every thread. The calling thread is in the sandbox from then on.
    ///
    /// # Errors
    /// If the host gives no threads, no sandbox or no epoll.
    pub fn run(self, inputs: Inputs<'_>) -> anyhow::Result<Ended> {
        let Self { board, vcpus, console, switch, sandbox, notes: _, stats: wants_stats } = self;
        let running = Running::begin();
        board.start_workers().context("cannot start the devices' threads")?;
        let mut threads = Vec::new();
        let mut starts = Vec::new();
        for (i, mut vcpu) in vcpus.into_iter().enumerate() {
            let switch = Arc::clone(&switch);
            let (start, started) = mpsc::channel();
            let thread = sandbox.spawn(Thread::Vcpu, format!("vcpu{i}"), move || {
                if started.recv().is_err() {
                    // The machine could not be started.
                    return;
                }
                match vcpu.run() {
                    Ok(exit) => switch.stop(Reason::Guest(exit)),
                    Err(error) => switch.stop(Reason::Broken(format!("vCPU {i} cannot go on: {error:#}"))),
                }
            });
            threads.push(thread.context("cannot start a vCPU's thread")?);
            starts.push(start);
        }
        sandbox.enter(Thread::Main)?;
        // Every thread is in the sandbox: guest code may run.
        for start in starts {
            // Only a thread that has ended does not listen, and its machine ends with it.
            let _ = start.send(());
        }
        let reason = supervise(&switch, inputs).context("cannot wait for events")?;
        let ended_at = Instant::now();
        if let Reason::Crashed(message) = reason {
            // What is locked stays so: nothing of the machine is looked at or taken down any more.
            std::mem::forget((board, threads, running));
            return Err(Failed::new(message).into());
        }
        board.engine().stop();
        for thread in threads {
            // One that has panicked has ended the process instead.
            let _ = thread.join();
        }
        board.stop_workers();
        let console_error = console.close();
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
        Ok(Ended { reason, stands_still, stats, smmu, engine, faults, console_error, console })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_longer_than_the_kernels_buffer_is_refused_with_both_lengths() {
        assert!(check_command_line(&"x".repeat(2047)).is_ok());
        let refused = check_command_line(&"x".repeat(2048)).unwrap_err();
        assert_eq!(refused.status, Status::Usage);
        assert!(refused.message.contains("2048 bytes") && refused.message.contains("2047"), "{refused}");
    }
}
