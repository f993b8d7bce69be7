//! Watches over a running machine until there is a reason to end it: the guest's wish, a time limit, a signal, a key. One
//! epoll loop on the main thread, which also passes standard input on. `docs/console.md`

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use nix::errno::Errno;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::engine::Exit;
use crate::exit::Status;
use crate::host::signals::{Arrived, Signals};
use crate::host::terminal::{EscapeKey, Key, Terminal};

/// Why the machine ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The guest asked for it.
    Guest(Exit),
    /// The guest's kernel panicked, and asked for a reset therefore.
    Panic,
    /// The time limit passed.
    Timeout,
    /// A signal asks for this status.
    Signal(Status),
    /// The escape key.
    Quit,
    /// Somebody at the control socket.
    Control,
    /// A debugger, by `kill`.
    Debugger,
    /// Something of ours broke; a line for the user.
    Broken(String),
    /// A thread has panicked and stands still with the locks that it holds; a line for the user. Nobody is to be waited for.
    Crashed(String),
}

impl Reason {
    /// Whether the machine could go on: it ends because somebody outside wants it so.
    #[must_use]
    pub const fn leaves_the_machine_whole(&self) -> bool {
        matches!(self, Self::Timeout | Self::Signal(_) | Self::Quit | Self::Control)
    }
}

/// Tells the supervisor to end the machine; the first reason counts.
#[derive(Debug)]
pub struct StopSwitch {
    reason: Mutex<Option<Reason>>,
    event: EventFd,
}

impl StopSwitch {
    /// A switch that nobody has pressed.
    ///
    /// # Errors
    /// If the host gives no descriptor.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { reason: Mutex::default(), event: EventFd::new(EFD_NONBLOCK)? }))
    }

    /// Asks for the end. From any thread.
    pub fn stop(&self, reason: Reason) {
        let mut first = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some(reason);
        }
        drop(first);
        // Only a counter at its maximum refuses, and then the event is pending anyway.
        let _ = self.event.write(1);
    }

    /// The first reason, if any.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl AsRawFd for StopSwitch {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

/// Where typed bytes go.
pub trait ConsoleInput: Send {
    /// Takes as many bytes as there is room for and returns how many.
    fn receive(&self, bytes: &[u8]) -> usize;

    /// Becomes readable when there is room again after a `receive` that did not take everything.
    fn room(&self) -> &EventFd;
}

/// What the supervisor listens to.
pub struct Inputs<'a> {
    /// Signals, blocked before.
    pub signals: &'a Signals,
    /// Ends the machine after this long.
    pub timeout: Option<Duration>,
    /// Standard input, and the guest's console that it is for.
    pub console: Option<(BorrowedFd<'a>, Box<dyn ConsoleInput>)>,
    /// Standard input is this terminal, so that the escape key counts.
    pub terminal: Option<&'a mut Terminal>,
    /// Called several times a second while the machine runs.
    pub tick: Option<Box<dyn FnMut() + 'a>>,
}

const TICK: Duration = Duration::from_millis(100);

/// Waits until the switch is pressed, pressing it itself on signal, time limit or key. `on_save` is called at the signal that asks
/// for a save.
///
/// # Errors
/// If the host's epoll fails.
pub fn supervise(switch: &Arc<StopSwitch>, inputs: Inputs<'_>, on_save: &dyn Fn()) -> io::Result<Reason> {
    let other = |e: event_manager::Error| io::Error::other(e.to_string());
    let mut events: EventManager<Box<dyn MutEventSubscriber + '_>> = EventManager::new().map_err(other)?;
    events.add_subscriber(Box::new(Wake(switch.event.as_raw_fd(), Arc::clone(switch))));
    let watch = SignalWatch { signals: inputs.signals, switch: Arc::clone(switch), on_save };
    events.add_subscriber(Box::new(watch));
    if let Some(limit) = inputs.timeout {
        let mut timer = TimerFd::new()?;
        timer.reset(limit, None)?;
        events.add_subscriber(Box::new(Limit { timer, switch: Arc::clone(switch) }));
    }
    if let Some((input, console)) = inputs.console {
        events.add_subscriber(Box::new(Stdin {
            input,
            console,
            terminal: inputs.terminal,
            keys: EscapeKey::default(),
            source: Source::Polled,
            is_listening: false,
            typed: Vec::new(),
            taken: 0,
            switch: Arc::clone(switch),
        }));
    }
    let mut tick = inputs.tick;
    let wait_ms = if tick.is_some() { TICK.as_millis() as i32 } else { -1 };
    loop {
        if let Some(reason) = switch.reason() {
            return Ok(reason);
        }
        events.run_with_timeout(wait_ms).map_err(other)?;
        if let Some(tick) = &mut tick {
            tick();
        }
    }
}

fn listen(ops: &mut EventOps<'_>, fd: RawFd, switch: &StopSwitch) {
    if let Err(e) = ops.add(Events::new_raw(fd, EventSet::IN)) {
        switch.stop(Reason::Broken(format!("cannot wait for events: {e}")));
    }
}

/// Returns from epoll when the switch is pressed.
struct Wake(RawFd, Arc<StopSwitch>);

impl MutEventSubscriber for Wake {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        let _ = self.1.event.read();
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        listen(ops, self.0, &self.1);
    }
}

struct SignalWatch<'a> {
    signals: &'a Signals,
    switch: Arc<StopSwitch>,
    on_save: &'a dyn Fn(),
}

impl MutEventSubscriber for SignalWatch<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        match self.signals.arrived() {
            Some(Arrived::End(status)) => self.switch.stop(Reason::Signal(status)),
            Some(Arrived::Save) => (self.on_save)(),
            None => {}
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        listen(ops, self.signals.as_raw_fd(), &self.switch);
    }
}

struct Limit {
    timer: TimerFd,
    switch: Arc<StopSwitch>,
}

impl MutEventSubscriber for Limit {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // It is not read: its first expiry is the end.
        self.switch.stop(Reason::Timeout);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        listen(ops, self.timer.as_raw_fd(), &self.switch);
    }
}

/// Bytes read at once. No more than these are ever kept.
const CHUNK: usize = 4096;

/// How standard input can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// When epoll says so.
    Polled,
    /// At any time: epoll refuses regular files, /dev/null and their like, whose reads don't wait.
    AtAnyTime,
    /// It has come to its end.
    Ended,
}

/// Standard input on its way to the guest: read in chunks, the next one when the UART has taken the last, so that whoever
/// writes is held up by the guest and nothing is stored here. Without a buffer of the library's, which epoll would not see.
///
/// A terminal is read at all times, because the escape key must work whatever the guest does; what is typed beyond a chunk while the
/// guest takes nothing is not taken either.
struct Stdin<'a> {
    input: BorrowedFd<'a>,
    console: Box<dyn ConsoleInput>,
    terminal: Option<&'a mut Terminal>,
    keys: EscapeKey,
    source: Source,
    /// Standard input is in the epoll set.
    is_listening: bool,
    /// What was read last, and how much of it the UART has taken.
    typed: Vec<u8>,
    taken: usize,
    switch: Arc<StopSwitch>,
}

impl Stdin<'_> {
    fn offer(&mut self) {
        if !self.is_empty() {
            self.taken += self.console.receive(&self.typed[self.taken..]);
        }
    }

    fn is_empty(&self) -> bool {
        self.taken >= self.typed.len()
    }

    /// Whether there is a reason to read on.
    fn wants_more(&self) -> bool {
        self.is_empty() || self.terminal.is_some()
    }

    /// Reads once. To be called with nothing left of the last read, unless it is a terminal.
    fn read(&mut self) {
        self.typed.drain(..self.taken);
        self.taken = 0;
        let mut chunk = [0; CHUNK];
        let count = match nix::unistd::read(self.input, &mut chunk) {
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => return,
            // The terminal has just been given to another process group.
            Err(Errno::EIO) if self.has_lost_terminal() => return,
            Err(_) => 0,
        };
        if count == 0 {
            // End of input is not the end of the machine: the guest goes on with a silent line.
            self.source = Source::Ended;
            return;
        }
        let chunk = &chunk[..count];
        if self.terminal.is_none() {
            self.typed.extend_from_slice(chunk);
            return;
        }
        for key in self.keys.feed(chunk) {
            match key {
                Key::Guest(bytes) if self.typed.len() + bytes.len() > CHUNK => eprint!("\x07"),
                Key::Guest(bytes) => self.typed.extend(bytes),
                Key::Quit => self.switch.stop(Reason::Quit),
                Key::Help => {
                    eprint!("\r\nCtrl-A X: leave   Ctrl-A Ctrl-A: send Ctrl-A   Ctrl-A H: this list\r\n")
                }
            }
        }
    }

    fn has_lost_terminal(&mut self) -> bool {
        self.terminal.as_mut().is_some_and(|terminal| matches!(terminal.take(), Ok(false)))
    }

    /// Goes on as far as possible without waiting, and listens for what it then waits for.
    fn go_on(&mut self, ops: &mut EventOps<'_>) {
        self.offer();
        if self.source == Source::AtAnyTime && self.is_empty() {
            self.read();
            self.offer();
            if self.source == Source::AtAnyTime && self.is_empty() {
                // Comes back after the other events have had their turn.
                let _ = self.console.room().write(1);
            }
        }
        let is_ours = self.terminal.as_ref().is_none_or(|terminal| terminal.is_ours());
        let listens = self.source == Source::Polled && self.wants_more() && is_ours;
        if listens != self.is_listening {
            self.is_listening = listens;
            let input = self.input.as_raw_fd();
            if listens {
                listen(ops, input, &self.switch);
            } else {
                // One that has been closed meanwhile is no longer in the set.
                let _ = ops.remove(Events::new_raw(input, EventSet::IN));
            }
        }
    }
}

impl MutEventSubscriber for Stdin<'_> {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let fd = events.fd();
        if fd == self.input.as_raw_fd() {
            if self.wants_more() {
                self.read();
            }
        } else if fd == self.console.room().as_raw_fd() {
            let _ = self.console.room().read();
        } else if let Some(terminal) = &mut self.terminal {
            // A terminal that has gone away is found out by reading it.
            let _ = terminal.take();
        }
        self.go_on(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        listen(ops, self.console.room().as_raw_fd(), &self.switch);
        for fd in self.terminal.iter().flat_map(|terminal| terminal.events()) {
            listen(ops, fd, &self.switch);
        }
        self.is_listening = ops.add(Events::new_raw(self.input.as_raw_fd(), EventSet::IN)).is_ok();
        if !self.is_listening {
            self.source = Source::AtAnyTime;
        }
        self.go_on(ops);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn first_reason_counts_and_ends_the_wait() {
        let switch = StopSwitch::new().unwrap();
        let signals = Signals::block().unwrap();
        switch.stop(Reason::Guest(Exit::SystemOff));
        switch.stop(Reason::Panic);
        let inputs = Inputs { signals: &signals, timeout: None, console: None, terminal: None, tick: None };
        assert_eq!(supervise(&switch, inputs, &|| {}).unwrap(), Reason::Guest(Exit::SystemOff));
    }

    #[test]
    fn time_limit_ends_the_wait() {
        let switch = StopSwitch::new().unwrap();
        let signals = Signals::block().unwrap();
        let mut ticks = 0;
        let inputs = Inputs {
            signals: &signals,
            timeout: Some(Duration::from_millis(250)),
            console: None,
            terminal: None,
            tick: Some(Box::new(|| ticks += 1)),
        };
        assert_eq!(supervise(&switch, inputs, &|| {}).unwrap(), Reason::Timeout);
        assert!(ticks > 0);
    }

    /// What the console of [`typed_at`] has seen.
    #[derive(Debug, Default)]
    struct Seen {
        offers: AtomicUsize,
        largest_offer: AtomicUsize,
        taken: AtomicUsize,
    }

    /// A UART whose guest reads until it has enough, and then ends the machine.
    struct SlowUart {
        seen: Arc<Seen>,
        enough: usize,
        room: EventFd,
        switch: Arc<StopSwitch>,
    }

    const FIFO: usize = 16;

    impl ConsoleInput for SlowUart {
        fn receive(&self, bytes: &[u8]) -> usize {
            let seen = &self.seen;
            seen.offers.fetch_add(1, Ordering::Relaxed);
            seen.largest_offer.fetch_max(bytes.len(), Ordering::Relaxed);
            let left = self.enough - seen.taken.load(Ordering::Relaxed);
            let now = bytes.len().min(FIFO).min(left);
            seen.taken.fetch_add(now, Ordering::Relaxed);
            if now == left {
                self.switch.stop(Reason::Guest(Exit::SystemOff));
            } else if now < bytes.len() {
                self.room.write(1).unwrap();
            }
            now
        }

        fn room(&self) -> &EventFd {
            &self.room
        }
    }

    fn typed_at(input: BorrowedFd<'_>, enough: usize) -> Arc<Seen> {
        let switch = StopSwitch::new().unwrap();
        let signals = Signals::block().unwrap();
        let seen = Arc::<Seen>::default();
        let room = EventFd::new(EFD_NONBLOCK).unwrap();
        let uart = SlowUart { seen: Arc::clone(&seen), enough, room, switch: Arc::clone(&switch) };
        let console = Some((input, Box::new(uart) as Box<dyn ConsoleInput>));
        let inputs = Inputs { signals: &signals, timeout: None, console, terminal: None, tick: None };
        assert_eq!(supervise(&switch, inputs, &|| {}).unwrap(), Reason::Guest(Exit::SystemOff));
        seen
    }

    /// Its time is linear in the length: each byte is read once, an offer has at most a chunk of them, and offers are as
    /// many as the FIFO has to be filled.
    #[test]
    fn file_is_offered_in_chunks_and_as_often_as_the_fifo_has_room() {
        for chunks in [4, 16, 64] {
            let mut file = tempfile::tempfile().unwrap();
            let len = chunks * CHUNK;
            file.write_all(&vec![b'x'; len]).unwrap();
            file.rewind().unwrap();
            let seen = typed_at(file.as_fd(), len);
            assert_eq!(seen.taken.load(Ordering::Relaxed), len);
            assert_eq!(seen.largest_offer.load(Ordering::Relaxed), CHUNK);
            assert_eq!(seen.offers.load(Ordering::Relaxed), len / FIFO, "{chunks} chunks");
        }
    }

    /// What the guest does not take stays with whoever writes.
    #[test]
    fn input_is_read_no_further_than_a_chunk_beyond_what_the_guest_has_taken() {
        const LEN: usize = 8 * CHUNK;
        for enough in [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[b'x'; LEN]).unwrap();
            file.rewind().unwrap();
            typed_at(file.as_fd(), enough);
            let position = file.stream_position().unwrap() as usize;
            assert!(position <= enough + CHUNK, "{enough} of the file: {position}");

            let (reader, writer) = nix::unistd::pipe().unwrap();
            File::from(writer).write_all(&[b'x'; LEN]).unwrap();
            typed_at(reader.as_fd(), enough);
            let left = File::from(reader).read_to_end(&mut Vec::new()).unwrap();
            assert!(LEN - left <= enough + CHUNK, "{enough} of the pipe: {left} left");
        }
    }
}
