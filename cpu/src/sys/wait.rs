//! WFI, WFE and events: when a vCPU sleeps, and what wakes it.
//!
//! Arm ARM (DDI 0487) D1.6. The host thread sleeps on the vCPU's [`Signal`]. WFE also wakes when the location that
//! the exclusive monitor watches has changed; nobody tells of that, so it is polled for a moment, and after that the
//! event stream (D12.2.5) bounds the sleep, as it does on hardware.

use std::sync::{Arc, Weak};

use hw::schedule::Backoff;
use hw::{AlarmTarget, Alarms};

use super::signals::Signal;
use super::timer::{NS_PER_COUNT, count_at};
use crate::Cpu;
use crate::exception::Exception;
use hw::trace::Slice;

use crate::observe::Activity;
use crate::state::pending;

/// CNTKCTL_EL1 fields of the event stream.
mod cntkctl {
    pub(super) const EVNTEN: u64 = 1 << 2;
    pub(super) const EVNTDIR: u64 = 1 << 3;
    pub(super) const EVNTI_SHIFT: u32 = 4;
}

/// SCTLR_EL1 bits: WFI and WFE at EL0 are not trapped.
const NTWI: u64 = 1 << 16;
const NTWE: u64 = 1 << 18;

/// What ends WFI, masked by PSTATE or not, and WFE unless masked; the GIC's WakeRequest ends WFI alone. Requests of other
/// vCPUs end neither: they count as served while this one sleeps, and are looked at before its next instruction.
const WAKE_UP: u32 = pending::IRQ | pending::FIQ | pending::STOP;

/// How often WFE looks at a monitored location before it sleeps.
const POLLS: u32 = 100;
/// How often before others get their turn.
const POLLS_AT_ONCE: u32 = 31;

/// Calls a vCPU when its event stream has the next event, while it sleeps in WFE.
pub(crate) struct EventStream {
    alarms: Arc<dyn Alarms>,
    slot: usize,
}

struct Event(Weak<Signal>);

impl AlarmTarget for Event {
    fn alarm(&self) {
        if let Some(signal) = self.0.upgrade() {
            signal.send_event();
        }
    }
}

impl EventStream {
    pub(crate) fn new(alarms: &Arc<dyn Alarms>, signal: &Arc<Signal>) -> Self {
        let slot = alarms.register(Arc::new(Event(Arc::downgrade(signal))));
        Self { alarms: Arc::clone(alarms), slot }
    }

    /// Nobody waits for the next event.
    pub(super) fn cancel(&self) {
        self.alarms.set(self.slot, None);
    }
}

/// The count at which the event stream has its next event: the next change of a counter bit in one direction.
fn next_event(cntkctl: u64, count: u64) -> Option<u64> {
    if cntkctl & cntkctl::EVNTEN == 0 {
        return None;
    }
    let bit = 1u64 << (cntkctl >> cntkctl::EVNTI_SHIFT & 15);
    let period = bit * 2;
    // The bit rises in the middle of each period and falls at its end.
    let phase = if cntkctl & cntkctl::EVNTDIR == 0 { bit } else { 0 };
    let since = count.wrapping_sub(phase) & (period - 1);
    count.checked_add(period - since)
}

impl Cpu {
    /// Sleeps until there is enough reason to go on.
    pub(super) fn sleep(&mut self, signal: &Signal, enough: impl FnMut(&Signal) -> bool) {
        let before = self.watch.switch(Activity::Asleep);
        let (trace, track) = (&self.cluster.observation.trace, hw::Track::Vcpu(self.index as u32));
        trace.begin(track, || Slice::Idle);
        signal.sleep_until(enough);
        trace.begin(track, || Slice::Guest);
        self.watch.switch(before);
    }

    /// WFI: returns when there is a reason to go on, or at once if the thread is wanted elsewhere (the instruction is
    /// then complete, as D1.6.2 allows at any time).
    ///
    /// # Errors
    /// At EL0, where SCTLR_EL1.nTWI traps it.
    pub(crate) fn wait_for_interrupt(&mut self) -> Result<(), Exception> {
        if self.at_el0() && self.state.sys.sctlr & NTWI == 0 {
            return Err(Exception::wf_trap(false));
        }
        self.sleep_until_wake_up();
        Ok(())
    }

    /// Sleeps until an interrupt is pending, masked or not, the GIC asks to be woken for one, or the thread is wanted
    /// elsewhere.
    pub(super) fn sleep_until_wake_up(&mut self) {
        const REASONS: u32 = WAKE_UP | pending::WAKE;
        if self.is_debug_stepping() {
            return;
        }
        let signal = Arc::clone(self.cluster.signal(self.index));
        if signal.pending() & REASONS == 0 {
            self.sleep(&signal, |signal| signal.pending() & REASONS != 0);
        }
    }

    /// WFE. An interrupt that PSTATE masks does not end it (D1.6.1): whoever waits for a lock with interrupts masked would
    /// otherwise keep a host's processor busy from the next tick on, perhaps the one that the owner of the lock needs.
    ///
    /// # Errors
    /// At EL0, where SCTLR_EL1.nTWE traps it.
    pub(crate) fn wait_for_event(&mut self) -> Result<(), Exception> {
        let signal = Arc::clone(self.cluster.signal(self.index));
        if signal.take_event() {
            return Ok(());
        }
        if self.at_el0() && self.state.sys.sctlr & NTWE == 0 {
            return Err(Exception::wf_trap(true));
        }
        if self.is_debug_stepping() {
            return Ok(());
        }
        let wake_up = WAKE_UP & self.state.interest;
        let is_awake = |signal: &Signal| signal.pending() & wake_up != 0 || signal.take_event();
        let mut backoff = Backoff::new(&*self.cluster.scheduler, POLLS_AT_ONCE);
        for round in 0..POLLS {
            if is_awake(&signal) || self.monitor_broken() == Some(true) {
                return Ok(());
            }
            if round % (POLLS_AT_ONCE + 1) == 0 {
                backoff.reset();
            }
            backoff.snooze();
        }
        let now = count_at(self.cluster.clock.now_ns());
        let Some(next) = next_event(self.state.sys.cntkctl, now) else {
            if self.mem.has_monitor() {
                // Nothing would wake it when the location changes: it goes round its loop instead.
                self.cluster.scheduler.yield_now();
                return Ok(());
            }
            self.sleep(&signal, is_awake);
            return Ok(());
        };
        let cluster = Arc::clone(&self.cluster);
        let stream = &cluster.event_streams[self.index];
        stream.alarms.set(stream.slot, next.checked_mul(NS_PER_COUNT));
        self.sleep(&signal, is_awake);
        stream.cancel();
        Ok(())
    }

    /// SEV (`everywhere`) and SEVL.
    pub(crate) fn send_event(&mut self, everywhere: bool) {
        if everywhere {
            for signal in self.cluster.signals().iter() {
                signal.send_event();
            }
        } else {
            self.cluster.signal(self.index).send_event();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_stream_follows_the_selected_counter_bit_and_direction() {
        let rising = cntkctl::EVNTEN | 4 << cntkctl::EVNTI_SHIFT;
        assert_eq!(next_event(rising, 0), Some(16));
        assert_eq!(next_event(rising, 15), Some(16));
        assert_eq!(next_event(rising, 16), Some(48));
        let falling = rising | cntkctl::EVNTDIR;
        assert_eq!(next_event(falling, 0), Some(32));
        assert_eq!(next_event(falling, 31), Some(32));
        assert_eq!(next_event(falling, 32), Some(64));
        assert_eq!(next_event(0, 7), None);
        assert_eq!(next_event(rising, u64::MAX), None);
    }
}
