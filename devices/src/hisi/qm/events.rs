//! The event queue and the asynchronous event queue, and when their messages are sent.
//!
//! Entries are written by one thread at a time, the writer: whoever finds none becomes it and goes on until nothing is due ([`Events::next`], [`Events::done`]). No lock is held while an entry is on its way, and an event
//! costs no hop to another thread.
//!
//! A message is sent once: the interrupt is off until software rings the queue's doorbell, which turns it on again
//! and sends at once if there are entries that it has not read.

use std::collections::VecDeque;
use std::sync::Arc;

use hw::{Activity, Iova, RestoreError, Waiter};
use serde::{Deserialize, Serialize};

use super::context::{Aeqe, AsyncEvent, ContextImage, EVENT_ENTRY_BYTES, Eqc, Eqe, entry};

/// Which of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// Completions.
    Eq,
    /// Errors and overflows.
    Aeq,
}

/// MSI vectors of the sources.
pub(super) mod vector {
    pub(in crate::hisi::qm) const EQ: u16 = 0;
    pub(in crate::hisi::qm) const AEQ: u16 = 1;
    pub(in crate::hisi::qm) const ABNORMAL: u16 = 3;
}

/// One ring and its interrupt.
#[derive(Debug)]
pub(super) struct EventRing {
    pub(super) context: Option<Eqc>,
    /// On until a message has been sent.
    enabled: bool,
    /// The mask register's bit, inverted, so that the default is masked.
    unmasked: bool,
    /// Changes when the ring is replaced.
    life: u64,
    /// Of an entry on its way.
    waiter: Arc<Waiter>,
}

impl EventRing {
    fn new(activity: &Arc<Activity>) -> Self {
        Self { context: None, enabled: false, unmasked: false, life: 0, waiter: Waiter::watched(activity) }
    }

    /// Gives up an entry on its way.
    fn give_up(&mut self) {
        self.life += 1;
        Waiter::replace(&mut self.waiter);
    }

    fn reset(&mut self) {
        self.give_up();
        (self.context, self.enabled, self.unmasked) = (None, false, false);
    }

    /// Whether there are entries that software has not read.
    pub(super) fn has_entries(&self) -> bool {
        self.context.as_ref().is_some_and(|eqc| !eqc.is_empty())
    }

    /// Whether a message must leave now; it then counts as sent.
    fn take_message(&mut self) -> bool {
        let due = self.enabled && self.unmasked && self.has_entries();
        self.enabled &= !due;
        due
    }
}

/// Something to do without a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Write an entry; then [`Events::done`].
    Write { ring: Ring, at: Iova, entry: u32, life: u64 },
    /// Send a message.
    Message(u16),
    /// Send messages that were masked.
    SendDue,
}

/// How writing an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The entry counts.
    Yes,
    /// The ring cannot be written.
    Faulted,
    /// The ring is no longer the one that it was.
    Stale,
}

/// What a writer was at when the state was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Unfinished {
    /// The entry of this queue, whose event has been taken.
    #[serde(rename = "EQE")]
    Eqe(u16),
    /// This message, which counts as sent.
    #[serde(rename = "message")]
    Message(u16),
}

/// A queue's or ring's context as it is saved: as software would read it back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SavedContext(#[serde(with = "hw::saved::hex_bytes")] pub(super) ContextImage);

/// A ring as it is saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedRing {
    context: Option<SavedContext>,
    is_enabled: bool,
    is_unmasked: bool,
}

/// Rings, and the events that are due, as they are saved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedEvents {
    #[serde(rename = "EQ")]
    eq: SavedRing,
    #[serde(rename = "AEQ")]
    aeq: SavedRing,
    /// Queues that an event is due for.
    pending: Vec<u16>,
    /// Types and queues.
    asynchronous: Vec<(u8, u16)>,
    is_overflow_told: bool,
    is_abnormal_due: bool,
    is_masked_due: bool,
    unfinished: Option<Unfinished>,
}

#[derive(Debug)]
pub(super) struct Events {
    pub(super) eq: EventRing,
    pub(super) aeq: EventRing,
    /// Queues that have an event due; each at most once.
    pending: VecDeque<u16>,
    /// Asynchronous events due; each at most once.
    async_events: VecDeque<(AsyncEvent, u16)>,
    /// The overflow of the event queue has been told.
    overflow_told: bool,
    abnormal_due: bool,
    masked_due: bool,
    /// Somebody is writing.
    writing: bool,
    /// What the writer is at.
    current: Option<Action>,
    /// What the writer was at when the state was saved: begun anew before anything else.
    unfinished: Option<Unfinished>,
    /// The writer is at that.
    is_made_again: bool,
    /// Of messages.
    waiter: Arc<Waiter>,
}

impl Events {
    pub(super) fn new(activity: &Arc<Activity>) -> Self {
        Self {
            eq: EventRing::new(activity),
            aeq: EventRing::new(activity),
            pending: VecDeque::new(),
            async_events: VecDeque::new(),
            overflow_told: false,
            abnormal_due: false,
            masked_due: false,
            writing: false,
            current: None,
            unfinished: None,
            is_made_again: false,
            waiter: Waiter::watched(activity),
        }
    }

    /// Gives up entries of both rings, those that are due and those on their way, and messages. For when no queue is
    /// live any more: what a live queue is owed would be lost for good, since it does not ask twice.
    pub(super) fn give_up(&mut self) {
        self.pending.clear();
        self.async_events.clear();
        self.overflow_told = false;
        self.unfinished = None;
        self.eq.give_up();
        self.aeq.give_up();
        Waiter::replace(&mut self.waiter);
    }

    /// The rings are no longer there; what is due waits for new ones.
    pub(super) fn forget_contexts(&mut self) {
        (self.eq.context, self.aeq.context) = (None, None);
    }

    /// Forgets everything; an entry on its way is given up.
    pub(super) fn reset(&mut self) {
        self.give_up();
        let Self {
            eq,
            aeq,
            pending: _,
            async_events: _,
            overflow_told: _,
            abnormal_due,
            masked_due,
            writing: _,
            current: _,
            unfinished: _,
            is_made_again: _,
            waiter: _,
        } = self;
        eq.reset();
        aeq.reset();
        (*abnormal_due, *masked_due) = (false, false);
    }

    fn ring(&mut self, ring: Ring) -> &mut EventRing {
        match ring {
            Ring::Eq => &mut self.eq,
            Ring::Aeq => &mut self.aeq,
        }
    }

    /// A context has been loaded. What is due goes into the new ring, also an entry that was on its way to the old one.
    pub(super) fn load(&mut self, ring: Ring, context: Eqc) {
        let slot = self.ring(ring);
        slot.give_up();
        slot.context = Some(context);
        slot.enabled = true;
    }

    /// Software has read up to `index` and wants the interrupt again. Whether something is now due.
    pub(super) fn doorbell(&mut self, ring: Ring, index: u16) -> bool {
        let slot = self.ring(ring);
        let Some(context) = &mut slot.context else { return false };
        if u32::from(index) >= context.depth {
            return false;
        }
        context.head = index;
        slot.enabled = true;
        if ring == Ring::Eq {
            self.overflow_told = false;
        }
        self.is_due()
    }

    /// The mask register's bit. Whether something is now due.
    pub(super) fn set_mask(&mut self, ring: Ring, masked: bool) -> bool {
        self.ring(ring).unmasked = !masked;
        self.is_due()
    }

    /// Completion queue `qn` wants an event. One that was posted and is no longer wanted serves as well.
    pub(super) fn post(&mut self, qn: u16) {
        if !self.pending.contains(&qn) {
            self.pending.push_back(qn);
        }
    }

    /// Something went wrong with queue `qn`. Told once for as long as it has not been written.
    pub(super) fn post_async(&mut self, event: AsyncEvent, qn: u16) {
        if !self.async_events.contains(&(event, qn)) {
            self.async_events.push_back((event, qn));
        }
    }

    /// The abnormal interrupt's message must be sent.
    pub(super) fn post_abnormal(&mut self) {
        self.abnormal_due = true;
    }

    /// Some masked messages may no longer be masked.
    pub(super) fn post_masked(&mut self) {
        self.masked_due = true;
    }

    /// Whether a writer would find something to do.
    pub(super) fn is_due(&self) -> bool {
        let ring = |ring: &EventRing, waiting: bool| {
            ring.context.as_ref().is_some_and(|eqc| {
                (waiting && !eqc.is_full()) || (ring.enabled && ring.unmasked && !eqc.is_empty())
            })
        };
        let has_overflowed = !self.pending.is_empty()
            && !self.overflow_told
            && self.eq.context.as_ref().is_some_and(Eqc::is_full);
        self.abnormal_due
            || self.masked_due
            || self.unfinished.is_some()
            || has_overflowed
            || ring(&self.eq, !self.pending.is_empty())
            || ring(&self.aeq, !self.async_events.is_empty())
    }

    /// What the access of an action waits on.
    pub(super) fn waiter(&self, action: Action) -> Arc<Waiter> {
        Arc::clone(match action {
            Action::Write { ring: Ring::Eq, .. } => &self.eq.waiter,
            Action::Write { ring: Ring::Aeq, .. } => &self.aeq.waiter,
            Action::Message(_) | Action::SendDue => &self.waiter,
        })
    }

    pub(super) const fn is_writing(&self) -> bool {
        self.writing
    }

    /// Whether nobody writes, or the writer's access waits for the guest or for guest time.
    pub(super) fn is_still(&self) -> bool {
        !self.writing
            || [&self.eq.waiter, &self.aeq.waiter, &self.waiter].iter().any(|waiter| waiter.is_waiting())
    }

    /// The writer leaves its place though something may be due.
    pub(super) const fn stop_writing(&mut self) {
        self.writing = false;
    }

    /// Takes the writer's place, if it is free.
    pub(super) fn start_writing(&mut self) -> bool {
        !std::mem::replace(&mut self.writing, true)
    }

    /// What to do next. At `None` the writer has left its place. `take` says if a pending event is still wanted.
    pub(super) fn next(&mut self, mut take: impl FnMut(u16) -> bool) -> Option<Action> {
        if std::mem::take(&mut self.is_made_again) {
            self.set_made_again(false);
        }
        let action = self.choose(&mut take);
        self.writing = action.is_some();
        self.current = action;
        action
    }

    fn set_made_again(&self, is_made_again: bool) {
        for waiter in [&self.eq.waiter, &self.aeq.waiter, &self.waiter] {
            waiter.set_made_again(is_made_again);
        }
    }

    fn choose(&mut self, take: &mut impl FnMut(u16) -> bool) -> Option<Action> {
        if let Some(action) = self.unfinished.take().and_then(|unfinished| self.begin_again(unfinished)) {
            self.is_made_again = true;
            self.set_made_again(true);
            return Some(action);
        }
        if std::mem::take(&mut self.masked_due) {
            return Some(Action::SendDue);
        }
        if std::mem::take(&mut self.abnormal_due) {
            return Some(Action::Message(vector::ABNORMAL));
        }
        if self.eq.take_message() {
            return Some(Action::Message(vector::EQ));
        }
        if self.aeq.take_message() {
            return Some(Action::Message(vector::AEQ));
        }
        if let Some(write) = self.choose_event(take) {
            return Some(write);
        }
        let context = self.aeq.context.as_ref().filter(|aeqc| !aeqc.is_full())?;
        let &(event, qn) = self.async_events.front()?;
        let value = Aeqe::new().with_qn(qn).with_kind(event.code()).with_phase(context.phase);
        let at = entry(context.base, context.tail, EVENT_ENTRY_BYTES);
        Some(Action::Write { ring: Ring::Aeq, at, entry: value.into(), life: self.aeq.life })
    }

    /// What the writer was at. Its entry goes to the same place: nothing has been written since.
    fn begin_again(&mut self, unfinished: Unfinished) -> Option<Action> {
        match unfinished {
            Unfinished::Eqe(qn) => self.eq.context.as_ref().map(|context| Action::Write {
                ring: Ring::Eq,
                at: entry(context.base, context.tail, EVENT_ENTRY_BYTES),
                entry: Eqe::new().with_qn(qn).with_phase(context.phase).into(),
                life: self.eq.life,
            }),
            Unfinished::Message(vector) => Some(Action::Message(vector)),
        }
    }

    /// The events that are due. An asynchronous one whose entry is on its way has not been taken out yet.
    pub(super) fn save(&self) -> SavedEvents {
        let ring = |ring: &EventRing| SavedRing {
            context: ring.context.as_ref().map(|context| SavedContext(context.encode())),
            is_enabled: ring.enabled,
            is_unmasked: ring.unmasked,
        };
        let (mut unfinished, mut masked_due) = (self.unfinished, self.masked_due);
        match self.current.filter(|_| self.writing) {
            Some(Action::Write { ring: Ring::Eq, entry, .. }) => {
                unfinished = Some(Unfinished::Eqe(Eqe::from(entry).qn()))
            }
            Some(Action::Message(vector)) => unfinished = Some(Unfinished::Message(vector)),
            Some(Action::SendDue) => masked_due = true,
            Some(Action::Write { ring: Ring::Aeq, .. }) | None => {}
        }
        SavedEvents {
            eq: ring(&self.eq),
            aeq: ring(&self.aeq),
            pending: self.pending.iter().copied().collect(),
            asynchronous: self.async_events.iter().map(|(event, qn)| (event.code(), *qn)).collect(),
            is_overflow_told: self.overflow_told,
            is_abnormal_due: self.abnormal_due,
            is_masked_due: masked_due,
            unfinished,
        }
    }

    /// Takes up what [`Self::save`] has given. Queues have numbers below `queues`.
    pub(super) fn restore(&mut self, saved: SavedEvents, queues: u16) -> Result<(), RestoreError> {
        for (name, slot, ring) in [("EQ", &mut self.eq, saved.eq), ("AEQ", &mut self.aeq, saved.aeq)] {
            let decode = |SavedContext(image): SavedContext| {
                Eqc::decode(&image).ok_or_else(|| RestoreError::value(name, "an index leaves the ring"))
            };
            slot.context = ring.context.map(decode).transpose()?;
            (slot.enabled, slot.unmasked) = (ring.is_enabled, ring.is_unmasked);
        }
        for qn in saved.pending {
            if qn >= queues || self.pending.contains(&qn) {
                return Err(RestoreError::value("pending", format!("queue {qn} is none, or comes twice")));
            }
            self.pending.push_back(qn);
        }
        for (code, qn) in saved.asynchronous {
            let events = [AsyncEvent::CqOverflow, AsyncEvent::EqOverflow, AsyncEvent::CqeError];
            let event = events.into_iter().find(|event| event.code() == code);
            let event = event.map(|event| (event, qn)).filter(|_| qn < queues);
            match event {
                Some(event) if !self.async_events.contains(&event) => self.async_events.push_back(event),
                _ => return Err(RestoreError::value("asynchronous", "no such event, or twice the same")),
            }
        }
        match saved.unfinished {
            Some(Unfinished::Eqe(qn)) if qn >= queues || self.eq.context.is_none() => {
                return Err(RestoreError::value("unfinished", "no such queue, or no ring"));
            }
            Some(Unfinished::Message(vector))
                if ![vector::EQ, vector::AEQ, vector::ABNORMAL].contains(&vector) =>
            {
                return Err(RestoreError::value("unfinished", "no such message"));
            }
            unfinished => self.unfinished = unfinished,
        }
        self.overflow_told = saved.is_overflow_told;
        (self.abnormal_due, self.masked_due) = (saved.is_abnormal_due, saved.is_masked_due);
        Ok(())
    }

    fn choose_event(&mut self, take: &mut impl FnMut(u16) -> bool) -> Option<Action> {
        while let Some(&qn) = self.pending.front() {
            let context = self.eq.context.as_ref()?;
            if context.is_full() {
                if !std::mem::replace(&mut self.overflow_told, true) {
                    self.post_async(AsyncEvent::EqOverflow, 0);
                }
                return None;
            }
            // The event is taken before its entry is written: software may have read the entry, and the queue want
            // its next event, before this ring has advanced.
            self.pending.pop_front();
            if !take(qn) {
                continue;
            }
            let value = Eqe::new().with_qn(qn).with_phase(context.phase);
            let at = entry(context.base, context.tail, EVENT_ENTRY_BYTES);
            return Some(Action::Write { ring: Ring::Eq, at, entry: value.into(), life: self.eq.life });
        }
        None
    }

    /// An entry has been written, or could not be. An entry that faults is lost: the ring does not advance.
    pub(super) fn done(&mut self, ring: Ring, life: u64, is_ok: bool) -> Written {
        if life != self.ring(ring).life {
            return Written::Stale;
        }
        if ring == Ring::Aeq {
            self.async_events.pop_front();
        }
        if !is_ok {
            return Written::Faulted;
        }
        if let Some(context) = &mut self.ring(ring).context {
            context.advance();
        }
        Written::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(depth: u16) -> Events {
        let mut events = Events::new(&Arc::new(Activity::new(&hw::schedule::Threads)));
        for ring in [Ring::Eq, Ring::Aeq] {
            let mut image = [0; 32];
            image[4..8].copy_from_slice(&0x1000_u32.to_le_bytes());
            image[24..26].copy_from_slice(&(depth - 1).to_le_bytes());
            image[26] = 1;
            events.load(ring, Eqc::decode(&image).unwrap());
            events.set_mask(ring, false);
        }
        events
    }

    /// What a writer does until nothing is due.
    fn pump(events: &mut Events) -> Vec<Action> {
        let mut actions = Vec::new();
        assert!(events.start_writing());
        while let Some(action) = events.next(|_| true) {
            actions.push(action);
            if let Action::Write { ring, life, .. } = action {
                assert_eq!(events.done(ring, life, true), Written::Yes);
            }
        }
        actions
    }

    fn write(index: u64, entry: u32, events: &Events) -> Action {
        Action::Write { ring: Ring::Eq, at: Iova(0x1000 + 4 * index), entry, life: events.eq.life }
    }

    #[test]
    fn second_event_before_the_doorbell_sends_no_second_message() {
        let mut events = events(8);
        events.post(3);
        events.post(5);
        let expected =
            [write(0, 0x1_0003, &events), Action::Message(vector::EQ), write(1, 0x1_0005, &events)];
        assert_eq!(pump(&mut events), expected);
    }

    #[test]
    fn doorbell_with_unread_entries_sends_again_at_once_and_without_them_does_not() {
        let mut events = events(8);
        events.post(3);
        events.post(5);
        pump(&mut events);
        assert!(events.doorbell(Ring::Eq, 1));
        assert_eq!(pump(&mut events), [Action::Message(vector::EQ)]);
        assert!(!events.doorbell(Ring::Eq, 2));
        assert_eq!(pump(&mut events), []);
    }

    #[test]
    fn masked_message_is_sent_at_the_unmasking() {
        let mut events = events(8);
        events.set_mask(Ring::Eq, true);
        events.post(3);
        assert_eq!(pump(&mut events).len(), 1);
        assert!(events.set_mask(Ring::Eq, false));
        assert_eq!(pump(&mut events), [Action::Message(vector::EQ)]);
    }

    #[test]
    fn full_ring_is_told_once_and_goes_on_after_the_doorbell() {
        let mut events = events(2);
        events.post(3);
        events.post(5);
        let actions = pump(&mut events);
        let overflow = 1 << 17 | 1 << 16;
        let told =
            Action::Write { ring: Ring::Aeq, at: Iova(0x1000), entry: overflow, life: events.aeq.life };
        assert!(actions.contains(&told), "{actions:?}");
        assert_eq!(pump(&mut events), []);
        events.doorbell(Ring::Eq, 1);
        assert_eq!(pump(&mut events), [write(1, 0x1_0005, &events), Action::Message(vector::EQ)]);
    }

    #[test]
    fn event_that_finds_the_ring_full_is_told_too() {
        let mut events = events(2);
        events.post(3);
        assert_eq!(pump(&mut events).len(), 2, "entry and message; the ring is full");
        events.post(5);
        assert!(events.is_due());
        assert!(matches!(pump(&mut events)[..], [Action::Write { ring: Ring::Aeq, .. }, Action::Message(1)]));
        assert!(!events.is_due());
    }

    #[test]
    fn phase_flips_when_the_ring_wraps() {
        let mut events = events(2);
        for (index, phase) in [(0, 1), (1, 1), (0, 0), (1, 0), (0, 1)] {
            events.post(7);
            let expected = write(index, phase << 16 | 7, &events);
            assert!(pump(&mut events).contains(&expected), "index {index} phase {phase}");
            events.doorbell(Ring::Eq, (index as u16 + 1) % 2);
        }
    }

    #[test]
    fn entry_of_a_ring_that_was_replaced_does_not_count() {
        let mut events = events(8);
        events.post(3);
        assert!(events.start_writing());
        let Some(Action::Write { ring, life, .. }) = events.next(|_| true) else { panic!("no write") };
        events.reset();
        assert_eq!(events.done(ring, life, true), Written::Stale);
        assert_eq!(events.next(|_| true), None);
        assert!(!events.is_writing());
    }

    /// The context of a ring of 8 entries elsewhere.
    fn elsewhere() -> Eqc {
        let mut image = [0; 32];
        image[4..8].copy_from_slice(&0x2000_u32.to_le_bytes());
        (image[24], image[26]) = (7, 1);
        Eqc::decode(&image).unwrap()
    }

    #[test]
    fn entry_on_its_way_to_one_ring_counts_though_the_other_is_replaced() {
        let mut events = events(8);
        events.post(3);
        assert!(events.start_writing());
        let Some(Action::Write { ring, life, .. }) = events.next(|_| true) else { panic!("no write") };
        events.load(Ring::Aeq, elsewhere());
        assert_eq!(events.done(ring, life, true), Written::Yes);
        assert_eq!(events.next(|_| true), Some(Action::Message(vector::EQ)));
    }

    #[test]
    fn entry_on_its_way_to_a_ring_that_is_replaced_goes_into_the_new_one() {
        let mut events = events(8);
        events.post_async(AsyncEvent::CqOverflow, 3);
        assert!(events.start_writing());
        let Some(Action::Write { ring, life, .. }) = events.next(|_| true) else { panic!("no write") };
        events.load(Ring::Aeq, elsewhere());
        assert_eq!(events.done(ring, life, true), Written::Stale);
        let life = events.aeq.life;
        let again = Action::Write { ring: Ring::Aeq, at: Iova(0x2000), entry: 1 << 16 | 3, life };
        assert_eq!(events.next(|_| true), Some(again));
    }

    /// A queue may ask, be started anew, and ask again, while the ring has no room.
    #[test]
    fn queue_that_asks_again_is_due_once_unless_its_entry_is_on_its_way() {
        let mut events = events(2);
        events.post(3);
        pump(&mut events);
        (0..1000).for_each(|_| events.post(5));
        assert_eq!(events.pending.len(), 1);
        events.doorbell(Ring::Eq, 1);
        assert!(events.start_writing());
        while !matches!(events.next(|_| true), Some(Action::Write { ring: Ring::Eq, .. })) {
            let _ = events.done(Ring::Aeq, events.aeq.life, true);
        }
        events.post(5);
        assert_eq!(events.pending.len(), 1, "software may have read the first entry already");
    }

    #[test]
    fn doorbell_outside_the_ring_changes_nothing() {
        let mut events = events(8);
        events.post(3);
        pump(&mut events);
        assert!(!events.doorbell(Ring::Eq, 8));
        assert_eq!(events.eq.context.as_ref().unwrap().head, 0);
    }
}
