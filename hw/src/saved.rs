//! The form of a model's saved state: a structure of its own kind with a version, as a value of JSON.
//!
//! What is saved and what is shown to a user who looks inside are the same value, so its keys are the specification's names, and
//! registers and addresses are strings of hexadecimal digits ([`hex`]). Deliberately absent: files; the monitor has them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A state that cannot be taken up. The message goes on from the name of the model: "uart: ...".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Another version of the model wrote it.
    #[error("its state has version {found}, and this program reads version {read}")]
    Version {
        /// In the state.
        found: u32,
        /// What this program reads.
        read: u32,
    },
    /// No state of this model at all.
    #[error("{0}")]
    Form(String),
    /// A value that no guest could have brought about.
    #[error("{what}: {why}")]
    Value {
        /// Register, field or part, by its name in the state.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RestoreError {
    /// A value that no guest could have brought about.
    pub fn value(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Value { what: what.into(), why: why.into() }
    }

    /// The same, of a part of the model.
    #[must_use]
    pub fn within(self, part: &str) -> Self {
        match self {
            Self::Value { what, why } => Self::Value { what: format!("{part}/{what}"), why },
            Self::Form(why) => Self::Form(format!("{part}: {why}")),
            version @ Self::Version { .. } => version,
        }
    }
}

/// The state of one kind of model. Its fields refuse what they do not know (`deny_unknown_fields`).
pub trait SavedState: Serialize + DeserializeOwned {
    /// Counts up when a field changes its meaning, comes or goes.
    const VERSION: u32;

    /// As a value.
    ///
    /// # Panics
    /// If the structure has a form that JSON has not, such as a map whose keys are no strings: a fault of ours.
    #[must_use]
    fn to_value(&self) -> Value {
        let state = serde_json::to_value(self).expect("the structure has a form of JSON");
        serde_json::json!({ "version": Self::VERSION, "state": state })
    }

    /// From [`Self::to_value`].
    ///
    /// # Errors
    /// If it is another version's, or not of this form. Nothing is said of the values.
    fn from_value(value: Value) -> Result<Self, RestoreError> {
        let form = |error: serde_json::Error| RestoreError::Form(error.to_string());
        let Versioned { version, state } = serde_json::from_value(value).map_err(form)?;
        if version != Self::VERSION {
            return Err(RestoreError::Version { found: version, read: Self::VERSION });
        }
        serde_json::from_value(state).map_err(form)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned {
    version: u32,
    state: Value,
}

/// For `#[serde(with = "hw::saved::hex")]`: a number as a string of hexadecimal digits, with `0x` before it.
pub mod hex {
    use std::fmt::LowerHex;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the number.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(value: &(impl LowerHex + ?Sized), to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:#x}"))
    }

    /// Reads the number.
    ///
    /// # Errors
    /// If it is no such string, or the number too large.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u64>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        digits
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                D::Error::custom(format_args!("{text:?} is no number of this size, as 0x and digits"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[serde(with = "hex")]
        cr: u32,
    }

    impl SavedState for Small {
        const VERSION: u32 = 3;
    }

    #[test]
    fn state_comes_back_from_its_value() {
        let value = Small { cr: 0x301 }.to_value();
        assert_eq!(value, serde_json::json!({ "version": 3, "state": { "cr": "0x301" } }));
        assert_eq!(Small::from_value(value), Ok(Small { cr: 0x301 }));
    }

    #[test]
    fn other_versions_other_forms_and_numbers_that_are_too_large_are_refused() {
        let other = serde_json::json!({ "version": 2, "state": { "cr": "0x301" } });
        assert_eq!(Small::from_value(other), Err(RestoreError::Version { found: 2, read: 3 }));
        for state in [
            serde_json::json!({ "cr": "0x100000000" }),
            serde_json::json!({ "cr": "0x+1" }),
            serde_json::json!({ "cr": "301" }),
            serde_json::json!({ "cr": 769 }),
            serde_json::json!({ "cr": "0x301", "imsc": "0x0" }),
            serde_json::json!(null),
        ] {
            let value = serde_json::json!({ "version": 3, "state": state });
            assert!(matches!(Small::from_value(value), Err(RestoreError::Form(_))));
        }
        assert!(matches!(Small::from_value(Value::Null), Err(RestoreError::Form(_))));
    }

    #[test]
    fn error_of_a_part_names_the_path_to_it() {
        let error = RestoreError::value("sq_tail", "beyond the queue's depth").within("queues/2");
        assert_eq!(error.to_string(), "queues/2/sq_tail: beyond the queue's depth");
    }
}
