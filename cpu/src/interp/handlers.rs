//! Every operation's handler as a function that can be called through a pointer.
//!
//! The interpreter's loop contains the handlers of the rows that the table calls hot, and calls the others from here. A
//! translating tier needs all of them: it compiles a row for which it has no emitter as a call. So they have the C calling
//! convention, and an exception is handed out through a pointer. They unwind, so that a fault of ours is reported as
//! one.

use std::mem::MaybeUninit;

use crate::exec::atomic::AtomicOp;
use crate::exec::memory::{S8, S8w, S16, S16w, S32, U8, U16, U32, U64};
#[allow(clippy::wildcard_imports, reason = "the variants that handlers in the table are generic over")]
use crate::exec::width::*;
use crate::insn::{Insn, Op, ROW_COUNT};
use crate::{Cpu, Exception};

/// Whether an exception was raised; if so, the last argument has been written.
pub type Raising = extern "C-unwind" fn(&mut Cpu, &Insn, &mut MaybeUninit<Exception>) -> bool;

/// A handler, by the [`Kind`](crate::insn::Kind) that says how it is called.
#[derive(Clone, Copy, Debug)]
pub enum Handler {
    /// Then comes the next instruction.
    Plain(extern "C-unwind" fn(&mut Cpu, &Insn)),
    /// Then comes the next instruction, or the exception.
    Fallible(Raising),
    /// Then comes `imm` if it returns true, else the next instruction.
    Branch(extern "C-unwind" fn(&mut Cpu, &Insn) -> bool),
    /// Then comes the address that it returns.
    Indirect(extern "C-unwind" fn(&mut Cpu, &Insn) -> u64),
    /// Is called with `state.pc` at the next instruction; then comes what `state.pc` is, or the exception.
    System(Raising),
}

impl Op {
    /// The operation's handler. It never tests what the decoder has: it must be given an [`Insn`] of this operation.
    #[inline]
    #[must_use]
    pub fn handler(self) -> Handler {
        HANDLERS[self as usize]
    }
}

macro_rules! plain {
    ($($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn) {
            $($handler)*(cpu, i);
        }
        Handler::Plain(call)
    }};
}

macro_rules! raising {
    ($kind:ident, $($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn, raised: &mut MaybeUninit<Exception>) -> bool {
            match $($handler)*(cpu, i) {
                Ok(()) => false,
                Err(exception) => {
                    raised.write(exception);
                    true
                }
            }
        }
        Handler::$kind(call)
    }};
}

macro_rules! fallible {
    ($($handler:tt)*) => { raising!(Fallible, $($handler)*) };
}

macro_rules! system {
    ($($handler:tt)*) => { raising!(System, $($handler)*) };
}

macro_rules! branch {
    ($($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn) -> bool {
            $($handler)*(cpu, i)
        }
        Handler::Branch(call)
    }};
}

macro_rules! indirect {
    ($($handler:tt)*) => {{
        extern "C-unwind" fn call(cpu: &mut Cpu, i: &Insn) -> u64 {
            $($handler)*(cpu, i)
        }
        Handler::Indirect(call)
    }};
}

/// In the order of [`Op`]: the rows, and the engine's own three.
static HANDLERS: [Handler; ROW_COUNT + 3] = include!(concat!(env!("OUT_DIR"), "/handlers.rs"));

#[cfg(test)]
mod tests {
    use hw::Pa;

    use super::*;
    use crate::Features;
    use crate::insn::{Kind, Memory, ROWS, Role, Row, Slot, decode, op_of};
    use crate::state::{Flags, SP};
    use crate::testbed::{Bench, RAM};

    /// Where instructions are, and around which they find memory.
    const AT: u64 = RAM + 0x8000;
    const MEMORY: std::ops::Range<u64> = AT - 0x800..AT + 0x800;
    const WORDS: usize = 24;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            self.0 ^ self.0 >> 29
        }

        fn vector(&mut self) -> u128 {
            u128::from(self.next()) << 64 | u128::from(self.next())
        }
    }

    /// What programs see of a vCPU, and what they see of memory.
    #[derive(Clone, Debug, PartialEq)]
    struct Seen {
        x: [u64; 32],
        v: [u128; 32],
        nzcv: u32,
    }

    /// Everything that an instruction's execution gives beside registers.
    #[derive(Debug, PartialEq)]
    struct Outcome {
        next: Result<u64, Exception>,
        fpsr: u32,
        memory: Vec<u8>,
    }

    fn call(cpu: &mut Cpu, i: &Insn) -> Result<u64, Exception> {
        let mut raised = MaybeUninit::uninit();
        match i.op.handler() {
            Handler::Plain(handler) => handler(cpu, i),
            Handler::Branch(handler) => return Ok(handler(cpu, i).into()),
            Handler::Indirect(handler) => return Ok(handler(cpu, i)),
            Handler::Fallible(handler) | Handler::System(handler) => {
                if handler(cpu, i, &mut raised) {
                    // SAFETY: the handler has written it.
                    return Err(unsafe { raised.assume_init() });
                }
            }
        }
        Ok(0)
    }

    fn run(bench: &Bench, cpu: &mut Cpu, i: &Insn, before: &Seen) -> (Seen, Outcome) {
        let bytes: Vec<u8> = MEMORY.map(|at| ((at * 7) >> 2) as u8).collect();
        bench.ram.write(Pa(MEMORY.start), &bytes).unwrap();
        // No exclusive access is pending.
        let clrex = decode(0xd503_3f5f, AT, Features::BASE, false);
        call(cpu, &clrex).unwrap();
        cpu.state.x[..32].copy_from_slice(&before.x);
        cpu.state.v = before.v;
        cpu.state.flags = Flags::from_nzcv(before.nzcv);
        cpu.state.fpsr = 0;
        let next = call(cpu, i);
        let mut x = [0; 32];
        x.copy_from_slice(&cpu.state.x[..32]);
        let mut memory = bytes;
        bench.ram.read(Pa(MEMORY.start), &mut memory).unwrap();
        let after = Seen { x, v: cpu.state.v, nzcv: cpu.state.flags.nzcv() };
        (after, Outcome { next, fpsr: cpu.state.fpsr, memory })
    }

    /// Which general and vector registers the row's operands of these roles are.
    fn set(row: &Row, i: &Insn, is_meant: fn(Role) -> bool) -> ([bool; 34], [bool; 32]) {
        let (mut x, mut v) = ([false; 34], [false; 32]);
        for register in row.registers.iter().filter(|register| is_meant(register.role)) {
            let first = usize::from(i.register(register.slot));
            for n in first..first + usize::from(register.count) {
                if register.role.is_vector() {
                    v[n & 31] = true;
                } else if n < 31 || n == first {
                    x[n] = true;
                }
            }
        }
        (x, v)
    }

    /// A word of the row with a meaning, if this number gives one.
    fn word_of(row: &Row, bits: u32, features: Features) -> Option<u32> {
        let mut word = bits & !row.mask | row.value;
        // Fields that should be ones.
        for field in ["rs", "rt2"].into_iter().filter_map(|name| row.field(name)) {
            if row.unpredictable(word) {
                word = field.set(word, 31);
            }
        }
        (op_of(word, features) == row.op && !row.unpredictable(word)).then_some(word)
    }

    /// Executes the instruction with these registers, and with others where it should not matter. Returns what speaks
    /// against the row's sets.
    fn violation(bench: &Bench, cpu: &mut Cpu, row: &Row, i: &Insn, random: &mut Random) -> Option<String> {
        let (reads, writes) = (set(row, i, Role::reads), set(row, i, Role::writes));
        let mut before = Seen { x: [0; 32], v: [0; 32], nzcv: random.next() as u32 & 0xf << 28 };
        before.x.fill_with(|| random.next());
        before.v.fill_with(|| random.vector());
        if row.memory != Memory::None {
            for (slot, value) in [(Slot::Rm, random.next() & 0x70), (Slot::Rn, AT)] {
                let number = i.register(slot);
                if number <= SP && row.register(slot).is_some_and(|r| !r.role.is_vector()) {
                    before.x[usize::from(number)] = value;
                }
            }
        }
        let mut other = before.clone();
        for n in 0..32 {
            if !reads.0[n] {
                other.x[n] = random.next();
            }
            if !reads.1[n] {
                other.v[n] = random.vector();
            }
        }
        if !row.reads_flags {
            other.nzcv = random.next() as u32 & 0xf << 28;
        }
        cpu.state.fpcr = if random.next() & 1 == 0 { 0 } else { random.next() as u32 & 0x03c0_0000 };
        let fpcr = cpu.state.fpcr;
        let (after, outcome) = run(bench, cpu, i, &before);
        cpu.state.fpcr = fpcr;
        let (other_after, other_outcome) = run(bench, cpu, i, &other);

        if outcome != other_outcome {
            return Some("reads more than it names".into());
        }
        for (after, before) in [(&after, &before), (&other_after, &other)] {
            if let Some(n) = (0..32).find(|&n| !writes.0[n] && after.x[n] != before.x[n]) {
                return Some(format!("writes x{n}"));
            }
            if let Some(n) = (0..32).find(|&n| !writes.1[n] && after.v[n] != before.v[n]) {
                return Some(format!("writes v{n}"));
            }
            if !row.writes_flags && after.nzcv != before.nzcv {
                return Some("writes flags".into());
            }
        }
        if outcome.next.is_err() {
            return None;
        }
        if let Some(n) = (0..32).find(|&n| writes.0[n] && after.x[n] != other_after.x[n]) {
            return Some(format!("makes x{n} from more than it names"));
        }
        if let Some(n) = (0..32).find(|&n| writes.1[n] && after.v[n] != other_after.v[n]) {
            return Some(format!("makes v{n} from more than it names"));
        }
        (row.writes_flags && after.nzcv != other_after.nzcv)
            .then(|| "makes flags from more than it names".into())
    }

    #[test]
    fn handlers_use_only_registers_and_flags_that_their_rows_name() {
        let bench = Bench::new(1);
        let mut cpu = bench.cpu(0);
        cpu.state.sys.cpacr = 3 << 20; // FPEN: no trap
        let all = ROWS.iter().fold(Features::BASE, |features, row| features.with(row.feature));
        let mut random = Random(1);
        let mut violations = Vec::new();
        for row in ROWS.iter().filter(|row| row.kind != Kind::System) {
            let words: Vec<u32> = (0..100 * WORDS)
                .filter_map(|_| word_of(row, random.next() as u32, all))
                .take(WORDS)
                .collect();
            assert!(!words.is_empty(), "no word of {}", row.name);
            let found = words.into_iter().find_map(|word| {
                let i = decode(word, AT, all, false);
                Some((word, violation(&bench, &mut cpu, row, &i, &mut random)?))
            });
            violations.extend(found.map(|(word, what)| format!("{} ({word:#010x}) {what}", row.name)));
        }
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    #[test]
    fn handlers_are_of_the_kind_that_their_operations_have() {
        let ops = ROWS.iter().map(|row| row.op).chain([Op::Undefined, Op::FpTrapped, Op::FallThrough]);
        for op in ops {
            let kind = match op.handler() {
                Handler::Plain(_) => Kind::Plain,
                Handler::Fallible(_) => Kind::Fallible,
                Handler::Branch(_) => Kind::Branch,
                Handler::Indirect(_) => Kind::Indirect,
                Handler::System(_) => Kind::System,
            };
            assert_eq!(kind, op.kind(), "{op:?}");
        }
    }

    /// The name of an operation's emitter.
    fn emitter(op: Op) -> Option<&'static str> {
        macro_rules! emit {
            ($($path:tt)*) => {
                Some(stringify!($($path)*))
            };
        }
        macro_rules! call {
            () => {
                None
            };
        }
        include!(concat!(env!("OUT_DIR"), "/emitters.rs"))
    }

    #[test]
    fn translations_call_the_handlers_of_rows_without_emitter() {
        for row in &ROWS {
            assert_eq!(emitter(row.op).is_some(), row.has_emitter, "{}", row.name);
        }
        assert_eq!(emitter(Op::Undefined), None);
    }
}
