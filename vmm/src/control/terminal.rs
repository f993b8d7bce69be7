//! `warpvmm ctl PATH console`: the guest's serial line at this terminal, or between standard input and output of a script.
//!
//! One loop that waits for nothing else: not for the guest, which may read nothing, nor for whoever reads what it prints, so that keys,
//! signals and time limits are always heard. On a terminal, what is typed beyond a bound while the guest takes nothing is not taken
//! either, and a bell says so; from a pipe or file nothing is read before the guest has taken what came before.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{read, write};
use serde_json::{Value, json};

use super::client::{connect, line_of, lost, message_of, request};
use super::lines::Lines;
use crate::cli::{ConsoleArgs, CtlArgs};
use crate::exit::{Failed, Status};
use crate::host::signals::{Arrived, Signals};
use crate::host::socket::send_some;
use crate::host::terminal::{EscapeKey, Key, Terminal};

/// Bytes that are read at once, and typed by one request.
const PIECE: usize = 4096;
/// Typed bytes that wait for the guest, at most.
const MOST_TYPED: usize = 4096;
/// With so much to be printed, nothing more is received: the machine then keeps what it keeps, and tells of the rest.
const MUCH: usize = 64 << 10;
/// Bytes that a descriptor which can be written to takes without a wait: of a pipe, and of a terminal.
const ROOM: usize = 4096;
const ROOM_OF_TERMINAL: usize = 256;

const KEYS: &str = "Ctrl-A X: leave, the machine goes on   Ctrl-A Ctrl-A: send Ctrl-A   Ctrl-A H: this list";

/// Why it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Over {
    /// By the key.
    Left,
    /// All has been typed.
    Eof,
    /// What was waited for has been printed.
    Found,
    /// The time is over.
    Timeout,
    /// By a signal.
    Signal(Status),
    /// Nobody reads what is printed.
    Unread,
    /// The connection has ended, and with it the machine.
    Ended,
}

/// Looks for a text in what comes in pieces.
#[derive(Debug)]
struct Search {
    text: Vec<u8>,
    /// The end of what has come: shorter than the text.
    tail: Vec<u8>,
}

impl Search {
    /// Whether it is there by now.
    fn sees(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        let is_there = self.tail.windows(self.text.len()).any(|part| part == self.text);
        let excess = self.tail.len().saturating_sub(self.text.len() - 1);
        self.tail.drain(..excess);
        is_there
    }
}

struct Session<'a> {
    options: &'a ConsoleArgs,
    is_json: bool,
    socket: UnixStream,
    answers: Lines,
    /// For the machine.
    output: Vec<u8>,
    terminal: Option<Terminal>,
    keys: EscapeKey,
    has_input: bool,
    /// What waits to be typed.
    typed: Vec<u8>,
    /// Something is being typed.
    is_typing: bool,
    is_attached: bool,
    /// For standard output.
    printed: Vec<u8>,
    /// What standard output takes at once.
    room: usize,
    search: Option<Search>,
    over: Option<Over>,
}

/// Runs the subcommand.
///
/// # Errors
/// A line for the user.
pub fn attach(args: &CtlArgs, options: &ConsoleArgs) -> anyhow::Result<Status> {
    let signals = Signals::block().context("cannot block signals")?;
    let socket = connect(args)?;
    let terminal =
        if args.json { None } else { Terminal::at_stdin().context("cannot watch the terminal")? };
    let is_shown = io::stdout().is_terminal();
    let mut session = Session {
        options,
        is_json: args.json,
        socket,
        answers: Lines::default(),
        output: request(&args.method)?.into_bytes(),
        terminal,
        keys: EscapeKey::default(),
        has_input: true,
        typed: Vec::new(),
        is_typing: false,
        is_attached: false,
        printed: Vec::new(),
        room: if is_shown { ROOM_OF_TERMINAL } else { ROOM },
        search: options.until.as_ref().map(|text| Search { text: text.clone().into(), tail: Vec::new() }),
        over: None,
    };
    if let Some(terminal) = &mut session.terminal {
        terminal.take().context("cannot set the terminal's mode")?;
        eprint!("warpvmm: attached; Ctrl-A X leaves, Ctrl-A H lists the keys\r\n");
    }
    let over = session.run(&signals)?;
    let has_terminal = session.terminal.is_some();
    let has_typed_all = session.typed.is_empty() && !session.is_typing && !session.has_input;
    // The modes from before, and then what is said.
    drop(session);
    let say = |what: &str| {
        if has_terminal {
            eprintln!("\nwarpvmm: {what}");
        }
    };
    Ok(match over {
        Over::Left => {
            say("left; the machine goes on");
            Status::Success
        }
        Over::Eof | Over::Found | Over::Unread => Status::Success,
        Over::Signal(status) => status,
        Over::Timeout => {
            let limit = options.timeout.unwrap_or_default();
            eprintln!("\nwarpvmm: time limit of {limit:?} passed; the machine goes on");
            Status::Timeout
        }
        Over::Ended if options.until.is_some() => {
            return Err(Failed::new("the machine has ended before it has printed this").into());
        }
        Over::Ended if options.eof && !has_typed_all => {
            return Err(Failed::new("the machine has ended before it has taken all input").into());
        }
        Over::Ended => {
            say("the machine has ended");
            Status::Success
        }
    })
}

impl Session<'_> {
    fn run(&mut self, signals: &Signals) -> anyhow::Result<Over> {
        let deadline = self.options.timeout.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            self.type_more();
            if send_some(self.socket.as_fd(), &mut self.output).is_err() {
                // Nobody is there any more. What has come before is still to be received, and then the end.
                self.output.clear();
            }
            if self.options.eof
                && self.is_attached
                && !self.has_input
                && self.typed.is_empty()
                && !self.is_typing
            {
                self.over.get_or_insert(Over::Eof);
            }
            // What has come is printed first, unless nobody may want it any more.
            let is_at_once =
                matches!(self.over, Some(Over::Unread | Over::Signal(_) | Over::Timeout | Over::Left));
            if (is_at_once || self.printed.is_empty())
                && let Some(over) = self.over.take()
            {
                return Ok(over);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Over::Timeout);
            }
            self.wait(signals, deadline)?;
        }
    }

    /// Waits for something to happen, and does what it asks for.
    fn wait(&mut self, signals: &Signals, deadline: Option<Instant>) -> anyhow::Result<()> {
        let wanted = |condition: bool, events: PollFlags| if condition { events } else { PollFlags::empty() };
        let receives = self.over.is_none() && self.printed.len() < MUCH;
        let socket =
            wanted(receives, PollFlags::POLLIN) | wanted(!self.output.is_empty(), PollFlags::POLLOUT);
        let stdin = wanted(self.wants_input(), PollFlags::POLLIN);
        let stdout = wanted(!self.printed.is_empty(), PollFlags::POLLOUT);
        let (input, output) = (io::stdin(), io::stdout());
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let mut events = self.terminal.iter().flat_map(Terminal::events).collect::<Vec<_>>();
        // Only what is waited for: an end that has gone is told of whatever is wanted, again and again.
        let mut add = |events: PollFlags, fd| {
            (!events.is_empty()).then(|| {
                fds.push(PollFd::new(fd, events));
                fds.len() - 1
            })
        };
        let socket = add(socket, self.socket.as_fd());
        let stdin = add(stdin, input.as_fd());
        let stdout = add(stdout, output.as_fd());
        let first_event = fds.len();
        for fd in events.drain(..) {
            // SAFETY: the terminal's descriptors live as long as the terminal, which is not touched during this wait.
            fds.push(PollFd::new(unsafe { BorrowedFd::borrow_raw(fd) }, PollFlags::POLLIN));
        }
        // Rounded up, and short enough for the type: waking too early does no harm.
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::from(left.min(60_000) as u16)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failed::new(format!("cannot wait for events: {error}")).into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        let has = |index: Option<usize>| index.is_some_and(|index| happened[index]);
        if happened[0]
            && let Some(Arrived::End(status)) = signals.arrived()
        {
            self.over = Some(Over::Signal(status));
            return Ok(());
        }
        if happened[first_event..].contains(&true)
            && let Some(terminal) = &mut self.terminal
        {
            // A terminal that has gone away is found out by reading it.
            let _ = terminal.take();
        }
        if has(stdout) {
            self.print()?;
        }
        if has(stdin) {
            self.read();
        }
        if has(socket) && receives {
            self.receive()?;
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        let may = match &self.terminal {
            // Always, for the keys.
            Some(terminal) => terminal.is_ours(),
            None => self.typed.is_empty() && !self.is_typing,
        };
        may && self.has_input && self.over.is_none()
    }

    /// Reads what is typed.
    fn read(&mut self) {
        let mut piece = [0; PIECE];
        let count = match read(io::stdin().as_fd(), &mut piece) {
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return,
            // The terminal has just been given to another process group.
            Err(Errno::EIO) if self.terminal.as_mut().is_some_and(|it| matches!(it.take(), Ok(false))) => {
                return;
            }
            Err(_) => 0,
        };
        if count == 0 {
            self.has_input = false;
            return;
        }
        let piece = &piece[..count];
        if self.terminal.is_none() {
            self.typed.extend_from_slice(piece);
            return;
        }
        for key in self.keys.feed(piece) {
            match key {
                Key::Guest(bytes) if self.typed.len() + bytes.len() > MOST_TYPED => eprint!("\x07"),
                Key::Guest(bytes) => self.typed.extend(bytes),
                Key::Quit => self.over = Some(Over::Left),
                Key::Help => eprint!("\r\n{KEYS}\r\n"),
            }
        }
    }

    /// Asks for the next piece to be typed, when the last one has been.
    fn type_more(&mut self) {
        if self.is_typing || self.typed.is_empty() || !self.is_attached {
            return;
        }
        let piece: Vec<u8> = self.typed.drain(..self.typed.len().min(PIECE)).collect();
        let request = line_of("console_input", &json!({ "data": STANDARD.encode(piece) }));
        self.output.extend_from_slice(request.as_bytes());
        self.is_typing = true;
    }

    /// Receives once, and takes up what it says.
    fn receive(&mut self) -> anyhow::Result<()> {
        let mut piece = [0; PIECE];
        match recv(self.socket.as_raw_fd(), &mut piece, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => self.over = Some(Over::Ended),
            Ok(count) => self.answers.put(&piece[..count]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(lost(&error).into()),
        }
        while let Some(line) = self.answers.next_line().map_err(|_| lost(&"a line is too long"))? {
            let message = message_of(&line)?;
            match message["method"].as_str() {
                Some("console") => self.show(&message["params"])?,
                Some(_) => {}
                // The first answers the attachment; of the others there is one at a time.
                None if self.is_attached => self.is_typing = false,
                None => self.is_attached = true,
            }
        }
        Ok(())
    }

    fn show(&mut self, params: &Value) -> anyhow::Result<()> {
        let data = STANDARD.decode(params["data"].as_str().unwrap_or_default());
        let data = data.map_err(|e| Failed::new(format!("the machine's output is not Base64: {e}")))?;
        if let Some(search) = &mut self.search
            && search.sees(&data)
        {
            self.over.get_or_insert(Over::Found);
        }
        if self.is_json {
            self.printed.extend_from_slice(format!("{params}\n").as_bytes());
            return Ok(());
        }
        if let Some(lost @ 1..) = params["lost"].as_u64() {
            let note = format!("warpvmm: {lost} bytes of output are lost here: this end was too slow");
            if self.room == ROOM_OF_TERMINAL {
                self.printed.extend_from_slice(format!("\r\n{note}\r\n").as_bytes());
            } else {
                eprintln!("{note}");
            }
        }
        self.printed.extend_from_slice(&data);
        Ok(())
    }

    /// Prints as much as standard output takes.
    fn print(&mut self) -> anyhow::Result<()> {
        let count = self.printed.len().min(self.room);
        match write(io::stdout().as_fd(), &self.printed[..count]) {
            Ok(count) => drop(self.printed.drain(..count)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Whoever has seen enough of it closes it.
            Err(Errno::EPIPE) => self.over = Some(Over::Unread),
            Err(error) => {
                return Err(Failed::new(format!("cannot write to standard output: {error}")).into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_in_whatever_pieces_it_comes() {
        let text = b"Welcome\nbuildroot login: ";
        for size in 1..text.len() {
            let mut search = Search { text: b"login: ".to_vec(), tail: Vec::new() };
            let found: Vec<_> = text.chunks(size).map(|piece| search.sees(piece)).collect();
            assert_eq!(found.iter().position(|found| *found), Some(found.len() - 1), "{size}");
        }
        let mut search = Search { text: b"x".to_vec(), tail: Vec::new() };
        assert!(!search.sees(b"abc") && search.tail.is_empty());
    }
}
