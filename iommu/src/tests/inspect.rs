//! A look inside shows what a transaction finds, and has no effect.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::hostile::with_structures;
use super::stage2::{IPA_DATA, IPA_TABLES, S2_RW};
use super::*;

const HA_HD: u64 = 3 << 42;
const DBM: u64 = 1 << 51;
const VA: u64 = 0x1234_5000;

fn hex(number: u64) -> Value {
    format!("{number:#x}").into()
}

/// Whether `value` has all that `expected` has.
fn assert_has(value: &Value, expected: &Value) {
    match expected {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, expected)| {
                assert!(value.get(name).is_some(), "{name} in {value}");
                assert_has(&value[name], expected);
            });
        }
        _ => assert_eq!(value, expected),
    }
}

fn walk(m: &Bench, iova: u64) -> Value {
    m.smmu.inspect_walk(SID, Some(PASID), iova).unwrap()
}

/// Stage, level and address of each descriptor that was read.
fn path(walk: &Value) -> Vec<(u64, u64, String)> {
    let levels = walk["levels"].as_array().unwrap();
    let number = |level: &Value, name: &str| level[name].as_u64().unwrap();
    let address = |level: &Value| level["address"].as_str().unwrap().to_owned();
    levels.iter().map(|level| (number(level, "stage"), number(level, "level"), address(level))).collect()
}

#[test]
fn stream_table_entry_is_shown_by_the_specifications_names() {
    let m = Bench::new();
    m.contexts(SID);
    let found = m.smmu.inspect_stream(SID).unwrap();
    let expected = json!({
        "StreamID": "0x10", "address": hex(STRTAB + 64 * u64::from(SID)), "is_legal": true,
        "STE": {
            "V": 1, "Config": 5, "S1Fmt": 0, "S1ContextPtr": hex(CDTAB), "S1CDMax": 6, "S1DSS": 2, "S1CIR": 1,
            "S1STALLD": 0, "EATS": 0, "STRW": 0, "S2VMID": "0x0", "S2TTB": "0x0",
        },
    });
    assert_has(&found, &expected);
    assert!(found.get("L1STD").is_none(), "{found}");
    // A reserved size of the context table.
    m.ste(SID, &[31 << 59 | CDTAB | 5 << 1 | 1, 0]);
    assert_has(&m.smmu.inspect_stream(SID).unwrap(), &json!({ "is_legal": false, "STE": { "S1CDMax": 31 } }));
}

#[test]
fn stream_in_a_two_level_table_is_shown_with_its_level_1_descriptor() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    let l1 = m.table(4096);
    m.put(l1, &[DATA | 8, HOLE | 9]);
    m.w64(STRTAB_BASE, l1);
    m.w32(STRTAB_BASE_CFG, 1 << 16 | 8 << 6 | 16);
    m.enable(SMMUEN);
    m.put(DATA + 64 * 3, &[9]);
    let expected = json!({
        "address": hex(DATA + 64 * 3), "STE": { "Config": 4 },
        "L1STD": { "address": hex(l1), "Span": 8, "L2Ptr": hex(DATA) },
    });
    assert_has(&m.smmu.inspect_stream(3).unwrap(), &expected);
    for (sid, error) in [
        (0x80, "StreamID 0x80: is beyond L1STD.Span, which is 8 (C_BAD_STREAMID)"),
        (0x103, "StreamID 0x103: no memory answers at 0x1000000c0 (F_STE_FETCH)"),
        (0x203, "StreamID 0x203: is beyond L1STD.Span, which is 0 (C_BAD_STREAMID)"),
        (0x1_0000, "StreamID 0x10000: is beyond SMMU_STRTAB_BASE_CFG.LOG2SIZE, which is 16 (C_BAD_STREAMID)"),
    ] {
        assert_eq!(m.smmu.inspect_stream(sid), Err(error.to_owned()));
    }
}

#[test]
fn context_descriptor_is_shown_by_the_specifications_names() {
    let m = Bench::new();
    let root = m.process(CD_S);
    let expected = json!({
        "StreamID": "0x10", "SubstreamID": "0x5", "address": hex(CDTAB + 64 * 5), "is_legal": true,
        "CD": {
            "V": 1, "T0SZ": 16, "TG0": 0, "EPD0": 0, "EPD1": 1, "IPS": 5, "AA64": 1, "S": 1, "R": 1, "A": 1, "HA": 0,
            "ASID": "0x12", "TTB0": hex(root), "TTB1": "0x0", "MAIR": "0xff",
        },
    });
    assert_has(&m.smmu.inspect_cd(SID, Some(PASID)).unwrap(), &expected);
    // Two levels, 64 contexts in each table of the second.
    let (l1, l2) = (m.table(4096), m.table(4096));
    m.put(l1 + 8, &[l2 | 1]);
    m.put(l2 + 64, &[CD_D0, root, 0, 0x44]);
    m.ste(SID, &[10 << 59 | l1 | 1 << 4 | 5 << 1 | 1, 0xd6]);
    let expected = json!({ "address": hex(l2 + 64), "CD": { "MAIR": "0x44" } });
    assert_has(&m.smmu.inspect_cd(SID, Some(65)).unwrap(), &expected);
    let error = "StreamID 0x10, SubstreamID 0x5: L1CD.V is 0 (C_BAD_SUBSTREAMID)";
    assert_eq!(m.smmu.inspect_cd(SID, Some(PASID)), Err(error.to_owned()));
}

#[test]
fn walk_shows_each_descriptor_and_the_permissions_of_the_page() {
    let m = Bench::new();
    let root = m.process(0);
    m.map(root, VA, DATA, USER_RW);
    let found = walk(&m, VA + 0x678);
    let expected = json!({
        "input_address": hex(VA + 0x678),
        "outcome": {
            "output_address": hex(DATA + 0x678), "bytes": "0x1000",
            "permissions": { "unprivileged": "rw-", "privileged": "rw-" },
        },
    });
    assert_has(&found, &expected);
    assert_eq!(
        path(&found).iter().map(|&(stage, level, _)| (stage, level)).collect::<Vec<_>>(),
        [(1, 0), (1, 1), (1, 2), (1, 3)]
    );
    assert_eq!(found["levels"][0]["address"], hex(root));
    assert_eq!(found["levels"][3]["address"], hex(m.pte(root, VA)));
    assert_eq!(found["levels"][3]["descriptor"], hex(DATA | USER_RW | 3));
    // Of the kernel only, and read-only: found by the first access that is permitted.
    m.map(root, VA, DATA, (USER_RW | RO) & !EL0);
    let permissions = json!({ "unprivileged": "---", "privileged": "r--" });
    assert_has(&walk(&m, VA), &json!({ "outcome": { "permissions": permissions } }));
}

#[test]
fn walk_that_faults_shows_the_way_to_the_fault_and_what_becomes_of_it() {
    let m = Bench::new();
    let root = m.process(CD_S);
    let outcome = |fault, is_stalled| {
        json!({
            "fault": fault, "stage": 1, "CLASS": "IN", "is_stalled": is_stalled, "is_recorded": true,
        })
    };
    assert_has(&walk(&m, VA)["outcome"], &outcome("F_TRANSLATION", true));
    assert_eq!(path(&walk(&m, VA)).len(), 1);
    m.map(root, VA, DATA, USER_RW & !AF);
    assert_has(&walk(&m, VA)["outcome"], &outcome("F_ACCESS", true));
    m.cd(PASID, &[CD_D0 & !CD_R, root]);
    m.put(root, &[HOLE | 3]);
    let found = walk(&m, VA);
    let expected = json!({ "fault": "F_WALK_EABT", "CLASS": "IN", "is_stalled": false, "is_recorded": true });
    assert_eq!(found["outcome"]["fault"], expected["fault"]);
    assert_eq!(
        (&found["levels"][1]["address"], &found["levels"][1]["descriptor"]),
        (&hex(HOLE), &Value::Null)
    );
    assert_eq!(found["outcome"]["FetchAddr"], hex(HOLE));
    // The upper half is disabled: nothing is read, and R is 0.
    let found = walk(&m, 0xffff_0000_0000_0000);
    assert_eq!((path(&found).len(), &found["outcome"]["is_recorded"]), (0, &json!(false)));
}

#[test]
fn walk_behind_stage_2_shows_both_stages() {
    let m = Bench::new();
    let (root, tables) = m.nested(0, 0, VA, USER_RW);
    let found = walk(&m, VA);
    let expected = json!({ "fault": "F_TRANSLATION", "stage": 2, "CLASS": "IN", "IPA": hex(IPA_DATA) });
    assert_has(&found["outcome"], &expected);
    m.map2(root, IPA_DATA, DATA, S2_RW);
    let found = walk(&m, VA + 8);
    assert_has(&found["outcome"], &json!({ "output_address": hex(DATA + 8) }));
    let levels: Vec<_> = path(&found).iter().map(|&(stage, level, _)| (stage, level)).collect();
    let stage2 = [(2, 1), (2, 2), (2, 3)];
    let expected: Vec<_> =
        (0..4).flat_map(|level| stage2.into_iter().chain([(1, level)])).chain(stage2).collect();
    assert_eq!(levels, expected);
    assert_eq!(path(&found)[3].2, format!("{:#x}", tables + 8 * (VA >> 39)));
    // Without stage 2 for the contexts.
    m.put(m.pte2(root, IPA_TABLES + 0x4000), &[0]);
    let error =
        "StreamID 0x10, SubstreamID 0x5: stage 2 of the context descriptor's address ends with F_TRANSLATION";
    assert_eq!(m.smmu.inspect_cd(SID, Some(PASID)), Err(error.to_owned()));
}

#[test]
fn stream_that_leads_nowhere_is_an_error_in_one_line() {
    let m = Bench::new();
    m.ste(9, &[8]);
    m.ste(10, &[1]);
    m.ste(11, &[9]);
    m.contexts(SID);
    let walk = |sid, ssid| m.smmu.inspect_walk(sid, ssid, VA).unwrap_err();
    assert_eq!(m.smmu.inspect_stream(9).unwrap_err(), "StreamID 0x9: STE.V is 0");
    assert_eq!(walk(9, None), "StreamID 0x9: STE.V is 0");
    assert_eq!(walk(10, None), "StreamID 0xa: STE.Config is 0b000: all is aborted");
    let error = "StreamID 0xb: STE.Config is 0b100: there is no stage 1";
    assert_eq!(m.smmu.inspect_cd(11, None).unwrap_err(), error);
    let expected = json!({ "levels": [], "outcome": { "output_address": hex(VA) } });
    assert_has(&m.smmu.inspect_walk(11, None, VA).unwrap(), &expected);
    assert_eq!(walk(SID, Some(1)), "StreamID 0x10, SubstreamID 0x1: CD.V is 0");
    let error = "StreamID 0x10, SubstreamID 0x40: is beyond STE.S1CDMax, which is 6 (C_BAD_SUBSTREAMID)";
    assert_eq!(walk(SID, Some(64)), error);
    assert_eq!(walk(SID, Some(1 << 20)), "SubstreamID 0x100000: has more than 20 bits");
    m.enable(EVENTQEN | CMDQEN);
    let error = "StreamID 0x10: SMMU_CR0.SMMUEN is 0, so that no table is read";
    assert_eq!(m.smmu.inspect_stream(SID).unwrap_err(), error);
}

#[test]
fn look_has_no_effect_on_tables_events_and_counters() {
    let m = Bench::new();
    let root = m.process(HA_HD);
    // Its access flag would be set, and a write would make it dirty.
    m.map(root, VA, DATA, USER_RW & !AF | RO | DBM);
    let (before, descriptor) = (m.smmu.stats(), m.dword(m.pte(root, VA)));
    let permissions = json!({ "unprivileged": "rw-", "privileged": "rw-" });
    assert_has(&walk(&m, VA)["outcome"], &json!({ "permissions": permissions }));
    assert_has(&walk(&m, VA + 0x1000)["outcome"], &json!({ "fault": "F_TRANSLATION" }));
    assert!(m.smmu.inspect_stream(0x8000).is_err());
    assert_eq!((m.smmu.stats(), m.dword(m.pte(root, VA))), (before, descriptor));
    assert_eq!(m.events(), [] as [Record; 0]);
    // Nor is anything kept: a page that was shown is gone without an invalidation.
    m.put(m.pte(root, VA), &[0]);
    assert!(m.read(&process(), VA, 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// And what it shows of a read is what the read does.
    #[test]
    fn any_structures_are_looked_at(
        ste in any::<[u64; 4]>(), cd in any::<[u64; 4]>(), entries in any::<[u64; 8]>(), sane: bool,
        sid in prop_oneof![Just(SID), any::<u32>()], ssid in prop_oneof![Just(Some(PASID)), any::<Option<u32>>()],
        va: u64, config in any::<u32>(), registers: bool,
    ) {
        let m = with_structures(ste, cd, &entries, sane, PASID);
        if registers {
            m.enable(0);
            m.w32(STRTAB_BASE_CFG, config);
            m.w64(STRTAB_BASE, entries[0] & 0x1ff_ffff | RAM);
            m.enable(SMMUEN);
        }
        let before = m.smmu.stats();
        let _ = (m.smmu.inspect_stream(sid), m.smmu.inspect_cd(sid, ssid), m.smmu.inspect_walk(sid, ssid, va));
        prop_assert_eq!(m.smmu.stats(), before);
        let who = process();
        let shown = m.smmu.inspect_walk(SID, Some(PASID), va >> 17);
        let place = m.smmu.pin(&who, Iova(va >> 17), 1, hw::Dir::Read);
        if let Ok(place) = place {
            let shown = shown.unwrap();
            prop_assert_eq!(&shown["outcome"]["output_address"], &hex(place.pieces[0].0.0));
        }
    }
}
