//! What a timeline hears of commands, and what is counted of software's mistakes.

use hw::trace::{Ending, Event, Happening, Mark, RecordingTrace, Slice, SliceKind};
use hw::{Iova, Trace, Track};

use super::*;
#[test]
fn command_is_told_from_its_doorbell_to_its_event_entry_in_order() {
    let sink = Arc::new(RecordingTrace::default());
    let machine = Machine::traced(Trace::new(sink.clone()));
    machine.start(64);
    let mut ring = machine.start_queue(3, 0, None);
    machine.run();
    let _ = sink.take();
    submit(&machine, &mut ring, 1);
    machine.run();
    let queue = Track::Queue { stream: STREAM, queue: 3 };
    let events: Vec<Event> = sink.take().into_iter().filter(|event| event.track == queue).collect();
    let what: Vec<Happening> = events.iter().map(|event| event.what).collect();
    let at = Iova(ring.sq);
    let doorbell = Happening::Mark(Mark::Doorbell { first: 0, tail: 1, depth: 1024 });
    assert_eq!(what[0], doorbell);
    assert_eq!(what[1], Happening::Begin(Slice::Command { index: 0, pasid: None, queue_type: 0 }));
    assert_eq!(what[2], Happening::Begin(Slice::Fetch { at }));
    assert_eq!(what[3], Happening::Begin(Slice::Execute));
    assert!(matches!(what[4], Happening::End(SliceKind::Execute, Ending::Bytes { .. })));
    assert_eq!(what[5], Happening::Begin(Slice::WriteBack { at }));
    assert_eq!(what[6], Happening::Begin(Slice::Complete { at: Iova(ring.cq) }));
    assert_eq!(what[7], Happening::End(SliceKind::Command, Ending::Said("completed")));
    assert_eq!(what.len(), 8);
}

#[test]
fn doorbells_to_queues_that_are_not_there_are_counted() {
    let machine = Machine::new();
    for _ in 0..3 {
        ring_page(&machine.zip, 200, 0);
    }
    assert_eq!(machine.errors.counted(), [("doorbells to queues that are not there", 3)]);
}
