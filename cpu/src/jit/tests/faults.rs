//! Faults in the middle of translations: every kind of memory instruction, at every place of a block, to every kind of
//! place in memory, with values that are nowhere but in host registers.

use std::sync::Arc;

use hw::Pa;

use crate::insn::{Memory, ROWS, Row};
use crate::state::Flags;
use crate::state::SysRegs;
use crate::testbed::{Bench, DEVICE, RAM, RAM_BYTES, Tables, mmu_on, mmu_on_flat, pte};
use crate::{Cpu, Exit, Features, Tier};

/// MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
const CODE: u64 = RAM + 0x10_0000;
const DATA: u64 = RAM + 0x2_0000;
const VECTORS: u64 = RAM + 0x1000;
/// The last byte of RAM but one: what starts here leaves RAM.
const EDGE: u64 = RAM + RAM_BYTES - 2;

/// What a program leaves: its flags are in SPSR_EL1, because it ends with an exception.
#[derive(Debug, PartialEq)]
struct Outcome {
    x: Vec<u64>,
    v: [u128; 32],
    fpsr: u32,
    sys: SysRegs,
    data: Vec<u8>,
}

/// A vCPU that runs one program after the other, each at addresses of its own.
struct Machine {
    bench: Bench,
    cpu: Cpu,
    next: u64,
    map: fn(&mut Cpu),
}

/// Three pages in a row, of which each has another physical page than its neighbours would have it.
const SCATTERED: u64 = 0x8000_0000;
/// What they are made of.
const PAGES: u64 = RAM + 0x3_0000;
const PAGES_BYTES: usize = 0x3000;

/// RAM at its own address, and [`SCATTERED`].
fn mmu_on_scattered(cpu: &mut Cpu) {
    let ram = Arc::clone(cpu.cluster.host.ram());
    let mut tables = Tables::new(&ram, RAM + 0xff_0000);
    tables.set(RAM, 1, RAM | pte::BLOCK | pte::AF);
    for (page, place) in [2, 0, 1].into_iter().enumerate() {
        tables.page(SCATTERED + 0x1000 * page as u64, PAGES + 0x1000 * place, 0);
    }
    mmu_on(cpu, tables.root, 0, 1);
}

impl Machine {
    fn new(tier: Tier, map: fn(&mut Cpu)) -> Self {
        let bench = Bench::with_tier(1, tier);
        for vector in 0..16 {
            bench.code(VECTORS + 0x80 * vector, &OFF);
        }
        let cpu = bench.cpu(0);
        Self { bench, cpu, next: CODE, map }
    }

    fn run(&mut self, code: &[u32], base: u64, index: u64) -> Outcome {
        let Self { bench, cpu, next, map } = self;
        bench.code(*next, code);
        bench.code(*next + 4 * code.len() as u64, &OFF);
        let pattern: Vec<u8> = (0..0x300).map(|n| n as u8 ^ 0x5a).collect();
        bench.ram.write(Pa(DATA - 0x100), &pattern).unwrap();
        let pages: Vec<u8> = (0..PAGES_BYTES).map(|n| ((n * 31) >> 3) as u8).collect();
        bench.ram.write(Pa(PAGES), &pages).unwrap();
        bench.cluster.resume();
        cpu.set_boot_state(*next, 0);
        map(cpu);
        cpu.state.sys.vbar = VECTORS;
        cpu.state.sys.cpacr = 3 << 20;
        cpu.state.fpsr = 0;
        for n in 0..32 {
            cpu.state.x[n as usize] = 0x0101_0101_0101_0101 * n;
            cpu.state.v[n as usize] =
                0x0123_4567_89ab_cdef_0011_2233_4455_6677 ^ u128::from(n) << 64 | u128::from(n);
        }
        (cpu.state.x[1], cpu.state.x[2]) = (base, index);
        cpu.state.flags = Flags::from_nzcv(0);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        let mut data = vec![0; 0x300];
        bench.ram.read(Pa(DATA - 0x100), &mut data).unwrap();
        let mut pages = vec![0; PAGES_BYTES];
        bench.ram.read(Pa(PAGES), &mut pages).unwrap();
        data.extend(pages);
        let sys = cpu.state.sys.clone();
        *next += (4 * (code.len() + OFF.len()) as u64).next_multiple_of(64);
        Outcome { x: cpu.state.x[..32].to_vec(), v: cpu.state.v, fpsr: cpu.state.fpsr, sys, data }
    }
}

/// A word of a row: base x1, index x2, other registers from x8 and v8 on, and offsets that are small.
fn word(row: &Row) -> u32 {
    let mut word = row.value;
    for field in row.fields {
        let value = match field.name {
            "rn" => 1,
            "rm" => 2,
            "rt" | "rd" => 8,
            "rt2" | "ra" => 10,
            "rs" => 12,
            "imm9" => 0x10,
            "imm7" | "imm12" => 2,
            _ => 0,
        };
        word = field.set(word, value);
    }
    word
}

/// ADDS Xd, Xd, #1 and ADD Vd.16B, Vd.16B, Vd.16B: make registers and flags differ from their values in memory. Those behind
/// an instruction overwrite the flags of those before it.
fn fillers(count: u32) -> Vec<u32> {
    (0..count)
        .map(|n| {
            if n % 2 == 0 {
                0xb100_0400 | ((8 + n / 2 % 8) * 0x21)
            } else {
                0x4e20_8400 | ((8 + n / 2 % 8) * 0x1_0021)
            }
        })
        .collect()
}

#[test]
fn every_memory_instruction_at_every_place_of_a_block_faults_or_not_as_in_the_interpreter() {
    const PLACES: [u32; 3] = [0, 7, 40];
    let rows = ROWS.iter().filter(|row| {
        !matches!(row.memory, Memory::None | Memory::Maintenance) && Features::default().has(row.feature)
    });
    let (mut interpreter, mut translated) =
        (Machine::new(Tier::Interpreter, mmu_on_flat), Machine::new(Tier::Translated, mmu_on_flat));
    let mut seen = 0;
    for row in rows {
        for base in [DATA + 0x10, DATA + 0x13, EDGE, 0x1000, DEVICE] {
            for place in PLACES {
                let mut code = fillers(place);
                code.push(word(row));
                code.extend(fillers(6));
                let expected = interpreter.run(&code, base, 8);
                let name = row.name;
                assert_eq!(translated.run(&code, base, 8), expected, "{name} at {base:#x}, place {place}");
                seen += 1;
            }
        }
    }
    assert!(seen > 1000, "{seen} cases");
}

/// In a loop, each access remembers its last page: here it goes from the middle page, byte by byte, to the one before.
#[test]
fn every_memory_instruction_in_a_loop_that_crosses_pages_does_what_the_interpreter_does() {
    let rows = ROWS.iter().filter(|row| {
        !matches!(row.memory, Memory::None | Memory::Maintenance) && Features::default().has(row.feature)
    });
    let mut interpreter = Machine::new(Tier::Interpreter, mmu_on_scattered);
    let mut translated = Machine::new(Tier::Translated, mmu_on_scattered);
    let mut regions = 0;
    for row in rows {
        // Byte by byte, and with every alignment that an access can have.
        for step in [1, 4, 16] {
            let code = [
                0xaa15_03e1,              // loop: mov x1, x21
                word(row),                // of x1
                0xd100_02b5 | step << 10, // sub x21, x21, #step
                0xd100_0694,              // sub x20, x20, #1
                0xb5ff_ff94,              // cbnz x20, loop
            ];
            // MOV X20, #160 and MOV X21, X1.
            let code = [&[0xd280_1414, 0xaa01_03f5], &code[..]].concat();
            let from = SCATTERED + 0x1000 + 0x50 * u64::from(step).min(8);
            let expected = interpreter.run(&code, from, 8);
            // There are not as many sites as accesses here.
            translated.cpu.empty_code();
            assert_eq!(translated.run(&code, from, 8), expected, "{} by {step}", row.name);
            regions += u32::from(translated.cpu.jit.as_ref().unwrap().has_regions());
        }
    }
    // But for those that fault at once, unaligned.
    assert!(regions > 500, "{regions}");
}
