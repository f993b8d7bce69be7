//! What a thread remembers of its latest translations, by transactions as they come in: found without a look at the
//! configuration or the TLB.
//!
//! It is known for which kinds of access an entry was made, and it is believed for no others: an access that is the first
//! of its kind takes the long way, where permissions, privilege and dirty state count. Changes of the enables begin a new
//! age too, so entries know nothing of them.

use tcache::{Memo, Place, View};
use vmsa::AccessKind;

use crate::translate::{Kind, Mapping, Transaction};

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

/// What is remembered for an access with transactions like `tx`, whatever their addresses.
#[inline]
pub(crate) fn view<'a>(memo: &'a Memo, age: u64, tx: &Transaction) -> Option<View<'a>> {
    memo.view(age, who(tx), flag(tx))
}

/// Remembers where a transaction goes.
pub(crate) fn put(memo: &Memo, age: u64, tx: &Transaction, mapping: &Mapping) {
    memo.put(age, who(tx), tx.address, mapping, flag(tx));
}

/// An admission of a stream's translated accesses, as they are.
pub(crate) fn put_admission(memo: &Memo, age: u64, tx: &Transaction) {
    const ANYWHERE: Place = Place { pa: 0, len: 1, size_log2: 0 };
    memo.put(age, admission(tx), 0, &ANYWHERE, 1);
}

/// Whether a stream's translated accesses have been admitted in this age.
#[inline]
pub(crate) fn has_admission(memo: &Memo, age: u64, tx: &Transaction) -> bool {
    memo.view(age, admission(tx), 1).is_some_and(|view| view.pa(0).is_some())
}

#[inline]
fn admission(tx: &Transaction) -> u64 {
    1 << 54 | u64::from(tx.sid)
}
