//! Accesses that the TLB cannot serve at once: misses, faults, page borders, devices, pages with code.

use std::sync::atomic::{Ordering, fence};

use hw::Pa;
use vmsa::{Access, AccessKind, Permissions};

use super::regime::Intent;
use super::tlb::{PAGE, Page, info};
use super::{Scalar, host};
use crate::exception::FaultStatus;
use crate::sizes::ZVA_BYTES;
use crate::{Cpu, Exception};

/// Where an access goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) page: Page,
    /// Host address of the page, if it is RAM.
    host: Option<u64>,
    /// Stores there are fast from now on.
    writable: bool,
}

impl Place {
    pub(super) fn pa(&self, va: u64) -> Pa {
        Pa(self.page.pa | va & (PAGE - 1))
    }

    pub(super) fn host(&self, va: u64) -> Option<u64> {
        self.host.map(|host| host + (va & (PAGE - 1)))
    }
}

/// An access that may touch two pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    first: Place,
    /// Bytes in the first page, and where the others go.
    second: Option<(usize, Place)>,
}

/// The size in which `len` bytes go over the bus: whole where the bus has such an access, else 16 bytes or single
/// ones (unaligned accesses to devices that are mapped as Normal memory).
const fn bus_unit(len: usize) -> usize {
    if len.is_power_of_two() { if len > 16 { 16 } else { len } } else { 1 }
}

impl Cpu {
    /// Finds where `va` leads, for an access of `kind` with the rights of EL0 or EL1, and lets the TLB know.
    pub(super) fn locate(&mut self, va: u64, kind: AccessKind, el0: bool) -> Result<Place, FaultStatus> {
        let is_try = self.mem.replay.is_some();
        if el0 && !is_try && !self.mem.tlb.has_user() {
            let (asid, ttbr0, at_el0) = (self.mem.regime.asid, self.mem.regime.ttbr0, self.at_el0());
            self.mem.tlb.choose_user(asid, ttbr0, at_el0);
        }
        let pan = !el0 && self.state.pstate.has(crate::state::Pstate::PAN);
        let known = self
            .mem
            .tlb
            .page(el0, va)
            .filter(|(page, _)| page.permissions.allow(Access { kind, privileged: !el0 }, pan));
        let page = match known {
            Some((page, _)) => page,
            None => {
                self.counts.data_walks += 1;
                self.mem.regime.translate(va, Intent { kind, el0, pan }, &self.cluster.host)?
            }
        };
        let host = self.cluster.host.host(Pa(page.pa), PAGE);
        let writes = kind == AccessKind::Write;
        let watched = self.is_watched(va & !(PAGE - 1)..=va | (PAGE - 1));
        let fast = host.filter(|_| !page.device && !self.mem.regime.alignment_checked && !watched);
        let (pages, page_pa) = (&self.cluster.code_pages, Pa(page.pa));
        let writable = writes && !is_try && fast.is_some() && !pages.is_code(page_pa) && {
            // Noted first, looked at again after: the decoder marks first and then asks who writes.
            self.cluster.writers.add(page_pa, self.index);
            !pages.is_code(page_pa)
        };
        if !is_try && (known.is_none() || writable) {
            self.mem.tlb.insert(el0, va, &page, fast, writable);
        }
        Ok(Place { page, host, writable })
    }

    /// Finds where the `len` bytes at `va` lead, both pages if there are two, for an access that is then made.
    ///
    /// # Errors
    /// The fault, with the first address that it concerns, or a watchpoint.
    pub(super) fn locate_span(
        &mut self,
        va: u64,
        len: usize,
        align: u64,
        kind: AccessKind,
        el0: bool,
    ) -> Result<Span, Exception> {
        let write = kind == AccessKind::Write;
        let fault = |at, status| Exception::data_abort(at, status, write);
        let aligned = va & (align - 1) == 0;
        if !aligned && self.mem.regime.alignment_checked {
            return Err(fault(va, FaultStatus::ALIGNMENT));
        }
        let first = self.locate(va, kind, el0).map_err(|status| fault(va, status))?;
        if !aligned && first.page.device {
            return Err(fault(va, FaultStatus::ALIGNMENT));
        }
        let room = (PAGE - (va & (PAGE - 1))) as usize;
        let second = if len > room {
            let next = va.wrapping_add(room as u64);
            let place = self.locate(next, kind, el0).map_err(|status| fault(next, status))?;
            if !aligned && place.page.device {
                return Err(fault(va, FaultStatus::ALIGNMENT));
            }
            Some((room, place))
        } else {
            None
        };
        self.check_watchpoints(va, len as u64, write, el0)?;
        Ok(Span { first, second })
    }

    /// Reads bytes, of elements that are `align` bytes long.
    pub(super) fn read_bytes(
        &mut self,
        va: u64,
        out: &mut [u8],
        align: u64,
        el0: bool,
    ) -> Result<(), Exception> {
        let Span { first, second } = self.locate_span(va, out.len(), align, AccessKind::Read, el0)?;
        let (head, tail) = out.split_at_mut(second.map_or(out.len(), |(room, _)| room));
        self.read_place(va, &first, head)?;
        match second {
            Some((room, place)) => self.read_place(va.wrapping_add(room as u64), &place, tail),
            None => Ok(()),
        }
    }

    fn read_place(&mut self, va: u64, place: &Place, out: &mut [u8]) -> Result<(), Exception> {
        match place.host(va) {
            // SAFETY: the host address is that of a page of RAM, and the bytes do not leave the page.
            Some(host) => unsafe { host::copy_from(host, out) },
            None => {
                self.note_device(va)?;
                let unit = bus_unit(out.len());
                for (index, part) in out.chunks_mut(unit).enumerate() {
                    let at = (index * unit) as u64;
                    let fault =
                        Exception::data_abort(va.wrapping_add(at), FaultStatus::EXTERNAL_ABORT, false);
                    self.cluster.bus.read(Pa(place.pa(va).0 + at), part).map_err(|_| fault)?;
                }
            }
        }
        Ok(())
    }

    /// Writes bytes, of elements that are `align` bytes long.
    pub(super) fn write_bytes(
        &mut self,
        va: u64,
        data: &[u8],
        align: u64,
        el0: bool,
    ) -> Result<(), Exception> {
        let Span { first, second } = self.locate_span(va, data.len(), align, AccessKind::Write, el0)?;
        let (head, tail) = data.split_at(second.map_or(data.len(), |(room, _)| room));
        self.write_place(va, &first, head)?;
        match second {
            Some((room, place)) => self.write_place(va.wrapping_add(room as u64), &place, tail),
            None => Ok(()),
        }
    }

    fn write_place(&mut self, va: u64, place: &Place, data: &[u8]) -> Result<(), Exception> {
        match place.host(va) {
            Some(host) => {
                self.note_write(host, data.len() as u64);
                // SAFETY: the host address is that of a page of RAM, and the bytes do not leave the page.
                unsafe { host::copy_to(host, data) };
                // Where stores are fast is no code, as it is for the next one.
                if !place.writable {
                    self.stored(place.pa(va), data.len() as u64);
                }
            }
            None => {
                self.note_device(va)?;
                let unit = bus_unit(data.len());
                for (index, part) in data.chunks(unit).enumerate() {
                    let at = (index * unit) as u64;
                    let fault = Exception::data_abort(va.wrapping_add(at), FaultStatus::EXTERNAL_ABORT, true);
                    self.cluster.bus.write(Pa(place.pa(va).0 + at), part).map_err(|_| fault)?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of one page have been stored past the fast path: code that was decoded from them goes.
    #[inline]
    pub(super) fn stored(&mut self, pa: Pa, len: u64) {
        // The decoder marks granules before it reads them; here the bytes are written before the marks are looked at.
        fence(Ordering::SeqCst);
        if self.mem.replay.is_none() && self.cluster.code_pages.is_code_at(pa, len) {
            self.cluster.code_written(pa, len);
        }
    }

    /// Where `len` bytes at `va` are, in the host and in the guest, if a store there is fast but for code in its page. It
    /// may be made at once, and told of by [`Self::stored`]: a page that a guest's code shares with data that it
    /// writes all the time costs a call and a fence for each store, and not a search for all that forbids fast stores.
    #[inline]
    pub(super) fn beside_code(&self, va: u64, len: u64, el0: bool) -> Option<(u64, Pa)> {
        let entry = if el0 { self.mem.tlb.user(va) } else { self.mem.tlb.current(va) };
        // What may be read inline is RAM, neither watched nor in need of alignment. Writes may be refused.
        if !super::hits(va, len, entry.tag_r) {
            return None;
        }
        let pan = !el0 && self.state.pstate.has(crate::state::Pstate::PAN);
        let permissions = Permissions::from_bits((entry.info & info::PERMISSIONS) as u8);
        let allowed = permissions.allow(Access { kind: AccessKind::Write, privileged: !el0 }, pan);
        let pa = Pa(entry.info & 0x0000_ffff_ffff_f000 | va & (PAGE - 1));
        (allowed && self.cluster.code_pages.is_code(pa)).then(|| (va.wrapping_add(entry.addend), pa))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn load_slow<T: Scalar>(&mut self, va: u64, el0: bool) -> Result<T, Exception> {
        let mut bytes = [0; 16];
        self.read_bytes(va, &mut bytes[..size_of::<T>()], T::BYTES, el0)?;
        Ok(T::from_u128(u128::from_le_bytes(bytes)))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn store_slow<T: Scalar>(&mut self, va: u64, value: T, el0: bool) -> Result<(), Exception> {
        if let Some((at, pa)) = self.beside_code(va, T::BYTES, el0) {
            // SAFETY: `beside_code` gives the address of as many bytes of RAM.
            unsafe { host::store(at, value) };
            self.stored(pa, T::BYTES);
            return Ok(());
        }
        self.write_bytes(va, &value.to_u128().to_le_bytes()[..size_of::<T>()], T::BYTES, el0)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn load_pair_slow<T: Scalar>(&mut self, va: u64) -> Result<(T, T), Exception> {
        let size = size_of::<T>();
        let mut bytes = [0; 32];
        let el0 = self.at_el0();
        self.read_bytes(va, &mut bytes[..2 * size], T::BYTES, el0)?;
        let half = |at: usize| {
            let mut half = [0; 16];
            half[..size].copy_from_slice(&bytes[at..at + size]);
            T::from_u128(u128::from_le_bytes(half))
        };
        Ok((half(0), half(size)))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn store_pair_slow<T: Scalar>(
        &mut self,
        va: u64,
        first: T,
        second: T,
    ) -> Result<(), Exception> {
        let el0 = self.at_el0();
        if let Some((at, pa)) = self.beside_code(va, 2 * T::BYTES, el0) {
            // SAFETY: as in `store_slow`, for both.
            unsafe {
                host::store(at, first);
                host::store(at + T::BYTES, second);
            }
            self.stored(pa, 2 * T::BYTES);
            return Ok(());
        }
        let size = size_of::<T>();
        let mut bytes = [0; 32];
        bytes[..size].copy_from_slice(&first.to_u128().to_le_bytes()[..size]);
        bytes[size..2 * size].copy_from_slice(&second.to_u128().to_le_bytes()[..size]);
        self.write_bytes(va, &bytes[..2 * size], T::BYTES, el0)
    }

    /// Several consecutive elements of ST1-ST4, of `align` bytes each: checks that all of `[va, va + bytes)` can be
    /// written, so that the stores that follow cannot fault half-way. Writes nothing.
    pub(crate) fn probe_store(&mut self, va: u64, bytes: u64, align: u64) -> Result<(), Exception> {
        if super::hits(va, bytes, self.mem.tlb.current(va).tag_w) {
            return Ok(());
        }
        // At most four vectors of 16 bytes, thus two pages.
        let len = usize::try_from(bytes).unwrap_or(1);
        self.locate_span(va, len, align, AccessKind::Write, self.at_el0())?;
        Ok(())
    }

    /// DC ZVA: zeroes the aligned 64 bytes around `va`. Not cache maintenance: faults are those of a store.
    pub(crate) fn zero_block(&mut self, va: u64) -> Result<(), Exception> {
        let block = va & !(ZVA_BYTES - 1);
        let entry = self.mem.tlb.current(block);
        if super::hits(block, ZVA_BYTES, entry.tag_w) {
            let host = block.wrapping_add(entry.addend);
            for offset in (0..ZVA_BYTES).step_by(16) {
                // SAFETY: a matching write tag says that the page is RAM, without code; the block is in the page.
                unsafe { host::store(host + offset, 0u128) };
            }
            return Ok(());
        }
        self.zero_block_slow(va, block)
    }

    #[cold]
    fn zero_block_slow(&mut self, va: u64, block: u64) -> Result<(), Exception> {
        let el0 = self.at_el0();
        let fault = |status| Exception::data_abort(va, status, true);
        let place = self.locate(block, AccessKind::Write, el0).map_err(fault)?;
        // D7.4: on any type of Device memory an alignment fault.
        if place.page.device {
            return Err(fault(FaultStatus::ALIGNMENT));
        }
        self.check_watchpoints(block, ZVA_BYTES, true, el0)?;
        self.write_place(block, &place, &[0; ZVA_BYTES as usize])
    }

    /// The fault that cache maintenance by `va` meets. PAN does not count (D8.4.5); at EL1 what is mapped suffices
    /// for all but DC IVAC.
    pub(crate) fn check_maintenance(
        &mut self,
        va: u64,
        kind: AccessKind,
        el0: bool,
    ) -> Result<(), FaultStatus> {
        let known = self.mem.tlb.page(el0, va);
        let access = Access { kind, privileged: !el0 };
        if known.is_some_and(|(page, _)| page.permissions.allow(access, false)) {
            return Ok(());
        }
        self.probe_translation(va, kind, el0, false).map(|_| ())
    }

    /// What the tables say of `va`, without a trace in the TLB.
    pub(crate) fn probe_translation(
        &self,
        va: u64,
        kind: AccessKind,
        el0: bool,
        pan: bool,
    ) -> Result<Page, FaultStatus> {
        self.mem.regime.translate(va, Intent { kind, el0, pan }, &self.cluster.host)
    }
}
