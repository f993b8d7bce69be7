//! Bytes from a connection, and the descriptors that its client has passed with them (SCM_RIGHTS).

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Room for the descriptors of one message. More than fit are closed by the kernel.
const ROOM: usize = 64;

#[repr(align(8))]
struct Control([u8; ROOM]);

/// Receives once, without waiting: how many bytes, and what was passed.
///
/// By hand, because what has been passed must be owned whatever else is wrong with the message: nobody else would close it.
///
/// # Errors
/// The host's.
pub(super) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; ROOM]);
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: a structure of integers and pointers that may be null.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = ROOM as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header describes one piece and the control buffer, both of which live on.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    let mut passed = Vec::new();
    // SAFETY: the kernel has filled the control buffer up to `msg_controllen`, and the macros stay within it.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&header) };
    while !message.is_null() {
        // SAFETY: not null, so it is a whole header in the buffer, which is aligned for it.
        let part = unsafe { &*message };
        if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: no memory is touched by these.
            let data = unsafe { libc::CMSG_DATA(message) }.cast::<RawFd>();
            // SAFETY: as above.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let fds = (part.cmsg_len as usize).saturating_sub(head) / mem::size_of::<RawFd>();
            for index in 0..fds {
                // SAFETY: the message has `fds` numbers behind its header; each is a descriptor that is ours alone since this call.
                passed.push(unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) });
            }
        }
        // SAFETY: as for the first one.
        message = unsafe { libc::CMSG_NXTHDR(&header, message) };
    }
    Ok((count, passed))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{IoSlice, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    fn open() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }

    fn pass(to: &UnixStream, fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn descriptor_comes_with_its_bytes_and_those_that_are_too_many_are_not_left_open() {
        let (client, server) = UnixStream::pair().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let mut bytes = [0; 16];
        (&client).write_all(b"plain").unwrap();
        let (count, passed) = receive(server.as_fd(), &mut bytes).unwrap();
        assert_eq!((count, passed.len()), (5, 0));
        pass(&client, &[null.as_raw_fd()]);
        assert_eq!(receive(server.as_fd(), &mut bytes).unwrap().1.len(), 1);
        for _ in 0..600 {
            pass(&client, &[null.as_raw_fd(); 200]);
            let most = ROOM / mem::size_of::<RawFd>();
            assert!((1..=most).contains(&receive(server.as_fd(), &mut bytes).unwrap().1.len()));
        }
        assert!(open() < 500, "{} are open", open());
        assert_eq!(receive(server.as_fd(), &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
