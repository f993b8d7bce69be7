//! What is plugged into the PCI host, where, and the threads behind it.
//!
//! All functions are on bus 0: integrated endpoints, each in a slot of its own. Accelerators come first, from slot 1;
//! then disks, in the order of the command line, which is the order in which a guest finds them.

use std::io;
use std::sync::Arc;

use anyhow::Context;
use devices::hisi::qm::Limits;
use devices::hisi::zip::{Zip, ZipWiring};
use devices::pci::{PciHost, requester_id};
use devices::virtio::{Block, BlockBackend, VirtioPci};
use hw::{Alarms, Clock, DmaPort, Ram};

use crate::cli::Accel;
use crate::exit::Failed;
use crate::workers::Crew;

/// Slots of a bus, of which the host bridge has the first.
const SLOTS: u8 = 32;
/// A task that waits for a page keeps its thread: as many queues can wait without stopping the others.
const WORKERS: usize = 256;
/// See [`Limits::mailbox_patience_ns`].
const MAILBOX_PATIENCE_NS: u64 = 2_000_000_000;

/// The functions behind the host.
pub(crate) struct PciDevices {
    host: Arc<PciHost>,
    zips: Vec<Arc<Zip>>,
    disks: Vec<Arc<VirtioPci>>,
    stalling: Vec<u8>,
    crew: Arc<Crew>,
}

/// What all accelerators did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AccelStats {
    pub(crate) commands: u64,
    pub(crate) busy_ns: u64,
}

impl PciDevices {
    pub(crate) fn assemble(
        accels: &[Accel],
        drives: Vec<Arc<dyn BlockBackend>>,
        ram: &Arc<Ram>,
        port: &Arc<dyn DmaPort>,
        clock: &Arc<dyn Clock>,
        alarms: &Arc<dyn Alarms>,
    ) -> anyhow::Result<Self> {
        let count = accels.iter().filter(|a| **a != Accel::None).count() + drives.len();
        if count >= usize::from(SLOTS) {
            let most = SLOTS - 1;
            return Err(Failed::new(format!(
                "{count} accelerators and drives, but there is room for {most}"
            ))
            .into());
        }
        let host = PciHost::new();
        let crew = Crew::new();
        let mut slot = 0;
        let mut next_devfn = || {
            slot += 1;
            slot << 3
        };
        let (mut zips, mut disks, mut stalling) = (Vec::new(), Vec::new(), Vec::new());
        for accel in accels {
            match accel {
                Accel::None => {}
                Accel::Zip => {
                    let devfn = next_devfn();
                    let zip = Zip::new(ZipWiring {
                        stream: requester_id(0, devfn),
                        dma: Arc::clone(port),
                        clock: Arc::clone(clock),
                        alarms: Arc::clone(alarms),
                        workforce: crew.clone(),
                        limits: Limits { workers: WORKERS, mailbox_patience_ns: MAILBOX_PATIENCE_NS },
                    });
                    host.attach(0, devfn, zip.clone()).context("the slot is free")?;
                    stalling.push(devfn);
                    zips.push(zip);
                }
            }
        }
        for (index, drive) in drives.into_iter().enumerate() {
            let devfn = next_devfn();
            let disk = Box::new(Block::new(drive, &format!("drive{index}")));
            let disk = VirtioPci::new(disk, Arc::clone(ram), Arc::clone(port), requester_id(0, devfn));
            host.attach(0, devfn, disk.clone()).context("the slot is free")?;
            disks.push(disk);
        }
        Ok(Self { host, zips, disks, stalling, crew })
    }

    pub(crate) fn host(&self) -> &Arc<PciHost> {
        &self.host
    }

    /// Functions on bus 0 whose accesses may stall, by `devfn`.
    pub(crate) fn stalling_functions(&self) -> &[u8] {
        &self.stalling
    }

    pub(crate) fn accel_stats(&self) -> AccelStats {
        let mut sum = AccelStats::default();
        for zip in &self.zips {
            let totals = zip.totals();
            sum.commands += totals.commands;
            sum.busy_ns += totals.busy_ns;
        }
        sum
    }

    /// Starts the disks' threads; accelerators hire theirs themselves.
    pub(crate) fn start_workers(&self) -> io::Result<()> {
        for disk in &self.disks {
            let disk = Arc::clone(disk);
            self.crew.start("disk", move || {
                while disk.wait_for_work() {
                    disk.step();
                }
            })?;
        }
        Ok(())
    }

    /// Ends all device work and waits for its threads.
    pub(crate) fn stop_workers(&self) {
        for zip in &self.zips {
            zip.shut_down();
        }
        for disk in &self.disks {
            disk.stop();
        }
        self.crew.join();
    }
}
