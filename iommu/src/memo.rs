//! A thread's latest translations, by transactions as they come in. A hit needs neither configuration nor TLB.
//!
//! An entry is used only for the kinds of access for which it was made: the first access of each kind is translated
//! in full, with its permissions, privilege and dirty state. A change of the enables begins a new age, which makes
//! all entries stale.

use std::sync::atomic::{AtomicU64, Ordering};

use tcache::{Memo, View};
use vmsa::AccessKind;

use crate::transaction::{Kind, Mapping, Transaction};

/// StreamID, SubstreamID and whether the address is a translated one.
#[inline]
fn who(tx: &Transaction) -> u64 {
    let translated = u64::from(tx.kind == Kind::Translated) << 53;
    u64::from(tx.sid) | translated | tx.ssid.map_or(0, |ssid| 1 << 52 | u64::from(ssid) << 32)
}

#[inline]
fn flag(tx: &Transaction) -> u64 {
    let kind = match tx.access.kind {
        AccessKind::Read => 0,
        AccessKind::Write => 1,
        AccessKind::Execute => 2,
    };
    1 << (kind + if tx.access.privileged { 3 } else { 0 })
}

/// The entries for accesses like `tx`, whatever their addresses.
#[inline]
pub(crate) fn view<'a>(memo: &'a Memo, age: u64, tx: &Transaction) -> Option<View<'a>> {
    memo.view(age, who(tx), flag(tx))
}

/// Remembers where a transaction goes.
pub(crate) fn put(memo: &Memo, age: u64, tx: &Transaction, mapping: &Mapping) {
    memo.put(age, who(tx), tx.address, mapping, flag(tx));
}

/// The stream for which translated accesses of a thread were admitted last. The threads of one device use one stream.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    age: AtomicU64,
    /// With [`Self::SOME`], which is absent before the first admission.
    sid: AtomicU64,
}

impl Admitted {
    const SOME: u64 = 1 << 32;

    /// The age in which translated accesses of a stream have been admitted at physical addresses.
    #[inline]
    pub(crate) fn age_of(&self, sid: u32) -> Option<u64> {
        let is_admitted = self.sid.load(Ordering::Relaxed) == Self::SOME | u64::from(sid);
        is_admitted.then(|| self.age.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, age: u64, sid: u32) {
        self.age.store(age, Ordering::Relaxed);
        self.sid.store(Self::SOME | u64::from(sid), Ordering::Relaxed);
    }
}
