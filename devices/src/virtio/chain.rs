//! A descriptor chain, read once and checked, as buffers to read from and to write to (2.7).

use std::collections::VecDeque;

use hw::{DmaFault, Iova};
use virtio_queue::DescriptorChain;

use super::device::{Io, ServeError};
use super::memory::DmaMemory;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    at: Iova,
    len: u32,
}

/// Buffers one behind the other, consumed from the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    segments: VecDeque<Segment>,
    bytes: u64,
}

/// Why a copy to or from buffers ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyError {
    /// The buffers have fewer bytes.
    Short,
    /// The access failed.
    Fault(DmaFault),
}

impl Buffers {
    fn push(&mut self, segment: Segment) {
        if segment.len > 0 {
            self.bytes += u64::from(segment.len);
            self.segments.push_back(segment);
        }
    }

    /// Bytes that are left; at most 4 GiB.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes up to `max` bytes that are contiguous from the front.
    fn take(&mut self, max: usize) -> Option<(Iova, usize)> {
        let first = self.segments.front_mut()?;
        let taken = u32::try_from(max).unwrap_or(u32::MAX).min(first.len);
        let at = first.at;
        // The end of a segment was checked when the chain was read.
        first.at = Iova(at.0.wrapping_add(taken.into()));
        first.len -= taken;
        if first.len == 0 {
            self.segments.pop_front();
        }
        self.bytes -= u64::from(taken);
        Some((at, taken as usize))
    }

    /// Takes the last byte.
    pub(super) fn take_last(&mut self) -> Option<Iova> {
        let last = self.segments.back_mut()?;
        last.len -= 1;
        let at = Iova(last.at.0.wrapping_add(last.len.into()));
        if last.len == 0 {
            self.segments.pop_back();
        }
        self.bytes -= 1;
        Some(at)
    }

    /// Fills `out` from the front.
    pub(super) fn gather(&mut self, io: &Io<'_>, out: &mut [u8]) -> Result<(), CopyError> {
        let mut rest = out;
        while !rest.is_empty() {
            let (at, len) = self.take(rest.len()).ok_or(CopyError::Short)?;
            let (now, later) = rest.split_at_mut(len);
            io.read(at, now).map_err(CopyError::Fault)?;
            rest = later;
        }
        Ok(())
    }

    /// Writes `data` to the front.
    pub(super) fn scatter(&mut self, io: &Io<'_>, data: &[u8]) -> Result<(), CopyError> {
        let mut rest = data;
        while !rest.is_empty() {
            let (at, len) = self.take(rest.len()).ok_or(CopyError::Short)?;
            let (now, later) = rest.split_at(len);
            io.write(at, now).map_err(CopyError::Fault)?;
            rest = later;
        }
        Ok(())
    }
}

/// A request: what the driver has sent, and room for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// To be read by the device.
    pub readable: Buffers,
    /// To be written by the device.
    pub writable: Buffers,
}

impl Request {
    /// Reads a chain. `limit` is the queue size, which no chain may exceed (2.7.5.3.1).
    ///
    /// # Errors
    /// [`ServeError::Malformed`] for a chain that is empty, unreadable, too long or circular, has a buffer past the
    /// end of the address space, or one to be read behind one to be written.
    pub(super) fn parse<'m>(
        chain: DescriptorChain<&'m DmaMemory<'m>>,
        limit: u16,
    ) -> Result<Self, ServeError> {
        let mut request = Self { readable: Buffers::default(), writable: Buffers::default() };
        let mut is_complete = false;
        for descriptor in chain.take(limit.into()) {
            let segment = Segment { at: Iova(descriptor.addr().0), len: descriptor.len() };
            if segment.at.checked_add(segment.len.into()).is_none() {
                return Err(ServeError::Malformed);
            }
            if descriptor.is_write_only() {
                request.writable.push(segment);
            } else if request.writable.is_empty() {
                request.readable.push(segment);
            } else {
                return Err(ServeError::Malformed);
            }
            // The iterator ends in the same way at the last descriptor, at one that it cannot read, and when it has
            // gone round a circle.
            is_complete = !descriptor.has_next();
        }
        if is_complete { Ok(request) } else { Err(ServeError::Malformed) }
    }
}
