//! Caches of translations, and the count of accesses under way: what an IOMMU's TLB and a device's address
//! translation cache are made of.
//!
//! # Protocol
//!
//! One who *accesses* is counted in ([`Inflight::enter`]), reads the age ([`Age::now`]), looks up, uses what was
//! found, and is counted out. What a miss finds in memory is inserted with the age read before the look-up.
//!
//! One who *invalidates* changes memory, begins a new age ([`Age::advance`]), removes entries ([`Cache::remove`]) or
//! raises the age that they must have ([`LeastAges`]), and then waits for the accesses under way
//! ([`Inflight::drain`]). After that no access uses the old translation, and none that used it is still under way.
//!
//! What a thread has found it may remember for itself ([`Memo`]) for as long as the age lasts.
//!
//! One may also look up first and be counted in afterwards, by another's count too, if the age is found to be the same
//! then: it reads the age, looks up, is counted in, and reads the age again. Whoever invalidates then waits for the
//! accesses of that count as well ([`Inflight::wait`]), after the new age that [`Inflight::drain`] begins.
//!
//! `model.rs` has this protocol checked over all interleavings and all reorderings that the memory model allows
//! (`RUSTFLAGS="--cfg loom" cargo test -p tcache --release --lib`).
//!
//! What keys and words mean belongs to the callers. Deliberately absent: negative entries, and any bound on how long
//! an access may last.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

mod age;
mod cache;
mod inflight;
mod memo;
#[cfg(all(test, loom))]
mod model;
mod sync;
mod threads;

pub use age::{Age, LeastAge, LeastAges};
pub use cache::{Aged, Cache, Key};
pub use inflight::{Access, AtomicCounter, Inflight, Own};
pub use memo::{Memo, Place, View};
