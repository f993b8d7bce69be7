//! What a target cannot report of itself: that it does not end, takes too much memory, or ends the process.
//!
//! The input under way is in a file, so that nothing is lost if the process dies; a thread looks at the time and at
//! the process's memory.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What an input may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Wall time.
    pub(crate) time: Duration,
    /// Resident memory of the whole process, in bytes.
    pub(crate) memory: u64,
}

/// How often the watch looks.
const PERIOD: Duration = Duration::from_millis(100);

struct Running {
    since: Instant,
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
                let Some(Running { since, name, file }) = &*now else { continue };
                if since.elapsed() > bounds.time {
                    give_up(name, file, &format!("takes longer than {:?}", bounds.time));
                }
                let resident = resident_bytes().unwrap_or(0);
                if resident > bounds.memory {
                    give_up(name, file, &format!("takes {} MiB of memory", resident >> 20));
                }
            }
        });
        Self { running, bounds }
    }

    /// Runs target `name` on the contents of `file` under the watch.
    ///
    /// # Errors
    /// What is wrong with it, if it ends at all.
    pub(crate) fn over(
        &self,
        name: &'static str,
        file: &Path,
        act: impl FnOnce() + std::panic::UnwindSafe,
    ) -> Result<(), String> {
        let since = Instant::now();
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Running { since, name, file: file.to_path_buf() });
        let result = std::panic::catch_unwind(act);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match result {
            Err(panic) => Err(format!("panics: {}", message(&*panic))),
            Ok(()) if since.elapsed() > self.bounds.time => Err(format!("takes {:?}", since.elapsed())),
            Ok(()) => Ok(()),
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
