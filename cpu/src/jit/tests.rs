//! Translations against the interpreter: random instructions of every row on random registers, in both tiers.
//!
//! A row without an emitter is compared too, which tests how its handler is called. Each row is drawn alone and among
//! others of its class, so that operands share registers in all ways and values stay in host registers for a while.

mod atomics;
mod faults;
mod interrupts;
mod litmus;
mod regions;
mod rewriting;
mod system;

use super::x64::HostFeatures;
use crate::insn::{Features, Kind, Memory, ROWS, Row, decode, disassemble, op_of};
use crate::state::{Flags, SP};
use crate::testbed::{Bench, RAM, RAM_BYTES, Tables, mmu_on, pte};
use crate::{Cpu, Exit, Tier};

/// Two pages that loads and stores hit, followed by one that is not mapped.
const DATA: u64 = RAM + 0xa0_0000;
const DATA_BYTES: u64 = 0x2000;
const VECTORS: u64 = RAM + 0xc0_0000;
const TABLES: u64 = RAM + 0xe0_0000;
/// The code of a case, and how many there are room for.
const CASE_BYTES: u64 = 64;
const CASES: u64 = (DATA - RAM) / CASE_BYTES;
/// MSR TPIDR_EL1, X0; MOV W0, #0x8400_0008; HVC #0: PSCI SYSTEM_OFF, with X0 to be found.
const OFF: [u32; 4] = [0xd518_d080, 0x5280_0100, 0x72b0_8000, 0xd400_0002];
const FPEN: u64 = 3 << 20;

/// xorshift64*: tests are to find the same cases each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A vector: any bits, lanes at the edges of their range, numbers of floating point, or small numbers.
    fn vector(&mut self) -> u128 {
        const BYTES: [u8; 6] = [0, 1, 0x7f, 0x80, 0x81, 0xff];
        const SINGLES: [u32; 12] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0x7f80_0001,
            1,
            0x4b00_0001,
            0x3f00_0000,
            0x7f7f_ffff,
        ];
        const DOUBLES: [u64; 12] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            1,
            0x4330_0000_0000_0001,
            0x3fe0_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
        ];
        let mut lanes = [0u64; 2];
        let form = self.below(6);
        for lane in &mut lanes {
            *lane = match form {
                0 => u64::from_le_bytes([(); 8].map(|()| BYTES[self.below(6) as usize])),
                1 => {
                    [(); 2].iter().fold(0, |sum, ()| sum << 32 | u64::from(SINGLES[self.below(12) as usize]))
                }
                2 => DOUBLES[self.below(12) as usize],
                3 => [(); 8].iter().fold(0, |sum, ()| sum << 8 | self.below(80)),
                _ => self.next(),
            };
        }
        u128::from(lanes[1]) << 64 | u128::from(lanes[0])
    }

    /// A general register: an address of the data more often than not.
    fn general(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => self.below(64),
            2 => u64::MAX << self.below(64),
            3 => self.next() & 0xffff_ffff,
            4 => DATA + DATA_BYTES - self.below(96),
            5 => DATA + 0x1000 - self.below(96),
            6 => DATA + 0x800 + self.below(256),
            _ => DATA + 0x800 + 16 * self.below(16),
        }
    }
}

/// What an instruction starts from.
struct Start {
    x: [u64; 32],
    v: [u128; 32],
    nzcv: u32,
    fpcr: u32,
    fpsr: u32,
    data: Vec<u8>,
}

impl Start {
    fn random(random: &mut Random) -> Self {
        let mut x = [(); 32].map(|()| random.general());
        x[usize::from(SP)] = DATA + 0x800 + 16 * random.below(16) + random.below(16) / 15;
        let v = [(); 32].map(|()| random.vector());
        let data = (0..DATA_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        // Mostly what programs have; AHP, DN, FZ and RMode otherwise.
        let fpcr = if random.below(4) == 0 { random.next() as u32 & 0x07c0_0000 } else { 0 };
        let fpsr = random.next() as u32 & 0x0800_009f;
        Self { x, v, nzcv: (random.next() as u32) & 0xf000_0000, fpcr, fpsr, data }
    }
}

/// What can be seen afterwards.
#[derive(Debug, PartialEq)]
struct Seen {
    x: [u64; 32],
    x0: u64,
    v: [u128; 32],
    nzcv: u32,
    fpsr: u32,
    /// ESR, FAR and ELR.
    exception: [u64; 3],
    /// The exclusive monitor, without the host address, which machines do not share.
    monitor: Option<(u64, u64, u128)>,
    data: Vec<u8>,
}

/// One vCPU, in one tier.
struct Machine {
    bench: Bench,
    cpu: Cpu,
}

impl Machine {
    fn new(tier: Tier) -> Self {
        let bench = Bench::with_tier(1, tier);
        let mut cpu = bench.cpu(0);
        let mut tables = Tables::new(&bench.ram, TABLES);
        let mut at = RAM;
        while at < RAM + RAM_BYTES {
            if at == DATA {
                for page in (0..DATA_BYTES).step_by(0x1000) {
                    tables.page(DATA + page, DATA + page, 0);
                }
            } else {
                tables.set(at, 2, at | pte::BLOCK | pte::AF);
            }
            at += 0x20_0000;
        }
        for vector in 0..16 {
            bench.code(VECTORS + 0x80 * vector, &OFF);
        }
        mmu_on(&mut cpu, tables.root, tables.root, 0);
        cpu.state.sys.cpacr = FPEN;
        cpu.state.sys.vbar = VECTORS;
        Self { bench, cpu }
    }

    fn run(&mut self, at: u64, words: &[u32], start: &Start) -> Seen {
        self.bench.code(at, words);
        self.bench.code(at + 4 * words.len() as u64, &OFF);
        self.bench.ram.write(hw::Pa(DATA), &start.data).unwrap();
        let state = &mut self.cpu.state;
        state.x[..32].copy_from_slice(&start.x);
        state.v = start.v;
        state.flags = Flags::from_nzcv(start.nzcv);
        (state.fpcr, state.fpsr) = (start.fpcr, start.fpsr);
        (state.sys.esr, state.sys.far, state.sys.elr) = (0, 0, 0);
        state.pc = at;
        assert_eq!(self.cpu.run(None), Exit::SystemOff);
        self.cpu.cluster.resume();
        let state = &self.cpu.state;
        let mut data = vec![0; DATA_BYTES as usize];
        self.bench.ram.read(hw::Pa(DATA), &mut data).unwrap();
        let mut x = [0; 32];
        x.copy_from_slice(&state.x[..32]);
        Seen {
            x,
            x0: state.sys.tpidr_el1,
            v: state.v,
            nzcv: state.flags.nzcv(),
            fpsr: state.fpsr,
            exception: [state.sys.esr, state.sys.far, state.sys.elr],
            monitor: self.cpu.mem.monitor().map(|monitor| monitor.seen()),
            data,
        }
    }
}

/// The same machine in both tiers.
struct Twins {
    interpreted: Machine,
    translated: Machine,
    random: Random,
    /// Each case gets memory of its own, so that nothing is ever decoded twice.
    cases: u64,
}

impl Twins {
    fn new(seed: u64) -> Self {
        Self {
            interpreted: Machine::new(Tier::Interpreter),
            translated: Machine::new(Tier::Translated),
            random: Random(seed | 1),
            cases: 0,
        }
    }

    /// A random word of a row that means something.
    fn word(&mut self, row: &Row) -> Option<u32> {
        (0..200).find_map(|_| {
            let word = row.value | self.random.next() as u32 & !row.mask;
            (op_of(word, Features::default()) == row.op && !row.unpredictable(word)).then_some(word)
        })
    }

    fn compare(&mut self, words: &[u32]) {
        assert!(self.cases < CASES && words.len() + OFF.len() <= CASE_BYTES as usize / 4);
        let at = RAM + CASE_BYTES * self.cases;
        self.cases += 1;
        let start = Start::random(&mut self.random);
        self.compare_from(at, words, &start);
    }

    fn compare_from(&mut self, at: u64, words: &[u32], start: &Start) {
        let interpreted = self.interpreted.run(at, words, start);
        let translated = self.translated.run(at, words, start);
        if interpreted != translated {
            panic!("{}", difference(at, words, start, &interpreted, &translated));
        }
    }
}

/// What is to be told of a difference.
fn difference(at: u64, words: &[u32], start: &Start, interpreted: &Seen, translated: &Seen) -> String {
    let mut text = String::from("translation and interpreter differ after\n");
    for (n, &word) in words.iter().enumerate() {
        let pc = at + 4 * n as u64;
        let insn = decode(word, pc, Features::default(), false);
        text += &format!("  {word:#010x} {}  {insn:x?}\n", disassemble(word, pc, Features::default()));
    }
    for n in 0..32 {
        if interpreted.v[n] != translated.v[n] {
            text += &format!("  v{n}: {:#034x} is {:#034x}\n", interpreted.v[n], translated.v[n]);
        }
        if interpreted.x[n] != translated.x[n] {
            text += &format!("  x{n}: {:#x} is {:#x}\n", interpreted.x[n], translated.x[n]);
        }
    }
    let others = |seen: &Seen| (seen.x0, seen.nzcv, seen.fpsr, seen.exception, seen.monitor);
    text += &format!("  {:x?} is {:x?}\n", others(interpreted), others(translated));
    text += &format!("  memory differs: {}\n", interpreted.data != translated.data);
    for (n, v) in start.v.iter().enumerate() {
        text += &format!("  v{n} was {v:#034x}\n");
    }
    text
}

/// Rows that go on to the next instruction.
fn rows() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| {
        matches!(row.kind, Kind::Plain | Kind::Fallible)
            && !matches!(row.memory, Memory::Exclusive | Memory::Maintenance | Memory::Zero)
    })
}

/// Draws `rounds` cases for each of the rows that `wanted` picks: the row alone, and among its class.
fn compare_rows(seed: u64, rounds: usize, wanted: impl Fn(&Row) -> bool) {
    let rows: Vec<&Row> = rows().filter(|row| wanted(row)).collect();
    let mut twins = Twins::new(seed);
    for &row in &rows {
        let class: Vec<&Row> = rows.iter().copied().filter(|other| other.class == row.class).collect();
        for round in 0..rounds {
            let length = if round % 2 == 0 { 1 } else { 6 };
            let mut words = Vec::new();
            for n in 0..length {
                let other = class[twins.random.below(class.len() as u64) as usize];
                words.extend(twins.word(if n == length / 2 { row } else { other }));
            }
            if !words.is_empty() {
                twins.compare(&words);
            }
        }
    }
}

/// Whether a word names the general register X27.
fn names_x27(word: u32) -> bool {
    let insn = decode(word, 0, Features::default(), false);
    insn.op.row().is_some_and(|row| {
        row.registers.iter().filter(|register| !register.role.is_vector()).any(|register| {
            let first = insn.register(register.slot);
            (first..first + register.count).contains(&27)
        })
    })
}

/// The rows again, inside a loop that X27 counts: registers stay in the host's from round to round, and accesses have sites.
fn compare_rows_in_loops(seed: u64, rounds: usize) {
    const SUB: u32 = 0xd100_077b; // sub x27, x27, #1
    const CBNZ: u32 = 0xb500_001b; // cbnz x27
    let rows: Vec<&Row> = rows().collect();
    let mut twins = Twins::new(seed);
    for &row in &rows {
        let class: Vec<&Row> = rows.iter().copied().filter(|other| other.class == row.class).collect();
        for round in 0..rounds {
            let length = 1 + round % 2 * 5;
            let mut words = vec![SUB];
            for n in 0..length {
                let other = class[twins.random.below(class.len() as u64) as usize];
                let word = twins.word(if n == length / 2 { row } else { other });
                words.extend(word.filter(|&word| !names_x27(word)));
            }
            words.push(CBNZ | ((words.len() as u32).wrapping_neg() & 0x7_ffff) << 5);
            let mut start = Start::random(&mut twins.random);
            start.x[27] = 1 + twins.random.below(24);
            let at = RAM + CASE_BYTES * twins.cases;
            twins.cases += 1;
            twins.compare_from(at, &words, &start);
        }
    }
    assert!(twins.translated.cpu.jit.as_ref().is_some_and(|jit| jit.made.regions as usize > rows.len()));
}

#[test]
fn instructions_in_a_loop_do_what_the_interpreter_does() {
    compare_rows_in_loops(0x100f, 8);
}

#[test]
fn instructions_in_a_loop_do_so_on_a_host_without_optional_instructions() {
    HostFeatures::limit(|host| *host = HostFeatures::default());
    compare_rows_in_loops(0x100e, 4);
}

#[test]
fn translated_instructions_do_what_the_interpreter_does() {
    compare_rows(0x5eed, 24, |_| true);
}

/// The emitters of vector instructions have other sequences on hosts without some of the optional instructions.
#[test]
fn vector_instructions_do_so_on_a_host_without_vex() {
    HostFeatures::limit(|host| (host.avx, host.avx2, host.fma) = (false, false, false));
    compare_rows(0xfade, 24, |row| row.fp);
}

#[test]
fn instructions_do_so_on_a_host_without_optional_instructions() {
    HostFeatures::limit(|host| *host = HostFeatures::default());
    compare_rows(0xbeef, 8, |_| true);
}

/// Rounds of AES, whose two instructions become one of the host's.
#[test]
fn pairs_of_aes_instructions_do_what_the_interpreter_does() {
    let mut twins = Twins::new(0xae5);
    for (round, mix) in [(0x4e28_4800, 0x4e28_6800), (0x4e28_5800, 0x4e28_7800)] {
        for case in 0..64 {
            let (d, n, m) = (case % 3, case / 3 % 3, case / 9 % 3);
            twins.compare(&[round | n << 5 | d, mix | m << 5 | d, round | d << 5 | n, mix | n << 5 | n]);
        }
    }
}

/// Rounds of SHA-256, of which the two instructions on one state are one computation.
#[test]
fn pairs_of_sha256_instructions_do_what_the_interpreter_does() {
    let mut twins = Twins::new(0x256);
    for case in 0..512 {
        let [a, b, c, m] = [0, 2, 4, 6].map(|shift| case >> shift & 3);
        let copy = 0x4ea0_1c00 | a << 16 | a << 5 | c;
        let add = 0x4ea0_8400 | m << 16 | a << 5 | ((case >> 8) * 7);
        let (h, h2) = (0x5e00_4000 | m << 16 | b << 5 | a, 0x5e00_5000 | m << 16 | c << 5 | b);
        twins.compare(&[copy, h, h2, copy, add, h, h2, h2]);
    }
}

#[test]
fn readers_of_a_floating_point_comparison_see_its_flags_whatever_its_operands() {
    const VALUES: [u32; 5] = [0x3f80_0000, 0x4000_0000, 0x8000_0000, 0x7fc0_0000, 0x7f80_0001];
    let mut twins = Twins::new(0xf10a);
    for cond in 0..16 {
        for other in [cond, cond ^ 1, (cond + 2) % 16, (cond + 10) % 16] {
            // CSEL X2, X3, X4; CCMP X5, X6, #5; FCSEL D2, D3, D4; FCCMP S0, S1, #10; B.cond to the next instruction.
            let readers = |cond: u32| {
                let at = cond << 12;
                [0x9a84_0062 | at, 0xfa46_00a5 | at, 0x1e64_0c62 | at, 0x1e21_040a | at, 0x5400_0020 | cond]
            };
            for (n, first) in readers(cond).into_iter().enumerate() {
                let second = readers(other)[(n + other as usize) % 5];
                for (a, b) in VALUES.into_iter().flat_map(|a| VALUES.map(|b| (a, b))) {
                    let at = RAM + CASE_BYTES * twins.cases;
                    twins.cases += 1;
                    let mut start = Start::random(&mut twins.random);
                    (start.fpcr, start.v[0], start.v[1]) = (0, a.into(), b.into());
                    // FCMP S0, S1 and FCMPE S0, #0.0.
                    let compare = if b == VALUES[0] { 0x1e20_2018 } else { 0x1e21_2000 };
                    twins.compare_from(at, &[compare, first, second], &start);
                }
            }
        }
    }
}

/// A product that is inexact, and a word that says so or not.
#[test]
fn inexact_is_recorded_once_it_is_due_and_where_the_guest_looks() {
    let mut twins = Twins::new(0x1ac);
    // FMUL D2, D0, D1; FMUL D3, D0, D0; MSR FPSR, X5; MRS X6, FPSR; LDR X7, [X8]; FCVTZU W9, D4; ADD X9, X9, #1.
    let insns = [0x1e61_0802, 0x1e60_0803, 0xd51b_4425, 0xd53b_4426, 0xf940_0107, 0x1e79_0089, 0x9100_0529];
    for _ in 0..2000 {
        let words: Vec<u32> = (0..8).map(|_| insns[twins.random.below(7) as usize]).collect();
        let at = RAM + CASE_BYTES * twins.cases;
        twins.cases += 1;
        let mut start = Start::random(&mut twins.random);
        (start.fpcr, start.fpsr) = (0, twins.random.next() as u32 & 0x10);
        start.v[0] = 0x3ff8_0000_0000_0000;
        start.v[1] = [0x3ff8_0000_0000_0000, 0x3ff0_0000_0000_0001][twins.random.below(2) as usize];
        // 2^32 and a half does not fit.
        start.v[4] = 0x41f0_0000_0008_0000;
        start.x[5] = 0;
        start.x[8] = DATA + 0x1000 * twins.random.below(2);
        twins.compare_from(at, &words, &start);
    }
}
