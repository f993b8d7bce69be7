//! The accelerators that a user asks for: `--accel zip,translation=ats,zip:pri`.
//!
//! What an accelerator is (its kind) and how it comes to addresses (its translation) are independent of each other. An item of the
//! list begins with a kind; `translation=...` after it belongs to it. `KIND:TRANSLATION` is short for both.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What an accelerator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HiSilicon ZIP: deflate, zlib, gzip
    Zip,
}

/// How an accelerator comes to addresses, and to pages that are not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Translation {
    /// The SMMU translates; accesses to missing pages stall there
    #[default]
    Stall,
    /// A translation cache of its own (ATS); accesses to missing pages stall in the SMMU
    Ats,
    /// A translation cache that requests missing pages (ATS and PRI); nothing stalls
    Pri,
}

/// An accelerator to put into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accelerator {
    /// What it is.
    pub kind: Kind,
    /// How it comes to addresses.
    pub translation: Translation,
}

impl Accelerator {
    /// Whether accesses to missing pages stall.
    #[must_use]
    pub fn can_stall(self) -> bool {
        self.translation != Translation::Pri
    }

    /// Whether it has a translation cache.
    #[must_use]
    pub fn has_ats(self) -> bool {
        self.translation != Translation::Stall
    }
}

impl Default for Accelerator {
    fn default() -> Self {
        Self { kind: Kind::Zip, translation: Translation::default() }
    }
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn one_of<T: ValueEnum>(what: &str, text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names: Vec<_> = T::value_variants().iter().cloned().map(name_of).collect();
        format!("{text:?} is no {what}: there is {}", names.join(", "))
    })
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name_of(self.kind))?;
        match self.translation {
            Translation::Stall => Ok(()),
            other => write!(f, ":{}", name_of(other)),
        }
    }
}

/// Accelerators in PCI order: what one `--accel` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accelerators(pub Vec<Accelerator>);

impl FromStr for Accelerators {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::default());
        }
        let mut all: Vec<Accelerator> = Vec::new();
        // Whether the last one's translation has been given.
        let mut is_given = false;
        for item in text.split(',') {
            if let Some((key, value)) = item.split_once('=') {
                if key != "translation" {
                    return Err(format!("{key:?} is no property of an accelerator: there is translation"));
                }
                let translation = one_of("translation", value)?;
                let last =
                    all.last_mut().ok_or_else(|| format!("{item:?} belongs after a kind: zip,{item}"))?;
                if std::mem::replace(&mut is_given, true) {
                    return Err(format!("{item:?}: the translation of this accelerator is given already"));
                }
                last.translation = translation;
            } else {
                let (kind, translation) = match item.split_once(':') {
                    Some((kind, translation)) => (kind, Some(translation)),
                    None => (item, None),
                };
                is_given = translation.is_some();
                let kind = one_of("kind of accelerator", kind)?;
                let translation = translation.map(|name| one_of("translation", name)).transpose()?;
                all.push(Accelerator { kind, translation: translation.unwrap_or_default() });
            }
        }
        Ok(Self(all))
    }
}

/// The one accelerator of a job that needs one.
///
/// # Errors
/// A line for the user, if it is none, or several.
pub fn parse_one(text: &str) -> Result<Accelerator, String> {
    match text.parse::<Accelerators>()?.0[..] {
        [one] => Ok(one),
        [] => Err("there has to be an accelerator to compress on".to_owned()),
        _ => Err("the job uses one accelerator".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        Ok(text.parse::<Accelerators>()?.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn kinds_and_their_translations_are_given_in_two_forms() {
        assert_eq!(parse("zip"), Ok(vec!["zip".into()]));
        assert_eq!(parse("zip:stall"), Ok(vec!["zip".into()]));
        assert_eq!(
            parse("zip,translation=ats,zip,zip:pri,zip,translation=stall"),
            Ok(vec!["zip:ats".into(), "zip".into(), "zip:pri".into(), "zip".into()])
        );
        assert_eq!(parse("none"), Ok(vec![]));
    }

    #[test]
    fn what_is_unknown_misplaced_or_said_twice_is_named() {
        let error = |text| parse(text).unwrap_err();
        assert_eq!(error("zap"), "\"zap\" is no kind of accelerator: there is zip");
        assert_eq!(error("zip:atc"), "\"atc\" is no translation: there is stall, ats, pri");
        assert_eq!(error("zip,translation=no"), "\"no\" is no translation: there is stall, ats, pri");
        assert_eq!(
            error("zip,queues=3"),
            "\"queues\" is no property of an accelerator: there is translation"
        );
        assert!(error("translation=ats").contains("belongs after a kind"));
        assert!(error("zip:ats,translation=ats").contains("given already"));
        assert!(error("zip,").contains("no kind of accelerator"));
        assert!(error("zip,none").contains("no kind of accelerator"));
    }
}
