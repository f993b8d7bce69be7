//! SGIs, PPIs and SPIs from the wire to the acknowledge: triggers, priorities, preemption, routing (chapter 4).

use super::*;

#[test]
fn level_spi_is_pending_as_long_as_its_wire_is_high() {
    let bench = Bench::linux(1);
    let line = bench.gic.spi(1);
    bench.enable_spi(1);

    line.set(true);
    assert!(bench.irq[0].level());
    assert_eq!(bench.d_read(GICD_ISPENDR + 4), 2);
    line.set(false);
    assert!(!bench.irq[0].level());
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
}

#[test]
fn level_spi_comes_again_after_its_end_if_the_wire_is_still_high() {
    let bench = Bench::linux(1);
    let line = bench.gic.spi(1);
    bench.enable_spi(1);
    line.set(true);

    assert_eq!(bench.sys(0, IAR1), 33);
    assert!(!bench.irq[0].level(), "active: not signalled");
    assert_eq!((bench.d_read(GICD_ISPENDR + 4), bench.d_read(GICD_ISACTIVER + 4)), (2, 2));
    bench.sys_write(0, EOIR1, 33);
    assert!(bench.irq[0].level());
    assert_eq!(bench.sys(0, IAR1), 33);
    line.set(false);
    bench.sys_write(0, EOIR1, 33);
    assert!(!bench.irq[0].level());
}

#[test]
fn edge_spi_is_taken_once_for_each_edge() {
    let bench = Bench::linux(1);
    let line = bench.gic.spi(74);
    bench.make_spi_edge(74);
    bench.enable_spi(74);

    line.pulse();
    assert_eq!(bench.sys(0, IAR1), 106);
    assert_eq!(bench.d_read(GICD_ISPENDR + 12), 0);
    line.pulse();
    assert_eq!(bench.sys(0, IAR1), SPURIOUS, "pending, but active");
    bench.sys_write(0, EOIR1, 106);
    assert_eq!(bench.sys(0, IAR1), 106);
    bench.sys_write(0, EOIR1, 106);
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
}

#[test]
fn edge_while_disabled_is_remembered() {
    let bench = Bench::linux(1);
    bench.make_spi_edge(3);
    bench.gic.spi(3).pulse();
    assert!(!bench.irq[0].level());
    bench.enable_spi(3);
    assert!(bench.irq[0].level());
    bench.d_write(GICD_ICPENDR + 4, 1 << 3);
    assert!(!bench.irq[0].level());
}

#[test]
fn pending_set_by_software_stays_without_a_wire_until_acknowledged() {
    let bench = Bench::linux(1);
    bench.enable_spi(5);
    bench.d_write(GICD_ISPENDR + 4, 1 << 5);
    assert_eq!(bench.sys(0, IAR1), 37);
    assert_eq!(bench.d_read(GICD_ISPENDR + 4), 0);
    bench.sys_write(0, EOIR1, 37);
    assert!(!bench.irq[0].level());
}

#[test]
fn clearing_a_level_does_not_lower_the_wire() {
    let bench = Bench::linux(1);
    bench.enable_spi(5);
    bench.gic.spi(5).set(true);
    bench.d_write(GICD_ICPENDR + 4, 1 << 5);
    assert!(bench.irq[0].level());
}

#[test]
fn active_set_by_software_holds_an_interrupt_back() {
    let bench = Bench::linux(1);
    bench.enable_spi(5);
    bench.d_write(GICD_ISACTIVER + 4, 1 << 5);
    bench.gic.spi(5).set(true);
    assert!(!bench.irq[0].level());
    bench.d_write(GICD_ICACTIVER + 4, 1 << 5);
    assert!(bench.irq[0].level());
}

#[test]
fn ppi_reaches_only_its_own_pe() {
    let bench = Bench::linux(2);
    bench.enable_private(0, 27);
    bench.enable_private(1, 27);
    bench.gic.ppi(1, 11).set(true);
    assert!(!bench.irq[0].level());
    assert!(bench.irq[1].level());
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
    assert_eq!(bench.sys(1, IAR1), 27);
}

#[test]
fn sgi_reaches_the_listed_pes_of_the_cluster() {
    let bench = Bench::linux(20);
    for cpu in 0..20 {
        bench.enable_private(cpu, 3);
    }
    // Cluster 1, Aff0 1 and 2: PEs 17 and 18.
    bench.sys_write(0, SGI1R, 3 << 24 | 1 << 16 | 0b110);
    let raised: Vec<usize> = (0..20).filter(|&cpu| bench.irq[cpu].level()).collect();
    assert_eq!(raised, [17, 18]);
    assert_eq!(bench.sys(17, IAR1), 3);
    bench.sys_write(17, EOIR1, 3);
    assert!(!bench.irq[17].level());
}

#[test]
fn sgi_range_selector_names_aff0_values_above_15() {
    let ram = Arc::new(Ram::new(&[(Pa(RAM_BASE), 0x1000)]).unwrap());
    let irq: Vec<Arc<RecordingLine>> = (0..2).map(|_| Arc::default()).collect();
    let wires = || irq.iter().map(|line| Arc::clone(line) as Arc<dyn IrqLine>).collect();
    let gic = Gic::new(GicConfig {
        affinities: vec![0x05, 0x0201_0025],
        spis: 32,
        cpu_irq: wires(),
        cpu_fiq: vec![Arc::new(hw::UnconnectedLine), Arc::new(hw::UnconnectedLine)],
        cpu_wake: vec![Arc::new(hw::UnconnectedLine), Arc::new(hw::UnconnectedLine)],
        ram,
        its_base: Pa(ITS_BASE),
        errors: hw::GuestErrors::default(),
    });
    write(&*gic.distributor(), GICD_CTLR, 4, 3);
    let redist = gic.redistributors();
    for frame in [0, 0x2_0000] {
        write(&*redist, frame + GICR_WAKER, 4, 0);
        write(&*redist, frame + SGI_FRAME + GICD_IGROUPR, 4, 0xffff);
        write(&*redist, frame + SGI_FRAME + GICD_ISENABLER, 4, 0xffff);
    }
    for cpu in 0..2 {
        gic.sysreg_write(cpu, PMR, 0xff).unwrap();
        gic.sysreg_write(cpu, IGRPEN1, 1).unwrap();
    }
    gic.sysreg_write(0, SGI1R, 2 << 48 | 1 << 32 | 2 << 44 | 9 << 24 | 1 << 5).unwrap();
    assert!(!irq[0].level());
    assert_eq!(gic.sysreg_read(1, IAR1), Some(9));
}

#[test]
fn sgi_to_all_but_self_leaves_the_sender_out() {
    let bench = Bench::linux(3);
    for cpu in 0..3 {
        bench.enable_private(cpu, 1);
    }
    bench.sys_write(1, SGI1R, 1 << 40 | 1 << 24 | 0xffff);
    assert_eq!([0, 1, 2].map(|cpu: usize| bench.irq[cpu].level()), [true, false, true]);
}

#[test]
fn sgi_goes_only_where_it_has_the_group_that_was_asked_for() {
    let bench = Bench::linux(2);
    for cpu in 0..2 {
        bench.enable_private(cpu, 2);
        bench.sys_write(cpu, IGRPEN0, 1);
    }
    bench.r_write(1, SGI_FRAME + GICD_IGROUPR, 0xffff_fffb);
    let list = 2 << 24 | 0b11;

    bench.sys_write(0, SGI1R, list);
    assert_eq!((bench.irq[0].level(), bench.fiq[1].level()), (true, false));
    assert_eq!(bench.sys(0, IAR1), 2);
    bench.sys_write(0, EOIR1, 2);
    bench.sys_write(0, SGI0R, list);
    assert_eq!((bench.irq[0].level(), bench.fiq[1].level()), (false, true));
    assert_eq!(bench.sys(1, IAR0), 2);
    bench.sys_write(1, EOIR0, 2);
    bench.sys_write(0, ASGI1R, list);
    assert_eq!((bench.irq[0].level(), bench.fiq[1].level()), (false, true));
}

#[test]
fn spi_follows_its_route_also_when_it_is_already_pending() {
    let bench = Bench::linux(18);
    bench.enable_spi(10);
    bench.d_write64(GICD_IROUTER + 8 * 42, 0x101);
    bench.gic.spi(10).set(true);
    assert!(bench.irq[17].level() && !bench.irq[0].level());
    bench.d_write64(GICD_IROUTER + 8 * 42, 2);
    assert!(bench.irq[2].level() && !bench.irq[17].level());
    bench.d_write64(GICD_IROUTER + 8 * 42, 0x7f);
    assert!(!bench.irq.iter().any(|line| line.level()), "nobody has this affinity");
    bench.d_write64(GICD_IROUTER + 8 * 42, 1 << 32);
    assert!(!bench.irq.iter().any(|line| line.level()), "Aff3 counts");
}

#[test]
fn spi_may_be_deactivated_by_another_pe_than_took_it() {
    let bench = Bench::linux(2);
    bench.enable_spi(10);
    bench.gic.spi(10).set(true);
    bench.sys_write(0, CTLR, 2);
    bench.sys_write(1, CTLR, 2);
    assert_eq!(bench.sys(0, IAR1), 42);
    bench.sys_write(0, EOIR1, 42);
    assert!(!bench.irq[0].level());
    bench.sys_write(1, DIR, 42);
    assert!(bench.irq[0].level());
}

#[test]
fn best_priority_comes_first_and_of_equals_the_lowest_intid() {
    let bench = Bench::linux(1);
    for n in [4, 2, 9] {
        bench.enable_spi(n);
        bench.gic.spi(n as u32).set(true);
    }
    bench.set_priority(41, 0x40);
    assert_eq!(bench.sys(0, HPPIR1), 41);
    assert_eq!(bench.sys(0, IAR1), 41);
    assert_eq!(bench.sys(0, RPR), 0x40);
    assert_eq!(bench.sys(0, AP1R0), 1 << 8);
    bench.sys_write(0, EOIR1, 41);
    bench.gic.spi(9).set(false);
    assert_eq!(bench.sys(0, IAR1), 34);
    assert_eq!(bench.sys(0, IAR1), SPURIOUS, "an equal priority does not preempt");
    bench.sys_write(0, EOIR1, 34);
    bench.gic.spi(2).set(false);
    assert_eq!(bench.sys(0, IAR1), 36);
}

#[test]
fn priority_mask_lets_only_higher_priorities_through() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.gic.spi(1).set(true);
    bench.sys_write(0, PMR, 0xc0);
    assert!(!bench.irq[0].level(), "priority equal to the mask");
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
    assert_eq!(bench.sys(0, HPPIR1), 33, "pending all the same");
    bench.sys_write(0, PMR, 0xc8);
    assert!(bench.irq[0].level());
}

#[test]
fn higher_priority_preempts_and_the_running_priority_returns() {
    let bench = Bench::linux(1);
    for n in [1, 2] {
        bench.enable_spi(n);
    }
    bench.set_priority(34, 0x80);
    bench.gic.spi(1).set(true);
    assert_eq!(bench.sys(0, IAR1), 33);
    bench.gic.spi(2).set(true);
    assert!(bench.irq[0].level());
    assert_eq!(bench.sys(0, IAR1), 34);
    assert_eq!((bench.sys(0, RPR), bench.sys(0, AP1R0)), (0x80, 1 << 24 | 1 << 16));
    bench.gic.spi(2).set(false);
    bench.sys_write(0, EOIR1, 34);
    assert_eq!(bench.sys(0, RPR), 0xc0);
    bench.sys_write(0, EOIR1, 33);
    assert_eq!(bench.sys(0, RPR), 0xff);
}

#[test]
fn binary_point_groups_priorities_that_do_not_preempt_each_other() {
    let bench = Bench::linux(1);
    for n in [1, 2] {
        bench.enable_spi(n);
    }
    bench.sys_write(0, BPR1, 6); // group priority: bits [7:6]
    bench.gic.spi(1).set(true);
    assert_eq!(bench.sys(0, IAR1), 33);
    assert_eq!(bench.sys(0, RPR), 0xc0);
    bench.set_priority(34, 0x80);
    bench.gic.spi(2).set(true);
    assert!(bench.irq[0].level(), "0x80 is in a better group than 0xc0");
    bench.sys_write(0, BPR1, 7); // bit [7]
    assert!(!bench.irq[0].level(), "now both are in the same group");
    bench.sys_write(0, EOIR1, 33);
    assert_eq!(bench.sys(0, IAR1), 34, "within a group, the better one still comes first");
}

#[test]
fn common_binary_point_uses_that_of_group_0_for_group_1() {
    let bench = Bench::linux(1);
    for n in [1, 2] {
        bench.enable_spi(n);
    }
    bench.set_priority(34, 0x80);
    bench.sys_write(0, BPR0, 6); // group priority: bit [7]
    bench.gic.spi(1).set(true);
    assert_eq!(bench.sys(0, IAR1), 33);
    bench.gic.spi(2).set(true);
    assert!(bench.irq[0].level());
    bench.sys_write(0, CTLR, 1);
    assert!(!bench.irq[0].level());
}

#[test]
fn group_0_is_signalled_by_fiq_and_read_through_its_own_registers() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.d_write(GICD_IGROUPR + 4, 0xffff_fffd);
    bench.gic.spi(1).set(true);
    assert!(!bench.fiq[0].level(), "group 0 is disabled at the CPU interface");
    bench.sys_write(0, IGRPEN0, 1);
    assert!(bench.fiq[0].level() && !bench.irq[0].level());
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
    assert_eq!(bench.sys(0, HPPIR1), SPURIOUS);
    assert_eq!(bench.sys(0, HPPIR0), 33);
    assert_eq!(bench.sys(0, IAR0), 33);
    assert_eq!((bench.sys(0, AP0R0), bench.sys(0, AP1R0)), (1 << 24, 0));
    bench.sys_write(0, EOIR1, 33);
    assert_eq!(bench.sys(0, RPR), 0xc0, "the other group's register ends nothing");
    bench.sys_write(0, EOIR0, 33);
    assert_eq!(bench.sys(0, RPR), 0xff);
}

#[test]
fn disabled_group_does_not_stand_in_the_way_of_the_other() {
    let bench = Bench::linux(1);
    for n in [1, 2] {
        bench.enable_spi(n);
        bench.gic.spi(n as u32).set(true);
    }
    bench.d_write(GICD_IGROUPR + 4, 0xffff_fffd);
    bench.set_priority(33, 0);
    assert_eq!(bench.sys(0, IAR1), 34);
}

#[test]
fn group_enables_of_distributor_and_cpu_interface_both_count() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.gic.spi(1).set(true);
    assert!(bench.irq[0].level());
    bench.d_write(GICD_CTLR, 0x11);
    assert!(!bench.irq[0].level());
    bench.d_write(GICD_CTLR, 0x13);
    bench.sys_write(0, IGRPEN1, 0);
    assert!(!bench.irq[0].level());
    bench.sys_write(0, IGRPEN1, 1);
    assert!(bench.irq[0].level());
}

#[test]
fn with_eoi_mode_the_end_drops_the_priority_and_dir_deactivates() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.make_spi_edge(1);
    bench.gic.spi(1).pulse();
    bench.sys_write(0, CTLR, 2);
    assert_eq!(bench.sys(0, IAR1), 33);
    bench.sys_write(0, EOIR1, 33);
    assert_eq!(bench.sys(0, RPR), 0xff);
    assert_eq!(bench.d_read(GICD_ISACTIVER + 4), 2, "still active");
    bench.sys_write(0, DIR, 33);
    assert_eq!(bench.d_read(GICD_ISACTIVER + 4), 0);
}

#[test]
fn dir_without_eoi_mode_does_nothing() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.gic.spi(1).set(true);
    assert_eq!(bench.sys(0, IAR1), 33);
    bench.sys_write(0, DIR, 33);
    assert_eq!(bench.d_read(GICD_ISACTIVER + 4), 2);
}

#[test]
fn ends_of_special_and_unknown_intids_are_ignored() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.gic.spi(1).set(true);
    assert_eq!(bench.sys(0, IAR1), 33);
    for intid in [1020, 1023, 288, 8191, 0x1_0000, u64::MAX] {
        bench.sys_write(0, EOIR1, intid);
        assert_eq!(bench.sys(0, RPR), 0xc0, "{intid}");
    }
}

#[test]
fn sleeping_redistributor_wakes_its_pe_but_delivers_nothing() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.sys_write(0, IGRPEN1, 0);
    bench.r_write(0, GICR_WAKER, 2);
    assert_eq!(bench.r_read(0, GICR_WAKER), 6);
    bench.gic.spi(1).set(true);
    let levels = || (bench.wake[0].level(), bench.irq[0].level(), bench.fiq[0].level());
    assert_eq!(levels(), (true, false, false), "WakeRequest, and no interrupt");
    bench.sys_write(0, IGRPEN1, 1);
    assert_eq!(levels(), (true, false, false));
    assert_eq!(bench.sys(0, IAR1), SPURIOUS);
    bench.r_write(0, GICR_WAKER, 0);
    assert_eq!(levels(), (false, true, false));
    assert_eq!(bench.sys(0, IAR1), 33);
}

#[test]
fn reset_of_a_pe_resets_its_cpu_interface_and_leaves_redistributor_and_other_pes() {
    let bench = Bench::linux(2);
    bench.enable_private(0, 5);
    bench.enable_private(1, 5);
    let registers = [PMR, BPR0, BPR1, AP0R0, AP1R0, CTLR, IGRPEN0, IGRPEN1, RPR];
    let read = |cpu| registers.map(|reg| bench.sys(cpu, reg));
    let fresh = Bench::new(1);
    let reset = registers.map(|reg| fresh.sys(0, reg));
    for cpu in 0..2 {
        for (reg, value) in [(BPR0, 5), (BPR1, 6), (CTLR, 3), (IGRPEN0, 1)] {
            bench.sys_write(cpu, reg, value);
        }
        bench.sys_write(0, SGI1R, 1 << cpu | 5 << 24);
        assert_eq!(bench.sys(cpu, IAR1), 5);
        bench.sys_write(0, SGI1R, 1 << cpu | 5 << 24);
    }
    let other = read(1);

    bench.gic.sysreg_reset(0);

    assert_eq!(read(0), reset);
    assert_eq!(read(1), other);
    assert!(!bench.irq[0].level(), "the group is off");
    assert_eq!(bench.r_read(0, SGI_FRAME + GICD_ISACTIVER), 1 << 5, "active stays");
    assert_eq!(bench.r_read(0, SGI_FRAME + GICD_ISPENDR), 1 << 5, "pending stays");
    assert_eq!(bench.r_read(0, GICR_WAKER), 0);
    bench.gic.sysreg_reset(2); // there is none
}

#[test]
fn deliveries_are_counted_by_kind() {
    let bench = Bench::linux(1);
    bench.enable_spi(1);
    bench.enable_private(0, 27);
    bench.enable_private(0, 0);
    bench.gic.spi(1).set(true);
    bench.gic.ppi(0, 11).set(true);
    bench.sys_write(0, SGI1R, 1);
    for intid in [0, 27, 33] {
        assert_eq!(bench.sys(0, IAR1), intid);
        bench.gic.ppi(0, 11).set(intid == 0);
        bench.sys_write(0, EOIR1, intid);
    }
    bench.gic.spi(1).set(false);
    bench.sys(0, IAR1);
    let expected = Counters { sgis: 1, ppis: 1, spis: 1, spurious: 1, ..Counters::default() };
    assert_eq!(bench.counters(), expected);
}
