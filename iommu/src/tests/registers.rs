//! Registers (chapter 6).

use super::*;
use crate::StallModel;
use hw::BusError;
use hw::regmap::check_map;

#[test]
fn register_map_is_sound() {
    check_map::<SmmuReg>();
}

/// The other tests and the model take offsets from the map; a driver does not.
#[test]
fn registers_are_at_the_offsets_that_drivers_use() {
    for (reg, offset) in [
        (SmmuReg::SMMU_IDR0, 0x0),
        (SmmuReg::SMMU_IDR1, 0x4),
        (SmmuReg::SMMU_IDR3, 0xc),
        (SmmuReg::SMMU_IDR5, 0x14),
        (SmmuReg::SMMU_CR0, 0x20),
        (SmmuReg::SMMU_CR0ACK, 0x24),
        (SmmuReg::SMMU_CR1, 0x28),
        (SmmuReg::SMMU_CR2, 0x2c),
        (SmmuReg::SMMU_GBPA, 0x44),
        (SmmuReg::SMMU_IRQ_CTRL, 0x50),
        (SmmuReg::SMMU_IRQ_CTRLACK, 0x54),
        (SmmuReg::SMMU_GERROR, 0x60),
        (SmmuReg::SMMU_GERRORN, 0x64),
        (SmmuReg::SMMU_GERROR_IRQ_CFG0, 0x68),
        (SmmuReg::SMMU_STRTAB_BASE, 0x80),
        (SmmuReg::SMMU_STRTAB_BASE_CFG, 0x88),
        (SmmuReg::SMMU_CMDQ_BASE, 0x90),
        (SmmuReg::SMMU_CMDQ_PROD, 0x98),
        (SmmuReg::SMMU_CMDQ_CONS, 0x9c),
        (SmmuReg::SMMU_EVENTQ_BASE, 0xa0),
        (SmmuReg::SMMU_EVENTQ_IRQ_CFG0, 0xb0),
        (SmmuReg::SMMU_PRIQ_BASE, 0xc0),
        (SmmuReg::SMMU_PRIQ_IRQ_CFG0, 0xd0),
        (SmmuReg::SMMU_PRIQ_IRQ_CFG1, 0xd8),
        (SmmuReg::SMMU_PRIQ_IRQ_CFG2, 0xdc),
        (SmmuReg::SMMU_PRIQ_PROD, 0x1_00c8),
        (SmmuReg::SMMU_PRIQ_CONS, 0x1_00cc),
        (SmmuReg::SMMU_EVENTQ_PROD, 0x1_00a8),
        (SmmuReg::SMMU_EVENTQ_CONS, 0x1_00ac),
    ] {
        assert_eq!(reg.offset(), offset, "{reg:?}");
    }
}

#[test]
fn enables_and_errors_are_zero_after_reset() {
    let m = Bench::reset(Features::default());
    for offset in [CR0, CR0ACK, IRQ_CTRL, IRQ_CTRLACK, GERROR, GERRORN] {
        assert_eq!(m.r32(offset), 0, "{offset:#x}");
    }
    assert_eq!(m.r32(GBPA), 0x1000);
}

#[test]
fn id_registers_tell_the_features_and_ignore_writes() {
    // S1, AArch64, COHACC, ATS, ASID16, MSI, PRI, CD2L, little-endian, ATSRECERR, TERM_MODEL, two-level stream table; HAD,
    // PPS, STT, RIL, BBML 2.
    let stage1 = [(IDR0, 0x0cc9_341a), (IDR3, 0x1624)];
    // S2, HYP, VMID16, HTTU 2; XNX, FWB.
    let both = [(IDR0, 0x0ccd_369b), (IDR3, 0x1734)];
    let common = [(IDR1, 0x0d8c_6510), (IDR5, 0x0100_0075), (SmmuReg::SMMU_AIDR.offset(), 2)];
    for (features, own) in [(Features::stage1_only(), stage1), (Features::default(), both)] {
        let m = Bench::reset(features);
        for (offset, value) in own.into_iter().chain(common) {
            m.w32(offset, u32::MAX);
            assert_eq!(m.r32(offset), value, "{offset:#x}");
        }
    }
    let wide = Features { output: crate::OutputSize::BITS_52, va52: true, ..Features::default() };
    assert_eq!(Bench::reset(wide).r32(IDR5), 0x0100_0476);
}

#[test]
fn registers_of_what_is_absent_are_zero_and_ignore_writes() {
    let m = Bench::reset(Features::default());
    for reg in [
        SmmuReg::SMMU_IDR2,
        SmmuReg::SMMU_IDR4,
        SmmuReg::SMMU_IIDR,
        SmmuReg::SMMU_STATUSR,
        SmmuReg::SMMU_AGBPA,
        SmmuReg::SMMU_PIDR4,
        SmmuReg::SMMU_PIDR0,
    ] {
        m.w32(reg.offset(), u32::MAX);
        assert_eq!(m.r32(reg.offset()), 0, "{reg:?}");
    }
}

#[test]
fn component_is_identified_by_smmu_cidr0_and_what_follows() {
    let m = Bench::reset(Features::default());
    let id = [0, 1, 2, 3].map(|index| m.r32(SmmuReg::SMMU_CIDR0.at(index)));
    assert_eq!(id, [0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn global_error_message_is_what_its_registers_say() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w32(IRQ_CTRL, 0);
    m.w64(GERROR_IRQ_CFG0, DOORBELL);
    m.w32(SmmuReg::SMMU_GERROR_IRQ_CFG1.offset(), 0x1234);
    m.w32(SmmuReg::SMMU_GERROR_IRQ_CFG2.offset(), 1);
    assert_eq!(m.r32(SmmuReg::SMMU_GERROR_IRQ_CFG2.offset()), 1);
    m.w32(IRQ_CTRL, 1);
    m.enable(CMDQEN);
    m.command(0, 0);
    assert_eq!(m.msi.take(), [(DeviceId(0xff), 0x1234)]);
}

#[test]
fn e2h_exists_only_with_el2() {
    for (features, e2h) in [(Features::stage1_only(), 0), (Features::default(), 1)] {
        let m = Bench::reset(features);
        m.w32(CR2, 3);
        assert_eq!(m.r32(CR2), 2 | e2h);
    }
}

#[test]
fn errors_of_ats_can_be_asked_for_only_if_they_can_be_recorded() {
    for (features, bit) in [
        (Features::default(), 8),
        (Features { ats_errors: false, ..Features::default() }, 0),
        (Features { ats: false, pri: false, ..Features::default() }, 0),
    ] {
        let m = Bench::reset(features);
        m.w32(CR2, 0xa);
        assert_eq!((m.r32(CR2), m.r32(IDR0) >> 23 & 1 != 0), (2 | bit, bit != 0));
    }
}

#[test]
fn sizes_of_ids_are_those_of_the_features() {
    for (sid_bits, ssid_bits) in [(1, 0), (8, 1), (24, 20)] {
        let m = Bench::reset(Features { sid_bits, ssid_bits, ..Features::default() });
        assert_eq!(m.r32(IDR1) & 0x7ff, u32::from(ssid_bits) << 6 | u32::from(sid_bits));
    }
}

#[test]
fn message_registers_are_res0_without_messages_but_for_lo() {
    let m = Bench::reset(Features { msi: false, ..Features::default() });
    for offset in (GERROR_IRQ_CFG0..0x78).chain(EVENTQ_IRQ_CFG0..0xc0).chain(PRIQ_IRQ_CFG0..0xe0).step_by(4) {
        m.w32(offset, u32::MAX);
        let lo = if offset == PRIQ_IRQ_CFG2 { 1 << 31 } else { 0 };
        assert_eq!(m.r32(offset), lo, "{offset:#x}");
    }
}

#[test]
fn stall_max_is_zero_without_stalls() {
    let features = Features { stall_model: StallModel::TerminateOnly, ..Features::default() };
    let m = Bench::reset(features);
    assert_eq!(m.r32(IDR5) >> 16, 0);
    assert_eq!(m.r32(IDR0) >> 24 & 3, 1);
}

#[test]
fn cr0_is_acknowledged() {
    let m = Bench::reset(Features::default());
    m.w32(CR0, 8);
    assert_eq!((m.r32(CR0), m.r32(CR0ACK)), (8, 8));
}

#[test]
fn cr0_bits_of_absent_features_are_never_acknowledged() {
    let m = Bench::reset(Features::default());
    m.w32(CR0, u32::MAX);
    assert_eq!(m.r32(CR0ACK), SMMUEN | PRIQEN | EVENTQEN | CMDQEN | ATSCHK);
    let m = Bench::reset(Features { ats: false, pri: false, ..Features::default() });
    m.w32(CR0, u32::MAX);
    assert_eq!(m.r32(CR0ACK), SMMUEN | EVENTQEN | CMDQEN);
}

#[test]
fn irq_ctrl_is_acknowledged() {
    let m = Bench::reset(Features::default());
    m.w32(IRQ_CTRL, u32::MAX);
    assert_eq!((m.r32(IRQ_CTRL), m.r32(IRQ_CTRLACK)), (7, 7));
    m.w32(IRQ_CTRL, 0);
    assert_eq!(m.r32(IRQ_CTRLACK), 0);
}

#[test]
fn table_registers_are_fixed_while_translation_is_on() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w32(CR1, 0xd75);
    m.enable(SMMUEN);
    m.w32(CR1, 0);
    m.w32(CR2, 0);
    m.w64(STRTAB_BASE, 0);
    m.w32(STRTAB_BASE_CFG, 0);
    assert_eq!(m.r32(CR1), 0xd40, "the queue attributes may change");
    assert_eq!(m.r32(CR2), 2);
    assert_eq!(m.r64(STRTAB_BASE), STRTAB);
    assert_eq!(m.r32(STRTAB_BASE_CFG), STRTAB_LOG2);
    m.enable(0);
    m.w64(STRTAB_BASE, 0);
    assert_eq!(m.r64(STRTAB_BASE), 0);
}

#[test]
fn queue_attributes_are_fixed_while_any_queue_is_on() {
    for enable in [CMDQEN, EVENTQEN] {
        let m = Bench::reset(Features::default());
        m.set_up(4);
        m.enable(enable);
        m.w32(CR1, 0xd75);
        assert_eq!(m.r32(CR1), 0xd40);
    }
}

#[test]
fn queue_registers_are_fixed_while_their_queue_is_on() {
    let m = Bench::new();
    m.w64(CMDQ_BASE, 0);
    m.w32(CMDQ_CONS, 1);
    m.w64(EVENTQ_BASE, 0);
    m.w32(EVENTQ_PROD, 1);
    assert_eq!(m.r64(CMDQ_BASE), CMDQ | u64::from(CMDQ_LOG2));
    assert_eq!(m.r32(CMDQ_CONS), 0);
    assert_eq!(m.r64(EVENTQ_BASE), EVENTQ | 4);
    assert_eq!(m.r32(EVENTQ_PROD), 0);
    m.enable(0);
    m.w32(CMDQ_CONS, 1);
    m.w32(EVENTQ_PROD, 1);
    assert_eq!((m.r32(CMDQ_CONS), m.r32(EVENTQ_PROD)), (1, 1));
}

#[test]
fn interrupt_configuration_is_fixed_while_the_interrupt_is_on() {
    let m = Bench::reset(Features::default());
    for (cfg0, enable) in [(GERROR_IRQ_CFG0, 1), (EVENTQ_IRQ_CFG0, 4)] {
        m.w32(IRQ_CTRL, enable);
        m.w64(cfg0, DOORBELL);
        m.w32(cfg0 + 8, 7);
        m.w32(cfg0 + 12, 1);
        assert_eq!((m.r64(cfg0), m.r32(cfg0 + 8), m.r32(cfg0 + 12)), (0, 0, 0));
        m.w32(IRQ_CTRL, 5 & !enable);
        m.w64(cfg0, DOORBELL);
        m.w32(cfg0 + 8, 7);
        m.w32(cfg0 + 12, 1);
        assert_eq!((m.r64(cfg0), m.r32(cfg0 + 8), m.r32(cfg0 + 12)), (DOORBELL, 7, 1));
    }
}

#[test]
fn wide_registers_take_one_write_or_two_halves() {
    let m = Bench::reset(Features::default());
    for offset in [STRTAB_BASE, CMDQ_BASE, EVENTQ_BASE, GERROR_IRQ_CFG0, EVENTQ_IRQ_CFG0] {
        m.w64(offset, 0x40ab_cdef_1234_5640);
        let whole = m.r64(offset);
        m.w64(offset, 0);
        m.w32(offset + 4, 0x40ab_cdef);
        m.w32(offset, 0x1234_5640);
        assert_eq!(m.r64(offset), whole, "{offset:#x}");
        assert_eq!(u64::from(m.r32(offset + 4)) << 32 | u64::from(m.r32(offset)), whole);
    }
}

#[test]
fn wide_access_to_narrow_registers_is_two_accesses() {
    let m = Bench::reset(Features::default());
    assert_eq!(m.r64(IDR0), 0x0d8c_6510_0ccd_369b);
    m.w64(CR1, 2 << 32 | 0xd75);
    assert_eq!((m.r32(CR1), m.r32(CR2)), (0xd75, 2));
}

#[test]
fn narrow_and_misaligned_accesses_are_refused_and_gaps_read_zero() {
    let m = Bench::reset(Features::default());
    let mut data = [0xff; 8];
    assert!(matches!(m.smmu.mmio_read(0, &mut data[..2]), Err(BusError::BadAccess { .. })));
    assert!(matches!(m.smmu.mmio_read(2, &mut data[..4]), Err(BusError::BadAccess { .. })));
    assert!(matches!(m.smmu.mmio_write(4, &data), Err(BusError::BadAccess { .. })));
    for gap in [0x34, 0x58, 0x100, 0x8000, 0xfffc, 0x1_0000, 0x1_fffc] {
        m.w32(gap, u32::MAX);
        assert_eq!(m.r32(gap), 0, "{gap:#x}");
    }
}

#[test]
fn gbpa_changes_only_with_update() {
    let m = Bench::reset(Features::default());
    m.w32(GBPA, 1 << 20);
    assert_eq!(m.r32(GBPA), 0x1000);
    m.w32(GBPA, 1 << 31 | 1 << 20);
    assert_eq!(m.r32(GBPA), 1 << 20);
}

#[test]
fn disabled_smmu_passes_addresses_below_the_output_size() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.enable(EVENTQEN);
    m.write(&plain(), DATA, b"abc").unwrap();
    assert_eq!(m.read(&process(), DATA, 3).unwrap(), b"abc");
    assert_eq!(m.read(&plain(), 1 << 48, 1), aborted(1 << 48));
    m.w32(GBPA, 1 << 31 | 1 << 20);
    assert_eq!(m.read(&plain(), DATA, 3), aborted(DATA));
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn global_error_toggles_once_until_acknowledged() {
    let m = Bench::new();
    m.command(0, 0);
    assert_eq!((m.r32(GERROR), m.active_errors()), (1, 1));
    m.w32(GERRORN, 1);
    // The bad command is still there: refused again.
    assert_eq!((m.r32(GERROR), m.active_errors()), (0, 1));
    assert_eq!(m.gerror.edges(), 2);
}

#[test]
fn acknowledging_an_inactive_error_does_nothing() {
    let m = Bench::new();
    m.w32(GERRORN, u32::MAX);
    assert_eq!(m.active_errors(), 0);
}

#[test]
fn index_bits_above_the_wrap_bit_read_zero() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w32(CMDQ_PROD, u32::MAX);
    m.w32(EVENTQ_PROD, u32::MAX);
    m.w32(EVENTQ_CONS, u32::MAX);
    assert_eq!(m.r32(CMDQ_PROD), 0xff);
    assert_eq!(m.r32(EVENTQ_PROD), 0x8000_001f);
    assert_eq!(m.r32(EVENTQ_CONS), 0x8000_001f);
}

#[test]
fn event_queue_indexes_show_on_both_pages() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w32(EVENTQ_CONS, 3);
    let [prod, cons] = [EVENTQ_PROD, EVENTQ_CONS].map(|offset| offset - crate::WINDOW_BYTES / 2);
    m.w32(prod, 5);
    assert_eq!((m.r32(cons), m.r32(EVENTQ_PROD)), (3, 5));
    assert_eq!(m.r64(prod), 3 << 32 | 5);
}

#[test]
fn queue_sizes_above_the_limit_count_as_the_limit() {
    let m = Bench::reset(Features::default());
    m.w64(CMDQ_BASE, RAM | 31);
    m.w32(CMDQ_PROD, u32::MAX);
    assert_eq!(m.r32(CMDQ_PROD), 0x1fff);
}
