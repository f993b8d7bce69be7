//! The machine as the protocol sees it: vCPUs are threads, numbered from 1.
//!
//! Breakpoints are kept here and given to the vCPUs when they go on, for GDB takes all of them out at each stop and puts
//! them in again. There is no difference between those in software and in hardware: no memory of the guest is changed.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};

use cpu::{DebugPoints, Watchpoint};
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps, output};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

use super::monitor;
use super::registers::{Aarch64, DESCRIPTION, Register, put, value_of};
use crate::engine::debug::{CoreRegisters, DebugStop, DebugVcpu, Space};
use crate::machine::{Answer, Operation};

pub use crate::machine::debug::{Job, Stop};
pub use crate::machine::gate::Order;

/// Most breakpoints.
const MOST_BREAKPOINTS: usize = 4096;
/// Most watchpoints.
const MOST_WATCHPOINTS: usize = 64;
/// The most bytes of one watchpoint.
const MOST_WATCHED: u64 = 64 << 10;

/// Linux's EFAULT: there is no such memory.
const FAULT: u8 = 14;
/// Linux's EINVAL.
const INVALID: u8 = 22;
/// Linux's ENOSPC: there are too many already.
const FULL: u8 = 28;

/// Something that can be debugged. What is asked for is done in order.
pub trait Debuggee {
    /// How many vCPUs there are.
    fn cpus(&self) -> usize;

    /// Does something with a vCPU while it stands. The work is dropped if there is none any more.
    fn with_vcpu(&mut self, cpu: usize, work: Job);

    /// These are the breakpoints and watchpoints from now on.
    fn set_points(&mut self, points: Arc<DebugPoints>);

    /// Lets the vCPUs go on, as ordered.
    fn resume(&mut self, orders: Vec<Order>);

    /// Stops it.
    fn interrupt(&mut self);

    /// What the control socket can ask for.
    fn ask(&mut self, operation: Operation) -> Answer;
}

/// The machine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the machine has ended")
    }
}

/// See the module.
#[derive(Debug)]
pub struct Machine<D> {
    debuggee: D,
    software: BTreeSet<u64>,
    hardware: BTreeSet<u64>,
    watched: Vec<(u64, u64, WatchKind)>,
    points_changed: bool,
    /// What has been said of each vCPU, for the next resume.
    orders: Vec<Option<Order>>,
    /// Those of which nothing has been said stay.
    is_locked: bool,
    pub(super) space: Space,
}

impl<D: Debuggee> Machine<D> {
    /// Without breakpoints.
    pub fn new(debuggee: D) -> Self {
        Self {
            debuggee,
            software: BTreeSet::new(),
            hardware: BTreeSet::new(),
            watched: Vec::new(),
            points_changed: false,
            orders: Vec::new(),
            is_locked: false,
            space: Space::default(),
        }
    }

    pub(super) fn debuggee(&mut self) -> &mut D {
        &mut self.debuggee
    }

    fn cpu_of(&self, tid: Tid) -> Option<usize> {
        let cpu = tid.get() - 1;
        (cpu < self.debuggee.cpus()).then_some(cpu)
    }

    fn with<T: Send + 'static>(
        &mut self,
        tid: Tid,
        work: impl FnOnce(&mut dyn DebugVcpu) -> T + Send + 'static,
    ) -> TargetResult<T, Self> {
        let cpu = self.cpu_of(tid).ok_or(TargetError::Errno(INVALID))?;
        let (sender, answer) = mpsc::sync_channel(1);
        self.debuggee.with_vcpu(cpu, Box::new(move |vcpu| drop(sender.send(work(vcpu)))));
        answer.recv().map_err(|_| TargetError::Fatal(Gone))
    }

    /// What GDB is told of a stop.
    pub(super) fn reason(&self, stop: Stop) -> MultiThreadStopReason<u64> {
        let (cpu, why) = match stop {
            Stop::Vcpu(cpu, why) => (cpu, Some(why)),
            Stop::Interrupted => (0, None),
        };
        let tid = tid_of(cpu);
        match why {
            None => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGINT },
            Some(DebugStop::Stepped) => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }
            }
            // GDB knows what it has put there: it looks at the program counter.
            Some(DebugStop::Breakpoint) if self.software.is_empty() => MultiThreadStopReason::HwBreak(tid),
            Some(DebugStop::Breakpoint) => MultiThreadStopReason::SwBreak(tid),
            Some(DebugStop::Watchpoint { address, write }) => {
                let counts = |kind| match kind {
                    WatchKind::Write => write,
                    WatchKind::Read => !write,
                    WatchKind::ReadWrite => true,
                };
                let found = self.watched.iter().find(|(first, len, kind)| {
                    address.checked_sub(*first).is_some_and(|at| at < *len) && counts(*kind)
                });
                let kind = found.map_or(WatchKind::ReadWrite, |(_, _, kind)| *kind);
                MultiThreadStopReason::Watch { tid, kind, addr: address }
            }
        }
    }

    fn add_breakpoint(&mut self, address: u64, hardware: bool) -> TargetResult<bool, Self> {
        if self.software.len() + self.hardware.len() >= MOST_BREAKPOINTS {
            return Err(TargetError::Errno(FULL));
        }
        if address & 3 != 0 {
            return Err(TargetError::Errno(INVALID));
        }
        let set = if hardware { &mut self.hardware } else { &mut self.software };
        self.points_changed |= set.insert(address);
        Ok(true)
    }

    fn remove_breakpoint(&mut self, address: u64, hardware: bool) -> bool {
        let set = if hardware { &mut self.hardware } else { &mut self.software };
        let was_there = set.remove(&address);
        self.points_changed |= was_there;
        was_there
    }

    fn points(&self) -> DebugPoints {
        let watchpoints = self.watched.iter().map(|&(first, len, kind)| Watchpoint {
            first,
            last: first + (len - 1),
            loads: kind != WatchKind::Write,
            stores: kind != WatchKind::Read,
        });
        DebugPoints::new(self.software.iter().chain(&self.hardware).copied(), watchpoints.collect())
    }

    fn order(&mut self, tid: Tid, order: Order) {
        if let Some(cpu) = self.cpu_of(tid)
            && let Some(at) = self.orders.get_mut(cpu)
        {
            *at = Some(order);
        }
    }
}

/// The thread that a vCPU is.
fn tid_of(cpu: usize) -> Tid {
    NonZeroUsize::MIN.saturating_add(cpu)
}

impl<D: Debuggee> Target for Machine<D> {
    type Arch = Aarch64;
    type Error = Gone;

    fn base_ops(&mut self) -> BaseOps<'_, Aarch64, Gone> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> TargetDescriptionXmlOverride for Machine<D> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        out: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::Errno(INVALID));
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = DESCRIPTION.as_bytes().get(offset..).unwrap_or_default();
        let len = rest.len().min(length).min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl<D: Debuggee> MultiThreadBase for Machine<D> {
    fn read_registers(&mut self, registers: &mut CoreRegisters, tid: Tid) -> TargetResult<(), Self> {
        *registers = self.with(tid, |vcpu| vcpu.core())?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &CoreRegisters, tid: Tid) -> TargetResult<(), Self> {
        let registers = registers.clone();
        self.with(tid, move |vcpu| vcpu.set_core(&registers))
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let (space, len) = (self.space, data.len());
        let bytes = self.with(tid, move |vcpu| {
            let mut bytes = vec![0; len];
            let done = vcpu.read(space, address, &mut bytes);
            bytes.truncate(done);
            bytes
        })?;
        if bytes.is_empty() && len > 0 {
            return Err(TargetError::Errno(FAULT));
        }
        data[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, address: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let (space, data) = (self.space, data.to_vec());
        let is_done = self.with(tid, move |vcpu| vcpu.write(space, address, &data))?;
        if is_done { Ok(()) } else { Err(TargetError::Errno(FAULT)) }
    }

    fn list_active_threads(&mut self, each: &mut dyn FnMut(Tid)) -> Result<(), Gone> {
        (0..self.debuggee.cpus()).map(tid_of).for_each(each);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> ThreadExtraInfo for Machine<D> {
    fn thread_extra_info(&self, tid: Tid, out: &mut [u8]) -> Result<usize, Gone> {
        let text = format!("vCPU {}", tid.get() - 1);
        let len = text.len().min(out.len());
        out[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl<D: Debuggee> SingleRegisterAccess<Tid> for Machine<D> {
    fn read_register(&mut self, tid: Tid, register: Register, out: &mut [u8]) -> TargetResult<usize, Self> {
        let value = self.with(tid, move |vcpu| match register {
            Register::System(index) => vcpu.system(index).map(u128::from),
            general => vcpu.core().get(general),
        })?;
        let value = value.ok_or(TargetError::Errno(INVALID))?;
        Ok(put(register, value, out))
    }

    fn write_register(&mut self, tid: Tid, register: Register, bytes: &[u8]) -> TargetResult<(), Self> {
        let value = value_of(register, bytes).ok_or(TargetError::Errno(INVALID))?;
        let is_done = self.with(tid, move |vcpu| match register {
            Register::System(index) => vcpu.set_system(index, value as u64),
            general => {
                let mut core = vcpu.core();
                core.set(general, value);
                vcpu.set_core(&core);
                true
            }
        })?;
        if is_done { Ok(()) } else { Err(TargetError::Errno(INVALID)) }
    }
}

impl<D: Debuggee> MultiThreadResume for Machine<D> {
    fn resume(&mut self) -> Result<(), Gone> {
        if std::mem::take(&mut self.points_changed) {
            let points = Arc::new(self.points());
            self.debuggee.set_points(points);
        }
        let others = if self.is_locked { Order::Stay } else { Order::Run };
        let orders = self.orders.drain(..).map(|order| order.unwrap_or(others)).collect();
        self.debuggee.resume(orders);
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Gone> {
        self.orders = vec![None; self.debuggee.cpus()];
        self.is_locked = false;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Gone> {
        self.order(tid, Order::Run);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> MultiThreadSingleStep for Machine<D> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Gone> {
        self.order(tid, Order::Step);
        Ok(())
    }
}

impl<D: Debuggee> MultiThreadSchedulerLocking for Machine<D> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Gone> {
        self.is_locked = true;
        Ok(())
    }
}

impl<D: Debuggee> Breakpoints for Machine<D> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> SwBreakpoint for Machine<D> {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.add_breakpoint(address, false)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_breakpoint(address, false))
    }
}

impl<D: Debuggee> HwBreakpoint for Machine<D> {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.add_breakpoint(address, true)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_breakpoint(address, true))
    }
}

impl<D: Debuggee> HwWatchpoint for Machine<D> {
    fn add_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if self.watched.contains(&(address, len, kind)) {
            return Ok(true);
        }
        if self.watched.len() >= MOST_WATCHPOINTS {
            return Err(TargetError::Errno(FULL));
        }
        if !(1..=MOST_WATCHED).contains(&len) || address.checked_add(len - 1).is_none() {
            return Err(TargetError::Errno(INVALID));
        }
        self.watched.push((address, len, kind));
        self.points_changed = true;
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let before = self.watched.len();
        self.watched.retain(|watched| *watched != (address, len, kind));
        let was_there = self.watched.len() != before;
        self.points_changed |= was_there;
        Ok(was_there)
    }
}

impl<D: Debuggee> MonitorCmd for Machine<D> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Gone> {
        let answer = monitor::run(self, &String::from_utf8_lossy(command));
        output!(out, "{answer}");
        Ok(())
    }
}
