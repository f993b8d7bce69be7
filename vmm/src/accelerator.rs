//! The accelerators that a user asks for: `--accel zip,translation=ats,zip:pri`.
//!
//! What an accelerator is (its kind) and how it comes to addresses (its translation) are independent of each other. An item of the
//! list begins with a kind; `translation=...` after it belongs to it. `KIND:TRANSLATION` is short for both.

use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::{fmt, io};

use clap::ValueEnum;
use devices::hisi::zip::ZipEngine;
use devices::hisi::{self, Engine, Function, FunctionWiring};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an accelerator is.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What users call it. The accelerators of a machine are `NAME0`, `NAME1` and so on.
    pub name: &'static str,
    /// A few words on it.
    about: &'static str,
    /// Whether `warpvmm compress` can use it.
    compresses: bool,
    /// Makes one.
    make: fn(FunctionWiring) -> io::Result<Arc<dyn hisi::Accelerator>>,
}

/// All kinds that there are. The first is what a machine has by default.
pub static KINDS: &[Kind] = &[Kind { compresses: true, ..Kind::of::<ZipEngine>() }];

impl Kind {
    const fn of<E: Engine>() -> Self {
        Self {
            name: E::NAME,
            about: E::ABOUT,
            compresses: false,
            make: |wiring| Ok(Function::<E>::new(wiring)?),
        }
    }

    /// An accelerator of this kind, its first workers started.
    ///
    /// # Errors
    /// If there are no threads for them.
    pub(crate) fn make(&self, wiring: FunctionWiring) -> io::Result<Arc<dyn hisi::Accelerator>> {
        (self.make)(wiring)
    }

    fn of_name(name: &str) -> Result<&'static Self, String> {
        let names = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        let found = KINDS.iter().find(|kind| kind.name == name);
        found.ok_or_else(|| format!("{name:?} is no kind of accelerator: there is {}", names()))
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Kind {}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A kind is saved as its name.
mod by_name {
    use super::{Deserialize, Deserializer, Error, Kind, Serializer};

    pub(super) fn serialize<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(kind.name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'static Kind, D::Error> {
        Kind::of_name(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// What `--accel` takes, for people.
pub(crate) static HELP: LazyLock<String> = LazyLock::new(|| {
    let kinds: Vec<_> = KINDS.iter().map(|kind| format!("{} ({})", kind.name, kind.about)).collect();
    let text = "Accelerators, comma-separated: KIND, KIND,translation=T or KIND:T; none for none

KIND: ";
    let translations = "
T: stall (the default: accesses to missing pages stall in the SMMU), ats (a translation cache of its own; accesses to
missing pages stall), pri (a translation cache that requests missing pages; nothing stalls).";
    format!("{text}{}.{translations}", kinds.join(", "))
});

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
    #[serde(with = "by_name")]
    pub kind: &'static Kind,
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
        Self { kind: &KINDS[0], translation: Translation::default() }
    }
}

fn name_of(value: Translation) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn translation(text: &str) -> Result<Translation, String> {
    Translation::from_str(text, false).map_err(|_| {
        let names: Vec<_> = Translation::value_variants().iter().copied().map(name_of).collect();
        format!("{text:?} is no translation: there is {}", names.join(", "))
    })
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)?;
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
                let translation = translation(value)?;
                let last =
                    all.last_mut().ok_or_else(|| format!("{item:?} belongs after a kind: zip,{item}"))?;
                if std::mem::replace(&mut is_given, true) {
                    return Err(format!("{item:?}: the translation of this accelerator is given already"));
                }
                last.translation = translation;
            } else {
                let (kind, given) = match item.split_once(':') {
                    Some((kind, translation)) => (kind, Some(translation)),
                    None => (item, None),
                };
                is_given = given.is_some();
                let kind = Kind::of_name(kind)?;
                let translation = given.map(translation).transpose()?;
                all.push(Accelerator { kind, translation: translation.unwrap_or_default() });
            }
        }
        Ok(Self(all))
    }
}

/// The one accelerator of a job that compresses.
///
/// # Errors
/// A line for the user, if it is none, or several, or one of another kind.
pub fn parse_one(text: &str) -> Result<Accelerator, String> {
    match text.parse::<Accelerators>()?.0[..] {
        [one] => that_compresses(one),
        [] => Err("there has to be an accelerator to compress on".to_owned()),
        _ => Err("the job uses one accelerator".to_owned()),
    }
}

fn that_compresses(accel: Accelerator) -> Result<Accelerator, String> {
    if accel.kind.compresses { Ok(accel) } else { Err(format!("{} does not compress", accel.kind.name)) }
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

    #[test]
    fn every_kind_of_the_table_is_parsed_listed_in_the_help_and_saved_by_its_name() {
        for kind in KINDS {
            assert_eq!(parse(&format!("{}:ats", kind.name)), Ok(vec![format!("{}:ats", kind.name)]));
            assert!(HELP.contains(&format!("{} ({})", kind.name, kind.about)), "{}", *HELP);
            let accel = Accelerator { kind, ..Accelerator::default() };
            let saved = serde_json::json!({ "kind": kind.name, "translation": "stall" });
            assert_eq!(serde_json::to_value(accel).unwrap(), saved);
            assert_eq!(serde_json::from_value::<Accelerator>(saved).unwrap(), accel);
        }
        let unknown = serde_json::json!({ "kind": "zap", "translation": "stall" });
        let error = serde_json::from_value::<Accelerator>(unknown).unwrap_err().to_string();
        assert!(error.contains("no kind of accelerator"), "{error}");
    }

    #[test]
    fn kind_that_does_not_compress_is_refused_by_a_job_that_compresses() {
        static OTHER: Kind = Kind { name: "copy", ..Kind::of::<ZipEngine>() };
        let accel = Accelerator { kind: &OTHER, ..Accelerator::default() };
        assert_eq!(that_compresses(accel), Err("copy does not compress".to_owned()));
        assert_eq!(that_compresses(Accelerator::default()), Ok(Accelerator::default()));
    }
}
