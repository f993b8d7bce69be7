//! DMA as a device sees it: an address of its own, a tag that says on whose behalf, and a port that does the rest.
//!
//! A port may translate (the SMMU) or not ([`DirectPort`]). An access may *wait*: a recoverable fault holds
//! it until the guest has answered. It waits on the requester's [`Waiter`], with no lock held, so that the device
//! can give it up when its queue is stopped. Deliberately absent: address translation services; a device with an
//! ATC has a further port for that, [`AtsPort`](crate::ats::AtsPort).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::activity::Activity;
use crate::fault::Command;
use crate::schedule::{Scheduler, WaitQueue};
use crate::{DeviceId, Iova, MsiSink, NotRam, Pa, Pasid, Ram, StreamId};

/// Which way the data go, from the device's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// The device reads guest memory.
    Read,
    /// The device writes guest memory.
    Write,
}

/// On whose behalf an access is made: the requester, and what a PASID TLP prefix would carry (PCIe Base, 6.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DmaTag {
    /// The requester.
    pub stream: StreamId,
    /// The address space, or the stream's own if `None`.
    pub pasid: Option<Pasid>,
    /// Privileged Mode Requested. Only with a PASID.
    pub privileged: bool,
    /// Execute Requested. Only with a PASID, only for reads.
    pub execute: bool,
}

impl DmaTag {
    /// A plain access, without PASID.
    #[must_use]
    pub const fn untagged(stream: StreamId) -> Self {
        Self { stream, pasid: None, privileged: false, execute: false }
    }

    /// An unprivileged data access to a process's address space.
    #[must_use]
    pub const fn process(stream: StreamId, pasid: Pasid) -> Self {
        Self { stream, pasid: Some(pasid), privileged: false, execute: false }
    }
}

/// Why an access did not happen, as far as the device can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaFault {
    /// The access at this address ended with an abort: not translated, refused, or nothing there.
    /// Bytes before the address have been transferred.
    Aborted(Iova),
    /// The device itself gave the access up, through [`Waiter::cancel`].
    Cancelled,
}

/// Where one requester's accesses wait, and how they are given up.
///
/// A device makes one for each thing it can stop on its own (a queue) and passes it with each access.
#[derive(Debug)]
pub struct Waiter {
    state: Mutex<WaiterState>,
    /// What a port looks at before each access: [`CANCELLED`], which is a copy of `cancelled`, and [`MADE_AGAIN`].
    attention: AtomicU8,
    changed: WaitQueue,
    /// Who is told when an access begins to wait.
    activity: Option<Arc<Activity>>,
}

const CANCELLED: u8 = 1;
const MADE_AGAIN: u8 = 2;

#[derive(Debug, Default)]
struct WaiterState {
    cancelled: bool,
    /// Accesses that wait and have not been told to look again.
    waiting: usize,
    /// Changes when they are told to.
    round: u64,
}

impl WaiterState {
    fn wake_all(&mut self) {
        self.waiting = 0;
        self.round += 1;
    }
}

impl Waiter {
    fn of(changed: WaitQueue, activity: Option<Arc<Activity>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), attention: AtomicU8::new(0), changed, activity })
    }

    /// A waiter that has not been cancelled, for accesses that are made by tasks of `scheduler`.
    #[must_use]
    pub fn new(scheduler: &dyn Scheduler) -> Arc<Self> {
        Self::of(scheduler.wait_queue(), None)
    }

    /// A waiter whose device is told when an access begins to wait, for tasks of the same scheduler.
    #[must_use]
    pub fn watched(activity: &Arc<Activity>) -> Arc<Self> {
        Self::of(activity.wait_queue(), Some(Arc::clone(activity)))
    }

    /// Gives up the accesses of this one for good, and puts a fresh one, watched in the same way, into its place.
    pub fn replace(slot: &mut Arc<Self>) {
        slot.cancel();
        *slot = Self::of(slot.changed.another(), slot.activity.clone());
    }

    /// Gives up waiting accesses, and those to come, until [`Self::rearm`].
    pub fn cancel(&self) {
        self.set_cancelled(true);
        self.changed.notify_all();
    }

    /// Ends a cancellation.
    pub fn rearm(&self) {
        self.set_cancelled(false);
    }

    fn set_cancelled(&self, cancelled: bool) {
        let mut state = self.state();
        state.cancelled = cancelled;
        state.wake_all();
        self.set_attention(CANCELLED, cancelled);
    }

    fn set_attention(&self, bit: u8, is_set: bool) {
        if is_set {
            self.attention.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.attention.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    fn state(&self) -> MutexGuard<'_, WaiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that accesses are made here that were made and waited when the machine's state was saved, or that this is over. Who
    /// has a record of such a wait (a stalled transaction, a group of page requests) lets one that meets the same fault
    /// wait for the answer to that record, and records nothing anew.
    pub fn set_made_again(&self, is_made_again: bool) {
        self.set_attention(MADE_AGAIN, is_made_again);
    }

    /// See [`Self::set_made_again`].
    #[must_use]
    pub fn is_made_again(&self) -> bool {
        self.attention.load(Ordering::SeqCst) & MADE_AGAIN != 0
    }

    /// Whether the requester has given up or makes accesses again: one look for both, since most do neither.
    #[inline]
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst) != 0
    }

    /// Whether an access waits here now: it goes on when the guest has answered, and not before. One that has been told
    /// to look again does not wait, whether or not its thread has come to it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.state().waiting != 0
    }

    /// Whether the requester has given up.
    #[inline]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.attention.load(Ordering::SeqCst) & CANCELLED != 0
    }

    /// Makes waiting accesses look again. The answer must be in place before the call.
    pub fn notify(&self) {
        // The lock orders this after a poll that found no answer and before its wait.
        self.state().wake_all();
        self.changed.notify_all();
    }

    /// Waits until `poll` has an answer. `poll` is called under the waiter's lock: it takes only leaf locks.
    ///
    /// # Errors
    /// [`DmaFault::Cancelled`], if the requester has given up, whatever `poll` says.
    pub fn wait<T>(&self, mut poll: impl FnMut() -> Option<T>) -> Result<T, DmaFault> {
        let mut state = self.state();
        loop {
            // First: an access that was given up does not go on when an answer comes before its thread does.
            if state.cancelled {
                return Err(DmaFault::Cancelled);
            }
            if let Some(answer) = poll() {
                return Ok(answer);
            }
            state.waiting += 1;
            let round = state.round;
            if let Some(activity) = &self.activity {
                activity.changed();
            }
            state = self.changed.wait_while(&self.state, state, |state| state.round == round);
        }
    }
}

/// What a device passes with each access.
#[derive(Clone, Debug)]
pub struct Requester {
    /// On whose behalf.
    pub tag: DmaTag,
    /// Where the access may wait.
    pub waiter: Arc<Waiter>,
    /// The device's command that it is made for, if there is one; fault plans and timelines look.
    pub command: Option<Command>,
}

impl Requester {
    /// A requester with a waiter of its own, for who makes accesses on a thread of the host and is no model: tests and benches.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "models do not use it, as the same lint sees to")]
    pub fn new(tag: DmaTag) -> Self {
        Self { tag, waiter: Waiter::of(WaitQueue::of_threads(), None), command: None }
    }
}

/// Something whose end lets an invalidation go on.
pub trait Hold {}

impl<T> Hold for T {}

/// Physical pieces of an access, kept valid while this lives.
///
/// An invalidation does not complete before it is dropped: hold it for one copy, never across a wait.
pub struct Pinned<'a> {
    /// Physical address and length in bytes of each piece, in order; together the whole access. All in RAM.
    pub pieces: Vec<(Pa, usize)>,
    _hold: Box<dyn Hold + 'a>,
}

impl<'a> Pinned<'a> {
    /// Pieces that stay valid as long as `hold` lives.
    #[must_use]
    pub fn new(pieces: Vec<(Pa, usize)>, hold: impl Hold + 'a) -> Self {
        Self { pieces, _hold: Box::new(hold) }
    }
}

/// A device's way to memory.
///
/// Accesses of up to 8 aligned bytes are single-copy atomic. A longer write becomes visible in ascending order of
/// pages; a device that needs an order within a page makes two writes.
pub trait DmaPort: Send + Sync {
    /// Reads guest memory. May wait; see the module's text.
    ///
    /// # Errors
    /// [`DmaFault`]; `out` then holds the bytes before the faulting address and otherwise anything.
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault>;

    /// Writes guest memory, or an MSI doorbell with 4 aligned bytes. May wait; see the module's text.
    ///
    /// # Errors
    /// [`DmaFault`]; the bytes before the faulting address have been written.
    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault>;

    /// Translates an access without making it, for code that copies to or from RAM itself (`virtio-queue`).
    /// May wait; see the module's text.
    ///
    /// # Errors
    /// [`DmaFault`], also where an address is not RAM.
    fn pin(&self, who: &Requester, at: Iova, len: usize, dir: Dir) -> Result<Pinned<'_>, DmaFault>;
}

/// A port without an IOMMU: device addresses are physical addresses.
pub struct DirectPort {
    ram: Arc<Ram>,
    msi: Arc<dyn MsiSink>,
}

impl DirectPort {
    /// A port to `ram`, and to `msi` for the addresses that are not RAM.
    #[must_use]
    pub fn new(ram: Arc<Ram>, msi: Arc<dyn MsiSink>) -> Self {
        Self { ram, msi }
    }
}

/// Writes below all translation: to RAM, or 4 aligned bytes to an MSI doorbell.
///
/// # Errors
/// [`NotRam`] where nothing takes the write.
pub fn write_physical(
    ram: &Ram,
    msi: &dyn MsiSink,
    stream: StreamId,
    pa: Pa,
    data: &[u8],
) -> Result<(), NotRam> {
    let missed = match ram.write(pa, data) {
        Ok(()) => return Ok(()),
        Err(missed) => missed,
    };
    match <[u8; 4]>::try_from(data) {
        Ok(word) if pa.0.is_multiple_of(4) => {
            msi.write(DeviceId(stream.0), pa, u32::from_le_bytes(word)).map_err(|_| missed)
        }
        _ => Err(missed),
    }
}

impl DmaPort for DirectPort {
    fn read(&self, who: &Requester, at: Iova, out: &mut [u8]) -> Result<(), DmaFault> {
        if who.waiter.is_cancelled() {
            return Err(DmaFault::Cancelled);
        }
        self.ram.read(Pa(at.0), out).map_err(|_| DmaFault::Aborted(at))
    }

    fn write(&self, who: &Requester, at: Iova, data: &[u8]) -> Result<(), DmaFault> {
        if who.waiter.is_cancelled() {
            return Err(DmaFault::Cancelled);
        }
        write_physical(&self.ram, &*self.msi, who.tag.stream, Pa(at.0), data)
            .map_err(|_| DmaFault::Aborted(at))
    }

    fn pin(&self, who: &Requester, at: Iova, len: usize, _dir: Dir) -> Result<Pinned<'_>, DmaFault> {
        if who.waiter.is_cancelled() {
            return Err(DmaFault::Cancelled);
        }
        if !self.ram.contains(Pa(at.0), len as u64) {
            return Err(DmaFault::Aborted(at));
        }
        Ok(Pinned::new(vec![(Pa(at.0), len)], ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordingMsiSink;
    use crate::schedule::Threads;

    fn port() -> (DirectPort, Arc<RecordingMsiSink>) {
        let ram = Arc::new(Ram::new(&[(Pa(0x1000), 0x2000)]).unwrap());
        let msi = Arc::new(RecordingMsiSink::new(Pa(0x809_0040)));
        (DirectPort::new(ram, msi.clone()), msi)
    }

    fn who() -> Requester {
        Requester::new(DmaTag::untagged(StreamId(8)))
    }

    #[test]
    fn four_aligned_bytes_at_a_doorbell_become_a_message_with_the_requesters_id() {
        let (port, msi) = port();
        port.write(&who(), Iova(0x809_0040), &[7, 0, 0, 0]).unwrap();
        assert_eq!(msi.take(), [(DeviceId(8), 7)]);
        let fault = port.write(&who(), Iova(0x809_0040), &[7, 0]).unwrap_err();
        assert_eq!(fault, DmaFault::Aborted(Iova(0x809_0040)));
        assert!(port.write(&who(), Iova(0x809_0044), &[7, 0, 0, 0]).is_err());
    }

    #[test]
    fn access_outside_ram_is_aborted_and_inside_round_trips() {
        let (port, _) = port();
        port.write(&who(), Iova(0x1ffe), b"abcd").unwrap();
        let mut out = [0; 4];
        port.read(&who(), Iova(0x1ffe), &mut out).unwrap();
        assert_eq!(&out, b"abcd");
        assert_eq!(port.read(&who(), Iova(0x2ffe), &mut out), Err(DmaFault::Aborted(Iova(0x2ffe))));
        assert!(port.pin(&who(), Iova(0x2ffe), 4, Dir::Read).is_err());
    }

    #[test]
    fn cancelled_requester_gets_cancelled_until_rearmed() {
        let (port, _) = port();
        let who = who();
        who.waiter.cancel();
        assert_eq!(port.read(&who, Iova(0x1000), &mut [0]), Err(DmaFault::Cancelled));
        who.waiter.rearm();
        assert_eq!(port.read(&who, Iova(0x1000), &mut [0]), Ok(()));
    }

    #[test]
    fn wait_ends_with_the_answer_or_with_the_cancellation() {
        let waiter = Waiter::new(&Threads);
        let answer = Arc::new(Mutex::new(None));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| waiter.wait(|| *answer.lock().unwrap()));
            *answer.lock().unwrap() = Some(5);
            waiter.notify();
            assert_eq!(waiting.join().unwrap(), Ok(5));
            assert!(!waiter.is_waiting());
            let waiting = scope.spawn(|| waiter.wait(|| None::<()>));
            while !waiter.is_waiting() {
                std::thread::yield_now();
            }
            waiter.cancel();
            assert_eq!(waiting.join().unwrap(), Err(DmaFault::Cancelled));
        });
    }

    #[test]
    fn access_that_has_been_told_to_look_again_does_not_wait_until_it_has_found_nothing() {
        let activity = Arc::new(Activity::new(&Threads));
        let waiter = Waiter::watched(&activity);
        let polls = Mutex::new(0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                waiter.wait(|| {
                    *polls.lock().unwrap() += 1;
                    None::<()>
                })
            });
            activity.wait_until(|| waiter.is_waiting());
            assert_eq!(*polls.lock().unwrap(), 1);
            let held = polls.lock().unwrap();
            waiter.notify();
            let state = waiter.state.try_lock();
            assert!(
                state.is_err() || state.is_ok_and(|state| state.waiting == 0),
                "before its thread has run"
            );
            drop(held);
            activity.wait_until(|| waiter.is_waiting());
            assert_eq!(*polls.lock().unwrap(), 2);
            let mut slot = Arc::clone(&waiter);
            Waiter::replace(&mut slot);
            assert_eq!(waiting.join().unwrap(), Err(DmaFault::Cancelled));
            assert!(!waiter.is_waiting() && !slot.is_cancelled() && slot.activity.is_some());
        });
    }

    #[test]
    fn answer_that_comes_after_the_cancellation_does_not_count() {
        let waiter = Waiter::new(&Threads);
        waiter.cancel();
        assert_eq!(waiter.wait(|| Some(5)), Err(DmaFault::Cancelled));
    }
}
