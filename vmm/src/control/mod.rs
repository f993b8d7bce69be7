//! The control socket: a running machine is asked and told from outside. `docs/control.md` has the protocol.
//!
//! [`protocol`] reads requests and writes answers, [`methods`] is the table of what can be asked for, [`mod@reference`] its document, [`lines`]
//! cuts what comes into lines of a bounded length, `server` is the thread that serves connections, `line` the guest's serial line
//! for it, [`client`] the `ctl` subcommand and [`terminal`] its `console`. Here: the socket itself, which is there before the
//! first thread and gone with the process.
//!
//! Whoever connects may do anything wrong: the server's memory is bounded, it waits for nobody, and the guest does not wait
//! for it.

pub mod client;
pub(crate) mod line;
pub mod lines;
pub mod methods;
mod passed;
pub mod protocol;
pub mod reference;
pub(crate) mod server;
pub mod terminal;

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::exit::Failed;
use crate::host::socket::{self, Name};

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    name: Name,
    listener: UnixListener,
    /// Wakes the server: a byte for it to read.
    wake: (UnixStream, UnixStream),
}

impl Socket {
    /// Makes a socket that nobody but its owner can connect to. What is there already stays, but for a socket to which
    /// nobody listens any more. To be called before the first thread: it changes the process's umask for a moment.
    ///
    /// # Errors
    /// A line for the user.
    pub fn bind(path: &Path) -> Result<Self, Failed> {
        let failed = |why: &dyn std::fmt::Display| {
            Failed::new(format!("cannot make the control socket {path:?}: {why}"))
        };
        let (name, listener) = socket::bind(path).map_err(|why| failed(&why))?;
        let wake = UnixStream::pair().map_err(|e| failed(&e))?;
        Ok(Self { name, listener, wake })
    }

    /// The folder in which its name is removed at the end.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.name.folder()
    }

    /// What its server accepts connections from.
    pub(crate) fn listener_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// What other threads wake its server by.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.wake.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn socket_is_its_owners_alone_and_its_name_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.folder(), folder.path());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn only_a_socket_to_which_nobody_listens_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Socket::bind(path).unwrap_err().message;
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path).unwrap();
        assert!(refused(&path).ends_with("another process listens there"));
        UnixStream::connect(&path).unwrap();
        drop(socket);

        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(refused(&file).contains("is not overwritten"));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(refused(&link).contains("is not overwritten"));
        assert!(refused(&folder.path().join("no folder/socket")).contains("No such file"));
        assert!(refused(&folder.path().join("x".repeat(200))).contains("SUN_LEN"));
    }
}
