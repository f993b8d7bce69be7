//! Tells the CPU engine when somebody writes to a page from which it has translated code.
//!
//! [`WriteWatch`] sits in the place of vm-memory's dirty bitmap, so that *every* write that goes through guest
//! memory, by whichever crate, passes it. The engine sets a page's bit when it decodes from the page; a write to
//! such a page calls the engine's hook after the bytes are in memory. The engine's own stores do not come here:
//! it sees them in its software TLB. Deliberately absent: dirty logging for migration.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

use crate::Pa;

/// Log2 of the watched page size: 4 KiB, whatever granule the guest uses.
pub const WATCH_PAGE_SHIFT: u32 = 12;

/// What the CPU engine does when watched bytes have been written by someone else.
pub trait CodeWriteHook: Send + Sync {
    /// `len` bytes at `pa` have been written. Called after the write, on the writer's thread; takes only leaf locks.
    fn code_written(&self, pa: Pa, len: u64);
}

#[derive(Default)]
struct Inner {
    /// One bit per 4 KiB page of the region.
    pages: Box<[AtomicU64]>,
    /// Physical address of the region, and whom to tell. Set once, when RAM is put together.
    base: OnceLock<Pa>,
    hook: OnceLock<Arc<dyn CodeWriteHook>>,
}

/// The watch over one region of RAM.
#[derive(Clone, Default)]
pub struct WriteWatch {
    inner: Arc<Inner>,
}

impl fmt::Debug for WriteWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteWatch").field("base", &self.inner.base).finish_non_exhaustive()
    }
}

impl WriteWatch {
    fn set_base(&self, base: Pa) {
        // A second call would name the same region; the first address stays.
        let _ = self.inner.base.set(base);
    }

    fn set_hook(&self, hook: Arc<dyn CodeWriteHook>) {
        // Only one engine runs a machine; the first hook stays.
        let _ = self.inner.hook.set(hook);
    }

    fn bit(&self, offset: u64) -> Option<(&AtomicU64, u64)> {
        let page = offset >> WATCH_PAGE_SHIFT;
        let word = self.inner.pages.get(usize::try_from(page / 64).ok()?)?;
        Some((word, 1 << (page % 64)))
    }

    fn watch(&self, offset: u64) {
        if let Some((word, bit)) = self.bit(offset) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    fn unwatch(&self, offset: u64) {
        if let Some((word, bit)) = self.bit(offset) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    fn is_watched(&self, offset: u64) -> bool {
        self.bit(offset).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn written(&self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        // The engine sets the bit, passes a fence and reads the bytes; here the bytes have been written, and the bit is
        // looked at after a fence. Without it the look could come before the bytes are in memory (a processor may
        // let a load pass an earlier store), and both sides would miss each other.
        fence(Ordering::SeqCst);
        let first = offset >> WATCH_PAGE_SHIFT;
        let last = (offset + len - 1) >> WATCH_PAGE_SHIFT;
        let hit = (first..=last).any(|page| self.is_watched(page << WATCH_PAGE_SHIFT));
        if hit && let (Some(hook), Some(base)) = (self.inner.hook.get(), self.inner.base.get()) {
            hook.code_written(Pa(base.0 + offset), len);
        }
    }
}

impl<'a> WithBitmapSlice<'a> for WriteWatch {
    type S = WatchSlice<'a>;
}

impl Bitmap for WriteWatch {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.written(offset as u64, len as u64);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false // nothing is logged
    }

    fn slice_at(&self, offset: usize) -> WatchSlice<'_> {
        WatchSlice { watch: self, offset: offset as u64 }
    }
}

impl NewBitmap for WriteWatch {
    fn with_len(len: usize) -> Self {
        let pages = (len as u64).div_ceil(1 << WATCH_PAGE_SHIFT);
        let words = pages.div_ceil(64);
        let pages = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { inner: Arc::new(Inner { pages, ..Inner::default() }) }
    }
}

/// The watch as seen from inside a slice of the region.
#[derive(Clone, Copy, Debug)]
pub struct WatchSlice<'a> {
    watch: &'a WriteWatch,
    offset: u64,
}

impl<'b> WithBitmapSlice<'b> for WatchSlice<'_> {
    type S = Self;
}

impl BitmapSlice for WatchSlice<'_> {}

impl Bitmap for WatchSlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.watch.written(self.offset + offset as u64, len as u64);
    }

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { watch: self.watch, offset: self.offset + offset as u64 }
    }
}

impl WatchSlice<'_> {
    pub(crate) fn set_base(&self, base: Pa) {
        self.watch.set_base(base);
    }

    pub(crate) fn set_hook(&self, hook: Arc<dyn CodeWriteHook>) {
        self.watch.set_hook(hook);
    }

    pub(crate) fn watch(&self, offset: u64) {
        self.watch.watch(self.offset + offset);
    }

    pub(crate) fn unwatch(&self, offset: u64) {
        self.watch.unwatch(self.offset + offset);
    }

    pub(crate) fn is_watched(&self, offset: u64) -> bool {
        self.watch.is_watched(self.offset + offset)
    }
}
