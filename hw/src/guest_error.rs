//! What guests do wrong, as models tell it: counted by kind, and logged so seldom that no guest can flood the log.
//!
//! The architecture's own answer (an abort, an event record, a status) comes first; this is for the person who runs the guest. A
//! kind is a plural, as it stands after its count: `3 doorbells to queues that are not there`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The target of log lines, and the part of the machine that a log filter names.
pub const LOG_TARGET: &str = "guest";

/// A kind, and how often it has been met.
type Counted = (&'static str, u64);

#[derive(Debug)]
struct Model {
    name: String,
    /// No more than there are kinds in the source.
    kinds: Mutex<Vec<Counted>>,
}

impl Model {
    fn kinds(&self) -> MutexGuard<'_, Vec<Counted>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: &'static str) -> u64 {
        let mut kinds = self.kinds();
        match kinds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                kinds.push((kind, 1));
                1
            }
        }
    }
}

/// Where a model tells what a guest does wrong. Its lock is a leaf.
#[derive(Clone)]
pub struct GuestErrors(Arc<Model>);

impl fmt::Debug for GuestErrors {
    /// Without the counts: they are for the user, no state of the model, and go on over a reset.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestErrors({})", self.0.name)
    }
}

impl Default for GuestErrors {
    /// Of a model without a name, whose counts nobody sees.
    fn default() -> Self {
        Self::named("a model")
    }
}

impl GuestErrors {
    fn named(name: impl Into<String>) -> Self {
        Self(Arc::new(Model { name: name.into(), kinds: Mutex::default() }))
    }

    /// A guest has done something of this kind. `what` names the register or command, for the log, which has the first
    /// of a kind, the second, the fourth, and so on.
    #[cold]
    pub fn report(&self, kind: &'static str, what: fmt::Arguments<'_>) {
        let count = self.0.count(kind);
        if !count.is_power_of_two() {
            return;
        }
        let name = &self.0.name;
        match count {
            1 => log::warn!(target: LOG_TARGET, "{name}: {what}"),
            _ => log::warn!(target: LOG_TARGET, "{name}: {what} ({count} {kind} so far)"),
        }
    }

    /// What has been counted, in the order in which it was first met.
    #[must_use]
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        self.0.kinds().clone()
    }
}

/// What all models of a machine have counted.
#[derive(Debug, Default)]
pub struct GuestErrorBook(Mutex<Vec<GuestErrors>>);

/// What one model has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelErrors {
    /// The model.
    pub model: String,
    /// Kinds and how often each has been met, at least once.
    pub kinds: Vec<(&'static str, u64)>,
}

impl fmt::Display for ModelErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.model)?;
        for (i, (kind, count)) in self.kinds.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {kind}")?;
        }
        Ok(())
    }
}

impl GuestErrorBook {
    /// For one more model. Done while the machine is put together.
    #[must_use]
    pub fn for_model(&self, name: impl Into<String>) -> GuestErrors {
        let errors = GuestErrors::named(name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(errors.clone());
        errors
    }

    /// Those that have counted anything, in the order in which they were made.
    #[must_use]
    pub fn summary(&self) -> Vec<ModelErrors> {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted =
            models.iter().map(|errors| ModelErrors { model: errors.0.name.clone(), kinds: errors.counted() });
        counted.filter(|errors| !errors.kinds.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::{Log, Metadata, Record};

    struct Lines(Mutex<Vec<String>>);

    impl Log for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &Record<'_>) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
        fn flush(&self) {}
    }

    static LINES: Lines = Lines(Mutex::new(Vec::new()));

    #[test]
    fn guest_that_repeats_itself_is_counted_and_logged_a_few_times() {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let book = GuestErrorBook::default();
        let (zip, _quiet) = (book.for_model("zip0"), book.for_model("smmu"));
        for queue in 0..100_000_u32 {
            zip.report("doorbells to queues that are not there", format_args!("doorbell to queue {queue}"));
        }
        zip.report("mailbox commands that are refused", format_args!("mailbox command 0x9"));
        let lines = LINES.0.lock().unwrap();
        assert_eq!(lines.len(), 17 + 1);
        assert_eq!(lines[0], "zip0: doorbell to queue 0");
        assert_eq!(lines[2], "zip0: doorbell to queue 3 (4 doorbells to queues that are not there so far)");
        let summary = book.summary();
        assert_eq!(summary.len(), 1);
        assert_eq!(
            summary[0].to_string(),
            "zip0: 100000 doorbells to queues that are not there, 1 mailbox commands that are refused"
        );
    }
}
