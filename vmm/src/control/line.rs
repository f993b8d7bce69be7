//! The guest's serial line as the control socket's thread has it: what the guest prints, and the way to its UART.
//!
//! Whoever is attached has a place in what the guest has printed, and nothing is kept for it beyond what the console keeps for all.
//! What is typed waits at its connection until the UART has taken it, so that nothing is lost on the way in.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use vmm_sys_util::eventfd::EventFd;

use super::protocol;
use crate::console::{Console, Printed};
use crate::supervise::ConsoleInput;

/// Most bytes of output in one notification, whose line is then no longer than that of a request may be.
const MOST_SHOWN: usize = 8 << 10;

/// See the module.
pub(crate) struct Line {
    pub(super) console: Arc<Console>,
    input: Box<dyn ConsoleInput>,
    /// There is more output, or room for input.
    pub(super) event: Arc<EventFd>,
}

impl Line {
    pub(crate) fn new(console: Arc<Console>, input: Box<dyn ConsoleInput>, event: Arc<EventFd>) -> Self {
        let tell = Arc::clone(&event);
        // Only a counter at its maximum refuses, and then the event is pending anyway.
        console.on_output(Box::new(move || drop(tell.write(1))));
        Self { console, input, event }
    }
}

/// Where a connection is in what the guest prints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attached {
    next: u64,
}

impl Attached {
    /// From so many bytes before the end of what has been printed, as far as they are kept.
    pub(super) fn from(line: &Line, backlog: u64) -> Self {
        let end = line.console.printed();
        let kept = end.saturating_sub(line.console.since(0, 0).end);
        Self { next: end - backlog.min(kept) }
    }

    /// The line of the next notification, if there is something before `end`.
    pub(super) fn next_line(&mut self, line: &Line, end: u64) -> Option<Vec<u8>> {
        if self.next >= end {
            return None;
        }
        let Printed { lost, bytes, end } = line.console.since(self.next, MOST_SHOWN);
        self.next = end;
        let params = json!({ "data": STANDARD.encode(bytes), "lost": lost });
        Some(protocol::notification("console", params))
    }
}

/// What a client has typed and the UART has not taken yet, and whom to tell when it has.
#[derive(Debug)]
pub(super) struct Typed {
    pub(super) id: Option<Value>,
    bytes: Vec<u8>,
    taken: usize,
}

impl Typed {
    pub(super) const fn new(id: Option<Value>, bytes: Vec<u8>) -> Self {
        Self { id, bytes, taken: 0 }
    }

    /// Hands over as much as there is room for, and says whether that was all.
    pub(super) fn offer(&mut self, line: &Line) -> bool {
        let rest = &self.bytes[self.taken..];
        if !rest.is_empty() {
            self.taken += line.input.receive(rest);
        }
        self.taken == self.bytes.len()
    }
}
