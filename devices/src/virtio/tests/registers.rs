//! Capabilities, configuration and registers, through the BAR and through configuration space.

use hw::regmap::{check_map, check_plain};
use proptest::prelude::*;

use super::*;

#[test]
fn common_configuration_is_declared_without_overlap() {
    check_map::<CommonCfg>();
    check_map::<cap::CapReg>();
    check_map::<cap::PciCfgReg>();
}

/// The others depend on the device or on the queue that is selected.
#[test]
fn plain_fields_keep_what_is_writable_and_nothing_else() {
    let bench = Bench::new();
    let modelled = [
        CommonCfg::device_feature,
        CommonCfg::driver_feature,
        CommonCfg::config_msix_vector,
        CommonCfg::num_queues,
        CommonCfg::device_status,
        CommonCfg::queue_select,
        CommonCfg::queue_size,
        CommonCfg::queue_msix_vector,
        CommonCfg::queue_enable,
        CommonCfg::queue_desc,
        CommonCfg::queue_driver,
        CommonCfg::queue_device,
    ];
    check_plain::<CommonCfg>(
        |at, bytes| bench.read(at, bytes),
        |at, bytes, value| bench.write(at, bytes, value),
        &modelled,
    );
}

#[test]
fn capabilities_of_all_five_kinds_point_into_the_bar() {
    let bench = Bench::new();
    assert_eq!(bench.config_read(0, 4), 0x1042_1af4);
    assert_eq!(bench.config_read(8, 1), 1);
    let mut kinds = Vec::new();
    for (id, at) in bench.capabilities() {
        if id == 9 {
            let (offset, length) = (bench.config_read(at + 8, 4), bench.config_read(at + 12, 4));
            assert!(offset + length <= 0x8000);
            kinds.push((bench.config_read(at + 3, 1), offset, length));
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [(1, 0, 0x38), (2, 0x3000, 4), (3, 0x1000, 1), (4, 0x2000, 0x1000), (5, 0, 0)]);
}

#[test]
fn features_are_refused_without_version_1_and_platform_access_and_fixed_once_accepted() {
    let bench = Bench::new();
    let offered = bench.offered();
    let needed = feature::VERSION_1 | feature::ACCESS_PLATFORM;
    assert_eq!(offered & needed, needed);
    for wrong in [offered & !feature::VERSION_1, offered & !feature::ACCESS_PLATFORM, offered | 1 << 40] {
        bench.write(STATUS_REG, 1, 0);
        bench.write(STATUS_REG, 1, 3);
        bench.accept(wrong);
        bench.write(STATUS_REG, 1, 0xb);
        assert_eq!(bench.status(), 3, "{wrong:#x}");
        bench.write(STATUS_REG, 1, 0xf);
        assert_eq!(bench.status(), 3, "not ready either");
    }
    bench.accept(needed);
    bench.write(STATUS_REG, 1, 0xb);
    assert_eq!(bench.status(), 0xb);
    bench.accept(0);
    bench.write(DRIVER_SELECT, 4, 1);
    assert_eq!(bench.read(DRIVER_FEATURE, 4), needed >> 32);
}

#[test]
fn queue_registers_keep_to_the_offered_size_and_the_existing_vectors() {
    let bench = Bench::new();
    assert_eq!(bench.read(0x12, 2), 1);
    assert_eq!(bench.read(QUEUE_SIZE, 2), 256);
    for wrong in [0, 3, 512, 0xffff] {
        bench.write(QUEUE_SIZE, 2, wrong);
        assert_eq!(bench.read(QUEUE_SIZE, 2), 256);
    }
    bench.write(QUEUE_VECTOR, 2, 2);
    assert_eq!(bench.read(QUEUE_VECTOR, 2), 0xffff);
    bench.write(QUEUE_SELECT, 2, 1);
    bench.write(QUEUE_DESC, 4, 0x1000);
    assert_eq!((bench.read(QUEUE_SIZE, 2), bench.read(QUEUE_DESC, 4)), (0, 0), "no such queue");
    assert_eq!(bench.read(QUEUE_SIZE, 4), 0xffff_ffff, "wider than the field");
    bench.write(QUEUE_SELECT, 1, 0);
    assert_eq!(bench.read(QUEUE_SELECT, 2), 1, "narrower than the field");
}

#[test]
fn configuration_shows_capacity_segments_and_nothing_beyond() {
    let bench = Bench::new();
    assert_eq!((bench.read(0x2000, 4), bench.read(0x2004, 4)), (64, 0));
    assert_eq!((bench.read(0x200c, 4), bench.read(0x2014, 4)), (254, 512));
    assert_eq!(bench.read(0x2038, 8), 1);
    assert_eq!(bench.read(0x2ff8, 8), 0);
    bench.write(0x2000, 4, 7);
    assert_eq!(bench.read(0x2000, 4), 64);
}

#[test]
fn registers_can_be_reached_through_configuration_space() {
    let bench = Bench::new();
    let access = bench
        .capabilities()
        .into_iter()
        .find(|&(id, at)| id == 9 && bench.config_read(at + 3, 1) == 5)
        .unwrap()
        .1;
    let aim = |offset: u64, len: u64| {
        bench.config_write(access + 4, 1, 0);
        bench.config_write(access + 8, 4, offset);
        bench.config_write(access + 12, 4, len);
    };
    aim(0x12, 2);
    assert_eq!(bench.config_read(access + 16, 2), 1, "one queue");
    aim(STATUS_REG, 1);
    bench.config_write(access + 16, 1, 3);
    assert_eq!(bench.status(), 3);
    aim(0x2000, 4);
    assert_eq!(bench.config_read(access + 16, 4), 64);
    for (offset, len) in [(0x8000, 4), (u64::from(u32::MAX), 1), (0, 3), (0, 0), (2, 4), (0, 0x1000_0000)] {
        aim(offset, len);
        bench.config_write(access + 16, 4, 0);
        bench.config_read(access + 16, 4);
    }
    assert_eq!(bench.status(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn register_accesses_of_all_kinds_never_panic(
        accesses in prop::collection::vec((0u64..0x8000, 0usize..4, any::<u64>()), 1..80)
    ) {
        let bench = Bench::new();
        for (at, log2, value) in accesses {
            let len = 1usize << log2;
            // Mostly the common configuration, where the state is.
            let at = if value & 3 == 0 { at } else { at % 0x40 } & !(len as u64 - 1);
            bench.write(at, len, value);
            bench.read(at, len);
            bench.device.step();
        }
    }
}
