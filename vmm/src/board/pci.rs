//! What is plugged into the PCI host, where, and the threads behind it.
//!
//! All functions are on a root bus: integrated endpoints, each in a slot of its own. Accelerators come first, from slot 1;
//! then further devices, then disks, in the order of the command line, which is the order in which a guest finds them. With
//! several nodes, and so several root buses, the accelerators take turns with them; all else is on the first.

use std::io;
use std::sync::Arc;

use anyhow::Context;
use devices::dma_test::{DmaTest, DmaTestWiring};
use devices::hisi::qm::Limits;
use devices::hisi::{self, FunctionWiring, Translation};
use devices::pci::{AtcTotals, PciHost, requester_id};
use devices::virtio::{Block, BlockBackend, VirtioPci};
use hw::ats::AtsPort;
use hw::fault::FaultPoint;
use hw::{Alarms, Clock, DmaPort, Faults, FaultyPort, GuestErrorBook, LifeCycle, Ram, StreamId, Trace};

use crate::accelerator::{self, Accelerator, Kind};
use crate::board::Model;
use crate::board::numa::RootBus;
use crate::cli::Device;
use crate::exit::Failed;
use crate::faults::{Event, device_name};
use crate::report::AcceleratorReport;
use crate::sandbox::Thread;
use crate::workers::WorkerPool;

/// Slots of a bus, of which the host bridge has the first.
const SLOTS: u8 = 32;
/// A task that waits for a page keeps its thread: as many queues can wait without stopping the others.
const WORKERS: usize = 256;
/// See [`Limits::mailbox_patience_ns`].
const MAILBOX_PATIENCE_NS: u64 = 2_000_000_000;

/// What the user asked for, each kind in its order.
pub(crate) struct Plugged<'a> {
    /// Where to: at least one.
    pub(crate) root_buses: &'a [RootBus],
    pub(crate) accels: &'a [Accelerator],
    pub(crate) devices: &'a [Device],
    pub(crate) drives: Vec<Arc<dyn BlockBackend>>,
    /// What goes wrong on purpose.
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    pub(crate) errors: &'a GuestErrorBook,
}

/// A function that the device tree has something to say about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described {
    /// The name of its node.
    pub(crate) name: &'static str,
    /// The root bus.
    pub(crate) bus: u8,
    /// Device and function number there.
    pub(crate) devfn: u8,
    /// Its accesses may stall. Where a node does not say so, they must not; without a node, Linux takes it for granted
    /// of the accelerator.
    pub(crate) can_stall: bool,
}

/// An accelerator in its slot.
struct Slot {
    /// What users know it by.
    name: String,
    /// Its requester ID.
    stream: StreamId,
    kind: &'static Kind,
    model: Arc<dyn hisi::Accelerator>,
}

impl Slot {
    fn report(&self) -> AcceleratorReport {
        let Self { name, model, .. } = self;
        AcceleratorReport::new(name.clone(), &model.totals(), &model.atc_totals(), model.latencies())
    }
}

/// The functions behind the host.
pub(crate) struct PciDevices {
    host: Arc<PciHost>,
    accelerators: Vec<Slot>,
    dma_tests: Vec<Arc<DmaTest>>,
    disks: Vec<Arc<VirtioPci>>,
    described: Vec<Described>,
    has_ats: bool,
    pool: Arc<WorkerPool>,
}

/// What all accelerators did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AccelStats {
    pub(crate) commands: u64,
    pub(crate) busy_ns: u64,
    pub(crate) atc: AtcTotals,
}

impl PciDevices {
    pub(crate) fn assemble(
        plugged: Plugged<'_>,
        ram: &Arc<Ram>,
        port: &Arc<dyn DmaPort>,
        agent: &Arc<dyn AtsPort>,
        clock: &Arc<dyn Clock>,
        alarms: &Arc<dyn Alarms>,
        pool: Arc<WorkerPool>,
    ) -> anyhow::Result<Self> {
        let Plugged { root_buses, accels, devices, drives, faults, trace, errors } = plugged;
        // The first bus has its share of the accelerators, and all else.
        let count = accels.len().div_ceil(root_buses.len()) + devices.len() + drives.len();
        if count >= usize::from(SLOTS) {
            let most = SLOTS - 1;
            return Err(Failed::new(format!(
                "{count} accelerators, devices and drives on a PCI bus, but there is room for {most}"
            ))
            .into());
        }
        let host = PciHost::new();
        for bus in &root_buses[1..] {
            host.add_root_bus(bus.first_bus).context("no two buses are the same")?;
        }
        let mut slots = vec![0; root_buses.len()];
        // The next place on the root bus with this number.
        let mut next_place = |index: usize| {
            slots[index] += 1;
            (root_buses[index].first_bus, slots[index] << 3)
        };
        let (mut accelerators, mut dma_tests, mut disks) = (Vec::new(), Vec::new(), Vec::new());
        let mut described = Vec::new();
        for accel in accels {
            let agent = || Arc::clone(agent);
            let (bus, devfn) = next_place(accelerators.len() % root_buses.len());
            let stream = requester_id(bus, devfn);
            let number = accelerators.iter().filter(|slot: &&Slot| slot.kind == accel.kind).count();
            let name = format!("{}{number}", accel.kind.name);
            let wiring = FunctionWiring {
                stream,
                dma: Arc::clone(port),
                translation: match accel.translation {
                    accelerator::Translation::Stall => Translation::Untranslated,
                    accelerator::Translation::Ats => Translation::Ats(agent()),
                    accelerator::Translation::Pri => Translation::Pri(agent()),
                },
                clock: Arc::clone(clock),
                alarms: Arc::clone(alarms),
                scheduler: pool.clone(),
                limits: Limits { workers: WORKERS, mailbox_patience_ns: MAILBOX_PATIENCE_NS },
                faults: faults.clone(),
                trace: trace.clone(),
                errors: errors.for_model(name.clone()),
            };
            let model = accel.kind.make(wiring).context("cannot start an accelerator's threads")?;
            host.attach(bus, devfn, model.clone()).context("the slot is free")?;
            let can_stall = accel.can_stall();
            described.push(Described { name: "accelerator", bus, devfn, can_stall });
            accelerators.push(Slot { name, stream, kind: accel.kind, model });
        }
        for device in devices {
            match device {
                Device::DmaTest => {
                    let (bus, devfn) = next_place(0);
                    let dma_test = DmaTest::new(DmaTestWiring {
                        stream: requester_id(bus, devfn),
                        dma: FaultyPort::before(Arc::clone(port), &faults),
                        ats: Some(Arc::clone(agent)),
                        scheduler: pool.clone(),
                    })
                    .context("cannot start a test device's thread")?;
                    host.attach(bus, devfn, dma_test.clone()).context("the slot is free")?;
                    described.push(Described { name: "dma-test", bus, devfn, can_stall: true });
                    dma_tests.push(dma_test);
                }
            }
        }
        for (index, drive) in drives.into_iter().enumerate() {
            let (bus, devfn) = next_place(0);
            let disk = Box::new(Block::new(drive, &format!("drive{index}")));
            let (stream, errors) = (requester_id(bus, devfn), errors.for_model(format!("disk{index}")));
            let disk = VirtioPci::new(disk, Arc::clone(ram), Arc::clone(port), &*pool, stream, errors);
            host.attach(bus, devfn, disk.clone()).context("the slot is free")?;
            disks.push(disk);
        }
        let has_ats = accels.iter().any(|accel| accel.has_ats()) || !dma_tests.is_empty();
        Ok(Self { host, accelerators, dma_tests, disks, described, has_ats, pool })
    }

    /// The functions, in the order in which they are reset: what makes accesses by itself comes first, with its
    /// translation cache.
    pub(crate) fn models(&self) -> Vec<Model> {
        fn named<M: LifeCycle + 'static>(kind: &str, models: &[Arc<M>]) -> impl Iterator<Item = Model> {
            models.iter().enumerate().map(move |(n, model)| Model::new(format!("{kind}{n}"), model.clone()))
        }
        let accelerators = self.accelerators.iter().map(|slot| Model::new(&slot.name, slot.model.clone()));
        accelerators.chain(named("dma-test", &self.dma_tests)).chain(named("disk", &self.disks)).collect()
    }

    /// Accelerators by the names that users know them by.
    pub(crate) fn accelerator_names(&self) -> Vec<(StreamId, String)> {
        self.accelerators.iter().map(|slot| (slot.stream, slot.name.clone())).collect()
    }

    /// The fault rules mention these points from now on, and did not before.
    pub(crate) fn fault_points_added(&self, points: &[FaultPoint]) {
        self.accelerators.iter().for_each(|slot| slot.model.fault_points_added(points));
    }

    /// Something goes wrong by itself at an accelerator. If it cannot: why.
    pub(crate) fn go_wrong(&self, Event { device, event }: Event) -> Result<(), String> {
        let Some(slot) = self.accelerators.iter().find(|slot| slot.stream == device) else {
            return Err(format!("{} is no accelerator", device_name(device)));
        };
        if slot.model.go_wrong(event) {
            Ok(())
        } else {
            Err("this accelerator has no such message".to_owned())
        }
    }

    pub(crate) fn host(&self) -> &Arc<PciHost> {
        &self.host
    }

    /// Functions that have nodes of their own.
    pub(crate) fn described_functions(&self) -> &[Described] {
        &self.described
    }

    /// Whether some function has a translation cache.
    pub(crate) const fn has_ats(&self) -> bool {
        self.has_ats
    }

    /// What an accelerator and its translation cache have done, if there is one of this name.
    pub(crate) fn accelerator_report(&self, name: &str) -> Option<AcceleratorReport> {
        self.accelerators.iter().find(|slot| slot.name == name).map(Slot::report)
    }

    /// The same of all of them.
    pub(crate) fn accelerator_reports(&self) -> Vec<AcceleratorReport> {
        self.accelerators.iter().map(Slot::report).collect()
    }

    pub(crate) fn accel_stats(&self) -> AccelStats {
        let mut sum = AccelStats::default();
        for slot in &self.accelerators {
            let totals = slot.model.totals();
            sum.commands += totals.commands;
            sum.busy_ns += totals.busy_ns;
            let atc = slot.model.atc_totals();
            sum.atc.hits += atc.hits;
            sum.atc.translation_requests += atc.translation_requests;
            sum.atc.invalidations += atc.invalidations;
            sum.atc.page_requests += atc.page_requests;
            sum.atc.credit_waits += atc.credit_waits;
            sum.atc.page_responses += atc.page_responses;
            sum.atc.unexpected_responses += atc.unexpected_responses;
            sum.atc.unanswered_groups += atc.unanswered_groups;
        }
        sum
    }

    /// Starts the disks' threads; the other devices ask for theirs themselves.
    pub(crate) fn start_workers(&self) -> io::Result<()> {
        for (index, disk) in self.disks.iter().enumerate() {
            let disk = Arc::clone(disk);
            self.pool.start_one(Thread::Disk(index), "disk", move || {
                while disk.wait_for_work() {
                    disk.step();
                }
            })?;
        }
        Ok(())
    }

    /// Ends all device work and waits for its threads.
    pub(crate) fn stop_workers(&self) {
        for slot in &self.accelerators {
            slot.model.shut_down();
        }
        for dma_test in &self.dma_tests {
            dma_test.shut_down();
        }
        for disk in &self.disks {
            disk.stop();
        }
        self.pool.join();
    }
}
