//! What translated code calls: memory accesses that miss the TLB, and the interpreter's handlers.
//!
//! All guest registers that memory has older values of have been written back before the call, except that `state.pc`
//! is not kept: an instruction is named by its place in its page, and the page by the address that the call returns to.
//! A panic cannot unwind through translated code: it is caught here, translated code is left, and it goes on from there.

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::insn::Insn;
use crate::interp::Handler;
use crate::mem::Scalar;
use crate::state::pending;
use crate::{Cpu, Exception};

/// What an access gives: the value that was read, zero-extended, and whether an exception has been taken.
#[repr(C)]
pub(crate) struct Reply {
    value: u64,
    faulted: u64,
}

/// A memory access as translated code describes it to [`access`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u32);

impl Access {
    const SIZE: u32 = 7;
    const STORE: u32 = 1 << 3;
    const PAIR: u32 = 1 << 4;
    const UNPRIVILEGED: u32 = 1 << 5;
    const ORDERED: u32 = 1 << 6;
    const PLACE_SHIFT: u32 = 16;

    /// An access of `1 << log2` bytes, by the instruction at `pc`. 16 bytes, and pairs, go through
    /// [`Frame::transfer`](super::Frame::transfer).
    pub(crate) const fn new(log2: u32, pc: u64) -> Self {
        Self(log2 & Self::SIZE | ((pc & 0xfff) as u32) << Self::PLACE_SHIFT)
    }

    /// A store.
    pub(crate) const fn store(self) -> Self {
        Self(self.0 | Self::STORE)
    }

    /// Two of them, one behind the other.
    pub(crate) const fn pair(self) -> Self {
        Self(self.0 | Self::PAIR)
    }

    /// With the rights of EL0.
    pub(crate) const fn unprivileged(self) -> Self {
        Self(self.0 | Self::UNPRIVILEGED)
    }

    /// Load-acquire or store-release: aligned.
    pub(crate) const fn ordered(self) -> Self {
        Self(self.0 | Self::ORDERED)
    }

    const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    pub(crate) const fn is_pair(self) -> bool {
        self.has(Self::PAIR)
    }

    pub(crate) const fn is_store(self) -> bool {
        self.has(Self::STORE)
    }

    pub(crate) const fn is_unprivileged(self) -> bool {
        self.has(Self::UNPRIVILEGED)
    }

    pub(crate) const fn is_ordered(self) -> bool {
        self.has(Self::ORDERED)
    }

    /// The log2 of its bytes; of each of two.
    pub(crate) const fn log2(self) -> u32 {
        self.0 & Self::SIZE
    }
}

/// An access that the TLB could not serve.
pub(super) extern "C" fn access(cpu: &mut Cpu, va: u64, what: u32, value: u64, back: u64) -> Reply {
    let what = Access(what);
    cpu.counts.slow_accesses += 1;
    let done = cpu.guarded(|cpu| match what.log2() {
        0 => access_as::<u8>(cpu, va, what, value),
        1 => access_as::<u16>(cpu, va, what, value),
        2 => access_as::<u32>(cpu, va, what, value),
        3 => access_as::<u64>(cpu, va, what, value),
        _ => access_as::<u128>(cpu, va, what, value),
    });
    match done {
        Some(Ok(value)) => Reply { value, faulted: 0 },
        Some(Err(exception)) => {
            cpu.raise(exception, back, what.0 >> Access::PLACE_SHIFT);
            Reply { value: 0, faulted: 1 }
        }
        None => Reply { value: 0, faulted: 1 },
    }
}

fn access_as<T: Scalar>(cpu: &mut Cpu, va: u64, what: Access, value: u64) -> Result<u64, Exception> {
    let wide = T::BYTES == 16;
    let from = |words: [u64; 2]| T::from_u128(u128::from(words[0]) | u128::from(words[1]) << 64);
    let to = |value: T| [value.to_u128() as u64, (value.to_u128() >> 64) as u64];
    let [a, b, c, d] = cpu.frame.transfer;
    match (what.has(Access::PAIR), what.has(Access::STORE)) {
        (false, false) => {
            let value: T = if what.has(Access::ORDERED) {
                cpu.load_acquire(va)?
            } else if what.has(Access::UNPRIVILEGED) {
                cpu.load_unprivileged(va)?
            } else {
                cpu.load(va)?
            };
            let [low, high] = to(value);
            if wide {
                cpu.frame.transfer = [low, high, c, d];
            }
            Ok(low)
        }
        (false, true) => {
            let value = if wide { from([a, b]) } else { from([value, 0]) };
            if what.has(Access::ORDERED) {
                cpu.store_release(va, value)?;
            } else if what.has(Access::UNPRIVILEGED) {
                cpu.store_unprivileged(va, value)?;
            } else {
                cpu.store(va, value)?;
            }
            Ok(0)
        }
        (true, false) => {
            let (first, second): (T, T) = cpu.load_pair(va)?;
            let (first, second) = (to(first), to(second));
            cpu.frame.transfer =
                if wide { [first[0], first[1], second[0], second[1]] } else { [first[0], second[0], c, d] };
            Ok(0)
        }
        (true, true) => {
            let (first, second) =
                if wide { (from([a, b]), from([c, d])) } else { (from([a, 0]), from([b, 0])) };
            cpu.store_pair(va, first, second)?;
            Ok(0)
        }
    }
}

/// An instruction without an emitter that cannot fail. Tells if translated code is to be left, which it is after a panic.
pub(super) extern "C" fn plain(cpu: &mut Cpu, insn: &Insn) -> u32 {
    cpu.count_handler(insn);
    cpu.state.take_shown_flags();
    let done = cpu.guarded(|cpu| match insn.op.handler() {
        Handler::Plain(handler) => handler(cpu, insn),
        _ => unreachable!("translated as a plain instruction"),
    });
    done.is_none().into()
}

/// An instruction without an emitter that may fail. Tells if it has, and an exception has been taken.
pub(super) extern "C" fn fallible(cpu: &mut Cpu, insn: &Insn, place: u32, back: u64) -> u32 {
    cpu.count_handler(insn);
    cpu.state.take_shown_flags();
    match cpu.guarded(|cpu| cpu.call_fallible(insn)) {
        Some(Ok(())) => 0,
        Some(Err(exception)) => {
            cpu.raise(exception, back, place);
            1
        }
        None => 1,
    }
}

/// An instruction that ends a block in ways of its own.
pub(super) extern "C" fn system(cpu: &mut Cpu, insn: &Insn, place: u32, back: u64) {
    cpu.count_handler(insn);
    cpu.state.take_shown_flags();
    let pc = cpu.place_of(back, place);
    cpu.state.pc = pc.wrapping_add(4);
    if let Some(Err(exception)) = cpu.guarded(|cpu| cpu.call_fallible(insn)) {
        cpu.state.pc = pc;
        cpu.take_exception(exception);
    }
}

impl Cpu {
    fn count_handler(&mut self, insn: &Insn) {
        // The engine's own operations have no row.
        if let Some(count) = self.handler_calls.get_mut(insn.op as usize) {
            *count += 1;
        }
    }

    fn call_fallible(&mut self, insn: &Insn) -> Result<(), Exception> {
        let (Handler::Fallible(handler) | Handler::System(handler)) = insn.op.handler() else {
            unreachable!("translated as an instruction that may fail");
        };
        let mut exception = MaybeUninit::uninit();
        if handler(self, insn, &mut exception) {
            // SAFETY: the handler says that it has written the exception.
            return Err(unsafe { exception.assume_init() });
        }
        Ok(())
    }

    /// Does `work`. If it panics, translated code will be left at the next block border, and the panic goes on there.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.frame.panic = Some(panic);
                self.cluster.signal(self.index).raise(pending::RECHECK);
                None
            }
        }
    }

    /// The address of the instruction at `place` in the page of the translation that `back` is in.
    fn place_of(&self, back: u64, place: u32) -> u64 {
        let jit = self.jit.as_ref().expect("translated code is running");
        jit.page_of(back) | u64::from(place)
    }

    #[cold]
    fn raise(&mut self, exception: Exception, back: u64, place: u32) {
        self.state.take_shown_flags();
        self.state.pc = self.place_of(back, place);
        self.take_exception(exception);
    }
}
