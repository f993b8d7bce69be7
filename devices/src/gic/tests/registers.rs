//! Registers: maps, reset values, what sticks, access sizes.

use hw::regmap::{check_map, check_plain};
use hw::{BusError, SysRegDevice};

use super::*;
use crate::gic::regs::{DistributorReg, ItsReg, RedistributorReg};

#[test]
fn register_maps_are_consistent() {
    check_map::<DistributorReg>();
    check_map::<RedistributorReg>();
    check_map::<ItsReg>();
    check_map::<CpuInterfaceReg>();
}

/// The first of the rows in the distributor that are left out here are reserved: see
/// `private_interrupts_are_reserved_in_the_distributor`.
#[test]
fn frames_keep_what_is_writable_and_nothing_else() {
    let bench = Bench::new(1);
    let plain = |device: &Arc<dyn MmioDevice>| {
        let (to_read, to_write) = (Arc::clone(device), Arc::clone(device));
        (
            move |at, bytes| read(&*to_read, at, bytes),
            move |at, bytes, value| write(&*to_write, at, bytes, value),
        )
    };
    let (r, w) = plain(&bench.dist);
    check_plain::<DistributorReg>(
        r,
        w,
        &[
            DistributorReg::GICD_TYPER,
            DistributorReg::GICD_IGROUPR,
            DistributorReg::GICD_IPRIORITYR,
            DistributorReg::GICD_ICFGR,
            DistributorReg::GICD_IROUTER,
        ],
    );
    let (r, w) = plain(&bench.redist);
    check_plain::<RedistributorReg>(
        r,
        w,
        &[
            RedistributorReg::GICR_CTLR,
            RedistributorReg::GICR_TYPER,
            RedistributorReg::GICR_WAKER,
            RedistributorReg::GICR_PENDBASER,
        ],
    );
    let (r, w) = plain(&bench.its);
    check_plain::<ItsReg>(
        r,
        w,
        &[ItsReg::GITS_CTLR, ItsReg::GITS_CBASER, ItsReg::GITS_BASER0, ItsReg::GITS_BASER1],
    );
}

#[test]
fn distributor_at_reset_identifies_itself_as_gicv3_without_security() {
    let bench = Bench::new(1);
    assert_eq!(bench.d_read(GICD_CTLR), 0x50, "ARE and DS only");
    assert_eq!(bench.d_read(GICD_TYPER), 0x077a_0008, "288 INTIDs, 16-bit LPIs, A3V, no 1-of-N, RSS");
    assert_eq!(bench.d_read(8), 0x43b);
    assert_eq!(bench.d_read(PIDR2) >> 4 & 15, 3);
    for at in [GICD_ISENABLER + 4, GICD_ISPENDR + 4, GICD_ISACTIVER + 4, GICD_IPRIORITYR + 32, 0xd04, 0x10] {
        assert_eq!(bench.d_read(at), 0, "{at:#x}");
    }
}

#[test]
fn distributor_control_keeps_only_the_group_enables() {
    let bench = Bench::new(1);
    bench.d_write(GICD_CTLR, 0xffff_ffff);
    assert_eq!(bench.d_read(GICD_CTLR), 0x53);
    bench.d_write(GICD_CTLR, 0);
    assert_eq!(bench.d_read(GICD_CTLR), 0x50);
}

#[test]
fn redistributors_have_affinities_of_clusters_of_sixteen_and_the_last_says_so() {
    let bench = Bench::new(18);
    assert_eq!(bench.r_read64(0, GICR_TYPER), 0x1);
    assert_eq!(bench.r_read64(15, GICR_TYPER), 15 << 32 | 15 << 8 | 1);
    assert_eq!(bench.r_read64(17, GICR_TYPER), 0x101 << 32 | 17 << 8 | 1 << 4 | 1);
    assert_eq!(bench.r_read(17, GICR_TYPER + 4), 0x101, "upper half");
    assert_eq!(bench.r_read(3, PIDR2) >> 4 & 15, 3);
    assert_eq!(bench.r_read(3, GICR_CTLR), 0x6, "CES and IR, LPIs disabled");
    assert_eq!(bench.r_read(3, GICR_WAKER), 0x6, "asleep");
    assert_eq!(bench.r_read(3, GICR_SYNCR), 0);
    assert_eq!(bench.r_read(3, SGI_FRAME + GICD_ICFGR), 0xaaaa_aaaa, "SGIs are edges");
    let mut word = [0; 4];
    assert_eq!(bench.redist.mmio_read(18 * 0x2_0000, &mut word), Err(BusError::NoRegister(18 * 0x2_0000)));
}

#[test]
fn private_interrupts_are_reserved_in_the_distributor() {
    let bench = Bench::new(1);
    for at in [GICD_IGROUPR, GICD_ISENABLER, GICD_ISPENDR, GICD_ISACTIVER, GICD_IPRIORITYR, GICD_ICFGR] {
        bench.d_write(at, 0xffff_ffff);
        assert_eq!(bench.d_read(at), 0, "{at:#x}");
    }
    assert_eq!(bench.r_read(0, SGI_FRAME + GICD_ISENABLER), 0);
}

#[test]
fn set_and_clear_registers_change_only_the_bits_that_are_written() {
    let bench = Bench::new(1);
    for (set, clear) in
        [(GICD_ISENABLER, GICD_ICENABLER), (GICD_ISPENDR, GICD_ICPENDR), (GICD_ISACTIVER, GICD_ICACTIVER)]
    {
        bench.d_write(set + 8, 0xf0f0);
        bench.d_write(set + 8, 0x000f);
        bench.d_write(clear + 8, 0x00f0);
        assert_eq!((bench.d_read(set + 8), bench.d_read(clear + 8)), (0xf00f, 0xf00f), "{set:#x}");
        bench.r_write(0, SGI_FRAME + set, 0x3);
        bench.r_write(0, SGI_FRAME + clear, 0x1);
        assert_eq!(bench.r_read(0, SGI_FRAME + set), 0x2, "{set:#x}");
    }
}

#[test]
fn priorities_take_bytes_and_words_and_keep_five_bits() {
    let bench = Bench::new(1);
    bench.set_priority(35, 0xff);
    bench.set_priority(33, 0x17);
    assert_eq!(bench.d_read(GICD_IPRIORITYR + 32), 0xf800_1000);
    assert_eq!(read(&*bench.dist, GICD_IPRIORITYR + 35, 1), 0xf8);
    write(&*bench.redist, SGI_FRAME + GICD_IPRIORITYR + 27, 1, 0xa5);
    assert_eq!(bench.r_read(0, SGI_FRAME + GICD_IPRIORITYR + 24), 0xa000_0000);
}

#[test]
fn triggers_keep_the_edge_bit_and_those_of_sgis_are_fixed() {
    let bench = Bench::new(1);
    bench.d_write(GICD_ICFGR + 12, 0xffff_0001);
    assert_eq!(bench.d_read(GICD_ICFGR + 12), 0xaaaa_0000);
    bench.r_write(0, SGI_FRAME + GICD_ICFGR, 0);
    assert_eq!(bench.r_read(0, SGI_FRAME + GICD_ICFGR), 0xaaaa_aaaa);
    bench.r_write(0, SGI_FRAME + GICD_ICFGR + 4, 0x0080_0000);
    assert_eq!(bench.r_read(0, SGI_FRAME + GICD_ICFGR + 4), 0x0080_0000);
}

#[test]
fn routes_take_doublewords_and_halves_and_have_no_1_of_n_mode() {
    let bench = Bench::new(1);
    bench.d_write64(GICD_IROUTER + 8 * 40, u64::MAX);
    assert_eq!(read(&*bench.dist, GICD_IROUTER + 8 * 40, 8), 0xff_00ff_ffff);
    bench.d_write(GICD_IROUTER + 8 * 40 + 4, 0x12);
    assert_eq!(read(&*bench.dist, GICD_IROUTER + 8 * 40, 8), 0x12_00ff_ffff);
    bench.d_write64(GICD_IROUTER + 8 * 40, 0);
    bench.d_write64(GICD_IROUTER + 8 * 1000, 1);
    assert_eq!(read(&*bench.dist, GICD_IROUTER + 8 * 1000, 8), 0, "no such SPI");
}

#[test]
fn unsuitable_sizes_and_alignments_are_refused() {
    let bench = Bench::new(1);
    let mut data = [0; 8];
    for (at, len) in
        [(GICD_CTLR, 1), (GICD_CTLR, 2), (GICD_CTLR + 2, 4), (GICD_ISENABLER + 4, 3), (0x6100, 1)]
    {
        let refused = Err(BusError::BadAccess { offset: at, len });
        assert_eq!(bench.dist.mmio_read(at, &mut data[..len]), refused, "{at:#x} {len}");
        assert_eq!(bench.dist.mmio_write(at, &data[..len]), refused, "{at:#x} {len}");
    }
}

#[test]
fn wide_access_covers_neighbouring_registers_in_order() {
    let bench = Bench::new(1);
    bench.d_write64(GICD_ISENABLER + 8, 0x2_0000_0001);
    assert_eq!((bench.d_read(GICD_ISENABLER + 8), bench.d_read(GICD_ISENABLER + 12)), (1, 2));
    let mut data = [0; 16];
    bench.dist.mmio_read(0, &mut data).unwrap();
    assert_eq!(value_of(&data[..4]), 0x50);
    assert_eq!(value_of(&data[8..12]), 0x43b);
}

#[test]
fn cpu_interface_at_reset_is_masked_and_says_what_it_has() {
    let bench = Bench::new(1);
    assert_eq!(bench.sys(0, PMR), 0);
    assert_eq!(bench.sys(0, RPR), 0xff);
    assert_eq!(bench.sys(0, BPR0), 2);
    assert_eq!(bench.sys(0, BPR1), 3);
    assert_eq!(bench.sys(0, SRE), 7);
    assert_eq!(bench.sys(0, CTLR), 0x4_8400, "five priority bits, 16-bit INTIDs, A3V, RSS");
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
    assert_eq!(bench.sys(0, IAR0), SPURIOUS);
    assert_eq!(bench.sys(0, HPPIR0), SPURIOUS);
    assert_eq!((bench.sys(0, IGRPEN0), bench.sys(0, IGRPEN1)), (0, 0));
}

#[test]
fn cpu_interface_registers_keep_what_is_implemented() {
    let bench = Bench::new(1);
    bench.sys_write(0, PMR, 1 << 3);
    assert_eq!(bench.sys(0, PMR), 8, "the probe for group 0");
    bench.sys_write(0, PMR, 0xff);
    assert_eq!(bench.sys(0, PMR), 0xf8);
    bench.sys_write(0, SRE, 0);
    assert_eq!(bench.sys(0, SRE), 7);
    bench.sys_write(0, BPR0, 0);
    bench.sys_write(0, BPR1, 0);
    assert_eq!((bench.sys(0, BPR0), bench.sys(0, BPR1)), (2, 3));
    bench.sys_write(0, CTLR, u64::MAX);
    assert_eq!(bench.sys(0, CTLR), 0x4_8443);
    bench.sys_write(0, BPR0, 5);
    assert_eq!(bench.sys(0, BPR1), 6, "CBPR: the common binary point, plus one");
    bench.sys_write(0, BPR1, 7);
    bench.sys_write(0, CTLR, 0);
    assert_eq!(bench.sys(0, BPR1), 3, "writes were ignored meanwhile");
}

#[test]
fn registers_that_do_not_exist_are_undefined() {
    let bench = Bench::new(1);
    for reg in [icc(8, 5), icc(9, 1), icc(9, 5), SysReg::new(3, 4, 12, 8, 0), SysReg::new(3, 0, 0, 0, 0)] {
        assert_eq!(bench.gic.sysreg_read(0, reg), None, "{reg:?}");
        assert_eq!(bench.gic.sysreg_write(0, reg, 0), None, "{reg:?}");
    }
    assert_eq!(bench.gic.sysreg_write(0, IAR1, 0), None, "read-only");
    assert_eq!(bench.gic.sysreg_read(0, EOIR1), None, "write-only");
    assert_eq!(bench.gic.sysreg_read(1, IAR1), None, "no such PE");
    assert_eq!(bench.gic.sysreg_write(1, SGI1R, 0), Some(()), "sends nothing");
}

#[test]
fn its_at_reset_is_disabled_quiescent_and_asks_for_two_tables() {
    let bench = Bench::new(1);
    assert_eq!(read(&*bench.its, GITS_CTLR, 4), 0x8000_0000);
    assert_eq!(bench.i_read(GITS_TYPER), 0x1f_0002_0f71);
    assert_eq!(bench.i_read(GITS_BASER0), 0x0107_0000_0000_0000);
    assert_eq!(bench.i_read(GITS_BASER1), 0x0407_0000_0000_0000);
    for n in 2..8 {
        assert_eq!(bench.i_read(GITS_BASER0 + 8 * n), 0, "no further table");
    }
    assert_eq!(read(&*bench.its, PIDR2, 4) >> 4 & 15, 3);
}

#[test]
fn its_table_registers_stick_for_each_page_size_and_only_devices_take_two_levels() {
    let bench = Bench::new(1);
    for size in [2, 1, 0] {
        bench.i_write(GITS_BASER0, size << 8);
        assert_eq!(bench.i_read(GITS_BASER0) >> 8 & 3, size);
    }
    bench.i_write(GITS_BASER0, 3 << 8);
    assert_eq!(bench.i_read(GITS_BASER0) >> 8 & 3, 2, "reserved: 64 KiB");
    bench.i_write(GITS_BASER0, u64::MAX);
    bench.i_write(GITS_BASER1, u64::MAX);
    assert_eq!(bench.i_read(GITS_BASER0) >> 62 & 1, 1);
    assert_eq!(bench.i_read(GITS_BASER1) >> 62 & 1, 0);
    assert_eq!(bench.i_read(GITS_BASER1) >> 48 & 0x71f, 0x407, "type and entry size are fixed");
}

#[test]
fn its_tables_and_queue_do_not_move_while_it_is_enabled() {
    let bench = Bench::linux(1);
    for at in [GITS_BASER0, GITS_BASER1, GITS_CBASER] {
        let before = bench.i_read(at);
        bench.i_write(at, 0);
        assert_eq!(bench.i_read(at), before, "{at:#x}");
    }
    assert_eq!(read(&*bench.its, GITS_CTLR, 4), 1);
    write(&*bench.its, GITS_CTLR, 4, 0);
    bench.i_write(GITS_CBASER, 0);
    assert_eq!(bench.i_read(GITS_CREADR), 0, "a new queue starts at its beginning");
}

#[test]
fn reset_forgets_everything_but_the_inputs() {
    let bench = Bench::linux(2);
    let line = bench.gic.spi(1);
    bench.enable_spi(1);
    line.set(true);
    assert!(bench.irq[0].level());

    hw::LifeCycle::reset(&*bench.gic);

    assert!(!bench.irq[0].level());
    assert_eq!(bench.d_read(GICD_CTLR), 0x50);
    assert_eq!(bench.r_read(1, GICR_CTLR), 0x6);
    assert_eq!(read(&*bench.its, GITS_CTLR, 4), 0x8000_0000);
    assert_eq!(bench.sys(0, PMR), 0);
    assert_eq!(bench.d_read(GICD_ISPENDR + 4), 2, "the wire is still high");
}
