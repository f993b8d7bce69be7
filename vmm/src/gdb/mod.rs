//! The server for GDB: vCPUs as threads, registers, memory, breakpoints. `docs/debugging.md` has how it is used.
//!
//! [`session`] speaks the protocol, by the crate `gdbstub`, from bytes to bytes and without any socket; [`target`] is what it asks of
//! a machine, [`registers`] which registers there are, `monitor` the commands behind `monitor`. `server` is the thread.
//! [`address`] and here: where it listens, which is there before the first thread.
//!
//! Whoever connects can read and change everything in the guest, and nothing of the host: packets and answers are bounded,
//! the server waits for nobody, and the machine's thread does not wait for it.

pub mod address;
pub(crate) mod monitor;
pub mod registers;
pub(crate) mod server;
pub mod session;
pub mod target;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::sys::socket::{setsockopt, sockopt};

use crate::exit::Failed;
use crate::gdb::address::Address;
use crate::host::socket;

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, socket::Name),
}

/// A socket that listens for a debugger.
#[derive(Debug)]
pub struct Socket {
    listener: Listener,
    /// Wakes the server: a byte for it to read.
    wake: (UnixStream, UnixStream),
}

impl Socket {
    /// Makes it. To be called before the first thread: it may change the process's umask for a moment.
    ///
    /// # Errors
    /// A line for the user.
    pub fn bind(address: &Address) -> Result<Option<Self>, Failed> {
        let failed =
            |e: &dyn std::fmt::Display| Failed::new(format!("cannot listen for gdb at {address}: {e}"));
        let listener = match address {
            Address::None => return Ok(None),
            Address::Tcp(ip, port) => {
                let listener = TcpListener::bind(SocketAddr::new(*ip, *port)).map_err(|e| failed(&e))?;
                // Connections inherit it: packets are small and each waits for its answer.
                setsockopt(&listener, sockopt::TcpNoDelay, &true).map_err(|e| failed(&e))?;
                listener.set_nonblocking(true).map_err(|e| failed(&e))?;
                Listener::Tcp(listener)
            }
            Address::Unix(path) => {
                let (name, listener) = socket::bind(path).map_err(|why| failed(&why))?;
                Listener::Unix(listener, name)
            }
        };
        let wake = UnixStream::pair().map_err(|e| failed(&e))?;
        Ok(Some(Self { listener, wake }))
    }

    /// What to tell GDB.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.listener {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            Listener::Unix(_, name) => name.path().display().to_string(),
        }
    }

    /// The folder in which its name is removed at the end, if it has one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        match &self.listener {
            Listener::Tcp(_) => None,
            Listener::Unix(_, name) => Some(name.folder()),
        }
    }

    /// What its server accepts connections from.
    pub(crate) fn listener_fd(&self) -> RawFd {
        self.listener.as_fd().as_raw_fd()
    }

    /// What other threads wake its server by.
    pub(crate) fn wake_fd(&self) -> RawFd {
        self.wake.0.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn socket_listens_where_it_says_and_a_file_is_its_owners_alone() {
        let socket = Socket::bind(&"0".parse().unwrap()).unwrap().unwrap();
        assert!(socket.place().starts_with("127.0.0.1:"));
        TcpStream::connect(socket.place()).unwrap();
        assert_eq!(socket.folder(), None);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gdb");
        let socket = Socket::bind(&Address::Unix(path.clone())).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(socket.folder().as_deref(), Some(folder.path()));
        drop(socket);
        assert!(!path.exists());
        assert!(Socket::bind(&Address::None).unwrap().is_none());
    }
}
