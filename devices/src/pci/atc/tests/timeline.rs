//! What a timeline hears of Translation Requests and page requests.

use hw::fault::Command;
use hw::trace::{Ending, Event, Happening, RecordingTrace, Slice, SliceKind};
use hw::{Trace, Track};

use super::*;

#[test]
fn page_request_is_told_from_the_translation_that_fails_to_the_one_after_its_answer() {
    let sink = Arc::new(RecordingTrace::default());
    let m = Bench::traced(8, Trace::new(sink.clone()));
    let mut who = process(1);
    who.command = Some(Command { queue: 4, index: Some(0) });
    thread::scope(|scope| {
        let access = reader(&m, scope, &who, 0x1010, 4);
        let request = m.await_requests(1)[0];
        m.map(1, 0x1000, RAM, true);
        m.respond(Some(1), request.index, SUCCESS);
        assert_eq!(access.join().unwrap(), Ok(vec![0; 4]));
        let at = Iova(0x1000);
        let asks = Happening::Begin(Slice::TranslationRequest { at: Iova(0x1010) });
        let waits = Slice::PageRequest { at, pages: 1, group: request.index.get() };
        let events: Vec<Event> = sink.take();
        assert!(events.iter().all(|event| event.track == Track::Queue { stream: STREAM, queue: 4 }));
        let what: Vec<Happening> = events.iter().map(|event| event.what).collect();
        assert_eq!(what[0], asks);
        assert_eq!(what[1], Happening::End(SliceKind::TranslationRequest, Ending::Plain));
        assert_eq!(what[2], Happening::Begin(waits));
        assert_eq!(what[3], Happening::End(SliceKind::PageRequest, Ending::Said("Success")));
        assert_eq!(what[4..], [asks, Happening::End(SliceKind::TranslationRequest, Ending::Plain)]);
    });
}
