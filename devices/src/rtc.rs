//! PL031 real-time clock: seconds since 1970, and one alarm.
//!
//! Arm DDI 0224C. Time is the machine's [`Clock`] plus an offset that is given when the machine is made, so that a
//! deterministic run has a deterministic date; that is also why rust-vmm's PL031, which asks the host and has no
//! alarm, does not serve. The counter runs from the start, as one with a battery does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hw::mmio::{put_value, value_of};
use hw::regmap::{RegisterMap, Store, whole_register};
use hw::saved::{RestoreError, SavedState, hex};
use hw::{AlarmTarget, Alarms, BusError, Clock, IrqLine, LifeCycle, MmioDevice};
use serde::{Deserialize, Serialize};
use serde_json::Value;

hw::register_map! {
    /// PL031 registers. Arm DDI 0224C, table 3-1.
    pub enum Pl031Reg {
        /// The date, in seconds.
        RTCDR @ 0x000: 4 Ro(0) = 0, "3.3.1";
        /// The date of the alarm.
        RTCMR @ 0x004: 4 Rw(0xffff_ffff) = 0, "3.3.2";
        /// A write sets the date; reads what was written.
        RTCLR @ 0x008: 4 Rw(0xffff_ffff) = 0, "3.3.3";
        RTCCR @ 0x00c: 4 Ro(0) = 1, "3.3.4" {
            RTCStart[0] "runs; once started, until a reset";
        };
        RTCIMSC @ 0x010: 4 Rw(0x1) = 0, "3.3.5" {
            RTCIMSC[0] "the alarm interrupts";
        };
        RTCRIS @ 0x014: 4 Ro(0) = 0, "3.3.6" {
            RTCRIS[0] "the date of the alarm has come";
        };
        RTCMIS @ 0x018: 4 Ro(0) = 0, "3.3.7" {
            RTCMIS[0] "it interrupts";
        };
        RTCICR @ 0x01c: 4 Wo(0x1) = 0, "3.3.8" {
            RTCICR[0] "ends the interrupt";
        };
        /// Part 0x031, designer Arm, revision 1.
        RTCPeriphID[4; 4] @ 0xfe0: 4 Ro(0) = 0, "3.3.9";
        /// A PrimeCell.
        RTCPCellID[4; 4] @ 0xff0: 4 Ro(0) = 0, "3.3.10";
    }
}

/// Part 0x031 by Arm, revision 1 (PeriphID2\[7:4\]): the one that software knows from other machines.
const PERIPH_ID: [u8; 4] = [0x31, 0x10, 0x14, 0x00];
const PCELL_ID: [u8; 4] = [0x0d, 0xf0, 0x05, 0xb1];
const NS_PER_SECOND: u64 = 1_000_000_000;

/// The real-time clock.
pub struct Pl031 {
    counter: Arc<Counter>,
    alarms: Arc<dyn Alarms>,
    slot: usize,
}

/// The part that the alarm service calls.
struct Counter {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    irq: Arc<dyn IrqLine>,
}

#[derive(Debug)]
struct State {
    /// What is added to the seconds of the clock, modulo 2^32.
    offset: u32,
    registers: Store<Pl031Reg>,
    /// When the counter reaches RTCMR, if the guest has set it and it has not been reached.
    deadline_ns: Option<u64>,
}

impl State {
    /// After power-on, with a date.
    fn at_reset(offset: u32) -> Self {
        Self { offset, registers: Store::at_reset(), deadline_ns: None }
    }

    /// What interrupts: RTCMIS.
    fn masked(&self) -> u32 {
        self.registers.word(Pl031Reg::RTCRIS) & self.registers.word(Pl031Reg::RTCIMSC)
    }
}

impl Counter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self) -> u32 {
        // The counter has 32 bits and wraps, in 2106 for the first time.
        (self.clock.now_ns() / NS_PER_SECOND) as u32
    }

    fn drive(&self, state: &State) {
        self.irq.set(state.masked() != 0);
    }

    /// Raises the interrupt if the match has been reached.
    fn compare(&self, state: &mut State) {
        if state.deadline_ns.is_some_and(|deadline| self.clock.now_ns() >= deadline) {
            state.deadline_ns = None;
            state.registers.set_word(Pl031Reg::RTCRIS, 1);
        }
        self.drive(state);
    }

    /// Finds out when the counter will next be equal to the match register.
    fn plan(&self, state: &mut State) {
        let now_s = self.clock.now_ns() / NS_PER_SECOND;
        let left =
            state.registers.word(Pl031Reg::RTCMR).wrapping_sub(self.seconds().wrapping_add(state.offset));
        state.deadline_ns = Some(now_s.saturating_add(left.into()).saturating_mul(NS_PER_SECOND));
        self.compare(state);
    }
}

impl AlarmTarget for Counter {
    fn alarm(&self) {
        self.compare(&mut self.lock());
    }
}

impl Pl031 {
    /// A clock that shows `unix_seconds` when `clock` is at zero.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        alarms: Arc<dyn Alarms>,
        irq: Arc<dyn IrqLine>,
        unix_seconds: u64,
    ) -> Arc<Self> {
        let state = Mutex::new(State::at_reset(unix_seconds as u32));
        let counter = Arc::new(Counter { state, clock, irq });
        let slot = alarms.register(counter.clone());
        Arc::new(Self { counter, alarms, slot })
    }

    /// Sets the alarm to what `state`, which is locked, says: of two vCPUs that write, the alarm is the second one's.
    fn set_alarm(&self, state: &State) {
        self.alarms.set(self.slot, state.deadline_ns);
    }
}

impl LifeCycle for Pl031 {
    /// What the bus's reset line resets: the alarm is gone, and with it the interrupt. The counter has a reset line of its own
    /// (nRTCRST), which is for the first power-on of a clock with a battery: the date stays, also one that software has set.
    fn reset(&self) {
        let mut state = self.counter.lock();
        *state = State::at_reset(state.offset);
        self.counter.drive(&state);
        self.set_alarm(&state);
    }

    fn save(&self) -> Value {
        let mut state = self.counter.lock();
        // The alarm's thread may be late; what is saved is not.
        self.counter.compare(&mut state);
        let State { offset, registers, deadline_ns } = &*state;
        RtcState {
            offset: *offset,
            lr: registers.word(Pl031Reg::RTCLR),
            mr: registers.word(Pl031Reg::RTCMR),
            imsc: registers.word(Pl031Reg::RTCIMSC),
            ris: registers.word(Pl031Reg::RTCRIS),
            match_is_ahead: deadline_ns.is_some(),
        }
        .to_value()
    }

    /// The date goes on with guest time, from where it was when the state was saved: what has passed on the host is not in it.
    fn restore(&self, state: Value) -> Result<(), RestoreError> {
        let RtcState { offset, lr, mr, imsc, ris, match_is_ahead } = RtcState::from_value(state)?;
        let mut restored = State::at_reset(offset);
        for (reg, value, possible) in [
            (Pl031Reg::RTCLR, lr, Pl031Reg::RTCLR.info().writable),
            (Pl031Reg::RTCMR, mr, Pl031Reg::RTCMR.info().writable),
            (Pl031Reg::RTCIMSC, imsc, Pl031Reg::RTCIMSC.info().writable),
            // Of the same interrupt.
            (Pl031Reg::RTCRIS, ris, Pl031Reg::RTCIMSC.info().writable),
        ] {
            let put = restored.registers.restore(reg, 0, value.into(), possible);
            put.map_err(|why| RestoreError::value(reg.info().name, why))?;
        }
        let mut state = self.counter.lock();
        *state = restored;
        if match_is_ahead {
            // Where the counter is equal to the match now, the match has been reached.
            self.counter.plan(&mut state);
        }
        self.counter.drive(&state);
        self.set_alarm(&state);
        Ok(())
    }
}

/// The clock as it is saved, at a guest time that is the same when it is restored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RtcState {
    /// What is added to the seconds of guest time, modulo 2^32, to be the date.
    offset: u32,
    #[serde(rename = "RTCLR", with = "hex")]
    lr: u32,
    #[serde(rename = "RTCMR", with = "hex")]
    mr: u32,
    #[serde(rename = "RTCIMSC", with = "hex")]
    imsc: u32,
    #[serde(rename = "RTCRIS", with = "hex")]
    ris: u32,
    /// The guest has set an alarm, and its time has not come.
    match_is_ahead: bool,
}

impl SavedState for RtcState {
    const VERSION: u32 = 1;
}

impl MmioDevice for Pl031 {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) -> Result<(), BusError> {
        let (reg, index) = whole_register::<Pl031Reg>(offset, data.len())?;
        let counter = &self.counter;
        let mut state = counter.lock();
        // The alarm's thread may be late; what is read is not.
        counter.compare(&mut state);
        let id =
            |ids: [u8; 4]| usize::try_from(index).ok().and_then(|i| ids.get(i)).copied().unwrap_or(0).into();
        let value = match reg {
            Pl031Reg::RTCDR => counter.seconds().wrapping_add(state.offset),
            Pl031Reg::RTCMIS => state.masked(),
            Pl031Reg::RTCPeriphID => id(PERIPH_ID),
            Pl031Reg::RTCPCellID => id(PCELL_ID),
            _ => state.registers.read(reg, 0) as u32,
        };
        put_value(data, value.into());
        Ok(())
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) -> Result<(), BusError> {
        let (reg, _) = whole_register::<Pl031Reg>(offset, data.len())?;
        let counter = &self.counter;
        let value = reg.info().written(0, value_of(data)) as u32;
        let mut state = counter.lock();
        counter.compare(&mut state);
        match reg {
            Pl031Reg::RTCMR => {
                state.registers.set_word(reg, value);
                counter.plan(&mut state);
            }
            Pl031Reg::RTCLR => {
                state.registers.set_word(reg, value);
                state.offset = value.wrapping_sub(counter.seconds());
                counter.plan(&mut state);
            }
            Pl031Reg::RTCICR => {
                let left = state.registers.word(Pl031Reg::RTCRIS) & !value;
                state.registers.set_word(Pl031Reg::RTCRIS, left);
            }
            _ => state.registers.write(reg, 0, value.into(), u64::MAX, |condition| match condition {}),
        }
        counter.drive(&state);
        if matches!(reg, Pl031Reg::RTCMR | Pl031Reg::RTCLR) {
            self.set_alarm(&state);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hw::regmap::{check_map, check_plain};
    use hw::{ManualClock, RecordingLine};

    use super::*;

    const DR: u64 = Pl031Reg::RTCDR.offset();
    const MR: u64 = Pl031Reg::RTCMR.offset();
    const LR: u64 = Pl031Reg::RTCLR.offset();
    const CR: u64 = Pl031Reg::RTCCR.offset();
    const IMSC: u64 = Pl031Reg::RTCIMSC.offset();
    const RIS: u64 = Pl031Reg::RTCRIS.offset();
    const MIS: u64 = Pl031Reg::RTCMIS.offset();
    const ICR: u64 = Pl031Reg::RTCICR.offset();

    /// An alarm service with one slot, fired by hand.
    #[derive(Default)]
    struct Alarm {
        target: Mutex<Option<Arc<dyn AlarmTarget>>>,
        deadline_ns: Mutex<Option<u64>>,
        /// Asked whenever the alarm is set.
        when_set: Mutex<Option<Box<dyn FnMut() + Send>>>,
    }

    impl Alarms for Alarm {
        fn register(&self, target: Arc<dyn AlarmTarget>) -> usize {
            *self.target.lock().unwrap() = Some(target);
            0
        }

        fn set(&self, _slot: usize, deadline_ns: Option<u64>) {
            if let Some(when_set) = &mut *self.when_set.lock().unwrap() {
                when_set();
            }
            *self.deadline_ns.lock().unwrap() = deadline_ns;
        }
    }

    struct Bench {
        rtc: Arc<Pl031>,
        clock: Arc<ManualClock>,
        alarm: Arc<Alarm>,
        line: Arc<RecordingLine>,
    }

    impl Bench {
        fn new(unix_seconds: u64) -> Self {
            let clock = Arc::new(ManualClock::default());
            let alarm = Arc::new(Alarm::default());
            let line = Arc::new(RecordingLine::default());
            let rtc = Pl031::new(clock.clone(), alarm.clone(), line.clone(), unix_seconds);
            Self { rtc, clock, alarm, line }
        }

        fn read(&self, offset: u64) -> u32 {
            let mut data = [0; 4];
            self.rtc.mmio_read(offset, &mut data).unwrap();
            u32::from_le_bytes(data)
        }

        fn write(&self, offset: u64, value: u32) {
            self.rtc.mmio_write(offset, &value.to_le_bytes()).unwrap();
        }
    }

    #[test]
    fn map_is_consistent_and_ids_are_those_the_bus_driver_matches() {
        check_map::<Pl031Reg>();
        let bench = Bench::new(0);
        let id = |reg: Pl031Reg| (0..4).fold(0, |id, i| id | bench.read(reg.at(i)) << (8 * i));
        assert_eq!(id(Pl031Reg::RTCPeriphID), 0x0014_1031, "revision 1");
        assert_eq!(id(Pl031Reg::RTCPCellID), 0xb105_f00d);
    }

    #[test]
    fn plain_registers_keep_what_is_writable_and_nothing_else() {
        let bench = Bench::new(0);
        let modelled = [
            Pl031Reg::RTCDR,
            Pl031Reg::RTCRIS,
            Pl031Reg::RTCMIS,
            Pl031Reg::RTCPeriphID,
            Pl031Reg::RTCPCellID,
        ];
        check_plain::<Pl031Reg>(
            |at, _| bench.read(at).into(),
            |at, _, value| bench.write(at, value as u32),
            &modelled,
        );
    }

    #[test]
    fn counter_shows_the_date_and_goes_on_from_what_is_loaded() {
        let bench = Bench::new(1_700_000_000);
        bench.clock.advance_ns(2_999_999_999);
        assert_eq!((bench.read(DR), bench.read(CR)), (1_700_000_002, 1));
        bench.write(LR, 5);
        bench.clock.advance_ns(1);
        assert_eq!((bench.read(DR), bench.read(LR)), (6, 5));
        bench.write(CR, 0);
        assert_eq!(bench.read(CR), 1, "it cannot be stopped");
    }

    #[test]
    fn alarm_fires_when_the_counter_reaches_the_match_and_is_masked_and_cleared() {
        let bench = Bench::new(100);
        bench.clock.advance_ns(500_000_000);
        bench.write(MR, 103);
        assert_eq!(*bench.alarm.deadline_ns.lock().unwrap(), Some(3_000_000_000));
        bench.clock.advance_ns(2_500_000_000);
        let target = bench.alarm.target.lock().unwrap().clone().unwrap();
        target.alarm();
        assert_eq!((bench.read(RIS), bench.read(MIS), bench.line.level()), (1, 0, false));
        bench.write(IMSC, 1);
        assert_eq!((bench.read(MIS), bench.line.level()), (1, true));
        bench.write(ICR, 1);
        assert_eq!((bench.read(RIS), bench.line.level()), (0, false));
        target.alarm();
        assert!(!bench.line.level(), "it has been reached once");
    }

    #[test]
    fn alarm_before_its_time_does_nothing_and_a_match_in_the_past_waits_for_the_wrap() {
        let bench = Bench::new(100);
        bench.write(IMSC, 1);
        bench.write(MR, 110);
        bench.alarm.target.lock().unwrap().clone().unwrap().alarm();
        assert!(!bench.line.level());
        bench.write(MR, 99);
        assert_eq!(*bench.alarm.deadline_ns.lock().unwrap(), Some(u64::from(u32::MAX) * NS_PER_SECOND));
        bench.write(MR, 100);
        assert!(bench.line.level(), "equal now");
        bench.rtc.reset();
        assert!(!bench.line.level());
        assert_eq!((*bench.alarm.deadline_ns.lock().unwrap(), bench.read(DR)), (None, 100));
    }

    #[test]
    fn alarm_is_set_before_another_vcpu_can_write_so_that_the_last_match_has_the_last_word() {
        let bench = Bench::new(100);
        let rtc = Arc::clone(&bench.rtc);
        let times = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&times);
        *bench.alarm.when_set.lock().unwrap() = Some(Box::new(move || {
            assert!(rtc.counter.state.try_lock().is_err(), "the registers are free for another writer");
            *seen.lock().unwrap() += 1;
        }));
        bench.write(MR, 103);
        bench.write(LR, 7);
        bench.rtc.reset();
        assert_eq!(*times.lock().unwrap(), 3);
    }

    /// An interrupt that waits is none of the next kernel's, and its date is that of the clock on the wall.
    #[test]
    fn reset_brings_every_register_back_to_power_on_but_the_date_goes_on() {
        let registers = |bench: &Bench| -> Vec<_> {
            let row = |info: &'static hw::regmap::RegisterInfo| {
                (0..info.count).map(move |index| info.offset + index * info.stride)
            };
            let all = Pl031Reg::ALL.iter().flat_map(|(_, info)| row(info)).filter(|at| *at != DR);
            all.map(|at| (at, bench.read(at))).collect()
        };
        let bench = Bench::new(1_700_000_000);
        let at_power_on = registers(&bench);
        for round in 0..100 {
            bench.write(LR, 500);
            bench.write(IMSC, 1);
            bench.write(MR, 500);
            assert!(bench.line.level());
            bench.write(MR, 501);
            bench.rtc.reset();
            assert_eq!(registers(&bench), at_power_on, "round {round}");
            assert_eq!((bench.line.level(), *bench.alarm.deadline_ns.lock().unwrap()), (false, None));
            bench.clock.advance_ns(NS_PER_SECOND);
            bench.alarm.target.lock().unwrap().clone().unwrap().alarm();
            assert_eq!((bench.read(DR), bench.read(RIS)), (501, 0));
        }
    }

    #[test]
    fn unsuitable_accesses_are_refused() {
        let bench = Bench::new(0);
        assert_eq!(bench.rtc.mmio_read(0x20, &mut [0; 4]), Err(BusError::NoRegister(0x20)));
        let wide = bench.rtc.mmio_write(0, &[0; 8]);
        assert_eq!(wide, Err(BusError::BadAccess { offset: 0, len: 8 }));
    }

    #[test]
    fn saved_clock_goes_on_with_guest_time_and_its_alarm_comes_when_it_would_have() {
        let bench = Bench::new(1000);
        bench.clock.advance_ns(1_500_000_000);
        bench.write(LR, 5000);
        bench.write(MR, 5010);
        bench.write(IMSC, 1);
        bench.clock.advance_ns(3_000_000_000);
        let state = bench.rtc.save();
        // Made on another day.
        let after = Bench::new(77);
        after.clock.advance_ns(bench.clock.now_ns());
        after.rtc.restore(state.clone()).unwrap();
        assert_eq!(after.rtc.save(), state);
        assert_eq!((after.read(DR), after.line.level()), (bench.read(DR), false));
        assert_eq!(*after.alarm.deadline_ns.lock().unwrap(), *bench.alarm.deadline_ns.lock().unwrap());
        for bench in [&bench, &after] {
            bench.clock.advance_ns(7_000_000_000);
            bench.read(DR);
            assert!(bench.line.level());
        }
        // The interrupt that is pending comes back with its wire, and no alarm is left.
        let again = Bench::new(0);
        again.clock.advance_ns(after.clock.now_ns());
        again.rtc.restore(after.rtc.save()).unwrap();
        assert_eq!((again.line.level(), *again.alarm.deadline_ns.lock().unwrap()), (true, None));
        assert_eq!(again.rtc.save(), after.rtc.save());
    }

    #[test]
    fn state_that_no_guest_could_have_brought_about_is_refused() {
        let bench = Bench::new(0);
        for (name, value) in
            [("RTCIMSC", "0x2"), ("RTCRIS", "0x2"), ("RTCMR", "0x100000000"), ("RTCDR", "0x0")]
        {
            let mut state = bench.rtc.save();
            state["state"][name] = value.into();
            assert!(bench.rtc.restore(state).is_err(), "{name}");
        }
    }
}
