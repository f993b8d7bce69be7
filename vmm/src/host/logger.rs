//! The log: lines on standard error, filtered by level and by the part of the machine that they come from.
//!
//! Parts have the names that users know them by; in the source a line's target is its module, or a name of its own.

use std::io::Write;
use std::str::FromStr;

use log::{LevelFilter, Log, Metadata, Record};

/// The parts that can be named in a filter, and the start of their lines' targets.
const PARTS: [(&str, &str); 12] = [
    ("accel", "devices::hisi"),
    ("cpu", "cpu"),
    ("disk", "devices::virtio"),
    ("faults", "vmm::faults"),
    ("guest", "guest"),
    ("its", "its"),
    ("kvm", "vmm::engine::kvm"),
    ("machine", "vmm::machine"),
    ("mmio", "mmio"),
    ("pci", "devices::pci"),
    ("sandbox", "vmm::sandbox"),
    ("smmu", "iommu"),
];

/// What follows `prefix` in `path`, if that is a part of it: nothing, or `::` and more.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The start of targets that a user means: a part, a module of one, or a path of modules as in the source.
fn resolve(name: &str) -> Option<String> {
    if let Some(path) = PARTS.iter().find_map(|(part, path)| Some(format!("{path}{}", below(name, part)?))) {
        return Some(path);
    }
    let exists = |path: &str| below(name, path).is_some() || below(path, name).is_some();
    PARTS.iter().any(|(_, path)| exists(path)).then(|| name.to_owned())
}

struct Logger {
    /// `(target's start, level)`, the longest first; the last entry's is empty.
    rules: Vec<(String, LevelFilter)>,
}

impl Logger {
    fn parse(filter: &str) -> Result<Self, String> {
        let mut rules = vec![(String::new(), LevelFilter::Warn)];
        for item in filter.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, level) = item.split_once('=').unwrap_or(("", item));
            let level = LevelFilter::from_str(level).map_err(|_| {
                format!("--log: {level:?} is not a level: use off, error, warn, info, debug or trace")
            })?;
            let target = if name.is_empty() { Some(String::new()) } else { resolve(name) };
            let target = target.ok_or_else(|| {
                let parts = PARTS.map(|(part, _)| part).join(", ");
                format!("--log: {name:?} is no part that logs: use one of {parts}")
            })?;
            rules.retain(|(other, _)| *other != target);
            rules.push((target, level));
        }
        rules.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Ok(Self { rules })
    }

    fn level(&self, target: &str) -> LevelFilter {
        let applies = |start: &str| start.is_empty() || below(target, start).is_some();
        let rule = self.rules.iter().find(|(start, _)| applies(start));
        rule.map_or(LevelFilter::Off, |(_, level)| *level)
    }
}

/// A line's target with the name of its part in front, as a filter would have it.
fn shown(target: &str) -> String {
    let named = PARTS.iter().find_map(|(part, path)| Some(format!("{part}{}", below(target, path)?)));
    named.unwrap_or_else(|| target.to_owned())
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut err = std::io::stderr().lock();
            // With standard error gone there is nobody to tell.
            let _ = writeln!(err, "[{:5} {}] {}\r", record.level(), shown(record.target()), record.args());
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
    fn longest_name_decides_and_unknown_levels_are_errors() {
        let logger = Logger::parse("info,smmu=debug,smmu::tlb=off").unwrap();
        assert_eq!(logger.level("vmm::machine"), LevelFilter::Info);
        assert_eq!(logger.level("iommu::cmdq"), LevelFilter::Debug);
        assert_eq!(logger.level("iommu::tlb"), LevelFilter::Off);
        assert_eq!(logger.level("iommufd"), LevelFilter::Info);
        assert!(Logger::parse("smmu=loud").is_err());
    }

    #[test]
    fn parts_are_named_as_users_know_them_or_as_the_source_does() {
        let logger = Logger::parse("smmu=debug,mmio=trace,devices=info,devices::pci::atc=off").unwrap();
        for (target, level) in [
            ("iommu::eventq", LevelFilter::Debug),
            ("mmio", LevelFilter::Trace),
            ("devices::hisi::qm::front", LevelFilter::Info),
            ("devices::pci::atc", LevelFilter::Off),
            ("vmm::bus", LevelFilter::Warn),
        ] {
            assert_eq!(logger.level(target), level, "{target}");
        }
        assert_eq!(shown("iommu::eventq"), "smmu::eventq");
        assert_eq!(shown("mmio"), "mmio");
    }

    /// Otherwise the filter would match nothing, without a word.
    #[test]
    fn unknown_part_is_an_error_that_names_the_parts() {
        let error = Logger::parse("smu=debug").err().unwrap();
        assert!(error.contains("\"smu\"") && error.contains("smmu"), "{error}");
    }
}
