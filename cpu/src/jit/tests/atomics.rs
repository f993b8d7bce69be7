//! Exclusives and atomics: against the handlers, with the monitor that both share, and between vCPUs.

use hw::Pa;

use super::litmus::{TIERS, X, run};
use super::{CASE_BYTES, DATA, DATA_BYTES, OFF, Start, Twins, compare_rows};
use crate::insn::{Class, Features, Memory, ROWS, Row};
use crate::mem::Invalidation;
use crate::testbed::{Bench, RAM, Tables, mmu_on, mmu_on_flat, pte};
use crate::{Cpu, Exit, Tier};

#[test]
fn atomics_and_ordered_accesses_do_what_the_interpreter_does() {
    compare_rows(0xa70, 100, |row| matches!(row.class, Class::Atomic | Class::Ordered));
}

/// A word of an exclusive: base `rn`, values x3 and x4 to load, x5 and x6 to store, the status to x7.
fn exclusive(row: &Row, rn: u32) -> u32 {
    let loads = row.name.starts_with("ld");
    let mut word = row.value;
    for field in row.fields {
        let value = match field.name {
            "rn" => rn,
            "rs" if loads => 31,
            "rs" => 7,
            "rt" => {
                if loads {
                    3
                } else {
                    5
                }
            }
            "rt2" if !row.name.contains("xp") => 31,
            "rt2" => {
                if loads {
                    4
                } else {
                    6
                }
            }
            _ => 0,
        };
        word = field.set(word, value);
    }
    word
}

#[test]
fn exclusive_stores_do_what_the_interpreter_does_whatever_happens_after_the_load() {
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| row.memory == Memory::Exclusive && Features::default().has(row.feature))
        .collect();
    let (loads, stores): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.name.starts_with("ld"));
    assert!(loads.len() == 12 && stores.len() == 12);
    // STR X8, [X1]; CLREX; LDXR X9, [X2]; STXR W9, X8, [X2].
    let between: [&[u32]; 5] = [&[], &[0xf900_0028], &[0xd503_3f5f], &[0xc85f_7c49], &[0xc809_7c48]];
    let mut twins = Twins::new(0xe7c1);
    for (load, store) in loads.iter().flat_map(|load| stores.iter().map(move |store| (load, store))) {
        for at in [DATA + 0x840, DATA + 0x848, DATA + 0x844, DATA + 0x841, DATA + DATA_BYTES] {
            for (n, between) in (0..).zip(between) {
                let mut words = vec![exclusive(load, 1)];
                words.extend(between);
                words.push(exclusive(store, if n == 0 && at & 0x40 == 0 { 2 } else { 1 }));
                let case = RAM + CASE_BYTES * twins.cases;
                twins.cases += 1;
                let mut start = Start::random(&mut twins.random);
                (start.x[1], start.x[2]) = (at, at + 0x40);
                twins.compare_from(case, &words, &start);
            }
        }
    }
}

/// One vCPU that has its data at x1, x2 and x3 pages apart, with the first page's translation known for stores.
fn translated(bench: &Bench, words: &[u32]) -> Cpu {
    bench.code(RAM, words);
    bench.code(RAM + 4 * words.len() as u64, &OFF);
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    mmu_on_flat(&mut cpu);
    cpu.state.x[1] = RAM + 0x80_0000;
    cpu
}

#[test]
fn atomics_exclusives_and_barriers_that_the_tlb_serves_call_no_handler() {
    let features = Features::default();
    let rows = |class| ROWS.iter().filter(move |row| row.class == class && features.has(row.feature));
    // STR X0, [X1] first.
    let mut words = vec![0xf900_0020];
    for row in rows(Class::Atomic).chain(rows(Class::Ordered)).chain(rows(Class::Exclusive)) {
        words.push(row.fields.iter().fold(row.value, |word, field| match field.name {
            "rn" => field.set(word, 1),
            "rs" => field.set(word, 4),
            "rt" => field.set(word, 6),
            "rt2" => field.set(word, 8),
            _ => word,
        }));
    }
    // CLREX; DSB SY; DMB SY; DMB LD; DMB ST.
    words.extend([0xd503_3f5f, 0xd503_3f9f, 0xd503_3fbf, 0xd503_3dbf, 0xd503_3ebf]);
    let bench = Bench::with_tier(1, Tier::Translated);
    let mut cpu = translated(&bench, &words);

    assert_eq!(cpu.run(None), Exit::SystemOff);

    for row in ROWS {
        let calls = cpu.handler_calls[row.op as usize];
        let concerned =
            matches!(row.class, Class::Atomic | Class::Ordered | Class::Exclusive) || row.name == "clrex";
        assert!(calls == 0 || !concerned && !row.name.starts_with("d"), "{}: {calls} calls", row.name);
    }
}

#[test]
fn exclusive_store_fails_once_its_address_leads_elsewhere() {
    const VA: u64 = RAM + 0xa0_0000;
    for tier in TIERS {
        let bench = Bench::with_tier(1, tier);
        // loop: LDXR X3, [X1]; ADD X3, X3, #1; STXR W7, X3, [X1]; SUBS X5, X5, #1; B.NE loop; LDXR X3, [X1]
        let words = [0xc85f_7c23, 0x9100_0463, 0xc807_7c23, 0xf100_04a5, 0x54ff_ff81, 0xc85f_7c23];
        bench.code(RAM, &words);
        bench.code(RAM + 0x18, &OFF);
        bench.code(RAM + 0x100, &[0xc807_7c23]);
        bench.code(RAM + 0x104, &OFF);
        let mut tables = Tables::new(&bench.ram, RAM + 0xe0_0000);
        tables.set(RAM, 2, RAM | pte::BLOCK | pte::AF);
        tables.page(VA, RAM + 0x80_0000, 0);
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        mmu_on(&mut cpu, tables.root, tables.root, 0);
        (cpu.state.x[1], cpu.state.x[5]) = (VA, 2000);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        assert_eq!((cpu.state.x[3], cpu.state.x[7]), (2000, 0), "{tier:?}");

        // The other page holds the same value.
        bench.ram.store_u64(Pa(RAM + 0x81_0000), 2000).unwrap();
        tables.page(VA, RAM + 0x81_0000, 0);
        cpu.invalidate(Invalidation::All);
        bench.cluster.resume();
        (cpu.state.pc, cpu.state.x[3]) = (RAM + 0x100, 7);
        cpu.store::<u64>(VA + 8, 0).unwrap();
        assert_eq!(cpu.run(None), Exit::SystemOff);

        assert_eq!(cpu.state.x[7], 1, "{tier:?}");
        for page in [RAM + 0x80_0000, RAM + 0x81_0000] {
            assert_eq!(bench.ram.load_u64(Pa(page)), Ok(2000), "{tier:?}");
        }
    }
}

#[test]
fn counter_that_vcpus_share_has_each_value_once_whatever_they_count_with() {
    // Each counts at x1, and what was there goes to x3. x7 is 1.
    let forms: [&[u32]; 7] = [
        // LDADDAL X7, X3, [X1]
        &[0xf8e7_0023],
        // LDXR X3, [X1]; ADD X11, X3, #1; STXR W12, X11, [X1]; CBNZ W12
        &[0xc85f_7c23, 0x9100_046b, 0xc80c_7c2b, 0x35ff_ffac],
        // LDAXR X3, [X1]; ADD X11, X3, #1; STLXR W12, X11, [X1]; CBNZ W12
        &[0xc85f_fc23, 0x9100_046b, 0xc80c_fc2b, 0x35ff_ffac],
        // LDR X3, [X1]; MOV X11, X3; ADD X13, X3, #1; CASAL X11, X13, [X1]; EOR X12, X11, X3; CBNZ X12
        &[0xf940_0023, 0xaa03_03eb, 0x9100_046d, 0xc8eb_fc2d, 0xca03_016c, 0xb5ff_ff6c],
        // LDXP X3, X4, [X1]; ADD X11, X3, #1; STXP W12, X11, X4, [X1]; CBNZ W12
        &[0xc87f_1023, 0x9100_046b, 0xc82c_102b, 0x35ff_ffac],
        // LDR X12, [X1]; LDR X13, [X1, #8]; ADD X14, X12, #1; MOV X15, X13; MOV X3, X12;
        // CASPAL X12, X13, X14, X15, [X1]; EOR X12, X12, X3; CBNZ X12
        &[
            0xf940_002c,
            0xf940_042d,
            0x9100_058e,
            0xaa0d_03ef,
            0xaa0c_03e3,
            0x486c_fc2e,
            0xca03_018c,
            0xb5ff_ff2c,
        ],
        // LDR W3, [X1]; MOV W12, W3; MOV W13, #0; ADD W14, W3, #1; MOV W15, #0;
        // CASPAL W12, W13, W14, W15, [X1]; EOR W12, W12, W3; CBNZ W12
        &[
            0xb940_0023,
            0x2a03_03ec,
            0x5280_000d,
            0x1100_046e,
            0x5280_000f,
            0x086c_fc2e,
            0x4a03_018c,
            0x35ff_ff2c,
        ],
    ];
    for tier in TIERS {
        let mixed = [forms[0], forms[1], forms[3], forms[5]];
        let teams = forms.iter().map(|form| vec![*form; 3]).chain([mixed.to_vec()]);
        for team in teams {
            let Some(results) = run(tier, &team) else { continue };
            let mut values: Vec<u64> = results.iter().flat_map(|[found, _]| found.clone()).collect();
            values.sort_unstable();
            assert!(values.iter().copied().eq(0..values.len() as u64), "{tier:?}: {:x?} at {X:#x}", team[0]);
        }
    }
}
