//! Exclusives, atomic read-modify-writes and ordered accesses, out of line.
//!
//! An exclusive store is a compare-and-swap with the value that the exclusive load saw: a location that was changed
//! and changed back in between passes for untouched, which no program that follows Arm ARM (DDI 0487) B2.9.5 can
//! tell. Atomics are the host's own. On a device they end in an unsupported atomic fault.

use std::sync::atomic::{Ordering, fence};

use vmsa::AccessKind;

use super::slow::Place;
use super::{AtomicOp, Order, Scalar, hits, host};
use crate::exception::FaultStatus;
use crate::{Cpu, Exception};

/// What an exclusive load has seen. The monitor watches a physical location (B2.9.1), here by its host address: the
/// mapping of `va` may change meanwhile, even to a device. Translated code reads and writes it, too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct Monitor {
    pub(crate) va: u64,
    /// Where the bytes are. RAM stays where it is as long as its vCPUs live.
    pub(crate) at: u64,
    /// How many there are. 0: nothing is watched, and the rest has no meaning.
    pub(crate) bytes: u64,
    /// What they were, low half first. Of an access of at most 8 bytes the high half has no meaning.
    pub(crate) value: [u64; 2],
}

impl Monitor {
    fn new<T: Scalar>(va: u64, at: u64, value: T) -> Self {
        let value = value.to_u128();
        Self { va, at, bytes: T::BYTES, value: [value as u64, (value >> 64) as u64] }
    }

    /// Whether anything is watched.
    pub(crate) const fn is_set(&self) -> bool {
        self.bytes != 0
    }

    /// Its address, size and value, to be compared.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn seen(&self) -> (u64, u64, u128) {
        let value = if self.bytes > 8 { self.value::<u128>() } else { self.value[0].into() };
        (self.va, self.bytes, value)
    }

    fn value<T: Scalar>(&self) -> T {
        T::from_u128(u128::from(self.value[1]) << 64 | u128::from(self.value[0]))
    }
}

impl Cpu {
    /// LDXR, LDAXR: aligned; remembers address, size and value. LDXP of two 32-bit registers is `T = u64`, of two
    /// 64-bit registers `T = u128`, low half first.
    pub(crate) fn load_exclusive<T: Scalar>(&mut self, va: u64, order: Order) -> Result<T, Exception> {
        let entry = self.mem.tlb.current(va);
        let (at, value): (u64, T) = if va & (T::BYTES - 1) == 0 && hits(va, T::BYTES, entry.tag_r) {
            let at = va.wrapping_add(entry.addend);
            let value = match order {
                // SAFETY: a matching tag says that `addend` leads to the RAM behind this page.
                Order::Relaxed => unsafe { host::load(at) },
                // SAFETY: likewise, and the address is aligned.
                Order::Ordered => unsafe { host::load_acquire(at) },
            };
            (at, value)
        } else {
            let place = self.locate_aligned(va, T::BYTES, AccessKind::Read)?;
            let unsupported = Exception::data_abort(va, FaultStatus::UNSUPPORTED_ATOMIC, false);
            let at = place.host(va).ok_or(unsupported)?;
            self.check_watchpoints(va, T::BYTES, false, self.at_el0())?;
            // SAFETY: the host address is in a page of RAM and aligned.
            (at, unsafe { host::load_acquire(at) })
        };
        self.mem.monitor = Monitor::new(va, at, value);
        Ok(value)
    }

    /// STXR, STLXR, STXP, STLXP: whether the store was made. Clears the monitor. Host exchanges are sequentially
    /// consistent, so `order` asks for nothing more.
    pub(crate) fn store_exclusive<T: Scalar>(
        &mut self,
        va: u64,
        value: T,
        _order: Order,
    ) -> Result<bool, Exception> {
        if va & (T::BYTES - 1) != 0 {
            return Err(Exception::data_abort(va, FaultStatus::ALIGNMENT, true));
        }
        let monitor = std::mem::take(&mut self.mem.monitor);
        if monitor.va != va || monitor.bytes != T::BYTES {
            return Ok(false);
        }
        let expected: T = monitor.value();
        let exchange = |at| {
            // SAFETY: callers give the address of aligned bytes of RAM.
            at == monitor.at && unsafe { host::compare_exchange(at, expected, value) == expected }
        };
        let entry = self.mem.tlb.current(va);
        if hits(va, T::BYTES, entry.tag_w) {
            return Ok(exchange(va.wrapping_add(entry.addend)));
        }
        let place = self.locate_aligned(va, T::BYTES, AccessKind::Write)?;
        let unsupported = Exception::data_abort(va, FaultStatus::UNSUPPORTED_ATOMIC, true);
        let at = place.host(va).ok_or(unsupported)?;
        if let Err(exception) = self.check_watchpoints(va, T::BYTES, true, self.at_el0()) {
            // A debugger lets the instruction be run again. An exception of the guest's clears the monitor when it is taken.
            self.mem.monitor = monitor;
            return Err(exception);
        }
        self.note_write(at, T::BYTES);
        let stored = exchange(at);
        if stored {
            self.stored(place.pa(va), T::BYTES);
        }
        Ok(stored)
    }

    /// CLREX.
    #[inline]
    pub(crate) fn clear_exclusive(&mut self) {
        self.mem.monitor = Monitor::default();
    }

    /// Whether the monitored location no longer holds what the exclusive load saw: the event that clears the global
    /// monitor and wakes WFE (B2.9.2). `None` without a monitor.
    pub(crate) fn monitor_broken(&self) -> Option<bool> {
        let monitor = self.mem.monitor()?;
        let mut bytes = [0; 16];
        let len = usize::try_from(monitor.bytes).ok()?;
        // SAFETY: the exclusive load has read these bytes of RAM, which `self.cluster` keeps mapped.
        unsafe { host::copy_from(monitor.at, bytes.get_mut(..len)?) };
        let seen = monitor.value::<u128>().to_le_bytes();
        Some(bytes.get(..len) != seen.get(..len))
    }

    /// LDADD, LDCLR, ... SWP: the value that was in memory.
    pub(crate) fn atomic<T: Scalar>(
        &mut self,
        op: AtomicOp,
        va: u64,
        operand: T,
        _order: Order,
    ) -> Result<T, Exception> {
        let entry = self.mem.tlb.current(va);
        if va & (T::BYTES - 1) == 0 && hits(va, T::BYTES, entry.tag_w) {
            // SAFETY: a matching write tag says that the page is RAM without code, and the address is aligned.
            // What can be written can be read.
            return Ok(unsafe { host::read_modify_write(va.wrapping_add(entry.addend), op, operand) });
        }
        self.update_slow(va, &|at| {
            // SAFETY: `update_slow` gives the address of aligned bytes of RAM.
            unsafe { host::read_modify_write(at, op, operand) }
        })
    }

    /// CAS, and CASP as `T = u64` or `u128`: stores `new` if memory holds `expected`; the value that was in memory.
    pub(crate) fn compare_and_swap<T: Scalar>(
        &mut self,
        va: u64,
        expected: T,
        new: T,
        _order: Order,
    ) -> Result<T, Exception> {
        let entry = self.mem.tlb.current(va);
        if va & (T::BYTES - 1) == 0 && hits(va, T::BYTES, entry.tag_w) {
            // SAFETY: as in `atomic`.
            return Ok(unsafe { host::compare_exchange(va.wrapping_add(entry.addend), expected, new) });
        }
        self.update_slow(va, &|at| {
            // SAFETY: `update_slow` gives the address of aligned bytes of RAM.
            unsafe { host::compare_exchange(at, expected, new) }
        })
    }

    /// A read-modify-write off the fast path. ISS.WnR tells of a write only if a read would have been possible, or
    /// unwatched.
    #[cold]
    fn update_slow<T: Scalar>(&mut self, va: u64, update: &dyn Fn(u64) -> T) -> Result<T, Exception> {
        if va & (T::BYTES - 1) == 0
            && let Some((at, pa)) = self.beside_code(va, T::BYTES, self.at_el0())
        {
            let found = update(at);
            self.stored(pa, T::BYTES);
            return Ok(found);
        }
        self.locate_aligned(va, T::BYTES, AccessKind::Read)?;
        let place = self.locate_aligned(va, T::BYTES, AccessKind::Write)?;
        let unsupported = Exception::data_abort(va, FaultStatus::UNSUPPORTED_ATOMIC, false);
        let at = place.host(va).ok_or(unsupported)?;
        for write in [false, true] {
            self.check_watchpoints(va, T::BYTES, write, self.at_el0())?;
        }
        self.note_write(at, T::BYTES);
        let found = update(at);
        self.stored(place.pa(va), T::BYTES);
        Ok(found)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn load_acquire_slow<T: Scalar>(&mut self, va: u64) -> Result<T, Exception> {
        let place = self.locate_aligned(va, T::BYTES, AccessKind::Read)?;
        self.check_watchpoints(va, T::BYTES, false, self.at_el0())?;
        match place.host(va) {
            // SAFETY: the host address is in a page of RAM and aligned.
            Some(at) => Ok(unsafe { host::load_acquire(at) }),
            None => {
                let value = self.load_slow(va, self.at_el0());
                fence(Ordering::SeqCst);
                value
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn store_release_slow<T: Scalar>(&mut self, va: u64, value: T) -> Result<(), Exception> {
        let place = self.locate_aligned(va, T::BYTES, AccessKind::Write)?;
        self.check_watchpoints(va, T::BYTES, true, self.at_el0())?;
        match place.host(va) {
            Some(at) => {
                self.note_write(at, T::BYTES);
                // SAFETY: the host address is in a page of RAM and aligned.
                unsafe { host::store_release(at, value) };
                self.stored(place.pa(va), T::BYTES);
                Ok(())
            }
            None => {
                fence(Ordering::SeqCst);
                let done = self.store_slow(va, value, self.at_el0());
                fence(Ordering::SeqCst);
                done
            }
        }
    }

    /// Finds where an access leads that must be aligned to its size, whatever the memory (B2.5.2, without FEAT_LSE2).
    /// Watchpoints are the caller's to check: other faults come before them.
    fn locate_aligned(&mut self, va: u64, bytes: u64, kind: AccessKind) -> Result<Place, Exception> {
        let fault = |status| Exception::data_abort(va, status, kind == AccessKind::Write);
        if va & (bytes - 1) != 0 {
            return Err(fault(FaultStatus::ALIGNMENT));
        }
        let el0 = self.at_el0();
        self.locate(va, kind, el0).map_err(fault)
    }
}
