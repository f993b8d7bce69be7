//! The code that all translations of a vCPU share: the way in, the ways out, the calls of functions in Rust.
//!
//! Register use: RBP points 128 bytes into [`State`], so that the general registers are in reach of 8-bit displacements;
//! RAX, RCX and RDX are scratch; the registers of [`POOL`] hold guest registers, and XMM3 to XMM15 vector registers. A
//! translation calls a stub with its arguments in scratch registers; the stub saves what the function may change.

use std::mem::offset_of;

use super::emit::constants;
use super::x64::simd_ops::{MOVUPS, MOVUPS_STORE};
use super::x64::{Alu, Asm, Cond, Gpr, Label, Mem, Scale, Shift, Size, Xmm};
use super::{float, runtime, sites};
use crate::Cpu;
use crate::code::{Block, JUMPS, Jump};
use crate::state::State;

/// Host registers that hold general registers of the guest.
pub(crate) const POOL: [Gpr; 11] = [
    Gpr::Rbx,
    Gpr::Rsi,
    Gpr::Rdi,
    Gpr::R8,
    Gpr::R9,
    Gpr::R10,
    Gpr::R11,
    Gpr::R12,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];

/// Those that a function in Rust may change.
const VOLATILE: [Gpr; 6] = [Gpr::Rsi, Gpr::Rdi, Gpr::R8, Gpr::R9, Gpr::R10, Gpr::R11];

/// Those that belong to whoever calls translated code.
const CALLERS: [Gpr; 6] = [Gpr::Rbx, Gpr::Rbp, Gpr::R12, Gpr::R13, Gpr::R14, Gpr::R15];

/// First XMM register that holds a vector register of the guest.
pub(crate) const FIRST_VECTOR: u8 = 3;
/// How many there are.
pub(crate) const VECTORS: usize = 13;

/// The host register of a slot for vector registers.
pub(crate) const fn vector(slot: usize) -> Xmm {
    Xmm::new(FIRST_VECTOR + slot as u8)
}

/// What translated code leaves with, in the low byte of RAX.
pub(crate) mod exit {
    /// Something is pending; `state.pc` is exact.
    pub(crate) const PENDING: u64 = 0;
    /// `state.pc` leads to code that has to be looked up.
    pub(crate) const LOOKUP: u64 = 1;
    /// The instruction at `state.pc` is one for the interpreter this time.
    pub(crate) const INTERPRET: u64 = 2;
    /// A direct branch that is not linked yet: its number is in the bits from 8 on.
    pub(crate) const LINK: u64 = 3;
    /// A loop is hot: the number of the link that tells of it is in the bits from 8 on.
    pub(crate) const HOT: u64 = 4;
}

/// What RBP points to, as an offset in [`Cpu`].
pub(crate) const BASE: usize = offset_of!(Cpu, state) + 128;

/// A place in [`Cpu`], as translated code reaches it.
pub(crate) const fn cpu_at(offset: usize) -> Mem {
    Mem::base(Gpr::Rbp, offset as i32 - BASE as i32)
}

/// A place in [`State`].
pub(crate) const fn state_at(offset: usize) -> Mem {
    cpu_at(offset_of!(Cpu, state) + offset)
}

/// General register `n` of the guest.
pub(crate) const fn x_at(n: u8) -> Mem {
    state_at(offset_of!(State, x) + 8 * n as usize)
}

/// Vector register `n` of the guest.
pub(crate) const fn v_at(n: u8) -> Mem {
    state_at(offset_of!(State, v) + 16 * n as usize)
}

/// What all translations of a vCPU share: addresses of code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stubs {
    /// `extern "C" fn(base, code) -> exit`.
    pub(crate) enter: u64,
    /// Leaves with [`exit::PENDING`]; `state.pc` is exact.
    pub(crate) pending: u64,
    /// Leaves with [`exit::LOOKUP`]; the address is in RAX.
    pub(crate) lookup: u64,
    /// Leaves with [`exit::INTERPRET`]; `state.pc` is exact.
    pub(crate) interpret: u64,
    /// Leaves with [`exit::LINK`]; the link's number is in EAX.
    pub(crate) link: u64,
    /// Leaves with [`exit::HOT`]; the link's number is in EAX.
    pub(crate) hot: u64,
    /// Goes on at `state.pc`, whatever that is.
    pub(crate) dispatch: u64,
    /// Entry of blocks that have no translation: the address is in RAX.
    pub(crate) untranslated: u64,
    /// Memory access: address in RAX, description in EDX, value in RCX. The value read is then in RAX. Comes back
    /// only if there was no exception.
    pub(crate) access: u64,
    /// The same for translations that hold vector registers.
    pub(crate) access_keeping_vectors: u64,
    /// Calls the T0 handler of a plain instruction at RDX.
    pub(crate) plain: u64,
    /// Calls that of a fallible one at RDX, whose place in its page is in ECX. Comes back only if there was no
    /// exception.
    pub(crate) fallible: u64,
    /// Calls that of a system instruction at RDX, place in ECX, and goes on at `state.pc`.
    pub(crate) system: u64,
    /// Has a site looked at that has missed often: its number is in EDX, the address in RAX.
    /// Keeps RAX.
    pub(crate) crowded: u64,
    /// How many more misses of each site are counted, 4 bytes for each.
    pub(crate) patience: u64,
    /// The constants of [`emit::constants`](super::emit::constants).
    pub(crate) constants: u64,
    /// Bytes of all of them.
    pub(crate) len: usize,
    /// For all translations: flags are stored whether anybody reads them or not, to be compared.
    pub(crate) keeps_all_flags: bool,
}

/// Emits the shared code.
#[allow(clippy::field_reassign_with_default, reason = "each address is that of the code emitted next")]
pub(crate) fn emit(asm: &mut Asm) -> Stubs {
    let mut stubs = Stubs::default();

    asm.align(16);
    stubs.constants = asm.here();
    for constant in constants::all() {
        asm.data(&constant.to_le_bytes());
    }
    let mxcsr = Mem::Near(stubs.constants + constants::MXCSR.offset());

    // Way in: 6 pushes and the return address are 56 bytes, so 8 more align the stack for calls.
    stubs.enter = asm.here();
    for register in CALLERS {
        asm.push(register);
    }
    asm.alu_imm(Alu::Sub, Size::Qword, Gpr::Rsp, 8);
    asm.mov(Size::Qword, Gpr::Rbp, Gpr::Rdi);
    asm.jmp_rm(Gpr::Rsi);

    // Ways out.
    let leave = asm.label_here();
    float::merge(asm);
    float::stop(asm);
    asm.alu_imm(Alu::Add, Size::Qword, Gpr::Rsp, 8);
    for register in CALLERS.into_iter().rev() {
        asm.pop(register);
    }
    asm.ret();

    stubs.pending = asm.here();
    asm.mov_imm(Gpr::Rax, exit::PENDING);
    asm.jmp(leave);
    stubs.interpret = asm.here();
    asm.mov_imm(Gpr::Rax, exit::INTERPRET);
    asm.jmp(leave);
    for (place, exit) in [(&mut stubs.link, exit::LINK), (&mut stubs.hot, exit::HOT)] {
        *place = asm.here();
        asm.shift(Shift::Shl, Size::Qword, Gpr::Rax, 8);
        asm.alu_imm(Alu::Or, Size::Qword, Gpr::Rax, exit as i32);
        asm.jmp(leave);
    }
    stubs.lookup = asm.here();
    stubs.untranslated = asm.here();
    let lookup = asm.label_here();
    asm.mov_store(Size::Qword, state_at(offset_of!(State, pc)), Gpr::Rax);
    asm.mov_imm(Gpr::Rax, exit::LOOKUP);
    asm.jmp(leave);

    // Goes on at `state.pc`.
    asm.align(16);
    stubs.dispatch = asm.here();
    let dispatch = asm.label_here();
    let wanted = asm.label();
    jump_if_wanted(asm, wanted);
    asm.mov(Size::Qword, Gpr::Rax, state_at(offset_of!(State, pc)));
    asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
    // Bit 55 tells the half: see `code::half`.
    asm.shift(Shift::Shr, Size::Qword, Gpr::Rdx, 55);
    asm.alu_imm(Alu::And, Size::Dword, Gpr::Rdx, 1);
    let stamps = offset_of!(Cpu, state) + offset_of!(State, stamp);
    asm.mov(Size::Qword, Gpr::Rdx, Mem::indexed(Gpr::Rbp, Gpr::Rdx, Scale::By8, stamps as i32 - BASE as i32));
    probe(asm, lookup);
    asm.bind(wanted);
    asm.mov_imm(Gpr::Rax, exit::PENDING);
    asm.jmp(leave);

    // Calls.
    for (vectors, place) in [(false, &mut stubs.access), (true, &mut stubs.access_keeping_vectors)] {
        asm.align(16);
        *place = asm.here();
        save(asm, vectors);
        asm.mov(Size::Qword, Gpr::Rsi, Gpr::Rax);
        // Where the translation goes on says which it is.
        asm.mov(Size::Qword, Gpr::R8, Mem::base(Gpr::Rsp, 0));
        call(asm, runtime::access as *const () as u64, mxcsr);
        restore(asm, vectors);
        return_unless(asm, Gpr::Rdx, dispatch);
    }

    asm.align(16);
    stubs.crowded = asm.here();
    save(asm, true);
    asm.mov_store(Size::Qword, KEPT, Gpr::Rax);
    asm.mov(Size::Qword, Gpr::Rsi, Gpr::Rdx);
    asm.mov(Size::Qword, Gpr::Rdx, Gpr::Rax);
    call(asm, sites::miss as *const () as u64, mxcsr);
    restore(asm, true);
    asm.mov(Size::Qword, Gpr::Rax, KEPT);
    asm.ret();

    asm.align(16);
    stubs.plain = asm.here();
    save(asm, false);
    asm.mov(Size::Qword, Gpr::Rsi, Gpr::Rdx);
    call(asm, runtime::plain as *const () as u64, mxcsr);
    restore(asm, false);
    return_unless(asm, Gpr::Rax, dispatch);

    asm.align(16);
    stubs.fallible = asm.here();
    save(asm, false);
    asm.mov(Size::Qword, Gpr::Rsi, Gpr::Rdx);
    asm.mov(Size::Dword, Gpr::Rdx, Gpr::Rcx);
    asm.mov(Size::Qword, Gpr::Rcx, Mem::base(Gpr::Rsp, 0));
    call(asm, runtime::fallible as *const () as u64, mxcsr);
    restore(asm, false);
    return_unless(asm, Gpr::Rax, dispatch);

    asm.align(16);
    stubs.system = asm.here();
    asm.mov(Size::Qword, Gpr::Rsi, Gpr::Rdx);
    asm.mov(Size::Dword, Gpr::Rdx, Gpr::Rcx);
    asm.mov(Size::Qword, Gpr::Rcx, Mem::base(Gpr::Rsp, 0));
    call(asm, runtime::system as *const () as u64, mxcsr);
    asm.alu_imm(Alu::Add, Size::Qword, Gpr::Rsp, 8);
    asm.jmp(dispatch);

    stubs
}

/// Returns to the translation if `faulted` is 0, else gives it up and goes to `dispatch`.
fn return_unless(asm: &mut Asm, faulted: Gpr, dispatch: Label) {
    let leave = asm.label();
    asm.test(Size::Dword, faulted, faulted);
    asm.jcc(Cond::Ne, leave);
    asm.ret();
    asm.bind(leave);
    asm.alu_imm(Alu::Add, Size::Qword, Gpr::Rsp, 8);
    asm.jmp(dispatch);
}

/// Jumps to `wanted` if something is pending that matters now. Changes RAX and the host's flags.
pub(crate) fn jump_if_wanted(asm: &mut Asm, wanted: Label) {
    test_wanted(asm);
    asm.jcc(Cond::Ne, wanted);
}

/// Jumps to `back` if nothing is pending that matters now. Changes RAX and the host's flags.
pub(crate) fn jump_unless_wanted(asm: &mut Asm, back: Label) {
    test_wanted(asm);
    asm.jcc(Cond::E, back);
}

fn test_wanted(asm: &mut Asm) {
    asm.mov(Size::Qword, Gpr::Rax, state_at(State::PENDING));
    asm.mov(Size::Dword, Gpr::Rax, Mem::base(Gpr::Rax, 0));
    asm.test(Size::Dword, state_at(offset_of!(State, interest)), Gpr::Rax);
}

/// Goes where the jump cache says for the address in RAX and the stamp in RDX, or to `miss`. Changes RCX.
pub(crate) fn probe(asm: &mut Asm, miss: Label) {
    // Entries are 32 bytes, found by the address in words.
    const MASK: i32 = ((JUMPS - 1) << 5) as i32;
    asm.mov(Size::Dword, Gpr::Rcx, Gpr::Rax);
    asm.shift(Shift::Shl, Size::Dword, Gpr::Rcx, 3);
    asm.alu_imm(Alu::And, Size::Dword, Gpr::Rcx, MASK);
    asm.alu(Alu::Add, Size::Qword, Gpr::Rcx, cpu_at(offset_of!(Cpu, code.jumps)));
    asm.alu(Alu::Cmp, Size::Qword, Gpr::Rax, Mem::base(Gpr::Rcx, offset_of!(Jump, pc) as i32));
    asm.jcc(Cond::Ne, miss);
    asm.alu(Alu::Cmp, Size::Qword, Gpr::Rdx, Mem::base(Gpr::Rcx, offset_of!(Jump, stamp) as i32));
    asm.jcc(Cond::Ne, miss);
    asm.mov(Size::Qword, Gpr::Rcx, Mem::base(Gpr::Rcx, offset_of!(Jump, block) as i32));
    asm.jmp_rm(Mem::base(Gpr::Rcx, offset_of!(Block, code) as i32));
}

/// No access is under way while it holds a scratch register.
const KEPT: Mem = cpu_at(offset_of!(Cpu, frame.transfer));

/// A word of [`Frame::saved`](super::Frame), which is free between calls.
pub(crate) fn saved_at(index: usize) -> Mem {
    cpu_at(offset_of!(Cpu, frame.saved) + 8 * index)
}

fn vector_at(index: usize) -> Mem {
    cpu_at(offset_of!(Cpu, frame.vectors) + 16 * index)
}

fn save(asm: &mut Asm, vectors: bool) {
    for (index, register) in VOLATILE.into_iter().enumerate() {
        asm.mov_store(Size::Qword, saved_at(index), register);
    }
    if vectors {
        for index in 0..VECTORS {
            asm.sse_store(MOVUPS_STORE, vector_at(index), Xmm::new(FIRST_VECTOR + index as u8));
        }
    }
}

fn restore(asm: &mut Asm, vectors: bool) {
    for (index, register) in VOLATILE.into_iter().enumerate() {
        asm.mov(Size::Qword, register, saved_at(index));
    }
    if vectors {
        for index in 0..VECTORS {
            asm.sse(MOVUPS, Xmm::new(FIRST_VECTOR + index as u8), vector_at(index));
        }
    }
}

/// Calls a function in Rust, with the vCPU as its first argument. `mxcsr` is its value by default. On entry the stack holds the return address of the
/// stub: 8 bytes more align it.
fn call(asm: &mut Asm, function: u64, mxcsr: Mem) {
    float::merge(asm);
    asm.lea(Size::Qword, Gpr::Rdi, Mem::base(Gpr::Rbp, -(BASE as i32)));
    asm.alu_imm(Alu::Sub, Size::Qword, Gpr::Rsp, 8);
    asm.mov_imm(Gpr::Rax, function);
    asm.call_rm(Gpr::Rax);
    float::resume(asm, mxcsr);
    asm.alu_imm(Alu::Add, Size::Qword, Gpr::Rsp, 8);
}
