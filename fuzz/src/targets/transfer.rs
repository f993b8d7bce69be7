//! Loads and stores that the CPU does not describe to a hypervisor: any word, any registers, and a device that refuses
//! some accesses. What is made must be what the engine makes of the same instruction.

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use cpu::insn::op_of;
use cpu::transfer::{Registers, Transfer};
use cpu::{Bus, Cluster, ClusterConfig, Cpu, Exit, Features, VcpuSignals};
use hw::schedule::Threads;
use hw::{BusError, IrqLine, ManualAlarms, ManualClock, Pa, Ram, SysReg, SysRegDevice, UnconnectedLine};

use crate::input::Input;
use crate::machine::{RAM, RAM_BYTES, put, ram};
use crate::targets::cpu::{ISB, LDR, code, msr};

const DEVICE: u64 = 0x900_0000;
/// Addresses beside others that are answered, are not, are in another page, and are in RAM.
const BORDERS: [u64; 4] = [DEVICE + 0x400, DEVICE + 0x780, DEVICE + 0xf80, RAM - 0x80];
const VECTORS: u64 = RAM;
const PROLOGUE: u64 = RAM + 0x1000;
const VALUES: u64 = RAM + 0x2000;
const TABLE: u64 = RAM + 0x3000;
const CODE: u64 = RAM + 0x4000;
const MOST_WORDS: usize = 200;
/// Blocks of 1 GiB: device memory that nobody executes, and RAM that nobody writes, so that no store reaches the code.
const BLOCKS: [u64; 2] = [3 << 53 | 0x405, RAM | 0x781];
/// mov w0, #8; movk w0, #0x8400, lsl #16; hvc #0: PSCI SYSTEM_OFF.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];

/// VBAR_EL1, TTBR0_EL1, TCR_EL1, MAIR_EL1, CPACR_EL1 and SCTLR_EL1.
const SYSTEM: [(u32, u64); 6] = [
    (msr(0, 12, 0, 0), VECTORS),
    (msr(0, 2, 0, 0), TABLE),
    // EPD1; 4 KiB, 39 bits.
    (msr(0, 2, 0, 2), 0x2_8099_0019),
    (msr(0, 10, 2, 0), 0xff),
    (msr(0, 1, 0, 2), 3 << 20),
    (msr(0, 1, 0, 0), 0x34d5_d985),
];

/// An access that reached the device.
#[derive(Debug, PartialEq, Eq)]
struct Access {
    pa: u64,
    /// What was written; `None` if it was a read.
    written: Option<Vec<u8>>,
    answered: bool,
}

/// Everything outside RAM. Remembers all accesses, and answers in the second and the last quarter of each page.
#[derive(Default)]
struct Device(Mutex<Vec<Access>>);

impl Device {
    fn note(&self, pa: Pa, written: Option<Vec<u8>>) -> Result<(), BusError> {
        let answered = pa.0 & 0x400 != 0;
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(Access { pa: pa.0, written, answered });
        if answered { Ok(()) } else { Err(BusError::NoRegister(pa.0)) }
    }

    fn accesses(&self) -> Vec<Access> {
        take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bus for Device {
    fn read(&self, pa: Pa, data: &mut [u8]) -> Result<(), BusError> {
        assert!(matches!(data.len(), 1 | 2 | 4 | 8 | 16), "{} bytes", data.len());
        for (byte, at) in data.iter_mut().zip(pa.0..) {
            *byte = 0x80 ^ at as u8;
        }
        self.note(pa, None)
    }

    fn write(&self, pa: Pa, data: &[u8]) -> Result<(), BusError> {
        assert!(matches!(data.len(), 1 | 2 | 4 | 8 | 16), "{} bytes", data.len());
        self.note(pa, Some(data.to_vec()))
    }
}

impl SysRegDevice for Device {
    fn sysreg_read(&self, _: usize, _: SysReg) -> Option<u64> {
        None
    }

    fn sysreg_write(&self, _: usize, _: SysReg, _: u64) -> Option<()> {
        None
    }

    fn sysreg_reset(&self, _: usize) {}
}

/// Different in each register, except what the input says of base and offset.
fn registers(word: u32, input: &mut Input<'_>) -> Registers {
    let seed = input.u64();
    let mix = |n: u64| seed.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut registers = Registers {
        x: std::array::from_fn(|n| mix(n as u64)),
        sp: mix(31),
        v: std::array::from_fn(|n| u128::from(mix(n as u64 + 32)) << 64 | u128::from(mix(n as u64 + 64))),
    };
    let register = |lsb: u32| (word >> lsb & 31) as usize;
    // The offset first: it may be the base, too.
    for (n, value) in [(register(16), input.word(&[])), (register(5), input.word(&BORDERS))] {
        *registers.x.get_mut(n).unwrap_or(&mut registers.sp) = value;
    }
    registers
}

fn registers_of(cpu: &Cpu) -> Registers {
    let mut x = [0; 31];
    x.copy_from_slice(&cpu.state.x[..31]);
    Registers { x, sp: cpu.state.x[31], v: cpu.state.v }
}

/// But for x0, which the engine's program needs to end.
fn without_x0(mut registers: Registers) -> Registers {
    registers.x[0] = 0;
    registers
}

fn write(ram: &Ram, at: u64, words: &[u32]) {
    ram.write(Pa(at), &code(words)).expect("it is RAM");
}

/// A vCPU with the tables and vectors above, each exception of which ends the program.
fn engine(ram: &Arc<Ram>, device: &Arc<Device>) -> Cpu {
    let signals = VcpuSignals::new(1, &Threads);
    let line = || vec![Arc::new(UnconnectedLine) as Arc<dyn IrqLine>];
    for vector in 0..16 {
        write(ram, VECTORS + 0x80 * vector, &OFF);
    }
    put(ram, TABLE, &BLOCKS);
    let mut prologue = Vec::new();
    for (i, (instruction, value)) in SYSTEM.into_iter().enumerate() {
        put(ram, VALUES + 8 * i as u64, &[value]);
        prologue.extend([LDR, instruction]);
    }
    prologue.push(ISB);
    prologue.extend(OFF);
    write(ram, PROLOGUE, &prologue);
    let cluster = Cluster::new(ClusterConfig {
        signals,
        features: Features::default(),
        tier: cpu::Tier::Interpreter,
        observation: cpu::Observation::default(),
        ram: Arc::clone(ram),
        bus: device.clone(),
        gic: device.clone(),
        clock: Arc::new(ManualClock::default()),
        entropy: Arc::new(hw::SeededEntropy::new(0)),
        alarms: Arc::new(ManualAlarms::default()),
        scheduler: Arc::new(Threads),
        virtual_timer: line(),
        physical_timer: line(),
    });
    let mut cpu = cluster.vcpu(0);
    cpu.set_boot_state(PROLOGUE, 0);
    cpu.state.x[1] = VALUES;
    assert_eq!(cpu.run(None), Exit::SystemOff);
    cpu
}

/// Decodes words and makes what they ask for, after the engine has made it: at the address where the engine's access
/// reached the device.
pub fn transfer(data: &[u8]) {
    let mut input = Input::new(data);
    let (ram, device) = (ram(), Arc::new(Device::default()));
    let mut cpu = engine(&ram, &device);
    for at in (CODE..).step_by(16).take(MOST_WORDS) {
        if input.is_empty() {
            break;
        }
        // Bits [29:27] and [25] of a load or store, of a pair or not; or any word.
        let word = match (input.u8(), input.u32()) {
            (0..16, word) => word,
            (kind, word) => word & !0x3a00_0000 | if kind & 1 == 0 { 0x2800_0000 } else { 0x3800_0000 },
        };
        let Some(transfer) = Transfer::decode(word) else { continue };
        let before = registers(word, &mut input);

        cpu.state.x[..31].copy_from_slice(&before.x);
        cpu.state.x[31] = before.sp;
        cpu.state.v = before.v;
        cpu.state.pc = at;
        cpu.cluster.resume();
        write(&ram, at, &[word, OFF[0], OFF[1], OFF[2]]);
        let end = cpu.run(None);
        assert_eq!(end, Exit::SystemOff, "{word:#010x}");
        let accesses = device.accesses();

        let pa = accesses.first().map_or(DEVICE | before.x[0] & 0xfff, |access| access.pa);
        let mut file = before.clone();
        let Ok(made) = transfer.perform(Pa(pa), &mut file, &*device);
        let made_accesses = device.accesses();
        assert!(made || file == before, "{word:#010x} was not made and has changed registers");
        let row = op_of(word, Features::default()).row();
        let is_predictable = row.is_some_and(|row| !row.unpredictable(word));
        // One that is in RAM too starts elsewhere, or leaves the page.
        let is_near_ram = (RAM - 0x1000..RAM + RAM_BYTES + 0x1000).contains(&pa);
        if accesses.is_empty() || !is_predictable || is_near_ram {
            continue;
        }
        let leaves_page = accesses.iter().any(|access| access.pa & !0xfff != pa & !0xfff);
        let is_answered = accesses.iter().all(|access| access.answered);
        assert_eq!(made, is_answered && !leaves_page, "{word:#010x} at {pa:#x}: {accesses:x?}");
        if !leaves_page {
            assert_eq!(made_accesses, accesses, "{word:#010x} at {pa:#x}");
            assert_eq!(without_x0(file), without_x0(registers_of(&cpu)), "{word:#010x} at {pa:#x}");
        }
    }
}
