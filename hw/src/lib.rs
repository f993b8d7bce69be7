//! The vocabulary of the machine: the words in which CPU, SMMU, devices and monitor speak of one another.
//!
//! Nothing here models hardware. The crate has addresses and identities ([`addr`]), guest RAM ([`ram`]) with a
//! watch for writes to translated code ([`watch`]), DMA ([`dma`]), address translation services ([`ats`]), fault points
//! ([`fault`]), wires and messages ([`irq`]), the MMIO seam ([`mmio`]), system registers that live outside the CPU ([`sysreg`]), time
//! ([`clock`], [`timer`]), scheduling ([`schedule`]), random numbers ([`entropy`]), the life cycle of models ([`life_cycle`],
//! [`activity`]), the form of their saved state ([`saved`]), what they tell of their work ([`trace`], [`series`], [`latency`]) and of
//! guests' mistakes ([`guest_error`]), and the register declarations ([`regmap`]). Deliberately absent: KVM, files, sockets, the wall
//! clock, and threads except behind the scheduling seam, so that every model built on it
//! runs in a unit test and under a deterministic clock.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod activity;
pub mod addr;
pub mod ats;
pub mod clock;
pub mod dma;
pub mod entropy;
pub mod fault;
pub mod guest_error;
pub mod irq;
pub mod latency;
pub mod life_cycle;
pub mod mmio;
pub mod ram;
pub mod regmap;
pub mod saved;
pub mod schedule;
pub mod series;
pub mod sysreg;
pub mod timer;
pub mod trace;
pub mod watch;

pub use activity::Activity;
pub use addr::{DeviceId, Iova, Pa, Pasid, StreamId};
pub use clock::{AlarmTarget, Alarms, Clock, ManualAlarms, ManualClock};
pub use dma::{Dir, DirectPort, DmaFault, DmaPort, DmaTag, Pinned, Requester, Waiter};
pub use entropy::{Entropy, SeededEntropy};
pub use fault::{Faults, FaultyPort};
pub use guest_error::{GuestErrorBook, GuestErrors};
pub use irq::{IrqLine, MsiSink, NotADoorbell, RecordingLine, RecordingMsiSink, UnconnectedLine};
pub use latency::Latencies;
pub use life_cycle::LifeCycle;
pub use mmio::{BusError, MmioDevice};
pub use ram::{NotRam, Ram, RamSpan};
pub use saved::{Registers, RestoreError, SavedState};
pub use schedule::{Scheduler, WaitQueue};
pub use series::TimeSeries;
pub use sysreg::{SysReg, SysRegDevice};
pub use timer::{Timer, TimerTarget};
pub use trace::{Trace, Track};
pub use watch::{CodeWriteHook, WriteWatch};
