//! The terminal: raw mode that is always undone, and the escape key.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The modes to go back to, for the panic hook.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Raw mode on standard input, as long as this lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Switches standard input to raw mode. Output processing stays on, so that `\n` from our own messages still
    /// starts a line.
    ///
    /// # Errors
    /// The host's, if standard input is no terminal.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.output_flags = before.output_flags;
        *SAVED.lock().unwrap_or_else(|e| e.into_inner()) = Some(before);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Goes back to the modes before [`RawMode::enter`], if they were changed. Safe to call at any time.
pub fn restore() {
    if let Some(before) = SAVED.lock().unwrap_or_else(|e| e.into_inner()).take() {
        // Nothing is left to do about a terminal that has gone away.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &before);
    }
}

/// The same from a signal handler, where no lock may be waited for and nothing be freed: for the end of the process.
pub fn restore_from_handler() {
    if let Ok(saved) = SAVED.try_lock()
        && let Some(before) = &*saved
    {
        // `enter` has used standard input, so that it is not set up here.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, before);
    }
}

/// What a typed byte means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Bytes for the guest.
    Guest(Vec<u8>),
    /// Leave.
    Quit,
    /// Show the keys.
    Help,
}

/// Ctrl-A, the escape key.
pub const ESCAPE: u8 = 0x01;

/// Finds the escape sequences in what is typed: Ctrl-A X leaves, Ctrl-A Ctrl-A and Ctrl-A A send Ctrl-A.
#[derive(Debug, Default)]
pub struct EscapeKey {
    pressed: bool,
}

impl EscapeKey {
    /// Splits typed bytes into keys.
    pub fn feed(&mut self, typed: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut plain = Vec::new();
        for &byte in typed {
            if !std::mem::take(&mut self.pressed) {
                if byte == ESCAPE {
                    self.pressed = true;
                } else {
                    plain.push(byte);
                }
                continue;
            }
            let special = match byte {
                b'x' | b'X' => Some(Key::Quit),
                b'h' | b'H' | b'?' => Some(Key::Help),
                _ => None,
            };
            match special {
                Some(key) => {
                    if !plain.is_empty() {
                        keys.push(Key::Guest(std::mem::take(&mut plain)));
                    }
                    keys.push(key);
                }
                None if matches!(byte, ESCAPE | b'a' | b'A') => plain.push(ESCAPE),
                None => plain.extend([ESCAPE, byte]),
            }
        }
        if !plain.is_empty() {
            keys.push(Key::Guest(plain));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_key_is_found_across_reads_and_other_bytes_pass() {
        let mut keys = EscapeKey::default();
        assert_eq!(keys.feed(b"ls\r\x01"), [Key::Guest(b"ls\r".to_vec())]);
        assert_eq!(keys.feed(b"x"), [Key::Quit]);
        assert_eq!(keys.feed(b"a\x01\x01b\x01ac"), [Key::Guest(b"a\x01b\x01c".to_vec())]);
        assert_eq!(keys.feed(b"q\x01hq"), [Key::Guest(b"q".to_vec()), Key::Help, Key::Guest(b"q".to_vec())]);
        assert_eq!(keys.feed(b"\x01z"), [Key::Guest(b"\x01z".to_vec())]);
    }
}
