//! Signals that end the program, taken as events instead of handlers.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Status;

/// SIGINT, SIGTERM and SIGHUP, blocked in every thread and read from a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals in this thread and in all that it will start. To be called before the first thread.
    ///
    /// # Errors
    /// The host's.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self { fd: SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)? })
    }

    /// The status that an arrived signal asks to exit with.
    #[must_use]
    pub fn arrived(&self) -> Option<Status> {
        let info = self.fd.read_signal().ok().flatten()?;
        Some(match Signal::try_from(info.ssi_signo as i32) {
            Ok(Signal::SIGINT) => Status::Interrupted,
            _ => Status::Terminated,
        })
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
