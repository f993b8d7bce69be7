//! The program with its standard input, its terminal, its signals and its limits, as whoever starts it hands them over. The
//! guest is a few instructions that echo what is typed. `docs/console.md`

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_warpvmm");
/// Longer than any of the runs takes on a loaded host: one that does not end is a failure.
const LIMIT: Duration = Duration::from_secs(120);

/// Typed to the guest: SYSTEM_OFF, SYSTEM_RESET.
const OFF: u8 = 0x04;
const RESET: u8 = 0x12;
/// What the guest says when it listens.
const READY: u8 = b'!';

/// Behind the header: sends [`READY`], then echoes.
const ECHO: [u32; 25] = [
    0xd2a1_2013, //      mov x19, #0x9000000     the PL011
    0x5280_0e00, //      mov w0, #0x70
    0xb900_2e60, //      str w0, [x19, #0x2c]    UARTLCR_H: 8 bits, FIFOs
    0x5280_6020, //      mov w0, #0x301
    0xb900_3260, //      str w0, [x19, #0x30]    UARTCR: enable, transmit, receive
    0x5280_0420, //      mov w0, #'!'
    0x1400_0009, //      b send
    0xb940_1a61, // next: ldr w1, [x19, #0x18]   UARTFR
    0x3727_ffe1, //      tbnz w1, #4, next       nothing received
    0xb940_0260, //      ldr w0, [x19]           UARTDR
    0x1200_1c00, //      and w0, w0, #0xff
    0x7100_101f, //      cmp w0, #OFF
    0x5400_00e0, //      b.eq off
    0x7100_481f, //      cmp w0, #RESET
    0x5400_0100, //      b.eq reset
    0xb940_1a61, // send: ldr w1, [x19, #0x18]
    0x372f_ffe1, //      tbnz w1, #5, send       no room
    0xb900_0260, //      str w0, [x19]
    0x17ff_fff5, //      b next
    0x5280_0100, // off: mov w0, #8
    0x72b0_8000, //      movk w0, #0x8400, lsl #16
    0xd400_0002, //      hvc #0                  SYSTEM_OFF
    0x5280_0120, // reset: mov w0, #9
    0x72b0_8000, //      movk w0, #0x8400, lsl #16
    0xd400_0002, //      hvc #0                  SYSTEM_RESET
];

/// A folder with the guest's image, and room for what a test needs beside it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("image"), common::image(&ECHO)).unwrap();
    folder
}

/// The words that run the guest. The longest word may be followed by more; the last of an option counts.
fn words(folder: &Path) -> Vec<String> {
    let image = folder.join("image").display().to_string();
    let rest = "--engine soft --memory 64M --accel none --no-reboot --timeout 100";
    let words = [PROGRAM, "run", "--kernel", &image].into_iter().chain(rest.split(' '));
    words.map(str::to_owned).collect()
}

fn command(words: &[String]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A shell script that runs the guest as `"$@"`.
fn script(folder: &Path, script: &str) -> Command {
    let mut all: Vec<String> = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    all.extend(words(folder));
    command(&all)
}

struct Ended {
    status: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

fn collect(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for the end.
#[track_caller]
fn end(mut child: Child) -> Ended {
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
    Ended { status, stdout: stdout.join().unwrap(), stderr }
}

/// Reads the guest's word that it listens.
#[track_caller]
fn wait_for_guest(child: &mut Child) {
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    assert_eq!(byte, [READY]);
}

/// Text whose every line differs from the last, and the byte that ends the guest.
fn typed(len: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|line: u32| format!("line {line}\n").into_bytes());
    lines.take(len).chain([OFF]).collect()
}

#[track_caller]
fn assert_echo(ended: &Ended, typed: &[u8]) {
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    let expected = [&[READY], &typed[..typed.len() - 1]].concat();
    assert!(ended.stdout == expected, "{} bytes of {}", ended.stdout.len(), expected.len());
}

#[test]
fn all_that_a_pipe_holds_reaches_the_guest_without_a_further_byte() {
    let folder = folder();
    let mut child = command(&words(folder.path())).spawn().unwrap();
    let typed = typed(6000);
    // All at once, and kept open: neither its end nor another byte wakes the reader.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&typed).unwrap();
    assert_echo(&end(child), &typed);
    drop(stdin);
}

#[test]
fn regular_file_is_typed_from_its_start_to_its_end() {
    let folder = folder();
    let typed = typed(500_000);
    let path = folder.path().join("typed");
    fs::write(&path, &typed).unwrap();
    let child = command(&words(folder.path())).stdin(File::open(path).unwrap()).spawn().unwrap();
    assert_echo(&end(child), &typed);
}

#[test]
fn end_of_input_is_not_the_end_of_the_machine() {
    let folder = folder();
    for input in ["/dev/null", "/"] {
        let mut words = words(folder.path());
        words.extend(["--timeout", "1"].map(str::to_owned));
        let ended = end(command(&words).stdin(File::open(input).unwrap()).spawn().unwrap());
        assert_eq!((ended.status, &ended.stdout[..]), (Some(124), &[READY][..]), "{input}: {}", ended.stderr);
    }
}

/// Of those descriptors that epoll refuses, the ones that never end: they used to be read whole before anything else.
#[test]
fn input_without_end_leaves_time_limit_and_signals_in_force() {
    let folder = folder();
    let mut limited = words(folder.path());
    limited.extend(["--timeout", "1"].map(str::to_owned));
    let ended = end(command(&limited).stdin(File::open("/dev/zero").unwrap()).spawn().unwrap());
    assert_eq!(ended.status, Some(124), "{}", ended.stderr);
    // The guest echoes all the while.
    assert!(ended.stdout.len() > 1000 && ended.stdout[1..].iter().all(|&byte| byte == 0));

    let mut child = command(&words(folder.path())).stdin(File::open("/dev/zero").unwrap()).spawn().unwrap();
    wait_for_guest(&mut child);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(end(child).status, Some(143));
}

#[test]
fn signals_that_the_starter_ignores_stay_ignored_and_others_end_the_machine() {
    let folder = folder();
    let mut child = script(folder.path(), "trap '' INT HUP; exec \"$@\"").spawn().unwrap();
    wait_for_guest(&mut child);
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGINT).unwrap();
    kill(pid, Signal::SIGHUP).unwrap();
    let typed = typed(100);
    child.stdin.as_mut().unwrap().write_all(&typed).unwrap();
    let ended = end(child);
    assert_eq!((ended.status, &ended.stdout[..]), (Some(0), &typed[..100]), "{}", ended.stderr);

    // Whatever ignores signals around this test, as a shell does for what it runs in the background.
    let mut words_by_default = vec!["env".to_owned(), "--default-signal".to_owned()];
    words_by_default.extend(words(folder.path()));
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGHUP, 143), (Signal::SIGTERM, 143)] {
        let mut child = command(&words_by_default).spawn().unwrap();
        wait_for_guest(&mut child);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(end(child).status, Some(status), "{signal}");
    }
}

/// Runs a script in a session of its own, whose terminal is a new one, and returns that with its other end.
fn on_a_terminal(folder: &Path, text: &str) -> (Child, File, File) {
    let pty = openpty(None, None).unwrap();
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "sh", "-c", text, "sh"]).args(words(folder));
    let terminal = pty.slave.try_clone().unwrap();
    let child =
        command.stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("setsid");
    (child, File::from(pty.slave), File::from(pty.master))
}

fn flags(terminal: &File) -> LocalFlags {
    tcgetattr(terminal.as_fd()).unwrap().local_flags
}

/// `timeout` puts itself and what it starts into the background.
#[test]
fn in_the_background_of_a_terminal_the_machine_runs_and_ends_by_a_signal() {
    let folder = folder();
    let script = "timeout --kill-after 20 2 \"$@\"; echo ended $?";
    let (child, terminal, _keys) = on_a_terminal(folder.path(), script);
    let before = flags(&terminal);
    let ended = end(child);
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(said.contains("!ended 124"), "{said} {}", ended.stderr);
    assert_eq!(flags(&terminal), before);
}

#[test]
fn machine_that_comes_to_the_foreground_takes_the_terminal_and_gives_it_back() {
    let folder = folder();
    let log = folder.path().join("log");
    let script = format!(
        "set -m; \"$@\" --console-log {0} & until test -s {0}; do sleep 0.1; done; fg >&2; echo ended $?",
        log.display()
    );
    let (child, terminal, mut keys) = on_a_terminal(folder.path(), &script);
    let before = flags(&terminal);
    assert!(before.contains(LocalFlags::ICANON));
    let start = Instant::now();
    while flags(&terminal).contains(LocalFlags::ICANON) {
        assert!(start.elapsed() < LIMIT, "it does not take the terminal");
        thread::sleep(Duration::from_millis(20));
    }
    // In raw mode, the byte that ends the guest is not the end of the input.
    keys.write_all(&typed(20)).unwrap();
    let ended = end(child);
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(said.contains("!line 0") && said.contains("ended 0"), "{said} {}", ended.stderr);
    assert_eq!(flags(&terminal), before);
}

#[test]
fn escape_key_works_while_the_guest_takes_nothing_of_what_was_typed_before() {
    let folder = folder();
    // A guest that never looks at its UART.
    fs::write(folder.path().join("image"), common::image(&[0x1400_0000])).unwrap();
    let (child, terminal, mut keys) = on_a_terminal(folder.path(), "\"$@\"; echo ended $?");
    let start = Instant::now();
    while flags(&terminal).contains(LocalFlags::ICANON) {
        assert!(start.elapsed() < LIMIT, "it does not take the terminal");
        thread::sleep(Duration::from_millis(20));
    }
    keys.write_all(&[b'x'; 1000]).unwrap();
    keys.write_all(b"\x01x").unwrap();
    let ended = end(child);
    assert!(ended.stderr.contains("left by Ctrl-A X"), "{}", ended.stderr);
    assert!(String::from_utf8_lossy(&ended.stdout).contains("ended 0"));
}

fn say(text: &str, last: u8) -> Ended {
    let folder = folder();
    let mut child = command(&words(folder.path())).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[text.as_bytes(), b"\n", &[last]].concat()).unwrap();
    end(child)
}

#[test]
fn text_of_a_panic_is_told_of_and_ends_nothing() {
    let end = say("---[ end Kernel panic - not syncing: a joke ]---", OFF);
    assert_eq!(end.status, Some(0), "{}", end.stderr);
    assert!(end.stderr.contains("says that it has panicked") && end.stderr.contains("panic=-1"));
}

#[test]
fn reset_after_the_message_of_a_panic_is_a_panics_and_another_is_not() {
    let panic = say("Kernel panic - not syncing: VFS", RESET);
    assert_eq!(panic.status, Some(3));
    assert!(panic.stderr.contains("the guest panicked and reset"), "{}", panic.stderr);
    for text in ["nothing", "Kernel panic - not syncing: a joke\nreboot: Restarting system"] {
        let reset = say(text, RESET);
        assert_eq!(reset.status, Some(3));
        assert!(reset.stderr.contains("the guest reset itself"), "{}", reset.stderr);
    }
}

#[test]
fn limit_on_the_size_of_files_is_an_error_that_is_told() {
    let folder = folder();
    let log = folder.path().join("log").display().to_string();
    let script = format!("ulimit -f 0; exec \"$@\" --console-log {log}");
    let mut child = self::script(folder.path(), &script).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&typed(100)).unwrap();
    let ended = end(child);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("cannot write the console log") && ended.stderr.contains("File too large"),
        "{}",
        ended.stderr
    );
}
