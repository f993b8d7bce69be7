//! What the built-in engine has counted, as text and for JSON (`--stats`). Sums over all vCPUs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Rows of the instruction table that the text names, of those whose handlers were called.
const MOST_CALLED: usize = 10;

/// A run's counts and times; see [`cpu::Statistics`]. Times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineReport {
    vcpus: usize,
    blocks: u64,
    translations: u64,
    regions: u64,
    code_bytes: u64,
    stale: u64,
    emptied: u64,
    interpreted: u64,
    exits: Exits,
    slow_accesses: u64,
    handler_calls: BTreeMap<&'static str, u64>,
    data_walks: u64,
    fetch_walks: u64,
    times_ns: Times,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Exits {
    pending: u64,
    lookup: u64,
    interpret: u64,
    link: u64,
    hot: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Times {
    translated: u64,
    interpreter: u64,
    translating: u64,
    between: u64,
    asleep: u64,
}

impl EngineReport {
    /// The sum over vCPUs.
    #[must_use]
    pub fn of(vcpus: &[cpu::Statistics]) -> Self {
        let mut sum = cpu::Statistics::default();
        for vcpu in vcpus {
            sum += vcpu.clone();
        }
        Self {
            vcpus: vcpus.len(),
            blocks: sum.blocks,
            translations: sum.translations,
            regions: sum.regions,
            code_bytes: sum.code_bytes,
            stale: sum.stale,
            emptied: sum.emptied,
            interpreted: sum.interpreted,
            exits: Exits {
                pending: sum.exits.pending,
                lookup: sum.exits.lookup,
                interpret: sum.exits.interpret,
                link: sum.exits.link,
                hot: sum.exits.hot,
            },
            slow_accesses: sum.slow_accesses,
            handler_calls: sum.handler_calls,
            data_walks: sum.data_walks,
            fetch_walks: sum.fetch_walks,
            times_ns: Times {
                translated: sum.times.translated,
                interpreter: sum.times.interpreter,
                translating: sum.times.translating,
                between: sum.times.between,
                asleep: sum.times.asleep,
            },
        }
    }
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { translated, interpreter, translating, between, asleep } = self.times_ns;
        let awake = translated + interpreter + translating + between;
        let share = |part: u64| 100.0 * part as f64 / awake.max(1) as f64;
        let seconds = |part: u64| part as f64 / 1e9;
        writeln!(
            f,
            "engine: {} vCPUs, {:.2} s of work, {:.2} s asleep",
            self.vcpus,
            seconds(awake),
            seconds(asleep)
        )?;
        writeln!(
            f,
            "  time           translated code {:.1} %, interpreter {:.1} %, translating {:.1} %, between {:.1} %",
            share(translated),
            share(interpreter),
            share(translating),
            share(between),
        )?;
        writeln!(f, "  blocks         {} decoded, {} translated (T1)", self.blocks, self.translations)?;
        writeln!(f, "  regions        {} translated (T2)", self.regions)?;
        writeln!(
            f,
            "  code           {:.1} MiB made; {} translations overwritten; emptied {} times",
            self.code_bytes as f64 / f64::from(1 << 20),
            self.stale,
            self.emptied,
        )?;
        let Exits { pending, lookup, interpret, link, hot } = self.exits;
        writeln!(
            f,
            "  exits          {pending} pending, {lookup} look-up, {link} first time, {hot} hot loop, {interpret} to interpret"
        )?;
        writeln!(f, "  interpreter    entered {} times", self.interpreted)?;
        writeln!(
            f,
            "  calls          {} accesses past the TLB, {} handlers",
            self.slow_accesses,
            self.handler_calls.values().sum::<u64>(),
        )?;
        let mut handlers: Vec<_> = self.handler_calls.iter().collect();
        handlers.sort_by_key(|(_, calls)| std::cmp::Reverse(**calls));
        for (row, calls) in handlers.into_iter().take(MOST_CALLED) {
            writeln!(f, "                 {calls:>10} {row}")?;
        }
        write!(f, "  table walks    {} for data, {} for instructions", self.data_walks, self.fetch_walks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_awake_on_all_vcpus() {
        let times =
            cpu::Times { translated: 3_000_000_000, between: 1_000_000_000, asleep: 9, ..Default::default() };
        let one = cpu::Statistics { blocks: 7, times, ..Default::default() };

        let text = EngineReport::of(&[one.clone(), one]).to_string();

        assert!(text.starts_with("engine: 2 vCPUs, 8.00 s of work"), "{text}");
        assert!(text.contains("translated code 75.0 %") && text.contains("between 25.0 %"), "{text}");
        assert!(text.contains("14 decoded"), "{text}");
    }

    #[test]
    fn guest_that_has_not_run_has_no_shares() {
        assert!(EngineReport::of(&[]).to_string().contains("translated code 0.0 %"));
    }
}
