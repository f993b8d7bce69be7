//! A machine with a control socket: what it answers, what it does, and what clients that do everything wrong cannot do to it.
//! `docs/control.md`

mod common;
mod controlled;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmm::control::methods::METHODS;
use vmm::save::SaveFile;

use controlled::{Client, EMPTY, GUEST, LEFT, LIMIT, Machine, OFF, PROGRAM, RESET, command, restore};

#[test]
fn paused_machine_stands_still_with_its_time_and_goes_on_where_it_stood() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    assert_eq!(client.ok("status")["phase"], "running");
    assert_eq!(client.ok("pause")["phase"], "paused");
    // Once more is no error.
    assert_eq!(client.ok("pause")["phase"], "paused");
    let time = client.inspect("clock")["guest_ns"].as_u64().unwrap();
    let pc = client.register(0, "pc");
    machine.send(b'a');
    const PAUSE: Duration = Duration::from_secs(4);
    thread::sleep(PAUSE);
    assert_eq!(client.inspect("clock")["guest_ns"], time);
    assert_eq!(client.register(0, "pc"), pc);

    assert_eq!(client.ok("resume")["phase"], "running");
    assert_eq!(client.ok("resume")["phase"], "running");

    machine.expect(b'a');
    // Nowhere has the guest seen a step of its count as long as the pause.
    let counts_per_second = 62_500_000;
    assert!(client.register(0, "x3") < PAUSE.as_secs() * counts_per_second);
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn guest_and_client_reset_the_machine_which_boots_each_time_with_empty_memory() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    for reset in 1..=5 {
        if reset % 2 == 0 {
            machine.send(RESET);
        } else {
            assert_eq!(client.ok("reset")["resets"], reset);
        }
        machine.expect(EMPTY);
        machine.send(b'a');
        machine.expect(b'a');
    }
    assert_eq!(client.ok("status")["resets"], 5);
    // A paused machine stays so, before its first instruction.
    client.ok("pause");
    assert_eq!(client.ok("reset")["phase"], "paused");
    assert_eq!(client.register(0, "pc"), 0x4020_0000);
    assert_eq!((client.register(0, "x0"), client.register(0, "x3")), (0x4000_0000, 0));
    client.ok("resume");
    machine.expect(EMPTY);
    assert_ne!(LEFT, EMPTY);
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn guests_reset_that_meets_a_pause_is_not_lost() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    for _ in 0..30 {
        machine.send(RESET);
        client.ok("pause");
        client.inspect("cpu1/regs");
        client.ok("resume");
        machine.expect(EMPTY);
    }
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn guests_power_off_that_meets_a_pause_ends_the_machine() {
    for _ in 0..10 {
        let mut machine = Machine::start(&[]);
        machine.expect(EMPTY);
        let mut client = machine.connect();
        machine.send(OFF);
        // If the machine has ended first, that is the answer, or there is none.
        let mut line = String::new();
        let _ = client.0.get_mut().write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pause\"}\n");
        let _ = client.0.read_line(&mut line);
        if line.contains("paused") {
            client.ok("resume");
        }
        assert_eq!(machine.end().0, Some(0));
    }
}

#[test]
fn reset_that_finds_no_kernel_any_more_is_refused_with_the_reason_and_ends_the_machine() {
    for is_paused in [false, true] {
        let mut machine = Machine::start(&[]);
        machine.expect(EMPTY);
        let mut client = machine.connect();
        if is_paused {
            client.ok("pause");
        }
        fs::write(machine.folder.path().join("image"), [b'x'; 100]).unwrap();
        let refused = client.ask("reset", json!({})).unwrap_err();
        assert!(refused.contains("is not an arm64 kernel Image"), "{refused}");
        let (status, error) = machine.end();
        assert_eq!(status, Some(1));
        assert!(error.contains("the machine cannot be reset: kernel"), "{error}");
    }
}

#[test]
fn machine_with_no_reboot_can_still_be_reset_from_outside_and_ends_at_the_guests_own() {
    let mut machine = Machine::start(&["--no-reboot"]);
    machine.expect(EMPTY);
    machine.connect().ok("reset");
    machine.expect(EMPTY);
    machine.send(RESET);
    let (status, error) = machine.end();
    assert_eq!(status, Some(3), "{error}");
}

#[test]
fn kernel_that_can_be_read_only_once_is_told_at_the_reset() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let mut child = command(&pipe, &folder.path().join("socket"), &[]).spawn().unwrap();
    fs::write(&pipe, common::image(&GUEST)).unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let mut client = Client(BufReader::new(UnixStream::connect(folder.path().join("socket")).unwrap()));
    let refused = client.ask("reset", json!({})).unwrap_err();
    assert!(refused.contains("no regular file"), "{refused}");
    child.stdin.take().unwrap().write_all(&[RESET]).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("no regular file"), "{error}");
}

#[test]
fn machine_that_starts_paused_waits_before_its_first_instruction() {
    let mut machine = Machine::start(&["--paused"]);
    let mut client = machine.connect();
    // Asked while the machine still starts, it waits for the answer.
    assert_eq!(client.register(0, "pc"), 0x4020_0000);
    assert_eq!(client.ok("status")["phase"], "paused");
    assert_eq!(client.inspect("clock"), client.inspect("clock"));
    client.ok("resume");
    machine.expect(EMPTY);
    client.ok("quit");
    let (status, error) = machine.end();
    assert_eq!(status, Some(0), "{error}");
    assert!(error.contains("ended by the control socket"), "{error}");
}

#[test]
fn paused_machine_ends_by_all_that_ends_a_running_one() {
    for quits in [true, false] {
        let machine = Machine::start(if quits { &["--paused"] } else { &["--paused", "--timeout", "1"] });
        let mut client = machine.connect();
        assert_eq!(client.register(1, "pc"), 0);
        if quits {
            client.ok("quit");
        }
        assert_eq!(machine.end().0, Some(if quits { 0 } else { 124 }));
    }
}

#[test]
fn unknown_paths_are_refused_with_those_that_there_are() {
    let machine = Machine::start(&[]);
    let mut client = machine.connect();
    for path in ["", "cpu2/regs", "cpu00/regs", "zip1", "zip00", "zip+0", "\u{0}"] {
        let refused = client.ask("inspect", json!({ "path": path })).unwrap_err();
        for there in ["cpu0", "cpu1", "smmu", "gic", "pci", "uart", "rtc", "zip0", "clock", "faults"] {
            assert!(refused.contains(there), "{refused}");
        }
    }
    let refused = client.ask("inspect", json!({ "path": "smmu/x/y" })).unwrap_err();
    assert!(refused.contains("at smmu there is") && refused.contains("counters"), "{refused}");
    for path in ["cpu0/regs", "cpu0", "gic", "uart", "zip0/counters/commands", "clock", "faults"] {
        client.inspect(path);
    }
    assert_eq!(client.ok("counters")["smmu"], client.inspect("smmu/counters"));
    assert!(client.inspect("smmu").get("version").is_none());
    client.ok("quit");
    assert_eq!(machine.end().0, Some(0));
}

/// The table from which the reference is written says what comes.
#[test]
fn every_method_answers_what_its_table_has() {
    let machine = Machine::start(&[]);
    let mut client = machine.connect();
    let armed = client.ask("fault_arm", json!({ "rule": "msi,drop" })).unwrap();
    for method in METHODS {
        let params = match method.name {
            // Its answer is the last one.
            "quit" => continue,
            // A descriptor comes with it.
            "save" => continue,
            "inspect" => json!({ "path": "clock" }),
            "fault_arm" | "fault_trigger" => json!({ "rule": "msi,drop" }),
            "fault_disarm" => json!({ "id": armed["id"] }),
            "console_input" => json!({ "data": "" }),
            _ => json!({}),
        };
        let answer = client.ask(method.name, params).unwrap();
        let found: BTreeSet<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        let expected: BTreeSet<_> = method.result.iter().map(|field| field.name).collect();
        let is_described_elsewhere = ["counters", "inspect"].contains(&method.name);
        assert!(is_described_elsewhere || found == expected, "{}: {answer}", method.name);
    }
    client.ok("quit");
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn counters_are_streamed_until_they_are_stopped() {
    let machine = Machine::start(&[]);
    let mut client = machine.connect();
    client.ask("counters", json!({ "every_ms": 20 })).unwrap();
    for _ in 0..5 {
        let sample = client.read();
        assert_eq!(sample["method"], "counters");
        assert!(sample["params"]["counters"]["smmu"]["walks"].is_u64(), "{sample}");
    }
    client.ask("counters", json!({ "every_ms": 0 })).unwrap();
    client.ok("quit");
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn clients_that_do_everything_wrong_hold_up_nobody_and_take_no_memory() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    machine.connect().ok("status");
    let before = machine.status_of("VmRSS:");

    // A line without an end, for as long as it is taken.
    let mut endless = machine.connect();
    let megabyte = vec![b'['; 1 << 20];
    let refused = (0..1024).find_map(|_| endless.0.get_mut().write_all(&megabyte).err());
    let kind = refused.expect("a line of 1 GiB is not taken").kind();
    assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind:?}");
    // Half a line, and nothing more.
    let mut half = machine.connect();
    half.send(r#"{"jsonrpc":"2.0","#);
    // Requests whose answers are never read: the sender is held up, and the machine is not.
    let never_reads = machine.connect();
    never_reads.0.get_ref().set_nonblocking(true).unwrap();
    let mut sent = 0u64;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let request =
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"inspect\",\"params\":{\"path\":\"cpu0/regs\"}}\n"
                .repeat(50);
        match never_reads.0.get_ref().write(&request) {
            Ok(count) => sent += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => break,
        }
    }
    // So many at once, and so many that come and go with a request under way.
    let many: Vec<_> = (0..200).map(|_| machine.connect()).collect();
    for _ in 0..2000 {
        if let Ok(mut stream) = UnixStream::connect(machine.socket()) {
            let _ = stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"counters\"}\n");
        }
    }
    drop(many);

    // Two connections of those above are still there, and others are served.
    let mut client = machine.connect();
    let start = Instant::now();
    loop {
        client.send("{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"status\"}\n");
        if client.read()["id"] == 5 {
            break;
        }
        // It was one too many.
        assert!(start.elapsed() < LIMIT);
        client = machine.connect();
    }
    machine.send(b'a');
    machine.expect(b'a');
    let grown = machine.status_of("VmRSS:").saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more, with {sent} bytes of requests");
    drop((half, never_reads));
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn name_that_is_taken_is_a_failure_before_anything_starts() {
    let machine = Machine::start(&[]);
    machine.connect().ok("status");
    let image = machine.folder.path().join("image");
    let second = command(&image, &machine.socket(), &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another process listens there"));
    machine.connect().ok("quit");
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn ctl_does_what_it_is_told_and_says_it_in_words_or_json() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let status = machine.ctl(&["status"]);
    assert_eq!(status.status.code(), Some(0));
    assert!(text(&status).lines().any(|line| line.split_whitespace().eq(["phase", "running"])), "{status:?}");
    let paused: Value = serde_json::from_str(&text(&machine.ctl(&["--json", "pause"]))).unwrap();
    assert_eq!(paused["phase"], "paused");
    assert!(text(&machine.ctl(&["inspect", "cpu0/regs"])).contains("SCTLR_EL1"));
    let unknown = machine.ctl(&["inspect", "nothing"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&unknown.stderr).starts_with("warpvmm: nothing is at \"nothing\"; there is")
    );
    assert_eq!(machine.ctl(&["frobnicate"]).status.code(), Some(2));
    assert!(text(&machine.ctl(&["resume"])).contains("running"));
    assert!(text(&machine.ctl(&["reset"])).contains("resets"));
    machine.expect(EMPTY);
    let mut stream = Command::new(PROGRAM)
        .arg("ctl")
        .arg(machine.socket())
        .args(["counters", "--every", "20ms", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let sample: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(sample["counters"]["smmu"].is_object());
    }
    assert_eq!(machine.ctl(&["quit"]).status.code(), Some(0));
    // The stream ends with its machine.
    assert!(stream.wait().unwrap().success());
    let socket = machine.socket();
    assert_eq!(machine.end().0, Some(0));
    let late = Command::new(PROGRAM).arg("ctl").arg(socket).arg("status").output().unwrap();
    assert_eq!(late.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&late.stderr).contains("cannot reach a machine"));
}

#[test]
fn saved_machine_goes_on_in_other_processes_from_either_form_and_can_be_reset_there() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    for form in ["compressed", "plain"] {
        let file = machine.folder.path().join(form);
        let saved = machine.ctl(&["save", &format!("{},ram={form}", file.display())]);
        assert!(saved.status.success(), "{saved:?}");
        let ours = (0..3).map(|_| restore(&file, &[])).collect::<Vec<_>>();
        for (child, mut stdin, mut stdout) in ours {
            let mut say = |byte: u8, answer: u8| {
                stdin.write_all(&[byte]).unwrap();
                let mut found = [0];
                stdout.read_exact(&mut found).unwrap();
                assert_eq!(found, [answer], "{form}");
            };
            // It goes on where it was, and begins anew with empty memory when it is reset.
            say(b'a', b'a');
            say(RESET, EMPTY);
            say(b'b', b'b');
            stdin.write_all(&[OFF]).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{form}: {output:?}");
        }
    }
    // The first one has gone on too.
    machine.send(b'c');
    machine.expect(b'c');
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn save_at_the_end_is_restored_and_a_guest_that_ends_by_itself_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vm.save");
    let path = file.display().to_string();
    let mut machine = Machine::start(&["--save", &path]);
    machine.expect(EMPTY);
    let pid = nix::unistd::Pid::from_raw(machine.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < LIMIT);
        thread::yield_now();
    }
    machine.send(b'a');
    machine.expect(b'a');
    machine.connect().ok("quit");
    let (status, error) = machine.end();
    assert_eq!(status, Some(0));
    assert!(error.contains("saved to"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let before = fs::read(&file).unwrap();
    let (child, mut stdin, stdout) = restore(&file, &["--save", &path]);
    stdin.write_all(&[OFF]).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdout);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not saved at the end"), "{output:?}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// At whatever moment, be it that a debugger has stopped it or not.
#[test]
fn machine_that_is_killed_while_it_is_saved_leaves_a_whole_file_or_none_under_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let (file, gdb) = (folder.path().join("vm.save"), folder.path().join("gdb"));
    let (path, at) = (file.display().to_string(), gdb.display().to_string());
    for attempt in 0..12 {
        let mut machine = Machine::start(&["--save", &path, "--gdb", &at]);
        machine.expect(EMPTY);
        let mut debugger = UnixStream::connect(&gdb).unwrap();
        if attempt % 2 == 1 {
            debugger.write_all(b"+$?#3f").unwrap();
            let mut first = [0];
            debugger.read_exact(&mut first).unwrap();
        }
        let by_client = attempt % 3 == 0;
        let client = by_client.then(|| {
            let mut ctl = Command::new(PROGRAM);
            ctl.arg("ctl").arg(machine.socket()).args(["save", &path]).stderr(Stdio::null());
            ctl.stdout(Stdio::null()).spawn().unwrap()
        });
        if !by_client {
            let pid = nix::unistd::Pid::from_raw(machine.child.id() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
        }
        thread::sleep(Duration::from_millis(attempt));
        machine.child.kill().unwrap();
        machine.child.wait().unwrap();
        if let Some(mut client) = client {
            client.wait().unwrap();
        }
        if file.exists() {
            SaveFile::open(&file).unwrap_or_else(|e| panic!("attempt {attempt}: {}", e.message));
        }
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let others: Vec<_> = names.filter(|name| *name != *"vm.save" && *name != *"gdb").collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

#[test]
fn machine_whose_kernel_is_gone_goes_on_and_says_so_when_it_would_be_reset() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let file = machine.folder.path().join("vm.save");
    assert!(machine.ctl(&["save", &file.display().to_string()]).status.success());
    machine.send(OFF);
    fs::remove_file(machine.folder.path().join("image")).unwrap();
    let (child, mut stdin, stdout) = restore(&file, &[]);
    stdin.write_all(&[RESET]).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdout);
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("does not boot again") && error.contains("image"), "{error}");
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn damaged_file_is_refused_in_one_line_that_names_it() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let file = machine.folder.path().join("vm.save");
    assert!(machine.ctl(&["save", &file.display().to_string()]).status.success());
    let whole = fs::read(&file).unwrap();
    let refusal = || {
        let output = Command::new(PROGRAM).arg("restore").arg(&file).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        let line = error
            .lines()
            .find(|line| line.contains("save file"))
            .unwrap_or_else(|| panic!("{error}"))
            .to_owned();
        assert!(line.contains("vm.save") && !error.contains("panicked"), "{error}");
        line
    };
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
    };
    changed(0);
    assert!(refusal().contains("is no save file"));
    changed(8);
    assert!(refusal().contains("version"));
    changed(40);
    assert!(refusal().contains("checksum of its header"));
    changed(100);
    assert!(refusal().contains("checksum of its state"));
    changed(whole.len() - 1);
    assert!(refusal().contains("checksum of its table"));
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(refusal().contains("not complete"));
    fs::write(&file, b"").unwrap();
    assert!(refusal().contains("is no save file"));
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}

#[test]
fn save_without_a_file_or_into_something_else_is_refused_and_the_machine_goes_on() {
    let mut machine = Machine::start(&[]);
    machine.expect(EMPTY);
    let mut client = machine.connect();
    assert!(client.ask("save", json!({})).unwrap_err().contains("SCM_RIGHTS"));
    let (pipe, _other) = UnixStream::pair().unwrap();
    let read_only = fs::File::open(machine.folder.path().join("image")).unwrap();
    for (fd, expected) in [
        (std::os::fd::AsRawFd::as_raw_fd(&pipe), "no regular file"),
        (std::os::fd::AsRawFd::as_raw_fd(&read_only), "the save has failed"),
    ] {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        let line = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"save\"}\n";
        let socket = std::os::fd::AsRawFd::as_raw_fd(client.0.get_ref());
        let fds = [fd];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket, &[std::io::IoSlice::new(line)], &rights, MsgFlags::empty(), None).unwrap();
        let answer = client.read();
        assert!(answer["error"]["message"].as_str().unwrap().contains(expected), "{answer}");
    }
    let precious = machine.folder.path().join("precious");
    fs::write(&precious, "text").unwrap();
    let refused = machine.ctl(&["save", &precious.display().to_string()]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is no save file"));
    assert_eq!(fs::read(&precious).unwrap(), b"text");
    machine.send(b'a');
    machine.expect(b'a');
    machine.send(OFF);
    assert_eq!(machine.end().0, Some(0));
}
