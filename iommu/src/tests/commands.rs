//! Command queue and commands (chapter 4, 7.1).

use super::*;
use crate::StallModel;
use crate::spec::event::EventType;

const CMDQ_ERR: u32 = 1;

fn error_reason(m: &Bench) -> u32 {
    m.r32(CMDQ_CONS) >> 24
}

#[test]
fn commands_are_consumed_by_the_write_of_prod() {
    let m = Bench::new();
    for n in 1..=300 {
        m.command(0x30, 0);
        assert_eq!(m.r32(CMDQ_CONS), n & 0xff);
    }
}

#[test]
fn batch_of_a_whole_queue_is_consumed() {
    let m = Bench::new();
    for index in 0..1 << CMDQ_LOG2 {
        m.put_command(index, 0x30, 0);
    }
    m.w32(CMDQ_PROD, 1 << CMDQ_LOG2);
    assert_eq!(m.r32(CMDQ_CONS), 1 << CMDQ_LOG2);
    assert_eq!(m.smmu.stats().commands, [("CMD_TLBI_NSNH_ALL", 1 << CMDQ_LOG2)]);
}

#[test]
fn inconsistent_prod_consumes_nothing() {
    let m = Bench::new();
    m.w32(CMDQ_PROD, (1 << CMDQ_LOG2) + 1);
    assert_eq!(m.r32(CMDQ_CONS), 0);
}

#[test]
fn commands_from_before_the_enable_are_consumed_after_it() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.command(0x30, 0);
    assert_eq!(m.r32(CMDQ_CONS), 0);
    m.enable(CMDQEN);
    assert_eq!(m.r32(CMDQ_CONS), 1);
}

#[test]
fn illegal_command_stops_the_queue_there() {
    let m = Bench::new();
    m.put_command(0, 0x30, 0);
    m.put_command(1, 0, 0);
    m.put_command(2, 0x30, 0);
    m.w32(CMDQ_PROD, 3);
    assert_eq!(m.r32(CMDQ_CONS), 1 << 24 | 1);
    assert_eq!((m.active_errors(), m.gerror.edges()), (CMDQ_ERR, 1));
}

#[test]
fn replaced_command_is_fetched_again_on_acknowledgement() {
    let m = Bench::new();
    let slot = m.command(0, 0);
    m.command(0x30, 0);
    m.put(slot, &[0x2046]); // CMD_SYNC, SIG_SEV: what the driver puts there
    m.w32(GERRORN, CMDQ_ERR);
    assert_eq!(m.r32(CMDQ_CONS) & 0xff, 2);
    assert_eq!(m.active_errors(), 0);
}

#[test]
fn queue_toggled_while_in_error_stays_stopped() {
    let m = Bench::new();
    m.command(0, 0);
    m.enable(0);
    m.enable(CMDQEN);
    assert_eq!(m.r32(CMDQ_CONS), 1 << 24);
    assert_eq!(m.active_errors(), CMDQ_ERR);
}

#[test]
fn queue_outside_memory_is_an_abort_on_fetch() {
    let m = Bench::reset(Features::default());
    m.w64(CMDQ_BASE, HOLE | 4);
    m.enable(CMDQEN);
    m.w32(CMDQ_PROD, 1);
    assert_eq!((error_reason(&m), m.active_errors()), (2, CMDQ_ERR));
}

#[test]
fn secure_stream_commands_are_illegal() {
    for opcode in [0x01, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x30, 0x44, 0x45, 0x46] {
        let m = Bench::new();
        m.command(1 << 10 | opcode, 0);
        assert_eq!(error_reason(&m), 1, "{opcode:#x}");
    }
}

#[test]
fn sync_signals_as_its_cs_says() {
    for (cs, legal) in [(0u64, true), (1, true), (2, true), (3, false)] {
        let m = Bench::new();
        m.command(cs << 12 | 0x46, 0);
        assert_eq!(m.active_errors() == 0, legal, "CS {cs}");
        assert_eq!(m.cmdq_sync.edges(), usize::from(cs == 1));
    }
}

#[test]
fn sync_writes_its_word_and_no_more() {
    let m = Bench::new();
    m.put(DATA, &[u64::MAX; 2]);
    m.command(0xcafe_f00d << 32 | 0x1046, DATA + 4);
    assert_eq!((m.dword(DATA), m.dword(DATA + 8)), (0xcafe_f00d_ffff_ffff, u64::MAX));
}

#[test]
fn sync_to_the_doorbell_comes_from_the_smmu() {
    let m = Bench::new();
    m.command(0x55 << 32 | 0x1046, DOORBELL);
    assert_eq!(m.msi.take(), [(DeviceId(0xff), 0x55)]);
}

#[test]
fn sync_answers_into_its_own_slot() {
    let m = Bench::new();
    m.sync();
    assert_eq!(m.r32(CMDQ_CONS), 1);
}

#[test]
fn sync_pulses_its_wire_whatever_irq_ctrl_says() {
    let m = Bench::new();
    m.w32(IRQ_CTRL, 0);
    m.command(0x1046, 0);
    assert_eq!(m.cmdq_sync.edges(), 1);
}

#[test]
fn sync_to_nowhere_is_a_global_error_and_completes() {
    let m = Bench::new();
    m.command(0x1046, HOLE);
    assert_eq!(m.active_errors(), 1 << 4);
    assert_eq!(m.r32(CMDQ_CONS), 1);
}

#[test]
fn sync_without_msi_ignores_the_address() {
    let m = Bench::with(Features { msi: false, ..Features::default() });
    m.put(DATA, &[u64::MAX]);
    m.command(0x1046, DATA);
    assert_eq!((m.dword(DATA), m.cmdq_sync.edges()), (u64::MAX, 1));
}

#[test]
fn commands_of_absent_features_are_illegal() {
    // CFGI_VMS_PIDM; TLBI_EL2_*, TLBI_EL3_*; TLBI_S12_VMALL, S2_IPA; secure ones; DPTI.
    for opcode in [0x07, 0x18, 0x1a, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a, 0x50, 0x60, 0x70, 0x73, 0xff] {
        let m = Bench::with(Features::stage1_only());
        m.command(opcode, 1);
        assert_eq!(error_reason(&m), 1, "{opcode:#x}");
    }
}

#[test]
fn every_opcode_is_consumed_or_illegal() {
    for features in [Features::default(), Features::stage1_only()] {
        for opcode in 0..=0xff {
            let m = Bench::with(features);
            m.command(opcode, 0);
            let is_consumed = m.r32(CMDQ_CONS) == 1 && m.active_errors() == 0;
            let is_illegal = error_reason(&m) == 1 && m.active_errors() == CMDQ_ERR;
            assert!(is_consumed != is_illegal, "{opcode:#x}");
        }
    }
}

#[test]
fn stall_answers_are_illegal_without_stalls() {
    let features = Features { stall_model: StallModel::TerminateOnly, ..Features::default() };
    for opcode in [0x44, 0x45] {
        let m = Bench::with(features);
        m.command(opcode, 0);
        assert_eq!(error_reason(&m), 1);
    }
}

#[test]
fn commands_of_the_drivers_reset_are_legal() {
    let m = Bench::new();
    m.command(0x04, 0x1f);
    m.command(0x30, 0);
    m.command(0x10_0000_0001, 0);
    assert_eq!((m.r32(CMDQ_CONS), m.active_errors()), (3, 0));
}

#[test]
fn range_without_extent_and_level_is_illegal() {
    for (d1, legal) in [
        (0x400, false),          // TG = 4 KiB
        (0x400 | 3 << 8, true),  // and TTL = 3
        (0x800 | 1 << 8, false), // TG = 16 KiB, TTL = 1 counts as none
        (0, true),               // no range at all
    ] {
        let m = Bench::new();
        m.command(0x12, d1);
        assert_eq!(m.active_errors() == 0, legal, "{d1:#x}");
    }
}

#[test]
fn range_invalidation_takes_what_num_and_scale_say() {
    for pages in [2u64, 3, 16, 31, 32, 64, 256] {
        let m = Bench::new();
        let root = m.process(0);
        let va = 0x7f00_0000_0000;
        for n in 0..pages {
            m.map(root, va + (n << 12), DATA, USER_RW);
            m.read(&process(), va + (n << 12), 1).unwrap();
        }
        for n in 0..pages {
            m.put(m.pte(root, va + (n << 12)), &[0]);
        }
        if pages == 31 {
            m.tlbi_va(ASID, va, 30);
            m.tlbi_va(ASID, va + (29 << 12), 2);
        } else {
            m.tlbi_va(ASID, va, pages);
        }
        for n in 0..pages {
            assert!(m.read(&process(), va + (n << 12), 1).is_err(), "{n} of {pages}");
        }
    }
}

#[test]
fn scale_has_six_bits() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    m.read(&process(), 0x1000, 1).unwrap();
    m.put(m.pte(root, 0x1000), &[0]);
    m.command(u64::from(ASID) << 48 | 32 << 20 | 0x12, 0x400);
    m.sync();
    assert!(m.read(&process(), 0x1000, 1).is_err());
}

/// Two streams, two PASIDs, two ASIDs; what is still translated after one invalidation.
#[test]
fn asid_invalidation_takes_all_users_of_the_asid_and_no_others() {
    let m = Bench::new();
    let root = m.process(0);
    let other = m.table(4096);
    m.contexts(SID + 1);
    m.cd(6, &[CD_D0, root]);
    m.cd(7, &[CD_D0 & !(0xffff << 48) | 0x77 << 48, other]);
    m.map(root, 0x1000, DATA, USER_RW);
    m.map(other, 0x1000, DATA, USER_RW);
    let users = [with_pasid(SID, PASID), with_pasid(SID, 6), with_pasid(SID + 1, PASID), with_pasid(SID, 7)];
    let translated = || users.iter().map(|who| m.read(who, 0x1000, 1).is_ok()).collect::<Vec<bool>>();
    assert_eq!(translated(), [true; 4]);
    m.put(m.pte(root, 0x1000), &[0]);
    m.put(m.pte(other, 0x1000), &[0]);
    assert_eq!(translated(), [true; 4], "nothing invalidated yet, and all cached");
    m.tlbi_asid(ASID);
    assert_eq!(translated(), [false, false, false, true]);
}

#[test]
fn single_address_invalidation_takes_a_block_from_any_address_in_it() {
    let m = Bench::new();
    let root = m.process(0);
    m.map_at(Granule::K4, 48, 2, root, 0x20_0000, 0x4200_0000 | USER_RW | 1);
    m.read(&process(), 0x20_0000, 1).unwrap();
    m.map_at(Granule::K4, 48, 2, root, 0x20_0000, 0);
    m.command(u64::from(ASID) << 48 | 0x12, 0x3f_f000);
    m.sync();
    assert!(m.read(&process(), 0x20_0000, 1).is_err());
}

#[test]
fn each_wide_invalidation_takes_everything() {
    for (d0, d1) in [(0x30, 0), (0x10, 0), (0x13, 0x1000)] {
        let m = Bench::new();
        let root = m.process(0);
        m.map(root, 0x1000, DATA, USER_RW);
        m.read(&process(), 0x1000, 1).unwrap();
        m.put(m.pte(root, 0x1000), &[0]);
        m.command(d0, d1);
        m.sync();
        assert!(m.read(&process(), 0x1000, 1).is_err(), "{d0:#x}");
    }
}

/// A cached configuration survives a change in memory until its command.
fn configuration_change(command: impl Fn(&Bench), change: impl Fn(&Bench)) {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    m.read(&process(), 0x1000, 1).unwrap();
    change(&m);
    m.read(&process(), 0x1000, 1).unwrap();
    command(&m);
    m.sync();
    assert!(m.read(&process(), 0x1000, 1).is_err());
}

#[test]
fn stream_commands_make_a_changed_entry_and_its_contexts_effective() {
    let clear_ste = |m: &Bench| m.put(STRTAB + 64 * u64::from(SID), &[0]);
    let clear_cd = |m: &Bench| m.put(CDTAB + 64 * u64::from(PASID), &[0]);
    let sid = u64::from(SID) << 32;
    for (d0, d1) in [(sid | 3, 1), (sid | 3, 0), (sid | 4, 0), (sid | 4, 9), (4, 31), (4, 5)] {
        configuration_change(|m| _ = m.command(d0, d1), clear_ste);
        configuration_change(|m| _ = m.command(d0, d1), clear_cd);
    }
}

#[test]
fn context_commands_make_a_changed_context_effective() {
    let sid = u64::from(SID) << 32;
    let ssid = u64::from(PASID) << 12;
    for (d0, d1) in [(sid | ssid | 5, 1), (sid | ssid | 5, 0), (sid | 6, 0)] {
        configuration_change(|m| _ = m.command(d0, d1), |m| m.put(CDTAB + 64 * u64::from(PASID), &[0]));
    }
}

#[test]
fn context_0_command_reaches_traffic_without_pasid() {
    let m = Bench::new();
    let root = m.process(0);
    m.cd(0, &[CD_D0, root]);
    m.map(root, 0x1000, DATA, USER_RW);
    m.read(&plain(), 0x1000, 1).unwrap();
    m.cd(0, &[0]);
    assert_eq!(m.read(&plain(), 0x1000, 1), aborted(0x1000));
}

#[test]
fn changed_level_1_context_descriptor_is_effective_after_its_command() {
    let m = Bench::new();
    let (l1, first, second) = (m.table(64), m.table(4096), m.table(4096));
    let root = m.table(4096);
    m.map(root, 0x1000, DATA, USER_RW);
    m.put(l1, &[first | 1]);
    m.put(first + 64 * u64::from(PASID), &[CD_D0, root]);
    m.ste(SID, &[6 << 59 | l1 | 1 << 4 | 5 << 1 | 1, 0xd6]);
    m.read(&process(), 0x1000, 1).unwrap();
    m.put(l1, &[second | 1]);
    m.command(u64::from(SID) << 32 | u64::from(PASID) << 12 | 5, 0);
    m.sync();
    assert_eq!(m.read(&process(), 0x1000, 1), aborted(0x1000));
    assert_eq!(m.events(), [record(EventType::C_BAD_CD, SID, Some(PASID))]);
}

#[test]
fn prefetch_of_a_bad_stream_records_nothing() {
    let m = Bench::new();
    m.ste(SID, &[0]);
    m.command(u64::from(SID) << 32 | 0x01, 0);
    m.command(u64::from(SID) << 32 | 0x02, 0);
    m.sync();
    assert_eq!((m.events(), m.active_errors()), (vec![], 0));
}

/// Section 4's encodings as the driver makes them, byte by byte: each is consumed.
#[test]
fn drivers_encodings_are_consumed() {
    let m = Bench::new();
    for (d0, d1) in [
        (0x04, 0x1f),
        (0x30, 0),
        (0x10_0000_0001, 0),
        (0x10_0000_0003, 1),
        (0x10_0000_5005, 1),
        (0x0012_0000_0000_0011, 0),
        (0x0012_0000_0010_0012, 0x7f00_0000_0400),
        (0x10_0000_1044, 7),
        (0x10_0000_2044, 7),
        (0x2046, 0),
    ] {
        m.command(d0, d1);
        assert_eq!(m.active_errors(), 0, "{d0:#x}");
    }
}
