//! What a panic does: it ends the machine, whichever thread it happens on, with one line that names the thread.
//!
//! A panic is a fault of ours, and leaves broken what its thread was changing. So the thread does not unwind: it stays in the
//! panic hook, and the locks that it holds stay locked, so that nobody goes on with what is behind them. It presses
//! the [`StopSwitch`], by which the main thread learns of it. That one joins nobody, because others may wait for those locks: it
//! puts results and terminal right and ends the process. Where the main thread does not come to it, be it that
//! it waits for such a lock itself, the thread that has panicked ends the process after a while.
//!
//! The main thread's own panics end the process at once while a machine runs. Without a machine there is nobody else who
//! could see what is broken, and it unwinds, by which unfinished results are removed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::OnceCell;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::exit::Status;
use crate::host::terminal;
use crate::supervise::{Reason, StopSwitch};

/// What the main thread gets to end the process in an orderly way.
const GRACE: Duration = Duration::from_secs(3);

thread_local! {
    static SWITCH: OnceCell<Arc<StopSwitch>> = const { OnceCell::new() };
}

/// A machine runs: there are threads beside the main one.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// While this lives, a panic of the main thread ends the process at once.
pub(crate) struct Running(());

impl Running {
    /// A machine's threads start.
    pub(crate) fn begin() -> Self {
        IS_RUNNING.store(true, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        IS_RUNNING.store(false, Ordering::SeqCst);
    }
}

/// From now on, panics of the calling thread press this switch. The first call of a thread counts.
pub(crate) fn press_on_panic(switch: Arc<StopSwitch>) {
    let _ = SWITCH.with(|cell| cell.set(switch));
}

/// Takes over panics of the whole process. For programs: tests have panics of their own.
pub fn take_panics() {
    panic::set_hook(Box::new(panicked));
}

fn panicked(info: &PanicHookInfo<'_>) {
    let line = line_of(info);
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        write_to_stderr(&format!("{backtrace}"));
    }
    let switch = SWITCH.try_with(|cell| cell.get().cloned()).ok().flatten();
    if let Some(switch) = switch {
        switch.stop(Reason::Crashed(line.clone()));
        thread::sleep(GRACE);
        end(&line);
    }
    if IS_RUNNING.load(Ordering::SeqCst) {
        end(&line);
    }
    terminal::restore_from_handler();
    write_to_stderr(&format!("warpvmm: {line}\n"));
}

/// One line: which thread, where, what.
fn line_of(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
    let what = info.payload_as_str().unwrap_or("no reason given").split_whitespace().collect::<Vec<_>>();
    format!("internal error in thread '{name}'{place}: {}; please report it", what.join(" "))
}

/// Past the lock of the standard library, which another thread may hold for ever.
fn write_to_stderr(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = nix::unistd::write(io::stderr(), text.as_bytes());
}

/// Ends the process without running anything of it any more.
fn end(line: &str) -> ! {
    terminal::restore_from_handler();
    write_to_stderr(&format!("\nwarpvmm: {line}\n"));
    // SAFETY: takes a number and does not come back.
    unsafe { libc::_exit(Status::Failure as libc::c_int) }
}
