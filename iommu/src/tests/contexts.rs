//! Context descriptors and stage 1 translation (5.4, 3.4; VMSAv8-64).

use super::*;
use crate::StallModel;
use crate::spec::event::EventType;

const F_TRANSLATION: EventType = EventType::F_TRANSLATION;
const F_PERMISSION: EventType = EventType::F_PERMISSION;

/// Event of one read by the process at `va`.
fn read_fault(m: &Bench, va: u64) -> Vec<Record> {
    assert_eq!(m.read(&process(), va, 1), aborted(va));
    m.events()
}

fn privileged() -> Requester {
    let mut who = process();
    who.tag.privileged = true;
    who
}

fn executing(mut who: Requester) -> Requester {
    who.tag.execute = true;
    who
}

#[test]
fn illegal_contexts_are_bad() {
    let forced = Features { stall_model: StallModel::StallForced, ..Features::default() };
    let never = Features { stall_model: StallModel::TerminateOnly, ..Features::default() };
    let only_4k = Features { gran16k: false, gran64k: false, ..Features::default() };
    let no_small = Features { small_tables: false, ..Features::default() };
    let usual = Features::default();
    let without = Features::stage1_only();
    let only_af = Features { httu: crate::Httu::AccessFlag, ..without };
    let no_asid16_field = CD_D0 & !0x3f;
    let upper = CD_D0 & !(1 << 30); // EPD1 = 0, so the upper half's fields count
    for (why, features, d0, ttb0, ttb1) in [
        ("V = 0", usual, CD_D0 & !(1 << 31), 0, 0),
        ("T0SZ = 15", usual, no_asid16_field | 15, 0, 0),
        ("T0SZ = 40 without small tables", no_small, no_asid16_field | 40, 0, 0),
        ("T0SZ = 49", usual, no_asid16_field | 49, 0, 0),
        ("T0SZ = 48 with 64K", usual, no_asid16_field | 48 | 1 << 6, 0, 0),
        ("TG0 = 3", usual, CD_D0 | 3 << 6, 0, 0),
        ("TG0 = 64K without", only_4k, CD_D0 | 1 << 6, 0, 0),
        ("TG0 = 16K without", only_4k, CD_D0 | 2 << 6, 0, 0),
        ("T1SZ = 0", usual, upper, 0, 0),
        ("TG1 = 0", usual, upper | 16 << 16, 0, 0),
        ("TTB1 beyond IPS", usual, upper | 16 << 16 | 2 << 22, 0, 1 << 48),
        ("ENDI", usual, CD_D0 | 1 << 15, 0, 0),
        ("AA64 = 0", usual, CD_D0 & !(1 << 41), 0, 0),
        ("A = 0", usual, CD_D0 & !(1 << 46), 0, 0),
        ("HA without", without, CD_D0 | 1 << 43, 0, 0),
        ("HD without", without, CD_D0 | 1 << 42, 0, 0),
        ("HD with HTTU = 1", only_af, CD_D0 | 3 << 42, 0, 0),
        ("TTB0 beyond IPS", usual, CD_D0 & !(7 << 32) | 2 << 32, 1 << 40, 0),
        ("S without stalls", never, CD_D0 | CD_S, 0, 0),
        ("S = 0 with forced stalls", forced, CD_D0, 0, 0),
    ] {
        let m = Bench::with(features);
        m.contexts(SID);
        m.cd(PASID, &[d0, ttb0, ttb1]);
        assert_eq!(read_fault(&m, 0x1000), [record(EventType::C_BAD_CD, SID, Some(PASID))], "{why}");
    }
}

#[test]
fn stalling_context_of_a_stream_that_must_not_stall_is_bad() {
    let m = Bench::new();
    m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, 1 << 27 | 0xd6]);
    m.cd(PASID, &[CD_D0 | CD_S, 0]);
    assert_eq!(read_fault(&m, 0x1000), [record(EventType::C_BAD_CD, SID, Some(PASID))]);
}

#[test]
fn context_outside_memory_is_a_fetch_fault_with_the_address() {
    let m = Bench::new();
    m.ste(SID, &[6 << 59 | HOLE | 5 << 1 | 1, 0xd6]);
    let [d0, ..] = record(EventType::F_CD_FETCH, SID, Some(PASID));
    assert_eq!(read_fault(&m, 0x1000), [[d0, 0, 0, HOLE + 64 * u64::from(PASID)]]);
    m.ste(SID, &[12 << 59 | HOLE | 2 << 4 | 5 << 1 | 1, 0xd6]);
    assert_eq!(read_fault(&m, 0x1000), [[d0, 0, 0, HOLE]]);
}

/// What the driver leaves when a process has exited and its device has not stopped.
#[test]
fn context_of_a_dead_process_aborts_silently() {
    let m = Bench::new();
    m.contexts(SID);
    m.cd(PASID, &[0x0002_c205_c000_4000 | 0x3f | 3 << 6, u64::MAX, u64::MAX]);
    assert_eq!(read_fault(&m, 0x1000), [] as [Record; 0]);
}

#[test]
fn disabled_half_faults_as_recorded() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0, DATA, USER_RW);
    for va in [0xffff_0000_0000_0000, 0x0080_0000_0000_0000] {
        assert_eq!(read_fault(&m, va), [fault_record(F_TRANSLATION, READ, va)]);
    }
}

#[test]
fn every_granule_and_input_size_translates_pages() {
    for (tg0, granule) in [(0u64, Granule::K4), (1, Granule::K64), (2, Granule::K16)] {
        // Beyond 39 with small tables.
        for t0sz in 16..=if granule == Granule::K64 { 47 } else { 48u32 } {
            let m = Bench::new();
            m.contexts(SID);
            let root = m.table(65536);
            m.cd(PASID, &[CD_D0 & !0xff | tg0 << 6 | u64::from(t0sz), root]);
            let last = (1 << (64 - t0sz)) - (1 << granule.page_shift());
            m.map_at(granule, 64 - t0sz, 3, root, last, DATA | USER_RW | 3);
            m.write(&process(), last + 8, &[0x5a]).unwrap();
            assert_eq!(m.dword(DATA + 8), 0x5a, "{granule:?} {t0sz}");
            let beyond = 1 << (64 - t0sz);
            assert_eq!(read_fault(&m, beyond), [fault_record(F_TRANSLATION, READ, beyond)]);
        }
    }
}

#[test]
fn every_block_size_translates() {
    for (tg0, granule, level, size_log2) in [
        (0u64, Granule::K4, 1u8, 30u32),
        (0, Granule::K4, 2, 21),
        (1, Granule::K64, 2, 29),
        (2, Granule::K16, 2, 25),
    ] {
        let m = Bench::new();
        m.contexts(SID);
        let root = m.table(65536);
        m.cd(PASID, &[CD_D0 & !0xff | tg0 << 6 | 16, root]);
        let block = RAM >> size_log2 << size_log2;
        m.map_at(granule, 48, level, root, 1 << size_log2, block | USER_RW | 1);
        m.write(&process(), (1 << size_log2) + (DATA - block) % (1 << size_log2), &[0x5a]).unwrap();
        let at = block + (DATA - block) % (1 << size_log2);
        assert_eq!(m.dword(at) & 0xff, 0x5a, "{granule:?} level {level}");
    }
}

#[test]
fn upper_half_translates_by_its_own_table_and_granule() {
    for (tg1, granule) in [(1u64, Granule::K16), (2, Granule::K4), (3, Granule::K64)] {
        let m = Bench::new();
        m.contexts(SID);
        let root = m.table(65536);
        // EPD0 = 1, EPD1 = 0, T1SZ = 16.
        let d0 = CD_D0 & !(1 << 30) | 1 << 14 | 16 << 16 | tg1 << 22;
        m.cd(PASID, &[d0, 0, root]);
        let va = 0xffff_ffff_ffff_0000u64;
        m.map_at(granule, 48, 3, root, va, DATA | USER_RW | 3);
        assert!(m.write(&process(), va, &[1]).is_ok(), "{granule:?}");
        assert!(m.read(&process(), 0xfffe_ffff_ffff_0000, 1).is_err());
    }
}

#[test]
fn contiguous_hint_changes_nothing() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1_0000, DATA, USER_RW | 1 << 52);
    m.map(root, 0x1_1000, DATA + 0x5000, USER_RW | 1 << 52);
    m.write(&process(), 0x1_0000, &[1]).unwrap();
    m.write(&process(), 0x1_1000, &[2]).unwrap();
    assert_eq!((m.dword(DATA), m.dword(DATA + 0x5000)), (1, 2));
}

#[test]
fn tagged_address_needs_tbi_and_is_recorded_whole() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    let tagged = 0xab00_0000_0000_1000;
    assert_eq!(read_fault(&m, tagged), [fault_record(F_TRANSLATION, READ, tagged)]);
    m.cd(PASID, &[CD_D0 | 1 << 38, root]);
    assert!(m.read(&process(), tagged, 1).is_ok());
    assert!(m.read(&process(), 0x1000, 1).is_ok());
    let unmapped = 0xab00_0000_0000_5678;
    assert_eq!(read_fault(&m, unmapped), [fault_record(F_TRANSLATION, READ, unmapped)]);
}

#[test]
fn reserved_descriptors_are_translation_faults() {
    for (level, descriptor) in [(3u8, DATA | USER_RW | 1), (0, DATA | USER_RW | 1), (3, DATA | USER_RW | 2)] {
        let m = Bench::new();
        let root = m.process(0);
        m.map_at(Granule::K4, 48, level, root, 0x1000, descriptor);
        assert_eq!(read_fault(&m, 0x1000), [fault_record(F_TRANSLATION, READ, 0x1000)], "level {level}");
    }
}

#[test]
fn addresses_beyond_ips_or_oas_are_address_size_faults() {
    for (ips, bits) in [(0u64, 32), (2, 40), (5, 48)] {
        let m = Bench::new();
        let root = m.process(0);
        m.cd(PASID, &[CD_D0 & !(7 << 32) | ips << 32, root]);
        if bits < 48 {
            m.map(root, 0x1000, 1 << bits, USER_RW);
            assert_eq!(read_fault(&m, 0x1000), [fault_record(EventType::F_ADDR_SIZE, READ, 0x1000)]);
            m.put(root, &[1 << bits | 3]);
            assert_eq!(read_fault(&m, 0x1000), [fault_record(EventType::F_ADDR_SIZE, READ, 0x1000)]);
        } else {
            m.map(root, 0x1000, DATA, USER_RW);
            assert!(m.read(&process(), 0x1000, 1).is_ok());
        }
    }
}

#[test]
fn clear_access_flag_faults_unless_affd() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW & !AF);
    assert_eq!(read_fault(&m, 0x1000), [fault_record(EventType::F_ACCESS, READ, 0x1000)]);
    m.cd(PASID, &[CD_D0 | 1 << 35, root]);
    assert!(m.read(&process(), 0x1000, 1).is_ok());
}

#[test]
fn write_to_a_read_only_page_is_a_permission_fault() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW | RO | 1 << 51); // DBM means nothing without HD
    assert!(m.read(&process(), 0x1000, 1).is_ok());
    assert_eq!(m.write(&process(), 0x1008, &[1]), aborted(0x1008));
    assert_eq!(m.events(), [fault_record(F_PERMISSION, WRITE, 0x1008)]);
    assert_eq!(m.dword(DATA + 8), 0);
}

#[test]
fn granted_permission_is_seen_without_an_invalidation() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW | RO);
    assert!(m.read(&process(), 0x1000, 1).is_ok());
    m.map(root, 0x1000, DATA, USER_RW);
    assert!(m.write(&process(), 0x1000, &[1]).is_ok());
}

#[test]
fn kernel_pages_are_for_privileged_access_only() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW & !EL0);
    assert_eq!(read_fault(&m, 0x1000), [fault_record(F_PERMISSION, READ, 0x1000)]);
    assert!(m.read(&privileged(), 0x1000, 1).is_ok());
    assert!(m.write(&privileged(), 0x1000, &[1]).is_ok());
    assert!(m.write(&process(), 0x1000, &[1]).is_err(), "also once it is cached");
}

#[test]
fn pan_keeps_privileged_data_accesses_from_user_pages() {
    let m = Bench::new();
    let root = m.process(1 << 40);
    m.map(root, 0x1000, DATA, USER_RW);
    assert!(m.read(&process(), 0x1000, 1).is_ok());
    assert!(m.read(&privileged(), 0x1000, 1).is_err());
    assert_eq!(m.events(), [fault_record(F_PERMISSION, READ | PNU, 0x1000)]);
}

#[test]
fn execute_reads_need_an_executable_page() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    assert!(m.read(&executing(process()), 0x1000, 1).is_err());
    assert_eq!(m.events(), [fault_record(F_PERMISSION, READ | IND, 0x1000)]);
    m.map(root, 0x2000, DATA, USER_RW & !UXN);
    assert!(m.read(&executing(process()), 0x2000, 1).is_ok());
    assert!(m.read(&executing(privileged()), 0x2000, 1).is_err(), "EL0 writes there");
    assert_eq!(m.events(), [fault_record(F_PERMISSION, READ | IND | PNU, 0x2000)]);
    m.cd(PASID, &[CD_D0 | 1 << 36, root]);
    m.tlbi_asid(ASID);
    assert!(m.read(&executing(process()), 0x2000, 1).is_err(), "WXN");
}

#[test]
fn table_attributes_restrict_unless_disabled() {
    for (attribute, data_read, write, execute) in [
        (60u64, true, true, false), // UXNTable
        (61, false, false, true),   // APTable: not for EL0
        (62, true, false, true),    // APTable: read-only
    ] {
        for had in [false, true] {
            let m = Bench::new();
            let root = m.process(0);
            m.cd(PASID, &[CD_D0, root | if had { 2 } else { 0 }]);
            m.map(root, 0x1000, DATA, USER_RW & !UXN);
            m.put(root, &[m.dword(root) | 1 << attribute]);
            assert_eq!(m.read(&process(), 0x1000, 1).is_ok(), had || data_read, "{attribute}");
            assert_eq!(m.write(&process(), 0x1000, &[1]).is_ok(), had || write, "{attribute}");
            assert_eq!(m.read(&executing(process()), 0x1000, 1).is_ok(), had || execute);
        }
    }
}

#[test]
fn descriptor_outside_memory_is_a_walk_abort_and_never_stalls() {
    let m = Bench::new();
    let root = m.process(CD_S);
    m.put(root, &[HOLE | 3]);
    let [d0, ..] = record(EventType::F_WALK_EABT, SID, Some(PASID));
    // CLASS = TT, read; FetchAddr is the descriptor's.
    assert_eq!(read_fault(&m, 0x4000_0000), [[d0, 1 << 40 | 1 << 35, 0x4000_0000, HOLE + 8]]);
}

#[test]
fn terminated_faults_are_recorded_only_if_r_says_so() {
    let m = Bench::new();
    let root = m.process(0);
    assert_eq!(read_fault(&m, 0x1000), [fault_record(F_TRANSLATION, READ, 0x1000)]);
    m.cd(PASID, &[CD_D0 & !CD_R, root]);
    assert_eq!(read_fault(&m, 0x1000), [] as [Record; 0]);
}

#[test]
fn privilege_and_execution_without_pasid_count_as_unprivileged_data() {
    let m = Bench::new();
    let root = m.process(0);
    m.cd(0, &[CD_D0, root]);
    m.map(root, 0x1000, DATA, USER_RW & !EL0);
    let mut who = plain();
    (who.tag.privileged, who.tag.execute) = (true, true);
    assert!(m.read(&who, 0x1000, 1).is_err());
    let [d0, ..] = record(F_PERMISSION, SID, None);
    assert_eq!(m.events(), [[d0, READ, 0x1000, 0]]);
}

#[test]
fn global_page_of_one_context_falls_with_an_invalidation_by_address() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW & !NG);
    m.read(&process(), 0x1000, 1).unwrap();
    m.put(m.pte(root, 0x1000), &[0]);
    m.tlbi_va(ASID + 1, 0x1000, 2);
    assert!(m.read(&process(), 0x1000, 1).is_err());
}

const CD_HA: u64 = 1 << 43;
const CD_HD: u64 = 1 << 42;
const DBM: u64 = 1 << 51;

#[test]
fn access_sets_the_access_flag_with_ha() {
    let m = Bench::new();
    let root = m.process(CD_HA);
    m.map(root, 0x1000, DATA, USER_RW & !AF);
    let before = m.dword(m.pte(root, 0x1000));
    m.read(&process(), 0x1000, 1).unwrap();
    assert_eq!(m.dword(m.pte(root, 0x1000)), before | AF);
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn refused_access_changes_no_descriptor() {
    let m = Bench::new();
    let root = m.process(CD_HA | CD_HD);
    m.map(root, 0x1000, DATA, USER_RW & !AF & !EL0 | RO | DBM);
    let before = m.dword(m.pte(root, 0x1000));
    assert!(m.write(&process(), 0x1000, &[1]).is_err());
    assert_eq!(m.dword(m.pte(root, 0x1000)), before);
}

#[test]
fn write_to_a_clean_page_with_hd_makes_it_dirty() {
    let m = Bench::new();
    let root = m.process(CD_HA | CD_HD);
    m.map(root, 0x1000, DATA, USER_RW | RO | DBM);
    let clean = m.dword(m.pte(root, 0x1000));
    // A translation that came from a read lets no write pass by.
    m.read(&process(), 0x1000, 1).unwrap();
    assert_eq!(m.dword(m.pte(root, 0x1000)), clean);
    m.write(&process(), 0x1000, &[1]).unwrap();
    assert_eq!(m.dword(m.pte(root, 0x1000)), clean & !RO);
    // Software cleans it, and invalidates.
    m.put(m.pte(root, 0x1000), &[clean]);
    m.tlbi_va(ASID, 0x1000, 2);
    m.write(&process(), 0x1000, &[1]).unwrap();
    assert_eq!(m.dword(m.pte(root, 0x1000)), clean & !RO);
}

#[test]
fn page_is_not_made_writable_without_dbm_or_hd_or_below_a_read_only_table() {
    for (cd, page, table) in [
        (CD_HA | CD_HD, RO, 0),
        (CD_HA, RO | DBM, 0),
        (CD_HD, RO | DBM, 0),
        (CD_HA | CD_HD, RO | DBM, 1 << 62),
    ] {
        let m = Bench::new();
        let root = m.process(cd);
        m.map(root, 0x1000, DATA, USER_RW | page);
        m.put(root, &[m.dword(root) | table]);
        assert!(m.write(&process(), 0x1000, &[1]).is_err());
        assert_eq!(m.events(), [fault_record(EventType::F_PERMISSION, WRITE, 0x1000)]);
    }
}
