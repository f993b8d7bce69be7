//! Locality-specific peripheral interrupts: their configuration and their pending state (IHI 0069, 5.1).
//!
//! Configurations are bytes of a table in guest memory, kept here once read until they are invalidated: a guest
//! that forgets to invalidate sees old values, as on hardware. All redistributors share that table
//! (GICR_TYPER.CommonLPIAff = 0). What is pending is kept here, and goes to the pending table in guest memory when LPIs
//! are disabled. Sets are bit maps with two levels of summary, so that the next LPI to deliver is found in a few steps
//! however many are pending.

use super::bank::PRIORITY_MASK;

/// The first LPI.
pub(super) const FIRST_LPI: u32 = 8192;
/// Bits of an INTID. GICD_TYPER.IDbits and ICC_CTLR_EL1.IDbits say so.
pub(super) const INTID_BITS: u32 = 16;
/// How many LPIs there are.
pub(super) const LPIS: usize = (1 << INTID_BITS) - FIRST_LPI as usize;

const WORDS: usize = LPIS / 64;
const _: () = assert!(LPIS.is_multiple_of(64));
const SUMMARY_WORDS: usize = WORDS.div_ceil(64);

/// An LPI's INTID less 8192: below [`LPIS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lpi(u16);

impl Lpi {
    /// The LPI of an INTID, if it is one.
    pub(super) fn new(intid: u32) -> Option<Self> {
        let n = u16::try_from(intid.checked_sub(FIRST_LPI)?).ok()?;
        (usize::from(n) < LPIS).then_some(Self(n))
    }

    /// INTID.
    pub(super) const fn intid(self) -> u32 {
        self.0 as u32 + FIRST_LPI
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of LPIs.
#[derive(Clone)]
pub(super) struct LpiSet {
    words: Box<[u64; WORDS]>,
    /// Which words are not zero.
    summary: [u64; SUMMARY_WORDS],
}

impl LpiSet {
    pub(super) fn new() -> Self {
        Self { words: Box::new([0; WORDS]), summary: [0; SUMMARY_WORDS] }
    }

    pub(super) fn contains(&self, lpi: Lpi) -> bool {
        self.words[lpi.index() / 64] >> (lpi.index() % 64) & 1 != 0
    }

    pub(super) fn insert(&mut self, lpi: Lpi) {
        let word = lpi.index() / 64;
        self.words[word] |= 1 << (lpi.index() % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    /// Takes an LPI out. Returns whether it was there.
    pub(super) fn remove(&mut self, lpi: Lpi) -> bool {
        let was = self.contains(lpi);
        let word = lpi.index() / 64;
        self.words[word] &= !(1 << (lpi.index() % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
        was
    }

    pub(super) fn is_empty(&self) -> bool {
        self.summary == [0; SUMMARY_WORDS]
    }

    /// The one with the lowest INTID.
    pub(super) fn first(&self) -> Option<Lpi> {
        self.iter().next()
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = Lpi> + '_ {
        let set_bits = |mut word: u64| {
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                word &= word.wrapping_sub(1);
                (bit < 64).then_some(bit)
            })
        };
        self.summary.iter().enumerate().flat_map(move |(i, &summary)| {
            set_bits(summary).flat_map(move |j| {
                let word = 64 * i + j;
                // Below LPIS, which fits: the summary names only words that exist.
                set_bits(self.words[word]).map(move |bit| Lpi((64 * word + bit) as u16))
            })
        })
    }

    /// Adds all of another set.
    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.words.iter_mut().zip(other.words.iter()) {
            *mine |= theirs;
        }
        for (mine, theirs) in self.summary.iter_mut().zip(&other.summary) {
            *mine |= theirs;
        }
    }

    /// The set as the pending table in guest memory has it, from the bit of INTID 8192 on.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The reverse of [`Self::to_bytes`]; what is missing at the end is empty.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut set = Self::new();
        for (i, (word, chunk)) in set.words.iter_mut().zip(bytes.chunks_exact(8)).enumerate() {
            *word = hw::mmio::value_of(chunk);
            if *word != 0 {
                set.summary[i / 64] |= 1 << (i % 64);
            }
        }
        set
    }
}

/// What a redistributor is to deliver: pending and enabled LPIs by priority. Sets are made when they are needed.
#[derive(Default)]
struct ReadyLpis {
    /// Which levels have one.
    levels: u32,
    sets: [Option<LpiSet>; 32],
}

impl ReadyLpis {
    fn insert(&mut self, lpi: Lpi, config: Config) {
        let level = config.level();
        if let Some(set) = self.sets.get_mut(level) {
            set.get_or_insert_with(LpiSet::new).insert(lpi);
            self.levels |= 1 << level;
        }
    }

    fn remove(&mut self, lpi: Lpi, config: Config) {
        let level = config.level();
        if let Some(Some(set)) = self.sets.get_mut(level) {
            set.remove(lpi);
            if set.is_empty() {
                self.levels &= !(1 << level);
            }
        }
    }

    fn best(&self) -> Option<(u8, Lpi)> {
        let level = self.levels.trailing_zeros();
        let lpi = self.sets.get(level as usize)?.as_ref()?.first()?;
        Some(((level << PRIORITY_MASK.trailing_zeros()) as u8, lpi))
    }

    /// Takes all of another's, level by level: a set is moved as a whole where this side has none.
    fn take_all(&mut self, other: &mut Self) {
        for (level, (mine, theirs)) in self.sets.iter_mut().zip(&mut other.sets).enumerate() {
            if other.levels >> level & 1 == 0 {
                continue;
            }
            if self.levels >> level & 1 == 0 {
                std::mem::swap(mine, theirs);
            } else if let (Some(mine), Some(theirs)) = (mine.as_mut(), theirs.take()) {
                mine.merge(&theirs);
            }
        }
        self.levels |= other.levels;
        other.levels = 0;
    }
}

/// The pending LPIs of one redistributor.
#[derive(Default)]
pub(super) struct PendingLpis {
    /// `None` while LPIs are disabled.
    pending: Option<LpiSet>,
    ready: ReadyLpis,
}

impl PendingLpis {
    /// Whether LPIs are enabled.
    pub(super) const fn is_on(&self) -> bool {
        self.pending.is_some()
    }

    /// All that are pending, ascending.
    pub(super) fn pending(&self) -> impl Iterator<Item = Lpi> + '_ {
        self.pending.iter().flat_map(LpiSet::iter)
    }

    pub(super) fn is_pending(&self, lpi: Lpi) -> bool {
        self.pending.as_ref().is_some_and(|set| set.contains(lpi))
    }

    /// Makes an LPI pending; ignored while LPIs are disabled.
    pub(super) fn set(&mut self, lpi: Lpi, config: Config) {
        let Some(pending) = &mut self.pending else { return };
        pending.insert(lpi);
        if config.is_enabled() {
            self.ready.insert(lpi, config);
        }
    }

    /// Makes an LPI not pending. `config` is what [`Self::set`] was given. Returns whether it was pending.
    pub(super) fn clear(&mut self, lpi: Lpi, config: Config) -> bool {
        let was = self.pending.as_mut().is_some_and(|set| set.remove(lpi));
        if was {
            self.ready.remove(lpi, config);
        }
        was
    }

    /// The enabled one with the highest priority, and the priority.
    pub(super) fn best(&self) -> Option<(u8, Lpi)> {
        self.ready.best()
    }

    /// LPIs are enabled, with these pending and none ready yet: see [`Self::sort`].
    pub(super) fn turn_on(&mut self, pending: LpiSet) {
        *self = Self { pending: Some(pending), ready: ReadyLpis::default() };
    }

    /// LPIs are disabled. Returns what was pending.
    pub(super) fn turn_off(&mut self) -> Option<LpiSet> {
        std::mem::take(self).pending
    }

    /// Finds out anew which pending ones are enabled and at what priority.
    pub(super) fn sort(&mut self, mut config: impl FnMut(Lpi) -> Config) {
        self.ready = ReadyLpis::default();
        let Some(pending) = &self.pending else { return };
        for lpi in pending.iter() {
            let config = config(lpi);
            if config.is_enabled() {
                self.ready.insert(lpi, config);
            }
        }
    }

    /// All that is pending on `from` becomes pending here instead, or is dropped if LPIs are disabled here.
    pub(super) fn take_all(&mut self, from: &mut Self) {
        let Some(theirs) = &mut from.pending else { return };
        if let Some(mine) = &mut self.pending {
            if mine.is_empty() {
                std::mem::swap(mine, theirs);
            } else if !theirs.is_empty() {
                mine.merge(theirs);
                *theirs = LpiSet::new();
            }
            self.ready.take_all(&mut from.ready);
        } else {
            *from = Self { pending: Some(LpiSet::new()), ready: ReadyLpis::default() };
        }
    }
}

/// An LPI's entry in the configuration table: priority \[7:2\], enable \[0\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config(u8);

impl Config {
    /// What an LPI without an entry has.
    pub(super) const DISABLED: Self = Self(0);

    /// Of a saved state: `None` for bits that are not kept.
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        (bits & !(PRIORITY_MASK | 1) == 0).then_some(Self(bits))
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn is_enabled(self) -> bool {
        self.0 & 1 != 0
    }

    /// Priority in units of what is implemented: 0 to 31.
    const fn level(self) -> usize {
        ((self.0 & PRIORITY_MASK) >> PRIORITY_MASK.trailing_zeros()) as usize
    }
}

/// The configurations that have been read.
pub(super) struct ConfigCache {
    bytes: Box<[u8]>,
}

impl ConfigCache {
    /// Set in the bytes that have been read; in the table this bit has no meaning.
    const READ: u8 = 1 << 1;

    pub(super) fn new() -> Self {
        Self { bytes: vec![0; LPIS].into_boxed_slice() }
    }

    /// The configuration, as `read` once found it in memory.
    pub(super) fn get(&mut self, lpi: Lpi, read: impl FnOnce(Lpi) -> Option<u8>) -> Config {
        let Some(byte) = self.bytes.get_mut(lpi.index()) else { return Config::DISABLED };
        if *byte & Self::READ == 0 {
            *byte = (read(lpi).unwrap_or(0) & (PRIORITY_MASK | 1)) | Self::READ;
        }
        Config(*byte & !Self::READ)
    }

    /// The configuration that pending LPIs are sorted by, if any has been read.
    pub(super) fn known(&self, lpi: Lpi) -> Config {
        Config(self.bytes.get(lpi.index()).map_or(0, |byte| byte & !Self::READ))
    }

    pub(super) fn has_read(&self, lpi: Lpi) -> bool {
        self.bytes.get(lpi.index()).is_some_and(|byte| byte & Self::READ != 0)
    }

    /// The configurations that have been read, ascending.
    pub(super) fn all_read(&self) -> impl Iterator<Item = (Lpi, Config)> + '_ {
        (FIRST_LPI..).map_while(Lpi::new).filter(|&lpi| self.has_read(lpi)).map(|lpi| (lpi, self.known(lpi)))
    }

    /// As if it had been read.
    pub(super) fn put(&mut self, lpi: Lpi, config: Config) {
        if let Some(byte) = self.bytes.get_mut(lpi.index()) {
            *byte = config.0 | Self::READ;
        }
    }

    pub(super) fn forget(&mut self, lpi: Lpi) {
        if let Some(byte) = self.bytes.get_mut(lpi.index()) {
            *byte = 0;
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.bytes.fill(0);
    }
}
