//! The ITS: from the message to the PE, each command, the queue, and what a wrong guest gets (5.2, 5.3).

use hw::NotADoorbell;

use super::*;

const MOVI: u64 = 0x01;
const INT: u64 = 0x03;
const CLEAR: u64 = 0x04;
const SYNC: u64 = 0x05;
const MAPC: u64 = 0x09;
const MAPI: u64 = 0x0b;
const INV: u64 = 0x0c;
const INVALL: u64 = 0x0d;
const MOVALL: u64 = 0x0e;
const DISCARD: u64 = 0x0f;

/// Device 0x10 with event 1 on LPI 8200, enabled, in the collection of PE 0.
fn bench_with_event() -> Bench {
    let bench = Bench::linux(2);
    bench.mapd(0x10, ITT, 5);
    bench.mapti(0x10, 1, 8200, 0);
    bench.set_property(8200, 0xa3);
    bench.event_command(INV, 0x10, 1, 0);
    bench
}

#[test]
fn message_of_a_mapped_event_interrupts_the_collections_pe() {
    let bench = bench_with_event();
    bench.message(0x10, 1);
    assert!(bench.irq[0].level() && !bench.irq[1].level());
    assert_eq!(bench.sys(0, IAR1), 8200);
    bench.sys_write(0, EOIR1, 8200);
    assert!(!bench.irq[0].level());
    assert_eq!(bench.counters().lpis, 1);
}

#[test]
fn device_ids_have_17_bits() {
    let bench = bench_with_event();
    bench.mapd(0x1_0000, ITT + 0x1000, 1);
    bench.mapti(0x1_0000, 0, 8201, 1);
    bench.set_property(8201, 0xa3);
    bench.message(0x1_0000, 0);
    assert_eq!(bench.sys(1, IAR1), 8201);
    bench.mapd(0x2_0010, ITT + 0x2000, 5);
    bench.mapti(0x2_0010, 1, 8202, 0);
    bench.message(0x2_0010, 1);
    assert_eq!(bench.counters().messages_dropped, 1);
}

#[test]
fn write_elsewhere_than_to_the_translater_is_no_message() {
    let bench = Bench::new(1);
    for pa in [Pa(ITS_BASE + 0x40), Pa(ITS_BASE + 0x1_0044), Pa(0)] {
        assert_eq!(bench.gic.write(DeviceId(0), pa, 0), Err(NotADoorbell(pa)));
    }
}

#[test]
fn messages_without_translation_are_dropped_and_counted() {
    let bench = bench_with_event();
    bench.message(0x11, 1); // no such device
    bench.message(0x10, 2); // no such event
    bench.message(0x10, 32); // beyond the device's table
    bench.message(0x10, u32::MAX);
    bench.message(u32::MAX, 1);
    assert!(!bench.irq[0].level());
    assert_eq!(bench.counters().messages_dropped, 5);
    write(&*bench.its, GITS_CTLR, 4, 0);
    bench.message(0x10, 1);
    assert_eq!(bench.counters().messages_dropped, 6, "the ITS is disabled");
}

#[test]
fn write_by_a_pe_to_the_translater_is_ignored() {
    let bench = bench_with_event();
    write(&*bench.its, 0x1_0040, 4, 1);
    write(&*bench.its, 0x1_0040, 2, 1);
    assert!(!bench.irq[0].level());
    assert_eq!(read(&*bench.its, 0x1_0040, 4), 0);
}

#[test]
fn mapi_uses_the_event_number_as_intid() {
    let bench = Bench::linux(1);
    bench.mapd(1, ITT, 16);
    bench.event_command(MAPI, 1, 8300, 0);
    bench.event_command(MAPI, 1, 100, 0); // INTID 100 is no LPI
    bench.set_property(8300, 0xa3);
    bench.message(1, 100);
    bench.message(1, 8300);
    assert_eq!(bench.sys(0, IAR1), 8300);
    assert_eq!(bench.counters().messages_dropped, 1);
}

#[test]
fn movi_takes_the_pending_state_along() {
    let bench = bench_with_event();
    bench.message(0x10, 1);
    bench.event_command(MOVI, 0x10, 1, 1);
    assert!(!bench.irq[0].level() && bench.irq[1].level());
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
    assert_eq!(bench.sys(1, IAR1), 8200);
    bench.sys_write(1, EOIR1, 8200);
    bench.message(0x10, 1);
    assert_eq!(bench.sys(1, IAR1), 8200);
}

#[test]
fn movi_to_an_unmapped_collection_changes_nothing() {
    let bench = bench_with_event();
    bench.event_command(MOVI, 0x10, 1, 7);
    bench.message(0x10, 1);
    assert_eq!(bench.sys(0, IAR1), 8200);
}

#[test]
fn int_and_clear_set_and_clear_the_pending_state() {
    let bench = bench_with_event();
    bench.event_command(INT, 0x10, 1, 0);
    assert!(bench.irq[0].level());
    bench.event_command(CLEAR, 0x10, 1, 0);
    assert!(!bench.irq[0].level());
}

#[test]
fn discard_unmaps_the_event_and_forgets_that_it_was_pending() {
    let bench = bench_with_event();
    bench.message(0x10, 1);
    bench.event_command(DISCARD, 0x10, 1, 0);
    assert!(!bench.irq[0].level());
    bench.message(0x10, 1);
    assert!(!bench.irq[0].level());
    assert_eq!(bench.counters().messages_dropped, 1);
}

#[test]
fn inv_makes_the_new_configuration_count_and_nothing_else_does() {
    let bench = bench_with_event();
    bench.message(0x10, 1);
    bench.set_property(8200, 0xa2);
    bench.event_command(SYNC, 0, 0, 0);
    assert!(bench.irq[0].level());
    bench.event_command(INV, 0x10, 1, 0);
    assert!(!bench.irq[0].level());
    bench.set_property(8200, 0xa3);
    bench.event_command(INVALL, 0, 0, 0);
    assert!(bench.irq[0].level());
}

#[test]
fn movall_moves_everything_that_is_pending() {
    let bench = Bench::linux(2);
    bench.mapd(0x10, ITT, 5);
    for event in 0..32 {
        bench.mapti(0x10, event, 8192 + event, 0);
        bench.set_property(8192 + event, 0x81 + 8 * (event as u8 % 4));
    }
    bench.event_command(INVALL, 0, 0, 0);
    for event in 0..16 {
        bench.message(0x10, event);
    }
    bench.event_command(MOVI, 0x10, 20, 1);
    bench.message(0x10, 20);

    bench.command([MOVALL, 0, 0, 1 << 16]);

    assert!(!bench.irq[0].level());
    let mut taken = Vec::new();
    loop {
        let intid = bench.sys(1, IAR1);
        if intid == SPURIOUS {
            break;
        }
        bench.sys_write(1, EOIR1, intid);
        taken.push(intid - 8192);
    }
    assert_eq!(taken, [0, 4, 8, 12, 20, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]);
    bench.message(0x10, 0);
    assert_eq!(bench.sys(0, IAR1), 8192, "the collection itself has not moved");
}

#[test]
fn unmapped_collection_and_device_deliver_nothing() {
    let bench = bench_with_event();
    bench.command([MAPC, 0, 0, 0]);
    bench.message(0x10, 1);
    assert!(!bench.irq[0].level());
    bench.command([MAPC, 0, 1 << 63 | 1 << 16, 0]);
    bench.message(0x10, 1);
    assert_eq!(bench.sys(1, IAR1), 8200, "collection 0 is on PE 1 now");
    bench.sys_write(1, EOIR1, 8200);
    bench.command([0x10 << 32 | 0x08, 4, ITT, 0]);
    bench.message(0x10, 1);
    assert!(!bench.irq[1].level());
}

#[test]
fn two_level_device_table_is_walked_and_missing_pages_map_nothing() {
    let bench = Bench::linux(1);
    write(&*bench.its, GITS_CTLR, 4, 0);
    let second_level = RAM_BASE + 0x50_0000;
    // 64 KiB pages: the second one has devices 8192 to 16383.
    bench.ram.store_u64(Pa(DEVICE_TABLE), 0).unwrap();
    bench.ram.store_u64(Pa(DEVICE_TABLE + 8), 1 << 63 | second_level).unwrap();
    bench.i_write(GITS_BASER0, 3 << 62 | DEVICE_TABLE | 2 << 8);
    write(&*bench.its, GITS_CTLR, 4, 1);
    for (device, itt, intid) in [(8200, ITT, 8192), (8, ITT + 0x100, 8193)] {
        bench.mapd(device, itt, 1);
        bench.mapti(device, 0, intid, 0);
        bench.set_property(intid, 0xa3);
    }
    bench.message(8, 0);
    assert!(!bench.irq[0].level());
    bench.message(8200, 0);
    assert_eq!(bench.sys(0, IAR1), 8192);
    assert_ne!(bench.ram.load_u64(Pa(second_level + 8 * 8)).unwrap(), 0, "the entry is in the second level");
}

#[test]
fn queue_wraps_and_runs_many_commands_on_one_write() {
    let bench = bench_with_event();
    let start = bench.i_read(GITS_CWRITER);
    // All places but one: SYNC, and at the end of the queue an INT.
    let mut at = start;
    for _ in 0..QUEUE_BYTES / 32 - 2 {
        bench.ram.store_u64(Pa(QUEUE + at), SYNC).unwrap();
        at = (at + 32) % QUEUE_BYTES;
    }
    assert!(at < start, "wrapped");
    bench.ram.store_u64(Pa(QUEUE + at), 0x10 << 32 | INT).unwrap();
    bench.ram.store_u64(Pa(QUEUE + at + 8), 1).unwrap();
    bench.i_write(GITS_CWRITER, at + 32);
    assert_eq!(bench.i_read(GITS_CREADR), at + 32);
    assert!(bench.irq[0].level());
}

#[test]
fn commands_wait_for_the_its_to_be_enabled() {
    let bench = bench_with_event();
    write(&*bench.its, GITS_CTLR, 4, 0);
    let at = bench.i_read(GITS_CWRITER);
    bench.ram.store_u64(Pa(QUEUE + at), 0x10 << 32 | INT).unwrap();
    bench.ram.store_u64(Pa(QUEUE + at + 8), 1).unwrap();
    bench.i_write(GITS_CWRITER, at + 32);
    assert_eq!(bench.i_read(GITS_CREADR), at);
    write(&*bench.its, GITS_CTLR, 4, 1);
    assert_eq!(bench.i_read(GITS_CREADR), at + 32);
    assert!(bench.irq[0].level());
}

#[test]
fn senseless_commands_are_skipped_and_the_queue_goes_on() {
    let bench = bench_with_event();
    bench.command([0xff, 1, 2, 3]); // no such command
    bench.mapd(0x10_0000, ITT, 5); // DeviceID too wide
    bench.command([0x11 << 32 | 0x08, 16, 1 << 63 | ITT, 0]); // EventIDs of 17 bits
    bench.command([0x11 << 32 | 0x08, 31, 1 << 63 | ITT, 0]);
    bench.mapti(0x11, 0, 8192, 0); // that device was not mapped
    bench.mapti(0x10, 32, 8192, 0); // beyond the device's table
    bench.mapti(0x10, 2, 8191, 0); // not an LPI
    bench.mapti(0x10, 3, 0x1_0000, 0); // INTID too wide
    bench.command([MAPC, 0, 1 << 63 | 2 << 16, 0]); // no such PE
    bench.command([MAPC, 0, 1 << 63 | 0x7_ffff_ffff << 16 | 5, 0]);
    bench.command([MOVALL, 0, 9 << 16, 0]);
    bench.command([MOVALL, 0, 0, 0]); // to itself
    for opcode in [MOVI, INT, CLEAR, INV, DISCARD] {
        bench.event_command(opcode, 0x10, 9, 0);
        bench.event_command(opcode, 0x12, 0, 0);
        bench.event_command(opcode, u32::MAX, 0xffff_ffff, 0xffff);
    }
    bench.event_command(INVALL, 0, 0, 99);
    assert_eq!(bench.errors.counted(), [("ITS commands that are skipped", 11 + 3 * 5 + 1)]);
    for event in [2, 3] {
        bench.message(0x10, event);
    }
    assert_eq!(bench.errors.counted()[1], ("messages that are mapped to no LPI", 2));
    assert!(!bench.irq[0].level());
    bench.message(0x10, 1);
    assert_eq!(bench.sys(0, IAR1), 8200, "what was mapped still works");
}

#[test]
fn tables_and_queue_outside_ram_are_survived() {
    let bench = Bench::linux(1);
    write(&*bench.its, GITS_CTLR, 4, 0);
    bench.i_write(GITS_BASER0, 3 << 62 | 0xffff_ffff_f000 | 2 << 8 | 0xff);
    bench.i_write(GITS_BASER1, 1 << 63 | 0xffff_ffff_f000 | 2 << 8);
    write(&*bench.its, GITS_CTLR, 4, 1);
    bench.mapd(1, ITT, 5);
    bench.mapti(1, 0, 8192, 0);
    bench.command([MAPC, 0, 1 << 63, 0]);
    bench.message(1, 0);
    write(&*bench.its, GITS_CTLR, 4, 0);
    bench.i_write(GITS_CBASER, 1 << 63 | 0xf_ffff_ffff_f000 | 0xff);
    write(&*bench.its, GITS_CTLR, 4, 1);
    bench.i_write(GITS_CWRITER, 0xf_ffe0);
    assert_eq!(bench.i_read(GITS_CREADR), 0xf_ffe0, "nothing could be read, and nothing stalls");
    let (kind, count) = bench.errors.counted().pop().unwrap();
    assert_eq!((kind, count), ("ITS commands outside memory", 0xf_ffe0 / 32));
    bench.i_write(GITS_CBASER, 1 << 63);
    assert_eq!(bench.errors.counted().pop().unwrap(), ("writes to registers that are in use", 1));
}

#[test]
fn writer_beyond_the_queue_runs_nothing() {
    let bench = bench_with_event();
    let at = bench.i_read(GITS_CREADR);
    bench.i_write(GITS_CWRITER, QUEUE_BYTES);
    assert_eq!(bench.i_read(GITS_CREADR), at);
}

#[test]
fn entries_that_the_guest_overwrites_are_not_believed() {
    let bench = bench_with_event();
    bench.ram.store_u64(Pa(COLLECTION_TABLE), 1 << 63 | 0xffff).unwrap();
    bench.message(0x10, 1); // a PE that does not exist
    bench.ram.store_u64(Pa(ITT + 8), u64::MAX).unwrap();
    bench.message(0x10, 1); // an unmapped collection
    bench.ram.store_u64(Pa(ITT + 8), 1 << 63 | 5).unwrap();
    bench.message(0x10, 1); // not an LPI
    bench.ram.store_u64(Pa(DEVICE_TABLE + 8 * 0x10), u64::MAX).unwrap();
    bench.message(0x10, 1); // a table of 32-bit events at the end of memory
    assert_eq!(bench.counters().messages_dropped, 4);
    for opcode in [MOVI, INT, CLEAR, INV, DISCARD] {
        bench.event_command(opcode, 0x10, 1, 0);
    }
}
