//! Blocks, chaining, precise exceptions and self-modifying code.

use hw::Pa;

use crate::insn::{Features, Kind, decode};
use crate::testbed::{Bench, RAM, Tables, mmu_on, mmu_on_flat};
use crate::{Cpu, Exit};

/// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
const RET: u32 = 0xd65f_03c0;
const NOP: u32 = 0xd503_201f;
const ISB: u32 = 0xd503_3fdf;

/// MOVZ Xd, #imm.
const fn movz(rd: u32, imm: u32) -> u32 {
    0xd280_0000 | imm << 5 | rd
}

fn started(bench: &Bench, pc: u64) -> Cpu {
    let mut cpu = bench.cpu(0);
    cpu.set_boot_state(pc, 0);
    cpu
}

#[test]
fn loop_runs_through_links_to_its_end() {
    let bench = Bench::new(1);
    // mov x2, #0; mov x1, #1000; 1: add x2, x2, x1; subs x1, x1, #1; b.ne 1b
    bench.code(RAM, &[0xd280_0002, movz(1, 1000), 0x8b01_0042, 0xf100_0421, 0x54ff_ffc1]);
    bench.code(RAM + 20, &OFF);
    let mut cpu = started(&bench, RAM);

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!(cpu.state.x[2], 500_500);
}

#[test]
fn undefined_word_in_the_middle_of_a_block_is_taken_with_its_own_address() {
    let bench = Bench::new(1);
    bench.code(RAM, &[movz(1, 1), 0, movz(1, 2)]);
    // VBAR_EL1 + 0x200: synchronous from EL1h.
    bench.code(RAM + 0x1200, &OFF);
    let mut cpu = started(&bench, RAM);
    cpu.state.sys.vbar = RAM + 0x1000;

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!((cpu.state.sys.elr, cpu.state.sys.esr), (RAM + 4, 0x0200_0000));
    assert_eq!(cpu.state.x[1], 1);
}

#[test]
fn fault_in_the_middle_of_a_block_leaves_the_base_register_as_it_was() {
    let bench = Bench::new(1);
    // mov x1, #0x1000; ldr x2, [x1], #8 (a hole)
    bench.code(RAM, &[movz(1, 0x1000), 0xf840_8422]);
    bench.code(RAM + 0x1200, &OFF);
    let mut cpu = started(&bench, RAM);
    cpu.state.sys.vbar = RAM + 0x1000;

    cpu.run(None);

    assert_eq!((cpu.state.sys.elr, cpu.state.sys.far), (RAM + 4, 0x1000));
    assert_eq!((cpu.state.x[1], cpu.state.x[2]), (0x1000, 0));
}

#[test]
fn misaligned_branch_target_is_a_pc_alignment_fault() {
    let bench = Bench::new(1);
    // mov x1, #2; br x1
    bench.code(RAM, &[movz(1, 2), 0xd61f_0020]);
    bench.code(RAM + 0x1200, &OFF);
    let mut cpu = started(&bench, RAM);
    cpu.state.sys.vbar = RAM + 0x1000;

    cpu.run(None);

    assert_eq!((cpu.state.sys.elr, cpu.state.sys.esr >> 26, cpu.state.sys.far), (2, 0x22, 2));
}

/// A function is called, its first word is overwritten with the one at +16, and it is called again.
const REWRITE: [u32; 13] = [
    0x1000_01a1, // adr x1, function
    0xb940_1022, // ldr w2, [x1, #16]
    0x9400_000b, // bl function
    0xaa03_03f4, // mov x20, x3
    0xb900_0022, // str w2, [x1]
    0xd50b_7b21, // dc cvau, x1
    0xd503_3b9f, // dsb ish
    0xd50b_7521, // ic ivau, x1
    0xd503_3b9f, // dsb ish
    ISB,
    0x9400_0003, // bl function
    0xaa03_03f5, // mov x21, x3
    0x1400_0006, // b past the function
];

#[test]
fn illegal_state_comes_after_the_alignment_of_the_pc_and_after_the_fetch() {
    // pc, EC, FAR.
    let cases =
        [("misaligned", RAM + 2, 0x22, RAM + 2), ("a hole", 0x1000, 0x21, 0x1000), ("code", RAM, 0x0e, 0)];
    for (name, pc, class, far) in cases {
        let bench = Bench::new(1);
        bench.code(RAM, &[NOP]);
        bench.code(RAM + 0x1200, &OFF);
        let mut cpu = started(&bench, pc);
        cpu.state.sys.vbar = RAM + 0x1000;
        cpu.set_pstate(0x10_03c5);

        cpu.run(None);

        assert_eq!((cpu.state.sys.esr >> 26, cpu.state.sys.far), (class, far), "{name}");
        assert_eq!((cpu.state.sys.elr, cpu.state.sys.spsr), (pc, 0x10_03c5), "{name}");
    }
}

#[test]
fn code_rewritten_by_the_guest_itself_runs_in_its_new_form() {
    let bench = Bench::new(1);
    bench.code(RAM, &REWRITE);
    bench.code(RAM + 0x34, &[movz(3, 1), RET, NOP, NOP, movz(3, 2)]);
    bench.code(RAM + 0x48, &OFF);
    let mut cpu = started(&bench, RAM);

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!((cpu.state.x[20], cpu.state.x[21]), (1, 2));
}

#[test]
fn loop_that_rewrites_its_own_instruction_sees_each_version() {
    let bench = Bench::new(1);
    // Each round adds one to the immediate of `patched`: x3 is the sum of 0..10.
    bench.code(
        RAM,
        &[
            0x1000_0061, // adr x1, patched
            movz(5, 10), // rounds
            movz(3, 0),
            movz(4, 0),  // patched: movz x4, #n
            0x8b04_0063, // add x3, x3, x4
            0xb940_0022, // ldr w2, [x1]
            0x1100_8042, // add w2, w2, #32 (imm + 1)
            0xb900_0022, // str w2, [x1]
            0xd503_3b9f, // dsb ish
            ISB,
            0xf100_04a5, // subs x5, x5, #1
            0x54ff_ff01, // b.ne patched
        ],
    );
    bench.code(RAM + 0x30, &OFF);
    let mut cpu = started(&bench, RAM);

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!(cpu.state.x[3], 45);
}

#[test]
fn code_overwritten_by_a_device_is_decoded_again() {
    let bench = Bench::new(1);
    bench.code(RAM, &[movz(3, 1)]);
    bench.code(RAM + 4, &OFF);
    let mut cpu = started(&bench, RAM);
    assert_eq!(cpu.run(None), Exit::SystemOff);
    assert_eq!(cpu.state.x[3], 1);
    assert!(bench.cluster.code_pages.is_code(Pa(RAM)));

    bench.ram.write(Pa(RAM), &movz(3, 2).to_le_bytes()).unwrap();
    bench.cluster.resume();
    cpu.set_boot_state(RAM, 0);
    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!(cpu.state.x[3], 2);
}

#[test]
fn vcpu_64_beyond_another_keeps_its_own_share_of_who_writes_to_a_page() {
    const PAGE: u64 = RAM + 0x10_0000;
    let bench = Bench::new(66);
    let [mut first, mut second, mut runner] = [0, 64, 1].map(|index| bench.cpu(index));
    let asleep = |cpu: &Cpu| cpu.cluster.signal(cpu.index).fall_asleep();
    let awake = |cpu: &mut Cpu| {
        cpu.cluster.signal(cpu.index).get_up();
        cpu.serve_requests();
    };
    let runs = |cpu: &mut Cpu| {
        cpu.set_boot_state(PAGE, 0);
        mmu_on_flat(cpu);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        bench.cluster.resume();
        cpu.state.x[3]
    };
    let rewrite = |cpu: &mut Cpu, value| {
        cpu.store::<u32>(PAGE, movz(3, value)).unwrap();
        cpu.complete_requests();
    };
    bench.code(PAGE, &[movz(3, 1)]);
    bench.code(PAGE + 4, &OFF);
    for cpu in [&mut first, &mut second] {
        mmu_on_flat(cpu);
    }
    // The first writes fast, and sleeps while the page becomes code and is written to by the second.
    first.store::<u64>(PAGE + 0x800, 7).unwrap();
    asleep(&first);
    asleep(&second);
    assert_eq!(runs(&mut runner), 1);
    awake(&mut second);
    rewrite(&mut second, 2);
    second.store::<u64>(PAGE + 0x800, 8).unwrap();
    // Then it serves the old request; the second's path to the page is still there.
    awake(&mut first);
    asleep(&first);
    asleep(&second);
    assert_eq!(runs(&mut runner), 2);
    awake(&mut second);
    rewrite(&mut second, 3);
    asleep(&second);
    assert_eq!(runs(&mut runner), 3);
}

#[test]
fn same_address_under_another_table_runs_other_code() {
    const VA: u64 = 0x10_0000;
    let bench = Bench::new(1);
    let pages = [RAM + 0x10_0000, RAM + 0x20_0000];
    let roots: Vec<u64> = (0..2)
        .map(|n| {
            let mut tables = Tables::new(&bench.ram, RAM + 0x80_0000 + n * 0x10_0000);
            tables.page(VA, pages[n as usize], 0);
            for page in 0..2 {
                tables.page(RAM + 0x1000 * page, RAM + 0x1000 * page, 0);
            }
            tables.root
        })
        .collect();
    bench.code(pages[0], &[movz(3, 1), RET]);
    bench.code(pages[1], &[movz(3, 2), RET]);
    bench.code(
        RAM,
        &[
            0xd63f_0020, // blr x1
            0xaa03_03f4, // mov x20, x3
            0xd518_2002, // msr ttbr0_el1, x2
            ISB,
            0xd508_871f, // tlbi vmalle1
            0xd503_3b9f, // dsb ish
            ISB,
            0xd63f_0020, // blr x1
            0xaa03_03f5, // mov x21, x3
        ],
    );
    bench.code(RAM + 0x24, &OFF);
    let mut cpu = started(&bench, RAM);
    (cpu.state.x[1], cpu.state.x[2]) = (VA, roots[1]);
    mmu_on(&mut cpu, roots[0], 0, 1);

    assert_eq!(cpu.run(None), Exit::SystemOff);

    assert_eq!((cpu.state.x[20], cpu.state.x[21]), (1, 2));
}

#[test]
fn block_that_reaches_the_end_of_its_page_goes_on_in_the_next() {
    let bench = Bench::new(1);
    bench.code(RAM + 0xff8, &[movz(3, 3), 0x9100_0463]); // mov x3, #3; add x3, x3, #1
    bench.code(RAM + 0x1000, &[0x9100_0463]);
    bench.code(RAM + 0x1004, &OFF);
    let mut cpu = started(&bench, RAM + 0xff8);

    cpu.run(None);

    assert_eq!(cpu.state.x[3], 5);
}

#[test]
fn arena_that_fills_up_is_emptied_and_the_guest_goes_on() {
    // A chain of two-instruction blocks, longer than the arena holds; run twice.
    let bench = Bench::new(1);
    let count = 120_000u64;
    let mut words = Vec::new();
    for _ in 0..count {
        words.extend([0x9100_0463, 0x1400_0001]); // add x3, x3, #1; b next
    }
    words.extend(OFF);
    bench.code(RAM, &words);
    let mut cpu = started(&bench, RAM);

    for _ in 0..2 {
        assert_eq!(cpu.run(None), Exit::SystemOff);
        assert_eq!(cpu.state.x[3], count);
        bench.cluster.resume();
        cpu.set_boot_state(RAM, 0);
    }
}

/// Random words without branches and waits: each block ends in an exception, whose vector powers off.
#[test]
fn random_words_never_panic() {
    let mut seed = 0x1234_5678u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed ^ seed >> 15
    };
    let bench = Bench::new(1);
    for vector in 0..16 {
        bench.code(RAM + 0x1000 + 0x80 * vector, &OFF);
    }
    for _ in 0..2_000 {
        let mut words = Vec::new();
        while words.len() < 16 {
            let word = next();
            let insn = decode(word, 0, Features::default(), false);
            let name = insn.op.row().map_or("", |row| row.name);
            let leaves = matches!(insn.op.kind(), Kind::Branch | Kind::Indirect | Kind::System);
            if !leaves && name != "wfe" {
                words.push(word);
            }
        }
        words.push(0);
        bench.code(RAM + 0x4000, &words);
        bench.cluster.resume();
        let mut cpu = started(&bench, RAM + 0x4000);
        cpu.state.sys.vbar = RAM + 0x1000;
        cpu.state.sys.cpacr = 3 << 20;
        for n in 0..31 {
            // Some registers point into RAM.
            cpu.state.x[n] =
                if n % 2 == 0 { RAM + 0x8000 + u64::from(next() & 0x7ff8) } else { u64::from(next()) << 20 };
        }
        assert_eq!(cpu.run(None), Exit::SystemOff);
    }
}
