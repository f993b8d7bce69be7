//! One connection of a debugger: bytes in, bytes out. No socket, no thread.
//!
//! Bounds: a packet has at most [`PACKET`] bytes, memory is read in pieces that fit into one, and what waits to be sent is at
//! most [`MUCH`]. Whoever sends what is no packet loses the connection.

#[cfg(test)]
mod tests;

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};

use super::target::{Debuggee, Machine, Stop};

/// The longest packet, which GDB is told.
pub const PACKET: usize = 16 << 10;
/// The most bytes that may wait to be sent: the answers to all that can be asked before they are.
pub const MUCH: usize = 4 << 20;

/// Answers that wait to be sent.
#[derive(Debug, Default)]
pub struct Outgoing(Vec<u8>);

/// They are more than are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too much to be sent")
    }
}

impl Connection for Outgoing {
    type Error = TooMuch;

    fn write(&mut self, byte: u8) -> Result<(), TooMuch> {
        self.write_all(&[byte])
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        if self.0.len() + bytes.len() > MUCH {
            return Err(TooMuch);
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TooMuch> {
        Ok(())
    }
}

/// Why a session has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The debugger has gone; the machine goes on.
    Detached,
    /// The debugger wants the machine to end.
    Killed,
    /// The machine has ended.
    Exited,
    /// The debugger has sent what cannot be.
    Broken(String),
}

/// Whether a debugger begins so.
const fn begins(byte: u8) -> bool {
    matches!(byte, b'+' | b'-' | b'$' | 3)
}

/// Looks for what the stub should not see, in the bytes on their way to it.
#[derive(Debug, Default)]
struct Guard {
    /// Something has come.
    has_begun: bool,
    /// The start of the packet that comes, if one does, and how long it is.
    packet: Option<(Vec<u8>, usize)>,
}

impl Guard {
    /// As many bytes of a packet as tell what it asks for.
    const HEAD: usize = 64;

    /// # Errors
    /// Why the connection ends.
    fn look(&mut self, byte: u8) -> Result<(), String> {
        if !std::mem::replace(&mut self.has_begun, true) && !begins(byte) {
            // Browsers can be made to send anything to a port, but not as the first byte.
            return Err("what connects is no debugger".to_owned());
        }
        match (&mut self.packet, byte) {
            (None, b'$') => self.packet = Some((Vec::new(), 0)),
            (None, _) => {}
            (Some((packet, _)), b'#') => {
                let longest = PACKET as u64 / 2;
                if length_of_read(packet).is_some_and(|len| len > longest) {
                    return Err(format!("more than {longest} bytes of memory are asked for at once"));
                }
                self.packet = None;
            }
            (Some((packet, len)), _) => {
                // The stub's own buffer would grow. With its frame a packet has four bytes more.
                *len += 1;
                if *len > PACKET - 4 {
                    return Err(format!("a packet has more than {PACKET} bytes"));
                }
                if packet.len() < Self::HEAD {
                    packet.push(byte);
                }
            }
        }
        Ok(())
    }
}

/// How many bytes a packet asks for, if it reads memory: `m ADDRESS , LENGTH`, and whatever may follow. What is no number
/// counts as more than there can be.
fn length_of_read(packet: &[u8]) -> Option<u64> {
    let len = packet.strip_prefix(b"m")?.split(|byte| *byte == b',').nth(1)?;
    let digits = std::str::from_utf8(len).ok().and_then(|len| u64::from_str_radix(len, 16).ok());
    Some(digits.unwrap_or(u64::MAX))
}

type Stub<D> = GdbStubStateMachine<'static, Machine<D>, Outgoing>;

/// See the module.
pub struct Session<D: Debuggee> {
    machine: Machine<D>,
    /// There until the session ends.
    stub: Option<Stub<D>>,
    guard: Guard,
    /// What the stub had not sent when it went.
    last: Outgoing,
}

impl<D: Debuggee> Session<D> {
    /// A debugger of this machine, which stands.
    ///
    /// # Errors
    /// [`End::Broken`], never.
    pub fn new(debuggee: D) -> Result<Self, End> {
        let mut machine = Machine::new(debuggee);
        let stub = GdbStub::builder(Outgoing::default()).packet_buffer_size(PACKET).build();
        let stub = stub.map_err(|error| End::Broken(format!("{error:?}")))?;
        let stub = stub.run_state_machine(&mut machine).map_err(|error| End::Broken(error.to_string()))?;
        Ok(Self { machine, stub: Some(stub), guard: Guard::default(), last: Outgoing::default() })
    }

    /// Whether what has come first is a debugger's.
    #[must_use]
    pub fn begins(&self, first: u8) -> bool {
        begins(first)
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// The end. What is [`Self::output`] then is the last of it.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), End> {
        for byte in bytes {
            self.guard.look(*byte).map_err(End::Broken)?;
            let next = match self.stub.take().ok_or(End::Exited)? {
                GdbStubStateMachine::Idle(stub) => stub.incoming_data(&mut self.machine, *byte),
                GdbStubStateMachine::Running(stub) => {
                    let next = stub.incoming_data(&mut self.machine, *byte);
                    if let Ok(GdbStubStateMachine::CtrlCInterrupt(_)) = next {
                        // Its stop is told as any other.
                        self.machine.debuggee().interrupt();
                    }
                    next
                }
                other => Ok(other),
            };
            self.go_on(next.map_err(|error| End::Broken(error.to_string()))?)?;
        }
        Ok(())
    }

    /// The machine stands. Tells a debugger that waits for it.
    ///
    /// # Errors
    /// The end.
    pub fn stopped(&mut self, stop: Stop) -> Result<(), End> {
        let reason = self.machine.reason(stop);
        self.report(reason)
    }

    /// The machine has ended, with this exit status.
    pub fn exited(&mut self, status: u8) {
        // The end is no news.
        let _ = self.report(MultiThreadStopReason::Exited(status));
    }

    fn report(&mut self, reason: MultiThreadStopReason<u64>) -> Result<(), End> {
        let next = match self.stub.take().ok_or(End::Exited)? {
            GdbStubStateMachine::Running(stub) => stub.report_stop(&mut self.machine, reason),
            other => Ok(other),
        };
        self.go_on(next.map_err(|error| End::Broken(error.to_string()))?)
    }

    fn go_on(&mut self, stub: Stub<D>) -> Result<(), End> {
        self.stub = Some(match stub {
            GdbStubStateMachine::CtrlCInterrupt(stub) => {
                let none = None::<MultiThreadStopReason<u64>>;
                stub.interrupt_handled(&mut self.machine, none)
                    .map_err(|error| End::Broken(error.to_string()))?
            }
            GdbStubStateMachine::Disconnected(mut stub) => {
                self.last = std::mem::take(stub.borrow_conn());
                return Err(match stub.get_reason() {
                    DisconnectReason::Disconnect => End::Detached,
                    DisconnectReason::Kill => End::Killed,
                    DisconnectReason::TargetExited(_) | DisconnectReason::TargetTerminated(_) => End::Exited,
                });
            }
            other => other,
        });
        Ok(())
    }

    /// What is to be sent. Whoever sends it takes it out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        match &mut self.stub {
            Some(GdbStubStateMachine::Idle(stub)) => &mut stub.borrow_conn().0,
            Some(GdbStubStateMachine::Running(stub)) => &mut stub.borrow_conn().0,
            Some(GdbStubStateMachine::CtrlCInterrupt(stub)) => &mut stub.borrow_conn().0,
            Some(GdbStubStateMachine::Disconnected(stub)) => &mut stub.borrow_conn().0,
            None => &mut self.last.0,
        }
    }
}
