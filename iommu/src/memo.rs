//! What a thread remembers of its latest translations: found without a look at the configuration or the TLB.
//!
//! An entry is good for the age in which it was made, so any invalidation makes all of them stale at once, and so
//! does each change of the enables. It knows for which kinds of access it was made, and is believed for no others: an
//! access that is the first of its kind takes the long way, where permissions, privilege and dirty state count.
//!
//! Entries lie in the thread's own place beside its count of accesses, and are written by that thread alone.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use vmsa::AccessKind;

use crate::translate::{Mapping, Transaction};

const ENTRIES: usize = 256;

#[derive(Debug, Default)]
struct Entry {
    age: AtomicU64,
    /// StreamID and SubstreamID.
    who: AtomicU64,
    /// Input page, of 4 KiB.
    page: AtomicU64,
    /// Output page; log2 of the size of the whole mapping in bits \[11:6\]; kinds of access in bits \[5:0\].
    word: AtomicU64,
}

/// A thread's latest translations.
#[derive(Debug)]
pub(crate) struct Memo([Entry; ENTRIES]);

impl Default for Memo {
    fn default() -> Self {
        Self(array::from_fn(|_| Entry::default()))
    }
}

#[inline]
fn who(tx: &Transaction) -> u64 {
    u64::from(tx.sid) | tx.ssid.map_or(0, |ssid| 1 << 52 | u64::from(ssid) << 32)
}

#[inline]
fn kind(tx: &Transaction) -> u64 {
    let kind = match tx.access.kind {
        AccessKind::Read => 0,
        AccessKind::Write => 1,
        AccessKind::Execute => 2,
    };
    1 << (kind + if tx.access.privileged { 3 } else { 0 })
}

impl Memo {
    #[inline]
    fn entry(&self, tx: &Transaction) -> &Entry {
        &self.0[(tx.address >> 12) as usize % ENTRIES]
    }

    /// Where a transaction as it comes in goes.
    #[inline]
    pub(crate) fn get(&self, age: u64, tx: &Transaction) -> Option<Mapping> {
        let entry = self.entry(tx);
        let word = entry.word.load(Ordering::Relaxed);
        let hit = entry.page.load(Ordering::Relaxed) == tx.address >> 12
            && entry.age.load(Ordering::Relaxed) == age
            && entry.who.load(Ordering::Relaxed) == who(tx)
            && word & kind(tx) != 0;
        let size_log2 = (word >> 6) as u32 & 0x3f;
        let size = 1 << size_log2;
        hit.then(|| Mapping {
            pa: word & !0xfff | tx.address & 0xfff,
            len: size - (tx.address & (size - 1)),
            size_log2,
        })
    }

    /// Remembers where it goes.
    pub(crate) fn put(&self, age: u64, tx: &Transaction, mapping: &Mapping) {
        let entry = self.entry(tx);
        let mut word = mapping.pa & !0xfff | u64::from(mapping.size_log2) << 6 | kind(tx);
        let old = entry.word.load(Ordering::Relaxed);
        let is_same = entry.page.load(Ordering::Relaxed) == tx.address >> 12
            && entry.age.load(Ordering::Relaxed) == age
            && entry.who.load(Ordering::Relaxed) == who(tx)
            && (old ^ word) & !0x3f == 0;
        if is_same {
            word |= old;
        }
        entry.age.store(age, Ordering::Relaxed);
        entry.who.store(who(tx), Ordering::Relaxed);
        entry.page.store(tx.address >> 12, Ordering::Relaxed);
        entry.word.store(word, Ordering::Relaxed);
    }
}
