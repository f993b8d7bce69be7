//! The form of a model's saved state: a structure of its own kind with a version, as a value of JSON.
//!
//! What is saved and what is shown to a user who looks inside are the same value, so its keys are the specification's names, and
//! registers and addresses are strings of hexadecimal digits ([`hex`]). Deliberately absent: files; the monitor has them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::regmap::RegisterMap;

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

/// A number as [`hex`] writes it, for lists and maps of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hex(#[serde(with = "hex")] pub u64);

/// Values of the registers of one map, by name; those of a row are `NAME[0]`, `NAME[1]` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Registers(BTreeMap<String, Hex>);

impl Registers {
    /// Adds those of another part of the same map.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    fn names<R: RegisterMap>(is_saved: impl Fn(R) -> bool) -> impl Iterator<Item = (String, R, u64)> {
        R::ALL.iter().filter(move |(reg, _)| is_saved(*reg)).flat_map(|&(reg, ref info)| {
            (0..info.count).map(move |index| match info.count {
                1 => (info.name.to_owned(), reg, index),
                _ => (format!("{}[{index}]", info.name), reg, index),
            })
        })
    }

    /// The values of those registers of a map that `is_saved` names; `value` is given a register and its place in its row.
    pub fn of<R: RegisterMap>(is_saved: impl Fn(R) -> bool, value: impl Fn(R, u64) -> u64) -> Self {
        Self(Self::names(is_saved).map(|(name, reg, index)| (name, Hex(value(reg, index)))).collect())
    }

    /// The same, of those alone that do not have their value of power-on.
    pub fn changed<R: RegisterMap>(is_saved: impl Fn(R) -> bool, value: impl Fn(R, u64) -> u64) -> Self {
        let changed = |(name, reg, index): (String, R, u64)| {
            let now = value(reg, index);
            (now != reg.info().reset).then_some((name, Hex(now)))
        };
        Self(Self::names(is_saved).filter_map(changed).collect())
    }

    /// As [`Self::restore`], from [`Self::changed`]: what is not there has its value of power-on.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn restore_changed<R: RegisterMap>(
        mut self,
        is_saved: impl Fn(R) -> bool + Copy,
        put: impl FnMut(R, u64, u64) -> Result<(), &'static str>,
    ) -> Result<(), RestoreError> {
        for (name, reg, _) in Self::names(is_saved) {
            self.0.entry(name).or_insert(Hex(reg.info().reset));
        }
        self.restore(is_saved, put)
    }

    /// Hands each register that `is_saved` names to `put`, which says what is wrong with a value. What is wider than the
    /// register is refused before.
    ///
    /// # Errors
    /// If one is missing or not among those, or `put` refuses one.
    pub fn restore<R: RegisterMap>(
        mut self,
        is_saved: impl Fn(R) -> bool,
        mut put: impl FnMut(R, u64, u64) -> Result<(), &'static str>,
    ) -> Result<(), RestoreError> {
        for (name, reg, index) in Self::names(is_saved) {
            let Some(Hex(value)) = self.0.remove(&name) else {
                return Err(RestoreError::value(name, "is missing"));
            };
            if reg.info().bytes < 8 && value >> (8 * reg.info().bytes) != 0 {
                return Err(RestoreError::value(name, "is wider than the register"));
            }
            put(reg, index, value).map_err(|why| RestoreError::value(name, why))?;
        }
        match self.0.pop_first() {
            Some((name, _)) => Err(RestoreError::value(name, "is no register of this model's state")),
            None => Ok(()),
        }
    }
}

/// For `#[serde(with = "hw::saved::hex_bytes")]`: bytes as one string of hexadecimal digits, two for each.
pub mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the bytes.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes what is written to it");
        }
        to.serialize_str(&text)
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// If it is no such string, or not of the length that an array has.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (pairs, odd) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8)).collect();
        bytes
            .filter(|_| odd.is_empty())
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| D::Error::custom("no bytes, or not so many, as pairs of hexadecimal digits"))
    }
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

    /// The number as a value of JSON in this form, for what is shown and not saved.
    #[must_use]
    pub fn value(number: impl Into<u64>) -> serde_json::Value {
        format!("{:#x}", number.into()).into()
    }

    /// The number that a text is in this form, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<u128> {
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'))?;
        u128::from_str_radix(digits, 16).ok()
    }

    /// Reads the number.
    ///
    /// # Errors
    /// If it is no such string, or the number too large.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u128>>(from: D) -> Result<T, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            D::Error::custom(format_args!("{text:?} is no number of this size, as 0x and digits"))
        })
    }
}

/// [`hex`] for a number that may be missing: null.
pub mod hex_option {
    use std::fmt::LowerHex;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(bound = "T: TryFrom<u128>")]
    struct Number<T>(#[serde(deserialize_with = "super::hex::deserialize")] T);

    /// Writes the number.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer, T: LowerHex>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::hex::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    /// Reads the number.
    ///
    /// # Errors
    /// If it is neither null nor such a string, or the number too large.
    pub fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<u128>>(from: D) -> Result<Option<T>, D::Error> {
        Ok(Option::<Number<T>>::deserialize(from)?.map(|number| number.0))
    }
}

/// The index that the key of a map is, in its shortest decimal form, below `count`: so no two keys are the same index.
///
/// # Errors
/// If it is none.
pub fn index_of(key: &str, count: usize) -> Result<usize, RestoreError> {
    let index = key.parse().ok().filter(|index: &usize| index.to_string() == key);
    index
        .filter(|&index| index < count)
        .ok_or_else(|| RestoreError::value(key, format!("is no index below {count}")))
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
    fn index_has_one_form_and_an_end() {
        assert_eq!((index_of("0", 2), index_of("1", 2)), (Ok(0), Ok(1)));
        for key in ["2", "01", "+1", "-1", "0x1", "", " 1", "18446744073709551616"] {
            assert!(index_of(key, 2).is_err(), "{key}");
        }
    }

    #[test]
    fn number_that_may_be_missing_is_null_or_as_others() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Maybe(#[serde(with = "hex_option")] Option<u8>);
        for (state, json) in [(Maybe(None), "null"), (Maybe(Some(0xfe)), r#""0xfe""#)] {
            assert_eq!(serde_json::to_string(&state).unwrap(), json);
            assert_eq!(serde_json::from_str::<Maybe>(json).unwrap(), state);
        }
        for json in ["0", r#""0x100""#, r#""fe""#] {
            assert!(serde_json::from_str::<Maybe>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn error_of_a_part_names_the_path_to_it() {
        let error = RestoreError::value("sq_tail", "beyond the queue's depth").within("queues/2");
        assert_eq!(error.to_string(), "queues/2/sq_tail: beyond the queue's depth");
    }

    crate::register_map! {
        enum Demo {
            A @ 0x0: 4 Rw(0xff) = 0x12, "1";
            B[2; 8] @ 0x8: 8 Rw(u64::MAX) = 0, "2";
            C @ 0x18: 4 Ro(0) = 0, "3";
        }
    }

    fn is_saved(reg: Demo) -> bool {
        !matches!(reg, Demo::C)
    }

    #[test]
    fn registers_are_saved_by_name_and_come_back_whole_or_not_at_all() {
        let registers = Registers::of(is_saved, |reg, index| if reg == Demo::A { 0x12 } else { 7 + index });
        let value = serde_json::to_value(&registers).unwrap();
        assert_eq!(value, serde_json::json!({ "A": "0x12", "B[0]": "0x7", "B[1]": "0x8" }));
        let mut put = Vec::new();
        let restored = registers.clone().restore(is_saved, |reg, index, value| {
            put.push((reg, index, value));
            Ok(())
        });
        assert_eq!(restored, Ok(()));
        assert_eq!(put, [(Demo::A, 0, 0x12), (Demo::B, 0, 7), (Demo::B, 1, 8)]);
        let refused = registers.restore(is_saved, |_, _, _| Err("not so"));
        assert_eq!(refused, Err(RestoreError::value("A", "not so")));
    }

    #[test]
    fn registers_that_are_missing_unknown_or_too_wide_are_refused() {
        for (value, name) in [
            (serde_json::json!({ "A": "0x12", "B[0]": "0x7" }), "B[1]"),
            (serde_json::json!({ "A": "0x0", "B[0]": "0x0", "B[1]": "0x0", "C": "0x0" }), "C"),
            (serde_json::json!({ "A": "0x100000000", "B[0]": "0x0", "B[1]": "0x0" }), "A"),
        ] {
            let registers: Registers = serde_json::from_value(value).unwrap();
            let error = registers.restore(is_saved, |_, _, _| Ok(())).unwrap_err();
            assert!(matches!(&error, RestoreError::Value { what, .. } if what == name), "{error}");
        }
    }

    #[test]
    fn bytes_are_pairs_of_digits() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Four(#[serde(with = "hex_bytes")] [u8; 4]);
        let value = serde_json::to_value(Four([0, 1, 0xab, 0xff])).unwrap();
        assert_eq!(value, serde_json::json!("0001abff"));
        assert_eq!(serde_json::from_value::<Four>(value).unwrap(), Four([0, 1, 0xab, 0xff]));
        for wrong in ["0001abf", "0001ab", "0001abff00", "0001abfg", "+001abff"] {
            assert!(serde_json::from_value::<Four>(serde_json::json!(wrong)).is_err(), "{wrong}");
        }
    }
}
