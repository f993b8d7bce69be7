//! Memory as instructions see it: translated, permission-checked, ordered.
//!
//! The fast path of each access is one lookup in the software TLB; everything else is out of line. Signatures below
//! are what `exec::memory` and `exec::atomic` call.

use crate::sys::cluster::Cluster;
use crate::{Cpu, Exception};

/// A vCPU's translation caches and exclusive monitor.
#[derive(Debug, Default)]
pub struct Context {}

impl Context {
    pub(crate) fn new(_cluster: &Cluster, _index: usize) -> Self {
        Self {}
    }
}

/// A type that one access transfers: 1 to 16 bytes, little-endian.
pub trait Scalar: Copy + Default + PartialEq + 'static {
    /// Bytes.
    const BYTES: u64 = size_of::<Self>() as u64;
    /// Zero-extended to 128 bits.
    fn to_u128(self) -> u128;
    /// The low bytes of `value`.
    fn from_u128(value: u128) -> Self;
}

macro_rules! scalar {
    ($($t:ty)*) => {$(
        impl Scalar for $t {
            #[inline(always)]
            fn to_u128(self) -> u128 {
                self as u128
            }
            #[inline(always)]
            fn from_u128(value: u128) -> Self {
                value as Self
            }
        }
    )*};
}

scalar!(u8 u16 u32 u64 u128);

/// What an atomic read-modify-write does with the value in memory and its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AtomicOp {
    Add,
    /// Clears the operand's bits.
    Clr,
    Eor,
    Set,
    Smax,
    Smin,
    Umax,
    Umin,
    Swp,
}

/// How an ordinary access differs from a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No more than data dependencies.
    Relaxed,
    /// LDAR, LDAPR, STLR and the A and L forms of exclusives and atomics: aligned, ordered.
    Ordered,
}

#[allow(unused_variables, reason = "the bodies come with the MMU")]
impl Cpu {
    /// Loads a value. Any alignment, unless SCTLR_EL1.A or Device memory forbids it.
    #[inline(always)]
    pub(crate) fn load<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        Err(Exception::undefined())
    }

    /// Stores a value.
    #[inline(always)]
    pub(crate) fn store<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// LDTR: as if from EL0.
    #[inline(always)]
    pub(crate) fn load_unprivileged<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        Err(Exception::undefined())
    }

    /// STTR: as if from EL0.
    #[inline(always)]
    pub(crate) fn store_unprivileged<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// LDP and LDNP: both or none. `T` is the type of one half; each half must be `T`-aligned only if alignment is
    /// checked at all.
    #[inline(always)]
    pub(crate) fn load_pair<T: Scalar>(&mut self, va: u64) -> Result<(T, T), Exception> {
        Err(Exception::undefined())
    }

    /// STP and STNP: both or none; a pair of 64-bit registers to a device is one 16-byte write.
    #[inline(always)]
    pub(crate) fn store_pair<T: Scalar>(&mut self, va: u64, first: T, second: T) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// Several consecutive elements of LD1-LD4: checks that all of `[va, va + bytes)` can be read, so that the loads
    /// that follow cannot fault half-way. Reads nothing.
    pub(crate) fn probe_load(&mut self, va: u64, bytes: u64) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// As [`Self::probe_load`], for ST1-ST4.
    pub(crate) fn probe_store(&mut self, va: u64, bytes: u64) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// LDAR, LDLAR, LDAPR: aligned, acquire.
    #[inline(always)]
    pub(crate) fn load_acquire<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        Err(Exception::undefined())
    }

    /// STLR, STLLR: aligned, release, and not passed by a later [`Self::load_acquire`].
    #[inline(always)]
    pub(crate) fn store_release<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// LDXR, LDAXR: aligned; remembers address, size and value. LDXP of two 32-bit registers is `T = u64`, of two
    /// 64-bit registers `T = u128`, low half first.
    pub(crate) fn load_exclusive<T: Scalar>(&mut self, va: u64, order: Order) -> Result<T, Exception> {
        Err(Exception::undefined())
    }

    /// STXR, STLXR, STXP, STLXP: whether the store was made. Clears the monitor.
    pub(crate) fn store_exclusive<T: Scalar>(&mut self, va: u64, value: T, order: Order) -> Result<bool, Exception> {
        Err(Exception::undefined())
    }

    /// CLREX.
    #[inline]
    pub(crate) fn clear_exclusive(&mut self) {}

    /// LDADD, LDCLR, ... SWP: the value that was in memory.
    pub(crate) fn atomic<T: Scalar>(
        &mut self,
        op: AtomicOp,
        va: u64,
        operand: T,
        order: Order,
    ) -> Result<T, Exception> {
        Err(Exception::undefined())
    }

    /// CAS, and CASP as `T = u64` or `u128`: stores `new` if memory holds `expected`; the value that was in memory.
    pub(crate) fn compare_and_swap<T: Scalar>(
        &mut self,
        va: u64,
        expected: T,
        new: T,
        order: Order,
    ) -> Result<T, Exception> {
        Err(Exception::undefined())
    }

    /// DC ZVA: zeroes the aligned 64 bytes around `va`.
    pub(crate) fn zero_block(&mut self, va: u64) -> Result<(), Exception> {
        Err(Exception::undefined())
    }

    /// Translates `va` for instruction fetch, at the current EL. The exception is an instruction abort with all of
    /// its syndrome; misaligned addresses never come here.
    pub(crate) fn translate_fetch(&mut self, va: u64) -> Result<hw::Pa, Exception> {
        Err(Exception::undefined())
    }

    /// The page of `pa` now holds decoded code: no vCPU may write to it any more without
    /// [`crate::interp::CodePages::written`] being told. Returns when every running vCPU has dropped its fast write
    /// path to that page.
    pub(crate) fn protect_code_page(&mut self, pa: hw::Pa) {}
}
