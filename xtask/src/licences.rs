//! Licences of the dependencies: whether each may be combined with our own, and the document that lists them.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Licences without conditions that our `Apache-2.0 OR MIT` could not meet.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// The document, from the output of `cargo metadata`; an error names the packages with other licences.
pub(crate) fn document(metadata: &str) -> Result<String> {
    let metadata: Value =
        serde_json::from_str(metadata).context("cannot read the output of cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;

    let mut by_licence: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut refused = Vec::new();
    // Packages without a source are our own.
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let name = package["name"].as_str().unwrap_or("?");
        match package["license"].as_str() {
            Some(licence) if is_allowed(licence) => by_licence.entry(licence).or_default().push(name),
            licence => refused.push(format!("{name} ({})", licence.unwrap_or("none stated"))),
        }
    }
    if !refused.is_empty() {
        bail!("licences that are not known to be compatible: {}", refused.join(", "));
    }

    let mut text = String::from(
        "# Licences of the dependencies\n\n\
         warpvmm itself is `Apache-2.0 OR MIT`. This list is written by `cargo xtask check --fix` from what each package\n\
         states, and checked by `cargo xtask check`: every expression is met by a choice from\n",
    );
    let allowed: Vec<String> = ALLOWED.iter().map(|licence| format!("`{licence}`")).collect();
    writeln!(text, "{}.\n\n| Licence | Packages |\n|---|---|", allowed.join(", "))?;
    for (licence, mut names) in by_licence {
        names.sort_unstable();
        names.dedup();
        writeln!(text, "| {licence} | {} |", names.join(", "))?;
    }
    Ok(text)
}

/// Whether an SPDX expression leaves a choice of allowed licences. `/` is the old way to write `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0 };
    parser.any() && parser.at == words.len()
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.get(self.at).is_some_and(|next| *next == word);
        self.at += usize::from(found);
        found
    }

    fn any(&mut self) -> bool {
        let mut allowed = self.all();
        while self.take("OR") {
            // Both sides are read in any case.
            allowed |= self.all();
        }
        allowed
    }

    fn all(&mut self) -> bool {
        let mut allowed = self.one();
        while self.take("AND") {
            allowed &= self.one();
        }
        allowed
    }

    fn one(&mut self) -> bool {
        if self.take("(") {
            let allowed = self.any();
            return self.take(")") && allowed;
        }
        let Some(name) = self.words.get(self.at) else { return false };
        self.at += 1;
        let mut licence = (*name).to_owned();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.words.get(self.at).copied().unwrap_or_default());
            self.at += 1;
        }
        ALLOWED.contains(&licence.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expression_is_allowed_if_one_choice_is() {
        assert!(is_allowed("MIT"));
        assert!(is_allowed("MIT OR Apache-2.0"));
        assert!(is_allowed("MIT/Apache-2.0"));
        assert!(is_allowed("GPL-2.0 OR MIT"));
        assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
        assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    }

    #[test]
    fn expression_is_refused_if_every_choice_has_a_foreign_part() {
        assert!(!is_allowed("GPL-2.0"));
        assert!(!is_allowed("MIT AND GPL-2.0"));
        assert!(!is_allowed("(MIT OR Apache-2.0) AND GPL-3.0"));
        assert!(!is_allowed("GPL-2.0 WITH Classpath-exception-2.0"));
    }

    #[test]
    fn expression_that_makes_no_sense_is_refused() {
        assert!(!is_allowed(""));
        assert!(!is_allowed("MIT MIT"));
        assert!(!is_allowed("(MIT"));
        assert!(!is_allowed("MIT WITH"));
    }

    #[test]
    fn document_groups_packages_and_leaves_out_our_own() {
        let metadata = r#"{"packages": [
            {"name": "b", "source": "registry", "license": "MIT"},
            {"name": "a", "source": "registry", "license": "MIT"},
            {"name": "ours", "source": null, "license": "Apache-2.0 OR MIT"}]}"#;

        let document = document(metadata).unwrap();

        assert!(document.contains("| MIT | a, b |\n"));
        assert!(!document.contains("ours"));
    }

    #[test]
    fn package_without_licence_is_named() {
        let metadata = r#"{"packages": [{"name": "x", "source": "registry", "license": null}]}"#;

        assert!(document(metadata).unwrap_err().to_string().ends_with("x (none stated)"));
    }
}
