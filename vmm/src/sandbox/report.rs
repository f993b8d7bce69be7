//! The end of a process that made a system call it may not make: one line that says which, then exit.
//!
//! The kernel sends SIGSYS to the thread instead of making the call. All of this runs in the signal's handler: no memory
//! is allocated, no lock is waited for. Nothing else is tidied up, because a process that does what its program does not
//! say is not to be trusted with anything more; a supervising process would only see the same end a moment later.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io;

use libc::{c_int, c_long, c_void, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

use super::Thread;
use crate::exit::Status;
use crate::host::terminal;

thread_local! {
    static THREAD: Cell<Option<Thread>> = const { Cell::new(None) };
}

/// Names the calling thread, for the line.
pub(super) fn name_thread(thread: Thread) {
    THREAD.set(Some(thread));
}

/// Takes SIGSYS for the whole process.
pub(super) fn start() -> io::Result<()> {
    register_signal_handler(libc::SIGSYS, end).map_err(Into::into)
}

/// `si_code` of a signal that a filter sent; include/uapi/asm-generic/siginfo.h.
const SYS_SECCOMP: c_int = 1;

/// `siginfo_t` of SIGSYS, for which the libc crate has no accessors. 64-bit Linux, every architecture.
#[repr(C)]
struct SigSys {
    signo: c_int,
    errno: c_int,
    code: c_int,
    _padding: c_int,
    _address: *mut c_void,
    call: c_int,
    _arch: u32,
}

const _: () = assert!(size_of::<SigSys>() <= size_of::<siginfo_t>());

extern "C" fn end(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo_t, which is larger than SigSys (asserted above) and at least as aligned;
    // every bit pattern is a SigSys.
    let info = unsafe { &*info.cast::<SigSys>() };
    let mut line = Line { text: [0; 256], len: 0 };
    let name = THREAD.get().map_or("unknown", Thread::name);
    // The buffer is longer than the longest line.
    let _ = if info.code == SYS_SECCOMP {
        let call = c_long::from(info.call);
        write!(
            line,
            "\nwarpvmm: thread '{name}' made system call {call} ({}), which the sandbox forbids: a bug, or an attack by \
             the guest; please report it (--sandbox off runs without)\n",
            call_name(call)
        )
    } else {
        writeln!(line, "\nwarpvmm: ended by signal {}", info.signo)
    };
    terminal::restore_from_handler();
    // SAFETY: `write` and `_exit` may be called from a handler; the buffer is valid for `len` bytes.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.text.as_ptr().cast(), line.len);
        libc::_exit(Status::Failure as c_int);
    }
}

/// Text in a buffer of fixed size; what does not fit is cut off.
struct Line {
    text: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let free = &mut self.text[self.len..];
        let fits = part.len().min(free.len());
        free[..fits].copy_from_slice(&part.as_bytes()[..fits]);
        self.len += fits;
        if fits < part.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

macro_rules! names {
    ($number:ident; $($(#[$only:meta])? $name:ident)*) => {
        $($(#[$only])? if $number == libc::$name { return stringify!($name).trim_start_matches("SYS_"); })*
    };
}

/// The names of calls that a program makes by mistake or under attack.
fn call_name(number: c_long) -> &'static str {
    names! { number;
        SYS_read SYS_write SYS_openat SYS_close SYS_lseek SYS_mmap SYS_mprotect SYS_ioctl SYS_pread64 SYS_pwrite64
        SYS_readv SYS_writev SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_sendfile SYS_splice SYS_vmsplice
        SYS_tee SYS_copy_file_range SYS_mremap SYS_pkey_mprotect SYS_remap_file_pages SYS_personality SYS_dup SYS_dup3 SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_ftruncate SYS_fallocate
        SYS_statx SYS_fstat SYS_newfstatat SYS_getdents64 SYS_chdir SYS_fchmod SYS_fchmodat SYS_fchownat SYS_umask
        SYS_renameat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_unlinkat SYS_mkdirat SYS_mknodat SYS_mount SYS_umount2
        SYS_pivot_root SYS_chroot SYS_openat2 SYS_open_by_handle_at SYS_memfd_create SYS_io_setup SYS_io_uring_setup
        SYS_socket SYS_socketpair SYS_connect SYS_bind SYS_listen SYS_accept4 SYS_sendto SYS_recvfrom SYS_sendmsg
        SYS_recvmsg SYS_getsockopt SYS_setsockopt SYS_shutdown SYS_pipe2 SYS_eventfd2 SYS_signalfd4 SYS_timerfd_create
        SYS_timerfd_settime SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_ppoll SYS_pselect6 SYS_inotify_init1
        SYS_clone SYS_clone3 SYS_execve SYS_execveat SYS_wait4 SYS_waitid SYS_kill SYS_tkill SYS_tgkill
        SYS_rt_sigaction SYS_rt_sigtimedwait SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo
        SYS_pidfd_send_signal SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_open
        SYS_pidfd_getfd SYS_setuid SYS_setgid SYS_setresuid SYS_setresgid SYS_capset SYS_prctl SYS_prlimit64
        SYS_unshare SYS_setns SYS_seccomp SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_keyctl SYS_add_key
        SYS_init_module SYS_finit_module SYS_kexec_load SYS_reboot SYS_mlock SYS_mlockall SYS_msync SYS_membarrier
        SYS_sched_setaffinity SYS_sched_getaffinity SYS_setpriority SYS_nanosleep SYS_timer_create SYS_setitimer
        SYS_uname SYS_sysinfo SYS_getuid SYS_shmget SYS_landlock_create_ruleset SYS_landlock_restrict_self
        #[cfg(target_arch = "x86_64")] SYS_open
        #[cfg(target_arch = "x86_64")] SYS_stat
        #[cfg(target_arch = "x86_64")] SYS_access
        #[cfg(target_arch = "x86_64")] SYS_poll
        #[cfg(target_arch = "x86_64")] SYS_pipe
        #[cfg(target_arch = "x86_64")] SYS_fork
        #[cfg(target_arch = "x86_64")] SYS_vfork
        #[cfg(target_arch = "x86_64")] SYS_rename
        #[cfg(target_arch = "x86_64")] SYS_unlink
        #[cfg(target_arch = "x86_64")] SYS_link
        #[cfg(target_arch = "x86_64")] SYS_mkdir
        #[cfg(target_arch = "x86_64")] SYS_chmod
        #[cfg(target_arch = "x86_64")] SYS_arch_prctl
    }
    "of another name"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_and_unknown_numbers_too() {
        assert_eq!(call_name(libc::SYS_execve), "execve");
        assert_eq!(call_name(-1), "of another name");
    }

    #[test]
    fn line_that_is_too_long_is_cut_at_the_end_of_its_buffer() {
        let mut line = Line { text: [0; 256], len: 0 };
        assert!(line.write_str(&"x".repeat(300)).is_err());
        assert_eq!(line.len, 256);
    }
}
