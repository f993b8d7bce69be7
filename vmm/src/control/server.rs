//! The thread that serves the control socket: one loop over all connections, none of which is ever waited for.
//!
//! Bounds: connections, the length of a line, what may wait to be sent. A connection has one request at work; the next is
//! read when that is answered, and nothing is read while its answers are not sent. So whoever sends too fast is held up by
//! the socket, and whoever does not read loses its connection, or of what the guest prints as much as it does not come for.
//! Requests are done by the machine's thread; there are never more of them than a bound, however many connections come and go.
//! What is typed at the guest is such a request too, which this thread itself does, whenever the UART has room.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use serde_json::{Value, json};

use super::Socket;
use super::line::{Attached, Line, Typed};
use super::lines::Lines;
use super::passed::receive;
use super::protocol::{self, Call, Error, Request};
use crate::host::socket::{Name, send_some, wake};
use crate::machine::{Answer, Handle, Operation, Phase, Refused, Reply, SaveTo};
use crate::sandbox::{Sandbox, Thread};
use crate::save::RamForm;
use crate::supervise::Reason;

/// Most connections.
const MOST_CONNECTIONS: usize = 8;
/// Most requests that wait for the machine.
const MOST_ASKED: usize = 2 * MOST_CONNECTIONS;
/// Bytes that are read at once.
const PIECE: usize = 4096;
/// With so much to be sent, no request is read and no counters are sent.
const MUCH: usize = 64 << 10;
/// With more to be sent, the connection ends. An answer has less than the difference.
const TOO_MUCH: usize = 512 << 10;
/// Connections that are accepted before others get their turn.
const ACCEPTED_AT_ONCE: usize = 16;
/// A pause after the host has refused to accept one.
const REST: Duration = Duration::from_millis(500);

/// What an answer is for.
#[derive(Debug)]
enum For {
    /// A request, with its id if it wants an answer.
    Request(Option<Value>),
    /// A stream of counters.
    Stream,
}

/// Answers on their way from the machine's thread.
#[derive(Debug, Default)]
struct Answers(Mutex<Vec<(u64, For, Answer)>>);

impl Answers {
    fn put(&self, connection: u64, of: For, answer: Answer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((connection, of, answer));
    }

    fn take(&self) -> Vec<(u64, For, Answer)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone, Debug)]
struct Stream {
    every: Duration,
    next: Instant,
    /// What was due and not sent, because the client does not read.
    skipped: u64,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    socket: UnixStream,
    input: Lines,
    output: Vec<u8>,
    /// The last file that the client has passed, for a save.
    passed: Option<OwnedFd>,
    /// A request is at work.
    is_busy: bool,
    stream: Option<Stream>,
    /// Counters for a stream have been asked for and are not here yet.
    is_stream_asked: bool,
    /// Sees what the guest prints.
    attached: Option<Attached>,
    /// The request at work: what is typed.
    typed: Option<Typed>,
    /// Nothing more is read; it ends when its answers are sent.
    is_ending: bool,
    /// It ends now.
    is_gone: bool,
}

impl Connection {
    fn wants_input(&self) -> bool {
        !self.is_busy && !self.is_ending && self.output.len() < MUCH
    }

    /// Sends as much as the socket takes.
    fn flush(&mut self) {
        self.is_gone |= send_some(self.socket.as_fd(), &mut self.output).is_err();
    }

    fn put(&mut self, line: &[u8]) {
        if self.output.len() + line.len() > TOO_MUCH {
            self.is_gone = true;
            return;
        }
        self.output.extend_from_slice(line);
        self.flush();
    }

    fn put_answer(&mut self, id: Option<Value>, result: Result<Value, Error>) {
        if let Some(id) = id {
            self.put(&protocol::answer(&id, result));
        }
    }

    /// Reads once.
    fn read(&mut self) {
        let mut piece = [0; PIECE];
        match receive(self.socket.as_fd(), &mut piece) {
            // What has no end is no request.
            Ok((0, _)) => self.is_ending = true,
            Ok((count, passed)) => {
                self.input.put(&piece[..count]);
                // One is kept, whatever else comes.
                self.passed = passed.into_iter().next_back().or(self.passed.take());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.is_gone = true,
        }
    }

    /// The next request, if one may be served now.
    fn next_request(&mut self) -> Option<Request> {
        while !self.is_busy && self.output.len() < MUCH && !self.is_gone {
            match self.input.next_line() {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => return Some(protocol::parse(&line)),
                Ok(None) => return None,
                Err(_) => {
                    self.input = Lines::default();
                    self.is_ending = true;
                    self.put_answer(Some(Value::Null), Err(Error::line_too_long()));
                    return None;
                }
            }
        }
        None
    }

    fn is_over(&self) -> bool {
        self.is_gone || self.is_ending && !self.is_busy && self.output.is_empty()
    }
}

/// The machine as the server sees it.
#[derive(Debug)]
struct Machine {
    handle: Handle,
    answers: Arc<Answers>,
    /// A byte for the server to read.
    wake: Arc<UnixStream>,
    /// Requests that are not answered yet, also of connections that have gone.
    asked: usize,
}

impl Machine {
    /// Whether it has so much to do that it is not asked for more.
    const fn is_full(&self) -> bool {
        self.asked >= MOST_ASKED
    }

    /// Asks for something. The machine's thread will put the answer into the queue and wake the server.
    fn ask(&mut self, connection: u64, of: For, operation: Operation) {
        let reply = self.reply(connection, of);
        self.handle.ask(operation, reply);
    }

    /// The same for a save to a file of the client's.
    fn save(&mut self, connection: u64, of: For, file: OwnedFd, form: RamForm) {
        let reply = self.reply(connection, of);
        self.handle.save(SaveTo::File(file.into(), form), reply);
    }

    fn reply(&mut self, connection: u64, of: For) -> Reply {
        self.asked += 1;
        let (answers, waker) = (Arc::clone(&self.answers), Arc::clone(&self.wake));
        Reply::new(move |answer| {
            answers.put(connection, of, answer);
            wake(&waker);
        })
    }
}

/// The server's thread.
pub(crate) struct Server {
    thread: JoinHandle<()>,
    ends: Arc<AtomicBool>,
    wake: Arc<UnixStream>,
    /// Goes with this, whether the thread has ended or not.
    _name: Name,
}

impl Server {
    /// Starts to serve.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub(crate) fn start(socket: Socket, handle: Handle, line: Line, sandbox: &Sandbox) -> io::Result<Self> {
        let Socket { name, listener, wake: (waker, woken) } = socket;
        let (ends, wake) = (Arc::<AtomicBool>::default(), Arc::new(waker));
        let mut serving = Serving {
            listener,
            woken,
            line,
            machine: Machine { handle, answers: Arc::default(), wake: Arc::clone(&wake), asked: 0 },
            ends: Arc::clone(&ends),
            connections: Vec::new(),
            next_number: 0,
            rests_until: None,
        };
        let thread = sandbox.spawn(Thread::Control, "control", move || serving.serve())?;
        Ok(Self { thread, ends, wake, _name: name })
    }

    /// Sends what can be sent at once and ends. The machine has ended.
    pub(crate) fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        wake(&self.wake);
        // One that has panicked has ended the process instead.
        let _ = self.thread.join();
    }
}

struct Serving {
    listener: UnixListener,
    woken: UnixStream,
    line: Line,
    machine: Machine,
    ends: Arc<AtomicBool>,
    connections: Vec<Connection>,
    next_number: u64,
    rests_until: Option<Instant>,
}

impl Serving {
    fn serve(&mut self) {
        loop {
            let ends = self.ends.load(Ordering::SeqCst);
            self.give_answers();
            self.give_typed();
            self.serve_requests();
            self.serve_streams();
            self.show_output();
            self.connections.retain(|connection| !connection.is_over());
            if ends {
                return;
            }
            self.wait();
        }
    }

    /// Waits until something can be done, reads what has come and sends what can be sent.
    fn wait(&mut self) {
        let now = Instant::now();
        self.rests_until = self.rests_until.filter(|until| *until > now);
        let accepts = if self.rests_until.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut fds = vec![
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), accepts),
            // SAFETY: the event lives as long as the line, which outlives this wait.
            PollFd::new(unsafe { BorrowedFd::borrow_raw(self.line.event.as_raw_fd()) }, PollFlags::POLLIN),
        ];
        for connection in &self.connections {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, connection.wants_input() && !self.machine.is_full());
            events.set(PollFlags::POLLOUT, !connection.output.is_empty());
            fds.push(PollFd::new(connection.socket.as_fd(), events));
        }
        let timeout = self.timeout(now);
        let events: Vec<PollFlags> = match poll(&mut fds, timeout) {
            Ok(_) => fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect(),
            Err(_) => return,
        };
        drop(fds);
        if events[0].contains(PollFlags::POLLIN) {
            let _ = recv(self.woken.as_raw_fd(), &mut [0; PIECE], MsgFlags::MSG_DONTWAIT);
        }
        if events[2].contains(PollFlags::POLLIN) {
            let _ = self.line.event.read();
        }
        for (connection, events) in self.connections.iter_mut().zip(&events[3..]) {
            if events.contains(PollFlags::POLLOUT) {
                connection.flush();
            }
            if events.contains(PollFlags::POLLIN) {
                connection.read();
            } else if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                // Nobody is there who could read an answer.
                connection.is_gone = true;
            }
        }
        if events[1].contains(PollFlags::POLLIN) {
            self.accept();
        }
    }

    fn timeout(&self, now: Instant) -> PollTimeout {
        let due = |connection: &Connection| {
            connection.stream.as_ref().filter(|_| !connection.is_stream_asked).map(|stream| stream.next)
        };
        let Some(next) = self.connections.iter().filter_map(due).chain(self.rests_until).min() else {
            return PollTimeout::NONE;
        };
        // Rounded up, and short enough for the type: waking too early does no harm.
        let wait = next.saturating_duration_since(now).as_millis().saturating_add(1).min(60_000);
        PollTimeout::from(wait as u16)
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The other end may have gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    log::warn!("the control socket accepts no connection: {error}");
                    self.rests_until = Some(Instant::now() + REST);
                    return;
                }
            };
            let mut connection = Connection {
                number: self.next_number,
                socket,
                input: Lines::default(),
                passed: None,
                output: Vec::new(),
                is_busy: false,
                stream: None,
                is_stream_asked: false,
                attached: None,
                typed: None,
                is_ending: false,
                is_gone: false,
            };
            self.next_number += 1;
            if self.connections.len() < MOST_CONNECTIONS {
                self.connections.push(connection);
            } else {
                connection.put_answer(Some(Value::Null), Err(Error::too_many_connections(MOST_CONNECTIONS)));
            }
        }
    }

    fn give_answers(&mut self) {
        for (number, of, answer) in self.machine.answers.take() {
            self.machine.asked -= 1;
            let found = self.connections.iter_mut().find(|connection| connection.number == number);
            // Who has gone meanwhile gets none.
            let Some(connection) = found else { continue };
            match of {
                For::Request(id) => {
                    connection.is_busy = false;
                    connection.put_answer(id, answer.map_err(Error::from));
                }
                For::Stream => {
                    connection.is_stream_asked = false;
                    let Some(stream) = &mut connection.stream else { continue };
                    if let Ok(counters) = answer {
                        let skipped = std::mem::take(&mut stream.skipped);
                        let params = json!({ "skipped": skipped, "counters": counters });
                        connection.put(&protocol::notification("counters", params));
                    } else {
                        connection.stream = None;
                    }
                }
            }
        }
    }

    /// Hands what is typed to the UART, as far as it takes it.
    fn give_typed(&mut self) {
        for connection in self.connections.iter_mut().filter(|connection| !connection.is_gone) {
            let Some(typed) = &mut connection.typed else { continue };
            let result = if typed.offer(&self.line) {
                Ok(json!({}))
            } else if self.machine.handle.status().phase == Phase::Ended {
                Err(Error::from(Refused::Ended))
            } else {
                continue;
            };
            let id = connection.typed.take().and_then(|typed| typed.id);
            connection.is_busy = false;
            connection.put_answer(id, result);
        }
    }

    /// Sends what the guest has printed, as far as clients take it.
    fn show_output(&mut self) {
        // Before anything is looked at: what comes later is told.
        let is_watched = self.connections.iter().any(|connection| connection.attached.is_some());
        self.line.console.set_watched(is_watched);
        if !is_watched {
            return;
        }
        // No further, or a guest that prints for ever would keep this thread.
        let end = self.line.console.printed();
        for connection in &mut self.connections {
            let Some(mut attached) = connection.attached else { continue };
            while connection.output.len() < MUCH
                && !connection.is_gone
                && let Some(line) = attached.next_line(&self.line, end)
            {
                connection.put(&line);
            }
            connection.attached = Some(attached);
        }
    }

    fn serve_requests(&mut self) {
        for connection in &mut self.connections {
            while !self.machine.is_full()
                && let Some(Request { id, call }) = connection.next_request()
            {
                match call {
                    Err(error) => connection.put_answer(id, Err(error)),
                    Ok(Call::Status) => {
                        let mut status = json!(self.machine.handle.status());
                        status["protocol"] = protocol::VERSION.into();
                        status["version"] = env!("CARGO_PKG_VERSION").into();
                        status["pid"] = std::process::id().into();
                        connection.put_answer(id, Ok(status));
                    }
                    Ok(Call::Quit) => {
                        // Before the end, of which nobody could tell.
                        connection.put_answer(id, Ok(json!({})));
                        self.machine.handle.end(Reason::Control);
                    }
                    Ok(Call::Stream(every)) => {
                        connection.stream =
                            every.map(|every| Stream { every, next: Instant::now(), skipped: 0 });
                        connection.put_answer(id, Ok(json!({})));
                    }
                    Ok(Call::Attach(backlog)) => {
                        connection.attached = Some(Attached::from(&self.line, backlog));
                        connection.put_answer(id, Ok(json!({})));
                    }
                    Ok(Call::Detach) => {
                        connection.attached = None;
                        connection.put_answer(id, Ok(json!({})));
                    }
                    Ok(Call::Input(bytes)) => {
                        let mut typed = Typed::new(id, bytes);
                        if typed.offer(&self.line) {
                            connection.put_answer(typed.id, Ok(json!({})));
                        } else {
                            (connection.is_busy, connection.typed) = (true, Some(typed));
                        }
                    }
                    Ok(Call::Save(form)) => match connection.passed.take() {
                        Some(file) => {
                            connection.is_busy = true;
                            self.machine.save(connection.number, For::Request(id), file, form);
                        }
                        None => connection.put_answer(id, Err(Error::no_descriptor())),
                    },
                    Ok(Call::Machine(operation)) => {
                        connection.is_busy = true;
                        self.machine.ask(connection.number, For::Request(id), operation);
                    }
                }
            }
        }
    }

    fn serve_streams(&mut self) {
        let now = Instant::now();
        for connection in &mut self.connections {
            let is_held_up = connection.output.len() >= MUCH;
            let Some(stream) = &mut connection.stream else { continue };
            if connection.is_stream_asked || stream.next > now || self.machine.is_full() {
                continue;
            }
            // What was missed is not made up for. A time that is never reached is a year.
            let every = stream.every.min(Duration::from_secs(365 * 24 * 3600));
            stream.next = now + every;
            if is_held_up {
                stream.skipped += 1;
                continue;
            }
            connection.is_stream_asked = true;
            self.machine.ask(connection.number, For::Stream, Operation::Counters);
        }
    }
}
