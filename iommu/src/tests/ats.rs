//! Address translation services (3.9, 4.5).

use hw::ats::{AtsPort, AtsRefusal, AtsTranslation, Stamp, TranslatedFault, TranslationRequest};

use super::*;
use crate::ats::{INVALIDATION_TIMEOUT_NS, OUTSTANDING_MAX};

const VA: u64 = 0x7f00_0000_1000;

fn request(who: &Requester, address: u64) -> TranslationRequest {
    TranslationRequest { tag: who.tag, address: Iova(address), no_write: false }
}

fn translate(m: &Bench, address: u64) -> Result<AtsTranslation, AtsRefusal> {
    m.smmu.request_translation(&request(&process(), address))
}

const NOTHING: AtsTranslation = AtsTranslation {
    address: Pa(0),
    size_log2: 12,
    read: false,
    write: false,
    execute: false,
    privileged: false,
    global: false,
    untranslated_only: false,
};

fn page(pa: u64) -> AtsTranslation {
    AtsTranslation { address: Pa(pa), read: true, write: true, ..NOTHING }
}

#[test]
fn request_gets_page_and_permissions_of_the_process() {
    let m = Bench::new();
    let root = m.ats_process(0);
    m.map(root, VA, DATA, USER_RW);
    m.map(root, VA + 0x1000, DATA + 0x1000, USER_RW | RO);
    m.map_at(Granule::K4, 48, 2, root, 0x20_0000, DATA | USER_RW | 1);
    assert_eq!(translate(&m, VA + 0x10), Ok(page(DATA)));
    assert_eq!(translate(&m, VA + 0x1000), Ok(AtsTranslation { write: false, ..page(DATA + 0x1000) }));
    // A range lies in one leaf.
    assert_eq!(translate(&m, 0x2f_f000), Ok(AtsTranslation { size_log2: 21, ..page(DATA) }));
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn request_without_write_is_not_granted_writes_and_execute_is_granted_when_asked_for() {
    let m = Bench::new();
    let root = m.ats_process(0);
    m.map(root, VA, DATA, AF | NG | EL0);
    let no_write = TranslationRequest { no_write: true, ..request(&process(), VA) };
    assert_eq!(m.smmu.request_translation(&no_write), Ok(AtsTranslation { write: false, ..page(DATA) }));
    let mut who = process();
    who.tag.execute = true;
    assert_eq!(
        m.smmu.request_translation(&request(&who, VA)),
        Ok(AtsTranslation { execute: true, ..page(DATA) })
    );
    // What unprivileged code can write, privileged code never executes.
    who.tag.privileged = true;
    let privileged = AtsTranslation { privileged: true, ..page(DATA) };
    assert_eq!(m.smmu.request_translation(&request(&who, VA)), Ok(privileged));
}

#[test]
fn request_for_what_is_not_there_succeeds_with_nothing_and_neither_stalls_nor_records() {
    for d0 in [0, CD_S] {
        let m = Bench::new();
        let root = m.ats_process(d0);
        m.map(root, VA, DATA, USER_RW & !AF);
        m.map(root, VA + 0x1000, DATA, AF | NG | PXN | UXN);
        m.map(root, VA + 0x2000, 1 << 47 | DATA, USER_RW);
        // Not mapped; access flag; privileged only; out of range.
        for address in [0x5000, VA, VA + 0x1000, 1 << 60] {
            assert_eq!(translate(&m, address), Ok(NOTHING), "{address:#x}");
        }
        assert_eq!(m.events(), [] as [Record; 0]);
        assert_eq!(m.smmu.stats().stalls, 0);
    }
}

#[test]
fn request_that_the_stream_does_not_allow_is_unsupported_and_recorded() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, VA, DATA, USER_RW);
    let record = [0x10_0000_5805, 0xc000_0001, VA, 0];
    assert_eq!(translate(&m, VA + 0x123), Err(AtsRefusal::UnsupportedRequest));
    assert_eq!(m.events(), [record]);
    let mut who = process();
    (who.tag.privileged, who.tag.execute) = (true, true);
    let asked = TranslationRequest { no_write: true, ..request(&who, VA) };
    assert_eq!(m.smmu.request_translation(&asked), Err(AtsRefusal::UnsupportedRequest));
    assert_eq!(m.events(), [[0x10_0000_5805, 0xb000_0001, VA, 0]]);
    // The same from what is cached, and in bypass, whatever EATS says.
    assert!(m.write(&process(), VA, &[1]).is_ok());
    assert_eq!(translate(&m, VA), Err(AtsRefusal::UnsupportedRequest));
    m.ste(SID, &[4 << 1 | 1, EATS_FULL]);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::UnsupportedRequest));
    m.enable(EVENTQEN | CMDQEN);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::UnsupportedRequest));
    assert_eq!(m.events(), [record; 3]);
}

#[test]
fn request_to_a_shut_stream_is_unsupported_without_a_record() {
    let m = Bench::new();
    m.ats_process(0);
    m.ste(SID, &[1, EATS_FULL]);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::UnsupportedRequest));
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn request_that_meets_a_wrong_configuration_is_aborted_without_a_record() {
    let m = Bench::new();
    let root = m.ats_process(0);
    // A table that is not there.
    m.put(root + 8 * (VA >> 39), &[HOLE | 3]);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::CompleterAbort));
    m.cd(PASID, &[0]);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::CompleterAbort));
    let outside = with_pasid(SID, 64);
    assert_eq!(m.smmu.request_translation(&request(&outside, VA)), Err(AtsRefusal::CompleterAbort));
    m.ste(SID, &[0]);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::CompleterAbort));
    let stranger = with_pasid(1 << STRTAB_LOG2, PASID);
    assert_eq!(m.smmu.request_translation(&request(&stranger, VA)), Err(AtsRefusal::CompleterAbort));
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn wrong_configuration_is_recorded_if_rec_cfg_ats_says_so() {
    const REC_CFG_ATS: u32 = 8;
    const RECINVSID: u32 = 2;
    let stranger = 1 << STRTAB_LOG2;
    for cr2 in [0, RECINVSID, REC_CFG_ATS, REC_CFG_ATS | RECINVSID] {
        let m = Bench::reset(Features::default());
        m.set_up(4);
        m.w32(CR2, cr2);
        m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
        let root = m.ats_process(0);
        m.put(root + 8 * (VA >> 39), &[HOLE | 3]);
        assert_eq!(translate(&m, VA), Err(AtsRefusal::CompleterAbort));
        m.cd(PASID, &[0]);
        assert_eq!(translate(&m, VA), Err(AtsRefusal::CompleterAbort));
        m.ste(SID, &[0]);
        assert_eq!(translate(&m, VA), Err(AtsRefusal::CompleterAbort));
        assert_eq!(m.smmu.read_translated(StreamId(SID), Pa(DATA), &mut [0]), aborted(DATA));
        let mut expected = Vec::new();
        if cr2 & REC_CFG_ATS != 0 {
            let d1 = 1 << 40 | 1 << 35;
            let [d0, ..] = record(EventType::F_WALK_EABT, SID, Some(PASID));
            expected = vec![
                [d0, d1, VA, HOLE],
                record(EventType::C_BAD_CD, SID, Some(PASID)),
                record(EventType::C_BAD_STE, SID, Some(PASID)),
                record(EventType::C_BAD_STE, SID, None),
            ];
        }
        assert_eq!(m.events(), expected, "CR2 {cr2}");
        // Of a stream beyond the table: requests ask RECINVSID too, translated accesses don't.
        let asked = request(&with_pasid(stranger, PASID), VA);
        assert_eq!(m.smmu.request_translation(&asked), Err(AtsRefusal::CompleterAbort));
        assert_eq!(m.smmu.read_translated(StreamId(stranger), Pa(DATA), &mut [0]), aborted(DATA));
        let of = |ssid| record(EventType::C_BAD_STREAMID, stranger, ssid);
        let expected = match cr2 {
            0 | RECINVSID => vec![],
            REC_CFG_ATS => vec![of(None)],
            _ => vec![of(Some(PASID)), of(None)],
        };
        assert_eq!(m.events(), expected, "CR2 {cr2}");
    }
}

/// A block is cached, and then replaced by pages of which one may be written: with BBML 2 either answers until the
/// invalidation, but what the page permits is granted for the page alone.
#[test]
fn request_during_a_change_of_size_is_granted_no_more_than_each_table_permits() {
    let m = Bench::new();
    let root = m.ats_process(0);
    let block = DATA & !0x1f_ffff;
    m.map_at(Granule::K4, 48, 2, root, 0, block | USER_RW | RO | 1);
    m.read(&process(), 0x1000, 1).unwrap();
    let pages = m.table(4096);
    for page in 0..512 {
        let rights = if page == 1 { 0 } else { RO };
        m.put(pages + 8 * page, &[(block + (page << 12)) | USER_RW | rights | 3]);
    }
    // The level 2 descriptor, where the block was.
    let level2 = m.dword(m.dword(root) & 0xffff_ffff_f000) & 0xffff_ffff_f000;
    m.put(level2, &[pages | 3]);
    let granted = translate(&m, 0x1000).unwrap();
    assert!(granted.read && (!granted.write || granted.size_log2 == 12), "{granted:?}");
}

#[test]
fn request_without_pasid_where_stage_1_is_bypassed_gets_the_address_itself() {
    let m = Bench::new();
    m.ats_process(0);
    m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, EATS_FULL | 0xd5]);
    let granted = m.smmu.request_translation(&request(&plain(), DATA)).unwrap();
    assert!(granted.read && granted.write && !granted.execute);
    assert_eq!((granted.address.0, granted.size_log2), (0, 48));
    assert_eq!(m.smmu.request_translation(&request(&plain(), 1 << 50)), Ok(NOTHING));
}

#[test]
fn translated_access_passes_where_the_stream_allows_it() {
    let m = Bench::new();
    m.ats_process(0);
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    let sid = StreamId(SID);
    m.smmu.write_translated(sid, Pa(DATA), b"data").unwrap();
    let mut out = [0; 4];
    m.smmu.read_translated(sid, Pa(DATA), &mut out).unwrap();
    assert_eq!(&out, b"data");
    for pa in [HOLE, 1 << 48, u64::MAX] {
        assert_eq!(m.smmu.read_translated(sid, Pa(pa), &mut out), aborted(pa));
    }
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn translated_access_with_a_translation_that_is_out_of_date_transfers_nothing() {
    let m = Bench::new();
    m.ats_process(0);
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    let (sid, age) = (StreamId(SID), AtomicU64::new(7));
    let mut out = [0; 4];
    // Before the thread has been admitted, and after it.
    for _ in 0..2 {
        let late = Stamp::new(&age, 6);
        assert_eq!(m.smmu.write_translated_if(sid, Pa(DATA), b"late", late), Err(TranslatedFault::OutOfDate));
        assert_eq!(m.smmu.read_translated_if(sid, Pa(DATA), &mut out, late), Err(TranslatedFault::OutOfDate));
        assert_eq!(out, [0; 4]);
        let good = Stamp::new(&age, 7);
        m.smmu.write_translated_if(sid, Pa(DATA + 8), b"good", good).unwrap();
        m.smmu.read_translated_if(sid, Pa(DATA), &mut out, good).unwrap();
        assert_eq!(out, [0; 4]);
    }
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn translated_access_is_forbidden_without_eats_or_translation_unless_nobody_checks() {
    let m = Bench::new();
    m.process(0);
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    let sid = StreamId(SID);
    let mut out = [0; 4];
    assert_eq!(m.smmu.read_translated(sid, Pa(DATA), &mut out), aborted(DATA));
    assert_eq!(m.smmu.write_translated(sid, Pa(DATA), &out), aborted(DATA));
    let records = [[0x10_0000_0007, 1 << 35, DATA, 0], [0x10_0000_0007, 0, DATA, 0]];
    assert_eq!(m.events(), records);
    m.enable(EVENTQEN | CMDQEN | ATSCHK);
    assert_eq!(m.smmu.read_translated(sid, Pa(DATA), &mut out), aborted(DATA));
    assert_eq!(m.events(), records[..1]);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    assert_eq!(m.smmu.read_translated(sid, Pa(DATA), &mut out), Ok(()));
    // A configuration error is no record either.
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    m.ste(SID, &[0]);
    assert_eq!(m.smmu.read_translated(sid, Pa(DATA), &mut out), aborted(DATA));
    assert_eq!(m.events(), [] as [Record; 0]);
}

#[test]
fn change_of_eats_takes_effect_after_cfgi_ste() {
    let m = Bench::new();
    m.ats_process(0);
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    let sid = StreamId(SID);
    m.smmu.write_translated(sid, Pa(DATA), &[1]).unwrap();
    m.contexts(SID);
    assert_eq!(m.smmu.write_translated(sid, Pa(DATA), &[1]), aborted(DATA));
}

#[test]
fn split_stage_without_stage_2_is_illegal() {
    let m = Bench::new();
    m.process(0);
    m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, 2 << 28 | 0xd6]);
    assert_eq!(m.read(&process(), VA, 1), aborted(VA));
    assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, Some(PASID))]);
}

#[test]
fn invalidation_reaches_the_endpoint_as_commanded() {
    let m = Bench::new();
    let endpoint = m.endpoint();
    // Everything of one PASID; 16 KiB of every PASID; a global one; everything.
    m.command(0x0000_0010_0000_5840, 0x34);
    m.command(0x0000_0010_0000_0040, 0x7f00_0000_5002);
    m.command(0x0000_0010_0000_5a40, 0x7f00_0000_1000);
    m.command(0x0000_0010_0000_0040, 0x3f);
    m.sync();
    let sent: Vec<_> = endpoint.invalidations.lock().unwrap().iter().map(|(request, _)| *request).collect();
    let pasid = Pasid::new(PASID);
    let invalidation = |pasid, global, address, size_log2| InvalidateRequest {
        pasid,
        global,
        address: Iova(address),
        size_log2,
    };
    assert_eq!(
        sent,
        [
            invalidation(pasid, false, 0, 64),
            invalidation(None, false, 0x7f00_0000_4000, 14),
            invalidation(pasid, true, 0x7f00_0000_1000, 12),
            invalidation(None, false, 0, 64),
        ]
    );
}

#[test]
fn without_substreams_invalidations_have_no_pasid_and_are_not_global() {
    let m = Bench::with(Features { ssid_bits: 0, ..Features::default() });
    let endpoint = m.endpoint();
    m.command(0x0000_0010_0000_5a40, 0x7f00_0000_1000);
    m.sync();
    let sent = endpoint.invalidations.lock().unwrap()[0].0;
    assert_eq!((sent.pasid, sent.global, sent.address), (None, false, Iova(0x7f00_0000_1000)));
}

#[test]
fn sync_waits_for_the_endpoint_and_goes_on_by_itself() {
    let m = Bench::new();
    let endpoint = m.endpoint();
    endpoint.is_prompt.store(false, Ordering::Relaxed);
    m.command(0x0000_0010_0000_0040, 0x34);
    m.command(0x0000_0010_0000_0040, 0x34);
    let slot = m.command(0x0fc0_1046, CMDQ + 0x20);
    m.command(0x30, 0);
    assert_eq!((m.r32(CMDQ_CONS), m.dword(slot) as u32), (2, 0x0fc0_1046));
    let tags: Vec<_> = endpoint.invalidations.lock().unwrap().iter().map(|(_, tag)| *tag).collect();
    m.smmu.invalidate_completed(StreamId(SID), tags[1]);
    // Of another stream, and twice: no completion.
    m.smmu.invalidate_completed(StreamId(SID + 1), tags[0]);
    m.smmu.invalidate_completed(StreamId(SID), tags[1]);
    assert_eq!(m.r32(CMDQ_CONS), 2);
    m.smmu.invalidate_completed(StreamId(SID), tags[0]);
    assert_eq!((m.r32(CMDQ_CONS), m.dword(slot) as u32), (4, 0));
    assert_eq!(m.active_errors(), 0);
}

#[test]
fn invalidation_that_is_not_answered_ends_in_an_error_at_the_sync() {
    let m = Bench::new();
    let endpoint = m.endpoint();
    endpoint.is_prompt.store(false, Ordering::Relaxed);
    m.command(0x0000_0010_0000_0040, 0x34);
    m.command(0x0fc0_2046, 0);
    m.clock.advance_ns(INVALIDATION_TIMEOUT_NS - 1);
    m.alarms.fire();
    assert_eq!((m.r32(CMDQ_CONS), m.active_errors()), (1, 0), "too early");
    m.clock.advance_ns(1);
    m.alarms.ring(INVALIDATION_TIMEOUT_NS);
    assert_eq!((m.r32(CMDQ_CONS), m.active_errors()), (3 << 24 | 1, 1));
    // Acknowledged, the CMD_SYNC is executed again, and what failed is not waited for a second time.
    m.w32(GERRORN, m.r32(GERROR));
    assert_eq!(m.r32(CMDQ_CONS) & 0xff_ffff, 2);
    let tag = endpoint.invalidations.lock().unwrap()[0].1;
    m.smmu.invalidate_completed(StreamId(SID), tag);
    m.sync();
}

/// A guest may send any number of CMD_ATC_INV without a CMD_SYNC to an endpoint that never answers.
#[test]
fn of_more_unanswered_invalidations_than_there_are_tags_the_oldest_is_overdue_at_the_sync() {
    for (count, is_lost) in
        [(OUTSTANDING_MAX, false), (OUTSTANDING_MAX + 1, true), (3 * OUTSTANDING_MAX, true)]
    {
        let m = Bench::new();
        let endpoint = m.endpoint();
        endpoint.is_prompt.store(false, Ordering::Relaxed);
        for _ in 0..count {
            m.command(0x0000_0010_0000_0040, 0x34);
        }
        let at = m.r32(CMDQ_CONS);
        m.command(0x0fc0_2046, 0);
        assert_eq!(m.active_errors(), u32::from(is_lost), "{count} unanswered");
        let error = if is_lost { 3 << 24 } else { 0 };
        assert_eq!(m.r32(CMDQ_CONS), error | at, "{count} unanswered");

        // What is not overdue is waited for, also when software repeats the CMD_SYNC; what is, is not.
        if is_lost {
            m.w32(GERRORN, m.r32(GERROR));
        }
        let tags: Vec<_> = endpoint.invalidations.lock().unwrap().iter().map(|(_, tag)| *tag).collect();
        let (last, rest) = tags[count - OUTSTANDING_MAX..].split_last().unwrap();
        rest.iter().for_each(|tag| m.smmu.invalidate_completed(StreamId(SID), *tag));
        assert_eq!(m.r32(CMDQ_CONS) & 0xff_ffff, at, "{count} unanswered");
        m.smmu.invalidate_completed(StreamId(SID), *last);
        assert_ne!(m.r32(CMDQ_CONS) & 0xff_ffff, at, "{count} unanswered");
        assert_eq!(m.active_errors(), 0);
        m.smmu.invalidate_completed(StreamId(SID), tags[0]);
        m.sync();
    }
}

#[test]
fn answers_that_come_after_the_time_but_before_the_queue_goes_on_are_no_error() {
    let m = Bench::new();
    let endpoint = m.endpoint();
    endpoint.is_prompt.store(false, Ordering::Relaxed);
    m.command(0x0000_0010_0000_0040, 0x34);
    m.command(0x0fc0_2046, 0);
    // The queue is held while the time goes by.
    m.enable(SMMUEN | EVENTQEN);
    m.clock.advance_ns(INVALIDATION_TIMEOUT_NS);
    m.alarms.ring(INVALIDATION_TIMEOUT_NS);
    let tag = endpoint.invalidations.lock().unwrap()[0].1;
    m.smmu.invalidate_completed(StreamId(SID), tag);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    assert_eq!((m.r32(CMDQ_CONS), m.active_errors()), (2, 0));
}

#[test]
fn invalidation_of_a_stream_without_endpoint_or_with_translation_off_is_complete_at_once() {
    let m = Bench::new();
    m.command(0x0000_0010_0000_0040, 0x34);
    m.sync();
    let endpoint = m.endpoint();
    m.enable(EVENTQEN | CMDQEN);
    m.command(0x0000_0010_0000_0040, 0x34);
    m.sync();
    assert!(endpoint.invalidations.lock().unwrap().is_empty());
    drop(endpoint);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    m.command(0x0000_0010_0000_0040, 0x34);
    m.sync();
}

#[test]
fn without_ats_its_commands_are_illegal_and_eats_is_ignored() {
    let m = Bench::with(Features { ats: false, pri: false, ..Features::default() });
    let root = m.ats_process(0);
    m.map(root, VA, DATA, USER_RW);
    assert_eq!(translate(&m, VA), Err(AtsRefusal::UnsupportedRequest));
    m.write(&process(), VA, &[1]).unwrap();
    m.w32(CR0, SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    assert_eq!(m.r32(CR0ACK), SMMUEN | EVENTQEN | CMDQEN);
    m.command(0x0000_0010_0000_0040, 0x34);
    assert_eq!(m.active_errors(), 1);
}

#[test]
fn withdrawn_sync_does_not_hold_up_what_comes_after_it() {
    let m = Bench::new();
    let endpoint = m.endpoint();
    endpoint.is_prompt.store(false, Ordering::Relaxed);
    m.command(0x0000_0010_0000_0040, 0x34);
    m.command(0x0fc0_2046, 0);
    let tag = endpoint.invalidations.lock().unwrap()[0].1;
    m.enable(SMMUEN | EVENTQEN);
    m.smmu.invalidate_completed(StreamId(SID), tag);
    endpoint.is_prompt.store(true, Ordering::Relaxed);
    m.put_command(1, 0x0000_0010_0000_0040, 0x34);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    assert_eq!(m.r32(CMDQ_CONS), 2);
    m.sync();
}
