//! Unix sockets that listen under a name, and what servers of connections share: to be woken, and to send without waiting.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, umask};

/// The name of a socket, which goes when this does.
#[derive(Debug)]
pub struct Name(PathBuf);

impl Name {
    /// It.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The folder in which it is removed at the end.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        match self.0.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::info!("the socket {:?} cannot be removed: {error}", self.0);
        }
    }
}

/// Makes a socket that nobody but its owner can connect to, and that does not wait. What is there already stays, but for a
/// socket to which nobody listens any more. To be called before the first thread: it changes the process's umask for a moment.
///
/// # Errors
/// Why not.
pub fn bind(path: &Path) -> Result<(Name, UnixListener), String> {
    remove_stale(path)?;
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener.map_err(|e| e.to_string())?;
    let name = Name(path.to_owned());
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok((name, listener))
}

/// Removes a socket to which nobody listens.
fn remove_stale(path: &Path) -> Result<(), String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !found.file_type().is_socket() {
        return Err("something else has this name, and is not overwritten".to_owned());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err("another process listens there".to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e: io::Error| e.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Wakes a server that reads from the other end. A socket that is full wakes as well.
pub(crate) fn wake(waker: &UnixStream) {
    let _ = send(waker.as_raw_fd(), &[0], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

/// Sends as much of `output` as a socket takes without waiting, and takes it out.
///
/// # Errors
/// If the connection has ended.
pub(crate) fn send_some(socket: BorrowedFd<'_>, output: &mut Vec<u8>) -> Result<(), Errno> {
    while !output.is_empty() {
        match send(socket.as_raw_fd(), output, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => drop(output.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
