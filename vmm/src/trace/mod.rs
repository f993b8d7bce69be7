//! The timeline: a bounded buffer that models' events go to, and the thread that writes them (`--trace FILE`). `docs/timeline.md`
//!
//! Whoever tells an event stamps it with guest time and puts it into the buffer, under one leaf lock, so that events are in order.
//! What finds the buffer full is dropped and counted. Deliberately absent: what the file looks like, which is `writer`'s.

mod writer;

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hw::trace::{Event, Happening, Mark, Slice, SliceKind, TraceSink};
use hw::{Clock, StreamId, Trace, Track};

use crate::cli::{TraceArgs, TracePart};
use crate::exit::Failed;
use crate::sandbox::{Sandbox, Thread};
pub(crate) use writer::LEAST_LIMIT;
use writer::Writer;

/// Events that wait to be written.
const BUFFERED: usize = 1 << 16;
/// How often counters are looked at, and the buffer is written if it does not fill before.
const INTERVAL: Duration = Duration::from_millis(10);

/// Where the timeline goes: opened before the boot.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: File,
    limit: u64,
    parts: Vec<TracePart>,
}

impl AsRawFd for TraceFile {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl TraceFile {
    /// The one that the user has asked for.
    ///
    /// # Errors
    /// A line for the user.
    pub fn create(args: &TraceArgs) -> Result<Option<Self>, Failed> {
        let Some(path) = &args.trace else { return Ok(None) };
        let file =
            File::create(path).map_err(|e| Failed::new(format!("cannot write the trace {path:?}: {e}")))?;
        let parts = args.trace_filter.clone();
        Ok(Some(Self { path: path.clone(), file, limit: args.trace_limit, parts }))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Debug, Default)]
struct Buffer {
    events: Vec<(u64, Event)>,
    dropped: u64,
    /// Nothing is taken any more.
    is_closed: bool,
}

/// The buffer.
pub struct Recorder {
    clock: Arc<dyn Clock>,
    parts: Vec<TracePart>,
    buffer: Mutex<Buffer>,
    filled: Condvar,
}

impl Recorder {
    fn new(clock: Arc<dyn Clock>, parts: Vec<TracePart>) -> Arc<Self> {
        Arc::new(Self { clock, parts, buffer: Mutex::default(), filled: Condvar::new() })
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, part: TracePart) -> bool {
        self.parts.contains(&part)
    }

    /// Which part of the machine an event is of.
    fn part(event: &Event) -> TracePart {
        match (event.track, event.what) {
            (_, Happening::Begin(Slice::Message { .. }) | Happening::End(SliceKind::Message, _)) => {
                TracePart::Irq
            }
            (_, Happening::Mark(Mark::Exception { esr: 0, .. })) => TracePart::Irq,
            (_, Happening::Mark(Mark::Exception { .. })) => TracePart::Exceptions,
            (Track::Queue { .. } | Track::Events { .. }, _) => TracePart::Zip,
            (Track::SmmuCommands | Track::SmmuEvents, _) => TracePart::Smmu,
            (Track::Vcpu(_), _) => TracePart::Vcpu,
        }
    }

    fn close(&self) {
        self.buffer().is_closed = true;
        self.filled.notify_all();
    }
}

impl TraceSink for Recorder {
    fn record(&self, event: &Event) {
        if !self.wants(Self::part(event)) {
            return;
        }
        let mut buffer = self.buffer();
        if buffer.is_closed {
            return;
        }
        if buffer.events.len() >= BUFFERED {
            buffer.dropped += 1;
            return;
        }
        // With the lock held: what comes later in the buffer is later.
        let now = self.clock.now_ns();
        buffer.events.push((now, *event));
        if buffer.events.len() == BUFFERED / 2 {
            self.filled.notify_one();
        }
    }
}

/// What is counted elsewhere, and looked at now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// SMMU TLB hits.
    pub tlb_hits: u64,
    /// SMMU walks: misses.
    pub walks: u64,
    /// Stalls and page requests.
    pub page_faults: u64,
}

/// A timeline that is being recorded.
pub struct Tracing {
    recorder: Arc<Recorder>,
    file: Mutex<Option<TraceFile>>,
    writing: Mutex<Option<JoinHandle<()>>>,
    summary: Arc<Mutex<Option<String>>>,
}

impl Tracing {
    /// Takes events from now on.
    #[must_use]
    pub fn new(file: TraceFile, clock: Arc<dyn Clock>) -> Self {
        let recorder = Recorder::new(clock, file.parts.clone());
        Self { recorder, file: Mutex::new(Some(file)), writing: Mutex::default(), summary: Arc::default() }
    }

    /// For models.
    #[must_use]
    pub fn handle(&self) -> Trace {
        Trace::new(self.recorder.clone())
    }

    /// Starts to write. `devices` have the names of accelerators; `counters` is asked every few milliseconds.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn start(
        &self,
        devices: Vec<(StreamId, String)>,
        counters: impl Fn() -> Counters + Send + 'static,
        sandbox: &Sandbox,
    ) -> std::io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(file) = file else { return Ok(()) };
        let (recorder, summary) = (Arc::clone(&self.recorder), Arc::clone(&self.summary));
        let thread = sandbox.spawn(Thread::Trace, "trace", move || {
            let said = write(&recorder, &file, devices, &counters);
            *summary.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        })?;
        *self.writing.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends the recording: what there is to say of it.
    pub fn finish(&self) -> Option<String> {
        self.recorder.close();
        let thread = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let _ = thread.join();
        self.summary.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Writes until the recording ends, the file is as large as it may be, or it can't be written.
fn write(
    recorder: &Recorder,
    file: &TraceFile,
    devices: Vec<(StreamId, String)>,
    counters: &dyn Fn() -> Counters,
) -> String {
    let path = file.path();
    let mut writer = Writer::new(&file.file, file.limit, devices);
    let mut events = Vec::with_capacity(BUFFERED);
    loop {
        let (dropped, is_last) = {
            let half_full = |buffer: &mut Buffer| buffer.events.len() < BUFFERED / 2 && !buffer.is_closed;
            let waited = recorder.filled.wait_timeout_while(recorder.buffer(), INTERVAL, half_full);
            let (mut buffer, _) = waited.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut buffer.events, &mut events);
            (buffer.dropped, buffer.is_closed)
        };
        let now = recorder.clock.now_ns();
        let taken = events.drain(..).try_for_each(|(at_ns, event)| {
            writer.event(at_ns, &event);
            writer.write_if_much()
        });
        if recorder.wants(TracePart::Counters) {
            writer.counters(now, &counters());
        }
        let result = taken.and_then(|()| writer.flush(now, dropped, is_last));
        if let Err(error) = &result {
            recorder.close();
            log::warn!("the trace {path:?} ends here: {error}");
            return format!("the trace {path:?} is not whole: {error}");
        }
        if writer.is_full() {
            recorder.close();
        }
        if is_last || writer.is_full() {
            let bound = if writer.is_full() { "; it has come to its limit and ends early" } else { "" };
            return format!(
                "the trace {path:?} has {} events, {dropped} were dropped{bound}",
                writer.events()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::ManualClock;

    #[test]
    fn full_buffer_drops_and_counts() {
        let recorder = Recorder::new(Arc::new(ManualClock::default()), vec![TracePart::Vcpu]);
        let idle = Event { track: Track::Vcpu(0), what: Happening::Begin(Slice::Idle) };
        for _ in 0..BUFFERED + 5 {
            recorder.record(&idle);
        }
        let other = Event { track: Track::SmmuCommands, what: Happening::Begin(Slice::Execute) };
        recorder.record(&other);
        let buffer = recorder.buffer();
        assert_eq!((buffer.events.len(), buffer.dropped), (BUFFERED, 5));
    }

    #[test]
    fn file_that_takes_nothing_ends_the_recording_with_a_line() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let parts = vec![TracePart::Vcpu];
        let file = TraceFile { path: "/dev/full".into(), file, limit: 1 << 20, parts: parts.clone() };
        let recorder = Recorder::new(Arc::new(ManualClock::default()), parts);
        recorder.record(&Event { track: Track::Vcpu(0), what: Happening::Begin(Slice::Idle) });
        let said = write(&recorder, &file, Vec::new(), &Counters::default);
        assert!(said.contains("is not whole"), "{said}");
        assert!(recorder.buffer().is_closed);
    }
}
