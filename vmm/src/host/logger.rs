//! The log: lines on standard error, filtered by level and target.

use std::io::Write;
use std::str::FromStr;

use log::{LevelFilter, Log, Metadata, Record};

struct Logger {
    /// `(target prefix, level)`, the longest prefix first; the last entry's prefix is empty.
    rules: Vec<(String, LevelFilter)>,
}

impl Logger {
    fn parse(filter: &str) -> Result<Self, String> {
        let mut rules = vec![(String::new(), LevelFilter::Warn)];
        for item in filter.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (target, level) = item.split_once('=').unwrap_or(("", item));
            let level = LevelFilter::from_str(level).map_err(|_| {
                format!("--log: {level:?} is not a level: use off, error, warn, info, debug or trace")
            })?;
            rules.retain(|(other, _)| other != target);
            rules.push((target.to_string(), level));
        }
        rules.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(Self { rules })
    }

    fn level(&self, target: &str) -> LevelFilter {
        let rule = self.rules.iter().find(|(prefix, _)| target.starts_with(prefix.as_str()));
        rule.map_or(LevelFilter::Off, |(_, level)| *level)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut err = std::io::stderr().lock();
            // With standard error gone there is nobody to tell.
            let _ = writeln!(err, "[{:5} {}] {}\r", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts logging. Once per process.
///
/// # Errors
/// A line for the user about the filter.
pub fn start(filter: Option<&str>) -> Result<(), String> {
    let logger = Logger::parse(filter.unwrap_or(""))?;
    let max = logger.rules.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Off);
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(max);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_target_prefix_decides_and_unknown_levels_are_errors() {
        let logger = Logger::parse("info,smmu=debug,smmu::tlb=off").unwrap();
        assert_eq!(logger.level("vmm"), LevelFilter::Info);
        assert_eq!(logger.level("smmu::cmdq"), LevelFilter::Debug);
        assert_eq!(logger.level("smmu::tlb"), LevelFilter::Off);
        assert!(Logger::parse("smmu=loud").is_err());
    }
}
