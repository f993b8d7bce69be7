//! What an ATC remembers: translations by PASID, privilege and address, and how they are taken out.
//!
//! Entries carry the number of the enabling of ATS under which they came in, so that disabling it empties the cache.

use std::sync::atomic::{AtomicU64, Ordering};

use hw::ats::{AtsTranslation, InvalidateRequest};
use hw::{DmaTag, Iova, Pasid};
use tcache::{Age, Aged, Cache, Key, LeastAge, LeastAges, Place};

const WAYS: usize = 4;
const LOG2_SETS: u32 = 10;

/// Entries that one invalidation looks for one by one; larger ranges take all of the PASID.
const RANGE_LIMIT: u64 = 256;

/// What an access needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Read,
    Write,
    Execute,
}

impl Need {
    /// The one of [`Found::permissions`] that it needs.
    #[inline]
    pub(super) const fn permission(self) -> u64 {
        match self {
            Self::Read => Found::READ,
            Self::Write => Found::WRITE,
            Self::Execute => Found::EXECUTE,
        }
    }
}

/// A cached translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    address: u64,
    size_log2: u32,
    permissions: u64,
}

impl Found {
    const READ: u64 = 1;
    const WRITE: u64 = 2;
    const EXECUTE: u64 = 4;

    /// `None` if it says nothing that could be kept: no permissions, or a range that no address space has.
    pub(super) fn of(translation: &AtsTranslation) -> Option<Self> {
        let bit = |granted: bool, bit: u64| if granted { bit } else { 0 };
        let permissions = bit(translation.read, Self::READ)
            | bit(translation.write, Self::WRITE)
            | bit(translation.execute && translation.read, Self::EXECUTE);
        let size_log2 = u32::from(translation.size_log2);
        let start = (12..=62).contains(&size_log2).then(|| u64::MAX << size_log2)?;
        let is_usable = permissions != 0 && !translation.untranslated_only;
        is_usable.then_some(Self { address: translation.address.0 & start, size_log2, permissions })
    }

    pub(super) const fn allows(&self, need: Need) -> bool {
        self.permissions & need.permission() != 0
    }

    pub(super) const fn permissions(&self) -> u64 {
        self.permissions
    }

    /// Where an address inside the range is.
    pub(super) const fn place(&self, at: Iova) -> Place {
        let size = 1 << self.size_log2;
        let offset = at.0 & (size - 1);
        Place { pa: self.address | offset, len: size - offset, size_log2: self.size_log2 }
    }
}

/// A PASID and a privilege.
#[inline]
pub(super) fn whose(pasid: Option<Pasid>, privileged: bool) -> u64 {
    u64::from(privileged) << 21 | pasid.map_or(0, |pasid| 1 << 20 | u64::from(pasid.get()))
}

fn key(enabling: u32, pasid: Option<Pasid>, privileged: bool, at: Iova, size_log2: u32) -> Key {
    // Page numbers have 52 bits at most; no size is zero.
    [u64::from(size_log2) << 52 | at.0 >> size_log2, u64::from(enabling) << 32 | whose(pasid, privileged)]
}

/// The cache.
#[derive(Debug)]
pub(super) struct Translations {
    entries: Cache<WAYS, 1>,
    /// Sizes (bit n: 2^n bytes) that have ever been put in: where to look.
    sizes: AtomicU64,
    least_of_pasid: LeastAges,
    least_of_all: LeastAge,
}

impl Translations {
    pub(super) fn new() -> Self {
        Self {
            entries: Cache::new(LOG2_SETS),
            sizes: AtomicU64::new(0),
            least_of_pasid: LeastAges::default(),
            least_of_all: LeastAge::default(),
        }
    }

    /// A translation of `at` that allows what is needed.
    #[inline]
    pub(super) fn get(&self, enabling: u32, tag: &DmaTag, at: Iova, need: Need) -> Option<Found> {
        let mut sizes = self.sizes.load(Ordering::Relaxed);
        while sizes != 0 {
            let size_log2 = sizes.trailing_zeros();
            sizes &= sizes - 1;
            let key = key(enabling, tag.pasid, tag.privileged, at, size_log2);
            let Some(Aged { age, data: [word] }) = self.entries.get(key) else { continue };
            let found = Found { address: word & !0xfff, size_log2, permissions: word & 0xfff };
            let least = self.least_of_pasid.of(number(tag.pasid)).max(self.least_of_all.get());
            if age >= least && found.allows(need) {
                return Some(found);
            }
        }
        None
    }

    /// Keeps what was asked for from `asked` on.
    pub(super) fn insert(&self, enabling: u32, tag: &DmaTag, at: Iova, asked: u64, age: &Age, found: Found) {
        self.sizes.fetch_or(1 << found.size_log2, Ordering::SeqCst);
        // An invalidation reads the sizes after it has begun an age: either it sees this size, or this sees the age.
        if age.now() == asked {
            let key = key(enabling, tag.pasid, tag.privileged, at, found.size_log2);
            self.entries.insert(key, Aged { age: asked, data: [found.address | found.permissions] });
        }
    }

    /// Takes out what a request asks for, at least. What is being asked for meanwhile does not come in.
    pub(super) fn invalidate(&self, enabling: Option<u32>, age: &Age, request: &InvalidateRequest) {
        let now = age.advance();
        let Some(pasid) = request.pasid.filter(|_| !request.global) else {
            return self.least_of_all.raise(now);
        };
        let Some(enabling) = enabling else { return };
        let sizes = self.sizes.load(Ordering::SeqCst);
        let smallest = sizes.trailing_zeros();
        let range_log2 = u32::from(request.size_log2);
        if range_log2 >= 63 || range_log2.saturating_sub(smallest) > RANGE_LIMIT.ilog2() {
            return self.least_of_pasid.raise(number(Some(pasid)), now);
        }
        let start = request.address.0 & (u64::MAX << range_log2);
        for size_log2 in (12..63).filter(|size_log2| sizes >> size_log2 & 1 != 0) {
            for nth in 0..1 << range_log2.saturating_sub(size_log2) {
                let at = Iova(start.wrapping_add(nth << size_log2));
                for privileged in [false, true] {
                    self.entries.remove(key(enabling, Some(pasid), privileged, at, size_log2), now);
                }
            }
        }
    }
}

/// Whose entries fall together; without a PASID as with PASID 0, which is more than asked for and always allowed.
const fn number(pasid: Option<Pasid>) -> u32 {
    match pasid {
        Some(pasid) => pasid.get(),
        None => 0,
    }
}
