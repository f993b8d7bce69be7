//! A machine with a control socket: what it answers, what it does, and what clients that do everything wrong cannot do to it.
//! The guest is a few instructions. `docs/control.md`

mod common;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_warpvmm");
/// Longer than anything here takes on a loaded host.
const LIMIT: Duration = Duration::from_secs(100);

/// Typed to the guest: SYSTEM_OFF, SYSTEM_RESET.
const OFF: u8 = 0x04;
const RESET: u8 = 0x12;
/// What the guest says when it starts with empty memory, and when there is something left.
const EMPTY: u8 = b'!';
const LEFT: u8 = b'?';

/// Behind the header: marks its memory, says how it was, and echoes. x3 is the greatest step of the virtual count between two
/// looks.
const GUEST: [u32; 38] = [
    0xd2a1_2013, //      mov x19, #0x9000000     the PL011
    0x5280_0e00, //      mov w0, #0x70
    0xb900_2e60, //      str w0, [x19, #0x2c]    UARTLCR_H: 8 bits, FIFOs
    0x5280_6020, //      mov w0, #0x301
    0xb900_3260, //      str w0, [x19, #0x30]    UARTCR: enable, transmit, receive
    0xd2a8_6014, //      mov x20, #0x43000000
    0xf940_0281, //      ldr x1, [x20]
    0x5280_0022, //      mov w2, #1
    0xf900_0282, //      str x2, [x20]
    0x5280_0420, //      mov w0, #EMPTY
    0x5280_07e4, //      mov w4, #LEFT
    0xf100_003f, //      cmp x1, #0
    0x1a84_0000, //      csel w0, w0, w4, eq
    0xd280_0003, //      mov x3, #0
    0xd53b_e045, //      mrs x5, cntvct_el0
    0x1400_000e, //      b send
    0xd53b_e046, // next: mrs x6, cntvct_el0
    0xcb05_00c7, //      sub x7, x6, x5
    0xeb03_00ff, //      cmp x7, x3
    0x9a83_80e3, //      csel x3, x7, x3, hi
    0xaa06_03e5, //      mov x5, x6
    0xb940_1a61, //      ldr w1, [x19, #0x18]    UARTFR
    0x3727_ff41, //      tbnz w1, #4, next       nothing received
    0xb940_0260, //      ldr w0, [x19]           UARTDR
    0x1200_1c00, //      and w0, w0, #0xff
    0x7100_101f, //      cmp w0, #OFF
    0x5400_00e0, //      b.eq off
    0x7100_481f, //      cmp w0, #RESET
    0x5400_00e0, //      b.eq reset
    0xb940_1a61, // send: ldr w1, [x19, #0x18]
    0x372f_ffe1, //      tbnz w1, #5, send       no room
    0xb900_0260, //      str w0, [x19]
    0x17ff_fff0, //      b next
    0x5280_0100, // off: mov w0, #8
    0x1400_0002, //      b call
    0x5280_0120, // reset: mov w0, #9
    0x72b0_8000, // call: movk w0, #0x8400, lsl #16
    0xd400_0002, //      hvc #0
];

struct Machine {
    folder: TempDir,
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Machine {
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, common::image(&GUEST)).unwrap();
        let mut child = command(&image, &folder.path().join("socket"), more).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { folder, child, stdin, stdout }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A connection; the socket is there before the machine is.
    fn connect(&self) -> Client {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return Client(BufReader::new(stream)),
                Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
            }
            thread::yield_now();
        }
    }

    fn expect(&mut self, byte: u8) {
        let mut found = [0];
        self.stdout.read_exact(&mut found).unwrap();
        assert_eq!(found, [byte], "{}", found[0] as char);
    }

    fn send(&mut self, byte: u8) {
        self.stdin.write_all(&[byte]).unwrap();
    }

    fn ctl(&self, words: &[&str]) -> Output {
        Command::new(PROGRAM).arg("ctl").arg(self.socket()).args(words).output().unwrap()
    }

    /// A number of `/proc/PID/status`.
    fn status_of(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for the end, which leaves no socket.
    fn end(self) -> (Option<i32>, String) {
        let socket = self.socket();
        let Self { folder: _folder, child, stdin, stdout } = self;
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        // Not before: a guest that still prints would find no reader, which is a failure of the run.
        drop(stdout);
        assert!(!socket.exists());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn command(image: &Path, socket: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--engine", "soft", "--memory", "64M", "--cpus", "2", "--timeout", "100"]);
    command.arg("--kernel").arg(image).arg("--control").arg(socket).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// The answer to a request, with its error if it is one.
    fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let request = json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params });
        self.send(&format!("{request}\n"));
        loop {
            let mut answer = self.read();
            if answer["id"] == method {
                return match answer["error"]["message"].as_str() {
                    Some(message) => Err(message.to_owned()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    fn ok(&mut self, method: &str) -> Value {
        self.ask(method, json!({})).unwrap()
    }

    fn inspect(&mut self, path: &str) -> Value {
        self.ask("inspect", json!({ "path": path })).unwrap()
    }

    fn register(&mut self, cpu: usize, name: &str) -> u64 {
        let all = self.inspect(&format!("cpu{cpu}/regs"));
        u64::from_str_radix(all[name].as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
    }
}

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

/// What is left of the machine: a process that goes on from a save, with a console.
fn restore(file: &Path, more: &[&str]) -> (Child, ChildStdin, ChildStdout) {
    let mut command = Command::new(PROGRAM);
    command.arg("restore").arg(file).args(["--timeout", "100"]).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, stdin, stdout)
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
