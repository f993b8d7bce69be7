//! LPIs at the redistributor: enabling, configuration cache, pending tables (5.1, 12.11).

use super::*;
use crate::gic::lpi::{LPIS, Lpi, LpiSet};

/// A device with event n on LPI 8192 + n, in the collection of PE 0.
fn bench_with_device() -> Bench {
    let bench = Bench::linux(2);
    bench.mapd(8, ITT, 5);
    for event in 0..32 {
        bench.mapti(8, event, 8192 + event, 0);
    }
    bench
}

fn enable(bench: &Bench, intid: u64) {
    bench.set_property(intid, 0xa3);
    bench.r_write64(0, GICR_INVLPIR, intid);
    assert_eq!(bench.r_read(0, GICR_SYNCR), 0);
}

#[test]
fn disabled_lpi_stays_pending_until_it_is_enabled_and_invalidated() {
    let bench = bench_with_device();
    bench.message(8, 3);
    assert!(!bench.irq[0].level());
    bench.set_property(8195, 0xa3);
    assert!(!bench.irq[0].level(), "not invalidated: the old configuration is in use");
    bench.r_write64(0, GICR_INVLPIR, 8195);
    assert!(bench.irq[0].level());
    assert_eq!(bench.sys(0, IAR1), 8195);
    assert_eq!(bench.sys(0, RPR), 0xa0);
    assert!(!bench.irq[0].level(), "an LPI has no active state, and is not pending any more");
    bench.sys_write(0, EOIR1, 8195);
    assert_eq!(bench.sys(0, RPR), 0xff);
}

#[test]
fn lpi_disabled_in_memory_is_still_delivered_until_invalidated() {
    let bench = bench_with_device();
    enable(&bench, 8195);
    bench.message(8, 3);
    bench.set_property(8195, 0xa2);
    assert!(bench.irq[0].level());
    bench.r_write64(0, GICR_INVALLR, 0);
    assert!(!bench.irq[0].level());
    bench.set_property(8195, 0xa3);
    bench.r_write64(0, GICR_INVALLR, 0);
    assert_eq!(bench.sys(0, IAR1), 8195, "it was pending all the time");
}

#[test]
fn lpi_can_come_again_before_its_end() {
    let bench = bench_with_device();
    enable(&bench, 8192);
    bench.message(8, 0);
    assert_eq!(bench.sys(0, IAR1), 8192);
    bench.message(8, 0);
    assert!(!bench.irq[0].level(), "the running priority is the same");
    bench.sys_write(0, EOIR1, 8192);
    assert_eq!(bench.sys(0, IAR1), 8192);
}

#[test]
fn lpis_come_by_priority_then_by_intid_among_all_interrupts() {
    let bench = bench_with_device();
    for (event, property) in [(0, 0xa3), (1, 0xa3), (2, 0x83), (3, 0xc3)] {
        bench.set_property(8192 + event, property);
        bench.r_write64(0, GICR_INVLPIR, 8192 + event);
        bench.message(8, event as u32);
    }
    bench.enable_spi(1);
    bench.gic.spi(1).set(true);
    for expected in [8194, 8192, 8193, 33] {
        assert_eq!(bench.sys(0, IAR1), expected);
        bench.gic.spi(1).set(expected != 33);
        bench.sys_write(0, EOIR1, expected);
    }
    bench.gic.spi(1).set(false);
    assert_eq!(bench.sys(0, IAR1), 8195);
    assert_eq!(bench.counters().lpis, 4);
}

#[test]
fn priority_changed_while_pending_counts_after_invalidation() {
    let bench = bench_with_device();
    for event in 0..2 {
        enable(&bench, 8192 + event);
        bench.message(8, event as u32);
    }
    bench.set_property(8193, 0x43);
    assert_eq!(bench.sys(0, HPPIR1), 8192);
    bench.r_write64(0, GICR_INVLPIR, 8193);
    assert_eq!(bench.sys(0, HPPIR1), 8193);
}

#[test]
fn lpis_are_ignored_while_disabled_at_the_redistributor() {
    let bench = bench_with_device();
    enable(&bench, 8192);
    bench.ram.write(Pa(pending_table(0)), &[0; 8192]).unwrap();
    bench.r_write(0, GICR_CTLR, 0);
    bench.message(8, 0);
    bench.r_write(0, GICR_CTLR, 1);
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
}

#[test]
fn pending_table_keeps_what_is_pending_while_lpis_are_disabled() {
    let bench = bench_with_device();
    for event in [0, 9] {
        enable(&bench, 8192 + event);
        bench.message(8, event as u32);
    }
    bench.r_write(0, GICR_CTLR, 0);
    assert_eq!(bench.r_read(0, GICR_CTLR), 6);
    assert!(!bench.irq[0].level());
    let mut bytes = [0; 2];
    bench.ram.read(Pa(pending_table(0) + 1024), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2]);

    bench.r_write64(0, GICR_PENDBASER, pending_table(0));
    bench.r_write(0, GICR_CTLR, 1);
    assert_eq!(bench.sys(0, IAR1), 8192);
    bench.sys_write(0, EOIR1, 8192);
    assert_eq!(bench.sys(0, IAR1), 8201);
}

#[test]
fn pending_table_said_to_be_zero_is_not_read() {
    let bench = Bench::new(1);
    bench.ram.write(Pa(pending_table(0) + 1024), &[0xff]).unwrap();
    bench.r_write64(0, GICR_PROPBASER, PROP | 15);
    bench.r_write64(0, GICR_PENDBASER, pending_table(0) | 1 << 62);
    assert_eq!(bench.r_read64(0, GICR_PENDBASER), pending_table(0), "PTZ reads as zero");
    bench.r_write(0, GICR_CTLR, 1);
    bench.r_write64(0, GICR_PROPBASER, 0);
    assert_eq!(bench.r_read64(0, GICR_PROPBASER), PROP | 15, "in use");
    bench.r_write(0, GICR_CTLR, 0);
    let mut byte = [0xee];
    bench.ram.read(Pa(pending_table(0) + 1024), &mut byte).unwrap();
    assert_eq!(byte, [0], "nothing was pending");
}

#[test]
fn lpis_beyond_the_tables_do_not_exist() {
    let bench = Bench::linux(1);
    bench.r_write(0, GICR_CTLR, 0);
    bench.r_write64(0, GICR_PROPBASER, PROP | 13); // 14 bits: up to 16383
    bench.r_write(0, GICR_CTLR, 1);
    bench.mapd(8, ITT, 1);
    bench.mapti(8, 0, 16383, 0);
    bench.mapti(8, 1, 16384, 0);
    bench.set_property(16383, 0xa3);
    bench.set_property(16384, 0xa3);
    bench.message(8, 1);
    assert!(!bench.irq[0].level());
    bench.message(8, 0);
    assert_eq!(bench.sys(0, IAR1), 16383);
}

#[test]
fn tables_outside_ram_configure_nothing_and_keep_nothing() {
    let bench = Bench::new(1);
    bench.d_write(GICD_CTLR, 3);
    bench.r_write64(0, GICR_PROPBASER, 0xf_ffff_ffff_f01f);
    bench.r_write64(0, GICR_PENDBASER, 0xf_ffff_ffff_0000);
    bench.r_write(0, GICR_CTLR, 1);
    bench.r_write64(0, GICR_INVALLR, 0);
    bench.r_write64(0, GICR_INVLPIR, u64::MAX);
    bench.r_write(0, GICR_CTLR, 0);
    assert_eq!(bench.r_read(0, GICR_CTLR), 6);
}

#[test]
fn lpi_needs_an_enabled_group_1() {
    let bench = bench_with_device();
    enable(&bench, 8192);
    bench.d_write(GICD_CTLR, 1);
    bench.message(8, 0);
    assert!(!bench.irq[0].level());
    bench.d_write(GICD_CTLR, 2);
    assert!(bench.irq[0].level());
}

#[test]
fn set_of_lpis_agrees_with_a_naive_one() {
    let mut set = LpiSet::new();
    let mut naive = std::collections::BTreeSet::new();
    let mut n: u32 = 1;
    for _ in 0..20_000 {
        n = n.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let lpi = Lpi::new(8192 + (n >> 8) % LPIS as u32 / 7 * 7).unwrap();
        if n >> 30 == 0 {
            set.insert(lpi);
            naive.insert(lpi.intid());
        } else {
            assert_eq!(set.remove(lpi), naive.remove(&lpi.intid()));
        }
        assert_eq!(set.first().map(Lpi::intid), naive.first().copied());
        assert_eq!(set.is_empty(), naive.is_empty());
    }
    assert!(set.iter().map(Lpi::intid).eq(naive.iter().copied()));
    assert!(LpiSet::from_bytes(&set.to_bytes()).iter().eq(set.iter()));
}

#[test]
fn intids_below_8192_and_above_16_bits_are_no_lpis() {
    assert_eq!(Lpi::new(8191), None);
    assert_eq!(Lpi::new(8192).map(Lpi::intid), Some(8192));
    assert_eq!(Lpi::new(0xffff).map(Lpi::intid), Some(0xffff));
    assert_eq!(Lpi::new(0x1_0000), None);
    assert_eq!(Lpi::new(u32::MAX), None);
}
