//! Unix sockets that listen under a name.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

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
