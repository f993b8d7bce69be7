//! A small client of the debugger's protocol (GDB, Remote Serial Protocol), for tests that need no GDB.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A connection to a machine's `--gdb`.
pub struct Rsp(UnixStream);

impl Rsp {
    /// Connects; the socket may not be there yet.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let start = Instant::now();
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Self(stream),
                Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a packet.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes()).expect("the server is there");
    }

    /// Presses Ctrl-C.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn interrupt(&mut self) {
        self.0.write_all(&[3]).expect("the server is there");
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("the server answers");
        byte[0]
    }

    /// The next packet, with its repetitions written out.
    ///
    /// # Panics
    /// If the connection ends, or it is no packet.
    pub fn read(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut text = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                b'*' => {
                    let last = text.chars().last().expect("something to repeat");
                    let times = usize::from(self.byte() - 29);
                    text.extend(std::iter::repeat_n(last, times));
                }
                byte => text.push(byte.into()),
            }
        }
        // The checksum. The answer to it is not waited for, and after the last packet nobody is there for it.
        for _ in 0..2 {
            self.byte();
        }
        let _ = self.0.write_all(b"+");
        text
    }

    /// Sends a packet and gives the answer.
    pub fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.read()
    }

    /// Reads memory: as many bytes as there are.
    ///
    /// # Panics
    /// If the answer is an error.
    pub fn memory(&mut self, address: u64, len: usize) -> Vec<u8> {
        bytes(&self.ask(&format!("m{address:x},{len:x}")))
    }

    /// A register of 64 bits by its number, of the vCPU that is selected.
    ///
    /// # Panics
    /// If there is none.
    pub fn register(&mut self, number: usize) -> u64 {
        let value = bytes(&self.ask(&format!("p{number:x}")));
        u64::from_le_bytes(value.try_into().expect("64 bits"))
    }

    /// The program counter.
    pub fn pc(&mut self) -> u64 {
        self.register(32)
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16);
    (0..hex.len() / 2).map(|n| digits(2 * n).unwrap_or_else(|e| panic!("{e}: {hex:?}"))).collect()
}
