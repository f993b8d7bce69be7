//! Event queue, interrupts and global errors (7.2 to 7.5, 3.18).

use super::*;
use crate::spec::event::EventType;

const OVFLG: u32 = 1 << 31;

/// `count` recorded aborts.
fn faults(m: &Bench, count: usize) {
    for _ in 0..count {
        assert!(m.read(&process(), 0x1000, 1).is_err());
    }
}

#[test]
fn records_have_every_field_and_zero_elsewhere() {
    let m = Bench::new();
    m.process(0);
    assert!(m.write(&process(), 0x7f00_0000_1234, &[1]).is_err());
    assert!(m.read(&process(), 0x7f00_0000_1234, 1).is_err());
    assert_eq!(
        m.events(),
        [
            [0x10_0000_5810, 0x0000_0200_0000_0000, 0x7f00_0000_1234, 0],
            [0x10_0000_5810, 0x0000_0208_0000_0000, 0x7f00_0000_1234, 0],
        ]
    );
}

#[test]
fn bad_context_record_is_as_worked_out_by_hand() {
    let m = Bench::new();
    m.contexts(SID);
    assert!(m.read(&process(), 0x1000, 1).is_err());
    assert_eq!(m.events(), [[0x10_0000_580a, 0, 0, 0]]);
}

#[test]
fn full_queue_loses_events_toggles_ovflg_once_and_goes_on_when_there_is_space() {
    let m = Bench::with_event_queue(2);
    m.process(0);
    faults(&m, 4);
    assert_eq!(m.r32(EVENTQ_PROD), 4);
    faults(&m, 3);
    assert_eq!(m.r32(EVENTQ_PROD), OVFLG | 4);
    // Space, but no acknowledgement: recorded.
    m.w32(EVENTQ_CONS, 1);
    faults(&m, 1);
    assert_eq!(m.r32(EVENTQ_PROD), OVFLG | 5);
    // Full again: the flag is still up, so it stays.
    faults(&m, 1);
    assert_eq!(m.r32(EVENTQ_PROD), OVFLG | 5);
    m.w32(EVENTQ_CONS, OVFLG | 1);
    faults(&m, 1);
    assert_eq!(m.r32(EVENTQ_PROD), 5, "toggled again");
    assert_eq!(m.smmu.stats().events_lost, 5);
}

#[test]
fn disabled_queue_loses_events_without_overflow() {
    let m = Bench::with_event_queue(2);
    m.process(0);
    m.enable(SMMUEN | CMDQEN);
    faults(&m, 6);
    assert_eq!(m.r32(EVENTQ_PROD), 0);
}

#[test]
fn interrupt_comes_only_when_the_queue_was_empty_and_only_if_enabled() {
    let m = Bench::new();
    m.process(0);
    faults(&m, 3);
    assert_eq!(m.eventq.edges(), 1);
    m.events();
    faults(&m, 1);
    assert_eq!(m.eventq.edges(), 2);
    m.events();
    m.w32(IRQ_CTRL, 0);
    faults(&m, 1);
    assert_eq!(m.eventq.edges(), 2);
    m.w32(IRQ_CTRL, 5);
    assert_eq!(m.eventq.edges(), 2, "nothing from before the enable");
}

#[test]
fn event_interrupt_is_also_a_message() {
    let m = Bench::reset(Features::default());
    m.w64(EVENTQ_IRQ_CFG0, DOORBELL);
    m.w32(SmmuReg::SMMU_EVENTQ_IRQ_CFG1.offset(), 0x77);
    m.set_up(4);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.process(0);
    faults(&m, 2);
    assert_eq!(m.msi.take(), [(DeviceId(0xff), 0x77)]);
}

#[test]
fn messages_to_nowhere_are_global_errors() {
    let m = Bench::reset(Features::default());
    m.w64(EVENTQ_IRQ_CFG0, HOLE);
    m.w64(GERROR_IRQ_CFG0, HOLE);
    m.set_up(4);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.process(0);
    faults(&m, 1);
    // MSI_EVENTQ_ABT_ERR, whose own message fails too: MSI_GERROR_ABT_ERR, which has no message.
    assert_eq!(m.active_errors(), 1 << 5 | 1 << 7);
    assert_eq!(m.gerror.edges(), 1);
}

#[test]
fn event_write_to_nowhere_stops_the_queue_until_acknowledged() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w64(EVENTQ_BASE, HOLE | 4);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.process(0);
    faults(&m, 2);
    assert_eq!((m.active_errors(), m.r32(EVENTQ_PROD)), (1 << 2, 0));
    assert_eq!(m.gerror.edges(), 1);
    m.w32(GERRORN, 1 << 2);
    assert_eq!(m.active_errors(), 0);
    faults(&m, 1);
    assert_eq!(m.active_errors(), 1 << 2);
}

#[test]
fn one_event_per_transaction_and_the_first_reason_wins() {
    let m = Bench::new();
    // Invalid entry, substream out of range and bad context at once.
    m.ste(SID, &[CDTAB | 5 << 1, 0]);
    assert!(m.read(&process(), 0x1000, 8).is_err());
    assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, Some(PASID))]);
}

#[test]
fn counters_tell_what_happened() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    for _ in 0..3 {
        m.read(&process(), 0x1000, 1).unwrap();
    }
    assert!(m.read(&process(), 0x5000, 1).is_err());
    let stats = m.smmu.stats();
    assert_eq!((stats.tlb_hits, stats.walks, stats.config_fetches, stats.aborts), (2, 2, 1, 1));
    assert_eq!(stats.events, [("F_TRANSLATION", 1)]);
    assert!(stats.commands.contains(&("CMD_CFGI_CD", 1)));
}
