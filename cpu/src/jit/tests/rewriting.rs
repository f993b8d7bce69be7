//! Code that changes while translations of it exist.

use hw::Pa;

use crate::testbed::{Bench, RAM, mmu_on_flat};
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
