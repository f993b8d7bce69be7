//! What a vCPU tells of itself: counts, where its time goes, and where its translations are, for profilers.
//!
//! Translated code counts nothing: what is counted here happens where it has been left anyway, or on roads that are slow
//! already. Time is taken only if the cluster's [`Observation`] asks for it, at each change between tiers.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use hw::Clock;

use crate::insn::ROWS;

/// What an owner of vCPUs wants to know of them, beyond the counts that there are always.
#[derive(Clone, Default)]
pub struct Observation {
    /// Take the times of [`Times`].
    pub timed: bool,
    /// Hears of each translation.
    pub code_map: Option<Arc<dyn CodeMap>>,
    /// Hears of sleep and of exceptions.
    pub trace: hw::Trace,
    /// Where mistakes of software at EL1 are counted.
    pub errors: hw::GuestErrors,
}

/// Somebody who keeps a map of translations. Called on vCPU threads, between blocks, with no lock held.
pub trait CodeMap: Send + Sync {
    /// Code has been made. It may lie where other code was before.
    fn added(&self, code: &MappedCode);
}

/// A piece of translated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedCode {
    /// Host address at which it runs.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it was made from.
    pub kind: CodeKind,
}

/// What code was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    /// What all translations of a vCPU share.
    Stubs,
    /// A block at this address of the guest (tier T1).
    Block(u64),
    /// A loop that begins at this address of the guest (tier T2).
    Region(u64),
}

/// Why translated code was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Something was pending.
    pub pending: u64,
    /// An address whose block had to be looked up.
    pub lookup: u64,
    /// An instruction for the interpreter.
    pub interpret: u64,
    /// A branch that led to its target for the first time.
    pub link: u64,
    /// A loop that has become worth a region.
    pub hot: u64,
}

/// Where a vCPU's time went, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// In translated code, with what it calls: misses of the TLB, devices, handlers.
    pub translated: u64,
    /// In the interpreter.
    pub interpreter: u64,
    /// Translating.
    pub translating: u64,
    /// Between blocks: look-ups, exceptions of the run loop, requests of other vCPUs.
    pub between: u64,
    /// Asleep, or turned off.
    pub asleep: u64,
}

/// What a vCPU has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Blocks that were decoded.
    pub blocks: u64,
    /// Blocks that were translated.
    pub translations: u64,
    /// Loops that were translated as a whole.
    pub regions: u64,
    /// Bytes of all translations that were ever made.
    pub code_bytes: u64,
    /// Translations that ended because their memory changed.
    pub stale: u64,
    /// How often everything was forgotten because there was no more room.
    pub emptied: u64,
    /// How often the interpreter took over.
    pub interpreted: u64,
    /// Why translated code was left.
    pub exits: Exits,
    /// Accesses of translated code that its TLB did not serve: misses, devices, pages with code, page borders.
    pub slow_accesses: u64,
    /// Instructions of translated code that were calls of the interpreter's handlers, by the row of the instruction table.
    pub handler_calls: BTreeMap<&'static str, u64>,
    /// Walks of translation tables for data.
    pub data_walks: u64,
    /// Walks of translation tables for instructions.
    pub fetch_walks: u64,
    /// Where the time went; zeros if that was not asked for.
    pub times: Times,
}

impl AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        macro_rules! add {
            ($($($field:ident).+),* $(,)?) => { $(self.$($field).+ += other.$($field).+;)* };
        }
        add!(
            blocks,
            translations,
            regions,
            code_bytes,
            stale,
            emptied,
            interpreted,
            exits.pending,
            exits.lookup,
            exits.interpret,
            exits.link,
            exits.hot,
            slow_accesses,
            data_walks,
            fetch_walks,
            times.translated,
            times.interpreter,
            times.translating,
            times.between,
            times.asleep,
        );
        for (row, calls) in other.handler_calls {
            *self.handler_calls.entry(row).or_default() += calls;
        }
    }
}

/// What a vCPU's thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    Between,
    Interpreter,
    Translated,
    Translating,
    Asleep,
}

/// Takes the time of activities, if anybody wants it.
pub(crate) struct Stopwatch {
    /// Guest time, which stands still while the machine is paused; none if nobody wants to know.
    clock: Option<Arc<dyn Clock>>,
    activity: Activity,
    /// Nanoseconds, as the times.
    since: u64,
    spent: [u64; 5],
}

impl Stopwatch {
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Self {
        let since = clock.as_ref().map_or(0, |clock| clock.now_ns());
        Self { clock, activity: Activity::Between, since, spent: [0; 5] }
    }

    /// From now on the time counts for `activity`. Gives the one before.
    #[inline(always)]
    pub(crate) fn switch(&mut self, activity: Activity) -> Activity {
        if self.clock.is_some() { self.note(activity) } else { activity }
    }

    #[cold]
    fn note(&mut self, activity: Activity) -> Activity {
        let now = self.now();
        self.spent[self.activity as usize] += now.saturating_sub(self.since);
        self.since = now;
        std::mem::replace(&mut self.activity, activity)
    }

    fn now(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.now_ns())
    }

    /// The time until now counts for nothing.
    pub(crate) fn skip(&mut self) {
        self.since = self.now();
    }

    fn times(&self) -> Times {
        let spent = |activity| self.spent[activity as usize];
        Times {
            translated: spent(Activity::Translated),
            interpreter: spent(Activity::Interpreter),
            translating: spent(Activity::Translating),
            between: spent(Activity::Between),
            asleep: spent(Activity::Asleep),
        }
    }
}

impl crate::Cpu {
    /// What has been counted since the vCPU was made. Times are those up to the last return of [`Cpu::run`](crate::Cpu::run).
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut counted =
            Statistics { emptied: self.code.emptied, times: self.watch.times(), ..self.counts.clone() };
        for (row, &calls) in ROWS.iter().zip(self.handler_calls.iter()) {
            if calls != 0 {
                *counted.handler_calls.entry(row.name).or_default() += calls;
            }
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(jit) = &self.jit {
            counted.translations = jit.made.blocks;
            counted.regions = jit.made.regions;
            counted.code_bytes = jit.made.bytes;
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::testbed::{Bench, RAM};
    use crate::{Exit, Tier};

    /// mov x1, #100; 1: subs x1, x1, #1; b.ne 1b; mov w0, #0x84000008; hvc #0
    const LOOP: [u32; 6] = [0xd280_0c81, 0xf100_0421, 0x54ff_ffe1, 0x5280_0100, 0x72b0_8000, 0xd400_0002];

    #[derive(Default)]
    struct Map(Mutex<Vec<MappedCode>>);

    impl CodeMap for Map {
        fn added(&self, code: &MappedCode) {
            self.0.lock().unwrap().push(*code);
        }
    }

    fn run(tier: Tier, observation: Observation) -> Statistics {
        let bench = Bench::observed(1, tier, observation);
        bench.code(RAM, &LOOP);
        let mut cpu = bench.cpu(0);
        cpu.set_boot_state(RAM, 0);
        assert_eq!(cpu.run(None), Exit::SystemOff);
        cpu.statistics()
    }

    #[test]
    fn interpreter_alone_translates_nothing_and_says_so() {
        let counted = run(Tier::Interpreter, Observation::default());

        assert!(counted.blocks >= 2 && counted.interpreted >= 1, "{counted:?}");
        assert_eq!((counted.translations, counted.regions, counted.code_bytes), (0, 0, 0));
        assert_eq!((counted.exits, counted.times), (Exits::default(), Times::default()));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn each_translation_is_counted_and_on_the_map() {
        let map = Arc::new(Map::default());
        let observation = Observation { code_map: Some(map.clone()), ..Observation::default() };

        let counted = run(Tier::Translated, observation);

        let codes = map.0.lock().unwrap();
        let blocks = codes.iter().filter(|code| matches!(code.kind, CodeKind::Block(_)));
        assert_eq!(blocks.clone().count() as u64, counted.translations);
        assert!(blocks.clone().any(|code| code.kind == CodeKind::Block(RAM + 4)), "{codes:?}");
        assert_eq!(codes[0].kind, CodeKind::Stubs);
        let bytes: u64 = codes[1..].iter().map(|code| code.len).sum();
        assert!(bytes > 0 && bytes == counted.code_bytes, "{bytes} {counted:?}");
        // None lies on another.
        for pair in codes.windows(2) {
            assert!(pair[0].start + pair[0].len <= pair[1].start, "{pair:?}");
        }
        assert!(counted.exits.link > 0, "{counted:?}");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn handlers_that_translated_code_calls_are_counted_by_row() {
        let counted = run(Tier::Translated, Observation::default());

        assert_eq!(counted.handler_calls.get("hvc"), Some(&1), "{counted:?}");
    }

    #[test]
    fn times_are_taken_only_where_they_are_wanted() {
        let clock = Arc::new(hw::ManualClock::default());
        for (given, between, interpreter) in
            [(Some(Arc::clone(&clock) as Arc<dyn Clock>), 5, 7), (None, 0, 0)]
        {
            let mut watch = Stopwatch::new(given);
            clock.advance_ns(5);
            watch.switch(Activity::Interpreter);
            clock.advance_ns(7);
            watch.switch(Activity::Between);

            assert_eq!(watch.times(), Times { between, interpreter, ..Times::default() });
        }
    }

    #[test]
    fn sums_have_the_parts_of_all() {
        let one = run(Tier::Auto, Observation { timed: true, ..Observation::default() });

        let mut sum = one.clone();
        sum += one.clone();

        assert_eq!(sum.blocks, 2 * one.blocks);
        assert_eq!(sum.exits.link, 2 * one.exits.link);
        assert_eq!(sum.times.interpreter, 2 * one.times.interpreter);
    }
}
