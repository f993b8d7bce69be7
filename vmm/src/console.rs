//! What the guest prints: to the terminal and a log file, and read along for signs of a panic.
//!
//! The vCPU that writes to the UART only appends to a buffer; a thread of its own does the slow part. The buffer is
//! bounded: a guest that prints faster than the terminal takes it sees a full FIFO, as on a real line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use crate::sandbox::{Sandbox, Thread};

/// Bytes that may wait for the terminal.
const PENDING_LIMIT: usize = 1 << 20;
/// Bytes of recent output kept for the report of a panic.
const TAIL_LIMIT: usize = 64 << 10;
/// How Linux starts a panic message, and what it prints when it has said everything and will stand still.
const PANIC_START: &str = "Kernel panic - not syncing";
const PANIC_END: &str = "---[ end Kernel panic";

/// Someone who reads the console along, line by line.
pub trait LineWatch: Send {
    /// A complete line without its end, as lossy UTF-8.
    fn line(&mut self, line: &str);
}

/// What the console has told of a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicSeen {
    /// The message has begun.
    pub started: bool,
    /// The guest has said everything and stands still.
    pub ended: bool,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Bytes were refused since the buffer was last emptied.
    refused: bool,
    closed: bool,
    line: Vec<u8>,
    tail: VecDeque<u8>,
    panic: PanicSeen,
    watch: Option<Box<dyn LineWatch>>,
    /// The first error of the terminal or the log file.
    failed: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    on_panic_end: Box<dyn Fn() + Send + Sync>,
    /// Called when there is room again after bytes were refused.
    on_room: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving end of the serial line.
pub struct Console {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Where the output goes.
pub struct Outputs {
    /// Copy to standard output.
    pub stdout: bool,
    /// Copy to a file, with its name for messages.
    pub log: Option<(File, String)>,
    /// Read along.
    pub watch: Option<Box<dyn LineWatch>>,
}

impl Console {
    /// Starts the console's thread. `on_panic_end` is called once the guest's kernel has panicked and stands still.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn start(
        outputs: Outputs,
        on_panic_end: Box<dyn Fn() + Send + Sync>,
        sandbox: &Sandbox,
    ) -> io::Result<Arc<Self>> {
        let Outputs { stdout, log, watch } = outputs;
        let state = Mutex::new(State { watch, ..State::default() });
        let shared =
            Arc::new(Shared { state, changed: Condvar::new(), on_panic_end, on_room: OnceLock::new() });
        let for_thread = Arc::clone(&shared);
        let thread = sandbox.spawn(Thread::Console, "console", move || drain(&for_thread, stdout, log))?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Takes output of the guest and says how many bytes. With less than all, there is room again when the function
    /// of [`Self::on_room`] is called.
    pub fn write(&self, data: &[u8]) -> usize {
        let mut state = self.shared.lock();
        let was_empty = state.pending.is_empty();
        let taken = data.len().min(PENDING_LIMIT - state.pending.len().min(PENDING_LIMIT));
        state.pending.extend_from_slice(&data[..taken]);
        state.refused |= taken < data.len();
        drop(state);
        if was_empty {
            self.shared.changed.notify_all();
        }
        taken
    }

    /// Names whom to tell that there is room again. Only the first call counts.
    pub fn on_room(&self, function: Box<dyn Fn() + Send + Sync>) {
        let _ = self.shared.on_room.set(function);
    }

    /// Writes out what is waiting and ends the thread. Returns the first error of an output.
    pub fn close(&self) -> Option<String> {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of that thread has been reported already.
            let _ = thread.join();
        }
        self.shared.lock().failed.take()
    }

    /// Whether the guest's kernel has panicked.
    #[must_use]
    pub fn panic_seen(&self) -> PanicSeen {
        self.shared.lock().panic
    }

    /// The last `lines` lines of output.
    #[must_use]
    pub fn last_lines(&self, lines: usize) -> String {
        let tail: Vec<u8> = self.shared.lock().tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&tail).replace('\r', "");
        let all: Vec<&str> = text.trim_end().lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn drain(shared: &Shared, stdout: bool, mut log: Option<(File, String)>) {
    let mut stdout = stdout.then(io::stdout);
    loop {
        let mut state = shared.lock();
        while state.pending.is_empty() {
            if state.closed {
                return;
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let data = std::mem::take(&mut state.pending);
        let ended = read_along(&mut state, &data);
        let refused = std::mem::take(&mut state.refused);
        drop(state);
        if refused && let Some(on_room) = shared.on_room.get() {
            on_room();
        }
        if ended {
            (shared.on_panic_end)();
        }
        let mut failure = None;
        if let Some(out) = &mut stdout
            && let Err(e) = out.write_all(&data).and_then(|()| out.flush())
        {
            failure = Some(format!("cannot write to standard output: {e}"));
            stdout = None;
        }
        if let Some((file, name)) = &mut log
            && let Err(e) = file.write_all(&data)
        {
            failure = Some(format!("cannot write the console log {name}: {e}"));
            log = None;
        }
        if failure.is_some() {
            shared.lock().failed = failure;
        }
    }
}

/// Keeps the tail, cuts lines, looks for a panic. Returns true when its end has just been seen.
fn read_along(state: &mut State, data: &[u8]) -> bool {
    state.tail.extend(data);
    let excess = state.tail.len().saturating_sub(TAIL_LIMIT);
    state.tail.drain(..excess);
    let mut ended = false;
    for &byte in data {
        if byte != b'\n' {
            // A guest that never ends a line gets it cut.
            if state.line.len() < TAIL_LIMIT {
                state.line.push(byte);
            }
            continue;
        }
        let line = std::mem::take(&mut state.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        state.panic.started |= line.contains(PANIC_START);
        if line.contains(PANIC_END) && !state.panic.ended {
            state.panic.ended = true;
            ended = true;
        }
        if let Some(watch) = &mut state.watch {
            watch.line(line);
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);
    impl LineWatch for Lines {
        fn line(&mut self, line: &str) {
            self.0.lock().unwrap().push(line.to_string());
        }
    }

    #[test]
    fn output_reaches_log_and_watch_and_a_panic_is_noticed_once_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let ends = Arc::new(AtomicUsize::new(0));
        let lines = Lines::default();
        let count = Arc::clone(&ends);
        let console = Console::start(
            Outputs {
                stdout: false,
                log: Some((File::create(&path).unwrap(), "console".into())),
                watch: Some(Box::new(lines.clone())),
            },
            Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            }),
            &Sandbox::off(),
        )
        .unwrap();

        console.write(b"hello\r\n[ 1.0] Kernel panic - not syncing: VFS\n");
        assert_eq!(console.write(b"[ 1.1] ---[ end Kernel panic - not"), 34);
        console.write(b" syncing: VFS ]---\nlast");
        assert_eq!(console.close(), None);

        assert_eq!(console.panic_seen(), PanicSeen { started: true, ended: true });
        assert_eq!(ends.load(Ordering::SeqCst), 1);
        assert_eq!(lines.0.lock().unwrap()[0], "hello");
        assert!(console.last_lines(2).ends_with("syncing: VFS ]---\nlast"));
        assert!(std::fs::read(&path).unwrap().ends_with(b"last"));
    }

    #[test]
    fn full_log_disk_is_reported_and_does_not_stop_the_guest() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let outputs = Outputs { stdout: false, log: Some((full, "x.log".into())), watch: None };
        let console = Console::start(outputs, Box::new(|| ()), &Sandbox::off()).unwrap();
        console.write(b"a\n");
        console.write(b"b\n");
        assert!(console.close().unwrap().contains("x.log"));
    }
}
