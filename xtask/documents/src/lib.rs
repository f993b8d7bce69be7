//! What the programs have in common that write generated documents, or check that they are current.
//!
//! Each of them makes its documents from what is declared in code, and `cargo xtask docs` and `check` call it with a word and the
//! checkout's folder. Deliberately absent: what the documents say.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// A document: its path in the checkout, and its text.
pub type Document = (String, String);

/// The main function of such a program: writes the documents below the checkout that it is given, or fails if they are others.
pub fn run(program: &str, documents: impl FnOnce(&Path) -> Result<Vec<Document>>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["write", root] => documents(Path::new(root)).and_then(|all| write(Path::new(root), &all)),
        ["check", root] => documents(Path::new(root)).and_then(|all| check(Path::new(root), &all)),
        _ => Err(anyhow::anyhow!("usage: {program} write|check CHECKOUT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(root: &Path, documents: &[Document]) -> Result<()> {
    for (name, text) in documents {
        let path = root.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn check(root: &Path, documents: &[Document]) -> Result<()> {
    let is_stale = |(name, text): &&Document| fs::read_to_string(root.join(name)).ok().as_ref() != Some(text);
    let stale: Vec<&str> = documents.iter().filter(is_stale).map(|(name, _)| name.as_str()).collect();
    if !stale.is_empty() {
        bail!("not current: {}; run: cargo xtask docs", stale.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_current_and_what_is_missing_or_changed_is_named() {
        let root = tempfile::tempdir().unwrap();
        let documents =
            [("docs/a/one.md".to_owned(), "1".to_owned()), ("docs/two.md".to_owned(), "2".to_owned())];
        assert!(check(root.path(), &documents).is_err(), "nothing is there");
        write(root.path(), &documents).unwrap();
        check(root.path(), &documents).unwrap();
        fs::write(root.path().join("docs/two.md"), "3").unwrap();
        let why = check(root.path(), &documents).unwrap_err().to_string();
        assert!(why.contains("docs/two.md") && !why.contains("one.md"), "{why}");
    }
}
