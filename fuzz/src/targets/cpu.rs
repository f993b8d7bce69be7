//! The CPU engine: the decoder, and instructions in random states of the system.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ::cpu::insn::{ROWS, decode, disassemble, op_of};
use ::cpu::{Bus, Cluster, ClusterConfig, Features, Tier, VcpuSignals};
use hw::schedule::Threads;
use hw::{BusError, IrqLine, ManualAlarms, ManualClock, Pa, SysReg, SysRegDevice, UnconnectedLine};

use crate::input::Input;
use crate::machine::{PLACES, RAM, put, ram, scribble};

/// How long code may run that does not end by itself: most of it does not.
const PATIENCE: Duration = Duration::from_millis(2);

const VECTORS: u64 = RAM;
const PROLOGUE: u64 = RAM + 0x1000;
const VALUES: u64 = RAM + 0x2000;
const TABLE: u64 = RAM + 0x3000;
const TABLE2: u64 = RAM + 0x4000;
const CODE: u64 = RAM + 0x1_0000;
/// The same memory as EL0 sees it in the sane table.
const CODE_AT_EL0: u64 = CODE + (1 << 30);
const MOST_WORDS: usize = 400;

/// A word: anything, or a row of the table with anything in its fields.
fn word(input: &mut Input<'_>) -> u32 {
    let (kind, word) = (input.u16(), input.u32());
    if kind & 7 == 0 {
        return word;
    }
    let row = &ROWS[usize::from(kind >> 3) % ROWS.len()];
    word & !row.mask | row.value
}

/// Decodes and disassembles words for every set of features.
pub fn cpu_decode(data: &[u8]) {
    let mut input = Input::new(data);
    while !input.is_empty() {
        let word = word(&mut input);
        let pc = u64::from(word) << 2 ^ u64::from(input.u8()) << 56;
        for features in [Features::BASE, Features::default()] {
            let _ = (op_of(word, features).kind(), disassemble(word, pc, features));
            for fp_trapped in [false, true] {
                let _ = decode(word, pc, features, fp_trapped);
            }
        }
    }
}

/// Reads as something, and refuses a part.
pub(super) struct Devices;

impl Bus for Devices {
    fn read(&self, pa: Pa, data: &mut [u8]) -> Result<(), BusError> {
        data.fill(0x5a);
        if pa.0 & 0x1000 == 0 { Ok(()) } else { Err(BusError::NoRegister(pa.0)) }
    }

    fn write(&self, pa: Pa, _: &[u8]) -> Result<(), BusError> {
        if pa.0 & 0x1000 == 0 { Ok(()) } else { Err(BusError::NoRegister(pa.0)) }
    }
}

impl SysRegDevice for Devices {
    fn sysreg_read(&self, _: usize, reg: SysReg) -> Option<u64> {
        Some(reg.0.into())
    }

    fn sysreg_write(&self, _: usize, _: SysReg, _: u64) -> Option<()> {
        Some(())
    }

    fn sysreg_reset(&self, _: usize) {}
}

/// `ldr x0, [x1], #8`.
pub(super) const LDR: u32 = 0xf840_8420;
pub(super) const ISB: u32 = 0xd503_3fdf;

/// MSR of x0.
pub(super) const fn msr(op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    0xd518_0000 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

pub(super) fn code(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Executes words at EL1 or EL0, with registers, system registers and tables of the input. Exceptions go on after the
/// instruction that took them, where the vectors can be reached; the words end in PSCI SYSTEM_OFF.
pub fn cpu_run(data: &[u8]) {
    execute(data, Tier::Auto);
}

/// Executes words as [`cpu_run`] does, in translations that are compared with the interpreter: a difference is a panic.
pub fn cpu_translate(data: &[u8]) {
    execute(data, Tier::Lockstep);
}

fn execute(data: &[u8], tier: Tier) {
    const ERET: u32 = 0xd69f_03e0;
    // msr tpidr_el1, x0; mrs x0, elr_el1; add x0, x0, #4; msr elr_el1, x0; mrs x0, tpidr_el1; eret
    const SKIP: [u32; 6] = [0xd518_d080, 0xd538_4020, 0x9100_1000, 0xd518_4020, 0xd538_d080, ERET];
    // mov w0, #8; movk w0, #0x8400, lsl #16; hvc #0
    const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

    let mut input = Input::new(data);
    let ram = ram();
    let write = |at: u64, words: &[u32]| ram.write(Pa(at), &code(words)).expect("it is RAM");
    for vector in 0..16 {
        write(VECTORS + 0x80 * vector, &SKIP);
    }
    // Blocks of 1 GiB: RAM for EL1, RAM for EL0, and a table that the input fills.
    put(&ram, TABLE + 8, &[RAM | 0x701, RAM | 0x741, TABLE2 | 3]);

    let how = input.u8();
    let at_el0 = how & 1 != 0;
    let sane = [
        // ELR_EL1, SPSR_EL1, VBAR_EL1, TTBR0_EL1, TTBR1_EL1, TCR_EL1, MAIR_EL1
        (msr(0, 4, 0, 1), if at_el0 && how & 2 != 0 { CODE_AT_EL0 } else { CODE }),
        (msr(0, 4, 0, 0), if at_el0 { 0 } else { 5 }),
        (msr(0, 12, 0, 0), VECTORS),
        (msr(0, 2, 0, 0), TABLE),
        (msr(0, 2, 0, 1), TABLE),
        (msr(0, 2, 0, 2), 0x2_8019_0019),
        (msr(0, 10, 2, 0), 0xff),
        // CPACR_EL1, CNTKCTL_EL1, CNTV_CTL_EL0, CNTV_CVAL_EL0
        (msr(0, 1, 0, 2), 3 << 20),
        (msr(0, 14, 1, 0), 3),
        (msr(3, 14, 3, 1), 0),
        (msr(3, 14, 3, 2), 0),
        // SCTLR_EL1
        (msr(0, 1, 0, 0), if how & 2 != 0 { 0x34d5_d985 } else { 0x34d5_d984 }),
    ];
    let mut prologue = Vec::new();
    for (i, (instruction, value)) in sane.into_iter().enumerate() {
        let value = match input.u8() {
            0..8 => input.word(&PLACES),
            8..24 => value ^ 1 << (input.u8() % 64),
            _ => value,
        };
        put(&ram, VALUES + 8 * i as u64, &[value]);
        prologue.extend([LDR, instruction]);
    }
    prologue.extend([ISB, ERET]);
    write(PROLOGUE, &prologue);

    let signals = VcpuSignals::new(2, &Threads);
    let lines = || vec![Arc::new(UnconnectedLine) as Arc<dyn IrqLine>; 2];
    let cluster = Cluster::new(ClusterConfig {
        signals: signals.clone(),
        features: Features::default(),
        tier,
        observation: cpu::Observation::default(),
        ram: Arc::clone(&ram),
        bus: Arc::new(Devices),
        gic: Arc::new(Devices),
        clock: Arc::new(ManualClock::default()),
        entropy: Arc::new(hw::SeededEntropy::new(0)),
        alarms: Arc::new(ManualAlarms::default()),
        scheduler: Arc::new(Threads),
        virtual_timer: lines(),
        physical_timer: lines(),
    });
    let mut vcpu = cluster.vcpu(0);
    vcpu.set_boot_state(PROLOGUE, 0);
    vcpu.state.x[1] = VALUES;
    for x in &mut vcpu.state.x[2..32] {
        *x = match input.u8() % 8 {
            0 => input.word(&PLACES),
            n => RAM + 0x10_0000 + 0x1_0000 * u64::from(n) + if at_el0 && how & 2 != 0 { 1 << 30 } else { 0 },
        };
    }
    for _ in 0..input.u8() % 4 {
        scribble(&ram, &mut input, &[TABLE2, VALUES, CODE]);
    }
    signals.irq_line(0).set(how & 4 != 0);
    signals.fiq_line(0).set(how & 8 != 0);
    let mut words = Vec::new();
    while !input.is_empty() && words.len() < MOST_WORDS {
        words.push(word(&mut input));
    }
    words.extend(OFF);
    write(CODE, &words);

    thread::scope(|scope| {
        let (ended, end) = channel::<()>();
        let cluster = &cluster;
        scope.spawn(move || {
            if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                cluster.stop_all();
            }
        });
        let _ = vcpu.run(None);
        drop(ended);
    });
    let _ = vcpu.pstate();
}
