//! The protocol against a machine that is made up: orders, breakpoints, errors, bounds.

use std::sync::{Arc, Mutex};

use cpu::{DebugPoints, Watchpoint};
use serde_json::json;

use super::*;
use crate::engine::Exit;
use crate::engine::debug::{CoreRegisters, DebugStop, DebugVcpu, Space};
use crate::gdb::target::{Job, Order};
use crate::machine::{Answer, Operation, Refused};

/// What has been asked of the machine.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Points(Arc<DebugPoints>),
    Resume(Vec<Order>),
    Interrupt,
    Operation(Operation),
}

/// Two vCPUs with RAM from 0x1000 to 0x2000, of which each byte is the low byte of its address.
#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<Asked>>>,
    core: Arc<Mutex<CoreRegisters>>,
    has_ended: bool,
}

struct FakeVcpu(Arc<Mutex<CoreRegisters>>);

impl DebugVcpu for FakeVcpu {
    fn core(&self) -> CoreRegisters {
        self.0.lock().unwrap().clone()
    }
    fn set_core(&mut self, registers: &CoreRegisters) {
        *self.0.lock().unwrap() = registers.clone();
    }
    fn system(&mut self, index: usize) -> Option<u64> {
        (index < 4).then_some(0x1100 + index as u64)
    }
    fn set_system(&mut self, index: usize, _: u64) -> bool {
        index == 0
    }
    fn read(&self, space: Space, address: u64, out: &mut [u8]) -> usize {
        let end = if space == Space::Virtual { 0x2000 } else { 0x3000 };
        let bytes = (address..end).take(if address < 0x1000 { 0 } else { out.len() });
        let count = bytes.clone().count();
        out.iter_mut().zip(bytes).for_each(|(byte, at)| *byte = at as u8);
        count
    }
    fn write(&mut self, _: Space, address: u64, data: &[u8]) -> bool {
        address >= 0x1000 && address + data.len() as u64 <= 0x2000
    }
    fn set_points(&mut self, _: &Arc<DebugPoints>) {}
    fn step(&mut self) -> anyhow::Result<Exit> {
        Ok(Exit::Debug(DebugStop::Stepped))
    }
    fn forget_stop(&mut self) {}
}

impl Debuggee for Fake {
    fn cpus(&self) -> usize {
        2
    }
    fn with_vcpu(&mut self, _: usize, work: Job) {
        if !self.has_ended {
            work(&mut FakeVcpu(Arc::clone(&self.core)));
        }
    }
    fn set_points(&mut self, points: Arc<DebugPoints>) {
        self.asked.lock().unwrap().push(Asked::Points(points));
    }
    fn resume(&mut self, orders: Vec<Order>) {
        self.asked.lock().unwrap().push(Asked::Resume(orders));
    }
    fn interrupt(&mut self) {
        self.asked.lock().unwrap().push(Asked::Interrupt);
    }
    fn ask(&mut self, operation: Operation) -> Answer {
        self.asked.lock().unwrap().push(Asked::Operation(operation.clone()));
        match operation {
            Operation::Inspect(path) if path == "clock" => Ok(json!({ "guest_ns": 7 })),
            Operation::Inspect(path) => {
                Err(Refused::NoSuchPath { path, at: String::new(), there: vec!["clock".to_owned()] })
            }
            _ => Ok(json!({})),
        }
    }
}

struct Client {
    session: Session<Fake>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

fn packet(text: &str) -> String {
    let sum = text.bytes().fold(0u8, u8::wrapping_add);
    format!("${text}#{sum:02x}")
}

impl Client {
    fn new() -> Self {
        Self::of(Fake::default())
    }

    fn of(fake: Fake) -> Self {
        let asked = Arc::clone(&fake.asked);
        Self { session: Session::new(fake).unwrap(), asked }
    }

    /// The contents of what is to be sent, of all packets, with repetitions written out.
    fn output(&mut self) -> String {
        let bytes = std::mem::take(self.session.output());
        let mut text = String::new();
        let mut bytes = bytes.into_iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'+' | b'$' => {}
                b'#' => drop((bytes.next(), bytes.next())),
                b'*' => {
                    let last = text.chars().last().unwrap();
                    text.extend(std::iter::repeat_n(last, usize::from(bytes.next().unwrap() - 29)));
                }
                byte => text.push(byte.into()),
            }
        }
        text
    }

    fn ask(&mut self, text: &str) -> String {
        self.session.take(packet(text).as_bytes()).unwrap();
        self.output()
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[test]
fn memory_is_given_up_to_what_is_not_there_and_an_error_where_nothing_is() {
    let mut client = Client::new();
    assert_eq!(client.ask("m1ffe,4"), "feff");
    assert_eq!(client.ask("m2000,4"), "E0e");
    assert_eq!(client.ask("m1000,0"), "");
    assert_eq!(client.ask("M1000,1:00"), "OK");
    assert_eq!(client.ask("M1fff,2:0000"), "E0e");
    assert_eq!(
        client.ask(&format!("qRcmd,{}", hex("memory physical"))),
        hex_said("memory: physical addresses\n")
    );
    assert_eq!(client.ask("m1ffe,4"), "feff0001");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// As `monitor` answers.
fn hex_said(text: &str) -> String {
    format!("O{}OK", hex(text))
}

#[test]
fn registers_are_read_and_written_by_number_and_together() {
    let mut client = Client::new();
    let all = client.ask("g");
    assert_eq!(all.len(), 2 * (33 * 8 + 4 + 32 * 16 + 8));
    assert_eq!(client.ask(&format!("G{}", "5a".repeat(all.len() / 2))), "OK");
    assert_eq!(client.ask("p20"), "5a".repeat(8));
    assert_eq!(client.ask("P20=0000000000000080"), "OK");
    assert_eq!(client.ask("p20"), "0000000000000080");
    assert_eq!(client.ask("p44"), "0011000000000000", "the first system register");
    assert_eq!(client.ask("P44=0000000000000000"), "OK");
    assert_eq!(client.ask("P45=0000000000000000"), "E16", "one that cannot be written");
    assert_eq!(client.ask("P20=00"), "E16", "another length");
    assert_eq!(client.ask("Hg3"), "OK");
    assert_eq!(client.ask("g"), "E16", "a vCPU that is not there");
}

#[test]
fn vcpus_go_on_as_the_debugger_orders_with_its_breakpoints() {
    use Order::{Run, Stay, Step};
    for (order, expected) in [
        ("vCont;c", [Run, Run]),
        ("vCont;s:1;c", [Step, Run]),
        ("vCont;s:2", [Stay, Step]),
        ("vCont;c:1", [Run, Stay]),
        ("vCont;s:1;s:2", [Step, Step]),
    ] {
        let mut client = Client::new();
        assert_eq!(client.ask(order), "");
        assert_eq!(client.asked(), [Asked::Resume(expected.to_vec())], "{order}");
    }
    let mut client = Client::new();
    for words in ["Z0,4000,4", "Z1,5000,4", "Z2,1000,8", "Z3,2000,1", "Z4,3000,4"] {
        assert_eq!(client.ask(words), "OK", "{words}");
    }
    assert_eq!(client.ask("vCont;c"), "");
    let watch = |first, last, loads, stores| Watchpoint { first, last, loads, stores };
    let watched = vec![
        watch(0x1000, 0x1007, false, true),
        watch(0x2000, 0x2000, true, false),
        watch(0x3000, 0x3003, true, true),
    ];
    let points = Arc::new(DebugPoints::new([0x4000, 0x5000], watched));
    assert_eq!(client.asked(), [Asked::Points(points), Asked::Resume(vec![Run, Run])]);
    for (stop, said) in [
        (DebugStop::Breakpoint, "T05thread:02;swbreak:;"),
        (DebugStop::Stepped, "T05thread:02;"),
        (DebugStop::Watchpoint { address: 0x1004, write: true }, "T05thread:02;watch:1004;"),
        (DebugStop::Watchpoint { address: 0x2000, write: false }, "T05thread:02;rwatch:2000;"),
        (DebugStop::Watchpoint { address: 0x3000, write: true }, "T05thread:02;awatch:3000;"),
    ] {
        client.session.stopped(Stop::Vcpu(1, stop)).unwrap();
        assert_eq!(client.output(), said);
        client.ask("vCont;c");
    }
    client.session.stopped(Stop::Interrupted).unwrap();
    assert_eq!(client.output(), "T02thread:01;");
    client.asked();
    for words in ["z0,4000,4", "z1,5000,4", "z2,1000,8", "z3,2000,1", "z4,3000,4"] {
        assert_eq!(client.ask(words), "OK", "{words}");
    }
    client.ask("vCont;c");
    assert_eq!(client.asked()[0], Asked::Points(Arc::default()));
}

#[test]
fn breakpoints_and_watchpoints_have_bounds() {
    let mut client = Client::new();
    assert_eq!(client.ask("Z0,4002,4"), "E16", "no instruction's address");
    assert_eq!(client.ask("Z2,1000,0"), "E16");
    assert_eq!(client.ask("Z2,1000,10001"), "E16");
    assert_eq!(client.ask("Z2,ffffffffffffffff,2"), "E16");
    assert_eq!(client.ask("Z2,ffffffffffffffff,1"), "OK");
    for n in 1..64 {
        assert_eq!(client.ask(&format!("Z2,{n:x},1")), "OK");
    }
    assert_eq!(client.ask("Z2,1000,1"), "E1c");
    for n in 0..4096 {
        assert_eq!(client.ask(&format!("Z0,{:x},4", 4 * n)), "OK");
    }
    assert_eq!(client.ask("Z1,8000,4"), "E1c");
}

#[test]
fn monitor_shows_what_the_control_socket_shows() {
    let mut client = Client::new();
    let mut monitor = |words: &str| client.ask(&format!("qRcmd,{}", hex(words)));
    assert_eq!(monitor("inspect clock"), hex_said("guest_ns  7\n"));
    assert!(monitor("inspect nothing").contains(&hex("nothing is at \"nothing\"; there is clock")));
    assert!(monitor("frobnicate").contains(&hex("no such command")));
    assert!(monitor("help").contains(&hex("counters")));
    assert!(monitor("reset").contains(&hex("power-on")));
    assert!(client.asked().contains(&Asked::Operation(Operation::Reset)));
}

#[test]
fn interrupt_stops_what_runs_and_is_nothing_to_what_stands() {
    let mut client = Client::new();
    client.session.take(&[3]).unwrap();
    assert_eq!((client.output(), client.asked()), (String::new(), Vec::new()));
    client.ask("vCont;c");
    client.asked();
    client.session.take(&[3]).unwrap();
    assert_eq!((client.output(), client.asked()), (String::new(), vec![Asked::Interrupt]));
    client.session.stopped(Stop::Interrupted).unwrap();
    assert_eq!(client.output(), "T02thread:01;");
}

#[test]
fn session_ends_by_detach_kill_and_the_machines_end() {
    let end = |text: &str| {
        let mut client = Client::new();
        let end = client.session.take(packet(text).as_bytes()).unwrap_err();
        (end, client.output())
    };
    assert_eq!(end("D"), (End::Detached, "OK".to_owned()));
    assert_eq!(end("k").0, End::Killed);
    let mut client = Client::new();
    client.ask("vCont;c");
    client.session.exited(0);
    assert_eq!(client.output(), "W00");
    assert_eq!(client.session.take(packet("?").as_bytes()), Err(End::Exited));
    let mut client = Client::of(Fake { has_ended: true, ..Fake::default() });
    assert!(matches!(client.session.take(packet("g").as_bytes()), Err(End::Broken(_))));
}

#[test]
fn what_is_no_debugger_or_asks_for_too_much_loses_the_connection() {
    let broken = |bytes: &[u8]| {
        let mut client = Client::new();
        matches!(client.session.take(bytes), Err(End::Broken(_)))
    };
    assert!(broken(b"POST / HTTP/1.1\r\n\r\n$M1000,1:00#e2"));
    assert!(broken(b"$g#00"), "a checksum");
    assert!(broken(&[b"$".as_slice(), &[b'x'; PACKET]].concat()), "a packet without end");
    assert!(broken(packet("m1000,ffffffffffffffff").as_bytes()));
    assert!(broken(packet("mffffffffffffffff,8001").as_bytes()));
    assert!(broken(b"$mfffffffffffffff0,201000,\xa9#bb"), "whatever follows");
    assert!(!broken(packet("m1000,2000").as_bytes()));
    // Answers that nobody takes.
    let mut client = Client::new();
    let pieces = packet("m1000,1000").repeat(MUCH / 0x1000);
    assert!(matches!(client.session.take(pieces.as_bytes()), Err(End::Broken(_))));
}
