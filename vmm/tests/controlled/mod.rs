//! A machine with a control socket, and a client of it: what the tests of the socket have in common. Its guest is a few instructions.

#![allow(dead_code, reason = "each of the programs that include this needs another part of it")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_warpvmm");
/// Longer than anything here takes on a loaded host.
pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// Typed to the guest: SYSTEM_OFF, SYSTEM_RESET.
pub(crate) const OFF: u8 = 0x04;
pub(crate) const RESET: u8 = 0x12;
/// What the guest says when it starts with empty memory, and when there is something left.
pub(crate) const EMPTY: u8 = b'!';
pub(crate) const LEFT: u8 = b'?';

/// Behind the header: marks its memory, says how it was, and echoes. x3 is the greatest step of the virtual count between two
/// looks.
pub(crate) const GUEST: [u32; 38] = [
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

pub(crate) struct Machine {
    pub(crate) folder: TempDir,
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
}

impl Machine {
    pub(crate) fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        fs::write(&image, crate::common::image(&GUEST)).unwrap();
        let mut child = command(&image, &folder.path().join("socket"), more).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { folder, child, stdin, stdout }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A connection; the socket is there before the machine is.
    pub(crate) fn connect(&self) -> Client {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return Client(BufReader::new(stream)),
                Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
            }
            thread::yield_now();
        }
    }

    pub(crate) fn expect(&mut self, byte: u8) {
        let mut found = [0];
        self.stdout.read_exact(&mut found).unwrap();
        assert_eq!(found, [byte], "{}", found[0] as char);
    }

    pub(crate) fn send(&mut self, byte: u8) {
        self.stdin.write_all(&[byte]).unwrap();
    }

    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        Command::new(PROGRAM).arg("ctl").arg(self.socket()).args(words).output().unwrap()
    }

    /// A number of `/proc/PID/status`.
    pub(crate) fn status_of(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for the end, which leaves no socket.
    pub(crate) fn end(self) -> (Option<i32>, String) {
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

pub(crate) fn command(image: &Path, socket: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--engine", "soft", "--memory", "64M", "--cpus", "2", "--timeout", "100"]);
    command.arg("--kernel").arg(image).arg("--control").arg(socket).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) struct Client(pub(crate) BufReader<UnixStream>);

impl Client {
    pub(crate) fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn read(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// The answer to a request, with its error if it is one.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Result<Value, String> {
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

    pub(crate) fn ok(&mut self, method: &str) -> Value {
        self.ask(method, json!({})).unwrap()
    }

    pub(crate) fn inspect(&mut self, path: &str) -> Value {
        self.ask("inspect", json!({ "path": path })).unwrap()
    }

    pub(crate) fn register(&mut self, cpu: usize, name: &str) -> u64 {
        let all = self.inspect(&format!("cpu{cpu}/regs"));
        u64::from_str_radix(all[name].as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
    }
}

/// What is left of the machine: a process that goes on from a save, with a console.
pub(crate) fn restore(file: &Path, more: &[&str]) -> (Child, ChildStdin, ChildStdout) {
    let mut command = Command::new(PROGRAM);
    command.arg("restore").arg(file).args(["--timeout", "100"]).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, stdin, stdout)
}
