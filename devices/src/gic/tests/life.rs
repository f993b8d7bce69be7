//! The machine's reset.

use hw::LifeCycle;
use hw::regmap::{RegisterInfo, RegisterMap};

use super::*;
use crate::gic::{DistributorReg, ItsReg, RedistributorReg};

fn offsets<R: RegisterMap>() -> impl Iterator<Item = (&'static RegisterInfo, u64)> {
    R::ALL.iter().flat_map(|(_, info)| (0..info.count).map(move |i| (info, info.offset + i * info.stride)))
}

/// Every register that can be read without a side effect.
pub(super) fn registers(bench: &Bench) -> Vec<(String, u64)> {
    let cpus = bench.irq.len() as u64;
    let mut all = Vec::new();
    for (info, at) in offsets::<DistributorReg>() {
        all.push((format!("{} at {at:#x}", info.name), read(&*bench.dist, at, info.bytes as usize)));
    }
    for cpu in 0..cpus {
        for (info, at) in offsets::<RedistributorReg>() {
            let value = read(&*bench.redist, cpu * 0x2_0000 + at, info.bytes as usize);
            all.push((format!("{} of PE {cpu}", info.name), value));
        }
        let icc = [PMR, HPPIR0, HPPIR1, BPR0, BPR1, AP0R0, AP1R0, RPR, CTLR, SRE, IGRPEN0, IGRPEN1];
        all.extend(icc.map(|reg| (format!("{reg:?} of PE {cpu}"), bench.sys(cpu as usize, reg))));
    }
    for (info, at) in offsets::<ItsReg>() {
        all.push((info.name.to_owned(), read(&*bench.its, at, info.bytes as usize)));
    }
    all
}

/// Interrupts of all kinds are pending and active, and each register that can be written has other bits than before.
fn disturb(bench: &Bench) {
    bench.set_property(8192, 0xa1);
    bench.set_property(8193, 0xa1);
    bench.mapd(8, ITT, 5);
    bench.mapti(8, 0, 8192, 0);
    bench.mapti(8, 1, 8193, 1);
    bench.message(8, 0);
    bench.message(8, 1);
    bench.make_spi_edge(3);
    for spi in [3, 4] {
        bench.enable_spi(spi);
        bench.gic.spi(spi as u32).pulse();
    }
    bench.enable_private(1, 27);
    bench.gic.ppi(1, 11).set(true);
    assert!(bench.irq.iter().all(|line| line.level()));
    bench.sys(0, IAR1);
    bench.sys(0, IAR1);
    for reg in [BPR0, BPR1, CTLR, AP0R0, IGRPEN0] {
        (0..2).for_each(|cpu| bench.sys_write(cpu, reg, 7));
    }
    write(&*bench.its, GITS_CTLR, 4, 0);
    let is_left_out = |name: &str| name == "GICR_CTLR" || name.starts_with("GITS_C");
    for (info, at) in offsets::<DistributorReg>() {
        write(&*bench.dist, at, info.bytes as usize, u64::MAX >> (64 - 8 * info.bytes));
    }
    for (info, at) in offsets::<RedistributorReg>().filter(|(info, _)| !is_left_out(info.name)) {
        for cpu in 0..2 {
            write(
                &*bench.redist,
                cpu * 0x2_0000 + at,
                info.bytes as usize,
                u64::MAX >> (64 - 8 * info.bytes),
            );
        }
    }
    for (info, at) in offsets::<ItsReg>().filter(|(info, _)| !is_left_out(info.name)) {
        write(&*bench.its, at, info.bytes as usize, u64::MAX >> (64 - 8 * info.bytes));
    }
}

#[test]
fn reset_brings_every_register_back_to_power_on_lowers_all_wires_and_writes_no_memory() {
    let at_power_on = registers(&Bench::new(2));
    let bench = Bench::linux(2);
    for round in 0..100 {
        if round != 0 {
            bench.initialise();
        }
        disturb(&bench);
        let counters = bench.counters();
        let mut before = vec![0; RAM_BYTES as usize];
        bench.ram.read(Pa(RAM_BASE), &mut before).unwrap();

        // Whoever drives an input has been reset before.
        bench.gic.ppi(1, 11).set(false);
        bench.gic.reset();

        for (found, expected) in registers(&bench).iter().zip(&at_power_on) {
            assert_eq!(found, expected, "round {round}");
        }
        let lines = bench.irq.iter().chain(&bench.fiq).chain(&bench.wake);
        assert!(lines.clone().all(|line| !line.level()), "round {round}");
        bench.message(8, 0);
        assert!(lines.clone().all(|line| !line.level()), "the ITS is disabled");
        assert_eq!(bench.counters().lpis, counters.lpis, "counts go on");
        let mut after = vec![0; RAM_BYTES as usize];
        bench.ram.read(Pa(RAM_BASE), &mut after).unwrap();
        assert!(before == after);
    }
}

#[test]
fn lpis_of_before_a_reset_are_neither_pending_nor_configured_afterwards() {
    let bench = Bench::linux(1);
    bench.set_property(8192, 0xa1);
    bench.mapd(8, ITT, 5);
    bench.mapti(8, 0, 8192, 0);
    bench.message(8, 0);
    assert!(bench.irq[0].level());
    bench.gic.reset();
    // The next kernel's tables are elsewhere, and say otherwise.
    bench.initialise();
    assert_eq!((bench.irq[0].level(), bench.sys(0, IAR1)), (false, SPURIOUS));
    bench.mapd(8, ITT, 5);
    bench.mapti(8, 0, 8192, 0);
    bench.message(8, 0);
    assert!(!bench.irq[0].level(), "the table has it disabled");
    bench.set_property(8192, 0xa1);
    bench.event_command(0x0c, 8, 0, 0);
    assert_eq!(bench.sys(0, IAR1), 8192);
}
