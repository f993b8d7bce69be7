//! What is counted of software's mistakes.

use super::*;
use crate::spec::event::EventType;

/// What is counted after this.
fn counted(act: impl FnOnce(&Bench)) -> Vec<(&'static str, u64)> {
    let m = Bench::new();
    assert_eq!(m.errors.counted(), [], "set-up is no mistake");
    act(&m);
    m.errors.counted()
}

#[test]
fn descriptors_that_are_refused_and_addresses_that_are_not_mapped_are_counted_apart() {
    let abort = |m: &Bench, sid: u32| {
        let _ = m.read(&Requester::new(DmaTag::untagged(StreamId(sid))), DATA, 1);
    };
    let kinds = counted(|m| {
        m.ste(SID, &[0]); // V is 0
        abort(m, SID);
        abort(m, 1 << STRTAB_LOG2); // beyond the table
        let events: Vec<_> = m.events().iter().map(|event| event[0] as u8).collect();
        assert_eq!(events, [EventType::C_BAD_STE.0, EventType::C_BAD_STREAMID.0]);
    });
    assert_eq!(kinds, [("accesses that the configuration of their stream aborts", 2)]);
    let kinds = counted(|m| {
        m.process(0);
        assert!(m.read(&process(), DATA, 1).is_err());
    });
    assert_eq!(kinds, [("accesses that a fault of their translation aborts", 1)]);
}

#[test]
fn command_that_does_not_exist_or_cannot_be_fetched_is_counted_once_for_each_stop() {
    let kinds = counted(|m| {
        m.put_command(0, 0xff, 0);
        m.w32(CMDQ_PROD, 1);
    });
    assert_eq!(kinds, [("commands that stop the command queue", 1)]);
}

#[test]
fn queues_outside_memory_are_counted_and_so_are_records_that_are_lost_by_them() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w64(EVENTQ_BASE, HOLE | 4);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.ste(SID, &[0]);
    let _ = m.read(&Requester::new(DmaTag::untagged(StreamId(SID))), DATA, 1);
    let kinds: Vec<_> = m.errors.counted().into_iter().map(|(kind, _)| kind).collect();
    assert!(kinds.contains(&"queues and messages at addresses that abort"), "{kinds:?}");
    assert!(kinds.contains(&"event records lost"), "{kinds:?}");
}

#[test]
fn writes_that_change_nothing_are_counted() {
    let kinds = counted(|m| {
        m.w32(IDR0, 0);
        m.w64(STRTAB_BASE, DATA);
        m.w64(CMDQ_BASE, DATA);
        assert!(m.smmu.mmio_write(CR0, &[0; 2]).is_err());
    });
    assert_eq!(
        kinds,
        [
            ("writes to read-only registers", 1),
            ("writes to registers that are in use", 2),
            ("accesses of a size or alignment that registers do not take", 1),
        ]
    );
}
