//! The terminal at standard input: raw mode while it is ours, always undone, and the escape key.
//!
//! A terminal belongs to the process group in its foreground. While that is another one, nothing here changes its modes or
//! reads what is typed: the shell, or whoever is in the foreground, has them as it likes.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};
use vmm_sys_util::timerfd::TimerFd;

/// The modes to go back to, and our process group. Outside [`Terminal`] for ends of the process that run no
/// destructors.
static SAVED: Mutex<Option<Saved>> = Mutex::new(None);

#[derive(Clone, Debug)]
struct Saved {
    modes: Termios,
    group: Pid,
}

/// How often a process in the background looks whether it has come to the foreground: a shell says so by a signal only if
/// the process was stopped.
const LOOK: Duration = Duration::from_secs(1);

fn is_foreground(group: Pid) -> bool {
    // Of a terminal that is not our session's the call says nothing, and there is no job control.
    tcgetpgrp(io::stdin().as_fd()).map_or(true, |foreground| foreground == group)
}

/// The terminal at standard input, as long as this lives.
#[derive(Debug)]
pub struct Terminal {
    group: Pid,
    is_ours: bool,
    /// SIGCONT: a shell has stopped us, has used the terminal, and lets us go on.
    continued: SignalFd,
    look: TimerFd,
}

impl Terminal {
    /// The terminal at standard input, or `None` if that is something else. To be called before the first thread.
    ///
    /// # Errors
    /// The host's.
    pub fn at_stdin() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let signals = SigSet::from_iter([Signal::SIGCONT]);
        signals.thread_block()?;
        let continued = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let mut look = TimerFd::new()?;
        look.reset(LOOK, Some(LOOK))?;
        Ok(Some(Self { group: getpgrp(), is_ours: false, continued, look }))
    }

    /// Switches to raw mode if we are in the foreground, and says so. Output processing stays on, so that `\n` from our
    /// own messages still starts a line.
    ///
    /// # Errors
    /// The host's.
    pub fn take(&mut self) -> io::Result<bool> {
        while let Ok(Some(_)) = self.continued.read_signal() {}
        self.is_ours = is_foreground(self.group);
        if !self.is_ours {
            self.look.reset(LOOK, Some(LOOK))?;
            return Ok(false);
        }
        self.look.clear()?;
        let stdin = io::stdin();
        let mut saved = SAVED.lock().unwrap_or_else(|e| e.into_inner());
        // The first modes count: some shells give back those that we had when we were stopped.
        let before = match &*saved {
            Some(saved) => saved.modes.clone(),
            None => tcgetattr(stdin.as_fd())?,
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.output_flags = before.output_flags;
        *saved = Some(Saved { modes: before, group: self.group });
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(true)
    }

    /// Whether it was ours when it was last taken.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// What becomes readable when [`Self::take`] should be called again, which reads it empty.
    #[must_use]
    pub fn events(&self) -> [RawFd; 2] {
        [self.continued.as_raw_fd(), self.look.as_raw_fd()]
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Goes back to the modes before [`Terminal::take`], if they were changed and we are in the foreground. Safe to call at any
/// time.
pub fn restore() {
    if let Some(saved) = SAVED.lock().unwrap_or_else(|e| e.into_inner()).take() {
        set_back(&saved);
    }
}

/// The same from a signal handler, where no lock may be waited for and nothing be freed: for the end of the process.
pub fn restore_from_handler() {
    if let Ok(saved) = SAVED.try_lock()
        && let Some(saved) = &*saved
    {
        set_back(saved);
    }
}

fn set_back(saved: &Saved) {
    if is_foreground(saved.group) {
        // Nothing is left to do about a terminal that has gone away. `take` has used standard input, so that it is not set
        // up here.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &saved.modes);
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
