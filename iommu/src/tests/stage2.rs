//! Stage 2 alone and behind stage 1, and the EL2 stream worlds.

use std::thread;

use hw::ats::{AtsRefusal, TranslationRequest};

use super::*;
use crate::StallModel;

const VMID: u64 = 7;
/// S2VMID 7, 40-bit IPAs from level 1 (two concatenated tables), 4 KiB granule, S2PS 48, S2AA64, S2R.
const S2: u64 = VMID | 24 << 32 | 1 << 38 | 5 << 48 | 1 << 51 | 1 << 58;
const S2AFFD: u64 = 1 << 53;
const S2PTW: u64 = 1 << 54;
const S2HD: u64 = 1 << 55;
const S2HA: u64 = 1 << 56;
const S2S: u64 = 1 << 57;
const S2R: u64 = 1 << 58;

/// Stage 2 pages: Normal memory, readable and writable.
const S2_READ: u64 = 1 << 6;
const S2_WRITE: u64 = 1 << 7;
pub(crate) const S2_RW: u64 = AF | S2_READ | S2_WRITE | 0xf << 2;
const DBM: u64 = 1 << 51;

const CONFIG_S2: u64 = 6 << 1 | 1;
const CONFIG_NESTED: u64 = 7 << 1 | 1;

/// D1: a fault of stage 2.
const S2_FAULT: u64 = 1 << 39;
const CLASS_CD: u64 = 0;
const CLASS_TT: u64 = 1 << 40;
const CLASS_IN: u64 = 2 << 40;
const RNW: u64 = 1 << 35;
const TTRNW: u64 = 1 << 44;

/// IPAs of the guest's guest: its tables and its data.
pub(crate) const IPA_TABLES: u64 = 0x10_0000_0000;
pub(crate) const IPA_DATA: u64 = 0x20_0000;

impl Bench {
    fn stage2_root(&self) -> u64 {
        self.table(8192)
    }

    pub(crate) fn map2(&self, root: u64, ipa: u64, pa: u64, attributes: u64) {
        let at = self.pte2(root, ipa);
        self.put(at, &[pa | attributes | 3]);
    }

    /// Where the page descriptor of an IPA is, with the tables above it.
    pub(crate) fn pte2(&self, root: u64, ipa: u64) -> u64 {
        let mut at = root + 8 * (ipa >> 30);
        for shift in [21, 12] {
            if self.dword(at) & 1 == 0 {
                self.put(at, &[self.table(4096) | 3]);
            }
            at = (self.dword(at) & 0xffff_ffff_f000) + 8 * (ipa >> shift & 511);
        }
        at
    }

    /// A stream with stage 2 alone; the table's root.
    fn stage2_only(&self, d2: u64) -> u64 {
        let root = self.stage2_root();
        self.ste(SID, &[CONFIG_S2, 0, S2 ^ d2, root]);
        root
    }

    /// Both stages: `PASID` has four levels of tables at `IPA_TABLES`, in which `va` leads to `IPA_DATA` with
    /// `attributes`; the context descriptors are there too. All of it is mapped by stage 2, `IPA_DATA` isn't. The
    /// root of stage 2, and the physical address of the tables.
    pub(crate) fn nested(&self, d2: u64, cd: u64, va: u64, attributes: u64) -> (u64, u64) {
        let root = self.stage2_root();
        let tables = self.table(0x8000);
        for page in 0..5 {
            self.map2(root, IPA_TABLES + (page << 12), tables + (page << 12), S2_RW);
        }
        for level in 0..4 {
            let next = match level {
                3 => IPA_DATA | attributes | 3,
                _ => (IPA_TABLES + ((level + 1) << 12)) | 3,
            };
            self.put(tables + (level << 12) + 8 * (va >> (39 - 9 * level) & 511), &[next]);
        }
        self.put(tables + 0x4000 + 64 * u64::from(PASID), &[CD_D0 ^ cd, IPA_TABLES]);
        self.ste(SID, &[6 << 59 | (IPA_TABLES + 0x4000) | CONFIG_NESTED, 0xd6, S2 ^ d2, root]);
        (root, tables)
    }
}

fn stage2_record(event: EventType, ssid: Option<u32>, d1: u64, address: u64, ipa: u64) -> Record {
    let [d0, ..] = record(event, SID, ssid);
    [d0, S2_FAULT | d1, address, ipa]
}

#[test]
fn stage2_alone_translates_and_faults_with_the_ipa() {
    let m = Bench::new();
    let root = m.stage2_only(0);
    m.map2(root, 0x80_0000_1000, DATA, S2_RW);
    m.write(&plain(), 0x80_0000_1234, &[7]).unwrap();
    assert_eq!(m.dword(DATA + 0x230) >> 32 & 0xff, 7);
    assert!(m.read(&plain(), 0x5678, 1).is_err());
    assert_eq!(m.events(), [stage2_record(EventType::F_TRANSLATION, None, CLASS_IN | RNW, 0x5678, 0x5000)]);
    // Beyond S2T0SZ, and beyond the address space.
    assert!(m.read(&plain(), 1 << 40, 1).is_err());
    assert_eq!(m.events(), [stage2_record(EventType::F_TRANSLATION, None, CLASS_IN | RNW, 1 << 40, 1 << 40)]);
    assert!(m.read(&plain(), 1 << 48, 1).is_err());
    let [d0, ..] = record(EventType::F_ADDR_SIZE, SID, None);
    assert_eq!(m.events(), [[d0, CLASS_IN | RNW, 1 << 48, 0]]);
    assert!(m.read(&process(), 0x1000, 1).is_err());
    assert_eq!(m.events()[0][0] & 0xff, 0x08, "a PASID without stage 1");
}

#[test]
fn stage2_faults_of_every_kind() {
    let m = Bench::new();
    let root = m.stage2_only(0);
    for (descriptor, event, write) in [
        (DATA | S2_RW | 1, EventType::F_TRANSLATION, false),
        (DATA | S2_RW & !AF | 3, EventType::F_ACCESS, false),
        (DATA | S2_RW & !S2_WRITE | 3, EventType::F_PERMISSION, true),
        (DATA | S2_RW & !S2_READ | 3, EventType::F_PERMISSION, false),
    ] {
        m.put(m.pte2(root, 0x1000), &[descriptor]);
        let result =
            if write { m.write(&plain(), 0x1000, &[1]) } else { m.read(&plain(), 0x1000, 1).map(|_| ()) };
        assert!(result.is_err());
        let rnw = if write { 0 } else { RNW };
        assert_eq!(
            m.events(),
            [stage2_record(event, None, CLASS_IN | rnw, 0x1000, 0x1000)],
            "{descriptor:#x}"
        );
    }
    // S2PS of 32 bits.
    m.ste(SID, &[CONFIG_S2, 0, S2 & !(7 << 48), root]);
    m.put(m.pte2(root, 0x1000), &[1 << 32 | S2_RW | 3]);
    assert!(m.read(&plain(), 0x1000, 1).is_err());
    assert_eq!(m.events()[0][0] & 0xff, 0x11);
}

#[test]
fn stage2_stalls_if_s2s_says_so_and_is_silent_without_s2r() {
    let m = Bench::new();
    m.stage2_only(S2R);
    assert!(m.read(&plain(), 0x1000, 1).is_err());
    assert_eq!(m.events(), [] as [Record; 0]);
    let root = m.stage2_only(S2S);
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let access = scope.spawn(|| m.read(&plain(), 0x1000, 1));
        let event = m.await_events(1)[0];
        assert_eq!(event[1] & !0xffff, STALL | S2_FAULT | CLASS_IN | RNW);
        m.map2(root, 0x1000, DATA, S2_RW);
        m.resume(SID, event[1] as u16, true);
        assert!(access.join().unwrap().is_ok());
    });
}

#[test]
fn illegal_stage2_is_a_bad_entry() {
    let no_stalls = Features { stall_model: StallModel::TerminateOnly, ..Features::default() };
    let no_httu = Features { httu: crate::Httu::None, ..Features::default() };
    let no_small = Features { small_tables: false, ..Features::default() };
    let usual = Features::default();
    let tsz = |bits: u64| S2 & !(0x3f << 32) | (64 - bits) << 32;
    for (why, features, d2, ttb) in [
        ("S2AA64 = 0", usual, S2 & !(1 << 51), 0),
        ("S2ENDI", usual, S2 | 1 << 52, 0),
        ("S2TG = 3", usual, S2 | 3 << 46, 0),
        ("S2T0SZ beyond IAS", usual, tsz(49), 0),
        ("S2T0SZ = 40", no_small, tsz(24) & !(3 << 38), 0),
        ("S2T0SZ = 49", usual, tsz(15) | 3 << 38, 0),
        ("S2T0SZ = 48 with 64 KiB", usual, tsz(16) & !(3 << 38) | 1 << 46, 0),
        ("S2SL0 = 3 without small tables", no_small, tsz(25) | 3 << 38, 0),
        ("more than sixteen tables", usual, tsz(44), 0),
        ("less than a table", usual, tsz(30), 0),
        ("S2SL0 = 3", usual, S2 | 3 << 38, 0),
        ("S2TTB beyond S2PS", usual, S2 & !(7 << 48), 1 << 32),
        ("S2S without stalls", no_stalls, S2 | S2S, 0),
        ("S2HA without HTTU", no_httu, S2 | S2HA, 0),
        ("S2HD without HTTU", no_httu, S2 | S2HD, 0),
        ("no stage 2", Features::stage1_only(), S2, 0),
    ] {
        let m = Bench::with(features);
        for config in [CONFIG_S2, CONFIG_NESTED] {
            m.ste(SID, &[CDTAB | config, 0, d2, ttb]);
            assert!(m.read(&plain(), 0x1000, 1).is_err());
            assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, None)], "{why}");
        }
    }
    for d2 in [tsz(31), tsz(43), tsz(24) & !(3 << 38), tsz(16) | 3 << 38, tsz(25) | 3 << 38] {
        let m = Bench::new();
        m.ste(SID, &[CONFIG_S2, 0, d2, 0]);
        assert!(m.read(&plain(), 0x1000, 1).is_err());
        assert_eq!(m.events()[0][0] & 0xff, 0x0b, "{d2:#x} is legal: it walks, and finds no memory");
    }
}

#[test]
fn ats_with_stalls_of_stage2_and_split_stage_ats_of_one_stage_are_bad_entries() {
    for (eats, d2, legal) in [
        (1, 0, [true, true]),
        (1, S2S, [false, false]),
        (2, 0, [false, true]),
        (2, S2S, [false, false]),
        (0, S2S, [true, true]),
    ] {
        for (config, legal) in [CONFIG_S2, CONFIG_NESTED].into_iter().zip(legal) {
            let m = Bench::new();
            // Level 1 of stage 2 is out of memory: what is legal ends in a walk abort.
            m.ste(SID, &[CDTAB | config, eats << 28, S2 | d2, HOLE]);
            assert!(m.read(&plain(), 0x1000, 1).is_err());
            let event = if legal { 0x0b } else { 0x04 };
            assert_eq!(m.events()[0][0] & 0xff, event, "EATS {eats}");
        }
    }
}

/// The guest's guest's page moves in stage 2 while the device writes to it. After the invalidation's CMD_SYNC nothing
/// is written to the old frame, by an access of either kind.
#[test]
fn nothing_is_written_through_an_old_stage2_translation_after_sync() {
    let m = Bench::new();
    let (root, _) = m.nested(S2HA | S2HD, 0, 0x1000, USER_RW);
    m.ste(SID + 1, &[CONFIG_S2, 0, S2 ^ S2HA ^ S2HD, root]);
    let frames = [DATA, DATA + 0x10_0000];
    let leaf = |pa: u64| pa | S2_RW & !S2_WRITE & !AF | DBM | 3;
    let pte = m.pte2(root, IPA_DATA);
    m.put(pte, &[leaf(frames[0])]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let writes = AtomicU64::new(0);
    let alone = Requester::new(DmaTag::untagged(StreamId(SID + 1)));
    thread::scope(|scope| {
        let _unstuck = m.unstuck_on_panic();
        let _end = super::races::Raised(&done);
        for (who, at) in [(process(), 0x1000), (alone, IPA_DATA)] {
            let (m, done, writes) = (&m, &done, &writes);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    m.write(&who, at, &[0x11; 4096]).unwrap();
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..600usize {
            let (old, new) = (frames[round % 2], frames[(round + 1) % 2]);
            m.put(pte, &[leaf(new)]);
            match round % 3 {
                0 => m.command(VMID << 32 | 0x28, 0),
                1 => m.command(VMID << 32 | 0x2a, IPA_DATA),
                _ => m.command(VMID << 32 | 0x2a | 1 << 12, IPA_DATA | 1 << 10),
            };
            m.sync();
            m.ram.write(Pa(old), &[0xee; 4096]).unwrap();
            thread::yield_now();
            let mut found = [0; 4096];
            m.ram.read(Pa(old), &mut found).unwrap();
            assert_eq!(found, [0xee; 4096], "round {round}");
        }
        m.until(|| writes.load(Ordering::Relaxed) > 10);
    });
}

/// Software changes its own bits of a descriptor with exchanges while the SMMU updates flags: no change is lost.
#[test]
fn update_of_a_descriptor_loses_no_change_of_software() {
    let m = Bench::new();
    let root = m.process(3 << 42);
    m.map(root, 0x1000, DATA, USER_RW & !AF | RO | DBM);
    let pte = m.pte(root, 0x1000);
    let clean = m.dword(pte);
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = super::races::Raised(&done);
        let (m, done) = (&m, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                m.write(&process(), 0x1000, &[1]).unwrap();
            }
        });
        // Bits 55 to 58 are software's: they count what it did.
        let mut count = 0u64;
        while count < 3000 {
            let old = m.dword(pte);
            assert_eq!(old >> 55 & 15, count & 15, "a change is lost");
            assert!(old & !(15 << 55) == clean || old & !(15 << 55) == clean & !RO | AF, "{old:#x}");
            let new = clean | ((count + 1) & 15) << 55;
            if m.ram.compare_exchange_u64(Pa(pte), old, new).unwrap().is_ok() {
                count += 1;
                m.command(0x30, 0);
            }
        }
    });
}

#[test]
fn nested_walk_goes_through_stage2_at_every_step() {
    let m = Bench::new();
    let (root, tables) = m.nested(0, 0, 0x1000, USER_RW);
    let access = |m: &Bench| m.read(&process(), 0x1040, 1);
    // The data page.
    assert!(access(&m).is_err());
    let ssid = Some(PASID);
    assert_eq!(m.events(), [stage2_record(EventType::F_TRANSLATION, ssid, CLASS_IN | RNW, 0x1040, IPA_DATA)]);
    m.map2(root, IPA_DATA, DATA, S2_RW);
    m.put(DATA + 0x40, &[0x99]);
    assert_eq!(access(&m).unwrap(), [0x99]);
    // Each table of stage 1.
    for level in 0..4 {
        let ipa = IPA_TABLES + (level << 12);
        m.put(m.pte2(root, ipa), &[0]);
        m.command(0x30, 0);
        m.sync();
        assert!(access(&m).is_err());
        assert_eq!(m.events(), [stage2_record(EventType::F_TRANSLATION, ssid, CLASS_TT | RNW, 0x1040, ipa)]);
        m.put(m.pte2(root, ipa), &[(tables + (level << 12)) | S2_RW & !S2_READ | 3]);
        assert!(access(&m).is_err());
        assert_eq!(
            m.events(),
            [stage2_record(EventType::F_PERMISSION, ssid, CLASS_TT | RNW | TTRNW, 0x1040, ipa)]
        );
        m.put(m.pte2(root, ipa), &[(tables + (level << 12)) | S2_RW | 3]);
    }
    // The context descriptor.
    m.put(m.pte2(root, IPA_TABLES + 0x4000), &[0]);
    m.cfgi_cd(SID, PASID);
    assert!(access(&m).is_err());
    assert_eq!(
        m.events(),
        [stage2_record(EventType::F_TRANSLATION, ssid, CLASS_CD | RNW, 0x1040, IPA_TABLES + 0x4000)]
    );
}

#[test]
fn walk_aborts_of_either_stage_tell_the_physical_address() {
    let m = Bench::new();
    let (root, _) = m.nested(0, 0, 0x1000, USER_RW);
    m.map2(root, IPA_TABLES, HOLE, S2_RW);
    m.map2(root, IPA_TABLES, HOLE, S2_RW);
    assert!(m.read(&process(), 0x1000, 1).is_err());
    let [d0, ..] = record(EventType::F_WALK_EABT, SID, Some(PASID));
    assert_eq!(m.events(), [[d0, CLASS_TT | RNW, 0x1000, HOLE]]);
    // Stage 2's own table is missing.
    m.put(root + 8 * (IPA_DATA >> 30), &[HOLE | 3]);
    m.map2(root, IPA_TABLES, m.nested(0, 0, 0x1000, USER_RW).1, S2_RW);
    let _ = m.read(&process(), 0x1000, 1);
    assert!(m.events().len() == 1);
    m.stage2_only(0);
    let root = m.stage2_only(0);
    m.put(root, &[HOLE | 3]);
    assert!(m.read(&plain(), 0x1000, 1).is_err());
    let [d0, ..] = record(EventType::F_WALK_EABT, SID, None);
    assert_eq!(m.events(), [[d0, S2_FAULT | CLASS_IN | RNW, 0x1000, HOLE]]);
}

#[test]
fn permissions_of_both_stages_are_needed() {
    let m = Bench::new();
    let (root, tables) = m.nested(0, 0, 0x1000, USER_RW | RO);
    m.map2(root, IPA_DATA, DATA, S2_RW);
    assert!(m.write(&process(), 0x1000, &[1]).is_err());
    assert_eq!(m.events(), [fault_record(EventType::F_PERMISSION, WRITE, 0x1000)], "stage 1's");
    m.put(tables + 0x3008, &[IPA_DATA | USER_RW | 3]);
    m.map2(root, IPA_DATA, DATA, S2_RW & !S2_WRITE);
    assert!(m.write(&process(), 0x1000, &[1]).is_err());
    let expected = stage2_record(EventType::F_PERMISSION, Some(PASID), CLASS_IN, 0x1000, IPA_DATA);
    assert_eq!(m.events(), [expected]);
    assert!(m.read(&process(), 0x1000, 1).is_ok());
}

#[test]
fn tables_in_device_memory_are_refused_with_s2ptw() {
    for (fwb, normal, device) in [(0, 0xf, 0x0), (1 << 25, 0x6, 0x1)] {
        for (attributes, d2, event) in [(normal, S2PTW, 0), (device, 0, 0), (device, S2PTW, 0x13)] {
            let m = Bench::new();
            let (root, tables) = m.nested(d2, 0, 0x1000, USER_RW);
            m.ste(SID, &[6 << 59 | (IPA_TABLES + 0x4000) | CONFIG_NESTED, 0xd6 | fwb, S2 | d2, root]);
            m.map2(root, IPA_DATA, DATA, S2_RW);
            for page in 0..5 {
                let attributes = S2_RW & !(0xf << 2) | attributes << 2;
                m.map2(root, IPA_TABLES + (page << 12), tables + (page << 12), attributes);
            }
            m.cfgi_ste(SID);
            let _ = m.read(&process(), 0x1000, 1);
            let found = m.events().first().map_or(0, |event| event[0] & 0xff);
            assert_eq!(found, event, "FWB {fwb:#x} MemAttr {attributes:#x} S2PTW {}", d2 != 0);
        }
    }
}

#[test]
fn access_flag_and_dirty_state_of_stage2_are_managed() {
    let m = Bench::new();
    let root = m.stage2_only(S2HA | S2HD);
    m.map2(root, 0x1000, DATA, S2_RW & !AF & !S2_WRITE | DBM);
    let pte = m.pte2(root, 0x1000);
    let before = m.dword(pte);
    m.read(&plain(), 0x1000, 1).unwrap();
    assert_eq!(m.dword(pte), before | AF);
    m.write(&plain(), 0x1000, &[1]).unwrap();
    assert_eq!(m.dword(pte), before | AF | S2_WRITE);
    let root = m.stage2_only(S2AFFD);
    m.map2(root, 0x1000, DATA, S2_RW & !AF);
    m.read(&plain(), 0x1000, 1).unwrap();
    assert_eq!(m.dword(m.pte2(root, 0x1000)) & AF, 0);
}

#[test]
fn update_of_a_stage1_descriptor_is_a_write_through_stage2() {
    const CD_HA_HD: u64 = 3 << 42;
    let m = Bench::new();
    let (root, tables) = m.nested(0, CD_HA_HD, 0x1000, USER_RW & !AF | RO | DBM);
    m.map2(root, IPA_DATA, DATA, S2_RW);
    m.map2(root, IPA_TABLES + 0x3000, tables + 0x3000, S2_RW & !S2_WRITE);
    assert!(m.write(&process(), 0x1000, &[1]).is_err());
    let ipa = IPA_TABLES + 0x3000;
    let expected = stage2_record(EventType::F_PERMISSION, Some(PASID), CLASS_TT, 0x1000, ipa);
    assert_eq!(m.events(), [expected], "TTRnW = 0");
    m.map2(root, ipa, tables + 0x3000, S2_RW);
    m.write(&process(), 0x1000, &[1]).unwrap();
    assert_eq!(m.dword(tables + 0x3008), IPA_DATA | USER_RW & !RO | DBM | AF | 3);
}

#[test]
fn stage2_execute_never_depends_on_privilege() {
    let fetch = |privileged| {
        let mut who = process();
        (who.tag.execute, who.tag.privileged) = (true, privileged);
        who
    };
    for (xn, user, kernel) in [(0u64, true, true), (1, true, false), (2, false, false), (3, false, true)] {
        let m = Bench::new();
        // Executable by everyone as far as stage 1 goes: not writable by user space.
        let (root, _) = m.nested(0, 0, 0x1000, AF | NG | EL0 | RO);
        m.map2(root, IPA_DATA, DATA, S2_RW | xn << 53);
        assert_eq!(m.read(&fetch(false), 0x1000, 1).is_ok(), user, "XN {xn}");
        assert_eq!(m.read(&fetch(true), 0x1000, 1).is_ok(), kernel, "XN {xn}");
    }
}

#[test]
fn stage2_invalidation_takes_nested_translations_and_those_of_stage2() {
    for command in [
        [VMID << 32 | 0x28, 0],
        [VMID << 32 | 0x2a, IPA_DATA],
        [VMID << 32 | 0x2a | 1 << 12, IPA_DATA | 1 << 10],
    ] {
        let m = Bench::new();
        let (root, _) = m.nested(0, 0, 0x1000, USER_RW);
        m.map2(root, IPA_DATA, DATA, S2_RW);
        m.ste(SID + 1, &[CONFIG_S2, 0, S2, root]);
        let other = Requester::new(DmaTag::untagged(StreamId(SID + 1)));
        m.put(DATA, &[1]);
        m.put(DATA + 0x1000, &[2]);
        assert_eq!(m.read(&process(), 0x1000, 1).unwrap(), [1]);
        assert_eq!(m.read(&other, IPA_DATA, 1).unwrap(), [1]);
        m.map2(root, IPA_DATA, DATA + 0x1000, S2_RW);
        m.command(command[0], command[1]);
        m.sync();
        assert_eq!(m.read(&process(), 0x1000, 1).unwrap(), [2], "{command:x?}");
        assert_eq!(m.read(&other, IPA_DATA, 1).unwrap(), [2], "{command:x?}");
    }
}

/// Stage 1 has a block of 2 MiB, stage 2 pages of 4 KiB: an invalidation of any address in the block means all.
#[test]
fn invalidation_of_a_block_takes_the_pages_that_stage2_made_of_it() {
    let m = Bench::new();
    let (root, tables) = m.nested(0, 0, 0x1000, USER_RW);
    m.map2(root, IPA_DATA + 0x3000, DATA, S2_RW);
    m.map2(root, 2 * IPA_DATA + 0x3000, DATA + 0x1000, S2_RW);
    m.put(DATA, &[1]);
    m.put(DATA + 0x1000, &[2]);
    m.put(tables + 0x2000, &[IPA_DATA | USER_RW | 1]);
    assert_eq!(m.read(&process(), 0x3000, 1).unwrap(), [1]);
    m.put(tables + 0x2000, &[(2 * IPA_DATA) | USER_RW | 1]);
    m.command(u64::from(ASID) << 48 | VMID << 32 | 0x12, 0x10_0000);
    m.sync();
    assert_eq!(m.read(&process(), 0x3000, 1).unwrap(), [2]);
}

#[test]
fn translations_of_other_virtual_machines_are_left_alone() {
    let m = Bench::new();
    let root = m.stage2_only(0);
    m.map2(root, 0x1000, DATA, S2_RW);
    m.read(&plain(), 0x1000, 1).unwrap();
    let walks = m.smmu.stats().walks;
    m.command((VMID + 1) << 32 | 0x28, 0);
    m.command((VMID + 1) << 32 | 0x2a, 0x1000);
    m.command(u64::from(ASID) << 48 | 0x11, 0);
    m.sync();
    m.read(&plain(), 0x1000, 1).unwrap();
    assert_eq!(m.smmu.stats().walks, walks);
}

/// Stream world EL2: STRW = 2, stage 1 alone.
#[test]
fn el2_has_one_table_and_one_level_of_privilege() {
    let m = Bench::new();
    let root = m.table(4096);
    // EPD0 and T1SZ mean nothing here.
    m.cd(PASID, &[CD_D0 | 1 << 14 | 0x3f << 16, root]);
    m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, 0xd6 | 2 << 30]);
    m.map(root, 0x1000, DATA, AF);
    assert!(m.write(&process(), 0x1000, &[1]).is_ok(), "AP[1] does not count");
    assert!(m.read(&process(), 0xffff_0000_0000_1000, 1).is_err());
    assert_eq!(m.events()[0][0] & 0xff, 0x10);
    // Its own commands invalidate it, EL1's don't have to.
    for command in [0x20, u64::from(ASID) << 48 | 0x22, 0x23] {
        m.read(&process(), 0x1000, 1).unwrap();
        m.map(root, 0x1000, 0, 0);
        m.put(m.pte(root, 0x1000), &[0]);
        m.command(command, 0x1000);
        m.sync();
        assert!(m.read(&process(), 0x1000, 1).is_err(), "{command:#x}");
        m.events();
        m.map(root, 0x1000, DATA, AF);
    }
}

#[test]
fn el2_with_e2h_has_asids_and_both_halves() {
    let m = Bench::reset(Features::default());
    m.set_up(4);
    m.w32(CR2, 3);
    m.enable(SMMUEN | EVENTQEN | CMDQEN);
    let root = m.table(4096);
    m.cd(PASID, &[CD_D0 & !(1 << 30) | 16 << 16 | 2 << 22, root, root]);
    m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, 0xd6 | 2 << 30]);
    m.map(root, 0x1000, DATA, USER_RW);
    assert!(m.read(&process(), 0xffff_0000_0000_1000, 1).is_ok());
    assert!(m.read(&process(), 0x1000, 1).is_ok());
    m.put(m.pte(root, 0x1000), &[0]);
    m.command(u64::from(ASID) << 48 | 0x21, 0);
    m.sync();
    assert!(m.read(&process(), 0x1000, 1).is_err());
}

#[test]
fn reserved_stream_world_is_a_bad_entry() {
    for strw in [1, 3] {
        let m = Bench::new();
        m.ste(SID, &[6 << 59 | CDTAB | 5 << 1 | 1, 0xd6 | strw << 30]);
        assert!(m.read(&plain(), 0x1000, 1).is_err());
        assert_eq!(m.events(), [record(EventType::C_BAD_STE, SID, None)]);
    }
}

/// What the endpoint of a stream with split-stage ATS is given, and what becomes of it.
#[test]
fn split_stage_request_gets_the_intermediate_address_and_its_accesses_go_through_stage2() {
    const SPLIT: u64 = 2 << 28;
    let m = Bench::new();
    let va = 0x7f00_0000_1000;
    let (root, _) = m.nested(0, 0, va, USER_RW);
    let stream = StreamId(SID);
    let request = |who: &Requester, no_write| {
        let address = Iova(va + 0x10);
        m.smmu.request_translation(&TranslationRequest { tag: who.tag, address, no_write })
    };
    m.map2(root, IPA_DATA, DATA, S2_RW);
    let [d0, _, d2, d3] = [0, 8, 16, 24].map(|at| m.dword(STRTAB + 64 * u64::from(SID) + at));
    m.ste(SID, &[d0, SPLIT | 0xd5, d2, d3]);
    // Without ATSCHK there would be no stage 2.
    assert_eq!(request(&process(), false), Err(AtsRefusal::UnsupportedRequest));
    assert_eq!(m.events()[0][0] & 0xff, 0x05);
    m.enable(SMMUEN | EVENTQEN | CMDQEN | ATSCHK);
    let granted = request(&process(), false).unwrap();
    assert_eq!((granted.address, granted.size_log2), (Pa(IPA_DATA), 12));
    assert!(granted.read && granted.write && !granted.execute);
    m.smmu.write_translated(stream, Pa(IPA_DATA + 8), &[0x5a; 8]).unwrap();
    assert_eq!(m.dword(DATA + 8), 0x5a5a_5a5a_5a5a_5a5a);
    let mut out = [0; 0x1000];
    m.smmu.read_translated(stream, Pa(IPA_DATA), &mut out).unwrap();
    assert_eq!(out[8..16], [0x5a; 8]);
    // The permissions are those of both stages, and stage 2 is asked each time.
    m.map2(root, IPA_DATA, DATA, S2_RW & !S2_WRITE);
    m.command(VMID << 32 | 0x2a, IPA_DATA);
    m.sync();
    assert!(!request(&process(), false).unwrap().write);
    assert_eq!(m.smmu.write_translated(stream, Pa(IPA_DATA), &[1]), aborted(IPA_DATA));
    m.smmu.read_translated(stream, Pa(IPA_DATA), &mut [0]).unwrap();
    let far = IPA_DATA + 0xff8;
    assert_eq!(m.smmu.read_translated(stream, Pa(far), &mut [0; 16]), aborted(IPA_DATA + 0x1000));
    assert_eq!(m.smmu.read_translated(stream, Pa(u64::MAX), &mut [0; 2]), aborted(u64::MAX));
    assert_eq!(
        m.events(),
        [
            stage2_record(EventType::F_PERMISSION, None, CLASS_IN, IPA_DATA, IPA_DATA),
            stage2_record(
                EventType::F_TRANSLATION,
                None,
                CLASS_IN | RNW,
                IPA_DATA + 0x1000,
                IPA_DATA + 0x1000
            ),
        ]
    );
    // Stage 1 bypassed: the address itself, with what stage 2 permits.
    let bypassed = TranslationRequest { tag: plain().tag, address: Iova(IPA_DATA), no_write: false };
    let granted = m.smmu.request_translation(&bypassed).unwrap();
    assert_eq!((granted.address, granted.size_log2, granted.write), (Pa(IPA_DATA), 12, false));
    // Translation off: not even with an address that would be physical.
    m.enable(EVENTQEN | CMDQEN | ATSCHK);
    assert_eq!(m.smmu.read_translated(stream, Pa(DATA), &mut [0]), aborted(DATA));
    assert_eq!(m.events()[0][0] & 0xff, 0x07);
}

/// A page that stage 2 lets be written and not read.
#[test]
fn request_for_what_can_only_be_written_is_granted_writing() {
    let m = Bench::new();
    let root = m.stage2_only(0);
    m.ste(SID, &[CONFIG_S2, EATS_FULL, S2, root]);
    m.map2(root, IPA_DATA, DATA, S2_RW & !S2_READ);
    let mut asked = TranslationRequest { tag: plain().tag, address: Iova(IPA_DATA), no_write: false };
    let granted = m.smmu.request_translation(&asked).unwrap();
    assert_eq!((granted.address, granted.read, granted.write), (Pa(DATA), false, true));
    asked.no_write = true;
    let granted = m.smmu.request_translation(&asked).unwrap();
    assert!(!granted.read && !granted.write);
}

/// 52-bit virtual, intermediate and physical addresses with the 64 KiB granule.
#[test]
fn addresses_of_52_bits_with_64_kib_granule() {
    let features = Features { output: crate::OutputSize::BITS_52, va52: true, ..Features::default() };
    let m = Bench::with(features);
    let root = m.table(1 << 16);
    // T0SZ 12, TG0 64 KiB, IPS 52.
    m.contexts(SID);
    m.cd(PASID, &[CD_D0 & !(7 << 32) & !0x3f | 6 << 32 | 12 | 1 << 6, root]);
    let va = 0xf_1234_5678_0000;
    m.map_at(Granule::K64, 52, 3, root, va, DATA | USER_RW | 3);
    m.put(DATA, &[0x77]);
    assert_eq!(m.read(&process(), va, 1).unwrap(), [0x77]);
    // Address bits 51:48 in bits 15:12, and a block of 4 TiB: no memory there, but no fault either.
    m.put(root + 8, &[0x5000 | USER_RW | 1]);
    assert!(m.read(&process(), 1 << 42, 1).is_err());
    assert_eq!(m.events(), [] as [Record; 0]);
    // A first table of two entries: its base has 64 bytes to itself, so bits below count for nothing.
    let small = m.table(64);
    m.put(small, &[DATA | USER_RW | 1, 0]);
    m.cd(PASID, &[CD_D0 & !(7 << 32) & !0x3f | 6 << 32 | 34 | 1 << 6, small | 0x30]);
    m.tlbi_asid(ASID);
    m.put(DATA & !0x1fff_ffff | 0x100_0000, &[0x33]);
    assert_eq!(m.read(&process(), 0x100_0000, 1).unwrap(), [0x33]);
    // Beyond an IPS of 48 bits.
    m.cd(PASID, &[CD_D0 & !0x3f | 12 | 1 << 6, root]);
    m.tlbi_asid(ASID);
    assert!(m.read(&process(), 1 << 42, 1).is_err());
    assert_eq!(m.events()[0][0] & 0xff, 0x11);
}
