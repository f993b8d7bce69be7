//! Cached configurations of streams and SubstreamIDs, and their invalidation (3.17, 4.3).
//!
//! Only configurations that let transactions pass are kept. Level 1 descriptors aren't cached on their own, because
//! software may make one valid without a command. A configuration that was found through one is invalidated with it.

use crate::context::World;
use crate::spec::cd::{Cd, CdD0, CdTtb};
use crate::spec::ste::{SteD1, SteD2, SteD3};
use crate::stage2::Stage2;
use crate::stream::{Ats, StreamConfig};
use crate::transaction::{Kind, Transaction};
use tcache::{Age, Aged, Cache, Key, LeastAge, LeastAges};

const WAYS: usize = 4;
const LOG2_SETS: u32 = 8;

/// Streams of one CMD_CFGI_STE_RANGE that are invalidated one by one; a larger range invalidates all streams.
const RANGE_LIMIT: u64 = 256;

/// Which transactions of a stream a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Those with this SubstreamID, or without one.
    Context(Option<u32>),
    /// Translated ones, for which there is no context.
    Translated,
}

impl Part {
    /// Which configuration a transaction takes.
    #[inline]
    pub(crate) fn of(tx: &Transaction) -> Self {
        match tx.kind {
            Kind::Translated => Self::Translated,
            Kind::Untranslated | Kind::Request => Self::Context(tx.ssid),
        }
    }
}

fn key(sid: u32, part: Part) -> Key {
    let part = match part {
        Part::Context(ssid) => ssid.map_or(0, |ssid| 1 << 52 | u64::from(ssid) << 32),
        Part::Translated => 1 << 53,
    };
    [1 << 63 | part | u64::from(sid), 0]
}

/// Dwords of a packed configuration.
const WORDS: usize = 7;

impl StreamConfig {
    const STAGE1: u64 = 1 << 0;
    const STAGE2: u64 = 1 << 1;
    const WORLD_SHIFT: u32 = 2;
    const ATS_SHIFT: u32 = 4;
    const VMID_SHIFT: u32 = 16;

    fn pack(self) -> [u64; WORDS] {
        let Self { world, stage1, stage2, d1, vmid, ats } = self;
        let mut head = u64::from(vmid) << Self::VMID_SHIFT
            | (ats as u64) << Self::ATS_SHIFT
            | (world as u64) << Self::WORLD_SHIFT;
        let mut words = [0, d1.into(), 0, 0, 0, 0, 0];
        if let Some(Cd { d0, d1, d2 }) = stage1 {
            head |= Self::STAGE1;
            words[2..5].copy_from_slice(&[d0.into(), d1.into(), d2.into()]);
        }
        if let Some(Stage2 { d2, d3, .. }) = stage2 {
            head |= Self::STAGE2;
            words[5..7].copy_from_slice(&[d2.into(), d3.into()]);
        }
        words[0] = head;
        words
    }

    fn unpack([head, ste_d1, cd_d0, cd_d1, cd_d2, d2, d3]: [u64; WORDS]) -> Self {
        let d1 = SteD1::from(ste_d1);
        let (world, ats) = (head >> Self::WORLD_SHIFT & 3, head >> Self::ATS_SHIFT & 3);
        // Entries are made by `pack` alone, and are read whole or not at all. (On every hit: not asked in a release.)
        debug_assert!(world <= 2 && ats <= 2, "`pack` makes no world {world} and no ATS mode {ats}");
        Self {
            world: match world {
                0 => World::El1,
                1 => World::El2,
                _ => World::El2E2h,
            },
            stage1: (head & Self::STAGE1 != 0).then(|| Cd {
                d0: CdD0::from(cd_d0),
                d1: CdTtb::from(cd_d1),
                d2: CdTtb::from(cd_d2),
            }),
            stage2: (head & Self::STAGE2 != 0).then(|| Stage2 {
                d1,
                d2: SteD2::from(d2),
                d3: SteD3::from(d3),
            }),
            d1,
            vmid: (head >> Self::VMID_SHIFT) as u16,
            ats: match ats {
                0 => Ats::Off,
                1 => Ats::Full,
                _ => Ats::Split,
            },
        }
    }
}

/// Configurations by stream and SubstreamID.
#[derive(Debug)]
pub(crate) struct ConfigCache {
    entries: Cache<WAYS, WORDS>,
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
    pub(crate) fn get(&self, sid: u32, part: Part) -> Option<StreamConfig> {
        let Aged { age, data } = self.entries.get(key(sid, part))?;
        let least = self.least_of_stream.of(sid).max(self.least_of_all.get());
        (age >= least).then(|| StreamConfig::unpack(data))
    }

    /// Keeps what was fetched from `age` on.
    pub(crate) fn insert(&self, sid: u32, part: Part, age: u64, config: StreamConfig) {
        self.entries.insert(key(sid, part), Aged { age, data: config.pack() });
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

    /// CMD_CFGI_CD: one context descriptor. Transactions without SubstreamID may use that of SubstreamID 0.
    pub(crate) fn invalidate_context(&self, age: &Age, sid: u32, ssid: u32) {
        let now = age.advance();
        self.entries.remove(key(sid, Part::Context(Some(ssid))), now);
        if ssid == 0 {
            self.entries.remove(key(sid, Part::Context(None)), now);
        }
    }
}
