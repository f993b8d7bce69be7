//! Guest RAM: vm-memory's mapped regions, with the handful of accesses that the models need.
//!
//! All accesses are safe against concurrent vCPUs: copies are volatile, single words are atomic. Accesses outside
//! RAM (or only partly inside) fail as a whole and touch nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress, VolatileMemory, VolatileSlice,
};

use crate::Pa;
use crate::watch::{CodeWriteHook, WATCH_PAGE_SHIFT, WriteWatch};

/// vm-memory's type for our RAM: what `virtio-queue` and the CPU engine are given.
pub type GuestRam = GuestMemoryMmap<WriteWatch>;

/// The access is not, or not wholly, in RAM. What that means (external abort, master abort) is the bus's business.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{len} bytes at {pa} are not RAM")]
pub struct NotRam {
    /// Where the access started.
    pub pa: Pa,
    /// Its length in bytes.
    pub len: usize,
}

/// RAM could not be had from the host.
#[derive(Debug, Error)]
#[error("cannot map {bytes} bytes of guest RAM: {reason}")]
pub struct RamError {
    /// Bytes asked for.
    pub bytes: u64,
    /// The host's own words.
    pub reason: String,
}

/// All of the guest's RAM.
#[derive(Debug)]
pub struct Ram {
    mem: GuestRam,
}

/// Bytes that are known to be RAM.
#[derive(Debug)]
pub struct RamSpan<'a>(VolatileSlice<'a, BS<'a, WriteWatch>>);

impl RamSpan<'_> {
    /// Copies bytes out, as many as both have.
    #[inline]
    pub fn read(&self, out: &mut [u8]) {
        self.0.copy_to(out);
    }

    /// Copies bytes in, as many as both have.
    #[inline]
    pub fn write(&self, data: &[u8]) {
        self.0.copy_from(data);
    }
}

impl Ram {
    /// Maps zeroed RAM for each `(base, bytes)`. Host memory is taken only when the guest touches it.
    ///
    /// # Errors
    /// If the host has no address space for it, or ranges overlap or are not page-aligned.
    pub fn new(ranges: &[(Pa, u64)]) -> Result<Self, RamError> {
        let bytes = ranges.iter().map(|r| r.1).sum();
        let wrong = |reason: String| RamError { bytes, reason };
        let ranges: Vec<(GuestAddress, usize)> = ranges
            .iter()
            .map(|&(base, len)| {
                Ok((GuestAddress(base.0), usize::try_from(len).map_err(|e| wrong(e.to_string()))?))
            })
            .collect::<Result<_, RamError>>()?;
        let mem = GuestRam::from_ranges(&ranges).map_err(|e| wrong(e.to_string()))?;
        for region in mem.iter() {
            region.bitmap().set_base(Pa(region.start_addr().raw_value()));
        }
        Ok(Self { mem })
    }

    /// The regions themselves, for crates that speak vm-memory.
    #[must_use]
    pub fn guest_memory(&self) -> &GuestRam {
        &self.mem
    }

    /// Names whom to tell about writes to watched code pages. Only the first call counts.
    pub fn set_code_write_hook(&self, hook: &Arc<dyn CodeWriteHook>) {
        for region in self.mem.iter() {
            region.bitmap().set_hook(Arc::clone(hook));
        }
    }

    /// From now on, writes through this RAM to the 4 KiB page of `pa` call the hook.
    pub fn watch_code_page(&self, pa: Pa) {
        if let Some((region, offset)) = self.mem.to_region_addr(GuestAddress(pa.0)) {
            region.bitmap().watch(offset.raw_value());
        }
    }

    /// Ends [`Self::watch_code_page`].
    pub fn unwatch_code_page(&self, pa: Pa) {
        if let Some((region, offset)) = self.mem.to_region_addr(GuestAddress(pa.0)) {
            region.bitmap().unwatch(offset.raw_value());
        }
    }

    /// Whether the page of `pa` is watched.
    #[must_use]
    pub fn is_code_page(&self, pa: Pa) -> bool {
        self.mem
            .to_region_addr(GuestAddress(pa.0))
            .is_some_and(|(region, offset)| region.bitmap().is_watched(offset.raw_value()))
    }

    /// Whether all of `[pa, pa + len)` is RAM.
    #[must_use]
    pub fn contains(&self, pa: Pa, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.mem.check_range(GuestAddress(pa.0), len))
    }

    /// The region that holds all of `[pa, pa + len)`, as it nearly always is.
    // A region starts and ends at a page, so an aligned word is never in two.
    #[inline]
    fn region_of(&self, pa: Pa, len: usize) -> Option<(&GuestRegionMmap<WriteWatch>, MemoryRegionAddress)> {
        // A machine has one or two regions: a look at each is the fastest search.
        self.mem.iter().find_map(|region| {
            let at = pa.0.checked_sub(region.start_addr().raw_value())?;
            let fits = at.checked_add(len as u64).is_some_and(|end| end <= region.len());
            fits.then_some((region, MemoryRegionAddress(at)))
        })
    }

    /// The bytes `[pa, pa + len)`, if they are RAM of one region. Looked up before an access begins, it makes the access
    /// short.
    #[inline]
    #[must_use]
    pub fn span(&self, pa: Pa, len: usize) -> Option<RamSpan<'_>> {
        let (region, at) = self.region_of(pa, len)?;
        region.get_slice(at, len).ok().map(RamSpan)
    }

    /// Copies bytes out of RAM.
    ///
    /// # Errors
    /// [`NotRam`]; `out` may then hold anything.
    pub fn read(&self, pa: Pa, out: &mut [u8]) -> Result<(), NotRam> {
        let len = out.len();
        if let Some(span) = self.span(pa, len) {
            span.read(out);
            return Ok(());
        }
        if !self.mem.check_range(GuestAddress(pa.0), len) {
            return Err(NotRam { pa, len });
        }
        self.mem.read_slice(out, GuestAddress(pa.0)).map_err(|_| NotRam { pa, len })
    }

    /// Copies bytes into RAM.
    ///
    /// # Errors
    /// [`NotRam`], and nothing was written.
    pub fn write(&self, pa: Pa, data: &[u8]) -> Result<(), NotRam> {
        let len = data.len();
        if let Some(span) = self.span(pa, len) {
            span.write(data);
            return Ok(());
        }
        if !self.mem.check_range(GuestAddress(pa.0), len) {
            return Err(NotRam { pa, len });
        }
        self.mem.write_slice(data, GuestAddress(pa.0)).map_err(|_| NotRam { pa, len })
    }

    /// Loads an aligned little-endian doubleword, single-copy atomic, with acquire ordering.
    ///
    /// # Errors
    /// [`NotRam`], also for a misaligned address.
    #[inline]
    pub fn load_u64(&self, pa: Pa) -> Result<u64, NotRam> {
        let wrong = NotRam { pa, len: 8 };
        let (region, at) = self.region_of(pa, 8).ok_or(wrong)?;
        region.load(at, Ordering::Acquire).map(u64::from_le).map_err(|_| wrong)
    }

    /// Stores an aligned little-endian doubleword, single-copy atomic, with release ordering.
    ///
    /// # Errors
    /// [`NotRam`], also for a misaligned address.
    #[inline]
    pub fn store_u64(&self, pa: Pa, value: u64) -> Result<(), NotRam> {
        let wrong = NotRam { pa, len: 8 };
        let (region, at) = self.region_of(pa, 8).ok_or(wrong)?;
        region.store(value.to_le(), at, Ordering::Release).map_err(|_| wrong)
    }

    /// Loads an aligned little-endian word, single-copy atomic, with acquire ordering.
    ///
    /// # Errors
    /// [`NotRam`], also for a misaligned address.
    pub fn load_u32(&self, pa: Pa) -> Result<u32, NotRam> {
        let wrong = NotRam { pa, len: 4 };
        let (region, at) = self.region_of(pa, 4).ok_or(wrong)?;
        region.load(at, Ordering::Acquire).map(u32::from_le).map_err(|_| wrong)
    }

    /// Stores an aligned little-endian word, single-copy atomic, with release ordering.
    ///
    /// # Errors
    /// [`NotRam`], also for a misaligned address.
    pub fn store_u32(&self, pa: Pa, value: u32) -> Result<(), NotRam> {
        let wrong = NotRam { pa, len: 4 };
        let (region, at) = self.region_of(pa, 4).ok_or(wrong)?;
        region.store(value.to_le(), at, Ordering::Release).map_err(|_| wrong)
    }

    /// Replaces an aligned little-endian doubleword if it still is `expected`: how a walker sets an access flag.
    /// The inner result is what the exchange found.
    ///
    /// # Errors
    /// [`NotRam`], also for a misaligned address.
    pub fn compare_exchange_u64(&self, pa: Pa, expected: u64, new: u64) -> Result<Result<u64, u64>, NotRam> {
        let wrong = NotRam { pa, len: 8 };
        let slice = self.mem.get_slice(GuestAddress(pa.0), 8).map_err(|_| wrong)?;
        let word = slice.get_atomic_ref::<AtomicU64>(0).map_err(|_| wrong)?;
        let found = word.compare_exchange(expected.to_le(), new.to_le(), Ordering::AcqRel, Ordering::Acquire);
        if found.is_ok() {
            // Unlike stores, exchanges through a reference pass no bitmap.
            slice.bitmap().mark_dirty(0, 8);
        }
        Ok(found.map(u64::from_le).map_err(u64::from_le))
    }
}

/// Log2 of the page size that [`Ram::watch_code_page`] works with.
pub const CODE_PAGE_SHIFT: u32 = WATCH_PAGE_SHIFT;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn ram() -> Ram {
        Ram::new(&[(Pa(0x4000_0000), 0x10000)]).unwrap()
    }

    #[derive(Default)]
    struct Hook(Mutex<Vec<(Pa, u64)>>);
    impl CodeWriteHook for Hook {
        fn code_written(&self, pa: Pa, len: u64) {
            self.0.lock().unwrap().push((pa, len));
        }
    }

    #[test]
    fn access_that_leaves_ram_fails_and_writes_nothing() {
        let ram = ram();
        let last = Pa(0x4000_fffe);
        assert_eq!(ram.write(last, &[1, 2, 3, 4]), Err(NotRam { pa: last, len: 4 }));
        let mut out = [0xff; 2];
        ram.read(last, &mut out).unwrap();
        assert_eq!(out, [0, 0]);
        assert!(ram.load_u64(Pa(0x4000_fffc)).is_err(), "misaligned");
        assert!(ram.read(Pa(u64::MAX), &mut [0; 8]).is_err());
    }

    #[test]
    fn compare_exchange_reports_what_it_found() {
        let ram = ram();
        ram.store_u64(Pa(0x4000_0008), 7).unwrap();
        assert_eq!(ram.compare_exchange_u64(Pa(0x4000_0008), 7, 9).unwrap(), Ok(7));
        assert_eq!(ram.compare_exchange_u64(Pa(0x4000_0008), 7, 11).unwrap(), Err(9));
        assert!(ram.compare_exchange_u64(Pa(0), 0, 0).is_err());
    }

    /// Store buffering: the writer stores and looks at the watch, the engine sets the watch and loads. Both may not read
    /// what was there before.
    #[test]
    fn write_that_the_engine_does_not_see_after_it_has_set_the_watch_calls_the_hook() {
        const ROUNDS: u64 = 20_000;
        let page = Pa(0x4000_1000);
        let (ram, hook) = (ram(), Arc::new(Hook::default()));
        let dynamic: Arc<dyn CodeWriteHook> = hook.clone();
        ram.set_code_write_hook(&dynamic);
        // Both sides begin a round when both have arrived, without a system call in between.
        let arrived = AtomicU64::new(0);
        let meet = |round: u64| {
            arrived.fetch_add(1, Ordering::SeqCst);
            let mut spins = 0u32;
            while arrived.load(Ordering::SeqCst) < 2 * round {
                spins += 1;
                if spins.is_multiple_of(256) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
        };
        let mut missed = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    meet(2 * round - 1);
                    ram.store_u64(page, round).unwrap();
                    meet(2 * round);
                }
            });
            for round in 1..=ROUNDS {
                meet(2 * round - 1);
                ram.watch_code_page(page);
                let seen = ram.load_u64(page).unwrap();
                meet(2 * round);
                let told = !std::mem::take(&mut *hook.0.lock().unwrap()).is_empty();
                if seen != round && !told {
                    missed.push(round);
                }
                ram.unwatch_code_page(page);
            }
        });
        assert!(missed.is_empty(), "{missed:?}: rounds in which neither side has seen the other");
    }

    #[test]
    fn every_kind_of_write_to_a_watched_page_calls_the_hook_and_no_other() {
        let ram = ram();
        let hook = Arc::new(Hook::default());
        let dynamic: Arc<dyn CodeWriteHook> = hook.clone();
        ram.set_code_write_hook(&dynamic);
        ram.watch_code_page(Pa(0x4000_1000));

        ram.write(Pa(0x4000_0ff8), &[0; 8]).unwrap();
        assert!(hook.0.lock().unwrap().is_empty());
        ram.write(Pa(0x4000_0ffc), &[0; 8]).unwrap();
        assert!(!std::mem::take(&mut *hook.0.lock().unwrap()).is_empty());
        ram.store_u32(Pa(0x4000_1004), 1).unwrap();
        assert!(std::mem::take(&mut *hook.0.lock().unwrap()).contains(&(Pa(0x4000_1004), 4)));
        ram.compare_exchange_u64(Pa(0x4000_1008), 0, 1).unwrap().unwrap();
        assert!(std::mem::take(&mut *hook.0.lock().unwrap()).contains(&(Pa(0x4000_1008), 8)));
        ram.unwatch_code_page(Pa(0x4000_1000));
        ram.store_u64(Pa(0x4000_1008), 5).unwrap();
        assert!(hook.0.lock().unwrap().is_empty());
    }
}
