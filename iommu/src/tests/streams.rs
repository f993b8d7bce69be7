//! From StreamID to stream table entry, and the entry's own rules (3.3, 5.1, 5.2).

use super::*;
use crate::StallModel;
use crate::spec::event::EventType;

fn bypass() -> [u64; 2] {
    [0x9, 0]
}

fn from(sid: u32) -> Requester {
    Requester::new(DmaTag::untagged(StreamId(sid)))
}

#[test]
fn stream_beyond_the_table_is_recorded_only_if_asked_for() {
    for recinvsid in [false, true] {
        let m = Bench::reset(Features::default());
        m.set_up(4);
        m.w32(CR2, if recinvsid { 2 } else { 0 });
        m.enable(SMMUEN | EVENTQEN);
        assert_eq!(m.read(&from(64), DATA, 1), aborted(DATA));
        let expected = [record(EventType::C_BAD_STREAMID, 64, None)];
        assert_eq!(m.events(), if recinvsid { &expected[..] } else { &[] });
    }
}

/// A two-level table with SPLIT = 8 and one level 1 descriptor.
fn two_level(l1std: u64, split: u32) -> Bench {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    let l1 = m.table(4096);
    m.put(l1, &[l1std]);
    m.w64(STRTAB_BASE, l1);
    m.w32(STRTAB_BASE_CFG, 1 << 16 | split << 6 | 16);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m
}

#[test]
fn two_level_table_finds_the_entry() {
    for (split, sid) in [(6, 0x3f), (8, 0xff), (10, 0x3ff)] {
        // The first level 1 descriptor covers the highest StreamID of its part.
        let m = two_level(DATA | u64::from(split + 1), split);
        m.put(DATA + 64 * u64::from(sid), &bypass());
        assert_eq!(m.read(&from(sid), DATA, 1), Ok(vec![0]), "SPLIT {split}");
    }
}

#[test]
fn level_1_descriptor_without_valid_span_is_a_bad_stream() {
    // SPLIT = 8: spans up to 9 are possible.
    for (span, sid) in [(0, 0), (10, 0), (11, 0), (12, 0), (31, 0), (1, 1), (8, 0x80)] {
        let m = two_level(DATA | span, 8);
        m.put(DATA, &bypass());
        assert_eq!(m.read(&from(sid), DATA, 1), aborted(DATA));
        assert_eq!(m.events(), [record(EventType::C_BAD_STREAMID, sid, None)], "span {span}");
    }
}

#[test]
fn reserved_split_counts_as_six() {
    let m = two_level(DATA | 7, 7);
    m.put(DATA + 64 * 0x3f, &bypass());
    assert!(m.read(&from(0x3f), DATA, 1).is_ok());
    assert!(m.read(&from(0x40), DATA, 1).is_err());
}

#[test]
fn new_level_1_descriptor_needs_no_command() {
    let m = two_level(0, 8);
    assert!(m.read(&from(3), DATA, 1).is_err());
    m.put(DATA + 64 * 3, &bypass());
    m.put(m.r64(STRTAB_BASE), &[DATA | 9]);
    assert!(m.read(&from(3), DATA, 1).is_ok());
}

#[test]
fn tables_outside_memory_are_fetch_faults_with_the_address() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w64(STRTAB_BASE, HOLE);
    m.enable(SMMUEN | EVENTQEN);
    assert!(m.read(&from(3), DATA, 1).is_err());
    let [d0, ..] = record(EventType::F_STE_FETCH, 3, None);
    assert_eq!(m.events(), [[d0, 0, 0, HOLE + 3 * 64]]);

    let m = two_level(HOLE | 9, 8);
    assert!(m.read(&from(3), DATA, 1).is_err());
    assert_eq!(m.events(), [[d0, 0, 0, HOLE + 3 * 64]]);
}

#[test]
fn failed_fetch_is_not_remembered() {
    let m = two_level(HOLE | 9, 8);
    assert!(m.read(&from(3), DATA, 1).is_err());
    m.put(DATA + 64 * 3, &bypass());
    m.put(m.r64(STRTAB_BASE), &[DATA | 9]);
    assert!(m.read(&from(3), DATA, 1).is_ok());
}

#[test]
fn invalid_entry_is_bad_aborting_entry_is_silent_bypassing_entry_passes() {
    let m = Bench::new();
    m.ste(SID, &[8]);
    assert!(m.read(&process(), DATA, 1).is_err());
    assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, Some(PASID))]);

    for config in 0..4u64 {
        // An aborting entry may hold anything: the driver fills one in before it makes it live.
        m.ste(SID, &[!0xe | config << 1, u64::MAX]);
        assert!(m.read(&plain(), DATA, 1).is_err());
        assert_eq!(m.events(), [] as [Record; 0]);
    }

    m.ste(SID, &bypass());
    m.write(&plain(), DATA, &[7]).unwrap();
    assert_eq!(m.dword(DATA), 7);
    m.smmu.write(&plain(), Iova(DOORBELL), &[9, 0, 0, 0]).unwrap();
    assert_eq!(m.msi.take(), [(DeviceId(SID), 9)]);
}

#[test]
fn bypass_beyond_the_output_size_is_an_address_size_fault() {
    let m = Bench::new();
    m.ste(SID, &bypass());
    assert!(m.write(&plain(), 1 << 48, &[1]).is_err());
    let [d0, ..] = record(EventType::F_ADDR_SIZE, SID, None);
    assert_eq!(m.events(), [[d0, WRITE, 1 << 48, 0]]);
}

#[test]
fn pasid_on_a_bypassing_stream_is_a_bad_substream() {
    let m = Bench::new();
    m.ste(SID, &bypass());
    assert!(m.read(&process(), DATA, 1).is_err());
    let [d0, ..] = record(EventType::C_BAD_SUBSTREAMID, SID, Some(PASID));
    assert_eq!(m.events(), [[d0 & !(1 << 11), 0, 0, 0]], "SSV is not given here");
}

#[test]
fn illegal_entries_are_bad() {
    let context = CDTAB | 5 << 1 | 1;
    let stage1_only = StallModel::StallAndTerminate;
    for (d0, d1, stall_model) in [
        (21 << 59 | context, 0, stage1_only),          // S1CDMax > SSIDSIZE
        (CDTAB | 6 << 1 | 1, 0, stage1_only),          // stage 2
        (CDTAB | 7 << 1 | 1, 0, stage1_only),          // nested
        (1 << 48 | context, 0, stage1_only),           // S1ContextPtr beyond OAS
        (context, 1 << 27, StallModel::TerminateOnly), // S1STALLD
        (context, 1 << 27, StallModel::StallForced),
    ] {
        let m = Bench::with(Features { stall_model, ..Features::default() });
        m.ste(SID, &[d0, d1]);
        assert!(m.read(&plain(), DATA, 1).is_err());
        assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, None)], "{d0:#x} {d1:#x}");
    }
}

#[test]
fn fields_of_absent_features_are_ignored() {
    let m = Bench::with(Features::stage1_only());
    let root = m.process(0);
    m.map(root, 0x1000, DATA, USER_RW);
    // EATS, STRW, S1Fmt = 3, and stage 2's dwords.
    let d0 = 6 << 59 | CDTAB | 3 << 4 | 5 << 1 | 1;
    m.ste(SID, &[d0, 0xf000_00d6, u64::MAX, u64::MAX]);
    assert!(m.read(&process(), 0x1000, 1).is_ok());
}

#[test]
fn substream_beyond_the_table_is_bad() {
    for s1cdmax in [0u64, 2] {
        let m = Bench::new();
        m.ste(SID, &[s1cdmax << 59 | CDTAB | 5 << 1 | 1, 0xd6]);
        assert!(m.read(&process(), DATA, 1).is_err());
        let [d0, ..] = record(EventType::C_BAD_SUBSTREAMID, SID, Some(PASID));
        assert_eq!(m.events(), [[d0 & !(1 << 11), 0, 0, 0]]);
    }
}

#[test]
fn traffic_without_pasid_goes_as_s1dss_says() {
    let m = Bench::new();
    let root = m.table(4096);
    m.map(root, 0x1000, DATA, USER_RW);
    m.put(CDTAB, &[CD_D0, root]);
    let d0 = 6 << 59 | CDTAB | 5 << 1 | 1;

    for terminate in [0, 3] {
        m.ste(SID, &[d0, terminate]);
        assert!(m.read(&plain(), 0x1000, 1).is_err());
        assert_eq!(m.events(), [record(EventType::F_STREAM_DISABLED, SID, None)]);
    }
    m.ste(SID, &[d0, 1]);
    assert!(m.read(&plain(), DATA, 1).is_ok());
    assert!(m.read(&plain(), 1 << 48, 1).is_err());
    assert_eq!(m.events()[0][0] & 0xff, 0x11);
    m.ste(SID, &[d0, 2]);
    assert!(m.read(&plain(), 0x1000, 1).is_ok());
    assert!(m.read(&with_pasid(SID, 0), 0x1000, 1).is_err());
    assert_eq!(m.events(), [record(EventType::F_STREAM_DISABLED, SID, None)], "no SubstreamID in it");
    m.ste(SID, &[d0, 0]);
    assert!(m.read(&with_pasid(SID, 0), 0x1000, 1).is_ok());
}

#[test]
fn every_table_format_finds_the_same_context() {
    let m = Bench::new();
    let root = m.table(4096);
    m.map(root, 0x1000, DATA, USER_RW);
    let (l1, small, large, linear) = (m.table(4096), m.table(4096), m.table(65536), m.table(1 << 18));
    let pasid = 0xabcu32; // in the last third of 4096
    for (format, leaf, bits) in [(1u64, small, 6), (2, large, 10)] {
        m.put(l1 + 8 * u64::from(pasid >> bits), &[leaf | 1]);
        m.put(leaf + 64 * u64::from(pasid & ((1 << bits) - 1)), &[CD_D0, root]);
        m.ste(SID, &[12 << 59 | l1 | format << 4 | 5 << 1 | 1, 0xd6]);
        assert!(m.read(&with_pasid(SID, pasid), 0x1000, 1).is_ok(), "S1Fmt {format}");
    }
    m.put(linear + 64 * u64::from(pasid), &[CD_D0, root]);
    m.ste(SID, &[12 << 59 | linear | 5 << 1 | 1, 0xd6]);
    assert!(m.read(&with_pasid(SID, pasid), 0x1000, 1).is_ok());
}

#[test]
fn invalid_level_1_context_descriptor_is_a_bad_substream() {
    let m = Bench::new();
    let l1 = m.table(4096);
    for l1cd in [0, 1 << 48 | 1] {
        m.put(l1, &[l1cd]);
        m.ste(SID, &[12 << 59 | l1 | 2 << 4 | 5 << 1 | 1, 0xd6]);
        assert!(m.read(&process(), 0x1000, 1).is_err());
        let [d0, ..] = record(EventType::C_BAD_SUBSTREAMID, SID, Some(PASID));
        assert_eq!(m.events(), [[d0 & !(1 << 11), 0, 0, 0]]);
        assert!(m.read(&plain(), 0x1000, 1).is_err());
        assert_eq!(m.events(), [record(EventType::C_BAD_SUBSTREAMID, SID, None)]);
    }
}

/// The driver's own encodings: 64 KiB leaves, 2^16 contexts, a stall-capable stream.
#[test]
fn drivers_entry_and_context_translate() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    let (l1, leaf, root) = (m.table(4096), m.table(65536), m.table(4096));
    m.map(root, 0x7f00_0000_1000, DATA, USER_RW);
    m.put(l1, &[leaf | 1]);
    m.put(leaf + 64 * u64::from(PASID), &[0x0002_f205_c000_3510, root, 0, 0xff]);
    m.ste(SID, &[0x8000_0000_0000_002b | l1, 0xd6]);
    assert!(m.write(&process(), 0x7f00_0000_1234, &[1]).is_ok());
}

#[test]
fn privilege_and_kind_of_accesses_are_as_privcfg_and_instcfg_say() {
    const PRIVCFG: u32 = 48;
    const INSTCFG: u32 = 50;
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, 0x1000, DATA, AF | NG | UXN);
    m.map(root, 0x2000, DATA, AF | NG | EL0 | RO | UXN);
    let with = |d1: u64| m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, 0xd6 | d1]);
    let mut kernel = process();
    kernel.tag.privileged = true;
    let mut fetch = process();
    fetch.tag.execute = true;
    // A page of the kernel's.
    with(3 << PRIVCFG);
    assert!(m.read(&process(), 0x1000, 1).is_ok());
    with(2 << PRIVCFG);
    assert!(m.read(&kernel, 0x1000, 1).is_err());
    assert_eq!(
        m.events(),
        [fault_record(EventType::F_PERMISSION, READ, 0x1000)],
        "the record tells what was made of it"
    );
    with(0);
    assert!(m.read(&kernel, 0x1000, 1).is_ok());
    // A page without code.
    with(3 << INSTCFG);
    assert!(m.read(&process(), 0x2000, 1).is_err());
    assert_eq!(m.events(), [fault_record(EventType::F_PERMISSION, READ | IND, 0x2000)]);
    assert!(m.write(&process(), 0x1000, &[1]).is_err());
    assert_eq!(m.events(), [fault_record(EventType::F_PERMISSION, WRITE, 0x1000)], "writes stay data");
    with(2 << INSTCFG);
    assert!(m.read(&fetch, 0x2000, 1).is_ok());
    with(0);
    assert!(m.read(&fetch, 0x2000, 1).is_err());
}
