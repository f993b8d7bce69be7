//! Guest RAM as host memory: where a physical page is, and the accesses that vCPUs make there.
//!
//! All of a vCPU's loads and stores end here, as volatile or atomic accesses through raw pointers: other vCPUs and
//! devices touch the same bytes at the same time, as on any machine. Natural alignment up to 8 bytes gives
//! single-copy atomicity, as Arm ARM (DDI 0487) B2.2.1 asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use hw::{Pa, Ram};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::{AtomicOp, Scalar};

#[derive(Clone, Copy, Debug)]
struct Region {
    first: u64,
    bytes: u64,
    host: u64,
}

/// Where guest RAM lies in the host's address space.
#[derive(Clone, Debug)]
pub(crate) struct HostRam {
    regions: Box<[Region]>,
    /// Keeps the mappings.
    ram: Arc<Ram>,
}

impl HostRam {
    /// The host addresses of `ram`.
    #[must_use]
    pub(crate) fn new(ram: Arc<Ram>) -> Self {
        let regions = ram
            .guest_memory()
            .iter()
            .map(|region| Region {
                first: region.start_addr().raw_value(),
                bytes: region.len(),
                host: region.as_ptr() as u64,
            })
            .collect();
        Self { regions, ram }
    }

    /// The RAM itself.
    #[must_use]
    pub(crate) fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// The host address of `pa`, if `bytes` from there are RAM of one region.
    #[inline]
    #[must_use]
    pub(crate) fn host(&self, pa: Pa, bytes: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = pa.0.checked_sub(region.first)?;
            (offset < region.bytes && bytes <= region.bytes - offset).then(|| region.host + offset)
        })
    }
}

impl vmsa::TableMemory for HostRam {
    #[inline]
    fn load(&self, pa: u64) -> Result<u64, vmsa::ExternalAbort> {
        // The walker asks for aligned doublewords only; a base that is not aligned to one is its caller's to mask.
        let host = self.host(Pa(pa & !7), 8).ok_or(vmsa::ExternalAbort)?;
        // SAFETY: eight aligned bytes of RAM.
        Ok(unsafe { AtomicU64::from_ptr(host as *mut u64) }.load(Ordering::Acquire))
    }
}

/// A value at an address of any alignment, so that a volatile access may be unaligned.
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Loads `T` from a host address.
///
/// # Safety
/// `host` to `host + size_of::<T>()` must be mapped guest RAM.
#[inline(always)]
pub(super) unsafe fn load<T: Scalar>(host: u64) -> T {
    // SAFETY: the caller vouches for the address; any alignment suits a packed type; every bit pattern is a `T`.
    // Guest memory is never reached by references, only by volatile and atomic accesses such as this.
    unsafe { (host as *const Unaligned<T>).read_volatile() }.0
}

/// Stores `T` to a host address.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(super) unsafe fn store<T: Scalar>(host: u64, value: T) {
    // SAFETY: as in `load`.
    unsafe { (host as *mut Unaligned<T>).write_volatile(Unaligned(value)) }
}

/// Copies bytes out of guest RAM, in one piece where they are an aligned 1, 2, 4 or 8 bytes, else 16 bytes as two
/// 8-byte pieces or byte by byte.
///
/// # Safety
/// `host` to `host + out.len()` must be mapped guest RAM.
pub(super) unsafe fn copy_from(host: u64, out: &mut [u8]) {
    let piece = piece_of(host, out.len());
    for (index, bytes) in out.chunks_exact_mut(piece).enumerate() {
        let at = host + (index * piece) as u64;
        // SAFETY: the caller vouches for the whole range.
        unsafe {
            match piece {
                8 => bytes.copy_from_slice(&load::<u64>(at).to_le_bytes()),
                4 => bytes.copy_from_slice(&load::<u32>(at).to_le_bytes()),
                2 => bytes.copy_from_slice(&load::<u16>(at).to_le_bytes()),
                _ => bytes.copy_from_slice(&load::<u8>(at).to_le_bytes()),
            }
        }
    }
}

/// Copies bytes into guest RAM, in pieces as [`copy_from`].
///
/// # Safety
/// As for [`copy_from`].
pub(super) unsafe fn copy_to(host: u64, data: &[u8]) {
    let piece = piece_of(host, data.len());
    for (index, bytes) in data.chunks_exact(piece).enumerate() {
        let at = host + (index * piece) as u64;
        let value = hw::mmio::value_of(bytes);
        // SAFETY: the caller vouches for the whole range. The casts keep the piece's own bytes.
        unsafe {
            match piece {
                8 => store(at, value),
                4 => store(at, value as u32),
                2 => store(at, value as u16),
                _ => store(at, value as u8),
            }
        }
    }
}

/// The largest unit that divides both address and length.
fn piece_of(host: u64, len: usize) -> usize {
    1 << (host | len as u64 | 8).trailing_zeros()
}

macro_rules! dispatch {
    ($t:ty, $host:expr, |$cell:ident, $convert:ident| $body:expr) => {
        match size_of::<$t>() {
            1 => {
                let $cell = AtomicU8::from_ptr($host as *mut u8);
                let $convert = |value: $t| value.to_u128() as u8;
                <$t>::from_u128(u128::from($body))
            }
            2 => {
                let $cell = AtomicU16::from_ptr($host as *mut u16);
                let $convert = |value: $t| value.to_u128() as u16;
                <$t>::from_u128(u128::from($body))
            }
            4 => {
                let $cell = AtomicU32::from_ptr($host as *mut u32);
                let $convert = |value: $t| value.to_u128() as u32;
                <$t>::from_u128(u128::from($body))
            }
            _ => {
                let $cell = AtomicU64::from_ptr($host as *mut u64);
                let $convert = |value: $t| value.to_u128() as u64;
                <$t>::from_u128(u128::from($body))
            }
        }
    };
}

/// Loads with acquire ordering that also holds against an earlier [`store_release`]. 16 bytes: two halves.
///
/// # Safety
/// As for [`load`], and `host` is aligned to the size of `T`.
#[inline(always)]
pub(super) unsafe fn load_acquire<T: Scalar>(host: u64) -> T {
    // SAFETY: the caller vouches for mapping and alignment.
    unsafe {
        if size_of::<T>() == 16 {
            let low: u64 = load_acquire(host);
            let high: u64 = load_acquire(host + 8);
            return T::from_u128(u128::from(high) << 64 | u128::from(low));
        }
        dispatch!(T, host, |cell, _convert| {
            let _ = _convert;
            cell.load(Ordering::SeqCst)
        })
    }
}

/// Stores with release ordering, not passed by a later [`load_acquire`]. At most 8 bytes.
///
/// # Safety
/// As for [`load_acquire`].
#[inline(always)]
pub(super) unsafe fn store_release<T: Scalar>(host: u64, value: T) {
    // SAFETY: the caller vouches for mapping and alignment.
    unsafe {
        dispatch!(T, host, |cell, convert| {
            cell.store(convert(value), Ordering::SeqCst);
            convert(value)
        });
    }
}

/// Stores `new` if memory holds `expected`; gives what it held.
///
/// # Safety
/// As for [`load_acquire`].
#[inline]
pub(super) unsafe fn compare_exchange<T: Scalar>(host: u64, expected: T, new: T) -> T {
    // SAFETY: the caller vouches for mapping and alignment.
    unsafe {
        if size_of::<T>() == 16 {
            return T::from_u128(wide::compare_exchange(host, expected.to_u128(), new.to_u128()));
        }
        dispatch!(T, host, |cell, convert| {
            let outcome =
                cell.compare_exchange(convert(expected), convert(new), Ordering::SeqCst, Ordering::SeqCst);
            outcome.unwrap_or_else(|found| found)
        })
    }
}

/// Reads, modifies and writes; gives what memory held. At most 8 bytes.
///
/// # Safety
/// As for [`load_acquire`].
#[inline]
pub(super) unsafe fn read_modify_write<T: Scalar>(host: u64, op: AtomicOp, operand: T) -> T {
    const ORDER: Ordering = Ordering::SeqCst;
    // SAFETY: the caller vouches for mapping and alignment.
    unsafe {
        match op {
            AtomicOp::Add => dispatch!(T, host, |cell, convert| cell.fetch_add(convert(operand), ORDER)),
            AtomicOp::Clr => dispatch!(T, host, |cell, convert| cell.fetch_and(!convert(operand), ORDER)),
            AtomicOp::Eor => dispatch!(T, host, |cell, convert| cell.fetch_xor(convert(operand), ORDER)),
            AtomicOp::Set => dispatch!(T, host, |cell, convert| cell.fetch_or(convert(operand), ORDER)),
            AtomicOp::Swp => dispatch!(T, host, |cell, convert| cell.swap(convert(operand), ORDER)),
            AtomicOp::Umax => dispatch!(T, host, |cell, convert| cell.fetch_max(convert(operand), ORDER)),
            AtomicOp::Umin => dispatch!(T, host, |cell, convert| cell.fetch_min(convert(operand), ORDER)),
            AtomicOp::Smax | AtomicOp::Smin => {
                let bits = 8 * size_of::<T>() as u32;
                let signed = |value: u128| (value << (128 - bits)) as i128;
                let mut found: T = load_acquire(host);
                loop {
                    let operand_wins = match op {
                        AtomicOp::Smax => signed(operand.to_u128()) > signed(found.to_u128()),
                        _ => signed(operand.to_u128()) < signed(found.to_u128()),
                    };
                    let new = if operand_wins { operand } else { found };
                    let seen = compare_exchange(host, found, new);
                    if seen == found {
                        return found;
                    }
                    found = seen;
                }
            }
        }
    }
}

/// 128-bit compare and exchange, by whatever the host has.
mod wide {
    /// # Safety
    /// `host` is 16 bytes of mapped guest RAM, aligned to 16.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn compare_exchange(host: u64, expected: u128, new: u128) -> u128 {
        if std::arch::is_x86_feature_detected!("cmpxchg16b") {
            // SAFETY: the caller vouches for the address, and the host has the instruction.
            return unsafe { native(host, expected, new) };
        }
        // SAFETY: passed on.
        unsafe { locked(host, expected, new) }
    }

    /// Written out, because the intrinsic becomes a call to a library that is not there once its function has been inlined into
    /// one that may not assume the instruction.
    ///
    /// # Safety
    /// `host` is 16 bytes of mapped guest RAM, aligned to 16, and the host has CMPXCHG16B.
    #[cfg(target_arch = "x86_64")]
    unsafe fn native(host: u64, expected: u128, new: u128) -> u128 {
        let (low, high): (u64, u64);
        // SAFETY: the caller vouches for the address and the instruction. RBX, which may not be named as an operand,
        // is saved in RSI and restored.
        unsafe {
            core::arch::asm!(
                "xchg rsi, rbx",
                "lock cmpxchg16b [rdi]",
                "mov rbx, rsi",
                in("rdi") host,
                inout("rsi") new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") expected as u64 => low,
                inout("rdx") (expected >> 64) as u64 => high,
                options(nostack),
            );
        }
        u128::from(high) << 64 | u128::from(low)
    }

    /// # Safety
    /// `host` is 16 bytes of mapped guest RAM, aligned to 16.
    #[cfg(target_arch = "aarch64")]
    pub(super) unsafe fn compare_exchange(host: u64, expected: u128, new: u128) -> u128 {
        let (expected_low, expected_high) = (expected as u64, (expected >> 64) as u64);
        let (new_low, new_high) = (new as u64, (new >> 64) as u64);
        let (low, high): (u64, u64);
        // SAFETY: the caller vouches for the address. The loop writes back what it found when the values differ,
        // which makes the load single-copy atomic, and ends when its exclusive store has succeeded.
        unsafe {
            core::arch::asm!(
                "2: ldaxp {low}, {high}, [{host}]",
                "cmp {low}, {expected_low}",
                "ccmp {high}, {expected_high}, #0, eq",
                "csel {store_low}, {new_low}, {low}, eq",
                "csel {store_high}, {new_high}, {high}, eq",
                "stlxp {status:w}, {store_low}, {store_high}, [{host}]",
                "cbnz {status:w}, 2b",
                "dmb ish",
                host = in(reg) host,
                expected_low = in(reg) expected_low,
                expected_high = in(reg) expected_high,
                new_low = in(reg) new_low,
                new_high = in(reg) new_high,
                low = out(reg) low,
                high = out(reg) high,
                store_low = out(reg) _,
                store_high = out(reg) _,
                status = out(reg) _,
                options(nostack),
            );
        }
        u128::from(high) << 64 | u128::from(low)
    }

    /// # Safety
    /// `host` is 16 bytes of mapped guest RAM, aligned to 16.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) unsafe fn compare_exchange(host: u64, expected: u128, new: u128) -> u128 {
        // SAFETY: passed on.
        unsafe { locked(host, expected, new) }
    }

    /// For hosts without such an instruction: atomic against itself only, not against narrower atomics.
    ///
    /// # Safety
    /// `host` is 16 bytes of mapped guest RAM, aligned to 16.
    #[cfg(not(target_arch = "aarch64"))]
    unsafe fn locked(host: u64, expected: u128, new: u128) -> u128 {
        use std::sync::{Mutex, PoisonError};
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller vouches for the address.
        unsafe {
            let found: u128 = super::load_acquire(host);
            if found == expected {
                super::store_release(host, new as u64);
                super::store_release(host + 8, (new >> 64) as u64);
            }
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> HostRam {
        HostRam::new(Arc::new(Ram::new(&[(Pa(0x4000_0000), 0x2000)]).unwrap()))
    }

    #[test]
    fn host_addresses_cover_ram_and_nothing_else() {
        let ram = ram();
        assert!(ram.host(Pa(0x4000_0000), 0x2000).is_some());
        assert!(ram.host(Pa(0x4000_0001), 0x2000).is_none());
        assert!(ram.host(Pa(0x3fff_ffff), 1).is_none());
        assert!(ram.host(Pa(u64::MAX), 8).is_none());
        assert!(ram.host(Pa(0x4000_1fff), u64::MAX).is_none());
    }

    #[test]
    fn copies_of_every_length_and_alignment_round_trip() {
        let host = ram();
        let base = host.host(Pa(0x4000_0000), 0x2000).unwrap();
        for offset in 0..9 {
            for len in 1..=32 {
                let data: Vec<u8> = (0..len).map(|i| (i * 7 + offset + 1) as u8).collect();
                let mut out = vec![0; len];
                // SAFETY: inside the 0x2000 bytes of RAM.
                unsafe {
                    copy_to(base + offset as u64, &data);
                    copy_from(base + offset as u64, &mut out);
                }
                assert_eq!(out, data, "offset {offset}, len {len}");
            }
        }
    }

    #[test]
    fn wide_exchange_writes_only_over_the_expected_value() {
        let host = ram();
        let at = host.host(Pa(0x4000_0010), 16).unwrap();
        // SAFETY: 16 aligned bytes of RAM.
        unsafe {
            assert_eq!(compare_exchange::<u128>(at, 0, 1 << 100 | 5), 0);
            assert_eq!(compare_exchange::<u128>(at, 0, 7), 1 << 100 | 5);
            assert_eq!(load_acquire::<u128>(at), 1 << 100 | 5);
        }
    }

    #[test]
    fn signed_extremes_compare_as_signed_numbers_of_their_width() {
        let host = ram();
        let at = host.host(Pa(0x4000_0020), 8).unwrap();
        // SAFETY: aligned bytes of RAM.
        unsafe {
            store::<u8>(at, 0xff);
            assert_eq!(read_modify_write::<u8>(at, AtomicOp::Smax, 1), 0xff);
            assert_eq!(load::<u8>(at), 1);
            assert_eq!(read_modify_write::<u8>(at, AtomicOp::Smin, 0x80), 1);
            assert_eq!(read_modify_write::<u8>(at, AtomicOp::Umin, 0x7f), 0x80);
            assert_eq!(load::<u8>(at), 0x7f);
        }
    }
}
