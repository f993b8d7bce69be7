//! What a number is measured against.

/// A bound on a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(super) fn is_kept(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// The limit in words, and whether the value keeps it.
    pub(super) fn verdict(self, value: f64) -> String {
        let (words, limit) = match self {
            Self::AtMost(limit) => ("at most", limit),
            Self::AtLeast(limit) => ("at least", limit),
        };
        let verdict = if self.is_kept(value) { "kept" } else { "NOT KEPT" };
        format!("{words} {limit}: {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::Limit::{AtLeast, AtMost};

    #[test]
    fn number_without_value_keeps_no_limit() {
        assert!(!AtMost(1.0).is_kept(f64::NAN) && !AtLeast(1.0).is_kept(f64::NAN));
    }

    #[test]
    fn limit_itself_is_kept() {
        assert_eq!(AtMost(0.4).verdict(0.4), "at most 0.4: kept");
        assert_eq!(AtLeast(2.5).verdict(2.4), "at least 2.5: NOT KEPT");
    }
}
