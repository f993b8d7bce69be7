//! What a timeline hears of translations, faults and their answers.

use std::thread;

use hw::fault::Command;
use hw::trace::{Answers, Ending, Event, Happening, Mark, RecordingTrace, Slice, SliceKind};
use hw::{Dir, Trace, Track};

use super::*;

const QUEUE: u16 = 3;

/// The process, for a command of a queue.
fn commanded() -> Requester {
    let mut who = process();
    who.command = Some(Command { queue: QUEUE, index: Some(7) });
    who
}

/// What happened on a track, in order.
fn on(track: Track, events: &[Event]) -> Vec<Happening> {
    events.iter().filter(|event| event.track == track).map(|event| event.what).collect()
}

#[test]
fn stall_is_told_from_its_walk_to_the_walk_after_its_answer() {
    let sink = Arc::new(RecordingTrace::default());
    let m = Bench::traced(Trace::new(sink.clone()));
    let root = m.process(CD_S);
    let _ = sink.take();
    let stag = thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let (who, smmu) = (commanded(), &m.smmu);
        let access = scope.spawn(move || smmu.read(&who, Iova(0x1000), &mut [0]));
        let stag = m.await_events(1)[0][1] as u16;
        m.map(root, 0x1000, DATA, USER_RW);
        m.resume(SID, stag, true);
        assert_eq!(access.join().unwrap(), Ok(()));
        stag
    });

    let events = sink.take();
    let (stream, at) = (StreamId(SID), Iova(0x1000));
    let begin = Happening::Begin;
    let of_queue = on(Track::Queue { stream, queue: QUEUE }, &events);
    assert_eq!(
        of_queue[..2],
        [begin(Slice::Walk { at }), Happening::End(SliceKind::Walk, Ending::Said("fault"))]
    );
    assert_eq!(of_queue[2], begin(Slice::Stall { at, dir: Dir::Read }));
    assert_eq!(of_queue[3], Happening::End(SliceKind::Stall, Ending::Said("answered")));
    // The thread that has waited tells it once more, for one that nobody has answered.
    assert_eq!(of_queue[4], Happening::End(SliceKind::Stall, Ending::Said("retried")));
    assert_eq!(of_queue[5..], [begin(Slice::Walk { at }), Happening::End(SliceKind::Walk, Ending::Plain)]);

    let record = on(Track::SmmuEvents, &events);
    let [Happening::Mark(Mark::Record { name, stream: of, pasid, at: address, stag: told, .. })] = record[..]
    else {
        panic!("one record: {record:?}");
    };
    assert_eq!((name, of, pasid, address), ("F_TRANSLATION", stream, Some(PASID), at));
    assert_eq!(told, Some(stag));
    let answer = Some(Answers::Stall { stream, stag });
    let is_answer = |what: &Happening| matches!(what, Happening::Begin(Slice::SmmuCommand { name: "CMD_RESUME", answers, .. }) if *answers == answer);
    let commands = on(Track::SmmuCommands, &events);
    let resume = commands.iter().position(is_answer).expect("the command that answers");
    assert_eq!(commands[resume + 1], Happening::End(SliceKind::SmmuCommand, Ending::Plain));
}

#[test]
fn access_that_is_for_no_command_is_on_no_track_of_a_queue() {
    let sink = Arc::new(RecordingTrace::default());
    let m = Bench::traced(Trace::new(sink.clone()));
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    let _ = sink.take();
    m.smmu.read(&process(), Iova(0x1000), &mut [0]).unwrap();
    assert_eq!(sink.take(), []);
}
