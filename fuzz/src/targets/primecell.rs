//! The PrimeCell devices.

use std::sync::Arc;

use devices::rtc::{Pl031, Pl031Reg};
use devices::uart::{ConsoleOut, Pl011, Pl011Reg};
use hw::{Clock, LifeCycle, ManualAlarms, ManualClock, RecordingLine};

use crate::input::Input;
use crate::machine::{mmio, offsets};

const WINDOW: u64 = 0x1000;

/// A console that takes some of what it is given.
struct Picky;

impl ConsoleOut for Picky {
    fn write(&self, bytes: &[u8]) -> usize {
        let most = usize::from(bytes.first().copied().unwrap_or(0) % 4);
        bytes.len().min(most)
    }
}

/// PL011: registers from the guest, bytes and breaks from the host.
pub fn uart(data: &[u8]) {
    let mut input = Input::new(data);

    let uart = Pl011::new(Arc::new(Picky), Arc::new(RecordingLine::default()));
    let registers = offsets::<Pl011Reg>();
    while !input.is_empty() {
        match input.u8() % 16 {
            0..12 => mmio(&mut input, WINDOW, &registers, &*uart),
            12 | 13 => {
                let len = input.u8();
                let bytes = input.bytes(len.into());
                assert!(uart.receive(bytes) <= bytes.len(), "no more is taken than there is");
            }
            14 if input.u8() & 7 == 0 => uart.reset(),
            14 => drop(uart.receive_break()),
            _ => uart.output_room(),
        }
    }
}

/// PL031: registers, time and alarms that come when they like.
pub fn rtc(data: &[u8]) {
    let mut input = Input::new(data);
    let (clock, alarms) = (Arc::new(ManualClock::default()), Arc::new(ManualAlarms::default()));
    let rtc = Pl031::new(clock.clone(), alarms.clone(), Arc::new(RecordingLine::default()), input.word(&[]));
    let registers = offsets::<Pl031Reg>();
    while !input.is_empty() {
        match input.u8() % 8 {
            0..5 => mmio(&mut input, WINDOW, &registers, &*rtc),
            5 => {
                // Guest time does not wrap: 584 years.
                let ns = input.word(&[]);
                clock.advance_ns(ns.min(u64::MAX - clock.now_ns()));
            }
            6 => alarms.fire(),
            _ if input.u8() & 7 == 0 => rtc.reset(),
            _ => {}
        }
    }
}
