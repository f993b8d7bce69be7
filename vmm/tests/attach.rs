//! Clients of the control socket at the guest's console, and its fault rules. The guest echoes. `docs/console.md`, `docs/faults.md`

mod common;
mod controlled;

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::{Value, json};

use controlled::{Client, EMPTY, LIMIT, Machine, OFF, PROGRAM, restore};

impl Client {
    fn attach(&mut self, backlog: u64) {
        self.ask("console_attach", json!({ "backlog": backlog })).unwrap();
    }

    /// The next output: what is lost, and the bytes. Answers are passed over.
    fn output(&mut self) -> (u64, Vec<u8>) {
        loop {
            let message = self.read();
            if message["method"] == "console" {
                let params = &message["params"];
                let data = STANDARD.decode(params["data"].as_str().unwrap()).unwrap();
                return (params["lost"].as_u64().unwrap(), data);
            }
        }
    }

    /// Reads output until there are so many bytes; nothing is lost.
    fn outputs(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let (lost, bytes) = self.output();
            assert_eq!(lost, 0);
            all.extend(bytes);
        }
        all
    }

    /// Types without waiting for the answer.
    fn type_text(&mut self, bytes: &[u8]) {
        let params = json!({ "data": STANDARD.encode(bytes) });
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "console_input", "params": params });
        self.send(&format!("{request}\n"));
    }
}

fn console(machine: &Machine, words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("ctl").arg(machine.socket()).arg("console").args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Text whose every line differs from the last, without the bytes that end or reset the guest.
fn text(len: usize) -> Vec<u8> {
    (0..).flat_map(|line: u32| format!("line {line}\n").into_bytes()).take(len).collect()
}

#[test]
fn several_clients_see_what_is_printed_and_each_types_at_the_guest() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let (mut one, mut other) = (machine.connect(), machine.connect());
    one.attach(1 << 40);
    assert_eq!(one.outputs(1), [EMPTY], "the backlog");
    other.attach(0);
    one.ask("console_input", json!({ "data": STANDARD.encode(b"\x00\xff\x80a") })).unwrap();
    assert_eq!(other.outputs(4), b"\x00\xff\x80a");
    assert_eq!(one.outputs(4), b"\x00\xff\x80a");
    other.ask("console_input", json!({ "data": STANDARD.encode(b"b") })).unwrap();
    assert_eq!((one.outputs(1), other.outputs(1)), (b"b".to_vec(), b"b".to_vec()));
    // Whoever has detached sees no more, and standard input goes on to be one of those who type.
    one.ok("console_detach");
    machine.send(b'c');
    assert_eq!(other.outputs(1), b"c");
    one.attach(2);
    assert_eq!(one.outputs(2), b"bc");
    other.type_text(&[OFF]);
    // What has been printed comes before the end of the connection.
    drop(one);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn last_output_reaches_a_client_before_the_connection_ends() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    client.attach(0);
    let mut typed = text(20_000);
    typed.push(OFF);
    // Pieces that fit into a line, without a look at the answers.
    for piece in typed.chunks(8192) {
        client.type_text(piece);
    }
    // The terminal is read too: the guest's line is held up by it.
    let stdout = thread::spawn({
        let mut stdout = machine.stdout;
        move || {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).unwrap();
            all
        }
    });
    assert!(client.outputs(20_000) == typed[..20_000]);
    // Answers, and then the end.
    let mut rest = String::new();
    client.0.read_to_string(&mut rest).unwrap();
    assert!(stdout.join().unwrap() == typed[..20_000]);
    drop(machine.stdin);
    assert!(machine.child.wait_with_output().unwrap().status.success());
}

#[test]
fn client_that_does_not_read_loses_output_and_holds_up_nobody() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut slow = machine.connect();
    slow.attach(0);
    // Until here nothing has been lost to it; from here on it reads nothing.
    const LEN: usize = 2 << 20;
    let before = machine.status_of("VmRSS:");
    let typed = text(LEN);
    let mut stdin = machine.stdin.try_clone_to_owned();
    let writer = thread::spawn({
        let typed = typed.clone();
        move || stdin.write_all(&typed).unwrap()
    });
    let mut echoed = vec![0; LEN];
    machine.stdout.read_exact(&mut echoed).unwrap();
    writer.join().unwrap();
    assert!(echoed == typed, "the guest has gone on");
    let grown = machine.status_of("VmRSS:").saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
    // Now it reads: what comes is in its place, with how much is missing before it.
    let (mut at, mut all_lost) = (0, 0);
    while at < LEN {
        let (lost, bytes) = slow.output();
        at += lost as usize;
        all_lost += lost;
        assert!(bytes == typed[at..at + bytes.len()], "at {at}");
        at += bytes.len();
    }
    assert!(all_lost > 0 && at == LEN, "{all_lost} of {at}");
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

/// A second handle to what is typed.
trait TryCloneToOwned {
    fn try_clone_to_owned(&self) -> File;
}

impl<T: AsFd> TryCloneToOwned for T {
    fn try_clone_to_owned(&self) -> File {
        self.as_fd().try_clone_to_owned().unwrap().into()
    }
}

#[test]
fn input_waits_for_the_guest_and_is_answered_when_all_of_it_is_taken() {
    let mut machine = Machine::start(&["--paused"]);
    let mut client = machine.connect();
    // Answered when it has started.
    client.inspect("clock");
    client.attach(0);
    let typed = text(5000);
    client.type_text(&typed);
    // The guest stands still: others are served, and this one is not answered.
    let mut other = machine.connect();
    assert_eq!(other.ok("status")["phase"], "paused");
    client.0.get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut byte = [0];
    assert!(client.0.read(&mut byte).is_err(), "nothing has come");
    client.0.get_ref().set_read_timeout(None).unwrap();
    // What a client that goes has typed goes with it, but for what the UART has taken.
    let mut gone = machine.connect();
    // It is known to the server, which then reads what it types before the next answer has gone out.
    gone.ok("status");
    gone.type_text(&[OFF; 100]);
    assert_eq!(other.ok("status")["phase"], "paused");
    drop(gone);
    other.ok("resume");
    machine.expect(EMPTY);
    let mut echoed = vec![0; 5000];
    machine.stdout.read_exact(&mut echoed).unwrap();
    assert!(echoed == typed);
    other.ok("quit");
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn script_is_typed_whole_and_ends_when_it_is_told_to() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let typed = text(100_000);
    let file = machine.folder.path().join("script");
    fs::write(&file, &typed).unwrap();
    let mut child =
        console(&machine, &["--backlog", "0", "--eof"]).stdin(File::open(&file).unwrap()).spawn().unwrap();
    let mut echoed = vec![0; typed.len()];
    machine.stdout.read_exact(&mut echoed).unwrap();
    assert!(echoed == typed, "every byte, in its order");
    let mut seen = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut seen).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(typed.starts_with(&seen), "what it has seen until then");

    let until = |words: &[&str]| {
        let mut child = console(&machine, words).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"marco polo").unwrap();
        child.wait_with_output().unwrap()
    };
    let found = until(&["--backlog", "0", "--until", "polo"]);
    assert!(found.status.success(), "{found:?}");
    assert!(found.stdout.ends_with(b"polo"), "{found:?}");
    let never = until(&["--backlog", "0", "--until", "never", "--timeout", "1"]);
    assert_eq!(never.status.code(), Some(124), "{never:?}");
    let lines = until(&["--json", "--backlog", "0", "--eof"]);
    let first = String::from_utf8(lines.stdout).unwrap();
    for line in first.lines() {
        let params: Value = serde_json::from_str(line).unwrap();
        assert!(STANDARD.decode(params["data"].as_str().unwrap()).is_ok() && params["lost"].is_u64());
    }

    // The end of the machine is that of its console, and a failure for whoever has waited for more.
    let mut clients = [&["--backlog", "1"][..], &["--backlog", "1", "--until", "never"]].map(|words| {
        let mut client = console(&machine, words).stdin(Stdio::null()).spawn().unwrap();
        // The backlog: it is attached. A pipe has room for what comes after it.
        client.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        client
    });
    machine.connect().ok("quit");
    let ended = clients.each_mut().map(|client| client.wait().unwrap().code());
    assert_eq!(ended, [Some(0), Some(1)]);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn machine_without_any_terminal_has_a_console_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (image, socket) = (folder.path().join("image"), folder.path().join("socket"));
    fs::write(&image, common::image(&controlled::GUEST)).unwrap();
    // Nobody has standard input and output.
    let script = "exec \"$@\" <&- >&-";
    let mut words = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned(), "sh".to_owned()];
    let command = controlled::command(&image, &socket, &[]);
    words.push(PROGRAM.to_owned());
    words.extend(command.get_args().map(|word| word.to_str().unwrap().to_owned()));
    let child = Command::new(&words[0]).args(&words[1..]).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
        thread::yield_now();
    };
    let mut client = Client(BufReader::new(stream));
    client.attach(100);
    assert_eq!(client.outputs(1), [EMPTY]);
    client.ask("console_input", json!({ "data": STANDARD.encode(b"a") })).unwrap();
    assert_eq!(client.outputs(1), b"a");
    client.ok("quit");
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("ended by the control socket") || error.contains("standard output"), "{error}");
}

/// A console at a terminal of its own, with the terminal and its other end.
fn on_a_terminal(machine: &Machine, words: &str) -> (Child, File, BufReader<File>) {
    let pty = openpty(None, None).unwrap();
    let script = format!("\"$@\" {words}; echo ended $?");
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "sh", "-c", &script, "sh", PROGRAM, "ctl"]);
    command.arg(machine.socket()).arg("console");
    let terminal = || Stdio::from(pty.slave.try_clone().unwrap());
    let child = command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn().expect("setsid");
    (child, File::from(pty.slave), BufReader::new(File::from(pty.master)))
}

/// Reads what a terminal shows until it has shown this.
fn shows(master: &mut BufReader<File>, text: &str) {
    let mut shown = Vec::new();
    while !shown.windows(text.len()).any(|part| part == text.as_bytes()) {
        let mut byte = [0];
        master.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&shown)));
        shown.extend(byte);
    }
}

fn is_raw(terminal: &File) -> bool {
    !tcgetattr(terminal.as_fd()).unwrap().local_flags.contains(LocalFlags::ICANON)
}

#[test]
fn terminal_is_raw_while_attached_and_as_before_after_key_signal_and_end() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    // By the key, also when the guest takes nothing of what has been typed before.
    for is_paused in [false, true] {
        let (mut child, terminal, mut master) = on_a_terminal(&machine, "");
        shows(&mut master, "attached");
        shows(&mut master, "!");
        assert!(is_raw(&terminal));
        if is_paused {
            machine.connect().ok("pause");
            master.get_mut().write_all(&[b'x'; 1000]).unwrap();
        } else {
            master.get_mut().write_all(b"ab\x03\x01a").unwrap();
            let mut echoed = [0; 4];
            machine.stdout.read_exact(&mut echoed).unwrap();
            assert_eq!(&echoed, b"ab\x03\x01");
        }
        master.get_mut().write_all(b"\x01x").unwrap();
        shows(&mut master, "the machine goes on");
        shows(&mut master, "ended 0");
        assert!(child.wait().unwrap().success());
        assert!(!is_raw(&terminal));
    }
    machine.connect().ok("resume");
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 143)] {
        let (mut child, terminal, mut master) = on_a_terminal(&machine, "--backlog 0");
        shows(&mut master, "attached");
        let start = Instant::now();
        let pid = loop {
            assert!(start.elapsed() < LIMIT);
            if let Some(pid) = client_of(&machine) {
                break pid;
            }
        };
        kill(pid, signal).unwrap();
        shows(&mut master, &format!("ended {status}"));
        child.wait().unwrap();
        assert!(!is_raw(&terminal));
    }
    let (mut child, terminal, mut master) = on_a_terminal(&machine, "");
    shows(&mut master, "attached");
    shows(&mut master, "!");
    machine.connect().ok("quit");
    shows(&mut master, "the machine has ended");
    shows(&mut master, "ended 0");
    child.wait().unwrap();
    assert!(!is_raw(&terminal));
    assert_eq!(machine.end().0, Some(0));
}

/// The process that is a client of this machine's socket.
fn client_of(machine: &Machine) -> Option<Pid> {
    let socket = machine.socket().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).map(Pid::from_raw).find(
        |pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).collect();
            words.first() == Some(&PROGRAM.as_bytes())
                && words.contains(&&b"ctl"[..])
                && words.contains(&socket.as_bytes())
        },
    )
}

#[test]
fn fault_rules_come_and_go_while_the_machine_runs_and_are_saved_with_it() {
    let mut machine = Machine::start(&["--fault", "smmu.walk,translation,level=3,nth=7"]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    let list = |client: &mut Client| client.ok("fault_list")["rules"].clone();
    let armed = client.ask("fault_arm", json!({ "rule": "msi,delay,delay=5ms,vector=0,name=late" })).unwrap();
    assert_eq!(armed, json!({ "id": 2, "rule": "msi,delay,delay=5ms,vector=0,name=\"late\"" }));
    let next = client.ask("fault_trigger", json!({ "rule": "qm.cqe,drop,queue=1" })).unwrap();
    assert_eq!((&next["when"], &next["id"]), (&json!("next"), &json!(3)));
    client.ask("fault_disarm", json!({ "id": 1 })).unwrap();
    let rules = list(&mut client);
    let states: Vec<_> = (0..3).map(|n| rules[n]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["disarmed", "armed", "armed"]);
    for (method, params, expected) in [
        ("fault_arm", json!({ "rule": "msi,hang" }), "is not one of"),
        ("fault_trigger", json!({ "rule": "msi,drop,nth=3" }), "on the next occasion"),
        ("fault_trigger", json!({ "rule": "msi.spurious,vector=9" }), "no such message"),
        ("fault_trigger", json!({ "rule": "qm.axi-read-error,device=00:1f.0" }), "no accelerator"),
        ("fault_disarm", json!({ "id": 9 }), "no rule 9"),
    ] {
        let why = client.ask(method, params).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }

    // An event is there at once, in the device and in the report.
    let before = client.inspect("zip0");
    let now = client.ask("fault_trigger", json!({ "rule": "qm.axi-write-error" })).unwrap();
    let expected = json!({ "when": "now", "id": null, "rule": "qm.axi-write-error,device=00:01.0" });
    assert_eq!(now, expected);
    assert_ne!(client.inspect("zip0"), before);
    let report = client.inspect("faults");
    assert_eq!(report["events"][0]["event"], "qm.axi-write-error,device=00:01.0");
    assert_eq!(client.ok("counters")["faults"]["rules"][1]["rule"], armed["rule"]);

    // A reset leaves rules as they are, and so does a save.
    client.ok("reset");
    machine.expect(EMPTY);
    assert_eq!(list(&mut client), rules);
    let file = machine.folder.path().join("vm.save");
    assert!(machine.ctl(&["save", &file.display().to_string()]).status.success());
    let socket = machine.folder.path().join("second");
    let (child, stdin, stdout) = restore(&file, &["--control", &socket.display().to_string()]);
    let start = Instant::now();
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
        thread::yield_now();
    };
    let mut second = Client(BufReader::new(stream));
    assert_eq!(list(&mut second), rules);
    assert_eq!(second.ask("fault_arm", json!({ "rule": "msi,drop" })).unwrap()["id"], 4);
    second.ok("quit");
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("rule 2 (late): delay of 5 ms at msi fired on 0 of 0 occasions"), "{error}");
    assert!(error.contains("nothing came of rule 2 (msi,delay,delay=5ms,vector=0,name=\"late\")"), "{error}");
    drop((stdin, stdout));

    // The same by ctl.
    let text = |words: &[&str]| {
        let output = machine.ctl(words);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let lines = text(&["fault", "list"]);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.contains("   2  armed     fired on 0 of 0  msi,delay,delay=5ms,vector=0"), "{lines}");
    assert!(text(&["fault", "arm", "msi,drop"]).contains("id    4"));
    text(&["fault", "disarm", "4"]);
    text(&["fault", "trigger", "msi.spurious,vector=0"]);
    let wrong = machine.ctl(&["fault", "arm", "msi"]);
    assert_eq!(wrong.status.code(), Some(1));
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn rules_are_listed_in_parts_and_bounded() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    for id in 1..=1000 {
        assert_eq!(client.ask("fault_arm", json!({ "rule": "msi,drop,vector=1" })).unwrap()["id"], id);
    }
    assert!(client.ask("fault_arm", json!({ "rule": "msi,drop" })).unwrap_err().contains("1000 rules"));
    let first = client.ok("fault_list");
    assert_eq!((first["rules"].as_array().unwrap().len(), &first["next"]), (200, &json!(201)));
    let listed = machine.ctl(&["--json", "fault", "list"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["rules"].as_array().unwrap().len(), 1000);
    // Counters still fit into an answer, or say which part does.
    client.ok("status");
    let _ = client.ask("counters", json!({}));
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}
