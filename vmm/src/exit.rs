//! How the program ends: exit statuses, and the errors behind them.

use std::fmt;

/// The program's exit statuses, as documented in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The guest powered itself off; the job is done.
    Success = 0,
    /// Our own or the host's trouble: one line says what to do.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The guest reset itself: because its kernel panicked, or otherwise.
    GuestPanic = 3,
    /// The time limit passed.
    Timeout = 124,
    /// Interrupted by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM or SIGHUP.
    Terminated = 143,
}

/// An error that knows the status to exit with.
#[derive(Debug)]
pub struct Failed {
    /// The status.
    pub status: Status,
    /// One line for people.
    pub message: String,
}

impl Failed {
    /// An error with the general status.
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: Status::Failure, message: message.into() }
    }

    /// An error with a status of its own.
    pub fn with_status(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

/// The status to exit with after an error.
#[must_use]
pub fn status(error: &anyhow::Error) -> Status {
    error.downcast_ref::<Failed>().map_or(Status::Failure, |failed| failed.status)
}

/// An error and its causes as one line. A message that already ends with its cause, as those of some libraries do, is not
/// followed by it once more.
#[must_use]
pub fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open it: {source}")]
    struct Twice {
        source: io::Error,
    }

    #[test]
    fn line_has_every_cause_once() {
        let source = || io::Error::from_raw_os_error(libc::EISDIR);
        let error = Err::<(), _>(Twice { source: source() }).context("no drive").unwrap_err();
        assert_eq!(line(&error), "no drive: cannot open it: Is a directory (os error 21)");
        let error = Err::<(), _>(source()).context("no drive").unwrap_err();
        assert_eq!(line(&error), "no drive: Is a directory (os error 21)");
    }
}
