//! Watches over a running machine until there is a reason to end it: the guest's wish, a panic, a time limit, a
//! signal, a key. One epoll loop on the main thread.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::engine::Exit;
use crate::exit::Status;
use crate::host::signals::Signals;
use crate::host::terminal::{EscapeKey, Key};

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
    /// Something of ours broke; a line for the user.
    Broken(String),
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
    /// Standard input for the guest's console.
    pub console: Option<Box<dyn ConsoleInput>>,
    /// Standard input is a terminal, so that the escape key counts.
    pub escape_key: bool,
    /// Called several times a second while the machine runs.
    pub tick: Option<Box<dyn FnMut() + 'a>>,
}

const TICK: Duration = Duration::from_millis(100);

/// Waits until the switch is pressed, pressing it itself on signal, time limit or key.
///
/// # Errors
/// If the host's epoll fails.
pub fn supervise(switch: &Arc<StopSwitch>, inputs: Inputs<'_>) -> io::Result<Reason> {
    let other = |e: event_manager::Error| io::Error::other(e.to_string());
    let mut events: EventManager<Box<dyn MutEventSubscriber + '_>> = EventManager::new().map_err(other)?;
    events.add_subscriber(Box::new(Wake(switch.event.as_raw_fd(), Arc::clone(switch))));
    events.add_subscriber(Box::new(SignalWatch { signals: inputs.signals, switch: Arc::clone(switch) }));
    if let Some(limit) = inputs.timeout {
        let mut timer = TimerFd::new()?;
        timer.reset(limit, None)?;
        events.add_subscriber(Box::new(Limit { timer, switch: Arc::clone(switch) }));
    }
    if let Some(console) = inputs.console {
        events.add_subscriber(Box::new(Stdin {
            console,
            keys: inputs.escape_key.then(EscapeKey::default),
            waiting: Vec::new(),
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
}

impl MutEventSubscriber for SignalWatch<'_> {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        if let Some(status) = self.signals.arrived() {
            self.switch.stop(Reason::Signal(status));
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
        let _ = self.timer.wait();
        self.switch.stop(Reason::Timeout);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        listen(ops, self.timer.as_raw_fd(), &self.switch);
    }
}

const STDIN: RawFd = 0;

struct Stdin {
    console: Box<dyn ConsoleInput>,
    keys: Option<EscapeKey>,
    /// Typed, but the UART has no room yet. Standard input is not read meanwhile.
    waiting: Vec<u8>,
    switch: Arc<StopSwitch>,
}

impl Stdin {
    fn offer(&mut self) {
        let taken = self.console.receive(&self.waiting);
        self.waiting.drain(..taken);
    }

    fn read(&mut self, ops: &mut EventOps<'_>) {
        let mut typed = [0; 4096];
        let count = match io::stdin().lock().read(&mut typed) {
            Ok(count) => count,
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => return,
            Err(_) => 0,
        };
        if count == 0 {
            // End of input is not the end of the machine: the guest goes on with a silent line.
            let _ = ops.remove(Events::new_raw(STDIN, EventSet::IN));
            return;
        }
        let typed = &typed[..count];
        let Some(keys) = &mut self.keys else {
            self.waiting.extend_from_slice(typed);
            return;
        };
        for key in keys.feed(typed) {
            match key {
                Key::Guest(bytes) => self.waiting.extend(bytes),
                Key::Quit => self.switch.stop(Reason::Quit),
                Key::Help => {
                    eprint!("\r\nCtrl-A X: leave   Ctrl-A Ctrl-A: send Ctrl-A   Ctrl-A H: this list\r\n")
                }
            }
        }
    }
}

impl MutEventSubscriber for Stdin {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let stdin = Events::new_raw(STDIN, EventSet::IN);
        if events.fd() == STDIN {
            self.read(ops);
            self.offer();
            if !self.waiting.is_empty() {
                let _ = ops.remove(stdin);
            }
            return;
        }
        let _ = self.console.room().read();
        if !self.waiting.is_empty() {
            self.offer();
            if self.waiting.is_empty() {
                let _ = ops.add(stdin);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        listen(ops, self.console.room().as_raw_fd(), &self.switch);
        // epoll refuses regular files and /dev/null: such an input is read to its end at once.
        if ops.add(Events::new_raw(STDIN, EventSet::IN)).is_err() {
            let mut all = Vec::new();
            if io::stdin().lock().read_to_end(&mut all).is_ok() {
                self.waiting = all;
                self.offer();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_reason_counts_and_ends_the_wait() {
        let switch = StopSwitch::new().unwrap();
        let signals = Signals::block().unwrap();
        switch.stop(Reason::Guest(Exit::SystemOff));
        switch.stop(Reason::Panic);
        let inputs =
            Inputs { signals: &signals, timeout: None, console: None, escape_key: false, tick: None };
        assert_eq!(supervise(&switch, inputs).unwrap(), Reason::Guest(Exit::SystemOff));
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
            escape_key: false,
            tick: Some(Box::new(|| ticks += 1)),
        };
        assert_eq!(supervise(&switch, inputs).unwrap(), Reason::Timeout);
        assert!(ticks > 0);
    }
}
