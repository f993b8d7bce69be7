//! Signals that end the program, taken as events instead of handlers, and those that must not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Status;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// To exit with this status.
    End(Status),
    /// To save the machine.
    Save,
}

/// SIGINT, SIGTERM and SIGHUP, and SIGUSR1 where it means something, blocked in every thread and read from a descriptor.
///
/// Those that whoever started the program has it ignore stay ignored: `nohup` and a shell's `&` mean it.
#[derive(Debug)]
pub struct Signals {
    taken: SigSet,
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals in this thread and in all that it will start. To be called before the first thread.
    ///
    /// Also blocked, so that the terminal never stops a process in its background: a stopped process ends on no signal but
    /// SIGKILL. What it writes to a terminal then appears there (`stty tostop` has no effect), and what it reads is an error.
    ///
    /// # Errors
    /// The host's.
    pub fn block() -> io::Result<Self> {
        Self::block_with(&[])
    }

    /// The same, and the signal that asks for a save.
    ///
    /// # Errors
    /// The host's.
    pub fn block_with_save() -> io::Result<Self> {
        Self::block_with(&[Signal::SIGUSR1])
    }

    fn block_with(more: &[Signal]) -> io::Result<Self> {
        let mut taken = SigSet::empty();
        for &signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].iter().chain(more) {
            if !is_ignored(signal)? {
                taken.add(signal);
            }
        }
        taken.thread_block()?;
        SigSet::from_iter([Signal::SIGTTIN, Signal::SIGTTOU]).thread_block()?;
        let fd = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { taken, fd })
    }

    /// Lets the signals end the process, as they do by default, from the calling thread's point of view: before it waits
    /// where nothing listens to the descriptor, with nothing left to put in order.
    ///
    /// # Errors
    /// The host's.
    pub fn let_through(&self) -> io::Result<()> {
        Ok(self.taken.thread_unblock()?)
    }

    /// What an arrived signal asks for.
    #[must_use]
    pub fn arrived(&self) -> Option<Arrived> {
        let info = self.fd.read_signal().ok().flatten()?;
        Some(match Signal::try_from(info.ssi_signo as i32) {
            Ok(Signal::SIGINT) => Arrived::End(Status::Interrupted),
            Ok(Signal::SIGUSR1) => Arrived::Save,
            _ => Arrived::End(Status::Terminated),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    // SAFETY: the structure is of integers, and a function that may be absent: zeros are a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call only writes the present one.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &mut action) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// From here on a write beyond the limit on the size of files (`ulimit -f`) is an error, EFBIG, like a full disk, and is
/// reported like one. Without this the process would be killed on the spot, and leave a terminal in raw mode.
///
/// # Errors
/// The host's.
pub fn report_file_size_limit() -> io::Result<()> {
    // SAFETY: to ignore a signal installs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}
