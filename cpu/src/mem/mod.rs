//! Memory as instructions see it: translated, permission-checked, ordered.
//!
//! The fast path of each access is one lookup in the software TLB (`tlb`) and one access to host memory
//! (`host`); everything else is out of line: `slow` fills the TLB, splits accesses that leave a page, reaches
//! devices and reports faults with their syndrome; `atomic` has exclusives and read-modify-writes; `fetch`
//! translates for instructions. Signatures here are what `exec` calls. Deliberately absent: big-endian data.
//!
//! Memory model: a host at least as strong as Armv8 for plain accesses; ordered accesses and barriers are the
//! host's own sequentially consistent atomics and fences (Arm ARM B2.3).

mod atomic;
mod fetch;
mod host;
mod regime;
mod replay;
mod slow;
#[cfg(test)]
mod tests;
pub(crate) mod tlb;
mod writers;

pub(crate) use atomic::Monitor;
pub use fetch::fetch_as;
pub(crate) use host::HostRam;
pub(crate) use replay::{Replay, Writes};
pub(crate) use tlb::{Invalidation, untagged};
pub(crate) use writers::Writers;

use hw::Pa;

use crate::state::SysRegs;
use crate::{Cpu, Exception};
use fetch::FetchTlb;
use regime::{Controls, Regime};
use tlb::Tlb;

/// A vCPU's translation caches and exclusive monitor.
pub struct Context {
    pub(crate) tlb: Tlb,
    fetch: FetchTlb,
    regime: Regime,
    pub(crate) monitor: Monitor,
    /// What is written is noted, to be undone.
    replay: Option<Box<Replay>>,
}

impl Context {
    pub(crate) fn new(sys: &SysRegs) -> Self {
        Self {
            tlb: Tlb::new(),
            fetch: FetchTlb::new(),
            regime: Regime::new(&Controls::el1(sys)),
            monitor: Monitor::default(),
            replay: None,
        }
    }

    /// Whether stage 1 translation is on.
    pub(crate) fn mmu_on(&self) -> bool {
        self.regime.mmu_on()
    }

    /// Where `va` leads by the tables of now, whatever their permissions and access flags say.
    pub(crate) fn look_up(&self, va: u64, memory: &HostRam) -> Option<Pa> {
        self.regime.look_up(va, memory).map(Pa)
    }

    /// What the exclusive monitor watches, if anything.
    pub(crate) fn monitor(&self) -> Option<Monitor> {
        self.monitor.is_set().then_some(self.monitor)
    }

    /// Puts back what [`Self::monitor`] has given.
    pub(crate) fn set_monitor(&mut self, monitor: Option<Monitor>) {
        self.monitor = monitor.unwrap_or_default();
    }

    /// Whether an exclusive load has been made and not yet paired.
    pub(crate) fn has_monitor(&self) -> bool {
        self.monitor.is_set()
    }

    /// An address as the program counter takes it (D8.2.5: without the tag, where tags are ignored).
    #[inline]
    pub(crate) fn branch_target(&self, va: u64) -> u64 {
        self.regime.branch_target(va)
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
#[allow(missing_docs, reason = "the names of the instructions: LDADD, LDCLR and so on")]
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

impl AtomicOp {
    /// All of them, by number: what handlers and emitters can be generic over.
    pub(crate) const ALL: [Self; 9] = [
        Self::Add,
        Self::Clr,
        Self::Eor,
        Self::Set,
        Self::Smax,
        Self::Smin,
        Self::Umax,
        Self::Umin,
        Self::Swp,
    ];
}

/// How an ordinary access differs from a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// No more than data dependencies.
    Relaxed,
    /// LDAR, LDAPR, STLR and the A and L forms of exclusives and atomics: aligned, ordered.
    Ordered,
}

/// Whether all of `bytes` at `va` lie in the page of `tag`.
#[inline(always)]
const fn hits(va: u64, bytes: u64, tag: u64) -> bool {
    va.wrapping_add(bytes - 1) ^ tag <= 0xfff
}

impl Cpu {
    /// Loads a value. Any alignment, unless SCTLR_EL1.A or Device memory forbids it.
    #[inline(always)]
    pub(crate) fn load<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        let entry = self.mem.tlb.current(va);
        if hits(va, T::BYTES, entry.tag_r) {
            // SAFETY: a matching tag says that `addend` leads to the RAM behind this page.
            return Ok(unsafe { host::load(va.wrapping_add(entry.addend)) });
        }
        self.load_slow(va, self.at_el0())
    }

    /// Stores a value.
    #[inline(always)]
    pub(crate) fn store<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        let entry = self.mem.tlb.current(va);
        if hits(va, T::BYTES, entry.tag_w) {
            // SAFETY: as in `load`; the write tag also says that no code has been decoded from the page.
            unsafe { host::store(va.wrapping_add(entry.addend), value) };
            return Ok(());
        }
        self.store_slow(va, value, self.at_el0())
    }

    /// Loads all of a value at once, whatever its alignment, if the TLB leads straight to it. For instructions that make
    /// several accesses, each of which would be served so.
    #[inline(always)]
    pub(crate) fn load_fast<T: Scalar>(&self, va: u64) -> Option<T> {
        let entry = self.mem.tlb.current(va);
        // SAFETY: as in `load`.
        hits(va, T::BYTES, entry.tag_r).then(|| unsafe { host::load(va.wrapping_add(entry.addend)) })
    }

    /// Stores all of a value at once, like [`Self::load_fast`]. Tells if it has.
    #[inline(always)]
    pub(crate) fn store_fast<T: Scalar>(&mut self, va: u64, value: T) -> bool {
        let entry = self.mem.tlb.current(va);
        let hit = hits(va, T::BYTES, entry.tag_w);
        if hit {
            // SAFETY: as in `store`.
            unsafe { host::store(va.wrapping_add(entry.addend), value) };
        }
        hit
    }

    /// LDTR: as if from EL0.
    #[inline(always)]
    pub(crate) fn load_unprivileged<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        let entry = self.mem.tlb.user(va);
        if hits(va, T::BYTES, entry.tag_r) {
            // SAFETY: as in `load`.
            return Ok(unsafe { host::load(va.wrapping_add(entry.addend)) });
        }
        self.load_slow(va, true)
    }

    /// STTR: as if from EL0.
    #[inline(always)]
    pub(crate) fn store_unprivileged<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        let entry = self.mem.tlb.user(va);
        if hits(va, T::BYTES, entry.tag_w) {
            // SAFETY: as in `store`.
            unsafe { host::store(va.wrapping_add(entry.addend), value) };
            return Ok(());
        }
        self.store_slow(va, value, true)
    }

    /// LDP and LDNP: both or none. `T` is the type of one half; each half must be `T`-aligned only if alignment is
    /// checked at all.
    #[inline(always)]
    pub(crate) fn load_pair<T: Scalar>(&mut self, va: u64) -> Result<(T, T), Exception> {
        let entry = self.mem.tlb.current(va);
        if hits(va, 2 * T::BYTES, entry.tag_r) {
            let at = va.wrapping_add(entry.addend);
            // SAFETY: as in `load`, for both halves.
            return Ok(unsafe { (host::load(at), host::load(at.wrapping_add(T::BYTES))) });
        }
        self.load_pair_slow(va)
    }

    /// STP and STNP: both or none; a pair of 64-bit registers to a device is one 16-byte write.
    #[inline(always)]
    pub(crate) fn store_pair<T: Scalar>(&mut self, va: u64, first: T, second: T) -> Result<(), Exception> {
        let entry = self.mem.tlb.current(va);
        if hits(va, 2 * T::BYTES, entry.tag_w) {
            let at = va.wrapping_add(entry.addend);
            // SAFETY: as in `store`, for both halves.
            unsafe {
                host::store(at, first);
                host::store(at.wrapping_add(T::BYTES), second);
            }
            return Ok(());
        }
        self.store_pair_slow(va, first, second)
    }

    /// LDAR, LDLAR, LDAPR: aligned, acquire.
    #[inline(always)]
    pub(crate) fn load_acquire<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        let entry = self.mem.tlb.current(va);
        if va & (T::BYTES - 1) == 0 && hits(va, T::BYTES, entry.tag_r) {
            // SAFETY: as in `load`; host pages are aligned as guest pages are, so the host address is aligned too.
            return Ok(unsafe { host::load_acquire(va.wrapping_add(entry.addend)) });
        }
        self.load_acquire_slow(va)
    }

    /// STLR, STLLR: aligned, release, and not passed by a later [`Self::load_acquire`].
    #[inline(always)]
    pub(crate) fn store_release<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        let entry = self.mem.tlb.current(va);
        if va & (T::BYTES - 1) == 0 && hits(va, T::BYTES, entry.tag_w) {
            // SAFETY: as in `store` and `load_acquire`.
            unsafe { host::store_release(va.wrapping_add(entry.addend), value) };
            return Ok(());
        }
        self.store_release_slow(va, value)
    }

    /// A load or store is about to use the stack pointer as its base.
    ///
    /// # Errors
    /// SP alignment fault, if SCTLR_EL1.SA (at EL0: SA0) asks for 16-byte alignment and it is not there.
    #[inline(always)]
    pub(crate) fn check_stack_pointer(&self) -> Result<(), Exception> {
        if self.state.x[usize::from(crate::state::SP)] & 15 == 0 {
            return Ok(());
        }
        self.misaligned_stack_pointer()
    }

    #[cold]
    fn misaligned_stack_pointer(&self) -> Result<(), Exception> {
        // SCTLR_EL1.SA0 is bit 4, SA bit 3.
        let checked = self.state.sys.sctlr >> if self.at_el0() { 4 } else { 3 } & 1 != 0;
        if checked { Err(Exception::sp_alignment()) } else { Ok(()) }
    }

    /// Whether the vCPU is at EL0.
    #[inline(always)]
    pub(crate) fn at_el0(&self) -> bool {
        self.state.pstate.el() == 0
    }

    /// PSTATE.EL has changed: other permissions apply.
    #[inline]
    pub(crate) fn memory_el_changed(&mut self) {
        let el0 = self.at_el0();
        self.mem.tlb.set_el0(el0);
    }

    /// PSTATE.PAN has been set: what EL1 could reach of EL0's memory goes.
    pub(crate) fn memory_pan_set(&mut self) {
        self.mem.tlb.drop_tracked();
    }

    /// A register that translation depends on has changed.
    pub(crate) fn memory_regime_changed(&mut self) {
        let old = self.mem.regime;
        self.mem.regime = Regime::new(&Controls::el1(&self.state.sys));
        if old.same_space_as(&self.mem.regime) {
            return;
        }
        let el0 = self.at_el0();
        if old.differs_only_in_process(&self.mem.regime) {
            self.mem.tlb.leave_user(el0);
            if let Some(lower_only) = self.mem.fetch.leave_context() {
                self.mapping_changed(lower_only);
            }
        } else {
            self.mem.tlb.clear_all();
            self.mem.tlb.leave_user(el0);
            self.mem.fetch.clear();
            self.mapping_changed(false);
            self.context_changed();
        }
    }

    /// Bytes have come to be watched or are so no longer: what the TLB has of their pages goes.
    pub(crate) fn memory_watch_changed(&mut self, first: u64, last: u64) {
        let va = first & !(tlb::PAGE - 1);
        let pages = (last - va) / tlb::PAGE + 1;
        self.mem.tlb.invalidate(Invalidation::Pages { va, pages, asid: None });
    }

    /// Does what a TLBI instruction says, for this vCPU.
    pub(crate) fn invalidate(&mut self, what: Invalidation) {
        self.mem.tlb.invalidate(what);
        if let Some(lower_only) = self.mem.fetch.invalidate(what) {
            self.mapping_changed(lower_only);
        }
    }
}
