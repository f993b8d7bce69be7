//! What models tell of their work for a timeline: the steps of accelerator commands, what the SMMU does, what vCPUs do.
//!
//! A model has a [`Trace`], given to it as its fault plan is, and says when something begins, ends or happens. Events are data: what
//! they are called and written as is decided by the [`TraceSink`]. Without one, [`Trace::emit`] is a test of a pointer, and no
//! event is made. Deliberately absent: time, which the sink adds when it puts events in order; files.
//!
//! On a [`Track`] slices nest. Each kind has a level ([`SliceKind::level`]): what begins ends all that is open at its level or
//! deeper, and what ends also ends what is deeper. So a sink that loses events can still write slices that nest.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::fault::Command;
use crate::{Dir, Iova, Pasid, Requester, StreamId};

/// Where slices nest: one thing happens there after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// The commands of an accelerator's queue.
    Queue {
        /// The accelerator.
        stream: StreamId,
        /// Number of the queue.
        queue: u16,
    },
    /// Event entries and messages of an accelerator.
    Events {
        /// The accelerator.
        stream: StreamId,
    },
    /// The SMMU's command queue.
    SmmuCommands,
    /// The SMMU's event queue.
    SmmuEvents,
    /// A vCPU.
    Vcpu(u32),
}

impl Track {
    /// The queue whose command an access is made for, if it is for one.
    #[must_use]
    pub const fn of(who: &Requester) -> Option<Self> {
        Self::of_command(who.tag.stream, who.command)
    }

    /// The queue of a command.
    #[must_use]
    pub const fn of_command(stream: StreamId, command: Option<Command>) -> Option<Self> {
        match command {
            Some(Command { queue, .. }) => Some(Self::Queue { stream, queue }),
            None => None,
        }
    }
}

/// Something that has a beginning and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// A worker has an accelerator's command.
    Command {
        /// Place of its SQE in the ring.
        index: u16,
        /// Its address space, if it is a process's.
        pasid: Option<Pasid>,
        /// Type of its queue; the engine's meaning.
        queue_type: u8,
    },
    /// The SQE is read.
    Fetch {
        /// Where.
        at: Iova,
    },
    /// The engine works.
    Execute,
    /// The SQE is written back.
    WriteBack {
        /// Where.
        at: Iova,
    },
    /// The CQE is written.
    Complete {
        /// Where.
        at: Iova,
    },
    /// The device's translation cache asks for a translation.
    TranslationRequest {
        /// The address.
        at: Iova,
    },
    /// The SMMU reads translation tables.
    Walk {
        /// The address that it translates.
        at: Iova,
    },
    /// An access is stalled in the SMMU.
    Stall {
        /// The address.
        at: Iova,
        /// Which way.
        dir: Dir,
    },
    /// An access waits for the answer to a group of page requests.
    PageRequest {
        /// The first page.
        at: Iova,
        /// How many.
        pages: u32,
        /// Page Request Group index.
        group: u16,
    },
    /// An entry of the accelerator's event queue is written.
    EventEntry {
        /// The queue that has completions.
        queue: u16,
        /// The latest of them: the place of its SQE.
        index: Option<u16>,
    },
    /// An accelerator's message (MSI).
    Message {
        /// Its number.
        vector: u16,
    },
    /// The SMMU executes a command.
    SmmuCommand {
        /// Its name.
        name: &'static str,
        /// Its two doublewords.
        dwords: [u64; 2],
        /// What it answers.
        answers: Option<Answers>,
    },
    /// The vCPU executes guest code.
    Guest,
    /// The vCPU waits for an interrupt or an event, or is off.
    Idle,
}

/// What waits for an answer of software. STAGs and group indices are numbers of their own each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answers {
    /// A stalled access.
    Stall {
        /// Whose.
        stream: StreamId,
        /// Its STAG.
        stag: u16,
    },
    /// A group of page requests.
    PageRequests {
        /// Whose.
        stream: StreamId,
        /// Page Request Group index.
        group: u16,
    },
}

/// A slice without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceKind {
    /// [`Slice::Command`]
    Command,
    /// [`Slice::Fetch`]
    Fetch,
    /// [`Slice::Execute`]
    Execute,
    /// [`Slice::WriteBack`]
    WriteBack,
    /// [`Slice::Complete`]
    Complete,
    /// [`Slice::TranslationRequest`]
    TranslationRequest,
    /// [`Slice::Walk`]
    Walk,
    /// [`Slice::Stall`]
    Stall,
    /// [`Slice::PageRequest`]
    PageRequest,
    /// [`Slice::EventEntry`]
    EventEntry,
    /// [`Slice::Message`]
    Message,
    /// [`Slice::SmmuCommand`]
    SmmuCommand,
    /// [`Slice::Guest`]
    Guest,
    /// [`Slice::Idle`]
    Idle,
}

impl Slice {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> SliceKind {
        match self {
            Self::Command { .. } => SliceKind::Command,
            Self::Fetch { .. } => SliceKind::Fetch,
            Self::Execute => SliceKind::Execute,
            Self::WriteBack { .. } => SliceKind::WriteBack,
            Self::Complete { .. } => SliceKind::Complete,
            Self::TranslationRequest { .. } => SliceKind::TranslationRequest,
            Self::Walk { .. } => SliceKind::Walk,
            Self::Stall { .. } => SliceKind::Stall,
            Self::PageRequest { .. } => SliceKind::PageRequest,
            Self::EventEntry { .. } => SliceKind::EventEntry,
            Self::Message { .. } => SliceKind::Message,
            Self::SmmuCommand { .. } => SliceKind::SmmuCommand,
            Self::Guest => SliceKind::Guest,
            Self::Idle => SliceKind::Idle,
        }
    }
}

impl SliceKind {
    /// How deep it lies on its track: within slices of lower levels, and never within one of its own.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::Command
            | Self::EventEntry
            | Self::Message
            | Self::SmmuCommand
            | Self::Guest
            | Self::Idle => 0,
            Self::Fetch | Self::Execute | Self::WriteBack | Self::Complete => 1,
            Self::TranslationRequest => 2,
            Self::Walk | Self::Stall | Self::PageRequest => 3,
        }
    }
}

/// How a slice ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// As it should, or nothing is known of it.
    #[default]
    Plain,
    /// With this result.
    Said(&'static str),
    /// With so many bytes.
    Bytes {
        /// Consumed.
        consumed: u64,
        /// Produced.
        produced: u64,
    },
}

/// Something that happens at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Software has put commands into a queue.
    Doorbell {
        /// Place of the first new SQE in the ring.
        first: u16,
        /// Place after the last one.
        tail: u16,
        /// Entries of the ring.
        depth: u16,
    },
    /// The SMMU has written an event record.
    Record {
        /// Its name.
        name: &'static str,
        /// Whose access.
        stream: StreamId,
        /// SubstreamID, if the access has one.
        pasid: Option<u32>,
        /// The device's command, if the access is made for one.
        command: Option<Command>,
        /// The input address.
        at: Iova,
        /// If the access is stalled.
        stag: Option<u16>,
    },
    /// A vCPU takes an exception to EL1.
    Exception {
        /// What: `IRQ`, `SVC`, ...
        name: &'static str,
        /// ESR_EL1; 0 for interrupts.
        esr: u64,
        /// ELR_EL1.
        elr: u64,
    },
}

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It begins.
    Begin(Slice),
    /// It ends. One that is not open is not to be minded: its end may have been told by two.
    End(SliceKind, Ending),
    /// It happens.
    Mark(Mark),
}

/// Something that happens somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub track: Track,
    /// What.
    pub what: Happening,
}

/// Takes events, from any thread, under models' locks: it takes only leaf locks and waits for nobody.
pub trait TraceSink: Send + Sync {
    /// Takes one. Events of a track come in their order.
    fn record(&self, event: &Event);
}

/// What a model tells its events to. The default has no sink.
#[derive(Clone, Default)]
pub struct Trace(Option<Arc<dyn TraceSink>>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Trace(on)" } else { "Trace(off)" })
    }
}

impl Trace {
    /// A handle to a sink, for all models of a machine.
    #[must_use]
    pub fn new(sink: Arc<dyn TraceSink>) -> Self {
        Self(Some(sink))
    }

    /// Whether anybody takes events.
    #[inline]
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells what happens on a track. The event is made only if somebody takes it.
    #[inline]
    pub fn emit(&self, track: Track, what: impl FnOnce() -> Happening) {
        if let Some(sink) = &self.0 {
            tell(&**sink, track, what);
        }
    }

    /// A slice begins.
    #[inline]
    pub fn begin(&self, track: Track, slice: impl FnOnce() -> Slice) {
        self.emit(track, || Happening::Begin(slice()));
    }

    /// A slice ends.
    #[inline]
    pub fn end(&self, track: Track, slice: SliceKind, ending: Ending) {
        self.emit(track, || Happening::End(slice, ending));
    }

    /// Something happens.
    #[inline]
    pub fn mark(&self, track: Track, mark: impl FnOnce() -> Mark) {
        self.emit(track, || Happening::Mark(mark()));
    }
}

#[cold]
fn tell(sink: &dyn TraceSink, track: Track, what: impl FnOnce() -> Happening) {
    sink.record(&Event { track, what: what() });
}

/// A sink for tests: keeps all events.
#[derive(Debug, Default)]
pub struct RecordingTrace(Mutex<Vec<Event>>);

impl RecordingTrace {
    /// The events since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TraceSink for RecordingTrace {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(*event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_made_only_if_somebody_takes_it() {
        Trace::default().begin(Track::SmmuCommands, || panic!("nobody takes it"));
        let sink = Arc::new(RecordingTrace::default());
        let trace = Trace::new(sink.clone());
        trace.begin(Track::Vcpu(1), || Slice::Idle);
        trace.end(Track::Vcpu(1), SliceKind::Idle, Ending::Plain);
        let event = |what| Event { track: Track::Vcpu(1), what };
        let begin = event(Happening::Begin(Slice::Idle));
        assert_eq!(sink.take(), [begin, event(Happening::End(SliceKind::Idle, Ending::Plain))]);
        assert_eq!(sink.take(), []);
    }
}
