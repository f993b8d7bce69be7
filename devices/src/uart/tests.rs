use std::sync::atomic::{AtomicUsize, Ordering};

use hw::RecordingLine;
use hw::mmio::{put_value, value_of};
use hw::regmap::{check_map, check_plain};

use super::*;

mod saved;

const DR: u64 = Pl011Reg::UARTDR.offset();
const FR: u64 = Pl011Reg::UARTFR.offset();
const LCR_H: u64 = Pl011Reg::UARTLCR_H.offset();
const CR: u64 = Pl011Reg::UARTCR.offset();
const IMSC: u64 = Pl011Reg::UARTIMSC.offset();
const RIS: u64 = Pl011Reg::UARTRIS.offset();
const ICR: u64 = Pl011Reg::UARTICR.offset();

/// A host's end that takes `room` bytes and no more.
struct Host {
    room: AtomicUsize,
    out: Mutex<Vec<u8>>,
    calls: AtomicUsize,
}

impl ConsoleOut for Host {
    fn write(&self, bytes: &[u8]) -> usize {
        let taken = self.room.load(Ordering::SeqCst).min(bytes.len());
        self.room.fetch_sub(taken, Ordering::SeqCst);
        self.out.lock().unwrap().extend_from_slice(&bytes[..taken]);
        taken
    }

    fn input_room(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
    }
}

struct Bench {
    uart: Arc<Pl011>,
    host: Arc<Host>,
    line: Arc<RecordingLine>,
}

impl Bench {
    fn new() -> Self {
        let host = Arc::new(Host {
            room: AtomicUsize::new(usize::MAX),
            out: Mutex::default(),
            calls: AtomicUsize::new(0),
        });
        let line = Arc::new(RecordingLine::default());
        let uart = Pl011::new(host.clone(), line.clone());
        Self { uart, host, line }
    }

    /// As Linux starts the port: FIFOs on, receiver and transmitter on, receive interrupts unmasked.
    fn started() -> Self {
        let bench = Self::new();
        bench.write(LCR_H, 0x70);
        bench.write(CR, 0xb01);
        bench.write(IMSC, RXIS | RTIS);
        bench
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.uart.mmio_read(offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.uart.mmio_write(offset, &value.to_le_bytes()).unwrap();
    }

    /// As the receive interrupt's handler does: everything that is there.
    fn drain(&self) -> Vec<u8> {
        let mut got = Vec::new();
        while self.read(FR) & 0x10 == 0 {
            got.push(self.read(DR) as u8);
        }
        got
    }
}

#[test]
fn map_is_consistent_and_ids_are_those_the_bus_driver_matches() {
    check_map::<Pl011Reg>();
    let bench = Bench::new();
    let id = |reg: Pl011Reg| (0..4).fold(0, |id, i| id | bench.read(reg.info().offset + 4 * i) << (8 * i));
    assert_eq!(id(Pl011Reg::UARTPeriphID) & 0x000f_ffff, 0x0004_1011);
    assert_eq!(id(Pl011Reg::UARTPCellID), 0xb105_f00d);
}

#[test]
fn plain_registers_keep_what_is_writable_and_nothing_else() {
    let bench = Bench::new();
    let read = |at, bytes: usize| {
        let mut data = [0; 4];
        bench.uart.mmio_read(at, &mut data[..bytes]).unwrap();
        value_of(&data[..bytes])
    };
    let write = |at, bytes: usize, value| {
        let mut data = [0; 4];
        put_value(&mut data[..bytes], value);
        bench.uart.mmio_write(at, &data[..bytes]).unwrap();
    };
    let modelled = [
        Pl011Reg::UARTFR,
        Pl011Reg::UARTRIS,
        Pl011Reg::UARTMIS,
        Pl011Reg::UARTPeriphID,
        Pl011Reg::UARTPCellID,
    ];
    check_plain::<Pl011Reg>(read, write, &modelled);
}

#[test]
fn early_console_writes_go_out_before_the_port_is_enabled_at_any_width() {
    let bench = Bench::new();
    assert_eq!(bench.read(FR) & 0xa8, 0x80, "empty, not full, not busy");
    bench.uart.mmio_write(DR, b"a").unwrap();
    bench.uart.mmio_write(DR, b"b\0").unwrap();
    bench.write(DR, 0xffff_ff63);
    assert_eq!(*bench.host.out.lock().unwrap(), b"abc");
}

#[test]
fn received_byte_raises_the_interrupt_until_it_has_been_read() {
    let bench = Bench::started();
    assert_eq!(bench.uart.receive(b"x"), 1);
    assert!(bench.line.level());
    assert_eq!(bench.read(RIS), RTIS, "below the trigger level");
    assert_eq!(bench.read(DR), u32::from(b'x'));
    assert!(!bench.line.level());
    assert_eq!(bench.read(FR) & 0x50, 0x10);
    assert_eq!(bench.read(DR), 0, "nothing there");
}

#[test]
fn receive_interrupt_follows_the_trigger_level() {
    let bench = Bench::started();
    bench.uart.receive(&[1; 15]);
    assert_eq!(bench.read(RIS) & RXIS, 0);
    bench.uart.receive(&[1]);
    assert_eq!(bench.read(RIS) & RXIS, RXIS);
    bench.read(DR);
    assert_eq!(bench.read(RIS) & RXIS, 0);
}

#[test]
fn cleared_timeout_comes_again_with_the_next_byte() {
    let bench = Bench::started();
    bench.uart.receive(b"a");
    bench.write(ICR, 0x7ff);
    assert!(!bench.line.level());
    bench.uart.receive(b"b");
    assert!(bench.line.level());
}

#[test]
fn input_of_100_kib_arrives_complete_and_in_order() {
    let bench = Bench::started();
    let input: Vec<u8> = (0..100 * 1024u32).map(|i| ((i * 7) >> 3) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < input.len() {
        sent += bench.uart.receive(&input[sent..]);
        if bench.line.level() {
            let calls = bench.host.calls.load(Ordering::SeqCst);
            got.extend(bench.drain());
            let told = bench.host.calls.load(Ordering::SeqCst) - calls;
            assert_eq!(told, usize::from(sent < input.len()), "told once, if input waits");
        }
    }
    assert!(got == input);
}

#[test]
fn input_waits_until_the_guest_enables_the_receiver() {
    let bench = Bench::new();
    assert_eq!(bench.uart.receive(b"early"), 0);
    bench.write(LCR_H, 0x70);
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 0);
    bench.write(CR, 0x301);
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 1);
    assert_eq!(bench.uart.receive(b"early"), 5);
    assert_eq!(bench.drain(), b"early");
}

#[test]
fn input_of_one_source_that_waits_is_told_of_room_whatever_another_one_has_sent() {
    let bench = Bench::started();
    let filled = bench.uart.receive(&[b'a'; 2 * FIFO_BYTES]);
    assert_eq!(filled, FIFO_BYTES);
    bench.read(DR);
    // Too little room to be told of, but enough for this.
    assert_eq!(bench.uart.receive(b"b"), 1);
    bench.drain();
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 1);
    bench.uart.receive(b"c");
    bench.drain();
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 1, "nobody waits any more");
}

#[test]
fn without_fifo_there_is_room_for_one_character() {
    let bench = Bench::started();
    bench.write(LCR_H, 0x60);
    assert_eq!(bench.uart.receive(b"ab"), 1);
    assert_eq!(bench.read(FR) & 0x40, 0x40);
    assert_eq!(bench.read(RIS) & RXIS, RXIS);
    bench.read(DR);
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 1);
    assert_eq!(bench.uart.receive(b"b"), 1);
}

#[test]
fn slow_host_fills_the_transmit_fifo_and_its_room_drains_it() {
    let bench = Bench::started();
    bench.host.room.store(0, Ordering::SeqCst);
    bench.write(IMSC, TXIS);
    bench.write(ICR, 0x7ff);
    let mut sent = 0u8;
    while bench.read(FR) & 0x20 == 0 {
        bench.write(DR, sent.into());
        sent += 1;
    }
    assert_eq!(usize::from(sent), FIFO_BYTES);
    assert_eq!(bench.read(FR) & 0x88, 0x08, "busy, not empty");
    bench.write(ICR, 0x7ff);
    bench.write(DR, 0xee);
    bench.host.room.store(10, Ordering::SeqCst);
    bench.uart.output_room();
    assert!(!bench.line.level(), "22 wait: above the trigger level");
    bench.host.room.store(usize::MAX, Ordering::SeqCst);
    bench.uart.output_room();
    assert!(bench.line.level());
    assert_eq!(*bench.host.out.lock().unwrap(), (0..32).collect::<Vec<u8>>(), "the 33rd was lost");
}

#[test]
fn sending_one_character_raises_the_transmit_interrupt() {
    let bench = Bench::started();
    bench.write(IMSC, TXIS);
    assert!(!bench.line.level());
    bench.write(DR, 0x41);
    assert!(bench.line.level());
    bench.write(ICR, TXIS);
    assert!(!bench.line.level());
}

#[test]
fn loop_back_returns_what_is_sent_and_overruns_when_full() {
    let bench = Bench::started();
    bench.write(CR, 0xb81);
    for byte in 0..34 {
        bench.write(DR, byte);
    }
    assert!(bench.host.out.lock().unwrap().is_empty());
    assert_eq!(bench.read(RIS) & OEIS, OEIS);
    assert_eq!(bench.drain(), (0..32).collect::<Vec<u8>>());
    bench.write(DR, 5);
    assert_eq!(bench.read(DR), 5 | u32::from(DR_OVERRUN), "the first after the gap tells");
}

#[test]
fn break_is_a_zero_with_its_flag() {
    let bench = Bench::started();
    assert!(bench.uart.receive_break());
    assert_eq!(bench.read(RIS) & BEIS, BEIS);
    assert_eq!(bench.read(DR), u32::from(DR_BREAK));
    assert_eq!(bench.read(0x04), 1 << 2);
}

#[test]
fn unsuitable_accesses_are_refused_and_read_only_registers_stay() {
    let bench = Bench::new();
    assert_eq!(bench.uart.mmio_read(0x08, &mut [0; 4]), Err(BusError::NoRegister(8)));
    assert_eq!(bench.uart.mmio_read(0x31, &mut [0; 1]), Err(BusError::BadAccess { offset: 0x31, len: 1 }));
    assert_eq!(bench.uart.mmio_write(0x30, &[0; 8]), Err(BusError::BadAccess { offset: 0x30, len: 8 }));
    bench.write(0xfe0, 0);
    bench.write(FR, 0);
    bench.write(CR, 0xffff_ffff);
    assert_eq!((bench.read(0xfe0), bench.read(CR)), (0x11, 0xff87));
}

/// All registers; reading the data register takes a character, if there is one.
fn registers(bench: &Bench) -> Vec<(&'static str, u32)> {
    let of_row = |info: &'static hw::regmap::RegisterInfo| {
        (0..info.count).map(move |index| (info.name, info.offset + index * info.stride))
    };
    let all = Pl011Reg::ALL.iter().flat_map(|(_, info)| of_row(info));
    all.map(|(name, at)| (name, bench.read(at))).collect()
}

#[test]
fn reset_brings_every_register_back_to_power_on_lowers_the_wire_and_sends_nothing_of_before() {
    let at_power_on = registers(&Bench::new());
    let bench = Bench::started();
    for round in 0..100 {
        for (_, info) in Pl011Reg::ALL.iter().filter(|(reg, _)| *reg != Pl011Reg::UARTCR) {
            bench.write(info.offset, u32::MAX);
        }
        bench.write(CR, 0xb01);
        bench.host.room.store(0, Ordering::SeqCst);
        (0..40).for_each(|_| bench.write(DR, 0x55));
        bench.uart.receive(&[0x41; 40]);
        bench.uart.receive_break();
        bench.write(IMSC, u32::MAX);
        assert!(bench.line.level());
        bench.uart.reset();
        assert!(!bench.line.level(), "round {round}");
        assert_eq!(registers(&bench), at_power_on, "round {round}");
        let sent = bench.host.out.lock().unwrap().len();
        bench.host.room.store(usize::MAX, Ordering::SeqCst);
        bench.uart.output_room();
        assert_eq!(bench.host.out.lock().unwrap().len(), sent, "what was in the FIFO is gone");
        assert_eq!(bench.read(RIS) & !TXIS, 0);
    }
}

#[test]
fn input_that_the_host_kept_back_comes_after_a_reset_once_the_receiver_is_on() {
    let bench = Bench::started();
    assert_eq!(bench.uart.receive(&[0x41; 40]), 32);
    bench.uart.reset();
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 0);
    bench.write(CR, 0x301);
    assert_eq!(bench.host.calls.load(Ordering::SeqCst), 1);
}
