//! What is emitted, decoded by another project's decoder and compared with what was asked for.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};

use super::{Asm, Gpr, Mem, Scale, Size, Xmm};

mod buffer;
mod gpr;
mod simd;

/// Where the code is said to run.
const ORIGIN: u64 = 0x7f00_1234_5000;

/// An operand as it should come out of the decoder.
#[derive(Clone, Copy, Debug)]
enum Want {
    Gpr(Gpr, Size),
    Xmm(Xmm),
    /// Memory, with the bytes accessed where the instruction's name does not say them already (else 0).
    Mem(Mem, u32),
    /// A constant, of which the low bytes count.
    Imm(i64, Size),
    Target(u64),
}

/// What `emit` leaves in a buffer of its own.
fn code(emit: impl FnOnce(&mut Asm)) -> Vec<u8> {
    let mut buffer = vec![0xcc; 256];
    // SAFETY: the buffer outlives the assembler and is used by nobody else meanwhile.
    let mut asm = unsafe { Asm::new(buffer.as_mut_ptr(), buffer.len(), ORIGIN) };
    emit(&mut asm);
    let bytes = asm.finish().unwrap();
    buffer.truncate(bytes);
    buffer
}

/// The one instruction of `bytes`.
fn decode(bytes: &[u8]) -> Instruction {
    let instruction = Decoder::with_ip(64, bytes, ORIGIN, DecoderOptions::NONE).decode();
    assert!(!instruction.is_invalid(), "{bytes:02x?}");
    assert_eq!(instruction.len(), bytes.len(), "{instruction:?} {bytes:02x?}");
    instruction
}

/// `emit` appends a single instruction, named `mnemonic` (in any case) with the operands `wants`.
fn check(mnemonic: &str, wants: &[Want], emit: impl FnOnce(&mut Asm)) -> Instruction {
    let mut buffer = [0xcc; 64];
    // SAFETY: as in `code`.
    let mut asm = unsafe { Asm::new(buffer.as_mut_ptr(), buffer.len(), ORIGIN) };
    emit(&mut asm);
    let bytes = asm.finish().unwrap();
    let instruction = decode(&buffer[..bytes]);
    let context = || format!("{instruction:?} {:02x?}, wanted {mnemonic} {wants:?}", &buffer[..bytes]);
    assert!(format!("{:?}", instruction.mnemonic()).eq_ignore_ascii_case(mnemonic), "{}", context());
    assert_eq!(instruction.op_count() as usize, wants.len(), "{}", context());
    for (index, want) in wants.iter().enumerate() {
        assert!(is(&instruction, index as u32, want), "operand {index} of {}", context());
    }
    instruction
}

fn is(instruction: &Instruction, index: u32, want: &Want) -> bool {
    match *want {
        Want::Gpr(register, size) => is_register(instruction, index, gpr_of(register, size)),
        Want::Xmm(register) => is_register(instruction, index, Register::XMM0 + u32::from(register.number())),
        Want::Mem(mem, bytes) => {
            instruction.op_kind(index) == OpKind::Memory
                && is_memory(instruction, mem)
                && (bytes == 0 || instruction.memory_size().size() == bytes as usize)
        }
        Want::Imm(value, size) => {
            let mask = u64::MAX >> (64 - 8 * size.bytes());
            (instruction.immediate(index) ^ value as u64) & mask == 0
        }
        Want::Target(target) => instruction.near_branch_target() == target,
    }
}

fn is_register(instruction: &Instruction, index: u32, register: Register) -> bool {
    instruction.op_kind(index) == OpKind::Register && instruction.op_register(index) == register
}

fn gpr_of(register: Gpr, size: Size) -> Register {
    let number = u32::from(register.number());
    match size {
        // AH, CH, DH and BH come before SPL in the decoder's list.
        Size::Byte if number >= 4 => Register::AL + number + 4,
        Size::Byte => Register::AL + number,
        Size::Word => Register::AX + number,
        Size::Dword => Register::EAX + number,
        Size::Qword => Register::RAX + number,
    }
}

fn is_memory(instruction: &Instruction, mem: Mem) -> bool {
    let q = |register| gpr_of(register, Size::Qword);
    let parts = |base, index, scale, disp: i32| {
        instruction.memory_base() == base
            && instruction.memory_index() == index
            && (index == Register::None || instruction.memory_index_scale() == scale)
            && instruction.memory_displacement64() == disp as u64
    };
    // The shortest displacement: none only without one, a byte whenever it fits.
    let shortest = |disp: i32| match instruction.memory_displ_size() {
        0 => disp == 0,
        1 => i8::try_from(disp).is_ok(),
        _ => i8::try_from(disp).is_err(),
    };
    match mem {
        Mem::Base(base, disp) => parts(q(base), Register::None, 1, disp) && shortest(disp),
        Mem::Indexed(base, index, disp) => {
            let (register, scale) = index.parts();
            parts(q(base), q(register), 1 << scale as u32, disp) && shortest(disp)
        }
        Mem::Scaled(index, disp) => {
            let (register, scale) = index.parts();
            parts(Register::None, q(register), 1 << scale as u32, disp)
        }
        Mem::Absolute(disp) => parts(Register::None, Register::None, 1, disp),
        Mem::Near(target) => {
            instruction.is_ip_rel_memory_operand() && instruction.ip_rel_memory_address() == target
        }
        Mem::At(_) => false,
    }
}

/// One past the ends of the displacement classes, and their middles.
const DISPLACEMENTS: [i32; 11] = [0, 1, -1, 64, 127, -128, 128, -129, 0x1234_5678, i32::MAX, i32::MIN];
const SCALES: [Scale; 4] = [Scale::By1, Scale::By2, Scale::By4, Scale::By8];

/// Every kind of memory operand, with all registers and displacement classes.
fn all_memory() -> Vec<Mem> {
    let mut all = some_memory();
    for disp in DISPLACEMENTS {
        all.push(Mem::Absolute(disp));
        for register in Gpr::ALL {
            all.push(Mem::base(register, disp));
            for index in Gpr::ALL.into_iter().filter(|&index| index != Gpr::Rsp) {
                for scale in SCALES {
                    all.push(Mem::indexed(register, index, scale, disp));
                    all.push(Mem::scaled(index, scale, disp));
                }
            }
        }
    }
    all
}

/// Memory operands that differ in REX bits, in length and in what follows ModRM.
fn some_memory() -> Vec<Mem> {
    let mut some: Vec<_> = Gpr::ALL.map(|base| Mem::base(base, 0)).into();
    some.extend([
        Mem::base(Gpr::Rbp, -0x40),
        Mem::base(Gpr::R12, 0x1000),
        Mem::indexed(Gpr::Rax, Gpr::Rcx, Scale::By1, 0),
        Mem::indexed(Gpr::R13, Gpr::Rdx, Scale::By2, 0),
        Mem::indexed(Gpr::Rbx, Gpr::R12, Scale::By4, 0x7f),
        Mem::indexed(Gpr::R9, Gpr::R10, Scale::By8, -0x8000),
        Mem::scaled(Gpr::R8, Scale::By8, 0x100),
        Mem::Absolute(0x7000_0000),
        Mem::Near(ORIGIN),
        Mem::Near(ORIGIN + 0x7fff_ff00),
        Mem::Near(ORIGIN - 0x7fff_ff00),
    ]);
    some
}
