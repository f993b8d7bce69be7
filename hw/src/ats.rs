//! Address translation services and page requests: what an endpoint with an address translation cache (ATC) and
//! the translation agent in front of memory say to each other (PCIe Base, chapter 10).
//!
//! The endpoint calls the agent through [`AtsPort`]; the agent calls the endpoint through [`AtsEndpoint`]. Messages
//! arrive in the order in which they are sent. Deliberately absent: configuration space (the endpoint asks its own
//! capabilities whether it may send anything), requests for several translations in one completion, and the
//! wait for a page: an endpoint keeps its own list of page requests.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dma::{DmaFault, DmaTag};
use crate::{Iova, Pa, Pasid, StreamId};

/// Translation Request for one smallest translation unit of 4 KiB (10.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationRequest {
    /// On whose behalf, with the privilege and the execute permission that are asked for.
    pub tag: DmaTag,
    /// The untranslated address; bits below 12 count for nothing.
    pub address: Iova,
    /// No Write: the endpoint asks for read permission only.
    pub no_write: bool,
}

/// A translation that was granted, or refused in part or whole (10.2.3). Without `read` and `write`
/// the address means nothing, and the answer must not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtsTranslation {
    /// Start of the translated range, aligned to its size.
    pub address: Pa,
    /// Log2 of the range's bytes, at least 12.
    pub size_log2: u8,
    /// Read permission.
    pub read: bool,
    /// Write permission.
    pub write: bool,
    /// Execute permission.
    pub execute: bool,
    /// The permissions are those of privileged accesses.
    pub privileged: bool,
    /// Global: good for every PASID of the endpoint.
    pub global: bool,
    /// Untranslated access only: use the range without translation.
    pub untranslated_only: bool,
}

/// A completion without a translation (10.2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsRefusal {
    /// Unsupported Request: the endpoint shall stop using translation services.
    UnsupportedRequest,
    /// Completer Abort: this request failed.
    CompleterAbort,
}

/// Page Request Group index: 9 bits (10.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrgIndex(u16);

impl PrgIndex {
    /// Groups that can be told apart.
    pub const COUNT: u16 = 512;

    /// The index of the low nine bits.
    #[must_use]
    pub const fn new(bits: u16) -> Self {
        Self(bits % Self::COUNT)
    }

    /// The nine bits.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Page Request message (10.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// On whose behalf, with privilege and execute as requested.
    pub tag: DmaTag,
    /// The page; bits below 12 count for nothing.
    pub address: Iova,
    /// Read access is wanted.
    pub read: bool,
    /// Write access is wanted.
    pub write: bool,
    /// The last of its group: what is answered.
    pub last: bool,
    /// The group.
    pub index: PrgIndex,
}

impl PageRequest {
    /// A stop marker: no earlier request of its PASID is still on its way when this arrives, and it has no answer.
    #[must_use]
    pub const fn stop_marker(stream: StreamId, pasid: Pasid) -> Self {
        let tag = DmaTag::process(stream, pasid);
        Self { tag, address: Iova(0), read: false, write: false, last: true, index: PrgIndex(0) }
    }

    /// Whether this is a stop marker: last, with a PASID, and nothing wanted.
    #[must_use]
    pub const fn is_stop_marker(&self) -> bool {
        self.last && !self.read && !self.write && self.tag.pasid.is_some()
    }
}

/// Response Code of a PRG response (10.4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageResponseCode {
    /// All pages of the group are there; ask for translations again.
    Success,
    /// At least one page can't be had.
    InvalidRequest,
    /// The agent can't serve page requests; the endpoint's page request interface stops.
    ResponseFailure,
}

impl PageResponseCode {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::InvalidRequest => "Invalid Request",
            Self::ResponseFailure => "Response Failure",
        }
    }

    /// The four bits of the message.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Success => 0b0000,
            Self::InvalidRequest => 0b0001,
            Self::ResponseFailure => 0b1111,
        }
    }
}

/// PRG Response message (10.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageResponse {
    /// The PASID, if the response carries one.
    pub pasid: Option<Pasid>,
    /// Which group is answered.
    pub index: PrgIndex,
    /// The answer.
    pub code: PageResponseCode,
}

/// Invalidate Request message (10.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidateRequest {
    /// Whose translations; without one, all that lie in the range, whatever their PASID.
    pub pasid: Option<Pasid>,
    /// Global Invalidate: in every PASID's address space.
    pub global: bool,
    /// Start of the range, aligned to its size.
    pub address: Iova,
    /// Log2 of the range's bytes, 12 to 64.
    pub size_log2: u8,
}

impl InvalidateRequest {
    /// Whether the range overlaps `2^size_log2` bytes at `address`.
    #[must_use]
    pub const fn overlaps(&self, address: Iova, size_log2: u8) -> bool {
        let larger = if size_log2 > self.size_log2 { size_log2 } else { self.size_log2 };
        larger >= 64 || (self.address.0 ^ address.0) >> larger == 0
    }
}

/// What tells the completions of an agent's Invalidate Requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InvalidateTag(pub u64);

/// From when on an endpoint has looked a translation up. It begins a new age with each invalidation; the translation is
/// good while the age is the same.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    age: &'a AtomicU64,
    from: u64,
}

impl<'a> Stamp<'a> {
    /// The stamp of what was looked up after `age` was read and found to be `from`.
    #[inline]
    #[must_use]
    pub const fn new(age: &'a AtomicU64, from: u64) -> Self {
        Self { age, from }
    }

    /// The stamp of a translation that its user keeps from being invalidated.
    #[must_use]
    pub const fn always() -> Self {
        static NO_OTHER: AtomicU64 = AtomicU64::new(0);
        Self::new(&NO_OTHER, 0)
    }

    /// Whether the translation is good. Sequentially consistent.
    #[inline]
    #[must_use]
    pub fn is_good(self) -> bool {
        self.age.load(Ordering::SeqCst) == self.from
    }
}

/// Why a translated access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TranslatedFault {
    /// The translation is no longer good. Nothing was transferred.
    OutOfDate,
    /// As of any access; the address is the translated one.
    Fault(DmaFault),
}

impl From<DmaFault> for TranslatedFault {
    fn from(fault: DmaFault) -> Self {
        Self::Fault(fault)
    }
}

/// A translation agent, as endpoints see it.
pub trait AtsPort: Send + Sync {
    /// Makes `endpoint` the one that messages for `stream` go to. A later call for the same stream replaces it.
    fn attach(&self, stream: StreamId, endpoint: Weak<dyn AtsEndpoint>);

    /// Sends a Translation Request. Never waits for the guest.
    ///
    /// # Errors
    /// [`AtsRefusal`]. A page that is not there is no error: its translation has no permissions.
    fn request_translation(&self, request: &TranslationRequest) -> Result<AtsTranslation, AtsRefusal>;

    /// Reads at a translated address that was looked up from a stamp on, if the age is still the same: the agent compares
    /// when [`Self::await_translated`] would wait for this access already.
    ///
    /// # Errors
    /// [`TranslatedFault`].
    fn read_translated_if(
        &self,
        stream: StreamId,
        at: Pa,
        out: &mut [u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault>;

    /// Writes at a translated address, as [`Self::read_translated_if`] reads.
    ///
    /// # Errors
    /// [`TranslatedFault`].
    fn write_translated_if(
        &self,
        stream: StreamId,
        at: Pa,
        data: &[u8],
        from: Stamp<'_>,
    ) -> Result<(), TranslatedFault>;

    /// Reads at a translated address. The endpoint keeps the translation from being invalidated meanwhile.
    ///
    /// # Errors
    /// [`DmaFault::Aborted`], at the translated address.
    fn read_translated(&self, stream: StreamId, at: Pa, out: &mut [u8]) -> Result<(), DmaFault> {
        always_good(at, self.read_translated_if(stream, at, out, Stamp::always()))
    }

    /// Writes at a translated address, as [`Self::read_translated`] reads.
    ///
    /// # Errors
    /// [`DmaFault::Aborted`], at the translated address.
    fn write_translated(&self, stream: StreamId, at: Pa, data: &[u8]) -> Result<(), DmaFault> {
        always_good(at, self.write_translated_if(stream, at, data, Stamp::always()))
    }

    /// Returns when no translated access is under way whose stamp was good until now. An endpoint calls it after it has
    /// begun a new age, and before it completes an invalidation; with no lock that an access takes. Waits for no
    /// guest's answer.
    fn await_translated(&self);

    /// Sends a Page Request. The answer to the last one of a group comes as [`AtsEndpoint::page_response`], perhaps
    /// before this returns.
    fn request_page(&self, request: &PageRequest);

    /// Sends the Invalidate Completion for `tag`. Unknown ones are ignored.
    fn invalidate_completed(&self, stream: StreamId, tag: InvalidateTag);
}

fn always_good(at: Pa, result: Result<(), TranslatedFault>) -> Result<(), DmaFault> {
    result.map_err(|fault| match fault {
        TranslatedFault::Fault(fault) => fault,
        TranslatedFault::OutOfDate => DmaFault::Aborted(Iova(at.0)),
    })
}

/// An endpoint with an ATC, as the translation agent sees it. Both calls come on the agent's thread: they wait for
/// nothing that takes a guest's answer.
pub trait AtsEndpoint: Send + Sync {
    /// An Invalidate Request. The endpoint answers with [`AtsPort::invalidate_completed`], from in here or later:
    /// then nothing in the range is used any more.
    fn invalidate(&self, request: &InvalidateRequest, tag: InvalidateTag);

    /// A PRG Response, perhaps to a group that nobody asked for.
    fn page_response(&self, response: &PageResponse);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        let request =
            InvalidateRequest { pasid: None, global: false, address: Iova(0x20_0000), size_log2: 14 };
        assert!(request.overlaps(Iova(0x20_3000), 12));
        assert!(!request.overlaps(Iova(0x20_4000), 12));
        assert!(request.overlaps(Iova(0x20_0000), 21));
        let all = InvalidateRequest { size_log2: 64, ..request };
        assert!(all.overlaps(Iova(u64::MAX), 12));
    }

    #[test]
    fn stop_marker_is_a_last_request_for_nothing_with_a_pasid() {
        let pasid = Pasid::new(3).unwrap();
        let marker = PageRequest::stop_marker(StreamId(8), pasid);
        assert!(marker.is_stop_marker());
        assert!(!PageRequest { read: true, ..marker }.is_stop_marker());
        assert!(!PageRequest { tag: DmaTag::untagged(StreamId(8)), ..marker }.is_stop_marker());
    }

    #[test]
    fn group_index_has_nine_bits() {
        assert_eq!(PrgIndex::new(0x3ff).get(), 0x1ff);
    }
}
