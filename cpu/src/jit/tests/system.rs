//! System registers and DC ZVA: where translations do them, and where EL1 or the stack pointer in use forbids it.

use hw::Pa;

use crate::state::Flags;
use crate::state::SysRegs;
use crate::testbed::{Bench, RAM, Tables, mmu_on, pte};
use crate::{Cpu, Exit, Tier};

const VECTORS: u64 = RAM + 0x10_0000;
const DATA: u64 = RAM + 0x20_0000;
const DATA_BYTES: u64 = 0x2000;
const TABLES: u64 = RAM + 0xe0_0000;
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
const ADD: u32 = 0x9100_0529; // add x9, x9, #1
const DZE: u64 = 1 << 14;

/// Exception level, stack pointer, SCTLR_EL1.DZE.
const CONTEXTS: [(u64, u64); 4] = [(0b0101, 0), (0b0100, 0), (0, 0), (0, DZE)];

#[derive(Debug, PartialEq)]
struct Outcome {
    x: [u64; 34],
    pstate: u64,
    interest: u32,
    sp_bank: [u64; 2],
    sys: SysRegs,
    data: Vec<u8>,
}

struct Machine {
    bench: Bench,
    cpu: Cpu,
    root: u64,
    /// Each run's code has a place of its own.
    next: u64,
}

impl Machine {
    fn new(tier: Tier) -> Self {
        let bench = Bench::with_tier(1, tier);
        let cpu = bench.cpu(0);
        let mut tables = Tables::new(&bench.ram, TABLES);
        // What EL0 can write EL1 cannot execute.
        tables.set(RAM, 2, RAM | pte::BLOCK | pte::AF | pte::USER | pte::READ_ONLY);
        for page in (0..DATA_BYTES).step_by(0x1000) {
            tables.page(DATA + page, DATA + page, pte::USER);
        }
        for vector in 0..16 {
            bench.code(VECTORS + 0x80 * vector, &OFF);
        }
        Self { root: tables.root, bench, cpu, next: RAM }
    }

    fn run(&mut self, words: &[u32], address: u64, (mode, sctlr): (u64, u64)) -> Outcome {
        let code: Vec<u32> = words.iter().flat_map(|&word| [ADD, word]).chain([ADD]).chain(OFF).collect();
        self.bench.code(self.next, &code);
        self.bench.ram.write(Pa(DATA), &vec![0xa5; DATA_BYTES as usize]).unwrap();
        let cpu = &mut self.cpu;
        cpu.set_boot_state(self.next, 0);
        self.next += (4 * code.len() as u64).next_multiple_of(64);
        cpu.state.sys.sctlr |= sctlr;
        mmu_on(cpu, self.root, self.root, 0);
        cpu.set_pstate(mode | 0x140);
        let sys = &mut cpu.state.sys;
        (sys.vbar, sys.tpidr_el0, sys.tpidr_el1, sys.tpidrro_el0) = (VECTORS, 0x1111, 0x2222, 0x3333);
        (sys.elr, sys.spsr, sys.far) = (0x4444, 0x5, 0x6666);
        cpu.state.sp_bank = [0x7770, 0x8880];
        for n in 1..32 {
            cpu.state.x[n] = 0x0101_0101_0101_0101 * n as u64;
        }
        cpu.state.x[8] = address;
        cpu.state.flags = Flags::from_nzcv(0x6000_0000);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        cpu.cluster.resume();
        let mut data = vec![0; DATA_BYTES as usize];
        self.bench.ram.read(Pa(DATA), &mut data).unwrap();
        let state = &self.cpu.state;
        let (mut x, sp_bank, mut sys) = (state.x, state.sp_bank, state.sys.clone());
        // A register that nobody reads, and places that differ with the tier's flags.
        (x[33], sys.spsr) = (0, sys.spsr & !0xf000_0000);
        Outcome { x, pstate: self.cpu.pstate(), interest: state.interest, sp_bank, sys, data }
    }
}

fn compare(words: &[u32], addresses: &[u64]) {
    let (mut interpreter, mut translated) = (Machine::new(Tier::Interpreter), Machine::new(Tier::Translated));
    for context in CONTEXTS {
        for &word in words {
            for &address in addresses {
                let expected = interpreter.run(&[word, word], address, context);
                let outcome = translated.run(&[word, word], address, context);
                assert_eq!(outcome, expected, "{word:#x} at {address:#x} in {context:x?}");
            }
        }
    }
}

#[test]
fn system_registers_are_read_and_written_or_trapped_as_the_interpreter_does() {
    // op1, CRn, CRm, op2: SPSR, ELR, SP_EL0, SPSel, CurrentEL, PAN, DAIF, TPIDR_EL1, TPIDR_EL0, TPIDRRO_EL0, CONTEXTIDR, VBAR, ESR, FAR,
    // SCTLR, CTR_EL0, MIDR, DCZID, CNTFRQ.
    const REGISTERS: [(u32, u32, u32, u32); 19] = [
        (0, 4, 0, 0),
        (0, 4, 0, 1),
        (0, 4, 1, 0),
        (0, 4, 2, 0),
        (0, 4, 2, 2),
        (0, 4, 2, 3),
        (3, 4, 2, 1),
        (0, 13, 0, 4),
        (3, 13, 0, 2),
        (3, 13, 0, 3),
        (0, 13, 0, 1),
        (0, 12, 0, 0),
        (0, 5, 2, 0),
        (0, 6, 0, 0),
        (0, 1, 0, 0),
        (3, 0, 0, 1),
        (0, 0, 0, 0),
        (3, 0, 0, 7),
        (3, 14, 0, 0),
    ];
    let mut words = Vec::new();
    for (op1, crn, crm, op2) in REGISTERS {
        for rt in [9, 31] {
            let register = 3 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt;
            words.push(0xd520_0000 | register);
            let changes_context = matches!((crn, op1), (1 | 12, _)) || (op1, crn, crm) == (0, 4, 2);
            if !changes_context || op1 == 3 {
                words.push(0xd500_0000 | register);
            }
        }
    }
    compare(&words, &[DATA]);
}

#[test]
fn interrupt_masks_are_set_and_cleared_as_the_interpreter_does() {
    // MSR DAIFSet and DAIFClr of every immediate; MSR DAIF, X8.
    let words = (0..16).flat_map(|imm| [0xd503_40df | imm << 8, 0xd503_40ff | imm << 8]);
    compare(
        &words.chain([0xd51b_4228]).collect::<Vec<_>>(),
        &[0, 0x40, 0x80, 0xc0, 0x100, 0x3c0, 0x2c0, u64::MAX],
    );
}

#[test]
fn dc_zva_zeroes_its_block_or_faults_as_the_interpreter_does() {
    let addresses =
        [DATA, DATA + 0x13, DATA + 0xfff, DATA + 0x1040, DATA + DATA_BYTES, RAM + 0x1000, 1 << 60 | DATA];
    compare(&[0xd50b_7428], &addresses);
}

#[test]
fn barriers_and_hints_change_nothing() {
    // NOP, YIELD, PACIASP, BTI, DMB ISH, DMB ISHLD, DMB ISHST.
    compare(
        &[0xd503_201f, 0xd503_203f, 0xd503_233f, 0xd503_245f, 0xd503_3bbf, 0xd503_39bf, 0xd503_3abf],
        &[DATA],
    );
}
