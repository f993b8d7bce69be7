//! Guest memory as `virtio-queue` wants it, behind a DMA port.
//!
//! Each access is translated and its pages stay pinned until the slices have been used: an invalidation waits for
//! the copy, and no copy uses an old translation.

use std::iter::FusedIterator;

use hw::ram::GuestRam;
use hw::watch::WatchSlice;
use hw::{Dir, DmaPort, Iova, Pinned, Ram, Requester, WriteWatch};
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryResult, Permissions,
    VolatileSlice,
};

/// Memory at the addresses of one requester.
pub(super) struct DmaMemory<'p> {
    pub(super) ram: &'p Ram,
    pub(super) port: &'p dyn DmaPort,
    pub(super) who: &'p Requester,
}

/// Slices of a pinned range.
struct PinnedSlices<'a> {
    slices: std::vec::IntoIter<VolatileSlice<'a, WatchSlice<'a>>>,
    _pinned: Option<Pinned<'a>>,
}

impl<'a> Iterator for PinnedSlices<'a> {
    type Item = GuestMemoryResult<VolatileSlice<'a, WatchSlice<'a>>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.slices.next().map(Ok)
    }
}

impl FusedIterator for PinnedSlices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, WatchSlice<'a>> for PinnedSlices<'a> {}

impl GuestMemory for DmaMemory<'_> {
    type PhysicalMemory = GuestRam;
    type Bitmap = WriteWatch;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.get_slices(addr, count, access).is_ok()
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, WatchSlice<'a>>> {
        let mut slices = Vec::new();
        if count == 0 {
            return Ok(PinnedSlices { slices: slices.into_iter(), _pinned: None });
        }
        let dir = if access.has_write() { Dir::Write } else { Dir::Read };
        let pinned = self
            .port
            .pin(self.who, Iova(addr.0), count, dir)
            .map_err(|_| GuestMemoryError::InvalidGuestAddress(addr))?;
        for &(pa, len) in &pinned.pieces {
            slices.push(GuestMemoryBackend::get_slice(self.ram.guest_memory(), GuestAddress(pa.0), len)?);
        }
        // vm-memory takes the first slice of a non-empty range for granted.
        let completed = slices.iter().map(VolatileSlice::len).sum();
        if completed != count {
            return Err(GuestMemoryError::PartialBuffer { expected: count, completed });
        }
        Ok(PinnedSlices { slices: slices.into_iter(), _pinned: Some(pinned) })
    }
}
