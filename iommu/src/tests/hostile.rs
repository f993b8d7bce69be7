//! Whatever a guest does: an answer, no panic, no endless loop.

use hw::ats::PageRequest;
use proptest::prelude::*;

use super::*;

/// A bench whose tables, STE and CD have these words; if `is_sane`, the CD leads to the tables and the STE to the CD. Without stalls:
/// nobody here answers them.
pub(super) fn with_structures(
    ste: [u64; 4],
    cd: [u64; 4],
    entries: &[u64],
    is_sane: bool,
    pasid: u32,
) -> Bench {
    let features = Features { stall_model: crate::StallModel::TerminateOnly, ..Features::default() };
    let m = Bench::with(features);
    let root = m.table(65536);
    for (index, &entry) in entries.iter().cycle().take(512).enumerate() {
        m.put(root + 8 * index as u64, &[entry & 0xffff_0000_03ff_ffff | 0x4000_0000 | 3]);
    }
    if is_sane {
        m.contexts(SID);
        m.cd(pasid, &[cd[0] & 0xffff | CD_D0 & !0xffff, root]);
    } else {
        m.ste(SID, &ste);
        m.cd(pasid, &cd);
    }
    m
}

#[test]
fn tables_that_are_their_own_tables_end() {
    let m = Bench::new();
    let root = m.process(0);
    // Every entry of the table names the table: the "page" at the end is the table itself.
    for index in 0..512 {
        m.put(root + 8 * index, &[root | USER_RW | 3]);
    }
    assert!(m.read(&process(), 0x1234_5000, 8).is_ok());
}

#[test]
fn stream_table_that_is_its_own_second_level_ends() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    let l1 = m.table(65536);
    m.w64(STRTAB_BASE, l1);
    m.w32(STRTAB_BASE_CFG, 1 << 16 | 8 << 6 | 16);
    m.put(l1, &[l1 | 9]);
    m.enable(SMMUEN | EVENTQEN);
    assert!(m.read(&plain(), 0, 1).is_err());
}

#[test]
fn access_with_a_queue_on_top_of_the_tables_is_answered() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w64(EVENTQ_BASE, STRTAB | 4);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    for _ in 0..100 {
        assert!(m.read(&plain(), DATA, 1).is_err() || m.r32(EVENTQ_PROD) != 0);
        m.w32(EVENTQ_CONS, m.r32(EVENTQ_PROD));
    }
}

#[test]
fn largest_event_queue_at_the_top_of_memory_is_an_abort() {
    let m = Bench::reset(Features::default());
    m.w64(EVENTQ_BASE, u64::MAX);
    m.w64(CMDQ_BASE, u64::MAX);
    m.w64(STRTAB_BASE, u64::MAX);
    m.w32(STRTAB_BASE_CFG, u32::MAX);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.w32(CMDQ_PROD, 1);
    for sid in [0, 0xffff, u32::MAX] {
        assert!(m.read(&Requester::new(DmaTag::untagged(StreamId(sid))), DATA, 1).is_err());
    }
}

/// Each from its last entry on, past the wrap.
#[test]
fn queues_of_every_legal_size_go_round() {
    const SIZES: u32 = 20;
    let (cmdq, priq, eventq) = (0x4080_0000, 0x4180_0000, 0x4200_0000);
    for log2 in 0..SIZES {
        let largest = SIZES as u8 - 1;
        let sizes =
            Features { cmdq_log2: largest, eventq_log2: largest, priq_log2: largest, ..Features::default() };
        let m = Bench::reset(sizes);
        m.set_up(4);
        m.put(STRTAB + 64 * u64::from(SID), &[0]);
        let last = (1u32 << log2) - 1;
        for (base_register, base, prod, cons) in [
            (CMDQ_BASE, cmdq, CMDQ_PROD, CMDQ_CONS),
            (EVENTQ_BASE, eventq, EVENTQ_PROD, EVENTQ_CONS),
            (PRIQ_BASE, priq, PRIQ_PROD, PRIQ_CONS),
        ] {
            m.w64(base_register, base | u64::from(log2));
            m.w32(prod, last);
            m.w32(cons, last);
        }
        m.enable(SMMUEN | PRIQEN | EVENTQEN | CMDQEN);
        for step in 0..3 {
            let slot = u64::from((last + step) & last);
            let next = (last + step + 1) & (2 * last + 1);
            m.put(cmdq + 16 * slot, &[0x46, 0]);
            m.w32(CMDQ_PROD, next);
            assert_eq!(m.r32(CMDQ_CONS), next, "{log2}");
            assert!(m.read(&plain(), 0, 1).is_err());
            assert_eq!(m.r32(EVENTQ_PROD), next, "{log2}");
            assert_eq!(m.dword(eventq + 32 * slot), record(EventType::C_BAD_STE, SID, None)[0]);
            m.w32(EVENTQ_CONS, next);
            m.smmu.request_page(&PageRequest::stop_marker(StreamId(SID), Pasid::new(PASID).unwrap()));
            assert_eq!(m.r32(PRIQ_PROD), next, "{log2}");
            assert_eq!(m.dword(priq + 16 * slot) as u32, SID);
            m.w32(PRIQ_CONS, next);
        }
    }
}

#[test]
fn memory_held_for_stalls_is_bounded_when_devices_keep_giving_up() {
    let m = Bench::with(Features { stall_max: 4, ..Features::default() });
    m.process(CD_S);
    for round in 0..64 {
        let who = process();
        std::thread::scope(|scope| {
            let _unstuck = m.unstuck_on_panic();
            let waiter = who.waiter.clone();
            let smmu = &m.smmu;
            let access = scope.spawn(move || smmu.read(&who, Iova(0x1000), &mut [0]));
            m.until(|| m.smmu.stats().stalls == round + 1);
            waiter.cancel();
            assert_eq!(access.join().unwrap(), Err(DmaFault::Cancelled));
        });
    }
    assert_eq!(m.smmu.state().stalls.recorded_count(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_register_writes_are_survived(
        writes in prop::collection::vec((0u64..0x40, prop::bool::ANY, prop::bool::ANY, any::<u64>()), 1..60)
    ) {
        let m = Bench::reset(Features::default());
        m.set_up(4);
        for (word, high_page, wide, value) in writes {
            let offset = word * 4 + if high_page { 0x1_0000 } else { 0 };
            // Mostly in RAM, so that something happens.
            let value = if value & 3 == 0 { value } else { value & 0x1f | RAM | value >> 40 & 0xff_f000 };
            if wide && word % 2 == 0 {
                m.w64(offset, value);
            } else {
                m.w32(offset, value as u32);
            }
            let _ = m.r32(offset);
            let _ = m.read(&plain(), DATA, 8);
        }
    }

    #[test]
    fn any_commands_are_survived(commands in prop::collection::vec((any::<u8>(), any::<u64>(), any::<u64>()), 1..60)) {
        let m = Bench::new();
        m.process(0);
        for (opcode, d0, d1) in commands {
            let slot = m.command(d0 << 8 & !(1 << 10) | u64::from(opcode & 0x57), d1);
            if m.active_errors() & 1 != 0 {
                m.put(slot, &[0x2046, 0]);
                m.w32(GERRORN, m.r32(GERROR));
            }
            m.w32(GERRORN, m.r32(GERROR));
            prop_assert_eq!(m.r32(CMDQ_CONS) & 0xff, m.r32(CMDQ_PROD));
        }
    }

    #[test]
    fn any_structures_are_survived(
        ste in any::<[u64; 4]>(), cd in any::<[u64; 4]>(), entries in any::<[u64; 8]>(),
        sane: bool, pasid in 0u32..64, va: u64, len in 1usize..10_000,
    ) {
        let m = with_structures(ste, cd, &entries, sane, pasid);
        let mut out = vec![0; len];
        for who in [plain(), with_pasid(SID, pasid)] {
            let _ = m.smmu.read(&who, Iova(va), &mut out);
            let _ = m.smmu.read(&who, Iova(va >> 20), &mut out);
            let _ = m.smmu.pin(&who, Iova(va >> 16), len, hw::Dir::Write);
        }
    }
}
