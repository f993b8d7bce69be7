//! Code that changes while translations of it exist.

use hw::Pa;

use crate::testbed::{Bench, RAM, Tables, mmu_on, mmu_on_flat, pte};
use crate::{Cpu, Exit, Tier};

const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
const ISB: u32 = 0xd503_3fdf;

fn started(bench: &Bench) -> Cpu {
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(RAM, 0);
    cpu
}

#[test]
fn guest_that_rewrites_itself_again_and_again_is_soon_interpreted() {
    for tier in [Tier::Auto, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        bench.code(
            RAM,
            &[
                0x1000_0061, // adr x1, patched
                0xd282_7105, // mov x5, #5000
                0xd280_0003, // mov x3, #0
                0xd280_0004, // patched: mov x4, #n
                0x8b04_0063, // add x3, x3, x4
                0xb940_0022, // ldr w2, [x1]
                0x1100_8042, // add w2, w2, #32 (n + 1)
                0xb900_0022, // str w2, [x1]
                ISB,
                0xf100_04a5, // subs x5, x5, #1
                0x54ff_ff21, // b.ne patched
            ],
        );
        bench.code(RAM + 0x2c, &OFF);
        let mut cpu = started(&bench);

        assert_eq!(cpu.run(None), Exit::SystemOff);

        assert_eq!(cpu.state.x[3], 5000 * 4999 / 2);
        let made = cpu.jit.as_ref().unwrap().starts.len();
        assert!(made < 100, "{tier:?}: {made} translations");
    }
}

#[test]
fn data_in_a_page_of_code_is_written_and_read_without_an_end_to_the_code() {
    // Stores, pairs and atomics to the same 64 bytes, in the page of the loop but behind it.
    let words = [
        0x1000_2002, // adr x2, data
        0xd28f_a005, // mov x5, #32000
        0xf900_0045, // loop: str x5, [x2]
        0x7900_1045, // strh w5, [x2, #8]
        0xa901_1445, // stp x5, x5, [x2, #16]
        0xad01_0440, // stp q0, q1, [x2, #32]
        0xf860_0046, // ldaddl x0, x6, [x2]
        0xf100_04a5, // subs x5, x5, #1
        0x54ff_ff41, // b.ne loop
    ];
    for tier in [Tier::Interpreter, Tier::Auto, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        bench.code(RAM, &words);
        bench.code(RAM + 0x24, &OFF);
        let mut cpu = started(&bench);
        mmu_on_flat(&mut cpu);
        cpu.state.sys.cpacr = 3 << 20;
        cpu.state.x[0] = 0x100;
        (cpu.state.v[0], cpu.state.v[1]) = (1 << 64 | 2, 3 << 64 | 4);

        assert_eq!(cpu.run(None), Exit::SystemOff);

        let data: Vec<u64> = (0..8).map(|n| bench.ram.load_u64(Pa(RAM + 0x400 + 8 * n)).unwrap()).collect();
        assert_eq!(data, [0x101, 1, 1, 1, 2, 1, 4, 3], "{tier:?}");
        assert_eq!(cpu.state.x[6], 1, "{tier:?}");
        assert_eq!(cpu.counts.stale, 0, "{tier:?}");
        assert!(bench.cluster.code_pages.is_code(Pa(RAM)), "{tier:?}");
    }
}

#[test]
fn store_into_a_page_of_code_that_permissions_forbid_faults() {
    const VA: u64 = RAM + 0x60_0000;
    for tier in [Tier::Interpreter, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        // A page that EL1 may read and run and not write, from which code has run: `svc`'s vector is the way out.
        bench.code(RAM + 0x1000, &[0xf940_0023, 0xf900_0025, 0xd503_201f]); // ldr x3, [x1]; str x5, [x1]
        bench.code(RAM + 0x2200, &OFF);
        let mut tables = Tables::new(&bench.ram, RAM + 0xe0_0000);
        tables.set(RAM, 2, RAM | pte::BLOCK | pte::AF);
        tables.page(VA, RAM + 0x1000, pte::READ_ONLY);
        let mut cpu = started(&bench);
        mmu_on(&mut cpu, tables.root, tables.root, 0);
        cpu.state.sys.vbar = RAM + 0x2000;
        (cpu.state.pc, cpu.state.x[1], cpu.state.x[5]) = (VA, VA + 0x800, 7);

        assert_eq!(cpu.run(None), Exit::SystemOff);

        assert_eq!((cpu.state.sys.elr, cpu.state.sys.far), (VA + 4, VA + 0x800), "{tier:?}");
        assert_eq!(bench.ram.load_u64(Pa(RAM + 0x1800)), Ok(0), "{tier:?}");
    }
}

#[test]
fn flags_that_only_rewritten_code_reads_are_there_for_it() {
    const TARGET: u64 = RAM + 0x200;
    let bench = Bench::with_tier(1, Tier::Translated);
    // The comparison's flags are overwritten at the target, in another 64 bytes of the page, until that is rewritten.
    bench.code(
        RAM,
        &[
            0xeb02_003f, // compare: cmp x1, x2
            0x1400_007f, // b target
        ],
    );
    bench.code(
        TARGET,
        &[
            0xeb06_00bf, // target: cmp x5, x6; then: cset x7, eq
            0xb500_0068, // cbnz x8, off
            0xd280_0028, // mov x8, #1
            0x1400_0040, // b rewrite
        ],
    );
    bench.code(TARGET + 0x10, &OFF);
    bench.code(
        TARGET + 0x10c,
        &[
            0xb900_0149, // rewrite: str w9, [x10]
            ISB,
            0x17ff_ff3b, // b compare
        ],
    );
    let mut cpu = started(&bench);
    (cpu.state.x[1], cpu.state.x[2], cpu.state.x[5], cpu.state.x[6]) = (7, 7, 1, 2);
    (cpu.state.x[9], cpu.state.x[10]) = (0x9a9f_17e7, TARGET);

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!(cpu.state.x[7], 1);
}

#[test]
fn guest_that_waits_in_a_loop_for_a_device_to_rewrite_it_goes_on() {
    for tier in [Tier::Auto, Tier::Translated] {
        let bench = Bench::with_tier(1, tier);
        bench.code(RAM, &[ISB, 0x9400_03ff, 0xf100_047f, 0x54ff_ffa1]); // isb; bl function; cmp x3, #1; b.ne
        bench.code(RAM + 0x10, &OFF);
        bench.code(RAM + 0x1000, &[0xd280_0003, 0xd65f_03c0]); // function: mov x3, #0; ret
        let mut cpu = started(&bench);
        let ram = std::sync::Arc::clone(&bench.ram);
        let guest = std::thread::spawn(move || {
            let exit = cpu.run(None);
            (exit, cpu.state.x[3])
        });
        while !bench.cluster.code_pages.is_code(Pa(RAM + 0x1000)) {
            std::thread::yield_now();
        }
        ram.write(Pa(RAM + 0x1000), &0xd280_0023u32.to_le_bytes()).unwrap();

        assert_eq!(guest.join().unwrap(), (Exit::SystemOff, 1));
    }
}

#[test]
fn translations_that_fill_the_arena_are_made_anew() {
    // So many vCPUs that each has little memory.
    let bench = Bench::with_tier(128, Tier::Translated);
    const COUNT: u64 = 60_000;
    // add x3, x3, x4 with stores, which are long; b next
    let words: Vec<u32> =
        (0..COUNT).flat_map(|_| [0x9100_0463, 0xf800_8444, 0xf800_8444, 0x1400_0001]).chain(OFF).collect();
    bench.code(RAM, &words);
    let mut cpu = started(&bench);
    for _ in 0..2 {
        cpu.state.x[2] = RAM + 0x80_0000;
        assert_eq!(cpu.run(None), Exit::SystemOff);
        assert_eq!(cpu.state.x[3], COUNT);
        bench.cluster.resume();
        cpu.set_boot_state(RAM, 0);
    }
    assert!(cpu.code.emptied > 0);
}

/// A loop that stores 4000 times to x2, long enough to become a region.
fn storing_loop(bench: &Bench) -> Cpu {
    bench.code(
        RAM,
        &[
            0xd281_f405, // mov x5, #4000
            0xf900_0045, // loop: str x5, [x2]
            0xf100_04a5, // subs x5, x5, #1
            0x54ff_ffc1, // b.ne loop
        ],
    );
    bench.code(RAM + 0x10, &OFF);
    let mut cpu = started(bench);
    mmu_on_flat(&mut cpu);
    cpu.state.x[2] = RAM + 0x80_0000;
    assert_eq!(cpu.run(None), Exit::SystemOff);
    cpu
}

fn sites_that_remember(cpu: &Cpu) -> usize {
    cpu.mem.tlb.sites.iter().filter(|site| site.limit != 0).count()
}

#[test]
fn page_that_an_instruction_remembers_is_forgotten_with_fast_stores_and_with_the_instruction() {
    let bench = Bench::with_tier(1, Tier::Auto);
    let mut cpu = storing_loop(&bench);
    assert!(sites_that_remember(&cpu) > 0);
    cpu.protect_all();
    assert_eq!(sites_that_remember(&cpu), 0);

    let bench = Bench::with_tier(1, Tier::Auto);
    let mut cpu = storing_loop(&bench);
    cpu.empty_code();
    assert_eq!(sites_that_remember(&cpu), 0);
}
