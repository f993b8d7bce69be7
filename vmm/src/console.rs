//! What the guest prints: to the terminal and a log file, kept for a while for whoever attaches later, and read along for what it says
//! of a panic.
//!
//! The vCPU that writes to the UART only appends to a buffer; a thread of its own does the slow part. The buffer is
//! bounded: a guest that prints faster than the terminal takes it sees a full FIFO, as on a real line. Whoever is attached
//! ([`Console::since`]) holds up nobody: what is no longer kept when it comes for it is lost to it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::sandbox::{Sandbox, Thread};

/// Bytes that may wait for the terminal.
const PENDING_LIMIT: usize = 1 << 20;
/// Bytes that are taken from there at once: little beside [`KEPT`], so that a terminal that is slow, and then is not, takes nothing
/// from whoever is attached.
const PIECE: usize = 16 << 10;
/// Bytes of recent output that are kept, for whoever attaches and for the report of a panic.
pub const KEPT: usize = 256 << 10;
/// The longest line that is read along.
const LINE_LIMIT: usize = 64 << 10;
/// How Linux starts a panic message, how it says after how many seconds it will reset, and what it prints when it has said
/// everything and will stand still instead.
const PANIC_START: &str = "Kernel panic - not syncing";
const PANIC_DELAY: (&str, &str) = ("Rebooting in ", " seconds..");
const PANIC_END: &str = "---[ end Kernel panic";
/// What it prints before a reset that somebody has asked for.
const RESTART: &str = "reboot: Restarting system";
/// Time for what a panicking kernel does between its message and the reset, beside the delay that it says: the rest of the
/// message, saving it, telling others.
const PANIC_WORK: Duration = Duration::from_secs(60);

/// Someone who reads the console along, line by line.
pub trait LineWatch: Send {
    /// A complete line without its end, as lossy UTF-8.
    fn line(&mut self, line: &str);
}

/// What the console has told of a panic. Anybody in the guest can write such a text: it explains what happens, and
/// causes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PanicSeen {
    /// When the last message began, and how long the kernel wants to wait before it resets.
    started: Option<(Instant, Duration)>,
    /// The kernel says that it stands still.
    pub stands_still: bool,
}

impl PanicSeen {
    fn read(&mut self, line: &str, now: Instant) {
        if line.contains(PANIC_START) && !line.contains(PANIC_END) {
            self.started = Some((now, Duration::ZERO));
        } else if line.contains(RESTART) {
            self.started = None;
        } else if let Some((_, wait)) = &mut self.started
            && let Some((_, rest)) = line.split_once(PANIC_DELAY.0)
            && let Some(seconds) =
                rest.strip_suffix(PANIC_DELAY.1).and_then(|number| number.parse::<u32>().ok())
        {
            *wait = Duration::from_secs(seconds.into());
        }
        self.stands_still |= line.contains(PANIC_END);
    }

    /// Whether a reset at this time is the one of a kernel that has panicked: within its own time after the message.
    #[must_use]
    pub fn explains_reset(&self, at: Instant) -> bool {
        let within = |(start, wait): (Instant, Duration)| {
            at.saturating_duration_since(start) <= wait.saturating_add(PANIC_WORK)
        };
        self.started.is_some_and(within)
    }
}

#[derive(Default)]
struct State {
    pending: VecDeque<u8>,
    /// Bytes were refused since some were last taken out.
    refused: bool,
    closed: bool,
    line: Vec<u8>,
    /// The last bytes that have been taken out.
    kept: VecDeque<u8>,
    /// How many have been taken out in all.
    total: u64,
    panic: PanicSeen,
    watch: Option<Box<dyn LineWatch>>,
    /// The first error of the terminal or the log file.
    failed: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Called when there is room again after bytes were refused.
    on_room: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Called when there is more for whoever is attached.
    on_output: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Somebody is attached.
    is_watched: AtomicBool,
}

/// What the guest has printed from somewhere on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Bytes before it that are no longer kept.
    pub lost: u64,
    /// What there is.
    pub bytes: Vec<u8>,
    /// Where it ends: the number of bytes that the guest had printed by then.
    pub end: u64,
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
    /// Starts the console's thread.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn start(outputs: Outputs, sandbox: &Sandbox) -> io::Result<Arc<Self>> {
        let Outputs { stdout, log, watch } = outputs;
        let state = Mutex::new(State { watch, ..State::default() });
        let shared = Arc::new(Shared {
            state,
            changed: Condvar::new(),
            on_room: OnceLock::new(),
            on_output: OnceLock::new(),
            is_watched: AtomicBool::new(false),
        });
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
        state.pending.extend(&data[..taken]);
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

    /// Names whom to tell, on the console's thread, that there is more to see while somebody is attached. Only the first call
    /// counts.
    pub fn on_output(&self, function: Box<dyn Fn() + Send + Sync>) {
        let _ = self.shared.on_output.set(function);
    }

    /// Whether somebody is attached from now on. To be called before the first [`Self::since`], so that nothing falls in between.
    pub fn set_watched(&self, is_watched: bool) {
        self.shared.is_watched.store(is_watched, Ordering::SeqCst);
    }

    /// How much the guest has printed so far, as far as it has been taken out of the buffer.
    #[must_use]
    pub fn printed(&self) -> u64 {
        self.shared.lock().total
    }

    /// What it has printed after the first `from` bytes, `most` bytes of it.
    #[must_use]
    pub fn since(&self, from: u64, most: usize) -> Printed {
        let state = self.shared.lock();
        let first_kept = state.total - state.kept.len() as u64;
        let from = from.min(state.total);
        let start = from.max(first_kept);
        // Not more than what is kept.
        let skipped = (start - first_kept) as usize;
        let bytes: Vec<u8> = state.kept.range(skipped..).take(most).copied().collect();
        Printed { lost: start - from, end: start + bytes.len() as u64, bytes }
    }

    /// Writes out what is waiting and ends the thread. Returns the first error of an output.
    pub fn close(&self) -> Option<String> {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // One that has panicked has ended the process instead.
            let _ = thread.join();
        }
        self.shared.lock().failed.take()
    }

    /// The guest boots anew: what has been told of a panic was of another boot.
    pub fn restarted(&self) {
        self.shared.lock().panic = PanicSeen::default();
    }

    /// What the console has told of a panic so far.
    #[must_use]
    pub fn panic_seen(&self) -> PanicSeen {
        self.shared.lock().panic
    }

    /// The last `lines` lines of output.
    #[must_use]
    pub fn last_lines(&self, lines: usize) -> String {
        let kept: Vec<u8> = self.shared.lock().kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&kept).replace('\r', "");
        let all: Vec<&str> = text.trim_end().lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn drain(shared: &Shared, is_shown: bool, mut log: Option<(File, String)>) {
    let mut stdout = is_shown.then(io::stdout);
    loop {
        let mut state = shared.lock();
        while state.pending.is_empty() {
            if state.closed {
                return;
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let piece = state.pending.len().min(PIECE);
        let data: Vec<u8> = state.pending.drain(..piece).collect();
        let stands_still = read_along(&mut state, &data);
        let refused = std::mem::take(&mut state.refused);
        drop(state);
        if refused && let Some(on_room) = shared.on_room.get() {
            on_room();
        }
        if shared.is_watched.load(Ordering::SeqCst)
            && let Some(on_output) = shared.on_output.get()
        {
            on_output();
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
        if stands_still && is_shown {
            // Not the end: the text proves nothing, and a kernel that stands still does so for ever.
            eprintln!(
                "\nwarpvmm: the guest's kernel says that it has panicked and stands still. The machine goes on; with \
                 panic=-1 on its command line the kernel would reset it, which ends the run"
            );
        }
        if failure.is_some() {
            shared.lock().failed = failure;
        }
    }
}

/// Keeps the last bytes, cuts lines, looks for a panic. Returns true when the kernel has just said that it stands still, once.
fn read_along(state: &mut State, data: &[u8]) -> bool {
    state.kept.extend(data);
    let excess = state.kept.len().saturating_sub(KEPT);
    state.kept.drain(..excess);
    state.total += data.len() as u64;
    let stood_still = state.panic.stands_still;
    let now = Instant::now();
    for &byte in data {
        if byte != b'\n' {
            // A guest that never ends a line gets it cut.
            if state.line.len() < LINE_LIMIT {
                state.line.push(byte);
            }
            continue;
        }
        let line = std::mem::take(&mut state.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        state.panic.read(line, now);
        if let Some(watch) = &mut state.watch {
            watch.line(line);
        }
    }
    state.panic.stands_still && !stood_still
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);
    impl LineWatch for Lines {
        fn line(&mut self, line: &str) {
            self.0.lock().unwrap().push(line.to_string());
        }
    }

    #[test]
    fn output_reaches_log_and_watch_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let lines = Lines::default();
        let console = Console::start(
            Outputs {
                stdout: false,
                log: Some((File::create(&path).unwrap(), "console".into())),
                watch: Some(Box::new(lines.clone())),
            },
            &Sandbox::off(),
        )
        .unwrap();

        console.write(b"hello\r\n[ 1.0] Kernel panic - not syncing: VFS\n");
        assert_eq!(console.write(b"[ 1.1] ---[ end Kernel panic - not"), 34);
        console.write(b" syncing: VFS ]---\nlast");
        assert_eq!(console.close(), None);

        assert!(console.panic_seen().stands_still);
        assert_eq!(lines.0.lock().unwrap()[0], "hello");
        assert!(console.last_lines(2).ends_with("syncing: VFS ]---\nlast"));
        assert!(std::fs::read(&path).unwrap().ends_with(b"last"));
    }

    /// A console that nobody sees, and whether somebody who is attached has been told of output.
    fn unseen() -> (Arc<Console>, Arc<AtomicBool>) {
        let outputs = Outputs { stdout: false, log: None, watch: None };
        let console = Console::start(outputs, &Sandbox::off()).unwrap();
        let told = Arc::<AtomicBool>::default();
        let tell = Arc::clone(&told);
        console.on_output(Box::new(move || tell.store(true, Ordering::SeqCst)));
        (console, told)
    }

    /// Writes all of it, however often the buffer is full.
    fn print(console: &Console, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            rest = &rest[console.write(rest)..];
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_printed_is_seen_from_anywhere_that_is_kept_and_what_is_not_is_counted() {
        let (console, told) = unseen();
        let text: Vec<u8> = (0..KEPT + 1000).map(|i| (i / 7) as u8).collect();
        print(&console, &text[..1000]);
        console.set_watched(true);
        print(&console, &text[1000..]);
        assert_eq!(console.close(), None);
        assert!(told.load(Ordering::SeqCst));

        let len = text.len() as u64;
        assert_eq!(console.printed(), len);
        let all = console.since(0, usize::MAX);
        assert_eq!((all.lost, all.end), (1000, len));
        assert!(all.bytes == text[1000..]);
        let part = console.since(2000, 5);
        assert_eq!(part, Printed { lost: 0, bytes: text[2000..2005].to_vec(), end: 2005 });
        let at_the_seam = console.since(999, 1);
        assert_eq!(at_the_seam, Printed { lost: 1, bytes: text[1000..1001].to_vec(), end: 1001 });
        for beyond in [len, len + 1, u64::MAX] {
            assert_eq!(console.since(beyond, 10), Printed { lost: 0, bytes: Vec::new(), end: len });
        }
    }

    #[test]
    fn nobody_is_told_of_output_while_nobody_is_attached() {
        let (console, told) = unseen();
        print(&console, b"text");
        assert_eq!(console.close(), None);
        assert!(!told.load(Ordering::SeqCst));
    }

    fn seen(lines: &[&str], start: Instant) -> PanicSeen {
        let mut seen = PanicSeen::default();
        lines.iter().for_each(|line| seen.read(line, start));
        seen
    }

    #[test]
    fn reset_within_the_kernels_own_time_after_its_message_is_a_panics() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let message = "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs";
        let at_once = seen(&[message, "[    1.1] CPU: 0 PID: 1"], start);
        assert!(at_once.explains_reset(start) && !at_once.explains_reset(at(100)));
        let late = seen(&[message, "[    1.1] Rebooting in 100 seconds.."], start);
        assert!(late.explains_reset(at(100)) && !late.explains_reset(at(300)));
        assert!(!late.stands_still);
    }

    #[test]
    fn reset_that_was_asked_for_is_none_of_a_panic_whatever_text_came_before() {
        let start = Instant::now();
        let echoed =
            seen(&["Kernel panic - not syncing: fake", "[    9.0] reboot: Restarting system"], start);
        assert!(!echoed.explains_reset(start));
        assert!(!seen(&["Rebooting in 5 seconds.."], start).explains_reset(start));
        assert!(!seen(&["---[ end Kernel panic - not syncing: fake ]---"], start).explains_reset(start));
    }

    #[test]
    fn full_log_disk_is_reported_and_does_not_stop_the_guest() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let outputs = Outputs { stdout: false, log: Some((full, "x.log".into())), watch: None };
        let console = Console::start(outputs, &Sandbox::off()).unwrap();
        console.write(b"a\n");
        console.write(b"b\n");
        assert!(console.close().unwrap().contains("x.log"));
    }
}
