//! A machine with `--gdb` at a TCP port, and what comes there that is no debugger. The guest is one instruction.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

struct Machine {
    _folder: TempDir,
    child: Child,
    address: String,
}

impl Machine {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        // b .
        fs::write(&image, common::image(&[0x1400_0000])).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_warpvmm"));
        command.args(["run", "--engine", "soft", "--memory", "64M", "--timeout", "100", "--gdb", "0"]);
        command
            .arg("--kernel")
            .arg(&image)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut error = BufReader::new(child.stderr.take().unwrap());
        error.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        // It goes on to be read, so that the program can write.
        std::thread::spawn(move || error.read_to_string(&mut String::new()));
        Self { _folder: folder, child, address }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }
}

/// What comes up to a packet's end.
fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while text.len() < 4 || text[text.len() - 3] != b'#' {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn what_is_no_debugger_is_refused_and_one_that_is_silent_makes_room_for_the_next() {
    let mut machine = Machine::start();
    let silent = machine.connect();
    let mut browser = machine.connect();
    browser.write_all(b"POST / HTTP/1.1\r\n\r\n$k#6b").unwrap();
    let mut said = Vec::new();
    // Closed with what has come unread, the connection may be reset.
    let _ = browser.read_to_end(&mut said);
    assert!(said.is_empty());
    let mut debugger = machine.connect();
    debugger.write_all(b"+$?#3f").unwrap();
    assert!(answer(&mut debugger).contains("T05thread:01"));
    debugger.write_all(b"+$vCont;c#a8").unwrap();
    debugger.write_all(&[3]).unwrap();
    assert!(answer(&mut debugger).contains("T02"));
    drop(silent);
    debugger.write_all(b"+$k#6b").unwrap();
    assert_eq!(machine.child.wait().unwrap().code(), Some(0));
}
