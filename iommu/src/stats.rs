//! Counters. Each is exact; those that are read during traffic are not of the same moment.

use std::sync::atomic::{AtomicU64, Ordering};

use tcache::{AtomicCounter, Memo};

use crate::memo::Admitted;
use crate::spec::command::Opcode;
use crate::spec::event::EventType;

/// What is kept for each thread beside its count of accesses: counters of translations, and its latest translations.
#[derive(Debug, Default)]
pub(crate) struct PerThread {
    pub(crate) tlb_hits: AtomicCounter,
    pub(crate) walks: AtomicCounter,
    pub(crate) config_fetches: AtomicCounter,
    /// Latest translations.
    pub(crate) memo: Memo,
    pub(crate) admitted: Admitted,
}

/// An access that is counted in. No invalidation completes before it is dropped.
pub(crate) type Access<'a> = tcache::Access<'a, PerThread>;

/// Counters that all threads share.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) stalls: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) aborts: AtomicU64,
    pub(crate) events_lost: AtomicU64,
    /// By event number, up to the highest of [`EventType::ALL`].
    events: [AtomicU64; 0x14],
    /// By opcode, up to the highest that has a name.
    commands: [AtomicU64; 0x47],
    pub(crate) illegal_commands: AtomicU64,
    pub(crate) translation_requests: AtomicU64,
    pub(crate) page_requests: AtomicU64,
    pub(crate) page_requests_lost: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            stalls: zero(),
            retries: zero(),
            aborts: zero(),
            events_lost: zero(),
            events: std::array::from_fn(|_| zero()),
            commands: std::array::from_fn(|_| zero()),
            illegal_commands: zero(),
            translation_requests: zero(),
            page_requests: zero(),
            page_requests_lost: zero(),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Stats {
    pub(crate) fn event(&self, event: EventType) {
        count(&self.events[usize::from(event.0)]);
    }

    pub(crate) fn command(&self, opcode: Opcode) {
        count(&self.commands[usize::from(opcode.0)]);
    }
}

/// What the SMMU has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Pages translated from the TLB.
    pub tlb_hits: u64,
    /// Translation table walks.
    pub walks: u64,
    /// Stream table entries (with the context descriptors behind them) fetched from memory.
    pub config_fetches: u64,
    /// Faults that stalled, each recorded once or more.
    pub stalls: u64,
    /// Stalled accesses that were retried.
    pub retries: u64,
    /// Recorded stalls that the guest has not answered yet.
    pub unanswered_stalls: u64,
    /// Accesses that ended with an abort.
    pub aborts: u64,
    /// Event records written, by name, those with none left out.
    pub events: Vec<(&'static str, u64)>,
    /// Event records lost because the queue was full or off, or because a write to it was aborted.
    pub events_lost: u64,
    /// Commands consumed, by name, those with none left out.
    pub commands: Vec<(&'static str, u64)>,
    /// Commands refused with CERROR_ILL.
    pub illegal_commands: u64,
    /// ATS translation requests.
    pub translation_requests: u64,
    /// Page requests, stop markers among them.
    pub page_requests: u64,
    /// Page requests that the queue had no room for.
    pub page_requests_lost: u64,
    /// Stalls and groups of page requests by guest time.
    pub page_faults_over_time: Option<hw::series::Counts>,
}

impl Stats {
    pub(crate) fn snapshot<'a>(&self, tallies: impl Iterator<Item = &'a PerThread>) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut snapshot = Snapshot {
            stalls: get(&self.stalls),
            retries: get(&self.retries),
            aborts: get(&self.aborts),
            events_lost: get(&self.events_lost),
            illegal_commands: get(&self.illegal_commands),
            translation_requests: get(&self.translation_requests),
            page_requests: get(&self.page_requests),
            page_requests_lost: get(&self.page_requests_lost),
            ..Snapshot::default()
        };
        for tally in tallies {
            snapshot.tlb_hits += tally.tlb_hits.get();
            snapshot.walks += tally.walks.get();
            snapshot.config_fetches += tally.config_fetches.get();
        }
        let nonzero = |name, counter| Some((name, get(counter))).filter(|&(_, n)| n != 0);
        snapshot.events = EventType::ALL
            .iter()
            .filter_map(|&(event, name)| nonzero(name, &self.events[usize::from(event.0)]))
            .collect();
        snapshot.commands = (0..=u8::MAX)
            .filter_map(|op| nonzero(Opcode(op).name()?, &self.commands[usize::from(op)]))
            .collect();
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_and_every_command_has_a_counter() {
        let stats = Stats::default();
        EventType::ALL.iter().for_each(|&(event, _)| stats.event(event));
        (0..=u8::MAX).map(Opcode).filter(|op| op.name().is_some()).for_each(|op| stats.command(op));
        let snapshot = stats.snapshot(std::iter::empty());
        assert!(
            snapshot.events.iter().all(|&(_, n)| n == 1) && snapshot.commands.iter().all(|&(_, n)| n == 1)
        );
        assert_eq!(snapshot.events.len(), EventType::ALL.len());
        assert_eq!(snapshot.commands.len(), 22);
    }
}
