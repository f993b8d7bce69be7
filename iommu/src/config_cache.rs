//! Cached configuration: what a stream and SubstreamID come to, and its invalidation (3.17, 4.3).
//!
//! Only configurations that let transactions through are kept. Level 1 descriptors aren't cached on their own:
//! software may make one valid without a command, and one that has been followed is part of what was found there.

use crate::config::{Stream, StreamConfig};
use crate::spec::cd::{Cd, CdD0, CdTtb};
use tcache::{Age, Aged, Cache, Key, LeastAge, LeastAges};

const WAYS: usize = 4;
const LOG2_SETS: u32 = 8;

/// Streams of one CMD_CFGI_STE_RANGE that are invalidated one by one; larger ranges take all.
const RANGE_LIMIT: u64 = 256;

/// For which transactions of a stream a configuration is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Those with this SubstreamID, or without one.
    Context(Option<u32>),
    /// Translated ones, for which there is no context.
    Translated,
}

fn key(sid: u32, part: Part) -> Key {
    let part = match part {
        Part::Context(ssid) => ssid.map_or(0, |ssid| 1 << 52 | u64::from(ssid) << 32),
        Part::Translated => 1 << 53,
    };
    [1 << 63 | part | u64::from(sid), 0]
}

impl Stream {
    const STAGE1: u64 = 1;
    const ATS: u64 = 2;

    fn pack(self) -> [u64; 4] {
        let ats = if self.ats { Self::ATS } else { 0 };
        match self.config {
            StreamConfig::Bypass => [ats, 0, 0, 0],
            StreamConfig::Stage1(cd) => [ats | Self::STAGE1, cd.d0.into(), cd.d1.into(), cd.d2.into()],
        }
    }

    fn unpack([kind, d0, d1, d2]: [u64; 4]) -> Self {
        let config = match kind & Self::STAGE1 {
            0 => StreamConfig::Bypass,
            _ => StreamConfig::Stage1(Cd { d0: CdD0::from(d0), d1: CdTtb::from(d1), d2: CdTtb::from(d2) }),
        };
        Self { ats: kind & Self::ATS != 0, config }
    }
}

/// Configurations by stream and SubstreamID.
#[derive(Debug)]
pub(crate) struct ConfigCache {
    entries: Cache<WAYS, 4>,
    least_of_stream: LeastAges,
    least_of_all: LeastAge,
}

impl ConfigCache {
    pub(crate) fn new() -> Self {
        Self {
            entries: Cache::new(LOG2_SETS),
            least_of_stream: LeastAges::default(),
            least_of_all: LeastAge::default(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, sid: u32, part: Part) -> Option<Stream> {
        let Aged { age, data } = self.entries.get(key(sid, part))?;
        let least = self.least_of_stream.of(sid).max(self.least_of_all.get());
        (age >= least).then(|| Stream::unpack(data))
    }

    /// Keeps what was fetched from `age` on.
    pub(crate) fn insert(&self, sid: u32, part: Part, age: u64, stream: Stream) {
        self.entries.insert(key(sid, part), Aged { age, data: stream.pack() });
    }

    /// CMD_CFGI_ALL.
    pub(crate) fn invalidate_all(&self, age: &Age) {
        self.least_of_all.raise(age.advance());
    }

    /// CMD_CFGI_STE, CMD_CFGI_CD_ALL: the entry of the stream with all context descriptors behind it.
    pub(crate) fn invalidate_stream(&self, age: &Age, sid: u32) {
        self.least_of_stream.raise(sid, age.advance());
    }

    /// CMD_CFGI_STE_RANGE: 2^(range + 1) streams, aligned.
    pub(crate) fn invalidate_streams(&self, age: &Age, sid: u32, range: u32) {
        let count = 1u64 << (range + 1).min(32);
        if count > RANGE_LIMIT {
            return self.invalidate_all(age);
        }
        let now = age.advance();
        let first = u64::from(sid) & !(count - 1);
        for sid in first..first + count {
            self.least_of_stream.raise(sid as u32, now);
        }
    }

    /// CMD_CFGI_CD: one context descriptor. SubstreamID 0 is also what traffic without one may use.
    pub(crate) fn invalidate_context(&self, age: &Age, sid: u32, ssid: u32) {
        let now = age.advance();
        self.entries.remove(key(sid, Part::Context(Some(ssid))), now);
        if ssid == 0 {
            self.entries.remove(key(sid, Part::Context(None)), now);
        }
    }
}
