//! One generic timer of a PE: CTL, CVAL and TVAL, and the level of its interrupt.
//!
//! Spec: Arm ARM DDI 0487, D12. The counters of all PEs are the machine's [`Clock`], at [`FREQUENCY_HZ`];
//! CNTVOFF is zero, so the virtual count is the physical count. The output is level-sensitive: high while the timer
//! is enabled, its condition holds, and it is not masked. The alarm service raises it when its time has come, which on a
//! busy host may be late; so whoever learns from a register that the condition holds, be it from the count, raises
//! it first. Deliberately absent: the EL2 and secure timers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hw::saved::{RestoreError, hex};
use hw::{AlarmTarget, Alarms, Clock, IrqLine};
use serde::{Deserialize, Serialize};

pub use crate::sizes::FREQUENCY_HZ;

/// Nanoseconds per count. The frequency divides a second evenly.
pub const NS_PER_COUNT: u64 = 1_000_000_000 / FREQUENCY_HZ;

const ENABLE: u64 = 1 << 0;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;

/// The count at a time.
#[must_use]
pub fn count_at(ns: u64) -> u64 {
    ns / NS_PER_COUNT
}

#[derive(Debug, Default)]
struct Registers {
    /// ENABLE and IMASK.
    ctl: u64,
    cval: u64,
}

impl Registers {
    fn condition_holds(&self, count: u64) -> bool {
        // DDI 0487 D12.2.4: (count - CompareValue) >= 0, both unsigned 64-bit.
        count >= self.cval
    }
}

/// A timer as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimerState {
    /// Without ISTATUS, which follows from the count.
    #[serde(rename = "CTL", with = "hex")]
    ctl: u64,
    #[serde(rename = "CVAL", with = "hex")]
    cval: u64,
}

impl TimerState {
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        if self.ctl & !(ENABLE | IMASK) == 0 {
            Ok(())
        } else {
            Err(RestoreError::value("CTL", "has bits that software cannot write"))
        }
    }
}

/// A timer. Its registers are written by its own vCPU and looked at by the alarm service.
pub struct Timer {
    clock: Arc<dyn Clock>,
    alarms: Arc<dyn Alarms>,
    slot: OnceLock<usize>,
    line: Arc<dyn IrqLine>,
    registers: Mutex<Registers>,
    /// The count at which the output, low, rises by itself; the greatest number for none. A copy for those who read the
    /// count, of what [`Self::settle`] has found; only the timer's own vCPU makes it smaller.
    rises_at: AtomicU64,
}

/// What the alarm service keeps: weak, so that timer and service do not hold each other alive.
struct Expiry(std::sync::Weak<Timer>);

impl AlarmTarget for Expiry {
    fn alarm(&self) {
        if let Some(timer) = self.0.upgrade() {
            timer.settle(&timer.lock());
        }
    }
}

impl Timer {
    /// A disabled timer that drives `line`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, alarms: Arc<dyn Alarms>, line: Arc<dyn IrqLine>) -> Arc<Self> {
        let timer = Arc::new(Self {
            clock,
            alarms: Arc::clone(&alarms),
            slot: OnceLock::new(),
            line,
            registers: Mutex::default(),
            rises_at: AtomicU64::new(u64::MAX),
        });
        let slot = alarms.register(Arc::new(Expiry(Arc::downgrade(&timer))));
        // Nobody else has the timer yet, so this is the first value.
        let _ = timer.slot.set(slot);
        timer
    }

    fn count(&self) -> u64 {
        count_at(self.clock.now_ns())
    }

    /// This vCPU is about to see that the count is `count`: the output is then what it must be at that count.
    pub fn seen(&self, count: u64) {
        if count >= self.rises_at.load(Ordering::Acquire) {
            self.settle(&self.lock());
        }
    }

    /// CTL: ENABLE, IMASK, and ISTATUS, which tells only of an enabled timer.
    #[must_use]
    pub fn ctl(&self) -> u64 {
        let registers = self.lock();
        let count = self.count();
        let fired = registers.ctl & ENABLE != 0 && registers.condition_holds(count);
        if fired && count >= self.rises_at.load(Ordering::Acquire) {
            self.settle(&registers);
        }
        registers.ctl | if fired { ISTATUS } else { 0 }
    }

    /// Writes CTL.
    pub fn set_ctl(&self, value: u64) {
        let mut registers = self.lock();
        registers.ctl = value & (ENABLE | IMASK);
        self.settle(&registers);
    }

    /// CVAL.
    #[must_use]
    pub fn cval(&self) -> u64 {
        self.lock().cval
    }

    /// Writes CVAL.
    pub fn set_cval(&self, value: u64) {
        let mut registers = self.lock();
        registers.cval = value;
        self.settle(&registers);
    }

    /// TVAL: the counts that remain, as a 32-bit signed number, zero-extended.
    #[must_use]
    pub fn tval(&self) -> u64 {
        let count = self.count();
        self.seen(count);
        self.lock().cval.wrapping_sub(count) & u64::from(u32::MAX)
    }

    /// Writes TVAL: the condition holds that many counts from now. The low 32 bits count, signed.
    pub fn set_tval(&self, value: u64) {
        let delta = i64::from(value as u32 as i32);
        let mut registers = self.lock();
        registers.cval = self.count().wrapping_add_signed(delta);
        self.settle(&registers);
    }

    /// Back to the state at reset: disabled, output low.
    pub fn reset(&self) {
        let mut registers = self.lock();
        *registers = Registers::default();
        self.settle(&registers);
    }

    pub(crate) fn save(&self) -> TimerState {
        let Registers { ctl, cval } = *self.lock();
        TimerState { ctl, cval }
    }

    /// Takes up a state that has passed [`TimerState::check`]. Output and alarm are what follows from it now.
    pub(crate) fn restore(&self, state: &TimerState) {
        let mut registers = self.lock();
        let &TimerState { ctl, cval } = state;
        *registers = Registers { ctl, cval };
        self.settle(&registers);
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives the output, and asks for a call at the time when it will change by itself. Under the lock, so that
    /// the last word about the level is also the last on the wire.
    fn settle(&self, registers: &Registers) {
        let may_fire = registers.ctl & (ENABLE | IMASK) == ENABLE;
        let holds = registers.condition_holds(self.count());
        self.line.set(may_fire && holds);
        let rises = may_fire && !holds;
        // Released: who no longer sees the time of the rise sees the line risen.
        self.rises_at.store(if rises { registers.cval } else { u64::MAX }, Ordering::Release);
        let deadline = if rises { registers.cval.checked_mul(NS_PER_COUNT) } else { None };
        if let Some(&slot) = self.slot.get() {
            self.alarms.set(slot, deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::{ManualClock, RecordingLine};

    /// An alarm service for one target, driven by hand.
    #[derive(Default)]
    pub(crate) struct OneAlarm {
        target: OnceLock<Arc<dyn AlarmTarget>>,
        deadline: Mutex<Option<u64>>,
    }

    impl Alarms for OneAlarm {
        fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
            assert!(self.target.set(target).is_ok(), "one target only");
            0
        }

        fn set(&self, _slot: usize, deadline_ns: Option<u64>) {
            *self.deadline.lock().unwrap() = deadline_ns;
        }
    }

    struct Bench {
        clock: Arc<ManualClock>,
        alarm: Arc<OneAlarm>,
        line: Arc<RecordingLine>,
        timer: Arc<Timer>,
    }

    fn bench() -> Bench {
        let clock = Arc::new(ManualClock::default());
        let alarm = Arc::new(OneAlarm::default());
        let line = Arc::new(RecordingLine::default());
        let timer = Timer::new(clock.clone(), alarm.clone(), line.clone());
        Bench { clock, alarm, line, timer }
    }

    impl Bench {
        /// Moves the time, and calls the target if its deadline has come, as the service does.
        fn advance_counts(&self, counts: u64) {
            self.clock.advance_ns(counts * NS_PER_COUNT);
            let due = self.alarm.deadline.lock().unwrap().is_some_and(|at| at <= self.clock.now_ns());
            if due {
                self.alarm.target.get().unwrap().alarm();
            }
        }
    }

    #[test]
    fn enabled_timer_fires_at_its_compare_value_and_not_before() {
        let b = bench();
        b.timer.set_cval(100);
        b.timer.set_ctl(1);
        b.advance_counts(99);
        assert!(!b.line.level());
        assert_eq!(b.timer.ctl(), 1);
        b.advance_counts(1);
        assert!(b.line.level());
        assert_eq!(b.timer.ctl(), 5);
    }

    #[test]
    fn line_is_high_for_whoever_reads_that_the_condition_holds_though_the_alarm_is_late() {
        /// Reads a register; tells if the condition holds by what it says.
        type Read = fn(&Timer) -> bool;
        let reads: [(&str, Read); 3] = [
            ("CTL", |timer| timer.ctl() & ISTATUS != 0),
            ("TVAL", |timer| timer.tval() as u32 as i32 <= 0),
            ("the count", |timer| {
                timer.seen(timer.count());
                timer.count() >= 100
            }),
        ];
        for (register, holds) in reads {
            let b = bench();
            b.timer.set_cval(100);
            b.timer.set_ctl(1);
            b.clock.advance_ns(99 * NS_PER_COUNT);
            assert!(!holds(&b.timer) && !b.line.level(), "{register}");
            b.clock.advance_ns(NS_PER_COUNT);
            assert!(holds(&b.timer) && b.line.level(), "{register}");
            // The alarm that comes at last changes nothing, and a masked timer stays silent.
            b.timer.set_ctl(3);
            b.alarm.target.get().unwrap().alarm();
            assert!(holds(&b.timer) && !b.line.level(), "{register}, masked");
        }
    }

    #[test]
    fn level_falls_when_masked_disabled_or_moved_on_and_rises_again_when_unmasked() {
        let b = bench();
        b.advance_counts(50);
        b.timer.set_ctl(1);
        assert!(b.line.level(), "compare value 0 is in the past");
        b.timer.set_ctl(3);
        assert!(!b.line.level());
        assert_eq!(b.timer.ctl(), 7, "ISTATUS tells of the condition whether masked or not");
        b.timer.set_ctl(1);
        assert!(b.line.level());
        b.timer.set_cval(60);
        assert!(!b.line.level());
        b.timer.set_ctl(0);
        b.advance_counts(20);
        assert!(!b.line.level());
        assert_eq!(b.timer.ctl(), 0, "ISTATUS of a disabled timer reads as zero");
    }

    #[test]
    fn tval_counts_down_signed_and_writes_relative_to_now() {
        let b = bench();
        b.advance_counts(1000);
        b.timer.set_tval(10);
        assert_eq!(b.timer.cval(), 1010);
        b.advance_counts(11);
        assert_eq!(b.timer.tval(), 0xffff_ffff);
        b.timer.set_tval(0xffff_ffff);
        assert_eq!(b.timer.cval(), 1010);
        b.timer.set_ctl(1);
        assert!(b.line.level());
    }

    #[test]
    fn compare_value_beyond_the_clock_asks_for_no_alarm() {
        let b = bench();
        b.timer.set_cval(u64::MAX);
        b.timer.set_ctl(1);
        assert_eq!(*b.alarm.deadline.lock().unwrap(), None);
        assert!(!b.line.level());
    }
}
