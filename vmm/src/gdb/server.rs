//! The thread that serves a debugger: one at a time, others wait to be accepted.
//!
//! The machine stops when a debugger has said something, not when it connects, and who has said nothing makes room for the
//! next. A debugger that is lost takes its breakpoints with it, and the machine goes on unless it was found paused.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cpu::DebugPoints;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::session::{End, Session};
use super::target::{Debuggee, Job, Order, Stop};
use super::{Listener, Socket};
use crate::host::socket::{send_some, wake};
use crate::machine::debug::DebugRequest;
use crate::machine::{Answer, Handle, Operation};
use crate::sandbox::{Sandbox, Thread};
use crate::supervise::Reason;

/// Bytes that are read at once.
const PIECE: usize = 4096;
/// With so much to be sent, nothing is read.
const MUCH: usize = 256 << 10;
/// A pause after the host has refused to accept a connection.
const REST: Duration = Duration::from_millis(500);

/// The machine behind its handle.
#[derive(Clone, Debug)]
struct Remote {
    handle: Handle,
    cpus: usize,
}

impl Debuggee for Remote {
    fn cpus(&self) -> usize {
        self.cpus
    }

    fn with_vcpu(&mut self, cpu: usize, work: Job) {
        self.handle.debug(DebugRequest::Vcpu(cpu, work));
    }

    fn set_points(&mut self, points: Arc<DebugPoints>) {
        self.handle.debug(DebugRequest::Points(points));
    }

    fn resume(&mut self, orders: Vec<Order>) {
        self.handle.debug(DebugRequest::Resume(orders));
    }

    fn interrupt(&mut self) {
        self.handle.debug(DebugRequest::Interrupt);
    }

    fn ask(&mut self, operation: Operation) -> Answer {
        self.handle.wait_for(operation)
    }
}

/// Stops on their way from the machine's thread, each with the connection that waits for it.
#[derive(Debug, Default)]
struct Stops(Mutex<Vec<(u64, Stop)>>);

impl Stops {
    fn put(&self, connection: u64, stop: Stop) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((connection, stop));
    }

    fn take(&self) -> Vec<(u64, Stop)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Connection {
    number: u64,
    socket: OwnedFd,
    /// There while the debugger is.
    session: Option<Session<Remote>>,
    /// What is left to be sent when the session has ended.
    last: Vec<u8>,
    /// The machine knows of the debugger.
    is_attached: bool,
    is_gone: bool,
}

impl Connection {
    fn output(&mut self) -> &mut Vec<u8> {
        match &mut self.session {
            Some(session) => session.output(),
            None => &mut self.last,
        }
    }

    /// Sends as much as the socket takes.
    fn flush(&mut self) {
        let output = match &mut self.session {
            Some(session) => session.output(),
            None => &mut self.last,
        };
        self.is_gone |= send_some(self.socket.as_fd(), output).is_err();
    }

    fn is_over(&mut self) -> bool {
        self.is_gone || self.session.is_none() && self.last.is_empty()
    }
}

/// The server's thread.
pub(crate) struct Server {
    thread: JoinHandle<()>,
    ends: Arc<AtomicBool>,
    wake: Arc<UnixStream>,
    /// Its name goes with this, whether the thread has ended or not.
    _listener: Arc<Listener>,
}

impl Server {
    /// Starts to serve.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub(crate) fn start(socket: Socket, handle: Handle, sandbox: &Sandbox) -> io::Result<Self> {
        let Socket { listener, wake: (waker, woken) } = socket;
        let (ends, wake, listener) = (Arc::<AtomicBool>::default(), Arc::new(waker), Arc::new(listener));
        let cpus = handle.status().cpus as usize;
        let mut serving = Serving {
            listener: Arc::clone(&listener),
            woken,
            wake: Arc::clone(&wake),
            remote: Remote { handle, cpus },
            stops: Arc::default(),
            ends: Arc::clone(&ends),
            connection: None,
            next_number: 0,
            rests_until: None,
        };
        let thread = sandbox.spawn(Thread::Gdb, "gdb", move || serving.serve())?;
        Ok(Self { thread, ends, wake, _listener: listener })
    }

    /// Tells a debugger that waits that the machine has ended, and ends.
    pub(crate) fn end(self) {
        self.ends.store(true, Ordering::SeqCst);
        wake(&self.wake);
        // One that has panicked has ended the process instead.
        let _ = self.thread.join();
    }
}

struct Serving {
    listener: Arc<Listener>,
    woken: UnixStream,
    wake: Arc<UnixStream>,
    remote: Remote,
    stops: Arc<Stops>,
    ends: Arc<AtomicBool>,
    connection: Option<Connection>,
    next_number: u64,
    rests_until: Option<Instant>,
}

impl Serving {
    fn serve(&mut self) {
        loop {
            if self.ends.load(Ordering::SeqCst) {
                if let Some(session) = self.connection.as_mut().and_then(|it| it.session.as_mut()) {
                    session.exited(0);
                }
                if let Some(connection) = &mut self.connection {
                    connection.flush();
                }
                return;
            }
            self.tell_stops();
            if let Some(connection) = &mut self.connection {
                connection.flush();
                if connection.is_over() {
                    self.close();
                }
            }
            self.wait();
        }
    }

    fn tell_stops(&mut self) {
        for (number, stop) in self.stops.take() {
            if let Some(connection) = self.connection.as_mut().filter(|it| it.number == number)
                && let Some(session) = &mut connection.session
                && let Err(end) = session.stopped(stop)
            {
                self.end_session(end);
            }
        }
    }

    /// Waits until something can be done, reads what has come and sends what can be sent.
    fn wait(&mut self) {
        let now = Instant::now();
        self.rests_until = self.rests_until.filter(|until| *until > now);
        let is_free = self.connection.as_ref().is_none_or(|it| !it.is_attached && it.session.is_some());
        let accepts = is_free && self.rests_until.is_none();
        let mut fds = vec![
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), if accepts { PollFlags::POLLIN } else { PollFlags::empty() }),
        ];
        if let Some(connection) = &mut self.connection {
            let waiting = connection.output().len();
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, connection.session.is_some() && waiting < MUCH);
            events.set(PollFlags::POLLOUT, waiting > 0);
            fds.push(PollFd::new(connection.socket.as_fd(), events));
        }
        let timeout = self.rests_until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(now).as_millis().saturating_add(1);
            PollTimeout::from(left.min(1000) as u16)
        });
        let events: Vec<PollFlags> = match poll(&mut fds, timeout) {
            Ok(_) => fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect(),
            Err(_) => return,
        };
        drop(fds);
        if events[0].contains(PollFlags::POLLIN) {
            let _ = recv(self.woken.as_raw_fd(), &mut [0; PIECE], MsgFlags::MSG_DONTWAIT);
        }
        if let Some(events) = events.get(2) {
            if events.contains(PollFlags::POLLIN) {
                self.read();
            } else if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                self.close();
            }
        }
        if events[1].contains(PollFlags::POLLIN) {
            self.accept();
        }
    }

    fn read(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let mut piece = [0; PIECE];
        let count = match recv(connection.socket.as_raw_fd(), &mut piece, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return self.close(),
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            Err(_) => return self.close(),
        };
        let Some(session) = &mut connection.session else { return };
        if !connection.is_attached && session.begins(piece[0]) {
            connection.is_attached = true;
            let (stops, waker, number) = (Arc::clone(&self.stops), Arc::clone(&self.wake), connection.number);
            let tell = Box::new(move |stop| {
                stops.put(number, stop);
                wake(&waker);
            });
            let (done, is_done) = mpsc::sync_channel(1);
            self.remote.handle.debug(DebugRequest::Attach(tell, done));
            // What the debugger is told is of a machine that stands. Nothing is ever sent: the other end is dropped.
            let _ = is_done.recv();
        }
        if let Err(end) = session.take(&piece[..count]) {
            self.end_session(end);
        }
    }

    /// The session has ended. What it has left to be sent is sent before the connection ends.
    fn end_session(&mut self, end: End) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(mut session) = connection.session.take() {
            connection.last = std::mem::take(session.output());
        }
        let goes_on = match end {
            End::Detached => true,
            End::Killed => {
                self.remote.handle.end(Reason::Debugger);
                return;
            }
            End::Exited => return,
            End::Broken(why) => {
                log::warn!("the debugger's connection ends: {why}");
                false
            }
        };
        if std::mem::take(&mut connection.is_attached) {
            self.remote.handle.debug(DebugRequest::Detach { goes_on });
        }
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && connection.is_attached
            && connection.session.is_some()
        {
            self.remote.handle.debug(DebugRequest::Detach { goes_on: false });
        }
    }

    fn accept(&mut self) {
        let accepted = match &*self.listener {
            Listener::Tcp(listener) => listener.accept().map(|(socket, _)| OwnedFd::from(socket)),
            Listener::Unix(listener, _) => listener.accept().map(|(socket, _)| OwnedFd::from(socket)),
        };
        let socket = match accepted {
            Ok(socket) => socket,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) =>
            {
                return;
            }
            Err(error) => {
                log::warn!("no debugger's connection is accepted: {error}");
                self.rests_until = Some(Instant::now() + REST);
                return;
            }
        };
        let session = match Session::new(self.remote.clone()) {
            Ok(session) => session,
            Err(end) => return log::warn!("no debugger is served: {end:?}"),
        };
        let number = self.next_number;
        self.next_number += 1;
        self.connection = Some(Connection {
            number,
            socket,
            session: Some(session),
            last: Vec::new(),
            is_attached: false,
            is_gone: false,
        });
    }
}
