//! Whatever a guest does: no panic, and work that ends.

use proptest::prelude::*;

use super::*;
use crate::gic::regs::{DistributorReg, ItsReg, RedistributorReg};
use hw::regmap::RegisterMap;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Mmio { window: usize, offset: u64, len: usize, value: u64, is_write: bool },
    System { cpu: usize, reg: u16, value: u64, is_write: bool },
    Command([u64; 4]),
    Message { device: u32, event: u32 },
    Line { n: u32, high: bool },
    Ram { at: u64, value: u64 },
}

fn offsets<R: RegisterMap>() -> Vec<u64> {
    R::ALL
        .iter()
        .flat_map(|(_, info)| (0..info.count.min(12)).map(|i| info.offset + i * info.stride))
        .collect()
}

fn offset() -> impl Strategy<Value = (usize, u64)> {
    prop_oneof![
        prop::sample::select(offsets::<DistributorReg>()).prop_map(|at| (0, at)),
        (0..3_u64, prop::sample::select(offsets::<RedistributorReg>()))
            .prop_map(|(cpu, at)| (1, cpu * 0x2_0000 + at)),
        prop::sample::select(offsets::<ItsReg>()).prop_map(|at| (2, at)),
        (0..3_usize, 0..0x2_0000_u64),
    ]
}

/// Numbers that mean something now and then.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..64_u64,
        8190..8300_u64,
        (0..RAM_BYTES).prop_map(|at| 1 << 63 | (RAM_BASE + at) & !0xfff),
        Just(u64::MAX),
        Just(0),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let command = (0..0x12_u64, prop_oneof![0..20_u64, any::<u64>()], value(), value(), value())
        .prop_map(|(op, device, b, c, d)| Step::Command([device << 32 | op, b, c, d]));
    prop_oneof![
        (offset(), prop::sample::select(vec![1, 2, 4, 8, 16, 3]), value(), any::<bool>()).prop_map(
            |((window, offset), len, value, is_write)| Step::Mmio { window, offset, len, value, is_write }
        ),
        (0..4_usize, 8..13_u8, 0..8_u8, value(), any::<bool>()).prop_map(
            |(cpu, crm, op2, value, is_write)| {
                Step::System { cpu, reg: icc(crm, op2).0, value, is_write }
            }
        ),
        command,
        (0..20_u32, 0..40_u32).prop_map(|(device, event)| Step::Message { device, event }),
        (0..256_u32, any::<bool>()).prop_map(|(n, high)| Step::Line { n, high }),
        (0..RAM_BYTES / 8, value()).prop_map(|(at, value)| Step::Ram { at: RAM_BASE + 8 * at, value }),
    ]
}

pub(super) fn perform(bench: &Bench, step: Step) {
    match step {
        Step::Mmio { window, offset, len, value, is_write } => {
            let device = [&bench.dist, &bench.redist, &bench.its][window];
            let mut data = [0; 16];
            put_value(&mut data, value);
            // Refused or not: the answer is the architecture's, the test is that there is one.
            let _ = if is_write {
                device.mmio_write(offset, &data[..len])
            } else {
                device.mmio_read(offset, &mut data[..len])
            };
        }
        Step::System { cpu, reg, value, is_write } => {
            if is_write {
                let _ = bench.gic.sysreg_write(cpu, SysReg(reg), value);
            } else {
                let _ = bench.gic.sysreg_read(cpu, SysReg(reg));
            }
        }
        Step::Command(words) => {
            let at = bench.i_read(GITS_CWRITER);
            for (i, word) in words.into_iter().enumerate() {
                let _ = bench.ram.store_u64(Pa(QUEUE + at + 8 * i as u64), word);
            }
            bench.i_write(GITS_CWRITER, (at + 32) % QUEUE_BYTES);
        }
        Step::Message { device, event } => bench.message(device, event),
        Step::Line { n, high } => bench.gic.spi(n).set(high),
        Step::Ram { at, value } => bench.ram.store_u64(Pa(at), value).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_guest_never_panics_the_controller(steps in prop::collection::vec(step(), 1..200)) {
        let bench = Bench::linux(3);
        for step in steps {
            perform(&bench, step);
        }
    }

    /// The wire is high exactly if there is something to acknowledge, whatever has happened before.
    #[test]
    fn wire_agrees_with_what_an_acknowledge_finds(steps in prop::collection::vec(step(), 1..100)) {
        let bench = Bench::linux(3);
        for step in steps {
            perform(&bench, step);
        }
        for cpu in 0..3 {
            if bench.r_read(cpu, GICR_WAKER) & 2 != 0 {
                continue;
            }
            let (irq, fiq) = (bench.irq[cpu].level(), bench.fiq[cpu].level());
            prop_assert!(!(irq && fiq), "one candidate, one wire");
            prop_assert_eq!(bench.sys(cpu, IAR1) != SPURIOUS, irq);
            if fiq {
                prop_assert_ne!(bench.sys(cpu, IAR0), SPURIOUS);
            }
        }
    }
}

#[test]
fn full_queue_of_the_dearest_commands_ends_soon() {
    let bench = Bench::linux(4);
    // Everything pending and enabled, on PE 0.
    bench.ram.write(Pa(PROP), &[0xa3; 0xe000]).unwrap();
    bench.ram.write(Pa(pending_table(0) + 1024), &[0xff; 7168]).unwrap();
    bench.r_write(0, GICR_CTLR, 0);
    bench.ram.write(Pa(pending_table(0) + 1024), &[0xff; 7168]).unwrap();
    bench.r_write64(0, GICR_PENDBASER, pending_table(0));
    bench.r_write(0, GICR_CTLR, 1);
    write(&*bench.its, GITS_CTLR, 4, 0);
    // 256 pages of commands: MOVALL to and fro, and INVALL.
    let queue = RAM_BASE + 0xa0_0000;
    bench.i_write(GITS_CBASER, 1 << 63 | queue | 0xff);
    for i in 0..0x8000_u64 {
        let words = match i % 3 {
            0 => [0x0e, 0, 0, 1 << 16],
            1 => [0x0d, 0, 0, 0],
            _ => [0x0e, 0, 1 << 16, 0],
        };
        for (j, word) in words.into_iter().enumerate() {
            bench.ram.store_u64(Pa(queue + 32 * i + 8 * j as u64), word).unwrap();
        }
    }
    bench.i_write(GITS_CWRITER, 0xf_ffe0);
    let start = std::time::Instant::now();
    write(&*bench.its, GITS_CTLR, 4, 1);
    let spent = start.elapsed();
    assert_eq!(bench.i_read(GITS_CREADR), 0xf_ffe0);
    assert!(spent.as_secs() < 10, "{spent:?}");
    let holder = usize::from(bench.irq[1].level());
    assert_eq!(bench.sys(holder, IAR1), 8192);
}

#[test]
fn many_threads_at_once_leave_wires_and_state_in_agreement() {
    let bench = Bench::linux(2);
    bench.mapd(8, ITT, 5);
    for event in 0..32 {
        bench.mapti(8, event, 8192 + event, event % 2);
        bench.set_property(8192 + event, 0xa3);
    }
    let all = |cpu: usize| {
        let mut taken = 0;
        loop {
            let intid = bench.sys(cpu, IAR1);
            if intid == SPURIOUS {
                return taken;
            }
            bench.sys_write(cpu, EOIR1, intid);
            taken += 1;
        }
    };
    std::thread::scope(|scope| {
        for half in 0..2 {
            let bench = &bench;
            scope.spawn(move || {
                for i in 0..5_000 {
                    bench.message(8, (half * 16 + i % 16) as u32);
                }
            });
        }
        for cpu in 0..2 {
            scope.spawn(move || (0..2_000).map(|_| all(cpu)).sum::<u64>());
        }
    });
    let _ = (all(0), all(1));
    assert!(!bench.irq[0].level() && !bench.irq[1].level());
    assert!(bench.counters().lpis >= 32);
}
