//! Making vCPUs come back from the kernel: a flag that `KVM_RUN` looks at, and a signal for a vCPU that is in there.
//!
//! The flag is set first, then the signal is sent. A vCPU that has not yet entered sees the flag; one that has is
//! interrupted; so no kick is lost, and the signal's handler has nothing to do.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VcpuFd;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use vmm_sys_util::signal::register_signal_handler;

/// The signal.
pub(super) const KICK: Signal = Signal::SIGUSR1;

/// A vCPU whose thread runs it.
struct Running {
    thread: Pthread,
    /// `kvm_run.immediate_exit`, shared with the kernel.
    immediate_exit: *const AtomicU8,
}

// SAFETY: the pointer is used only under the lock of `Kicks::running`, while the vCPU's mapping is there; and a thread's
// handle may be used by every thread.
unsafe impl Send for Running {}

impl Running {
    fn set_immediate_exit(&self, on: bool) {
        // SAFETY: `Kicks::enter` takes the pointer from a live mapping, and its guard removes it before that ends.
        unsafe { &*self.immediate_exit }.store(on.into(), Ordering::SeqCst);
    }
}

/// How all vCPUs are made to come back.
pub(super) struct Kicks {
    stopping: AtomicBool,
    running: Mutex<Vec<Option<Running>>>,
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Kicks {
    /// For these many vCPUs. The signal has a handler from now on: without one it would end the process.
    pub(super) fn new(cpus: usize) -> io::Result<Self> {
        register_signal_handler(KICK as libc::c_int, nothing).map_err(io::Error::from)?;
        let running = Mutex::new((0..cpus).map(|_| None).collect());
        Ok(Self { stopping: AtomicBool::new(false), running })
    }

    fn running(&self) -> MutexGuard<'_, Vec<Option<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the calling thread runs vCPU `index`, until the result is dropped. The vCPU must live longer than that.
    pub(super) fn enter(&self, index: usize, fd: &mut VcpuFd) -> Entered<'_> {
        let immediate_exit = (&raw mut fd.get_kvm_run().immediate_exit).cast::<AtomicU8>().cast_const();
        let running = Running { thread: pthread_self(), immediate_exit };
        let mut all = self.running();
        // `stop` sets the flag before it takes the lock: it is seen here, or this vCPU is seen there.
        running.set_immediate_exit(self.is_stopping());
        all[index] = Some(running);
        Entered { kicks: self, index }
    }

    /// Whether vCPUs are to come back.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Makes all vCPUs come back.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for running in self.running().iter().flatten() {
            running.set_immediate_exit(true);
            if let Err(error) = pthread_kill(running.thread, KICK) {
                log::error!("a vCPU's thread cannot be signalled: {error}");
            }
        }
    }

    /// Lets vCPUs run again.
    pub(super) fn resume(&self) {
        self.stopping.store(false, Ordering::SeqCst);
    }
}

/// While this lives, the vCPU can be kicked.
pub(super) struct Entered<'a> {
    kicks: &'a Kicks,
    index: usize,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.kicks.running()[self.index] = None;
    }
}
