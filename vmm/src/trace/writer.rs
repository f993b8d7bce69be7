//! The trace file: the JSON form of trace events that Perfetto's viewer and Chrome's read.
//!
//! Slices always nest, whatever events were lost: see [`hw::trace`]. A command's way is an arrow from its doorbell through its slice to
//! the event entry and the message; a stall's or page request's is one to the event record and the command that answers it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

use hw::trace::{Answers, Ending, Event, Happening, Mark, Slice, SliceKind};
use hw::{StreamId, Track};

use super::Counters;

/// Room that is kept for the ends of open slices and the last words.
const RESERVED: u64 = 64 << 10;
/// The least that a file may be bounded to.
pub(crate) const LEAST_LIMIT: u64 = 2 * RESERVED;
/// When so many bytes have been made, they are written.
const CHUNK: usize = 1 << 20;
/// Most answers that arrows are kept for.
const MOST_ANSWERS: usize = 4096;

const SMMU: u64 = 1;
const VCPUS: u64 = 2;
const COUNTERS: u64 = 3;
const FIRST_DEVICE: u64 = 16;
/// The row of a device's event entries and messages.
const EVENTS_ROW: u64 = 0xffff_ffff;

/// Commands of a queue that wait for their turn.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    first: u16,
    count: u16,
    depth: u16,
    /// The arrow of the first.
    arrow: u64,
}

#[derive(Debug, Default)]
struct Row {
    process: u64,
    thread: u64,
    open: Vec<SliceKind>,
    waiting: Waiting,
    /// Commands that were put into the queue.
    commands: u64,
    /// The command that began last: its place in the ring, and its arrow.
    latest: Option<(u16, u64)>,
    /// The arrow of the stall that has no record yet.
    stalled: Option<u64>,
    /// The arrow that leads on from the event entry that was written last.
    entry: Option<u64>,
}

/// Writes events to a file.
pub(super) struct Writer<W: Write> {
    to: W,
    out: Vec<u8>,
    written: u64,
    limit: u64,
    events: u64,
    rows: BTreeMap<Track, Row>,
    devices: Vec<(StreamId, String)>,
    next_arrow: u64,
    /// Arrows to what answers them.
    answers: HashMap<Answers, u64>,
    in_flight: u64,
    counted: Option<Counters>,
    is_full: bool,
}

/// Guest time as the format has it: microseconds.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

const fn name(slice: SliceKind) -> &'static str {
    match slice {
        SliceKind::Command => "command",
        SliceKind::Fetch => "fetch SQE",
        SliceKind::Execute => "execute",
        SliceKind::WriteBack => "write back SQE",
        SliceKind::Complete => "write CQE",
        SliceKind::TranslationRequest => "Translation Request",
        SliceKind::Walk => "walk",
        SliceKind::Stall => "stall",
        SliceKind::PageRequest => "Page Request",
        SliceKind::EventEntry => "write EQE",
        SliceKind::Message => "MSI",
        SliceKind::SmmuCommand => "SMMU command",
        SliceKind::Guest => "guest",
        SliceKind::Idle => "idle",
    }
}

impl<W: Write> Writer<W> {
    pub(super) fn new(to: W, limit: u64, devices: Vec<(StreamId, String)>) -> Self {
        let mut writer = Self {
            to,
            out: b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n".to_vec(),
            written: 0,
            limit,
            events: 0,
            rows: BTreeMap::new(),
            devices,
            next_arrow: 1,
            answers: HashMap::new(),
            in_flight: 0,
            counted: None,
            is_full: false,
        };
        writer.name_process(SMMU, "SMMU");
        writer.name_process(VCPUS, "vCPUs");
        writer.name_process(COUNTERS, "counters");
        for index in 0..writer.devices.len() {
            let name = writer.devices[index].1.clone();
            writer.name_process(FIRST_DEVICE + index as u64, &name);
        }
        writer
    }

    pub(super) const fn events(&self) -> u64 {
        self.events
    }

    /// Whether the file is as large as it may be.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether there is room for something more but the last words.
    const fn has_room(&mut self) -> bool {
        self.is_full |= self.written + self.out.len() as u64 + RESERVED > self.limit;
        !self.is_full
    }

    fn put(&mut self, what: fmt::Arguments<'_>) {
        if self.events != 0 {
            self.out.extend_from_slice(b",\n");
        }
        self.events += 1;
        // A vector takes everything.
        let _ = self.out.write_fmt(what);
    }

    fn name_process(&mut self, process: u64, name: &str) {
        self.put(format_args!(
            r#"{{"ph":"M","name":"process_name","pid":{process},"tid":0,"args":{{"name":"{name}"}}}}"#
        ));
    }

    fn name_row(&mut self, (process, thread): (u64, u64), name: fmt::Arguments<'_>) {
        self.put(format_args!(
            r#"{{"ph":"M","name":"thread_name","pid":{process},"tid":{thread},"args":{{"name":"{name}"}}}}"#
        ));
    }

    fn process_of(&self, stream: StreamId) -> u64 {
        let index = self.devices.iter().position(|(other, _)| *other == stream);
        index.map_or(FIRST_DEVICE + 0x1000 + u64::from(stream.0), |index| FIRST_DEVICE + index as u64)
    }

    /// The row of a track, named when it first appears.
    fn row(&mut self, track: Track) -> &mut Row {
        if !self.rows.contains_key(&track) {
            let (process, thread) = match track {
                Track::Queue { stream, queue } => (self.process_of(stream), 2 * u64::from(queue) + 2),
                Track::Events { stream } => (self.process_of(stream), EVENTS_ROW),
                Track::SmmuCommands => (SMMU, 1),
                Track::SmmuEvents => (SMMU, 2),
                Track::Vcpu(index) => (VCPUS, u64::from(index) + 1),
            };
            let at = (process, thread);
            match track {
                Track::Queue { queue, .. } => {
                    self.name_row((process, thread - 1), format_args!("queue {queue} doorbells"));
                    self.name_row(at, format_args!("queue {queue}"));
                }
                Track::Events { .. } => self.name_row(at, format_args!("events")),
                Track::SmmuCommands => self.name_row(at, format_args!("command queue")),
                Track::SmmuEvents => self.name_row(at, format_args!("event queue")),
                Track::Vcpu(index) => self.name_row(at, format_args!("vCPU {index}")),
            }
            self.rows.insert(track, Row { process, thread, ..Row::default() });
        }
        self.rows.get_mut(&track).expect("just put there")
    }

    /// Takes an event.
    pub(super) fn event(&mut self, at_ns: u64, event: &Event) {
        if !self.has_room() {
            return;
        }
        match event.what {
            Happening::Begin(slice) => self.begin(at_ns, event.track, &slice),
            Happening::End(slice, ending) => {
                let row = self.row(event.track);
                if let Some(depth) = row.open.iter().rposition(|open| *open == slice) {
                    self.close(at_ns, event.track, depth + 1);
                    self.close_one(at_ns, event.track, ending);
                }
            }
            Happening::Mark(mark) => self.mark(at_ns, event.track, &mark),
        }
    }

    /// Ends what is open but for so many.
    fn close(&mut self, at_ns: u64, track: Track, depth: usize) {
        while self.row(track).open.len() > depth {
            self.close_one(at_ns, track, Ending::Plain);
        }
    }

    fn close_one(&mut self, at_ns: u64, track: Track, ending: Ending) {
        let row = self.row(track);
        let at = (row.process, row.thread);
        let Some(slice) = row.open.pop() else { return };
        if slice == SliceKind::Command {
            self.in_flight -= 1;
            self.count(at_ns, "commands in flight", self.in_flight);
        }
        let ((pid, tid), ts) = (at, Micros(at_ns));
        match ending {
            Ending::Plain => self.end(at_ns, at),
            Ending::Said(said) => self.put(format_args!(
                r#"{{"ph":"E","pid":{pid},"tid":{tid},"ts":{ts},"args":{{"result":"{said}"}}}}"#
            )),
            Ending::Bytes { consumed, produced } => self.put(format_args!(
                r#"{{"ph":"E","pid":{pid},"tid":{tid},"ts":{ts},"args":{{"consumed":{consumed},"produced":{produced}}}}}"#
            )),
        }
    }

    fn begin(&mut self, at_ns: u64, track: Track, slice: &Slice) {
        let kind = slice.kind();
        let kept = self.row(track).open.iter().take_while(|open| open.level() < kind.level()).count();
        self.close(at_ns, track, kept);
        let row = self.row(track);
        row.open.push(kind);
        let (at, name) = ((row.process, row.thread), name(kind));
        match *slice {
            Slice::Command { index, pasid, queue_type } => {
                let pasid = pasid.map_or("null".to_owned(), |pasid| pasid.get().to_string());
                self.open(
                    at_ns,
                    at,
                    name,
                    format_args!(r#""index":{index},"PASID":{pasid},"queue type":{queue_type}"#),
                );
                self.in_flight += 1;
                self.count(at_ns, "commands in flight", self.in_flight);
                self.begin_command(at_ns, track, index);
            }
            Slice::Fetch { at: address }
            | Slice::WriteBack { at: address }
            | Slice::Complete { at: address }
            | Slice::TranslationRequest { at: address }
            | Slice::Walk { at: address } => {
                self.open(at_ns, at, name, format_args!(r#""address":"{:#x}""#, address.0));
            }
            Slice::Stall { at: address, dir } => {
                self.open(
                    at_ns,
                    at,
                    name,
                    format_args!(r#""address":"{:#x}","access":"{dir:?}""#, address.0),
                );
                let arrow = self.new_arrow();
                self.row(track).stalled = Some(arrow);
                self.arrow(at_ns, at, 's', arrow);
            }
            Slice::PageRequest { at: address, pages, group } => {
                self.open(
                    at_ns,
                    at,
                    name,
                    format_args!(r#""address":"{:#x}","pages":{pages},"group":{group}"#, address.0),
                );
                if let Track::Queue { stream, .. } = track {
                    let arrow = self.new_arrow();
                    self.arrow(at_ns, at, 's', arrow);
                    self.await_answer(Answers::PageRequests { stream, group }, arrow);
                }
            }
            Slice::EventEntry { queue, index } => {
                self.open(at_ns, at, name, format_args!(r#""queue":{queue}"#));
                if let Track::Events { stream } = track {
                    let latest = self.row(Track::Queue { stream, queue }).latest;
                    let arrow = latest.filter(|(other, _)| Some(*other) == index).map(|(_, arrow)| arrow);
                    if let Some(arrow) = arrow {
                        self.arrow(at_ns, at, 't', arrow);
                    }
                    self.row(track).entry = arrow;
                }
            }
            Slice::Message { vector } => {
                self.open(at_ns, at, name, format_args!(r#""vector":{vector}"#));
                if let Some(arrow) = self.row(track).entry.take() {
                    self.arrow(at_ns, at, 'f', arrow);
                }
            }
            Slice::SmmuCommand { name, dwords: [d0, d1], answers } => {
                self.open(at_ns, at, name, format_args!(r#""d0":"{d0:#018x}","d1":"{d1:#018x}""#));
                if let Some(arrow) = answers.and_then(|asked| self.answers.remove(&asked)) {
                    self.arrow(at_ns, at, 'f', arrow);
                }
            }
            Slice::Execute | Slice::Guest | Slice::Idle => self.open(at_ns, at, name, format_args!("")),
        }
    }

    fn open(&mut self, at_ns: u64, (pid, tid): (u64, u64), name: &str, args: fmt::Arguments<'_>) {
        let ts = Micros(at_ns);
        self.put(format_args!(
            r#"{{"ph":"B","name":"{name}","pid":{pid},"tid":{tid},"ts":{ts},"args":{{{args}}}}}"#
        ));
    }

    fn end(&mut self, at_ns: u64, (pid, tid): (u64, u64)) {
        self.put(format_args!(r#"{{"ph":"E","pid":{pid},"tid":{tid},"ts":{}}}"#, Micros(at_ns)));
    }

    const fn new_arrow(&mut self) -> u64 {
        self.next_arrow += 1;
        self.next_arrow - 1
    }

    /// An arrow's start (`s`), a place that it passes (`t`), or its end (`f`): in the slice that is open there.
    fn arrow(&mut self, at_ns: u64, (pid, tid): (u64, u64), ph: char, arrow: u64) {
        let ts = Micros(at_ns);
        self.put(format_args!(
            r#"{{"ph":"{ph}","bp":"e","cat":"flow","name":"flow","id":{arrow},"pid":{pid},"tid":{tid},"ts":{ts}}}"#
        ));
    }

    /// A wait in a queue begins (`b`) or ends (`e`). Waits of a queue overlap, so they are no slices of a row.
    fn wait(&mut self, at_ns: u64, (pid, tid): (u64, u64), ph: char, arrow: u64) {
        let ts = Micros(at_ns);
        self.put(format_args!(
            r#"{{"ph":"{ph}","cat":"queue","name":"queue wait","id":{arrow},"pid":{pid},"tid":{tid},"ts":{ts}}}"#
        ));
    }

    fn await_answer(&mut self, answers: Answers, arrow: u64) {
        if self.answers.len() < MOST_ANSWERS || self.answers.contains_key(&answers) {
            self.answers.insert(answers, arrow);
        }
    }

    fn begin_command(&mut self, at_ns: u64, track: Track, index: u16) {
        let row = self.row(track);
        let at = (row.process, row.thread);
        let waiting = row.waiting;
        let place = distance(waiting.first, index, waiting.depth);
        if place >= waiting.count {
            row.latest = None;
            return;
        }
        let arrow = waiting.arrow + u64::from(place);
        row.latest = Some((index, arrow));
        row.waiting = Waiting {
            first: (index + 1) % waiting.depth,
            count: waiting.count - place - 1,
            arrow: arrow + 1,
            ..waiting
        };
        self.end_each_wait(at_ns, at, waiting.arrow..arrow + 1);
        self.arrow(at_ns, at, 't', arrow);
    }

    fn end_waits(&mut self, at_ns: u64, track: Track) {
        let row = self.row(track);
        let (at, waiting) = ((row.process, row.thread), std::mem::take(&mut row.waiting));
        self.end_each_wait(at_ns, at, waiting.arrow..waiting.arrow + u64::from(waiting.count));
    }

    fn end_each_wait(&mut self, at_ns: u64, at: (u64, u64), arrows: Range<u64>) {
        for arrow in arrows {
            if !self.has_room() {
                return;
            }
            self.wait(at_ns, at, 'e', arrow);
        }
    }

    fn mark(&mut self, at_ns: u64, track: Track, mark: &Mark) {
        let row = self.row(track);
        let at = (row.process, row.thread);
        match *mark {
            Mark::Doorbell { first, tail, depth } => {
                let waiting = row.waiting;
                let is_next = waiting.count != 0
                    && waiting.depth == depth
                    && (waiting.first + waiting.count) % depth == first;
                let added = distance(first, tail, depth).min(depth.saturating_sub(1));
                if !is_next || waiting.count + added >= depth {
                    // The queue has been started anew.
                    self.end_waits(at_ns, track);
                }
                let bell = (at.0, at.1 - 1);
                self.open(at_ns, bell, "doorbell", format_args!(r#""tail":{tail},"commands":{added}"#));
                let row = self.row(track);
                // The arrows of a queue's commands have numbers of their own, one after the other.
                let start = row.process << 42 | row.thread << 32 | row.commands;
                row.commands = (row.commands + u64::from(added)) & 0xffff_ffff;
                let waiting = &mut row.waiting;
                if waiting.count == 0 {
                    *waiting = Waiting { first, count: added, depth, arrow: start };
                } else {
                    waiting.count += added;
                }
                // A ring has tens of thousands of entries, all of which may be in one doorbell.
                for arrow in start..start + u64::from(added) {
                    if !self.has_room() {
                        break;
                    }
                    self.arrow(at_ns, bell, 's', arrow);
                    self.wait(at_ns, at, 'b', arrow);
                }
                self.end(at_ns, bell);
            }
            Mark::Record { name, stream, pasid, command, at: address, stag } => {
                let pasid = pasid.map_or("null".to_owned(), |pasid| pasid.to_string());
                let stag_text = stag.map_or("null".to_owned(), |stag| stag.to_string());
                self.open(
                    at_ns,
                    at,
                    name,
                    format_args!(
                        r#""StreamID":{},"PASID":{pasid},"address":"{:#x}","STAG":{stag_text}"#,
                        stream.0, address.0
                    ),
                );
                let stalled =
                    Track::of_command(stream, command).and_then(|queue| self.row(queue).stalled.take());
                if let (Some(arrow), Some(stag)) = (stalled, stag) {
                    self.arrow(at_ns, at, 't', arrow);
                    self.await_answer(Answers::Stall { stream, stag }, arrow);
                }
                self.end(at_ns, at);
            }
            Mark::Exception { name, esr, elr } => {
                let ((pid, tid), ts) = (at, Micros(at_ns));
                self.put(format_args!(
                    r#"{{"ph":"i","s":"t","name":"{name}","pid":{pid},"tid":{tid},"ts":{ts},"args":{{"ESR_EL1":"{esr:#x}","ELR_EL1":"{elr:#x}"}}}}"#
                ));
            }
        }
    }

    fn count(&mut self, at_ns: u64, name: &str, value: u64) {
        let ts = Micros(at_ns);
        self.put(format_args!(
            r#"{{"ph":"C","name":"{name}","pid":{COUNTERS},"tid":0,"ts":{ts},"args":{{"value":{value}}}}}"#
        ));
    }

    /// Counters, if they have changed.
    pub(super) fn counters(&mut self, at_ns: u64, counters: &Counters) {
        if self.is_full || self.counted == Some(*counters) {
            return;
        }
        self.counted = Some(*counters);
        self.count(at_ns, "TLB hits", counters.tlb_hits);
        self.count(at_ns, "TLB misses", counters.walks);
        self.count(at_ns, "page faults", counters.page_faults);
    }

    /// Writes what there is; with the last of it, or at the bound, the end of the file.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn flush(&mut self, at_ns: u64, dropped: u64, is_last: bool) -> io::Result<()> {
        if is_last || self.is_full {
            let tracks: Vec<_> = self.rows.keys().copied().collect();
            for track in tracks {
                self.close(at_ns, track, 0);
                if !self.is_full {
                    self.end_waits(at_ns, track);
                }
            }
            let end = if self.is_full { "limit" } else { "end of the run" };
            let words = format!(
                "\n],\"otherData\":{{\"clock\":\"guest time\",\"dropped\":\"{dropped}\",\"ended by\":\"{end}\"}}}}\n"
            );
            self.out.extend_from_slice(words.as_bytes());
        }
        self.write_out()
    }

    /// Writes what there is, if it is much.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn write_if_much(&mut self) -> io::Result<()> {
        if self.out.len() < CHUNK { Ok(()) } else { self.write_out() }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.to.write_all(&self.out)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }
}

/// How far it is in a ring.
const fn distance(from: u16, to: u16, depth: u16) -> u16 {
    if depth == 0 || from >= depth || to >= depth {
        return u16::MAX;
    }
    if to >= from { to - from } else { to + (depth - from) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw::fault::Command;
    use hw::{Dir, Iova};
    use proptest::prelude::*;
    use serde_json::Value;

    fn written(limit: u64, events: &[Event]) -> Value {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, limit, vec![(StreamId(8), "zip0".into())]);
        (0..).zip(events).for_each(|(at, event)| writer.event(at, event));
        let end = events.len() as u64;
        writer.flush(end, 3, true).unwrap();
        drop(writer);
        serde_json::from_slice(&file).unwrap()
    }

    const QUEUE: Track = Track::Queue { stream: StreamId(8), queue: 1 };

    fn any_event() -> impl Strategy<Value = Event> {
        let track = prop_oneof![
            Just(QUEUE),
            Just(Track::Events { stream: StreamId(8) }),
            Just(Track::SmmuCommands),
            Just(Track::SmmuEvents),
            Just(Track::Vcpu(0))
        ];
        let at = Iova(0x1000);
        let command = Some(Command { queue: 1, index: None });
        let slice = prop_oneof![
            (0..9_u16).prop_map(|index| Slice::Command { index, pasid: None, queue_type: 0 }),
            Just(Slice::Fetch { at }),
            Just(Slice::Execute),
            Just(Slice::TranslationRequest { at }),
            Just(Slice::Stall { at, dir: Dir::Read }),
            Just(Slice::PageRequest { at, pages: 2, group: 7 }),
            Just(Slice::EventEntry { queue: 1, index: Some(3) }),
            Just(Slice::Message { vector: 0 }),
            Just(Slice::SmmuCommand {
                name: "CMD_RESUME",
                dwords: [0; 2],
                answers: Some(Answers::Stall { stream: StreamId(8), stag: 7 })
            }),
            Just(Slice::Idle),
        ];
        let mark = prop_oneof![
            (0..9_u16, 0..9_u16, 0..9_u16).prop_map(|(first, tail, depth)| Mark::Doorbell {
                first,
                tail,
                depth
            }),
            Just(Mark::Record {
                name: "F_TRANSLATION",
                stream: StreamId(8),
                pasid: None,
                command,
                at,
                stag: Some(7)
            }),
        ];
        // What models tell: doorbells ring at queues.
        (track, slice, mark, 0..5).prop_map(|(track, slice, mark, which)| match (which, mark) {
            (0 | 1, _) => Event { track, what: Happening::Begin(slice) },
            (2 | 3, _) => Event { track, what: Happening::End(slice.kind(), Ending::Said("so")) },
            (_, Mark::Doorbell { .. }) => Event { track: QUEUE, what: Happening::Mark(mark) },
            _ => Event { track: Track::SmmuEvents, what: Happening::Mark(mark) },
        })
    }

    proptest! {
        #[test]
        fn any_events_make_slices_that_nest_and_waits_that_end(events in proptest::collection::vec(any_event(), 0..200)) {
            let trace = written(1 << 24, &events);
            let mut open = BTreeMap::<(u64, u64), i64>::new();
            let mut waits = BTreeMap::<u64, i64>::new();
            for event in trace["traceEvents"].as_array().unwrap() {
                let at = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
                match event["ph"].as_str().unwrap() {
                    "B" => *open.entry(at).or_default() += 1,
                    "E" => {
                        let depth = open.entry(at).or_default();
                        *depth -= 1;
                        prop_assert!(*depth >= 0);
                    }
                    "s" | "t" | "f" => prop_assert!(open[&at] > 0, "an arrow has a slice"),
                    "b" => *waits.entry(event["id"].as_u64().unwrap()).or_default() += 1,
                    "e" => *waits.entry(event["id"].as_u64().unwrap()).or_default() -= 1,
                    _ => {}
                }
            }
            prop_assert!(open.values().all(|depth| *depth == 0));
            prop_assert!(waits.values().all(|depth| *depth == 0), "{waits:?}");
        }
    }

    #[test]
    fn file_at_its_bound_is_whole_and_says_so() {
        let idle = Event { track: Track::Vcpu(0), what: Happening::Begin(Slice::Idle) };
        let trace = written(LEAST_LIMIT, &vec![idle; 10_000]);
        assert_eq!(trace["otherData"]["ended by"], "limit");
        assert_eq!(trace["otherData"]["dropped"], "3");
        assert!(trace.to_string().len() < LEAST_LIMIT as usize);
    }

    #[test]
    fn doorbell_of_a_whole_ring_stays_within_the_bound() {
        let bell = Mark::Doorbell { first: 0, tail: 0xfffe, depth: 0xffff };
        let trace = written(LEAST_LIMIT, &[Event { track: QUEUE, what: Happening::Mark(bell) }]);
        assert_eq!(trace["otherData"]["ended by"], "limit");
        assert!(trace.to_string().len() < LEAST_LIMIT as usize);
    }

    /// The ends of arrows.
    fn ends(trace: &Value) -> Vec<&Value> {
        trace["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "f").collect()
    }

    #[test]
    fn stall_and_page_requests_of_the_same_number_have_each_their_own_answer() {
        let stream = StreamId(8);
        let at = Iova(0x1000);
        let other = Track::Queue { stream, queue: 2 };
        let command = Some(Command { queue: 1, index: None });
        let record = Mark::Record { name: "F_TRANSLATION", stream, pasid: None, command, at, stag: Some(7) };
        let answer = |name, answers| Event {
            track: Track::SmmuCommands,
            what: Happening::Begin(Slice::SmmuCommand { name, dwords: [0; 2], answers: Some(answers) }),
        };
        let trace = written(
            1 << 20,
            &[
                Event { track: QUEUE, what: Happening::Begin(Slice::Stall { at, dir: Dir::Read }) },
                Event { track: Track::SmmuEvents, what: Happening::Mark(record) },
                Event { track: other, what: Happening::Begin(Slice::PageRequest { at, pages: 1, group: 7 }) },
                answer("CMD_PRI_RESP", Answers::PageRequests { stream, group: 7 }),
                answer("CMD_RESUME", Answers::Stall { stream, stag: 7 }),
            ],
        );
        let ends = ends(&trace);
        let id_of_start = |tid: u64| {
            let events = trace["traceEvents"].as_array().unwrap();
            events.iter().find(|event| event["ph"] == "s" && event["tid"] == tid).unwrap()["id"].clone()
        };
        assert_eq!(ends.len(), 2);
        assert_eq!([&ends[0]["id"], &ends[1]["id"]], [&id_of_start(6), &id_of_start(4)]);
    }

    #[test]
    fn message_of_one_accelerator_does_not_end_the_arrow_of_another() {
        let (stream, other) = (StreamId(8), StreamId(9));
        let event = |track, what| Event { track, what };
        let mark = Mark::Doorbell { first: 0, tail: 1, depth: 8 };
        let command = Slice::Command { index: 0, pasid: None, queue_type: 0 };
        let entry = Slice::EventEntry { queue: 1, index: Some(0) };
        let message =
            |stream| event(Track::Events { stream }, Happening::Begin(Slice::Message { vector: 0 }));
        let trace = written(
            1 << 20,
            &[
                event(QUEUE, Happening::Mark(mark)),
                event(QUEUE, Happening::Begin(command)),
                event(Track::Events { stream }, Happening::Begin(entry)),
                message(other),
                message(stream),
            ],
        );
        let ends = ends(&trace);
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0]["pid"], FIRST_DEVICE);
    }
}
