//! What a target cannot report of itself: that it does not end, takes too much memory, or ends the process.
//!
//! The input under way is in a file, so that nothing is lost if the process dies; a thread looks at the time and at
//! the process's memory. What an input may take is processor time, which other work on the host does not change; wall
//! time is for inputs that wait for ever.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What an input may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Processor time, of all threads together.
    pub(crate) processor: Duration,
    /// Wall time.
    pub(crate) wall: Duration,
    /// Resident memory of the whole process, in bytes.
    pub(crate) memory: u64,
}

/// How often the watch looks.
const PERIOD: Duration = Duration::from_millis(100);

struct Running {
    since: Instant,
    processor_before: Duration,
    name: &'static str,
    file: PathBuf,
}

/// The watch over one target at a time.
pub(crate) struct Watch {
    running: Arc<Mutex<Option<Running>>>,
    bounds: Bounds,
}

impl Watch {
    /// Starts the thread. `give_up` is told of an input that breaks a bound and does not end; it ends the process.
    pub(crate) fn start(
        bounds: Bounds,
        give_up: impl Fn(&'static str, &Path, &str) + Send + 'static,
    ) -> Self {
        let running: Arc<Mutex<Option<Running>>> = Arc::default();
        let watched = Arc::clone(&running);
        thread::spawn(move || {
            loop {
                thread::sleep(PERIOD);
                let now = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(Running { since, processor_before, name, file }) = &*now else { continue };
                if processor_time().saturating_sub(*processor_before) > bounds.processor {
                    give_up(name, file, &format!("takes more than {:?} of processor time", bounds.processor));
                }
                if since.elapsed() > bounds.wall {
                    give_up(name, file, &format!("does not end in {:?}", bounds.wall));
                }
                let resident = resident_bytes().unwrap_or(0);
                if resident > bounds.memory {
                    give_up(name, file, &format!("takes {} MiB of memory", resident >> 20));
                }
            }
        });
        Self { running, bounds }
    }

    /// Runs target `name` on the contents of `file` under the watch, and tells the processor time that it took.
    ///
    /// # Errors
    /// What is wrong with it, if it ends at all.
    pub(crate) fn over(
        &self,
        name: &'static str,
        file: &Path,
        act: impl FnOnce() + std::panic::UnwindSafe,
    ) -> Result<Duration, String> {
        let processor_before = processor_time();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Running { since: Instant::now(), processor_before, name, file: file.to_path_buf() });
        let result = std::panic::catch_unwind(act);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let took = processor_time().saturating_sub(processor_before);
        match result {
            Err(panic) => Err(format!("panics: {}", message(&*panic))),
            Ok(()) if took > self.bounds.processor => Err(format!("takes {took:?} of processor time")),
            Ok(()) => Ok(took),
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)")
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// This process's resident memory; `None` on a host that does not say.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// The file with the input under way.
pub(crate) struct Current {
    path: PathBuf,
    file: File,
}

impl Current {
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create(&path)?;
        Ok(Self { path, file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn put(&self, input: &[u8]) -> io::Result<()> {
        self.file.set_len(input.len() as u64)?;
        self.file.write_all_at(input, 0)
    }

    /// The target has ended as it should: nothing to keep.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
