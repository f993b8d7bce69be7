//! The board: instantiates the devices, wires them up, and says so in the device tree.
//!
//! Address-compatible with QEMU's `virt` ([`map`]). Each part is put together in one place, and that place also
//! makes its device-tree node, so that the tree and the machine cannot disagree.

pub mod map;
pub mod numa;
mod pci;
pub mod stats;
mod tree;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use devices::rtc::Pl031;
use devices::uart::Pl011;
use devices::virtio::BlockBackend;
use hw::ats::AtsPort;
use hw::guest_error::ModelErrors;
use hw::{Alarms, Clock, DeviceId, DmaPort, Faults, GuestErrorBook, LifeCycle, Pa, Ram, Scheduler};
use iommu::{OutputSize, Smmu, SmmuConfig, Wires};
use serde_json::{Map, Value};
use vmm_sys_util::eventfd::EventFd;

use crate::accelerator::Accelerator;
use crate::board::numa::Topology;
use crate::board::pci::{PciDevices, Plugged};
use crate::board::stats::Stats;
use crate::bus::Bus;
use crate::cli::{Device, EngineChoice};
use crate::console::Console;
use crate::engine::soft::SoftOptions;
use crate::engine::{self, Engine, Ground};
use crate::exit::Failed;
use crate::faults::{Event, FaultRefused, FaultReport, Listed, Rule, Rules, Running};
use crate::host::clock::{AlarmThread, HostClock};
use crate::host::{ram as host_ram, random};
use crate::report::AcceleratorReport;
use crate::sandbox::Sandbox;
use crate::save::Stretch;
use crate::save::state::{Saved, SavedFaults};
use crate::supervise::ConsoleInput;
use crate::trace::{Counters, TraceFile, Tracing};
use crate::workers::WorkerPool;

/// The SMMU's own DeviceID at the ITS: outside the requester IDs of the PCI segment.
const SMMU_DEVICE_ID: DeviceId = DeviceId(0x1_0000);

/// What a board is made from.
pub struct BoardConfig {
    /// vCPUs, RAM, and how all is spread over nodes.
    pub topology: Topology,
    /// What runs the vCPUs.
    pub engine: EngineChoice,
    /// What is asked of the built-in one.
    pub soft: SoftOptions,
    /// Accelerators in PCI order.
    pub accels: Vec<Accelerator>,
    /// Further devices in PCI order, after the accelerators.
    pub devices: Vec<Device>,
    /// Disks in PCI order, after the devices.
    pub drives: Vec<Arc<dyn BlockBackend>>,
    /// The other end of the serial line.
    pub console: Arc<Console>,
    /// Each becomes readable when there is room for typed bytes again: one for each thread that has some.
    pub input_rooms: Vec<Arc<EventFd>>,
    /// What goes wrong on purpose.
    pub faults: Rules,
    /// Where a timeline goes.
    pub trace: Option<TraceFile>,
    /// What threads are put into.
    pub sandbox: Sandbox,
}

/// The SMMU's physical address size beside CPUs with these many bits. Linux shares no address space with an SMMU that
/// has fewer than its CPUs.
fn output_size(cpu_bits: u32) -> OutputSize {
    if cpu_bits > OutputSize::BITS_48.bits() { OutputSize::BITS_52 } else { OutputSize::BITS_48 }
}

/// A model with its name in save files and for `inspect`.
pub(crate) struct Model {
    name: String,
    model: Arc<dyn LifeCycle>,
}

impl Model {
    pub(crate) fn new(name: impl Into<String>, model: Arc<dyn LifeCycle>) -> Self {
        Self { name: name.into(), model }
    }
}

/// All devices, wired.
pub struct Board {
    topology: Topology,
    ram: Arc<Ram>,
    engine: Box<dyn Engine>,
    engine_note: Option<String>,
    smmu: Arc<Smmu>,
    uart: Arc<Pl011>,
    pci: PciDevices,
    /// The fault rules, if there are any or may be later, and what models ask.
    faults: Option<Arc<Running>>,
    fault_points: Faults,
    tracing: Option<Tracing>,
    guest_errors: GuestErrorBook,
    nodes: Vec<crate::boot::fdt::Node>,
    /// Everything with state but the engine's own, in the order in which it is reset.
    models: Vec<Model>,
    clock: Arc<HostClock>,
    /// Ends with the board, and with it the alarms' thread.
    alarms: Arc<AlarmThread>,
}

impl Board {
    /// Instantiates and wires everything.
    ///
    /// # Errors
    /// A line for the user: no memory, no threads.
    pub fn assemble(mut config: BoardConfig) -> anyhow::Result<Self> {
        let topology = config.topology;
        let cpus = topology.cpus() as usize;
        let ram = Arc::new(
            Ram::new(&[(Pa(map::RAM_BASE), topology.ram_bytes())])
                .map_err(|e| Failed::new(format!("{e}; try a smaller --memory")))?,
        );
        host_ram::ask_for_huge_pages(&ram);
        let clock = HostClock::new();
        let alarms = AlarmThread::start(Arc::clone(&clock), &config.sandbox)
            .context("cannot start the alarms' thread")?;
        let guest_errors = GuestErrorBook::default();
        let mut bus = Bus::new(guest_errors.for_model("bus"));
        let mut nodes = Vec::new();

        let dyn_clock: Arc<dyn Clock> = clock.clone();
        let dyn_alarms: Arc<dyn Alarms> = alarms.clone();
        let tracing = config.trace.map(|file| Tracing::new(file, Arc::clone(&dyn_clock)));
        let trace = tracing.as_ref().map(Tracing::handle).unwrap_or_default();
        config.soft.observation.trace = trace.clone();
        let pool = WorkerPool::start(&config.sandbox).context("cannot start the spawner's thread")?;
        let scheduler: Arc<dyn Scheduler> = pool.clone();
        let ground = Ground {
            cpus,
            ram: &ram,
            clock: &dyn_clock,
            alarms: &dyn_alarms,
            scheduler: &scheduler,
            errors: &guest_errors,
            soft: &config.soft,
        };
        let (engine, engine_note) = engine::open(config.engine, &ground)?;
        engine.attach(&mut bus)?;
        nodes.push(tree::gic(map::redistributors(cpus)));
        nodes.push(tree::timer());

        nodes.push(tree::clock24mhz());
        let sink = ConsoleSink { console: Arc::clone(&config.console), input_rooms: config.input_rooms };
        let uart = Pl011::new(Arc::new(sink), engine.spi(map::spi::UART));
        let to_uart = Arc::clone(&uart);
        config.console.on_room(Box::new(move || to_uart.output_room()));
        bus.attach(map::UART, uart.clone())?;
        nodes.push(tree::uart());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rtc = Pl031::new(
            Arc::clone(&dyn_clock),
            Arc::clone(&dyn_alarms),
            engine.spi(map::spi::RTC),
            since_epoch.as_secs(),
        );
        bus.attach(map::RTC, rtc.clone())?;
        nodes.push(tree::rtc());

        let make_faults = if config.faults.change { Faults::changing } else { Faults::new };
        let running =
            (!config.faults.are_none()).then(|| Running::with(config.faults, Arc::clone(&dyn_clock)));
        let faults = running.clone().map_or_else(Faults::default, |rules| {
            make_faults(rules, Arc::clone(&dyn_clock), Arc::clone(&dyn_alarms), Arc::clone(&scheduler))
        });
        let smmu = Smmu::new(SmmuConfig {
            features: iommu::Features { output: output_size(engine.pa_bits()), ..Default::default() },
            ram: Arc::clone(&ram),
            msi: engine.msi(),
            device_id: SMMU_DEVICE_ID,
            wires: Wires {
                eventq: engine.spi(map::spi::SMMU_EVENTQ),
                priq: engine.spi(map::spi::SMMU_PRIQ),
                cmdq_sync: engine.spi(map::spi::SMMU_CMDQ_SYNC),
                gerror: engine.spi(map::spi::SMMU_GERROR),
            },
            clock: Arc::clone(&dyn_clock),
            alarms: Arc::clone(&dyn_alarms),
            scheduler: Arc::clone(&scheduler),
            faults: faults.clone(),
            trace: trace.clone(),
            errors: guest_errors.for_model("smmu"),
        });
        bus.attach(map::SMMU, smmu.clone())?;
        nodes.push(tree::smmu());

        let port: Arc<dyn DmaPort> = smmu.clone();
        let agent: Arc<dyn AtsPort> = smmu.clone();
        let root_buses = topology.root_buses();
        let pci = PciDevices::assemble(
            Plugged {
                root_buses: &root_buses,
                accels: &config.accels,
                devices: &config.devices,
                drives: config.drives,
                faults: faults.clone(),
                trace,
                errors: &guest_errors,
            },
            &ram,
            &port,
            &agent,
            &dyn_clock,
            &dyn_alarms,
            pool,
        )?;
        bus.attach(map::PCI_ECAM, pci.host().ecam())?;
        bus.attach(map::PCI_MMIO32, pci.host().memory_window(map::PCI_MMIO32.base))?;
        bus.attach(map::PCI_MMIO64, pci.host().memory_window(map::PCI_MMIO64.base))?;
        bus.attach(map::PCI_IO, pci.host().io_window(0))?;
        for bus in &root_buses {
            nodes.push(tree::pcie(bus, pci.described_functions(), pci.has_ats()));
        }

        if let Some(tracing) = &tracing {
            let smmu = Arc::clone(&smmu);
            let counters = move || {
                let smmu = smmu.stats();
                Counters {
                    tlb_hits: smmu.tlb_hits,
                    walks: smmu.walks,
                    page_faults: smmu.stalls + smmu.page_requests,
                }
            };
            tracing
                .start(pci.accelerator_names(), counters, &config.sandbox)
                .context("cannot start the timeline's thread")?;
        }

        let mut models = pci.models();
        models.extend([
            Model::new("smmu", smmu.clone()),
            Model::new("pci", pci.host().clone()),
            Model::new("uart", uart.clone()),
            Model::new("rtc", rtc),
        ]);
        Ok(Self {
            topology,
            ram,
            engine: engine.complete(Arc::new(bus)),
            engine_note,
            smmu,
            uart,
            pci,
            faults: running,
            fault_points: faults,
            tracing,
            guest_errors,
            nodes,
            models,
            clock,
            alarms,
        })
    }

    /// Guest RAM.
    #[must_use]
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// Where RAM is: one stretch, whatever nodes it belongs to.
    #[must_use]
    pub fn ram_stretch(&self) -> Stretch {
        Stretch { base: map::RAM_BASE, bytes: self.topology.ram_bytes() }
    }

    /// What runs the vCPUs.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    /// Which engine was taken and why, if the choice was ours.
    #[must_use]
    pub fn engine_note(&self) -> Option<&str> {
        self.engine_note.as_deref()
    }

    /// The way to the UART's receiver, for the thread that waits for this one of the rooms.
    #[must_use]
    pub fn console_input(&self, room: &Arc<EventFd>) -> Box<dyn ConsoleInput> {
        Box::new(UartInput { uart: Arc::clone(&self.uart), room: Arc::clone(room) })
    }

    /// Makes all devices stand still, and guest time with them: when this returns, no work is under way but such as waits
    /// for the guest or for guest time. The vCPUs stand still already. As [`Self::go_on`] and [`Self::reset`], from one
    /// thread.
    pub fn stand_still(&self) {
        // First the time, which has none to lose while work comes to its end.
        self.clock.stand_still();
        self.models.iter().for_each(|one| one.model.quiesce());
        self.alarms.hold();
    }

    /// Ends what [`Self::stand_still`] has begun. The vCPUs still stand still.
    pub fn go_on(&self) {
        self.alarms.release();
        self.models.iter().rev().for_each(|one| one.model.resume());
        self.clock.go_on();
    }

    /// Brings everything but the vCPUs' own registers back to the state of power-on, RAM too. Between [`Self::stand_still`]
    /// and [`Self::go_on`]. Guest time goes on.
    pub fn reset(&self) {
        self.models.iter().for_each(|one| one.model.reset());
        self.engine.reset();
        host_ram::clear(&self.ram);
    }

    /// The state of each model but the engine's, by its name.
    #[must_use]
    pub fn save_models(&self) -> Map<String, Value> {
        self.models.iter().map(|one| (one.name.clone(), one.model.save())).collect()
    }

    /// The state of one of them as of now, if it exists.
    #[must_use]
    pub fn save_model(&self, name: &str) -> Option<Value> {
        self.models.iter().find(|one| one.name == name).map(|one| one.model.save())
    }

    /// The names of the models.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|one| one.name.as_str())
    }

    /// The fault rules and how far they have come.
    #[must_use]
    pub fn save_faults(&self) -> Option<SavedFaults> {
        self.faults.as_ref().and_then(|running| running.save())
    }

    /// Takes up a saved machine, but for its vCPUs and RAM, which is there already. The board is as at power-on and stands still; guest
    /// time is the saved one from here on. What an access reaches comes before what makes it.
    ///
    /// # Errors
    /// What goes on from the name of the file: the state is not one of this machine.
    pub fn restore(&self, saved: &Saved) -> Result<(), String> {
        self.clock.set(saved.guest_ns);
        let mut states = saved.models.clone();
        if let Some(unknown) = states.keys().find(|name| !self.model_names().any(|known| known == *name)) {
            return Err(format!("has a state of {unknown:?}, which its machine has not"));
        }
        self.engine.restore(saved.engine.clone()).map_err(|e| format!("cannot be restored: {e}"))?;
        // The SMMU, which functions reach, then the functions, and then the PCI host, which makes its routes from them.
        let (first, others): (Vec<_>, Vec<_>) = self.models.iter().partition(|one| one.name == "smmu");
        for Model { name, model } in first.into_iter().chain(others) {
            let state = states.remove(name).ok_or_else(|| format!("has no state of {name:?}"))?;
            model.restore(state).map_err(|e| format!("cannot be restored: {name}: {e}"))?;
        }
        if let (Some(running), Some(faults)) = (&self.faults, &saved.faults) {
            running.restore(faults).map_err(|e| format!("cannot be restored: faults: {e}"))?;
            self.fault_rules_changed();
        }
        Ok(())
    }

    /// What an accelerator and its translation cache have done, if there is one of this name.
    #[must_use]
    pub(crate) fn accelerator_report(&self, name: &str) -> Option<AcceleratorReport> {
        self.pci.accelerator_report(name)
    }

    /// What all of them have done.
    pub(crate) fn accelerator_reports(&self) -> Vec<AcceleratorReport> {
        self.pci.accelerator_reports()
    }

    /// Guest time in nanoseconds.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Starts the threads that do the devices' work.
    ///
    /// # Errors
    /// If the host gives none.
    pub fn start_workers(&self) -> std::io::Result<()> {
        self.pci.start_workers()
    }

    /// Ends the devices' work and waits for its threads. The vCPUs have stopped.
    pub fn stop_workers(&self) {
        self.pci.stop_workers();
    }

    /// The flattened device tree, with seeds that it has never had before.
    ///
    /// # Errors
    /// If the command line has a NUL in it.
    pub fn device_tree(&self, bootargs: &str, initrd: Option<(u64, u64)>) -> anyhow::Result<Vec<u8>> {
        let mut seed = [0; 64];
        random::fill(&mut seed).context("the host gives no random numbers")?;
        tree::root(&self.topology, &tree::Chosen { bootargs, initrd, seed }, &self.nodes)
            .flatten()
            .map_err(|e| Failed::new(format!("--append cannot be passed to the guest: {e}")).into())
    }

    /// Ends the timeline: what became of it, if there is one.
    #[must_use]
    pub fn finish_trace(&self) -> Option<String> {
        self.tracing.as_ref()?.finish()
    }

    /// What the guest has done wrong so far.
    #[must_use]
    pub fn guest_errors(&self) -> Vec<ModelErrors> {
        self.guest_errors.summary()
    }

    /// What has come of the fault rules so far.
    #[must_use]
    pub fn fault_report(&self) -> Option<FaultReport> {
        self.faults.as_ref().and_then(|running| running.report())
    }

    /// The fault rules from this number on, and the number of the next one if there are more.
    #[must_use]
    pub fn fault_rules(&self, from: u32, most: usize) -> (Vec<Listed>, Option<u32>) {
        self.faults.as_ref().map_or_else(Default::default, |running| running.list(from, most))
    }

    /// One more fault rule, asked after all others or before those that are not urgent, and its number. As
    /// [`Self::disarm_fault`], from one thread, and only in a board whose rules may change: in another one, models have no point that
    /// no rule has mentioned from the start.
    ///
    /// # Errors
    /// [`FaultRefused`]
    pub fn arm_fault(&self, rule: Rule, is_urgent: bool) -> Result<u32, FaultRefused> {
        let running = self.faults.as_ref().ok_or(FaultRefused::Fixed)?;
        let id = running.arm(rule, is_urgent)?;
        self.fault_rules_changed();
        Ok(id)
    }

    /// A fault rule that is to count and fire no more.
    ///
    /// # Errors
    /// [`FaultRefused`]
    pub fn disarm_fault(&self, id: u32) -> Result<(), FaultRefused> {
        let running = self.faults.as_ref().ok_or(FaultRefused::Fixed)?;
        running.disarm(id)?;
        self.fault_rules_changed();
        Ok(())
    }

    /// Something goes wrong by itself.
    ///
    /// # Errors
    /// [`FaultRefused`]
    pub fn go_wrong(&self, event: Event) -> Result<(), FaultRefused> {
        let running = self.faults.as_ref().ok_or(FaultRefused::Fixed)?;
        self.pci.go_wrong(event).map_err(FaultRefused::NoSuchEvent)?;
        running.happened(event);
        Ok(())
    }

    fn fault_rules_changed(&self) {
        let added = self.fault_points.changed();
        self.smmu.fault_points_added(&added);
        self.pci.fault_points_added(&added);
    }

    /// The SMMU.
    #[must_use]
    pub fn smmu(&self) -> &Smmu {
        &self.smmu
    }

    /// What the SMMU has counted.
    #[must_use]
    pub fn smmu_stats(&self) -> iommu::Snapshot {
        self.smmu.stats()
    }

    /// Numbers so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let smmu = self.smmu.stats();
        let accel = self.pci.accel_stats();
        Stats {
            accel_commands: accel.commands,
            accel_busy_ns: accel.busy_ns,
            page_faults: smmu.retries,
            tlb_hits: smmu.tlb_hits,
            table_walks: smmu.walks,
            atc: accel.atc,
        }
    }
}

/// The UART's way out.
struct ConsoleSink {
    console: Arc<Console>,
    input_rooms: Vec<Arc<EventFd>>,
}

impl devices::uart::ConsoleOut for ConsoleSink {
    fn write(&self, bytes: &[u8]) -> usize {
        self.console.write(bytes)
    }

    fn input_room(&self) {
        // Only a counter at its maximum refuses, and then the event is pending anyway.
        self.input_rooms.iter().for_each(|room| drop(room.write(1)));
    }
}

/// The way in.
struct UartInput {
    uart: Arc<Pl011>,
    room: Arc<EventFd>,
}

impl ConsoleInput for UartInput {
    fn receive(&self, bytes: &[u8]) -> usize {
        self.uart.receive(bytes)
    }

    fn room(&self) -> &EventFd {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smmu_reaches_every_address_that_the_cpus_reach() {
        for bits in [36, 40, 44, 48, 52] {
            assert!(output_size(bits).bits() >= bits);
        }
    }
}
